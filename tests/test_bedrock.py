"""Bedrock's Converse, both halves: what is sent, what is understood, and that nothing is lost there and back."""

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
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import Server, whole

import sabir
from sabir.deltas import Assembler, Blob, Close, Count, Event, Finish, Note, Open, State, Text
from sabir.dialects import Unsupported, response_of
from sabir.dialects.bedrock import NAME, Bedrock
from sabir.dialects.call_ids import fitting_ids
from sabir.dialects.event_stream import MessageStream, encode_message
from sabir.errors import (
    AuthenticationError,
    BadRequestError,
    ContextOverflowError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
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

RECORDINGS = Path(__file__).resolve().parent.parent.parent / "shared" / "recordings" / "bedrock-converse.jsonl"
DIALECT = Bedrock()
streamed = partial(halves.streamed, DIALECT)
CLAUDE, NEW_CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "us.anthropic.claude-sonnet-4-6"
NOVA, OSS, LLAMA = "amazon.nova-2-lite-v1:0", "openai.gpt-oss-120b-1:0", "meta.llama4-x"
OBJECT = {"type": "object", "properties": {"at": {"type": "string"}}}
STRICT = {**OBJECT, "required": ["at"], "additionalProperties": False}
TOOL = ToolSpec("look", "Look around.", OBJECT)
WIRE_TOOL = {"toolSpec": {"name": "look", "description": "Look around.", "inputSchema": {"json": OBJECT}}}
BYTES = b64encode(b"\0\1").decode()
FOREIGN = ProviderState("openai_chat", {"set": {"store": True}})
FIELDS = "additionalModelRequestFields"
HELLO = (user("hi"),)


def own(*unset, **value):
    return ProviderState(NAME, {"set": value, **({"unset": list(unset)} if unset else {})})


def kinds(notices):
    return [(notice.kind, notice.subject) for notice in notices]


def encoded(messages=HELLO, dialect=DIALECT, model=LLAMA, **fields):
    http, notices = dialect.encode_request(Request(model=model, messages=tuple(messages), **fields))
    return json.loads(http.body), notices


def plain(**fields):
    return {"messages": [{"role": "user", "content": [{"text": "hi"}]}], **fields}


def event(name, **fields):
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return encode_message(headers, json.dumps(fields).encode())


def delta(index, **fields):
    return event("contentBlockDelta", contentBlockIndex=index, delta=fields, p="abcdEFG")


def start(index, **fields):
    return event("contentBlockStart", contentBlockIndex=index, start=fields, p="ab")


def stop(index):
    return event("contentBlockStop", contentBlockIndex=index, p="abc")


def stream(*events, reason="end_turn", **metadata):
    begin = event("messageStart", role="assistant", p="a")
    end = (event("messageStop", stopReason=reason, p="abcd"), event("metadata", p="ab", **metadata))
    return b"".join((begin, *events, *end))


def decoded(data, cuts=(), dialect=DIALECT):
    """The deltas of a stream that comes in pieces, and the error it ends with."""
    decoder, deltas = dialect.decoder(), []
    try:
        for begin, end in pairwise([0, *sorted(cuts), len(data)]):
            deltas += decoder.feed(data[begin:end])
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


@pytest.mark.parametrize(
    ("model", "stream", "path"),
    [
        ("a.b-v1:0", False, "/model/a.b-v1%3A0/converse"),
        (
            "arn:aws:bedrock:x:1:inference-profile/y",
            True,
            "/model/arn%3Aaws%3Abedrock%3Ax%3A1%3Ainference-profile%2Fy/converse-stream",
        ),
    ],
)
def test_the_model_stands_in_the_address(model, stream, path):
    request = Request(model=model, messages=HELLO, stream=stream, headers={"x-a": "b"})
    http, notices = DIALECT.encode_request(request)
    assert (http.method, http.url) == ("POST", path)
    assert http.headers == (("content-type", "application/json"), ("x-a", "b"))
    assert json.loads(http.body) == plain()
    assert notices == ()
    assert DIALECT.decode_path("/v1" + path + "?x=1") == (model, stream)


@pytest.mark.parametrize("path", ["/", "/model/x/invoke", "/model/converse", "/model/a/b/converse", "/model//converse"])
def test_another_path_is_not_found(path):
    with pytest.raises(NotFoundError):
        DIALECT.decode_path(path)


def config(**fields):
    return {"inferenceConfig": fields}


def more(**fields):
    return {FIELDS: fields}


OPTIONS: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
    ({"temperature": 0.5}, config(temperature=0.5)),
    ({"top_p": 0.5}, config(topP=0.5)),
    ({"max_tokens": 5}, config(maxTokens=5)),
    ({"stop": ("a", "b")}, config(stopSequences=["a", "b"])),
    ({"top_k": 5}, None),
    ({"top_k": 5, "model": CLAUDE}, more(top_k=5)),
    ({"top_k": 5, "model": NOVA}, more(inferenceConfig={"topK": 5})),
    ({"min_p": 0.1}, None),
    ({"seed": 7}, None),
    ({"frequency_penalty": 0.1}, None),
    ({"presence_penalty": 0.1}, None),
    ({"repetition_penalty": 1.1}, None),
    ({"parallel_tool_calls": False}, None),
    ({"logprobs": True}, None),
    ({"top_logprobs": 2}, None),
    ({"n": 2}, None),
    ({"user": "me"}, None),
    ({"documents": ("a",)}, None),
    ({"thinking": True}, None),
    ({"thinking": True, "model": CLAUDE}, more(thinking={"type": "enabled", "budget_tokens": 8192})),
    ({"thinking": False, "model": CLAUDE}, more(thinking={"type": "disabled"})),
    ({"thinking": True, "model": NEW_CLAUDE}, more(thinking={"type": "adaptive"})),
    ({"thinking": "low", "model": NEW_CLAUDE}, more(thinking={"type": "adaptive"}, output_config={"effort": "low"})),
    ({"thinking": "high", "model": NOVA}, more(reasoningConfig={"type": "enabled", "maxReasoningEffort": "high"})),
    ({"thinking": False, "model": NOVA}, more(reasoningConfig={"type": "disabled"})),
    ({"thinking": True, "model": OSS}, more(reasoning_effort="medium")),
    ({"thinking": False, "model": OSS}, None),
    ({"extra": {"serviceTier": {"type": "flex"}}}, {"serviceTier": {"type": "flex"}}),
    ({"tools": (TOOL,)}, {"toolConfig": {"tools": [WIRE_TOOL]}}),
    ({"tools": (TOOL,), "tool_choice": "auto"}, {"toolConfig": {"tools": [WIRE_TOOL], "toolChoice": {"auto": {}}}}),
    ({"tools": (TOOL,), "tool_choice": "required"}, {"toolConfig": {"tools": [WIRE_TOOL], "toolChoice": {"any": {}}}}),
    (
        {"tools": (TOOL,), "tool_choice": "look"},
        {"toolConfig": {"tools": [WIRE_TOOL], "toolChoice": {"tool": {"name": "look"}}}},
    ),
    (
        {"schema": OutputSchema("place", STRICT), "model": CLAUDE},
        {
            "outputConfig": {
                "textFormat": {
                    "type": "json_schema",
                    "structure": {"jsonSchema": {"name": "place", "schema": json.dumps(STRICT, separators=(",", ":"))}},
                }
            }
        },
    ),
]


@pytest.mark.parametrize(("asked", "sent"), OPTIONS, ids=str)
def test_an_option_is_sent_in_bedrocks_words_or_reported(asked, sent):
    body, notices = encoded(**asked)
    assert body == plain(**(sent or {}))
    name = next(iter(asked))
    assert kinds(notices) == ([] if sent is not None else [("unsupported", name)])
    if sent is None:
        assert name in notices[0].message


def test_every_portable_option_has_a_verdict_and_is_tried_above():
    verdicts = DIALECT.verdicts()
    assert set(verdicts) >= set(Options.__annotations__) | {"schema"}
    # What becomes of `cache` is in test_prompt_cache.py, for all formats.
    assert set(Options.__annotations__) - {"headers", "cache"} <= {name for asked, _ in OPTIONS for name in asked}
    for asked, sent in OPTIONS:
        for name in asked.keys() & DIALECT.parameters.keys():
            assert isinstance(verdicts[name], Unsupported) == (sent is None)


@pytest.mark.parametrize(
    ("asked", "model", "sent"),
    [
        (100, CLAUDE, {"thinking": {"type": "enabled", "budget_tokens": 1024}}),
        (3000, NEW_CLAUDE, {"thinking": {"type": "adaptive"}, "output_config": {"effort": "medium"}}),
        ("minimal", NOVA, {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}}),
        (99_999, OSS, {"reasoning_effort": "high"}),
    ],
)
def test_thinking_that_has_no_word_is_approximated(asked, model, sent):
    body, notices = encoded(model=model, thinking=asked)
    assert body[FIELDS] == sent
    assert kinds(notices) == [("emulated", "thinking")]


def test_the_family_of_a_model_can_be_said_where_its_name_does_not_tell():
    profile = "arn:aws:bedrock:x:1:application-inference-profile/abc"
    assert kinds(encoded(model=profile, thinking=True)[1]) == [("unsupported", "thinking")]
    body, notices = encoded(dialect=Bedrock(family="claude"), model=profile, thinking=2048)
    assert body[FIELDS] == {"thinking": {"type": "enabled", "budget_tokens": 2048}}
    assert kinds(notices) == []


def test_a_claude_is_not_asked_for_what_it_refuses():
    body, notices = encoded(model=CLAUDE, thinking=4096, max_tokens=4096, temperature=0.2, top_p=0.97)
    assert body["inferenceConfig"] == {"maxTokens": 8192, "topP": 0.97}
    assert kinds(notices) == [("emulated", "max_tokens"), ("unsupported", "temperature")]
    assert "inferenceConfig" not in encoded(model="us.anthropic.claude-sonnet-5", temperature=1.0)[0]
    body, notices = encoded(model=CLAUDE, thinking=True, tools=(TOOL,), tool_choice="required")
    assert FIELDS not in body
    assert kinds(notices) == [("unsupported", "thinking")]


@pytest.mark.parametrize(
    ("schema", "model", "modes"),
    [
        (STRICT, CLAUDE, ("native", "tool", "prompt")),
        ({"type": "object"}, CLAUDE, ("tool", "prompt")),
        (STRICT, NOVA, ("tool", "prompt")),
        (STRICT, LLAMA, ("prompt", "tool")),
        (STRICT, "anthropic.claude-3-haiku", ("tool", "prompt")),
        (STRICT, "us.anthropic.claude-sonnet-4-20250514-v1:0", ("tool", "prompt")),
    ],
)
def test_the_ways_to_an_answer_of_a_schema(schema, model, modes):
    asked = Request(model=model, messages=HELLO, schema=OutputSchema("x", schema))
    assert Bedrock().schema_modes(asked) == modes


def test_a_schema_that_cannot_be_enforced_is_told():
    body, notices = encoded(schema=OutputSchema("x", {"type": "object"}), model=CLAUDE)
    assert "outputConfig" not in body
    assert kinds(notices) == [("unsupported", "schema")]


def test_no_tool_is_to_be_called():
    body, notices = encoded(tools=(TOOL,), tool_choice="none")
    assert (body, kinds(notices)) == (plain(), [("emulated", "tool_choice")])
    history = (
        *HELLO,
        assistant(ToolCall(name="look", id="1")),
        Message("tool", (ToolResult(call_id="1", name="look", content=()),)),
    )
    body, notices = encoded(history, tools=(TOOL,), tool_choice="none")
    assert body["toolConfig"] == {"tools": [WIRE_TOOL]}
    assert kinds(notices) == [("unsupported", "tool_choice")]
    assert kinds(encoded(tool_choice="none")[1]) == [("dropped", "tool_choice")]


def result(*content, is_error=False):
    return ToolResult(call_id="t1", name="look", content=content, is_error=is_error)


def block(kind, fmt, **fields):
    return {kind: {"format": fmt, "source": {"bytes": BYTES}, **fields}}


PARTS = [
    (user(Image(data=b"\0\1", media_type="image/jpeg")), block("image", "jpeg")),
    (user(Image(data=b"\0\1")), block("image", "png")),
    (
        user(Image(url="s3://b/k", media_type="image/jpg")),
        {"image": {"format": "jpeg", "source": {"s3Location": {"uri": "s3://b/k"}}}},
    ),
    (user(Audio(data=b"\0\1", media_type="audio/mpeg")), block("audio", "mp3")),
    (user(Audio(data=b"\0\1", media_type="audio/x-wav")), block("audio", "wav")),
    (user(File(data=b"\0\1", media_type="video/quicktime")), block("video", "mov")),
    (user(File(data=b"\0\1", name="a b")), block("document", "pdf", name="a b")),
    (user(File(data=b"\0\1", media_type="text/csv", name="data-1")), block("document", "csv", name="data-1")),
    (user(Value(value={"a": 1})), {"text": '{"a":1}'}),
    (
        assistant(ToolCall(name="look", id="t1", input='{"at": "x"}')),
        {"toolUse": {"toolUseId": "t1", "name": "look", "input": {"at": "x"}}},
    ),
    (
        assistant(Thinking(text="hm", state=own(**{"reasoningContent.reasoningText.signature": "sig"}))),
        {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "sig"}}},
    ),
    (
        assistant(TextPart(text="It is so.", notes=({"location": {"web": {"url": "u"}}}, {"logprob": {}}))),
        {"citationsContent": {"content": [{"text": "It is so."}], "citations": [{"location": {"web": {"url": "u"}}}]}},
    ),
    (
        user(ServerItem(kind="cachePoint", state=own(cachePoint={"type": "default"}))),
        {"cachePoint": {"type": "default"}},
    ),
    (
        Message(
            "tool", (result(TextPart(text="sunny"), Value(value={"c": 21}), Value(value=[1]), Image(data=b"\0\1")),)
        ),
        {
            "toolResult": {
                "toolUseId": "t1",
                "content": [{"text": "sunny"}, {"json": {"c": 21}}, {"text": "[1]"}, block("image", "png")],
            }
        },
    ),
    (Message("tool", (result(is_error=True),)), {"toolResult": {"toolUseId": "t1", "content": [], "status": "error"}}),
]


@pytest.mark.parametrize(("message", "wire"), PARTS)
def test_a_part_is_a_block(message, wire):
    body, notices = encoded((message,))
    assert body["messages"] == [{"role": "assistant" if message.role == "assistant" else "user", "content": [wire]}]
    assert notices == ()
    (read,) = DIALECT.decode_request(json.dumps(body).encode()).messages
    assert (
        DIALECT.encode_request(Request(model="m", messages=(read,)))[0].body
        == json.dumps(body, separators=(",", ":")).encode()
    )
    assert type(read.parts[0]) in (type(message.parts[0]), TextPart)


def test_speakers_take_turns():
    history = (
        system("Be brief."),
        user("a"),
        user("b"),
        assistant(ToolCall(name="look", id="1"), ToolCall(name="look", id="2")),
        Message("tool", (ToolResult(call_id="1", name="look", content=(TextPart(text="x"),)),)),
        Message("tool", (ToolResult(call_id="2", name="look", content=(TextPart(text="y"),)),)),
        user("go on"),
        assistant(""),
        user("and?"),
    )
    body, notices = encoded(history)
    assert body["system"] == [{"text": "Be brief."}]
    assert [(message["role"], [*map(next, map(iter, message["content"]))]) for message in body["messages"]] == [
        ("user", ["text", "text"]),
        ("assistant", ["toolUse", "toolUse"]),
        ("user", ["toolResult", "toolResult", "text", "text"]),
    ]
    assert notices == ()


@pytest.mark.parametrize(
    ("message", "noticed"),
    [
        (assistant(Thinking(text="hm")), ("dropped", "Thinking")),
        (assistant(ServerItem(kind="search", state=FOREIGN)), ("dropped", "ServerItem")),
        (assistant(Refusal(text="No.")), ("emulated", "Refusal")),
        (assistant(ToolCall(name="look", input="{", id="1")), ("emulated", "ToolCall")),
        (assistant("a", File(id="f1")), ("dropped", "File")),
        (assistant("a", File(data=b"a", media_type="text/plain")), ("dropped", "File")),
        (assistant("a", Audio(data=b"a")), ("dropped", "Audio")),
        (assistant("a", Image(url="https://x/y")), ("dropped", "Image")),
        (assistant(TextPart(text="a", notes=({"type": "url_citation"},))), ("dropped", "citations")),
        (user(Image(data=b"\0", detail="high")), ("dropped", "detail")),
        (user(File(data=b"\0", media_type="text/x-python", name="a")), ("emulated", "File")),
        (user(File(data=b"\0", name="a.b/c")), ("emulated", "File")),
        (Message("user", (TextPart(text="x"),), name="Ann"), ("dropped", "name")),
        (user(TextPart(text="x", state=FOREIGN)), ("dropped", "part")),
    ],
)
def test_what_has_no_place_is_left_out_or_said_otherwise_and_reported(message, noticed):
    assert noticed in kinds(encoded((user("hi"), message))[1])


def test_documents_of_one_name_are_told_apart():
    file = File(data=b"\0\1", name="report.pdf")
    body, notices = encoded((user(file, file, File(data=b"\0", media_type="text/plain")),))
    names = [each["document"]["name"] for each in body["messages"][0]["content"]]
    assert names == ["report pdf", "report pdf 2", "document"]
    assert kinds(notices) == [("emulated", "File")] * 2


def test_a_system_message_in_the_middle_is_moved_to_the_front():
    body, notices = encoded((user("hi"), system("Be brief."), assistant("ho")))
    assert body["system"] == [{"text": "Be brief."}]
    assert kinds(notices) == [("emulated", "system")]


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        (user(Image(url="https://a.example/b.png")), "send its bytes"),
        (Message("tool", (result(Image(url="https://a.example/b.png")),)), "send its bytes"),
        (user(File(id="file-1")), "send the File's bytes"),
        (user(Audio(id="a")), "send the Audio's bytes"),
        (user(Thinking(text="hm")), "no place for thinking in a message of the role 'user'; only a model makes it"),
    ],
)
def test_what_cannot_be_sent_is_an_error_before_anything_is(message, remedy):
    with pytest.raises(UnsupportedError, match=remedy):
        encoded((message,))
    with pytest.raises(UnsupportedError, match="run by openai_chat"):
        encoded(tools=(ToolSpec("search", state=FOREIGN),))


# The client's half: answers.


def answer(*content, reason="end_turn", **fields):
    return {"output": {"message": {"role": "assistant", "content": list(content)}}, "stopReason": reason, **fields}


COUNTS = {"inputTokens": 3, "outputTokens": 5, "totalTokens": 8}
CITED = {"location": {"documentChar": {"documentIndex": 0, "start": 0, "end": 4}}, "title": "t"}
CALL = {"toolUse": {"toolUseId": "t1", "name": "look", "input": {"at": "x"}}}
SERVER_CALL = {"toolUse": {"toolUseId": "s1", "name": "nova_grounding", "type": "server_tool_use", "input": {"q": 1}}}
SERVER_RESULT = {"toolResult": {"toolUseId": "s1", "type": "r", "status": "success", "content": [{"text": "[HIDDEN]"}]}}
SIGNED = {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "sig"}}}
ANSWERS: dict[str, tuple[dict[str, Any], bytes]] = {
    "text": (
        answer({"text": "Hello"}, usage=COUNTS, metrics={"latencyMs": 7}),
        stream(delta(0, text="Hel"), delta(0, text="lo"), stop(0), usage=COUNTS, metrics={"latencyMs": 7}),
    ),
    "cached and traced": (
        answer(
            {"text": "a"},
            usage={**COUNTS, "totalTokens": 40, "cacheReadInputTokens": 32, "serverToolUsage": {}},
            trace={"guardrail": {}},
            reason="guardrail_intervened",
        ),
        stream(
            delta(0, text="a"),
            stop(0),
            reason="guardrail_intervened",
            usage={**COUNTS, "totalTokens": 40, "cacheReadInputTokens": 32, "serverToolUsage": {}},
            trace={"guardrail": {}},
        ),
    ),
    "thinking and calls": (
        answer(
            SIGNED,
            {"text": "a"},
            CALL,
            {"toolUse": {"toolUseId": "t2", "name": "go", "input": {}, "type": "tool_use"}},
            reason="tool_use",
        ),
        stream(
            delta(0, reasoningContent={"text": "h"}),
            delta(0, reasoningContent={"text": "m"}),
            delta(0, reasoningContent={"signature": "si"}),
            delta(0, reasoningContent={"signature": "g"}),
            stop(0),
            delta(1, text="a"),
            stop(1),
            start(2, toolUse={"toolUseId": "t1", "name": "look"}),
            delta(2, toolUse={"input": ""}),
            start(3, toolUse={"toolUseId": "t2", "name": "go", "type": "tool_use"}),
            delta(2, toolUse={"input": '{"at":'}),
            delta(2, toolUse={"input": '"x"}'}),
            stop(3),
            stop(2),
            reason="tool_use",
        ),
    ),
    "only signed": (
        answer({"reasoningContent": {"reasoningText": {"text": "", "signature": "sig"}}}),
        stream(delta(0, reasoningContent={"signature": "sig"}), stop(0)),
    ),
    "redacted": (
        answer({"reasoningContent": {"redactedContent": BYTES}}, {"text": "a"}),
        stream(delta(0, reasoningContent={"redactedContent": BYTES}), stop(0), delta(1, text="a"), stop(1)),
    ),
    "redacted in pieces": (
        answer({"reasoningContent": {"redactedContent": b64encode(b"\0\1\0\1").decode()}}),
        stream(*(delta(0, reasoningContent={"redactedContent": BYTES}) for _ in "ab"), stop(0)),
    ),
    "citations": (
        answer(
            {"citationsContent": {"content": [{"text": "so."}], "citations": [CITED]}},
            {"citationsContent": {"citations": [CITED, CITED]}},
        ),
        stream(
            delta(0, citation=CITED),
            delta(0, text="so"),
            delta(0, text="."),
            stop(0),
            delta(1, citation=CITED),
            delta(1, citation=CITED),
            stop(1),
        ),
    ),
    "a citation of another kind": (
        answer({"citationsContent": {"citations": [{"title": "t"}]}}),
        stream(delta(0, citation={"title": "t"}), stop(0)),
    ),
    "a tool of the server": (
        answer(SERVER_CALL, SERVER_RESULT, {"text": "a"}),
        stream(
            start(0, toolUse={"toolUseId": "s1", "name": "nova_grounding", "type": "server_tool_use"}),
            delta(0, toolUse={"input": '{"q"'}),
            delta(0, toolUse={"input": ":1}"}),
            stop(0),
            start(1, toolResult={"toolUseId": "s1", "type": "r", "status": "success"}),
            delta(1, toolResult=[{"text": "[HIDDEN]"}]),
            stop(1),
            delta(2, text="a"),
            stop(2),
        ),
    ),
    "an image": (
        answer(
            {
                "image": {
                    "format": "webp",
                    "source": {"bytes": b64encode(b"\0\1\0\1").decode()},
                    "error": {"message": "?"},
                }
            }
        ),
        stream(
            start(0, image={"format": "webp"}),
            *(delta(0, image={"source": {"bytes": BYTES}}) for _ in "ab"),
            delta(0, image={"error": {"message": "?"}}),
            stop(0),
        ),
    ),
    "something unknown": (
        answer({"hologram": {"a": [1]}}, {"text": "a", "type": "text"}, reason="tired", mood="calm"),
        stream(
            delta(0, hologram={"a": [1]}),
            stop(0),
            delta(1, text="a", type="text"),
            stop(1),
            reason="tired",
            mood="calm",
        ),
    ),
    "nothing": (answer(), stream()),
    "an empty text": (answer({"text": ""}), stream(delta(0, text=""), stop(0))),
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
    _, data = ANSWERS["thinking and calls"]
    message, _, finishes = total(decoded(data)[0])
    assert [type(part).__name__ for part in message.parts] == ["Thinking", "Text", "ToolCall", "ToolCall"]
    assert (message.thinking, message.text) == ("hm", "a")
    assert [(call.id, call.name, call.arguments) for call in message.tool_calls] == [
        ("t1", "look", {"at": "x"}),
        ("t2", "go", {}),
    ]
    assert finishes[0] == Finish("tool_calls", raw="tool_use")
    message, usage, finishes = total(decoded(ANSWERS["cached and traced"][1])[0])
    assert usage == Usage(input=3, output=5, cache_read=32, reported_total=40)
    assert (usage.total_tokens, finishes[0].reason) == (40, "content_filter")
    # What Bedrock's own tools did is no call of ours.
    assert [*map(type, total(decoded(ANSWERS["a tool of the server"][1])[0])[0].parts)] == [
        ServerItem,
        ServerItem,
        TextPart,
    ]


def test_what_was_signed_goes_back_as_it_came():
    for name in ("thinking and calls", "redacted", "a tool of the server", "citations"):
        body, data = ANSWERS[name]
        message = total(decoded(data)[0])[0]
        sent, notices = encoded((user("hi"), message))
        assert sent["messages"][1]["content"] == body["output"]["message"]["content"]
        assert notices == ()


def test_half_a_surrogate_pair_waits_for_its_other_half():
    data = stream(delta(0, text="a\ud83d"), delta(0, text="\ude00"), delta(0, text="\ud83d"), stop(0))
    deltas, _ = decoded(data)
    assert [each.text for each in deltas if isinstance(each, Text)] == ["a", "\U0001f600", "\ud83d"]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", StreamInterrupted),
        (stream(delta(0, text="a"))[:-9], None),  # its metadata is cut
        (event("messageStart", role="assistant") + delta(0, text="a") + stop(0), StreamInterrupted),
        (delta(0, text=5), None),
        (delta(0, toolUse={"input": "{"}), StreamProtocolError),
        (start(0, toolUse={"toolUseId": "t"}), StreamProtocolError),
        (start(0, image={"format": "png"}) + start(0, image={"format": "png"}), StreamProtocolError),
        (event("contentBlockDelta", delta={"text": "a"}), StreamProtocolError),
        (encode_message({":event-type": "metadata", ":message-type": "event"}, b"["), StreamProtocolError),
        (encode_message({":event-type": "metadata", ":message-type": "event"}, b"[]"), StreamProtocolError),
        (b"data: {}\n\n" * 3, StreamProtocolError),
    ],
)
def test_a_stream_ends_whole_or_with_an_error(data, error):
    _, found = decoded(data)
    assert type(found) is (error or (type(None) if b"messageStop" in data else StreamInterrupted))


def test_a_block_that_never_had_content_is_none():
    deltas, error = decoded(stream(stop(0), delta(1, text="a"), stop(1)))
    assert error is None
    assert total(deltas)[0].text == "a"


def test_an_unknown_event_is_carried():
    deltas, error = decoded(event("weather", sun=1) + stream(delta(0, text="a"), stop(0)))
    assert error is None
    assert Event({"weather": {"sun": 1}}) in deltas


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"<html>", ServerError),
        (b"[]", StreamProtocolError),
        (b'{"message": "Internal server error"}', ServerError),
        (b'{"__type": "com.x#ThrottlingException", "message": "slow"}', RateLimitError),
        (json.dumps(answer(5)).encode(), StreamProtocolError),
        (json.dumps(answer({"toolUse": {"toolUseId": "t"}})).encode(), StreamProtocolError),
        (json.dumps(answer({"image": {"source": {"bytes": "?"}}})).encode(), StreamProtocolError),
    ],
)
def test_a_body_that_is_no_answer_is_an_error(body, error):
    with pytest.raises(error):
        DIALECT.decode_answer(body)


# Errors.

ERRORS: list[tuple[int, str, dict[str, Any], type[SabirError], bool]] = [
    (400, "ValidationException", {"message": "bad"}, BadRequestError, False),
    (403, "AccessDeniedException", {"Message": "no"}, PermissionDeniedError, False),
    (403, "ExpiredTokenException", {"message": "old"}, AuthenticationError, False),
    (403, "UnrecognizedClientException", {"message": "who"}, AuthenticationError, False),
    (403, "InvalidSignatureException", {"message": "wrong"}, AuthenticationError, False),
    (404, "ResourceNotFoundException", {"message": "gone"}, NotFoundError, False),
    (408, "ModelTimeoutException", {"message": "slow"}, ServerError, True),
    (424, "ModelErrorException", {"message": "broken"}, ServerError, True),
    (429, "ThrottlingException", {"message": "many"}, RateLimitError, True),
    (429, "ModelNotReadyException", {"message": "wait"}, OverloadedError, True),
    (400, "ServiceQuotaExceededException", {"message": "much"}, RateLimitError, True),
    (500, "InternalServerException", {"message": "oops"}, ServerError, True),
    (503, "ServiceUnavailableException", {"message": "later"}, OverloadedError, True),
    (400, "ValidationException", {"message": "Input is too long for requested model."}, ContextOverflowError, False),
    (
        400,
        "ValidationException",
        {"message": "prompt is too long: 12 tokens > 10 maximum"},
        ContextOverflowError,
        False,
    ),
]


@pytest.mark.parametrize(("status", "kind", "body", "error", "retryable"), ERRORS)
def test_an_error_becomes_the_exception_it_means_and_the_same_error_again(status, kind, body, error, retryable):
    for headers, told in (
        ({"x-amzn-errortype": f"{kind}:http://internal.amazon.com/coral/", "x-amzn-requestid": "r"}, body),
        ({}, {"__type": f"com.amazon.coral.service#{kind}", **body}),
    ):
        found = DIALECT.decode_error(status, headers, json.dumps(told).encode())
        assert (type(found), found.status, found.code, found.retryable) == (error, status, kind, retryable)
        assert next(iter(body.values())) in str(found)
        assert found.request_id == headers.get("x-amzn-requestid")
        again = DIALECT.decode_error(*(lambda code, data: (code, {}, data))(*DIALECT.encode_error(found)))
        assert (type(again), again.status, again.code) == (error, status, kind)
    if "12 tokens" in found.message:
        assert (found.prompt_tokens, found.context_length) == (12, 10)


@pytest.mark.parametrize(("status", "kind", "body", "error", "retryable"), ERRORS)
def test_an_error_in_a_stream_comes_after_what_preceded_it(status, kind, body, error, retryable):
    name = kind[0].lower() + kind[1:]
    told = encode_message({":message-type": "exception", ":exception-type": name}, json.dumps(body).encode())
    deltas, found = decoded(event("messageStart", role="assistant") + delta(0, text="a") + told + stop(0))
    assert [each.text for each in deltas if isinstance(each, Text)] == ["a"]
    assert (type(found), found.code, found.retryable) == (error, kind, retryable)
    again = decoded(DIALECT.encoder().fail(found))[1]
    assert (type(again), again.code) == (error, kind)


def test_an_error_that_the_service_does_not_model_is_one_too():
    told = encode_message({":message-type": "error", ":error-code": "InternalError", ":error-message": "oops"}, b"")
    _, found = decoded(told)
    assert (type(found), found.code, str(found)) == (ServerError, "InternalError", "oops")
    for status, error in ((401, AuthenticationError), (413, BadRequestError), (502, ServerError)):
        assert type(DIALECT.decode_error(status, {}, b"<html>no</html>")) is error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RateLimitError("x"), "ThrottlingException"),
        (AuthenticationError("x", code="invalid_api_key"), "UnrecognizedClientException"),
        (NotFoundError("x"), "ResourceNotFoundException"),
        (sabir.DeadlineExceeded("x"), "InternalServerException"),
        (ContextOverflowError("too long"), "ValidationException"),
    ],
)
def test_an_error_of_ours_has_a_type_of_theirs(error, kind):
    status, body = DIALECT.encode_error(error)
    assert json.loads(body) == {"__type": kind, "message": error.message}
    assert status >= 400


# The server's half: requests.


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "cook", "content": [{"text": "x"}]}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "hi"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [5]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"text": 5}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "assistant", "content": [{"toolUse": {}}]}]}, "messages[0].content[0]"),
        (
            {"messages": [{"role": "user", "content": [{"image": {"format": "png", "source": {"bytes": "?"}}}]}]},
            "messages[0].content[0]",
        ),
        ({"system": "Be brief."}, "system"),
        ({"inferenceConfig": 5}, "inferenceConfig"),
        ({"inferenceConfig": {"maxTokens": "many"}}, "max_tokens"),
        ({"inferenceConfig": {"stopSequences": [5]}}, "stop"),
        ({"toolConfig": {"tools": 5}}, "toolConfig.tools"),
        ({"toolConfig": {"tools": [5]}}, "toolConfig.tools[0]"),
        ({"toolConfig": {"tools": [{"toolSpec": {"inputSchema": {"json": {}}}}]}}, "toolConfig.tools[0].toolSpec.name"),
        ({"toolConfig": {"tools": [{"toolSpec": {"name": "a"}}]}}, "toolConfig.tools[0].toolSpec.inputSchema.json"),
        ({"outputConfig": {"textFormat": {"structure": {"jsonSchema": {"schema": "{"}}}}}, "outputConfig"),
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


def test_a_request_is_read_in_portable_words():
    body = {
        "messages": [
            {"role": "user", "content": [{"text": "hi"}]},
            {"role": "assistant", "content": [CALL]},
            {
                "role": "user",
                "content": [
                    {"toolResult": {"toolUseId": "t1", "content": [{"json": {"c": 1}}], "status": "success"}},
                    {"text": "go on"},
                ],
            },
        ],
        "system": [{"text": "Be brief."}, {"cachePoint": {"type": "default"}}],
        "inferenceConfig": {"maxTokens": 9, "temperature": 0.5, "topP": 0.9, "stopSequences": ["x"]},
        "toolConfig": {"tools": [WIRE_TOOL, {"systemTool": {"name": "nova_grounding"}}], "toolChoice": {"any": {}}},
        FIELDS: {"thinking": {"type": "enabled", "budget_tokens": 2048}, "top_k": 4},
    }
    request = DIALECT.decode_request(json.dumps(body).encode())
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "tool", "user"]
    assert request.messages[3].parts[0].name == "look"
    assert (request.max_tokens, request.temperature, request.top_p, request.stop) == (9, 0.5, 0.9, ("x",))
    assert (request.thinking, request.top_k, request.tool_choice) == (2048, 4, "required")
    assert [tool.name for tool in request.tools] == ["look", "nova_grounding"]
    assert json.loads(DIALECT.encode_request(msgspec.structs.replace(request, model=CLAUDE))[0].body) == body


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (plain(), plain(inferenceConfig={}, system=[], toolConfig={"tools": []}, additionalModelRequestFields={})),
        (plain(), plain(inferenceConfig={"stopSequences": [], "topP": None}, guardrailConfig=None)),
        (plain(), {"messages": [*plain()["messages"], {"role": "assistant", "content": [{"text": " "}]}]}),
        (plain(), {"messages": [{"role": "user", "content": [{"text": "hi"}, {"text": ""}]}]}),
    ],
)
def test_two_spellings_of_one_request_are_one(one, other):
    assert DIALECT.canonical_request(other) == one
    assert json.loads(DIALECT.encode_request(DIALECT.decode_request(json.dumps(other).encode()))[0].body) == one


# The laws, with made-up values.

scalars = st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=4)
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text("ab_", min_size=1, max_size=3), inner, max_size=2)
    ),
    max_leaves=5,
)
objects = st.sampled_from([{}, {"a": 1}, {"a": {"b": [None, "x"]}, "c": "d"}])
beyond = st.sampled_from([{}, {}, {}, {"zz": [1, {"a": None}]}, {"zz": None}, {"y.z": "d"}])
texts = st.text(max_size=6)
words = st.text("abcXYZ-_ ", min_size=1, max_size=6)
base64s = st.binary(min_size=1, max_size=4).map(lambda data: b64encode(data).decode())


def an(required, **optional):
    """Objects with these fields, and with fields that nobody knows."""

    @st.composite
    def made(draw):  # prints as its name, however deep it is
        told = {name: draw(value) for name, value in required.items()}
        told |= {name: draw(value) for name, value in optional.items() if draw(st.booleans())}
        return {**draw(beyond), **told}

    return made()


source = st.one_of(
    an({"bytes": base64s}), an({"s3Location": an({"uri": st.sampled_from(["s3://b/k", "odd"])}, bucketOwner=words)})
)
medium = an({"source": source}, format=st.sampled_from(["png", "pdf", "mp3", "three_gp", "zzz"]))
document = an(
    {"source": source | an({"text": words}) | an({"content": st.lists(an({"text": texts}), max_size=2)})},
    name=words,
    format=st.sampled_from(["txt", "pdf", "odd"]),
    context=texts,
)
citation = an({}, location=objects, title=texts, sourceContent=st.lists(an({"text": texts}), max_size=2))
call = an({"name": words, "toolUseId": words}, input=objects, type=st.sampled_from(["tool_use", "server_tool_use"]))
by_model = st.one_of(
    an({"text": texts}),
    an({"toolUse": call}),
    an({"reasoningContent": an({}, reasoningText=an({}, text=texts, signature=words), redactedContent=base64s)}),
    an(
        {
            "citationsContent": an(
                {}, content=st.lists(an({"text": texts}), max_size=2), citations=st.lists(citation, max_size=2)
            )
        }
    ),
    an({"image": medium}),
    st.fixed_dictionaries({"guardContent": objects}),
    objects,
)
in_result = st.one_of(
    an({"text": texts}),
    st.fixed_dictionaries({"json": trees}),
    an({"image": medium}),
    an({"document": document}),
    objects,
)
tool_result = an(
    {"toolUseId": words}, content=st.lists(in_result, max_size=2), status=st.sampled_from(["success", "error", "odd"])
)
by_user = st.one_of(
    by_model, an({"toolResult": tool_result}), an({"document": document}), an({"audio": medium}), an({"video": medium})
)
visible = st.just({"text": "x"})
messages = st.one_of(
    an(
        {
            "role": st.sampled_from(["user", "system"]),
            "content": st.tuples(visible, st.lists(by_user.filter(bool), max_size=3)).map(
                lambda both: [both[0], *both[1]]
            ),
        }
    ),
    an({"role": st.just("user"), "content": st.lists(an({"toolResult": tool_result}), min_size=1, max_size=2)}),
    an(
        {
            "role": st.just("assistant"),
            "content": st.lists(by_model.filter(bool), max_size=2).map(lambda it: [CALL, *it]),
        }
    ),
)
tools = st.one_of(
    an(
        {"toolSpec": an({"name": words, "inputSchema": an({"json": objects})}, description=texts, strict=st.booleans())}
    ),
    st.just({"cachePoint": {"type": "default"}}),
)
fields = an(
    {},
    thinking=an(
        {"type": st.sampled_from(["enabled", "adaptive", "disabled", "odd"])}, budget_tokens=st.integers(1, 9999)
    ),
    output_config=an({}, effort=st.sampled_from(["low", "max"])),
    reasoning_effort=st.sampled_from(["low", "odd"]),
    reasoningConfig=an({"type": st.just("enabled")}, maxReasoningEffort=st.sampled_from(["low", "odd"])),
    top_k=st.integers(1, 9),
    inferenceConfig=an({}, topK=st.integers(1, 9)),
)
bodies = an(
    {"messages": st.lists(messages, min_size=1, max_size=3)},
    system=st.lists(st.one_of(an({"text": texts}), st.just({"cachePoint": {"type": "default"}})), max_size=2),
    inferenceConfig=an(
        {}, maxTokens=st.integers(1, 9), temperature=st.floats(0, 1), stopSequences=st.lists(texts, max_size=2)
    ),
    toolConfig=an(
        {},
        tools=st.lists(tools, max_size=2),
        toolChoice=st.sampled_from([{"auto": {}}, {"any": {}}, {"tool": {"name": "a"}}, {"odd": 1}]),
    ),
    additionalModelRequestFields=fields,
    outputConfig=an(
        {},
        textFormat=st.sampled_from(
            [{"type": "json_schema", "structure": {"jsonSchema": {"schema": json.dumps(STRICT)}}}, {"type": "odd"}]
        ),
    ),
    guardrailConfig=objects,
)


@settings(max_examples=200)
@given(bodies)
def test_every_request_that_is_read_is_the_same_when_it_is_sent_again(body):
    request = DIALECT.decode_request(json.dumps(body).encode())
    for model in ("", CLAUDE, NOVA):
        sent = DIALECT.encode_request(msgspec.structs.replace(request, model=model))[0]
        assert json.loads(sent.body) == DIALECT.canonical_request(body)


answers = an(
    {"output": an({"message": an({"role": st.just("assistant"), "content": st.lists(by_model, max_size=4)})})},
    stopReason=st.sampled_from(["end_turn", "tool_use", "max_tokens", "stop_sequence", "odd"]),
    usage=an(
        {},
        inputTokens=st.integers(0, 9),
        outputTokens=st.integers(0, 9),
        totalTokens=st.integers(0, 99),
        cacheReadInputTokens=st.integers(0, 9),
    ),
    metrics=objects,
)


@settings(max_examples=200)
@given(answers)
def test_every_answer_that_is_read_is_the_same_when_it_is_told_again(body):
    deltas = DIALECT.decode_answer(json.dumps(body).encode())
    assert DIALECT.canonical_answer(told_again(deltas)) == DIALECT.canonical_answer(body)


results = st.builds(
    ToolResult,
    call_id=words,
    name=st.just(""),
    content=st.lists(
        st.one_of(st.builds(TextPart, text=words.filter(str.strip)), st.builds(Value, value=objects)), max_size=2
    ).map(tuple),
    is_error=st.booleans(),
)
said = st.builds(TextPart, text=words.filter(str.strip))
spoken = st.one_of(said, st.builds(ToolCall, name=words, id=words, input=objects.map(json.dumps)))
shown = st.one_of(
    said,
    st.builds(Image, data=st.binary(min_size=1, max_size=3), media_type=st.sampled_from(["image/png", "image/webp"])),
)
conversations = st.lists(
    st.one_of(
        st.lists(shown, min_size=1, max_size=2).map(lambda parts: user(*parts)),
        st.lists(spoken, min_size=1, max_size=2).map(lambda parts: assistant(*parts)),
        st.lists(results, min_size=1, max_size=2).map(lambda parts: Message("tool", tuple(parts))),
    ),
    min_size=1,
    max_size=4,
)


@given(conversations, st.floats(0, 1), st.integers(1, 99))
def test_a_conversation_comes_back_but_for_who_spoke_twice(conversation, temperature, most):
    conversation, _ = fitting_ids(tuple(conversation), re.compile("[a-zA-Z0-9_-]{1,64}"), "bedrock")
    request = Request(model="m", messages=conversation, temperature=temperature, max_tokens=most, tools=(TOOL,))
    http, notices = DIALECT.encode_request(request)
    assert notices == ()
    again = DIALECT.decode_request(http.body)
    assert (again.temperature, again.max_tokens, again.tools, again.state) == (temperature, most, (TOOL,), None)

    def parts(messages):
        told = [part for message in messages for part in message.parts]
        return [
            msgspec.structs.replace(part, name="")
            if isinstance(part, ToolResult)
            else msgspec.structs.replace(part, input=json.dumps(json.loads(part.input)))
            if isinstance(part, ToolCall)
            else part
            for part in told
        ]

    assert parts(again.messages) == parts(conversation)


def made_of(pieces):
    """Deltas that fit each other, of parts that are mixed."""
    deltas, opened, closed = [], {}, set()
    for kind, which, text, fields_ in pieces:
        open_ = [part for part in opened if part not in closed]
        if kind in ("text", "thinking", "call", "image") or not open_:
            kind = kind if kind in ("text", "thinking", "call", "image") else "text"
            part = len(opened)
            opened[part] = kind
            name = ("id", "name") if kind == "call" else (None, None)
            deltas.append(Open(part, kind, *name, media_type="image/png" if kind == "image" else None))
            continue
        part = open_[which % len(open_)]
        match kind:
            case "more" if opened[part] == "image":
                deltas.append(Blob(part, text.encode()))
            case "more":
                deltas.append(Text(part, text))
            case "note" if opened[part] == "text":
                deltas.append(Note(part, {"location": fields_}))
            case "state" if opened[part] == "thinking":
                deltas.append(State(part, {"set": {"reasoningContent.reasoningText.signature": text}}))
            case "close":
                closed.add(part)
                deltas.append(Close(part))
            case _:
                pass
    return deltas, opened, closed


pieces = st.lists(
    st.tuples(
        st.sampled_from(["text", "thinking", "call", "image", "more", "more", "more", "note", "close"]),
        st.integers(0, 9),
        st.text(max_size=5),
        objects,
    ),
    max_size=20,
)


@given(pieces, st.data())
def test_the_sum_of_deltas_survives_being_a_stream_however_it_is_cut(told, data):
    deltas, opened, closed = made_of(told)
    # A call is JSON, or nothing at all comes of it.
    deltas = [each for each in deltas if not (isinstance(each, Text) and opened[each.part] == "call")]
    deltas += [Text(part, '{"a": 1}') for part, kind in opened.items() if kind == "call" and part not in closed]
    lacking = [part for part, kind in opened.items() if kind == "call" and part in closed]
    deltas += [Count(Usage(input=1, output=2, reported_total=3)), Finish("stop", raw="end_turn")]
    stream_ = streamed(deltas)
    again, error = decoded(stream_)
    assert error is None
    first, second = total(deltas), total(again)
    for part in lacking:
        deltas.insert(
            deltas.index(next(d for d in deltas if isinstance(d, Close) and d.part == part)), Text(part, "{}")
        )
    first = total(deltas)
    assert second == first
    cuts = data.draw(st.lists(st.integers(0, len(stream_)), max_size=5))
    assert decoded(stream_, cuts) == (again, None)


@settings(max_examples=150)
@given(st.sampled_from(sorted(ANSWERS)), st.data())
def test_a_stream_with_anything_anywhere_raises_only_errors_of_the_family(name, data):
    told = [*MessageStream().feed(ANSWERS[name][1])]
    at = data.draw(st.integers(0, len(told) - 1))
    headers, payload = told[at]
    value = json.loads(payload)
    field = data.draw(st.sampled_from([*value, "delta", "start", "contentBlockIndex"]))
    value[field] = data.draw(trees | by_model)
    kind = data.draw(
        st.sampled_from([headers[":event-type"], "contentBlockDelta", "contentBlockStart", "metadata", ""])
    )
    told[at] = ({**headers, ":event-type": kind}, json.dumps(value).encode())
    stream_ = b"".join(encode_message(*each) for each in told)
    deltas, error = decoded(stream_)
    assert error is None or isinstance(error, SabirError)
    assert decoded(stream_, data.draw(st.lists(st.integers(0, len(stream_)), max_size=3)))[0] == deltas
    total(deltas)


@given(st.binary(max_size=200) | trees.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_raise_only_errors_of_the_family(body):
    for read in (DIALECT.decode_answer, DIALECT.decode_request, lambda data: decoded(data)):
        try:
            read(body)
        except SabirError:
            pass
    assert isinstance(DIALECT.decode_error(400, {}, body), SabirError)


@given(
    st.recursive(
        objects,
        lambda inner: st.fixed_dictionaries({"output": st.fixed_dictionaries({"message": inner})}),
        max_leaves=3,
    )
)
def test_any_object_is_an_answer_or_an_error_of_the_family(body):
    try:
        told_again(DIALECT.decode_answer(json.dumps(body).encode()))
    except SabirError:
        pass


def test_a_call_waits_for_its_name():
    encoder = DIALECT.encoder()
    assert encoder.feed(Open(0, "call")).count(b"contentBlock") == 0
    assert encoder.feed(Text(0, "{}")) == b""
    assert b"contentBlockStart" in encoder.feed(State(0, {}, id="t1", name="look"))
    encoder.feed(Open(1, "call"))
    with pytest.raises(StreamProtocolError, match="without the name"):
        encoder.feed(Close(1))
    for kind in ("audio", "file"):
        with pytest.raises(UnsupportedError, match=kind):
            DIALECT.encoder().feed(Open(0, kind))
    with pytest.raises(StreamProtocolError, match="never opened"):
        DIALECT.encoder().feed(Text(0, "a"))


def test_what_comes_after_a_part_that_cannot_begin_waits_for_it():
    item = {"set": {"toolResult": {"toolUseId": "s1", "content": [{"text": "x"}]}}}
    deltas = [
        Open(0, "call"),
        Open(1, "text"),
        Text(1, "a"),
        Text(0, '{"a": 1}'),
        State(0, {}, id="t1", name="look"),
        Open(2, "server", "s1", "toolResult", state={"set": {}}),
        Open(3, "thinking"),
        Text(3, "hm"),
        Text(1, "b"),
        State(2, item),
        Close(2),
        Open(4, "call", name="unnamed"),
        Open(5, "text"),
        Text(5, "c"),
        Finish("stop", raw="end_turn"),
    ]
    again, error = decoded(streamed(deltas))
    assert error is None
    assert [*total(again)[0].parts[:4]] == [*total(deltas)[0].parts[:4]]
    assert total(again)[0].text == "abc"


# The client, over a socket.


def served(body, **headers):
    return whole(body, *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()))


async def test_a_client_asks_streams_and_calls_tools(surface, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    called = answer(CALL, reason="tool_use", usage=COUNTS)
    answers_ = [
        served(json.dumps(called).encode(), content_type="application/json", x_amzn_requestid="r1"),
        served(json.dumps(ANSWERS["text"][0]).encode(), content_type="application/json", x_amzn_requestid="r2"),
        served(ANSWERS["text"][1], content_type="application/vnd.amazon.eventstream", x_amzn_requestid="r3"),
        whole(b'{"message":"no such model"}', "x-amzn-errortype: ValidationException", status="400 Bad Request"),
    ]

    async def answer_(call):
        await answers_.pop(0)(call)

    def look(at: str) -> str:
        return f"at {at}"

    with Server(answer_) as server:
        client = surface.client("bedrock:m:1", base_url=server.url, api_key="key-made-up")
        response = await client.ask("Where?", tools=[look])
        assert (response.text, response.request_id, response.usage.output_tokens) == ("Hello", "r2", 10)
        assert response.model == "bedrock:m:1" or response.model == "m:1"
        chunks = []
        async with client.stream("Hi", include=["generating"]) as stream_:
            async for chunk in stream_:
                chunks.append(chunk.content)  # noqa: PERF401 - whatever the colour
        assert "".join(chunks) == "Hello"
        with pytest.raises(BadRequestError, match="no such model"):
            await client.ask("Hi")
        targets = [call.target for call in server.calls]
        second = json.loads(server.calls[1].body)["messages"]
    assert targets == [f"/model/m%3A1/{end}" for end in ("converse", "converse", "converse-stream", "converse")]
    assert second[1]["content"] == [CALL]
    assert second[2]["content"] == [{"toolResult": {"toolUseId": "t1", "content": [{"text": "at x"}]}}]


# The recordings, which are not in the repository.

EXCHANGES = [json.loads(line) for line in RECORDINGS.read_text("utf-8").splitlines()] if RECORDINGS.exists() else []


@pytest.mark.skipif(not EXCHANGES, reason=f"there are no recordings at {RECORDINGS}")
@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange["id"])
def test_a_recorded_exchange_is_understood_and_told_again(exchange):
    found = replay(exchange)
    assert found.verdict == "passed", found.notes
    status = exchange["response"]["status"]
    assert (found.error is None) == (status == 200)
    if status == 200:
        assert found.decoded["finish_reason"] != "unknown"
        assert found.decoded["usage"]["input_tokens"] is not None
