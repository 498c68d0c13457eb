"""Anthropic's format, both halves: what is sent, what is understood, and that nothing is lost there and back."""

from __future__ import annotations

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

import halves
import msgspec
import pytest
from halves import replaced, same, values_in
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sabir.credentials import find_key
from sabir.deltas import Blob, Close, Count, Event, Finish, Head, Note, Open, State, Text
from sabir.dialects import Unsupported, mapping_of, response_of
from sabir.dialects.anthropic import NAME, Anthropic
from sabir.errors import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ContextOverflowError,
    DeadlineExceeded,
    EngineError,
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
from sabir.providers import PROVIDERS
from sabir.requests import Options, OutputSchema, Request, ToolSpec
from sabir.strict_json import encode_json
from sabir.usage import Usage

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests" / "fixtures" / "anthropic"
RECORDINGS = ROOT.parent / "shared" / "recordings" / "anthropic-messages.jsonl"
DIALECT = Anthropic()
streamed = partial(halves.streamed, DIALECT)
total = partial(halves.total, DIALECT)
TOOL = ToolSpec("look", "Look around.", {"type": "object", "properties": {"at": {"type": "string"}}})


def own(**value):
    return ProviderState(NAME, value)


def text(words, **more):
    return {"type": "text", "text": words, **more}


def kinds(notices):
    return [(notice.kind, notice.subject) for notice in notices]


HELLO = (user("hi"),)


def encoded(messages=HELLO, dialect=DIALECT, **fields):
    http, notices = dialect.encode_request(Request(model=fields.pop("model", "m"), messages=tuple(messages), **fields))
    return json.loads(http.body), [notice for notice in notices if notice.subject != "max_tokens"]


def plain(**fields):
    return {"model": "m", "max_tokens": 8192, "messages": [{"role": "user", "content": [text("hi")]}], **fields}


def decoded(data, cuts=()):
    """The deltas of a stream that comes in pieces, and the error it ends with."""
    decoder, deltas = DIALECT.decoder(), []
    ends = [*sorted(cuts), len(data)]
    try:
        for start, end in zip([0, *ends], ends, strict=False):
            deltas += decoder.feed(data[start:end])
        deltas += decoder.close()
    except SabirError as error:
        return deltas, error
    return deltas, None


def events(data):
    return [
        json.loads(line[5:]) for line in data.decode().splitlines() if line.startswith("data:") and line.endswith("}")
    ]


# The client's half: requests.


def test_a_request_is_posted_with_the_version_and_the_callers_headers_and_without_a_key():
    request = Request(model="m", messages=(user("hi"),), headers={"anthropic-beta": "b", "Anthropic-Version": "v"})
    http, _ = DIALECT.encode_request(request)
    assert (http.method, http.url) == ("POST", "/v1/messages")
    assert http.headers == (
        ("content-type", "application/json"),
        ("anthropic-beta", "b"),
        ("Anthropic-Version", "v"),
    )
    assert ("anthropic-version", "2023-06-01") in DIALECT.encode_request(Request(model="m", messages=()))[0].headers


def test_the_limit_that_the_api_requires_is_stated():
    http, notices = DIALECT.encode_request(Request(model="m", messages=(user("hi"),)))
    assert json.loads(http.body) == plain()
    assert kinds(notices) == [("emulated", "max_tokens")]
    assert "8192" in notices[0].message


BUDGET = {"type": "enabled", "budget_tokens": 8192}
OPTIONS: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
    ({"temperature": 0.0}, {"temperature": 0.0}),
    ({"top_p": 0.5}, {"top_p": 0.5}),
    ({"top_k": 5}, {"top_k": 5}),
    ({"min_p": 0.5}, None),
    ({"max_tokens": 7}, {"max_tokens": 7}),
    ({"stop": ("a", "b")}, {"stop_sequences": ["a", "b"]}),
    ({"seed": 0}, None),
    ({"frequency_penalty": 0.5}, None),
    ({"presence_penalty": 0.5}, None),
    ({"repetition_penalty": 1.5}, None),
    ({"thinking": True}, {"thinking": BUDGET, "max_tokens": 16_384}),
    ({"thinking": False}, {"thinking": {"type": "disabled"}}),
    ({"tools": (TOOL,), "tool_choice": "auto"}, {"tool_choice": {"type": "auto"}}),
    ({"tools": (TOOL,), "tool_choice": "none"}, {"tool_choice": {"type": "none"}}),
    ({"tools": (TOOL,), "tool_choice": "required"}, {"tool_choice": {"type": "any"}}),
    ({"tools": (TOOL,), "tool_choice": "look"}, {"tool_choice": {"type": "tool", "name": "look"}}),
    (
        {"tools": (TOOL,), "parallel_tool_calls": False},
        {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
    ),
    ({"logprobs": True}, None),
    ({"top_logprobs": 5}, None),
    ({"n": 2}, None),
    ({"user": "ada"}, {"metadata": {"user_id": "ada"}}),
    ({"documents": ("a",)}, None),
    ({"stream": True}, {"stream": True}),
    ({"extra": {"service_tier": "auto", "model": "other"}}, {"service_tier": "auto", "model": "other"}),
]
WIRE_TOOL = {"name": "look", "description": "Look around.", "input_schema": TOOL.parameters}


@pytest.mark.parametrize(("options", "sent"), OPTIONS)
def test_an_option_is_sent_in_the_apis_words_or_reported(options, sent):
    body, notices = encoded(**options)
    if sent is None:
        assert body == plain()
        assert kinds(notices) == [("unsupported", *options)]
    else:
        assert body == plain(**sent, **({"tools": [WIRE_TOOL]} if "tools" in options else {}))
        assert notices == []


def test_every_portable_option_has_a_verdict_and_is_tried_above():
    verdicts = DIALECT.verdicts()
    assert set(verdicts) == set(Options.__annotations__) | {"schema"}
    # What becomes of `cache` is in test_prompt_cache.py, for all formats.
    assert set(Options.__annotations__) - {"headers", "cache"} <= {name for options, _ in OPTIONS for name in options}
    for options, sent in OPTIONS:
        for name in options.keys() & verdicts.keys():
            assert isinstance(verdicts[name], Unsupported) == (sent is None)


@pytest.mark.parametrize(
    ("model", "options", "sent", "noticed"),
    [
        ("claude-sonnet-4-5", {"thinking": "high"}, {"thinking": BUDGET | {"budget_tokens": 16384}}, ["thinking"]),
        ("claude-opus-4-20250514", {"thinking": 10}, {"thinking": BUDGET | {"budget_tokens": 1024}}, ["thinking"]),
        ("claude-3-7-sonnet-latest", {"thinking": 2000}, {"thinking": BUDGET | {"budget_tokens": 2000}}, []),
        ("claude-sonnet-4-6", {"thinking": True}, {"thinking": {"type": "adaptive"}}, []),
        ("claude-opus-4-8", {"thinking": "low"}, {"output_config": {"effort": "low"}}, []),
        ("claude-fable-5", {"thinking": "minimal"}, {"output_config": {"effort": "low"}}, ["thinking"]),
        ("claude-sonnet-5-20260901", {"thinking": 9000}, {"output_config": {"effort": "high"}}, ["thinking"]),
        ("m", {"thinking": True, "temperature": 0.5}, {"thinking": BUDGET}, ["temperature"]),
        ("m", {"thinking": True, "temperature": 1.0}, {"thinking": BUDGET, "temperature": 1.0}, []),
        ("m", {"thinking": True, "top_p": 0.5, "top_k": 3}, {"thinking": BUDGET}, ["top_p", "top_k"]),
        ("claude-opus-4-7", {"temperature": 1.0, "top_p": 0.99, "top_k": 3}, {}, ["temperature", "top_p", "top_k"]),
        ("claude-haiku-5", {"temperature": 0.0}, {}, ["temperature"]),
        ("claude-sonnet-4-6", {"temperature": 0.0}, {"temperature": 0.0}, []),
        ("m", {"thinking": True, "top_p": 0.95}, {"thinking": BUDGET, "top_p": 0.95}, []),
        ("m", {"thinking": True, "tools": (TOOL,), "tool_choice": "required"}, {}, ["thinking"]),
        ("m", {"tool_choice": "auto"}, {}, ["tool_choice"]),
    ],
)
def test_a_model_is_asked_for_what_it_takes(model, options, sent, noticed):
    body, notices = encoded(model=model, **options)
    assert sent.items() <= body.items()
    assert [notice.subject for notice in notices] == noticed
    refused = {notice.subject for notice in notices if notice.kind != "emulated"}
    assert body.keys() & {"temperature", "top_p", "top_k", "thinking", "tool_choice"} == options.keys() - refused - {
        "tools"
    }


def test_a_budget_leaves_room_for_the_answer():
    http, notices = DIALECT.encode_request(Request(model="m", messages=(), max_tokens=100, thinking=2000))
    assert json.loads(http.body)["max_tokens"] == 2100
    assert kinds(notices) == [("emulated", "max_tokens")]


CLOSED = {
    "type": "object",
    "properties": {"x": {"type": "integer"}},
    "required": ["x"],
    "additionalProperties": False,
}


def test_a_schema_is_enforced_where_that_is_possible():
    shape = {name: value for name, value in CLOSED.items() if name != "additionalProperties"}
    body, notices = encoded(schema=OutputSchema("answer", shape), thinking="low", model="claude-opus-4-8")
    assert body["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": CLOSED}}
    assert notices == []
    bounded = shape | {"properties": {"x": {"type": "integer", "minimum": 0}}}
    body, notices = encoded(schema=OutputSchema("answer", bounded))
    sent = body["output_config"]["format"]["schema"]["properties"]
    assert sent == {"x": {"type": "integer", "description": "(minimum: 0)"}}
    assert kinds(notices) == [("emulated", "schema")]
    body, notices = encoded(schema=OutputSchema("answer", {"type": "object"}))
    assert "output_config" not in body
    assert kinds(notices) == [("unsupported", "schema")]


@pytest.mark.parametrize(
    ("dialect", "model", "schema", "thinking", "modes"),
    [
        (DIALECT, "claude-opus-4-8", CLOSED, None, ("native", "tool", "prompt")),
        (DIALECT, "claude-opus-4-8", CLOSED, True, ("native", "prompt", "tool")),
        (DIALECT, "claude-opus-4-8", {"type": "object"}, None, ("tool", "prompt")),
        (DIALECT, "claude-3-haiku-20240307", CLOSED, None, ("tool", "prompt")),
        (DIALECT, "claude-sonnet-4-20250514", CLOSED, False, ("tool", "prompt")),
        (Anthropic(schema="prompt"), "claude-opus-4-8", CLOSED, None, ("tool", "prompt")),
    ],
)
def test_the_ways_to_an_answer_of_a_schema(dialect, model, schema, thinking, modes):
    request = Request(model=model, messages=(user("hi"),), schema=OutputSchema("x", schema), thinking=thinking)
    assert dialect.schema_modes(request) == modes


def test_a_tool_that_another_provider_runs_is_an_error_and_ours_is_sent_as_it_is():
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 2}
    body, _ = encoded(tools=(ToolSpec("web_search", state=own(set=search, unset=["input_schema"])), ToolSpec("wait")))
    assert body["tools"] == [search, {"name": "wait", "input_schema": {"type": "object"}}]
    with pytest.raises(UnsupportedError, match="run by openai_chat"):
        encoded(tools=(ToolSpec("search", state=ProviderState("openai_chat", {"set": {}})),))


SIGNED = Thinking(text="hm", state=own(set={"signature": "s"}))
WIRE_SIGNED = {"type": "thinking", "thinking": "hm", "signature": "s"}
CALL = ToolCall(name="look", input='{"at": "it"}', id="c1")
WIRE_CALL = {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": "it"}}
RESULT = ToolResult(call_id="c1", name="look", content=(TextPart(text="seen"),))
WIRE_RESULT = {"type": "tool_result", "tool_use_id": "c1", "content": [text("seen")]}
PIXEL = {"type": "base64", "media_type": "image/png", "data": "AAE="}


def said(role, *blocks):
    return {"role": role, "content": list(blocks)}


MESSAGES = [
    ([user("a", "b")], [said("user", text("a"), text("b"))]),
    ([user(Value(value={"a": None}))], [said("user", text('{"a":null}'))]),
    ([user(Image(data=b"\0\1"))], [said("user", {"type": "image", "source": PIXEL})]),
    (
        [user(Image(url="https://x/a b.png"))],
        [said("user", {"type": "image", "source": {"type": "url", "url": "https://x/a b.png"}})],
    ),
    (
        [user(File(data=b"%PDF", name="a.pdf"))],
        [
            said(
                "user",
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
                    "title": "a.pdf",
                },
            )
        ],
    ),
    (
        [user(File(data="é".encode(), media_type="text/plain", state=own(set={"citations": {"enabled": True}})))],
        [
            said(
                "user",
                {
                    "type": "document",
                    "source": {"type": "text", "media_type": "text/plain", "data": "é"},
                    "citations": {"enabled": True},
                },
            )
        ],
    ),
    (
        [user(File(id="file_1"))],
        [said("user", {"type": "document", "source": {"type": "file", "file_id": "file_1"}})],
    ),
    ([assistant(SIGNED, "a", CALL)], [said("assistant", WIRE_SIGNED, text("a"), WIRE_CALL)]),
    (
        [assistant(Thinking(text="", state=own(set={"type": "redacted_thinking", "data": "x"}, unset=["thinking"])))],
        [said("assistant", {"type": "redacted_thinking", "data": "x"})],
    ),
    (
        [assistant(ServerItem(kind="mcp_tool_use", id="m1", state=own(set={"id": "m1", "input": {"a": None}})))],
        [said("assistant", {"type": "mcp_tool_use", "id": "m1", "input": {"a": None}})],
    ),
    (
        [assistant(TextPart(text="a", notes=({"cited_text": "b"}, {"logprob": {}})))],
        [said("assistant", text("a", citations=[{"cited_text": "b"}]))],
    ),
    # A user's words go along with the results before them; two users stay two.
    ([Message("tool", (RESULT,)), user("a")], [said("user", WIRE_RESULT, text("a"))]),
    (
        [Message("tool", (RESULT,)), Message("user", (TextPart(text="a"),), state=own(is_apart=True)), user("b")],
        [said("user", WIRE_RESULT), said("user", text("a")), said("user", text("b"))],
    ),
    (
        [
            Message(
                "tool", (ToolResult(call_id="c1", name="look", content=(Image(data=b"\0\1"),), is_error=True), RESULT)
            )
        ],
        [
            said(
                "user",
                {
                    "type": "tool_result",
                    "tool_use_id": "c1",
                    "content": [{"type": "image", "source": PIXEL}],
                    "is_error": True,
                },
                WIRE_RESULT,
            )
        ],
    ),
    (
        [Message("tool", (ToolResult(call_id="c1", name="look", content=(TextPart(text=""),)),))],
        [said("user", {"type": "tool_result", "tool_use_id": "c1"})],
    ),
    # Text that shows nothing is refused by the API: empty anywhere, blank where there is no other.
    ([assistant("", CALL), user(" \n")], [said("assistant", WIRE_CALL)]),
    ([assistant("\n\n", CALL)], [said("assistant", WIRE_CALL)]),
    ([assistant(" ", "a", "")], [said("assistant", text(" "), text("a"))]),
]


@pytest.mark.parametrize(("messages", "wire"), MESSAGES)
def test_a_history_is_sent_part_by_part(messages, wire):
    body, notices = encoded(messages)
    assert body["messages"] == wire
    assert notices == []


def test_system_messages_stand_at_the_front():
    messages = (system("a"), system("b"), user("c"), system("d"), user("e"))
    body, notices = encoded(messages)
    assert body["system"] == [text("a"), text("b"), text("d")]
    assert [message["role"] for message in body["messages"]] == ["user", "user"]
    assert kinds(notices) == [("emulated", "system")]
    body, notices = encoded(messages, Anthropic(inline_system=True))
    assert body["system"] == [text("a"), text("b")]
    assert [message["role"] for message in body["messages"]] == ["user", "system", "user"]
    assert notices == []


FOREIGN = ProviderState("openai_chat", {"set": {"store": True}})


@pytest.mark.parametrize(
    ("message", "content", "noticed"),
    [
        (assistant("a", Thinking(text="hm")), [text("a")], [("dropped", "Thinking")]),
        (assistant("a", Thinking(text="hm", state=FOREIGN)), [text("a")], [("dropped", "Thinking")]),
        (assistant("a", ServerItem(kind="search")), [text("a")], [("dropped", "ServerItem")]),
        (assistant("a", Image(data=b"a")), [text("a")], [("dropped", "Image")]),
        (assistant("a", Audio(data=b"a", id="x")), [text("a")], [("dropped", "Audio")]),
        (assistant(Refusal(text="no")), [text("no")], [("emulated", "Refusal")]),
        (assistant(TextPart(text="a", state=FOREIGN)), [text("a")], [("dropped", "part")]),
        (
            assistant(ToolCall(name="look", input='{"at": "i', id="c1")),
            [WIRE_CALL | {"input": {"INVALID_JSON": '{"at": "i'}}],
            [("emulated", "ToolCall")],
        ),
        (assistant(TextPart(text="a", notes=({"type": "url_citation"},))), [text("a")], [("dropped", "citations")]),
        (Message("user", (TextPart(text="a"),), name="ada"), [text("a")], [("dropped", "name")]),
        (
            user(Image(url="https://x/y", detail="low")),
            [{"type": "image", "source": {"type": "url", "url": "https://x/y"}}],
            [("dropped", "detail")],
        ),
        (
            user(File(data=b"a", media_type="text/csv")),
            [{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a"}}],
            [("emulated", "File")],
        ),
    ],
)
def test_what_has_no_place_is_left_out_or_said_otherwise_and_reported(message, content, noticed):
    body, notices = encoded([message])
    assert body["messages"][0]["content"] == content
    assert kinds(notices) == noticed


@pytest.mark.parametrize(
    "message",
    [
        user(Audio(data=b"a")),
        user(File(data=b"a", media_type="application/msword")),
        user(File(data=b"\xff", media_type="text/plain")),
        user(Thinking(text="hm")),
        user(ServerItem(kind="search")),
    ],
)
def test_what_a_prompt_cannot_say_is_an_error_before_anything_is_sent(message):
    with pytest.raises(UnsupportedError):
        encoded([message])


# The client's half: answers.


SUMS: dict[str, tuple[list[Any], Usage, str, str, Any]] = {
    "text": (
        [("Text", "Hello, wörld 🌊!")],
        Usage(input=10, cache_read=3, cache_write=2, output=7),
        "stop",
        "end_turn",
        None,
    ),
    "thinking": (
        [("Thinking", "Let me see."), ("Thinking", ""), ("Text", "42")],
        Usage(input=10, output=4, reasoning=5),
        "stop",
        "end_turn",
        None,
    ),
    "calls": (
        [("Text", "Both."), ("ToolCall", "weather"), ("ToolCall", "now")],
        Usage(input=10, cache_read=3, cache_write=2, output=7),
        "tool_calls",
        "tool_use",
        None,
    ),
    "search": (
        [
            ("ServerItem", "server_tool_use"),
            ("ServerItem", "web_search_tool_result"),
            ("Text", "It rained."),
            ("Text", " Probably."),
        ],
        Usage(input=10, output=7),
        "stop",
        "end_turn",
        None,
    ),
    "compaction": (
        [("ServerItem", "compaction"), ("Text", "Go on.")],
        Usage(input=10, output=7),
        "stop",
        "end_turn",
        None,
    ),
    "refusal": (
        [("Text", "I ")],
        Usage(input=10, cache_read=3, cache_write=2, output=7),
        "refusal",
        "refusal",
        {"stop_details": {"type": "refusal", "category": "cyber", "explanation": "Not this."}},
    ),
    "stop_sequence": (
        [("Text", "1, 2, ")],
        Usage(input=10, cache_read=3, cache_write=2, output=7),
        "stop",
        "stop_sequence",
        {"stop_sequence": "3"},
    ),
    "paused": (
        [("ServerItem", "server_tool_use")],
        Usage(input=10, cache_read=3, cache_write=2, output=7),
        "paused",
        "pause_turn",
        None,
    ),
    "window": (
        [("Text", "cut")],
        Usage(input=10, cache_read=3, cache_write=2, output=7),
        "length",
        "model_context_window_exceeded",
        None,
    ),
    "nothing": ([], Usage(input=10, cache_read=3, cache_write=2, output=7), "stop", "end_turn", None),
}


def outline(message):
    return [
        (type(part).__name__, getattr(part, "name", None) or getattr(part, "kind", None) or getattr(part, "text", ""))
        for part in message.parts
    ]


@pytest.mark.parametrize("name", SUMS)
def test_an_answer_and_its_stream_sum_to_the_same_and_encode_to_the_answer(name):
    body = json.loads((FIXTURES / f"{name}.json").read_bytes())
    whole = DIALECT.decode_answer(json.dumps(body).encode())
    deltas, error = decoded((FIXTURES / f"{name}.sse").read_bytes())
    assert error is None
    parts, usage, reason, raw, detail = SUMS[name]
    for some in (whole, deltas):
        message, counted, finishes = total(some)
        assert outline(message) == parts
        assert (message.id, message.model) == ("msg_1", "claude-x")
        assert counted == usage
        assert finishes == {0: Finish(reason, 0, raw, detail)}
        again = json.loads(DIALECT.encode_response(response_of(NAME, some)))
        assert DIALECT.canonical_answer(again) == DIALECT.canonical_answer(body)
        rest, error = decoded(streamed(some))
        assert error is None
        assert total(rest) == total(some)


def test_each_kind_of_block_is_told_in_its_place():
    message, _, _ = total(decoded((FIXTURES / "search.sse").read_bytes())[0])
    use, found, cited, _ = message.parts
    assert use.state.value["set"]["input"] == {"query": "rain"}
    assert found.state.value["set"]["content"][0]["page_age"] is None
    assert [note["cited_text"] for note in cited.notes] == ["It rained."]
    message, _, _ = total(decoded((FIXTURES / "thinking.sse").read_bytes())[0])
    assert [part.state and part.state.value for part in message.parts] == [
        {"set": {"signature": "c2ln"}},
        {"set": {"type": "redacted_thinking", "data": "cmVk"}, "unset": ["thinking"]},
        None,
    ]
    message, _, _ = total(decoded((FIXTURES / "calls.sse").read_bytes())[0])
    assert [call.arguments for call in message.tool_calls] == [{"city": "Köln", "days": [1, 2.5, None]}, {}]
    assert message.tool_calls[0].input == '{"city": "Köln", "days": [1, 2.5, null]}'
    assert message.tool_calls[0].state == ProviderState(NAME, {"set": {"caller": {"type": "direct"}}}, "claude-x")


@pytest.mark.parametrize(
    ("name", "parts", "reason", "error"),
    [
        ("no_stop", [("Text", "Hello")], "stop", None),
        ("unknown_events", [("Text", "Hello")], "stop", None),
        ("surrogates", [("Text", "a🌊!")], "stop", None),
        ("content_in_start", [("ToolCall", "roll")], "tool_calls", None),
        ("cut", [("Text", "Hello")], None, StreamInterrupted),
        ("cut_in_event", [("Text", "Hello")], None, StreamInterrupted),
        ("overloaded", [("Text", "Hello")], None, OverloadedError),
        ("error_first", [], None, RateLimitError),
        ("junk", [("Text", "Hello")], None, StreamProtocolError),
        ("delta_for_no_block", [], None, StreamProtocolError),
        ("two_messages", [], None, StreamProtocolError),
    ],
)
def test_a_stream_ends_whole_or_with_an_error_after_all_that_came(name, parts, reason, error):
    data = (FIXTURES / f"{name}.sse").read_bytes()
    deltas, ending = decoded(data)
    message, _, finishes = total(deltas)
    assert outline(message) == parts
    assert type(ending) is (error or type(None))
    assert {number: finish.reason for number, finish in finishes.items()} == ({0: reason} if reason else {})
    for size in (1, 7, 100):
        again, other = decoded(data, range(size, len(data), size))
        assert again == deltas
        assert str(other) == str(ending)
    assert not any("\ud800" <= character <= "\udfff" for d in deltas if isinstance(d, Text) for character in d.text)


def sse(*told):
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in told)


@pytest.mark.parametrize(
    ("start", "more", "block"),
    [
        ({"type": "text"}, [{"type": "text_delta", "text": "a"}], text("a")),
        (text("a", mood="good"), [{"type": "text_delta", "text": "b"}], text("ab", mood="good")),
        (text(""), [{"type": "mood_delta", "mood": "good"}], text("", mood="good")),
        (text(""), [{"type": "citations_delta", "citation": {"page": 1}}], text("", citations=[{"page": 1}])),
        (text("", citations=[{"cited_text": "b"}]), [], text("", citations=[{"cited_text": "b"}])),
        ({"type": "thinking", "thinking": "a"}, [], {"type": "thinking", "thinking": "a"}),
        (
            {"type": "thinking", "thinking": "", "signature": "s"},
            [],
            {"type": "thinking", "thinking": "", "signature": "s"},
        ),
        ({"type": "tool_use", "name": "f"}, [], {"type": "tool_use", "name": "f", "input": {}}),
        (
            {"type": "tool_use", "name": "f", "input": ""},
            [{"type": "input_json_delta", "partial_json": '{"a":1}'}, {"type": "x_delta", "x": [1]}],
            {"type": "tool_use", "name": "f", "input": {"a": 1}, "x": [1]},
        ),
        (
            {"type": "tool_use", "name": "f", "input": {}},
            [{"type": "input_json_delta", "partial_json": '{"a":'}],
            {"type": "tool_use", "name": "f", "input": {"INVALID_JSON": '{"a":'}},
        ),
        (
            {"type": "news", "input": {}},
            [{"type": "input_json_delta", "partial_json": "{}"}],
            {"type": "news", "input": {}},
        ),
        ({"type": "news"}, [{"type": "news_delta", "a": None}], {"type": "news", "a": None}),
    ],
)
def test_a_block_is_what_its_events_make_of_it(start, more, block):
    deltas, error = decoded(
        sse(
            {"type": "message_start", "message": {"id": "msg_1", "content": []}},
            {"type": "content_block_start", "index": 0, "content_block": start},
            *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in more),
            {"type": "content_block_stop", "index": 0},
            {"type": "message_stop"},
        )
    )
    assert error is None
    whole = DIALECT.canonical_answer(json.loads(DIALECT.encode_response(response_of(NAME, deltas))))
    assert whole == {"id": "msg_1", "content": [block]}
    again, error = decoded(streamed(deltas))
    assert (error, total(again)) == (None, total(deltas))


def test_an_error_in_a_stream_tells_its_request_and_that_it_may_pass():
    error = decoded((FIXTURES / "overloaded.sse").read_bytes())[1]
    assert (error.retryable, error.request_id, error.code, str(error)) == (
        True,
        "req_9",
        "overloaded_error",
        "Overloaded",
    )


def test_what_follows_the_end_of_a_message_is_no_part_of_it():
    data = (FIXTURES / "text.sse").read_bytes()
    assert decoded(data * 2) == decoded(data)
    decoder = DIALECT.decoder()
    decoder.feed(data)
    assert decoder.is_over


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", ServerError),
        (b"<html>", ServerError),
        (b"[]", StreamProtocolError),
        (b'{"input_tokens": 14}', StreamProtocolError),
        (b'{"content": [1]}', StreamProtocolError),
        (b'{"content": [{"type": "tool_use"}]}', StreamProtocolError),
        (b'{"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}', OverloadedError),
    ],
)
def test_a_body_that_is_no_answer_is_an_error(body, error):
    with pytest.raises(error):
        DIALECT.decode_answer(body)


def failure(kind, message="no", **more):
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}, **more}).encode()


@pytest.mark.parametrize(
    ("status", "headers", "body", "error", "fields"),
    [
        (400, {}, failure("invalid_request_error", request_id="req_1"), BadRequestError, {"request_id": "req_1"}),
        (401, {"request-id": "req_2"}, failure("authentication_error"), AuthenticationError, {"request_id": "req_2"}),
        (403, {}, failure("permission_error"), PermissionDeniedError, {}),
        (404, {}, failure("not_found_error"), NotFoundError, {"code": "not_found_error"}),
        (413, {}, failure("request_too_large"), BadRequestError, {"status": 413}),
        (429, {"retry-after": "7"}, failure("rate_limit_error"), RateLimitError, {"retry_after": 7.0}),
        (500, {}, failure("api_error"), ServerError, {"retryable": True}),
        (529, {}, failure("overloaded_error"), OverloadedError, {"retryable": True}),
        (
            400,
            {},
            failure("invalid_request_error", "prompt is too long: 208310 tokens > 200000 maximum"),
            ContextOverflowError,
            {"prompt_tokens": 208310, "context_length": 200000},
        ),
        (502, {}, b"<html><title>Bad gateway</title></html>", ServerError, {"status": 502, "request_id": None}),
        (503, {}, b"", OverloadedError, {"status": 503}),
    ],
)
def test_an_error_becomes_the_exception_it_means_and_the_same_error_again(status, headers, body, error, fields):
    raised = DIALECT.decode_error(status, headers, body)
    assert type(raised) is error
    assert {name: getattr(raised, name) for name in fields} == fields
    again = DIALECT.decode_error(*(lambda code, told: (code, {}, told))(*DIALECT.encode_error(raised)))
    assert (type(again), again.status, again.request_id) == (error, status, raised.request_id)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (ConfigurationError("x"), 400, "invalid_request_error"),
        (UnsupportedError("x"), 400, "invalid_request_error"),
        (BadRequestError("x", status=413), 413, "request_too_large"),
        (AuthenticationError("x"), 401, "authentication_error"),
        (PermissionDeniedError("x"), 403, "permission_error"),
        (NotFoundError("x"), 404, "not_found_error"),
        (RateLimitError("x"), 429, "rate_limit_error"),
        (OverloadedError("x"), 529, "overloaded_error"),
        (EngineError("x"), 500, "api_error"),
        (DeadlineExceeded("x"), 504, "timeout_error"),
    ],
)
def test_an_error_of_ours_has_a_status_and_type_of_theirs(error, status, kind):
    assert DIALECT.encode_error(error)[0] == status
    told = json.loads(DIALECT.encode_error(error)[1])
    assert told == {"type": "error", "error": {"type": kind, "message": "x"}}
    assert events(DIALECT.encoder().fail(error)) == [told]


# The server's half.


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"model": None}, "model"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": "7"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages"),
        ({"messages": ["hi"]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["a"]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [said("assistant", {"type": "tool_use", "id": "a"})]}, "messages[0].content[0]"),
        ({"messages": [said("user", {"type": "image", "source": PIXEL | {"data": "!"}})]}, "messages[0].content[0]"),
        ({"messages": [said("user", {"type": "tool_result", "content": ["a"]})]}, "messages[0].content[0]"),
        ({"system": 7}, "system"),
        ({"system": [7]}, "system[0].type"),
        ({"tools": {}}, "tools"),
        ({"tools": [7]}, "tools[0]"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"tools": [{"name": "a", "input_schema": True}]}, "tools[0].input_schema"),
        ({"stream": "yes"}, "stream"),
        ({"temperature": "hot"}, "temperature"),
        ({"stop_sequences": [1]}, "stop"),
        ({"metadata": {"user_id": 7}}, "user"),
    ],
)
def test_a_wrong_request_is_refused_and_told_where(change, where):
    with pytest.raises(BadRequestError) as caught:
        DIALECT.decode_request(json.dumps({**plain(), **change}).encode())
    assert str(caught.value).startswith(f"{where}")
    assert caught.value.status == 400


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff"])
def test_a_body_that_is_no_object_is_refused(body):
    with pytest.raises(BadRequestError):
        DIALECT.decode_request(body)


def asked(**fields):
    return DIALECT.decode_request(json.dumps(plain(**fields)).encode())


def test_a_request_is_read_in_portable_words():
    request = asked(
        model="claude-x",
        max_tokens=99,
        stream=True,
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        stop_sequences=["a"],
        metadata={"user_id": "ada"},
        system="Be brief.",
        thinking={"type": "enabled", "budget_tokens": 2000},
        output_config={"format": {"type": "json_schema", "schema": CLOSED}},
        tools=[WIRE_TOOL],
        tool_choice={"type": "tool", "name": "look", "disable_parallel_tool_use": True},
        messages=[
            {"role": "user", "content": "hi"},
            said("assistant", WIRE_SIGNED, text("a"), WIRE_CALL),
            said("user", WIRE_RESULT, text("b")),
        ],
    )
    assert request.messages == (
        system("Be brief."),
        user("hi"),
        assistant(SIGNED, "a", msgspec.structs.replace(CALL, input='{"at":"it"}')),
        Message("tool", (RESULT,)),
        user("b"),
    )
    assert request.tools == (TOOL,)
    assert request.schema == OutputSchema("answer", CLOSED)
    assert (request.model, request.stream, request.user, request.stop) == ("claude-x", True, "ada", ("a",))
    assert (request.max_tokens, request.temperature, request.top_p, request.top_k) == (99, 0.5, 0.9, 3)
    assert (request.thinking, request.tool_choice, request.parallel_tool_calls) == (2000, "look", False)
    assert asked(thinking={"type": "adaptive"}, output_config={"effort": "low"}).thinking == "low"
    assert asked(thinking={"type": "adaptive"}, output_config={"effort": "max"}).thinking is True
    assert asked(thinking={"type": "disabled"}).thinking is False


def round_trip(body):
    http, _ = DIALECT.encode_request(DIALECT.decode_request(json.dumps(body).encode()))
    return json.loads(http.body)


EQUAL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "null is absent": ({"temperature": None, "top_k": None}, {}),
    "a stream that is not wanted is absent": ({"stream": False}, {}),
    "no tools are absent": ({"tools": []}, {}),
    "an empty system is absent": ({"system": ""}, {"system": []}),
    "a string is one block of text: content": (
        {"messages": [{"role": "user", "content": "a"}]},
        {"messages": [said("user", text("a"))]},
    ),
    "a string is one block of text: system": ({"system": "a"}, {"system": [text("a")]}),
    "a string is one block of text: a tool's result": (
        {"messages": [said("user", WIRE_RESULT | {"content": "seen"})]},
        {"messages": [said("user", WIRE_RESULT)]},
    ),
    "null is absent: in a block": (
        {"messages": [said("user", text("a", cache_control=None, citations=None))]},
        {"messages": [said("user", text("a"))]},
    ),
    "null is absent: in a tool": (
        {"tools": [WIRE_TOOL | {"strict": None}]},
        {"tools": [WIRE_TOOL]},
    ),
    "null is absent: in a message": (
        {"messages": [{**said("user", text("a")), "id": None}]},
        {"messages": [said("user", text("a"))]},
    ),
    "an empty list of citations is absent": (
        {"messages": [said("assistant", text("a", citations=[]))]},
        {"messages": [said("assistant", text("a"))]},
    ),
    "an empty signature is absent": (
        {"messages": [said("assistant", WIRE_SIGNED | {"signature": ""})]},
        {"messages": [said("assistant", {"type": "thinking", "thinking": "hm"})]},
    ),
    "a result with nothing in it has no content": (
        {"messages": [said("user", WIRE_RESULT | {"content": ""})]},
        {"messages": [said("user", {"type": "tool_result", "tool_use_id": "c1"})]},
    ),
    "text that shows nothing is absent, and so is a message of it": (
        {"messages": [said("user", text("a"), text("")), said("assistant", text(" \n")), said("user", text("b"))]},
        {"messages": [said("user", text("a")), said("user", text("b"))]},
    ),
}


@pytest.mark.parametrize("name", EQUAL)
def test_two_spellings_of_one_request_are_one(name):
    one, other = ({**plain(), **fields} for fields in EQUAL[name])
    canonical = DIALECT.canonical_request(one)
    assert canonical == DIALECT.canonical_request(other)
    assert round_trip(one) == round_trip(other) == canonical
    assert DIALECT.canonical_request(canonical) == canonical


# What differs and must not be made the same; a value on the right is kept where it stands.
KEPT: list[dict[str, Any]] = [
    {"messages": [said("user", WIRE_RESULT), said("user", text("a"))]},
    {"messages": [said("user", WIRE_RESULT, text("a")), said("user", text("b"))]},
    {"messages": [said("user", WIRE_RESULT), said("user", WIRE_RESULT, text("a"))]},
    {"messages": [said("user", text("a"), WIRE_RESULT)]},
    {"messages": [said("user", WIRE_RESULT | {"is_error": False, "cache_control": {"type": "ephemeral"}})]},
    {"messages": [said("user", text(" "), text("a"))]},
    {"messages": [said("user", text("a")), said("system", {"type": "tool_addition", "tool": {"name": None}})]},
    {"messages": [said("system", text("a")), said("user", text("b"))], "system": [text("c", cache_control={})]},
    {"messages": [{**said("user", text("a")), "mood": "good"}, {**said("assistant", text("b")), "mood": "bad"}]},
    {"messages": [said("assistant", WIRE_CALL | {"input": {"a": None, "b": [1.5, {}]}, "caller": {"a": None}})]},
    {"messages": [said("assistant", {"type": "compaction", "content": None}, {"type": "news", "a": [None]})]},
    {"messages": [said("user", {"type": "image", "source": {"type": "file", "file_id": "f"}, "cache_control": {}})]},
    {"messages": [said("user", {"type": "image", "source": PIXEL | {"data": "AA\nE="}})]},
    {"messages": [said("user", {"type": "document", "source": {"type": "content", "content": "a"}, "title": "t"})]},
    {"messages": [said("user", {"type": "document", "source": {"type": "text", "data": "a"}, "context": "c"})]},
    {"messages": [said("user", WIRE_RESULT | {"content": [{"type": "search_result", "a": None}, text("b")]})]},
    {"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": None}]},
    {"tools": [{"type": "mcp_toolset", "mcp_server_name": "a"}]},
    {
        "tools": [
            WIRE_TOOL | {"type": "custom", "strict": True},
            {"name": "a", "input_schema": {"type": "object"}, "description": ""},
        ]
    },
    {"tools": [WIRE_TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": False}},
    {"tools": [WIRE_TOOL], "tool_choice": {"type": "any"}, "thinking": BUDGET},
    {"tools": [WIRE_TOOL | {"name": "auto"}], "tool_choice": {"type": "tool", "name": "auto"}},
    {"tool_choice": {"type": "auto"}, "stop_sequences": []},
    {"thinking": {"type": "enabled", "budget_tokens": 2000, "display": "summarized"}, "max_tokens": 100},
    {"thinking": {"type": "between_tools"}, "temperature": 0.5, "max_tokens": 0},
    {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max", "task_budget": {"total": 9}}, "top_k": 3},
    {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
    {"metadata": {"user_id": "a", "b": 1}, "container": "c", "mcp_servers": [{"url": "u", "token": None}]},
]


@pytest.mark.parametrize("fields", KEPT)
def test_nothing_else_differs_when_a_request_is_read_and_sent_again(fields):
    body = {**plain(), **fields}
    assert DIALECT.canonical_request(body) == body
    assert round_trip(body) == body


def test_where_the_address_names_the_model_the_body_does_not():
    body = {name: value for name, value in plain(anthropic_version="vertex-2023-10-16").items() if name != "model"}
    assert round_trip(body) == body


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"stop_sequence": None, "container": None}, {}),
        ({"content": [text("a", citations=None)]}, {"content": [text("a")]}),
        ({"content": [text("a", citations=[])]}, {"content": [text("a")]}),
        ({"content": [WIRE_SIGNED | {"signature": ""}]}, {"content": [{"type": "thinking", "thinking": "hm"}]}),
        ({"usage": {"input_tokens": 1, "service_tier": None}}, {"usage": {"input_tokens": 1}}),
    ],
)
def test_two_spellings_of_one_answer_are_one(one, other):
    bodies = [{"id": "a", "type": "message", "role": "assistant", "content": [], **fields} for fields in (one, other)]
    canonical = DIALECT.canonical_answer(bodies[0])
    assert canonical == DIALECT.canonical_answer(bodies[1])
    for body in bodies:
        response = response_of(NAME, DIALECT.decode_answer(json.dumps(body).encode()))
        assert DIALECT.canonical_answer(json.loads(DIALECT.encode_response(response))) == canonical


def test_an_answer_of_another_model_is_told_as_one_of_ours():
    message = assistant(Thinking(text="hm"), ServerItem(kind="search"), "a", Refusal(text="no"), Value(value=[1]), CALL)
    response = msgspec.structs.replace(
        response_of("other", [Head("msg_9", "m"), Count(Usage(input=1, input_audio=2, output=3, reasoning=4))]),
        message=msgspec.structs.replace(message, id="msg_9"),
        finish_reason="content_filter",
    )
    assert json.loads(DIALECT.encode_response(response)) == {
        "id": "msg_9",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [WIRE_SIGNED | {"signature": ""}, text("a"), text("no"), text("[1]"), WIRE_CALL],
        "stop_reason": "refusal",
        "usage": {"input_tokens": 3, "output_tokens": 7, "output_tokens_details": {"thinking_tokens": 4}},
    }
    with pytest.raises(UnsupportedError):
        DIALECT.encode_response(msgspec.structs.replace(response, message=assistant(Image(data=b"a"))))
    with pytest.raises(UnsupportedError):
        streamed([Open(0, "audio"), Blob(0, b"a")])


def blocks_of(data):
    """What a stream says of its blocks, held against the rules of the protocol."""
    kinds, open_index, deltas = [], None, []
    first, *rest = events(data)
    assert first["type"] == "message_start"
    assert [event["type"] for event in rest[-2:]] == ["message_delta", "message_stop"]
    for event in rest[:-2]:
        match event["type"]:
            case "content_block_start":
                assert open_index is None
                assert event["index"] == len(kinds)
                open_index = event["index"]
                kinds.append(event["content_block"]["type"])
            case "content_block_delta":
                assert event["index"] == open_index
                deltas.append((open_index, event["delta"]))
            case "content_block_stop":
                assert event["index"] == open_index
                open_index = None
    assert open_index is None
    return kinds, deltas


def test_blocks_follow_each_other_whatever_the_order_of_the_deltas():
    deltas = [
        Open(0, "thinking"),
        Text(0, "a"),
        Open(1, "text", choice=1),
        Text(1, "not ours"),
        Open(2, "text"),
        Text(2, "b"),
        Text(0, "c"),
        Open(3, "call", name="f"),
        Text(3, '{"x"'),
        Open(4, "call", "i4", "g"),
        Text(4, "{}"),
        Text(2, "d"),
        State(3, {}, id="i3"),
        Text(3, ":1}"),
        Close(4),
        Close(3),
        Event({}),
        Finish("tool_calls", raw="other"),
        Count(Usage(input=1, output=2)),
    ]
    told = streamed(deltas)
    kinds_, _ = blocks_of(told)
    # What goes on after another began is a further block; a call is told in one piece.
    assert kinds_ == ["thinking", "text", "thinking", "tool_use", "tool_use", "text"]
    message, usage, finishes = total(decoded(told)[0])
    assert (message.text, message.thinking) == ("bd", "ac")
    assert [(call.id, call.name, call.input) for call in message.tool_calls] == [
        ("i3", "f", '{"x":1}'),
        ("i4", "g", "{}"),
    ]
    assert (usage, finishes) == (Usage(input=1, output=2), {0: Finish("tool_calls", raw="tool_use")})


def test_an_answer_with_nothing_in_it_has_a_beginning_and_an_end():
    assert [event["type"] for event in events(streamed([]))] == ["message_start", "message_delta", "message_stop"]


def test_a_call_that_stays_without_a_name_is_an_error():
    with pytest.raises(StreamProtocolError):
        streamed([Open(0, "call", "a"), Text(0, "{}"), Close(0)])


def test_the_row_sends_its_key_in_its_own_header(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-secret")
    row = PROVIDERS["anthropic"]
    key = find_key(row, None, None)
    assert key.header() == ("x-api-key", "sk-ant-secret")
    assert "secret" not in repr(key.header())
    assert find_key(row, "https://elsewhere.example", None) is None


# Laws.

words = st.text(max_size=12)
shown = words.filter(str.strip)
names = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
jsons = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(words, jsons, max_size=3)
schemas = objects.map(lambda schema: {**schema, "type": "object"})
extras = st.dictionaries(
    st.sampled_from(["cache_control", "caller", "x"]), jsons.filter(lambda v: v is not None), max_size=2
)
citations = st.lists(st.fixed_dictionaries({"type": names, "cited_text": words}), max_size=2)


def state_of(patch, **more):
    value = {**({"set": patch} if patch else {}), **more}
    return ProviderState(NAME, value) if value else None


def compact(value):
    return encode_json(value).decode()


texts = st.builds(
    lambda words, notes, patch: TextPart(text=words, notes=tuple(notes), state=state_of(patch)),
    shown,
    citations,
    extras,
)
thoughts = st.builds(
    lambda words, signature: Thinking(text=words, state=state_of({"signature": signature})), words, shown
) | st.builds(
    lambda data: Thinking(text="", state=state_of({"type": "redacted_thinking", "data": data}, unset=["thinking"])),
    words,
)
items = st.builds(
    lambda kind, id_, patch: ServerItem(kind=kind, id=id_ or None, state=state_of({"id": id_, **patch})),
    st.sampled_from(["server_tool_use", "mcp_tool_result", "news"]),
    words,
    objects,
)
calls = st.builds(
    lambda name, value, patch: ToolCall(name=name, input=compact(value), state=state_of(patch)), names, objects, extras
)
images = st.builds(
    lambda data, patch: Image(data=data, media_type="image/webp", state=state_of(patch)), st.binary(min_size=1), extras
)
media = (
    images
    | st.builds(lambda url: Image(url=url), shown)
    | st.builds(
        lambda words, name: File(data=words.encode(), media_type="text/plain", name=name), shown, names | st.none()
    )
    | st.builds(lambda data: File(data=data, media_type="application/pdf"), st.binary(min_size=1))
    | st.builds(lambda id_: File(id=id_), shown)
    | st.builds(lambda url: File(url=url, name="n"), shown)
)


@st.composite
def histories(draw):
    """Messages as a conversation has them: calls have ids, and are answered."""
    messages = [Message("system", tuple(draw(st.lists(texts, min_size=1, max_size=2))))] if draw(st.booleans()) else []
    for turn in range(draw(st.integers(1, 3))):
        messages.append(Message("user", tuple(draw(st.lists(texts | media, min_size=1, max_size=3)))))
        made = [
            msgspec.structs.replace(call, id=f"c{turn}_{number}")
            for number, call in enumerate(draw(st.lists(calls, max_size=2)))
        ]
        parts = (*draw(st.lists(texts | thoughts | items, min_size=0 if made else 1, max_size=3)), *made)
        assume(any(isinstance(part, (TextPart, ToolCall, Thinking, ServerItem)) for part in parts))
        messages.append(Message("assistant", parts))
        if made:
            content = st.lists(texts | images, max_size=2).map(tuple)
            results = [
                ToolResult(call_id=call.id, name=call.name, content=draw(content), is_error=draw(st.booleans()))
                for call in made
            ]
            messages.append(Message("tool", tuple(results)))
    return tuple(messages)


tools = st.builds(
    lambda name, words, patch: ToolSpec(name, words, {"type": "object", "properties": {}}, state_of(patch)),
    names,
    words,
    extras,
)


@st.composite
def requests(draw):
    offered = tuple(draw(st.lists(tools, max_size=2)))
    options = {
        "temperature": draw(st.none() | st.floats(0, 1)),
        "top_p": draw(st.none() | st.floats(0, 1)),
        "top_k": draw(st.none() | st.integers(1, 100)),
        "stop": draw(st.none() | st.lists(words, max_size=2).map(tuple)),
        "user": draw(st.none() | shown),
        "thinking": draw(st.none() | st.just(False) | st.integers(1024, 10_000)),
        "tool_choice": draw(st.sampled_from(["auto", "required", *(tool.name for tool in offered)]))
        if offered
        else None,
        "parallel_tool_calls": draw(st.none() | st.booleans()) if offered else None,
        "schema": draw(st.none() | st.just(OutputSchema("answer", CLOSED))),
    }
    if options["tool_choice"] in ("none", "any"):
        options["tool_choice"] = "auto"
    return Request(
        model="m",
        messages=draw(histories()),
        tools=offered,
        stream=draw(st.booleans()),
        max_tokens=draw(st.integers(1, 50_000)),
        **options,
    )


@given(requests())
@settings(max_examples=150, deadline=None)
def test_a_request_comes_back_but_for_what_the_report_names(request):
    http, notices = DIALECT.encode_request(request)
    back = DIALECT.decode_request(http.body)
    lost = {notice.subject for notice in notices}
    assert lost <= {"temperature", "top_p", "top_k", "thinking", "max_tokens"}
    expected = msgspec.structs.replace(request, **dict.fromkeys(lost - {"max_tokens"}))
    if "max_tokens" in lost:
        expected = msgspec.structs.replace(expected, max_tokens=request.max_tokens + request.thinking)
    assert back == expected
    assert DIALECT.encode_request(back)[0].body == http.body


patches = st.dictionaries(names | st.sampled_from(["title", "cache_control", "id"]), jsons, max_size=2)


def with_patch(block):
    return st.builds(lambda inner, patch: {**patch, **inner}, block, patches)


plain_blocks = st.one_of(
    st.builds(text, words),
    st.builds(
        lambda words, notes: text(words, citations=notes), words, citations | st.none() | st.lists(objects, max_size=1)
    ),
    st.fixed_dictionaries({"type": st.sampled_from(["thinking"]), "thinking": words}, optional={"signature": words}),
    st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": words}),
    st.fixed_dictionaries({"type": st.just("tool_use"), "name": names}, optional={"id": words, "input": jsons}),
    st.fixed_dictionaries({"type": names}, optional={"id": jsons, "input": jsons}),
    st.fixed_dictionaries({"type": st.sampled_from(["image", "document"]), "source": objects | st.just(PIXEL)}),
    st.fixed_dictionaries({"type": st.just("image"), "source": st.fixed_dictionaries({"type": names, "url": words})}),
    st.fixed_dictionaries({"type": st.just("document"), "source": st.just({"type": "text", "data": "a", "x": 1})}),
)
blocks = with_patch(plain_blocks)
results = with_patch(
    st.fixed_dictionaries(
        {"type": st.just("tool_result"), "tool_use_id": words},
        optional={"content": words | st.lists(blocks, max_size=2) | st.none(), "is_error": st.booleans() | st.none()},
    )
)
wire_messages = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "user", "system"]),
        "content": words | st.lists(blocks | results, max_size=3),
    },
    optional={"mood": jsons},
)
bodies = st.fixed_dictionaries(
    {"model": words, "max_tokens": st.integers(0, 10**6), "messages": st.lists(wire_messages, min_size=1, max_size=4)},
    optional={
        "system": words | st.lists(with_patch(st.builds(text, words)), max_size=2) | st.none(),
        "stream": st.booleans() | st.none(),
        "temperature": numbers | st.none(),
        "stop_sequences": st.lists(words, max_size=2),
        "tools": st.lists(
            with_patch(st.fixed_dictionaries({"name": names, "input_schema": schemas}, optional={"description": words}))
            | st.fixed_dictionaries({"type": st.just("bash_1")}, optional={"name": names, "x": jsons}),
            max_size=2,
        ),
        "tool_choice": st.fixed_dictionaries({"type": st.sampled_from(["auto", "any", "none", "tool", "x"])}) | objects,
        "thinking": st.sampled_from([{"type": "adaptive"}, BUDGET, {"type": "disabled"}, {"type": "x"}]) | objects,
        "output_config": objects | st.just({"format": {"type": "json_schema", "schema": {"type": "object"}}}),
        "metadata": st.dictionaries(names, jsons, max_size=2),
        "service_tier": jsons,
        "x": jsons,
    },
)


@given(bodies)
@settings(max_examples=150, deadline=None)
def test_every_request_that_is_read_is_the_same_when_it_is_sent_again(body):
    try:
        request = DIALECT.decode_request(json.dumps(body).encode())
    except BadRequestError:
        assume(False)
    http, _ = DIALECT.encode_request(request)
    again = json.loads(http.body)
    assert same(again, DIALECT.canonical_request(body)), (again, DIALECT.canonical_request(body))


answers = st.fixed_dictionaries(
    {"content": st.lists(blocks, max_size=3)},
    optional={
        "id": words,
        "type": st.just("message"),
        "role": st.just("assistant"),
        "model": words,
        "stop_reason": st.sampled_from(["end_turn", "tool_use", "compaction", "new_reason"]) | st.none(),
        "stop_sequence": words | st.none(),
        "usage": st.dictionaries(
            st.sampled_from(["input_tokens", "output_tokens", "output_tokens_details", "cache_read_input_tokens", "x"]),
            st.integers(0, 99) | jsons | st.just({"thinking_tokens": 5}),
        ),
        "container": jsons,
    },
)


@given(answers)
@settings(max_examples=150, deadline=None)
def test_every_answer_that_is_read_is_the_same_when_it_is_told_again(body):
    # A block of text without text, or a call without input, is read as one with nothing in it.
    for block in body["content"]:
        if block["type"] == "tool_use":
            block["input"] = block["input"] if isinstance(block.get("input"), dict) else {}
    deltas = DIALECT.decode_answer(json.dumps(body).encode())
    again = json.loads(DIALECT.encode_response(response_of(NAME, deltas)))
    # Its readers count on a signature.
    canonical = DIALECT.canonical_answer(again)
    assert same(canonical, DIALECT.canonical_answer(body)), (canonical, DIALECT.canonical_answer(body))
    rest, error = decoded(streamed(deltas))
    assert error is None
    assert total(rest)[:2] == total(deltas)[:2]


@st.composite
def delta_streams(draw):
    """Deltas as a decoder may give them: calls interleaved, their ids late or never; other parts one after another."""
    deltas, part = [Head("msg_1", "m", {"answer": {}, "usage": {}})], 0
    for _ in range(draw(st.integers(0, 3))):
        if draw(st.booleans()):
            kind = draw(st.sampled_from(["text", "thinking"]))
            deltas += [Open(part, kind), *(Text(part, piece) for piece in draw(st.lists(shown, max_size=3)))]
            if kind == "thinking" and draw(st.booleans()):
                deltas.append(State(part, {"set": {"signature": "s"}}))
            elif kind == "text" and draw(st.booleans()):
                deltas.append(Note(part, {"cited_text": "a"}))
            deltas += [Close(part)] if draw(st.booleans()) else []
            part += 1
            continue
        queues = []
        for _ in range(draw(st.integers(1, 3))):
            pieces = [Text(part, piece) for piece in ('{"a"', ":", "1}")]
            id_, when = f"c{part}", draw(st.sampled_from(["first", "late", "never"]))
            if when == "late":
                pieces.insert(draw(st.integers(0, 3)), State(part, {}, id=id_))
            queue = [Open(part, "call", id_ if when == "first" else None, draw(names)), *pieces]
            queues.append(queue + ([Close(part)] if draw(st.booleans()) else []))
            part += 1
        openings = [queue.pop(0) for queue in queues]
        deltas += (
            openings if draw(st.booleans()) else [d for o, q in zip(openings, queues, strict=True) for d in (o, *q)]
        )
        if deltas[-1] in openings:
            while any(queues):
                deltas.append(draw(st.sampled_from([queue for queue in queues if queue])).pop(0))
    counts = st.none() | st.integers(0, 99)
    deltas.append(
        Count(
            Usage(input=draw(counts), cache_read=draw(counts), output=draw(st.integers(0, 9)), reasoning=draw(counts))
        )
    )
    raw, reason = draw(st.sampled_from([("end_turn", "stop"), ("max_tokens", "length"), ("tool_use", "tool_calls")]))
    return [*deltas, Finish(reason, raw=raw)]


@given(delta_streams(), st.data())
@settings(max_examples=150, deadline=None)
def test_the_sum_of_deltas_survives_being_a_stream_however_it_is_cut(deltas, data):
    told = streamed(deltas)
    blocks_of(told)
    cuts = data.draw(st.lists(st.integers(0, len(told)), max_size=5))
    again, error = decoded(told, cuts)
    assert error is None
    assert total(again) == total(deltas)
    assert again == decoded(told)[0]


STREAMS = sorted(path.name for path in FIXTURES.glob("*.sse"))


def survive(deltas):
    """What comes after a decoder raises nothing foreign either."""
    try:
        response = response_of(NAME, deltas)
        DIALECT.encode_response(response)
        streamed(deltas)
    except SabirError:
        pass


@given(st.sampled_from(STREAMS), st.data())
@settings(max_examples=150, deadline=None)
def test_a_stream_with_anything_anywhere_raises_only_errors_of_the_family(name, data):
    told = events((FIXTURES / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(values_in(told))[1:]))
        new = data.draw(jsons | st.sampled_from([[], {}, "tool_use", "text", "error", 10**400, -1, "\ud83c"]))
        try:
            told = replaced(told, path, new)
        except (KeyError, TypeError, IndexError):
            continue
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in told)
    deltas, error = decoded(body)
    survive(deltas)
    assert error is None or isinstance(error, SabirError)


@given(st.binary() | st.sampled_from(STREAMS).map(lambda name: (FIXTURES / name).read_bytes()), st.data())
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
    call = '{"type":"tool_use","id":"a","name":"f","input":{"a":' + deep + "}}"
    message = '{"content":[' + call + "]}"
    for body in (message, '{"error":' + deep + "}"):
        try:
            survive(DIALECT.decode_answer(body.encode()))
        except SabirError:
            pass
    survive(decoded(f'data: {{"type":"message_start","message":{message}}}\n\n'.encode())[0])
    try:
        request = '{"model":"m","max_tokens":1,"messages":[{"role":"assistant","content":[' + call + "]}]}"
        DIALECT.encode_request(DIALECT.decode_request(request.encode()))
    except SabirError:
        pass


# Recordings: what real servers said, read here once more without the dialect.

OTHER_OPERATIONS = {"batches", "count_tokens"}


def recorded():
    if not RECORDINGS.exists():
        return []
    return [json.loads(line) for line in RECORDINGS.read_bytes().splitlines()]


ALL = recorded()
EXCHANGES = [exchange for exchange in ALL if exchange["endpoint"] not in OTHER_OPERATIONS]
needs_recordings = pytest.mark.skipif(not ALL, reason=f"no recordings at {RECORDINGS}")


def every(exchanges):
    return pytest.mark.parametrize("exchange", exchanges, ids=lambda exchange: exchange["id"])


@needs_recordings
def test_only_other_operations_are_left_out():
    left = {exchange["endpoint"] for exchange in ALL} - {exchange["endpoint"] for exchange in EXCHANGES}
    assert left == OTHER_OPERATIONS
    assert {exchange["endpoint"] for exchange in EXCHANGES} <= {"messages", "rawPredict", "streamRawPredict"}


def whole_of(exchange):
    """The whole answer that a recording holds or its events describe, up to the first that ends it."""
    body = exchange["response"]["body"]
    if isinstance(body, dict):
        return body
    message, built, inputs = {}, {}, {}
    for event in events(body.encode()):
        match event["type"]:
            case "message_start":
                message = copy.deepcopy(event["message"])
                built = dict(enumerate(message["content"]))
            case "content_block_start":
                built[event["index"]] = copy.deepcopy(event["content_block"])
            case "content_block_delta":
                block, delta = built[event["index"]], dict(event["delta"])
                match delta.pop("type"):
                    case "text_delta":
                        block["text"] += delta["text"]
                    case "thinking_delta":
                        block["thinking"] += delta["thinking"]
                    case "input_json_delta":
                        inputs[event["index"]] = inputs.get(event["index"], "") + delta["partial_json"]
                    case "citations_delta":
                        block["citations"] = [*(block.get("citations") or []), delta["citation"]]
                    case _:
                        block.update(delta)
            case "message_delta":
                message.update({key: value for key, value in event["delta"].items() if value is not None})
                message["usage"].update({key: value for key, value in event["usage"].items() if value is not None})
                message.update({key: event[key] for key in event if key not in ("type", "delta", "usage")})
            case "message_stop":
                break
    for index, begun in inputs.items():
        if begun:
            built[index]["input"] = json.loads(begun)
    return {**message, "content": [built[index] for index in sorted(built)]}


REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "pause_turn": "paused",
    "refusal": "refusal",
}


@needs_recordings
@every([exchange for exchange in EXCHANGES if exchange["response"]["status"] == 200])
def test_a_recorded_answer_is_understood_and_told_again(exchange):
    body = exchange["response"]["body"]
    whole = whole_of(exchange)
    if isinstance(body, str):
        data = body.encode()
        deltas, error = decoded(data)
        assert error is None
        for size in (1, 17, 1000) if len(data) < 30_000 else (997,):
            assert decoded(data, range(size, len(data), size)) == (deltas, None)
    else:
        deltas = DIALECT.decode_answer(json.dumps(body).encode())
    message, usage, finishes = total(deltas)

    by_kind = {
        kind: [block for block in whole["content"] if block["type"] == kind]
        for kind in ("text", "thinking", "tool_use")
    }
    assert message.text == "".join(block["text"] for block in by_kind["text"])
    assert message.thinking == "".join(block["thinking"] for block in by_kind["thinking"])
    made = [(call.id, call.name, call.arguments) for call in message.tool_calls]
    assert made == [(block["id"], block["name"], block["input"]) for block in by_kind["tool_use"]]
    assert len(message.parts) == len(whole["content"])
    counts = whole["usage"]
    cached = sum(counts.get(f"cache_{kind}_input_tokens") or 0 for kind in ("creation", "read"))
    assert usage.input_tokens == counts["input_tokens"] + cached
    assert usage.output_tokens == counts["output_tokens"]
    assert usage.reasoning == counts.get("output_tokens_details", {}).get("thinking_tokens")
    assert (finishes[0].reason, finishes[0].raw) == (REASONS[whole["stop_reason"]], whole["stop_reason"])

    again = DIALECT.canonical_answer(json.loads(DIALECT.encode_response(response_of(NAME, deltas))))
    assert same(again, DIALECT.canonical_answer(whole))
    rest, error = decoded(streamed(deltas))
    assert error is None
    assert total(rest) == total(deltas)
    blocks_of(streamed(deltas))


@needs_recordings
@every([exchange for exchange in EXCHANGES if exchange["response"]["status"] != 200])
def test_a_recorded_error_is_the_exception_it_means(exchange):
    answer = exchange["response"]
    error = DIALECT.decode_error(answer["status"], answer["headers"], json.dumps(answer["body"]).encode())
    expected = {400: BadRequestError, 401: AuthenticationError, 404: NotFoundError}[answer["status"]]
    assert type(error) is expected
    assert error.code == answer["body"]["error"]["type"]
    assert answer["body"]["error"]["message"] in str(error)
    assert error.request_id == (answer["headers"].get("request-id") or answer["body"].get("request_id"))
    status, body = DIALECT.encode_error(error)
    assert type(DIALECT.decode_error(status, {}, body)) is expected
    assert status == answer["status"]


@needs_recordings
@every([exchange for exchange in EXCHANGES if mapping_of(exchange["request"]).get("body")])
def test_a_recorded_request_is_the_same_when_it_is_sent_again(exchange):
    body = exchange["request"]["body"]
    try:
        again = round_trip(body)
    except BadRequestError:
        assert exchange["response"]["status"] == 400
        return
    assert same(DIALECT.canonical_request(again), DIALECT.canonical_request(body))
    assert same(again, DIALECT.canonical_request(again))
