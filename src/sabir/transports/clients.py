"""Transports made of an HTTP client that the caller already has: of httpx, httpx2 or aiohttp. It is never closed here.

Its proxies, certificates, credentials, cookies, limits and hooks stay its own. Ours are: one request that is not
redirected, an answer that is not decompressed, the limits of a line, and the words of the errors. So:

- Whoever waits is let go in time, whatever the client does. What the client was doing may go on for a while where its
  connection cannot be reached: with a blocking httpx, before an answer has come on a connection that it kept, and on
  HTTP/2, where others may share it; with the awaitable ones in a handshake of TLS, with aiohttp while it sends a body.
  The client's own limits, set to end soon after the line's, end it then; as they are for each wait anew, a server that
  drips headers can keep it for longer, until httpx finds them too long.
- One attempt is what the client makes of it: `retries=` of an httpx transport are its own, as is aiohttp's second try
  of a GET whose kept connection turned out to be closed.
- A URL goes out byte for byte, unless the client adds `params=` of its own or has a transport of its own.

None of these libraries is imported: whoever has a client has its library.
"""

from __future__ import annotations

import asyncio
import io
import os
import queue
import socket
import ssl
import sys
import weakref
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar, final

from ..errors import ClosedError, SabirError
from ..loops import Cut, Loop, loop_here
from ..requests import HttpRequest
from ..runtime import Line, Outcome, spawn
from . import (
    HEADER_LIMIT,
    OTHER_PROTOCOL,
    HttpClient,
    HttpSession,
    Origin,
    Place,
    connect_error,
    connect_limit,
    connect_timeout_error,
    headers,
    interrupted_error,
    locate,
    merged,
)

T = TypeVar("T")

Headers = list[tuple[str, str]]

LARGE_BODY = 2**20

# How many pieces of a body a thread may bring before they are taken: to change threads costs more than a piece.
READ_AHEAD = 16

# By the names of their errors, since their libraries are not imported.
_CONNECTING = {"ConnectTimeout", "PoolTimeout", "ConnectionTimeoutError"}
_WAITING = {"TimeoutException", "TimeoutError"}
_PACKAGES = {"httpx", "httpcore", "httpx2", "httpcore2", "aiohttp"}


class Exchange(Protocol):
    """One request to somebody's client, and its answer. Its waits are as long as they are told, or a TimeoutError."""

    async def ask(self, limit: float | None) -> tuple[int, Mapping[str, str]]:
        """Send the request; the status and the headers of its answer."""
        ...

    async def next(self, limit: float | None) -> bytes | None:
        """The next bytes of the body; None at its end, when the client has its connection back."""
        ...

    def leave(self) -> None:
        """Wake who waits, with any error, and let go of the answer. Plain, legal from any thread."""
        ...


@final
class ClientReply:
    """An answer that somebody's client has got."""

    status: int
    headers: Mapping[str, str]

    def __init__(self, transport: _ClientTransport, exchange: Exchange, origin: Origin, line: Line) -> None:
        self._transport = transport
        self._exchange = exchange
        self._origin = origin
        self._line = line
        self._open = [True]  # Popped by whoever ends it first.
        self._is_read = False
        self.mark = weakref.ref(self)

    async def begin(self) -> None:
        """Send the request and wait for the head of the answer."""
        try:
            self._line.hold(self.close)
            self.status, self.headers = await self._exchange.ask(self._line.left())
            if not self._open:
                raise self._line.cut_error()
            if self.status < 200:  # aiohttp hands it on as an answer.
                raise connect_error(self._origin, OTHER_PROTOCOL)
        except Exception as error:  # noqa: BLE001 - a client has hooks, which raise what they like
            raise self._failure(error, connect_error) from None
        except BaseException:
            self.close()
            raise

    async def read_some(self) -> bytes:
        if self._is_read:
            return b""
        try:
            if not self._open:
                raise self._line.cut_error()
            while (data := await self._exchange.next(self._line.left(self._line.idle))) is not None:
                if data:
                    return data
            self._finish()
            return b""
        except Exception as error:  # noqa: BLE001 - a client has transports, which raise what they like
            raise self._failure(error, interrupted_error) from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        try:
            self._open.pop()
        except IndexError:
            return
        self._forget()
        self._exchange.leave()

    def __del__(self) -> None:
        self.close()

    def _finish(self) -> None:
        try:
            self._open.pop()
        except IndexError:
            raise self._line.cut_error() from None
        self._is_read = True
        self._forget()

    def _forget(self) -> None:
        self._line.release(self.close)
        self._transport.forget(self)

    def _failure(self, error: Exception, otherwise: Callable[[Place, BaseException | str], SabirError]) -> SabirError:
        line = self._line
        was_open = bool(self._open)
        self.close()
        if line.aborted or not was_open:
            return line.cut_error()
        if isinstance(error, SabirError):
            return error
        names = {kind.__name__ for kind in type(error).__mro__}
        if names & _CONNECTING:
            return connect_timeout_error(self._origin, line)
        if line.is_over():
            return line.deadline_error()
        return line.timeout_error() if names & _WAITING else otherwise(self._origin, _cause(error))


class _ClientTransport:
    """What makes a transport of a client that can be asked whether it is closed."""

    def __init__(
        self, is_closed: Callable[[], bool], exchange: Callable[[HttpRequest, str, Headers, Line], Exchange]
    ) -> None:
        self._client_is_closed = is_closed
        self._exchange = exchange
        self._replies: set[weakref.ref[ClientReply]] = set()
        self._is_closed = False

    async def send(self, request: HttpRequest, line: Line) -> ClientReply:
        origin, target = locate(request.url)
        head = headers(request, origin)
        line.left()
        if self._client_is_closed():
            raise ClosedError("the HTTP client that was given as transport= has been closed")
        reply = ClientReply(self, self._exchange(request, target, head, line), origin, line)
        self._replies.add(reply.mark)
        if self._is_closed:
            reply.close()
            raise ClosedError("this client has been closed")
        await reply.begin()
        return reply

    def close(self) -> None:
        """Cut what is in use; the client stays open."""
        self._is_closed = True
        for mark in list(self._replies):
            if (reply := mark()) is not None:
                reply.close()

    def forget(self, reply: ClientReply) -> None:
        self._replies.discard(reply.mark)


@final
class HttpxClient(_ClientTransport):
    """A blocking client of httpx or httpx2."""

    def __init__(self, client: HttpClient) -> None:
        def exchange(request: HttpRequest, target: str, head: Headers, line: Line) -> Exchange:
            return _HttpxExchange(client, lambda: _built(client, request, target, head, line))

        super().__init__(lambda: client.is_closed, exchange)


@final
class AsyncHttpxClient(_ClientTransport):
    """An awaitable client of httpx or httpx2, on asyncio or trio."""

    def __init__(self, client: HttpClient) -> None:
        def exchange(request: HttpRequest, target: str, head: Headers, line: Line) -> Exchange:
            return _AsyncHttpxExchange(client, lambda: _built(client, request, target, head, line))

        super().__init__(lambda: client.is_closed, exchange)


@final
class AiohttpSession(_ClientTransport):
    """A session of aiohttp."""

    def __init__(self, session: HttpSession) -> None:
        def exchange(request: HttpRequest, _: str, head: Headers, line: Line) -> Exchange:
            return _AiohttpExchange(session, request, head, line)

        super().__init__(lambda: session.closed, exchange)


def _built(client: HttpClient, request: HttpRequest, target: str, head: Headers, line: Line) -> Any:
    """A request of httpx, with what the client adds to each of its own."""
    connect, wait = connect_limit(line), line.idle
    if (left := line.left()) is not None:
        # Whoever waits is let go before this, and what is left behind is to end as well.
        connect, wait = (left + 1 if limit is None else min(limit, left + 1) for limit in (connect, wait))
    limits = (connect, wait, wait, connect)
    built = client.build_request(request.method, request.url, headers=head, content=request.body, timeout=limits)
    if not client.params:
        built.extensions["target"] = target.encode()
    return built


@final
class _HttpxExchange:
    """It goes on on a thread of its own, as nothing in httpx reaches a connection before its answer has come.

    Who asked waits for what that thread brings, and may leave at any time.
    """

    def __init__(self, client: HttpClient, build: Callable[[], Any]) -> None:
        self._client = client
        self._build = build
        self._way = _Way()
        self._wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._came: queue.SimpleQueue[Outcome] = queue.SimpleQueue()

    async def ask(self, limit: float | None) -> tuple[int, Mapping[str, str]]:
        request = self._build()
        request.extensions["trace"] = self._way.note
        # The thread is not given this object, which is then seen to be dropped.
        client, way, wanted, came = self._client, self._way, self._wanted, self._came
        spawn(lambda: came.put(Outcome.of(lambda: _bring(client, request, way, wanted, came))))
        status, pairs = self._wait(limit).result()
        for _ in range(READ_AHEAD):
            self._wanted.put(True)
        return status, merged(pairs)

    async def next(self, limit: float | None) -> bytes | None:
        pieces: list[bytes] = []
        while not pieces or not self._came.empty():
            outcome = self._wait(limit)
            if outcome.error is not None or outcome.value is None:
                if not pieces:
                    outcome.result()
                    return None
                self._came.put(outcome)  # Its turn is after what came before it.
                break
            pieces.append(outcome.value)
            self._wanted.put(True)
        return b"".join(pieces)

    def leave(self) -> None:
        self._way.cut()
        self._wanted.put(False)
        self._came.put(Outcome(None, ClosedError("left")))

    def _wait(self, limit: float | None) -> Outcome:
        try:
            return self._came.get(timeout=limit)
        except queue.Empty:
            raise TimeoutError("nothing came in time") from None


def _bring(
    client: HttpClient,
    request: Any,
    way: _Way,
    wanted: queue.SimpleQueue[bool],
    came: queue.SimpleQueue[Outcome],
) -> None:
    """The work of the thread: bring the head, then a piece of the body whenever one is wanted."""
    answer = client.send(request, stream=True, follow_redirects=False)
    try:
        way.see(answer.extensions.get("network_stream"))
        came.put(Outcome((answer.status_code, _pairs(answer)), None))
        # A hook of the caller's may have read it.
        pieces = iter([answer.content]) if answer.is_stream_consumed else answer.iter_raw()
        while wanted.get() and not way.is_cut and (piece := next(pieces, None)) is not None:
            came.put(Outcome(piece, None))
    finally:
        Outcome.of(answer.close)  # What may go wrong with it is nobody's any more.


@final
class _Way:
    """The connection of a blocking exchange, once it can be seen."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._stream: Any = None
        self._is_shared = False
        self.is_cut = False

    def note(self, event: str, info: Mapping[str, Any]) -> None:
        """Hear from httpcore what it does."""
        if event.startswith("http2."):
            self._is_shared = True
        elif event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self.see(info["return_value"])

    def see(self, stream: Any) -> None:
        self._stream = stream
        if self.is_cut:
            self.cut()

    def cut(self) -> None:
        """End every wait for this connection, unless others may share it."""
        self.is_cut = True
        held = None if self._stream is None else self._stream.get_extra_info("socket")
        if isinstance(held, socket.socket) and not self._is_shared and self._process == os.getpid():
            try:
                # Not `held.shutdown`: that of a TLS socket takes its state away from under the reader.
                socket.socket.shutdown(held, socket.SHUT_RDWR)
            except OSError:
                pass


class _Awaitable(ABC):
    """What the awaitable exchanges have in common: they end on the loop that they began on, after whoever waits."""

    def __init__(self) -> None:
        self._loop: Loop | None = None
        self._cut = Cut()
        self._is_left = False

    async def limited(self, work: Callable[[], Awaitable[T]], limit: float | None) -> T:
        if self._loop is None:
            self._loop = loop_here()
        if self._is_left:
            raise ClosedError("left")
        try:
            return await self._loop.limited(work, limit, self._cut)
        finally:
            if self._is_left:
                self.let_go(self._loop)

    def leave(self) -> None:
        self._is_left = True
        if (loop := self._loop) is not None:
            loop.do(lambda: self.let_go(loop) if self._cut.action is None else self._cut.action())

    @abstractmethod
    def let_go(self, loop: Loop) -> None:
        """Give the answer up, if there is one."""


@final
class _AsyncHttpxExchange(_Awaitable):
    def __init__(self, client: HttpClient, build: Callable[[], Any]) -> None:
        super().__init__()
        self._client = client
        self._build = build
        self._answer: Any = None
        self._pieces: AsyncIterator[bytes] | None = None

    async def ask(self, limit: float | None) -> tuple[int, Mapping[str, str]]:
        answer = await self.limited(self._send, limit)
        return answer.status_code, merged(_pairs(answer))

    async def next(self, limit: float | None) -> bytes | None:
        pieces = self._pieces
        if pieces is None:
            answer = self._answer
            # A hook of the caller's may have read it.
            pieces = self._pieces = _one(answer.content) if answer.is_stream_consumed else answer.aiter_raw()
        return await self.limited(lambda: anext(pieces, None), limit)

    def let_go(self, loop: Loop) -> None:
        if self._answer is not None:
            loop.leave(lambda: self._close(loop))

    async def _close(self, loop: Loop) -> None:
        await self._answer.aclose()
        # Generators in generators, which trio complains of when they are collected unfinished: so they are finished.
        if (pieces := self._pieces) is not None:
            while await loop.limited(lambda: anext(pieces, None), 0, Cut()) is not None:
                pass

    async def _send(self) -> Any:
        self._answer = await self._client.send(self._build(), stream=True, follow_redirects=False)
        return self._answer


@final
class _AiohttpExchange(_Awaitable):
    def __init__(self, session: HttpSession, request: HttpRequest, head: Headers, line: Line) -> None:
        super().__init__()
        self._session = session
        self._request = request
        self._head = head
        self._line = line
        self._answer: Any = None
        self._lost: asyncio.Future[None] | None = None
        self._failure: Exception | None = None

    async def ask(self, limit: float | None) -> tuple[int, Mapping[str, str]]:
        answer = await self.limited(self._send, limit)
        return answer.status, merged(answer.headers.items())

    async def next(self, limit: float | None) -> bytes | None:
        if self._failure is not None:
            raise self._failure
        content = self._answer.content
        try:
            if data := await self.limited(content.readany, limit):
                return bytes(data)
            self._unwatch()
            return None
        except Exception as error:
            if error is not content.exception():
                raise
            # What had arrived before it broke off: aiohttp withholds it once it has an error to report.
            self._failure = error
            content.set_exception(None)
            if data := content.read_nowait():
                return bytes(data)
            raise

    def let_go(self, loop: Loop) -> None:
        self._unwatch()
        if self._answer is not None:
            connection = self._answer.connection
            if connection is not None and connection.transport is not None:
                # Not politely, as aiohttp does: that waits for the other side to end its TLS.
                connection.transport.abort()
            self._answer.close()

    async def _send(self) -> Any:
        request, line = self._request, self._line
        limits = {"connect": connect_limit(line), "sock_read": line.idle}
        self._answer = await self._session.request(
            request.method,
            sys.modules["yarl"].URL(request.url, encoded=True),
            # It warns of many bytes, as it sends them in one piece; a file it sends in several.
            data=io.BytesIO(request.body) if len(request.body) > LARGE_BODY else request.body or None,
            headers=self._head,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            allow_redirects=False,
            auto_decompress=False,
            raise_for_status=False,
            max_line_size=HEADER_LIMIT,
            max_field_size=HEADER_LIMIT,
            timeout=sys.modules["aiohttp"].ClientTimeout(total=None, **limits),
        )
        if (connection := self._answer.connection) is not None and connection.protocol is not None:
            self._lost = connection.protocol.closed
            if self._lost is not None:
                self._lost.add_done_callback(self._lose)
        return self._answer

    def _unwatch(self) -> None:
        if self._lost is not None:
            self._lost.remove_done_callback(self._lose)

    def _lose(self, lost: asyncio.Future[None]) -> None:
        # When chunks are malformed aiohttp hangs up, but does not tell the reader of their body.
        content = self._answer.content
        if not lost.cancelled():
            lost.exception()  # An error that nobody asks a future for is logged.
        if not content.is_eof() and content.exception() is None:
            content.set_exception(OSError("the connection was closed before the body was complete"))


def _pairs(answer: Any) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers.raw]


async def _one(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _cause(error: BaseException) -> BaseException | str:
    """What went wrong: the error of the network, if there is one below; else words, in which no URL may stand."""
    below: BaseException | None = error
    while below is not None:
        is_of_network = isinstance(below, ssl.SSLError | UnicodeError) or getattr(below, "errno", None) is not None
        if is_of_network and not _is_of_library(below):
            return below
        below = below.__cause__ or below.__context__
    words = str(getattr(error, "message", "") or error)
    # A hook's error may quote a URL, and in some a key stands.
    return words if _is_of_library(error) and "://" not in words else type(error).__name__


def _is_of_library(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in _PACKAGES
