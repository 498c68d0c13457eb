"""Whatever comes from outside, what is raised is of our family, and memory stays within bounds.

Every dialect and every framing is given random bytes, and recorded-like exchanges in which bytes, values and events
were changed. `tests/atheris_decoders.py` does the same for as long as one likes, `benchmarks/decoders.py` measures.
"""

from __future__ import annotations

import time
import tracemalloc
from contextlib import suppress

import hostile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabir.errors import SabirError
from sabir.testing.replay import DIALECTS

# The bounds on what a decoder takes for a KB, in µs of CPU, and on what it holds, as a multiple of what it was given;
# and what may be held however little came.
MOST_MICROSECONDS = 50
MOST = 10
SMALL = 128 << 10
SIZE = 96 << 10
PIECE = 4096

places = st.integers(0, 2**16)
cuts = st.lists(places, max_size=4)
splices = st.lists(st.tuples(places, places.map(lambda length: length % 4), st.binary(max_size=3)), max_size=3)
strangers = st.lists(st.tuples(places, places), max_size=3)
events = st.lists(st.tuples(st.sampled_from(["drop", "twice", "swap", "number"]), places), max_size=3)


def spliced(data, changes):
    for at, length, new in changes:
        at %= len(data) + 1
        data = data[:at] + new + data[at + length :]
    return data


def reordered(name, data, changes):
    pieces = hostile.pieces_of(name, data)
    for how, at in changes:
        if len(pieces) < 2:
            break
        at %= len(pieces) - 1
        match how:
            case "drop":
                del pieces[at]
            case "twice":
                pieces.insert(at, pieces[at])
            case "swap":
                pieces[at], pieces[at + 1] = pieces[at + 1], pieces[at]
            case _:
                pieces[at] = hostile.changed(name, pieces[at], lambda piece: hostile.numbered(piece, 7))
    return pieces


@pytest.mark.parametrize("name", hostile.SUBJECTS)
@given(data=st.binary(max_size=300), cuts=cuts)
@settings(max_examples=60, deadline=None)
def test_random_bytes_raise_only_errors_of_the_family(name, data, cuts):
    hostile.SUBJECTS[name](data, cuts)


@pytest.mark.parametrize("name", DIALECTS)
@given(st.data(), events, strangers, splices, cuts)
@settings(max_examples=150, deadline=None)
def test_a_changed_stream_raises_only_errors_of_the_family(name, data, events, strangers, splices, cuts):
    seed = data.draw(st.sampled_from(hostile.streams(name)))
    pieces = reordered(name, seed, events)
    for at, what in strangers:
        number = at % len(pieces)
        pieces[number] = hostile.changed(name, pieces[number], lambda piece: hostile.with_strange(piece, at, what))  # noqa: B023
    hostile.STREAMS[name](spliced(b"".join(pieces), splices), cuts)


@pytest.mark.parametrize("name", hostile.BODIES)
@given(st.data(), strangers, splices)
@settings(max_examples=150, deadline=None)
def test_a_changed_body_raises_only_errors_of_the_family(name, data, strangers, splices):
    body = data.draw(st.sampled_from(hostile.bodies(name)))
    for at, what in strangers:
        body = hostile.with_strange(body, at, what)
    hostile.BODIES[name](spliced(body, splices))


@pytest.mark.parametrize("name", hostile.FRAMES)
@given(st.data(), splices, cuts)
@settings(max_examples=60, deadline=None)
def test_changed_frames_raise_only_errors_of_the_family(name, data, splices, cuts):
    seed = data.draw(st.sampled_from([stream for dialect in DIALECTS for stream in hostile.streams(dialect)]))
    hostile.FRAMES[name](spliced(seed, splices), cuts)


@pytest.mark.parametrize("name", DIALECTS)
def test_a_decoder_holds_no_more_than_ten_times_what_it_is_given(name):
    for what, data in (*hostile.unfit(name, SIZE), *hostile.grown(name, SIZE)):
        decoder = DIALECTS[name].decoder()
        tracemalloc.start()
        with suppress(SabirError):
            for start in range(0, len(data), PIECE):
                decoder.feed(data[start : start + PIECE])
            decoder.close()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= MOST * len(data) + SMALL, f"{what}: {peak / len(data):.1f} times {len(data)} bytes"


@pytest.mark.parametrize("name", DIALECTS)
def test_a_kb_of_any_stream_is_decoded_within_50_microseconds(name):
    for what, data in hostile.unfit(name, SIZE):
        costs: list[float] = []
        for _ in range(5):
            began = time.process_time()
            hostile.read_anew(DIALECTS[name].decoder, data, PIECE)
            costs.append((time.process_time() - began) * 1e6 / (len(data) / 1024))
        assert min(costs) <= MOST_MICROSECONDS, f"{what}: {min(costs):.0f} µs for a KB"


@pytest.mark.parametrize(
    ("name", "what"), [(name, what) for name, crafted in hostile.CRAFTED.items() for what in crafted]
)
def test_the_cost_of_a_byte_does_not_grow_with_their_number(name, what):
    def cost(data):
        began = time.process_time()
        decoder = DIALECTS[name].decoder()
        with suppress(SabirError):
            for start in range(0, len(data), PIECE):
                decoder.feed(data[start : start + PIECE])
            decoder.close()
        return (time.process_time() - began) / len(data)

    short, long = (hostile.CRAFTED[name][what](size) for size in (32 << 10, 512 << 10))
    assert min(cost(long) for _ in range(3)) < 5 * min(cost(short) for _ in range(3))
