"""AWS event streams: held against botocore's reader, cut anywhere, damaged anywhere."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from struct import pack
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as some

from sabir.dialects.event_stream import MAX_PAYLOAD, MessageStream, encode_message
from sabir.errors import StreamProtocolError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
names = some.text(":abc-", min_size=1, max_size=9)
texts = some.text(max_size=20)
moments = some.integers(-(10**12), 10**13).map(lambda number: EPOCH + timedelta(milliseconds=number))
integers = some.integers(-(2**63), 2**63 - 1)
values = some.one_of(some.booleans(), integers, some.binary(max_size=20), texts, moments, some.uuids())
messages = some.lists(some.tuples(some.dictionaries(names, values, max_size=5), some.binary(max_size=60)), max_size=5)


def encoded(told):
    return b"".join(encode_message(headers, payload) for headers, payload in told)


def read(data, *cuts):
    stream = MessageStream()
    places = [0, *sorted(cuts), len(data)]
    return [message for start, end in pairwise(places) for message in stream.feed(data[start:end])]


@given(messages, some.data())
def test_what_is_encoded_is_read_however_it_is_cut(told, data):
    stream = encoded(told)
    cuts = data.draw(some.lists(some.integers(0, len(stream)), max_size=6))
    assert read(stream, *cuts) == read(stream, *range(len(stream))) == told


@given(messages)
def test_botocore_reads_the_same(told):
    judge = EventStreamBuffer()
    judge.add_data(encoded(told))
    read_by_it = [(message.headers, message.payload) for message in judge]
    plain = [({name: plain_value(value) for name, value in headers.items()}, payload) for headers, payload in told]
    assert read_by_it == plain


def plain_value(value):
    """A value as botocore has it."""
    if isinstance(value, datetime):
        return (value - EPOCH) // timedelta(milliseconds=1)
    return value.bytes if hasattr(value, "bytes") else value


def framed(head, payload=b""):
    sizes = pack(">II", 16 + len(head) + len(payload), len(head))
    message = sizes + pack(">I", crc32(sizes)) + head + payload
    return message + pack(">I", crc32(message))


@pytest.mark.parametrize(
    ("head", "value"),
    [(b"\x02\xfe", -2), (b"\x03\x01\x00", 256), (b"\x04\xff\xff\xff\xff", -1), (b"\x00", True), (b"\x01", False)],
)
def test_small_integers_and_truths_are_read(head, value):
    assert read(framed(b"\x01a" + head, b"x")) == [({"a": value}, b"x")]


@pytest.mark.parametrize(
    "head",
    [
        *(b"\x01a\x0a", b"\x01a\x07\x00\x05abc", b"\x05a", b"\x01a", b"\x01a\x05\x00", b"\x01\xff\x00"),
        *(b"\x01a\x09123", b"\x01a\x08\x7f\xff\xff\xff\xff\xff\xff\xff", b"\x01a\x07\x00\x01\xff"),
    ],
)
def test_malformed_headers_are_an_error(head):
    with pytest.raises(StreamProtocolError, match="headers"):
        read(framed(head))


@given(messages.filter(bool), some.data())
def test_damage_anywhere_is_an_error_after_the_messages_before_it(told, data):
    stream = bytearray(encoded(told))
    at = data.draw(some.integers(0, len(stream) - 1))
    stream[at] ^= data.draw(some.integers(1, 255))
    got = []
    try:
        for message in MessageStream().feed(bytes(stream)):
            got.append(message)  # noqa: PERF402 - what came before the error
    except StreamProtocolError:
        pass
    else:
        # The last message is now one that has not come whole.
        assert len(got) < len(told)
    assert got == told[: len(got)]
    assert len(encoded(told[: len(got)])) <= at


def test_a_length_that_no_message_has_is_an_error_at_once():
    for size, head in ((MAX_PAYLOAD + 17, 0), (2**31, 2**20), (15, 0), (20, 30)):
        sizes = pack(">II", size, head)
        with pytest.raises(StreamProtocolError, match="cannot have"):
            read(sizes + pack(">I", crc32(sizes)) + bytes(20))
    with pytest.raises(StreamProtocolError, match="no event stream"):
        read(b"HTTP/1.1 200 OK, but nothing like it")


@given(some.binary(max_size=200))
def test_any_bytes_are_messages_or_an_error_of_the_family(data):
    try:
        assert isinstance(read(data), list)
    except StreamProtocolError:
        pass


@pytest.mark.parametrize(
    ("headers", "payload"),
    [({"": "a"}, b""), ({"a" * 256: "a"}, b""), ({"a": "b" * 2**15}, b""), ({"a": 2**63}, b""), ({}, bytes(2**25))],
)
def test_what_the_format_cannot_say_is_refused(headers, payload):
    with pytest.raises(ValueError, match=r"bytes|allows"):
        encode_message(headers, payload)


def test_memory_and_time_are_those_of_the_bytes():
    stream = MessageStream()
    data = encode_message({"a": "b"}, bytes(300_000))
    got = [message for at in range(0, len(data), 7) for message in stream.feed(data[at : at + 7])]
    assert got == [({"a": "b"}, bytes(300_000))]
