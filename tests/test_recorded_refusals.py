"""What a server refused for the shape of it, our own strict reading of requests refuses too, before anything is sent.

Every recorded request that was answered with 400 or 422 is read as our server half would. What that takes must stand in
`ONLY_THE_SERVER_KNOWS`, with the reason. The recordings are not in the repository; without them only the made-up ones,
which say the same, are read.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sabir.errors import BadRequestError
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
