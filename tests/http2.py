"""A server of HTTP/2 (and 1.1) on loopback, for tests: hypercorn, with TLS, running an ASGI application of the test."""

from __future__ import annotations

import asyncio
import functools
import socket
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from hypercorn.asyncio import serve
from hypercorn.config import Config
from servers import authority, free_port, on_server_thread, until

App = Callable[["Request"], Awaitable[None]]


class Request:
    """A request as it came, and the pen for its answer."""

    def __init__(self, scope: dict[str, Any], body: bytes, receive: Any, send: Any) -> None:
        self.version: str = scope["http_version"]
        self.path: str = scope["path"]
        self.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.connection: int = scope["client"][1]
        self.body = body
        self._receive = receive
        self._send = send

    async def head(self, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def write(self, data: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def until_left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


class Http2Server:
    """Runs `app` for each request; what was asked stands in `requests`. There is one, as it does not end well."""

    app: App

    def __init__(self) -> None:
        self.requests: list[Request] = []
        port = free_port()
        config = Config()
        config.bind = [f"127.0.0.1:{port}"]
        config.errorlog = None
        config.keep_alive_timeout = 3  # What it also waits before it breaks off an answer whose application failed.
        with tempfile.TemporaryDirectory() as folder:
            key, chain = Path(folder, "key.pem"), Path(folder, "chain.pem")
            issued = authority().issue_cert("127.0.0.1")
            issued.private_key_pem.write_to_path(key)
            chain.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
            config.keyfile, config.certfile = str(key), str(chain)
            on_server_thread(lambda loop: self._start(loop, config))
            assert until(lambda: _listens(port), 10)
        self.url = f"https://127.0.0.1:{port}"

    async def _start(self, loop: asyncio.AbstractEventLoop, config: Config) -> None:
        self._task = loop.create_task(serve(self._serve, config, shutdown_trigger=asyncio.Event().wait))

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError("there is nothing to do at start and end")
        pieces: list[bytes] = []
        while True:
            event = await receive()
            pieces.append(event.get("body", b""))
            if not event.get("more_body"):
                break
        request = Request(scope, b"".join(pieces), receive, send)
        self.requests.append(request)
        await self.app(request)


def http2_server(app: App) -> Http2Server:
    """The server, as it is to answer from now on."""
    server = _server()
    server.app = app
    server.requests = []
    return server


@functools.cache
def _server() -> Http2Server:
    return Http2Server()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
