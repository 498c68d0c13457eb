"""HTTP and answers, recorded and replayed: what comes out is what went in, without a network and without a key."""

from __future__ import annotations

import json
import threading
from base64 import b64decode

import pytest
from fakes import ChatServer
from servers import Gate, Server, chunked, whole

from sabir import (
    ClosedError,
    ConfigurationError,
    ConnectError,
    ContextOverflowError,
    Message,
    OverloadedError,
    ProviderState,
    SabirError,
    SabirWarning,
    StorageError,
    StreamInterrupted,
    Thinking,
    ToolCall,
    errors,
    user,
)
from sabir.deltas import Blob, Close, Event, Finish, Head, Note, Open, State, Text
from sabir.requests import HttpRequest
from sabir.runtime import Blocking, Line, run
from sabir.testing import (
    Faults,
    RecordAnswers,
    RecordHttp,
    ReplayAnswers,
    ReplayHttp,
    Scripted,
    VirtualClock,
    recorded_answers,
    recorded_http,
)
from sabir.testing.faults import Cut, Refuse, Reset, Stall, Status
from sabir.transports import blocking_transport

KEY = "sk-the-key-of-this-test"


@pytest.fixture
def tape(tmp_path):
    return tmp_path / "tapes" / "one.jsonl"


def entries(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def client(surface, server, *wrappers, **settings):
    settings = {"api_key": KEY, "max_attempts": 1, **settings}
    address = server.url if server.url.endswith("/v1") else f"{server.url}/v1"
    return surface.client(f"openai:x@{address}", runtime_wrappers=wrappers, **settings)


async def read(stream, seen):
    async for chunk in stream:
        seen.append((chunk.phase, chunk.content))


async def heard(made):
    """What a call says, as a value that can be compared, whether or not it ends well."""
    seen = []
    try:
        if hasattr(made, "__aiter__"):
            await read(made, seen)
            response = made.response
        else:
            response = await made
    except SabirError as error:
        fields = (type(error), str(error), error.status, error.request_id, error.retry_after, error.retryable)
        return (*fields, error.partial, seen, [attempt.outcome for attempt in error.attempts])
    said = (response.messages, response.usage, response.finish_reason, response.request_id, response.warnings)
    return (*said, seen, [attempt.outcome for attempt in response.attempts])


def weather(city: str) -> str:
    """Look up the weather."""
    return f"sunny in {city}"


def says(body):
    """A call of a tool, else what was said, word by word."""
    last = body["messages"][-1]
    if body.get("tools") and last["role"] == "user":
        return ToolCall(name="weather", input='{"city": "Bodø 🌊"}', id="a")
    return f"you said {last['content']} 🌊"


async def conversation(client):
    return [
        await heard(client.ask("one")),
        await heard(client.stream("two")),
        await heard(client.stream("three", tools=[weather])),
        await heard(client.ask("one", temperature=0.5)),
        await heard(client.ask("one")),
    ]


# HTTP


async def test_what_was_recorded_is_replayed_without_a_server(surface, tape):
    with ChatServer(says, headers={"x-request-id": "r1", "Set-Cookie": "c=1", "OpenAI-Organization": "me"}) as server:
        first = await conversation(client(surface, server, RecordHttp(tape)))
    with ReplayHttp(tape) as player:
        assert await conversation(client(surface, server, player, api_key="any other key")) == first
    assert first[0][3] == "r1"
    assert first[2][0][1].parts[0].text == "sunny in Bodø 🌊"
    assert [entry["number"] for entry in entries(tape)] == [1, 2, 3, 4, 5, 6]
    assert {entry["end"] for entry in entries(tape)} == {"whole"}
    for private in ("cookie", "organization"):
        assert private not in tape.read_text("utf-8")


async def test_a_line_can_be_read_by_a_person(surface, tape):
    with ChatServer(says) as server:
        await client(surface, server, RecordHttp(tape)).ask("hi", headers={"x-who": "me"})
    (entry,) = entries(tape)
    assert (entry["format_version"], entry["number"], entry["end"]) == (1, 1, "whole")
    assert entry["request"] == {
        "method": "POST",
        "url": f"{server.url}/chat/completions",
        "json": {"model": "x", "messages": [{"role": "user", "content": "hi"}]},
    }
    assert entry["headers"]["content-type"] == "application/json"
    assert entry["headers"]["user-agent"].startswith("sabir/")
    assert entry["headers"]["x-who"] == "…"
    assert entry["response"]["status"] == 200
    assert entry["response"]["headers"]["content-type"] == "application/json"
    body = json.loads("".join(entry["response"]["pieces"]))
    assert body["choices"][0]["message"]["content"] == "you said hi 🌊"


def event(text, reason=None):
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    return f"data: {json.dumps({'choices': [choice]}, ensure_ascii=False)}\n\n".encode()


async def test_a_stream_is_replayed_in_the_pieces_in_which_it_came(surface, tape):
    """Also where a piece ends inside a character, and so is no text."""
    second = event("Bodø", "stop")
    cut = second.index("ø".encode()) + 1
    pieces = [event("In ") + second[:cut], second[cut:] + b"data: [DONE]\n\n"]
    gate = Gate()

    async def answer(call):
        call.head("Transfer-Encoding: chunked", "Content-Type: text/event-stream")
        call.chunk(pieces[0])
        await gate.passed()
        call.chunk(pieces[1])
        call.chunk(b"")

    async def said(stream):
        begin = (await anext(aiter(stream))).content
        gate.open()
        return begin + "".join([chunk.content async for chunk in stream])

    with Server(answer) as server:
        assert await said(client(surface, server, RecordHttp(tape)).stream("?")) == "In Bodø"
    kept = [piece.encode() if isinstance(piece, str) else b64decode(piece["base64"]) for piece in pieces_of(tape)]
    assert kept == pieces
    assert await said(client(surface, server, ReplayHttp(tape)).stream("?")) == "In Bodø"


def pieces_of(tape):
    (entry,) = entries(tape)
    return entry["response"]["pieces"]


@pytest.mark.parametrize("how", ["ask", "stream"])
@pytest.mark.parametrize(
    "fault",
    [Refuse(), Reset(), Reset(after=90), Cut(after=90), Stall(after=90), Status(503, retry_after=7), Status(302)],
)
async def test_what_went_wrong_goes_wrong_again(surface, tape, fault, how):
    """A stream that was cut is replayed as one that was cut."""
    with ChatServer(says) as server:
        recording = client(surface, server, VirtualClock(), Faults(fault), RecordHttp(tape), idle_timeout=5)
        first = await heard(getattr(recording, how)("?"))
    assert issubclass(first[0], SabirError)
    with ReplayHttp(tape) as player:
        assert await heard(getattr(client(surface, server, player, idle_timeout=5), how)("?")) == first


async def test_attempts_are_replayed_as_they_came(surface, tape):
    clocks = VirtualClock(), VirtualClock()
    plan = Faults(Refuse(), Status(429, retry_after=7))
    with ChatServer(says) as server:
        recording = client(surface, server, clocks[0], plan, RecordHttp(tape), max_attempts=3)
        first = await heard(recording.ask("?"))
    with ReplayHttp(tape) as player:
        replaying = client(surface, server, clocks[1], player, max_attempts=3)
        assert await heard(replaying.ask("?")) == first
    assert first[-1] == ["ConnectError", "RateLimitError", "answered"]
    assert clocks[0].slept[1] == clocks[1].slept[1] == 7


async def test_a_stream_that_was_left_is_replayed_up_to_there(surface, tape):
    with ChatServer(lambda body: "one two three", pause=0.05) as server:
        stream = client(surface, server, RecordHttp(tape)).stream("?")
        assert (await anext(aiter(stream))).content == "one "
        stream.close()
        if not surface.is_blocking:
            await stream.__aexit__(None, None, None)
    assert [entry["end"] for entry in entries(tape)] == ["left"]
    stream = client(surface, server, ReplayHttp(tape)).stream("?")
    assert (await anext(aiter(stream))).content == "one "
    stream.close()
    stream = client(surface, server, ReplayHttp(tape)).stream("?")
    with pytest.raises(StorageError, match="whoever asked did not wait for more; record it anew") as caught:
        await read(stream, [])
    assert caught.value.partial.text.startswith("one ")


def test_a_request_that_was_left_before_its_answer_is_known_as_that(tape):
    line = Line()
    runtime = RecordHttp(tape)(Blocking(blocking_transport))
    line.abort()
    with pytest.raises(ClosedError):
        run(lambda: runtime.send(HttpRequest("GET", "http://127.0.0.1:1/", (), b""), line))
    (entry,) = entries(tape)
    assert (entry["end"], "response" in entry) == ("left", False)
    replaying = ReplayHttp(tape)(Blocking(blocking_transport))
    with pytest.raises(StorageError, match="did not wait for more"):
        run(lambda: replaying.send(HttpRequest("GET", "http://127.0.0.1:1/", (), b""), Line()))


# What is not in it


async def test_a_request_that_is_not_there_is_told_with_the_nearest(surface, tape):
    with ChatServer(says) as server:
        recording = client(surface, server, RecordHttp(tape))
        await recording.ask("What is the weather like in Oslo today?")
        await recording.ask("Quite another thing.", seed=1)
    player = ReplayHttp(tape)
    replaying = client(surface, server, player, max_attempts=3)
    with pytest.raises(StorageError) as caught:
        await replaying.ask("What is the weather like in Rome today?")
    assert (
        "in the nearest json.messages[0].content was 'What is the weather like in Oslo today?', "
        "and now 'What is the weather like in Rome today?'; delete the file to record anew" in str(caught.value)
    )
    assert len(caught.value.attempts) == 1
    with pytest.raises(StorageError, match=r"json.seed was 1, and now 2"):
        await replaying.ask("Quite another thing.", seed=2)
    with pytest.raises(StorageError, match=r"json.seed was 1, and now True"):
        await replaying.ask("Quite another thing.", extra={"seed": True})
    await replaying.ask("Quite another thing.", extra={"seed": 1.0})
    with pytest.raises(StorageError, match="what it has for this request is used up"):
        await replaying.ask("Quite another thing.", seed=1)
    # Somebody may have survived these errors; the test they belong to is to fail all the same.
    with pytest.raises(AssertionError) as failed:
        player.assert_done()
    assert str(failed.value).count("has no answer to") == 4
    assert "was never asked for" in str(failed.value)
    assert "Oslo" in str(failed.value).splitlines()[-1]
    await replaying.ask("What is the weather like in Oslo today?")
    with pytest.raises(StorageError, match="all that it has is used up"):
        await replaying.ask("And now?")


async def test_a_change_deep_in_a_long_text_is_shown(surface, tape):
    text = "All work and no play. " * 200
    with ChatServer(says) as server:
        await client(surface, server, RecordHttp(tape)).ask(text + "Jack is dull." + text)
    with pytest.raises(StorageError, match=r"was ….*Jack is dull.*…, and now ….*Jill is dull.*…; delete") as caught:
        await client(surface, server, ReplayHttp(tape)).ask(text + "Jill is dull." + text)
    assert len(str(caught.value)) < 1000


def test_what_is_left_over_is_told_unless_something_else_went_wrong(tape):
    tape.parent.mkdir()
    line = {"format_version": 1, "number": 1, "request": {"url": "u"}, "headers": {}, "end": "left"}
    tape.write_text(json.dumps(line) + "\n")
    with pytest.raises(AssertionError, match=r'was never asked for \{"url":"u"\}'), ReplayHttp(tape):
        pass
    with pytest.raises(LookupError), ReplayHttp(tape):
        raise LookupError


@pytest.mark.parametrize("kind", [RecordHttp, RecordAnswers])
def test_a_recording_is_not_written_over(tape, kind):
    tape.parent.mkdir()
    tape.touch()
    with pytest.raises(ConfigurationError, match=r"one.jsonl is there already: delete it to record anew"):
        kind(tape)


def test_to_record_or_to_replay_is_decided_by_the_file(tape):
    for choose, record, replay in (
        (recorded_http, RecordHttp, ReplayHttp),
        (recorded_answers, RecordAnswers, ReplayAnswers),
    ):
        assert isinstance(choose(tape), record)
        tape.parent.mkdir(exist_ok=True)
        tape.touch()
        assert isinstance(choose(tape), replay)
        tape.unlink()


@pytest.mark.parametrize("kind", [ReplayHttp, ReplayAnswers])
@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("{", "line 1 of .* is no recorded exchange"),
        ("\n", "line 1"),
        ("[]", "line 1"),
        ('{"format_version": 1}', "line 1"),
        ('{"format_version": 1, "number": 1, "request": {}, "end": "soon"}', "line 1"),
        ('{"format_version": 1, "number": 1, "request": {}, "end": "whole", "headers": 5, "deltas": 5}', "line 1"),
        ('{"format_version": 2, "whatever": 1}', "line 1 of .* has format_version 2; this version of sabir reads 1"),
    ],
)
def test_what_is_no_recording_is_refused_with_its_line(tape, kind, lines, words):
    tape.parent.mkdir()
    tape.write_text(lines + "\n")
    with pytest.raises(StorageError, match=words):
        kind(tape)


@pytest.mark.parametrize("kind", [ReplayHttp, ReplayAnswers])
def test_a_file_that_cannot_be_read_is_told(tape, kind):
    with pytest.raises(StorageError, match=r"one.jsonl cannot be read: No such file or directory"):
        kind(tape)


async def test_what_cannot_be_written_is_told(surface, tmp_path):
    (tmp_path / "file").touch()
    with ChatServer(says) as server, pytest.raises(StorageError, match=r"could not be recorded in .*one.jsonl"):
        await client(surface, server, RecordHttp(tmp_path / "file" / "one.jsonl")).ask("?")


async def test_many_calls_at_once_are_each_kept_whole(surface, tape):
    names = [f"{number} {'long ' * 3000}" for number in range(24)]
    with ChatServer(lambda body: body["messages"][0]["content"] + " and more") as server:
        recorder = RecordHttp(tape)
        recording = [client(surface, server, recorder) for _ in range(2)]
        jobs = [lambda name=name, at=at: recording[at % 2].ask(name) for at, name in enumerate(names)]
        await surface.at_once(*jobs)
    assert sorted(entry["number"] for entry in entries(tape)) == list(range(1, 25))
    with ReplayHttp(tape) as player:
        replaying = client(surface, server, player)
        said = await surface.at_once(*[lambda name=name: replaying.ask(name) for name in names])
    assert [response.text for response in said] == [f"{name} and more" for name in names]


async def test_answers_to_one_request_come_in_the_order_in_which_it_was_made(surface, tape):
    """Of two equal calls that overlap, the first may well end last."""
    said = iter(["first", "second"])
    gate = Gate()

    async def answer(call):
        text = next(said)
        call.head("Transfer-Encoding: chunked", "Content-Type: text/event-stream")
        call.chunk(event(f"{text} "))
        if text == "first":
            await gate.passed()
        call.chunk(event("end", "stop"))
        call.chunk(b"")

    with Server(answer) as server:
        recording = client(surface, server, RecordHttp(tape))
        first, second = recording.stream("?"), recording.stream("?")
        assert (await anext(aiter(first))).content == "first "
        await read(second, [])
        gate.open()
        await read(first, [])
    assert [entry["number"] for entry in entries(tape)] == [2, 1]
    replaying = client(surface, server, ReplayHttp(tape))
    for text in ("first end", "second end"):
        stream = replaying.stream("?")
        await read(stream, [])
        assert stream.response.text == text


# Secrets


async def test_no_key_is_in_a_recording(surface, tape):
    """Neither where it is sent nor where a server repeats it, in whatever pieces."""
    echo = event(f"your key is {KEY}", "stop")
    middle = echo.index(KEY.encode()) + 5
    mcp = {"mcp_servers": [{"url": "https://mcp.example", "authorization_token": "tok-of-an-mcp-server"}]}

    async def answer(call):
        if b'"stream":true' in call.body:
            await chunked(echo[:middle], echo[middle:], b"data: [DONE]\n\n")(call)
        else:
            words = {"error": {"message": f"bad key {KEY}"}, "access_token": "tok-of-a-token-server"}
            await whole(json.dumps(words).encode(), f"x-echo: {KEY}", status="401 No")(call)

    async def calls(asking):
        return [
            await heard(asking.stream(f"is {KEY} my key? and hush-hush?", extra=mcp)),
            await heard(
                asking.ask(f"is {KEY} my key?", headers={"X-Proof": "hush-hush", "cookie": "the-cookie-itself"})
            ),
        ]

    with Server(answer) as server:
        first = await calls(client(surface, server, RecordHttp(tape, secrets=["hush-hush"])))
    text = tape.read_text("utf-8")
    for secret in (KEY, "Bearer", "hush-hush", "the-cookie-itself", "tok-of-an-mcp", "tok-of-a-token"):
        assert secret not in text
    assert KEY in first[0][0][0].text
    # What is asked with a key of one's own is found again.
    for key in (KEY, "sk-the-key-of-somebody-else"):
        replaying = client(surface, server, ReplayHttp(tape, secrets=["hush-hush"]), api_key=key)
        prompt = f"is {key} my key? and hush-hush?"
        assert (await heard(replaying.stream(prompt, extra=mcp)))[0][0].text == "your key is ***"


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("/models/x?alt=sse&key=AIzaSyTheKey", "/models/x?alt=sse&key=***"),
        ("/models/x?KEY=AIzaSyTheKey&a=b", "/models/x?KEY=***&a=b"),
        ("/x?api-key=AIzaSyTheKey#a", "/x?api-key=***#a"),
        ("/x?X-Amz-Security-Token=AIzaSyTheKey", "/x?X-Amz-Security-Token=***"),
        ("/x?monkey=business", "/x?monkey=business"),
    ],
)
def test_a_key_in_an_address_is_not_written_down(tape, url, kept):
    with Server(whole(b"you sent AIzaSyTheKey or monkey business")) as server:
        request = HttpRequest("POST", server.url + url, (), b"no json, but AIzaSyTheKey")
        for wrap in (RecordHttp(tape), RecordHttp(tape.with_name("two.jsonl"))):
            runtime = wrap(Blocking(blocking_transport))
            run(lambda runtime=runtime: fetched(runtime, request))
            runtime.close()
    (entry,) = entries(tape)
    assert entry["request"]["url"] == server.url + kept
    if "***" in kept:
        assert "AIza" not in tape.read_text()
        assert entry["request"]["text"] == "no json, but ***"
    body = run(lambda: fetched(ReplayHttp(tape)(Blocking(blocking_transport)), request))
    assert body == "".join(entry["response"]["pieces"]).encode()


async def fetched(runtime, request):
    reply = await runtime.send(request, Line())
    pieces = []
    while data := await reply.read_some():
        pieces.append(data)
    reply.close()
    return b"".join(pieces)


def test_bytes_that_are_no_text_are_kept_as_they_are(tape):
    data = bytes(range(256))
    with Server(whole(data)) as server:
        request = HttpRequest("PUT", server.url, (), data)
        runtime = RecordHttp(tape)(Blocking(blocking_transport))
        assert run(lambda: fetched(runtime, request)) == data
        runtime.close()
    assert b64decode(entries(tape)[0]["request"]["base64"]) == data
    with ReplayHttp(tape) as player:
        assert run(lambda: fetched(player(Blocking(blocking_transport)), request)) == data


# Answers


def answering(surface, engine, *wrappers, **settings):
    return surface.client(engine, model_wrappers=wrappers, **settings)


async def test_answers_are_replayed_without_a_model(surface, tape):
    with ChatServer(says, headers={"x-request-id": "r1"}) as server:
        address = f"openai:x@{server.url}"
        first = await conversation(answering(surface, address, RecordAnswers(tape), api_key=KEY))
    with ReplayAnswers(tape) as player:
        assert await conversation(answering(surface, address, player, api_key="any")) == first
    assert KEY not in tape.read_text("utf-8")
    entry = entries(tape)[0]
    assert (entry["format_version"], entry["number"], entry["end"], entry["request_id"]) == (1, 1, "whole", "r1")
    assert entry["request"] == {
        "model": "x",
        "messages": [{"role": "user", "parts": [{"type": "text", "text": "one"}]}],
    }


async def test_every_kind_of_delta_is_replayed_as_it_was(surface, tape):
    said = [
        Head("1", "m", {"k": [1.5, None]}),
        Open(0, "thinking", state={"signature": "…"}),
        Text(0, "half of \ud83c"),
        State(0, {"more": True}),
        Close(0),
        Open(1, "call", "c", "look"),
        Text(1, '{"a": 1}'),
        State(None, {"all": 1}),
        Open(2, "image", media_type="image/png"),
        Blob(2, bytes(range(256))),
        Open(3, "text"),
        Text(3, "Bodø"),
        Note(3, {"cited": [1]}),
        Close(3, "Bodø!"),
        Event({"ping": 1}),
        Finish("stop", raw="end", detail={"why": None}),
    ]
    history = [
        Message("user", user("hi").parts, name="me"),
        Message("assistant", (Thinking(text="hm", state=ProviderState("scripted", {"signature": "x"}, "m")),)),
        user("\ud83d and?"),
    ]
    options = {"temperature": 0.5, "stop": ["a"], "extra": {"deep": [{"a": 1}]}, "max_tool_rounds": 0}
    first = await heard(answering(surface, Scripted(said), RecordAnswers(tape)).ask(history, **options))
    with ReplayAnswers(tape) as player:
        assert await heard(answering(surface, Scripted(), player).ask(history, **options)) == first
    assert first[0][0].parts[2].data == bytes(range(256))


@pytest.mark.parametrize(
    "error",
    [
        errors.EngineError("down", retryable=True),
        OverloadedError("busy", status=529, code="overloaded", request_id="r", retry_after=3.5, body="{}"),
        StreamInterrupted("cut"),
        ContextOverflowError("long"),
        type("Own", (ConnectError,), {})("of a user"),
    ],
)
async def test_errors_are_replayed_as_they_were(surface, tape, error):
    if isinstance(error, ContextOverflowError):
        error.prompt_tokens, error.context_length = 9, 5
    recording = answering(surface, Scripted(error), RecordAnswers(tape))
    with pytest.raises(SabirError):
        await recording.ask("?")
    with ReplayAnswers(tape) as player, pytest.raises(SabirError) as caught:
        await answering(surface, Scripted(), player).ask("?")
    replayed = caught.value
    assert isinstance(error, type(replayed))
    names = set(vars(error)) - {"partial", "args"}
    assert {name: getattr(replayed, name) for name in names} == {name: getattr(error, name) for name in names}


async def test_a_secret_of_digits_leaves_the_numbers_alone(surface, tape):
    secrets = ["12345678"]
    await answering(surface, Scripted("one"), RecordAnswers(tape, secrets=secrets)).ask("call 12345678", seed=12345678)
    (entry,) = entries(tape)
    assert (entry["request"]["messages"][0]["parts"][0]["text"], entry["request"]["seed"]) == ("call ***", 12345678)
    replaying = answering(surface, Scripted(), ReplayAnswers(tape, secrets=secrets))
    assert (await replaying.ask("call 12345678", seed=12345678)).text == "one"


async def test_what_was_asked_can_be_streamed_and_the_other_way_round(surface, tape):
    recording = answering(surface, Scripted("one two", "three four"), RecordAnswers(tape))
    await recording.ask("?")
    await read(recording.stream("?"), [])
    replaying, seen = answering(surface, Scripted(), ReplayAnswers(tape)), []
    await read(replaying.stream("?"), seen)
    assert [content for _, content in seen] == ["one ", "two", ""]
    assert (await replaying.ask("?")).text == "three four"


async def test_attempts_and_warnings_of_an_answer_are_replayed(surface, tape):
    with ChatServer(says) as server:
        wrappers = [VirtualClock(), Faults(Refuse())]
        settings = {"model_wrappers": [RecordAnswers(tape)], "runtime_wrappers": wrappers, "api_key": KEY}
        recording = surface.client(f"openai:x@{server.url}", **settings)
        with pytest.warns(SabirWarning, match="top_k"):
            first = await recording.ask("?", top_k=5)
    replaying = answering(surface, f"openai:x@{server.url}", ReplayAnswers(tape), api_key=KEY)
    with pytest.warns(SabirWarning, match="top_k"):
        again = await replaying.ask("?", top_k=5)
    assert again.warnings == first.warnings
    assert again.attempts == first.attempts
    assert [attempt.outcome for attempt in again.attempts] == ["ConnectError", "answered"]
    strict = answering(surface, f"openai:x@{server.url}", ReplayAnswers(tape), api_key=KEY, on_unsupported="raise")
    with pytest.raises(errors.UnsupportedError, match="top_k"):
        await strict.ask("?", top_k=5)


async def test_an_answer_that_was_left_is_replayed_up_to_there(surface, tape):
    stream = answering(surface, Scripted("one two"), RecordAnswers(tape)).stream("?")
    assert (await anext(aiter(stream))).content == "one "
    await stream.__aexit__(None, None, None)
    assert [entry["end"] for entry in entries(tape)] == ["left"]
    with pytest.raises(StorageError, match="did not wait for more"):
        await answering(surface, Scripted(), ReplayAnswers(tape)).ask("?")


async def test_a_request_that_was_not_answered_is_told_with_the_nearest(surface, tape):
    await answering(surface, Scripted("one"), RecordAnswers(tape)).ask("How are you?", seed=1)
    replaying = answering(surface, Scripted(), ReplayAnswers(tape))
    with pytest.raises(StorageError, match=r"in the nearest seed was 1, and now 2; delete the file to record anew"):
        await replaying.ask("How are you?", seed=2)
    assert (await replaying.ask("How are you?", seed=1)).text == "one"


async def test_headers_and_credentials_of_a_request_are_not_kept(surface, tape):
    secret = {
        "headers": {"X-Proof": "pssst", "accept": "a/b"},
        "extra": {"deep": {"API_KEY": "pssst", "a": "hush-hush"}},
    }
    recording = answering(surface, Scripted("one"), RecordAnswers(tape, secrets=["hush-hush"]))
    await recording.ask("hush-hush", **secret)
    text = tape.read_text("utf-8")
    assert "pssst" not in text
    assert "hush-hush" not in text
    assert entries(tape)[0]["request"]["headers"] == {"x-proof": "…", "accept": "a/b"}
    with ReplayAnswers(tape, secrets=["hush-hush"]) as player:
        assert (await answering(surface, Scripted(), player).ask("hush-hush", **secret)).text == "one"


async def test_a_request_that_is_no_json_is_refused_as_it_is_without_a_recording(surface, tape):
    for extra in ({"a": float("nan")}, {"a": object()}):
        with pytest.raises(ConfigurationError, match="the request cannot be written as JSON"):
            await answering(surface, Scripted("one"), RecordAnswers(tape)).ask("?", extra=extra)
    assert not tape.exists()


async def test_what_would_be_sent_is_shown_also_of_a_model_that_is_recorded(surface, tape):
    recorder = RecordAnswers(tape)
    tape.parent.mkdir()
    tape.touch()
    for wrapper in (recorder, ReplayAnswers(tape)):
        shown = answering(surface, "openai:x", wrapper, api_key=KEY).explain("?")
        assert shown.body["messages"] == [{"role": "user", "content": "?"}]


def test_threads_take_each_entry_once(tape):
    tape.parent.mkdir()
    line = {"format_version": 1, "request": {"a": 1}, "headers": {}, "end": "left"}
    tape.write_text("".join(json.dumps({**line, "number": number}) + "\n" for number in range(400)))
    player, taken = ReplayHttp(tape), []

    def take():
        taken.extend(player.take({"a": 1}).number for _ in range(100))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(400))
