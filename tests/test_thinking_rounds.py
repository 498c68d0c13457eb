"""What only its maker can read goes back to it byte for byte and in its place, when tools have run.

Answers that were recorded are served to a client, which runs the tools they call; what it then asks is read as plainly
as can be. The recordings are not in the repository; made-up answers of the same shapes, at the end, always run.
"""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path

import pytest
from servers import Server, whole
from thoughts import MADE_UP

import sabir
from sabir.tools import Tool

RECORDINGS = Path(__file__).resolve().parent.parent.parent / "shared" / "recordings"

FORMATS = ("anthropic-messages", "bedrock-converse", "gemini", "openai-responses", "openai-chat", "mistral", "cohere")
ENDPOINTS = {"messages", "converse", "generateContent", "streamGenerateContent", "responses", "chat/completions"}
ENDPOINTS |= {"converse-stream", "v2/chat"}
OPAQUE = {"signature", "redacted_thinking", "encrypted_content", "reasoning_details", "reasoning_content", "thinking"}
ROWS = {
    "anthropic-messages": "anthropic",
    "bedrock-converse": "bedrock",
    "gemini": "gemini",
    "openai-responses": "openai-responses",
    "openai-chat": "openai-compat",
    "mistral": "mistral",
    "cohere": "cohere",
}
OWN_ROWS = {"deepseek", "openrouter", "xai", "zai", "venice", "doubleword", "snowflake", "ollama-cloud"}


def exchanges():
    for name in FORMATS:
        path = RECORDINGS / f"{name}.jsonl"
        yield from map(json.loads, path.read_text("utf-8").splitlines() if path.exists() else [])


RECORDED = list(exchanges())
THOUGHT = [
    each
    for each in RECORDED
    if each["response"]["status"] == 200
    and each["endpoint"] in ENDPOINTS
    and "tool_calls" in each["features"]
    and OPAQUE.intersection(each["features"])
]


def cases(wanted):
    return pytest.mark.parametrize("exchange", [pytest.param(each, id=each["id"]) for each in wanted])


# The plain readings: a list of (what, the text of it or its name, what is opaque in it), in the order in which it came.
# Of a stream, pieces that belong together are put together here.


def events_of(body):
    if not isinstance(body, str):
        return body if isinstance(body, list) else [body]
    lines = [line.removeprefix("data:").strip() for line in body.splitlines() if line.startswith("data:")]
    return [json.loads(line) for line in lines if line not in ("", "[DONE]")] or json.loads(body)


def anthropic_blocks(content):
    for block in content:
        match block["type"]:
            case "thinking":
                yield "thinking", block["thinking"], block.get("signature")
            case "redacted_thinking":
                yield "redacted", "", block["data"]
            case "tool_use":
                yield "call", block["name"], block["id"]


def anthropic_said(body):
    if isinstance(body, dict):
        return list(anthropic_blocks(body["content"]))
    blocks = {}
    for event in events_of(body):
        if event["type"] == "content_block_start":
            blocks[event["index"]] = dict(event["content_block"])
        elif event["type"] == "content_block_delta" and event["delta"]["type"] in ("thinking_delta", "signature_delta"):
            name = event["delta"]["type"].removesuffix("_delta")
            block = blocks[event["index"]]
            block[name] = block.get(name, "") + event["delta"][name]
    return list(anthropic_blocks(blocks.values()))


def anthropic_asked(body):
    turns = [turn["content"] for turn in body["messages"] if turn["role"] == "assistant"]
    return [list(anthropic_blocks(content)) for content in turns if isinstance(content, list)]


def gemini_parts(parts):
    for part in parts:
        if "name" in part.get("functionCall", {}):
            yield "call", part["functionCall"]["name"], part.get("thoughtSignature") or part.get("thought_signature")
        elif found := part.get("thoughtSignature") or part.get("thought_signature"):
            yield "signed", "", found


def gemini_said(body):
    events = events_of(body)
    parts = [part for event in events for part in event["candidates"][0].get("content", {}).get("parts", [])]
    return list(gemini_parts(parts))


def gemini_asked(body):
    return [list(gemini_parts(turn["parts"])) for turn in body["contents"] if turn.get("role") == "model"]


def responses_items(items):
    for item in items:
        match item.get("type"):
            case "reasoning":
                yield "reasoning", "".join(part["text"] for part in item["summary"]), item.get("encrypted_content")
            case "function_call":
                yield "call", item["name"], item["call_id"]


def responses_said(body):
    if isinstance(body, dict):
        return list(responses_items(body["output"]))
    done = [event["item"] for event in events_of(body) if event["type"] == "response.output_item.done"]
    return list(responses_items(done))


def responses_asked(body):
    return [list(responses_items(body["input"]))]


def details_of(details):
    """Chunks of one detail, put together."""
    merged = []
    for detail in details:
        kind = detail.get("type")
        is_more = merged and (merged[-1].get("type"), merged[-1].get("index")) == (kind, detail.get("index"))
        if is_more and kind == "reasoning.text" and not merged[-1].get("signature"):
            last = merged[-1]
            last["text"] = (last.get("text") or "") + (detail.get("text") or "")
            last["signature"] = detail.get("signature")
        elif is_more and kind == "reasoning.summary":
            merged[-1]["summary"] += detail["summary"]
        else:
            merged.append(dict(detail))
    for detail in merged:
        name = detail.get("type", "").removeprefix("reasoning.")
        yield name, detail.get("text") or detail.get("summary") or "", detail.get("signature") or detail.get("data")


def chat_message(message):
    for name in ("reasoning_content", "reasoning"):
        if isinstance(message.get(name), str) and message[name]:
            yield name, message[name], None
    yield from details_of(message.get("reasoning_details") or [])
    for call in message.get("tool_calls") or []:
        yield "call", call["function"]["name"], call["id"]


def chat_said(body):
    if isinstance(body, dict):
        return list(chat_message(body["choices"][0]["message"]))
    said = {"reasoning_content": "", "reasoning": "", "reasoning_details": [], "tool_calls": []}
    for event in events_of(body):
        for choice in event.get("choices") or []:
            delta = choice.get("delta") or {}
            said["reasoning_content"] += delta.get("reasoning_content") or ""
            said["reasoning"] += delta.get("reasoning") or ""
            said["reasoning_details"] += delta.get("reasoning_details") or []
            said["tool_calls"] += [call for call in delta.get("tool_calls") or [] if call.get("id")]
    # A call's id may stand on each of its chunks.
    said["tool_calls"] = list({call["id"]: call for call in reversed(said["tool_calls"])}.values())[::-1]
    return list(chat_message(said))


def chat_asked(body):
    return [list(chat_message(message)) for message in body["messages"] if message["role"] == "assistant"]


def cohere_said(body):
    message = body["message"]
    thoughts = [("thinking", part["thinking"], None) for part in message.get("content") or [] if "thinking" in part]
    plan = [("plan", message["tool_plan"], None)] if message.get("tool_plan") else []
    return [*thoughts, *plan, *(("call", call["function"]["name"], call["id"]) for call in message["tool_calls"])]


def cohere_asked(body):
    return [cohere_said({"message": turn}) for turn in body["messages"] if turn["role"] == "assistant"]


def bedrock_blocks(content):
    for block in content:
        if thought := block.get("reasoningContent"):
            text = thought.get("reasoningText") or {}
            yield "thinking", text.get("text", ""), text.get("signature") or thought.get("redactedContent")
        elif call := block.get("toolUse"):
            yield "call", call["name"], call["toolUseId"]


def bedrock_said(body):
    return list(bedrock_blocks(body["output"]["message"]["content"]))


def bedrock_asked(body):
    return [list(bedrock_blocks(turn["content"])) for turn in body["messages"] if turn["role"] == "assistant"]


SAID = {
    "anthropic-messages": (anthropic_said, anthropic_asked),
    "gemini": (gemini_said, gemini_asked),
    "openai-responses": (responses_said, responses_asked),
    "openai-chat": (chat_said, chat_asked),
    "cohere": (cohere_said, cohere_asked),
    "bedrock-converse": (bedrock_said, bedrock_asked),
}


def nothing() -> str:
    """Does nothing."""
    return "done"


def asked_again(model, answer, names, *, stream):
    """What a client says back to a server whose first answer is this one, and calls these tools."""
    tools = [Tool(nothing, name=name) for name in names]

    async def serve(call):
        await (answer if len(server.calls) == 1 else whole(b"", status="418 Enough"))(call)

    with (
        Server(serve) as server,
        sabir.Client(f"{model}@{server.url}", api_key="k", max_attempts=1) as client,
        pytest.raises(sabir.BadRequestError, match="418"),
    ):
        list(client.stream("Go on.", tools=tools)) if stream else client.ask("Go on.", tools=tools)
    return json.loads(server.calls[1].body)


def model_of(exchange):
    row = exchange["provider"] if exchange["provider"] in OWN_ROWS else ROWS[exchange["dialect"]]
    return f"{ROWS[exchange['dialect']] if exchange['dialect'] != 'openai-chat' else row}:{exchange['model']}"


def body_of(exchange):
    response = exchange["response"]
    if response.get("body_encoding") == "base64":
        return b64decode(response["body"])
    body = response["body"]
    return (body if isinstance(body, str) else json.dumps(body)).encode()


@cases(THOUGHT)
def test_recorded_thoughts_go_back_as_they_came(exchange):
    said, asked = SAID[exchange["dialect"]]
    response = exchange["response"]
    thought = said(response["body"])
    names = dict.fromkeys(name for what, name, _ in thought if what == "call")
    answer = whole(body_of(exchange), f"Content-Type: {response['content_type']}")
    body = asked_again(model_of(exchange), answer, names, stream=exchange["stream"])
    turns = asked(body)
    assert len(turns) == 1
    assert turns[0] == thought


def sealed_in(parts):
    """What is opaque, once each: some clients repeat a turn."""
    return list(dict.fromkeys(part for part in parts if part[2]))


def followed():
    """Recorded answers whose client sent something sealed of them back; with both lists."""
    before = {(each["source"], each["step"] + 1): each for each in THOUGHT}
    for after in RECORDED:
        exchange = before.get((after["source"], after["step"]))
        if exchange is None or not after["request"]:
            continue
        said, asked = SAID[exchange["dialect"]]
        turns = asked(after["request"]["body"])
        came, went = sealed_in(said(exchange["response"]["body"])), sealed_in(turns[-1] if turns else [])
        if any(part in came for part in went):
            yield pytest.param(came, went, id=exchange["id"])


FOLLOWED = list(followed())


@pytest.mark.parametrize(("came", "went"), FOLLOWED)
def test_recorded_clients_sent_back_the_same_in_the_same_order(came, went):
    """They leave out more than we do; what they keep was accepted where it stands."""
    assert [part for part in came if part in went] == [part for part in went if part in came]


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason=f"there are no recordings at {RECORDINGS}")
def test_the_recordings_have_what_is_asked_of_them():
    assert {each["dialect"] for each in THOUGHT} == set(SAID) - {"bedrock-converse"}
    assert {(each["dialect"], each["stream"]) for each in THOUGHT} >= {
        (name, is_stream)
        for name in ("anthropic-messages", "gemini", "openai-responses", "openai-chat")
        for is_stream in (False, True)
    }
    assert {"deepseek", "openrouter"} <= {each["provider"] for each in THOUGHT}
    assert len(FOLLOWED) > 30


# Made up: one turn in each format, whole and as a stream.


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("model", MADE_UP)
def test_a_turn_that_thought_goes_back_as_it_came(model, stream):
    spoken, streamed, read, expected = MADE_UP[model]
    streams = "application/vnd.amazon.eventstream" if model.startswith("bedrock") else "text/event-stream"
    answer = whole(streamed, f"Content-Type: {streams}") if stream else whole(spoken, "Content-Type: application/json")
    assert read(asked_again(model, answer, ["look"], stream=stream)) == expected


def test_what_is_sealed_stays_sealed_in_a_chat_that_is_stored_and_loaded():
    spoken, _, read, expected = MADE_UP["anthropic:claude-sonnet-4-6"]
    with (
        Server(whole(spoken, "Content-Type: application/json")) as server,
        sabir.Client(f"anthropic:claude-sonnet-4-6@{server.url}", api_key="k") as client,
    ):
        said = client.ask("Go on.", max_tool_rounds=0)
        stored = sabir.dump_messages([sabir.user("Go on."), *said.messages])
        client.ask([*sabir.load_messages(stored), sabir.user("And?")], max_tool_rounds=0)
    assert read(json.loads(server.calls[1].body)) == expected
