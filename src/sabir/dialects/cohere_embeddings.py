"""Cohere's embeddings (`/embed`, version 2), both halves. Knows no provider, only quirks.

Sources: https://docs.cohere.com/reference/embed, the types of Cohere's Python SDK (7.3) and 9 recorded exchanges, most
of them of version 1, whose bodies are the same but for what may be left out. An input is a text, or an object with
`content` as version 2 has it. Cohere's models want to know what a text is for, and cut what is too long for them; so
two things are sent that nobody asked for, where nobody asks otherwise: `input_type: search_document` and `truncate:
NONE`, with which a text that is too long is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..errors import ProviderError, SabirError, StreamProtocolError, UnsupportedError
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
    list_of,
    mapping_of,
)
from .bodies import answer_of, converted, lowered, post, refused, request_of, shown
from .failures import provider_error, status_of
from .leftovers import difference, own_state, patched, without_nulls
from .vectors import read_vectors, written_vectors

NAME = "cohere_embeddings"

# The verdict on each portable parameter: the wire's word for it, or why there is none.
PARAMETERS: Verdicts = {
    "dimensions": "output_dimension",
    "encoding_format": "embedding_types",
    "input_type": "input_type",
    "user": Unsupported("this API has no field for your users; leave it out"),
}
_TYPES: Mapping[InputType, str] = {"query": "search_query", "document": "search_document"}
_MEANT = {theirs: ours for ours, theirs in _TYPES.items()}
_ENCODINGS: Mapping[str, EncodingFormat] = {"float": "float", "base64": "base64"}


@dataclass(frozen=True)
class CohereEmbeddings:
    """The dialect with the quirks of one kind of server.

    Attributes:
        max_inputs: the most inputs of a request.
        dimensions_of: the length of a model's vectors, where it is known.
    """

    max_inputs: int | None = 96
    max_bytes: int | None = None
    dimensions_of: Mapping[str, int] = field(default_factory=dict[str, int])

    name = NAME

    def verdicts(self) -> Verdicts:
        """The verdict on every portable parameter."""
        return {**PARAMETERS, "extra": "(as given)", "headers": "(as given)"}

    def encode_request(self, request: EmbeddingRequest) -> tuple[HttpRequest, tuple[Notice, ...]]:
        body, notices = self._body(request)
        return post("/embed", {**body, **request.extra}, request.headers), notices

    def decode_answer(self, body: bytes) -> EmbeddingResponse:
        wire = answer_of(body)
        given = without_nulls(wire.get("embeddings")) if is_object(wire) else None
        if is_array(given):
            # Version 1, asked for no type.
            kind, rows, others = None, given, dict[str, Any]()
        elif is_object(given) and given:
            # One type is asked for, and of more the first that we know is ours.
            kind = next((name for name in _ENCODINGS if name in given), next(iter(given)))
            rows, others = list_of(given[kind]), {name: each for name, each in given.items() if name != kind}
        else:
            raise StreamProtocolError("the answer has no embeddings", body=shown(body))
        vectors, encoding = read_vectors(rows)
        usage = _usage(mapping_of(wire.get("meta")))
        response = EmbeddingResponse(vectors=vectors, usage=usage, encoding_format=encoding)
        state: dict[str, Any] = {} if kind == encoding else {"kind": kind}
        if others:
            state["others"] = others
        beside = without_nulls({name: value for name, value in wire.items() if name != "embeddings"})
        if patch := difference(beside, _answer(response)):
            state["answer"] = patch
        return msgspec.structs.replace(response, state=ProviderState(NAME, state)) if state else response

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return provider_error(status, headers, body)

    def decode_request(self, body: bytes) -> EmbeddingRequest:
        wire = self.canonical_request(request_of(body))
        given = next((name for name in ("texts", "inputs", "images") if wire.get(name)), "texts")
        inputs = wire.get(given)
        if given == "images":
            inputs = [_image(url) for url in list_of(inputs)]
        types = list_of(wire.get("embedding_types"))
        known = {
            "model": wire.get("model"),
            "inputs": inputs,
            "dimensions": wire.get("output_dimension"),
            "encoding_format": _ENCODINGS.get(str(types[0])) if types else None,
            "input_type": _MEANT.get(str(wire.get("input_type"))),
        }
        request = converted(known, EmbeddingRequest, {"inputs": given, "dimensions": "output_dimension"})
        if not request.inputs:
            raise refused("texts", "at least one text is wanted")
        if strange := [each for each in request.inputs if isinstance(each, str) is not (given == "texts")]:
            raise refused(given, f"of these {type(strange[0]).__name__} is none")
        patch = difference(wire, self._body(request)[0])
        return msgspec.structs.replace(request, state=ProviderState(NAME, patch)) if patch else request

    def encode_response(self, response: EmbeddingResponse) -> bytes:
        state = own_state(response.state, NAME)
        kind = state.get("kind", response.encoding_format)
        rows = written_vectors(response.vectors, response.encoding_format)
        embeddings = rows if kind is None else {kind: rows, **state.get("others", {})}
        return encode_json({**patched(_answer(response), state.get("answer", {})), "embeddings": embeddings})

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        fields = {"message": error.message, **({"code": error.code} if error.code else {})}
        return status_of(error), encode_json(fields)

    def canonical_request(self, body: dict[str, Any]) -> dict[str, Any]:
        """Null is the same as absent."""
        wire: dict[str, Any] = without_nulls(body)
        return wire

    def canonical_answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Null is the same as absent."""
        wire: dict[str, Any] = without_nulls(body)
        return wire

    def _body(self, request: EmbeddingRequest) -> tuple[dict[str, Any], tuple[Notice, ...]]:
        asked = {
            "dimensions": request.dimensions,
            "encoding_format": [request.encoding_format or "float"],
            "input_type": _TYPES[request.input_type or "document"],
            "user": request.user,
        }
        fields, notices = lowered(PARAMETERS, asked)
        body = {"model": request.model, **_inputs(request.inputs), **fields, "truncate": "NONE"}
        return patched(body, own_state(request.state, NAME)), tuple(notices)


def _inputs(inputs: Sequence[str | list[int] | dict[str, Any]]) -> dict[str, Any]:
    if any(isinstance(each, list) for each in inputs):
        raise UnsupportedError("Cohere embeds texts and images, and no lists of token ids")
    if all(isinstance(each, str) for each in inputs):
        return {"texts": list(inputs)}
    return {
        "inputs": [{"content": [{"type": "text", "text": each}]} if isinstance(each, str) else each for each in inputs]
    }


def _image(url: Any) -> dict[str, Any]:
    return {"content": [{"type": "image_url", "image_url": {"url": url}}]}


def _usage(meta: dict[str, Any]) -> Usage:
    billed = mapping_of(meta.get("billed_units"))
    counts = [count_of(billed.get(name)) for name in ("input_tokens", "image_tokens")]
    known = [count for count in counts if count is not None]
    return Usage(input=sum(known) if known else None)


def _answer(response: EmbeddingResponse) -> dict[str, Any]:
    """What we understand of an answer beside its vectors, as its wire object."""
    answer: dict[str, Any] = {"response_type": "embeddings_by_type"}
    if response.usage != NOTHING:
        answer["meta"] = {"billed_units": {"input_tokens": response.usage.input_tokens}}
    return answer
