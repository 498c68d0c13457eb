"""The network as a client is told of it, and what a server may do to it: proxies, certificates, compression, redirects.

Every `async def` test runs on all surfaces, with real servers and proxies on loopback.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import ssl
import subprocess
import sys
import textwrap
import traceback
import zlib
from itertools import pairwise

import pytest
import truststore
from chats import answer as whole_answer
from chats import events
from hypothesis import given
from hypothesis import strategies as st
from proxies import ProxyServer
from servers import Call, Gate, Server, authority, client_context, free_port, whole

import sabir
from sabir import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ConnectError,
    StreamInterrupted,
    StreamProtocolError,
)
from sabir.compression import PIECE_SIZE, decompressed
from sabir.runtime import run
from sabir.testing import Scripted
from sabir.transports import network_of, ssl_context

KEY = "sk-not-for-others"
MODEL = "openai-chat:loopback"
ANSWER = whole_answer("Hello there!")
SAID = whole(ANSWER, "Content-Type: application/json")


def settings(server, **more):
    return {"base_url": f"{server.url}/v1", "api_key": KEY, "timeout": 20, **more}


# Proxies


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def test_the_environment_is_read_when_the_client_is_made(surface, monkeypatch):
    with Server(SAID) as server, ProxyServer(routes={"model.invalid": server.port}) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with_proxy = surface.client(MODEL, base_url="http://model.invalid/v1", api_key=KEY)
        monkeypatch.delenv("HTTP_PROXY")
        without = surface.client(MODEL, base_url="http://model.invalid/v1", api_key=KEY, max_attempts=1)
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert str(await with_proxy.ask("Hi")) == "Hello there!"
        assert [asked.target for asked in proxy.asked] == ["http://model.invalid/v1/chat/completions"]
        with pytest.raises(ConnectError, match=r"cannot find the host of model\.invalid"):
            await without.ask("Hi")
        assert len(proxy.asked) == 1


@pytest.mark.parametrize(("proxy_setting", "no_proxy"), [(False, ""), (None, ".invalid")])
async def test_a_client_may_go_without_the_proxy_of_the_environment(surface, monkeypatch, proxy_setting, no_proxy):
    with ProxyServer() as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", no_proxy)
        alone = {"max_attempts": 1, "proxy": proxy_setting}
        client = surface.client(MODEL, base_url="http://model.invalid/v1", api_key=KEY, **alone)
        with pytest.raises(ConnectError, match=r"cannot find the host of model\.invalid"):
            await client.ask("Hi")
        assert not proxy.asked


async def test_servers_of_this_machine_are_asked_without_the_proxy_of_the_environment(surface, monkeypatch):
    with Server(SAID) as server, ProxyServer() as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        assert str(await surface.client(MODEL, **settings(server)).ask("Hi")) == "Hello there!"
        assert not proxy.asked


async def test_no_key_is_told_to_the_proxy_of_an_encrypted_call(surface):
    with Server(SAID, secure=True) as server, ProxyServer(login="me:hidden") as proxy:
        network = {"proxy": proxy.url_for("me:hidden"), "ssl_context": client_context()}
        client = surface.client(MODEL, **settings(server, **network))
        assert str(await client.ask("Hi")) == "Hello there!"
        assert [asked.method for asked in proxy.asked] == ["CONNECT"]
        assert KEY.encode() not in proxy.heard
    assert server.calls[0].header("authorization") == f"Bearer {KEY}"
    assert server.calls[0].header("proxy-authorization") is None


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
async def test_a_refused_login_is_an_error_at_once_and_is_shown_nowhere(surface, secure, caplog):
    caplog.set_level(logging.DEBUG)
    with Server(SAID, secure=secure) as server, ProxyServer(login="me:hidden") as proxy:
        network = {"proxy": proxy.url_for("me:wr0ng"), "ssl_context": client_context()}
        client = surface.client(MODEL, **settings(server, **network))
        with pytest.raises(ConnectError, match=f"the proxy {proxy.url} wants user and password") as caught:
            await client.ask("Hi")
        assert len(proxy.asked) == 1
    assert [(attempt.outcome, attempt.status) for attempt in caught.value.attempts] == [("ConnectError", 407)]
    shown = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value)) + caplog.text
    assert "wr0ng" not in shown
    assert "bWU6d3IwbmC" not in shown


async def test_a_server_that_the_proxy_cannot_reach_is_tried_again(surface):
    with ProxyServer() as proxy:
        url = f"https://127.0.0.1:{free_port()}/v1"
        client = surface.client(MODEL, base_url=url, api_key=KEY, proxy=proxy.url, max_attempts=2)
        with pytest.raises(ConnectError, match="made no connection") as caught:
            await client.ask("Hi")
        assert len(proxy.asked) == 2
    assert [attempt.status for attempt in caught.value.attempts] == [502, 502]


async def test_who_needs_no_proxy_may_have_an_odd_one_in_the_environment(surface, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "ftp://me:hidden@proxy")
    with Scripted("Hello!") as script:
        assert str(await surface.client(script).ask("Hi")) == "Hello!"
    client = surface.client(MODEL, base_url="https://model.invalid/v1", api_key=KEY)
    with pytest.raises(ConfigurationError, match="ALL_PROXY is no address of a proxy"):
        await client.ask("Hi")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"proxy": "ftp://me:hidden@proxy"}, "proxy= is no address of a proxy"),
        ({"proxy": True}, "proxy is the URL of a proxy"),
        ({"ssl_context": "system"}, "ssl_context is an ssl.SSLContext, not str"),
        ({"ca_file": 3}, "ca_file is the path of a PEM file, not int"),
        ({"ca_file": "ca.pem", "ssl_context": ssl.create_default_context()}, "ssl_context= or ca_file="),
        ({"proxy": "http://p:1", "transport": Scripted()}, "proxy= has no effect"),
        ({"ca_file": "ca.pem", "transport": Scripted()}, "ca_file= has no effect"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_a_setting_that_cannot_work_is_told_when_the_client_is_made(wrong, message):
    for make in (sabir.Client, sabir.aio.Client):
        with pytest.raises(ConfigurationError, match=message) as caught:
            make(MODEL, api_key=KEY, base_url="http://127.0.0.1/v1", **wrong)
        assert "hidden" not in str(caught.value)


# Certificates


@pytest.fixture
def ca_file(tmp_path):
    path = tmp_path / "ca.pem"
    authority().cert_pem.write_to_path(path)
    return path


@pytest.mark.parametrize("kind", [str, lambda path: path], ids=["text", "path"])
async def test_a_ca_file_is_trusted_beside_the_systems(surface, ca_file, kind):
    with Server(SAID, secure=True) as server:
        client = surface.client(MODEL, **settings(server, ca_file=kind(ca_file)))
        assert str(await client.ask("Hi")) == "Hello there!"
        untrusting = surface.client(MODEL, **settings(server))
        with pytest.raises(ConnectError, match=r"is not trusted .* pass ca_file=") as caught:
            await untrusting.ask("Hi")
        assert len(server.calls) == len(caught.value.attempts) == 1
    trusted = network_of(None, ca_file=kind(ca_file)).context.cert_store_stats()["x509_ca"]
    assert trusted == ssl_context().cert_store_stats()["x509_ca"] + 1


async def test_a_ca_file_is_for_the_proxy_too(surface, ca_file):
    with Server(SAID, secure=True) as server, ProxyServer(secure=True) as proxy:
        client = surface.client(MODEL, **settings(server, ca_file=ca_file, proxy=proxy.url))
        assert str(await client.ask("Hi")) == "Hello there!"
        assert len(proxy.asked) == 1


@pytest.mark.parametrize("content", [None, b"", b"no certificate", "a folder"])
def test_a_ca_file_that_cannot_be_used_says_what_to_do(tmp_path, content):
    path = tmp_path / "ca.pem"
    if isinstance(content, str):
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="PEM format") as caught:
        sabir.Client(MODEL, api_key=KEY, ca_file=path)
    assert str(path) in str(caught.value)


def state_of(context):
    classes = context.sslsocket_class, context.sslobject_class
    return *classes, context.verify_mode, context.check_hostname, context.options, context.verify_flags


class Watched(ssl.SSLSocket):
    """What a caller makes of the connections of his own context, elsewhere."""


@pytest.mark.parametrize("kind", [ssl.SSLSocket, Watched])
async def test_a_given_context_is_used_and_left_as_it_was(surface, kind):
    context = ssl.create_default_context()
    authority().configure_trust(context)
    context.sslsocket_class = kind
    before = state_of(context)
    with Server(SAID, secure=True) as server, ProxyServer() as proxy:
        for more in ({}, {"proxy": proxy.url}):
            client = surface.client(MODEL, **settings(server, ssl_context=context, **more))
            assert str(await client.ask("Hi")) == "Hello there!"
    assert state_of(context) == before


async def test_a_context_that_asks_the_system_itself_will_do(surface):
    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with Server(SAID, secure=True) as server:
        untrusting = surface.client(MODEL, **settings(server, ssl_context=context))
        with pytest.raises(ConnectError, match="is not trusted"):
            await untrusting.ask("Hi")
        context.load_verify_locations(cadata=authority().cert_pem.bytes().decode())
        client = surface.client(MODEL, **settings(server, ssl_context=context))
        if sys.platform == "linux":
            assert str(await client.ask("Hi")) == "Hello there!"


async def test_a_certificate_of_our_own_proves_who_we_are(surface):
    ours = ssl.create_default_context()
    authority().configure_trust(ours)
    authority().issue_cert("client.example").configure_cert(ours)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("127.0.0.1").configure_cert(context)
    authority().configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    with Server(SAID, secure=context) as server:
        assert str(await surface.client(MODEL, **settings(server, ssl_context=ours)).ask("Hi")) == "Hello there!"
        stranger = surface.client(MODEL, **settings(server, ssl_context=client_context(), max_attempts=1))
        with pytest.raises(ConnectError):
            await stranger.ask("Hi")
        assert len(server.calls) == 1


def test_the_systems_contexts_offer_http_1_and_nothing_else(ca_file):
    for context in (ssl_context(), network_of(None, ca_file=ca_file).context):
        assert agreed(context, ["h2", "http/1.1"]) == "http/1.1"


def agreed(context, offered):
    """The protocol that a client with this context and a server agree on."""
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("a.example").configure_cert(theirs)
    theirs.set_alpn_protocols(offered)
    to_us, to_them = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_us, to_them, server_hostname="a.example")
    server = theirs.wrap_bio(to_them, to_us, server_side=True)
    for side in (client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLError:
            pass
    return server.selected_alpn_protocol()


ASK_TWICE = """
    import asyncio, sys
    import sabir

    url, key = sys.argv[1:]
    with sabir.Client("openai-chat:loopback", base_url=url, api_key=key) as client:
        print(client.ask("Hi"))

    async def main():
        async with sabir.aio.Client("openai-chat:loopback", base_url=url, api_key=key) as client:
            print(await client.ask("Hi"))

    asyncio.run(main())
"""


def test_openssls_own_variables_name_the_systems_certificates(ca_file):
    with Server(SAID, secure=True) as server:
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(ASK_TWICE), server.url, KEY],
            env={**os.environ, "SSL_CERT_FILE": str(ca_file)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.stdout.split("\n")[:2], done.stderr) == (["Hello there!"] * 2, "")


# Compression


class Pieces:
    """A reply of pieces that are there already."""

    def __init__(self, pieces, encoding):
        self.status = 200
        self.headers = {} if encoding is None else {"content-encoding": encoding}
        self.is_closed = False
        self._pieces = iter(pieces)

    async def read_some(self):
        return next(self._pieces, b"")

    def close(self):
        self.is_closed = True


def unpacked(pieces, encoding="gzip"):
    async def read():
        reply = decompressed(Pieces(pieces, encoding))
        found = []
        while data := await reply.read_some():
            found.append(data)
        return found

    return run(read)


@given(
    texts=st.lists(st.binary(max_size=300), min_size=1, max_size=3),
    cuts=st.lists(st.integers(0, 400)),
    pack=st.sampled_from([(gzip.compress, "gzip"), (gzip.compress, " X-GZIP "), (zlib.compress, "deflate")]),
)
def test_any_cut_of_a_compressed_answer_is_undone(texts, cuts, pack):
    compress, encoding = pack
    packed = b"".join(compress(text) for text in texts)
    edges = [0, *sorted(min(cut, len(packed)) for cut in cuts), len(packed)]
    pieces = [packed[a:b] for a, b in pairwise(edges) if a < b]
    assert b"".join(unpacked(pieces, encoding)) == b"".join(texts)


@pytest.mark.parametrize("encoding", [None, "", "identity", " Identity "])
def test_an_answer_that_is_not_compressed_is_handed_on_as_it_is(encoding):
    reply = Pieces([b"a"], encoding)
    assert decompressed(reply) is reply


def test_an_answer_without_a_body_may_say_that_it_is_compressed():
    assert unpacked([]) == []


def test_a_bomb_is_taken_apart_piece_by_piece():
    async def sizes():
        reply = decompressed(Pieces([bomb], "gzip"))
        while data := await reply.read_some():
            found.append(len(data))

    found: list[int] = []
    bomb = gzip.compress(bytes(100_000_000), 9)
    run(sizes)
    assert sum(found) == 100_000_000
    assert max(found) <= PIECE_SIZE


@pytest.mark.parametrize("keep", [1, 12, -9, -1])
def test_a_compressed_answer_that_ends_early_is_interrupted(keep):
    with pytest.raises(StreamInterrupted, match="gzip"):
        unpacked([gzip.compress(bytes(1000) + os.urandom(1000))[:keep]])


@pytest.mark.parametrize("body", [b"plain text", b"\x1f\x8b\x08\x00nonsense, all of it", b"{}"])
def test_what_is_not_compressed_as_it_says_is_no_answer(body):
    with pytest.raises(StreamProtocolError, match="says it is gzip, and is not"):
        unpacked([body])


def compressed(pieces, encoding, content_type, gates=()):
    """Each piece is flushed, as servers do with events; before each but the first a gate has to be opened."""

    async def answer(call: Call) -> None:
        packer = zlib.compressobj(wbits=31 if encoding == "gzip" else 15)
        call.head("Transfer-Encoding: chunked", f"Content-Type: {content_type}", f"Content-Encoding: {encoding}")
        for number, piece in enumerate(pieces):
            if number and gates:
                await gates[number - 1].passed()
            call.chunk(packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH))
        call.chunk(packer.flush())
        call.chunk(b"")

    return answer


ANTHROPIC = {
    "id": "1",
    "type": "message",
    "role": "assistant",
    "model": "loopback",
    "content": [{"type": "text", "text": "Hello there!"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 7, "output_tokens": 3},
}


def anthropic_events():
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    said = [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}} for text in SAYS]
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}}
    every = [{"type": "message_start", "message": {**ANTHROPIC, "content": [], "stop_reason": None}}, block, *said]
    every += [{"type": "content_block_stop", "index": 0}, end, {"type": "message_stop"}]
    return [f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in every]


SAYS = ["Hello ", "there!"]
FORMATS = {
    "openai-chat": (ANSWER, list(events("Hello there!"))),
    "anthropic": (json.dumps(ANTHROPIC).encode(), anthropic_events()),
}
each_format = pytest.mark.parametrize("provider", FORMATS)


@each_format
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("headers", [{}, {"accept-encoding": "gzip"}], ids=["unasked", "asked"])
async def test_an_answer_that_comes_compressed_is_undone(surface, provider, encoding, headers):
    body, stream = FORMATS[provider]
    with Server(compressed([body], encoding, "application/json")) as server:
        client = surface.client(f"{provider}:loopback", **settings(server, headers=headers))
        assert str(await client.ask("Hi")) == "Hello there!"
        server.answer = compressed(stream, encoding, "text/event-stream")
        shown = [chunk.content async for chunk in client.stream("Hi", include=["generating"])]
        assert shown == SAYS
        assert server.accepted == 1
    assert {call.header("accept-encoding") for call in server.calls} == {headers.get("accept-encoding", "identity")}


@each_format
async def test_a_compressed_event_is_shown_before_the_next_is_sent(surface, provider):
    stream = FORMATS[provider][1]
    gates = [Gate() for _ in stream[1:]]
    with Server(compressed(stream, "gzip", "text/event-stream", gates)) as server:
        shown = []
        client = surface.client(f"{provider}:loopback", **settings(server, headers={"accept-encoding": "gzip"}))
        for gate in gates[: 0 if provider == "openai-chat" else 2]:
            gate.open()
        async for chunk in client.stream("Hi", include=["generating"]):
            shown.append(chunk.content)
            for gate in gates:
                gate.open()
    assert shown == SAYS


@each_format
async def test_a_compressed_stream_that_breaks_off_is_interrupted(surface, provider):
    async def answer(call: Call) -> None:
        packer = zlib.compressobj(wbits=31)
        call.head("Transfer-Encoding: chunked", "Content-Type: text/event-stream", "Content-Encoding: gzip")
        first = FORMATS[provider][1][: 1 if provider == "openai-chat" else 3]
        call.chunk(packer.compress(b"".join(first)) + packer.flush(zlib.Z_SYNC_FLUSH))
        call.chunk(b"")

    with Server(answer) as server:
        client = surface.client(f"{provider}:loopback", **settings(server, max_attempts=1))
        with pytest.raises(StreamInterrupted) as caught:
            [chunk async for chunk in client.stream("Hi")]
    assert caught.value.partial.text == "Hello "


@each_format
async def test_a_compression_that_is_not_known_is_refused_by_name(surface, provider):
    answer = whole(b"\x0b\x02\x80", "Content-Type: application/json", "Content-Encoding: br")
    with Server(answer) as server:
        client = surface.client(f"{provider}:loopback", **settings(server))
        with pytest.raises(StreamProtocolError, match=r"compressed \('br'\).*accept-encoding"):
            await client.ask("Hi")
        with pytest.raises(StreamProtocolError, match=r"compressed \('br'\)"):
            [chunk async for chunk in client.stream("Hi")]
        assert len(server.calls) == 2
        assert await surface.in_thread(server.is_left_by_all)


async def test_an_error_that_comes_compressed_is_read(surface):
    body = gzip.compress(json.dumps({"error": {"message": f"wrong key {KEY}", "code": "bad_key"}}).encode())
    answer = whole(body, "Content-Type: application/json", "Content-Encoding: gzip", status="401 Unauthorized")
    with Server(answer) as server, pytest.raises(AuthenticationError, match=r"wrong key \*\*\*") as caught:
        await surface.client(MODEL, **settings(server)).ask("Hi")
    assert caught.value.code == "bad_key"
    assert KEY not in repr(vars(caught.value))


# Redirects, cookies, lost connections


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["another host", "another port", "the same server"])
async def test_a_redirect_is_never_followed_and_no_key_leaves(surface, status, where):
    with Server(SAID) as other, Server(SAID) as server:
        url = {
            "another host": f"http://localhost:{other.port}/v1/chat/completions",
            "another port": f"{other.url}/v1/chat/completions",
            "the same server": f"{server.url}/v2/chat/completions",
        }[where]
        server.answer = whole(b"", f"Location: {url}", status=f"{status} Elsewhere")
        client = surface.client(MODEL, **settings(server))
        for ask in (client.ask("Hi"), read(client.stream("Hi"))):
            with pytest.raises(BadRequestError, match=r"redirect.*base_url") as caught:
                await ask
            assert caught.value.status == status
        assert (other.accepted, len(server.calls)) == (0, 2)


async def read(stream):
    return [chunk async for chunk in stream]


async def test_a_cookie_is_not_sent_back(surface):
    answer = whole(ANSWER, "Content-Type: application/json", "Set-Cookie: session=1; Path=/")
    with Server(answer) as server:
        client = surface.client(MODEL, **settings(server))
        await client.ask("Hi")
        await client.ask("Hi")
    assert [call.header("cookie") for call in server.calls] == [None, None]


@pytest.mark.parametrize("hang_up", [Call.close, Call.reset], ids=["closed", "reset"])
async def test_a_kept_connection_that_is_lost_under_a_request_counts_as_an_attempt(surface, hang_up):
    async def lost(call: Call) -> None:
        server.answer = SAID
        hang_up(call)

    with Server(SAID) as server:
        client = surface.client(MODEL, **settings(server))
        assert len((await client.ask("Hi")).attempts) == 1
        server.answer = lost
        response = await client.ask("Hi")
        assert [attempt.outcome for attempt in response.attempts] == ["ConnectError", "answered"]
        server.answer = lost
        single = surface.client(MODEL, **settings(server, max_attempts=1))
        with pytest.raises(ConnectError) as caught:
            await single.ask("Hi")
        assert len(caught.value.attempts) == 1
    assert len(server.calls) == 4


async def test_a_connection_that_was_closed_while_idle_costs_no_attempt(surface):
    async def answer(call: Call) -> None:
        await SAID(call)
        call.close()

    with Server(answer) as server:
        client = surface.client(MODEL, **settings(server))
        for _ in range(3):
            assert len((await client.ask("Hi")).attempts) == 1
            assert await surface.in_thread(server.is_left_by_all)
    assert server.accepted == 3
