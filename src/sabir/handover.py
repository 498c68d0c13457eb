"""A history made fit for the model that it goes to, whoever said what stands in it. Knows no wire format.

Providers refuse what a cut turn or a change of model leaves behind: a call without a result, a signature of someone
else's. What a format itself cannot express is for its dialect to lower.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count

import msgspec

from .messages import Message, Part, ProviderState, ToolCall, ToolResult
from .requests import Notice
from .tools import failure_of


def sendable(messages: tuple[Message, ...], maker: str) -> tuple[tuple[Message, ...], list[Notice]]:
    """The history as `maker` can be shown it, and what was left out of it. The one that was given stays as it is."""
    makers: list[str] = []
    whole, left = paired(with_ids(messages))
    fit = tuple(_without_foreign(message, maker, makers) for message in whole)
    names = ", ".join(dict.fromkeys(call.name for call in left))
    not_run = f"the history has no result of a call of {names}: the model is told that it was not run"
    return fit, [
        *([Notice("emulated", "tool_result", not_run)] if left else []),
        *(
            Notice("dropped", "state", f"what only {other} can read (signatures and the like) was not sent to {maker}")
            for other in dict.fromkeys(makers)
        ),
    ]


def with_ids(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The history with an id on every call, unlike any other in it, and on its result; given ones are synthetic.

    Some servers give none, or number the calls of each answer anew; others refuse a history without, or with doubles.
    """
    ids = [call.id for message in messages for call in message.tool_calls]
    answered = [part.call_id for message in messages for part in message.parts if isinstance(part, ToolResult)]
    if None not in (*ids, *answered) and len(set(ids)) == len(ids):
        return messages
    taken = {*ids, *answered}
    fresh = (call_id for number in count() if (call_id := f"call_{number}") not in taken)
    seen: set[str | None] = {None}
    whole: list[Message] = []
    # The calls of the last answer as they came, and the ids that they have now.
    waiting: list[tuple[ToolCall, str | None]] = []
    for message in messages:
        if message.role != "tool":
            waiting = []
        parts = tuple(_identified(part, seen, fresh, waiting) for part in message.parts)
        whole.append(message if parts == message.parts else msgspec.structs.replace(message, parts=parts))
    return tuple(whole)


def _identified(
    part: Part, seen: set[str | None], fresh: Iterator[str], waiting: list[tuple[ToolCall, str | None]]
) -> Part:
    match part:
        case ToolCall():
            call = msgspec.structs.replace(part, id=next(fresh), synthetic=True) if part.id in seen else part
            seen.add(call.id)
            waiting.append((part, call.id))
            return call
        case ToolResult():
            # By its id; without one, by its name, in the order of the calls.
            called = [at for at, (call, _) in enumerate(waiting) if call.id == part.call_id is not None]
            called += [
                at
                for at, (call, _) in enumerate(waiting)
                if None in (call.id, part.call_id) and part.name in ("", call.name)
            ]
            return msgspec.structs.replace(part, call_id=waiting.pop(called[0])[1]) if called else part
        case _:
            return part


def paired(messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], list[ToolCall]]:
    """The history with a result for every tool call, and the calls that had none: these are said to have not run.

    Providers refuse a call without a result. A turn that was cut, or whose calls the caller left, may leave one.
    """
    whole: list[Message] = []
    left: list[ToolCall] = []
    open_calls: dict[str | None, ToolCall] = {}
    for message in (*messages, None):
        if message is not None and message.role == "tool":
            for part in message.parts:
                if isinstance(part, ToolResult):
                    open_calls.pop(part.call_id, None)
        elif open_calls:
            left += open_calls.values()
            whole.append(_not_run(open_calls.values()))
            open_calls = {}
        if message is not None:
            whole.append(message)
            open_calls.update((call.id, call) for call in message.tool_calls)
    return tuple(whole), left


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
