"""What a decoder costs on hostile input: CPU per KB and memory against the size of the input; asserts nothing.

Three kinds of bytes: random ones, a recorded-like stream with bytes changed at random, and the same stream whole.
"""

from __future__ import annotations

import random
import time
import tracemalloc
from collections.abc import Callable

from sabir.dialects import Decoder
from sabir.dialects.anthropic import Anthropic
from sabir.dialects.openai_chat import OpenAIChat
from sabir.errors import SabirError

SIZE = 1 << 20
PIECE = 4096

CHAT = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}\n\n'
)
MESSAGES = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":" word"}}\n\n'
)
START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","type":"message","role":"assistant",'
    b'"model":"m","content":[],"usage":{"input_tokens":1,"output_tokens":1}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
    b'"content_block":{"type":"text","text":""}}\n\n'
)


def mutated(data: bytes, chance: random.Random, changes: int) -> bytes:
    changed = bytearray(data)
    for _ in range(changes):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def run(make: Callable[[], Decoder], data: bytes) -> int:
    """Feed the data in pieces; begin anew after each error, so that all of it is read. Returns the errors."""
    errors, decoder = 0, make()
    for start in range(0, len(data), PIECE):
        try:
            decoder.feed(data[start : start + PIECE])
            if decoder.is_over:
                decoder.close()
        except SabirError:
            errors += 1
            decoder = make()
    return errors


def main() -> None:
    chance = random.Random(7)
    noise = chance.randbytes(SIZE)
    inputs = {
        "openai_chat": (OpenAIChat().decoder, (CHAT * (SIZE // len(CHAT)))),
        "anthropic": (Anthropic().decoder, START + MESSAGES * (SIZE // len(MESSAGES))),
    }
    print(f"{'decoder':12} {'input':10} {'µs per KB':>10} {'memory ÷ input':>15} {'errors':>7}")
    for name, (make, stream) in inputs.items():
        cases = {"random": noise, "mutated": mutated(stream, chance, 2000), "whole": stream}
        for kind, data in cases.items():
            best = min(_seconds(make, data) for _ in range(3))
            tracemalloc.start()
            errors = run(make, data)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            print(f"{name:12} {kind:10} {best * 1e6 / (len(data) / 1024):10.1f} {peak / len(data):15.2f} {errors:7}")


def _seconds(make: Callable[[], Decoder], data: bytes) -> float:
    began = time.process_time()
    run(make, data)
    return time.process_time() - began


if __name__ == "__main__":
    main()
