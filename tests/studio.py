"""A server of pictures, speech and transcripts, made of the dialects' server halves, on loopback.

It knows the key, and is told what to answer: a value is a whole answer, or what a stream ends with; before that come
the pieces. What it was asked stands in `asked`, decoded, and in `server.calls` as it came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from servers import Call, Server

from sabir.dialects.media_formats import MediaDialect
from sabir.errors import AuthenticationError, NotFoundError, SabirError
from sabir.requests import HttpRequest

KEY = "key-of-the-studio"
PREFIX = "/v1"


class Studio:
    """The app. `failures` are raised one after the other, before anything is answered."""

    def __init__(self, *dialects: MediaDialect[Any, Any, Any], answer: Any = None, pieces: Sequence[Any] = ()) -> None:
        self.dialects = dialects
        self.answer = answer
        self.pieces = tuple(pieces)
        # What is answered in a format, where that differs: the answer and its pieces.
        self.told: dict[str, tuple[Any, Sequence[Any]]] = {}
        self.asked: list[Any] = []
        self.failures: list[SabirError] = []
        self.breaks_after: int | None = None
        self.always_streams = False
        self.server = Server(self)

    @property
    def url(self) -> str:
        return f"{self.server.url}{PREFIX}"

    def __enter__(self) -> Studio:
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.__exit__(*exc)

    async def __call__(self, call: Call) -> None:
        dialect = self.dialects[0]
        try:
            dialect, request = self._read(call)
            self.asked.append(request)
            self._admit(call)
            if self.failures:
                raise self.failures.pop(0)
            if request.stream or self.always_streams:
                return self._stream(call, dialect, request)
            kind, body = dialect.encode_response(request, self._told(dialect)[0])
            call.head(f"Content-Type: {kind}", f"Content-Length: {len(body)}", "x-request-id: req-7")
            call.write(body)
        except SabirError as error:
            status, body = dialect.encode_error(error)
            call.head("Content-Type: application/json", f"Content-Length: {len(body)}", status=f"{status} No")
            call.write(body)

    def _read(self, call: Call) -> tuple[MediaDialect[Any, Any, Any], Any]:
        http = HttpRequest(call.method, call.target, tuple(call.headers), call.body)
        for dialect in self.dialects:
            try:
                return dialect, dialect.decode_request(http)
            except NotFoundError:
                continue
        raise NotFoundError(f"nothing is served at {call.target}")

    def _told(self, dialect: MediaDialect[Any, Any, Any]) -> tuple[Any, Sequence[Any]]:
        return self.told.get(dialect.name, (self.answer, self.pieces))

    def _admit(self, call: Call) -> None:
        key = call.header("x-goog-api-key") or (call.header("authorization") or "").removeprefix("Bearer ")
        if key != KEY:
            raise AuthenticationError("this key is not known here", code="invalid_api_key")

    def _stream(self, call: Call, dialect: MediaDialect[Any, Any, Any], request: Any) -> None:
        encoder, (answer, pieces) = dialect.encoder(request), self._told(dialect)
        call.head(f"Content-Type: {encoder.content_type}", "Transfer-Encoding: chunked", "x-request-id: req-7")
        for piece in pieces[: self.breaks_after]:
            if data := encoder.feed(piece):
                call.chunk(data)
        if self.breaks_after is not None:
            return call.close()
        if data := encoder.close(answer):
            call.chunk(data)
        return call.chunk(b"")
