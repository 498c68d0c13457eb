"""Answers that break off in the middle: read on at their server, gone on with from their text, or asked for again.

`Resuming` is for servers that make an answer whether or not it is read, and stands below `Retry`, to whom reading on is
another attempt. `Recovery` stands above all else that is put around a model. Both let an answer through that does not
break off. Neither knows a wire format: what a format can do for this is in its dialect.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Literal, cast, final

import msgspec

from .chunks import Restart
from .deltas import Close, Count, Delta, Event, Finish, Head, Note, Open, State, Text
from .dialects import Cursor, Resumable
from .dialects.prefills import Prefill
from .errors import (
    BadRequestError,
    ConnectError,
    EngineError,
    NotFoundError,
    OverloadedError,
    ProviderError,
    RateLimitError,
    SabirError,
    ServerError,
    StreamInterrupted,
    StreamProtocolError,
    UnsupportedError,
)
from .model import MAX_ANSWER, Endpoint, Exchange, Model, Remote, is_stream, read_all, streamed, written
from .requests import HttpRequest, Notice, Request
from .retry import has_time, wait_after
from .runtime import Line, Reply, Runtime
from .usage import NOTHING, Usage

Way = Literal["resume", "continue", "restart"]

# How long a server may take to hear that nobody wants the rest of an answer.
CANCEL_SECONDS = 5.0

_BREAKS = (StreamInterrupted, ConnectError, ServerError, OverloadedError, RateLimitError)
_REFUSALS = (BadRequestError, NotFoundError, UnsupportedError)


@final
class Resuming:
    """A model behind HTTP whose server makes answers in the background: asked once more, it reads on where it was."""

    def __init__(self, remote: Remote, dialect: Resumable, endpoint: Endpoint, runtime: Runtime) -> None:
        self._remote = remote
        self._dialect = dialect
        self._endpoint = endpoint
        self._runtime = runtime

    def deltas(self, request: Request, exchange: Exchange) -> AsyncGenerator[list[Delta], None]:
        return self._kept(request, exchange) if exchange.resumes else self._remote.deltas(request, exchange)

    def explain(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        return self._remote.explain(request)

    async def _kept(self, request: Request, exchange: Exchange) -> AsyncGenerator[list[Delta], None]:
        run = exchange.run
        if not isinstance(run, _Background) or not run.can_go_on:
            run = exchange.run = _Background(self._dialect, self._endpoint, self._runtime, request)
        try:
            cursor = run.decoder.cursor
            if cursor is None:
                http, notices = written(self._dialect, request)
                exchange.report((*self._endpoint.notices_of(http), *notices))
                reply = await self._endpoint.send(http, exchange, self._dialect.decode_error)
            else:
                reply = await self._resumed(run, cursor, request, exchange)
            try:
                if is_stream(request, reply):
                    async with aclosing(streamed(run.decoder, reply, exchange.line, self._runtime)) as batches:
                        async for batch in batches:
                            yield batch
                            del batch
                else:
                    exchange.body = await read_all(reply, MAX_ANSWER)
                    yield self._dialect.decode_answer(exchange.body)
                run.is_whole = True
            except StreamInterrupted:
                raise
            except SabirError as error:
                run.is_lost = True
                if cursor is not None and isinstance(error, StreamProtocolError):
                    raise run.lost(error.message) from None
                raise
            finally:
                reply.close()
        except SabirError as error:
            raise self._endpoint.told(error, request.model, exchange) from None

    async def _resumed(self, run: _Background, cursor: Cursor, request: Request, exchange: Exchange) -> Reply:
        """The answer's further events.

        Raises:
            StreamInterrupted: the server has none for us.
            SabirError: it could not be asked.
        """
        try:
            http = self._dialect.encode_resume(request, cursor)
            reply = await self._endpoint.send(http, exchange, self._dialect.decode_error)
        except ProviderError as error:
            if error.retryable:
                raise
            raise run.lost(error.message) from None
        if not is_stream(request, reply):
            reply.close()
            raise run.lost("the server told it from its beginning")
        run.decoder.go_on()
        text = f"the stream broke off after event {cursor.number} and was read on from there"
        exchange.notices.append(Notice("retried", "recover", text))
        return reply


@final
class _Background:
    """An answer that is made in the background; see `model.Run`."""

    def __init__(self, dialect: Resumable, endpoint: Endpoint, runtime: Runtime, request: Request) -> None:
        self.decoder = dialect.decoder()
        self.is_whole = False
        self.is_lost = False
        self._dialect = dialect
        self._endpoint = endpoint
        self._runtime = runtime
        self._request = request

    @property
    def can_go_on(self) -> bool:
        return not self.is_lost and self.decoder.cursor is not None

    def lost(self, why: str) -> StreamInterrupted:
        """The error of an answer that cannot be read on."""
        self.is_lost = True
        return StreamInterrupted(f"the stream broke off and could not be read on: {why}")

    def leave(self) -> None:
        if not self.is_whole and (cursor := self.decoder.cursor) is not None:
            self._runtime.leave(partial(self._cancel, cursor))

    async def _cancel(self, cursor: Cursor) -> None:
        line = Line(deadline=self._runtime.now() + CANCEL_SECONDS, now=self._runtime.now)
        http = self._dialect.encode_cancel(self._request, cursor)
        await self._endpoint.fetch(http, Exchange(line, "ignore"), self._dialect.decode_error)


@final
class Recovery:
    """A model whose answers are gone on with, or begun anew, when they break off after something has come.

    An answer that is begun anew is announced by a `Restart` as an event, as soon as there is something of it.
    """

    def __init__(
        self,
        model: Model,
        runtime: Runtime,
        max_attempts: int,
        ways: frozenset[Way],
        prefill: Prefill | None,
        dialect: str,
    ) -> None:
        self._model = model
        self._runtime = runtime
        self._max_attempts = max_attempts
        self._ways = ways
        self._prefill = prefill if "continue" in ways else None
        self._dialect = dialect

    def explain(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        return self._model.explain(request)

    async def deltas(self, request: Request, exchange: Exchange) -> AsyncGenerator[list[Delta], None]:
        made, tries = len(exchange.attempts), 0
        told, asked = _Told(), request
        joint: _Joint | None = None
        restart: Restart | None = None
        try:
            while True:
                tries, has_come = tries + 1, False
                try:
                    async with aclosing(self._model.deltas(asked, exchange)) as batches:
                        async for batch in batches:
                            has_come = True
                            if restart is not None:
                                told = _Told()
                                yield [Event(restart)]
                                restart = None
                            if ready := told.passed(batch if joint is None else joint.joined(batch)):
                                yield ready
                            del batch, ready
                    if rest := [*told.held, *(joint.rest() if joint is not None else ())]:
                        yield rest
                    return
                except SabirError as error:
                    exchange.spent = max(tries, len(exchange.attempts) - made)
                    exchange.waited = wait_after(error, exchange.spent, self._runtime)
                    is_refused = joint is not None and not has_come and isinstance(error, _REFUSALS)
                    broken = _not_continued(error) if is_refused else error
                    if not (is_refused or (has_come and _is_break(error))) or not self._has_more(exchange):
                        raise broken from None
                    asked, joint = (request, None) if is_refused else self._continued(request, told)
                    if joint is None and "restart" not in self._ways:
                        raise broken from None
                    told.held = []
                    restart = None if joint is not None else Restart(error.message, exchange.spent + 1)
                    exchange.notices.append(_notice(error, request, is_continued=joint is not None))
                    exchange.is_cost_known = False
                await self._runtime.sleep(exchange.waited, exchange.line)
        finally:
            exchange.spent, exchange.waited = 0, 0.0

    def _has_more(self, exchange: Exchange) -> bool:
        """Whether there is an attempt left, and time for it."""
        is_left = exchange.spent < self._max_attempts and not exchange.line.aborted
        return is_left and has_time(exchange.waited, exchange, self._runtime)

    def _continued(self, request: Request, told: _Told) -> tuple[Request, _Joint | None]:
        """What is asked after a break, and what joins the answer to it; None where it has to begin anew."""
        text, prefill = told.text, self._prefill
        kept = text.rstrip() if prefill is not None and prefill.trims else text
        if prefill is None or not kept.strip() or not _is_whole(kept):
            return request, None
        begun = prefill.begun(request, kept, self._dialect)
        if begun is None:
            return request, None
        return begun, _Joint(kept if prefill.repeats else "", text[len(kept) :], told.usage)


def _is_break(error: SabirError) -> bool:
    """Whether an answer might not have broken off if it had been asked for again."""
    return isinstance(error, _BREAKS) or (isinstance(error, EngineError) and error.retryable)


def _is_whole(text: str) -> bool:
    """Whether a text does not end within a sign of two surrogates."""
    return not "\ud800" <= text[-1] <= "\udbff"


def _not_continued(error: SabirError) -> SabirError:
    text = f"the answer broke off, and the server did not go on with it: {error.message}"
    told = {name: getattr(error, name) for name in ("provider", "model", "status", "request_id", "attempts", "body")}
    return StreamInterrupted(text, **told)


def _notice(error: SabirError, request: Request, *, is_continued: bool) -> Notice:
    what = f"the answer broke off ({type(error).__name__}: {error.message})"
    if not is_continued:
        return Notice("retried", "recover", f"{what} and was asked for again; what had come of it is void")
    limit = "" if request.max_tokens is None else "; max_tokens counts from there"
    return Notice("retried", "recover", f"{what} and the model was given its text to go on with{limit}")


@final
class _Told:
    """What has been passed on of an answer, as far as it matters for going on with it."""

    def __init__(self) -> None:
        self.usage: Usage = NOTHING
        # That its text is complete, and what follows: a part that is complete could not be gone on with.
        self.held: list[Delta] = []
        self._pieces: list[str] = []
        self._parts = 0
        self._is_text = True

    @property
    def text(self) -> str:
        """The answer, if it is nothing but one text; else nothing."""
        return "".join(self._pieces) if self._is_text else ""

    def passed(self, batch: list[Delta]) -> list[Delta]:
        """Note what has come; returns what of it is passed on now."""
        for delta in batch:
            match delta:
                case Text() if self._is_text:
                    self._pieces.append(delta.text)
                case Open():
                    self._parts += 1
                    self._is_text = self._is_text and delta.kind == "text" and delta.choice == 0 and self._parts == 1
                case Count():
                    self.usage = self.usage.updated(delta.usage)
                case Finish():
                    self._is_text = False
                case _:
                    pass
        if not self._is_text:
            ready, self.held = [*self.held, *batch], []
            return ready
        end = 0 if self.held else next((at for at, delta in enumerate(batch) if type(delta) is Close), len(batch))
        self.held += batch[end:]
        return batch[:end]


@final
class _Joint:
    """Makes the deltas of one answer go on with the only part of another, which is a text.

    Of the text that comes, what was there already is left out: an `echo` of it all, where the server tells that, and
    the white `space` at its end that the server was not given. `before` is the usage of the other answer.
    """

    def __init__(self, echo: str, space: str, before: Usage) -> None:
        self._echo = echo
        self._space = space
        self._before = before
        self._waiting = ""
        self._received: list[str] = []
        # Where their parts stand with us; theirs that goes on with ours is the first that is a text.
        self._parts: list[int] = []
        self._next = 1

    def joined(self, batch: list[Delta]) -> list[Delta]:
        """A batch as it goes on."""
        return [each for delta in batch for each in self._one(delta)]

    def rest(self) -> list[Delta]:
        """What was waited with, as it might have been there already."""
        waiting, self._waiting = (self._waiting if self._echo else ""), ""
        self._echo = self._space = ""
        return [Text(0, waiting)] if waiting else []

    def _one(self, delta: Delta) -> list[Delta]:
        match delta:
            case Open():
                goes_on = delta.kind == "text" and 0 not in self._parts
                self._parts.append(0 if goes_on else self._next)
                self._next += not goes_on
                if goes_on:
                    return [State(0, delta.state)] if delta.state else []
                return [*self.rest(), msgspec.structs.replace(delta, part=self._parts[-1])]
            case Text() if self._parts[delta.part] == 0:
                return self._fresh(delta.text)
            case Close() if self._parts[delta.part] == 0:
                more = "" if delta.final is None else delta.final[len("".join(self._received)) :]
                return [*self._fresh(more), *self.rest(), Close(0)]
            case Note() if self._parts[delta.part] == 0 and self._echo:
                return []
            case Count():
                return [Count(self._before + delta.usage)]
            case Finish():
                return [*self.rest(), delta]
            case Head() | Event() | State(part=None):
                return [delta]
            case _:
                return [msgspec.structs.replace(delta, part=self._parts[cast("int", delta.part)])]

    def _fresh(self, text: str) -> list[Delta]:
        """What of a text was not there already."""
        self._received.append(text)
        self._waiting += text
        if self._echo:
            if len(self._waiting) < len(self._echo) and self._echo.startswith(self._waiting):
                return []
            self._waiting = self._waiting.removeprefix(self._echo)
            self._echo = ""
        while self._space and self._waiting:
            is_same = self._space[0] == self._waiting[0]
            self._space = self._space[1:] if is_same else ""
            self._waiting = self._waiting[is_same:]
        fresh, self._waiting = self._waiting, ""
        return [Text(0, fresh)] if fresh else []
