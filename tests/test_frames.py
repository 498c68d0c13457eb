"""Short cuts, of frames and of chunks that only go on: with them or without, a stream says the same."""

import json

import hostile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabir.deltas import Delta, Text
from sabir.dialects.frames import Frame
from sabir.errors import SabirError
from sabir.testing.replay import DIALECTS

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


def without_short_cuts(name):
    """A decoder that reads all of its stream the long way."""
    decoder = DIALECTS[name].decoder()
    if hasattr(decoder, "_frame"):
        decoder._frame.text_in = lambda _: None
    else:
        decoder._reader.read_more = lambda *_: False
    return decoder


def event(value: dict) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def openai(text: str, field: str, extra: dict) -> bytes:
    return event({"id": "x", "choices": [{"index": 0, "delta": {field: text, **extra}}]})


def anthropic(text: str, field: str, extra: dict) -> bytes:
    kind = {"text": "text_delta", "thinking": "thinking_delta"}[field]
    return event({"type": "content_block_delta", "index": 0, "delta": {"type": kind, field: text, **extra}})


def gemini(text: str, field: str, extra: dict) -> bytes:
    part = {"text": text, "thought": True} if field == "thought" else {"text": text}
    if field == "piece":
        piece = {"jsonPath": "$.a", "stringValue": text, "willContinue": True}
        part = {"functionCall": {"partialArgs": [piece], "willContinue": True}}
    usage = {"promptTokenCount": 3, "totalTokenCount": 3 + len(text), **extra}
    candidate = {"content": {"parts": [part], "role": "model"}, "index": 0, **extra}
    return event({"candidates": [candidate], "usageMetadata": usage, "responseId": "x", "modelVersion": "m"})


def responses(text: str, field: str, extra: dict) -> bytes:
    # Every other one weighs its text, in a field that is read; what else is there is not.
    weighed = {"logprobs": [{"token": text, "logprob": -1.5}] if extra else []}
    place = {"output_index": 0, "content_index": 0, "sequence_number": len(text), "item_id": "i"}
    return event({"type": f"response.{field}.delta", **place, "delta": text, **weighed, **extra})


BLOCK = b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
CALL = event({"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "willContinue": True}}]}}]})
KINDS = [
    ("openai-chat", openai, "content", b""),
    ("openai-chat", openai, "reasoning_content", b""),
    ("anthropic-messages", anthropic, "text", BLOCK),
    ("gemini", gemini, "text", b""),
    ("gemini", gemini, "thought", b""),
    ("gemini", gemini, "piece", CALL),
    ("openai-responses", responses, "output_text", b""),
    ("openai-responses", responses, "reasoning_text", b""),
]
TEXTS = st.lists(st.tuples(st.text(max_size=4) | st.sampled_from(["x", "?", "assistant", "text_delta"]), st.booleans()))


@pytest.mark.parametrize(
    ("name", "chunk", "field", "before"), KINDS, ids=[f"{name} {field}" for name, _, field, _ in KINDS]
)
@given(texts=TEXTS)
def test_a_stream_says_the_same_as_its_chunks_read_the_long_way(name, chunk, field, before, texts):
    chunks = [chunk(text, field, {"more": number} if odd else {}) for number, (text, odd) in enumerate(texts)]
    said: list[list[Delta]] = []
    for decoder in (DIALECTS[name].decoder(), without_short_cuts(name)):
        deltas = decoder.feed(before)
        for each in chunks:
            deltas += decoder.feed(each)
        said.append(deltas)
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("name", "chunk", "field", "before"), KINDS, ids=[f"{name} {field}" for name, _, field, _ in KINDS]
)
def test_nearly_all_of_a_long_text_is_read_by_the_short_cut(monkeypatch, name, chunk, field, before):
    decoder = DIALECTS[name].decoder()
    taken = []
    holder, short_cut = (decoder._frame, "text_in") if hasattr(decoder, "_frame") else (decoder._reader, "read_more")
    take = getattr(holder, short_cut)
    monkeypatch.setattr(holder, short_cut, lambda *given: taken.append(take(*given)) or taken[-1], raising=False)
    decoder.feed(before)
    texts = [text for number in range(50) for text in decoder.feed(chunk(f"a {number}", field, {}))]
    assert len([text for text in texts if isinstance(text, Text)]) == 50
    assert len([each for each in taken if each not in (None, False)]) >= 48


SHORT_CUTS = [name for name in DIALECTS if name != "ollama"]
PLACES = st.integers(0, 2**16)


@pytest.mark.parametrize("name", SHORT_CUTS)
@given(st.data(), st.lists(st.tuples(PLACES, PLACES), max_size=4), st.lists(PLACES, max_size=3))
@settings(max_examples=150, deadline=None)
def test_a_changed_stream_says_the_same_the_long_way(name, data, strangers, repeated):
    pieces = hostile.pieces_of(name, data.draw(st.sampled_from(hostile.streams(name))))
    for at in repeated:
        pieces.insert(at % len(pieces), pieces[at % len(pieces)])
    for at, what in strangers:
        number = at % len(pieces)
        pieces[number] = hostile.changed(name, pieces[number], lambda piece: hostile.with_strange(piece, at, what))  # noqa: B023
    said: list[list[object]] = []
    for decoder in (DIALECTS[name].decoder(), without_short_cuts(name)):
        said.append([])
        try:
            said[-1] += decoder.feed(b"".join(pieces))
            said[-1] += decoder.close()
        except SabirError as error:
            said[-1] += [type(error), str(error)]
    assert said[0] == said[1]
