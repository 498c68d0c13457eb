"""Gemini's embeddings: what is special to the format, and Google's SDK as judge of it and as its client."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

import pytest
from embedder import MODEL, Embedder, served, vector
from google import genai
from google.genai import errors, types
from servers import Server, whole

from sabir.dialects import EmbeddingRequest, EmbeddingResponse
from sabir.dialects.gemini_embeddings import NAME, GeminiEmbeddings
from sabir.errors import BadRequestError, NotFoundError, StreamProtocolError, UnsupportedError
from sabir.messages import ProviderState
from sabir.providers import PROVIDERS
from sabir.usage import Usage

pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

DIALECT = GeminiEmbeddings()
SINGLE = GeminiEmbeddings(method="embedContent", max_inputs=1)
KEY = "key-of-the-embedder"
RECORDINGS = Path(__file__).resolve().parent.parent.parent / "shared" / "recordings" / "gemini-embeddings.jsonl"
EXCHANGES = [json.loads(line) for line in RECORDINGS.read_text().splitlines()] if RECORDINGS.exists() else []
# Asked with a key, the SDK reads these only.
BATCHES = [each for each in EXCHANGES if each["endpoint"] == "batchEmbedContents"]


def encoded(request, dialect=DIALECT):
    http, notices = dialect.encode_request(request)
    return http.url, json.loads(http.body), notices


def one(text, **more):
    return {"model": "models/m", "content": {"parts": [{"text": text}]}, **more}


def decoded(body, dialect=DIALECT):
    return dialect.decode_request(json.dumps(body).encode())


def test_a_request_is_a_batch_of_requests():
    request = EmbeddingRequest(model="m", inputs=("a", "b"), dimensions=8, input_type="query")
    url, body, notices = encoded(request)
    told = {"outputDimensionality": 8, "taskType": "RETRIEVAL_QUERY"}
    assert (url, notices) == ("/models/m:batchEmbedContents", ())
    assert body == {"requests": [one("a", **told), one("b", **told)]}


def test_a_single_request_names_its_model_in_its_address_alone():
    request = EmbeddingRequest(model="m", inputs=("a",), input_type="document")
    assert encoded(request, SINGLE) == (
        "/models/m:embedContent",
        {"content": {"parts": [{"text": "a"}]}, "taskType": "RETRIEVAL_DOCUMENT"},
        (),
    )
    with pytest.raises(UnsupportedError, match="one input, and these are 2"):
        SINGLE.encode_request(EmbeddingRequest(model="m", inputs=("a", "b")))


def test_options_stand_where_a_row_has_them():
    row = PROVIDERS["vertex"].embeddings
    request = EmbeddingRequest(model="m", inputs=("a",), dimensions=8, input_type="query")
    url, body, _ = encoded(request, row)
    told = {"autoTruncate": False, "outputDimensionality": 8, "taskType": "RETRIEVAL_QUERY"}
    assert (url, body["embedContentConfig"], "taskType" in body) == ("/models/m:embedContent", told, False)
    again = row.decode_request(json.dumps(body).encode())
    assert (again.inputs, again.dimensions, again.input_type) == (("a",), 8, "query")
    assert encoded(again, row)[1] == body


def test_extra_fields_stand_in_every_request_of_a_batch():
    request = EmbeddingRequest(model="m", inputs=("a", "b"), extra={"taskType": "CLUSTERING"})
    assert encoded(request)[1] == {"requests": [one("a", taskType="CLUSTERING"), one("b", taskType="CLUSTERING")]}


@pytest.mark.parametrize("model", ["gemini-embedding-2", "gemini-embedding-2-preview", "models/gemini-embedding-2"])
def test_a_model_that_passes_over_task_types_is_told_in_the_text(model):
    url, body, notices = encoded(EmbeddingRequest(model=model, inputs=("a",), input_type="query"))
    assert url.startswith("/models/gemini-embedding-2")
    assert body["requests"][0]["content"] == {"parts": [{"text": "task: search result | query: a"}]}
    assert "taskType" not in body["requests"][0]
    assert [(notice.kind, notice.subject) for notice in notices] == [("emulated", "input_type")]
    _, body, _ = encoded(EmbeddingRequest(model=model, inputs=("a",), input_type="document"))
    assert body["requests"][0]["content"] == {"parts": [{"text": "title: none | text: a"}]}
    assert encoded(EmbeddingRequest(model=model, inputs=("a",)))[1]["requests"][0]["content"] == one("a")["content"]


def test_what_another_client_said_to_such_a_model_is_said_again_as_it_was():
    told = {"requests": [{**one("a"), "model": "models/gemini-embedding-2", "taskType": "RETRIEVAL_QUERY"}]}
    request = decoded(told)
    assert (request.inputs, request.input_type) == (("a",), "query")
    assert encoded(request)[1:] == (told, ())


def test_a_batch_is_read_with_what_only_some_of_it_say():
    told = {"requests": [one("a", outputDimensionality=8), one("b", outputDimensionality=9, title="t"), one("c")]}
    request = decoded(told)
    assert (request.model, request.inputs, request.dimensions) == ("m", ("a", "b", "c"), 8)
    assert encoded(request)[1] == told


def test_a_content_with_more_than_a_text_is_one_input():
    content = {"parts": [{"text": "a"}, {"inlineData": {"mimeType": "image/png", "data": "eA=="}}]}
    snake = {"parts": [{"text": "a"}, {"inline_data": {"mime_type": "image/png", "data": "eA=="}}]}
    assert decoded({"requests": [{"content": snake}]}).inputs == (content,)
    assert decoded({"requests": [{"content": {"role": "user", "parts": [{"text": "a"}]}}]}).inputs == ("a",)


@pytest.mark.parametrize(
    ("body", "objection"),
    [
        ({"requests": []}, "requests: at least one"),
        ({"requests": {}}, "requests: at least one"),
        ({"requests": [one("a"), {"content": {}}]}, r"requests\[1\].content: a content with parts"),
        ({"requests": [one("a"), 5]}, r"requests\[1\]"),
        ({"requests": [one("a"), one("b", outputDimensionality=0)]}, r"requests\[1\].outputDimensionality"),
        ({"requests": [one("a", output_dimensionality="8")]}, "outputDimensionality"),
        ({"content": "a"}, "content"),
    ],
)
def test_a_request_that_the_format_does_not_allow_is_refused_and_told_where(body, objection):
    with pytest.raises(BadRequestError, match=objection):
        decoded(body)


def test_both_shapes_of_an_answer_are_read_and_given():
    single = {"embedding": {"values": [1.0]}, "usageMetadata": {"promptTokenCount": 2, "totalTokenCount": 2}}
    response = DIALECT.decode_answer(json.dumps(single).encode())
    assert (response.vectors, response.usage) == ([[1.0]], Usage(input=2, reported_total=2))
    assert json.loads(DIALECT.encode_response(response)) == single
    plain = EmbeddingResponse(vectors=[[1.0]])
    assert json.loads(SINGLE.encode_response(plain)) == {"embedding": {"values": [1.0]}}
    assert json.loads(DIALECT.encode_response(plain)) == {"embeddings": [{"values": [1.0]}]}


@pytest.mark.parametrize("rows", [[{}], [{"values": []}], [{"values": ["1"]}], [{"values": "AACAPw=="}], [5], {}])
def test_an_answer_with_a_vector_that_is_none_is_an_error(rows):
    with pytest.raises(StreamProtocolError):
        DIALECT.decode_answer(json.dumps({"embeddings": rows}).encode())


def test_an_error_is_read_as_in_conversations():
    body = b'{"error": {"code": 404, "message": "models/x is not found", "status": "NOT_FOUND"}}'
    error = DIALECT.decode_error(404, {}, body)
    assert (type(error), error.code) == (NotFoundError, "NOT_FOUND")
    assert DIALECT.encode_error(error)[0] == 404


def test_a_path_names_the_model_and_what_is_asked():
    assert DIALECT.decode_path("/v1beta/models/m:batchEmbedContents?alt=json") == ("m", "batchEmbedContents")
    assert DIALECT.decode_path("/v1/projects/p/publishers/google/models/m-2:embedContent") == ("m-2", "embedContent")
    with pytest.raises(NotFoundError, match="nothing is served"):
        DIALECT.decode_path("/v1beta/models/m:generateContent")
    assert ProviderState(NAME, {}).dialect == DIALECT.name


# Google's SDK


@pytest.fixture(scope="module")
def app():
    return Embedder(KEY)


@pytest.fixture(scope="module")
def url(app):
    with served(app) as url:
        yield url.removesuffix("/v1")


@contextmanager
def sdk(url):
    options = types.HttpOptions(base_url=url, timeout=30_000, retry_options=types.HttpRetryOptions(attempts=1))
    with genai.Client(api_key=KEY, http_options=options) as client:
        yield client


def test_our_bytes_are_read_by_googles_sdk():
    vectors = [[0.5, -0.25], [1.0, 3.0]]
    data = DIALECT.encode_response(EmbeddingResponse(vectors=vectors, usage=Usage(input=4)))
    with Server(whole(data, "Content-Type: application/json")) as server, sdk(server.url) as client:
        config = types.EmbedContentConfig(task_type="RETRIEVAL_QUERY", output_dimensionality=2)
        theirs = client.models.embed_content(model="m", contents=["a", "b"], config=config)
        (call,) = server.calls
    assert [each.values for each in theirs.embeddings] == vectors
    # What the SDK sends is a request of this format.
    asked = DIALECT.decode_request(call.body)
    assert (asked.model, asked.inputs, asked.dimensions, asked.input_type) == ("m", ("a", "b"), 2, "query")
    assert DIALECT.decode_path(call.target) == ("m", "batchEmbedContents")
    # And ours is the same, but for a role that goes without saying.
    ours = DIALECT.canonical_request(
        json.loads(
            DIALECT.encode_request(EmbeddingRequest(model="m", inputs=("a", "b"), dimensions=2, input_type="query"))[
                0
            ].body
        )
    )
    theirs = DIALECT.canonical_request(json.loads(call.body))
    for each in theirs["requests"]:
        each["content"].pop("role", None)
    assert theirs == ours


@pytest.mark.parametrize("exchange", [pytest.param(each, id=each["id"]) for each in BATCHES])
def test_a_recorded_answer_is_read_as_googles_sdk_reads_it(exchange):
    status, data = exchange["response"]["status"], json.dumps(exchange["response"]["body"]).encode()
    answer = whole(data, "Content-Type: application/json", status=f"{status} Recorded")
    with Server(answer) as server, sdk(server.url) as client:
        if status >= 400:
            with pytest.raises(errors.ClientError) as caught:
                client.models.embed_content(model="m", contents=["a"])
            error = DIALECT.decode_error(status, {}, data)
            assert (caught.value.code, caught.value.status) == (error.status, error.code)
        else:
            theirs = client.models.embed_content(model="m", contents=["a"])
            assert [each.values for each in theirs.embeddings] == DIALECT.decode_answer(data).vectors


def test_googles_sdk_is_served_by_the_same_dialect(app, url):
    with sdk(url) as client:
        config = types.EmbedContentConfig(output_dimensionality=16, task_type="RETRIEVAL_DOCUMENT")
        answer = client.models.embed_content(model=MODEL, contents=["a blue river", "漢字"], config=config)
        assert [each.values for each in answer.embeddings] == [vector("a blue river", 16), vector("漢字", 16)]
        assert (app.asked[-1].dimensions, app.asked[-1].input_type) == (16, "document")


def test_googles_sdk_raises_its_own_errors_for_ours(url):
    with sdk(url) as client, pytest.raises(errors.ClientError, match="there is no model 'other' here") as caught:
        client.models.embed_content(model="other", contents="a")
    assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")
