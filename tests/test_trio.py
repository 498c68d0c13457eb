"""The awaitable surface on trio's loop: its runtime, and a client that talks over httpx2."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import aiohttp
import httpx
import pytest
import trio
from fakes import ChatServer, Waiting
from servers import until

import sabir
from sabir import (
    ClosedError,
    ConfigurationError,
    DeadlineExceeded,
    RateLimitError,
    ToolCall,
    ToolContext,
    aio,
)
from sabir.runtime import Line
from sabir.testing import Scripted
from sabir.transports import eventful_transport
from sabir.trio_runtime import Trio


def no_transport() -> Any:
    raise AssertionError("nothing is sent here")


def calls(*names: str) -> sabir.Message:
    return sabir.Message("assistant", tuple(ToolCall(name=name, input="{}") for name in names))


def soon(action: Any, seconds: float = 0.05) -> threading.Thread:
    """Do something in a moment, on another thread."""
    thread = threading.Timer(seconds, action)
    thread.start()
    return thread


class Clock:
    """How long a block took."""

    def __enter__(self) -> Clock:
        self.began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self.began


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


# The runtime


def test_gather_runs_at_once_keeps_the_order_and_lets_every_job_end():
    runtime, together, ended = Trio(no_transport), threading.Barrier(3), []

    async def job(number: int) -> int:
        return await runtime.call(lambda: (together.wait(10), number)[1])

    async def fails_late() -> None:
        await trio.sleep(0.05)
        ended.append("late")
        raise LookupError("the first in order")

    async def fails_early() -> None:
        raise ValueError("the second in order")

    async def main() -> None:
        jobs = [lambda number=number: job(number) for number in range(3)]
        assert await runtime.gather(jobs, Line()) == [0, 1, 2]
        assert await runtime.gather([], Line()) == []
        with pytest.raises(LookupError):
            await runtime.gather([fails_late, fails_early], Line())
        assert ended == ["late"]

    trio.run(main)


def test_call_takes_functions_of_both_colours_in_the_callers_context():
    runtime = Trio(no_transport)

    def plain(first: int, *, second: int) -> tuple[Any, ...]:
        return first, second, variable.get(), threading.current_thread() is threading.main_thread()

    async def later(first: int, *, second: int) -> tuple[Any, ...]:
        await trio.lowlevel.checkpoint()
        return plain(first, second=second)

    async def main() -> None:
        variable.set("of the caller")
        assert await runtime.call(plain, 1, second=2) == (1, 2, "of the caller", False)
        assert await runtime.call(later, 1, second=2) == (1, 2, "of the caller", True)
        with pytest.raises(ZeroDivisionError):
            await runtime.call(lambda: 1 // 0)

    trio.run(main)


def test_pull_iterates_and_closes_its_source_and_does_not_stall_the_loop():
    runtime, closed, ticks = Trio(no_transport), threading.Event(), []

    def source(most: int, error: Exception | None = None) -> Iterator[int]:
        try:
            for number in range(most):
                time.sleep(0.01)
                yield number
            if error is not None:
                raise error
        finally:
            closed.set()

    async def tick() -> None:
        while True:
            ticks.append(1)
            await trio.sleep(0.002)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            assert [item async for item in runtime.pull(lambda: source(5))] == [0, 1, 2, 3, 4]
            nursery.cancel_scope.cancel()
        assert closed.is_set()
        assert len(ticks) > 10
        closed.clear()
        items = runtime.pull(lambda: source(1000))
        assert await anext(items) == 0
        await items.aclose()
        assert await trio.to_thread.run_sync(closed.wait, 5)
        items = runtime.pull(lambda: source(1, LookupError("x")))
        assert await anext(items) == 0
        with pytest.raises(LookupError):
            await anext(items)

    trio.run(main)


def test_sleep_sleeps():
    async def main() -> None:
        for seconds in (0.05, 0, -1):
            with Clock() as clock:
                await Trio(no_transport).sleep(seconds, Line())
            assert max(0, seconds) <= clock.seconds + 0.002 < max(0, seconds) + 1
        line = Line()
        line.abort()
        with pytest.raises(ClosedError):
            await Trio(no_transport).sleep(0, line)

    trio.run(main)


def deaf(over: threading.Event, left: threading.Event) -> None:
    over.wait(30)
    left.set()


@pytest.mark.parametrize("is_cut_before", [False, True], ids=["in the midst", "before"])
def test_abort_wakes_a_sleep_and_a_gather_from_another_thread(is_cut_before):
    runtime, over, left = Trio(no_transport), threading.Event(), threading.Event()

    async def forever() -> None:
        await trio.sleep_forever()

    def line() -> Line:
        made = Line()
        if is_cut_before:
            made.abort()
        else:
            threads.append(soon(made.abort))
        return made

    async def main() -> None:
        for begin in (
            lambda line: runtime.sleep(30, line),
            lambda line: runtime.gather([forever, forever], line),
            lambda line: runtime.gather([lambda: runtime.call(deaf, over, left)] * 2, line),
        ):
            with pytest.raises(ClosedError), Clock() as clock:
                await begin(line())
            assert clock.seconds < 1
        assert not left.is_set()  # A thread is left behind.
        over.set()
        assert await trio.to_thread.run_sync(left.wait, 5)

    threads: list[threading.Thread] = []
    trio.run(main)
    for thread in threads:
        thread.join()


def test_what_trio_cancels_is_not_mistaken_for_a_cut_line():
    runtime = Trio(no_transport)

    async def main() -> None:
        for begin in (
            lambda line: runtime.sleep(5, line),
            lambda line: runtime.gather([trio.sleep_forever] * 2, line),
            lambda line: runtime.call(time.sleep, 0.3),
        ):
            line = Line()
            with Clock() as clock, trio.move_on_after(0.05) as scope:
                await begin(line)
            assert scope.cancelled_caught
            assert clock.seconds < 0.25
            assert not line.aborted

    trio.run(main)


def test_what_comes_to_a_loop_that_has_ended_is_lost_without_a_word():
    line, runtime = Line(), Trio(no_transport)
    over, left = threading.Event(), threading.Event()

    async def main() -> None:
        with trio.move_on_after(0.05):
            await runtime.call(deaf, over, left)
        with trio.move_on_after(0.05):
            await runtime.gather([lambda: runtime.call(deaf, over, left)], line)

    trio.run(main)
    over.set()
    assert left.wait(5)
    line.abort()


# Models in this process need no transport


def test_a_model_in_this_process_its_tools_and_its_streams():
    def plain() -> str:
        return "plain"

    async def later() -> str:
        await trio.sleep(0.01)
        return "later"

    async def main() -> None:
        engine = Scripted(calls("plain", "later"), "one two three", "four five")
        async with aio.Client(engine, tools=[plain, later]) as client:
            response = await client.ask("?")
            assert [part.text for part in response.messages[1].parts] == ["plain", "later"]
            assert response.text == "one two three"
            async with client.stream("?") as stream:
                assert [chunk.content async for chunk in stream] == ["four ", "five", ""]

    trio.run(main)


def test_leaving_a_stream_early_lets_its_engine_go():
    engine = Waiting("one ", "two ")

    async def main() -> None:
        async with aio.Client(engine) as client, client.stream("?") as stream:
            assert (await anext(stream)).content == "one "
        assert await trio.to_thread.run_sync(engine.is_left.wait, 5)

    trio.run(main)


@pytest.mark.parametrize("what", ["stream", "client"])
def test_closing_from_another_thread_wakes_who_reads(what):
    engine = Waiting("one ")

    async def main() -> None:
        client = aio.Client(engine)
        stream = client.stream("?")
        assert (await anext(stream)).content == "one "
        thread = soon(stream.close if what == "stream" else client.close)
        with pytest.raises(ClosedError), Clock() as clock:
            await anext(stream)
        assert clock.seconds < 1
        thread.join()
        client.close()

    trio.run(main)


def test_a_tool_that_is_left_behind_is_told_that_nobody_waits():
    heard, began = threading.Event(), threading.Event()

    def slow(context: ToolContext) -> None:
        began.set()
        while not context.cancelled:
            time.sleep(0.005)
        heard.set()

    async def main() -> None:
        client = aio.Client(Scripted(calls("slow")), tools=[slow])
        with trio.move_on_after(0.1):
            await client.ask("?")
        assert began.is_set()
        assert await trio.to_thread.run_sync(heard.wait, 5)

    trio.run(main)


def test_a_blocking_client_in_a_tool_and_a_client_of_one_loop_on_the_other():
    def blocking() -> str:
        return sabir.Client(Scripted("sub")).ask("?").text

    client = aio.Client(Scripted(*[calls("blocking"), "done"] * 2), tools=[blocking])

    async def main() -> None:
        response = await client.ask("?")
        assert response.messages[1].parts[0].text == "sub"

    trio.run(main)
    asyncio.run(main())
    client.close()


def test_what_a_failed_tool_held_is_free_when_its_turn_is():
    class Held:
        pass

    held: list[weakref.ref[Held]] = []

    def fails() -> None:
        local = Held()
        held.append(weakref.ref(local))
        raise LookupError("x")

    async def main() -> None:
        assert (await aio.Client(Scripted(calls("fails"), "Fine."), tools=[fails]).ask("?")).text == "Fine."
        assert await trio.to_thread.run_sync(until, lambda: held[0]() is None, 2)

    gc.disable()
    try:
        trio.run(main)
    finally:
        gc.enable()


# Over the network


def test_a_client_of_httpx2_does_on_trio_all_that_it_does_on_asyncio():
    def answer(body: Any) -> Any:
        last = body["messages"][-1]
        return ToolCall(name="double", input='{"number": 21}', id="c1") if last["role"] == "user" else last["content"]

    def double(number: int) -> int:
        return 2 * number

    async def main() -> None:
        client = aio.Client(f"vllm:x@{server.url}", transport="httpx2", tools=[double])
        assert (await client.ask("?")).text == "42"
        async with client.stream("?", include=["generating"]) as stream:
            assert "".join([chunk.content async for chunk in stream]) == "42"
        assert stream.response.usage.input == 14
        chat = client.chat()
        await chat("?")
        assert (await chat("again?")).text == "42"
        client.close()

    with ChatServer(answer) as server:
        trio.run(main)
        asyncio.run(main())


def test_attempts_and_deadlines_on_trio():
    async def main() -> None:
        async with aio.Client(f"vllm:x@{server.url}", transport="httpx2") as client:
            with pytest.raises(RateLimitError) as caught:
                await client.ask("?")
            assert len(caught.value.attempts) == 3
        server.answer = lambda body: (time.sleep(0.6), "late")[1]
        async with aio.Client(f"vllm:x@{server.url}", transport="httpx2", timeout=0.2) as client:
            with pytest.raises(DeadlineExceeded, match="timeout"), Clock() as clock:
                await client.ask("?")
        assert clock.seconds < 0.5

    headers = {"retry-after": "0"}
    with ChatServer(lambda body: (429, {"error": {"message": "slow down"}}), headers=headers) as server:
        trio.run(main)


def test_a_stream_over_the_network_that_is_left_early_closes_its_connection():
    async def main() -> None:
        async with aio.Client(f"vllm:x@{server.url}", transport="httpx2") as client:
            async with client.stream("?") as stream:
                await anext(stream)
                assert server.connections
            assert await trio.to_thread.run_sync(until, lambda: not server.connections, 1)

    with ChatServer(lambda body: "one two three " * 100, pause=0.02) as server:
        trio.run(main)


def test_many_calls_at_once_on_trio():
    async def one(client: Any, number: int) -> None:
        found[number] = (await client.ask(str(number))).text

    async def main() -> None:
        async with aio.Client(f"vllm:x@{server.url}", transport="httpx2") as client, trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(one, client, number)

    found: dict[int, str] = {}
    with ChatServer(lambda body: f"It is {body['messages'][-1]['content']}.") as server:
        trio.run(main)
    assert found == {number: f"It is {number}." for number in range(50)}


def test_a_httpx_client_of_the_callers_on_trio():
    async def main() -> None:
        async with httpx.AsyncClient(headers={"x-own": "1"}) as own:
            client = aio.Client(f"vllm:x@{server.url}", transport=own)
            assert (await client.ask("?")).text == "Hello there!"
            client.close()
            assert not own.is_closed

    with ChatServer() as server:
        trio.run(main)
    assert server.asked[0].headers["x-own"] == "1"


@pytest.mark.parametrize("given", ["default", "aiohttp"])
def test_a_transport_that_knows_only_asyncio_says_so(given):
    async def make() -> aio.Client:
        session = aiohttp.ClientSession() if given == "aiohttp" else None
        if session is not None:
            await session.close()
        return aio.Client("vllm:x@http://127.0.0.1:9/v1", transport=session)

    client = asyncio.run(make())

    async def main() -> None:
        with pytest.raises(ConfigurationError, match=r"transport='httpx2'"):
            await client.ask("?")

    trio.run(main)
    client.close()


def test_a_transport_is_closed_once_with_its_client_whatever_loops_it_served():
    closed: list[bool] = []

    class Counting:
        def __init__(self) -> None:
            self.inner = eventful_transport("httpx2")

        async def send(self, request: Any, line: Line) -> Any:
            return await self.inner.send(request, line)

        def close(self) -> None:
            closed.append(True)
            self.inner.close()

    async def main() -> None:
        await client.ask("?")

    with ChatServer() as server:
        client = aio.Client(f"vllm:x@{server.url}", transport=Counting())
        trio.run(main)
        asyncio.run(main())
        client.close()
    assert closed == [True]
