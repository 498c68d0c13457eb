"""Documents in the order in which they fit a query, as a model says that reads both. One request a call.

Knows no wire format. A call is never cut into several requests: scores of one are not always to be compared with those
of another. Nothing comes back short: every document is ranked, or as many as were asked for, or there is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias, final

import msgspec

from .calls import Answered, Asker, ListCall
from .cost import Cost
from .dialects import RerankDialect, RerankRequest, RerankResponse
from .errors import ConfigurationError, StreamProtocolError
from .hooks import Hook
from .messages import ProviderState
from .model import Exchange, encoded
from .runtime import Runtime
from .usage import Usage

Reranker: TypeAlias = Asker[RerankDialect]


class Ranked(msgspec.Struct, frozen=True):
    """A document with its place in the list that was given, and its score: the more, the better.

    What a score says is the model's affair: some are between 0 and 1, others are any number.
    """

    index: int
    score: float
    document: str


@final
class Reranking(Answered[Ranked]):
    """The documents, best first: a list that has `model`, `usage`, `cost`, `warnings`, `attempts` and `request_id`.

    `cost` is None where it is not known.
    """

    __slots__ = ()


@final
class RerankCall(ListCall[Reranking]):
    """One call of `rerank`."""

    def __init__(
        self,
        *,
        reranker: Reranker,
        runtime: Runtime,
        name: str,
        request: RerankRequest,
        cost: Callable[[RerankRequest, Usage, ProviderState | None], Cost | None],
        exchange: Exchange,
        timeout: float | None,
        hooks: tuple[Hook, ...],
    ) -> None:
        super().__init__(runtime=runtime, name=name, exchange=exchange, timeout=timeout, hooks=hooks)
        self._reranker = reranker
        self._request = request
        self._cost_of_answer = cost

    def texts(self) -> Sequence[str]:
        return [self._request.query, *self._documents()]

    async def work(self) -> Reranking:
        """Ask.

        Raises:
            ConfigurationError: there are more documents than the provider takes.
        """
        request, dialect = self._request, self._reranker.dialect
        count, most = len(request.documents), dialect.max_documents
        if most is not None and count > most:
            raise ConfigurationError(
                f"{self.name} ranks {most} documents at most, and these are {count}; choose among them first, by "
                "their vectors for instance, since scores of several calls are not always to be compared",
                model=request.model,
            )
        http, notices = encoded(dialect.encode_request, request)
        self.exchange.report((*self._reranker.notices_of(http), *notices))
        self.exchanges = [self.exchange]
        answer = await self._reranker.ask(http, partial(_read, dialect, request), request.model, self.exchange)
        documents = self._documents()
        best = sorted(answer.ranks, key=lambda rank: -rank.score)
        return Reranking(
            # Not every server knows of top_n.
            [Ranked(rank.index, rank.score, documents[rank.index]) for rank in best[: request.top_n]],
            model=answer.model or request.model,
            usage=answer.usage,
            cost=self._cost_of_answer(request, answer.usage, answer.state),
            warnings=tuple(self.exchange.notices),
            attempts=self.attempts(),
            request_id=self.exchange.request_id,
        )

    def _documents(self) -> list[str]:
        return [document for document in self._request.documents if isinstance(document, str)]


def _read(dialect: RerankDialect, request: RerankRequest, body: bytes) -> RerankResponse:
    answer, count = dialect.decode_answer(body), len(request.documents)
    if strange := [rank.index for rank in answer.ranks if rank.index >= count]:
        raise StreamProtocolError(f"{count} documents were sent, and one with the index {strange[0]} came back")
    wanted = count if request.top_n is None else min(count, request.top_n)
    if len(answer.ranks) < wanted:
        raise StreamProtocolError(f"{wanted} documents were to be ranked, and {len(answer.ranks)} came back")
    return answer
