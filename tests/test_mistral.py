"""Mistral's chat completions, both halves: what is sent, what is understood, and that nothing is lost on the way."""

from __future__ import annotations

import json
import re
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

from sabir.deltas import Assembler, Blob, Close, Count, Finish, Head, Note, Open, State, Text
from sabir.dialects import Unsupported, response_of
from sabir.dialects.mistral import NAME, Mistral
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

RECORDINGS = Path(__file__).resolve().parent.parent.parent / "shared" / "recordings" / "mistral.jsonl"
DIALECT = Mistral()
streamed = partial(halves.streamed, DIALECT)
CLOSED = {
    "type": "object",
    "properties": {"x": {"type": "integer"}},
    "required": ["x"],
    "additionalProperties": False,
}
TOOL = ToolSpec("look", "Look around.", CLOSED)
WIRE_TOOL = {"type": "function", "function": {"name": "look", "description": "Look around.", "parameters": CLOSED}}
PIXEL = b64encode(b"\0\1").decode()
FOREIGN = ProviderState("openai_chat", {"set": {"store": True}})
HELLO = (user("hi"),)


def own(**value):
    return ProviderState(NAME, value)


def kinds(notices):
    return [(notice.kind, notice.subject) for notice in notices]


def encoded(messages=HELLO, **fields):
    request = Request(model=fields.pop("model", "m"), messages=tuple(messages), **fields)
    http, notices = DIALECT.encode_request(request)
    return json.loads(http.body), notices


def plain(**fields):
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}


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


def total(deltas):
    assembler = Assembler(NAME)
    for delta in deltas:
        assembler.add(delta)
    return assembler.choices, assembler.usage, assembler.finishes


def told_again(deltas):
    return json.loads(DIALECT.encode_response(response_of(NAME, deltas)))


def events(data):
    return [json.loads(line[6:]) for line in data.decode().splitlines() if line.startswith("data: {")]


def sse(*chunks, done=True):
    return b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in chunks) + b"data: [DONE]\n\n" * done


def chunk(*, index=0, reason=None, **delta):
    choice = {"index": index, "delta": delta, "finish_reason": reason}
    return {"id": "1", "object": "chat.completion.chunk", "created": 5, "model": "m", "choices": [choice], "p": "abc"}


# The client's half: requests.


def test_a_request_is_posted_with_the_callers_headers():
    http, notices = DIALECT.encode_request(Request(model="m", messages=HELLO, headers={"x-a": "b"}))
    assert (http.method, http.url) == ("POST", "/chat/completions")
    assert http.headers == (("content-type", "application/json"), ("x-a", "b"))
    assert json.loads(http.body) == plain()
    assert notices == ()


FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": CLOSED, "strict": True}}
OPTIONS: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
    ({"temperature": 0.0}, {"temperature": 0.0}),
    ({"top_p": 0.5}, {"top_p": 0.5}),
    ({"top_k": 5}, {"top_k": 5}),
    ({"min_p": 0.5}, None),
    ({"max_tokens": 7}, {"max_tokens": 7}),
    ({"stop": ("a", "b")}, {"stop": ["a", "b"]}),
    ({"seed": 0}, {"random_seed": 0}),
    ({"frequency_penalty": 0.5}, {"frequency_penalty": 0.5}),
    ({"presence_penalty": 0.5}, {"presence_penalty": 0.5}),
    ({"repetition_penalty": 1.5}, {"repetition_penalty": 1.5}),
    ({"thinking": True}, {"reasoning_effort": "high"}),
    ({"thinking": False}, {"reasoning_effort": "none"}),
    ({"thinking": "high"}, {"reasoning_effort": "high"}),
    ({"tool_choice": "auto"}, {"tool_choice": "auto"}),
    ({"tool_choice": "none"}, {"tool_choice": "none"}),
    ({"tool_choice": "required"}, {"tool_choice": "any"}),
    ({"tool_choice": "look"}, {"tool_choice": {"type": "function", "function": {"name": "look"}}}),
    ({"parallel_tool_calls": False}, {"parallel_tool_calls": False}),
    ({"logprobs": True}, {"logprobs": True}),
    ({"top_logprobs": 5}, {"top_logprobs": 5}),
    ({"n": 2}, {"n": 2}),
    ({"user": "ada"}, None),
    ({"documents": ("It rained.",)}, None),
    ({"documents": ("a",)}, None),
    ({"stream": True}, {"stream": True}),
    ({"extra": {"safe_prompt": True, "prompt_mode": "reasoning"}}, {"safe_prompt": True, "prompt_mode": "reasoning"}),
    ({"schema": OutputSchema("answer", CLOSED)}, {"response_format": FORMAT}),
]


@pytest.mark.parametrize(("asked", "sent"), OPTIONS)
def test_an_option_is_sent_in_mistrals_words_or_reported(asked, sent):
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


@pytest.mark.parametrize(
    ("model", "asked", "sent", "noticed"),
    [
        ("m", "minimal", {"reasoning_effort": "high"}, [("emulated", "thinking")]),
        ("m", 1, {"reasoning_effort": "high"}, [("emulated", "thinking")]),
        ("mistral-large-4-0", 1, {"reasoning_effort": "low"}, [("emulated", "thinking")]),
        ("mistral-large-4-0", 8192, {"reasoning_effort": "medium"}, [("emulated", "thinking")]),
        ("mistral-large-4-0", 8193, {"reasoning_effort": "high"}, [("emulated", "thinking")]),
        ("mistral-large-4-0", False, {}, [("unsupported", "thinking")]),
        ("mistral-medium-latest", False, {"reasoning_effort": "none"}, []),
        ("mistral-medium-2508", False, {}, []),
        ("mistral-medium-3.5", True, {"reasoning_effort": "high"}, []),
        ("open-mistral-nemo", "low", {}, [("unsupported", "thinking")]),
        ("magistral-medium-latest", True, {"prompt_mode": "reasoning"}, []),
        ("magistral-medium-latest", "low", {"prompt_mode": "reasoning"}, [("emulated", "thinking")]),
        ("magistral-medium-latest", False, {}, [("unsupported", "thinking")]),
    ],
)
def test_a_model_is_asked_to_think_as_it_can(model, asked, sent, noticed):
    body, notices = encoded(model=model, thinking=asked)
    assert body == plain(model=model, **sent)
    assert kinds(notices) == noticed


def test_a_schema_that_cannot_be_enforced_is_a_guide():
    schema = {"type": "object", "properties": {"x": {}}}
    body, notices = encoded(schema=OutputSchema("answer", schema))
    assert body["response_format"]["json_schema"] == {"name": "answer", "schema": schema, "strict": False}
    assert kinds(notices) == [("emulated", "schema")]


def test_a_tool_that_another_provider_runs_is_an_error_and_mistrals_is_sent_as_it_is():
    image = {"type": "image_generation"}
    body, _ = encoded(
        tools=(TOOL, ToolSpec("image_generation", state=own(set=image, unset=["function"])), ToolSpec("wait"))
    )
    nothing = {"type": "function", "function": {"name": "wait", "parameters": {"type": "object", "properties": {}}}}
    assert body["tools"] == [WIRE_TOOL, image, nothing]
    with pytest.raises(UnsupportedError, match="run by openai_chat"):
        encoded(tools=(ToolSpec("search", state=FOREIGN),))


# The history.

REFERENCE = {"type": "reference", "reference_ids": [1, "a"]}
CITED = TextPart(text="It rained.", notes=(REFERENCE,))
THOUGHT = Thinking(text="hm", state=own(field="content", set={"closed": True, "signature": "c2ln"}))
WIRE_THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "closed": True, "signature": "c2ln"}
CALL = ToolCall(name="look", input='{"at": "it"}', id="aX2gaLIyo")
WIRE_CALL = {"id": "aX2gaLIyo", "type": "function", "function": {"name": "look", "arguments": '{"at": "it"}'}}
RESULT = ToolResult(call_id="aX2gaLIyo", name="look", content=(TextPart(text="seen"),))
WIRE_RESULT = {"role": "tool", "tool_call_id": "aX2gaLIyo", "content": "seen"}


def text(words, **more):
    return {"type": "text", "text": words, **more}


def said(role, content="", **more):
    return {"role": role, "content": content, **more}


MESSAGES = [
    ([user("a", "b")], [said("user", [text("a"), text("b")])]),
    ([system("a"), user(Value(value={"a": None}))], [said("system", "a"), said("user", '{"a":null}')]),
    (
        [user("a", Image(data=b"\0\1", media_type="image/webp"), Image(url="https://x/y", detail="low"))],
        [
            said(
                "user",
                [
                    text("a"),
                    {"type": "image_url", "image_url": {"url": f"data:image/webp;base64,{PIXEL}"}},
                    {"type": "image_url", "image_url": {"url": "https://x/y", "detail": "low"}},
                ],
            )
        ],
    ),
    (
        [user(Audio(data=b"\0\1"), Audio(url="https://x/y.mp3"))],
        [said("user", [{"type": "input_audio", "input_audio": told} for told in (PIXEL, "https://x/y.mp3")])],
    ),
    (
        [user(File(data=b"\0\1", name="a.pdf"), File(url="https://x/y"), File(id="f"))],
        [
            said(
                "user",
                [
                    {
                        "type": "document_url",
                        "document_url": f"data:application/pdf;base64,{PIXEL}",
                        "document_name": "a.pdf",
                    },
                    {"type": "document_url", "document_url": "https://x/y"},
                    {"type": "file", "file_id": "f"},
                ],
            )
        ],
    ),
    (
        [assistant(THOUGHT, CITED, "b", CALL), Message("tool", (RESULT,)), user("c")],
        [
            said("assistant", [WIRE_THOUGHT, text("It rained."), REFERENCE, text("b")], tool_calls=[WIRE_CALL]),
            WIRE_RESULT,
            said("user", "c"),
        ],
    ),
    (
        [assistant(CALL), Message("tool", (RESULT, RESULT))],
        [said("assistant", tool_calls=[WIRE_CALL]), WIRE_RESULT, WIRE_RESULT],
    ),
    (
        [assistant(ServerItem(kind="tool_file", state=own(set={"file_id": None})), "a"), user("b")],
        [said("assistant", [{"type": "tool_file", "file_id": None}, text("a")]), said("user", "b")],
    ),
    # What the model is to go on with.
    ([user("Write."), assistant("Once upon")], [said("user", "Write."), said("assistant", "Once upon", prefix=True)]),
]


@pytest.mark.parametrize(("messages", "wire"), MESSAGES)
def test_a_history_is_sent_part_by_part(messages, wire):
    body, notices = encoded(messages)
    assert body["messages"] == wire
    assert notices == ()


@pytest.mark.parametrize("call_id", ["call_0", "toolu_01A09q90qw90lq917835lq9", "", "aX2gaLIy", "aX2gaLIy-", "é" * 9])
def test_the_ids_of_calls_are_made_such_as_mistral_takes(call_id):
    call = ToolCall(name="look", id=call_id, synthetic=call_id == "call_0")
    other = ToolCall(name="look", id=call_id + "x")
    results = tuple(ToolResult(call_id=each.id, name="look", content=()) for each in (call, other))
    for _ in range(2):
        body, notices = encoded([assistant(call, other), Message("tool", results), *HELLO])
        made = [each["id"] for each in body["messages"][0]["tool_calls"]]
        assert all(re.fullmatch("[a-zA-Z0-9]{9}", each) for each in made)
        assert [each["tool_call_id"] for each in body["messages"][1:3]] == made
        assert len(set(made)) == 2
        assert kinds(notices) == [("emulated", "id")]


def test_an_id_that_mistral_gave_goes_back_as_it_is():
    (message,), *_ = total(
        decoded(sse(chunk(tool_calls=[{**WIRE_CALL, "id": "chatcmpl-tool-9f"}], reason="tool_calls")))[0]
    )
    result = ToolResult(call_id="chatcmpl-tool-9f", name="look", content=())
    body, notices = encoded([message, Message("tool", (result,)), *HELLO])
    assert body["messages"][0]["tool_calls"][0]["id"] == "chatcmpl-tool-9f"
    assert body["messages"][1]["tool_call_id"] == "chatcmpl-tool-9f"
    assert notices == ()


@pytest.mark.parametrize(
    ("message", "content", "noticed"),
    [
        (assistant("a", Thinking(text="hm")), "a", [("dropped", "Thinking")]),
        (assistant("a", Thinking(text="hm", state=FOREIGN)), "a", [("dropped", "Thinking")]),
        (assistant("a", ServerItem(kind="search")), "a", [("dropped", "ServerItem")]),
        (assistant("a", Image(data=b"a")), "a", [("dropped", "Image")]),
        (assistant("a", Audio(data=b"a", id="x")), "a", [("dropped", "Audio")]),
        (assistant(Refusal(text="no")), "no", [("emulated", "Refusal")]),
        (assistant(TextPart(text="a", state=FOREIGN)), "a", [("dropped", "part")]),
        (assistant(TextPart(text="a", notes=({"logprob": {}},))), "a", []),
        (assistant(TextPart(text="a", notes=({"type": "url_citation"},))), "a", [("dropped", "citations")]),
        (Message("user", (TextPart(text="a"),), name="ada"), "a", [("dropped", "name")]),
        (Message("user", (TextPart(text="a"),), state=FOREIGN), "a", [("dropped", "message")]),
    ],
)
def test_what_has_no_place_is_left_out_or_said_otherwise_and_reported(message, content, noticed):
    body, notices = encoded([message, *HELLO])
    assert body["messages"][0] == said(message.role, content)
    assert kinds(notices) == noticed


@pytest.mark.parametrize(
    "message",
    [
        user(Thinking(text="hm")),
        user(ServerItem(kind="search")),
        user(Audio(id="x")),
        user(CALL),
        user(RESULT),
        Message("tool", (TextPart(text="a"),)),
    ],
)
def test_what_a_prompt_cannot_say_is_an_error_before_anything_is_sent(message):
    with pytest.raises(UnsupportedError):
        encoded([message])


# The client's half: answers.

COUNTS = {"prompt_tokens": 10, "completion_tokens": 7, "total_tokens": 17}
HEAD = {"id": "1", "object": "chat.completion", "created": 5, "model": "m"}


def answer(content, reason="stop", **message):
    choice = {"index": 0, "message": said("assistant", content, **message), "finish_reason": reason}
    return {**HEAD, "choices": [choice]}


def thinking(*words, **more):
    return {"type": "thinking", "thinking": [text(each) for each in words], **more}


def call(number, **more):
    return {"index": number, "id": f"abcdefgh{number}", "function": {"name": "look", "arguments": "{}"}, **more}


def thought(words, **state):
    return Thinking(text=words, state=ProviderState(NAME, {"field": "content", **state}, "m"))


LAST = chunk(content="", reason="stop")
ANSWERS: dict[str, tuple[dict[str, Any], list[dict[str, Any]], list[Any], Usage, str]] = {
    "text": (
        answer("Hello, wörld 🌊!") | {"usage": {**COUNTS, "service_tier": "standard"}},
        [
            chunk(role="assistant", content=""),
            chunk(content="Hello, "),
            chunk(content="wörld 🌊!"),
            {**LAST, "usage": {**COUNTS, "service_tier": "standard"}},
        ],
        [TextPart(text="Hello, wörld 🌊!")],
        Usage(input=10, output=7, reported_total=17),
        "stop",
    ),
    "what was cached": (
        answer("a") | {"usage": {**COUNTS, "prompt_tokens_details": {"cached_tokens": 4}}},
        [chunk(content="a"), {**LAST, "usage": {**COUNTS, "prompt_tokens_details": {"cached_tokens": 4}}}],
        [TextPart(text="a")],
        Usage(input=6, cache_read=4, output=7, reported_total=17),
        "stop",
    ),
    "what was cached, in older words": (
        answer("a") | {"usage": {**COUNTS, "num_cached_tokens": 4}},
        [chunk(content="a"), {**LAST, "usage": {**COUNTS, "num_cached_tokens": 4}}],
        [TextPart(text="a")],
        Usage(input=6, cache_read=4, output=7, reported_total=17),
        "stop",
    ),
    "a sound beside the prompt": (
        answer("a")
        | {
            "usage": {**COUNTS, "total_tokens": 117, "prompt_tokens_details": {"audio_tokens": 100, "cached_tokens": 3}}
        },
        [
            chunk(content="a"),
            {
                **LAST,
                "usage": {
                    **COUNTS,
                    "total_tokens": 117,
                    "prompt_tokens_details": {"audio_tokens": 100, "cached_tokens": 3},
                },
            },
        ],
        [TextPart(text="a")],
        Usage(input=7, cache_read=3, input_audio=100, output=7, reported_total=117),
        "stop",
    ),
    "thinking": (
        answer([thinking("Let me see.", closed=True), text("42")]),
        [
            chunk(role="assistant", content=[thinking("Let me ")]),
            chunk(content=[thinking("see.")]),
            chunk(content=[thinking(closed=True)]),
            chunk(content="4"),
            chunk(content=[text("2")]),
            LAST,
        ],
        [thought("Let me see.", set={"closed": True}), TextPart(text="42")],
        Usage(),
        "stop",
    ),
    "thinking twice": (
        answer([thinking("a", signature="c2ln"), text("b"), thinking("c")]),
        [
            chunk(content=[thinking("a")]),
            chunk(content=[thinking(signature="c2ln"), text("b")]),
            chunk(content=[thinking("c")]),
            LAST,
        ],
        [thought("a", set={"signature": "c2ln"}), TextPart(text="b"), thought("c")],
        Usage(),
        "stop",
    ),
    "references": (
        answer([text("It rained."), REFERENCE, text(" A lot."), REFERENCE]),
        [
            chunk(content="It "),
            chunk(content="rained."),
            chunk(content=[REFERENCE]),
            chunk(content=" A lot."),
            chunk(content=[REFERENCE]),
            LAST,
        ],
        [CITED, TextPart(text=" A lot.", notes=(REFERENCE,))],
        Usage(),
        "stop",
    ),
    "an unknown block": (
        answer([text("a", mood="good"), {"type": "tool_file", "file_id": "f", "x": None}, text("b")]),
        [
            chunk(content=[text("a", mood="good")]),
            chunk(content=[{"type": "tool_file", "file_id": "f", "x": None}]),
            chunk(content="b"),
            LAST,
        ],
        [
            TextPart(text="a", state=ProviderState(NAME, {"set": {"mood": "good"}}, "m")),
            ServerItem(kind="tool_file", state=ProviderState(NAME, {"set": {"file_id": "f", "x": None}}, "m")),
            TextPart(text="b"),
        ],
        Usage(),
        "stop",
    ),
    "calls": (
        answer("Both.", "tool_calls", tool_calls=[call(0), call(1, type="function")]),
        [
            chunk(role="assistant", content="Both."),
            chunk(tool_calls=[call(0), call(1, type="function")], reason="tool_calls"),
        ],
        [TextPart(text="Both."), *(ToolCall(name="look", input="{}", id=f"abcdefgh{number}") for number in (0, 1))],
        Usage(),
        "tool_calls",
    ),
    "a call without an index, in pieces": (
        answer(
            "", "tool_calls", tool_calls=[{"id": "abcdefgh0", "function": {"name": "look", "arguments": '{"at": 1}'}}]
        ),
        [
            chunk(tool_calls=[{"id": "abcdefgh0", "function": {"name": "look", "arguments": ""}}], content=""),
            chunk(tool_calls=[{"function": {"name": "", "arguments": '{"at": 1}'}}], content=""),
            chunk(content="", reason="tool_calls"),
        ],
        [ToolCall(name="look", input='{"at": 1}', id="abcdefgh0")],
        Usage(),
        "tool_calls",
    ),
    "calls without ids": (
        answer("", "tool_calls", tool_calls=[call(0, id="null"), call(1, id="null")]),
        [chunk(tool_calls=[call(0, id="null"), call(1, id="null")], reason="tool_calls")],
        [ToolCall(name="look", input="{}")] * 2,
        Usage(),
        "tool_calls",
    ),
    "cut": (answer("a", "length"), [chunk(content="a", reason="length")], [TextPart(text="a")], Usage(), "length"),
    "full": (
        answer("a", "model_length"),
        [chunk(content="a", reason="model_length")],
        [TextPart(text="a")],
        Usage(),
        "length",
    ),
    "nothing": (answer(""), [LAST], [], Usage(), "stop"),
}


def without_places(deltas):
    """What is told again of an answer, without what a stream keeps nothing of: the index and type of a call."""
    again = told_again(deltas)
    for choice in again["choices"]:
        for each in choice["message"].get("tool_calls", []):
            each.update(index=0, type="function", id="")
    return again


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_and_its_stream_sum_to_the_same_and_encode_to_the_answer(name):
    body, chunks, parts, usage, reason = ANSWERS[name]
    whole = DIALECT.decode_answer(json.dumps(body).encode())
    deltas, error = decoded(sse(*chunks))
    assert error is None
    for some in (whole, deltas):
        (message,), counted, finishes = total(some)
        assert list(message.parts) == parts
        assert (message.id, message.model) == ("1", "m")
        assert counted == usage
        assert finishes == {0: Finish(reason, 0, body["choices"][0]["finish_reason"])}
        rest, error = decoded(streamed(some))
        assert error is None
        (back,), *rest = total(rest)
        assert (back.parts, *rest) == (message.parts, counted, finishes)
    assert DIALECT.canonical_answer(told_again(whole)) == DIALECT.canonical_answer(body)
    assert without_places(deltas) == without_places(whole)


def test_several_answers_come_apart():
    chunks = [
        chunk(role="assistant", content=""),
        chunk(index=1, content=[thinking("hm")]),
        chunk(content="a"),
        chunk(index=1, content="b"),
        chunk(index=1, content="", reason="length"),
        chunk(content="c", reason="stop"),
    ]
    deltas, error = decoded(sse(*chunks))
    assert error is None
    messages, _, finishes = total(deltas)
    assert [(message.thinking, message.text) for message in messages] == [("", "ac"), ("hm", "b")]
    assert {number: finish.reason for number, finish in finishes.items()} == {0: "stop", 1: "length"}
    again = decoded(streamed(deltas))[0]
    assert [message.parts for message in total(again)[0]] == [message.parts for message in messages]
    told = told_again(deltas)["choices"]
    assert [choice["finish_reason"] for choice in told] == ["stop", "length"]
    assert told[1]["message"]["content"] == [thinking("hm"), text("b")]


@pytest.mark.parametrize(
    ("data", "words", "reason", "error"),
    [
        (sse(chunk(content="a"), LAST, done=False), "a", "stop", None),
        (sse(chunk(content="a"), LAST) + sse(chunk(content="b")), "a", "stop", None),
        (sse(chunk(content="a\ud83c"), chunk(content="\udf0a"), LAST), "a🌊", "stop", None),
        (sse(chunk(content="a"), done=False), "a", None, StreamInterrupted),
        (b"", "", None, StreamInterrupted),
        (sse(chunk(content="a"), chunk(content="", reason="error")), "a", None, ServerError),
        (
            sse(chunk(content="a"), {"object": "error", "message": "no", "raw_status_code": 429}),
            "a",
            None,
            RateLimitError,
        ),
        (sse(chunk(content="a"), {"error": {"message": "no"}}), "a", None, ServerError),
        (sse(chunk(content="a"), [1]), "a", None, StreamProtocolError),
        (sse(chunk(content="a"), chunk(content={"a": 1})), "a", None, StreamProtocolError),
        (sse(chunk(content="a"), chunk(content=["b"])), "a", None, StreamProtocolError),
        (sse(chunk(content="a"), chunk(content=[{"text": "b"}])), "a", None, StreamProtocolError),
    ],
)
def test_a_stream_ends_whole_or_with_an_error_after_all_that_came(data, words, reason, error):
    deltas, ending = decoded(data)
    messages, _, finishes = total(deltas)
    assert messages[0].text == words
    assert type(ending) is (error or type(None))
    assert {number: finish.reason for number, finish in finishes.items()} == ({0: reason} if reason else {})
    for size in (1, 7, 50):
        again, other = decoded(data, range(size, len(data), size))
        assert again == deltas
        assert str(other) == str(ending)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", ServerError),
        (b"<html>", ServerError),
        (b"[]", StreamProtocolError),
        (b'{"data": []}', StreamProtocolError),
        (b'{"choices": []}', StreamProtocolError),
        (json.dumps(answer("a", "error")).encode(), ServerError),
        (json.dumps(answer([{"a": 1}])).encode(), StreamProtocolError),
        (b'{"object": "error", "message": "slow down", "raw_status_code": 429}', RateLimitError),
    ],
)
def test_a_body_that_is_no_answer_is_an_error(body, error):
    with pytest.raises(error):
        DIALECT.decode_answer(body)


def failure(message, **more):
    return json.dumps({"object": "error", "message": message, "param": None, **more}).encode()


LONG = "Prompt contains 40001 tokens and 0 draft tokens, too large for model with 32768 maximum context length"
FLAW = {"type": "extra_forbidden", "loc": ["body", "min_p"], "msg": "Extra inputs are not permitted", "input": 1}


@pytest.mark.parametrize(
    ("status", "headers", "body", "error", "fields"),
    [
        (
            400,
            {},
            failure("Tool call id was x", type="invalid_function_call", code="3280", raw_status_code=400),
            BadRequestError,
            {"status": 400, "code": "3280", "message": "Tool call id was x (HTTP 400)"},
        ),
        (400, {}, failure(LONG, code="3051"), ContextOverflowError, {"prompt_tokens": 40001, "context_length": 32768}),
        (413, {}, failure(LONG, code="3051"), ContextOverflowError, {"status": 413}),
        (401, {}, b'{"detail": "Invalid API Key"}', AuthenticationError, {"message": "Invalid API Key (HTTP 401)"}),
        (401, {}, b'{"message": "Unauthorized", "request_id": "r"}', AuthenticationError, {}),
        (404, {}, failure("no such model", type="invalid_model", code="1500"), NotFoundError, {"code": "1500"}),
        (
            422,
            {},
            failure({"detail": [FLAW]}, type="invalid_request_error"),
            BadRequestError,
            {"message": "body.min_p: Extra inputs are not permitted (HTTP 422)"},
        ),
        (422, {}, json.dumps({"detail": [FLAW, {}]}).encode(), BadRequestError, {"status": 422}),
        (429, {"retry-after": "7"}, failure("Requests rate limit exceeded"), RateLimitError, {"retry_after": 7.0}),
        (500, {}, failure("Service unavailable."), ServerError, {"retryable": True}),
        (503, {}, b"upstream connect error", OverloadedError, {"status": 503}),
        (502, {}, b"<html><title>Bad gateway</title></html>", ServerError, {"status": 502}),
    ],
)
def test_an_error_becomes_the_exception_it_means_and_the_same_error_again(status, headers, body, error, fields):
    raised = DIALECT.decode_error(status, headers, body)
    assert type(raised) is error
    assert {name: getattr(raised, name) for name in fields} == fields
    status, body = DIALECT.encode_error(raised)
    again = DIALECT.decode_error(status, {}, body)
    assert (type(again), again.status, again.code) == (error, raised.status, raised.code or again.code)
    assert type(decoded(DIALECT.encoder().fail(raised))[1]) is error


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (ConfigurationError("x"), 400, "invalid_request_error"),
        (NotFoundError("x"), 404, "invalid_request_error"),
        (OverloadedError("x"), 503, "server_error"),
        (EngineError("x"), 500, "server_error"),
        (DeadlineExceeded("x"), 504, "server_error"),
    ],
)
def test_an_error_of_ours_has_a_status_and_type_of_theirs(error, status, kind):
    told = {"object": "error", "message": "x", "type": kind, "param": None, "code": None, "raw_status_code": status}
    assert (DIALECT.encode_error(error)[0], json.loads(DIALECT.encode_error(error)[1])) == (status, told)
    assert events(DIALECT.encoder().fail(error)) == [told]


# The server's half.


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"model": None}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages[0].role"),
        ({"messages": [said("developer", "a")]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [said("user", {"a": 1})]}, "messages[0].content"),
        ({"messages": [said("user", ["a"])]}, "messages[0].content[0].type"),
        ({"messages": [said("user", [{"type": "text"}])]}, "messages[0].content[0].text"),
        ({"messages": [said("user", [text(7)])]}, "messages[0].content[0].text"),
        ({"messages": [said("user", [{"type": "image_url"}])]}, "messages[0].content[0].image_url"),
        ({"messages": [said("assistant", "a", tool_calls={})]}, "messages[0].tool_calls"),
        ({"messages": [said("assistant", tool_calls=[{"function": {}}])]}, "messages[0].tool_calls[0].function.name"),
        ({"tools": {}}, "tools"),
        ({"tools": [7]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": 7}}]}, "tools[0].function.name"),
        ({"temperature": "hot"}, "temperature"),
        ({"random_seed": "x"}, "random_seed"),
        ({"stop": ["a", 1]}, "stop[1]"),
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
        stream=True,
        reasoning_effort="high",
        response_format=FORMAT,
        tools=[WIRE_TOOL],
        tool_choice="any",
        parallel_tool_calls=False,
        temperature=0,
        top_p=0.9,
        top_k=3,
        max_tokens=99,
        random_seed=4,
        stop="a",
        n=2,
        messages=[
            said("system", "Be brief."),
            said("user", [text("hi"), {"type": "image_url", "image_url": f"data:image/png;base64,{PIXEL}"}]),
            said("assistant", [WIRE_THOUGHT, text("It rained."), REFERENCE], tool_calls=[WIRE_CALL]),
            WIRE_RESULT,
            {**WIRE_RESULT, "content": [text("b")]},
            said("user", [{"type": "input_audio", "input_audio": {"data": PIXEL, "format": "mp3"}}]),
        ],
    )
    _, (_, image), *rest, (sound,) = (message.parts for message in request.messages)
    assert (image.data, image.media_type) == (b"\0\1", "image/png")
    assert (sound.data, sound.media_type) == (b"\0\1", "audio/mpeg")
    assert rest == [
        (THOUGHT, CITED, CALL),
        (RESULT, msgspec.structs.replace(RESULT, content=(TextPart(text="b"),))),
    ]
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "tool", "user"]
    assert request.tools == (TOOL,)
    assert request.schema == OutputSchema("answer", CLOSED)
    assert (request.model, request.stream, request.thinking, request.stop) == ("m", True, "high", ("a",))
    assert (request.max_tokens, request.temperature, request.top_p, request.top_k) == (99, 0, 0.9, 3)
    assert (request.seed, request.n, request.tool_choice, request.parallel_tool_calls) == (4, 2, "required", False)
    assert request.state is None
    assert asked(reasoning_effort="none").thinking is False
    assert asked(reasoning_effort="max").thinking is True
    assert asked(prompt_mode="reasoning").thinking is True
    assert asked(tool_choice={"type": "function", "function": {"name": "look"}}).tool_choice == "look"


def round_trip(body):
    http, _ = DIALECT.encode_request(DIALECT.decode_request(json.dumps(body).encode()))
    return json.loads(http.body)


EQUAL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "null is absent": (plain(stop=None, temperature=None), plain()),
    "a stream that is not wanted is absent": (plain(stream=False), plain()),
    "no tools are absent": (plain(tools=[]), plain()),
    "a stop string is a list of it": (plain(stop="a"), plain(stop=["a"])),
    "one plain text is its text": (plain(messages=[said("user", [text("a")])]), plain(messages=[said("user", "a")])),
    "no prefix is none, nor are no calls": (
        plain(messages=[said("assistant", "a", prefix=False, tool_calls=[]), *plain()["messages"]]),
        plain(messages=[said("assistant", "a"), *plain()["messages"]]),
    ),
    "a content that is null is the empty text": (
        plain(messages=[said("user", None), {**WIRE_RESULT, "content": None}]),
        plain(messages=[said("user", ""), {**WIRE_RESULT, "content": ""}]),
    ),
    "an assistant's content of nothing is the empty text": (
        plain(messages=[said("assistant", [], tool_calls=[WIRE_CALL]), WIRE_RESULT]),
        plain(messages=[{"role": "assistant", "content": None, "tool_calls": [WIRE_CALL]}, WIRE_RESULT]),
    ),
    "null is absent: in a message, a block, a call and a tool": (
        plain(
            messages=[
                said("user", [text("a", x=None), text("b")], name=None),
                said("assistant", tool_calls=[{**WIRE_CALL, "index": None}]),
                WIRE_RESULT,
            ],
            tools=[{**WIRE_TOOL, "function": {**WIRE_TOOL["function"], "strict": None}}],
        ),
        plain(
            messages=[said("user", [text("a"), text("b")]), said("assistant", tool_calls=[WIRE_CALL]), WIRE_RESULT],
            tools=[WIRE_TOOL],
        ),
    ),
}


@pytest.mark.parametrize("name", EQUAL)
def test_two_spellings_of_one_request_are_one(name):
    one, other = EQUAL[name]
    canonical = DIALECT.canonical_request(one)
    assert canonical == DIALECT.canonical_request(other)
    assert round_trip(one) == round_trip(other) == canonical
    assert DIALECT.canonical_request(canonical) == canonical


HI = said("user", "hi")
# What differs and must not be made the same; a value on the right is kept where it stands.
KEPT: list[dict[str, Any]] = [
    plain(messages=[HI, said("assistant", "a")]),
    plain(messages=[HI, said("assistant", "a", prefix=True)]),
    plain(messages=[said("assistant", "a", prefix=True, mood="good"), said("user", "", name="ada")]),
    plain(
        messages=[
            said("assistant", tool_calls=[{**WIRE_CALL, "id": "call_1"}]),
            {**WIRE_RESULT, "tool_call_id": "call_1"},
        ]
    ),
    plain(
        messages=[
            said("assistant", tool_calls=[{**WIRE_CALL, "id": "call_1"}]),
            {**WIRE_RESULT, "tool_call_id": "call_2"},
        ]
    ),
    plain(
        messages=[
            said("assistant", tool_calls=[{"id": "a", "function": {"name": "a", "arguments": {"b": None}}, "index": 3}])
        ]
    ),
    plain(messages=[said("assistant", tool_calls=[{"id": "abcdefgh1", "function": {"name": "a", "arguments": ""}}])]),
    plain(messages=[{**WIRE_RESULT, "content": "a", "name": "look"}, {**WIRE_RESULT, "name": "x"}]),
    plain(messages=[said("assistant", [thinking("a", "b"), text("c", x=1), REFERENCE]), HI]),
    plain(messages=[said("assistant", [REFERENCE, {"type": "thinking", "thinking": [REFERENCE, text("a")]}]), HI]),
    plain(messages=[said("assistant", [{"type": "thinking", "thinking": "a"}, {"type": "news", "a": [None]}]), HI]),
    plain(messages=[said("user", [{"type": "image_url", "image_url": "https://x/y"}, REFERENCE, text("")])]),
    plain(messages=[said("user", [{"type": "image_url", "image_url": {"url": "https://x/y", "x": 1}, "y": 2}])]),
    plain(messages=[said("user", [{"type": "input_audio", "input_audio": {"data": PIXEL, "format": "ogg"}}])]),
    plain(messages=[said("user", [{"type": "input_audio", "input_audio": "?"}, {"type": "input_audio"}])]),
    plain(
        messages=[said("user", [{"type": "document_url", "document_url": "data:text/plain,a", "document_name": "n"}])]
    ),
    plain(messages=[said("user", [{"type": "file", "file_id": "f", "x": 1}, {"type": "file"}])]),
    plain(messages=[said("system", [thinking("a"), text("b")]), HI]),
    plain(tools=[{"type": "web_search", "x": {"y": None}}, {"function": {"name": "a"}}, {**WIRE_TOOL, "strict": True}]),
    plain(
        tools=[{"type": "function", "function": {"name": "a", "description": "", "parameters": {"x": None}, "y": 1}}]
    ),
    plain(tool_choice="required", reasoning_effort="xhigh", safe_prompt=True, prediction={"type": "content"}),
    plain(tool_choice={"type": "function", "function": {"name": "a"}, "x": 1}, prompt_mode="reasoning"),
    plain(response_format={"type": "json_object"}),
    plain(response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"default": None}}}),
    plain(model="magistral-small", reasoning_effort="low", prompt_mode="reasoning"),
]


@pytest.mark.parametrize("body", KEPT)
def test_nothing_else_differs_when_a_request_is_read_and_sent_again(body):
    assert DIALECT.canonical_request(body) == body
    assert round_trip(body) == body


def test_an_answer_of_another_model_is_told_as_one_of_ours():
    message = assistant(Thinking(text="hm"), ServerItem(kind="search"), "a", Refusal(text="no"), Value(value=[1]), CALL)
    response = msgspec.structs.replace(
        response_of("other", [Head("i", "m"), Count(Usage(input=1, cache_read=2, output=3, reasoning=4))]),
        message=msgspec.structs.replace(message, id="i"),
        choices=(),
        finish_reason="tool_calls",
    )
    assert json.loads(DIALECT.encode_response(response)) == {
        "id": "i",
        "object": "chat.completion",
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": said(
                    "assistant", [thinking("hm"), text("a"), text("no"), text("[1]")], tool_calls=[WIRE_CALL]
                ),
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 7,
            "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 4},
        },
    }
    for part in (Image(data=b"a"), Audio(data=b"a"), File(data=b"a")):
        with pytest.raises(UnsupportedError):
            DIALECT.encode_response(msgspec.structs.replace(response, message=assistant(part)))
    with pytest.raises(UnsupportedError):
        streamed([Open(0, "audio"), Blob(0, b"a")])


def test_the_deltas_of_another_model_are_told_as_a_stream_of_ours():
    deltas = [
        Head("i", "m"),
        *[Open(0, "thinking", state={"field": "reasoning"}), Text(0, "hm"), Note(0, {"type": "reasoning.text"})],
        *[Open(1, "text"), Text(1, "a"), Note(1, {"type": "url_citation"}), Note(1, {"logprob": {"token": "a"}})],
        *[Open(2, "server", name="search"), Open(3, "refusal"), Text(3, "no"), Open(4, "call", "call_1", "look")],
        *[Text(4, "{}"), State(1, {"set": {}}), State(4, {}), Close(0), Count(Usage(input=1, output=2))],
        Finish("tool_calls"),
    ]
    (message,), usage, finishes = total(decoded(streamed(deltas))[0])
    assert (message.thinking, message.text, usage.total_tokens) == ("hm", "ano", 3)
    (made,) = message.tool_calls
    assert (made.id, made.name, finishes[0].reason) == ("call_1", "look", "tool_calls")
    assert message.parts[1].notes == ({"logprob": {"token": "a"}},)


# Laws.

words = st.text(max_size=12)
shown = words.filter(bool)
names = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
ids = st.integers(0, 99_999_999).map(lambda number: f"c{number:08}")
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
jsons = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(words, jsons, max_size=3)
extras = st.dictionaries(st.sampled_from(["x", "mood"]), jsons.filter(lambda v: v is not None), max_size=2)
references = st.builds(
    lambda many: {"type": "reference", "reference_ids": many}, st.lists(st.integers(0, 9) | words, max_size=2)
)


def state_of(patch):
    return own(set=patch) if patch else None


texts = st.builds(
    lambda words_, notes, patch: TextPart(text=words_, notes=tuple(notes), state=state_of(patch)),
    shown,
    st.lists(references, max_size=2),
    extras,
)
thoughts = st.builds(
    lambda words_, patch: Thinking(text=words_, state=own(field="content", **({"set": patch} if patch else {}))),
    shown,
    st.fixed_dictionaries({}, optional={"closed": st.just(True), "signature": shown}),
)
items = st.builds(
    lambda patch: ServerItem(kind="tool_file", state=own(set={"file_id": "f", **patch})),
    st.dictionaries(names, words, max_size=2),
)
calls = st.builds(
    lambda name, value, patch: ToolCall(name=name, input=encode_json(value).decode(), state=state_of(patch)),
    names,
    objects,
    extras,
)
media = (
    st.builds(
        lambda data, patch: Image(data=data, media_type="image/webp", state=state_of(patch)),
        st.binary(min_size=1),
        extras,
    )
    | st.just(Image(url="https://x/y", detail="low"))
    | st.builds(lambda data: File(data=data, media_type="application/pdf", name="n"), st.binary(min_size=1))
    | st.builds(lambda id_: File(id=id_), shown)
    | st.builds(lambda data: Audio(data=data), st.binary(min_size=1))
)


@st.composite
def histories(draw):
    """Messages as a conversation has them: calls have ids, and are answered."""
    messages = [Message("system", tuple(draw(st.lists(texts, min_size=1, max_size=2))))] if draw(st.booleans()) else []
    number = draw(st.integers(0, 999_999))
    for _ in range(draw(st.integers(1, 3))):
        messages.append(
            Message("user", tuple(draw(st.lists(texts | media, min_size=1, max_size=3))), state=state_of(draw(extras)))
        )
        drawn = enumerate(draw(st.lists(calls, max_size=2)), 10 * number)
        made = [msgspec.structs.replace(each, id=f"c{at:08}") for at, each in drawn]
        number += 1
        parts = (*draw(st.lists(texts | thoughts | items, max_size=3)), *made)
        # One that says nothing is not sent.
        parts = (TextPart(text="so"),) if parts in ((), (TextPart(text=""),)) else parts
        messages.append(Message("assistant", parts, state=state_of(draw(extras))))
        if made:
            content = st.lists(texts | media.filter(lambda part: isinstance(part, Image)), min_size=1, max_size=2).map(
                tuple
            )
            results = [
                ToolResult(call_id=each.id, name=each.name, content=draw(content), state=state_of(draw(extras)))
                for each in made
            ]
            messages.append(Message("tool", tuple(results)))
    return (*messages, user("hi"))


tools = st.builds(lambda name, words_, patch: ToolSpec(name, words_, CLOSED, state_of(patch)), names, words, extras)
floats = st.none() | st.floats(0, 1.5)
requests = st.builds(
    Request,
    model=words.filter(lambda name: "magistral" not in name),
    messages=histories(),
    tools=st.lists(tools, max_size=2).map(tuple),
    schema=st.none() | st.just(OutputSchema("answer", CLOSED)),
    stream=st.booleans(),
    temperature=floats,
    top_p=st.none() | st.floats(0, 1),
    max_tokens=st.none() | st.integers(1, 50_000),
    stop=st.none() | st.lists(words, max_size=2).map(tuple),
    seed=st.none() | st.integers(0, 99),
    thinking=st.none() | st.just(False) | st.just("high"),
    tool_choice=st.sampled_from([None, "auto", "none", "required", "look"]),
    parallel_tool_calls=st.none() | st.booleans(),
    n=st.none() | st.integers(1, 3),
)


@given(requests)
@settings(max_examples=150, deadline=None)
def test_a_request_comes_back_but_for_what_the_report_names(request):
    http, notices = DIALECT.encode_request(request)
    back = DIALECT.decode_request(http.body)
    assert notices == ()
    assert back == request
    assert DIALECT.encode_request(back)[0].body == http.body


patches = st.dictionaries(names, jsons, max_size=2)


def with_more(inner):
    return st.builds(lambda patch, value: {**patch, **value}, patches, inner)


blocks = with_more(
    st.one_of(
        st.builds(text, words),
        references,
        st.builds(lambda *w: thinking(*w), words, words),
        st.fixed_dictionaries({"type": st.just("thinking"), "thinking": st.lists(objects, max_size=2) | words}),
        st.fixed_dictionaries({"type": st.just("image_url"), "image_url": words | objects | st.just({"url": "x"})}),
        st.fixed_dictionaries(
            {"type": st.just("input_audio")}, optional={"input_audio": words | st.just(PIXEL) | objects}
        ),
        st.fixed_dictionaries(
            {"type": st.just("document_url"), "document_url": words}, optional={"document_name": words}
        ),
        st.fixed_dictionaries({"type": st.just("file")}, optional={"file_id": words}),
        st.fixed_dictionaries({"type": names}),
    )
)
functions = with_more(
    st.fixed_dictionaries({"name": names}, optional={"arguments": words | objects, "parameters": objects})
)
holders = with_more(
    st.fixed_dictionaries({"function": functions}, optional={"id": words | ids, "type": st.just("function")})
)
contents = words | st.lists(blocks, max_size=3)
wire_messages = with_more(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "assistant", "system", "tool"]), "content": contents},
        optional={"tool_calls": st.lists(holders, max_size=2), "prefix": st.booleans(), "tool_call_id": words | ids},
    )
)
bodies = with_more(
    st.fixed_dictionaries(
        {"model": words | st.just("magistral"), "messages": st.lists(wire_messages, min_size=1, max_size=4)},
        optional={
            "stream": st.booleans() | st.none(),
            "temperature": numbers | st.none(),
            "stop": words | st.lists(words, max_size=2),
            "tools": st.lists(holders | with_more(st.just({"type": "web_search"})), max_size=2),
            "tool_choice": st.sampled_from(["auto", "any", "required", "none", "x"]) | objects,
            "reasoning_effort": st.sampled_from(["none", "low", "max", None]),
            "prompt_mode": st.sampled_from(["reasoning", "x", None]),
            "response_format": objects | st.just(FORMAT),
        },
    )
)


@given(bodies)
@settings(max_examples=200, deadline=None)
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
            "choices": st.lists(
                with_more(
                    st.fixed_dictionaries(
                        {
                            "message": with_more(
                                st.fixed_dictionaries(
                                    {}, optional={"content": contents, "tool_calls": st.lists(holders, max_size=2)}
                                )
                            )
                        },
                        optional={
                            "index": st.just(0),
                            "finish_reason": st.sampled_from(["stop", "length", "model_length", "tool_calls", "new"]),
                        },
                    )
                ),
                min_size=1,
                max_size=1,
            )
        },
        optional={
            "id": words,
            "model": words,
            "created": numbers,
            "usage": st.dictionaries(
                st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens", "num_cached_tokens", "x"]),
                st.integers(0, 99) | jsons,
            ),
        },
    )
)


@given(answers)
@settings(max_examples=200, deadline=None)
def test_every_answer_that_is_read_is_the_same_when_it_is_told_again(body):
    assume(not body.get("error"))
    try:
        deltas = DIALECT.decode_answer(json.dumps(body).encode())
        again = told_again(deltas)
    except StreamProtocolError:
        assume(False)
    canonical = DIALECT.canonical_answer(again)
    assert same(canonical, DIALECT.canonical_answer(body)), (canonical, DIALECT.canonical_answer(body))


@st.composite
def delta_streams(draw):
    """Deltas as our decoder gives them: texts and thoughts one after another, then calls interleaved."""
    deltas, part, before = [Head("1", "m")], 0, None
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(
            st.sampled_from([kind for kind in ("text", "thinking", "server") if kind == "server" or kind != before])
        )
        before = kind
        if kind == "server":
            deltas.append(Open(part, "server", name="tool_file", state={"set": {"file_id": draw(words)}}))
        else:
            deltas.append(Open(part, kind, state={"field": "content"} if kind == "thinking" else None))
            deltas += [Text(part, each) for each in draw(st.lists(shown, min_size=1, max_size=3))]
            if draw(st.booleans()):
                deltas.append(
                    Note(part, draw(references)) if kind == "text" else State(part, {"set": {"closed": True}})
                )
                before = None
        part += 1
    first = part
    for _ in range(draw(st.integers(0, 2))):
        deltas.append(Open(part, "call", draw(ids), draw(names)))
        deltas += [Text(part, each) for each in ('{"a"', ":", "1}")]
        part += 1
    made = [delta.id for delta in deltas if isinstance(delta, Open) and delta.kind == "call"]
    assume(len(set(made)) == len(made))
    counts = st.none() | st.integers(0, 99)
    if draw(st.booleans()):
        deltas.append(
            Count(Usage(input=draw(st.integers(0, 99)), cache_read=draw(counts), output=draw(st.integers(0, 9))))
        )
    reason = "tool_calls" if part > first else draw(st.sampled_from(["stop", "length"]))
    return [*deltas, Finish(reason, raw=reason)]


@given(delta_streams(), st.data())
@settings(max_examples=150, deadline=None)
def test_the_sum_of_deltas_survives_being_a_stream_however_it_is_cut(deltas, data):
    told = streamed(deltas)
    cuts = data.draw(st.lists(st.integers(0, len(told)), max_size=5))
    again, error = decoded(told, cuts)
    assert error is None
    (message,), usage, finishes = total(deltas)
    (back,), counted, ends = total(again)
    assert (back.parts, ends) == (message.parts, finishes)
    assert msgspec.structs.replace(counted, reported_total=None) == usage
    assert again == decoded(told)[0]


def survive(deltas):
    """What comes after a decoder raises nothing foreign either."""
    try:
        DIALECT.encode_response(response_of(NAME, deltas))
        streamed(deltas)
    except SabirError:
        pass


STREAMS = [chunks for _, chunks, *_ in ANSWERS.values()]
WHOLE = [body for body, *_ in ANSWERS.values()]


@given(st.sampled_from(STREAMS + WHOLE), st.data())
@settings(max_examples=200, deadline=None)
def test_an_answer_with_anything_anywhere_raises_only_errors_of_the_family(told, data):
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(values_in(told))[1:]))
        new = data.draw(jsons | st.sampled_from([[], {}, "text", "thinking", "tool_calls", 10**400, -1, "\ud83c"]))
        try:
            told = replaced(told, path, new)
        except (KeyError, TypeError, IndexError):
            continue
    if isinstance(told, list):
        survive(decoded(sse(*told))[0])
        return
    try:
        survive(DIALECT.decode_answer(json.dumps(told).encode()))
    except SabirError:
        pass


@given(st.binary() | st.sampled_from(STREAMS).map(lambda chunks: sse(*chunks)), st.data())
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
    content = '[{"type":"news","a":' + deep + '},{"type":"thinking","thinking":[' + deep + "]}]"
    message = '{"role":"assistant","content":' + content + "}"
    for body in ('{"choices":[{"index":0,"message":' + message + "}]}", '{"error":' + deep + "}"):
        try:
            survive(DIALECT.decode_answer(body.encode()))
        except SabirError:
            pass
    survive(decoded(b'data: {"choices":[{"index":0,"delta":' + message.encode() + b"}]}\n\n")[0])
    try:
        DIALECT.encode_request(DIALECT.decode_request(('{"model":"m","messages":[' + message + "]}").encode()))
    except SabirError:
        pass


# Recordings: what real servers said, read here once more without the dialect.


def recorded():
    if not RECORDINGS.exists():
        return []
    return [json.loads(line) for line in RECORDINGS.read_bytes().splitlines()]


EXCHANGES = recorded()
needs_recordings = pytest.mark.skipif(not EXCHANGES, reason=f"no recordings at {RECORDINGS}")


def every(exchanges):
    return pytest.mark.parametrize("exchange", exchanges, ids=lambda exchange: exchange["id"])


def contents(content):
    """The text and the thinking of a content."""
    if not isinstance(content, list):
        return content or "", ""
    thoughts_ = "".join(item["text"] for block in content if block["type"] == "thinking" for item in block["thinking"])
    return "".join(block["text"] for block in content if block["type"] == "text"), thoughts_


@needs_recordings
@every([exchange for exchange in EXCHANGES if exchange["response"]["status"] == 200])
def test_a_recorded_answer_is_understood_and_told_again(exchange):
    body = exchange["response"]["body"]
    if isinstance(body, str):
        chunks, data = events(body.encode()), body.encode()
        deltas, error = decoded(data)
        assert error is None
        for size in (1, 997) if len(data) < 30_000 else (997,):
            assert decoded(data, range(size, len(data), size)) == (deltas, None)
    else:
        chunks, deltas = [body], DIALECT.decode_answer(json.dumps(body).encode())
    messages, usage, finishes = total(deltas)
    for number, message in enumerate(messages):
        told = [choice for each in chunks for choice in each["choices"] if choice["index"] == number]
        says = [choice.get("delta") or choice.get("message") for choice in told]
        pairs = [contents(each.get("content")) for each in says]
        assert (message.text, message.thinking) == ("".join(a for a, _ in pairs), "".join(b for _, b in pairs))
        made = [each for say in says for each in say.get("tool_calls") or []]
        assert [call.id for call in message.tool_calls] == [each["id"] for each in made if each.get("id")]
        texts_ = "".join(each["function"]["arguments"] for each in made)
        assert "".join(call.input for call in message.tool_calls) == texts_
        assert finishes[number].reason == next(c["finish_reason"] for c in told if c.get("finish_reason"))
    counted = chunks[-1]["usage"]
    audio = (counted.get("prompt_tokens_details") or {}).get("audio_tokens") or 0
    assert usage.input_tokens == counted["prompt_tokens"] + audio
    assert (usage.output_tokens, usage.total_tokens) == (counted["completion_tokens"], counted["total_tokens"])


@needs_recordings
@every([exchange for exchange in EXCHANGES if exchange["response"]["status"] != 200])
def test_a_recorded_error_is_the_exception_it_means(exchange):
    told = exchange["response"]
    error = DIALECT.decode_error(told["status"], told["headers"], json.dumps(told["body"]).encode())
    assert type(error) is {400: BadRequestError, 401: AuthenticationError}[told["status"]]
    assert error.code == told["body"].get("code")
    assert (told["body"].get("message") or told["body"]["detail"]) in str(error)


@needs_recordings
@every([exchange for exchange in EXCHANGES if exchange["request"].get("body")])
def test_a_recorded_request_is_the_same_when_it_is_sent_again(exchange):
    body = exchange["request"]["body"]
    again = round_trip(body)
    assert same(again, DIALECT.canonical_request(body))
