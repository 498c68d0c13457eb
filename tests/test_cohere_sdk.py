"""Cohere's Python SDK on both ends: it reads the bytes that we read, and talks to our server's half before Pico.

Our own client talks to the same gateway.
"""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import cohere
import gateway as gateways
import httpx
import pytest
import uvicorn
from cohere.core.api_error import ApiError
from llamas import ENDLESS, skip_without_llama, with_context
from servers import Server, until, whole
from test_cohere import ANSWERS, EXCHANGES, MESSAGES, NAME, TOOL, decoded
from test_sdk_clients import CAPITAL, CITY, CONTEXT, KEY, PERSON, RESULTS, STORY, SUM, TWO_ANSWERS, TWO_WEATHERS
from test_sdk_judges import Said

from sabir.dialects import response_of
from sabir.dialects.cohere import Cohere
from sabir.engines.llama_cpp import LlamaCpp
from sabir.errors import NotFoundError
from sabir.requests import OutputSchema, Request

skip_without_llama()

SHAPE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    engine = LlamaCpp(with_context(tmp_path_factory.mktemp("gateway"), CONTEXT), gateways.PICO.dialect, name="pico")
    app = gateways.Gateway(engine, KEY, {"pico": {}, "endless": ENDLESS})
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", ws="none", log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(gateways.ROUTES, "/v2/chat", gateways.Route(Cohere(), "", None, None))
        thread.start()
        assert until(lambda: server.started, 10)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield SimpleNamespace(url=f"http://127.0.0.1:{port}", engine=engine, app=app)
        server.should_exit = True
        thread.join(10)
    engine.close()


@contextmanager
def sdk(url, key=KEY):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "127.0.0.1")
        with httpx.Client(timeout=30) as http:
            yield cohere.ClientV2(key, base_url=url, httpx_client=http, log_warning_experimental_features=False)


# The SDK as judge: text, thinking, calls, tokens and the reason for the end, out of the same bytes.


@pytest.fixture(scope="module")
def court():
    with Server(whole()) as server, sdk(server.url) as client:
        yield SimpleNamespace(server=server, client=client)


FINISHES = {"COMPLETE": "stop", "STOP_SEQUENCE": "stop", "MAX_TOKENS": "length", "TOOL_CALL": "tool_calls"}
ASK: dict[str, Any] = {"model": "judge", "messages": [{"role": "user", "content": "Hello!"}]}


def heard(court, data, is_stream, status="200 OK"):
    kind = "text/event-stream" if is_stream else "application/json"
    court.server.answer = whole(data, f"content-type: {kind}", status=status)
    return list(court.client.chat_stream(**ASK)) if is_stream else court.client.chat(**ASK)


def counts(usage):
    tokens = usage and usage.tokens
    return {} if tokens is None else {"input": int(tokens.input_tokens), "output": int(tokens.output_tokens)}


def theirs_whole(told):
    message = told.message
    blocks = message.content or []
    thoughts = "".join(block.thinking for block in blocks if block.type == "thinking")
    return Said(
        text="".join(block.text for block in blocks if block.type == "text"),
        thinking=(message.tool_plan or "") + thoughts,
        calls=[
            (call.id, call.function.name, json.loads(call.function.arguments or "{}"))
            for call in message.tool_calls or ()
        ],
        finish=FINISHES.get(told.finish_reason, "unknown"),
        **counts(told.usage),
    )


def theirs_streamed(events):
    said, calls = Said(calls=[]), {}
    for event in events:
        delta = getattr(event, "delta", None)
        message = getattr(delta, "message", None)
        match event.type:
            case "content-delta":
                said.text += message.content.text or ""
                said.thinking += message.content.thinking or ""
            case "tool-plan-delta":
                said.thinking += message.tool_plan
            case "tool-call-start":
                function = message.tool_calls.function
                calls[event.index] = [message.tool_calls.id, function.name, function.arguments]
            case "tool-call-delta":
                calls[event.index][2] += message.tool_calls.function.arguments
            case "message-end":
                said.finish = FINISHES.get(delta.finish_reason, "unknown")
                for name, count in counts(delta.usage).items():
                    setattr(said, name, count)
            case _:
                pass
    said.calls = [(call_id, name, json.loads(text or "{}")) for call_id, name, text in calls.values()]
    return said


def ours(deltas):
    response = response_of(NAME, deltas)
    return Said(
        text=response.text,
        thinking=response.thinking,
        calls=[(call.id, call.name, json.loads(call.input or "{}")) for call in response.tool_calls],
        finish=response.finish_reason,
        input=response.usage.input_tokens,
        output=response.usage.output_tokens,
    )


def recorded(is_stream):
    for exchange in EXCHANGES:
        body = exchange["response"]["body"]
        is_answer = exchange["endpoint"] == "v2/chat" and exchange["response"]["status"] == 200
        if is_answer and isinstance(body, str) == is_stream:
            yield exchange["id"], body.encode() if is_stream else json.dumps(body).encode()


# What has a type that the SDK does not know cannot be built by it.
READABLE = {name: both for name, both in ANSWERS.items() if name != "something unknown"}
WHOLE = [*((name, json.dumps(body).encode()) for name, (body, _) in READABLE.items()), *recorded(False)]
STREAMS = [*((name, data) for name, (_, data) in READABLE.items()), *recorded(True)]


@pytest.mark.parametrize(("name", "data"), WHOLE, ids=[name for name, _ in WHOLE])
def test_the_sdk_reads_an_answer_as_we_do(court, name, data, no_network):
    assert theirs_whole(heard(court, data, False)) == ours(Cohere().decode_answer(data))


@pytest.mark.parametrize(("name", "data"), STREAMS, ids=[name for name, _ in STREAMS])
def test_the_sdk_reads_a_stream_as_we_do(court, name, data, no_network):
    deltas, error = decoded(data)
    assert error is None
    assert theirs_streamed(heard(court, data, True)) == ours(deltas)


@pytest.mark.parametrize("name", READABLE)
def test_the_sdk_reads_what_our_servers_half_says(court, name, no_network):
    deltas = Cohere().decode_answer(json.dumps(ANSWERS[name][0]).encode())
    encoder = Cohere().encoder()
    stream = b"".join([*map(encoder.feed, deltas), encoder.close()])
    assert theirs_streamed(heard(court, stream, True)) == ours(deltas)
    assert theirs_whole(heard(court, Cohere().encode_response(response_of(NAME, deltas)), False)) == ours(deltas)


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 503])
@pytest.mark.parametrize("is_stream", [False, True])
def test_the_sdk_finds_the_error_that_we_do(court, status, is_stream, no_network):
    found = Cohere().decode_error(status, {}, b'{"message": "that went wrong"}')
    again, body = Cohere().encode_error(found)
    court.server.answer = whole(body, "content-type: application/json", "retry-after: 0", status=f"{again} Oh")
    with pytest.raises(ApiError) as caught:
        list(court.client.chat_stream(**ASK)) if is_stream else court.client.chat(**ASK)
    assert caught.value.status_code == status
    assert caught.value.body["message"] in found.message


def test_what_we_send_is_what_the_sdk_knows():
    for message, _ in MESSAGES:
        options: dict[str, Any] = {"temperature": 0.5, "stop": ("a",), "thinking": 50, "documents": ("a", {"data": {}})}
        request = Request(model="m", messages=(message,), tools=(TOOL,), tool_choice="required", **options)
        body = json.loads(Cohere().encode_request(request)[0].body)
        parsers = {
            "system": cohere.SystemChatMessageV2,
            "user": cohere.UserChatMessageV2,
            "assistant": cohere.AssistantChatMessageV2,
            "tool": cohere.ToolChatMessageV2,
        }
        for told in body["messages"]:
            known = parsers[told["role"]].model_validate(told)
            assert known.model_dump(exclude_none=True, exclude_unset=True) == told
        for tool in body["tools"]:
            assert cohere.ToolV2.model_validate(tool).model_dump(exclude_none=True) == tool
        assert cohere.Thinking.model_validate(body["thinking"]).token_budget == 50
    schema = {"schema": OutputSchema("p", SHAPE)}
    body = json.loads(Cohere().encode_request(Request(model="m", messages=(MESSAGES[0][0],), **schema))[0].body)
    told = cohere.JsonObjectResponseFormatV2.model_validate(body["response_format"])
    assert told.json_schema == SHAPE


# The SDK as client.


@pytest.fixture(scope="module")
def client(gateway):
    with sdk(gateway.url) as made:
        yield made


@pytest.fixture(params=["whole", "stream"])
def ask(request, client):
    """Ask for a whole answer or for a stream; returns what was said."""

    def asked(messages, **options):
        said = {"model": "pico", "messages": messages, **options}
        if request.param == "whole":
            return theirs_whole(client.chat(**said))
        return theirs_streamed(client.chat_stream(**said))

    return asked


def offered():
    return [
        {"type": "function", "function": {"name": "get_weather", "description": "Get the weather.", "parameters": CITY}}
    ]


def test_the_sdk_is_answered(ask):
    said = ask(CAPITAL)
    assert said == Said(text="The capital of France is Paris.", calls=[], finish="stop", input=17, output=13)


def test_the_sdk_holds_a_conversation(ask):
    messages = [{"role": "system", "content": "Be brief."}]
    for words in ("My name is Alice.", "What is my name?"):
        messages.append({"role": "user", "content": words})
        messages.append({"role": "assistant", "content": ask(messages).text})
    assert messages[-1]["content"] == "Your name is Alice."


def test_the_sdks_tools_are_called_and_their_results_read(ask):
    first = ask(TWO_WEATHERS, tools=offered())
    assert ([call[2] for call in first.calls], first.finish) == ([{"city": "Paris"}, {"city": "Oslo"}], "tool_calls")
    calls = [
        {"id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(given)}}
        for call_id, name, given in first.calls
    ]
    results = [
        {"role": "tool", "tool_call_id": call_id, "content": RESULTS[given["city"]]}
        for call_id, _, given in first.calls
    ]
    said = ask([*TWO_WEATHERS, {"role": "assistant", "tool_calls": calls}, *results], tools=offered())
    assert (said.text, said.finish) == (TWO_ANSWERS, "stop")


def test_the_sdk_is_given_what_fits_its_schema(ask):
    said = ask(PERSON, response_format={"type": "json_object", "schema": SHAPE})
    assert json.loads(said.text) == {"name": "Alice", "age": 31}


def test_the_sdk_sees_the_thinking_it_asks_for(ask):
    said = ask(SUM, thinking={"type": "enabled"})
    assert "2 + 3 = 5" in said.thinking
    assert said.text == "2 + 3 = 5"
    assert ask(SUM, thinking={"type": "disabled"}).thinking == ""


def test_the_sdks_limits_end_an_answer(ask):
    text = ask(STORY).text
    cut = ask(STORY, max_tokens=7)
    assert (cut.finish, cut.output) == ("length", 7)
    assert text.startswith(cut.text)
    assert ask(STORY, stop_sequences=["river"]).text == text[: text.index("river")]


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"model": "llama9"}, 404),
        ({"messages": [{"role": "cook", "content": "x"}]}, 400),
        ({"messages": [{"role": "user", "content": "word " * 20_000}]}, 400),
    ],
)
def test_the_sdk_is_told_what_is_wrong(client, options, status):
    for call in (client.chat, client.chat_stream):
        with pytest.raises(ApiError) as caught:
            list(call(**{"model": "pico", "messages": CAPITAL, **options}))
        assert caught.value.status_code == status
        assert caught.value.body["message"]


def test_a_wrong_key_is_refused(gateway):
    with sdk(gateway.url, "another-key") as stranger, pytest.raises(ApiError) as caught:
        stranger.chat(model="pico", messages=CAPITAL)
    assert caught.value.status_code == 401


# Our client.


async def test_our_client_runs_its_tools_over_our_server(surface, gateway):
    def get_weather(city: str) -> str:
        """Get the weather in a city."""
        return RESULTS[city]

    client = surface.client("cohere:pico", base_url=f"{gateway.url}/v2", api_key=KEY, tools=[get_weather])
    asked = TWO_WEATHERS[0]["content"]
    answered = await client.ask(asked)
    assert answered.text == TWO_ANSWERS
    assert [message.role for message in answered.messages] == ["assistant", "tool", "assistant"]
    async with client.stream(asked) as stream:
        async for _ in stream:
            pass
    assert stream.response.text == TWO_ANSWERS
    with pytest.raises(NotFoundError, match="llama9"):
        await client.ask("Hi", model="llama9")
