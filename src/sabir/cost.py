"""What a call costs: tokens (or searches) times prices, in dollars; knows no model and no provider.

What is not known is never guessed low: tokens in a bucket that has no price make the whole cost unknown.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from .errors import ConfigurationError
from .usage import Usage

MILLION = 1_000_000


class Rates(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, repr_omit_defaults=True):
    """US dollars for a million tokens of each of `Usage`'s buckets; None is not known, which is not 0.

    `cache_write` is for what is kept for minutes, `cache_write_1h` for what is kept for an hour. Where `reasoning` is
    None it costs what `output` does, as it does wherever a provider does not price it apart.
    """

    input: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    input_audio: Decimal | None = None
    output: Decimal | None = None
    reasoning: Decimal | None = None
    output_audio: Decimal | None = None

    def __post_init__(self) -> None:
        for name in Rates.__struct_fields__:
            _check_price(name, getattr(self, name))


class Tier(Rates, frozen=True, kw_only=True, omit_defaults=True, repr_omit_defaults=True):
    """Other rates for a whole call that reads more than `above` tokens."""

    above: int


class Prices(Rates, frozen=True, kw_only=True, omit_defaults=True, repr_omit_defaults=True):
    """The rates of a model: since when they are known to hold (`priced_on`, as in "2026-11-21"), and who says so.

    `search` is dollars for one search unit of a ranking, where it is not billed by its tokens.
    """

    search: Decimal | None = None
    tiers: tuple[Tier, ...] = ()
    priced_on: str | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_price("search", self.search)


class Cost(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """What a call cost in US dollars.

    `buckets` are the parts of it, by the buckets of `Usage`. `is_reported` says that the provider itself told the sum,
    of which there are no parts. `priced_on` is the day of the prices, of several the earliest.
    """

    usd: Decimal
    buckets: dict[str, Decimal] = {}
    priced_on: str | None = None
    source: str | None = None
    is_reported: bool = False

    def __str__(self) -> str:
        return f"${self.usd:f}"

    def __add__(self, other: Cost) -> Cost:
        """The cost of two calls together."""
        names = [*self.buckets, *(name for name in other.buckets if name not in self.buckets)]
        days = [day for day in (self.priced_on, other.priced_on) if day is not None]
        sources = dict.fromkeys(source for source in (self.source, other.source) if source is not None)
        return Cost(
            usd=self.usd + other.usd,
            buckets={name: self.buckets.get(name, Decimal()) + other.buckets.get(name, Decimal()) for name in names},
            priced_on=min(days, default=None),
            source=", ".join(sources) or None,
            is_reported=self.is_reported and other.is_reported,
        )


def cost_of(usage: Usage, prices: Prices, *, cache_write_1h: int = 0, searches: int | None = None) -> Cost | None:
    """What a call of this usage costs, or None if that is not known; `cache_write_1h` is a part of `cache_write`."""
    if prices.search is not None:
        return None if searches is None else _cost({"search": searches * prices.search}, prices)
    read = usage.input_tokens
    if read is None or usage.output_tokens is None:
        return None
    rates: Rates = max(
        (tier for tier in prices.tiers if tier.above < read), key=lambda tier: tier.above, default=prices
    )
    kept_long = min(cache_write_1h, usage.cache_write or 0)
    counted = {
        "input": (usage.input, rates.input),
        "cache_read": (usage.cache_read, rates.cache_read),
        "cache_write": ((usage.cache_write or 0) - kept_long, rates.cache_write),
        "cache_write_1h": (kept_long, rates.cache_write_1h),
        "input_audio": (usage.input_audio, rates.input_audio),
        "output": (usage.output, rates.output),
        "reasoning": (usage.reasoning, rates.output if rates.reasoning is None else rates.reasoning),
        "output_audio": (usage.output_audio, rates.output_audio),
    }
    buckets: dict[str, Decimal] = {}
    for name, (tokens, rate) in counted.items():
        if tokens:
            if rate is None:
                return None
            buckets[name] = tokens * rate / MILLION
    if not buckets and (rates.input is None or rates.output is None):
        return None
    return _cost(buckets, prices)


def _cost(buckets: dict[str, Decimal], prices: Prices) -> Cost:
    return Cost(usd=sum(buckets.values(), Decimal()), buckets=buckets, priced_on=prices.priced_on, source=prices.source)


def _check_price(name: str, rate: object) -> None:
    if rate is not None and not (isinstance(rate, Decimal) and _is_price(rate)):
        raise ConfigurationError(f"the price of {name} is a Decimal of at least 0 with up to 12 places, not {rate!r}")


def _is_price(rate: Decimal) -> bool:
    # Prices may come from a file of strangers: 1E+999999 is a number too, and would be written out somewhere.
    exponent = rate.as_tuple().exponent
    return isinstance(exponent, int) and -12 <= exponent <= 6 and 0 <= rate < MILLION
