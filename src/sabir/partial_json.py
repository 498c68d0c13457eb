"""A JSON object as far as it has come, while it is still being written; what is there already is not read again.

Texts are shown as far as they go; numbers, names of properties and the words `true`, `false` and `null` once they are
whole, since `12` may become `123`. So each partial object is a beginning of the next one.
"""

from __future__ import annotations

import json
import re
from typing import Any, final

_BEGINNING = re.compile(r"[^{]*")
# A text with the colon or comma that follows, if that is there already; a bracket or comma; a number or a word.
_TOKEN = re.compile(
    r'[ \t\n\r]*(?:"([^"\\]*(?:\\.[^"\\]*)*)"[ \t\n\r]*([:,])?'
    r"|([{\[}\],:])"
    r"|(-?[0-9][0-9.eE+-]*|true|false|null)(?=[ \t\n\r,}\]])[ \t\n\r]*(,)?)",
    re.S,
)
# A text, or more of one, up to its end or to an escape that is not whole.
_TEXT = re.compile(r'([^"\\]*(?:\\.[^"\\]*)*)(\\?\Z|")', re.S)
_BEGUN_ESCAPE = re.compile(r"\\u(?:[0-9a-fA-F]{0,3}|[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?)\Z")


@final
class PartialJson:
    """Takes the text of a JSON object in pieces; `value` is what there is of it. What precedes its `{` is left out."""

    __slots__ = (
        *("_fresh", "_has_begun", "_is_key", "_is_over", "_is_tentative", "_key", "_keys", "_pieces", "_rest"),
        *("_root", "_stack", "_text"),
    )

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._rest = ""
        self._has_begun = self._is_over = False
        self._root: dict[str, Any] | None = None
        # The objects and arrays that are open, and the place of each in the one before it.
        self._stack: list[Any] = []
        self._keys: list[Any] = []
        # How many of them, from the outermost on, nobody else has seen: these may be changed in place.
        self._fresh = 0
        self._key: Any = None
        self._is_key = False
        # What there is of a text that is not whole, and whether it stands in the innermost one already.
        self._text: str | None = None
        self._is_tentative = False

    def feed(self, text: str) -> None:
        """More of the text. Costs next to nothing until the value is asked for."""
        self._pieces.append(text)

    @property
    def value(self) -> dict[str, Any] | None:
        """The object so far, None before its beginning; nothing that comes later changes it.

        What is no JSON ends it: the value stays as it was before.
        """
        if self._pieces and not self._is_over:
            pieces, self._pieces = self._pieces, []
            data = self._rest + (pieces[0] if len(pieces) == 1 else "".join(pieces))
            if self._text is not None and '"' not in data and "\\" not in data:
                # More of a long text, which needs no closer look.
                self._text += data
                self._rest = ""
                self._put(self._text)
                self._is_tentative = True
                self._fresh = 0
                return self._root
            if not self._has_begun:
                data = data[_BEGINNING.match(data).end() :]  # type: ignore[union-attr]
                self._has_begun = bool(data)
            try:
                self._read(data)
            except (ValueError, IndexError, TypeError):
                self._is_over = True
            self._fresh = 0
        return self._root

    def _read(self, data: str) -> None:
        match, at, end = _TOKEN.match, 0, len(data)
        if self._text is not None:
            at = self._read_text(data, 0)
        while at < end and (token := match(data, at)) is not None:
            at = token.end()
            text, after, bracket, word, comma = token.groups()
            if text is not None:
                if "\\" in text:
                    text = _unescaped(text)
                if self._is_key:
                    self._key, self._is_key = text, False
                    continue
                self._put(text)
                if after is not None:
                    self._is_key = type(self._stack[-1]) is dict
            elif word is not None:
                self._put(json.loads(word))
                if comma is not None:
                    self._is_key = type(self._stack[-1]) is dict
            elif bracket == "{" or bracket == "[":
                self._open({} if bracket == "{" else [])
            elif bracket == ",":
                self._is_key = type(self._stack[-1]) is dict
            elif bracket != ":" and self._close():
                return
        if at < end and not self._is_key and self._stack and self._text is None:
            start = len(data) - len(data[at:].lstrip())
            if data.startswith('"', start):
                self._text = ""
                at = self._read_text(data, start + 1)
        self._rest = data[at:]

    def _read_text(self, data: str, at: int) -> int:
        """Read on in a text; returns where the rest begins that is not read yet."""
        found = _TEXT.match(data, at)
        assert found is not None
        piece, ending = found.groups()
        at = found.end(1)
        if ending != '"' and "\\" in piece and (begun := _BEGUN_ESCAPE.search(piece)) is not None:
            at -= len(piece) - begun.start()
            piece = piece[: begun.start()]
        assert self._text is not None
        self._text += _unescaped(piece) if "\\" in piece else piece
        self._put(self._text)
        if ending != '"':
            self._is_tentative = True
            return at
        self._text = None
        return at + 1

    def _put(self, value: Any) -> None:
        self._own()
        inner = self._stack[-1]
        if type(inner) is dict:
            inner[self._key] = value
        elif self._is_tentative:
            inner[-1] = value
        else:
            inner.append(value)
        self._is_tentative = False

    def _open(self, inner: Any) -> None:
        if not self._stack:
            self._root = inner
            self._keys.append(None)
        else:
            self._put(inner)
            outer = self._stack[-1]
            self._keys.append(self._key if type(outer) is dict else len(outer) - 1)
        if self._fresh == len(self._stack):
            self._fresh += 1
        self._stack.append(inner)
        self._is_key = type(inner) is dict

    def _close(self) -> bool:
        """The innermost one is whole; says whether it was the outermost."""
        self._stack.pop()
        self._keys.pop()
        self._fresh = min(self._fresh, len(self._stack))
        self._is_key = False
        self._is_over = not self._stack
        return self._is_over

    def _own(self) -> None:
        """Copy those of the open ones that somebody may have seen."""
        stack = self._stack
        for depth in range(self._fresh, len(stack)):
            copied = stack[depth] = stack[depth].copy()
            if depth:
                stack[depth - 1][self._keys[depth]] = copied
            else:
                self._root = copied
        self._fresh = len(stack)


def _unescaped(text: str) -> str:
    unescaped: str = json.loads(f'"{text}"', strict=False)
    return unescaped
