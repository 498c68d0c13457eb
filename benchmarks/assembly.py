"""What adding one delta to a message costs as the message grows: the ratios are to be flat; asserts nothing.

Two streams: one long text, and two tool calls whose pieces alternate. The same few deltas are added again and again, so
that no cache has to hold them; each figure is the best of several rounds, since noise only ever adds.
"""

from __future__ import annotations

import sys
from time import perf_counter

from sabir.deltas import Assembler, Delta, Open, Text

ROUNDS = 5
SIZES = (1_000, 10_000, 100_000, 1_000_000)


def text(count: int) -> list[Delta]:
    return [Open(0, "text"), *[Text(0, "word ")] * count]


def calls(count: int) -> list[Delta]:
    return [Open(0, "call", "a", "f"), Open(1, "call", "b", "g"), *[Text(0, '"x",'), Text(1, '"y",')] * (count // 2)]


def microseconds(deltas: list[Delta]) -> tuple[float, float]:
    """The best µs per delta: to add them, and to read the message once at the end."""
    adding, reading = [], []
    for _ in range(ROUNDS):
        assembler = Assembler("openai_chat")
        began = perf_counter()
        for delta in deltas:
            assembler.add(delta)
        added = perf_counter()
        assembler.message()
        adding.append(added - began)
        reading.append(perf_counter() - added)
    return 1e6 * min(adding) / len(deltas), 1e6 * min(reading) / len(deltas)


def main() -> None:
    print(f"Python {sys.version.split()[0]}, {sys.platform}; best of {ROUNDS}")
    print(f"{'stream':8}{'deltas':>10}{'add µs':>9}{'ratio':>7}{'read µs':>9}{'ratio':>7}")
    for stream in (text, calls):
        first: tuple[float, float] | None = None
        for size in SIZES:
            add, read = microseconds(stream(size))
            first = first or (add, read)
            ratios = f"{add:9.3f}{add / first[0]:7.2f}{read:9.4f}{read / first[1]:7.2f}"
            print(f"{stream.__name__:8}{size:>10}{ratios}")


if __name__ == "__main__":
    main()
