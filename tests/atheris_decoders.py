"""Every decoder and framing under a coverage-guided fuzzer, for as long as one likes; no part of the ordinary tests.

    pip install atheris
    python tests/atheris_decoders.py -max_total_time=180 [-max_len=4096] [FOLDER OF FINDINGS]

Seeds are the exchanges of fixtures/replay. The first byte of an input chooses what reads it, the second where it is
cut. What raises anything but an error of our family is written to a file `crash-…`, which as the only argument is run
again; so is what takes more than `-timeout` seconds or `-rss_limit_mb` of memory.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["sabir"]):
    import hostile

NAMES = sorted(hostile.SUBJECTS)


def read(data: bytes) -> None:
    """Give one input to what its first byte names."""
    if len(data) < 2:
        return
    hostile.SUBJECTS[NAMES[data[0] % len(NAMES)]](data[2:], (data[1], 3 * data[1]))


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Another value of JSON in the place of one, every other time; else what the fuzzer does to bytes."""
    if seed % 2 == 0 or len(data) < 2:
        return atheris.Mutate(data, max_size)
    return (data[:2] + hostile.with_strange(data[2:], seed >> 1, seed >> 12))[:max_size]


def seeds(folder: Path) -> None:
    for number, name in enumerate(NAMES):
        what, _, how = name.rpartition(" ")
        found: Any = {"stream": hostile.streams, "body": hostile.bodies}.get(how)
        given = found(what) if found else hostile.streams("openai-chat")
        for at, data in enumerate(given):
            (folder / f"{number}-{at}").write_bytes(bytes([number, 7]) + data)


def main() -> None:
    with tempfile.TemporaryDirectory() as kept:
        folders = [] if any(Path(argument).exists() for argument in sys.argv[1:]) else [kept]
        seeds(Path(kept))
        atheris.Setup([*sys.argv, *folders, "-max_len=8192", "-timeout=10"], read, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
