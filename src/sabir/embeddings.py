"""Texts to vectors: a call is cut into requests that its server takes, and their answers are put together again.

Knows no wire format and no conversation. Nothing comes back short: there is a vector for each text, or an error.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar, cast, final

import msgspec

from .dialects import EmbeddingDialect, EmbeddingRequest, EmbeddingResponse
from .errors import ConfigurationError, SabirError, StreamProtocolError
from .hooks import CallEnded, CallStarted, Hook, tell
from .messages import Message, Text
from .model import Endpoint, Exchange, encoded
from .requests import Attempt, HttpRequest, Notice, Response, Timings
from .retry import retried
from .runtime import Outcome, Runtime
from .usage import NOTHING, Usage

T = TypeVar("T")

# Requests of one call that are under way at once; more would only meet the provider's rate limit sooner.
AT_ONCE = 8


class _Answered(list[T]):
    """A list that knows what its call was told beside it."""

    __slots__ = ("attempts", "model", "request_id", "usage", "warnings")

    def __init__(
        self,
        items: Iterable[T],
        *,
        model: str,
        usage: Usage = NOTHING,
        warnings: tuple[Notice, ...] = (),
        attempts: tuple[Attempt, ...] = (),
        request_id: str | None = None,
    ) -> None:
        super().__init__(items)
        self.model = model
        self.usage = usage
        self.warnings = warnings
        self.attempts = attempts
        self.request_id = request_id


@final
class Embedding(_Answered[float]):
    """The vector of a text: a list of numbers that has `model`, `usage`, `warnings`, `attempts` and `request_id`."""

    __slots__ = ()


@final
class Embeddings(_Answered[list[float]]):
    """The vectors of several texts, in their order: a list of lists, with the attributes of `Embedding` for them all.

    `usage` is the sum over all requests that the call took, `request_id` that of the last.
    """

    __slots__ = ()

    def only(self) -> Embedding:
        """The vector of the only text."""
        (vector,) = self
        return Embedding(
            vector,
            model=self.model,
            usage=self.usage,
            warnings=self.warnings,
            attempts=self.attempts,
            request_id=self.request_id,
        )


def checked_texts(texts: object) -> tuple[str, ...]:
    """The texts to embed, of which one may stand alone.

    Raises:
        ConfigurationError: this is neither a text nor a list of texts, or one of them is empty; says which.
    """
    if not isinstance(texts, Sequence) or isinstance(texts, (bytes, bytearray)):
        raise ConfigurationError(f"embed takes a text or a list of texts, not {type(texts).__name__}")
    several = (texts,) if isinstance(texts, str) else tuple(cast("Sequence[object]", texts))
    for number, text in enumerate(several):
        if not isinstance(text, str):
            raise ConfigurationError(f"embed takes texts, and number {number} of the list is {type(text).__name__}")
        if not text:
            raise ConfigurationError(f"text number {number} is empty, and has no embedding; leave it out")
    return cast("tuple[str, ...]", several)


@final
class Embedder:
    """Who makes a provider's embeddings: its format, where it is asked, and how often."""

    def __init__(self, dialect: EmbeddingDialect, endpoint: Endpoint, runtime: Runtime, max_attempts: int) -> None:
        self.dialect = dialect
        self._endpoint = endpoint
        self._runtime = runtime
        self._max_attempts = max_attempts

    async def answer(self, http: HttpRequest, inputs: int, model: str, exchange: Exchange) -> EmbeddingResponse:
        """Ask for the vectors of so many inputs, again if that may help."""
        ask = partial(self._once, http, inputs, model, exchange)
        async with aclosing(retried(ask, exchange, self._runtime, self._max_attempts)) as answers:
            (answer,) = [answer async for answer in answers]
            return answer

    async def _once(
        self, http: HttpRequest, inputs: int, model: str, exchange: Exchange
    ) -> AsyncGenerator[EmbeddingResponse, None]:
        try:
            body = await self._endpoint.fetch(http, exchange, self.dialect.decode_error)
            answer = self.dialect.decode_answer(body)
            if len(answer.vectors) != inputs:
                raise StreamProtocolError(f"{inputs} texts were sent, and {len(answer.vectors)} embeddings came back")
        except SabirError as error:
            raise self._endpoint.told(error, model, exchange) from None
        yield answer


@final
class EmbeddingCall:
    """The work of one call. `vectors()` does it, once; `end()` may be called at any time, from any thread."""

    def __init__(
        self,
        *,
        embedder: Embedder,
        runtime: Runtime,
        name: str,
        request: EmbeddingRequest,
        exchange: Exchange,
        timeout: float | None,
        hooks: tuple[Hook, ...],
    ) -> None:
        self._embedder = embedder
        self._runtime = runtime
        self._name = name
        self._request = request
        self._exchange = exchange
        self._timeout = timeout
        self._hooks = hooks
        self._exchanges: list[Exchange] = []

    async def vectors(self) -> Embeddings:
        """Do the work.

        Raises:
            SabirError: one request has failed for good; the others are ended, and `attempts` has those of all.
        """
        began = self._runtime.now()
        if self._timeout is not None:
            self._exchange.line.deadline = began + self._timeout
        if self._hooks:
            parts = tuple(Text(text=text) for text in self._request.inputs if isinstance(text, str))
            tell(self._hooks, "on_start", CallStarted(self._name, (Message("user", parts),)))
        try:
            embeddings = self._together(await self._answers())
        except BaseException as error:
            if isinstance(error, SabirError):
                error.attempts, error.warnings = self._attempts(), tuple(self._exchange.notices)
            if self._hooks:
                tell(self._hooks, "on_end", CallEnded(self._name, self._runtime.now() - began, None, error))
            raise
        finally:
            # Whatever is still under way, nobody waits for it.
            self.end()
        if self._hooks:
            seconds = self._runtime.now() - began
            tell(self._hooks, "on_end", CallEnded(self._name, seconds, _response(embeddings, seconds), None))
        return embeddings

    def end(self) -> None:
        """End what is under way; harmless if nothing is."""
        self._exchange.line.abort()

    async def _answers(self) -> list[EmbeddingResponse]:
        """The answers to all requests, in the order of the texts."""
        # All of them are written before the first is sent: what is wrong with a call is found before it costs.
        requests = [self._encoded(inputs) for inputs in self._batches()]
        self._exchanges = [Exchange(self._exchange.line, "ignore") for _ in requests]
        if len(requests) == 1:
            return [await self._answer(requests, 0)]
        answers: dict[int, EmbeddingResponse] = {}
        failures: list[Outcome] = []
        waiting = deque(range(len(requests)))

        async def work() -> None:
            # `popleft` is one operation, however many threads do it.
            while waiting:
                try:
                    number = waiting.popleft()
                except IndexError:
                    return
                try:
                    answers[number] = await self._answer(requests, number)
                except SabirError as error:
                    # The first failure ends the others, which then fail for no reason of their own.
                    if not self._exchange.line.aborted:
                        failures.append(Outcome(None, error))
                    waiting.clear()
                    self.end()

        try:
            await self._runtime.gather([work] * min(AT_ONCE, len(requests)), self._exchange.line)
        except SabirError:
            if not failures:
                raise
        if failures:
            failures.pop(0).result()
        if len(answers) < len(requests):
            raise self._exchange.line.cut_error()
        return [answers[number] for number in range(len(requests))]

    async def _answer(self, requests: Sequence[tuple[HttpRequest, int]], number: int) -> EmbeddingResponse:
        http, inputs = requests[number]
        return await self._embedder.answer(http, inputs, self._request.model, self._exchanges[number])

    def _encoded(self, inputs: tuple[Any, ...]) -> tuple[HttpRequest, int]:
        request = msgspec.structs.replace(self._request, inputs=inputs)
        http, notices = encoded(self._embedder.dialect.encode_request, request)
        self._exchange.report(notices)
        return http, len(inputs)

    def _batches(self) -> Iterator[tuple[Any, ...]]:
        """The inputs in pieces that the server takes at once."""
        dialect, inputs = self._embedder.dialect, self._request.inputs
        start = size = 0
        for place, text in enumerate(inputs):
            length = _size(text)
            is_full = dialect.max_inputs is not None and place - start >= dialect.max_inputs
            is_large = dialect.max_bytes is not None and size + length > dialect.max_bytes
            if place > start and (is_full or is_large):
                yield inputs[start:place]
                start, size = place, 0
            size += length
        yield inputs[start:]

    def _together(self, answers: Sequence[EmbeddingResponse]) -> Embeddings:
        """One answer of all.

        Raises:
            StreamProtocolError: the vectors are not of one length.
            UnsupportedError: the length is not the one that was asked for, and the caller wants an error then.
        """
        vectors = [vector for answer in answers for vector in answer.vectors]
        lengths = {len(vector) for vector in vectors}
        if len(lengths) > 1:
            text = f"vectors of different lengths came back: {sorted(lengths)}"
            raise StreamProtocolError(text, model=self._request.model)
        asked, exchange = self._request.dimensions, self._exchange
        is_told = any(notice.subject == "dimensions" for notice in exchange.notices)
        if asked is not None and lengths != {asked} and not is_told:
            text = f"{asked} dimensions were asked for, and {self._name} gave {lengths.pop()}; it may have only those"
            exchange.report([Notice("unsupported", "dimensions", text)])
        return Embeddings(
            vectors,
            model=answers[0].model or self._request.model,
            usage=sum((answer.usage for answer in answers), NOTHING),
            warnings=tuple(exchange.notices),
            attempts=self._attempts(),
            request_id=self._exchanges[-1].request_id,
        )

    def _attempts(self) -> tuple[Attempt, ...]:
        return tuple(attempt for exchange in self._exchanges for attempt in exchange.attempts)


def _size(text: object) -> int:
    if not isinstance(text, str):
        return 0
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _response(embeddings: Embeddings, seconds: float) -> Response[Embeddings]:
    """What a hook is told of a call that has no message."""
    return Response(
        message=Message("assistant", ()),
        parsed=embeddings,
        messages=(),
        usage=embeddings.usage,
        timings=Timings(seconds),
        finish_reason="stop",
        model=embeddings.model,
        warnings=embeddings.warnings,
        attempts=embeddings.attempts,
        request_id=embeddings.request_id,
    )
