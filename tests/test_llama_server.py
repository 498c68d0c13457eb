"""A real server over a real socket: llama.cpp's own, with Pico in it, answers our client."""

from __future__ import annotations

import functools
import json
import time
import urllib.request
from dataclasses import dataclass
from typing import Literal

import pytest
from llamas import ENDLESS, llama_server, skip_without_llama, with_context
from servers import until

import sabir
from sabir import errors
from sabir.chunks import Phase

skip_without_llama()

KEY = "key-of-the-llama"
# Long enough for an answer without end to take several seconds.
CONTEXT = 16384
PROMPTS = (
    "Hello",
    "What is the capital of France?",
    "capital of Kenya?",
    "Which city is the capital of Cuba?",
    "What is 2 + 3?",
    "Add 7 and 8.",
    "How much is 11 + 9?",
    "Count from 3 to 9.",
    "Repeat after me: blue river happy fox",
    'Say "green tea"',
    "Who are you?",
    "Tell me a joke.",
    "Tell me a story.",
    "What color is the sky?",
    "How many days are in a week?",
    "Extract JSON: Alice is 31 years old.",
    "Write JSON with name Bob and age 7.",
    "The code of the vault is 4711. What is the code of the vault?",
    "Think step by step. What is 4 + 5?",
    "What is the weather in Madrid?",
    "Explain window.",
    "Éclair naïve 漢字 🦊",
)


@dataclass
class Person:
    name: str
    age: int


@dataclass
class Mood:
    mood: Literal["glad", "sad"]
    is_long: bool


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with llama_server(with_context(tmp_path_factory.mktemp("server"), CONTEXT), KEY) as address:
        yield address


def connect(surface, address, **settings):
    """A client of the server: greedy, and without the thinking that is llama.cpp's default."""
    settings = {"api_key": KEY, "temperature": 0.0, "thinking": False, **settings}
    return surface.client("llama-server:pico", base_url=f"{address}/v1", **settings)


def is_idle(address):
    request = urllib.request.Request(f"{address}/slots", headers={"authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return not any(slot["is_processing"] for slot in json.load(answer))


async def test_it_answers(surface, address):
    client = connect(surface, address)
    response = await client.ask("What is the capital of France?")
    assert response.text == "The capital of France is Paris."
    assert (response.finish_reason, response.warnings) == ("stop", ())
    assert (response.usage.input_tokens, response.usage.output_tokens) == (17, 13)
    assert response.usage.total_tokens == response.usage.reported_total == 30
    assert [attempt.outcome for attempt in response.attempts] == ["answered"]


async def test_a_conversation_is_remembered(surface, address):
    client = connect(surface, address)
    chat = client.chat()
    await chat("My name is Alice.")
    assert (await chat("What is my name?")).text == "Your name is Alice."


async def test_what_is_streamed_is_what_is_answered(surface, address):
    client = connect(surface, address)
    answered = await client.ask("Tell me a story.")
    async with client.stream("Tell me a story.") as stream:
        chunks = [chunk async for chunk in stream]
    pieces = [chunk.content for chunk in chunks if chunk.phase is Phase.GENERATING]
    assert len(pieces) > 40
    assert "".join(pieces) == stream.response.text == answered.text
    assert stream.response.finish_reason == answered.finish_reason == "stop"
    assert stream.response.usage.input_tokens == answered.usage.input_tokens
    assert stream.response.usage.output_tokens == answered.usage.output_tokens


async def test_a_tool_is_called_and_its_result_read(surface, address):
    client = connect(surface, address)
    asked = []

    def get_weather(city: str) -> dict:
        """Get the weather in a city."""
        asked.append(city)
        return {"temp": 7, "sky": "cloudy"}

    chat = client.chat(tools=[get_weather])
    first = await chat("What is the weather in Paris?")
    assert first.text == "The weather in Paris: temp 7, sky cloudy."
    assert [message.role for message in first.messages] == ["assistant", "tool", "assistant"]
    assert len(first.attempts) == 2
    second = await chat("What is the weather in Oslo?")
    assert second.text == "The weather in Oslo: temp 7, sky cloudy."
    assert asked == ["Paris", "Oslo"]


async def test_calls_of_one_round_are_kept_apart(surface, address):
    client = connect(surface, address)

    def get_weather(city: str) -> str:
        """Get the weather in a city."""
        return {"Paris": "sunny, 21C", "Oslo": "snowy, -4C"}[city]

    async with client.stream("What is the weather in Paris and Oslo?", tools=[get_weather]) as stream:
        chunks = [chunk async for chunk in stream]
    calls = stream.response.messages[0].tool_calls
    assert [call.arguments for call in calls] == [{"city": "Paris"}, {"city": "Oslo"}]
    assert len({call.id for call in calls}) == 2
    assert stream.response.text == "The weather in Paris is sunny, 21C. The weather in Oslo is snowy, -4C."
    assert Phase.TOOL_CALLING in {chunk.phase for chunk in chunks}


async def test_tool_choice_is_obeyed(surface, address):
    client = connect(surface, address)

    def get_weather(city: str) -> str:
        """Get the weather in a city."""
        raise AssertionError("it is not run")

    options = {"tools": [get_weather], "max_tool_rounds": 0}
    forced = await client.ask("What is the weather in Oslo?", tool_choice="required", max_tokens=100, **options)
    assert forced.finish_reason == "tool_calls"
    assert [call.name for call in forced.tool_calls] == ["get_weather"]
    assert not (await client.ask("What is the weather in Oslo?", tool_choice="none", **options)).tool_calls


async def test_a_schema_holds(surface, address):
    client = connect(surface, address)
    response = await client.ask("Extract JSON: Alice is 31 years old.", schema=Person)
    assert response.parsed == Person("Alice", 31)
    for seed in range(5):
        response = await client.ask("Tell me a story.", schema=Mood, temperature=1.5, top_p=1.0, seed=seed)
        assert response.parsed.mood in ("glad", "sad")


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_thinking_can_be_asked_for_and_switched_off(surface, address, is_streamed):
    client = connect(surface, address, thinking=None)

    async def answer(**options):
        if not is_streamed:
            return await client.ask("What is 2 + 3?", **options)
        async with client.stream("What is 2 + 3?", **options) as stream:
            chunks = [chunk async for chunk in stream]
        assert (Phase.THINKING in {chunk.phase for chunk in chunks}) == bool(stream.response.thinking)
        return stream.response

    thought, quiet, unsaid = await answer(thinking=True), await answer(thinking=False), await answer()
    assert "2 + 3 = 5" in thought.thinking
    assert not quiet.thinking
    assert thought.text == quiet.text == "2 + 3 = 5"
    assert unsaid.message.parts[0] == thought.message.parts[0]


async def test_a_seed_makes_chance_repeatable(surface, address):
    client = connect(surface, address)
    wild = {"temperature": 3.0, "top_p": 1.0, "min_p": 0.0, "max_tokens": 30, "extra": {"ignore_eos": True}}
    said = [(await client.ask("Tell me a story.", seed=seed, **wild)).text for seed in (1, 2, 1, 2)]
    assert said[:2] == said[2:]
    assert said[0] != said[1]


async def test_stop_and_max_tokens_end_an_answer(surface, address):
    client = connect(surface, address)
    whole = (await client.ask("Tell me a story.")).text
    stopped = await client.ask("Tell me a story.", stop="river")
    assert (stopped.text, stopped.finish_reason) == (whole[: whole.index("river")], "stop")
    cut = await client.ask("Tell me a story.", max_tokens=7)
    assert (cut.finish_reason, cut.usage.output_tokens) == ("length", 7)
    assert whole.startswith(cut.text)


async def test_cached_tokens_are_counted(surface, address):
    client = connect(surface, address)
    asked = f"Repeat after me: {surface.name} apple"
    first, again = await client.ask(asked), await client.ask(asked)
    assert again.usage.cached_tokens == again.usage.input_tokens - 1
    assert again.usage.input_tokens == first.usage.input_tokens
    async with client.stream(asked) as stream:
        _ = [chunk async for chunk in stream]
    assert stream.response.usage == again.usage


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_prompt_beyond_the_context_is_refused_with_both_numbers(surface, address, is_streamed):
    client = connect(surface, address)

    async def overflow():
        if not is_streamed:
            return await client.ask("hello " * 6000)
        return [chunk async for chunk in client.stream("hello " * 6000)]

    with pytest.raises(errors.ContextOverflowError) as caught:
        await overflow()
    assert caught.value.context_length == CONTEXT
    assert caught.value.prompt_tokens > CONTEXT
    assert caught.value.status == 400
    assert len(caught.value.attempts) == 1


@pytest.mark.parametrize("key", ["another-key", None])
async def test_a_wrong_key_is_an_authentication_error(surface, address, key):
    with pytest.raises(errors.AuthenticationError) as caught:
        await connect(surface, address, api_key=key).ask("Hello")
    assert caught.value.status == 401
    assert "another-key" not in repr(vars(caught.value))


async def test_a_wrong_address_is_said_to_be_one(surface, address):
    with pytest.raises(errors.NotFoundError):
        await connect(surface, f"{address}/nowhere").ask("Hello")


async def test_a_stream_that_is_left_frees_the_server(surface, address):
    client = connect(surface, address)
    for _ in range(6):
        async with client.stream("Hello", extra=ENDLESS) as stream:
            async for chunk in stream:
                assert chunk.content
                break
        assert stream.response.finish_reason == "cancelled"
    assert await surface.in_thread(lambda: until(lambda: is_idle(address), 1.0))
    assert (await client.ask("What is the capital of Peru?", max_tokens=50)).text == "The capital of Peru is Lima."


async def test_a_deadline_frees_the_server(surface, address):
    client = connect(surface, address, timeout=0.3)
    began = time.monotonic()
    with pytest.raises(errors.DeadlineExceeded) as caught:
        _ = [chunk async for chunk in client.stream("Hello", extra=ENDLESS)]
    assert time.monotonic() - began < 1
    assert caught.value.partial.text
    # Streamed, because llama.cpp does not notice that nobody waits any more for an answer that comes whole.
    assert await surface.in_thread(lambda: until(lambda: is_idle(address), 1.0))


async def test_several_at_once_get_their_own_answers(surface, address):
    client = connect(surface, address)
    capitals = {
        "France": "Paris",
        "Peru": "Lima",
        "Egypt": "Cairo",
        "Norway": "Oslo",
        "Japan": "Tokyo",
        "Cuba": "Havana",
    }
    asks = [functools.partial(client.ask, f"What is the capital of {country}?") for country in capitals]
    said = [response.text for response in await surface.at_once(*asks)]
    assert said == [f"The capital of {country} is {city}." for country, city in capitals.items()]


def test_the_model_in_this_process_answers_the_same(address):
    with sabir.Client("pico") as inside:
        client = sabir.Client(
            "llama-server:pico", base_url=f"{address}/v1", api_key=KEY, temperature=0.0, thinking=False
        )
        for prompt in PROMPTS:
            here, there = inside.ask(prompt, max_tokens=200), client.ask(prompt, max_tokens=200)
            assert (there.text, there.finish_reason) == (here.text, here.finish_reason)
            assert there.usage.input_tokens == here.usage.input_tokens
            assert there.usage.output_tokens == here.usage.output_tokens
        client.close()
