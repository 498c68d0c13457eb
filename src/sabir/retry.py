"""Trying again, around any model; the one owner of that decision. Knows no transport and no wire format."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar, final

from .deltas import Delta
from .errors import SabirError
from .model import Exchange, Model
from .requests import Attempt, HttpRequest, Notice, Request
from .runtime import Runtime

T = TypeVar("T")

# Back-off doubles from the first to the second, with jitter of half of it, so that clients do not return in step.
FIRST_WAIT = 0.5
LONGEST_WAIT = 8.0


@final
class Retry:
    """A model that is asked again when it fails in a way that may pass, but never once content has come."""

    def __init__(self, model: Model, runtime: Runtime, max_attempts: int) -> None:
        self._model = model
        self._runtime = runtime
        self._max_attempts = max_attempts

    def deltas(self, request: Request, exchange: Exchange) -> AsyncGenerator[list[Delta], None]:
        tries = retried(lambda: self._model.deltas(request, exchange), exchange, self._runtime, self._max_attempts)
        return _with_end(tries, exchange) if exchange.resumes else tries

    def explain(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        return self._model.explain(request)


async def retried(
    ask: Callable[[], AsyncGenerator[T, None]], exchange: Exchange, runtime: Runtime, max_attempts: int
) -> AsyncGenerator[T, None]:
    """What `ask` yields; it is asked again when it fails in a way that may pass, but never once something has come.

    At most `max_attempts` requests are made, those counted that the exchange says were `spent` on the answer before.
    An answer that goes on at its server (`exchange.run`) is read on. The provider's Retry-After is kept to; one that
    goes beyond the deadline ends the call at once, as waiting could not help. Every attempt stands on the exchange.
    """
    waited, exchange.waited = exchange.waited, 0.0
    has_content = False
    for attempt in range(exchange.spent + 1, max_attempts + 1):
        began = runtime.now()
        try:
            async with aclosing(ask()) as batches:
                async for batch in batches:
                    has_content = True
                    yield batch
                    del batch
        except SabirError as error:
            seconds = runtime.now() - began
            outcome = type(error).__name__
            exchange.attempts.append(Attempt(outcome, seconds, error.status, exchange.request_id, waited))
            waited = wait_after(error, attempt, runtime)
            begins_anew = exchange.run is None or not exchange.run.can_go_on
            is_final = (has_content and begins_anew) or not error.retryable or attempt == max_attempts
            if is_final or not has_time(waited, exchange, runtime):
                error.attempts = tuple(exchange.attempts)
                raise
        else:
            seconds = runtime.now() - began
            exchange.attempts.append(Attempt("answered", seconds, None, exchange.request_id, waited))
            return
        await runtime.sleep(waited, exchange.line)


async def _with_end(tries: AsyncGenerator[T, None], exchange: Exchange) -> AsyncGenerator[T, None]:
    """The same; whatever ends it, no answer goes on at its server for nobody."""
    try:
        async with aclosing(tries) as batches:
            async for batch in batches:
                yield batch
                del batch
    finally:
        run, exchange.run = exchange.run, None
        if run is not None:
            run.leave()


def wait_after(error: SabirError, attempt: int, runtime: Runtime) -> float:
    """The seconds to wait before another attempt."""
    if error.retry_after is not None:
        return error.retry_after
    longest = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** (attempt - 1))
    return longest * (0.5 + runtime.random() / 2)


def has_time(wait: float, exchange: Exchange, runtime: Runtime) -> bool:
    """Whether a wait ends before the deadline."""
    deadline = exchange.line.deadline
    return wait < float("inf") and (deadline is None or runtime.now() + wait < deadline)
