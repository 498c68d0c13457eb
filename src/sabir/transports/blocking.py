"""The blocking transport: urllib3's connections, our sockets, pool and clock.

A library's timeout is a fresh allowance for every wait, so that a server which drips bytes is waited for without end.
Here each send and recv is armed with what its line still allows, and the line can cut the socket from another thread.
Nothing waits on a Python-level lock, which a KeyboardInterrupt could leave held: the pool is made of deques, whose
`append` and `pop` are atomic, and where two threads may want to end the same thing, the one whose `pop` succeeds does.
"""

from __future__ import annotations

import errno
import functools
import http.client
import os
import queue
import socket
import ssl
import time
import weakref
from collections import deque
from collections.abc import Mapping
from typing import Any, final

from urllib3.connection import HTTPConnection
from urllib3.util.wait import wait_for_read, wait_for_write

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
)

READ_SIZE = 65536

# Not every system wakes a socket that is being connected when another thread shuts it down, so the waiter looks up.
CONNECT_SLICE_SECONDS = 0.1

_UNDER_WAY = {0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR}


class Plain(socket.socket):
    """A socket each of whose waits is as long as its line allows, and that any thread may cut."""

    line: Line | None = None
    has_ended = False

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self._arm()
        received = super().recv_into(*args, **kwargs)
        if not received:
            self.has_ended = True
        return received

    def sendall(self, data: Any, flags: int = 0) -> None:
        # In pieces, since one call has one timeout: a large body on a slow line is not a silent other side.
        view = memoryview(data).cast("B")
        while view:
            self._arm()
            view = view[self.send(view[:READ_SIZE], flags) :]

    def cut(self) -> None:
        """Wake whoever waits for this socket: it sees the end of the stream."""
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
    """A connection of urllib3 on a socket that we made."""

    def __init__(self, origin: Origin, wire: Plain) -> None:
        super().__init__(origin.host, origin.port)
        self.sock = wire
        self.wire = wire
        self.idle_since = 0.0

    def ask(self, request: HttpRequest, target: str, head: list[tuple[str, str]]) -> http.client.HTTPResponse:
        """Send a request and return its answer, of which only the head has been read."""
        try:
            self.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in head:
                self.putheader(name, value)
            if request.body or request.method in ("POST", "PUT", "PATCH"):
                self.putheader("Content-Length", str(len(request.body)))
            self.endheaders(request.body or None)
        except (BrokenPipeError, ConnectionResetError):
            # A server may refuse a large body without reading it all; its answer is already here then.
            self.wire.has_ended = True
        # urllib3 wraps the answer, and logs the URL of one with a faulty header: for some providers that is the key.
        answer = http.client.HTTPConnection.getresponse(self)
        if self.wire.has_ended and not answer.headers:
            raise http.client.RemoteDisconnected("the connection was closed before an answer came")
        return answer


@final
class BlockingReply:
    """An answer being read.

    `_open` and `_held` have one item each. Whoever pops `_open` decides what becomes of the connection: the reader at
    the end of the body gives it back, `close` cuts it. Whoever pops `_held` lets go of it; that is never done under a
    reader, which would hang both.
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
        self._is_busy = True
        self._is_read = False

    def begin(self, request: HttpRequest, target: str, head: list[tuple[str, str]]) -> None:
        self._connection.wire.line = self._line
        self._line.hold(self.close)
        try:
            answer = self._answer = self._connection.ask(request, target, head)
            self.status = answer.status
            self.headers = merged(answer.headers.items())
        except BaseException as error:
            self.close()
            raise self._meaning(error, connect_error) from None
        finally:
            self._pause()

    async def read_some(self) -> bytes:
        if self._is_read:
            return b""
        self._is_busy = True
        try:
            if not self._open:
                raise self._line.cut_error()
            answer = self._answer
            assert answer is not None
            if data := answer.read1(READ_SIZE):
                return data
            if answer.length:
                raise http.client.IncompleteRead(b"", answer.length)
            self._end(answer)
            return b""
        except BaseException as error:
            self.close()
            raise self._meaning(error, interrupted_error) from None
        finally:
            self._pause()

    def close(self) -> None:
        try:
            self._open.pop()
        except IndexError:
            return
        self._connection.wire.cut()
        if not self._is_busy:
            self._let_go()

    def _end(self, answer: http.client.HTTPResponse) -> None:
        try:
            self._open.pop()
        except IndexError:
            raise self._line.cut_error() from None
        self._is_read = True
        answer.close()
        if self._connection.sock is None or self._connection.wire.has_ended:
            return
        self._held.pop()
        self._forget()
        self._transport.keep(self._origin, self._connection)

    def _pause(self) -> None:
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

    def _meaning(self, error: BaseException, otherwise: Any) -> BaseException:
        ...
