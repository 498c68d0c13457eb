"""HTTP clients as a caller has them, for tests of what makes transports of them; and what theirs need not do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import aiohttp
import httpx
import httpx2
import trio

from sabir.requests import HttpRequest
from sabir.runtime import Line, Reply, Transport
from sabir.transports import Network, blocking_transport, eventful_transport


def run_on_asyncio(scenario: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(scenario())


class Caller(NamedTuple):
    """A client that works on a loop: how to make it there and how to close it, the loop, and how to sleep on it."""

    make: Callable[[Network], Any]
    close: Callable[[Any], Coroutine[Any, Any, None]]
    run: Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any] = run_on_asyncio
    sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep


async def close_httpx(client: Any) -> None:
    await client.aclose()


async def close_aiohttp(session: aiohttp.ClientSession) -> None:
    await session.close()


CALLERS = {
    "httpx.AsyncClient": Caller(lambda network: httpx.AsyncClient(verify=network.context), close_httpx),
    "httpx2.AsyncClient on trio": Caller(
        lambda network: httpx2.AsyncClient(verify=network.context), close_httpx, trio.run, trio.sleep
    ),
    "aiohttp.ClientSession": Caller(
        lambda network: aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=network.context)), close_aiohttp
    ),
}
HTTPX = ("httpx.Client", "httpx.AsyncClient", "httpx2.AsyncClient on trio")
ALL = (*HTTPX, "aiohttp.ClientSession")

# What a caller's own client need not do, and why: by test.
EXEMPT = {
    "test_a_request_is_what_was_given_and_what_http_needs": (HTTPX, "httpx adds headers of its own"),
    "test_headers_may_be_long_but_not_endless": (HTTPX, "the limit on headers is the client's"),
    "test_a_cookie_is_not_sent_back": (HTTPX, "cookies are the client's"),
    "test_the_environment_is_not_read": (ALL, "whether it reads the environment is the client's"),
    "test_what_comes_after_an_answer_is_not_taken_for_more_of_it_nor_for_the_next": (
        ALL,
        "what it makes of bytes that nobody asked for is the client's",
    ),
    "test_close_lets_go_of_kept_connections": (ALL, "the client stays open, and with it what it keeps"),
    "test_a_connection_lost_under_a_request_may_be_tried_again_by_who_counts": (
        ("aiohttp.ClientSession",),
        "aiohttp sends a GET once more when a kept connection turns out to be closed",
    ),
    **dict.fromkeys(
        ("test_the_deadline_holds_in_the_tls_handshake", "test_abort_wakes_who_shakes_hands"),
        (ALL[1:], "a handshake that is cancelled leaves its socket to the garbage collector"),
    ),
    **dict.fromkeys(
        ("test_the_deadline_holds_against_a_server_that_does_not_read", "test_abort_wakes_who_sends_a_body"),
        (("aiohttp.ClientSession",), "aiohttp lets go of a connection only when all is sent, or its loop ends"),
    ),
}


class OnLoop:
    """A transport of a client that is made on each loop anew, as it must be closed there."""

    def __init__(self, caller: Caller, network: Network) -> None:
        self._caller = caller
        self._network = network
        self._inner: Transport | None = None
        self._is_closed = False

    def go(self, scenario: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        async def main() -> Any:
            client = self._caller.make(self._network)
            self._inner = eventful_transport(client)
            if self._is_closed:
                self._inner.close()
            try:
                return await scenario()
            finally:
                self._inner.close()
                await self._caller.close(client)
                await self._caller.sleep(0.02)  # aiohttp leaves it to the loop to end TLS.

        return self._caller.run(main)

    async def send(self, request: HttpRequest, line: Line) -> Reply:
        assert self._inner is not None
        return await self._inner.send(request, line)

    def close(self) -> None:
        self._is_closed = True
        if self._inner is not None:
            self._inner.close()


@contextmanager
def blocking_httpx(network: Network) -> Iterator[Transport]:
    with httpx.Client(verify=network.context or True) as client:
        yield blocking_transport(client)
