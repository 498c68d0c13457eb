"""`runtime.Eventful`'s twin for trio's loop. Loaded by the first call that comes from one, and by nothing else.

Its tasks are children of the caller's, as trio would have it: what is cancelled is waited for until it has heard of it.
Threads are left behind here too.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from typing import Any, TypeVar, final

import trio

from .runtime import Job, Line, Outcome, World, is_async, lazily, marked, quietly, spawn

T = TypeVar("T")


@final
class Trio(World):
    """Every method works on the loop of its caller, which is one of trio's."""

    async def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs) if is_async(function) else await _on_thread(function, args, kwargs)
        return await marked(result) if inspect.isawaitable(result) else result

    async def gather(self, jobs: Sequence[Job[T]], line: Line) -> list[T]:
        outcomes: dict[int, Outcome] = {}
        is_over = trio.Event()

        async def work(index: int, job: Job[T]) -> None:
            try:
                outcomes[index] = Outcome(await job(), None)
            except Exception as error:  # noqa: BLE001 - it is raised again below
                outcomes[index] = Outcome(None, error)
            if len(outcomes) == len(jobs):
                is_over.set()

        with _held(line, is_over.set):
            async with trio.open_nursery() as nursery:
                for index, job in enumerate(jobs):
                    nursery.start_soon(work, index, job)
                if jobs:
                    await is_over.wait()
                nursery.cancel_scope.cancel()
        if len(outcomes) < len(jobs):
            raise line.cut_error()
        return [outcomes[index].result() for index in range(len(jobs))]

    async def pull(self, source: Callable[[], Iterator[T]]) -> AsyncGenerator[T, None]:
        token = trio.lowlevel.current_trio_token()
        ready: deque[Outcome] = deque()
        woken = trio.Event()
        is_stopped = False

        def wake() -> None:
            woken.set()

        def put(outcome: Outcome) -> None:
            ready.append(outcome)
            _soon(token, wake)

        def pump() -> None:
            items = lazily(source)
            while not is_stopped:
                outcome = Outcome.of(lambda: next(items))
                put(outcome)
                if outcome.error is not None:
                    return
            items.close()

        spawn(pump)
        try:
            while True:
                while ready:
                    outcome = ready.popleft()
                    if isinstance(outcome.error, StopIteration):
                        return
                    yield outcome.result()
                woken = trio.Event()
                if not ready:
                    await woken.wait()
        finally:
            is_stopped = True

    async def sleep(self, seconds: float, line: Line) -> None:
        is_cut = trio.Event()
        with _held(line, is_cut.set), trio.move_on_after(max(0.0, seconds)):
            if not line.aborted:
                await is_cut.wait()
            raise line.cut_error()

    def leave(self, job: Job[object]) -> None:
        try:
            trio.lowlevel.spawn_system_task(quietly, job)
        except RuntimeError:
            pass  # The run is about to be over, and takes nothing more.


async def _on_thread(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    token = trio.lowlevel.current_trio_token()
    outcomes: list[Outcome] = []
    has_arrived = trio.Event()

    def work() -> None:
        outcomes.append(Outcome.of(lambda: function(*args, **kwargs)))
        _soon(token, has_arrived.set)

    spawn(work)
    await has_arrived.wait()
    return outcomes.pop().result()


@contextlib.contextmanager
def _held(line: Line, action: Callable[[], object]) -> Generator[None]:
    """While this lasts, a cut of the line does something on the loop that runs here."""
    cut = functools.partial(_soon, trio.lowlevel.current_trio_token(), action)
    line.hold(cut)
    try:
        yield
    finally:
        line.release(cut)


def _soon(token: trio.lowlevel.TrioToken, action: Callable[[], object]) -> None:
    """Do something on a loop, from any thread; one that has ended has nobody left to wake."""
    try:
        token.run_sync_soon(action)
    except trio.RunFinishedError:
        pass
