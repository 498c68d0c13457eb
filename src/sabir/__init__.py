"""Sabir speaks to every language model, in the cloud or in this process, through one set of plain types.

    import sabir

    print(sabir.ask("What is the capital of Norway?"))

Everything here is loaded at its first use. `sabir.aio` has the same for code that runs on an event loop.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from . import aio, errors
    from .batch_results import BatchResult, BatchResults
    from .batcher import Batch
    from .batches import Batches
    from .catalog import ModelFacts
    from .chat import Chat
    from .chunks import Phase, StreamChunk
    from .client import Client, ask
    from .cost import Cost, Prices, Tier
    from .dialects.media_formats import Segment, Word
    from .dialects.ollama_pull import PullProgress
    from .embeddings import Embedding, Embeddings
    from .errors import (
        AuthenticationError,
        BadRequestError,
        BudgetExceeded,
        ClosedError,
        ConfigurationError,
        ConnectError,
        ContentFilterError,
        ContextOverflowError,
        DeadlineExceeded,
        EngineError,
        FallbackExhaustedError,
        NotFoundError,
        OverloadedError,
        PermissionDeniedError,
        ProviderError,
        RateLimitError,
        SabirError,
        SabirWarning,
        ServerError,
        StorageError,
        StreamInterrupted,
        StreamProtocolError,
        StructuredOutputError,
        ToolError,
        UnsupportedError,
    )
    from .hooks import CallEnded, CallStarted, FirstToken, Hook
    from .media import Pixels, audio, file, image, video
    from .media_calls import MediaStream
    from .messages import (
        Audio,
        File,
        Image,
        Message,
        ProviderState,
        Refusal,
        ServerItem,
        Text,
        Thinking,
        ToolCall,
        ToolResult,
        Value,
        assistant,
        cached,
        dump_messages,
        load_messages,
        system,
        user,
    )
    from .options import BatchOptions, Call, CompletionOptions, EmbeddingOptions, RerankOptions, Settings
    from .pictures import ImageOptions, ImageResponse
    from .providers import Provider, register_provider
    from .requests import (
        Attempt,
        CacheReport,
        Explanation,
        Notice,
        Options,
        Response,
        Timings,
        ToolSpec,
    )
    from .rerank import Ranked, Reranking
    from .schema_lint import SchemaFinding, lint_schema
    from .speech import SpeechOptions, SpeechResponse, SpeechStream
    from .tools import Tool, ToolContext
    from .transcripts import Transcription, TranscriptOptions
    from .turn import Stream
    from .usage import Usage

__all__ = [
    "Attempt",
    "Audio",
    "AuthenticationError",
    "BadRequestError",
    "Batch",
    "BatchOptions",
    "BatchResult",
    "BatchResults",
    "Batches",
    "BudgetExceeded",
    "CacheReport",
    "Call",
    "CallEnded",
    "CallStarted",
    "Chat",
    "Client",
    "ClosedError",
    "CompletionOptions",
    "ConfigurationError",
    "ConnectError",
    "ContentFilterError",
    "ContextOverflowError",
    "Cost",
    "DeadlineExceeded",
    "Embedding",
    "EmbeddingOptions",
    "Embeddings",
    "EngineError",
    "Explanation",
    "FallbackExhaustedError",
    "File",
    "FirstToken",
    "Hook",
    "Image",
    "ImageOptions",
    "ImageResponse",
    "MediaStream",
    "Message",
    "ModelFacts",
    "NotFoundError",
    "Notice",
    "Options",
    "OverloadedError",
    "PermissionDeniedError",
    "Phase",
    "Pixels",
    "Prices",
    "Provider",
    "ProviderError",
    "ProviderState",
    "PullProgress",
    "Ranked",
    "RateLimitError",
    "Refusal",
    "RerankOptions",
    "Reranking",
    "Response",
    "SabirError",
    "SabirWarning",
    "SchemaFinding",
    "Segment",
    "ServerError",
    "ServerItem",
    "Settings",
    "SpeechOptions",
    "SpeechResponse",
    "SpeechStream",
    "StorageError",
    "Stream",
    "StreamChunk",
    "StreamInterrupted",
    "StreamProtocolError",
    "StructuredOutputError",
    "Text",
    "Thinking",
    "Tier",
    "Timings",
    "Tool",
    "ToolCall",
    "ToolContext",
    "ToolError",
    "ToolResult",
    "ToolSpec",
    "TranscriptOptions",
    "Transcription",
    "UnsupportedError",
    "Usage",
    "Value",
    "Word",
    "__version__",
    "aio",
    "ask",
    "assistant",
    "audio",
    "cached",
    "dump_messages",
    "errors",
    "file",
    "image",
    "lint_schema",
    "load_messages",
    "register_provider",
    "system",
    "user",
    "video",
]

# Where each name lives; a room is imported when one of its names is first asked for.
_HOMES = {
    "BatchResult": "batch_results",
    "BatchResults": "batch_results",
    "Batch": "batcher",
    "Batches": "batches",
    "ModelFacts": "catalog",
    "Chat": "chat",
    "Phase": "chunks",
    "StreamChunk": "chunks",
    "Client": "client",
    "ask": "client",
    "Cost": "cost",
    "Prices": "cost",
    "Tier": "cost",
    "PullProgress": "dialects.ollama_pull",
    "Segment": "dialects.media_formats",
    "Word": "dialects.media_formats",
    "Embedding": "embeddings",
    "Embeddings": "embeddings",
    "AuthenticationError": "errors",
    "BadRequestError": "errors",
    "BudgetExceeded": "errors",
    "ClosedError": "errors",
    "ConfigurationError": "errors",
    "ConnectError": "errors",
    "ContentFilterError": "errors",
    "ContextOverflowError": "errors",
    "DeadlineExceeded": "errors",
    "EngineError": "errors",
    "FallbackExhaustedError": "errors",
    "NotFoundError": "errors",
    "OverloadedError": "errors",
    "PermissionDeniedError": "errors",
    "ProviderError": "errors",
    "RateLimitError": "errors",
    "SabirError": "errors",
    "SabirWarning": "errors",
    "ServerError": "errors",
    "StorageError": "errors",
    "StreamInterrupted": "errors",
    "StreamProtocolError": "errors",
    "StructuredOutputError": "errors",
    "ToolError": "errors",
    "UnsupportedError": "errors",
    "CallEnded": "hooks",
    "CallStarted": "hooks",
    "FirstToken": "hooks",
    "Hook": "hooks",
    "Pixels": "media",
    "audio": "media",
    "file": "media",
    "image": "media",
    "video": "media",
    "MediaStream": "media_calls",
    "Audio": "messages",
    "File": "messages",
    "Image": "messages",
    "Message": "messages",
    "ProviderState": "messages",
    "Refusal": "messages",
    "ServerItem": "messages",
    "Text": "messages",
    "Thinking": "messages",
    "ToolCall": "messages",
    "ToolResult": "messages",
    "Value": "messages",
    "assistant": "messages",
    "cached": "messages",
    "dump_messages": "messages",
    "load_messages": "messages",
    "system": "messages",
    "user": "messages",
    "BatchOptions": "options",
    "Call": "options",
    "CompletionOptions": "options",
    "EmbeddingOptions": "options",
    "RerankOptions": "options",
    "Settings": "options",
    "ImageOptions": "pictures",
    "ImageResponse": "pictures",
    "Provider": "providers",
    "register_provider": "providers",
    "Attempt": "requests",
    "CacheReport": "requests",
    "Explanation": "requests",
    "Notice": "requests",
    "Options": "requests",
    "Response": "requests",
    "Timings": "requests",
    "ToolSpec": "requests",
    "Ranked": "rerank",
    "Reranking": "rerank",
    "SchemaFinding": "schema_lint",
    "lint_schema": "schema_lint",
    "SpeechOptions": "speech",
    "SpeechResponse": "speech",
    "SpeechStream": "speech",
    "Tool": "tools",
    "ToolContext": "tools",
    "Transcription": "transcripts",
    "TranscriptOptions": "transcripts",
    "Stream": "turn",
    "Usage": "usage",
}


def __getattr__(name: str) -> Any:
    if name in ("aio", "errors"):
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
