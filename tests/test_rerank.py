"""`client.rerank`: every document ranked, best first, or an error; on every surface, over real HTTP."""

from __future__ import annotations

import copy
import json
import pickle
import time

import pytest
from embedder import MODEL, Embedder, fit, served
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
    Hook,
    NotFoundError,
    Provider,
    Ranked,
    Reranking,
    ServerError,
    StreamProtocolError,
    UnsupportedError,
    providers,
)
from sabir.dialects import Rank, RerankRequest, RerankResponse
from sabir.dialects.cohere_rerank import CohereRerank
from sabir.dialects.tei import TeiRerank
from sabir.engines.llama_cpp import pico_path
from sabir.testing import Scripted
from sabir.usage import Usage

KEY = "key-of-the-embedder"
QUERY = "blue rivers"
DOCUMENTS = ["seven old horses", "a blue river", "the blue rivers", "漢字"]
BEST = [2, 1, 0, 3]
# Where the app speaks as each of these rows.
ROWS = {"cohere": "/v2", "voyage": "/voyage", "jina": "/jina", "llama-server": "/v1", "vllm": "/v1", "tei": ""}


@pytest.fixture(autouse=True)
def own_table(monkeypatch):
    """A row of small limits, for these tests alone."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(providers, "PROVIDERS", dict(providers.PROVIDERS))
    sabir.register_provider(Provider("threes", url="http://localhost/v1", rerank=CohereRerank(max_documents=3)))


@pytest.fixture(scope="module")
def app():
    return Embedder(KEY)


@pytest.fixture(scope="module")
def url(app):
    with served(app) as url:
        yield url.removesuffix("/v1")


def connect(surface, address, row="cohere", **settings):
    address = address if isinstance(address, str) else address.url
    return surface.client(f"{row}:{MODEL}", base_url=address, **{"api_key": KEY, **settings})


def say(call, value, *lines, status="200 OK"):
    data = json.dumps(value).encode()
    call.head("Content-Type: application/json", f"Content-Length: {len(data)}", *lines, status=status)
    call.write(data)


def says(*rows, **more):
    async def answer(call):
        say(call, {"results": [{"index": index, "relevance_score": score} for index, score in rows], **more})

    return answer


# What comes back


@pytest.mark.parametrize("row", ROWS)
async def test_documents_are_ranked_best_first(surface, app, url, row):
    client = connect(surface, url + ROWS[row], row)
    ranking = await client.rerank(QUERY, DOCUMENTS)
    assert ranking == [Ranked(index, fit(QUERY, DOCUMENTS[index]), DOCUMENTS[index]) for index in BEST]
    assert (type(ranking), type(ranking[0]), type(ranking[0].score)) == (Reranking, Ranked, float)
    assert (app.asked[-1].query, app.asked[-1].documents) == (QUERY, tuple(DOCUMENTS))
    assert [each.index for each in await client.rerank(QUERY, tuple(DOCUMENTS), top_n=2)] == BEST[:2]
    # Of how many are wanted, TEI is told nothing.
    assert app.asked[-1].top_n == (None if row == "tei" else 2)
    assert len(await client.rerank(QUERY, DOCUMENTS, top_n=100)) == len(DOCUMENTS)


async def test_what_was_told_beside_the_ranks_stands_on_them(surface, url):
    ranking = await connect(surface, f"{url}/v2").rerank(QUERY, DOCUMENTS)
    words = sum(len(text.split()) for text in [QUERY, *DOCUMENTS])
    assert (ranking.usage, ranking.model, ranking.warnings) == (Usage(input=words, reported_total=words), MODEL, ())
    (attempt,) = ranking.attempts
    assert (attempt.outcome, attempt.request_id) == ("answered", ranking.request_id)
    assert ranking.request_id.startswith("req-")


async def test_no_documents_have_no_ranks_and_nothing_is_sent(surface):
    with Server(says()) as server:
        ranking = await connect(surface, server).rerank("q", [])
        assert (ranking, ranking.usage, ranking.attempts, ranking.model) == ([], Usage(), (), MODEL)
        assert server.accepted == 0


async def test_ranks_are_in_the_order_of_their_scores_whatever_the_order_of_the_rows(surface):
    with Server(says((0, -5.0), (1, 2.5), (2, 0), (3, 2.5))) as server:
        ranking = await connect(surface, server).rerank("q", ["a", "b", "c", "d"])
        assert [(each.index, each.document) for each in ranking] == [(1, "b"), (3, "d"), (2, "c"), (0, "a")]
        # A server that passes over top_n is not believed to be best at counting.
        assert [each.index for each in await connect(surface, server).rerank("q", ["a", "b", "c", "d"], top_n=1)] == [1]


@pytest.mark.parametrize(
    ("rows", "objection"),
    [
        ([(0, 1), (1, 2)], "3 documents were to be ranked, and 2 came back"),
        ([], "3 documents were to be ranked, and 0"),
        ([(0, 1), (1, 2), (3, 3)], "3 documents were sent, and one with the index 3"),
        ([(0, 1), (1, 2), (1, 3)], "the index 1 is ranked twice"),
        ([(0, 1), (1, 2), (-1, 3)], "has no index"),
        ([(0, 1), (1, 2), (None, 3)], "has no index"),
        ([(0, 1), (1, 2), (True, 3)], "has no index"),
        ([(0, 1), (1, 2), (2, None)], "without a score"),
        ([(0, 1), (1, 2), (2, "3")], "without a score"),
        ([(0, 1), (1, 2), (2, True)], "without a score"),
    ],
)
async def test_an_answer_that_has_not_one_rank_for_each_document_is_an_error(surface, rows, objection):
    with Server(says(*rows)) as server:
        with pytest.raises(StreamProtocolError, match=objection) as caught:
            await connect(surface, server).rerank("q", ["a", "b", "c"])
        assert caught.value.model == MODEL
        # It would come again as it came: it is not asked for twice.
        assert len(server.calls) == len(caught.value.attempts) == 1


async def test_fewer_ranks_than_were_wanted_are_an_error(surface):
    with Server(says((0, 1))) as server:
        client = connect(surface, server)
        assert len(await client.rerank("q", ["a", "b", "c"], top_n=1)) == 1
        with pytest.raises(StreamProtocolError, match="2 documents were to be ranked, and 1 came back"):
            await client.rerank("q", ["a", "b", "c"], top_n=2)


def test_what_comes_back_is_a_list_in_every_way():
    ranking = Reranking([Ranked(1, 0.5, "b")], model="m", usage=Usage(input=3), request_id="r")
    assert ranking == [Ranked(1, 0.5, "b")]
    assert repr(ranking) == "[Ranked(index=1, score=0.5, document='b')]"
    assert not hasattr(ranking, "__dict__")
    for again in (copy.copy(ranking), copy.deepcopy(ranking), pickle.loads(pickle.dumps(ranking))):
        assert (type(again), again, again.usage, again.model) == (Reranking, ranking, Usage(input=3), "m")


# What may go wrong on the way


async def test_a_request_is_made_again_when_that_may_help(surface):
    async def answer(call):
        if len(server.calls) == 1:
            say(call, {"message": "slow down"}, "Retry-After: 0", status="429 Too Many Requests")
        else:
            say(call, {"results": [{"index": 0, "relevance_score": 1}]})

    with Server(answer) as server:
        ranking = await connect(surface, server).rerank("q", ["a"])
    outcomes = [(attempt.outcome, attempt.status) for attempt in ranking.attempts]
    assert outcomes == [("RateLimitError", 429), ("answered", None)]


@pytest.mark.parametrize(
    ("status", "kind", "requests"),
    [
        ("500 Internal Server Error", ServerError, 2),
        ("401 Unauthorized", AuthenticationError, 1),
        ("404 Not Found", NotFoundError, 1),
        ("302 Found", BadRequestError, 1),
    ],
)
async def test_errors_are_of_the_family_and_never_more_requests_than_allowed(surface, status, kind, requests):
    async def answer(call):
        lines = ("Retry-After: 0", "x-request-id: r7")
        say(call, {"message": f"no, {call.header('authorization')}"}, *lines, status=status)

    with Server(answer) as server:
        with pytest.raises(kind) as caught:
            await connect(surface, server, max_attempts=2).rerank(QUERY, DOCUMENTS)
        assert len(server.calls) == requests
    error = caught.value
    assert (len(error.attempts), error.provider, error.model, error.request_id) == (requests, "cohere", MODEL, "r7")
    assert KEY not in repr(vars(error))


async def test_the_deadline_is_over_all_attempts(surface):
    async def answer(call):
        if len(server.calls) > 1:
            await call.forever()
        say(call, {"message": "once more"}, "Retry-After: 0", status="500 Internal Server Error")

    with Server(answer) as server:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded) as caught:
            await connect(surface, server, timeout=0.4).rerank(QUERY, DOCUMENTS)
        assert 0.3 < time.monotonic() - began < 0.9
        assert [attempt.outcome for attempt in caught.value.attempts] == ["ServerError", "DeadlineExceeded"]
        assert server.is_left_by_all()


async def test_closing_the_client_ends_what_is_under_way(surface):
    async def answer(call):
        await call.forever()

    with Server(answer) as server:
        client = connect(surface, server)

        async def close():
            await surface.in_thread(lambda: (until(lambda: server.calls, 5), client.close()))

        async def ask():
            with pytest.raises(ClosedError):
                await client.rerank(QUERY, DOCUMENTS)

        await surface.at_once(ask, close)
        assert server.is_left_by_all()
        with pytest.raises(ClosedError, match="make a new one"):
            await client.rerank(QUERY, DOCUMENTS)


# What may be asked for


@pytest.mark.parametrize(
    ("query", "documents", "options", "objection"),
    [
        ("q", "abc", {}, "rerank takes a list of documents, which are texts, not str"),
        ("q", None, {}, "not NoneType"),
        ("q", {"a"}, {}, "not set"),
        ("q", ["a", 5], {}, "number 1 of the list is int"),
        ("q", ["a", ""], {}, "document number 1 is empty"),
        ("", ["a"], {}, "query number 0 is empty"),
        (5, ["a"], {}, "rerank takes a query, which is a text"),
        ("q", ["a"], {"top_n": 0}, "top_n is a whole number of at least 1"),
        ("q", ["a"], {"top_n": 1.0}, "top_n"),
        ("q", ["a"], {"top_k": 1}, "unknown option 'top_k'; did you mean 'top_n'"),
        ("q", ["a"], {"headers": {"a": 1}}, "headers"),
        ("q", ["a"], {"extra": {"a": {1, 2}.__iter__}}, "cannot be written as JSON"),
        ("q", ["a"], {"model": 5}, "model is a text"),
    ],
)
async def test_what_cannot_be_ranked_is_told_before_anything_is_sent(surface, query, documents, options, objection):
    with Server(says()) as server:
        with pytest.raises(ConfigurationError, match=objection):
            await connect(surface, server).rerank(query, documents, **options)
        assert server.accepted == 0


async def test_more_documents_than_a_provider_takes_are_refused_and_never_cut_up(surface):
    with Server(says((0, 1), (1, 2), (2, 3))) as server:
        client = connect(surface, server, "threes")
        assert len(await client.rerank("q", ["a", "b", "c"])) == 3
        with pytest.raises(ConfigurationError, match="threes:pairs ranks 3 documents at most, and these are 4; choose"):
            await client.rerank("q", ["a", "b", "c", "d"], top_n=1)
        assert len(server.calls) == 1


@pytest.mark.parametrize("model", ["pico", "openai:x", "engine"])
async def test_a_provider_without_ranks_says_who_has_them(surface, monkeypatch, model):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    client = surface.client(Scripted() if model == "engine" else model)
    for documents in (["a"], []):
        with pytest.raises(UnsupportedError, match=r"ranks no documents; .*cohere, .*jina, .*llama-server, .*voyage"):
            await client.rerank("q", documents)


async def test_a_row_sends_its_own_words_and_what_else_is_said(surface):
    async def answer(call):
        say(call, {"data": [{"index": 0, "relevance_score": 1}], "usage": {"total_tokens": 7}})

    with Server(answer) as server:
        client = connect(surface, server, "voyage", headers={"x-of": "client"})
        ranking = await client.rerank("q", ["a"], top_n=1, extra={"truncation": True}, headers={"x-more": "1"})
        await client.rerank("q", ["a"])
        first, second = server.calls
    assert ranking.usage == Usage(input=7, reported_total=7)
    said = {"model": MODEL, "query": "q", "documents": ["a"]}
    assert json.loads(first.body) == {**said, "top_k": 1, "truncation": True}
    assert (first.header("x-of"), first.header("x-more")) == ("client", "1")
    assert first.header("authorization") == f"Bearer {KEY}"
    assert json.loads(second.body) == {**said, "truncation": False}
    assert first.target == "/rerank"


async def test_a_model_is_named_as_for_a_question(surface, url):
    client = connect(surface, f"{url}/v2")
    with pytest.raises(NotFoundError, match="no model 'other' here"):
        await client.rerank(QUERY, DOCUMENTS, model="other")
    assert len(await client.rerank(QUERY, DOCUMENTS, model=f"cohere:{MODEL}")) == 4
    # The key is for the address that the client was made with, and for no other.
    with pytest.raises(AuthenticationError):
        await client.rerank(QUERY, DOCUMENTS, model=f"vllm:{MODEL}@{url}/v1")


# Hooks


class Recorder(Hook):
    def __init__(self):
        self.events = []

    def on_start(self, event):
        self.events.append(event)

    def on_end(self, event):
        self.events.append(event)


async def test_hooks_see_a_call_begin_and_end_with_its_usage(surface, url):
    hook = Recorder()
    client = connect(surface, f"{url}/v2", hooks=[hook])
    ranking = await client.rerank(QUERY, DOCUMENTS)
    started, ended = hook.events
    assert isinstance(started, CallStarted)
    assert isinstance(ended, CallEnded)
    assert started.model == ended.model == f"cohere:{MODEL}"
    assert [part.text for part in started.messages[0].parts] == [QUERY, *DOCUMENTS]
    assert (ended.error, ended.response.usage, ended.response.parsed) == (None, ranking.usage, ranking)
    with pytest.raises(NotFoundError) as caught:
        await client.rerank(QUERY, DOCUMENTS, model="other")
    assert (hook.events[-1].response, hook.events[-1].error) == (None, caught.value)


# The wire


def test_a_request_says_what_was_asked_and_no_more():
    request = RerankRequest(model="m", query="q", documents=("a", "b"), top_n=1)
    http, notices = CohereRerank().encode_request(request)
    body = {"model": "m", "query": "q", "documents": ["a", "b"], "top_n": 1}
    assert (http.url, json.loads(http.body), notices) == ("/rerank", body, ())
    http, notices = TeiRerank().encode_request(request)
    assert (http.url, json.loads(http.body), notices) == ("/rerank", {"query": "q", "texts": ["a", "b"]}, ())


def test_rows_are_read_wherever_a_server_has_them():
    rows = [{"index": 1, "relevance_score": 0.5, "document": {"text": "b"}}]
    for dialect in (CohereRerank(), CohereRerank(rows="data")):
        for name in ("results", "data"):
            response = dialect.decode_answer(json.dumps({name: rows}).encode())
            assert response.ranks == (Rank(1, 0.5),)
            assert json.loads(dialect.encode_response(response)) == {name: rows}


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ({"usage": {"prompt_tokens": 3, "total_tokens": 4}}, Usage(input=3, reported_total=4)),
        ({"usage": {"total_tokens": 4}}, Usage(input=4, reported_total=4)),
        ({"meta": {"tokens": {"input_tokens": 5}, "billed_units": {"search_units": 1}}}, Usage(input=5)),
        ({"meta": {"billed_units": {"search_units": 1}}}, Usage()),
        ({}, Usage()),
    ],
)
def test_tokens_are_the_usage_and_searches_are_none(told, usage):
    response = CohereRerank().decode_answer(json.dumps({"results": [], **told}).encode())
    assert response.usage == usage


@pytest.mark.parametrize(
    ("body", "objection"),
    [
        ({"query": "q", "documents": []}, "documents: at least one"),
        ({"query": "q", "documents": "a"}, "documents: "),
        ({"query": "q", "documents": ["a", 5]}, r"documents\[1\]: "),
        ({"documents": ["a"]}, "query: "),
        ({"query": "q", "documents": ["a"], "top_k": -1}, "top_k: "),
    ],
)
def test_a_request_that_the_format_does_not_allow_is_refused_and_told_where(body, objection):
    with pytest.raises(BadRequestError, match=f"^{objection}"):
        CohereRerank(top_n="top_k").decode_request(json.dumps(body).encode())


def test_an_answer_of_ours_says_no_more_than_there_is():
    response = RerankResponse(ranks=(Rank(0, 0.5),))
    assert json.loads(CohereRerank().encode_response(response)) == {"results": [{"index": 0, "relevance_score": 0.5}]}
    assert json.loads(TeiRerank().encode_response(response)) == [{"index": 0, "score": 0.5}]


# A real server


@pytest.fixture(scope="module")
def llama():
    skip_without_llama()
    with llama_server(pico_path(), KEY, "rerank") as address:
        yield address


@pytest.mark.parametrize(("row", "path"), [("llama-server", "/v1"), ("tei", "")])
async def test_llama_cpp_ranks_for_us_in_both_formats(surface, llama, row, path):
    # Pico was not made for this, so that its scores say nothing; but they are there, and in order.
    documents = ["Lima", "2 + 3 = 5", "The capital of Peru is Lima.", "Éclair naïve 漢字 🦊"]
    client = connect(surface, llama + path, row)
    ranking = await client.rerank("What is 2 + 3?", documents)
    assert sorted(each.index for each in ranking) == [0, 1, 2, 3]
    assert [each.document for each in ranking] == [documents[each.index] for each in ranking]
    assert [each.score for each in ranking] == sorted((each.score for each in ranking), reverse=True)
    assert len({each.score for each in ranking}) == 4
    # What TEI answers has no place for usage.
    assert (ranking.usage == Usage()) is (row == "tei")
    assert len(await client.rerank("What is 2 + 3?", documents, top_n=2)) == 2


async def test_llama_cpp_refuses_in_words_of_the_family(surface, llama):
    with pytest.raises(AuthenticationError):
        await connect(surface, f"{llama}/v1", "llama-server", api_key="another-key").rerank("q", ["a"])
    with pytest.raises(BadRequestError, match="query"):
        await connect(surface, f"{llama}/v1", "llama-server").rerank("q", ["a"], extra={"query": 5})
