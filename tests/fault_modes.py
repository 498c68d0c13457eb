"""The ways in which a provider can fail, as answers for `servers.Server`, in both formats; and what is due then.

They are those of the comparison in docs/reliability.md, and some more. `python benchmarks/faults.py` runs them and
prints what came of each.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

from servers import Answer, Call

import sabir

WORDS = ("One ", "two ", "three ", "four ", "five ", "six.")
TEXT = "".join(WORDS)
BEFORE_THE_FAULT = 5
# A wait that the server asks for; and the deadline where a fault is one of time.
RETRY_AFTER = 1.0
TIMEOUT = 0.7


class Wire:
    """One format, as a server speaks it."""

    def __init__(self, model: str, path: str) -> None:
        self.model = model
        self.path = path

    def whole(self) -> bytes:
        return _bytes(self.answer())

    def events(self) -> list[bytes]:
        return [_event(item) for item in self.items()]

    def answer(self) -> dict[str, Any]:
        raise NotImplementedError

    def items(self) -> Iterator[dict[str, Any]]:
        raise NotImplementedError

    def error(self, kind: str) -> bytes:
        return _bytes({"type": "error", "error": {"type": kind, "message": "the server has a bad day"}})


class OpenAI(Wire):
    def answer(self) -> dict[str, Any]:
        choice = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
        return {"id": "1", "object": "chat.completion", "model": "m", "choices": [choice]}

    def items(self) -> Iterator[dict[str, Any]]:
        deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in WORDS)]
        for delta in deltas:
            yield {"id": "1", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        yield {"id": "1", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}

    def events(self) -> list[bytes]:
        return [*super().events(), b"data: [DONE]\n\n"]


class Anthropic(Wire):
    def answer(self) -> dict[str, Any]:
        usage = {"input_tokens": 7, "output_tokens": 6}
        head = {"id": "1", "type": "message", "role": "assistant", "model": "m"}
        return {**head, "content": [{"type": "text", "text": TEXT}], "stop_reason": "end_turn", "usage": usage}

    def items(self) -> Iterator[dict[str, Any]]:
        yield {"type": "message_start", "message": {**self.answer(), "content": [], "stop_reason": None}}
        yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        for word in WORDS:
            yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
        yield {"type": "content_block_stop", "index": 0}
        yield {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 6}}
        yield {"type": "message_stop"}


WIRES = {"openai": OpenAI("openai-chat:m", "/v1"), "anthropic": Anthropic("anthropic:m", "")}

# What a server does: with the format, the call and how many came before it.
Behave = Callable[[Wire, Call, int], Awaitable[None]]


class Fault(NamedTuple):
    """A fault, and what a client is to make of it: the whole text (None), or an error after so many requests."""

    what: str
    behave: Behave
    error: type[sabir.SabirError] | None = None
    requests: int = 1
    is_stream: bool = False
    timeout: float | None = None
    waits: float = 0.0
    deltas: int = 0

    def server(self, wire: Wire) -> Answer:
        calls: list[Call] = []

        async def answer(call: Call) -> None:
            calls.append(call)
            await self.behave(wire, call, len(calls) - 1)

        return answer


async def well(wire: Wire, call: Call, _: int = 0) -> None:
    if b'"stream":true' in call.body.replace(b" ", b""):
        stream(call, wire.events())
        call.chunk(b"")
    else:
        reply(call, wire.whole())


def reply(call: Call, body: bytes, status: str = "200 OK", *lines: str, kind: str = "application/json") -> None:
    call.head(f"Content-Type: {kind}", f"Content-Length: {len(body)}", *lines, status=status)
    call.write(body)


def stream(call: Call, events: list[bytes]) -> None:
    call.head("Content-Type: text/event-stream", "Transfer-Encoding: chunked")
    for event in events:
        call.chunk(event)


def refused(status: str, *lines: str, times: int | None = None, kind: str = "server_error") -> Behave:
    """So many times an error (None: always), then an answer."""

    async def behave(wire: Wire, call: Call, before: int) -> None:
        if times is None or before < times:
            reply(call, wire.error(kind), status, *lines)
        else:
            await well(wire, call)

    return behave


async def dropped_once(wire: Wire, call: Call, before: int) -> None:
    if before:
        await well(wire, call)
    else:
        call.reset()


async def silent(wire: Wire, call: Call, _: int) -> None:
    await call.forever()


def body_of(make: Callable[[Wire], bytes], kind: str = "application/json") -> Behave:
    async def behave(wire: Wire, call: Call, _: int) -> None:
        reply(call, make(wire), kind=kind)

    return behave


def begun(end: Callable[[Wire, Call], Awaitable[None]]) -> Behave:
    """A stream that begins well."""

    async def behave(wire: Wire, call: Call, _: int) -> None:
        events = wire.events()
        first = next(n for n, event in enumerate(events) if WORDS[0].encode() in event)
        stream(call, events[: first + BEFORE_THE_FAULT])
        await asyncio.sleep(0.01)
        await end(wire, call)

    return behave


async def _stalls(wire: Wire, call: Call) -> None:
    await call.forever()


async def _drips(wire: Wire, call: Call) -> None:
    while True:
        call.chunk(b": still there\n\n")
        await asyncio.sleep(0.05)


async def _is_cut(wire: Wire, call: Call) -> None:
    call.close()


async def _is_reset(wire: Wire, call: Call) -> None:
    call.reset()


async def _is_cut_in_a_line(wire: Wire, call: Call) -> None:
    call.chunk(wire.events()[-3][:-9])
    call.close()


async def _ends_without_an_end(wire: Wire, call: Call) -> None:
    call.chunk(b"")


async def _says_nonsense(wire: Wire, call: Call) -> None:
    call.chunk(b"data: {not json at all\n\n")
    for event in wire.events()[-3:]:
        call.chunk(event)
    call.chunk(b"")


async def _tells_an_error(wire: Wire, call: Call) -> None:
    call.chunk(b"event: error\ndata: " + wire.error("overloaded_error") + b"\n\n")
    call.chunk(b"")


async def _ends_without_its_marker(wire: Wire, call: Call, _: int) -> None:
    stream(call, wire.events()[:-1])
    call.chunk(b"")


async def _drips_headers(wire: Wire, call: Call, _: int) -> None:
    call.write(b"HTTP/1.1 200 OK\r\n")
    await call.drip(b"X-More: y\r\n")


HTML = b"<html><body><h1>Bad gateway</h1></body></html>"
WAIT = f"Retry-After: {RETRY_AFTER:g}"
LONG_WAIT = "Retry-After: 3600"

FAULTS = (
    Fault("429 once, Retry-After", refused("429 Slow Down", WAIT, times=1), requests=2, waits=RETRY_AFTER),
    Fault("429 always", refused("429 Slow Down", "Retry-After-Ms: 10"), sabir.RateLimitError, 3),
    Fault("429, Retry-After past the deadline", refused("429 Slow Down", LONG_WAIT), sabir.RateLimitError, timeout=60),
    Fault("500 once", refused("500 Oops", times=1), requests=2),
    Fault("500 always", refused("500 Oops"), sabir.ServerError, 3),
    Fault("529 once", refused("529 Overloaded", times=1, kind="overloaded_error"), requests=2),
    Fault("connection dropped once", dropped_once, requests=2),
    Fault("no answer at all", silent, sabir.DeadlineExceeded, timeout=TIMEOUT),
    Fault("headers without end", _drips_headers, sabir.DeadlineExceeded, timeout=TIMEOUT),
    Fault("400", refused("400 Bad Request", kind="invalid_request_error"), sabir.BadRequestError),
    Fault("401", refused("401 Unauthorized", kind="authentication_error"), sabir.AuthenticationError),
    Fault("redirect", refused("307 Moved", "Location: http://127.0.0.1:1/"), sabir.BadRequestError),
    Fault("200 with cut JSON", body_of(lambda wire: wire.whole()[:-20]), sabir.ServerError, 3),
    Fault("200 with an error inside", body_of(lambda wire: wire.error("overloaded_error")), sabir.OverloadedError, 3),
    Fault("200 with a proxy's HTML", body_of(lambda _: HTML, "text/html"), sabir.ServerError, 3),
    Fault("200 with nothing", body_of(lambda _: b""), sabir.ServerError, 3),
    Fault("stream: silence", begun(_stalls), sabir.DeadlineExceeded, 1, True, TIMEOUT, deltas=5),
    Fault("stream: only comments", begun(_drips), sabir.DeadlineExceeded, 1, True, TIMEOUT, deltas=5),
    Fault("stream: connection cut", begun(_is_cut), sabir.StreamInterrupted, 1, True, deltas=5),
    Fault("stream: connection reset", begun(_is_reset), sabir.StreamInterrupted, 1, True),
    Fault("stream: cut in a line", begun(_is_cut_in_a_line), sabir.StreamInterrupted, 1, True, deltas=5),
    Fault("stream: end without finish", begun(_ends_without_an_end), sabir.StreamInterrupted, 1, True, deltas=5),
    Fault("stream: no end marker", _ends_without_its_marker, None, 1, True, deltas=6),
    Fault("stream: malformed event", begun(_says_nonsense), sabir.StreamProtocolError, 1, True, deltas=5),
    Fault("stream: error event", begun(_tells_an_error), sabir.OverloadedError, 1, True, deltas=5),
)


def _bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


def _event(item: dict[str, Any]) -> bytes:
    name = f"event: {item['type']}\n".encode() if "type" in item else b""
    return name + b"data: " + _bytes(item) + b"\n\n"
