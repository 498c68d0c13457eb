"""A small HTTP proxy on loopback, for tests: it makes tunnels, passes on what it may read, and may want a login.

It has names of its own, so that a client which looks up a server's name itself gets nowhere. A proxy that misbehaves is
a `servers.Server` with the right answer.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Mapping
from typing import NamedTuple

from servers import on_server_thread, server_context, until


class Asked(NamedTuple):
    """A request as it came to the proxy."""

    method: str
    target: str
    headers: dict[str, str]
    connection: int


class ProxyServer:
    """Proxies until it is closed: `with ProxyServer() as proxy:`.

    `login` is the "user:password" that it wants, `routes` are its names: what stands in a URL, and a port here. If it
    is slow, it makes a tunnel byte by byte.
    """

    def __init__(
        self,
        *,
        login: str | None = None,
        secure: bool = False,
        slowly: bool = False,
        routes: Mapping[str, int] | None = None,
    ) -> None:
        self.asked: list[Asked] = []
        self.heard = bytearray()
        self.connections = 0
        self._credentials = None if login is None else f"Basic {b64encode(login.encode()).decode()}"
        self._slowly = slowly
        self._routes = dict(routes or {})
        self._open: set[asyncio.StreamWriter] = set()
        context = server_context() if secure else None
        self._server = on_server_thread(
            lambda _: asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=context, limit=2**20)
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self.place = f"127.0.0.1:{self.port}"
        self._scheme = "https" if secure else "http"
        self.url = self.url_for()

    def url_for(self, login: str = "") -> str:
        return f"{self._scheme}://{login and login + '@'}{self.place}"

    def __enter__(self) -> ProxyServer:
        return self

    def __exit__(self, *_: object) -> None:
        on_server_thread(self._stop)

    def is_left_by_all(self, within: float = 1.0) -> bool:
        """Whether all connections are closed, now or very soon."""
        return until(lambda: not self._open, within)

    async def _stop(self, _: asyncio.AbstractEventLoop) -> None:
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        self.connections += 1
        try:
            await self._serve(reader, writer, self.connections)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        """Requests one after the other, all for one server, or one tunnel."""
        up: asyncio.StreamWriter | None = None
        answers: asyncio.Task[None] | None = None
        try:
            while True:
                asked, lines = self._read_head(await reader.readuntil(b"\r\n\r\n"), connection)
                if self._credentials not in (None, asked.headers.get("proxy-authorization")):
                    writer.write(b"HTTP/1.1 407 Who Are You\r\nContent-Length: 2\r\n\r\n:(")
                    continue
                is_tunnel = asked.method == "CONNECT"
                place, slash, path = asked.target.removeprefix("http://").partition("/")
                if up is None:
                    try:
                        down, up = await self._reach(place)
                    except OSError:
                        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
                        continue
                    if is_tunnel:
                        await self._welcome(writer)
                    answers = asyncio.create_task(self._pass_on(down, writer))
                if is_tunnel:
                    await self._pass_on(reader, up, self.heard)
                    return
                up.write("\r\n".join((f"{asked.method} {slash}{path} HTTP/1.1", *lines, "", "")).encode())
                up.write(await reader.readexactly(int(asked.headers.get("content-length", 0))))
        finally:
            if answers is not None and up is not None:
                answers.cancel()
                up.transport.abort()

    async def _welcome(self, writer: asyncio.StreamWriter) -> None:
        said = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 tests\r\n\r\n"
        step = 1 if self._slowly else len(said)
        for start in range(0, len(said), step):
            writer.write(said[start : start + step])
            await asyncio.sleep(0.001)

    def _read_head(self, head: bytes, connection: int) -> tuple[Asked, list[str]]:
        self.heard += head
        first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        asked = Asked(method, target, headers, connection)
        self.asked.append(asked)
        return asked, [line for line in lines if not line.lower().startswith("proxy-")]

    async def _reach(self, place: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if place in self._routes:
            return await asyncio.open_connection("127.0.0.1", self._routes[place])
        host, _, port = place.partition(":")
        return await asyncio.open_connection(host, int(port or 80))

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, copy: bytearray | None = None
    ) -> None:
        while data := await reader.read(65536):
            if copy is not None:
                copy += data
            writer.write(data)
            await writer.drain()
        writer.close()
