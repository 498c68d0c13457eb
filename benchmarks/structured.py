"""What a schema costs: lowering one of 50 fields to what each server takes, and showing an object while it is written.

Lowering is in milliseconds, the first time and after. Showing is the CPU of 1,000 looks at an object of 20 kB that
comes in pieces of 20 bytes, as a ratio to parsing the whole object with `json.loads` once for every kB.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from time import process_time
from typing import Any

from sabir import lowering
from sabir.dialects import subsets
from sabir.lowering import Subset, lowered
from sabir.partial_json import PartialJson

ROUNDS = 9
PIECE = 20

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        f"field_{number}": {"type": "string", "description": "What it is.", "minLength": 3} for number in range(50)
    },
    "required": [f"field_{number}" for number in range(25)],
}
ROWS = [{"id": number, "name": f"item {number}", "price": number * 1.5, "ok": True} for number in range(300)]
OBJECTS: dict[str, Any] = {
    "rows of small values": {"rows": ROWS},
    "sections of prose": {
        "sections": [{"title": f"Section {n}", "text": "lorem ipsum dolor " * 22} for n in range(45)]
    },
    "one long text": {"text": "lorem ipsum " * 1700},
}


def best(work: Callable[[], object]) -> float:
    """CPU seconds of the fastest of several rounds."""
    times: list[float] = []
    for _ in range(ROUNDS):
        began = process_time()
        work()
        times.append(process_time() - began)
    return min(times)


def show(text: str) -> None:
    partial = PartialJson()
    for at in range(0, len(text), PIECE):
        partial.feed(text[at : at + PIECE])
        partial.value  # noqa: B018 - looking is the work


def parse(text: str) -> None:
    for _ in range(0, len(text), 1000):
        json.loads(text)


def main() -> None:
    print(f"{'lowering 50 fields':24} {'first, ms':>10} {'again, ms':>10}")
    for name, subset in vars(subsets).items():
        if isinstance(subset, Subset):

            def afresh(subset: Subset = subset) -> None:
                lowering._lowered.cache_clear()  # pyright: ignore[reportPrivateUsage]
                lowered(SCHEMA, subset)

            again = best(lambda subset=subset: [lowered(SCHEMA, subset) for _ in range(100)]) / 100
            print(f"{name:24} {best(afresh) * 1000:10.3f} {again * 1000:10.3f}")
    print(f"\n{'showing 20 kB':24} {'looks':>10} {'ratio':>10}")
    for name, value in OBJECTS.items():
        text = json.dumps(value)
        ratio = best(lambda text=text: show(text)) / best(lambda text=text: parse(text))
        print(f"{name:24} {len(text) // PIECE:10} {ratio:10.2f}")


if __name__ == "__main__":
    main()
