"""Formats of batches: many requests sent together, answered within a day; what all of them have in common.

A batch's requests and answers are bodies of a conversation's format, which stand here as bytes: what they say is for
that format. `BatchDialect` is what the rooms above know of a format of batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from ..errors import ClosedError, DeadlineExceeded, ProviderError, SabirError, StreamProtocolError
from ..messages import ProviderState
from ..requests import HttpRequest
from ..strict_json import decode_json, encode_json, is_object
from . import count_of, mapping_of, text_of
from .bodies import answer_of, shown
from .failures import status_of
from .leftovers import difference, own_state, patched, without_nulls

BatchState: TypeAlias = Literal["running", "cancelling", "ended", "cancelled", "expired", "failed"]


class BatchCounts(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """How many of a batch's requests are in which state; None is not told, which is not 0."""

    total: int | None = None
    running: int | None = None
    succeeded: int | None = None
    failed: int | None = None
    cancelled: int | None = None
    expired: int | None = None


class BatchItem(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a batch: the id that its answer will come back with, where it goes, and its body."""

    id: str
    body: bytes
    endpoint: str | None = None


class BatchOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one request: the answer's body, or why there is none."""

    id: str
    body: bytes | None = None
    error: SabirError | None = None
    request_id: str | None = None


class BatchOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A batch to be made, of these requests or of those in the file `input`.

    `key` is by what its maker finds it again, `prompts` a digest of what is asked; `wire` is what a decoded order said
    beyond these words.
    """

    model: str | None
    items: tuple[BatchItem, ...] = ()
    input: str | None = None
    endpoint: str | None = None
    key: str | None = None
    prompts: str | None = None
    headers: dict[str, str] = {}
    wire: ProviderState | None = None


class BatchJob(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as its server tells it; `wire` is what it said beyond these words.

    `output` and `failures` name the files in which answers and errors stand, `outcomes` are those that stand in the
    batch itself. `reason` is why the batch as a whole came to nothing.
    """

    id: str
    state: BatchState
    counts: BatchCounts = BatchCounts()
    model: str | None = None
    endpoint: str | None = None
    created: datetime | None = None
    expires: datetime | None = None
    ended: datetime | None = None
    key: str | None = None
    prompts: str | None = None
    input: str | None = None
    output: str | None = None
    failures: str | None = None
    outcomes: tuple[BatchOutcome, ...] | None = None
    reason: str | None = None
    wire: ProviderState | None = None


class BatchFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of requests as its server knows it; `data` is there where it is being sent."""

    id: str
    name: str
    size: int | None = None
    created: datetime | None = None
    data: bytes = b""
    wire: ProviderState | None = None


class JobPage(NamedTuple):
    """Some of a server's batches, and what to ask for the rest with; None is that there are no more."""

    jobs: tuple[BatchJob, ...]
    after: str | None


class FilePage(NamedTuple):
    """Some of a server's files, as `JobPage`."""

    files: tuple[BatchFile, ...]
    after: str | None


class BatchFiles(Protocol):
    """How requests are sent in a file, both halves."""

    @property
    def upload_root(self) -> str:
        """What stands before the path of the provider's address where files are sent to."""
        ...

    def encode_upload(self, name: str, items: Sequence[BatchItem]) -> HttpRequest | None:
        """The upload of the requests; None where these may go with the order itself."""
        ...

    def encode_files(self, after: str | None) -> HttpRequest: ...

    def decode_file(self, body: bytes) -> BatchFile: ...

    def decode_files(self, body: bytes, after: str | None) -> FilePage: ...

    def decode_upload(self, headers: Mapping[str, str], body: bytes) -> BatchFile:
        """A file that is being sent, its id unknown.

        Raises:
            BadRequestError: it is none; says why.
        """
        ...

    def decode_items(self, data: bytes) -> tuple[BatchItem, ...]: ...

    def encode_file(self, file: BatchFile) -> bytes: ...

    def encode_file_page(self, page: FilePage) -> bytes: ...


class BatchDialect(Protocol):
    """A wire format of batches, both halves. `price` is what a batch costs, as a part of what the same calls do,
    None where that is not known; the buckets of `Usage` in `full_price` are not reduced.
    """

    @property
    def name(self) -> str: ...

    @property
    def price(self) -> Decimal | None: ...

    @property
    def full_price(self) -> frozenset[str]: ...

    @property
    def max_requests(self) -> int | None:
        """The most requests of a batch; None is no limit that we know."""
        ...

    @property
    def max_bytes(self) -> int | None: ...

    @property
    def tells_key(self) -> bool:
        """Whether a batch says, from its first moment, by what key it was made."""
        ...

    @property
    def files(self) -> BatchFiles | None:
        """How requests are sent in a file; None where they always go with the order."""
        ...

    def endpoint_of(self, path: str) -> str | None:
        """What a batch calls the path that its requests would go to alone; None is that this is not served."""
        ...

    def answers_in(self, job: BatchJob) -> str | None:
        """The dialect that a batch's answers are in; None is that of its provider."""
        ...

    # The client's half.

    def encode_order(self, order: BatchOrder) -> HttpRequest: ...

    def encode_status(self, id_: str) -> HttpRequest: ...

    def encode_cancel(self, id_: str) -> HttpRequest: ...

    def encode_jobs(self, after: str | None) -> HttpRequest: ...

    def encode_results(self, job: BatchJob) -> tuple[HttpRequest, ...]:
        """What to ask for the lines of results, failures first."""
        ...

    def decode_job(self, body: bytes) -> BatchJob:
        """A batch.

        Raises:
            SabirError: the body is none, or an error sent with status 200.
        """
        ...

    def decode_jobs(self, body: bytes, after: str | None) -> JobPage:
        """The batches that were asked for with this `after`, the latest first."""
        ...

    def decode_outcome(self, line: bytes) -> BatchOutcome: ...

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError: ...

    # The server's half.

    def decode_order(self, path: str, body: bytes) -> BatchOrder:
        """A client's order, strictly.

        Raises:
            BadRequestError: it is none; says where.
        """
        ...

    def encode_job(self, job: BatchJob) -> bytes: ...

    def encode_page(self, page: JobPage) -> bytes: ...

    def encode_outcome(self, outcome: BatchOutcome) -> bytes: ...

    def encode_error(self, error: SabirError) -> tuple[int, bytes]: ...


def get(url: str, headers: tuple[tuple[str, str], ...] = ()) -> HttpRequest:
    return HttpRequest("GET", url, headers, b"")


def job_of(body: bytes, what: str = "batch") -> dict[str, Any]:
    """The object of an answer that is a batch, without its nulls.

    Raises:
        SabirError: it is none.
    """
    wire = answer_of(body)
    if not is_object(wire):
        raise StreamProtocolError(f"the answer is no {what}", body=shown(body))
    return without_nulls(wire)  # type: ignore[no-any-return]


def needed(wire: Mapping[str, Any], field: str = "id") -> str:
    """A text without which an answer is none, such as the id by which a batch is asked for again.

    Raises:
        StreamProtocolError: it is not there.
    """
    if (found := text_of(wire.get(field))) is None:
        raise StreamProtocolError(f"the answer has no {field}: {str(dict(wire))[:200]}")
    return found


def line_of(line: bytes) -> dict[str, Any]:
    """The object of a line of results.

    Raises:
        StreamProtocolError: it is none.
    """
    try:
        wire = decode_json(line)
    except ValueError as error:
        raise StreamProtocolError(f"a line of the results is no JSON: {error}", body=shown(line)) from None
    if not is_object(wire):
        raise StreamProtocolError("a line of the results is no JSON object", body=shown(line))
    return wire


def json_lines(values: Sequence[Mapping[str, Any]]) -> bytes:
    """Objects as lines; a body that is bytes is to be given as `msgspec.Raw`."""
    return b"".join(msgspec.json.encode(value) + b"\n" for value in values)


def with_wire(wire: Mapping[str, Any], ours: Mapping[str, Any], name: str) -> ProviderState | None:
    """What a server said beyond our words, to be said again by `patched_with`."""
    patch = difference(wire, without_nulls(dict(ours)))
    return ProviderState(name, patch) if patch else None


def patched_with(ours: dict[str, Any], wire: ProviderState | None, name: str) -> bytes:
    """Our words with what the server said beyond them, as JSON."""
    return encode_json(patched(ours, own_state(wire, name)))


def moment(seconds: Any) -> datetime | None:
    """A moment that is told in seconds since 1970."""
    count = count_of(seconds)
    return None if count is None or count > 1 << 37 else datetime.fromtimestamp(count, UTC)


def seconds_of(when: datetime | None) -> int | None:
    return None if when is None else int(when.timestamp())


def day(text: Any) -> datetime | None:
    """A moment that is told as RFC 3339 has it."""
    try:
        when = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when


def text_of_day(when: datetime | None) -> str | None:
    return None if when is None else when.isoformat()


def key_and_prompts(metadata: Any) -> tuple[str | None, str | None]:
    """What we wrote beside a batch."""
    told = mapping_of(metadata)
    return text_of(told.get("sabir_key")), text_of(told.get("sabir_prompts"))


def metadata_of(key: str | None, prompts: str | None) -> dict[str, str]:
    told = {"sabir_key": key, "sabir_prompts": prompts}
    return {name: value for name, value in told.items() if value is not None}


def expired_error(message: str | None = None) -> DeadlineExceeded:
    """Why a request of a batch has no answer: the batch's time ran out."""
    return DeadlineExceeded(message or "the batch ran out of time before this prompt was answered", code="expired")


def cancelled_error(message: str | None = None) -> ClosedError:
    """Why a request of a batch has no answer: the batch was cancelled."""
    return ClosedError(message or "the batch was cancelled before this prompt was answered", code="cancelled")


def is_expired(error: SabirError | None) -> bool:
    return isinstance(error, DeadlineExceeded)


def is_cancelled(error: SabirError | None) -> bool:
    return isinstance(error, ClosedError)


def error_status(error: SabirError) -> int:
    """The HTTP status that the request alone would have been answered with."""
    return status_of(error)
