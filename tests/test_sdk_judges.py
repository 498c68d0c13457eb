"""The vendors' own SDKs read the same bytes as we do, and both say the same of them.

A server on loopback answers with recorded bytes; `openai` and `anthropic` read them, as they would from their vendor.
Text, thinking, tool calls, tokens and the reason for the end are compared with what our decoders make of the same
bytes. Where an SDK reads something otherwise, `KNOWN` says so and why; a rule that nothing needs any more fails too.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import anthropic
import openai
import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState

from sabir.testing.batch_replay import is_about_batches
from sabir.testing.replay import Replayed, replay

HERE = Path(__file__).parent
FIXTURES = HERE / "fixtures" / "replay"
RECORDINGS = HERE.parent.parent / "shared" / "recordings"

Exchange = dict[str, Any]
FIELDS = ("text", "thinking", "calls", "finish", "input", "output", "error")


@dataclass(kw_only=True)
class Said:
    """What an answer says, in one reader's words; `usage` as this reader has it."""

    text: str = ""
    thinking: str = ""
    calls: list[tuple[str | None, str, Any]]
    finish: str = "unknown"
    input: int | None = None
    output: int | None = None
    error: str | None = None
    usage: Any = None


def ours(result: Replayed) -> Said:
    told = result.decoded or {"text": "", "thinking": "", "tool_calls": [], "finish_reason": "unknown", "usage": {}}
    return Said(
        text=told["text"],
        thinking=told["thinking"],
        calls=[(call["id"], call["name"], call["arguments"]) for call in told["tool_calls"]],
        finish=told["finish_reason"],
        input=told["usage"].get("input_tokens"),
        output=told["usage"].get("output_tokens"),
        error=None if result.error is None else result.error["class"],
    )


def arguments(text: Any) -> Any:
    try:
        return json.loads(text.strip() or "{}") if isinstance(text, str) else text or {}
    except ValueError:
        return text


# The judges


class OpenAIJudge:
    SDK = openai
    FINISHES: ClassVar = {
        "stop": "stop",
        "length": "length",
        "tool_calls": "tool_calls",
        "content_filter": "content_filter",
        # the name it had before there could be more than one call
        "function_call": "tool_calls",
        # what Together says for stop
        "eos": "stop",
    }

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = openai.OpenAI(
            api_key="key", base_url=url, max_retries=0, http_client=openai.DefaultHttpxClient(trust_env=False)
        )

    def close(self) -> None:
        self._client.close()

    def read(self, name: str, is_stream: bool) -> Said:
        completions = self._client.with_options(base_url=f"{self._url}/{name}").chat.completions
        ask: Any = {"model": "judge", "messages": [{"role": "user", "content": "Hello!"}]}
        if not is_stream:
            whole = completions.create(**ask)
            return self._said(whole, whole.usage)
        state, usage = ChatCompletionStreamState(), None
        with completions.create(stream=True, **ask) as stream:
            for chunk in stream:
                self._add(state, chunk)
                usage = chunk.usage or usage
        return self._said(state.current_completion_snapshot, usage)

    def _add(self, state: ChatCompletionStreamState, chunk: Any) -> None:
        """Let the SDK add a chunk to its sum, which cannot be done with lists that have no `index` in their items."""
        for choice in chunk.choices:
            for items in (choice.delta.model_extra or {}).values():
                for at, item in enumerate(items if isinstance(items, list) else ()):
                    item.setdefault("index", at)
        state.handle_chunk(chunk)

    def _said(self, completion: Any, usage: Any) -> Said:
        if completion.choices is None:
            return Said(calls=[])
        choice = completion.choices[0]
        message, extra = choice.message, choice.message.model_extra or {}
        finish = self.FINISHES.get(choice.finish_reason, "unknown")
        return Said(
            text=message.content or "" if isinstance(message.content, str | None) else json.dumps(message.content),
            thinking=extra.get("reasoning_content") or extra.get("reasoning") or self._details(extra),
            calls=list(self._calls(message)),
            finish="refusal" if message.refusal and finish == "stop" else finish,
            input=usage.prompt_tokens if usage else None,
            output=usage.completion_tokens if usage else None,
            usage=usage,
        )

    def _calls(self, message: Any) -> Iterator[tuple[str | None, str, Any]]:
        if (legacy := message.function_call) is not None:
            yield None, legacy.name, arguments(legacy.arguments)
        for call in message.tool_calls or ():
            if call.type == "custom":
                yield call.id, call.custom.name, arguments(call.custom.input)
            else:
                yield call.id, call.function.name, arguments(call.function.arguments)

    def _details(self, extra: dict[str, Any]) -> str:
        return "".join(
            detail.get("text") or detail.get("summary") or "" for detail in extra.get("reasoning_details") or ()
        )


class AnthropicJudge:
    SDK = anthropic
    FINISHES: ClassVar = {
        "end_turn": "stop",
        "stop_sequence": "stop",
        "max_tokens": "length",
        "model_context_window_exceeded": "length",
        "tool_use": "tool_calls",
        "refusal": "refusal",
        "pause_turn": "paused",
        "compaction": "paused",
    }

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = anthropic.Anthropic(
            api_key="key", base_url=url, max_retries=0, http_client=anthropic.DefaultHttpxClient(trust_env=False)
        )

    def close(self) -> None:
        self._client.close()

    def read(self, name: str, is_stream: bool) -> Said:
        # The beta namespace knows the same messages, and more kinds of blocks.
        messages = self._client.with_options(base_url=f"{self._url}/{name}").beta.messages
        ask: Any = {"model": "judge", "max_tokens": 1000, "messages": [{"role": "user", "content": "Hello!"}]}
        if not is_stream:
            return self._said(messages.create(**ask))
        with messages.stream(**ask) as stream:
            return self._said(stream.get_final_message())

    def _said(self, message: Any) -> Said:
        usage = message.usage
        read = (usage.input_tokens, usage.cache_creation_input_tokens, usage.cache_read_input_tokens)
        return Said(
            text="".join(block.text for block in message.content if block.type == "text"),
            thinking="".join(block.thinking for block in message.content if block.type == "thinking"),
            calls=[
                (block.id, block.name, arguments(block.input)) for block in message.content if block.type == "tool_use"
            ],
            finish=self.FINISHES.get(message.stop_reason, "unknown"),
            input=sum(count or 0 for count in read),
            output=usage.output_tokens,
            usage=usage,
        )


JUDGES: dict[str, type[OpenAIJudge | AnthropicJudge]] = {
    "openai-chat": OpenAIJudge,
    "anthropic-messages": AnthropicJudge,
}

# What the SDKs call errors, and what we may call the same one. Both call anything else of 500 and up after the server.
ERRORS = {
    "BadRequestError": {"BadRequestError", "ContextOverflowError", "ContentFilterError"},
    "AuthenticationError": {"AuthenticationError"},
    "PermissionDeniedError": {"PermissionDeniedError"},
    "NotFoundError": {"NotFoundError"},
    "UnprocessableEntityError": {"BadRequestError"},
    "RateLimitError": {"RateLimitError"},
    "InternalServerError": {"ServerError", "OverloadedError"},
    "OverloadedError": {"OverloadedError"},
    "RequestTooLargeError": {"BadRequestError"},
    # an error in the midst of a stream: its status is 200, and only its text says what it is
    "APIError": {"ServerError", "OverloadedError", "RateLimitError", "BadRequestError"},
    "APIStatusError": {"ServerError", "OverloadedError", "RateLimitError", "BadRequestError"},
}


# Where an SDK reads something otherwise


@dataclass
class Rule:
    """A difference that is known: in this field, if this holds of what was said by us and by them."""

    reason: str
    field: str
    holds: Callable[[Said, Said], bool]


def reasoning_tokens(usage: Any) -> int:
    details = getattr(usage, "completion_tokens_details", None)
    return (details and details.reasoning_tokens) or 0


def is_beside(usage: Any) -> bool:
    """Whether the reasoning stands beside the completion: it is larger, or the total is the sum of all three."""
    written, all_three = (
        usage.completion_tokens,
        usage.prompt_tokens + usage.completion_tokens + reasoning_tokens(usage),
    )
    return reasoning_tokens(usage) > written or usage.total_tokens == all_three


def cached_tokens(usage: Any) -> int:
    details = getattr(usage, "prompt_tokens_details", None)
    return (details and details.cached_tokens) or 0


KNOWN = {
    "openai-chat": [
        Rule(
            "xAI, and Gemini behind Vercel's gateway, count reasoning beside the completion; the SDK adds nothing up",
            "output",
            lambda us, them: us.output == them.output + reasoning_tokens(them.usage) and is_beside(them.usage),
        ),
        Rule(
            "Grok on Azure counts what it had cached beside the prompt: it is more than the prompt",
            "input",
            lambda us, them: (
                us.input == them.input + cached_tokens(them.usage) and cached_tokens(them.usage) > them.input
            ),
        ),
        Rule(
            "Snowflake fills `function_call` with empty strings where there is none; the SDK shows it as one",
            "calls",
            lambda us, them: us.calls == [call for call in them.calls if call[1]],
        ),
        Rule(
            "Cloudflare sends the object that a schema asks for as an object; the SDK has it where a str is promised",
            "text",
            lambda us, them: json.loads(us.text) == json.loads(them.text) != "",
        ),
        Rule(
            "the SDK does not look for errors in an answer with status 200",
            "error",
            lambda us, them: us.error is not None and them == Said(calls=[]),
        ),
    ],
    "anthropic-messages": [],
}


def differences(dialect: str, us: Said, them: Said, needed: set[str]) -> list[str]:
    """Where the two disagree, without what is known; adds the rules that were needed to `needed`."""
    found: list[str] = []
    for field in FIELDS:
        mine, theirs = getattr(us, field), getattr(them, field)
        if mine == theirs:
            continue
        known = [rule.reason for rule in KNOWN[dialect] if rule.field == field and holds(rule, us, them)]
        needed.update(known)
        if not known:
            found.append(f"{field}: {mine!r} is ours, {theirs!r} is theirs")
    return found


def holds(rule: Rule, us: Said, them: Said) -> bool:
    try:
        return rule.holds(us, them)
    except (TypeError, ValueError, AttributeError):
        return False


# The court


class Court(ThreadingHTTPServer):
    """Serves each exchange's answer below its id."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Witness)
        self.exchanges: dict[str, Exchange] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"


class Witness(BaseHTTPRequestHandler):
    server: Court
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is one packet, not one for each header
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        answer = self.server.exchanges[self.path.split("/")[1]]["response"]
        data = first_answer(answer["body"])
        self.send_response(answer["status"])
        for name, value in answer["headers"].items():
            self.send_header(name, value)
        self.send_header("content-type", answer["content_type"] or "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


def first_answer(body: Any) -> bytes:
    """The bytes of an answer; of its first, where a recording has glued the streams of several together.

    Ours ends with the first answer, as the connection does; Anthropic's SDK would read on and make one of them all.
    """
    if not isinstance(body, str):
        return json.dumps(body).encode()
    first, end, rest = body.partition("event: message_stop\n")
    data, *others = rest.split("event: message_start\n")
    return (first + end + data if others else body).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def court() -> Iterator[Court]:
    with Court() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(params=JUDGES)
def dialect(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def judge(dialect: str, court: Court) -> Iterator[OpenAIJudge | AnthropicJudge]:
    made = JUDGES[dialect](court.url)
    yield made
    made.close()


@cache
def exchanges(file: Path) -> list[tuple[Exchange, Replayed]]:
    """The exchanges that have an answer which is one; tests/test_replay.py lists those that are not."""
    # Batches have judges of their own, in tests/test_batch_sdks.py.
    lines = (line for line in map(json.loads, file.read_text("utf-8").splitlines()) if not is_about_batches(line))
    replayed = [(line, replay(line)) for line in lines if line["response"]["body"] is not None]
    return [(line, result) for line, result in replayed if result.verdict == "passed"]


def hear(judge: OpenAIJudge | AnthropicJudge, court: Court, exchange: Exchange) -> Said:
    """What the SDK makes of an answer; an error is named by our word for it, if it may be called that."""
    name, body = exchange["id"], exchange["response"]["body"]
    court.exchanges[name] = exchange
    return judge.read(name, isinstance(body, str))


class Findings(NamedTuple):
    """The exchanges that SDK and dialect read differently, and how; the rules without which there would be more."""

    differences: dict[str, list[str]]
    needed: set[str]


def compare(judge: OpenAIJudge | AnthropicJudge, court: Court, dialect: str, file: Path) -> Findings:
    found = Findings({}, set())
    for exchange, result in exchanges(file):
        us = ours(result)
        try:
            them = hear(judge, court, exchange)
        except judge.SDK.APIError as error:
            status, name = getattr(error, "status_code", None), type(error).__name__
            if us.error not in ERRORS.get(name, ()) or status not in (None, exchange["response"]["status"]):
                found.differences[result.id] = [f"error: {us.error} is ours, {name} with status {status} is theirs"]
        else:
            if differing := differences(dialect, us, them, found.needed):
                found.differences[result.id] = differing
    return found


def test_the_sdk_reads_hand_made_answers_as_we_do(dialect, judge, court, no_network):
    assert compare(judge, court, dialect, FIXTURES / f"{dialect}.jsonl").differences == {}


@pytest.mark.slow
def test_the_sdk_reads_recorded_answers_as_we_do(dialect, judge, court, no_network):
    if not RECORDINGS.is_dir():
        pytest.skip(f"the recordings of real traffic are not there: {RECORDINGS}")
    found = compare(judge, court, dialect, RECORDINGS / f"{dialect}.jsonl")
    assert found.differences == {}
    by_hand = compare(judge, court, dialect, FIXTURES / f"{dialect}.jsonl")
    assert {rule.reason for rule in KNOWN[dialect]} == found.needed | by_hand.needed
