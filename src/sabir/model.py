"""A model is something that turns a request into deltas: over HTTP, or in this process.

What needs to understand the exchange (retries, caches, budgets) wraps a `Model` and is one.
"""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Literal, Protocol, TypeVar, final
from urllib.parse import urlsplit

from .compression import decompressed
from .credentials import Auth
from .deltas import Delta
from .dialects import Dialect
from .dialects.failures import request_id
from .engines import Engine
from .errors import (
    BadRequestError,
    ConfigurationError,
    DeadlineExceeded,
    EngineError,
    SabirError,
    SabirWarning,
    StreamInterrupted,
    StreamProtocolError,
    UnsupportedError,
)
from .requests import Attempt, HttpRequest, Notice, Request
from .runtime import Line, Reply, Runtime

Asked = TypeVar("Asked")

OnUnsupported = Literal["warn", "raise", "ignore"]
DecodeError = Callable[[int, Mapping[str, str], bytes], SabirError]

MAX_ERROR_BODY = 1 << 20
MAX_ANSWER = 1 << 28
# How long to wait for the end of a body whose answer is complete, so that its connection can be used again.
DRAIN_SECONDS = 0.25


class Exchange:
    """What one call leaves behind besides its deltas; filled by whoever does the work, read when it is over."""

    def __init__(self, line: Line, on_unsupported: OnUnsupported) -> None:
        self.line = line
        self.attempts: list[Attempt] = []
        self.notices: list[Notice] = []
        self.request_id: str | None = None
        self.body: bytes | None = None
        self._on_unsupported = on_unsupported

    def report(self, notices: Iterable[Notice]) -> None:
        """Note what was lowered, before it is sent.

        Raises:
            UnsupportedError: something could not be expressed, and the caller asked for an error then.
        """
        for notice in notices:
            if notice in self.notices:
                continue
            self.notices.append(notice)
            if notice.kind == "unsupported" and self._on_unsupported == "raise":
                raise UnsupportedError(notice.message)
            if notice.kind == "unsupported" and self._on_unsupported == "warn":
                warnings.warn(notice.message, SabirWarning, stacklevel=2)


class Model(Protocol):
    """Request to deltas. They come in batches, one for each read from the network."""

    def deltas(self, request: Request, exchange: Exchange) -> AsyncGenerator[list[Delta], None]: ...

    def explain(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        """What would be sent, without its key, and what was lowered for it."""
        ...


@final
class Endpoint:
    """Where a provider is asked, and with which key: one request at a time, whatever it is about."""

    def __init__(
        self,
        provider: str,
        url: str,
        auth: Auth | None,
        runtime: Runtime,
        headers: tuple[tuple[str, str], ...],
        notices: tuple[Notice, ...] = (),
    ) -> None:
        self._provider = provider
        self._url = url.rstrip("/")
        self._auth = auth
        self._runtime = runtime
        self._headers = headers
        self.notices = notices

    @property
    def server(self) -> str:
        """Who answers there: host and port."""
        return urlsplit(self._url).netloc

    async def send(self, http: HttpRequest, exchange: Exchange, decode_error: DecodeError) -> Reply:
        """Send a request, its url relative to the address; of the reply, the body has not been read.

        Raises:
            SabirError: no answer began, or it is an error.
        """
        exchange.request_id = None
        reply = await self._runtime.send(await self._proven(self._addressed(http)), exchange.line)
        try:
            exchange.request_id = request_id(reply.headers)
            reply = decompressed(reply)
            if (refusal := await self._refusal(reply, decode_error)) is not None:
                raise refusal
        except BaseException:
            reply.close()
            raise
        return reply

    async def fetch(self, http: HttpRequest, exchange: Exchange, decode_error: DecodeError) -> bytes:
        """Send a request and read its whole answer."""
        reply = await self.send(http, exchange, decode_error)
        try:
            return await _read_all(reply, MAX_ANSWER)
        finally:
            reply.close()

    def shown(self, http: HttpRequest) -> HttpRequest:
        """The request as it would be sent, without its key."""
        sent = self._addressed(http)
        proof = tuple((name, "…") for name in sorted(self._auth.names)) if self._auth else ()
        return HttpRequest(sent.method, sent.url, (*sent.headers, *proof), sent.body)

    def told(self, error: SabirError, model: str, exchange: Exchange) -> SabirError:
        """The error with all that is known here, and without the key should a server have repeated it."""
        error.provider = error.provider or self._provider
        error.model = error.model or model
        error.request_id = error.request_id or exchange.request_id
        if self._auth is not None:
            error.message = self._auth.removed_from(error.message)
            error.args = (error.message,)
            error.body = error.body and self._auth.removed_from(error.body)
            error.code = error.code and self._auth.removed_from(error.code)
        # Without the frames below: reports show variables, bodies are among them, and servers repeat keys.
        return error.with_traceback(None)

    def _addressed(self, http: HttpRequest) -> HttpRequest:
        own = {name.lower() for name, _ in http.headers}
        # A header of the caller's takes the place of ours, never of the key.
        ours = tuple(header for header in self._headers if header[0] not in own)
        proof = self._auth.names if self._auth else frozenset[str]()
        theirs = tuple(header for header in http.headers if header[0].lower() not in proof)
        return HttpRequest(http.method, self._url + http.url, (*ours, *theirs), http.body)

    async def _proven(self, http: HttpRequest) -> HttpRequest:
        if self._auth is None:
            return http
        proof = await self._auth.headers(http, self._runtime)
        return HttpRequest(http.method, http.url, (*http.headers, *proof), http.body)

    async def _refusal(self, reply: Reply, decode_error: DecodeError) -> SabirError | None:
        if 200 <= reply.status < 300:
            return None
        if 300 <= reply.status < 400:
            return BadRequestError(
                f"{self._url} answered with a redirect (HTTP {reply.status}), which is never followed, since the key "
                "would go along; set base_url to the final address",
                status=reply.status,
            )
        return decode_error(reply.status, reply.headers, await _read_all(reply, MAX_ERROR_BODY))


@final
class Remote:
    """A model behind HTTP."""

    def __init__(self, dialect: Dialect, endpoint: Endpoint, runtime: Runtime) -> None:
        self._dialect = dialect
        self._endpoint = endpoint
        self._runtime = runtime

    async def deltas(self, request: Request, exchange: Exchange) -> AsyncGenerator[list[Delta], None]:
        try:
            http, notices = encoded(self._dialect.encode_request, request)
            exchange.report((*self._endpoint.notices, *notices))
            reply = await self._endpoint.send(http, exchange, self._dialect.decode_error)
            try:
                if "event-stream" in reply.headers.get("content-type", "") or _is_unlabelled_stream(request, reply):
                    async with aclosing(self._streamed(reply, exchange.line)) as batches:
                        async for batch in batches:
                            yield batch
                            del batch
                else:
                    exchange.body = await _read_all(reply, MAX_ANSWER)
                    yield self._dialect.decode_answer(exchange.body)
            finally:
                reply.close()
        except SabirError as error:
            raise self._endpoint.told(error, request.model, exchange) from None

    def explain(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        http, notices = encoded(self._dialect.encode_request, request)
        return self._endpoint.shown(http), (*self._endpoint.notices, *notices)

    async def _streamed(self, reply: Reply, line: Line) -> AsyncGenerator[list[Delta], None]:
        decoder = self._dialect.decoder()
        try:
            while not decoder.is_over and (data := await reply.read_some()):
                batch = decoder.feed(data)
                del data
                if batch:
                    yield batch
                # A stream that waits for more holds on to nothing of what it has passed on; so it is further up, too.
                del batch
        except StreamInterrupted:
            # Whether an answer is complete is for its format to say, not for the connection.
            yield decoder.close()
            return
        yield decoder.close()
        await self._drain(reply, line)

    async def _drain(self, reply: Reply, line: Line) -> None:
        """Read a complete answer's last bytes; what does not come at once is not waited for."""
        deadline, soon = line.deadline, self._runtime.now() + DRAIN_SECONDS
        line.deadline = soon if deadline is None else min(deadline, soon)
        try:
            while await reply.read_some():
                pass
        except (DeadlineExceeded, StreamInterrupted):
            pass
        finally:
            line.deadline = deadline


@final
class Local:
    """A model in this process."""

    def __init__(
        self,
        provider: str,
        dialect: Dialect | None,
        engine: Engine,
        runtime: Runtime,
        notices: tuple[Notice, ...] = (),
    ) -> None:
        self._provider = provider
        self._notices = notices
        self._dialect = dialect
        self._engine = engine
        self._runtime = runtime

    async def deltas(self, request: Request, exchange: Exchange) -> AsyncGenerator[list[Delta], None]:
        try:
            exchange.report(self._notices)
            if self._dialect is not None:
                exchange.report(encoded(self._dialect.encode_request, request)[1])
            async with aclosing(self._runtime.pull(lambda: self._engine.deltas(request, exchange.line))) as deltas:
                async for delta in deltas:
                    yield [delta]
        except SabirError as error:
            error.provider, error.model = error.provider or self._provider, error.model or request.model
            raise
        except Exception as error:
            raise EngineError(
                f"{self._provider} failed: {type(error).__name__}: {error}",
                provider=self._provider,
                model=request.model,
            ) from error

    def explain(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        if self._dialect is None:
            raise UnsupportedError(f"{self._provider} is an engine without a wire format: there is nothing to show")
        http, notices = encoded(self._dialect.encode_request, request)
        shown = HttpRequest("CALL", f"{self._provider}:{http.url}", http.headers, http.body)
        return shown, (*self._notices, *notices)


def encoded(
    encode: Callable[[Asked], tuple[HttpRequest, tuple[Notice, ...]]], request: Asked
) -> tuple[HttpRequest, tuple[Notice, ...]]:
    """What `encode` makes of a request.

    Raises:
        ConfigurationError: the request holds something that is no JSON.
    """
    try:
        return encode(request)
    except SabirError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"the request cannot be written as JSON: {error}") from None


def _is_unlabelled_stream(request: Request, reply: Reply) -> bool:
    """Whether a stream came that does not say so; a server that ignores the wish to stream labels its JSON."""
    kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    return request.stream and kind != "application/json" and not kind.endswith("+json")


async def _read_all(reply: Reply, most: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while data := await reply.read_some():
        pieces.append(data)
        size += len(data)
        if size > most:
            raise StreamProtocolError(f"the answer is larger than {most} bytes")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
