"""OpenAI's embeddings on the wire: both halves, the laws that tie them, and what real servers have said.

encode(decode(b)) == canonical(b); decode(encode(v)) == v. The recordings are not in the repository.
"""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path

import mistralai.client as mistralai
import msgspec
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import Server, whole

from sabir.dialects import EmbeddingRequest, EmbeddingResponse, Unsupported
from sabir.dialects.leftovers import without_nulls
from sabir.dialects.openai_embeddings import EMBEDDING_PARAMETERS, NAME, OpenAIEmbeddings
from sabir.errors import (
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    RateLimitError,
    SabirError,
    ServerError,
    StreamProtocolError,
)
from sabir.messages import ProviderState
from sabir.options import EmbeddingOptions
from sabir.providers import PROVIDERS
from sabir.testing.replay import replay_file
from sabir.usage import Usage

DIALECT = OpenAIEmbeddings()
RECORDINGS = Path(__file__).resolve().parent.parent.parent / "shared" / "recordings" / "openai-embeddings.jsonl"
EXCHANGES = [json.loads(line) for line in RECORDINGS.read_text().splitlines()] if RECORDINGS.exists() else []
ANSWERS = [each for each in EXCHANGES if each["response"]["status"] < 400]
ERRORS = [each for each in EXCHANGES if each["response"]["status"] >= 400]
# Mistral's SDK wants an id of every answer, and will have a usage of three counts.
ANSWER_ID = ProviderState(
    NAME,
    {"answer": {"set": {"id": "e1", "usage": {"prompt_tokens": 4, "completion_tokens": 0, "total_tokens": 4}}}},
)
KINDS = {400: BadRequestError, 401: AuthenticationError, 404: NotFoundError, 429: RateLimitError}

needs_recordings = pytest.mark.skipif(not RECORDINGS.exists(), reason=f"there are no recordings at {RECORDINGS}")
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.text("abcdefghij_", min_size=1, max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)
# Fields that nobody has heard of, at any place of a body.
unknown = st.dictionaries(names.map("x_{}".format), json_values, max_size=2)
finite = st.floats(allow_nan=False, allow_infinity=False)
singles = st.floats(width=32, allow_nan=False, allow_infinity=False)


def cases(exchanges):
    return pytest.mark.parametrize("exchange", [pytest.param(each, id=each["id"]) for each in exchanges])


def encoded(request, dialect=DIALECT):
    return json.loads(dialect.encode_request(request)[0].body)


def decoded(body, dialect=DIALECT):
    return dialect.decode_request(json.dumps(body).encode())


def answered(*rows, **more):
    return DIALECT.decode_answer(json.dumps({"object": "list", "data": rows, "model": "m", **more}).encode())


def row(index, *numbers, **more):
    return {"object": "embedding", "index": index, "embedding": list(numbers), **more}


def packed(*numbers):
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def keeps_request(body):
    assert without_nulls(encoded(decoded(body))) == DIALECT.canonical_request(body)


def keeps_answer(body):
    response = DIALECT.decode_answer(json.dumps(body).encode())
    again = json.loads(DIALECT.encode_response(response))
    assert DIALECT.canonical_answer(again) == DIALECT.canonical_answer(body)


# Requests


def test_a_request_says_what_was_asked_and_no_more():
    plain = EmbeddingRequest(model="m", inputs=("a", "b"))
    assert encoded(plain) == {"model": "m", "input": ["a", "b"]}
    full = EmbeddingRequest(
        model="m",
        inputs=("a",),
        dimensions=8,
        encoding_format="base64",
        user="u",
        extra={"input_type": "query"},
        headers={"x-trace": "1"},
    )
    http, notices = DIALECT.encode_request(full)
    assert json.loads(http.body) == {
        "model": "m",
        "input": ["a"],
        "dimensions": 8,
        "encoding_format": "base64",
        "user": "u",
        "input_type": "query",
    }
    assert (http.method, http.url, notices) == ("POST", "/embeddings", ())
    assert dict(http.headers) == {"content-type": "application/json", "x-trace": "1"}


def test_a_row_chooses_how_vectors_travel_where_the_caller_does_not():
    base64_row = OpenAIEmbeddings(encoding_unless_asked="base64")
    assert encoded(EmbeddingRequest(model="m", inputs=("a",)), base64_row)["encoding_format"] == "base64"
    asked = EmbeddingRequest(model="m", inputs=("a",), encoding_format="float")
    assert encoded(asked, base64_row)["encoding_format"] == "float"
    # A client of ours that says nothing wants what its server would give.
    assert "encoding_format" not in encoded(decoded({"model": "m", "input": "a"}, base64_row), base64_row)


def test_what_a_server_has_no_word_for_is_not_sent_and_said_to_be_so():
    words = {**EMBEDDING_PARAMETERS, "dimensions": Unsupported("cut them yourself"), "user": "end_user"}
    http, notices = OpenAIEmbeddings(parameters=words).encode_request(
        EmbeddingRequest(model="m", inputs=("a",), dimensions=8, user="u")
    )
    assert json.loads(http.body) == {"model": "m", "input": ["a"], "end_user": "u"}
    assert [(notice.kind, notice.subject) for notice in notices] == [("unsupported", "dimensions")]
    assert notices[0].message == "dimensions was not sent: cut them yourself"


def test_there_is_a_verdict_on_every_option():
    dialects = [row.embeddings for row in PROVIDERS.values() if isinstance(row.embeddings, OpenAIEmbeddings)]
    assert len(dialects) >= 5
    for dialect in dialects:
        assert dialect.verdicts().keys() == EmbeddingOptions.__annotations__.keys() - {"model"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"input": "a", "dimensions": None, "user": None}, {"input": "a"}),
        ({"input": "a"}, {"input": ["a"]}),
        ({"input": [1, 2]}, {"input": [[1, 2]]}),
    ],
    ids=["null is absent", "one text", "the tokens of one text"],
)
def test_each_equivalence_of_requests_is_one(one, other):
    assert DIALECT.canonical_request({"model": "m", **one}) == DIALECT.canonical_request({"model": "m", **other})
    assert decoded({"model": "m", **one}) == decoded({"model": "m", **other})
    keeps_request({"model": "m", **one})


def test_nothing_else_is_equivalent():
    base = {"model": "m", "input": ["a"]}
    for different in (
        {"input": ["a", "a"]},
        {"input": [[1]]},
        {"input": [{"text": "a"}]},
        {"dimensions": 1},
        {"encoding_format": "float"},
        {"beta": []},
        {"model": ""},
    ):
        assert DIALECT.canonical_request({**base, **different}) != DIALECT.canonical_request(base)
        keeps_request({**base, **different})


@given(
    st.fixed_dictionaries(
        {
            "input": texts
            | st.lists(texts, min_size=1, max_size=3)
            | st.lists(st.integers(0, 99), min_size=1, max_size=3)
            | st.lists(st.lists(st.integers(0, 99), max_size=3), min_size=1, max_size=3)
            | st.lists(unknown, min_size=1, max_size=2)
        },
        optional={
            "model": names,
            "dimensions": st.none() | st.integers(1, 9999),
            "encoding_format": st.none() | st.sampled_from(["float", "base64"]),
            "user": st.none() | texts,
        },
    ).flatmap(lambda body: unknown.map(lambda more: {**more, **body}))
)
def test_a_request_on_the_wire_is_kept(body):
    keeps_request(body)


@given(
    st.builds(
        EmbeddingRequest,
        model=names,
        inputs=st.lists(texts, min_size=1, max_size=3).map(tuple),
        dimensions=st.none() | st.integers(1, 9999),
        encoding_format=st.none() | st.sampled_from(["float", "base64"]),
        user=st.none() | texts,
    )
)
def test_a_request_of_ours_is_understood(request):
    assert DIALECT.decode_request(DIALECT.encode_request(request)[0].body) == request


@pytest.mark.parametrize(
    ("body", "objection"),
    [
        (b"{", "no JSON"),
        (b"[]", "no JSON object"),
        (b'{"model": "m"}', "input: "),
        (b'{"model": "m", "input": []}', "input: at least one"),
        (b'{"model": "m", "input": 5}', "input: "),
        (b'{"model": "m", "input": ["a", null]}', r"input\[1\]: "),
        (b'{"model": "m", "input": [1, "a"]}', r"input\[0\]\[1\]: "),
        (b'{"model": "m", "input": [true]}', r"input\[0\]: "),
        (b'{"model": 5, "input": "a"}', "model: "),
        (b'{"model": "m", "input": "a", "dimensions": 0}', "dimensions: .*>= 1"),
        (b'{"model": "m", "input": "a", "dimensions": "8"}', "dimensions: "),
        (b'{"model": "m", "input": "a", "encoding_format": "hex"}', "encoding_format: .*hex"),
        (b'{"model": "m", "input": "a", "user": 1}', "user: "),
    ],
)
def test_a_request_that_the_format_does_not_allow_is_refused_and_told_where(body, objection):
    with pytest.raises(BadRequestError, match=f"^(the body is )?{objection}") as caught:
        DIALECT.decode_request(body)
    assert caught.value.status == 400


def test_what_another_dialect_made_is_not_sent():
    request = EmbeddingRequest(model="m", inputs=("a",), state=ProviderState("other", {"set": {"secret": 1}}))
    assert encoded(request) == {"model": "m", "input": ["a"]}


# Answers


def test_an_answer_has_its_vectors_model_and_usage():
    response = answered(row(0, 1, 0.5), row(1, -2.0, 0), usage={"prompt_tokens": 3, "total_tokens": 3})
    assert response == EmbeddingResponse(
        vectors=[[1.0, 0.5], [-2.0, 0.0]], usage=Usage(input=3, reported_total=3), model="m"
    )
    assert {type(number) for vector in response.vectors for number in vector} == {float}


def test_base64_is_little_endian_32_bit_floats():
    response = answered({**row(0), "embedding": "AACAPwAAAMA="}, {**row(1), "embedding": packed(0.1, 3e38)})
    assert response.vectors == [[1.0, -2.0], list(struct.unpack("<2f", struct.pack("<2f", 0.1, 3e38)))]
    assert response.encoding_format == "base64"


def test_a_usage_that_tells_only_the_total_tells_the_input():
    assert answered(row(0, 1), usage={"total_tokens": 7}).usage == Usage(input=7, reported_total=7)
    assert answered(row(0, 1), usage={}).usage == Usage()
    assert answered(row(0, 1)).usage == Usage()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_vectors_are_in_the_order_of_their_indexes(order):
    rows = [row(number, number + 0.5, note=f"n{number}") for number in order]
    assert answered(*rows).vectors == [[0.5], [1.5], [2.5]]
    keeps_answer({"object": "list", "data": rows})
    assert DIALECT.canonical_answer({"data": rows}) == DIALECT.canonical_answer({"data": sorted(rows, key=str)})


def test_rows_without_an_index_are_in_the_order_of_the_inputs():
    rows = [{"embedding": [1.0]}, {"embedding": [2.0]}]
    assert answered(*rows).vectors == [[1.0], [2.0]]
    keeps_answer({"data": rows})


@pytest.mark.parametrize(
    ("rows", "objection"),
    [
        ([row(0, 1), row(0, 2)], "two embeddings have the index 0"),
        ([row(0, 1), row(2, 2)], "of 2 embeddings one has the index 2"),
        ([row(1, 1)], "of 1 embeddings one has the index 1"),
        ([row(-1, 1), row(0, 2)], "index -1"),
        ([row("0", 1)], "index '0'"),
        ([row(0, 1), row(None, 2)], "index None"),
        ([row([], 1)], r"index \[\]"),
        ([5], "no JSON object"),
        ([{"index": 0}], "no vector"),
        ([row(0)], "empty vector"),
        ([row(0, None)], "no vector.*got `null`"),
        ([row(0, "1")], "no vector"),
        ([row(0, True)], "no vector"),
        ([row(0, [1, 2])], "no vector"),
        ([{**row(0), "embedding": {"a": 1}}], "no vector"),
        ([{**row(0), "embedding": ""}], "no vector: it is empty"),
        ([{**row(0), "embedding": "AACAPw"}], "no vector"),
        ([{**row(0), "embedding": "AACAPwA="}], "no vector"),
        ([{**row(0), "embedding": "AACA\nPw=="}], "no vector"),
        ([{**row(0), "embedding": "héllo"}], "no vector"),
        ([{**row(0), "embedding": packed(1.0, float("nan"))}], "not all its numbers are finite"),
        ([{**row(0), "embedding": packed(float("-inf"), float("inf"))}], "not all its numbers are finite"),
        ([row(0, 1), {**row(1), "embedding": packed(1)}], "no vector"),
        ([{**row(0), "embedding": packed(1)}, row(1, 1)], "no vector"),
    ],
)
def test_an_answer_with_a_vector_that_is_none_or_comes_twice_is_an_error(rows, objection):
    with pytest.raises(StreamProtocolError, match=objection):
        answered(*rows)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", ServerError),
        (b"<html>bad gateway</html>", ServerError),
        (b'{"data": [', ServerError),
        (b'{"data": [{"index": 0, "embedding": [NaN]}]}', ServerError),
        (b"[]", StreamProtocolError),
        (b"{}", StreamProtocolError),
        (b'{"data": {}}', StreamProtocolError),
        (b'{"error": {"message": "slow down", "code": 429}}', RateLimitError),
        (b'{"error": "no", "data": []}', ServerError),
    ],
)
def test_what_is_no_answer_is_an_error(body, kind):
    with pytest.raises(SabirError) as caught:
        DIALECT.decode_answer(body)
    assert type(caught.value) is kind


rows_on_the_wire = st.lists(
    st.tuples(st.lists(finite, min_size=1, max_size=4), unknown, st.booleans()), max_size=4
).flatmap(
    lambda rows: st.permutations(
        [
            {**more, "index": number, "embedding": vector, **({"object": "embedding"} if named else {})}
            for number, (vector, more, named) in enumerate(rows)
        ]
    )
)


@given(
    st.fixed_dictionaries(
        {"data": rows_on_the_wire},
        optional={
            "object": names,
            "model": st.none() | names,
            "id": names,
            "usage": st.none()
            | st.fixed_dictionaries(
                {},
                optional={
                    "prompt_tokens": st.none() | st.integers(0, 99),
                    "total_tokens": st.integers(0, 99),
                    "completion_tokens": st.integers(0, 99),
                    "prompt_tokens_details": st.none() | unknown,
                    "cost": st.floats(0, 1),
                },
            ),
        },
    ).flatmap(lambda body: unknown.map(lambda more: {**more, **body}))
)
def test_an_answer_on_the_wire_is_kept(body):
    keeps_answer(body)


@given(
    st.integers(1, 4).flatmap(lambda length: st.lists(st.lists(singles, min_size=length, max_size=length), max_size=4)),
    st.sampled_from(["float", "base64"]),
    st.none() | names,
    st.none() | st.integers(0, 99),
)
def test_an_answer_of_ours_is_understood(vectors, encoding, model, tokens):
    usage = Usage(input=tokens, reported_total=tokens)
    encoding = encoding if vectors else "float"
    response = EmbeddingResponse(vectors=vectors, usage=usage, model=model, encoding_format=encoding)
    assert DIALECT.decode_answer(DIALECT.encode_response(response)) == response


@given(st.lists(singles, min_size=1, max_size=5))
def test_base64_is_read_as_python_packs_it(numbers):
    text = packed(*numbers)
    assert answered({**row(0), "embedding": text}).vectors == [numbers]
    keeps_answer({"data": [{**row(0), "embedding": text}]})


def test_a_number_beyond_32_bits_is_not_rounded_to_infinity():
    response = EmbeddingResponse(vectors=[[1e300]], encoding_format="base64")
    with pytest.raises(ValueError, match="too large for 32 bits"):
        DIALECT.encode_response(response)


@given(st.binary(max_size=80) | json_values.map(lambda value: json.dumps({"data": value, "input": value}).encode()))
def test_any_bytes_are_read_or_refused_with_an_error_of_the_family(data):
    for read in (DIALECT.decode_answer, DIALECT.decode_request):
        try:
            read(data)
        except SabirError:
            pass


def test_an_error_goes_there_and_back():
    status, body = DIALECT.encode_error(NotFoundError("there is no model 'x' here", code="model_not_found"))
    again = DIALECT.decode_error(status, {"x-request-id": "r"}, body)
    assert (type(again), again.status, again.code, again.request_id) == (NotFoundError, 404, "model_not_found", "r")


# Recorded traffic


@needs_recordings
def test_the_recordings_hold_all_sorts():
    assert len(ANSWERS) >= 27
    assert len(ERRORS) >= 10
    assert len({each["provider"] for each in EXCHANGES}) >= 8


@needs_recordings
def test_recorded_traffic_passes():
    results = list(replay_file(RECORDINGS))
    assert {result.id: result.notes for result in results if result.verdict != "passed"} == {}
    assert all(result.request_round_trip and result.response_round_trip for result in results)
    assert len(results) == len(EXCHANGES)


@cases(ANSWERS)
def test_a_recorded_answer_is_read_as_it_stands(exchange):
    body = exchange["response"]["body"]
    response = DIALECT.decode_answer(json.dumps(body).encode())
    for number, wire in enumerate(body["data"]):
        vector = wire["embedding"]
        if isinstance(vector, str):
            data = base64.b64decode(vector)
            vector = list(struct.unpack(f"<{len(data) // 4}f", data))
        assert wire["index"] == number
        assert response.vectors[number] == vector
    assert len(response.vectors) == len(body["data"])
    assert response.model == body["model"]
    assert response.usage.total_tokens == response.usage.reported_total == body["usage"]["total_tokens"]
    assert response.encoding_format == (exchange["request"]["body"].get("encoding_format") or "float")


@cases(ERRORS)
def test_a_recorded_error_is_of_the_kind_its_status_says(exchange):
    response = exchange["response"]
    body = json.dumps(response["body"]).encode()
    error = DIALECT.decode_error(response["status"], response.get("headers") or {}, body)
    # Mistral's type says more than its status.
    is_unknown_model = response["body"].get("type") == "invalid_model"
    assert type(error) is (NotFoundError if is_unknown_model else KINDS[response["status"]])
    told = response["body"].get("error", response["body"])
    assert (told.get("message") or told["detail"]) in str(error)
    assert not error.retryable


@cases(ANSWERS)
def test_a_recorded_answer_is_read_as_the_openai_sdk_reads_it(exchange):
    """The SDK asks for base64 where nothing is said, and then turns both formats into floats."""
    data = json.dumps(exchange["response"]["body"]).encode()
    response = DIALECT.decode_answer(data)
    with (
        Server(whole(data, "Content-Type: application/json")) as server,
        openai.OpenAI(base_url=server.url, api_key="k", max_retries=0) as sdk,
    ):
        theirs = sdk.embeddings.create(model="m", input=["a"] * len(response.vectors))
    assert [each.embedding for each in theirs.data] == response.vectors
    assert theirs.model == response.model
    assert theirs.usage.total_tokens == response.usage.reported_total


def test_our_bytes_are_read_by_the_openai_sdk_in_both_formats():
    vectors = [[0.5, -0.25], [1.0, 3.0]]
    for encoding in ("float", "base64"):
        usage = Usage(input=4, reported_total=4)
        data = DIALECT.encode_response(
            EmbeddingResponse(vectors=vectors, usage=usage, model="m", encoding_format=encoding)
        )
        with (
            Server(whole(data, "Content-Type: application/json")) as server,
            openai.OpenAI(base_url=server.url, api_key="k", max_retries=0) as sdk,
        ):
            theirs = sdk.embeddings.create(model="m", input=["a", "b"])
            (call,) = server.calls
        assert [each.embedding for each in theirs.data] == vectors
        assert [each.index for each in theirs.data] == [0, 1]
        assert (theirs.object, theirs.model, theirs.usage.prompt_tokens) == ("list", "m", 4)
        # What the SDK sends is a request of this format.
        asked = DIALECT.decode_request(call.body)
        assert asked == EmbeddingRequest(model="m", inputs=("a", "b"), encoding_format="base64")


def test_our_bytes_are_read_by_mistrals_sdk_which_asks_in_the_words_of_its_row():
    row, vectors = PROVIDERS["mistral"].embeddings, [[0.5, -0.25], [1.0, 3.0]]
    response = EmbeddingResponse(vectors=vectors, usage=Usage(input=4, reported_total=4), model="m")
    data = row.encode_response(msgspec.structs.replace(response, state=ANSWER_ID))
    with (
        Server(whole(data, "Content-Type: application/json")) as server,
        mistralai.Mistral(api_key="k", server_url=server.url) as sdk,
    ):
        theirs = sdk.embeddings.create(model="m", inputs=["a", "b"], output_dimension=2, encoding_format="float")
        (call,) = server.calls
    assert [each.embedding for each in theirs.data] == vectors
    assert (theirs.model, theirs.usage.prompt_tokens) == ("m", 4)
    # What the SDK sends is a request of this format, and word for word what we send.
    request = EmbeddingRequest(model="m", inputs=("a", "b"), dimensions=2, encoding_format="float")
    assert row.decode_request(call.body) == request
    assert json.loads(call.body) == encoded(request, row)


def test_the_dialect_is_named():
    assert DIALECT.name == NAME
