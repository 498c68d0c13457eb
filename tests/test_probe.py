"""What `sabir probe` finds out: of llama.cpp's own server with and without features, and of servers that know less."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time

import msgspec
import pytest
from fakes import ChatServer
from llamas import llama_server, skip_without_llama
from servers import Server, free_port

import sabir
from sabir import (
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    DeadlineExceeded,
    ModelFacts,
    StorageError,
    UnsupportedError,
)
from sabir.engines.llama_cpp import pico_path
from sabir.probing import probe
from sabir.server_facts import MOST_BYTES, VERSION, ServerFacts, read_facts, write_facts

skip_without_llama()

KEY = "key-of-the-probed"
FACTS = ServerFacts(
    url="http://localhost:1/v1", model="m", probed_on="2026-11-21", tools=False, structured=True, context=4096
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder for one test alone, and no proxy to the loopback."""
    for name in ("XDG_CACHE_HOME", "HOME", "LOCALAPPDATA", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("SABIR_CACHE_DIR", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path


@pytest.fixture(scope="module")
def address():
    with llama_server(pico_path(), KEY) as address:
        yield f"{address}/v1"


@pytest.fixture(scope="module")
def address_without_tools():
    with llama_server(pico_path(), KEY, "no-jinja") as address:
        yield f"{address}/v1"


# What is found out


def test_all_that_llama_cpp_does_is_found_out(address):
    facts = probe(address, api_key=KEY)
    assert facts.model == str(pico_path())
    assert facts.models == (facts.model,)
    assert facts.context == 2048
    assert facts.streams
    assert facts.usage_in_streams
    assert facts.tools
    assert facts.structured
    assert facts.thinking == "reasoning_content"
    assert facts.notes == ()
    assert facts.of_model == ModelFacts(
        tools=True, structured=True, thinking=True, context=2048, source="sabir probe", checked_on=facts.probed_on
    )


def test_what_llama_cpp_was_started_without_is_found_out(address_without_tools):
    facts = probe(address_without_tools, api_key=KEY)
    assert (facts.tools, facts.thinking) == (False, None)
    assert (facts.streams, facts.usage_in_streams, facts.structured) == (True, True, True)
    assert "tools param requires --jinja flag" in facts.notes[0]
    # That it was not seen to think does not say that it cannot.
    assert (facts.of_model.tools, facts.of_model.thinking, facts.of_model.vision) == (False, None, None)


def test_a_server_that_passes_over_what_it_does_not_know_is_found_out():
    with ChatServer() as server:
        facts = probe(server.url, "loopback")
        assert len(server.asked) <= 7
    assert (facts.models, facts.context, facts.thinking) == ((), None, None)
    assert (facts.streams, facts.usage_in_streams) == (True, True)
    assert (facts.tools, facts.structured) == (False, False)
    assert [note.partition(",")[0] for note in facts.notes[:1]] == ["a tool"]
    assert "a schema was passed over: the answer does not fit it" in facts.notes


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content", "reasoning_details"])
@pytest.mark.parametrize("is_asked", [False, True], ids=["always", "when asked"])
def test_the_field_of_thinking_is_found_out(field, is_asked):
    async def answer(call):
        body = json.loads(call.body) if call.body else {}
        thinks = "chat_template_kwargs" in body or not is_asked
        message = {"role": "assistant", "content": "Hi", **({field: ["so"]} if thinks else {field: None})}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        data = json.dumps({"choices": [choice]}).encode()
        call.head(f"Content-Length: {len(data)}", "Content-Type: application/json")
        call.write(data)

    with Server(answer) as server:
        assert probe(f"{server.url}/v1", "m").thinking == field


def test_a_server_with_several_models_wants_one_named():
    async def answer(call):
        data = json.dumps({"data": [{"id": "a", "max_model_len": 4096}, {"id": "b"}]}).encode()
        call.head(f"Content-Length: {len(data)}", "Content-Type: application/json")
        call.write(data)

    with Server(answer) as server, pytest.raises(ConfigurationError, match=r"name the model to ask .*; it has a, b"):
        probe(server.url)


def test_a_server_that_cannot_be_asked_is_an_error_and_no_finding(address):
    with pytest.raises(AuthenticationError):
        probe(address, "m", api_key="wrong-key-entirely")
    with pytest.raises(ConnectError):
        probe(f"http://127.0.0.1:{free_port()}/v1", "m")
    with pytest.raises(ConfigurationError, match="base_url must look like"):
        probe("localhost:8080")


def test_a_probe_ends_with_its_time():
    async def answer(call):
        await call.forever()

    with Server(answer) as server:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            probe(server.url, "m", timeout=0.3)
        assert time.monotonic() - began < 2


# What is kept


def test_what_was_found_out_is_kept_for_its_user_alone(cache):
    assert read_facts(FACTS.url, "m") is None
    path = write_facts(FACTS)
    assert path.is_relative_to(cache)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert read_facts(FACTS.url, "m") == read_facts(f"{FACTS.url}/", "m") == FACTS
    assert read_facts(FACTS.url, "other") is None
    write_facts(msgspec.structs.replace(FACTS, tools=True))
    assert read_facts(FACTS.url, "m").tools is True
    assert [kept.name for kept in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"\xff",
        b'{"url": 5}',
        b"[" * 100_000,
        b" " * (MOST_BYTES + 1),
        msgspec.json.encode(msgspec.structs.replace(FACTS, url="http://other/v1")),
        msgspec.json.encode(msgspec.structs.replace(FACTS, model="other")),
        msgspec.json.encode(msgspec.structs.replace(FACTS, version=VERSION + 1)),
        msgspec.json.encode({**msgspec.structs.asdict(FACTS), "tools": "yes"}),
    ],
    ids=lambda data: repr(data[:20]),
)
def test_a_file_that_is_not_what_was_kept_is_as_good_as_none(data):
    write_facts(FACTS).write_bytes(data)
    assert read_facts(FACTS.url, "m") is None


def test_a_folder_that_cannot_be_written_to_is_an_error(cache):
    (cache / "sabir").write_text("a file")
    (cache / "Library").write_text("a file")
    with pytest.raises(StorageError, match="could not be kept"):
        write_facts(FACTS)


# What it is good for


def look(at: str) -> str:
    """Look there."""
    return at


def test_a_client_knows_what_was_found_out_where_its_row_says_nothing():
    with ChatServer() as server:
        write_facts(msgspec.structs.replace(FACTS, url=server.url))
        with sabir.Client(f"openai-compat:m@{server.url}", tools=[look]) as client:
            with pytest.raises(UnsupportedError) as caught:
                client.ask("?")
            told = str(caught.value).replace(server.url, "URL")
            assert told.startswith(
                "openai-compat:m cannot run tools, says sabir probe of 2026-11-21; choose another model"
            )
            assert ", or say what it can do: 'openai-compat:m@URL;tools,…', or ask its server again: " in told
            assert told.endswith("sabir probe URL -m m")
            assert client.capabilities() == FACTS.of_model
            assert client.capabilities().thinking is None
            assert client.ask("?", tools=[], images=[b"\x89PNG\r\n\x1a\n"]).text == "Hello there!"
            assert client.ask("?", model=f"openai-compat:other@{server.url}").text == "Hello there!"
            # A declaration, and a row that knows its server, go before it.
            assert client.ask("?", model=f"openai-compat:m@{server.url};tools").text == "Hello there!"
            declared = client.capabilities(f"openai-compat:m@{server.url};tools")
            assert (declared.tools, declared.structured, declared.context) == (True, False, 4096)
            assert client.ask("?", model=f"vllm:m@{server.url}").text == "Hello there!"
    assert len(server.asked) == 4


# The command


def command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sabir", "probe", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **variables},
    )


def test_the_command_tells_and_keeps_what_it_found_out(address_without_tools):
    pytest.importorskip("click")
    done = command(address_without_tools, "--key-variable", "KEY_OF_MINE", KEY_OF_MINE=KEY)
    assert done.returncode == 0, done.stderr
    told = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith(("tools ", "streams ")))
    assert told == {"tools": "no", "streams": "yes"}
    assert "requires --jinja" in done.stdout
    assert "kept in" in done.stderr
    assert KEY not in done.stdout + done.stderr
    kept = read_facts(address_without_tools, str(pico_path()))
    assert kept is not None
    assert kept.tools is False
    done = command(address_without_tools, "--key-variable", "KEY_OF_MINE", "--json", KEY_OF_MINE=KEY)
    assert msgspec.convert(json.loads(done.stdout), ServerFacts) == kept


def test_the_command_says_what_is_wrong(address):
    pytest.importorskip("click")
    done = command(address, "--key-variable", "NO_SUCH_VARIABLE_OF_MINE")
    assert (done.returncode, done.stdout) == (2, "")
    assert "NO_SUCH_VARIABLE_OF_MINE is not set" in done.stderr
    done = command(address, "-m", "m")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Invalid API Key" in done.stderr
    assert "--key-variable names the environment variable that has one" in done.stderr
