"""Time as a client keeps it: a limit is late by 0.3 s at most, and leaving a stream closes its connection in 0.1 s.

What is measured here is how late something is, on a machine that may be busy: the best of five times counts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from chats import event, events
from servers import Call, Server, client_context, deaf_listener, mute_listener

from sabir import ConnectError, DeadlineExceeded, SabirError

# More than all the buffers between two sockets take.
LONG = "x" * 14_000_000
LIMIT = 0.3
LATE = 0.3
SOON = 0.1

each_scheme = pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])


# Servers that take their time


async def silence(call: Call) -> None:
    await call.forever()


async def silence_in_the_head(call: Call) -> None:
    call.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/ev")
    await call.forever()


async def silence_after_the_head(call: Call) -> None:
    call.head("Content-Type: text/event-stream", "Transfer-Encoding: chunked")
    await call.forever()


async def silence_in_the_answer(call: Call) -> None:
    call.head("Content-Type: text/event-stream", "Transfer-Encoding: chunked")
    call.chunk(next(events("Hello there")))
    await call.forever()


async def drip_headers(call: Call) -> None:
    call.write(b"HTTP/1.1 200 OK\r\n")
    await call.drip(b"X-More: 1\r\n")


async def drip_bytes_of_a_header(call: Call) -> None:
    call.write(b"HTTP/1.1 200 OK\r\nX-More: ")
    await call.drip(b"1")


async def drip_comments(call: Call) -> None:
    call.head("Content-Type: text/event-stream", "Transfer-Encoding: chunked")
    await call.drip(b"d\r\n: keep-alive\n\r\n")


async def drip_bytes_of_a_chunk(call: Call) -> None:
    call.head("Content-Type: text/event-stream", "Transfer-Encoding: chunked")
    call.write(b'fffff\r\ndata: {"')
    await call.drip(b"x")


async def drip_a_whole_answer(call: Call) -> None:
    call.head("Content-Type: application/json", "Content-Length: 1000000")
    await call.drip(b" ")


async def drip_words(call: Call) -> None:
    call.head("Content-Type: text/event-stream", "Transfer-Encoding: chunked")
    word = event([{"index": 0, "delta": {"content": "word "}, "finish_reason": None}])
    await call.drip(b"%x\r\n%b\r\n" % (len(word), word))


async def drip_an_error(call: Call) -> None:
    call.head("Content-Type: application/json", "Content-Length: 1000000", status="500 Internal Server Error")
    await call.drip(b" ")


async def deafness(call: Call) -> None:
    """Does not read the body until its sender must have given up, and so does not hear sooner that it has."""
    call._peer.transport.pause_reading()
    await asyncio.sleep(2.5 * LIMIT)
    call._peer.transport.resume_reading()
    await call.forever()


SILENCES = (silence, silence_in_the_head, silence_after_the_head, silence_in_the_answer)
DRIPS = (
    drip_headers,
    drip_bytes_of_a_header,
    drip_comments,
    drip_bytes_of_a_chunk,
    drip_a_whole_answer,
    drip_words,
    drip_an_error,
)


async def as_it_is_told(call: Call) -> None:
    await globals()[str(call.header("x-answer"))](call)


# How late something is


async def least_of_five(late: Callable[[], Coroutine[Any, Any, float]], enough: float) -> float:
    """How late it is, tried again where a busy machine may be to blame."""
    least = await late()
    for _ in range(4):
        if least > enough:
            least = min(least, await late())
    return least


async def ask(client: Any, *prompt: Any, **options: Any) -> None:
    await client.ask(*prompt, **options)


async def read(client: Any, *prompt: Any, **options: Any) -> None:
    async for _ in client.stream(*prompt, **options):
        pass


async def lateness(client: Any, answer: Any, call: Any, error: type[SabirError]) -> float:
    """How long after its limit a call ends that never has its answer; with an error that says so."""
    prompt = LONG if answer is deafness else "?"
    headers = {"x-answer": answer.__name__}
    began = time.monotonic()
    with pytest.raises(error) as caught:
        await call(client, prompt, headers=headers)
    took = time.monotonic() - began
    assert took >= LIMIT - 0.01, f"{answer.__name__} ended before its time: {caught.value}"
    return took - LIMIT


async def late_ones(surface: Any, client: Any, answers: Any, error: type[SabirError]) -> dict[str, float]:
    """Those of many calls at once that are too late."""
    found: dict[str, float] = {}

    async def job(answer: Any, call: Any) -> None:
        late = await least_of_five(lambda: lateness(client, answer, call, error), LATE)
        if late > LATE:
            found[f"{call.__name__} {answer.__name__}"] = late

    jobs = [(answer, call) for answer in answers for call in (ask, read)]
    await surface.at_once(*(lambda each=each: job(*each) for each in jobs))
    return found


def client_of(surface: Any, server: Server, **settings: Any) -> Any:
    return surface.client(f"vllm:x@{server.url}/v1", ssl_context=client_context(), **settings)


# Limits


@each_scheme
async def test_the_timeout_holds_against_every_kind_of_waiting(surface, secure):
    with Server(as_it_is_told, secure=secure) as server:
        client = client_of(surface, server, timeout=LIMIT)
        assert await late_ones(surface, client, SILENCES + DRIPS, DeadlineExceeded) == {}
        assert await surface.in_thread(server.is_left_by_all)


@each_scheme
async def test_the_timeout_holds_over_all_attempts(surface, secure):
    """The attempts that fail at once leave the last less time, and no time to wait is no reason to come late."""

    async def refuse_and_be_silent(call: Call) -> None:
        if len(server.calls) % 3:
            call.head("Content-Length: 0", "Retry-After: 0", status="503 Service Unavailable")
        else:
            await call.forever()

    with Server(refuse_and_be_silent, secure=secure) as server:
        client = client_of(surface, server, timeout=LIMIT)
        late = await least_of_five(lambda: lateness(client, silence, ask, DeadlineExceeded), LATE)
        assert late <= LATE
        assert len(server.calls) % 3 == 0


@each_scheme
async def test_the_limit_on_silence_holds_in_every_part_of_an_answer(surface, secure):
    with Server(as_it_is_told, secure=secure) as server:
        client = client_of(surface, server, idle_timeout=LIMIT, max_attempts=1)
        assert await late_ones(surface, client, SILENCES, DeadlineExceeded) == {}
        assert await surface.in_thread(server.is_left_by_all)


@each_scheme
async def test_limits_hold_against_a_server_that_does_not_read(surface, secure):
    async def late(limit: str) -> float:
        client = client_of(surface, server, max_attempts=1, **{limit: LIMIT})
        return await least_of_five(lambda: lateness(client, deafness, ask, DeadlineExceeded), LATE)

    with Server(as_it_is_told, secure=secure, answers_early=True) as server:
        found = await surface.at_once(lambda: late("timeout"), lambda: late("idle_timeout"))
        assert max(found) <= LATE
        assert await surface.in_thread(lambda: server.is_left_by_all(5))


@pytest.mark.parametrize("limit", ["timeout", "connect_timeout"])
async def test_limits_hold_while_connecting(surface, limit):
    error = DeadlineExceeded if limit == "timeout" else ConnectError
    with deaf_listener() as deaf, mute_listener() as mute:
        for url in (f"http://127.0.0.1:{deaf}", f"https://127.0.0.1:{mute}"):
            client = surface.client(f"vllm:x@{url}/v1", max_attempts=1, **{limit: LIMIT})
            late = await least_of_five(lambda client=client: lateness(client, silence, ask, error), LATE)
            assert late <= LATE, url


async def test_what_is_slow_but_not_silent_is_read_to_its_end(surface):
    async def slowly(call: Call) -> None:
        call.head("Content-Type: text/event-stream", "Transfer-Encoding: chunked")
        for piece in events("one two three four five"):
            await asyncio.sleep(LIMIT / 4)
            call.chunk(piece)
        call.chunk(b"")

    with Server(slowly) as server:
        stream = client_of(surface, server, idle_timeout=LIMIT).stream("?")
        async for _ in stream:
            pass
        assert stream.response.text == "one two three four five"


# Leaving a stream


async def leave_by_break(client: Any) -> None:
    async for _ in client.stream("?"):
        break


async def leave_by_close(client: Any) -> None:
    stream = client.stream("?")
    await anext(stream)
    stream.close()


async def fail_in_the_middle(client: Any) -> None:
    async with client.stream("?") as stream:
        async for _ in stream:
            raise ZeroDivisionError


async def leave_by_an_exception(client: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        await fail_in_the_middle(client)


async def leave_by_dropping(client: Any) -> None:
    stream = client.stream("?")
    await anext(stream)
    del stream


@each_scheme
@pytest.mark.parametrize("leave", [leave_by_break, leave_by_close, leave_by_an_exception, leave_by_dropping])
async def test_a_stream_that_is_left_closes_its_connection_at_once(surface, secure, leave):
    async def left() -> float:
        await leave(client)
        began = time.monotonic()
        assert await surface.in_thread(server.is_left_by_all), "the connection stays open"
        return time.monotonic() - began

    with Server(silence_in_the_answer, secure=secure) as server:
        client = client_of(surface, server)
        assert await least_of_five(left, SOON) <= SOON
