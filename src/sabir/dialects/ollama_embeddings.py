"""Ollama's own embeddings (`/api/embed`), both halves. Knows no provider, only quirks.

Sources: https://docs.ollama.com/api/embed, the types of Ollama's Python SDK (0.6.3) and 6 recorded exchanges. Ollama
cuts a text that is longer than the model's context in silence; so `truncate: false` is sent where nobody asks
otherwise, with which such a text is an error. `/api/embeddings`, its predecessor for one `prompt`, is read too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..errors import ProviderError, SabirError, StreamProtocolError, UnsupportedError
from ..messages import ProviderState
from ..requests import HttpRequest, Notice
from ..strict_json import encode_json, is_array, is_object
from ..usage import NOTHING, Usage
from . import EmbeddingRequest, EmbeddingResponse, Unsupported, Verdicts, count_of, text_of
from .bodies import answer_of, converted, lowered, post, refused, request_of, shown
from .leftovers import difference, own_state, patched, without_nulls
from .ollama import Ollama
from .vectors import read_vectors, written_vectors

NAME = "ollama_embeddings"

# The verdict on each portable parameter: the wire's word for it, or why there is none.
PARAMETERS: Verdicts = {
    "dimensions": "dimensions",
    "encoding_format": Unsupported("this API gives numbers; leave it out"),
    "input_type": Unsupported("this API has no word for it; put what the model wants before each text yourself"),
    "user": Unsupported("this API knows no users; leave it out"),
}
# Errors are those of its conversations.
_CHAT = Ollama()


@dataclass(frozen=True)
class OllamaEmbeddings:
    """The dialect with the quirks of one kind of server.

    Attributes:
        keeps_whole: whether `truncate` is false where the caller says nothing, so that no text is cut in silence.
        max_inputs: the most inputs of a request; the server has no limit, but says nothing until all are done.
        dimensions_of: the length of a model's vectors, where it is known.
    """

    keeps_whole: bool = True
    max_inputs: int | None = 512
    max_bytes: int | None = None
    dimensions_of: Mapping[str, int] = field(default_factory=dict[str, int])

    name = NAME

    def verdicts(self) -> Verdicts:
        """The verdict on every portable parameter."""
        return {**PARAMETERS, "extra": "(as given)", "headers": "(as given)"}

    def encode_request(self, request: EmbeddingRequest) -> tuple[HttpRequest, tuple[Notice, ...]]:
        body, notices = self._body(request)
        path = "/api/embeddings" if "prompt" in body else "/api/embed"
        return post(path, {**body, **request.extra}, request.headers), notices

    def decode_answer(self, body: bytes) -> EmbeddingResponse:
        wire = answer_of(body)
        answer = self.canonical_answer(wire) if is_object(wire) else {}
        is_single = "embedding" in answer
        rows = [answer["embedding"]] if is_single else answer.get("embeddings")
        if not is_array(rows):
            raise StreamProtocolError("the answer has no embeddings", body=shown(body))
        vectors, encoding = read_vectors(rows)
        if encoding != "float":
            raise StreamProtocolError("an embedding is no vector: it is a text", body=shown(body))
        count = count_of(answer.get("prompt_eval_count"))
        response = EmbeddingResponse(vectors=vectors, usage=Usage(input=count), model=text_of(answer.get("model")))
        beside = {name: value for name, value in answer.items() if name not in ("embedding", "embeddings")}
        state: dict[str, Any] = {"is_single": True} if is_single else {}
        if patch := difference(beside, _answer(response)):
            state["answer"] = patch
        return msgspec.structs.replace(response, state=ProviderState(NAME, state)) if state else response

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return _CHAT.decode_error(status, headers, body)

    def decode_request(self, body: bytes) -> EmbeddingRequest:
        wire = self.canonical_request(request_of(body))
        word = "prompt" if "prompt" in wire else "input"
        inputs = [wire["prompt"]] if "prompt" in wire else wire.get("input")
        known = {"model": wire.get("model"), "inputs": inputs, "dimensions": wire.get("dimensions")}
        request = converted(known, EmbeddingRequest, {"inputs": word})
        if not request.inputs or not all(isinstance(each, str) for each in request.inputs):
            raise refused(word, "at least one text is wanted, and nothing but texts")
        patch = difference(wire, self._body(request)[0])
        return msgspec.structs.replace(request, state=ProviderState(NAME, patch)) if patch else request

    def encode_response(self, response: EmbeddingResponse) -> bytes:
        state = own_state(response.state, NAME)
        rows = written_vectors(response.vectors, "float")
        embeddings: dict[str, Any] = {"embedding": rows[0]} if state.get("is_single") else {"embeddings": rows}
        return encode_json({**patched(_answer(response), state.get("answer", {})), **embeddings})

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        return _CHAT.encode_error(error)

    def canonical_request(self, body: dict[str, Any]) -> dict[str, Any]:
        """Null is the same as absent; one text is the same as a list of one."""
        wire: dict[str, Any] = without_nulls(body)
        return {**wire, "input": [wire["input"]]} if isinstance(wire.get("input"), str) else wire

    def canonical_answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Null is the same as absent."""
        wire: dict[str, Any] = without_nulls(body)
        return wire

    def _body(self, request: EmbeddingRequest) -> tuple[dict[str, Any], tuple[Notice, ...]]:
        if not all(isinstance(each, str) for each in request.inputs):
            raise UnsupportedError("Ollama embeds texts only")
        asked = {
            "dimensions": request.dimensions,
            "encoding_format": None if request.encoding_format == "float" else request.encoding_format,
            "input_type": request.input_type,
            "user": request.user,
        }
        fields, notices = lowered(PARAMETERS, asked)
        whole = {"truncate": False} if self.keeps_whole else {}
        body = {"model": request.model, "input": list(request.inputs), **whole, **fields}
        return patched(body, own_state(request.state, NAME)), tuple(notices)


def _answer(response: EmbeddingResponse) -> dict[str, Any]:
    """What we understand of an answer beside its vectors, as its wire object."""
    answer: dict[str, Any] = {} if response.model is None else {"model": response.model}
    if response.usage != NOTHING:
        answer["prompt_eval_count"] = response.usage.input_tokens
    return answer
