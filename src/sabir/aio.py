"""The awaitable surface: the names of `sabir`, for code that runs on an event loop.

async with sabir.aio.Client("openai:gpt-4o-mini") as client:
    print(await client.ask("Hello"))
"""

from __future__ import annotations

from .batch_results import AsyncBatchResults as BatchResults
from .batches import AsyncBatches as Batches
from .chat import AsyncChat as Chat
from .client import AsyncClient as Client
from .client import async_ask as ask
from .media_calls import AsyncMediaStream as MediaStream
from .speech import AsyncSpeechStream as SpeechStream
from .turn import AsyncStream as Stream

__all__ = ["BatchResults", "Batches", "Chat", "Client", "MediaStream", "SpeechStream", "Stream", "ask"]
