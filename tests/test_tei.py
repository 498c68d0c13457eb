"""Text Embeddings Inference: what is special to its two formats. Their laws are in test_all_embeddings.py."""

from __future__ import annotations

import json

import pytest

from sabir.dialects import EmbeddingRequest, EmbeddingResponse, RerankRequest
from sabir.dialects.tei import TeiEmbeddings, TeiRerank
from sabir.errors import (
    BadRequestError,
    OverloadedError,
    RateLimitError,
    ServerError,
    StreamProtocolError,
    UnsupportedError,
)

DIALECT = TeiEmbeddings()


def encoded(request, dialect=DIALECT):
    http, notices = dialect.encode_request(request)
    return http.url, json.loads(http.body), notices


def test_a_request_names_no_model():
    request = EmbeddingRequest(model="m", inputs=("a", "b"), dimensions=8, input_type="query")
    assert encoded(request) == ("/embed", {"inputs": ["a", "b"], "dimensions": 8, "prompt_name": "query"}, ())


def test_a_models_prompts_may_have_other_names():
    dialect = TeiEmbeddings(prompts={"query": "web_search_query", "document": "passage"})
    request = EmbeddingRequest(model="", inputs=("a",), input_type="document")
    assert encoded(request, dialect)[1] == {"inputs": ["a"], "prompt_name": "passage"}
    assert dialect.decode_request(b'{"inputs": "a", "prompt_name": "web_search_query"}').input_type == "query"
    # A prompt that is none of ours is said again as it was.
    other = dialect.decode_request(b'{"inputs": "a", "prompt_name": "query"}')
    assert (other.input_type, encoded(other, dialect)[1]) == (None, {"inputs": ["a"], "prompt_name": "query"})


def test_an_answer_is_a_bare_list_of_vectors():
    response = DIALECT.decode_answer(b"[[1, 0.5], [2, 3]]")
    assert response == EmbeddingResponse(vectors=[[1.0, 0.5], [2.0, 3.0]])
    assert DIALECT.encode_response(response) == b"[[1.0,0.5],[2.0,3.0]]"


@pytest.mark.parametrize("body", [b"{}", b"[1, 2]", b'["AACAPw=="]', b"[[]]", b'[["1"]]', b"[[null]]", b"[[1], 2]"])
def test_an_answer_with_a_vector_that_is_none_is_an_error(body):
    with pytest.raises(StreamProtocolError):
        DIALECT.decode_answer(body)


@pytest.mark.parametrize(
    ("status", "told", "kind"),
    [
        (413, {"error": "batch size 33 > maximum allowed batch size 32", "error_type": "Validation"}, BadRequestError),
        (422, {"error": "default prompt name must exist", "error_type": "Validation"}, BadRequestError),
        (424, {"error": "Inference failed", "error_type": "Backend"}, ServerError),
        (429, {"error": "Model is overloaded", "error_type": "Overloaded"}, RateLimitError),
    ],
)
def test_an_error_is_of_the_kind_its_status_says(status, told, kind):
    error = DIALECT.decode_error(status, {}, json.dumps(told).encode())
    assert (type(error), error.status) == (kind, status)
    assert told["error"] in str(error)


def test_errors_are_told_in_the_servers_words():
    told = DIALECT.encode_error(OverloadedError("full"))
    assert (told[0], json.loads(told[1])) == (503, {"error": "full", "error_type": "Overloaded"})
    told = TeiRerank().encode_error(BadRequestError("no"))
    assert (told[0], json.loads(told[1])) == (400, {"error": "no", "error_type": "Validation"})


def test_texts_that_come_back_are_kept():
    told = [{"index": 1, "score": 0.5, "text": "b"}, {"index": 0, "score": -1, "text": "a"}]
    response = TeiRerank().decode_answer(json.dumps(told).encode())
    assert [(rank.index, rank.score) for rank in response.ranks] == [(1, 0.5), (0, -1.0)]
    assert json.loads(TeiRerank().encode_response(response)) == told


def test_only_texts_are_embedded_and_ranked():
    with pytest.raises(UnsupportedError, match="texts only"):
        DIALECT.encode_request(EmbeddingRequest(model="m", inputs=({"a": 1},)))
    with pytest.raises(UnsupportedError, match="texts only"):
        TeiRerank().encode_request(RerankRequest(model="m", query="q", documents=({"a": 1},)))
