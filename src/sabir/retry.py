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
        return retried(lambda: self._model.deltas(request, exchange), exchange, self._runtime, self._max_attempts)

    def explain(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        return self._model.explain(request)


async def retried(
    ask: Callable[[], AsyncGenerator[T, None]], exchange: Exchange, runtime: Runtime, max_attempts: int
) -> AsyncGenerator[T, None]:
    """What `ask` yields; it is asked again when it fails in a way that may pass, but never once something has come.

    At most `max_attempts` requests are made. The provider's Retry-After is kept to; one that goes beyond the deadline
    ends the call at once, as waiting could not help. Every attempt stands on the exchange.
    """
    waited = 0.0
    for attempt in range(1, max_attempts + 1):
        began, has_content = runtime.now(), False
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
            waited = _wait(error, attempt, runtime)
            is_final = has_content or not error.retryable or attempt == max_attempts
            if is_final or not _has_time(waited, exchange, runtime):
                error.attempts = tuple(exchange.attempts)
                raise
        else:
            seconds = runtime.now() - began
            exchange.attempts.append(Attempt("answered", seconds, None, exchange.request_id, waited))
            return
        await runtime.sleep(waited, exchange.line)


def _wait(error: SabirError, attempt: int, runtime: Runtime) -> float:
    if error.retry_after is not None:
        return error.retry_after
    longest = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** (attempt - 1))
    return longest * (0.5 + runtime.random() / 2)


def _has_time(wait: float, exchange: Exchange, runtime: Runtime) -> bool:
    deadline = exchange.line.deadline
    return wait < float("inf") and (deadline is None or runtime.now() + wait < deadline)
