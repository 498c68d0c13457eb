"""Vectors on the wire: lists of numbers, or base64 of 32-bit floats, little-endian, which costs a seventh to read.

Knows no format, only that a vector has numbers, all of them finite, and that one without any is none.
"""

from __future__ import annotations

import sys
from array import array
from binascii import a2b_base64, b2a_base64
from collections.abc import Sequence
from math import isfinite
from struct import pack
from typing import Any, cast

import msgspec

from ..errors import StreamProtocolError
from . import EncodingFormat


def read_vectors(wire: Sequence[Any]) -> tuple[list[list[float]], EncodingFormat]:
    """The vectors, and how they came: a server may answer floats although base64 was asked for.

    Raises:
        StreamProtocolError: one of them is no vector.
    """
    try:
        if wire and isinstance(wire[0], str):
            return [_unpacked(cast("str", text)) for text in wire], "base64"
        vectors = msgspec.convert(wire, list[list[float]])
    except (TypeError, ValueError) as error:
        raise StreamProtocolError(f"an embedding is no vector: {error}") from None
    if not all(vectors):
        raise StreamProtocolError("an embedding is an empty vector")
    return vectors, "float"


def written_vectors(vectors: Sequence[list[float]], encoding: EncodingFormat) -> list[Any]:
    """The vectors as they travel.

    Raises:
        ValueError: a number is too large for base64, which has 32 bits for each.
    """
    if encoding == "float":
        return list(vectors)
    try:
        packed = (pack(f"<{len(vector)}f", *vector) for vector in vectors)
        return [b2a_base64(data, newline=False).decode() for data in packed]
    except OverflowError:
        raise ValueError("a number of a vector is too large for 32 bits; answer with encoding_format='float'") from None


def _unpacked(text: str) -> list[float]:
    floats = array("f")
    floats.frombytes(a2b_base64(text, strict_mode=True))
    if sys.byteorder == "big":
        floats.byteswap()
    vector = floats.tolist()
    # JSON cannot say these, and no search in a store would find such a vector; a sum keeps both.
    if not vector or not isfinite(sum(vector)):
        raise ValueError("it is empty, or not all its numbers are finite")
    return vector
