"""Trying again, around any model; the one owner of that decision. Knows no transport and no wire format."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import final

from .deltas import Delta
from .errors import SabirError
from .model import Exchange, Model
from .requests import Attempt, HttpRequest, Notice, Request
from .runtime import Runtime

# Back-off doubles from the first to the second, with jitter of half of it, so that clients do not return in step.
FIRST_WAIT = 0.5
LONGEST_WAIT = 8.0


@final
class Retry:
    """A model that is asked again when it fails in a way that may pass, but never once content has come.

    At most `max_attempts` requests are made. The provider's Retry-After is kept to; one that goes beyond the deadline
    ends the call at once, as waiting could not help. Every attempt stands on the exchange.
    """

    def __init__(self, model: Model, runtime: Runtime, max_attempts: int) -> None:
        self._model = model
        self._runtime = runtime
        self._max_attempts = max_attempts

    async def deltas(self, request: Request, exchange: Exchange) -> AsyncGenerator[list[Delta], None]:
        waited = 0.0
        for attempt in range(1, self._max_attempts + 1):
            began, has_content = self._runtime.now(), False
            try:
                async with aclosing(self._model.deltas(request, exchange)) as batches:
                    async for batch in batches:
                        has_content = True
                        yield batch
            except SabirError as error:
                exchange.attempts.append(self._attempt(type(error).__name__, began, waited, exchange, error.status))
                waited = self._wait(error, attempt)
                is_final = has_content or not error.retryable or attempt == self._max_attempts
                if is_final or not self._has_time(waited, exchange):
                    error.attempts = tuple(exchange.attempts)
                    raise
            else:
                exchange.attempts.append(self._attempt("answered", began, waited, exchange, None))
                return
            await self._runtime.sleep(waited, exchange.line)

    def explain(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        return self._model.explain(request)

    def _attempt(self, outcome: str, began: float, waited: float, exchange: Exchange, status: int | None) -> Attempt:
        seconds = self._runtime.now() - began
        return Attempt(outcome, seconds, status, exchange.request_id, waited)

    def _wait(self, error: SabirError, attempt: int) -> float:
        if error.retry_after is not None:
            return error.retry_after
        longest = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** (attempt - 1))
        return longest * (0.5 + self._runtime.random() / 2)

    def _has_time(self, wait: float, exchange: Exchange) -> bool:
        deadline = exchange.line.deadline
        return wait < float("inf") and (deadline is None or self._runtime.now() + wait < deadline)
