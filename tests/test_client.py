"""A client: its models, its options and theirs, what it refuses before anything is sent, and how it closes."""

from __future__ import annotations

import asyncio
import gc
import re
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from fakes import ChatServer, Waiting
from servers import Server, whole

import sabir
from sabir import (
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    ConnectError,
    Image,
    SabirError,
    SabirWarning,
    Text,
    Tool,
    ToolSpec,
    UnsupportedError,
    system,
    user,
)
from sabir.deltas import Close, Finish, Head, Open
from sabir.deltas import Text as TextDelta
from sabir.providers import PROVIDERS
from sabir.testing import Scripted

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)


def double(number: int) -> int:
    return 2 * number


async def read(stream: Any, most: int = 1000) -> list[Any]:
    chunks = []
    async for chunk in stream:
        chunks.append(chunk)
        if len(chunks) == most:
            break
    return chunks


def imported(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


# Options


async def test_an_option_of_the_call_goes_over_the_chats_and_that_over_the_clients(surface):
    engine = Scripted(*"abcdef")
    client = surface.client(engine, temperature=0.1, top_p=0.1, seed=1)
    chat = client.chat(temperature=0.2, top_p=0.2)
    await client.ask("?")
    await client.ask("?", temperature=0.3)
    await chat("?")
    await chat("?", temperature=0.3)
    await chat("?")
    await client.ask("?")
    asked = [(request.temperature, request.top_p, request.seed) for request in engine.requests]
    assert asked == [(0.1, 0.1, 1), (0.3, 0.1, 1), (0.2, 0.2, 1), (0.3, 0.2, 1), (0.2, 0.2, 1), (0.1, 0.1, 1)]


async def test_none_is_unset_and_leaves_what_is_below(surface):
    engine = Scripted(*"abc")
    client = surface.client(engine, temperature=0.1, stop=None, max_tokens=None)
    await client.ask("?", temperature=None, tools=None, model=None, max_tool_rounds=None, system=None, seed=None)
    await client.chat(temperature=None)("?")
    await client.ask("?", temperature=0.0, thinking=False)
    assert [request.temperature for request in engine.requests] == [0.1, 0.1, 0.0]
    assert engine.requests[0].max_tokens is None
    assert engine.requests[2].thinking is False


async def test_headers_and_extra_are_joined_key_by_key_and_nothing_given_is_changed(surface):
    engine = Scripted(*"abc")
    below = {"headers": {"a": "1", "b": "1"}, "extra": {"x": {"deep": 1}, "y": 1}}
    chats = {"headers": {"b": "2", "c": "2"}}
    calls = {"headers": {"c": "3"}, "extra": {"x": 3}, "stop": ["a"]}
    client = surface.client(engine, **below)
    chat = client.chat(**chats)
    await chat("?", **calls)
    await chat("?")
    await client.ask("?")
    assert [dict(request.headers) for request in engine.requests] == [
        {"a": "1", "b": "2", "c": "3"},
        {"a": "1", "b": "2", "c": "2"},
        {"a": "1", "b": "1"},
    ]
    assert [dict(request.extra) for request in engine.requests] == [
        {"x": 3, "y": 1},
        {"x": {"deep": 1}, "y": 1},
        {"x": {"deep": 1}, "y": 1},
    ]
    assert below == {"headers": {"a": "1", "b": "1"}, "extra": {"x": {"deep": 1}, "y": 1}}
    assert chats == {"headers": {"b": "2", "c": "2"}}
    assert calls == {"headers": {"c": "3"}, "extra": {"x": 3}, "stop": ["a"]}


async def test_what_a_caller_changes_afterwards_does_not_reach_the_client(surface):
    engine = Scripted("a")
    headers, stop = {"a": "1"}, ["x"]
    client = surface.client(engine, headers=headers, stop=stop)
    headers["a"] = "2"
    stop.append("y")
    await client.ask("?")
    assert dict(engine.requests[0].headers) == {"a": "1"}
    assert engine.requests[0].stop == ("x",)


async def test_stop_is_a_text_or_several(surface):
    engine = Scripted(*"abc")
    client = surface.client(engine)
    for stop in ("x", ["x", "y"], ("x",)):
        await client.ask("?", stop=stop)
    assert [request.stop for request in engine.requests] == [("x",), ("x", "y"), ("x",)]


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("video", "files=[sabir.video(…)]"),
        ("reasoning_effort", "thinking="),
        ("max_completion_tokens", "max_tokens="),
        ("response_format", "schema="),
        ("stop_sequences", "stop="),
    ],
)
async def test_what_others_call_an_option_leads_to_it(surface, wrong, meant):
    client = surface.client(Scripted())
    with pytest.raises(ConfigurationError, match=re.escape(f"unknown option '{wrong}'; did you mean {meant}?")):
        await client.ask("?", **{wrong: 1})


def test_what_only_some_servers_take_is_led_to_extra():
    with pytest.raises(
        ConfigurationError, match=r"there are: api_key, .*; .* goes in extra=\{'keep_alive': …\}, as it is"
    ):
        sabir.Client(Scripted(), keep_alive="10m")
    with pytest.raises(ConfigurationError, match=r"did you mean extra=\{'options': \{'num_ctx': …\}\}"):
        sabir.Client(Scripted(), num_ctx=8192)
    with pytest.raises(ConfigurationError, match=r"did you mean max_attempts=\?"):
        sabir.Client(Scripted(), max_retries=5)
    with pytest.raises(
        ConfigurationError, match=r"images is an option of a call, not of the client: ask\(…, images=…\)"
    ):
        sabir.Client(Scripted(), images=[])


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"cache": "2h"}, "cache is one of True, False, '5m', '1h', not '2h'"),
        ({"cache": 5}, "cache is one of True, False, '5m', '1h', not 5"),
        ({"logprobs": "yes"}, "logprobs is one of True, False, not 'yes'"),
        ({"schema_mode": "strict"}, "schema_mode is one of native, grammar, tool, json, prompt, not 'strict'"),
        ({"thinking": "max"}, "thinking is False, True, one of 'minimal', 'low', 'medium', 'high', or"),
    ],
    ids=str,
)
async def test_an_option_of_a_few_values_names_them(surface, option, words):
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        await surface.client(Scripted()).ask("?", **option)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("temprature", "temperature"), ("max_token", "max_tokens"), ("modle", "model"), ("tool", "tools"), ("xyz", None)],
)
async def test_an_unknown_option_names_the_nearest(surface, wrong, near):
    engine = Scripted()
    words = f"unknown option '{wrong}'; " + (f"did you mean '{near}'" if near else "there are: ")
    client = surface.client(engine)
    for begin in (
        lambda: client.ask("?", **{wrong: 1}),
        lambda: client.chat()("?", **{wrong: 1}),
        lambda: read(client.stream("?", **{wrong: 1})),
    ):
        with pytest.raises(ConfigurationError, match=words):
            await begin()
    with pytest.raises(ConfigurationError, match=words):
        client.chat(**{wrong: 1})
    assert engine.requests == []


@pytest.mark.parametrize("wrong", ["api_keys", "baseurl", "timeouts", "hook"])
async def test_an_unknown_setting_names_the_nearest(surface, wrong):
    with pytest.raises(ConfigurationError, match="did you mean"):
        surface.client(Scripted(), **{wrong: 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", "hot"),
        ("temperature", True),
        ("max_tokens", 1.5),
        ("max_tokens", "10"),
        ("stop", 5),
        ("stop", [5]),
        ("seed", "x"),
        ("n", "two"),
        ("thinking", "very hard"),
        ("thinking", 1.5),
        ("headers", ["a"]),
        ("headers", {"a": 1}),
        ("extra", "x"),
        ("user", 5),
        ("logprobs", "yes"),
        ("parallel_tool_calls", "no"),
        ("tool_choice", 5),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_p", 1.1),
        ("top_p", -1),
        ("top_k", -1),
        ("min_p", 2),
        ("max_tokens", 0),
        ("max_tokens", -5),
        ("repetition_penalty", -1),
        ("top_logprobs", -1),
        ("n", 0),
        ("thinking", -1),
        ("thinking", "max"),
        ("headers", {"Content-Length": "5"}),
        ("headers", {"transfer-encoding": "chunked"}),
        ("headers", {"x-a": "1", "X-A": "2"}),
        ("headers", {"x a": "1"}),
        ("headers", {"x-a": "1\r\nx-b: 2"}),
    ],
    ids=lambda value: str(value),
)
async def test_an_option_of_a_wrong_value_is_refused_by_name(surface, name, value):
    engine = Scripted()
    words = "header" if name == "headers" else name
    with pytest.raises(ConfigurationError, match=words):
        await surface.client(engine).ask("?", **{name: value})
    with pytest.raises(ConfigurationError, match=words):
        surface.client(engine, **{name: value})
    with pytest.raises(ConfigurationError, match=words):
        surface.client(engine).chat(**{name: value})
    assert engine.requests == []


async def test_how_much_to_think_is_said_with_what_there_is(surface):
    with pytest.raises(ConfigurationError, match=r"'minimal', 'low', 'medium', 'high', or the most tokens.*not 'max'"):
        await surface.client(Scripted()).ask("?", thinking="max")


@pytest.mark.parametrize(
    "model", ["anthropic:claude-sonnet-4-6", "openai:gpt-4o", "cohere:command-a-reasoning-08-2025"]
)
async def test_no_tokens_to_think_are_no_thinking(surface, model):
    client = surface.client(model, api_key="sk-made-up")
    assert client.explain("?", thinking=0) == client.explain("?", thinking=False)


# By option: a value that is what happens anyway, and one that is not.
MEANT = {
    "n": (1, 2),
    "logprobs": (False, True),
    "documents": ([], ["It rained."]),
    "frequency_penalty": (0, 0.5),
    "presence_penalty": (0.0, 0.5),
    "repetition_penalty": (1, 1.1),
    "min_p": (0, 0.1),
    "parallel_tool_calls": (True, False),
}


@pytest.mark.parametrize("model", ["anthropic:m", "gemini:m", "cohere:m", "mistral:m", "openai-responses:m"])
@pytest.mark.parametrize("option", MEANT)
async def test_a_wish_that_is_met_by_nothing_is_not_said_to_be_unmet(surface, model, option):
    client = surface.client(model, api_key="sk-made-up")
    met, unmet = MEANT[option]
    told = [notice.subject for notice in client.explain("?", tools=[double], **{option: met}).notices]
    assert option not in told
    shown, nothing = client.explain("?", tools=[double], **{option: unmet}), client.explain("?", tools=[double])
    assert shown.body != nothing.body or option in [notice.subject for notice in shown.notices]


@pytest.mark.parametrize("model", ["anthropic:m", "openai-chat:m", "gemini:m", "mistral:m", "ollama:m"])
async def test_without_tools_there_is_nothing_to_choose(surface, model):
    client = surface.client(model, **({} if model == "ollama:m" else {"api_key": "sk-made-up"}))
    nothing = client.explain("?")
    for moot in ({"tool_choice": "none"}, {"tool_choice": "auto", "parallel_tool_calls": False}):
        shown = client.explain("?", **moot)
        assert (shown.body, shown.notices) == (nothing.body, nothing.notices)
    shown = client.explain("?", tool_choice="required")
    assert shown.body == nothing.body
    assert [(it.kind, it.subject) for it in shown.notices if it not in nothing.notices] == [
        ("unsupported", "tool_choice")
    ]


async def test_tools_that_only_the_provider_knows_can_be_chosen(surface):
    shown = surface.client("openai-chat:m", api_key="sk-made-up").explain(
        "?", tool_choice="required", extra={"tools": [{"type": "web_search"}]}
    )
    assert (shown.body["tool_choice"], shown.notices) == ("required", ())


async def test_the_likeliest_tokens_are_asked_for_with_their_probabilities(surface):
    client = surface.client("openai-chat:m", api_key="sk-made-up")
    assert client.explain("?", top_logprobs=3).body["logprobs"] is True
    shown = client.explain("?", top_logprobs=3, logprobs=False)
    assert "top_logprobs" not in shown.body
    assert [notice.subject for notice in shown.notices] == ["top_logprobs"]


async def test_a_header_is_sent_once_and_as_it_is_given_but_for_the_key(surface):
    with ChatServer() as server:
        client = surface.client("openai-chat:m", base_url=server.url, api_key="sk-made-up")
        given = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "mine",
            "Authorization": "Bearer mine",
        }
        shown = client.explain("?", headers=given)
        assert {name.lower(): value for name, value in shown.headers.items()} == {
            "content-type": given["Content-Type"],
            "user-agent": "mine",
            "authorization": "…",
        }
        with pytest.warns(SabirWarning, match="the header Authorization was not sent: .*pass api_key= instead"):
            response = await client.ask("?", headers=given)
    assert [notice.subject for notice in response.warnings] == ["headers"]
    (asked,) = server.asked
    assert asked.headers["content-type"] == given["Content-Type"]
    assert asked.headers["authorization"] == "Bearer sk-made-up"


@pytest.mark.parametrize("value", [1, 0.5, 2])
async def test_a_whole_number_is_a_temperature(surface, value):
    engine = Scripted("a")
    await surface.client(engine).ask("?", temperature=value)
    assert engine.requests[0].temperature == value


async def test_tool_choice_names_a_tool_of_the_call(surface):
    engine = Scripted(*"abcd")
    client = surface.client(engine, tools=[double], max_tool_rounds=0)
    for choice in ("auto", "none", "required", "double"):
        await client.ask("?", tool_choice=choice)
    assert [request.tool_choice for request in engine.requests] == ["auto", "none", "required", "double"]
    with pytest.raises(ConfigurationError, match="the tools are: double"):
        await client.ask("?", tool_choice="triple")


# Models


async def test_a_client_knows_the_models_it_was_made_with(surface):
    one, two = Scripted("from one", "again one", name="one"), Scripted("from two", "two again", name="two")
    client = surface.client([one, two])
    assert client.models == ("one", "two")
    assert client.default_model == "one"
    assert (await client.ask("?")).text == "from one"
    assert (await client.ask("?", model="two")).text == "from two"
    client.default_model = "two"
    assert client.default_model == "two"
    assert client.models == ("one", "two")
    assert (await client.ask("?")).text == "two again"
    with pytest.raises(ConfigurationError):
        client.default_model = "zzzzzz:x"
    assert client.default_model == "two"


@pytest.mark.parametrize("models", [[], ()], ids=repr)
async def test_a_client_without_a_model_is_refused(surface, models):
    with pytest.raises(ConfigurationError, match="at least one model"):
        surface.client(models)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("opnai:gpt-4o", "did you mean 'openai'"),
        (
            "zzzzzz:x",
            "unknown provider 'zzzzzz'.* as in 'ollama:zzzzzz:x', .*'openai-compat:<model id>@http://host/v1'",
        ),
        ("llama3.2:1b", "unknown provider 'llama3.2'.* as in 'ollama:llama3.2:1b'"),
        ("OpenAI:gpt-4o", "unknown provider 'OpenAI'.*; did you mean 'openai'"),
        ("claude:x", "unknown provider 'claude'.*; did you mean 'anthropic'"),
        ("nvidia_nim:x", "unknown provider 'nvidia_nim'.*; did you mean 'nvidia'"),
        ("gpt-4o", "names no provider: write it as 'provider:model', as in 'openai:gpt-4o'$"),
        ("claude-sonnet-4-6", "names no provider: .*, as in 'anthropic:claude-sonnet-4-6'$"),
        ("claude", "names no provider: .*, as in 'anthropic:<model id>'$"),
        ("no-such-model", "names no provider: .*, as in 'openai:gpt-4o-mini'$"),
        ("openai", "names no model|names no provider"),
        ("openai:", "names no model: write 'openai:<model id>'"),
        ("", "named by a string like"),
        ("  ", "named by a string like"),
        (":", "unknown provider"),
        ("pico:large", "has one model: write 'pico'"),
        ("pico@http://localhost:1/v1", "takes no address"),
        ("openai:x;see", "unknown capability 'see'.*there are: .*vision"),
        ("openai:x@ftp://host", "base_url must look like"),
        ("openai:x@http://", "base_url must look like"),
        ("openai:x@https://host/v1?key=1", "no query"),
        ("openai:x@https://me:secret@host/v1", "pass a key as api_key"),
        (7, "named by a string or is an engine, not int"),
        ({"model": "x"}, "named by a string or is an engine, not dict"),
        ([None], "named by a string or is an engine, not NoneType"),
        (["openai:x", ""], "named by a string like"),
        (print, "named by a string or is an engine"),
        (b"openai:x", "named by a string"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_model_that_is_none_is_refused_with_what_to_write(surface, model, words):
    with pytest.raises(ConfigurationError, match=words):
        surface.client(model, api_key="k")


@pytest.mark.parametrize("model", ["zzzzzz:x", "gpt-4o", "", 7, ["openai:x"]], ids=repr)
async def test_a_wrong_model_of_a_call_is_refused(surface, model):
    engine = Scripted()
    client = surface.client(engine)
    with pytest.raises(ConfigurationError):
        await client.ask("?", model=model)
    with pytest.raises(ConfigurationError):
        client.default_model = model
    assert client.default_model == "scripted"


async def test_a_bare_id_is_another_model_of_the_same_provider(surface):
    with ChatServer() as server:
        client = surface.client("openai:small", base_url=server.url, api_key="sk-test")
        chat = client.chat(model="middle")
        await client.ask("?")
        await client.ask("?", model="large:free")
        await client.ask("?", model=f"openai:huge@{server.url}")
        await chat("?")
        await chat("?", model="other")
        client.default_model = "new"
        assert client.default_model == "openai:new"
        await client.ask("?")
    assert [asked.body["model"] for asked in server.asked] == ["small", "large:free", "huge", "middle", "other", "new"]
    assert {asked.path for asked in server.asked} == {"/v1/chat/completions"}
    assert {asked.headers.get("authorization") for asked in server.asked} == {"Bearer sk-test"}


async def test_sabir_model_names_the_model_where_none_is_given(surface, monkeypatch):
    with ChatServer() as server:
        monkeypatch.setenv("SABIR_MODEL", f"vllm:tiny@{server.url}")
        client = surface.client()
        assert client.models == ("vllm:tiny",)
        assert (await client.ask("?")).text == "Hello there!"
    monkeypatch.setenv("SABIR_MODEL", "zzzzzz:x")
    with pytest.raises(ConfigurationError, match="zzzzzz"):
        surface.client()


async def test_one_key_is_not_for_several_providers(surface, monkeypatch):
    monkeypatch.setenv("GROQ_API_KEY", "gsk-test")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    with pytest.raises(ConfigurationError, match="make a client for each"):
        surface.client(["openai:x", "groq:y"], api_key="sk-made-up")
    with pytest.raises(ConfigurationError, match="make a client for each"):
        surface.client(["openai:x", "groq:y"], base_url="http://127.0.0.1:1/v1")
    assert surface.client(["openai:x", "groq:y"]).models == ("openai:x", "groq:y")


@pytest.mark.parametrize(
    ("provider", "variable"),
    [("openai", "OPENAI_API_KEY"), ("groq", "GROQ_API_KEY"), ("deepseek", "DEEPSEEK_API_KEY")],
)
async def test_a_missing_key_names_its_variable(surface, provider, variable, monkeypatch):
    for value in (None, "", "  "):
        monkeypatch.delenv(variable, raising=False)
        if value is not None:
            monkeypatch.setenv(variable, value)
        with pytest.raises(ConfigurationError, match=f"set the environment variable {variable}, or pass api_key="):
            surface.client(f"{provider}:x")
    client = surface.client(Scripted())
    with pytest.raises(ConfigurationError, match=variable):
        await client.ask("?", model=f"{provider}:x")


@pytest.mark.parametrize("key", ["", "sk-\n", "sk-ключ", "sk \x00", 5, b"sk"], ids=repr)
async def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(surface, key):
    with pytest.raises(ConfigurationError, match="api_key is no usable key") as caught:
        surface.client("openai:x", api_key=key)
    assert "sk-" not in str(caught.value)


# What is refused before anything is sent


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (None, "a prompt is a text, messages or parts, not NoneType"),
        (5, "not int"),
        (b"Hello", "not bytes"),
        ([], "no messages"),
        ((), "no messages"),
        ([5], "a message is"),
        (["text", user("x")], "a message is"),
        ([{"role": "user"}], "a message is"),
        ({"role": "robot", "content": "x"}, "'robot' is no role.*there are: system, user, assistant"),
        ({"role": "tool", "content": "x"}, "'tool' is no role"),
        ({"role": "user", "content": ["x"]}, "a message is"),
        ({"role": "user", "content": "x", "name": "y"}, "a message is"),
        (iter(["x"]), "a prompt is a text"),
        ({"x"}, "not set"),
        ("", "there is nothing to ask: the prompt is blank"),
        (" \n", "the prompt is blank"),
        ([user("x"), user(" ")], "the prompt is blank"),
        ([user("x"), system("y"), user()], "the prompt is blank"),
        (system("x"), "only a system message; add a user's"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_a_prompt_that_is_none_is_refused_with_what_to_write(surface, prompt, words):
    engine = Scripted()
    client = surface.client(engine)
    with pytest.raises(ConfigurationError, match=words):
        await client.ask(prompt)
    with pytest.raises(ConfigurationError, match=words):
        client.stream(prompt)
    with pytest.raises(ConfigurationError, match=words):
        await client.chat()(prompt)
    assert engine.requests == []


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        ({"images": "a.png"}, ConfigurationError, "takes a list"),
        ({"images": b"..."}, ConfigurationError, "takes a list"),
        ({"images": 5}, ConfigurationError, "takes a list"),
        ({"images": ["/nowhere/a.png"]}, ConfigurationError, "'/nowhere/a.png' cannot be read: No such file"),
        ({"images": ["/"]}, ConfigurationError, "cannot be read: Is a directory"),
        ({"images": [b"GIF8"]}, ConfigurationError, "must be PNG, JPEG, GIF or WebP"),
        ({"images": [__file__]}, ConfigurationError, "must be PNG, JPEG, GIF or WebP"),
        ({"images": ["data:image/png;base64,%%%"]}, ConfigurationError, "data URL"),
        ({"images": ["data:image/png"]}, ConfigurationError, "data URL"),
        ({"images": [5]}, ConfigurationError, "an image is a path, bytes, a URL"),
        ({"images": ["a\0b.png"]}, ConfigurationError, "cannot be read"),
        ({"system": 5}, ConfigurationError, "system= is a text"),
        ({"tools": double}, ConfigurationError, "tools"),
        ({"tools": 5}, ConfigurationError, "tools"),
        ({"tools": "double"}, ConfigurationError, "tool"),
        ({"tools": [5]}, ConfigurationError, "a tool is a function, a Tool or a ToolSpec, not int"),
        ({"tools": [double, double]}, ConfigurationError, "two tools are named 'double'"),
        ({"tools": [lambda: 1]}, ConfigurationError, "no name for a tool"),
        ({"tools": [ToolSpec("a b")]}, ConfigurationError, "no name for a tool"),
        ({"tools": [ToolSpec("a", "", True)]}, ConfigurationError, "of the tool 'a' are a JSON Schema of an object"),
        ({"tools": [ToolSpec("a", "", {"type": "string"})]}, ConfigurationError, "are a JSON Schema of an object"),
        ({"max_tool_rounds": -1}, ConfigurationError, "max_tool_rounds is a whole number of at least 0"),
        ({"max_tool_rounds": 1.5}, ConfigurationError, "max_tool_rounds is a whole number"),
        ({"max_tool_rounds": True}, ConfigurationError, "max_tool_rounds is a whole number"),
    ],
    ids=lambda value: repr(value).split(" at 0x")[0] if isinstance(value, dict) else "",
)
async def test_a_wrong_call_is_refused_with_what_to_do(surface, call, kind, words):
    engine = Scripted()
    client = surface.client(engine)
    with pytest.raises(kind, match=words):
        await client.ask("?", **call)
    with pytest.raises(kind, match=words):
        client.stream("?", **call)
    assert engine.requests == []


def bare(number, name: str) -> None: ...


def strange(number: threading.Lock) -> None: ...


def starred(*numbers: int) -> None: ...


@pytest.mark.parametrize(
    ("tool", "words"), [(bare, "number"), (strange, "number"), (starred, "numbers"), (len, "len")], ids=lambda v: str(v)
)
async def test_a_tool_that_cannot_be_described_is_refused_with_its_parameter(surface, tool, words):
    for make in (lambda: surface.client(Scripted(), tools=[tool]), lambda: Tool(tool)):
        with pytest.raises(ConfigurationError, match=words):
            make()
    engine = Scripted()
    with pytest.raises(ConfigurationError, match=words):
        await surface.client(engine).ask("?", tools=[tool])
    assert engine.requests == []


async def test_system_is_said_once(surface):
    engine = Scripted()
    client = surface.client(engine)
    for prompt in ([system("a"), user("b")], [{"role": "system", "content": "a"}, user("b")]):
        with pytest.raises(ConfigurationError, match="system= was given, and the messages begin with a system message"):
            await client.ask(prompt, system="c")
    assert engine.requests == []


async def test_images_go_with_a_message_of_the_user(surface, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    engine = Scripted(*"abcd")
    client = surface.client(engine)
    for source in (path, str(path), PNG, "https://example.org/a.png"):
        await client.ask("?", images=[source])
    part = Image(data=PNG, media_type="image/png")
    assert [request.messages[0].parts[1] for request in engine.requests] == [
        part,
        part,
        part,
        Image(url="https://example.org/a.png"),
    ]
    with pytest.raises(ConfigurationError, match="images= go with a user's message"):
        await client.ask([user("a"), sabir.assistant("b")], images=[PNG])


@pytest.mark.parametrize(
    "address",
    [
        *["localhost:8000", "ftp://host", "http://", "http:///v1", "http://ho st", "", "//host", "http://[::1"],
        *["http://host:port/v1", "http://host:99999", "http://host:0/v1"],
        *["http://host/v1?x=1", "http://host/v1#x", "http://me:pw@host/v1"],
    ],
)
async def test_a_base_url_that_is_none_is_refused_with_what_to_write(surface, address):
    with pytest.raises(ConfigurationError, match="base_url") as caught:
        surface.client("openai:x", base_url=address, api_key="k")
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("address", [5, b"http://host/v1", ["http://host"], Path("http://host")], ids=repr)
async def test_a_base_url_that_is_no_text_is_refused(surface, address):
    with pytest.raises(ConfigurationError, match="base_url"):
        surface.client("openai:x", base_url=address, api_key="k")


@pytest.mark.parametrize("name", ["timeout", "idle_timeout", "connect_timeout"])
@pytest.mark.parametrize("value", [0, -1, "5", True, float("nan"), float("inf"), [1]], ids=repr)
async def test_a_timeout_that_is_none_is_refused_by_name(surface, name, value):
    with pytest.raises(ConfigurationError, match=f"^{name} is a number of seconds above 0, or None"):
        surface.client(Scripted(), **{name: value})


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"max_attempts": 0}, "max_attempts is a whole number of at least 1"),
        ({"max_attempts": "3"}, "max_attempts"),
        ({"max_tool_rounds": -1}, "max_tool_rounds"),
        ({"on_unsupported": "explode"}, "on_unsupported is one of warn, raise, ignore"),
        ({"on_unsupported": ["warn"]}, "on_unsupported"),
        ({"hooks": [5]}, "hook"),
        ({"tools": [5]}, "a tool is"),
    ],
    ids=repr,
)
async def test_a_wrong_setting_is_refused_by_name(surface, setting, words):
    with pytest.raises(ConfigurationError, match=words):
        surface.client(Scripted(), **setting)


@pytest.mark.parametrize(
    "setting",
    [{"tools": None}, {"hooks": None}, {"max_attempts": None}, {"max_tool_rounds": None}, {"on_unsupported": None}],
    ids=repr,
)
async def test_none_is_unset_for_a_setting_too(surface, setting):
    assert (await surface.client(Scripted("Fine."), **setting).ask("?")).text == "Fine."


async def test_pico_sees_no_images(surface):
    client = surface.client("pico")
    with pytest.raises(UnsupportedError, match="pico:pico cannot see images; choose another model"):
        await client.ask("What is this?", images=[PNG])
    with pytest.raises(UnsupportedError):
        client.stream([user("What is this?", Image(data=PNG, media_type="image/png"))])


async def test_what_a_model_is_said_to_be_able_to_do_is_checked(surface):
    with ChatServer() as server:
        able = surface.client(f"vllm:x@{server.url};tools,vision")
        await able.ask("?", images=[PNG], tools=[double])
        unable = surface.client(f"vllm:x@{server.url};structured")
        with pytest.raises(UnsupportedError, match="cannot see images"):
            await unable.ask("?", images=[PNG])
        with pytest.raises(UnsupportedError, match="cannot run tools"):
            await unable.ask("?", tools=[double])
        with pytest.raises(UnsupportedError, match="no schema_mode='native' for this call"):
            await able.ask("?", schema={"type": "object"}, schema_mode="native")
    assert len(server.asked) == 1


async def test_an_option_that_cannot_be_expressed_warns_raises_or_is_only_noted(surface):
    with ChatServer() as server:
        model = {"base_url": server.url, "api_key": "sk-made-up"}
        with pytest.warns(SabirWarning, match="top_k was not sent: .*use top_p"):
            response = await surface.client("openai:x", **model).ask("?", top_k=5)
        assert [(notice.kind, notice.subject) for notice in response.warnings] == [("unsupported", "top_k")]
        with pytest.raises(UnsupportedError, match="top_k was not sent"):
            await surface.client("openai:x", on_unsupported="raise", **model).ask("?", top_k=5)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            response = await surface.client("openai:x", on_unsupported="ignore", **model).ask("?", top_k=5)
        assert [notice.subject for notice in response.warnings] == ["top_k"]
    assert len(server.asked) == 2
    assert all("top_k" not in asked.body for asked in server.asked)


async def test_every_refusal_is_of_the_family_and_of_the_builtin_it_resembles(surface):
    client = surface.client(Scripted())
    for wrong in ({"temperature": "hot"}, {"images": ["/nope"]}, {"model": "nope"}):
        with pytest.raises(ValueError, match=r".") as caught:
            await client.ask("?", **wrong)
        assert isinstance(caught.value, SabirError)
    with pytest.raises(ConnectionError) as unreachable:
        await surface.client("vllm:x@http://127.0.0.1:1/v1", max_attempts=1).ask("?")
    assert isinstance(unreachable.value, ConnectError)
    with ChatServer(lambda body: (401, {"error": {"message": "no"}})) as server:
        with pytest.raises(PermissionError) as refused:
            await surface.client(f"vllm:x@{server.url}").ask("?")
        assert isinstance(refused.value, AuthenticationError)
        assert (refused.value.provider, refused.value.model, refused.value.status) == ("vllm", "x", 401)


@pytest.mark.parametrize(
    "call",
    [
        {"extra": {"x": float("nan")}},
        {"extra": {"x": object}},
        {"extra": {"x": {1j}}},
        {"prompt": user(sabir.Value(value=float("inf")))},
        {"prompt": user(sabir.Value(value={1j}))},
    ],
    ids=lambda call: repr(call)[:40],
)
async def test_what_json_cannot_say_is_refused_before_anything_is_sent(surface, call):
    with ChatServer() as server:
        client = surface.client(f"vllm:x@{server.url}")
        with pytest.raises(ConfigurationError):
            await client.ask(**{"prompt": "?", **call})
    assert server.asked == []


# Closing


async def test_a_closed_client_says_so_however_often_it_is_closed(surface):
    client = surface.client(Scripted("one"))
    chat = client.chat()
    client.close()
    client.close()
    await surface.in_thread(client.close)
    for begin in (lambda: client.ask("?"), lambda: read(client.stream("?")), lambda: chat("?")):
        with pytest.raises(ClosedError, match="this client has been closed; make a new one"):
            await begin()
    assert client.default_model == "scripted"


async def test_a_with_block_closes_the_client(surface):
    async with surface.client(Scripted("one")) as client:
        assert (await client.ask("?")).text == "one"
    with pytest.raises(ClosedError):
        await client.ask("?")


@pytest.mark.parametrize("is_elsewhere", [False, True], ids=["here", "in another thread"])
async def test_closing_ends_live_streams(surface, is_elsewhere):
    engine = Waiting("one ", "two ")
    client = surface.client(engine)
    streams = [client.stream("?"), client.chat().stream("?"), client.stream("unread")]
    for stream in streams[:2]:
        await read(stream, most=1)
    if is_elsewhere:
        await surface.in_thread(client.close)
    else:
        client.close()
    for stream in streams:
        assert stream.response.finish_reason == "cancelled"
        with pytest.raises(ClosedError):
            await read(stream)
    assert streams[0].response.text.startswith("one ")


async def test_closing_from_another_thread_wakes_who_waits(surface):
    engine = Waiting("one ")
    client = surface.client(engine)

    def closer() -> None:
        assert engine.is_silent.wait(10)
        client.close()

    thread = threading.Thread(target=closer)
    thread.start()
    with pytest.raises(ClosedError):
        await client.ask("?")
    thread.join(10)
    assert engine.is_left.wait(5)


async def test_closing_from_another_thread_wakes_who_waits_for_a_server(surface):
    asked = threading.Event()
    over = threading.Event()

    def answer(body: Any) -> str:
        asked.set()
        over.wait(10)
        return "late"

    with ChatServer(answer) as server:
        client = surface.client(f"vllm:x@{server.url}")

        def closer() -> None:
            assert asked.wait(10)
            client.close()

        thread = threading.Thread(target=closer)
        thread.start()
        with pytest.raises(ClosedError):
            await client.ask("?")
        thread.join(10)
        over.set()


@pytest.fixture
def hurried_threads():
    """Threads that take turns after every few bytecodes, so that races show."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


async def test_closing_while_many_others_begin_and_end_calls_raises_nothing_but_that_it_is_closed(
    surface, hurried_threads
):
    class Endless:
        name = "endless"

        def deltas(self, request: Any, line: Any) -> Any:
            return Scripted("one two").deltas(request, line)

        def close(self) -> None:
            pass

    for _ in range(5):
        client = surface.client(Endless())
        begun = threading.Barrier(5)
        streams = [client.stream("?") for _ in range(300)]

        def work(client: Any = client, begun: threading.Barrier = begun) -> str:
            own = getattr(client, "inner", None)
            begun.wait(10)
            try:
                while True:
                    if own is not None:
                        own.ask("?")
                    else:
                        asyncio.run(client.ask("?"))
            except ClosedError:
                return "closed"

        def closer(client: Any = client, begun: threading.Barrier = begun) -> str:
            begun.wait(10)
            time.sleep(0.02)
            client.close()
            return "closed"

        ended = await surface.at_once(*[lambda job=job: surface.in_thread(job) for job in [work] * 4 + [closer]])
        assert ended == ["closed"] * 5
        assert all(stream.response.finish_reason == "cancelled" for stream in streams)


async def test_closing_wakes_a_call_that_waits_for_its_tool(surface):
    began, over = threading.Event(), threading.Event()

    def slow() -> None:
        began.set()
        over.wait(30)

    client = surface.client(Scripted(sabir.ToolCall(name="slow")), tools=[slow])

    def closer() -> None:
        assert began.wait(10)
        client.close()

    thread = threading.Thread(target=closer)
    thread.start()
    with pytest.raises(ClosedError):
        await client.ask("?")
    thread.join(10)
    over.set()


async def test_a_stream_keeps_its_client_and_a_chat_does_too(surface):
    """Nothing closes under the hands of who still uses it."""

    def stream() -> Any:
        made = (sabir.Client if surface.is_blocking else sabir.aio.Client)(Scripted("one two"))
        return made.stream("?")

    def chat() -> Any:
        made = (sabir.Client if surface.is_blocking else sabir.aio.Client)(Scripted("one two"))
        return made.chat()

    left = stream()
    gc.collect()
    chunks = list(left) if surface.is_blocking else [chunk async for chunk in left]
    assert chunks[-1].phase == "done"
    kept = chat()
    gc.collect()
    assert (kept("?") if surface.is_blocking else await kept("?")).text == "one two"


async def test_a_client_that_is_dropped_lets_its_streams_go(surface):
    engine = Waiting("one ")
    made = (sabir.Client if surface.is_blocking else sabir.aio.Client)(engine)
    stream = made.stream("?")
    if surface.is_blocking:
        next(stream)
    else:
        await anext(stream)
    del stream, made
    gc.collect()
    assert surface.name == "asyncio" or engine.is_left.wait(5)


LAZY = """
import socket, sys, threading
import sabir
sabir.Client("openai:x", api_key="k").chat(system="s")
sabir.Client(["llama-server:x", "vllm:y"], base_url=None)
sabir.aio.Client("groq:x", api_key="k").stream("?")
pico = sabir.Client("pico")
sabir.Client("llamacpp:/nowhere/model.gguf")
assert threading.active_count() == 1, threading.enumerate()
print(*[name for name in ("httptools", "xllamacpp", "pydantic") if name in sys.modules])
"""


def test_nothing_is_connected_or_loaded_before_the_first_call():
    assert imported(LAZY) == []


async def test_nothing_is_sent_by_a_stream_that_is_only_made(surface):
    with ChatServer() as server:
        client = surface.client(f"vllm:x@{server.url}")
        stream = client.stream("?")
        client.chat(system="s")
        assert server.asked == []
        assert len(server.connections) == 0
        await read(stream)
        assert len(server.asked) == 1


async def test_ask_and_stream_over_http_give_the_same_response(surface):
    with ChatServer(lambda body: "one two three") as server:
        client = surface.client(f"vllm:x@{server.url}")
        asked = await client.ask("?")
        stream = client.stream("?")
        chunks = await read(stream)
    assert asked.message.parts == stream.response.message.parts == (Text(text="one two three"),)
    assert asked.usage == stream.response.usage
    assert asked.finish_reason == stream.response.finish_reason == "stop"
    assert [chunk.content for chunk in chunks if chunk.phase == "generating"] == ["one ", "two ", "three"]
    assert [attempt.outcome for attempt in asked.attempts] == ["answered"]
    assert asked.raw["choices"][0]["message"]["content"] == "one two three"
    assert stream.response.raw is None


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("openai:gpt-4o-mini", "/v1/chat/completions"),
        ("openai:gpt-5-chat-latest", "/v1/chat/completions"),
        ("openai:gpt-5-mini", "/v1/responses"),
        ("openai:o3", "/v1/responses"),
        ("openai:ft:o4-mini-2025-04-16:acme::1", "/v1/responses"),
        ("openai:ft:gpt-4o-2024-08-06:acme::1", "/v1/chat/completions"),
        ("openai-chat:o3", "/v1/chat/completions"),
        ("openai-responses:gpt-4o-mini", "/v1/responses"),
        ("openai:o3@https://api.openai.com/v1", "/v1/chat/completions"),
    ],
)
def test_openai_is_spoken_to_in_the_dialect_in_which_reasoning_is_not_lost(model, path):
    with sabir.Client(model, api_key="k" * 20) as client:
        assert client.explain("Hi").url == f"https://api.openai.com{path}"
        # A bare id is looked at by itself.
        assert client.explain("Hi", model="gpt-4o").url.endswith("responses") == model.startswith("openai-responses")


@pytest.mark.parametrize(
    ("model", "kind"), [("ollama:m", "application/x-ndjson"), ("bedrock:m", "application/vnd.amazon.eventstream")]
)
async def test_a_stream_that_was_asked_for_past_us_is_read_as_one(surface, model, kind):
    dialect = PROVIDERS[model.partition(":")[0]].dialect
    encoder = dialect.encoder()
    said = (Head("1", "m"), Open(0, "text"), TextDelta(0, "Hello"), Close(0), Finish("stop"))
    stream = b"".join(map(encoder.feed, said)) + encoder.close()
    with Server(whole(stream, f"Content-Type: {kind}")) as server:
        client = surface.client(f"{model}@{server.url}", api_key="k", extra={"stream": True})
        assert (await client.ask("?")).text == "Hello"


@pytest.mark.parametrize(("name", "value"), [("recover", True), ("tools", []), ("validation_retries", 1)])
async def test_what_is_for_conversations_is_no_option_of_other_calls_and_says_so(surface, name, value):
    client = surface.client("openai:x", api_key="k")
    calls = (client.image, client.stream_image, client.speak, client.stream_speech, client.embed)
    for call in (*calls, lambda text, **options: client.transcribe(b"ID3\x04" + text.encode(), **options)):
        with pytest.raises(ConfigurationError, match=rf"{name} is for conversations, as in ask\(…, {name}=…\)"):
            await call("a", **{name: value})


async def test_a_setting_of_the_client_is_no_option_of_a_call_and_says_so(surface):
    with pytest.raises(ConfigurationError, match=r"timeout is a setting of the client.*Client\(…, timeout=…\)"):
        await surface.client("vllm:x").ask("?", timeout=5)
