"""What only the transport of httpx2 has: HTTP/2, SOCKS proxies, and connections that belong to no loop.

All that every transport must do stands in `test_transports` and `test_proxies`, which run it too.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import ssl
import sys

import pytest
import trio
from callers import run_on_asyncio
from http2 import Request, http2_server
from proxies import ProxyServer
from servers import Gate, Server, authority, chunked, client_context, free_port, whole
from socks import SocksServer
from test_transports import (
    SOON,
    Cutter,
    drip_comments,
    fetch,
    hang,
    in_time,
    opened,
    python,
    request,
    soon,
    taking,
)

from sabir.errors import (
    ConfigurationError,
    ConnectError,
    DeadlineExceeded,
    StreamInterrupted,
)
from sabir.runtime import Line
from sabir.transports import Network, network_of
from sabir.transports.httpx2 import BlockingHttpx2, EventfulHttpx2
from sabir.transports.proxies import proxies_of

PIPES = ["httpx2", "httpx2 on asyncio", "httpx2 on trio"]


def http2_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority().configure_trust(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


@pytest.fixture(params=PIPES)
def pipe(request):
    with opened(request.param, Network(http2_context(), http2=True)) as pipe:
        yield pipe


@pytest.fixture(params=PIPES)
def by(request):
    """Makes a pipe that goes by a proxy."""
    with_each = []

    def pipe(proxy, context=None):
        network = Network(context or client_context(), proxies_of(proxy), http2=context is not None)
        with_each.append(opened(request.param, network))
        return with_each[-1].__enter__()

    yield pipe
    for each in with_each:
        each.__exit__(None, None, None)


async def echo(asked: Request) -> None:
    await asked.head(200, (b"x-many", b"one"), (b"x-many", b"two"))
    await asked.write(asked.body, more=False)


# HTTP/2


def test_http2_is_spoken_where_the_server_can(pipe):
    headers = [("x-api-key", "k"), ("Content-Type", "application/json")]
    server = http2_server(echo)
    found = pipe.go(lambda: fetch(pipe.transport, server.url + "/v1", in_time(), headers=headers, body=b"hello"))
    pipe.transport.close()
    (asked,) = server.requests
    assert (found.status, found.body, found.headers["x-many"]) == (200, b"hello", "one, two")
    assert (asked.version, asked.path, asked.body) == ("2", "/v1", b"hello")
    assert asked.headers["x-api-key"] == "k"
    assert asked.headers["accept-encoding"] == "identity"
    assert "user-agent" not in asked.headers


def test_http1_is_spoken_where_the_server_cannot(pipe):
    with Server(whole(b"old"), secure=True) as server:
        assert pipe.go(lambda: fetch(pipe.transport, server.url, in_time())).body == b"old"


@pytest.mark.parametrize("name", PIPES)
def test_http2_is_spoken_only_when_asked_for(name):
    server = http2_server(echo)
    with opened(name, Network(client_context())) as pipe:
        pipe.go(lambda: fetch(pipe.transport, server.url, in_time()))
        pipe.transport.close()
    assert server.requests[0].version == "1.1"


def test_large_bodies_go_both_ways_over_http2(pipe):
    sent = bytes(range(256)) * 12_000
    server = http2_server(echo)
    assert pipe.go(lambda: fetch(pipe.transport, server.url, in_time(), body=sent)).body == sent
    pipe.transport.close()


def test_an_event_arrives_over_http2_before_the_next_is_sent(pipe):
    gates = [Gate(), Gate()]

    async def answer(asked: Request) -> None:
        await asked.head()
        for number, gate in enumerate(gates):
            await asked.write(b"data: %d\n\n" % number)
            await gate.passed()
        await asked.write(b"", more=False)

    async def scenario():
        reply = await pipe.transport.send(request(server.url), in_time())
        for number, gate in enumerate(gates):
            assert await reply.read_some() == b"data: %d\n\n" % number
            gate.open()
        assert await reply.read_some() == b""
        reply.close()

    server = http2_server(answer)
    pipe.go(scenario)
    pipe.transport.close()


def test_a_connection_of_http2_is_used_again(pipe):
    async def thrice():
        for _ in range(3):
            await fetch(pipe.transport, server.url, in_time())

    server = http2_server(echo)
    pipe.go(thrice)
    pipe.transport.close()
    assert len({asked.connection for asked in server.requests}) == 1


def test_exchanges_at_once_have_connections_of_their_own(pipe):
    """So that one which is cut, or silent, is no matter to the others."""

    was_left = Gate()

    async def answer(asked: Request) -> None:
        await asked.head()
        await asked.write(b"begun")
        if asked.path == "/endless":
            await asked.until_left()
            was_left.open()
        else:
            await was_left.passed()
            await asked.write(b"done", more=False)

    async def scenario():
        endless = await pipe.transport.send(request(server.url + "/endless"), in_time())
        assert await endless.read_some() == b"begun"
        other = await pipe.transport.send(request(server.url), in_time())
        assert await other.read_some() == b"begun"
        endless.close()
        assert await other.read_some() == b"done"
        assert await other.read_some() == b""

    server = http2_server(answer)
    pipe.go(scenario)
    pipe.transport.close()
    assert len({asked.connection for asked in server.requests}) == 2


async def be_silent(asked: Request) -> None:
    await asked.until_left()


async def drip(asked: Request) -> None:
    await asked.head()
    while True:
        await asked.write(b":\n\n")
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("answer", [be_silent, drip])
def test_limits_and_aborts_hold_over_http2(pipe, answer):
    line = Line()
    server = http2_server(answer)
    with taking(SOON), pytest.raises(DeadlineExceeded, match="timeout"):
        pipe.go(lambda: fetch(pipe.transport, server.url, soon()))
    with Cutter(line.abort).expected():
        pipe.go(lambda: fetch(pipe.transport, server.url, line))


def test_silence_over_http2_has_a_limit(pipe):
    server = http2_server(be_silent)
    with taking(SOON), pytest.raises(DeadlineExceeded, match=r"silent for 0\.25 s"):
        pipe.go(lambda: fetch(pipe.transport, server.url, Line(idle=SOON, connect=5)))


def test_a_stream_of_http2_that_breaks_off_never_looks_whole(pipe):
    async def answer(asked: Request) -> None:
        await asked.head()
        await asked.write(b"hello")
        raise ConnectionResetError("as an application may fail")

    async def scenario():
        reply = await pipe.transport.send(request(server.url + "/?key=secret"), in_time())
        assert await reply.read_some() == b"hello"
        with pytest.raises(StreamInterrupted, match=r"127\.0\.0\.1") as caught:
            await reply.read_some()
        assert "secret" not in str(caught.value)

    server = http2_server(answer)
    pipe.go(scenario)


def test_http2_goes_through_a_tunnel(by):
    server = http2_server(echo)
    with ProxyServer() as proxy:
        pipe = by(proxy.url, http2_context())
        assert pipe.go(lambda: fetch(pipe.transport, server.url, in_time(), body=b"hello")).body == b"hello"
        pipe.transport.close()
        assert server.requests[0].version == "2"


def test_the_log_of_http2_has_no_key(caplog):
    caplog.set_level(logging.DEBUG)
    server = http2_server(echo)
    with opened("httpx2", Network(http2_context(), http2=True)) as pipe:
        headers = [("x-api-key", "sk-secret"), ("authorization", "Bearer sk-secret")]
        pipe.go(lambda: fetch(pipe.transport, server.url, in_time(), headers=headers))
        pipe.transport.close()
    assert caplog.records
    assert "sk-secret" not in caplog.text


def test_a_file_of_certificates_goes_with_http2(tmp_path):
    pem = tmp_path / "ca.pem"
    authority().cert_pem.write_to_path(pem)
    server = http2_server(echo)
    with opened("httpx2", network_of("httpx2", ca_file=pem, http2=True)) as pipe:
        pipe.go(lambda: fetch(pipe.transport, server.url, in_time()))
    assert server.requests[0].version == "2"


def test_a_context_of_the_callers_is_used_as_it_is():
    """It says itself what it offers, and whatever is made of it later offers the same."""
    server, given = http2_server(echo), client_context()
    for spoken, context in (("1.1", given), ("2", http2_context()), ("1.1", given)):
        with opened("httpx2", Network(context, http2=True)) as pipe:
            pipe.go(lambda: fetch(pipe.transport, server.url, in_time()))
        assert server.requests[-1].version == spoken


@pytest.mark.parametrize("make", [BlockingHttpx2, EventfulHttpx2])
def test_a_package_that_is_missing_is_named(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "h2", None)
    with pytest.raises(ConfigurationError, match=r"h2: pip install 'sabir\[httpx2\]'"):
        make(Network(http2=True))


def test_a_package_for_socks_that_is_missing_is_named(by, monkeypatch):
    monkeypatch.setitem(sys.modules, "socksio", None)
    pipe = by("socks5://127.0.0.1:1080")
    with pytest.raises(ConfigurationError, match=r"socksio: pip install 'sabir\[httpx2\]'"):
        pipe.go(lambda: fetch(pipe.transport, "http://a.example/", in_time()))


# HTTP/1.1


# SOCKS


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("login", [None, "me:hidden"], ids=["open", "with a login"])
def test_a_call_goes_by_a_socks_proxy(by, secure, login):
    async def thrice():
        for _ in range(3):
            found = await fetch(pipe.transport, server.url + "/a%3Ab/../c", in_time(), body=b"{}")
        return found

    with Server(chunked(b"a", b"b"), secure=secure) as server, SocksServer(login=login) as proxy:
        pipe = by(proxy.url_for(login or ""))
        assert pipe.go(thrice).body == b"ab"
        assert proxy.asked == [("127.0.0.1", server.port)]
        assert server.accepted == 1
    assert {call.target for call in server.calls} == {"/a%3Ab/../c"}
    assert {call.header("host") for call in server.calls} == {server.place}


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_it_is_the_socks_proxy_that_looks_up_names(by, scheme):
    with Server(whole(b"found")) as server, SocksServer(routes={"model.invalid": server.port}) as proxy:
        pipe = by(proxy.url_for(scheme=scheme))
        assert pipe.go(lambda: fetch(pipe.transport, "http://model.invalid/v1", in_time())).body == b"found"
        assert proxy.asked == [("model.invalid", 80)]


def test_an_address_of_ipv6_behind_a_socks_proxy(by):
    with Server(whole(b"found")) as server, SocksServer(routes={"2001:db8::1": server.port}) as proxy:
        pipe = by(proxy.url_for())
        assert pipe.go(lambda: fetch(pipe.transport, "http://[2001:db8::1]:8080/v1", in_time())).body == b"found"
        assert proxy.asked == [("2001:db8::1", 8080)]
    assert server.calls[0].header("host") == "[2001:db8::1]:8080"


@pytest.mark.parametrize("login", ["", "me:wrong-hidden"], ids=["no login", "a wrong one"])
def test_a_socks_proxy_that_wants_another_login(by, login):
    with Server(whole()) as server, SocksServer(login="me:hidden") as proxy:
        pipe = by(proxy.url_for(login))
        with pytest.raises(ConnectError, match=f"the proxy socks5://{proxy.place}") as caught:
            pipe.go(lambda: fetch(pipe.transport, server.url, in_time()))
        assert server.accepted == 0
        assert proxy.is_left_by_all()
    assert "hidden" not in str(caught.value)


def test_a_socks_proxy_that_cannot_reach_the_server(by):
    with SocksServer() as proxy:
        pipe = by(proxy.url_for())
        with pytest.raises(ConnectError, match=f"the proxy socks5://{proxy.place}.*Connection refused"):
            pipe.go(lambda: fetch(pipe.transport, f"http://127.0.0.1:{free_port()}/", in_time()))
        assert proxy.is_left_by_all()


def test_a_proxy_that_does_not_speak_socks(by):
    with Server(whole(), blurts=b"HTTP/1.1 400 Bad Request\r\n\r\n") as proxy:
        pipe = by(f"socks5://{proxy.place}")
        with pytest.raises(ConnectError, match=f"the proxy socks5://{proxy.place}"):
            pipe.go(lambda: fetch(pipe.transport, "http://a.example/", in_time()))
        assert proxy.is_left_by_all()


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_limits_and_aborts_hold_against_a_silent_socks_proxy(by, steps):
    line = Line()
    with SocksServer(login="me:hidden", steps=steps) as proxy:
        pipe = by(proxy.url_for("me:hidden"))
        url = f"https://127.0.0.1:{free_port()}/"
        with taking(SOON), pytest.raises(DeadlineExceeded, match="timeout"):
            pipe.go(lambda: fetch(pipe.transport, url, soon()))
        with taking(SOON), pytest.raises(ConnectError, match=f"no connection to the proxy .*{proxy.place} within"):
            pipe.go(lambda: fetch(pipe.transport, url, Line(connect=SOON)))
        with Cutter(line.abort).expected():
            pipe.go(lambda: fetch(pipe.transport, url, line))
        assert proxy.is_left_by_all()


@pytest.mark.parametrize("answer", [hang, drip_comments])
def test_limits_and_aborts_hold_behind_a_socks_proxy(by, answer):
    line = Line()
    with Server(answer, secure=True) as server, SocksServer() as proxy:
        pipe = by(proxy.url_for())
        with taking(SOON), pytest.raises(DeadlineExceeded, match="timeout"):
            pipe.go(lambda: fetch(pipe.transport, server.url, soon()))
        with Cutter(line.abort).expected():
            pipe.go(lambda: fetch(pipe.transport, server.url, line))
        assert server.is_left_by_all()
        assert proxy.is_left_by_all()


# Loops


RUNS = pytest.mark.parametrize("on", [run_on_asyncio, trio.run], ids=["asyncio", "trio"])


@RUNS
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_one_transport_serves_any_number_of_loops(on, secure, caplog):
    """Its connections belong to none of them: the next loop uses what the last one kept."""

    async def leave_one_open():
        await fetch(transport, server.url)
        reply = await transport.send(request(server.url), Line())
        assert reply.status == 200

    transport = EventfulHttpx2(Network(client_context()))
    with Server(whole(b"hello"), secure=secure) as server:
        for _ in range(12):
            on(leave_one_open)
            gc.collect()
        assert server.accepted <= 13
        transport.close()
        assert server.is_left_by_all()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_one_transport_serves_both_libraries():
    async def use():
        return (await fetch(transport, server.url, in_time())).body

    transport = EventfulHttpx2()
    with Server(whole(b"hello")) as server:
        assert [on(use) for on in (run_on_asyncio, trio.run, run_on_asyncio, trio.run)] == [b"hello"] * 4
        assert server.accepted == 2
        transport.close()
        assert server.is_left_by_all()


@RUNS
def test_a_transport_that_is_dropped_closes_its_sockets(on):
    async def use():
        transport = EventfulHttpx2()
        await fetch(transport, server.url)
        reply = await transport.send(request(server.url), Line())
        assert reply.status == 200

    with Server(whole(b"hello")) as server:
        on(use)
        gc.collect()
        assert server.is_left_by_all()


def test_many_answers_at_once_on_trio():
    found: dict[int, bytes] = {}

    async def one(number: int) -> None:
        found[number] = (await fetch(transport, server.url, body=b"%d" % number)).body

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(one, number)

    async def echo_slowly(call) -> None:
        await asyncio.sleep(0.01)
        await whole(call.body)(call)

    transport = EventfulHttpx2()
    with Server(echo_slowly) as server:
        trio.run(main)
        transport.close()
        assert found == {number: b"%d" % number for number in range(200)}
        assert server.is_left_by_all()


@pytest.mark.parametrize("answer", [hang, drip_comments])
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_a_call_that_trio_cancels_closes_its_connection(answer, secure):
    transport = EventfulHttpx2(Network(client_context()))

    async def main() -> None:
        with taking(SOON), trio.move_on_after(SOON) as scope:
            await fetch(transport, server.url)
        assert scope.cancelled_caught
        assert await trio.to_thread.run_sync(server.is_left_by_all)

    with Server(answer, secure=secure) as server:
        trio.run(main)


def test_httpcore2_is_imported_by_the_first_call():
    python(
        """
        import sys, sabir
        client = sabir.Client("vllm:x@http://127.0.0.1:9/v1", transport="httpx2", max_attempts=1)
        assert not {"httpx2", "httpcore2", "anyio", "trio"} & set(sys.modules)
        try:
            client.ask("?")
        except sabir.ConnectError:
            assert "httpcore2" in sys.modules
        """
    )
