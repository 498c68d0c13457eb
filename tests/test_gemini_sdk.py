"""Google's Python SDK on both ends: it reads the bytes that we read, and talks to our server's half before Pico.

Our own client talks to the same gateway, and to a server that answers to order.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gateway as gateways
import msgspec
import pytest
import uvicorn
from google import genai
from google.genai import errors, types
from llamas import ENDLESS, skip_without_llama, with_context
from pydantic import BaseModel
from servers import Server, chunked, until, whole
from test_gemini import ANSWERS, EXCHANGES, MESSAGES, PIECES, TOOL, answer, candidate, in_pieces, sse, text
from test_sdk_clients import CITY, CONTEXT, KEY, PIXEL, RESULTS, TWO_ANSWERS
from test_sdk_judges import Court, Said

import sabir
from sabir.dialects.gemini import Gemini
from sabir.engines.llama_cpp import LlamaCpp
from sabir.errors import NotFoundError
from sabir.requests import OutputSchema, Request
from sabir.testing.replay import Replayed, replay

skip_without_llama()
# What the SDK does itself: it inherits from aiohttp's session, and wonders at reasons that are new to it.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:DAYDREAM is not a valid FinishReason:UserWarning"),
]

CAPITAL = "What is the capital of France?"
STORY = "Tell me a story."
SUM = "What is 2 + 3?"
PERSON = "Extract JSON: Alice is 31 years old."
TWO_WEATHERS = "What is the weather in Paris and Oslo?"


class Person(BaseModel):
    name: str
    age: int


class Addressed(gateways.Gateway):
    """Finds the model, and whether its answer is to be streamed, in the address.

    Pico's format wants ids in calls and results, which Google's clients leave out: of results always, when the SDK runs
    the tools.
    """

    async def __call__(self, scope, receive, send) -> None:
        app = copy.copy(self)
        headers = [(b"x-api-key" if name == b"x-goog-api-key" else name, value) for name, value in scope["headers"]]
        try:
            app.asked, path = Gemini().decode_path(scope["path"]), "gemini"
        except NotFoundError:
            path = scope["path"]
        await super(Addressed, app).__call__({**scope, "path": path, "headers": headers}, receive, send)

    def _accepted(self, route, request):
        model, stream = self.asked
        messages = tuple(with_ids(request.messages))
        return super()._accepted(route, msgspec.structs.replace(request, model=model, stream=stream, messages=messages))


def with_ids(messages):
    number, waiting = 0, []
    for message in messages:
        parts = []
        for part in message.parts:
            if isinstance(part, sabir.ToolCall):
                part = msgspec.structs.replace(part, id=part.id or f"call_{number}")
                number += 1
                waiting.append(part)
            elif isinstance(part, sabir.ToolResult):
                call = next(call for call in waiting if part.call_id in (call.id, None) and call.name == part.name)
                waiting.remove(call)
                part = msgspec.structs.replace(part, call_id=call.id)
            parts.append(part)
        yield msgspec.structs.replace(message, parts=tuple(parts))


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
        patch.setitem(gateways.ROUTES, "gemini", gateways.Route(Gemini(), "", None, None))
        thread.start()
        assert until(lambda: server.started, 10)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield SimpleNamespace(url=f"http://127.0.0.1:{port}", engine=engine, app=app)
        server.should_exit = True
        thread.join(10)
    engine.close()


# The SDK as judge: text, thinking, calls, tokens and the reason for the end, out of the same bytes.

FINISHES = {"STOP": "stop", "MAX_TOKENS": "length"}
FILTERS = {"SAFETY", "MODEL_ARMOR", "PROHIBITED_CONTENT"}


def parts_of(chunks: list[types.GenerateContentResponse]) -> list[types.Part]:
    contents = [chunk.candidates[0].content for chunk in chunks if chunk.candidates]
    return [part for content in contents if content for part in content.parts or ()]


def theirs(chunks: list[types.GenerateContentResponse]) -> Said:
    """What the SDK read. It says STOP of an answer with calls, and adds neither thoughts nor its own tools' results."""
    parts = parts_of(chunks)
    calls = [(call.id, call.name, call.args or {}) for part in parts if (call := part.function_call)]
    reasons = [chunk.candidates[0].finish_reason for chunk in chunks if chunk.candidates]
    blocks = [chunk.prompt_feedback.block_reason for chunk in chunks if chunk.prompt_feedback]
    last = next((reason.value for reason in reversed([*blocks, *reasons]) if reason), "")
    finish = "content_filter" if last in FILTERS else FINISHES.get(last, "unknown")
    counts = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]

    def most(*names: str) -> int | None:
        told = [next((value for each in reversed(counts) if (value := getattr(each, name))), None) for name in names]
        return sum(count or 0 for count in told) if any(count is not None for count in told) else None

    return Said(
        text="".join(part.text or "" for part in parts if not part.thought),
        thinking="".join(part.text or "" for part in parts if part.thought),
        calls=calls,
        finish="tool_calls" if calls and last in ("STOP", "UNEXPECTED_TOOL_CALL") else finish,
        input=most("prompt_token_count", "tool_use_prompt_token_count"),
        output=most("candidates_token_count", "thoughts_token_count"),
    )


def ours(result: Replayed) -> Said:
    told = result.decoded
    return Said(
        text=told["text"],
        thinking=told["thinking"],
        calls=[(call["id"], call["name"], call["arguments"]) for call in told["tool_calls"]],
        finish=told["finish_reason"],
        input=told["usage"]["input_tokens"],
        output=told["usage"]["output_tokens"],
    )


def exchange(name: str, body: Any, status: int = 200) -> dict[str, Any]:
    response = {"status": status, "content_type": None, "headers": {}, "body": body}
    return {"id": name, "dialect": "gemini", "endpoint": "generateContent", "stream": False, "response": response}


def hand_made() -> Iterator[dict[str, Any]]:
    for name, (body, chunks, *_) in ANSWERS.items():
        yield exchange(f"{name.replace(' ', '-')}-whole", body)
        yield exchange(f"{name.replace(' ', '-')}-stream", sse(*chunks).decode())


def as_events(exchange: dict[str, Any]) -> dict[str, Any]:
    """An answer streamed as an array, as events: the SDK asks for these, and reads nothing else."""
    body = exchange["response"]["body"]
    events = sse(*body).decode() if isinstance(body, list) else body
    return {**exchange, "response": {**exchange["response"], "body": events}}


def is_numbered(exchange: dict[str, Any]) -> bool:
    """Whether words are told by their numbers, which the SDK cannot read ('int' object has no attribute 'upper')."""
    return '"finishReason": 1' in json.dumps(exchange["response"]["body"]).replace('\\"', '"')


def is_in_pieces(exchange: dict[str, Any]) -> bool:
    """Whether a call's arguments come in pieces, which the SDK leaves to its caller to put together."""
    return "partialArgs" in json.dumps(exchange["response"]["body"])


@pytest.fixture(scope="module")
def court() -> Iterator[Court]:
    with Court() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def heard(court: Court, exchange: dict[str, Any]) -> list[types.GenerateContentResponse]:
    court.exchanges[exchange["id"]] = exchange
    options = types.HttpOptions(base_url=f"{court.url}/{exchange['id']}")
    with genai.Client(api_key=KEY, http_options=options) as judge:
        if isinstance(exchange["response"]["body"], str):
            return list(judge.models.generate_content_stream(model="judge", contents="Hello!"))
        return [judge.models.generate_content(model="judge", contents="Hello!")]


ANSWERED = [each for each in EXCHANGES if each["response"]["status"] == 200]
READABLE = [each for each in [*hand_made(), *ANSWERED] if not is_numbered(each) and not is_in_pieces(each)]
REFUSED = [each for each in EXCHANGES if each["response"]["status"] != 200]


@pytest.mark.parametrize("exchange", READABLE, ids=lambda exchange: exchange["id"])
def test_the_sdk_reads_an_answer_as_we_do(court, exchange, no_network):
    result = replay(exchange)
    assert result.verdict == "passed", result.notes
    assert theirs(heard(court, as_events(exchange))) == ours(result)


def test_the_sdk_leaves_pieces_of_calls_apart_and_breaks_at_numbers(court, no_network):
    pieces = parts_of(heard(court, exchange("pieces", in_pieces(*PIECES).decode())))
    assert [part.function_call.name for part in pieces] == ["cook", *[None] * (len(PIECES) - 1)]
    with pytest.raises(AttributeError, match="upper"):
        heard(court, exchange("numbers", answer(candidate(text("1"), finish=1))))


REFUSALS = [
    exchange("unavailable", {"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}, 503),
    exchange("no-key", {"error": {"code": 401, "message": "who?", "status": "UNAUTHENTICATED"}}, 401),
]


@pytest.mark.parametrize("exchange", [*REFUSALS, *REFUSED], ids=lambda exchange: exchange["id"])
def test_the_sdk_finds_the_error_that_we_do(court, exchange, no_network):
    error = replay(exchange).error
    with pytest.raises(errors.APIError) as caught:
        heard(court, exchange)
    assert caught.value.code == error["status"] == exchange["response"]["status"]
    assert isinstance(caught.value, errors.ServerError) == (error["class"] in ("ServerError", "OverloadedError"))
    assert caught.value.message in error["message"]


def test_what_we_send_is_what_the_sdk_knows():
    elsewhere = sabir.ProviderState("anthropic", {"set": {"signature": "x"}})
    asked = sabir.ToolCall(name="look", input='{"at": "here"}', id="toolu_1", state=elsewhere)
    seen = sabir.ToolResult(call_id="toolu_1", name="look", content=(sabir.Text(text="seen"),))
    foreign = (
        sabir.user("Look!"),
        sabir.assistant(sabir.Thinking(text="hm", state=elsewhere), "I look.", asked),
        sabir.Message("tool", (seen,)),
    )
    for messages in [*(tuple(messages) for messages, _ in MESSAGES), foreign]:
        schema = OutputSchema("person", Person.model_json_schema())
        options = {"temperature": 0.5, "top_k": 5, "stop": ("a",), "thinking": "low", "n": 2, "schema": schema}
        request = Request(model="gemini-3.5-flash", messages=messages, tools=(TOOL,), tool_choice="look", **options)
        body = json.loads(Gemini().encode_request(request)[0].body)
        for content in body["contents"]:
            types.Content.model_validate(content)
        for tool in body["tools"]:
            types.Tool.model_validate(tool)
        types.GenerationConfig.model_validate(body["generationConfig"])
        types.ToolConfig.model_validate(body["toolConfig"])
        Gemini().decode_request(json.dumps(body).encode())


# The SDK as client.


class Caller:
    """One of the SDK's two surfaces. What comes from it is waited for, whatever its colour."""

    def __init__(self, is_async: bool) -> None:
        self._is_async = is_async
        self._runner = asyncio.Runner()
        self._clients: list[genai.Client] = []

    def client(self, url, key=KEY):
        made = genai.Client(api_key=key, http_options=types.HttpOptions(base_url=url, timeout=30_000))
        self._clients.append(made)
        return made.aio if self._is_async else made

    def wait(self, value):
        async def awaited():
            return await value

        return self._runner.run(awaited()) if inspect.isawaitable(value) else value

    def items(self, stream):
        async def read():
            return [item async for item in stream]

        stream = self.wait(stream)
        return self._runner.run(read()) if hasattr(stream, "__aiter__") else list(stream)

    def close(self) -> None:
        for client in self._clients:
            self.wait(client.aio.aclose())
            client.close()
        self._runner.close()


@pytest.fixture(params=[False, True], ids=["blocking", "awaitable"])
def caller(request):
    made = Caller(request.param)
    yield made
    made.close()


@pytest.fixture
def ask(caller, gateway):
    """Ask, and wait for the answer."""
    models = caller.client(gateway.url).models

    def asked(contents, model="pico", **config):
        made = types.GenerateContentConfig(**config)
        return caller.wait(models.generate_content(model=model, contents=contents, config=made))

    return asked


@pytest.fixture
def hear(caller, gateway):
    """Ask, and wait for all the pieces of the answer."""
    models = caller.client(gateway.url).models

    def asked(contents, model="pico", **config):
        made = types.GenerateContentConfig(**config)
        return caller.items(models.generate_content_stream(model=model, contents=contents, config=made))

    return asked


def test_the_sdk_is_answered(ask):
    told = ask(CAPITAL)
    assert told.text == "The capital of France is Paris."
    assert (told.candidates[0].finish_reason, told.candidates[0].content.role) == (types.FinishReason.STOP, "model")
    assert told.model_version == "pico"
    assert told.response_id
    counts = told.usage_metadata
    assert (counts.prompt_token_count, counts.candidates_token_count, counts.total_token_count) == (17, 13, 30)


def test_the_sdk_streams_what_it_is_answered(ask, hear):
    told = ask(STORY)
    *pieces, last = hear(STORY)
    assert len(pieces) > 40
    assert "".join(piece.text or "" for piece in (*pieces, last)) == told.text
    assert {(piece.model_version, piece.response_id) for piece in pieces} == {("pico", last.response_id)}
    assert last.candidates[0].finish_reason == types.FinishReason.STOP
    assert last.usage_metadata.candidates_token_count == told.usage_metadata.candidates_token_count


def test_the_sdk_holds_a_conversation(caller, gateway):
    chat = caller.client(gateway.url).chats.create(model="pico", config={"system_instruction": "Be brief."})
    caller.wait(chat.send_message("My name is Alice."))
    assert caller.wait(chat.send_message("What is my name?")).text == "Your name is Alice."
    pieces = caller.items(chat.send_message_stream("And what is the capital of France?"))
    assert "".join(piece.text or "" for piece in pieces) == "The capital of France is Paris."


DECLARED = types.FunctionDeclaration(name="get_weather", description="Get the weather.", parameters_json_schema=CITY)
IN_ITS_WORDS = types.FunctionDeclaration(
    name="get_weather",
    description="Get the weather.",
    parameters=types.Schema(type="OBJECT", properties={"city": types.Schema(type="STRING")}, required=["city"]),
)


@pytest.mark.parametrize("has_ids", [False, True])
@pytest.mark.parametrize("declared", [DECLARED, IN_ITS_WORDS], ids=["JSON Schema", "its own schema"])
def test_the_sdks_tools_are_called_and_their_results_read(ask, hear, declared, has_ids):
    tools = [types.Tool(function_declarations=[declared])]
    first = ask(TWO_WEATHERS, tools=tools)
    assert [call.args for call in first.function_calls] == [{"city": "Paris"}, {"city": "Oslo"}]
    assert [part.function_call for part in parts_of(hear(TWO_WEATHERS, tools=tools)) if part.function_call]
    content = first.candidates[0].content
    results = []
    for call in first.function_calls:
        result = types.FunctionResponse(name=call.name, response={"output": RESULTS[call.args["city"]]})
        result.id = call.id if has_ids else None
        results.append(types.Part(function_response=result))
        call.id = result.id
    history = [types.UserContent(TWO_WEATHERS), content, types.UserContent(results)]
    assert ask(history, tools=tools).text == TWO_ANSWERS
    assert "".join(piece.text or "" for piece in hear(history, tools=tools)) == TWO_ANSWERS


def test_the_sdk_runs_its_tools_itself(ask):
    asked = []

    def get_weather(city: str) -> str:
        """Get the weather in a city."""
        asked.append(city)
        return RESULTS[city]

    told = ask(TWO_WEATHERS, tools=[get_weather])
    assert sorted(asked) == ["Oslo", "Paris"]
    assert "sunny, 21C" in told.text
    assert len(told.automatic_function_calling_history) == 3


@pytest.mark.parametrize(
    ("mode", "calls"),
    [("NONE", []), ("AUTO", ["get_weather"] * 2), ("ANY", ["get_weather"] * 2)],
)
def test_the_sdks_choice_of_tools_is_obeyed(ask, mode, calls):
    choosing = types.ToolConfig(function_calling_config=types.FunctionCallingConfig(mode=mode))
    told = ask(TWO_WEATHERS, tools=[types.Tool(function_declarations=[DECLARED])], tool_config=choosing)
    assert [call.name for call in told.function_calls or ()] == calls


def test_the_sdk_is_given_what_fits_its_schema(ask):
    as_json = {"response_mime_type": "application/json"}
    assert ask(PERSON, response_schema=Person, **as_json).parsed == Person(name="Alice", age=31)
    told = ask(PERSON, response_json_schema=Person.model_json_schema(), **as_json)
    assert json.loads(told.text) == {"name": "Alice", "age": 31}


def test_the_sdk_sees_the_thinking_it_asks_for(ask, hear):
    wish = {"thinking_config": types.ThinkingConfig(include_thoughts=True, thinking_budget=500)}
    told = parts_of([ask(SUM, **wish)])
    assert [part.thought for part in told] == [True, None]
    assert "2 + 3 = 5" in told[0].text
    pieces = parts_of(hear(SUM, **wish))
    for is_thought in (True, None):
        streamed = "".join(part.text for part in pieces if part.thought is is_thought)
        assert streamed == "".join(part.text for part in told if part.thought is is_thought)
    for quiet in ({}, {"thinking_config": types.ThinkingConfig(thinking_budget=0)}):
        assert [part.thought for part in parts_of([ask(SUM, **quiet)])] == [None]


def test_the_sdks_limits_end_an_answer(ask):
    story = ask(STORY).text
    cut = ask(STORY, max_output_tokens=7)
    assert (cut.candidates[0].finish_reason, cut.usage_metadata.candidates_token_count) == ("MAX_TOKENS", 7)
    assert story.startswith(cut.text)
    stopped = ask(STORY, stop_sequences=["river", "never said"])
    assert (stopped.text, stopped.candidates[0].finish_reason) == (story[: story.index("river")], "STOP")


PICTURE = types.Part(inline_data=types.Blob(data=PIXEL.encode(), mime_type="image/png"))


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize(
    ("contents", "asked", "status", "reason"),
    [
        (CAPITAL, {"model": "gemini-9"}, "NOT_FOUND", "gemini-9"),
        (types.Content(role="cook", parts=[types.Part(text="x")]), {}, "INVALID_ARGUMENT", r"contents\[0\].role"),
        (types.Content(role="user", parts=[types.Part()]), {}, "INVALID_ARGUMENT", r"contents\[0\].parts\[0\]"),
        (
            CAPITAL,
            {"tools": [types.Tool(function_declarations=[types.FunctionDeclaration(description="x")])]},
            "INVALID_ARGUMENT",
            r"tools\[0\].functionDeclarations\[0\].name",
        ),
        ("hello " * 6000, {}, "INVALID_ARGUMENT", r"18\d\d\d tokens.*16384 tokens"),
        ([PICTURE], {}, "INVALID_ARGUMENT", "image input is not supported"),
    ],
    ids=["model", "role", "part", "tool", "too long", "image"],
)
def test_the_sdk_is_refused_in_its_own_words(ask, hear, is_streamed, contents, asked, status, reason):
    with pytest.raises(errors.ClientError, match=reason) as caught:
        (hear if is_streamed else ask)(contents, **asked)
    assert caught.value.status == status
    assert caught.value.code == (404 if status == "NOT_FOUND" else 400)


def test_the_sdks_wrong_key_is_refused(caller, gateway):
    models = caller.client(gateway.url, "wrong").models
    with pytest.raises(errors.ClientError) as caught:
        caller.wait(models.generate_content(model="pico", contents=CAPITAL))
    assert (caught.value.code, caught.value.status) == (401, "UNAUTHENTICATED")
    assert "wrong" not in str(caught.value)


def test_the_sdk_is_told_of_an_error_within_a_stream(hear, gateway, monkeypatch):
    monkeypatch.setattr(gateway.app, "timeout", 0.3)
    with pytest.raises(errors.ServerError, match="deadline") as caught:
        hear(CAPITAL, "endless", max_output_tokens=50_000)
    assert caught.value.status == "DEADLINE_EXCEEDED"
    assert until(lambda: gateway.engine.running == 0, 1)


# Our own client.


async def test_our_client_is_answered_by_our_server(surface, gateway):
    client = surface.client("gemini:pico", base_url=gateway.url, api_key=KEY)
    answered = await client.ask(CAPITAL)
    assert (answered.text, answered.finish_reason, answered.model) == (
        "The capital of France is Paris.",
        "stop",
        "pico",
    )
    assert (answered.usage.input_tokens, answered.usage.output_tokens, answered.warnings) == (17, 13, ())
    async with client.stream(CAPITAL, include=["generating"]) as stream:
        assert "".join([chunk.content async for chunk in stream]) == answered.text
    assert stream.response.message.parts == answered.message.parts
    thoughtful = await client.ask(SUM, thinking=True)
    assert "2 + 3 = 5" in thoughtful.thinking
    with pytest.raises(sabir.NotFoundError, match="gemini-9"):
        await client.ask("?", model="gemini-9")
    with pytest.raises(sabir.ContextOverflowError) as caught:
        await client.ask("hello " * 6000)
    assert (caught.value.status, caught.value.context_length) == (400, 16384)
    stranger = surface.client("google:pico", base_url=gateway.url, api_key="somebody-else")
    with pytest.raises(sabir.AuthenticationError):
        await stranger.ask(CAPITAL)


async def test_our_client_runs_its_tools_over_our_server(surface, gateway):
    def get_weather(city: str) -> str:
        """Get the weather in a city."""
        return RESULTS[city]

    client = surface.client("gemini:pico", base_url=gateway.url, api_key=KEY, tools=[get_weather])
    answered = await client.ask(TWO_WEATHERS)
    assert answered.text == TWO_ANSWERS
    assert [message.role for message in answered.messages] == ["assistant", "tool", "assistant"]
    async with client.stream(TWO_WEATHERS) as stream:
        async for _ in stream:
            pass
    assert stream.response.text == TWO_ANSWERS


async def test_our_client_is_given_what_fits_its_schema(surface, gateway):
    client = surface.client("gemini:pico", base_url=gateway.url, api_key=KEY)
    assert (await client.ask(PERSON, schema=Person)).parsed == Person(name="Alice", age=31)


def served(*pieces: bytes, kind: str = "text/event-stream"):
    async def speak(call):
        call.head(f"Content-Type: {kind}", "Transfer-Encoding: chunked")
        for each in pieces:
            call.chunk(each)
        call.chunk(b"")

    return speak


SIGNED_CALL = {"functionCall": {"name": "look", "args": {"at": "here"}}, "thoughtSignature": "c2ln+/=="}
SECOND_CALL = {"functionCall": {"name": "look", "args": {"at": "there"}}}
SIGNED_END = {"text": "", "thoughtSignature": "ZW5k"}


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
async def test_what_is_signed_goes_back_byte_for_byte_and_calls_without_ids_without(surface, is_streamed, kind):
    def look(at: str) -> str:
        """Look around."""
        return f"seen {at}"

    first = [
        answer(candidate({"text": "hm", "thought": True}), modelVersion="gemini-3.5-flash"),
        answer(candidate(SIGNED_CALL, SECOND_CALL), modelVersion="gemini-3.5-flash"),
        answer(candidate(SIGNED_END, finish="STOP"), modelVersion="gemini-3.5-flash"),
    ]
    last = [answer(candidate(text("Nothing."), finish="STOP"))]

    def told(chunks):
        if kind == "application/json":
            return served(json.dumps(chunks, indent=1).encode(), kind=kind)
        return served(sse(*chunks))

    with Server(told(first)) as server:

        async def answer_call(call):
            await told(first if len(server.calls) == 1 else last)(call)

        server.answer = answer_call
        client = surface.client(
            "gemini:gemini-3.5-flash", base_url=f"http://127.0.0.1:{server.port}/v1beta", api_key=KEY, tools=[look]
        )
        if is_streamed:
            async with client.stream("Look!") as stream:
                async for _ in stream:
                    pass
            response = stream.response
        else:
            response = await client.ask("Look!")
        assert (response.text, response.warnings) == ("Nothing.", ())
        asked = json.loads(server.calls[1].body)
    method = "streamGenerateContent?alt=sse" if is_streamed else "generateContent"
    assert [call.target for call in server.calls] == [f"/v1beta/models/gemini-3.5-flash:{method}"] * 2
    assert server.calls[0].header("x-goog-api-key") == KEY
    assert server.calls[0].header("authorization") is None
    results = [{"functionResponse": {"name": "look", "response": {"output": f"seen {at}"}}} for at in ("here", "there")]
    assert asked["contents"] == [
        {"role": "user", "parts": [{"text": "Look!"}]},
        {"role": "model", "parts": [{"text": "hm", "thought": True}, SIGNED_CALL, SECOND_CALL, SIGNED_END]},
        {"role": "user", "parts": results},
    ]


@pytest.mark.parametrize(
    ("pieces", "kind", "partial"),
    [
        ([sse(answer(candidate(text("a"))))], sabir.StreamInterrupted, "a"),
        (
            [sse(answer(candidate(text("a")))), sse({"error": {"code": 503, "message": "x", "status": "UNAVAILABLE"}})],
            sabir.OverloadedError,
            "a",
        ),
        (
            [sse(answer(candidate(text("a"))), answer(candidate(finish="MALFORMED_FUNCTION_CALL")))],
            sabir.ServerError,
            "a",
        ),
        ([sse({"error": {"code": 429, "message": "x", "status": "RESOURCE_EXHAUSTED"}})], sabir.RateLimitError, ""),
    ],
)
async def test_a_stream_that_fails_tells_what_had_come(surface, pieces, kind, partial):
    with Server(served(*pieces)) as server:
        client = surface.client("gemini:m", base_url=server.url, api_key=KEY, max_attempts=1)
        with pytest.raises(kind) as caught:  # noqa: PT012 - a stream is read to its end
            async with client.stream("?") as stream:
                async for _ in stream:
                    pass
    assert caught.value.partial.text == partial


async def test_a_limit_is_waited_for_as_long_as_it_says(surface):
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.2s"}
    limit = {"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED", "details": [retry]}}
    good = whole(json.dumps(answer(candidate(text("ok"), finish="STOP"))).encode())
    with Server(chunked()) as server:

        async def answer_call(call):
            if len(server.calls) > 1:
                return await good(call)
            body = json.dumps(limit).encode()
            call.head("Content-Type: application/json", f"Content-Length: {len(body)}", status="429 Too Many Requests")
            call.write(body)

        server.answer = answer_call
        client = surface.client("gemini:m", base_url=server.url, api_key=KEY)
        answered = await client.ask("?")
    assert answered.text == "ok"
    first, second = answered.attempts
    assert (first.status, second.waited >= 0.2) == (429, True)


def test_a_call_is_explained_without_its_key():
    with sabir.Client("google:gemini-2.5-flash", api_key=KEY, temperature=0.5) as client:
        told = client.explain("Hello", thinking="low")
    assert told.url == "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent"
    assert told.headers["x-goog-api-key"] == "…"
    assert told.body["generationConfig"]["thinkingConfig"] == {"includeThoughts": True, "thinkingBudget": 1024}
    assert [(notice.kind, notice.subject) for notice in told.notices] == [("emulated", "thinking")]
