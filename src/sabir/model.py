"""A model is something that turns a request into deltas: over HTTP, or in this process.

What needs to understand the exchange (retries, caches, budgets) wraps a `Model` and is one.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Literal, Protocol, TypeVar, final
from urllib.parse import urlsplit, urlunsplit

from .compression import decompressed
from .credentials import Auth
from .deltas import Delta
from .dialects import Decoder, Dialect
from .dialects.bodies import shown
from .dialects.failures import readable, request_id
from .engines import Engine
from .errors import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    DeadlineExceeded,
    EngineError,
    NotFoundError,
    PermissionDeniedError,
    SabirError,
    SabirWarning,
    StreamInterrupted,
    StreamProtocolError,
    UnsupportedError,
)
from .pages import MOST_SHOWN, no_page
from .requests import Attempt, HttpRequest, Notice, Request
from .runtime import Line, Reply, Runtime
from .wishes import settled, unmet

Asked = TypeVar("Asked")

OnUnsupported = Literal["warn", "raise", "ignore"]
DecodeError = Callable[[int, Mapping[str, str], bytes], SabirError]

MAX_ERROR_BODY = 1 << 20
MAX_ANSWER = 1 << 28
# How long to wait for the end of a body whose answer is complete, so that its connection can be used again.
DRAIN_SECONDS = 0.25
# Server-sent events, Amazon's event streams, lines of JSON.
_STREAMS = re.compile(r"event-?stream$|/x-ndjson$")


class Exchange:
    """What one call leaves behind besides its deltas; filled by whoever does the work, read when it is over."""

    def __init__(self, line: Line, on_unsupported: OnUnsupported) -> None:
        self.line = line
        self.attempts: list[Attempt] = []
        self.notices: list[Notice] = []
        self.request_id: str | None = None
        self.status: int | None = None
        self.body: bytes | None = None
        # What follows is for an answer that is taken up again where it broke off: see `recovery`.
        self.resumes = False
        self.run: Run | None = None
        self.spent = 0
        self.waited = 0.0
        self.is_cost_known = True
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


class Run(Protocol):
    """An answer that goes on at its server, read or not."""

    @property
    def can_go_on(self) -> bool:
        """Whether asking its model once more reads on where reading broke off."""
        ...

    def leave(self) -> None:
        """Have it ended there unless it is over, since nobody will read on. Never blocks."""
        ...


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
        sought: str = "the model's id",
    ) -> None:
        """`sought` is what else may be wrong, beside the address, where a server finds nothing."""
        self._provider = provider
        self._sought = sought
        self._url = url.rstrip("/")
        self._auth = auth
        self._runtime = runtime
        self._headers = headers
        self._notices = notices

    @property
    def server(self) -> str:
        """Who answers there: host and port."""
        return urlsplit(self._url).netloc

    def beside(self, root: str) -> Endpoint:
        """The same server, spoken to in the same way, with `root` before the path of its address."""
        parts = urlsplit(self._url)
        url = urlunsplit(parts._replace(path=root + parts.path))
        return Endpoint(self._provider, url, self._auth, self._runtime, self._headers, self._notices, self._sought)

    def seeking(self, sought: str) -> Endpoint:
        """The same, asked for something else than models."""
        return Endpoint(self._provider, self._url, self._auth, self._runtime, self._headers, self._notices, sought)

    def notices_of(self, http: HttpRequest) -> tuple[Notice, ...]:
        """What a caller has set that does not go along with a request."""
        proof = self._auth.names if self._auth else frozenset[str]()
        lost = (name for name, _ in http.headers if name.lower() in proof)
        how = "what proves who asks stands in its place; pass api_key= instead"
        headers = (Notice("unsupported", "headers", f"the header {name} was not sent: {how}") for name in lost)
        return (*self._notices, *headers)

    async def send(self, http: HttpRequest, exchange: Exchange, decode_error: DecodeError) -> Reply:
        """Send a request, its url relative to the address; of the reply, the body has not been read.

        Raises:
            SabirError: no answer began, or it is an error.
        """
        exchange.request_id = exchange.status = None
        sent = self._addressed(http)
        reply = await self._runtime.send(await self._proven(sent, exchange.line), exchange.line)
        try:
            exchange.request_id, exchange.status = request_id(reply.headers), reply.status
            reply = decompressed(reply)
            if (refusal := await self._refusal(reply, sent.url, decode_error)) is not None:
                raise refusal
            reply = await no_page(reply, sent.url)
        except BaseException:
            reply.close()
            raise
        return reply

    async def fetch(self, http: HttpRequest, exchange: Exchange, decode_error: DecodeError) -> bytes:
        """Send a request and read its whole answer."""
        reply = await self.send(http, exchange, decode_error)
        try:
            return await read_all(reply, MAX_ANSWER)
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
        if error.status == 200:
            # Who reads a whole answer is not told its status, of which there are others.
            error.status = exchange.status or error.status
        if self._auth is not None:
            error.message = self._auth.removed_from(error.message)
            error.args = (error.message,)
            error.body = error.body and self._auth.removed_from(error.body)
            error.code = error.code and self._auth.removed_from(error.code)
        # Without the frames below: reports show variables, bodies are among them, and servers repeat keys.
        return error.with_traceback(None)

    def _addressed(self, http: HttpRequest) -> HttpRequest:
        # A header of the caller's comes last and takes the place of ours, never of the key.
        headers = {name.lower(): (name, value) for name, value in (*self._headers, *http.headers)}
        for name in self._auth.names if self._auth else ():
            headers.pop(name, None)
        return HttpRequest(http.method, self._url + http.url, tuple(headers.values()), http.body)

    async def _proven(self, http: HttpRequest, line: Line) -> HttpRequest:
        if self._auth is None:
            return http
        proof = await self._auth.headers(http, self._runtime, line)
        return HttpRequest(http.method, http.url, (*http.headers, *proof), http.body)

    async def _refusal(self, reply: Reply, url: str, decode_error: DecodeError) -> SabirError | None:
        if 200 <= reply.status < 300:
            return None
        if 300 <= reply.status < 400:
            return BadRequestError(
                f"{self._url} answered with a redirect (HTTP {reply.status}), which is never followed, since the key "
                "would go along; set base_url to the final address",
                status=reply.status,
            )
        error = decode_error(reply.status, reply.headers, await read_all(reply, MAX_ERROR_BODY))
        if isinstance(error, NotFoundError):
            add_words(error, f"asked was {url}: check base_url and {self._sought}")
        if isinstance(error, (AuthenticationError, PermissionDeniedError)):
            source = "nothing was sent to prove who asks: pass api_key="
            add_words(error, source if self._auth is None else f"what proves who asks is {self._auth.source}")
        return error


@final
class Remote:
    """A model behind HTTP."""

    def __init__(self, dialect: Dialect, endpoint: Endpoint, runtime: Runtime) -> None:
        self._dialect = dialect
        self._endpoint = endpoint
        self._runtime = runtime

    async def deltas(self, request: Request, exchange: Exchange) -> AsyncGenerator[list[Delta], None]:
        try:
            http, notices = written(self._dialect, request)
            exchange.report((*self._endpoint.notices_of(http), *notices))
            reply = await self._endpoint.send(http, exchange, self._dialect.decode_error)
            try:
                if is_stream(request, reply):
                    decoder = self._dialect.decoder()
                    async with aclosing(streamed(decoder, reply, exchange.line, self._runtime)) as batches:
                        async for batch in batches:
                            yield batch
                            del batch
                else:
                    exchange.body = await read_all(reply, MAX_ANSWER)
                    yield self._dialect.decode_answer(exchange.body)
            finally:
                reply.close()
        except SabirError as error:
            raise self._endpoint.told(error, request.model, exchange) from None

    def explain(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        http, notices = written(self._dialect, request)
        return self._endpoint.shown(http), (*self._endpoint.notices_of(http), *notices)


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
                exchange.report(written(self._dialect, request)[1])
                request, _ = settled(request)
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
        http, notices = written(self._dialect, request)
        shown = HttpRequest("CALL", f"{self._provider}:{http.url}", http.headers, http.body)
        return shown, (*self._notices, *notices)


def written(dialect: Dialect, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
    """What is sent of a conversation, and what of its wishes is not met.

    Raises:
        ConfigurationError: the request holds something that is no JSON.
    """
    asked, told = settled(request)
    http, notices = encoded(dialect.encode_request, asked)
    return http, (*told, *unmet(asked, notices))


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


async def streamed(decoder: Decoder, reply: Reply, line: Line, runtime: Runtime) -> AsyncGenerator[list[Delta], None]:
    """The deltas of a stream as they come."""
    # What has come, as long as nothing of an answer was in it.
    beginning: bytes | None = b""
    try:
        while not decoder.is_over and (data := await reply.read_some()):
            batch = decoder.feed(data)
            if beginning is not None:
                beginning = None if batch else (beginning + data)[:MOST_SHOWN]
            del data
            if batch:
                yield batch
            # A stream that waits for more holds on to nothing of what it has passed on; so it is further up, too.
            del batch
    except StreamInterrupted:
        # Whether an answer is complete is for its format to say, not for the connection.
        yield _end_of(decoder, beginning, reply.status)
        return
    yield _end_of(decoder, beginning, reply.status)
    await drained(reply, line, runtime)


def _end_of(decoder: Decoder, beginning: bytes | None, status: int) -> list[Delta]:
    """The last deltas of a stream; the error of one that was none says what came instead."""
    try:
        return decoder.close()
    except StreamInterrupted as error:
        if beginning is not None:
            error.status, error.body = status, shown(beginning)
            words = readable(error.body)
            came = f"what came begins with {words[:100]!r}" if words else "nothing came"
            add_words(error, f"{came} (HTTP {status})")
        raise


def add_words(error: SabirError, words: str) -> None:
    """Have an error say something more."""
    error.message = f"{error.message}; {words}"
    error.args = (error.message,)


async def drained(reply: Reply, line: Line, runtime: Runtime) -> None:
    """Read a complete answer's last bytes; what does not come at once is not waited for."""
    deadline, soon = line.deadline, runtime.now() + DRAIN_SECONDS
    line.deadline = soon if deadline is None else min(deadline, soon)
    try:
        while await reply.read_some():
            pass
    except (DeadlineExceeded, StreamInterrupted):
        pass
    finally:
        line.deadline = deadline


def is_stream(request: Request, reply: Reply) -> bool:
    """Whether a stream came: one that says so, asked for or not, or one without a label where one was asked for.

    A server that ignores the wish to stream labels its JSON.
    """
    kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    if _STREAMS.search(kind):
        return True
    return request.stream and kind != "application/json" and not kind.endswith("+json")


async def read_all(reply: Reply, most: int) -> bytes:
    """A whole body.

    Raises:
        StreamProtocolError: it is larger than `most` bytes.
    """
    pieces: list[bytes] = []
    size = 0
    while data := await reply.read_some():
        pieces.append(data)
        size += len(data)
        if size > most:
            raise StreamProtocolError(f"the answer is larger than {most} bytes")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
