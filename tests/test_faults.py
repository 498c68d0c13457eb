"""What goes wrong on a network, on purpose: the same errors as of the real thing, and never a part as the whole."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
from servers import Server, chunked, free_port, until, whole

from sabir import (
    ClosedError,
    ConnectError,
    DeadlineExceeded,
    RateLimitError,
    SabirError,
    ServerError,
    StreamInterrupted,
    StreamProtocolError,
)
from sabir.testing import Faults, VirtualClock, faults
from sabir.testing.faults import Cut, Garble, Refuse, Reset, Slow, Stall, Status

FIXTURES = Path(__file__).parent / "fixtures"
PROVIDERS = {"openai_chat": "openai-chat", "anthropic": "anthropic"}


class Speaking:
    """A server that says one thing in one format, and clients that meet faults on their way to it."""

    def __init__(self, dialect, surface):
        self.provider = PROVIDERS[dialect]
        self.json = (FIXTURES / dialect / "text.json").read_bytes()
        self.events = (FIXTURES / dialect / "text.sse").read_bytes()
        self.surface = surface
        self.server = Server(self.answer)

    async def answer(self, call):
        if b'"stream":true' in call.body:
            await chunked(*self.events.splitlines(keepends=True))(call)
        else:
            await whole(self.json, "Content-Type: application/json")(call)

    def client(self, *wrappers, **settings):
        model = f"{self.provider}:x@{self.server.url}"
        limits = {"max_attempts": 1, "idle_timeout": 5, **settings}
        return self.surface.client(model, api_key="key-of-this-test", runtime_wrappers=wrappers, **limits)

    async def ask(self, client, how):
        if how == "ask":
            return (await client.ask("?", max_tokens=50)).text
        stream = client.stream("?", max_tokens=50, include=["generating"])
        return "".join([chunk.content async for chunk in stream])


@pytest.fixture(params=sorted(PROVIDERS))
def speaking(request, surface):
    made = Speaking(request.param, surface)
    with made.server:
        yield made


@pytest.mark.parametrize("how", ["ask", "stream"])
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Refuse(), ConnectError),
        (Reset(), ConnectError),
        (Reset(after=10), StreamInterrupted),
        (Cut(after=10), SabirError),
        (Stall(), DeadlineExceeded),
        (Stall(after=10), DeadlineExceeded),
        (Garble(after=0), (StreamProtocolError, ServerError)),
        (Garble(after=30), (StreamProtocolError, ServerError)),
        (Slow(6), DeadlineExceeded),
        (Status(429, b"slowly", retry_after=2), RateLimitError),
        (Status(500), ServerError),
        (Status(200), SabirError),
        (Status(200, b"<html>Sign in to this Wi-Fi</html>", {"content-type": "text/html"}), SabirError),
    ],
)
async def test_each_fault_is_an_error_of_the_family(surface, speaking, fault, kind, how):
    clock, plan = VirtualClock(), Faults(fault)
    client = speaking.client(clock, plan)
    with plan, pytest.raises(kind) as caught:
        await speaking.ask(client, how)
    assert isinstance(caught.value, SabirError)
    assert plan.struck == [fault]
    assert len(caught.value.attempts) == 1
    if isinstance(fault, Stall | Slow):
        assert clock.now() == 5
        assert "silent for 5 s (idle_timeout)" in str(caught.value)
    # The fault was that of one request.
    assert await speaking.ask(client, how)


@pytest.mark.parametrize("how", ["ask", "stream"])
async def test_a_slow_answer_is_an_answer(surface, speaking, how):
    clock = VirtualClock()
    assert await speaking.ask(speaking.client(clock, Faults(Slow(4))), how)
    assert clock.slept == [4]


@pytest.mark.parametrize("how", ["ask", "stream"])
@pytest.mark.parametrize("kind", [Cut, Reset, Garble])
async def test_wherever_an_answer_breaks_it_is_whole_or_an_error(surface, speaking, kind, how):
    size = len(speaking.json if how == "ask" else speaking.events)
    text = await speaking.ask(speaking.client(), how)
    plan = [kind(after=after) for after in [*range(0, size, 23), size - 2, size - 1]]
    client = speaking.client(Faults(*plan))
    outcomes = []
    for _ in plan:
        try:
            outcomes.append(await speaking.ask(client, how))
        except SabirError:
            outcomes.append("an error")
    assert set(outcomes) <= {"an error", text}
    # What breaks in the last bytes of a stream may break after its end.
    assert outcomes[: len(outcomes) // 2] == ["an error"] * (len(outcomes) // 2)


async def test_a_refused_connection_reads_like_a_real_one(surface):
    address = f"http://127.0.0.1:{free_port()}/v1"
    said = []
    for wrappers in ([], [Faults(Refuse())]):
        client = surface.client(f"vllm:x@{address}", max_attempts=1, runtime_wrappers=wrappers)
        with pytest.raises(ConnectError) as caught:
            await client.ask("?")
        said.append(re.sub(r"\(.*\)", "(…)", str(caught.value)))
    assert said[0] == said[1]
    assert "refused the connection (…); check that a server runs there" in said[0]


async def test_a_stall_ends_when_it_is_cut(surface):
    plan = Faults(Stall())
    settings = {"runtime_wrappers": [plan], "timeout": None, "idle_timeout": None}
    stream = surface.client("vllm:x@http://127.0.0.1:1/v1", **settings).stream("?")

    def close():
        assert until(lambda: bool(plan.struck), 10)
        stream.close()

    closer = threading.Thread(target=close)
    closer.start()
    with pytest.raises(ClosedError):
        await anext(aiter(stream))
    closer.join()


@pytest.mark.parametrize(("fault", "kind"), [(Stall(), ConnectError), (Stall(after=5), StreamInterrupted)])
async def test_a_stall_without_any_limit_ends_as_such_connections_do(surface, speaking, fault, kind):
    clock = VirtualClock()
    with pytest.raises(kind, match="timed out"):
        await speaking.ask(speaking.client(clock, Faults(fault), timeout=None, idle_timeout=None), "ask")
    assert clock.slept == [faults.LONGEST_STALL]


@pytest.mark.parametrize("fault", [Reset(after=10**6), Cut(after=10**6), Stall(after=10**6), Garble(after=10**6)])
async def test_a_body_too_short_for_its_fault_is_whole(surface, speaking, fault):
    plan = Faults(fault)
    assert await speaking.ask(speaking.client(plan), "stream")
    assert plan.struck == []
    with pytest.raises(AssertionError, match=f"did not happen: .*{type(fault).__name__}.after=1000000"), plan:
        pass


async def test_each_request_meets_the_next_fault_of_the_plan(surface, speaking):
    plan = Faults(None, Status(500), None, Refuse())
    client = speaking.client(plan)
    for expected in (None, ServerError, None, ConnectError, None, None):
        if expected is None:
            assert await speaking.ask(client, "ask")
        else:
            with pytest.raises(expected):
                await speaking.ask(client, "ask")
    plan.assert_done()
    with pytest.raises(AssertionError, match="Refuse"):
        Faults(None, Refuse()).assert_done()


async def test_one_plan_is_shared_by_the_clients_it_is_given_to(surface, speaking):
    plan = Faults(Status(500), Refuse())
    first, second = speaking.client(plan), speaking.client(plan)
    with plan:
        with pytest.raises(ServerError):
            await speaking.ask(first, "ask")
        with pytest.raises(ConnectError):
            await speaking.ask(second, "ask")


async def test_chance_is_the_same_for_the_same_seed(surface, speaking):
    async def outcomes(seed):
        client = speaking.client(Faults.by_chance(0.5, Refuse(), Status(500), Reset(after=7), seed=seed))
        seen = []
        for _ in range(20):
            try:
                seen.append(await speaking.ask(client, "ask"))
            except SabirError as error:
                seen.append(type(error).__name__)
        return seen

    first = await outcomes(1)
    assert first == await outcomes(1)
    assert first != await outcomes(2)
    assert {"ConnectError", "ServerError", "StreamInterrupted"} < set(first)


async def test_with_enough_attempts_chance_is_overcome(surface, speaking):
    """Every request may fail in some way that passes; what comes in the end is the answer."""
    clock = VirtualClock()
    plan = Faults.by_chance(0.7, Refuse(), Status(503), Status(429, retry_after=3), Reset(after=0), seed=7)
    client = speaking.client(clock, plan, max_attempts=30, timeout=None)
    text = await speaking.ask(speaking.client(), "ask")
    for _ in range(10):
        assert await speaking.ask(client, "ask") == text
    assert len(plan.struck) > 10
    assert clock.now() > 10


async def test_a_line_that_was_cut_meets_no_fault(surface):
    plan = Faults(Refuse())
    stream = surface.client("vllm:x@http://127.0.0.1:1/v1", runtime_wrappers=[plan]).stream("?")
    stream.close()
    with pytest.raises(ClosedError):
        await anext(aiter(stream))
    assert plan.struck == []
