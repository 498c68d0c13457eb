"""`sabir models` as a shell sees it: what is known, and newer facts from a server that is asked only when told to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from servers import Server, whole

import sabir

pytest.importorskip("click")

SOURCE = str(Path(sabir.__file__).parent.parent)
FACTS = {
    "xai": {
        "models": {
            "grok-99": {
                "tool_call": True,
                "reasoning": False,
                "modalities": {"input": ["text", "image"], "output": ["text"]},
                "cost": {"input": 1.5, "output": 6, "cache_read": 0.25},
                "limit": {"context": 131072, "output": 8192},
            },
            "odd": {"tool_call": "perhaps"},
        }
    }
}


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(tmp_path: Path):
    def run(*words: str, **variables: str) -> Done:
        environment = {**os.environ, "PYTHONPATH": SOURCE, "SABIR_CACHE_DIR": str(tmp_path), **variables}
        command = [sys.executable, "-W", "error", "-m", "sabir", "models", *words]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, env=environment, encoding="utf-8"
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


def rows(text: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split() for line in text.splitlines()}


def test_all_models_or_those_of_a_provider_are_shown(run) -> None:
    everything, one = run(), run("deepseek")
    assert (everything.code, everything.err, one.code, one.err) == (0, "", 0, "")
    names = {"deepseek:deepseek-v4-flash", "deepseek:deepseek-v4-pro", "deepseek:deepseek-flash"}
    assert set(rows(one.out)) == {"model", *names}
    assert set(rows(one.out)) < set(rows(everything.out))
    # Prices that change by the hour are none.
    shown = "deepseek:deepseek-v4-pro 1,000,000 384,000 tools,structured,thinking vision,audio,video ? 2026-11-21"
    assert run("grok").out == run("xai").out
    assert rows(one.out)["deepseek:deepseek-v4-pro"] == shown.split()


def test_what_is_billed_by_searches_is_shown_so(run) -> None:
    shown = rows(run("cohere").out)
    assert shown["cohere:rerank-v3.5"][-4:] == ["0.002", "a", "search", "2026-04-01"]
    assert shown["cohere:embed-v4.0"][-6:] == ["0.12", "/", "?", "/", "?", "2026-11-21"]


def test_as_json_what_is_not_known_is_null(run) -> None:
    found = {entry["model"]: entry for entry in json.loads(run("openai", "--json").out)}
    assert found["gpt-4o"]["tools"] is True
    assert found["gpt-4o"]["audio"] is None
    assert found["gpt-4o"]["prices"]["input"] == "2.5"
    assert found["gpt-4o"]["prices"]["priced_on"] == "2026-11-21"
    assert found["gpt-4o"]["source"]


def test_a_provider_without_facts_is_told_with_those_that_have_some(run) -> None:
    done = run("opnai")
    assert (done.code, done.out) == (2, "")
    assert "nothing is known about models of 'opnai'" in done.err
    assert "anthropic" in done.err


@pytest.mark.parametrize("named", ["option", "variable"])
def test_newer_facts_are_fetched_when_told_to_and_shown_from_then_on(run, named) -> None:
    with Server(whole(json.dumps(FACTS).encode(), "Content-Type: application/json")) as server:
        words, variables = (["--url", server.url], {}) if named == "option" else ([], {"SABIR_MODELS_URL": server.url})
        done = run("refresh", *words, **variables)
        assert len(server.calls) == 1
        assert (done.code, done.out.partition(", kept in")[0]) == (0, "1 models of 1 providers")
        assert "warning: passed over: xai:odd: " in done.err
        shown = rows(run("xai", SABIR_MODELS_URL=server.url).out)
        assert len(server.calls) == 1
    assert shown["xai:grok-99"][1:11] == [
        *("131,072", "8,192", "tools,vision", "thinking,audio,video", "1.5", "/", "0.25", "/", "6"),
        shown["xai:grok-99"][-1],
    ]
    assert "xai:grok-4.3" in shown


def test_a_refresh_that_fails_says_so(run) -> None:
    with Server(whole(b"Not here", status="404 Not Found")) as server:
        done = run("refresh", "--url", server.url)
    assert (done.code, done.out) == (1, "")
    assert "404" in done.err


def test_an_address_without_a_refresh_is_a_mistake(run) -> None:
    done = run("--url", "http://127.0.0.1:1/")
    assert (done.code, done.out) == (2, "")
    assert "--url is for `sabir models refresh`" in done.err
