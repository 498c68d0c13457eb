"""Answers recorded and replayed: wrappers of a client's models. Knows no wire format and no HTTP.

    client = sabir.Client("openai:gpt-4o-mini", model_wrappers=[recorded_answers("tests/weather.jsonl")])

records what the model says into a file that is not there yet, and replays one that is: any model, also one in this
process, without a provider or a network. What is kept is in Sabir's own words, so that a recording outlives a change of
provider, of transport and of the way things are sent.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any, final

import msgspec

from ..deltas import Delta
from ..errors import ConfigurationError
from ..model import Exchange, Model
from ..requests import Attempt, HttpRequest, Notice, Request
from ..runtime import Runtime
from .tapes import FORMAT_VERSION, End, Entry, Player, Recorder, as_json, cleaned, end_of, error_of, shown_headers


class Answered(Entry, frozen=True, kw_only=True):
    """A line of the file: a request, and the batches of deltas that came, with what was noted on the way."""

    deltas: tuple[tuple[Delta, ...], ...]
    notices: tuple[Notice, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    request_id: str | None = None


@final
class RecordAnswers(Recorder):
    """Records what models answer; for a client's setting `model_wrappers`, or that of several clients.

    The texts given as `secrets` are taken out. `response.raw` is not kept: for bytes there is `RecordHttp`.
    """

    def __call__(self, model: Model, runtime: Runtime) -> Model:
        return _Recording(model, self)


@final
class ReplayAnswers(Player[Answered]):
    """Answers from a file instead of a model; for a client's setting `model_wrappers`, whose key may be any.

    Each recorded answer is used once, for an equal request; those to the same one come in the order of old. A request
    that is not there is a `StorageError` that shows how the nearest differs. As a context manager it asserts that all
    were used.
    """

    def __init__(self, path: str | os.PathLike[str], *, secrets: Iterable[str] = ()) -> None:
        """Read a file; `secrets` are those it was recorded with.

        Raises:
            StorageError: it is not there, or is no recording.
        """
        super().__init__(path, Answered, secrets)

    def __call__(self, model: Model, runtime: Runtime) -> Model:
        return _Replaying(model, runtime, self)


def recorded_answers(path: str | os.PathLike[str], *, secrets: Iterable[str] = ()) -> RecordAnswers | ReplayAnswers:
    """Record into the file if it is not there yet, else replay it. Make one for all clients that share a file."""
    return (ReplayAnswers if Path(path).exists() else RecordAnswers)(path, secrets=secrets)


class _Recording:
    def __init__(self, model: Model, recorder: RecordAnswers) -> None:
        self._model = model
        self._recorder = recorder

    async def deltas(self, request: Request, exchange: Exchange) -> AsyncGenerator[list[Delta], None]:
        shown = _shown(request, self._recorder.secrets)
        number, seen = self._recorder.begin(), list[tuple[Delta, ...]]()
        notices, attempts = len(exchange.notices), len(exchange.attempts)
        end: End = "whole"
        try:
            async with aclosing(self._model.deltas(request, exchange)) as batches:
                async for batch in batches:
                    seen.append(tuple(batch))
                    yield batch
        except BaseException as error:
            end = end_of(error)
            raise
        finally:
            entry = Answered(
                format_version=FORMAT_VERSION,
                number=number,
                request=shown,
                deltas=tuple(seen),
                notices=tuple(exchange.notices[notices:]),
                attempts=tuple(exchange.attempts[attempts:]),
                request_id=exchange.request_id,
                end=end,
            )
            self._recorder.add(entry)

    def explain(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        return self._model.explain(request)


class _Replaying:
    def __init__(self, model: Model, runtime: Runtime, player: ReplayAnswers) -> None:
        self._model = model
        self._runtime = runtime
        self._player = player

    async def deltas(self, request: Request, exchange: Exchange) -> AsyncGenerator[list[Delta], None]:
        entry = self._player.take(_shown(request, self._player.secrets))
        exchange.report(entry.notices)
        exchange.request_id = entry.request_id
        for batch in entry.deltas:
            exchange.line.left()
            # Others have their turn between two batches, as they have while a model is waited for.
            await self._runtime.sleep(0, exchange.line)
            yield list(batch)
        exchange.attempts += entry.attempts
        if entry.end != "whole":
            error = error_of(entry.end)
            error.attempts = tuple(exchange.attempts)
            raise error

    def explain(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        return self._model.explain(request)


def _shown(request: Request, secrets: Iterable[str]) -> dict[str, Any]:
    """A request without its secrets, for people to read and for replays to compare; streamed or not is the same.

    Raises:
        ConfigurationError: it holds something that is no JSON.
    """
    headers = shown_headers(request.headers.items())
    try:
        value = as_json(msgspec.structs.replace(request, stream=False, headers=headers))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"the request cannot be written as JSON: {error}") from None
    shown: dict[str, Any] = cleaned(value, secrets)
    return shown
