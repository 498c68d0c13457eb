"""Anthropic's Message Batches: the requests go with the order, and the results come as lines in any order.

A batch says nothing of its requests until it has ended, and there is no field for a key: their ids, which come back
with the results, are all that a maker can find his batch by.

Sources: https://docs.anthropic.com/en/api/creating-message-batches, .../build-with-claude/message-batches, anthropic
2.12, and three recorded exchanges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import msgspec

from ..errors import ProviderError, SabirError, StreamProtocolError
from ..messages import ProviderState
from ..requests import HttpRequest
from ..strict_json import encode_json, is_array, is_object
from . import count_of, list_of, mapping_of, text_of
from .anthropic import Anthropic
from .batches import (
    BatchCounts,
    BatchItem,
    BatchJob,
    BatchOrder,
    BatchOutcome,
    BatchState,
    JobPage,
    cancelled_error,
    day,
    expired_error,
    get,
    is_cancelled,
    is_expired,
    job_of,
    line_of,
    needed,
    patched_with,
    text_of_day,
    with_wire,
)
from .bodies import refused, request_of
from .failures import provider_error
from .leftovers import difference, own_state, patched

NAME = "anthropic_batches"

_PATH = "/v1/messages/batches"
_STATES: dict[str, BatchState] = {"in_progress": "running", "canceling": "cancelling", "ended": "ended"}
_COUNTS = {
    "processing": "running",
    "succeeded": "succeeded",
    "errored": "failed",
    "canceled": "cancelled",
    "expired": "expired",
}


@dataclass(frozen=True)
class AnthropicBatches:
    """The dialect.

    Attributes:
        version: the header `anthropic-version`.
        price: what a batch costs, as a part of what the same calls do; None is not known.
        full_price: the buckets of `Usage` that cost as much as always.
        max_requests: the most requests of a batch.
        max_bytes: the most bytes of an order.
    """

    version: str = "2023-06-01"
    price: Decimal | None = None
    full_price: frozenset[str] = frozenset()
    max_requests: int | None = 100_000
    max_bytes: int | None = 256_000_000

    name = NAME
    tells_key = False
    files = None

    def endpoint_of(self, path: str) -> str | None:
        return path if path == "/v1/messages" else None

    def answers_in(self, job: BatchJob) -> str | None:
        return None

    def encode_order(self, order: BatchOrder) -> HttpRequest:
        requests = [{"custom_id": item.id, "params": msgspec.Raw(item.body)} for item in order.items]
        body = patched({"requests": requests}, own_state(order.wire, NAME))
        theirs = {name.lower() for name in order.headers}
        ours = (
            header for header in (("content-type", "application/json"), *self._headers()) if header[0] not in theirs
        )
        return HttpRequest("POST", _PATH, (*ours, *order.headers.items()), msgspec.json.encode(body))

    def encode_status(self, id_: str) -> HttpRequest:
        return get(f"{_PATH}/{quote(id_, safe='')}", self._headers())

    def encode_cancel(self, id_: str) -> HttpRequest:
        return HttpRequest("POST", f"{_PATH}/{quote(id_, safe='')}/cancel", self._headers(), b"")

    def encode_jobs(self, after: str | None) -> HttpRequest:
        rest = "" if after is None else f"&after_id={quote(after, safe='')}"
        return get(f"{_PATH}?limit=100{rest}", self._headers())

    def encode_results(self, job: BatchJob) -> tuple[HttpRequest, ...]:
        # Never the address in `results_url`: the key would go to wherever it leads.
        return () if job.output is None else (get(f"{_PATH}/{quote(job.id, safe='')}/results", self._headers()),)

    def decode_job(self, body: bytes) -> BatchJob:
        return _job(job_of(body, "message batch"))

    def decode_jobs(self, body: bytes, after: str | None) -> JobPage:
        wire = job_of(body, "list of batches")
        jobs = tuple(_job(each) for each in list_of(wire.get("data")))
        return JobPage(jobs, text_of(wire.get("last_id")) if wire.get("has_more") else None)

    def decode_outcome(self, line: bytes) -> BatchOutcome:
        wire = line_of(line)
        id_, result = needed(wire, "custom_id"), mapping_of(wire.get("result"))
        kind = result.get("type")
        if kind == "succeeded" and is_object(result.get("message")):
            return BatchOutcome(id=id_, body=encode_json(result["message"]))
        if kind == "expired":
            return BatchOutcome(id=id_, error=expired_error())
        if kind == "canceled":
            return BatchOutcome(id=id_, error=cancelled_error())
        if kind != "errored":
            raise StreamProtocolError(f"a result is of a kind that is not known: {str(result)[:200]}")
        error = provider_error(None, {}, encode_json(result.get("error")))
        return BatchOutcome(id=id_, error=error, request_id=error.request_id)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return provider_error(status, headers, body)

    def decode_order(self, path: str, body: bytes) -> BatchOrder:
        wire = request_of(body)
        requests = wire.get("requests")
        if not is_array(requests) or not requests:
            raise refused("requests", "at least one request is wanted")
        items = tuple(_item(each, number) for number, each in enumerate(requests))
        if len({item.id for item in items}) < len(items):
            raise refused("requests", "a custom_id stands twice")
        beside = difference({name: value for name, value in wire.items() if name != "requests"}, {})
        return BatchOrder(
            model=None,
            items=items,
            endpoint="/v1/messages",
            wire=ProviderState(NAME, beside) if beside else None,
        )

    def encode_job(self, job: BatchJob) -> bytes:
        return patched_with(_wire(job), job.wire, NAME)

    def encode_page(self, page: JobPage) -> bytes:
        rows = [msgspec.Raw(self.encode_job(job)) for job in page.jobs]
        first, last = (page.jobs[0].id, page.jobs[-1].id) if page.jobs else (None, None)
        has_more = page.after is not None
        return msgspec.json.encode({"data": rows, "has_more": has_more, "first_id": first, "last_id": last})

    def encode_outcome(self, outcome: BatchOutcome) -> bytes:
        if outcome.body is not None:
            result: dict[str, Any] = {"type": "succeeded", "message": msgspec.Raw(outcome.body)}
        elif outcome.error is None or is_expired(outcome.error):
            result = {"type": "expired"}
        elif is_cancelled(outcome.error):
            result = {"type": "canceled"}
        else:
            result = {"type": "errored", "error": msgspec.Raw(Anthropic().encode_error(outcome.error)[1])}
        return msgspec.json.encode({"custom_id": outcome.id, "result": result})

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        return Anthropic().encode_error(error)

    def _headers(self) -> tuple[tuple[str, str], ...]:
        return (("anthropic-version", self.version),)


def _job(wire: dict[str, Any]) -> BatchJob:
    told = mapping_of(wire.get("request_counts"))
    counts = {ours: count_of(told.get(theirs)) for theirs, ours in _COUNTS.items()}
    known = [count for count in counts.values() if count is not None]
    state = _STATES.get(needed(wire, "processing_status"), "running")
    if state == "ended":
        state = "cancelled" if counts["cancelled"] else "expired" if counts["expired"] else "ended"
    job = BatchJob(
        id=needed(wire),
        state=state,
        counts=BatchCounts(total=sum(known) if len(known) == len(counts) else None, **counts),
        endpoint="/v1/messages",
        created=day(wire.get("created_at")),
        expires=day(wire.get("expires_at")),
        ended=day(wire.get("ended_at")),
        output=text_of(wire.get("results_url")),
    )
    return msgspec.structs.replace(job, wire=with_wire(wire, _wire(job), NAME))


def _wire(job: BatchJob) -> dict[str, Any]:
    """A batch in its server's words, as far as ours go."""
    words = {ours: theirs for theirs, ours in _STATES.items()}
    return {
        "id": job.id,
        "type": "message_batch",
        "processing_status": words.get(job.state, "ended"),
        "request_counts": {theirs: getattr(job.counts, ours) or 0 for theirs, ours in _COUNTS.items()},
        "ended_at": text_of_day(job.ended),
        "created_at": text_of_day(job.created),
        "expires_at": text_of_day(job.expires),
        "archived_at": None,
        "cancel_initiated_at": None,
        "results_url": job.output,
    }


def _item(wire: Any, number: int) -> BatchItem:
    where = f"requests[{number}]"
    if not is_object(wire) or not is_object(wire.get("params")):
        raise refused(f"{where}.params", "the body of a request is wanted")
    if (id_ := text_of(wire.get("custom_id"))) is None:
        raise refused(f"{where}.custom_id", "a text is wanted")
    if beyond := sorted(wire.keys() - {"custom_id", "params"}):
        raise refused(f"{where}.{beyond[0]}", "there is no such field")
    return BatchItem(id=id_, body=encode_json(wire["params"]), endpoint="/v1/messages")
