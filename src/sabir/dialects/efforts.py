"""How much a model is to think, in the words that it has for that; shared by the formats that have words.

The words differ by family of models, and servers answer HTTP 400 to others. Families are data: OpenAI's stand here,
those of other providers with their rows. Knows no field and no format.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ..requests import Notice

_RANKS = {"minimal": 0, "low": 1, "medium": 2, "high": 3, "default": 3}
# Up to so many tokens are so much of an effort.
_BUDGETS = ((2048, "low"), (8192, "medium"))


@dataclass(frozen=True)
class Family:
    """Models of one kind.

    Attributes:
        pattern: what their ids have in them.
        words: the efforts they know, from the least on; none where the field itself is refused.
        off: the word that stops the thinking, or comes nearest to that; None if there is none.
        thinks: whether they think where nothing asks for it, whatever is asked, or not at all; None is not known.
    """

    pattern: str
    words: tuple[str, ...] = ()
    off: str | None = None
    thinks: Literal["always", "never"] | None = None


Efforts = tuple[Family, ...]

ALL = ("minimal", "low", "medium", "high")
# A model of another name is taken to know what it is asked.
_OTHERS = Family("", ALL)

# https://platform.openai.com/docs/guides/reasoning and
# https://learn.microsoft.com/en-us/javascript/api/@azure/ai-projects/reasoningeffort, 2026-11.
OPENAI: Efforts = (
    Family(r"(?<![a-z0-9-])(?:gpt-[34]|chatgpt|gpt-5-chat)", thinks="never"),
    Family(r"gpt-5-pro", ("high",), thinks="always"),
    Family(r"gpt-(?:5\.\d|[6-9])", ("low", "medium", "high"), off="none"),
    Family(r"gpt-5", ALL, off="minimal"),
    Family(r"(?<![a-z0-9])o\d|gpt-oss", ("low", "medium", "high"), thinks="always"),
)


class Lowered(NamedTuple):
    """A wish in a model's words: the word to send, if any, and what is to be said of it."""

    word: str | None
    notice: Notice | None = None


def family_of(model: str, efforts: Efforts) -> Family:
    """The first family that a model is of."""
    return next((family for family in efforts if re.search(family.pattern, model)), _OTHERS)


def effort_of(asked: bool | int | str, model: str, efforts: Efforts) -> Lowered:
    """A wish for thinking as one of the words that the model knows."""
    family = family_of(model, efforts)
    if asked is False:
        return _off(family)
    if not family.words:
        if family.thinks != "always":
            return Lowered(None, _not_sent("this model takes no wish for thinking; choose one that does"))
        # It does what is asked for, if not how much.
        is_met = asked is True
        return Lowered(None, None if is_met else _near(asked, "this model thinks as it sees fit"))
    wanted = _RANKS[_effort(asked)]
    word = next((word for word in family.words if _RANKS[word] >= wanted), family.words[-1])
    return Lowered(word, None if asked is True or word == asked else _near(asked, f"sent as effort={word!r}"))


def _off(family: Family) -> Lowered:
    if family.thinks == "never":
        return Lowered(None)
    if family.thinks == "always":
        return Lowered(None, _not_sent("this model always thinks; choose another, or ask for a low effort"))
    if family.off is None:
        return Lowered(None, _not_sent("this model has no switch for it; choose one that does not think"))
    return Lowered(family.off, None if family.off == "none" else _near(False, f"sent as effort={family.off!r}"))


def _effort(asked: int | str) -> str:
    if asked is True:
        return "medium"
    return asked if isinstance(asked, str) else next((name for most, name in _BUDGETS if asked <= most), "high")


def _not_sent(reason: str) -> Notice:
    return Notice("unsupported", "thinking", f"thinking was not sent: {reason}")


def _near(asked: bool | int | str, how: str) -> Notice:
    return Notice("emulated", "thinking", f"thinking={asked!r} was approximated: {how}")
