"""One table of what every transport must do, run against each of them, and what only one of them could get wrong.

A scenario is written once, as `async def`, and awaits nothing but its transport. The servers are real, on loopback.
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import logging
import os
import signal
import ssl
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Coroutine
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import trio
from callers import CALLERS, EXEMPT, OnLoop, blocking_httpx, run_on_asyncio
from servers import (
    Call,
    Gate,
    Server,
    chunked,
    client_context,
    deaf_listener,
    free_port,
    mute_listener,
    until,
    whole,
)

from sabir.errors import (
    ClosedError,
    ConfigurationError,
    ConnectError,
    DeadlineExceeded,
    StreamInterrupted,
)
from sabir.requests import HttpRequest
from sabir.runtime import Line, Reply, Transport, run
from sabir.transports import Network
from sabir.transports.blocking import BlockingTransport
from sabir.transports.eventful import EventfulTransport
from sabir.transports.httpx2 import BlockingHttpx2, EventfulHttpx2

# How late a busy machine may be; alone, every wait here ends within a few ms of its time.
SLACK = 1.0
SOON = 0.25


class Pipe(NamedTuple):
    transport: Any
    go: Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]
    sleep: Callable[[float], Coroutine[Any, Any, None]]


async def sleep_blocking(seconds):
    time.sleep(seconds)  # noqa: ASYNC251


def run_inside_a_loop(scenario):
    async def main():
        return run(scenario)

    return asyncio.run(main())


PIPES = {
    "blocking": (BlockingTransport, run, sleep_blocking),
    "blocking in a loop": (BlockingTransport, run_inside_a_loop, sleep_blocking),
    "eventful": (EventfulTransport, run_on_asyncio, asyncio.sleep),
    "httpx2": (BlockingHttpx2, run, sleep_blocking),
    "httpx2 on asyncio": (EventfulHttpx2, run_on_asyncio, asyncio.sleep),
    "httpx2 on trio": (EventfulHttpx2, trio.run, trio.sleep),
}
# Of somebody's client: see `callers`.
GIVEN = ["httpx.Client", *CALLERS]


@contextmanager
def opened(name, network):
    """A pipe by its name, closed at the end."""
    if name == "httpx.Client":
        with blocking_httpx(network) as transport:
            yield Pipe(transport, run, sleep_blocking)
            transport.close()
        return
    if name in CALLERS:
        transport = OnLoop(CALLERS[name], network)
        go, sleep = transport.go, CALLERS[name].sleep
    else:
        make, go, sleep = PIPES[name]
        transport = make(network)
    yield Pipe(transport, go, sleep)
    transport.close()


@pytest.fixture(params=[*PIPES, *GIVEN])
def pipe(request):
    names, reason = EXEMPT.get(request.function.__name__, ((), ""))
    if request.param in names:
        pytest.skip(reason)
    with opened(request.param, Network(client_context())) as pipe:
        yield pipe


class Whole(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def request(url, method="POST", headers=(), body=b"{}"):
    return HttpRequest(method, url, tuple(headers), body)


async def read(reply: Reply, pieces: list[bytes] | None = None) -> bytes:
    pieces = [] if pieces is None else pieces
    while data := await reply.read_some():
        pieces.append(data)
    return b"".join(pieces)


async def fetch(transport: Transport, url, line=None, **details) -> Whole:
    reply = await transport.send(request(url, **details), line or Line())
    try:
        return Whole(reply.status, dict(reply.headers), await read(reply))
    finally:
        reply.close()


@contextmanager
def taking(seconds):
    """The block takes this long: not less, and not much more."""
    start = time.monotonic()
    yield
    took = time.monotonic() - start
    assert seconds - 0.01 <= took <= seconds + SLACK, f"took {took:.2f} s"


def soon():
    """A deadline that a test waits for."""
    return Line(deadline=time.monotonic() + SOON)


def in_time():
    """A deadline that is only reached if something hangs."""
    return Line(deadline=time.monotonic() + 20)


# Answers


def test_a_whole_answer(pipe):
    answer = whole(b"hello", "X-Many: one", "X-MANY: two", "Set-Cookie: a=1", status="429 Too Many Requests")
    with Server(answer) as server:
        found = pipe.go(lambda: fetch(pipe.transport, server.url))
    assert found.status == 429
    assert found.body == b"hello"
    assert found.headers == {"content-length": "5", "x-many": "one, two", "set-cookie": "a=1"}


def test_a_request_is_what_was_given_and_what_http_needs(pipe):
    given = (("Content-Type", "application/json"), ("x-api-key", "k"), ("X-Twice", "1"), ("X-Twice", "2"))
    with Server(whole()) as server:
        pipe.go(lambda: fetch(pipe.transport, server.url + "/v1", headers=given, body=b'{"a":1}'))
        pipe.go(lambda: fetch(pipe.transport, server.url + "/v1", method="GET", body=b""))
        pipe.go(lambda: fetch(pipe.transport, server.url, body=b"", headers=[("Accept-Encoding", "gzip")]))
    post, get, bare = server.calls
    assert (post.method, post.target, post.body) == ("POST", "/v1", b'{"a":1}')
    ours = [("host", server.place), ("accept-encoding", "identity")]
    assert sorted(post.headers) == sorted(
        [*ours, ("content-length", "7"), *((name.lower(), value) for name, value in given)]
    )
    assert sorted(get.headers) == sorted(ours)
    assert bare.target == "/"
    assert sorted(bare.headers) == [("accept-encoding", "gzip"), ("content-length", "0"), ("host", server.place)]


def test_the_url_goes_out_byte_for_byte(pipe):
    with Server(whole()) as server:
        pipe.go(lambda: fetch(pipe.transport, server.url + "/a%3Ab/../c?x=%2F&y=a+b&z=%e2%82%ac#part"))
    assert server.calls[0].target == "/a%3Ab/../c?x=%2F&y=a+b&z=%e2%82%ac"


def test_large_bodies_both_ways(pipe):
    sent = os.urandom(3_000_000)

    async def echo(call: Call) -> None:
        await whole(call.body)(call)

    with Server(echo) as server:
        assert pipe.go(lambda: fetch(pipe.transport, server.url, body=sent)).body == sent


def test_nothing_is_decompressed(pipe):
    packed = gzip.compress(b"hello")
    with Server(whole(packed, "Content-Encoding: gzip")) as server:
        assert pipe.go(lambda: fetch(pipe.transport, server.url)).body == packed


@pytest.mark.parametrize("lines", [["Connection: close"], []], ids=["announced", "by closing"])
def test_a_body_without_a_length_ends_with_the_connection(pipe, lines):
    async def answer(call: Call) -> None:
        call.head(*lines)
        call.write(b"all of it")
        call.close()

    with Server(answer) as server:
        assert pipe.go(lambda: fetch(pipe.transport, server.url)).body == b"all of it"


def test_headers_may_be_long_but_not_endless(pipe):
    with Server(whole(b"ok", "X-Long: " + "x" * 60_000)) as server:
        assert len(pipe.go(lambda: fetch(pipe.transport, server.url)).headers["x-long"]) == 60_000
        server.answer = whole(b"ok", "X-Long: " + "x" * 70_000)
        with pytest.raises(ConnectError):
            pipe.go(lambda: fetch(pipe.transport, server.url))
        assert server.is_left_by_all()


def test_a_redirect_is_an_answer_and_is_not_followed(pipe):
    with Server(whole()) as other, Server(whole(b"", f"Location: {other.url}/", status="302 Found")) as server:
        found = pipe.go(lambda: fetch(pipe.transport, server.url, method="GET", body=b""))
        assert (found.status, found.headers["location"]) == (302, other.url + "/")
        assert other.accepted == 0


def test_a_cookie_is_not_sent_back(pipe):
    async def twice():
        await fetch(pipe.transport, server.url)
        await fetch(pipe.transport, server.url)

    with Server(whole(b"", "Set-Cookie: session=1; Path=/")) as server:
        pipe.go(twice)
    assert [call.header("cookie") for call in server.calls] == [None, None]


def test_the_environment_is_not_read(pipe, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    with Server(whole()) as server:
        assert pipe.go(lambda: fetch(pipe.transport, server.url)).status == 200


def test_a_server_may_refuse_a_body_before_it_has_come(pipe):
    async def refuse(call: Call) -> None:
        call.head("Content-Length: 4", "Connection: close", status="413 Content Too Large")
        call.write(b"much")

    with Server(refuse, answers_early=True) as server:
        found = pipe.go(lambda: fetch(pipe.transport, server.url, body=bytes(200_000)))
    assert (found.status, found.body) == (413, b"much")


# Streams


def test_an_event_arrives_before_the_next_is_sent(pipe):
    gates = [Gate(), Gate()]

    async def answer(call: Call) -> None:
        call.head("Transfer-Encoding: chunked")
        call.chunk(b"data: 1\n\n")
        await gates[0].passed()
        call.chunk(b"data: 2\n\n")
        await gates[1].passed()
        call.chunk(b"")

    async def scenario():
        reply = await pipe.transport.send(request(server.url), in_time())
        assert await reply.read_some() == b"data: 1\n\n"
        gates[0].open()
        assert await reply.read_some() == b"data: 2\n\n"
        gates[1].open()
        assert await reply.read_some() == b""
        assert await reply.read_some() == b""
        reply.close()

    with Server(answer) as server:
        pipe.go(scenario)


def test_a_stream_in_a_burst_is_whole(pipe):
    pieces = [b"data: %d\n\n" % number for number in range(5000)]
    with Server(chunked(*pieces)) as server:
        assert pipe.go(lambda: fetch(pipe.transport, server.url)).body == b"".join(pieces)


def test_what_came_before_a_cut_is_not_lost_on_a_slow_reader(pipe):
    async def answer(call: Call) -> None:
        call.head("Transfer-Encoding: chunked")
        call.chunk(b"data: 1\n\n")
        await asyncio.sleep(0.05)
        call.chunk(b"data: 2\n\n")
        await asyncio.sleep(0.05)
        call.close()

    async def scenario():
        reply = await pipe.transport.send(request(server.url), in_time())
        await pipe.sleep(0.2)
        found: list[bytes] = []
        with pytest.raises(StreamInterrupted):
            await read(reply, found)
        assert b"".join(found) == b"data: 1\n\ndata: 2\n\n"

    with Server(answer) as server:
        pipe.go(scenario)


# Connections


@pytest.mark.parametrize(
    "answer", [whole(), chunked(b"a", b"b"), whole(b"", status="204 No Content")], ids=["whole", "chunked", "empty"]
)
def test_a_connection_is_used_again(pipe, answer):
    async def thrice():
        for _ in range(3):
            await fetch(pipe.transport, server.url)

    with Server(answer) as server:
        pipe.go(thrice)
    assert [call.connection for call in server.calls] == [1, 1, 1]


NOT_ASKED_FOR = [
    b"HTTP/1.1 200 OK\r\nX-Not: mine\r\nContent-Length: 4\r\n\r\nmore",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nmore\r\n",
    b"rubbish",
]


@pytest.mark.parametrize("surplus", NOT_ASKED_FOR, ids=["an answer", "half of one", "rubbish"])
def test_what_comes_after_an_answer_is_not_taken_for_more_of_it_nor_for_the_next(pipe, surplus):
    async def answer_and_more(call: Call) -> None:
        call.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst" + surplus)

    async def twice():
        return [await fetch(pipe.transport, talkative.url, in_time()) for _ in range(2)]

    with Server(answer_and_more) as talkative:
        found = pipe.go(twice)
        assert [answer.body for answer in found] == [b"first", b"first"]
        assert "x-not" not in found[0].headers
        assert talkative.accepted == 2


def test_close_lets_go_of_kept_connections(pipe):
    async def scenario():
        await fetch(pipe.transport, server.url)
        assert len(server.peers) == 1
        pipe.transport.close()
        pipe.transport.close()
        await pipe.sleep(0.02)
        assert server.is_left_by_all()
        with pytest.raises(ClosedError):
            await fetch(pipe.transport, server.url)

    with Server(whole()) as server:
        pipe.go(scenario)


def test_leaving_an_answer_early_closes_its_connection(pipe):
    async def answer(call: Call) -> None:
        call.head("Transfer-Encoding: chunked")
        await call.drip(b"5\r\nhello\r\n", gap=0.01)

    async def scenario():
        reply = await pipe.transport.send(request(server.url), Line())
        await reply.read_some()
        reply.close()
        reply.close()
        await pipe.sleep(0.02)
        assert server.is_left_by_all()
        with pytest.raises(ClosedError):
            await reply.read_some()
        server.answer = whole()
        await fetch(pipe.transport, server.url)
        assert server.accepted == 2

    with Server(answer) as server:
        pipe.go(scenario)


def test_a_connection_closed_while_idle_is_not_used(pipe):
    async def answer(call: Call) -> None:
        await whole()(call)
        call.close()

    async def scenario():
        for _ in range(3):
            await fetch(pipe.transport, server.url, in_time())
            assert server.is_left_by_all()
            await pipe.sleep(0.02)

    with Server(answer) as server:
        pipe.go(scenario)
    assert server.accepted == 3


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("hang_up", [Call.close, Call.reset], ids=["closed", "reset"])
def test_a_connection_lost_under_a_request_may_be_tried_again_by_who_counts(pipe, method, hang_up):
    async def second(call: Call) -> None:
        hang_up(call)

    async def scenario():
        await fetch(pipe.transport, server.url)
        server.answer = second
        with pytest.raises(ConnectError) as caught:
            await fetch(pipe.transport, server.url, in_time(), method=method, body=b"")
        assert caught.value.retryable
        assert len(server.calls) == 2
        server.answer = whole()
        await fetch(pipe.transport, server.url)

    with Server(whole()) as server:
        pipe.go(scenario)


# Failures


def test_nobody_listens(pipe):
    port = free_port()
    with pytest.raises(ConnectError, match=f"127.0.0.1:{port}") as caught:
        pipe.go(lambda: fetch(pipe.transport, f"http://127.0.0.1:{port}/v1?key=secret", in_time()))
    assert caught.value.retryable
    assert "secret" not in str(caught.value)


def test_nobody_has_this_name(pipe):
    with pytest.raises(ConnectError, match=r"nobody\.invalid:80"):
        pipe.go(lambda: fetch(pipe.transport, "http://nobody.invalid/?key=secret", Line(connect=2)))


def test_a_name_that_leads_to_loopback(pipe):
    with Server(whole()) as server:
        url = f"http://localhost:{server.port}"
        assert pipe.go(lambda: fetch(pipe.transport, url, Line(connect=5))).status == 200
    assert server.calls[0].header("host") == f"localhost:{server.port}"


@pytest.mark.parametrize("ending", [Call.close, Call.reset], ids=["closed", "reset"])
@pytest.mark.parametrize(
    "start", [b"", b"HTTP/1.1 200 OK\r\nContent-", b"HTTP/1.1 200 OK\r\nX: 1\r\n"], ids=["nothing", "a part", "lines"]
)
def test_a_head_that_is_cut_is_no_answer(pipe, start, ending):
    async def answer(call: Call) -> None:
        call.write(start)
        await asyncio.sleep(0.02)
        ending(call)

    with Server(answer) as server:
        with pytest.raises(ConnectError, match=server.place):
            pipe.go(lambda: fetch(pipe.transport, server.url, in_time()))
        assert server.is_left_by_all()


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nPRI * HTTP/2.0\r\n\r\n",
    ],
    ids=["ssh", "another protocol from here on"],
)
def test_what_is_not_http_is_no_answer(pipe, said):
    async def answer(call: Call) -> None:
        call.write(said)
        await call.forever()

    with Server(answer) as server:
        with pytest.raises(ConnectError, match=server.place):
            pipe.go(lambda: fetch(pipe.transport, server.url + "/?key=secret", in_time()))
        assert server.is_left_by_all()


@pytest.mark.parametrize("ending", [Call.close, Call.reset], ids=["closed", "reset"])
@pytest.mark.parametrize(
    ("line", "start"),
    [
        ("Content-Length: 10", b"hello"),
        ("Transfer-Encoding: chunked", b"5\r\nhello\r\n"),
        ("Transfer-Encoding: chunked", b"a\r\nhello"),
    ],
    ids=["length", "between chunks", "in a chunk"],
)
def test_a_body_that_is_cut_never_looks_whole(pipe, line, start, ending):
    async def answer(call: Call) -> None:
        call.head(line)
        call.write(start)
        await asyncio.sleep(0.05)
        ending(call)

    async def scenario():
        reply = await pipe.transport.send(request(server.url + "/?key=secret"), in_time())
        assert await reply.read_some() == b"hello"
        with pytest.raises(StreamInterrupted, match=server.place) as caught:
            await reply.read_some()
        assert "secret" not in str(caught.value)

    with Server(answer) as server:
        pipe.go(scenario)
        assert server.is_left_by_all()


def test_chunks_that_are_none_interrupt_the_answer(pipe):
    async def answer(call: Call) -> None:
        call.head("Transfer-Encoding: chunked")
        call.chunk(b"hello")
        await asyncio.sleep(0.05)
        call.write(b"no chunk\r\n")
        await call.forever()

    with Server(answer) as server:
        with pytest.raises(StreamInterrupted):
            pipe.go(lambda: fetch(pipe.transport, server.url, in_time()))
        assert server.is_left_by_all()


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1/v1",
        "ftp://127.0.0.1/",
        "http:///v1",
        "http://127.0.0.1:port/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/a\nb",
        "http://127.0.0.1/ä",
        "http://bücher.example/",
        "http://user:secret@127.0.0.1/",
        "http://[::1/",
        "",
    ],
)
def test_an_odd_url_is_the_callers_mistake(pipe, url):
    with pytest.raises(ConfigurationError) as caught:
        pipe.go(lambda: fetch(pipe.transport, url + "?key=secret"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "header", [("x-key", "a\nsecret"), ("x-key", "a\rb"), ("x-key", "“a”"), ("x key", "a"), ("", "a")]
)
def test_an_odd_header_is_the_callers_mistake(pipe, header):
    with Server(whole()) as server:
        with pytest.raises(ConfigurationError) as caught:
            pipe.go(lambda: fetch(pipe.transport, server.url, headers=[header]))
        assert server.accepted == 0
    assert "secret" not in str(caught.value)


def test_an_odd_method_is_the_callers_mistake(pipe):
    with pytest.raises(ConfigurationError):
        pipe.go(lambda: fetch(pipe.transport, "http://127.0.0.1/", method="GET /other HTTP/1.1\r\n"))


# Deadlines


async def hang(call: Call) -> None:
    await call.forever()


async def drip_headers(call: Call) -> None:
    call.write(b"HTTP/1.1 200 OK\r\n")
    await call.drip(b"X-More: 1\r\n")


async def drip_bytes_of_a_header(call: Call) -> None:
    call.write(b"HTTP/1.1 200 OK\r\nX-More: ")
    await call.drip(b"1")


async def drip_comments(call: Call) -> None:
    call.head("Transfer-Encoding: chunked", "Content-Type: text/event-stream")
    await call.drip(b"4\r\n:\n\n\n\r\n")


async def drip_bytes(call: Call) -> None:
    call.head("Content-Length: 1000000")
    await call.drip(b"x")


async def drip_a_chunk_size(call: Call) -> None:
    call.head("Transfer-Encoding: chunked")
    await call.drip(b"0")


async def drip_a_chunk_extension(call: Call) -> None:
    call.head("Transfer-Encoding: chunked")
    call.write(b"5;why=")
    await call.drip(b"x")


async def drip_inside_a_chunk(call: Call) -> None:
    call.head("Transfer-Encoding: chunked")
    call.write(b"ffff\r\n")
    await call.drip(b"x")


async def drip_trailers(call: Call) -> None:
    call.head("Transfer-Encoding: chunked")
    call.write(b"5\r\nhello\r\n0\r\n")
    await call.drip(b"X-More: 1\r\n")


DRIPS = (
    hang,
    drip_headers,
    drip_bytes_of_a_header,
    drip_comments,
    drip_bytes,
    drip_a_chunk_size,
    drip_a_chunk_extension,
    drip_inside_a_chunk,
    drip_trailers,
)
each_way = pytest.mark.parametrize("pipe", ["blocking", "eventful", "httpx2", "httpx2 on trio", *GIVEN], indirect=True)
every_drip = pytest.mark.parametrize(
    ("answer", "secure"),
    [(answer, False) for answer in DRIPS] + [(hang, True), (drip_bytes_of_a_header, True), (drip_comments, True)],
    ids=lambda value: value.__name__ if callable(value) else ("https" if value else "http"),
)


@each_way
@every_drip
def test_the_deadline_holds_against(pipe, answer, secure):
    with Server(answer, secure=secure) as server:
        with taking(SOON), pytest.raises(DeadlineExceeded, match="timeout"):
            pipe.go(lambda: fetch(pipe.transport, server.url, soon()))
        assert server.is_left_by_all()


def test_the_deadline_holds_against_a_server_that_does_not_read(pipe):
    async def answer(call: Call) -> None:
        await call.forever()

    with Server(answer) as server, mute_listener() as port, taking(SOON), pytest.raises(DeadlineExceeded):
        pipe.go(lambda: fetch(pipe.transport, f"http://127.0.0.1:{port}", soon(), body=bytes(30_000_000)))
    assert not server.calls


def test_the_deadline_holds_while_connecting(pipe):
    with deaf_listener() as port, taking(SOON), pytest.raises(DeadlineExceeded):
        pipe.go(lambda: fetch(pipe.transport, f"http://127.0.0.1:{port}", soon()))


def test_the_deadline_holds_in_the_tls_handshake(pipe):
    with mute_listener() as port, taking(SOON), pytest.raises(DeadlineExceeded):
        pipe.go(lambda: fetch(pipe.transport, f"https://127.0.0.1:{port}", soon()))


def test_connecting_has_its_own_limit(pipe):
    with deaf_listener() as port, taking(SOON), pytest.raises(ConnectError, match=r"0\.25 s"):
        pipe.go(lambda: fetch(pipe.transport, f"http://127.0.0.1:{port}", Line(connect=SOON)))
    with mute_listener() as port, taking(SOON), pytest.raises(ConnectError, match=r"0\.25 s"):
        pipe.go(lambda: fetch(pipe.transport, f"https://127.0.0.1:{port}", Line(connect=SOON)))


@pytest.mark.parametrize("starts", [False, True], ids=["before the answer", "in it"])
def test_silence_has_a_limit(pipe, starts):
    async def answer(call: Call) -> None:
        if starts:
            call.head("Transfer-Encoding: chunked")
            call.chunk(b"hello")
        await call.forever()

    with Server(answer) as server:
        with taking(SOON), pytest.raises(DeadlineExceeded, match=r"silent for 0\.25 s"):
            pipe.go(lambda: fetch(pipe.transport, server.url, Line(idle=SOON)))
        assert server.is_left_by_all()


def test_what_is_slow_but_not_silent_has_no_limit(pipe):
    async def answer(call: Call) -> None:
        call.head("Content-Length: 8")
        for _ in range(8):
            await asyncio.sleep(0.06)
            call.write(b"x")

    with Server(answer) as server:
        assert pipe.go(lambda: fetch(pipe.transport, server.url, Line(idle=SOON))).body == b"x" * 8


def test_a_deadline_may_be_moved_between_two_reads(pipe):
    async def scenario():
        line = Line(deadline=time.monotonic() + 60)
        reply = await pipe.transport.send(request(server.url), line)
        await reply.read_some()
        line.deadline = time.monotonic() + SOON
        with taking(SOON), pytest.raises(DeadlineExceeded):
            await read(reply)
        line = Line(deadline=time.monotonic() + SOON)
        reply = await pipe.transport.send(request(server.url), line)
        await reply.read_some()
        line.extend(0.2)
        with taking(0.2), pytest.raises(DeadlineExceeded):
            await read(reply)

    with Server(drip_comments) as server:
        pipe.go(scenario)


# Abort


class Cutter:
    """Calls `cut` on another thread, a moment after it is asked to, and measures how soon the waiter felt it."""

    def __init__(self, cut: Callable[[], object]) -> None:
        self._cut = cut
        self._moment = 0.0

    def start(self) -> None:
        threading.Timer(0.1, self._act).start()

    def _act(self) -> None:
        self._moment = time.monotonic()
        self._cut()

    @contextmanager
    def expected(self, wait=True):
        if wait:
            self.start()
        with pytest.raises(ClosedError):
            yield
        assert self._moment, "nobody cut anything"
        assert time.monotonic() - self._moment < SLACK


@each_way
@every_drip
def test_abort_wakes_who_waits_for(pipe, answer, secure):
    line = Line()
    with Server(answer, secure=secure) as server:
        with Cutter(line.abort).expected():
            pipe.go(lambda: fetch(pipe.transport, server.url, line))
        assert server.is_left_by_all()


def test_abort_wakes_who_is_connecting(pipe):
    line = Line()
    with deaf_listener() as port, Cutter(line.abort).expected():
        pipe.go(lambda: fetch(pipe.transport, f"http://127.0.0.1:{port}", line))


def test_abort_wakes_who_shakes_hands(pipe):
    line = Line()
    with mute_listener() as port, Cutter(line.abort).expected():
        pipe.go(lambda: fetch(pipe.transport, f"https://127.0.0.1:{port}", line))


def test_abort_wakes_who_sends_a_body(pipe):
    line = Line()
    with mute_listener() as port, Cutter(line.abort).expected():
        pipe.go(lambda: fetch(pipe.transport, f"http://127.0.0.1:{port}", line, body=bytes(30_000_000)))


def test_a_line_cut_before_carries_nothing(pipe):
    line = Line()
    line.abort()
    with Server(whole()) as server:
        with pytest.raises(ClosedError):
            pipe.go(lambda: fetch(pipe.transport, server.url, line))
        assert not server.calls


def test_abort_between_two_reads(pipe):
    async def scenario():
        line = Line()
        reply = await pipe.transport.send(request(server.url), line)
        await reply.read_some()
        line.abort()
        with pytest.raises(ClosedError):
            await reply.read_some()
        await pipe.sleep(0.02)
        assert server.is_left_by_all()

    with Server(drip_comments) as server:
        pipe.go(scenario)


def test_abort_after_the_end_leaves_the_connection_to_others(pipe):
    async def scenario():
        line = Line()
        await fetch(pipe.transport, server.url, line)
        line.abort()
        await fetch(pipe.transport, server.url)

    with Server(whole()) as server:
        pipe.go(scenario)
    assert server.accepted == 1


@pytest.mark.parametrize("what", ["reply", "transport"])
def test_close_from_another_thread_wakes_the_reader(pipe, what):
    async def scenario():
        reply = await pipe.transport.send(request(server.url), Line())
        cutter = Cutter(reply.close if what == "reply" else pipe.transport.close)
        with cutter.expected():
            await read(reply)

    with Server(drip_comments) as server:
        pipe.go(scenario)
        assert server.is_left_by_all()


def test_closing_the_transport_wakes_who_waits_for_an_answer(pipe):
    with Server(hang) as server:
        with Cutter(pipe.transport.close).expected():
            pipe.go(lambda: fetch(pipe.transport, server.url))
        assert server.is_left_by_all()


# TLS


def test_tls(pipe):
    async def twice():
        await fetch(pipe.transport, server.url)
        return await fetch(pipe.transport, server.url, body=bytes(3_000_000))

    with Server(whole(b"secret"), secure=True) as server:
        assert pipe.go(twice).body == b"secret"
        assert server.accepted == 1


@pytest.mark.parametrize("name", [*PIPES, *GIVEN])
def test_a_certificate_nobody_vouches_for(name):
    with Server(whole(), secure=True) as server, opened(name, Network(ssl.create_default_context())) as pipe:
        with pytest.raises(ConnectError, match=r"certificate of 127\.0\.0\.1") as caught:
            pipe.go(lambda: fetch(pipe.transport, server.url, in_time()))
        assert not caught.value.retryable
        assert server.is_left_by_all()
        assert not server.calls


def test_tls_where_none_is_spoken(pipe):
    with Server(whole(), blurts=b"HTTP/1.1 400 Bad Request\r\n\r\n") as server:
        with pytest.raises(ConnectError, match=f"TLS connection to {server.place}"):
            pipe.go(lambda: fetch(pipe.transport, f"https://{server.place}", in_time()))
        assert server.is_left_by_all()


# Only where it blocks


@pytest.mark.parametrize("make", [BlockingTransport, BlockingHttpx2])
def test_threads_get_their_own_answers(make):
    async def echo(call: Call) -> None:
        await asyncio.sleep(0.001)
        await whole(call.body)(call)

    def work(number):
        for turn in range(20):
            sent = b"%d %d" % (number, turn)
            found.append(run(lambda sent=sent: fetch(transport, server.url, body=sent)).body == sent)

    found: list[bool] = []
    transport = make()
    with Server(echo) as server:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [True] * 160
        assert server.accepted <= 8
        transport.close()
        assert server.is_left_by_all()


@pytest.mark.parametrize("make", [BlockingTransport, BlockingHttpx2])
def test_a_keyboard_interrupt_leaves_nothing_locked(make):
    def interrupt():
        until(lambda: len(server.calls) == count, 5)
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)
        # Python loses one that strikes while it collects garbage.
        if not is_out.wait(5):
            os.kill(os.getpid(), signal.SIGINT)

    transport = make()
    with Server(whole()) as server:
        for answer in (hang, drip_comments):
            run(lambda: fetch(transport, server.url))
            server.answer = answer
            count = len(server.calls) + 1
            is_out = threading.Event()
            thread = threading.Thread(target=interrupt)
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                run(lambda: fetch(transport, server.url))
            is_out.set()
            thread.join()
            assert server.is_left_by_all()
            server.answer = whole()
        run(lambda: fetch(transport, server.url, in_time()))
    transport.close()


# Only on a loop


@pytest.mark.parametrize("make", [EventfulTransport, EventfulHttpx2])
@every_drip
def test_a_cancelled_task_is_cancelled_and_its_connection_closed(make, answer, secure):
    transport = make(Network(client_context()))

    async def main():
        task = asyncio.create_task(fetch(transport, server.url))
        await asyncio.sleep(0.1)
        task.cancel("because")
        start = time.monotonic()
        with pytest.raises(asyncio.CancelledError, match="because"):
            await task
        assert time.monotonic() - start < SLACK
        await asyncio.sleep(0.02)
        assert server.is_left_by_all()

    with Server(answer, secure=secure) as server:
        asyncio.run(main())


def complaints(caplog):
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_many_answers_at_once():
    async def echo(call: Call) -> None:
        await asyncio.sleep(0.01)
        await whole(call.body)(call)

    async def main():
        found = await asyncio.gather(*(fetch(transport, server.url, body=b"%d" % n) for n in range(200)))
        return [answer.body for answer in found]

    transport = EventfulTransport()
    with Server(echo) as server:
        assert asyncio.run(main()) == [b"%d" % n for n in range(200)]
        assert server.is_left_by_all()


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_one_transport_serves_any_number_of_loops_and_leaves_nothing(secure, caplog):
    async def leave_one_open():
        await fetch(transport, server.url)
        reply = await transport.send(request(server.url), Line())
        assert reply.status == 200

    transport = EventfulTransport(Network(client_context()))
    with Server(whole(b"hello"), secure=secure) as server:
        for _ in range(50):
            asyncio.run(leave_one_open())
        gc.collect()
        assert server.is_left_by_all()
        transport.close()
    gc.collect()
    assert not complaints(caplog)


def test_a_loop_that_was_closed_without_its_generators_is_tidied_up(caplog):
    async def use():
        await fetch(transport, server.url)
        server.answer = drip_comments
        reply = await transport.send(request(server.url), Line())
        await reply.read_some()
        server.answer = whole()
        return reply

    def use_bare_loop():
        loop = asyncio.new_event_loop()
        loop.run_until_complete(use())
        loop.close()

    transport = EventfulTransport()
    with Server(whole()) as server:
        for _ in range(3):
            use_bare_loop()
        asyncio.run(use())
        assert server.is_left_by_all()
        use_bare_loop()
        assert len(server.peers) == 2 - 1
        transport.close()
        assert server.is_left_by_all()
    with warnings.catch_warnings():
        gc.collect()
    assert not complaints(caplog)


def test_a_transport_that_is_dropped_closes_its_sockets(caplog):
    async def main():
        transport = EventfulTransport()
        await fetch(transport, server.url)
        ring = [transport]
        ring.append(ring)
        del transport, ring
        gc.collect()
        await asyncio.sleep(0.02)
        assert server.is_left_by_all()

    with Server(whole()) as server:
        asyncio.run(main())
    assert not complaints(caplog)


def test_close_on_a_thread_without_a_loop():
    async def main():
        await fetch(transport, server.url)
        thread = threading.Thread(target=transport.close)
        thread.start()
        await asyncio.sleep(0.05)
        thread.join()
        assert server.is_left_by_all()

    transport = EventfulTransport()
    with Server(whole()) as server:
        asyncio.run(main())
    transport.close()


# Processes


def python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


FORK = """
    import asyncio, os, sys
    from sabir.requests import HttpRequest
    from sabir.runtime import Line, run

    from sabir.transports import blocking_transport, eventful_transport

    kind, name, url = sys.argv[1:]
    transport = (blocking_transport if kind == "blocking" else eventful_transport)(name or None)

    async def fetch(body):
        reply = await transport.send(HttpRequest("POST", url, (), body), Line(idle=5))
        found = b""
        while data := await reply.read_some():
            found += data
        reply.close()
        assert found == body, (found, body)

    def fetch_in_child():
        if kind == "blocking":
            for number in range(20):
                run(lambda: fetch(b"child %d" % number))
        else:
            async def main():
                for number in range(20):
                    await fetch(b"child %d" % number)
            asyncio.run(main())

    async def main():
        await fetch(b"parent")
        streaming = await transport.send(HttpRequest("POST", url, (), b"stream"), Line(idle=5))
        if (child := os.fork()) == 0:
            status = 1
            try:
                fetch_in_child()
                if kind == "blocking":
                    streaming.close()
                transport.close()
                status = 0
            finally:
                os._exit(status)
        for number in range(20):
            await fetch(b"parent %d" % number)
        assert os.waitpid(child, 0)[1] == 0
        assert await streaming.read_some() == b"stream"
        streaming.close()
        transport.close()

    if kind == "blocking":
        run(main)
    else:
        asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("name", ["", "httpx2"], ids=["default", "httpx2"])
@pytest.mark.parametrize("kind", ["blocking", "eventful"])
def test_a_forked_child_has_its_own_connections(kind, name):
    async def answer(call: Call) -> None:
        if call.body == b"stream":
            call.head("Content-Length: 6")
            await asyncio.sleep(0.5)
            call.write(b"stream")
        else:
            await whole(call.body)(call)

    with Server(answer) as server:
        python(FORK, kind, name, server.url)
    of_child = {call.connection for call in server.calls if call.body.startswith(b"child")}
    of_parent = {call.connection for call in server.calls if not call.body.startswith(b"child")}
    assert len(of_child) == 1
    assert len(of_parent) == 2
    assert not of_child & of_parent


def test_libraries_are_imported_by_the_first_who_needs_them():
    python(
        """
        import sys
        from sabir import transports
        assert "httptools" not in sys.modules
        transports.blocking_transport().close()
        assert "sabir.transports.eventful" not in sys.modules
        transports.eventful_transport().close()
        """
    )
