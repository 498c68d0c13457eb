"""Cohere's chat, both halves: what is sent, what is understood, and that nothing is lost there and back."""

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
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import Server, whole

from sabir.deltas import Assembler, Close, Count, Event, Finish, Head, Note, Open, State, Text
from sabir.dialects import Unsupported, response_of
from sabir.dialects.cohere import NAME, Cohere
from sabir.errors import (
    AuthenticationError,
    BadRequestError,
    ContextOverflowError,
    NotFoundError,
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
from sabir.testing.replay import replay
from sabir.usage import Usage

RECORDINGS = Path(__file__).resolve().parent.parent.parent / "shared" / "recordings" / "cohere.jsonl"
DIALECT = Cohere()
streamed = partial(halves.streamed, DIALECT)
OBJECT = {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}
TOOL = ToolSpec("look", "Look around.", OBJECT)
WIRE_TOOL = {"type": "function", "function": {"name": "look", "description": "Look around.", "parameters": OBJECT}}
FOREIGN = ProviderState("openai_chat", {"set": {"store": True}})
PLAN = ProviderState(NAME, {"is_plan": True})
HELLO = (user("hi"),)


def kinds(notices):
    return [(notice.kind, notice.subject) for notice in notices]


def encoded(messages=HELLO, dialect=DIALECT, **fields):
    http, notices = dialect.encode_request(Request(model="m", messages=tuple(messages), **fields))
    return json.loads(http.body), notices


def text(words):
    return {"type": "text", "text": words}


def plain(**fields):
    return {"model": "m", "messages": [{"role": "user", "content": [text("hi")]}], **fields}


def sse(*events, is_done=True):
    told = b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events)
    return told + (b"data: [DONE]\n\n" if is_done else b"")


def said(kind, index=None, **message):
    return {"type": kind, **({} if index is None else {"index": index}), "delta": {"message": message}}


def begin(**fields):
    nothing_yet = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    return {"id": "a1", **said("message-start", **nothing_yet, **fields)}


def end(reason="COMPLETE", **fields):
    return {"type": "message-end", "delta": {"finish_reason": reason, **fields}}


def decoded(data, cuts=()):
    """The deltas of a stream that comes in pieces, and the error it ends with."""
    decoder, deltas = DIALECT.decoder(), []
    try:
        for start, stop in pairwise([0, *sorted(cuts), len(data)]):
            deltas += decoder.feed(data[start:stop])
        deltas += decoder.close()
    except SabirError as error:
        return deltas, error
    return deltas, None


def total(deltas):
    assembler = Assembler(NAME)
    for each in deltas:
        assembler.add(each)
    return assembler.message(), assembler.usage, assembler.finishes


def told_again(deltas):
    return json.loads(DIALECT.encode_response(response_of(NAME, deltas)))


# The client's half: requests.


def test_a_request_is_posted_with_the_callers_headers():
    http, notices = DIALECT.encode_request(Request(model="m", messages=HELLO, stream=True, headers={"x-a": "b"}))
    assert (http.method, http.url) == ("POST", "/chat")
    assert http.headers == (("content-type", "application/json"), ("x-a", "b"))
    assert (json.loads(http.body), notices) == (plain(stream=True), ())


DOCUMENT = {"id": "d", "data": {"text": "so"}}
OPTIONS: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
    ({"temperature": 0.5}, {"temperature": 0.5}),
    ({"top_p": 0.5}, {"p": 0.5}),
    ({"top_k": 5}, {"k": 5}),
    ({"max_tokens": 5}, {"max_tokens": 5}),
    ({"stop": ("a",)}, {"stop_sequences": ["a"]}),
    ({"seed": 7}, {"seed": 7}),
    ({"frequency_penalty": 0.1}, {"frequency_penalty": 0.1}),
    ({"presence_penalty": 0.1}, {"presence_penalty": 0.1}),
    ({"logprobs": True}, {"logprobs": True}),
    ({"documents": ("so it is", DOCUMENT)}, {"documents": ["so it is", DOCUMENT]}),
    ({"min_p": 0.1}, None),
    ({"repetition_penalty": 1.1}, None),
    ({"top_logprobs": 2}, None),
    ({"parallel_tool_calls": False}, None),
    ({"n": 2}, None),
    ({"user": "me"}, None),
    ({"thinking": True}, {"thinking": {"type": "enabled"}}),
    ({"thinking": False}, {"thinking": {"type": "disabled"}}),
    ({"thinking": 500}, {"thinking": {"type": "enabled", "token_budget": 500}}),
    ({"extra": {"safety_mode": "OFF", "strict_tools": True}}, {"safety_mode": "OFF", "strict_tools": True}),
    ({"tools": (TOOL,)}, {"tools": [WIRE_TOOL]}),
    ({"tools": (TOOL,), "tool_choice": "auto"}, {"tools": [WIRE_TOOL]}),
    ({"tools": (TOOL,), "tool_choice": "none"}, {"tools": [WIRE_TOOL], "tool_choice": "NONE"}),
    ({"tools": (TOOL,), "tool_choice": "required"}, {"tools": [WIRE_TOOL], "tool_choice": "REQUIRED"}),
    (
        {"schema": OutputSchema("place", OBJECT)},
        {"response_format": {"type": "json_object", "json_schema": OBJECT}},
    ),
]


@pytest.mark.parametrize(("asked", "sent"), OPTIONS, ids=str)
def test_an_option_is_sent_in_coheres_words_or_reported(asked, sent):
    body, notices = encoded(**asked)
    assert body == plain(**(sent or {}))
    name = next(iter(asked))
    assert kinds(notices) == ([] if sent is not None else [("unsupported", name)])


def test_every_portable_option_has_a_verdict_and_is_tried_above():
    verdicts = DIALECT.verdicts()
    assert set(verdicts) >= set(Options.__annotations__) | {"schema"}
    # What becomes of `cache` is in test_prompt_cache.py, for all formats.
    assert set(Options.__annotations__) - {"headers", "cache"} <= {name for asked, _ in OPTIONS for name in asked}
    for asked, sent in OPTIONS:
        for name in asked.keys() & verdicts.keys():
            assert isinstance(verdicts[name], Unsupported) == (sent is None)


@pytest.mark.parametrize(
    ("asked", "sent", "noticed"),
    [
        ({"thinking": "low"}, {"thinking": {"type": "enabled", "token_budget": 2048}}, ("emulated", "thinking")),
        (
            {"tools": (ToolSpec("go"), TOOL), "tool_choice": "look"},
            {"tools": [WIRE_TOOL], "tool_choice": "REQUIRED"},
            ("emulated", "tool_choice"),
        ),
        ({"tool_choice": "none"}, {}, ("dropped", "tool_choice")),
    ],
)
def test_what_has_no_word_is_approximated_or_left_out(asked, sent, noticed):
    body, notices = encoded(**asked)
    assert (body, kinds(notices)) == (plain(**sent), [noticed])


@pytest.mark.parametrize(
    ("beside", "modes"),
    [
        ({}, ("native", "tool", "prompt")),
        ({"tools": (TOOL,)}, ("tool", "prompt")),
        ({"documents": ("a",)}, ("prompt",)),
    ],
)
def test_a_schema_beside_tools_or_documents_takes_another_way(beside, modes):
    request = Request(model="m", messages=(user("hi"),), schema=OutputSchema("x", OBJECT), **beside)
    assert Cohere().schema_modes(request) == modes


CITED = {"start": 0, "end": 2, "text": "so", "sources": [{"type": "tool", "id": "t1:0"}], "type": "TEXT_CONTENT"}
WIRE_CALL = {"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"at":"x"}'}}
CALL = ToolCall(name="look", id="t1", input='{"at":"x"}')
MESSAGES = [
    (system("Be brief."), {"role": "system", "content": [text("Be brief.")]}),
    (user("a", "b"), {"role": "user", "content": [text("a"), text("b")]}),
    (user(Value(value=[1])), {"role": "user", "content": [text("[1]")]}),
    (
        user(Image(url="https://a/b.png", detail="low")),
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": "low"}}]},
    ),
    (
        user(Image(data=b"\0\1", media_type="image/webp")),
        {
            "role": "user",
            "content": [
                {
                    "type": "image_url",
                    "image_url": {"url": f"data:image/webp;base64,{b64encode(bytes([0, 1])).decode()}"},
                }
            ],
        },
    ),
    (
        assistant(Thinking(text="I look.", state=PLAN), CALL),
        {"role": "assistant", "tool_plan": "I look.", "tool_calls": [WIRE_CALL]},
    ),
    (
        assistant(
            Thinking(text="hm", state=ProviderState(NAME, {"set": {"type": "thinking"}})),
            TextPart(text="so", notes=(CITED, {"logprob": {}})),
        ),
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, text("so")], "citations": [CITED]},
    ),
    (
        Message("tool", (ToolResult(call_id="t1", name="look", content=(TextPart(text="sunny"),)),)),
        {"role": "tool", "tool_call_id": "t1", "content": "sunny"},
    ),
    (
        Message(
            "tool",
            (
                ToolResult(
                    call_id="t1", name="look", content=(Value(value={"c": 21}), Value(value=3), TextPart(text="x"))
                ),
            ),
        ),
        {
            "role": "tool",
            "tool_call_id": "t1",
            "content": [{"type": "document", "document": {"data": {"c": 21}}}, text("3"), text("x")],
        },
    ),
]


@pytest.mark.parametrize(("message", "wire"), MESSAGES)
def test_a_message_is_sent_part_by_part(message, wire):
    body, notices = encoded((message,))
    assert (body["messages"], notices) == ([wire], ())
    (read,) = DIALECT.decode_request(json.dumps(body).encode()).messages
    assert encoded((read,))[0]["messages"] == [wire]


@pytest.mark.parametrize(
    ("message", "noticed"),
    [
        (assistant(Thinking(text="hm")), ("dropped", "Thinking")),
        (assistant(ServerItem(kind="search", state=FOREIGN)), ("dropped", "ServerItem")),
        (assistant(Refusal(text="No.")), ("emulated", "Refusal")),
        (assistant("a", Image(data=b"\0")), ("dropped", "Image")),
        (assistant("a", File(data=b"\0")), ("dropped", "File")),
        (assistant("a", Audio(data=b"\0")), ("dropped", "Audio")),
        (assistant(TextPart(text="a", notes=({"type": "url_citation"},))), ("dropped", "citations")),
        (Message("user", (TextPart(text="x"),), name="Ann"), ("dropped", "name")),
        (user(TextPart(text="x", state=FOREIGN)), ("dropped", "part")),
    ],
)
def test_what_has_no_place_is_left_out_or_said_otherwise_and_reported(message, noticed):
    assert noticed in kinds(encoded((*HELLO, message))[1])


def test_an_image_that_a_tool_gave_is_left_out_and_the_model_is_told_so():
    result = ToolResult(call_id="1", name="f", content=(TextPart(text="seen"), Image(data=b"\0")))
    body, notices = encoded((Message("tool", (result,)),))
    assert body["messages"] == [{"role": "tool", "tool_call_id": "1", "content": "seen(an image that cannot be shown)"}]
    assert kinds(notices) == [("dropped", "Image")]


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        (user(File(data=b"\0")), "reads no File"),
        (user(Audio(data=b"\0")), "reads no Audio"),
        (user(Thinking(text="hm")), "no place for thinking in a message of the role 'user'; only a model makes it"),
    ],
)
def test_what_cannot_be_sent_is_an_error_before_anything_is(message, remedy):
    with pytest.raises(UnsupportedError, match=remedy):
        encoded((message,))
    with pytest.raises(UnsupportedError, match="run by openai_chat"):
        encoded(tools=(ToolSpec("search", state=FOREIGN),))


# The client's half: answers.


def answer(reason="COMPLETE", message=(), **fields):
    return {"id": "a1", "message": {"role": "assistant", **dict(message)}, "finish_reason": reason, **fields}


USAGE = {
    "billed_units": {"input_tokens": 1, "output_tokens": 2},
    "tokens": {"input_tokens": 10, "output_tokens": 7, "reasoning_tokens": 5},
    "cached_tokens": 4,
}
THOUGHT = {"type": "thinking", "thinking": "hm"}
SECOND = {"id": "t2", "type": "function", "function": {"name": "go", "arguments": "{}"}, "mood": 1}
ANSWERS: dict[str, tuple[dict[str, Any], bytes]] = {
    "text": (
        answer(message={"content": [text("Hello")]}, usage=USAGE),
        sse(
            begin(),
            said("content-start", 0, content=text("")),
            said("content-delta", 0, content={"text": "Hel"}),
            said("content-delta", 0, content={"text": "lo"}),
            {"type": "content-end", "index": 0},
            end(usage=USAGE),
        ),
    ),
    "thinking and citations": (
        answer(message={"content": [THOUGHT, text("so it is")], "citations": [{**CITED, "content_index": 1}, CITED]}),
        sse(
            begin(),
            said("content-start", 0, content={"type": "thinking", "thinking": ""}),
            said("content-delta", 0, content={"thinking": "hm"}),
            {"type": "content-end", "index": 0},
            said("content-start", 1, content=text("")),
            said("content-delta", 1, content={"text": "so it"}),
            said("citation-start", 0, citations={**CITED, "content_index": 1}),
            {"type": "citation-end", "index": 0},
            said("content-delta", 1, content={"text": " is"}),
            {"type": "content-end", "index": 1},
            said("citation-start", 1, citations=CITED),
            {"type": "citation-end", "index": 1},
            end(),
        ),
    ),
    "a plan and calls": (
        answer("TOOL_CALL", {"tool_plan": "I look.", "tool_calls": [WIRE_CALL, SECOND]}),
        sse(
            begin(),
            said("tool-plan-delta", tool_plan="I "),
            said("tool-plan-delta", tool_plan="look."),
            said("tool-call-start", 0, tool_calls={**WIRE_CALL, "function": {"name": "look", "arguments": ""}}),
            said("tool-call-start", 1, tool_calls={**SECOND, "function": {"name": "go", "arguments": ""}}),
            said("tool-call-delta", 0, tool_calls={"function": {"arguments": '{"at":'}}),
            said("tool-call-delta", 1, tool_calls={"function": {"arguments": "{}"}}),
            said("tool-call-delta", 0, tool_calls={"function": {"arguments": '"x"}'}}),
            {"type": "tool-call-end", "index": 0},
            {"type": "tool-call-end", "index": 1},
            end("TOOL_CALL"),
        ),
    ),
    "a cited plan": (
        answer("TOOL_CALL", {"tool_plan": "so", "tool_calls": [WIRE_CALL], "citations": [{**CITED, "type": "PLAN"}]}),
        sse(
            begin(),
            said("tool-plan-delta", tool_plan="so"),
            said("citation-start", 0, citations={**CITED, "type": "PLAN"}),
            said("tool-call-start", 0, tool_calls=WIRE_CALL),
            end("TOOL_CALL"),
        ),
    ),
    "something unknown": (
        answer(
            "TIRED",
            {"content": [{"type": "hologram", "a": 1}, {**text("a"), "b": 2}], "citations": [{"odd": 1}]},
            mood="calm",
        ),
        sse(
            begin(),
            said("content-start", 0, content={"type": "hologram", "a": 1}),
            said("content-start", 1, content=text("a")),
            said("content-delta", 1, content={"b": 2}),
            said("citation-start", 0, citations={"odd": 1}),
            end("TIRED", mood="calm"),
        ),
    ),
    "nothing": (answer(), sse(begin(), end())),
    "an empty text": (
        answer(message={"content": [text("")]}),
        sse(begin(), said("content-start", 0, content=text("")), {"type": "content-end", "index": 0}, end()),
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_and_its_stream_sum_to_the_same_and_encode_to_the_answer(name):
    body, data = ANSWERS[name]
    deltas = DIALECT.decode_answer(json.dumps(body).encode())
    assert told_again(deltas) == body
    parts, error = decoded(data)
    assert error is None
    assert total(parts) == total(deltas)
    assert decoded(data, range(len(data))) == (parts, None)
    for told in (deltas, parts):
        again, error = decoded(streamed(told))
        assert error is None
        assert total(again) == total(told)


def test_an_answer_is_told_in_our_words():
    message, usage, finishes = total(decoded(ANSWERS["text"][1])[0])
    assert (message.text, message.id) == ("Hello", "a1")
    assert usage == Usage(input=6, cache_read=4, output=2, reasoning=5)
    assert finishes[0] == Finish("stop", raw="COMPLETE")
    message, _, finishes = total(decoded(ANSWERS["a plan and calls"][1])[0])
    assert (message.thinking, finishes[0].reason) == ("I look.", "tool_calls")
    assert [(call.id, call.name, call.arguments) for call in message.tool_calls] == [
        ("t1", "look", {"at": "x"}),
        ("t2", "go", {}),
    ]
    message, _, _ = total(decoded(ANSWERS["thinking and citations"][1])[0])
    assert [type(part).__name__ for part in message.parts] == ["Thinking", "Text"]
    assert message.parts[1].notes == ({**CITED, "content_index": 1}, CITED)


@pytest.mark.parametrize("name", ["a plan and calls", "thinking and citations", "a cited plan"])
def test_what_was_said_goes_back_as_it_came(name):
    body, data = ANSWERS[name]
    sent, notices = encoded((*HELLO, total(decoded(data)[0])[0]))
    assert (sent["messages"][1], notices) == (body["message"], ())


def test_what_is_billed_is_kept_beside_the_tokens():
    state = total(decoded(ANSWERS["text"][1])[0])[0].state.value
    assert state == {"answer": {"set": {"usage.billed_units": {"input_tokens": 1, "output_tokens": 2}}}}


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", StreamInterrupted),
        (ANSWERS["text"][1].partition(b"event: message-end")[0], StreamInterrupted),
        (sse(begin(), end(), is_done=False), type(None)),
        (sse(begin(), end("ERROR", error="broken")), ServerError),
        (sse(begin(), end("TIMEOUT")), ServerError),
        (sse(said("tool-call-delta", 0, tool_calls={})), StreamProtocolError),
        (sse(said("tool-call-start", 0, tool_calls={"id": "t"})), StreamProtocolError),
        (sse(*[said("content-start", 0, content=text(""))] * 2), StreamProtocolError),
        (b"data: {\n\n", StreamProtocolError),
        (b"data: []\n\n", StreamProtocolError),
    ],
)
def test_a_stream_ends_whole_or_with_an_error(data, error):
    assert type(decoded(data)[1]) is error


def test_an_unknown_event_is_carried_and_what_follows_the_end_is_not_read():
    deltas, error = decoded(sse({"type": "debug", "prompt": "x"}, begin(), end(), {"type": "debug"}, is_done=False))
    assert error is None
    assert [each.raw for each in deltas if isinstance(each, Event)] == [{"type": "debug", "prompt": "x"}]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"<html>", ServerError),
        (b"[]", StreamProtocolError),
        (b'{"id": "1"}', StreamProtocolError),
        (b'{"message": "invalid api token"}', ServerError),
        (json.dumps(answer("ERROR")).encode(), ServerError),
        (json.dumps(answer(message={"content": [5]})).encode(), StreamProtocolError),
        (json.dumps(answer(message={"content": [{"type": "text", "text": 5}]})).encode(), StreamProtocolError),
        (json.dumps(answer(message={"tool_calls": [{"id": "t"}]})).encode(), StreamProtocolError),
    ],
)
def test_a_body_that_is_no_answer_is_an_error(body, error):
    with pytest.raises(error):
        DIALECT.decode_answer(body)


# Errors.


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, {"message": "invalid request: bad"}, BadRequestError),
        (401, {"message": "invalid api token"}, AuthenticationError),
        (498, {"message": "blocked token"}, AuthenticationError),
        (404, {"id": "r1", "message": "model 'x' not found"}, NotFoundError),
        (422, {"message": "no"}, BadRequestError),
        (429, {"message": "You are past the per minute request limit"}, RateLimitError),
        (500, {"message": "internal"}, ServerError),
        (
            400,
            {
                "error_type": "TOO_MANY_TOKENS",
                "message": "too many tokens: size limit exceeded by 12 tokens. Try using shorter or fewer inputs. "
                "The limit for this model is 100 tokens.",
            },
            ContextOverflowError,
        ),
    ],
)
def test_an_error_becomes_the_exception_it_means_and_the_same_error_again(status, body, error):
    found = DIALECT.decode_error(status, {}, json.dumps(body).encode())
    assert (type(found), found.status, found.request_id) == (error, status, body.get("id"))
    assert body["message"] in found.message
    if isinstance(found, ContextOverflowError):
        assert (found.prompt_tokens, found.context_length) == (112, 100)
    again = DIALECT.decode_error(*(lambda code, data: (code, {}, data))(*DIALECT.encode_error(found)))
    assert (type(again), again.status) == (error, status)


def test_an_error_in_a_stream_comes_after_what_preceded_it():
    encoder = DIALECT.encoder()
    begun = b"".join(map(encoder.feed, [Head("a1"), Open(0, "text"), Text(0, "a")]))
    deltas, error = decoded(begun + encoder.fail(ServerError("the model has stopped")))
    assert total(deltas)[0].text == "a"
    assert isinstance(error, ServerError)
    assert "the model has stopped" in str(error)


# The server's half: requests.


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"model": 5}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "cook", "content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [5]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0]"),
        ({"messages": [{"role": "assistant", "tool_plan": 5}]}, "messages[0].tool_plan"),
        ({"messages": [{"role": "assistant", "tool_calls": 5}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "tool", "content": [5]}]}, "messages[0]"),
        ({"stream": "yes"}, "stream"),
        ({"tools": 5}, "tools"),
        ({"tools": [5]}, "tools[0]"),
        ({"tools": [{"function": {}}]}, "tools[0].function.name"),
        ({"tools": [{"function": {"name": "a", "parameters": 5}}]}, "tools[0].function.parameters"),
        ({"documents": 5}, "documents"),
        ({"temperature": "hot"}, "temperature"),
    ],
)
def test_a_wrong_request_is_refused_and_told_where(change, where):
    with pytest.raises(BadRequestError) as caught:
        DIALECT.decode_request(json.dumps({**plain(), **change}).encode())
    assert caught.value.message.startswith(where)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"null", b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(body):
    with pytest.raises(BadRequestError, match="body"):
        DIALECT.decode_request(body)


@pytest.mark.parametrize(
    "other",
    [
        plain(documents=[], tools=[], stream=False, seed=None),
        {"model": "m", "messages": [{"role": "user", "content": "hi", "citations": []}]},
    ],
)
def test_two_spellings_of_one_request_are_one(other):
    assert DIALECT.canonical_request(other) == plain()
    assert encoded(DIALECT.decode_request(json.dumps(other).encode()).messages)[0] == plain()


def test_a_request_is_read_in_portable_words():
    body = {
        **plain(
            p=0.5, k=4, stop_sequences=["x"], thinking={"type": "enabled", "token_budget": 9}, tool_choice="REQUIRED"
        ),
        "tools": [WIRE_TOOL],
        "documents": ["a", DOCUMENT],
        "safety_mode": "OFF",
        "response_format": {"type": "json_object", "json_schema": OBJECT},
    }
    body["messages"] += [wire for _, wire in MESSAGES[5:]]
    request = DIALECT.decode_request(json.dumps(body).encode())
    assert (request.top_p, request.top_k, request.stop, request.thinking) == (0.5, 4, ("x",), 9)
    assert (request.tool_choice, request.documents, request.schema.json) == ("required", ("a", DOCUMENT), OBJECT)
    assert request.messages[3].parts[0].name == "look"
    assert json.loads(DIALECT.encode_request(request)[0].body) == body


# The laws, with made-up values.

scalars = st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=4)
trees = st.recursive(
    scalars,
    lambda it: st.lists(it, max_size=2) | st.dictionaries(st.text("ab", max_size=2), it, max_size=2),
    max_leaves=5,
)
objects = st.sampled_from([{}, {"a": 1}, {"a": {"b": [None, "x"]}, "c": "d"}])
beyond = st.sampled_from([{}, {}, {}, {"zz": [1, {"a": None}]}, {"zz": None}, {"y.z": "d"}])
texts = st.text(max_size=6)
words = st.text("abcXYZ-_ ", min_size=1, max_size=6)


def an(required, **optional):
    """Objects with these fields, and with fields that nobody knows."""

    @st.composite
    def made(draw):  # prints as its name, however deep it is
        told = {name: draw(value) for name, value in required.items()}
        told |= {name: draw(value) for name, value in optional.items() if draw(st.booleans())}
        return {**draw(beyond), **told}

    return made()


block = st.one_of(
    an({"type": st.just("text"), "text": texts}),
    an({"type": st.just("thinking"), "thinking": texts}),
    an({"type": words}),
)
image = an({"url": st.sampled_from(["https://a/b", "data:image/png;base64,AAE=", "data:,x"])}, detail=words)
shown = st.one_of(block, an({"type": st.just("image_url"), "image_url": image}))
source = an({"type": st.sampled_from(["tool", "document"])}, id=words)
citation = st.one_of(
    an(
        {"start": st.integers(0, 9), "end": st.integers(0, 9), "text": texts, "sources": st.lists(source, max_size=2)},
        content_index=st.integers(0, 2),
        type=st.sampled_from(["TEXT_CONTENT", "PLAN"]),
    ),
    objects,
)
call = an(
    {"function": an({"name": words}, arguments=st.sampled_from(["", "{}", '{"a": 1}', "{", "null"])), "id": words},
    type=st.just("function"),
)
spoken = {
    "content": st.lists(block, max_size=3),
    "tool_plan": texts,
    "tool_calls": st.lists(call, max_size=2),
    "citations": st.lists(citation, max_size=2),
}
document = an({"type": st.just("document"), "document": an({"data": objects}, id=words)})
messages = st.one_of(
    an({"role": st.sampled_from(["user", "system"]), "content": texts | st.lists(shown, max_size=3)}),
    an({"role": st.just("assistant")}, **{**spoken, "content": texts | spoken["content"]}),
    an({"role": st.just("tool"), "tool_call_id": words}, content=texts | st.lists(block | document, max_size=2)),
)
tools = an({"function": an({"name": words}, parameters=objects, description=texts)}, type=st.just("function"))
bodies = an(
    {"model": words, "messages": st.lists(messages, min_size=1, max_size=3)},
    stream=st.booleans(),
    temperature=st.floats(0, 1),
    k=st.integers(0, 9),
    stop_sequences=st.lists(texts, max_size=2),
    documents=st.lists(words | an({"data": objects}), max_size=2),
    tools=st.lists(tools, max_size=2),
    tool_choice=st.sampled_from(["REQUIRED", "NONE", "odd"]),
    thinking=an({"type": st.sampled_from(["enabled", "disabled", "odd"])}, token_budget=st.integers(1, 99)),
    response_format=an({"type": st.sampled_from(["json_object", "text"])}, json_schema=objects, schema=objects),
    citation_options=objects,
)


@settings(max_examples=200)
@given(bodies)
def test_every_request_that_is_read_is_the_same_when_it_is_sent_again(body):
    sent = DIALECT.encode_request(DIALECT.decode_request(json.dumps(body).encode()))[0]
    assert DIALECT.canonical_request(json.loads(sent.body)) == DIALECT.canonical_request(body)


answers = an(
    {
        "message": an({"role": st.just("assistant")}, **spoken),
        "finish_reason": st.sampled_from(["COMPLETE", "TOOL_CALL", "MAX_TOKENS", "STOP_SEQUENCE", "odd"]),
    },
    id=words,
    usage=an(
        {},
        tokens=an(
            {}, input_tokens=st.integers(0, 9), output_tokens=st.integers(0, 9), reasoning_tokens=st.integers(0, 9)
        ),
        billed_units=objects,
        cached_tokens=st.integers(0, 9),
    ),
    logprobs=st.lists(objects, max_size=2),
)


@settings(max_examples=200)
@given(answers)
def test_every_answer_that_is_read_is_the_same_when_it_is_told_again(body):
    deltas = DIALECT.decode_answer(json.dumps(body).encode())
    assert DIALECT.canonical_answer(told_again(deltas)) == DIALECT.canonical_answer(body)
    again, error = decoded(streamed(deltas))
    assert error is None
    first, second = total(deltas), total(again)
    # Citations that are of no part come last in a stream.
    if "message.citations" not in json.dumps(msgspec.to_builtins(first[0])):
        assert second == first


values = st.lists(
    st.one_of(
        st.lists(st.builds(TextPart, text=words), min_size=1, max_size=2).map(lambda parts: user(*parts)),
        st.lists(
            st.builds(TextPart, text=words) | st.builds(ToolCall, name=words, id=words, input=st.just('{"a":1}')),
            min_size=1,
            max_size=2,
        ).map(lambda parts: assistant(*sorted(parts, key=lambda part: isinstance(part, ToolCall)))),
        st.builds(
            ToolResult,
            call_id=words,
            name=st.just(""),
            content=st.tuples(st.builds(TextPart, text=words) | st.builds(Value, value=st.just({"a": 1}))),
        ).map(lambda result: Message("tool", (result,))),
    ),
    min_size=1,
    max_size=4,
)


@given(values, st.floats(0, 1), st.integers(1, 99))
def test_a_request_comes_back(conversation, temperature, most):
    request = Request(model="m", messages=tuple(conversation), temperature=temperature, max_tokens=most, tools=(TOOL,))
    http, notices = DIALECT.encode_request(request)
    assert notices == ()
    again = DIALECT.decode_request(http.body)
    unnamed = tuple(
        msgspec.structs.replace(
            message,
            parts=tuple(
                msgspec.structs.replace(part, name="") if isinstance(part, ToolResult) else part
                for part in message.parts
            ),
        )
        for message in again.messages
    )
    assert msgspec.structs.replace(again, messages=unnamed) == request


steps = st.lists(
    st.tuples(
        st.sampled_from(["text", "thinking", "plan", "call", "late call", "more", "more", "note", "close"]),
        st.integers(0, 9),
        texts,
    ),
    max_size=20,
)


def made_of(told):
    """Deltas that fit each other, of parts that are mixed."""
    deltas: list[Any] = [Head("a1")]
    opened: dict[int, str] = {}
    closed: set[int] = set()
    cited = 0
    for kind, which, words_ in told:
        open_ = [part for part in opened if part not in closed]
        if kind in ("text", "thinking", "plan", "call", "late call"):
            if kind == "plan" and "plan" in opened.values():
                continue
            part = len(opened)
            opened[part] = kind
            known = ("id", "name") if kind == "call" else (None, None)
            state = {"plan": {"is_plan": True}, "thinking": {"set": {"type": "thinking"}}}.get(kind)
            deltas.append(Open(part, {"plan": "thinking", "late call": "call"}.get(kind, kind), *known, state=state))
            if kind == "plan":
                deltas.append(Text(part, "I"))
        elif open_:
            part = open_[which % len(open_)]
            if kind == "more":
                deltas.append(Text(part, words_))
            elif kind == "note" and opened[part] == "text" and part >= cited:
                cited = part
                place = sum(1 for other, it in opened.items() if it in ("text", "thinking") and other < part)
                deltas.append(Note(part, {**CITED, "content_index": place}))
            elif kind == "close" and opened[part] != "late call":
                closed.add(part)
                deltas.append(Close(part))
    deltas += [State(part, {}, id="id", name="name") for part, kind in opened.items() if kind == "late call"]
    return [*deltas, Count(Usage(input=1, output=2)), Finish("stop", raw="COMPLETE")]


@settings(max_examples=200)
@given(steps, st.data())
def test_the_sum_of_deltas_survives_being_a_stream_however_it_is_cut(told, data):
    deltas = made_of(told)
    stream = streamed(deltas)
    again, error = decoded(stream)
    assert error is None
    assert total(again) == total(deltas)
    assert decoded(stream, data.draw(st.lists(st.integers(0, len(stream)), max_size=5))) == (again, None)


@settings(max_examples=150)
@given(st.sampled_from(sorted(ANSWERS)), st.data())
def test_a_stream_with_anything_anywhere_raises_only_errors_of_the_family(name, data):
    events = [json.loads(line[6:]) for line in ANSWERS[name][1].splitlines() if line.startswith(b"data: {")]
    at = data.draw(st.integers(0, len(events) - 1))
    place = data.draw(st.sampled_from(["index", "delta", "message", "content", "tool_calls", "citations", "id"]))
    odd = data.draw(trees | block | call)
    if place in ("index", "delta", "id"):
        events[at][place] = odd
    else:
        events[at]["delta"] = {"message": odd if place == "message" else {place: odd}}
    stream = sse(*events)
    deltas, error = decoded(stream)
    assert error is None or isinstance(error, SabirError)
    assert decoded(stream, data.draw(st.lists(st.integers(0, len(stream)), max_size=3)))[0] == deltas
    total(deltas)


@given(
    st.binary(max_size=200)
    | trees.map(lambda value: json.dumps(value).encode())
    | trees.map(lambda value: json.dumps({"message": value}).encode())
)
def test_any_bytes_raise_only_errors_of_the_family(body):
    for read in (
        DIALECT.decode_answer,
        DIALECT.decode_request,
        lambda data: decoded(data),
        lambda data: decoded(b"data: " + data + b"\n\n"),
    ):
        try:
            read(body)
        except SabirError:
            pass
    assert isinstance(DIALECT.decode_error(400, {}, body), SabirError)


def test_what_cannot_be_told_is_an_error():
    encoder = DIALECT.encoder()
    encoder.feed(Open(0, "call"))
    with pytest.raises(StreamProtocolError, match="without the name"):
        encoder.feed(Close(0))
    with pytest.raises(UnsupportedError, match="image"):
        DIALECT.encoder().feed(Open(0, "image"))
    with pytest.raises(StreamProtocolError, match="never opened"):
        DIALECT.encoder().feed(Text(0, "a"))
    with pytest.raises(UnsupportedError, match="File"):
        DIALECT.encode_response(response_of(NAME, [Open(0, "file"), Close(0)]))


# The client, over a socket.


async def test_a_client_asks_streams_and_calls_tools(surface, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    answers_ = [
        whole(json.dumps(ANSWERS["a cited plan"][0]).encode(), "content-type: application/json"),
        whole(json.dumps(ANSWERS["text"][0]).encode(), "content-type: application/json"),
        whole(ANSWERS["text"][1], "content-type: text/event-stream"),
        whole(b'{"id":"r1","message":"no such model"}', status="404 Not Found"),
    ]

    async def answer_(call):
        await answers_.pop(0)(call)

    def look(at: str) -> str:
        return f"at {at}"

    with Server(answer_) as server:
        client = surface.client("cohere:command-a", base_url=f"{server.url}/v2", api_key="key-made-up")
        response = await client.ask("Where?", tools=[look])
        assert (response.text, response.usage.output_tokens) == ("Hello", 7)
        async with client.stream("Hi") as stream:
            async for _ in stream:
                pass
        assert stream.response.text == "Hello"
        with pytest.raises(NotFoundError, match="no such model") as caught:
            await client.ask("Hi")
        assert caught.value.request_id == "r1"
        asked = [json.loads(call.body) for call in server.calls]
        assert {(call.target, call.header("authorization")) for call in server.calls} == {
            ("/v2/chat", "Bearer key-made-up")
        }
    assert asked[1]["messages"][1:] == [
        ANSWERS["a cited plan"][0]["message"],
        {"role": "tool", "tool_call_id": "t1", "content": "at x"},
    ]
    assert asked[2]["stream"] is True


# The recordings, which are not in the repository.

EXCHANGES = [json.loads(line) for line in RECORDINGS.read_text("utf-8").splitlines()] if RECORDINGS.exists() else []


@pytest.mark.skipif(not EXCHANGES, reason=f"there are no recordings at {RECORDINGS}")
@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange["id"])
def test_a_recorded_exchange_is_understood_and_told_again(exchange):
    found = replay(exchange)
    if exchange["endpoint"] != "v2/chat":
        assert (found.verdict, found.notes) == (
            "unsupported",
            [f"unsupported: {exchange['endpoint']!r} is not the chat operation of 'cohere'"],
        )
        return
    assert found.verdict == "passed", found.notes
    if exchange["response"]["status"] == 200:
        assert found.decoded["finish_reason"] != "unknown"
        assert found.decoded["usage"]["input_tokens"] is not None
