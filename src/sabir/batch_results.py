"""What came of a batch, prompt by prompt and in their order; read as it comes, and as often as one likes.

Knows no wire format. Nothing is missing in silence: there is a result for each prompt, or an error at the end.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from types import AsyncGeneratorType
from typing import Any, Generic, TypeVar, cast, final

import msgspec

from .batcher import OVER, Answer, Batcher, Lines, Live, Opener, index_of, mode_of, status_of
from .cost import Cost
from .dialects.batches import BatchJob, BatchOutcome, cancelled_error, expired_error
from .errors import BadRequestError, ConfigurationError, SabirError, StreamInterrupted, StreamProtocolError
from .requests import HttpRequest, Parsed, Response
from .runtime import run
from .schema import schema_of
from .usage import NOTHING, Usage

T = TypeVar("T")


class BatchResult(msgspec.Struct, Generic[Parsed], frozen=True, kw_only=True, repr_omit_defaults=True):
    """What came of one prompt: either `response` or `error`, an error of our family.

    `index` is the prompt's place in what was submitted; None in a batch that sabir has not made, where `id` is all that
    there is. `usage` and `cost` also count an answer that came and did not fit its schema.
    """

    index: int | None
    id: str
    response: Response[Parsed] | None = None
    error: SabirError | None = None
    usage: Usage = NOTHING
    cost: Cost | None = None


class ResultsBody(Live, Generic[T]):
    """One reading of a batch's results: read `batches()` once; `end()` may be called at any time, from any thread."""

    def __init__(self, client: Opener, batcher: Batcher, id_: str, schema: Any) -> None:
        if schema is not None:
            # One that is none is the caller's mistake, and not an error of every answer.
            schema_of(schema)
        super().__init__(client)
        self._batcher = batcher
        self._dialect = batcher.dialect
        self._id = id_
        self._schema = schema
        # In the order of the prompts, results come as soon as all before them have.
        self._waiting: dict[int, BatchOutcome] = {}
        self._next = 0
        self._came = 0
        self._answered = 0

    async def batches(self) -> AsyncGenerator[list[BatchResult[T]], None]:
        """Do the work; yields what has come, in order."""
        runtime, line = self._client.runtime, self.exchange.line
        self.start()
        try:
            job = await self._job()
            self._format = self._batcher.format_of(job)
            async with aclosing(self._outcomes(job)) as batches:
                async for outcomes in batches:
                    ready = [await self._result(job, outcome) for outcome in outcomes]
                    paused = runtime.now()
                    yield ready
                    # The deadline is for what the server takes, not for what is done with its answers.
                    line.extend(runtime.now() - paused)
        finally:
            self.end()

    async def _job(self) -> BatchJob:
        job = await status_of(self._batcher, self._id, self.exchange)
        name = f"{self._batcher.provider}:{job.id}"
        if job.state not in OVER:
            raise ConfigurationError(f"{name} is {job.state}: its results can be read when status(…).is_over")
        has_results = job.outcomes is not None or self._dialect.encode_results(job)
        if not has_results and (job.state in ("ended", "failed") or not job.counts.total):
            why = job.reason or f"it is {job.state}, and there are no results of it (any more)"
            raise BadRequestError(f"{name} came to nothing: {why}", provider=self._batcher.provider, model=job.model)
        return job

    async def _outcomes(self, job: BatchJob) -> AsyncGenerator[list[BatchOutcome], None]:
        """What came of each prompt, in their order.

        Raises:
            StreamInterrupted: of one nothing came, though there has to be something; after all that did come.
        """
        if job.outcomes is not None:
            yield self._placed(job.outcomes)
        requests = self._dialect.encode_results(job)
        for http in requests[:-1]:
            # Those that failed stand apart, and are few.
            async with aclosing(self._read(http)) as batches:
                async for batch in batches:
                    if others := self._hold(batch):
                        yield others
        for http in requests[-1:]:
            async with aclosing(self._read(http)) as batches:
                async for batch in batches:
                    if ready := self._placed(batch):
                        yield ready
        yield self._rest(job)
        if job.counts.total is not None and self._came < job.counts.total:
            raise StreamInterrupted(
                f"of {job.counts.total} results of {self._batcher.provider}:{self._id} {self._came} came; read them "
                "again",
                provider=self._batcher.provider,
            )

    async def _read(self, http: HttpRequest) -> AsyncGenerator[list[BatchOutcome], None]:
        lines = Lines(self._batcher, http, self._client.runtime, self.exchange)
        async with aclosing(lines.read()) as batches:
            async for batch in batches:
                yield [self._dialect.decode_outcome(line) for line in batch]

    def _placed(self, outcomes: Sequence[BatchOutcome]) -> list[BatchOutcome]:
        """Those whose turn it is, now that these have come."""
        ready = self._hold(outcomes)
        while (outcome := self._waiting.pop(self._next, None)) is not None:
            ready.append(outcome)
            self._next += 1
        return ready

    def _hold(self, outcomes: Sequence[BatchOutcome]) -> list[BatchOutcome]:
        """Keep these for their turn; those that sabir has not numbered have none, and are given back."""
        others: list[BatchOutcome] = []
        for outcome in outcomes:
            self._came += 1
            self._answered += outcome.body is not None
            index = index_of(outcome.id)
            if index is None:
                others.append(outcome)
            elif index < self._next or index in self._waiting:
                raise StreamProtocolError(f"two results came for prompt {index} of {self._batcher.provider}:{self._id}")
            else:
                self._waiting[index] = outcome
        return others

    def _rest(self, job: BatchJob) -> list[BatchOutcome]:
        """What is left when all has been read: results that were waiting, and those that a batch cut short has not."""
        is_ours = bool(self._next or self._waiting or job.prompts)
        end = max([job.counts.total or 0, *(index + 1 for index in self._waiting)]) if is_ours else 0
        is_cut_short = job.state in ("cancelled", "expired") and self._answered >= (job.counts.succeeded or 0)
        left: list[BatchOutcome] = []
        for index in range(self._next, end):
            outcome = self._waiting.pop(index, None)
            if outcome is None and is_cut_short:
                error = cancelled_error() if job.state == "cancelled" else expired_error()
                outcome = BatchOutcome(id=f"sabir-{index}", error=error)
                self._came += 1
            if outcome is not None:
                left.append(outcome)
        return left

    async def _result(self, job: BatchJob, outcome: BatchOutcome) -> BatchResult[Any]:
        index = index_of(outcome.id)
        if outcome.error is not None or outcome.body is None:
            error = outcome.error or StreamProtocolError("the result is neither an answer nor an error")
            error = self._batcher.endpoint.told(error, job.model or "", self.exchange)
            # Not the id of the request that read the results.
            error.request_id = outcome.request_id
            return BatchResult(index=index, id=outcome.id, error=error)
        answer = Answer(self._format, outcome, mode_of(outcome.id) if self._schema is not None else None)
        model = job.model or answer.model
        # What is wrong with how it is read is wrong with all, and is not what came of a prompt.
        turn = self._client.batch_turn(self._batcher, model, answer, self._schema)
        try:
            response = await turn.finish()
        except SabirError as error:
            error = self._batcher.endpoint.told(error, model, self.exchange)
            error.request_id = outcome.request_id
            whole = answer.response
            cost = None if whole is None else self._client.batch_cost(self._batcher, model, answer, whole)
            usage = NOTHING if whole is None else whole.usage
            return BatchResult(index=index, id=outcome.id, error=error, usage=usage, cost=cost)
        return BatchResult(index=index, id=outcome.id, response=response, usage=response.usage, cost=response.cost)


class _Reader(Generic[T]):
    """What both colours of results have in common: they own a reading, and end it when they are dropped."""

    def __init__(self, body: ResultsBody[T]) -> None:
        self._body = body
        self._batches = body.batches()
        self._ready: list[BatchResult[T]] = []

    def _check_reader(self) -> None:
        if cast("AsyncGeneratorType[Any, None]", self._batches).ag_running:
            raise ConfigurationError("these results are being read by another thread or task; read them once more")

    def close(self) -> None:
        """End the reading and close its connection. Idempotent, legal from any thread, never blocks."""
        self._body.end()

    def __del__(self) -> None:
        # An interrupt in the constructor leaves nothing to end.
        if (body := getattr(self, "_body", None)) is not None:
            body.end()


@final
class BatchResults(_Reader[T]):
    """The results of a batch: iterate over them, with or without `with`."""

    def __iter__(self) -> Iterator[BatchResult[T]]:
        return self

    def __next__(self) -> BatchResult[T]:
        while not self._ready:
            self._check_reader()
            try:
                self._ready = run(self._batches.__anext__)[::-1]
            except StopAsyncIteration:
                raise StopIteration from None
        return self._ready.pop()

    def __enter__(self) -> BatchResults[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        try:
            run(self._batches.aclose)
        except RuntimeError:
            # Another thread is reading: the line that was just cut wakes it, and it cleans up.
            pass


@final
class AsyncBatchResults(_Reader[T]):
    """The results of a batch: iterate over them with `async for`, with or without `async with`."""

    def __aiter__(self) -> AsyncBatchResults[T]:
        return self

    async def __anext__(self) -> BatchResult[T]:
        while not self._ready:
            self._check_reader()
            self._ready = (await self._batches.__anext__())[::-1]
        return self._ready.pop()

    async def __aenter__(self) -> AsyncBatchResults[T]:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        try:
            await self._batches.aclose()
        except RuntimeError:
            # Another task is reading: the line that was just cut wakes it, and it cleans up.
            pass
