"""AWS's Python SDK on both ends: it reads the bytes that we read, and talks to our server's half before Pico.

Our own client talks to the same gateway.
"""

from __future__ import annotations

import copy
import json
import threading
from base64 import b64decode
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import boto3
import gateway as gateways
import msgspec
import pytest
import uvicorn
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError
from botocore.parsers import ResponseParserError
from botocore.validate import ParamValidator
from llamas import ENDLESS, skip_without_llama, with_context
from servers import Server, until, whole
from test_bedrock import (
    ANSWERS,
    COUNTS,
    ERRORS,
    EXCHANGES,
    NAME,
    PARTS,
    TOOL,
    answer,
    decoded,
    delta,
    encode_message,
    event,
)
from test_sdk_clients import CITY, CONTEXT, KEY, PIXEL, RESULTS, TWO_ANSWERS
from test_sdk_judges import Said

import sabir
from sabir.dialects import response_of
from sabir.dialects.bedrock import Bedrock
from sabir.engines.llama_cpp import LlamaCpp
from sabir.errors import NotFoundError
from sabir.requests import OutputSchema, Request

skip_without_llama()

STREAM = "application/vnd.amazon.eventstream"
CAPITAL = "What is the capital of France?"
STORY = "Tell me a story."
SUM = "What is 2 + 3?"
PERSON = "Extract JSON: Alice is 31 years old."
TWO_WEATHERS = "What is the weather in Paris and Oslo?"
SHAPE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


class Addressed(gateways.Gateway):
    """Finds the model, and whether its answer is to be streamed, in the address; knows one id that signs.

    The SDK sends a bearer token over TLS only. Whether signatures are right is for tests/test_signing.py.
    """

    async def __call__(self, scope, receive, send) -> None:
        app = copy.copy(self)
        proof = dict(scope["headers"]).get(b"authorization", b"")
        if b"Credential=AKID/" in proof:
            scope = {**scope, "headers": [*scope["headers"], (b"x-api-key", KEY.encode())]}
        try:
            app.asked, path = Bedrock().decode_path(scope["raw_path"].decode()), "bedrock"
        except NotFoundError:
            path = scope["path"]
        await super(Addressed, app).__call__({**scope, "path": path}, receive, send)

    def _accepted(self, route, request):
        model, stream = self.asked
        return super()._accepted(route, msgspec.structs.replace(request, model=model, stream=stream))


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    engine = LlamaCpp(with_context(tmp_path_factory.mktemp("gateway"), CONTEXT), gateways.PICO.dialect, name="pico")
    app = Addressed(engine, KEY, {"pico": {}, "endless": ENDLESS})
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", ws="none", log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(gateways.ROUTES, "bedrock", gateways.Route(Bedrock(), "", None, None))
        thread.start()
        assert until(lambda: server.started, 10)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield SimpleNamespace(url=f"http://127.0.0.1:{port}", engine=engine, app=app)
        server.should_exit = True
        thread.join(10)
    engine.close()


@contextmanager
def sdk(url, key_id="AKID"):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "127.0.0.1")
        made = boto3.Session().client(
            "bedrock-runtime",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id=key_id,
            aws_secret_access_key="made-up",
            config=Config(retries={"total_max_attempts": 1}, read_timeout=30),
        )
        yield made
        made.close()


# The SDK as judge: text, thinking, calls, tokens and the reason for the end, out of the same bytes.


@pytest.fixture(scope="module")
def court():
    with Server(whole()) as server, sdk(server.url) as client:
        yield SimpleNamespace(server=server, client=client)


FINISHES = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
}


def heard(court, data, kind, status="200 OK", headers=()):
    court.server.answer = whole(data, f"content-type: {kind}", *headers, status=status)
    ask: dict[str, Any] = {"modelId": "judge", "messages": [{"role": "user", "content": [{"text": "Hello!"}]}]}
    if kind != STREAM:
        return court.client.converse(**ask)
    return list(court.client.converse_stream(**ask)["stream"])


def theirs_whole(told):
    content = told["output"]["message"]["content"]
    cited = [each for block in content for each in block.get("citationsContent", {}).get("content", [])]
    texts = [
        each["text"]
        for block in content
        for each in (block, *block.get("citationsContent", {}).get("content", []))
        if "text" in each
    ]
    assert len(texts) >= len(cited)
    thoughts = [block["reasoningContent"].get("reasoningText", {}) for block in content if "reasoningContent" in block]
    calls = [block["toolUse"] for block in content if "toolUse" in block]
    return Said(
        text="".join(texts),
        thinking="".join(thought.get("text", "") for thought in thoughts),
        calls=[
            (call["toolUseId"], call["name"], call["input"]) for call in calls if call.get("type") != "server_tool_use"
        ],
        finish=FINISHES.get(told["stopReason"], "unknown"),
        **counts(told.get("usage")),
    )


def theirs_streamed(events):
    said, calls, last = Said(calls=[]), {}, {}
    for each in events:
        ((name, told),) = each.items()
        last[name] = told
        index = told.get("contentBlockIndex")
        if name == "contentBlockStart" and "toolUse" in told["start"]:
            calls[index] = [told["start"]["toolUse"], ""]
        if name == "contentBlockDelta":
            said.text += told["delta"].get("text", "")
            said.thinking += told["delta"].get("reasoningContent", {}).get("text", "")
            if "toolUse" in told["delta"]:
                calls[index][1] += told["delta"]["toolUse"]["input"]
    said.calls = [
        (call["toolUseId"], call["name"], json.loads(text or "{}"))
        for call, text in calls.values()
        if call.get("type") != "server_tool_use"
    ]
    said.finish = FINISHES.get(last["messageStop"]["stopReason"], "unknown")
    for name, count in counts(last["metadata"].get("usage")).items():
        setattr(said, name, count)
    return said


def counts(usage):
    if usage is None:
        return {}
    names = ("inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
    return {"input": sum(usage.get(name, 0) for name in names), "output": usage["outputTokens"]}


def ours(deltas):
    response = response_of(NAME, deltas)
    return Said(
        text=response.text,
        thinking=response.thinking,
        calls=[(call.id, call.name, call.arguments) for call in response.tool_calls],
        finish=response.finish_reason,
        input=response.usage.input_tokens,
        output=response.usage.output_tokens,
    )


def recorded(is_streamed):
    for exchange in EXCHANGES:
        body = exchange["response"]["body"]
        if exchange["response"]["status"] == 200 and isinstance(body, str) == is_streamed:
            yield exchange["id"], b64decode(body) if is_streamed else json.dumps(body).encode()


def is_readable(data):
    """Whether blocks have one field, as the SDK wants it; some have a `type` beside it."""
    return b'"type": "text"' not in data


WHOLE = [*((name, json.dumps(body).encode()) for name, (body, _) in ANSWERS.items()), *recorded(False)]
STREAMS = [*((name, data) for name, (_, data) in ANSWERS.items()), *recorded(True)]


@pytest.mark.parametrize(("name", "data"), WHOLE, ids=[name for name, _ in WHOLE])
def test_the_sdk_reads_an_answer_as_we_do(court, name, data, no_network):
    if not is_readable(data):
        with pytest.raises(ResponseParserError, match="one and only one member"):
            heard(court, data, "application/json")
        return
    assert theirs_whole(heard(court, data, "application/json")) == ours(Bedrock().decode_answer(data))


@pytest.mark.parametrize(("name", "data"), STREAMS, ids=[name for name, _ in STREAMS])
def test_the_sdk_reads_a_stream_as_we_do(court, name, data, no_network):
    deltas, error = decoded(data)
    assert error is None
    if not is_readable(data):
        with pytest.raises(ResponseParserError, match="one and only one member"):
            heard(court, data, STREAM)
        return
    assert theirs_streamed(heard(court, data, STREAM)) == ours(deltas)


@pytest.mark.parametrize(
    "name", [name for name, (body, _) in ANSWERS.items() if is_readable(json.dumps(body).encode())]
)
def test_the_sdk_reads_what_our_servers_half_says(court, name, no_network):
    deltas = Bedrock().decode_answer(json.dumps(ANSWERS[name][0]).encode())
    encoder = Bedrock().encoder()
    stream = b"".join([*map(encoder.feed, deltas), encoder.close()])
    assert theirs_streamed(heard(court, stream, STREAM)) == ours(deltas)
    response = Bedrock().encode_response(response_of(NAME, deltas))
    assert theirs_whole(heard(court, response, "application/json")) == ours(deltas)


@pytest.mark.parametrize(("status", "kind", "body", "error", "retryable"), ERRORS)
def test_the_sdk_finds_the_error_that_we_do(court, status, kind, body, error, retryable, no_network):
    data = json.dumps(body).encode()
    found = Bedrock().decode_error(status, {"x-amzn-errortype": kind}, data)
    for told, headers in ((data, [f"x-amzn-errortype: {kind}:http://x/"]), (Bedrock().encode_error(found)[1], [])):
        with pytest.raises(ClientError) as caught:
            heard(court, told, "application/json", f"{status} Oh", headers)
        assert caught.value.response["Error"]["Code"] == found.code == kind
        assert caught.value.response["Error"]["Message"] in found.message


@pytest.mark.parametrize("name", ["throttlingException", "modelStreamErrorException", "validationException"])
def test_the_sdk_finds_an_error_in_a_stream_where_we_do(court, name, no_network):
    told = encode_message({":message-type": "exception", ":exception-type": name}, b'{"message": "no more"}')
    begun = event("messageStart", role="assistant") + delta(0, text="a")
    _, error = decoded(begun + told)
    for last in (told, Bedrock().encoder().fail(error)):
        with pytest.raises(EventStreamError, match="no more") as caught:
            heard(court, begun + last, STREAM)
        assert caught.value.response["Error"]["Code"] == name


def test_what_we_send_is_what_the_sdk_knows(court):
    model = court.client.meta.service_model.operation_model("Converse").input_shape
    options: dict[str, Any] = {
        "temperature": 0.5,
        "stop": ("a",),
        "thinking": "low",
        "schema": OutputSchema("p", SHAPE),
    }
    for message, _ in PARTS:
        asked = (sabir.system("Be brief."), message)
        request = Request(
            model="us.anthropic.claude-sonnet-4-5", messages=asked, tools=(TOOL,), tool_choice="look", **options
        )
        body = json.loads(Bedrock().encode_request(request)[0].body)
        report = ParamValidator().validate({**in_bytes(body), "modelId": "m"}, model)
        assert not report.has_errors(), report.generate_report()


def in_bytes(value):
    """A body as the SDK is given it, whose blobs are bytes."""
    if isinstance(value, list):
        return [in_bytes(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: b64decode(item) if name in ("bytes", "redactedContent") else in_bytes(item)
        for name, item in value.items()
    }


# The SDK as client.


@pytest.fixture(scope="module")
def client(gateway):
    with sdk(gateway.url) as made:
        yield made


@pytest.fixture(params=["whole", "stream"])
def ask(request, client):
    """Ask for a whole answer, or for a stream that is put together; returns its content, end and usage."""

    def whole_answer(said, **options):
        told = client.converse(modelId="pico", messages=said, **options)
        return told["output"]["message"]["content"], told["stopReason"], told["usage"]

    def streamed_answer(said, **options):
        told = list(client.converse_stream(modelId="pico", messages=said, **options)["stream"])
        assert [next(iter(each)) for each in (told[0], *told[-2:])] == ["messageStart", "messageStop", "metadata"]
        blocks: dict[int, dict[str, Any]] = {}
        for each in told:
            if "contentBlockStart" in each:
                begun = each["contentBlockStart"]
                blocks[begun["contentBlockIndex"]] = {"toolUse": {**begun["start"]["toolUse"], "input": ""}}
            if "contentBlockDelta" in each:
                add(blocks, **each["contentBlockDelta"])
        for block in blocks.values():
            if "toolUse" in block:
                block["toolUse"]["input"] = json.loads(block["toolUse"]["input"])
        return [*blocks.values()], told[-2]["messageStop"]["stopReason"], told[-1]["metadata"]["usage"]

    def add(blocks, contentBlockIndex, delta):
        if "text" in delta:
            block = blocks.setdefault(contentBlockIndex, {"text": ""})
            block["text"] += delta["text"]
        elif "reasoningContent" in delta:
            block = blocks.setdefault(contentBlockIndex, {"reasoningContent": {"reasoningText": {"text": ""}}})
            block["reasoningContent"]["reasoningText"]["text"] += delta["reasoningContent"]["text"]
        else:
            blocks[contentBlockIndex]["toolUse"]["input"] += delta["toolUse"]["input"]

    return whole_answer if request.param == "whole" else streamed_answer


def says(text, role="user"):
    return {"role": role, "content": [{"text": text}]}


def text_of(content):
    return "".join(block.get("text", "") for block in content)


def offered(**choice):
    spec = {"name": "get_weather", "description": "Get the weather.", "inputSchema": {"json": CITY}}
    return {"tools": [{"toolSpec": spec}], **choice}


def test_the_sdk_is_answered(ask):
    content, reason, usage = ask([says(CAPITAL)])
    assert (content, reason) == ([{"text": "The capital of France is Paris."}], "end_turn")
    assert (counts(usage), usage["totalTokens"]) == ({"input": 17, "output": 13}, 30)


def test_the_sdk_holds_a_conversation(ask):
    said = []
    for words in ("My name is Alice.", "What is my name?"):
        said.append(says(words))
        content, _, _ = ask(said, system=[{"text": "Be brief."}])
        said.append({"role": "assistant", "content": content})
    assert text_of(said[-1]["content"]) == "Your name is Alice."


def test_the_sdks_tools_are_called_and_their_results_read(ask):
    content, reason, _ = ask([says(TWO_WEATHERS)], toolConfig=offered())
    calls = [block["toolUse"] for block in content if "toolUse" in block]
    assert ([call["input"] for call in calls], reason) == ([{"city": "Paris"}, {"city": "Oslo"}], "tool_use")
    results = [
        {"toolResult": {"toolUseId": call["toolUseId"], "content": [{"text": RESULTS[call["input"]["city"]]}]}}
        for call in calls
    ]
    history = [says(TWO_WEATHERS), {"role": "assistant", "content": content}, {"role": "user", "content": results}]
    content, reason, _ = ask(history, toolConfig=offered())
    assert (text_of(content), reason) == (TWO_ANSWERS, "end_turn")


def test_the_sdk_can_force_a_tool(ask):
    content, _, _ = ask([says(TWO_WEATHERS)], toolConfig=offered(toolChoice={"any": {}}))
    assert [block["toolUse"]["name"] for block in content if "toolUse" in block] == ["get_weather"] * 2


def test_the_sdk_is_given_what_fits_its_schema(ask):
    definition = {"jsonSchema": {"name": "person", "schema": json.dumps(SHAPE)}}
    shape = {"textFormat": {"type": "json_schema", "structure": definition}}
    content, _, _ = ask([says(PERSON)], outputConfig=shape)
    assert json.loads(text_of(content)) == {"name": "Alice", "age": 31}


def test_the_sdk_sees_the_thinking_it_asks_for(ask):
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 2048}}
    content, _, _ = ask([says(SUM)], additionalModelRequestFields=thinking)
    assert "2 + 3 = 5" in content[0]["reasoningContent"]["reasoningText"]["text"]
    assert text_of(content) == "2 + 3 = 5"


def test_the_sdks_limits_end_an_answer(ask):
    text = text_of(ask([says(STORY)])[0])
    content, reason, usage = ask([says(STORY)], inferenceConfig={"maxTokens": 7})
    assert (reason, usage["outputTokens"]) == ("max_tokens", 7)
    assert text.startswith(text_of(content))
    content, reason, _ = ask([says(STORY)], inferenceConfig={"stopSequences": ["river"]})
    assert text_of(content) == text[: text.index("river")]


@pytest.mark.parametrize("operation", ["converse", "converse_stream"])
@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        ({"modelId": "llama9"}, "ResourceNotFoundException", "llama9"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"image": {"format": "png", "source": {"bytes": b64decode(PIXEL)}}}]}
                ]
            },
            None,
            "(?i)image",
        ),
        ({"messages": [says("word " * 20_000)]}, "ValidationException", "context"),
    ],
)
def test_the_sdk_is_told_what_is_wrong(client, operation, options, code, reason):
    with pytest.raises(ClientError, match=reason) as caught:
        list(getattr(client, operation)(**{"modelId": "pico", "messages": [says("Hi")], **options}).get("stream", ()))
    assert caught.value.response["Error"]["Code"] == (code or caught.value.response["Error"]["Code"])


def test_a_wrong_key_is_refused(gateway):
    with sdk(gateway.url, "STRANGER") as stranger, pytest.raises(ClientError) as caught:
        stranger.converse(modelId="pico", messages=[says("Hi")])
    assert caught.value.response["Error"]["Code"] == "UnrecognizedClientException"


# Our client.


async def test_our_client_runs_its_tools_over_our_server(surface, gateway):
    def get_weather(city: str) -> str:
        """Get the weather in a city."""
        return RESULTS[city]

    client = surface.client("bedrock:pico", base_url=gateway.url, api_key=KEY, tools=[get_weather])
    answered = await client.ask(TWO_WEATHERS)
    assert answered.text == TWO_ANSWERS
    assert [message.role for message in answered.messages] == ["assistant", "tool", "assistant"]
    async with client.stream(TWO_WEATHERS) as stream:
        async for _ in stream:
            pass
    assert stream.response.text == TWO_ANSWERS
    with pytest.raises(NotFoundError, match="llama9"):
        await client.ask("Hi", model="llama9")


def test_counts_of_an_answer_are_the_sdks():
    deltas = Bedrock().decode_answer(json.dumps(answer({"text": "a"}, usage=COUNTS)).encode())
    assert ours(deltas).input == counts(COUNTS)["input"]
