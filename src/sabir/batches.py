"""Many prompts at once, answered within a day and at a lower price: send them, ask how far they are, read the answers.

A batch outlives the process that sent it. Its id is all that another one needs, and a key of the caller's finds it
where not even the id came back. Written once for both colours.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypedDict, TypeVar, Unpack, final, overload

from .batch_results import AsyncBatchResults, BatchResults, ResultsBody
from .batch_submission import Submission
from .batcher import Batch, Batcher, Live, Opener, status_of
from .errors import ConfigurationError
from .options import BatchOptions
from .prompts import Prompt
from .runtime import awaitable, blocking

T = TypeVar("T")
P = ParamSpec("P")

_ID = re.compile(r"([^\s:@;]+):(\S+)")


class _Nothing(TypedDict):
    """The options of a method that takes none."""


class BatchesBody:
    """The body of both faces of a client's batches."""

    def __init__(self, client: Opener) -> None:
        self._client = client

    async def submit(
        self,
        prompts: Sequence[Prompt],
        *,
        schema: Any = None,
        key: str | None = None,
        journal: str | os.PathLike[str] | None = None,
        **call: Unpack[BatchOptions],
    ) -> Batch:
        """Send prompts to be answered later, each as `ask` takes it, and return the batch that is made of them.

        `call` are the options of `ask` and hold for every prompt. Tools are told to the model and never run: its calls
        stand in the responses. Everything that is wrong with a prompt is found before anything is sent.

        `key` is a name of yours for this batch, such as "nightly-2026-11-21". Submitting again with the key gives the
        batch that there is, instead of making a second one, also after a process that ended in the middle. Without one,
        what a submit that was cut off has done cannot be found out: equal prompts may be meant to be asked twice.
        Where a provider keeps no key (Anthropic), `journal` is a file that remembers it; see docs/batches.md.

        Raises:
            SabirError: one of the family in `sabir.errors`, and nothing else. A `ConnectError`, `ServerError`,
                `DeadlineExceeded` or `StreamInterrupted` leaves open whether the batch was made.
        """
        return await Submission(self._client, prompts, schema, key, journal, call).done()

    async def status(self, batch: str | Batch, **options: Unpack[_Nothing]) -> Batch:
        """How far a batch is; it is named by its id.

        Raises:
            SabirError: one of the family in `sabir.errors`: a `NotFoundError` where there is no such batch.
        """
        _check_none("status", options)
        batcher, id_ = self._found(batch)
        live = Live(self._client)
        live.start()
        try:
            return batcher.told(await status_of(batcher, id_, live.exchange))
        finally:
            live.end()

    async def cancel(self, batch: str | Batch, **options: Unpack[_Nothing]) -> Batch:
        """Have a batch ended where it is. What has been answered can be read, and is billed, once it is over.

        Raises:
            SabirError: one of the family in `sabir.errors`: a `BadRequestError` of most where it is over already.
        """
        _check_none("cancel", options)
        batcher, id_ = self._found(batch)
        live = Live(self._client)
        live.start()
        try:
            await batcher.ask(batcher.dialect.encode_cancel(id_), lambda _: None, live.exchange)
            return batcher.told(await status_of(batcher, id_, live.exchange))
        finally:
            live.end()

    @overload
    def open_results(self, batch: str | Batch, *, schema: type[T], **options: Unpack[_Nothing]) -> ResultsBody[T]: ...
    @overload
    def open_results(
        self, batch: str | Batch, *, schema: dict[str, Any], **options: Unpack[_Nothing]
    ) -> ResultsBody[Any]: ...
    @overload
    def open_results(
        self, batch: str | Batch, *, schema: None = None, **options: Unpack[_Nothing]
    ) -> ResultsBody[None]: ...
    def open_results(self, batch: str | Batch, *, schema: Any = None, **options: Unpack[_Nothing]) -> ResultsBody[Any]:
        """Read what came of a batch that is over, as `BatchResult`s in the order of the prompts.

        `schema` is what it was submitted with, since no provider keeps it; `response.parsed` is then a value of it, and
        an answer that does not fit is that prompt's `error`. Results come as they are read, and can be read again.

        Raises:
            ConfigurationError: the batch is not over, or `schema` is none.
            BadRequestError: it failed as a whole; says why.
            StreamInterrupted: some results did not come, though those that did have been given.
            SabirError: another of the family in `sabir.errors`.
        """
        _check_none("results", options)
        return ResultsBody(self._client, *self._found(batch), schema)

    def _found(self, batch: object) -> tuple[Batcher, str]:
        id_ = batch.id if isinstance(batch, Batch) else batch
        if not isinstance(id_, str) or (parts := _ID.fullmatch(id_)) is None:
            raise ConfigurationError(f"a batch is named by its id, like 'openai:batch_abc', not {id_!r}")
        return self._client.batcher(parts[1]), parts[2]


def _check_none(method: str, options: Mapping[str, object]) -> None:
    for name in options:
        raise ConfigurationError(f"{method} takes no {name}=: what is asked and how is said to submit")


def _blocking_results(
    method: Callable[Concatenate[Any, P], ResultsBody[T]],
) -> Callable[Concatenate[Any, P], BatchResults[T]]:
    @wraps(method)
    def twin(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> BatchResults[T]:
        return BatchResults(method(self._body, *args, **kwargs))

    return twin


def _awaitable_results(
    method: Callable[Concatenate[Any, P], ResultsBody[T]],
) -> Callable[Concatenate[Any, P], AsyncBatchResults[T]]:
    @wraps(method)
    def twin(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> AsyncBatchResults[T]:
        return AsyncBatchResults(method(self._body, *args, **kwargs))

    return twin


@final
class Batches:
    """A client's batches: `submit` prompts, ask for their `status`, read their `results`, or `cancel` them."""

    def __init__(self, body: BatchesBody) -> None:
        self._body = body

    submit = blocking(BatchesBody.submit)
    status = blocking(BatchesBody.status)
    results = _blocking_results(BatchesBody.open_results)
    cancel = blocking(BatchesBody.cancel)


@final
class AsyncBatches:
    """A client's batches, awaitable. See `sabir.Batches`, whose methods it has; `results` is for `async for`."""

    def __init__(self, body: BatchesBody) -> None:
        self._body = body

    submit = awaitable(BatchesBody.submit)
    status = awaitable(BatchesBody.status)
    results = _awaitable_results(BatchesBody.open_results)
    cancel = awaitable(BatchesBody.cancel)
