"""A small HTTP/1.1 server on loopback that misbehaves to order, for tests of whatever speaks to one.

It runs on a thread of its own. What it answers is an `async def` that is given the call and writes what it likes, at
the times it likes; it is cancelled when the other side hangs up.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import trustme

Answer = Callable[["Call"], Awaitable[None]]


class Call:
    """A request as it came, and the pen for its answer."""

    def __init__(self, peer: _Peer, head: bytes, body: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = first.split(" ", 2)
        self.headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        self.body = body
        self.connection = peer.number
        self._peer = peer

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)

    def write(self, data: bytes) -> None:
        self._peer.transport.write(data)

    def head(self, *lines: str, status: str = "200 OK") -> None:
        self.write("\r\n".join((f"HTTP/1.1 {status}", *lines, "", "")).encode("latin-1"))

    def chunk(self, data: bytes) -> None:
        """Write one chunk of a chunked body; the empty one is its end."""
        self.write(b"%x\r\n%b\r\n" % (len(data), data))

    def close(self) -> None:
        """Hang up once all is written."""
        self._peer.transport.close()

    def reset(self) -> None:
        """Hang up so that the other side gets an error."""
        made = self._peer.transport.get_extra_info("socket")
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._peer.transport.abort()

    async def forever(self) -> None:
        await asyncio.get_running_loop().create_future()

    async def drip(self, data: bytes, gap: float = 0.05) -> None:
        """Write the same again and again."""
        while True:
            self.write(data)
            await asyncio.sleep(gap)


class _Peer(asyncio.Protocol):
    """One connection: requests in, answers out, one after the other."""

    transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self._server = server
        self._buffer = b""
        self._task: asyncio.Task[None] | None = None
        self.number = 0

    def connection_made(self, transport) -> None:
        self.transport = transport
        self._server.peers.add(self)
        self._server.accepted += 1
        self.number = self._server.accepted

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.peers.discard(self)
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._server.blurts:
            self.transport.write(self._server.blurts)
            return
        self._buffer += data
        self._next()

    def _next(self) -> None:
        if self._task is not None:
            return
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        call = Call(self, head, b"")
        length = int(call.header("content-length") or 0)
        if len(rest) < length and not self._server.answers_early:
            return
        call.body, self._buffer = rest[:length], rest[length:]
        self._server.calls.append(call)
        self._task = asyncio.get_running_loop().create_task(self._answer(call))

    async def _answer(self, call: Call) -> None:
        await self._server.answer(call)
        self._task = None
        self._next()


class Server:
    """Listens until it is closed; `answer` may be replaced at any time. `with Server(...) as server:`

    It may answer without waiting for the body, or blurt something out whatever it hears.
    """

    def __init__(
        self, answer: Answer, *, secure: bool | ssl.SSLContext = False, answers_early: bool = False, blurts: bytes = b""
    ) -> None:
        self.answer = answer
        self.answers_early = answers_early
        self.blurts = blurts
        self.calls: list[Call] = []
        self.peers: set[_Peer] = set()
        self.accepted = 0
        context = server_context() if secure is True else secure or None
        self._server = on_server_thread(
            lambda loop: loop.create_server(lambda: _Peer(self), "127.0.0.1", 0, ssl=context)
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self.place = f"127.0.0.1:{self.port}"
        self.url = f"http{'s' if secure else ''}://{self.place}"

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        on_server_thread(self._stop)

    async def _stop(self, loop: asyncio.AbstractEventLoop) -> None:
        for listening in self._server.sockets:
            loop.remove_reader(listening.fileno())
        await asyncio.sleep(0.001)  # asyncio forgets the socket of a connection it is accepting while it closes.
        self._server.close()
        for peer in list(self.peers):
            peer.transport.abort()

    def is_left_by_all(self, within: float = 1.0) -> bool:
        """Whether all connections are closed, now or very soon."""
        return until(lambda: not self.peers, within)


class Gate:
    """What an answer waits for and the test opens, from whatever thread."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def open(self) -> None:
        _server_loop().call_soon_threadsafe(self._event.set)

    async def passed(self) -> None:
        await self._event.wait()


def whole(body: bytes = b"ok", *lines: str, status: str = "200 OK") -> Answer:
    async def answer(call: Call) -> None:
        call.head(f"Content-Length: {len(body)}", *lines, status=status)
        call.write(body)

    return answer


def chunked(*pieces: bytes) -> Answer:
    async def answer(call: Call) -> None:
        call.head("Transfer-Encoding: chunked", "Content-Type: text/event-stream")
        for piece in pieces:
            call.chunk(piece)
        call.chunk(b"")

    return answer


def until(condition: Callable[[], bool], within: float) -> bool:
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


@contextmanager
def deaf_listener() -> Iterator[int]:
    """A port where connecting takes forever: somebody listens, the queue is full, and nobody accepts."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        queued: list[socket.socket] = []
        try:
            while True:
                queued.append(socket.socket())
                queued[-1].settimeout(0.1)
                try:
                    queued[-1].connect(listener.getsockname())
                except TimeoutError:
                    break
            yield listener.getsockname()[1]
        finally:
            for waiting in queued:
                waiting.close()


@contextmanager
def mute_listener() -> Iterator[int]:
    """A port that accepts connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield listener.getsockname()[1]


def free_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@functools.cache
def authority() -> trustme.CA:
    return trustme.CA()


@functools.cache
def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@functools.cache
def client_context() -> ssl.SSLContext:
    """What a client needs to trust our servers."""
    context = ssl.create_default_context()
    authority().configure_trust(context)
    return context


@functools.cache
def _server_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="test-server", daemon=True).start()
    return loop


def on_server_thread(start):
    """Run a coroutine, made by `start(loop)`, where the servers are."""
    loop = _server_loop()
    return asyncio.run_coroutine_threadsafe(start(loop), loop).result(10)
