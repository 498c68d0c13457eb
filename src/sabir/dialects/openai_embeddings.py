"""OpenAI embeddings, `POST /embeddings`, the format most servers of vectors speak. Knows no provider, only quirks.

Sources: https://platform.openai.com/docs/api-reference/embeddings and the recorded traffic of nine servers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..errors import ProviderError, SabirError, StreamProtocolError
from ..messages import ProviderState
from ..requests import HttpRequest, Notice
from ..strict_json import encode_json, is_array, is_object
from ..usage import NOTHING, Usage
from . import (
    EmbeddingRequest,
    EmbeddingResponse,
    EncodingFormat,
    InputType,
    Unsupported,
    Verdicts,
    count_of,
    mapping_of,
    text_of,
)
from .bodies import answer_of, converted, lowered, post, refused, request_of, shown
from .failures import failure_object, provider_error
from .leftovers import difference, own_state, patched, without_nulls
from .vectors import read_vectors, written_vectors

NAME = "openai_embeddings"

# The verdict on each portable parameter: the wire's word for it, or why there is none.
EMBEDDING_PARAMETERS: Verdicts = {
    "dimensions": "dimensions",
    "encoding_format": "encoding_format",
    "input_type": Unsupported("this format has no word for it; put what the model wants before each text yourself"),
    "user": "user",
}


_SAME: Mapping[InputType, str] = {"query": "query", "document": "document"}


@dataclass(frozen=True)
class OpenAIEmbeddings:
    """The dialect with the quirks of one kind of server.

    Attributes:
        parameters: the verdict on each portable parameter.
        encoding_unless_asked: how vectors are to travel where the caller says nothing; None leaves it to the server.
        says_float: whether floats have to be asked for by name; else they are what comes where nothing is asked.
        input_types: the words for what texts are embedded for.
        unasked: what every request has where the caller does not say otherwise.
        max_inputs: the most inputs of a request.
        max_bytes: the most bytes of text of a request. OpenAI's limit is 300,000 tokens, and none is less than a byte.
        dimensions_of: the length of a model's vectors, where it is known.
    """

    parameters: Verdicts = field(default_factory=lambda: EMBEDDING_PARAMETERS)
    encoding_unless_asked: EncodingFormat | None = None
    says_float: bool = True
    input_types: Mapping[InputType, str] = field(default_factory=lambda: _SAME)
    unasked: Mapping[str, Any] = field(default_factory=dict[str, Any])
    max_inputs: int | None = 2048
    max_bytes: int | None = 300_000
    dimensions_of: Mapping[str, int] = field(default_factory=dict[str, int])

    name = NAME

    def verdicts(self) -> Verdicts:
        """The verdict on every portable parameter."""
        return {**self.parameters, "extra": "(as given)", "headers": "(as given)"}

    def encode_request(self, request: EmbeddingRequest) -> tuple[HttpRequest, tuple[Notice, ...]]:
        body, notices = self._body(request)
        return post("/embeddings", body, request.headers), notices

    def decode_answer(self, body: bytes) -> EmbeddingResponse:
        wire = answer_of(body)
        if not is_object(wire) or not is_array(wire.get("data")):
            raise StreamProtocolError("the answer has no embeddings", body=shown(body))
        rows = _in_order(wire["data"])
        vectors, encoding = read_vectors([row.get("embedding") for row in rows])
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
        wire = self.canonical_request(request_of(body))
        words = {name: word for name, word in self.parameters.items() if not isinstance(word, Unsupported)}
        # Some servers have the model in their address.
        known = {"model": wire.get("model", ""), "inputs": wire.get("input")}
        known |= {name: wire[word] for name, word in words.items() if word in wire}
        # Servers have more words for this than ours, and the rest of them is left as it is.
        meant = {theirs: ours for ours, theirs in self.input_types.items()}
        if "input_type" in known:
            known["input_type"] = meant.get(str(known["input_type"]))
        request = converted(known, EmbeddingRequest, {**words, "inputs": "input"})
        if not request.inputs:
            raise refused("input", "at least one text is wanted")
        patch = difference(wire, self._body(request)[0])
        return msgspec.structs.replace(request, state=ProviderState(NAME, patch)) if patch else request

    def encode_response(self, response: EmbeddingResponse) -> bytes:
        state = own_state(response.state, NAME)
        patches = state.get("rows", {})
        rows = [
            patched({**_row(number), "embedding": vector}, patches.get(str(number), {}))
            for number, vector in enumerate(written_vectors(response.vectors, response.encoding_format))
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
        encoding = request.encoding_format or self.encoding_unless_asked
        asked = {
            "dimensions": request.dimensions,
            "encoding_format": None if encoding == "float" and not self.says_float else encoding,
            "input_type": self.input_types[request.input_type] if request.input_type else None,
            "user": request.user,
        }
        fields, notices = lowered(self.parameters, asked)
        body = {"model": request.model, "input": list(request.inputs), **self.unasked, **fields}
        body = patched(body, own_state(request.state, NAME))
        return {**body, **request.extra}, tuple(notices)


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
