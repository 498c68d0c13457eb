"""The blocking transport: sockets, pool and clock of our own.

A library's timeout is a fresh allowance for every wait, so that a server which drips bytes is waited for without end.
Here each send and recv is armed with what its line still allows, and the line can cut the socket from another thread.
Nothing waits on a Python-level lock, which a KeyboardInterrupt could leave held: the pool is made of deques, whose
`append` and `pop` are atomic, and where two threads may want to end the same thing, the one whose `pop` succeeds does.
"""

from __future__ import annotations

import os
import queue
import socket
import ssl
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, cast, final

from ..errors import ClosedError, ConnectError, SabirError
from ..requests import HttpRequest
from ..runtime import Line, Outcome
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
from .sockets import (
    CONNECT_SLICE_SECONDS,
    SOCKET_OPTIONS,
    UNDER_WAY,
    Address,
    is_ready,
    numeric_addresses,
    popped,
    resolve,
    tell_of_forks,
)
from .tls import PIECE_SIZE, Tls


class Plain(socket.socket):
    """A socket each of whose waits is as long as its line allows, and that any thread may cut."""

    line: Line | None = None
    process = 0
    _armed: float | None = 0.0  # The timeout that it has: none of its waits is made while it connects.

    def receive(self) -> bytes:
        """What comes next; b"" at the end of the stream."""
        self._arm()
        return self.recv(PIECE_SIZE)

    def sendall(self, data: Any, flags: int = 0) -> None:
        # In pieces, since one call has one timeout: a large body on a slow line is not a silent other side.
        view = memoryview(data)
        while view:
            self._arm()
            view = view[self.send(view[:PIECE_SIZE], flags) :]

    def settimeout(self, value: float | None) -> None:
        super().settimeout(value)
        self._armed = value

    def is_readable(self) -> bool:
        """Whether something came, or the other side has hung up: of a connection that waits for work, both mean that
        it can have none."""
        return is_ready(self, 0, to_write=False)

    def cut(self) -> None:
        """Wake whoever waits for this socket: it sees the end of the stream."""
        if self.process != os.getpid():
            return  # A copy made by fork: to shut it down would cut the parent's.
        try:
            # Not `self.shutdown`: that of a TLS socket takes its state away from under the reader.
            socket.socket.shutdown(self, socket.SHUT_RDWR)
        except OSError:
            pass

    def _arm(self) -> None:
        if self.line is not None and (limit := self.line.left(self.line.idle)) != self._armed:
            self.settimeout(limit)


class Secure:
    """TLS over a wire, which may have TLS itself: that of a proxy."""

    def __init__(self, wire: Wire, context: ssl.SSLContext, host: str) -> None:
        """Shake hands as well."""
        self._wire = wire
        self._tls = Tls(context, host)
        self._wire.sendall(self._tls.said())
        while not self._tls.is_ready:
            if not (data := self._wire.receive()):
                raise OSError("the connection was closed in the handshake of TLS")
            self._hear(data)

    @property
    def line(self) -> Line | None:
        return self._wire.line

    @line.setter
    def line(self, line: Line | None) -> None:
        self._wire.line = line

    @property
    def process(self) -> int:
        return self._wire.process

    def receive(self) -> bytes:
        # Many servers hang up without a word of TLS; whether all has come is for HTTP to say.
        while not self._tls.is_over and (data := self._wire.receive()):
            if heard := self._hear(data):
                return heard
        return b""

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._wire.sendall(self._tls.encrypted(view[:PIECE_SIZE]))
            view = view[PIECE_SIZE:]

    def is_readable(self) -> bool:
        return self._wire.is_readable()

    def cut(self) -> None:
        self._wire.cut()

    def close(self) -> None:
        self._wire.close()

    def _hear(self, data: bytes) -> bytes:
        try:
            return self._tls.decrypted(data)
        finally:
            if said := self._tls.said():
                self._wire.sendall(said)


Wire = Plain | Secure


class Connection:
    """A socket that carries one exchange after the other."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.idle_since = 0.0

    def ask(self, request: HttpRequest, target: str, head: list[tuple[str, str]]) -> Answer:
        """Send a request and return its answer, of which the head has been read."""
        try:
            # With the body in one packet, where they fit, which halves the system calls.
            self.wire.sendall(request_head(request.method, target, head) + request.body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # A server may refuse a large body before it has read it all; its answer is here then.
        answer = Answer(has_body=request.method != "HEAD")
        try:
            while not answer.has_head:
                if answer.failure is not None:
                    raise answer.failure
                answer.feed(self.wire.receive())
        except BaseException:
            answer.let_go()
            raise
        return answer

    def read(self, answer: Answer) -> bytes:
        """The next bytes of the answer's body, b"" when it is whole."""
        while not (data := answer.take()) and not answer.is_whole:
            if answer.failure is not None:
                raise answer.failure
            answer.feed(self.wire.receive())
        return data


@final
class BlockingReply:
    """An answer on its connection.

    `_open` has one item, and to pop it is to decide what becomes of the connection: at the end of the body the reader
    keeps it for the next request, `close` cuts it. `_held` has the connection until the pool has it or it is closed;
    that is left to the reader while there is one, as closing what is being read hangs.
    """

    status: int
    headers: Mapping[str, str]

    def __init__(self, transport: BlockingTransport, origin: Origin, connection: Connection, line: Line) -> None:
        self._transport = transport
        self._origin = origin
        self._connection = connection
        self._line = line
        self._answer: Answer | None = None
        self._open = [True]
        self._held = [connection]
        self._is_busy = False
        self._is_read = False
        self.mark = weakref.ref(self)

    def begin(self, request: HttpRequest, target: str, head: list[tuple[str, str]]) -> None:
        """Send the request and read the head of the answer."""
        self._is_busy = True
        try:
            self._connection.wire.line = self._line
            self._line.hold(self.close)
            answer = self._answer = self._connection.ask(request, target, head)
            self.status = answer.status
            self.headers = merged(answer.headers)
        except (OSError, ValueError, SabirError) as error:
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
            if data := self._connection.read(answer):
                return data
            self._finish(answer)
            return b""
        except (OSError, ValueError, SabirError) as error:
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
            pass
        else:
            self._connection.wire.cut()
        if not self._is_busy:
            self._let_go()

    def _finish(self, answer: Answer) -> None:
        """Keep the connection of a body that was read to its end, unless it can carry no more."""
        try:
            self._open.pop()
        except IndexError:
            raise self._line.cut_error() from None
        self._is_read = True
        if answer.can_be_followed():
            self._forget()
            self._transport.keep(self._origin, self._held)

    def _rest(self) -> None:
        self._is_busy = False
        if not self._open:
            self._let_go()

    def _let_go(self) -> None:
        # In this order, each step being harmless twice: an interrupt between two leaves it to be done again.
        if self._held:
            self._connection.wire.close()
            self._forget()
            self._held.clear()

    def _forget(self) -> None:
        if self._answer is not None:
            self._answer.let_go()
        self._line.release(self.close)
        self._transport.forget(self)

    def _failure(
        self, error: BaseException, otherwise: Callable[[Place, BaseException | str], SabirError]
    ) -> BaseException:
        was_open = bool(self._open)
        self.close()
        if self._line.aborted or not was_open:
            return self._line.cut_error()
        if isinstance(error, SabirError):
            return error
        if self._line.is_over() or (isinstance(error, TimeoutError) and error.errno is None):
            return self._line.timeout_error()
        return otherwise(self._origin, error)


@final
class BlockingTransport:
    """A pool of connections that any number of threads may use at once; its coroutines never suspend.

    `admits` says to which of the addresses that a name has it may connect; None is to all.
    """

    def __init__(self, network: Network = SYSTEM, admits: Callable[[str], bool] | None = None) -> None:
        self._network = network
        self._admits = admits
        self._pools: dict[Origin, deque[Connection]] = {}
        self._replies: set[weakref.ref[BlockingReply]] = set()
        self._is_closed = False
        tell_of_forks(self)

    async def send(self, request: HttpRequest, line: Line) -> BlockingReply:
        origin, target = locate(request.url)
        proxy = self._network.http_proxy_for(origin)
        head = headers(request, origin, proxy)
        line.left()
        connection = self._kept(origin) or self._connect(origin, proxy, line)
        reply = BlockingReply(self, origin, connection, line)
        self._replies.add(reply.mark)
        if self._is_closed:
            reply.close()
            raise ClosedError("this client has been closed")
        reply.begin(request, target_by(proxy, origin, target), head)
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
        self._drop_kept()

    def keep(self, origin: Origin, held: list[Connection]) -> None:
        """Take over a connection for the next request, and drop those that have been idle for too long."""
        connection = held[0]
        if connection.wire.process != os.getpid():
            return
        connection.wire.line = None
        now = connection.idle_since = time.monotonic()
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools.setdefault(origin, deque())
        # In one C call, so that an interrupt finds it with the one or with the other.
        pool.extend(map(list[Connection].pop, (held,)))
        _drop_older(pool, now - KEEP_IDLE_SECONDS)
        if self._is_closed:
            self._drop_kept()

    def forget(self, reply: BlockingReply) -> None:
        self._replies.discard(reply.mark)

    def forget_parent(self) -> None:
        """After a fork: the same sockets are the parent's, who would get the answers meant for us."""
        self._replies = set()
        self._drop_kept()

    def _drop_kept(self) -> None:
        for pool in list(self._pools.values()):
            while (connection := popped(pool)) is not None:
                connection.wire.close()

    def _kept(self, origin: Origin) -> Connection | None:
        pool = self._pools.get(origin)
        if pool is None:
            return None
        while (connection := popped(pool)) is not None:
            if connection.idle_since > time.monotonic() - KEEP_IDLE_SECONDS and not connection.wire.is_readable():
                return connection
            connection.wire.close()
        return None

    def _connect(self, origin: Origin, proxy: Proxy | None, line: Line) -> Connection:
        # A line of its own: what is left of the call's, or the limit on connecting if that is less.
        connecting = Line(deadline=line.deadline, now=line.now)
        if (limit := connect_limit(line)) is not None:
            end = line.now() + limit
            connecting.deadline = end if line.deadline is None else min(line.deadline, end)
        line.hold(connecting.abort)
        place: Place = proxy or origin
        try:
            wire: Wire = self._reach(self._admitted(_addresses(place, connecting)), connecting)
            wire.line = connecting
            try:
                if proxy is not None:
                    wire = self._tunnelled(wire, proxy, origin)
                    place = origin
                wire = self._secured(wire, origin)
                wire.line = None  # Each knows of the other, and an interrupt would leave both to the collector.
                return Connection(wire)
            except BaseException:
                wire.close()
                raise
        except (OSError, ValueError, ClosedError) as error:
            if line.aborted:
                raise line.cut_error() from None
            if connecting.is_over():
                raise connect_timeout_error(place, line) from None
            if isinstance(error, ConnectError):
                raise
            raise connect_error(place, error) from None
        finally:
            line.release(connecting.abort)

    def _admitted(self, addresses: list[Address]) -> list[Address]:
        return [each for each in addresses if self._admits is None or self._admits(each[4][0])]

    def _reach(self, addresses: list[Address], connecting: Line) -> Plain:
        """A socket connected to the first address that answers; those still to come each have a share of the time."""
        failure = OSError("it has no address")
        for tried, address in enumerate(addresses):
            left = connecting.left()
            end = None if left is None else time.monotonic() + left / (len(addresses) - tried)
            try:
                return _open(address, connecting, end)
            except OSError as error:
                connecting.left()
                failure = error
        raise failure

    def _tunnelled(self, wire: Wire, proxy: Proxy, origin: Origin) -> Wire:
        """The wire to a proxy, or through it: that it passes bytes on is only needed where it may not read them."""
        wire = self._secured(wire, proxy)
        if origin.scheme == "https":
            head = [("Host", str(origin)), *proxy_headers(proxy)]
            answer = Connection(wire).ask(HttpRequest("CONNECT", "", (), b""), str(origin), head)
            answer.let_go()
            if not 200 <= answer.status < 300:
                raise proxy_error(proxy, origin, answer.status)
        return wire

    def _secured(self, wire: Wire, place: Place) -> Wire:
        return Secure(wire, self._network.context or ssl_context(), place.host) if place.scheme == "https" else wire


def _addresses(place: Place, connecting: Line) -> list[Address]:
    if known := numeric_addresses(place.host, place.port):
        return known
    found: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()
    connecting.hold(lambda: found.put(None))
    resolve(place.host, place.port, found.put)
    try:
        outcome = found.get(timeout=connecting.left())
    except queue.Empty:
        raise connecting.deadline_error() from None
    if outcome is None:
        raise connecting.cut_error()
    return cast("list[Address]", outcome.result())


def _open(address: Address, connecting: Line, end: float | None) -> Plain:
    wire = Plain(*address[:3])
    try:
        wire.process = os.getpid()
        for option in SOCKET_OPTIONS:
            wire.setsockopt(*option)
        wire.setblocking(False)
        connecting.hold(wire.cut)
        if (error := wire.connect_ex(address[4])) in UNDER_WAY:
            error = 0
            while not error and not is_ready(wire, connecting.left(CONNECT_SLICE_SECONDS), to_write=True):
                if end is not None and time.monotonic() >= end:
                    raise TimeoutError("it does not answer")
                error = wire.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            error = error or wire.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        connecting.left()
    except BaseException:
        wire.close()
        raise
    return wire


def _drop_older(pool: deque[Connection], moment: float) -> None:
    while pool:
        try:
            oldest = pool.popleft()
        except IndexError:
            return
        if oldest.idle_since >= moment:
            pool.appendleft(oldest)
            return
        oldest.wire.close()
