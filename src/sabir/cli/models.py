"""What `sabir models` shows: the facts of the catalog, and newer ones where the user wants them. Asks no model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import msgspec

from ..catalog import ABILITIES, Entry, ModelFacts, listed, same_provider
from ..cost import Prices
from ..errors import ConfigurationError
from ..newer_facts import URL, newer_facts
from ..newer_facts import refresh as fetch_newer
from .screen import Screen
from .talk import as_json, guarded

MOST_NAMED = 5


def models(what: str | None, url: str | None, is_json: bool) -> int:
    """Do `sabir models` and return its exit code."""

    def work(screen: Screen) -> None:
        if what == "refresh":
            return _refresh(screen, url)
        if url is not None:
            raise ConfigurationError("--url is for `sabir models refresh`: to show what is known, nothing is fetched")
        wanted = None if what is None else same_provider(what)
        entries = [entry for entry in listed(newer_facts()) if wanted in (None, entry.provider)]
        if not entries:
            known = ", ".join(dict.fromkeys(entry.provider for entry in listed(newer_facts())))
            raise ConfigurationError(f"nothing is known about models of {what!r}; there are facts about: {known}")
        if is_json:
            screen.answer(as_json([_report(entry) for entry in entries], screen))
        else:
            for line in _table(entries):
                screen.answer(f"{line}\n")
        screen.end_answer()

    return guarded(work)


def _refresh(screen: Screen, url: str | None) -> None:
    done = fetch_newer(url or os.environ.get("SABIR_MODELS_URL") or URL)
    screen.answer(f"{done.models} models of {done.providers} providers, kept in {done.path}\n")
    for line in done.skipped[:MOST_NAMED]:
        screen.warn(f"passed over: {line}")
    if (more := len(done.skipped) - MOST_NAMED) > 0:
        screen.warn(f"passed over: {more} more")


def _report(entry: Entry) -> dict[str, Any]:
    facts = {name: getattr(entry.facts, name) for name in entry.facts.__struct_fields__}
    return {"provider": entry.provider, "model": entry.model, **msgspec.to_builtins(facts)}


def _table(entries: list[Entry]) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [
        ("model", "context", "output", "can", "cannot", "$ in / cached / out, a million", "as of")
    ]
    rows += [_row(entry) for entry in entries]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(entry: Entry) -> tuple[str, ...]:
    facts, prices = entry.facts, entry.facts.prices
    return (
        f"{entry.provider}:{entry.model}",
        _count(facts.context),
        _count(facts.max_output),
        _abilities(facts, True),
        _abilities(facts, False),
        "?" if prices is None else _rates(prices),
        (facts.checked_on if prices is None else prices.priced_on) or "?",
    )


def _abilities(facts: ModelFacts, answer: bool) -> str:
    return ",".join(name for name in ABILITIES if getattr(facts, name) is answer)


def _rates(prices: Prices) -> str:
    if prices.search is not None:
        return f"{prices.search:f} a search"
    rates = (prices.input, prices.cache_read, prices.output)
    return " / ".join("?" if rate is None else f"{rate:f}" for rate in rates) + (" +tiers" if prices.tiers else "")


def _count(tokens: int | None) -> str:
    return "?" if tokens is None else f"{tokens:,}"
