"""What the tests of all dialects do with their two halves, and with the JSON that goes in and out."""

from __future__ import annotations

import copy

from sabir.deltas import Assembler


def total(dialect, deltas):
    """The sum of an answer's deltas: message, usage, finishes."""
    assembler = Assembler(dialect.name)
    for delta in deltas:
        assembler.add(delta)
    return assembler.message(), assembler.usage, assembler.finishes


def streamed(dialect, deltas):
    """The bytes of a stream that says these deltas."""
    encoder = dialect.encoder()
    return b"".join([*map(encoder.feed, deltas), encoder.close()])


def same(one, other):
    """Equal as JSON: true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def values_in(value, path=()):
    """The paths of all values in a JSON value, its own first."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield from values_in(item, (*path, key))


def replaced(value, path, new):
    """A copy with another value at one path."""
    if not path:
        return new
    value = copy.copy(value)
    value[path[0]] = replaced(value[path[0]], path[1:], new)
    return value
