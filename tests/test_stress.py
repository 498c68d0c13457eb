"""Many at once and many in a row: every text is its caller's own, and nothing is left behind.

benchmarks/many_streams.py and benchmarks/memory.py do the same in larger numbers, and print what it costs.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from chats import Speaker
from servers import Server, client_context, until

import sabir
from sabir import ClosedError, SabirError, aio


def started(work: Any, number: int) -> list[threading.Thread]:
    threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(number)]
    for thread in threads:
        thread.start()
    return threads


def joined(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(60)
    assert not [thread for thread in threads if thread.is_alive()]


def text_of(stream: Any) -> str:
    return "".join(chunk.content for chunk in stream if chunk.phase == "generating")


# Threads


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize(("number", "turns"), [(8, 25), (200, 3)])
def test_threads_share_a_client_and_get_their_own_answers(number, turns, secure):
    found: Counter[Any] = Counter()

    def work(index: int) -> None:
        for turn in range(turns):
            asked = f"thread {index} turn {turn} says one two three"
            found["asked", client.ask(asked).text == asked] += 1
            with client.stream(asked) as stream:
                found["streamed", text_of(stream) == asked == stream.response.text] += 1

    context = client_context() if secure else None
    with Server(Speaker(), secure=secure) as server:
        with sabir.Client(f"vllm:x@{server.url}/v1", ssl_context=context) as client:
            joined(started(work, number))
        assert found == {("asked", True): number * turns, ("streamed", True): number * turns}
        # Few more than threads: a stream's last bytes are waited for 0.25 s, which may be too short on a busy machine.
        assert server.accepted <= number * 1.25
        assert server.is_left_by_all()


@pytest.mark.parametrize("number", [8, 200])
def test_a_client_may_be_closed_while_threads_use_it(number):
    found: Counter[Any] = Counter()

    def work(index: int) -> None:
        for turn in range(1_000_000):
            asked = f"thread {index} turn {turn} says one two three"
            try:
                said = client.ask(asked).text if turn % 2 else text_of(client.stream(asked))
            except SabirError as error:
                found[type(error)] += 1
                return
            assert said == asked

    with Server(Speaker(pause=0.001)) as server:
        client = sabir.Client(f"vllm:x@{server.url}/v1")
        threads = started(work, number)
        assert until(lambda: len(server.calls) > 2 * number, 60)
        client.close()
        joined(threads)
        assert found == {ClosedError: number}
        assert server.is_left_by_all()


# Streams


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_many_streams_at_once_on_one_loop(secure):
    chunks = 200

    async def read(client: Any, number: int) -> bool:
        asked = " ".join(f"{number}.{word}" for word in range(chunks))
        stream = client.stream(asked, include=["generating"])
        shown = [chunk.content async for chunk in stream]
        return stream.response.text == asked and len(shown) == chunks and "".join(shown) == asked

    async def main() -> list[bool]:
        async with aio.Client(f"vllm:x@{server.url}/v1", ssl_context=client_context()) as client:
            return await asyncio.gather(*(read(client, number) for number in range(200)))

    with Server(Speaker(), secure=secure) as server:
        assert asyncio.run(main()) == [True] * 200
        assert server.is_left_by_all()


# Memory


class Footprint:
    """What this process has: kB of memory, where the system tells it, open files and objects."""

    def __init__(self) -> None:
        gc.collect()
        self.memory = self.files = 0
        if sys.platform == "linux":
            lines = Path("/proc/self/status").read_text().splitlines()
            self.memory = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
            self.files = sum(1 for _ in Path("/proc/self/fd").iterdir())
        self.objects = len(gc.get_objects())


async def ask(client: Any) -> None:
    await client.ask("Hello")


async def read(client: Any) -> None:
    async for _ in client.stream("one two three"):
        pass


async def leave(client: Any) -> None:
    async for _ in client.stream("one two three"):
        break


@pytest.mark.parametrize("call", [ask, read, leave])
async def test_calls_leave_nothing_behind(surface, call):
    with Server(Speaker()) as server:
        client = surface.client(f"vllm:x@{server.url}/v1")

        async def calls(number: int) -> Footprint:
            for _ in range(number):
                await call(client)
                server.calls.clear()
            assert await surface.in_thread(lambda: until(lambda: len(server.peers) <= 1, 5))
            return Footprint()

        before = await calls(300)
        after = await calls(1200)
        assert after.files <= before.files
        assert after.objects - before.objects < 100
        assert after.memory - before.memory < 1000


# Warnings


def test_nothing_is_warned_of_in_pythons_development_mode():
    program = """
    import asyncio, sys
    import sabir
    from sabir import aio
    from servers import Server, client_context, on_server_thread
    from chats import Speaker

    def double(number: int) -> int:
        return 2 * number

    async def double_later(number: int) -> int:
        return 2 * number

    CALLS = tuple(sabir.ToolCall(name, '{"number": 2}', name) for name in ("double", "double_later"))

    def said(request):
        return CALLS if request.tools and request.messages[-1].role != "tool" else "one two three"

    async def answer(call):
        if b"refuse" in call.body:
            call.head("Content-Length: 0", status="400 Bad Request")
        elif b"break off" in call.body:
            call.head("Content-Type: text/event-stream", "Content-Length: 1000")
            call.write(b"data: ")
            call.close()
        else:
            await speaker(call)

    def expect(error, function):
        try:
            function()
        except error:
            return
        raise AssertionError(error)

    def blocking(url):
        left = sabir.Client(url, ssl_context=client_context())
        left.ask("Hello")
        with sabir.Client(url, ssl_context=client_context(), tools=[double, double_later], max_attempts=1) as client:
            assert client.ask("Hello").text == "one two three"
            for _ in client.stream("Hello"):
                pass
            for _ in client.stream("Hello"):
                break
            with client.stream("Hello") as stream:
                next(stream)
            never_read = client.stream("Hello")
            expect(sabir.BadRequestError, lambda: client.ask("refuse"))
            expect(sabir.StreamInterrupted, lambda: list(client.stream("break off")))
            client.chat()("Hello")

    async def fails(error, awaitable):
        try:
            await awaitable
        except error:
            return
        raise AssertionError(error)

    async def to_list(stream):
        return [chunk async for chunk in stream]

    async def does_not_watch_the_clock(loop):
        loop.slow_callback_duration = 60

    async def awaitable(url):
        await does_not_watch_the_clock(asyncio.get_running_loop())
        left = aio.Client(url, ssl_context=client_context())
        await left.ask("Hello")
        tools = [double, double_later]
        async with aio.Client(url, ssl_context=client_context(), tools=tools, max_attempts=1) as client:
            assert (await client.ask("Hello")).text == "one two three"
            await to_list(client.stream("Hello"))
            async for _ in client.stream("Hello"):
                break
            async with client.stream("Hello") as stream:
                await anext(stream)
            never_read = client.stream("Hello")
            await fails(sabir.BadRequestError, client.ask("refuse"))
            await fails(sabir.StreamInterrupted, to_list(client.stream("break off")))
            await fails(TimeoutError, asyncio.wait_for(client.ask("Hello"), 0))
            await asyncio.gather(*(client.chat()("Hello") for _ in range(5)))
        left_open = client_of_module.stream("Hello")
        await anext(left_open)

    on_server_thread(does_not_watch_the_clock)
    speaker = Speaker(said)
    for secure in (False, True):
        with Server(answer, secure=secure) as server:
            url = f"vllm:x@{server.url}/v1"
            blocking(url)
            client_of_module = aio.Client(url, ssl_context=client_context())
            for _ in range(3):
                asyncio.run(awaitable(url))
    """
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
