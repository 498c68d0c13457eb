"""Bytes as no server should send them, made of bytes as servers do: for tests, measurements and the fuzzer.

`SUBJECTS` are all that reads bytes from outside: each dialect of chats, embeddings and rankings, both halves, and every
framing. Each is a function that does with some bytes whatever can be done, and may raise nothing but `SabirError`.
"""

from __future__ import annotations

import json
import random
import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from sabir.deltas import Assembler, Delta
from sabir.dialects import Decoder, Dialect, EmbeddingDialect, RerankDialect, response_of
from sabir.dialects.event_stream import MessageStream, encode_message
from sabir.dialects.json_array import ObjectStream
from sabir.dialects.ndjson import LineStream
from sabir.dialects.sse import EventStream
from sabir.dialects.tei import TeiEmbeddings, TeiRerank
from sabir.errors import ProviderError, SabirError
from sabir.testing.replay import DIALECTS, EMBEDDINGS, RERANKS

FIXTURES = Path(__file__).parent / "fixtures" / "replay"
BINARY = frozenset({"bedrock-converse"})
LISTS: dict[str, EmbeddingDialect | RerankDialect] = {
    **EMBEDDINGS,
    **RERANKS,
    "tei-embeddings": TeiEmbeddings(),
    "tei-rerank": TeiRerank(),
}
FRAMINGS: dict[str, Callable[[], Any]] = {
    "sse": EventStream,
    "ndjson": LineStream,
    "json_array": ObjectStream,
    "event_stream": MessageStream,
}

# A value of JSON that is a leaf, or an empty object or array; keys are among them.
_LEAF = re.compile(rb'"(?:[^"\\\n]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|\{\}|\[\]')
# The end of an event, or of a line that is not within one.
_BETWEEN = re.compile(rb"(?<=\n\n)|(?<=\r\n\r\n)|(?<=[}\],]\n)(?![\r\n])|(?<=[}\],]\r\n)(?![\r\n])")
_NUMBER = re.compile(
    rb'("(?:index|output_index|content_index|contentBlockIndex|sequence_number)": ?)\d+|'
    rb'("(?:id|item_id|call_id|tool_call_id|toolUseId|name)": ?")([^"\n]*)"'
)
STRANGE: tuple[bytes, ...] = (
    b"null",
    b"true",
    b"-1",
    b"0",
    b"1.5",
    b"1e400",
    b"9" * 400,
    b'""',
    b'"x"',
    b'"\\ud83c"',
    b'"\\u0000"',
    b'"' + b"y" * 300 + b'"',
    b"[]",
    b"{}",
    b"[[]]",
    b"[{}]",
    b"[null]",
    b'{"a": 1}',
    b'{"error": {}}',
    b'{"text": {}}',
    b'"error"',
    b"[" * 2000,
    *(b"[" * depth + b"]" * depth for depth in (190, 500, 990)),
    b'{"a":' * 190 + b"{}" + b"}" * 190,
)


def exchanges(name: str, folder: Path = FIXTURES) -> Iterator[dict[str, Any]]:
    path = folder / f"{name}.jsonl"
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        yield json.loads(line)


@cache
def streams(name: str, folder: Path = FIXTURES) -> tuple[bytes, ...]:
    """The streams of a dialect that are kept in a folder."""
    found = [
        b64decode(body) if each["response"].get("body_encoding") == "base64" else body.encode("utf-8", "surrogatepass")
        for each in exchanges(name, folder)
        if each["response"]["status"] < 400 and isinstance(body := each["response"].get("body"), str)
    ]
    return tuple(found) or (spoken(name),)


@cache
def bodies(name: str) -> tuple[bytes, ...]:
    """Requests and whole answers of a dialect."""
    sides = [each[side].get("body") for each in exchanges(name) for side in ("request", "response")]
    found = [json.dumps(side).encode() for side in sides if isinstance(side, (dict, list))]
    return tuple(found) or (_LISTED,)


_LISTED = json.dumps(
    {
        "model": "m",
        "object": "list",
        "input": ["a", [1, 2]],
        "inputs": ["a"],
        "texts": ["a"],
        "query": "q",
        "documents": ["a", {"text": "b"}],
        "requests": [{"model": "models/m", "content": {"parts": [{"text": "a"}]}}],
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -1.0]}, {"index": 1, "embedding": "AACAPw=="}],
        "embeddings": {"float": [[0.5, 1.0]]},
        "results": [{"index": 0, "relevance_score": 0.5, "document": {"text": "b"}}],
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    }
).encode()


def spoken(name: str) -> bytes:
    """A stream of a dialect of which none is kept: an answer of ours, told by its server's half."""
    dialect = DIALECTS[name]
    encoder = dialect.encoder()
    return b"".join([*map(encoder.feed, _answer()), encoder.close()])


def _answer() -> Iterable[Delta]:
    """What chat completions say of a text, thinking and two calls."""
    decoder = DIALECTS["openai-chat"].decoder()
    calls = [
        {"index": at, "id": f"c{at}", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}
        for at in range(2)
    ]
    said: list[dict[str, Any]] = [
        {"reasoning_content": "Hm."},
        {"content": "a "},
        {"content": "b"},
        {"tool_calls": calls},
    ]
    deltas: list[Delta] = []
    for chunk in said:
        deltas += decoder.feed(_event({"id": "1", "model": "m", "choices": [{"index": 0, "delta": chunk}]}))
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    end = {"id": "1", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    return [*deltas, *decoder.feed(_event({**end, "usage": usage})), *decoder.close()]


def _event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


# What is done with bytes


def fed(decoder: Any, data: bytes, cuts: Sequence[int] = ()) -> Iterator[Any]:
    """What a decoder or framing makes of bytes that come in pieces."""
    places = sorted({0, *(cut % (len(data) + 1) for cut in cuts), len(data)})
    for start, end in pairwise(places):
        yield from decoder.feed(data[start:end])


def read_anew(make: Callable[[], Decoder], data: bytes, piece: int = 4096) -> tuple[int, int]:
    """Decode all of the data, with a new decoder after each error or end; how many deltas and errors that makes."""
    deltas, errors, decoder = 0, 0, make()
    for start in range(0, len(data), piece):
        try:
            deltas += len(decoder.feed(data[start : start + piece]))
            if decoder.is_over:
                deltas += len(decoder.close())
                decoder = make()
        except SabirError:
            errors += 1
            decoder = make()
    return deltas, errors


def read_stream(dialect: Dialect, data: bytes, cuts: Sequence[int] = ()) -> None:
    """Decode a stream, add it up, and say it again."""
    decoder, deltas = dialect.decoder(), list[Delta]()
    with suppress(SabirError):
        for delta in fed(decoder, data, cuts):
            deltas.append(delta)
        deltas += decoder.close()
    total = Assembler(dialect.name)
    with suppress(SabirError):
        for delta in deltas:
            total.add(delta)
    # What had come until an error is on it, whatever came.
    total.message(is_partial=True)
    with suppress(SabirError):
        encoder = dialect.encoder()
        b"".join([*map(encoder.feed, deltas), encoder.close()])


def read_body(dialect: Dialect, data: bytes, cuts: Sequence[int] = ()) -> None:
    """Take a body for an answer, a request and an error, and say each again."""
    with suppress(SabirError):
        dialect.encode_response(response_of(dialect.name, dialect.decode_answer(data)))
    with suppress(SabirError):
        dialect.encode_request(dialect.decode_request(data))
    error = dialect.decode_error(500, {}, data)
    assert isinstance(error, ProviderError)
    dialect.encode_error(error)


def read_list(dialect: Any, data: bytes, cuts: Sequence[int] = ()) -> None:
    """The same of embeddings and rankings."""
    with suppress(SabirError):
        dialect.encode_response(dialect.decode_answer(data))
    with suppress(SabirError):
        dialect.encode_request(dialect.decode_request(data))
    error = dialect.decode_error(500, {}, data)
    assert isinstance(error, ProviderError)
    dialect.encode_error(error)


def read_frames(make: Callable[[], Any], data: bytes, cuts: Sequence[int] = ()) -> None:
    with suppress(SabirError):
        for _ in fed(make(), data, cuts):
            pass


Subject = Callable[..., None]
STREAMS: dict[str, Subject] = {name: partial(read_stream, dialect) for name, dialect in DIALECTS.items()}
BODIES: dict[str, Subject] = {
    **{name: partial(read_body, dialect) for name, dialect in DIALECTS.items()},
    **{name: partial(read_list, dialect) for name, dialect in LISTS.items()},
}
FRAMES: dict[str, Subject] = {name: partial(read_frames, make) for name, make in FRAMINGS.items()}
SUBJECTS: dict[str, Subject] = {
    **{f"{name} stream": subject for name, subject in STREAMS.items()},
    **{f"{name} body": subject for name, subject in BODIES.items()},
    **{f"{name} frames": subject for name, subject in FRAMES.items()},
}


# Bytes that are changed


def pieces_of(name: str, stream: bytes) -> list[bytes]:
    """A stream in its events, lines or messages."""
    if name in BINARY:
        return [encode_message(headers, payload) for headers, payload in MessageStream().feed(stream)]
    return [piece for piece in _BETWEEN.split(stream) if piece]


def changed(name: str, piece: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """A piece of a stream with its text changed; of a binary format only the payload, so that its checksums hold."""
    if name not in BINARY:
        return change(piece)
    return b"".join(encode_message(headers, change(payload)) for headers, payload in MessageStream().feed(piece))


def with_strange(data: bytes, at: int, what: int) -> bytes:
    """The same JSON with one of its values, or keys, another."""
    leaves = list(_LEAF.finditer(data))
    if not leaves:
        return data
    leaf = leaves[at % len(leaves)]
    return data[: leaf.start()] + STRANGE[what % len(STRANGE)] + data[leaf.end() :]


def numbered(piece: bytes, number: int) -> bytes:
    """The same event of another part: with other indexes, ids and names."""

    def other(found: re.Match[bytes]) -> bytes:
        return found[1] + b"%d" % number if found[1] else found[2] + found[3] + b'-%d"' % number

    return _NUMBER.sub(other, piece)


def _half_calls(size: int) -> bytes:
    """Calls that begin one after another, of which none ends before all have begun."""
    several = range(size // 200)
    begun = [_call_event(number, id=f"c{number}", name="f", arguments="{") for number in several]
    return b"".join([*begun, *(_call_event(number, arguments="}") for number in several)])


def _bracketed_call(size: int) -> bytes:
    """A call whose arguments look whole again and again, and are not."""
    long = _call_event(0, id="c", name="f", arguments='{"a": [{"x": "' + "y" * (size // 2) + '"}')
    return long + _call_event(0, arguments='{"b": 1}') * (size // 200)


def _call_event(index: int, id: str | None = None, **function: str) -> bytes:  # noqa: A002 - the wire's word
    call = {"index": index, **({"id": id} if id else {}), "function": function}
    return _event({"id": "1", "model": "m", "choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})


CRAFTED: dict[str, dict[str, Callable[[int], bytes]]] = {
    name: {"calls that are not whole": _half_calls, "a call that looks whole": _bracketed_call}
    for name in ("openai-chat", "mistral")
}


def unfit(name: str, size: int, folder: Path = FIXTURES) -> Iterator[tuple[str, bytes]]:
    """Random bytes, recorded streams one after another, and these with one byte in five hundred changed."""
    chance = random.Random(7)
    recorded = b"".join(streams(name, folder))
    long = bytearray((recorded * (size // len(recorded) + 1))[:size])
    yield "random", chance.randbytes(size)
    yield "recorded", bytes(long)
    for _ in range(size // 500):
        long[chance.randrange(size)] = chance.randrange(256)
    yield "mutated", bytes(long)


def _endless(name: str, pieces: list[bytes]) -> list[bytes]:
    """The pieces of a stream without those that end it."""
    for number in range(1, len(pieces) + 1):
        decoder = DIALECTS[name].decoder()
        with suppress(SabirError):
            for piece in pieces[:number]:
                decoder.feed(piece)
            decoder.close()
            return pieces[: number - 1]
    return pieces


def grown(name: str, size: int, folder: Path = FIXTURES) -> Iterator[tuple[str, bytes]]:
    """Long streams, and what is long about them: each about `size` bytes."""
    events = max((_endless(name, pieces_of(name, seed)) for seed in streams(name, folder)), key=len)
    first, *middle = events if len(events) > 2 else [*events, *events, *events]
    several = max(1, size // max(1, sum(map(len, middle))))
    yield "the same parts", first + b"".join(middle) * several
    yield (
        "ever new parts",
        first
        + b"".join(
            changed(name, piece, partial(numbered, number=number)) for number in range(several) for piece in middle
        ),
    )
    for piece in {max(middle, key=len), *(piece for piece in middle if b"arguments" in piece or b"input" in piece)}:
        yield "one event over and over", first + piece * (size // len(piece))
        yield (
            "one event, ever another part",
            first
            + b"".join(changed(name, piece, partial(numbered, number=number)) for number in range(size // len(piece))),
        )
    yield "an event without end", first + b'data: {"a": "' + b"x" * size
    yield "brackets", first + b"data: " + b"[" * size
    yield "blank lines", first + b"\n" * size
    yield "tiny events", first + b"data: {}\n\n" * (size // 10)
    yield "tiny lines", first + b"{}\n" * (size // 3)
    yield "carriage returns", first + b"\r" * size
    for what, craft in CRAFTED.get(name, {}).items():
        yield what, craft(size)
