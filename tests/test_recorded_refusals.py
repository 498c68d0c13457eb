"""What a server refused for the shape of it, our own strict reading of requests refuses too, before anything is sent.

Every recorded request that was answered with 400 or 422 is read as our server half would. What that takes must stand in
`ONLY_THE_SERVER_KNOWS`, with the reason. The recordings are not in the repository; without them only the made-up ones,
which say the same, are read.

The client half is held to the same reading: whatever it writes, our server half takes, and what was refused and can be
said in portable words is refused or lowered before it is sent.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sabir
from sabir import ConfigurationError, ToolSpec, UnsupportedError, user
from sabir.dialects.ranges import PORTABLE, outside
from sabir.errors import BadRequestError
from sabir.providers import PROVIDERS
from sabir.requests import Request
from sabir.testing.replay import CHAT_ENDPOINTS, DIALECTS, EMBEDDINGS

RECORDINGS = Path(__file__).resolve().parent.parent.parent / "shared" / "recordings"
READERS = {**DIALECTS, **EMBEDDINGS}

# By words of the server's answer: what no request shows by itself.
ONLY_THE_SERVER_KNOWS = {
    "model identifier is invalid": "which models there are",
    "requested model": "which models there are",
    "Invalid model": "which models there are",
    "Model nonexistent is not supported": "which models there are",
    "API key not valid": "whose key it is",
    "Previous response with id": "which answers it keeps",
    "maximum context length": "how many tokens the text is",
    "available context size": "how many tokens the text is",
    "too many tokens": "how many tokens the text is",
    "Error while downloading": "what it finds at an address",
    "Cannot fetch content": "what it finds at an address",
    "does not support effort level": "which efforts this model has; others have this one",
    "Logprobs are not enabled for this model": "what this model can do",
    "Web search options not supported with this model": "what this model can do",
    "doesn't support the video content block": "what this model can see",
    "doesn't support the s3Uri field": "what this model fetches",
    "Content blocks are expected to be either text or image_url": "what this model can hear; others hear it",
    "unknown variant `video_url`": "what this server shows its models; others of the format take videos",
    "unsupported content[].type": "what this server shows its models; others of the format take videos",
    "unsupported MIME type 'audio/mpeg'": "which files it reads; a client of ours refuses by the row's media rules",
    "The file type you uploaded is not supported": "which files it reads; a client of ours refuses by them too",
    "Thinking mode does not support this tool_choice": "that this one server cannot force a tool while it thinks",
    "did not match schema": "what its model wrote; the request was whole",
    "Too many inputs in request": "how many this server takes at once; `embed` splits them",
    "Invalid request": "why: it gives no reason",
    "Test error": "why: the recording was made to fail",
}


def exchanges():
    for path in sorted(RECORDINGS.glob("*.jsonl")):
        yield from map(json.loads, path.read_text("utf-8").splitlines())


def is_refused(exchange):
    is_ours = exchange["endpoint"] in CHAT_ENDPOINTS.get(exchange["dialect"], {exchange["endpoint"]})
    has_body = exchange["request"] is not None and exchange["request"].get("body") is not None
    return exchange["response"]["status"] in (400, 422) and has_body and is_ours and exchange["dialect"] in READERS


REFUSED = [each for each in exchanges() if is_refused(each)]


def reason_of(exchange):
    told = json.dumps(exchange["response"]["body"], ensure_ascii=False)
    return next((reason for words, reason in ONLY_THE_SERVER_KNOWS.items() if words in told), None)


def read(exchange):
    READERS[exchange["dialect"]].decode_request(json.dumps(exchange["request"]["body"]).encode())


@pytest.mark.parametrize("exchange", [pytest.param(each, id=each["id"]) for each in REFUSED])
def test_what_a_server_refused_for_its_shape_we_refuse(exchange):
    if reason_of(exchange) is not None:
        read(exchange)
        return
    with pytest.raises(BadRequestError) as raised:
        read(exchange)
    assert raised.value.status == 400


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason=f"there are no recordings at {RECORDINGS}")
def test_every_reason_is_needed_and_some_requests_are_refused_without_one():
    told = " ".join(json.dumps(each["response"]["body"], ensure_ascii=False) for each in REFUSED)
    assert [words for words in ONLY_THE_SERVER_KNOWS if words not in told] == []
    assert len([each for each in REFUSED if reason_of(each) is None]) >= 9


TEXT = [{"role": "user", "content": "Hi"}]
TURN = {"role": "user", "parts": [{"text": "Hi"}]}


@pytest.mark.parametrize(
    ("dialect", "body", "words"),
    [
        ("openai-chat", {"model": "m", "messages": TEXT, "temperature": 100}, "temperature"),
        ("openai-chat", {"model": "m", "messages": TEXT, "temperature": "hot"}, "temperature"),
        ("openai-chat", {"model": "m", "messages": [{"role": "user", "content": [{"text": "Hi"}]}]}, "type"),
        ("openai-responses", {"model": "m", "input": "Hi", "temperature": -1}, "temperature"),
        ("gemini", {"contents": [TURN], "generationConfig": {"temperature": 1000.0}}, "temperature"),
        ("gemini", {"contents": [{**TURN, "role": "invalid_role"}]}, "role"),
        (
            "anthropic-messages",
            {"model": "m", "max_tokens": 5, "messages": TEXT, "tools": [{"name": "f", "input_schema": True}]},
            "input_schema",
        ),
        (
            "anthropic-messages",
            {"model": "m", "max_tokens": 5, "messages": TEXT, "tools": [{"name": "f", "input_schema": {"$ref": "x"}}]},
            "input_schema.type",
        ),
    ],
)
def test_requests_of_a_shape_that_was_refused_are_refused(dialect, body, words):
    with pytest.raises(BadRequestError, match=words):
        DIALECTS[dialect].decode_request(json.dumps(body).encode())


FILM = sabir.video("https://example.invalid/clip.mp4")
PING = ToolSpec("ping", "Ping.", {"type": "object", "properties": {}})
# What was refused, in portable words, by words of the server's answer: who is asked, for what, and what we say to it.
REFUSED_HERE = {
    "Temperature must be between 0 and 2, got 100": ("doubleword:m", {"temperature": 100}, "from 0 to 2"),
    "temperature value of 1000": ("gemini:m", {"temperature": 1000.0}, "from 0 to 2"),
    "decimal below minimum value": ("openai-responses:gpt-4o", {"temperature": -1}, "at least 0"),
    "type must be number, but is string": ("llama-server:m", {"temperature": "hot"}, "temperature"),
    "Please use a valid role": ("gemini:m", {"prompt": [{"role": "invalid_role", "content": "Hi"}]}, "is no role"),
    "input_schema: Input does not match": ("anthropic:m", {"tools": [ToolSpec("f", "", True)]}, "a JSON Schema of an"),
    "unknown variant `video_url`": ("deepseek:deepseek-v4-flash", {"files": [FILM]}, "cannot watch video"),
    "unsupported content[].type": ("llama-server:m", {"files": [FILM]}, "not video/mp4"),
    "got unsupported MIME type 'audio/mpeg'": ("openai-responses:m", {"files": [FILM]}, "not video/mp4"),
}
LOWERED_HERE = {
    "input_schema.type: Field required": (
        "anthropic:m",
        {"tools": [ToolSpec("f", "", {"$ref": "https://example.com/input.json"})], "tool_choice": "required"},
        "tools",
    ),
    "Thinking mode does not support this tool_choice": (
        "deepseek:deepseek-v4-flash",
        {"thinking": True, "tools": [PING], "tool_choice": "required"},
        "thinking",
    ),
}


def explained(model, call):
    key = {} if PROVIDERS[model.partition(":")[0]].key is None else {"api_key": "sk-made-up"}
    call = {"prompt": "Hi", **call}
    with sabir.Client(model, **key) as client:
        return client.explain(call.pop("prompt"), **call)


@pytest.mark.parametrize(("model", "call", "words"), REFUSED_HERE.values(), ids=REFUSED_HERE)
def test_what_was_refused_is_refused_before_it_is_sent(model, call, words):
    with pytest.raises((ConfigurationError, UnsupportedError), match=words):
        explained(model, call)


@pytest.mark.parametrize(("model", "call", "subject"), LOWERED_HERE.values(), ids=LOWERED_HERE)
def test_what_was_refused_is_lowered_and_said_to_be(model, call, subject):
    shown = explained(model, call)
    assert subject in [notice.subject for notice in shown.notices]
    PROVIDERS[model.partition(":")[0]].dialect.decode_request(json.dumps(shown.body).encode())


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason=f"there are no recordings at {RECORDINGS}")
def test_what_is_refused_or_lowered_here_was_recorded():
    told = [json.dumps(each["response"]["body"], ensure_ascii=False) for each in REFUSED]
    for words in (*REFUSED_HERE, *LOWERED_HERE):
        assert any(words in each for each in told), words


numbers = st.none() | st.floats(0, 1) | st.sampled_from([-3, -1.5, 1.7, 1000])
counts = st.none() | st.integers(1, 5) | st.sampled_from([-1, 0, 1000])
requests = st.builds(
    Request,
    model=st.sampled_from(["m", "gpt-5.1", "claude-sonnet-4-6", "gemini-2.5-flash", "us.amazon.nova-pro-v1:0"]),
    messages=st.just((sabir.system("Be brief."), user("Hi"))),
    tools=st.sampled_from([(), (PING,)]),
    stream=st.booleans(),
    temperature=numbers,
    top_p=numbers,
    top_k=counts,
    min_p=numbers,
    max_tokens=counts,
    stop=st.none() | st.just(("a", "b")),
    seed=st.none() | st.integers(0, 99),
    frequency_penalty=numbers,
    presence_penalty=numbers,
    repetition_penalty=numbers,
    thinking=st.none() | st.booleans() | st.sampled_from(["minimal", "low", "medium", "high"]) | st.integers(1, 99_999),
    tool_choice=st.sampled_from([None, "auto", "none", "required", "ping"]),
    parallel_tool_calls=st.none() | st.booleans(),
    logprobs=st.none() | st.booleans(),
    top_logprobs=st.none() | st.integers(0, 30),
    n=counts,
    user=st.none() | st.just("u"),
)
ROWS = {row.name: row.dialect for row in PROVIDERS.values() if row.has_chat}
CHATS = {
    name: dialect for name, dialect in ROWS.items() if dialect not in list(ROWS.values())[: list(ROWS).index(name)]
}


@pytest.mark.parametrize("dialect", CHATS.values(), ids=CHATS)
@given(request=requests)
@settings(max_examples=60, deadline=None)
def test_whatever_the_client_half_writes_the_server_half_takes(dialect, request):
    # What is outside of every provider's range, a client of ours has refused before.
    said = msgspec.structs.asdict(request)
    while (found := outside(said, PORTABLE)) is not None:
        said[found[0]] = None
    with suppress(UnsupportedError):
        dialect.decode_request(dialect.encode_request(Request(**said))[0].body)
