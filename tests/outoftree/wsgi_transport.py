"""A transport of one's own: the server is a WSGI application in this process, and no socket is opened."""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit
from wsgiref.util import setup_testing_defaults

from sabir import ConnectError, StreamInterrupted
from sabir.requests import HttpRequest
from sabir.runtime import Line

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class WsgiTransport:
    """Calls an application, in place. It never suspends, and so serves both colours."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def send(self, request: HttpRequest, line: Line) -> "WsgiReply":
        line.left()  # Raises when the call was cut, or its time is over.
        place, started = urlsplit(request.url), list[Any]()
        environ: dict[str, Any] = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in request.headers}
        environ |= {
            "REQUEST_METHOD": request.method,
            "PATH_INFO": unquote(place.path),
            "QUERY_STRING": place.query,
            "HTTP_HOST": place.netloc,
            "CONTENT_TYPE": environ.pop("HTTP_CONTENT_TYPE", ""),
            "CONTENT_LENGTH": str(len(request.body)),
            "wsgi.input": io.BytesIO(request.body),
        }
        setup_testing_defaults(environ)

        def start_response(status: str, headers: list[tuple[str, str]], error: Any = None) -> None:
            started.extend((status, headers))

        try:
            pieces = iter(self._app(environ, start_response))
            first = next(pieces, b"")
        except Exception as error:
            raise ConnectError(f"the application failed: {error!r}") from error
        return WsgiReply(started, first, pieces, line)

    def close(self) -> None:
        """Nothing to let go of."""


class WsgiReply:
    """What the application answers, piece by piece as it makes them."""

    status: int
    headers: Mapping[str, str]

    def __init__(self, started: list[Any], first: bytes, pieces: Iterator[bytes], line: Line) -> None:
        self.status = int(started[0].split()[0])
        self.headers = {name.lower(): value for name, value in started[1]}
        self._first = first
        self._pieces = pieces
        self._line = line

    async def read_some(self) -> bytes:
        self._line.left()
        first, self._first = self._first, b""
        try:
            return first or next((piece for piece in self._pieces if piece), b"")
        except Exception as error:
            raise StreamInterrupted(f"the application failed: {error!r}") from error

    def close(self) -> None:
        getattr(self._pieces, "close", lambda: None)()
