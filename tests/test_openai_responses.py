"""OpenAI's Responses format, both halves: what is sent, what is understood, and that nothing is lost there and back."""

from __future__ import annotations

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
from servers import Server, chunked, whole

import sabir
from sabir.deltas import Blob, Close, Count, Event, Finish, Head, Note, Open, State, Text
from sabir.dialects import Unsupported, mapping_of, response_of
from sabir.dialects.openai_responses import NAME, OpenAIResponses
from sabir.errors import (
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
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
from sabir.providers import PROVIDERS
from sabir.requests import Options, OutputSchema, Request, ToolSpec
from sabir.usage import Usage

RECORDINGS = Path(__file__).resolve().parents[2] / "shared" / "recordings" / "openai-responses.jsonl"
DIALECT = OpenAIResponses()
streamed = partial(halves.streamed, DIALECT)
total = partial(halves.total, DIALECT)
TOOL = ToolSpec("look", "Look around.", {"type": "object", "properties": {"at": {"type": "string"}}})
ENCRYPTED = "reasoning.encrypted_content"


def own(**value):
    return ProviderState(NAME, value)


def of_item(**fields):
    return own(item={"set": fields})


def text(words, **more):
    return {"type": "output_text", "text": words, **more}


def told(words, **more):
    return {"type": "input_text", "text": words, **more}


def said(role, *parts, **more):
    return {"type": "message", "role": role, "content": list(parts), **more}


def kinds(notices):
    return [(notice.kind, notice.subject) for notice in notices]


HELLO = (user("hi"),)


def encoded(messages=HELLO, dialect=DIALECT, **fields):
    http, notices = dialect.encode_request(Request(model=fields.pop("model", "m"), messages=tuple(messages), **fields))
    return json.loads(http.body), list(notices)


def plain(**fields):
    return {"model": "m", "input": [said("user", told("hi"))], "store": False, "include": [ENCRYPTED], **fields}


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
    return [json.loads(line[5:]) for line in data.decode().split("\n") if line.startswith("data: {")]


def sse(*told):
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in told)


# The client's half: requests.


def test_a_request_is_posted_with_the_callers_headers_and_leaves_nothing_with_the_server():
    http, notices = DIALECT.encode_request(Request(model="m", messages=(user("hi"),), headers={"x-team": "a"}))
    assert (http.method, http.url) == ("POST", "/responses")
    assert http.headers == (("content-type", "application/json"), ("x-team", "a"))
    assert json.loads(http.body) == plain()
    assert notices == ()


EFFORT = {"effort": "medium", "summary": "auto"}
LOGPROBS = [ENCRYPTED, "message.output_text.logprobs"]
OPTIONS: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
    ({"temperature": 0.0}, {"temperature": 0.0}),
    ({"top_p": 0.5}, {"top_p": 0.5}),
    ({"top_k": 5}, None),
    ({"min_p": 0.5}, None),
    ({"max_tokens": 7}, {"max_output_tokens": 7}),
    ({"stop": ("a", "b")}, None),
    ({"seed": 0}, None),
    ({"frequency_penalty": 0.5}, None),
    ({"presence_penalty": 0.5}, None),
    ({"repetition_penalty": 1.5}, None),
    ({"thinking": True}, {"reasoning": EFFORT}),
    ({"thinking": "low"}, {"reasoning": {"effort": "low", "summary": "auto"}}),
    ({"tool_choice": "auto"}, {"tool_choice": "auto"}),
    ({"tool_choice": "none"}, {"tool_choice": "none"}),
    ({"tool_choice": "required"}, {"tool_choice": "required"}),
    ({"tool_choice": "look"}, {"tool_choice": {"type": "function", "name": "look"}}),
    ({"parallel_tool_calls": False}, {"parallel_tool_calls": False}),
    ({"logprobs": True}, {"include": LOGPROBS}),
    ({"top_logprobs": 5}, {"include": LOGPROBS, "top_logprobs": 5}),
    ({"n": 2}, None),
    ({"user": "ada"}, {"user": "ada"}),
    ({"documents": ("a",)}, None),
    ({"stream": True}, {"stream": True}),
    ({"extra": {"service_tier": "flex", "store": True}}, {"service_tier": "flex", "store": True}),
]


@pytest.mark.parametrize(("options", "sent"), OPTIONS)
def test_an_option_is_sent_in_the_apis_words_or_reported(options, sent):
    body, notices = encoded(**options)
    assert body == plain(**(sent or {}))
    assert kinds(notices) == ([("unsupported", *options)] if sent is None else [])


def test_every_portable_option_has_a_verdict_and_is_tried_above():
    verdicts = DIALECT.verdicts()
    assert set(verdicts) == set(Options.__annotations__) | {"schema"}
    # What becomes of `cache` is in test_prompt_cache.py, for all formats.
    assert set(Options.__annotations__) - {"headers", "cache"} <= {name for options, _ in OPTIONS for name in options}
    for options, sent in OPTIONS:
        for name in options.keys() & verdicts.keys():
            assert isinstance(verdicts[name], Unsupported) == (sent is None)


@pytest.mark.parametrize(
    ("model", "thinking", "effort", "noticed"),
    [
        ("gpt-5.4", False, "none", []),
        ("openai/gpt-6-mini", False, "none", []),
        ("gpt-5-mini", False, "minimal", [("emulated", "thinking")]),
        ("o4-mini", False, None, [("unsupported", "thinking")]),
        ("gpt-4o", False, None, []),
        ("gpt-5", "minimal", "minimal", []),
        ("gpt-5.4", "minimal", "low", [("emulated", "thinking")]),
        ("o3", "minimal", "low", [("emulated", "thinking")]),
        ("foo3", "minimal", "minimal", []),
        ("gpt-5", 1000, "low", [("emulated", "thinking")]),
        ("gpt-5", 8192, "medium", [("emulated", "thinking")]),
        ("gpt-5", 100_000, "high", [("emulated", "thinking")]),
    ],
)
def test_a_model_is_asked_to_think_as_it_can(model, thinking, effort, noticed):
    body, notices = encoded(model=model, thinking=thinking)
    assert mapping_of(body.get("reasoning")).get("effort") == effort
    assert kinds(notices) == noticed
    assert ("summary" in body.get("reasoning", {})) == (effort not in (None, "none"))


def test_a_summary_of_the_thinking_is_asked_for_only_if_the_row_says_so():
    body, _ = encoded(dialect=OpenAIResponses(summary=None), thinking="high")
    assert body["reasoning"] == {"effort": "high"}


@pytest.mark.parametrize(
    ("model", "encrypted", "is_asked"),
    [
        *((model, None, True) for model in ("gpt-5", "gpt-5.4-nano", "o3-mini", "grok-4", "openai.gpt-oss-20b")),
        *((model, None, False) for model in ("gpt-4o", "gpt-4.1-mini", "gpt-3.5-turbo", "chatgpt-4o-latest")),
        *((model, None, False) for model in ("gpt-5-chat-latest", "openai/gpt-4o", "ft:gpt-4o:me::1")),
        ("gpt-4o", True, True),
        ("gpt-5", False, False),
    ],
)
def test_thinking_is_asked_for_encrypted_of_all_models_that_may_think(model, encrypted, is_asked):
    body, _ = encoded(model=model, dialect=OpenAIResponses(encrypted=encrypted))
    assert body.get("include") == ([ENCRYPTED] if is_asked else None)


CLOSED = {
    "type": "object",
    "properties": {"x": {"type": "integer"}},
    "required": ["x"],
    "additionalProperties": False,
}


def test_a_schema_is_enforced_where_that_is_possible_and_else_a_guide():
    shape = {name: value for name, value in CLOSED.items() if name != "additionalProperties"}
    body, notices = encoded(schema=OutputSchema("answer", shape))
    assert body["text"] == {"format": {"type": "json_schema", "name": "answer", "schema": CLOSED, "strict": True}}
    assert notices == []
    body, notices = encoded(schema=OutputSchema("answer", {"type": "object"}))
    assert body["text"]["format"] == {
        "type": "json_schema",
        "name": "answer",
        "schema": {"type": "object"},
        "strict": False,
    }
    assert kinds(notices) == [("emulated", "schema")]


WIRE_TOOL = {
    "type": "function",
    "name": "look",
    "description": "Look around.",
    "parameters": TOOL.parameters,
    "strict": False,
}


def test_tools_are_told_and_one_that_another_provider_runs_is_an_error():
    search = {"type": "web_search", "user_location": None}
    strict = ToolSpec("f", state=own(set={"strict": True}))
    body, _ = encoded(
        tools=(TOOL, ToolSpec("web_search", state=own(set=search, unset=["name", "parameters", "strict"])), strict)
    )
    none = {"type": "object", "properties": {}}
    assert body["tools"] == [
        WIRE_TOOL,
        search,
        {"type": "function", "name": "f", "parameters": none, "strict": True},
    ]
    with pytest.raises(UnsupportedError, match="run by anthropic"):
        encoded(tools=(ToolSpec("search", state=ProviderState("anthropic", {"set": {}})),))


CALL = ToolCall(name="look", input='{"at": "it"}', id="c1")
WIRE_CALL = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"at": "it"}'}
RESULT = ToolResult(call_id="c1", name="look", content=(TextPart(text="seen"),))
WIRE_RESULT = {"type": "function_call_output", "call_id": "c1", "output": "seen"}
PIXEL = {"type": "input_image", "image_url": "data:image/png;base64,AAE="}
CUSTOM = ToolCall(name="sql", input="SELECT 1", id="c2", state=own(form="custom"))
WIRE_CUSTOM = {"type": "custom_tool_call", "call_id": "c2", "name": "sql", "input": "SELECT 1"}
WIRE_THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "ZW5j"}
SEARCH = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"query": "a", "sources": None}}

MESSAGES = [
    ([user("a", "b")], [said("user", told("a"), told("b"))]),
    ([system("a")], [said("system", told("a"))]),
    ([Message("system", (TextPart(text="a", state=of_item(role="developer")),))], [said("developer", told("a"))]),
    ([user(Value(value={"a": None}))], [said("user", told('{"a":null}'))]),
    ([user(Image(data=b"\0\1"))], [said("user", PIXEL)]),
    (
        [user(Image(url="https://x/a b.png", detail="low"))],
        [said("user", {"type": "input_image", "image_url": "https://x/a b.png", "detail": "low"})],
    ),
    (
        [user(File(data=b"%PDF", name="a.pdf"))],
        [
            said(
                "user",
                {
                    "type": "input_file",
                    "filename": "a.pdf",
                    "file_data": "data:application/pdf;base64,JVBERg==",
                },
            )
        ],
    ),
    ([user(File(id="file_1"))], [said("user", {"type": "input_file", "file_id": "file_1"})]),
    ([user(File(url="https://x/a"))], [said("user", {"type": "input_file", "file_url": "https://x/a"})]),
    ([assistant("a", "b")], [said("assistant", text("a"), text("b"))]),
    ([assistant("a", CALL, "b")], [said("assistant", text("a")), WIRE_CALL, said("assistant", text("b"))]),
    # Texts of one message are apart where another item begins.
    (
        [assistant("a", TextPart(text="b", state=own(item={})), "c")],
        [said("assistant", text("a")), said("assistant", text("b"), text("c"))],
    ),
    ([assistant(Refusal(text="no"))], [said("assistant", {"type": "refusal", "refusal": "no"})]),
    (
        [assistant(TextPart(text="a", notes=({"type": "url_citation", "url": "u"},)))],
        [said("assistant", text("a", annotations=[{"type": "url_citation", "url": "u"}]))],
    ),
    (
        [assistant(TextPart(text="a", notes=({"logprob": {"token": "a"}},)))],
        [said("assistant", text("a", logprobs=[{"token": "a"}]))],
    ),
    (
        [assistant(Thinking(text="", state=of_item(id="rs_1", encrypted_content="ZW5j")), "a")],
        [WIRE_THOUGHT, said("assistant", text("a"))],
    ),
    (
        [
            assistant(
                Thinking(text="a", state=of_item(id="rs_1")),
                Thinking(text="b", state=own()),
                Thinking(text="c", state=own(place="content")),
            )
        ],
        [
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}],
                "content": [{"type": "reasoning_text", "text": "c"}],
            }
        ],
    ),
    (
        [
            assistant(
                ServerItem(
                    kind="web_search_call", id="ws_1", state=of_item(status="completed", action=SEARCH["action"])
                )
            )
        ],
        [SEARCH],
    ),
    (
        [assistant(ServerItem(kind="code_interpreter_call", text="1+1", id="ci", state=of_item(outputs=None)))],
        [{"type": "code_interpreter_call", "id": "ci", "code": "1+1", "outputs": None}],
    ),
    ([assistant(ToolCall(name="look", id="c1"))], [WIRE_CALL | {"arguments": "{}"}]),
    ([Message("tool", (RESULT,)), user("a")], [WIRE_RESULT, said("user", told("a"))]),
    (
        [assistant(CUSTOM), Message("tool", (ToolResult(call_id="c2", name="sql", content=(TextPart(text="1"),)),))],
        [WIRE_CUSTOM, {"type": "custom_tool_call_output", "call_id": "c2", "output": "1"}],
    ),
    (
        [Message("tool", (ToolResult(call_id="c1", name="look", content=(TextPart(text="a"), Image(data=b"\0\1"))),))],
        [WIRE_RESULT | {"output": [told("a"), PIXEL]}],
    ),
    ([Message("tool", (ToolResult(call_id="c1", name="look", content=()),))], [WIRE_RESULT | {"output": ""}]),
    (
        [Message("tool", (ToolResult(call_id="c1", name="look", content=(Value(value=[1]),)),))],
        [WIRE_RESULT | {"output": "[1]"}],
    ),
]


@pytest.mark.parametrize(("messages", "wire"), MESSAGES)
def test_a_history_is_sent_item_by_item(messages, wire):
    body, notices = encoded(messages)
    assert body["input"] == wire
    assert notices == []


FOREIGN = ProviderState("openai_chat", {"set": {"store": True}})


@pytest.mark.parametrize(
    ("message", "items", "noticed"),
    [
        (assistant("a", Thinking(text="hm")), [said("assistant", text("a"))], [("dropped", "Thinking")]),
        (assistant("a", Thinking(text="hm", state=FOREIGN)), [said("assistant", text("a"))], [("dropped", "Thinking")]),
        (assistant("a", ServerItem(kind="search")), [said("assistant", text("a"))], [("dropped", "ServerItem")]),
        (assistant("a", Image(data=b"a")), [said("assistant", text("a"))], [("dropped", "Image")]),
        (assistant("a", Audio(data=b"a", id="x")), [said("assistant", text("a"))], [("dropped", "Audio")]),
        (assistant(TextPart(text="a", state=FOREIGN)), [said("assistant", text("a"))], [("dropped", "part")]),
        *(
            (assistant(TextPart(text="a", notes=(note,))), [said("assistant", text("a"))], [("dropped", "citations")])
            for note in (
                {"type": "url_citation", "url_citation": {}},
                {"type": "char_location", "cited_text": "b"},
                {"type": "TEXT_CONTENT", "start": 0, "end": 1, "text": "a", "sources": []},
            )
        ),
        (Message("user", (TextPart(text="a"),), name="ada"), [said("user", told("a"))], [("dropped", "name")]),
        (
            Message("tool", (msgspec.structs.replace(RESULT, is_error=True),)),
            [WIRE_RESULT],
            [("dropped", "is_error")],
        ),
        (
            Message("tool", (msgspec.structs.replace(RESULT, content=(TextPart(text="seen", state=FOREIGN),)),)),
            [WIRE_RESULT],
            [("dropped", "part")],
        ),
    ],
)
def test_what_has_no_place_is_left_out_and_reported(message, items, noticed):
    body, notices = encoded([message])
    assert body["input"] == items
    assert kinds(notices) == noticed


@pytest.mark.parametrize(
    "message",
    [
        user(Audio(data=b"a")),
        user(Thinking(text="hm")),
        user(ServerItem(kind="search")),
        user(CALL),
        user(Refusal(text="no")),
    ],
)
def test_what_a_prompt_cannot_say_is_an_error_before_anything_is_sent(message):
    with pytest.raises(UnsupportedError):
        encoded([message])


# The client's half: answers. `answered` tells a whole answer as the API streams it.


def answer(*output, status="completed", **more):
    usage = {"input_tokens": 10, "output_tokens": 7, "total_tokens": 17}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": status,
        "error": None,
        "model": "m-1",
        "output": list(output),
        "tools": [],
        "usage": usage
        | {"input_tokens_details": {"cached_tokens": 3}, "output_tokens_details": {"reasoning_tokens": 2}},
        **more,
    }


FIELDS = {"output_text": "text", "refusal": "refusal", "summary_text": "text", "reasoning_text": "text"}
WORDS = {
    "output_text": "response.output_text",
    "refusal": "response.refusal",
    "summary_text": "response.reasoning_summary_text",
    "reasoning_text": "response.reasoning_text",
    "function_call": "response.function_call_arguments",
    "custom_tool_call": "response.custom_tool_call_input",
    "mcp_call": "response.mcp_call_arguments",
    "code_interpreter_call": "response.code_interpreter_call_code",
}
ALONE = {
    "function_call": "arguments",
    "custom_tool_call": "input",
    "mcp_call": "arguments",
    "code_interpreter_call": "code",
}


def item_events(index, item):
    """The events of one item, from its beginning to its end."""
    here = {"output_index": index, "item_id": item.get("id", "")}
    begun = {**item, **{place: [] for place in ("content", "summary") if place in item}}
    begun |= {"status": "in_progress"} if "status" in item else {}
    field = ALONE.get(item["type"])
    yield {"type": "response.output_item.added", **here, "item": begun | ({field: ""} if field else {})}
    if field and item.get(field):
        yield from text_events(item["type"], item[field], field, here)
    for place in ("summary", "content"):
        for number, part in enumerate(item.get(place) or []):
            where = {**here, f"{place}_index": number}
            kind = "response.reasoning_summary_part" if place == "summary" else "response.content_part"
            if inner := FIELDS.get(part["type"]):
                yield {"type": f"{kind}.added", **where, "part": {"type": part["type"], inner: ""}}
                yield from text_events(part["type"], part[inner], inner, where)
                for at, note in enumerate(part.get("annotations") or []):
                    noted = {"annotation_index": at, "annotation": note}
                    yield {"type": "response.output_text.annotation.added", **where, **noted}
            else:
                yield {"type": f"{kind}.added", **where, "part": part}
            yield {"type": f"{kind}.done", **where, "part": part}
    yield {"type": "response.output_item.done", **here, "item": item}


def text_events(kind, words, field, where):
    for start in range(0, len(words), 3):
        yield {"type": f"{WORDS[kind]}.delta", **where, "delta": words[start : start + 3], "obfuscation": "x"}
    yield {"type": f"{WORDS[kind]}.done", **where, field: words}


def answered(body, **last):
    """All the events of an answer; `last` goes over what the last one tells."""
    begun = {**body, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    end = {"incomplete": "response.incomplete"}.get(body["status"], "response.completed")
    told = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        *(event for index, item in enumerate(body["output"]) for event in item_events(index, item)),
        {"type": end, "response": {**body, **last}},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(told)]


def message_item(*parts, **more):
    return {"id": "msg_1", "status": "completed", **said("assistant", *parts, **more)}


def summary(words):
    return {"type": "summary_text", "text": words}


NOTE = {"type": "url_citation", "url": "https://x", "title": "X", "start_index": 0, "end_index": 1}
CALL_ITEM = {**WIRE_CALL, "id": "fc_1", "status": "completed"}
ANSWERS: dict[str, tuple[dict[str, Any], list[Any], str]] = {
    "text": (
        answer(message_item(text("Hello, wörld 🌊!", annotations=[], logprobs=[]))),
        [("Text", "Hello, wörld 🌊!")],
        "stop",
    ),
    "parts": (
        answer(message_item(text("a", annotations=[NOTE]), text(""), text("b", mood=1), phase="final_answer")),
        [("Text", "a"), ("Text", ""), ("Text", "b")],
        "stop",
    ),
    "messages": (
        answer(message_item(text("a"), phase="commentary"), message_item(text("b"), id="msg_2")),
        [("Text", "a"), ("Text", "b")],
        "stop",
    ),
    "messages without names": (
        answer(said("assistant", text("a")), said("assistant", text("b")), said("assistant", text("c"), text("d"))),
        [("Text", "a"), ("Text", "b"), ("Text", "c"), ("Text", "d")],
        "stop",
    ),
    "refusal": (
        answer(message_item(text("I "), {"type": "refusal", "refusal": "won't."})),
        [("Text", "I "), ("Refusal", "won't.")],
        "refusal",
    ),
    "encrypted thinking": (
        answer({**WIRE_THOUGHT, "content": []}, message_item(text("a"))),
        [("Thinking", ""), ("Text", "a")],
        "stop",
    ),
    "summaries": (
        answer({**WIRE_THOUGHT, "summary": [summary("a"), summary(""), summary("b")]}, {**WIRE_THOUGHT, "id": "rs_2"}),
        [("Thinking", "a"), ("Thinking", ""), ("Thinking", "b"), ("Thinking", "")],
        "stop",
    ),
    "thinking in the open": (
        answer(
            {
                "type": "reasoning",
                "id": "r",
                "summary": [summary("s")],
                "content": [{"type": "reasoning_text", "text": "t"}],
            }
        ),
        [("Thinking", "s"), ("Thinking", "t")],
        "stop",
    ),
    "calls": (
        answer(
            {**WIRE_THOUGHT},
            {**CALL_ITEM, "namespace": "n"},
            {**CALL_ITEM, "id": "fc_2", "call_id": "c2", "arguments": "{}"},
            {**WIRE_CUSTOM, "call_id": "c3", "id": "ctc_1"},
        ),
        [("Thinking", ""), ("ToolCall", "look"), ("ToolCall", "look"), ("ToolCall", "sql")],
        "tool_calls",
    ),
    "what the provider runs": (
        answer(
            SEARCH,
            {"type": "code_interpreter_call", "id": "ci", "code": "1+1", "outputs": None, "container_id": "c"},
            {"type": "mcp_call", "id": "mcp", "arguments": "{}", "name": "n", "output": None, "server_label": "l"},
            {"type": "computer_call", "id": "cu", "call_id": "x", "action": {"type": "click"}},
            {"type": "image_generation_call", "id": "ig", "result": "AAE=", "size": None},
            {"type": "compaction", "id": "cmp", "encrypted_content": "ZW5j"},
            {"type": "tool_search_call", "id": "ts", "arguments": {"q": None}, "call_id": None},
            message_item(text("a")),
        ),
        [
            *(
                ("ServerItem", kind)
                for kind in ("web_search_call", "code_interpreter_call", "mcp_call", "computer_call")
            ),
            *(("ServerItem", kind) for kind in ("image_generation_call", "compaction", "tool_search_call")),
            ("Text", "a"),
        ],
        "stop",
    ),
    "length": (
        answer(
            message_item(text("cut"), status="incomplete"),
            status="incomplete",
            incomplete_details={"reason": "max_output_tokens"},
        ),
        [("Text", "cut")],
        "length",
    ),
    "filter": (
        answer(status="incomplete", incomplete_details={"reason": "content_filter", "x": 1}),
        [],
        "content_filter",
    ),
    "unknown part": (
        answer(message_item({"type": "output_smell", "smell": {"of": None}}, text("a"))),
        [("ServerItem", "output_smell"), ("Text", "a")],
        "stop",
    ),
    "empty message": (answer(message_item()), [("Text", "")], "stop"),
    "nothing": (answer(), [], "stop"),
}


def outline(message):
    return [
        (type(part).__name__, getattr(part, "name", None) or getattr(part, "kind", None) or getattr(part, "text", ""))
        for part in message.parts
    ]


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_and_its_stream_sum_to_the_same_and_encode_to_the_answer(name):
    body, parts, reason = ANSWERS[name]
    deltas, error = decoded(sse(*answered(body)))
    assert error is None
    for some in (DIALECT.decode_answer(json.dumps(body).encode()), deltas):
        message, usage, finishes = total(some)
        assert outline(message) == parts
        assert (message.id, message.model) == ("resp_1", "m-1")
        assert usage == Usage(input=7, cache_read=3, output=5, reasoning=2, reported_total=17)
        assert finishes[0].reason == reason
        assert response_of(NAME, some) == response_of(NAME, deltas)
        again = json.loads(DIALECT.encode_response(response_of(NAME, some)))
        assert DIALECT.canonical_answer(again) == DIALECT.canonical_answer(body)
        rest, error = decoded(streamed(some))
        assert error is None
        assert total(rest) == total(some)


@pytest.mark.parametrize("name", ANSWERS)
def test_what_a_model_said_is_handed_back_as_it_came(name):
    body, _, _ = ANSWERS[name]
    for deltas in (DIALECT.decode_answer(json.dumps(body).encode()), decoded(sse(*answered(body)))[0]):
        sent, notices = encoded([total(deltas)[0]])
        assert sent["input"] == DIALECT.canonical_answer(body)["output"]
        assert notices == []


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("queued", "paused"),
        ("in_progress", "paused"),
        ("cancelled", "cancelled"),
        ("odd", "unknown"),
        (None, "unknown"),
    ],
)
def test_an_answer_that_is_not_complete_says_so(status, reason):
    body = answer(status=status)
    response = response_of(NAME, DIALECT.decode_answer(json.dumps(body).encode()))
    assert response.finish_reason == reason
    again = json.loads(DIALECT.encode_response(response))
    assert DIALECT.canonical_answer(again) == DIALECT.canonical_answer(body)


def test_log_probabilities_are_notes_and_told_again():
    weighed = [{"token": letter, "logprob": -0.5, "bytes": [97], "top_logprobs": []} for letter in "ab"]
    body = answer(message_item(text("ab", logprobs=weighed)))
    told = answered(body)
    poor = [{"token": entry["token"], "logprob": -0.5} for entry in weighed]
    for given_, noted in ((weighed, weighed), (poor, poor)):
        first, second = (
            {"type": "response.output_text.delta", "delta": entry["token"], "logprobs": [entry]} for entry in given_
        )
        here = {"output_index": 0, "content_index": 0}
        at = [event["type"] for event in told].index("response.output_text.delta")
        deltas, error = decoded(sse(*told[:at], first | here, second | here, *told[at + 1 :]))
        assert error is None
        assert [delta.value["logprob"] for delta in deltas if isinstance(delta, Note)] == noted
        again = json.loads(DIALECT.encode_response(response_of(NAME, deltas)))
        assert DIALECT.canonical_answer(again) == DIALECT.canonical_answer(body)
        rest, _ = decoded(streamed(deltas))
        assert total(rest) == total(deltas)
    whole_deltas = DIALECT.decode_answer(json.dumps(body).encode())
    assert [delta.value["logprob"] for delta in whole_deltas if isinstance(delta, Note)] == weighed


# Streams that contradict themselves.

TALE = answer(
    {**WIRE_THOUGHT, "summary": [summary("hm")]},
    message_item(text("Hello", annotations=[NOTE])),
    CALL_ITEM,
    SEARCH,
)
FULL = [("Thinking", "hm"), ("Text", "Hello"), ("ToolCall", "look"), ("ServerItem", "web_search_call")]


def changed(item, **fields):
    return {**TALE["output"][item], **fields}


@pytest.mark.parametrize(
    "output",
    [
        None,
        [],
        TALE["output"][:2],
        [changed(0, id="rs_9", encrypted_content="YW5ldw=="), *TALE["output"][1:]],
        [changed(0, summary=[]), changed(1, content=[]), changed(2, arguments=""), changed(3, id="x", action={})],
        [changed(0, summary=[summary("")]), changed(1, content=[text("")]), *TALE["output"][2:]],
        [TALE["output"][0], changed(1, status="incomplete", id="y"), changed(2, call_id="c9", id="z"), SEARCH],
    ],
    ids=["none", "empty", "fewer", "anew", "without texts", "with empty texts", "other ids"],
)
def test_what_was_streamed_stands_against_what_is_told_in_the_end(output):
    expected = total(decoded(sse(*answered(TALE)))[0])
    deltas, error = decoded(sse(*answered(TALE, output=output)))
    assert error is None
    assert total(deltas) == expected
    assert outline(expected[0]) == FULL


def without_done(events_, *types):
    return [event for event in events_ if event["type"] not in types]


@pytest.mark.parametrize(
    "dropped",
    [
        ["response.output_item.done"],
        ["response.output_text.delta"],
        ["response.output_text.delta", "response.output_text.done", "response.content_part.done"],
        ["response.content_part.added"],
        ["response.reasoning_summary_part.added", "response.reasoning_summary_text.delta"],
        ["response.function_call_arguments.delta", "response.function_call_arguments.done"],
        ["response.output_text.annotation.added"],
        ["response.created", "response.in_progress"],
        [event["type"] for event in answered(TALE)[:-1]],
        [event["type"] for event in answered(TALE) if event["type"] != "response.output_item.done"][:-1],
    ],
    ids=lambda types: types[0],
)
def test_what_was_not_streamed_is_taken_from_what_is_told_later(dropped):
    expected, usage, finishes = total(decoded(sse(*answered(TALE)))[0])
    deltas, error = decoded(sse(*without_done(answered(TALE), *dropped)))
    assert error is None
    message, *rest = total(deltas)
    assert rest == [usage, finishes]
    assert message.parts == expected.parts
    assert message.text == "Hello"


@pytest.mark.parametrize(
    ("at", "more"),
    [
        ("response.output_text.done", {"text": "Hello, you"}),
        ("response.content_part.done", {"part": text("Hello, you")}),
        ("response.output_item.done", {"item": changed(1, content=[text("Hello, you")])}),
        (
            "response.completed",
            {
                "response": TALE
                | {"output": [TALE["output"][0], changed(1, content=[text("Hello, you")]), *TALE["output"][2:]]}
            },
        ),
    ],
)
def test_a_text_that_goes_on_where_the_stream_left_off_is_passed_on(at, more):
    told = answered(TALE)
    told = [
        {**event, **more} if event["type"] == at and event.get("output_index", 1) == 1 else event
        for event in told
        # Who knows the whole text in the midst of it says nothing else in the end.
        if at == "response.completed"
        or event["type"] == at
        or event.get("output_index") != 1
        or "done" not in event["type"]
    ]
    if at != "response.completed":
        told[-1] = {**told[-1], "response": {**TALE, "output": []}}
    deltas, error = decoded(sse(*told))
    assert error is None
    assert total(deltas)[0].text == "Hello, you"
    assert "".join(delta.text for delta in deltas if isinstance(delta, Text) and delta.part == 1) == "Hello, you"


@pytest.mark.parametrize(
    "output",
    [
        [changed(0, summary=[summary("ha")]), *TALE["output"][1:]],
        [TALE["output"][0], changed(1, content=[text("Hallo")]), *TALE["output"][2:]],
        [TALE["output"][0], changed(1, content=[text("Hell")]), *TALE["output"][2:]],
        [
            TALE["output"][0],
            changed(1, content=[{"type": "refusal", "refusal": "No"}, text("Hello")]),
            *TALE["output"][2:],
        ],
        [*TALE["output"][:2], changed(2, arguments="[]"), SEARCH],
        [*TALE["output"][:2], changed(2, name="hear"), SEARCH],
        [*TALE["output"][1:], TALE["output"][0]],
        [*TALE["output"][:3], 7],
    ],
    ids=["thinking", "text", "shorter", "another part", "arguments", "name", "order", "no item"],
)
def test_what_contradicts_the_stream_in_the_end_is_an_error(output):
    deltas, error = decoded(sse(*answered(TALE, output=output)))
    assert type(error) is StreamProtocolError
    assert total(deltas)[0].text == "Hello"


def test_items_that_are_numbered_with_gaps_are_known_by_their_place():
    told = [
        {**event, "output_index": event["output_index"] * 2} if "output_index" in event else event
        for event in answered(TALE)
    ]
    deltas, error = decoded(sse(*told))
    assert error is None
    assert total(deltas) == total(decoded(sse(*answered(TALE)))[0])


def test_items_that_are_numbered_alike_are_known_by_their_beginning_and_end():
    told = [{**event, "output_index": 0} if "output_index" in event else event for event in answered(TALE)]
    deltas, error = decoded(sse(*told))
    assert error is None
    assert total(deltas) == total(decoded(sse(*answered(TALE)))[0])


def test_parts_stand_in_the_order_in_which_their_items_began():
    body = answer(WIRE_THOUGHT, message_item(id="m0"), CALL_ITEM, WIRE_THOUGHT, message_item(text("a")))
    added = [event for event in answered(body) if event["type"] == "response.output_item.added"]
    rest = [event for event in answered(body) if event not in added]
    deltas, error = decoded(sse(*rest[:2], *added, *rest[2:]))
    assert error is None
    assert outline(total(deltas)[0]) == [
        ("Thinking", ""),
        ("Text", ""),
        ("ToolCall", "look"),
        ("Thinking", ""),
        ("Text", "a"),
    ]
    assert total(decoded(streamed(deltas))[0]) == total(deltas)


def test_a_call_whose_name_and_id_come_late_has_them():
    told = answered(answer(CALL_ITEM))
    told[2]["item"] = {"type": "function_call", "arguments": ""}
    deltas, error = decoded(sse(*told))
    assert error is None
    assert total(deltas)[0].tool_calls[0] == ToolCall(
        name="look",
        input='{"at": "it"}',
        id="c1",
        state=ProviderState(NAME, {"item": {"set": {"id": "fc_1", "status": "completed"}}}, "m-1"),
    )
    rest, error = decoded(streamed(deltas))
    assert (error, total(rest)) == (None, total(deltas))


def test_arguments_told_as_an_object_are_their_json():
    body = answer({**CALL_ITEM, "arguments": {"at": "it"}})
    deltas = DIALECT.decode_answer(json.dumps(body).encode())
    assert total(deltas)[0].tool_calls[0].arguments == {"at": "it"}
    assert json.loads(DIALECT.encode_response(response_of(NAME, deltas)))["output"] == body["output"]


@pytest.mark.parametrize(
    ("names", "parts", "error"),
    [
        (["created"], [], StreamInterrupted),
        (["created", "added", "part", "hello"], [("Text", "Hello")], StreamInterrupted),
        (
            ["created", "added", "part", "hello", "text.done", "part.done", "item.done"],
            [("Text", "Hello")],
            StreamInterrupted,
        ),
        (["created", "hello", "ping", "news", "blank", "[DONE]", "completed"], [("Text", "Hello")], None),
        (["completed", "junk"], [("Text", "Hello")], None),
        (["created", "[DONE]"], [], StreamInterrupted),
        (["created", "hello", "overloaded"], [("Text", "Hello")], OverloadedError),
        (["created", "hello", "nested"], [("Text", "Hello")], RateLimitError),
        (["bare"], [], RateLimitError),
        (["created", "hello", "failed"], [("Text", "Hello")], ServerError),
        (["created", "junk"], [], StreamProtocolError),
        (["created", "hello", "array"], [("Text", "Hello")], StreamProtocolError),
        (["created", "nowhere"], [], StreamProtocolError),
        (["created", "added", "added"], [], StreamProtocolError),
        (["created", "no item"], [], StreamProtocolError),
        (["created", "hello", "thought"], [("Text", "Hello")], StreamProtocolError),
        (["created", "call", "thought"], [("ToolCall", "look")], None),
    ],
)
def test_a_stream_ends_whole_or_with_an_error_after_all_that_came(names, parts, error):
    hello = answered(answer(message_item(text("Hello"))))
    pieces = {
        "created": sse(hello[0]),
        "added": sse(hello[2]),
        "part": sse(hello[3]),
        "hello": sse({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Hello"}),
        "text.done": sse(*(e for e in hello if e["type"] == "response.output_text.done")),
        "part.done": sse(*(e for e in hello if e["type"] == "response.content_part.done")),
        "item.done": sse(*(e for e in hello if e["type"] == "response.output_item.done")),
        "completed": sse(hello[-1]) if "call" not in names else b"",
        "ping": b": ping\n\n" + sse({"type": "keepalive", "sequence_number": 2}),
        "news": sse({"type": "response.weather.changed", "to": None}),
        "blank": b"data: \n\n",
        "[DONE]": b"data: [DONE]\n\n",
        "overloaded": sse({"type": "error", "code": "overloaded_error", "message": "busy", "sequence_number": 1}),
        "nested": sse({"type": "error", "error": {"code": "rate_limit_exceeded", "message": "slow"}}),
        "bare": sse({"error": {"code": "rate_limit_exceeded", "message": "slow"}}),
        "failed": sse(
            {
                "type": "response.failed",
                "response": answer(status="failed", error={"code": "server_error", "message": "oh"}),
            }
        ),
        "junk": b"data: {\n\n",
        "array": b"data: []\n\n",
        "nowhere": sse({"type": "response.output_text.delta", "delta": "a"}),
        "no item": sse({"type": "response.output_item.added", "output_index": 0, "item": {"x": 7}}),
        "thought": sse(
            {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "a"}
        ),
        "call": sse({"type": "response.output_item.added", "output_index": 0, "item": CALL_ITEM}),
    }
    data = b"".join(pieces[name] for name in names)
    if "call" in names:
        data += sse({"type": "response.completed", "response": answer(CALL_ITEM)})
    deltas, ending = decoded(data)
    assert outline(total(deltas)[0]) == parts
    assert type(ending) is (error or type(None))
    for size in (1, 7, 100):
        again, other = decoded(data, range(size, len(data), size))
        assert again == deltas
        assert str(other) == str(ending)


def test_what_is_unknown_or_only_progress_is_carried():
    told = {"type": "response.web_search_call.searching", "output_index": 0, "item_id": "x", "sequence_number": 9}
    deltas, _ = decoded(sse({"type": "response.news", "a": None}, told, {"no": "type"}))
    assert deltas == [Event({"type": "response.news", "a": None}), Event(told), Event({"no": "type"})]


def test_an_error_in_a_stream_tells_its_code_and_whether_it_may_pass():
    error = decoded(sse({"type": "error", "error": {"code": "rate_limit_exceeded", "message": "slow", "param": None}}))[
        1
    ]
    assert (error.retryable, error.code, str(error)) == (True, "rate_limit_exceeded", "slow")
    failed = answer(status="failed", error=None)
    deltas, error = decoded(sse({"type": "response.failed", "response": failed}))
    assert "no reason" in str(error)
    assert total(deltas)[1].output_tokens == 7


def test_what_follows_the_end_of_an_answer_is_no_part_of_it():
    data = sse(*answered(TALE))
    assert decoded(data * 2) == decoded(data)
    decoder = DIALECT.decoder()
    decoder.feed(data)
    assert decoder.is_over


def test_halves_of_a_surrogate_pair_are_joined():
    here = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0}
    told = answered(answer(message_item(text("a🌊!"))))
    cut = [here | {"delta": piece} for piece in ("a\ud83c", "", "\udf0a", "!")]
    for pieces, later in ((cut, told[-5:]), (cut[:1], told[-5:]), (cut[:2], told[-1:])):
        data = sse(*told[:4], *pieces, *(event for event in later if not event["type"].endswith("text.delta")))
        deltas, error = decoded(data)
        assert error is None
        assert total(deltas)[0].text == "a🌊!"
        assert not any("\ud800" <= character <= "\udfff" for d in deltas if isinstance(d, Text) for character in d.text)
    deltas, error = decoded(sse(*told[:4], cut[0], {"type": "response.completed", "response": {}}))
    assert total(deltas)[0].text == "a\ud83c"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", ServerError),
        (b"<html>", ServerError),
        (b"[]", StreamProtocolError),
        (b'{"object": "chat.completion", "choices": []}', StreamProtocolError),
        (b'{"output": [1]}', StreamProtocolError),
        (b'{"output": [{"type": "function_call", "call_id": "a"}]}', StreamProtocolError),
        (b'{"output": [{"type": "message", "content": [7]}]}', StreamProtocolError),
        (b'{"error": {"code": "rate_limit_exceeded", "message": "busy"}}', RateLimitError),
        (b'{"status": "failed", "output": [], "error": {"code": "server_error", "message": "no"}}', ServerError),
        (b'{"status": "failed", "output": [], "error": {"code": "invalid_prompt", "message": "no"}}', BadRequestError),
        (b'{"status": "failed", "output": [], "error": {"code": "image_too_small"}}', BadRequestError),
        (b'{"status": "failed", "output": [], "error": {"code": "bio_policy", "message": "no"}}', ContentFilterError),
        (b'{"status": "failed", "output": [], "error": {"code": "insufficient_quota"}}', RateLimitError),
    ],
)
def test_a_body_that_is_no_answer_is_an_error(body, error):
    with pytest.raises(error):
        response_of(NAME, DIALECT.decode_answer(body))


def failure(message="no", code=None, kind="invalid_request_error"):
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()


@pytest.mark.parametrize(
    ("status", "headers", "body", "error", "fields"),
    [
        (400, {"x-request-id": "req_1"}, failure(), BadRequestError, {"request_id": "req_1"}),
        (400, {}, failure(code="model_not_found"), NotFoundError, {"code": "model_not_found"}),
        (400, {}, failure(code="context_length_exceeded"), ContextOverflowError, {}),
        (400, {}, failure(code="content_policy_violation"), ContentFilterError, {}),
        (401, {}, failure(code="invalid_api_key"), AuthenticationError, {"code": "invalid_api_key"}),
        (403, {}, failure(), PermissionDeniedError, {}),
        (404, {}, failure(), NotFoundError, {}),
        (429, {"retry-after": "7"}, failure(code="rate_limit_exceeded"), RateLimitError, {"retry_after": 7.0}),
        (429, {}, failure(code="insufficient_quota"), RateLimitError, {"retryable": False}),
        (500, {}, failure(kind="server_error"), ServerError, {"retryable": True}),
        (502, {}, b"<html><title>Bad gateway</title></html>", ServerError, {"status": 502}),
        (503, {}, b"", OverloadedError, {"retryable": True}),
    ],
)
def test_an_error_becomes_the_exception_it_means_and_the_same_error_again(status, headers, body, error, fields):
    raised = DIALECT.decode_error(status, headers, body)
    assert type(raised) is error
    assert {name: getattr(raised, name) for name in fields} == fields
    code, said_again = DIALECT.encode_error(raised)
    again = DIALECT.decode_error(code, {}, said_again)
    assert (type(again), again.status) == (error, status)
    ending = decoded(DIALECT.encoder().fail(raised))[1]
    assert ending.message.startswith(raised.message)


# The server's half.


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"model": None}, "model"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": {"role": "user"}}, "input"),
        ({"input": ["hi"]}, "input[0].type"),
        ({"input": [{"content": "hi"}]}, "input[0].type"),
        ({"input": [{"role": "tool", "content": "a"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": ["a"]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [said("user", told("a")), {**WIRE_CALL, "name": None}]}, "input[1].name"),
        ({"input": [{**WIRE_CALL, "call_id": None}]}, "input[0].call_id"),
        ({"input": [{**WIRE_CALL, "arguments": {}}]}, "input[0].arguments"),
        ({"input": [{**WIRE_CUSTOM, "input": None}]}, "input[0].input"),
        ({"input": [{**WIRE_RESULT, "call_id": None}]}, "input[0].call_id"),
        ({"input": [{**WIRE_RESULT, "output": None}]}, "input[0].output"),
        ({"input": [{**WIRE_RESULT, "output": [told(7)]}]}, "input[0].output[0].text"),
        ({"input": [{"type": "reasoning", "summary": "a"}]}, "input[0].summary"),
        (
            {"input": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": 1}]}]},
            "input[0].summary[0].text",
        ),
        ({"tools": {}}, "tools"),
        ({"tools": [7]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"stream": "yes"}, "stream"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_output_tokens": "7"}, "max_output_tokens"),
        ({"tool_choice": {"type": "function", "name": 7}}, "tool_choice"),
        ({"user": 7}, "user"),
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
        model="gpt-5",
        max_output_tokens=99,
        stream=True,
        temperature=0.5,
        top_p=0.9,
        user="ada",
        instructions="Be brief.",
        reasoning={"effort": "low", "summary": "auto"},
        text={"format": {"type": "json_schema", "name": "shape", "schema": CLOSED, "strict": True}},
        tools=[WIRE_TOOL],
        tool_choice={"type": "function", "name": "look"},
        parallel_tool_calls=False,
        include=LOGPROBS,
        top_logprobs=2,
        input=[
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "content": "hi"},
            WIRE_THOUGHT,
            {"role": "assistant", "content": "a"},
            WIRE_CALL,
            WIRE_CUSTOM,
            WIRE_RESULT,
            {"type": "custom_tool_call_output", "call_id": "c2", "output": [told("1"), PIXEL]},
            said("user", told("b"), PIXEL, {"type": "input_file", "file_id": "f"}),
        ],
    )
    seen = ToolResult(
        call_id="c2", name="sql", content=(TextPart(text="1"), Image(data=b"\0\1", media_type="image/png"))
    )
    assert request.messages == (
        Message("system", (TextPart(text="Be brief."),), state=own(is_instructions=True)),
        Message("system", (TextPart(text="Be kind.", state=of_item(role="developer")),)),
        user("hi"),
        assistant(Thinking(text="", state=of_item(id="rs_1", encrypted_content="ZW5j")), "a", CALL, CUSTOM),
        Message("tool", (RESULT, seen)),
        user("b", Image(data=b"\0\1", media_type="image/png"), File(id="f")),
    )
    assert request.tools == (TOOL,)
    assert request.schema == OutputSchema("shape", CLOSED)
    assert (request.model, request.stream, request.user) == ("gpt-5", True, "ada")
    assert (request.max_tokens, request.temperature, request.top_p) == (99, 0.5, 0.9)
    assert (request.thinking, request.tool_choice, request.parallel_tool_calls) == ("low", "look", False)
    assert (request.logprobs, request.top_logprobs) == (True, 2)
    assert asked(reasoning={"effort": "none"}).thinking is False
    assert asked(reasoning={"effort": "xhigh"}).thinking is None


def round_trip(body):
    http, notices = DIALECT.encode_request(DIALECT.decode_request(json.dumps(body).encode()))
    assert notices == ()
    return json.loads(http.body)


EQUAL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "null is absent": ({"temperature": None, "previous_response_id": None}, {}),
    "a stream that is not wanted is absent": ({"stream": False}, {}),
    "no tools are absent": ({"tools": []}, {}),
    "a string is one message of the user": ({"input": "hi"}, {}),
    "a message needs no type": ({"input": [{"role": "user", "content": [told("hi")]}]}, {}),
    "a string is one text": ({"input": [{"role": "user", "content": "hi"}]}, {}),
    "a string is one text of the model": (
        {"input": [{"role": "assistant", "content": "a"}]},
        {"input": [said("assistant", text("a"))]},
    ),
    "one text is a string: a tool's output": (
        {"input": [WIRE_RESULT | {"output": [told("seen")]}]},
        {"input": [WIRE_RESULT]},
    ),
    "null is absent: in items and their parts": (
        {
            "input": [
                said("user", told("a", x=None), id=None),
                {**WIRE_CALL, "id": None},
                {**WIRE_THOUGHT, "status": None},
            ]
        },
        {"input": [said("user", told("a")), WIRE_CALL, WIRE_THOUGHT]},
    ),
    "null is absent: in a function": ({"tools": [WIRE_TOOL | {"x": None}]}, {"tools": [WIRE_TOOL]}),
    "no annotations and no logprobs are absent": (
        {"input": [said("assistant", text("a", annotations=[], logprobs=[]))]},
        {"input": [said("assistant", text("a"))]},
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
    {"store": True, "include": [], "metadata": {"a": None}, "truncation": "auto", "prompt_cache_key": "k"},
    {"include": ["web_search_call.action.sources", ENCRYPTED], "service_tier": "flex"},
    {"input": [said("user", told("a")), said("user", told("b"))]},
    {"input": [said("assistant", text("a")), said("assistant", text("b")), said("assistant", text("c"), id="m")]},
    {"input": [said("assistant"), said("user")]},
    {"input": [said("user", told("a", prompt_cache_breakpoint={"mode": "explicit"}), phase="x")]},
    {"input": [said("assistant", told("a"), {"type": "refusal", "refusal": "no", "x": 1})]},
    {"input": [said("assistant", text("a", annotations=[NOTE, {"cited_text": "x"}], logprobs=[{"token": "a"}]))]},
    {"input": [said("assistant", text("a"), id="msg_1", status="completed", phase="commentary"), WIRE_CALL]},
    {"input": [said("user", {"type": "input_image", "file_id": "f", "detail": "auto"})]},
    {"input": [said("user", {**PIXEL, "image_url": "data:image/png;base64,AA E="}, {**PIXEL, "x": 1})]},
    {"input": [said("user", {"type": "input_file", "file_data": "JVBERg==", "filename": "a"})]},
    {"input": [said("user", {"type": "input_file", "file_data": "data:text/csv;base64,YQ=="})]},
    {"input": [said("user", {"type": "input_audio", "input_audio": {"data": None}})]},
    {"input": [WIRE_THOUGHT, {**WIRE_THOUGHT, "id": "rs_2"}, {"type": "reasoning", "content": [], "summary": []}]},
    {
        "input": [
            {
                "type": "reasoning",
                "summary": [summary(""), summary("a")],
                "content": [{"type": "reasoning_text", "text": "b"}],
            }
        ]
    },
    {"input": [{"type": "reasoning", "id": "r"}, {"type": "reasoning", "summary": [{"type": "x", "text": "a"}]}]},
    {
        "input": [
            {**WIRE_CALL, "arguments": "", "id": "fc", "status": "incomplete", "namespace": "n", "caller": {"a": None}}
        ]
    },
    {"input": [WIRE_CUSTOM, {"type": "custom_tool_call_output", "call_id": "c2", "output": "1"}]},
    {"input": [WIRE_CUSTOM, {"type": "function_call_output", "call_id": "c2", "output": "1", "id": "o"}]},
    {
        "input": [
            {**WIRE_RESULT, "output": ""},
            {**WIRE_RESULT, "output": []},
            {**WIRE_RESULT, "output": [told("a", x=1)]},
        ]
    },
    {"input": [{**WIRE_RESULT, "output": [told("a"), {"type": "input_file", "x": {"y": None}}]}]},
    {"input": [SEARCH, {"type": "mcp_call", "id": "m", "output": None, "error": {"code": None}}]},
    {"input": [{"type": "item_reference", "id": "i"}, {"id": "j"}, {"type": "compaction", "encrypted_content": "e"}]},
    {"input": [{"type": "additional_tools", "role": "developer", "tools": [None]}, said("user", told("a"))]},
    {"input": [{"type": "computer_call_output", "call_id": "x", "output": {"type": "computer_screenshot"}}]},
    {"instructions": "", "previous_response_id": "resp_0"},
    {"tools": [{"type": "web_search", "filters": None}, {"type": "custom", "name": "sql", "format": {"type": "text"}}]},
    {"tools": [{"type": "namespace", "name": "n", "tools": [WIRE_TOOL]}, {"type": "mcp", "server_label": "l"}]},
    {"tools": [WIRE_TOOL | {"strict": True, "defer_loading": True}, {"type": "function", "name": "f"}]},
    {"tools": [WIRE_TOOL], "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [WIRE_TOOL]}},
    {"tools": [WIRE_TOOL | {"name": "auto"}], "tool_choice": {"type": "function", "name": "auto"}},
    {"tool_choice": {"type": "web_search"}},
    {"reasoning": {"effort": "low", "summary": None}},
    {"reasoning": {"effort": "none"}, "model": "o3"},
    {"reasoning": {"effort": "minimal", "summary": "detailed", "context": "all_turns"}, "model": "gpt-5.4"},
    {"text": {"format": {"type": "json_object"}, "verbosity": "low"}},
    {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": True}}},
    {"text": {"format": {"type": "json_schema", "name": "x", "description": None, "schema": CLOSED}}},
    {
        "conversation": "conv_1",
        "background": True,
        "max_tool_calls": 3,
        "stream_options": {"include_obfuscation": False},
    },
]


@pytest.mark.parametrize("fields", KEPT)
def test_nothing_else_differs_when_a_request_is_read_and_sent_again(fields):
    body = {**plain(), **fields}
    assert DIALECT.canonical_request(body) == body
    assert round_trip(body) == body


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": {"id": "p", "version": "2", "variables": {"a": None}}},
        {"model": "m", "conversation": "c"},
        {"model": "m", "previous_response_id": "r", "input": []},
    ],
)
def test_what_the_server_keeps_needs_not_be_said(body):
    assert round_trip(body) == body


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"incomplete_details": None, "error": None}, {}),
        ({"output": [message_item(text("a", annotations=[], logprobs=[]))]}, {"output": [message_item(text("a"))]}),
        ({"output": [message_item(text("a"), phase=None)]}, {"output": [message_item(text("a"))]}),
        ({"output": [{**WIRE_THOUGHT, "status": None}]}, {"output": [WIRE_THOUGHT]}),
        ({"usage": {"input_tokens": 1, "cost": None}}, {"usage": {"input_tokens": 1}}),
    ],
)
def test_two_spellings_of_one_answer_are_one(one, other):
    bodies = [{"id": "a", "object": "response", "output": [], **fields} for fields in (one, other)]
    canonical = DIALECT.canonical_answer(bodies[0])
    assert canonical == DIALECT.canonical_answer(bodies[1])
    for body in bodies:
        response = response_of(NAME, DIALECT.decode_answer(json.dumps(body).encode()))
        assert DIALECT.canonical_answer(json.loads(DIALECT.encode_response(response))) == canonical


def test_an_answer_of_another_model_is_told_as_one_of_ours():
    message = assistant(Thinking(text="hm"), ServerItem(kind="search"), "a", Refusal(text="no"), Value(value=[1]), CALL)
    response = msgspec.structs.replace(
        response_of("other", [Head("resp_9", "m"), Count(Usage(input=1, input_audio=2, output=3, reasoning=4))]),
        message=msgspec.structs.replace(message, id="resp_9"),
        finish_reason="content_filter",
    )
    assert json.loads(DIALECT.encode_response(response)) == {
        "id": "resp_9",
        "object": "response",
        "model": "m",
        "status": "incomplete",
        "incomplete_details": {"reason": "content_filter"},
        "output": [
            {"type": "reasoning", "summary": [summary("hm")]},
            said(
                "assistant",
                text("a", annotations=[]),
                {"type": "refusal", "refusal": "no"},
                text("[1]", annotations=[]),
            ),
            WIRE_CALL,
        ],
        "usage": {
            "input_tokens": 3,
            "input_tokens_details": {},
            "output_tokens": 7,
            "output_tokens_details": {"reasoning_tokens": 4},
            "total_tokens": 10,
        },
    }
    with pytest.raises(UnsupportedError):
        DIALECT.encode_response(msgspec.structs.replace(response, message=assistant(Image(data=b"a"))))
    with pytest.raises(UnsupportedError):
        streamed([Open(0, "audio"), Blob(0, b"a")])


def items_of(data):
    """What a stream says of its items, held against the rules of the protocol."""
    told = events(data)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert [event["type"] for event in told[:2]] == ["response.created", "response.in_progress"]
    assert told[-1]["type"] in ("response.completed", "response.incomplete", "response.cancelled")
    begun, parts, done, texts = {}, {}, {}, {}
    for event in told[2:-1]:
        index = event["output_index"]
        match event["type"].removeprefix("response.").split("."):
            case ["output_item", "added"]:
                assert index not in begun
                begun[index] = event["item"]
            case ["output_item", "done"]:
                done[index] = event["item"]
                assert begun[index]["type"] == event["item"]["type"]
            case ["content_part" | "reasoning_summary_part" as list_, "added"]:
                place = "summary" if "summary" in list_ else "content"
                number = event[f"{place}_index"]
                assert number == sum(where == (index, place) for where, _ in parts)
                assert index in begun
                parts[(index, place), number] = event["part"]
            case [_, "delta"]:
                assert index in begun
                assert index not in done
                key = next(
                    (name, event[name]) for name in ("content_index", "summary_index", "output_index") if name in event
                )
                texts[index, key] = texts.get((index, key), "") + event["delta"]
                assert event["item_id"] == begun[index].get("id", "")
    assert sorted(begun) == sorted(done) == list(range(len(begun)))
    assert [done[index] for index in sorted(done)] == told[-1]["response"]["output"]
    return [done[index]["type"] for index in sorted(done)]


def test_items_are_told_side_by_side_and_a_call_when_its_name_and_id_are_known():
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
        Open(5, "server", name="search"),
        Text(5, "not ours"),
        Close(4),
        Close(3),
        Event({}),
        Finish("tool_calls", raw="other"),
        Count(Usage(input=1, output=2)),
    ]
    told = streamed(deltas)
    assert items_of(told) == ["reasoning", "message", "function_call", "function_call"]
    message, usage, finishes = total(decoded(told)[0])
    assert (message.text, message.thinking) == ("bd", "ac")
    assert [(call.id, call.name, call.input) for call in message.tool_calls] == [
        ("i3", "f", '{"x":1}'),
        ("i4", "g", "{}"),
    ]
    assert (usage, finishes) == (
        Usage(input=1, output=2, reported_total=3),
        {0: Finish("tool_calls", raw="completed")},
    )


def test_an_answer_with_nothing_in_it_has_a_beginning_and_an_end():
    begun = ["response.created", "response.in_progress"]
    assert [event["type"] for event in events(streamed([Finish("stop")]))] == [*begun, "response.completed"]
    assert [event["type"] for event in events(streamed([]))] == [*begun, "response.incomplete"]


def test_a_call_that_stays_without_a_name_is_an_error():
    with pytest.raises(StreamProtocolError):
        streamed([Open(0, "call", "a"), Text(0, "{}"), Close(0)])


def test_an_error_in_a_stream_comes_after_its_beginning():
    encoder = DIALECT.encoder()
    data = encoder.feed(Head("resp_1", "m")) + encoder.fail(RateLimitError("slow", code="rate_limit_exceeded"))
    assert [event["type"] for event in events(data)] == ["response.created", "response.in_progress", "error"]
    deltas, error = decoded(data)
    assert total(deltas)[0].id == "resp_1"
    assert (type(error), error.code) == (RateLimitError, "rate_limit_exceeded")


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
extras = st.dictionaries(st.sampled_from(["phase", "x", "id"]), jsons.filter(lambda v: v is not None), max_size=2)
citations = st.lists(st.fixed_dictionaries({"type": st.just("url_citation"), "url": words}), max_size=2)


def patch(fields):
    return {"set": fields} if fields else {}


def state_of(part, item=None):
    """The state of a part: what is said of it, and if it is the first of an item, of the item."""
    value = {**patch(part), **({"item": patch(item)} if item is not None and item else {})}
    return ProviderState(NAME, value) if value else None


@st.composite
def said_items(draw, part):
    """Parts of one message, as the model says them."""
    parts = draw(st.lists(part, min_size=1, max_size=3))
    item = draw(extras)
    return [
        msgspec.structs.replace(
            parts[0], state=state_of((parts[0].state.value if parts[0].state else {}).get("set", {}), item)
        ),
        *parts[1:],
    ]


texts = st.builds(
    lambda said_, notes, more: TextPart(text=said_, notes=tuple(notes), state=state_of(more)), words, citations, extras
)
told_texts = st.builds(lambda said_, more: TextPart(text=said_, state=state_of(more)), words, extras)
refusals = st.builds(lambda said_: Refusal(text=said_), words)


def thinking_parts(summaries, opened, encrypted):
    """A thought: its summaries, what it says in the open, or nothing but what is encrypted."""
    parts = [("summary", said_) for said_ in summaries] + [("content", said_) for said_ in opened]
    first, *rest = [({"place": place}, said_) for place, said_ in parts] or [({}, "")]
    item = {"item": {"set": {"encrypted_content": encrypted}}}
    return [
        Thinking(text=first[1], state=ProviderState(NAME, {**first[0], **item})),
        *(Thinking(text=said_, state=ProviderState(NAME, state)) for state, said_ in rest),
    ]


thoughts = st.builds(thinking_parts, st.lists(words, max_size=3), st.lists(words, max_size=2), shown)
searches = st.builds(
    lambda kind, id_, fields: [ServerItem(kind=kind, id=id_, state=ProviderState(NAME, {"item": patch(fields)}))],
    st.sampled_from(["web_search_call", "computer_call", "news"]),
    shown,
    st.dictionaries(names.filter(lambda name: name not in ("id", "type", "role")), jsons, min_size=1, max_size=2),
)
images = st.builds(
    lambda data, more: Image(data=data, media_type="image/webp", state=state_of(more)), st.binary(min_size=1), extras
)
media = (
    images
    | st.builds(lambda url, detail: Image(url=f"https://{url}", detail=detail), names, st.none() | st.just("low"))
    | st.builds(
        lambda data, name: File(data=data, media_type="application/pdf", name=name), st.binary(min_size=1), names
    )
    | st.builds(lambda id_: File(id=id_), shown)
    | st.builds(lambda url, name: File(url=f"https://{url}", name=name), names, names | st.none())
)


@st.composite
def histories(draw):
    """Messages as a conversation has them: calls have ids, and are answered."""
    messages = [Message("system", tuple(draw(said_items(told_texts))))] if draw(st.booleans()) else []
    for turn in range(draw(st.integers(1, 3))):
        messages.append(Message("user", tuple(draw(said_items(told_texts | media)))))
        parts: list[Any] = []
        for item in draw(st.lists(thoughts | searches | said_items(texts | refusals), min_size=1, max_size=3)):
            before = [type(part) in (Thinking, ServerItem) and type(part) for part in (*parts[-1:], item[0])]
            # Items of one kind in a row are told apart by what is said of each.
            if len(before) == 2 and before[0] == before[1] and before[0] is not ServerItem:
                value = item[0].state.value if item[0].state else {}
                item[0] = msgspec.structs.replace(item[0], state=ProviderState(NAME, {"item": {}, **value}))
            parts += item
        calls = [
            ToolCall(
                name=draw(names),
                input=draw(st.sampled_from(['{"a":1}', "{}", "not json"])),
                id=f"c{turn}.{number}",
                state=draw(st.none() | st.just(ProviderState(NAME, {"form": "custom"})) | st.just(of_item(id="fc_1"))),
            )
            for number in range(draw(st.integers(0, 2)))
        ]
        messages.append(Message("assistant", (*parts, *calls)))
        if calls:
            content = st.lists(told_texts.filter(lambda part: part.text) | images, max_size=2).map(tuple)
            results = [ToolResult(call_id=call.id, name=call.name, content=draw(content)) for call in calls]
            messages.append(Message("tool", tuple(results)))
    return tuple(messages)


tools = st.builds(
    lambda name, said_, more: ToolSpec(name, said_, {"type": "object", "properties": {}}, state_of(more)),
    names,
    words,
    extras.map(lambda fields: {name: value for name, value in fields.items() if name != "id"}),
)


@st.composite
def requests(draw):
    options = {
        "temperature": draw(st.none() | st.floats(0, 1)),
        "top_p": draw(st.none() | st.floats(0, 1)),
        "top_k": draw(st.none() | st.integers(1, 9)),
        "stop": draw(st.none() | st.just(("a",))),
        "max_tokens": draw(st.none() | st.integers(1, 50_000)),
        "user": draw(st.none() | shown),
        "thinking": draw(st.none() | st.just(False) | st.sampled_from(["low", "medium", "high"])),
        "tool_choice": draw(st.sampled_from([None, "auto", "required", "look"])),
        "parallel_tool_calls": draw(st.none() | st.booleans()),
        "logprobs": draw(st.none() | st.just(True)),
        "schema": draw(st.none() | st.just(OutputSchema("answer", CLOSED))),
    }
    model = draw(st.sampled_from(["gpt-5.4", "gpt-4o", "o3"]))
    offered = tuple(draw(st.lists(tools, max_size=2)))
    return Request(model=model, messages=draw(histories()), tools=offered, stream=draw(st.booleans()), **options)


@given(requests())
@settings(max_examples=150, deadline=None)
def test_a_request_comes_back_but_for_what_the_report_names(request):
    http, notices = DIALECT.encode_request(request)
    back = DIALECT.decode_request(http.body)
    lost = {notice.subject for notice in notices}
    assert lost <= {"top_k", "stop", "thinking"}
    # A model that does not think needs not be told so.
    silent = {"thinking"} if request.thinking is False and request.model == "gpt-4o" else set()
    assert back == msgspec.structs.replace(request, **dict.fromkeys(lost | silent))
    assert DIALECT.encode_request(back)[0].body == http.body


def with_patch(inner, *more):
    fields = st.dictionaries(names | st.sampled_from(["id", "status", "phase", *more]), jsons, max_size=2)
    return st.builds(lambda wire, patch_: {**patch_, **wire}, inner, fields)


notes = st.none() | citations | st.lists(objects, max_size=1)
wire_parts = with_patch(
    st.one_of(
        st.builds(text, words),
        st.builds(told, words),
        st.builds(lambda said_, notes_: text(said_, annotations=notes_), words, notes),
        st.builds(lambda said_: text(said_, logprobs=[{"token": said_}]), words),
        st.builds(lambda said_: {"type": "refusal", "refusal": said_}, words),
        st.fixed_dictionaries({"type": names}, optional={"text": jsons}),
        st.fixed_dictionaries(
            {"type": st.just("input_image")},
            optional={"image_url": words | st.just(PIXEL["image_url"]), "detail": jsons},
        ),
        st.fixed_dictionaries(
            {"type": st.just("input_file")},
            optional={
                "file_id": words,
                "file_url": words,
                "file_data": words | st.just("data:a/b;base64,YQ=="),
                "filename": jsons,
            },
        ),
    )
)
wire_entries = with_patch(
    st.builds(summary, words) | st.builds(lambda said_: {"type": "reasoning_text", "text": said_}, words)
)
wire_items = st.one_of(
    with_patch(
        st.fixed_dictionaries(
            {
                "role": st.sampled_from(["user", "assistant", "system", "developer"]),
                "content": words | st.lists(wire_parts, max_size=3),
            },
            optional={"type": st.just("message")},
        )
    ),
    with_patch(
        st.fixed_dictionaries(
            {"type": st.just("reasoning")},
            optional={
                "summary": st.lists(wire_entries, max_size=2),
                "content": st.lists(wire_entries, max_size=2) | st.none(),
            },
        ),
        "encrypted_content",
    ),
    with_patch(st.builds(lambda at: {**WIRE_CALL, "arguments": at}, words), "namespace"),
    with_patch(st.builds(lambda at: {**WIRE_CUSTOM, "input": at}, words)),
    with_patch(
        st.fixed_dictionaries(
            {
                "type": st.sampled_from(["function_call_output", "custom_tool_call_output"]),
                "call_id": st.sampled_from(["c1", "c2"]),
                "output": words | st.lists(wire_parts, max_size=2),
            }
        )
    ),
    with_patch(
        st.fixed_dictionaries(
            {"type": names | st.sampled_from(["mcp_call", "code_interpreter_call", "item_reference"])},
            optional={"code": jsons, "arguments": jsons, "output": jsons},
        )
    ),
)
bodies = st.fixed_dictionaries(
    {"model": words, "input": words | st.lists(wire_items, min_size=1, max_size=4)},
    optional={
        "instructions": words | st.none() | objects,
        "stream": st.booleans() | st.none(),
        "store": st.booleans(),
        "include": st.lists(st.sampled_from([ENCRYPTED, LOGPROBS[1], "x"]), max_size=2),
        "temperature": numbers | st.none(),
        "max_output_tokens": st.integers(1, 9),
        "tools": st.lists(
            with_patch(
                st.fixed_dictionaries(
                    {"type": st.just("function"), "name": names},
                    optional={"description": words, "parameters": objects, "strict": st.booleans() | st.none()},
                )
            )
            | st.fixed_dictionaries({"type": names}, optional={"name": names, "x": jsons}),
            max_size=2,
        ),
        "tool_choice": st.sampled_from(["auto", "none", {"type": "function", "name": "a"}]) | objects,
        "reasoning": st.sampled_from([EFFORT, {"effort": "none"}, {"effort": "minimal"}, {"summary": "auto"}])
        | objects,
        "text": objects | st.just({"format": {"type": "json_schema", "name": "a", "schema": CLOSED, "strict": True}}),
        "previous_response_id": words,
        "x": jsons,
    },
)


@given(bodies)
@settings(max_examples=200, deadline=None)
def test_every_request_that_is_read_is_the_same_when_it_is_sent_again(body):
    try:
        request = DIALECT.decode_request(json.dumps(body).encode())
    except BadRequestError:
        assume(False)
    http, notices = DIALECT.encode_request(request)
    again = json.loads(http.body)
    assert same(again, DIALECT.canonical_request(body)), (again, DIALECT.canonical_request(body))
    assert notices == ()


answer_items = st.one_of(
    with_patch(st.builds(lambda parts: said("assistant", *parts), st.lists(wire_parts, max_size=3))),
    with_patch(
        st.fixed_dictionaries(
            {"type": st.just("reasoning")},
            optional={
                "summary": st.lists(wire_entries, max_size=2),
                "content": st.lists(wire_entries, max_size=2) | st.none(),
            },
        )
    ),
    with_patch(st.builds(lambda at: {**WIRE_CALL, "arguments": at}, words | objects)),
    with_patch(st.builds(lambda at: {**WIRE_CUSTOM, "input": at}, words)),
    with_patch(
        st.fixed_dictionaries(
            {"type": names.map("{}_call".format) | st.sampled_from(["mcp_call", "code_interpreter_call"])},
            optional={"code": jsons, "arguments": jsons, "output": jsons},
        )
    ),
)
answers = st.fixed_dictionaries(
    {"output": st.lists(answer_items, max_size=4)},
    optional={
        "id": words,
        "object": st.just("response"),
        "model": words,
        "status": st.sampled_from(["completed", "incomplete", "queued", "cancelled", "odd"]) | st.none(),
        "incomplete_details": objects | st.none() | st.just({"reason": "max_output_tokens"}),
        "usage": st.none()
        | words
        | st.dictionaries(
            st.sampled_from(["input_tokens", "output_tokens", "output_tokens_details", "total_tokens", "x"]),
            st.integers(0, 99) | jsons | st.just({"reasoning_tokens": 5}),
        ),
        "tools": jsons,
    },
)


@given(answers)
@settings(max_examples=200, deadline=None)
def test_every_answer_that_is_read_is_the_same_when_it_is_told_again(body):
    try:
        deltas = DIALECT.decode_answer(json.dumps(body).encode())
    except StreamProtocolError:
        assume(False)
    again = DIALECT.canonical_answer(json.loads(DIALECT.encode_response(response_of(NAME, deltas))))
    assert same(again, DIALECT.canonical_answer(body)), (again, DIALECT.canonical_answer(body))
    rest, error = decoded(streamed(deltas))
    assert error is None
    assert total(rest)[:2] == total(deltas)[:2]


@st.composite
def delta_streams(draw):
    """Deltas as a decoder may give them: parts interleaved, the ids of calls late or never."""
    deltas, queues = [Head("resp_1", "m")], []
    for part in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from(["text", "thinking", "refusal", "call"]))
        pieces = [Text(part, piece) for piece in draw(st.lists(shown, min_size=1, max_size=3))]
        if kind == "text" and draw(st.booleans()):
            pieces.append(
                Note(part, draw(st.sampled_from([{"type": "url_citation", "url": "u"}, {"logprob": {"token": "a"}}])))
            )
        if kind == "call":
            when = draw(st.sampled_from(["first", "late", "never"]))
            if when == "late":
                pieces.insert(draw(st.integers(0, len(pieces))), State(part, {}, id=f"c{part}"))
            opening = Open(part, kind, f"c{part}" if when == "first" else None, draw(names))
        else:
            state = draw(st.none() | st.just({"item": {"set": {"id": f"i{part}", "status": "completed"}}}))
            opening = Open(part, kind, state={"item": {}} if state is None and kind == "thinking" else state)
        deltas.append(opening)
        queues.append(pieces + ([Close(part)] if draw(st.booleans()) else []))
        if draw(st.booleans()):
            while any(queues):
                deltas.append(draw(st.sampled_from([queue for queue in queues if queue])).pop(0))
    while any(queues):
        deltas.append(draw(st.sampled_from([queue for queue in queues if queue])).pop(0))
    counts = st.none() | st.integers(0, 99)
    usage = Usage(input=draw(counts), cache_read=draw(counts), output=draw(counts), reasoning=draw(counts))
    reason = draw(st.sampled_from(["stop", "length", "content_filter", "cancelled"]))
    return [*deltas, Count(usage), Finish(reason, raw=reason)]


def plain_sum(deltas):
    message, usage, _ = total(deltas)
    parts = [
        (
            type(part),
            getattr(part, "text", None),
            getattr(part, "id", None),
            getattr(part, "input", None),
            sorted(map(str, getattr(part, "notes", ()))),
        )
        for part in message.parts
    ]
    return (
        parts,
        [(part.state.value if part.state else {}).get("item", {}) for part in message.parts],
        usage.input_tokens,
        usage.output_tokens,
    )


@given(delta_streams(), st.data())
@settings(max_examples=150, deadline=None)
def test_the_sum_of_deltas_survives_being_a_stream_however_it_is_cut(deltas, data):
    told = streamed(deltas)
    items_of(told)
    cuts = data.draw(st.lists(st.integers(0, len(told)), max_size=5))
    again, error = decoded(told, cuts)
    assert error is None
    assert plain_sum(again) == plain_sum(deltas)
    assert again == decoded(told)[0]
    assert total(decoded(streamed(again))[0]) == total(again)


def survive(deltas):
    """What comes after a decoder raises nothing foreign either."""
    try:
        response = response_of(NAME, deltas)
        DIALECT.encode_response(response)
        streamed(deltas)
    except SabirError:
        pass


@given(st.sampled_from(sorted(ANSWERS)), st.data())
@settings(max_examples=200, deadline=None)
def test_a_stream_with_anything_anywhere_raises_only_errors_of_the_family(name, data):
    told = answered(ANSWERS[name][0])
    kept = data.draw(st.lists(st.booleans(), min_size=len(told), max_size=len(told)) | st.none())
    told = told if kept is None else [event for event, is_kept in zip(told, kept, strict=True) if is_kept]
    for _ in range(data.draw(st.integers(1, 3)) if told else 0):
        path = data.draw(st.sampled_from(list(values_in(told))[1:]))
        odd = [[], {}, "message", "reasoning", "function_call", "error", 10**400, -1, 0, "\ud83c", {"type": []}]
        new = data.draw(jsons | st.sampled_from(odd))
        try:
            told = replaced(told, path, new)
        except (KeyError, TypeError, IndexError):
            continue
    deltas, error = decoded(sse(*told))
    survive(deltas)
    assert error is None or isinstance(error, SabirError)
    if told and isinstance(told[-1], dict) and isinstance(told[-1].get("response"), dict):
        try:
            survive(DIALECT.decode_answer(json.dumps(told[-1]["response"]).encode()))
        except SabirError:
            pass


@given(st.sampled_from(MESSAGES), st.data())
@settings(max_examples=100, deadline=None)
def test_a_request_with_anything_anywhere_is_read_or_refused(case, data):
    body = plain(input=case[1], tools=[WIRE_TOOL], text={"format": {"type": "json_schema", "schema": CLOSED}})
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(values_in(body))[1:]))
        try:
            body = replaced(body, path, data.draw(jsons | st.sampled_from([[], {}, "message", 10**400, {"type": []}])))
        except (KeyError, TypeError, IndexError):
            continue
    try:
        request = DIALECT.decode_request(json.dumps(body).encode())
    except BadRequestError:
        return
    assert same(json.loads(DIALECT.encode_request(request)[0].body), DIALECT.canonical_request(body))


@given(st.binary() | st.sampled_from(sorted(ANSWERS)).map(lambda name: sse(*answered(ANSWERS[name][0]))), st.data())
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
    call = '{"type":"function_call","call_id":"a","name":"f","arguments":{"a":' + deep + "}}"
    search = '{"type":"search","a":' + deep + "}"
    for item in (call, search, '{"type":"message","content":[{"type":"x","a":' + deep + "}]}"):
        body = '{"status":"completed","output":[' + item + "]}"
        for whole_body in (body, '{"error":' + deep + "}"):
            try:
                survive(DIALECT.decode_answer(whole_body.encode()))
            except SabirError:
                pass
        survive(decoded(f'data: {{"type":"response.completed","response":{body}}}\n\n'.encode())[0])
        survive(decoded(f'data: {{"type":"error","error":{deep}}}\n\n'.encode())[0])
        try:
            DIALECT.encode_request(DIALECT.decode_request(('{"model":"m","input":[' + item + "]}").encode()))
        except SabirError:
            pass


# The row, called over HTTP.

ROW = PROVIDERS["openai-responses"]
WEATHER = "get_weather"


def get_weather(city: str) -> str:
    """Look up the weather."""
    return f"sunny in {city}"


def client_of(server, **settings_):
    return sabir.Client(
        f"openai-responses:gpt-5.4@{server.url}/v1", api_key="key-of-the-test", max_attempts=1, **settings_
    )


def json_answer(body):
    return whole(json.dumps(body).encode(), "Content-Type: application/json")


def test_the_row_speaks_responses_and_the_key_goes_to_its_own_address():
    assert (ROW.url, ROW.key) == ("https://api.openai.com/v1", "OPENAI_API_KEY")
    assert ROW.dialect == OpenAIResponses(background=True)
    with sabir.Client("openai-responses:gpt-5.4", api_key="key-of-the-test") as client:
        shown_ = client.explain("hi", thinking="low")
    assert (shown_.method, shown_.url) == ("POST", "https://api.openai.com/v1/responses")
    assert shown_.body["reasoning"] == {"effort": "low", "summary": "auto"}


def test_a_call_is_answered(no_network):
    with Server(json_answer(answer(message_item(text("Hello"))))) as server, client_of(server) as client:
        response = client.ask("hi", system="Be brief.", temperature=0.5)
    (call,) = server.calls
    assert (call.method, call.target, call.header("authorization")) == (
        "POST",
        "/v1/responses",
        "Bearer key-of-the-test",
    )
    assert json.loads(call.body) == plain(
        model="gpt-5.4", input=[said("system", told("Be brief.")), said("user", told("hi"))], temperature=0.5
    )
    assert (response.text, response.finish_reason, response.usage.total_tokens) == ("Hello", "stop", 17)


def test_a_streamed_call_is_passed_on_and_sums_to_the_same(no_network):
    body = answer({**WIRE_THOUGHT, "summary": [summary("Let me see.")]}, message_item(text("Hello, you.")))
    with Server(json_answer(body)) as server, client_of(server) as client:
        asked_ = client.ask("hi")
        server.answer = chunked(sse(*answered(body)))
        with client.stream("hi") as stream:
            chunks = list(stream)
    assert "".join(chunk.content for chunk in chunks if chunk.is_text() and not chunk.is_thinking()) == "Hello, you."
    assert "".join(chunk.content for chunk in chunks if chunk.is_thinking()) == "Let me see."
    assert stream.response.message == asked_.message
    assert stream.response.usage == asked_.usage


@pytest.mark.parametrize("is_streamed", [False, True])
def test_thinking_goes_back_byte_for_byte_over_rounds_of_tools(no_network, is_streamed):
    thought = {**WIRE_THOUGHT, "encrypted_content": "Z0FBQUFB_-=", "summary": [summary("a"), summary("b")]}
    call = {**CALL_ITEM, "name": WEATHER, "arguments": '{"city": "Oslo"}'}
    rounds = [answer(thought, SEARCH, call), answer({**thought, "id": "rs_2"}, message_item(text("Sunny.")))]

    async def respond(received):
        body = rounds[len(server.calls) - 1]
        respond_ = chunked(sse(*answered(body))) if is_streamed else json_answer(body)
        await respond_(received)

    with Server(respond) as server, client_of(server) as client:
        chat = client.chat(tools=[get_weather])
        if is_streamed:
            with chat.stream("Weather in Oslo?") as stream:
                list(stream)
            response = stream.response
        else:
            response = chat("Weather in Oslo?")
    assert response.text == "Sunny."
    first, second = (json.loads(each.body) for each in server.calls)
    assert second["input"] == [
        *first["input"],
        thought,
        SEARCH,
        call,
        {"type": "function_call_output", "call_id": "c1", "output": "sunny in Oslo"},
    ]
    assert second["include"] == [ENCRYPTED]
    assert second["store"] is False


@pytest.mark.parametrize(
    ("respond", "error", "fields"),
    [
        (
            whole(
                failure("No.", "invalid_api_key"), "Content-Type: application/json", "x-request-id: r1", status="401 No"
            ),
            AuthenticationError,
            {"code": "invalid_api_key", "request_id": "r1", "provider": "openai-responses", "model": "gpt-5.4"},
        ),
        (
            json_answer(answer(status="failed", error={"code": "server_error", "message": "oh"})),
            ServerError,
            {"code": "server_error"},
        ),
        (chunked(sse(*answered(TALE)[:8])), StreamInterrupted, {}),
        (
            chunked(sse(*answered(TALE)[:6], {"type": "error", "error": {"code": "rate_limit_exceeded"}})),
            RateLimitError,
            {},
        ),
    ],
    ids=["status", "failed", "cut", "in the midst"],
)
def test_a_call_that_fails_raises_what_happened(no_network, respond, error, fields):
    with (
        Server(respond) as server,
        client_of(server) as client,
        pytest.raises(error) as caught,
        client.stream("hi") as stream,
    ):
        list(stream)
    assert {name: getattr(caught.value, name) for name in fields} == fields
    assert "key-of-the-test" not in repr(caught.value)


# Recordings: what real servers said, read here once more without the dialect.


def recorded():
    if not RECORDINGS.exists():
        return []
    return [json.loads(line) for line in RECORDINGS.read_bytes().splitlines()]


ALL = recorded()
EXCHANGES = [each for each in ALL if each["endpoint"] in ("responses", "responses/get")]
# What was recorded as an answer of this API and is one of another.
NO_ANSWERS = {"openai-responses-a12547866d"}
needs_recordings = pytest.mark.skipif(not ALL, reason=f"no recordings at {RECORDINGS}")
STATUSES = {"completed": "stop", "queued": "paused", "in_progress": "paused"}


def every(exchanges):
    return pytest.mark.parametrize("exchange", exchanges, ids=lambda exchange: exchange["id"])


@needs_recordings
def test_only_other_operations_are_left_out():
    left = {each["endpoint"] for each in ALL} - {each["endpoint"] for each in EXCHANGES}
    assert left == {"compact", "input_tokens", "responses/input_items"}
    assert {each["id"] for each in EXCHANGES if mapping_of(each["response"]["body"]).get("choices")} == NO_ANSWERS


def whole_of(exchange):
    """The whole answer that a recording holds, or that the ends of its items and its end tell together."""
    body = exchange["response"]["body"]
    if isinstance(body, dict):
        return body
    items, last = {}, None
    for event in events(body.encode()):
        if event["type"] == "response.output_item.done":
            items[event["output_index"]] = event["item"]
        if event["type"] in ("response.completed", "response.incomplete"):
            last = event["response"]
            break
    return {**last, "output": [items[index] for index in sorted(items)]}


@needs_recordings
@every([each for each in EXCHANGES if each["response"]["status"] == 200 and each["id"] not in NO_ANSWERS])
def test_a_recorded_answer_is_understood_and_handed_back(exchange):
    body = exchange["response"]["body"]
    if isinstance(body, str):
        data = body.encode()
        deltas, error = decoded(data)
        for size in (1, 17, 1000) if len(data) < 30_000 else (997,):
            again, other = decoded(data, range(size, len(data), size))
            assert (again, str(other)) == (deltas, str(error))
        if "mid_stream_error" in exchange["features"]:
            assert (type(error), error.code) == (RateLimitError, "insufficient_quota")
            return
        assert error is None
    else:
        deltas = DIALECT.decode_answer(json.dumps(body).encode())
    answered_ = whole_of(exchange)
    message, usage, finishes = total(deltas)

    items = answered_["output"]
    said_ = [part for item in items if item["type"] == "message" for part in item["content"]]
    assert message.text == "".join(part["text"] for part in said_ if part["type"] == "output_text")
    assert (message.refusal or "") == "".join(part["refusal"] for part in said_ if part["type"] == "refusal")
    thoughts_ = [
        part
        for item in items
        if item["type"] == "reasoning"
        for part in [*item["summary"], *(item.get("content") or [])]
    ]
    assert message.thinking == "".join(part["text"] for part in thoughts_)
    calls = [item for item in items if item["type"] in ("function_call", "custom_tool_call")]
    assert [(call.id, call.name, call.input) for call in message.tool_calls] == [
        (item["call_id"], item["name"], item.get("arguments", item.get("input"))) for item in calls
    ]
    counts = answered_.get("usage") or {}
    assert (usage.input_tokens, usage.output_tokens) == (counts.get("input_tokens"), counts.get("output_tokens"))
    details = counts.get("output_tokens_details") or {}
    assert usage.reasoning == details.get("reasoning_tokens")
    status = answered_.get("status")
    reason = "length" if status == "incomplete" else STATUSES[status]
    if reason == "stop":
        reason = "tool_calls" if calls else "refusal" if message.refusal is not None else "stop"
    assert finishes[0].reason == reason

    sent, notices = encoded([message])
    assert same(sent["input"], DIALECT.canonical_answer({"output": items})["output"])
    assert notices == []
    rest, error = decoded(streamed(deltas))
    assert error is None
    assert total(rest) == total(deltas)
    items_of(streamed(deltas))


SHORT = [
    body.encode() for each in EXCHANGES if isinstance(body := each["response"]["body"], str) and len(body) < 20_000
]


@needs_recordings
@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_recorded_stream_that_is_damaged_raises_only_errors_of_the_family(data):
    body = data.draw(st.sampled_from(SHORT))
    for _ in range(data.draw(st.integers(1, 5))):
        at, to = (data.draw(st.integers(0, len(body))) for _ in range(2))
        body = (
            body[:at]
            + data.draw(st.binary(max_size=3) | st.just(body[at:to]))
            + body[at + data.draw(st.integers(0, 40)) :]
        )
    deltas, error = decoded(body)
    survive(deltas)
    assert decoded(body, range(0, len(body), 97))[0] == deltas
    assert error is None or isinstance(error, SabirError)


@needs_recordings
@every([each for each in EXCHANGES if each["response"]["status"] != 200])
def test_a_recorded_error_is_the_exception_it_means(exchange):
    response = exchange["response"]
    error = DIALECT.decode_error(response["status"], response["headers"], json.dumps(response["body"]).encode())
    told_ = response["body"]["error"]
    expected = {400: BadRequestError, 401: AuthenticationError}[response["status"]]
    assert type(error) is (NotFoundError if told_["code"] == "model_not_found" else expected)
    assert error.code == told_["code"]
    assert told_["message"] in str(error)
    assert error.request_id == response["headers"].get("x-request-id")
    status, body = DIALECT.encode_error(error)
    assert type(DIALECT.decode_error(status, {}, body)) is type(error)


# It has a temperature of -1.
REFUSED = {"openai-responses-f54d827d8b"}


@needs_recordings
@every([each for each in EXCHANGES if mapping_of(each["request"]).get("body") and each["id"] not in REFUSED])
def test_a_recorded_request_is_the_same_when_it_is_sent_again(exchange):
    body = exchange["request"]["body"]
    again = round_trip(body)
    assert same(DIALECT.canonical_request(again), DIALECT.canonical_request(body))
    assert same(again, DIALECT.canonical_request(again))
