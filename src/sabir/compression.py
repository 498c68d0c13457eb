"""Answers that come compressed: gzip and deflate are undone piece by piece, as much at once as a read may hold.

We ask for none of it. But a caller may (`headers={"accept-encoding": "gzip"}`), and some servers and proxies compress
unasked. It knows no wire format and no transport.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import final

from .errors import StreamInterrupted, StreamProtocolError
from .runtime import Reply

# A small answer may be blown up a thousandfold: no more than this is in memory at once, and who reads it counts.
PIECE_SIZE = 1 << 18

_KNOWN = {"gzip", "x-gzip", "deflate"}
# Of zlib: the largest window, with a header of gzip or of zlib.
_ANY_HEADER = 47


def decompressed(reply: Reply) -> Reply:
    """The reply itself where its body is as it is, else one that undoes the compression.

    Raises:
        StreamProtocolError: it is compressed in a way that is not known here.
    """
    encoding = reply.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return reply
    if encoding in _KNOWN:
        return _Decompressed(reply, encoding)
    raise StreamProtocolError(
        f"the answer came compressed ({encoding[:40]!r}), which only gzip and deflate may be: have the server or the "
        "proxy before it keep to the header accept-encoding, or ask for one of the two by "
        "headers={'accept-encoding': 'gzip'}",
        status=reply.status,
    )


@final
class _Decompressed:
    """A reply whose body is decompressed as it is read."""

    status: int
    headers: Mapping[str, str]

    def __init__(self, reply: Reply, encoding: str) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self._reply = reply
        self._encoding = encoding
        self._unpacker = zlib.decompressobj(_ANY_HEADER)
        self._packed = b""
        self._is_begun = False
        self._has_more = False

    async def read_some(self) -> bytes:
        while True:
            if data := self._unpacked():
                return data
            self._packed = await self._reply.read_some()
            if not self._packed:
                if self._is_begun and not self._unpacker.eof:
                    raise StreamInterrupted(f"the answer ended before its {self._encoding} did", retryable=True)
                return b""

    def close(self) -> None:
        self._reply.close()

    def _unpacked(self) -> bytes:
        """The next piece of what is packed; nothing, if that is too little for one."""
        while self._packed or self._has_more:
            self._is_begun = True
            if self._unpacker.eof:
                self._unpacker = zlib.decompressobj(_ANY_HEADER)  # Members of gzip may follow each other.
            try:
                data = self._unpacker.decompress(self._packed, PIECE_SIZE)
            except zlib.error as error:
                raise StreamProtocolError(f"the answer says it is {self._encoding}, and is not: {error}") from None
            self._packed = self._unpacker.unused_data or self._unpacker.unconsumed_tail
            # zlib may have taken in the last of its input, and have more to give than fitted.
            self._has_more = len(data) == PIECE_SIZE and not self._unpacker.eof
            if data:
                return data
        return b""
