"""Text Embeddings Inference, Hugging Face's server: its own `/embed` and `/rerank`, both halves. Knows no provider.

Sources: https://huggingface.co/docs/text-embeddings-inference and router/src/http/types.rs of its repository. A server
has one model, which a request does not name; answers are bare lists, so that there is no usage in them either. It
speaks OpenAI's `/v1/embeddings` too (`openai_embeddings`), which has no prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..errors import OverloadedError, ProviderError, SabirError, ServerError, StreamProtocolError, UnsupportedError
from ..messages import ProviderState
from ..requests import HttpRequest, Notice
from ..strict_json import encode_json, is_array
from . import EmbeddingRequest, EmbeddingResponse, InputType, RerankRequest, RerankResponse, Unsupported, Verdicts
from .bodies import answer_of, converted, lowered, post, refused, request_of, shown
from .cohere_rerank import beside, read_ranks
from .failures import provider_error, status_of
from .leftovers import difference, own_state, patched, without_nulls
from .vectors import read_vectors, written_vectors

EMBEDDINGS = "tei_embeddings"
RERANK = "tei_rerank"

# The verdict on each portable parameter: the wire's word for it, or why there is none.
PARAMETERS: Verdicts = {
    "dimensions": "dimensions",
    "encoding_format": Unsupported("/embed gives numbers; leave it out, or ask /v1/embeddings (openai-compat)"),
    "input_type": "prompt_name",
    "user": Unsupported("this server knows no users; leave it out"),
}


class _Errors:
    """How both tell that something went wrong: `{"error": text, "error_type": word}`."""

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        error = provider_error(status, headers, body)
        if status == 424:
            # The model has failed, which is told like an error of the caller's.
            failure = ServerError(error.message)
            failure.__dict__.update(error.__dict__, retryable=True)
            return failure
        return error

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        status = status_of(error)
        kind = "Overloaded" if isinstance(error, OverloadedError) else "Validation" if status < 500 else "Backend"
        return status, encode_json({"error": error.message, "error_type": kind})


@dataclass(frozen=True)
class TeiEmbeddings(_Errors):
    """`/embed`.

    Attributes:
        prompts: the names of the model's prompts, by what a text is for. The server refuses a name that the model's
            configuration does not have.
        max_inputs: the most inputs of a request; the server's `--max-client-batch-size`.
        dimensions_of: the length of a model's vectors, where it is known.
    """

    prompts: Mapping[InputType, str] = field(default_factory=lambda: _PROMPTS)
    max_inputs: int | None = 32
    max_bytes: int | None = None
    dimensions_of: Mapping[str, int] = field(default_factory=dict[str, int])

    name = EMBEDDINGS

    def verdicts(self) -> Verdicts:
        """The verdict on every portable parameter."""
        return {**PARAMETERS, "extra": "(as given)", "headers": "(as given)"}

    def encode_request(self, request: EmbeddingRequest) -> tuple[HttpRequest, tuple[Notice, ...]]:
        body, notices = self._body(request)
        return post("/embed", {**body, **request.extra}, request.headers), notices

    def decode_answer(self, body: bytes) -> EmbeddingResponse:
        wire = answer_of(body)
        if not is_array(wire) or not all(map(is_array, wire)):
            raise StreamProtocolError("the answer is no list of embeddings", body=shown(body))
        return EmbeddingResponse(vectors=read_vectors(wire)[0])

    def decode_request(self, body: bytes) -> EmbeddingRequest:
        wire = self.canonical_request(request_of(body))
        meant = {theirs: ours for ours, theirs in self.prompts.items()}
        known = {
            "model": "",
            "inputs": wire.get("inputs"),
            "dimensions": wire.get("dimensions"),
            "input_type": meant.get(str(wire.get("prompt_name"))),
        }
        request = converted(known, EmbeddingRequest, {})
        if not request.inputs or any(isinstance(each, dict) for each in request.inputs):
            raise refused("inputs", "at least one text is wanted, and nothing but texts")
        patch = difference(wire, self._body(request)[0])
        return msgspec.structs.replace(request, state=ProviderState(EMBEDDINGS, patch)) if patch else request

    def encode_response(self, response: EmbeddingResponse) -> bytes:
        return encode_json(written_vectors(response.vectors, "float"))

    def canonical_request(self, body: dict[str, Any]) -> dict[str, Any]:
        """Null is the same as absent; one input is the same as a list of one."""
        wire: dict[str, Any] = without_nulls(body)
        return {**wire, "inputs": [wire["inputs"]]} if isinstance(wire.get("inputs"), str) else wire

    def canonical_answer(self, body: Any) -> Any:
        """There is nothing to say in two ways."""
        return body

    def _body(self, request: EmbeddingRequest) -> tuple[dict[str, Any], tuple[Notice, ...]]:
        if any(isinstance(each, dict) for each in request.inputs):
            raise UnsupportedError("this server embeds texts only")
        asked = {
            "dimensions": request.dimensions,
            "encoding_format": None if request.encoding_format == "float" else request.encoding_format,
            "input_type": self.prompts[request.input_type] if request.input_type else None,
            "user": request.user,
        }
        fields, notices = lowered(PARAMETERS, asked)
        body = patched({"inputs": list(request.inputs), **fields}, own_state(request.state, EMBEDDINGS))
        return body, tuple(notices)


_PROMPTS: Mapping[InputType, str] = {"query": "query", "document": "document"}


@dataclass(frozen=True)
class TeiRerank(_Errors):
    """`/rerank`. It ranks all documents always; how many of them are wanted is not said to it.

    Attributes:
        max_documents: the most documents of a request; the server has limits of its own, and says them.
    """

    max_documents: int | None = None

    name = RERANK

    def verdicts(self) -> Verdicts:
        """The verdict on every portable parameter."""
        return {"top_n": "(the best of the answer)", "extra": "(as given)", "headers": "(as given)"}

    def encode_request(self, request: RerankRequest) -> tuple[HttpRequest, tuple[Notice, ...]]:
        return post("/rerank", {**self._body(request), **request.extra}, request.headers), ()

    def decode_answer(self, body: bytes) -> RerankResponse:
        wire = answer_of(body)
        if not is_array(wire):
            raise StreamProtocolError("the answer is no list of ranks", body=shown(body))
        response = RerankResponse(ranks=read_ranks(wire, "score"))
        rows = beside(without_nulls(wire), ("index", "score"))
        return msgspec.structs.replace(response, state=ProviderState(RERANK, {"rows": rows})) if rows else response

    def decode_request(self, body: bytes) -> RerankRequest:
        wire = self.canonical_request(request_of(body))
        known = {"model": "", "query": wire.get("query"), "documents": wire.get("texts")}
        request = converted(known, RerankRequest, {"documents": "texts"})
        if not request.documents or not all(isinstance(each, str) for each in request.documents):
            raise refused("texts", "at least one text is wanted, and nothing but texts")
        patch = difference(wire, self._body(request))
        return msgspec.structs.replace(request, state=ProviderState(RERANK, patch)) if patch else request

    def encode_response(self, response: RerankResponse) -> bytes:
        patches = own_state(response.state, RERANK).get("rows", {})
        return encode_json(
            [
                {"index": rank.index, "score": rank.score, **patches.get(str(number), {})}
                for number, rank in enumerate(response.ranks)
            ]
        )

    def canonical_request(self, body: dict[str, Any]) -> dict[str, Any]:
        """Null is the same as absent."""
        wire: dict[str, Any] = without_nulls(body)
        return wire

    def canonical_answer(self, body: Any) -> Any:
        """Null is the same as absent."""
        return without_nulls(body)

    def _body(self, request: RerankRequest) -> dict[str, Any]:
        if not all(isinstance(each, str) for each in request.documents):
            raise UnsupportedError("this server ranks texts only")
        body = {"query": request.query, "texts": list(request.documents)}
        return patched(body, own_state(request.state, RERANK))
