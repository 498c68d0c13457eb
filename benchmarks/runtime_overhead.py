"""What the runtime and the turn cost beside a loop written by hand: CPU per call and per delta; asserts nothing.

All contenders read the same bytes from memory, decode them with the same decoder and add them up to the same message;
no HTTP is in it. What differs is who drives: a plain loop, or a client with its line, attempts, hooks, tool loop and
stream. "transport" is a client whose connection is a list of bytes, the way of every remote model; "engine" one whose
model runs in this process, which the awaitable surface has to iterate on a thread. CPU is of the whole process. The
contenders take turns, the first round warms up and is not counted, and each figure is the median of the rest.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from statistics import median

from sabir import user
from sabir.client import ClientBody
from sabir.deltas import Assembler, Text
from sabir.dialects.openai_chat import OpenAIChat
from sabir.requests import Request
from sabir.runtime import Blocking, Eventful, run
from sabir.turn import AsyncStream, Stream

ROUNDS = 15
CALLS = 100
DELTAS = 2000
MODEL = "vllm:x"  # a server of one's own: no key, no capabilities to check
DIALECT = OpenAIChat()


def completion():
    message = {"role": "assistant", "content": "The capital of Norway is Oslo."}
    usage = {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps({"id": "1", "model": "x", "choices": [choice], "usage": usage}).encode()


def events():
    """One event for each delta, and the three that begin and end an answer."""
    deltas = [{"content": f"word{number} "} for number in range(DELTAS)]
    head = {"id": "1", "model": "x", "object": "chat.completion.chunk", "created": 1}
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    bodies = [
        {**head, "choices": [choice]} for choice in [*choices, {"index": 0, "delta": {}, "finish_reason": "stop"}]
    ]
    return [*(f"data: {json.dumps(body)}\n\n".encode() for body in bodies), b"data: [DONE]\n\n"]


PACED = events()
BURST = [b"".join(PACED[start : start + 100]) for start in range(0, len(PACED), 100)]
WHOLE = [completion()]


class Reply:
    status = 200

    def __init__(self, pieces):
        self.headers = {"content-type": "application/json" if pieces is WHOLE else "text/event-stream"}
        self._pieces = iter(pieces)

    async def read_some(self):
        return next(self._pieces, b"")

    def close(self):
        pass


class Transport:
    """A connection that is a list of bytes."""

    def __init__(self, pieces):
        self._pieces = pieces

    async def send(self, request, line):
        return Reply(self._pieces)

    def close(self):
        pass


class Engine:
    """A model in this process that has its answer ready."""

    name = "ready"

    def __init__(self, pieces):
        self._pieces = pieces

    def deltas(self, request, line):
        DIALECT.encode_request(request)
        if self._pieces is WHOLE:
            yield from DIALECT.decode_answer(WHOLE[0])
            return
        decoder = DIALECT.decoder()
        for piece in self._pieces:
            yield from decoder.feed(piece)
        yield from decoder.close()

    def close(self):
        pass


def request(is_stream):
    return Request(model="x", messages=(user("?"),), stream=is_stream)


def by_hand(pieces):
    assembler, shown = Assembler(DIALECT.name), 0
    DIALECT.encode_request(request(pieces is not WHOLE))
    if pieces is WHOLE:
        for delta in DIALECT.decode_answer(pieces[0]):
            assembler.add(delta)
        return assembler.message().text, shown
    decoder = DIALECT.decoder()
    for piece in [*pieces, None]:
        for delta in decoder.close() if piece is None else decoder.feed(piece):
            assembler.add(delta)
            shown += type(delta) is Text
    return assembler.message().text, shown


async def by_hand_later(pieces):
    assembler, shown = Assembler(DIALECT.name), 0
    DIALECT.encode_request(request(pieces is not WHOLE))
    reply = Reply(pieces)
    if pieces is WHOLE:
        for delta in DIALECT.decode_answer(await reply.read_some()):
            assembler.add(delta)
        return assembler.message().text, shown
    decoder = DIALECT.decoder()
    while data := await reply.read_some():
        for delta in decoder.feed(data):
            assembler.add(delta)
            shown += type(delta) is Text
    for delta in decoder.close():
        assembler.add(delta)
    return assembler.message().text, shown


def with_sabir(body, pieces):
    if pieces is WHOLE:
        return run(lambda: body.ask("?")).text, 0
    stream = Stream(body.open_stream("?", include=["generating"]))
    shown = sum(1 for _ in stream)
    return stream.response.text, shown


async def with_sabir_later(body, pieces):
    if pieces is WHOLE:
        return (await body.ask("?")).text, 0
    stream, shown = AsyncStream(body.open_stream("?", include=["generating"])), 0
    async for _ in stream:
        shown += 1
    return stream.response.text, shown


def contenders(pieces):
    """Each by its name: a function, and whether it is to be awaited."""
    blocking = ClientBody(MODEL, lambda *_: Blocking(lambda: Transport(pieces)), {})
    awaitable = ClientBody(MODEL, lambda *_: Eventful(lambda: Transport(pieces)), {})
    engine = ClientBody(Engine(pieces), lambda *_: Blocking(lambda: None), {})
    engine_later = ClientBody(Engine(pieces), lambda *_: Eventful(lambda: None), {})
    return {
        ("blocking", "by hand"): (lambda: by_hand(pieces), False),
        ("blocking", "transport"): (lambda: with_sabir(blocking, pieces), False),
        ("blocking", "engine"): (lambda: with_sabir(engine, pieces), False),
        ("awaitable", "by hand"): (lambda: by_hand_later(pieces), True),
        ("awaitable", "transport"): (lambda: with_sabir_later(awaitable, pieces), True),
        ("awaitable", "engine"): (lambda: with_sabir_later(engine_later, pieces), True),
    }


async def repeated(function, times):
    for _ in range(times):
        await function()


def cpu_us(function, is_async, times):
    """Microseconds of CPU for one run, by all threads of this process."""
    began = time.process_time()
    if is_async:
        asyncio.run(repeated(function, times))
    else:
        for _ in range(times):
            function()
    return 1e6 * (time.process_time() - began) / times


def result_of(function, is_async):
    return asyncio.run(function()) if is_async else function()


def measured(pieces, times, per):
    """The median for each contender, in microseconds per unit."""
    field = contenders(pieces)
    answers = {name: result_of(*contender) for name, contender in field.items()}
    if len(set(answers.values())) != 1:
        sys.exit(f"the contenders disagree: {answers}")
    samples = {name: [] for name in field}
    for turn in range(ROUNDS + 1):
        for name, (function, is_async) in field.items():
            spent = cpu_us(function, is_async, times)
            if turn:
                samples[name].append(spent / per)
    return {name: median(spent) for name, spent in samples.items()}


def main():
    columns = {
        "a call": measured(WHOLE, CALLS, 1),
        "a delta, one a read": measured(PACED, 1, DELTAS),
        "a delta, 100 a read": measured(BURST, 1, DELTAS),
    }
    print(f"Python {sys.version.split()[0]}, {sys.platform}; CPU in µs and ÷ by hand, median of {ROUNDS}")
    print(f"{'':22}" + "".join(f"{title:>24}" for title in columns))
    for surface, way in columns["a call"]:
        cells = []
        for column in columns.values():
            own, hand = column[surface, way], column[surface, "by hand"]
            cells.append(f"{own:16.2f}{own / hand:8.2f}")
        print(f"{surface:11}{way:11}" + "".join(cells))


if __name__ == "__main__":
    main()
