"""What goes wrong on a network, on purpose: a wrapper of a client's runtime. Knows no wire format.

    plan = Faults(faults.Refuse(), faults.Status(429, retry_after=2), None, faults.Cut(after=100))
    client = sabir.Client("openai:gpt-4o-mini", runtime_wrappers=[VirtualClock(), plan])

Each request meets the next fault of the plan, None is none, and after its end all goes well. The errors are those that
the transports raise, in their words. `after` counts bytes of the answer's body; None is before its head.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, Self, final

from ..requests import HttpRequest
from ..runtime import Line, Reply, Runtime, RuntimeWrapper
from ..transports import Origin, connect_error, interrupted_error, locate
from .replies import Canned

# What a line without any limit is made to wait: by then every system has given such a connection up.
LONGEST_STALL = 86_400.0

# The next bytes of the body, as they would have come.
More = Callable[[], Awaitable[bytes]]


class Fault(Protocol):
    """One thing that goes wrong with one request; it calls `struck` when it does."""

    async def send(self, inner: Runtime, request: HttpRequest, line: Line, struck: Callable[[], None]) -> Reply: ...


@final
class Faults:
    """Faults by plan, or by chance; for a client's setting `runtime_wrappers`. `struck` lists those that happened.

    As a context manager it asserts at its end that the whole plan did.
    """

    def __init__(self, *plan: Fault | None) -> None:
        self.struck: list[Fault] = []
        self._planned = [fault for fault in plan if fault is not None]
        # Popped from its end, which is atomic.
        self._plan = list(reversed(plan))
        self._by_chance: Callable[[], Fault | None] = lambda: None

    @classmethod
    def by_chance(cls, chance: float, *kinds: Fault, seed: int) -> Self:
        """One of these faults for each request with this chance; the same ones for the same seed."""
        made, chances = cls(), random.Random(seed)
        made._by_chance = lambda: chances.choice(kinds) if chances.random() < chance else None
        return made

    def __call__(self, runtime: Runtime) -> Runtime:
        return _Faulty(runtime, self)

    def next(self) -> Fault | None:
        """The fault of the next request."""
        try:
            return self._plan.pop()
        except IndexError:
            return self._by_chance()

    def assert_done(self) -> None:
        """Fail if a planned fault did not happen: it was never reached, or the body was too short for it.

        Raises:
            AssertionError: says which.
        """
        left = list(self._planned)
        for fault in self.struck:
            if fault in left:
                left.remove(fault)
        if left:
            raise AssertionError(f"faults that did not happen: {left}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.assert_done()


class _Faulty(RuntimeWrapper):
    def __init__(self, inner: Runtime, faults: Faults) -> None:
        super().__init__(inner)
        self._faults = faults

    async def send(self, request: HttpRequest, line: Line) -> Reply:
        line.left()
        if (fault := self._faults.next()) is None:
            return await self.inner.send(request, line)
        return await fault.send(self.inner, request, line, lambda: self._faults.struck.append(fault))


@dataclass(frozen=True)
class Refuse:
    """Nobody listens at the address."""

    async def send(self, inner: Runtime, request: HttpRequest, line: Line, struck: Callable[[], None]) -> Reply:
        struck()
        raise connect_error(_origin(request), _os_error(errno.ECONNREFUSED))


@dataclass(frozen=True)
class Status:
    """An answer that somebody on the way gives instead of the server: an error, a redirect, a page."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    retry_after: float | None = None

    async def send(self, inner: Runtime, request: HttpRequest, line: Line, struck: Callable[[], None]) -> Reply:
        struck()
        headers = {"content-length": str(len(self.body)), **self.headers}
        if self.retry_after is not None:
            headers["retry-after"] = f"{self.retry_after:g}"
        return Canned(inner, line, self.status, headers, [self.body] if self.body else [])


@dataclass(frozen=True)
class Slow:
    """The answer begins so many seconds late."""

    seconds: float

    async def send(self, inner: Runtime, request: HttpRequest, line: Line, struck: Callable[[], None]) -> Reply:
        struck()
        await _silence(inner, line, self.seconds)
        return await inner.send(request, line)


@dataclass(frozen=True)
class Reset:
    """The connection is reset: whoever waits gets an error."""

    after: int | None = None

    async def send(self, inner: Runtime, request: HttpRequest, line: Line, struck: Callable[[], None]) -> Reply:
        origin, cause = _origin(request), _os_error(errno.ECONNRESET)
        if self.after is None:
            struck()
            raise connect_error(origin, cause)

        async def reset(_: More) -> bytes:
            raise interrupted_error(origin, cause)

        return _Struck(await inner.send(request, line), self.after, reset, struck)


@dataclass(frozen=True)
class Cut:
    """The body just ends, as that of a server which frames it by hanging up: only its format can tell."""

    after: int

    async def send(self, inner: Runtime, request: HttpRequest, line: Line, struck: Callable[[], None]) -> Reply:
        async def end(_: More) -> bytes:
            return b""

        return _Struck(await inner.send(request, line), self.after, end, struck)


@dataclass(frozen=True)
class Stall:
    """Nothing comes any more, until the line is cut or one of its limits has passed."""

    after: int | None = None

    async def send(self, inner: Runtime, request: HttpRequest, line: Line, struck: Callable[[], None]) -> Reply:
        async def stall(_: More) -> bytes:
            await _silence(inner, line, LONGEST_STALL)
            raise interrupted_error(_origin(request), _os_error(errno.ETIMEDOUT))

        if self.after is None:
            struck()
            await _silence(inner, line, LONGEST_STALL)
            raise connect_error(_origin(request), _os_error(errno.ETIMEDOUT))
        return _Struck(await inner.send(request, line), self.after, stall, struck)


@dataclass(frozen=True)
class Garble:
    """Bytes in the body that do not belong there: by default such as neither JSON, lines of it nor events may have."""

    after: int
    data: bytes = b"\ndata: {]\n\n"

    async def send(self, inner: Runtime, request: HttpRequest, line: Line, struck: Callable[[], None]) -> Reply:
        once = [self.data]

        async def garble(more: More) -> bytes:
            return once.pop() if once else await more()

        return _Struck(await inner.send(request, line), self.after, garble, struck)


class _Struck:
    """A reply that goes well for so many bytes."""

    def __init__(
        self, inner: Reply, after: int, then: Callable[[More], Awaitable[bytes]], struck: Callable[[], None]
    ) -> None:
        self.status = inner.status
        self.headers = inner.headers
        self._inner = inner
        self._good = after
        self._rest = b""
        self._then = then
        self._strike = [struck]

    async def read_some(self) -> bytes:
        if self._good:
            data = await self._inner.read_some()
            piece, self._rest = data[: self._good], data[self._good :]
            self._good -= len(piece)
            return piece
        if self._strike:
            self._strike.pop()()
        return await self._then(self._more)

    def close(self) -> None:
        self._inner.close()

    async def _more(self) -> bytes:
        rest, self._rest = self._rest, b""
        return rest or await self._inner.read_some()


async def _silence(runtime: Runtime, line: Line, seconds: float) -> None:
    """Wait without a sign of life, as long as the line allows."""
    limit = line.left(line.idle)
    await runtime.sleep(seconds if limit is None else min(seconds, limit), line)
    if limit is not None and limit <= seconds:
        raise line.timeout_error()


def _origin(request: HttpRequest) -> Origin:
    return locate(request.url)[0]


def _os_error(code: int) -> OSError:
    """The error of the system with this number, of the class that it has."""
    return OSError(code, os.strerror(code))
