"""Having a server fetch a model, so that it can be asked. Knows no wire format, and asks no model.

A pull takes as long as its model is large; so no deadline stands over it unless the caller sets one, and silence ends
it. It may be begun anew after any failure that may pass, since a server goes on where it was: what was told of a failed
attempt is no answer that would come twice.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, TypeAlias, TypeVar, final

from .dialects.ollama_pull import OllamaPull, PullProgress, PullRequest
from .errors import SabirError, StreamInterrupted
from .model import Endpoint, Exchange, encoded
from .requests import HttpRequest
from .retry import retried
from .runtime import Reply, Runtime

T = TypeVar("T")

OnProgress: TypeAlias = Callable[[PullProgress], Any]


@final
class Puller:
    """Who is told to fetch models: in which format, where, and how often."""

    def __init__(self, dialect: OllamaPull, endpoint: Endpoint, runtime: Runtime, max_attempts: int) -> None:
        self.dialect = dialect
        self.endpoint = endpoint
        self.runtime = runtime
        self.max_attempts = max_attempts


@final
class Pull:
    """One pull. `done()` does its work, once; `end()` may be called at any time, from any thread."""

    def __init__(
        self,
        puller: Puller,
        request: PullRequest,
        exchange: Exchange,
        timeout: float | None,
        on_progress: OnProgress | None,
    ) -> None:
        self._puller = puller
        self._request = request
        self._exchange = exchange
        self._timeout = timeout
        self._on_progress = on_progress

    async def done(self) -> None:
        """Return when the model is there.

        Raises:
            SabirError: it is not; and whatever `on_progress` raises, as it is.
        """
        puller, exchange = self._puller, self._exchange
        if self._timeout is not None:
            exchange.line.deadline = puller.runtime.now() + self._timeout
        try:
            http, notices = encoded(puller.dialect.encode_request, self._request)
            exchange.report((*puller.endpoint.notices_of(http), *notices))
            attempts = retried(partial(self._attempt, http), exchange, puller.runtime, puller.max_attempts)
            async with aclosing(attempts):
                async for _ in attempts:
                    pass
        except SabirError as error:
            error.warnings = tuple(exchange.notices)
            raise
        except _Raised as raised:
            raise raised.error from None
        finally:
            self.end()

    def end(self) -> None:
        """End what is under way; harmless if nothing is."""
        self._exchange.line.abort()

    async def _attempt(self, http: HttpRequest) -> AsyncGenerator[None, None]:
        endpoint, exchange = self._puller.endpoint, self._exchange
        try:
            reply = await endpoint.send(http, exchange, self._puller.dialect.decode_error)
            try:
                await self._follow(reply)
            finally:
                reply.close()
        except SabirError as error:
            raise endpoint.told(error, self._request.model, exchange) from None
        yield

    async def _follow(self, reply: Reply) -> None:
        decoder = self._puller.dialect.decoder()
        try:
            while not decoder.is_over and (data := await reply.read_some()):
                for progress in decoder.feed(data):
                    await self._tell(progress)
        except StreamInterrupted:
            pass  # Whether all was said is for the format to say, not for the connection.
        for progress in decoder.close():
            await self._tell(progress)

    async def _tell(self, progress: PullProgress) -> None:
        if self._on_progress is None:
            return
        try:
            told = self._on_progress(progress)
            if inspect.isawaitable(told):
                await self._puller.runtime.call(_awaited, told)
        except SabirError as error:
            # Of a call that the caller makes there: it is no failure of the pull, and none to be retried.
            raise _Raised(error) from None


class _Raised(Exception):
    def __init__(self, error: SabirError) -> None:
        super().__init__()
        self.error = error


async def _awaited(given: Awaitable[T]) -> T:
    return await given
