"""A history made fit for the model that it goes to, whoever said what stands in it. Knows no wire format.

Providers refuse what a cut turn or a change of model leaves behind: a call without a result, a signature of someone
else's. What a format itself cannot express is for its dialect to lower.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from .messages import Message, Part, ProviderState, ToolCall, ToolResult
from .requests import Notice
from .tools import failure_of


def sendable(messages: tuple[Message, ...], maker: str) -> tuple[tuple[Message, ...], list[Notice]]:
    """The history as `maker` can be shown it, and what was left out of it. The one that was given stays as it is."""
    makers: list[str] = []
    fit = tuple(_without_foreign(message, maker, makers) for message in paired(messages))
    return fit, [
        Notice("dropped", "state", f"what only {other} can read (signatures and the like) was not sent to {maker}")
        for other in dict.fromkeys(makers)
    ]


def paired(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The history with a result for every tool call: one that never ran is said to have not.

    Providers refuse a call without a result. A turn that was cut, or whose calls the caller left, may leave one.
    """
    whole: list[Message] = []
    open_calls: dict[str | None, ToolCall] = {}
    for message in messages:
        if message.role == "tool":
            for part in message.parts:
                if isinstance(part, ToolResult):
                    open_calls.pop(part.call_id, None)
        elif open_calls:
            whole.append(_not_run(open_calls.values()))
            open_calls = {}
        whole.append(message)
        open_calls.update((call.id, call) for call in message.tool_calls)
    if open_calls:
        whole.append(_not_run(open_calls.values()))
    return tuple(whole)


def _not_run(calls: Iterable[ToolCall]) -> Message:
    return Message("tool", tuple(failure_of(call, "Error: this call was not run") for call in calls))


def _without_foreign(message: Message, maker: str, makers: list[str]) -> Message:
    if not any(_is_foreign(each.state, maker) for each in (message, *message.parts)):
        return message
    # What the wire said of an answer as a whole (its fingerprint, its moderation) goes back to nobody, and is no loss.
    lost = [] if message.role == "assistant" else makers
    return msgspec.structs.replace(
        message,
        parts=tuple(_stripped(part, maker, makers) for part in message.parts),
        state=_own(message.state, maker, lost),
    )


def _stripped(part: Part, maker: str, makers: list[str]) -> Part:
    state = _own(part.state, maker, makers)
    return part if state is part.state else msgspec.structs.replace(part, state=state)


def _own(state: ProviderState | None, maker: str, makers: list[str]) -> ProviderState | None:
    if state is None or not _is_foreign(state, maker):
        return state
    makers.append(str(state.maker))
    return None


def _is_foreign(state: ProviderState | None, maker: str) -> bool:
    return state is not None and state.maker not in (None, maker)
