"""Proofs that end: fetched by one for all, kept, renewed, and never waited for in vain; and a cloud of one's own."""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
import threading
import time
import traceback
from typing import Any

import pytest
import trio
from fakes import ChatServer
from servers import Gate, Server, until, whole

import sabir
from sabir import ConfigurationError, DeadlineExceeded, PermissionDeniedError
from sabir.clouds import Headers, Proof, Renewed, Standard
from sabir.clouds.errands import Errand
from sabir.environment import Environment
from sabir.requests import Secret
from sabir.runtime import Blocking, Line, Runtime, run
from sabir.testing import VirtualClock, recorded_http
from sabir.transports import blocking_transport, locate
from sabir.transports.proxies import proxies_of
from sabir.trio_runtime import Trio

TOKEN = "made-up-token"


class Tokens:
    """A server of tokens: `answers` are taken one after the other, the last again and again."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers) or [3600]
        self.server = Server(self._answer)
        self.asked = 0

    def __enter__(self) -> Tokens:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.__exit__()

    async def _answer(self, call: Any) -> None:
        self.asked += 1
        number = self.asked
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Gate):
            await answer.passed()
            answer = 3600
        if isinstance(answer, str):
            await whole(json.dumps({"error": "denied", "error_description": answer}).encode(), status="403 No")(call)
            return
        await whole(json.dumps({"access_token": f"{TOKEN}-{number}", "expires_in": answer}).encode())(call)


class Hut(Standard[Headers]):
    """A small cloud."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    async def prove(self, runtime: Runtime, line: Line) -> Proof[Headers]:
        errand = Errand(runtime, line, Environment())
        answer = await errand.post_form(f"{self._url}/token", {"grant_type": "hut", "secret": Secret("made-up-secret")})
        found = errand.token("the hut", answer, "knock again")
        return Proof((("authorization", Secret(f"Bearer {found.value!s}")), ("x-hut", Secret("7"))), found.ends)


def keys_sent(server: ChatServer) -> list[str]:
    return [asked.headers["authorization"] for asked in server.asked]


async def test_one_fetches_for_all_that_wait(surface):
    gate = Gate()
    with Tokens(gate) as tokens, ChatServer() as server:
        client = surface.client(f"vllm:x@{server.url}", api_key=Hut(tokens.server.url))

        async def asking() -> str:
            return str(await client.ask("?"))

        async def opening() -> str:
            await surface.in_thread(lambda: until(lambda: tokens.asked, 5))
            gate.open()
            return "Hello there!"

        assert set(await surface.at_once(*[asking] * 25, opening)) == {"Hello there!"}
    assert tokens.asked == 1
    assert keys_sent(server) == [f"Bearer {TOKEN}-1"] * 25
    assert server.asked[0].headers["x-hut"] == "7"


async def test_what_says_for_whom_a_request_is_may_be_said_by_the_caller(surface):
    with Tokens() as tokens, ChatServer() as server:
        client = surface.client(f"vllm:x@{server.url}", api_key=Hut(tokens.server.url))
        await client.ask("?", headers={"X-Hut": "8"})
        assert server.asked[0].headers["x-hut"] == "8"
        assert client.explain("?").headers["authorization"] == "…"


async def test_who_waits_goes_on_where_the_first_was_cut(surface):
    with Tokens(Gate(), 3600) as tokens, ChatServer() as server:
        hut = Hut(tokens.server.url)
        hasty = surface.client(f"vllm:x@{server.url}", api_key=hut, timeout=0.5)
        patient = surface.client(f"vllm:x@{server.url}", api_key=hut)

        async def first() -> str:
            with pytest.raises(DeadlineExceeded):
                await hasty.ask("?")
            return "cut"

        async def second() -> str:
            await surface.in_thread(lambda: until(lambda: tokens.asked, 5))
            return str(await patient.ask("?"))

        assert await surface.at_once(first, second) == ["cut", "Hello there!"]
    assert tokens.asked == 2
    assert keys_sent(server) == [f"Bearer {TOKEN}-2"]


async def test_a_deadline_holds_for_who_waits_for_another(surface):
    gate = Gate()
    with Tokens(gate) as tokens, ChatServer() as server:
        hut = Hut(tokens.server.url)
        patient = surface.client(f"vllm:x@{server.url}", api_key=hut)
        hasty = surface.client(f"vllm:x@{server.url}", api_key=hut, timeout=0.5)

        async def first() -> float:
            await patient.ask("?")
            return 0.0

        async def second() -> float:
            await surface.in_thread(lambda: until(lambda: tokens.asked, 5))
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                await hasty.ask("?")
            gate.open()
            return time.monotonic() - began

        assert max(await surface.at_once(first, second)) < 0.8
    assert tokens.asked == 1


async def test_a_refusal_is_told_to_all_that_wait(surface):
    with Tokens(f"not for {'made-up-secret'}") as tokens, ChatServer() as server:
        client = surface.client(f"vllm:x@{server.url}", api_key=Hut(tokens.server.url))
        caught = []

        async def asking() -> None:
            with pytest.raises(
                PermissionDeniedError, match=r"the hut gave no credentials \(HTTP 403: denied: not for"
            ) as one:
                await client.ask("?")
            caught.append(one.value)

        await surface.at_once(*[asking] * 5)
    assert server.asked == []
    assert len({id(error) for error in caught}) == 5
    assert all("***); knock again" in str(error) and error.provider == "vllm" for error in caught)


# Keeping


def got(standard: Standard[Any], seconds: float | None = None) -> str:
    runtime = Blocking(blocking_transport)
    line = Line(deadline=None if seconds is None else time.monotonic() + seconds)
    try:
        found: Headers = run(lambda: standard.renewed.get(runtime, line))
        return str(found[0][1]).removeprefix("Bearer made-up-token-")
    finally:
        runtime.close()


@pytest.fixture
def clock(monkeypatch):
    """The time of day, which a test may move."""
    moved = [0.0]
    now = time.time
    monkeypatch.setattr("sabir.clouds.time.time", lambda: now() + moved[0])
    return moved


def test_a_proof_is_renewed_before_its_end(clock):
    with Tokens(3600) as tokens:
        hut = Hut(tokens.server.url)
        assert [got(hut), got(hut)] == ["1", "1"]
        clock[0] = 3290
        assert got(hut) == "1"
        clock[0] = 3310
        assert [got(hut), got(hut)] == ["2", "2"]


def test_a_proof_without_an_end_is_kept(clock):
    with Tokens(None) as tokens:
        hut = Hut(tokens.server.url)
        assert got(hut) == "1"
        clock[0] = 1e9
        assert got(hut) == "1"


def test_a_proof_that_lasts_a_moment_is_not_fetched_all_the_time(clock):
    with Tokens(8) as tokens:
        hut = Hut(tokens.server.url)
        assert [got(hut), got(hut)] == ["1", "1"]
        clock[0] = 6.5
        assert got(hut) == "2"


def test_a_proof_that_serves_is_used_where_a_new_one_is_not_to_be_had(clock, monkeypatch):
    monkeypatch.setattr("sabir.clouds.PATIENCE", 0.2)
    with Tokens(3600, "not now", Gate()) as tokens:
        hut = Hut(tokens.server.url)
        assert got(hut) == "1"
        clock[0] = 3400
        assert [got(hut), got(hut)] == ["1", "1"]
        assert tokens.asked == 2  # Not again at once.
        clock[0] = 3435
        began = time.monotonic()
        assert got(hut) == "1"
        assert time.monotonic() - began < 0.5
        clock[0] = 3595
        with pytest.raises(DeadlineExceeded):
            got(hut, 0.3)


def test_while_a_proof_that_serves_is_renewed_nobody_else_waits(clock):
    gate = Gate()
    with Tokens(3600, gate) as tokens:
        hut = Hut(tokens.server.url)
        assert got(hut) == "1"
        clock[0] = 3400
        found = []
        thread = threading.Thread(target=lambda: found.append(got(hut)))
        thread.start()
        assert until(lambda: tokens.asked == 2, 5)
        assert got(hut) == "1"
        gate.open()
        thread.join(5)
        assert (found, got(hut), tokens.asked) == (["2"], "2", 2)


def test_a_proof_that_had_ended_is_an_error():
    with Tokens(-5) as tokens, pytest.raises(sabir.AuthenticationError, match="is this machine's clock right"):
        got(Hut(tokens.server.url))


# Whatever runs, and whatever ends it


def test_trios_tasks_wait_for_one(clock):
    fetched = []

    async def fetch(runtime: Runtime, line: Line) -> Proof[str]:
        fetched.append(True)
        await runtime.sleep(0.05, line)
        return Proof("it")

    async def main() -> list[str]:
        renewed, runtime, found = Renewed(fetch), Trio(lambda: blocking_transport()), []

        async def get() -> None:
            found.append(await renewed.get(runtime, Line()))

        async with trio.open_nursery() as nursery:
            with trio.move_on_after(0.01):
                await get()  # The first is cancelled, and another begins anew.
            for _ in range(5):
                nursery.start_soon(get)
        return found

    assert trio.run(main) == ["it"] * 5
    assert len(fetched) == 2


def test_a_clock_that_jumps_does_not_hurry_who_waits():
    gate, clock = Gate(), VirtualClock()
    with Tokens(gate) as tokens, ChatServer() as server:
        client = sabir.Client(f"vllm:x@{server.url}", api_key=Hut(tokens.server.url), runtime_wrappers=[clock])
        answers: list[str] = []
        threads = [threading.Thread(target=lambda: answers.append(str(client.ask("?")))) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert until(lambda: tokens.asked == 1, 5)
        gate.open()
        for thread in threads:
            thread.join(5)
        client.close()
    assert answers == ["Hello there!"] * 4
    assert (tokens.asked, clock.slept) == (1, [])


def test_a_ctrl_c_while_a_proof_is_fetched_spoils_nothing():
    outcomes: list[Any] = [KeyboardInterrupt(), "it"]

    async def fetch(runtime: Runtime, line: Line) -> Proof[str]:
        if isinstance(outcome := outcomes.pop(0), BaseException):
            raise outcome
        return Proof(outcome)

    renewed, runtime = Renewed(fetch), Blocking(blocking_transport)
    with pytest.raises(KeyboardInterrupt):
        run(lambda: renewed.get(runtime, Line()))
    assert run(lambda: renewed.get(runtime, Line())) == "it"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_child_does_not_wait_for_a_thread_that_did_not_come_along():
    gate = Gate()
    with Tokens(gate, 3600) as tokens:
        hut = Hut(tokens.server.url)
        thread = threading.Thread(target=got, args=(hut,))
        thread.start()
        assert until(lambda: tokens.asked == 1, 5)
        child = os.fork()
        if not child:
            os._exit(0 if got(hut, 5.0) == "2" else 1)
        assert os.waitpid(child, 0)[1] == 0
        gate.open()
        thread.join(5)


# Shown to nobody


async def test_what_is_fetched_is_recorded_nowhere_and_replayed_by_nothing(surface, tmp_path):
    path = tmp_path / "tape.jsonl"
    with Tokens() as tokens, ChatServer() as server:
        hut = Hut(tokens.server.url)
        client = surface.client(f"vllm:x@{server.url}", api_key=hut, runtime_wrappers=[recorded_http(path)])
        await client.ask("?")
        assert tokens.asked == 1
        written = path.read_text()
        assert written.count("\n") == 1
        assert not re.search("made-up|grant_type", written)
        fresh = Hut(tokens.server.url)
        replayed = surface.client(f"vllm:x@{server.url}", api_key=fresh, runtime_wrappers=[recorded_http(path)])
        with pytest.raises(sabir.StorageError, match="a replay wants none: pass any api_key="):
            await replayed.ask("?")
        again = surface.client(f"vllm:x@{server.url}", api_key="any", runtime_wrappers=[recorded_http(path)])
        assert str(await again.ask("?")) == "Hello there!"


def test_credentials_show_nothing_and_do_not_leave_the_process():
    with Tokens() as tokens:
        hut = Hut(tokens.server.url)
        got(hut)
        assert repr(hut) == "Hut(…)"
        for take in (pickle.dumps, copy.copy):
            with pytest.raises(TypeError, match="not pickled"):
                take(hut)


@pytest.mark.parametrize("url", ["", "ftp://host/x", "http:///x", "http://ho st/x", "http://host:0/", "http://h\nost/"])
def test_what_is_no_address_is_told_before_anything_is_sent(url):
    with pytest.raises(ConfigurationError, match="which is no address of a server"):
        got(Hut(url))


def test_an_answer_that_is_too_large_is_none():
    with (
        Server(whole(b"x" * ((1 << 20) + 1))) as server,
        pytest.raises(sabir.ServerError, match="its answer is too large"),
    ):
        got(Hut(server.url))


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (whole(b"<html>busy", status="503 x"), sabir.ServerError, "HTTP 503"),
        (whole(b'{"error": "slow_down"}', status="429 x"), sabir.RateLimitError, "slow_down"),
        (whole(b"{}", status="302 x"), sabir.ServerError, "HTTP 302"),
        (whole(b'{"access_token": 5}'), sabir.ServerError, "HTTP 200"),
        (whole(b'{"access_token": "a\\nb"}'), sabir.AuthenticationError, "no header can carry"),
        (whole(b'{"access_token": "a", "expires_in": "soon"}'), sabir.AuthenticationError, "whose end is no number"),
        (whole(b'{"access_token": "a", "expires_in": -1e99}'), sabir.AuthenticationError, "had ended at 1970-01-01"),
        (whole(b'{"access_token": "a", "expires_on": "nan"}'), sabir.AuthenticationError, "had ended at 1970-01-01"),
    ],
)
def test_an_answer_that_is_no_token_is_an_error(answer, kind, words):
    with Server(answer) as server, pytest.raises(kind, match=words) as caught:
        got(Hut(server.url))
    assert caught.value.retryable == (caught.value.status in (429, 503))


@pytest.mark.parametrize("host", ["169.254.169.254", "169.254.170.2", "[fd00:ec2::254]"])
def test_what_gives_credentials_is_asked_by_no_proxy(host):
    """It would tell who the proxy's machine is."""
    for proxies in (proxies_of("http://proxy.example:1"), proxies_of(None, {"http_proxy": "http://proxy.example:1"})):
        assert proxies.proxy_for(locate(f"http://{host}/latest")[0]) is None
        assert proxies.proxy_for(locate("http://169.253.1.1/")[0]) is not None


async def test_a_secret_is_in_no_traceback_that_shows_the_variables_of_the_library(surface):
    """Error reporters print the locals of every frame."""
    with ChatServer() as server:
        for answer in ("no", -5, 3600):
            with Tokens(answer) as tokens:
                place = server.url if answer != 3600 else "http://127.0.0.1:1"
                client = surface.client(f"vllm:x@{place}", api_key=Hut(tokens.server.url), max_attempts=1)
                with pytest.raises(sabir.SabirError) as caught:
                    await client.ask("?")
            for frame, _ in traceback.walk_tb(caught.value.__traceback__):
                if "/sabir/" in frame.f_code.co_filename:
                    shown = {name: repr(value) for name, value in frame.f_locals.items()}
                    assert not [name for name, text in shown.items() if "made-up" in text], frame.f_code.co_qualname
