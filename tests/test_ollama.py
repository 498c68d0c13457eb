"""Ollama's own format, both halves: what is sent, what is understood, and that nothing is lost there and back."""

from __future__ import annotations

import json
from base64 import b64encode
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import halves
import msgspec
import pytest
from halves import replaced, same, values_in
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sabir.deltas import Blob, Close, Count, Event, Finish, Head, Note, Open, State, Text
from sabir.dialects import Unsupported, ndjson, response_of
from sabir.dialects.ndjson import LineStream
from sabir.dialects.ollama import NAME, Ollama
from sabir.errors import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ContextOverflowError,
    DeadlineExceeded,
    EngineError,
    NotFoundError,
    OverloadedError,
    RateLimitError,
    SabirError,
    ServerError,
    StreamInterrupted,
    StreamProtocolError,
    UnsupportedError,
)
from sabir.messages import (
    Audio,
    File,
    Image,
    Message,
    ProviderState,
    Refusal,
    ServerItem,
    Thinking,
    ToolCall,
    ToolResult,
    Value,
    assistant,
    system,
    user,
)
from sabir.messages import Text as TextPart
from sabir.requests import Options, OutputSchema, Request, ToolSpec
from sabir.strict_json import encode_json
from sabir.usage import Usage

RECORDINGS = Path(__file__).resolve().parent.parent.parent / "shared" / "recordings" / "ollama.jsonl"
DIALECT = Ollama()
streamed = partial(halves.streamed, DIALECT)
total = partial(halves.total, DIALECT)
WHOLE = {"truncate": False, "shift": False}
OBJECT = {"type": "object", "properties": {"at": {"type": "string"}}}
TOOL = ToolSpec("look", "Look around.", OBJECT)
WIRE_TOOL = {"type": "function", "function": {"name": "look", "description": "Look around.", "parameters": OBJECT}}
PIXEL = b64encode(b"\0\1").decode()
FOREIGN = ProviderState("openai_chat", {"set": {"store": True}})
HELLO = (user("hi"),)


def own(**value):
    return ProviderState(NAME, value)


def kinds(notices):
    return [(notice.kind, notice.subject) for notice in notices]


def encoded(messages=HELLO, dialect=DIALECT, **fields):
    http, notices = dialect.encode_request(Request(model="m", messages=tuple(messages), **fields))
    return json.loads(http.body), notices


def plain(**fields):
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": False, **WHOLE, **fields}


def decoded(data, cuts=()):
    """The deltas of a stream that comes in pieces, and the error it ends with."""
    decoder, deltas = DIALECT.decoder(), []
    try:
        for start, end in pairwise([0, *sorted(cuts), len(data)]):
            deltas += decoder.feed(data[start:end])
        deltas += decoder.close()
    except SabirError as error:
        return deltas, error
    return deltas, None


def told_again(deltas):
    return json.loads(DIALECT.encode_response(response_of(NAME, deltas)))


def lines(*pieces):
    return b"".join(json.dumps(piece).encode() + b"\n" for piece in pieces)


def piece(**message):
    return {"model": "m", "message": {"role": "assistant", "content": "", **message}, "done": False}


def end(**fields):
    return {**piece(), "done": True, "done_reason": "stop", **fields}


# The client's half: requests.


def test_a_request_is_posted_with_the_callers_headers():
    http, notices = DIALECT.encode_request(Request(model="m", messages=(user("hi"),), headers={"x-a": "b"}))
    assert (http.method, http.url) == ("POST", "/api/chat")
    assert http.headers == (("content-type", "application/json"), ("x-a", "b"))
    assert json.loads(http.body) == plain()
    assert notices == ()


def options(**fields):
    return {"options": fields}


OPTIONS: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
    ({"temperature": 0.0}, options(temperature=0.0)),
    ({"top_p": 0.5}, options(top_p=0.5)),
    ({"top_k": 5}, options(top_k=5)),
    ({"min_p": 0.5}, options(min_p=0.5)),
    ({"max_tokens": 7}, options(num_predict=7)),
    ({"stop": ("a", "b")}, options(stop=["a", "b"])),
    ({"seed": 0}, options(seed=0)),
    ({"frequency_penalty": 0.5}, options(frequency_penalty=0.5)),
    ({"presence_penalty": 0.5}, options(presence_penalty=0.5)),
    ({"repetition_penalty": 1.5}, options(repeat_penalty=1.5)),
    ({"thinking": True}, {"think": True}),
    ({"thinking": False}, {"think": False}),
    ({"thinking": "high"}, {"think": "high"}),
    ({"tool_choice": "auto"}, {}),
    ({"parallel_tool_calls": False}, None),
    ({"logprobs": True}, {"logprobs": True}),
    ({"top_logprobs": 5}, {"top_logprobs": 5}),
    ({"n": 2}, None),
    ({"user": "ada"}, None),
    ({"documents": ("It rained.",)}, None),
    ({"documents": ("a",)}, None),
    ({"stream": True}, {"stream": True}),
    ({"extra": {"keep_alive": "5m", "shift": True}}, {"keep_alive": "5m", "shift": True}),
    ({"extra": options(num_ctx=9, top_k=1), "top_k": 2, "seed": 3}, options(top_k=1, seed=3, num_ctx=9)),
    ({"schema": OutputSchema("answer", OBJECT)}, {"format": OBJECT}),
]


@pytest.mark.parametrize(("asked", "sent"), OPTIONS)
def test_an_option_is_sent_in_ollamas_words_or_reported(asked, sent):
    body, notices = encoded(**asked)
    if sent is None:
        assert body == plain()
        assert kinds(notices) == [("unsupported", *asked)]
    else:
        assert body == plain(**sent)
        assert notices == ()


def test_every_portable_option_has_a_verdict_and_is_tried_above():
    verdicts = DIALECT.verdicts()
    assert set(verdicts) == set(Options.__annotations__) | {"schema"}
    # What becomes of `cache` is in test_prompt_cache.py, for all formats.
    assert set(verdicts) - {"headers", "cache"} <= {name for asked, _ in OPTIONS for name in asked}
    for asked, sent in OPTIONS:
        for name in asked.keys() & verdicts.keys():
            assert isinstance(verdicts[name], Unsupported) == (sent is None)


@pytest.mark.parametrize(("asked", "sent"), [("minimal", "low"), (1, "low"), (8192, "medium"), (8193, "high")])
def test_thinking_that_has_no_word_is_approximated(asked, sent):
    body, notices = encoded(thinking=asked)
    assert body == plain(think=sent)
    assert kinds(notices) == [("emulated", "thinking")]


@pytest.mark.parametrize(
    ("choice", "is_offered", "noticed"),
    [
        (None, True, []),
        ("auto", True, []),
        ("none", False, [("emulated", "tool_choice")]),
        ("required", True, [("unsupported", "tool_choice")]),
        ("look", True, [("unsupported", "tool_choice")]),
    ],
)
def test_the_model_chooses_among_the_tools_that_are_offered(choice, is_offered, noticed):
    body, notices = encoded(tools=(TOOL,), tool_choice=choice)
    assert body == plain(**({"tools": [WIRE_TOOL]} if is_offered else {}))
    assert kinds(notices) == noticed


def test_a_tool_without_parameters_takes_none_and_one_that_another_provider_runs_is_an_error():
    body, _ = encoded(tools=(ToolSpec("wait"),))
    nothing = {"type": "object", "properties": {}}
    assert body["tools"] == [{"type": "function", "function": {"name": "wait", "parameters": nothing}}]
    with pytest.raises(UnsupportedError, match="run by openai_chat"):
        encoded(tools=(ToolSpec("search", state=FOREIGN),))


# The context: what is sent so that none of it is cut in silence.


def context_of(*messages, dialect=DIALECT, **fields):
    body, notices = encoded(messages, dialect, **fields)
    return body.get("options", {}).get("num_ctx"), kinds(notices)


ASKED_FOR = [("emulated", "num_ctx")]


@pytest.mark.parametrize(
    ("characters", "fields", "context"),
    [
        (1, {}, None),
        (4000, {}, None),
        (4100, {}, 8192),
        (4000, {"max_tokens": 2100}, 8192),
        (1, {"max_tokens": 100_000}, 131_072),
        (12_000, {}, 8192),
        (12_300, {}, 16_384),
        (10_000_000, {}, 131_072),
    ],
)
def test_a_context_is_asked_for_that_the_prompt_and_its_answer_fit(characters, fields, context):
    found, notices = context_of(user("x" * characters), **fields)
    assert found == context
    assert notices == ([] if context is None else ASKED_FOR)


def test_all_that_is_read_takes_room():
    long = "x" * 5000
    call = ToolCall(name="look", input=json.dumps({"at": long}), id="c1")
    for request in (
        {"messages": [system(long), user("hi")]},
        {"messages": [user("hi"), assistant(call), Message("tool", (ToolResult("c1", "look", ()),))]},
        {"messages": [user("hi")], "tools": (ToolSpec("look", long),)},
        {"messages": [user("hi")], "schema": OutputSchema("answer", {"type": "object", "description": long})},
        {"messages": [user("hi", *(Image(data=b"i") for _ in range(2)))]},
        {"messages": [user("é" * 2500)]},
    ):
        assert encoded(**request)[0]["options"]["num_ctx"] == 8192
    # The size of a picture's file says nothing of how many tokens it is.
    assert context_of(user("hi", Image(data=b"i" * 100_000)))[0] == 8192


def test_a_context_that_the_caller_asks_for_is_left_alone():
    long = user("x" * 100_000)
    assert context_of(long, extra=options(num_ctx=2048)) == (2048, [])
    assert context_of(long, dialect=Ollama(most_context=None)) == (None, [])
    assert context_of(long, dialect=Ollama(most_context=8192)) == (8192, ASKED_FOR)
    assert context_of(user("hi"), extra=options(num_predict=5000)) == (8192, ASKED_FOR)


def test_more_context_than_may_be_asked_for_is_said():
    _, (notice,) = encoded([user("x" * 1000_000)])
    assert "num_ctx=131072 was sent" in str(notice)
    assert "more is not asked for by itself" in str(notice)
    assert "extra={'options': {'num_ctx': …}}" in str(notice)


def test_a_server_that_may_cut_is_not_told_otherwise():
    body, _ = encoded(dialect=Ollama(keeps_whole=False))
    assert body.keys() == {"model", "messages", "stream"}


# The history.

THOUGHT = Thinking(text="hm", state=own(field="thinking"))
CALL = ToolCall(name="look", input='{"at": "it"}', id="c1")
WIRE_CALL = {"id": "c1", "function": {"name": "look", "arguments": {"at": "it"}}}
RESULT = ToolResult(call_id="c1", name="look", content=(TextPart(text="seen"),))
WIRE_RESULT = {"role": "tool", "content": "seen", "tool_name": "look", "tool_call_id": "c1"}
NAMELESS = {"function": {"name": "look", "arguments": {}}}


def said(role, content="", **more):
    return {"role": role, "content": content, **more}


MESSAGES = [
    ([user("a", "b")], [said("user", "ab")]),
    ([system("a"), user("b"), system("c")], [said("system", "a"), said("user", "b"), said("system", "c")]),
    ([user(Value(value={"a": None}))], [said("user", '{"a":null}')]),
    ([user("a", Image(data=b"\0\1", media_type="image/png"))], [said("user", "a", images=[PIXEL])]),
    ([assistant(THOUGHT, "a", CALL)], [said("assistant", "a", thinking="hm", tool_calls=[WIRE_CALL])]),
    (
        [assistant(CALL), Message("tool", (RESULT, RESULT))],
        [said("assistant", tool_calls=[WIRE_CALL]), *[WIRE_RESULT] * 2],
    ),
    (
        [Message("tool", (ToolResult("c1", "look", (TextPart(text="a"), Image(data=b"\0\1"))),))],
        [WIRE_RESULT | {"content": "a", "images": [PIXEL]}],
    ),
    # An id that we gave because there was none is not sent; its tool's name goes along with the result.
    (
        [
            assistant(ToolCall(name="look", id="call_0", synthetic=True)),
            Message("tool", (ToolResult(call_id="call_0", name="", content=()),)),
        ],
        [said("assistant", tool_calls=[NAMELESS]), said("tool", tool_name="look")],
    ),
    (
        [assistant(ToolCall(name="look", id="c1", state=own(set={"type": "function", "function.index": 0})))],
        [
            said(
                "assistant",
                tool_calls=[{"id": "c1", "type": "function", "function": {**NAMELESS["function"], "index": 0}}],
            )
        ],
    ),
]


@pytest.mark.parametrize(("messages", "wire"), MESSAGES)
def test_a_history_is_sent_part_by_part(messages, wire):
    body, notices = encoded(messages, Ollama(most_context=None))
    assert body["messages"] == wire
    assert notices == ()


@pytest.mark.parametrize(
    ("message", "wire", "noticed"),
    [
        (assistant("a", Thinking(text="hm")), said("assistant", "a"), [("dropped", "Thinking")]),
        (
            assistant("a", Thinking(text="hm", state=FOREIGN)),
            said("assistant", "a"),
            [("dropped", "part"), ("dropped", "Thinking")],
        ),
        (assistant("a", ServerItem(kind="search")), said("assistant", "a"), [("dropped", "ServerItem")]),
        (assistant("a", Audio(data=b"a", id="x")), said("assistant", "a"), [("dropped", "Audio")]),
        (assistant(Refusal(text="no")), said("assistant", "no"), [("emulated", "Refusal")]),
        (assistant(TextPart(text="a", state=FOREIGN)), said("assistant", "a"), [("dropped", "part")]),
        (
            assistant(ToolCall(name="look", input='{"at": "i', id="c1")),
            said(
                "assistant",
                tool_calls=[{"id": "c1", "function": {"name": "look", "arguments": {"INVALID_JSON": '{"at": "i'}}}],
            ),
            [("emulated", "ToolCall")],
        ),
        (Message("user", (TextPart(text="a"),), name="ada"), said("user", "a"), [("dropped", "name")]),
        (user(Image(data=b"\0\1", detail="low")), said("user", images=[PIXEL]), [("dropped", "detail")]),
        (user(Image(data=b"\0\1"), "a"), said("user", "a", images=[PIXEL]), [("emulated", "Image")]),
    ],
)
def test_what_has_no_place_is_left_out_or_said_otherwise_and_reported(message, wire, noticed):
    body, notices = encoded([message], Ollama(most_context=None))
    assert body["messages"] == [wire]
    assert kinds(notices) == noticed


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        (user(Audio(data=b"a")), "audio .*; transcribe it first"),
        (user(File(data=b"a", media_type="text/plain")), "a file .*; put its text into the prompt"),
        (user(File(data=b"a", media_type="video/mp4")), "a film .*; send pictures out of it"),
        (user(Image(url="https://x/y.png")), "give its bytes"),
        (user(Thinking(text="hm")), "thinking .*; only a model makes it"),
        (user(ServerItem(kind="search")), "an item of a server's .*; only a model makes it"),
        (user(CALL), "a tool call .*; only a model makes it"),
        (Message("tool", (TextPart(text="a"),)), "text .*; what a tool says goes into its ToolResult"),
    ],
)
def test_what_a_prompt_cannot_say_is_an_error_before_anything_is_sent(message, remedy):
    with pytest.raises(UnsupportedError, match=remedy):
        encoded([message])


# The client's half: answers.

COUNTS = {"prompt_eval_count": 10, "eval_count": 7}
TIMES = {"total_duration": 5, "load_duration": 1, "prompt_eval_duration": 2, "eval_duration": 2}
HEAD = {"model": "m", "created_at": "2026-08-17T15:57:12.772341Z"}
INDEXED = {"id": "c1", "function": {"index": 0, "name": "look", "arguments": {"at": "it"}}}


def answer(message, reason="stop", **fields):
    return {**HEAD, "message": {"role": "assistant", **message}, "done": True, "done_reason": reason, **fields}


ANSWERS: dict[str, tuple[dict[str, Any], list[dict[str, Any]], list[Any], Usage, str]] = {
    "text": (
        answer({"content": "Hello, wörld 🌊!"}, **COUNTS, **TIMES),
        [piece(content="Hello, "), piece(content="wörld 🌊!"), end(**COUNTS, **TIMES)],
        [TextPart(text="Hello, wörld 🌊!")],
        Usage(input=10, output=7),
        "stop",
    ),
    "what was cached": (
        answer({"content": "a"}, **COUNTS, prompt_eval_cached_count=4),
        [piece(content="a"), end(**COUNTS, prompt_eval_cached_count=4)],
        [TextPart(text="a")],
        Usage(input=6, cache_read=4, output=7),
        "stop",
    ),
    "a count that is missing since all was cached": (
        answer({"content": "a"}, eval_count=7),
        [piece(content="a"), end(eval_count=7)],
        [TextPart(text="a")],
        Usage(output=7),
        "stop",
    ),
    "thinking": (
        answer({"content": "42", "thinking": "Let me see."}),
        [piece(thinking="Let me "), piece(thinking="see."), piece(content="42"), end()],
        [Thinking(text="Let me see.", state=ProviderState(NAME, {"field": "thinking"}, "m")), TextPart(text="42")],
        Usage(),
        "stop",
    ),
    "calls": (
        answer({"content": "Both.", "tool_calls": [INDEXED, NAMELESS]}),
        [piece(content="Both."), piece(tool_calls=[INDEXED]), piece(tool_calls=[NAMELESS]), end()],
        [
            TextPart(text="Both."),
            ToolCall(
                name="look",
                input='{"at":"it"}',
                id="c1",
                state=ProviderState(NAME, {"set": {"function.index": 0}}, "m"),
            ),
            ToolCall(name="look", input="{}"),
        ],
        Usage(),
        "tool_calls",
    ),
    "a picture": (
        answer({"content": "a", "images": [PIXEL]}),
        [piece(content="a"), piece(images=[PIXEL]), end()],
        [TextPart(text="a"), Image(data=b"\0\1")],
        Usage(),
        "stop",
    ),
    "probabilities": (
        answer({"content": "ab"}, logprobs=[{"token": "a", "logprob": -1.5}, {"token": "b", "logprob": -0.5}]),
        [
            {**piece(content="a"), "logprobs": [{"token": "a", "logprob": -1.5}]},
            {**piece(content="b"), "logprobs": [{"token": "b", "logprob": -0.5}]},
            end(),
        ],
        [
            TextPart(
                text="ab", notes=tuple({"logprob": {"token": t, "logprob": p}} for t, p in (("a", -1.5), ("b", -0.5)))
            )
        ],
        Usage(),
        "stop",
    ),
    "cut": (
        answer({"content": "a"}, "length"),
        [piece(content="a"), end(done_reason="length")],
        [TextPart(text="a")],
        Usage(),
        "length",
    ),
    "loaded": (answer({"content": ""}, "load"), [end(done_reason="load")], [], Usage(), "unknown"),
    "an old server's end": (
        {name: it for name, it in answer({"content": "a"}).items() if name != "done_reason"},
        [piece(content="a"), {name: it for name, it in end().items() if name != "done_reason"}],
        [TextPart(text="a")],
        Usage(),
        "unknown",
    ),
    "what is unknown": (
        answer({"content": "a", "mood": "good"}, remote_host="https://ollama.com"),
        [{**piece(content="a"), "remote_host": "https://ollama.com"}, piece(mood="good"), end()],
        [TextPart(text="a")],
        Usage(),
        "stop",
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_and_its_stream_sum_to_the_same_and_encode_to_the_answer(name):
    body, pieces, parts, usage, reason = ANSWERS[name]
    pieces = [{**told, "created_at": HEAD["created_at"]} for told in pieces]
    whole = DIALECT.decode_answer(json.dumps(body).encode())
    deltas, error = decoded(lines(*pieces))
    assert error is None
    for some in (whole, deltas):
        message, counted, finishes = total(some)
        assert list(message.parts) == parts
        assert (message.id, message.model) == (None, "m")
        assert counted == usage
        assert finishes == {0: Finish(reason, 0, body.get("done_reason"))}
        assert DIALECT.canonical_answer(told_again(some)) == DIALECT.canonical_answer(body)
        rest, error = decoded(streamed(some))
        assert error is None
        assert total(rest) == total(some)


@pytest.mark.parametrize(
    ("data", "parts", "reason", "error"),
    [
        (lines(piece(content="a"), end())[:-1], ["a"], "stop", None),
        (lines(piece(content="a"), end()).replace(b"\n", b"\r\n\r\n"), ["a"], "stop", None),
        (lines(piece(content="a"), {"status": "loading"}, end()), ["a"], "stop", None),
        (lines(piece(content="a\ud83c"), piece(content="\udf0a!"), end()), ["a🌊!"], "stop", None),
        (lines(piece(content="a\ud83c"), end()), ["a\ud83c"], "stop", None),
        (lines(piece(content="a"), end(), piece(content="b")), ["a"], "stop", None),
        (lines(piece(content="a")), ["a"], None, StreamInterrupted),
        (lines(piece(content="a"), end())[:-20], ["a"], None, StreamInterrupted),
        (lines(piece(content="a"))[:-1], [], None, StreamInterrupted),
        (b"", [], None, StreamInterrupted),
        (lines(piece(content="a"), {"error": "model runner has stopped"}), ["a"], None, ServerError),
        (lines({"error": "slow down", "status": 429}), [], None, RateLimitError),
        (lines(piece(content="a"), [1]), ["a"], None, StreamProtocolError),
        (lines(piece(content="a")) + b"<html>\n", ["a"], None, StreamProtocolError),
        (lines(piece(tool_calls=[{"function": {}}])), [], None, StreamProtocolError),
        (lines(piece(images=["!"])), [], None, StreamProtocolError),
    ],
)
def test_a_stream_ends_whole_or_with_an_error_after_all_that_came(data, parts, reason, error):
    deltas, ending = decoded(data)
    message, _, finishes = total(deltas)
    assert [part.text for part in message.parts] == parts
    assert type(ending) is (error or type(None))
    assert {number: finish.reason for number, finish in finishes.items()} == ({0: reason} if reason else {})
    for size in (1, 7, 50):
        again, other = decoded(data, range(size, len(data), size))
        assert again == deltas
        assert str(other) == str(ending)


def test_what_follows_the_end_of_an_answer_is_not_waited_for():
    decoder = DIALECT.decoder()
    decoder.feed(lines(piece(content="a")))
    assert not decoder.is_over
    decoder.feed(lines(end()))
    assert decoder.is_over
    assert decoder.feed(lines(piece(content="b"))) == []


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", ServerError),
        (b"<html>", ServerError),
        (b"[]", StreamProtocolError),
        (b'{"models": []}', StreamProtocolError),
        (json.dumps(answer({"content": "a"}) | {"done": False}).encode(), StreamInterrupted),
        (json.dumps(answer({"tool_calls": [{}]})).encode(), StreamProtocolError),
        (b'{"error": "llama runner process has terminated"}', ServerError),
    ],
)
def test_a_body_that_is_no_answer_is_an_error(body, error):
    with pytest.raises(error):
        DIALECT.decode_answer(body)


TOO_LONG = "request (351 tokens) exceeds the available context size (256 tokens), try increasing it"
LLAMA = {"code": 400, "message": TOO_LONG, "type": "exceed_context_size_error", "n_prompt_tokens": 351, "n_ctx": 256}


def failure(message, **more):
    return json.dumps({"error": message, **more}).encode()


@pytest.mark.parametrize(
    ("status", "headers", "body", "error", "fields"),
    [
        (400, {}, failure('"m" does not support thinking'), BadRequestError, {"status": 400, "code": None}),
        (401, {}, failure("unauthorized", signin_url="https://x"), AuthenticationError, {}),
        (404, {}, failure("model 'm' not found"), NotFoundError, {"message": "model 'm' not found (HTTP 404)"}),
        (429, {"retry-after": "7"}, failure("usage limit"), RateLimitError, {"retry_after": 7.0}),
        (500, {}, failure("llama runner process has terminated: exit status 2"), ServerError, {"retryable": True}),
        (503, {}, failure("server busy, please try again. maximum pending requests exceeded"), OverloadedError, {}),
        (502, {}, b"<html><title>Bad gateway</title></html>", ServerError, {"status": 502}),
        (503, {}, b"", OverloadedError, {"status": 503}),
        # https://github.com/ollama/ollama/issues/16800: llama.cpp's error, as text.
        (
            400,
            {},
            failure(json.dumps({"error": LLAMA})),
            ContextOverflowError,
            {"prompt_tokens": 351, "context_length": 256, "code": "exceed_context_size_error"},
        ),
        (
            400,
            {},
            failure("the prompt is longer than the context length currently available to the model"),
            ContextOverflowError,
            {"code": None},
        ),
        (500, {}, failure("the input length exceeds the context length"), ContextOverflowError, {"retryable": False}),
    ],
)
def test_an_error_becomes_the_exception_it_means_and_the_same_error_again(status, headers, body, error, fields):
    raised = DIALECT.decode_error(status, headers, body)
    assert type(raised) is error
    assert {name: getattr(raised, name) for name in fields} == fields
    status, body = DIALECT.encode_error(raised)
    again = DIALECT.decode_error(status, {}, body)
    assert (type(again), again.status) == (error, raised.status)
    (line,) = DIALECT.encoder().fail(raised).splitlines()
    assert type(decoded(line + b"\n")[1]) is error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigurationError("x"), 400),
        (UnsupportedError("x"), 400),
        (NotFoundError("x"), 404),
        (OverloadedError("x"), 503),
        (EngineError("x"), 500),
        (DeadlineExceeded("x"), 504),
    ],
)
def test_an_error_of_ours_has_a_status_and_a_text(error, status):
    assert DIALECT.encode_error(error) == (status, b'{"error":"x"}')
    assert json.loads(DIALECT.encoder().fail(error)) == {"error": "x", "status": status}


# The server's half.


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"model": None}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages[0].role"),
        ({"messages": [said("cook", "a")]}, "messages[0].role"),
        ({"messages": [said("user", ["a"])]}, "messages[0].content"),
        ({"messages": [said("user", "a"), said("assistant", thinking=1)]}, "messages[1].thinking"),
        ({"messages": [said("user", images="a")]}, "messages[0].images"),
        ({"messages": [said("user", images=["!"])]}, "messages[0].images[0]"),
        ({"messages": [said("tool", images=[1])]}, "messages[0].images[0]"),
        ({"messages": [said("assistant", tool_calls={})]}, "messages[0].tool_calls"),
        ({"messages": [said("assistant", tool_calls=[{"function": {}}])]}, "messages[0].tool_calls[0].function.name"),
        ({"tools": {}}, "tools"),
        ({"tools": [7]}, "tools[0].function.name"),
        ({"tools": [{"type": "function"}]}, "tools[0].function.name"),
        ({"format": "yaml"}, "format"),
        ({"think": 7}, "think"),
        ({"options": []}, "options"),
        (options(temperature="hot"), "options.temperature"),
        (options(stop=["a", 1]), "options.stop[1]"),
        (options(num_predict=1.5), "options.num_predict"),
        ({"logprobs": 3}, "logprobs"),
    ],
)
def test_a_wrong_request_is_refused_and_told_where(change, where):
    with pytest.raises(BadRequestError) as caught:
        DIALECT.decode_request(json.dumps({**plain(), **change}).encode())
    assert str(caught.value).startswith(f"{where}: ")
    assert caught.value.status == 400


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff"])
def test_a_body_that_is_no_object_is_refused(body):
    with pytest.raises(BadRequestError):
        DIALECT.decode_request(body)


def asked(**fields):
    return DIALECT.decode_request(json.dumps(plain(**fields)).encode())


def test_a_request_is_read_in_portable_words():
    request = asked(
        think="low",
        format={"title": "Place", **OBJECT},
        tools=[WIRE_TOOL],
        logprobs=True,
        top_logprobs=2,
        options={
            "temperature": 0,
            "top_p": 0.9,
            "top_k": 3.0,
            "min_p": 0.1,
            "seed": 4,
            "num_predict": 99,
            "stop": "a",
            "repeat_penalty": 1.1,
            "presence_penalty": 0.1,
            "frequency_penalty": 0.2,
        },
        messages=[
            said("system", "Be brief."),
            said("user", "hi", images=[PIXEL]),
            said("assistant", "a", thinking="hm", tool_calls=[WIRE_CALL]),
            WIRE_RESULT,
            said("tool", "b", tool_name="wait"),
        ],
    )
    assert request.messages == (
        system("Be brief."),
        user("hi", Image(data=b"\0\1")),
        assistant(THOUGHT, "a", msgspec.structs.replace(CALL, input='{"at":"it"}')),
        Message("tool", (RESULT, ToolResult(call_id=None, name="wait", content=(TextPart(text="b"),)))),
    )
    assert request.tools == (TOOL,)
    assert request.schema == OutputSchema("Place", {"title": "Place", **OBJECT})
    assert (request.model, request.stream, request.thinking, request.stop) == ("m", False, "low", ("a",))
    assert (request.max_tokens, request.temperature, request.top_p, request.top_k) == (99, 0, 0.9, 3)
    assert (request.min_p, request.seed, request.logprobs, request.top_logprobs) == (0.1, 4, True, 2)
    assert (request.repetition_penalty, request.presence_penalty, request.frequency_penalty) == (1.1, 0.1, 0.2)
    # Of a picture's size nothing is known, so that room would be made for one; the client did not ask for it.
    assert request.state == own(unset=["options.num_ctx"])
    assert asked(think="max").thinking is True
    assert asked(think=False).thinking is False
    assert asked(options={"num_predict": -1}).max_tokens is None
    assert DIALECT.decode_request(b'{"model": "m"}').stream is True


def round_trip(body):
    http, _ = DIALECT.encode_request(DIALECT.decode_request(json.dumps(body).encode()))
    return json.loads(http.body)


def without(body, *names):
    return {name: value for name, value in body.items() if name not in names}


EQUAL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a stream is wanted unless it is not": (without(plain(), "stream"), plain(stream=True)),
    "null is absent": (plain(stream=None, think=None, keep_alive=None), plain(stream=True)),
    "no messages are none": (without(plain(), "messages"), plain(messages=[])),
    "an empty format is none": (plain(format=""), plain()),
    "no tools are none": (plain(tools=[]), plain()),
    "no options are none": (plain(options={}), plain()),
    "an option that is null is absent": (plain(options={"seed": None, "top_k": 1}), plain(options={"top_k": 1})),
    "a stop string is a list of it": (plain(options={"stop": "a"}), plain(options={"stop": ["a"]})),
    "no content is an empty one": (
        plain(messages=[{"role": "assistant", "tool_calls": [WIRE_CALL]}]),
        plain(messages=[said("assistant", tool_calls=[WIRE_CALL])]),
    ),
    "what is empty in a message is absent": (
        plain(messages=[said("user", "a", images=[], tool_calls=[], thinking="", tool_name="", tool_call_id="")]),
        plain(messages=[said("user", "a")]),
    ),
    "null is absent: in a message, a call and a tool": (
        plain(
            messages=[
                said("assistant", None, tool_calls=[{"id": None, "function": {**NAMELESS["function"], "index": None}}])
            ],
            tools=[{**WIRE_TOOL, "items": None, "function": {**WIRE_TOOL["function"], "strict": None}}],
        ),
        plain(messages=[said("assistant", tool_calls=[NAMELESS])], tools=[WIRE_TOOL]),
    ),
}


@pytest.mark.parametrize("name", EQUAL)
def test_two_spellings_of_one_request_are_one(name):
    one, other = EQUAL[name]
    canonical = DIALECT.canonical_request(one)
    assert canonical == DIALECT.canonical_request(other)
    assert round_trip(one) == round_trip(other) == canonical
    assert DIALECT.canonical_request(canonical) == canonical


# What differs and must not be made the same; a value on the right is kept where it stands.
KEPT: list[dict[str, Any]] = [
    without(plain(), "truncate", "shift"),
    plain(truncate=True, shift=True),
    plain(messages=[said("user", "x" * 10_000)]),
    plain(messages=[said("user", "x" * 10_000)], options={"num_ctx": 100, "mirostat": 2}),
    plain(options={"num_predict": -2, "stop": [], "temperature": 0}, keep_alive=-1, _debug_render_only=True),
    plain(format="json", think="max"),
    plain(format={}, think="minimal"),
    plain(format={"$schema": "x", "title": "T", "type": "object", "properties": {"a": {"default": None}}}),
    plain(messages=[said("assistant", tool_calls=[{"id": "", "type": "function", "function": {"name": "a"}}])]),
    plain(messages=[said("assistant", tool_calls=[{"function": {"name": "a", "arguments": {"b": None, "c": [1.5]}}}])]),
    plain(messages=[said("assistant", tool_calls=[{"function": {"name": "a", "arguments": '{"b": 1}', "index": 3}}])]),
    plain(messages=[said("assistant", tool_calls=[{"function": {"name": "a", "arguments": [1]}}], mood="good")]),
    plain(messages=[said("assistant", tool_calls=[WIRE_CALL]), said("tool", "seen", tool_call_id="c1")]),
    plain(messages=[said("assistant", tool_calls=[NAMELESS]), said("tool", "seen"), said("tool", "x", tool_name="y")]),
    plain(messages=[said("tool", "seen", thinking="t", tool_calls=[NAMELESS], name="n")]),
    plain(messages=[said("user", "a", thinking="t", tool_calls=[7], images=["AB=="])]),
    plain(tools=[{"function": {"name": "a"}}, {**WIRE_TOOL, "strict": True}]),
    plain(tools=[{"type": "x", "function": {"name": "a", "description": "", "parameters": {}, "y": {"z": None}}}]),
]


@pytest.mark.parametrize("body", KEPT)
def test_nothing_else_differs_when_a_request_is_read_and_sent_again(body):
    assert DIALECT.canonical_request(body) == body
    assert round_trip(body) == body


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"content": None, "thinking": "", "tool_calls": [], "images": []}, {"content": ""}),
        ({"tool_calls": [{**NAMELESS, "id": None}]}, {"content": "", "tool_calls": [NAMELESS]}),
    ],
)
def test_two_spellings_of_one_answer_are_one(one, other):
    bodies = [answer(one, eval_count=None), answer(other)]
    canonical = DIALECT.canonical_answer(bodies[0])
    assert canonical == DIALECT.canonical_answer(bodies[1])
    for body in bodies:
        deltas = DIALECT.decode_answer(json.dumps(body).encode())
        assert DIALECT.canonical_answer(told_again(deltas)) == canonical


def test_an_answer_of_another_model_is_told_as_one_of_ours():
    message = assistant(Thinking(text="hm"), ServerItem(kind="search"), "a", Refusal(text="no"), Value(value=[1]), CALL)
    response = msgspec.structs.replace(
        response_of("other", [Head("id", "m"), Count(Usage(input=1, cache_read=2, output=3, reasoning=4))]),
        message=message,
        finish_reason="tool_calls",
    )
    assert json.loads(DIALECT.encode_response(response)) == {
        "model": "m",
        "message": {"role": "assistant", "content": "ano[1]", "thinking": "hm", "tool_calls": [WIRE_CALL]},
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": 3,
        "prompt_eval_cached_count": 2,
        "eval_count": 7,
    }
    for part in (Image(url="https://x/y"), Audio(data=b"a"), File(data=b"a")):
        with pytest.raises(UnsupportedError):
            DIALECT.encode_response(msgspec.structs.replace(response, message=assistant(part)))
    with pytest.raises(UnsupportedError):
        streamed([Open(0, "audio"), Blob(0, b"a")])


def test_a_call_is_told_when_it_is_complete():
    deltas = [
        *[Head("id", "m"), Open(0, "call", None, None), Text(0, '{"at"'), Open(1, "text"), Text(1, "a")],
        *[Open(2, "call", "c2", "wait"), Open(3, "text", choice=1), Text(3, "not ours"), State(0, {}, "c1", "look")],
        *[Event({}), Text(0, ': "it"}'), Close(0), Finish("tool_calls"), Finish("length", choice=1)],
    ]
    told = [json.loads(line) for line in streamed(deltas).splitlines()]
    waited = {"id": "c2", "function": {"name": "wait", "arguments": {}}}
    assert told == [
        piece(content="a"),
        piece(tool_calls=[WIRE_CALL]),
        piece(tool_calls=[waited]),
        end(),
    ]


def test_an_answer_with_nothing_in_it_has_an_end():
    told = {"message": {"role": "assistant", "content": ""}, "done": True}
    assert [json.loads(line) for line in streamed([]).splitlines()] == [told]


def test_a_call_that_stays_without_a_name_is_an_error():
    with pytest.raises(StreamProtocolError):
        streamed([Open(0, "call", "a"), Text(0, "{}"), Close(0)])


def test_what_the_wire_said_of_a_call_goes_back_to_it_and_to_nobody_else():
    call = total(DIALECT.decode_answer(json.dumps(answer({"tool_calls": [INDEXED]})).encode()))[0]
    body, notices = encoded([call])
    assert body["messages"][0]["tool_calls"] == [INDEXED]
    assert notices == ()
    told = json.loads(DIALECT.encode_response(msgspec.structs.replace(response_of(NAME, []), message=call)))
    assert told["message"]["tool_calls"] == [INDEXED]


# Laws.

words = st.text(max_size=12)
shown = words.filter(bool)
names = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
jsons = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(words, jsons, max_size=3)
extras = st.dictionaries(st.sampled_from(["x", "mood"]), jsons.filter(lambda v: v is not None), max_size=2)


def state_of(patch):
    return own(set=patch) if patch else None


texts = st.builds(lambda text: TextPart(text=text), shown)
images = st.builds(lambda data: Image(data=data), st.binary())
thoughts = st.builds(lambda text: Thinking(text=text, state=own(field="thinking")), shown)
calls = st.builds(
    lambda name, value, patch: ToolCall(name=name, input=encode_json(value).decode(), state=state_of(patch)),
    names,
    objects,
    extras,
)


def prompts(role):
    """A message as this format has it: one text, then images."""
    return st.builds(
        lambda text, pictures, patch: Message(role, (*text, *pictures), state=state_of(patch)),
        st.lists(texts, max_size=1),
        st.lists(images, max_size=2),
        extras,
    )


@st.composite
def histories(draw):
    """Messages as a conversation has them: calls have ids, and are answered."""
    messages = [draw(prompts("system"))] if draw(st.booleans()) else []
    for turn in range(draw(st.integers(1, 3))):
        messages.append(draw(prompts("user")))
        made = [
            msgspec.structs.replace(call, id=f"c{turn}.{number}")
            for number, call in enumerate(draw(st.lists(calls, max_size=2)))
        ]
        thought, text = draw(st.lists(thoughts, max_size=1)), draw(st.lists(texts, max_size=1))
        messages.append(Message("assistant", (*thought, *text, *made), state=state_of(draw(extras))))
        if made:
            results = [
                ToolResult(
                    call_id=call.id, name=call.name, content=draw(prompts("tool")).parts, state=state_of(draw(extras))
                )
                for call in made
            ]
            messages.append(Message("tool", tuple(results)))
    return tuple(messages)


tools = st.builds(lambda name, text, patch: ToolSpec(name, text, OBJECT, state_of(patch)), names, words, extras)
floats = st.none() | st.floats(0, 2)
requests = st.builds(
    Request,
    model=words,
    messages=histories(),
    tools=st.lists(tools, max_size=2).map(tuple),
    schema=st.none() | st.just(OutputSchema("answer", OBJECT)),
    stream=st.booleans(),
    temperature=floats,
    top_p=floats,
    top_k=st.none() | st.integers(1, 100),
    min_p=floats,
    max_tokens=st.none() | st.integers(1, 50_000),
    stop=st.none() | st.lists(words, max_size=2).map(tuple),
    seed=st.none() | st.integers(0, 99),
    repetition_penalty=floats,
    thinking=st.none() | st.booleans() | st.sampled_from(["low", "medium", "high"]),
    logprobs=st.none() | st.booleans(),
    top_logprobs=st.none() | st.integers(0, 20),
)


@given(requests)
@settings(max_examples=150, deadline=None)
def test_a_request_comes_back_but_for_what_the_report_names(request):
    http, notices = DIALECT.encode_request(request)
    back = DIALECT.decode_request(http.body)
    assert {notice.subject for notice in notices} <= {"num_ctx"}
    # A context that was asked for by itself would be so again.
    assert back == request
    assert DIALECT.encode_request(back)[0].body == http.body


def with_more(inner):
    return st.builds(lambda patch, value: {**patch, **value}, st.dictionaries(names, jsons, max_size=2), inner)


functions = st.fixed_dictionaries(
    {"name": names},
    optional={"arguments": objects | jsons, "index": jsons, "description": words, "parameters": objects},
)
holders = with_more(st.fixed_dictionaries({"function": functions}, optional={"id": words | st.none(), "type": words}))
wire_messages = with_more(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "assistant", "system", "tool"])},
        optional={
            "content": words | st.none(),
            "thinking": words | st.none(),
            "images": st.lists(st.sampled_from([PIXEL, "", "AAAA", "AB=="]), max_size=2) | st.none(),
            "tool_calls": st.lists(holders, max_size=2),
            "tool_name": words,
            "tool_call_id": words | st.none(),
        },
    )
)
bodies = with_more(
    st.fixed_dictionaries(
        {"model": words},
        optional={
            "messages": st.lists(wire_messages, max_size=4),
            "stream": st.booleans() | st.none(),
            "tools": st.lists(holders, max_size=2),
            "format": objects | st.sampled_from(["", "json", None]),
            "think": st.sampled_from([True, False, "low", "minimal", "max", None]),
            "options": st.fixed_dictionaries(
                {},
                optional={
                    "temperature": numbers | st.none(),
                    "num_predict": st.integers(-2, 9000),
                    "num_ctx": st.integers(1, 9000) | st.none(),
                    "stop": words | st.lists(words, max_size=2),
                    "x": jsons,
                },
            ),
            "truncate": st.booleans() | st.none(),
            "keep_alive": jsons,
        },
    )
)


@given(bodies)
@settings(max_examples=150, deadline=None)
def test_every_request_that_is_read_is_the_same_when_it_is_sent_again(body):
    try:
        request = DIALECT.decode_request(json.dumps(body).encode())
    except BadRequestError:
        assume(False)
    again = json.loads(DIALECT.encode_request(request)[0].body)
    assert same(again, DIALECT.canonical_request(body)), (again, DIALECT.canonical_request(body))


answers = with_more(
    st.fixed_dictionaries(
        {
            "message": with_more(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "role": words,
                        "content": words | jsons,
                        "thinking": words | jsons,
                        "images": st.lists(st.sampled_from([PIXEL, "AB=="]), max_size=2),
                        "tool_calls": st.lists(holders, max_size=2),
                    },
                )
            )
        },
        optional={
            "model": words,
            "done": st.sampled_from([True, None, "yes"]),
            "done_reason": st.sampled_from(["stop", "length", "load", "new", None]) | jsons,
            "prompt_eval_count": st.integers(0, 99) | jsons,
            "prompt_eval_cached_count": st.integers(0, 150),
            "eval_count": st.integers(0, 99),
            "logprobs": st.lists(objects, max_size=2) | jsons,
        },
    )
)


@given(answers)
@settings(max_examples=150, deadline=None)
def test_every_answer_that_is_read_is_the_same_when_it_is_told_again(body):
    assume(not body.get("error"))
    deltas = DIALECT.decode_answer(json.dumps(body).encode())
    again = told_again(deltas)
    canonical = DIALECT.canonical_answer(again)
    assert same(canonical, DIALECT.canonical_answer(body)), (canonical, DIALECT.canonical_answer(body))


@st.composite
def delta_streams(draw):
    """Deltas as a decoder may give them: one text and one thinking in pieces, and calls whole or interleaved."""
    openings = [Open(number, kind) for number, kind in enumerate(draw(st.permutations(["thinking", "text"])))]
    openings = [
        msgspec.structs.replace(o, state={"field": "thinking"} if o.kind == "thinking" else None) for o in openings
    ]
    deltas = [Head(None, "m"), *openings]
    for _ in range(draw(st.integers(1, 6))):
        part = draw(st.integers(0, 1))
        deltas.append(Text(part, draw(shown)))
        if draw(st.booleans()):
            deltas.append(Note(part, {"logprob": draw(objects)}))
    # A part that says nothing is none here.
    for part in (0, 1):
        assume(any(isinstance(delta, Text) and delta.part == part for delta in deltas))
    firsts = [next(at for at, delta in enumerate(deltas) if delta == opening) for opening in openings]
    assume(firsts == sorted(firsts))
    queues = []
    for part in range(2, 2 + draw(st.integers(0, 3))):
        pieces = [Text(part, text) for text in ('{"a"', ":", "1}")]
        if draw(st.booleans()):
            pieces.insert(draw(st.integers(0, 3)), State(part, {}, id=f"c{part}"))
        deltas.append(Open(part, "call", None, draw(names)))
        queues.append(pieces)
    while any(queues):
        deltas.append(draw(st.sampled_from([queue for queue in queues if queue])).pop(0))
    deltas += [Close(part) for part in range(2, 2 + len(queues))]
    counts = st.none() | st.integers(0, 99)
    deltas.append(Count(Usage(input=draw(st.integers(0, 99)), cache_read=draw(counts), output=draw(st.integers(0, 9)))))
    reason = "tool_calls" if queues else draw(st.sampled_from(["stop", "length"]))
    return [*deltas, Finish(reason, raw="stop" if reason == "tool_calls" else reason)]


def outline(message):
    return [
        (type(part).__name__, getattr(part, "name", None), getattr(part, "input", getattr(part, "text", None)))
        for part in message.parts
    ]


@given(delta_streams(), st.data())
@settings(max_examples=150, deadline=None)
def test_the_sum_of_deltas_survives_being_a_stream_however_it_is_cut(deltas, data):
    told = streamed(deltas)
    cuts = data.draw(st.lists(st.integers(0, len(told)), max_size=5))
    again, error = decoded(told, cuts)
    assert error is None
    message, usage, finishes = total(deltas)
    back, counted, ends = total(again)
    # Whichever of the two texts speaks first is the first part.
    assert sorted(outline(back)[:2]) == sorted(outline(message)[:2])
    assert outline(back)[2:] == outline(message)[2:]
    assert (counted, ends) == (usage, finishes)
    assert again == decoded(told)[0]
    assert total(decoded(streamed(again))[0]) == total(again)


def survive(deltas):
    """What comes after a decoder raises nothing foreign either."""
    try:
        DIALECT.encode_response(response_of(NAME, deltas))
        streamed(deltas)
    except SabirError:
        pass


STREAMS = [pieces for _, pieces, *_ in ANSWERS.values()]


@given(st.sampled_from(STREAMS), st.data())
@settings(max_examples=150, deadline=None)
def test_a_stream_with_anything_anywhere_raises_only_errors_of_the_family(told, data):
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(values_in(told))[1:]))
        new = data.draw(jsons | st.sampled_from([[], {}, "tool", True, 10**400, -1, "\ud83c"]))
        try:
            told = replaced(told, path, new)
        except (KeyError, TypeError, IndexError):
            continue
    survive(decoded(lines(*told))[0])
    for piece_ in told:
        try:
            survive(DIALECT.decode_answer(json.dumps(piece_).encode()))
        except SabirError:
            pass


@given(st.binary() | st.sampled_from(STREAMS).map(lambda pieces: lines(*pieces)), st.data())
@settings(max_examples=150, deadline=None)
def test_random_bytes_raise_only_errors_of_the_family(body, data):
    for _ in range(data.draw(st.integers(0, 5))):
        at = data.draw(st.integers(0, len(body)))
        body = body[:at] + data.draw(st.binary(max_size=3)) + body[at + data.draw(st.integers(0, 3)) :]
    deltas, _ = decoded(body)
    survive(deltas)
    for attempt in (DIALECT.decode_answer, DIALECT.decode_request):
        try:
            attempt(body)
        except SabirError:
            pass
    assert isinstance(DIALECT.decode_error(400, {}, body), SabirError)


@pytest.mark.parametrize("depth", [100, 500, 990, 5000, 100_000])
def test_what_is_nested_deeply_raises_only_errors_of_the_family(depth):
    deep = "[" * depth + "]" * depth
    message = '{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":{"a":' + deep + "}}}]}"
    for body in ('{"message":' + message + ',"done":true}', '{"error":' + deep + "}"):
        survive(decoded(body.encode())[0])
        try:
            survive(DIALECT.decode_answer(body.encode()))
        except SabirError:
            pass
    try:
        DIALECT.encode_request(DIALECT.decode_request(('{"model":"m","messages":[' + message + "]}").encode()))
    except SabirError:
        pass


# Lines.


def test_lines_are_split_at_lf_and_blank_ones_passed_over():
    stream = LineStream()
    assert list(stream.feed(b"a\n\n \r\nb\r\nc")) == [b"a", b"b\r"]
    assert stream.rest == b"c"
    assert list(stream.feed(b"d")) == []
    assert list(stream.feed(b"\ne")) == [b"cd"]
    assert stream.rest == b"e"
    assert list(stream.feed(b"")) == []


@given(st.binary(max_size=60).map(lambda data: data.replace(b"x", b"\n")), st.lists(st.integers(0, 60), max_size=6))
@settings(deadline=None)
def test_any_cut_of_any_bytes_gives_the_same_lines(data, cuts):
    stream, places = LineStream(), sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    found = [line for start, end in pairwise(places) for line in stream.feed(data[start:end])]
    *whole, rest = data.split(b"\n")
    assert found == [line for line in whole if line.strip()]
    assert stream.rest == rest


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory_and_after_the_lines_before_it(monkeypatch):
    monkeypatch.setattr(ndjson, "MAX_LINE", 1000)
    decoder = DIALECT.decoder()
    assert decoder.feed(lines(piece(content="a")) + b" " * 1001)[-1] == Text(0, "a")
    assert decoder.is_over
    with pytest.raises(StreamProtocolError, match="1000 bytes"):
        decoder.close()


# Recordings: what real servers said, read here once more without the dialect.


def recorded():
    if not RECORDINGS.exists():
        return []
    return [json.loads(line) for line in RECORDINGS.read_bytes().splitlines()]


CHATS = [exchange for exchange in recorded() if exchange["endpoint"] == "chat"]
needs_recordings = pytest.mark.skipif(not CHATS, reason=f"no recordings at {RECORDINGS}")


@needs_recordings
@pytest.mark.parametrize("exchange", CHATS, ids=lambda exchange: exchange["id"])
def test_a_recorded_exchange_is_understood_and_told_again(exchange):
    body = exchange["response"]["body"]
    if isinstance(body, str):
        pieces, data = [json.loads(line) for line in body.splitlines()], body.encode()
        deltas, error = decoded(data)
        assert error is None
        for size in (1, 997) if len(data) < 30_000 else (997,):
            assert decoded(data, range(size, len(data), size)) == (deltas, None)
    else:
        pieces, deltas = [body], DIALECT.decode_answer(json.dumps(body).encode())
    message, usage, finishes = total(deltas)
    told = [each["message"] for each in pieces]
    assert message.text == "".join(each["content"] for each in told)
    assert message.thinking == "".join(each.get("thinking") or "" for each in told)
    made = [call for each in told for call in each.get("tool_calls") or []]
    found = [(call.id, call.name, call.arguments) for call in message.tool_calls]
    assert found == [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in made]
    last = pieces[-1]
    assert (usage.input_tokens, usage.output_tokens) == (last["prompt_eval_count"], last["eval_count"])
    assert (finishes[0].reason, finishes[0].raw) == ("tool_calls" if made else last["done_reason"], last["done_reason"])
    again = told_again(deltas)
    assert without(again, "message") == without(last, "message")
    assert again["message"]["content"] == message.text
    asked_for = exchange["request"]["body"]
    assert same(DIALECT.canonical_request(round_trip(asked_for)), DIALECT.canonical_request(asked_for))
