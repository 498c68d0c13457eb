"""The deltas of an answer's parts in an order that can be told: while one cannot begin, others wait; knows no format.

Decoders number parts as they appear, so an encoder that told a later part first would make another answer of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ..deltas import Blob, Close, Note, Open, State, Text

PartDelta: TypeAlias = Open | Text | Blob | Note | State | Close


class InTurn:
    """Passes deltas of parts to `tell`, which sets `awaited` to a part that must be told before any other may be."""

    def __init__(self, tell: Callable[[PartDelta], bytes]) -> None:
        self._tell = tell
        self._waiting: list[PartDelta] = []
        self.awaited: int | None = None

    def feed(self, delta: PartDelta) -> bytes:
        """What this delta adds, and what it lets go on."""
        if self.awaited not in (None, delta.part):
            self._waiting.append(delta)
            return b""
        told = [self._tell(delta)]
        while self._waiting and (at := self._next()) is not None:
            told.append(self._tell(self._waiting.pop(at)))
        return b"".join(told)

    def close(self) -> bytes:
        """What has waited in vain."""
        told: list[bytes] = []
        while self.awaited is not None:
            told.append(self.feed(Close(self.awaited)))
        return b"".join(told)

    def _next(self) -> int | None:
        return next((at for at, each in enumerate(self._waiting) if self.awaited in (None, each.part)), None)
