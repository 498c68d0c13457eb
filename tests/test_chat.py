"""A conversation: what of a turn stays in its history, however the turn ended."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import threading
from typing import Any

import pytest
from fakes import Waiting

from sabir import (
    ClosedError,
    ConfigurationError,
    EngineError,
    Image,
    Message,
    ProviderState,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    aio,
    assistant,
    dump_messages,
    load_messages,
    system,
    user,
)
from sabir.deltas import Head, Open
from sabir.deltas import Text as TextDelta
from sabir.requests import Request
from sabir.runtime import Line
from sabir.testing import Scripted

BROKEN = [Head("1", "m"), Open(0, "text"), TextDelta(0, "so far"), TextDelta(7, "nowhere")]


def call(name: str, arguments: str = "{}", call_id: str | None = None) -> ToolCall:
    return ToolCall(name=name, input=arguments, id=call_id)


def double(number: int) -> int:
    return 2 * number


ROUND = call("double", '{"number": 1}', "a")


async def read(stream: Any) -> list[Any]:
    return [chunk async for chunk in stream]


def roles(chat: Any) -> list[str]:
    return [message.role for message in chat.messages]


def unpaired(messages: tuple[Message, ...]) -> set[str | None]:
    """The ids of calls that are not answered by the very next message."""
    left: set[str | None] = set()
    for index, message in enumerate(messages):
        after = messages[index + 1].parts if index + 1 < len(messages) else ()
        answered = {part.call_id for part in after if isinstance(part, ToolResult)}
        left |= {made.id for made in message.tool_calls} - answered
    return left


class Then:
    """An engine that answers as one engine first and goes on as another."""

    name = "then"

    def __init__(self, first: Scripted, other: Waiting) -> None:
        self.first = first
        self.other = other
        self.is_first = True

    def deltas(self, request: Request, line: Line) -> Any:
        if self.is_first:
            self.is_first = False
            return self.first.deltas(request, line)
        return self.other.deltas(request, line)

    def close(self) -> None:
        pass


# What is said stays


async def test_a_chat_remembers_what_was_said(surface):
    with Scripted("Hello Ann.", "Ann.") as engine:
        chat = surface.client(engine).chat(system="Be brief.")
        assert chat.messages == (system("Be brief."),)
        assert (await chat("I am Ann.")).text == "Hello Ann."
        assert (await chat("Who am I?")).text == "Ann."
    assert [message.text for message in chat.messages] == [
        "Be brief.",
        "I am Ann.",
        "Hello Ann.",
        "Who am I?",
        "Ann.",
    ]
    assert engine.requests[1].messages == chat.messages[:-1]


async def test_a_streamed_answer_is_part_of_the_history_once_it_has_ended(surface):
    chat = surface.client(Scripted("one two", "three")).chat()
    stream = chat.stream("?")
    async for _ in stream:
        assert chat.messages == ()
        break
    await read(stream)
    assert roles(chat) == ["user", "assistant"]
    assert chat.messages[-1] == stream.response.message
    await read(chat.stream("And?"))
    assert [message.text for message in chat.messages] == ["?", "one two", "And?", "three"]


async def test_a_turn_with_tools_leaves_all_its_rounds(surface):
    with Scripted(ROUND, call("double", '{"number": 2}', "b"), "done") as engine:
        chat = surface.client(engine, tools=[double]).chat()
        response = await chat("?")
    assert roles(chat) == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    assert chat.messages[1:] == response.messages
    assert unpaired(chat.messages) == set()


async def test_several_messages_can_be_said_at_once(surface):
    chat = surface.client(Scripted("a", "b")).chat()
    await chat([user("one"), assistant("two"), user("three")])
    await chat({"role": "user", "content": "four"})
    assert [message.text for message in chat.messages] == ["one", "two", "three", "a", "four", "b"]


# A turn that fails


async def test_a_turn_that_fails_in_its_first_answer_leaves_nothing(surface):
    with Scripted("Hi.", BROKEN, EngineError("down"), "Good.") as engine:
        chat = surface.client(engine).chat()
        await chat("Hello")
        before = chat.messages
        for _ in range(2):
            with pytest.raises((ValueError, EngineError)):
                await chat("How are you?")
            assert chat.messages is before
        assert (await chat("How are you?")).text == "Good."
    assert [message.text for message in engine.requests[-1].messages] == ["Hello", "Hi.", "How are you?"]


async def test_a_turn_that_fails_after_a_round_leaves_the_round(surface):
    with Scripted(ROUND, BROKEN, "Two.") as engine:
        chat = surface.client(engine, tools=[double]).chat()
        with pytest.raises(ValueError, match="never opened") as caught:
            await chat("What is 1 + 1?")
        assert roles(chat) == ["user", "assistant", "tool"]
        assert caught.value.partial.text == "so far"
        assert (await chat("Well?")).text == "Two."
    assert roles(chat) == ["user", "assistant", "tool", "user", "assistant"]
    assert engine.requests[-1].messages == chat.messages[:-1]


async def test_a_stream_that_fails_after_a_round_leaves_the_round(surface):
    with Scripted(ROUND, BROKEN, "Two.") as engine:
        chat = surface.client(engine, tools=[double]).chat()
        with pytest.raises(ValueError, match="never opened"):
            await read(chat.stream("What is 1 + 1?"))
        assert roles(chat) == ["user", "assistant", "tool"]
        await read(chat.stream("Well?"))
    assert roles(chat) == ["user", "assistant", "tool", "user", "assistant"]


# A turn that is left

LEAVINGS = ["close", "with", "del", "close in a thread", "chat.close", "client.close"]


async def leave(surface: Any, how: str, client: Any, chat: Any, until: int) -> None:
    """Read a stream until `until` chunks have come, and leave it in one of many ways."""
    stream = chat.stream("?")
    seen = 0
    async for _ in stream:
        seen += 1
        if seen == until:
            break
    if how == "close":
        stream.close()
    elif how == "with":
        async with stream:
            pass
    elif how == "del":
        del stream
        gc.collect()
    elif how == "close in a thread":
        await surface.in_thread(stream.close)
    elif how == "chat.close":
        chat.close()
    elif how == "client.close":
        client.close()


@pytest.mark.parametrize("how", LEAVINGS)
async def test_a_stream_left_in_its_first_answer_leaves_nothing(surface, how):
    client = surface.client(Waiting("one ", "two "))
    chat = client.chat(messages=[user("Hello"), assistant("Hi.")])
    before = chat.messages
    await leave(surface, how, client, chat, until=1)
    assert chat.messages is before


@pytest.mark.parametrize("how", LEAVINGS)
async def test_a_stream_left_after_a_round_leaves_the_round(surface, how):
    engine = Then(Scripted(ROUND), Waiting("one ", "two "))
    client = surface.client(engine, tools=[double])
    chat = client.chat()
    await leave(surface, how, client, chat, until=2)
    assert roles(chat) == ["user", "assistant", "tool"]
    assert unpaired(chat.messages) == set()
    assert surface.name == "asyncio" or engine.other.is_left.wait(5)


@pytest.mark.parametrize("how", LEAVINGS[:4])
async def test_a_chat_goes_on_after_a_stream_that_was_left(surface, how):
    engine = Scripted(ROUND, "one two three four", "Fine.")
    client = surface.client(engine, tools=[double])
    chat = client.chat()
    await leave(surface, how, client, chat, until=2)
    assert (await chat("Well?")).text == "Fine."
    assert roles(chat) == ["user", "assistant", "tool", "user", "assistant"]
    assert engine.requests[-1].messages == chat.messages[:-1]


async def test_a_stream_that_was_never_read_leaves_nothing_and_the_chat_free(surface):
    engine = Scripted("Fine.")
    chat = surface.client(engine).chat()
    chat.stream("?").close()
    stream = chat.stream("?")
    del stream
    gc.collect()
    assert (await chat("Well?")).text == "Fine."
    assert [message.text for message in engine.requests[0].messages] == ["Well?"]


async def test_a_turn_closed_while_its_tool_runs_leaves_nothing_of_that_round(surface):
    began = threading.Event()

    def slow() -> str:
        began.set()
        leave_now.wait(10)
        return "late"

    leave_now = threading.Event()
    engine = Scripted(ROUND, call("slow", "{}", "b"), "Fine.")
    chat = surface.client(engine, tools=[double, slow]).chat()
    stream = chat.stream("?")

    def closer() -> None:
        assert began.wait(10)
        stream.close()

    thread = threading.Thread(target=closer)
    thread.start()
    with pytest.raises(ClosedError):
        await read(stream)
    thread.join(10)
    leave_now.set()
    assert roles(chat) == ["user", "assistant", "tool"]
    assert unpaired(chat.messages) == set()
    assert (await chat("Well?")).text == "Fine."


@pytest.mark.parametrize("moment", ["answer", "tool", "second answer"])
def test_a_cancelled_task_leaves_the_rounds_that_were_complete(moment):
    waiting = Waiting("one ")
    began = threading.Event()

    async def slow() -> None:
        began.set()
        await asyncio.sleep(30)

    engine: Any = waiting
    if moment != "answer":
        script = Scripted(call("slow", "{}", "a") if moment == "tool" else ROUND)
        engine = Then(script, waiting)

    async def main() -> None:
        async with aio.Client(engine, tools=[double, slow]) as client:
            chat = client.chat()
            task = asyncio.create_task(chat("?"))
            await asyncio.to_thread((began if moment == "tool" else waiting.is_silent).wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert roles(chat) == (["user", "assistant", "tool"] if moment == "second answer" else [])
            chat.append(user("free again"))

    asyncio.run(main())


def test_a_timeout_around_a_turn_leaves_the_chat_usable():
    async def main() -> None:
        async with aio.Client(Then(Scripted(ROUND), Waiting("one "))) as client:
            chat = client.chat(tools=[double])
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await chat("?")
            assert roles(chat) == ["user", "assistant", "tool"]

    asyncio.run(main())


# What is sent is always paired


def not_run(request: Request) -> list[str | None]:
    """The ids of calls that the request says were not run."""
    return [
        part.call_id
        for message in request.messages
        for part in message.parts
        if isinstance(part, ToolResult) and part.is_error and "was not run" in part.text
    ]


def answer_to(call_id: str, words: str = "found") -> Message:
    return Message("tool", (ToolResult(call_id=call_id, name="f", content=(Text(text=words),)),))


A, B = call("f", "{}", "a"), call("f", "{}", "b")


@pytest.mark.parametrize(
    ("history", "said_not_run"),
    [
        ([user("?"), assistant(A)], ["a"]),
        ([user("?"), assistant(A, B)], ["a", "b"]),
        ([user("?"), assistant(A, B), answer_to("a")], ["b"]),
        ([user("?"), assistant(A, B), answer_to("b"), answer_to("a")], []),
        ([user("?"), assistant(A), user("never mind"), assistant("ok")], ["a"]),
        ([user("?"), assistant(A), assistant(B), answer_to("b")], ["a"]),
        ([user("?"), assistant("text")], []),
    ],
    ids=["one", "two", "half", "both", "in the middle", "twice in a row", "none"],
)
async def test_a_call_without_a_result_is_sent_with_one_that_says_it_was_not_run(surface, history, said_not_run):
    engine = Scripted("Fine.")
    chat = surface.client(engine).chat(messages=history)
    await chat("Well?")
    (request,) = engine.requests
    assert not_run(request) == said_not_run
    assert request.messages[-1] == user("Well?")
    sent = [part.call_id for message in request.messages for part in message.parts if isinstance(part, ToolResult)]
    made = [part.id for message in request.messages for part in message.tool_calls]
    assert sorted(sent) == sorted(made)
    # A result stands before the next word of anybody else.
    open_calls: set[str | None] = set()
    for message in request.messages:
        if message.role != "tool":
            assert not open_calls
        open_calls |= {made.id for made in message.tool_calls}
        open_calls -= {part.call_id for part in message.parts if isinstance(part, ToolResult)}


async def test_calls_that_the_caller_runs_are_answered_by_append(surface):
    with Scripted(A, "Found.") as engine:
        chat = surface.client(engine, max_tool_rounds=0).chat()
        response = await chat("?")
        assert response.tool_calls == (A,)
        chat.append(answer_to("a", "it is here"))
        assert (await chat("Well?")).text == "Found."
    assert not_run(engine.requests[-1]) == []
    assert [part.text for part in engine.requests[-1].messages[2].parts] == ["it is here"]


async def test_a_lone_call_id_of_none_is_paired_too(surface):
    history = [user("?"), assistant(ToolCall(name="f")), user("And?")]
    engine = Scripted("Fine.")
    await surface.client(engine).ask(history)
    assert [message.role for message in engine.requests[0].messages] == ["user", "assistant", "tool", "user"]


# One turn at a time


async def test_two_turns_at_once_on_a_chat_are_refused(surface):
    chat = surface.client(Waiting("one ", "two ")).chat()
    stream = chat.stream("first")
    async for _ in stream:
        break
    for begin in (lambda: chat("second"), lambda: read(chat.stream("second"))):
        with pytest.raises(ConfigurationError, match="still going on: read its stream to the end or close it"):
            await begin()
    with pytest.raises(ConfigurationError, match="still going on"):
        chat.append(user("second"))
    stream.close()
    chat.append(user("second"))


async def test_a_chat_cannot_be_asked_by_its_own_tool(surface):
    chats: list[Any] = []

    async def nested() -> str:
        return (await chats[0]("again")).text

    with Scripted(call("nested"), "Fine.") as engine:
        chats.append(surface.client(engine, tools=[nested]).chat())
        response = await chats[0]("?")
    assert response.text == "Fine."
    (result,) = response.messages[1].parts
    assert result.is_error
    assert "still going on" in result.text


async def test_a_turn_that_could_not_begin_leaves_the_chat_free(surface):
    chat = surface.client(Scripted("Fine.")).chat()
    for wrong in ({"temperature": "hot"}, {"tool_choice": "absent"}, {"model": "nowhere:x"}, {"images": ["/nope.png"]}):
        with pytest.raises(ConfigurationError):
            await chat("?", **wrong)
    assert (await chat("Well?")).text == "Fine."
    assert roles(chat) == ["user", "assistant"]


# Fork, append


async def test_a_fork_has_the_same_past_and_a_future_of_its_own(surface):
    engine = Scripted("one", "two", "three")
    chat = surface.client(engine).chat(system="Be brief.", temperature=0.5, tools=[double])
    await chat("a")
    other = chat.fork()
    assert other.messages == chat.messages
    await other("b")
    await chat("c")
    assert [message.text for message in chat.messages] == ["Be brief.", "a", "one", "c", "three"]
    assert [message.text for message in other.messages] == ["Be brief.", "a", "one", "b", "two"]
    assert [request.temperature for request in engine.requests] == [0.5] * 3
    assert [len(request.tools) for request in engine.requests] == [1] * 3
    other.append(user("d"))
    assert len(chat.messages) == 5


async def test_a_chat_can_be_forked_while_a_turn_is_going_on_and_after_it_was_closed(surface):
    chat = surface.client(Scripted("one two", "Fine.", "Fine too.")).chat(messages=[user("Hello"), assistant("Hi.")])
    stream = chat.stream("?")
    async for _ in stream:
        break
    other = chat.fork()
    assert (await other("Well?")).text == "Fine."
    chat.close()
    assert stream.response.finish_reason == "cancelled"
    with pytest.raises(ClosedError, match="fork it"):
        await chat("?")
    assert (await chat.fork()("Well?")).text == "Fine too."


async def test_append_takes_messages_and_plain_ones(surface):
    chat = surface.client(Scripted()).chat()
    chat.append(user("a"), {"role": "assistant", "content": "b"})
    chat.append()
    assert chat.messages == (user("a"), assistant("b"))
    for wrong in ("a text", {"role": "robot", "content": "x"}, {"content": "x"}, None):
        with pytest.raises(ConfigurationError):
            chat.append(wrong)
    assert len(chat.messages) == 2


# Messages are values


async def test_a_history_cannot_be_changed_from_outside(surface):
    history = [user("Hello"), assistant("Hi.")]
    chat = surface.client(Scripted("Fine.")).chat(messages=history)
    history.append(user("smuggled"))
    taken = chat.messages
    assert isinstance(taken, tuple)
    with pytest.raises(AttributeError):
        taken[0].role = "system"
    with pytest.raises(AttributeError):
        taken[0].parts[0].text = "other"
    with pytest.raises(AttributeError):
        chat.messages = ()
    await chat("?")
    assert len(taken) == 2
    assert len(chat.messages) == 4


async def test_a_history_compares_copies_pickles_and_goes_to_json_and_back(surface):
    state = ProviderState("openai_chat", {"signature": "x\u0000é😀"}, "m")
    picture = Image(data=bytes(range(256)), media_type="image/png")
    said = Message("assistant", (Thinking(text="hm", state=state), Text(text="so\ud83d"), ROUND), name="bob")
    with Scripted(said, "done") as engine:
        chat = surface.client(engine, tools=[double]).chat(system="Be brief.")
        await chat(["Look:", picture])
    for other in (
        copy.deepcopy(chat.messages),
        pickle.loads(pickle.dumps(chat.messages)),
        load_messages(dump_messages(chat.messages)),
        load_messages(dump_messages(chat.messages).encode()),
    ):
        assert other == chat.messages
        assert [type(part) for message in other for part in message.parts] == [
            type(part) for message in chat.messages for part in message.parts
        ]
    assert chat.messages[1].parts[1] == picture


async def test_a_stored_chat_goes_on_where_it_was(surface):
    with Scripted(ROUND, "It is 2.", "4") as engine:
        client = surface.client(engine, tools=[double])
        chat = client.chat(system="Be brief.")
        await chat("1 + 1?")
        again = client.chat(messages=load_messages(dump_messages(chat.messages)))
        await again("And doubled?")
    assert again.messages[: len(chat.messages)] == chat.messages
    assert engine.requests[-1].messages == again.messages[:-1]


async def test_the_partial_answer_of_a_broken_stream_is_on_the_error_and_not_in_the_history(surface):
    chat = surface.client(Scripted(BROKEN)).chat()
    stream = chat.stream("?")
    with pytest.raises(ValueError, match="never opened"):
        await read(stream)
    assert chat.messages == ()
    with pytest.raises(ValueError, match="never opened") as caught:
        _ = stream.response
    assert caught.value.partial.text == "so far"


# A chat's settings


async def test_a_chat_has_its_system_message_from_the_start(surface):
    client = surface.client(Scripted("Fine."))
    chat = client.chat(system="Be brief.")
    with pytest.raises(ConfigurationError, match="from the start"):
        await chat("?", system="Be long.")
    with pytest.raises(ConfigurationError, match="already"):
        client.chat(messages=[system("a")], system="b")
    assert client.chat(messages=[system("a"), user("b")]).messages == (system("a"), user("b"))


async def test_images_go_with_a_prompt_and_not_with_a_chat(surface):
    with pytest.raises(ConfigurationError, match="images= go with a prompt"):
        surface.client(Scripted()).chat(images=["a.png"])


async def test_closing_a_chat_ends_its_turn_and_leaves_the_client_open(surface):
    client = surface.client(Scripted("one two", "Fine."))
    chat = client.chat()
    stream = chat.stream("?")
    async for _ in stream:
        break
    await surface.in_thread(chat.close)
    chat.close()
    assert stream.response.finish_reason == "cancelled"
    with pytest.raises(ClosedError):
        chat.append(user("x"))
    async with client.chat() as other:
        assert (await other("?")).text == "Fine."
    with pytest.raises(ClosedError):
        await other("?")
