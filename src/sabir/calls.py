"""Calls that are no conversation: texts go in, a list comes back, by one request or several.

What they have in common with conversations they have from the same rooms: who asks again, a deadline over all, hooks,
and errors that say what was tried. Knows no wire format, and not what the texts are for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Generic, TypeVar, cast, final

from .cost import Cost
from .dialects import EmbeddingDialect, RerankDialect
from .dialects.batches import BatchDialect
from .errors import ConfigurationError, SabirError
from .hooks import CallEnded, CallStarted, Hook, tell
from .messages import Message, Text
from .model import Endpoint, Exchange
from .requests import Attempt, HttpRequest, Notice, Response, Timings
from .retry import retried
from .runtime import Runtime
from .usage import NOTHING, Usage

T = TypeVar("T")
AnswerT = TypeVar("AnswerT")
DialectT = TypeVar("DialectT", bound=EmbeddingDialect | RerankDialect | BatchDialect)


class Answered(list[T]):
    """A list that knows what its call was told beside it."""

    __slots__ = ("attempts", "cost", "model", "request_id", "usage", "warnings")

    def __init__(
        self,
        items: Iterable[T],
        *,
        model: str,
        usage: Usage = NOTHING,
        cost: Cost | None = None,
        warnings: tuple[Notice, ...] = (),
        attempts: tuple[Attempt, ...] = (),
        request_id: str | None = None,
    ) -> None:
        super().__init__(items)
        self.model = model
        self.usage = usage
        self.cost = cost
        self.warnings = warnings
        self.attempts = attempts
        self.request_id = request_id


AnsweredT = TypeVar("AnsweredT", bound=Answered[Any])


@final
class Asker(Generic[DialectT]):
    """Who asks a provider: in which format, where, and how often."""

    def __init__(self, dialect: DialectT, endpoint: Endpoint, runtime: Runtime, max_attempts: int) -> None:
        self.dialect = dialect
        self.notices_of = endpoint.notices_of
        self._endpoint = endpoint
        self._runtime = runtime
        self._max_attempts = max_attempts

    async def ask(self, http: HttpRequest, read: Callable[[bytes], AnswerT], model: str, exchange: Exchange) -> AnswerT:
        """Send a request and `read` its answer; do so again if that may help."""
        ask = partial(self._once, http, read, model, exchange)
        async with aclosing(retried(ask, exchange, self._runtime, self._max_attempts)) as answers:
            (answer,) = [answer async for answer in answers]
            return answer

    async def _once(
        self, http: HttpRequest, read: Callable[[bytes], AnswerT], model: str, exchange: Exchange
    ) -> AsyncGenerator[AnswerT, None]:
        try:
            answer = read(await self._endpoint.fetch(http, exchange, self.dialect.decode_error))
        except SabirError as error:
            raise self._endpoint.told(error, model, exchange) from None
        yield answer


class ListCall(Generic[AnsweredT]):
    """One call. `result()` does its work, once; `end()` may be called at any time, from any thread.

    A kind of call says what it works on (`texts`) and how (`work`), and has `exchanges` for what it sends.
    """

    def __init__(
        self,
        *,
        runtime: Runtime,
        name: str,
        exchange: Exchange,
        timeout: float | None,
        hooks: tuple[Hook, ...],
    ) -> None:
        self.runtime = runtime
        self.name = name
        self.exchange = exchange
        self.exchanges: list[Exchange] = []
        self._timeout = timeout
        self._hooks = hooks

    def texts(self) -> Sequence[str]:
        """What hooks are shown."""
        raise NotImplementedError

    async def work(self) -> AnsweredT:
        raise NotImplementedError

    async def result(self) -> AnsweredT:
        """Do the work.

        Raises:
            SabirError: one request has failed for good; the others are ended, and `attempts` has those of all.
        """
        began = self.runtime.now()
        if self._timeout is not None:
            self.exchange.line.deadline = began + self._timeout
        if self._hooks:
            parts = tuple(Text(text=text) for text in self.texts())
            tell(self._hooks, "on_start", CallStarted(self.name, (Message("user", parts),)))
        try:
            answered = await self.work()
        except BaseException as error:
            if isinstance(error, SabirError):
                error.attempts, error.warnings = self.attempts(), tuple(self.exchange.notices)
            if self._hooks:
                tell(self._hooks, "on_end", CallEnded(self.name, self.runtime.now() - began, None, error))
            raise
        finally:
            # Whatever is still under way, nobody waits for it.
            self.end()
        if self._hooks:
            seconds = self.runtime.now() - began
            tell(self._hooks, "on_end", CallEnded(self.name, seconds, _response(answered, seconds), None))
        return answered

    def end(self) -> None:
        """End what is under way; harmless if nothing is."""
        self.exchange.line.abort()

    def attempts(self) -> tuple[Attempt, ...]:
        """Every request that was made."""
        return tuple(attempt for exchange in self.exchanges for attempt in exchange.attempts)


def checked_texts(texts: object, takes: str, what: str) -> tuple[str, ...]:
    """The texts of a list; `takes` says what is wanted ("embed takes …"), `what` what each text is.

    Raises:
        ConfigurationError: this is no list of texts, or one of them is empty; says which.
    """
    if not isinstance(texts, Sequence) or isinstance(texts, (str, bytes, bytearray)):
        raise ConfigurationError(f"{takes}, not {type(texts).__name__}")
    several = tuple(cast("Sequence[object]", texts))
    for number, text in enumerate(several):
        if not isinstance(text, str):
            raise ConfigurationError(f"{takes}, and number {number} of the list is {type(text).__name__}")
        if not text:
            raise ConfigurationError(f"{what} number {number} is empty, and nothing can be said of it; leave it out")
    return cast("tuple[str, ...]", several)


def _response(answered: Answered[Any], seconds: float) -> Response[Any]:
    """What a hook is told of a call that has no message."""
    return Response(
        message=Message("assistant", ()),
        parsed=answered,
        messages=(),
        usage=answered.usage,
        timings=Timings(seconds),
        finish_reason="stop",
        model=answered.model,
        cost=answered.cost,
        warnings=answered.warnings,
        attempts=answered.attempts,
        request_id=answered.request_id,
    )
