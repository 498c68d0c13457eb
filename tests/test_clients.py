"""HTTP clients that a caller already has, given as `transport=`; and what else may, and may not, be given.

What such a client must do as a transport, whatever it is, stands in `test_transports`.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest
import trio
from fakes import ChatServer
from http2 import Request, http2_server
from servers import Call, Gate, Server, client_context, until, whole
from test_transports import SOON, drip_comments, fetch, hang, in_time, python, read, request, soon, taking

import sabir
from sabir import ClosedError, ConfigurationError, ConnectError, DeadlineExceeded, RateLimitError, aio
from sabir.runtime import Line, run
from sabir.transports import blocking_transport, eventful_transport

PACKAGES = pytest.mark.parametrize("package", [httpx, httpx2], ids=["httpx", "httpx2"])


class Own(httpx.Client):
    """A class of the caller's, as some libraries derive one."""


# In a client of ours


@pytest.mark.parametrize("make", [httpx.Client, httpx2.Client, Own])
def test_a_blocking_client_answers_streams_and_stays_open(make):
    with make(headers={"x-own": "1"}) as own, ChatServer() as server:
        with sabir.Client(f"vllm:x@{server.url}", transport=own) as client:
            assert client.ask("?").text == "Hello there!"
            assert "".join(chunk.content for chunk in client.stream("?", include=["generating"])) == "Hello there!"
        assert not own.is_closed
        with sabir.Client(f"vllm:x@{server.url}", transport=own) as client:
            assert client.ask("?").text == "Hello there!"
    assert {asked.headers["x-own"] for asked in server.asked} == {"1"}
    assert len(server.asked) == 3


@pytest.mark.parametrize("make", [httpx.AsyncClient, httpx2.AsyncClient, aiohttp.ClientSession])
def test_an_awaitable_client_answers_streams_and_stays_open(make):
    async def main() -> None:
        async with make(headers={"x-own": "1"}) as own:
            async with aio.Client(f"vllm:x@{server.url}", transport=own) as client:
                assert (await client.ask("?")).text == "Hello there!"
                async with client.stream("?", include=["generating"]) as stream:
                    assert "".join([chunk.content async for chunk in stream]) == "Hello there!"
            assert not (own.closed if isinstance(own, aiohttp.ClientSession) else own.is_closed)

    with ChatServer() as server:
        asyncio.run(main())
    assert {asked.headers["x-own"] for asked in server.asked} == {"1"}


@PACKAGES
def test_it_is_we_who_count_attempts(package):
    refusal = (429, {"error": {"message": "slow down"}})
    with package.Client() as own, ChatServer(lambda _: refusal, headers={"retry-after": "0"}) as server:
        client = sabir.Client(f"vllm:x@{server.url}", transport=own)
        with pytest.raises(RateLimitError) as caught:
            client.ask("?")
    assert len(caught.value.attempts) == len(server.asked) == 3


def test_an_error_of_the_server_is_no_error_of_the_session():
    async def main() -> None:
        async with aiohttp.ClientSession(raise_for_status=True) as own:
            with pytest.raises(RateLimitError, match="slow down"):
                await aio.Client(f"vllm:x@{server.url}", transport=own, max_attempts=1).ask("?")

    with ChatServer(lambda _: (429, {"error": {"message": "slow down"}})) as server:
        asyncio.run(main())


# What may be given


@pytest.mark.parametrize(
    ("client", "own"),
    [
        (sabir.Client, httpx.AsyncClient),
        (sabir.Client, httpx2.AsyncClient),
        (aio.Client, httpx.Client),
        (aio.Client, httpx2.Client),
        (aio.Client, Own),
    ],
)
def test_a_client_of_the_other_colour_is_refused_at_once(client, own):
    made = own()
    with pytest.raises(ConfigurationError, match=f"goes with sabir{'.aio' if client is sabir.Client else ''}.Client"):
        client("vllm:x@http://127.0.0.1:9/v1", transport=made)
    if isinstance(made, httpx.Client | httpx2.Client):
        made.close()


def test_a_session_of_aiohttp_is_refused_where_it_blocks():
    async def main() -> None:
        async with aiohttp.ClientSession() as own:
            with pytest.raises(ConfigurationError, match=r"aiohttp\.ClientSession goes with sabir\.aio\.Client"):
                sabir.Client("vllm:x@http://127.0.0.1:9/v1", transport=own)

    asyncio.run(main())


class Sends:
    def send(self) -> None: ...


class Session(Sends):
    """As that of requests, which has the same methods, of another kind."""

    __module__ = "requests.sessions"

    def close(self) -> None: ...


@pytest.mark.parametrize("client", [sabir.Client, aio.Client])
@pytest.mark.parametrize("given", ["httpx", "", 5, httpx.Client, object(), Sends(), Session()], ids=repr)
def test_what_is_no_transport_is_refused_at_once(client, given):
    with pytest.raises(ConfigurationError, match=r"transport= is 'httpx2', a client of httpx, httpx2 or aiohttp"):
        client("vllm:x@http://127.0.0.1:9/v1", transport=given)


@pytest.mark.parametrize("client", [sabir.Client, aio.Client])
def test_a_package_that_is_missing_is_named(client, monkeypatch):
    monkeypatch.setitem(sys.modules, "httpcore2", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'sabir\[httpx2\]'"):
        client("vllm:x@http://127.0.0.1:9/v1", transport="httpx2")


@pytest.mark.parametrize("transport", [None, "own"])
def test_http2_needs_a_transport_that_speaks_it(transport):
    with httpx.Client() as own, pytest.raises(ConfigurationError, match="http2="):
        sabir.Client("vllm:x@http://127.0.0.1:9/v1", transport=own if transport else None, http2=True)


def test_to_be_known_a_client_needs_not_be_imported():
    python(
        """
        import sys, sabir
        for given in (None, "httpx2"):
            sabir.Client("vllm:x@http://127.0.0.1:9/v1", transport=given)
        assert not {"httpx", "httpx2", "aiohttp"} & set(sys.modules)
        """
    )


# What stays the caller's


@PACKAGES
def test_credentials_parameters_and_hooks_are_the_callers(package):
    seen: list[str] = []
    hooks = {"request": [lambda asked: seen.append(asked.method)], "response": [lambda got: got.read()]}
    own = package.Client(auth=("me", "hidden"), params={"version": "2"}, event_hooks=hooks)
    with own, Server(whole(b"read by a hook")) as server:
        found = run(lambda: fetch(blocking_transport(own), server.url + "/v1", in_time()))
    assert found.body == b"read by a hook"
    assert server.calls[0].header("authorization") == "Basic bWU6aGlkZGVu"
    assert server.calls[0].target == "/v1?version=2"
    assert seen == ["POST"]


@PACKAGES
def test_its_own_transport_is_used(package):
    own = package.Client(transport=package.MockTransport(lambda asked: package.Response(200, content=asked.read())))
    with own:
        assert run(lambda: fetch(blocking_transport(own), "http://a.example/", in_time(), body=b"echo")).body == b"echo"


@PACKAGES
def test_what_a_hook_raises_is_told_without_the_url(package):
    hooks = {"response": [lambda got: got.raise_for_status()]}
    refusal = whole(b"", status="429 Too Many Requests")
    with (
        package.Client(event_hooks=hooks) as own,
        Server(refusal) as server,
        pytest.raises(ConnectError, match="HTTPStatusError") as caught,
    ):
        run(lambda: fetch(blocking_transport(own), server.url + "/?key=secret", in_time()))
    assert "secret" not in str(caught.value)


@PACKAGES
def test_a_client_that_was_closed(package):
    own = package.Client()
    transport = blocking_transport(own)
    own.close()
    with pytest.raises(ClosedError, match="given as transport= has been closed"):
        run(lambda: fetch(transport, "http://127.0.0.1:9/"))


@pytest.mark.parametrize("make", [httpx.AsyncClient, aiohttp.ClientSession])
def test_an_awaitable_client_that_was_closed(make):
    async def main() -> None:
        async with make() as own:
            transport = eventful_transport(own)
        with pytest.raises(ClosedError, match="given as transport= has been closed"):
            await fetch(transport, "http://127.0.0.1:9/")

    asyncio.run(main())


# What is left behind


@PACKAGES
def test_a_kept_connection_that_cannot_be_reached_ends_soon_after_the_deadline(package):
    """Its caller is let go in time all the same."""
    with package.Client() as own, Server(whole()) as server:
        transport = blocking_transport(own)
        run(lambda: fetch(transport, server.url))
        server.answer = hang
        with taking(SOON), pytest.raises(DeadlineExceeded, match="timeout"):
            run(lambda: fetch(transport, server.url, soon()))
        assert len(server.calls) == 2
        assert server.accepted == 1
        assert server.is_left_by_all(3)


def test_exchanges_that_share_a_connection_of_http2_are_no_matter_to_each_other():
    goes_on = Gate()

    async def answer(asked: Request) -> None:
        if asked.path == "/silent":
            await asked.until_left()
            return
        await asked.head()
        await asked.write(b"begun")
        await goes_on.passed()
        await asked.write(b"done", more=False)

    async def scenario() -> None:
        reply = await transport.send(request(server.url), in_time())
        assert await reply.read_some() == b"begun"
        with taking(SOON), pytest.raises(DeadlineExceeded):
            await fetch(transport, server.url + "/silent", soon())
        goes_on.open()
        assert await read(reply) == b"done"

    server = http2_server(answer)
    context = client_context.__wrapped__()  # httpx changes it.
    with httpx.Client(http2=True, verify=context) as own:
        transport = blocking_transport(own)
        run(scenario)
        assert {asked.version for asked in server.requests} == {"2"}
        assert len({asked.connection for asked in server.requests}) == 1


def test_a_reply_that_is_dropped_ends_its_thread_and_its_connection():
    async def scenario() -> None:
        reply = await transport.send(request(server.url), Line())
        assert await reply.read_some()

    with httpx.Client() as own, Server(drip_comments) as server:
        transport = blocking_transport(own)
        before = threading.active_count()
        run(scenario)
        gc.collect()
        assert server.is_left_by_all()
        assert until(lambda: threading.active_count() <= before + 1, 2)  # one may wait for the next work


def test_a_keyboard_interrupt_ends_the_exchange():
    def interrupt() -> None:
        until(lambda: len(server.calls) == 2, 5)
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    with httpx.Client() as own, Server(whole()) as server:
        transport = blocking_transport(own)
        run(lambda: fetch(transport, server.url))
        server.answer = drip_comments
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            run(lambda: fetch(transport, server.url))
        thread.join()
        assert server.is_left_by_all()
        server.answer = whole()
        run(lambda: fetch(transport, server.url, in_time()))


def test_threads_get_their_own_answers_from_one_client():
    async def echo(call: Call) -> None:
        await asyncio.sleep(0.001)
        await whole(call.body)(call)

    def work(number: int) -> None:
        for turn in range(10):
            sent = b"%d %d" % (number, turn)
            found.append(run(lambda sent=sent: fetch(transport, server.url, body=sent)).body == sent)

    found: list[bool] = []
    with httpx.Client() as own, Server(echo) as server:
        transport: Any = blocking_transport(own)
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [True] * 80


@pytest.mark.parametrize(
    ("make", "on"),
    [(httpx.AsyncClient, "asyncio"), (httpx2.AsyncClient, "trio"), (aiohttp.ClientSession, "asyncio")],
)
def test_a_call_that_is_cancelled_closes_its_connection(make, on):
    async def on_asyncio() -> None:
        async with make() as own:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(SOON):
                    await fetch(eventful_transport(own), server.url)
            assert await asyncio.to_thread(server.is_left_by_all)

    async def on_trio() -> None:
        async with make() as own:
            with trio.move_on_after(SOON) as scope:
                await fetch(eventful_transport(own), server.url)
            assert scope.cancelled_caught
            assert await trio.to_thread.run_sync(server.is_left_by_all)

    for answer in (hang, drip_comments):
        with Server(answer) as server:
            if on == "trio":
                trio.run(on_trio)
            else:
                asyncio.run(on_asyncio())
