"""JSON as this library means it: nothing dropped, nothing invented; knows no types but the plain ones.

msgspec does the work. It is left where it would refuse what JSON allows (half a surrogate pair, which providers do send
when a stream cuts an emoji) and checked where it would write null for a number that JSON cannot say.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from math import isfinite
from typing import Any, TypeGuard, cast

import msgspec

# No answer or request is nested more deeply. Whoever walks through a value may call himself at each level, and Python
# allows a thousand calls in all.
DEEPEST = 200

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.S)
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in _STEPS)

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def decode_json(data: str | bytes) -> Any:
    """Decode JSON; what msgspec refuses but JSON allows (half a surrogate pair, as providers send) is kept.

    Raises:
        ValueError: this is not JSON (NaN and Infinity are not), or nested too deeply.
    """
    # What is shorter cannot be so deep and whole.
    if len(data) > 2 * DEEPEST and _is_too_deep(data):
        raise ValueError("nested too deeply")
    try:
        return _decode(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (msgspec.DecodeError, UnicodeError):
        if not data.strip():
            raise ValueError("it is empty") from None
        try:
            return json.loads(data, parse_constant=_no_constant, parse_float=_finite)
        except RecursionError:
            raise ValueError("nested too deeply") from None


def encode_json(value: Any) -> bytes:
    """Encode plain JSON values; half a surrogate pair is written as its escape.

    Raises:
        ValueError: the value holds a number that JSON cannot say (msgspec alone would write null), or is nested too
            deeply.
        TypeError: the value holds something that is no JSON value.
    """
    try:
        try:
            encoded = _encode(value)
        except UnicodeEncodeError:
            return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
        # msgspec writes a non-finite number as null. Only then is the value searched for one.
        if b"null" in encoded:
            _refuse_non_finite(msgspec.to_builtins(value))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return encoded


def is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a decoded value is a JSON object."""
    return isinstance(value, dict)


def is_array(value: Any) -> TypeGuard[list[Any]]:
    """Whether a decoded value is a JSON array."""
    return isinstance(value, list)


def mapping_of(value: Any) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if is_object(value) else {}


def list_of(value: Any) -> list[Any]:
    """The value if it is an array, else an empty one."""
    return value if is_array(value) else []


def _is_too_deep(data: str | bytes) -> bool:
    if isinstance(data, str):
        return data.count("[") + data.count("{") > DEEPEST and _is_too_deep(data.encode("utf-8", "surrogatepass"))
    if data.count(b"[") + data.count(b"{") <= DEEPEST:
        return False
    # Without an escape every second piece between quotes is a string, which is found faster than by the expression.
    outside = _STRING.sub(b"", data) if b"\\" in data else b"".join(data.split(b'"')[::2])
    brackets = outside.translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > DEEPEST


def _refuse_non_finite(value: Any) -> None:
    if isinstance(value, float):
        if not isfinite(value):
            raise ValueError(f"{value} is no JSON number")
    elif is_object(value):
        for item in value.values():
            _refuse_non_finite(item)
    elif isinstance(value, (list, tuple)):
        for item in cast("list[Any]", value):
            _refuse_non_finite(item)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise ValueError(f"{digits} is too large a number")
    return number
