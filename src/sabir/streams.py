"""What a reader of a stream holds: it shows a call's chunks, and ends the call when it is closed or dropped.

Knows no kind of call but that it does its work as chunks are asked for, and has an answer afterwards.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable
from functools import wraps
from types import AsyncGeneratorType
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, cast

from .chunks import StreamChunk
from .errors import ConfigurationError
from .model import Exchange
from .runtime import run

P = ParamSpec("P")
CallT = TypeVar("CallT")
ReaderT = TypeVar("ReaderT")
AnswerT = TypeVar("AnswerT")
AnswerT_co = TypeVar("AnswerT_co", covariant=True)


class Streamed(Protocol[AnswerT_co]):
    """A call that is read as a stream."""

    @property
    def exchange(self) -> Exchange: ...

    @property
    def is_cancelled(self) -> bool:
        """Whether it was ended before its answer was whole."""
        ...

    @property
    def response(self) -> AnswerT_co: ...

    def chunks(self) -> AsyncGenerator[list[StreamChunk], None]:
        """Do the work; yields what there is to see, in batches. Read once."""
        ...

    def end(self) -> None:
        """End the call where it is; harmless if it is over, legal from any thread."""
        ...


class _Reader(Generic[AnswerT]):
    """What both colours of stream have in common: they own a call, and end it when they are dropped."""

    def __init__(self, turn: Streamed[AnswerT]) -> None:
        self._turn = turn
        self._batches = turn.chunks()
        self._ready: deque[StreamChunk] = deque()

    def _check_reader(self) -> None:
        """A stream has one reader at a time: what two of them read would be torn between them.

        Raises:
            ConfigurationError: another thread or task is waiting for its next chunk.
        """
        if cast("AsyncGeneratorType[Any, None]", self._batches).ag_running:
            raise ConfigurationError("this stream is being read by another thread or task; let one read, and pass on")

    def _check_end(self) -> None:
        """Tell the end of an answer from the end of a stream that was closed before it.

        Raises:
            ClosedError: there was more to come.
        """
        if self._turn.is_cancelled:
            raise self._turn.exchange.line.cut_error()

    @property
    def response(self) -> AnswerT:
        """What the call without a stream would have returned, once the stream has ended.

        Raises:
            StreamInterrupted: the stream has not ended.
            SabirError: the error that ended it.
        """
        return self._turn.response

    def close(self) -> None:
        """End the stream and close its connection. Idempotent, legal from any thread, never blocks."""
        self._turn.end()

    def __del__(self) -> None:
        # An interrupt in the constructor leaves nothing to end.
        if (turn := getattr(self, "_turn", None)) is not None:
            turn.end()


class BlockingReader(_Reader[AnswerT]):
    """Iterated for `StreamChunk`s, with or without `with`."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StreamChunk:
        while not self._ready:
            self._check_reader()
            try:
                self._ready.extend(run(self._batches.__anext__))
            except StopAsyncIteration:
                self._check_end()
                raise StopIteration from None
        return self._ready.popleft()

    def close(self) -> None:
        """End the stream and close its connection. Idempotent, legal from any thread, never blocks."""
        super().close()
        try:
            run(self._batches.aclose)
        except RuntimeError:
            # Another thread is reading: the line that was just cut wakes it, and it cleans up.
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AwaitableReader(_Reader[AnswerT]):
    """Iterated with `async for`, with or without `async with`."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamChunk:
        while not self._ready:
            self._check_reader()
            try:
                self._ready.extend(await self._batches.__anext__())
            except StopAsyncIteration:
                self._check_end()
                raise
        return self._ready.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        try:
            await self._batches.aclose()
        except RuntimeError:
            # Another task is reading: the line that was just cut wakes it, and it cleans up.
            pass


def reader_of(
    method: Callable[Concatenate[Any, P], CallT], kind: Callable[[CallT], ReaderT]
) -> Callable[Concatenate[Any, P], ReaderT]:
    """The reader of what a method opens, for a class that keeps the object with that method as `_body`."""

    @wraps(method)
    def twin(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> ReaderT:
        return kind(method(self._body, *args, **kwargs))

    return twin
