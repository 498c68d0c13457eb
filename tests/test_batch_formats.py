"""The wire of batches, both directions: what a server says is said again as it was, and what we say comes back.

The examples are those of the providers' documents, and Anthropic's recordings.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sabir
from sabir.dialects.anthropic_batches import AnthropicBatches
from sabir.dialects.batches import (
    BatchCounts,
    BatchFile,
    BatchItem,
    BatchJob,
    BatchOrder,
    BatchOutcome,
    FilePage,
    JobPage,
    cancelled_error,
    expired_error,
)
from sabir.dialects.gemini_batches import GeminiBatches
from sabir.dialects.leftovers import without_nulls
from sabir.dialects.mistral_batches import MistralBatches
from sabir.dialects.openai_batches import OpenAIBatches
from sabir.testing.replay import replay

DIALECTS = {
    "openai": OpenAIBatches(),
    "anthropic": AnthropicBatches(),
    "gemini": GeminiBatches(),
    "mistral": MistralBatches(),
}
ENDPOINTS = {
    "openai": "/v1/chat/completions",
    "anthropic": "/v1/messages",
    "gemini": "/models/gemini-2.5-flash",
    "mistral": "/v1/chat/completions",
}
RECORDINGS = Path(__file__).resolve().parent.parent.parent / "shared" / "recordings" / "anthropic-messages.jsonl"
BODY = b'{"model":"m","messages":[{"role":"user","content":"Hello"}]}'

OPENAI_JOB = {
    "id": "batch_abc123",
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "errors": None,
    "input_file_id": "file-abc123",
    "completion_window": "24h",
    "status": "completed",
    "output_file_id": "file-cvaTdG",
    "error_file_id": "file-HOWS94",
    "created_at": 1711471533,
    "in_progress_at": 1711471538,
    "expires_at": 1711557933,
    "finalizing_at": 1711493133,
    "completed_at": 1711493163,
    "request_counts": {"total": 100, "completed": 95, "failed": 5},
    "metadata": {"customer_id": "user_123456789", "batch_description": "Nightly eval job"},
}
GEMINI_JOB = {
    "name": "batches/123456",
    "metadata": {
        "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
        "model": "models/gemini-2.5-flash",
        "displayName": "inlined-requests-job-1",
        "createTime": "2025-07-10T21:57:37.023431398Z",
        "endTime": "2025-07-10T21:57:41.3Z",
        "updateTime": "2025-07-10T21:57:41.3Z",
        "batchStats": {"requestCount": "2", "successfulRequestCount": "1", "failedRequestCount": "1"},
        "state": "BATCH_STATE_SUCCEEDED",
        "name": "batches/123456",
        "inputConfig": {"requests": {"requests": []}},
        "output": {
            "inlinedResponses": {
                "inlinedResponses": [
                    {
                        "response": {"candidates": [{"content": {"parts": [{"text": "A joke."}], "role": "model"}}]},
                        "metadata": {"key": "request-1"},
                    },
                    {"error": {"code": 3, "message": "no"}, "metadata": {"key": "request-2"}},
                ]
            }
        },
    },
    "done": True,
}
MISTRAL_JOB = {
    "id": "c0ffee00-0000-4000-8000-000000000000",
    "object": "batch",
    "input_files": ["b0b0b0b0-0000-4000-8000-000000000000"],
    "metadata": {"job_type": "testing"},
    "endpoint": "/v1/chat/completions",
    "model": "mistral-small-latest",
    "agent_id": None,
    "output_file": None,
    "error_file": None,
    "errors": [],
    "status": "QUEUED",
    "created_at": 1732000000,
    "total_requests": 2,
    "completed_requests": 0,
    "succeeded_requests": 0,
    "failed_requests": 0,
    "started_at": None,
    "completed_at": None,
}
ANTHROPIC_JOB = {
    "id": "msgbatch_013Zva2CMHLNnXjNJJKqJ2EF",
    "type": "message_batch",
    "processing_status": "ended",
    "request_counts": {"processing": 0, "succeeded": 50, "errored": 30, "canceled": 10, "expired": 10},
    "ended_at": "2024-08-20T18:37:24.100435Z",
    "created_at": "2024-08-20T18:37:24.100435Z",
    "expires_at": "2024-08-20T18:37:24.100435Z",
    "archived_at": "2024-08-20T18:37:24.100435Z",
    "cancel_initiated_at": "2024-08-20T18:37:24.100435Z",
    "results_url": "https://api.anthropic.com/v1/messages/batches/msgbatch_013Zva2CMHLNnXjNJJKqJ2EF/results",
}
JOBS = [
    ("openai", OPENAI_JOB),
    ("openai", {**OPENAI_JOB, "status": "validating", "request_counts": {"total": 0, "completed": 0, "failed": 0}}),
    ("openai", {**OPENAI_JOB, "status": "failed", "errors": {"object": "list", "data": [{"message": "m", "line": 3}]}}),
    ("anthropic", ANTHROPIC_JOB),
    ("gemini", GEMINI_JOB),
    ("gemini", {"name": "batches/1", "metadata": {"state": "BATCH_STATE_PENDING"}}),
    ("gemini", {"name": "batches/1", "done": True, "error": {"code": 13, "message": "lost"}}),
    ("gemini", {"name": "batches/1", "done": True, "response": {"responsesFile": "files/abc"}}),
    ("mistral", MISTRAL_JOB),
    ("mistral", {**MISTRAL_JOB, "status": "TIMEOUT_EXCEEDED", "error_file": "e", "output_file": "o"}),
]
ORDERS = [
    ("openai", {"input_file_id": "f", "endpoint": "/v1/responses", "completion_window": "24h", "metadata": {"a": "b"}}),
    (
        "openai",
        {
            "input_file_id": "f",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "output_expires_after": {"anchor": "created_at", "seconds": 3600},
        },
    ),
    (
        "anthropic",
        {"requests": [{"custom_id": "a", "params": {"model": "m"}}], "user_profile_id": "u"},
    ),
    ("gemini", {"batch": {"displayName": "mine", "inputConfig": {"fileName": "files/1"}, "priority": "5"}}),
    (
        "gemini",
        {
            "batch": {
                "displayName": "mine",
                "inputConfig": {"requests": {"requests": [{"request": {"contents": []}, "metadata": {"key": "k"}}]}},
            }
        },
    ),
    ("mistral", {"input_files": ["f"], "endpoint": "/v1/chat/completions", "model": "m", "timeout_hours": 5}),
]
PATHS = {"gemini": "/v1beta/models/gemini-2.5-flash:batchGenerateContent"}


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def names(cases: list[tuple[str, Any]]) -> list[str]:
    return [f"{name}-{number}" for number, (name, _) in enumerate(cases)]


@pytest.mark.parametrize(("name", "wire"), JOBS, ids=names(JOBS))
def test_a_batch_is_said_again_as_it_was_said(name, wire):
    dialect = DIALECTS[name]
    job = dialect.decode_job(encoded(wire))
    assert without_nulls(json.loads(dialect.encode_job(job))) == without_nulls(wire)


@pytest.mark.parametrize(("name", "wire"), ORDERS, ids=names(ORDERS))
def test_an_order_is_said_again_as_it_was_said(name, wire):
    dialect = DIALECTS[name]
    order = dialect.decode_order(PATHS.get(name, ""), encoded(wire))
    http = dialect.encode_order(order)
    assert json.loads(http.body) == wire
    assert http.method == "POST"


def test_what_the_documents_show_is_understood():
    job = OpenAIBatches().decode_job(encoded(OPENAI_JOB))
    assert (job.state, job.counts, job.output, job.failures) == (
        "ended",
        BatchCounts(total=100, succeeded=95, failed=5),
        "file-cvaTdG",
        "file-HOWS94",
    )
    assert job.ended == datetime(2024, 3, 26, 22, 46, 3, tzinfo=UTC)
    job = AnthropicBatches().decode_job(encoded(ANTHROPIC_JOB))
    counts = BatchCounts(total=100, running=0, succeeded=50, failed=30, cancelled=10, expired=10)
    assert (job.state, job.counts) == ("cancelled", counts)
    job = GeminiBatches().decode_job(encoded(GEMINI_JOB))
    assert (job.id, job.state, job.model) == ("123456", "ended", "gemini-2.5-flash")
    assert job.counts == BatchCounts(total=2, succeeded=1, failed=1)
    first, second = job.outcomes
    assert (first.id, first.error, second.id, type(second.error)) == (
        "request-1",
        None,
        "request-2",
        sabir.BadRequestError,
    )
    job = MistralBatches().decode_job(encoded(MISTRAL_JOB))
    assert (job.state, job.counts.running, job.key) == ("running", 2, None)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("openai", "validating=running in_progress=running finalizing=running completed=ended resting=running"),
        ("openai", "failed=failed expired=expired cancelling=cancelling cancelled=cancelled"),
        ("gemini", "BATCH_STATE_PENDING=running JOB_STATE_RUNNING=running BATCH_STATE_SUCCEEDED=ended x=running"),
        ("gemini", "BATCH_STATE_FAILED=failed BATCH_STATE_CANCELLED=cancelled BATCH_STATE_EXPIRED=expired"),
        ("mistral", "QUEUED=running RUNNING=running SUCCESS=ended FAILED=failed x=running"),
        ("mistral", "TIMEOUT_EXCEEDED=expired CANCELLATION_REQUESTED=cancelling CANCELLED=cancelled"),
        ("anthropic", "in_progress=running canceling=cancelling ended=ended"),
    ],
)
def test_every_state_has_a_portable_word(name, words):
    for word, state in (pair.split("=") for pair in words.split()):
        wire: dict[str, Any] = {"id": "b", "name": "batches/b", "status": word, "processing_status": word}
        wire["metadata"] = {"state": word}
        assert DIALECTS[name].decode_job(encoded(wire)).state == state


@pytest.mark.parametrize("name", DIALECTS)
def test_what_is_no_batch_is_refused(name):
    for body in (b"", b"<html>", b"[]", b"{}", b'{"error": {"message": "no"}}', b'"batch"'):
        with pytest.raises(sabir.SabirError):
            DIALECTS[name].decode_job(body)


# What our own halves say to each other

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
IDS = st.text("abcxyz0189-_", min_size=1, max_size=12)
NUMBERS = st.integers(0, 1000)
MOMENTS = st.integers(1_600_000_000, 2_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
DIGESTS = st.text("0123456789abcdef", min_size=32, max_size=32)


@pytest.mark.parametrize("name", DIALECTS)
@given(data=st.data())
def test_a_batch_of_our_server_is_read_by_our_client(name, data):
    succeeded, failed = data.draw(NUMBERS), data.draw(NUMBERS)
    job = BatchJob(
        id=data.draw(IDS),
        state=data.draw(st.sampled_from(["running", "ended", "failed"])),
        counts=BatchCounts(total=succeeded + failed + 1, succeeded=succeeded, failed=failed),
        created=data.draw(MOMENTS),
        key=data.draw(st.none() | WORDS),
        prompts=data.draw(DIGESTS),
    )
    read = DIALECTS[name].decode_job(DIALECTS[name].encode_job(job))
    assert (read.id, read.created) == (job.id, job.created)
    if name != "anthropic":
        assert (read.state, read.key, read.prompts) == (job.state, job.key, job.prompts)
        assert (read.counts.succeeded, read.counts.failed) == (succeeded, failed)
        assert read.counts.total == job.counts.total


@pytest.mark.parametrize("name", DIALECTS)
@given(ids=st.lists(IDS, min_size=1, max_size=4, unique=True), key=st.none() | WORDS, digest=DIGESTS)
def test_an_order_of_our_client_is_read_by_our_server(name, ids, key, digest):
    dialect, endpoint = DIALECTS[name], ENDPOINTS[name]
    if name == "gemini":
        dialect = replace(GeminiBatches(), max_inline=0)
    items = tuple(BatchItem(id=id_, body=BODY, endpoint=endpoint) for id_ in ids)
    order = BatchOrder(model="m", items=items, endpoint=endpoint, key=key, prompts=digest)
    if dialect.files is not None:
        upload = dialect.files.encode_upload("sabir.jsonl", items)
        file = dialect.files.decode_upload(dict(upload.headers), upload.body)
        assert (file.name, file.size) == ("sabir.jsonl", len(file.data))
        read_items = dialect.files.decode_items(file.data)
        assert [(item.id, item.body) for item in read_items] == [(id_, BODY) for id_ in ids]
        order = msgspec.structs.replace(order, items=(), input="file-1")
    http = dialect.encode_order(order)
    read = dialect.decode_order(PATHS.get(name, http.url), http.body)
    assert read.input == order.input
    assert [(item.id, item.body) for item in read.items] == [(item.id, item.body) for item in order.items]
    if name != "anthropic":
        assert (read.key, read.prompts, read.wire) == (key, digest, None)


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize(
    "error",
    [
        None,
        expired_error(),
        cancelled_error(),
        sabir.BadRequestError("no", status=400),
        sabir.RateLimitError("later", status=429),
        sabir.ServerError("broken", status=500),
        sabir.NotFoundError("gone", status=404),
        sabir.PermissionDeniedError("no", status=403),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_result_of_our_server_is_read_by_our_client(name, error):
    dialect = DIALECTS[name]
    outcome = BatchOutcome(id="sabir-0", body=None if error else b'{"a":1}', error=error)
    read = dialect.decode_outcome(dialect.encode_outcome(outcome))
    assert (read.id, read.body, type(read.error)) == (outcome.id, outcome.body, type(error))


@pytest.mark.parametrize("name", DIALECTS)
def test_pages_lead_to_the_next_one(name):
    dialect = DIALECTS[name]
    jobs = tuple(BatchJob(id=f"b{number}", state="running") for number in range(2))
    after = {"mistral": "1", "gemini": "token"}.get(name, "b1")
    page = dialect.decode_jobs(dialect.encode_page(JobPage(jobs, after)), None)
    assert ([job.id for job in page.jobs], page.after) == (["b0", "b1"], after)
    assert dialect.decode_jobs(dialect.encode_page(JobPage(jobs, None)), None).after is None
    assert after in dialect.encode_jobs(after).url
    if dialect.files is None:
        return
    files = tuple(BatchFile(id=f"b{number}", name="n", size=3) for number in range(2))
    listed = dialect.decode_files(dialect.encode_file_page(FilePage(files, after)), None)
    assert ([file.id for file in listed.files], listed.after) == (["b0", "b1"], after)
    assert after in dialect.encode_files(after).url


@pytest.mark.parametrize("name", DIALECTS)
def test_an_id_is_no_way_to_another_address(name):
    for http in (DIALECTS[name].encode_status("../a?b/c"), DIALECTS[name].encode_cancel("../a?b/c")):
        assert "/../" not in http.url
        assert "..%2Fa%3Fb%2Fc" in http.url


def test_results_are_asked_for_at_our_own_address():
    job = AnthropicBatches().decode_job(encoded({**ANTHROPIC_JOB, "results_url": "https://elsewhere.example/results"}))
    (http,) = AnthropicBatches().encode_results(job)
    assert http.url == f"/v1/messages/batches/{job.id}/results"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("openai", {"custom_id": "a", "response": None, "error": {"code": "batch_expired", "message": "late"}}),
        ("openai", {"custom_id": "a", "response": {"status_code": 500, "body": None}}),
        ("openai", {"custom_id": "a"}),
        ("mistral", {"custom_id": "a", "response": None, "error": "it broke"}),
        ("gemini", {"key": "a", "status": {"code": 8, "message": "too many"}}),
        ("gemini", {"key": "a", "error": {"code": 429, "message": "too many"}}),
        ("gemini", {"key": "a"}),
        ("anthropic", {"custom_id": "a", "result": {"type": "errored", "error": {"type": "error", "error": None}}}),
    ],
)
def test_whatever_a_result_lacks_it_is_an_error_of_its_prompt(name, line):
    outcome = DIALECTS[name].decode_outcome(encoded(line))
    assert outcome.id == "a"
    assert isinstance(outcome.error, sabir.SabirError)


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("line", [b"{", b"[]", b"{}", b'{"custom_id": 5, "key": 5}', b'"a"'])
def test_a_line_of_which_nobody_knows_whose_it_is_is_refused(name, line):
    with pytest.raises(sabir.StreamProtocolError):
        DIALECTS[name].decode_outcome(line)


@pytest.mark.parametrize("name", DIALECTS)
@given(line=st.binary(max_size=60))
def test_garbage_for_results_is_an_error_of_the_family(name, line):
    for read in (DIALECTS[name].decode_outcome, DIALECTS[name].decode_job):
        try:
            read(line)
        except sabir.SabirError:
            pass


# What was recorded


@pytest.mark.skipif(not RECORDINGS.exists(), reason=f"there are no recordings at {RECORDINGS}")
def test_recorded_batches_are_replayed():
    exchanges = [json.loads(line) for line in RECORDINGS.read_text("utf-8").splitlines()]
    results = [replay(exchange) for exchange in exchanges if exchange["endpoint"] == "batches"]
    assert len(results) == 3
    for result in results:
        assert (result.verdict, result.response_round_trip) == ("passed", True), result.notes
    assert [result.decoded["state"] for result in results] == ["running", "cancelling", "running"]


def exchange_of(method: str, path: str, response: Any, body: Any = None) -> dict[str, Any]:
    request = {"method": method, "path": path, "headers": {}, "body": body}
    answer = {"status": 200, "headers": {}, "body": response}
    return {
        "id": "hand-made",
        "dialect": "anthropic-messages",
        "endpoint": "batches",
        "request": request,
        "response": answer,
    }


def test_lists_results_and_errors_are_replayed_too():
    path = "/v1/messages/batches"
    page = {"data": [ANTHROPIC_JOB], "has_more": True, "first_id": ANTHROPIC_JOB["id"], "last_id": ANTHROPIC_JOB["id"]}
    lines = [
        {"custom_id": "a", "result": {"type": "succeeded", "message": {"id": "msg_1", "content": []}}},
        {"custom_id": "b", "result": {"type": "expired"}},
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    for exchange in (
        exchange_of("GET", path, page),
        exchange_of("GET", f"{path}/b/results", text),
        exchange_of("GET", f"{path}/b", ANTHROPIC_JOB),
    ):
        result = replay(exchange)
        assert (result.verdict, result.response_round_trip) == ("passed", True), result.notes
    failed = exchange_of("GET", f"{path}/b", {"type": "error", "error": {"type": "not_found_error", "message": "no"}})
    failed["response"]["status"] = 404
    assert replay(failed).error == {"class": "NotFoundError", "status": 404, "message": "no (HTTP 404)"}
    deleted = replay(exchange_of("DELETE", f"{path}/b", {"id": "b", "type": "message_batch_deleted"}))
    assert deleted.verdict == "unsupported"
    wrong = replay(exchange_of("POST", path, ANTHROPIC_JOB, {"requests": []}))
    assert wrong.verdict == "failed"
    assert "an order that its server accepted is refused" in wrong.notes[0]
    assert replay(exchange_of("GET", path, {"type": "something"})).verdict == "failed"
