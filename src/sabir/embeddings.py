"""Texts to vectors: a call is cut into requests that its server takes, and their answers are put together again.

Knows no wire format and no conversation. Nothing comes back short: there is a vector for each text, or an error.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias, final

import msgspec

from .calls import Answered, Asker, ListCall
from .cost import Cost
from .dialects import EmbeddingDialect, EmbeddingRequest, EmbeddingResponse
from .errors import SabirError, StreamProtocolError
from .hooks import Hook
from .messages import ProviderState
from .model import Exchange, encoded
from .requests import HttpRequest, Notice
from .runtime import Outcome, Runtime
from .usage import NOTHING, Usage

# Requests of one call that are under way at once; more would only meet the provider's rate limit sooner.
AT_ONCE = 8

Embedder: TypeAlias = Asker[EmbeddingDialect]


@final
class Embedding(Answered[float]):
    """The vector of a text: a list of numbers that has the attributes of `Embeddings`."""

    __slots__ = ()


@final
class Embeddings(Answered[list[float]]):
    """The vectors of several texts, in their order: a list of lists.

    It has `model`, `usage`, `cost`, `warnings`, `attempts` and `request_id`. `usage` and `cost` are sums over all
    requests that the call took, `request_id` is that of the last. `cost` is None where it is not known.
    """

    __slots__ = ()

    def only(self) -> Embedding:
        """The vector of the only text."""
        (vector,) = self
        return Embedding(
            vector,
            model=self.model,
            usage=self.usage,
            cost=self.cost,
            warnings=self.warnings,
            attempts=self.attempts,
            request_id=self.request_id,
        )


@final
class EmbeddingCall(ListCall[Embeddings]):
    """One call of `embed`."""

    def __init__(
        self,
        *,
        embedder: Embedder,
        runtime: Runtime,
        name: str,
        request: EmbeddingRequest,
        cost: Callable[[EmbeddingRequest, Usage, ProviderState | None], Cost | None],
        exchange: Exchange,
        timeout: float | None,
        hooks: tuple[Hook, ...],
    ) -> None:
        super().__init__(runtime=runtime, name=name, exchange=exchange, timeout=timeout, hooks=hooks)
        self._embedder = embedder
        self._request = request
        self._cost_of_answer = cost

    def texts(self) -> Sequence[str]:
        return [text for text in self._request.inputs if isinstance(text, str)]

    async def work(self) -> Embeddings:
        return self._together(await self._answers())

    async def _answers(self) -> list[EmbeddingResponse]:
        """The answers to all requests, in the order of the texts."""
        # All of them are written before the first is sent: what is wrong with a call is found before it costs.
        requests = [self._encoded(inputs) for inputs in self._batches()]
        self.exchanges = [Exchange(self.exchange.line, "ignore") for _ in requests]
        if len(requests) == 1:
            return [await self._answer(requests, 0)]
        answers: dict[int, EmbeddingResponse] = {}
        failures: list[Outcome] = []
        waiting = deque(range(len(requests)))

        async def worker() -> None:
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
                    if not self.exchange.line.aborted:
                        failures.append(Outcome(None, error))
                    waiting.clear()
                    self.end()

        try:
            await self.runtime.gather([worker] * min(AT_ONCE, len(requests)), self.exchange.line)
        except SabirError:
            if not failures:
                raise
        if failures:
            failures.pop(0).result()
        if len(answers) < len(requests):
            raise self.exchange.line.cut_error()
        return [answers[number] for number in range(len(requests))]

    async def _answer(self, requests: Sequence[tuple[HttpRequest, int]], number: int) -> EmbeddingResponse:
        http, inputs = requests[number]
        read = partial(_read, self._embedder.dialect, inputs)
        return await self._embedder.ask(http, read, self._request.model, self.exchanges[number])

    def _encoded(self, inputs: tuple[Any, ...]) -> tuple[HttpRequest, int]:
        request = msgspec.structs.replace(self._request, inputs=inputs)
        http, notices = encoded(self._embedder.dialect.encode_request, request)
        self.exchange.report((*self._embedder.notices_of(http), *notices))
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
        asked, exchange = self._request.dimensions, self.exchange
        is_told = any(notice.subject == "dimensions" for notice in exchange.notices)
        if asked is not None and lengths != {asked} and not is_told:
            text = f"{asked} dimensions were asked for, and {self.name} gave {lengths.pop()}; it may have only those"
            exchange.report([Notice("unsupported", "dimensions", text)])
        return Embeddings(
            vectors,
            model=answers[0].model or self._request.model,
            usage=sum((answer.usage for answer in answers), NOTHING),
            cost=self._cost(answers),
            warnings=tuple(exchange.notices),
            attempts=self.attempts(),
            request_id=self.exchanges[-1].request_id,
        )

    def _cost(self, answers: Sequence[EmbeddingResponse]) -> Cost | None:
        """What all answers cost, if that is known of each."""
        costs = [self._cost_of_answer(self._request, answer.usage, answer.state) for answer in answers]
        known = [cost for cost in costs if cost is not None]
        return sum(known[1:], known[0]) if len(known) == len(costs) else None


def _read(dialect: EmbeddingDialect, inputs: int, body: bytes) -> EmbeddingResponse:
    answer = dialect.decode_answer(body)
    if len(answer.vectors) != inputs:
        raise StreamProtocolError(f"{inputs} texts were sent, and {len(answer.vectors)} embeddings came back")
    return answer


def _size(text: object) -> int:
    if not isinstance(text, str):
        return 0
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
