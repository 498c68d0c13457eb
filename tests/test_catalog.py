"""What is known of models: the committed table, how ids are found in it, newer facts over it, and what clients do."""

from __future__ import annotations

import datetime
import json
import os
import stat
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
from sabir import (
    ConfigurationError,
    ConnectError,
    File,
    Image,
    Message,
    ModelFacts,
    Prices,
    Provider,
    ProviderError,
    SabirWarning,
    StorageError,
    Tier,
    Tool,
    ToolCall,
    ToolResult,
    UnsupportedError,
    catalog,
    newer_facts,
    user,
)
from sabir.catalog import ABILITIES, UNKNOWN, facts_of, listed
from sabir.providers import PROVIDERS

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(24)
ANSWER = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]}
JSON = "Content-Type: application/json"

# In the format of https://github.com/sst/models.dev#schema-reference.
SAMPLE: dict[str, Any] = {
    "google": {
        "id": "google",
        "name": "Google",
        "models": {
            "gemini-9": {
                "id": "gemini-9",
                "name": "Gemini 9",
                "attachment": True,
                "reasoning": True,
                "reasoning_options": [
                    {"type": "toggle"},
                    {"type": "effort", "values": ["none", "low", "high"], "default": "low"},
                    {"type": "budget_tokens", "min": 0, "max": 24576},
                ],
                "temperature": True,
                "tool_call": True,
                "structured_output": True,
                "modalities": {"input": ["text", "image", "audio", "video", "pdf"], "output": ["text"]},
                "cost": {
                    "input": 1.25,
                    "output": 10,
                    "cache_read": 0.125,
                    "input_audio": 2,
                    "tiers": [{"tier": {"type": "context", "size": 200000}, "input": 2.5, "output": 15}],
                    "context_over_200k": {"input": 2.5, "output": 15},
                },
                "limit": {"context": 1048576, "output": 65536},
            }
        },
    },
    "openai": {
        "models": {
            "gpt-4o": {
                "reasoning": False,
                "tool_call": {"supported": True, "parallel": True},
                "modalities": {"input": ["text"], "output": ["text"]},
                "cost": {"input": 2, "output": 9, "context_over_200k": {"input": 4, "output": 18}},
                "limit": {"context": 0, "output": 0},
            },
            "broken": {"tool_call": "yes"},
            "priced-below-0": {"tool_call": True, "cost": {"input": -1, "output": 1}},
            "by-the-hour": {"cost": {"input": 1, "output": 1, "tiers": [{"tier": {"type": "time", "size": 3}}]}},
        }
    },
    "somebody-else": {"models": {"m": {"tool_call": True}}},
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of this test's own."""
    monkeypatch.setenv("SABIR_CACHE_DIR", str(tmp_path / "cache"))
    newer_facts.newer_facts.cache_clear()
    yield tmp_path / "cache" / "models.json"
    newer_facts.newer_facts.cache_clear()


def serving(value: Any, **more: Any) -> Server:
    return Server(whole(value if isinstance(value, bytes) else json.dumps(value).encode(), JSON, **more))


def double(number: int) -> int:
    return 2 * number


# The committed table


def test_the_table_is_of_providers_that_there_are_and_all_of_it_can_be_looked_up() -> None:
    entries = list(listed())
    assert len(entries) > 80
    assert {entry.provider for entry in entries} <= PROVIDERS.keys()
    assert [entry for entry in entries if facts_of(entry.provider, entry.model) == UNKNOWN] == []


def test_everything_in_the_table_says_who_knows_it_and_since_when() -> None:
    today = datetime.datetime.now(datetime.UTC).date()
    for entry in listed():
        assert entry.facts.source
        for day in (entry.facts.checked_on, entry.facts.prices and entry.facts.prices.priced_on):
            assert day is None or datetime.date.fromisoformat(day) <= today
        assert entry.facts.checked_on
        if entry.facts.prices is not None:
            assert entry.facts.prices.source
            assert entry.facts.prices.priced_on


def test_the_tables_numbers_are_sensible() -> None:
    for entry in listed():
        facts, prices = entry.facts, entry.facts.prices
        assert facts.context is None or 448 <= facts.context <= 10_000_000
        assert facts.max_output is None or facts.context is None or facts.max_output <= facts.context
        if prices is not None and prices.search is not None:
            assert prices == Prices(search=prices.search, priced_on=prices.priced_on, source=prices.source)
        elif prices is not None:
            assert prices.input is not None
            assert prices.output is None or prices.input <= prices.output
            assert prices.cache_read is None or prices.cache_read < prices.input
            assert all(tier.input is not None and tier.input > prices.input for tier in prices.tiers)


def test_names_that_lead_elsewhere_in_the_table_lead_somewhere() -> None:
    shelves = json.loads(catalog.FILE.read_bytes())["providers"]
    for shelf in shelves.values():
        assert shelf.get("same_as", "openai") in shelves
        assert set(shelf.get("aliases", {}).values()) <= set(shelf.get("models", {}))
        assert {hosted["maker"] for hosted in shelf.get("hosted", ())} <= set(shelves)
    for entry in listed():
        # A host's row of a model that its maker's rows do not have would be prices of nobody knows what.
        assert entry.provider != "openrouter" or entry.facts.outputs or entry.facts.context


@pytest.mark.parametrize(
    ("provider", "model", "known_as"),
    [
        ("openai", "gpt-4o-2024-08-06", ("openai", "gpt-4o")),
        ("openai-responses", "gpt-5", ("openai", "gpt-5")),
        ("openai-chat", "gpt-5-mini-2025-08-07", ("openai", "gpt-5-mini")),
        ("anthropic", "claude-opus-4-5-20251101", ("anthropic", "claude-opus-4-5")),
        ("google", "gemini-2.5-pro", ("gemini", "gemini-2.5-pro")),
        ("grok", "grok-4.5", ("xai", "grok-4.5")),
        ("mistral", "mistral-large-latest", ("mistral", "mistral-large-2512")),
        ("anthropic", "claude-sonnet-4-20250514", ("anthropic", "claude-sonnet-4-0")),
        ("gemini", "gemini-embedding-2-preview", ("gemini", "gemini-embedding-2")),
    ],
)
def test_another_name_of_a_model_has_all_its_facts(provider: str, model: str, known_as: tuple[str, str]) -> None:
    assert facts_of(provider, model) == facts_of(*known_as) != UNKNOWN
    assert facts_of(provider, model).prices is not None


def test_a_dated_release_with_a_price_of_its_own_has_that() -> None:
    old, now = facts_of("openai", "gpt-4o-2024-05-13").prices, facts_of("openai", "gpt-4o").prices
    assert old is not None
    assert now is not None
    assert (old.input, now.input) == (Decimal(5), Decimal("2.5"))


@pytest.mark.parametrize(
    ("provider", "model", "made"),
    [
        ("vercel", "openai/gpt-4o", ("openai", "gpt-4o")),
        ("vercel", "google/gemini-2.5-flash", ("gemini", "gemini-2.5-flash")),
        ("vercel", "anthropic/claude-opus-4.8", ("anthropic", "claude-opus-4-8")),
        ("vercel", "xai/grok-4", ("xai", "grok-4")),
        ("vertex", "gemini-2.5-flash", ("gemini", "gemini-2.5-flash")),
        ("vertex-anthropic", "claude-opus-4-5@20251101", ("anthropic", "claude-opus-4-5")),
        ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", ("anthropic", "claude-sonnet-4-5")),
    ],
)
def test_a_hosted_model_can_do_what_its_maker_says_and_costs_what_nobody_said(provider, model, made) -> None:
    assert facts_of(provider, model) == msgspec.structs.replace(facts_of(*made), prices=None) != UNKNOWN


@pytest.mark.parametrize(
    ("model", "made"),
    [
        ("openai/gpt-4o", ("openai", "gpt-4o")),
        ("anthropic/claude-sonnet-4.5", ("anthropic", "claude-sonnet-4-5")),
        ("x-ai/grok-4.7", ("xai", "grok-4.7")),
    ],
)
def test_a_hosted_model_has_prices_of_its_host_where_somebody_said_them(model: str, made: tuple[str, str]) -> None:
    hosted = facts_of("openrouter", model)
    assert hosted == msgspec.structs.replace(facts_of(*made), prices=hosted.prices)
    assert hosted.prices is not None
    assert (hosted.prices.priced_on, hosted.prices.source and "genai-prices" in hosted.prices.source) == (
        "2026-11-21",
        True,
    )


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4o-latest"),
        ("openai", "gpt-4o-2024"),
        ("openai", "my-gpt-4o"),
        ("azure", "gpt-4o"),
        ("openrouter", "openai/gpt-4o:online"),
        ("openrouter", "gpt-4o"),
        ("nobody", "gpt-4o"),
        ("pico", "pico"),
    ],
)
def test_what_only_looks_like_a_model_of_the_table_is_unknown(provider: str, model: str) -> None:
    assert facts_of(provider, model) == UNKNOWN


facts = st.builds(
    ModelFacts, **dict.fromkeys(ABILITIES, st.none() | st.booleans()), context=st.none() | st.integers(1, 10**6)
)


@given(facts, facts)
def test_newer_facts_go_over_older_ones_and_leave_what_they_do_not_say(newer: ModelFacts, older: ModelFacts) -> None:
    both = newer.over(older)
    for name in (*ABILITIES, "context"):
        said = getattr(newer, name)
        assert getattr(both, name) == (getattr(older, name) if said is None else said)


# What a client does with it


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch):
    """A provider whose own server is here, and what a file of the user's says of its models."""
    with serving(ANSWER) as server:
        monkeypatch.setitem(PROVIDERS, "here", Provider("here", url=server.url))
        yield server


def know(path: Path, **models: ModelFacts) -> None:
    """Write the file of newer facts about the provider here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {"format_version": 1, "source": "a test", "fetched_on": "2026-11-21", "providers": {"here": models}}
    path.write_bytes(msgspec.json.encode(kept))


NO = ModelFacts(**dict.fromkeys(ABILITIES, False), source="a test", checked_on="2026-11-21")
NEEDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "run tools": ("?", {"tools": [double]}),
    "see images": ("?", {"images": [PNG]}),
    "hear audio": ("?", {"audio": [WAV]}),
    "read PDF": ([user("?", File(data=b"%PDF-1.7\n", media_type="application/pdf"))], {}),
    "think": ("?", {"thinking": "low"}),
    "watch video": ([user("?", File(data=b"video", media_type="video/mp4"))], {}),
    "call several tools at once": ("?", {"parallel_tool_calls": True}),
}


@pytest.mark.parametrize("what", NEEDS)
async def test_a_known_no_is_refused_with_a_reason_and_nothing_is_sent(surface, cache, here, what) -> None:
    know(cache, m=NO)
    prompt, call = NEEDS[what]
    told = f"here:m cannot {what}, says a test of 2026-11-21; choose another model"
    with pytest.raises(UnsupportedError, match=told) as caught:
        await surface.client("here:m").ask(prompt, **call)
    has_word = what != "call several tools at once"
    assert ("or say what it can do: 'here:m;" in str(caught.value)) == has_word
    assert here.calls == []


async def test_a_model_that_is_known_to_keep_to_no_schema_is_not_asked_to(surface, cache, here) -> None:
    know(cache, m=NO)
    with pytest.raises(UnsupportedError, match="no schema_mode='native'"):
        await surface.client("here:m").ask("?", schema={"type": "object"}, schema_mode="native")
    assert here.calls == []


async def test_what_a_tool_showed_counts_as_shown(surface, cache, here) -> None:
    know(cache, m=ModelFacts(vision=False, source="a test", checked_on="2026-11-21"))
    call = ToolCall("look", "{}", id="1")
    shown = ToolResult(call_id="1", name="look", content=(Image(data=PNG, media_type="image/png"),))
    history = [user("?"), Message("assistant", (call,)), Message("tool", (shown,))]
    with pytest.raises(UnsupportedError, match="here:m cannot see images, says a test"):
        await surface.client("here:m").ask(history)
    assert here.calls == []


# Chat completions have no place for a video.
@pytest.mark.parametrize("what", [need for need in NEEDS if need != "watch video"])
@pytest.mark.parametrize("model", ["unknown", "able", "unable@other"])
async def test_what_is_unknown_is_sent(surface, cache, here, what, model) -> None:
    yes = ModelFacts(**dict.fromkeys(ABILITIES, True), source="a test", checked_on="2026-11-21")
    know(cache, able=yes, unable=NO)
    prompt, call = NEEDS[what]
    with serving(ANSWER) as other:
        # Of a model with this name on somebody else's server, nobody said anything.
        client = surface.client(f"here:{model.replace('@other', f'@{other.url}')}", on_unsupported="ignore")
        await client.ask(prompt, **call)
        assert len(here.calls) + len(other.calls) == 1


async def test_what_is_declared_goes_over_the_table(surface, cache, here) -> None:
    know(cache, m=NO, n=ModelFacts(tools=True, context=5))
    client = surface.client("here:m;tools")
    await client.ask("?", tools=[double])
    assert client.capabilities().tools is True
    told = r"here:m cannot see images, by its model string; add the word 'vision' there, or choose another model$"
    with pytest.raises(UnsupportedError, match=told):
        await client.ask("?", images=[PNG])
    assert client.capabilities("here:n;vision") == ModelFacts(
        tools=False, thinking=False, vision=True, audio=False, video=False, pdf=False, structured=False, context=5
    )
    paper = File(data=b"%PDF-1.7\n", media_type="application/pdf")
    await client.ask([user("?"), user("Read", paper)], model="here:m;pdf")
    with pytest.raises(UnsupportedError, match="here:m cannot read PDF, by its model string; add the word 'pdf' there"):
        await client.ask([user("?"), user("Read", paper)])


async def test_capabilities_are_told_without_a_request_and_without_a_key_of_the_answer(surface, here) -> None:
    client = surface.client("here:m")
    assert client.capabilities() == UNKNOWN
    assert client.capabilities("pico") == ModelFacts(
        tools=True, thinking=True, structured=True, vision=False, audio=False, video=False, pdf=False
    )
    assert client.capabilities("groq:openai/gpt-oss-20b@http://127.0.0.1:1/v1") == UNKNOWN
    assert here.calls == []


def test_inputs_are_what_is_known_to_be_taken(monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none-at-all")
    with sabir.Client("openai:gpt-4o") as client:
        facts = client.capabilities()
    assert (facts.inputs, facts.outputs, facts.context) == (("text", "image", "pdf"), ("text",), 128_000)


@pytest.mark.parametrize(("asked", "is_told"), [(100, False), (101, True), (None, False)])
async def test_more_than_a_model_writes_is_sent_and_noticed(surface, cache, here, asked, is_told) -> None:
    know(cache, m=ModelFacts(max_output=100, source="a test"))
    client = surface.client("here:m")
    response = await client.ask("?", max_tokens=asked)
    told = "max_tokens=101 was sent, though here:m writes at most 100 tokens, says a test"
    assert [notice.message for notice in response.warnings] == [told] * is_told
    assert [notice.message for notice in client.explain("?", max_tokens=asked).notices] == [told] * is_told
    assert len(here.calls) == 1


# Newer facts


def test_facts_are_fetched_read_and_laid_over_the_table(cache: Path) -> None:
    with serving(SAMPLE) as server:
        done = newer_facts.refresh(f"{server.url}/api.json")
        assert [(call.method, call.target) for call in server.calls] == [("GET", "/api.json")]
    assert (done.path, done.providers, done.models) == (cache, 2, 2)
    assert [line.partition(": ")[0] for line in done.skipped] == [
        *("openai:broken", "openai:priced-below-0", "openai:by-the-hour")
    ]
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    told = {"source": f"{server.url}/api.json", "checked_on": today}
    by = {"source": told["source"], "priced_on": today}
    newer = newer_facts.newer_facts()
    base = {"input": Decimal("1.25"), "output": Decimal(10), "cache_read": Decimal("0.125"), "input_audio": Decimal(2)}
    tier = Tier(above=200_000, **{**base, "input": Decimal("2.5"), "output": Decimal(15)})
    assert facts_of("gemini", "gemini-9", newer) == ModelFacts(
        tools=True,
        structured=True,
        thinking=True,
        thinking_levels=("low", "high", "budget"),
        **dict.fromkeys(("vision", "audio", "video", "pdf"), True),
        outputs=("text",),
        context=1_048_576,
        max_output=65_536,
        prices=Prices(**base, tiers=(tier,), **by),
        **told,
    )
    old = Tier(above=200_000, input=Decimal(4), output=Decimal(18))
    # What it says goes over the table; what it does not say (a limit of 0 says nothing) stays. That a model cannot see
    # of which the table says that it can is not believed, and neither is the table any more.
    assert facts_of("openai", "gpt-4o-2024-11-20", newer) == msgspec.structs.replace(
        facts_of("openai", "gpt-4o"),
        parallel_tools=True,
        vision=None,
        audio=False,
        video=False,
        prices=Prices(input=Decimal(2), output=Decimal(9), tiers=(old,), **by),
        **told,
    )
    assert facts_of("somebody-else", "m", newer) == UNKNOWN


async def test_a_no_against_a_yes_of_the_table_is_tried(surface, cache, monkeypatch) -> None:
    # models.dev says so of this model; recorded answers of OpenAI have calls of it.
    denied = {"openai": {"models": {"gpt-3.5-turbo": {"tool_call": False, "reasoning": False}}}}
    with serving(denied) as server:
        newer_facts.refresh(server.url)
    with serving(ANSWER) as server:
        monkeypatch.setitem(PROVIDERS, "openai-chat", Provider("openai-chat", url=server.url))
        client = surface.client("openai-chat:gpt-3.5-turbo")
        assert client.capabilities().tools is None
        await client.ask("?", tools=[double])
        with pytest.raises(UnsupportedError, match="cannot think"):
            await client.ask("?", thinking=True)
        assert len(server.calls) == 1


def test_prices_that_change_by_the_hour_are_not_believed(cache: Path) -> None:
    flat = {"cost": {"input": 0.15, "output": 0.6}, "tool_call": True}
    with serving({"deepseek": {"models": {"deepseek-flash": flat, "deepseek-next": flat}}}) as server:
        newer_facts.refresh(server.url)
    newer = newer_facts.newer_facts()
    assert facts_of("deepseek", "deepseek-next", newer).tools is True
    assert [facts_of("deepseek", f"deepseek-{name}", newer).prices for name in ("flash", "next")] == [None, None]


@pytest.mark.parametrize(
    ("cost", "prices"),
    [
        # The third of something has more places than a price; it is not made lower.
        ({"input": 1, "output": 2, "cache_write": 1 / 12}, {"input": 1, "output": 2, "cache_write": "0.083333333334"}),
        ({"input": 0.05}, {"input": "0.05"}),
        ({"output": 0.05}, None),
    ],
    ids=["a third", "nothing is written", "no input"],
)
def test_prices_are_read_as_far_as_they_are_told(cost: dict[str, float], prices: dict[str, Any] | None) -> None:
    data = json.dumps({"voyageai": {"models": {"m": {"cost": cost, "tool_call": False}}}}).encode()
    found, skipped = newer_facts.read_models_dev(data, source="a test", day="2026-11-21", names=["voyage"])
    rates = None if prices is None else {name: Decimal(rate) for name, rate in prices.items()}
    expected = None if rates is None else Prices(**rates, priced_on="2026-11-21", source="a test")
    assert (found["voyage"]["m"].prices, skipped) == (expected, ())


@pytest.mark.skipif(os.name == "nt", reason="Windows has other rights")
def test_only_the_user_can_read_what_is_kept(cache: Path) -> None:
    with serving(SAMPLE) as server:
        newer_facts.refresh(server.url)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o600
    assert [path.name for path in cache.parent.iterdir()] == ["models.json"]


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        (whole(b"<html>", JSON), StorageError, "is no JSON"),
        (whole(b"[]", JSON), StorageError, "has no facts in the format of models.dev"),
        (whole(b'{"openai": {"models": {}}}', JSON), StorageError, "has no facts"),
        (whole(b"{}", status="503 Busy"), ProviderError, "503"),
        (whole(b"", "Location: /there", status="301 Moved"), ConfigurationError, "redirect"),
    ],
    ids=["no JSON", "another shape", "empty", "an error", "a redirect"],
)
def test_a_refresh_that_fails_leaves_what_was_there(cache: Path, answer, error, told) -> None:
    know(cache, m=NO)
    before = cache.read_bytes()
    with Server(answer) as server, pytest.raises(error, match=told):
        newer_facts.refresh(server.url)
    assert cache.read_bytes() == before


def test_a_server_that_is_not_there_is_an_error_and_so_is_no_address() -> None:
    with pytest.raises(ConnectError):
        newer_facts.refresh("http://127.0.0.1:1/api.json", timeout=5)
    with pytest.raises(ConfigurationError, match="base_url must look like"):
        newer_facts.refresh("models.dev")


def test_more_bytes_than_there_can_be_facts_are_not_read(monkeypatch) -> None:
    monkeypatch.setattr(newer_facts, "MOST_FETCHED", 1000)
    with serving(b" " * 100_000) as server, pytest.raises(StorageError, match="more than 1000 bytes"):
        newer_facts.refresh(server.url)


KEPT = b'{"format_version": 1, "source": "", "fetched_on": "", "providers": {"here": {"m": %s}}}'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"format_version": 2, "source": "", "fetched_on": "", "providers": {}}',
        KEPT % b'{"tools": "yes"}',
        KEPT % b'{"prices": {"input": -1}}',
        b"\xff\xfe" * 100,
        b" " * (newer_facts.MOST_KEPT + 1),
    ],
    ids=["nothing", "no object", "another version", "a wrong type", "a price below 0", "no text", "too much"],
)
def test_a_broken_file_is_as_good_as_none_and_is_warned_of(cache: Path, data: bytes) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_bytes(data)
    with pytest.warns(SabirWarning, match="are passed over: .*`sabir models refresh` makes them anew"):
        assert newer_facts.newer_facts() == {}
    # Once is enough.
    assert newer_facts.newer_facts() == {}


numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | numbers | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([*SAMPLE["google"]["models"]["gemini-9"], "input", "size", "tier", "tiers", "context"]),
                inner,
                max_size=5,
            )
        ),
        max_leaves=15,
    )
)
def test_whatever_stands_in_such_a_file_it_is_facts_or_passed_over(value: Any) -> None:
    data = json.dumps({"openai": {"models": {"good": {"tool_call": True}, "odd": value}}}).encode()
    found, skipped = newer_facts.read_models_dev(data, source="a test", day="2026-11-21", names=["openai"])
    assert found["openai"]["good"].tools is True
    assert ("odd" in found["openai"]) != bool(skipped)


async def test_tools_of_a_model_that_cannot_run_them_are_refused_as_objects_too(surface, cache, here) -> None:
    know(cache, m=NO)
    with pytest.raises(UnsupportedError, match="cannot run tools"):
        await surface.client("here:m", tools=[Tool(double)]).ask("?")
