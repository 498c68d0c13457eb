"""Keys: to whom one is sent, and that it is shown to nobody."""

from __future__ import annotations

import asyncio
import copy
import io
import logging
import pickle
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from fakes import ChatServer

from sabir import (
    AuthenticationError,
    BadRequestError,
    CallEnded,
    CallStarted,
    ConfigurationError,
    FirstToken,
    Hook,
    NotFoundError,
    PermissionDeniedError,
    Provider,
    SabirError,
    SabirWarning,
    ServerError,
    ToolCall,
    providers,
    register_provider,
)
from sabir.requests import HttpRequest
from sabir.rows import ROWS
from sabir.testing import VirtualClock

SECRET = "sk-made-up-7f3a9c51"
OTHER = "sk-of-the-environment-1b2c3d"


async def read(stream: Any) -> list[Any]:
    return [chunk async for chunk in stream]


def keys_sent(server: ChatServer) -> list[str | None]:
    return [asked.headers.get("authorization") for asked in server.asked]


# To whom, and from where


@pytest.mark.parametrize("status", [401, 403])
async def test_an_error_about_the_key_says_which_was_sent(surface, monkeypatch, tmp_path, status):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(providers, "PROVIDERS", dict(providers.PROVIDERS))
    with ChatServer(lambda _: (status, {"error": {"message": "who are you"}})) as server:
        register_provider(Provider("mine", url=server.url, key=("KEY_OF_MINE", "OTHER_KEY_OF_MINE")))

        async def told(model: str, **settings: Any) -> str:
            with pytest.raises(AuthenticationError if status == 401 else PermissionDeniedError) as caught:
                await surface.client(model, **settings).ask("?")
            assert SECRET not in str(caught.value)
            return str(caught.value).removeprefix(f"who are you (HTTP {status}); ")

        (tmp_path / ".env").write_text(f"KEY_OF_MINE={SECRET}")
        assert await told("mine:m") == "what proves who asks is the key of KEY_OF_MINE, in .env"
        monkeypatch.setenv("OTHER_KEY_OF_MINE", SECRET)
        assert await told("mine:m") == "what proves who asks is the key of OTHER_KEY_OF_MINE"
        assert await told("mine:m", api_key=SECRET) == "what proves who asks is the key of api_key="
        by_function = "what proves who asks is what the function given as api_key= returned"
        assert await told("mine:m", api_key=lambda: SECRET) == by_function
        assert await told(f"vllm:m@{server.url}") == "nothing was sent to prove who asks: pass api_key="


async def test_an_address_that_is_not_there_is_named(surface):
    with ChatServer(lambda _: (404, {"detail": "Not Found"})) as server:
        with pytest.raises(NotFoundError) as caught:
            await surface.client(f"openai-compat:m@{server.url}/v2").ask("?")
        asked = f"{server.url}/v2/chat/completions"
    assert str(caught.value) == f"Not Found (HTTP 404); asked was {asked}: check base_url and the model's id"


async def test_a_given_key_goes_to_the_given_address(surface, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", OTHER)
    with ChatServer() as server:
        client = surface.client("openai:x", base_url=server.url, api_key=SECRET)
        await client.ask("?")
        await read(client.stream("?"))
        await client.ask("?", model="y")
    assert keys_sent(server) == [f"Bearer {SECRET}"] * 3
    assert all(SECRET not in f"{asked.path}{asked.body}" for asked in server.asked)


@pytest.mark.parametrize("how", ["base_url", "model string", "call"])
async def test_the_environments_key_does_not_go_to_a_foreign_address(surface, monkeypatch, how):
    monkeypatch.setenv("OPENAI_API_KEY", OTHER)
    with ChatServer() as server:
        foreign = f"openai:x@{server.url}"
        if how == "base_url":
            await surface.client("openai:x", base_url=server.url).ask("?")
        elif how == "model string":
            await surface.client(foreign).ask("?")
        else:
            await surface.client("openai:x").ask("?", model=foreign)
    assert keys_sent(server) == [None]
    assert OTHER not in str(server.asked)


async def test_a_server_of_ones_own_is_asked_without_a_key(surface, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", OTHER)
    with ChatServer() as server:
        await surface.client(f"vllm:x@{server.url}").ask("?")
        await surface.client(f"vllm:x@{server.url}", api_key=SECRET).ask("?")
    assert keys_sent(server) == [None, f"Bearer {SECRET}"]


async def test_a_given_key_goes_to_its_provider_and_to_no_other(surface, monkeypatch):
    monkeypatch.setenv("GROQ_API_KEY", OTHER)
    with ChatServer() as own, ChatServer() as other:
        client = surface.client(f"openai:x@{own.url}", api_key=SECRET)
        await client.ask("?")
        await client.ask("?", model=f"groq:y@{other.url}")
        await client.ask("?", model=f"vllm:y@{other.url}")
        client.default_model = f"vllm:z@{other.url}"
        await client.ask("?")
        await client.ask("?", model="w")
    assert keys_sent(own) == [f"Bearer {SECRET}"]
    assert keys_sent(other) == [None] * 4


async def test_a_given_key_does_not_go_to_another_address_of_its_provider(surface, monkeypatch):
    """`api_key` with `base_url` belongs to that address; a call that names another has none."""
    monkeypatch.setenv("OPENAI_API_KEY", OTHER)
    with ChatServer() as own, ChatServer() as foreign:
        client = surface.client("openai:x", base_url=own.url, api_key=SECRET)
        await client.ask("?", model=f"openai:x@{foreign.url}")
        await client.ask("?")
    assert keys_sent(own) == [f"Bearer {SECRET}"]
    assert keys_sent(foreign) == [None]


async def test_a_key_for_a_server_of_ones_own_does_not_go_to_the_providers(surface, monkeypatch, no_network):
    """A call that names the provider without an address asks the provider, with the environment's key or none."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with ChatServer() as own:
        for client in (
            surface.client(f"openai:x@{own.url}", api_key=SECRET),
            surface.client([f"openai:x@{own.url}", f"openai:y@{own.url}"], api_key=SECRET),
        ):
            with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
                await client.ask("?", model="openai:y")
            await client.ask("?", model="y")
    assert keys_sent(own) == [f"Bearer {SECRET}"] * 2


async def test_a_redirect_is_not_followed_with_the_key(surface):
    with ChatServer() as foreign, ChatServer(lambda body: (307, {"location": foreign.url})) as own:
        with pytest.raises(BadRequestError, match="redirect"):
            await surface.client(f"openai:x@{own.url}", api_key=SECRET).ask("?")
        assert foreign.asked == []
        assert keys_sent(own) == [f"Bearer {SECRET}"]


async def test_a_header_of_the_caller_does_not_take_the_place_of_the_key(surface):
    with ChatServer() as server:
        client = surface.client(f"openai:x@{server.url}", api_key=SECRET)
        with pytest.warns(SabirWarning, match="the header Authorization was not sent"):
            await client.ask("?", headers={"Authorization": "Bearer other", "X-Mine": "1", "User-Agent": "me/1"})
        keyless = surface.client(f"vllm:x@{server.url}")
        await keyless.ask("?", headers={"Authorization": "Bearer mine"})
    assert keys_sent(server) == [f"Bearer {SECRET}", "Bearer mine"]
    assert server.asked[0].headers["x-mine"] == "1"
    assert server.asked[0].headers["user-agent"] == "me/1"
    assert server.asked[1].headers["user-agent"].startswith("sabir/")


# Shown to nobody


def reachable(start: Any) -> Iterator[Any]:
    """Every object that can be reached by attributes, slots and containers."""
    seen: set[int] = set()
    todo = [start]
    while todo:
        value = todo.pop()
        if id(value) in seen or isinstance(value, (type, str, bytes, int, float, type(sys), asyncio.AbstractEventLoop)):
            continue
        seen.add(id(value))
        yield value
        if isinstance(value, dict):
            todo += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            todo += list(value)
        todo += getattr(value, "__dict__", {}).values()
        for kind in type(value).__mro__:
            slots = kind.__dict__.get("__slots__", ())
            todo += [getattr(value, name, None) for name in ([slots] if isinstance(slots, str) else slots)]
        todo += getattr(value, "__closure__", None) or ()
        if hasattr(value, "cell_contents"):
            todo.append(value.cell_contents)


def shown(value: Any) -> str:
    """All that a person gets to see of an object without asking for it by name."""
    return f"{value!r} {value!s}"


class Seen(Hook):
    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_start(self, event: CallStarted) -> None:
        self.events.append(event)

    def on_first_token(self, event: FirstToken) -> None:
        self.events.append(event)

    def on_end(self, event: CallEnded) -> None:
        self.events.append(event)


def echo_of_the_key(status: int) -> Any:
    """A server that repeats the key it was sent, as some do."""
    words = f"Incorrect API key provided: {SECRET}."
    return lambda body: (status, {"error": {"message": words, "type": SECRET, "code": "bad_key"}})


async def failures(surface: Any, hook: Hook) -> list[BaseException]:
    """Errors of every kind that a client with a key can raise."""
    caught: list[BaseException] = []
    for answer in (*map(echo_of_the_key, (401, 400, 500)), lambda body: (200, {"no": SECRET})):
        with ChatServer(answer) as server:
            client = surface.client(f"openai:x@{server.url}", api_key=SECRET, max_attempts=1, hooks=[hook])
            for begin in (lambda client=client: client.ask("?"), lambda client=client: read(client.stream("?"))):
                try:
                    await begin()
                except SabirError as error:
                    caught.append(error)
    client = surface.client("openai:x@http://127.0.0.1:1/v1", api_key=SECRET, max_attempts=1, hooks=[hook])
    for wrong in ({}, {"temperature": "hot"}, {"headers": {"a": "\n"}}):
        try:
            await client.ask("?", **wrong)
        except SabirError as error:
            caught.append(error)
    client.close()
    try:
        await client.ask("?")
    except SabirError as error:
        caught.append(error)
    assert len(caught) == 12
    assert {type(error) for error in caught} >= {AuthenticationError, BadRequestError, ServerError, ConfigurationError}
    return caught


async def test_a_key_is_in_no_error_that_is_printed_pickled_or_logged(surface, caplog):
    hook = Seen()
    with caplog.at_level(logging.DEBUG):
        caught = await failures(surface, hook)
        for error in caught:
            logging.getLogger("sabir").error("failed", exc_info=error)
    for error in caught:
        text = io.StringIO()
        traceback.print_exception(error, file=text)
        assert SECRET not in text.getvalue()
        assert SECRET not in shown(error)
        assert SECRET not in shown(vars(error))
        assert SECRET not in shown(vars(error).values())
        assert SECRET.encode() not in pickle.dumps(error)
        assert SECRET not in shown(copy.copy(error).args)
        linked = error.__cause__ or error.__context__
        while linked is not None:
            assert SECRET not in shown(linked)
            linked = linked.__cause__ or linked.__context__
    assert SECRET not in caplog.text
    assert SECRET not in shown(hook.events)


async def test_a_key_is_in_no_traceback_that_shows_the_variables_of_the_library(surface):
    """Error reporters (Sentry, rich, pytest -l) print the locals of every frame."""
    for error in await failures(surface, Seen()):
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if "/sabir/" in frame.f_code.co_filename:
                for name, value in frame.f_locals.items():
                    assert SECRET not in repr(value), f"{name} in {frame.f_code.co_qualname}"


async def test_a_client_and_all_it_holds_show_no_key(surface):
    with ChatServer() as server:
        client = surface.client(f"openai:x@{server.url}", api_key=SECRET)
        chat = client.chat()
        response = await chat("?")
        stream = client.stream("?")
        await read(stream)
    inner = getattr(client, "inner", client)
    for start in (inner, getattr(chat, "inner", chat), getattr(stream, "inner", stream), response):
        assert SECRET not in shown(start)
        for value in reachable(start):
            assert SECRET not in shown(value), type(value)


async def test_the_attributes_of_a_client_show_no_key(surface):
    """`vars()` of anything a client holds, as debuggers and reporters print them."""
    client = surface.client("openai:x", api_key=SECRET)
    inner = getattr(client, "inner", client)
    for value in reachable(inner):
        assert SECRET not in repr(getattr(value, "__dict__", "")), type(value)


async def test_a_client_with_a_key_is_not_pickled_with_it(surface):
    client = surface.client("openai:x", api_key=SECRET)
    inner = getattr(client, "inner", client)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        try:
            told = pickle.dumps(inner, protocol)
        except (TypeError, AttributeError, pickle.PicklingError) as error:
            told = str(error).encode()
        assert SECRET.encode() not in told


async def test_a_copied_key_is_as_silent_as_the_key(surface):
    client = surface.client("openai:x", api_key=SECRET)
    keys = [value for value in reachable(getattr(client, "inner", client)) if type(value).__name__ == "Key"]
    assert keys
    for key in keys:
        assert SECRET not in f"{key!r}{key}{key!s:>40}{[key]}"
        assert not hasattr(key, "__dict__")


def test_a_request_shows_the_names_of_its_headers_and_no_value():
    request = HttpRequest("POST", "http://host/v1", (("authorization", f"Bearer {SECRET}"), ("x", "y")), b"{}")
    for text in (repr(request), str(request), f"{request}", repr([request]), repr((request,))):
        assert SECRET not in text
        assert "authorization" in text


async def test_a_key_that_a_server_repeats_is_struck_out_and_the_rest_stays(surface):
    with ChatServer(echo_of_the_key(401)) as server, pytest.raises(AuthenticationError) as caught:
        await surface.client(f"openai:x@{server.url}", api_key=SECRET).ask("?")
    assert "Incorrect API key provided: ***." in str(caught.value)
    assert caught.value.code == "bad_key"
    assert caught.value.status == 401


@pytest.mark.parametrize("key", ["x", "none", "EMPTY"])
async def test_a_stand_in_for_a_key_leaves_messages_readable(surface, key):
    """Servers of one's own want any key at all, and people write a word."""
    words = f"the {key} model does not exist: none of them"
    with ChatServer(lambda body: (404, {"error": {"message": words}})) as server, pytest.raises(SabirError) as caught:
        await surface.client(f"vllm:x@{server.url}", api_key=key).ask("?")
    assert words in str(caught.value)


async def test_a_key_in_what_the_model_says_stays_there(surface):
    """Only errors are swept: an answer is the model's, and is not changed."""
    with ChatServer(lambda body: f"You said {SECRET}") as server:
        response = await surface.client(f"openai:x@{server.url}", api_key=SECRET).ask("?")
    assert response.text == f"You said {SECRET}"


async def test_a_tool_is_not_told_the_key(surface):
    seen: list[str] = []

    def look(number: int = 1) -> str:
        frame: Any = sys._getframe()
        while frame is not None:
            seen.extend(repr(value) for name, value in frame.f_locals.items() if name in ("call", "self", "arguments"))
            frame = frame.f_back
        return "looked"

    answers = iter([ToolCall(name="look", input="{}", id="a"), "done"])
    with ChatServer(lambda body: next(answers)) as server:
        await surface.client(f"openai:x@{server.url}", api_key=SECRET, tools=[look]).ask("?")
    assert SECRET not in "".join(seen)


# A function that gives tokens


def tokens(is_async: bool) -> tuple[Any, list[str]]:
    """A function that gives another token each time, and those that it gave."""
    given: list[str] = []

    def give() -> str:
        given.append(f"{SECRET}-{len(given)}")
        return given[-1]

    async def give_later() -> str:
        await asyncio.sleep(0)
        return give()

    return (give_later if is_async else give), given


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
async def test_a_function_is_asked_for_a_token_before_every_attempt(surface, is_async):
    give, given = tokens(is_async)
    answers = iter([(500, {"error": {"message": "again"}}), "one", "two"])
    with ChatServer(lambda body: next(answers)) as server:
        client = surface.client(f"openai:x@{server.url}", api_key=give, runtime_wrappers=[VirtualClock()])
        assert given == []
        await client.ask("?")
        await read(client.stream("?"))
    assert keys_sent(server) == [f"Bearer {SECRET}-{number}" for number in range(3)]
    assert len(given) == 3


async def test_a_token_goes_in_the_header_that_its_row_names(surface, monkeypatch):
    give, _ = tokens(is_async=False)
    with ChatServer() as server:
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.url.removesuffix("/v1"))
        await surface.client("azure:x", base_url=server.url, api_key=give).ask("?")
        await surface.client("azure:x", base_url=server.url, api_key=SECRET).ask("?")
    told = [(asked.headers.get("authorization"), asked.headers.get("api-key")) for asked in server.asked]
    assert told == [(f"Bearer {SECRET}-0", None), (None, SECRET)]


async def test_a_token_is_shown_to_nobody(surface, caplog):
    give, given = tokens(is_async=False)

    def repeat(body: Any) -> Any:
        return 401, {"error": {"message": f"no {given[-1]}, nor {given[0]}", "type": given[-1]}}

    with caplog.at_level(logging.DEBUG), ChatServer(repeat) as server:
        client = surface.client(f"openai:x@{server.url}", api_key=give)
        for _ in range(2):
            with pytest.raises(AuthenticationError, match=r"no \*\*\*, nor \*\*\*") as caught:
                await client.ask("?")
    error = caught.value
    assert SECRET not in f"{error}{error!r}{vars(error)}{caplog.text}"
    assert SECRET.encode() not in pickle.dumps(error)
    inner = getattr(client, "inner", client)
    sources = [value for value in reachable(inner) if type(value).__name__ == "TokenSource"]
    assert sources
    for value in reachable(inner):
        if value is not given:
            assert SECRET not in shown(value), type(value)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(sources[0])
    assert client.explain("?").headers["authorization"] == "…"


@pytest.mark.parametrize(
    ("give", "objection"),
    [
        (lambda: None, "what the function given as api_key= returned is no usable key"),
        (lambda: "a\nb", "what the function given as api_key= returned is no usable key"),
        (lambda: {}["key"], "api_key= is a function, and it failed: KeyError: 'key'"),
    ],
)
async def test_a_function_that_gives_no_token_is_an_error_before_anything_is_sent(surface, give, objection):
    with ChatServer() as server, pytest.raises(ConfigurationError, match=objection):
        await surface.client(f"openai:x@{server.url}", api_key=give).ask("?")
    assert server.asked == []


REMOTE = [row for row in ROWS if row.engine is None]


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
@pytest.mark.parametrize("row", REMOTE, ids=lambda row: row.name)
async def test_every_provider_takes_a_function_that_gives_tokens(surface, row, is_async, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    give, _ = tokens(is_async)
    with ChatServer(lambda body: (401, {"error": {"message": "who are you"}})) as server:
        client = surface.client(f"{row.name}:m", base_url=server.url, api_key=give, on_unsupported="ignore")
        with pytest.raises(AuthenticationError):
            await (client.ask("?") if row.has_chat else client.embed("?"))
    header = row.token_header or row.key_header
    assert server.asked[0].headers[header] == f"{'Bearer ' * (header == 'authorization')}{SECRET}-0"


async def test_a_functions_token_goes_to_its_own_server_only(surface, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    give, given = tokens(is_async=False)
    with ChatServer() as own, ChatServer() as foreign:
        client = surface.client(f"openai:x@{own.url}", api_key=give)
        await client.ask("?", model=f"openai:x@{foreign.url}")
        await client.ask("?", model=f"vllm:x@{foreign.url}")
    assert keys_sent(foreign) == [None, None]
    assert given == []
