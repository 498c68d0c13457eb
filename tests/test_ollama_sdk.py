"""Ollama's Python SDK on both ends: it reads the bytes that we read, and talks to our server's half before Pico.

Our own client talks to the same gateway, and to a server that misbehaves to order.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import gateway as gateways
import msgspec
import ollama
import pytest
import test_sdk_clients as clients
import uvicorn
from llamas import ENDLESS, with_context
from servers import Server, chunked, until, whole
from test_ollama import ANSWERS, CHATS, HEAD, INDEXED, answer, end, lines, piece
from test_sdk_clients import CAPITAL, CITY, CONTEXT, KEY, PERSON, PIXEL, RESULTS, STORY, SUM, TWO_ANSWERS, TWO_WEATHERS
from test_sdk_judges import Court, Said

import sabir
from sabir.dialects.ollama import NAME, Ollama
from sabir.engines.llama_cpp import LlamaCpp
from sabir.handover import with_ids
from sabir.testing.replay import Replayed, replay


class Numbering(gateways.Gateway):
    """Gives the calls of a conversation ids, which Pico's format wants and Ollama's clients leave out."""

    def _accepted(self, route, request):
        accepted = super()._accepted(route, request)
        return msgspec.structs.replace(accepted, messages=with_ids(accepted.messages))


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@contextmanager
def open_gateway(folder, path, route):
    """A gateway before Pico that speaks one more format, on loopback."""
    engine = LlamaCpp(with_context(folder, CONTEXT), gateways.PICO.dialect, name="pico")
    app = Numbering(engine, KEY, {"pico": {}, "endless": ENDLESS})
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", ws="none", log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(gateways.ROUTES, path, route)
        thread.start()
        assert until(lambda: server.started, 10)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield SimpleNamespace(url=f"http://127.0.0.1:{port}", engine=engine, app=app)
        server.should_exit = True
        thread.join(10)
    engine.close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    route = gateways.Route(Ollama(), "", None, None)
    with open_gateway(tmp_path_factory.mktemp("gateway"), "/api/chat", route) as opened:
        yield opened


# The SDK as judge: text, thinking, calls, tokens and the reason for the end, out of the same bytes.

FINISHES = {"stop": "stop", "length": "length"}


def theirs(messages: list[Any], last: Any) -> Said:
    """What the SDK read; of calls it keeps no ids, and in Ollama's words an answer with calls has just stopped."""
    calls = [(None, call.function.name, call.function.arguments) for said in messages for call in said.tool_calls or ()]
    finish = FINISHES.get(last.done_reason, "unknown")
    return Said(
        text="".join(said.content or "" for said in messages),
        thinking="".join(said.thinking or "" for said in messages),
        calls=calls,
        finish="tool_calls" if calls and finish == "stop" else finish,
        input=last.prompt_eval_count,
        output=last.eval_count,
    )


def ours(result: Replayed) -> Said:
    told = result.decoded
    return Said(
        text=told["text"],
        thinking=told["thinking"],
        calls=[(None, call["name"], call["arguments"]) for call in told["tool_calls"]],
        finish=told["finish_reason"],
        input=told["usage"]["input_tokens"],
        output=told["usage"]["output_tokens"],
    )


def exchange(name: str, body: Any) -> dict[str, Any]:
    response = {"status": 200, "content_type": None, "headers": {}, "body": body}
    return {"id": name, "dialect": NAME, "endpoint": "chat", "stream": isinstance(body, str), "response": response}


def hand_made() -> Iterator[dict[str, Any]]:
    for name, (body, pieces, *_) in ANSWERS.items():
        # The SDK sends pictures, and cannot read one.
        if name != "a picture":
            yield exchange(f"{name.replace(' ', '-')}-whole", body)
            yield exchange(f"{name.replace(' ', '-')}-stream", lines(*({**HEAD, **told} for told in pieces)).decode())


@pytest.fixture(scope="module")
def court() -> Iterator[Court]:
    with Court() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("exchange", [*hand_made(), *CHATS], ids=lambda exchange: exchange["id"])
def test_the_sdk_reads_an_answer_as_we_do(court, exchange, no_network):
    court.exchanges[exchange["id"]] = exchange
    result = replay(exchange)
    assert result.verdict == "passed", result.notes
    with ollama.Client(f"{court.url}/{exchange['id']}") as judge:
        if isinstance(exchange["response"]["body"], str):
            pieces = list(judge.chat("judge", [{"role": "user", "content": "Hello!"}], stream=True))
        else:
            pieces = [judge.chat("judge", [{"role": "user", "content": "Hello!"}])]
    assert theirs([each.message for each in pieces], pieces[-1]) == ours(result)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_the_sdk_finds_an_error_where_we_do(court, is_streamed, no_network):
    error = {"error": "model runner has unexpectedly stopped"}
    body: Any = lines(piece(content="a"), error).decode() if is_streamed else error
    court.exchanges["error"] = exchange("error", body)
    court.exchanges["error"]["response"]["status"] = 200 if is_streamed else 500
    assert replay(court.exchanges["error"]).error["class"] == "ServerError"
    with (
        ollama.Client(f"{court.url}/error") as judge,
        pytest.raises(ollama.ResponseError, match="unexpectedly stopped"),
    ):
        list(judge.chat("judge", [], stream=is_streamed))


# The SDK as client.


class Caller(clients.Caller):
    def client(self, url, key=KEY):
        made = self._kind(host=url, headers={"authorization": f"Bearer {key}"}, timeout=30.0)
        self._clients.append(made)
        return made


@pytest.fixture(params=[ollama.Client, ollama.AsyncClient], ids=lambda kind: kind.__name__)
def caller(request):
    made = Caller(request.param)
    yield made
    made.close()


@pytest.fixture
def chat(caller, gateway):
    """Ask, and wait for the answer or for all of its pieces."""
    client = caller.client(gateway.url)

    def ask(messages, **options):
        said = caller.wait(client.chat("pico", messages, **options))
        return caller.items(said) if options.get("stream") else said

    return ask


def tool(name="get_weather"):
    return {"type": "function", "function": {"name": name, "description": "Get the weather.", "parameters": CITY}}


def round_of(calls):
    """The model's calls, as it made them, and their results."""
    told = [
        {"role": "tool", "content": RESULTS[call.function.arguments["city"]], "tool_name": call.function.name}
        for call in calls
    ]
    return [{"role": "assistant", "tool_calls": calls}, *told]


def test_the_sdk_is_answered(chat):
    said = chat(CAPITAL)
    assert said.message.content == "The capital of France is Paris."
    assert (said.message.role, said.done, said.done_reason, said.model) == ("assistant", True, "stop", "pico")
    assert (said.prompt_eval_count, said.eval_count) == (17, 13)


def test_the_sdk_holds_a_conversation(chat):
    messages = [{"role": "system", "content": "Be brief."}]
    for words in ("My name is Alice.", "What is my name?"):
        messages.append({"role": "user", "content": words})
        messages.append(chat(messages).message)
    assert messages[-1].content == "Your name is Alice."


def test_the_sdk_streams_what_it_is_answered(chat):
    said = chat(STORY)
    *pieces, last = chat(STORY, stream=True)
    assert len(pieces) > 40
    assert "".join(told.message.content for told in pieces) == said.message.content
    assert {(told.done, told.model, told.message.role) for told in pieces} == {(False, "pico", "assistant")}
    assert (last.done, last.done_reason, last.eval_count) == (True, "stop", said.eval_count)


@pytest.mark.parametrize("stream", [False, True])
def test_the_sdks_tools_are_called_and_their_results_read(chat, stream):
    first = chat(TWO_WEATHERS, tools=[tool()], stream=stream)
    calls = [call for told in (first if stream else [first]) for call in told.message.tool_calls or ()]
    assert [call.function.arguments for call in calls] == [{"city": "Paris"}, {"city": "Oslo"}]
    last = chat([*TWO_WEATHERS, *round_of(calls)], tools=[tool()], stream=stream)
    assert "".join(told.message.content for told in (last if stream else [last])) == TWO_ANSWERS


def test_the_sdk_is_given_what_fits_its_schema(chat):
    schema = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
    said = chat(PERSON, format={**schema, "required": ["name", "age"]})
    assert json.loads(said.message.content) == {"name": "Alice", "age": 31}


def test_the_sdk_sees_the_thinking_it_asks_for(chat):
    said = chat(SUM, think=True)
    assert "2 + 3 = 5" in said.message.thinking
    assert said.message.content == "2 + 3 = 5"
    pieces = chat(SUM, think=True, stream=True)
    assert "".join(told.message.thinking or "" for told in pieces) == said.message.thinking
    assert "".join(told.message.content for told in pieces) == said.message.content
    assert chat([*SUM, said.message, *CAPITAL]).message.content == "The capital of France is Paris."
    for quiet in ({}, {"think": False}):
        assert chat(SUM, **quiet).message.thinking is None


def test_the_sdks_limits_end_an_answer(chat):
    text = chat(STORY).message.content
    cut = chat(STORY, options={"num_predict": 7})
    assert (cut.done_reason, cut.eval_count) == ("length", 7)
    assert text.startswith(cut.message.content)
    stopped = chat(STORY, options={"stop": ["river", "never said"]})
    assert (stopped.message.content, stopped.done_reason) == (text[: text.index("river")], "stop")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "messages", "options", "status", "reason"),
    [
        ("llama9", CAPITAL, {}, 404, "llama9"),
        ("pico", [{"role": "cook", "content": "x"}], {}, 400, r"messages\[0\].role"),
        ("pico", CAPITAL, {"options": {"temperature": "hot"}}, 400, "options.temperature"),
        ("pico", CAPITAL, {"tools": [{"type": "function"}]}, 400, r"tools\[0\]"),
        ("pico", [{"role": "user", "content": "hello " * 6000}], {}, 400, r"18\d\d\d tokens.*16384 tokens"),
        ("pico", [{"role": "user", "content": "x", "images": [PIXEL]}], {}, 400, "image input is not supported"),
    ],
    ids=["model", "role", "temperature", "tool", "too long", "image"],
)
def test_the_sdk_is_refused_in_its_own_words(caller, gateway, stream, model, messages, options, status, reason):
    client = caller.client(gateway.url)
    with pytest.raises(ollama.ResponseError, match=reason) as caught:
        caller.items(caller.wait(client.chat(model, messages, stream=stream, **options)))
    assert caught.value.status_code == status


def test_the_sdks_wrong_key_is_refused(caller, gateway):
    with pytest.raises(ollama.ResponseError) as caught:
        caller.wait(caller.client(gateway.url, "wrong").chat("pico", CAPITAL))
    assert caught.value.status_code == 401
    assert "wrong" not in str(caught.value)


def test_the_sdk_is_told_of_an_error_within_a_stream(caller, gateway, monkeypatch):
    monkeypatch.setattr(gateway.app, "timeout", 0.3)
    stream = caller.wait(caller.client(gateway.url).chat("endless", CAPITAL, stream=True))
    with pytest.raises(ollama.ResponseError, match="deadline"):
        caller.items(stream)
    assert until(lambda: gateway.engine.running == 0, 1)


# Our own client.


async def test_our_client_is_answered_by_our_server(surface, gateway):
    client = surface.client("ollama:pico", base_url=gateway.url, api_key=KEY)
    answered = await client.ask("What is the capital of France?")
    assert (answered.text, answered.finish_reason, answered.model) == (
        "The capital of France is Paris.",
        "stop",
        "pico",
    )
    assert (answered.usage.input_tokens, answered.usage.output_tokens, answered.warnings) == (17, 13, ())
    async with client.stream("What is the capital of France?", include=["generating"]) as stream:
        assert "".join([chunk.content async for chunk in stream]) == answered.text
    assert stream.response.message == answered.message
    thoughtful = await client.ask("What is 2 + 3?", thinking=True)
    assert "2 + 3 = 5" in thoughtful.thinking
    with pytest.raises(sabir.NotFoundError, match="llama9"):
        await client.ask("?", model="llama9")
    with pytest.raises(sabir.ContextOverflowError) as caught:
        await client.ask("hello " * 6000)
    assert caught.value.status == 400


async def test_our_client_runs_its_tools_over_our_server(surface, gateway):
    def get_weather(city: str) -> str:
        """Get the weather in a city."""
        return RESULTS[city]

    client = surface.client("ollama:pico", base_url=gateway.url, api_key=KEY, tools=[get_weather])
    answered = await client.ask("What is the weather in Paris and Oslo?")
    assert answered.text == TWO_ANSWERS
    assert [message.role for message in answered.messages] == ["assistant", "tool", "assistant"]


def served(*pieces: bytes):
    async def speak(call):
        call.head("Content-Type: application/x-ndjson", "Transfer-Encoding: chunked")
        for each in pieces:
            call.chunk(each)
        call.chunk(b"")

    return speak


async def test_a_round_of_calls_without_ids_goes_back_without_ids(surface):
    def look(at: str) -> str:
        """Look around."""
        return f"seen {at}"

    calls = [{"function": {"name": "look", "arguments": {"at": place}}} for place in ("here", "there")]
    first = lines(piece(thinking="hm"), piece(tool_calls=calls), end())
    with Server(served(first)) as server:

        async def answer_call(call):
            await served(first if len(server.calls) == 1 else lines(piece(content="Nothing."), end()))(call)

        server.answer = answer_call
        client = surface.client("ollama:m", base_url=server.url, tools=[look])
        async with client.stream("Look!") as stream:
            async for _ in stream:
                pass
        assert stream.response.text == "Nothing."
        asked = json.loads(server.calls[1].body)
    assert [call.target for call in server.calls] == ["/api/chat"] * 2
    assert asked["messages"] == [
        {"role": "user", "content": "Look!"},
        {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": calls},
        {"role": "tool", "content": "seen here", "tool_name": "look"},
        {"role": "tool", "content": "seen there", "tool_name": "look"},
    ]
    assert (asked["truncate"], asked["shift"], "options" in asked) == (False, False, False)


async def test_what_a_server_knows_of_a_call_goes_back_to_it(surface):
    def look(at: str) -> str:
        """Look around."""
        return f"seen {at}"

    with Server(whole(json.dumps(answer({"content": "", "tool_calls": [INDEXED]})).encode())) as server:
        client = surface.client("ollama:m", base_url=server.url, tools=[look], max_tool_rounds=1)
        await client.ask("Look!")
        _, call, result = json.loads(server.calls[1].body)["messages"]
    assert call["tool_calls"] == [INDEXED]
    assert result == {"role": "tool", "content": "seen it", "tool_name": "look", "tool_call_id": "c1"}


@pytest.mark.parametrize(
    ("pieces", "kind", "partial"),
    [
        ([lines(piece(content="a"))], sabir.StreamInterrupted, "a"),
        ([lines(piece(content="a")), lines({"error": "the runner has stopped"})], sabir.ServerError, "a"),
        ([lines({"error": "the input length exceeds the context length"})], sabir.ContextOverflowError, ""),
    ],
)
async def test_a_stream_that_fails_tells_what_had_come(surface, pieces, kind, partial):
    with Server(served(*pieces)) as server:
        client = surface.client("ollama:m", base_url=server.url, max_attempts=1)
        with pytest.raises(kind) as caught:  # noqa: PT012 - a stream is read to its end
            async with client.stream("?") as stream:
                async for _ in stream:
                    pass
    assert caught.value.partial.text == partial


async def test_the_context_that_is_asked_for_is_explained(surface):
    with Server(chunked()) as server:
        client = surface.client("ollama:m", base_url=server.url, temperature=0.5)
        told = client.explain("x" * 20_000)
        assert told.body["options"] == {"temperature": 0.5, "num_ctx": 16_384}
        assert [(notice.kind, notice.subject) for notice in told.notices] == [("emulated", "num_ctx")]
        told = client.explain("x" * 20_000, extra={"options": {"num_ctx": 30_000}, "keep_alive": "1h"})
        assert told.body["options"] == {"temperature": 0.5, "num_ctx": 30_000}
        assert (told.body["keep_alive"], told.notices) == ("1h", ())
        assert server.calls == []
