"""Batches of four providers, over HTTP on loopback: their server halves, with Pico behind them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import pytest
from batch_server import KEY, KINDS, UNWANTED, BatchServer, in_the_table
from llamas import skip_without_llama

import sabir
from sabir.dialects.openai_chat import OpenAIChat
from sabir.engines.llama_cpp import LlamaCpp, pico_path
from sabir.providers import PROVIDERS
from sabir.testing import Faults, faults

skip_without_llama()

CITIES = ("France", "Norway", "Italy")
PROMPTS = [f"What is the capital of {country}?" for country in CITIES]
NIGHTLY = "nightly-2026-11-21"


@dataclass
class Person:
    name: str
    age: int


@pytest.fixture(scope="module")
def engine():
    made = LlamaCpp(pico_path(), PROVIDERS["pico"].dialect, name="pico")
    yield made
    made.close()


@pytest.fixture(params=list(KINDS))
def kind(request):
    with in_the_table(KINDS[request.param]) as kind:
        yield kind


def only(*names: str) -> Any:
    """A test that is about some of the kinds."""
    return pytest.mark.parametrize("kind", names, indirect=True)


# Those whose results are asked for apart from the batch.
apart = only(*(name for name in KINDS if name != "gemini"))


@pytest.fixture
def server(kind, engine):
    with BatchServer(kind, engine).serving() as serving:
        yield serving


@pytest.fixture
def journal(kind, tmp_path) -> dict[str, Any]:
    """What a submit with a key is to be told where a provider keeps none."""
    return {} if kind.dialect.tells_key else {"journal": tmp_path / "batches.jsonl"}


def client_of(surface, server, **settings):
    return surface.client(f"{server.kind.provider}:{server.kind.model}", base_url=server.url, api_key=KEY, **settings)


async def over(client, batch):
    while not batch.is_over:
        batch = await client.batches.status(batch.id)
    return batch


async def read_into(seen, results):
    async for result in results:
        seen.append(result.index)


async def read(results):
    return [result async for result in results]


async def test_prompts_are_answered_in_their_order(surface, server):
    client = client_of(surface, server)
    batch = await client.batches.submit(PROMPTS, max_tokens=40)
    assert (batch.state, batch.is_over, batch.counts.total) == ("running", False, 3)
    assert (await client.batches.status(batch)).id == batch.id
    assert batch.id == f"{server.kind.provider}:{server.kind.id.format(0)}"
    batch = await over(client, batch)
    assert (batch.state, batch.counts.succeeded) == ("ended", 3)
    results = await read(client.batches.results(batch.id))
    assert [result.index for result in results] == [0, 1, 2]
    for country, result in zip(CITIES, results, strict=True):
        assert result.error is None
        assert f"The capital of {country} is" in result.response.text
        assert result.response.usage.output_tokens > 0
        assert result.usage == result.response.usage
        assert result.response.finish_reason == "stop"
    assert set(server.answered.values()) == {1}


async def test_results_come_in_order_whatever_order_the_server_has(surface, server):
    server.order = lambda outcomes: outcomes[::-1]
    client = client_of(surface, server)
    batch = await over(client, await client.batches.submit([*PROMPTS, UNWANTED]))
    results = await read(client.batches.results(batch))
    assert [result.index for result in results] == [0, 1, 2, 3]
    assert [result.error is None for result in results] == [True, True, True, False]


async def test_a_prompt_that_is_refused_is_its_own_error(surface, server):
    client = client_of(surface, server)
    batch = await over(client, await client.batches.submit([PROMPTS[0], UNWANTED, PROMPTS[1]]))
    assert (batch.state, batch.counts.failed) == ("ended", 1)
    first, second, third = await read(client.batches.results(batch.id))
    assert type(second.error) is sabir.BadRequestError
    assert second.error.provider == server.kind.provider
    assert "not wanted" in str(second.error)
    assert second.response is None
    assert first.response.text != third.response.text


async def test_a_batch_of_nothing_but_refusals_has_only_errors(surface, server):
    client = client_of(surface, server)
    batch = await over(client, await client.batches.submit([UNWANTED]))
    (result,) = await read(client.batches.results(batch.id))
    assert isinstance(result.error, sabir.BadRequestError)


async def test_an_answer_is_checked_against_its_schema(surface, server):
    client = client_of(surface, server)
    prompts = ["Extract JSON: Alice is 31 years old.", "Extract JSON: Bob is 27 years old."]
    batch = await over(client, await client.batches.submit(prompts, schema=Person))
    results = await read(client.batches.results(batch.id, schema=Person))
    people = [result.response.parsed for result in results]
    assert [(type(person), person.age) for person in people] == [(Person, 31), (Person, 27)]
    wrong = {"type": "object", "properties": {"size": {"type": "integer"}}, "required": ["size"]}
    for result in await read(client.batches.results(batch.id, schema=wrong)):
        assert type(result.error) is sabir.StructuredOutputError
        assert result.error.partial.text
        assert result.usage.output_tokens > 0


@pytest.mark.parametrize("mode", ["native", "tool", "prompt"])
async def test_a_schema_is_read_as_it_was_asked_for(surface, server, mode):
    client = client_of(surface, server)
    prompt = "Extract JSON: Alice is 31 years old."
    batch = await over(client, await client.batches.submit([prompt], schema=Person, schema_mode=mode))
    ((item,),) = [held.items for held in server.held.values()]
    assert item.id == f"sabir-{mode}-0"
    (result,) = await read(client.batches.results(batch.id, schema=Person))
    assert (type(result.response.parsed), result.response.parsed.age) == (Person, 31)
    assert result.response.tool_calls == ()


def get_weather(city: str) -> str:
    """Get the weather in a city."""
    raise AssertionError(f"nothing runs tools while a batch is answered: {city}")


@only("openai", "openai-responses", "anthropic", "mistral")
async def test_tools_are_told_and_their_calls_are_the_answer(surface, server):
    client = client_of(surface, server)
    batch = await over(client, await client.batches.submit(["What is the weather in Paris?"], tools=[get_weather]))
    (result,) = await read(client.batches.results(batch.id))
    (call,) = result.response.tool_calls
    assert (call.name, call.arguments) == ("get_weather", {"city": "Paris"})


async def test_options_and_messages_go_to_every_prompt(surface, server):
    client = client_of(surface, server)
    prompts = [[sabir.user("My name is Alice."), sabir.assistant("Hello Alice."), sabir.user("What is my name?")]]
    batch = await over(client, await client.batches.submit(prompts, system="Be brief.", max_tokens=30))
    (result,) = await read(client.batches.results(batch.id))
    assert result.response.text == "Your name is Alice."
    ((item,),) = [held.items for held in server.held.values()]
    assert b"Be brief." in item.body


async def test_an_image_goes_with_its_prompt(surface, server):
    client = client_of(surface, server)
    dot = sabir.image(sabir.Pixels(1, 1, b"..."))
    await client.batches.submit([["What is this?", dot], PROMPTS[0]])
    ((seen, plain),) = [held.items for held in server.held.values()]
    assert b"iVBOR" in seen.body
    assert b"iVBOR" not in plain.body


# Who has made what


async def test_another_client_reads_a_batch_by_its_id(surface, server):
    batch = await client_of(surface, server).batches.submit(PROMPTS)
    other = surface.client(f"{server.kind.provider}:another-model", base_url=server.url, api_key=KEY)
    await over(other, batch)
    assert len(await read(other.batches.results(batch.id))) == 3


async def test_a_key_stands_for_one_batch(surface, server, journal):
    first = await client_of(surface, server).batches.submit(PROMPTS, key=NIGHTLY, **journal)
    second = await client_of(surface, server).batches.submit(PROMPTS, key=NIGHTLY, **journal)
    assert second.id == first.id
    other = await client_of(surface, server).batches.submit(PROMPTS, key="another", **journal)
    assert other.id != first.id
    assert (await client_of(surface, server).batches.status(first.id)).key == (None if journal else NIGHTLY)
    assert server.steps.count("make") == 2


async def test_a_key_with_other_prompts_is_refused(surface, server, journal):
    client = client_of(surface, server)
    batch = await client.batches.submit(PROMPTS, key=NIGHTLY, **journal)
    with pytest.raises(
        sabir.ConfigurationError, match=f"stands for {batch.id}, which was made of other prompts or options"
    ):
        await client.batches.submit(PROMPTS[1:], key=NIGHTLY, **journal)
    assert server.steps.count("make") == 1


async def test_without_a_key_every_submit_makes_a_batch(surface, server):
    client = client_of(surface, server)
    ids = [(await client.batches.submit(PROMPTS)).id for _ in range(2)]
    assert len(set(ids)) == 2


async def test_a_key_is_found_on_the_last_page(surface, kind, engine, journal):
    # How many make a page of Mistral's is for the client to say.
    page, others = (100, 101) if kind.provider == "mistral" else (2, 5)
    with BatchServer(kind._replace(page=page), engine).serving() as server:
        client = client_of(surface, server)
        first = await client.batches.submit(PROMPTS[:1], key=NIGHTLY, **journal)
        for _ in range(others):
            server.copy(first.id.partition(":")[2])
        assert (await client.batches.submit(PROMPTS[:1], key=NIGHTLY, **journal)).id == first.id


async def test_a_journal_is_asked_before_the_server(surface, server, tmp_path):
    path = tmp_path / "journal.jsonl"
    first = await client_of(surface, server).batches.submit(PROMPTS, key=NIGHTLY, journal=path)
    made = len(server.steps)
    second = await client_of(surface, server).batches.submit(PROMPTS, key=NIGHTLY, journal=path)
    assert second.id == first.id
    assert server.steps[made:] == ["status"]


# How a batch ends


async def test_a_batch_that_is_cancelled_says_so_of_each_prompt(surface, server):
    server.patience = None
    client = client_of(surface, server)
    batch = await client.batches.submit(PROMPTS)
    batch = await client.batches.cancel(batch.id)
    batch = await over(client, batch)
    assert batch.state == "cancelled"
    results = await read(client.batches.results(batch))
    assert [result.index for result in results] == [0, 1, 2]
    assert {type(result.error) for result in results} == {sabir.ClosedError}
    with pytest.raises(sabir.BadRequestError, match="cannot be cancelled"):
        await client.batches.cancel(batch)


async def test_results_are_refused_before_a_batch_is_over(surface, server):
    server.patience = None
    client = client_of(surface, server)
    batch = await client.batches.submit(PROMPTS)
    with pytest.raises(sabir.ConfigurationError, match="is running: its results can be read when"):
        await read(client.batches.results(batch.id))


async def test_what_a_batch_without_time_has_not_answered_is_an_error(surface, server):
    client = client_of(surface, server)
    batch = await over(client, await client.batches.submit(PROMPTS))
    server.run_out(batch.id.partition(":")[2], answered=1)
    batch = await client.batches.status(batch.id)
    assert batch.state == "expired"
    first, *others = await read(client.batches.results(batch.id))
    assert first.response.text
    assert {type(other.error) for other in others} == {sabir.DeadlineExceeded}
    assert [other.index for other in others] == [1, 2]


@only("openai", "openai-responses", "gemini", "mistral")
async def test_a_batch_that_failed_as_a_whole_says_why(surface, server):
    client = client_of(surface, server)
    batch = await client.batches.submit(PROMPTS)
    server.fail(batch.id.partition(":")[2], "line 1 is no JSON")
    batch = await client.batches.status(batch)
    assert (batch.state, batch.reason) == ("failed", "line 1 is no JSON")
    with pytest.raises(sabir.BadRequestError, match="came to nothing: line 1 is no JSON"):
        await read(client.batches.results(batch))


@apart
@pytest.mark.parametrize("after", [0, 10, 400])
async def test_results_that_are_cut_off_are_an_error_and_can_be_read_again(surface, server, after):
    plain = client_of(surface, server)
    batch = await over(plain, await plain.batches.submit(PROMPTS))
    cut = Faults(None, faults.Cut(after))
    client = client_of(surface, server, runtime_wrappers=[cut], max_attempts=1)
    seen: list[int] = []
    with pytest.raises(sabir.StreamInterrupted, match="read them again"):
        await read_into(seen, client.batches.results(batch.id))
    cut.assert_done()
    assert seen == list(range(len(seen)))
    assert len(seen) < 3
    assert [result.index for result in await read(client.batches.results(batch.id))] == [0, 1, 2]


@apart
async def test_two_results_for_one_prompt_are_refused(surface, server):
    server.order = lambda outcomes: [*outcomes, outcomes[0]]
    client = client_of(surface, server)
    batch = await over(client, await client.batches.submit(PROMPTS))
    with pytest.raises(sabir.StreamProtocolError, match="two results came for prompt 0"):
        await read(client.batches.results(batch.id))


async def test_reading_ends_with_its_client(surface, server):
    client = client_of(surface, server)
    batch = await over(client, await client.batches.submit(PROMPTS))
    async with client.batches.results(batch.id) as results:
        assert (await anext(results)).index == 0
    results = client.batches.results(batch.id)
    client.close()
    with pytest.raises(sabir.ClosedError):
        await anext(results)
    with pytest.raises(sabir.ClosedError):
        await client.batches.status(batch.id)


async def test_a_batch_that_is_not_there_is_not_found(surface, server):
    client = client_of(surface, server)
    for verb in (client.batches.status, client.batches.cancel):
        with pytest.raises(sabir.NotFoundError, match="check base_url and the batch's id"):
            await verb(f"{server.kind.provider}:nothing")


# What is refused before anything is sent


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ("Hello", {}, "submit takes a list of prompts, not str; for one there is ask"),
        ([], {}, "this one is empty"),
        ((each for each in ["Hello"]), {}, r"not generator; write list\(…\) around it"),
        ({"Hello"}, {}, r"not set; write list\(…\) around it"),
        (5, {}, "not int; for one there is ask"),
        (["Hello", 5], {}, "prompt 1: a prompt is a text, messages or parts, not int"),
        ([" ", "Hello"], {}, "^prompt 0: there is nothing to ask: the prompt is blank"),
        (["Hello", "Hello", " "], {}, "^prompt 2: there is nothing to ask: the prompt is blank"),
        (["Hello", [sabir.system("Be brief.")]], {}, "^prompt 1: there is nothing to ask: the prompt has only"),
        (["Hello"], {"temperature": -1}, "^temperature is"),
        (["Hello"], {"images": ["x.png"]}, "submit takes no images=: put images into the prompts"),
        (["Hello"], {"max_tool_rounds": 3}, "nothing runs tools while a batch is answered"),
        (["Hello"], {"validation_retries": 1}, "nobody asks again while a batch is answered"),
        (["Hello"], {"key": ""}, "key is a text of 1 to 128 printable characters"),
        (["Hello"], {"key": "a\nb"}, "key is a text of 1 to 128 printable characters"),
        (["Hello"], {"journal": "j.jsonl"}, "give key= too"),
        (["Hello"], {"temprature": 1}, "did you mean 'temperature'"),
    ],
)
async def test_what_cannot_be_submitted_is_refused_at_once(surface, server, prompts, options, message):
    with pytest.raises(sabir.ConfigurationError, match=message):
        await client_of(surface, server).batches.submit(prompts, **options)
    assert server.steps == []


async def test_a_prompt_that_the_model_cannot_take_is_named(surface):
    client = surface.client("anthropic:claude-haiku-4-5", api_key="k", base_url="http://localhost:1")
    heard = ["What is said?", sabir.audio(b"RIFF\0\0\0\0WAVEfmt ")]
    with pytest.raises(sabir.SabirError, match=r"^prompt 1: .*(audio|sound)"):
        await client.batches.submit(["Hello", heard])


async def test_what_is_no_schema_is_refused_before_anything_is_read(surface, server):
    client = client_of(surface, server)
    batch = await over(client, await client.batches.submit(PROMPTS))
    made = len(server.steps)
    with pytest.raises(sabir.ConfigurationError):
        await read(client.batches.results(batch.id, schema=5))
    assert len(server.steps) == made


@pytest.mark.parametrize("verb", ["status", "cancel", "results"])
async def test_what_is_said_to_submit_is_said_to_no_other(surface, verb):
    batches = surface.client("openai:gpt-4o-mini", api_key="k").batches

    async def asked():
        said = getattr(batches, verb)("openai:batch_abc", temperature=1)
        return await (read(said) if verb == "results" else said)

    with pytest.raises(sabir.ConfigurationError, match=f"{verb} takes no temperature=: .* is said to submit"):
        await asked()


async def test_a_key_needs_a_journal_where_the_provider_keeps_none(surface):
    client = surface.client("anthropic:claude-haiku-4-5", api_key="k")
    with pytest.raises(sabir.ConfigurationError, match=r"anthropic keeps no key .* name a file that remembers it"):
        await client.batches.submit(PROMPTS, key=NIGHTLY)


async def test_a_provider_without_batches_says_who_has_them(surface):
    with pytest.raises(sabir.UnsupportedError, match=r"groq:x answers no batches; .* anthropic, gemini"):
        await surface.client("groq:x", api_key="k").batches.submit(PROMPTS)
    with pytest.raises(sabir.UnsupportedError, match="pico:pico answers no batches"):
        await surface.client("pico").batches.submit(PROMPTS)
    # Whose key there is none of, and whose there need not be one.
    with pytest.raises(sabir.UnsupportedError, match=r"groq answers no batches; .* anthropic, gemini"):
        await surface.client("pico").batches.status("groq:x")


@pytest.mark.parametrize("id_", ["batch_abc", 5, "", "openai:", "nobody:batch_abc"])
async def test_what_is_no_id_of_a_batch_is_refused(surface, id_):
    with pytest.raises(sabir.ConfigurationError):
        await surface.client("openai:gpt-4o-mini", api_key="k").batches.status(id_)


async def test_a_batch_that_is_too_large_is_refused(surface, server, monkeypatch):
    row = PROVIDERS[server.kind.provider]
    small = replace(row, batches=replace(row.batches, max_requests=2))
    monkeypatch.setitem(PROVIDERS, row.name, small)
    with pytest.raises(sabir.UnsupportedError, match="has at most 2 prompts"):
        await client_of(surface, server).batches.submit(PROMPTS)
    assert server.steps == []


async def test_what_takes_two_requests_is_no_batch(surface, monkeypatch):
    row = replace(PROVIDERS["openai-chat"], dialect=OpenAIChat(schema="llguidance"))
    monkeypatch.setitem(PROVIDERS, row.name, row)
    client = surface.client("openai-chat:any", api_key="k")
    with pytest.raises(sabir.UnsupportedError, match="this model is asked twice for an answer"):
        await client.batches.submit(["…"], tools=[get_weather], schema=Person)


# What it costs


async def test_a_batch_costs_half(surface, server):
    model = f"{server.kind.provider}:{server.kind.model}"
    prices = {model: sabir.Prices(input=Decimal(2), output=Decimal(8), cache_read=Decimal(1))}
    client = client_of(surface, server, prices=prices)
    batch = await over(client, await client.batches.submit(PROMPTS[:1]))
    (result,) = await read(client.batches.results(batch.id))
    usage = result.response.usage
    full = {"input": 2 * (usage.input or 0), "output": 8 * usage.output, "cache_read": usage.cache_read or 0}
    share = {"input": 2, "output": 2, "cache_read": 1 if server.kind.provider == "gemini" else 2}
    expected = sum(Decimal(count) / share[bucket] for bucket, count in full.items()) / 1_000_000
    assert result.cost == result.response.cost
    assert result.cost.usd == expected
    assert result.cost.source == "as a batch"


def test_a_row_says_what_a_batch_costs():
    rows = {name: row.batches.price for name, row in PROVIDERS.items() if row.batches is not None}
    names = ("openai", "openai-chat", "openai-responses", "anthropic", "gemini", "google", "mistral")
    assert rows == dict.fromkeys(names, Decimal("0.5"))


def test_what_costs_as_always_has_to_be_known_apart():
    batcher = sabir.Client("gemini:gemini-2.5-flash", api_key="k").batches._body._client.batcher("gemini")
    cost = sabir.Cost(usd=Decimal(3), buckets={"input": Decimal(1), "output": Decimal(2)}, source="genai-prices")
    assert batcher.reduced(cost, sabir.Usage(input=5, output=5)).usd == Decimal("1.5")
    assert batcher.reduced(cost, sabir.Usage(input=5, cache_read=5, output=5)) is None
    told = sabir.Cost(usd=Decimal(3), is_reported=True)
    assert batcher.reduced(told, sabir.Usage()) is told
    assert batcher.reduced(None, sabir.Usage()) is None


async def test_what_a_batch_costs_is_unknown_where_no_row_says_it(surface, server, monkeypatch):
    row = PROVIDERS[server.kind.provider]
    monkeypatch.setitem(PROVIDERS, row.name, replace(row, batches=replace(row.batches, price=None)))
    prices = {f"{row.name}:{server.kind.model}": sabir.Prices(input=Decimal(2), output=Decimal(8))}
    client = client_of(surface, server, prices=prices)
    batch = await over(client, await client.batches.submit(PROMPTS[:1]))
    (result,) = await read(client.batches.results(batch.id))
    assert result.response.cost is None
