"""Raw text over real servers: OpenAI's SDK reads what we read and talks to our server's half; we talk to llama.cpp's.

`raw_complete` of the model in this process goes on with a text as it stands, too.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import gateway as gateways
import openai
import pytest
import test_sdk_clients as clients
from llamas import llama_server
from servers import Server, until
from test_ollama_sdk import open_gateway
from test_sdk_judges import FIXTURES, RECORDINGS, Court

import sabir
from sabir import ConfigurationError, SabirWarning, UnsupportedError
from sabir.deltas import Assembler
from sabir.dialects.openai_completions import NAME, OpenAICompletions
from sabir.engines.llama_cpp import completing, pico_path
from sabir.model import Local
from sabir.providers import PROVIDERS
from sabir.runtime import Eventful
from sabir.testing import Scripted
from sabir.testing.replay import replay
from sabir.transports import eventful_transport

KEY = clients.KEY
RAW = PROVIDERS["pico"].completions


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


# The SDK as judge: texts, ends and tokens of all choices, out of the same bytes.


def exchanges() -> Iterator[dict[str, Any]]:
    for folder in (FIXTURES, RECORDINGS):
        path = folder / "openai-completions.jsonl"
        for line in path.read_text().splitlines() if path.exists() else ():
            exchange = json.loads(line)
            # Of Writer's answers the SDK has no reason for their end, which it takes for granted.
            if replay(exchange).verdict == "passed" and exchange["provider"] != "writer":
                yield exchange


@pytest.fixture(scope="module")
def court() -> Iterator[Court]:
    with Court() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def theirs(told: list[Any]) -> dict[str, Any]:
    texts: dict[int, str] = {}
    ends: dict[int, str] = {}
    usage = None
    for completion in told:
        usage = completion.usage or usage
        for choice in completion.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
            ends[choice.index] = choice.finish_reason or ends.get(choice.index)
    counts = usage and (usage.prompt_tokens, usage.completion_tokens)
    # The SDK leaves a character in the halves in which it came.
    texts = {index: text.encode("utf-16", "surrogatepass").decode("utf-16") for index, text in texts.items()}
    return {"texts": texts, "ends": ends, "usage": counts}


def ours(exchange: dict[str, Any]) -> dict[str, Any]:
    dialect, body = OpenAICompletions(), exchange["response"]["body"]
    if isinstance(body, str):
        decoder = dialect.decoder()
        deltas = decoder.feed(body.encode("utf-8", "surrogatepass"))
        deltas += decoder.close()
    else:
        deltas = dialect.decode_answer(json.dumps(body).encode())
    total = Assembler(NAME)
    for delta in deltas:
        total.add(delta)
    usage = total.usage
    counts = (usage.input_tokens, usage.output_tokens)
    return {
        "texts": {number: message.text for number, message in enumerate(total.choices)},
        "ends": {number: finish.raw for number, finish in total.finishes.items()},
        "usage": None if counts == (None, None) else counts,
    }


@pytest.mark.parametrize("exchange", list(exchanges()), ids=lambda exchange: exchange["id"])
def test_the_sdk_reads_an_answer_as_we_do(court, exchange):
    court.exchanges[exchange["id"]] = exchange
    is_streamed = isinstance(exchange["response"]["body"], str)
    with openai.OpenAI(base_url=f"{court.url}/{exchange['id']}", api_key="x", max_retries=0) as judge:
        try:
            said = judge.completions.create(model="judge", prompt="Hello!", stream=is_streamed)
            told = list(said) if is_streamed else [said]
        except openai.APIError:
            assert replay(exchange).error is not None
            return
    assert theirs(told) == ours(exchange)


# The SDK as client of our server's half.


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """Before the model as it goes on with raw text."""
    route = gateways.Route(OpenAICompletions(), "cmpl-", "created", None)
    with open_gateway(tmp_path_factory.mktemp("gateway"), "/v1/completions", route) as opened:
        raw = completing(opened.engine, RAW)
        opened.app._model = Local("pico", RAW, raw, Eventful(eventful_transport))
        yield opened


@pytest.fixture(params=[openai.OpenAI, openai.AsyncOpenAI], ids=lambda kind: kind.__name__)
def caller(request):
    yield from clients.caller_of(request)


@pytest.fixture
def complete(caller, gateway):
    client = caller.client(f"{gateway.url}/v1")

    def ask(prompt, model="pico", **options):
        said = caller.wait(client.completions.create(model=model, prompt=prompt, **options))
        return caller.items(said) if options.get("stream") else said

    return ask


def test_the_sdk_is_answered(complete):
    said = complete("Once upon", max_tokens=5)
    assert (said.object, said.model, said.usage.completion_tokens) == ("text_completion", "pico", 5)
    assert said.id.startswith("cmpl-")
    (choice,) = said.choices
    assert (bool(choice.text), choice.finish_reason) == (True, "length")
    # Nothing is put around the text: no template and no role.
    assert said.usage.prompt_tokens == complete("Once upon", max_tokens=1).usage.prompt_tokens < 6


def test_the_sdk_streams_what_it_is_answered(complete):
    said = complete("Once upon", max_tokens=9)
    pieces = complete("Once upon", max_tokens=9, stream=True, stream_options={"include_usage": True})
    assert "".join(choice.text for told in pieces for choice in told.choices) == said.choices[0].text
    ends = [choice.finish_reason for told in pieces for choice in told.choices]
    assert (ends[-1], set(ends[:-1])) == ("length", {None})
    assert pieces[-1].usage.completion_tokens == 9
    assert {told.object for told in pieces} == {"text_completion"}


def test_the_sdk_is_given_an_answer_for_each_prompt(complete):
    options = {"max_tokens": 4, "extra_body": {"ignore_eos": True}}
    said = complete(["Once upon", "What is"], n=2, **options)
    alone = [complete(prompt, **options).choices[0].text for prompt in ("Once upon", "What is")]
    assert [choice.index for choice in said.choices] == [0, 1, 2, 3]
    assert [said.choices[0].text, said.choices[2].text] == alone
    # Of each choice the model told what it took.
    assert said.usage.completion_tokens == 16


def test_the_sdk_may_send_tokens_and_ask_for_log_probabilities(complete):
    said = complete([5, 6, 7], max_tokens=2, logprobs=2)
    assert said.usage.prompt_tokens == 3
    assert len(said.choices[0].logprobs.content) == 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "prompt", "options", "kind", "reason"),
    [
        ("llama9", "x", {}, openai.NotFoundError, "llama9"),
        ("pico", [[["x"]]], {}, openai.BadRequestError, "prompt"),
        ("pico", "x", {"temperature": "hot"}, openai.BadRequestError, "temperature"),
        ("pico", "hello " * 20_000, {}, openai.BadRequestError, "16384"),
    ],
    ids=["model", "prompt", "temperature", "too long"],
)
def test_the_sdk_is_refused_in_its_own_words(complete, stream, model, prompt, options, kind, reason):
    with pytest.raises(kind, match=reason):
        complete(prompt, model, stream=stream, **options)


def test_the_sdk_is_told_of_an_error_within_a_stream(caller, gateway, monkeypatch):
    monkeypatch.setattr(gateway.app, "timeout", 0.3)
    client = caller.client(f"{gateway.url}/v1")
    stream = caller.wait(client.completions.create(model="endless", prompt="Once", stream=True))
    with pytest.raises(openai.APIError, match="deadline"):
        caller.items(stream)
    assert until(lambda: gateway.engine.running == 0, 1)


# Our own client


def look(place: str) -> str:
    """Look at a place."""
    raise AssertionError(f"a raw completion has called a tool for {place}")


async def test_our_client_completes_at_our_server_as_in_this_process(surface, gateway):
    client = surface.client("vllm:pico", base_url=f"{gateway.url}/v1", api_key=KEY)
    here = surface.client("pico")
    said = await client.raw_complete("Once upon", max_tokens=5)
    assert (said.text, said.finish_reason, said.model) == (
        (await here.raw_complete("Once upon", max_tokens=5)).text,
        "length",
        "pico",
    )
    assert (said.usage.output_tokens, len(said.attempts), said.warnings) == (5, 1, ())
    with pytest.raises(sabir.NotFoundError, match="llama9"):
        await client.raw_complete("x", model="llama9")
    with pytest.raises(sabir.ContextOverflowError):
        await client.raw_complete("hello " * 20_000)


async def test_the_model_in_this_process_is_given_the_text_as_it_stands(surface):
    client = surface.client("pico", tools=[look], temperature=0.0)
    endless = {"extra": {"ignore_eos": True}, "max_tokens": 4}
    one = await client.raw_complete("Once upon", **endless)
    assert one.usage.input_tokens < (await client.ask("Once upon", max_tokens=4)).usage.input_tokens
    two = await client.raw_complete(["Once upon", "What is"], logprobs=True, **endless)
    assert [message.text for message in two.choices] == [
        one.text,
        (await client.raw_complete("What is", **endless)).text,
    ]
    assert len(two.choices[1].parts[0].notes) == 4
    assert two.usage.output_tokens == 8
    echoed = await client.raw_complete("Once", max_tokens=2, extra={"prompt": [5, 6, 7]})
    assert echoed.usage.input_tokens == 3


async def test_llama_cpps_server_completes(surface):
    with llama_server(pico_path(), KEY) as url:
        client = surface.client("llama-server:pico", base_url=f"{url}/v1", api_key=KEY)
        here = surface.client("pico")
        options = {"max_tokens": 6, "temperature": 0.0, "top_k": 1, "repetition_penalty": 1.0, "seed": 1}
        said = await client.raw_complete("Once upon", **options, logprobs=True)
        assert said.text == (await here.raw_complete("Once upon", **options)).text
        assert len(said.message.parts[0].notes) == 6
        assert said.usage.output_tokens == 6
        both = await client.raw_complete(["Once upon", "What is"], **options)
        assert both.text == said.text
        assert len(both.choices) == 2
        with pytest.raises(sabir.AuthenticationError):
            await surface.client("llama-server:pico", base_url=f"{url}/v1", api_key="no").raw_complete("x")


async def test_what_is_sent_is_what_was_asked_and_what_cannot_be_is_reported(surface):
    body = {"object": "text_completion", "model": "m", "choices": [{"index": 0, "text": " b", "finish_reason": "stop"}]}

    async def answer(call):
        asked.append((call.target, json.loads(call.body)))
        data = json.dumps(body).encode()
        call.head("Content-Type: application/json", f"Content-Length: {len(data)}")
        call.write(data)

    asked: list[Any] = []
    with Server(answer) as server:
        client = surface.client("openai:m", base_url=f"{server.url}/v1", api_key=KEY, tools=[look], user="u")
        said = await client.raw_complete("a", extra={"echo": True, "suffix": "c"}, stop="x")
        assert (said.text, said.raw, said.choices) == (" b", body, (said.message,))
        assert asked == [
            ("/v1/completions", {"model": "m", "prompt": "a", "user": "u", "stop": ["x"], "echo": True, "suffix": "c"})
        ]
        with pytest.warns(SabirWarning, match="thinking was not sent"):
            warned = await client.raw_complete("a", thinking=True)
        assert [notice.subject for notice in warned.warnings] == ["thinking"]


@pytest.mark.parametrize("prompt", ["", [], ["a", ""], 5, [1, 2], b"x"])
async def test_what_is_no_prompt_is_refused_before_anything_is_sent(surface, prompt):
    with pytest.raises(ConfigurationError):
        await surface.client("pico").raw_complete(prompt)


async def test_what_a_raw_completion_has_not_is_refused(surface):
    with pytest.raises(ConfigurationError, match="unknown option 'system'"):
        await surface.client("pico").raw_complete("x", system="Be brief.")
    for model, settings in (("anthropic:claude-x", {"api_key": KEY}), (Scripted("a"), {})):
        with pytest.raises(UnsupportedError, match=r"completes no raw text.*llama-server.*openai"):
            await surface.client(model, **settings).raw_complete("x")
