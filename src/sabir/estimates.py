"""How many tokens a request will be, roughly, before anybody counts them. Knows no model and no tokenizer."""

from __future__ import annotations

import msgspec

from .messages import Image, Text, Thinking, ToolCall, ToolResult
from .requests import Request
from .usage import Estimate

# English is about four bytes of UTF-8 a token with the tokenizers of today, JSON and code about three.
BYTES_OF_TEXT = 4
BYTES_OF_JSON = 3
# Roles and separators, around each message.
TOKENS_OF_A_MESSAGE = 4


def estimated(request: Request) -> Estimate | None:
    """The tokens that a model will read of a request; None if it holds more than text, which nobody can guess."""
    text, json, messages = 0, 0, len(request.messages)
    for message in request.messages:
        for part in message.parts:
            match part:
                case ToolResult() if any(isinstance(shown, Image) for shown in part.content):
                    return None
                case Text() | Thinking() | ToolResult():
                    text += len(part.text.encode("utf-8", "surrogatepass"))
                case ToolCall():
                    json += len(part.name) + len(part.input.encode("utf-8", "surrogatepass"))
                case _:
                    return None
    for tool in request.tools:
        text += len(tool.description.encode("utf-8", "surrogatepass"))
        json += len(tool.name) + len(msgspec.json.encode(tool.parameters))
    if request.schema is not None:
        json += len(msgspec.json.encode(request.schema.json))
    if request.documents:
        json += len(msgspec.json.encode(request.documents))
    return Estimate(input=-(-text // BYTES_OF_TEXT) - (-json // BYTES_OF_JSON) + messages * TOKENS_OF_A_MESSAGE)
