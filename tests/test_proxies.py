"""Proxies: which one serves which server, and that both transports go through it, keep their limits and tell nothing.

The proxies are real ones on loopback: that of `tests/proxies.py`, `proxy.py` from PyPI, and servers that misbehave.
"""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec

import pytest
from proxies import ProxyServer
from servers import (
    Call,
    Server,
    chunked,
    client_context,
    deaf_listener,
    free_port,
    mute_listener,
    until,
    whole,
)
from test_transports import (
    PIPES,
    SLACK,
    SOON,
    Cutter,
    Pipe,
    drip_bytes_of_a_header,
    drip_comments,
    drip_headers,
    fetch,
    hang,
    in_time,
    request,
    soon,
    taking,
)

from sabir.errors import ClosedError, ConfigurationError, ConnectError, DeadlineExceeded, StreamInterrupted
from sabir.runtime import Line
from sabir.transports import Network, locate
from sabir.transports.eventful import EventfulTransport
from sabir.transports.proxies import Proxy, proxies_of

# Which proxy for which server


def chosen(url, setting=None, **environ):
    proxy = proxies_of(setting, environ).proxy_for(locate(url)[0])
    return None if proxy is None else proxy.url


@pytest.mark.parametrize(
    ("environ", "url", "expected"),
    [
        ({}, "https://a.example/", None),
        ({"HTTPS_PROXY": "http://p:1"}, "https://a.example/", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1"}, "http://a.example/", None),
        ({"HTTP_PROXY": "http://p:1"}, "http://a.example/", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, "https://a.example/", None),
        ({"ALL_PROXY": "http://p:1"}, "https://a.example/", "http://p:1"),
        ({"all_proxy": "http://p:1"}, "http://a.example/", "http://p:1"),
        ({"ALL_PROXY": "http://p:1", "HTTPS_PROXY": "http://q:2"}, "https://a.example/", "http://q:2"),
        ({"https_proxy": "http://low:1", "HTTPS_PROXY": "http://up:1"}, "https://a.example/", "http://low:1"),
        ({"https_proxy": "", "HTTPS_PROXY": "http://up:1"}, "https://a.example/", "http://up:1"),
        ({"https_proxy": " ", "ALL_PROXY": "http://all:1"}, "https://a.example/", "http://all:1"),
        ({"https_proxy": "p:3128"}, "https://a.example/", "http://p:3128"),
        ({"https_proxy": "me:hidden@p:3128"}, "https://a.example/", "http://p:3128"),
        ({"https_proxy": "http://p"}, "https://a.example/", "http://p:80"),
        ({"https_proxy": "https://p/"}, "https://a.example/", "https://p:443"),
        ({"https_proxy": "HTTP://P:1"}, "https://a.example/", "http://p:1"),
        ({"https_proxy": "http://[fd00::1]:3128"}, "https://a.example/", "http://[fd00::1]:3128"),
        ({"https_proxy": "socks5h://p"}, "https://a.example/", "socks5h://p:1080"),
        ({"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, "http://a.example/", None),
        ({"http_proxy": "http://p:1", "REQUEST_METHOD": "GET"}, "http://a.example/", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, "https://a.example/", "http://p:1"),
    ],
)
def test_the_environment_names_a_proxy_for_each_scheme(environ, url, expected):
    assert chosen(url, **environ) == expected


SPARED = [
    ("example.com", "https://example.com/", True),
    ("example.com", "https://EXAMPLE.com/", True),
    ("EXAMPLE.com", "https://example.com/", True),
    ("example.com", "https://example.com./", True),
    ("example.com", "https://api.example.com/", True),
    ("example.com", "https://notexample.com/", False),
    ("example.com", "https://example.com.evil.org/", False),
    (".example.com", "https://api.example.com/", True),
    (".example.com", "https://example.com/", True),
    ("*.example.com", "https://api.example.com/", True),
    ("com", "https://example.com/", True),
    ("*", "https://example.com/", True),
    ("a.org, example.com", "https://example.com/", True),
    ("a.org example.com", "https://example.com/", True),
    (",, example.com ,", "https://other.com/", False),
    ("example.com:443", "https://example.com/", True),
    ("example.com:443", "https://example.com:8443/", False),
    (".example.com:8443", "https://api.example.com:8443/", True),
    ("10.0.0.1", "https://10.0.0.1/", True),
    ("10.0.0.1", "https://10.0.0.10/", False),
    ("10.0.0.1:8000", "https://10.0.0.1:8000/", True),
    ("10.0.0.1:8000", "https://10.0.0.1:8001/", False),
    ("10.0.0.0/8", "https://10.200.3.4/", True),
    ("10.0.0.0/8", "https://11.0.0.1/", False),
    ("10.1.2.3/8", "https://10.200.3.4/", True),
    ("10.0.0.0/8:8000", "https://10.0.0.1:8000/", True),
    ("10.0.0.0/8", "https://ten.example/", False),
    ("192.168.0.0/16", "https://[::ffff:192.168.1.1]/", True),
    ("fd00::/8", "https://[fd12::1]/", True),
    ("fd00::/8", "https://[fe80::1]/", False),
    ("fe80::/10", "https://[fe80::1%eth0]/", True),
    ("[fd12::1]", "https://[fd12::1]/", True),
    ("fd12::1", "https://[fd12:0:0::1]/", True),
    ("[fd12::1]:8000", "https://[fd12::1]:8000/", True),
    ("[fd12::1]:8000", "https://[fd12::1]:8001/", False),
    ("300.0.0.0/8", "https://10.0.0.1/", False),
    ("example.com/24", "https://example.com/", False),
    ("", "https://example.com/", False),
]


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
@pytest.mark.parametrize(("value", "url", "is_spared"), SPARED)
def test_no_proxy_spares_names_addresses_and_blocks(name, value, url, is_spared):
    assert (chosen(url, ALL_PROXY="http://p:1", **{name: value}) is None) == is_spared


@pytest.mark.parametrize("host", ["localhost", "ollama.localhost", "127.0.0.1", "127.8.8.8", "[::1]", "0.0.0.0"])
def test_servers_of_this_machine_are_asked_directly(host):
    assert chosen(f"http://{host}:11434/", ALL_PROXY="http://p:1") is None


@pytest.mark.parametrize("url", ["http://localhost/", "https://a.example/", "http://10.0.0.1/"])
def test_a_proxy_that_was_given_serves_every_server(url):
    assert chosen(url, "http://p:1", NO_PROXY="*", ALL_PROXY="http://q:2") == "http://p:1"


def test_false_is_no_proxy():
    assert chosen("https://a.example/", False, ALL_PROXY="http://p:1") is None


ODD = [
    "",
    "ftp://p",
    "socks4://p",
    "http://",
    "http://p:port",
    "http://p:99999",
    "http://p/path",
    "http://p?query",
    "http://me:hidden#1@p:1",
    "http://me:hidden/1@p:1",
    "http://me%3Atoo:hidden@p:1",
    "http://me:hidden@p q:1",
    "http://me:hidden@[p:1",
]


@pytest.mark.parametrize("url", ODD)
def test_what_is_no_address_of_a_proxy_is_told_without_its_password(url):
    with pytest.raises(ConfigurationError, match="proxy= is no address of a proxy") as caught:
        proxies_of(url)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("url", ODD[1:])
def test_an_odd_proxy_in_the_environment_is_told_to_who_needs_it(url):
    proxies = proxies_of(None, {"HTTPS_PROXY": url, "NO_PROXY": "b.example"})
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="HTTPS_PROXY is no address of a proxy") as caught:
            proxies.proxy_for(locate("https://a.example/")[0])
        assert "hidden" not in str(caught.value)
    for url in ("http://a.example/", "https://b.example/", "https://localhost/"):
        assert proxies.proxy_for(locate(url)[0]) is None


@pytest.mark.parametrize("setting", [True, 8080, b"http://p:1", ["http://p:1"]])
def test_the_setting_is_a_url_or_false(setting):
    with pytest.raises(ConfigurationError, match="proxy is the URL of a proxy, or False for none"):
        proxies_of(setting)


def test_credentials_are_decoded_and_shown_nowhere():
    proxies = proxies_of("http://m%C3%BCller:p%40ss%3Aword@p:3128")
    proxy = proxies.proxy_for(locate("https://a.example/")[0])
    assert (proxy.username, proxy.password) == ("müller", "p@ss:word")
    assert proxy.authorization == "Basic bcO8bGxlcjpwQHNzOndvcmQ="
    shown = [repr(proxy), str(proxy), proxy.url, repr(proxy.password), repr(proxy.authorization)]
    shown += [repr(vars(proxies)), repr(Network(None, proxies))]
    for secret in ("p@ss", "p%40ss", "bcO8"):
        assert not [text for text in shown if secret in text]
    assert str(proxy) == "the proxy http://p:3128"
    assert copy.copy(proxy) == proxy
    assert Proxy("http", "p", 3128).authorization is None


# Through a proxy


@pytest.fixture(params=["blocking", "eventful", "httpx2", "httpx2 on trio"])
def by(request):
    """Makes a transport that goes by a proxy."""
    make, go, sleep = PIPES[request.param]
    made = []

    def pipe(proxy):
        made.append(make(Network(client_context(), proxies_of(proxy))))
        return Pipe(made[-1], go, sleep)

    yield pipe
    for transport in made:
        transport.close()


KEY = "sk-not-for-proxies"
both_hops = pytest.mark.parametrize(
    ("secure_proxy", "secure"),
    [(False, False), (False, True), (True, False), (True, True)],
    ids=["http by http", "https by http", "http by https", "https by https"],
)


@both_hops
@pytest.mark.parametrize("login", [None, "me:hidden"], ids=["open", "with a login"])
def test_a_call_goes_by_the_proxy(by, secure_proxy, secure, login):
    async def thrice():
        for _ in range(3):
            await fetch(pipe.transport, server.url + target, in_time(), headers=[("x-api-key", KEY)], body=b"{}")
        return await fetch(pipe.transport, server.url, in_time(), body=bytes(3_000_000))

    async def answer(call: Call) -> None:
        await whole(call.body)(call)

    target = "/a%3Ab/../c?x=%2F&y=a+b"
    with Server(answer, secure=secure) as server, ProxyServer(login=login, secure=secure_proxy, slowly=True) as proxy:
        pipe = by(proxy.url_for(login or ""))
        assert pipe.go(thrice).body == bytes(3_000_000)
        assert (proxy.connections, server.accepted) == (1, 1)
    assert [call.target for call in server.calls] == [target] * 3 + ["/"]
    assert {call.header("x-api-key") for call in server.calls[:3]} == {KEY}
    assert {call.header("host") for call in server.calls} == {server.place}
    assert {call.header("proxy-authorization") for call in server.calls} == {None}
    expected = None if login is None else "Basic bWU6aGlkZGVu"
    assert {asked.headers.get("proxy-authorization") for asked in proxy.asked} == {expected}
    assert {asked.headers["host"] for asked in proxy.asked} == {server.place}
    if secure:
        assert [(asked.method, asked.target) for asked in proxy.asked] == [("CONNECT", server.place)]
        assert KEY.encode() not in proxy.heard
        assert not {"x-api-key", "content-length"} & set(proxy.asked[0].headers)
    else:
        assert [asked.target for asked in proxy.asked] == [server.url + target] * 3 + [server.url + "/"]


def test_it_is_the_proxy_that_looks_up_names(by):
    with Server(whole(b"found")) as server, ProxyServer(routes={"model.invalid": server.port}) as proxy:
        pipe = by(proxy.url)
        found = pipe.go(lambda: fetch(pipe.transport, "http://model.invalid/v1", in_time()))
    assert found.body == b"found"
    assert server.calls[0].header("host") == "model.invalid"


def test_each_server_has_connections_of_its_own(by):
    async def both():
        for server in (one, other, one, other):
            assert (await fetch(pipe.transport, server.url, in_time())).body == server.url.encode()

    with Server(whole()) as one, Server(whole(), secure=True) as other, ProxyServer() as proxy:
        for server in (one, other):
            server.answer = whole(server.url.encode())
        pipe = by(proxy.url)
        pipe.go(both)
        assert (one.accepted, other.accepted, proxy.connections) == (1, 1, 2)


def test_a_stream_comes_through_as_it_is_sent(by):
    pieces = [b"data: %d\n\n" % number for number in range(500)]
    with Server(chunked(*pieces), secure=True) as server, ProxyServer(secure=True) as proxy:
        pipe = by(proxy.url)
        assert pipe.go(lambda: fetch(pipe.transport, server.url, in_time())).body == b"".join(pieces)


# What a proxy refuses


@both_hops
@pytest.mark.parametrize("login", ["", "me:wrong-hidden"], ids=["no login", "a wrong one"])
def test_a_proxy_that_wants_another_login(by, secure_proxy, secure, login):
    with Server(whole(), secure=secure) as server, ProxyServer(login="me:hidden", secure=secure_proxy) as proxy:
        pipe = by(proxy.url_for(login))
        with pytest.raises(ConnectError, match=f"the proxy {proxy.url} wants user and password") as caught:
            pipe.go(lambda: fetch(pipe.transport, server.url + "/?key=hidden", in_time()))
        assert server.accepted == 0
        assert proxy.is_left_by_all()
    assert (caught.value.status, caught.value.retryable) == (407, False)
    assert "hidden" not in str(caught.value)
    assert "hidden" not in repr(pickle.loads(pickle.dumps(caught.value)).__dict__)


@pytest.mark.parametrize(("status", "retryable"), [("403 Forbidden", False), ("502 Bad Gateway", True), ("503", True)])
def test_a_proxy_that_makes_no_tunnel(by, status, retryable):
    with Server(whole(b"<html>no</html>", status=status)) as proxy:
        pipe = by(proxy.url)
        with pytest.raises(ConnectError, match=f"the proxy {proxy.url} made no connection to a.example:443") as caught:
            pipe.go(lambda: fetch(pipe.transport, "https://a.example/?key=hidden", in_time()))
        assert proxy.is_left_by_all()
    assert (caught.value.status, caught.value.retryable) == (int(status[:3]), retryable)
    assert "hidden" not in str(caught.value)


def test_a_proxy_that_cannot_reach_the_server(by):
    with ProxyServer() as proxy:
        pipe = by(proxy.url)
        with pytest.raises(ConnectError, match=r"HTTP 502") as caught:
            pipe.go(lambda: fetch(pipe.transport, f"https://127.0.0.1:{free_port()}/", in_time()))
    assert caught.value.retryable


def test_an_answer_of_the_server_is_no_answer_of_the_proxy(by):
    answer = whole(b"who are you?", status="407 Proxy Authentication Required")
    with Server(answer, secure=True) as server, ProxyServer() as proxy:
        pipe = by(proxy.url)
        assert pipe.go(lambda: fetch(pipe.transport, server.url, in_time())).status == 407


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("hop", ["http", "https"])
def test_nobody_listens_where_the_proxy_should_be(by, scheme, hop):
    port = free_port()
    pipe = by(f"{hop}://me:hidden@127.0.0.1:{port}")
    with pytest.raises(ConnectError, match=f"the proxy {hop}://127.0.0.1:{port} refused") as caught:
        pipe.go(lambda: fetch(pipe.transport, f"{scheme}://a.example/", in_time()))
    assert caught.value.retryable
    assert "hidden" not in str(caught.value)


def test_nobody_has_the_name_of_the_proxy(by):
    pipe = by("http://proxy.invalid:3128")
    with pytest.raises(ConnectError, match=r"cannot find the host of the proxy http://proxy\.invalid:3128"):
        pipe.go(lambda: fetch(pipe.transport, "https://a.example/", Line(connect=5)))


async def cut_the_head(call: Call) -> None:
    call.write(b"HTTP/1.1 200 Conn")
    await asyncio.sleep(0.02)
    call.close()


async def hang_up(call: Call) -> None:
    call.reset()


async def speak_ssh(call: Call) -> None:
    call.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    await call.forever()


@pytest.mark.parametrize("answer", [hang_up, cut_the_head, speak_ssh])
@pytest.mark.parametrize("secure_proxy", [False, True], ids=["http", "https"])
def test_a_proxy_that_gives_no_answer(by, answer, secure_proxy):
    with Server(answer, secure=secure_proxy) as proxy:
        pipe = by(proxy.url)
        with pytest.raises(ConnectError, match=f"no answer from the proxy {proxy.url}") as caught:
            pipe.go(lambda: fetch(pipe.transport, "https://a.example/", in_time()))
        assert proxy.is_left_by_all()
    assert caught.value.retryable


def test_a_proxy_that_hangs_up_in_an_answer(by):
    async def answer(call: Call) -> None:
        call.head("Transfer-Encoding: chunked")
        call.chunk(b"hello")
        await call.forever()

    async def scenario():
        reply = await pipe.transport.send(request(server.url), in_time())
        assert await reply.read_some() == b"hello"
        proxy.__exit__()
        with pytest.raises(StreamInterrupted, match=server.place):
            await reply.read_some()

    with Server(answer, secure=True) as server, ProxyServer() as proxy:
        pipe = by(proxy.url)
        pipe.go(scenario)


@pytest.mark.parametrize("name", ["blocking", "eventful", "httpx2", "httpx2 on trio"])
@pytest.mark.parametrize("whose", ["the proxy", "the server"])
def test_whose_certificate_it_is_that_nobody_vouches_for(name, whose):
    make, go, _ = PIPES[name]
    with Server(whole(), secure=True) as server, ProxyServer(secure=whose == "the proxy") as proxy:
        transport = make(Network(None, proxies_of(proxy.url)))
        place = f"the proxy {proxy.url}" if whose == "the proxy" else server.place
        with pytest.raises(ConnectError, match=f"certificate of {place} is not trusted") as caught:
            go(lambda: fetch(transport, server.url, in_time()))
        transport.close()
        assert not server.calls
        assert server.is_left_by_all()
        assert proxy.is_left_by_all()
    assert not caught.value.retryable


def test_tls_where_the_server_behind_the_proxy_speaks_none(by):
    with Server(whole(), blurts=b"HTTP/1.1 400 Bad Request\r\n\r\n") as server, ProxyServer() as proxy:
        pipe = by(proxy.url)
        with pytest.raises(ConnectError, match=f"no TLS connection to {server.place}"):
            pipe.go(lambda: fetch(pipe.transport, f"https://{server.place}", in_time()))
        assert server.is_left_by_all()


@pytest.mark.parametrize("by", ["blocking", "eventful"], indirect=True)
@pytest.mark.parametrize("url", ["http://a.example/", "https://a.example/"])
def test_a_proxy_that_speaks_socks_names_the_transport_that_does(by, url):
    pipe = by("socks5://me:hidden@127.0.0.1:1080")
    with pytest.raises(ConfigurationError, match=r"sabir\[httpx2\]") as caught:
        pipe.go(lambda: fetch(pipe.transport, url, in_time()))
    assert "hidden" not in str(caught.value)


# Deadlines and aborts, in every phase


PHASES = {
    "connecting to the proxy": (None, "deaf", None),
    "TLS with the proxy": (None, "mute https", None),
    "a silent proxy": (None, "mute http", None),
    "a proxy's headers": (None, drip_headers, None),
    "bytes of a proxy's header": (None, drip_bytes_of_a_header, None),
    "bytes of a header, by TLS": (None, drip_bytes_of_a_header, True),
    "TLS through the tunnel": ("mute", None, False),
    "TLS through TLS": ("mute", None, True),
    "the answer through the tunnel": (hang, None, False),
    "a header through the tunnel": (drip_bytes_of_a_header, None, False),
    "the body through the tunnel": (drip_comments, None, False),
    "the body through TLS": (drip_comments, None, True),
}
CONNECTING = [name for name, (answer, _, _) in PHASES.items() if answer in (None, "mute")]


@contextmanager
def waiting_in(phase):
    """A proxy, a server, and whether both are left; a call waits in this phase without end."""
    answer, proxy_is, secure_proxy = PHASES[phase]
    with ExitStack() as stack:
        if proxy_is == "deaf":
            yield f"http://127.0.0.1:{stack.enter_context(deaf_listener())}", "https://a.example/", lambda: True
        elif isinstance(proxy_is, str):
            port = stack.enter_context(mute_listener())
            yield f"{proxy_is.split()[1]}://127.0.0.1:{port}", "https://a.example/", lambda: True
        elif proxy_is is not None:
            proxy = stack.enter_context(Server(proxy_is, secure=bool(secure_proxy)))
            yield proxy.url, "https://a.example/", proxy.is_left_by_all
        elif answer == "mute":
            made = stack.enter_context(ProxyServer(secure=bool(secure_proxy)))
            yield made.url, f"https://127.0.0.1:{stack.enter_context(mute_listener())}", made.is_left_by_all
        else:
            made = stack.enter_context(ProxyServer(secure=bool(secure_proxy)))
            server = stack.enter_context(Server(answer, secure=True))
            yield made.url, server.url, lambda: made.is_left_by_all() and server.is_left_by_all()


@pytest.mark.parametrize("phase", PHASES)
def test_the_deadline_holds_in(by, phase):
    with waiting_in(phase) as (proxy, url, is_left):
        pipe = by(proxy)
        with taking(SOON), pytest.raises(DeadlineExceeded, match="timeout"):
            pipe.go(lambda: fetch(pipe.transport, url, soon()))
        assert is_left()


@pytest.mark.parametrize("phase", CONNECTING)
def test_the_limit_on_connecting_holds_in(by, phase):
    with waiting_in(phase) as (proxy, url, is_left):
        pipe = by(proxy)
        with taking(SOON), pytest.raises(ConnectError, match=r"within 0\.25 s"):
            pipe.go(lambda: fetch(pipe.transport, url, Line(connect=SOON)))
        assert is_left()


def test_limits_and_aborts_hold_while_a_proxy_does_not_read(by):
    body = bytes(30_000_000)
    with mute_listener() as port:
        pipe = by(f"http://127.0.0.1:{port}")
        with taking(SOON), pytest.raises(DeadlineExceeded, match="timeout"):
            pipe.go(lambda: fetch(pipe.transport, "http://a.example/", soon(), body=body))
        line = Line()
        with Cutter(line.abort).expected():
            pipe.go(lambda: fetch(pipe.transport, "http://a.example/", line, body=body))


def test_silence_behind_a_proxy_has_a_limit(by):
    with Server(hang, secure=True) as server, ProxyServer() as proxy:
        pipe = by(proxy.url)
        with taking(SOON), pytest.raises(DeadlineExceeded, match=r"silent for 0\.25 s"):
            pipe.go(lambda: fetch(pipe.transport, server.url, Line(idle=SOON, connect=5)))


@pytest.mark.parametrize("phase", PHASES)
def test_abort_wakes_who_waits_in(by, phase):
    line = Line()
    with waiting_in(phase) as (proxy, url, is_left):
        pipe = by(proxy)
        with Cutter(line.abort).expected():
            pipe.go(lambda: fetch(pipe.transport, url, line))
        assert is_left()


@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase not in CONNECTING])
def test_closing_the_transport_wakes_who_waits_for(by, phase):
    with waiting_in(phase) as (proxy, url, is_left):
        pipe = by(proxy)
        with Cutter(pipe.transport.close).expected():
            pipe.go(lambda: fetch(pipe.transport, url, in_time()))
        assert is_left()


@pytest.mark.parametrize("phase", PHASES)
def test_a_cancelled_task_leaves_no_connection_in(phase):
    async def main():
        transport = EventfulTransport(Network(client_context(), proxies_of(proxy)))
        task = asyncio.create_task(fetch(transport, url))
        await asyncio.sleep(0.1)
        task.cancel("because")
        start = time.monotonic()
        with pytest.raises(asyncio.CancelledError, match="because"):
            await task
        assert time.monotonic() - start < SLACK
        await asyncio.sleep(0.02)
        assert await asyncio.to_thread(is_left)
        transport.close()

    with waiting_in(phase) as (proxy, url, is_left):
        asyncio.run(main())


def test_leaving_an_answer_early_closes_the_tunnel(by):
    async def scenario():
        reply = await pipe.transport.send(request(server.url), in_time())
        await reply.read_some()
        reply.close()
        await pipe.sleep(0.02)
        assert proxy.is_left_by_all(0.1)
        assert server.is_left_by_all(0.1)
        with pytest.raises(ClosedError):
            await reply.read_some()

    with Server(drip_comments, secure=True) as server, ProxyServer(secure=True) as proxy:
        pipe = by(proxy.url)
        pipe.go(scenario)


# A proxy that others wrote


@pytest.fixture(scope="module")
def others_proxy(tmp_path_factory):
    """Where `proxy.py` listens; it wants the login me:hidden."""
    if find_spec("proxy") is None:
        message = "proxy.py is not installed: pip install proxy.py"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    told = tmp_path_factory.mktemp("proxy") / "port"
    options = ["--hostname", "127.0.0.1", "--port", "0", "--port-file", str(told), "--log-level", "e"]
    options += ["--num-workers", "1", "--num-acceptors", "1", "--basic-auth", "me:hidden"]
    with subprocess.Popen([sys.executable, "-m", "proxy", *options]) as process:
        try:
            assert until(lambda: told.exists() and told.read_text().endswith("\n"), 20), "proxy.py does not start"
            yield f"127.0.0.1:{int(told.read_text())}"
        finally:
            process.terminate()


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_a_call_goes_by_a_proxy_that_others_wrote(by, others_proxy, secure):
    async def thrice():
        for _ in range(3):
            await fetch(pipe.transport, server.url + target, in_time(), body=b"{}")
        return await fetch(pipe.transport, server.url + target, in_time(), body=bytes(3_000_000))

    async def answer(call: Call) -> None:
        call.head("Transfer-Encoding: chunked")
        for start in range(0, len(call.body), 50_000):
            call.chunk(call.body[start : start + 50_000])
        call.chunk(b"")

    target = "/a%3Ab/c?x=%2F&y=a+b"
    pipe = by(f"http://me:hidden@{others_proxy}")
    with Server(answer, secure=secure) as server:
        assert pipe.go(thrice).body == bytes(3_000_000)
    assert {call.target for call in server.calls} == {target}
    # Only of the first: what follows on a connection that it may read it passes on as it is, with our login.
    assert server.calls[0].header("proxy-authorization") is None
    assert (server.calls[0].header("via") is None) == secure


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_others_wrote_wants_another_login(by, others_proxy, scheme):
    pipe = by(f"http://me:wrong@{others_proxy}")
    with pytest.raises(ConnectError, match=f"the proxy http://{others_proxy} wants user and password"):
        pipe.go(lambda: fetch(pipe.transport, f"{scheme}://127.0.0.1:{free_port()}/", in_time()))


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_the_deadline_holds_behind_a_proxy_that_others_wrote(by, others_proxy, secure):
    pipe = by(f"http://me:hidden@{others_proxy}")
    with Server(drip_comments, secure=secure) as server:
        with taking(SOON), pytest.raises(DeadlineExceeded):
            pipe.go(lambda: fetch(pipe.transport, server.url, soon()))
        assert server.is_left_by_all()
