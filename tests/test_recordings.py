"""Real answers of some thirty servers of chat completions, against a reading of their JSON as plain as can be.

The recordings are not in the repository (see their README for sources and licences); without them these tests skip.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from sabir.deltas import Assembler
from sabir.dialects.openai_chat import NAME, OpenAIChat
from sabir.errors import (
    AuthenticationError,
    BadRequestError,
    ContextOverflowError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    SabirError,
    ServerError,
    StreamProtocolError,
)
from sabir.messages import Audio

REPOSITORY = Path(__file__).resolve().parent.parent
RECORDINGS = REPOSITORY.parent / "shared" / "recordings" / "openai-chat.jsonl"
pytestmark = pytest.mark.skipif(not RECORDINGS.exists(), reason=f"there are no recordings at {RECORDINGS}")

# What is no answer at all, though its status is 200.
NO_ANSWERS = {
    "openai-chat-44ae80cb23": (StreamProtocolError, "a gateway echoes the request's method and path as JSON"),
    "openai-chat-60b03a4911": (ServerError, "the same gateway, as plain text"),
    "openai-chat-f68b5d7cae": (StreamProtocolError, "a bare list of generated_text, of another API"),
}
KINDS = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    429: RateLimitError,
    500: ServerError,
}
REASONS = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


def load():
    lines = RECORDINGS.read_text().splitlines() if RECORDINGS.exists() else []
    return [json.loads(line) for line in lines]


def cases(exchanges):
    return pytest.mark.parametrize("exchange", [pytest.param(each, id=each["id"]) for each in exchanges])


EXCHANGES = load()
ERRORS = [each for each in EXCHANGES if each["response"]["status"] >= 400]
ANSWERS = [each for each in EXCHANGES if each["response"]["status"] < 400]
WHOLE = [each for each in ANSWERS if not each["stream"] and each["id"] not in NO_ANSWERS]
STREAMS = [each for each in ANSWERS if each["stream"]]


def body_of(exchange):
    body = exchange["response"]["body"]
    return (body if isinstance(body, str) else json.dumps(body)).encode()


def assembled(deltas):
    answer = Assembler(NAME)
    for delta in deltas:
        answer.add(delta)
    return answer


def streamed(data, cut):
    decoder = OpenAIChat().decoder()
    deltas = []
    for start, end in pairwise([*range(0, len(data), cut), len(data)]):
        deltas += decoder.feed(data[start:end])
        if decoder.is_over:
            break
    return deltas + decoder.close()


# The plain reading. A whole answer is read as a stream of one chunk.


def objects(exchange):
    body = exchange["response"]["body"]
    if isinstance(body, dict):
        return [body]
    lines = [line.removeprefix("data:").strip() for line in body.splitlines() if line.startswith("data:")]
    return [json.loads(line) for line in lines if line not in ("", "[DONE]")]


def messages(exchange, number):
    is_stream = not isinstance(exchange["response"]["body"], dict)
    for chunk in objects(exchange):
        for choice in chunk.get("choices") or []:
            if choice["index"] == number:
                # Perplexity sends both; which one has the text depends on whether this is a chunk.
                names = ("delta", "message") if is_stream else ("message", "delta")
                yield choice.get(names[0]) or choice.get(names[1]) or {}


def numbers(exchange):
    return sorted({choice["index"] for chunk in objects(exchange) for choice in chunk.get("choices") or []})


def joined(exchange, number, field):
    return "".join(message.get(field) or "" for message in messages(exchange, number))


def content(exchange, number):
    """A text, blocks of text, or (Cloudflare, asked for JSON) an object."""
    pieces = [message.get("content") or "" for message in messages(exchange, number)]
    if pieces and isinstance(pieces[0], dict):
        return json.dumps(pieces[0], separators=(",", ":"))
    return "".join(
        piece if isinstance(piece, str) else "".join(block.get("text", "") for block in piece) for piece in pieces
    )


def thinking(exchange, number):
    """Under one name or the other; only where under neither, out of the details."""
    fields = [joined(exchange, number, "reasoning_content"), joined(exchange, number, "reasoning")]
    if any(fields):
        assert not all(fields) or fields[0] == fields[1]
        return fields[0] or fields[1]
    details = [each for message in messages(exchange, number) for each in message.get("reasoning_details") or []]
    return "".join(detail.get("text") or detail.get("summary") or "" for detail in details)


def calls(exchange, number):
    """By their index in a stream, by their place in a whole answer."""
    found = {}
    for message in messages(exchange, number):
        for place, call in enumerate(message.get("tool_calls") or []):
            known = found.setdefault(call["index"] if exchange["stream"] else place, [None, None, ""])
            function = call.get("function") or call.get("custom")
            known[0] = known[0] or call.get("id") or None
            known[1] = known[1] or function.get("name")
            known[2] += function.get("arguments") or function.get("input") or ""
        if any((legacy := message.get("function_call") or {}).values()):
            known = found.setdefault("legacy", [None, None, ""])
            known[1] = known[1] or legacy.get("name")
            known[2] += legacy.get("arguments") or ""
    return [tuple(known) for known in found.values()]


def finish(exchange, number):
    reasons = [
        choice["finish_reason"]
        for chunk in objects(exchange)
        for choice in chunk.get("choices") or []
        if choice["index"] == number and choice.get("finish_reason")
    ]
    if not reasons:
        return None
    is_refusal = reasons[-1] == "stop" and joined(exchange, number, "refusal")
    return "refusal" if is_refusal else REASONS[reasons[-1]]


def last(exchange, field):
    told = [chunk[field] for chunk in objects(exchange) if chunk.get(field)]
    return told[-1] if told else None


def check_usage(usage, wire):
    """The buckets sum to what the server says; reasoning is counted by some servers beside the completion."""
    if wire is None:
        assert usage.total_tokens is None
        return
    prompt, completion, total = (wire.get(f"{name}_tokens") for name in ("prompt", "completion", "total"))
    assert usage.reported_total == total
    cached = (wire.get("prompt_tokens_details") or {}).get("cached_tokens")
    if cached is not None:
        assert usage.cached_tokens == cached
    # Grok at Azure counts what it read from its cache beside the prompt.
    assert usage.input_tokens == (prompt if (cached or 0) <= (prompt or 0) else prompt + cached)
    details = wire.get("completion_tokens_details") or {}
    reasoning = details.get("reasoning_tokens", wire.get("reasoning_tokens"))
    assert usage.reasoning == reasoning
    if completion is not None and usage.output_tokens != completion:
        assert reasoning
        assert usage.output_tokens == completion + reasoning
        assert reasoning > completion or total == prompt + completion + reasoning
    elif reasoning and total is not None:
        assert total != prompt + completion + reasoning


def check(answer, exchange):
    choices = answer.choices
    assert numbers(exchange) == list(range(len(choices)))
    for number, message in enumerate(choices):
        assert message.text == content(exchange, number)
        assert message.thinking == thinking(exchange, number)
        assert (message.refusal or "") == joined(exchange, number, "refusal")
        assert [(call.id, call.name, call.input) for call in message.tool_calls] == calls(exchange, number)
        told = finish(exchange, number)
        assert (answer.finishes[number].reason if told else answer.finishes.get(number)) == told
        sounds = [sound for said in messages(exchange, number) if any((sound := said.get("audio") or {}).values())]
        heard = [part for part in message.parts if isinstance(part, Audio)]
        assert [part.transcript or "" for part in heard] == (
            ["".join(sound.get("transcript") or "" for sound in sounds)] if sounds else []
        )
    assert choices[0].model == last(exchange, "model")
    assert choices[0].id == last(exchange, "id")
    check_usage(answer.usage, last(exchange, "usage"))


def test_the_recordings_hold_all_sorts():
    assert len(EXCHANGES) >= 500
    assert len(WHOLE) >= 300
    assert len(STREAMS) >= 160
    assert len(ERRORS) >= 40
    assert NO_ANSWERS.keys() <= {each["id"] for each in ANSWERS}


@cases(WHOLE)
def test_a_recorded_answer_is_read_as_it_stands(exchange):
    check(assembled(OpenAIChat().decode_answer(body_of(exchange))), exchange)


@cases(STREAMS)
def test_a_recorded_stream_sums_to_what_its_chunks_say_however_it_is_cut(exchange):
    data = body_of(exchange)
    deltas = streamed(data, 10**9)
    check(assembled(deltas), exchange)
    assert streamed(data, 7) == deltas
    if len(data) < 20_000:
        assert streamed(data, 1) == deltas


@cases([each for each in ANSWERS if each["id"] in NO_ANSWERS])
def test_a_recorded_body_that_is_no_answer_is_an_error(exchange):
    kind, _ = NO_ANSWERS[exchange["id"]]
    with pytest.raises(SabirError) as caught:
        OpenAIChat().decode_answer(body_of(exchange))
    assert type(caught.value) is kind


@cases(ERRORS)
def test_a_recorded_error_is_of_the_kind_its_status_says(exchange):
    response = exchange["response"]
    headers = response.get("headers") or {}
    found = OpenAIChat().decode_error(response["status"], headers, body_of(exchange))
    assert isinstance(found, KINDS[response["status"]])
    assert isinstance(found, ContextOverflowError) == ("maximum context" in str(found) or "context size" in str(found))
    told = response["body"].get("error", response["body"])
    assert (told if isinstance(told, str) else told["message"]) in str(found)
    if isinstance(told, dict):
        codes = [str(told[name]) for name in ("code", "type") if told.get(name)]
        # The status said once more is no code, where there is another.
        assert found.code == next((code for code in codes if code != str(response["status"])), (codes or [None])[0])
    assert found.request_id in (None, *headers.values())
    assert (found.request_id is None) == (not any("request-id" in name for name in headers))
    # A model that sees nothing is told with a 500, and never will.
    is_lasting = "image input is not supported" in found.message
    assert found.retryable == (response["status"] in (429, 500) and not is_lasting)


def test_the_recorded_overflows_tell_their_numbers():
    found = [OpenAIChat().decode_error(each["response"]["status"], {}, body_of(each)) for each in ERRORS]
    overflows = {
        (error.prompt_tokens, error.context_length) for error in found if isinstance(error, ContextOverflowError)
    }
    assert overflows == {(2009, 512), (1250025, 1048565), (2500021, 200000)}


def test_the_recorded_rate_limit_tells_its_wait():
    (limited,) = [each for each in ERRORS if "retry-after" in (each["response"].get("headers") or {})]
    headers = limited["response"]["headers"]
    assert OpenAIChat().decode_error(429, headers, body_of(limited)).retry_after == float(headers["retry-after"])
