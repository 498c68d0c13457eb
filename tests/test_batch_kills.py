"""A process that ends between any two steps of a batch loses nothing, and has nothing done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from batch_server import KEY, KINDS, BatchServer, Kind, in_the_table
from llamas import skip_without_llama

import sabir
from sabir.engines.llama_cpp import LlamaCpp, pico_path
from sabir.providers import PROVIDERS
from sabir.testing import Faults, faults

skip_without_llama()

PROMPTS = [f"What is the capital of {country}?" for country in ("France", "Norway", "Italy")]
NIGHTLY = "nightly-2026-11-21"
IN_A_FILE = "gemini in a file"

# What a nightly job does: it knows its prompts and its key, and notes each result that it has.
JOB = """
import json, sys
import sabir
from sabir.dialects.gemini_batches import GeminiBatches
from sabir.providers import PROVIDERS
from dataclasses import replace
model, url, key, prompts, journal, notes, is_in_file = json.loads(sys.argv[1])
if is_in_file:
    PROVIDERS["gemini"] = replace(PROVIDERS["gemini"], batches=GeminiBatches(max_inline=0))
with sabir.Client(model, base_url=url, api_key=key, max_attempts=1) as client:
    batch = client.batches.submit(prompts, key="nightly-2026-11-21", **journal)
    while not batch.is_over:
        batch = client.batches.status(batch.id)
    with open(notes, "a") as file:
        for result in client.batches.results(batch.id):
            file.write(json.dumps([result.index, result.response.text]) + "\\n")
            file.flush()
"""


@pytest.fixture(scope="module")
def engine():
    made = LlamaCpp(pico_path(), PROVIDERS["pico"].dialect, name="pico")
    yield made
    made.close()


@pytest.fixture(params=list(KINDS))
def name(request):
    return request.param


@pytest.fixture
def kind(name):
    with in_the_table(KINDS[name]) as kind:
        yield kind


def journal_of(kind: Kind, folder: Path) -> dict[str, str]:
    return {} if kind.dialect.tells_key else {"journal": str(folder / "batches.jsonl")}


def job(kind: Kind, server: BatchServer, folder: Path, noted: dict[int, str]) -> None:
    """The work of one process, in this one."""
    client = sabir.Client(f"{kind.provider}:{kind.model}", base_url=server.url, api_key=KEY, max_attempts=1)
    with client:
        batch = client.batches.submit(PROMPTS, key=NIGHTLY, **journal_of(kind, folder))
        while not batch.is_over:
            batch = client.batches.status(batch.id)
        for result in client.batches.results(batch.id):
            noted[result.index] = result.response.text


def assert_done_once(server: BatchServer, noted: dict[int, str]) -> None:
    assert len(server.held) == 1
    assert server.answered == dict.fromkeys(PROMPTS, 1)
    assert sorted(noted) == [0, 1, 2]
    assert "Oslo" in noted[1]
    sent = [file for file in server.files.values() if file.name.startswith("sabir-")]
    assert len(sent) == (1 if server.uploads else 0)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_job_that_ends_at_any_step_is_gone_on_with(kind, engine, tmp_path, when):
    """Each step in turn fails before or after the server has done its part; the next process begins from the start."""
    for struck in count():
        folder = tmp_path / f"{when}-{struck}"
        folder.mkdir()
        with BatchServer(kind, engine).serving() as server:
            server.strike = lambda number, _, then, struck=struck: (number, then) == (struck, when)
            noted: dict[int, str] = {}
            try:
                job(kind, server, folder, noted)
            except sabir.SabirError:
                assert len(server.steps) > struck
                # Time passes; where only results tell whose a batch is, that is when they can be seen.
                for id_, held in server.held.items():
                    if not kind.dialect.tells_key and held.job.state == "running":
                        server.finish(id_)
                job(kind, server, folder, noted)
            assert_done_once(server, noted)
            if len(server.steps) <= struck:
                break
    assert struck >= 4


def kills():
    """Each step at which a process is killed, and when: what it does between them is the same for all."""
    for name in KINDS:
        steps = ["make"]
        steps += ["upload"] if name not in ("anthropic", "gemini") else []
        steps += ["content"] if name != "gemini" else []
        yield from ((name, step, "after") for step in steps)
        yield name, "make", "before"


@pytest.mark.parametrize(("name", "step", "when"), list(kills()))
def test_a_process_that_is_killed_is_gone_on_with(name, kind, engine, tmp_path, step, when):
    notes = tmp_path / "notes.jsonl"
    with BatchServer(kind, engine).serving() as server:
        victims: list[int] = []

        def kill(number: int, at: str, then: str) -> bool:
            if (at, then) != (step, when) or not victims:
                return False
            os.kill(victims.pop(), signal.SIGKILL)
            return True

        server.strike = kill
        told = [f"{kind.provider}:{kind.model}", server.url, KEY, PROMPTS, journal_of(kind, tmp_path), str(notes)]
        command = [sys.executable, "-c", JOB, json.dumps([*told, name == IN_A_FILE])]
        with subprocess.Popen(command, env={**os.environ, "NO_PROXY": "*"}) as process:
            victims.append(process.pid)
            assert process.wait(60) == -signal.SIGKILL
        for id_, held in server.held.items():
            if not kind.dialect.tells_key and held.job.state == "running":
                server.finish(id_)
        assert subprocess.run(command, env={**os.environ, "NO_PROXY": "*"}, check=False).returncode == 0
        noted = dict(json.loads(line) for line in notes.read_text().splitlines())
        assert_done_once(server, noted)


# Where a provider keeps no key


@pytest.fixture
def anthropic(engine):
    with BatchServer(KINDS["anthropic"], engine, patience=None).serving() as server:
        yield server


def client_of(server: BatchServer, *plan, **settings) -> sabir.Client:
    wrappers = [Faults(*plan)] if plan else []
    model = f"{server.kind.provider}:{server.kind.model}"
    return sabir.Client(model, base_url=server.url, api_key=KEY, max_attempts=1, runtime_wrappers=wrappers, **settings)


def cut_off(server: BatchServer, journal: Path, prompts: list[str]) -> None:
    """A submit whose batch is made, and whose reply is lost."""
    begun = len(server.steps)
    server.strike = lambda number, step, when: number >= begun and (step, when) == ("make", "after")
    with client_of(server) as client, pytest.raises(sabir.SabirError, match="whether the batch was made is not known"):
        client.batches.submit(prompts, key=NIGHTLY, journal=journal)
    server.strike = lambda *_: False


def test_while_it_cannot_be_told_whose_a_batch_is_none_is_made(anthropic, tmp_path):
    journal = tmp_path / "journal.jsonl"
    cut_off(anthropic, journal, PROMPTS)
    with client_of(anthropic) as client:
        for _ in range(2):
            with pytest.raises(sabir.ConnectError, match=r"one of these may be .*: anthropic:msgbatch_0") as caught:
                client.batches.submit(PROMPTS, key=NIGHTLY, journal=journal)
            assert caught.value.retryable
        anthropic.finish("msgbatch_0")
        assert client.batches.submit(PROMPTS, key=NIGHTLY, journal=journal).id == "anthropic:msgbatch_0"
    assert anthropic.steps.count("make") == 1


def test_a_batch_of_another_size_or_of_another_key_is_not_mistaken(anthropic, tmp_path):
    journal = tmp_path / "journal.jsonl"
    with client_of(anthropic) as client:
        client.batches.submit(PROMPTS, key="before", journal=journal)
        anthropic.strike = lambda number, step, when: (step, when) == ("make", "before")
        with pytest.raises(sabir.SabirError):
            client.batches.submit(PROMPTS, key=NIGHTLY, journal=journal)
        anthropic.strike = lambda *_: False
        # These are not it: one is in the journal under its own key, one has other prompts, one is of somebody else.
        client.batches.submit(PROMPTS, key="after", journal=journal)
        client.batches.submit(PROMPTS[1:])
        stranger = client.batches.submit(PROMPTS)
        with pytest.raises(sabir.ConnectError, match=f"may be the batch it made: {stranger.id}. "):
            client.batches.submit(PROMPTS, key=NIGHTLY, journal=journal)
        anthropic.finish(stranger.id.partition(":")[2])
        mine = client.batches.submit(PROMPTS, key=NIGHTLY, journal=journal)
    assert mine.id == "anthropic:msgbatch_4"
    assert anthropic.steps.count("make") == 6


def test_a_key_that_was_cut_off_keeps_its_prompts(anthropic, tmp_path):
    journal = tmp_path / "journal.jsonl"
    cut_off(anthropic, journal, PROMPTS)
    with client_of(anthropic) as client, pytest.raises(sabir.ConfigurationError, match="made of other prompts"):
        client.batches.submit(PROMPTS[1:], key=NIGHTLY, journal=journal)


# The order is sent once


@pytest.mark.parametrize("fault", [faults.Reset(), faults.Status(500), faults.Cut(5), faults.Status(200, b"<html>")])
def test_an_order_of_unknown_fate_is_not_sent_again(anthropic, fault):
    plan = Faults(fault)
    model = f"anthropic:{anthropic.kind.model}"
    client = sabir.Client(model, base_url=anthropic.url, api_key=KEY, runtime_wrappers=[plan])
    with client, pytest.raises(sabir.SabirError) as caught:
        client.batches.submit(PROMPTS)
    assert len(plan.struck) == 1
    assert not caught.value.retryable
    assert "whether the batch was made is not known: with a key= it could be found again" in str(caught.value)
    assert anthropic.steps.count("make") == isinstance(fault, faults.Cut)


def test_an_order_that_was_refused_for_now_is_sent_again(anthropic):
    plan = Faults(faults.Status(429, retry_after=0), faults.Status(529))
    model = f"anthropic:{anthropic.kind.model}"
    with sabir.Client(model, base_url=anthropic.url, api_key=KEY, runtime_wrappers=[plan]) as client:
        client.batches.submit(PROMPTS)
    assert anthropic.steps.count("make") == 1


# The journal


def test_a_line_that_was_torn_counts_as_not_written(anthropic, tmp_path):
    journal = tmp_path / "journal.jsonl"
    with client_of(anthropic) as client:
        first = client.batches.submit(PROMPTS, key=NIGHTLY, journal=journal)
        whole = journal.read_bytes()
        *_, begun, made, _ = whole.split(b"\n")
        for cut in range(1, len(made)):
            journal.write_bytes(whole[: whole.index(made) + cut])
            anthropic.finish("msgbatch_0") if anthropic.held["msgbatch_0"].job.state == "running" else None
            assert client.batches.submit(PROMPTS, key=NIGHTLY, journal=journal).id == first.id
    assert anthropic.steps.count("make") == 1
    assert b"begun" not in begun


@pytest.mark.parametrize(
    "content", [b"{}", b"[1]\n", b'{"format_version": 2}\n', b"hello\n", b'{"format_version":1,"provider":"anthropic"}']
)
def test_what_is_no_journal_is_refused(anthropic, tmp_path, content):
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(content)
    with client_of(anthropic) as client, pytest.raises(sabir.StorageError, match=r"no (line of a )?journal of batches"):
        client.batches.submit(PROMPTS, key=NIGHTLY, journal=journal)
    assert journal.read_bytes() == content
    assert anthropic.steps == []


def test_a_journal_that_cannot_be_written_stops_the_submit(anthropic, tmp_path):
    with client_of(anthropic) as client, pytest.raises(sabir.StorageError, match="cannot be written"):
        client.batches.submit(PROMPTS, key=NIGHTLY, journal=tmp_path / "no" / "folder.jsonl")
    assert "make" not in anthropic.steps


def test_a_key_that_never_came_to_a_batch_can_be_used_for_other_prompts(engine, tmp_path):
    journal = tmp_path / "journal.jsonl"
    with BatchServer(KINDS["openai"], engine).serving() as server:
        server.strike = lambda number, step, when: (step, when) == ("make", "before")
        with client_of(server) as client:
            with pytest.raises(sabir.SabirError):
                client.batches.submit(PROMPTS, key=NIGHTLY, journal=journal)
            server.strike = lambda *_: False
            made = client.batches.submit(PROMPTS[1:], key=NIGHTLY, journal=journal)
            assert client.batches.submit(PROMPTS[1:], key=NIGHTLY, journal=journal).id == made.id
            with pytest.raises(sabir.ConfigurationError, match="made of other prompts"):
                client.batches.submit(PROMPTS, key=NIGHTLY, journal=journal)


def test_a_journal_holds_no_secret(anthropic, tmp_path):
    journal = tmp_path / "journal.jsonl"
    with client_of(anthropic) as client:
        client.batches.submit(PROMPTS, key=NIGHTLY, journal=journal)
    assert KEY not in journal.read_text()
    assert "capital" not in journal.read_text()
