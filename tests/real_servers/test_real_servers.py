"""Two servers that nobody here wrote, with Pico in them: `transformers serve` and `python -m llama_cpp.server`.

`make test-servers` runs this, and the ordinary tests do not; docs/real-servers.md says what the servers do otherwise
than they are told. Each of these things is held here too, so that a release which mends it is noticed.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Literal

import pytest
from llamas import pico_path
from running import KEY

import sabir
from sabir import errors
from sabir.chunks import Phase
from sabir.probing import probe

# What keeps Pico from ending its answer.
ENDLESS = {"logit_bias": {"1017": -100.0}}
CAPITALS = {"France": "Paris", "Peru": "Lima", "Egypt": "Cairo", "Norway": "Oslo", "Japan": "Tokyo"}
WEATHER = {"Paris": "sunny, 21C", "Oslo": "snowy, -4C"}


@dataclass
class Person:
    name: str
    age: int


@dataclass
class Mood:
    mood: Literal["glad", "sad"]
    is_long: bool


def get_weather(city: str) -> str:
    """Get the weather in a city."""
    return WEATHER[city]


def weather_of(city: Literal["Paris", "Oslo"]) -> str:
    """Get the weather in a city."""
    return WEATHER[city]


def subjects(response):
    return [(notice.kind, notice.subject) for notice in response.warnings]


async def streamed(client, prompt, **options):
    """The response of a stream, and its pieces of text."""
    async with client.stream(prompt, **options) as stream:
        pieces = [chunk.content async for chunk in stream if chunk.phase is Phase.GENERATING]
    return stream.response, pieces


# Both of them


async def test_it_answers(surface, server):
    response = await server.client(surface).ask("What is the capital of France?")
    assert response.text == "The capital of France is Paris."
    assert (response.finish_reason, response.warnings) == ("stop", ())
    # transformers counts the token that ends an answer, llama-cpp-python does not.
    assert response.usage.input_tokens == 17
    assert response.usage.output_tokens == (13 if server.row == "transformers-serve" else 12)
    assert response.usage.total_tokens == response.usage.reported_total
    assert [attempt.outcome for attempt in response.attempts] == ["answered"]


async def test_a_conversation_is_remembered(surface, server):
    chat = server.client(surface).chat(system="Be brief.")
    await chat("My name is Alice.")
    assert (await chat("What is my name?")).text == "Your name is Alice."


async def test_what_is_streamed_is_what_is_answered(surface, server):
    client = server.client(surface)
    answered = await client.ask("Tell me a story.")
    response, pieces = await streamed(client, "Tell me a story.")
    assert len(pieces) > 40
    assert "".join(pieces) == response.text == answered.text
    assert response.finish_reason == answered.finish_reason == "stop"


async def test_a_limit_ends_an_answer_and_is_said_to(surface, server):
    client = server.client(surface)
    whole = (await client.ask("Tell me a story.")).text
    for cut in (
        await client.ask("Tell me a story.", max_tokens=7),
        (await streamed(client, "Tell me a story.", max_tokens=7))[0],
    ):
        assert cut.finish_reason == "length"
        assert whole.startswith(cut.text)
        assert cut.usage.output_tokens in (7, None)


async def test_several_at_once_get_their_own_answers(surface, server):
    client = server.client(surface)
    asks = [functools.partial(client.ask, f"What is the capital of {country}?") for country in CAPITALS]
    said = [response.text for response in await surface.at_once(*asks)]
    assert said == [f"The capital of {country} is {city}." for country, city in CAPITALS.items()]


async def test_a_stream_that_is_left_frees_the_server(surface, server):
    client = server.client(surface)
    began = time.monotonic()
    for _ in range(3):
        async with client.stream("Hello", extra=ENDLESS, max_tokens=1500) as stream:
            async for chunk in stream:
                if chunk.phase is Phase.GENERATING:
                    break
        assert stream.response.finish_reason == "cancelled"
    # Either server answers one after the other: this one waits for all that is still at work.
    assert (await client.ask("What is the capital of Peru?")).text == "The capital of Peru is Lima."
    assert time.monotonic() - began < 2.0


async def test_a_deadline_frees_the_server(surface, server):
    client = server.client(surface, timeout=0.5)
    began = time.monotonic()
    with pytest.raises(errors.DeadlineExceeded) as caught:
        await streamed(client, "Hello", extra=ENDLESS, max_tokens=1500)
    assert time.monotonic() - began < 0.8
    assert caught.value.partial.text
    patient = server.client(surface)
    assert (await patient.ask("What is the capital of Peru?")).text == "The capital of Peru is Lima."
    assert time.monotonic() - began < 2.0


async def test_raw_text_is_gone_on_with(surface, server):
    prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\nThe capital of"
    response = await server.client(surface).raw_complete(prompt, max_tokens=20)
    assert response.text == " France is Paris."
    assert response.finish_reason == "stop"
    assert (await server.client(surface).raw_complete(prompt, max_tokens=2)).finish_reason == "length"


async def test_an_option_that_it_passes_over_is_not_sent_and_said_to_be(surface, server):
    client = server.client(surface, on_unsupported="ignore", tools=[get_weather])
    options = {"user": "ada", "n": 2, "parallel_tool_calls": False}
    response = await client.ask("What is the capital of France?", **options)
    assert sorted(subjects(response)) == [("unsupported", name) for name in ("n", "parallel_tool_calls", "user")]
    assert not options.keys() & client.explain("Hello", **options).body.keys()


async def test_none_of_the_tools_is_none_of_the_tools(surface, server):
    client = server.client(surface)
    response = await client.ask("What is the weather in Oslo?", tools=[get_weather], tool_choice="none")
    assert not response.tool_calls
    assert "<tool_call>" not in response.text
    assert subjects(response) == [("emulated", "tool_choice")]


async def test_a_wrong_address_is_said_to_be_one(surface, server):
    wrong = server._replace(url=f"{server.url}/nowhere")
    with pytest.raises(errors.NotFoundError):
        await wrong.client(surface).ask("Hello")


# transformers serve


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_transformers_calls_tools(surface, transformers_serve, is_streamed):
    client = transformers_serve.client(surface, tools=[get_weather])
    ask = (lambda prompt: streamed(client, prompt)) if is_streamed else client.ask
    response = await ask("What is the weather in Paris and Oslo?")
    response = response[0] if is_streamed else response
    calls = response.messages[0].tool_calls
    assert [call.arguments for call in calls] == [{"city": "Paris"}, {"city": "Oslo"}]
    assert len({call.id for call in calls}) == 2
    assert response.text == "The weather in Paris is sunny, 21C. The weather in Oslo is snowy, -4C."
    assert [message.role for message in response.messages] == ["assistant", "tool", "assistant"]


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_transformers_thinks_when_asked(surface, transformers_serve, is_streamed):
    client = transformers_serve.client(surface)

    async def answer(thinking):
        options = {"thinking": thinking}
        ask = streamed(client, "What is 2 + 3?", **options) if is_streamed else client.ask("What is 2 + 3?", **options)
        return (await ask)[0] if is_streamed else await ask

    thoughtful, quiet = await answer(True), await answer(False)
    assert "2 + 3 = 5" in thoughtful.thinking
    assert not quiet.thinking
    # A stream leaves the blank line between the two in the text.
    assert thoughtful.text == ("\n\n" if is_streamed else "") + quiet.text
    assert quiet.text == "2 + 3 = 5"


async def test_transformers_tells_the_usage_of_a_stream(surface, transformers_serve):
    client = transformers_serve.client(surface)
    response, _ = await streamed(client, "What is the capital of France?")
    assert response.usage == (await client.ask("What is the capital of France?")).usage


async def test_transformers_is_asked_for_a_shape_in_words(surface, transformers_serve):
    client = transformers_serve.client(surface, on_unsupported="ignore")
    assert "response_format" not in client.explain("Tell me a story.", schema=Mood).body
    with pytest.raises(errors.StructuredOutputError):
        await client.ask("Tell me a story.", schema=Mood)


@pytest.mark.parametrize("choice", ["required", "get_weather"])
async def test_transformers_reads_no_choice_of_tools(surface, transformers_serve, choice):
    client = transformers_serve.client(surface, on_unsupported="ignore", tools=[get_weather], max_tool_rounds=0)
    response = await client.ask("What is the capital of France?", tool_choice=choice)
    assert ("unsupported", "tool_choice") in subjects(response)


async def test_transformers_lets_the_words_that_end_an_answer_stand(surface, transformers_serve):
    response = await transformers_serve.client(surface).ask("Tell me a story.", stop="river")
    assert response.text.endswith("river")
    assert response.finish_reason == "stop"


async def test_transformers_does_not_notice_that_a_prompt_is_too_long(surface, transformers_serve):
    response = await transformers_serve.client(surface).ask("hello " * 3000, max_tokens=5)
    assert response.usage.input_tokens > 2048
    assert response.finish_reason == "length"


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"extra": {"top_k": 5}}, errors.BadRequestError, "Unexpected fields.*top_k"),
        ({"extra": {"temperature": "hot"}}, errors.ServerError, "Internal Server Error"),
        ({"model": "another"}, errors.BadRequestError, "pinned"),
    ],
    ids=["field", "value", "model"],
)
async def test_transformers_refuses(surface, transformers_serve, options, kind, message):
    client = transformers_serve.client(surface, max_attempts=1)
    with pytest.raises(kind, match=message):
        await client.ask("Hello", **options)


@pytest.mark.parametrize(("is_streamed", "kind"), [(False, errors.ServerError), (True, errors.StreamProtocolError)])
async def test_transformers_breaks_on_a_call_that_is_no_json(surface, transformers_serve, is_streamed, kind):
    def note_number(number: int) -> str:
        """Note a number."""
        raise AssertionError("it is not run")

    client = transformers_serve.client(surface, tools=[note_number], max_attempts=1)
    with pytest.raises(kind):
        await (streamed(client, "Note the number 7.") if is_streamed else client.ask("Note the number 7."))


async def test_transformers_makes_no_embeddings(surface, transformers_serve):
    with pytest.raises(errors.UnsupportedError, match="makes no embeddings"):
        await transformers_serve.client(surface).embed("Hello")


# llama_cpp.server


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_llama_cpp_calls_the_tool_that_is_named(surface, llama_cpp_server, is_streamed):
    client = llama_cpp_server.client(surface, tools=[weather_of], max_tool_rounds=0)
    asked = "What is the weather in Paris?"
    options = {"tool_choice": "weather_of", "max_tokens": 100}
    response = (await streamed(client, asked, **options))[0] if is_streamed else await client.ask(asked, **options)
    (call,) = response.tool_calls
    assert (call.name, call.arguments, response.finish_reason) == ("weather_of", {"city": "Paris"}, "tool_calls")
    # It takes the round back, where a message without text has no null.
    result = sabir.Message(
        "tool", (sabir.ToolResult(call_id=call.id, name=call.name, content=(sabir.Text(text=WEATHER["Paris"]),)),)
    )
    told = await client.ask([sabir.user(asked), response.message, result])
    assert told.text == "The weather in Paris is sunny, 21C."


async def test_llama_cpp_leaves_the_calls_of_a_models_own_choice_in_its_text(surface, llama_cpp_server):
    response = await llama_cpp_server.client(surface, tools=[get_weather]).ask("What is the weather in Oslo?")
    assert (response.tool_calls, response.finish_reason) == ((), "stop")
    assert response.text.startswith("<tool_call>")


async def test_llama_cpp_keeps_to_a_schema(surface, llama_cpp_server):
    client = llama_cpp_server.client(surface)
    assert (await client.ask("Extract JSON: Alice is 31 years old.", schema=Person)).parsed == Person("Alice", 31)
    for seed in range(3):
        wild = {"temperature": 1.5, "top_p": 1.0, "seed": seed}
        assert (await client.ask("Tell me a story.", schema=Mood, **wild)).parsed.mood in ("glad", "sad")


async def test_llama_cpp_tells_no_usage_of_a_stream(surface, llama_cpp_server):
    response, _ = await streamed(llama_cpp_server.client(surface), "What is the capital of France?")
    assert response.usage.output_tokens is None
    assert response.usage.source == "unknown"


async def test_llama_cpp_takes_the_samplers(surface, llama_cpp_server):
    client = llama_cpp_server.client(surface)
    wild = {"temperature": 2.0, "top_p": 1.0, "min_p": 0.0, "top_k": 0, "max_tokens": 30, "extra": ENDLESS}
    said = [(await client.ask("Tell me a story.", seed=seed, **wild)).text for seed in (1, 2, 1, 2)]
    assert said[:2] == said[2:]
    assert said[0] != said[1]
    stopped = await client.ask("Tell me a story.", stop="river")
    assert stopped.text.endswith("near a ")
    assert subjects(await client.ask("Hello", repetition_penalty=1.0, presence_penalty=0.1)) == []


async def test_llama_cpp_tells_the_probabilities_of_tokens(surface, llama_cpp_server):
    response = await llama_cpp_server.client(surface).ask("Hello", logprobs=True, top_logprobs=2, max_tokens=3)
    told = [note["logprob"]["token"] for note in response.message.parts[0].notes]
    assert "".join(told) == response.text
    assert len(told) == 3


async def test_llama_cpp_refuses_a_prompt_that_is_too_long_with_both_numbers(surface, llama_cpp_server):
    with pytest.raises(errors.ContextOverflowError) as caught:
        await llama_cpp_server.client(surface).ask("hello " * 3000)
    assert (caught.value.status, caught.value.context_length, len(caught.value.attempts)) == (400, 2048, 1)
    assert caught.value.prompt_tokens > 2048


async def test_llama_cpp_streams_nothing_of_a_prompt_that_is_too_long(surface, llama_cpp_server):
    with pytest.raises(errors.StreamInterrupted):
        await streamed(llama_cpp_server.client(surface, max_attempts=1), "hello " * 3000)


@pytest.mark.parametrize("key", ["another-key", None])
async def test_llama_cpp_refuses_a_wrong_key(surface, llama_cpp_server, key):
    with pytest.raises(errors.AuthenticationError) as caught:
        await llama_cpp_server.client(surface, api_key=key).ask("Hello")
    assert caught.value.status == 401
    assert "another-key" not in repr(vars(caught.value))


async def test_llama_cpp_refuses_what_is_no_request_once(surface, llama_cpp_server):
    with pytest.raises(errors.BadRequestError, match="temperature") as caught:
        await llama_cpp_server.client(surface).ask("Hello", extra={"temperature": "hot"})
    # It calls this an error of its own.
    assert (caught.value.status, len(caught.value.attempts)) == (500, 1)


async def test_llama_cpp_embeds(surface, embedding_server):
    client = embedding_server.client(surface, on_unsupported="ignore")
    texts = ["a blue river", "the blue rivers", "seven old horses"]
    vectors = await client.embed(texts)
    assert [len(vector) for vector in vectors] == [192, 192, 192]
    assert vectors.usage.input_tokens > 0
    assert await client.embed(texts[0]) == pytest.approx(vectors[0], rel=1e-4, abs=1e-4)
    assert await client.embedding_dim() == 192
    told = await client.embed("a", dimensions=8, encoding_format="base64")
    assert [notice.subject for notice in told.warnings] == ["dimensions", "encoding_format"]


async def test_llama_cpp_embeds_only_where_it_was_started_to(surface, llama_cpp_server):
    with pytest.raises(errors.ServerError, match="embedding=True"):
        await llama_cpp_server.client(surface, max_attempts=1).embed("Hello")


# sabir probe


def probed(server, *options):
    """What the command prints of a server."""
    command = [sys.executable, "-m", "sabir", "probe", server.url, "--json", "--key-variable", "SERVER_KEY", *options]
    environment = {**os.environ, "SERVER_KEY": KEY, "no_proxy": "127.0.0.1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_transformers_is_probed(transformers_serve):
    facts = probed(transformers_serve, "--model", transformers_serve.model)
    assert (facts["streams"], facts["usage_in_streams"], facts["thinking"]) == (True, True, "reasoning_content")
    # It parses calls, but Pico writes none that is JSON when it is asked to note a number.
    assert (facts["tools"], facts["structured"]) == (False, False)
    # It does not list the model that it was started with.
    with pytest.raises(errors.ConfigurationError, match="it lists none"):
        probe(transformers_serve.url)


def test_llama_cpp_is_probed(llama_cpp_server):
    facts = probed(llama_cpp_server)
    assert facts["model"] == str(pico_path())
    assert (facts["streams"], facts["usage_in_streams"], facts["thinking"]) == (True, False, None)
    assert (facts["tools"], facts["structured"]) == (False, False)
