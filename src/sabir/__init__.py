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
    from .catalog import ModelFacts
    from .chat import Chat
    from .chunks import Phase, StreamChunk
    from .client import Client, ask
    from .cost import Cost, Prices, Tier
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
        dump_messages,
        load_messages,
        system,
        user,
    )
    from .providers import Provider, register_provider
    from .requests import (
        Attempt,
        Explanation,
        Notice,
        Options,
        Response,
        Timings,
        ToolSpec,
    )
    from .rerank import Ranked, Reranking
    from .tools import Tool, ToolContext
    from .turn import Stream
    from .usage import Usage

__all__ = [
    "Attempt",
    "Audio",
    "AuthenticationError",
    "BadRequestError",
    "BudgetExceeded",
    "CallEnded",
    "CallStarted",
    "Chat",
    "Client",
    "ClosedError",
    "ConfigurationError",
    "ConnectError",
    "ContentFilterError",
    "ContextOverflowError",
    "Cost",
    "DeadlineExceeded",
    "Embedding",
    "Embeddings",
    "EngineError",
    "FallbackExhaustedError",
    "Explanation",
    "File",
    "FirstToken",
    "Hook",
    "Image",
    "Message",
    "ModelFacts",
    "NotFoundError",
    "Notice",
    "Options",
    "OverloadedError",
    "PermissionDeniedError",
    "Phase",
    "Prices",
    "Pixels",
    "Provider",
    "ProviderError",
    "ProviderState",
    "Ranked",
    "RateLimitError",
    "Refusal",
    "Reranking",
    "Response",
    "SabirError",
    "SabirWarning",
    "ServerError",
    "ServerItem",
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
    "UnsupportedError",
    "Usage",
    "Value",
    "__version__",
    "aio",
    "ask",
    "assistant",
    "audio",
    "dump_messages",
    "errors",
    "file",
    "image",
    "load_messages",
    "register_provider",
    "system",
    "user",
    "video",
]

# Where each name lives; a room is imported when one of its names is first asked for.
_HOMES = {
    "ModelFacts": "catalog",
    "Chat": "chat",
    "Phase": "chunks",
    "StreamChunk": "chunks",
    "Client": "client",
    "ask": "client",
    "Cost": "cost",
    "Prices": "cost",
    "Tier": "cost",
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
    "dump_messages": "messages",
    "load_messages": "messages",
    "system": "messages",
    "user": "messages",
    "Provider": "providers",
    "register_provider": "providers",
    "Attempt": "requests",
    "Explanation": "requests",
    "Notice": "requests",
    "Options": "requests",
    "Response": "requests",
    "Timings": "requests",
    "ToolSpec": "requests",
    "Ranked": "rerank",
    "Reranking": "rerank",
    "Tool": "tools",
    "ToolContext": "tools",
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
