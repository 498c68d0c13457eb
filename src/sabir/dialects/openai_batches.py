"""OpenAI's batches: a file of requests is uploaded, a batch is made of it, and answers and errors come as two files.

Sources: https://platform.openai.com/docs/api-reference/batch, .../docs/guides/batch, .../api-reference/files, openai
3.54. No recording of it is known to us.
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
from ..strict_json import decode_json, encode_json, is_object
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
    cancelled_error,
    error_status,
    expired_error,
    get,
    is_cancelled,
    is_expired,
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
from .failures import failure_object, provider_error
from .leftovers import difference, own_state, patched, without_nulls
from .multipart import Field, decode_form, encode_form

NAME = "openai_batches"

_STATES: dict[str, BatchState] = {
    "in_progress": "running",
    "validating": "running",
    "finalizing": "running",
    "cancelling": "cancelling",
    "completed": "ended",
    "cancelled": "cancelled",
    "expired": "expired",
    "failed": "failed",
}
# Of several words for one state, the first is ours.
_WORDS: dict[BatchState, str] = {state: word for word, state in reversed(_STATES.items())}
_DIALECTS = {"/v1/chat/completions": "openai_chat", "/v1/responses": "openai_responses"}


@dataclass(frozen=True)
class OpenAIBatches:
    """The dialect with the quirks of one kind of server.

    Attributes:
        price: what a batch costs, as a part of what the same calls do; None is not known.
        full_price: the buckets of `Usage` that cost as much as always.
        max_requests: the most requests of a batch.
        max_bytes: the most bytes of a file of them.
        root: what stands before the path of a call in a batch.
    """

    price: Decimal | None = None
    full_price: frozenset[str] = frozenset()
    max_requests: int | None = 50_000
    max_bytes: int | None = 200_000_000
    root: str = "/v1"

    name = NAME
    tells_key = True
    upload_root = ""

    @property
    def files(self) -> OpenAIBatches:
        return self

    def endpoint_of(self, path: str) -> str | None:
        return endpoint if (endpoint := self.root + path) in _DIALECTS else None

    def answers_in(self, job: BatchJob) -> str | None:
        return _DIALECTS.get(job.endpoint or "")

    def encode_upload(self, name: str, items: Sequence[BatchItem]) -> HttpRequest | None:
        lines = [
            {"custom_id": item.id, "method": "POST", "url": item.endpoint, "body": msgspec.Raw(item.body)}
            for item in items
        ]
        return upload(name, json_lines(lines))

    def encode_order(self, order: BatchOrder) -> HttpRequest:
        fields = {
            "input_file_id": order.input,
            "endpoint": order.endpoint,
            "completion_window": "24h",
            "metadata": metadata_of(order.key, order.prompts) or None,
        }
        return post("/batches", patched(without_nulls(fields), own_state(order.wire, NAME)), order.headers)

    def encode_status(self, id_: str) -> HttpRequest:
        return get(f"/batches/{quote(id_, safe='')}")

    def encode_cancel(self, id_: str) -> HttpRequest:
        return HttpRequest("POST", f"/batches/{quote(id_, safe='')}/cancel", (), b"")

    def encode_jobs(self, after: str | None) -> HttpRequest:
        return get("/batches?limit=100" + ("" if after is None else f"&after={quote(after, safe='')}"))

    def encode_files(self, after: str | None) -> HttpRequest:
        rest = "" if after is None else f"&after={quote(after, safe='')}"
        return get(f"/files?purpose=batch&order=desc&limit=1000{rest}")

    def encode_results(self, job: BatchJob) -> tuple[HttpRequest, ...]:
        return contents(job)

    def decode_job(self, body: bytes) -> BatchJob:
        return _job(job_of(body))

    def decode_jobs(self, body: bytes, after: str | None) -> JobPage:
        wire = job_of(body, "list of batches")
        return JobPage(tuple(map(_job, list_of(wire.get("data")))), _after(wire))

    def decode_file(self, body: bytes) -> BatchFile:
        return read_file(job_of(body, "file"))

    def decode_files(self, body: bytes, after: str | None) -> FilePage:
        wire = job_of(body, "list of files")
        return FilePage(tuple(map(read_file, list_of(wire.get("data")))), _after(wire))

    def decode_outcome(self, line: bytes) -> BatchOutcome:
        return read_outcome(line_of(line))

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return provider_error(status, headers, body)

    def decode_upload(self, headers: Mapping[str, str], body: bytes) -> BatchFile:
        return read_upload(headers, body)

    def decode_items(self, data: bytes) -> tuple[BatchItem, ...]:
        return read_items(data, needs_url=True)

    def decode_order(self, path: str, body: bytes) -> BatchOrder:
        wire = without_nulls(request_of(body))
        key, prompts = key_and_prompts(wire.get("metadata"))
        endpoint, file = wire.get("endpoint"), wire.get("input_file_id")
        if endpoint not in _DIALECTS:
            raise refused("endpoint", f"it is one of {', '.join(_DIALECTS)}, not {endpoint!r}")
        if text_of(file) is None:
            raise refused("input_file_id", "the id of a file is wanted")
        if wire.get("completion_window") != "24h":
            raise refused("completion_window", "it is '24h'")
        order = BatchOrder(model=None, input=file, endpoint=endpoint, key=key, prompts=prompts)
        patch = difference(wire, decode_json(self.encode_order(order).body))
        return msgspec.structs.replace(order, wire=ProviderState(NAME, patch) if patch else None)

    def encode_job(self, job: BatchJob) -> bytes:
        return patched_with(_wire(job), job.wire, NAME)

    def encode_page(self, page: JobPage) -> bytes:
        return written_page([self.encode_job(job) for job in page.jobs], [job.id for job in page.jobs], page.after)

    def encode_file(self, file: BatchFile) -> bytes:
        return written_file(file)

    def encode_file_page(self, page: FilePage) -> bytes:
        return written_page([written_file(file) for file in page.files], [file.id for file in page.files], page.after)

    def encode_outcome(self, outcome: BatchOutcome) -> bytes:
        return written_outcome(outcome)

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        return failure_object(error)


def upload(name: str, data: bytes) -> HttpRequest:
    """The upload of a file of requests."""
    kind, body = encode_form((Field("purpose", b"batch"), Field("file", data, name, "application/jsonl")))
    return HttpRequest("POST", "/files", (("content-type", kind),), body)


def contents(job: BatchJob) -> tuple[HttpRequest, ...]:
    """What asks for the files of a batch's errors and answers."""
    return tuple(get(f"/files/{quote(file, safe='')}/content") for file in (job.failures, job.output) if file)


def read_file(wire: dict[str, Any]) -> BatchFile:
    name, size = text_of(wire.get("filename")) or "", count_of(wire.get("bytes"))
    file = BatchFile(id=needed(wire), name=name, size=size, created=moment(wire.get("created_at")))
    return msgspec.structs.replace(file, wire=with_wire(wire, _file_wire(file), NAME))


def written_file(file: BatchFile, **more: str) -> bytes:
    """A file in OpenAI's words, and in those that its relatives have beside them."""
    return patched_with({**_file_wire(file), **more}, file.wire, NAME)


def written_page(rows: Sequence[bytes], ids: Sequence[str], after: str | None) -> bytes:
    page = {
        "object": "list",
        "data": list(map(msgspec.Raw, rows)),
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
        "has_more": after is not None,
    }
    return msgspec.json.encode(page)


def read_upload(headers: Mapping[str, str], body: bytes) -> BatchFile:
    """A file of requests in a form."""
    fields = {field.name: field for field in decode_form(headers.get("content-type", ""), body)}
    if (file := fields.get("file")) is None or file.file is None:
        raise refused("file", "a file is wanted")
    if (purpose := fields.get("purpose")) is None or purpose.data != b"batch":
        raise refused("purpose", "of files, those for batches are taken here: 'batch'")
    return BatchFile(id="", name=file.file, size=len(file.data), data=file.data)


def read_items(data: bytes, *, needs_url: bool) -> tuple[BatchItem, ...]:
    """The requests of a file; some formats have where each goes to in its line."""
    items: list[BatchItem] = []
    for number, line in enumerate(filter(bytes.strip, data.split(b"\n"))):
        wire, where = request_of(line), f"line {number + 1}"
        id_, endpoint = text_of(wire.get("custom_id")), text_of(wire.get("url"))
        if id_ is None or not is_object(wire.get("body")):
            raise refused(where, "a custom_id and a body are wanted")
        if needs_url and (endpoint is None or wire.get("method") != "POST"):
            raise refused(where, "a url and the method 'POST' are wanted")
        items.append(BatchItem(id=id_, body=encode_json(wire["body"]), endpoint=endpoint))
    if len({item.id for item in items}) < len(items):
        raise refused("custom_id", "one stands twice")
    if not items:
        raise refused("file", "there is no request in it")
    return tuple(items)


def read_outcome(wire: dict[str, Any]) -> BatchOutcome:
    """A line of answers or errors; Mistral's are the same."""
    id_, answer, error = needed(wire, "custom_id"), mapping_of(wire.get("response")), wire.get("error")
    request_id, status = text_of(answer.get("request_id")), count_of(answer.get("status_code"))
    if error:
        code, message = text_of(mapping_of(error).get("code")), text_of(mapping_of(error).get("message"))
        if code == "batch_expired":
            return BatchOutcome(id=id_, error=expired_error(message), request_id=request_id)
        if code == "batch_cancelled":
            return BatchOutcome(id=id_, error=cancelled_error(message), request_id=request_id)
        failure = provider_error(status, {}, encode_json({"error": error}))
    elif status is not None and 200 <= status < 300 and is_object(answer.get("body")):
        return BatchOutcome(id=id_, body=encode_json(answer["body"]), request_id=request_id)
    else:
        failure = provider_error(status, {}, encode_json(answer.get("body")))
    failure.request_id = request_id or failure.request_id
    return BatchOutcome(id=id_, error=failure, request_id=request_id)


def written_outcome(outcome: BatchOutcome) -> bytes:
    line: dict[str, Any] = {"id": f"batch_req_{outcome.id}", "custom_id": outcome.id, "response": None, "error": None}
    error = outcome.error
    if outcome.body is not None:
        line["response"] = _answered(200, outcome.request_id, outcome.body)
    elif error is None or is_expired(error):
        line["error"] = {"code": "batch_expired", "message": str(error or expired_error())}
    elif is_cancelled(error):
        line["error"] = {"code": "batch_cancelled", "message": str(error)}
    else:
        line["response"] = _answered(error_status(error), outcome.request_id, failure_object(error)[1])
    return msgspec.json.encode(line)


def _answered(status: int, request_id: str | None, body: bytes) -> dict[str, Any]:
    return {"status_code": status, "request_id": request_id or "", "body": msgspec.Raw(body)}


def _file_wire(file: BatchFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size,
        "created_at": seconds_of(file.created),
        "filename": file.name,
        "purpose": "batch",
    }


def _after(wire: dict[str, Any]) -> str | None:
    rows = list_of(wire.get("data"))
    return text_of(wire.get("last_id")) or needed(rows[-1]) if wire.get("has_more") and rows else None


def _job(wire: dict[str, Any]) -> BatchJob:
    word = needed(wire, "status")
    state = _STATES.get(word, "running")
    told = mapping_of(wire.get("request_counts"))
    total, succeeded, failed = (count_of(told.get(name)) for name in ("total", "completed", "failed"))
    # Nothing has been counted while the file is looked through.
    is_counted = bool(total) and succeeded is not None and failed is not None
    running = None
    if is_counted and state in ("running", "cancelling"):
        running = (total or 0) - (succeeded or 0) - (failed or 0)
    key, prompts = key_and_prompts(wire.get("metadata"))
    job = BatchJob(
        id=needed(wire),
        state=state,
        counts=BatchCounts(total=total or None, running=running, succeeded=succeeded, failed=failed),
        model=text_of(wire.get("model")),
        endpoint=text_of(wire.get("endpoint")),
        created=moment(wire.get("created_at")),
        expires=moment(wire.get("expires_at")),
        ended=moment(wire.get(f"{word}_at")) if state not in ("running", "cancelling") else None,
        key=key,
        prompts=prompts,
        input=text_of(wire.get("input_file_id")),
        output=text_of(wire.get("output_file_id")),
        failures=text_of(wire.get("error_file_id")),
        reason=_reason(list_of(mapping_of(wire.get("errors")).get("data"))),
    )
    return msgspec.structs.replace(job, wire=with_wire(wire, _wire(job), NAME))


def _reason(errors: Sequence[Any]) -> str | None:
    told = [mapping_of(error) for error in errors]
    lines = [f"line {error['line']}: " if count_of(error.get("line")) else "" for error in told]
    words = [text_of(error.get("message")) or text_of(error.get("code")) or "no reason given" for error in told]
    return "; ".join(line + word for line, word in zip(lines, words, strict=True)) or None


def _wire(job: BatchJob) -> dict[str, Any]:
    """A batch in its server's words, as far as ours go."""
    word, counts = _WORDS[job.state], job.counts
    return {
        "id": job.id,
        "object": "batch",
        "endpoint": job.endpoint,
        "model": job.model,
        "errors": {"object": "list", "data": [{"message": job.reason}]} if job.reason else None,
        "input_file_id": job.input,
        "completion_window": "24h",
        "status": word,
        "output_file_id": job.output,
        "error_file_id": job.failures,
        "created_at": seconds_of(job.created),
        "expires_at": seconds_of(job.expires),
        **({f"{word}_at": seconds_of(job.ended)} if job.ended else {}),
        "request_counts": {
            "total": counts.total or 0,
            "completed": counts.succeeded or 0,
            "failed": counts.failed or 0,
        },
        "metadata": metadata_of(job.key, job.prompts) or None,
    }
