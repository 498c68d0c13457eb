"""A turn may be cut between any two steps; what stays is a history that can be sent, and nothing else.

Cut by Ctrl-C (a signal whose handler raises KeyboardInterrupt) and by the cancellation of a task: at random moments
over an engine and over HTTP, and at every line of the library in turn. SABIR_SEED repeats the moments of a failure.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from chats import DIALECT, Speaker
from servers import Server, client_context, until

import sabir
from sabir import Message, ToolCall, ToolResult, aio, assistant, runtime, user
from sabir.requests import Request
from sabir.runtime import Blocking, Line, run
from sabir.testing import Scripted

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer") or sys.platform != "linux", reason="signals and /proc")

# How many cuts each surface bears over HTTP.
CUTS = 1500
IDLE_THREAD_SECONDS = 0.05
LIBRARY = str(Path(sabir.__file__).parent)
WORDS = "one two three four five"
BEFORE = (user("Hello"), assistant("Hi."))


def double(number: int) -> int:
    return 2 * number


async def double_later(number: int) -> int:
    await asyncio.sleep(0.0005)
    return 2 * number


TOOLS = [double, double_later]


class Obliging:
    """An engine that wants a round of tools and then speaks; it has no script, so that any turn may be cut."""

    name = "obliging"

    def __init__(self) -> None:
        self.wrong: list[Any] = []

    def deltas(self, request: Request, line: Line) -> Any:
        if unpaired(request.messages):
            self.wrong.append(request.messages)
        both = Message("assistant", tuple(ToolCall(name=tool.__name__, input='{"number": 2}') for tool in TOOLS))
        return Scripted(WORDS if request.messages[-1].role == "tool" else both).deltas(request, line)

    def close(self) -> None:
        pass


class ObligingServer(Server):
    """The same over HTTP, where every history that comes must be one that the format allows."""

    def __init__(self, *, secure: bool = False) -> None:
        self.wrong: list[Any] = []
        self._speaker = Speaker(self._said)
        self.refused = self._speaker.refused
        super().__init__(self._speaker, secure=secure)

    def client(self, surface: Any) -> Any:
        context = client_context() if self.url.startswith("https") else None
        return surface.Client(f"vllm:x@{self.url}/v1", tools=TOOLS, ssl_context=context, timeout=60)

    def _said(self, request: Request) -> Any:
        if unpaired(request.messages):
            self.wrong.append(request.messages)
        if request.messages[-1].role == "tool":
            return WORDS
        turn = len(request.messages)
        return tuple(ToolCall(tool.__name__, '{"number": 2}', f"{tool.__name__}{turn}") for tool in TOOLS)


def unpaired(messages: tuple[Message, ...]) -> bool:
    """Whether a call is not answered by the very next message, or an answer has no call."""
    for message, after in zip(messages, (*messages[1:], None), strict=True):
        made = [call.id for call in message.tool_calls]
        parts = after.parts if after is not None and after.role == "tool" else ()
        if made != [part.call_id for part in parts if isinstance(part, ToolResult)]:
            return True
    return False


def left_by(chat: Any) -> str:
    """What a turn left in the history: nothing, rounds, or all of it."""
    assert chat.messages[: len(BEFORE)] == BEFORE
    assert not unpaired(chat.messages)
    http, notices = DIALECT.encode_request(Request(model="x", messages=chat.messages))
    assert not notices
    assert len(DIALECT.decode_request(http.body).messages) >= len(chat.messages)
    added = chat.messages[len(BEFORE) :]
    if not added:
        return "nothing"
    roles = [message.role for message in added]
    if roles == ["user", "assistant", "tool"]:
        return "a round"
    assert roles == ["user", "assistant", "tool", "assistant"]
    assert added[-1].text == WORDS
    return "all"


def ask(chat: Any) -> None:
    chat("?")


def read(chat: Any) -> None:
    for _ in chat.stream("?"):
        pass


def read_with(chat: Any) -> None:
    with chat.stream("?") as stream:
        for _ in stream:
            pass


async def ask_later(chat: Any) -> None:
    await chat("?")


async def read_later(chat: Any) -> None:
    async for _ in chat.stream("?"):
        pass


async def read_with_later(chat: Any) -> None:
    async with chat.stream("?") as stream:
        async for _ in stream:
            pass


@contextmanager
def interrupts_in_destructors_ignored() -> Iterator[None]:
    """Nothing is reported but what Python does by itself where an interrupt strikes between two steps.

    It swallows what is raised in a `__del__`; it closes a socket that nobody owns yet; it warns of a coroutine that was
    kept from starting, and a coroutine of the user's is not to be among those.
    """
    heard: list[Any] = []
    before, sys.unraisablehook = sys.unraisablehook, lambda told: heard.append((told.exc_type, str(told.object)))
    try:
        yield
    finally:
        sys.unraisablehook = before
    own = (KeyboardInterrupt, ResourceWarning, RuntimeWarning)
    assert [told for told in heard if told[0] not in own or double_later.__name__ in told[1]] == []


def strike(*_: Any) -> None:
    raise KeyboardInterrupt


def press(*_: Any) -> None:
    """Ctrl-C as the terminal has it: while `asyncio.run` runs, it cancels the main task wherever that is."""
    signal.raise_signal(signal.SIGINT)


@contextmanager
def alarms(handler: Callable[..., None] = strike) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, handler), signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before[0])
        signal.signal(signal.SIGINT, before[1])


def is_interrupted(turn: Callable[[Any], None], chat: Any, after: float) -> bool:
    """Take a turn and have it interrupted after some time, unless it is faster."""
    try:
        signal.setitimer(signal.ITIMER_REAL, after)
        turn(chat)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        return True
    return False


def time_of(turn: Callable[[Any], None], chat: Callable[[], Any]) -> float:
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        turn(chat())
        taken.append(time.perf_counter() - began)
    return median(taken)


def goes_on(chat: Any) -> None:
    """The next call works, and is answered."""
    before = len(chat.messages)
    assert chat("And now?").text == WORDS
    assert len(chat.messages) == before + 4
    assert not unpaired(chat.messages)


async def goes_on_later(chat: Any) -> None:
    before = len(chat.messages)
    assert (await chat("And now?")).text == WORDS
    assert len(chat.messages) == before + 4
    assert not unpaired(chat.messages)


def interrupt_often(make: Callable[[], Any], cuts: int, check: Callable[[], object] = bool) -> Counter[str]:
    """What was left by each of many interrupted turns, of which every chat can go on.

    About every second turn has a new client, so that connecting is cut too.
    """
    left: Counter[str] = Counter()
    client = make()
    with alarms(), interrupts_in_destructors_ignored():
        for turn in (ask, read, read_with):
            with make() as fresh:
                typical = time_of(turn, lambda fresh=fresh: fresh.chat(messages=BEFORE))
            for _ in until_counted(cuts // 3, left):
                if random.random() < 0.5:
                    client.close()
                    client = make()
                chat = client.chat(messages=BEFORE)
                if is_interrupted(turn, chat, random.uniform(1e-5, 1.1 * typical)):
                    left[left_by(chat)] += 1
                    goes_on(chat)
                    check()
    client.close()
    return left


def until_counted(cuts: int, left: Counter[str]) -> Iterator[None]:
    """Again until there are so many more; a turn may be over before it is cut, but not for ever."""
    wanted = left.total() + cuts
    for _ in range(20 * cuts):
        if left.total() == wanted:
            return
        yield
    pytest.fail(f"only {left.total()} turns were cut")


@pytest.fixture(autouse=True)
def seed() -> int:
    """The same numbers by chance again, if they are asked for; a test that fails shows which they were."""
    chosen = int(os.environ.get("SABIR_SEED") or random.randrange(2**32))
    print(f"SABIR_SEED={chosen}")  # noqa: T201
    random.seed(chosen)
    return chosen


@pytest.fixture(autouse=True)
def warmed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads that live as long as the process are there; others do not wait for more work here."""
    monkeypatch.setattr(runtime, "IDLE_THREAD_SECONDS", IDLE_THREAD_SECONDS)
    with sabir.Client(Obliging(), tools=TOOLS) as client:
        goes_on(client.chat(messages=BEFORE))


def is_left_to(most: int, server: Server) -> bool:
    """Whether no more connections than that are open, or soon; Python's collector may have to close one."""
    return until(lambda: len(server.peers) <= most, 0.2) or until(
        lambda: gc.collect() >= 0 and len(server.peers) <= most, 5
    )


def settle(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def is_free(chat: Any) -> bool:
    try:
        chat.append()
    except sabir.ConfigurationError:
        return False
    return True


def running() -> int:
    """How many threads there are, by whatever means they were started."""
    return len(list(Path("/proc/self/task").iterdir()))


def open_files() -> dict[str, str]:
    """What this process has open."""
    found: dict[str, str] = {}
    for path in Path("/proc/self/fd").iterdir():
        try:
            found[path.name] = str(path.readlink())
        except FileNotFoundError:
            pass  # the folder itself, which has been read
    return found


def opened_since(before: dict[str, str]) -> list[str]:
    return sorted(what for number, what in open_files().items() if before.get(number) != what)


class Tracer:
    """Calls `strike` when this thread comes to the n-th line of the library."""

    def __init__(self, strike_at: int, strike: Callable[[], None] = strike) -> None:
        self.left = strike_at
        self.where = ""
        self._strike = strike

    def enter(self, frame: Any, event: str, _: Any) -> Any:
        return self.line if frame.f_code.co_filename.startswith(LIBRARY) else None

    def line(self, frame: Any, event: str, _: Any) -> Any:
        if event == "line":
            self.left -= 1
            if self.left == 0:
                self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_qualname}"
                self._strike()
        return self.line

    @contextmanager
    def tracing(self) -> Iterator[None]:
        sys.settrace(self.enter)
        try:
            yield
        finally:
            sys.settrace(None)


# Ctrl-C at random moments


def test_interrupts_of_turns_on_an_engine():
    engine = Obliging()
    before = running()
    left = interrupt_often(lambda: sabir.Client(engine, tools=TOOLS), 150)
    assert engine.wrong == []
    assert left["nothing"] > 0
    assert settle(lambda: running() <= before), running() - before


@pytest.mark.parametrize(("secure", "cuts"), [(False, CUTS), (True, CUTS // 10)], ids=["http", "https"])
def test_interrupts_of_turns_over_http(secure, cuts):
    def check() -> None:
        assert is_left_to(1, server), len(server.peers)

    with ObligingServer(secure=secure) as server:
        with server.client(sabir) as client:
            goes_on(client.chat(messages=BEFORE))
        threads, files = running(), open_files()
        left = interrupt_often(lambda: server.client(sabir), cuts, check)
        assert (server.wrong, server.refused) == ([], [])
        assert left["nothing"] > 0
        assert left["a round"] > 0
        assert is_left_to(0, server), len(server.peers)
        assert settle(lambda: opened_since(files) == []), opened_since(files)
        assert settle(lambda: running() <= threads), running() - threads


def test_interrupts_while_threads_start_leave_no_thread_behind():
    """A thread waits for its starter and the starter for it, on locks that an interrupt must not leave held."""

    def no_transport() -> Any:
        raise AssertionError("nothing is sent here")

    async def job() -> None:
        pass

    async def gather() -> None:
        await blocking.gather([job], Line())

    blocking, struck, before = Blocking(no_transport), 0, running()
    with alarms(), interrupts_in_destructors_ignored():
        until = time.monotonic() + 2
        while time.monotonic() < until:
            struck += is_interrupted(lambda _: run(gather), None, random.uniform(2e-5, 1.2e-4))
    assert struck > 100
    assert settle(lambda: running() <= before), running() - before


def test_a_second_interrupt_may_follow_the_first():
    """As an impatient person does: the second strikes while the first is being dealt with."""
    engine = Obliging()
    strikes: list[float] = []

    def strike_again(_: int, frame: Any) -> None:
        while frame is not None and frame.f_code is not ask.__code__:
            frame = frame.f_back
        if frame is None:
            return  # It comes too late.
        if strikes:
            signal.setitimer(signal.ITIMER_REAL, strikes.pop())
        raise KeyboardInterrupt

    with sabir.Client(engine, tools=TOOLS) as client, alarms(), interrupts_in_destructors_ignored():
        typical = time_of(ask, lambda: client.chat(messages=BEFORE))
        signal.signal(signal.SIGALRM, strike_again)
        for _ in range(60):
            chat = client.chat(messages=BEFORE)
            strikes[:] = [random.uniform(5e-6, 2e-4)]
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, typical))
                ask(chat)
            except KeyboardInterrupt:
                pass
            signal.setitimer(signal.ITIMER_REAL, 0)
            left_by(chat)
            # Where the second cut short how the first was dealt with, the turn goes with the tools that it left behind.
            assert settle(lambda chat=chat: is_free(chat))
            goes_on(chat)
    assert engine.wrong == []


class ParserTracer(Tracer):
    """The same at a line that the parser of HTTP, which is not written in Python, has called."""

    def enter(self, frame: Any, event: str, _: Any) -> Any:
        return super().enter(frame, event, _) if frame.f_code.co_name.startswith("on_") else None


def plainly(call: Callable[[], None]) -> None:
    call()


def while_an_error_is_handled(call: Callable[[], None]) -> None:
    try:
        raise ValueError
    except ValueError:
        call()


@pytest.mark.parametrize("strike_at", range(1, 9))
@pytest.mark.parametrize("how", [plainly, while_an_error_is_handled])
def test_an_interrupt_in_what_the_parser_calls_is_one(how, strike_at):
    """A parser in C turns what the methods raise that it calls into an error of its own."""

    def ask_traced() -> None:
        with tracer.tracing():
            client.ask("?")

    tracer = ParserTracer(strike_at)
    with Server(Speaker()) as server, sabir.Client(f"vllm:x@{server.url}/v1") as client:
        client.ask("?")
        with pytest.raises(KeyboardInterrupt):
            how(ask_traced)
        assert "on_" in tracer.where
        assert client.ask("And now?").text == "And now?"
        assert is_left_to(1, server)


# Cancellation at random moments


async def times_of_later(turn: Any, client: Any) -> float:
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        await turn(client.chat(messages=BEFORE))
        taken.append(time.perf_counter() - began)
    return median(taken)


async def cancel_often(turn: Any, client: Any, cuts: int, check: Callable[[], bool] = lambda: True) -> Counter[str]:
    """What was left by many turns whose tasks were cancelled; all on this loop."""
    left: Counter[str] = Counter()
    typical = await times_of_later(turn, client)
    for _ in until_counted(cuts, left):
        chat = client.chat(messages=BEFORE)
        task = asyncio.create_task(turn(chat))
        asyncio.get_running_loop().call_later(random.uniform(0, 1.1 * typical), task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            left[left_by(chat)] += 1
            await goes_on_later(chat)
            assert await asyncio.to_thread(until, check, 5)
    assert len(asyncio.all_tasks()) == 1
    return left


def press_often(turn: Any, client: Any, cuts: int, check: Callable[[], object] = bool) -> Counter[str]:
    """What was left by many turns at which Ctrl-C was pressed; each has a loop of its own, and goes on in another."""
    left: Counter[str] = Counter()

    async def main(chat: Any, is_warm: bool) -> None:
        if is_warm:
            await goes_on_later(client.chat(messages=BEFORE))
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 1.1 * typical))
        try:
            await turn(chat)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    typical = asyncio.run(times_of_later(turn, client))
    with alarms(press):
        for _ in until_counted(cuts, left):
            chat = client.chat(messages=BEFORE)
            try:
                asyncio.run(main(chat, random.random() < 0.5))
            except KeyboardInterrupt:
                left[left_by(chat)] += 1
                asyncio.run(goes_on_later(chat))
                check()
    return left


def test_cancellations_of_turns_on_an_engine():
    engine = Obliging()
    client = aio.Client(engine, tools=TOOLS)
    before = running()
    left: Counter[str] = Counter()
    with interrupts_in_destructors_ignored():
        for turn in (ask_later, read_later, read_with_later):
            left += asyncio.run(cancel_often(turn, client, 50))
            left += press_often(turn, client, 50)
    client.close()
    assert engine.wrong == []
    assert left["nothing"] > 0
    assert settle(lambda: running() <= before), running() - before


@pytest.mark.parametrize(("secure", "cuts"), [(False, CUTS), (True, CUTS // 10)], ids=["http", "https"])
def test_cancellations_of_turns_over_http(secure, cuts):
    def check() -> None:
        assert is_left_to(0, server), len(server.peers)  # the loop has ended

    with ObligingServer(secure=secure) as server:
        client = server.client(aio)
        asyncio.run(goes_on_later(client.chat(messages=BEFORE)))
        threads, files = running(), open_files()
        left: Counter[str] = Counter()
        with interrupts_in_destructors_ignored():
            for turn in (ask_later, read_later, read_with_later):
                presses = cuts // 9
                left += asyncio.run(cancel_often(turn, client, cuts // 3 - presses, lambda: len(server.peers) <= 1))
                left += press_often(turn, client, presses, check)
        assert (server.wrong, server.refused) == ([], [])
        assert left["nothing"] > 0
        assert left["a round"] > 0
        check()
        assert settle(lambda: opened_since(files) == []), opened_since(files)
        client.close()
        assert settle(lambda: running() <= threads), running() - threads


def test_timeouts_of_turns_over_http_leave_one_connection_at_most():
    """`asyncio.timeout` around a call, and streams that are left without being closed."""

    async def main() -> None:
        async with server.client(aio) as client:
            for number in range(40):
                chat = client.chat(messages=BEFORE)
                try:
                    async with asyncio.timeout(0.0005 * number):
                        await chat("?")
                except TimeoutError:
                    pass
                left_by(chat)
                stream = chat.stream("?")
                for _ in range(number % 5):
                    await anext(stream)
                del stream
                left_by_two = chat.messages
                assert not unpaired(left_by_two)
            await goes_on_later(client.chat(messages=BEFORE))
            assert await asyncio.to_thread(is_left_to, 1, server), len(server.peers)

    with ObligingServer() as server:
        asyncio.run(main())
        assert (server.wrong, server.refused) == ([], [])
        assert is_left_to(0, server)


# At every line


def cut_at_lines(
    turn: Callable[[Any], None], client: Any, step: int, check: Callable[[], object] = bool
) -> tuple[Counter[str], list[str]]:
    """What a turn left that was cut at about every `step`-th line, others each time, and where it did harm.

    A step of 1 is every line, and takes a minute.
    """
    left: Counter[str] = Counter()
    faults: list[str] = []
    struck_at = 0
    while True:
        struck_at += random.randint(1, 2 * step - 1)
        chat, tracer = client.chat(messages=BEFORE), Tracer(struck_at)
        try:
            with tracer.tracing():
                turn(chat)
        except KeyboardInterrupt:
            pass
        except BaseException as error:  # noqa: BLE001 - it is told
            faults.append(f"{tracer.where}: {error!r}")
        if not tracer.where:
            return left, faults
        try:
            left[left_by(chat)] += 1
            goes_on(chat)
            check()
        except (AssertionError, sabir.SabirError) as error:
            faults.append(f"{tracer.where}: {error!r}")


def cut_at_lines_later(
    turn: Any, client: Any, step: int, check: Callable[[], object]
) -> tuple[Counter[str], list[str]]:
    """The same on event loops, where Ctrl-C cancels, or raises at once where somebody has set it so."""
    left: Counter[str] = Counter()
    faults: list[str] = []
    struck_at = 0

    async def main(chat: Any, tracer: Tracer) -> None:
        with tracer.tracing():
            await turn(chat)

    while True:
        struck_at += random.randint(1, 2 * step - 1)
        chat, tracer = client.chat(messages=BEFORE), Tracer(struck_at, random.choice([strike, press]))
        try:
            asyncio.run(main(chat, tracer))
        except KeyboardInterrupt:
            pass
        except BaseException as error:  # noqa: BLE001 - it is told
            faults.append(f"{tracer.where}: {error!r}")
        finally:
            sys.settrace(None)
        if not tracer.where:
            return left, faults
        # The task of a loop keeps the error that it raised, and the error's traceback a turn that had not begun.
        if not is_free(chat):
            gc.collect()
        try:
            left[left_by(chat)] += 1
            asyncio.run(goes_on_later(chat))
            check()
        except (AssertionError, sabir.SabirError) as error:
            faults.append(f"{tracer.where}: {error!r}")


def cut_on_an_engine(name: str) -> dict[str, Any]:
    engine = Obliging()
    with sabir.Client(engine, tools=TOOLS) as client:
        goes_on(client.chat(messages=BEFORE))
        before = running()
        left, faults = cut_at_lines(globals()[name], client, 5)
    assert settle(lambda: running() <= before), running() - before
    return {"left": left, "faults": faults, "wrong": engine.wrong}


def cut_over_http(name: str) -> dict[str, Any]:
    def check() -> None:
        assert is_left_to(1, server), "a connection is left"

    with ObligingServer() as server:
        with server.client(sabir) as client:
            goes_on(client.chat(messages=BEFORE))
            left, faults = cut_at_lines(globals()[name], client, 20, check)
        assert is_left_to(0, server), len(server.peers)
    return {"left": left, "faults": faults, "wrong": [server.wrong, server.refused]}


def cut_over_http_later(name: str) -> dict[str, Any]:
    def check() -> None:
        assert is_left_to(0, server), "a connection is left"

    with ObligingServer() as server:
        client = server.client(aio)
        asyncio.run(goes_on_later(client.chat(messages=BEFORE)))
        left, faults = cut_at_lines_later(globals()[name], client, 20, check)
        client.close()
    return {"left": left, "faults": faults, "wrong": [server.wrong, server.refused]}


def told_by(function: str, name: str, seed: int) -> dict[str, Any]:
    """What a function of this file returns in a process of its own: an interpreter that is traced so is soon bent."""
    program = (
        "import json, random, signal, sys, test_interrupts as t\n"
        f"random.seed({seed})\n"
        "t.runtime.IDLE_THREAD_SECONDS = t.IDLE_THREAD_SECONDS\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"print(json.dumps(t.{function}({name!r})))"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            *("-W", "ignore:coroutine:RuntimeWarning", "-W", "ignore::ResourceWarning"),
            "-c",
            program,
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(LIBRARY).parent)])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Python itself swallows what is raised in a `__del__`, and reports it.
    reports = [line for line in done.stderr.splitlines() if line.startswith("Exception ignored in")]
    assert [line for line in reports if not any(word in line for word in ("__del__", "finalizer"))] == []
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.parametrize(
    ("function", "name"),
    [
        *(
            (function, name)
            for function in ("cut_on_an_engine", "cut_over_http")
            for name in ("ask", "read", "read_with")
        ),
        *(("cut_over_http_later", name) for name in ("ask_later", "read_later", "read_with_later")),
    ],
)
def test_a_turn_can_be_cut_at_every_line(function, name, seed):
    told = told_by(function, name, seed)
    assert told["faults"] == []
    assert told["wrong"] in ([], [[], []])
    assert sum(told["left"].values()) > 80
    assert told["left"]["nothing"] > 0
    assert told["left"]["a round"] > 0


@pytest.mark.parametrize("turn", [ask_later, read_later, read_with_later])
def test_a_turn_can_be_cancelled_at_every_step_of_its_loop(turn):
    engine = Obliging()

    async def main() -> Counter[str]:
        left: Counter[str] = Counter()
        async with aio.Client(engine, tools=TOOLS) as client:
            for steps in range(60):
                chat = client.chat(messages=BEFORE)
                task = asyncio.create_task(turn(chat))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    await task
                except asyncio.CancelledError:
                    pass
                left[left_by(chat)] += 1
                await goes_on_later(chat)
        return left

    left = asyncio.run(main())
    assert left["nothing"] > 0
    assert engine.wrong == []
