"""A small SOCKS5 proxy on loopback, for tests: it connects, may want a login, and has names of its own."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping

from servers import on_server_thread, until

SUCCEEDED, REFUSED, NOT_ALLOWED = 0, 5, 2


class SocksServer:
    """Proxies until it is closed: `with SocksServer() as proxy:`.

    `login` is the "user:password" that it wants, `routes` are its names, each with a port here. To any other address
    it refuses to connect. If it is slow, it answers byte by byte; `silent` is how many steps it takes, then no more.
    """

    def __init__(
        self, *, login: str | None = None, routes: Mapping[str, int] | None = None, steps: int | None = None
    ) -> None:
        self.asked: list[tuple[str, int]] = []
        self._login = login
        self._routes = dict(routes or {})
        self._steps = steps
        self._open: set[asyncio.StreamWriter] = set()
        self._server = on_server_thread(lambda _: asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.place = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def url_for(self, login: str = "", scheme: str = "socks5") -> str:
        return f"{scheme}://{login and login + '@'}{self.place}"

    def __enter__(self) -> SocksServer:
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
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        method = 0 if self._login is None else 2
        if method not in methods:
            writer.write(b"\x05\xff")
            await writer.drain()
            return
        await self._answer(reader, writer, bytes([5, method]), 0)
        if self._login is not None:
            user = await reader.readexactly((await reader.readexactly(2))[1])
            password = await reader.readexactly((await reader.readexactly(1))[0])
            is_right = user + b":" + password == self._login.encode()
            await self._answer(reader, writer, b"\x01\x00" if is_right else b"\x01\x01", 1)
            if not is_right:
                return
        host, port = await self._destination(reader)
        self.asked.append((host, port))
        code = REFUSED
        try:
            there = await asyncio.open_connection("127.0.0.1", self._routes.get(host, port))
            code = SUCCEEDED
        except OSError:
            pass
        await self._answer(reader, writer, bytes([5, code, 0, 1, 0, 0, 0, 0, 0, 0]), 2)
        if code == SUCCEEDED:
            await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes, step: int) -> None:
        if self._steps is not None and step >= self._steps:
            await reader.read()  # Nothing more, until the other side hangs up.
            raise ConnectionResetError
        writer.write(data)
        await writer.drain()

    async def _destination(self, reader: asyncio.StreamReader) -> tuple[str, int]:
        kind = (await reader.readexactly(4))[3]
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            host = str(ipaddress.ip_address(await reader.readexactly(4 if kind == 1 else 16)))
        return host, int.from_bytes(await reader.readexactly(2))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.transport.abort()
