"""Recorded exchanges about batches held against the laws of their formats, for `replay`; knows no format itself.

An order, a batch, a list of them and lines of results each survive being decoded and encoded again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..dialects import mapping_of, text_of
from ..dialects.anthropic_batches import AnthropicBatches
from ..dialects.batches import BatchDialect, BatchJob
from ..dialects.leftovers import without_nulls
from ..errors import ProviderError, SabirError
from ..strict_json import decode_json, encode_json, is_array
from .changes import first_change

# The recordings' name of a format, and who speaks of its batches.
BATCHES: dict[str, BatchDialect] = {"anthropic-messages": AnthropicBatches()}
_ENDPOINTS = frozenset({"batches", "batches/results"})


@dataclass
class BatchReplayed:
    """What came of one exchange; `flaws` are why it failed, `unsupported` is why nothing can be said of it."""

    decoded: dict[str, Any] | None = None
    error: ProviderError | None = None
    request_round_trip: bool | None = None
    response_round_trip: bool | None = None
    flaws: list[str] = field(default_factory=list[str])
    unsupported: str | None = None


def is_about_batches(exchange: dict[str, Any]) -> bool:
    return exchange.get("dialect") in BATCHES and exchange.get("endpoint") in _ENDPOINTS


def replay_batch(exchange: dict[str, Any]) -> BatchReplayed:
    """Replay one exchange of which `is_about_batches` holds.

    Raises:
        SabirError: it cannot be read.
    """
    dialect, result = BATCHES[exchange["dialect"]], BatchReplayed()
    request, answer = mapping_of(exchange.get("request")), mapping_of(exchange.get("response"))
    method, path = str(request.get("method")), str(request.get("path")).partition("?")[0]
    if method == "DELETE":
        result.unsupported = "no batch is deleted here"
        return result
    if method == "POST" and not path.endswith("/cancel") and request.get("body") is not None:
        _replay_order(dialect, path, request["body"], result, mapping_of(answer).get("status", 200))
    if answer.get("body") is not None:
        _replay_answer(dialect, answer, result)
    return result


def _replay_order(dialect: BatchDialect, path: str, body: Any, result: BatchReplayed, status: int) -> None:
    result.request_round_trip = False
    try:
        again = decode_json(dialect.encode_order(dialect.decode_order(path, encode_json(body))).body)
    except SabirError as error:
        if status < 400:
            result.flaws.append(f"an order that its server accepted is refused: {error}")
        return
    if (change := first_change(without_nulls(body), without_nulls(again))) is None:
        result.request_round_trip = True
    else:
        result.flaws.append(f"the order changes: {change}")


def _replay_answer(dialect: BatchDialect, answer: dict[str, Any], result: BatchReplayed) -> None:
    body, status = answer["body"], answer["status"]
    result.response_round_trip = False
    if status >= 400:
        headers = {name.lower(): str(value) for name, value in mapping_of(answer.get("headers")).items()}
        text = body.encode() if isinstance(body, str) else encode_json(body)
        result.error = error = dialect.decode_error(status, headers, text)
        again: Any = dialect.decode_error(*_status_and_body(dialect, error))
        change = None if type(again) is type(error) else f"the error comes back as {type(again).__name__}"
    elif isinstance(body, str):
        change = _change_of_lines(dialect, body, result)
    elif is_array(body.get("data")):
        page = dialect.decode_jobs(encode_json(body), None)
        result.decoded = {"batches": [_told(job) for job in page.jobs]}
        change = first_change(without_nulls(body), without_nulls(decode_json(dialect.encode_page(page))))
    else:
        job = dialect.decode_job(encode_json(body))
        result.decoded = _told(job)
        change = first_change(without_nulls(body), without_nulls(decode_json(dialect.encode_job(job))))
    result.response_round_trip = change is None
    if change is not None:
        result.flaws.append(f"the answer changes: {change}")


def _status_and_body(dialect: BatchDialect, error: ProviderError) -> tuple[int, dict[str, str], bytes]:
    status, body = dialect.encode_error(error)
    return status, {}, body


def _change_of_lines(dialect: BatchDialect, body: str, result: BatchReplayed) -> str | None:
    """What is otherwise in results that have been decoded and encoded again; of errors, their class is held on to."""
    told: list[dict[str, Any]] = []
    for line in filter(str.strip, body.splitlines()):
        outcome = dialect.decode_outcome(line.encode())
        told.append({"id": outcome.id, "error": type(outcome.error).__name__ if outcome.error else None})
        again = dialect.encode_outcome(outcome)
        if outcome.error is None:
            change = first_change(without_nulls(decode_json(line)), without_nulls(decode_json(again)))
        else:
            error = dialect.decode_outcome(again).error
            change = None if type(error) is type(outcome.error) else f"{outcome.id} fails otherwise: {error!r}"
        if change is not None:
            return change
    result.decoded = {"results": told}
    return None


def _told(job: BatchJob) -> dict[str, Any]:
    return {"id": job.id, "state": job.state, "total": job.counts.total, "model": text_of(job.model)}
