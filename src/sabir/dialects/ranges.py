"""What the numbers of a request may be: for any provider, and what is left of that in a format; checked both ways.

Knows no format: its ranges are data of its dialect, by the portable names.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

from ..errors import BadRequestError, UnsupportedError
from ..requests import Request
from . import Unsupported, Verdicts

Ranges = Mapping[str, tuple[float, float]]

# What lies outside of these means nothing, whoever is asked.
PORTABLE: Ranges = {
    "temperature": (0, inf),
    "top_p": (0, 1),
    "top_k": (0, inf),
    "min_p": (0, 1),
    "max_tokens": (1, inf),
    "repetition_penalty": (0, inf),
    "top_logprobs": (0, inf),
    "n": (1, inf),
}


def outside(options: Mapping[str, Any], ranges: Ranges) -> tuple[str, str] | None:
    """The first option that is not within its range, and what is wanted there; None if all of them are."""
    for name, (least, most) in ranges.items():
        value = options.get(name)
        if value is not None and not least <= value <= most:
            return name, f"a number of at least {least:g}" if most == inf else f"a number from {least:g} to {most:g}"
    return None


def check_sent(request: Request, ranges: Ranges, verdicts: Verdicts) -> None:
    """See to it that servers of a format take the numbers that are sent to them.

    Raises:
        UnsupportedError: they take no such number.
    """
    sent = {name: getattr(request, name) for name in ranges if not isinstance(verdicts.get(name), Unsupported)}
    if (found := outside(sent, ranges)) is not None:
        name, wanted = found
        raise UnsupportedError(f"{name}={sent[name]!r} was not sent: this API wants {wanted}")


def check_read(options: Mapping[str, Any], ranges: Ranges, words: Mapping[str, str]) -> None:
    """See to it that a client's numbers are what the format allows; `words` are the wire's names, where they differ.

    Raises:
        BadRequestError: one of them is not.
    """
    if (found := outside(options, ranges)) is not None:
        name, wanted = found
        raise BadRequestError(f"{words.get(name, name)}: {wanted} is wanted", status=400, code="invalid_request_error")
