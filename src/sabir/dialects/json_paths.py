"""JSON whose values come one by one, each with the path (RFC 9535) at which it stands; knows nothing of what they say.

Pieces are those of Google's PartialArg: `{"jsonPath": "$.a[0].b", "stringValue": "x", "willContinue": true}`.
"""

from __future__ import annotations

import re
from typing import Any

from ..errors import StreamProtocolError
from ..strict_json import encode_json
from . import mapping_of


class PathText:
    """The text of a JSON object, whose values come in the order of the text, each with its path and strings in pieces.

    What is not finished stays without its closing brackets, so that an object that was cut is no whole one.
    """

    def __init__(self) -> None:
        # Of each container that is open: the key it has in the one around it, how it closes, the keys it has so far.
        self._open: list[tuple[str | int, str, set[str | int]]] = []
        self._string: str | None = None

    def add(self, piece: Any) -> str:
        """What a piece adds to the text.

        Raises:
            StreamProtocolError: it has no path or value that we know, or belongs to what is complete.
        """
        told = mapping_of(piece)
        where, text = told.get("jsonPath"), told.get("stringValue")
        if self._string is not None:
            if where != self._string or not isinstance(text, str):
                raise _misplaced(told)
            return self._more(where, text, told)
        if isinstance(text, str):
            return f'{self._reach(_path(where), told)}"{self._more(where, text, told)}'
        value = next((told[name] for name in ("numberValue", "boolValue") if name in told), None)
        if value is None and "nullValue" not in told:
            raise _misplaced(told)
        return self._reach(_path(where), told) + _written(value)

    def end(self) -> str:
        """The closing brackets; nothing if there were no values."""
        if self._string is not None:
            raise StreamProtocolError("an object that comes by paths ends within a string")
        return self._leave(0)

    def _more(self, where: Any, text: str, told: dict[str, Any]) -> str:
        self._string = where if told.get("willContinue") is True else None
        return (_written(text)[1:-1] if text else "") + ("" if self._string is not None else '"')

    def _reach(self, path: list[str | int], told: dict[str, Any]) -> str:
        """The text up to the value at this path: what is left is closed, what is entered is opened."""
        kept = min(1, len(self._open))
        while 0 < kept < min(len(self._open), len(path)) and self._open[kept][0] == path[kept - 1]:
            kept += 1
        text = [self._leave(kept)] if kept < len(self._open) else []
        for depth in range(max(kept, 1) - 1, len(path)):
            key = path[depth]
            if depth == len(self._open):
                self._open.append((path[depth - 1] if depth else "$", "]" if isinstance(key, int) else "}", set()))
                text.append("[" if isinstance(key, int) else "{")
            _, closing, known = self._open[depth]
            is_next = key == len(known) if isinstance(key, int) else key not in known
            if not is_next or isinstance(key, int) != (closing == "]"):
                raise _misplaced(told)
            text.append("," if known else "")
            text.append("" if isinstance(key, int) else f"{_written(key)}:")
            known.add(key)
        return "".join(text)

    def _leave(self, depth: int) -> str:
        left = self._open[depth:]
        del self._open[depth:]
        return "".join(closing for _, closing, _ in reversed(left))


def _misplaced(told: dict[str, Any]) -> StreamProtocolError:
    return StreamProtocolError(f"a value does not fit where its path says: {str(told)[:200]}")


_ESCAPED = re.compile(r"\\(.)", re.S)
_STEPS = re.compile(r"""(\.([^.\[\]]+)|\[(\d{1,9})\]|\[(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")\])""", re.S).findall


def _path(text: Any) -> list[str | int]:
    """The keys and indexes of a JSON path (RFC 9535) that leads from the root to one value."""
    found = _STEPS(text) if isinstance(text, str) else []
    steps: list[str | int] = [
        int(index) if index else name or _ESCAPED.sub(r"\1", single or double)
        for _, name, index, single, double in found
    ]
    if not steps or isinstance(steps[0], int) or text != "$" + "".join([step[0] for step in found]):
        raise StreamProtocolError(f"a value has no path that we can read: {str(text)[:80]}")
    return steps


def _written(value: Any) -> str:
    try:
        return encode_json(value).decode()
    except ValueError as error:
        raise StreamProtocolError(f"a value that comes by its path cannot be told: {error}") from None
