"""The awaitable transport: connections of our own on the caller's event loop; httptools reads HTTP.

Connections belong to their loop and must be closed by it. An async generator holds them, and the loop closes all of
those itself when it ends (`shutdown_asyncgens`), so that one client serves any number of `asyncio.run` and leaves
nothing behind. What happens to an exchange happens on its loop; another thread only asks for it.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, cast, final

from ..errors import ClosedError, SabirError
from ..loops import loop_here
from ..requests import HttpRequest
from ..runtime import Line, Outcome, call_soon, fulfil
from . import (
    KEEP_IDLE_SECONDS,
    SYSTEM,
    Network,
    Origin,
    Place,
    connect_error,
    connect_limit,
    connect_timeout_error,
    headers,
    interrupted_error,
    locate,
    merged,
    proxy_error,
    proxy_headers,
    refusal_by,
    ssl_context,
    target_by,
)
from .http1 import Answer, request_head
from .proxies import Proxy
from .sockets import SOCKET_OPTIONS, Address, numeric_addresses, resolve
from .tls import PIECE_SIZE, Tls

# How much of an answer may wait for its reader before the sender is made to wait.
HIGH_WATER = PIECE_SIZE


class Wire(asyncio.BufferedProtocol):
    """A connection. It has one answer at a time, and at most one who waits for it."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._layers: list[Tls] = []
        self._waiter: asyncio.Future[None] | None = None
        self._unread = 0
        self._is_held_up = False
        self.answer: Answer | None = None
        self.failure: OSError | None = None
        self.is_over = False
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.raw = cast("asyncio.Transport", transport)
        self._home.wires.add(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._home.buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._home.buffer[:nbytes])
        is_over = False
        try:
            for depth, layer in enumerate(self._layers):
                data = layer.decrypted(data)
                is_over = layer.is_over
                self._write(layer.said(), depth)
        except OSError as error:
            self._end(error)
            self.raw.abort()
            return
        if data:
            self._deliver(data)
        if is_over:
            self._end(None)
        self.wake()

    def eof_received(self) -> None:
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._home.wires.discard(self)
        self._is_held_up = False
        self._end(exc)

    def pause_writing(self) -> None:
        self._is_held_up = True

    def resume_writing(self) -> None:
        self._is_held_up = False
        self.wake()

    @property
    def is_held_up(self) -> bool:
        """Whether what was written last has not gone out yet, and more should wait."""
        return self._is_held_up and not self.is_over

    def write(self, data: bytes) -> None:
        self._write(data, len(self._layers))

    def begin_tls(self, context: ssl.SSLContext, host: str) -> Tls:
        """Speak TLS from here on; whoever waits is woken with each step of the handshake."""
        layer = Tls(context, host)
        self._layers.append(layer)
        self._write(layer.said(), len(self._layers) - 1)
        return layer

    def take(self) -> bytes:
        """What has come of the answer's body."""
        if self._unread > HIGH_WATER and not self.is_over:
            self.raw.resume_reading()
        self._unread = 0
        return cast("Answer", self.answer).take()

    def wait(self) -> asyncio.Future[None]:
        """Something to wait for: bytes, room for bytes, the end."""
        waiter = self._waiter = self._home.loop.create_future()
        return waiter

    def wake(self) -> None:
        if self._waiter is not None:
            fulfil(self._waiter, None)
            self._waiter = None

    def abort(self) -> None:
        """Close without a word: not politely, which would wait until all is sent and the other side has answered."""
        self.is_over = True
        self.raw.abort()

    def _deliver(self, data: bytes) -> None:
        if self.answer is None:
            self.abort()  # Nobody has asked anything.
            return
        self.answer.feed(data)
        self._unread += len(data)
        if self._unread > HIGH_WATER and not self.is_over:
            self.raw.pause_reading()

    def _write(self, data: bytes, depth: int) -> None:
        for layer in reversed(self._layers[:depth]):
            data = layer.encrypted(data) if data else b""
        if data and not self.is_over:
            self.raw.write(data)

    def _end(self, error: Exception | None) -> None:
        self.is_over = True
        if error is not None:
            self.failure = error if isinstance(error, OSError) else OSError(str(error))
        if self.answer is not None:
            if self.failure is None:
                self.answer.feed(b"")
            else:
                self.answer.fail(self.failure)
        self.wake()


@final
class EventfulReply:
    """An answer on its connection; every method but `close` is for the loop that it came on."""

    status: int
    headers: Mapping[str, str]

    def __init__(self, home: Home, origin: Origin, line: Line) -> None:
        self._home = home
        self._origin = origin
        self._line = line
        self._wire: Wire | None = None
        self._answer: Answer | None = None
        self._clock: asyncio.Timeout | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0
        self._waits_since: float | None = None
        self._end: SabirError | None = None
        self._is_closed = False
        self._is_read = False

    async def begin(self, request: HttpRequest, target: str, head: list[tuple[str, str]], proxy: Proxy | None) -> None:
        """Send the request and wait for the head of the answer."""
        self._line.left()
        self._home.replies.add(self)
        try:
            self._line.hold(self.close)
            wire = self._wire = self._home.kept(self._origin) or await self._connected(proxy)
            answer = await self._ask(wire, request, target, head)
        except OSError as error:
            raise self._finish(self._failure(error, connect_error)) from None
        except BaseException as error:
            self._finish(error if isinstance(error, SabirError) else self._line.cut_error())
            raise
        self.status = answer.status
        self.headers = merged(answer.headers)

    async def read_some(self) -> bytes:
        if self._is_read:
            return b""
        if self._end is not None:
            raise self._end
        answer, wire = cast("Answer", self._answer), cast("Wire", self._wire)
        try:
            while not (data := wire.take()):
                if answer.is_whole:
                    self._is_read = True
                    self._finish(self._line.cut_error())
                    return b""
                if answer.failure is not None:
                    raise answer.failure
                await self._wait(wire)
        except OSError as error:
            raise self._finish(self._failure(error, interrupted_error)) from None
        except BaseException as error:
            self._finish(error if isinstance(error, SabirError) else self._line.cut_error())
            raise
        return data

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._home.here.do(self._cut)

    def close_dead(self) -> None:
        """Close this where no loop is left to do it on."""
        self._finish(self._line.cut_error())

    async def _connected(self, proxy: Proxy | None) -> Wire:
        limit = connect_limit(self._line)
        place: Place = proxy or self._origin
        left = self._line.left(limit)
        wire = None
        failure: SabirError
        try:
            async with asyncio.timeout(left) as self._clock:
                wire = await self._home.connect(place, limit)
                if proxy is not None:
                    await self._secured(wire, proxy)
                    if self._origin.scheme == "https":
                        await self._tunnelled(wire, proxy)
                        place = self._origin
                if proxy is None or self._origin.scheme == "https":
                    await self._secured(wire, self._origin)
        except SabirError as error:
            failure = error
        except TimeoutError as error:
            failure = connect_error(place, error) if error.errno else connect_timeout_error(place, self._line)
        except (OSError, UnicodeError) as error:
            failure = connect_error(place, error)
        except BaseException:
            if wire is not None:
                wire.abort()
            raise
        else:
            if not self._is_closed:
                self._clock = None
                return wire
            failure = self._line.cut_error()
        if wire is not None:
            wire.abort()
        raise self._line.cut_error() if self._line.aborted or self._is_closed else failure

    async def _secured(self, wire: Wire, place: Place) -> None:
        if place.scheme == "https":
            layer = wire.begin_tls(self._home.context, place.host)
            while not layer.is_ready:
                if wire.is_over:
                    raise wire.failure or OSError("the connection was closed in the handshake of TLS")
                await wire.wait()

    async def _tunnelled(self, wire: Wire, proxy: Proxy) -> None:
        answer = wire.answer = Answer(has_body=False)
        wire.write(request_head("CONNECT", str(self._origin), [("Host", str(self._origin)), *proxy_headers(proxy)]))
        while not answer.has_head:
            if answer.failure is not None:
                raise answer.failure
            await wire.wait()
        wire.answer = None
        answer.let_go()
        if not 200 <= answer.status < 300:
            raise proxy_error(proxy, self._origin, answer.status)

    async def _ask(self, wire: Wire, request: HttpRequest, target: str, head: list[tuple[str, str]]) -> Answer:
        answer = self._answer = wire.answer = Answer(has_body=request.method != "HEAD")
        start = request_head(request.method, target, head)
        if len(request.body) <= PIECE_SIZE:
            wire.write(start + request.body)
        else:
            wire.write(start)
            body = memoryview(request.body)
            # A server may refuse a large body before it has read it all; its answer is here then.
            while body and not wire.is_over and not answer.has_head:
                if wire.is_held_up:
                    await self._wait(wire)
                else:
                    wire.write(bytes(body[:PIECE_SIZE]))
                    body = body[PIECE_SIZE:]
        while not answer.has_head:
            if answer.failure is not None:
                raise answer.failure
            if wire.is_over:
                raise wire.failure or OSError("the connection was closed")
            await self._wait(wire)
        return answer

    async def _wait(self, wire: Wire) -> None:
        """Wait until the wire has something new, as long as the line allows."""
        line = self._line
        now = self._waits_since = line.now()
        due = _earlier(line.deadline, None if line.idle is None else now + line.idle)
        if due is not None and (self._timer is None or due < self._rings_at):
            self._set_timer(due, now)
        try:
            await wire.wait()
        finally:
            self._waits_since = None
        if self._end is not None:
            raise self._end

    def _set_timer(self, due: float, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = due
        self._timer = self._home.loop.call_later(due - now, self._ring)

    def _ring(self) -> None:
        """A limit may have been reached; mostly something came since the timer was set, and the limit is later now."""
        self._timer = None
        if self._waits_since is None:
            return
        line, now = self._line, self._line.now()
        idle = None if line.idle is None else self._waits_since + line.idle
        due = _earlier(line.deadline, idle)
        if due is None:
            return
        if now < due:
            self._set_timer(due, now)
            return
        self._finish(line.deadline_error() if due == line.deadline else line.timeout_error())

    def _cut(self) -> None:
        if self._clock is None:
            self._finish(self._line.cut_error())
        elif not self._clock.expired():
            self._clock.reschedule(self._home.loop.time())  # It is connecting, and this ends its wait.

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
        wire, answer = self._wire, self._answer
        if answer is not None:
            answer.let_go()
        if wire is not None:
            wire.answer = None
            if self._is_read and answer is not None and answer.can_be_followed() and not wire.is_over:
                self._home.keep(self._origin, wire)
            else:
                wire.abort()
                wire.wake()
        return end

    def _failure(self, error: OSError, otherwise: Callable[[Place, BaseException | str], SabirError]) -> SabirError:
        if self._end is not None:
            return self._end
        if self._line.aborted or self._is_closed:
            return self._line.cut_error()
        return error if isinstance(error, SabirError) else otherwise(self._origin, error)


@final
class Home:
    """What a transport has on the event loop that runs here."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.loop = asyncio.get_running_loop()
        self.here = loop_here()
        self.replies: set[EventfulReply] = set()
        self.wires: set[Wire] = set()
        # One for all: what a loop reads into it, it hands over at once.
        self.buffer = memoryview(bytearray(PIECE_SIZE))
        self._context = context
        self._pools: dict[Origin, deque[Wire]] = {}
        self._ending: asyncio.Task[None] | None = None

    @property
    def context(self) -> ssl.SSLContext:
        return self._context or ssl_context()

    def kept(self, origin: Origin) -> Wire | None:
        """A connection that waits for work."""
        pool = self._pools.get(origin)
        while pool:
            wire = pool.pop()
            if not wire.is_over and wire.idle_since > self.loop.time() - KEEP_IDLE_SECONDS:
                return wire
            wire.abort()
        return None

    def keep(self, origin: Origin, wire: Wire) -> None:
        """Take back a connection for the next request, and drop those that have been idle for too long."""
        now = wire.idle_since = self.loop.time()
        pool = self._pools.setdefault(origin, deque())
        pool.append(wire)
        while pool[0].is_over or pool[0].idle_since < now - KEEP_IDLE_SECONDS:
            pool.popleft().abort()

    async def connect(self, place: Place, limit: float | None) -> Wire:
        """A connection to the first address that answers; those still to come each have a share of the time."""
        end = None if limit is None else self.loop.time() + limit
        failure = OSError("it has no address")
        addresses = await self._addresses(place)
        for tried, (family, kind, protocol, _, address) in enumerate(addresses):
            made = socket.socket(family, kind, protocol)
            try:
                for option in SOCKET_OPTIONS:
                    made.setsockopt(*option)
                made.setblocking(False)
                share = None if end is None else max(0.0, end - self.loop.time()) / (len(addresses) - tried)
                async with asyncio.timeout(share):
                    await self.loop.sock_connect(made, address)
                return (await self.loop.create_connection(functools.partial(Wire, self), sock=made))[1]
            except OSError as error:
                made.close()
                failure = error
            except BaseException:
                made.close()
                raise
        raise failure

    async def _addresses(self, place: Place) -> list[Address]:
        if known := numeric_addresses(place.host, place.port):
            return known
        found: asyncio.Future[Outcome] = self.loop.create_future()

        def deliver(outcome: Outcome) -> None:
            call_soon(self.loop, lambda: fulfil(found, outcome))

        resolve(place.host, place.port, deliver)
        return list((await found).result())

    def end(self, keeper: AsyncGenerator[None, None]) -> None:
        if self._ending is None:
            self._ending = self.loop.create_task(_end(keeper))

    def close(self) -> None:
        for reply in list(self.replies):
            reply.close()
        self._abort_wires()

    def bury(self) -> None:
        """Close the sockets of a loop that was closed before they were.

        All that the loop's transports still need of it is to be called back, and that can be done at once.
        """
        try:
            self.loop.call_soon = _call_now  # type: ignore[assignment, method-assign]
            for reply in list(self.replies):
                reply.close_dead()
            self._abort_wires()
        except (AttributeError, RuntimeError):
            pass  # Not a loop of the standard library: its sockets are closed when they are collected.

    def _abort_wires(self) -> None:
        # All of them: one that an interrupt took from its reply is in no pool either.
        self._pools.clear()
        for wire in list(self.wires):
            wire.abort()


async def _keep(home: Home) -> AsyncGenerator[None, None]:
    """Close a home when its loop ends."""
    try:
        yield
    finally:
        home.close()


async def _end(keeper: AsyncGenerator[None, None]) -> None:
    await keeper.aclose()


@final
class EventfulTransport:
    """Connections for each event loop that uses it."""

    def __init__(self, network: Network = SYSTEM) -> None:
        self._network = network
        self._homes: dict[asyncio.AbstractEventLoop, tuple[Home, AsyncGenerator[None, None]]] = {}
        self._is_closed = False

    async def send(self, request: HttpRequest, line: Line) -> EventfulReply:
        origin, target = locate(request.url)
        proxy = self._network.http_proxy_for(origin)
        head = headers(request, origin, proxy)
        if self._is_closed:
            raise ClosedError("this client has been closed")
        kept = self._homes.get(asyncio.get_running_loop()) or await self._settle()
        reply = EventfulReply(kept[0], origin, line)
        await reply.begin(request, target_by(proxy, origin, target), head, proxy)
        if (refusal := refusal_by(proxy, origin, reply.status)) is not None:
            reply.close()
            raise refusal
        return reply

    def close(self) -> None:
        """Cut what is in use and drop what is kept, each on its own loop as soon as that comes to it."""
        self._is_closed = True
        for home, keeper in list(self._homes.values()):
            if home.loop.is_closed():
                home.bury()
            else:
                home.here.do(functools.partial(home.end, keeper))

    async def _settle(self) -> tuple[Home, AsyncGenerator[None, None]]:
        for loop, (home, _) in list(self._homes.items()):
            if loop.is_closed():
                home.bury()
                self._homes.pop(loop, None)
        home = Home(self._network.context)
        keeper = _keep(home)
        await anext(keeper)
        self._homes[home.loop] = home, keeper
        return home, keeper


def _earlier(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _call_now(callback: Callable[..., object], *args: Any, context: object = None) -> None:
    callback(*args)
