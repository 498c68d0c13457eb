"""Ids of tool calls that another provider gave, made such as a format takes; knows what is allowed, not to whom.

A call and its result are each given the same id for the same, so that no table is needed to keep them together.
"""

from __future__ import annotations

import re
from hashlib import blake2b

import msgspec

from ..messages import Message, Part, ToolCall, ToolResult


def fitting_ids(messages: tuple[Message, ...], allowed: re.Pattern[str]) -> tuple[tuple[Message, ...], bool]:
    """The messages with ids that `allowed` matches in full, and whether any had to be replaced."""
    fit = tuple(_fit(message, allowed) for message in messages)
    is_same = all(after is before for after, before in zip(fit, messages, strict=True))
    return (messages, False) if is_same else (fit, True)


def _fit(message: Message, allowed: re.Pattern[str]) -> Message:
    parts = tuple(with_fitting_id(part, allowed) for part in message.parts)
    if all(after is before for after, before in zip(parts, message.parts, strict=True)):
        return message
    return msgspec.structs.replace(message, parts=parts)


def with_fitting_id(part: Part, allowed: re.Pattern[str]) -> Part:
    """The part; with another id, if it is a call or a result whose own is not allowed."""
    match part:
        case ToolCall(id=str() as call_id) if not allowed.fullmatch(call_id):
            return msgspec.structs.replace(part, id=_made_of(call_id))
        case ToolResult(call_id=str() as call_id) if not allowed.fullmatch(call_id):
            return msgspec.structs.replace(part, call_id=_made_of(call_id))
        case _:
            return part


def _made_of(call_id: str) -> str:
    return "call_" + blake2b(call_id.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
