"""HTTP/1.1 without the network: requests to bytes, bytes to answers. httptools, Node.js's parser, does the work."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import cast

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpResponseParser

from . import HEADER_LIMIT, OTHER_PROTOCOL


def request_head(method: str, target: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """The head of a request; what stands in it has been checked."""
    lines = (f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", "")
    return "\r\n".join(lines).encode("ascii")


class Answer:
    """One answer, as much of it as has come. httptools calls the methods whose names begin with `on_`.

    What was in order is there to `take` before a `failure` is to be told.
    """

    def __init__(self, *, has_body: bool = True) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.has_head = False
        self.is_whole = False
        self.failure: OSError | None = None
        self._has_body = has_body
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append
        self._fed = 0
        self._head_size = 0
        self._is_framed = False
        self._is_last = False
        self._has_surplus = False
        self._pieces_of_ours = 0
        self._parser: HttpResponseParser | None = HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Read more of it; b"" is the end of the connection."""
        if self.is_whole and (not data or self._has_surplus):
            self._is_last = True
        elif not data:
            self._end()
        elif not self.has_head:
            self._parse(data)
            self._fed += len(data)
            self._check_size()
        else:
            self._parse(data)

    def fail(self, error: OSError) -> None:
        """The connection broke; a body that ends with its connection did not end so."""
        self._is_last = True
        if not self.is_whole and self.failure is None:
            self.failure = error

    def take(self) -> bytes:
        """What has come of the body and was not taken yet."""
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        return data

    def can_be_followed(self) -> bool:
        """Whether its connection can carry another exchange."""
        return self.is_whole and not (self._is_last or self._has_surplus or self.failure)

    def let_go(self) -> None:
        """Forget the parser, which refers to this and is referred to."""
        self._parser = None

    def on_message_begin(self) -> None:
        # A second answer, which nobody asked for: what it says is not the first one's.
        if self.is_whole and not self._has_surplus:
            self._has_surplus = True
            self._pieces_of_ours = len(self._pieces)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.has_head:
            return  # a trailer
        self._head_size += len(name) + len(value)
        self.headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        parser = self._parser
        if parser is None or self.has_head:
            return
        self.status = parser.get_status_code()
        if self.status < 200:  # An interim answer: the one that counts is still to come.
            self.headers.clear()
            return
        framing = {name.lower(): value.lower() for name, value in self.headers}
        self._is_framed = "content-length" in framing or "chunked" in framing.get("transfer-encoding", "")
        word = framing.get("connection", "")
        self._is_last = "close" in word or (parser.get_http_version() == "1.0" and "keep-alive" not in word)
        self.has_head = True
        self.is_whole = not self._has_body or self.status in (204, 304)

    def on_message_complete(self) -> None:
        if self.has_head:
            self.is_whole = True

    def _parse(self, data: bytes) -> None:
        failure: HttpParserError | None = None
        try:
            cast("HttpResponseParser", self._parser).feed_data(data)
        except HttpParserError as error:
            failure = error
        except HttpParserUpgrade:
            self.fail(OSError(OTHER_PROTOCOL))
        if self._has_surplus:
            del self._pieces[self._pieces_of_ours :]
        if isinstance(failure, HttpParserCallbackError) and not isinstance(failure.__context__, HttpParserError):
            # Our methods raise nothing: it was a signal (Ctrl-C), and httptools wrapped what its handler raised.
            # Where another error is being handled, Python has put it in the place of this one.
            struck = failure.__context__
            raise KeyboardInterrupt if struck is None or struck is sys.exception() else struck
        if failure is not None and self.is_whole:
            self._is_last = True
        elif failure is not None:
            self.failure = OSError(f"what came is no HTTP: {failure}")

    def _check_size(self) -> None:
        size = self._head_size if self.has_head else self._fed
        if size > HEADER_LIMIT and self.failure is None:
            self.failure = OSError(f"the head of the answer is longer than {HEADER_LIMIT} bytes")
            self.has_head = False

    def _end(self) -> None:
        if not self.has_head:
            self.fail(OSError("the connection was closed before the head of the answer was complete"))
        elif self._is_framed:
            self.fail(OSError("the connection was closed before the body was complete"))
        else:
            self.is_whole = self._is_last = True
