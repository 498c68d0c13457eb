"""Mistral's Python SDK on both ends: it reads the bytes that we read, and talks to our server's half before Pico.

Our own client talks to the same gateway, and to a server that answers as it is told.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import gateway as gateways
import pytest
import test_sdk_clients as clients
from mistralai.client import Mistral as MistralClient
from mistralai.client import errors
from servers import Server, chunked, until, whole
from test_mistral import ANSWERS, COUNTS, EXCHANGES, LAST, WIRE_CALL, answer, chunk, sse, thinking
from test_ollama_sdk import open_gateway
from test_sdk_clients import CAPITAL, CITY, KEY, PERSON, PIXEL, RESULTS, STORY, SUM, TWO_ANSWERS, TWO_WEATHERS, Person
from test_sdk_judges import Court, Said, arguments

import sabir
from sabir.dialects.mistral import NAME, Mistral
from sabir.testing.replay import Replayed, replay

HELLO = [{"role": "user", "content": "Hello!"}]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    route = gateways.Route(Mistral(), "", "created", None)
    with open_gateway(tmp_path_factory.mktemp("gateway"), "/mistral/v1/chat/completions", route) as opened:
        opened.url += "/mistral"
        yield opened


# The SDK as judge: text, thinking, calls, tokens and the reason for the end, out of the same bytes.

# What the SDK makes of a call without an id.
NO_ID = "null"


def texts(content: Any) -> tuple[str, str]:
    """The text and the thinking of a content as the SDK has it."""
    if not isinstance(content, list):
        return content or "", ""
    said = "".join(block.text for block in content if block.type == "text")
    thought = [item.text for block in content if block.type == "thinking" for item in block.thinking]
    return said, "".join(thought)


def theirs(chunks: list[Any]) -> Said:
    """What the SDK read, the pieces of a stream added up; it leaves that to its users."""
    choices = [choice for each in chunks for choice in each.choices if choice.index == 0]
    messages = [getattr(choice, "delta", None) or choice.message for choice in choices]
    pairs = [texts(message.content) for message in messages]
    calls: list[list[Any]] = []
    for call in (call for message in messages for call in message.tool_calls or ()):
        if call.function.name:
            calls.append([None if call.id == NO_ID else call.id, call.function.name, call.function.arguments])
        else:
            calls[-1][2] += call.function.arguments
    usage = chunks[-1].usage
    return Said(
        text="".join(said for said, _ in pairs),
        thinking="".join(thought for _, thought in pairs),
        calls=[(call_id, name, arguments(text)) for call_id, name, text in calls],
        finish=next((choice.finish_reason for choice in choices if choice.finish_reason), "unknown"),
        input=usage.prompt_tokens if usage else None,
        output=usage.completion_tokens if usage else None,
    )


def ours(result: Replayed, exchange: dict[str, Any]) -> Said:
    told = result.decoded
    # The SDK keeps the words of the wire, and tells the tokens of a sound apart from the prompt's.
    sounds = json.dumps(exchange["response"]["body"]).count("audio_tokens") and [375, 100]
    counted = told["usage"]["input_tokens"]
    return Said(
        text=told["text"],
        thinking=told["thinking"],
        calls=[(call["id"], call["name"], call["arguments"]) for call in told["tool_calls"]],
        finish="model_length" if "model_length" in json.dumps(exchange) else told["finish_reason"],
        input=next(count for count in (counted - sound for sound in sounds) if count > 0) if sounds else counted,
        output=told["usage"]["output_tokens"],
    )


def exchange_of(name: str, body: Any) -> dict[str, Any]:
    content_type = "text/event-stream" if isinstance(body, str) else "application/json"
    response = {"status": 200, "content_type": content_type, "headers": {}, "body": body}
    kind = {"id": name.replace(" ", "-").replace(",", ""), "dialect": NAME, "endpoint": "chat/completions"}
    return {**kind, "stream": isinstance(body, str), "response": response}


def hand_made() -> Iterator[dict[str, Any]]:
    for name, (body, chunks, *_) in ANSWERS.items():
        # The SDK insists on counts in a whole answer.
        yield exchange_of(f"{name} whole", {"usage": COUNTS, **body})
        yield exchange_of(f"{name} stream", sse(*chunks).decode())


@pytest.fixture(scope="module")
def court() -> Iterator[Court]:
    with Court() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


ALL = [*hand_made(), *(each for each in EXCHANGES if each["response"]["status"] == 200)]


@pytest.mark.parametrize("exchange", ALL, ids=lambda exchange: exchange["id"])
def test_the_sdk_reads_an_answer_as_we_do(court, exchange, no_network):
    court.exchanges[exchange["id"]] = exchange
    result = replay(exchange)
    assert result.verdict == "passed", result.notes
    with MistralClient(api_key="key", server_url=f"{court.url}/{exchange['id']}") as judge:
        if isinstance(exchange["response"]["body"], str):
            with judge.chat.stream(model="judge", messages=HELLO) as stream:
                chunks = [event.data for event in stream]
        else:
            chunks = [judge.chat.complete(model="judge", messages=HELLO)]
    assert theirs(chunks) == ours(result, exchange)


@pytest.mark.parametrize(
    "exchange", [each for each in EXCHANGES if each["response"]["status"] >= 400], ids=lambda exchange: exchange["id"]
)
def test_the_sdk_finds_an_error_where_we_do(court, exchange, no_network):
    court.exchanges[exchange["id"]] = exchange
    judge = MistralClient(api_key="key", server_url=f"{court.url}/{exchange['id']}")
    with judge, pytest.raises(errors.SDKError) as caught:
        judge.chat.complete(model="judge", messages=HELLO)
    found = replay(exchange).error
    assert caught.value.status_code == found["status"]
    assert found["message"].removesuffix(f" (HTTP {found['status']})") in str(caught.value)


# The SDK as client.


class Caller(clients.Caller):
    """The SDK's blocking methods, or those of its other colour."""

    def __init__(self, is_blocking):
        super().__init__(MistralClient)
        self._suffix = "" if is_blocking else "_async"

    def client(self, url, key=KEY):
        made = MistralClient(api_key=key, server_url=url, timeout_ms=30_000)
        self._clients.append(made)
        return made

    def ask(self, client, method="complete", **asked):
        said = self.wait(getattr(client.chat, method + self._suffix)(**{"model": "pico", **asked}))
        return said if method in ("complete", "parse") else [event.data for event in self.items(said)]

    def close(self):
        for client in self._clients:
            client.__exit__(None, None, None)
            self.wait(client.__aexit__(None, None, None))
        self._runner.close()


@pytest.fixture(params=[True, False], ids=["blocking", "async"])
def caller(request):
    made = Caller(request.param)
    yield made
    made.close()


@pytest.fixture
def chat(caller, gateway):
    client = caller.client(gateway.url)
    return lambda messages, method="complete", **asked: caller.ask(client, method, messages=messages, **asked)


def tool(name="get_weather"):
    return {"type": "function", "function": {"name": name, "description": "Get the weather.", "parameters": CITY}}


def round_of(calls):
    """The model's calls, as it made them, and their results."""
    told = [
        {"role": "tool", "content": RESULTS[json.loads(call.function.arguments)["city"]], "tool_call_id": call.id}
        for call in calls
    ]
    return [{"role": "assistant", "tool_calls": calls}, *told]


def test_the_sdk_is_answered(chat):
    said = chat(CAPITAL)
    (choice,) = said.choices
    assert choice.message.content == "The capital of France is Paris."
    assert (choice.message.role, choice.finish_reason, choice.index) == ("assistant", "stop", 0)
    assert (said.object, said.model) == ("chat.completion", "pico")
    assert (said.usage.prompt_tokens, said.usage.completion_tokens, said.usage.total_tokens) == (17, 13, 30)


def test_the_sdk_holds_a_conversation(chat):
    messages: list[Any] = [{"role": "system", "content": "Be brief."}]
    for words in ("My name is Alice.", "What is my name?"):
        messages.append({"role": "user", "content": [{"type": "text", "text": words}]})
        messages.append(chat(messages).choices[0].message)
    assert messages[-1].content == "Your name is Alice."


def test_the_sdk_streams_what_it_is_answered(chat):
    said = chat(STORY).choices[0].message.content
    *chunks, last = chat(STORY, "stream")
    assert len(chunks) > 40
    assert "".join(each.choices[0].delta.content or "" for each in chunks) == said
    assert {(each.model, each.object) for each in chunks} == {("pico", "chat.completion.chunk")}
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert last.usage.completion_tokens > 40


@pytest.mark.parametrize("method", ["complete", "stream"])
def test_the_sdks_tools_are_called_and_their_results_read(chat, method):
    def said(messages):
        told = chat(messages, method, tools=[tool()])
        choices = [choice for each in (told if method == "stream" else [told]) for choice in each.choices]
        return [getattr(choice, "delta", None) or choice.message for choice in choices]

    calls = [call for message in said(TWO_WEATHERS) for call in message.tool_calls or ()]
    assert [json.loads(call.function.arguments) for call in calls] == [{"city": "Paris"}, {"city": "Oslo"}]
    last = said([*TWO_WEATHERS, *round_of(calls)])
    assert "".join(message.content or "" for message in last) == TWO_ANSWERS


def test_the_sdks_choice_of_tools_is_obeyed(chat):
    def calls(choice):
        asked = chat(clients.WEATHER, tools=[tool("clock"), tool()], tool_choice=choice, max_tokens=60)
        return [call.function.name for call in asked.choices[0].message.tool_calls or ()]

    assert calls("none") == []
    assert calls("auto") == calls("any") == ["get_weather"]


def test_the_sdk_parses_a_schemas_answer(chat):
    parsed = chat(PERSON, "parse", response_format=Person)
    assert parsed.choices[0].message.parsed == Person(name="Alice", age=31)


def test_the_sdk_sees_the_thinking_it_asks_for(chat):
    message = chat(SUM, reasoning_effort="high").choices[0].message
    said, thought = texts(message.content)
    assert (said, "2 + 3 = 5" in thought) == ("2 + 3 = 5", True)
    chunks = chat(SUM, "stream", reasoning_effort="high")
    pieces = [texts(choice.delta.content) for each in chunks for choice in each.choices]
    assert ("".join(a for a, _ in pieces), "".join(b for _, b in pieces)) == (said, thought)
    assert chat([*SUM, message, *CAPITAL]).choices[0].message.content == "The capital of France is Paris."
    for quiet in ({}, {"reasoning_effort": "none"}):
        assert chat(SUM, **quiet).choices[0].message.content == "2 + 3 = 5"


def test_the_sdks_limits_end_an_answer(chat):
    text = chat(STORY).choices[0].message.content
    cut = chat(STORY, max_tokens=7)
    assert (cut.choices[0].finish_reason, cut.usage.completion_tokens) == ("length", 7)
    assert text.startswith(cut.choices[0].message.content)
    for stop in ("river", ["river", "never said"]):
        stopped = chat(STORY, stop=stop).choices[0]
        assert (stopped.message.content, stopped.finish_reason) == (text[: text.index("river")], "stop")


IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": f"data:image/png;base64,{PIXEL}"}]}]


NAMELESS = {"type": "function", "function": {"name": "", "parameters": {}}}


@pytest.mark.parametrize("method", ["complete", "stream"])
@pytest.mark.parametrize(
    ("asked", "status", "reason"),
    [
        ({"model": "mistral-9", "messages": CAPITAL}, 404, "mistral-9"),
        ({"messages": []}, 400, "messages"),
        ({"messages": CAPITAL, "tools": [NAMELESS]}, 400, r"tools\[0\]"),
        ({"messages": [{"role": "user", "content": "hello " * 6000}]}, 400, r"18\d\d\d tokens.*16384 tokens"),
        ({"messages": IMAGE}, 400, "image input is not supported"),
    ],
    ids=["model", "nothing", "tool", "too long", "image"],
)
def test_the_sdk_is_refused_in_its_own_words(caller, gateway, method, asked, status, reason):
    client = caller.client(gateway.url)
    with pytest.raises(errors.SDKError, match=reason) as caught:
        caller.ask(client, method, **asked)
    assert caught.value.status_code == status
    assert json.loads(caught.value.body)["object"] == "error"


def test_the_sdks_wrong_key_is_refused(caller, gateway):
    with pytest.raises(errors.SDKError) as caught:
        caller.ask(caller.client(gateway.url, "wrong"), messages=CAPITAL)
    assert caught.value.status_code == 401
    assert "wrong" not in str(caught.value)


def test_the_sdk_is_told_of_an_error_within_a_stream(caller, gateway, monkeypatch):
    monkeypatch.setattr(gateway.app, "timeout", 0.3)
    with pytest.raises(errors.ResponseValidationError) as caught:
        caller.ask(caller.client(gateway.url), "stream", model="endless", messages=CAPITAL)
    # The SDK has no word for an error in a stream; it shows what came in the place of a chunk.
    assert "deadline" in caught.value.body
    assert until(lambda: gateway.engine.running == 0, 1)


# Our own client.


async def test_our_client_is_answered_by_our_server(surface, gateway):
    client = surface.client("mistral:pico", base_url=f"{gateway.url}/v1", api_key=KEY)
    answered = await client.ask("What is the capital of France?")
    assert (answered.text, answered.model) == ("The capital of France is Paris.", "pico")
    assert (answered.finish_reason, answered.warnings) == ("stop", ())
    assert (answered.usage.input_tokens, answered.usage.output_tokens) == (17, 13)
    async with client.stream("What is the capital of France?", include=["generating"]) as stream:
        assert "".join([each.content async for each in stream]) == answered.text
    thoughtful = await client.ask("What is 2 + 3?", thinking=True)
    assert "2 + 3 = 5" in thoughtful.thinking
    with pytest.raises(sabir.NotFoundError, match="mistral-9"):
        await client.ask("?", model="mistral-9")
    with pytest.raises(sabir.ContextOverflowError) as caught:
        await client.ask("hello " * 6000)
    assert caught.value.status == 400


async def test_our_client_runs_its_tools_over_our_server(surface, gateway):
    def get_weather(city: str) -> str:
        """Get the weather in a city."""
        return RESULTS[city]

    client = surface.client("mistral:pico", base_url=f"{gateway.url}/v1", api_key=KEY, tools=[get_weather])
    answered = await client.ask("What is the weather in Paris and Oslo?")
    assert answered.text == TWO_ANSWERS
    assert [message.role for message in answered.messages] == ["assistant", "tool", "assistant"]


async def test_a_round_goes_back_byte_for_byte(surface):
    def look(at: str) -> str:
        """Look around."""
        return f"seen {at}"

    block = thinking("hm", closed=True, signature="c2ln")
    first = sse(chunk(content=[block]), chunk(tool_calls=[WIRE_CALL], content="", reason="tool_calls"))
    with Server(chunked(first)) as server:

        async def speak(call):
            await chunked(first if len(server.calls) == 1 else sse(chunk(content="Nothing."), LAST))(call)

        server.answer = speak
        client = surface.client("mistral:m", base_url=server.url, api_key="secret-key", tools=[look])
        async with client.stream("Look!") as stream:
            async for _ in stream:
                pass
        assert stream.response.text == "Nothing."
        asked = json.loads(server.calls[1].body)
    assert [call.target for call in server.calls] == ["/chat/completions"] * 2
    assert [call.header("authorization") for call in server.calls] == ["Bearer secret-key"] * 2
    assert asked["messages"][1:] == [
        {"role": "assistant", "content": [block], "tool_calls": [WIRE_CALL]},
        {"role": "tool", "tool_call_id": "aX2gaLIyo", "content": "seen it"},
    ]
    assert asked.keys() == {"model", "messages", "tools", "stream"}


@pytest.mark.parametrize(
    ("data", "kind", "partial"),
    [
        (sse(chunk(content="a"), done=False), sabir.StreamInterrupted, "a"),
        (sse(chunk(content="a"), chunk(content="b", reason="error")), sabir.ServerError, "ab"),
        (sse({"object": "error", "message": "slow", "raw_status_code": 429}), sabir.RateLimitError, ""),
    ],
)
async def test_a_stream_that_fails_tells_what_had_come(surface, data, kind, partial):
    with Server(chunked(data)) as server:
        client = surface.client("mistral:m", base_url=server.url, api_key="secret-key", max_attempts=1)
        with pytest.raises(kind) as caught:  # noqa: PT012 - a stream is read to its end
            async with client.stream("?") as stream:
                async for _ in stream:
                    pass
    assert caught.value.partial.text == partial


async def test_a_models_answer_that_failed_is_no_answer(surface):
    with Server(whole(json.dumps(answer("a", "error")).encode(), "Content-Type: application/json")) as server:
        client = surface.client("mistral:m", base_url=server.url, api_key="secret-key", max_attempts=1)
        with pytest.raises(sabir.ServerError, match="broken off"):
            await client.ask("?")
