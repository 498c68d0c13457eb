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
from hypothesis import given
from hypothesis import strategies as st
from servers import Server, whole

import sabir
from sabir import ConfigurationError, Cost, Prices, Provider, Tier, ToolCall, ToolSpec, Usage
from sabir.catalog import listed, reported_cost
from sabir.cost import cost_of
from sabir.deltas import Assembler
from sabir.dialects import response_of
from sabir.dialects.anthropic import Anthropic
from sabir.dialects.openai_chat import OpenAIChat
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


def test_prices_nobody_knows_are_not_0() -> None:
    assert cost_of(Usage(input=0, output=0), Prices()) is None


@pytest.mark.parametrize(
    "rate", [Decimal(-1), Decimal("NaN"), Decimal("Infinity"), Decimal("1E+9"), Decimal("1E-40"), 1.5]
)
def test_a_price_is_a_decimal_of_a_sensible_size(rate: Any) -> None:
    with pytest.raises(ValueError, match="the price of output"):
        Prices(output=rate)


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


@given(
    st.sampled_from([entry.facts.prices for entry in listed() if entry.facts.prices is not None]),
    st.integers(min_value=1, max_value=2_000_000),
    counts,
)
def test_a_cached_prompt_costs_less_than_one_that_is_not(prices: Prices, read: int, written: int) -> None:
    cached = cost_of(Usage(input=0, cache_read=read, output=written), prices)
    fresh = cost_of(Usage(input=read, output=written), prices)
    assert fresh is not None
    assert cached is None if prices.cache_read is None else cached is not None and cached.usd < fresh.usd


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
        {"tools": [ToolSpec("web_search", state=ProviderState("openai_chat", {"type": "web_search"}))]},
    ],
    ids=["another tier", "a tool in extra", "a tool that the provider runs"],
)
async def test_what_is_billed_otherwise_makes_the_cost_unknown(surface, openai_here, call) -> None:
    client = surface.client("openai-chat:gpt-4o-mini", on_unsupported="ignore")
    assert (await client.ask("?", **call)).cost is None
    assert (await client.ask("?", extra={"service_tier": "default"})).cost is not None


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


def recorded() -> Iterator[tuple[Any, str, dict[str, Any]]]:
    """Whole answers of providers that say what they cost."""
    for name, dialect in (("openai-chat", OpenAIChat()), ("openai-responses", OpenAIResponses())):
        path = RECORDINGS / f"{name}.jsonl"
        for line in path.read_text().splitlines() if path.exists() else ():
            exchange = json.loads(line)
            provider = {"vercel-gateway": "vercel"}.get(exchange["provider"], exchange["provider"])
            usage = mapping(mapping(exchange["response"]["body"]).get("usage"))
            if provider in ("openrouter", "xai", "perplexity", "vercel") and "cost" in "".join(usage):
                yield dialect, provider, exchange


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


@pytest.mark.skipif(not RECORDINGS.exists(), reason=f"there are no recordings at {RECORDINGS}")
def test_recorded_costs_are_all_found() -> None:
    seen = 0
    for dialect, provider, exchange in recorded():
        body = exchange["response"]["body"]
        try:
            response = response_of(dialect.name, dialect.decode_answer(json.dumps(body).encode()))
        except SabirError:
            continue
        usage = body["usage"]
        told = usage.get("cost_in_usd_ticks", usage.get("cost"))
        told = told.get("total_cost") if isinstance(told, dict) else told
        cost = reported_cost(provider, response.message)
        if provider == "xai":
            told = Decimal(told) / 10**10
        assert cost is not None, exchange["id"]
        assert cost.usd == Decimal(str(told)), exchange["id"]
        seen += 1
    assert seen > 20


@pytest.mark.skipif(not RECORDINGS.exists(), reason=f"there are no recordings at {RECORDINGS}")
def test_recorded_costs_of_streams_are_found_too() -> None:
    seen = 0
    for line in (RECORDINGS / "openai-chat.jsonl").read_text().splitlines():
        exchange = json.loads(line)
        body = exchange["response"]["body"]
        if exchange["provider"] != "openrouter" or not isinstance(body, str) or '"cost":' not in body:
            continue
        decoder, sum_ = OpenAIChat().decoder(), Assembler("openai_chat")
        try:
            for delta in [*decoder.feed(body.encode()), *decoder.close()]:
                sum_.add(delta)
        except SabirError:
            continue
        assert reported_cost("openrouter", sum_.message()) is not None, exchange["id"]
        seen += 1
    assert seen > 5


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
