"""A conversation moves from any provider to any other: the other takes it, what it cannot be told is said, nobody reads
what is sealed for someone else, and back at its maker nothing is missing.

Each maker answers over HTTP, thinks and calls a tool; then the conversation is explained to each target. Who judges
what it would be sent: our own strict server half, and the request types of the vendor's SDK.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections import Counter
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, NotRequired, Required, Union, get_args, get_origin

import anthropic.types
import botocore.session
import cohere
import msgspec
import ollama
import openai.types.chat
import openai.types.responses
import pytest
import typing_extensions
from botocore.validate import ParamValidator
from google.genai import types as genai
from mistralai.client import models as mistral
from servers import Server, whole
from thoughts import CALL, MADE_UP, SECRET, SIGNATURE, chat

import sabir
from sabir import (
    Audio,
    File,
    Image,
    Message,
    ProviderState,
    Refusal,
    ServerItem,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from sabir.dialects import response_of
from sabir.providers import parse_model
from sabir.tools import Tool

PIXEL = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
SEALED = (SIGNATURE, SECRET, "early")
FOREIGN_ID = "functions.look:0"

# The whole answers of makers that seal nothing.
OPEN = {
    "mistral:magistral-medium-latest": chat(
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "Let me look. "}]},
                {"type": "text", "text": "One moment."},
            ],
            "tool_calls": [{**CALL, "id": "abcDEF123"}],
        }
    ),
    "cohere:command-a-reasoning-08-2025": {
        "id": "1",
        "finish_reason": "TOOL_CALL",
        "message": {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "Let me look. "}, {"type": "text", "text": "One moment."}],
            "tool_calls": [CALL],
        },
    },
    "ollama:qwen3": {
        "model": "qwen3",
        "done": True,
        "done_reason": "stop",
        "message": {
            "role": "assistant",
            "thinking": "Let me look. ",
            "content": "One moment.",
            "tool_calls": [{"function": {"name": "look", "arguments": {}}}],
        },
    },
    "moonshot:kimi-k2-thinking": chat(
        {
            "reasoning_content": "Let me look. ",
            "content": "One moment.",
            "tool_calls": [{**CALL, "id": FOREIGN_ID}],
        }
    ),
}
MAKERS = {**{model: json.loads(spoken) for model, (spoken, *_) in MADE_UP.items()}, **OPEN}
TARGETS = (*MAKERS, "openai-chat:gpt-4o-mini", "groq:openai/gpt-oss-120b")


def look() -> str:
    """Look around."""
    return "A fox!"


@cache
def moved(maker: str) -> tuple[tuple[Message, ...], str]:
    """A conversation that this maker had over HTTP, and its server's place, which has gone since."""
    first, last = json.dumps(MAKERS[maker]).encode(), end_of(maker)

    async def answer(call):
        await whole(first if len(server.calls) == 1 else last, "Content-Type: application/json")(call)

    with Server(answer) as server, sabir.Client(f"{maker}@{server.url};tools,thinking,vision", api_key="k") as client:
        asked = (sabir.system("Be kind."), sabir.user("Look!", Image(data=PIXEL, media_type="image/png")))
        said = client.ask(asked, tools=[look])
        assert len(server.calls) == 2
        refused = Message("assistant", (Refusal(text="I would rather not."),))
        return (*asked, *said.messages, sabir.user("Tell me more."), refused, sabir.user("Why?")), server.url


def end_of(maker: str) -> bytes:
    """An answer in the maker's format that only says that it was a fox."""
    dialect = parse_model(maker).provider.dialect
    response = response_of("anthropic", [])
    message = Message("assistant", (Text(text="It was a fox."),))
    return dialect.encode_response(msgspec.structs.replace(response, message=message, finish_reason="stop", model="m"))


def explained(target: str, history: tuple[Message, ...], url: str) -> sabir.Explanation:
    with sabir.Client(f"{target}@{url};tools,thinking,vision", api_key="k") as client:
        return client.explain(history, tools=[Tool(look)])


# The vendors' own words for what they take.


def fits(value: Any, hint: Any) -> bool:
    """Whether JSON is what a type of an SDK's requests says. pydantic reads their `Iterable`s too late to be asked."""
    origin, of = get_origin(hint), get_args(hint)
    if hint is Any or hint is object:
        return True
    if origin in (Required, NotRequired, Annotated):
        return fits(value, of[0])
    if origin in (Union, UnionType):
        return any(fits(value, each) for each in of)
    if origin is Literal:
        return value in of
    if typing_extensions.is_typeddict(hint):
        known = typing_extensions.get_type_hints(hint)
        is_whole = isinstance(value, dict) and hint.__required_keys__ <= value.keys() <= known.keys()
        return is_whole and all(fits(item, known[name]) for name, item in value.items())
    if origin is dict:
        return isinstance(value, dict) and all(fits(item, of[1]) for item in value.values())
    if origin is not None:
        return isinstance(value, list) and all(fits(item, of[0]) for item in value)
    return isinstance(value, (int, float) if hint is float else hint)


def judged_by_openai(body):
    for message in body["messages"]:
        # What is no OpenAI's own (thinking that its maker is handed back) is unknown to its types.
        known = {name: item for name, item in message.items() if not name.startswith("reasoning")}
        assert fits(known, openai.types.chat.ChatCompletionMessageParam), message


# What the types require and the API does not: recorded requests without these were answered.
FILLED = {"output_text": {"annotations": []}, "input_image": {"detail": "auto"}}


def judged_by_openai_responses(body):
    for item in body["input"]:
        if item.get("type") == "message":
            content = [{**FILLED.get(part["type"], {}), **part} for part in item["content"]]
            item = {**item, "content": content}
            if item["role"] == "assistant":
                item = {"id": "msg_1", "status": "completed", **item}
        assert fits(item, openai.types.responses.ResponseInputItemParam), item
        assert len(item.get("call_id", "")) <= 64


def judged_by_anthropic(body):
    for message in body["messages"]:
        assert fits(message, anthropic.types.MessageParam), message


def judged_by_gemini(body):
    for content in body["contents"]:
        genai.Content.model_validate(content)


def judged_by_mistral(body):
    mistral.ChatCompletionRequest.model_validate(body)


def judged_by_ollama(body):
    for message in body["messages"]:
        images = [ollama.Image(value=image) for image in message.get("images", ())]
        ollama.Message.model_validate({**message, "images": images})


def judged_by_cohere(body):
    models = {
        "system": cohere.SystemChatMessageV2,
        "user": cohere.UserChatMessageV2,
        "assistant": cohere.AssistantChatMessageV2,
        "tool": cohere.ToolChatMessageV2,
    }
    for message in body["messages"]:
        models[message["role"]].model_validate(message)


@cache
def converse():
    client = botocore.session.Session().create_client(
        "bedrock-runtime", region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
    )
    return client.meta.service_model.operation_model("Converse").input_shape


def judged_by_bedrock(body):
    report = ParamValidator().validate({**in_bytes(body), "modelId": "m"}, converse())
    assert not report.has_errors(), report.generate_report()


def in_bytes(value):
    """A body as the SDK is given it, whose blobs are bytes."""
    if isinstance(value, list):
        return [in_bytes(item) for item in value]
    if not isinstance(value, dict):
        return value
    blobs = ("bytes", "redactedContent")
    return {name: b64decode(item) if name in blobs else in_bytes(item) for name, item in value.items()}


JUDGES = {
    "openai_chat": judged_by_openai,
    "openai_responses": judged_by_openai_responses,
    "anthropic": judged_by_anthropic,
    "gemini": judged_by_gemini,
    "mistral": judged_by_mistral,
    "ollama": judged_by_ollama,
    "cohere": judged_by_cohere,
    "bedrock": judged_by_bedrock,
}


def words_of(messages):
    """All that is shown of a conversation, counted; refusals and texts are not told apart."""
    for message in messages:
        for part in message.parts:
            match part:
                case Text() | Refusal() if part.text:
                    yield message.role, part.text
                case ToolCall():
                    yield "call", part.name, json.dumps(part.arguments)
                case ToolResult():
                    yield "result", part.text
                case Image():
                    yield "image", part.data
                case _:
                    pass


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("maker", MAKERS)
def test_a_conversation_goes_to_any_other_and_what_that_is_not_told_is_said(maker, target):
    history, _ = moved(maker)
    told = explained(target, history, "http://127.0.0.1:1")
    body = json.dumps(told.body)
    assert not [secret for secret in SEALED if f'"{secret}"' in body]
    JUDGES[told.dialect](told.body)

    request = parse_model(target).provider.dialect.decode_request(body.encode())
    assert Counter(words_of(request.messages)) == Counter(words_of(history))

    calls = [call.id for message in request.messages for call in message.tool_calls]
    answered = [part.call_id for message in request.messages for part in message.parts if isinstance(part, ToolResult)]
    assert answered == calls
    if told.dialect == "mistral":
        assert all(len(made) == 9 and made.isalnum() for made in calls)
    if told.dialect in ("anthropic", "bedrock"):
        assert all(made.replace("_", "").replace("-", "").isalnum() for made in calls)

    said = {(notice.kind, notice.subject) for notice in told.notices}
    assert "state" in {subject for _, subject in said} or maker not in MADE_UP
    thoughts = [part.text for message in request.messages for part in message.parts if isinstance(part, Thinking)]
    if thoughts != [part.text for message in history for part in message.parts if isinstance(part, Thinking)]:
        assert ("dropped", "Thinking") in said
    if Refusal not in {type(part) for message in request.messages for part in message.parts}:
        assert ("emulated", "Refusal") in said


LONE = {
    "a thought of another's": Thinking(text="hm", state=ProviderState("anthropic", {"signature": "s"}, maker="x")),
    "a bare thought": Thinking(text="hm"),
    "a search of another's": ServerItem(kind="search", state=ProviderState("openai_responses", {}, maker="x")),
    "a file": File(id="file_1"),
    "a sound": Audio(id="audio_1"),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("lone", LONE)
def test_a_message_of_which_nothing_can_be_sent_is_left_out_and_said_to_be(lone, target):
    part = LONE[lone]
    history = (sabir.user("Look!"), Message("assistant", (part,)), sabir.user("And?"))
    told = explained(target, history, "http://127.0.0.1:1")
    JUDGES[told.dialect](told.body)
    request = parse_model(target).provider.dialect.decode_request(json.dumps(told.body).encode())
    assert [text for _, text in words_of(request.messages)] == ["Look!", "And?"]
    is_named = getattr(part, "id", None) is not None and str(part.id) in json.dumps(told.body)
    if is_named or (told.dialect == "ollama" and request.messages[1].role == "assistant"):
        # Chat completions and Gemini can name what a model made. Ollama takes a message that says nothing.
        return
    assert [message.role for message in request.messages] == ["user"] * len(request.messages)
    assert ("dropped", type(part).__name__) in {(notice.kind, notice.subject) for notice in told.notices}


@pytest.mark.parametrize("maker", MADE_UP)
def test_back_at_its_maker_nothing_is_missing(maker):
    history, url = moved(maker)
    before = explained("mistral:mistral-small-latest", history, "http://127.0.0.1:1")
    assert before.notices
    back = explained(maker, history, url)
    _, _, _, expected = MADE_UP[maker]
    for value in secrets_of(expected):
        assert value in json.dumps(back.body)
    assert not [notice for notice in back.notices if notice.kind == "dropped"]


def secrets_of(value):
    """What is sealed in a body, wherever it stands."""
    return [secret for secret in SEALED if f'"{secret}"' in json.dumps(value)]


@pytest.mark.parametrize("maker", MAKERS)
def test_the_embedded_model_goes_on_with_what_any_other_said(maker, pico):
    history, _ = moved(maker)
    # It sees no images.
    seen = tuple(
        Message(message.role, tuple(part for part in message.parts if not isinstance(part, Image)))
        if message.role == "user"
        else message
        for message in history
    )
    with sabir.Client(pico) as client:
        answer = client.ask(seen, max_tokens=4)
    assert answer.usage.output_tokens
    assert "Thinking" in {notice.subject for notice in answer.warnings}
    if maker in MADE_UP:
        assert "state" in {notice.subject for notice in answer.warnings}


@pytest.mark.parametrize("target", MAKERS)
def test_what_the_embedded_model_said_goes_anywhere(target, pico):
    with sabir.Client(pico) as client:
        said = client.ask("What is the weather in Bodø?", max_tokens=8)
    told = explained(
        target, (sabir.user("What is the weather in Bodø?"), *said.messages, sabir.user("And?")), "http://127.0.0.1:1"
    )
    JUDGES[told.dialect](told.body)
    request = parse_model(target).provider.dialect.decode_request(json.dumps(told.body).encode())
    assert said.text in [message.text for message in request.messages]


@pytest.mark.parametrize("dialect", JUDGES)
def test_a_judge_knows_what_does_not_fit(dialect):
    odd = [{"role": "wizard", "content": [{"type": "spell", "spell": 5}], "parts": [{"spell": 5}]}]
    with pytest.raises((AssertionError, ValueError, KeyError)):
        JUDGES[dialect]({"model": "m", "messages": odd, "contents": odd, "input": odd})


@pytest.mark.parametrize("maker", ["anthropic:claude-sonnet-4-6", "bedrock:anthropic.claude-sonnet-4-6"])
def test_an_odd_id_of_ones_own_names_the_same_call_when_it_comes_back(maker):
    spoken = json.dumps(MAKERS[maker]).replace("toolu_1", FOREIGN_ID).replace("tooluse_1", FOREIGN_ID).encode()

    async def answer(call):
        body = spoken if len(server.calls) == 1 else end_of(maker)
        await whole(body, "Content-Type: application/json")(call)

    with Server(answer) as server, sabir.Client(f"{maker}@{server.url}", api_key="k") as client:
        client.ask("Look!", tools=[look])
    request = parse_model(maker).provider.dialect.decode_request(server.calls[1].body)
    asked, answered = request.messages[1], request.messages[2]
    assert [call.id for call in asked.tool_calls] == [part.call_id for part in answered.parts]
