"""What is added from outside, with files of its own and the client's settings alone, works like what is inside.

The files are in outoftree/. They import what is public, and nothing here reaches behind a client either.
"""

from __future__ import annotations

import ast
import json
import logging
import threading
import time
from pathlib import Path

import pytest
from fakes import ChatServer
from outoftree.answer_cache import AnswerCache
from outoftree.markov import Markov
from outoftree.plain_transport import PlainTransport, StreamsTransport
from outoftree.request_log import RequestLog
from outoftree.wsgi_transport import WsgiTransport
from servers import Server, free_port, until, whole

import sabir
from sabir import (
    ClosedError,
    ConnectError,
    DeadlineExceeded,
    RateLimitError,
    SabirError,
    StreamInterrupted,
    ToolCall,
    UnsupportedError,
)
from sabir.testing import RecordHttp, ReplayHttp, Scripted, VirtualClock

FILES = sorted((Path(__file__).parent / "outoftree").glob("*.py"))
# The rooms whose names are for who extends Sabir; docs/extend.md and docs/add-a-dialect.md name them.
PUBLIC = {"deltas", "dialects", "engines", "errors", "model", "requests", "runtime"}
KEY = "sk-the-key-of-this-test"
WHOLE = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "one two"}, "finish_reason": "stop"}]}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_they_import_public_names_only(file):
    imported = [node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
    names = {(node.module or "", alias.name) for node in imported for alias in node.names}
    ours = {(module, name) for module, name in names if module.split(".")[0] == "sabir"}
    assert ours
    for module, name in ours:
        assert name in sabir.__all__ if module == "sabir" else module.removeprefix("sabir.") in PUBLIC
        assert not name.startswith("_")


async def read(stream, seen=None):
    seen = [] if seen is None else seen
    async for chunk in stream:
        seen.append(chunk.content)
    return seen


def shout(word: str) -> str:
    """Say it louder."""
    return word.upper()


def says(body):
    last = body["messages"][-1]
    if body.get("tools") and last["role"] == "user":
        return ToolCall(name="shout", input='{"word": "bodø"}', id="a")
    return f"you said {last['content']}"


# Transports


def plain(surface, address, **settings):
    transport = PlainTransport() if surface.is_blocking else StreamsTransport()
    settings = {"transport": transport, "api_key": KEY, "max_attempts": 1, **settings}
    return surface.client(f"openai:x@{address}/v1", **settings)


async def test_a_transport_carries_calls_streams_and_rounds_of_tools(surface):
    with ChatServer(says) as server:
        client = plain(surface, server.url.removesuffix("/v1"))
        assert (await client.ask("hi")).text == "you said hi"
        assert await read(client.stream("hi", include=["generating"])) == ["you ", "said ", "hi"]
        response = await client.ask("hi", tools=[shout])
        assert response.text == "you said BODØ"
        assert [attempt.outcome for attempt in response.attempts] == ["answered", "answered"]
        assert {asked.headers["authorization"] for asked in server.asked} == {f"Bearer {KEY}"}
        assert await surface.in_thread(lambda: until(lambda: not server.connections, 1))


async def test_a_transport_serves_many_at_once(surface):
    with ChatServer(says) as server:
        client = plain(surface, server.url.removesuffix("/v1"))
        said = await surface.at_once(*[lambda name=name: client.ask(str(name)) for name in range(50)])
    assert [response.text for response in said] == [f"you said {number}" for number in range(50)]


async def test_the_transport_that_was_given_is_the_one_that_is_used(surface, no_network):
    """The address would not even be looked up by it; ours would fail."""
    asked = []

    def app(environ, start_response):
        asked.append((environ["PATH_INFO"], environ["HTTP_HOST"], environ["HTTP_AUTHORIZATION"]))
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(WHOLE).encode()]

    client = surface.client("openai:x", api_key=KEY, transport=WsgiTransport(app))
    assert (await client.ask("?")).text == "one two"
    assert asked == [("/v1/chat/completions", "api.openai.com", f"Bearer {KEY}")]


async def test_an_application_that_fails_is_a_server_that_fails(surface):
    def fails_at_once(environ, start_response):
        raise LookupError("no such table")

    def fails_later(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        yield b'data: {"choices":[{"index":0,"delta":{"content":"one "},"finish_reason":null}]}\n\n'
        raise LookupError("no such table")

    client = surface.client("vllm:x", transport=WsgiTransport(fails_at_once), runtime_wrappers=[VirtualClock()])
    with pytest.raises(ConnectError, match="no such table") as caught:
        await client.ask("?")
    assert len(caught.value.attempts) == 3
    with pytest.raises(StreamInterrupted) as caught:
        await read(surface.client("vllm:x", transport=WsgiTransport(fails_later)).stream("?"))
    assert caught.value.partial.text == "one "


async def test_what_a_server_refuses_is_of_the_family(surface):
    words = {"error": {"message": "slowly"}}
    with ChatServer(lambda body: (429, words), headers={"retry-after": "7"}) as server:
        clock = VirtualClock()
        client = plain(surface, server.url.removesuffix("/v1"), runtime_wrappers=[clock], max_attempts=3)
        with pytest.raises(RateLimitError, match="slowly"):
            await client.ask("?")
    assert clock.slept == [7, 7]
    with pytest.raises(ConnectError):
        await plain(surface, f"http://127.0.0.1:{free_port()}").ask("?")


@pytest.mark.parametrize("how", ["content-length", "chunked", "until it is closed"])
async def test_a_body_is_read_however_it_is_framed(surface, how):
    body = json.dumps(WHOLE).encode()

    async def answer(call):
        if how == "content-length":
            await whole(body)(call)
        elif how == "chunked":
            call.head("Transfer-Encoding: chunked", "Content-Type: application/json")
            for at in range(0, len(body), 7):
                call.chunk(body[at : at + 7])
            call.chunk(b"")
        else:
            call.head()
            call.write(body)
            call.close()

    with Server(answer) as server:
        assert (await plain(surface, server.url).ask("?")).text == "one two"


@pytest.mark.parametrize("how", ["in the head", "content-length", "chunked", "in a chunk"])
async def test_an_answer_that_breaks_off_is_an_error(surface, how):
    async def answer(call):
        if how == "in the head":
            call.write(b"HTTP/1.1 200 OK\r\nContent-")
        elif how == "content-length":
            call.head("Content-Length: 1000")
            call.write(json.dumps(WHOLE).encode())
        else:
            call.head("Transfer-Encoding: chunked")
            call.chunk(json.dumps(WHOLE).encode())
            if how == "in a chunk":
                call.write(b"ff\r\nmore")
        call.close()

    with Server(answer) as server:
        with pytest.raises(ConnectError if how == "in the head" else StreamInterrupted):
            await plain(surface, server.url).ask("?")
        assert await surface.in_thread(server.is_left_by_all)


@pytest.mark.parametrize("limit", ["timeout", "idle_timeout"])
@pytest.mark.parametrize("where", ["before the head", "in the head", "in the body"])
async def test_the_limits_of_a_call_hold(surface, where, limit):
    async def answer(call):
        if where == "in the body":
            call.head("Content-Length: 1000000")
        if limit == "idle_timeout" or where == "before the head":
            await call.forever()
        await call.drip(b"x" if where == "in the body" else b"H", 0.02)

    with Server(answer) as server:
        client = plain(surface, server.url, **{"timeout": None, "idle_timeout": None, limit: 0.2})
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=limit):
            await client.ask("?")
        assert 0.15 <= time.monotonic() - began < 1
        assert await surface.in_thread(server.is_left_by_all)


@pytest.mark.parametrize("where", ["before the head", "in the body"])
async def test_a_call_can_be_cut_from_another_thread(surface, where):
    waits = threading.Event()

    async def answer(call):
        if where == "in the body":
            call.head("Content-Length: 1000000")
            call.write(b"x")
        waits.set()
        await call.forever()

    with Server(answer) as server:
        client = plain(surface, server.url)
        closer = threading.Thread(target=lambda: waits.wait(10) and client.close())
        closer.start()
        with pytest.raises(ClosedError):
            await client.ask("?")
        closer.join()
        assert await surface.in_thread(server.is_left_by_all)


async def test_a_stream_that_is_left_closes_its_connection(surface):
    with ChatServer(lambda body: "one two three", pause=0.05) as server:
        async with plain(surface, server.url.removesuffix("/v1")).stream("?") as stream:
            assert (await anext(aiter(stream))).content == "one "
        assert await surface.in_thread(lambda: until(lambda: not server.connections, 1))


# An engine

TEXT = "a stream is a river and a river is a stream of words"


async def test_an_engine_answers_like_any_model(surface):
    client = surface.client(Markov(TEXT))
    response = await client.ask("look at the river", seed=1, max_tokens=5)
    assert response.text.split()[0] in ("and", "is")
    assert len(response.text.split()) == 5
    assert (response.finish_reason, response.usage.output_tokens, response.model) == ("length", 5, "markov")
    stream = client.stream("look at the river", seed=1, max_tokens=5, include=["generating"])
    assert "".join(await read(stream)) == response.text == stream.response.text
    assert (await client.ask("of")).text == "words"
    assert (await client.ask("no such word is here: bodø")).finish_reason == "stop"


async def test_an_engine_refuses_what_it_cannot_do(surface):
    client = surface.client(Markov(TEXT))
    for options in ({"temperature": 0.0}, {"tools": [shout]}, {"schema": {"type": "object"}}, {"extra": {"a": 1}}):
        with pytest.raises(UnsupportedError, match="knows no options but seed and max_tokens"):
            await client.ask("river", **options)


async def test_an_engine_is_cut_and_keeps_the_deadline(surface):
    """Words that lead back to themselves never end."""
    clock = VirtualClock()
    client = surface.client(Markov("on and on and on"), runtime_wrappers=[clock], timeout=10)
    stream = client.stream("on")
    seen = [(await anext(aiter(stream))).content for _ in range(50)]
    assert "".join(seen).startswith("and on and on")
    clock.advance(10)
    with pytest.raises(DeadlineExceeded, match="timeout") as caught:
        await read(stream)
    assert caught.value.partial.text.startswith("".join(seen))
    stream = client.stream("on")
    await anext(aiter(stream))
    stream.close()
    with pytest.raises(ClosedError):
        await read(stream)


# Wrappers


async def test_a_log_tells_each_request_and_no_key(surface, caplog):
    caplog.set_level(logging.INFO)
    with ChatServer(says) as server:
        settings = {"api_key": KEY, "max_attempts": 1, "runtime_wrappers": [VirtualClock(), RequestLog]}
        client = surface.client(f"openai:x@{server.url}", **settings)
        await client.ask("hi", tools=[shout])
        server.answer = lambda body: (500, {"error": {"message": KEY}})
        with pytest.raises(SabirError):
            await client.ask("hi")
    with pytest.raises(ConnectError):
        await surface.client(f"openai:x@http://127.0.0.1:{free_port()}", **settings).ask("hi")
    lines = [record.getMessage() for record in caplog.records if record.name == "outoftree.request_log"]
    answered = f"POST {server.url}/chat/completions: 200 after 0.000 s"
    assert lines[:3] == [answered, answered, answered.replace("200", "500")]
    assert lines[3].endswith("/chat/completions: ConnectError")
    assert KEY not in caplog.text


async def test_a_cache_answers_what_was_asked_before(surface):
    cache = AnswerCache()
    with ChatServer(says) as server:
        client = surface.client(f"vllm:x@{server.url}", model_wrappers=[cache])
        first = await client.ask("hi")
        assert (await client.ask("hi")).message == first.message
        assert "".join(await read(client.stream("hi"))) == "you said hi"
        assert len(server.asked) == 1
        await client.ask("hi", temperature=0.5)
        await client.ask("hi", tools=[shout])
        await client.ask("hi", tools=[shout])
        assert len(server.asked) == 4
        other = surface.client(f"vllm:x@{server.url}", model_wrappers=[cache])
        assert (await other.ask("hi")).usage == first.usage
        assert len(server.asked) == 4


async def test_a_cache_keeps_no_part_of_an_answer(surface):
    cache = AnswerCache()
    script = Scripted("one two", sabir.EngineError("down"), "three four")
    client = surface.client(script, model_wrappers=[cache])
    async with client.stream("?") as stream:
        assert (await anext(aiter(stream))).content == "one "
    with pytest.raises(sabir.EngineError):
        await client.ask("?")
    assert cache.answers == {}
    assert (await client.ask("?")).text == "three four"
    assert (await client.ask("?")).text == "three four"
    script.assert_done()


async def test_all_of_them_stand_around_one_client(surface, tmp_path, caplog):
    """One's own transport and wrappers, with those that come with the library between them."""
    caplog.set_level(logging.INFO)
    cache = AnswerCache()
    with ChatServer(says) as server:
        wrappers = [RecordHttp(tmp_path / "one.jsonl"), RequestLog]
        settings = {"runtime_wrappers": wrappers, "model_wrappers": [cache]}
        client = plain(surface, server.url.removesuffix("/v1"), **settings)
        first = [(await client.ask("hi")).text, (await client.ask("hi")).text]
    assert first == ["you said hi"] * 2
    with ReplayHttp(tmp_path / "one.jsonl") as player:
        replaying = plain(surface, server.url.removesuffix("/v1"), runtime_wrappers=[player])
        assert (await replaying.ask("hi")).text == "you said hi"
    assert sum("200 after" in record.getMessage() for record in caplog.records) == 1
