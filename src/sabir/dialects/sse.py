"""Server-sent events: bytes in, events out, however the bytes are cut; knows nothing of what the events say.

Format: WHATWG HTML, section 9.2 "Server-sent events" (https://html.spec.whatwg.org/multipage/server-sent-events.html):
lines end in LF, CR or CRLF, a blank line ends an event, `data` lines are joined with LF, a line that starts with a
colon is a comment, and an event that the end of the stream leaves unfinished is not one.
"""

from __future__ import annotations

from ..errors import StreamProtocolError

# A model's event is a few hundred bytes; whole images come in one. Beyond this a server is broken or hostile.
MAX_EVENT = 64 * 1024 * 1024


class EventStream:
    """Splits a byte stream into events, as (event name, data) pairs."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._unfinished = 0
        self._data: list[bytes] = []
        self._name = b""
        self._after_cr = False
        self._at_start = True

    @property
    def has_unfinished_event(self) -> bool:
        """Whether bytes of an event have come whose end has not."""
        return bool(self._rest or self._data)

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """The events that these bytes complete.

        Raises:
            StreamProtocolError: an event is larger than any answer's can be.
        """
        if self._after_cr and data:
            # The CR at the end of the last bytes ended its line already; an LF here is its other half.
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if not data:
            return []
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = data.split(b"\n")
        if lines and self._rest:
            lines[0] = b"".join([*self._rest, lines[0]])
            self._rest = []
        if rest:
            self._rest.append(rest)
        events = self._events(lines)
        self._unfinished = 0 if events or not self.has_unfinished_event else self._unfinished + len(data)
        if self._unfinished > MAX_EVENT:
            raise StreamProtocolError(f"an event of the stream is larger than {MAX_EVENT} bytes")
        return events

    def _events(self, lines: list[bytes]) -> list[tuple[bytes, bytes]]:
        if self._at_start and lines:
            lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
            self._at_start = False
        events: list[tuple[bytes, bytes]] = []
        for line in lines:
            if not line:
                if self._data:
                    events.append((self._name, self._data[0] if len(self._data) == 1 else b"\n".join(self._data)))
                    self._data = []
                self._name = b""
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif line.startswith(b"event:"):
                self._name = line[6:].removeprefix(b" ")
            elif line == b"data":
                self._data.append(b"")
            elif line == b"event":
                self._name = b""
        return events
