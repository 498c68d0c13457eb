"""Server-sent events, against a reading of the standard that was written down as plainly as it stands there."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sabir.dialects import sse
from sabir.dialects.sse import EventStream
from sabir.errors import StreamProtocolError


def read(*pieces):
    stream = EventStream()
    return [event for piece in pieces for event in stream.feed(piece)]


def as_the_standard_says(data):
    """Interpret an event stream (https://html.spec.whatwg.org/multipage/server-sent-events.html), byte by byte."""
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
    lines, line, position = [], bytearray(), 0
    while position < len(data):
        byte = data[position : position + 1]
        position += 1
        if byte not in (b"\r", b"\n"):
            line += byte
            continue
        if byte == b"\r" and data[position : position + 1] == b"\n":
            position += 1
        lines.append(bytes(line))
        line.clear()
    events, name, buffer = [], b"", b""
    for line in lines:
        if line == b"":
            if buffer != b"":
                events.append((name, buffer[:-1]))
            name, buffer = b"", b""
            continue
        if line[:1] == b":":
            continue
        field, value = line, b""
        if b":" in line:
            field, value = line[: line.index(b":")], line[line.index(b":") + 1 :]
            if value[:1] == b" ":
                value = value[1:]
        if field == b"event":
            name = value
        if field == b"data":
            buffer += value + b"\n"
    return events


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (b"data: a\n\n", [(b"", b"a")]),
        (b"data: a\r\n\r\n", [(b"", b"a")]),
        (b"data: a\r\r", [(b"", b"a")]),
        (b"data: a\r\n\ndata: b\r\r\ndata: c\n\r", [(b"", b"a"), (b"", b"b"), (b"", b"c")]),
        (b"data:a\n\ndata:  b\n\ndata: c \n\n", [(b"", b"a"), (b"", b" b"), (b"", b"c ")]),
        (b"data: a\ndata: b\n\n", [(b"", b"a\nb")]),
        (b"data: a\ndata\ndata:\ndata: b\n\n", [(b"", b"a\n\n\nb")]),
        (b"data\n\n", [(b"", b"")]),
        (b"data:\n\n", [(b"", b"")]),
        (b"\n\n\ndata: a\n\n\n\n", [(b"", b"a")]),
        (b"event: ping\ndata: a\n\ndata: b\n\n", [(b"ping", b"a"), (b"", b"b")]),
        (b"data: a\nevent:x\n\n", [(b"x", b"a")]),
        (b"event: a\nevent: b\ndata: c\n\n", [(b"b", b"c")]),
        (b"event: a\nevent\ndata: c\n\n", [(b"", b"c")]),
        (b"event: lost\n\ndata: a\n\n", [(b"", b"a")]),
        (b": hello\ndata: a\n:\n: data: b\n\n", [(b"", b"a")]),
        (b"id: 1\nretry: 10\ncolour: red\nDATA: b\n data: c\ndata : d\ndata: a\n\n", [(b"", b"a")]),
        (b"\xef\xbb\xbfdata: a\n\n", [(b"", b"a")]),
        (b"\xef\xbb\xbf\n\xef\xbb\xbfdata: a\n\ndata: b\n\n", [(b"", b"b")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
        (b"data: \xff\x00\xc3\n\n", [(b"", b"\xff\x00\xc3")]),
        (b"data: a: b\n\n", [(b"", b"a: b")]),
        (b"data: a\n", []),
        (b"data: a", []),
        (b"data: a\n\ndata: b\n", [(b"", b"a")]),
        (b"", []),
    ],
)
def test_events_are_framed_as_the_standard_says(data, events):
    assert as_the_standard_says(data) == events
    assert read(data) == events
    assert read(*(data[n : n + 1] for n in range(len(data)))) == events


streams = st.lists(
    st.sampled_from(
        [
            *(b"data", b"event", b":", b": ", b" ", b"a", b"id: 1", b"\xff", b"\xef\xbb\xbf"),
            *(b"\n", b"\r", b"\r\n", b"\n\n", b"data: {}\n\n", b"data: x\r\n\r\n", b"event: e\n"),
        ]
    ),
    max_size=24,
).map(b"".join)


@settings(deadline=None, max_examples=500)
@given(streams, st.lists(st.integers(0, 60), max_size=6))
@example(b"\xef\xbb\xbfdata: a\r\n\r\ndata: b\n\n", [1, 2, 11, 12, 13, 14])
def test_any_cut_of_any_bytes_gives_the_events_of_the_standard(data, cuts):
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:end] for start, end in zip(places, [*places[1:], len(data)], strict=True)]
    assert b"".join(pieces) == data
    assert read(*pieces) == as_the_standard_says(data)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=60))
def test_no_bytes_are_an_error(data):
    assert read(data, b"") == as_the_standard_says(data)


def test_an_event_is_out_with_the_line_end_that_completes_it():
    stream = EventStream()
    assert stream.feed(b"data: a\r\r") == [(b"", b"a")]
    assert stream.feed(b"\ndata: b\n") == []
    assert stream.has_unfinished_event
    assert stream.feed(b"\n") == [(b"", b"b")]
    assert not stream.has_unfinished_event


@pytest.mark.parametrize("endless", [b"x", b"data: x\n", b"data: " + b"x" * 90])
def test_an_event_without_an_end_is_refused_before_it_fills_the_memory(monkeypatch, endless):
    monkeypatch.setattr(sse, "MAX_EVENT", 1000)
    stream = EventStream()
    assert stream.feed(b"data: a\n\n") == [(b"", b"a")]
    fed = 0
    with pytest.raises(StreamProtocolError, match="1000 bytes"):  # noqa: PT012 - which of them raises is asserted below
        while (fed := fed + len(endless)) < 3000:
            stream.feed(endless)
    assert 1000 < fed < 1200


def test_a_long_stream_of_small_events_and_comments_is_no_large_event(monkeypatch):
    monkeypatch.setattr(sse, "MAX_EVENT", 1000)
    stream = EventStream()
    for _ in range(200):
        assert stream.feed(b": still here\n\n") == []
        assert stream.feed(b"data: 12345") == []
        assert stream.feed(b"\n\n") == [(b"", b"12345")]
    assert stream.feed(b"data: " + b"x" * 2000 + b"\n\ndata: y\n\n") == [(b"", b"x" * 2000), (b"", b"y")]
