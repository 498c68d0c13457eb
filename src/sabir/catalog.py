"""What models can do, how much they take and what they cost, as far as somebody has said so.

All of it is advice: yes, no, or unknown, which is None. The facts lie in `catalog.json` beside this file, each with its
source and the day it was looked up; newer ones may be laid over them (see `newer_facts`). Opens nothing else, and knows
providers by their names only.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from .cost import Cost, Prices
from .messages import ProviderState
from .strict_json import is_object
from .usage import Usage

Level = Literal["minimal", "low", "medium", "high", "xhigh", "max", "budget", "adaptive", "always"]
Modality = Literal["text", "image", "audio", "video", "pdf"]

# Of these a model is capable, or not, or nobody knows.
ABILITIES = ("tools", "parallel_tools", "structured", "thinking", "vision", "audio", "video", "pdf")
FILE = Path(__file__).with_name("catalog.json")


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, repr_omit_defaults=True):
    """What is known of a model; None is not known.

    `tools`, `parallel_tools` (several calls at once), `structured` (answers that fit a schema), `thinking`, and what it
    takes beside text: `vision`, `audio`, `video`, `pdf`. `thinking_levels` says how thinking can be asked for: efforts,
    "budget" (of tokens), "adaptive" (the model decides), and "always" if it cannot be turned off. `context` and
    `max_output` are tokens. `source` says who knows that, and `checked_on` since when.
    """

    tools: bool | None = None
    parallel_tools: bool | None = None
    structured: bool | None = None
    thinking: bool | None = None
    thinking_levels: tuple[Level, ...] | None = None
    vision: bool | None = None
    audio: bool | None = None
    video: bool | None = None
    pdf: bool | None = None
    outputs: tuple[Modality, ...] | None = None
    context: int | None = None
    max_output: int | None = None
    prices: Prices | None = None
    source: str | None = None
    checked_on: str | None = None

    @property
    def inputs(self) -> tuple[Modality, ...]:
        """What it is known to take."""
        kinds: tuple[tuple[Modality, bool | None], ...] = (
            ("text", True),
            ("image", self.vision),
            ("audio", self.audio),
            ("video", self.video),
            ("pdf", self.pdf),
        )
        return tuple(kind for kind, is_taken in kinds if is_taken)

    def over(self, older: ModelFacts) -> ModelFacts:
        """These facts, and what they leave open from older ones."""
        known = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}
        return msgspec.structs.replace(older, **known)

    def declared(self, words: frozenset[str], of: frozenset[str]) -> ModelFacts:
        """These facts where somebody who knows the model said of which words `of` it is capable: of these, no more."""
        return msgspec.structs.replace(self, **{word: word in words for word in of})


UNKNOWN = ModelFacts()

# By provider and by id.
Newer = Mapping[str, Mapping[str, ModelFacts]]


class _Reported(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a provider's answer says what it cost: `per_usd` of it make a dollar. Not if `unless` is set there."""

    path: str
    per_usd: int = 1
    unless: str | None = None


class _Hosted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How ids of another maker's models look here: the whole id, and what the maker calls it."""

    pattern: str
    maker: str
    model: str


class _Shelf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A provider's part of the file.

    It is another name of the provider `same_as`, if that is set. `aliases` are other ids of its models, `snapshot` is
    the ending that an id with a date has; it costs and can do what the one without does. Where its answers say what is
    on the bill: `reported` the sum, `kept_1h` how many tokens were written to a cache for an hour, `billed` the tokens
    where those are others than it counts, `searches` the search units of a ranking. `by_the_hour` says that its prices
    change in the course of a day, which no table shows, so that none is believed.
    """

    models: dict[str, ModelFacts] = {}
    same_as: str | None = None
    aliases: dict[str, str] = {}
    snapshot: str | None = None
    hosted: tuple[_Hosted, ...] = ()
    reported: _Reported | None = None
    kept_1h: str | None = None
    billed: str | None = None
    searches: str | None = None
    by_the_hour: bool = False


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format_version: Literal[1]
    providers: dict[str, _Shelf]


class Entry(NamedTuple):
    """A model that the catalog lists."""

    provider: str
    model: str
    facts: ModelFacts


def facts_of(provider: str, model: str, newer: Newer | None = None) -> ModelFacts:
    """What is known of a provider's model; a host's prices are its own, what its models can do their makers say."""
    provider = same_provider(provider)
    own = _found(provider, model, newer or {})
    for hosted in _shelf(provider).hosted:
        if (match := re.fullmatch(hosted.pattern, model)) is not None:
            made = _found(hosted.maker, match.expand(hosted.model), newer or {})
            own = own.over(msgspec.structs.replace(made, prices=None))
            break
    return own


def listed(newer: Newer | None = None) -> Iterator[Entry]:
    """All models that are listed, provider by provider."""
    ours, theirs = {name: shelf.models for name, shelf in _read().items()}, newer or {}
    for provider in dict.fromkeys((*ours, *theirs)):
        for model in dict.fromkeys((*ours.get(provider, ()), *theirs.get(provider, ()))):
            yield Entry(provider, model, facts_of(provider, model, newer))


def same_provider(provider: str) -> str:
    """The provider that this is another name of."""
    return _shelf(provider).same_as or provider


def said_beyond(state: ProviderState | None) -> dict[str, Any]:
    """What an answer said beyond our words, in its provider's, as it stands with the answer (see `leftovers`)."""
    kept: Any = None if state is None else state.value
    answer, usage = _at(kept, "answer.set"), _at(kept, "usage.set")
    said: dict[str, Any] = {}
    for path, value in answer.items() if is_object(answer) else ():
        # What stood inside of something that we do understand has its path as its name.
        *outer, name = path.split(".")
        place = said
        for each in outer:
            inner = place.get(each)
            place[each] = place = dict(inner) if is_object(inner) else {}
        place[name] = value
    if is_object(usage):
        said["usage"] = {**(said["usage"] if is_object(said.get("usage")) else {}), **usage}
    return said


def reported_cost(provider: str, said: Mapping[str, Any]) -> Cost | None:
    """What the provider itself says that an answer cost, all that it bills included; None if it says nothing."""
    told = _shelf(same_provider(provider)).reported
    if told is None or (told.unless is not None and _at(said, told.unless)):
        return None
    value = _at(said, told.path)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        return None
    return Cost(usd=Decimal(str(value)) / told.per_usd, source=provider, is_reported=True)


def billed_usage(provider: str, said: Mapping[str, Any]) -> Usage | None:
    """The tokens that an answer's provider bills, where it says that those are others than the ones it counts."""
    path = _shelf(same_provider(provider)).billed
    billed = None if path is None else _at(said, path)
    if not is_object(billed):
        return None
    return Usage(input=_count(billed.get("input_tokens")), output=_count(billed.get("output_tokens")))


def kept_for_an_hour(provider: str, said: Mapping[str, Any]) -> int:
    """How many of the tokens that were written to a cache are kept there for an hour."""
    path = _shelf(same_provider(provider)).kept_1h
    return 0 if path is None else _count(_at(said, path)) or 0


def searches_of(provider: str, said: Mapping[str, Any]) -> int | None:
    """How many search units a ranking took."""
    path = _shelf(same_provider(provider)).searches
    return None if path is None else _count(_at(said, path))


def _found(provider: str, model: str, newer: Newer) -> ModelFacts:
    """The facts of an id: itself, what it is another name of, or what it is a dated release of."""
    shelf = _shelf(provider)
    fresh = newer.get(provider, {})
    ids = [model, shelf.aliases.get(model)]
    if shelf.snapshot is not None:
        ids.append(re.sub(f"{shelf.snapshot}$", "", model))
    for each in ids:
        if each is not None and (each in shelf.models or each in fresh):
            found = _laid_over(fresh.get(each, UNKNOWN), shelf.models.get(each, UNKNOWN))
            return msgspec.structs.replace(found, prices=None) if shelf.by_the_hour else found
    return UNKNOWN


def _laid_over(newer: ModelFacts, ours: ModelFacts) -> ModelFacts:
    """Newer facts over ours. What a model can do as ours say, and cannot as newer ones do, is not known."""
    denied = [name for name in ABILITIES if getattr(ours, name) and getattr(newer, name) is False]
    return msgspec.structs.replace(newer.over(ours), **dict.fromkeys(denied))


def _count(value: Any) -> int | None:
    """A count, which Cohere writes as 1.0 too."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 53:
        return None
    return int(value)


def _at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value.get(name) if is_object(value) else None
    return value


def _shelf(provider: str) -> _Shelf:
    return _read().get(provider, _NOTHING)


_NOTHING = _Shelf()


@functools.cache
def _read() -> dict[str, _Shelf]:
    return msgspec.json.decode(FILE.read_bytes(), type=_File).providers
