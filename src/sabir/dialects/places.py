"""What is said of a part that has no place where it stands, and what to do with it; knows no format."""

from __future__ import annotations

from ..errors import UnsupportedError
from ..messages import Audio, File, Image, Part, Refusal, ServerItem, Text, Thinking, ToolCall, ToolResult, Value
from .media_rules import is_film

_FROM_A_MODEL = "only a model makes it: put it into an assistant's message"
# What a part is called, and where else it, or what it says, could go.
_PARTS: dict[type[Part], tuple[str, str]] = {
    Text: ("text", "what a tool says goes into its ToolResult"),
    Image: ("an image", "describe it in words, or choose another model"),
    Audio: ("audio", "transcribe it first, or choose another model"),
    File: ("a file", "put its text into the prompt, or choose another model"),
    Value: ("a value", "write it as a text"),
    Thinking: ("thinking", _FROM_A_MODEL),
    Refusal: ("a refusal", _FROM_A_MODEL),
    ToolCall: ("a tool call", _FROM_A_MODEL),
    ServerItem: ("an item of a server's", _FROM_A_MODEL),
    ToolResult: ("the result of a tool", "put it into a message of the role 'tool'"),
}


def no_place(part: Part, role: str | None = None) -> UnsupportedError:
    """The error for a part that a format does not have, in messages of a role or at all."""
    what, remedy = _PARTS[type(part)]
    if isinstance(part, File) and is_film(part):
        what, remedy = "a film", "send pictures out of it, or choose another model"
    where = "" if role is None else f" in a message of the role {role!r}"
    return UnsupportedError(f"this API has no place for {what}{where}; {remedy}")
