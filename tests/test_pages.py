"""A page for people is no answer of an API, and what is labelled as one may be an answer all the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from servers import Answer, Call, Server, whole

from sabir import ServerError, StreamInterrupted
from sabir.pages import MOST_SHOWN
from sabir.probing import probe

PAGE = b"\n<!DOCTYPE html><html><head><title>Sign in</title></head><body>to this Wi-Fi</body></html>"
HTML, PLAIN = "Content-Type: text/html; charset=utf-8", "Content-Type: text/plain"
CHOICE: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
ANSWER = json.dumps({"choices": [{**CHOICE, "message": {"role": "assistant", "content": "Hi"}}]}).encode()
EVENTS = b'data: {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


async def read(stream: Any) -> str:
    return "".join([chunk.content async for chunk in stream if chunk.is_text()])


def dripped(body: bytes, *lines: str) -> Answer:
    async def answer(call: Call) -> None:
        call.head("Transfer-Encoding: chunked", *lines)
        for byte in body:
            call.chunk(bytes([byte]))
        call.chunk(b"")

    return answer


ASKED = {
    "ask": lambda client: client.ask("?"),
    "stream": lambda client: read(client.stream("?")),
    "complete": lambda client: client.raw_complete("?"),
    "embed": lambda client: client.embed("?"),
    "speak": lambda client: client.speak("?", voice="alloy"),
}


@pytest.mark.parametrize("how", ASKED)
@pytest.mark.parametrize("lines", [(HTML,), (PLAIN,), ()], ids=["html", "plain", "no label"])
async def test_a_page_is_told_to_be_one(surface, how, lines):
    with Server(whole(PAGE, *lines)) as server:
        client = surface.client(f"openai-compat:m@{server.url}/v2", max_attempts=1)
        with pytest.raises(ServerError) as caught:
            await ASKED[how](client)
    error = caught.value
    assert str(error).startswith(f"{server.url}/v2/")
    assert "answered with a page (HTML) that begins with 'Sign in to this Wi-Fi'" in str(error)
    assert "(HTTP 200); check base_url" in str(error)
    assert (error.status, error.body) == (200, PAGE.decode())


def test_a_page_is_told_to_whoever_probes_it():
    with Server(whole(PAGE, HTML)) as server, pytest.raises(ServerError, match=r"a page \(HTML\) that begins with"):
        probe(server.url, "m")


@pytest.mark.parametrize("how", ["ask", "stream"])
async def test_a_page_that_drips_is_one_and_its_beginning_is_enough(surface, how):
    long = PAGE + b"<p>" * MOST_SHOWN
    with Server(dripped(PAGE, HTML)) as server:
        client = surface.client(f"openai-compat:m@{server.url}", max_attempts=1)
        with pytest.raises(ServerError, match=r"a page \(HTML\) that begins with 'Sign in"):
            await ASKED[how](client)
        server.answer = whole(long, HTML)
        with pytest.raises(ServerError) as caught:
            await ASKED[how](client)
    assert caught.value.body == long[:MOST_SHOWN].decode()


@pytest.mark.parametrize("line", [HTML, PLAIN, "X-Label: none"])
@pytest.mark.parametrize("answered", [whole, dripped])
async def test_what_is_only_labelled_as_a_page_is_an_answer(surface, line, answered):
    with Server(answered(ANSWER, line)) as server:
        client = surface.client(f"openai-compat:m@{server.url}", max_attempts=1)
        assert (await client.ask("?")).text == "Hi"
        server.answer = answered(EVENTS, line)
        assert await read(client.stream("?")) == "Hi"
        server.answer = answered(b"\n\n: <p>\n\n" + EVENTS, line)
        assert await read(client.stream("?")) == "Hi"


@pytest.mark.parametrize(
    ("body", "words"), [(b"", "nothing came"), (b"Hello, world", "what came begins with 'Hello, world'")]
)
async def test_a_stream_that_was_none_says_what_came_instead(surface, body, words):
    with Server(whole(body, "Content-Type: text/event-stream", status="202 Accepted")) as server:
        client = surface.client(f"openai-compat:m@{server.url}", max_attempts=1)
        with pytest.raises(StreamInterrupted) as caught:
            await read(client.stream("?"))
    assert str(caught.value) == f"the stream ended before the answer did; {words} (HTTP 202)"
    assert (caught.value.status, caught.value.body) == (202, body.decode())


@pytest.mark.parametrize("how", ["ask", "complete", "embed"])
async def test_an_empty_answer_is_told_with_its_own_status(surface, how):
    with Server(whole(b"", "Content-Type: application/json", status="202 Accepted")) as server:
        client = surface.client(f"openai-compat:m@{server.url}", max_attempts=1)
        with pytest.raises(ServerError, match="the answer is no JSON: it is empty") as caught:
            await ASKED[how](client)
    assert caught.value.status == 202
