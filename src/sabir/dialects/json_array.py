"""A JSON array of objects as a stream: bytes in, objects out, however they are cut; knows nothing of what they say.

Google's servers stream so where events are not asked for. One object alone, without an array around it, is read too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..errors import StreamProtocolError

# A model's chunk is a few hundred bytes; whole images come in one. Beyond this a server is broken or hostile.
MAX_OBJECT = 64 * 1024 * 1024
# No JSON that is nested more deeply is decoded.
_MAX_DEPTH = 1000

# The next bracket, or the beginning of a string whose end has not come; whole strings are passed over.
_MARK = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+(["{}\[\]])', re.S)
_STRING_END = re.compile(rb'(?:[^"\\]++|\\.)*+"', re.S)
_ESCAPES = re.compile(rb"(?:[^\\]++|\\.)*+", re.S)


class ObjectStream:
    """Splits the bytes of a JSON array of objects into objects."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._depth = 0
        self._is_in_array = False
        self._is_in_string = False
        self._is_escaped = False
        self.is_over = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The objects that these bytes complete.

        Raises:
            StreamProtocolError: something else than objects stands in the array; after the objects before it.
        """
        begin, at = 0, self._end_of_string(data) if self._is_in_string else 0
        while not self.is_over and (found := _MARK.match(data, at)):
            mark, start, at = found[1], found.start(1), found.end()
            if self._depth == 0:
                self._check_between(data[begin:start])
                self._begin(mark)
                begin = start if self._depth else at
            elif mark in (b"{", b"["):
                self._depth += 1
                if self._depth > _MAX_DEPTH:
                    raise StreamProtocolError("an object of the stream is nested too deeply")
            elif mark in (b"}", b"]"):
                self._depth -= 1
                if self._depth == 0:
                    yield b"".join([*self._pieces, data[begin:at]])
                    self._pieces, self._size, begin = [], 0, at
            else:
                self._is_in_string = True
                at = self._end_of_string(data, at)
        if self._depth:
            self._pieces.append(data[begin:])
            self._size += len(data) - begin
            if self._size > MAX_OBJECT:
                raise StreamProtocolError(f"an object of the stream is larger than {MAX_OBJECT} bytes")
        elif not self.is_over:
            self._check_between(data[begin:])

    def _end_of_string(self, data: bytes, at: int = 0) -> int:
        """Where the string that has begun ends; the end of the bytes, if it does not in these."""
        if self._is_escaped and data:
            self._is_escaped, at = False, at + 1
        if found := _STRING_END.match(data, at):
            self._is_in_string = False
            return found.end()
        whole = _ESCAPES.match(data, at)
        self._is_escaped = self._is_escaped or (whole is not None and whole.end() < len(data))
        return len(data)

    def _begin(self, mark: bytes) -> None:
        if mark == b"{":
            self._depth = 1
        elif mark == b"[" and not self._is_in_array:
            self._is_in_array = True
        elif mark == b"]" and self._is_in_array:
            self.is_over = True
        else:
            self._check_between(mark)

    def _check_between(self, data: bytes) -> None:
        if data.strip(b" \t\r\n,"):
            raise StreamProtocolError("the stream is no JSON array of objects")
