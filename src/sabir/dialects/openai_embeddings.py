"""OpenAI embeddings, `POST /embeddings`, the format most servers of vectors speak. Knows no provider, only quirks.

Sources: https://platform.openai.com/docs/api-reference/embeddings and the recorded traffic of nine servers. A vector
travels as a list of numbers or as base64 of its 32-bit floats, little-endian, which costs a seventh to read.
"""

from __future__ import annotations

import sys
from array import array
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from struct import pack
from typing import Any, cast

import msgspec

from ..errors import BadRequestError, ProviderError, SabirError, ServerError, StreamProtocolError
from ..messages import ProviderState
from ..requests import HttpRequest, Notice
from ..strict_json import decode_json, encode_json, is_array, is_object
from ..usage import NOTHING, Usage
from . import (
    EmbeddingRequest,
    EmbeddingResponse,
    EncodingFormat,
    Unsupported,
    Verdicts,
    count_of,
    mapping_of,
    text_of,
)
from .failures import error_from_value, failure_object, provider_error
from .leftovers import difference, own_state, patched, without_nulls

NAME = "openai_embeddings"

# The verdict on each portable parameter: the wire's word for it, or why there is none.
EMBEDDING_PARAMETERS: Verdicts = {
    "dimensions": "dimensions",
    "encoding_format": "encoding_format",
    "user": "user",
}


@dataclass(frozen=True)
class OpenAIEmbeddings:
    """The dialect with the quirks of one kind of server.

    Attributes:
        parameters: the verdict on each portable parameter.
        encoding_unless_asked: how vectors are to travel where the caller says nothing; None leaves it to the server.
        max_inputs: the most inputs of a request.
        max_bytes: the most bytes of text of a request. OpenAI's limit is 300,000 tokens, and none is less than a byte.
        dimensions_of: the length of a model's vectors, where it is known.
    """

    parameters: Verdicts = field(default_factory=lambda: EMBEDDING_PARAMETERS)
    encoding_unless_asked: EncodingFormat | None = None
    max_inputs: int | None = 2048
    max_bytes: int | None = 300_000
    dimensions_of: Mapping[str, int] = field(default_factory=dict[str, int])

    name = NAME

    def verdicts(self) -> Verdicts:
        """The verdict on every portable parameter."""
        return {**self.parameters, "extra": "(as given)", "headers": "(as given)"}

    def encode_request(self, request: EmbeddingRequest) -> tuple[HttpRequest, tuple[Notice, ...]]:
        body, notices = self._body(request)
        headers = (("content-type", "application/json"), *request.headers.items())
        return HttpRequest("POST", "/embeddings", headers, encode_json(body)), notices

    def decode_answer(self, body: bytes) -> EmbeddingResponse:
        shown = body[:10_000].decode("utf-8", "replace")
        try:
            wire = decode_json(body)
        except ValueError as error:
            raise ServerError(f"the answer is no JSON: {error}", status=200, body=shown) from None
        if mapping_of(wire).get("error"):
            raise error_from_value(None, {}, wire, shown)
        if not is_object(wire) or not is_array(wire.get("data")):
            raise StreamProtocolError("the answer has no embeddings", body=shown)
        rows = _in_order(wire["data"])
        vectors, encoding = _vectors(rows)
        response = EmbeddingResponse(
            vectors=vectors,
            usage=_usage(mapping_of(wire.get("usage"))),
            model=text_of(wire.get("model")),
            encoding_format=encoding,
        )
        state = _leftovers(wire, rows, response)
        return msgspec.structs.replace(response, state=ProviderState(NAME, state)) if state else response

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return provider_error(status, headers, body)

    def decode_request(self, body: bytes) -> EmbeddingRequest:
        try:
            value = decode_json(body)
        except ValueError as error:
            raise BadRequestError(f"the body is no JSON: {error}", status=400) from None
        if not is_object(value):
            raise BadRequestError("the body is no JSON object", status=400)
        wire = self.canonical_request(value)
        words = {name: word for name, word in self.parameters.items() if not isinstance(word, Unsupported)}
        # Some servers have the model in their address.
        known = {"model": wire.get("model", ""), "inputs": wire.get("input")}
        known |= {name: wire[word] for name, word in words.items() if word in wire}
        try:
            request = msgspec.convert(known, EmbeddingRequest)
        except msgspec.ValidationError as error:
            what, _, where = str(error).partition(" - at `$.")
            raise _refused(where.rstrip("`").replace("inputs", "input"), what) from None
        if not request.inputs:
            raise _refused("input", "at least one text is wanted")
        patch = difference(wire, self._body(request)[0])
        return msgspec.structs.replace(request, state=ProviderState(NAME, patch)) if patch else request

    def encode_response(self, response: EmbeddingResponse) -> bytes:
        state = own_state(response.state, NAME)
        patches = state.get("rows", {})
        rows = [
            patched({**_row(number), "embedding": vector}, patches.get(str(number), {}))
            for number, vector in enumerate(_encoded(response))
        ]
        return encode_json({**patched(_answer(response), state.get("answer", {})), "data": rows})

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        return failure_object(error)

    def canonical_request(self, body: dict[str, Any]) -> dict[str, Any]:
        """Null is the same as absent; one input is the same as a list of one."""
        wire: dict[str, Any] = without_nulls(body)
        given = wire.get("input")
        is_one = isinstance(given, str) or (is_array(given) and bool(given) and type(given[0]) is int)
        return {**wire, "input": [given]} if is_one else wire

    def canonical_answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Null is the same as absent; rows may come in any order, and without an index are in the inputs'."""
        wire: dict[str, Any] = without_nulls(body)
        if not is_array(wire.get("data")):
            return wire
        return {**wire, "data": [{**row, "index": number} for number, row in enumerate(_in_order(wire["data"]))]}

    def _body(self, request: EmbeddingRequest) -> tuple[dict[str, Any], tuple[Notice, ...]]:
        body: dict[str, Any] = {"model": request.model, "input": list(request.inputs)}
        asked = {
            "dimensions": request.dimensions,
            "encoding_format": request.encoding_format or self.encoding_unless_asked,
            "user": request.user,
        }
        notices: list[Notice] = []
        for parameter, value in asked.items():
            verdict = self.parameters[parameter]
            if value is None:
                continue
            if isinstance(verdict, Unsupported):
                notices.append(Notice("unsupported", parameter, f"{parameter} was not sent: {verdict}"))
            else:
                body[verdict] = value
        body = patched(body, own_state(request.state, NAME))
        return {**body, **request.extra}, tuple(notices)


def _refused(where: str, what: str) -> BadRequestError:
    return BadRequestError(f"{where}: {what}", status=400, code="invalid_request_error")


def _in_order(rows: list[Any]) -> list[dict[str, Any]]:
    """The rows in the order of the inputs; where none has an index, that is the order in which they came."""
    if not all(map(is_object, rows)):
        raise StreamProtocolError("an embedding is no JSON object")
    numbers = [row.get("index") for row in rows]
    if numbers == [*range(len(rows))] or not any(number is not None for number in numbers):
        return rows
    if len(set(map(repr, numbers))) < len(numbers):
        twice = next(number for place, number in enumerate(numbers) if number in numbers[:place])
        raise StreamProtocolError(f"two embeddings have the index {twice!r}, so that one is missing")
    if strange := [number for number in numbers if type(number) is not int or not 0 <= number < len(rows)]:
        raise StreamProtocolError(f"of {len(rows)} embeddings one has the index {strange[0]!r}, so that one is missing")
    return sorted(rows, key=lambda row: row["index"])


def _vectors(rows: Sequence[dict[str, Any]]) -> tuple[list[list[float]], EncodingFormat]:
    """The vectors, and how they came: a server may answer floats although base64 was asked for."""
    wire = [row.get("embedding") for row in rows]
    try:
        if wire and isinstance(wire[0], str):
            return [_unpacked(cast("str", text)) for text in wire], "base64"
        vectors = msgspec.convert(wire, list[list[float]])
    except (TypeError, ValueError) as error:
        raise StreamProtocolError(f"an embedding is no vector: {error}") from None
    if not all(vectors):
        raise StreamProtocolError("an embedding is an empty vector")
    return vectors, "float"


def _unpacked(text: str) -> list[float]:
    floats = array("f")
    floats.frombytes(a2b_base64(text, strict_mode=True))
    if sys.byteorder == "big":
        floats.byteswap()
    vector = floats.tolist()
    # JSON cannot say these, and no search in a store would find such a vector; a sum keeps both.
    if not vector or not isfinite(sum(vector)):
        raise ValueError("it is empty, or not all its numbers are finite")
    return vector


def _encoded(response: EmbeddingResponse) -> list[Any]:
    if response.encoding_format == "float":
        return list(response.vectors)
    try:
        packed = (pack(f"<{len(vector)}f", *vector) for vector in response.vectors)
        return [b2a_base64(data, newline=False).decode() for data in packed]
    except OverflowError:
        raise ValueError("a number of a vector is too large for 32 bits; answer with encoding_format='float'") from None


def _row(number: int) -> dict[str, Any]:
    return {"object": "embedding", "index": number}


def _answer(response: EmbeddingResponse) -> dict[str, Any]:
    """What we understand of an answer beside its rows, as its wire object."""
    answer: dict[str, Any] = {"object": "list", "model": response.model}
    if response.usage != NOTHING:
        usage = response.usage
        total = usage.total_tokens if usage.reported_total is None else usage.reported_total
        answer["usage"] = {"prompt_tokens": usage.input_tokens, "total_tokens": total}
    return answer


def _usage(wire: dict[str, Any]) -> Usage:
    # Voyage tells the total only, and there is nothing in it but the input.
    prompt, total = count_of(wire.get("prompt_tokens")), count_of(wire.get("total_tokens"))
    return Usage(input=total if prompt is None else prompt, reported_total=total)


def _leftovers(
    wire: dict[str, Any], rows: Sequence[dict[str, Any]], response: EmbeddingResponse
) -> dict[str, dict[str, Any]]:
    """What an answer said beyond our words, as patches of it and of its rows."""
    beside = {name: value for name, value in wire.items() if name != "data"}
    answer = difference(beside, _answer(response))
    patches = {
        str(number): patch
        for number, row in enumerate(rows)
        if (len(row) != 3 or row.get("object") != "embedding") and (patch := _row_leftovers(row, number))
    }
    return {**({"answer": answer} if answer else {}), **({"rows": patches} if patches else {})}


def _row_leftovers(row: dict[str, Any], number: int) -> dict[str, Any]:
    beside = {name: value for name, value in row.items() if name != "embedding"}
    return difference({**beside, "index": number}, _row(number))
