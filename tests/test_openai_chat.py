"""The client's half of chat completions: what is sent for a request, and what is understood of an answer."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabir.deltas import Assembler, Finish, Text
from sabir.dialects import Unsupported, response_of
from sabir.dialects.failures import provider_error
from sabir.dialects.openai_chat import NAME, OpenAIChat, usage_from
from sabir.errors import (
    AuthenticationError,
    ContextOverflowError,
    NotFoundError,
    OverloadedError,
    ProviderError,
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
from sabir.strict_json import is_object
from sabir.usage import Usage

FIXTURES = Path(__file__).parent / "fixtures" / "openai_chat"
OPENAI = PROVIDERS["openai"].dialect
CHAT_ROWS = {name: row for name, row in PROVIDERS.items() if isinstance(row.dialect, OpenAIChat)}

# Requests.


PLAIN = OpenAIChat()


def encoded(dialect=PLAIN, messages=None, **fields):
    http, notices = dialect.encode_request(Request(model="m", messages=tuple(messages or [user("hi")]), **fields))
    return json.loads(http.body), notices


def plain(**fields):
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}


def kinds(notices):
    return [(notice.kind, notice.subject) for notice in notices]


def test_a_request_is_posted_as_json_with_the_callers_headers_and_without_a_key():
    request = Request(model="m", messages=(user("hi"),), headers={"x-title": "t"})
    http, notices = OPENAI.encode_request(request)
    assert (http.method, http.url) == ("POST", "/chat/completions")
    assert http.headers == (("content-type", "application/json"), ("x-title", "t"))
    assert json.loads(http.body) == plain()
    assert notices == ()


OPTIONS = [
    ("openai", {"temperature": 0.0}, {"temperature": 0.0}),
    ("openai", {"top_p": 0.5}, {"top_p": 0.5}),
    ("openai", {"top_k": 5}, None),
    ("openai", {"min_p": 0.1}, None),
    ("openai", {"max_tokens": 7}, {"max_completion_tokens": 7}),
    ("openai", {"stop": ("a", "b")}, {"stop": ["a", "b"]}),
    ("openai", {"seed": 0}, {"seed": 0}),
    ("openai", {"frequency_penalty": -1.0}, {"frequency_penalty": -1.0}),
    ("openai", {"presence_penalty": 1.0}, {"presence_penalty": 1.0}),
    ("openai", {"repetition_penalty": 1.1}, None),
    ("openai", {"thinking": True}, {"reasoning_effort": "medium"}),
    ("openai", {"thinking": "minimal"}, {"reasoning_effort": "minimal"}),
    ("openai", {"thinking": "high"}, {"reasoning_effort": "high"}),
    ("openai", {"thinking": 2048}, {"reasoning_effort": "low"}),
    ("openai", {"thinking": 2049}, {"reasoning_effort": "medium"}),
    ("openai", {"thinking": 8193}, {"reasoning_effort": "high"}),
    ("openai", {"thinking": False}, None),
    ("openai", {"tool_choice": "auto"}, {"tool_choice": "auto"}),
    ("openai", {"tool_choice": "none"}, {"tool_choice": "none"}),
    ("openai", {"tool_choice": "required"}, {"tool_choice": "required"}),
    ("openai", {"tool_choice": "look"}, {"tool_choice": {"type": "function", "function": {"name": "look"}}}),
    ("openai", {"parallel_tool_calls": False}, {"parallel_tool_calls": False}),
    ("openai", {"logprobs": True}, {"logprobs": True}),
    ("openai", {"top_logprobs": 0}, {"top_logprobs": 0}),
    ("openai", {"n": 2}, {"n": 2}),
    ("openai", {"user": "ada"}, {"user": "ada"}),
    ("openai", {"documents": ("a",)}, None),
    ("openai", {"extra": {"store": True, "model": "other"}}, {"store": True, "model": "other"}),
    ("openai", {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
    ("deepseek", {"max_tokens": 7}, {"max_tokens": 7}),
    ("deepseek", {"thinking": True}, {"thinking": {"type": "enabled"}}),
    ("deepseek", {"thinking": False}, {"thinking": {"type": "disabled"}}),
    ("deepseek", {"thinking": 100}, {"thinking": {"type": "enabled"}, "reasoning_effort": "low"}),
    ("deepseek", {"seed": 1}, None),
    ("deepseek", {"parallel_tool_calls": True}, None),
    ("deepseek", {"n": 2}, None),
    ("openrouter", {"max_tokens": 7}, {"max_tokens": 7}),
    ("openrouter", {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1}, {"top_k": 5, "min_p": 0.1}),
    ("openrouter", {"thinking": True}, {"reasoning": {"enabled": True}}),
    ("openrouter", {"thinking": False}, {"reasoning": {"enabled": False}}),
    ("openrouter", {"thinking": "low"}, {"reasoning": {"effort": "low"}}),
    ("openrouter", {"thinking": 3000}, {"reasoning": {"max_tokens": 3000}}),
    ("groq", {"max_tokens": 7}, {"max_completion_tokens": 7}),
    ("groq", {"thinking": "low"}, {"reasoning_effort": "low"}),
    ("groq", {"thinking": False}, None),
    ("together", {"thinking": False}, {"reasoning": {"enabled": False}}),
    ("together", {"thinking": True}, {"reasoning_effort": "medium"}),
    ("dashscope", {"thinking": True}, {"enable_thinking": True}),
    ("dashscope", {"thinking": False}, {"enable_thinking": False}),
    ("dashscope", {"thinking": 3000}, {"enable_thinking": True, "thinking_budget": 3000}),
    ("dashscope", {"thinking": "low"}, {"enable_thinking": True}),
    ("zai", {"user": "ada-lovelace"}, {"user_id": "ada-lovelace"}),
    ("ollama-compat", {"max_tokens": 7}, {"max_tokens": 7}),
    ("llama-server", {"max_tokens": 7, "top_k": 5}, {"max_tokens": 7, "top_k": 5}),
    ("llama-server", {"repetition_penalty": 1.1}, {"repeat_penalty": 1.1}),
    ("llama-server", {"thinking": True}, {"chat_template_kwargs": {"enable_thinking": True}}),
    ("llama-server", {"thinking": "low"}, {"chat_template_kwargs": {"enable_thinking": True}}),
    ("llama-server", {}, {}),
    ("vllm", {"repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
    ("pico", {}, {"chat_template_kwargs": {"enable_thinking": False}}),
    ("pico", {"thinking": True}, {"chat_template_kwargs": {"enable_thinking": True}}),
    ("pico", {"thinking": False}, {"chat_template_kwargs": {"enable_thinking": False}}),
]


@pytest.mark.parametrize(("provider", "options", "sent"), OPTIONS)
def test_an_option_is_sent_in_the_servers_words_or_reported(provider, options, sent):
    body, notices = encoded(PROVIDERS[provider].dialect, **options)
    if sent is None:
        assert body == plain()
        assert kinds(notices) == [("unsupported", name) for name in options]
    else:
        assert {**plain(), **sent}.items() <= body.items()
        if provider in ("openai", "deepseek", "groq"):
            assert body == {**plain(), **sent}
        assert all(notice.kind == "emulated" for notice in notices)


def test_every_portable_option_is_in_the_table_above():
    tried = {name for provider, options, _ in OPTIONS if provider == "openai" for name in options}
    assert set(Options.__annotations__) - {"headers", "cache"} <= tried


@pytest.mark.parametrize(
    ("provider", "thinking", "notices"),
    [
        ("openai", True, []),
        ("openai", "low", []),
        ("openai", 100, [("emulated", "thinking")]),
        ("openai", False, [("unsupported", "thinking")]),
        ("deepseek", True, []),
        ("deepseek", "low", []),
        ("deepseek", "medium", [("emulated", "thinking")]),
        ("openrouter", "low", []),
        ("openrouter", 100, []),
        ("llama-server", False, []),
        ("llama-server", 100, [("emulated", "thinking")]),
    ],
)
def test_thinking_that_is_only_approximated_is_reported(provider, thinking, notices):
    assert kinds(encoded(PROVIDERS[provider].dialect, thinking=thinking)[1]) == notices


SAMPLES: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 5,
    "min_p": 0.5,
    "max_tokens": 5,
    "stop": ("a",),
    "seed": 5,
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "repetition_penalty": 1.5,
    "thinking": True,
    "tool_choice": "look",
    "parallel_tool_calls": True,
    "logprobs": True,
    "top_logprobs": 5,
    "n": 5,
    "user": "ada",
    "documents": ("a",),
}


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_every_option_has_a_verdict_at_every_provider(provider):
    verdicts = PROVIDERS[provider].dialect.verdicts()
    assert set(verdicts) == set(Options.__annotations__) | {"schema"}
    assert all(isinstance(verdict, str) and verdict for verdict in verdicts.values())


@pytest.mark.parametrize("provider", sorted(CHAT_ROWS))
def test_the_verdicts_are_what_happens(provider):
    dialect = CHAT_ROWS[provider].dialect
    nothing, _ = encoded(dialect)
    for name, verdict in dialect.verdicts().items():
        if name in ("schema", "cache", "extra", "headers"):
            continue
        body, notices = encoded(dialect, **{name: SAMPLES[name]})
        if isinstance(verdict, Unsupported):
            assert body == nothing
            assert kinds(notices) == [("unsupported", name)]
            assert str(verdict) in notices[0].message
        else:
            assert body != nothing
            assert name not in [notice.subject for notice in notices]
            if name != "thinking":
                assert verdict in body


def test_a_server_without_a_way_to_think_is_not_asked_to():
    dialect = OpenAIChat(thinking=None)
    assert isinstance(dialect.verdicts()["thinking"], Unsupported)
    body, notices = encoded(dialect, thinking=True)
    assert body == plain()
    assert kinds(notices) == [("unsupported", "thinking")]


@pytest.mark.parametrize(
    ("reads", "choice", "sent", "told"),
    [
        ("all", "none", "none", []),
        ("all", "look", {"type": "function", "function": {"name": "look"}}, []),
        ("name", "look", {"type": "function", "function": {"name": "look"}}, []),
        ("name", "auto", None, []),
        ("name", "required", None, [("unsupported", "tool_choice")]),
        (None, "auto", None, []),
        (None, "look", None, [("unsupported", "tool_choice")]),
    ],
)
def test_a_choice_of_tools_is_sent_where_it_is_read(reads, choice, sent, told):
    body, notices = encoded(OpenAIChat(tool_choice=reads), tools=(TOOL,), tool_choice=choice)
    assert (body.get("tool_choice"), len(body["tools"]), kinds(notices)) == (sent, 1, told)


@pytest.mark.parametrize("reads", ["name", None])
def test_where_no_choice_of_tools_is_read_none_of_them_is_none_sent(reads):
    body, notices = encoded(OpenAIChat(tool_choice=reads), tools=(TOOL,), tool_choice="none")
    assert body == plain()
    assert kinds(notices) == [("emulated", "tool_choice")]


def test_a_schema_is_not_sent_where_it_is_passed_over():
    dialect = OpenAIChat(schema=None)
    assert isinstance(dialect.verdicts()["schema"], Unsupported)
    body, notices = encoded(dialect, schema=OutputSchema("a", {"type": "object"}))
    assert body == plain()
    assert kinds(notices) == [("unsupported", "schema")]


def test_a_schema_goes_beside_some_json_where_that_is_the_servers_way():
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    body, _ = encoded(OpenAIChat(schema="json_object.schema"), schema=OutputSchema("a", schema))
    assert body["response_format"]["type"] == "json_object"
    assert body["response_format"]["schema"]["properties"] == schema["properties"]


@pytest.mark.parametrize(("dialect", "content"), [(OpenAIChat(), None), (OpenAIChat(says_null=False), "")])
def test_a_message_without_text_has_the_content_that_its_server_takes(dialect, content):
    body, _ = encoded(dialect, messages=[user("hi"), Message("assistant", (CALL,))])
    assert body["messages"][1]["content"] == content


TOOL = ToolSpec("look", "Look around.", {"type": "object", "properties": {"at": {"type": "string"}}})


def test_tools_are_described():
    body, notices = encoded(tools=(TOOL, ToolSpec("wait")))
    assert body["tools"] == [
        {
            "type": "function",
            "function": {"name": "look", "description": "Look around.", "parameters": TOOL.parameters},
        },
        {"type": "function", "function": {"name": "wait", "parameters": {}}},
    ]
    assert notices == ()


def obj(required=None, **properties):
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(properties) if required is None else required,
    }


NUMBER = {"type": "number"}
CLOSED = {"additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "sent", "is_strict", "noticed"),
    [
        (obj(x=NUMBER), obj(x=NUMBER) | CLOSED, True, []),
        (
            obj([], x={"type": "string"}),
            obj(x={"type": ["string", "null"]}) | CLOSED,
            True,
            [("emulated", "schema")],
        ),
        (obj(x={}), obj(x={}), False, [("emulated", "schema")]),
    ],
)
def test_a_schema_is_strict_where_it_can_be_and_else_a_guide(schema, sent, is_strict, noticed):
    body, notices = encoded(schema=OutputSchema("answer", schema))
    expected = {"name": "answer", "schema": sent, "strict": is_strict}
    assert body == plain(response_format={"type": "json_schema", "json_schema": expected})
    assert kinds(notices) == noticed


def test_a_schema_that_another_way_keeps_is_not_sent():
    asked = OutputSchema("answer", obj(x=NUMBER), "prompt")
    assert encoded(schema=asked) == (plain(), ())


def test_a_server_that_knows_no_schemas_is_asked_for_some_json():
    body, notices = encoded(PROVIDERS["deepseek"].dialect, schema=OutputSchema("answer", obj(x=NUMBER)))
    assert body == plain(response_format={"type": "json_object"})
    assert kinds(notices) == [("emulated", "schema")]


OWN = ProviderState(NAME, {"field": "reasoning"})
FOREIGN = ProviderState("anthropic", {"signature": "x"})
CALL = ToolCall(name="look", input='{"at": "it"}', id="c1")
WIRE_CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "it"}'}}


def result(*content, **fields):
    return Message("tool", (ToolResult(call_id="c1", name="look", content=content, **fields),))


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (system("a"), [{"role": "system", "content": "a"}]),
        (user("a"), [{"role": "user", "content": "a"}]),
        (user(""), [{"role": "user", "content": ""}]),
        (Message("user", (TextPart(text="a"),), name="ada"), [{"role": "user", "content": "a", "name": "ada"}]),
        (
            user("a", "b"),
            [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
        ),
        (user(Value(value={"a": None})), [{"role": "user", "content": '{"a":null}'}]),
        (
            user("a", Image(data=b"\x00\x01")),
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "a"},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAE="}},
                    ],
                }
            ],
        ),
        (
            user(Image(data=b"\x00", media_type="image/webp", detail="low"), "a"),
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "data:image/webp;base64,AA==", "detail": "low"}},
                        {"type": "text", "text": "a"},
                    ],
                }
            ],
        ),
        (
            user(Image(url="https://example.org/a b.png")),
            [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "https://example.org/a b.png"}}],
                }
            ],
        ),
        *(
            (
                user(Audio(data=b"\x00", media_type=kind)),
                [
                    {
                        "role": "user",
                        "content": [{"type": "input_audio", "input_audio": {"data": "AA==", "format": wire}}],
                    }
                ],
            )
            for kind, wire in ((None, "wav"), ("audio/wav", "wav"), ("audio/mpeg", "mp3"))
        ),
        (
            user(File(data=b"\x00", name="a.txt", media_type="text/plain")),
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "file", "file": {"filename": "a.txt", "file_data": "data:text/plain;base64,AA=="}}
                    ],
                }
            ],
        ),
        (
            user(File(data=b"\x00")),
            [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "file",
                            "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,AA=="},
                        }
                    ],
                }
            ],
        ),
        (
            user(File(id="file-1")),
            [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}],
        ),
        (assistant("a", "b"), [{"role": "assistant", "content": "ab"}]),
        (assistant("a", CALL), [{"role": "assistant", "content": "a", "tool_calls": [WIRE_CALL]}]),
        (assistant(CALL), [{"role": "assistant", "content": None, "tool_calls": [WIRE_CALL]}]),
        (
            assistant(CALL, ToolCall(name="wait", input="", id="sabir-2", synthetic=True)),
            [
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        WIRE_CALL,
                        {"id": "sabir-2", "type": "function", "function": {"name": "wait", "arguments": "{}"}},
                    ],
                }
            ],
        ),
        (assistant(Refusal(text="no")), [{"role": "assistant", "content": None, "refusal": "no"}]),
        (
            assistant(Thinking(text="hm", state=OWN), "a"),
            [{"role": "assistant", "content": "a", "reasoning": "hm"}],
        ),
        (
            assistant(Thinking(text="hm", state=ProviderState(NAME, {"field": "reasoning_content"})), CALL),
            [{"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [WIRE_CALL]}],
        ),
        (
            assistant(Thinking(text="hm", notes=({"type": "t", "signature": "s"},), state=OWN), "a"),
            [
                {
                    "role": "assistant",
                    "content": "a",
                    "reasoning": "hm",
                    "reasoning_details": [{"type": "t", "signature": "s"}],
                }
            ],
        ),
        (
            assistant(
                Thinking(text="hm", notes=({"text": "hm"},), state=ProviderState(NAME, {"field": "reasoning_details"}))
            ),
            [{"role": "assistant", "content": "", "reasoning_details": [{"text": "hm"}]}],
        ),
        (
            assistant(Audio(data=b"\x00", id="audio_1", transcript="la")),
            [{"role": "assistant", "content": None, "audio": {"id": "audio_1"}}],
        ),
        (result(TextPart(text="seen")), [{"role": "tool", "tool_call_id": "c1", "content": "seen"}]),
        (result(), [{"role": "tool", "tool_call_id": "c1", "content": ""}]),
        (result(Value(value=[1, None])), [{"role": "tool", "tool_call_id": "c1", "content": "[1,null]"}]),
        (
            Message(
                "tool",
                (
                    ToolResult(call_id="c1", name="look", content=(TextPart(text="a"),)),
                    ToolResult(call_id="c2", name="wait", content=(TextPart(text="b"),), is_error=True),
                ),
            ),
            [
                {"role": "tool", "tool_call_id": "c1", "content": "a"},
                {"role": "tool", "tool_call_id": "c2", "content": "b"},
            ],
        ),
    ],
)
def test_a_message_of_the_history_is_sent_part_by_part(message, wire):
    body, notices = encoded(messages=[message])
    assert body["messages"] == wire
    assert notices == ()


@pytest.mark.parametrize(
    "part",
    [
        Thinking(text="hm"),
        Thinking(text="hm", state=FOREIGN),
        Image(data=b"a"),
        Audio(data=b"a"),
        File(data=b"a"),
        ServerItem(kind="search"),
        Value(value=1),
    ],
)
def test_a_part_of_an_answer_that_has_no_place_is_left_out_and_reported(part):
    body, notices = encoded(messages=[assistant("a", part, CALL)])
    assert body["messages"] == [{"role": "assistant", "content": "a", "tool_calls": [WIRE_CALL]}]
    assert kinds(notices) == [("dropped", type(part).__name__)]


def test_a_server_that_does_not_want_its_thinking_back_is_not_sent_it():
    history = [assistant(Thinking(text="hm", state=OWN), "a")]
    body, notices = encoded(PROVIDERS["groq"].dialect, messages=history)
    assert body["messages"] == [{"role": "assistant", "content": "a"}]
    assert kinds(notices) == [("dropped", "Thinking")]


@pytest.mark.parametrize(
    "message",
    [
        user(Audio(data=b"a", media_type="audio/webm")),
        user(Audio(url="https://example.org/a.wav")),
        user(Thinking(text="a")),
        user(CALL),
        system(ServerItem(kind="search")),
    ],
)
def test_what_a_prompt_cannot_say_is_an_error_before_anything_is_sent(message):
    with pytest.raises(UnsupportedError):
        encoded(messages=[message])


# Answers.


class Sum(NamedTuple):
    choices: tuple[Message, ...]
    usage: Usage
    finishes: dict[int, Finish]


def summed(deltas):
    assembler = Assembler(NAME)
    for delta in deltas:
        assembler.add(delta)
    return Sum(assembler.choices, assembler.usage, assembler.finishes)


def streamed(data, *cuts):
    """The deltas of a stream cut at these places, and the error that ended it."""
    decoder = OpenAIChat().decoder()
    deltas = []
    places = [0, *sorted({cut for cut in cuts if cut < len(data)}), len(data)]
    try:
        for start, end in itertools.pairwise(places):
            deltas += decoder.feed(data[start:end])
            if decoder.is_over:
                break
        deltas += decoder.close()
    except SabirError as error:
        return deltas, error
    return deltas, None


def sum_of_stream(data):
    deltas, error = streamed(data)
    assert error is None, error
    return summed(deltas)


def bare(message):
    """What was said, without what only the wire knows."""
    return tuple(msgspec.structs.replace(part, state=None) for part in message.parts)


def fixture(name):
    return (FIXTURES / name).read_bytes()


def note(text, **more):
    return {"type": "reasoning.text", "text": text, "index": 0, **more}


def logprob(token):
    return {"logprob": {"token": token, "logprob": -0.5, "bytes": None, "top_logprobs": []}}


USAGE = Usage(input=9, output=3, reported_total=12)
KÖLN, BONN = '{"city":"Köln"}', '{"city":"Bonn"}'
WEATHER = ToolCall(name="weather", input=KÖLN, id="call_a")
THOUGHT, SAID = Thinking(text="Two plus two."), TextPart(text="Four.")

# By fixture: the parts of each answer, why each ended, the usage.
STREAMS = {
    "text": ([(TextPart(text="Hello 😀"),)], ["stop"], USAGE),
    "tool_call": ([(TextPart(text="Let me see."), WEATHER)], ["tool_calls"], USAGE),
    "parallel_calls": (
        [(WEATHER, ToolCall(name="weather", input=BONN, id="call_b"), ToolCall(name="now", input="{}", id="call_c"))],
        ["tool_calls"],
        USAGE,
    ),
    "whole_calls": ([(WEATHER, ToolCall(name="add", input='{"x":1,"y":[2,null]}', id="call_b"))], ["stop"], Usage()),
    "calls_all_numbered_0": (
        [(WEATHER, ToolCall(name="weather", input=BONN, id="call_b"))],
        ["tool_calls"],
        Usage(),
    ),
    "function_call": ([(ToolCall(name="weather", input=KÖLN),)], ["tool_calls"], Usage()),
    "reasoning_content": ([(THOUGHT, SAID)], ["stop"], USAGE),
    "reasoning": (
        [
            (
                Thinking(
                    text="Two plus two.",
                    notes=(
                        note("Two "),
                        note("plus two."),
                        {"type": "reasoning.text", "signature": "c2ln", "index": 0},
                    ),
                ),
                SAID,
            )
        ],
        ["stop"],
        USAGE,
    ),
    "reasoning_details_first": (
        [(Thinking(text="Two plus two.", notes=(note("Two "), note("plus two."))), SAID)],
        ["stop"],
        Usage(),
    ),
    "reasoning_details_only": (
        [(Thinking(text="Two plus two.", notes=(note("Two "), note("plus two."))), SAID)],
        ["stop"],
        Usage(),
    ),
    "reasoning_twice": ([(THOUGHT, SAID)], ["stop"], Usage()),
    "refusal": ([(Refusal(text="I can't help."),)], ["refusal"], USAGE),
    "two_choices": ([(TextPart(text="tails"),), (TextPart(text="heads"),)], ["stop", "length"], USAGE),
    "logprobs": ([(TextPart(text="Hi!", notes=(logprob("Hi"), logprob("!"))),)], ["stop"], Usage()),
    "audio": ([(Audio(data=bytes(range(6)), id="audio_1", transcript="Hello"),)], ["stop"], Usage()),
    "delta_after_finish": ([(TextPart(text="Hello"),)], ["stop"], USAGE),
    "no_done": ([(TextPart(text="Hello"),)], ["length"], Usage()),
    "done_without_reason": ([(TextPart(text="Hello"),)], [], Usage()),
    "surrogates": ([(TextPart(text="a😀b😀😀c\ud83d"),)], ["stop"], Usage()),
    "azure": ([(TextPart(text="Hi"),)], ["content_filter"], USAGE),
    "unknown": ([(TextPart(text="Hi"),)], ["unknown"], Usage()),
}
# By fixture: the error that ends the stream, words of it, and the text that came before.
BROKEN = {
    "empty": (StreamInterrupted, "ended before", ""),
    "cut": (StreamInterrupted, "ended before", "Hello"),
    "cut_in_event": (StreamInterrupted, "ended before", "Hello"),
    "cut_in_second_choice": (StreamInterrupted, "ended before", "a"),
    "cut_in_call": (StreamInterrupted, "ended before", '{"ci'),
    "error_first": (NotFoundError, "`x` does not exist", ""),
    "error_in_stream": (RateLimitError, "Provider is busy", "Hello"),
    "error_event": (OverloadedError, "Overloaded", "Hello"),
    "error_object": (ContextOverflowError, "maximum context length", "Hello"),
    "junk": (StreamProtocolError, "no JSON", "Hello"),
    "no_object": (StreamProtocolError, "no JSON object", "Hello"),
}


def test_every_fixture_is_expected_to_say_something():
    assert {path.stem for path in FIXTURES.glob("*.sse")} == STREAMS.keys() | BROKEN.keys()
    assert {path.stem for path in FIXTURES.glob("*.json")} <= STREAMS.keys()


@pytest.mark.parametrize("name", sorted(STREAMS))
def test_a_stream_sums_to_what_was_said(name):
    parts, reasons, usage = STREAMS[name]
    answer = sum_of_stream(fixture(f"{name}.sse"))
    assert [bare(choice) for choice in answer.choices] == parts
    assert [answer.finishes[number].reason for number in sorted(answer.finishes)] == reasons
    assert answer.usage == usage
    assert {choice.role for choice in answer.choices} == {"assistant"}
    assert (answer.choices[0].id, answer.choices[0].model) == ("chatcmpl-1", "m-1")


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_stream_gives_what_came_and_then_its_error(name):
    kind, words, text = BROKEN[name]
    deltas, error = streamed(fixture(f"{name}.sse"))
    assert type(error) is kind
    assert words in str(error)
    assert "".join(delta.text for delta in deltas if isinstance(delta, Text)) == text
    assert not any(isinstance(delta, Finish) for delta in deltas)


ENDED_IN_A_FAILURE: list[tuple[dict[str, Any], type[SabirError], str]] = [
    ({"finish_reason": "error", "error": {"code": 502, "message": "gone"}}, ServerError, "gone"),
    ({"finish_reason": None, "error": {"code": 429, "message": "too many"}}, RateLimitError, "too many"),
    *(
        ({"finish_reason": reason}, ServerError, f"ended it with '{reason}'")
        for reason in ("error", "insufficient_system_resource", "network_error", "abort", "aborted")
    ),
]


@pytest.mark.parametrize(("end", "kind", "words"), ENDED_IN_A_FAILURE)
def test_an_answer_that_says_it_was_broken_off_is_an_error_with_what_came(end, kind, words):
    called = {"content": "Hel", "tool_calls": [WIRE_CALL]}
    body = {"id": "r", "choices": [{"index": 0, "message": {"role": "assistant", **called}, **end}]}
    with pytest.raises(kind, match=words) as caught:
        OPENAI.decode_answer(json.dumps(body).encode())
    assert caught.value.retryable
    assert caught.value.partial.text == "Hel"
    chunks = [
        {"choices": [{"index": 0, "delta": {"content": "Hel"}}]},
        {"choices": [{"index": 0, "delta": {}, **end}]},
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}},
    ]
    data = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
    for rest in (b"", b"data: [DONE]\n\n"):
        deltas, error = streamed(data + rest)
        assert (type(error), error.retryable) == (kind, True)
        assert words in str(error)
        assert summed(deltas).choices[0].text == "Hel"
        assert summed(deltas).usage.input_tokens == 3
        assert not any(isinstance(delta, Finish) for delta in deltas)


@pytest.mark.parametrize(
    ("reason", "meaning"),
    [("model_length", "length"), ("model_context_window_exceeded", "length"), ("sensitive", "content_filter")],
)
def test_a_servers_own_word_for_an_end_means_the_same(reason, meaning):
    body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": reason}]}
    deltas = OPENAI.decode_answer(json.dumps(body).encode())
    assert summed(deltas).finishes[0].reason == meaning
    assert json.loads(OPENAI.encode_response(response_of(NAME, deltas)))["choices"] == body["choices"]


@pytest.mark.parametrize("before", [b"", b'data: {"choices": [], "usage": {"prompt_tokens": 3}}\n\n'])
def test_a_stream_of_nothing_but_its_end_is_no_answer(before):
    deltas, error = streamed(before + b"data: [DONE]\n\n")
    assert type(error) is StreamInterrupted
    assert error.retryable
    assert not any(isinstance(delta, Finish) for delta in deltas)


@pytest.mark.parametrize("name", sorted(STREAMS | BROKEN))
def test_a_stream_cut_anywhere_gives_the_same_deltas_and_the_same_error(name):
    data = fixture(f"{name}.sse")
    deltas, error = streamed(data)
    for cuts in (range(len(data)), range(0, len(data), 7), range(3, len(data), 64)):
        again, other = streamed(data, *cuts)
        assert again == deltas
        assert (type(other), str(other)) == (type(error), str(error))


@pytest.mark.parametrize("name", sorted(STREAMS))
def test_line_ends_and_comments_say_nothing(name):
    data = fixture(f"{name}.sse")
    whole = streamed(data)
    assert streamed(b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n")) == whole
    assert streamed(data.replace(b"\n", b"\r")) == whole
    assert streamed(data.replace(b"data: ", b": ping\nid: 1\ndata:")) == whole


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.json")), ids=lambda path: path.stem)
def test_a_whole_answer_is_the_sum_of_its_stream(path):
    whole = summed(OPENAI.decode_answer(path.read_bytes()))
    stream = sum_of_stream(fixture(f"{path.stem}.sse"))
    unnoted = [
        [
            msgspec.structs.replace(part, notes=()) if isinstance(part, (TextPart, Thinking)) else part
            for part in bare(choice)
        ]
        for choice in stream.choices
    ]
    # A detail of the thinking comes whole in the one and in pieces in the other.
    assert [
        [
            msgspec.structs.replace(part, notes=()) if isinstance(part, (TextPart, Thinking)) else part
            for part in bare(choice)
        ]
        for choice in whole.choices
    ] == unnoted
    assert whole.usage == stream.usage
    assert {number: (finish.reason, finish.raw) for number, finish in whole.finishes.items()} == {
        number: (finish.reason, finish.raw) for number, finish in stream.finishes.items()
    }
    for one, other in zip(whole.choices, stream.choices, strict=True):
        assert (one.id, one.model) == (other.id, other.model)


def test_the_decoder_says_when_nothing_more_is_to_come():
    decoder = OPENAI.decoder()
    said, _, _ = fixture("text.sse").partition(b"data: [DONE]")
    for data, is_over in ((said, False), (b"data: [DONE]\n", False), (b"\n", True)):
        decoder.feed(data)
        assert decoder.is_over is is_over
    assert decoder.feed(fixture("junk.sse")) == []
    decoder.close()


def test_nothing_is_read_after_an_error():
    decoder = OPENAI.decoder()
    before, _, after = fixture("junk.sse").partition(b'data: {"choices": [\n\n')
    assert decoder.feed(before + b"data: {\n\n") == streamed(fixture("junk.sse"))[0]
    assert decoder.is_over
    assert decoder.feed(after) == []
    for _ in range(2):
        with pytest.raises(StreamProtocolError):
            decoder.close()


def test_thinking_goes_back_under_the_name_it_came_with():
    for name, field in (
        ("reasoning", "reasoning"),
        ("reasoning_content", "reasoning_content"),
        ("reasoning_details_first", "reasoning_content"),
    ):
        message = sum_of_stream(fixture(f"{name}.sse")).choices[0]
        (wire,) = encoded(messages=[message])[0]["messages"]
        assert wire[field] == "Two plus two."
        assert ({"reasoning", "reasoning_content"} - {field}).isdisjoint(wire)
        notes = message.parts[0].notes
        assert "".join(detail.get("text", "") for detail in wire.get("reasoning_details", [])) == "".join(
            note.get("text", "") for note in notes
        )
        assert len(wire.get("reasoning_details", [])) == bool(notes)
    message = sum_of_stream(fixture("reasoning_details_only.sse")).choices[0]
    (wire,) = encoded(messages=[message])[0]["messages"]
    assert {"reasoning", "reasoning_content"}.isdisjoint(wire)
    # The fragments of a stream are one detail again.
    (detail,) = wire["reasoning_details"]
    assert detail["text"] == "Two plus two."


def answer(*messages, **more):
    choices = [
        {"index": number, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
        for number, message in enumerate(messages)
    ]
    return {"id": "r", "object": "chat.completion", "model": "m", "choices": choices, **more}


def parts_of(body):
    return bare(summed(OPENAI.decode_answer(json.dumps(body).encode())).choices[0])


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ({"content": None}, ()),
        ({"content": ""}, ()),
        ({"content": "a", "tool_calls": [], "function_call": None, "audio": None}, (TextPart(text="a"),)),
        (
            {"content": "a", "reasoning_content": "t", "tool_calls": [WIRE_CALL]},
            (Thinking(text="t"), TextPart(text="a"), CALL),
        ),
        ({"tool_calls": [WIRE_CALL], "content": "a", "reasoning": "t"}, (Thinking(text="t"), TextPart(text="a"), CALL)),
        (
            {"content": [{"type": "text", "text": "a"}, {"type": "thing", "x": 1}, {"type": "text", "text": "b"}]},
            (TextPart(text="ab", notes=({"type": "thing", "x": 1},)),),
        ),
        ({"content": {"a": [1, None]}}, (TextPart(text='{"a":[1,null]}'),)),
        ({"annotations": [{"url": "u"}], "content": "a"}, (TextPart(text="a", notes=({"url": "u"},)),)),
        ({"tool_calls": [{"function": {"name": "f"}}]}, (ToolCall(name="f", input=""),)),
        ({"tool_calls": [WIRE_CALL], "function_call": WIRE_CALL["function"]}, (CALL,)),
        ({"function_call": WIRE_CALL["function"], "tool_calls": [WIRE_CALL]}, (CALL,)),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": ""}, "index": None}] * 2},
            (ToolCall(name="f", input=""), ToolCall(name="f", input="")),
        ),
        (
            {"tool_calls": [WIRE_CALL, {**WIRE_CALL, "function": {"name": "wait", "arguments": "{}"}}]},
            (CALL, ToolCall(name="wait", input="{}", id="c1")),
        ),
        (
            {"tool_calls": [{"id": "c1", "type": "custom", "custom": {"name": "sh", "input": "ls {"}}]},
            (ToolCall(name="sh", input="ls {", id="c1"),),
        ),
    ],
)
def test_a_whole_message_is_read_part_by_part(message, parts):
    assert parts_of(answer(message)) == parts


def test_answers_without_a_number_are_told_apart_by_their_place():
    body = answer({"content": "a"}, {"content": "b"})
    for choice in body["choices"]:
        del choice["index"]
    assert [choice.text for choice in summed(OPENAI.decode_answer(json.dumps(body).encode())).choices] == ["a", "b"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", ServerError),
        (b"<html>", ServerError),
        (b"\xff", ServerError),
        (b"[" * 100_000, ServerError),
        (b"null", StreamProtocolError),
        (b"[]", StreamProtocolError),
        (b"{}", StreamProtocolError),
        (b'{"choices": null}', StreamProtocolError),
        (b'{"choices": []}', StreamProtocolError),
        (b'{"choices": "many"}', StreamProtocolError),
        (b'{"choices": [null]}', StreamProtocolError),
        (b'{"error": {"message": "slow down", "code": 429}, "choices": []}', RateLimitError),
        (b'{"object": "error", "message": "no", "code": 401}', AuthenticationError),
    ],
)
def test_a_body_that_is_no_answer_is_an_error(body, kind):
    with pytest.raises(kind):
        OPENAI.decode_answer(body)


def test_the_body_that_is_no_answer_is_on_the_error():
    for body in (b"<html>oops</html>", b'{"oops": 1}'):
        with pytest.raises(SabirError) as caught:
            OPENAI.decode_answer(body)
        assert "oops" in (caught.value.body or "")


# Calls of tools, in fragments.


class Spoken(NamedTuple):
    id: str | None
    name: str
    pieces: tuple[Any, ...]

    @property
    def expected(self):
        text = "".join(
            piece if isinstance(piece, str) else json.dumps(piece, separators=(",", ":")) for piece in self.pieces
        )
        return (self.name, text, self.id)


def fragments(number, call, *, ids="first", index="own", names="first", opening=""):
    """The wire's fragments of one call; the keywords are how servers differ."""
    pieces = call.pieces if opening is None else (opening, *call.pieces)
    pieces = pieces or ("",)
    made = []
    for at, piece in enumerate(pieces):
        fragment: dict[str, Any] = {"function": {"arguments": piece}}
        if index != "missing":
            fragment["index"] = number if index == "own" else 0
        if call.id and (ids == "every" or (ids == "first" and at == 0) or (ids == "late" and at == len(pieces) - 1)):
            fragment["id"] = call.id
        if names == "every" or at == 0:
            fragment["function"]["name"] = call.name
        made.append(fragment)
    return made


def spoken(*fragments):
    """The calls these fragments sum to, one fragment a chunk; None where they are refused."""
    chunks = [{"choices": [{"index": 0, "delta": {"tool_calls": [fragment]}}]} for fragment in fragments]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    deltas, error = streamed(b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks))
    try:
        if error is not None:
            raise error
        return sorted((call.name, call.input, call.id) for call in summed(deltas).choices[0].tool_calls)
    except StreamProtocolError:
        return None


def interleavings(queues):
    """Every order of all items in which each queue keeps its own."""
    if not any(queues):
        yield []
    for number, queue in enumerate(queues):
        if queue:
            rest = [other[1:] if at == number else other for at, other in enumerate(queues)]
            for tail in interleavings(rest):
                yield [queue[0], *tail]


def pairs(**changes):
    """Two calls of two tools, and two of the same."""
    for name in ("wait", "look"):
        first, second = Spoken("a", "look", ('{"x"', ": 1}")), Spoken("b", name, ('{"y": {', '"z": 2}}'))
        yield [call._replace(**changes) for call in (first, second)]


def in_every_order(calls, **server):
    queues = [fragments(number, call, **server) for number, call in enumerate(calls)]
    return {tuple(map(tuple, heard)) if heard is not None else None for heard in heard_in(queues)}


def heard_in(queues):
    return [spoken(*order) for order in interleavings(queues)]


def exactly(calls):
    return tuple(sorted(call.expected for call in calls))


DISTINCT = [
    {},
    {"opening": None},
    {"ids": "late"},
    {"ids": "every"},
    {"names": "every"},
    {"ids": "every", "names": "every"},
    {"ids": "every", "index": "missing"},
    {"ids": "every", "index": "same"},
    {"ids": "every", "index": "missing", "names": "every"},
    {"ids": "late", "names": "every"},
]


@pytest.mark.parametrize("server", DISTINCT, ids=str)
def test_calls_whose_fragments_say_whose_they_are_come_apart_in_any_order(server):
    for calls in pairs():
        assert in_every_order(calls, **server) == {exactly(calls)}
    for calls in pairs(pieces=()):
        assert in_every_order(calls, **server) == {exactly(calls)}
    for calls in pairs(pieces=({"x": [1, {"y": None}]},)):
        assert in_every_order(calls, **{**server, "opening": None}) == {exactly(calls)}


def test_calls_without_ids_come_apart_by_their_index_in_any_order():
    for names in ("first", "every"):
        for calls in pairs(id=None):
            assert in_every_order(calls, names=names) == {exactly(calls)}


@pytest.mark.parametrize("index", ["missing", "same"])
@pytest.mark.parametrize("names", ["first", "every"])
def test_calls_that_only_begin_with_their_id_are_never_mixed_up(index, names):
    for opening in ("", None):
        for calls in pairs():
            assert in_every_order(calls, index=index, names=names, opening=opening) <= {exactly(calls), None}
            one_by_one = [
                fragment for call in calls for fragment in fragments(0, call, index=index, names=names, opening=opening)
            ]
            assert spoken(*one_by_one) == list(exactly(calls))


@pytest.mark.parametrize("index", ["missing", "same"])
def test_calls_without_id_and_index_come_one_by_one_or_are_refused(index):
    for opening in ("", None):
        for calls in pairs(id=None):
            queues = [fragments(0, call, index=index, opening=opening) for call in calls]
            one_by_one = spoken(*queues[0], *queues[1])
            assert one_by_one == list(exactly(calls)) or (one_by_one is None and calls[0].name == calls[1].name)
            if calls[0].name != calls[1].name:
                assert set(map(str, heard_in(queues))) <= {str(list(exactly(calls))), "None"}


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_three_calls_are_what_was_said_or_refused_and_never_two_in_one(data):
    calls = [
        Spoken(
            f"id{number}",
            data.draw(st.sampled_from(["look", "wait"])),
            data.draw(st.sampled_from([(), ('{"x": 1}',), ('{"x"', ': "{}"', "}"), ({"x": {}},)])),
        )
        for number in range(data.draw(st.integers(2, 3)))
    ]
    server = {
        "ids": data.draw(st.sampled_from(["first", "every"])),
        "index": data.draw(st.sampled_from(["own", "missing", "same"])),
        "names": data.draw(st.sampled_from(["first", "every"])),
        "opening": data.draw(st.sampled_from(["", None])),
    }
    # Arguments that come as an object come at once.
    at_once = {**server, "opening": None}
    queues = [
        fragments(number, call, **(at_once if call.pieces and is_object(call.pieces[0]) else server))
        for number, call in enumerate(calls)
    ]
    order = []
    while any(queues):
        order.append(data.draw(st.sampled_from([queue for queue in queues if queue])).pop(0))
    heard = spoken(*order)
    assert heard in (None, list(exactly(calls)))
    if server["index"] == "own" or server["ids"] == "every":
        assert heard is not None


def test_one_id_for_two_calls_leaves_them_two():
    first, second = (fragments(n, Spoken("same", name, ("{}",))) for n, name in ((0, "look"), (1, "wait")))
    both = [("look", "{}", "same"), ("wait", "{}", "same")]
    for order in interleavings([first, second]):
        assert spoken(*order) == both


def test_a_second_object_after_complete_arguments_is_refused():
    opening = {"index": 0, "id": "a", "function": {"name": "look", "arguments": '{"x": 1}'}}
    for more in ({"index": 0, "id": "a"}, {"index": 0}, {}):
        assert spoken(opening, {**more, "function": {"arguments": '{"x": 1}'}}) is None
        assert spoken(opening, {**more, "function": {"arguments": " \n"}}) == [("look", '{"x": 1} \n', "a")]


def test_what_a_model_wrote_as_arguments_is_kept_however_wrong():
    for written in ('{"x": 1}}', "not json", '{"x": ', "[1]", '"{}"'):
        call = Spoken("a", "look", (written[:4], written[4:]))
        assert spoken(*fragments(0, call)) == [("look", written, "a")]
        assert parts_of(answer({"tool_calls": [fragments(0, call._replace(pieces=(written,)), opening=None)[0]]})) == (
            ToolCall(name="look", input=written, id="a"),
        )


def test_a_fragment_of_no_call_and_a_call_of_no_tool_are_refused():
    assert spoken({"function": {"arguments": "{}"}}) is None
    assert spoken({"index": 0, "id": "a", "function": {"arguments": "{}"}}) is None


def test_what_else_a_call_says_is_sent_back_with_it():
    call = {**WIRE_CALL, "extra_content": {"google": {"thought_signature": "c2ln"}}}
    (message,) = summed(
        OPENAI.decode_answer(json.dumps(answer({"content": None, "tool_calls": [call]})).encode())
    ).choices
    assert encoded(messages=[message])[0]["messages"][0]["tool_calls"] == [call]


# Usage.


@pytest.mark.parametrize(
    ("wire", "usage"),
    [
        ({}, Usage()),
        ({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}, USAGE),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage(input=0, output=0)),
        (
            {"prompt_tokens": None, "completion_tokens": "3", "total_tokens": -1, "prompt_tokens_details": []},
            Usage(),
        ),
        ({"prompt_tokens": 9.0, "completion_tokens": True}, Usage(input=9)),
        ({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 4}}, Usage(input=6, cache_read=4)),
        ({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 0}}, Usage(input=10, cache_read=0)),
        ({"prompt_tokens": 10, "prompt_cache_hit_tokens": 4}, Usage(input=6, cache_read=4)),
        ({"prompt_tokens": 10, "cached_tokens": 4}, Usage(input=6, cache_read=4)),
        (
            {"prompt_tokens": 10, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 5},
            Usage(input=1, cache_read=4, cache_write=5),
        ),
        (
            {
                "prompt_tokens": 20,
                "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 5, "audio_tokens": 6},
            },
            Usage(input=5, cache_read=4, cache_write=5, input_audio=6),
        ),
        # Beside: what was cached cannot be within what is less.
        ({"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}, Usage(input=3, cache_read=4)),
        (
            {"completion_tokens": 10, "completion_tokens_details": {"reasoning_tokens": 4, "audio_tokens": 5}},
            Usage(output=1, reasoning=4, output_audio=5),
        ),
        (
            # Within: the total is prompt and completion.
            {
                "prompt_tokens": 5,
                "completion_tokens": 10,
                "total_tokens": 15,
                "completion_tokens_details": {"reasoning_tokens": 4},
            },
            Usage(input=5, output=6, reasoning=4, reported_total=15),
        ),
        (
            # Beside: the total needs it to add up.
            {
                "prompt_tokens": 5,
                "completion_tokens": 10,
                "total_tokens": 19,
                "completion_tokens_details": {"reasoning_tokens": 4},
            },
            Usage(input=5, output=10, reasoning=4, reported_total=19),
        ),
        (
            # Beside: it is more than the whole.
            {"completion_tokens": 10, "reasoning_tokens": 96},
            Usage(output=10, reasoning=96),
        ),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 10,
                "total_tokens": 15,
                "completion_tokens_details": {"reasoning_tokens": 0},
            },
            Usage(input=5, output=10, reasoning=0, reported_total=15),
        ),
    ],
)
def test_the_buckets_of_a_usage_are_disjoint_and_what_is_not_told_is_none(wire, usage):
    assert usage_from(wire) == usage


@settings(deadline=None, max_examples=200)
@given(
    st.integers(0, 100),
    st.integers(0, 100),
    st.integers(0, 100),
    st.integers(0, 100),
    st.integers(0, 100),
    st.booleans(),
)
def test_the_buckets_sum_to_the_total_the_server_reports(fresh, cached, written, spoken_, thought, beside):
    wire = {
        "prompt_tokens": fresh + cached + written,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "completion_tokens": spoken_ + (0 if beside else thought),
        "completion_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": fresh + cached + written + spoken_ + thought,
    }
    usage = usage_from(wire)
    assert usage.total_tokens == usage.reported_total == wire["total_tokens"]
    assert (usage.input, usage.output, usage.reasoning) == (fresh, spoken_, thought)


# Whatever comes, only our own errors.

WHOLE = sorted(path.name for path in FIXTURES.glob("*.json"))
STREAMED = sorted(path.name for path in FIXTURES.glob("*.sse"))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 5)
    | st.sampled_from([10**30, 1e308, -0.5, "²", "9" * 5000, "\ud800", "", "a", "0", "null", "call_a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["index", "id", "text", "function", "name", "content", "code"]), inner)
    ),
    max_leaves=4,
)


def places(value, path=()):
    yield path
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))


def with_another(value, path, item):
    if not path:
        return item
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = with_another(copy[path[0]], path[1:], item)
    return copy


def mutated(data, value):
    """The value with another one somewhere in it."""
    return with_another(value, data.draw(st.sampled_from(list(places(value)))), data.draw(json_values))


@st.composite
def garbled(draw, names):
    """A fixture with a piece cut out, doubled or replaced."""
    data = fixture(draw(st.sampled_from(names)))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)))
        filling = draw(st.sampled_from([b"", data[start:end] * 2, b'"', b"{", b"}]", b"\n\n", b"\r", b"null", b"\xff"]))
        data = data[:start] + (filling if draw(st.booleans()) else draw(st.binary(max_size=5))) + data[end:]
    return data


def read_stream(data, *cuts):
    deltas, _ = streamed(data, *cuts)
    try:
        summed(deltas)
    except SabirError:
        return


def read_whole(data):
    try:
        summed(OPENAI.decode_answer(data))
    except SabirError:
        return


@settings(deadline=None, max_examples=400)
@given(garbled(STREAMED) | st.binary(max_size=60), st.lists(st.integers(0, 2000), max_size=4))
def test_no_bytes_of_a_stream_raise_anything_but_our_own_errors(data, cuts):
    read_stream(data, *cuts)


@settings(deadline=None, max_examples=300)
@given(garbled(WHOLE) | st.binary(max_size=60))
def test_no_bytes_of_an_answer_raise_anything_but_our_own_errors(data):
    read_whole(data)


CHUNKS = [
    json.loads(line.removeprefix(b"data: "))
    for name in STREAMED
    for line in fixture(name).splitlines()
    if line.startswith(b'data: {"') and line.endswith(b"}")
]


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_no_value_in_the_place_of_another_raises_anything_but_our_own_errors(data):
    chunks = data.draw(st.lists(st.sampled_from(CHUNKS), min_size=1, max_size=4))
    chunks = [mutated(data, chunk) for chunk in chunks]
    read_stream(b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n")
    body = mutated(data, json.loads(fixture(data.draw(st.sampled_from(WHOLE)))))
    read_whole(json.dumps(body).encode())


def test_values_nested_as_deeply_as_can_be_read_are_no_trap():
    for depth in (100, 400, 700, 900, 950, 980, 990, 1000, 5000, 100_000):
        deep = b"[" * depth + b"]" * depth
        for around in (
            b"%s",
            b'{"error": %s}',
            b'{"error": {"message": %s, "code": %s}}',
            b'{"choices": [{"delta": {"tool_calls": [{"function": {"name": "f", "arguments": {"x": %s}}}]}}]}',
            b'{"choices": [{"message": {"content": %s, "odd": %s}}]}',
            b'{"choices": %s, "usage": %s, "id": %s}',
        ):
            body = around.replace(b"%s", deep)
            read_whole(body)
            read_stream(b"data: " + body + b"\n\n")
            assert isinstance(provider_error(400, {}, body), ProviderError)
