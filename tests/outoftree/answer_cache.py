"""A wrapper of models: what was answered once is answered again without asking."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from sabir import Notice
from sabir.deltas import Delta
from sabir.model import Exchange, Model
from sabir.requests import HttpRequest, Request
from sabir.runtime import Runtime


class AnswerCache:
    """Answers in memory, for all models of the clients it is given to."""

    def __init__(self) -> None:
        self.answers: dict[bytes, list[Delta]] = {}

    def __call__(self, model: Model, runtime: Runtime) -> Model:
        return CachedModel(model, self.answers)


class CachedModel:
    """A model that is asked each question once."""

    def __init__(self, model: Model, answers: dict[bytes, list[Delta]]) -> None:
        self._model = model
        self._answers = answers

    async def deltas(self, request: Request, exchange: Exchange) -> AsyncGenerator[list[Delta], None]:
        key = msgspec.json.encode(msgspec.structs.replace(request, stream=False))
        if (known := self._answers.get(key)) is not None:
            yield known
            return
        answer: list[Delta] = []
        async with aclosing(self._model.deltas(request, exchange)) as batches:
            async for batch in batches:
                answer += batch
                yield batch
        # Only what came to its end: an error, or a reader who leaves, does not get here.
        self._answers[key] = answer

    def explain(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        return self._model.explain(request)
