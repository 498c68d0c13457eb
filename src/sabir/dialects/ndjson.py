"""JSON lines: bytes in, lines out, however the bytes are cut; knows nothing of what the lines say.

Format: https://github.com/ndjson/ndjson-spec: a line ends in LF (a CR before it is white space, as JSON has it), and
blank lines are passed over. A line that the end of the stream leaves without its LF is for the reader to judge.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import StreamProtocolError

# A model's line is a few hundred bytes; whole images come in one. Beyond this a server is broken or hostile.
MAX_LINE = 64 * 1024 * 1024


class LineStream:
    """Splits a byte stream into lines."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._unfinished = 0

    @property
    def rest(self) -> bytes:
        """What has come of a line whose end has not."""
        return b"".join(self._rest)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that these bytes complete.

        Raises:
            StreamProtocolError: a line is larger than any answer's can be; after the lines before it.
        """
        *lines, rest = data.split(b"\n")
        if lines and self._rest:
            lines[0] = b"".join([*self._rest, lines[0]])
            self._rest = []
            self._unfinished = 0
        if rest:
            self._rest.append(rest)
            self._unfinished += len(rest)
        for line in lines:
            if line and not line.isspace():
                yield line
        if self._unfinished > MAX_LINE:
            raise StreamProtocolError(f"a line of the stream is larger than {MAX_LINE} bytes")
