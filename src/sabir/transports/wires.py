"""Sockets for a library that would have its own: what they may wait for is what their line allows; both colours.

Everything is written once, as coroutines that await only how a socket is waited for. A blocking wait answers before it
returns, so that `runtime.run` can finish the rest. To cut a wait is to shut its socket down, which any thread may do
and which wakes a reader on any loop. A connection that nobody waits for belongs to no loop: the next may use it.
It knows no HTTP.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, final

from ..errors import ClosedError
from ..runtime import Line, Outcome
from . import connect_limit
from .sockets import CONNECT_SLICE_SECONDS, SOCKET_OPTIONS, UNDER_WAY, Address, numeric_addresses, resolve
from .tls import PIECE_SIZE, Tls

# Wait until a socket can be read from, or written to, for some seconds at most; says whether it can.
Wait = Callable[[socket.socket, float | None, bool], Coroutine[Any, Any, bool]]


class Stream(Protocol):
    """Bytes both ways: a wire, or what is spoken on it."""

    async def receive(self, most: int) -> bytes:
        """What comes next; b"" at the end of the stream."""
        ...

    async def send(self, data: bytes) -> None: ...


@final
class Wire:
    """One TCP connection, from the moment that somebody wants it; it serves one line after the other.

    Until `is_connecting` is set to False, all its waits together take no longer than the line's limit on connecting.

    Raises, wherever it waits:
        TimeoutError: without an `errno`, when that took too long.
        ClosedError, DeadlineExceeded: the line was cut, or is over.
    """

    def __init__(self, wait: Wait, line: Line) -> None:
        self.line = line
        self.is_connecting = True
        self._wait = wait
        self._process = os.getpid()
        self._socket: socket.socket | None = None
        self._is_cut = False
        limit = connect_limit(line)
        self._until = None if limit is None else line.now() + limit

    async def connect(self, host: str, port: int) -> None:
        """Connect to the first address that answers; those still to come each have a share of the time."""
        failure = OSError("it has no address")
        addresses = await self._addresses(host, port)
        for tried, address in enumerate(addresses):
            left = self._left()
            end = None if left is None else time.monotonic() + left / (len(addresses) - tried)
            try:
                await self._open(address, end)
                return
            except OSError as error:
                self._left()
                failure = error
        raise failure

    async def receive(self, most: int) -> bytes:
        while True:
            # A wait comes first even where something is there: on a loop it is what lets other tasks run.
            await self._ready(self._held())
            try:
                return self._held().recv(most)
            except (BlockingIOError, InterruptedError):
                pass

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._held().send(view[:PIECE_SIZE]) :]
            except (BlockingIOError, InterruptedError):
                pass
            if view:
                await self._ready(self._held(), to_write=True)

    def is_usable(self) -> bool:
        """Whether an idle connection may carry another exchange: it is this process's, and nothing came on it.

        What could come is that the other side has hung up, or is about to.
        """
        if self._process != os.getpid() or self._socket is None:
            return False
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            pass
        return False

    def cut(self) -> None:
        """Wake whoever waits for this connection: it sees the end of the stream. Plain, legal from any thread."""
        self._is_cut = True
        held = self._socket
        if held is None or self._process != os.getpid():
            return  # A copy made by fork: to shut it down would cut the parent's.
        try:
            held.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        """Let go of the socket. Only where nobody waits for it: who closes a socket does not wake its reader."""
        self._is_cut = True
        if self._socket is not None:
            self._socket.close()

    def __del__(self) -> None:
        self.close()

    def _left(self) -> float | None:
        if not self.is_connecting:
            return self.line.left(self.line.idle)
        return self.line.left(None if self._until is None else max(0.0, self._until - self.line.now()))

    async def _ready(self, waiting: socket.socket, *, to_write: bool = False) -> None:
        if not await self._wait(waiting, self._left(), to_write):
            raise TimeoutError("nothing came in time")

    def _hold(self, made: socket.socket) -> None:
        self._socket = made
        made.setblocking(False)
        if self._is_cut:
            self._held()

    def _held(self) -> socket.socket:
        if self._socket is None or self._is_cut:
            raise ClosedError("this connection has been closed")
        return self._socket

    async def _addresses(self, host: str, port: int) -> list[Address]:
        if known := numeric_addresses(host, port):
            return known
        found: list[Outcome] = []
        # A lookup tells that it is done through a socket, which can be waited for, and cut, as any other here.
        ours, theirs = socket.socketpair()

        def deliver(outcome: Outcome) -> None:
            found.append(outcome)
            theirs.close()

        resolve(host, port, deliver)
        try:
            self._hold(ours)
            await self._ready(ours)
            self._held()
        finally:
            self._socket = None
            ours.close()
        return list(found[0].result())

    async def _open(self, address: Address, end: float | None) -> None:
        made = socket.socket(*address[:3])
        try:
            for option in SOCKET_OPTIONS:
                made.setsockopt(*option)
            self._hold(made)
            if (error := made.connect_ex(address[4])) in UNDER_WAY:
                error = 0
                while not error and not await self._wait(made, self._slice(), True):
                    if end is not None and time.monotonic() >= end:
                        raise TimeoutError("it does not answer")
                    error = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                error = error or made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._held()
            if error:
                raise OSError(error, os.strerror(error))
        except BaseException:
            self._socket = None
            made.close()
            raise

    def _slice(self) -> float:
        self._held()
        left = self._left()
        return CONNECT_SLICE_SECONDS if left is None else min(left, CONNECT_SLICE_SECONDS)


@final
class Secure:
    """TLS on a stream, which may itself be TLS to a proxy."""

    def __init__(self, inner: Stream, tls: Tls) -> None:
        self.tls = tls
        self._inner = inner
        self._heard = b""

    async def shake_hands(self) -> None:
        await self._say()
        while not self.tls.is_ready:
            if not (data := await self._inner.receive(PIECE_SIZE)):
                raise OSError("the connection was closed in the handshake of TLS")
            self._heard += self.tls.decrypted(data)
            await self._say()

    async def receive(self, most: int) -> bytes:
        while not self._heard and not self.tls.is_over:
            if not (data := await self._inner.receive(PIECE_SIZE)):
                break  # Whether it may end here, and so, is for who knows the format.
            self._heard = self.tls.decrypted(data)
            await self._say()
        heard, self._heard = self._heard[:most], self._heard[most:]
        return heard

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(view), PIECE_SIZE):
            await self._inner.send(self.tls.encrypted(view[start : start + PIECE_SIZE]))

    async def _say(self) -> None:
        if data := self.tls.said():
            await self._inner.send(data)
