"""Where two JSON values differ, in a sentence a person can act on; knows nothing of what the values mean."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from ..strict_json import is_array, is_object

_LONGEST = 200
_BEFORE_THE_CHANGE = 40


def first_change(before: Any, after: Any, path: str = "") -> str | None:
    """Where two JSON values first differ, and how; None if they are the same. True is not 1 here, and 1 is 1.0."""
    if is_object(before) and is_object(after):
        for name in [*before, *(name for name in after if name not in before)]:
            change = first_change(before.get(name, _ABSENT), after.get(name, _ABSENT), f"{path}.{name}".lstrip("."))
            if change is not None:
                return change
        return None
    if is_array(before) and is_array(after):
        for number, (one, other) in enumerate(zip_longest(before, after, fillvalue=_ABSENT)):
            if (change := first_change(one, other, f"{path}[{number}]")) is not None:
                return change
        return None
    if before == after and isinstance(before, bool) is isinstance(after, bool):
        return None
    return f"{path or 'all of it'} was {shown_beside(before, after)}, and now {shown_beside(after, before)}"


def shown_beside(value: Any, other: Any) -> str:
    """What a value looks like; of a long one only where it differs from the other."""
    text = repr(value)
    if len(text) <= _LONGEST:
        return text
    pairs = enumerate(zip_longest(text, repr(other)))
    start = max(0, next((at for at, (one, another) in pairs if one != another), 0) - _BEFORE_THE_CHANGE)
    end = start + _LONGEST
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"


class _Absent:
    def __repr__(self) -> str:
        return "absent"


_ABSENT = _Absent()
