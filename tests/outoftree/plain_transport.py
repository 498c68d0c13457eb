"""A transport of one's own for each colour: HTTP/1.1 by hand, a connection for each request, no TLS.

It keeps what a transport promises: one attempt, bytes as given, limits kept, and once it is connected it can be cut
from any thread at any time.
"""

import asyncio
import socket
from collections.abc import Callable, Generator, Mapping
from typing import Any
from urllib.parse import urlsplit

from sabir import ConnectError, SabirError, StreamInterrupted
from sabir.requests import HttpRequest
from sabir.runtime import Line

PIECE = 65536
Head = tuple[int, dict[str, str]]


class PlainTransport:
    """Blocking: its coroutines never suspend."""

    def __init__(self) -> None:
        self.replies: set[PlainReply] = set()

    async def send(self, request: HttpRequest, line: Line) -> "PlainReply":
        host, port, data = written(request)
        try:
            wire = socket.create_connection((host, port), timeout=line.left(line.connect))
        except OSError as error:
            line.left()  # Raises, if that is why.
            raise ConnectError(f"no connection to {host}:{port}: {error!r}") from None
        reply = PlainReply(wire, line, self.replies.discard)
        self.replies.add(reply)
        reply.begin(data)
        return reply

    def close(self) -> None:
        for reply in list(self.replies):
            reply.cut()


class PlainReply:
    status: int
    headers: Mapping[str, str]

    def __init__(self, wire: socket.socket, line: Line, forget: Callable[["PlainReply"], None]) -> None:
        self._wire = wire
        self._line = line
        self._forget = forget
        self._answer = answer()
        line.hold(self.cut)

    def begin(self, data: bytes) -> None:
        try:
            view = memoryview(data)
            while view:
                self._wire.settimeout(self._line.left(self._line.idle))
                view = view[self._wire.send(view[:PIECE]) :]
            self.status, self.headers = self._next()
        except (OSError, EOFError, ValueError, SabirError) as error:
            self.close()
            raise failure(error, self._line, ConnectError) from None
        except BaseException:
            self.close()
            raise

    async def read_some(self) -> bytes:
        try:
            return self._next() or b""
        except (OSError, EOFError, ValueError, SabirError) as error:
            raise failure(error, self._line, StreamInterrupted) from None

    def _next(self) -> Any:
        """What the answer says next; None at its end."""
        try:
            found = next(self._answer)
            while found is None:
                self._wire.settimeout(self._line.left(self._line.idle))
                found = self._answer.send(self._wire.recv(PIECE))
            return found
        except StopIteration:
            return None

    def cut(self) -> None:
        """Wake whoever waits for the socket: it sees the end of the stream."""
        try:
            self._wire.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        self.cut()
        self._line.release(self.cut)
        self._forget(self)
        self._wire.close()


class StreamsTransport:
    """Awaitable: on the streams of asyncio."""

    def __init__(self) -> None:
        self.replies: set[StreamsReply] = set()

    async def send(self, request: HttpRequest, line: Line) -> "StreamsReply":
        host, port, data = written(request)
        try:
            async with asyncio.timeout(line.left(line.connect)):
                reader, writer = await asyncio.open_connection(host, port)
        except OSError as error:
            line.left()  # Raises, if that is why.
            raise ConnectError(f"no connection to {host}:{port}: {error!r}") from None
        reply = StreamsReply(reader, writer, line, self.replies.discard)
        self.replies.add(reply)
        await reply.begin(data)
        return reply

    def close(self) -> None:
        for reply in list(self.replies):
            reply.close()


class StreamsReply:
    status: int
    headers: Mapping[str, str]

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        line: Line,
        forget: Callable[["StreamsReply"], None],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._line = line
        self._forget = forget
        self._loop = asyncio.get_running_loop()
        self._answer = answer()
        line.hold(self.close)

    async def begin(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            async with asyncio.timeout(self._line.left(self._line.idle)):
                await self._writer.drain()
            self.status, self.headers = await self._next()
        except (OSError, EOFError, ValueError, SabirError) as error:
            self.close()
            raise failure(error, self._line, ConnectError) from None
        except BaseException:
            self.close()
            raise

    async def read_some(self) -> bytes:
        try:
            return await self._next() or b""
        except (OSError, EOFError, ValueError, SabirError) as error:
            raise failure(error, self._line, StreamInterrupted) from None

    async def _next(self) -> Any:
        """What the answer says next; None at its end."""
        try:
            found = next(self._answer)
            while found is None:
                async with asyncio.timeout(self._line.left(self._line.idle)):
                    data = await self._reader.read(PIECE)
                found = self._answer.send(data)
            return found
        except StopIteration:
            return None

    def close(self) -> None:
        self._line.release(self.close)
        self._forget(self)
        if self._loop is running_loop():
            self._writer.transport.abort()
            return
        try:
            self._loop.call_soon_threadsafe(self._writer.transport.abort)
        except RuntimeError:
            pass  # The loop has ended.


def running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def written(request: HttpRequest) -> tuple[str, int, bytes]:
    """Where a request goes, and its bytes."""
    place = urlsplit(request.url)
    target = (place.path or "/") + (f"?{place.query}" if place.query else "")
    own = {"host": place.netloc, "content-length": str(len(request.body)), "connection": "close"}
    headers = [*request.headers, *own.items()]
    lines = [f"{request.method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
    return str(place.hostname), place.port or 80, "\r\n".join(lines).encode() + request.body


def answer() -> Generator[Head | bytes | None, bytes, None]:
    """An answer: its head, then its body in pieces. Where it yields None it is to be sent what arrives next."""
    data = bytearray()
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += yield from arrived()
    first, *lines = data[:end].decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    del data[: end + 4]
    yield int(first.split()[1]), headers
    if headers.get("transfer-encoding") == "chunked":
        while True:
            while (end := data.find(b"\r\n")) < 0:
                data += yield from arrived()
            left = int(data[:end].split(b";")[0], 16)
            del data[: end + 2]
            if not left:
                return
            yield from pieces(data, left)
            while len(data) < 2:
                data += yield from arrived()
            del data[:2]
    if "content-length" in headers:
        yield from pieces(data, int(headers["content-length"]))
        return
    while True:
        if data:
            yield bytes(data)
        data = bytearray((yield None))
        if not data:
            return


def pieces(data: bytearray, left: int) -> Generator[bytes | None, bytes, None]:
    """So many bytes, of what is there and of what arrives."""
    while left:
        if not data:
            data += yield from arrived()
        piece = bytes(data[:left])
        del data[:left]
        left -= len(piece)
        yield piece


def arrived() -> Generator[None, bytes, bytes]:
    if not (data := (yield None)):
        raise EOFError("the connection was closed before the end of the answer")
    return data


def failure(error: BaseException, line: Line, otherwise: type[SabirError]) -> SabirError:
    """The error of the family: who cut the line, or which limit has passed, or what happened."""
    if isinstance(error, SabirError):
        return error
    if line.aborted or line.is_over() or isinstance(error, TimeoutError):
        return line.timeout_error()
    return otherwise(f"no whole answer came: {error!r}", retryable=True)
