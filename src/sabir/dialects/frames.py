"""The bytes that one chunk of a stream has in common with the next; knows no wire format.

Chunks of text differ in their text and seldom in anything else: the id, the model, the place of the text are said again
and again. Where the bytes around the text are the same, so is what they say, and only the text is read.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..deltas import Delta, Text
from ..strict_json import decode_json, encode_json

_decode_text = msgspec.json.Decoder(str).decode

Place = tuple[str | int, ...]

# How often a frame is sought that then fits no chunk: in some streams each says something of its own.
_MOST = 8


class Frame:
    """What stood before and after the text of the last chunk that had nothing to say but its text."""

    def __init__(self, *places: Place) -> None:
        """`places` are where a chunk may have its text: the keys and indexes that lead there."""
        self._places = places
        self.part = -1
        self._before = b""
        self._after = b""
        self._left = _MOST

    def text_in(self, payload: bytes) -> str | None:
        """The text in this frame; None if the payload has another one, or its text is not plain."""
        if self.part < 0 or not (payload.startswith(self._before) and payload.endswith(self._after)):
            return None
        try:
            # Anything but a single whole string in the middle is refused, so that nothing else can hide there.
            text = _decode_text(payload[len(self._before) : len(payload) - len(self._after)])
        except (msgspec.DecodeError, UnicodeError):
            return None
        self._left = _MOST
        return text

    def learn(self, payload: bytes, value: Any, read: list[Delta]) -> None:
        """Keep the frame of a payload that holds `value` and was `read` the long way, or forget the last one.

        That the text stands where its bytes are found is proven by decoding the payload with another text there.
        """
        self.part = -1
        if not self._left or len(read) != 1 or not isinstance(text := read[0], Text):
            return
        self._left -= 1
        before, found, after = payload.partition(encode_json(text.text))
        try:
            other = decode_json(before + b'"?"' + after) if found else None
        except ValueError:
            return
        if any(_at(other, place) == "?" and _at(value, place) == text.text for place in self._places):
            self.part, self._before, self._after = text.part, before, after


def _at(value: Any, place: Place) -> Any:
    for step in place:
        try:
            value = value[step]
        except (LookupError, TypeError):
            return None
    return value
