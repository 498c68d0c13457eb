"""The same on every kind of event loop: asyncio's, uvloop's, and gevent's, which makes the blocking surface one."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Coroutine
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
from chats import Speaker, events
from servers import Call, Server, authority, client_context, free_port, mute_listener, until

from sabir import ClosedError, ConnectError, DeadlineExceeded, ToolCall, aio
from sabir.loops import loop_here

SOON = 0.25
SLACK = 1.0

each_scheme = pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])


def need(package: str) -> None:
    """Skip where a package is not installed; fail where it has to be."""
    if find_spec(package) is None:
        message = f"{package} is not installed: pip install {package}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


Run = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Any:
    """Runs a coroutine on a loop of its own, which must have nothing to complain of."""
    need(request.param)
    new_loop = import_module(request.param).new_event_loop

    def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())

    yield run
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def client_of(server: Server, **settings: Any) -> aio.Client:
    return aio.Client(f"vllm:x@{server.url}/v1", ssl_context=client_context(), **settings)


async def is_left(server: Server) -> bool:
    return await asyncio.to_thread(server.is_left_by_all)


def double(number: int) -> int:
    return 2 * number


async def double_later(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


def wants_tools_first(request: Any) -> Any:
    """Calls each tool once, then says what they returned."""
    if results := [part.text for message in request.messages if message.role == "tool" for part in message.parts]:
        return " ".join(results)
    return tuple(ToolCall(tool.name, '{"number": 2}', tool.name) for tool in request.tools)


async def silence_in_the_answer(call: Call) -> None:
    call.head("Content-Type: text/event-stream", "Transfer-Encoding: chunked")
    call.chunk(next(events("Hello there")))
    await call.forever()


async def drip_comments(call: Call) -> None:
    call.head("Content-Type: text/event-stream", "Transfer-Encoding: chunked")
    await call.drip(b"d\r\n: keep-alive\n\r\n")


# asyncio and uvloop


@each_scheme
def test_calls_and_streams_on_one_connection(run, secure):
    async def main() -> None:
        async with client_of(server) as client:
            assert (await client.ask("one two")).text == "one two"
            stream = client.stream("three four")
            assert [chunk.content async for chunk in stream if chunk.phase == "generating"] == ["three ", "four"]
            assert stream.response.text == "three four"
            long = "x" * 3_000_000
            assert (await client.ask(long)).text == long
            assert server.accepted == 1

    with Server(Speaker(), secure=secure) as server:
        run(main)
        assert server.is_left_by_all()


def test_what_is_to_be_done_on_a_loop_is_done_once_even_if_it_fails(run):
    done: list[str] = []

    def fail() -> None:
        done.append("here")
        raise RuntimeError("it failed")

    async def main() -> None:
        here = loop_here()
        with pytest.raises(RuntimeError, match="it failed"):
            here.do(fail)
        there = asyncio.Event()
        await asyncio.to_thread(here.do, there.set)
        await there.wait()
        loops.append(here)

    loops: list[Any] = []
    run(main)
    loops.pop().do(fail)  # The loop has ended: nothing is done, and nothing said.
    assert done == ["here"]


def test_calls_at_once(run):
    async def main() -> None:
        async with client_of(server) as client:
            answers = await asyncio.gather(*(client.ask(f"number {number}") for number in range(100)))
            assert [answer.text for answer in answers] == [f"number {number}" for number in range(100)]

    with Server(Speaker(pause=0.001)) as server:
        run(main)
        assert server.is_left_by_all()


def test_tools_of_both_colours(run):
    async def main() -> None:
        async with client_of(server, tools=[double, double_later]) as client:
            assert (await client.ask("?")).text == "4 4"

    with Server(Speaker(wants_tools_first)) as server:
        run(main)


@each_scheme
@pytest.mark.parametrize("answer", [drip_comments, silence_in_the_answer])
def test_the_deadline_holds(run, answer, secure):
    async def main() -> None:
        async with client_of(server, timeout=SOON) as client:
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                await client.ask("?")
            assert SOON - 0.01 <= time.monotonic() - began < SOON + SLACK
            assert await is_left(server)

    with Server(answer, secure=secure) as server:
        run(main)


@each_scheme
def test_the_limit_on_silence_holds(run, secure):
    async def main() -> None:
        async with client_of(server, idle_timeout=SOON, max_attempts=1) as client:
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded, match="idle_timeout"):
                await client.ask("?")
            assert SOON - 0.01 <= time.monotonic() - began < SOON + SLACK
            assert await is_left(server)

    with Server(silence_in_the_answer, secure=secure) as server:
        run(main)


def test_connections_that_cannot_be_made(run):
    async def ask(url: str) -> None:
        async with aio.Client(f"vllm:x@{url}/v1", connect_timeout=SOON, max_attempts=1) as client:
            await client.ask("?")

    with pytest.raises(ConnectError, match="refused"):
        run(lambda: ask(f"http://127.0.0.1:{free_port()}"))
    with mute_listener() as port, pytest.raises(ConnectError, match=r"0\.25 s"):
        run(lambda: ask(f"https://127.0.0.1:{port}"))


@each_scheme
@pytest.mark.parametrize("what", ["stream", "client"])
def test_close_from_another_thread_wakes_the_reader(run, secure, what):
    async def main() -> None:
        client = client_of(server)
        stream = client.stream("?")
        await anext(stream)
        closing = threading.Timer(0.05, stream.close if what == "stream" else client.close)
        closing.start()
        with pytest.raises(ClosedError):
            await anext(stream)
        closing.join()
        assert await is_left(server)
        client.close()

    with Server(silence_in_the_answer, secure=secure) as server:
        run(main)


@each_scheme
def test_a_task_that_is_cancelled_lets_go_at_once(run, secure):
    async def main() -> None:
        async with client_of(server) as client:
            task = asyncio.create_task(client.ask("?"))
            assert await asyncio.to_thread(until, lambda: len(server.calls) == 1, 5)
            task.cancel("because")
            with pytest.raises(asyncio.CancelledError, match="because"):
                await task
            assert await is_left(server)
            server.answer = Speaker()
            assert (await client.ask("And now?")).text == "And now?"

    with Server(silence_in_the_answer, secure=secure) as server:
        run(main)


@each_scheme
def test_a_stream_that_is_left_closes_its_connection(run, secure):
    async def main() -> None:
        async with client_of(server) as client:
            async for _ in client.stream("?"):
                break
            assert await is_left(server)

    with Server(silence_in_the_answer, secure=secure) as server:
        run(main)


@each_scheme
def test_one_client_serves_fifty_loops_one_after_another(run, secure):
    async def main() -> None:
        assert (await client.ask("Hello")).text == "Hello"
        async for _ in client.stream("one two three"):
            break
        streams.append(client.stream("one two three"))
        await anext(streams[-1])

    streams: list[Any] = []
    with Server(Speaker(), secure=secure) as server:
        client = client_of(server)
        for _ in range(50):
            run(main)
            assert server.is_left_by_all()
        client.close()


# gevent


GEVENT = """
    from gevent import monkey
    monkey.patch_all()

    import ssl, sys, time
    import gevent
    import sabir

    http, https, silent, authority = sys.argv[1:]
    context = ssl.create_default_context(cafile=authority)

    def client_of(url, **settings):
        return sabir.Client(f"vllm:x@{url}/v1", ssl_context=context, **settings)

    def read(stream):
        return "".join(chunk.content for chunk in stream if chunk.phase == "generating")

    # Each answer takes 0.2 s; one after the other they would take 4 s each time.
    for url in (http, https):
        with client_of(url) as client:
            for ask in (lambda said: client.ask(said).text, lambda said: read(client.stream(said))):
                began = time.monotonic()
                jobs = [gevent.spawn(ask, f"greenlet {number}") for number in range(20)]
                gevent.joinall(jobs, timeout=30)
                assert [job.value for job in jobs] == [f"greenlet {number}" for number in range(20)], jobs
                assert time.monotonic() - began < 2, time.monotonic() - began

    for limit in ("timeout", "idle_timeout"):
        with client_of(silent, max_attempts=1, **{limit: 0.25}) as client:
            began, ticks = time.monotonic(), []
            ticker = gevent.spawn(lambda: [ticks.append(gevent.sleep(0.01)) for _ in range(1000)])
            for ask in (lambda: client.ask("?"), lambda: read(client.stream("?"))):
                try:
                    ask()
                except sabir.DeadlineExceeded:
                    pass
                else:
                    raise AssertionError("no deadline")
            assert 0.49 <= time.monotonic() - began < 2, time.monotonic() - began
            assert len(ticks) > 10, "the others stood still"
            ticker.kill()

    with client_of(silent) as client:
        stream = client.stream("?")
        next(stream)
        gevent.spawn_later(0.05, stream.close)
        try:
            next(stream)
        except sabir.ClosedError:
            pass
        else:
            raise AssertionError("not closed")

    def double(number: int) -> int:
        gevent.sleep(0.01)
        return 2 * number

    async def double_later(number: int) -> int:
        return 2 * number

    with client_of(http, tools=[double, double_later]) as client:
        assert client.ask("?").text == "4 4"
    print("whole")
"""


def test_gevent_runs_blocking_calls_at_once(tmp_path):
    need("gevent")

    async def answer(call: Call) -> None:
        await asyncio.sleep(0.2)
        await (Speaker(wants_tools_first) if b'"tools"' in call.body else Speaker())(call)

    certificates = tmp_path / "authority.pem"
    authority().cert_pem.write_to_path(certificates)
    with Server(answer) as http, Server(answer, secure=True) as https, Server(silence_in_the_answer) as silent:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(GEVENT), http.url, https.url, silent.url, str(certificates)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stderr == ""
        assert done.stdout == "whole\n"
        assert all(server.is_left_by_all() for server in (http, https, silent))
