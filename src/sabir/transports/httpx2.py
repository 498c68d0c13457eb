"""The transport of both colours on httpcore2, the engine of httpx2: HTTP/2, SOCKS proxies, asyncio and trio.

httpcore2 has two halves that are twins, one blocking and one awaitable. Seen as coroutines they are one here, and the
rest is written once. It is used for how HTTP is spoken and no more: its timeouts begin anew with every wait, so its
sockets are `wires`; a lock of its pool may stay held when Ctrl-C strikes, so the pool is made of deques. And since to
cut one of several exchanges on an HTTP/2 connection, or to wait for a silent one, would end or stall the others, an
exchange has its connection to itself there too, and leaving it early costs the connection.
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Generator, Iterable, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol, cast, final

import anyio
import httpcore2

from ..errors import ClosedError, ConfigurationError, SabirError
from ..loops import loop_here, runs_trio
from ..requests import HttpRequest
from ..runtime import Line, run
from . import (
    HEADER_LIMIT,
    KEEP_IDLE_SECONDS,
    SYSTEM,
    Network,
    Origin,
    Place,
    connect_error,
    connect_timeout_error,
    headers,
    interrupted_error,
    locate,
    merged,
    proxy_error,
    refusal_by,
    ssl_context,
)
from .proxies import Proxy
from .sockets import is_ready, popped, tell_of_forks
from .tls import Tls
from .wires import Secure, Stream, Wire

# httpcore2 sets the protocols (ALPN) of a context that it is given, and ours serve others too. So it is given these,
# which are used for nothing but to tell one end of a connection from another.
_OF_SERVER, _OF_PROXY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


Trace = Callable[[str, dict[str, Any]], None]


class Way(NamedTuple):
    """Where a connection leads, and how; those of one way are interchangeable."""

    origin: Origin
    proxy: Proxy | None
    # httpcore2's awaitable connections have locks of the library that they were first used with.
    library: str


@final
class Link:
    """A connection of httpcore2 and its wire; it carries one exchange after the other."""

    def __init__(self, way: Way, wire: Wire, connection: Any) -> None:
        self.way = way
        self.wire = wire
        self.connection = connection
        # What it has come to: who would be to blame for a failure.
        self.place: Place = way.proxy or way.origin
        self.idle_since = 0.0


@final
class Pool:
    """Idle connections, for any number of threads; the one used last is the next.

    No lock is held, as an interrupt could leave it so: `append` and `pop` of a deque are atomic.
    """

    def __init__(self) -> None:
        self._kept: dict[Way, deque[Link]] = {}

    def take(self, way: Way) -> Link | None:
        """A connection that can be used at once, if there is one."""
        kept = self._kept.get(way)
        while kept and (link := popped(kept)) is not None:
            if link.idle_since > time.monotonic() - KEEP_IDLE_SECONDS and link.wire.is_usable():
                return link
            link.wire.close()
        return None

    def put(self, link: Link) -> None:
        """Keep a connection, and drop those of its way that have been idle for too long."""
        now = link.idle_since = time.monotonic()
        kept = self._kept.get(link.way)
        if kept is None:
            kept = self._kept.setdefault(link.way, deque())
        kept.append(link)
        try:
            while kept[0].idle_since < now - KEEP_IDLE_SECONDS:
                kept.popleft().wire.close()
        except IndexError:
            pass  # Others have taken them.

    def clear(self) -> None:
        """Drop them all."""
        for kept in list(self._kept.values()):
            while (link := popped(kept)) is not None:
                link.wire.close()


class Half(Protocol):
    """One half of httpcore2, as coroutines."""

    pool: Any  # its class of pools

    def library(self) -> str: ...

    def wire(self, line: Line) -> Wire: ...

    def backend(self, wire: Wire, network: Network) -> Any: ...

    def tracer(self, trace: Trace) -> Any:
        """`trace` as this half calls it."""
        ...

    async def ask(self, connection: Any, request: httpcore2.Request) -> httpcore2.Response: ...

    def pieces(self, answer: httpcore2.Response) -> Any:
        """The body, piece by piece: a generator."""
        ...

    async def next(self, pieces: Any) -> bytes | None:
        """The next piece; None after the last."""
        ...

    async def finish(self, answer: httpcore2.Response) -> None:
        """Tell the connection that its exchange is over."""
        ...

    def dropper(self) -> Callable[[Any], None]:
        """What ends the body that nobody reads to its end: a plain function, legal from any thread."""
        ...


@final
class Httpx2Reply:
    """An answer on its connection.

    `_open` and `_held` have one item, and to pop it is to decide. Of `_open`: what becomes of the connection; at the
    end of the body the reader keeps it for the next request, `close` cuts it. Of `_held`: to let go of it, which is
    left to the reader while there is one, as closing a socket does not wake who waits for it.
    """

    status: int
    headers: Mapping[str, str]

    def __init__(self, transport: Httpx2Transport, half: Half, link: Link, line: Line) -> None:
        self._transport = transport
        self._half = half
        self._link = link
        self._line = line
        self._answer: httpcore2.Response | None = None
        self._pieces: Any = None
        self._drop: Callable[[Any], None] | None = None
        self._open = [True]
        self._held = [True]
        self._is_busy = False
        self._is_read = False
        self.mark = weakref.ref(self)

    async def begin(self, request: httpcore2.Request) -> None:
        """Send the request and read the head of the answer."""
        self._is_busy = True
        try:
            self._link.wire.line = self._line
            self._line.hold(self.close)
            answer = self._answer = await self._half.ask(self._link.connection, request)
            self._pieces, self._drop = self._half.pieces(answer), self._half.dropper()
            self.status = answer.status
            self.headers = _headers_of(answer)
        except Exception as error:  # noqa: BLE001 - what goes wrong in h2 and socksio comes as it is
            raise self._failure(error, connect_error) from None
        except BaseException:
            self.close()
            raise
        finally:
            self._rest()

    async def read_some(self) -> bytes:
        if self._is_read:
            return b""
        self._is_busy = True
        try:
            answer = self._answer
            if answer is None or not self._open:
                raise self._line.cut_error()
            while (data := await self._half.next(self._pieces)) is not None:
                if data:
                    return data
            await self._finish(answer)
            return b""
        except Exception as error:  # noqa: BLE001 - what goes wrong in h2 and socksio comes as it is
            raise self._failure(error, interrupted_error) from None
        except BaseException:
            self.close()
            raise
        finally:
            self._rest()

    def close(self) -> None:
        try:
            self._open.pop()
        except IndexError:
            return
        self._link.wire.cut()
        if not self._is_busy:
            self._let_go()

    def note(self, event: str, info: Mapping[str, Any]) -> None:
        """Hear from httpcore2 how far it has come: to the server behind a proxy; to the request itself."""
        link = self._link
        if event.endswith("send_request_headers.started") and info["request"].method != b"CONNECT":
            link.wire.is_connecting = False
            link.place = link.way.origin
        elif event.endswith("start_tls.started") and info["ssl_context"] is _OF_SERVER:
            link.place = link.way.origin

    def __del__(self) -> None:
        self.close()

    async def _finish(self, answer: httpcore2.Response) -> None:
        """Keep the connection of a body that was read to its end, unless it can carry no more."""
        await self._half.finish(answer)
        try:
            self._open.pop()
        except IndexError:
            raise self._line.cut_error() from None
        self._is_read = True
        if self._link.connection.is_available() and not _has_surplus(self._link.connection):
            self._held.pop()
            self._forget()
            self._pieces = None
            self._transport.keep(self._link)

    def _rest(self) -> None:
        self._is_busy = False
        if not self._open:
            self._let_go()

    def _let_go(self) -> None:
        try:
            self._held.pop()
        except IndexError:
            return
        self._forget()
        self._link.wire.close()
        if self._drop is not None:
            self._drop(self._pieces)
            self._pieces = None

    def _forget(self) -> None:
        self._answer = None  # It refers to the request, and that to this.
        self._line.release(self.close)
        self._transport.forget(self)

    def _failure(self, error: Exception, otherwise: Callable[[Place, BaseException | str], SabirError]) -> SabirError:
        line, link = self._line, self._link
        was_open = bool(self._open)
        self.close()
        if line.aborted or not was_open:
            return line.cut_error()
        if isinstance(error, SabirError):
            return error
        if isinstance(error, TimeoutError) and error.errno is None:
            return connect_timeout_error(link.place, line) if link.wire.is_connecting else line.timeout_error()
        if line.is_over():
            return line.deadline_error()
        refusal = re.match(r"\d{3}", str(error)) if isinstance(error, httpcore2.ProxyError) else None
        if refusal is not None and link.way.proxy is not None:
            return proxy_error(link.way.proxy, link.way.origin, int(refusal[0]))
        return otherwise(link.place, error)


class Httpx2Transport:
    """Connections for any number of threads, or of loops of either library."""

    def __init__(self, half: Half, network: Network) -> None:
        if network.http2:
            _check_installed("h2", "HTTP/2")
            # It writes every header in its log, and keys are among them.
            if (log := logging.getLogger("hpack")).level == logging.NOTSET:
                log.setLevel(logging.INFO)
        self._half = half
        self._network = network
        self._pool = Pool()
        self._replies: set[weakref.ref[Httpx2Reply]] = set()
        self._is_closed = False
        tell_of_forks(self)

    async def send(self, request: HttpRequest, line: Line) -> Httpx2Reply:
        origin, target = locate(request.url)
        # Not the proxy's credentials: httpcore2 tells it who asks, through a tunnel or not.
        head = headers(request, origin)
        line.left()
        proxy = self._network.proxy_for(origin)
        way = Way(origin, proxy, self._half.library())
        link = self._pool.take(way) or self._link(way, line)
        reply = Httpx2Reply(self, self._half, link, line)
        self._replies.add(reply.mark)
        if self._is_closed:
            reply.close()
            raise ClosedError("this client has been closed")
        # The usual port is not written, as to a proxy the whole URL goes.
        port = origin.port if origin.authority == str(origin) else None
        url = httpcore2.URL(scheme=origin.scheme, host=_host(way), port=port, target=target)
        told = {"trace": self._half.tracer(reply.note)} if link.wire.is_connecting else {}
        await reply.begin(httpcore2.Request(request.method, url, headers=head, content=request.body, extensions=told))
        if (refusal := refusal_by(proxy, origin, reply.status)) is not None:
            reply.close()
            raise refusal
        return reply

    def close(self) -> None:
        """Cut what is in use, drop what is kept."""
        self._is_closed = True
        for mark in list(self._replies):
            if (reply := mark()) is not None:
                reply.close()
        self._pool.clear()

    def keep(self, link: Link) -> None:
        """Take back a connection for the next request."""
        self._pool.put(link)
        if self._is_closed:
            self._pool.clear()

    def forget(self, reply: Httpx2Reply) -> None:
        self._replies.discard(reply.mark)

    def forget_parent(self) -> None:
        """After a fork: the same sockets are the parent's, who would get the answers meant for us."""
        self._replies = set()
        self._pool.clear()

    def _link(self, way: Way, line: Line) -> Link:
        proxy = None if way.proxy is None else _proxy(way.proxy)
        wire = self._half.wire(line)
        backend = self._half.backend(wire, self._network)
        # Of a pool, only what it makes connections with.
        pool = self._half.pool(ssl_context=_OF_SERVER, proxy=proxy, http2=self._network.http2, network_backend=backend)
        origin = httpcore2.Origin(way.origin.scheme.encode(), _host(way).encode(), way.origin.port)
        return Link(way, wire, pool.create_connection(origin))


@final
class BlockingHttpx2(Httpx2Transport):
    """For `runtime.Blocking`; its coroutines never suspend."""

    def __init__(self, network: Network = SYSTEM) -> None:
        super().__init__(_BlockingHalf(), network)


@final
class EventfulHttpx2(Httpx2Transport):
    """For `runtime.Eventful`, and its twin on trio. Idle connections belong to no loop: the next one may use them."""

    def __init__(self, network: Network = SYSTEM) -> None:
        super().__init__(_EventfulHalf(), network)


@final
class _BlockingHalf:
    pool = httpcore2.ConnectionPool

    def library(self) -> str:
        return ""

    def wire(self, line: Line) -> Wire:
        return Wire(_wait_blocking, line)

    def backend(self, wire: Wire, network: Network) -> httpcore2.NetworkBackend:
        return _BlockingBackend(_Sockets(wire, network))

    def tracer(self, trace: Trace) -> Trace:
        return trace

    async def ask(self, connection: httpcore2.ConnectionInterface, request: httpcore2.Request) -> httpcore2.Response:
        return connection.handle_request(request)

    def pieces(self, answer: httpcore2.Response) -> Generator[bytes, None, None]:
        return cast("Generator[bytes, None, None]", iter(cast("Iterable[bytes]", answer.stream)))

    async def next(self, pieces: Generator[bytes, None, None]) -> bytes | None:
        return next(pieces, None)

    async def finish(self, answer: httpcore2.Response) -> None:
        cast("Any", answer.stream).close()

    def dropper(self) -> Callable[[Generator[bytes, None, None]], None]:
        return _close


@final
class _EventfulHalf:
    pool = httpcore2.AsyncConnectionPool

    def library(self) -> str:
        return "trio" if runs_trio() else "asyncio"

    def wire(self, line: Line) -> Wire:
        return Wire(_wait_on_loop, line)

    def backend(self, wire: Wire, network: Network) -> httpcore2.AsyncNetworkBackend:
        return _EventfulBackend(_Sockets(wire, network))

    def tracer(self, trace: Trace) -> Callable[[str, dict[str, Any]], Coroutine[Any, Any, None]]:
        async def traced(event: str, info: dict[str, Any]) -> None:
            trace(event, info)

        return traced

    async def ask(
        self, connection: httpcore2.AsyncConnectionInterface, request: httpcore2.Request
    ) -> httpcore2.Response:
        return await connection.handle_async_request(request)

    def pieces(self, answer: httpcore2.Response) -> AsyncGenerator[bytes, None]:
        return cast("AsyncGenerator[bytes, None]", aiter(cast("AsyncIterable[bytes]", answer.stream)))

    async def next(self, pieces: AsyncGenerator[bytes, None]) -> bytes | None:
        return await anext(pieces, None)

    async def finish(self, answer: httpcore2.Response) -> None:
        await cast("Any", answer.stream).aclose()

    def dropper(self) -> Callable[[AsyncGenerator[bytes, None]], None]:
        # A loop closes what is collected as garbage too, but trio complains of it.
        loop = loop_here()

        def drop(pieces: Any) -> None:
            if pieces.ag_frame is not None:
                loop.leave(pieces.aclose)

        return drop


def _close(pieces: Generator[bytes, None, None]) -> None:
    pieces.close()


async def _wait_blocking(waiting: socket.socket, seconds: float | None, to_write: bool) -> bool:
    return is_ready(waiting, seconds, to_write=to_write)


async def _wait_on_loop(waiting: socket.socket, seconds: float | None, to_write: bool) -> bool:
    with anyio.move_on_after(seconds) as scope:
        await (anyio.wait_writable if to_write else anyio.wait_readable)(waiting)
    return not scope.cancelled_caught


class _Sockets:
    """What httpcore2 is given as its network, but for the colour."""

    def __init__(self, wire: Wire, network: Network, stream: Stream | None = None) -> None:
        self._wire = wire
        self._network = network
        self._stream = wire if stream is None else stream

    async def connect(self, host: str, port: int) -> _Sockets:
        await self._wire.connect(host, port)
        return self

    async def read(self, most: int) -> bytes:
        return await self._stream.receive(most)

    async def write(self, data: bytes) -> None:
        try:
            await self._stream.send(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            # A server may refuse a large body before it has read it all; of this error, httpcore2 looks for its answer.
            raise httpcore2.WriteError(str(error)) from error

    async def secure(self, end: ssl.SSLContext, host: str | None) -> _Sockets:
        """TLS with the server, or with a proxy; `end` says which."""
        context = self._network.context or ssl_context(http2=self._network.http2 and end is _OF_SERVER)
        secure = Secure(self._stream, Tls(context, (host or "").strip("[]")))
        await secure.shake_hands()
        return _Sockets(self._wire, self._network, secure)

    def close(self) -> None:
        self._wire.close()

    def info(self, name: str) -> Any:
        return self._stream.tls if name == "ssl_object" and isinstance(self._stream, Secure) else None


@final
class _BlockingBackend(httpcore2.NetworkBackend):
    def __init__(self, sockets: _Sockets) -> None:
        self._sockets = sockets

    def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore2.NetworkStream:
        return _BlockingStream(run(lambda: self._sockets.connect(host, port)))


@final
class _BlockingStream(httpcore2.NetworkStream):
    def __init__(self, sockets: _Sockets) -> None:
        self._sockets = sockets

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return run(lambda: self._sockets.read(max_bytes))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        run(lambda: self._sockets.write(buffer))

    def close(self) -> None:
        self._sockets.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _BlockingStream(run(lambda: self._sockets.secure(ssl_context, server_hostname)))

    def get_extra_info(self, info: str) -> Any:
        return self._sockets.info(info)


@final
class _EventfulBackend(httpcore2.AsyncNetworkBackend):
    def __init__(self, sockets: _Sockets) -> None:
        self._sockets = sockets

    async def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore2.AsyncNetworkStream:
        return _EventfulStream(await self._sockets.connect(host, port))


@final
class _EventfulStream(httpcore2.AsyncNetworkStream):
    def __init__(self, sockets: _Sockets) -> None:
        self._sockets = sockets

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._sockets.read(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._sockets.write(buffer)

    async def aclose(self) -> None:
        self._sockets.close()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        return _EventfulStream(await self._sockets.secure(ssl_context, server_hostname))

    def get_extra_info(self, info: str) -> Any:
        return self._sockets.info(info)


def _host(way: Way) -> str:
    """The host as httpcore2 is to have it, which gives it to a proxy of HTTP without an IPv6 address's brackets."""
    host = way.origin.host
    return f"[{host}]" if ":" in host and way.proxy is not None and not way.proxy.is_socks else host


def _proxy(proxy: Proxy) -> httpcore2.Proxy:
    if proxy.is_socks:
        _check_installed("socksio", "a SOCKS proxy")
    url = httpcore2.URL(scheme=proxy.scheme, host=proxy.host, port=proxy.port, target="/")
    auth = (proxy.username.encode(), proxy.password.encode()) if proxy.username or proxy.password else None
    return httpcore2.Proxy(url, auth, ssl_context=_OF_PROXY)


def _headers_of(answer: httpcore2.Response) -> dict[str, str]:
    if sum(len(name) + len(value) for name, value in answer.headers) > HEADER_LIMIT:
        raise OSError(f"the head of the answer is longer than {HEADER_LIMIT} bytes")
    return merged((name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers)


def _has_surplus(connection: Any) -> bool:
    """Whether something came after the answer. httpcore2 would take it for the next, and shows it nowhere."""
    while (inner := getattr(connection, "_connection", None)) is not None:
        connection = inner
    state = getattr(connection, "_h11_state", None)
    return state is not None and state.trailing_data[0] != b""


def _check_installed(module: str, what: str) -> None:
    if find_spec(module) is None:
        raise ConfigurationError(f"{what} needs the package {module}: pip install 'sabir[httpx2]'")
