"""Which efforts of thinking OpenAI's models know, by family; the formats that OpenAI speaks share it.

https://platform.openai.com/docs/guides/reasoning, 2026-11. A model of another name is taken to know what it is asked.
"""

from __future__ import annotations

import re

_UNTHINKING = re.compile(r"(?<![a-z0-9-])(?:gpt-[34]|chatgpt|gpt-5-chat)")
_CAN_STOP = re.compile(r"gpt-(?:5\.\d|[6-9])")
_KNOWS_MINIMAL = re.compile(r"gpt-5(?!\.\d|-chat)")
_NO_MINIMAL = re.compile(r"(?<![a-z0-9])o\d|gpt-oss|gpt-(?:5\.\d|[6-9])")
_BUDGETS = ((2048, "low"), (8192, "medium"))


def never_thinks(model: str) -> bool:
    """Whether the model answers HTTP 400 to a wish for thinking, encrypted or not."""
    return _UNTHINKING.search(model) is not None


def effort_of(asked: bool | int | str, model: str) -> str | None:
    """The effort that is nearest to what is asked; None for False where the model has no way not to think."""
    if asked is False:
        return "none" if _CAN_STOP.search(model) else "minimal" if _KNOWS_MINIMAL.search(model) else None
    if asked is True:
        return "medium"
    if isinstance(asked, int):
        return next((name for most, name in _BUDGETS if asked <= most), "high")
    return "low" if asked == "minimal" and _NO_MINIMAL.search(model) else asked
