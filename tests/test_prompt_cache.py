"""Keeping prompts with the provider: one mark, what each format makes of it, and what the report says when hits stop.

Formats are judged by their own strict server halves, the vendors' SDKs and recorded traffic; the report is tried over
HTTP against a server that counts as it is told to, and on the model in this process, which counts by itself.
"""

from __future__ import annotations

import json
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic.types
import boto3
import botocore.session
import msgspec
import openai
import openai.types.chat.completion_create_params as openai_chat
import openai.types.responses.response_create_params as openai_responses
import pytest
from botocore.validate import ParamValidator
from google.genai import types as genai
from hypothesis import given, settings
from hypothesis import strategies as st
from mistralai.client import models as mistral
from scripted_server import ScriptedServer
from test_handing_over import fits

import sabir
from sabir import CacheReport, Message, Text, ToolCall, ToolResult, ToolSpec, Usage, cached
from sabir.deltas import Close, Count, Finish, Head, Open
from sabir.deltas import Text as TextDelta
from sabir.dialects.anthropic import Anthropic
from sabir.dialects.bedrock import Bedrock
from sabir.dialects.cache_marks import MOST_MARKS
from sabir.prompt_cache import MOST_REQUESTS, MOST_SECTIONS, PromptMemory, Watch, fingerprint
from sabir.providers import PROVIDERS
from sabir.requests import Options, Request
from sabir.testing.replay import replay

RECORDINGS = Path(__file__).resolve().parent.parent.parent / "shared" / "recordings"

LOOK = ToolSpec("look", "Look around.", {"type": "object", "properties": {"where": {"type": "string"}}})
WAIT = ToolSpec("wait", "Wait a while.", {"type": "object", "properties": {}})
CALL = ToolCall(name="look", input='{"where": "up"}', id="call_1")
SEEN = ToolResult(call_id="call_1", name="look", content=(Text(text="A fox!"),))
TALK = (
    sabir.system("Be kind."),
    sabir.user("Look!"),
    Message("assistant", (CALL,)),
    Message("tool", (SEEN,)),
    Message("assistant", (Text(text="A fox."),)),
    sabir.user("And now?"),
)


def dialect_of(name: str) -> Any:
    provider, _, model = name.partition(":")
    return PROVIDERS[provider].dialect_of(model, None)


def encoded(name: str, messages: Any = TALK, **fields: Any) -> tuple[Any, list[str]]:
    """The body that is sent to a model, and what is said of the cache beside it."""
    fields = {"tools": (LOOK, WAIT), "max_tokens": 50, **fields}
    request = Request(model=name.partition(":")[2], messages=tuple(messages), **fields)
    http, notices = dialect_of(name).encode_request(request)
    return json.loads(http.body), [f"{each.kind}: {each.message}" for each in notices if each.subject == "cache"]


def places(value: Any, *words: str, path: str = "") -> dict[str, Any]:
    """Where in a body a word of caching stands, and what it says."""
    words = words or ("cache_control", "cachePoint", "prompt_cache_key", "prompt_cache_retention")
    found = {}
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in pairs:
        here = f"{path}.{name}".lstrip(".")
        found |= {here: item} if name in words else places(item, *words, path=here)
    return found


EPHEMERAL = {"type": "ephemeral"}
POINT = {"type": "default"}
KEY = "sabir-"

# What cache=True becomes: every format, and where.
PLACED = {
    "anthropic:claude-sonnet-4-6": {
        "tools.1.cache_control": EPHEMERAL,
        "system.0.cache_control": EPHEMERAL,
        "messages.4.content.0.cache_control": EPHEMERAL,
    },
    "vertex-anthropic:claude-sonnet-4-6": {
        "tools.1.cache_control": EPHEMERAL,
        "system.0.cache_control": EPHEMERAL,
        "messages.4.content.0.cache_control": EPHEMERAL,
    },
    "bedrock:us.anthropic.claude-sonnet-4-6": {
        "toolConfig.tools.2.cachePoint": POINT,
        "system.1.cachePoint": POINT,
        "messages.4.content.1.cachePoint": POINT,
    },
    "bedrock:amazon.nova-pro-v1:0": {"system.1.cachePoint": POINT, "messages.4.content.1.cachePoint": POINT},
    "openrouter:anthropic/claude-haiku-4.5": {
        "messages.0.content.0.cache_control": EPHEMERAL,
        "messages.5.content.0.cache_control": EPHEMERAL,
    },
    "openrouter:google/gemini-3-pro": {
        "messages.0.content.0.cache_control": EPHEMERAL,
        "messages.5.content.0.cache_control": EPHEMERAL,
    },
    "vercel:anthropic/claude-sonnet-4": {
        "messages.0.content.0.cache_control": EPHEMERAL,
        "messages.5.content.0.cache_control": EPHEMERAL,
    },
    "openai:gpt-4o": {"prompt_cache_key": KEY},
    "openai:gpt-5": {"prompt_cache_key": KEY},
    "azure:gpt-4o": {"prompt_cache_key": KEY},
    "mistral:mistral-large-latest": {"prompt_cache_key": KEY},
}
BY_THEMSELVES = (
    *("openrouter:openai/gpt-5", "deepseek:deepseek-chat", "xai:grok-4", "groq:openai/gpt-oss-120b", "pico:pico"),
    *("gemini:gemini-2.5-flash", "vertex:gemini-2.5-flash", "cohere:command-a-03-2025", "ollama:llama3.2"),
)


@pytest.mark.parametrize("name", PLACED)
def test_a_wish_is_sent_where_it_helps(name):
    body, told = encoded(name, cache=True)
    found = {
        place: KEY if place == "prompt_cache_key" and said.startswith(KEY) else said
        for place, said in places(body).items()
    }
    assert found == PLACED[name]
    assert told == []
    assert places(encoded(name)[0]) == places(encoded(name, cache=False)[0]) == {}


@pytest.mark.parametrize("name", BY_THEMSELVES)
def test_a_server_that_keeps_prompts_by_itself_is_sent_nothing_and_the_caller_told(name):
    for asked in ({"cache": True}, {"messages": (cached(sabir.user("hi")),)}, {"tools": ({**LOOK_MARKED},)}):
        options = {**asked, "tools": (msgspec.convert(LOOK_MARKED, ToolSpec),)} if "tools" in asked else asked
        body, told = encoded(name, **options)
        assert places(body) == {}
        assert [each.partition(":")[0] for each in told] == ["emulated"]
        assert "by themselves" in told[0]
    assert encoded(name)[1] == encoded(name, cache=False)[1] == []


LOOK_MARKED = {**msgspec.to_builtins(LOOK), "cache": True}


def test_a_model_of_bedrocks_that_keeps_nothing_is_refused_the_wish_and_not_the_call():
    body, told = encoded("bedrock:meta.llama3-3-70b-instruct-v1:0", cache=True)
    assert places(body) == {}
    assert told[0].startswith("unsupported: cache was not sent: meta.llama3-3-70b-instruct-v1:0 is not known to keep")
    own = Request(model="arn:aws:bedrock:eu-west-3:1:application-inference-profile/x", messages=TALK, cache=True)
    assert "cachePoint" in Bedrock(family="claude").encode_request(own)[0].body.decode()


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_every_provider_has_a_verdict(name):
    assert "cache" in Options.__annotations__
    verdict = PROVIDERS[name].dialect.verdicts()["cache"]
    assert isinstance(verdict, str)
    assert verdict


@pytest.mark.parametrize("name", [*PLACED, *BY_THEMSELVES])
def test_a_verdict_is_what_happens(name):
    verdict = dialect_of(name).verdicts()["cache"]
    body, _ = encoded(name, cache=True)
    found = {place.rpartition(".")[2] for place in places(body)}
    assert found <= {verdict.partition(" ")[0]}


@pytest.mark.parametrize("name", [name for name, sent in PLACED.items() if "prompt_cache_key" in sent])
def test_a_mark_alone_is_a_wish_where_there_is_no_word_for_marks(name):
    body, told = encoded(name, (cached(TALK[0]), *TALK[1:]))
    assert [*places(body)] == ["prompt_cache_key"]
    assert told == []


LLAMA = "meta.llama3-70b-instruct-v1:0"


@pytest.mark.parametrize("asked", [{}, {"cache": True}, {"cache": "1h"}])
@pytest.mark.parametrize(
    "model",
    [
        LLAMA,
        "us.meta.llama3-3-70b-instruct-v1:0",
        "anthropic.claude-3-haiku-20240307-v1:0",
        f"arn:aws:bedrock:us-east-1::foundation-model/{LLAMA}",
    ],
)
def test_marks_are_left_out_for_a_model_of_bedrocks_that_keeps_nothing(model, asked):
    tool = msgspec.convert(LOOK_MARKED, ToolSpec)
    talk = (cached(sabir.user("a")), sabir.assistant("b"), sabir.user("q"))
    body, told = encoded(f"bedrock:{model}", talk, tools=(tool,), **asked)
    assert places(body) == {}
    assert [each.partition(": ")[0] for each in told] == ["unsupported"]
    assert "is not known to keep prompts" in told[0]


@pytest.mark.parametrize("model", ["arn:aws:bedrock:eu-west-3:1:application-inference-profile/x1y2", "m"])
def test_marks_are_tried_where_bedrock_does_not_tell_which_model_it_is(model):
    request = Request(model=model, messages=(cached(sabir.user("a"), "1h"), sabir.user("q")), cache=True)
    http, notices = Bedrock().encode_request(request)
    assert [*places(json.loads(http.body)).values()] == [{"type": "default", "ttl": "1h"}]
    (notice,) = [each for each in notices if each.subject == "cache"]
    assert "mark a part with cached() to try it" in notice.message


@pytest.mark.parametrize("asked", [{"cache": "1h"}, {"cache": "5m"}, {}])
@pytest.mark.parametrize(
    "model", ["amazon.nova-pro-v1:0", "us.anthropic.claude-3-7-sonnet-20250219-v1:0", "anthropic.claude-opus-4-1-x"]
)
def test_a_model_of_bedrocks_that_keeps_prompts_for_five_minutes_is_asked_for_no_other_time(model, asked):
    talk = (cached(TALK[0], "5m"), cached(TALK[1], "1h" if not asked else "5m"), *TALK[2:])
    body, told = encoded(f"bedrock:{model}", talk, **asked)
    found = places(body)
    assert {tuple(said.items()) for said in found.values()} == {(("type", "default"),)}
    shortened = [each for each in told if each.startswith("emulated: cache='1h' was sent without its time")]
    assert len(told) == len(shortened) == (asked.get("cache") != "5m")


def test_explaining_a_call_shows_it():
    with sabir.Client("anthropic:claude-sonnet-4-6", api_key="k", cache="1h") as client:
        explained = client.explain("hi", system="Be kind.")
    assert places(explained.body) == {
        "system.0.cache_control": {"type": "ephemeral", "ttl": "1h"},
        "messages.0.content.0.cache_control": {"type": "ephemeral", "ttl": "1h"},
    }
    with sabir.Client("gemini:gemini-2.5-flash", api_key="k") as client:
        (notice,) = client.explain("hi", cache=True).notices
    assert "extra={'cachedContent'" in notice.message


# Marks


def test_a_text_a_part_and_a_message_can_be_marked():
    assert cached("All of it.") == Text(text="All of it.", cache=True)
    assert cached(CALL, "1h").cache == "1h"
    assert cached(sabir.user("a", "b"), "5m") == sabir.user("a", Text(text="b", cache="5m"))
    assert sabir.user(cached("Long."), "Short?").parts[0].cache is True
    marked = (cached(sabir.system("Be kind.")), *TALK[1:])
    assert sabir.load_messages(sabir.dump_messages(marked)) == marked


@pytest.mark.parametrize("what", [5, None, Message("user", ()), ["a"]])
def test_what_cannot_be_marked_is_refused_with_a_reason(what):
    with pytest.raises(sabir.ConfigurationError, match="cached\\(\\) takes a text, a part or a message"):
        cached(what)
    with pytest.raises(sabir.ConfigurationError, match="keep is '5m' or '1h', not '2h'"):
        cached("a", "2h")


@pytest.mark.parametrize("value", ["2h", 5, 1.5, ()])
def test_a_wish_of_another_kind_is_refused(value):
    with sabir.Client("pico") as client, pytest.raises(sabir.ConfigurationError, match="cache"):
        client.explain("hi", cache=value)


def test_of_more_than_four_marks_the_last_are_kept():
    turns = [each for at in range(6) for each in (cached(sabir.user(f"{at}?")), sabir.assistant("Yes."))]
    body, told = encoded("anthropic:claude-sonnet-4-6", [*turns, sabir.user("So?")], cache=True)
    assert [*places(body)] == [f"messages.{at}.content.0.cache_control" for at in (4, 6, 8, 10)]
    assert told == ["dropped: 2 marks of cache were left out: 4 are the most, and the last of them are kept"]


def test_marks_of_the_callers_leave_room_for_as_many_of_ours():
    talk = (cached(sabir.system("Be kind.")), cached(sabir.user("a")), cached(sabir.assistant("b")), sabir.user("c"))
    body, told = encoded("anthropic:claude-sonnet-4-6", talk, cache=True)
    assert len(places(body)) == MOST_MARKS
    assert "messages.2.content.0.cache_control" in places(body)
    assert "tools.1.cache_control" not in places(body)
    assert told == []


def test_a_mark_without_a_time_is_kept_as_long_as_the_call_wants():
    talk = (sabir.system("Be kind."), cached(sabir.user("a")), cached(sabir.assistant("b")), sabir.user("c"))
    body, told = encoded("bedrock:us.anthropic.claude-sonnet-4-6", talk, cache="1h", tools=())
    assert sorted(said.get("ttl") for said in places(body).values()) == ["1h"] * 4
    assert told == []


def lifetimes(body: Any) -> list[str]:
    """How long each mark of a body lasts, in the order of the prompt; a bare one lasts five minutes."""
    order = ("tools", "toolConfig", "system", "messages")
    found = [place for name in order for place in places(body.get(name, []), path=name).values()]
    return [each.get("ttl", "5m") for each in found]


MARKING = (
    "anthropic:claude-sonnet-4-6",
    "bedrock:us.anthropic.claude-sonnet-4-6",
    "openrouter:anthropic/claude-haiku-4.5",
)


@pytest.mark.parametrize("name", MARKING)
@pytest.mark.parametrize(
    ("talk", "fields", "sent", "raised"),
    [
        ((sabir.user(cached("a"), cached("b", "1h")),), {}, ["1h", "1h"], 1),
        ((sabir.user(cached("a", "5m"), cached("b", "1h"), cached("c")),), {}, ["1h", "1h", "5m"], 1),
        ((sabir.user(cached("a", "1h"), "q"),), {"cache": True}, ["1h", "5m"], 0),
        ((sabir.system("s"), sabir.user(cached("a", "1h"), "q")), {"cache": True}, ["1h", "1h", "5m"], 1),
        ((sabir.user(cached("a", "5m"), "q"),), {"cache": "1h"}, ["1h", "1h"], 1),
        ((sabir.user(cached("a", "1h")), *[cached(sabir.user("b"))] * 4), {}, ["5m"] * 4, 0),
    ],
)
def test_what_stands_before_a_mark_of_an_hour_is_kept_for_an_hour(name, talk, fields, sent, raised):
    body, told = encoded(name, talk, tools=(), **fields)
    assert lifetimes(body) == sent
    assert [each.partition(":")[2].split()[0] for each in told if "raised" in each] == [str(raised)] * bool(raised)


def test_a_mark_behind_the_tools_is_raised_as_well():
    with sabir.Client(CLAUDE, api_key="k", cache=True) as client:
        shown = client.explain([cached("A handbook.", "1h"), "q"], system="s", tools=[look])
    assert lifetimes(shown.body) == ["1h", "1h", "1h", "5m"]
    (notice,) = [each for each in shown.notices if each.subject == "cache"]
    assert (notice.kind, notice.message[:41]) == ("emulated", "2 marks of cache were raised to '1h': thi")


def test_what_cannot_carry_a_mark_is_not_marked():
    thought = Message("assistant", (Text(text="Hm."), sabir.Thinking(text="…", state=own({})), Text(text=" ")))
    body, _ = encoded("anthropic:claude-sonnet-4-6", (sabir.user("a"), thought), cache=True, tools=())
    assert [*places(body)] == ["messages.1.content.0.cache_control"]


def own(value: Any) -> sabir.ProviderState:
    return sabir.ProviderState("anthropic", value)


def test_a_tool_carries_no_mark_where_there_is_no_word_for_it():
    body, told = encoded("openrouter:anthropic/claude-haiku-4.5", tools=(msgspec.convert(LOOK_MARKED, ToolSpec),))
    assert places(body) == {}
    assert told == ["dropped: a mark behind a tool was left out: this API has no place for it"]


def test_lifetimes_are_sent_where_there_is_a_word_for_them():
    assert places(encoded("openai:gpt-5.1", cache="1h")[0])["prompt_cache_retention"] == "24h"
    for name in ("openai:gpt-5-mini", "openai:gpt-5.6", "openai:gpt-4o", "mistral:mistral-large-latest"):
        body, told = encoded(name, cache="1h")
        assert [*places(body)] == ["prompt_cache_key"]
        assert told[0].startswith("emulated: cache='1h' was sent without its time")


def test_the_lifetime_of_a_part_is_that_of_the_key():
    talk = (sabir.user(cached("a", "1h"), cached("b", "5m"), "q"),)
    for asked in ({}, {"cache": True}, {"cache": "5m"}):
        body, told = encoded("openai:gpt-5.1", talk, **asked)
        assert places(body)["prompt_cache_retention"] == "24h"
        assert told[0].startswith("emulated: cache='1h' was approximated")
    for name in ("openai:gpt-4o", "openai-chat:gpt-4o", "mistral:mistral-large-latest"):
        assert encoded(name, talk)[1][0].startswith("emulated: cache='1h' was sent without its time")
    tool = msgspec.structs.replace(LOOK, cache="5m")
    assert encoded("openai:gpt-4o", tools=(tool,))[1][0].startswith("emulated: cache='5m' was sent without its time")


def test_requests_of_the_same_beginning_have_a_key_in_common():
    def key(messages: Any, **fields: Any) -> str:
        return encoded("openai:gpt-4o", messages, cache=True, **fields)[0]["prompt_cache_key"]

    first = key(TALK)
    assert key(TALK[:2]) == key((cached(TALK[0]), sabir.user("Something else."))) == first
    others = {key((sabir.system("Be brief."), *TALK[1:])), key(TALK, tools=(LOOK,)), key(TALK, tools=(WAIT, LOOK))}
    assert len({first, *others}) == 4
    assert key(TALK[1:], tools=()) == key(TALK[1:2], tools=()) != key((sabir.user("Other."),), tools=())


# Both halves


def marked_request(draw: Any, model: str) -> Request:
    marks = st.sampled_from([None, None, True, "5m", "1h"])

    def remarked(message: Message) -> Message:
        parts = tuple(msgspec.structs.replace(part, cache=draw(marks)) for part in message.parts)
        return msgspec.structs.replace(message, parts=parts)

    messages = tuple(map(remarked, TALK[: draw(st.sampled_from([2, 4, 6]))]))
    tools = tuple(msgspec.structs.replace(tool, cache=draw(marks)) for tool in (LOOK, WAIT))
    return Request(model=model, messages=messages, tools=tools, cache=draw(marks), max_tokens=50)


@pytest.mark.parametrize("name", [name for name in PLACED if "vertex" not in name])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_server_half_reads_the_marks_and_says_them_again(name, data):
    dialect = dialect_of(name)
    asked = marked_request(data.draw, name.partition(":")[2])
    body = dialect.encode_request(asked)[0].body
    # Where the address names the model, a server knows it from there.
    read = msgspec.structs.replace(dialect.decode_request(body), model=asked.model)
    before, after = json.loads(body), json.loads(dialect.encode_request(read)[0].body)
    assert dialect.canonical_request(after) == dialect.canonical_request(before)
    marks = places(before, "cache_control", "cachePoint")
    assert sum(map(bool, marks_of(read))) == len(marks)
    # What has no marks but a key is a wish for the whole request.
    is_wished = bool(asked.cache) or any(marks_of(asked))
    assert bool(read.cache) == (is_wished and not dialect.caching.marks(asked.model))


def marks_of(request: Request) -> list[Any]:
    parts = [part for message in request.messages for part in message.parts]
    shown = [inner for part in parts if isinstance(part, ToolResult) for inner in part.content]
    return [each.cache for each in (*request.tools, *parts, *shown)]


HOUR = {"type": "ephemeral", "ttl": "1h"}
MARKED = {
    "anthropic:claude-sonnet-4-6": {
        "model": "m",
        "max_tokens": 5,
        "tools": [{"name": "look", "input_schema": {"type": "object"}, "cache_control": HOUR}],
        "system": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": EPHEMERAL}]}],
    },
    "bedrock:us.anthropic.claude-sonnet-4-6": {
        "toolConfig": {
            "tools": [
                {"toolSpec": {"name": "look", "inputSchema": {"json": {"type": "object"}}}},
                {"cachePoint": {"type": "default", "ttl": "1h"}},
            ]
        },
        "system": [{"text": "Be kind."}, {"cachePoint": {"type": "default", "ttl": "1h"}}],
        "messages": [{"role": "user", "content": [{"text": "hi"}, {"cachePoint": POINT}]}],
    },
    "openrouter:anthropic/claude-sonnet-4.6": {
        "model": "anthropic/claude-sonnet-4.6",
        "messages": [
            {
                "role": "system",
                "content": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
            },
            {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": EPHEMERAL}]},
        ],
    },
}


@pytest.mark.parametrize("target", MARKED)
@pytest.mark.parametrize("source", MARKED)
def test_marks_move_from_one_format_to_another(source, target):
    read = dialect_of(source).decode_request(json.dumps(MARKED[source]).encode())
    assert (read.messages[0].parts[0].cache, read.messages[-1].parts[-1].cache) == ("1h", True)
    read = msgspec.structs.replace(read, model=target.partition(":")[2], max_tokens=5)
    body = json.loads(dialect_of(target).encode_request(read)[0].body)
    # OpenRouter has no mark behind its tools.
    wanted = ["1h", "5m"] if "openrouter" in source + target else ["1h", "1h", "5m"]
    assert lifetimes(body) == wanted


@pytest.mark.parametrize(("name", "early"), [(MARKING[0], EPHEMERAL), (MARKING[1], {"cachePoint": POINT})])
def test_a_server_half_refuses_a_mark_of_an_hour_behind_a_shorter_one(name, early):
    body = json.loads(json.dumps(MARKED[name]))
    if "cachePoint" in early:
        body["toolConfig"]["tools"][1] = early
    else:
        body["tools"][0]["cache_control"] = early
    with pytest.raises(sabir.BadRequestError, match="must not come after ttl='5m'"):
        dialect_of(name).decode_request(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("anthropic:m", {"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": "9h"}}),
        ("anthropic:m", {"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "scope": "all"}}),
        ("anthropic:m", {"type": "text", "text": "a", "cache_control": {"type": "eternal"}}),
        ("openrouter:anthropic/m", {"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": 5}}),
        ("openai:gpt-5.6", {"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}}),
        ("bedrock:m", {"cachePoint": {"type": "default", "ttl": "9h"}}),
    ],
)
def test_a_mark_that_says_more_than_ours_is_said_again_as_it_was(name, block):
    before = {"text": "b"} if name.startswith("bedrock") else {"type": "text", "text": "b"}
    body = {
        "model": name.partition(":")[2],
        "max_tokens": 5,
        "messages": [{"role": "user", "content": [before, block]}],
    }
    body = {"messages": body["messages"]} if name.startswith("bedrock") else body
    dialect = PROVIDERS[name.partition(":")[0]].dialect
    read = dialect.decode_request(json.dumps(body).encode())
    assert not any(marks_of(read))
    assert json.loads(dialect.encode_request(read)[0].body) == dialect.canonical_request(body)


def test_a_cache_point_with_nothing_before_it_stays_in_its_place():
    body = {
        "toolConfig": {"tools": [{"cachePoint": POINT}, {"toolSpec": {"name": "a", "inputSchema": {"json": {}}}}]},
        "messages": [{"role": "user", "content": [{"cachePoint": POINT}, {"text": "a"}, {"cachePoint": POINT}]}],
    }
    body["toolConfig"]["tools"][1]["toolSpec"]["inputSchema"]["json"] = {"type": "object"}
    body["messages"][0]["content"].append({"cachePoint": POINT})
    read = Bedrock().decode_request(json.dumps(body).encode())
    assert json.loads(Bedrock().encode_request(read)[0].body) == body


def test_a_mark_for_a_whole_request_is_a_wish_for_others_and_itself_again():
    body = {**MARKED["anthropic:claude-sonnet-4-6"], "tools": [], "system": [], "cache_control": EPHEMERAL}
    body["messages"] = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    read = Anthropic().decode_request(json.dumps(body).encode())
    assert read.cache is True
    assert json.loads(Anthropic().encode_request(read)[0].body) == Anthropic().canonical_request(body)
    there = json.loads(Bedrock().encode_request(msgspec.structs.replace(read, model="claude-sonnet-4-6"))[0].body)
    assert [*places(there)] == ["messages.0.content.1.cachePoint"]


@pytest.mark.parametrize("name", ["openai:gpt-4o", "openai:gpt-5", "mistral:mistral-large-latest"])
def test_a_key_of_the_callers_is_a_wish_for_others_and_itself_again(name):
    body, _ = encoded(name, cache=True)
    body["prompt_cache_key"] = "mine"
    read = dialect_of(name).decode_request(json.dumps(body).encode())
    assert read.cache is True
    assert json.loads(dialect_of(name).encode_request(read)[0].body)["prompt_cache_key"] == "mine"
    assert places(json.loads(Anthropic().encode_request(read)[0].body)) != {}


# The vendors' SDKs


def judged_by_botocore(body):
    client = botocore.session.Session().create_client(
        "bedrock-runtime", region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
    )
    shape = client.meta.service_model.operation_model("Converse").input_shape
    report = ParamValidator().validate({**body, "modelId": "m"}, shape)
    assert not report.has_errors(), report.generate_report()


def judged_by_gemini(body):
    for content in body["contents"]:
        genai.Content.model_validate(content)


JUDGES = {
    "anthropic:claude-sonnet-4-6": lambda body: fits(body, anthropic.types.message_create_params.MessageCreateParams),
    "bedrock:us.anthropic.claude-sonnet-4-6": judged_by_botocore,
    "openai:gpt-4o": lambda body: fits(body, openai_chat.CompletionCreateParams),
    "openai:gpt-5": lambda body: fits(body, openai_responses.ResponseCreateParams),
    "mistral:mistral-large-latest": lambda body: bool(mistral.ChatCompletionRequest.model_validate(body)),
    "gemini:gemini-2.5-flash": judged_by_gemini,
}


@pytest.mark.parametrize("lifetime", [True, "5m", "1h"])
@pytest.mark.parametrize("name", JUDGES)
def test_the_vendors_sdk_takes_what_is_sent(name, lifetime):
    talk = (cached(TALK[0], "1h"), *TALK[1:3], cached(TALK[3], "1h"), *TALK[4:])
    body, _ = encoded(name, talk, cache=lifetime)
    assert JUDGES[name](body) in (True, None), body


@pytest.mark.parametrize("name", ["anthropic:claude-sonnet-4-6", "openai:gpt-4o", "openai:gpt-5"])
def test_the_judges_do_not_take_everything(name):
    body, _ = encoded(name, cache=True)
    word = next(iter(places(body)))
    if word == "prompt_cache_key":
        assert not JUDGES[name]({**body, word: 5})
    else:
        body["system"][0]["cache_control"] = {"type": "ephemeral", "ttl": "9h"}
        assert not JUDGES[name](body)


def test_marks_of_anthropics_sdk_are_ours_and_it_reads_our_counts():
    with (
        ScriptedServer(Anthropic(), counted(900, 50)) as server,
        anthropic.Anthropic(base_url=server.url, api_key="k") as client,
    ):
        message = client.messages.create(
            model="m",
            max_tokens=5,
            system=[{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
            messages=[{"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": EPHEMERAL}]}],
        )
    assert marks_of(server.requests[0]) == ["1h", True]
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (100, 900, 50)


def test_points_of_amazons_sdk_are_ours_and_it_reads_our_counts():
    with ScriptedServer(Bedrock(), counted(900, 50)) as server:
        client = boto3.client(
            "bedrock-runtime",
            region_name="us-east-1",
            endpoint_url=server.url,
            aws_access_key_id="k",
            aws_secret_access_key="s",
        )
        answer = client.converse(
            modelId="m",
            system=[{"text": "Be kind."}, {"cachePoint": {"type": "default", "ttl": "1h"}}],
            messages=[{"role": "user", "content": [{"text": "hi"}, {"cachePoint": {"type": "default"}}]}],
        )
    assert marks_of(server.requests[0]) == ["1h", True]
    usage = answer["usage"]
    assert (usage["inputTokens"], usage["cacheReadInputTokens"], usage["cacheWriteInputTokens"]) == (100, 900, 50)


def test_a_key_of_openais_sdk_is_a_wish_and_it_reads_our_counts():
    with (
        ScriptedServer(PROVIDERS["openai"].dialect, counted(900)) as server,
        openai.OpenAI(base_url=server.url, api_key="k") as client,
    ):
        messages: Any = [{"role": "user", "content": "hi"}]
        answer = client.chat.completions.create(model="m", messages=messages, prompt_cache_key="mine")
    assert server.requests[0].cache is True
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert (answer.usage.prompt_tokens, answer.usage.prompt_tokens_details.cached_tokens) == (1000, 900)


# Recorded traffic

RECORDED = ("anthropic-messages", "bedrock-converse", "openai-chat", "openai-responses", "gemini", "mistral", "cohere")
READ = ("cache_read_input_tokens", "cacheReadInputTokens", "cachedContentTokenCount", "cached_tokens")
WRITTEN = ("cache_creation_input_tokens", "cacheWriteInputTokens", "cache_write_tokens")
needs_recordings = pytest.mark.skipif(not RECORDINGS.exists(), reason=f"there are no recordings at {RECORDINGS}")


def exchanges(name: str) -> list[Any]:
    file = RECORDINGS / f"{name}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def last_counts(text: str, words: tuple[str, ...]) -> set[int]:
    """The counts that a body has under one of these names, wherever they stand."""
    flat = text.replace("\\", "").replace(" ", "")
    parts = [piece for word in words for piece in flat.split(f'"{word}":')[1:]]
    return {int(digits) for piece in parts if (digits := piece[: len(piece) - len(piece.lstrip("0123456789"))])}


@needs_recordings
@pytest.mark.parametrize("name", RECORDED)
def test_recorded_counts_of_reads_and_writes_are_in_the_usage(name):
    tried = 0
    for exchange in exchanges(name):
        text = json.dumps(exchange["response"]["body"])
        told = last_counts(text, READ) - {0}
        if len(told) != 1 or (result := replay(exchange)).decoded is None:
            continue
        usage = result.decoded["usage"]
        assert {usage["cache_read"]} == told, exchange["id"]
        written = last_counts(text, WRITTEN)
        assert not written or usage["cache_write"] in written, exchange["id"]
        tried += 1
    assert tried >= 5


@needs_recordings
@pytest.mark.parametrize(
    ("name", "least"), [("anthropic-messages", 20), ("bedrock-converse", 8), ("openai-chat", 2), ("mistral", 2)]
)
def test_recorded_marks_are_read_as_ours_and_said_again(name, least):
    tried = 0
    for exchange in exchanges(name):
        body = (exchange.get("request") or {}).get("body")
        if not isinstance(body, dict) or not (found := places(body)) or exchange["response"]["status"] != 200:
            continue
        is_ours = name == "anthropic-messages" or exchange["provider"] in PROVIDERS
        if not is_ours or not {"messages"} <= body.keys() or "count" in exchange["endpoint"]:
            continue  # a gateway without a row, a batch, or nothing to be answered
        model = body.get("model", exchange["model"])
        dialect = Anthropic() if name == "anthropic-messages" else dialect_of(f"{exchange['provider']}:{model}")
        read = dialect.decode_request(json.dumps(body).encode())
        again = json.loads(dialect.encode_request(read)[0].body)
        assert dialect.canonical_request(again) == dialect.canonical_request(body), exchange["id"]
        tried += bool(read.cache) or sum(map(bool, marks_of(read))) >= len(found)
    assert tried >= least


# What came of it


def counted(read: int | None = None, written: int | None = None, fresh: int = 100) -> list[Any]:
    """An answer whose prompt was so much of it read from the cache and written to it."""
    usage = Usage(input=fresh, cache_read=read, cache_write=written, output=5)
    return [Head("1", "m"), Open(0, "text"), TextDelta(0, "Yes."), Close(0), Count(usage), Finish("stop")]


def calling(read: int, written: int) -> list[Any]:
    usage = Usage(input=100, cache_read=read, cache_write=written, output=5)
    call = [Open(0, "call", "call_1", "look"), TextDelta(0, "{}"), Close(0)]
    return [Head("1", "m"), *call, Count(usage), Finish("tool_calls")]


def look() -> str:
    """Look around."""
    return "A fox!"


def wait() -> str:
    """Wait a while."""
    return "Done."


CLAUDE = "anthropic:claude-sonnet-4-6"


def served(surface: Any, server: Any, model: str = CLAUDE, **settings: Any) -> Any:
    return surface.client(model, base_url=server.url, api_key="k", **{"cache": True, **settings})


async def test_hits_are_counted_over_all_rounds(surface):
    with ScriptedServer(Anthropic(), calling(0, 1000), counted(900, 200)) as server:
        response = await served(surface, server).ask("Look!", tools=[look])
    assert response.cache == CacheReport(hit_rate=900 / 2300, read=900, written=1200)
    assert str(response.cache) == "hit rate 39%"
    assert [bool(request.messages[-1].parts[-1].cache) for request in server.requests] == [True, True]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ("tools", "the tools are not the same as before, or in another order"),
        ("system", "the system message is not the same as before"),
        ("message 1", "message 1 is not the same as before"),
        ("message 3", "message 3 is not the same as before"),
        ("thinking", "thinking is not the same as before"),
        (None, "nothing in the prompt has changed: what was kept has expired, or another machine has answered"),
    ],
)
async def test_when_hits_stop_the_first_section_that_changed_is_named(surface, changed, reason):
    talk = [sabir.system("Be kind."), *[say(f"{at}.") for at in range(3) for say in (sabir.user, sabir.assistant)]]
    more: dict[str, Any] = {"tools": [look, wait]}
    with ScriptedServer(Anthropic(), counted(0, 1000), counted(1000, 200), counted(0, 1500)) as server:
        client = served(surface, server)
        first = await client.ask([*talk, sabir.user("And?")], **more)
        second = await client.ask([*talk, sabir.user("And?"), *first.messages, sabir.user("So?")], **more)
        asked = [*talk, sabir.user("And?"), *first.messages, sabir.user("So?"), *second.messages, sabir.user("Why?")]
        match changed:
            case "tools":
                more["tools"] = [wait, look]
            case "system":
                asked[0] = sabir.system("Be brief.")
            case "message 1":
                asked[1] = sabir.user("Another beginning.")
            case "message 3":
                asked[3] = sabir.user("Another middle.")
            case "thinking":
                more["thinking"] = 2000
        third = await client.ask(asked, **more)
    assert (first.cache.changed, first.cache.reason, first.cache.hit_rate) == (None, None, 0)
    assert (second.cache.changed, second.cache.reason, second.cache.read) == (None, None, 1000)
    assert (third.cache.changed, third.cache.reason, third.cache.missed) == (changed, reason, 1200)
    assert reason in str(third.cache)


async def test_a_miss_has_its_price(surface):
    prices = sabir.Prices(input=Decimal(3), cache_read=Decimal("0.3"), cache_write=Decimal("3.75"), output=Decimal(15))
    answers = (counted(0, 1_000_000, 0), counted(0, 1_200_000, 0))
    with ScriptedServer(Anthropic(), *answers, *answers) as server:
        client = served(surface, server, prices={CLAUDE: prices})
        await client.ask("Why?", system="Be kind.")
        dear = await client.ask("Why?", system="Be brief.")
        client = served(surface, server)
        await client.ask("Why?", system="Be kind.")
        unknown = await client.ask("Why?", system="Be brief.")
    # A million tokens were written once more, at 3.75, and could have been read at 0.30.
    assert dear.cache.missed == unknown.cache.missed == 1_000_000
    assert dear.cache.cost is not None
    assert dear.cache.cost.usd == Decimal("3.45")
    assert dear.cache.cost.buckets == {"cache_write": Decimal("3.75"), "cache_read": Decimal("-0.3")}
    assert "(cost $3.450000 more)" in str(dear.cache)
    assert unknown.cache.cost is None


async def test_a_miss_within_a_loop_of_tools_is_seen(surface):
    with ScriptedServer(Anthropic(), calling(0, 1000), calling(0, 1100), counted(1100, 10)) as server:
        response = await served(surface, server).ask("Look!", tools=[look])
    assert response.cache.changed is None
    assert response.cache.missed == 1000
    assert "expired" in response.cache.reason


async def test_a_chat_and_its_fork_are_each_held_to_their_own_history(surface):
    answers = [counted(read, 50) for read in (0, 1000, 1050, 1050, 1100, 1100)]
    answers[0] = counted(0, 1000)
    with ScriptedServer(Anthropic(), *answers) as server:
        chat = served(surface, server).chat(system="Be kind.")
        reports = [(await chat("One.")).cache, (await chat("Two.")).cache]
        fork = chat.fork()
        reports += [(await chat("Three.")).cache, (await fork("Drei.")).cache]
        reports += [(await chat("Four.")).cache, (await fork("Vier.")).cache]
    assert [report.reason for report in reports] == [None] * 6


async def test_calls_with_one_system_message_and_other_questions_miss_nothing(surface):
    with ScriptedServer(Anthropic(), counted(0, 1050), *[counted(1000, 50)] * 2, counted(0, 1050)) as server:
        client = served(surface, server)
        reports = [(await client.ask(f"{at}?", system="Be kind.")).cache for at in range(4)]
    assert [report.reason for report in reports[:3]] == [None] * 3
    # The fourth reads nothing of what the third has read.
    assert (reports[3].changed, reports[3].missed) == (None, 1000)


async def test_another_conversation_is_no_change_of_the_last(surface):
    talks = [[sabir.system("Be kind.")] + [sabir.user(f"{name} {at}") for at in range(4)] for name in "abc"]
    with ScriptedServer(Anthropic(), *[counted(300, 700)] * 3, *[counted(1000, 0)] * 3) as server:
        client = served(surface, server)
        reports = [(await client.ask(talk)).cache for talk in (*talks, *talks)]
    assert [report.reason for report in reports] == [None, None, None, None, None, None]


async def test_a_provider_that_only_counts_reads_is_held_to_them(surface):
    openai = PROVIDERS["openai"].dialect
    answers = [counted(read, fresh=2000 - read) for read in (0, 1920, 1920, 0)]
    with ScriptedServer(openai, *answers) as server:
        client = served(surface, server, "openai:gpt-4o")
        chat = client.chat(system="Be kind.")
        reports = [(await chat("?")).cache for _ in range(3)]
        changed = await client.ask([sabir.system("Be brief."), *chat.messages[1:], sabir.user("?")])
    assert [report.hit_rate for report in reports] == [0, 0.96, 0.96]
    assert [report.reason for report in reports] == [None, None, None]
    assert (changed.cache.changed, changed.cache.missed) == ("system", 1920)


async def test_hits_that_never_begin_have_their_reason_named(surface):
    openai = PROVIDERS["openai"].dialect
    with ScriptedServer(openai, *[counted(0, fresh=2000)] * 2) as server:
        client = served(surface, server, "openai:gpt-4o")
        await client.ask("?", system="Be kind at 1.")
        response = await client.ask("!", system="Be kind at 2.")
    assert (response.cache.changed, response.cache.missed, response.cache.cost) == ("system", 0, None)


@pytest.mark.parametrize(
    ("total", "read", "missed"),
    [
        (167, 114, 53),  # a model in this process, which keeps every token
        (2000, 1024, 896),  # blocks of 128: of 2000 tokens 1920 are kept
        (2000, 1920, 0),
        (2000, 1664, 0),  # a few blocks less prove nothing
    ],
)
async def test_where_writes_are_not_told_a_change_is_held_against_the_whole_prompt_before(surface, total, read, missed):
    answers = [counted(0, fresh=total), counted(read, fresh=total - read)]
    with ScriptedServer(PROVIDERS["deepseek"].dialect, *answers) as server:
        client = served(surface, server, "deepseek:deepseek-chat")
        await client.ask("?", system="Be kind.", tools=[look, wait])
        report = (await client.ask("?", system="Be kind.", tools=[wait, look])).cache
    assert (report.changed, report.missed) == ("tools" if missed else None, missed)


async def test_a_shorter_prompt_misses_no_more_than_it_has(surface):
    answers = [counted(4992, fresh=8), counted(480, fresh=20), counted(4992, fresh=8), counted(100, fresh=400)]
    with ScriptedServer(PROVIDERS["deepseek"].dialect, *answers) as server:
        reports = []
        for _ in range(2):
            client = served(surface, server, "deepseek:deepseek-chat")
            await client.ask("?", system="Be kind.", tools=[look])
            reports.append((await client.ask("?", system="Be brief.", tools=[look])).cache)
    assert [(report.changed, report.missed) for report in reports] == [(None, 0), ("system", 400)]


async def test_a_change_that_costs_a_third_of_what_was_written_is_named(surface):
    with ScriptedServer(Anthropic(), counted(0, 1000), counted(650, 350)) as server:
        client = served(surface, server)
        await client.ask("?", system="Be kind.", tools=[look])
        report = (await client.ask("?", system="Be brief.", tools=[look])).cache
    assert (report.changed, report.missed) == ("system", 350)


async def test_a_provider_that_tells_nothing_is_blamed_for_nothing(surface):
    with ScriptedServer(PROVIDERS["openai"].dialect, *[counted()] * 2) as server:
        client = served(surface, server, "openai:gpt-4o")
        reports = [(await client.ask("?", system=f"Be kind at {at}.")).cache for at in range(2)]
    assert reports == [CacheReport(), CacheReport()]
    assert str(reports[0]) == "hit rate not told"


async def test_a_prompt_that_is_too_small_to_be_kept_is_said_to_be(surface, monkeypatch):
    dialect = PROVIDERS["openai"].dialect
    with ScriptedServer(dialect, counted(0, fresh=1000), counted(0, fresh=1024)) as server:
        monkeypatch.setitem(PROVIDERS, "lilliput", sabir.Provider("lilliput", dialect, url=server.url))
        client = surface.client("lilliput:gpt-4o", api_key="k", cache=True)
        small, large = await client.ask("?"), await client.ask("!")
    assert small.cache.reason == "the prompt has 1000 tokens, and of this model none under 1024 are kept"
    assert large.cache.reason is None


async def test_marks_alone_are_watched_too_and_moving_one_changes_nothing(surface):
    with ScriptedServer(Anthropic(), counted(0, 1000), counted(1000, 100), counted(0, 1200)) as server:
        client = served(surface, server, cache=None)
        talk = [cached(sabir.system("Be kind.")), sabir.user("a")]
        await client.ask(talk)
        talk = [sabir.system("Be kind."), cached(sabir.user("a")), sabir.assistant("b"), sabir.user("c")]
        moved = await client.ask(talk)
        changed = await client.ask([cached(sabir.system("Be brief.")), *talk[1:]])
    assert moved.cache.reason is None
    assert changed.cache.changed == "system"


async def test_without_a_wish_nothing_is_remembered_and_hits_are_told_all_the_same(surface):
    with ScriptedServer(Anthropic(), counted(900, 0), counted(0, 900)) as server:
        client = served(surface, server, cache=None)
        first = await client.ask("?", system="Be kind.")
        second = await client.ask("?", system="Be brief.")
    assert first.cache == CacheReport(hit_rate=0.9, read=900, written=0)
    assert second.cache == CacheReport(hit_rate=0.0, read=0, written=900)


async def test_a_call_can_want_it_and_another_not(surface):
    with ScriptedServer(Anthropic(), *[counted(0, 10)] * 3) as server:
        client = served(surface, server)
        await client.ask("?")
        await client.ask("?", cache=False)
        await client.chat(cache="1h")("?")
    marks = [request.messages[-1].parts[-1].cache for request in server.requests]
    assert marks == [True, None, "1h"]


async def test_a_stream_has_the_same_report(surface):
    with ScriptedServer(Anthropic(), counted(0, 1000), counted(0, 1000)) as server:
        client = served(surface, server)
        await client.ask("?", system="Be kind.")
        stream = client.stream("?", system="Be brief.")
        async for _ in stream:
            pass
    assert (stream.response.cache.changed, stream.response.cache.missed) == ("system", 1000)


# What is remembered


def request_of(*texts: str, **fields: Any) -> Request:
    return Request(model="m", messages=tuple(sabir.user(text) for text in texts), cache=True, **fields)


def test_a_client_remembers_only_so_much():
    memory = PromptMemory()
    for at in range(3 * MOST_REQUESTS):
        watch = Watch(memory, "m", lambda *_: None, None)
        watch.saw(request_of(f"{at}", "b", "c"), Usage(input=1, cache_read=0), Message("assistant", ()))
    assert len(memory) == MOST_REQUESTS
    assert len(fingerprint(request_of(*map(str, range(3000))))) == 8 * MOST_SECTIONS


def test_a_conversation_that_goes_on_takes_one_place():
    memory = PromptMemory()
    for at in range(1, 20):
        watch = Watch(memory, "m", lambda *_: None, None)
        watch.saw(request_of(*map(str, range(at))), Usage(input=1, cache_read=0), Message("assistant", ()))
    assert len(memory) == 1


@pytest.mark.parametrize(
    "odd",
    [
        Text(text="a", notes=({"url": "x"},)),
        Text(text="a", state=own({"set": {"x": [1]}})),
        sabir.Value(value={"a": object()}),
        sabir.Value(value=float("nan")),
        sabir.Image(data=b"x" * 1000, media_type="image/png"),
    ],
)
def test_whatever_a_message_holds_has_a_fingerprint(odd):
    one, other = (
        fingerprint(Request(model="m", messages=(Message("user", (*parts,)),))) for parts in ((odd,), (odd, odd))
    )
    assert len(one) == len(other)
    assert one[:-8] == other[:-8]
    assert one != other


async def test_threads_share_a_memory(surface):
    with ScriptedServer(Anthropic(), *[counted(0, 10)] * 40) as server:
        client = served(surface, server)
        reports = await surface.at_once(*[lambda at=at: client.ask(f"{at}?", system=f"{at}") for at in range(40)])
    assert len(reports) == 40


# Advice


@pytest.mark.parametrize(
    "passing",
    [
        "2026-11-21T17:26:55",
        "2026-11-21 17:26",
        "Current time: 17:26",
        "current date and time is Saturday, 21",
        "Today's date: 2026-11-21",
        "Nov 21 18:28:14 2026",
        time.ctime().partition(" ")[2],
        "Today is 2026-11-21",
        "now is 18:28",
        "Nov 21, 2026 6:28 PM",
        "21 November 2026 at 18:28",
        "21/11/2026 18:28",
        "18:28 on 21/11/2026",
        "The time is 6:28 PM",
        "It is Saturday, Nov 21",
        str(int(time.time())),
        str(int(time.time() * 1000)),
        "1b4e28ba-2fa1-11d2-883f-0016d3cca427",
    ],
)
def test_what_changes_with_every_call_is_found_in_the_system_message(passing):
    with sabir.Client(CLAUDE, api_key="k") as client:
        told = client.explain("hi", system=f"Be kind. {passing} Be brief.", cache=True).notices
        (advice,) = [notice for notice in told if notice.kind == "advice"]
        assert passing in advice.message
        assert "move it to the end" in advice.message
        assert not any(notice.kind == "advice" for notice in client.explain("hi", system=passing).notices)
        assert not any(notice.kind == "advice" for notice in client.explain(passing, cache=True).notices)


@pytest.mark.parametrize(
    "lasting",
    [
        "Since 2019 we have 1234567890 stars.",
        "Call +49-1512345678.",
        "Call 1512345678.",
        "Open from 9:00 to 17:00.",
        "Release date: 2024-01-01.",
        "Check-in time is 15:00.",
        "It may be 12:30, may it not?",
        "Open from 9 to 5.",
        "Version 2026-11-21.",
        "id a1b2",
    ],
)
def test_other_numbers_are_left_alone(lasting):
    with sabir.Client(CLAUDE, api_key="k") as client:
        told = client.explain("hi", system=f"Be kind. {lasting}", cache=True).notices
    assert not any(notice.kind == "advice" for notice in told)


def test_advice_is_on_what_is_kept():
    def advised(*parts: Any, question: Any = "q") -> int:
        with sabir.Client(CLAUDE, api_key="k") as client:
            told = client.explain([Message("system", parts), sabir.user(question)]).notices
        return sum(notice.kind == "advice" for notice in told)

    now = Text(text="It is 2026-11-21T17:26:55.")
    assert advised(cached("It is 2026-11-21T17:26:55.")) == 1
    assert advised(now, cached("Be kind.")) == 1
    assert advised(now, question=cached("q")) == 1
    assert advised(cached("Be kind."), now) == 0
    assert advised(now) == 0


async def test_the_advice_stands_once_among_the_warnings(surface):
    with ScriptedServer(Anthropic(), calling(0, 10), counted(0, 10)) as server:
        client = served(surface, server)
        system = "It is 2026-11-21T17:26:55, and was 2026-11-21T17:26:54."
        response = await client.ask("Look!", system=system, tools=[look])
    assert [notice.kind for notice in response.warnings if notice.subject == "cache"] == ["advice"]


# The model inside


async def test_the_model_inside_tells_what_another_order_of_the_tools_costs(surface):
    client = surface.client("pico", cache=True, temperature=0.0, max_tokens=8)
    await client.ask("What is 2 + 3?", system="Be kind.", tools=[look, wait], tool_choice="none")
    other = (await client.ask("What is 2 + 3?", system="Be kind.", tools=[wait, look], tool_choice="none")).cache
    assert other.changed == "tools"
    assert other.missed > 20


async def test_the_model_inside_finds_a_prompt_again_and_says_what_was_changed(surface):
    client = surface.client("pico", cache=True, temperature=0.0, max_tokens=8)
    chat = client.chat(system="You are helpful. " * 20)
    await chat("What is 2 + 3?")
    again = await chat("And 4 + 4?")
    assert again.cache.read > 100
    assert again.cache.hit_rate > 0.5
    assert again.cache.reason is None
    other = client.chat(messages=[sabir.system("Be brief. " * 20), *chat.messages[1:]])
    changed = await other("And 5 + 5?")
    assert (changed.cache.changed, changed.cache.hit_rate) == (
        "system",
        changed.cache.read / changed.usage.input_tokens,
    )
    assert changed.cache.missed > 50
    assert changed.cache.read < again.cache.read / 2
    assert changed.cache.cost is None
    # From here on the new prompt is the one that is found.
    assert (await other("And 6 + 6?")).cache.reason is None
