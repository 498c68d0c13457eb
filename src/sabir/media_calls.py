"""Calls that give a picture, speech or a transcript, whole or as they come; written once for both colours.

What they have in common with conversations they have from the same rooms: who asks again, a deadline over all, hooks,
and errors that say what was tried. Knows no wire format, and not which of the three a call is for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar, final

import msgspec

from .attachments import Intake, Load
from .chunks import Phase, StreamChunk
from .cost import Cost
from .dialects import mapping_of
from .dialects.media_formats import Answer, Asked, MediaDecoder, MediaDialect
from .errors import ClosedError, ConfigurationError, SabirError, StreamInterrupted, StreamProtocolError
from .hooks import CallEnded, CallStarted, FirstToken, Hook, tell
from .media import media_type_of
from .messages import Audio, Image, Message, Part, ProviderState
from .model import MAX_ANSWER, Endpoint, Exchange, drained, encoded
from .options import check_types
from .requests import Attempt, HttpRequest, Notice, Response, Timings
from .retry import retried
from .runtime import Reply, Runtime
from .streams import AwaitableReader, BlockingReader
from .strict_json import is_object
from .usage import NOTHING, Usage

AskedT = TypeVar("AskedT", bound=Asked)
PieceT = TypeVar("PieceT")
AnswerT = TypeVar("AnswerT", bound=Answer)
MadeT = TypeVar("MadeT", bound="Made")
MediumT = TypeVar("MediumT", Image, Audio)

CostOf = Callable[[Asked, Usage, ProviderState | None], Cost | None]


class Made(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """What every such answer has. `cost` is None where it is not known, which is not 0.

    `details` is what the provider said beyond this, in its own words.
    """

    model: str
    timings: Timings
    usage: Usage = NOTHING
    cost: Cost | None = None
    warnings: tuple[Notice, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    request_id: str | None = None
    details: dict[str, Any] = {}

    @property
    def message(self) -> Message:
        """The answer as a message, to go on with in a conversation."""
        raise NotImplementedError


@final
class MediaAsker(Generic[AskedT, PieceT, AnswerT]):
    """Who asks a provider for media: in which format, where, how often, and what is loaded for it."""

    def __init__(
        self,
        dialect: MediaDialect[AskedT, PieceT, AnswerT],
        endpoint: Endpoint,
        runtime: Runtime,
        max_attempts: int,
        load: Load,
    ) -> None:
        self.dialect = dialect
        self.runtime = runtime
        self.max_attempts = max_attempts
        self.load = load
        self.endpoint = endpoint
        self.intake = Intake(dialect.media, endpoint.server, runtime, load)

    async def fitted(self, part: MediumT, exchange: Exchange) -> MediumT:
        """The part as the server takes it: loaded, if it fetches nothing itself.

        Raises:
            SabirError: the server does not take it, or it cannot be loaded.
        """
        self.intake.check(part)
        if not self.intake.is_to_load(part):
            return part
        return self.intake.filled(part, await self.intake.loaded(part, exchange))


@final
class Setting(msgspec.Struct, frozen=True):
    """What a client says of a call, whatever it is for."""

    name: str
    exchange: Exchange
    timeout: float | None
    hooks: tuple[Hook, ...]
    include: Collection[str]
    cost: CostOf


class MediaCall(Generic[AskedT, PieceT, AnswerT, MadeT]):
    """One call. Read `chunks()` once, or `finish()` it; `end()` may be called at any time, from any thread.

    A kind of call says what is to be seen of its pieces (`seen`, `last_seen`), what came of it (`made`), and what of it
    is there when it breaks off (`parts`).
    """

    def __init__(self, asker: MediaAsker[AskedT, PieceT, AnswerT], request: AskedT, setting: Setting) -> None:
        self.request = request
        self.exchange = setting.exchange
        self.asker = asker
        self._setting = setting
        self._runtime = asker.runtime
        self._began = asker.runtime.now()
        self._first_piece: float | None = None
        self._answer: AnswerT | None = None
        self._made: MadeT | None = None
        self._error: BaseException | None = None
        # Popped by whoever ends the call first: a list's pop is atomic, and no lock is left held by an interrupt.
        self._endings = ["unclaimed"]
        self._is_started = False

    # What a kind of call says

    def asked(self) -> Message:
        """What hooks are shown."""
        raise NotImplementedError

    async def fitted(self) -> AskedT:
        """The request as the server takes it."""
        raise NotImplementedError

    def seen(self, piece: PieceT) -> list[StreamChunk]:
        """What there is to see of a piece."""
        raise NotImplementedError

    def last_seen(self, answer: AnswerT) -> list[StreamChunk]:
        """What there is to see of the whole answer, beyond that."""
        raise NotImplementedError

    def parts(self) -> tuple[Part, ...]:
        """What has come so far."""
        raise NotImplementedError

    async def completed(self, answer: AnswerT) -> AnswerT:
        """The answer, with what is still to be done for it."""
        return answer

    def made(self, answer: AnswerT, common: Mapping[str, Any]) -> MadeT:
        """What the caller is given."""
        raise NotImplementedError

    # What all of them do

    @property
    def is_over(self) -> bool:
        return not self._endings

    @property
    def is_cancelled(self) -> bool:
        return isinstance(self._error, ClosedError)

    @property
    def response(self) -> MadeT:
        """The answer.

        Raises:
            StreamInterrupted: the call is still going on.
            SabirError: the error that ended it; a `ClosedError` if it was closed early, with what had come.
        """
        if self._error is not None:
            raise self._error
        if self._made is None:
            raise StreamInterrupted("the stream has not ended: read it to its end before asking for its response")
        return self._made

    async def finish(self) -> MadeT:
        """Do all the work and return the answer."""
        async with aclosing(self.chunks()) as batches:
            async for _ in batches:
                pass
        return self.response

    async def chunks(self) -> AsyncGenerator[list[StreamChunk], None]:
        """Do the work; yields what there is to see, in batches."""
        include = self._setting.include
        try:
            self._start()
            async with aclosing(self._work()) as batches:
                async for batch in batches:
                    if shown := [chunk for chunk in batch if chunk.phase in include]:
                        yield shown
        except Exception as error:
            self._end_with(error)
            if self._error is error:
                raise
            raise self.exchange.line.cut_error() from None
        except BaseException:
            self.end()
            raise
        if Phase.DONE in include:
            yield [StreamChunk(Phase.DONE, "")]

    def end(self) -> None:
        """End the call where it is; harmless if it is over."""
        if not self.is_over:
            self.exchange.line.abort()
            self._end_with(self.exchange.line.cut_error())

    def _start(self) -> None:
        if self.is_over:
            raise self.exchange.line.cut_error()
        self._is_started = True
        self._began = self._runtime.now()
        if self._setting.timeout is not None:
            self.exchange.line.deadline = self._began + self._setting.timeout
        if self._setting.hooks:
            tell(self._setting.hooks, "on_start", CallStarted(self._setting.name, (self.asked(),)))

    async def _work(self) -> AsyncGenerator[list[StreamChunk], None]:
        asker, exchange = self.asker, self.exchange
        self.request = await self.fitted()
        http, notices = encoded(asker.dialect.encode_request, self.request)
        exchange.report((*asker.endpoint.notices_of(http), *notices))
        ask = partial(self._once, http)
        async with aclosing(retried(ask, exchange, self._runtime, asker.max_attempts)) as batches:
            async for pieces in batches:
                if self._first_piece is None:
                    self._note_first_piece()
                yield [chunk for piece in pieces for chunk in self.seen(piece)]
        assert self._answer is not None
        answer = await self.completed(self._answer)
        last = self.last_seen(answer)
        # Who has seen the last of it may leave: the answer is there.
        self._settle(lambda: self.made(answer, self._common(answer)), None)
        yield last

    async def _once(self, http: HttpRequest) -> AsyncGenerator[list[PieceT], None]:
        """One attempt: the pieces as they come; then `_answer` is their sum."""
        endpoint, exchange, dialect = self.asker.endpoint, self.exchange, self.asker.dialect
        try:
            reply = await endpoint.send(http, exchange, dialect.decode_error)
            decoder = dialect.decoder(self.request, reply.headers.get("content-type", ""))
            try:
                async with aclosing(_read(reply, decoder)) as batches:
                    async for batch in batches:
                        yield batch
                        del batch
                self._answer = decoder.close()
                if decoder.is_over:
                    await drained(reply, exchange.line, self._runtime)
            except StreamInterrupted as error:
                # Whether an answer is complete is for its format to say, not for the connection.
                self._answer = _whole(decoder, error)
            finally:
                reply.close()
        except SabirError as error:
            raise endpoint.told(error, self.request.model, exchange) from None

    def _note_first_piece(self) -> None:
        self._first_piece = self._runtime.now() - self._began
        if self._setting.hooks:
            tell(self._setting.hooks, "on_first_token", FirstToken(self._setting.name, self._first_piece))

    def _common(self, answer: AnswerT) -> dict[str, Any]:
        exchange, state = self.exchange, answer.state
        return {
            "model": answer.model or self.request.model,
            "timings": Timings(self._runtime.now() - self._began, self._first_piece),
            "usage": answer.usage,
            "cost": self._setting.cost(self.request, answer.usage, state),
            "warnings": tuple(exchange.notices),
            "attempts": tuple(exchange.attempts),
            "request_id": exchange.request_id,
            "details": _details(state),
        }

    def _end_with(self, error: Exception) -> None:
        if isinstance(error, SabirError):
            error.model = error.model or self.request.model
            error.attempts, error.warnings = tuple(self.exchange.attempts), tuple(self.exchange.notices)
            if error.partial is None:
                error.partial = Message("assistant", self.parts())
        self.exchange.line.abort()
        self._settle(None, error)

    def _settle(self, respond: Callable[[], MadeT] | None, error: BaseException | None) -> None:
        try:
            self._endings.pop()
        except IndexError:
            return
        # From here on the call is over, whatever interrupts what follows.
        self._error = error
        if respond is not None:
            self._made = respond()
        if self._setting.hooks and self._is_started:
            seconds, response = self._runtime.now() - self._began, self._told(error)
            failure = None if response is not None else error
            tell(self._setting.hooks, "on_end", CallEnded(self._setting.name, seconds, response, failure))

    def _told(self, error: BaseException | None) -> Response[Any] | None:
        """What a hook is told of a call that is no conversation: what came, also where it was closed early."""
        made, exchange, message = self._made, self.exchange, Message("assistant", self.parts())
        if made is None and not isinstance(error, ClosedError):
            return None
        return Response(
            message=message if made is None else made.message,
            parsed=made,
            messages=() if made is None else (made.message,),
            usage=NOTHING if made is None else made.usage,
            timings=Timings(self._runtime.now() - self._began, self._first_piece) if made is None else made.timings,
            finish_reason="cancelled" if made is None else "stop",
            model=self.request.model if made is None else made.model,
            cost=None if made is None else made.cost,
            warnings=tuple(exchange.notices),
            attempts=tuple(exchange.attempts),
            request_id=exchange.request_id,
        )


@final
class MediaStream(BlockingReader[MadeT]):
    """An answer as it comes: iterate it for `StreamChunk`s, with or without `with`; then read `response`."""


@final
class AsyncMediaStream(AwaitableReader[MadeT]):
    """An answer as it comes: iterate it for `StreamChunk`s, with or without `async with`; then read `response`."""


def typed_options(options: Mapping[str, Any], known: type[Any]) -> dict[str, Any]:
    """The options, each of the type that `known` says.

    Raises:
        ConfigurationError: one has a wrong value; says which.
    """
    check_types(options, known)
    return dict(options)


def saved(path: str | Path, data: bytes | None, what: str) -> Path:
    """Write the bytes of something that was made, and say where.

    Raises:
        ConfigurationError: there are none, or the file cannot be written.
    """
    if data is None:
        raise ConfigurationError(f"of this {what} there is only an address, and no bytes to save")
    place = Path(path)
    try:
        place.write_bytes(data)
    except OSError as error:
        raise ConfigurationError(f"{str(place)[:200]!r} cannot be written: {error.strerror or error}") from None
    return place


def note_format(exchange: Exchange, asked: str | None, known: Mapping[str, str], data: bytes) -> None:
    """Tell the caller where what came is not of the format that was asked for.

    `known` are the media types of formats that are known by their first bytes; of others nothing is said.
    """
    wanted, found = known.get((asked or "").lower()), media_type_of(data)
    # A format that is emulated may fail to come, too.
    is_told = any(notice.subject == "format" and notice.kind != "emulated" for notice in exchange.notices)
    if wanted is None or found == wanted or is_told:
        return
    # What is found to be bytes or a text is none of the types known here, and has no name to be told.
    came = found if found.partition("/")[0] == wanted.partition("/")[0] else "what is not known to be of it"
    text = f"format={asked!r} was asked for, and {came} came; save it as that, or convert it"
    exchange.notices.append(Notice("provider", "format", text))


async def _read(reply: Reply, decoder: MediaDecoder[PieceT, Any]) -> AsyncGenerator[list[PieceT], None]:
    size = 0
    while not decoder.is_over and (data := await reply.read_some()):
        size += len(data)
        if size > MAX_ANSWER:
            raise StreamProtocolError(f"the answer is larger than {MAX_ANSWER} bytes")
        if pieces := decoder.feed(data):
            yield pieces


def _whole(decoder: MediaDecoder[Any, AnswerT], error: StreamInterrupted) -> AnswerT:
    try:
        return decoder.close(is_cut=True)
    except StreamInterrupted:
        raise error from None


def _details(state: ProviderState | None) -> dict[str, Any]:
    """What an answer said beyond our words: of itself, and by the place of what is said of something in it."""
    details: dict[str, Any] = {}
    for place, patch in mapping_of(state.value if state is not None else None).items():
        if is_object(patch) and is_object(said := patch.get("set")):
            details |= said if place == "answer" else {place: said}
    return details
