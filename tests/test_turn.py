"""One turn: the loop of a model and its tools, the stream that shows it, and answers with a shape."""

from __future__ import annotations

import asyncio
import base64
import functools
import gc
import json
import logging
import pickle
import sys
import threading
from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest
from fakes import Waiting
from servers import Server, whole

from sabir import (
    ClosedError,
    ConfigurationError,
    EngineError,
    Image,
    Message,
    Refusal,
    ServerError,
    StreamChunk,
    StreamInterrupted,
    StreamProtocolError,
    StructuredOutputError,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolContext,
    ToolResult,
    ToolSpec,
    Usage,
    Value,
    aio,
    assistant,
    system,
    user,
)
from sabir.deltas import Close, Count, Finish, Head, Open
from sabir.deltas import Text as TextDelta
from sabir.testing import Scripted

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def call(name: str, arguments: str = "{}", call_id: str | None = None) -> ToolCall:
    return ToolCall(name=name, input=arguments, id=call_id)


def calls(*parts: ToolCall) -> Message:
    return Message("assistant", parts)


def results_in(engine: Scripted, request: int = -1) -> list[ToolResult]:
    """The tool results at the end of a request."""
    last = engine.requests[request].messages[-1]
    assert last.role == "tool"
    return [part for part in last.parts if isinstance(part, ToolResult)]


async def read(stream: Any) -> list[StreamChunk]:
    return [chunk async for chunk in stream]


def texts(chunks: list[StreamChunk]) -> str:
    return "".join(chunk.content for chunk in chunks if chunk.phase == "generating")


# The loop


async def test_a_tool_is_run_and_the_model_is_told_its_result(surface):
    def weather(city: str) -> str:
        """Tell the weather.

        Args:
            city: its name.
        """
        return f"{city}: sunny"

    with Scripted(call("weather", '{"city": "Oslo"}', "a"), "It is sunny.") as engine:
        response = await surface.client(engine, tools=[weather]).ask("How is Oslo?")
    asked = calls(call("weather", '{"city": "Oslo"}', "a"))
    answered = ToolResult(call_id="a", name="weather", content=(Text(text="Oslo: sunny"),))
    assert str(response) == response.text == "It is sunny."
    assert response.finish_reason == "stop"
    assert [message.role for message in engine.requests[1].messages] == ["user", "assistant", "tool"]
    assert engine.requests[1].messages[0] == user("How is Oslo?")
    assert engine.requests[1].messages[1].parts == asked.parts
    assert engine.requests[1].messages[2] == Message("tool", (answered,))
    assert [spec.name for spec in engine.requests[0].tools] == ["weather"]
    assert engine.requests[0].tools[0].description == "Tell the weather."
    assert engine.requests[0].tools[0].parameters["properties"]["city"]["description"] == "its name."
    assert engine.requests[1].tools == engine.requests[0].tools


class Doubler:
    """Doubles a number."""

    def __call__(self, number: int) -> int:
        return 2 * number

    def method(self, number: int) -> int:
        return 2 * number

    async def waiting_method(self, number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number


class WaitingDoubler:
    async def __call__(self, number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number


def double(number: int) -> int:
    return 2 * number


async def double_later(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


def double_by_coroutine(number: int) -> Any:
    return double_later(number)


def times(factor: int, number: int) -> int:
    return factor * number


async def times_later(factor: int, number: int) -> int:
    await asyncio.sleep(0)
    return factor * number


@pytest.mark.parametrize(
    "tool",
    [
        double,
        double_later,
        double_by_coroutine,
        Doubler(),
        WaitingDoubler(),
        Doubler().method,
        Doubler().waiting_method,
        functools.partial(times, 2),
        functools.partial(times_later, 2),
        functools.partial(functools.partial(times_later), factor=2),
        Tool(double),
        Tool(double_later, description="Doubles."),
    ],
    ids=lambda tool: getattr(tool, "__name__", repr(tool)[:40]),
)
async def test_any_callable_is_a_tool_on_any_surface(surface, tool):
    name = "double_it"
    described = Tool(tool.function if isinstance(tool, Tool) else tool, name=name)
    with Scripted(call(name, '{"number": 21}'), "done") as engine:
        await surface.client(engine).ask("?", tools=[described])
    (result,) = results_in(engine)
    assert not result.is_error, result.text
    assert result.text == "42"
    (spec,) = engine.requests[0].tools
    assert spec.parameters["required"] == ["number"]
    assert list(spec.parameters["properties"]) == ["number"]


async def test_a_tool_is_named_by_its_function_class_or_partial(surface):
    engine = Scripted("done")
    tools = [double, Doubler(), functools.partial(times, 2), Tool(double, name="other")]
    await surface.client(engine).ask("?", tools=tools)
    assert [spec.name for spec in engine.requests[0].tools] == ["double", "Doubler", "times", "other"]


async def test_tools_run_at_once_and_their_results_keep_the_order_of_the_calls(surface):
    together = threading.Barrier(3)
    ended: list[int] = []
    turns = [threading.Event() for _ in range(4)]
    turns[3].set()

    def work(number: int) -> str:
        together.wait(10)  # raises unless all three are here
        assert turns[number + 1].wait(10)
        ended.append(number)
        turns[number].set()
        return f"result {number}"

    asked = calls(*(call("work", f'{{"number": {number}}}', f"id{number}") for number in range(3)))
    with Scripted(asked, "done") as engine:
        await surface.client(engine, tools=[work]).ask("?")
    assert ended == [2, 1, 0]
    assert [(result.call_id, result.text) for result in results_in(engine)] == [
        ("id0", "result 0"),
        ("id1", "result 1"),
        ("id2", "result 2"),
    ]


async def test_async_tools_run_at_once_on_one_loop(surface):
    together: list[asyncio.Barrier] = []

    async def work(number: int) -> int:
        if not together:
            together.append(asyncio.Barrier(3))
        async with asyncio.timeout(10):
            await together[0].wait()
        return number

    asked = calls(*(call("work", f'{{"number": {number}}}') for number in range(3)))
    with Scripted(asked, "done") as engine:
        await surface.client(engine, tools=[work]).ask("?")
    assert [(result.text, result.is_error) for result in results_in(engine)] == [
        ("0", False),
        ("1", False),
        ("2", False),
    ]


def raising(number: int) -> int:
    raise LookupError(f"no number {number}")


async def raising_later(number: int) -> int:
    await asyncio.sleep(0)
    raise LookupError(f"no number {number}")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (call("raising", '{"number": 1}'), ["LookupError", "no number 1"]),
        (call("raising_later", '{"number": 2}'), ["LookupError", "no number 2"]),
        (call("absent"), ["no tool named 'absent'", "double, raising, raising_later"]),
        (call("double", '{"number": '), ["not JSON"]),
        (call("double", "[1]"), ["no JSON object"]),
        (call("double", "{}"), ["missing argument", "number"]),
        (call("double", '{"number": "many"}'), ["number", "int"]),
        (call("double", '{"number": 1, "nmber": 2}'), ["unexpected argument", "nmber"]),
    ],
    ids=lambda value: f"{value.name} {value.input}" if isinstance(value, ToolCall) else "",
)
async def test_whatever_fails_in_a_call_is_a_result_for_the_model(surface, asked, words, caplog):
    """The other call of the round runs all the same, and so does the turn."""
    script = calls(asked, call("double", '{"number": 4}'))
    with Scripted(script, "I see.") as engine, caplog.at_level(logging.ERROR):
        response = await surface.client(engine, tools=[double, raising, raising_later]).ask("?")
    failed, worked = results_in(engine)
    assert failed.is_error
    assert failed.name == asked.name
    for word in words:
        assert word in failed.text
    assert (worked.is_error, worked.text) == (False, "8")
    assert response.text == "I see."


@pytest.mark.parametrize(
    "error",
    [
        StopIteration("stop"),
        StopAsyncIteration("stop"),
        TimeoutError("slow"),
        ConfigurationError("ours"),
        ClosedError("ours"),
        EngineError("ours"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
async def test_no_exception_of_a_tool_is_taken_for_one_of_the_turn(surface, error, is_async):
    def plain() -> None:
        raise error

    async def later() -> None:
        raise error

    with Scripted(call("work"), "I see.") as engine:
        response = await surface.client(engine, tools=[Tool(later if is_async else plain, name="work")]).ask("?")
    assert results_in(engine)[0].is_error
    assert response.text == "I see."


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
async def test_a_tool_that_cancels_itself_has_failed_and_the_turn_goes_on(surface, is_async):
    def plain() -> None:
        raise asyncio.CancelledError("of its own")

    async def later() -> None:
        raise asyncio.CancelledError("of its own")

    with Scripted(call("work"), "I see.") as engine:
        response = await surface.client(engine, tools=[Tool(later if is_async else plain, name="work")]).ask("?")
    assert results_in(engine)[0].is_error
    assert response.text == "I see."


async def test_a_failing_tool_is_logged(surface, caplog):
    engine = Scripted(call("raising", '{"number": 1}'), "I see.")
    with caplog.at_level(logging.WARNING, "sabir"):
        await surface.client(engine, tools=[raising]).ask("?")
    assert ["raising" in record.getMessage() for record in caplog.records] == [True]


async def test_max_tool_rounds_0_leaves_the_calls_to_the_caller(surface):
    with Scripted(call("double", '{"number": 1}', "a")) as engine:
        response = await surface.client(engine, tools=[double], max_tool_rounds=0).ask("?")
    assert response.finish_reason == "tool_calls"
    assert response.tool_calls == (call("double", '{"number": 1}', "a"),)
    assert response.messages == (response.message,)
    assert response.warnings == ()
    assert [spec.name for spec in engine.requests[0].tools] == ["double"]


@pytest.mark.parametrize("where", ["client", "call", "chat"])
async def test_max_tool_rounds_1_runs_one_round_and_says_what_was_not_run(surface, where):
    ran: list[int] = []

    def count(number: int) -> None:
        ran.append(number)

    script = Scripted(call("count", '{"number": 1}'), call("count", '{"number": 2}'))
    limit = {"max_tool_rounds": 1}
    with script as engine:
        client = surface.client(engine, tools=[count], **(limit if where == "client" else {}))
        ask = client.chat(**limit) if where == "chat" else client.ask
        response = await ask("?", **(limit if where == "call" else {}))
    assert ran == [1]
    assert [made.input for made in response.tool_calls] == ['{"number": 2}']
    (notice,) = response.warnings
    assert (notice.kind, notice.subject) == ("dropped", "max_tool_rounds")
    assert "count" in notice.message
    assert "1" in notice.message
    assert [message.role for message in response.messages] == ["assistant", "tool", "assistant"]


async def test_rounds_end_at_ten_unless_said_otherwise(surface):
    engine = Scripted(*[call("double", '{"number": 1}')] * 11)
    response = await surface.client(engine, tools=[double]).ask("?")
    assert len(engine.requests) == 11
    assert [notice.subject for notice in response.warnings] == ["max_tool_rounds"]


async def test_a_tool_spec_is_advertised_and_never_run(surface):
    spec = ToolSpec("search", "Search.", {"type": "object", "properties": {}})
    with Scripted(call("search")) as engine:
        response = await surface.client(engine).ask("?", tools=[spec])
    assert engine.requests[0].tools == (spec,)
    assert [made.name for made in response.tool_calls] == ["search"]
    assert response.finish_reason == "tool_calls"


async def test_nothing_of_a_round_is_run_here_if_a_part_of_it_is_run_elsewhere(surface):
    ran: list[int] = []

    def local(number: int) -> None:
        ran.append(number)

    with Scripted(calls(call("local", '{"number": 1}'), call("search"))) as engine:
        response = await surface.client(engine).ask("?", tools=[local, ToolSpec("search")])
    assert ran == []
    assert [made.name for made in response.tool_calls] == ["local", "search"]


async def test_tools_of_a_call_take_the_place_of_the_clients_for_that_call(surface):
    engine = Scripted("a", "b", "c", "d")
    client = surface.client(engine, tools=[double])
    for tools in (None, [], [raising], None):
        await client.ask("?", tools=tools)
    assert [[spec.name for spec in request.tools] for request in engine.requests] == [
        ["double"],
        [],
        ["raising"],
        ["double"],
    ]


async def test_tools_of_a_call_take_the_place_of_the_chats_for_that_call(surface):
    engine = Scripted("a", "b", "c", "d", "e")
    client = surface.client(engine, tools=[raising])
    chat = client.chat(tools=[double])
    for tools in (None, [], [raising], None):
        await chat("?", tools=tools)
    await client.chat(tools=[])("?")
    assert [[spec.name for spec in request.tools] for request in engine.requests] == [
        ["double"],
        [],
        ["raising"],
        ["double"],
        [],
    ]


async def test_tools_may_come_from_an_iterator_and_serve_every_call_of_a_chat(surface):
    engine = Scripted("a", "b")
    chat = surface.client(engine).chat(tools=iter([double]))
    await chat("?")
    await chat("?")
    assert [len(request.tools) for request in engine.requests] == [1, 1]


async def test_the_context_is_given_to_the_tool_and_hidden_from_the_model(surface):
    seen: list[ToolContext] = []

    def look(number: int, context: ToolContext) -> bool:
        seen.append(context)
        return context.cancelled

    with Scripted(call("look", '{"number": 1}', "a"), "done") as engine:
        await surface.client(engine, tools=[look]).ask("?")
    assert list(engine.requests[0].tools[0].parameters["properties"]) == ["number"]
    assert seen[0].call == call("look", '{"number": 1}', "a")
    assert results_in(engine)[0].text == "false"


async def test_the_model_cannot_fill_in_the_context(surface):
    def look(context: ToolContext) -> str:
        return type(context).__name__

    with Scripted(call("look", '{"context": {"cancelled": true}}'), "done") as engine:
        await surface.client(engine, tools=[look]).ask("?")
    assert results_in(engine)[0].is_error


@dataclass
class Place:
    name: str
    people: int


class Model(pydantic.BaseModel):
    name: str
    tags: list[str] = []


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ("plain", (Text(text="plain"),)),
        ("", (Text(text=""),)),
        ({"a": [1, None]}, (Value(value={"a": [1, None]}),)),
        ([1, 2], (Value(value=[1, 2]),)),
        (None, (Value(value=None),)),
        (3.5, (Value(value=3.5),)),
        (Place("Oslo", 7), (Value(value={"name": "Oslo", "people": 7}),)),
        (Model(name="x", tags=["y"]), (Value(value={"name": "x", "tags": ["y"]}),)),
        ([Model(name="x")], (Value(value=[{"name": "x", "tags": []}]),)),
        (Image(data=PNG, media_type="image/png"), (Image(data=PNG, media_type="image/png"),)),
        (["see", Image(url="http://x/y.png")], (Text(text="see"), Image(url="http://x/y.png"))),
        (Text(text="a part"), (Text(text="a part"),)),
        (float("nan"), (Text(text="nan"),)),
        ({1j}, (Text(text="{1j}"),)),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_what_a_tool_returns_is_shown_to_the_model(surface, value, content):
    def work() -> Any:
        return value

    with Scripted(call("work"), "done") as engine:
        await surface.client(engine, tools=[work]).ask("?")
    (result,) = results_in(engine)
    assert result.content == content
    assert not result.is_error


async def test_a_dataclass_is_an_argument_of_a_tool(surface):
    seen: list[Place] = []

    def visit(place: Place, nights: int = 1) -> None:
        seen.append(place)

    with Scripted(call("visit", '{"place": {"name": "Oslo", "people": 7}}'), "done") as engine:
        await surface.client(engine, tools=[visit]).ask("?")
    assert not results_in(engine)[0].is_error
    assert seen == [Place("Oslo", 7)]


def answering(*choices: dict[str, Any]) -> Any:
    return whole(json.dumps({"id": "1", "model": "m", "choices": choices}).encode(), "Content-Type: application/json")


async def test_a_call_in_an_answer_that_was_broken_off_is_not_run(surface):
    made = {"id": "a", "type": "function", "function": {"name": "double", "arguments": '{"number": 1}'}}
    message = {"role": "assistant", "content": "Hel", "tool_calls": [made]}
    ran: list[int] = []

    def double(number: int) -> int:
        ran.append(number)
        return 2 * number

    with Server(answering({"index": 0, "message": message, "finish_reason": "error"})) as server:
        client = surface.client(f"openrouter:m@{server.url}", tools=[double], max_attempts=1)
        with pytest.raises(ServerError) as raised:
            await client.ask("?")
    assert raised.value.partial is not None
    assert raised.value.partial.text == "Hel"
    assert ran == []


async def test_an_end_of_an_unknown_kind_is_said(surface):
    said = {"index": 0, "message": {"role": "assistant", "content": "Hel"}, "finish_reason": "tired"}
    with Server(answering(said)) as server:
        response = await surface.client(f"openrouter:m@{server.url}").ask("?")
    assert (response.text, response.finish_reason) == ("Hel", "unknown")
    assert [(notice.kind, notice.subject) for notice in response.warnings] == [("provider", "finish_reason")]
    assert "tired" in response.warnings[0].message


async def test_each_of_several_answers_says_why_it_ended(surface):
    choices = [
        {"index": number, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
        for number, (text, reason) in enumerate((("a", "stop"), ("cut", "length")))
    ]
    with Server(answering(*choices)) as server:
        response = await surface.client(f"openrouter:m@{server.url}").ask("?", n=2)
    assert [choice.text for choice in response.choices] == ["a", "cut"]
    assert response.finish_reasons == ("stop", "length")
    assert response.finish_reason == "stop"


# Ids, counts and what a response holds


async def test_calls_without_an_id_get_one_that_is_unique_in_the_history(surface):
    script = Scripted(
        calls(call("double", '{"number": 1}'), call("double", '{"number": 2}')),
        call("double", '{"number": 3}', "call_2"),
        call("double", '{"number": 4}'),
        "done",
        call("double", '{"number": 5}'),
        "done",
    )
    with script as engine:
        chat = surface.client(engine, tools=[double]).chat()
        await chat("?")
        await chat("again")
    made = [made for message in chat.messages for made in message.tool_calls]
    ids = [one.id for one in made]
    assert all(ids)
    assert len(set(ids)) == 5
    assert [one.synthetic for one in made] == [True, True, False, True, True]
    assert ids[2] == "call_2"
    answered = [part.call_id for message in chat.messages for part in message.parts if isinstance(part, ToolResult)]
    assert answered == ids


async def test_two_calls_of_one_answer_with_the_same_id_are_told_apart(surface):
    script = Scripted(
        calls(call("double", '{"number": 1}', "x"), call("double", '{"number": 2}', "x")),
        "done",
    )
    with script as engine:
        response = await surface.client(engine, tools=[double]).ask("?")
    first, second = response.messages[0].tool_calls
    assert (first.id, first.synthetic) == ("x", False)
    assert second.synthetic
    assert [(result.call_id, result.text) for result in results_in(engine)] == [("x", "2"), (second.id, "4")]


async def test_an_id_that_a_server_gives_in_every_answer_is_told_apart(surface):
    """Some servers number the calls of each answer from 0 again."""
    script = Scripted(call("double", '{"number": 1}', "0"), call("double", '{"number": 2}', "0"), "done")
    with script as engine:
        response = await surface.client(engine, tools=[double]).ask("?")
    ids = [made.id for message in response.messages for made in message.tool_calls]
    assert len(set(ids)) == 2
    answered = [part.call_id for message in response.messages for part in message.parts if isinstance(part, ToolResult)]
    assert answered == ids


def counted(text: str, usage: Usage, *parts: Any) -> list[Any]:
    return [Head("1", "m"), Open(0, "text"), TextDelta(0, text), Close(0), *parts, Count(usage), Finish("stop")]


async def test_usage_is_summed_over_the_rounds_and_unknown_stays_unknown(surface):
    first = [
        Head("1", "m"),
        Open(0, "call", "a", "double"),
        TextDelta(0, '{"number": 1}'),
        Count(Usage(input=5, output=1)),
        Count(Usage(output=2, reasoning=4)),
        Finish("tool_calls"),
    ]
    with Scripted(first, counted("done", Usage(input=10, cache_read=3, output=20))) as engine:
        response = await surface.client(engine, tools=[double]).ask("?")
    assert response.usage == Usage(input=15, cache_read=3, output=22, reasoning=4)
    assert response.usage.total_tokens == 44
    assert response.usage.cache_write is None


async def test_a_response_holds_all_that_the_turn_added(surface):
    script = Scripted(
        Message("assistant", (Thinking(text="hm "), Text(text="Let me see. "), call("double", '{"number": 1}', "a"))),
        "Two.",
    )
    with script as engine:
        response = await surface.client(engine, tools=[double]).ask("?")
    first, second, third = response.messages
    assert [type(part) for part in first.parts] == [Thinking, Text, ToolCall]
    assert second == Message("tool", (ToolResult(call_id="a", name="double", content=(Value(value=2),)),))
    assert third == response.message
    assert response.text == "Two."
    assert response.model == "scripted"
    assert response.parsed is None
    assert 0 <= response.timings.first_token <= response.timings.total


# The stream


async def test_a_stream_shows_every_phase_in_order_and_done_once(surface):
    script = Scripted(
        Message("assistant", (Thinking(text="hm so"), Text(text="Let me "), call("double", '{"number": 1}', "a"))),
        "It is two.",
    )
    with script as engine:
        chunks = await read(surface.client(engine, tools=[double]).stream("?"))
    assert chunks == [
        StreamChunk("thinking", "hm ", None, 0),
        StreamChunk("thinking", "so", None, 0),
        StreamChunk("generating", "Let ", None, 0),
        StreamChunk("generating", "me ", None, 0),
        StreamChunk("tool_calling", {"name": "double", "arguments": {"number": 1}, "response": "2"}, None, 0),
        StreamChunk("generating", "It ", None, 1),
        StreamChunk("generating", "is ", None, 1),
        StreamChunk("generating", "two.", None, 1),
        StreamChunk("done", "", None, 1),
    ]
    assert [chunk.is_done() for chunk in chunks].index(True) == len(chunks) - 1
    assert chunks[0].is_thinking()
    assert chunks[0].is_text()
    assert chunks[4].is_tool_call()
    assert not chunks[4].is_text()
    phase, content, agent, iteration = chunks[2]
    assert (phase, content, agent, iteration) == ("generating", "Let ", None, 0)


async def test_every_call_of_a_round_is_shown_once_also_one_that_failed(surface):
    asked = calls(
        call("double", '{"number": 1}'), call("raising", '{"number": 2}'), call("double", "{"), call("absent")
    )
    with Scripted(asked, "done") as engine:
        chunks = await read(surface.client(engine, tools=[double, raising]).stream("?", include=["tool_calling"]))
    assert [chunk.content["name"] for chunk in chunks] == ["double", "raising", "double", "absent"]
    assert [chunk.content["arguments"] for chunk in chunks] == [{"number": 1}, {"number": 2}, "{", {}]
    assert chunks[0].content["response"] == "2"
    assert all("Error" in chunk.content["response"] for chunk in chunks[1:])
    assert all(set(chunk.content) == {"name", "arguments", "response"} for chunk in chunks)


async def test_a_refusal_is_shown_as_text(surface):
    stream = surface.client(Scripted(Refusal(text="I will not."))).stream("?")
    assert texts(await read(stream)) == "I will not."
    assert stream.response.refusal == "I will not."
    assert stream.response.text == ""
    assert stream.response.finish_reason == "refusal"


@pytest.mark.parametrize(
    ("include", "phases"),
    [
        (None, ["thinking", "generating", "tool_calling", "generating", "done"]),
        ([], []),
        (["generating"], ["generating", "generating"]),
        ("generating", ["generating", "generating"]),
        (("thinking", "done"), ["thinking", "done"]),
        ({"tool_calling"}, ["tool_calling"]),
        (iter(["done"]), ["done"]),
    ],
    ids=str,
)
async def test_include_chooses_the_phases_and_changes_nothing_else(surface, include, phases):
    if surface.name != "blocking" and not hasattr(include, "__len__") and include is not None:
        include = iter(["done"])
    script = Scripted(
        Message("assistant", (Thinking(text="hm"), Text(text="so"), call("double", '{"number": 1}', "a"))),
        "two",
    )
    with script as engine:
        stream = surface.client(engine, tools=[double]).stream("?", include=include)
        assert [chunk.phase for chunk in await read(stream)] == phases
    assert stream.response.text == "two"
    assert len(stream.response.messages) == 3


@pytest.mark.parametrize("include", [["generatin"], "generatin", [7], ["generating", "all"]], ids=str)
async def test_a_phase_that_is_none_is_refused_before_anything_is_sent(surface, include):
    engine = Scripted("unasked")
    with pytest.raises(ConfigurationError, match="is no phase; there are: "):
        surface.client(engine).stream("?", include=include)
    assert engine.requests == []


@pytest.mark.parametrize("include", [5, object()], ids=["5", "object"])
async def test_an_include_that_is_no_list_is_refused_by_name(surface, include):
    with pytest.raises(ConfigurationError, match="include"):
        surface.client(Scripted("unasked")).stream("?", include=include)


async def test_nothing_is_sent_before_the_first_chunk_is_asked_for(surface):
    engine = Scripted("Hello")
    stream = surface.client(engine).stream("?")
    assert engine.requests == []
    await read(stream)
    assert engine.requests[0].stream


async def test_ask_and_stream_give_the_same_response(surface):
    def script() -> Scripted:
        return Scripted(
            Message("assistant", (Thinking(text="hm"), Text(text="so "), call("double", '{"number": 1}'))),
            Message("assistant", (Text(text="It is 2."),), model="named"),
        )

    asked = await surface.client(script(), tools=[double]).ask("?")
    stream = surface.client(script(), tools=[double]).stream("?")
    await read(stream)
    same = {"timings": asked.timings}
    assert msgspec.structs.replace(stream.response, **same) == asked
    assert stream.response is stream.response
    assert asked.model == "named"


async def test_the_response_of_a_stream_that_goes_on_is_an_error_that_says_what_to_do(surface):
    stream = surface.client(Scripted("one two")).stream("?")
    with pytest.raises(StreamInterrupted, match="read it to its end, or close it"):
        _ = stream.response
    async for _ in stream:
        with pytest.raises(StreamInterrupted):
            _ = stream.response
        break
    await read(stream)
    assert stream.response.text == "one two"


async def test_a_stream_closed_early_has_what_had_come(surface):
    stream = surface.client(Scripted("one two three")).stream("?")
    async for chunk in stream:
        assert chunk.content == "one "
        break
    stream.close()
    stream.close()
    assert stream.response.finish_reason == "cancelled"
    assert stream.response.text in ("one ", "one two ", "one two three")  # an engine may have run ahead
    assert stream.response.messages == ()


async def test_a_stream_left_by_its_with_block_is_closed(surface):
    engine = Waiting("one ", "two ")
    async with surface.client(engine).stream("?") as stream:
        async for _ in stream:
            break
    assert stream.response.finish_reason == "cancelled"
    assert stream.response.text.startswith("one ")
    assert engine.is_left.wait(5)


async def test_a_stream_that_was_closed_is_not_read_to_what_looks_like_its_end(surface):
    """A loop over it in another place must not take it for a whole answer."""
    stream = surface.client(Scripted("one two three")).stream("?")
    async for _ in stream:
        break
    stream.close()
    with pytest.raises(ClosedError):
        await read(stream)
    assert stream.response.finish_reason == "cancelled"


async def test_a_stream_closed_before_it_was_read_sends_nothing(surface):
    engine = Scripted("unasked")
    stream = surface.client(engine).stream("?")
    stream.close()
    assert stream.response.finish_reason == "cancelled"
    assert stream.response.text == ""
    with pytest.raises(ClosedError):
        await read(stream)
    assert engine.requests == []


async def test_a_whole_stream_stays_whole_when_it_is_closed(surface):
    async with surface.client(Scripted("one two")).stream("?") as stream:
        await read(stream)
        stream.close()
    assert stream.response.finish_reason == "stop"
    assert await read(stream) == []


async def test_close_from_another_thread_ends_a_stream_that_is_being_read(surface):
    engine = Waiting("one ", "two ")
    stream = surface.client(engine).stream("?")
    seen: list[str] = []

    def closer() -> None:
        assert engine.is_silent.wait(10)
        stream.close()

    async def reader() -> None:
        async for chunk in stream:
            seen.append(chunk.content)  # noqa: PERF401 - it is to be seen although the loop fails

    thread = threading.Thread(target=closer)
    thread.start()
    with pytest.raises(ClosedError, match="closed by its owner"):
        await reader()
    thread.join(10)
    assert seen == ["one ", "two "][: len(seen)]
    assert stream.response.finish_reason == "cancelled"
    assert stream.response.text in ("", "one ", "one two ")
    assert engine.is_left.wait(5)


async def test_a_dropped_stream_lets_its_engine_go(surface):
    engine = Waiting("one ")
    stream = surface.client(engine).stream("?")
    async for _ in stream:
        break
    del stream, _
    gc.collect()
    if not surface.is_blocking:
        await asyncio.sleep(0)  # the loop closes our generators
    assert engine.is_left.wait(5)


async def test_an_error_is_raised_again_as_the_response_with_what_had_come(surface):
    broken = [Head("1", "m"), Open(0, "text"), TextDelta(0, "so far"), TextDelta(7, "nowhere")]
    stream = surface.client(Scripted(broken)).stream("?")
    with pytest.raises(StreamProtocolError) as caught:
        await read(stream)
    with pytest.raises(StreamProtocolError) as again:
        _ = stream.response
    assert again.value is caught.value
    assert caught.value.partial.text == "so far"


async def test_every_error_of_a_turn_names_its_model(surface):
    broken = [Head("1", "m"), Open(0, "text"), TextDelta(7, "nowhere")]
    for answer, kind in ((broken, StreamProtocolError), ("prose", StructuredOutputError)):
        with pytest.raises(kind) as caught:
            await surface.client(Scripted(answer)).ask("?", schema=Place)
        assert caught.value.model == "scripted"


async def test_ask_raises_with_what_had_come(surface):
    broken = [Head("1", "m"), Open(0, "text"), TextDelta(0, "so far"), TextDelta(7, "nowhere")]
    engine = Scripted(call("double", '{"number": 1}'), broken)
    with pytest.raises(StreamProtocolError) as caught:
        await surface.client(engine, tools=[double]).ask("?")
    assert caught.value.partial.text == "so far"


async def test_a_call_that_has_no_name_yet_is_no_partial_message(surface):
    broken = [Head("1", "m"), Open(0, "call", "a"), TextDelta(0, "{"), TextDelta(7, "nowhere")]
    with pytest.raises(StreamProtocolError) as caught:
        await surface.client(Scripted(broken)).ask("?")
    assert caught.value.partial == Message("assistant", (), id="1", model="m")


async def test_a_call_without_a_name_keeps_what_came_before_it(surface):
    broken = [
        *[Head("1", "m"), Open(0, "text"), TextDelta(0, "so far"), Close(0)],
        *[Open(1, "call", "a"), TextDelta(1, "{"), TextDelta(7, "nowhere")],
    ]
    with pytest.raises(StreamProtocolError) as caught:
        await surface.client(Scripted(broken)).ask("?")
    assert caught.value.partial.text == "so far"


async def test_an_exception_of_an_engine_that_is_none_of_ours_is_named_as_one_of_ours(surface):
    """Nothing foreign escapes: an engine that breaks is an EngineError."""
    with pytest.raises(EngineError, match="disk on fire"):
        await surface.client(Scripted(OSError("disk on fire"))).ask("?")


# A stream on an event loop


def test_a_cancelled_task_ends_its_turn_and_leaves_the_chat_usable():
    engine = Waiting("one ")

    async def main() -> None:
        async with aio.Client(engine) as client:
            chat = client.chat()
            task = asyncio.create_task(chat("?"))
            await asyncio.to_thread(engine.is_silent.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(engine.is_left.wait, 5)
            assert chat.messages == ()
            chat.append(user("free again"))

    asyncio.run(main())


def test_leaving_the_with_block_while_another_task_reads_raises_nothing_foreign():
    engine = Waiting("one ")

    async def main() -> None:
        async with aio.Client(engine) as client:
            async with client.stream("?") as stream:
                assert (await anext(stream)).content == "one "
                reading = asyncio.create_task(anext(stream))
                await asyncio.to_thread(engine.is_silent.wait, 10)
            with pytest.raises(ClosedError):
                await reading

    asyncio.run(main())


def test_a_cut_turn_does_not_wait_for_an_async_tool_that_is_deaf():
    """On either surface jobs that do not listen are left behind."""
    began, over = asyncio.Event(), asyncio.Event()

    async def deaf() -> None:
        began.set()
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                pass

    async def main() -> None:
        async with aio.Client(Scripted(call("deaf")), tools=[deaf]) as client:
            stream = client.stream("?")
            reading = asyncio.create_task(anext(stream))
            await began.wait()
            stream.close()
            try:
                done, _ = await asyncio.wait([reading], timeout=1)
                assert done, "the reader waits for the tool"
            finally:
                over.set()
            with pytest.raises(ClosedError):
                await reading

    asyncio.run(main())


# Answers with a shape


class Answer(TypedDict):
    name: str
    people: int


ANSWER = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
OSLO = '{"name": "Oslo", "people": 7}'


@pytest.mark.parametrize(
    ("schema", "parsed"),
    [
        (Place, Place("Oslo", 7)),
        (Answer, {"name": "Oslo", "people": 7}),
        (ANSWER, {"name": "Oslo", "people": 7}),
    ],
    ids=["dataclass", "TypedDict", "dict"],
)
@pytest.mark.parametrize("is_stream", [False, True], ids=["ask", "stream"])
async def test_an_answer_is_parsed_to_the_type_that_was_asked_for(surface, schema, parsed, is_stream):
    with Scripted(OSLO) as engine:
        client = surface.client(engine)
        if is_stream:
            stream = client.stream("?", schema=schema)
            assert texts(await read(stream)) == OSLO
            response = stream.response
        else:
            response = await client.ask("?", schema=schema)
    assert response.parsed == parsed
    assert type(response.parsed) is type(parsed)
    assert response.text == OSLO
    assert engine.requests[0].schema.json["properties"]["name"]["type"] == "string"


async def test_a_pydantic_model_is_a_schema(surface):
    response = await surface.client(Scripted('{"name": "x", "tags": ["y"]}')).ask("?", schema=Model)
    assert response.parsed == Model(name="x", tags=["y"])


async def test_tools_run_before_the_answer_that_is_parsed(surface):
    with Scripted(call("double", '{"number": 1}'), OSLO) as engine:
        response = await surface.client(engine, tools=[double]).ask("?", schema=Place)
    assert response.parsed == Place("Oslo", 7)
    assert len(response.messages) == 3
    assert engine.requests[1].schema == engine.requests[0].schema


def finished(text: str, reason: Any) -> list[Any]:
    return [Head("1", "m"), Open(0, "text"), TextDelta(0, text), Close(0), Finish(reason)]


@pytest.mark.parametrize(
    ("answer", "words", "shown"),
    [
        ("Oslo has 7 people.", "not JSON", "Oslo has 7 people."),
        ('{"name": "Oslo"}', "people", '{"name": "Oslo"}'),
        ('{"name": "Oslo", "people": "7"}', "people", None),
        ("", "not JSON", ""),
        (finished('{"name": "Os', "length"), "max_tokens", '{"name": "Os'),
        (finished(OSLO, "length"), "max_tokens", OSLO),
        (call("absent_here", "{}"), "called tools", ""),
        (Refusal(text="I will not."), "I will not", ""),
    ],
    ids=["prose", "incomplete", "misfit", "empty", "cut", "cut at the end", "call", "refusal"],
)
@pytest.mark.parametrize("is_stream", [False, True], ids=["ask", "stream"])
async def test_an_answer_that_does_not_fit_is_an_error_with_the_answer(surface, answer, words, shown, is_stream):
    chat = surface.client(Scripted(answer), max_tool_rounds=0).chat()
    with pytest.raises(StructuredOutputError, match=words) as caught:
        await (read(chat.stream("?", schema=Place)) if is_stream else chat("?", schema=Place))
    assert caught.value.partial is not None
    if shown is not None:
        assert caught.value.partial.text == shown
    assert chat.messages == ()


async def test_a_misfit_keeps_the_tool_rounds_that_were_complete(surface):
    engine = Scripted(call("double", '{"number": 1}'), "prose", OSLO)
    chat = surface.client(engine, tools=[double]).chat()
    with pytest.raises(StructuredOutputError):
        await chat("?", schema=Place)
    assert [message.role for message in chat.messages] == ["user", "assistant", "tool"]
    assert (await chat("As JSON, please.", schema=Place)).parsed == Place("Oslo", 7)


@pytest.mark.parametrize("schema", [int, "Place", 7, [Place]], ids=repr)
async def test_a_schema_that_is_no_object_is_refused_before_anything_is_sent(surface, schema):
    engine = Scripted("unasked")
    with pytest.raises(ConfigurationError):
        await surface.client(engine).ask("?", schema=schema)
    assert engine.requests == []


# Several answers


async def test_n_answers_are_choices_and_the_first_is_the_message(surface):
    both = [
        Head("1", "m"),
        *[Open(0, "text"), Open(1, "text", choice=1), TextDelta(0, "one"), TextDelta(1, "uno")],
        *[Close(0), Close(1), Finish("stop"), Finish("stop", 1)],
    ]
    with Scripted(both) as engine:
        stream = surface.client(engine).stream("?", n=2)
        assert texts(await read(stream)) == "one"
    response = stream.response
    assert [choice.text for choice in response.choices] == ["one", "uno"]
    assert response.message == response.choices[0]
    assert response.messages == (response.message,)


async def test_the_prompt_is_sent_as_it_was_written(surface):
    engine = Scripted(*"abcdef")
    client = surface.client(engine)
    picture = Image(data=PNG, media_type="image/png")
    await client.ask("Hello", system="Be brief.")
    await client.ask(user("Hello"))
    await client.ask([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}])
    await client.ask([user("Hi"), assistant("Hello"), user("And?")])
    await client.ask(["What is this?", picture])
    await client.ask("What is this?", images=[PNG])
    assert [request.messages for request in engine.requests] == [
        (system("Be brief."), user("Hello")),
        (user("Hello"),),
        (system("Be brief."), user("Hello")),
        (user("Hi"), assistant("Hello"), user("And?")),
        (user("What is this?", picture),),
        (user("What is this?", picture),),
    ]


READY = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


async def test_an_answer_that_could_not_be_held_against_its_schema_says_so(surface, monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    response = await surface.client(Scripted('{"n": "no number"}')).ask("?", schema=READY)
    assert response.parsed == {"n": "no number"}
    (notice,) = response.warnings
    assert "was not held against the schema" in str(notice)


async def test_an_answer_is_held_against_a_ready_schema(surface):
    with pytest.raises(StructuredOutputError, match="integer"):
        await surface.client(Scripted('{"n": "no number"}')).ask("?", schema=READY)


async def test_an_error_has_the_warnings_that_came_before_it(surface, monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(StructuredOutputError) as caught:
        await surface.client(Scripted("no JSON")).ask("?", schema=READY)
    (notice,) = caught.value.warnings
    assert "was not held against the schema" in str(notice)
    assert pickle.loads(pickle.dumps(caught.value)).warnings == caught.value.warnings
    with pytest.raises(EngineError) as caught:
        await surface.client(Scripted(EngineError("down"))).ask("?")
    assert caught.value.warnings == ()


async def test_a_second_reader_of_a_stream_is_told_and_the_first_reads_on(surface):
    engine = Waiting("One ")
    client = surface.client(engine)
    stream = client.stream("?")
    assert (await anext(stream)).content == "One "

    async def second():
        await surface.in_thread(lambda: engine.is_silent.wait(5))
        with pytest.raises(ConfigurationError, match="read by another"):
            await anext(stream)
        stream.close()

    async def first():
        with pytest.raises(ClosedError):
            await anext(stream)

    await surface.at_once(first, second)


async def test_a_choice_that_forces_a_tool_holds_until_one_has_run(surface):
    for choice, then in (("required", None), ("double", None), ("none", "none"), ("auto", None)):
        engine = Scripted(ToolCall(name="double", input='{"number": 2}', id="c"), "It is 4.")
        response = await surface.client(engine).ask("Double 2.", tools=[double], tool_choice=choice)
        assert response.text == "It is 4."
        assert [request.tool_choice for request in engine.requests] == [choice, then]
