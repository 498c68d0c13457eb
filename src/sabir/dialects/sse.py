"""Server-sent events: bytes in, events out, however the bytes are cut; knows nothing of what the events say.

Format: WHATWG HTML, section 9.2 "Server-sent events" (https://html.spec.whatwg.org/multipage/server-sent-events.html):
lines end in LF, CR or CRLF, a blank line ends an event, `data` lines are joined with LF, a line that starts with a
colon is a comment, and an event that the end of the stream leaves unfinished is not one.
"""

from __future__ import annotations

import re

from ..errors import StreamProtocolError

# A model's event is a few hundred bytes; whole images come in one. Beyond this a server is broken or hostile.
MAX_EVENT = 64 * 1024 * 1024

# Events of a name, if any, and one line of data, as nearly all are; from the first other one on, nothing.
_plain_events = re.compile(rb"(?:event: ?([^\n]*+)\n)?data: ?([^\n]*+)\n\n|.++", re.S).findall
_NOTHING = (b"", b"")


class EventStream:
    """Splits a byte stream into events, as (event name, data) pairs."""

    def __init__(self) -> None:
        # What has come of an event whose end has not.
        self._rest = bytearray()
        self._after_cr = False
        self._at_start = True

    @property
    def has_unfinished_event(self) -> bool:
        """Whether bytes of an event have come whose end has not."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """The events that these bytes complete.

        Raises:
            StreamProtocolError: an event is larger than any answer's can be.
        """
        if self._after_cr and data:
            # The CR at the end of the last bytes ended its line already; an LF here is its other half.
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            # To split and join takes half as long as to replace what is longer than a byte.
            data = b"\n".join(data.split(b"\r\n")).replace(b"\r", b"\n")
        end = data.rfind(b"\n\n") + 2
        if end == 1 and not (data.startswith(b"\n") and self._rest.endswith(b"\n")):
            self._rest += data
            if len(self._rest) > MAX_EVENT:
                raise StreamProtocolError(f"an event of the stream is larger than {MAX_EVENT} bytes")
            return []
        whole = data[:end]
        if self._rest:
            whole = b"".join((self._rest, whole))
            self._rest.clear()
        if end < len(data):
            self._rest += data[end:]
        if self._at_start:
            whole = whole.removeprefix(b"\xef\xbb\xbf")
            self._at_start = False
        whole = whole.lstrip(b"\n")
        events: list[tuple[bytes, bytes]] = _plain_events(whole)
        return events if not events or events[-1] != _NOTHING else _events_in(whole.split(b"\n"))


def _events_in(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    """The events of these lines, the last of which ends one."""
    events: list[tuple[bytes, bytes]] = []
    name, data = b"", list[bytes]()
    for line in lines:
        if not line:
            if data:
                events.append((name, b"\n".join(data)))
            name, data = b"", []
        elif line.startswith(b"data:"):
            data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line.startswith(b"event:"):
            name = line[6:].removeprefix(b" ")
        elif line == b"data":
            data.append(b"")
        elif line == b"event":
            name = b""
    return events
