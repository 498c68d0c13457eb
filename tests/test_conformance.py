"""The kit that tries a dialect's laws: our own keep them all, and each kind of fault is found by the law it breaks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from distributions import install
from fakes import ChatServer
from llamas import llama_server, skip_without_llama

from sabir import ConfigurationError
from sabir.engines.llama_cpp import pico_path
from sabir.testing.conformance import BUILT_IN, dialect_named, main, score
from sabir.testing.laws import SAMPLES, Law, laws_of

skip_without_llama()

LAWS = ["wire", "value", "stream", "end", "invention", "errors", "family", "parameters"]
KEY = "key-of-the-tried"
# A format of one's own may be another one's with a difference; each of these differs by one fault.
SOUND = """
from dataclasses import dataclass
from sabir.dialects.openai_chat import OpenAIChat
import itertools, json, msgspec, random, time

@dataclass(frozen=True)
class Faulty(OpenAIChat):
    name = "openai_chat"
"""
FAULTS = {
    "an option that vanishes": (
        "parameters",
        """
    def encode_request(self, request):
        return super().encode_request(msgspec.structs.replace(request, seed=None))
""",
    ),
    "an option without a verdict": (
        "parameters",
        """
    def verdicts(self):
        return {name: verdict for name, verdict in super().verdicts().items() if name != "n"}
""",
    ),
    "a text that is cut": (
        "value",
        """
    def encode_response(self, response):
        body = json.loads(super().encode_response(response))
        message = body["choices"][0]["message"]
        message["content"] = message.get("content") and message["content"][:1000]
        return json.dumps(body).encode()
""",
    ),
    "an option that is read as another": (
        "value",
        """
    def decode_request(self, body):
        read = super().decode_request(body)
        return msgspec.structs.replace(read, top_p=read.temperature)
""",
    ),
    "a field that is forgotten": (
        "wire",
        """
    def decode_request(self, body):
        read = super().decode_request(body)
        return msgspec.structs.replace(read, tools=())
""",
    ),
    "a reader that knows only whole lines": (
        "stream",
        """
    def decoder(self):
        return Whole(super().decoder())

class Whole:
    def __init__(self, inner):
        self.inner = inner

    @property
    def is_over(self):
        return self.inner.is_over

    def feed(self, data):
        return self.inner.feed(data.rpartition(b"\\n")[0] + b"\\n")

    def close(self):
        return self.inner.close()
""",
    ),
    "an end that is taken for granted": (
        "end",
        """
    def decoder(self):
        return Trusting(super().decoder())

class Trusting:
    def __init__(self, inner):
        self.inner = inner

    @property
    def is_over(self):
        return self.inner.is_over

    def feed(self, data):
        return self.inner.feed(data)

    def close(self):
        try:
            return self.inner.close()
        except Exception:
            return []
""",
    ),
    "an id that is made up": (
        "invention",
        """
    def encode_response(self, response):
        body = json.loads(super().encode_response(response))
        return json.dumps({**body, "id": random.random()}).encode()
""",
    ),
    "a clock": (
        "invention",
        """
    def encode_request(self, request):
        http, notices = super().encode_request(request)
        body = {**json.loads(http.body), "metadata": {"at": time.perf_counter_ns()}}
        return msgspec.structs.replace(http, body=json.dumps(body).encode()), notices
""",
    ),
    "an error that is always the same": (
        "errors",
        """
    def decode_error(self, status, headers, body):
        return super().decode_error(500, headers, body)
""",
    ),
    "an exception of another family": (
        "family",
        """
    def decode_answer(self, body):
        json.loads(body)["choices"][0]
        return super().decode_answer(body)
""",
    ),
}


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on the path, as of an environment into which one installs."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("added_")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_our_own_dialects_keep_every_law(name, capsys):
    assert main([name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == LAWS
    assert lines[-1] == f"{name}: 100 %"


def test_every_law_is_tried():
    laws = laws_of(BUILT_IN["openai_chat"], 5)
    assert [law.name for law in laws] == LAWS
    assert all(law.held >= 5 for law in laws)
    assert laws[-1].held == len(SAMPLES)


def test_the_formats_of_every_row_are_there():
    assert {"openai_chat", "openai_responses", "anthropic", "gemini", "mistral", "ollama"} <= BUILT_IN.keys()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_by_the_law_that_it_breaks(site, capsys, fault):
    law, code = FAULTS[fault]
    install(site, "added_format", SOUND + code, "[sabir.dialects]\nfaulty = added_format:Faulty\n")
    assert main(["faulty"]) == 1
    out = capsys.readouterr().out
    broken = [line.split()[0] for line in out.splitlines() if line[:1].isalpha() and " of " in line and not _held(line)]
    assert law in broken
    assert int(out.split()[-2]) < 100


def _held(line: str) -> bool:
    _, held, _, tried = line.split()
    return held == tried


def test_the_dialect_of_the_documentation_keeps_every_law(site, capsys):
    page = (Path(__file__).parent.parent / "docs" / "add-a-dialect.md").read_text("utf-8")
    code = re.search(r"^```python\n(.*?)^```", page, re.M | re.S)[1]
    install(site, "added_parley", code, "[sabir.dialects]\nparley = added_parley:Parley\n")
    assert main(["parley"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "parley: 100 %"


@pytest.mark.parametrize("value", ["Faulty", "Faulty()", "make"], ids=["class", "object", "function"])
def test_a_sound_dialect_from_outside_has_the_full_score(site, value):
    code = f"{SOUND}\nmake = lambda: Faulty()\nTHING = {value}\n"
    install(site, "added_format", code, "[sabir.dialects]\nsound = added_format:THING\n")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "sabir.testing.conformance", "sound", "--tries", "10"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "sound: 100 %"


@pytest.mark.parametrize(
    ("code", "objection"),
    [
        ("THING = 5", "is no dialect: it has no name, encode_request"),
        ("raise RuntimeError('out of tea')", "cannot be loaded: RuntimeError: out of tea"),
        (
            "class THING:\n    def __init__(self): raise LookupError('nothing')",
            "gives no dialect: LookupError: nothing",
        ),
        ("class THING:\n    name = 'x'", "is no dialect: it has no encode_request"),
    ],
)
def test_what_is_no_dialect_is_refused_and_named(site, code, objection):
    install(site, "added_format", code, "[sabir.dialects]\nother = added_format:THING\n")
    with pytest.raises(ConfigurationError, match=objection) as caught:
        dialect_named("other")
    assert "added_format 1.5" in str(caught.value)


def test_a_name_that_nobody_has_is_told_beside_those_there_are(site, capsys):
    install(site, "added_format", SOUND, "[sabir.dialects]\nmine = added_format:Faulty\n")
    assert main(["morse"]) == 2
    told = capsys.readouterr().err
    assert "there is no dialect 'morse'" in told
    assert "mine" in told
    assert "openai_chat" in told


def test_the_score_gives_each_law_the_same_weight():
    assert score([Law("a", held=99, broken=1), Law("b", held=1, broken=1), Law("c")]) == pytest.approx(74.5)
    assert score([]) == 0


# Servers


def test_a_server_is_told_what_it_does_with_each_option(capsys, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("KEY_OF_MINE", KEY)
    with llama_server(pico_path(), KEY) as address:
        assert main([f"{address}/v1", "--key-variable", "KEY_OF_MINE"]) == 0
        out = capsys.readouterr().out
        assert out.splitlines()[-1].endswith("/v1: 100 %")
        assert [line.split()[0] for line in out.splitlines()[:-1]] == ["answers", "options", "effects"]
        assert main([f"{address}/v1"]) == 2
        assert "Invalid API Key" in capsys.readouterr().err
    with llama_server(pico_path(), KEY, "no-jinja") as address:
        assert main([f"{address}/v1", "--key-variable", "KEY_OF_MINE"]) == 1
    assert "not seen: it calls tools" in capsys.readouterr().out


def test_a_server_that_refuses_or_passes_over_options_is_told_so(capsys):
    def answer(body):
        return (400, {"error": {"message": "no seeds here"}}) if "seed" in body else "1, 2, 3, 4, 5, 6, 7, 8, 9"

    with ChatServer(answer) as server:
        assert main([server.url, "--model", "loopback"]) == 1
    out = capsys.readouterr().out
    assert "seed is refused: no seeds here (HTTP 400)" in out
    assert "max_tokens has no effect" in out
    assert "stop has no effect" in out
    assert int(out.split()[-2]) < 80
