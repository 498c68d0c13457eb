"""Trying again: how often, after how long, and when not; on a clock that makes no test wait."""

from __future__ import annotations

import json

import pytest
from fakes import ChatServer

from sabir import (
    AuthenticationError,
    ConnectError,
    DeadlineExceeded,
    OverloadedError,
    RateLimitError,
    SabirError,
    ServerError,
    StreamInterrupted,
)
from sabir.testing import Faults, VirtualClock
from sabir.testing.faults import Cut, Refuse, Reset, Slow, Stall, Status

QUOTA = json.dumps({"error": {"message": "empty", "code": "insufficient_quota"}}).encode()
DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


class Asking:
    """A client of a server that answers, with faults between them, on a clock of its own."""

    def __init__(self, surface, server, *plan, **settings):
        self.clock, self.faults = VirtualClock(), Faults(*plan)
        wrappers = [self.clock, self.faults]
        self.client = surface.client(f"vllm:x@{server.url}", runtime_wrappers=wrappers, **settings)


async def read(stream, seen):
    async for chunk in stream:
        seen.append(chunk.content)


@pytest.fixture
def server():
    with ChatServer(lambda body: "one two three") as running:
        yield running


@pytest.mark.parametrize("how", ["ask", "stream"])
async def test_what_may_pass_is_tried_again_after_a_growing_wait(surface, server, how):
    asking = Asking(surface, server, Refuse(), Status(500), max_attempts=3)
    if how == "ask":
        response = await asking.client.ask("?")
    else:
        stream = asking.client.stream("?")
        assert [chunk.content async for chunk in stream] == ["one ", "two ", "three", ""]
        response = stream.response
    assert response.text == "one two three"
    assert [attempt.outcome for attempt in response.attempts] == ["ConnectError", "ServerError", "answered"]
    assert [attempt.status for attempt in response.attempts] == [None, 500, None]
    first, second = asking.clock.slept
    assert 0.25 <= first <= 0.5 <= second <= 1
    assert [attempt.waited for attempt in response.attempts] == [0, first, second]
    assert len(server.asked) == 1


async def test_the_wait_has_an_end_to_its_growth(surface, server):
    asking = Asking(surface, server, *[Refuse()] * 9, max_attempts=10)
    await asking.client.ask("?")
    assert all(4 <= wait <= 8 for wait in asking.clock.slept[4:])
    assert len(set(asking.clock.slept)) == 9


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_no_more_requests_are_made_than_were_allowed(surface, server, most):
    asking = Asking(surface, server, *[Refuse()] * 5, max_attempts=most)
    with pytest.raises(ConnectError) as caught:
        await asking.client.ask("?")
    assert [attempt.outcome for attempt in caught.value.attempts] == ["ConnectError"] * most
    assert len(asking.faults.struck) == most
    assert len(asking.clock.slept) == most - 1
    assert server.asked == []


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": DATE}, 30),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1m2s"}, 62),
        ({"anthropic-ratelimit-requests-reset": "2026-10-21T07:28:09Z", "date": DATE}, 9),
        ({"retry-after": "0"}, None),
    ],
)
async def test_a_server_is_asked_again_when_it_said(surface, server, headers, wait):
    asking = Asking(surface, server, Status(429, headers=headers))
    response = await asking.client.ask("?")
    assert asking.clock.slept == ([] if wait is None else [wait])
    assert response.attempts[1].waited == (wait or 0)


async def test_a_wait_beyond_the_deadline_is_not_begun(surface, server):
    asking = Asking(surface, server, Status(429, retry_after=61), timeout=60)
    with pytest.raises(RateLimitError) as caught:
        await asking.client.ask("?")
    assert caught.value.retry_after == 61
    assert asking.clock.slept == []
    asking = Asking(surface, server, Status(429, retry_after=61), timeout=None)
    await asking.client.ask("?")
    assert asking.clock.slept == [61]


async def test_the_deadline_is_that_of_all_attempts(surface, server):
    busy = Status(503, retry_after=20)
    asking = Asking(surface, server, busy, busy, Slow(19), timeout=60)
    response = await asking.client.ask("?")
    assert response.timings.total == 59
    asking = Asking(surface, server, busy, busy, Slow(21), timeout=60)
    with pytest.raises(DeadlineExceeded, match="timeout") as caught:
        await asking.client.ask("?")
    assert asking.clock.now() == 60
    assert [attempt.outcome for attempt in caught.value.attempts] == ["OverloadedError"] * 2 + ["DeadlineExceeded"]


@pytest.mark.parametrize(
    ("fault", "kind", "is_tried_again"),
    [
        (Status(400), SabirError, False),
        (Status(401), AuthenticationError, False),
        (Status(404), SabirError, False),
        (Status(408), SabirError, True),
        (Status(409), SabirError, True),
        (Status(429), RateLimitError, True),
        (Status(429, QUOTA), RateLimitError, False),
        (Status(302, headers={"location": "http://127.0.0.1:1/"}), SabirError, False),
        (Status(500), ServerError, True),
        (Status(502, b"<html>Bad gateway</html>"), ServerError, True),
        (Status(503), OverloadedError, True),
        (Status(529), OverloadedError, True),
        (Refuse(), ConnectError, True),
        (Reset(), ConnectError, True),
        (Stall(), DeadlineExceeded, False),
        (Reset(after=0), StreamInterrupted, True),
        (Reset(after=50), StreamInterrupted, True),
    ],
)
async def test_only_what_may_pass_is_tried_again(surface, server, fault, kind, is_tried_again):
    asking = Asking(surface, server, fault, fault, max_attempts=2, idle_timeout=5)
    with pytest.raises(kind) as caught:
        await asking.client.ask("?")
    assert len(caught.value.attempts) == len(asking.faults.struck) == 1 + is_tried_again
    assert caught.value.retryable == is_tried_again


@pytest.mark.parametrize("fault", [Reset(after=0), Cut(after=0), Reset(after=30), Cut(after=30)])
async def test_a_stream_that_broke_before_it_said_anything_is_begun_again(surface, server, fault):
    asking = Asking(surface, server, fault)
    stream = asking.client.stream("?", include=["generating"])
    assert [chunk.content async for chunk in stream] == ["one ", "two ", "three"]
    assert [attempt.outcome for attempt in stream.response.attempts] == ["StreamInterrupted", "answered"]


@pytest.mark.parametrize("fault", [Reset(after=200), Cut(after=200), Stall(after=200)])
async def test_nothing_is_tried_again_once_something_was_said(surface, server, fault):
    asking = Asking(surface, server, fault, idle_timeout=5)
    stream = asking.client.stream("?", include=["generating"])
    seen = []
    with pytest.raises((StreamInterrupted, DeadlineExceeded)) as caught:
        await read(stream, seen)
    assert "".join(seen) == caught.value.partial.text == "one "
    assert len(caught.value.attempts) == len(server.asked) == 1
