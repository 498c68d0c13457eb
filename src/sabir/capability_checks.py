"""What a call asks of a model, held against what is known of it; what is not known is tried."""

from __future__ import annotations

from typing import Any

from .catalog import ModelFacts
from .errors import ConfigurationError, UnsupportedError
from .messages import Audio, File, Image, ToolResult
from .providers import (
    CAPABILITIES,
)
from .requests import Notice, Request
from .targets import Target


def check_tool_choice(request: Request) -> None:
    choice = request.tool_choice
    if choice in (None, "auto", "none", "required") or any(tool.name == choice for tool in request.tools):
        return
    names = ", ".join(tool.name for tool in request.tools) or "none"
    raise ConfigurationError(
        f"tool_choice is 'auto', 'none', 'required' or the name of a tool, not {choice!r}; the tools are: {names}"
    )


def check_capabilities(request: Request, target: Target, facts: ModelFacts) -> None:
    """Refuse what a model is known to be incapable of; what is not known is tried.

    Raises:
        UnsupportedError: says what, and who says so.
    """
    # What a model made has been made; whether it can be shown to this one is for its format to say.
    asked = (message for message in request.messages if message.role != "assistant")
    parts: list[Any] = [part for message in asked for part in message.parts]
    parts += [shown for part in parts if isinstance(part, ToolResult) for shown in part.content]
    kinds: set[type[Any]] = {type(part) for part in parts}
    types = [part.media_type or "" for part in parts if isinstance(part, File)]
    needs = (
        ("tools", bool(request.tools), "run tools"),
        ("parallel_tools", request.parallel_tool_calls is True, "call several tools at once"),
        ("vision", Image in kinds, "see images"),
        ("audio", Audio in kinds, "hear audio"),
        ("video", any(each.startswith("video/") for each in types), "watch video"),
        ("pdf", "application/pdf" in types, "read PDF"),
        ("thinking", request.thinking not in (None, False), "think"),
    )
    for ability, is_needed, what in needs:
        if is_needed and getattr(facts, ability) is False:
            raise UnsupportedError(f"{target.name} cannot {what}{_way_out(ability, target, facts)}", model=target.name)


def _way_out(ability: str, target: Target, facts: ModelFacts) -> str:
    """Who says that a model is incapable of something, and what can be done; who asks may know better."""
    named, is_word = target.named, ability in CAPABILITIES
    choose = "choose another model"
    if target.capabilities is not None and is_word:
        # What a row says of all its models is so.
        is_row = named is None or named.capabilities == named.provider.capabilities
        return f"; {choose}" if is_row else f", by its model string; add the word {ability!r} there, or {choose}"
    address = "" if named is None or named.base_url is None else f"@{named.base_url}"
    hint = f", or say what it can do: '{target.name}{address};{ability},…'" if is_word else ""
    if (probed := target.probed) is not None:
        hint += f", or ask its server again: sabir probe {probed.url} -m {probed.model}"
    return f", says {facts.source} of {facts.checked_on}; {choose}{hint}"


def beyond_limits(request: Request, target: Target, facts: ModelFacts) -> tuple[Notice, ...]:
    most = facts.max_output
    if request.max_tokens is None or most is None or request.max_tokens <= most:
        return ()
    text = f"max_tokens={request.max_tokens} was sent, though {target.name} writes at most {most} tokens, says "
    return (Notice("limit", "max_tokens", f"{text}{facts.source}"),)
