"""`client.pull`: a server fetches a model, or there is an error; on every surface, over real HTTP.

Ollama's SDK judges what we read, and is a client of our server's half, as is our own.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import closing
from itertools import pairwise

import ollama
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from servers import Gate, Server, free_port, whole
from test_cli import Terminal, needs_terminals, run

from sabir import (
    AuthenticationError,
    BadRequestError,
    ClosedError,
    ConfigurationError,
    ConnectError,
    DeadlineExceeded,
    Hook,
    NotFoundError,
    OverloadedError,
    PullProgress,
    RateLimitError,
    SabirError,
    ServerError,
    StreamInterrupted,
    StreamProtocolError,
    aio,
)
from sabir.dialects.ollama_pull import OllamaPull, PullRequest
from sabir.testing import VirtualClock

DIALECT = OllamaPull()
KEY = "key-of-the-puller"
WEIGHTS, LICENSE = "sha256:6a0746a1ec1aef3e7ec53868f220ff6e", "sha256:4fa551d4f938f68b8c1e6afa9d28befb"
# A pull as Ollama tells of it, but for its many lines in between.
STORY = [
    {"status": "pulling manifest"},
    {"status": "pulling 6a0746a1ec1a", "digest": WEIGHTS, "total": 4_661_211_424},
    {"status": "pulling 6a0746a1ec1a", "digest": WEIGHTS, "total": 4_661_211_424, "completed": 241_970},
    {"status": "pulling 6a0746a1ec1a", "digest": WEIGHTS, "total": 4_661_211_424, "completed": 4_661_211_424},
    {"status": "pulling 4fa551d4f938", "digest": LICENSE, "total": 12_403, "completed": 12_403},
    {"status": "verifying sha256 digest"},
    {"status": "writing manifest"},
    {"status": "success"},
]
TOLD = [
    PullProgress("pulling manifest"),
    PullProgress("pulling 6a0746a1ec1a", WEIGHTS, 0, 4_661_211_424),
    PullProgress("pulling 6a0746a1ec1a", WEIGHTS, 241_970, 4_661_211_424),
    PullProgress("pulling 6a0746a1ec1a", WEIGHTS, 4_661_211_424, 4_661_211_424),
    PullProgress("pulling 4fa551d4f938", LICENSE, 12_403, 12_403),
    PullProgress("verifying sha256 digest"),
    PullProgress("writing manifest"),
    PullProgress("success"),
]
UNKNOWN = {"error": "pull model manifest: file does not exist"}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def lines(*said):
    return b"".join(json.dumps(line).encode() + b"\n" for line in said)


def tells(*said, end=None):
    """A server that says this, line by line; at the `end`, if it is given one, it does that instead of ending well."""

    async def answer(call):
        call.head("Content-Type: application/x-ndjson", "Transfer-Encoding: chunked")
        for line in said:
            call.chunk(lines(line))
        await (end or ended)(call)

    return answer


async def ended(call):
    call.chunk(b"")


async def cut(call):
    call.close()


async def silent(call):
    await call.forever()


def in_turn(server, *answers):
    """What a server does first, second, and from then on."""

    async def answer(call):
        await answers[min(len(server.calls), len(answers)) - 1](call)

    return answer


def connect(surface, server, model="llama3.2", **settings):
    address = server if isinstance(server, str) else server.url
    return surface.client(f"ollama:{model}", base_url=address, **settings)


# What is asked, and what is told


async def test_a_model_is_fetched_and_its_progress_told(surface):
    seen = []
    with Server(tells(*STORY)) as server:
        client = connect(surface, server, api_key=KEY, headers={"x-more": "1"})
        assert await client.pull(on_progress=seen.append) is None
        (call,) = server.calls
        assert (call.method, call.target, json.loads(call.body)) == (
            "POST",
            "/api/pull",
            {"model": "llama3.2", "stream": True},
        )
        assert (call.header("authorization"), call.header("x-more")) == (f"Bearer {KEY}", "1")
    assert seen == TOLD
    assert [each.fraction for each in seen[:4]] == [None, 0.0, pytest.approx(5.19e-5, rel=1e-3), 1.0]


async def test_nobody_has_to_listen(surface):
    with Server(tells(*STORY)) as server:
        assert await connect(surface, server).pull() is None


@pytest.mark.parametrize(
    "name", ["qwen3:0.6b", "hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M", "ollama:qwen3:0.6b"]
)
async def test_another_model_of_the_same_server_is_fetched_by_its_name(surface, name):
    with Server(tells(*STORY)) as server:
        client = connect(surface, server)
        await client.pull(name, extra={"insecure": True})
        (call,) = server.calls
        named = name.removeprefix("ollama:")
        assert json.loads(call.body) == {"model": named, "stream": True, "insecure": True}
        assert client.default_model == "ollama:llama3.2"


async def test_a_client_of_another_provider_fetches_what_a_model_string_names(surface, pico):
    with Server(tells(*STORY)) as server:
        await surface.client(pico).pull(f"ollama:qwen3@{server.url}")
        assert json.loads(server.calls[0].body)["model"] == "qwen3"


@pytest.mark.parametrize("model", ["pico", "openai-chat:gpt-4o", "ollama-compat:llama3.2", "cohere:rerank-v3.5"])
async def test_a_provider_that_fetches_nothing_is_said_to(surface, model, monkeypatch):
    for key in ("OPENAI_API_KEY", "COHERE_API_KEY"):
        monkeypatch.setenv(key, KEY)
    for client, name in ((surface.client(model), None), (surface.client("ollama:llama3.2"), model)):
        with pytest.raises(ConfigurationError, match=r"cannot be pulled: .*there are: ollama, as in"):
            await client.pull(name)


async def test_a_coroutine_may_listen(surface):
    seen = []

    async def listen(progress):
        await asyncio.sleep(0)
        seen.append(progress)

    with Server(tells(*STORY)) as server:
        await connect(surface, server).pull(on_progress=listen)
    assert seen == TOLD


async def test_progress_is_told_when_it_comes_where_the_call_was_made(surface):
    gate, threads = Gate(), set()

    async def answer(call):
        call.head("Transfer-Encoding: chunked")
        call.chunk(lines(STORY[0]))
        await gate.passed()
        call.chunk(lines(STORY[-1]))
        call.chunk(b"")

    def listen(progress):
        threads.add(threading.current_thread())
        # The server goes on only when its first line has been heard.
        if progress == TOLD[0]:
            gate.open()

    with Server(answer) as server:
        await connect(surface, server, idle_timeout=5).pull(on_progress=listen)
    assert threads == {threading.current_thread()}


@pytest.mark.parametrize(
    ("options", "objection"),
    [
        ({"on_progress": "print"}, "on_progress is a function, not str"),
        ({"timeout": 0}, "timeout is a number of seconds above 0"),
        ({"extra": [1]}, "extra: "),
        ({"model": "qwen3@http://"}, "base_url must look like"),
        ({"model": 5}, "a model is named by a string"),
        ({"extra": {"insecure": object()}}, "cannot be written as JSON"),
    ],
)
async def test_what_is_wrong_with_a_call_is_told_before_anything_is_sent(surface, options, objection):
    with Server(tells(*STORY)) as server:
        if options.get("model") == "qwen3@http://":
            options = {"model": "ollama:qwen3@http://"}
        with pytest.raises(ConfigurationError, match=objection):
            await connect(surface, server).pull(**options)
        assert server.accepted == 0


async def test_a_constructor_connects_to_nobody_and_fetches_nothing(surface):
    with Server(tells(*STORY)) as server:
        client = connect(surface, server)
        assert client.capabilities() is not None
        assert client.explain("Hello").url == f"{server.url}/api/chat"
        assert server.accepted == 0
        await client.pull()
        assert server.accepted == 1


async def test_hooks_are_told_of_answers_only(surface):
    class Watch(Hook):
        def on_start(self, event):
            raise AssertionError("a pull is no answer")

        on_end = on_start

    with Server(tells(*STORY)) as server:
        await connect(surface, server, hooks=[Watch()]).pull()


# What may go wrong


@pytest.mark.parametrize(
    ("told", "kind", "message", "requests"),
    [
        (UNKNOWN, NotFoundError, "Ollama finds no such model.*file does not exist", 1),
        ({"error": 'model "lama3" not found'}, NotFoundError, "https://ollama.com/search", 1),
        ({"error": "pull model manifest: 412: \n\nnewer version of Ollama"}, BadRequestError, "newer version", 1),
        ({"error": "pull model manifest: 401: {}"}, AuthenticationError, "401", 1),
        ({"error": "pull model manifest: 429: slowly"}, RateLimitError, "slowly", 3),
        ({"error": "max retries exceeded: EOF"}, ServerError, "max retries exceeded", 3),
        ({"error": "digest mismatch, file must be downloaded again"}, ServerError, "digest mismatch", 3),
    ],
    ids=lambda told: told["error"][:30] if isinstance(told, dict) else None,
)
async def test_an_error_within_the_stream_is_one_of_the_family(surface, told, kind, message, requests):
    seen = []
    with Server(tells(STORY[0], told)) as server:
        client = connect(surface, server, runtime_wrappers=[VirtualClock()])
        with pytest.raises(kind, match=message) as caught:
            await client.pull(on_progress=seen.append)
        assert len(server.calls) == requests
    error = caught.value
    assert type(error) is kind
    assert (error.provider, error.model) == ("ollama", "llama3.2")
    assert [attempt.outcome for attempt in error.attempts] == [kind.__name__] * requests
    assert seen == TOLD[:1] * requests


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        ("404 Not Found", UNKNOWN, NotFoundError),
        ("500 Internal Server Error", UNKNOWN, NotFoundError),
        ("500 Internal Server Error", {"error": "pull model manifest: 503: busy"}, OverloadedError),
        ("400 Bad Request", {"error": "invalid model name"}, BadRequestError),
        ("401 Unauthorized", {"error": f"no, {KEY}"}, AuthenticationError),
        ("404 Not Found", "<html>404 page not found</html>", NotFoundError),
        ("502 Bad Gateway", "", ServerError),
    ],
)
async def test_a_refusal_is_one_of_the_family(surface, status, body, kind):
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    with Server(whole(data, "x-request-id: r7", status=status)) as server:
        with pytest.raises(kind) as caught:
            await connect(surface, server, api_key=KEY, max_attempts=1).pull()
        assert len(server.calls) == 1
    assert type(caught.value) is kind
    assert caught.value.request_id == "r7"
    assert KEY not in repr(vars(caught.value))


@pytest.mark.parametrize("end", [ended, cut], ids=["well", "cut"])
@pytest.mark.parametrize("said", [STORY[:-1], STORY[:2], []], ids=len)
async def test_a_stream_that_ends_without_success_is_no_pull(surface, said, end):
    with Server(tells(*said, end=end)) as server:
        with pytest.raises(StreamInterrupted, match="broke off before") as caught:
            await connect(surface, server, max_attempts=1).pull()
        assert caught.value.retryable


@pytest.mark.parametrize("line", ["{", "[]", "5", '"success"', "<p>"])
async def test_a_line_that_is_none_is_an_error(surface, line):
    async def answer(call):
        data = f"{line}\n".encode()
        call.head(f"Content-Length: {len(data)}")
        call.write(data)

    with Server(answer) as server, pytest.raises(StreamProtocolError):
        await connect(surface, server).pull()


async def test_a_pull_that_breaks_off_is_begun_again(surface):
    seen = []
    with Server(cut) as server:
        server.answer = in_turn(
            server, tells(*STORY[:3], end=cut), tells(STORY[0], {"error": "EOF"}), tells(*STORY[:1], *STORY[3:])
        )
        await connect(surface, server, runtime_wrappers=[VirtualClock()]).pull(on_progress=seen.append)
        assert len(server.calls) == 3
    assert seen == [*TOLD[:3], TOLD[0], TOLD[0], *TOLD[3:]]


async def test_a_success_is_one_however_the_connection_ends(surface):
    seen = []
    with Server(tells(*STORY, end=cut)) as server:
        await connect(surface, server).pull(on_progress=seen.append)
        assert len(server.calls) == 1
    assert seen == TOLD


async def test_a_success_is_not_waited_upon(surface):
    with Server(tells(*STORY, end=silent)) as server:
        await connect(surface, server).pull()
        assert await surface.in_thread(lambda: server.is_left_by_all(0.1))


async def test_a_server_that_is_not_there_is_an_error_of_the_connection(surface):
    with pytest.raises(ConnectError):
        await connect(surface, f"http://127.0.0.1:{free_port()}", max_attempts=1).pull()


# Time, and leaving early


async def test_silence_ends_a_pull_and_the_clients_timeout_does_not(surface):
    with Server(tells(*STORY[:2], end=silent)) as server:
        client = connect(surface, server, timeout=0.1, idle_timeout=0.4)
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"silent for 0\.4 s"):
            await client.pull()
        assert len(server.calls) == 1
        assert 0.35 < time.monotonic() - began < 1
        assert await surface.in_thread(lambda: server.is_left_by_all(0.1))


async def test_a_timeout_of_its_own_ends_a_pull_that_goes_on_and_on(surface):
    async def drip(call):
        call.head("Connection: close")
        await call.drip(lines(STORY[2]))

    with Server(drip) as server:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"\(timeout\)"):
            await connect(surface, server).pull(timeout=0.4)
        assert 0.35 < time.monotonic() - began < 1
        assert len(server.calls) == 1
        assert await surface.in_thread(lambda: server.is_left_by_all(0.1))


@pytest.mark.parametrize(
    ("error", "is_async"),
    [
        (ValueError("enough"), False),
        (ValueError("enough"), True),
        (ServerError("of another call, which might pass"), False),
        (ServerError("of another call, which might pass"), True),
        (KeyboardInterrupt(), False),
    ],
    ids=repr,
)
async def test_what_a_listener_raises_ends_the_pull_as_it_is(surface, error, is_async):
    def listen(progress):
        if progress.digest:
            raise error

    async def listen_too(progress):
        listen(progress)

    with Server(tells(*STORY[:2], end=silent)) as server:
        with pytest.raises(type(error)) as caught:
            await connect(surface, server).pull(on_progress=listen_too if is_async else listen)
        assert caught.value is error
        assert len(server.calls) == 1
        assert await surface.in_thread(lambda: server.is_left_by_all(0.1))


async def test_a_client_that_is_closed_ends_its_pulls_and_begins_none(surface):
    with Server(tells(*STORY[:2], end=silent)) as server:
        client = connect(surface, server)

        def close(progress):
            if progress.digest:
                threading.Thread(target=client.close).start()

        with pytest.raises(ClosedError):
            await client.pull(on_progress=close)
        assert await surface.in_thread(lambda: server.is_left_by_all(0.1))
        with pytest.raises(ClosedError):
            await client.pull()
        assert len(server.calls) == 1


def test_a_pull_that_is_cancelled_is_left():
    async def work(server):
        async with aio.Client("ollama:m", base_url=server.url) as client:
            begun = asyncio.Event()
            pull = asyncio.create_task(client.pull(on_progress=lambda _: begun.set()))
            await asyncio.wait_for(begun.wait(), 5)
            pull.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pull
            assert await asyncio.to_thread(lambda: server.is_left_by_all(0.1))

    with Server(tells(*STORY[:2], end=silent)) as server:
        asyncio.run(work(server))


# The format


VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-9, 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9)
)
LINES = st.dictionaries(
    st.sampled_from(["status", "digest", "total", "completed"]) | st.text(max_size=6).filter("error".__ne__), VALUES
)


def decoded(data, places=()):
    decoder, found = DIALECT.decoder(), []
    try:
        for start, stop in pairwise([0, *sorted({min(place, len(data)) for place in places}), len(data)]):
            found += decoder.feed(data[start:stop])
        found += decoder.close()
    except SabirError as error:
        return found, repr(error)
    return found, None


@given(LINES)
@example({"status": "pulling", "total": 5, "completed": 0})
@example({"total": "5", "completed": -1, "digest": 5, "status": None})
def test_a_line_is_said_again_as_it_was_said(line):
    progress, *_ = decoded(lines(line, STORY[-1]))[0]
    again = DIALECT.encode_progress(progress)
    assert json.loads(again) == DIALECT.canonical_progress(line)
    assert decoded(again + lines(STORY[-1]))[0][0] == progress


@given(
    st.sampled_from([lines(*STORY), lines(*STORY)[:-1], lines(*STORY[:3], UNKNOWN), lines(*STORY[:3]) + b'{"status"'])
    | st.binary(max_size=60),
    st.lists(st.integers(0, 900), max_size=20),
)
def test_any_cut_of_a_stream_says_the_same(data, places):
    assert decoded(data, places) == decoded(data) == decoded(data, range(len(data)))


def test_the_last_line_needs_no_end():
    assert decoded(lines(*STORY)[:-1]) == (TOLD, None)
    assert "NotFoundError" in decoded(lines(STORY[0], UNKNOWN)[:-1])[1]


@pytest.mark.parametrize(
    ("body", "request_"),
    [
        ({"model": "m"}, PullRequest(model="m")),
        ({"name": "m", "stream": False}, PullRequest(model="m", stream=False)),
        ({"model": "", "name": "m", "insecure": True}, PullRequest(model="m", extra={"insecure": True})),
        ({"model": "m", "name": "n", "stream": None, "x": {"y": 1}}, PullRequest(model="m", extra={"x": {"y": 1}})),
    ],
)
def test_a_request_is_said_again_as_it_was_said(body, request_):
    request = DIALECT.decode_request(json.dumps(body).encode())
    assert request == request_
    http, notices = DIALECT.encode_request(request)
    assert (json.loads(http.body), notices) == (DIALECT.canonical_request(body), ())


@pytest.mark.parametrize(
    ("body", "objection"),
    [
        (b"", "no JSON"),
        (b"[]", "no JSON object"),
        (b"{}", "model: "),
        (b'{"model": 5}', "model: "),
        (b'{"model": "m", "stream": 1}', "stream: "),
    ],
)
def test_a_request_that_the_format_does_not_allow_is_refused_and_told_where(body, objection):
    with pytest.raises(BadRequestError, match=objection):
        DIALECT.decode_request(body)


# Ollama's SDK


def library(*models, breaks=None):
    """A server made of the dialect's half of it, which has these models to fetch; its streams may break."""

    async def answer(call):
        try:
            assert (call.method, call.target) == ("POST", "/api/pull")
            request = DIALECT.decode_request(call.body)
            if request.model not in models:
                raise NotFoundError(UNKNOWN["error"])
        except SabirError as error:
            status, body = DIALECT.encode_error(error)
            return await whole(body, "Content-Type: application/json", status=f"{status} No")(call)
        if not request.stream:
            return await whole(DIALECT.encode_progress(TOLD[-1]), "Content-Type: application/json")(call)
        call.head("Content-Type: application/x-ndjson", "Transfer-Encoding: chunked")
        for progress in TOLD if breaks is None else TOLD[:3]:
            call.chunk(DIALECT.encode_progress(progress))
        if breaks is not None:
            call.chunk(DIALECT.encode_failure(breaks))
        call.chunk(b"")

    return answer


@pytest.fixture(params=["Client", "AsyncClient"])
def sdk(request):
    """How the SDK pulls a model, on either of its surfaces; all that it is told."""

    def pull(url, model, **options):
        if request.param == "Client":
            with ollama.Client(host=url) as client:
                told = client.pull(model, **options)
                return list(told) if options.get("stream") else told

        async def work():
            async with ollama.AsyncClient(host=url) as client:
                told = await client.pull(model, **options)
                return [each async for each in told] if options.get("stream") else told

        return asyncio.run(work())

    return pull


def as_ours(theirs):
    """What the SDK read, which leaves counts of 0 as they were left out."""
    completed = theirs.completed or (0 if theirs.total else None)
    return PullProgress(theirs.status, theirs.digest, completed, theirs.total)


def test_the_sdk_reads_a_stream_as_we_do(sdk):
    with Server(tells(*STORY)) as server:
        assert [as_ours(told) for told in sdk(server.url, "m", stream=True)] == TOLD
        # What it sends is a request of this format, and word for word what we send.
        request = DIALECT.decode_request(server.calls[0].body)
        assert request == PullRequest(model="m", extra={"insecure": False})
        assert json.loads(DIALECT.encode_request(request)[0].body) == json.loads(server.calls[0].body)


def test_the_sdk_finds_an_error_where_we_do(sdk):
    with Server(tells(STORY[0], UNKNOWN)) as server, pytest.raises(ollama.ResponseError, match="file does not exist"):
        sdk(server.url, "m", stream=True)


def test_the_sdk_is_served_by_our_half(sdk):
    with Server(library("m")) as server:
        assert [as_ours(told) for told in sdk(server.url, "m", stream=True)] == TOLD
        assert sdk(server.url, "m").status == "success"
        for stream in (False, True):
            with pytest.raises(ollama.ResponseError, match="file does not exist") as caught:
                sdk(server.url, "n", stream=stream)
            assert caught.value.status_code == 404
        server.answer = library("m", breaks=ServerError("the disk is full"))
        with pytest.raises(ollama.ResponseError, match="the disk is full"):
            sdk(server.url, "m", stream=True)


async def test_our_client_is_served_by_our_half(surface):
    seen = []
    with Server(library("m")) as server:
        client = connect(surface, server, "m", max_attempts=1)
        await client.pull(on_progress=seen.append)
        with pytest.raises(NotFoundError, match="file does not exist"):
            await client.pull("n")
        server.answer = library("m", breaks=ServerError("the disk is full"))
        with pytest.raises(ServerError, match="the disk is full"):
            await client.pull()
    assert seen == TOLD


# The command line


def test_the_command_tells_each_status_once():
    with Server(tells(*STORY)) as server:
        for name in ("llama3.2:1b", "ollama:llama3.2:1b"):
            done = run("pull", name, "--base-url", server.url)
            assert (done.code, done.out) == (0, "")
            assert done.err.splitlines() == [
                "pulling manifest",
                "verifying sha256 digest",
                "writing manifest",
                "success",
            ]
        assert [json.loads(call.body)["model"] for call in server.calls] == ["llama3.2:1b"] * 2


def test_the_command_says_what_went_wrong():
    with Server(tells(STORY[0], UNKNOWN)) as server:
        done = run("pull", "lama3", "--base-url", server.url)
    assert done.code == 1
    assert "sabir: error: Ollama finds no such model" in done.err
    done = run("pull", "pico")
    assert done.code == 2
    assert "there are: ollama" in done.err


@needs_terminals
def test_a_terminal_shows_how_far_all_layers_are_in_one_line():
    with Server(tells(*STORY)) as server, closing(Terminal("pull", "llama3.2", "--base-url", server.url)) as shown:
        assert shown.end() == 0
        text = shown.shown.replace("\x1b[2m", "").replace("\x1b[0m", "")
    assert text.split("\n") == [
        "pulling manifest",
        "\r  0%  0.00 of 4.66 GB\r  0%  0.00 of 4.66 GB\r100%  4.66 of 4.66 GB\r100%  4.66 of 4.66 GB",
        "verifying sha256 digest",
        "writing manifest",
        "success",
        "",
    ]


@needs_terminals
def test_an_interrupt_ends_the_command_and_the_pull():
    with Server(tells(*STORY[:3], end=silent)) as server:
        with closing(Terminal("pull", "llama3.2", "--base-url", server.url)) as shown:
            shown.wait_for("4.66 GB")
            assert shown.end(interrupting=True) == 130
        assert server.is_left_by_all()
