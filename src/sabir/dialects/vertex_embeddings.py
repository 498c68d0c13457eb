"""Embeddings of Vertex AI's older models (`:predict`), both halves. Knows no provider, only quirks.

Sources: https://docs.cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api and google-genai
3.4, which asks in this format where a model's id has neither "gemini" nor "maas" in it. An input is an instance with a
text as its `content`; what else an instance has goes along. The model stands in the address. These models cut a text
that is too long unless told not to, and are told so where a caller does not say otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from ..errors import NotFoundError, ProviderError, SabirError, StreamProtocolError, UnsupportedError
from ..messages import ProviderState
from ..requests import HttpRequest, Notice
from ..strict_json import encode_json, is_array, is_object
from ..usage import Usage
from . import EmbeddingRequest, EmbeddingResponse, InputType, Unsupported, Verdicts, count_of, mapping_of
from .bodies import answer_of, converted, lowered, post, refused, request_of, shown
from .gemini import Gemini
from .leftovers import difference, own_state, patched, without_nulls
from .vectors import read_vectors, written_vectors

NAME = "vertex_embeddings"

# The verdict on each portable parameter: the wire's word for it, or why there is none.
PARAMETERS: Verdicts = {
    "dimensions": "outputDimensionality",
    "encoding_format": Unsupported("this API gives numbers; leave it out"),
    "input_type": "task_type",
    "user": Unsupported("this API has no field for your users; leave it out"),
}
_TASKS: Mapping[InputType, str] = {"query": "RETRIEVAL_QUERY", "document": "RETRIEVAL_DOCUMENT"}
_MEANT = {theirs: ours for ours, theirs in _TASKS.items()}
# Errors are those of Google's conversations.
_CHAT = Gemini()


@dataclass(frozen=True)
class VertexEmbeddings:
    """The dialect with the quirks of one kind of server.

    Attributes:
        unasked: the parameters of a request where the caller does not say otherwise.
        max_inputs: the most inputs of a request.
        dimensions_of: the length of a model's vectors, where it is known.
    """

    unasked: Mapping[str, Any] = field(default_factory=lambda: {"autoTruncate": False})
    max_inputs: int | None = 250
    max_bytes: int | None = None
    dimensions_of: Mapping[str, int] = field(default_factory=dict[str, int])

    name = NAME

    def verdicts(self) -> Verdicts:
        """The verdict on every portable parameter."""
        return {**PARAMETERS, "extra": "(as given)", "headers": "(as given)"}

    def encode_request(self, request: EmbeddingRequest) -> tuple[HttpRequest, tuple[Notice, ...]]:
        body, notices = self._body(request)
        return post(f"/models/{quote(request.model)}:predict", {**body, **request.extra}, request.headers), notices

    def decode_answer(self, body: bytes) -> EmbeddingResponse:
        wire = answer_of(body)
        answer = self.canonical_answer(wire) if is_object(wire) else {}
        rows = answer.get("predictions")
        if not is_array(rows) or not all(is_object(row) and is_object(row.get("embeddings")) for row in rows):
            raise StreamProtocolError("the answer has no embeddings", body=shown(body))
        vectors, encoding = read_vectors([row["embeddings"].get("values") for row in rows])
        if encoding != "float":
            raise StreamProtocolError("an embedding is no vector: it is a text", body=shown(body))
        tokens = [count_of(mapping_of(row["embeddings"].get("statistics")).get("token_count")) for row in rows]
        known = [count for count in tokens if count is not None]
        response = EmbeddingResponse(vectors=vectors, usage=Usage(input=sum(known) if known else None))
        state: dict[str, Any] = {}
        if beside := {name: value for name, value in answer.items() if name != "predictions"}:
            state["answer"] = beside
        if patches := {str(number): patch for number, row in enumerate(rows) if (patch := _beside_values(row))}:
            state["rows"] = patches
        return msgspec.structs.replace(response, state=ProviderState(NAME, state)) if state else response

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return _CHAT.decode_error(status, headers, body)

    def decode_path(self, path: str) -> str:
        """The model that a request's path names.

        Raises:
            NotFoundError: it is no path of this format.
        """
        found = re.fullmatch(r"(?:.*/)?([^/:]+):predict", path.partition("?")[0])
        if found is None:
            raise NotFoundError(f"nothing is served at {path}; ask /models/MODEL:predict", status=404)
        return unquote(found[1])

    def decode_request(self, body: bytes) -> EmbeddingRequest:
        """A client's request, strictly. It names no model: `decode_path` has it."""
        wire = self.canonical_request(request_of(body))
        instances, parameters = wire.get("instances"), wire.get("parameters", {})
        if not is_array(instances) or not instances:
            raise refused("instances", "at least one is wanted")
        for number, each in enumerate(instances):
            if not is_object(each) or not isinstance(each.get("content"), str):
                raise refused(f"instances[{number}].content", "a text is wanted")
        if not is_object(parameters):
            raise refused("parameters", "an object is wanted")
        if type(length := parameters.get("outputDimensionality", 1)) is not int or length < 1:
            raise refused("parameters.outputDimensionality", "a whole number of at least 1 is wanted")
        # What the first of them says is said of all; where another says otherwise, that stands in its patch.
        known = {
            "model": "",
            "inputs": [each["content"] for each in instances],
            "dimensions": parameters.get("outputDimensionality"),
            "input_type": _MEANT.get(str(instances[0].get("task_type"))),
        }
        request = converted(known, EmbeddingRequest, {})
        ours = self._body(request)[0]
        patches = {
            "instances": {
                str(number): patch
                for number, each in enumerate(instances)
                if (patch := difference(each, ours["instances"][number]))
            },
            "parameters": difference(parameters, ours.get("parameters", {})),
            "body": {name: value for name, value in wire.items() if name not in ("instances", "parameters")},
        }
        state = {name: patch for name, patch in patches.items() if patch}
        return msgspec.structs.replace(request, state=ProviderState(NAME, state)) if state else request

    def encode_response(self, response: EmbeddingResponse) -> bytes:
        state = own_state(response.state, NAME)
        more = state.get("rows", {})
        predictions = [
            _with_values(more.get(str(number), {}), vector)
            for number, vector in enumerate(written_vectors(response.vectors, "float"))
        ]
        return encode_json({"predictions": predictions, **state.get("answer", {})})

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        return _CHAT.encode_error(error)

    def canonical_request(self, body: dict[str, Any]) -> dict[str, Any]:
        """Null is the same as absent, and so is an object of parameters without any."""
        wire: dict[str, Any] = without_nulls(body)
        return {name: value for name, value in wire.items() if name != "parameters" or value != {}}

    def canonical_answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Null is the same as absent."""
        answer: dict[str, Any] = without_nulls(body)
        return answer

    def _body(self, request: EmbeddingRequest) -> tuple[dict[str, Any], tuple[Notice, ...]]:
        state = own_state(request.state, NAME)
        asked = {
            "dimensions": request.dimensions,
            "encoding_format": None if request.encoding_format == "float" else request.encoding_format,
            "input_type": _TASKS[request.input_type] if request.input_type else None,
            "user": request.user,
        }
        fields, notices = lowered(PARAMETERS, asked)
        task = {name: fields.pop(name) for name in ("task_type",) if name in fields}
        patches = state.get("instances", {})
        instances = [
            patched({**_instance(value), **task}, patches.get(str(number), {}))
            for number, value in enumerate(request.inputs)
        ]
        parameters = patched({**self.unasked, **fields}, state.get("parameters", {}))
        body = {"instances": instances, **({"parameters": parameters} if parameters else {}), **state.get("body", {})}
        return body, tuple(notices)


def _instance(value: str | Sequence[int] | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(value, str):
        return {"content": value}
    if isinstance(value, Mapping):
        return dict(value)
    raise UnsupportedError("Vertex AI embeds texts and instances, and no lists of token ids")


def _beside_values(row: dict[str, Any]) -> dict[str, Any]:
    """What a prediction says beside its vector."""
    beside = {name: value for name, value in row.items() if name != "embeddings"}
    embeddings = {name: value for name, value in row["embeddings"].items() if name != "values"}
    return {**beside, **({"embeddings": embeddings} if embeddings else {})}


def _with_values(beside: dict[str, Any], vector: list[float]) -> dict[str, Any]:
    return {**beside, "embeddings": {"values": vector, **beside.get("embeddings", {})}}
