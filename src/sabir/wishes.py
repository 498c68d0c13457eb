"""What a request asks for, settled before a format sees it: wishes that another implies, or that mean nothing here.

Most wishes have a value that says what happens anyway (one answer, no documents). A format without a word for such a
wish fulfils it by saying nothing, and nobody needs to hear of that. Knows no format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from .requests import Notice, Request

# By option: whether a value of it is what happens where the option is not sent.
_MET_BY_NOTHING: Mapping[str, Callable[[Any], bool]] = {
    "n": lambda value: value == 1,
    "logprobs": lambda value: not value,
    "top_logprobs": lambda value: not value,
    "documents": lambda value: not value,
    "cache": lambda value: not value,
    "frequency_penalty": lambda value: value == 0,
    "presence_penalty": lambda value: value == 0,
    "repetition_penalty": lambda value: value == 1,
    "min_p": lambda value: value == 0,
    # Where there is no switch, models call as many tools at once as they like.
    "parallel_tool_calls": bool,
}


def settled(request: Request) -> tuple[Request, tuple[Notice, ...]]:
    """The request as a format is to see it, and what of it was left out as it can mean nothing."""
    changed: dict[str, Any] = {}
    notices: tuple[Notice, ...] = ()
    if request.top_logprobs and request.logprobs is False:
        changed["top_logprobs"] = None
        text = "top_logprobs was not sent, since logprobs=False goes against it"
        notices += (Notice("dropped", "top_logprobs", text),)
    elif request.top_logprobs:
        changed["logprobs"] = True
    # Tools of a provider's own may stand in what goes to the wire as it is.
    has_tools = bool(request.tools) or any("tool" in name.lower() for name in request.extra)
    if not has_tools and (request.tool_choice, request.parallel_tool_calls) != (None, None):
        changed.update(tool_choice=None, parallel_tool_calls=None)
        if request.tool_choice not in (None, "auto", "none"):
            text = "tool_choice was not sent: there is nothing to choose from, since the request has no tools"
            notices += (Notice("unsupported", "tool_choice", text),)
    return (msgspec.structs.replace(request, **changed) if changed else request), notices


def unmet(request: Request, notices: Iterable[Notice]) -> tuple[Notice, ...]:
    """The notices, but for those that say of a wish that it was not sent, where it is met all the same."""
    return tuple(each for each in notices if each.kind != "unsupported" or not _is_met(request, each.subject))


def _is_met(request: Request, subject: str) -> bool:
    is_met = _MET_BY_NOTHING.get(subject)
    return is_met is not None and is_met(getattr(request, subject))
