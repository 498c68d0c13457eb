"""AWS event streams: bytes in, messages out, however the bytes are cut, and back; knows nothing of what they say.

Format: https://smithy.io/2.0/aws/amazon-eventstream.html. A message is a prelude (its length, that of its headers, a
CRC32 of both), headers with typed values, a payload, and a CRC32 of all that; numbers are big-endian.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from struct import Struct
from struct import error as StructError
from types import MappingProxyType
from typing import TypeAlias
from uuid import UUID
from zlib import crc32

from ..errors import StreamProtocolError

# The specification's limits.
MAX_HEADERS = 128 * 1024
MAX_PAYLOAD = 24 * 1024 * 1024

HeaderValue: TypeAlias = bool | int | bytes | str | datetime | UUID

_PRELUDE = Struct(">III")
_CRC = Struct(">I")
_LENGTH = Struct(">H")
_LONG = Struct(">q")
_AROUND = _PRELUDE.size + _CRC.size
_BEFORE_CRC = _PRELUDE.size - _CRC.size
_TRUE, _FALSE, _BYTES, _STRING, _MOMENT, _UUID = 0, 1, 6, 7, 8, 9
_INTEGERS = {2: Struct(">b"), 3: Struct(">h"), 4: Struct(">i"), 5: _LONG}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


# A message's headers and payload. Integers of all sizes are an int, and encoded as the largest.
Headers: TypeAlias = Mapping[str, HeaderValue]
Message: TypeAlias = tuple[Headers, bytes]


class MessageStream:
    """Splits a byte stream into messages."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._wanted = _PRELUDE.size
        # Most messages of a stream have the headers of the one before, and are then given the same object.
        self._head = b""
        self._headers: Headers = {}

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that these bytes complete.

        Raises:
            StreamProtocolError: a checksum is wrong, a message is larger than the format allows or has malformed
                headers; after the messages before it.
        """
        self._pieces.append(data)
        self._size += len(data)
        if self._size < self._wanted:
            return
        data = b"".join(self._pieces) if len(self._pieces) > 1 else data
        at, view = 0, memoryview(data)
        while (left := len(data) - at) >= _PRELUDE.size:
            size, head_size, crc = _PRELUDE.unpack_from(data, at)
            if left < size or not _AROUND + head_size <= size:
                # What the checksum at the end says of a whole message, that of the prelude says of its length.
                _check(size, head_size, crc, view[at : at + _BEFORE_CRC])
                break
            end = at + size - _CRC.size
            if crc32(view[at:end]) != _CRC.unpack_from(data, end)[0]:
                raise StreamProtocolError("a message of the event stream is damaged: its checksum is another")
            payload_at = at + _PRELUDE.size + head_size
            head = data[at + _PRELUDE.size : payload_at]
            if head != self._head:
                _check(size, head_size, crc, view[at : at + _BEFORE_CRC])
                self._headers, self._head = (_known_headers if head_size <= _SHORT else _read_headers)(head), head
            yield self._headers, data[payload_at:end]
            at += size
        self._pieces, self._size = [data[at:]], len(data) - at
        self._wanted = _PRELUDE.size if self._size < _PRELUDE.size else _PRELUDE.unpack_from(data, at)[0]


def encode_message(headers: Mapping[str, HeaderValue], payload: bytes) -> bytes:
    """The bytes of one message.

    Raises:
        ValueError: a header's name or value is longer, or the message larger, than the format allows.
    """
    head = b"".join(_header(name, value) for name, value in headers.items())
    if len(head) > MAX_HEADERS or len(payload) > MAX_PAYLOAD:
        raise ValueError("the message is larger than an event stream allows")
    sizes = _PRELUDE.pack(_AROUND + len(head) + len(payload), len(head), 0)[: -_CRC.size]
    message = sizes + _CRC.pack(crc32(sizes)) + head + payload
    return message + _CRC.pack(crc32(message))


def _check(size: int, headers_size: int, crc: int, sizes: memoryview) -> None:
    if crc32(sizes) != crc:
        raise StreamProtocolError("this is no event stream, or a damaged one: the checksum of a prelude is another")
    payload_size = size - _AROUND - headers_size
    if headers_size > MAX_HEADERS or not 0 <= payload_size <= MAX_PAYLOAD:
        raise StreamProtocolError(f"a message of the event stream cannot have {size} bytes and {headers_size} of heads")


def _read_headers(data: bytes) -> Mapping[str, HeaderValue]:
    headers: dict[str, HeaderValue] = {}
    at = 0
    try:
        while at < len(data):
            start, at = at + 1, at + 1 + data[at]
            name, kind = data[start:at].decode(), data[at]
            headers[name], at = _read_value(kind, data, at + 1)
    except (IndexError, StructError, OverflowError, ValueError):
        raise StreamProtocolError("a message of the event stream has malformed headers") from None
    if at > len(data):
        raise StreamProtocolError("a message of the event stream has headers that are cut off")
    return MappingProxyType(headers)


# A service says the same few headers in all its streams.
_SHORT = 512
_known_headers = lru_cache(maxsize=64)(_read_headers)


def _read_value(kind: int, data: bytes, at: int) -> tuple[HeaderValue, int]:
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, at
    if (integer := _INTEGERS.get(kind)) is not None:
        return integer.unpack_from(data, at)[0], at + integer.size
    if kind in (_BYTES, _STRING):
        start = at + _LENGTH.size
        end = start + _LENGTH.unpack_from(data, at)[0]
        return (data[start:end] if kind == _BYTES else data[start:end].decode()), end
    if kind == _MOMENT:
        return _EPOCH + timedelta(milliseconds=_LONG.unpack_from(data, at)[0]), at + _LONG.size
    if kind == _UUID:
        return UUID(bytes=data[at : at + 16]), at + 16
    raise ValueError(f"there is no type {kind}")


def _header(name: str, value: HeaderValue) -> bytes:
    named = name.encode()
    if not 0 < len(named) < 1 << 8:
        raise ValueError(f"a header's name has 1 to 255 bytes, not {len(named)}")
    kind, encoded = _value(value)
    return bytes([len(named)]) + named + bytes([kind]) + encoded


def _value(value: HeaderValue) -> tuple[int, bytes]:
    match value:
        case bool():
            return (_TRUE if value else _FALSE), b""
        case int():
            return 5, _LONG.pack(value) if -(1 << 63) <= value < 1 << 63 else _too_long()
        case datetime():
            return _MOMENT, _LONG.pack((value - _EPOCH) // timedelta(milliseconds=1))
        case UUID():
            return _UUID, value.bytes
        case str() | bytes():
            data = value.encode() if isinstance(value, str) else value
            told = _LENGTH.pack(len(data)) + data if len(data) < 1 << 15 else _too_long()
            return (_STRING if isinstance(value, str) else _BYTES), told


def _too_long() -> bytes:
    raise ValueError("a header's value is larger than an event stream allows")
