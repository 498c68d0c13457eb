"""How many tokens a call used; knows no prices and no wire format."""

from __future__ import annotations

from typing import Literal

import msgspec


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, repr_omit_defaults=True):
    """Token counts in disjoint buckets; None means the provider did not say, which is not 0.

    `input` is what was read afresh (neither from a cache nor written to one, and not audio), `output` what was
    written and is neither reasoning nor audio. `reported_total` is the provider's own sum, where it gave one.
    """

    input: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    input_audio: int | None = None
    output: int | None = None
    reasoning: int | None = None
    output_audio: int | None = None
    reported_total: int | None = None

    @property
    def input_tokens(self) -> int | None:
        """All that the model read, cached or not."""
        return _sum(self.input, self.cache_read, self.cache_write, self.input_audio)

    @property
    def output_tokens(self) -> int | None:
        """All that the model wrote, reasoning included."""
        return _sum(self.output, self.reasoning, self.output_audio)

    @property
    def cached_tokens(self) -> int | None:
        """The part of the input that came from the provider's cache."""
        return self.cache_read

    @property
    def total_tokens(self) -> int | None:
        return _sum(self.input_tokens, self.output_tokens)

    @property
    def source(self) -> Literal["reported", "estimated", "unknown"]:
        """Who counted: the provider, a rule of thumb of ours, or nobody."""
        return "unknown" if self == NOTHING else "reported"

    def __add__(self, other: Usage) -> Usage:
        """The usage of two calls together; a bucket that neither reported stays None."""
        if self is NOTHING or other is NOTHING:
            return other if self is NOTHING else self
        # With one estimate in it, a sum is none of the provider's.
        kind = type(other) if isinstance(other, Estimate) else type(self)
        return kind(**{name: _sum(getattr(self, name), getattr(other, name)) for name in self.__struct_fields__})

    def updated(self, later: Usage) -> Usage:
        """This count replaced, bucket by bucket, by a later count of the same call (streams count cumulatively)."""
        if self is NOTHING:
            return later
        return Usage(
            **{
                name: after if (after := getattr(later, name)) is not None else getattr(self, name)
                for name in self.__struct_fields__
            }
        )


class Estimate(Usage, frozen=True, kw_only=True, omit_defaults=True, repr_omit_defaults=True):
    """Token counts by a rule of thumb, before anybody counted."""

    @property
    def source(self) -> Literal["reported", "estimated", "unknown"]:
        return "estimated"


# Where counting begins; most sums are of this and one other.
NOTHING = Usage()


def _sum(*counts: int | None) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
