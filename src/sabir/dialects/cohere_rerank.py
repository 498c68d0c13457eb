"""Cohere's rankings (`/rerank`), which Voyage, Jina, llama.cpp and others speak too; both halves. Knows no provider.

Sources: https://docs.cohere.com/reference/rerank, https://docs.voyageai.com/reference/reranker-api,
https://api.jina.ai/redoc, llama.cpp's tools/server/README.md and 8 recorded exchanges. An answer has a row for each
document that it ranks, mostly the best first.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..errors import ProviderError, SabirError, StreamProtocolError
from ..messages import ProviderState
from ..requests import HttpRequest, Notice
from ..strict_json import encode_json, is_array, is_object
from ..usage import NOTHING, Usage
from . import Rank, RerankRequest, RerankResponse, Verdicts, count_of, mapping_of, text_of
from .bodies import answer_of, converted, post, refused, request_of, shown
from .failures import failure_object, provider_error
from .leftovers import difference, own_state, patched, without_nulls

NAME = "cohere_rerank"


@dataclass(frozen=True)
class CohereRerank:
    """The dialect with the quirks of one kind of server.

    Attributes:
        top_n: the word for how many are wanted.
        rows: where an answer has its rows.
        unasked: what every request has where the caller does not say otherwise.
        max_documents: the most documents of a request.
    """

    top_n: str = "top_n"
    rows: str = "results"
    unasked: Mapping[str, Any] = field(default_factory=dict[str, Any])
    max_documents: int | None = None

    name = NAME

    def verdicts(self) -> Verdicts:
        """The verdict on every portable parameter."""
        return {"top_n": self.top_n, "extra": "(as given)", "headers": "(as given)"}

    def encode_request(self, request: RerankRequest) -> tuple[HttpRequest, tuple[Notice, ...]]:
        return post("/rerank", {**self._body(request), **request.extra}, request.headers), ()

    def decode_answer(self, body: bytes) -> RerankResponse:
        wire = answer_of(body)
        answer = self.canonical_answer(wire) if is_object(wire) else {}
        # Servers that know each other's formats answer in the one, asked in the other.
        name = next((name for name in (self.rows, "results", "data") if is_array(answer.get(name))), None)
        if name is None:
            raise StreamProtocolError("the answer ranks nothing", body=shown(body))
        ranks = read_ranks(answer[name], "relevance_score")
        usage = _usage(mapping_of(answer.get("usage")), mapping_of(answer.get("meta")))
        response = RerankResponse(ranks=ranks, usage=usage, model=text_of(answer.get("model")))
        state: dict[str, Any] = {} if name == self.rows else {"rows_at": name}
        if patch := difference({key: value for key, value in answer.items() if key != name}, _answer(response)):
            state["answer"] = patch
        if patches := beside(answer[name], ("index", "relevance_score")):
            state["rows"] = patches
        return msgspec.structs.replace(response, state=ProviderState(NAME, state)) if state else response

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return provider_error(status, headers, body)

    def decode_request(self, body: bytes) -> RerankRequest:
        wire = self.canonical_request(request_of(body))
        # Some servers have one model, whatever it is called.
        known = {"model": wire.get("model", ""), "query": wire.get("query"), "documents": wire.get("documents")}
        request = converted({**known, "top_n": wire.get(self.top_n)}, RerankRequest, {"top_n": self.top_n})
        if not request.documents:
            raise refused("documents", "at least one is wanted")
        patch = difference(wire, self._body(request))
        return msgspec.structs.replace(request, state=ProviderState(NAME, patch)) if patch else request

    def encode_response(self, response: RerankResponse) -> bytes:
        state = own_state(response.state, NAME)
        patches = state.get("rows", {})
        rows = [
            {"index": rank.index, "relevance_score": rank.score, **patches.get(str(number), {})}
            for number, rank in enumerate(response.ranks)
        ]
        answer = patched(_answer(response), state.get("answer", {}))
        return encode_json({**answer, state.get("rows_at", self.rows): rows})

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        return failure_object(error)

    def canonical_request(self, body: dict[str, Any]) -> dict[str, Any]:
        """Null is the same as absent."""
        wire: dict[str, Any] = without_nulls(body)
        return wire

    def canonical_answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Null is the same as absent."""
        wire: dict[str, Any] = without_nulls(body)
        return wire

    def _body(self, request: RerankRequest) -> dict[str, Any]:
        body = {"model": request.model, "query": request.query, "documents": list(request.documents), **self.unasked}
        if request.top_n is not None:
            body[self.top_n] = request.top_n
        return patched(body, own_state(request.state, NAME))


def read_ranks(rows: Iterable[Any], score: str) -> tuple[Rank, ...]:
    """What an answer's rows rank; `score` is their word for it.

    Raises:
        StreamProtocolError: a row has no index or no score, or one has come twice.
    """
    ranks: dict[int, Rank] = {}
    for row in rows:
        index, value = mapping_of(row).get("index"), mapping_of(row).get(score)
        if type(index) is not int or index < 0:
            raise StreamProtocolError(f"a document is ranked that has no index: {str(row)[:200]}")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
            raise StreamProtocolError(f"a document is ranked without a score: {str(row)[:200]}")
        if index in ranks:
            raise StreamProtocolError(f"the document with the index {index} is ranked twice, so that one is missing")
        ranks[index] = Rank(index, float(value))
    return tuple(ranks.values())


def beside(rows: Iterable[dict[str, Any]], known: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """What rows say beyond these words, by their numbers."""
    return {
        str(number): {name: value for name, value in row.items() if name not in known}
        for number, row in enumerate(rows)
        if len(row) > len(known)
    }


def _usage(wire: dict[str, Any], meta: dict[str, Any]) -> Usage:
    prompt, total = count_of(wire.get("prompt_tokens")), count_of(wire.get("total_tokens"))
    if prompt is None and total is None:
        # Cohere bills searches, which are no tokens, and tells those it has read beside them.
        prompt = count_of(mapping_of(meta.get("tokens")).get("input_tokens"))
    return Usage(input=total if prompt is None else prompt, reported_total=total)


def _answer(response: RerankResponse) -> dict[str, Any]:
    """What we understand of an answer beside its rows, as its wire object."""
    answer: dict[str, Any] = {} if response.model is None else {"model": response.model}
    if response.usage != NOTHING:
        usage = response.usage
        total = usage.total_tokens if usage.reported_total is None else usage.reported_total
        answer["usage"] = {"prompt_tokens": usage.input_tokens, "total_tokens": total}
    return answer
