"""`client.embed`: a vector for every text in the order of the texts, or an error; on every surface, over real HTTP."""

from __future__ import annotations

import asyncio
import base64
import copy
import gc
import json
import math
import pickle
import random
import struct
import threading
import time
import weakref

import openai
import pytest
from embedder import DIMENSIONS, MODEL, Embedder, served, vector
from llamas import llama_server, skip_without_llama
from servers import Server, until

import sabir
from sabir import (
    AuthenticationError,
    BadRequestError,
    CallEnded,
    CallStarted,
    ClosedError,
    ConfigurationError,
    DeadlineExceeded,
    Embedding,
    Embeddings,
    Hook,
    NotFoundError,
    Provider,
    RateLimitError,
    SabirWarning,
    ServerError,
    StreamProtocolError,
    UnsupportedError,
    aio,
    providers,
)
from sabir.dialects.openai_embeddings import OpenAIEmbeddings
from sabir.embeddings import AT_ONCE
from sabir.engines.llama_cpp import pico_path
from sabir.messages import Text
from sabir.testing import Scripted
from sabir.usage import Usage

KEY = "key-of-the-embedder"
TEXTS = ["a blue river", "the blue rivers", "seven old horses", "Éclair naïve 漢字 🦊"]
WORDS = sum(len(text.split()) for text in TEXTS)


@pytest.fixture(autouse=True)
def own_table(monkeypatch):
    """Rows of small limits, for these tests alone."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(providers, "PROVIDERS", dict(providers.PROVIDERS))
    for name, limits in {"threes": {"max_inputs": 3}, "twenties": {"max_bytes": 20}}.items():
        row = Provider(name, url="http://localhost/v1", embeddings=OpenAIEmbeddings(**limits))
        sabir.register_provider(row)


@pytest.fixture(scope="module")
def app():
    return Embedder(KEY)


@pytest.fixture(scope="module")
def url(app):
    with served(app) as url:
        yield url


def rows(body, *, dimensions=DIMENSIONS):
    """What a server says of these texts."""
    inputs = [body["input"]] if isinstance(body["input"], str) else body["input"]
    return [
        {"object": "embedding", "index": number, "embedding": vector(text, dimensions)}
        for number, text in enumerate(inputs)
    ]


def say(call, value, *lines, status="200 OK"):
    data = json.dumps(value).encode()
    call.head("Content-Type: application/json", f"Content-Length: {len(data)}", *lines, status=status)
    call.write(data)


def says(make):
    """An answer of `data` that is made of the request's body."""

    async def answer(call):
        data = make(json.loads(call.body))
        say(call, {"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}})

    return answer


def connect(surface, server, row="vllm", **settings):
    address = server if isinstance(server, str) else f"{server.url}/v1"
    return surface.client(f"{row}:{MODEL}", base_url=address, **{"api_key": KEY, **settings})


def near(found, wanted):
    return [pytest.approx(numbers, abs=1e-6) for numbers in wanted] == found


def cosine(one, other):
    return math.sumprod(one, other) if hasattr(math, "sumprod") else sum(a * b for a, b in zip(one, other, strict=True))


# What comes back


async def test_a_text_has_a_vector_and_a_list_of_texts_has_theirs(surface, url):
    client = connect(surface, url)
    one, several = await client.embed(TEXTS[0]), await client.embed(TEXTS)
    assert near(several, map(vector, TEXTS))
    assert one == several[0]
    assert (type(one), type(several), type(several[0]), type(one[0])) == (Embedding, Embeddings, list, float)
    assert near(await client.embed(tuple(TEXTS)), several)
    assert near(await client.embed([TEXTS[0]]), [one])
    assert await client.embed_batch(TEXTS) == several
    assert cosine(several[0], several[1]) > 2 * cosine(several[0], several[2])


async def test_what_was_told_beside_the_vectors_stands_on_them(surface, url):
    client = connect(surface, url)
    for embedded, words in ((await client.embed(TEXTS), WORDS), (await client.embed("blue horses"), 2)):
        assert embedded.usage == Usage(input=words, reported_total=words)
        assert (embedded.model, embedded.warnings) == (MODEL, ())
        (attempt,) = embedded.attempts
        assert (attempt.outcome, attempt.request_id) == ("answered", embedded.request_id)
        assert embedded.request_id.startswith("req-")


@pytest.mark.parametrize("nothing", [[], ()])
async def test_no_texts_have_no_vectors_and_nothing_is_sent(surface, nothing):
    with Server(says(rows)) as server:
        embedded = await connect(surface, server).embed(nothing)
        assert (embedded, embedded.usage, embedded.attempts, embedded.model) == ([], Usage(), (), MODEL)
        assert await connect(surface, server).embed_batch(nothing) == []
        assert server.accepted == 0


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
@pytest.mark.parametrize("row", ["vllm", "openai", "openrouter"])
async def test_vectors_are_the_same_however_they_travel(surface, app, url, row, encoding):
    client = connect(surface, url, row)
    assert near(await client.embed(TEXTS, encoding_format=encoding), map(vector, TEXTS))
    # Base64 is asked for only where it is known to be understood.
    unless_asked = None if row == "openrouter" else "base64"
    assert app.asked[-1].encoding_format == (encoding or unless_asked)


async def test_a_server_that_answers_floats_although_base64_was_asked_is_understood(surface):
    with Server(says(rows)) as server:
        assert near(await connect(surface, server).embed(TEXTS), map(vector, TEXTS))
        assert json.loads(server.calls[0].body)["encoding_format"] == "base64"


async def test_vectors_are_in_the_order_of_the_texts_whatever_the_order_of_the_rows(surface):
    chance = random.Random(3)
    with Server(says(lambda body: chance.sample(rows(body), len(body["input"])))) as server:
        client = connect(surface, server, "threes")
        texts = [f"text {number}" for number in range(20)]
        assert near(await client.embed(texts), map(vector, texts))


@pytest.mark.parametrize(
    ("spoil", "objection"),
    [
        (lambda rows: rows[:-1], "3 texts were sent, and 2 embeddings came back"),
        (lambda rows: rows[1:], "one has the index 2, so that one is missing"),
        (lambda rows: [], "3 texts were sent, and 0"),
        (lambda rows: [*rows, {**rows[0], "index": 3}], "3 texts were sent, and 4"),
        (lambda rows: [*rows[:2], rows[0]], "two embeddings have the index 0"),
        (lambda rows: [*rows, rows[0]], "two embeddings have the index 0"),
        (lambda rows: [*rows[:2], {**rows[2], "embedding": [1.0]}], r"different lengths.*\[1, 64\]"),
        (lambda rows: [*rows[:2], {**rows[2], "embedding": []}], "empty vector"),
        (lambda rows: [*rows[:2], {**rows[2], "embedding": None}], "no vector"),
    ],
    ids=["missing last", "missing first", "none", "surplus", "twice", "all and one twice", "short", "empty", "null"],
)
async def test_an_answer_that_has_not_one_vector_for_each_text_is_an_error(surface, spoil, objection):
    with Server(says(lambda body: spoil(rows(body)))) as server:
        with pytest.raises(StreamProtocolError, match=objection) as caught:
            await connect(surface, server).embed(TEXTS[:3])
        assert caught.value.model == MODEL
        # It would come again as it came: it is not asked for twice.
        assert len(server.calls) == len(caught.value.attempts) == 1


async def test_batches_of_different_lengths_are_an_error(surface):
    answer = says(lambda body: rows(body, dimensions=4 if "odd" in body["input"] else 8))
    with Server(answer) as server, pytest.raises(StreamProtocolError, match=r"different lengths.*\[4, 8\]"):
        await connect(surface, server, "threes").embed(["a", "b", "c", "odd"])


def test_what_comes_back_is_a_list_in_every_way():
    embedded = Embeddings([[1.0, 2.0]], model="m", usage=Usage(input=3), request_id="r")
    assert embedded == [[1.0, 2.0]]
    assert repr(embedded) == "[[1.0, 2.0]]"
    assert json.dumps(embedded) == "[[1.0, 2.0]]"
    assert not hasattr(embedded, "__dict__")
    for again in (copy.copy(embedded), copy.deepcopy(embedded), pickle.loads(pickle.dumps(embedded))):
        assert (type(again), again, again.usage, again.model) == (Embeddings, embedded, Usage(input=3), "m")
        assert (again.warnings, again.attempts, again.request_id) == ((), (), "r")
    assert (embedded.only(), embedded.only().usage, type(embedded.only())) == ([1.0, 2.0], Usage(input=3), Embedding)


# Batches


async def test_more_texts_than_a_server_takes_go_in_several_requests_at_once(surface):
    texts = [f"text {number}" for number in range(20)]
    everyone = asyncio.Event()

    async def answer(call):
        # Each waits for all: one after the other, they would wait for ever.
        if len(server.calls) == 7:
            everyone.set()
        await everyone.wait()
        say(call, {"data": rows(json.loads(call.body)), "usage": {"prompt_tokens": 2, "total_tokens": 3}})

    with Server(answer) as server:
        embedded = await connect(surface, server, "threes", timeout=5.0).embed(texts)
    assert near(embedded, map(vector, texts))
    assert sorted(len(json.loads(call.body)["input"]) for call in server.calls) == [2, 3, 3, 3, 3, 3, 3]
    assert [attempt.outcome for attempt in embedded.attempts] == ["answered"] * 7
    assert embedded.usage == Usage(input=14, reported_total=21)


async def test_the_size_of_a_request_is_limited_too(surface):
    texts = ["x" * 8, "x" * 8, "x" * 8, "é" * 10, "y", "z" * 50, "a", "b"]
    with Server(says(rows)) as server:
        assert near(await connect(surface, server, "twenties").embed(texts), map(vector, texts))
        sent = sorted(json.loads(call.body)["input"] for call in server.calls)
    assert sent == sorted([texts[:2], texts[2:3], texts[3:4], texts[4:5], texts[5:6], texts[6:]])


async def test_only_so_many_requests_are_under_way_at_once(surface):
    texts = [str(number) for number in range(30)]
    waiting, most = set(), []

    async def answer(call):
        waiting.add(call)
        most.append(len(waiting))
        await asyncio.sleep(0.002)
        waiting.discard(call)
        say(call, {"data": rows(json.loads(call.body))})

    with Server(answer) as server:
        assert len(await connect(surface, server, "threes").embed(texts)) == 30
    assert len(server.calls) == 10
    assert 1 < max(most) <= AT_ONCE


async def test_a_request_that_fails_for_good_ends_the_others(surface):
    everyone = asyncio.Event()

    async def answer(call):
        if len(server.calls) == 3:
            everyone.set()
        if "bad" not in json.loads(call.body)["input"]:
            return await call.forever()
        await everyone.wait()
        say(call, {"error": {"message": "this text is bad"}}, status="400 Bad Request")

    with Server(answer) as server:
        client = connect(surface, server, "threes")
        began = time.monotonic()
        with pytest.raises(BadRequestError, match="this text is bad") as caught:
            await client.embed(["a", "b", "c", "d", "bad", "e", "f"])
        assert time.monotonic() - began < 2
        assert "BadRequestError" in [attempt.outcome for attempt in caught.value.attempts]
        # What was refused has left its connection in order, and the next call goes there.
        assert await surface.in_thread(lambda: until(lambda: len(server.peers) == 1, 1))
        server.answer = says(rows)
        assert near(await client.embed(["well"]), [vector("well")])
        assert server.accepted == 3


# What may go wrong on the way


async def test_a_request_is_made_again_when_that_may_help(surface):
    async def answer(call):
        if len(server.calls) == 1:
            say(call, {"error": {"message": "slow down"}}, "Retry-After: 0", status="429 Too Many Requests")
        elif len(server.calls) == 2:
            say(call, {"error": {"message": "full"}}, "Retry-After: 0", status="503 Service Unavailable")
        else:
            say(call, {"data": rows(json.loads(call.body))})

    with Server(answer) as server:
        embedded = await connect(surface, server).embed(TEXTS)
    assert near(embedded, map(vector, TEXTS))
    outcomes = [(attempt.outcome, attempt.status) for attempt in embedded.attempts]
    assert outcomes == [("RateLimitError", 429), ("OverloadedError", 503), ("answered", None)]


@pytest.mark.parametrize(
    ("status", "kind", "requests"),
    [
        ("429 Too Many Requests", RateLimitError, 2),
        ("500 Internal Server Error", ServerError, 2),
        ("401 Unauthorized", AuthenticationError, 1),
        ("404 Not Found", NotFoundError, 1),
        ("302 Found", BadRequestError, 1),
    ],
)
async def test_errors_are_of_the_family_and_never_more_requests_than_allowed(surface, status, kind, requests):
    async def answer(call):
        key = call.header("authorization")
        say(call, {"error": {"message": f"no, {key}"}}, "Retry-After: 0", "x-request-id: r7", status=status)

    with Server(answer) as server:
        with pytest.raises(kind) as caught:
            await connect(surface, server, max_attempts=2).embed(TEXTS)
        assert len(server.calls) == requests
    error = caught.value
    assert len(error.attempts) == requests
    assert (error.provider, error.model, error.request_id) == ("vllm", MODEL, "r7")
    assert error.status == int(status[:3])
    assert KEY not in repr(vars(error))


@pytest.mark.parametrize("texts", [TEXTS[:1], TEXTS * 3], ids=["one request", "several"])
async def test_what_a_failed_call_held_is_free_with_its_error(surface, texts):
    async def answer(call):
        say(call, {"error": {"message": "no"}}, status="400 Bad Request")

    with Server(answer) as server:
        client = connect(surface, server, "threes")
        gc.disable()
        try:
            with pytest.raises(BadRequestError) as caught:
                await client.embed(texts)
            mark = weakref.ref(caught.value)
            del caught
            assert await surface.in_thread(lambda: until(lambda: mark() is None, 1))
        finally:
            gc.enable()


async def test_a_cut_answer_is_no_short_list(surface):
    async def answer(call):
        data = json.dumps({"data": rows(json.loads(call.body))}).encode()
        call.head("Content-Type: application/json", f"Content-Length: {len(data)}")
        call.write(data[: len(data) // 2])
        call.close()

    with Server(answer) as server, pytest.raises(sabir.StreamInterrupted):
        await connect(surface, server, max_attempts=1).embed(TEXTS)


@pytest.mark.parametrize("row", ["vllm", "threes"])
async def test_the_deadline_is_over_all_requests(surface, row):
    async def answer(call):
        if len(server.calls) > 1:
            await call.forever()
        say(call, {"error": {"message": "once more"}}, "Retry-After: 0", status="500 Internal Server Error")

    with Server(answer) as server:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await connect(surface, server, row, timeout=0.4).embed([*TEXTS, *TEXTS])
        assert 0.3 < time.monotonic() - began < 0.9
        assert server.is_left_by_all()


async def test_silence_has_its_limit(surface):
    async def answer(call):
        await call.forever()

    with Server(answer) as server, pytest.raises(DeadlineExceeded, match="silent"):
        await connect(surface, server, idle_timeout=0.1, max_attempts=1).embed("a")


@pytest.mark.parametrize("row", ["vllm", "threes"])
async def test_closing_the_client_ends_what_is_under_way(surface, row):
    async def answer(call):
        await call.forever()

    with Server(answer) as server:
        client = connect(surface, server, row)
        watch = threading.Thread(target=lambda: (until(lambda: server.calls, 5), client.close()))
        watch.start()
        with pytest.raises(ClosedError):
            await client.embed([*TEXTS, *TEXTS])
        await surface.in_thread(watch.join)
        assert server.is_left_by_all()
        with pytest.raises(ClosedError, match="make a new one"):
            await client.embed("a")


@pytest.mark.parametrize("row", ["vllm", "threes"])
def test_a_cancelled_call_leaves_nothing_behind(row):
    async def answer(call):
        await call.forever()

    async def main(server):
        async with aio.Client(f"{row}:m", base_url=server.url) as client:
            task = asyncio.create_task(client.embed([*TEXTS, *TEXTS]))
            await asyncio.to_thread(until, lambda: server.calls, 5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.is_left_by_all)

    with Server(answer) as server:
        asyncio.run(main(server))


async def test_several_calls_at_once_get_their_own_vectors(surface, url):
    client = connect(surface, url)
    calls = [lambda text=text: client.embed(text) for text in TEXTS * 3]
    assert near(await surface.at_once(*calls), [vector(text) for text in TEXTS * 3])


# What may be asked for


async def test_dimensions_are_sent_where_the_server_knows_them(surface, app, url):
    embedded = await connect(surface, url).embed(TEXTS, dimensions=8)
    assert near(embedded, [vector(text, 8) for text in TEXTS])
    assert (app.asked[-1].dimensions, embedded.warnings) == (8, ())


async def test_a_row_may_have_its_own_words_and_limits(surface):
    with Server(says(lambda body: rows(body, dimensions=8))) as server:
        with pytest.warns(SabirWarning, match="user was not sent: Mistral"):
            embedded = await connect(surface, server, "mistral").embed(["x" * 10_000] * 2, dimensions=8, user="u")
        assert (len(embedded), len(server.calls)) == (2, 2)
        sent = [json.loads(call.body) for call in server.calls]
    assert sent == [{"model": MODEL, "input": ["x" * 10_000], "output_dimension": 8}] * 2


async def test_dimensions_that_a_server_passes_over_are_not_sent_and_said_to_be_so(surface, app, url):
    client = connect(surface, url, "llama-server")
    with pytest.warns(SabirWarning, match="dimensions was not sent: llama.cpp"):
        embedded = await client.embed("a", dimensions=8)
    assert (len(embedded), app.asked[-1].dimensions) == (DIMENSIONS, None)
    assert [notice.subject for notice in embedded.warnings] == ["dimensions"]
    quiet = connect(surface, url, "llama-server", on_unsupported="ignore")
    assert len((await quiet.embed(TEXTS, dimensions=8)).warnings) == 1
    with pytest.raises(NotFoundError) as caught:
        await quiet.embed("a", model="other", dimensions=8)
    assert [notice.subject for notice in caught.value.warnings] == ["dimensions"]
    before = len(app.asked)
    with pytest.raises(UnsupportedError, match="dimensions"):
        await connect(surface, url, "llama-server", on_unsupported="raise").embed("a", dimensions=8)
    assert len(app.asked) == before


async def test_dimensions_that_were_sent_and_not_given_are_said_to_be_so(surface):
    with Server(says(lambda body: rows(body, dimensions=16))) as server:
        with pytest.warns(SabirWarning, match="8 dimensions were asked for, and vllm:pairs gave 16"):
            embedded = await connect(surface, server).embed(TEXTS, dimensions=8)
        assert [(notice.kind, notice.subject) for notice in embedded.warnings] == [("unsupported", "dimensions")]
        with pytest.raises(UnsupportedError, match="gave 16"):
            await connect(surface, server, on_unsupported="raise").embed(TEXTS, dimensions=8)


async def test_what_else_is_said_is_passed_on(surface):
    with Server(says(rows)) as server:
        client = connect(surface, server, user="client", headers={"x-of": "client", "x-both": "1"}, extra={"top": 1})
        await client.embed("a")
        await client.embed("a", user="call", headers={"x-both": "2"}, extra={"input_type": "query"})
        first, second = ((json.loads(call.body), dict(call.headers)) for call in server.calls)
    # What the client adds to its conversations' bodies is of their format, not of this one.
    assert first[0] == {"model": MODEL, "input": ["a"], "encoding_format": "base64", "user": "client"}
    assert (first[1]["x-of"], first[1]["x-both"]) == ("client", "1")
    assert second[0] == {**first[0], "user": "call", "input_type": "query"}
    assert (second[1]["x-of"], second[1]["x-both"]) == ("client", "2")
    assert second[1]["authorization"] == f"Bearer {KEY}"
    assert second[1]["user-agent"].startswith("sabir/")


@pytest.mark.parametrize(
    ("texts", "options", "objection"),
    [
        (5, {}, "a text or a list of texts, not int"),
        (None, {}, "not NoneType"),
        (b"abc", {}, "not bytes"),
        ({"a"}, {}, "not set"),
        ((text for text in TEXTS), {}, "not generator"),
        (["a", 5], {}, "number 1 of the list is int"),
        (["a", None], {}, "number 1 of the list is NoneType"),
        ([["a"]], {}, "number 0 of the list is list"),
        (["a", ""], {}, "text number 1 is empty"),
        ("", {}, "text number 0 is empty"),
        ("a", {"dimensions": 0}, "dimensions is a whole number of at least 1"),
        ("a", {"dimensions": 8.0}, "dimensions"),
        ("a", {"encoding_format": "hex"}, "encoding_format is one of float, base64, not 'hex'"),
        ("a", {"dimension": 8}, "unknown option 'dimension'; did you mean 'dimensions'"),
        ("a", {"temperature": 0.5}, "unknown option 'temperature'"),
        ("a", {"user": 5}, "user"),
        ("a", {"headers": {"a": 1}}, "headers"),
        ("a", {"extra": {"a": {1, 2}.__iter__}}, "cannot be written as JSON"),
        ("a", {"model": 5}, "model is a text"),
        ("a", {"model": "opnai:x"}, "unknown provider|no provider"),
    ],
)
async def test_what_cannot_be_embedded_is_told_before_anything_is_sent(surface, texts, options, objection):
    with Server(says(rows)) as server:
        # Named whole, so that a wrong model string is not taken for another id of this provider.
        client = surface.client(Scripted(), api_key=None) if "model" in options else connect(surface, server)
        with pytest.raises(ConfigurationError, match=objection):
            await client.embed(texts, **options)
        assert server.accepted == 0


async def test_embed_batch_wants_a_list(surface, url):
    with pytest.raises(ConfigurationError, match="takes a list of texts; for a single one there is embed"):
        await connect(surface, url).embed_batch("a")


@pytest.mark.parametrize("model", ["pico", "groq:x", "anthropic:x", "engine"])
async def test_a_provider_without_embeddings_says_who_has_them(surface, monkeypatch, model):
    monkeypatch.setenv("GROQ_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    client = surface.client(Scripted() if model == "engine" else model)
    for call in (lambda: client.embed("a"), lambda: client.embed([]), client.embedding_dim):
        with pytest.raises(UnsupportedError, match=r"makes no embeddings; .*llama-server, .*openai, .*vllm"):
            await call()


async def test_a_model_is_named_as_for_a_question(surface, app, url, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    client = connect(surface, url)
    with pytest.raises(NotFoundError, match="no model 'other' here"):
        await client.embed("a", model="other")
    assert near([await client.embed("a", model=MODEL)], [vector("a")])
    assert near([await client.embed("a", model=f"vllm:{MODEL}")], [vector("a")])
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        await client.embed("a", model="openai:text-embedding-3-small")
    # The key is for the address that the client was made with, and for no other.
    with pytest.raises(AuthenticationError):
        await client.embed("a", model=f"vllm:{MODEL}@{url.replace('127.0.0.1', 'localhost')}")
    # A client without any conversation to its name embeds all the same.
    elsewhere = surface.client("pico")
    with pytest.raises(AuthenticationError):
        await elsewhere.embed("a", model=f"vllm:{MODEL}@{url}")


async def test_how_long_vectors_are_is_asked_once_where_it_is_not_known(surface, app, url):
    client = connect(surface, url, "openai")
    before = len(app.asked)
    assert await client.embedding_dim("text-embedding-3-large") == 3072
    assert await client.embedding_dim("openai:text-embedding-3-small") == 1536
    assert len(app.asked) == before
    assert [await client.embedding_dim() for _ in range(3)] == [DIMENSIONS] * 3
    assert await client.embedding_dim(f"openai:{MODEL}") == DIMENSIONS
    assert len(app.asked) == before + 1
    with pytest.raises(NotFoundError):
        await client.embedding_dim("another")


# Hooks


class Recorder(Hook):
    def __init__(self):
        self.events = []

    def on_start(self, event):
        self.events.append(event)

    def on_first_token(self, event):
        raise AssertionError("an embedding has no token")

    def on_end(self, event):
        self.events.append(event)


async def test_hooks_see_a_call_begin_and_end_with_its_usage(surface, url):
    hook = Recorder()
    embedded = await connect(surface, url, hooks=[hook]).embed(TEXTS[:2])
    started, ended = hook.events
    assert isinstance(started, CallStarted)
    assert started.model == ended.model == f"vllm:{MODEL}"
    assert [part.text for message in started.messages for part in message.parts] == TEXTS[:2]
    assert {type(part) for part in started.messages[0].parts} == {Text}
    assert isinstance(ended, CallEnded)
    assert (ended.error, ended.response.usage, ended.response.parsed) == (None, embedded.usage, embedded)
    assert (ended.response.attempts, ended.response.request_id) == (embedded.attempts, embedded.request_id)
    assert 0 < ended.seconds == ended.response.timings.total


async def test_hooks_see_a_call_fail(surface, url):
    hook = Recorder()
    with pytest.raises(NotFoundError) as caught:
        await connect(surface, url, hooks=[hook]).embed("a", model="other")
    started, ended = hook.events
    assert started.model == ended.model == "vllm:other"
    assert (ended.response, ended.error) == (None, caught.value)


# Others' clients and servers


@pytest.mark.parametrize("encoding", [openai.NOT_GIVEN, "float", "base64"])
def test_the_openai_sdk_is_served_by_the_same_dialect(app, url, encoding):
    with openai.OpenAI(base_url=url, api_key=KEY, max_retries=0) as sdk:
        answer = sdk.embeddings.create(model=MODEL, input=TEXTS, encoding_format=encoding, dimensions=16, user="u")
        found = [each.embedding for each in answer.data]
        if encoding == "base64":
            # What is asked for by name, the SDK hands over as it came.
            found = [list(struct.unpack("<16f", base64.b64decode(each))) for each in found]
        assert near(found, [vector(text, 16) for text in TEXTS])
        assert (answer.model, answer.usage.prompt_tokens, answer.usage.total_tokens) == (MODEL, WORDS, WORDS)
        assert (app.asked[-1].user, app.asked[-1].dimensions) == ("u", 16)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"model": "other"}, openai.NotFoundError),
        ({"input": []}, openai.BadRequestError),
        ({"input": [[1, 2]]}, openai.BadRequestError),
        ({"dimensions": 0}, openai.BadRequestError),
        ({"extra_headers": {"authorization": "Bearer x"}}, openai.AuthenticationError),
    ],
)
def test_the_openai_sdk_raises_its_own_errors_for_ours(url, options, kind):
    with openai.OpenAI(base_url=url, api_key=KEY, max_retries=0) as sdk, pytest.raises(kind) as caught:
        sdk.embeddings.create(**{"model": MODEL, "input": "a", **options})
    assert caught.value.body["message"]


@pytest.fixture(scope="module")
def llama():
    skip_without_llama()
    with llama_server(pico_path(), KEY, "embedding") as address:
        yield f"{address}/v1"


async def test_llama_cpp_embeds_for_us(surface, llama):
    client = connect(surface, llama, "llama-server")
    texts = ["Hello", "Hello there", "What is 2 + 3?", "Éclair naïve 漢字 🦊"]
    embedded = await client.embed(texts)
    assert [await client.embed(text) for text in texts] == [pytest.approx(each, abs=1e-4) for each in embedded]
    assert await client.embed(texts, encoding_format="float") == [pytest.approx(each, abs=1e-5) for each in embedded]
    assert {len(each) for each in embedded} == {await client.embedding_dim()}
    assert [math.hypot(*each) for each in embedded] == [pytest.approx(1, abs=1e-3)] * len(texts)
    assert cosine(embedded[0], embedded[1]) > cosine(embedded[0], embedded[2])
    assert embedded.usage.input_tokens == embedded.usage.reported_total > len(texts)
    many = await client.embed([f"number {number}" for number in range(2100)])
    assert (len(many), len(many.attempts)) == (2100, 2)


async def test_llama_cpp_refuses_in_words_of_the_family(surface, llama):
    with pytest.raises(AuthenticationError):
        await connect(surface, llama, "llama-server", api_key="another-key").embed("a")
    with pytest.raises(BadRequestError, match="The format to return"):
        await connect(surface, llama, "llama-server").embed("a", extra={"encoding_format": "hex"})
