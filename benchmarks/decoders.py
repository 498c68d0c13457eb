"""What decoders cost: CPU per KB and memory against the size of the input, whole and hostile; CPU per delta.

Inputs are recorded streams (of ../shared/recordings, else of tests/fixtures/replay), repeated, changed at random, and
grown in the ways of tests/hostile.py. The bounds are 50 µs per KB and ten times the input for random and changed bytes;
what is beyond them is marked with a `!`. A delta of the recorded streams is to cost at most 1.5 times what it costs in
openai_chat, in recorded streams of as many events: a stream's beginning and end cost more than what is between.
Asserts nothing.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path

from sabir.dialects import Decoder
from sabir.errors import SabirError
from sabir.testing.replay import DIALECTS

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import hostile

RECORDINGS = Path(__file__).parents[2] / "shared" / "recordings"
SIZE = 256 << 10
PIECE = 4096
MOST_MICROSECONDS, MOST_MEMORY, MOST_TIMES = 50, 10, 1.5
YARDSTICK = "openai-chat"


def main() -> None:
    chosen = sys.argv[1:] or list(DIALECTS)
    folder = RECORDINGS if RECORDINGS.exists() else hostile.FIXTURES
    print(f"{'dialect':20} {'input':30} {'µs per KB':>10} {'memory ÷ input':>15} {'deltas':>8} {'errors':>7}")
    for name in chosen:
        worst: dict[str, tuple[float, str]] = {}
        for kind, data in (*hostile.unfit(name, SIZE, folder), *hostile.grown(name, SIZE, folder)):
            seconds = min(_seconds(DIALECTS[name].decoder, data) for _ in range(3))
            tracemalloc.start()
            deltas, errors = hostile.read_anew(DIALECTS[name].decoder, data)
            peak = tracemalloc.get_traced_memory()[1] / len(data)
            tracemalloc.stop()
            cost = seconds * 1e6 / (len(data) / 1024)
            mark = " !" if cost > MOST_MICROSECONDS or peak > MOST_MEMORY else ""
            row = f"{name:20} {kind:30} {cost:10.1f} {peak:15.2f} {deltas:8} {errors:7}{mark}"
            # Of several inputs of a kind, the dearest.
            worst[kind] = max(worst.get(kind, (0.0, "")), (cost, row))
        print(*(row for _, row in worst.values()), sep="\n", flush=True)
    print(f"\n{'dialect':20} {'streams':>8} {'events':>8} {'deltas':>8} {'µs per delta':>13} {'÷ openai_chat':>14}")
    streams = {name: whole_streams(name, folder) for name in dict.fromkeys([YARDSTICK, *chosen])}
    measure(streams)
    for name, those in streams.items():
        usual = sum(stream.deltas * per_delta(nearest(streams[YARDSTICK], stream.events)) for stream in those)
        ratio = sum(stream.seconds for stream in those) / usual
        events, deltas = sum(stream.events for stream in those), sum(stream.deltas for stream in those)
        mark = " !" if ratio > MOST_TIMES else ""
        print(f"{name:20} {len(those):8} {events:8} {deltas:8} {per_delta(those) * 1e6:13.2f} {ratio:14.2f}{mark}")


@dataclass
class Stream:
    """A recorded stream that comes to its end, and the CPU that it took."""

    data: bytes
    events: int
    deltas: int
    seconds: float = inf


def whole_streams(name: str, folder: Path) -> list[Stream]:
    """Each once, though it may have been recorded twice."""
    found: list[Stream] = []
    for data in dict.fromkeys(hostile.streams(name, folder)):
        with suppress(SabirError):
            found.append(Stream(data, len(hostile.pieces_of(name, data)), replay(name, data)))
    return found


def measure(streams: Mapping[str, list[Stream]]) -> None:
    """All in turn, again and again, so that a busy moment of the machine falls on each dialect; the best counts."""
    for _ in range(15):
        for name, those in streams.items():
            for stream in those:
                times = max(1, 50 // stream.events)
                began = time.process_time()
                for _ in range(times):
                    replay(name, stream.data)
                stream.seconds = min(stream.seconds, (time.process_time() - began) / times)


def nearest(streams: list[Stream], events: int) -> list[Stream]:
    """Twenty streams of about as many events."""
    return sorted(streams, key=lambda stream: abs(stream.events - events))[:20]


def per_delta(streams: list[Stream]) -> float:
    return sum(stream.seconds for stream in streams) / sum(stream.deltas for stream in streams)


def replay(name: str, data: bytes) -> int:
    """Decode a whole stream; the number of its deltas."""
    decoder = DIALECTS[name].decoder()
    deltas = sum(len(decoder.feed(data[start : start + PIECE])) for start in range(0, len(data), PIECE))
    return deltas + len(decoder.close())


def _seconds(make: Callable[[], Decoder], data: bytes) -> float:
    began = time.process_time()
    hostile.read_anew(make, data)
    return time.process_time() - began


if __name__ == "__main__":
    main()
