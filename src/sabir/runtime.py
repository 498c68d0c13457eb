"""Everything that touches the outside, behind one seam; the only room that knows what colour it is.

All rooms above are written once, as `async def`, and await nothing but their `Runtime`. `Eventful` does the work on the
caller's event loop. `Blocking` does it with blocking calls, so that a coroutine which awaits only it never suspends and
`run` can finish it with a single `send(None)`: no event loop, no portal thread, one stack.

Two hazards shape the blocking half. A KeyboardInterrupt can strike between any two bytecodes, and a Python-level lock
it leaves held deadlocks the next call; so it waits only on `SimpleQueue`, whose operations are single C calls. And a
blocking call may happen inside a running event loop (a notebook), which would adopt our async generators and close them
with itself; so `run` hides the loop's hooks while our code starts and steps them.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import operator
import os
import queue
import random
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, final

from .errors import ClosedError, DeadlineExceeded, SabirError, SabirWarning
from .requests import HttpRequest

# How long a thread that has run a user's function is kept for the next one.
IDLE_THREAD_SECONDS = 10.0

_Inbox = queue.SimpleQueue[Callable[[], None]]

T = TypeVar("T")
P = ParamSpec("P")

Job = Callable[[], Coroutine[Any, Any, T]]


class Line:
    """What one call may take of the world: an absolute deadline, a limit on silence, and a way to be cut.

    `deadline` is on the clock `now`, its runtime's; `idle` and `connect` are seconds; None is no limit. Whoever waits
    for the outside holds a `cut` here: a plain function that ends the wait, callable from any thread, any number of
    times. No lock guards them: `list.append` and `remove` are atomic, and an abort that comes between the two steps of
    `hold` is seen by the second.
    """

    __slots__ = ("_cuts", "aborted", "connect", "deadline", "idle", "now")

    def __init__(
        self,
        *,
        deadline: float | None = None,
        idle: float | None = None,
        connect: float | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.deadline = deadline
        self.idle = idle
        self.connect = connect
        self.now = now
        self.aborted = False
        self._cuts: list[Callable[[], None]] = []

    def hold(self, cut: Callable[[], None]) -> None:
        """Have `cut` called by `abort()`, at once if that has already happened."""
        self._cuts.append(cut)
        if self.aborted:
            cut()

    def release(self, cut: Callable[[], None]) -> None:
        """Stop holding `cut`; harmless if it is not held."""
        try:
            self._cuts.remove(cut)
        except ValueError:
            pass

    def abort(self) -> None:
        """End every wait on this line, now and in future. Never blocks; legal from any thread; idempotent."""
        self.aborted = True
        for cut in tuple(self._cuts):
            cut()

    def left(self, limit: float | None = None) -> float | None:
        """Seconds that the next wait may take, at most `limit`.

        Raises:
            ClosedError: the line was cut.
            DeadlineExceeded: nothing is left.
        """
        if self.aborted:
            raise self.cut_error()
        if self.deadline is None:
            return limit
        left = self.deadline - self.now()
        if left <= 0:
            raise self.deadline_error()
        return left if limit is None else min(left, limit)

    def is_over(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and self.now() >= self.deadline

    def extend(self, seconds: float) -> None:
        """Move the deadline: it covers the model's input and output, not the tools that run between."""
        if self.deadline is not None:
            self.deadline += seconds

    def timeout_error(self) -> SabirError:
        """The error for a wait that took longer than `left()` allowed."""
        if self.aborted:
            return self.cut_error()
        # A clock may be a moment early: without another limit it was the deadline.
        if self.is_over() or self.idle is None:
            return self.deadline_error()
        return DeadlineExceeded(f"the other side was silent for {self.idle:g} s (idle_timeout)")

    def cut_error(self) -> ClosedError:
        return ClosedError("closed by its owner while it was in use")

    def deadline_error(self) -> DeadlineExceeded:
        return DeadlineExceeded("the deadline of this call has passed (timeout)")


class Reply(Protocol):
    """An answer whose body has not been read. Header names are in lower case."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    async def read_some(self) -> bytes:
        """The next bytes of the body as they come, b"" at its end. Nothing is decompressed."""
        ...

    def close(self) -> None:
        """Let go: an unread body costs the connection. Plain, idempotent, legal from any thread."""
        ...


class Transport(Protocol):
    """A dumb pipe: one attempt, the bytes as given; no redirects, cookies, retries, environment, decompression.

    It turns every failure into `ConnectError` (no answer began), `StreamInterrupted` (one did), `DeadlineExceeded` or
    `ClosedError`. A blocking one answers before it returns: its coroutines never suspend.
    """

    async def send(self, request: HttpRequest, line: Line) -> Reply: ...

    def close(self) -> None: ...


class Runtime(Protocol):
    """All that the rooms above may ask of the world."""

    async def send(self, request: HttpRequest, line: Line) -> Reply: ...

    async def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a user's function, `def` or `async def`, and return its result."""
        ...

    async def gather(self, jobs: Sequence[Job[T]], line: Line) -> list[T]:
        """Run jobs at once, each to its end; then return their results in order, or raise the first failure.

        When the line is cut it raises at once: jobs that do not listen are left behind, never waited for.
        """
        ...

    def pull(self, source: Callable[[], Iterator[T]]) -> AsyncGenerator[T, None]:
        """Iterate a blocking source, such as an engine's deltas."""
        ...

    async def sleep(self, seconds: float, line: Line) -> None: ...

    def leave(self, job: Job[object]) -> None:
        """Begin a job that nobody waits for; what it raises is forgotten. Where no loop runs that could, do nothing."""
        ...

    def now(self) -> float:
        """Seconds on a clock that never goes back."""
        ...

    def random(self) -> float:
        """A number in [0, 1), for jitter."""
        ...

    def close(self) -> None: ...


class RuntimeWrapper:
    """A runtime around another one; a subclass overrides what it changes. See the setting `runtime_wrappers`."""

    def __init__(self, inner: Runtime) -> None:
        self.inner = inner

    async def send(self, request: HttpRequest, line: Line) -> Reply:
        return await self.inner.send(request, line)

    async def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return await self.inner.call(function, *args, **kwargs)

    async def gather(self, jobs: Sequence[Job[T]], line: Line) -> list[T]:
        return await self.inner.gather(jobs, line)

    def pull(self, source: Callable[[], Iterator[T]]) -> AsyncGenerator[T, None]:
        return self.inner.pull(source)

    async def sleep(self, seconds: float, line: Line) -> None:
        await self.inner.sleep(seconds, line)

    def leave(self, job: Job[object]) -> None:
        self.inner.leave(job)

    def now(self) -> float:
        return self.inner.now()

    def random(self) -> float:
        return self.inner.random()

    def close(self) -> None:
        self.inner.close()


class World:
    """What has no colour: the transport has it, and it is made when it is first needed."""

    def __init__(self, transport: Callable[[], Transport]) -> None:
        self._make_transport = transport
        self._transport: Transport | None = None
        self._made: dict[str, Transport] = {}

    async def send(self, request: HttpRequest, line: Line) -> Reply:
        return await self.transport().send(request, line)

    def now(self) -> float:
        return time.monotonic()

    def random(self) -> float:
        return random.random()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def transport(self) -> Transport:
        """What carries its requests; made here if none has gone out yet."""
        return self._transport or self._first_transport()

    def _first_transport(self) -> Transport:
        # Several threads may each make one here; `setdefault` keeps the first, and the others carry nothing.
        fresh = self._make_transport()
        transport = self._transport = self._made.setdefault("kept", fresh)
        if transport is not fresh:
            fresh.close()
        return transport


@final
class Blocking(World):
    """Every method answers before it returns."""

    async def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        try:
            result = function(*args, **kwargs)
            return _guests.wait(result) if inspect.isawaitable(result) else result
        except asyncio.CancelledError:
            raise _cancelled_itself() from None

    async def gather(self, jobs: Sequence[Job[T]], line: Line) -> list[T]:
        done: queue.SimpleQueue[tuple[int, Outcome] | None] = queue.SimpleQueue()

        def work(index: int, job: Job[T]) -> None:
            _line_of_this_job.set(line)
            done.put((index, Outcome.of(lambda: run(job))))

        def cut() -> None:
            done.put(None)

        outcomes: dict[int, Outcome] = {}
        line.hold(cut)
        try:
            for index, job in enumerate(jobs):
                spawn(functools.partial(work, index, job))
            while len(outcomes) < len(jobs):
                if (arrived := done.get()) is None:
                    raise line.cut_error()
                outcomes[arrived[0]] = arrived[1]
        finally:
            line.release(cut)
        return [outcomes[index].result() for index in range(len(jobs))]

    async def pull(self, source: Callable[[], Iterator[T]]) -> AsyncGenerator[T, None]:
        items = lazily(source)
        try:
            for item in items:
                yield item
        finally:
            items.close()

    async def sleep(self, seconds: float, line: Line) -> None:
        woken: queue.SimpleQueue[None] = queue.SimpleQueue()

        def cut() -> None:
            woken.put(None)

        line.hold(cut)
        try:
            woken.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return
        finally:
            line.release(cut)
        raise line.cut_error()

    def leave(self, job: Job[object]) -> None:
        spawn(lambda: run(lambda: quietly(job)))


@final
class Eventful(World):
    """Every method works on the event loop of its caller."""

    async def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        try:
            result = function(*args, **kwargs) if is_async(function) else await self._on_thread(function, args, kwargs)
            return await marked(result) if inspect.isawaitable(result) else result
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise _cancelled_itself() from None

    async def gather(self, jobs: Sequence[Job[T]], line: Line) -> list[T]:
        loop = asyncio.get_running_loop()
        was_cut: asyncio.Future[None] = loop.create_future()

        def cut() -> None:
            call_soon(loop, lambda: fulfil(was_cut, None))

        tasks = [loop.create_task(job()) for job in jobs]
        for task in tasks:
            task.add_done_callback(_forget)  # What it raises is told below, or is nobody's any more.
        line.hold(cut)
        try:
            left: set[asyncio.Future[Any]] = set(tasks)
            while left and not was_cut.done():
                _, left = await asyncio.wait({*left, was_cut}, return_when=asyncio.FIRST_COMPLETED)
                left.discard(was_cut)
            if left:
                raise line.cut_error()
        finally:
            line.release(cut)
            # One that is deaf to its cancellation is left behind.
            if unfinished := [task for task in tasks if not task.done()]:
                for task in unfinished:
                    task.cancel()
                await asyncio.sleep(0)
        for failed in tasks:
            if failed.cancelled():
                raise _cancelled_itself()
            if (error := failed.exception()) is not None:
                raise error
        return [task.result() for task in tasks]

    async def pull(self, source: Callable[[], Iterator[T]]) -> AsyncGenerator[T, None]:
        # The pump may run ahead without bound: what an engine can produce is bounded by its model's context.
        loop = asyncio.get_running_loop()
        ready: deque[Outcome] = deque()
        wake = asyncio.Event()
        stopped = False

        def put(outcome: Outcome) -> None:
            ready.append(outcome)
            call_soon(loop, wake.set)

        def pump() -> None:
            items = lazily(source)
            while not stopped:
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
                wake.clear()
                if not ready:
                    await wake.wait()
        finally:
            stopped = True

    async def sleep(self, seconds: float, line: Line) -> None:
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()

        def cut() -> None:
            call_soon(loop, woken.set)

        line.hold(cut)
        try:
            if line.aborted:
                raise line.cut_error()
            async with asyncio.timeout(max(0.0, seconds)):
                await woken.wait()
        except TimeoutError:
            return
        finally:
            line.release(cut)
        raise line.cut_error()

    def leave(self, job: Job[object]) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        task = loop.create_task(quietly(job))
        _left.add(task)
        task.add_done_callback(_left.discard)

    async def _on_thread(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        # Never the loop's default executor: nested agents exhaust it, and asyncio.run waits for its threads.
        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[Outcome] = loop.create_future()

        def work() -> None:
            outcome = Outcome.of(lambda: function(*args, **kwargs))
            call_soon(loop, lambda: fulfil(arrived, outcome))

        spawn(work)
        return (await arrived).result()


# A loop holds its tasks by weak references only.
_left: set[asyncio.Task[None]] = set()


async def quietly(job: Job[object]) -> None:
    """Do a job that nobody waits for."""
    try:
        await job()
    except Exception:  # noqa: BLE001 - nobody hears of it
        pass


class Outcome:
    """A result or an error, carried from one thread to another."""

    __slots__ = ("error", "value")

    def __init__(self, value: Any, error: BaseException | None) -> None:
        self.value = value
        self.error = error

    @classmethod
    def of(cls, function: Callable[[], Any]) -> Outcome:
        try:
            return cls(function(), None)
        except BaseException as error:  # noqa: BLE001 - it is raised again where the outcome is wanted
            return cls(None, error)

    def result(self) -> Any:
        """The result, once: an error is let go of as it is raised, or its traceback would hold it in a cycle."""
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error
        return self.value


# The line of the gather that this thread works for: what a job waits for ends with it.
_line_of_this_job = contextvars.ContextVar[Line | None]("sabir_line", default=None)
# True while a user's coroutine runs on the caller's loop: a blocking call made there would stall that loop.
_in_awaitable_code = contextvars.ContextVar("sabir_in_awaitable_code", default=False)


def run(start: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Finish a coroutine that awaits nothing but a `Blocking` runtime, and return its result."""
    hooks = sys.get_asyncgen_hooks()
    if hooks.firstiter is None and hooks.finalizer is None:
        return _finish(start())
    if _in_awaitable_code.get():
        _warn_of_stalled_loop()
    sys.set_asyncgen_hooks(None, None)
    try:
        return _finish(start())
    finally:
        sys.set_asyncgen_hooks(*hooks)


def _finish(coroutine: Coroutine[Any, Any, T]) -> T:
    try:
        coroutine.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    coroutine.close()
    raise RuntimeError(f"{coroutine!r} awaited something other than its runtime, so it cannot run blocking")


@functools.cache
def _warn_of_stalled_loop() -> None:
    warnings.warn(
        "a blocking call of sabir inside an awaitable tool stalls its event loop; use sabir.aio there",
        SabirWarning,
        stacklevel=4,
    )


class _HasBody(Protocol):
    @property
    def _body(self) -> Any: ...


def blocking(method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[Any, P], T]:
    """The blocking twin of a coroutine method, for a class that keeps the object with that method as `_body`."""

    @functools.wraps(method)
    def twin(self: _HasBody, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return run(lambda: method(self._body, *args, **kwargs))

    return twin


def awaitable(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """The same method, for a class that keeps the object with it as `_body`."""

    @functools.wraps(method)
    def twin(self: _HasBody, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        return method(self._body, *args, **kwargs)

    return twin


class _Guests:
    """Event loops on daemon threads, for coroutines that a user hands to the blocking surface.

    They share one loop, so that what they open on it stays usable. A blocking call that such a coroutine makes blocks
    that loop; coroutines below it get the next one, one for each depth.
    """

    def __init__(self) -> None:
        self._loops: dict[int, asyncio.AbstractEventLoop] = {}
        self._depth = contextvars.ContextVar("sabir_guest_depth", default=0)

    def wait(self, awaitable: Awaitable[T]) -> T:
        """Run `awaitable` on a guest loop and return its result; cancel it if this thread is interrupted."""
        depth = self._depth.get()
        context = contextvars.copy_context()
        context.run(self._depth.set, depth + 1)
        done: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        tasks: list[asyncio.Task[T]] = []

        async def body() -> T:
            return await awaitable

        def finish(task: asyncio.Task[T]) -> None:
            # Not by asking `task.result` through `Outcome.of`: the error's traceback would hold the task that holds it.
            if task.cancelled():
                done.put(Outcome(None, asyncio.CancelledError()))
            else:
                error = task.exception()
                done.put(Outcome(None if error else task.result(), error))

        def start() -> None:
            # A coroutine is the task itself: one that is cancelled before its first step has then begun all the same.
            coroutine = awaitable if inspect.iscoroutine(awaitable) else body()
            task: asyncio.Task[T] = loop.create_task(coroutine, context=context)
            tasks.append(task)
            task.add_done_callback(finish)

        def cancel() -> None:
            call_soon(loop, lambda: [task.cancel() for task in tasks])

        loop = self._loop(depth)
        line = _line_of_this_job.get()
        loop.call_soon_threadsafe(start)
        if line is not None:
            line.hold(cancel)
        try:
            return cast("T", done.get().result())
        except BaseException:
            cancel()
            raise
        finally:
            tasks.clear()  # A task keeps its error, and the error's traceback this frame.
            if line is not None:
                line.release(cancel)

    def forget(self) -> None:
        """After a fork: the threads of these loops did not come along."""
        self._loops = {}

    def _loop(self, depth: int) -> asyncio.AbstractEventLoop:
        # Two threads may both make one here; `setdefault` keeps the first, and only that one is started.
        if (loop := self._loops.get(depth)) is None:
            fresh = asyncio.new_event_loop()
            if (loop := self._loops.setdefault(depth, fresh)) is fresh:
                threading.Thread(target=loop.run_forever, name=f"sabir-guest-{depth}", daemon=True).start()
            else:
                fresh.close()
        return loop


_guests = _Guests()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_guests.forget)


async def marked(awaitable: Awaitable[T]) -> T:
    """Await a user's code, marked as that."""
    token = _in_awaitable_code.set(True)
    try:
        return await awaitable
    finally:
        _in_awaitable_code.reset(token)


def _cancelled_itself() -> RuntimeError:
    return RuntimeError("the function cancelled itself")


def fulfil(future: asyncio.Future[T], result: T) -> None:
    """Give a future its result, unless it is over. To ask it first is not enough: Ctrl-C may cancel its task then."""
    try:
        future.set_result(result)
    except asyncio.InvalidStateError:
        pass


def _forget(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()


class _Spawner:
    """Runs work on daemon threads, which are kept for the next work for a while.

    `Thread.start` takes locks of Python's, and signals come to the main thread: an interrupt there would leave a thread
    that is neither started nor forgotten. So a thread of its own starts the others, and work goes from thread to thread
    by `SimpleQueue` and `deque`, whose operations are single C calls.
    """

    def __init__(self) -> None:
        self._wanted: _Inbox | None = None
        self._idle: deque[_Inbox] = deque()

    def __call__(self, work: Callable[[], None]) -> None:
        """Run `work` on a daemon thread in a copy of this context; it is never joined."""
        work = functools.partial(contextvars.copy_context().run, work)
        try:
            # In one C call: an interrupt between taking a thread and giving it work would leave it waiting for ever.
            next(map(operator.methodcaller("put", work), iter(self._idle.pop, None)))
            return
        except IndexError:
            pass
        wanted = self._wanted
        if wanted is None:
            wanted = _Inbox()
            threading.Thread(target=self._start_all, args=(wanted,), name="sabir-spawner", daemon=True).start()
            self._wanted = wanted
        wanted.put(work)

    def forget(self) -> None:
        """After a fork: the threads did not come along."""
        self._wanted = None
        self._idle = deque()

    def _start_all(self, wanted: _Inbox) -> None:
        while True:
            work = wanted.get()
            # In an inbox, since a thread holds its arguments for as long as it lives.
            inbox = _Inbox()
            inbox.put(work)
            try:
                threading.Thread(target=self._work, args=(inbox,), name="sabir-worker", daemon=True).start()
            except RuntimeError:
                # The system has no thread left: better one after the other than not at all.
                work()
            del work, inbox

    def _work(self, inbox: _Inbox) -> None:
        idle, work = self._idle, inbox.get()
        while True:
            work()
            del work
            idle.append(inbox)
            try:
                work = inbox.get(timeout=IDLE_THREAD_SECONDS)
            except queue.Empty:
                try:
                    idle.remove(inbox)
                    return
                except ValueError:
                    work = inbox.get()  # Somebody has just taken it, and is about to put work in.


spawn = _Spawner()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=spawn.forget)


def call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], Any]) -> None:
    """Wake a loop from any thread; one that has been closed has nobody left to wake."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        pass


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling this gives a coroutine at once, and so needs no thread."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def lazily(source: Callable[[], Iterator[T]]) -> Generator[T, None, None]:
    """The items of a source that is begun with the first of them, as something that can be closed."""
    yield from source()
