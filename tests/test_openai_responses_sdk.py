"""OpenAI's Python SDK on both ends of its Responses API: it reads the bytes that we read, and talks to our server's
half before Pico.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from functools import partial
from typing import Any

import gateway as gateways
import msgspec
import openai
import pytest
import test_sdk_clients as clients
from servers import until
from test_ollama_sdk import open_gateway
from test_openai_responses import ANSWERS, EXCHANGES, NO_ANSWERS, TALE, answer, answered, sse
from test_sdk_clients import (
    CAPITAL,
    CITY,
    KEY,
    PERSON,
    PIXEL,
    RESULTS,
    STORY,
    SUM,
    TWO_ANSWERS,
    TWO_WEATHERS,
    WEATHER,
    GetWeather,
    Person,
)
from test_sdk_judges import Court, Exchange, Said, arguments, ours

import sabir
from sabir.deltas import Delta, Open
from sabir.dialects.openai_responses import OpenAIResponses
from sabir.testing.replay import replay

PREFIXES = {"text": "msg_", "refusal": "msg_", "thinking": "rs_", "call": "fc_"}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


# The SDK as judge: text, thinking, calls, tokens and the reason for the end, out of the same bytes.

ENDS = ("response.completed", "response.incomplete", "response.failed")
STATUSES = {"completed": "stop", "incomplete": "length", "queued": "paused", "in_progress": "paused"}


def theirs(items: list[Any], whole: Any) -> Said:
    """What the SDK read; whether a tool is called, or the model refuses, is told by its items."""
    parts = [part for item in items if item.type == "message" for part in item.content]
    thoughts = [part for item in items if item.type == "reasoning" for part in (*item.summary, *(item.content or ()))]
    calls = [item for item in items if item.type in ("function_call", "custom_tool_call")]
    finish = STATUSES.get(whole.status, whole.status or "unknown")
    if whole.incomplete_details is not None and whole.incomplete_details.reason == "content_filter":
        finish = "content_filter"
    if finish == "stop":
        refused = any(part.type == "refusal" for part in parts)
        finish = "tool_calls" if calls else "refusal" if refused else "stop"
    return Said(
        text="".join(part.text for part in parts if part.type == "output_text"),
        thinking="".join(part.text for part in thoughts),
        calls=[
            (call.call_id, call.name, arguments(getattr(call, "arguments", None) or getattr(call, "input", "")))
            for call in calls
        ],
        finish=finish,
        input=whole.usage.input_tokens if whole.usage else None,
        output=whole.usage.output_tokens if whole.usage else None,
    )


@pytest.fixture(scope="module")
def court() -> Iterator[Court]:
    with Court() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def judge(court, no_network):
    with openai.OpenAI(api_key="key", base_url=court.url, max_retries=0) as client:

        def read(exchange: Exchange) -> Said:
            court.exchanges[exchange["id"]] = exchange
            responses = client.with_options(base_url=f"{court.url}/{exchange['id']}").responses
            if not isinstance(exchange["response"]["body"], str):
                whole = responses.create(model="judge", input="Hello!")
                return theirs(whole.output, whole)
            items = {}
            with responses.create(model="judge", input="Hello!", stream=True) as stream:
                for event in stream:
                    if event.type == "response.output_item.done":
                        items[event.output_index] = event.item
                    if event.type in ENDS:
                        break
            return theirs([items[index] for index in sorted(items)], event.response)

        yield read


def exchange_of(name: str, body: Any) -> Exchange:
    is_stream = isinstance(body, str)
    kind = "text/event-stream" if is_stream else "application/json"
    response = {"status": 200, "content_type": kind, "headers": {}, "body": body}
    said = {"dialect": "openai-responses", "endpoint": "responses", "stream": is_stream, "response": response}
    return {"id": name.replace(" ", "-"), **said}


def hand_made() -> Iterator[Exchange]:
    for name, (body, *_) in ANSWERS.items():
        yield exchange_of(f"{name}-whole", body)
        yield exchange_of(f"{name}-stream", sse(*answered(body)).decode())
    yield exchange_of("empty-end", sse(*answered(TALE, output=[])).decode())
    yield exchange_of("queued", answer(status="queued", usage=None))


@pytest.mark.parametrize("exchange", list(hand_made()), ids=lambda exchange: exchange["id"])
def test_the_sdk_reads_hand_made_answers_as_we_do(judge, exchange):
    result = replay(exchange)
    assert result.verdict == "passed", result.notes
    assert judge(exchange) == ours(result)


@pytest.mark.slow
def test_the_sdk_reads_recorded_answers_as_we_do(judge):
    recorded = [each for each in EXCHANGES if each["response"]["status"] == 200 and each["id"] not in NO_ANSWERS]
    if not recorded:
        pytest.skip("the recordings of real traffic are not there")
    differing = {}
    for exchange in recorded:
        us = ours(replay(exchange))
        try:
            them = judge(exchange)
        except openai.APIError as error:
            them = Said(calls=[], error=type(error).__name__)
            us = Said(calls=us.calls, error=us.error and "APIError")
        if us != them:
            differing[exchange["id"]] = (us, them)
    assert differing == {}


# To the accumulator items without ids are one and the same, and a part that it does not know is a warning.
@pytest.mark.parametrize("name", sorted(ANSWERS.keys() - {"messages without names", "unknown part"}))
def test_the_sdks_accumulator_takes_what_our_encoder_tells(court, no_network, name):
    """Our own stream of an answer adds up in the SDK to what the answer has."""
    body, _, _ = ANSWERS[name]
    dialect = OpenAIResponses()
    encoder = dialect.encoder()
    told = b"".join(map(encoder.feed, dialect.decode_answer(json.dumps(body).encode()))) + encoder.close()
    exchange = exchange_of(f"told-{name}", told.decode())
    court.exchanges[exchange["id"]] = exchange
    with (
        openai.OpenAI(api_key="key", base_url=f"{court.url}/{exchange['id']}", max_retries=0) as client,
        client.responses.stream(model="judge", input="Hello!") as stream,
    ):
        events = list(stream)
        final = stream.get_final_response() if body["status"] == "completed" else events[-1].response
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [item.type for item in final.output] == [item["type"] for item in body["output"]]
    done = {event.output_index: event for event in events if event.type == "response.output_text.done"}
    summed = {event.output_index: event for event in events if event.type == "response.output_text.delta"}
    assert {index: event.snapshot for index, event in summed.items()} == {
        index: event.text for index, event in done.items() if event.text
    }


# The SDK as client.


def identified(portable, delta: Delta) -> Delta | None:
    """A delta as the gateway passes it on; an item that begins is given its id."""
    made = portable(delta)
    if not isinstance(made, Open):
        return made
    item = {"id": PREFIXES[made.kind] + uuid.uuid4().hex, "status": "completed"}
    return msgspec.structs.replace(made, state={"item": {"set": item}})


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    route = gateways.Route(OpenAIResponses(), "resp_", "created_at", "previous_response_id")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gateways, "_portable", partial(identified, gateways._portable))
        with open_gateway(tmp_path_factory.mktemp("gateway"), "/v1/responses", route) as opened:
            yield opened


@pytest.fixture(params=[openai.OpenAI, openai.AsyncOpenAI], ids=lambda kind: kind.__name__)
def caller(request):
    yield from clients.caller_of(request)


@pytest.fixture
def responses(caller, gateway):
    return caller.client(f"{gateway.url}/v1").responses


def tool(name="get_weather"):
    return {"type": "function", "name": name, "description": "Get the weather.", "parameters": CITY, "strict": False}


def results(response):
    """The rest of a round: what the model made, as it made it, and the results of its calls."""
    return [
        *response.output,
        *(
            {
                "type": "function_call_output",
                "call_id": item.call_id,
                "output": RESULTS[json.loads(item.arguments)["city"]],
            }
            for item in response.output
            if item.type == "function_call"
        ),
    ]


def test_openai_is_answered(caller, responses):
    whole = caller.wait(responses.create(model="pico", input="What is the capital of France?"))
    (message,) = whole.output
    assert whole.output_text == "The capital of France is Paris."
    assert (message.type, message.role, message.status) == ("message", "assistant", "completed")
    assert (whole.object, whole.model, whole.status) == ("response", "pico", "completed")
    assert whole.id.startswith("resp_")
    assert whole._request_id == whole.id
    assert abs(whole.created_at - time.time()) < 60
    assert (whole.usage.input_tokens, whole.usage.output_tokens, whole.usage.total_tokens) == (17, 13, 30)


def test_openai_holds_a_conversation(caller, responses):
    said: list[Any] = [{"role": "developer", "content": "Be brief."}]
    for words in ("My name is Alice.", "What is my name?"):
        said.append({"role": "user", "content": [{"type": "input_text", "text": words}]})
        whole = caller.wait(responses.create(model="pico", input=said, instructions="Be kind."))
        said += whole.output
    assert whole.output_text == "Your name is Alice."
    assert whole.usage.input_tokens_details.cached_tokens > 0


def test_openai_streams_what_it_is_answered(caller, responses):
    whole = caller.wait(responses.create(model="pico", input=STORY))
    events = caller.items(caller.wait(responses.create(model="pico", input=STORY, stream=True)))
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) > 40
    assert "".join(event.delta for event in deltas) == whole.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:4]] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert [event.type for event in events[-4:]] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    first, last = events[0].response, events[-1].response
    assert (first.id, first.created_at, first.status) == (last.id, last.created_at, "in_progress")
    assert {event.item_id for event in deltas} == {last.output[0].id}
    assert (last.output_text, last.usage.output_tokens) == (whole.output_text, whole.usage.output_tokens)


def test_openais_stream_helper_adds_up_to_the_answer(caller, responses):
    whole = caller.wait(responses.create(model="pico", input=CAPITAL))
    events, final = caller.helped(responses.stream(model="pico", input=CAPITAL), "get_final_response")
    assert [event.snapshot for event in events if event.type == "response.output_text.delta"][-1] == whole.output_text
    assert final.output_text == whole.output_text
    assert final.usage.total_tokens == whole.usage.total_tokens


def test_openais_tool_is_called_and_its_result_read(caller, responses):
    options = {"model": "pico", "tools": [tool()]}
    first = caller.wait(responses.create(input=WEATHER, **options))
    (call,) = first.output
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "get_weather", {"city": "Paris"})
    last = caller.wait(responses.create(input=[*WEATHER, *results(first)], **options))
    assert last.output_text == "The weather in Paris is sunny, 21C."


def test_openais_parallel_calls_come_apart_in_a_stream(caller, responses):
    options = {"model": "pico", "tools": [tool()], "parallel_tool_calls": True}
    events, first = caller.helped(responses.stream(input=TWO_WEATHERS, **options), "get_final_response")
    assert [json.loads(call.arguments) for call in first.output] == [{"city": "Paris"}, {"city": "Oslo"}]
    assert len({call.call_id for call in first.output}) == len({call.id for call in first.output}) == 2
    assert sum(event.type == "response.function_call_arguments.done" for event in events) == 2
    _, last = caller.helped(responses.stream(input=[*TWO_WEATHERS, *results(first)], **options), "get_final_response")
    assert last.output_text == TWO_ANSWERS


def test_openais_choice_of_tools_is_obeyed(caller, responses):
    def calls(choice):
        asked = responses.create(
            model="pico", input=WEATHER, tools=[tool("clock"), tool()], tool_choice=choice, max_output_tokens=60
        )
        return [item.name for item in caller.wait(asked).output if item.type == "function_call"]

    assert calls("none") == []
    assert calls("auto") == calls("required") == ["get_weather"]


def test_openai_parses_a_schemas_answer(caller, responses):
    asked = {"model": "pico", "input": PERSON, "text_format": Person}
    parsed = caller.wait(responses.parse(**asked))
    assert parsed.output_parsed == Person(name="Alice", age=31)
    _, final = caller.helped(responses.stream(**asked), "get_final_response")
    assert final.output_parsed == parsed.output_parsed
    schema = {**Person.model_json_schema(), "additionalProperties": False}
    format_ = {"type": "json_schema", "name": "person", "schema": schema, "strict": True}
    plain = caller.wait(responses.create(model="pico", input=PERSON, text={"format": format_}))
    assert json.loads(plain.output_text) == {"name": "Alice", "age": 31}


def test_openai_parses_a_tools_arguments(caller, responses):
    tools = [openai.pydantic_function_tool(GetWeather, name="get_weather")]
    parsed = caller.wait(responses.parse(model="pico", input=WEATHER, tools=tools))
    assert parsed.output[0].parsed_arguments == GetWeather(city="Paris")


def test_openai_sees_the_reasoning_it_asks_for(caller, responses):
    asked = {"model": "pico", "input": SUM, "reasoning": {"effort": "low"}}
    thoughtful = caller.wait(responses.create(**asked))
    thought, message = thoughtful.output
    assert (thought.type, message.type) == ("reasoning", "message")
    assert "2 + 3 = 5" in thought.summary[0].text
    assert thoughtful.output_text == "2 + 3 = 5"
    events, final = caller.helped(responses.stream(**asked), "get_final_response")
    told = [event.delta for event in events if event.type == "response.reasoning_summary_text.delta"]
    assert "".join(told) == final.output[0].summary[0].text == thought.summary[0].text
    said = [*SUM, *thoughtful.output, *CAPITAL]
    assert caller.wait(responses.create(model="pico", input=said)).output_text == "The capital of France is Paris."
    quiet = caller.wait(responses.create(model="pico", input=SUM))
    assert [item.type for item in quiet.output] == ["message"]


def test_openais_limits_end_an_answer(caller, responses):
    whole = caller.wait(responses.create(model="pico", input=STORY))
    cut = caller.wait(responses.create(model="pico", input=STORY, max_output_tokens=7))
    assert (cut.status, cut.incomplete_details.reason, cut.usage.output_tokens) == (
        "incomplete",
        "max_output_tokens",
        7,
    )
    assert whole.output_text.startswith(cut.output_text)
    streamed = caller.items(caller.wait(responses.create(model="pico", input=STORY, max_output_tokens=7, stream=True)))
    assert (streamed[-1].type, streamed[-1].response.output_text) == ("response.incomplete", cut.output_text)


IMAGE = {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "auto"}


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize(
    ("changes", "kind", "code", "reason"),
    [
        ({"model": "gpt-9"}, openai.NotFoundError, "model_not_found", "gpt-9"),
        ({"input": []}, openai.BadRequestError, "invalid_request_error", "input"),
        ({"input": [{"role": "cook", "content": "x"}]}, openai.BadRequestError, "invalid_request_error", r"input\[0\]"),
        ({"temperature": "hot"}, openai.BadRequestError, "invalid_request_error", "temperature"),
        ({"tools": [{"type": "function"}]}, openai.BadRequestError, "invalid_request_error", r"tools\[0\].name"),
        ({"previous_response_id": "resp_1"}, openai.BadRequestError, None, "send the whole conversation"),
        (
            {"input": "hello " * 6000},
            openai.BadRequestError,
            "context_length_exceeded",
            r"\(18\d\d\d tokens\).*\(16384 tokens\)",
        ),
        (
            {"input": [{"role": "user", "content": [IMAGE]}]},
            openai.BadRequestError,
            None,
            "image input is not supported",
        ),
    ],
    ids=["model", "nothing", "role", "temperature", "tool", "what was said before", "too long", "image"],
)
def test_openai_is_refused_in_its_own_words(caller, responses, is_streamed, changes, kind, code, reason):
    with pytest.raises(kind, match=reason) as caught:
        caller.wait(responses.create(**{"model": "pico", "input": CAPITAL, "stream": is_streamed, **changes}))
    assert caught.value.code == (code or caught.value.code)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id.startswith("resp_")


def test_openais_wrong_key_is_refused(caller, gateway):
    client = caller.client(f"{gateway.url}/v1", api_key="wrong")
    with pytest.raises(openai.AuthenticationError) as caught:
        caller.wait(client.responses.create(model="pico", input=CAPITAL))
    assert caught.value.code == "invalid_api_key"
    assert "wrong" not in str(caught.value.body)


def test_openai_is_told_of_an_error_within_a_stream(caller, responses, gateway, monkeypatch):
    monkeypatch.setattr(gateway.app, "timeout", 0.3)
    stream = caller.wait(responses.create(model="endless", input=CAPITAL, stream=True))
    with pytest.raises(openai.APIError, match="deadline") as caught:
        caller.items(stream)
    assert caught.value.type == "server_error"


def test_openai_that_hangs_up_ends_its_answer(caller, responses, gateway):
    stream = caller.wait(responses.create(model="endless", input=CAPITAL, stream=True))
    caller.first(stream)
    assert until(lambda: gateway.engine.running == 1, 1)
    caller.wait(stream.close())
    assert until(lambda: gateway.engine.running == 0, 1)


# Our own client at the same gateway.


def get_weather(city: str) -> str:
    """Get the weather in a city."""
    return RESULTS[city]


def test_our_client_and_our_servers_half_understand_each_other(gateway, no_network):
    model = f"openai-responses:pico@{gateway.url}/v1"
    with sabir.Client(model, api_key=KEY, on_unsupported="raise") as client:
        assert client.ask("What is the capital of France?").text == "The capital of France is Paris."
        thoughtful = client.ask("What is 2 + 3?", thinking="low")
        assert "2 + 3 = 5" in thoughtful.thinking
        chat = client.chat(tools=[get_weather])
        with chat.stream("What is the weather in Paris and Oslo?") as stream:
            list(stream)
        assert stream.response.text == TWO_ANSWERS
        assert client.ask(PERSON[0]["content"], schema=Person).parsed == Person(name="Alice", age=31)
        assert client.ask("Tell me a story.", max_tokens=7).finish_reason == "length"
        with pytest.raises(sabir.ContextOverflowError):
            client.ask("hello " * 6000)
