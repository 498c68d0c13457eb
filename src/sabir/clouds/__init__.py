"""What proofs of clouds have in common: they end, and are fetched anew before. Knows no cloud; each is a file in here.

A proof is fetched by one of those who need it, for all of them, on whatever threads and loops they are. No lock is held
meanwhile: who comes later sleeps on a line of his own, which whoever fetches cuts when he is done, or is cut himself.
"""

from __future__ import annotations

import copy
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Generic, NamedTuple, TypeVar, final

from ..errors import AuthenticationError, ClosedError, DeadlineExceeded, SabirError
from ..requests import Secret
from ..runtime import Line, Runtime, RuntimeWrapper

T = TypeVar("T")

# What is shorter is no secret and stands in many a message: what local servers are given for want of a key.
LEAST_SECRET = 8
# Seconds before its end from which a proof is fetched anew while it still serves, and from which it serves no more.
RENEWED_BEFORE = 300.0
SERVES_UNTIL = 60.0
# How long a call waits for a new proof while it has one that serves, and when that is next tried where it failed.
PATIENCE = 10.0
AGAIN_AFTER = 30.0
_A_DAY = 86_400.0
_A_LATE_DAY = 1e11

Headers = tuple[tuple[str, Secret], ...]


class Proof(NamedTuple, Generic[T]):
    """What proves who asks, and when it ends, in seconds since 1970; None if it does not say."""

    value: T
    ends: float | None = None


class Standard(ABC, Generic[T]):
    """The credentials that a cloud's own tools would find; may be given as `api_key=`, for any address.

    One object may serve any number of clients.
    """

    # Whether what they give signs requests, as AWS's do; else it is headers.
    signs = False

    def __init__(self) -> None:
        self.renewed = Renewed(self.prove)

    @abstractmethod
    async def prove(self, runtime: Runtime, line: Line) -> Proof[T]:
        """Fetch a proof.

        Raises:
            ConfigurationError: there are no credentials, or a mistake is in what says where they are.
            SabirError: who gives them refused, or did not answer.
        """
        ...

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    def __reduce__(self) -> str:
        raise TypeError("credentials are not pickled")


@final
class Renewed(Generic[T]):
    """Keeps a proof for as long as it serves."""

    def __init__(self, fetch: Callable[[Runtime, Line], Awaitable[Proof[T]]]) -> None:
        self._fetch = fetch
        self._kept: _Kept[T] | None = None
        self._fetching: dict[str, _Flight] = {}

    async def get(self, runtime: Runtime, line: Line) -> T:
        """The proof, fetched if need be.

        Raises:
            SabirError: it could not be fetched, and none is kept that still serves.
        """
        while True:
            kept = self._kept
            if kept is not None and time.time() < kept.renewed_from:
                return kept.value
            mine = _Flight(line)
            first = mine
            try:
                # One operation, so that of several who come at once one is the first.
                first = self._fetching.setdefault("", mine)
                if first is mine:
                    return await self._fetched(mine, runtime, line)
            finally:
                mine.end()
                if first is mine:
                    self._fetching.pop("", None)
            if kept is not None and kept.serves():
                return kept.value
            if first.has_ended():
                # Whoever it was is no more, and took nothing away with him.
                if self._fetching.get("") is first:
                    self._fetching.pop("", None)
                continue
            await first.wait(runtime, line)
            if first.failure is not None:
                raise copy.copy(first.failure)

    async def _fetched(self, flight: _Flight, runtime: Runtime, line: Line) -> T:
        kept = self._kept
        if kept is not None and time.time() < kept.renewed_from:
            return kept.value  # Fetched between the look at it and our turn.
        serves = kept is not None and kept.serves()
        try:
            with limited(line, PATIENCE if serves else None) as short:
                fresh = _Kept(await self._fetch(runtime, short))
            if not fresh.serves():
                raise AuthenticationError(
                    f"the credentials that were fetched had ended at {fresh.ended_at()}; is this machine's clock right?"
                )
        except SabirError as error:
            if kept is not None and serves and not line.aborted and not line.is_over():
                self._kept = kept.later()
                return kept.value
            # That a call was cut or had no time left is its own affair: who waits tries for himself.
            flight.failure = None if isinstance(error, (ClosedError, DeadlineExceeded)) else error
            raise
        self._kept = fresh
        return fresh.value


class _Kept(Generic[T]):
    """A proof and its times. One that serves only for a short while is renewed and given up sooner before its end."""

    def __init__(self, proof: Proof[T], renewed_from: float | None = None) -> None:
        self._proof = proof
        self.value = proof.value
        ends = float("inf") if proof.ends is None else proof.ends
        left = max(0.0, ends - time.time())
        self._until = ends - min(SERVES_UNTIL, left / 8) if proof.ends is not None else ends
        self.renewed_from = ends - min(RENEWED_BEFORE, left / 4) if renewed_from is None else renewed_from

    def serves(self) -> bool:
        return time.time() < self._until

    def later(self) -> _Kept[T]:
        """The same, to be renewed a while from now."""
        return _Kept(self._proof, time.time() + AGAIN_AFTER)

    def ended_at(self) -> str:
        return datetime.fromtimestamp(min(max(0.0, self._proof.ends or 0.0), _A_LATE_DAY), UTC).isoformat(
            " ", "seconds"
        )


class _Flight:
    """One fetch under way; ends with the line of whoever does it, at the latest."""

    def __init__(self, line: Line) -> None:
        self.failure: SabirError | None = None
        self._process = os.getpid()
        self._over = Line(now=line.now)
        self._line = line
        line.hold(self._over.abort)

    def end(self) -> None:
        self._over.abort()
        self._line.release(self._over.abort)

    def has_ended(self) -> bool:
        """Also by a fork: the thread that was at it did not come along."""
        return self._over.aborted or self._process != os.getpid()

    async def wait(self, runtime: Runtime, line: Line) -> None:
        """Wait for its end.

        Raises:
            ClosedError, DeadlineExceeded: the line of who waits ended before.
        """
        while isinstance(runtime, RuntimeWrapper):
            runtime = runtime.inner  # Who fetches works in real time, also where a wrapper plays with the clock.
        waiting = Line(now=line.now)
        line.hold(waiting.abort)
        self._over.hold(waiting.abort)
        try:
            left = line.left()
            await runtime.sleep(_A_DAY if left is None else left, waiting)
        except ClosedError:
            pass
        finally:
            self._over.release(waiting.abort)
            line.release(waiting.abort)
        line.left()


@contextmanager
def limited(line: Line, seconds: float | None) -> Generator[Line]:
    """A line that ends with another one, or after some seconds."""
    if seconds is None:
        yield line
        return
    deadline = line.now() + seconds
    if line.deadline is not None:
        deadline = min(deadline, line.deadline)
    short = Line(deadline=deadline, idle=line.idle, connect=line.connect, now=line.now)
    line.hold(short.abort)
    try:
        yield short
    finally:
        line.release(short.abort)
