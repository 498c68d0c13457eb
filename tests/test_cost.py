"""What a call costs: arithmetic by properties, whose word counts, and what must stay unknown."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import Server, whole

import sabir
from sabir import ConfigurationError, Cost, Prices, Provider, Tier, ToolCall, ToolSpec, Usage, providers
from sabir.catalog import billed_usage, listed, reported_cost, said_beyond, searches_of
from sabir.cost import cost_of
from sabir.deltas import Assembler
from sabir.dialects import response_of
from sabir.dialects.anthropic import Anthropic
from sabir.dialects.cohere import Cohere
from sabir.dialects.cohere_rerank import CohereRerank
from sabir.dialects.openai_chat import OpenAIChat
from sabir.dialects.openai_embeddings import OpenAIEmbeddings
from sabir.dialects.openai_responses import OpenAIResponses
from sabir.errors import SabirError
from sabir.messages import ProviderState
from sabir.providers import PROVIDERS
from sabir.usage import NOTHING, Estimate

RECORDINGS = Path(__file__).resolve().parent.parent.parent / "shared" / "recordings"
PRICES = Prices(
    input=Decimal(2),
    cache_read=Decimal("0.5"),
    cache_write=Decimal(3),
    cache_write_1h=Decimal(4),
    input_audio=Decimal(10),
    output=Decimal(8),
    output_audio=Decimal(20),
    priced_on="2026-11-21",
    source="a test",
)
BUCKETS = ("input", "cache_read", "cache_write", "input_audio", "output", "reasoning", "output_audio")
counts = st.integers(min_value=0, max_value=10**9)
rates = st.decimals(min_value=0, max_value=1000, places=6)
usages = st.builds(Usage, **dict.fromkeys(BUCKETS, counts))
priced = st.builds(Prices, **dict.fromkeys((*BUCKETS, "cache_write_1h"), rates))
TABLE = {f"{entry.provider}:{entry.model}": entry.facts.prices for entry in listed() if entry.facts.prices is not None}
BY_TOKENS = {name: prices for name, prices in TABLE.items() if prices.search is None}


# Arithmetic


@pytest.mark.parametrize(
    ("usage", "dollars"),
    [
        (Usage(input=1_000_000, output=0), "2"),
        (Usage(input=0, output=1_000_000), "8"),
        (Usage(input=1000, cache_read=9000, output=500), "0.0105"),
        (Usage(input=0, cache_write=1000, output=1), "0.003008"),
        (Usage(input=0, input_audio=100, output=0, output_audio=10), "0.0012"),
        (Usage(input=0, output=100, reasoning=900), "0.008"),
        (Usage(input=0, output=0), "0"),
    ],
)
def test_tokens_are_priced_by_their_bucket(usage: Usage, dollars: str) -> None:
    cost = cost_of(usage, PRICES)
    assert cost is not None
    assert (cost.usd, cost.priced_on, cost.source, cost.is_reported) == (
        Decimal(dollars),
        "2026-11-21",
        "a test",
        False,
    )
    assert sum(cost.buckets.values(), Decimal()) == cost.usd


def test_what_is_cached_for_an_hour_has_a_price_of_its_own() -> None:
    cost = cost_of(Usage(input=0, cache_write=1000, output=0), PRICES, cache_write_1h=400)
    assert cost is not None
    assert cost.buckets == {"cache_write": Decimal("0.0018"), "cache_write_1h": Decimal("0.0016")}


@pytest.mark.parametrize(
    ("read", "dollars"), [(1000, "0.001"), (1001, "0.002002"), (2000, "0.004"), (2001, "0.020010")]
)
def test_a_long_context_changes_the_price_of_all_its_tokens(read: int, dollars: str) -> None:
    tiers = tuple(Tier(above=size, input=Decimal(rate), output=Decimal(rate)) for size, rate in ((2000, 10), (1000, 2)))
    prices = Prices(input=Decimal(1), cache_read=Decimal(1), output=Decimal(1), tiers=tiers)
    cost = cost_of(Usage(input=read, output=0), prices)
    assert cost is not None
    assert cost.usd == Decimal(dollars)
    # What counts is all that was read, cached or not; and a tier knows no price that it does not name.
    assert (cost_of(Usage(input=read - 500, cache_read=500, output=0), prices) is None) == (read > 1000)


@pytest.mark.parametrize("bucket", BUCKETS)
def test_tokens_without_a_price_make_the_cost_unknown(bucket: str) -> None:
    prices = msgspec.structs.replace(PRICES, **{bucket: None})
    usage = Usage(**{"input": 10, "output": 10, bucket: 10})
    # Reasoning is output where nothing else is said.
    assert (cost_of(usage, prices) is None) == (bucket != "reasoning")
    without = msgspec.structs.replace(usage, **{bucket: 0})
    assert cost_of(without, prices) is not None


@pytest.mark.parametrize("usage", [Usage(), Usage(input=10), Usage(output=10), Usage(reported_total=20)])
def test_a_usage_that_was_not_told_has_no_cost(usage: Usage) -> None:
    assert cost_of(usage, PRICES) is None


@pytest.mark.parametrize(("searches", "dollars"), [(1, "0.002"), (12, "0.024"), (0, "0"), (None, None)])
def test_what_is_priced_by_the_search_is_counted_in_searches(searches: int | None, dollars: str | None) -> None:
    prices = Prices(search=Decimal("0.002"), priced_on="2026-11-21", source="a test")
    cost = cost_of(Usage(), prices, searches=searches)
    assert (cost and cost.usd) == (dollars and Decimal(dollars))
    assert cost is None or (cost.buckets, cost.priced_on) == ({"search": cost.usd}, "2026-11-21")


def test_prices_nobody_knows_are_not_0() -> None:
    assert cost_of(Usage(input=0, output=0), Prices()) is None


@pytest.mark.parametrize(
    "rate", [Decimal(-1), Decimal("NaN"), Decimal("Infinity"), Decimal("1E+9"), Decimal("1E-40"), 1.5]
)
def test_a_price_is_a_decimal_of_a_sensible_size(rate: Any) -> None:
    with pytest.raises(ConfigurationError, match="the price of output"):
        Prices(output=rate)
    with pytest.raises(ConfigurationError, match="the price of search"):
        Prices(search=rate)


@given(usages, priced)
def test_no_bucket_is_below_0_and_together_they_are_the_cost(usage: Usage, prices: Prices) -> None:
    cost = cost_of(usage, prices)
    assert cost is not None
    assert all(part >= 0 for part in cost.buckets.values())
    assert sum(cost.buckets.values(), Decimal()) == cost.usd >= 0


@given(usages, usages, priced)
def test_the_cost_of_two_calls_is_the_cost_of_their_tokens(one: Usage, other: Usage, prices: Prices) -> None:
    first, second, both = (cost_of(usage, prices) for usage in (one, other, one + other))
    assert first is not None
    assert second is not None
    assert first + second == both


def reads(prices: Prices) -> st.SearchStrategy[int]:
    """So many tokens as make a difference: around each tier, and any number."""
    edges = [tier.above + more for tier in prices.tiers for more in (0, 1)]
    anything = st.integers(min_value=1, max_value=2_000_000)
    return st.sampled_from(edges) | anything if edges else anything


@pytest.mark.parametrize("name", BY_TOKENS)
@settings(max_examples=20)
@given(data=st.data(), share=st.floats(0, 1))
def test_a_cached_prompt_costs_less_than_one_that_is_not(name: str, data: st.DataObject, share: float) -> None:
    prices = BY_TOKENS[name]
    # What writes nothing has no price for it.
    read, written = data.draw(reads(prices)), data.draw(counts) if prices.output is not None else 0
    some = max(1, int(read * share))
    fresh, part, cached = (
        cost_of(Usage(input=read - kept, cache_read=kept, output=written), prices) for kept in (0, some, read)
    )
    assert fresh is not None
    if prices.cache_read is None:
        assert (part, cached) == (None, None)
    else:
        assert part is not None
        assert cached is not None
        assert cached.usd <= part.usd < fresh.usd


@pytest.mark.parametrize("name", BY_TOKENS)
@settings(max_examples=20)
@given(usage=usages, kept_long=counts)
def test_no_bucket_of_any_model_is_below_0(name: str, usage: Usage, kept_long: int) -> None:
    prices = BY_TOKENS[name]
    known = {bucket: None for bucket in BUCKETS if getattr(prices, bucket) is None and bucket != "reasoning"}
    if prices.output is None:
        known |= {"output": 0, "reasoning": 0}
    if prices.cache_write_1h is None:
        kept_long = 0
    counted = msgspec.structs.replace(usage, **known)
    cost = cost_of(counted, prices, cache_write_1h=kept_long)
    if cost is None:
        # That no tokens at all cost nothing is only known where reading and writing both have a price.
        assert (prices.output, counted.total_tokens) == (None, 0)
    else:
        assert all(part >= 0 for part in cost.buckets.values())
        assert sum(cost.buckets.values(), Decimal()) == cost.usd


@pytest.mark.parametrize("name", TABLE.keys() - BY_TOKENS.keys())
@given(searches=st.integers(min_value=1, max_value=10**6))
def test_more_searches_cost_more(name: str, searches: int) -> None:
    one, more = (cost_of(Usage(), TABLE[name], searches=number) for number in (searches, searches + 1))
    assert one is not None
    assert more is not None
    assert 0 < one.usd < more.usd


def test_a_sum_has_the_older_day_and_all_sources() -> None:
    one = Cost(usd=Decimal(1), buckets={"input": Decimal(1)}, priced_on="2026-11-21", source="here")
    other = Cost(usd=Decimal(2), priced_on="2026-01-02", source="there", is_reported=True)
    both = Cost(usd=Decimal(3), buckets={"input": Decimal(1)}, priced_on="2026-01-02", source="here, there")
    assert one + other == both
    assert str(both) == "$3"


def test_in_json_an_amount_is_a_text_that_loses_nothing() -> None:
    cost = Cost(usd=Decimal("0.1"), buckets={"input": Decimal("0.1")})
    data = msgspec.json.encode(cost)
    assert json.loads(data)["usd"] == "0.1"
    assert msgspec.json.decode(data, type=Cost) == cost


# Who counted


@pytest.mark.parametrize(
    ("usage", "source"),
    [
        (NOTHING, "unknown"),
        (Usage(), "unknown"),
        (Usage(input=0), "reported"),
        (Estimate(input=5), "estimated"),
        (Usage(input=1) + Estimate(input=1), "estimated"),
        (Estimate(input=1) + Usage(input=1), "estimated"),
        (Usage(input=1) + Usage(input=1), "reported"),
    ],
)
def test_a_usage_says_who_counted(usage: Usage, source: str) -> None:
    assert usage.source == source


# Whole calls


def answer(usage: dict[str, Any] | None, *calls: ToolCall) -> bytes:
    message: dict[str, Any] = {"role": "assistant", "content": None if calls else "Hello"}
    if calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.input}}
            for call in calls
        ]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
    return json.dumps({"id": "1", "model": "m", "choices": [choice], **({"usage": usage} if usage else {})}).encode()


def speaks(*bodies: bytes) -> Server:
    """A server with these answers, one after the other."""
    left = list(bodies)

    async def next_one(call: Any) -> None:
        await whole(left.pop(0), "Content-Type: application/json")(call)

    return Server(next_one)


USAGE = {"prompt_tokens": 1000, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 900}}


def double(number: int) -> int:
    return 2 * number


async def test_the_cost_of_all_rounds_stands_in_the_response(surface) -> None:
    with speaks(answer(USAGE, ToolCall("double", '{"number": 2}', id="1")), answer(USAGE)) as server:
        named = f"openai-chat:m@{server.url}"
        client = surface.client(named, prices={"openai-chat:m": PRICES})
        response = await client.ask("?", tools=[double])
    one = cost_of(Usage(input=100, cache_read=900, output=10), PRICES)
    assert one is not None
    assert response.cost == one + one
    assert response.usage.source == "reported"


@pytest.mark.parametrize(
    "bodies", [(answer(None),), (answer(USAGE, ToolCall("double", '{"number": 2}', id="1")), answer(None))]
)
async def test_one_round_that_nobody_counted_makes_the_cost_unknown(surface, bodies) -> None:
    with speaks(*bodies) as server:
        client = surface.client(f"openai-chat:m@{server.url}", prices={"openai-chat:m": PRICES})
        response = await client.ask("?", tools=[double])
    assert response.text == "Hello"
    assert response.cost is None


async def test_a_count_of_nothing_is_none(surface) -> None:
    told = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    with speaks(answer(told)) as server:
        client = surface.client(f"openai-chat:m@{server.url}", prices={"openai-chat:m": PRICES})
        response = await client.ask("?")
    assert (response.usage.source, response.cost) == ("reported", None)


async def test_a_stream_that_was_closed_early_has_no_cost(surface) -> None:
    client = surface.client("pico")
    async with client.stream("Hello") as stream:
        async for _ in stream:
            break
    assert stream.response.finish_reason == "cancelled"
    assert stream.response.cost is None


async def test_a_model_in_this_process_has_no_cost_since_nobody_bills_it(surface) -> None:
    response = await surface.client("pico").ask("Hello")
    assert response.usage.source == "reported"
    assert response.cost is None


@pytest.fixture
def openai_here(monkeypatch: pytest.MonkeyPatch):
    """OpenAI's row, whose own server is here: the prices of the catalog hold for it."""
    with Server(whole(answer(USAGE), "Content-Type: application/json")) as server:
        monkeypatch.setitem(PROVIDERS, "openai-chat", Provider("openai-chat", OpenAIChat(), url=server.url))
        yield server


async def test_the_catalogs_prices_hold_for_the_providers_own_server(surface, openai_here) -> None:
    response = await surface.client("openai-chat:gpt-4o-mini").ask("?")
    # 100 tokens at 0.15, 900 at 0.075, 10 at 0.60 dollars a million.
    assert response.cost.usd == Decimal("0.0000885")
    assert response.cost.priced_on == "2026-11-21"
    assert "genai-prices" in response.cost.source


async def test_the_catalogs_prices_do_not_hold_for_another_server(surface, openai_here) -> None:
    with speaks(answer(USAGE)) as stranger:
        response = await surface.client(f"openai-chat:gpt-4o-mini@{stranger.url}").ask("?")
    assert response.cost is None


@pytest.mark.parametrize(
    "call",
    [
        {"extra": {"service_tier": "priority"}},
        {"extra": {"tools": [{"type": "web_search"}]}},
        {"extra": {"prompt_cache_options": {"ttl": "12h"}}},
        {"tools": [ToolSpec("web_search", state=ProviderState("openai_chat", {"type": "web_search"}))]},
    ],
    ids=["another tier", "a tool in extra", "a cache for longer", "a tool that the provider runs"],
)
async def test_what_is_billed_otherwise_makes_the_cost_unknown(surface, openai_here, call) -> None:
    client = surface.client("openai-chat:gpt-4o-mini", on_unsupported="ignore")
    assert (await client.ask("?", **call)).cost is None
    as_usual = {"service_tier": "default", "prompt_cache_options": {"mode": "explicit"}}
    assert (await client.ask("?", extra=as_usual)).cost is not None


@pytest.mark.parametrize(
    ("said", "is_known"),
    [
        ({"service_tier": "default"}, True),
        ({"service_tier": "on_demand"}, True),
        ({"service_tier": None}, True),
        ({"service_tier": {"type": "default"}}, True),
        ({"service_tier": "priority"}, False),
        ({"service_tier": "flex"}, False),
        ({"usage": {**USAGE, "service_tier": "standard", "inference_geo": "not_available"}}, True),
        ({"usage": {**USAGE, "service_tier": "batch"}}, True),
        ({"usage": {**USAGE, "service_tier": "priority"}}, False),
        ({"usage": {**USAGE, "inference_geo": "us"}}, False),
        ({"usage": {**USAGE, "speed": "fast"}}, False),
    ],
)
async def test_what_was_served_otherwise_than_the_prices_say_has_no_cost(surface, monkeypatch, said, is_known) -> None:
    body = json.dumps({**json.loads(answer(USAGE)), **said}).encode()
    with speaks(body) as server:
        monkeypatch.setitem(PROVIDERS, "openai-chat", Provider("openai-chat", OpenAIChat(), url=server.url))
        response = await surface.client("openai-chat:gpt-4o-mini").ask("?")
    assert (response.cost is not None) == is_known


async def test_anthropics_hour_is_priced_as_such(surface, monkeypatch) -> None:
    kept = {"ephemeral_5m_input_tokens": 600, "ephemeral_1h_input_tokens": 400}
    usage = {"input_tokens": 0, "cache_creation_input_tokens": 1000, "cache_creation": kept, "output_tokens": 0}
    text = {"type": "text", "text": "Hello"}
    head = {
        "id": "1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [text],
        "stop_reason": "end_turn",
    }
    with speaks(json.dumps({**head, "usage": usage}).encode()) as server:
        monkeypatch.setitem(PROVIDERS, "anthropic", Provider("anthropic", Anthropic(), url=server.url))
        response = await surface.client("anthropic:claude-sonnet-4-5-20250929").ask("?", max_tokens=10)
    assert response.cost.buckets == {"cache_write": Decimal("0.00225"), "cache_write_1h": Decimal("0.0024")}


async def test_cohere_bills_other_tokens_than_it_counts(surface, monkeypatch) -> None:
    counted = {"input_tokens": 506, "output_tokens": 4}
    usage = {"billed_units": {"input_tokens": 11, "output_tokens": 3}, "tokens": counted, "cached_tokens": 448}
    body = {
        "id": "1",
        "finish_reason": "COMPLETE",
        "message": {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]},
        "usage": usage,
    }
    with speaks(json.dumps(body).encode()) as server:
        monkeypatch.setitem(PROVIDERS, "cohere", Provider("cohere", Cohere(), url=server.url))
        response = await surface.client("cohere:command-a-03-2025").ask("?")
    assert (response.usage.input_tokens, response.usage.cached_tokens) == (506, 448)
    # At 2.50 and 10 dollars a million.
    assert response.cost.buckets == {"input": Decimal("0.0000275"), "output": Decimal("0.00003")}


# Embeddings and rankings


def embedding_answer(texts: int, usage: dict[str, Any] | None) -> bytes:
    rows = [{"object": "embedding", "index": number, "embedding": [0.5, 0.5]} for number in range(texts)]
    return json.dumps({"object": "list", "model": "m", "data": rows, **({"usage": usage} if usage else {})}).encode()


@pytest.fixture
def searcher(monkeypatch: pytest.MonkeyPatch):
    """Rows of the table's providers of embeddings and rankings, whose own server is the one that is given."""
    monkeypatch.setattr(providers, "PROVIDERS", dict(PROVIDERS))
    rows = {
        "openai": {"embeddings": OpenAIEmbeddings(max_inputs=2)},
        "openrouter": {"embeddings": OpenAIEmbeddings(), "rerank": CohereRerank()},
        "voyage": {"embeddings": OpenAIEmbeddings(), "rerank": CohereRerank(rows="data")},
        "cohere": {"rerank": CohereRerank()},
    }

    def put(server: Server) -> None:
        for name, formats in rows.items():
            monkeypatch.setitem(providers.PROVIDERS, name, Provider(name, url=server.url, **formats))

    return put


def told(tokens: int) -> dict[str, Any]:
    return {"prompt_tokens": tokens, "total_tokens": tokens}


async def test_embeddings_have_a_cost_with_the_day_of_its_price(surface, searcher) -> None:
    with speaks(embedding_answer(1, told(1000)), embedding_answer(1, told(1000))) as server:
        searcher(server)
        client = surface.client("openai:text-embedding-3-small")
        one, batch = await client.embed("a text"), await client.embed_batch(["a text"])
    for embedded in (one, batch):
        assert embedded.cost.usd == Decimal("0.00002")
        assert embedded.cost.buckets == {"input": Decimal("0.00002")}
        assert (embedded.cost.priced_on, embedded.cost.is_reported) == ("2026-11-21", False)
        assert "genai-prices" in embedded.cost.source
        assert embedded.usage.source == "reported"


async def test_the_cost_of_all_requests_of_a_call_stands_with_the_vectors(surface, searcher) -> None:
    seen: list[Cost | None] = []

    class Watch(sabir.Hook):
        def on_end(self, event: sabir.CallEnded) -> None:
            assert event.response is not None
            seen.append(event.response.cost)

    with speaks(*(embedding_answer(2, told(100)) for _ in range(3))) as server:
        searcher(server)
        batch = await surface.client("openai:text-embedding-3-large", hooks=[Watch()]).embed(["a text"] * 6)
    assert len(batch.attempts) == 3
    assert batch.cost.usd == 300 * Decimal("0.13") / 1_000_000
    assert seen == [batch.cost]


@pytest.mark.parametrize(
    "usages",
    [(None, None), (told(100), None), (told(100), told(0))],
    ids=["nothing told", "one told", "one told to be nothing"],
)
async def test_one_request_that_nobody_counted_makes_the_cost_of_all_unknown(surface, searcher, usages) -> None:
    with speaks(*(embedding_answer(2, usage) for usage in usages)) as server:
        searcher(server)
        assert (await surface.client("openai:text-embedding-3-small").embed(["a text"] * 4)).cost is None


@pytest.mark.parametrize(
    ("model", "settings", "dollars"),
    [
        ("openai:text-embedding-3-small", {}, "0.00002"),
        ("openai:nobody-knows-this", {}, None),
        ("openai:nobody-knows-this", {"prices": {"openai:nobody-knows-this": Prices(input=Decimal(3))}}, "0.003"),
        ("openai:text-embedding-3-small", {"prices": {"openai:text-embedding-3-small": PRICES}}, "0.002"),
        ("openai-compat:text-embedding-3-small", {}, None),
    ],
    ids=["the table's", "nobody's", "the caller's", "the caller's before the table's", "another server's"],
)
async def test_whose_price_an_embedding_has(surface, searcher, model, settings, dollars) -> None:
    with speaks(embedding_answer(1, told(1000))) as server:
        searcher(server)
        named = f"{model}@{server.url}" if model.startswith("openai-compat") else model
        cost = (await surface.client(named, **settings).embed("a text")).cost
    assert (cost and cost.usd) == (dollars and Decimal(dollars))


async def test_genai_prices_knows_embeddings_too(surface, searcher) -> None:
    pytest.importorskip("genai_prices")
    with speaks(embedding_answer(1, told(1000)), embedding_answer(1, told(1000))) as server:
        searcher(server)
        ours = (await surface.client("openai:text-embedding-3-large").embed("a text")).cost
        theirs = (await surface.client("openai:text-embedding-3-large", prices="genai").embed("a text")).cost
    assert theirs.usd == ours.usd
    assert theirs.source.startswith("genai-prices ")


def ranking_answer(rows: str = "results", **beside: Any) -> bytes:
    return json.dumps({rows: [{"index": 0, "relevance_score": 0.5}], **beside}).encode()


@pytest.mark.parametrize(
    ("model", "body", "buckets"),
    [
        (
            "cohere:rerank-v3.5",
            ranking_answer(meta={"billed_units": {"search_units": 3}}),
            {"search": Decimal("0.006")},
        ),
        (
            "cohere:rerank-v3.5",
            ranking_answer(meta={"billed_units": {"search_units": 1.0}, "tokens": {"input_tokens": 99}}),
            {"search": Decimal("0.002")},
        ),
        ("cohere:rerank-v3.5", ranking_answer(meta={"billed_units": {"search_units": "many"}}), None),
        ("cohere:rerank-v3.5", ranking_answer(), None),
        ("voyage:rerank-2.5", ranking_answer("data", usage={"total_tokens": 1000}), {"input": Decimal("0.00005")}),
        ("voyage:rerank-2.5", ranking_answer("data"), None),
    ],
    ids=["by the search", "tokens beside", "no number", "nothing told", "by the token", "no tokens told"],
)
async def test_a_ranking_has_a_cost_with_the_day_of_its_price(surface, searcher, model, body, buckets) -> None:
    with speaks(body) as server:
        searcher(server)
        ranked = await surface.client(model).rerank("a query", ["a document"])
    assert (ranked.cost and ranked.cost.buckets) == buckets
    if ranked.cost is not None:
        assert ranked.cost.usd == sum(buckets.values())
        assert ranked.cost.priced_on is not None
        assert ranked.cost.source is not None


async def test_what_a_provider_says_of_an_embedding_or_a_ranking_goes_before_any_price(surface, searcher) -> None:
    vectors = embedding_answer(1, {**told(7), "cost": 1.4e-07, "is_byok": False})
    ranks = ranking_answer(usage={"total_tokens": 17, "cost": 3.4e-07})
    with speaks(vectors, ranks) as server:
        searcher(server)
        client = surface.client("openrouter:m", prices={"openrouter:m": PRICES})
        costs = ((await client.embed("a text")).cost, (await client.rerank("a query", ["a document"])).cost)
    assert costs == tuple(
        Cost(usd=Decimal(dollars), source="openrouter", is_reported=True) for dollars in ("1.4e-7", "3.4e-7")
    )


async def test_no_texts_and_no_documents_have_no_cost_since_nothing_is_sent(surface, searcher) -> None:
    with speaks() as server:
        searcher(server)
        assert (await surface.client("openai:text-embedding-3-small").embed([])).cost is None
        assert (await surface.client("cohere:rerank-v3.5").rerank("a query", [])).cost is None


# Providers that say it themselves


@pytest.mark.parametrize(
    ("provider", "more", "dollars"),
    [
        ("openrouter", {"cost": 0.0002974, "is_byok": False}, "0.0002974"),
        ("openrouter", {"cost": 0}, "0"),
        ("openrouter", {"cost": 0.00001, "is_byok": True}, None),
        ("xai", {"cost_in_usd_ticks": 37756000}, "0.0037756"),
        ("grok", {"cost_in_usd_ticks": 37756000}, "0.0037756"),
        ("perplexity", {"cost": {"total_cost": 0.00508, "request_cost": 0.005}}, "0.00508"),
        ("vercel", {"cost": 0.000543}, "0.000543"),
        ("groq", {"cost": 0.5}, None),
        ("xai", {"cost_in_usd_ticks": "many"}, None),
        ("xai", {"cost_in_usd_ticks": -1}, None),
    ],
)
async def test_what_a_provider_says_goes_before_any_price(surface, provider, more, dollars) -> None:
    with speaks(answer({**USAGE, **more})) as server:
        client = surface.client(f"{provider}:m@{server.url}", api_key="none-at-all")
        cost = (await client.ask("?")).cost
    assert cost == (dollars and Cost(usd=Decimal(dollars), source=provider, is_reported=True))


@pytest.mark.parametrize(("cost", "dollars"), [({"usd": 0.002, "diem": 0}, "0.002"), ({"usd": 0, "diem": 0.01}, None)])
async def test_venice_says_it_beside_the_usage_if_it_was_paid_in_dollars(surface, cost, dollars) -> None:
    body = json.dumps({**json.loads(answer(USAGE)), "cost": cost}).encode()
    with speaks(body) as server:
        found = (await surface.client(f"venice:m@{server.url}", api_key="none-at-all").ask("?")).cost
    assert found == (dollars and Cost(usd=Decimal(dollars), source="venice", is_reported=True))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.dictionaries(st.sampled_from(["usage", "cost", "usd", "usage.cost", "set", "diem"]), inner),
        max_leaves=12,
    )
)
def test_whatever_a_stranger_says_of_a_cost_it_is_one_or_none(value: Any) -> None:
    state = ProviderState("openai_chat", {"answer": {"set": value}, "usage": {"set": value}})
    before = repr(state)
    said = said_beyond(state)
    for provider in ("openrouter", "venice", "xai", "perplexity", "cohere"):
        cost = reported_cost(provider, said)
        assert cost is None or 0 <= cost.usd < float("inf")
        assert (searches_of(provider, said) or 0) >= 0
        billed_usage(provider, said)
    assert repr(state) == before


# What their answers call it, and how much of it is a dollar.
TELLERS: dict[str, tuple[tuple[str, ...], int]] = {
    "openrouter": (("usage", "cost"), 1),
    "vercel": (("usage", "cost"), 1),
    "xai": (("usage", "cost_in_usd_ticks"), 10**10),
    "perplexity": (("usage", "cost", "total_cost"), 1),
    "venice": (("cost", "usd"), 1),
}


def dollars_told(provider: str, answer: Any) -> Decimal | None:
    path, per_dollar = TELLERS[provider]
    for name in path:
        answer = answer.get(name) if isinstance(answer, dict) else None
    return None if answer is None else Decimal(str(answer)) / per_dollar


def recorded(dialect: str) -> Iterator[tuple[str, str, Any]]:
    """The answers of providers that say what they cost: the exchange's id, the provider and the body."""
    for line in (RECORDINGS / f"{dialect}.jsonl").read_text().splitlines():
        exchange = json.loads(line)
        provider = {"vercel-gateway": "vercel"}.get(exchange["provider"], exchange["provider"])
        if provider in TELLERS and exchange["response"]["status"] == 200:
            yield exchange["id"], provider, exchange["response"]["body"]


@pytest.mark.skipif(not RECORDINGS.exists(), reason=f"there are no recordings at {RECORDINGS}")
@pytest.mark.parametrize(
    ("name", "dialect", "least"),
    [
        ("openai-chat", OpenAIChat(), 40),
        ("openai-responses", OpenAIResponses(), 10),
        ("openai-embeddings", OpenAIEmbeddings(), 3),
        ("rerank", CohereRerank(), 1),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_recorded_costs_are_all_found(name: str, dialect: Any, least: int) -> None:
    seen = 0
    for id_, provider, body in recorded(name):
        dollars = dollars_told(provider, body)
        if dollars is None:
            continue
        try:
            decoded = dialect.decode_answer(json.dumps(body).encode())
        except SabirError:
            continue
        state = response_of(name, decoded).message.state if isinstance(decoded, list) else decoded.state
        assert reported_cost(provider, said_beyond(state)) == Cost(usd=dollars, source=provider, is_reported=True), id_
        seen += 1
    assert seen >= least


@pytest.mark.skipif(not RECORDINGS.exists(), reason=f"there are no recordings at {RECORDINGS}")
def test_recorded_costs_of_streams_are_found_too() -> None:
    seen = 0
    for id_, provider, body in recorded("openai-chat"):
        events = [line.removeprefix("data:").strip() for line in body.splitlines()] if isinstance(body, str) else []
        told = [dollars_told(provider, json.loads(event)) for event in events if event.startswith("{")]
        dollars = [each for each in told if each is not None]
        if not dollars:
            continue
        decoder, total = OpenAIChat().decoder(), Assembler("openai_chat")
        try:
            for delta in [*decoder.feed(body.encode()), *decoder.close()]:
                total.add(delta)
        except SabirError:
            continue
        cost = reported_cost(provider, said_beyond(total.message().state))
        assert cost is not None, id_
        assert cost.usd == dollars[-1], id_
        seen += 1
    assert seen > 20


@pytest.mark.skipif(not RECORDINGS.exists(), reason=f"there are no recordings at {RECORDINGS}")
def test_what_cohere_bills_is_found_in_every_recorded_answer() -> None:
    seen = 0
    for line in (RECORDINGS / "cohere.jsonl").read_text().splitlines():
        body = json.loads(line)["response"]["body"]
        billed = body.get("usage", {}).get("billed_units") if isinstance(body, dict) else None
        if billed is None:
            continue
        message = response_of("cohere", Cohere().decode_answer(json.dumps(body).encode())).message
        expected = Usage(input=billed["input_tokens"], output=billed["output_tokens"])
        assert billed_usage("cohere", said_beyond(message.state)) == expected
        seen += 1
    assert seen > 10


@pytest.mark.skipif(not RECORDINGS.exists(), reason=f"there are no recordings at {RECORDINGS}")
def test_recorded_searches_of_cohere_are_found() -> None:
    bodies = [json.loads(line) for line in (RECORDINGS / "rerank.jsonl").read_text().splitlines()]
    found = [
        searches_of(
            "cohere", said_beyond(CohereRerank().decode_answer(json.dumps(each["response"]["body"]).encode()).state)
        )
        for each in bodies
        if each["provider"] == "cohere" and each["response"]["status"] == 200
    ]
    assert found == [1, 1, 1]


# genai-prices


async def test_genai_prices_agrees_with_the_catalog_and_says_which_release_it_is(surface, openai_here) -> None:
    pytest.importorskip("genai_prices")
    ours = (await surface.client("openai-chat:gpt-4o-mini").ask("?")).cost
    theirs = (await surface.client("openai-chat:gpt-4o-mini", prices="genai").ask("?")).cost
    assert theirs.usd == ours.usd
    assert theirs.source.startswith("genai-prices ")
    assert set(theirs.buckets) == {"input", "output"}


async def test_genai_prices_is_asked_only_if_it_is_to_be(surface, openai_here) -> None:
    pytest.importorskip("genai_prices")
    # Nothing in the catalog, and a model that the package knows.
    assert (await surface.client("openai-chat:gpt-4-32k").ask("?")).cost is None
    assert (await surface.client("openai-chat:gpt-4-32k", prices="genai").ask("?")).cost.usd > 0
    assert (await surface.client("openai-chat:nobody-knows-this", prices="genai").ask("?")).cost is None
    # Its answers may be pictures, whose tokens have another price.
    assert (await surface.client("openai-chat:chatgpt-image-latest", prices="genai").ask("?")).cost is None


def test_genai_prices_that_is_not_installed_is_named_with_the_remedy(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'sabir\[prices\]'"):
        sabir.Client("pico", prices="genai")


@pytest.mark.parametrize("prices", ["models.dev", {"pico": 3}, 5])
def test_other_prices_are_refused(prices: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"prices is 'genai', or sabir\.Prices by model"):
        sabir.Client("pico", prices=prices)


# Before it is sent


async def test_explain_estimates_what_will_be_read_and_what_that_costs(surface, openai_here) -> None:
    shown = surface.client("openai-chat:gpt-4o-mini").explain("word " * 1000)
    assert shown.usage.source == "estimated"
    assert 900 < shown.usage.input_tokens < 1500
    assert shown.cost.usd == shown.usage.input_tokens * Decimal("0.15") / 1_000_000
    assert openai_here.calls == []


async def test_explain_does_not_guess_what_a_picture_takes(surface, openai_here) -> None:
    png = b"\x89PNG\r\n\x1a\n" + bytes(8)
    shown = surface.client("openai-chat:gpt-4o-mini").explain("What is this?", images=[png])
    assert (shown.usage, shown.cost) == (None, None)
