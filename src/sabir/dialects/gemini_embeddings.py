"""Gemini's embeddings (`batchEmbedContents` and `embedContent`), both halves. Knows no provider, only quirks.

Sources: https://ai.google.dev/api/embeddings, the types of Google's Python SDK (google-genai 3.4) and 12 recorded
exchanges. An input is a content with one part of text; whatever else a content has, it is one input and one vector. The
body of `embedContent` is one request of a batch, without the batch around it. The model stands in the address, and what
a caller says in `extra` in every request of a batch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote, unquote

import msgspec

from ..errors import NotFoundError, ProviderError, SabirError, StreamProtocolError, UnsupportedError
from ..messages import ProviderState
from ..requests import HttpRequest, Notice
from ..strict_json import encode_json, is_array, is_object
from ..usage import NOTHING, Usage
from . import (
    EmbeddingRequest,
    EmbeddingResponse,
    InputType,
    Unsupported,
    Verdicts,
    count_of,
    list_of,
    mapping_of,
)
from .bodies import answer_of, converted, lowered, post, refused, request_of, shown
from .gemini import Gemini
from .leftovers import difference, own_state, patched, without_nulls
from .vectors import read_vectors, written_vectors

NAME = "gemini_embeddings"

Method = Literal["batchEmbedContents", "embedContent"]

# The verdict on each portable parameter: the wire's word for it, or why there is none.
PARAMETERS: Verdicts = {
    "dimensions": "outputDimensionality",
    "encoding_format": Unsupported("this API gives numbers; leave it out"),
    "input_type": "taskType",
    "user": Unsupported("this API has no field for your users; leave it out"),
}
_TASKS: Mapping[InputType, str] = {"query": "RETRIEVAL_QUERY", "document": "RETRIEVAL_DOCUMENT"}
_MEANT = {theirs: ours for ours, theirs in _TASKS.items()}
# What models want before a text, which pass over taskType without a word.
_PREFIXES: Mapping[InputType, str] = {"query": "task: search result | query: ", "document": "title: none | text: "}
# Contents and errors are those of its conversations.
_CHAT = Gemini()


@dataclass(frozen=True)
class GeminiEmbeddings:
    """The dialect with the quirks of one kind of server.

    Attributes:
        method: what is asked; of `embedContent` a request has one input.
        config: the field of a request in which options stand; None if they stand beside the content.
        unasked: the options of every request where the caller does not say otherwise.
        prefixed: how the ids of models begin that know what a text is for by what stands before it, not by taskType.
        max_inputs: the most inputs of a request.
        dimensions_of: the length of a model's vectors, where it is known.
    """

    method: Method = "batchEmbedContents"
    config: str | None = None
    unasked: Mapping[str, Any] = field(default_factory=dict[str, Any])
    prefixed: tuple[str, ...] = ("gemini-embedding-2",)
    max_inputs: int | None = 100
    max_bytes: int | None = None
    dimensions_of: Mapping[str, int] = field(default_factory=dict[str, int])

    name = NAME

    def verdicts(self) -> Verdicts:
        """The verdict on every portable parameter."""
        return {**PARAMETERS, "extra": "(as given)", "headers": "(as given)"}

    def encode_request(self, request: EmbeddingRequest) -> tuple[HttpRequest, tuple[Notice, ...]]:
        body, notices = self._body(request)
        model = request.model if "/" in request.model else f"models/{request.model}"
        method = own_state(request.state, NAME).get("method", self.method)
        return post(f"/{quote(model)}:{method}", body, request.headers), notices

    def decode_answer(self, body: bytes) -> EmbeddingResponse:
        wire = answer_of(body)
        answer = self.canonical_answer(wire) if is_object(wire) else {}
        method: Method = "embedContent" if "embedding" in answer else "batchEmbedContents"
        rows = [answer["embedding"]] if "embedding" in answer else answer.get("embeddings")
        if not is_array(rows) or not all(map(is_object, rows)):
            raise StreamProtocolError("the answer has no embeddings", body=shown(body))
        vectors, encoding = read_vectors([row.get("values") for row in rows])
        if encoding != "float":
            raise StreamProtocolError("an embedding is no vector: it is a text", body=shown(body))
        response = EmbeddingResponse(vectors=vectors, usage=_usage(mapping_of(answer.get("usageMetadata"))))
        beside = {name: value for name, value in answer.items() if name not in ("embedding", "embeddings")}
        state: dict[str, Any] = {"method": method} if method != self.method else {}
        state |= _kept("answer", difference(beside, _answer(response)))
        patches = {
            str(number): {name: value for name, value in row.items() if name != "values"}
            for number, row in enumerate(rows)
            if len(row) > 1
        }
        state |= _kept("rows", patches)
        return msgspec.structs.replace(response, state=ProviderState(NAME, state)) if state else response

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return _CHAT.decode_error(status, headers, body)

    def decode_path(self, path: str) -> tuple[str, Method]:
        """The model that a request's path names, and what is asked of it.

        Raises:
            NotFoundError: it is no path of this format.
        """
        found = re.fullmatch(r"(?:.*/)?([^/:]+):(batchEmbedContents|embedContent)", path.partition("?")[0])
        if found is None:
            raise NotFoundError(f"nothing is served at {path}; ask /models/MODEL:batchEmbedContents", status=404)
        return unquote(found[1]), "embedContent" if found[2] == "embedContent" else "batchEmbedContents"

    def decode_request(self, body: bytes) -> EmbeddingRequest:
        """A client's request, strictly. `embedContent` names no model: `decode_path` has it."""
        wire = self.canonical_request(request_of(body))
        method: Method = "batchEmbedContents" if "requests" in wire else "embedContent"
        asked = wire.get("requests", [wire])
        if not is_array(asked) or not asked:
            raise refused("requests", "at least one is wanted")
        for number, each in enumerate(asked):
            if not is_object(each) or not is_array(mapping_of(each.get("content")).get("parts")):
                raise refused(f"requests[{number}].content", "a content with parts is wanted")
            if type(length := self._options(each).get("outputDimensionality", 1)) is not int or length < 1:
                raise refused(f"requests[{number}].outputDimensionality", "a whole number of at least 1 is wanted")
        # What the first of them says is said of all; where another says otherwise, that stands in its patch.
        first: dict[str, Any] = asked[0]
        options = self._options(first)
        known = {
            "model": first["model"].removeprefix("models/") if isinstance(first.get("model"), str) else "",
            "inputs": [_input(each["content"]) for each in asked],
            "dimensions": options.get("outputDimensionality"),
            "input_type": _MEANT.get(str(options.get("taskType"))),
        }
        # What was asked by a word is answered by a word, whatever the model.
        how: dict[str, Any] = {"method": method, "is_worded": True}
        request = converted({**known, "state": {"dialect": NAME, "value": how}}, EmbeddingRequest, {})
        ours = self._asked(request, self._fields(request)[0])
        patches = {str(number): patch for number, each in enumerate(asked) if (patch := _patch(each, ours[number]))}
        beside = {name: value for name, value in wire.items() if name != "requests"} if "requests" in wire else {}
        state = {**how, **_kept("requests", patches), **_kept("body", beside)}
        if method == self.method:
            del state["method"]
        if request.input_type is None or not self._wants_prefix(request.model):
            del state["is_worded"]
        return msgspec.structs.replace(request, state=ProviderState(NAME, state) if state else None)

    def encode_response(self, response: EmbeddingResponse) -> bytes:
        state = own_state(response.state, NAME)
        more = state.get("rows", {})
        rows = [
            {"values": vector, **more.get(str(number), {})}
            for number, vector in enumerate(written_vectors(response.vectors, "float"))
        ]
        is_single = state.get("method", self.method) == "embedContent" and len(rows) == 1
        embeddings: dict[str, Any] = {"embedding": rows[0]} if is_single else {"embeddings": rows}
        return encode_json({**embeddings, **patched(_answer(response), state.get("answer", {}))})

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        return _CHAT.encode_error(error)

    def canonical_request(self, body: dict[str, Any]) -> dict[str, Any]:
        """Null is absent, and a field in snake case is the one in camel case, in contents as in conversations'."""
        wire = _camel(without_nulls(body))
        if is_array(asked := wire.get("requests")):
            return {**wire, "requests": [_canonical(each) for each in asked]}
        canonical: dict[str, Any] = _canonical(wire)
        return canonical

    def canonical_answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Null is the same as absent."""
        answer: dict[str, Any] = without_nulls(body)
        return answer

    def _body(self, request: EmbeddingRequest) -> tuple[dict[str, Any], tuple[Notice, ...]]:
        state = own_state(request.state, NAME)
        fields, notices = self._fields(request)
        patches = state.get("requests", {})
        asked = [
            {**_patched(each, patches.get(str(number), {})), **request.extra}
            for number, each in enumerate(self._asked(request, fields))
        ]
        if state.get("method", self.method) == "embedContent":
            if len(asked) != 1:
                raise UnsupportedError(f"embedContent takes one input, and these are {len(asked)}")
            return asked[0], tuple(notices)
        return {"requests": asked, **state.get("body", {})}, tuple(notices)

    def _fields(self, request: EmbeddingRequest) -> tuple[dict[str, Any], list[Notice]]:
        """What every request of a batch has, and what was lowered."""
        is_prefixed = self._is_prefixed(request)
        asked = {
            "dimensions": request.dimensions,
            "encoding_format": None if request.encoding_format == "float" else request.encoding_format,
            "input_type": _TASKS[request.input_type] if request.input_type and not is_prefixed else None,
            "user": request.user,
        }
        fields, notices = lowered(PARAMETERS, asked)
        if is_prefixed and request.input_type:
            text = f"{request.model} passes over taskType; {_PREFIXES[request.input_type]!r} was put before each text"
            notices.append(Notice("emulated", "input_type", text))
        return fields, notices

    def _asked(self, request: EmbeddingRequest, fields: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The requests of a batch, as they follow from our words."""
        prefix = _PREFIXES[request.input_type] if request.input_type and self._is_prefixed(request) else ""
        # In embedContent the model stands in the address alone.
        is_batch = own_state(request.state, NAME).get("method", self.method) == "batchEmbedContents"
        model = {"model": request.model if "/" in request.model else f"models/{request.model}"} if is_batch else {}
        options: Mapping[str, Any] = {**self.unasked, **fields}
        if self.config is not None:
            options = {self.config: options} if options else {}
        return [{**model, "content": _content(value, prefix), **options} for value in request.inputs]

    def _options(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What a request of a batch says of the vectors that it wants, wherever that stands."""
        return {**asked, **mapping_of(asked.get(self.config))} if self.config is not None else asked

    def _is_prefixed(self, request: EmbeddingRequest) -> bool:
        return self._wants_prefix(request.model) and not own_state(request.state, NAME).get("is_worded")

    def _wants_prefix(self, model: str) -> bool:
        return model.rpartition("/")[2].startswith(self.prefixed)


def _kept(name: str, patch: dict[str, Any]) -> dict[str, Any]:
    return {name: patch} if patch else {}


def _camel(object_: dict[str, Any]) -> dict[str, Any]:
    return {re.sub(r"_([a-z])", lambda found: found[1].upper(), name): value for name, value in object_.items()}


def _canonical(asked: Any) -> Any:
    if not is_object(asked):
        return asked
    asked = _camel(asked)
    if is_object(asked.get("content")):
        (asked["content"],) = _CHAT.canonical_request({"contents": [asked["content"]]})["contents"]
    return asked


def _input(content: dict[str, Any]) -> str | dict[str, Any]:
    """The text of a content that has nothing else, or the content."""
    parts = list_of(content.get("parts"))
    if len(parts) == 1 and is_object(parts[0]) and parts[0].keys() == {"text"} and isinstance(parts[0]["text"], str):
        return parts[0]["text"]
    return content


def _content(value: str | Sequence[int] | Mapping[str, Any], prefix: str) -> Mapping[str, Any]:
    if isinstance(value, str):
        return {"parts": [{"text": prefix + value}]}
    if isinstance(value, Mapping):
        return value
    raise UnsupportedError("Gemini embeds texts and contents, and no lists of token ids")


def _patch(wire: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """What a request of a batch says beyond our words, and of these what stands in its content."""
    beside, own = ({name: value for name, value in each.items() if name != "content"} for each in (wire, ours))
    return {
        **_kept("request", difference(beside, own)),
        **_kept("content", difference(wire["content"], ours["content"])),
    }


def _patched(ours: dict[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    if not patch:
        return ours
    content = patched(ours["content"], patch.get("content", {}))
    return patched({**ours, "content": content}, patch.get("request", {}))


def _usage(wire: dict[str, Any]) -> Usage:
    prompt, total = count_of(wire.get("promptTokenCount")), count_of(wire.get("totalTokenCount"))
    return Usage(input=total if prompt is None else prompt, reported_total=total)


def _answer(response: EmbeddingResponse) -> dict[str, Any]:
    """What we understand of an answer beside its vectors, as its wire object."""
    if response.usage == NOTHING:
        return {}
    usage = response.usage
    counts = {"promptTokenCount": usage.input_tokens, "totalTokenCount": usage.reported_total}
    return {"usageMetadata": {name: count for name, count in counts.items() if count is not None}}
