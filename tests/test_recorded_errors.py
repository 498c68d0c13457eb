"""Every error that was recorded, and those that no one recorded: what it becomes, and what is known of it then.

What is expected of a recording is read off its status and words by rules that are written here once more, as plainly as
can be. The recordings are not in the repository; without them those tests skip.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from servers import Server, chunked, whole

import sabir
from sabir.dialects.bedrock import Bedrock
from sabir.dialects.event_stream import encode_message
from sabir.dialects.openai_chat import OpenAIChat
from sabir.errors import (
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextOverflowError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitError,
    SabirError,
    ServerError,
    StreamInterrupted,
    StreamProtocolError,
)
from sabir.testing.replay import DIALECTS, EMBEDDINGS, RERANKS

RECORDINGS = Path(__file__).resolve().parent.parent.parent / "shared" / "recordings"
needs_recordings = pytest.mark.skipif(not RECORDINGS.is_dir(), reason=f"there are no recordings at {RECORDINGS}")

# Operations that nobody here speaks answer with the errors of their provider's chat.
OTHERS = {"google": DIALECTS["gemini"], "anthropic": DIALECTS["anthropic-messages"]}
SPEAKERS = {**DIALECTS, **EMBEDDINGS, **RERANKS, "bedrock-invoke": Bedrock()}

BY_STATUS = {401: AuthenticationError, 403: PermissionDeniedError, 404: NotFoundError, 429: RateLimitError}
# What a 400 and a 403 really say, by words that stand in no other recorded error.
BY_WORDS = {
    "api key not valid": AuthenticationError,
    "security token included in the request is expired": AuthenticationError,
    '"code": "model_not_found"': NotFoundError,
    '"type": "invalid_model"': NotFoundError,
    "maximum context length": ContextOverflowError,
    "available context size": ContextOverflowError,
    "too many tokens": ContextOverflowError,
}
# Failures of the server by their status, of which no other attempt will be better.
LASTING = {
    "openai-audio-0a72c76d6b": "501, llama-server: the model hears nothing",
    "openai-chat-d057f84fa3": "500, llama-server: the model sees nothing",
}
SIZES = {
    "openai-chat-788d70ebc6": (2009, 512),
    "openai-chat-34db6162bc": (2009, 512),
    "openai-chat-43cd3beeab": (1_250_025, 1_048_565),
    "openai-chat-cd2a91d5bc": (2_500_021, 200_000),
    "cohere-28d4d38c72": (313_836, 288_000),
}


def exchanges():
    for path in sorted(RECORDINGS.glob("*.jsonl")):
        yield from map(json.loads, path.read_text("utf-8").splitlines())


def cases(wanted):
    return pytest.mark.parametrize("exchange", [pytest.param(each, id=each["id"]) for each in wanted])


ERRORS = [each for each in exchanges() if each["response"]["status"] >= 400]
IN_STREAMS = [each for each in exchanges() if "mid_stream_error" in each["features"]]


def text_of(exchange):
    body = exchange["response"]["body"]
    return body if isinstance(body, str) else json.dumps(body)


def told(exchange, *names):
    """The first of these fields that the body has, or the header of that name."""
    response = exchange["response"]
    body = response["body"] if isinstance(response["body"], dict) else {}
    headers = response.get("headers") or {}
    return next((found for name in names if (found := headers.get(name) or body.get(name))), None)


def wait_of(exchange):
    if found := re.search(r'"retryDelay": "([0-9.]+)s"', text_of(exchange)):
        return float(found[1])
    wait = told(exchange, "retry-after")
    return None if wait is None else float(wait)


@needs_recordings
def test_there_are_errors_of_many_providers():
    assert len(ERRORS) > 100
    assert len({each["provider"] for each in ERRORS}) > 15


@cases(ERRORS)
def test_a_recorded_error_is_of_its_kind_and_says_what_is_known(exchange):
    status, text = exchange["response"]["status"], text_of(exchange)
    speaker = SPEAKERS.get(exchange["dialect"]) or OTHERS.get(exchange["provider"]) or OpenAIChat()
    found = speaker.decode_error(status, exchange["response"].get("headers") or {}, text.encode())
    usual = BY_STATUS.get(status, BadRequestError if status < 500 else ServerError)
    words = [kind for words, kind in BY_WORDS.items() if words in text.lower()] if status in (400, 403) else []
    assert type(found) is (words[0] if words else usual)
    assert found.status == status
    assert found.body == text.strip()[:10_000]
    names = ("x-request-id", "request-id", "apim-request-id", "x-amzn-requestid", "x-kong-request-id")
    assert found.request_id == told(exchange, *names, "request_id", "id")
    assert found.retry_after == wait_of(exchange)
    assert found.retryable is ((status == 429 or status >= 500) and exchange["id"] not in LASTING)
    if isinstance(found, ContextOverflowError):
        assert (found.prompt_tokens, found.context_length) == SIZES[exchange["id"]]


@cases(ERRORS)
def test_the_code_and_the_reason_of_a_recorded_error_are_its_own_words(exchange):
    headers, text = exchange["response"].get("headers") or {}, text_of(exchange)
    speaker = SPEAKERS.get(exchange["dialect"]) or OTHERS.get(exchange["provider"]) or OpenAIChat()
    found = speaker.decode_error(exchange["response"]["status"], headers, text.encode())
    assert found.code is None or found.code in text + headers.get("x-amzn-errortype", "")
    reason, _, _ = found.message.rpartition(" (HTTP ")
    assert json.dumps(reason, ensure_ascii=False)[1:-1] in json.dumps(json.loads(text), ensure_ascii=False)


@needs_recordings
def test_what_is_listed_as_special_was_recorded():
    known = {each["id"] for each in ERRORS}
    assert known >= {*LASTING, *SIZES}
    shown = " ".join(map(text_of, ERRORS)).lower()
    assert all(words in shown for words in BY_WORDS)


@cases(IN_STREAMS)
def test_a_recorded_error_in_a_stream_is_raised_as_what_it_is(exchange):
    decoder = DIALECTS[exchange["dialect"]].decoder()
    with pytest.raises(RateLimitError, match="exceeded your current quota") as raised:
        decoder.feed(text_of(exchange).encode()) + decoder.close()
    assert raised.value.code == "insufficient_quota"
    assert not raised.value.retryable


# What nobody recorded: seen by a client over HTTP, whole and as a stream.

ANTHROPIC_BUSY = (
    b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},'
    b'"request_id":"req_5"}\n\n'
)
ANTHROPIC_START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","type":"message","role":"assistant",'
    b'"content":[],"model":"claude-sonnet-4-6","stop_reason":null,"usage":{"input_tokens":1,"output_tokens":1}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
    b'"content_block":{"type":"text","text":"Half"}}\n\n'
)
GEMINI_MALFORMED = {
    "candidates": [{"content": {}, "finishReason": "MALFORMED_FUNCTION_CALL", "finishMessage": "print(", "index": 0}],
    "usageMetadata": {"promptTokenCount": 3, "totalTokenCount": 3},
    "modelVersion": "gemini-2.5-flash",
}
PAGE = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>nginx</h1></body></html>"
MODELS = (
    *("openai-chat:m", "openai-responses:m", "anthropic:claude-sonnet-4-6", "gemini:gemini-2.5-flash"),
    *("mistral:m", "ollama:m", "cohere:m", "bedrock:m"),
)


def ask(model, answer, *, stream=False):
    """What a client raises that asks a server which gives this answer once."""
    with (
        Server(answer) as server,
        sabir.Client(f"{model}@{server.url}", api_key="k", max_attempts=1) as client,
        pytest.raises(SabirError) as raised,
    ):
        list(client.stream("Hello?")) if stream else client.ask("Hello?")
    assert len(server.calls) == 1
    return raised.value


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (502, PAGE, ServerError, "502 Bad Gateway nginx (HTTP 502)"),
        (502, b"", ServerError, "gave no reason (HTTP 502)"),
        (503, PAGE, OverloadedError, "502 Bad Gateway nginx (HTTP 503)"),
        (529, b"", OverloadedError, "HTTP 529"),
        (429, b"slow down", RateLimitError, "slow down (HTTP 429)"),
        (500, b"\xff{", ServerError, "HTTP 500"),
        (401, b"", AuthenticationError, "HTTP 401"),
        (403, PAGE, PermissionDeniedError, "HTTP 403"),
    ],
)
def test_what_stands_between_us_and_a_provider_is_told_apart_from_it(model, status, body, kind, words, stream):
    error = ask(model, whole(body, "Retry-After: 7", "X-Request-Id: r1", status=f"{status} No"), stream=stream)
    assert type(error) is kind
    assert words in str(error)
    assert (error.status, error.request_id, error.retry_after) == (status, "r1", 7.0)
    assert error.retryable is (status == 429 or status >= 500)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("body", [b"", PAGE, b"{}", b"null", b"[]", b'{"ok": true}'])
def test_a_status_of_200_with_no_answer_in_it_is_no_answer(model, body, stream):
    error = ask(model, whole(body, "Content-Type: text/html"), stream=stream)
    assert isinstance(error, (StreamProtocolError, StreamInterrupted, ServerError))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("model", "body", "kind"),
    [
        ("openai-chat:m", {"error": {"message": "busy", "code": 503}}, OverloadedError),
        ("openai-chat:m", {"error": {"message": "busy", "type": "rate_limit_error"}}, RateLimitError),
        ("openai-chat:m", {"error": {"message": "no", "code": "insufficient_quota"}}, RateLimitError),
        ("anthropic:m", {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}, OverloadedError),
        ("gemini:m", {"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}, OverloadedError),
        ("gemini:m", {"error": {"message": "busy", "status": "RESOURCE_EXHAUSTED"}}, RateLimitError),
        ("gemini:m", GEMINI_MALFORMED, ServerError),
        ("ollama:m", {"error": "model runner has unexpectedly stopped"}, ServerError),
        ("mistral:m", {"object": "error", "message": "m", "type": "t", "raw_status_code": 429}, RateLimitError),
        ("openai-responses:m", {"error": {"code": "invalid_prompt", "message": "no"}}, BadRequestError),
        ("openai-responses:m", {"error": {"code": "bio_policy", "message": "no"}}, ContentFilterError),
    ],
)
def test_an_error_inside_an_answer_of_200_is_that_error(model, body, kind, stream):
    is_event = stream and not model.startswith("ollama")
    if stream and model.startswith("openai-responses"):
        body = {"type": "error", **body}
    written = json.dumps(body).encode()
    written = b"data: " + written + b"\n\n" if is_event else written
    kind_of_body = "text/event-stream" if is_event else "application/json"
    error = ask(model, whole(written, f"Content-Type: {kind_of_body}"), stream=stream)
    assert type(error) is kind


def test_a_stream_of_anthropics_that_is_overloaded_says_so_and_keeps_what_it_said():
    error = ask("anthropic:claude-sonnet-4-6", chunked(ANTHROPIC_START, ANTHROPIC_BUSY), stream=True)
    assert type(error) is OverloadedError
    assert (error.code, error.request_id) == ("overloaded_error", "req_5")
    assert error.partial is not None
    assert error.partial.text == "Half"


def test_a_stream_of_bedrocks_that_is_throttled_says_so():
    thrown = {":message-type": "exception", ":exception-type": "throttlingException"}
    answer = encode_message(thrown, b'{"message": "Too many requests, please wait before trying again."}')
    error = ask("bedrock:m", whole(answer, "Content-Type: application/vnd.amazon.eventstream"), stream=True)
    assert type(error) is RateLimitError
    assert "Too many requests" in str(error)


@pytest.mark.parametrize(
    ("model", "status", "body", "numbers"),
    [
        (
            "ollama:m",
            500,
            {"error": "the input length exceeds the context length"},
            (None, None),
        ),
        (
            "llama-server:m",
            500,
            {
                "error": {
                    "code": 500,
                    "type": "server_error",
                    "message": "input (2356 tokens) is too large to process. increase the physical batch size "
                    "(current batch size: 512)",
                }
            },
            (2356, 512),
        ),
        (
            "xai:m",
            400,
            {
                "code": "x",
                "error": "This model's maximum prompt length is 131072 but the request contains 537812 tokens",
            },
            (537_812, 131_072),
        ),
        (
            "anthropic:m",
            400,
            {
                "type": "error",
                "error": {
                    "type": "invalid_request_error",
                    "message": "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
                },
            },
            (None, 200_000),
        ),
    ],
)
def test_a_prompt_that_is_too_long_is_that_and_is_not_sent_again(model, status, body, numbers):
    error = ask(model, whole(json.dumps(body).encode(), status=f"{status} No"))
    assert isinstance(error, ContextOverflowError)
    assert (error.prompt_tokens, error.context_length) == numbers
    assert not error.retryable


@pytest.mark.parametrize("header", ["mistral-correlation-id", "x-kong-request-id"])
def test_a_request_has_the_id_that_mistral_gives_it(header):
    error = ask("mistral:m", whole(b'{"detail": "Invalid API Key"}', f"{header}: abc", status="401 No"))
    assert error.request_id == "abc"
