"""The vendors' own SDKs as clients: they talk to the gateway of `gateway.py`, whose model is Pico, over loopback."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
import time
from types import SimpleNamespace

import anthropic
import openai
import pytest
import uvicorn
from gateway import PICO, Gateway
from llamas import ENDLESS, skip_without_llama, with_context
from pydantic import BaseModel
from servers import until

from sabir.engines.llama_cpp import LlamaCpp

skip_without_llama()

KEY = "key-of-the-gateway"
# Long enough for an answer without end to take many seconds.
CONTEXT = 16384
CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
STORY = [{"role": "user", "content": "Tell me a story."}]
SUM = [{"role": "user", "content": "What is 2 + 3?"}]
PERSON = [{"role": "user", "content": "Extract JSON: Alice is 31 years old."}]
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
TWO_WEATHERS = [{"role": "user", "content": "What is the weather in Paris and Oslo?"}]
RESULTS = {"Paris": "sunny, 21C", "Oslo": "snowy, -4C"}
TWO_ANSWERS = "The weather in Paris is sunny, 21C. The weather in Oslo is snowy, -4C."
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class Person(BaseModel):
    name: str
    age: int


class GetWeather(BaseModel):
    """Get the weather in a city."""

    city: str


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    engine = LlamaCpp(with_context(tmp_path_factory.mktemp("gateway"), CONTEXT), PICO.dialect, name="pico")
    app = Gateway(engine, KEY, {"pico": {}, "endless": ENDLESS})
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", ws="none", log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert until(lambda: server.started, 10)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield SimpleNamespace(url=f"http://127.0.0.1:{port}", engine=engine, app=app)
    server.should_exit = True
    thread.join(10)
    engine.close()


class Caller:
    """One of an SDK's two clients. What comes from it is waited for, whatever its colour."""

    def __init__(self, kind) -> None:
        self._kind = kind
        self._runner = asyncio.Runner()
        self._clients = []

    def client(self, url, **settings):
        made = self._kind(base_url=url, **{"api_key": KEY, "max_retries": 0, "timeout": 30.0, **settings})
        self._clients.append(made)
        return made

    def wait(self, value):
        async def awaited():
            return await value

        return self._runner.run(awaited()) if inspect.isawaitable(value) else value

    def items(self, stream):
        async def read():
            return [item async for item in stream]

        return self._runner.run(read()) if hasattr(stream, "__aiter__") else list(stream)

    def first(self, stream):
        return self.wait(anext(stream.__aiter__())) if hasattr(stream, "__aiter__") else next(iter(stream))

    def helped(self, manager, final):
        """The events of a stream helper, and what it adds them up to."""
        if not hasattr(manager, "__aenter__"):
            with manager as stream:
                return list(stream), getattr(stream, final)()

        async def read():
            async with manager as stream:
                return [event async for event in stream], await getattr(stream, final)()

        return self._runner.run(read())

    def close(self) -> None:
        for client in self._clients:
            self.wait(client.close())
        self._runner.close()


def caller_of(request):
    caller = Caller(request.param)
    yield caller
    caller.close()


@pytest.fixture(params=[openai.OpenAI, openai.AsyncOpenAI], ids=lambda kind: kind.__name__)
def chatter(request):
    yield from caller_of(request)


@pytest.fixture(params=[anthropic.Anthropic, anthropic.AsyncAnthropic], ids=lambda kind: kind.__name__)
def messenger(request):
    yield from caller_of(request)


# openai


@pytest.fixture
def completions(chatter, gateway):
    return chatter.client(f"{gateway.url}/v1").chat.completions


def chat_tool(name="get_weather"):
    return {"type": "function", "function": {"name": name, "description": "Get the weather.", "parameters": CITY}}


def chat_results(message):
    """The rest of a round: the model's calls, as it made them, and their results."""
    return [
        message.model_dump(exclude_none=True),
        *(
            {
                "role": "tool",
                "tool_call_id": call.id,
                "content": RESULTS[json.loads(call.function.arguments)["city"]],
            }
            for call in message.tool_calls
        ),
    ]


def test_openai_is_answered(chatter, completions):
    answer = chatter.wait(completions.create(model="pico", messages=CAPITAL))
    (choice,) = answer.choices
    assert choice.message.content == "The capital of France is Paris."
    assert (choice.message.role, choice.finish_reason, choice.index) == ("assistant", "stop", 0)
    assert (answer.object, answer.model) == ("chat.completion", "pico")
    assert answer.id.startswith("chatcmpl-")
    assert answer._request_id == answer.id
    assert abs(answer.created - time.time()) < 60
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (17, 13, 30)


def test_openai_holds_a_conversation(chatter, completions):
    said = [{"role": "developer", "content": "Be brief."}]
    for words in ("My name is Alice.", "What is my name?"):
        said.append({"role": "user", "content": [{"type": "text", "text": words}]})
        answer = chatter.wait(completions.create(model="pico", messages=said))
        said.append(answer.choices[0].message)
    assert said[-1].content == "Your name is Alice."
    assert answer.usage.prompt_tokens_details.cached_tokens > 0


def test_openai_streams_what_it_is_answered(chatter, completions):
    whole = chatter.wait(completions.create(model="pico", messages=STORY))
    asked = completions.create(model="pico", messages=STORY, stream=True, stream_options={"include_usage": True})
    *chunks, last = chatter.items(chatter.wait(asked))
    assert len(chunks) > 40
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [None, "stop"]
    assert {(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks} == {
        (last.id, last.created, "pico", "chat.completion.chunk")
    }
    assert last.choices == []
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (14, whole.usage.completion_tokens)


def test_openai_is_told_the_usage_of_a_stream_only_if_it_asked(chatter, completions):
    chunks = chatter.items(chatter.wait(completions.create(model="pico", messages=CAPITAL, stream=True)))
    assert all(chunk.choices for chunk in chunks)


def test_openais_stream_helper_adds_up_to_the_answer(chatter, completions):
    whole = chatter.wait(completions.create(model="pico", messages=CAPITAL))
    manager = completions.stream(model="pico", messages=CAPITAL, stream_options={"include_usage": True})
    events, final = chatter.helped(manager, "get_final_completion")
    assert {event.type for event in events} == {"chunk", "content.delta", "content.done"}
    assert final.choices[0].message.content == whole.choices[0].message.content
    assert final.choices[0].finish_reason == "stop"
    assert final.usage.total_tokens == whole.usage.total_tokens


def test_openais_tool_is_called_and_its_result_read(chatter, completions):
    options = {"model": "pico", "tools": [chat_tool()]}
    first = chatter.wait(completions.create(messages=WEATHER, **options)).choices[0]
    assert first.finish_reason == "tool_calls"
    (call,) = first.message.tool_calls
    assert (call.type, call.function.name, json.loads(call.function.arguments)) == (
        "function",
        "get_weather",
        {"city": "Paris"},
    )
    said = [*WEATHER, *chat_results(first.message)]
    last = chatter.wait(completions.create(messages=said, **options)).choices[0]
    assert (last.finish_reason, last.message.content) == ("stop", "The weather in Paris is sunny, 21C.")


def test_openais_parallel_calls_come_apart_in_a_stream(chatter, completions):
    options = {"model": "pico", "tools": [chat_tool()], "parallel_tool_calls": True}
    events, final = chatter.helped(completions.stream(messages=TWO_WEATHERS, **options), "get_final_completion")
    calls = final.choices[0].message.tool_calls
    assert [json.loads(call.function.arguments) for call in calls] == [{"city": "Paris"}, {"city": "Oslo"}]
    assert len({call.id for call in calls}) == 2
    assert sum(event.type == "tool_calls.function.arguments.done" for event in events) == 2
    said = [*TWO_WEATHERS, *chat_results(final.choices[0].message)]
    _, final = chatter.helped(completions.stream(messages=said, **options), "get_final_completion")
    assert final.choices[0].message.content == TWO_ANSWERS


def test_openais_choice_of_tools_is_obeyed(chatter, completions):
    def calls(choice):
        asked = completions.create(
            model="pico", messages=WEATHER, tools=[chat_tool("clock"), chat_tool()], tool_choice=choice, max_tokens=60
        )
        return [call.function.name for call in chatter.wait(asked).choices[0].message.tool_calls or ()]

    assert calls("none") == []
    assert calls("auto") == calls("required") == ["get_weather"]


def test_openai_parses_a_schemas_answer(chatter, completions):
    asked = {"model": "pico", "messages": PERSON, "response_format": Person}
    parsed = chatter.wait(completions.parse(**asked)).choices[0].message
    assert parsed.parsed == Person(name="Alice", age=31)
    _, final = chatter.helped(completions.stream(**asked), "get_final_completion")
    assert final.choices[0].message.parsed == parsed.parsed
    schema = {"name": "person", "strict": True, "schema": {**Person.model_json_schema(), "additionalProperties": False}}
    plain = completions.create(**{**asked, "response_format": {"type": "json_schema", "json_schema": schema}})
    assert json.loads(chatter.wait(plain).choices[0].message.content) == {"name": "Alice", "age": 31}


def test_openai_parses_a_tools_arguments(chatter, completions):
    tools = [openai.pydantic_function_tool(GetWeather, name="get_weather")]
    parsed = chatter.wait(completions.parse(model="pico", messages=WEATHER, tools=tools))
    (call,) = parsed.choices[0].message.tool_calls
    assert call.function.parsed_arguments == GetWeather(city="Paris")


def test_openai_sees_the_reasoning_it_asks_for(chatter, completions):
    asked = {"model": "pico", "messages": SUM, "reasoning_effort": "low"}
    thoughtful = chatter.wait(completions.create(**asked)).choices[0].message
    assert "2 + 3 = 5" in thoughtful.reasoning_content
    assert thoughtful.content == "2 + 3 = 5"
    _, final = chatter.helped(completions.stream(**asked), "get_final_completion")
    assert final.choices[0].message.reasoning_content == thoughtful.reasoning_content
    assert final.choices[0].message.content == thoughtful.content
    quiet = chatter.wait(completions.create(model="pico", messages=SUM)).choices[0].message
    assert not hasattr(quiet, "reasoning_content")


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_openais_limits_end_an_answer(chatter, completions, limit):
    whole = chatter.wait(completions.create(model="pico", messages=STORY)).choices[0].message.content
    cut = chatter.wait(completions.create(model="pico", messages=STORY, **{limit: 7}))
    assert (cut.choices[0].finish_reason, cut.usage.completion_tokens) == ("length", 7)
    assert whole.startswith(cut.choices[0].message.content)
    for stop in ("river", ["river", "never said"]):
        stopped = chatter.wait(completions.create(model="pico", messages=STORY, stop=stop)).choices[0]
        assert (stopped.message.content, stopped.finish_reason) == (whole[: whole.index("river")], "stop")
    with pytest.raises(openai.LengthFinishReasonError):
        chatter.wait(completions.parse(model="pico", messages=PERSON, response_format=Person, **{limit: 3}))


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize(
    ("changes", "kind", "code", "reason"),
    [
        ({"model": "gpt-9"}, openai.NotFoundError, "model_not_found", "gpt-9"),
        ({"messages": "Hello"}, openai.BadRequestError, "invalid_request_error", "messages"),
        ({"messages": []}, openai.BadRequestError, "invalid_request_error", "messages"),
        ({"messages": [{"role": "cook", "content": "x"}]}, openai.BadRequestError, "invalid_request_error", "cook"),
        ({"temperature": "hot"}, openai.BadRequestError, "invalid_request_error", "temperature"),
        ({"tools": [{"type": "function"}]}, openai.BadRequestError, "invalid_request_error", r"tools\[0\]"),
        (
            {"messages": [{"role": "user", "content": "hello " * 6000}]},
            openai.BadRequestError,
            "context_length_exceeded",
            r"\(18\d\d\d tokens\).*\(16384 tokens\)",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "What is this?"},
                            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
                        ],
                    }
                ]
            },
            openai.BadRequestError,
            None,
            "image input is not supported",
        ),
    ],
    ids=["model", "no list", "nothing", "role", "temperature", "tool", "too long", "image"],
)
def test_openai_is_refused_in_its_own_words(chatter, completions, is_streamed, changes, kind, code, reason):
    with pytest.raises(kind, match=reason) as caught:
        chatter.wait(completions.create(**{"model": "pico", "messages": CAPITAL, "stream": is_streamed, **changes}))
    assert caught.value.code == code
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id.startswith("chatcmpl-")


def test_openais_wrong_key_is_refused(chatter, gateway):
    client = chatter.client(f"{gateway.url}/v1", api_key="wrong")
    with pytest.raises(openai.AuthenticationError) as caught:
        chatter.wait(client.chat.completions.create(model="pico", messages=CAPITAL))
    assert caught.value.code == "invalid_api_key"
    assert "wrong" not in str(caught.value.body)


def test_openai_is_told_of_an_error_within_a_stream(chatter, completions, gateway, monkeypatch):
    monkeypatch.setattr(gateway.app, "timeout", 0.3)
    stream = chatter.wait(completions.create(model="endless", messages=CAPITAL, stream=True))
    with pytest.raises(openai.APIError, match="deadline") as caught:
        chatter.items(stream)
    assert caught.value.type == "server_error"


def test_openai_that_hangs_up_ends_its_answer(chatter, gateway):
    completions = chatter.client(f"{gateway.url}/v1").chat.completions
    stream = chatter.wait(completions.create(model="endless", messages=CAPITAL, stream=True))
    chatter.first(stream)
    assert gateway.engine.running == 1
    chatter.wait(stream.close())
    assert until(lambda: gateway.engine.running == 0, 1)


def test_openai_that_loses_patience_ends_its_answer(chatter, gateway):
    completions = chatter.client(f"{gateway.url}/v1", timeout=0.3).chat.completions
    with pytest.raises(openai.APITimeoutError):
        chatter.wait(completions.create(model="endless", messages=CAPITAL))
    assert until(lambda: gateway.engine.running == 0, 1)


# anthropic


@pytest.fixture
def messages(messenger, gateway):
    return messenger.client(gateway.url).messages


def pico(messages, /, **changes):
    return {"model": "pico", "max_tokens": 200, "messages": messages, **changes}


def texts(message):
    return [block.text for block in message.content if block.type == "text"]


def tool(name="get_weather"):
    return {"name": name, "description": "Get the weather.", "input_schema": CITY}


def results(message):
    """The rest of a round: the model's calls, as it made them, and their results."""
    blocks = [
        {"type": "tool_result", "tool_use_id": block.id, "content": RESULTS[block.input["city"]]}
        for block in message.content
        if block.type == "tool_use"
    ]
    return [{"role": "assistant", "content": message.content}, {"role": "user", "content": blocks}]


def test_anthropic_is_answered(messenger, messages):
    answer = messenger.wait(messages.create(**pico(CAPITAL)))
    assert texts(answer) == ["The capital of France is Paris."]
    assert (answer.role, answer.stop_reason, answer.stop_sequence) == ("assistant", "end_turn", None)
    assert (answer.type, answer.model) == ("message", "pico")
    assert answer.id.startswith("msg_")
    assert answer._request_id == answer.id
    usage = answer.usage
    assert (usage.input_tokens + usage.cache_read_input_tokens, usage.output_tokens) == (17, 13)


def test_anthropic_holds_a_conversation(messenger, messages):
    said = []
    for words in ("My name is Alice.", "What is my name?"):
        said.append({"role": "user", "content": [{"type": "text", "text": words}]})
        answer = messenger.wait(messages.create(**pico(said, system="Be brief.")))
        said.append({"role": "assistant", "content": answer.content})
    assert texts(answer) == ["Your name is Alice."]
    assert answer.usage.cache_read_input_tokens > 0


def test_anthropic_streams_what_it_is_answered(messenger, messages):
    whole = messenger.wait(messages.create(**pico(STORY)))
    first, *events = messenger.items(messenger.wait(messages.create(**pico(STORY), stream=True)))
    assert (first.type, first.message.model, first.message.content) == ("message_start", "pico", [])
    assert first.message.id.startswith("msg_")
    kinds = [event.type for event in events]
    assert kinds[0] == "content_block_start"
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    pieces = [event.delta.text for event in events if event.type == "content_block_delta"]
    assert len(pieces) > 40
    assert "".join(pieces) == texts(whole)[0]
    assert events[-2].delta.stop_reason == "end_turn"
    assert events[-2].usage.output_tokens == whole.usage.output_tokens


def test_anthropics_stream_helper_adds_up_to_the_answer(messenger, messages):
    whole = messenger.wait(messages.create(**pico(CAPITAL)))
    events, final = messenger.helped(messages.stream(**pico(CAPITAL)), "get_final_message")
    assert "".join(event.text for event in events if event.type == "text") == texts(whole)[0]
    assert texts(final) == texts(whole)
    assert (final.role, final.model, final.stop_reason) == ("assistant", "pico", "end_turn")
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.usage.input_tokens + final.usage.cache_read_input_tokens == 17


def test_anthropics_tool_is_called_and_its_result_read(messenger, messages):
    first = messenger.wait(messages.create(**pico(WEATHER, tools=[tool()])))
    (call,) = first.content
    assert (first.stop_reason, call.type, call.name, call.input) == (
        "tool_use",
        "tool_use",
        "get_weather",
        {"city": "Paris"},
    )
    last = messenger.wait(messages.create(**pico([*WEATHER, *results(first)], tools=[tool()])))
    assert (last.stop_reason, texts(last)) == ("end_turn", ["The weather in Paris is sunny, 21C."])


def test_anthropics_parallel_calls_come_apart_in_a_stream(messenger, messages):
    events, first = messenger.helped(messages.stream(**pico(TWO_WEATHERS, tools=[tool()])), "get_final_message")
    assert [block.input for block in first.content] == [{"city": "Paris"}, {"city": "Oslo"}]
    assert len({block.id for block in first.content}) == 2
    assert sum(event.type == "input_json" for event in events) > 4
    said = [*TWO_WEATHERS, *results(first)]
    _, last = messenger.helped(messages.stream(**pico(said, tools=[tool()])), "get_final_message")
    assert texts(last) == [TWO_ANSWERS]


def runner_of(client, **options):
    def get_weather(city: str) -> str:
        """Get the weather in a city."""
        return RESULTS[city]

    async def get_weather_later(city: str) -> str:
        """Get the weather in a city."""
        return RESULTS[city]

    if isinstance(client, anthropic.AsyncAnthropic):
        tools = [anthropic.beta_async_tool(get_weather_later, name="get_weather")]
    else:
        tools = [anthropic.beta_tool(get_weather)]
    return client.beta.messages.tool_runner(**pico(TWO_WEATHERS, tools=tools), **options)


def test_anthropics_tool_runner_runs_its_tools(messenger, gateway):
    runner = runner_of(messenger.client(gateway.url), thread=False)
    assert texts(messenger.wait(runner.until_done())) == [TWO_ANSWERS]


def test_anthropics_tool_runner_goes_on_without_a_thread(messenger, gateway):
    runner = runner_of(messenger.client(gateway.url))
    assert texts(messenger.wait(runner.until_done())) == [TWO_ANSWERS]


def test_anthropics_choice_of_tools_is_obeyed(messenger, messages):
    def calls(choice):
        asked = pico(WEATHER, tools=[tool("clock"), tool()], tool_choice=choice, max_tokens=60)
        answer = messenger.wait(messages.create(**asked))
        return [block.name for block in answer.content if block.type == "tool_use"]

    assert calls({"type": "none"}) == []
    assert calls({"type": "auto"}) == calls({"type": "any"}) == ["get_weather"]


def test_anthropic_parses_a_schemas_answer(messenger, messages):
    parsed = messenger.wait(messages.parse(**pico(PERSON), output_format=Person))
    assert parsed.parsed_output == Person(name="Alice", age=31)
    _, final = messenger.helped(messages.stream(**pico(PERSON), output_format=Person), "get_final_message")
    assert final.parsed_output == parsed.parsed_output
    schema = {**Person.model_json_schema(), "additionalProperties": False}
    format_ = {"type": "json_schema", "schema": schema}
    plain = messenger.wait(messages.create(**pico(PERSON), output_config={"format": format_}))
    assert json.loads(texts(plain)[0]) == {"name": "Alice", "age": 31}


def test_anthropic_sees_the_thinking_it_asks_for(messenger, messages):
    asked = pico(SUM, max_tokens=2000, thinking={"type": "enabled", "budget_tokens": 1024})
    whole = messenger.wait(messages.create(**asked))
    assert [block.type for block in whole.content] == ["thinking", "text"]
    assert "2 + 3 = 5" in whole.content[0].thinking
    assert texts(whole) == ["2 + 3 = 5"]
    events, final = messenger.helped(messages.stream(**asked), "get_final_message")
    assert "".join(event.thinking for event in events if event.type == "thinking") == whole.content[0].thinking
    assert final.content[0].thinking == whole.content[0].thinking
    assert texts(final) == texts(whole)
    again = [*SUM, {"role": "assistant", "content": whole.content}, *CAPITAL]
    assert texts(messenger.wait(messages.create(**pico(again)))) == ["The capital of France is Paris."]
    for quiet in ({}, {"thinking": {"type": "disabled"}}):
        answer = messenger.wait(messages.create(**pico(SUM, **quiet)))
        assert [block.type for block in answer.content] == ["text"]


def test_anthropics_limits_end_an_answer(messenger, messages):
    (whole,) = texts(messenger.wait(messages.create(**pico(STORY))))
    cut = messenger.wait(messages.create(**pico(STORY, max_tokens=7)))
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 7)
    assert whole.startswith(texts(cut)[0])
    stopped = messenger.wait(messages.create(**pico(STORY, stop_sequences=["river", "never said"])))
    assert texts(stopped) == [whole[: whole.index("river")]]
    # Which words it was, llama.cpp does not say.
    assert stopped.stop_reason in ("end_turn", "stop_sequence")


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
SCREENSHOT = [
    {"role": "user", "content": "Look at the screen."},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [IMAGE]}]},
]


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize(
    ("changes", "kind", "type_", "reason"),
    [
        ({"model": "claude-9"}, anthropic.NotFoundError, "not_found_error", "claude-9"),
        ({"messages": "Hello"}, anthropic.BadRequestError, "invalid_request_error", "messages"),
        ({"messages": []}, anthropic.BadRequestError, "invalid_request_error", "messages"),
        (
            {"messages": [{"role": "cook", "content": "x"}]},
            anthropic.BadRequestError,
            "invalid_request_error",
            r"messages\[0\].role",
        ),
        ({"max_tokens": -1}, anthropic.BadRequestError, "invalid_request_error", "max_tokens"),
        ({"tools": [{"name": "x"}]}, anthropic.BadRequestError, "invalid_request_error", "input_schema"),
        (
            {"messages": [{"role": "user", "content": "hello " * 6000}]},
            anthropic.BadRequestError,
            "invalid_request_error",
            r"18\d\d\d tokens.*16384",
        ),
        (
            {"messages": [{"role": "user", "content": [IMAGE]}]},
            anthropic.BadRequestError,
            "invalid_request_error",
            "image input is not supported",
        ),
        (
            {"messages": SCREENSHOT},
            anthropic.BadRequestError,
            "invalid_request_error",
            "image input is not supported",
        ),
        (
            {"extra_body": {"thread": {"type": "continue", "previous_message_id": "msg_1"}}},
            anthropic.BadRequestError,
            "invalid_request_error",
            "send the whole conversation",
        ),
    ],
    ids=["model", "no list", "nothing", "role", "max_tokens", "tool", "too long", "image", "image of a tool", "thread"],
)
def test_anthropic_is_refused_in_its_own_words(messenger, messages, is_streamed, changes, kind, type_, reason):
    with pytest.raises(kind, match=reason) as caught:
        messenger.wait(messages.create(**pico(CAPITAL, stream=is_streamed, **changes)))
    assert caught.value.type == type_
    assert caught.value.request_id.startswith("msg_")


def test_anthropics_wrong_key_is_refused(messenger, gateway):
    with pytest.raises(anthropic.AuthenticationError) as caught:
        messenger.wait(messenger.client(gateway.url, api_key="wrong").messages.create(**pico(CAPITAL)))
    assert caught.value.type == "authentication_error"
    assert "wrong" not in str(caught.value.body)


def test_anthropic_is_told_of_an_error_within_a_stream(messenger, messages, gateway, monkeypatch):
    monkeypatch.setattr(gateway.app, "timeout", 0.3)
    stream = messenger.wait(messages.create(**pico(CAPITAL, model="endless", max_tokens=50_000, stream=True)))
    with pytest.raises(anthropic.APIStatusError, match="deadline") as caught:
        messenger.items(stream)
    assert caught.value.type == "timeout_error"


def test_anthropic_that_hangs_up_ends_its_answer(messenger, messages, gateway):
    stream = messenger.wait(messages.create(**pico(CAPITAL, model="endless", max_tokens=50_000, stream=True)))
    messenger.first(stream)
    assert gateway.engine.running == 1
    messenger.wait(stream.close())
    assert until(lambda: gateway.engine.running == 0, 1)


def test_anthropic_that_loses_patience_ends_its_answer(messenger, gateway):
    messages = messenger.client(gateway.url, timeout=0.3).messages
    with pytest.raises(anthropic.APITimeoutError):
        messenger.wait(messages.create(**pico(CAPITAL, model="endless", max_tokens=10_000)))
    assert until(lambda: gateway.engine.running == 0, 1)


def test_a_hundred_questions_at_once_get_their_own_answers(gateway):
    async def both():
        chatter = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0)
        messenger = anthropic.AsyncAnthropic(base_url=gateway.url, api_key=KEY, max_retries=0)
        asked = [pico([{"role": "user", "content": f"Repeat after me: green {number}"}]) for number in range(50)]
        async with chatter, messenger:
            completions = [chatter.chat.completions.create(**each) for each in asked]
            messages = [messenger.messages.create(**each) for each in asked]
            answers = await asyncio.gather(*completions, *messages)
        return [each.choices[0].message.content for each in answers[:50]], [texts(each)[0] for each in answers[50:]]

    chatted, messaged = asyncio.run(both())
    assert chatted == messaged == [f"green {number}" for number in range(50)]
    assert gateway.engine.running == 0
