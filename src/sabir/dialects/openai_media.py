"""What OpenAI's formats of images, speech and transcripts do alike: their events, their failures, how they count.

Knows none of the three. Events have a name and are JSON objects with a `type`; an error is an event too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import SabirError
from ..strict_json import decode_json, encode_json
from ..usage import NOTHING, Usage
from . import count_of, event_object, mapping_of
from .bodies import shown
from .failures import error_from_value, failure_object
from .leftovers import difference, without_nulls
from .media_formats import told

DONE = b"[DONE]"


def read_event(payload: bytes) -> dict[str, Any]:
    """An event's object, empty for the mark that ends some streams.

    Raises:
        SabirError: it is none, or tells of an error.
    """
    if payload.strip() == DONE:
        return {}
    event: dict[str, Any] = without_nulls(event_object(payload))
    if event.get("error") or event.get("type") == "error":
        raise error_from_value(None, {}, event, shown(payload))
    return event


def written_event(event: Mapping[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), encode_json(event))


def failure_event(error: SabirError) -> bytes:
    """An error that comes when the stream has begun."""
    return written_event({"type": "error", **decode_json(failure_object(error, in_stream=True)[1])})


def usage_of(wire: Any) -> Usage:
    """The counts of tokens. Mistral has the names of chat completions, and counts what was heard apart."""
    wire = mapping_of(wire)
    if not wire:
        return NOTHING
    read, total = count_of(wire.get("input_tokens", wire.get("prompt_tokens"))), count_of(wire.get("total_tokens"))
    written = count_of(wire.get("output_tokens", wire.get("completion_tokens")))
    heard = count_of(_details(wire).get("audio_tokens"))
    is_apart = None not in (read, written, heard, total) and (read or 0) + (written or 0) + (heard or 0) == total
    if read is not None and heard and not is_apart:
        read = max(0, read - heard)
    return Usage(input=read, input_audio=heard, output=written, reported_total=total)


def usage_object(usage: Usage) -> dict[str, Any]:
    """The counts as OpenAI writes them."""
    if usage == NOTHING:
        return {}
    total = usage.total_tokens if usage.reported_total is None else usage.reported_total
    heard = {"audio_tokens": usage.input_audio, "text_tokens": usage.input}
    details = told(heard.items()) if usage.input_audio is not None else None
    return told(
        (
            ("input_tokens", usage.input_tokens),
            ("input_token_details", details),
            ("output_tokens", usage.output_tokens),
            ("total_tokens", total),
        )
    )


def usage_patch(wire: Any, usage: Usage) -> dict[str, Any]:
    """What the counts say beyond ours."""
    return difference(mapping_of(without_nulls(wire)), usage_object(usage))


def _details(wire: Mapping[str, Any]) -> dict[str, Any]:
    names = ("input_token_details", "input_tokens_details", "prompt_tokens_details")
    return next((found for name in names if (found := mapping_of(wire.get(name)))), dict[str, Any]())
