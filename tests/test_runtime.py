"""The two runtimes: what each does with the thread or the loop of its caller, how a line is cut, how Ctrl-C ends it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import ChatServer
from servers import until

import sabir
from sabir import ClosedError, DeadlineExceeded, SabirWarning, ToolCall, aio
from sabir.runtime import Blocking, Eventful, Line, run
from sabir.testing import Scripted, VirtualClock

TESTS = Path(__file__).parent


def call(name: str, arguments: str = "{}") -> ToolCall:
    return ToolCall(name=name, input=arguments)


def calls(*parts: ToolCall) -> sabir.Message:
    return sabir.Message("assistant", parts)


def no_transport() -> Any:
    raise AssertionError("nothing is sent here")


def runtime_of(surface: Any) -> Any:
    return (Blocking if surface.is_blocking else Eventful)(no_transport)


def soon(action: Any, seconds: float = 0.05) -> threading.Thread:
    """Do something in a moment, on another thread."""

    def work() -> None:
        time.sleep(seconds)
        action()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


class Clock:
    """How long a block took."""

    def __enter__(self) -> Clock:
        self.began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self.began


# One send(None)


class Foreign:
    """What no runtime of ours gives: it suspends."""

    def __await__(self) -> Iterator[None]:
        yield


def test_run_finishes_a_coroutine_that_never_suspends():
    async def inner(number: int) -> int:
        return 2 * number

    async def outer() -> int:
        return await inner(4) + await inner(5)

    assert run(outer) == 18

    async def failing() -> None:
        raise LookupError("x")

    with pytest.raises(LookupError):
        run(failing)


def test_run_names_the_coroutine_that_awaits_something_foreign_and_closes_it():
    closed = []

    async def wanders_off() -> None:
        try:
            await Foreign()
        finally:
            closed.append(True)

    with pytest.raises(RuntimeError, match=r"wanders_off.*awaited something other than its runtime"):
        run(wanders_off)
    assert closed == [True]


def test_a_loop_has_its_hooks_back_after_a_blocking_call_also_a_failed_one():
    async def main() -> None:
        before = sys.get_asyncgen_hooks()
        assert before.firstiter is not None
        client = sabir.Client(Scripted("one", LookupError("broken"), "two three"))
        client.ask("?")
        assert sys.get_asyncgen_hooks() == before
        with pytest.raises(Exception, match="broken"):
            client.ask("?")
        assert sys.get_asyncgen_hooks() == before
        stream = client.stream("?")
        next(stream)
        assert sys.get_asyncgen_hooks() == before
        stream.close()
        assert sys.get_asyncgen_hooks() == before

    asyncio.run(main())


# Event loops come and go


def begun_in_a_loop(client: sabir.Client, most: int = 1) -> tuple[sabir.Stream, list[str]]:
    async def main() -> tuple[sabir.Stream, list[str]]:
        stream = client.stream("?")
        return stream, [next(stream).content for _ in range(most)]

    return asyncio.run(main())


def test_a_blocking_stream_begun_inside_a_loop_goes_on_when_the_loop_has_ended():
    stream, began = begun_in_a_loop(sabir.Client(Scripted("one two three")))
    assert began == ["one "]
    assert [chunk.content for chunk in stream] == ["two ", "three", ""]
    assert stream.response.finish_reason == "stop"


def test_a_blocking_stream_over_http_begun_inside_a_loop_goes_on_when_the_loop_has_ended():
    with ChatServer(lambda body: "one two three four", pause=0.02) as server:
        client = sabir.Client(f"vllm:x@{server.url}")
        stream, began = begun_in_a_loop(client)
        text = began + [chunk.content for chunk in stream if chunk.phase == "generating"]
        assert "".join(text) == "one two three four"
        assert stream.response.finish_reason == "stop"
        client.close()


def test_a_blocking_stream_with_tools_can_be_read_from_one_loop_after_another():
    def double(number: int) -> int:
        return 2 * number

    client = sabir.Client(Scripted(call("double", '{"number": 1}'), "one two three"), tools=[double])
    stream = client.stream("?")
    seen = []

    async def read_one() -> None:
        seen.append(next(stream).content)

    asyncio.run(read_one())
    asyncio.run(read_one())
    seen.append(next(stream).content)
    asyncio.run(read_one())
    assert seen[1:] == ["one ", "two ", "three"]


def test_a_blocking_stream_begun_in_a_loop_is_no_generator_of_that_loop():
    """The loop would close it with itself, and wait for it."""

    async def main() -> sabir.Stream:
        stream = sabir.Client(Scripted("one two")).stream("?")
        next(stream)
        await asyncio.get_running_loop().shutdown_asyncgens()
        return stream

    stream = asyncio.run(main())
    assert next(stream).content == "two"


def test_one_awaitable_client_serves_one_loop_after_another():
    with ChatServer() as server:
        client = aio.Client(f"vllm:x@{server.url}")
        for _ in range(3):
            assert asyncio.run(client.ask("?")).text == "Hello there!"
        client.close()


# Nested colours


def test_a_blocking_answer_is_made_on_the_thread_that_asked_and_starts_no_other():
    seen = []

    class Engine:
        name = "here"

        def deltas(self, request: Any, line: Line) -> Any:
            seen.append((threading.current_thread(), threading.active_count()))
            return Scripted("Fine.").deltas(request, line)

        def close(self) -> None:
            pass

    before = threading.active_count()
    assert sabir.Client(Engine()).ask("?").text == "Fine."
    assert seen == [(threading.current_thread(), before)]


def nested(depth: int, is_async: bool) -> Any:
    """A tool that asks a model whose tool asks a model …, each with a blocking call."""

    def ask() -> str:
        if depth == 0:
            return "the bottom"
        client = sabir.Client(Scripted(call("deeper"), "done"), tools=[nested(depth - 1, is_async)])
        (_, results, answer) = client.ask("?").messages
        assert answer.text == "done"
        return f"{results.parts[0].text} + 1"

    if not is_async:
        return sabir.Tool(ask, name="deeper")

    async def ask_later() -> str:
        await asyncio.sleep(0)
        return ask()

    return sabir.Tool(ask_later, name="deeper")


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
async def test_a_blocking_call_in_a_tool_of_a_blocking_call_five_deep_does_not_deadlock(surface, is_async):
    def work() -> str:
        client = sabir.Client(Scripted(call("deeper"), "done"), tools=[nested(5, is_async)])
        return client.ask("?").messages[1].parts[0].text

    assert await surface.in_thread(work) == "the bottom + 1 + 1 + 1 + 1 + 1"


async def test_many_nested_calls_at_once_do_not_deadlock(surface):
    """Each needs a loop for each of its depths, and they share them."""

    async def work() -> str:
        client = sabir.Client(Scripted(call("deeper"), "done"), tools=[nested(3, is_async=True)])
        job = lambda: client.ask("?").messages[1].parts[0].text  # noqa: E731
        return await surface.in_thread(job)

    answers = await surface.at_once(*[work] * 6)
    assert answers == ["the bottom + 1 + 1 + 1"] * 6


def test_every_colour_can_be_nested_in_every_other():
    async def bottom() -> str:
        return "the bottom"

    async def awaitable_in_guest() -> str:
        async with aio.Client(Scripted(call("bottom"), "done"), tools=[bottom]) as client:
            return (await client.ask("?")).messages[1].parts[0].text

    def blocking_in_thread() -> str:
        with sabir.Client(Scripted(call("awaitable_in_guest"), "done"), tools=[awaitable_in_guest]) as client:
            return client.ask("?").messages[1].parts[0].text

    async def main() -> str:
        async with aio.Client(Scripted(call("blocking_in_thread"), "done"), tools=[blocking_in_thread]) as client:
            return (await client.ask("?")).messages[1].parts[0].text

    assert asyncio.run(main()) == "the bottom"


async def test_eight_agents_whose_tools_wait_for_a_sub_agent_do_not_starve_each_other(surface):
    together = threading.Barrier(8)

    def ask_a_sub_agent() -> str:
        together.wait(10)
        text = sabir.Client(Scripted("sub")).ask("?").text
        together.wait(10)
        return text

    async def agent() -> str:
        client = surface.client(Scripted(call("ask_a_sub_agent"), "done"), tools=[ask_a_sub_agent])
        return (await client.ask("?")).messages[1].parts[0].text

    assert await surface.at_once(*[agent] * 8) == ["sub"] * 8


async def test_eight_tools_of_one_answer_may_all_wait_for_a_sub_agent(surface):
    together = threading.Barrier(8)

    def ask_a_sub_agent() -> str:
        together.wait(10)
        return sabir.Client(Scripted("sub")).ask("?").text

    client = surface.client(Scripted(calls(*[call("ask_a_sub_agent")] * 8), "done"), tools=[ask_a_sub_agent])
    (_, results, _) = (await client.ask("?")).messages
    assert [part.text for part in results.parts] == ["sub"] * 8


def test_async_tools_of_blocking_calls_share_one_loop():
    loops: list[Any] = []

    async def look() -> None:
        loops.append(asyncio.get_running_loop())

    def ask() -> None:
        sabir.Client(Scripted(calls(call("look"), call("look")), call("look"), "done"), tools=[look]).ask("?")

    ask()
    ask()
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(10)

    async def main() -> None:
        ask()
        loops.append("other")
        assert asyncio.get_running_loop() not in loops

    asyncio.run(main())
    loops.remove("other")
    assert len(loops) == 12
    assert len(set(loops)) == 1
    assert loops[0].is_running()


def test_what_an_async_tool_opened_stays_usable_in_the_next_call():
    queues: list[asyncio.Queue[str]] = []

    async def put(word: str) -> None:
        if not queues:
            queues.append(asyncio.Queue(1))
        await queues[0].put(word)

    async def take() -> str:
        return await queues[0].get()

    client = sabir.Client(Scripted(call("put", '{"word": "kept"}'), "done", call("take"), "done"), tools=[put, take])
    client.ask("?")
    assert client.ask("?").messages[1].parts[0].text == "kept"


STALLED = """
import asyncio, warnings
import sabir
from sabir import ToolCall, aio
from sabir.testing import Scripted

async def blocking_there() -> str:
    return sabir.Client(Scripted("sub")).ask("?").text

async def off_the_loop() -> str:
    return await asyncio.to_thread(lambda: sabir.Client(Scripted("sub")).ask("?").text)

def on_a_thread() -> str:
    return sabir.Client(Scripted("sub")).ask("?").text

async def asks_blocking() -> str:
    return sabir.Client(Scripted("sub")).ask("?").text

def on_a_thread_with_an_async_tool() -> str:
    client = sabir.Client(Scripted(ToolCall(name="asks_blocking"), "done"), tools=[asks_blocking])
    return client.ask("?").messages[1].parts[0].text

async def main(*tools):
    client = aio.Client(Scripted(*[ToolCall(name=tool.__name__) for tool in tools], "done"), tools=set(tools))
    response = await client.ask("?")
    assert {part.text for message in response.messages[1::2] for part in message.parts} == {"sub"}, response
    client.close()

def warned(*tools):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(main(*tools))
    for warning in caught:
        assert issubclass(warning.category, sabir.SabirWarning), warning
        assert "sabir.aio" in str(warning.message)
        assert warning.filename == __file__, warning.filename
    return len(caught)

print(warned(on_a_thread, off_the_loop, on_a_thread_with_an_async_tool))
sabir.Client(Scripted(ToolCall(name="blocking_there"), "done"), tools=[blocking_there]).ask("?")
print(warned(on_a_thread, off_the_loop))
print(warned(blocking_there, blocking_there))
print(warned(blocking_there))
"""


def script(body: str, *arguments: str, flags: tuple[str, ...] = ("-X", "dev", "-W", "error")) -> list[str]:
    return [sys.executable, *flags, "-c", textwrap.dedent(body), *arguments]


def test_a_blocking_call_in_an_awaitable_tool_warns_once(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(STALLED)
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "0", "1", "0"]


def test_the_warning_is_of_the_librarys_kind():
    assert issubclass(SabirWarning, UserWarning)


# Context


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def test_context_variables_reach_every_tool_and_do_not_come_back(surface):
    def plain() -> str:
        seen = variable.get()
        variable.set("plain")
        return seen

    async def later() -> str:
        await asyncio.sleep(0)
        seen = variable.get()
        variable.set("later")
        return seen

    variable.set("of the caller")
    client = surface.client(Scripted(calls(call("plain"), call("later")), "done"), tools=[plain, later])
    (_, results, _) = (await client.ask("?")).messages
    assert [part.text for part in results.parts] == ["of the caller"] * 2
    assert variable.get() == "of the caller"


async def test_context_variables_reach_the_tools_of_a_stream(surface):
    def plain() -> str:
        return variable.get()

    client = surface.client(Scripted(call("plain"), "done"), tools=[plain])
    stream = client.stream("?")
    variable.set("set before the first chunk")
    chunks = [chunk async for chunk in stream]
    assert chunks[0].content["response"] == "set before the first chunk"


# What a runtime does


async def test_gather_runs_at_once_and_keeps_the_order(surface):
    runtime = runtime_of(surface)
    together = threading.Barrier(3)

    async def job(number: int) -> int:
        return await runtime.call(lambda: (together.wait(10), number)[1])

    jobs = [lambda number=number: job(number) for number in range(3)]
    assert await runtime.gather(jobs, Line()) == [0, 1, 2]
    assert await runtime.gather([], Line()) == []


async def test_gather_lets_every_job_end_and_raises_the_first_failure_in_order(surface):
    runtime = runtime_of(surface)
    first_failed, ended = threading.Event(), []

    def fails_late() -> None:
        assert first_failed.wait(10)
        ended.append("late")
        raise LookupError("the first in order")

    def fails_early() -> None:
        ended.append("early")
        first_failed.set()
        raise ValueError("the second in order")

    def works() -> None:
        assert first_failed.wait(10)
        ended.append("works")

    jobs = [lambda function=function: runtime.call(function) for function in (fails_late, fails_early, works)]
    with pytest.raises(LookupError):
        await runtime.gather(jobs, Line())
    assert sorted(ended) == ["early", "late", "works"]


async def test_what_a_job_held_is_free_when_it_is_done(surface):
    class Holder:
        async def job(self) -> int:
            return 1

    holder = Holder()
    mark = weakref.ref(holder)
    gc.disable()
    try:
        assert await runtime_of(surface).gather([holder.job, holder.job], Line()) == [1, 1]
        del holder
        assert await surface.in_thread(lambda: until(lambda: mark() is None, 1))
    finally:
        gc.enable()


def test_threads_that_send_first_at_the_same_time_share_one_transport():
    made: list[Any] = []
    everyone = threading.Barrier(3)

    class Transport:
        def __init__(self) -> None:
            self.is_closed, self.sent = False, 0

        async def send(self, *_: Any) -> Any:
            self.sent += 1

        def close(self) -> None:
            self.is_closed = True

    def make() -> Any:
        everyone.wait(5)
        made.append(Transport())
        return made[-1]

    runtime: Any = Blocking(make)
    threads = [threading.Thread(target=lambda: run(lambda: runtime.send(None, None))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert sorted((each.sent, each.is_closed) for each in made) == [(0, True), (0, True), (3, False)]
    runtime.close()
    assert all(each.is_closed for each in made)


async def test_call_takes_functions_of_both_colours_and_their_arguments(surface):
    runtime = runtime_of(surface)

    def plain(first: int, *, second: int) -> tuple[int, int]:
        return first, second

    async def later(first: int, *, second: int) -> tuple[int, int]:
        await asyncio.sleep(0)
        return plain(first, second=second)

    assert await runtime.call(plain, 1, second=2) == (1, 2)
    assert await runtime.call(later, 1, second=2) == (1, 2)

    async def failing() -> None:
        raise LookupError("x")

    with pytest.raises(LookupError):
        await runtime.call(failing)


async def test_pull_iterates_and_closes_its_source(surface):
    runtime = runtime_of(surface)
    closed = threading.Event()

    def source(most: int, error: Exception | None = None) -> Iterator[int]:
        try:
            yield from range(most)
            if error is not None:
                raise error
        finally:
            closed.set()

    assert [item async for item in runtime.pull(lambda: source(5))] == [0, 1, 2, 3, 4]
    assert closed.wait(5)
    closed.clear()
    items: AsyncGenerator[int, None] = runtime.pull(lambda: source(1000))
    assert await anext(items) == 0
    await items.aclose()
    assert closed.wait(5)
    items = runtime.pull(lambda: source(2, LookupError("x")))
    assert [await anext(items), await anext(items)] == [0, 1]
    with pytest.raises(LookupError):
        await anext(items)
    with pytest.raises(ZeroDivisionError):
        await anext(runtime.pull(lambda: iter([1 // 0])))


async def test_pull_takes_any_iterator(surface):
    runtime = runtime_of(surface)
    assert [item async for item in runtime.pull(lambda: iter("abc"))] == ["a", "b", "c"]
    assert [item async for item in runtime.pull(lambda: iter(()))] == []


def test_pull_does_not_stall_the_loop():
    """A slow engine runs on a thread of its own."""
    ticks = []

    def source() -> Iterator[int]:
        for number in range(3):
            time.sleep(0.05)
            yield number

    async def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.005)

    async def main() -> None:
        ticking = asyncio.create_task(tick())
        assert [item async for item in Eventful(no_transport).pull(source)] == [0, 1, 2]
        ticking.cancel()

    asyncio.run(main())
    assert len(ticks) > 10


async def test_sleep_sleeps(surface):
    runtime = runtime_of(surface)
    for seconds in (0.05, 0, -1):
        with Clock() as clock:
            await runtime.sleep(seconds, Line())
        assert max(0, seconds) <= clock.seconds + 0.002
        assert clock.seconds < max(0, seconds) + 1


async def test_the_clock_of_a_runtime_is_that_of_lines(surface):
    runtime = runtime_of(surface)
    assert abs(runtime.now() - time.monotonic()) < 1
    assert all(0 <= runtime.random() < 1 for _ in range(100))


# Lines


async def test_abort_wakes_a_sleep_at_once_from_another_thread(surface):
    runtime, line = runtime_of(surface), Line()
    thread = soon(line.abort)
    with pytest.raises(ClosedError), Clock() as clock:
        await runtime.sleep(30, line)
    thread.join()
    assert clock.seconds < 1


async def test_abort_wakes_a_gather_at_once_and_leaves_deaf_jobs_behind(surface):
    runtime, line = runtime_of(surface), Line()
    over, left = threading.Event(), threading.Event()

    def deaf() -> None:
        over.wait(30)
        left.set()

    thread = soon(line.abort)
    with pytest.raises(ClosedError), Clock() as clock:
        await runtime.gather([lambda: runtime.call(deaf)] * 2, line)
    thread.join()
    assert clock.seconds < 1
    assert not left.is_set()
    over.set()
    assert left.wait(5)


async def test_abort_wakes_a_gather_of_coroutines(surface):
    runtime, line = runtime_of(surface), Line()

    async def waits() -> None:
        await asyncio.sleep(5)

    thread = soon(line.abort)
    with pytest.raises(ClosedError), Clock() as clock:
        await runtime.gather([lambda: runtime.call(waits)] * 2, line)
    thread.join()
    assert clock.seconds < 1


async def test_a_coroutine_that_nobody_waits_for_any_more_is_cancelled(surface):
    """On either surface: a tool that is `async def` hears of it."""
    runtime, line = runtime_of(surface), Line()
    cancelled = threading.Event()

    async def waits() -> None:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    thread = soon(line.abort)
    with pytest.raises(ClosedError):
        await runtime.gather([lambda: runtime.call(waits)], line)
    thread.join()
    assert cancelled.wait(2)


async def test_what_begins_on_a_line_that_was_cut_ends_at_once(surface):
    runtime, line = runtime_of(surface), Line()
    line.abort()
    with Clock() as clock:
        with pytest.raises(ClosedError):
            await runtime.sleep(30, line)
        with pytest.raises(ClosedError):
            await runtime.gather([lambda: runtime.call(time.sleep, 1)], line)
    assert clock.seconds < 0.5


def test_a_coroutine_that_is_cut_before_it_begins_is_closed():
    """Else Python would say that it was never awaited."""
    runtime, line = Blocking(no_transport), Line()
    loop_is_busy, made = threading.Event(), []

    async def keeps_the_loop_busy() -> None:
        loop_is_busy.set()
        time.sleep(0.2)  # noqa: ASYNC251 - as code that blocks does

    async def begins_late() -> None:
        await asyncio.sleep(30)

    def start() -> Any:
        made.append(begins_late())
        return made[0]

    busy = threading.Thread(target=lambda: run(lambda: runtime.call(keeps_the_loop_busy)))
    busy.start()
    assert loop_is_busy.wait(10)
    cutter = soon(line.abort)
    with pytest.raises(ClosedError):
        run(lambda: runtime.gather([lambda: runtime.call(start)], line))
    cutter.join()
    busy.join()
    deadline = time.monotonic() + 2
    while made[0].cr_frame is not None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert made[0].cr_frame is None


async def test_abort_may_come_any_number_of_times_from_any_number_of_threads(surface):
    runtime, line = runtime_of(surface), Line()
    threads = [soon(line.abort, 0.01 * number) for number in range(8)]
    with pytest.raises(ClosedError):
        await runtime.sleep(30, line)
    for thread in threads:
        thread.join()
    line.abort()
    assert line.aborted


def test_a_cut_is_called_by_abort_and_at_once_when_it_comes_too_late():
    line, seen = Line(), []
    line.hold(lambda: seen.append("early"))
    assert seen == []
    line.abort()
    assert seen == ["early"]
    line.hold(lambda: seen.append("late"))
    assert seen == ["early", "late"]


def test_a_released_cut_is_not_called():
    line, seen = Line(), []

    def cut() -> None:
        seen.append(1)

    line.hold(cut)
    line.release(cut)
    line.release(cut)
    line.release(print)
    line.abort()
    assert seen == []


def test_a_cut_held_while_abort_runs_is_never_missed():
    """Whichever comes first, whoever waits is woken."""
    for _ in range(300):
        line, woken = Line(), threading.Event()
        thread = threading.Thread(target=line.abort)
        thread.start()
        line.hold(woken.set)
        thread.join()
        assert woken.is_set()


def test_what_is_left_of_a_line():
    line = Line()
    assert line.left() is None
    assert line.left(5) == 5
    assert not line.is_over()
    line.extend(5)
    assert line.deadline is None

    line = Line(deadline=time.monotonic() + 10)
    assert 9 < line.left() <= 10
    assert line.left(5) == 5
    assert 9 < line.left(20) <= 10
    line.extend(10)
    assert 19 < line.left() <= 20
    line.extend(-30)
    assert line.is_over()
    for limit in (None, 5):
        with pytest.raises(DeadlineExceeded, match="timeout"):
            line.left(limit)
    line.abort()
    with pytest.raises(ClosedError):
        line.left()


def test_the_error_of_a_wait_says_what_ran_out():
    line = Line(deadline=time.monotonic() + 10, idle=2.5)
    assert "silent for 2.5 s (idle_timeout)" in str(line.timeout_error())
    assert isinstance(line.timeout_error(), TimeoutError)
    line.deadline = time.monotonic() - 1
    assert "(timeout)" in str(line.timeout_error())
    line.abort()
    assert isinstance(line.timeout_error(), ClosedError)


async def test_the_deadline_covers_the_model_and_not_the_tools(surface):
    clock = VirtualClock()

    def slow() -> str:
        clock.advance(300)
        return "done"

    script = Scripted(call("slow"), call("slow"), "Fine.")
    response = await surface.client(script, tools=[slow], timeout=250, runtime_wrappers=[clock]).ask("?")
    assert response.text == "Fine."
    assert response.timings.total == 600


async def test_a_deadline_that_passes_is_said(surface):
    def answer(body: Any) -> str:
        time.sleep(0.6)
        return "late"

    with ChatServer(answer) as server:
        client = surface.client(f"vllm:x@{server.url}", timeout=0.2)
        with pytest.raises(DeadlineExceeded, match="timeout"), Clock() as clock:
            await client.ask("?")
    assert clock.seconds < 0.5


async def test_the_deadline_of_a_stream_begins_with_its_first_chunk(surface):
    clock = VirtualClock()
    stream = surface.client(Scripted("one two"), timeout=150, runtime_wrappers=[clock]).stream("?")
    clock.advance(200)
    assert [chunk.content async for chunk in stream] == ["one ", "two", ""]


def test_cancelling_a_task_is_not_mistaken_for_a_cut_line():
    async def main() -> None:
        runtime = Eventful(no_transport)

        async def waits() -> None:
            await asyncio.sleep(5)

        for begin in (
            lambda line: runtime.sleep(5, line),
            lambda line: runtime.gather([waits, waits], line),
            lambda line: runtime.call(time.sleep, 0.3),
        ):
            line = Line()
            task = asyncio.create_task(begin(line))
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not line.aborted

    asyncio.run(main())


# Threads


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
async def test_threads_of_tools_end_with_their_tools(surface):
    def plain() -> None: ...

    async def later() -> None: ...

    def running() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    engine = Scripted(*[calls(call("plain"), call("later"), call("plain")), "done"] * 21)
    client = surface.client(engine, tools=[plain, later])
    await client.ask("?")  # the guest loop is there
    before = running()
    for _ in range(20):
        await client.ask("?")
    deadline = time.monotonic() + 5
    while running() > before and time.monotonic() < deadline:
        time.sleep(0.01)  # noqa: ASYNC251 - it is threads that are waited for
    assert running() <= before


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
async def test_a_tool_that_was_cut_off_is_not_logged_as_one_that_failed(surface, is_async, caplog):
    began, ended = threading.Event(), threading.Event()

    def plain(context: sabir.ToolContext) -> None:
        began.set()
        while not context.cancelled:
            time.sleep(0.005)
        ended.set()
        raise RuntimeError("cut off")

    async def later() -> None:
        began.set()
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()

    tool = sabir.Tool(later if is_async else plain, name="slow")
    stream = surface.client(Scripted(call("slow")), tools=[tool]).stream("?")

    def closer() -> None:
        assert began.wait(10)
        stream.close()

    thread = threading.Thread(target=closer)
    thread.start()
    with pytest.raises(ClosedError):
        _ = [chunk async for chunk in stream]
    thread.join()
    assert ended.wait(5)
    time.sleep(0.05)  # noqa: ASYNC251 - what is not to come is waited for
    assert caplog.records == []


async def test_what_is_logged_of_a_failed_tool_keeps_no_frame_alive(surface, caplog):
    """Handlers keep records, and a traceback would keep the turn with all that was said."""

    def failing() -> None:
        raise LookupError("no such thing")

    await surface.client(Scripted(call("failing"), "done"), tools=[failing]).ask("?")
    (record,) = caplog.records
    assert "LookupError('no such thing')" in record.getMessage()
    assert all(isinstance(argument, str) for argument in record.args)


async def test_a_tool_that_is_left_behind_is_told_that_nobody_waits(surface):
    heard, began = threading.Event(), threading.Event()

    def slow(context: sabir.ToolContext) -> None:
        began.set()
        while not context.cancelled:
            time.sleep(0.005)
        heard.set()

    stream = surface.client(Scripted(call("slow")), tools=[slow]).stream("?")

    def closer() -> None:
        assert began.wait(10)
        stream.close()

    thread = threading.Thread(target=closer)
    thread.start()
    with pytest.raises(ClosedError):
        _ = [chunk async for chunk in stream]
    thread.join()
    assert heard.wait(5)


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
async def test_what_a_failed_tool_held_is_free_when_its_turn_is(surface, is_async):
    """No cycle of error, traceback and frame keeps a conversation until the collector comes."""

    class Held:
        pass

    held: list[weakref.ref[Held]] = []

    def fails() -> None:
        local = Held()
        held.append(weakref.ref(local))
        raise LookupError("x")

    async def fails_later() -> None:
        await asyncio.sleep(0)
        fails()

    tool = sabir.Tool(fails_later if is_async else fails, name="fails")
    client = surface.client(Scripted(call("fails"), "Fine."), tools=[tool])
    gc.disable()
    try:
        assert (await client.ask("?")).text == "Fine."
        deadline = time.monotonic() + 2
        while held[0]() is not None and time.monotonic() < deadline:
            await surface.in_thread(lambda: time.sleep(0.005))
        assert held[0]() is None
    finally:
        gc.enable()


# Ctrl-C

PRELUDE = """
import asyncio, os, signal, sys, threading, time
import sabir
from sabir import ToolCall, aio
from sabir.testing import Scripted
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs have it ignored
address = sys.argv[1]

def ready():
    os.write(1, b"ready\\n")

def deaf() -> None:
    ready()
    time.sleep(20)

async def later() -> None:
    ready()
    await asyncio.sleep(20)

async def deaf_later() -> None:
    ready()
    time.sleep(20)

def sub_agent() -> str:
    return sabir.Client(Scripted(ToolCall(name="deaf")), tools=[deaf]).ask("?").text

async def sub_agent_later() -> str:
    async with aio.Client(Scripted(ToolCall(name="deaf")), tools=[deaf]) as client:
        return (await client.ask("?")).text

def tool(function, how=sabir.Client):
    return how(Scripted(ToolCall(name=function.__name__), "done"), tools=[function])
"""

BLOCKING = {
    "a deaf tool": "tool(deaf).ask('?')",
    "a stream's deaf tool": "list(tool(deaf).stream('?'))",
    "an async tool": "tool(later).ask('?')",
    "a deaf async tool": "tool(deaf_later).ask('?')",
    "a nested ask": "tool(sub_agent).ask('?')",
    "a nested awaitable ask": "tool(sub_agent_later).ask('?')",
    "a silent server": "sabir.Client('vllm:x@' + address + '/silent').ask('?')",
    "a pause between attempts": "sabir.Client('vllm:x@' + address + '/busy').ask('?')",
}
AWAITABLE = {
    "a deaf tool": "await tool(deaf, aio.Client).ask('?')",
    "a stream's deaf tool": "[chunk async for chunk in tool(deaf, aio.Client).stream('?')]",
    "an async tool": "await tool(later, aio.Client).ask('?')",
    "a nested ask": "await tool(sub_agent, aio.Client).ask('?')",
    "a nested awaitable ask": "await tool(sub_agent_later, aio.Client).ask('?')",
    "a silent server": "await aio.Client('vllm:x@' + address + '/silent').ask('?')",
    "a pause between attempts": "await aio.Client('vllm:x@' + address + '/busy').ask('?')",
}
# The first Ctrl-C asks the loop to stop, which a blocking call does not let it do; the second interrupts the call.
IN_A_LOOP = [
    f"async def main():\n    {BLOCKING[name]}\nasyncio.run(main())" for name in ("a deaf tool", "an async tool")
]
INTERRUPTED = [
    *(pytest.param(body, id=f"blocking, {name}") for name, body in BLOCKING.items()),
    *(
        pytest.param(f"async def main():\n    {body}\nasyncio.run(main())", id=f"awaitable, {name}")
        for name, body in AWAITABLE.items()
    ),
    *(pytest.param(body, id=f"blocking in a loop {number}") for number, body in enumerate(IN_A_LOOP)),
]


def is_quiet(text: str) -> bool:
    """Whether a traceback is that of one KeyboardInterrupt, and nothing else is said."""
    lines = text.splitlines()
    noise = ("ignored", "never retrieved", "was destroyed", "never awaited", "Warning", "Fatal", "During handling")
    starts = sum(line.startswith("Traceback") for line in lines)
    # asyncio.run shows the cancellation that Ctrl-C became, and then the KeyboardInterrupt.
    chained = text.count("During handling of the above exception, another exception occurred")
    noise = noise if not chained else noise[:-1]
    return lines[-1] == "KeyboardInterrupt" and starts == 1 + chained <= 2 and not any(word in text for word in noise)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("body", INTERRUPTED)
def test_ctrl_c_ends_the_process_at_once(body):
    """Whatever it waits for: a deaf tool is left behind, no thread is joined, and nothing is said but the interrupt."""
    asked, over = threading.Event(), threading.Event()

    def answer(_: Any) -> Any:
        path = server.asked[-1].path
        asked.set()
        if "silent" in path:
            over.wait(20)
        return 503, {"error": {"message": "busy"}}

    with ChatServer(answer, headers={"retry-after": "20"}) as server:
        process = subprocess.Popen(
            script(PRELUDE + body, server.url), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            if "address" in body:
                assert asked.wait(20)
            else:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n", process.communicate()[1]
            time.sleep(0.1)  # It then waits. Python itself may miss a signal that comes just before its select().
            with Clock() as clock:
                process.send_signal(signal.SIGINT)
                if body in IN_A_LOOP:
                    time.sleep(0.1)
                    process.send_signal(signal.SIGINT)
                _, said = process.communicate(timeout=15)
        finally:
            over.set()
            process.kill()
            process.communicate()
    assert process.returncode == -signal.SIGINT
    assert clock.seconds < 1, said
    assert is_quiet(said), said


def test_a_process_ends_by_itself_although_a_tool_was_left_behind():
    body = """
    import threading, time
    import sabir
    from sabir.testing import Scripted

    def deaf() -> None:
        stream.close()
        time.sleep(20)

    stream = sabir.Client(Scripted(sabir.ToolCall(name="deaf")), tools=[deaf]).stream("?")
    try:
        list(stream)
    except sabir.ClosedError:
        print("closed")
    """
    with Clock() as clock:
        done = subprocess.run(script(body), capture_output=True, text=True, timeout=15, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("closed\n", "", 0)
    assert clock.seconds < 5


def test_a_program_of_every_colour_ends_clean():
    body = """
    import asyncio
    import sabir
    from sabir import ToolCall, aio
    from sabir.testing import Scripted

    async def later() -> str:
        await asyncio.sleep(0)
        return "later"

    def plain() -> str:
        return "plain"

    def script():
        return Scripted(ToolCall(name="later"), ToolCall(name="plain"), "one two three")

    def blocking():
        client = sabir.Client(script(), tools=[later, plain])
        client.ask("?")
        left = sabir.Client(script(), tools=[later, plain]).stream("?")
        next(left)
        dropped = sabir.Client(script(), tools=[later, plain]).stream("?")
        next(dropped)
        del dropped
        return left

    async def main():
        client = aio.Client(script(), tools=[later, plain])
        await client.ask("?")
        left = aio.Client(script(), tools=[later, plain]).stream("?")
        await anext(left)
        dropped = aio.Client(script(), tools=[later, plain]).stream("?")
        await anext(dropped)
        del dropped
        return left, blocking()

    lefts = [blocking(), asyncio.run(main()), asyncio.run(main())]
    print("done")
    """
    done = subprocess.run(script(body), capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


# Fork

FORKED = """
import asyncio, os, signal, sys
import sabir
from sabir import ToolCall
from sabir.testing import Scripted

loops = []

async def later() -> str:
    loops.append(asyncio.get_running_loop())
    await asyncio.sleep(0)
    return str(os.getpid())

def ask():
    client = sabir.Client(Scripted(ToolCall(name="later"), "done"), tools=[later])
    return client.ask("?").messages[1].parts[0].value

def asks_again():
    signal.alarm(10)
    assert str(ask()) == str(os.getpid())
    assert str(ask()) == str(os.getpid())
    assert loops[-1] is loops[-2] is not loops[0]
    os._exit(0)

ask()
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        asks_again()
    children.append(child)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
ask()
assert loops[-1] is loops[0]
print("parent done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
def test_a_forked_child_asks_again_on_loops_of_its_own():
    done = subprocess.run(
        script(FORKED.replace(".value", ".text"), flags=("-W", "error", "-W", "ignore::DeprecationWarning")),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[0, 0, 0]", "parent done"]


def test_streams_that_are_left_in_every_state_are_collected_quietly():
    """Dropped unread, half read, whole, closed; in and out of a loop: nothing is reported to sys.unraisablehook."""
    heard: list[Any] = []
    before, sys.unraisablehook = sys.unraisablehook, heard.append
    try:

        def leave_some() -> None:
            for most in (0, 1, 2, 9):
                for is_closed in (False, True):
                    stream = sabir.Client(Scripted(call("plain"), "one two"), tools=[plain]).stream("?")
                    for _ in zip(range(most), stream, strict=False):
                        pass
                    if is_closed:
                        stream.close()
                    del stream

        async def leave_some_later() -> None:
            leave_some()
            for most in (0, 1, 2, 9):
                for is_closed in (False, True):
                    stream = aio.Client(Scripted(call("plain"), "one two"), tools=[plain]).stream("?")
                    seen = 0
                    while seen < most:
                        seen += 1
                        try:
                            await anext(stream)
                        except StopAsyncIteration:
                            break
                    if is_closed:
                        stream.close()
                    del stream
            gc.collect()

        def plain() -> None: ...

        leave_some()
        asyncio.run(leave_some_later())
        gc.collect()
    finally:
        sys.unraisablehook = before
    assert heard == []
