"""A call's arguments where a format has them as an object; with us they are the text that the model wrote."""

from __future__ import annotations

from typing import Any

from ..errors import StreamProtocolError
from ..strict_json import decode_json, encode_json, is_object


def arguments_object(text: str) -> dict[str, Any]:
    """The arguments as an object. What is none is wrapped in one, as Anthropic advises
    (https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming).
    """
    try:
        value = decode_json(text or "{}")
    except ValueError:
        value = None
    return value if is_object(value) else {"INVALID_JSON": text}


def arguments_text(value: Any) -> str:
    """The arguments of an answer as text.

    Raises:
        StreamProtocolError: they are nested too deeply to be told.
    """
    try:
        return encode_json(value).decode()
    except ValueError as error:
        raise StreamProtocolError(f"the input of a tool call cannot be told: {error}") from None
