"""The replay tool tells a failure from a pass and from what it cannot judge, and every recorded exchange passes.

The exchanges in fixtures/replay are made by hand, one for each way to pass, to fail or to be beyond us. The recordings
are real traffic; they lie beside a checkout of this repository, and are skipped where they do not.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec
import pytest

from sabir.dialects.openai_chat import ChatDecoder, ChatEncoder, OpenAIChat
from sabir.testing import replay
from sabir.testing.replay import DIALECTS, EMBEDDINGS, MEDIA, RERANKS, Replayed, replay_file

HERE = Path(__file__).parent
FIXTURES = HERE / "fixtures" / "replay"
RECORDINGS = HERE.parent.parent / "shared" / "recordings"

needs_recordings = pytest.mark.skipif(
    not RECORDINGS.is_dir(), reason=f"the recordings of real traffic are not there: {RECORDINGS}"
)


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "sabir.testing.replay", *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


@cache
def lines_of(*files: str) -> dict[str, dict]:
    run = command("--json", *(FIXTURES / file for file in files))
    assert not run.stderr
    return {line["id"]: line for line in map(json.loads, run.stdout.splitlines())}


def verdicts(path: Path) -> dict[str, str]:
    return {result.id: result.verdict for result in replay_file(path)}


# What is said of an exchange


def test_a_whole_answer_is_shown_in_portable_words():
    line = lines_of("openai-chat.jsonl")["whole-tool-calls"]
    assert line == {
        "id": "whole-tool-calls",
        "decoded": {
            "text": "",
            "thinking": "Two cities.",
            "tool_calls": [
                {"id": "call_1", "name": "get_weather", "arguments": {"city": "Oslo"}},
                {"id": "call_2", "name": "get_weather", "arguments": '{"city": '},
            ],
            "finish_reason": "tool_calls",
            # This server counts its 12 tokens of reasoning beside the completion.
            "usage": {"input_tokens": 30, "output_tokens": 32, "cache_read": 10, "reasoning": 12, "total": 62},
        },
        "error": None,
        "request_round_trip": True,
        "response_round_trip": True,
        "notes": [],
    }


def test_a_stream_is_shown_as_its_sum():
    line = lines_of("openai-chat.jsonl")["stream-text"]
    assert line["decoded"] == {
        "text": "Cold, 6 °C ☀️.",
        "thinking": "Thinking.",
        "tool_calls": [],
        "finish_reason": "stop",
        "usage": {"input_tokens": 9, "output_tokens": 7, "reasoning": 3, "total": 16},
    }
    assert (line["request_round_trip"], line["response_round_trip"]) == (True, True)


def test_a_call_without_arguments_has_none():
    calls = lines_of("openai-chat.jsonl")["stream-tool-calls"]["decoded"]["tool_calls"]
    assert [call["arguments"] for call in calls] == [{"city": "Oslo"}, {}]


def test_an_error_is_named_and_nothing_is_decoded():
    lines = lines_of("openai-chat.jsonl")
    assert lines["error-429"]["error"] == {"class": "RateLimitError", "status": 429, "message": "Slow down (HTTP 429)"}
    assert lines["error-in-200"]["error"]["class"] == "AuthenticationError"
    assert lines["error-html"]["error"]["message"] == "502 Bad Gateway (HTTP 502)"
    assert lines["error-empty"]["error"]["class"] == "ServerError"
    for name in ("error-429", "error-in-200", "error-html", "error-empty"):
        assert lines[name]["decoded"] is None
        assert lines[name]["response_round_trip"] is True


def test_an_error_in_a_stream_keeps_what_came_before_it():
    line = lines_of("openai-chat.jsonl")["stream-error"]
    assert line["error"]["class"] == "OverloadedError"
    assert line["decoded"]["text"] == "Half an ans"
    assert line["response_round_trip"] is True


def test_a_round_trip_is_null_only_where_there_was_nothing_to_send_round():
    lines = lines_of("openai-chat.jsonl")
    assert {name for name, line in lines.items() if line["request_round_trip"] is None} == {
        "response-only",
        "error-empty",
    }
    assert {name for name, line in lines.items() if line["response_round_trip"] is None} == {"request-only"}


def test_a_request_that_was_refused_may_be_refused():
    line = lines_of("openai-chat.jsonl")["request-refused"]
    assert line["request_round_trip"] is False
    assert line["notes"][0].startswith("the request is refused, as it was by its server")


# Verdicts


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_good_exchanges_pass(dialect):
    assert set(verdicts(FIXTURES / f"{dialect}.jsonl").values()) == {"passed"}


def test_what_is_no_answer_and_what_is_no_exchange_fails_and_ends_nothing():
    found = verdicts(FIXTURES / "failing.jsonl")
    assert found.pop("good-among-bad") == "passed"
    assert found == dict.fromkeys(
        (
            "no-answer",
            "text-answer",
            "cut-stream",
            "garbled-stream",
            "accepted-nonsense",
            "failing.jsonl:6",
            "failing.jsonl:7",
            "no-dialect",
            "no-status",
            "odd-request",
        ),
        "failed",
    )


def test_what_is_not_built_is_unsupported_and_says_so():
    lines = lines_of("unsupported.jsonl")
    assert {name: line["notes"] for name, line in lines.items()} == {
        "no-such-dialect": ["unsupported: the dialect 'esperanto' is not built"],
        "no-chat": ["unsupported: 'embeddings' is not the chat operation of 'openai-chat'"],
        "nothing": ["unsupported: neither a request nor an answer was recorded"],
        # What lies under a format by mistake: a gateway's echo, a line of text, other servers' formats.
        "echo": ["unsupported: an object of ['echo'] is no answer of 'openai-chat', under which it was recorded"],
        "line": ["unsupported: a plain text is no answer of 'openai-chat', under which it was recorded"],
        "another-list": [
            "unsupported: an object of ['generated_text'] is no answer of 'openai-chat', under which it was recorded"
        ],
        "another-stream": [
            "unsupported: an object of ['value'] is no answer of 'openai-completions', under which it was recorded"
        ],
        "another-object": [
            "unsupported: a 'chat.completion' is no answer of 'openai-responses', under which it was recorded"
        ],
    }
    for line in lines.values():
        assert {line["decoded"], line["request_round_trip"], line["response_round_trip"]} == {None}


# Faults of a dialect: each of them is seen


class Forgetful(OpenAIChat):
    """Loses the name of whoever answered."""

    def encode_response(self, response):
        return super().encode_response(msgspec.structs.replace(response, model="another"))


class Deaf(OpenAIChat):
    """Loses the tools of a request."""

    def decode_request(self, body):
        return msgspec.structs.replace(super().decode_request(body), tools=())


class Hasty(OpenAIChat):
    """Reads each piece of a stream as if it were whole."""

    def decoder(self):
        class Decoder(ChatDecoder):
            def feed(self, data):
                return super().feed(data.rstrip() + b"\n\n")

        return Decoder()


class Mumbling(OpenAIChat):
    """Leaves the first text out of a stream that it writes."""

    def encoder(self):
        class Encoder(ChatEncoder):
            spoken = False

            def _text(self, delta):
                if not self.spoken:
                    self.spoken = True
                    return b""
                return super()._text(delta)

        return Encoder()


class Calm(OpenAIChat):
    """Ends a stream well that ended with an error."""

    def encoder(self):
        class Encoder(ChatEncoder):
            def fail(self, error):
                return b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'

        return Encoder()


class Blaming(OpenAIChat):
    """Says of every error that it is the caller's."""

    def encode_error(self, error):
        return 400, super().encode_error(error)[1]


class Crashing(OpenAIChat):
    def decode_answer(self, body):
        raise IndexError("list index out of range")

    def decoder(self):
        raise IndexError("list index out of range")


@dataclass
class Fault:
    dialect: type[OpenAIChat]
    exchange: str
    reason: str


FAULTS = [
    Fault(Forgetful, "whole-tool-calls", "failed: the answer changes: model was 'm-1', and now 'another'"),
    Fault(Deaf, "whole-tool-calls", "failed: the request changes: tools was [{'type': 'function'"),
    Fault(Hasty, "stream-text", "failed: the stream reads otherwise when it is cut"),
    Fault(Mumbling, "stream-text", "failed: the stream changes when it is encoded: its messages: [0].parts[0].text"),
    Fault(Calm, "stream-error", "failed: the stream changes when it is encoded: it ended with OverloadedError"),
    Fault(Blaming, "error-429", "failed: the error comes back as another: RateLimitError"),
    Fault(Crashing, "stream-text", "failed: a IndexError escaped the dialect: list index out of range"),
    Fault(Crashing, "response-only", "failed: a IndexError escaped the dialect: list index out of range"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.dialect.__name__} {fault.exchange}")
def test_a_fault_of_a_dialect_is_a_failure(fault, monkeypatch):
    monkeypatch.setitem(DIALECTS, "openai-chat", fault.dialect())
    found = {result.id: result for result in replay_file(FIXTURES / "openai-chat.jsonl")}
    assert found[fault.exchange].verdict == "failed"
    assert any(note.startswith(fault.reason) for note in found[fault.exchange].notes), found[fault.exchange].notes


# The command


def test_the_table_counts_and_names_what_failed():
    run = command(*(FIXTURES / f"{name}.jsonl" for name in ("openai-chat", "failing", "unsupported")))
    rows = [line.split() for line in run.stdout.splitlines()]
    assert rows[0] == ["dialect", "provider", "passed", "failed", "unsupported"]
    assert ["openai-chat", "hand", "13", "5", "5"] in rows
    assert ["esperanto", "hand", "0", "0", "1"] in rows
    assert "\ncut-stream (openai-chat, hand) failed: the stream cannot be read: StreamInterrupted" in run.stdout
    assert run.stdout.endswith("\n8 unsupported\n13 passed, 10 failed\n")
    assert not run.stderr


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["table", "json"])
def test_the_exit_code_says_whether_anything_failed(flags):
    assert command(*flags, FIXTURES / "openai-chat.jsonl", FIXTURES / "unsupported.jsonl").returncode == 0
    assert command(*flags, FIXTURES / "openai-chat.jsonl", FIXTURES / "failing.jsonl").returncode == 1


def test_a_file_that_cannot_be_read_fails_and_the_next_is_read(tmp_path):
    run = command(tmp_path / "missing.jsonl", FIXTURES / "openai-chat.jsonl")
    assert "missing.jsonl (?, ?) failed: the file cannot be read" in run.stdout
    assert run.stdout.endswith("\n12 passed, 1 failed\n")
    assert run.returncode == 1


def test_half_a_surrogate_pair_is_printed(tmp_path):
    exchange = json.loads((FIXTURES / "openai-chat.jsonl").read_text("utf-8").splitlines()[-2])
    exchange["response"]["body"]["choices"][0]["message"]["content"] = "\ud83d"
    (tmp_path / "half.jsonl").write_text(json.dumps(exchange))
    run = command("--json", tmp_path / "half.jsonl")
    line = json.loads(run.stdout)
    assert (line["decoded"]["text"], line["response_round_trip"], run.returncode) == ("\ud83d", True, 0)


def test_without_a_file_the_command_explains_itself():
    run = command()
    assert run.returncode == 2
    assert "FILE.jsonl" in run.stderr


# Recorded traffic


def recorded(dialect: str) -> list[Replayed]:
    return list(replay_file(RECORDINGS / f"{dialect}.jsonl"))


@needs_recordings
@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_recorded_traffic_passes(dialect):
    results = recorded(dialect)
    assert {result.id: result.notes for result in results if result.verdict == "failed"} == {}
    assert sum(result.verdict == "passed" for result in results) > len(results) / 2


@needs_recordings
@pytest.mark.parametrize("dialect", sorted(MEDIA))
def test_recorded_pictures_and_sounds_pass(dialect):
    results = recorded(dialect)
    assert {result.id: result.notes for result in results if result.verdict == "failed"} == {}
    unsupported = [note for result in results if result.verdict == "unsupported" for note in result.notes]
    assert unsupported == ["unsupported: 'images/variations' of 'openai-images' is not built"] * (
        dialect != "openai-audio"
    )
    assert all(result.response_round_trip for result in results if result.verdict == "passed")


@needs_recordings
def test_recordings_of_dialects_that_are_not_built_are_unsupported():
    names = {path.stem for path in RECORDINGS.glob("*.jsonl")} - {*DIALECTS, *EMBEDDINGS, *RERANKS, *MEDIA}
    assert names
    for name in names:
        assert {result.verdict for result in recorded(name)} == {"unsupported"}


def test_every_dialect_has_chat_endpoints():
    assert DIALECTS.keys() <= replay.CHAT_ENDPOINTS.keys()
