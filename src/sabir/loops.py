"""The event loop that runs here, asyncio's or trio's: its runtime, and what code that works on either needs of it.

trio is never loaded here: whoever runs on it has.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Sequence
from importlib import import_module
from typing import Any, Protocol, TypeVar, cast, final

from .errors import ConfigurationError
from .requests import HttpRequest
from .runtime import Eventful, Job, Line, Reply, Runtime, Transport, World, call_soon, quietly

T = TypeVar("T")

Action = Callable[[], object]
Work = Callable[[], Coroutine[Any, Any, object]]


def runs_trio() -> bool:
    """Whether the caller is in a task of trio's."""
    trio = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_task())


@final
class AnyLoop(World):
    """A runtime that is `Eventful` where asyncio runs, and its twin where trio does; they share one transport."""

    def __init__(self, transport: Callable[[], Transport], *, sends_on_trio: bool) -> None:
        super().__init__(transport)
        self._sends_on_trio = sends_on_trio
        self._asyncio = Eventful(self.transport)
        self._trio: Runtime | None = None

    async def send(self, request: HttpRequest, line: Line) -> Reply:
        runtime = self._here()
        if runtime is self._trio and not self._sends_on_trio:
            raise ConfigurationError(
                "this client's transport works on asyncio only; for trio, make the client with transport='httpx2' "
                "(pip install 'sabir[httpx2]') or with an AsyncClient of httpx or httpx2"
            )
        return await runtime.send(request, line)

    async def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return await self._here().call(function, *args, **kwargs)

    async def gather(self, jobs: Sequence[Job[T]], line: Line) -> list[T]:
        return await self._here().gather(jobs, line)

    def pull(self, source: Callable[[], Iterator[T]]) -> AsyncGenerator[T, None]:
        return self._here().pull(source)

    async def sleep(self, seconds: float, line: Line) -> None:
        await self._here().sleep(seconds, line)

    def leave(self, job: Job[object]) -> None:
        self._here().leave(job)

    def _here(self) -> Runtime:
        if not runs_trio():
            return self._asyncio
        if (runtime := self._trio) is None:
            runtime = self._trio = cast("Runtime", import_module("sabir.trio_runtime").Trio(self.transport))
        return runtime


class Loop(Protocol):
    """An event loop, seen from any thread. One that has ended does nothing any more, and says nothing."""

    def do(self, action: Action) -> None:
        """Have a plain function called on the loop: now, if that is where the caller is."""
        ...

    def leave(self, work: Work) -> None:
        """Have a coroutine run on the loop that nobody waits for; what it raises is forgotten."""
        ...

    async def limited(self, work: Callable[[], Awaitable[T]], seconds: float | None, cut: Cut) -> T:
        """Do some work of the caller's loop, and cancel it when it takes longer, or when `cut` says so.

        Raises:
            TimeoutError: it was cancelled.
        """
        ...


class Cut:
    """While the work goes on that it was given to, what ends it; to be called on that work's loop."""

    action: Action | None = None


def loop_here() -> Loop:
    """The loop of the caller, who is in one of its tasks."""
    return _Trio() if runs_trio() else _Asyncio()


@final
class _Asyncio:
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def do(self, action: Action) -> None:
        if _running_loop() is self._loop:
            action()
        else:
            call_soon(self._loop, action)

    def leave(self, work: Work) -> None:
        self.do(lambda: self._start(work))

    async def limited(self, work: Callable[[], Awaitable[T]], seconds: float | None, cut: Cut) -> T:
        async with asyncio.timeout(seconds) as clock:
            cut.action = lambda: None if clock.expired() else clock.reschedule(self._loop.time())
            try:
                return await work()
            finally:
                cut.action = None

    def _start(self, work: Work) -> None:
        task = self._loop.create_task(quietly(work))
        _left.add(task)
        task.add_done_callback(_left.discard)


@final
class _Trio:
    def __init__(self) -> None:
        self._trio = sys.modules["trio"]
        self._token = self._trio.lowlevel.current_trio_token()

    def do(self, action: Action) -> None:
        if runs_trio() and self._trio.lowlevel.current_trio_token() is self._token:
            action()
            return
        try:
            self._token.run_sync_soon(action)
        except RuntimeError:
            pass  # The run is over.

    def leave(self, work: Work) -> None:
        self.do(lambda: self._start(work))

    async def limited(self, work: Callable[[], Awaitable[T]], seconds: float | None, cut: Cut) -> T:
        with self._trio.move_on_after(math.inf if seconds is None else seconds) as scope:
            cut.action = scope.cancel
            try:
                return await work()
            finally:
                cut.action = None
        raise TimeoutError("it took too long")

    def _start(self, work: Work) -> None:
        try:
            self._trio.lowlevel.spawn_system_task(quietly, work)
        except RuntimeError:
            pass  # The run is about to be over, and takes nothing more.


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


# A loop holds its tasks by weak references only.
_left: set[asyncio.Task[None]] = set()
