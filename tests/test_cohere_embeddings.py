"""Cohere's embeddings: what is special to the format, and Cohere's SDK as judge of it and as its client."""

from __future__ import annotations

import base64
import json
import struct
from contextlib import contextmanager
from pathlib import Path

import cohere
import httpx
import pytest
from embedder import MODEL, Embedder, fit, served, vector
from servers import Server, whole

from sabir.dialects import EmbeddingRequest, EmbeddingResponse, Rank, RerankRequest, RerankResponse
from sabir.dialects.cohere_embeddings import CohereEmbeddings
from sabir.dialects.cohere_rerank import CohereRerank
from sabir.errors import BadRequestError, StreamProtocolError
from sabir.usage import Usage

DIALECT = CohereEmbeddings()
RERANK = CohereRerank()
KEY = "key-of-the-embedder"
RECORDINGS = Path(__file__).resolve().parent.parent.parent / "shared" / "recordings" / "cohere-embeddings.jsonl"
EXCHANGES = [json.loads(line) for line in RECORDINGS.read_text().splitlines()] if RECORDINGS.exists() else []


def encoded(request):
    http, _ = DIALECT.encode_request(request)
    return json.loads(http.body)


def decoded(body):
    return DIALECT.decode_request(json.dumps(body).encode())


def answered(embeddings, **more):
    return DIALECT.decode_answer(json.dumps({"embeddings": embeddings, **more}).encode())


def test_a_request_says_what_cohere_wants_said():
    assert encoded(EmbeddingRequest(model="m", inputs=("a", "b"))) == {
        "model": "m",
        "texts": ["a", "b"],
        "input_type": "search_document",
        "embedding_types": ["float"],
        "truncate": "NONE",
    }
    full = EmbeddingRequest(model="m", inputs=("a",), dimensions=8, encoding_format="base64", input_type="query")
    assert encoded(full) == {
        "model": "m",
        "texts": ["a"],
        "input_type": "search_query",
        "embedding_types": ["base64"],
        "output_dimension": 8,
        "truncate": "NONE",
    }
    assert DIALECT.encode_request(full)[0].url == "/embed"


def test_objects_and_texts_go_together():
    image = {"content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,eA=="}}]}
    body = encoded(EmbeddingRequest(model="m", inputs=("a", image)))
    assert body["inputs"] == [{"content": [{"type": "text", "text": "a"}]}, image]
    assert decoded({"model": "m", "images": ["data:image/png;base64,eA=="], "input_type": "image"}).inputs == (image,)


@pytest.mark.parametrize(
    ("body", "objection"),
    [
        ({"model": "m"}, "texts: "),
        ({"model": "m", "texts": []}, "texts: at least one"),
        ({"model": "m", "texts": ["a", 5]}, r"texts\[1\]: "),
        ({"model": "m", "texts": [{"a": 1}]}, "texts: of these dict is none"),
        ({"model": "m", "inputs": ["a"]}, "inputs: of these str is none"),
        ({"texts": ["a"]}, "model: "),
        ({"model": "m", "texts": ["a"], "output_dimension": 0}, "output_dimension: "),
    ],
)
def test_a_request_that_the_format_does_not_allow_is_refused_and_told_where(body, objection):
    with pytest.raises(BadRequestError, match=f"^{objection}"):
        decoded(body)


def test_vectors_of_every_type_are_read():
    packed = base64.b64encode(struct.pack("<2f", 1.0, -2.0)).decode()
    assert answered({"float": [[1, 0.5]]}).vectors == [[1.0, 0.5]]
    assert answered([[1, 0.5]], response_type="embeddings_floats").vectors == [[1.0, 0.5]]
    assert answered({"int8": [[18, -7]]}).vectors == [[18.0, -7.0]]
    response = answered({"int8": [[1, 2]], "base64": [packed]})
    assert (response.vectors, response.encoding_format) == ([[1.0, -2.0]], "base64")


def test_what_was_billed_is_the_usage():
    assert answered({"float": [[1]]}, meta={"billed_units": {"input_tokens": 2}}).usage == Usage(input=2)
    both = {"billed_units": {"input_tokens": 2, "image_tokens": 7}}
    assert answered({"float": [[1]]}, meta=both).usage == Usage(input=9)
    assert answered({"float": [[1]]}, meta={"billed_units": {"images": 1}}).usage == Usage()


@pytest.mark.parametrize("rows", [{}, {"float": [[]]}, {"float": [["1"]]}, {"float": [None]}, {"base64": ["?"]}, 5])
def test_an_answer_with_a_vector_that_is_none_is_an_error(rows):
    with pytest.raises(StreamProtocolError):
        answered(rows)


# Cohere's SDK


@pytest.fixture(scope="module")
def app():
    return Embedder(KEY)


@pytest.fixture(scope="module")
def url(app):
    with served(app) as url:
        yield url.removesuffix("/v1")


@contextmanager
def sdk(url):
    with httpx.Client(timeout=30) as http:
        yield cohere.ClientV2(KEY, base_url=url, httpx_client=http)


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_our_bytes_are_read_by_coheres_sdk(encoding):
    vectors = [[0.5, -0.25], [1.0, 3.0]]
    response = EmbeddingResponse(vectors=vectors, usage=Usage(input=4), encoding_format=encoding)
    data = DIALECT.encode_response(response)
    with Server(whole(data, "Content-Type: application/json")) as server, sdk(server.url) as client:
        asked = {"input_type": "search_query", "embedding_types": [encoding], "output_dimension": 2}
        theirs = client.embed(model="m", texts=["a", "b"], truncate="NONE", **asked)
        (call,) = server.calls
    found = theirs.embeddings.float_
    if encoding == "base64":
        found = [list(struct.unpack("<2f", base64.b64decode(each))) for each in theirs.embeddings.base64]
    assert found == vectors
    assert theirs.meta.billed_units.input_tokens == 4
    # What the SDK sends is a request of this format, and word for word what we send.
    request = EmbeddingRequest(model="m", inputs=("a", "b"), dimensions=2, encoding_format=encoding, input_type="query")
    assert DIALECT.decode_request(call.body) == request
    assert json.loads(call.body) == encoded(request)


@pytest.mark.parametrize("exchange", [pytest.param(each, id=each["id"]) for each in EXCHANGES])
def test_a_recorded_answer_is_read_as_coheres_sdk_reads_it(exchange):
    status, data = exchange["response"]["status"], json.dumps(exchange["response"]["body"]).encode()
    answer = whole(data, "Content-Type: application/json", status=f"{status} Recorded")
    asked = {"model": "m", "texts": ["a"], "input_type": "search_query"}
    with Server(answer) as server, sdk(server.url) as client:
        if status >= 400:
            with pytest.raises(cohere.core.ApiError) as caught:
                client.embed(**asked)
            error = DIALECT.decode_error(status, {}, data)
            assert (caught.value.status_code, caught.value.body["message"] in error.message) == (error.status, True)
        else:
            theirs, ours = client.embed(**asked), DIALECT.decode_answer(data)
            assert (theirs.embeddings.float_ or theirs.embeddings.int8) == ours.vectors
            assert theirs.meta.billed_units.input_tokens == ours.usage.input_tokens


def test_our_ranks_are_read_by_coheres_sdk():
    data = RERANK.encode_response(RerankResponse(ranks=(Rank(1, 0.9), Rank(0, 0.1))))
    with Server(whole(data, "Content-Type: application/json")) as server, sdk(server.url) as client:
        theirs = client.rerank(model="m", query="q", documents=["a", "b"], top_n=2)
        (call,) = server.calls
    assert [(each.index, each.relevance_score) for each in theirs.results] == [(1, 0.9), (0, 0.1)]
    request = RerankRequest(model="m", query="q", documents=("a", "b"), top_n=2)
    assert RERANK.decode_request(call.body) == request
    assert json.loads(call.body) == json.loads(RERANK.encode_request(request)[0].body)


def test_coheres_sdk_is_served_by_the_same_dialects(app, url):
    texts = ["a blue river", "漢字"]
    with sdk(url) as client:
        answer = client.embed(model=MODEL, texts=texts, input_type="search_query", embedding_types=["float"])
        assert answer.embeddings.float_ == [vector(text) for text in texts]
        assert app.asked[-1].input_type == "query"
        ranking = client.rerank(model=MODEL, query="blue", documents=texts, top_n=1)
    assert [(each.index, each.relevance_score) for each in ranking.results] == [(0, fit("blue", texts[0]))]


def test_coheres_sdk_raises_its_own_errors_for_ours(url):
    with sdk(url) as client:
        with pytest.raises(cohere.NotFoundError) as caught:
            client.embed(model="other", texts=["a"], input_type="search_query", embedding_types=["float"])
        assert caught.value.body["message"] == "there is no model 'other' here"
        with pytest.raises(cohere.NotFoundError):
            client.rerank(model="other", query="q", documents=["a"])
