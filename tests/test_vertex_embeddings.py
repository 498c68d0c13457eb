"""Vertex AI's `:predict`: what is special to the format, and Google's SDK as judge of it and as its client."""

from __future__ import annotations

import json
from contextlib import contextmanager

import pytest
from embedder import MODEL, Embedder, served, vector
from google import genai
from google.auth.credentials import AnonymousCredentials
from google.genai import errors, types
from servers import Server, whole

import sabir
from sabir.dialects import EmbeddingRequest, EmbeddingResponse
from sabir.dialects.gemini_embeddings import GeminiEmbeddings
from sabir.dialects.vertex_embeddings import VertexEmbeddings
from sabir.errors import BadRequestError, NotFoundError, StreamProtocolError, UnsupportedError
from sabir.providers import PROVIDERS
from sabir.usage import Usage

pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

DIALECT = VertexEmbeddings()
KEY = "key-of-the-embedder"
PLACE = "/v1beta1/projects/p/locations/europe-west4/publishers/google/models"


def encoded(request, dialect=DIALECT):
    http, notices = dialect.encode_request(request)
    return http.url, json.loads(http.body), notices


@contextmanager
def sdk(url):
    options = types.HttpOptions(base_url=url, timeout=30_000, retry_options=types.HttpRetryOptions(attempts=1))
    headers = {"authorization": f"Bearer {KEY}"}
    with genai.Client(
        vertexai=True,
        project="p",
        location="europe-west4",
        credentials=AnonymousCredentials(),
        http_options=options.model_copy(update={"headers": headers}),
    ) as client:
        # The credentials of nobody give no token, and it asks for one.
        client._api_client._access_token = lambda: KEY
        yield client


def test_a_request_is_a_list_of_instances():
    request = EmbeddingRequest(model="text-embedding-005", inputs=("a", "b"), dimensions=8, input_type="query")
    url, body, notices = encoded(request)
    assert (url, notices) == ("/models/text-embedding-005:predict", ())
    assert body == {
        "instances": [
            {"content": "a", "task_type": "RETRIEVAL_QUERY"},
            {"content": "b", "task_type": "RETRIEVAL_QUERY"},
        ],
        "parameters": {"autoTruncate": False, "outputDimensionality": 8},
    }


def test_what_only_some_instances_say_stays_with_them():
    told = {
        "instances": [{"content": "a", "task_type": "RETRIEVAL_DOCUMENT", "title": "t"}, {"content": "b"}],
        "parameters": {"autoTruncate": True},
    }
    request = DIALECT.decode_request(json.dumps(told).encode())
    assert (request.inputs, request.input_type) == (("a", "b"), "document")
    assert encoded(request)[1] == told


def test_an_answer_counts_the_tokens_of_all():
    def row(values, tokens):
        return {"embeddings": {"values": values, "statistics": {"token_count": tokens, "truncated": False}}}

    told = {"predictions": [row([0.5, 1.0], 3), row([1.5, 2.0], 4)], "metadata": {"billableCharacterCount": 9}}
    response = DIALECT.decode_answer(json.dumps(told).encode())
    assert (response.vectors, response.usage) == ([[0.5, 1.0], [1.5, 2.0]], Usage(input=7))
    assert json.loads(DIALECT.encode_response(response)) == told


@pytest.mark.parametrize("rows", [[{}], [{"embeddings": {}}], [{"embeddings": {"values": []}}], [5], {}])
def test_an_answer_with_a_vector_that_is_none_is_an_error(rows):
    with pytest.raises(StreamProtocolError):
        DIALECT.decode_answer(json.dumps({"predictions": rows}).encode())


@pytest.mark.parametrize(
    ("body", "objection"),
    [
        ({"instances": []}, "instances: at least one"),
        ({"instances": [{"content": "a"}, {}]}, r"instances\[1\].content: a text"),
        ({"instances": [{"content": "a"}], "parameters": 5}, "parameters: an object"),
        (
            {"instances": [{"content": "a"}], "parameters": {"outputDimensionality": 0}},
            "parameters.outputDimensionality",
        ),
    ],
)
def test_a_request_that_the_format_does_not_allow_is_refused_and_told_where(body, objection):
    with pytest.raises(BadRequestError, match=objection):
        DIALECT.decode_request(json.dumps(body).encode())


def test_a_path_names_the_model():
    assert DIALECT.decode_path(f"{PLACE}/text-embedding-005:predict?x=1") == "text-embedding-005"
    with pytest.raises(NotFoundError, match="nothing is served"):
        DIALECT.decode_path(f"{PLACE}/m:generateContent")
    with pytest.raises(UnsupportedError, match="no lists of token ids"):
        DIALECT.encode_request(EmbeddingRequest(model="m", inputs=([1, 2],)))


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("text-embedding-005", VertexEmbeddings),
        ("text-multilingual-embedding-002", VertexEmbeddings),
        ("gemini-embedding-001", GeminiEmbeddings),
        ("gemini-embedding-2", GeminiEmbeddings),
        ("publishers/intfloat/models/multilingual-e5-large-instruct-maas", GeminiEmbeddings),
    ],
)
def test_a_model_is_asked_as_googles_sdk_asks_it(model, kind, monkeypatch):
    assert type(PROVIDERS["vertex"].embeddings_of(model)) is kind
    with Server(whole(b"{}", "Content-Type: application/json")) as server, sdk(server.url) as client:
        client.models.embed_content(model=model, contents="a")
        assert server.calls[0].target.endswith(":predict" if kind is VertexEmbeddings else ":embedContent")


# Google's SDK


def test_our_bytes_are_read_by_googles_sdk_and_its_by_us():
    vectors = [[0.5, -0.25], [1.0, 3.0]]
    data = DIALECT.encode_response(EmbeddingResponse(vectors=vectors))
    with Server(whole(data, "Content-Type: application/json")) as server, sdk(server.url) as client:
        config = types.EmbedContentConfig(task_type="RETRIEVAL_QUERY", output_dimensionality=2, auto_truncate=False)
        theirs = client.models.embed_content(model="text-embedding-005", contents=["a", "b"], config=config)
        (call,) = server.calls
    assert [each.values for each in theirs.embeddings] == vectors
    asked = DIALECT.decode_request(call.body)
    assert (asked.inputs, asked.dimensions, asked.input_type) == (("a", "b"), 2, "query")
    assert call.target == f"{PLACE}/text-embedding-005:predict"
    ours = EmbeddingRequest(model="text-embedding-005", inputs=("a", "b"), dimensions=2, input_type="query")
    assert json.loads(call.body) == encoded(ours)[1]


@pytest.fixture(scope="module")
def url():
    with served(Embedder(KEY)) as url:
        yield url.removesuffix("/v1")


def test_googles_sdk_is_served_by_the_same_dialect(url):
    with sdk(url) as client:
        config = types.EmbedContentConfig(output_dimensionality=16)
        answer = client.models.embed_content(model=MODEL, contents=["a blue river", "漢字"], config=config)
        assert [each.values for each in answer.embeddings] == [vector("a blue river", 16), vector("漢字", 16)]
        with pytest.raises(errors.ClientError, match="there is no model 'other' here") as caught:
            client.models.embed_content(model="other", contents="a")
        assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")


@pytest.mark.parametrize(("model", "requests"), [(MODEL, 1), (f"gemini-{MODEL}", 3)])
async def test_a_clients_texts_go_together_where_a_model_takes_several(surface, url, model, requests):
    client = surface.client(f"vertex:{model}@{url}/v1", api_key=lambda: KEY)
    found = await client.embed_batch(["one", "two", "three"])
    assert list(found) == [vector(text) for text in ("one", "two", "three")]
    assert len(found.attempts) == requests
    with pytest.raises(sabir.NotFoundError, match="no model 'other'"):
        await client.embed("a", model="other")
