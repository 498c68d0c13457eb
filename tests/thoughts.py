"""One turn in each format, made up: it thinks, once in secret where the format has that, and calls a tool.

`MADE_UP` has for each model string the turn as a whole answer, as a stream, how to find it in the body of the next
request, and what is to be found there.
"""

from __future__ import annotations

import json

from sabir.dialects.event_stream import encode_message


def sse(*events):
    named = [f"event: {event['type']}\n" if "type" in event else "" for event in events]
    return "".join(f"{name}data: {json.dumps(event)}\n\n" for name, event in zip(named, events, strict=True)).encode()


SIGNATURE, SECRET = "c2lnbmVkLys9", "c2VjcmV0"

ANTHROPIC_BLOCKS = [
    {"type": "thinking", "thinking": "Let me look. ", "signature": SIGNATURE},
    {"type": "redacted_thinking", "data": SECRET},
    {"type": "text", "text": "One moment."},
    {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}},
]
ANTHROPIC = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-6",
    "stop_reason": "tool_use",
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


def anthropic_events():
    yield {"type": "message_start", "message": {**ANTHROPIC, "content": [], "stop_reason": None}}
    for index, block in enumerate(ANTHROPIC_BLOCKS):
        begun = {"thinking": {"thinking": "", "signature": ""}, "text": {"text": ""}}.get(block["type"], {})
        yield {"type": "content_block_start", "index": index, "content_block": {**block, **begun}}
        if block["type"] == "thinking":
            for piece in ("Let me ", "look. "):
                delta = {"type": "thinking_delta", "thinking": piece}
                yield {"type": "content_block_delta", "index": index, "delta": delta}
            delta = {"type": "signature_delta", "signature": SIGNATURE}
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        elif block["type"] == "text":
            delta = {"type": "text_delta", "text": block["text"]}
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    yield {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}}
    yield {"type": "message_stop"}


BEDROCK_BLOCKS = [
    {"reasoningContent": {"reasoningText": {"text": "Let me look. ", "signature": SIGNATURE}}},
    {"reasoningContent": {"redactedContent": SECRET}},
    {"text": "One moment."},
    {"toolUse": {"toolUseId": "tooluse_1", "name": "look", "input": {}}},
]
BEDROCK_END = {"usage": {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}, "metrics": {"latencyMs": 1}}


def bedrock_events():
    def event(kind, **payload):
        names = {":message-type": "event", ":event-type": kind, ":content-type": "application/json"}
        return encode_message(names, json.dumps(payload).encode())

    def delta(index, **piece):
        return event("contentBlockDelta", contentBlockIndex=index, delta=piece)

    yield event("messageStart", role="assistant")
    yield delta(0, reasoningContent={"text": "Let me "})
    yield delta(0, reasoningContent={"text": "look. "})
    yield delta(0, reasoningContent={"signature": SIGNATURE})
    yield event("contentBlockStop", contentBlockIndex=0)
    yield delta(1, reasoningContent={"redactedContent": SECRET})
    yield event("contentBlockStop", contentBlockIndex=1)
    yield delta(2, text="One moment.")
    yield event("contentBlockStop", contentBlockIndex=2)
    call = {"toolUse": {"toolUseId": "tooluse_1", "name": "look"}}
    yield event("contentBlockStart", contentBlockIndex=3, start=call)
    yield delta(3, toolUse={"input": "{}"})
    yield event("contentBlockStop", contentBlockIndex=3)
    yield event("messageStop", stopReason="tool_use")
    yield event("metadata", **BEDROCK_END)


GEMINI_PARTS = [
    {"text": "Let me look. ", "thought": True},
    {"text": "One moment."},
    {"functionCall": {"name": "look", "args": {}}, "thoughtSignature": SIGNATURE},
    {"functionCall": {"name": "look", "args": {"at": "it"}}},
    {"text": "", "thoughtSignature": SECRET},
]


def gemini(parts, **more):
    candidate = {"content": {"role": "model", "parts": parts}, "index": 0, **more}
    return {"candidates": [candidate], "modelVersion": "gemini-3-flash-preview"}


RESPONSES_ITEMS = [
    {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "Let me look."}],
        "encrypted_content": SIGNATURE,
    },
    {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": SECRET},
    {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look", "arguments": "{}"},
]
RESPONSES = {"id": "resp_1", "object": "response", "model": "gpt-5", "status": "completed", "usage": None}


def responses_events():
    yield {"type": "response.created", "response": {**RESPONSES, "status": "in_progress", "output": []}}
    for index, item in enumerate(RESPONSES_ITEMS):
        # What is sealed at the start is sealed anew by the end.
        begun = (
            {**item, "summary": [], "encrypted_content": "early"} if "summary" in item else {**item, "arguments": ""}
        )
        yield {"type": "response.output_item.added", "output_index": index, "item": begun}
        if item.get("summary"):
            place = {"item_id": item["id"], "output_index": index, "summary_index": 0}
            part = {"type": "summary_text", "text": ""}
            yield {"type": "response.reasoning_summary_part.added", **place, "part": part}
            yield {"type": "response.reasoning_summary_text.delta", **place, "delta": "Let me look."}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": "response.completed", "response": {**RESPONSES, "output": RESPONSES_ITEMS}}


CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
DEEPSEEK = {"reasoning_content": "Let me look. ", "content": "One moment.", "tool_calls": [CALL]}
OPENROUTER = {
    "reasoning": "Let me look. ",
    "reasoning_details": [
        {"type": "reasoning.text", "text": "Let me look. ", "signature": SIGNATURE, "format": "f", "index": 0},
        {"type": "reasoning.encrypted", "data": SECRET, "id": "call_1", "format": "f", "index": 1},
    ],
    "content": "One moment.",
    "tool_calls": [CALL],
}


def chat(message):
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "tool_calls"}
    return {"id": "1", "model": "m", "choices": [choice]}


def chat_events(*pieces):
    for piece in pieces:
        yield {"id": "1", "model": "m", "choices": [{"index": 0, "delta": piece, "finish_reason": None}]}
    yield {"id": "1", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}


TEXT_DETAIL, SECRET_DETAIL = OPENROUTER["reasoning_details"]
INDEXED = {"tool_calls": [{**CALL, "index": 0}]}
MADE_UP = {
    "anthropic:claude-sonnet-4-6": (
        json.dumps({**ANTHROPIC, "content": ANTHROPIC_BLOCKS}).encode(),
        sse(*anthropic_events()),
        lambda body: body["messages"][1]["content"],
        ANTHROPIC_BLOCKS,
    ),
    "bedrock:anthropic.claude-sonnet-4-6": (
        json.dumps(
            {"output": {"message": {"role": "assistant", "content": BEDROCK_BLOCKS}}, "stopReason": "tool_use"}
            | BEDROCK_END
        ).encode(),
        b"".join(bedrock_events()),
        lambda body: body["messages"][1]["content"],
        BEDROCK_BLOCKS,
    ),
    "gemini:gemini-3-flash-preview": (
        json.dumps(gemini(GEMINI_PARTS, finishReason="STOP")).encode(),
        sse(*(gemini([part]) for part in GEMINI_PARTS), gemini([], finishReason="STOP")),
        lambda body: body["contents"][1]["parts"],
        GEMINI_PARTS,
    ),
    "openai-responses:gpt-5": (
        json.dumps({**RESPONSES, "output": RESPONSES_ITEMS}).encode(),
        sse(*responses_events()),
        lambda body: body["input"][1:4],
        RESPONSES_ITEMS,
    ),
    "deepseek:deepseek-reasoner": (
        json.dumps(chat(DEEPSEEK)).encode(),
        sse(
            *chat_events(
                {"reasoning_content": "Let me "}, {"reasoning_content": "look. "}, {"content": "One moment."}, INDEXED
            )
        ),
        lambda body: {name: body["messages"][1][name] for name in DEEPSEEK},
        DEEPSEEK,
    ),
    "openrouter:anthropic/claude-sonnet-4.6": (
        json.dumps(chat(OPENROUTER)).encode(),
        sse(
            *chat_events(
                {
                    "reasoning": "Let me ",
                    "reasoning_details": [{**TEXT_DETAIL, "text": "Let me ", "signature": None}],
                },
                {"reasoning": "look. ", "reasoning_details": [{**TEXT_DETAIL, "text": "look. ", "signature": None}]},
                {"reasoning_details": [{**TEXT_DETAIL, "text": ""}]},
                {"reasoning_details": [SECRET_DETAIL]},
                {"content": "One moment."},
                INDEXED,
            )
        ),
        lambda body: {name: body["messages"][1].get(name) for name in OPENROUTER},
        OPENROUTER,
    ),
}
