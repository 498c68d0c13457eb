"""Bodies of formats that are asked once and answer once (embeddings, rankings): what all of them do alike.

Knows no format: what stands in a body is for the dialects to say, whether it is one at all is said here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from ..errors import BadRequestError, ServerError
from ..requests import HttpRequest, Notice
from ..strict_json import decode_json, encode_json, is_object
from . import Unsupported, Verdicts, mapping_of
from .failures import error_from_value

AskedT = TypeVar("AskedT")


def post(path: str, body: dict[str, Any], headers: Mapping[str, str]) -> HttpRequest:
    """The request that sends this body to this path."""
    return HttpRequest("POST", path, (("content-type", "application/json"), *headers.items()), encode_json(body))


def lowered(verdicts: Verdicts, asked: Mapping[str, Any]) -> tuple[dict[str, Any], list[Notice]]:
    """The fields of what was asked, by the verdicts' words, and what there is no word for; None is not asked."""
    fields: dict[str, Any] = {}
    notices: list[Notice] = []
    for parameter, value in asked.items():
        verdict = verdicts[parameter]
        if value is not None and isinstance(verdict, Unsupported):
            notices.append(Notice("unsupported", parameter, f"{parameter} was not sent: {verdict}"))
        elif value is not None:
            fields[verdict] = value
    return fields, notices


def shown(body: bytes) -> str:
    """As much of a body as stands on an error."""
    return body[:10_000].decode("utf-8", "replace")


def answer_of(body: bytes) -> Any:
    """The JSON of an answer.

    Raises:
        ProviderError: it is none, or an error that came with status 200.
    """
    try:
        wire = decode_json(body)
    except ValueError as error:
        raise ServerError(f"the answer is no JSON: {error}", status=200, body=shown(body)) from None
    if mapping_of(wire).get("error"):
        raise error_from_value(None, {}, wire, shown(body))
    return wire


def request_of(body: bytes) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        BadRequestError: it is none.
    """
    try:
        value = decode_json(body)
    except ValueError as error:
        raise BadRequestError(f"the body is no JSON: {error}", status=400) from None
    if not is_object(value):
        raise BadRequestError("the body is no JSON object", status=400)
    return value


def converted(known: dict[str, Any], kind: type[AskedT], words: Mapping[str, str]) -> AskedT:
    """The request that these fields make; `words` are the wire's names of ours, where they differ.

    Raises:
        BadRequestError: a field has a value that it cannot have; says where, in the wire's names.
    """
    try:
        return msgspec.convert(known, kind)
    except (msgspec.ValidationError, UnicodeError) as error:
        what, _, where = str(error).partition(" - at `$.")
        place = where.rstrip("`")
        for ours, theirs in words.items():
            if place.startswith(ours):
                place = theirs + place.removeprefix(ours)
                break
        raise refused(place, what) from None


def refused(where: str, what: str) -> BadRequestError:
    """A request that the format does not allow."""
    return BadRequestError(f"{where}: {what}", status=400, code="invalid_request_error")
