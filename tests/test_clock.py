"""A clock that moves only when it is told to: what is told in seconds happens without any passing."""

from __future__ import annotations

import asyncio
import math
import threading
import time

import pytest

from sabir import ClosedError, ConfigurationError, DeadlineExceeded, ToolCall
from sabir.runtime import Blocking, Eventful, Line, run
from sabir.testing import Faults, Scripted, VirtualClock, faults


def no_transport():
    raise AssertionError("nothing is to be sent")


def blocking(clock):
    return clock(Blocking(no_transport))


async def test_a_sleep_moves_the_clock_and_takes_no_time(surface):
    clock = VirtualClock(100)
    runtime = clock(Blocking(no_transport) if surface.is_blocking else Eventful(no_transport))
    began = time.monotonic()
    assert runtime.now() == 100
    for seconds in (3600, 0.25, 0, -1):
        await runtime.sleep(seconds, Line(now=runtime.now))
    assert runtime.now() == clock.now() == 3700.25
    assert clock.slept == [3600, 0.25]
    assert time.monotonic() - began < 5


async def test_a_sleep_on_a_line_that_was_cut_does_not_happen(surface):
    clock, line = VirtualClock(), Line()
    runtime = clock(Blocking(no_transport) if surface.is_blocking else Eventful(no_transport))
    line.abort()
    with pytest.raises(ClosedError):
        await runtime.sleep(5, line)
    assert (clock.now(), clock.slept) == (0, [])


def test_the_clock_can_be_advanced_and_never_goes_back():
    clock = VirtualClock()
    line = Line(deadline=10, now=blocking(clock).now)
    clock.advance(9.5)
    assert line.left() == 0.5
    clock.advance(0.5)
    assert line.is_over()
    for seconds in (-1, math.inf, math.nan):
        with pytest.raises(ConfigurationError, match="advanced by seconds from 0 on"):
            clock.advance(seconds)


def test_others_have_their_turn_while_one_sleeps():
    seen = []

    async def main():
        runtime, line = VirtualClock()(Eventful(no_transport)), Line()

        async def sleeper(name):
            for number in range(3):
                seen.append((number, name))
                await runtime.sleep(10, line)

        await asyncio.gather(sleeper("a"), sleeper("b"))

    asyncio.run(main())
    assert seen == [(0, "a"), (0, "b"), (1, "a"), (1, "b"), (2, "a"), (2, "b")]


def test_no_sleep_of_many_threads_is_lost():
    clock = VirtualClock()

    def sleep():
        for _ in range(100):
            run(lambda: blocking(clock).sleep(0.1, Line()))

    threads = [threading.Thread(target=sleep) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.now() == pytest.approx(80)
    assert len(clock.slept) == 800


async def test_a_client_tells_its_time_by_the_clock(surface):
    clock = VirtualClock()

    def slow():
        clock.advance(1000)

    client = surface.client(Scripted(ToolCall(name="slow"), "done"), tools=[slow], runtime_wrappers=[clock])
    response = await client.ask("?")
    assert response.timings.total == 1000
    assert response.timings.first_token == 0


async def test_a_deadline_passes_by_the_clock(surface):
    clock = VirtualClock()
    wrappers = [clock, Faults(faults.Stall())]
    client = surface.client("vllm:x@http://127.0.0.1:1/v1", runtime_wrappers=wrappers, timeout=90)
    with pytest.raises(DeadlineExceeded, match="timeout"):
        await client.ask("?")
    assert clock.now() == 90
