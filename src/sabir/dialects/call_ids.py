"""Ids of tool calls that another provider gave, made such as a format takes; knows what is allowed, not to whom.

A call and its result are each given the same id for the same, so that no table is needed to keep them together.
"""

from __future__ import annotations

import re
from hashlib import blake2b

import msgspec

from ..messages import Message, Part, ToolCall, ToolResult


def fitting_ids(
    messages: tuple[Message, ...], allowed: re.Pattern[str], dialect: str
) -> tuple[tuple[Message, ...], bool]:
    """The messages with ids that `allowed` matches in full, and whether any had to be replaced.

    What a call says in this very dialect was said by who reads it now; its id stays, and so does its result's.
    """
    calls = [call for message in messages for call in message.tool_calls]
    kept = {call.id for call in calls if call.state is not None and call.state.dialect == dialect}
    fit = tuple(_fit(message, allowed, kept) for message in messages)
    is_same = all(after is before for after, before in zip(fit, messages, strict=True))
    return (messages, False) if is_same else (fit, True)


def _fit(message: Message, allowed: re.Pattern[str], kept: set[str | None]) -> Message:
    parts = tuple(part if _id_of(part) in kept else with_fitting_id(part, allowed) for part in message.parts)
    if all(after is before for after, before in zip(parts, message.parts, strict=True)):
        return message
    return msgspec.structs.replace(message, parts=parts)


def _id_of(part: Part) -> str | None:
    return part.id if isinstance(part, ToolCall) else part.call_id if isinstance(part, ToolResult) else None


def with_fitting_id(part: Part, allowed: re.Pattern[str]) -> Part:
    """The part; with another id, if it is a call or a result whose own is not allowed."""
    match part:
        case ToolCall(id=str() as call_id) if not allowed.fullmatch(call_id):
            return msgspec.structs.replace(part, id=fitting_id(call_id, allowed))
        case ToolResult(call_id=str() as call_id) if not allowed.fullmatch(call_id):
            return msgspec.structs.replace(part, call_id=fitting_id(call_id, allowed))
        case _:
            return part


def fitting_id(call_id: str, allowed: re.Pattern[str]) -> str:
    """The id, or one that is always the same for the same."""
    if allowed.fullmatch(call_id):
        return call_id
    return "call_" + blake2b(call_id.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
