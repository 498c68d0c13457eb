"""Gemini's batches: requests go with the order, or in a file if they are many; answers come back the same way.

A batch is an operation whose metadata is the batch. Its name for people is where a key is kept.

Sources: https://ai.google.dev/api/batch-api, https://ai.google.dev/gemini-api/docs/batch-api, .../api/files and
google-genai 3.4. No recording of it is known to us.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import msgspec

from ..errors import NotFoundError, ProviderError, SabirError, StreamProtocolError
from ..messages import ProviderState
from ..requests import HttpRequest
from ..strict_json import decode_json, encode_json, is_array, is_object
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
    day,
    error_status,
    expired_error,
    get,
    is_cancelled,
    is_expired,
    job_of,
    json_lines,
    line_of,
    needed,
    patched_with,
    text_of_day,
    with_wire,
)
from .bodies import post, refused, request_of
from .gemini import Gemini
from .leftovers import difference, own_state, patched, without_nulls

NAME = "gemini_batches"

_METHOD = ":generateContent"
_STATES: dict[str, BatchState] = {
    "RUNNING": "running",
    "PENDING": "running",
    "QUEUED": "running",
    "CANCELLING": "cancelling",
    "SUCCEEDED": "ended",
    "PARTIALLY_SUCCEEDED": "ended",
    "CANCELLED": "cancelled",
    "EXPIRED": "expired",
    "FAILED": "failed",
}
_WORDS: dict[BatchState, str] = {state: word for word, state in reversed(_STATES.items())}
_COUNTS = {
    "requestCount": "total",
    "successfulRequestCount": "succeeded",
    "failedRequestCount": "failed",
    "pendingRequestCount": "running",
}
# https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto: what stands where HTTP has its status.
_CANCELLED, _DEADLINE = 1, 4
_HTTP = {2: 500, 3: 400, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400, 12: 501, 13: 500, 14: 503, 16: 401}
_RPC = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 429: 8, 500: 13, 501: 12, 503: 14}
# A name for people, the key and the digest in one text.
_LABEL = re.compile(r"(?:sabir: (?P<key>.*) )?#(?P<prompts>[0-9a-f]{16,64})", re.S)


@dataclass(frozen=True)
class GeminiBatches:
    """The dialect.

    Attributes:
        price: what a batch costs, as a part of what the same calls do; None is not known.
        full_price: the buckets of `Usage` that cost as much as always.
        max_requests: the most requests of a batch; none is documented.
        max_bytes: the most bytes of a file of them.
        max_inline: the most bytes of an order with its requests; beyond that they go as a file.
    """

    price: Decimal | None = None
    full_price: frozenset[str] = frozenset()
    max_requests: int | None = None
    max_bytes: int | None = 2 << 30
    max_inline: int = 19_000_000

    name = NAME
    tells_key = True
    upload_root = "/upload"

    @property
    def files(self) -> GeminiBatches:
        return self

    def endpoint_of(self, path: str) -> str | None:
        """Here, the model that the order is for."""
        return path.removesuffix(_METHOD) if path.endswith(_METHOD) else None

    def answers_in(self, job: BatchJob) -> str | None:
        return None

    def encode_upload(self, name: str, items: Sequence[BatchItem]) -> HttpRequest | None:
        if sum(len(item.body) + 100 for item in items) <= self.max_inline:
            return None
        data = json_lines([{"key": item.id, "request": msgspec.Raw(item.body)} for item in items])
        about = encode_json({"file": {"displayName": name}})
        boundary = sha256(data).hexdigest()[:40].encode()
        line = b"\r\n--" + boundary
        parts = ((b"application/json", about), (b"application/jsonl", data))
        pieces = [part for kind, held in parts for part in (line, b"\r\ncontent-type: ", kind, b"\r\n\r\n", held)]
        headers = (
            ("x-goog-upload-protocol", "multipart"),
            ("content-type", f"multipart/related; boundary={boundary.decode()}"),
        )
        return HttpRequest("POST", "/files", headers, b"".join([*pieces, line, b"--\r\n"]))

    def encode_order(self, order: BatchOrder) -> HttpRequest:
        rows = [{"request": msgspec.Raw(item.body), "metadata": {"key": item.id}} for item in order.items]
        source: dict[str, Any] = {"fileName": order.input} if order.input else {"requests": {"requests": rows}}
        fields = {"displayName": _label(order.key, order.prompts), "inputConfig": source}
        batch = patched(without_nulls(fields), own_state(order.wire, NAME))
        headers = (("content-type", "application/json"), *order.headers.items())
        url = f"{order.endpoint}:batchGenerateContent"
        return HttpRequest("POST", url, headers, msgspec.json.encode({"batch": batch}))

    def encode_status(self, id_: str) -> HttpRequest:
        return get(f"/batches/{quote(id_, safe='')}")

    def encode_cancel(self, id_: str) -> HttpRequest:
        return post(f"/batches/{quote(id_, safe='')}:cancel", {}, {})

    def encode_jobs(self, after: str | None) -> HttpRequest:
        return get("/batches?pageSize=100" + ("" if after is None else f"&pageToken={quote(after, safe='')}"))

    def encode_files(self, after: str | None) -> HttpRequest:
        return get("/files?pageSize=100" + ("" if after is None else f"&pageToken={quote(after, safe='')}"))

    def encode_results(self, job: BatchJob) -> tuple[HttpRequest, ...]:
        return () if job.output is None else (get(f"/{quote(job.output)}:download?alt=media"),)

    def decode_job(self, body: bytes) -> BatchJob:
        return _job(_operation(body))

    def decode_jobs(self, body: bytes, after: str | None) -> JobPage:
        wire = job_of(body, "list of batches")
        return JobPage(tuple(map(_job, list_of(wire.get("operations")))), text_of(wire.get("nextPageToken")))

    def decode_file(self, body: bytes) -> BatchFile:
        return _file(mapping_of(job_of(body, "file").get("file")))

    def decode_files(self, body: bytes, after: str | None) -> FilePage:
        wire = job_of(body, "list of files")
        return FilePage(tuple(map(_file, list_of(wire.get("files")))), text_of(wire.get("nextPageToken")))

    def decode_outcome(self, line: bytes) -> BatchOutcome:
        return _outcome(line_of(line))

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return Gemini().decode_error(status, headers, body)

    def decode_upload(self, headers: Mapping[str, str], body: bytes) -> BatchFile:
        found = re.search(r'boundary="?([^";]+)', headers.get("content-type", ""))
        if headers.get("x-goog-upload-protocol") != "multipart" or found is None:
            raise refused("x-goog-upload-protocol", "it is 'multipart', with a body multipart/related")
        parts = (b"\r\n" + body).split(b"\r\n--" + found[1].encode())
        if len(parts) != 4 or not parts[-1].startswith(b"--"):
            raise refused("body", "what it is and the file itself are wanted")
        about, data = (part.partition(b"\r\n\r\n")[2] for part in parts[1:3])
        told = mapping_of(request_of(about).get("file"))
        return BatchFile(id="", name=text_of(told.get("displayName")) or "", size=len(data), data=data)

    def decode_items(self, data: bytes) -> tuple[BatchItem, ...]:
        lines = filter(bytes.strip, data.split(b"\n"))
        return tuple(_item(request_of(line), f"line {number + 1}", None) for number, line in enumerate(lines))

    def decode_order(self, path: str, body: bytes) -> BatchOrder:
        found = re.fullmatch(r".*?(/[^/]+/[^/:]+):batchGenerateContent", path.partition("?")[0])
        if found is None:
            raise NotFoundError(f"nothing is served at {path}; ask /models/MODEL:batchGenerateContent", status=404)
        wire = without_nulls(mapping_of(request_of(body).get("batch")))
        source = mapping_of(wire.get("inputConfig"))
        file, requests = text_of(source.get("fileName")), mapping_of(source.get("requests")).get("requests")
        if file is None and not (is_array(requests) and requests):
            raise refused("batch.inputConfig", "requests are wanted, or the name of a file of them")
        items = [
            _item(mapping_of(each), f"batch.inputConfig.requests.requests[{number}]", str(number))
            for number, each in enumerate(list_of(requests))
        ]
        key, prompts = _told(text_of(wire.get("displayName")))
        endpoint = found[1]
        order = BatchOrder(
            model=endpoint.rpartition("/")[2],
            items=tuple(items),
            input=file,
            endpoint=endpoint,
            key=key,
            prompts=prompts,
        )
        patch = difference(wire, decode_json(self.encode_order(order).body)["batch"])
        return msgspec.structs.replace(order, wire=ProviderState(NAME, patch) if patch else None)

    def encode_job(self, job: BatchJob) -> bytes:
        return patched_with(_plain(_wire(job)), job.wire, NAME)

    def encode_page(self, page: JobPage) -> bytes:
        rows = [msgspec.Raw(self.encode_job(job)) for job in page.jobs]
        return msgspec.json.encode(without_nulls({"nextPageToken": page.after}) | {"operations": rows})

    def encode_file(self, file: BatchFile) -> bytes:
        return msgspec.json.encode({"file": msgspec.Raw(patched_with(_file_wire(file), file.wire, NAME))})

    def encode_file_page(self, page: FilePage) -> bytes:
        rows = [msgspec.Raw(patched_with(_file_wire(file), file.wire, NAME)) for file in page.files]
        return msgspec.json.encode(without_nulls({"nextPageToken": page.after}) | {"files": rows})

    def encode_outcome(self, outcome: BatchOutcome) -> bytes:
        return msgspec.json.encode({"key": outcome.id, **_result(outcome)})

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        return Gemini().encode_error(error)


def _label(key: str | None, prompts: str | None) -> str | None:
    if prompts is None:
        return key
    return f"#{prompts}" if key is None else f"sabir: {key} #{prompts}"


def _told(label: str | None) -> tuple[str | None, str | None]:
    found = _LABEL.fullmatch(label or "")
    return (label, None) if found is None else (found["key"], found["prompts"])


def _item(wire: dict[str, Any], where: str, default: str | None) -> BatchItem:
    id_ = text_of(wire.get("key")) or text_of(mapping_of(wire.get("metadata")).get("key")) or default
    if id_ is None or not is_object(wire.get("request")):
        raise refused(where, "a key and a request are wanted")
    return BatchItem(id=id_, body=encode_json(wire["request"]))


def _outcome(wire: dict[str, Any]) -> BatchOutcome:
    """A line of a file of results, or a result that stands in the batch."""
    id_ = text_of(wire.get("key")) or text_of(mapping_of(wire.get("metadata")).get("key"))
    if id_ is None:
        raise StreamProtocolError(f"a result does not say whose it is: {str(wire)[:200]}")
    if is_object(wire.get("response")):
        return BatchOutcome(id=id_, body=encode_json(wire["response"]))
    status = mapping_of(wire.get("error") or wire.get("status"))
    code, message = count_of(status.get("code")), text_of(status.get("message"))
    if code == _CANCELLED:
        return BatchOutcome(id=id_, error=cancelled_error(message))
    if code == _DEADLINE:
        return BatchOutcome(id=id_, error=expired_error(message))
    http = _HTTP.get(code or 2, code if code is not None and code >= 400 else 500)
    return BatchOutcome(id=id_, error=Gemini().decode_error(http, {}, encode_json({"error": {**status, "code": http}})))


def _result(outcome: BatchOutcome) -> dict[str, Any]:
    error = outcome.error
    if outcome.body is not None:
        return {"response": msgspec.Raw(outcome.body)}
    if error is None or is_expired(error):
        return {"error": {"code": _DEADLINE, "message": str(error or expired_error())}}
    if is_cancelled(error):
        return {"error": {"code": _CANCELLED, "message": str(error)}}
    # Without `details`: Google's own SDK wants texts there, and fails on objects.
    return {"error": {"code": _RPC.get(error_status(error), 2), "message": error.message}}


def _file(wire: dict[str, Any]) -> BatchFile:
    size = text_of(wire.get("sizeBytes")) or ""
    name = text_of(wire.get("displayName")) or ""
    file = BatchFile(id=needed(wire, "name"), name=name, size=int(size) if size.isdecimal() else None)
    return msgspec.structs.replace(file, wire=with_wire(wire, _file_wire(file), NAME))


def _file_wire(file: BatchFile) -> dict[str, Any]:
    size = None if file.size is None else str(file.size)
    return {"name": file.id, "displayName": file.name, "sizeBytes": size, "mimeType": "application/jsonl"}


def _operation(body: bytes) -> dict[str, Any]:
    """The object of a batch, which may be one that failed: then it has an error, and is none itself."""
    try:
        wire = decode_json(body)
    except ValueError:
        wire = None
    return without_nulls(wire) if is_object(wire) and "name" in wire else job_of(body)


def _job(wire: dict[str, Any]) -> BatchJob:
    about = mapping_of(wire.get("metadata"))
    state = _STATES.get((text_of(about.get("state")) or "").rpartition("_STATE_")[2], "running")
    failure = mapping_of(wire.get("error"))
    if failure and state == "running":
        state = "cancelled" if failure.get("code") == _CANCELLED else "failed"
    stats = mapping_of(about.get("batchStats"))
    counts = {ours: _number(stats.get(theirs)) for theirs, ours in _COUNTS.items()}
    key, prompts = _told(text_of(about.get("displayName")))
    # Where an answer stands has changed over time; the batch in the metadata has it too.
    answer = mapping_of(wire.get("response"))
    places = [mapping_of(about.get("output")), answer, mapping_of(answer.get("output"))]
    inline = next((found for place in places if is_object(found := place.get("inlinedResponses"))), None)
    rows = None if inline is None else list_of(inline.get("inlinedResponses"))
    model = text_of(about.get("model"))
    job = BatchJob(
        id=needed(wire, "name").removeprefix("batches/"),
        state=state,
        counts=BatchCounts(**counts),
        model=model and model.removeprefix("models/"),
        created=day(about.get("createTime")),
        ended=day(about.get("endTime")),
        key=key,
        prompts=prompts,
        output=next((file for place in places if (file := text_of(place.get("responsesFile")))), None),
        outcomes=None if rows is None else tuple(_outcome(mapping_of(row)) for row in rows),
        reason=text_of(failure.get("message")),
    )
    return msgspec.structs.replace(job, wire=with_wire(wire, _plain(_wire(job)), NAME))


def _number(value: Any) -> int | None:
    """A count, which Google writes as a text, and leaves out where it is 0."""
    return int(value) if isinstance(value, str) and value.isdecimal() else count_of(value)


def _plain(wire: dict[str, Any]) -> dict[str, Any]:
    """A value with the bodies in it as values, so that it can be compared."""
    plain: dict[str, Any] = decode_json(msgspec.json.encode(wire))
    return plain


def _wire(job: BatchJob) -> dict[str, Any]:
    """A batch in its server's words, as far as ours go."""
    output: dict[str, Any] | None = {"responsesFile": job.output} if job.output else None
    if job.outcomes is not None:
        rows = [{"metadata": {"key": outcome.id}, **_result(outcome)} for outcome in job.outcomes]
        output = {"inlinedResponses": {"inlinedResponses": rows}}
    told = {theirs: getattr(job.counts, ours) for theirs, ours in _COUNTS.items()}
    stats = {name: str(count) for name, count in told.items() if count is not None}
    is_over = job.state not in ("running", "cancelling")
    failure = {"code": _CANCELLED if job.state == "cancelled" else 13, "message": job.reason} if job.reason else None
    wire = {
        "name": f"batches/{job.id}",
        "metadata": {
            "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
            "name": f"batches/{job.id}",
            "model": job.model and f"models/{job.model}",
            "displayName": _label(job.key, job.prompts),
            "state": f"BATCH_STATE_{_WORDS[job.state]}",
            "createTime": text_of_day(job.created),
            "endTime": text_of_day(job.ended),
            "batchStats": stats or None,
            "output": output,
        },
        "done": is_over or None,
        "error": failure,
        "response": output if is_over and failure is None else None,
    }
    return {name: value for name, value in wire.items() if value is not None}
