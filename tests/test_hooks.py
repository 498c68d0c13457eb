"""Hooks see every call begin, speak and end, once each, however it ends; and are harmless."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from typing import Any

import pytest
from fakes import Waiting

from sabir import CallEnded, CallStarted, ConfigurationError, EngineError, FirstToken, Hook, ToolCall, aio, user
from sabir.deltas import Finish, Head
from sabir.testing import Scripted, VirtualClock


class Recorder(Hook):
    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_start(self, event: CallStarted) -> None:
        self.events.append(event)

    def on_first_token(self, event: FirstToken) -> None:
        self.events.append(event)

    def on_end(self, event: CallEnded) -> None:
        self.events.append(event)

    @property
    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    @property
    def end(self) -> CallEnded:
        assert self.kinds.count("CallEnded") == 1
        return self.events[-1]


WHOLE = ["CallStarted", "FirstToken", "CallEnded"]


def double(number: int) -> int:
    return 2 * number


async def read(stream: Any, most: int = 1000) -> None:
    seen = 0
    async for _ in stream:
        seen += 1
        if seen == most:
            break


@pytest.mark.parametrize("is_stream", [False, True], ids=["ask", "stream"])
async def test_a_call_that_succeeds_is_seen_from_start_to_end(surface, is_stream):
    hook = Recorder()
    client = surface.client(Scripted("one two"), hooks=[hook])
    if is_stream:
        stream = client.stream("?")
        assert hook.kinds == []
        await read(stream)
        response = stream.response
    else:
        response = await client.ask("?")
    assert hook.kinds == WHOLE
    started, first, ended = hook.events
    assert started == CallStarted("scripted", (user("?"),))
    assert first.model == ended.model == "scripted"
    assert 0 <= first.seconds <= ended.seconds
    assert first.seconds == response.timings.first_token
    assert ended.response is response
    assert ended.error is None


async def test_a_turn_of_several_rounds_is_one_call(surface):
    hook = Recorder()
    script = Scripted(ToolCall(name="double", input='{"number": 1}'), "done")
    response = await surface.client(script, hooks=[hook], tools=[double]).ask("?")
    assert hook.kinds == WHOLE
    assert hook.end.response is response


async def test_the_first_token_is_told_with_the_time_it_took(surface):
    hook, clock = Recorder(), VirtualClock()
    engine = Scripted(ToolCall(name="slow", input="{}"), "done")

    def slow() -> None:
        clock.advance(50)

    response = await surface.client(engine, hooks=[hook], tools=[slow], runtime_wrappers=[clock]).ask("?")
    assert response.timings.first_token == hook.events[1].seconds == 0
    assert response.timings.total == hook.end.seconds == 50


async def test_an_answer_without_content_has_no_first_token(surface):
    hook = Recorder()
    response = await surface.client(Scripted([Head("1", "m"), Finish("stop")]), hooks=[hook]).ask("?")
    assert hook.kinds == ["CallStarted", "CallEnded"]
    assert response.timings.first_token is None


@pytest.mark.parametrize("is_stream", [False, True], ids=["ask", "stream"])
async def test_a_call_that_fails_ends_with_its_error(surface, is_stream):
    hook = Recorder()
    client = surface.client(Scripted(EngineError("down")), hooks=[hook])
    with pytest.raises(EngineError) as caught:
        await (read(client.stream("?")) if is_stream else client.ask("?"))
    assert hook.kinds == ["CallStarted", "CallEnded"]
    assert hook.end.error is caught.value
    assert hook.end.response is None


async def test_a_call_that_is_refused_before_it_begins_is_not_seen(surface):
    hook = Recorder()
    client = surface.client(Scripted(), hooks=[hook])
    with pytest.raises(ConfigurationError):
        await client.ask("?", temperature="hot")
    assert hook.events == []


@pytest.mark.parametrize("how", ["close", "with", "del", "close in a thread", "client.close"])
async def test_a_stream_that_is_left_ends_once_with_what_had_come(surface, how):
    hook = Recorder()
    engine = Waiting("one ", "two ")
    client = surface.client(engine, hooks=[hook])
    stream = client.stream("?")
    await read(stream, most=1)
    assert surface.is_blocking or engine.is_silent.wait(5)
    if how == "close":
        stream.close()
        stream.close()
    elif how == "with":
        async with stream:
            pass
    elif how == "close in a thread":
        await surface.in_thread(stream.close)
    elif how == "client.close":
        client.close()
    del stream
    gc.collect()
    client.close()
    assert hook.kinds == WHOLE
    assert hook.end.error is None
    assert hook.end.response.finish_reason == "cancelled"
    assert hook.end.response.text.startswith("one ")


async def test_a_stream_that_was_never_read_is_not_seen(surface):
    hook = Recorder()
    client = surface.client(Scripted(), hooks=[hook])
    client.stream("?").close()
    async with client.stream("?"):
        pass
    stream = client.stream("?")
    del stream
    gc.collect()
    client.stream("?")
    client.close()
    assert hook.events == []


async def test_a_stream_closed_before_it_is_read_is_not_seen_to_begin(surface):
    hook = Recorder()
    stream = surface.client(Scripted("unasked"), hooks=[hook]).stream("?")
    stream.close()
    try:
        await read(stream)
    except RuntimeError:
        pass
    assert hook.events == []


def test_a_cancelled_task_ends_its_call_once():
    hook = Recorder()
    engine = Waiting("one ")

    async def main() -> None:
        async with aio.Client(engine, hooks=[hook]) as client:
            task = asyncio.create_task(client.ask("?"))
            await asyncio.to_thread(engine.is_silent.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert hook.kinds[0] == "CallStarted"
    assert hook.end.response.finish_reason == "cancelled"
    assert hook.end.error is None


async def test_a_hook_that_raises_is_logged_and_harmless(surface, caplog):
    class Broken(Hook):
        def on_start(self, event: CallStarted) -> None:
            raise LookupError("in on_start")

        def on_first_token(self, event: FirstToken) -> None:
            raise LookupError("in on_first_token")

        def on_end(self, event: CallEnded) -> None:
            raise LookupError("in on_end")

    after = Recorder()
    client = surface.client(Scripted("Fine."), hooks=[Broken(), after])
    with caplog.at_level(logging.ERROR, "sabir"):
        assert (await client.ask("?")).text == "Fine."
    assert after.kinds == WHOLE
    assert [str(record.exc_info[1]) for record in caplog.records] == [
        "in on_start",
        "in on_first_token",
        "in on_end",
    ]


@pytest.mark.parametrize("moment", ["on_start", "on_first_token", "on_end"])
def test_an_interrupt_in_a_hook_is_no_error_of_the_hook(moment):
    """Ctrl-C while a hook runs: the interrupt goes on to the caller, and the chat can be used again."""
    from sabir import Client  # noqa: PLC0415

    class Interrupted(Hook):
        pass

    def interrupt(event: Any) -> None:
        client.hooks.remove(hook)
        raise KeyboardInterrupt

    hook = Interrupted()
    setattr(hook, moment, interrupt)
    client = Client(Scripted("Fine.", "Fine."), hooks=[hook])
    chat = client.chat()
    with pytest.raises(KeyboardInterrupt) as caught:
        chat("?")
    assert chat("Well?").text == "Fine."
    del caught


async def test_hooks_that_are_added_or_removed_take_effect_with_the_next_call(surface):
    first, second = Recorder(), Recorder()
    client = surface.client(Scripted("one two", "three", "four"), hooks=[first])
    stream = client.stream("?")
    await read(stream, most=1)
    client.hooks.add(second)
    client.hooks.remove(first)
    await read(stream)
    assert first.kinds == WHOLE
    assert second.kinds == []
    await client.ask("?")
    assert second.kinds == WHOLE
    client.hooks.remove(second)
    client.hooks.remove(second)
    assert list(client.hooks) == []
    assert len(client.hooks) == 0
    await client.ask("?")
    assert second.kinds == WHOLE
    assert first.kinds == WHOLE


@pytest.mark.parametrize("moment", ["on_start", "on_first_token", "on_end"])
async def test_an_async_hook_is_refused_when_it_is_added(surface, moment):
    async def late(self: Any, event: Any) -> None:
        pass

    hook = type("Late", (Hook,), {moment: late})()
    with pytest.raises(ConfigurationError, match="plain def"):
        surface.client(Scripted(), hooks=[hook])
    client = surface.client(Scripted())
    with pytest.raises(ConfigurationError, match="plain def"):
        client.hooks.add(hook)


@pytest.mark.parametrize("wrong", [print, 7, object(), "hook"], ids=repr)
async def test_what_is_no_hook_is_refused(surface, wrong):
    with pytest.raises(ConfigurationError, match=r"sabir\.Hook"):
        surface.client(Scripted(), hooks=[wrong])


@pytest.mark.parametrize("wrong", [7, print, Hook()], ids=["int", "function", "a hook"])
async def test_hooks_that_are_no_list_are_refused(surface, wrong):
    with pytest.raises(ConfigurationError, match="hooks"):
        surface.client(Scripted(), hooks=wrong)


async def test_a_hook_may_make_calls_of_its_own(surface):
    inner = surface.client(Scripted(*["inner"] * 3))
    seen: list[str] = []

    class Asking(Hook):
        def on_end(self, event: CallEnded) -> None:
            seen.append(event.response.text)

    client = surface.client(Scripted("outer"), hooks=[Asking()])
    await client.ask("?")
    assert seen == ["outer"]
    assert (await inner.ask("?")).text == "inner"


async def test_calls_from_many_threads_are_each_seen_whole(surface):
    lock = threading.Lock()
    kinds: dict[str, list[str]] = {}

    class ByPrompt(Hook):
        def __init__(self) -> None:
            self.local = threading.local()

        def on_start(self, event: CallStarted) -> None:
            with lock:
                kinds[event.messages[0].text] = ["start"]

        def on_end(self, event: CallEnded) -> None:
            with lock:
                kinds[event.response.messages[0].text].append("end")

    class Echo:
        name = "echo"

        def deltas(self, request: Any, line: Any) -> Any:
            return Scripted(request.messages[-1].text).deltas(request, line)

        def close(self) -> None:
            pass

    client = surface.client(Echo(), hooks=[ByPrompt()])
    answers = await surface.at_once(*(lambda number=number: client.ask(str(number)) for number in range(16)))
    assert [answer.text for answer in answers] == [str(number) for number in range(16)]
    assert kinds == {str(number): ["start", "end"] for number in range(16)}
