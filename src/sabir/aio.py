"""The awaitable surface: the names of `sabir`, for code that runs on an event loop.

async with sabir.aio.Client("openai:gpt-4o-mini") as client:
    print(await client.ask("Hello"))
"""

from __future__ import annotations

from .chat import AsyncChat as Chat
from .client import AsyncClient as Client
from .client import async_ask as ask
from .turn import AsyncStream as Stream

__all__ = ["Chat", "Client", "Stream", "ask"]
