"""What holds for every format of embeddings and rankings: the laws of a dialect, its verdicts, its errors, any bytes.

encode(decode(b)) == canonical(b); decode(encode(v)) == v, but for what the notices name. What is special to a format
stands in a file of its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from embedder import MODEL, Embedder, served, vector
from hypothesis import given
from hypothesis import strategies as st

from sabir.dialects import (
    EmbeddingRequest,
    EmbeddingResponse,
    Rank,
    RerankRequest,
    RerankResponse,
    Unsupported,
)
from sabir.dialects.cohere_embeddings import CohereEmbeddings
from sabir.dialects.cohere_rerank import CohereRerank
from sabir.dialects.gemini_embeddings import GeminiEmbeddings
from sabir.dialects.leftovers import without_nulls
from sabir.dialects.ollama_embeddings import OllamaEmbeddings
from sabir.dialects.openai_embeddings import OpenAIEmbeddings
from sabir.dialects.tei import TeiEmbeddings, TeiRerank
from sabir.dialects.vertex_embeddings import VertexEmbeddings
from sabir.errors import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    NotFoundError,
    OverloadedError,
    RateLimitError,
    SabirError,
    ServerError,
    UnsupportedError,
)
from sabir.messages import ProviderState
from sabir.options import EmbeddingOptions, RerankOptions
from sabir.providers import PROVIDERS
from sabir.testing.replay import EMBEDDINGS, RERANKS, replay_file
from sabir.usage import Usage

KEY = "key-of-the-embedder"
RECORDINGS = Path(__file__).resolve().parent.parent.parent / "shared" / "recordings"
needs_recordings = pytest.mark.skipif(not RECORDINGS.exists(), reason=f"there are no recordings at {RECORDINGS}")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.text("abcdefghij_", min_size=1, max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)
# Fields that nobody has heard of, at any place of a body.
unknown = st.dictionaries(names.map("x{}".format), json_values, max_size=2)
finite = st.floats(allow_nan=False, allow_infinity=False)
singles = st.floats(width=32, allow_nan=False, allow_infinity=False)
counts = st.none() | st.integers(0, 99)
some_texts = st.lists(texts, min_size=1, max_size=3)
vectors = st.lists(st.lists(finite, min_size=1, max_size=4), min_size=1, max_size=3)
lengths = st.none() | st.integers(1, 9999)


def body(required, **optional):
    """Bodies with these fields, some of those, and some that nobody has heard of."""
    fields = st.fixed_dictionaries(required, optional=optional)
    return fields.flatmap(lambda told: unknown.map(lambda more: {**more, **told}))


contents = st.one_of(
    texts.map(lambda text: {"parts": [{"text": text}]}),
    texts.map(lambda text: {"role": "user", "parts": [{"text": text}]}),
    st.tuples(texts, texts).map(
        lambda both: {"parts": [{"text": both[0]}, {"inline_data": {"mime_type": "image/png", "data": both[1]}}]}
    ),
)
gemini_one = body(
    {"content": contents},
    model=names.map("models/{}".format) | names,
    taskType=st.sampled_from(["RETRIEVAL_QUERY", "RETRIEVAL_DOCUMENT", "CLUSTERING"]),
    task_type=st.none(),
    title=texts,
    output_dimensionality=lengths,
)
vertex_one = body(
    {"content": texts},
    task_type=st.sampled_from([None, "RETRIEVAL_QUERY", "RETRIEVAL_DOCUMENT", "CLUSTERING"]),
    title=st.none() | texts,
)
vertex_row = body(
    {
        "embeddings": body(
            {"values": st.lists(finite, min_size=1, max_size=4)},
            statistics=st.none() | body({}, token_count=counts, truncated=st.booleans()),
        )
    }
)
cohere_object = st.fixed_dictionaries(
    {"content": st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": texts}), min_size=1, max_size=2)}
)
openai_rows = vectors.map(lambda several: [{"index": number, "embedding": each} for number, each in enumerate(several)])
gemini_rows = vectors.flatmap(
    lambda several: st.tuples(*(body({"values": st.just(each)}) for each in several)).map(list)
)
cohere_types = vectors.flatmap(lambda several: st.sampled_from([{"float": several}, {"int8": [[1, 2]], "x": []}]))
ranks = st.lists(st.integers(0, 20), max_size=5, unique=True)


def rows(score):
    return ranks.flatmap(
        lambda indexes: st.tuples(
            *(body({"index": st.just(index), score: finite}, document=json_values) for index in indexes)
        ).map(list)
    )


class Format(NamedTuple):
    """A dialect with bodies that servers accept and give."""

    dialect: object
    requests: st.SearchStrategy
    answers: st.SearchStrategy
    # What is kept of a request of ours, beside the inputs.
    keeps: tuple[str, ...] = ()


FORMATS = {
    "openai": Format(
        OpenAIEmbeddings(),
        body({"input": texts | some_texts}, model=names, dimensions=lengths, user=st.none() | texts),
        body({"data": openai_rows}),
        ("model", "dimensions", "encoding_format", "user"),
    ),
    "voyage": Format(
        PROVIDERS["voyage"].embeddings,
        body(
            {"input": texts | some_texts, "model": names},
            input_type=st.sampled_from([None, "query", "document", "other"]),
            output_dimension=lengths,
            truncation=st.none() | st.booleans(),
            encoding_format=st.sampled_from([None, "base64"]),
        ),
        body({"data": openai_rows}),
        ("model", "dimensions", "input_type"),
    ),
    "jina": Format(
        PROVIDERS["jina"].embeddings,
        body(
            {"input": some_texts, "model": names},
            task=st.sampled_from([None, "retrieval.query", "retrieval.passage", "separation"]),
            embedding_type=st.sampled_from([None, "float", "base64"]),
        ),
        body({"data": openai_rows}),
        ("model", "dimensions", "encoding_format", "input_type"),
    ),
    "gemini": Format(
        GeminiEmbeddings(),
        body({"requests": st.lists(gemini_one, min_size=1, max_size=3)}, model=names)
        | body({"requests": st.lists(gemini_one, min_size=1, max_size=3)}).map(
            lambda told: {**told, "requests": [{**each, "model": "gemini-embedding-2"} for each in told["requests"]]}
        )
        | gemini_one,
        body(
            {"embeddings": gemini_rows},
            usageMetadata=st.none() | body({}, promptTokenCount=counts, totalTokenCount=counts),
        )
        | body({"embedding": body({"values": st.lists(finite, min_size=1)})}, usageMetadata=st.none() | body({})),
        ("model", "dimensions", "input_type"),
    ),
    "gemini, one at a time": Format(
        PROVIDERS["vertex"].embeddings,
        gemini_one
        | body({"content": contents, "embedContentConfig": body({}, taskType=names, outputDimensionality=lengths)})
        | body({"requests": st.lists(gemini_one, min_size=1, max_size=3)}),
        body({"embedding": body({"values": st.lists(finite, min_size=1)})}) | body({"embeddings": gemini_rows}),
        ("dimensions", "input_type"),
    ),
    "cohere": Format(
        CohereEmbeddings(),
        body(
            {"model": names, "texts": some_texts},
            input_type=st.sampled_from([None, "search_query", "search_document", "clustering"]),
            embedding_types=st.none() | st.lists(st.sampled_from(["float", "base64", "int8"]), max_size=2),
            output_dimension=lengths,
            truncate=st.sampled_from([None, "NONE", "END"]),
        )
        | body({"model": names, "images": st.lists(texts, min_size=1, max_size=2)}, input_type=st.just("image"))
        | body({"model": names, "inputs": st.lists(cohere_object, min_size=1, max_size=2)}),
        body({"embeddings": vectors}, texts=some_texts)
        | body(
            {"embeddings": cohere_types},
            id=texts,
            meta=body({}, billed_units=body({}, input_tokens=counts, image_tokens=counts)),
        ),
        ("model", "dimensions", "encoding_format", "input_type"),
    ),
    "ollama": Format(
        OllamaEmbeddings(),
        body(
            {"model": names, "input": texts | some_texts},
            truncate=st.none() | st.booleans(),
            dimensions=lengths,
            options=unknown,
            keep_alive=texts,
        )
        | body({"model": names, "prompt": texts}, options=unknown),
        body({"embeddings": vectors}, model=names, prompt_eval_count=counts, total_duration=counts)
        | body({"embedding": st.lists(finite, min_size=1)}),
        ("model", "dimensions"),
    ),
    "vertex": Format(
        VertexEmbeddings(),
        body(
            {"instances": st.lists(vertex_one, min_size=1, max_size=3)},
            parameters=st.none() | body({}, outputDimensionality=lengths, autoTruncate=st.none() | st.booleans()),
        ),
        body(
            {"predictions": st.lists(vertex_row, min_size=1, max_size=3)},
            metadata=body({}, billableCharacterCount=counts),
        ),
        ("dimensions", "input_type"),
    ),
    "tei": Format(
        TeiEmbeddings(),
        body(
            {"inputs": texts | some_texts | st.lists(st.lists(st.integers(0, 9)), min_size=1, max_size=2)},
            truncate=st.none() | st.booleans(),
            prompt_name=st.sampled_from([None, "query", "document", "other"]),
            dimensions=lengths,
        ),
        vectors,
        ("dimensions", "input_type"),
    ),
    "rerank": Format(
        CohereRerank(),
        body(
            {"query": texts, "documents": st.lists(texts | unknown, min_size=1, max_size=3)},
            model=names,
            top_n=st.none() | st.integers(0, 9),
            return_documents=st.booleans(),
        ),
        body(
            {"results": rows("relevance_score")},
            model=names,
            id=texts,
            usage=body({}, prompt_tokens=counts, total_tokens=counts, cost=finite),
            meta=body({}, tokens=body({}, input_tokens=counts)),
        ),
        ("model", "query", "documents", "top_n"),
    ),
    "voyage's rerank": Format(
        PROVIDERS["voyage"].rerank,
        body(
            {"query": texts, "documents": some_texts, "model": names},
            top_k=st.none() | st.integers(0, 9),
            truncation=st.none() | st.booleans(),
        ),
        body({"data": rows("relevance_score")}, usage=body({}, total_tokens=counts)),
        ("model", "query", "documents", "top_n"),
    ),
    "tei's rerank": Format(
        TeiRerank(),
        body(
            {"query": texts, "texts": some_texts},
            raw_scores=st.none() | st.booleans(),
            return_text=st.booleans(),
        ),
        rows("score"),
        ("query", "documents"),
    ),
}
VECTORS = {name: each for name, each in FORMATS.items() if "rerank" not in name}
RANKS = {name: each for name, each in FORMATS.items() if "rerank" in name}


def of(formats):
    return pytest.mark.parametrize("kind", [pytest.param(each, id=name) for name, each in formats.items()])


@of(FORMATS)
@given(st.data())
def test_a_request_on_the_wire_is_kept(kind, data):
    told, dialect = data.draw(kind.requests), kind.dialect
    http, _ = dialect.encode_request(dialect.decode_request(json.dumps(told).encode()))
    again = json.loads(http.body)
    assert dialect.canonical_request(again) == dialect.canonical_request(told)
    assert http.method == "POST"


@of(FORMATS)
@given(st.data())
def test_an_answer_on_the_wire_is_kept(kind, data):
    told, dialect = data.draw(kind.answers), kind.dialect
    again = json.loads(dialect.encode_response(dialect.decode_answer(json.dumps(told).encode())))
    assert dialect.canonical_answer(again) == dialect.canonical_answer(told)


embedding_requests = st.builds(
    EmbeddingRequest,
    model=names,
    inputs=st.lists(texts, min_size=1, max_size=3).map(tuple),
    dimensions=lengths,
    encoding_format=st.none() | st.sampled_from(["float", "base64"]),
    input_type=st.none() | st.sampled_from(["query", "document"]),
    user=st.none() | texts,
)


@of(VECTORS)
@given(embedding_requests)
def test_a_request_of_ours_is_understood_but_for_what_is_said(kind, request):
    dialect = kind.dialect
    if getattr(dialect, "method", "") == "embedContent":
        request = msgspec.structs.replace(request, inputs=request.inputs[:1])
    http, notices = dialect.encode_request(request)
    again = dialect.decode_request(http.body)
    assert again.inputs == request.inputs
    for name in ("model", *EmbeddingOptions.__annotations__.keys() - {"model", "extra", "headers"}):
        told = getattr(request, name)
        if name in kind.keeps and told is not None:
            assert getattr(again, name) == told
            assert name not in {notice.subject for notice in notices}
        elif told not in (None, "float") and name != "model":
            # The Voyage row asks for base64 by its own word.
            is_told = name in {notice.subject for notice in notices} or (name, told) == ("encoding_format", "base64")
            assert is_told


@of(RANKS)
@given(
    st.builds(
        RerankRequest,
        model=names,
        query=texts,
        documents=st.lists(texts, min_size=1, max_size=3).map(tuple),
        top_n=st.none() | st.integers(0, 9),
    )
)
def test_a_ranking_that_we_ask_for_is_understood(kind, request):
    again = kind.dialect.decode_request(kind.dialect.encode_request(request)[0].body)
    for name in kind.keeps:
        assert getattr(again, name) == getattr(request, name)


@of(VECTORS)
@given(
    st.integers(1, 4).flatmap(
        lambda length: st.lists(st.lists(singles, min_size=length, max_size=length), min_size=1, max_size=4)
    ),
    st.sampled_from(["float", "base64"]),
    counts,
)
def test_vectors_of_ours_are_understood(kind, vectors, encoding, tokens):
    usage = Usage(input=tokens, reported_total=tokens)
    response = EmbeddingResponse(vectors=vectors, usage=usage, model="m", encoding_format=encoding)
    again = kind.dialect.decode_answer(kind.dialect.encode_response(response))
    assert again.vectors == vectors
    assert again.usage.input_tokens in (tokens, None)
    assert again.model in ("m", None)


@of(RANKS)
@given(st.lists(st.integers(0, 99), unique=True, max_size=5), st.data(), counts)
def test_ranks_of_ours_are_understood(kind, indexes, data, tokens):
    told = tuple(Rank(index, data.draw(finite)) for index in indexes)
    usage = Usage(input=tokens, reported_total=tokens)
    again = kind.dialect.decode_answer(kind.dialect.encode_response(RerankResponse(ranks=told, usage=usage, model="m")))
    assert again.ranks == told
    assert again.usage in (usage, Usage())


@of(VECTORS)
def test_there_is_a_verdict_on_every_option(kind):
    verdicts = kind.dialect.verdicts()
    assert verdicts.keys() == EmbeddingOptions.__annotations__.keys() - {"model"}
    values = {"dimensions": 8, "encoding_format": "base64", "input_type": "query", "user": "u"}
    plain = EmbeddingRequest(model="m", inputs=("a",))
    without = json.loads(kind.dialect.encode_request(plain)[0].body)
    for option, value in values.items():
        http, notices = kind.dialect.encode_request(msgspec.structs.replace(plain, **{option: value}))
        if isinstance(verdicts[option], Unsupported):
            assert [(notice.kind, notice.subject) for notice in notices] == [("unsupported", option)]
            assert notices[0].message == f"{option} was not sent: {verdicts[option]}"
            assert json.loads(http.body) == without
        else:
            assert notices == ()
            assert f'"{verdicts[option]}":'.encode() in http.body


@of(RANKS)
def test_there_is_a_verdict_on_every_option_of_a_ranking(kind):
    assert kind.dialect.verdicts().keys() == RerankOptions.__annotations__.keys() - {"model"}


def test_every_row_has_a_format_that_is_tested():
    tested = {type(each.dialect) for each in FORMATS.values()}
    for row in PROVIDERS.values():
        by_model = [made for _, made in row.embeddings_by_model]
        assert {type(made) for made in (row.embeddings, row.rerank, *by_model) if made is not None} <= tested
        assert row.has_chat or row.embeddings or row.rerank
    rows = {name for name, row in PROVIDERS.items() if row.embeddings is not None}
    assert {"openai", "azure", "gemini", "google", "vertex", "mistral", "ollama", "llama-server"} <= rows
    assert {"cohere", "voyage", "jina", "tei"} <= rows & {name for name, row in PROVIDERS.items() if row.rerank}


@of(FORMATS)
def test_extra_fields_and_headers_are_passed_on_and_others_states_are_not(kind):
    told = {"extra": {"x": 1}, "headers": {"x-trace": "1"}, "state": ProviderState("other", {"set": {"secret": 1}})}
    made = (
        RerankRequest(model="m", query="q", documents=("a",), **told)
        if kind in RANKS.values()
        else EmbeddingRequest(model="m", inputs=("a",), **told)
    )
    http, notices = kind.dialect.encode_request(made)
    assert (b'"x":1' in http.body, b"secret" in http.body, notices) == (True, False, ())
    assert dict(http.headers) == {"content-type": "application/json", "x-trace": "1"}


@of(FORMATS)
@pytest.mark.parametrize("told", [b"{", b"[]", b"{}", b'"a"', b'{"model": "m", "query": "q"}', b'{"model": 5}'])
def test_a_request_that_is_none_is_refused(kind, told):
    with pytest.raises(BadRequestError) as caught:
        kind.dialect.decode_request(told)
    assert caught.value.status == 400


@of(FORMATS)
@pytest.mark.parametrize("told", [b"", b"<html>", b'{"embeddings": [[NaN]]}', b"5", b"{}", b'{"error": "no"}'])
def test_an_answer_that_is_none_is_an_error(kind, told):
    with pytest.raises(SabirError) as caught:
        kind.dialect.decode_answer(told)
    assert type(caught.value).__name__ in ("ServerError", "StreamProtocolError")


@of(FORMATS)
def test_an_error_that_came_with_status_200_is_that_error(kind):
    with pytest.raises(RateLimitError, match="slow down"):
        kind.dialect.decode_answer(b'{"error": {"message": "slow down", "code": 429}}')


@of(FORMATS)
@given(st.binary(max_size=80) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_read_or_refused_with_an_error_of_the_family(kind, data):
    for read in (kind.dialect.decode_answer, kind.dialect.decode_request):
        try:
            read(data)
        except SabirError:
            pass


@of(FORMATS)
@given(st.data())
def test_what_is_nearly_a_body_is_read_or_refused_with_an_error_of_the_family(kind, data):
    dialect = kind.dialect
    for read, bodies in ((dialect.decode_answer, kind.answers), (dialect.decode_request, kind.requests)):
        whole = data.draw(bodies)
        if isinstance(whole, dict) and whole:
            whole = {**whole, data.draw(st.sampled_from(sorted(whole))): data.draw(json_values)}
        elif isinstance(whole, list) and whole:
            whole = [*whole[:-1], data.draw(json_values)]
        try:
            read(json.dumps(whole).encode())
        except SabirError:
            pass


@of(FORMATS)
@pytest.mark.parametrize(
    ("error", "expected", "status"),
    [
        (AuthenticationError("who are you", code="invalid_api_key"), AuthenticationError, 401),
        (NotFoundError("there is no model 'x' here"), NotFoundError, 404),
        (BadRequestError("texts: at least one", status=422), BadRequestError, 422),
        (ConfigurationError("no"), BadRequestError, 400),
        (RateLimitError("slow down"), RateLimitError, 429),
        (OverloadedError("full"), OverloadedError, 503),
        (ServerError("broken"), ServerError, 500),
    ],
)
def test_an_error_goes_there_and_back(kind, error, expected, status):
    told, data = kind.dialect.encode_error(error)
    again = kind.dialect.decode_error(told, {"x-request-id": "r"}, data)
    assert (type(again), again.status, again.request_id) == (expected, status, "r")
    assert error.message in again.message


@of(VECTORS)
@pytest.mark.parametrize("value", [[1, 2], {"a": 1}], ids=["token ids", "an object"])
def test_what_is_no_text_is_sent_or_refused_in_words(kind, value):
    taken = {"openai": [list, dict], "gemini": [dict], "cohere": [dict], "tei": [list], "ollama": [], "vertex": [dict]}
    request = EmbeddingRequest(model="m", inputs=(value,))
    if type(value) in taken[kind.dialect.name.removesuffix("_embeddings")]:
        assert json.dumps(value, separators=(",", ":")).encode() in kind.dialect.encode_request(request)[0].body
    else:
        with pytest.raises(UnsupportedError, match="texts"):
            kind.dialect.encode_request(request)


# A call, from our client to our server half


@pytest.fixture(scope="module")
def app():
    return Embedder(KEY)


@pytest.fixture(scope="module")
def url(app):
    with served(app) as url:
        yield url.removesuffix("/v1")


ROWS = {
    "openai": "/v1",
    "azure": "/v1",
    "mistral": "/mistral",
    "gemini": "/v1beta",
    "vertex": "/v1beta",
    "cohere": "/v2",
    "voyage": "/voyage",
    "jina": "/jina",
    "ollama": "",
    "tei": "",
}


@pytest.mark.parametrize("row", ROWS)
async def test_a_row_embeds_and_says_what_a_text_is_for(surface, app, url, row):
    client = surface.client(f"{row}:{MODEL}", base_url=url + ROWS[row], api_key=KEY, on_unsupported="ignore")
    several = [f"text {number}" for number in range(40)]
    for kind in ("query", "document"):
        embedded = await client.embed(several, input_type=kind)
        assert [pytest.approx(each, abs=1e-6) for each in embedded] == [vector(text) for text in several]
        is_told = not isinstance(PROVIDERS[row].embeddings.verdicts()["input_type"], Unsupported)
        assert app.asked[-1].input_type == (kind if is_told else None)
        assert [notice.subject for notice in embedded.warnings] == ([] if is_told else ["input_type"])
    assert len(embedded.attempts) == {"tei": 2}.get(row, 1)
    assert len(await client.embed("a", dimensions=8)) == 8


@pytest.mark.parametrize("row", ["voyage", "jina", "tei"])
async def test_a_row_that_holds_no_conversations_says_so(surface, url, row):
    client = surface.client(f"{row}:{MODEL}", base_url=url + ROWS[row], api_key=KEY)
    with pytest.raises(UnsupportedError, match=f"{row}:{MODEL} holds no conversations; ask it for embed"):
        await client.ask("Hello")
    with pytest.raises(UnsupportedError, match="holds no conversations"):
        client.explain("Hello")


@pytest.mark.parametrize("value", ["search", "", 5])
async def test_a_kind_of_text_that_there_is_not_is_told(surface, url, value):
    client = surface.client(f"tei:{MODEL}", base_url=url)
    with pytest.raises(ConfigurationError, match=f"input_type is one of query, document, not {value!r}"):
        await client.embed("a", input_type=value)


# Recorded traffic


@needs_recordings
@pytest.mark.parametrize("name", sorted([*EMBEDDINGS, *RERANKS]))
def test_recorded_traffic_passes(name):
    results = list(replay_file(RECORDINGS / f"{name}.jsonl"))
    assert {result.id: result.notes for result in results if result.verdict != "passed"} == {}
    assert all(result.request_round_trip and result.response_round_trip for result in results)
    assert len(results) == len((RECORDINGS / f"{name}.jsonl").read_text().splitlines())
    for result in results:
        assert (result.decoded is None) is (result.error is not None)


@needs_recordings
@pytest.mark.parametrize("name", sorted(EMBEDDINGS))
def test_recorded_vectors_are_read_as_they_stand(name):
    """Every list of numbers in an answer, wherever its format has it, is one of our vectors, and in this order."""
    read = 0
    for line in (RECORDINGS / f"{name}.jsonl").read_text().splitlines():
        exchange = json.loads(line)
        if exchange["response"]["status"] >= 400:
            continue
        told = exchange["response"]["body"]
        response = EMBEDDINGS[name].decode_answer(json.dumps(told).encode())
        found = list(lists_of_numbers(without_nulls(told)))
        if response.encoding_format == "float":
            assert response.vectors == found
            read += len(found)
        asked = EMBEDDINGS[name].decode_request(json.dumps(exchange["request"]["body"]).encode())
        assert len(asked.inputs) == len(response.vectors)
    assert read >= 4


def lists_of_numbers(value):
    if isinstance(value, list) and value and all(isinstance(each, (int, float)) for each in value):
        yield value
    elif isinstance(value, (list, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from lists_of_numbers(inner)


@needs_recordings
def test_recorded_ranks_are_read_as_they_stand():
    for line in (RECORDINGS / "rerank.jsonl").read_text().splitlines():
        exchange = json.loads(line)
        told = exchange["response"]["body"]
        response = RERANKS["rerank"].decode_answer(json.dumps(told).encode())
        rows = told.get("results", told.get("data"))
        assert [(rank.index, rank.score) for rank in response.ranks] == [
            (row["index"], row["relevance_score"]) for row in rows
        ]
        assert response.usage.input_tokens == told.get("usage", {}).get("total_tokens")
