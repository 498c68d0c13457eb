"""Ollama's embeddings: what is special to the format, and Ollama's SDK as judge of it and as its client."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

import ollama
import pytest
from embedder import MODEL, Embedder, served, vector
from servers import Server, whole

from sabir.dialects import EmbeddingRequest, EmbeddingResponse
from sabir.dialects.ollama_embeddings import OllamaEmbeddings
from sabir.errors import BadRequestError, ContextOverflowError, StreamProtocolError
from sabir.usage import Usage

DIALECT = OllamaEmbeddings()
KEY = "key-of-the-embedder"
RECORDINGS = Path(__file__).resolve().parent.parent.parent / "shared" / "recordings" / "ollama-embeddings.jsonl"
EXCHANGES = [json.loads(line) for line in RECORDINGS.read_text().splitlines()] if RECORDINGS.exists() else []


def encoded(request, dialect=DIALECT):
    http, _ = dialect.encode_request(request)
    return http.url, json.loads(http.body)


def decoded(body):
    return DIALECT.decode_request(json.dumps(body).encode())


def test_a_request_does_not_let_a_text_be_cut():
    request = EmbeddingRequest(model="m", inputs=("a", "b"), dimensions=8)
    body = {"model": "m", "input": ["a", "b"], "truncate": False, "dimensions": 8}
    assert encoded(request) == ("/api/embed", body)
    assert "truncate" not in encoded(request, OllamaEmbeddings(keeps_whole=False))[1]
    assert json.loads(
        DIALECT.encode_request(EmbeddingRequest(model="m", inputs=("a",), extra={"truncate": True}))[0].body
    )["truncate"]
    # A client of ours that says nothing wants what its server would do.
    assert "truncate" not in encoded(decoded({"model": "m", "input": "a"}))[1]


def test_the_predecessor_for_one_prompt_is_read_too():
    request = decoded({"model": "m", "prompt": "a", "options": {}})
    assert request.inputs == ("a",)
    assert encoded(request) == ("/api/embeddings", {"model": "m", "prompt": "a", "options": {}})
    response = DIALECT.decode_answer(b'{"embedding": [1, 0.5]}')
    assert response.vectors == [[1.0, 0.5]]
    assert json.loads(DIALECT.encode_response(response)) == {"embedding": [1.0, 0.5]}


@pytest.mark.parametrize(
    ("body", "objection"),
    [
        ({"model": "m"}, "input: "),
        ({"model": "m", "input": []}, "input: at least one"),
        ({"model": "m", "input": [[1]]}, "input: .*nothing but texts"),
        ({"model": "m", "input": ["a", 5]}, r"input\[1\]: "),
        ({"model": "m", "prompt": 5}, r"prompt\[0\]: "),
        ({"model": "m", "input": "a", "dimensions": "8"}, "dimensions: "),
        ({"input": "a"}, "model: "),
    ],
)
def test_a_request_that_the_format_does_not_allow_is_refused_and_told_where(body, objection):
    with pytest.raises(BadRequestError, match=f"^{objection}"):
        decoded(body)


@pytest.mark.parametrize("rows", [[[]], [["1"]], ["AACAPw=="], [5], {}])
def test_an_answer_with_a_vector_that_is_none_is_an_error(rows):
    with pytest.raises(StreamProtocolError):
        DIALECT.decode_answer(json.dumps({"embeddings": rows}).encode())


def test_a_text_that_is_too_long_is_an_overflow():
    error = DIALECT.decode_error(400, {}, b'{"error": "input exceeds maximum context length"}')
    assert type(error) is ContextOverflowError


# Ollama's SDK


@pytest.fixture(scope="module")
def app():
    return Embedder(KEY)


@pytest.fixture(scope="module")
def url(app):
    with served(app) as url:
        yield url.removesuffix("/v1")


@contextmanager
def sdk(url):
    with ollama.Client(host=url, headers={"authorization": f"Bearer {KEY}"}) as client:
        yield client


def test_our_bytes_are_read_by_ollamas_sdk():
    vectors = [[0.5, -0.25], [1.0, 3.0]]
    data = DIALECT.encode_response(EmbeddingResponse(vectors=vectors, usage=Usage(input=4), model="m"))
    with Server(whole(data, "Content-Type: application/json")) as server, sdk(server.url) as client:
        theirs = client.embed(model="m", input=["a", "b"], truncate=False, dimensions=2)
        (call,) = server.calls
    assert (theirs.embeddings, theirs.model, theirs.prompt_eval_count) == (vectors, "m", 4)
    # What the SDK sends is a request of this format, and word for word what we send.
    request = EmbeddingRequest(model="m", inputs=("a", "b"), dimensions=2)
    assert DIALECT.decode_request(call.body) == request
    assert json.loads(call.body) == encoded(request)[1]


@pytest.mark.parametrize("exchange", [pytest.param(each, id=each["id"]) for each in EXCHANGES])
def test_a_recorded_answer_is_read_as_ollamas_sdk_reads_it(exchange):
    data = json.dumps(exchange["response"]["body"]).encode()
    ours = DIALECT.decode_answer(data)
    with Server(whole(data, "Content-Type: application/json")) as server, sdk(server.url) as client:
        if exchange["endpoint"] == "embeddings":
            assert [list(client.embeddings(model="m", prompt="a").embedding)] == ours.vectors
        else:
            theirs = client.embed(model="m", input="a")
            assert (theirs.embeddings, theirs.model) == (ours.vectors, ours.model)
            assert theirs.prompt_eval_count == ours.usage.input_tokens


def test_ollamas_sdk_is_served_by_the_same_dialect(app, url):
    with sdk(url) as client:
        answer = client.embed(model=MODEL, input="a blue river", dimensions=16)
    assert answer.embeddings == [vector("a blue river", 16)]
    assert app.asked[-1].dimensions == 16


def test_ollamas_sdk_raises_its_own_errors_for_ours(url):
    with sdk(url) as client, pytest.raises(ollama.ResponseError, match="there is no model 'other' here") as caught:
        client.embed(model="other", input="a")
    assert caught.value.status_code == 404
