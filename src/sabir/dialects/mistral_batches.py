"""Mistral's batch jobs: a file of requests is uploaded, a job is made of it, and answers and errors come as two files.

The files are OpenAI's in all but where a request goes, which the job says once for all of them.

Sources: https://docs.mistral.ai/studio-api/batch-processing, https://docs.mistral.ai/api (batch, files), mistralai 3.7.
No recording of it is known to us.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import msgspec

from ..errors import ProviderError, SabirError
from ..messages import ProviderState
from ..requests import HttpRequest
from ..strict_json import decode_json
from . import count_of, list_of, mapping_of, text_of
from .batches import (
    BatchCounts,
    BatchFile,
    BatchItem,
    BatchJob,
    BatchOrder,
    BatchOutcome,
    BatchState,
    FilePage,
    JobPage,
    get,
    job_of,
    json_lines,
    key_and_prompts,
    line_of,
    metadata_of,
    moment,
    needed,
    patched_with,
    seconds_of,
    with_wire,
)
from .bodies import post, refused, request_of
from .leftovers import difference, own_state, patched, without_nulls
from .mistral import Mistral
from .openai_batches import (
    contents,
    read_file,
    read_items,
    read_outcome,
    read_upload,
    upload,
    written_file,
    written_outcome,
)

NAME = "mistral_batches"

_PAGE = 100
_ENDPOINT = "/v1/chat/completions"
_STATES: dict[str, BatchState] = {
    "RUNNING": "running",
    "QUEUED": "running",
    "CANCELLATION_REQUESTED": "cancelling",
    "SUCCESS": "ended",
    "CANCELLED": "cancelled",
    "TIMEOUT_EXCEEDED": "expired",
    "FAILED": "failed",
}
_WORDS: dict[BatchState, str] = {state: word for word, state in reversed(_STATES.items())}


@dataclass(frozen=True)
class MistralBatches:
    """The dialect.

    Attributes:
        price: what a batch costs, as a part of what the same calls do; None is not known.
        full_price: the buckets of `Usage` that cost as much as always.
        max_requests: the most requests of a batch.
        max_bytes: the most bytes of a file of them.
    """

    price: Decimal | None = None
    full_price: frozenset[str] = frozenset()
    max_requests: int | None = 1_000_000
    max_bytes: int | None = 512 << 20

    name = NAME
    tells_key = True
    upload_root = ""

    @property
    def files(self) -> MistralBatches:
        return self

    def endpoint_of(self, path: str) -> str | None:
        return _ENDPOINT if path == "/chat/completions" else None

    def answers_in(self, job: BatchJob) -> str | None:
        return None

    def encode_upload(self, name: str, items: Sequence[BatchItem]) -> HttpRequest | None:
        return upload(name, json_lines([{"custom_id": item.id, "body": msgspec.Raw(item.body)} for item in items]))

    def encode_order(self, order: BatchOrder) -> HttpRequest:
        fields = {
            "input_files": [order.input] if order.input else None,
            "endpoint": order.endpoint,
            "model": order.model,
            "metadata": metadata_of(order.key, order.prompts) or None,
        }
        return post("/batch/jobs", patched(without_nulls(fields), own_state(order.wire, NAME)), order.headers)

    def encode_status(self, id_: str) -> HttpRequest:
        return get(f"/batch/jobs/{quote(id_, safe='')}")

    def encode_cancel(self, id_: str) -> HttpRequest:
        return HttpRequest("POST", f"/batch/jobs/{quote(id_, safe='')}/cancel", (), b"")

    def encode_jobs(self, after: str | None) -> HttpRequest:
        return get(f"/batch/jobs?page={after or '0'}&page_size={_PAGE}")

    def encode_files(self, after: str | None) -> HttpRequest:
        return get(f"/files?purpose=batch&page={after or '0'}&page_size={_PAGE}")

    def encode_results(self, job: BatchJob) -> tuple[HttpRequest, ...]:
        return contents(job)

    def decode_job(self, body: bytes) -> BatchJob:
        return _job(job_of(body))

    def decode_jobs(self, body: bytes, after: str | None) -> JobPage:
        wire = job_of(body, "list of batches")
        return JobPage(tuple(map(_job, list_of(wire.get("data")))), _after(wire, after))

    def decode_file(self, body: bytes) -> BatchFile:
        return read_file(job_of(body, "file"))

    def decode_files(self, body: bytes, after: str | None) -> FilePage:
        wire = job_of(body, "list of files")
        return FilePage(tuple(map(read_file, list_of(wire.get("data")))), _after(wire, after))

    def decode_outcome(self, line: bytes) -> BatchOutcome:
        return read_outcome(line_of(line))

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return Mistral().decode_error(status, headers, body)

    def decode_upload(self, headers: Mapping[str, str], body: bytes) -> BatchFile:
        return read_upload(headers, body)

    def decode_items(self, data: bytes) -> tuple[BatchItem, ...]:
        return tuple(msgspec.structs.replace(item, endpoint=_ENDPOINT) for item in read_items(data, needs_url=False))

    def decode_order(self, path: str, body: bytes) -> BatchOrder:
        wire = without_nulls(request_of(body))
        key, prompts = key_and_prompts(wire.get("metadata"))
        files, endpoint = list_of(wire.get("input_files")), wire.get("endpoint")
        if endpoint != _ENDPOINT:
            raise refused("endpoint", f"it is {_ENDPOINT!r}, not {endpoint!r}")
        if len(files) != 1 or text_of(files[0]) is None:
            raise refused("input_files", "the id of one file is wanted")
        model = text_of(wire.get("model"))
        order = BatchOrder(model=model, input=files[0], endpoint=endpoint, key=key, prompts=prompts)
        patch = difference(wire, decode_json(self.encode_order(order).body))
        return msgspec.structs.replace(order, wire=ProviderState(NAME, patch) if patch else None)

    def encode_job(self, job: BatchJob) -> bytes:
        return patched_with(_wire(job), job.wire, NAME)

    def encode_page(self, page: JobPage) -> bytes:
        return _written_page([self.encode_job(job) for job in page.jobs], page.after)

    def encode_file(self, file: BatchFile) -> bytes:
        return written_file(file, sample_type="batch_request", source="upload")

    def encode_file_page(self, page: FilePage) -> bytes:
        return _written_page([self.encode_file(file) for file in page.files], page.after)

    def encode_outcome(self, outcome: BatchOutcome) -> bytes:
        return written_outcome(outcome)

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        return Mistral().encode_error(error)


def _after(wire: dict[str, Any], page: str | None) -> str | None:
    rows, next_page = list_of(wire.get("data")), int(page or "0") + 1
    total = count_of(wire.get("total"))
    has_more = len(rows) == _PAGE if total is None else next_page * _PAGE < total
    return str(next_page) if rows and has_more else None


def _written_page(rows: Sequence[bytes], after: str | None) -> bytes:
    # What comes after is told by the total alone.
    total = len(rows) if after is None else int(after) * _PAGE + 1
    return msgspec.json.encode({"object": "list", "data": list(map(msgspec.Raw, rows)), "total": total})


def _job(wire: dict[str, Any]) -> BatchJob:
    state = _STATES.get(needed(wire, "status"), "running")
    told = [count_of(wire.get(f"{name}_requests")) for name in ("total", "completed", "succeeded", "failed")]
    total, completed, succeeded, failed = told
    is_going_on = state in ("running", "cancelling")
    running = total - completed if is_going_on and total is not None and completed is not None else None
    key, prompts = key_and_prompts(wire.get("metadata"))
    files, errors = list_of(wire.get("input_files")), list_of(wire.get("errors"))
    job = BatchJob(
        id=needed(wire),
        state=state,
        counts=BatchCounts(total=total or None, running=running, succeeded=succeeded, failed=failed),
        model=text_of(wire.get("model")),
        endpoint=text_of(wire.get("endpoint")),
        created=moment(wire.get("created_at")),
        ended=None if is_going_on else moment(wire.get("completed_at")),
        key=key,
        prompts=prompts,
        input=text_of(files[0]) if files else None,
        output=text_of(wire.get("output_file")),
        failures=text_of(wire.get("error_file")),
        reason="; ".join(filter(None, (text_of(mapping_of(error).get("message")) for error in errors))) or None,
    )
    return msgspec.structs.replace(job, wire=with_wire(wire, _wire(job), NAME))


def _wire(job: BatchJob) -> dict[str, Any]:
    """A job in its server's words, as far as ours go."""
    counts = job.counts
    done = (counts.succeeded or 0) + (counts.failed or 0)
    return {
        "id": job.id,
        "object": "batch",
        "input_files": [job.input] if job.input else [],
        "endpoint": job.endpoint,
        "model": job.model,
        "metadata": metadata_of(job.key, job.prompts) or None,
        "errors": [{"message": job.reason}] if job.reason else [],
        "status": _WORDS[job.state],
        "created_at": seconds_of(job.created),
        "completed_at": seconds_of(job.ended),
        "output_file": job.output,
        "error_file": job.failures,
        "total_requests": counts.total or 0,
        "completed_requests": done,
        "succeeded_requests": counts.succeeded or 0,
        "failed_requests": counts.failed or 0,
    }
