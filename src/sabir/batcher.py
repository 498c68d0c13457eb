"""What speaks of a provider's batches: where, in which formats, and how what it says is made a `Batch`.

A batch's prompts are planned as calls are and written by a model that sends nothing (`Kept`); its answers are read as
calls are, by a turn whose model has answered already (`Answer`). Knows no wire format.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, Protocol, TypeVar, cast, final

import msgspec

from .calls import Asker
from .cost import Cost
from .deltas import Delta, Head
from .dialects import Dialect, response_of
from .dialects.batches import BatchCounts, BatchDialect, BatchJob, BatchOutcome, BatchState
from .dialects.ndjson import LineStream
from .errors import SabirError, StreamInterrupted, UnsupportedError
from .messages import Message
from .model import Endpoint, Exchange, Model, written
from .requests import HttpRequest, Notice, Request, Response, SchemaMode
from .retry import retried
from .runtime import Runtime
from .strict_json import decode_json
from .turn import Turn
from .usage import Usage

T = TypeVar("T")

OVER: frozenset[BatchState] = frozenset({"ended", "cancelled", "expired", "failed"})
# What the ids of our requests say: how a schema was asked for, by what key, and the prompt's place.
_OURS = re.compile(r"sabir-(?:(?P<mode>native|tool|prompt)-)?(?:[0-9a-f]{16}-)?(?P<index>\d{1,9})")


class Batch(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """A batch as its provider tells it; what it does not tell is None.

    `id` is `provider:id`, and all that another process needs. `state` is "running", "cancelling", or how it is over:
    "ended", "cancelled", "expired", "failed" (as a whole, for `reason`). `key` is what it was submitted with, where the
    provider keeps that. `warnings` are what did not go as asked when it was submitted.
    """

    id: str
    state: BatchState
    counts: BatchCounts = BatchCounts()
    model: str | None = None
    key: str | None = None
    created: datetime | None = None
    expires: datetime | None = None
    ended: datetime | None = None
    reason: str | None = None
    warnings: tuple[Notice, ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it, so that its results can be read."""
        return self.state in OVER


@final
class Batcher:
    """Where a provider's batches are, and in which formats they are spoken of."""

    def __init__(
        self,
        provider: str,
        dialect: BatchDialect,
        formats: tuple[Dialect, ...],
        endpoint: Endpoint,
        runtime: Runtime,
        max_attempts: int,
        fitted: Callable[[Model], Model],
    ) -> None:
        """The first of `formats` is the one in which its model is asked, `fitted` sees to images, sounds and files."""
        self.provider = provider
        self.dialect = dialect
        self.fitted = fitted
        self.endpoint = endpoint = endpoint.seeking("the batch's id")
        self.max_attempts = max_attempts
        self._formats = formats
        self._asker = Asker(dialect, endpoint, runtime, max_attempts)
        root = "" if dialect.files is None else dialect.files.upload_root
        self._uploader = Asker(dialect, endpoint.beside(root), runtime, max_attempts)

    async def ask(self, http: HttpRequest, read: Callable[[bytes], T], exchange: Exchange) -> T:
        return await self._asker.ask(http, read, "", exchange)

    async def upload(self, http: HttpRequest, read: Callable[[bytes], T], exchange: Exchange) -> T:
        return await self._uploader.ask(http, read, "", exchange)

    @property
    def asked_in(self) -> Dialect:
        """The dialect in which a model is asked."""
        return self._formats[0]

    def format_of(self, job: BatchJob) -> Dialect:
        """The dialect that a batch's answers are in.

        Raises:
            UnsupportedError: none of the provider's that we know.
        """
        name = self.dialect.answers_in(job) or self._formats[0].name
        if (found := next((each for each in self._formats if each.name == name), None)) is None:
            raise UnsupportedError(f"{self.provider}:{job.id} asked {job.endpoint}, of whose answers nothing is known")
        return found

    def reduced(self, cost: Cost | None, usage: Usage) -> Cost | None:
        """A cost at the price of a batch, None if that is not known; what the provider itself told is that already."""
        price, full = self.dialect.price, self.dialect.full_price
        if cost is None or cost.is_reported:
            return cost
        if price is None or any(getattr(usage, name) and name not in cost.buckets for name in full):
            return None
        buckets = {name: usd if name in full else usd * price for name, usd in cost.buckets.items()}
        source = f"{cost.source}, as a batch" if cost.source else "as a batch"
        return msgspec.structs.replace(cost, usd=sum(buckets.values(), Decimal()), buckets=buckets, source=source)

    def told(self, job: BatchJob, warnings: tuple[Notice, ...] = ()) -> Batch:
        """A batch in portable words."""
        return Batch(
            id=f"{self.provider}:{job.id}",
            state=job.state,
            counts=job.counts,
            model=job.model,
            key=job.key,
            created=job.created,
            expires=job.expires,
            ended=job.ended,
            reason=job.reason,
            warnings=warnings,
        )


class Planned(NamedTuple):
    """One prompt of a batch, checked: what is asked, and `model`, which has `kept` write it and sends nothing."""

    batcher: Batcher
    request: Request
    model: Model
    kept: Kept
    schema_mode: SchemaMode | None
    notices: tuple[Notice, ...]


class Opener(Protocol):
    """What batches need of a client."""

    @property
    def runtime(self) -> Runtime: ...

    def batcher(self, provider: str) -> Batcher: ...

    def batch_plan(self, messages: tuple[Message, ...], options: Mapping[str, Any], schema: Any) -> Planned: ...

    def batch_turn(self, batcher: Batcher, model: str, answer: Answer, schema: Any) -> Turn[Any]: ...

    def batch_cost(self, batcher: Batcher, model: str, answer: Answer, response: Response[Any]) -> Cost | None: ...

    def open_exchange(self) -> tuple[Exchange, float | None]: ...

    def keep(self, call: Any) -> None: ...


class Live:
    """Something that is under way and can be ended, from any thread."""

    def __init__(self, client: Opener) -> None:
        self._client = client
        self.exchange, self._timeout = client.open_exchange()
        client.keep(self)

    def start(self) -> None:
        """Begin: the deadline runs from here."""
        if self._timeout is not None:
            self.exchange.line.deadline = self._client.runtime.now() + self._timeout

    def end(self) -> None:
        """End what is under way; harmless if nothing is."""
        self.exchange.line.abort()


@final
class Kept:
    """A model that keeps what it would send."""

    def __init__(self, dialect: Dialect) -> None:
        self.requests: list[HttpRequest] = []
        self._dialect = dialect

    async def deltas(self, request: Request, exchange: Exchange) -> AsyncGenerator[list[Delta], None]:
        http, notices = written(self._dialect, request)
        exchange.report(notices)
        self.requests.append(http)
        return
        yield

    def explain(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        return written(self._dialect, request)


@final
class Answer:
    """A model that has answered already."""

    def __init__(self, dialect: Dialect, outcome: BatchOutcome, schema_mode: SchemaMode | None) -> None:
        self.dialect = dialect
        self.schema_mode: SchemaMode | None = schema_mode
        self._outcome = outcome
        self._error: SabirError | None = None
        self._deltas: list[Delta] = []
        try:
            self._deltas = dialect.decode_answer(outcome.body or b"")
        except SabirError as error:
            self._error = error

    @property
    def model(self) -> str:
        """Who has answered, as the answer says."""
        return next((delta.model for delta in self._deltas if isinstance(delta, Head) and delta.model), "")

    @property
    def response(self) -> Response[None] | None:
        return None if self._error is not None else response_of(self.dialect.name, self._deltas)

    async def deltas(self, request: Request, exchange: Exchange) -> AsyncGenerator[list[Delta], None]:
        exchange.body, exchange.request_id = self._outcome.body, self._outcome.request_id
        if self._error is not None:
            raise self._error
        yield self._deltas

    def explain(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        return written(self.dialect, request)


@final
class Lines:
    """The lines of one file of results, as they come."""

    def __init__(self, batcher: Batcher, http: HttpRequest, runtime: Runtime, exchange: Exchange) -> None:
        self._batcher = batcher
        self._http = http
        self._runtime = runtime
        self._exchange = exchange

    def read(self) -> AsyncGenerator[list[bytes], None]:
        return retried(self._once, self._exchange, self._runtime, self._batcher.max_attempts)

    async def _once(self) -> AsyncGenerator[list[bytes], None]:
        endpoint, stream = self._batcher.endpoint, LineStream()
        try:
            reply = await endpoint.send(self._http, self._exchange, self._batcher.dialect.decode_error)
            try:
                while data := await reply.read_some():
                    if lines := list(stream.feed(data)):
                        yield lines
            finally:
                reply.close()
            if rest := stream.rest.strip():
                # The last line may lack its end, if nothing else.
                _check_is_whole(rest)
                yield [rest]
        except SabirError as error:
            raise endpoint.told(error, "", self._exchange) from None


async def status_of(batcher: Batcher, id_: str, exchange: Exchange) -> BatchJob:
    """How far a batch is, as its server tells it."""
    return await batcher.ask(batcher.dialect.encode_status(id_), batcher.dialect.decode_job, exchange)


def item_id(number: int, tag: str | None, mode: SchemaMode | None) -> str:
    """The id of a prompt's request: its place, and what else is to come back with its result."""
    return "-".join(filter(None, ("sabir", mode, tag, str(number))))


def index_of(id_: str) -> int | None:
    """The place of the prompt that an id of ours is for."""
    found = _OURS.fullmatch(id_)
    return None if found is None else int(found["index"])


def mode_of(id_: str) -> SchemaMode | None:
    """How a schema was asked for, as an id of ours says."""
    found = _OURS.fullmatch(id_)
    return None if found is None else cast("SchemaMode | None", found["mode"])


def _check_is_whole(line: bytes) -> None:
    try:
        decode_json(line)
    except ValueError:
        raise StreamInterrupted("the results end in the middle of a line; read them again") from None
