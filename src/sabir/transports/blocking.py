"""The blocking transport: urllib3's connections, our sockets, pool and clock.

A library's timeout is a fresh allowance for every wait, so that a server which drips bytes is waited for without end.
Here each send and recv is armed with what its line still allows, and the line can cut the socket from another thread.
Nothing waits on a Python-level lock, which a KeyboardInterrupt could leave held: the pool is made of deques, whose
`append` and `pop` are atomic, and where two threads may want to end the same thing, the one whose `pop` succeeds does.
"""

from __future__ import annotations

import errno
import http.client
import os
import queue
import socket
import ssl
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, cast, final

from urllib3.connection import HTTPConnection
from urllib3.util.wait import wait_for_write

from ..errors import ClosedError, SabirError
from ..requests import HttpRequest
from ..runtime import Line, Outcome
from . import (
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

PIECE_SIZE = 65536

# Not every system wakes a socket that is being connected when another thread shuts it down, so the waiter looks up.
CONNECT_SLICE_SECONDS = 0.1

_UNDER_WAY = {0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR}


class Plain(socket.socket):
    """A socket each of whose waits is as long as its line allows, and that any thread may cut."""

    line: Line | None = None
    process = 0
    has_ended = False

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self._arm()
        if not (received := super().recv_into(*args, **kwargs)):
            self.has_ended = True
        return received

    def sendall(self, data: Any, flags: int = 0) -> None:
        # In pieces, since one call has one timeout: a large body on a slow line is not a silent other side.
        view = memoryview(data)
        while view:
            self._arm()
            view = view[self.send(view[:PIECE_SIZE], flags) :]

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
        if self.line is not None:
            self.settimeout(self.line.left(self.line.idle))


class Secure(Plain, ssl.SSLSocket):
    """The same over TLS; made by an SSLContext whose `sslsocket_class` it is."""


class Connection(HTTPConnection):
    """A connection of urllib3 on a socket of ours; it is never to open one itself."""

    auto_open = 0

    def __init__(self, origin: Origin, wire: Plain) -> None:
        super().__init__(origin.host, origin.port)
        self.sock = self.wire = wire
        self.idle_since = 0.0
        self._body = b""

    def send(self, data: Any) -> None:
        """Send the head and, with it, the body: in one packet where they fit, which halves the system calls."""
        body, self._body = self._body, b""
        super().send(data + body if body else data)

    def ask(self, request: HttpRequest, target: str, head: list[tuple[str, str]]) -> http.client.HTTPResponse:
        """Send a request and return its answer, of which the head has been read."""
        try:
            self.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in head:
                self.putheader(name, value)
            self._body = request.body
            self.endheaders()
        except (BrokenPipeError, ConnectionResetError):
            pass  # A server may refuse a large body before it has read it all; its answer is here then.
        # Not through urllib3, which wraps the answer once more and may log the URL: in some a key stands.
        answer = http.client.HTTPConnection.getresponse(self)
        if self.wire.has_ended:
            answer.close()
            raise http.client.RemoteDisconnected("the connection was closed in the middle of the headers")
        return answer


@final
class BlockingReply:
    """An answer on its connection.

    `_open` and `_held` have one item, and to pop it is to decide. Of `_open`: what becomes of the connection; at the
    end of the body the reader keeps it for the next request, `close` cuts it. Of `_held`: to let go of it, which is
    left to the reader while there is one, as closing what is being read hangs.
    """

    status: int
    headers: Mapping[str, str]

    def __init__(self, transport: BlockingTransport, origin: Origin, connection: Connection, line: Line) -> None:
        self._transport = transport
        self._origin = origin
        self._connection = connection
        self._line = line
        self._answer: http.client.HTTPResponse | None = None
        self._open = [True]
        self._held = [True]
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
            self.headers = merged(answer.headers.items())
        except (OSError, ValueError, http.client.HTTPException, SabirError) as error:
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
            if data := answer.read1(PIECE_SIZE):
                return data
            if answer.length:
                raise http.client.IncompleteRead(b"", answer.length)
            self._finish(answer)
            return b""
        except (OSError, ValueError, http.client.HTTPException, SabirError) as error:
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
        self._connection.wire.cut()
        if not self._is_busy:
            self._let_go()

    def _finish(self, answer: http.client.HTTPResponse) -> None:
        """Keep the connection of a body that was read to its end, unless it can carry no more."""
        try:
            self._open.pop()
        except IndexError:
            raise self._line.cut_error() from None
        self._is_read = True
        answer.close()
        connection = self._connection
        if connection.sock is not None and not connection.wire.has_ended:
            self._held.pop()
            self._forget()
            self._transport.keep(self._origin, connection)

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
        if self._answer is not None:
            self._answer.close()
        self._connection.close()

    def _forget(self) -> None:
        self._line.release(self.close)
        self._transport.forget(self)

    def _failure(
        self, error: BaseException, otherwise: Callable[[Origin, BaseException | str], SabirError]
    ) -> BaseException:
        was_open = bool(self._open)
        self.close()
        if self._line.aborted or not was_open:
            return self._line.cut_error()
        if isinstance(error, SabirError):
            return error
        if self._line.is_over() or (isinstance(error, TimeoutError) and error.errno is None):
            return timeout_error(self._line)
        if isinstance(error, http.client.IncompleteRead):
            return otherwise(self._origin, f"{error.expected or 'an unknown number of'} bytes are missing")
        return otherwise(self._origin, error)


@final
class BlockingTransport:
    """A pool of connections that any number of threads may use at once; its coroutines never suspend."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self._pools: dict[Origin, deque[Connection]] = {}
        self._replies: set[weakref.ref[BlockingReply]] = set()
        self._is_closed = False
        _transports.add(self)

    async def send(self, request: HttpRequest, line: Line) -> BlockingReply:
        origin, target = locate(request.url)
        head = headers(request, origin)
        line.left()
        connection = self._kept(origin) or self._connect(origin, line)
        reply = BlockingReply(self, origin, connection, line)
        self._replies.add(reply.mark)
        if self._is_closed:
            reply.close()
            raise ClosedError("this client has been closed")
        reply.begin(request, target, head)
        return reply

    def close(self) -> None:
        """Cut what is in use, drop what is kept."""
        self._is_closed = True
        for mark in list(self._replies):
            if (reply := mark()) is not None:
                reply.close()
        self._drop_kept()

    def keep(self, origin: Origin, connection: Connection) -> None:
        """Take back a connection for the next request, and drop those that have been idle for too long."""
        if connection.wire.process != os.getpid():
            connection.close()
            return
        connection.wire.line = None
        now = connection.idle_since = time.monotonic()
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools.setdefault(origin, deque())
        pool.append(connection)
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
            while (connection := _popped(pool)) is not None:
                connection.close()

    def _kept(self, origin: Origin) -> Connection | None:
        pool = self._pools.get(origin)
        if pool is None:
            return None
        while (connection := _popped(pool)) is not None:
            if connection.idle_since > time.monotonic() - KEEP_IDLE_SECONDS and connection.is_connected:
                return connection
            connection.close()
        return None

    def _connect(self, origin: Origin, line: Line) -> Connection:
        # A line of its own: what is left of the call's, or the limit on connecting if that is less.
        connecting = Line(deadline=line.deadline, now=line.now)
        if (limit := connect_limit(line)) is not None:
            end = line.now() + limit
            connecting.deadline = end if line.deadline is None else min(line.deadline, end)
        line.hold(connecting.abort)
        try:
            wire = self._reach(_addresses(origin, connecting), connecting)
            if origin.scheme == "https":
                wire = self._secure(wire, origin.host, connecting)
            return Connection(origin, wire)
        except (OSError, ValueError, ClosedError) as error:
            if line.aborted:
                raise line.cut_error() from None
            if connecting.is_over():
                raise connect_timeout_error(origin, line) from None
            raise connect_error(origin, error) from None
        finally:
            line.release(connecting.abort)

    def _reach(self, addresses: list[_Address], connecting: Line) -> Plain:
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

    def _secure(self, wire: Plain, host: str, connecting: Line) -> Plain:
        context = self._context or ssl_context()
        context.sslsocket_class = Secure
        try:
            wire.settimeout(connecting.left())
            wire = cast(
                "Secure", context.wrap_socket(wire, server_hostname=host.rstrip("."), do_handshake_on_connect=False)
            )
            wire.process = os.getpid()
            connecting.hold(wire.cut)
            wire.settimeout(connecting.left())
            wire.do_handshake()
        except BaseException:
            wire.close()
            raise
        return wire


# (family, kind, protocol, canonical name, address), as `socket.getaddrinfo` gives them
_Address = tuple[Any, Any, int, str, Any]


def _addresses(origin: Origin, connecting: Line) -> list[_Address]:
    try:
        return list(socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    except OSError:
        pass  # It is a name.
    found: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()
    connecting.hold(lambda: found.put(None))
    resolve(origin.host, origin.port, found.put)
    try:
        outcome = found.get(timeout=connecting.left())
    except queue.Empty:
        raise connecting.deadline_error() from None
    if outcome is None:
        raise connecting.cut_error()
    return cast("list[_Address]", outcome.result())


def _open(address: _Address, connecting: Line, end: float | None) -> Plain:
    wire = Plain(*address[:3])
    try:
        wire.process = os.getpid()
        for option in SOCKET_OPTIONS:
            wire.setsockopt(*option)
        wire.setblocking(False)
        connecting.hold(wire.cut)
        if (error := wire.connect_ex(address[4])) in _UNDER_WAY:
            error = 0
            while not error and not wait_for_write(wire, connecting.left(CONNECT_SLICE_SECONDS)):
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
        oldest.close()


def _popped(pool: deque[Connection]) -> Connection | None:
    try:
        return pool.pop()
    except IndexError:
        return None


_transports: weakref.WeakSet[BlockingTransport] = weakref.WeakSet()


def _forget_parent() -> None:
    for transport in _transports:
        transport.forget_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
