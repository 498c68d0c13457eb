"""What decoders cost: CPU per KB and memory against the size of the input, whole and hostile; CPU per delta.

Inputs are recorded streams (of ../shared/recordings, else of tests/fixtures/replay), repeated, changed at random, and
grown in the ways of tests/hostile.py. The bounds are 50 µs per KB and ten times the input for random and changed bytes;
what is beyond them is marked with a `!`. A delta of a recorded stream is to cost at most 1.5 times what it costs in
openai_chat. Asserts nothing.
"""

from __future__ import annotations

import random
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

from sabir.dialects import Decoder
from sabir.errors import SabirError
from sabir.testing.replay import DIALECTS

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import hostile

RECORDINGS = Path(__file__).parents[2] / "shared" / "recordings"
SIZE = 256 << 10
PIECE = 4096
MOST_MICROSECONDS, MOST_MEMORY = 50, 10


def mutated(data: bytes, chance: random.Random, changes: int) -> bytes:
    changed = bytearray(data)
    for _ in range(changes):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def run(make: Callable[[], Decoder], data: bytes) -> tuple[int, int]:
    """Feed the data in pieces; begin anew after each error or end, so that all of it is read. Deltas and errors."""
    deltas, errors, decoder = 0, 0, make()
    for start in range(0, len(data), PIECE):
        try:
            deltas += len(decoder.feed(data[start : start + PIECE]))
            if decoder.is_over:
                deltas += len(decoder.close())
                decoder = make()
        except SabirError:
            errors += 1
            decoder = make()
    return deltas, errors


def inputs(name: str, folder: Path) -> Iterator[tuple[str, bytes]]:
    chance = random.Random(7)
    recorded = b"".join(hostile.streams(name, folder))
    long = (recorded * (SIZE // len(recorded) + 1))[:SIZE]
    yield "random", chance.randbytes(SIZE)
    yield "recorded", long
    yield "mutated", mutated(long, chance, SIZE // 500)
    yield from hostile.grown(name, SIZE, folder)


def main() -> None:
    chosen = sys.argv[1:] or list(DIALECTS)
    folder = RECORDINGS if RECORDINGS.exists() else hostile.FIXTURES
    print(f"{'dialect':20} {'input':30} {'µs per KB':>10} {'memory ÷ input':>15} {'deltas':>8} {'errors':>7}")
    for name in chosen:
        worst: dict[str, tuple[float, str]] = {}
        for kind, data in inputs(name, folder):
            seconds = min(_seconds(DIALECTS[name].decoder, data) for _ in range(3))
            tracemalloc.start()
            deltas, errors = run(DIALECTS[name].decoder, data)
            peak = tracemalloc.get_traced_memory()[1] / len(data)
            tracemalloc.stop()
            cost = seconds * 1e6 / (len(data) / 1024)
            mark = " !" if cost > MOST_MICROSECONDS or peak > MOST_MEMORY else ""
            row = f"{name:20} {kind:30} {cost:10.1f} {peak:15.2f} {deltas:8} {errors:7}{mark}"
            # Of several inputs of a kind, the dearest.
            worst[kind] = max(worst.get(kind, (0.0, "")), (cost, row))
        print(*(row for _, row in worst.values()), sep="\n", flush=True)
    print(f"\n{'dialect':20} {'µs per delta':>12} {'÷ openai_chat':>14}")
    costs = {name: _per_delta(name, folder) for name in dict.fromkeys(["openai-chat", *chosen])}
    for name, cost in costs.items():
        print(f"{name:20} {cost:12.2f} {cost / costs['openai-chat']:14.2f}")


def _per_delta(name: str, folder: Path) -> float:
    """CPU for a delta of the recorded streams that have most of them, each read by a decoder of its own."""
    make = DIALECTS[name].decoder
    longest = sorted(hostile.streams(name, folder), key=lambda stream: run(make, stream)[0])[-10:]
    deltas = sum(run(make, stream)[0] for stream in longest)
    return min(sum(_seconds(make, stream) for stream in longest) for _ in range(7)) / max(1, deltas) * 1e6


def _seconds(make: Callable[[], Decoder], data: bytes) -> float:
    began = time.process_time()
    run(make, data)
    return time.process_time() - began


if __name__ == "__main__":
    main()
