"""The awaitable transport: aiohttp, with one session for each event loop.

A session belongs to its loop and must be closed by it. An async generator holds it, and the loop closes all of those
itself when it ends (`shutdown_asyncgens`), so that one client serves any number of `asyncio.run` and leaves nothing
behind. What happens to an exchange happens on its loop; another thread only asks for it.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import io
import os
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, cast, final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from ..errors import ClosedError, SabirError, StreamInterrupted
from ..requests import HttpRequest
from ..runtime import Line, Outcome
from . import (
    HEADER_LIMIT,
    KEEP_IDLE_SECONDS,
    SOCKET_OPTIONS,
    Origin,
    connect_error,
    connect_limit,
    connect_timeout_error,
    headers,
    interrupted_error,
    locate,
    merged,
    resolve,
    ssl_context,
    timeout_error,
)

# aiohttp hands bytes to the socket in one piece, and warns of it where there are many; a file it sends in pieces.
LARGE_BODY = 2**20


@final
class EventfulReply:
    """An answer on its connection; every method but `close` is for the loop that it came on."""

    status: int
    headers: Mapping[str, str]

    def __init__(self, home: Home, origin: Origin, line: Line) -> None:
        self._home = home
        self._origin = origin
        self._line = line
        self._answer: aiohttp.ClientResponse | None = None
        self.wire: asyncio.Transport | None = None
        self._clock: asyncio.Timeout | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        self._lost: asyncio.Future[None] | None = None
        self._end: SabirError | None = None
        self._is_closed = False
        self._is_read = False

    async def begin(self, request: HttpRequest, head: list[tuple[str, str]]) -> None:
        """Send the request and wait for the head of the answer."""
        line = self._line
        left = line.left()
        limits = aiohttp.ClientTimeout(total=None, connect=connect_limit(line), sock_read=line.idle)
        self._home.replies.add(self)
        token = _beginning.set(self)
        try:
            async with asyncio.timeout(left) as self._clock:
                line.hold(self.close)
                self._answer = await self._home.session.request(
                    request.method,
                    URL(request.url, encoded=True),
                    data=_body(request.body),
                    headers=head,
                    allow_redirects=False,
                    timeout=limits,
                )
            self._clock = None
            if self._is_closed:
                raise line.cut_error()
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:
            raise self._finish(self._failure(error, connect_error)) from None
        except BaseException:
            self._finish(line.cut_error())
            raise
        finally:
            _beginning.reset(token)
        self.status = self._answer.status
        self.headers = merged(self._answer.headers.items())

    async def read_some(self) -> bytes:
        if self._is_read:
            return b""
        if self._end is not None:
            raise self._end
        answer = self._answer
        if answer is None or self._is_closed:
            raise self._finish(self._line.cut_error())
        if not answer.content.is_eof():
            self._watch(answer)
        try:
            data = await answer.content.readany()
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:
            failure = self._failure(error, interrupted_error)
            tail = _unread(answer.content) if isinstance(failure, StreamInterrupted) else b""
            self._finish(failure)
            if tail:
                return tail
            raise failure from None
        except BaseException:
            self._finish(self._line.cut_error())
            raise
        if not data:
            self._is_read = True
            self._finish(self._line.cut_error())
        return data

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._home.do(self._cut)

    def close_dead(self) -> None:
        """Close this where no loop is left to do it on."""
        self._finish(self._line.cut_error())

    def _cut(self) -> None:
        if self._clock is None:
            self._finish(self._line.cut_error())
        elif not self._clock.expired():
            self._clock.reschedule(self._home.loop.time())  # `begin` is waiting, and this ends its wait.

    def _watch(self, answer: aiohttp.ClientResponse) -> None:
        """Before a wait: see to it that the deadline ends it, and so does the connection."""
        if self._deadline != self._line.deadline:
            self._arm()
        connection = answer.connection
        if self._lost is None and connection is not None and connection.protocol is not None:
            self._lost = connection.protocol.closed
            if self._lost is not None:
                self._lost.remove_done_callback(_hear)
                self._lost.add_done_callback(_hear)
                self._lost.add_done_callback(self._lose)

    def _lose(self, _: asyncio.Future[None]) -> None:
        # When chunks are malformed aiohttp hangs up, but does not tell the reader of their body.
        content = cast("aiohttp.ClientResponse", self._answer).content
        if self._end is None and not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("what came is no HTTP"))

    def _arm(self) -> None:
        """Have the exchange cut at the deadline of its line, which may have been moved since the last time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._deadline = self._line.deadline
        if self._deadline is not None:
            self._timer = self._home.loop.call_later(self._deadline - self._line.now(), self._ring)

    def _ring(self) -> None:
        if self._line.is_over():
            self._finish(self._line.deadline_error())
        else:
            self._arm()

    def _finish(self, end: SabirError) -> SabirError:
        """Let go of everything, once; an answer that was not read to its end costs the connection."""
        if self._end is not None:
            return self._end
        self._end = end
        self._clock = None
        self._line.release(self.close)
        self._home.replies.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._lost is not None:
            self._lost.remove_done_callback(self._lose)
        if not self._is_read and self.wire is not None:
            # Not politely, as aiohttp does: that waits until all is sent, and for the other side to end its TLS.
            self.wire.abort()
        if self._answer is not None and not self._answer.closed:
            if self._answer.connection is not None:
                self._answer.connection.close()
            self._answer.close()
        return end

    def _failure(
        self, error: BaseException, otherwise: Callable[[Origin, BaseException | str], SabirError]
    ) -> SabirError:
        line = self._line
        if self._end is not None:
            return self._end
        if line.aborted or self._is_closed:
            return line.cut_error()
        if line.is_over() or type(error) is TimeoutError:
            return line.deadline_error()
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return connect_timeout_error(self._origin, line)
        if isinstance(error, aiohttp.ServerTimeoutError):
            return timeout_error(line)
        return otherwise(self._origin, _cause(error))


@final
class Home:
    """What a transport has on one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, context: ssl.SSLContext) -> None:
        self.loop = loop
        self.replies: set[EventfulReply] = set()
        self.session = aiohttp.ClientSession(
            connector=_Connector(
                limit=0,
                ssl=context,
                resolver=_Resolver(),
                keepalive_timeout=KEEP_IDLE_SECONDS,
                socket_factory=_socket,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            auto_decompress=False,
            trust_env=False,
            max_line_size=HEADER_LIMIT,
            max_field_size=HEADER_LIMIT,
        )
        # There is no public way to say it: a request is made once, and made again only by who counts attempts.
        self.session._retry_connection = False  # pyright: ignore[reportPrivateUsage]
        self._ending: asyncio.Task[None] | None = None

    def do(self, action: Callable[[], object]) -> None:
        """Do something on this loop: now, if it is the one that runs here."""
        if _running_loop() is self.loop:
            action()
        else:
            _call_soon(self.loop, action)

    def end(self, keeper: AsyncGenerator[None, None]) -> None:
        if self._ending is None:
            self._ending = self.loop.create_task(_end(keeper))

    def bury(self) -> None:
        """Close the sockets of a loop that was closed before they were, and without the alarm of those who held them.

        All that the loop's transports still need of it is to be called back, and that can be done at once.
        """
        try:
            _open.remove(self)
        except KeyError:
            return
        connector = self.session.connector
        connections: dict[Any, Any] = {} if connector is None else connector._conns  # pyright: ignore[reportPrivateUsage]
        try:
            self.loop.call_soon = _call_now  # type: ignore[assignment, method-assign]
            for reply in list(self.replies):
                reply.close_dead()
            for kept in connections.values():
                for protocol, _ in kept:
                    protocol.abort()
        except (AttributeError, RuntimeError):
            pass  # Not a loop of the standard library: its sockets are closed when they are collected.
        connections.clear()
        self.session.detach()


# Those not closed yet. They are held here, not by their transports, since aiohttp raises the alarm for a session that
# is collected as garbage; a keeper that is collected has its loop close the session first.
_open: set[Home] = set()


async def _keep(home: Home) -> AsyncGenerator[None, None]:
    """Close a home when its loop ends."""
    _open.add(home)
    try:
        yield
    finally:
        _open.discard(home)
        for reply in list(home.replies):
            reply.close()
        await home.session.close()


async def _end(keeper: AsyncGenerator[None, None]) -> None:
    await keeper.aclose()


@final
class EventfulTransport:
    """A session for each event loop that uses it."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self._homes: dict[asyncio.AbstractEventLoop, tuple[Home, AsyncGenerator[None, None]]] = {}
        self._is_closed = False

    async def send(self, request: HttpRequest, line: Line) -> EventfulReply:
        origin, _ = locate(request.url)
        head = headers(request, origin)
        if self._is_closed:
            raise ClosedError("this client has been closed")
        kept = self._homes.get(asyncio.get_running_loop()) or await self._settle()
        reply = EventfulReply(kept[0], origin, line)
        await reply.begin(request, head)
        return reply

    def close(self) -> None:
        """Cut what is in use and drop what is kept, each on its own loop as soon as that comes to it."""
        self._is_closed = True
        for home, keeper in list(self._homes.values()):
            if home.loop.is_closed():
                home.bury()
            else:
                home.do(functools.partial(home.end, keeper))

    async def _settle(self) -> tuple[Home, AsyncGenerator[None, None]]:
        for home in list(_open):
            if home.loop.is_closed():
                home.bury()
        for loop in list(self._homes):
            if loop.is_closed():
                self._homes.pop(loop, None)
        home = Home(asyncio.get_running_loop(), self._context or ssl_context())
        keeper = _keep(home)
        await anext(keeper)
        self._homes[home.loop] = home, keeper
        return home, keeper


# The reply for which this task is asking aiohttp for a connection.
_beginning: contextvars.ContextVar[EventfulReply] = contextvars.ContextVar("sabir_beginning")


class _Connector(aiohttp.TCPConnector):
    """Tells a reply which connection it has; aiohttp keeps that to itself until the answer comes."""

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        connection = await super().connect(req, traces, timeout)
        _beginning.get().wire = connection.transport
        return connection


class _Resolver(AbstractResolver):
    """Looks up names on threads that nobody waits for; aiohttp's own are the loop's executor's."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Outcome] = loop.create_future()

        def deliver(outcome: Outcome) -> None:
            _call_soon(loop, lambda: None if found.done() else found.set_result(outcome))

        resolve(host, port, deliver)
        return [
            ResolveResult(hostname=host, host=address[0], port=port, family=kind, proto=protocol, flags=0)
            for kind, _, protocol, _, address in (await found).result()
        ]

    async def close(self) -> None:
        pass


def _socket(address: tuple[Any, ...]) -> socket.socket:
    made = socket.socket(*address[:3])
    try:
        for option in SOCKET_OPTIONS:
            made.setsockopt(*option)
    except BaseException:
        made.close()
        raise
    return made


def _body(body: bytes) -> bytes | io.BytesIO | None:
    return io.BytesIO(body) if len(body) > LARGE_BODY else body or None


def _unread(content: aiohttp.StreamReader) -> bytes:
    """What had arrived before the connection broke; aiohttp withholds it once it has an error to report."""
    content.set_exception(cast("BaseException", None))
    return content.read_nowait()


def _cause(error: BaseException) -> BaseException | str:
    """What went wrong, in words without the URL, which aiohttp likes to quote and in which a key may stand."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return error.certificate_error
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error
    if isinstance(error, aiohttp.ClientResponseError):
        return error.message
    if isinstance(error, (aiohttp.ClientPayloadError, UnicodeError)):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return "the connection was closed" if isinstance(error, aiohttp.ServerDisconnectedError) else type(error).__name__


def _hear(closed: asyncio.Future[None]) -> None:
    """An error that nobody asks a future for is logged."""
    if not closed.cancelled():
        closed.exception()


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        pass  # The loop has ended, and with it what was to be done there.


def _call_now(callback: Callable[..., object], *args: Any, context: object = None) -> None:
    callback(*args)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
