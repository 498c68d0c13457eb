"""A frame is a short cut: with it or without, a stream says the same."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabir.deltas import Delta, Text
from sabir.dialects import Dialect
from sabir.dialects.anthropic import Anthropic
from sabir.dialects.frames import Frame
from sabir.dialects.openai_chat import OpenAIChat

PLACE = ("delta", "text")


def learnt(chunk: dict, text: str, payload: bytes | None = None) -> Frame:
    frame = Frame(PLACE)
    payload = payload or json.dumps(chunk).encode()
    frame.learn(payload, json.loads(payload), [Text(3, text)])
    return frame


def test_the_text_of_the_next_chunk_is_read_from_the_frame_of_the_last():
    frame = learnt({"id": "x", "delta": {"text": "Hel"}, "n": 1}, "Hel")
    assert frame.part == 3
    assert frame.text_in(b'{"id": "x", "delta": {"text": "lo \\"you\\" \\u00e9"}, "n": 1}') == 'lo "you" é'


@pytest.mark.parametrize(
    "payload",
    [
        b'{"id": "y", "delta": {"text": "lo"}, "n": 1}',
        b'{"id": "x", "delta": {"text": "lo"}, "n": 2}',
        b'{"id": "x", "delta": {"text": "lo", "more": "lo"}, "n": 1}',
        b'{"id": "x", "delta": {"text": "lo", "text": "lo"}, "n": 1}',
        b'{"id": "x", "delta": {"text": ["lo"]}, "n": 1}',
        b'{"id": "x", "delta": {"text": null}, "n": 1}',
        b'{"id": "x", "delta": {"text": "lo" "lo"}, "n": 1}',
        b'{"id": "x", "delta": {"text": "\\ud83d"}, "n": 1}',
        b'{"id": "x", "delta": {"text": }, "n": 1}',
        b'{"id": "x", "delta": {"text": "l}, "n": 1}',
        b'{"id": "x", "delta": {"text": , "n": 1}',
    ],
)
def test_what_differs_in_anything_else_is_read_the_long_way(payload):
    assert learnt({"id": "x", "delta": {"text": "Hel"}, "n": 1}, "Hel").text_in(payload) is None


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b'{"role": "Hel", "delta": {"text": "Hel"}}', "Hel"),  # found first where the text is not
        (b'{"delta": {"text": "\\u0048el"}, "echo": "Hel"}', "Hel"),  # found only there
        (b'{"delta": {"text": "Hel", "Hel": 1}, "text": 5}', "el"),  # what was read is not what stands there
        (b'{"id": ",", "delta": {"text": ","}}', ","),
    ],
)
def test_a_text_whose_place_is_not_certain_gives_no_frame(payload, text):
    frame = learnt({}, text, payload)
    assert frame.part == -1
    assert frame.text_in(payload) is None


def test_a_chunk_with_more_to_say_gives_no_frame():
    chunk = b'{"delta": {"text": "a"}}'
    frame = Frame(PLACE)
    for read in ([], [Text(0, "a"), Text(0, "b")]):
        frame.learn(chunk, json.loads(chunk), read)
        assert frame.part == -1


def test_frames_that_never_fit_are_not_sought_for_ever():
    frame = Frame(PLACE)
    for number in range(20):
        chunk = {"pad": number, "delta": {"text": "a"}}
        frame.learn(json.dumps(chunk).encode(), chunk, [Text(0, "a")])
    assert frame.part == -1


def openai(text: str, field: str, extra: dict) -> bytes:
    return json.dumps({"id": "x", "choices": [{"index": 0, "delta": {field: text, **extra}}]}).encode()


def anthropic(text: str, field: str, extra: dict) -> bytes:
    kind = {"text": "text_delta", "thinking": "thinking_delta"}[field]
    return json.dumps(
        {"type": "content_block_delta", "index": 0, "delta": {"type": kind, field: text, **extra}}
    ).encode()


TEXTS = st.lists(st.tuples(st.text(max_size=4) | st.sampled_from(["x", "?", "assistant", "text_delta"]), st.booleans()))


@pytest.mark.parametrize(
    ("dialect", "chunk", "field", "before"),
    [
        (OpenAIChat(), openai, "content", b""),
        (OpenAIChat(), openai, "reasoning_content", b""),
        (
            Anthropic(),
            anthropic,
            "text",
            b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n',
        ),
    ],
    ids=["openai content", "openai thinking", "anthropic text"],
)
@given(texts=TEXTS)
def test_a_stream_says_the_same_as_its_chunks_read_the_long_way(dialect: Dialect, chunk, field, before, texts):
    payloads = [chunk(text, field, {"more": number} if odd else {}) for number, (text, odd) in enumerate(texts)]
    quick, slow = dialect.decoder(), dialect.decoder()
    slow._frame.text_in = lambda _: None
    said: list[list[Delta]] = []
    for decoder in (quick, slow):
        deltas = decoder.feed(before)
        for payload in payloads:
            deltas += decoder.feed(b"data: " + payload + b"\n\n")
        said.append(deltas)
    assert said[0] == said[1]
