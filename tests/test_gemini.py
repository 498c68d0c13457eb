"""Google's format, both halves: what is sent, what is understood, and that nothing is lost there and back."""

from __future__ import annotations

import json
from base64 import b64encode
from functools import partial
from pathlib import Path
from typing import Any

import halves
import msgspec
import pytest
from halves import replaced, same, values_in
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sabir.credentials import find_key
from sabir.deltas import Assembler, Blob, Close, Count, Event, Finish, Head, Note, Open, State, Text
from sabir.dialects import Unsupported, mapping_of, response_of
from sabir.dialects.gemini import NAME, Gemini
from sabir.dialects.json_paths import PathText
from sabir.errors import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ContentFilterError,
    ContextOverflowError,
    DeadlineExceeded,
    EngineError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitError,
    SabirError,
    ServerError,
    StreamInterrupted,
    StreamProtocolError,
    UnsupportedError,
)
from sabir.messages import (
    Audio,
    File,
    Image,
    Message,
    ProviderState,
    Refusal,
    ServerItem,
    Thinking,
    ToolCall,
    ToolResult,
    Value,
    assistant,
    system,
    user,
)
from sabir.messages import Text as TextPart
from sabir.providers import PROVIDERS
from sabir.requests import Options, OutputSchema, Request, ToolSpec
from sabir.strict_json import encode_json
from sabir.usage import Usage

RECORDINGS = Path(__file__).resolve().parent.parent.parent / "shared" / "recordings" / "gemini.jsonl"
DIALECT = Gemini()
streamed = partial(halves.streamed, DIALECT)
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = ToolSpec("look", "Look around.", CITY)
DECLARED = {"name": "look", "description": "Look around.", "parametersJsonSchema": CITY}


def own(**value):
    return ProviderState(NAME, value)


def thought(words, **more):
    return Thinking(text=words, state=own(set={"thought": True, **more}))


def kinds(notices):
    return [(notice.kind, notice.subject) for notice in notices]


def said(role, *parts):
    return {"role": role, "parts": list(parts)}


def text(words, **more):
    return {"text": words, **more}


HELLO = (user("hi"),)


def encoded(messages=HELLO, dialect=DIALECT, model="m", **fields):
    http, notices = dialect.encode_request(Request(model=model, messages=tuple(messages), **fields))
    return json.loads(http.body), list(notices)


def plain(**fields):
    return {"contents": [said("user", text("hi"))], **fields}


def decoded(data, cuts=()):
    """The deltas of a stream that comes in pieces, and the error it ends with."""
    decoder, deltas = DIALECT.decoder(), []
    ends = [*sorted(cuts), len(data)]
    try:
        for start, end in zip([0, *ends], ends, strict=False):
            deltas += decoder.feed(data[start:end])
            if decoder.is_over:
                break
        deltas += decoder.close()
    except SabirError as error:
        return deltas, error
    return deltas, None


def total(deltas):
    assembler = Assembler(NAME)
    for delta in deltas:
        assembler.add(delta)
    return assembler.choices, assembler.usage, assembler.finishes


def sse(*chunks):
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n" for chunk in chunks)


def chunks_of(data):
    return [json.loads(line[5:]) for line in data.decode().splitlines() if line.startswith("data:")]


def candidate(*parts, finish=None, **more):
    content = {"content": said("model", *parts)} if parts else {}
    return {**content, **({"finishReason": finish} if finish else {}), **more}


def answer(*candidates, **more):
    return {"candidates": list(candidates), **more}


# The client's half: requests.


@pytest.mark.parametrize(
    ("model", "stream", "url"),
    [
        ("gemini-2.5-flash", False, "/models/gemini-2.5-flash:generateContent"),
        ("gemini-2.5-flash", True, "/models/gemini-2.5-flash:streamGenerateContent?alt=sse"),
        ("tunedModels/mine", False, "/tunedModels/mine:generateContent"),
        ("a b?c", False, "/models/a%20b%3Fc:generateContent"),
    ],
)
def test_the_model_and_the_wish_to_stream_stand_in_the_address(model, stream, url):
    http, _ = DIALECT.encode_request(Request(model=model, messages=HELLO, stream=stream, headers={"x-mine": "1"}))
    assert (http.method, http.url) == ("POST", url)
    assert http.headers == (("content-type", "application/json"), ("x-mine", "1"))
    assert json.loads(http.body) == plain()
    assert DIALECT.decode_path("/v1beta" + http.url) == (model.removeprefix("tunedModels/"), stream)


@pytest.mark.parametrize(
    "path", ["", "/", "/v1beta/models", "/models/m", "/models/m:countTokens", "/models/:generateContent"]
)
def test_another_address_is_nobodys(path):
    with pytest.raises(NotFoundError):
        DIALECT.decode_path(path)


CONFIG: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
    ({"temperature": 0.0}, {"temperature": 0.0}),
    ({"top_p": 0.5}, {"topP": 0.5}),
    ({"top_k": 5}, {"topK": 5}),
    ({"min_p": 0.5}, None),
    ({"max_tokens": 7}, {"maxOutputTokens": 7}),
    ({"stop": ("a", "b")}, {"stopSequences": ["a", "b"]}),
    ({"seed": 0}, {"seed": 0}),
    ({"frequency_penalty": 0.5}, {"frequencyPenalty": 0.5}),
    ({"presence_penalty": 0.5}, {"presencePenalty": 0.5}),
    ({"repetition_penalty": 1.5}, None),
    ({"thinking": True}, {"thinkingConfig": {"includeThoughts": True}}),
    ({"parallel_tool_calls": False}, None),
    ({"logprobs": True}, {"responseLogprobs": True}),
    ({"top_logprobs": 5}, {"logprobs": 5}),
    ({"n": 2}, {"candidateCount": 2}),
    ({"user": "ada"}, None),
    ({"documents": ("a",)}, None),
    ({"documents": ("a",)}, None),
    ({"extra": {"generationConfig": {"responseModalities": ["TEXT"]}}}, {"responseModalities": ["TEXT"]}),
]


@pytest.mark.parametrize(("options", "sent"), CONFIG)
def test_an_option_is_sent_in_the_apis_words_or_reported(options, sent):
    body, notices = encoded(**options)
    if sent is None:
        assert body == plain()
        assert kinds(notices) == [("unsupported", *options)]
    else:
        assert body == plain(generationConfig=sent)
        assert notices == []


CALLING = [
    ("auto", {"mode": "AUTO"}),
    ("none", {"mode": "NONE"}),
    ("required", {"mode": "ANY"}),
    ("look", {"mode": "ANY", "allowedFunctionNames": ["look"]}),
]


@pytest.mark.parametrize(("choice", "config"), CALLING)
def test_a_choice_of_tools_is_a_mode_of_calling(choice, config):
    body, notices = encoded(tools=(TOOL,), tool_choice=choice)
    assert body == plain(tools=[{"functionDeclarations": [DECLARED]}], toolConfig={"functionCallingConfig": config})
    assert notices == []
    assert DIALECT.decode_request(json.dumps(body).encode()).tool_choice == choice
    body, notices = encoded(tool_choice=choice)
    assert (body, kinds(notices)) == (plain(), [("dropped", "tool_choice")])


def test_every_portable_option_has_a_verdict_and_is_tried_above():
    verdicts = DIALECT.verdicts()
    assert set(verdicts) == set(Options.__annotations__) | {"schema"}
    tried = {name for options, _ in CONFIG for name in options} | {"tool_choice"}
    # What becomes of `cache` is in test_prompt_cache.py, for all formats.
    assert set(Options.__annotations__) - {"headers", "cache"} <= tried
    for options, sent in CONFIG:
        for name in options.keys() & verdicts.keys():
            assert isinstance(verdicts[name], Unsupported) == (sent is None)


def test_what_is_given_as_extra_goes_over_the_rest_field_by_field():
    extra = {"generationConfig": {"topK": 1}, "safetySettings": [], "cachedContent": "cachedContents/1"}
    body, _ = encoded(temperature=0.5, top_k=9, extra=extra)
    sent = {"safetySettings": [], "cachedContent": "cachedContents/1"}
    assert body == plain(generationConfig={"temperature": 0.5, "topK": 1}, **sent)


BUDGET, LEVEL = Gemini(thinking="budget"), Gemini(thinking="level")


@pytest.mark.parametrize(
    ("model", "asked", "config", "noticed"),
    [
        ("gemini-2.5-flash", True, {"includeThoughts": True, "thinkingBudget": -1}, []),
        ("gemini-2.5-flash", False, {"thinkingBudget": 0}, []),
        ("gemini-2.5-flash-lite", 600, {"includeThoughts": True, "thinkingBudget": 600}, []),
        ("gemini-2.5-flash", 1, {"includeThoughts": True, "thinkingBudget": 1}, []),
        ("gemini-2.5-flash", "high", {"includeThoughts": True, "thinkingBudget": 24576}, ["thinking"]),
        ("gemini-2.5-pro", False, {"thinkingBudget": 128}, ["thinking"]),
        ("gemini-2.0-flash", False, None, []),
        ("gemini-2.0-flash", True, None, ["thinking"]),
        ("gemini-1.5-pro", "low", None, ["thinking"]),
        ("gemini-3-flash-preview", True, {"includeThoughts": True}, []),
        ("gemini-3-flash-preview", False, {"thinkingLevel": "minimal"}, ["thinking"]),
        ("gemini-3.5-flash", "minimal", {"includeThoughts": True, "thinkingLevel": "minimal"}, []),
        ("gemini-3.7-flash", "minimal", {"includeThoughts": True, "thinkingLevel": "low"}, ["thinking"]),
        ("gemini-3.1-pro-preview", False, {"thinkingLevel": "low"}, ["thinking"]),
        ("gemini-3.1-pro-preview", "medium", {"includeThoughts": True, "thinkingLevel": "medium"}, []),
        ("gemini-3-pro-preview", "medium", {"includeThoughts": True, "thinkingLevel": "high"}, ["thinking"]),
        ("gemini-flash-latest", 900, {"includeThoughts": True, "thinkingLevel": "low"}, ["thinking"]),
        ("gemini-3.6-flash", 9000, {"includeThoughts": True, "thinkingLevel": "high"}, ["thinking"]),
        ("some-model", "low", {"includeThoughts": True, "thinkingLevel": "low"}, []),
    ],
)
def test_a_model_is_asked_to_think_as_it_can(model, asked, config, noticed):
    body, notices = encoded(model=model, thinking=asked)
    assert body.get("generationConfig", {}).get("thinkingConfig") == config
    assert [notice.subject for notice in notices] == noticed


def test_how_a_model_thinks_can_be_said_by_a_row():
    assert encoded(dialect=BUDGET, thinking=5)[0]["generationConfig"]["thinkingConfig"]["thinkingBudget"] == 5
    body, _ = encoded(dialect=LEVEL, model="gemini-2.5-flash", thinking="low")
    assert body["generationConfig"]["thinkingConfig"]["thinkingLevel"] == "low"


def test_a_schema_is_enforced_as_far_as_the_api_does():
    body, notices = encoded(schema=OutputSchema("answer", CITY))
    assert body == plain(generationConfig={"responseMimeType": "application/json", "responseJsonSchema": CITY})
    assert notices == []
    loose = {"type": "object", "properties": {"pattern": {"type": "string", "pattern": "a", "minLength": 2}}}
    body, notices = encoded(schema=OutputSchema("answer", {"anyOf": [loose]}))
    told = {"type": "string", "description": '(pattern: "a", minLength: 2)'}
    sent = {"type": "object", "properties": {"pattern": told}}
    assert body["generationConfig"]["responseJsonSchema"] == {"anyOf": [sent]}
    assert kinds(notices) == [("emulated", "schema")]
    assert "pattern $.pattern, minLength $.pattern" in str(notices[0])


def test_what_stands_beside_a_reference_goes_around_it():
    city = {"type": "object", "properties": {"name": {"type": "string"}}}
    shape = {
        "type": "object",
        "properties": {"at": {"$ref": "#/$defs/City", "description": "Where."}, "to": {"$ref": "#/$defs/City"}},
        "$defs": {"City": city},
    }
    around = {"anyOf": [{"$ref": "#/$defs/City"}], "description": "Where."}
    lowered = {**shape, "properties": {**shape["properties"], "at": around}}
    body, notices = encoded(tools=(ToolSpec("look", "", shape),), schema=OutputSchema("answer", shape))
    assert body["generationConfig"]["responseJsonSchema"] == lowered
    assert body["tools"] == [{"functionDeclarations": [{"name": "look", "parametersJsonSchema": lowered}]}]
    assert notices == []


def test_a_schema_beside_tools_takes_another_way_where_the_model_takes_only_one_of_them():
    for model, modes in (
        ("gemini-2.5-flash", ("tool", "prompt")),
        ("gemini-3.5-flash", ("native", "tool", "prompt")),
    ):
        request = Request(model=model, messages=(user("hi"),), tools=(TOOL,), schema=OutputSchema("answer", CITY))
        assert Gemini().schema_modes(request) == modes
        alone = msgspec.structs.replace(request, tools=())
        assert Gemini().schema_modes(alone) == ("native", "tool", "prompt")


def test_the_functions_are_declared_in_one_tool_and_the_apis_own_stand_beside_it():
    search = ToolSpec("googleSearch", state=own(set={"googleSearch": {}}, unset=["functionDeclarations"]))
    body, _ = encoded(tools=(TOOL, search, ToolSpec("wait")))
    assert body["tools"] == [{"functionDeclarations": [DECLARED, {"name": "wait"}]}, {"googleSearch": {}}]
    with pytest.raises(UnsupportedError, match="another provider"):
        encoded(tools=(ToolSpec("search", state=ProviderState("openai_chat", {"set": {}})),))


CALL = ToolCall(name="look", input='{"city":"Oslo"}', id="c1")
WIRE_CALL = {"functionCall": {"id": "c1", "name": "look", "args": {"city": "Oslo"}}}
RESULT = ToolResult(call_id="c1", name="look", content=(TextPart(text="seen"),))
PIXEL = {"mimeType": "image/png", "data": "AAE="}
IMAGE = Image(data=b"\0\1", media_type="image/png")


def response(**told):
    return {"functionResponse": {"id": "c1", "name": "look", **told}}


WIRE_RESULT = response(response={"output": "seen"})
MESSAGES: list[tuple[list[Message], list[dict[str, Any]]]] = [
    ([user("a", "b")], [said("user", text("a"), text("b"))]),
    (
        [user("a"), user("b"), assistant("c")],
        [said("user", text("a")), said("user", text("b")), said("model", text("c"))],
    ),
    ([user(Value(value={"a": None}))], [said("user", text('{"a":null}'))]),
    ([user(IMAGE)], [said("user", {"inlineData": PIXEL})]),
    (
        [user(Image(url="https://x/a b.png", media_type="image/png"))],
        [said("user", {"fileData": {"mimeType": "image/png", "fileUri": "https://x/a b.png"}})],
    ),
    (
        [user(Audio(data=b"\0\1", media_type="audio/mpeg"))],
        [said("user", {"inlineData": {"mimeType": "audio/mpeg", "data": "AAE="}})],
    ),
    (
        [user(File(data=b"%PDF", media_type="application/pdf", name="a.pdf"))],
        [said("user", {"inlineData": {"mimeType": "application/pdf", "data": "JVBERg==", "displayName": "a.pdf"}})],
    ),
    ([user(File(url="https://youtu.be/x"))], [said("user", {"fileData": {"fileUri": "https://youtu.be/x"}})]),
    ([user(File(id="files/1"))], [said("user", {"fileData": {"fileUri": "files/1"}})]),
    (
        [user(File(data=b"\0", media_type="video/mp4", state=own(set={"videoMetadata": {"fps": 1}})))],
        [said("user", {"inlineData": {"mimeType": "video/mp4", "data": "AA=="}, "videoMetadata": {"fps": 1}})],
    ),
    (
        [assistant(thought("hm"), TextPart(text="", state=own(set={"thoughtSignature": "c2ln"})), "a", CALL)],
        [said("model", text("hm", thought=True), text("", thoughtSignature="c2ln"), text("a"), WIRE_CALL)],
    ),
    ([assistant(IMAGE)], [said("model", {"inlineData": PIXEL})]),
    (
        [assistant(ServerItem(kind="executableCode", id="e", state=own(set={"executableCode": {"code": "1"}})))],
        [said("model", {"executableCode": {"code": "1"}})],
    ),
    # A call that came without an id goes back without one, and so does its result.
    (
        [assistant(msgspec.structs.replace(CALL, synthetic=True)), Message("tool", (RESULT,))],
        [
            said("model", {"functionCall": {"name": "look", "args": {"city": "Oslo"}}}),
            said("user", {"functionResponse": {"name": "look", "response": {"output": "seen"}}}),
        ],
    ),
    ([assistant(ToolCall(name="now"))], [said("model", {"functionCall": {"name": "now"}})]),
    # What was joined on the wire is joined again.
    (
        [Message("tool", (RESULT,)), Message("user", (TextPart(text="a"),), state=own(is_joined=True)), user("b")],
        [said("user", WIRE_RESULT, text("a")), said("user", text("b"))],
    ),
    (
        [Message("tool", (RESULT, msgspec.structs.replace(RESULT, is_error=True)))],
        [said("user", WIRE_RESULT, response(response={"error": "seen"}))],
    ),
    (
        [Message("tool", (ToolResult(call_id="c1", name="look", content=(IMAGE,)),))],
        [said("user", response(response={}, parts=[{"inlineData": PIXEL}]))],
    ),
    (
        [assistant(CALL), Message("tool", (msgspec.structs.replace(RESULT, name=""),))],
        [said("model", WIRE_CALL), said("user", WIRE_RESULT)],
    ),
]


@pytest.mark.parametrize(("messages", "wire"), MESSAGES)
def test_a_history_is_sent_part_by_part(messages, wire):
    body, notices = encoded(messages)
    assert body["contents"] == wire
    assert notices == []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ((), {}),
        ((TextPart(text=""),), {"output": ""}),
        ((Value(value={"a": 1}),), {"a": 1}),
        ((Value(value={}),), {"output": {}}),
        ((Value(value={"output": 1}),), {"output": {"output": 1}}),
        ((Value(value={"error": 1}),), {"output": {"error": 1}}),
        ((Value(value=[1, None]),), {"output": [1, None]}),
        ((Value(value=None),), {"output": None}),
    ],
)
def test_a_result_is_told_in_the_words_of_the_api_and_read_again(content, told):
    result = ToolResult(call_id="c1", name="look", content=content)
    body, notices = encoded([Message("tool", (result,))])
    assert body["contents"] == [said("user", response(response=told))]
    assert notices == []
    (message,) = DIALECT.decode_request(json.dumps(body).encode()).messages
    assert message.parts == (result,)


def test_system_messages_stand_at_the_front():
    body, notices = encoded((system("a"), system("b"), user("c"), system("d"), user("e")))
    assert body["systemInstruction"] == {"parts": [text("a"), text("b"), text("d")]}
    assert [content["role"] for content in body["contents"]] == ["user", "user"]
    assert kinds(notices) == [("emulated", "system")]


FOREIGN = ProviderState("anthropic", {"set": {"signature": "x"}})
MODEL_CALL = {"functionCall": {"name": "look", "args": {"city": "Oslo"}}}


@pytest.mark.parametrize(
    ("message", "parts", "noticed"),
    [
        (assistant("a", Thinking(text="hm")), [text("a")], [("dropped", "Thinking")]),
        (
            assistant("a", Thinking(text="hm", state=FOREIGN)),
            [text("a")],
            [("dropped", "part"), ("dropped", "Thinking")],
        ),
        (assistant("a", ServerItem(kind="search")), [text("a")], [("dropped", "ServerItem")]),
        (assistant("a", Audio(id="x")), [text("a")], [("dropped", "Audio")]),
        (assistant(Refusal(text="no")), [text("no")], [("emulated", "Refusal")]),
        (assistant(TextPart(text="a", state=FOREIGN)), [text("a")], [("dropped", "part")]),
        (
            assistant(ToolCall(name="look", input='{"at": "i')),
            [{"functionCall": {"name": "look", "args": {"INVALID_JSON": '{"at": "i'}}}],
            [("emulated", "ToolCall")],
        ),
        (Message("user", (TextPart(text="a"),), name="ada"), [text("a")], [("dropped", "name")]),
        (
            user(msgspec.structs.replace(IMAGE, detail="low")),
            [{"inlineData": PIXEL}],
            [("dropped", "detail")],
        ),
        (
            user(Image(url="https://x/y")),
            [{"fileData": {"mimeType": "image/png", "fileUri": "https://x/y"}}],
            [("emulated", "Image")],
        ),
        (
            user(Audio(data=b"\0\1")),
            [{"inlineData": {"mimeType": "audio/wav", "data": "AAE="}}],
            [("emulated", "Audio")],
        ),
        (
            Message("tool", (ToolResult(call_id="c1", name="look", content=(TextPart(text="a"), Value(value=[1]))),)),
            [response(response={"output": "a[1]"})],
            [("emulated", "ToolResult")],
        ),
        (
            Message("tool", (ToolResult(call_id="c1", name="look", content=(Value(value="a"),)),)),
            [response(response={"output": "a"})],
            [("emulated", "ToolResult")],
        ),
    ],
)
def test_what_has_no_place_is_left_out_or_said_otherwise_and_reported(message, parts, noticed):
    body, notices = encoded([message])
    assert body["contents"][0]["parts"] == parts
    assert kinds(notices) == noticed


@pytest.mark.parametrize("message", [user(Thinking(text="hm")), user(ServerItem(kind="search")), user(Audio(id="x"))])
def test_what_a_prompt_cannot_say_is_an_error_before_anything_is_sent(message):
    with pytest.raises(UnsupportedError):
        encoded([message])


def test_images_in_results_follow_all_results_where_a_model_takes_none_in_them():
    pictured = ToolResult(call_id="c1", name="look", content=(TextPart(text="seen"), IMAGE))
    body, notices = encoded([Message("tool", (pictured, RESULT))], model="gemini-2.5-flash")
    assert body["contents"] == [said("user", WIRE_RESULT, WIRE_RESULT, {"inlineData": PIXEL})]
    assert kinds(notices) == [("emulated", "ToolResult")]


@pytest.mark.parametrize(
    ("model", "message", "signature"),
    [
        ("gemini-3.5-flash", assistant(CALL, CALL), "skip_thought_signature_validator"),
        (
            "gemini-flash-latest",
            Message("assistant", (CALL,), model="gemini-2.5-pro"),
            "skip_thought_signature_validator",
        ),
        ("gemini-3.5-flash", Message("assistant", (CALL,), model="gemini-3-flash-preview"), None),
        ("gemini-3.5-flash", assistant(msgspec.structs.replace(CALL, state=own(set={"thoughtSignature": "s"}))), "s"),
        ("gemini-2.5-flash", assistant(CALL), None),
        ("some-model", assistant(CALL), None),
    ],
)
def test_a_call_that_the_model_did_not_make_has_a_stand_in_for_its_signature(model, message, signature):
    body, notices = encoded([message], model=model)
    first, *others = body["contents"][0]["parts"]
    assert first.get("thoughtSignature") == signature
    assert others == [WIRE_CALL] * len(others)
    assert kinds(notices) == ([("emulated", "ToolCall")] if signature not in (None, "s") else [])


# The client's half: answers.

COUNTS = {"promptTokenCount": 10, "candidatesTokenCount": 7, "totalTokenCount": 17}
HEAD = {"responseId": "r1", "modelVersion": "gemini-x"}
SIGNED = {"thoughtSignature": "c2ln"}
CODE = {"executableCode": {"id": "e1", "language": "PYTHON", "code": "print(1)"}, **SIGNED}
RAN = {"codeExecutionResult": {"id": "e1", "outcome": "OUTCOME_OK", "output": "1\n"}}
GROUNDS = {"groundingChunks": [{"web": {"uri": "https://x", "title": "x"}}], "webSearchQueries": ["x"]}
LOGPROBS = {
    "chosenCandidates": [{"token": "a", "tokenId": 1, "logProbability": -0.5}, {"token": "b", "logProbability": -1.5}],
    "topCandidates": [{"candidates": [{"token": "a", "logProbability": -0.5}]}, {"candidates": []}],
    "logProbabilitySum": -2.0,
}
BLOCKED = [{"category": "HARM_CATEGORY_HATE_SPEECH", "probability": "HIGH", "blocked": True}]

# A whole answer, the same as a stream, and what both sum to: the parts, the usage and the finishes.
ANSWERS: dict[str, tuple[dict[str, Any], list[dict[str, Any]], list[Any], Usage, dict[int, Finish]]] = {
    "text": (
        answer(candidate(text("Hello, wörld 🌊!"), finish="STOP", index=0), usageMetadata=COUNTS, **HEAD),
        [
            answer(candidate(text("Hello, "), index=0), usageMetadata={"promptTokenCount": 10}, **HEAD),
            answer(candidate(text("wörld 🌊"), index=0), **HEAD),
            answer(candidate(text("!"), finish="STOP", index=0), usageMetadata=COUNTS, **HEAD),
        ],
        [TextPart(text="Hello, wörld 🌊!")],
        Usage(input=10, output=7, reported_total=17),
        {0: Finish("stop", raw="STOP")},
    ),
    "thinking, then a signed text of its own": (
        answer(
            candidate(
                text("Let me see.", thought=True), text("It is"), text(" 42", **SIGNED), text("."), finish="STOP"
            ),
            usageMetadata={**COUNTS, "thoughtsTokenCount": 5, "totalTokenCount": 22},
        ),
        [
            answer(candidate(text("Let me", thought=True))),
            answer(candidate(text(" see.", thought=True))),
            answer(candidate(text("It ")), usageMetadata={**COUNTS, "thoughtsTokenCount": 5}),
            answer(candidate(text("is"))),
            answer(candidate(text(" 42", **SIGNED))),
            answer(candidate(text(""))),
            answer(candidate(text("."), finish="STOP"), usageMetadata={"totalTokenCount": 22}),
        ],
        [
            thought("Let me see."),
            TextPart(text="It is"),
            TextPart(text=" 42", state=own(set=SIGNED)),
            TextPart(text="."),
        ],
        Usage(input=10, output=7, reasoning=5, reported_total=22),
        {0: Finish("stop", raw="STOP")},
    ),
    "calls": (
        answer(
            candidate(
                text("Both."),
                {"functionCall": {"name": "weather", "args": {"city": "Köln", "days": [1, 2.5, None]}}, **SIGNED},
                {"functionCall": {"id": "c2", "name": "now"}},
                finish="STOP",
                finishMessage="Model generated function call(s).",
            ),
            **HEAD,
        ),
        [
            answer(candidate(text("Both."))),
            answer(
                candidate(
                    {"functionCall": {"name": "weather", "args": {"city": "Köln", "days": [1, 2.5, None]}}, **SIGNED},
                    {"functionCall": {"id": "c2", "name": "now"}},
                )
            ),
            answer(
                candidate(text(""), finish="STOP", finishMessage="Model generated function call(s)."),
                **HEAD,
            ),
        ],
        [
            TextPart(text="Both."),
            ToolCall(name="weather", input='{"city":"Köln","days":[1,2.5,null]}', state=own(set=SIGNED)),
            ToolCall(name="now", id="c2"),
        ],
        Usage(),
        {0: Finish("tool_calls", raw="STOP", detail={"finishMessage": "Model generated function call(s)."})},
    ),
    "code that ran": (
        answer(candidate(CODE, RAN, text("It is 1."), text("", **SIGNED), finish="STOP"), createTime="2026-11-01"),
        [
            answer(candidate(CODE), createTime="2026-11-01"),
            answer(candidate(RAN)),
            answer(candidate(text("It is 1."))),
            answer(candidate(text("", **SIGNED), finish="STOP")),
        ],
        [
            ServerItem(kind="executableCode", id="e1", state=own(set=CODE)),
            ServerItem(kind="codeExecutionResult", id="e1", state=own(set=RAN)),
            TextPart(text="It is 1."),
            TextPart(text="", state=own(set=SIGNED)),
        ],
        Usage(),
        {0: Finish("stop", raw="STOP")},
    ),
    "media": (
        answer(
            candidate(
                {"inlineData": PIXEL, **SIGNED},
                {"inlineData": {"mimeType": "audio/L16", "data": "AAE="}, "audioTranscription": {"text": "hm"}},
                {"inlineData": {"mimeType": "application/pdf", "data": "AAE=", "displayName": "a"}},
                {"fileData": {"mimeType": "image/png", "fileUri": "https://x"}},
                finish="MAX_TOKENS",
            )
        ),
        [
            answer(candidate({"inlineData": PIXEL, **SIGNED})),
            answer(
                candidate(
                    {"inlineData": {"mimeType": "audio/L16", "data": "AAE="}, "audioTranscription": {"text": "hm"}},
                    {"inlineData": {"mimeType": "application/pdf", "data": "AAE=", "displayName": "a"}},
                    {"fileData": {"mimeType": "image/png", "fileUri": "https://x"}},
                    finish="MAX_TOKENS",
                )
            ),
        ],
        [
            msgspec.structs.replace(IMAGE, state=own(set=SIGNED)),
            Audio(data=b"\0\1", media_type="audio/L16", transcript="hm"),
            File(data=b"\0\1", media_type="application/pdf", name="a"),
            ServerItem(kind="fileData", state=own(set={"fileData": {"mimeType": "image/png", "fileUri": "https://x"}})),
        ],
        Usage(),
        {0: Finish("length", raw="MAX_TOKENS")},
    ),
    "what is said of a text": (
        answer(
            candidate(
                text("It rains."),
                finish="STOP",
                groundingMetadata=GROUNDS,
                citationMetadata={"citations": [{"uri": "https://y"}, {}], "x": 1},
                logprobsResult=LOGPROBS,
                avgLogprobs=-1.0,
            )
        ),
        [
            answer(candidate(text("It "), groundingMetadata={})),
            answer(candidate(text("rains."))),
            answer(
                candidate(
                    finish="STOP",
                    groundingMetadata=GROUNDS,
                    citationMetadata={"citations": [{"uri": "https://y"}, {}], "x": 1},
                    logprobsResult=LOGPROBS,
                    avgLogprobs=-1.0,
                )
            ),
        ],
        [
            TextPart(
                text="It rains.",
                notes=(
                    {"groundingMetadata": GROUNDS},
                    {"citation": {"uri": "https://y"}},
                    {"citation": {}},
                    {
                        "logprob": {
                            "token": "a",
                            "tokenId": 1,
                            "logprob": -0.5,
                            "top_logprobs": [{"token": "a", "logprob": -0.5}],
                        }
                    },
                    {"logprob": {"token": "b", "logprob": -1.5, "top_logprobs": []}},
                ),
            )
        ],
        Usage(),
        {0: Finish("stop", raw="STOP")},
    ),
    "a filter": (
        answer({"content": {}, "finishReason": "SAFETY", "safetyRatings": BLOCKED}),
        [answer({"content": {}}), answer({"finishReason": "SAFETY", "safetyRatings": BLOCKED})],
        [],
        Usage(),
        {0: Finish("content_filter", raw="SAFETY", detail={"safetyRatings": BLOCKED})},
    ),
    "a prompt that was blocked": (
        {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 3}, **HEAD},
        [{"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 3}, **HEAD}],
        [],
        Usage(input=3),
        {0: Finish("content_filter", raw="PROHIBITED_CONTENT", detail={"blockReason": "PROHIBITED_CONTENT"})},
    ),
    "words that are numbers": (
        answer(candidate(text("1"), finish=1, safetyRatings=[{"category": 8, "probability": 1}])),
        [answer(candidate(text("1"))), answer(candidate(finish=1, safetyRatings=[{"category": 8, "probability": 1}]))],
        [TextPart(text="1")],
        Usage(),
        {0: Finish("stop", raw="STOP", detail={"safetyRatings": [{"category": 8, "probability": 1}]})},
    ),
    "an end that is new to us": (
        answer(candidate(text("1"), finish="DAYDREAM")),
        [answer(candidate(text("1"), finish="DAYDREAM"))],
        [TextPart(text="1")],
        Usage(),
        {0: Finish("unknown", raw="DAYDREAM")},
    ),
    "a call of what was not declared": (
        answer(candidate({"functionCall": {"name": "f", "args": {}}}, finish="UNEXPECTED_TOOL_CALL")),
        [answer(candidate({"functionCall": {"name": "f", "args": {}}}, finish="UNEXPECTED_TOOL_CALL"))],
        [ToolCall(name="f", input="{}")],
        Usage(),
        {0: Finish("tool_calls", raw="UNEXPECTED_TOOL_CALL")},
    ),
    "another speaker": (
        answer({"content": {"parts": [text("a")], "role": "oracle"}, "finishReason": "STOP"}),
        [answer({"content": {"parts": [text("a")], "role": "oracle"}, "finishReason": "STOP"})],
        [TextPart(text="a")],
        Usage(),
        {0: Finish("stop", raw="STOP")},
    ),
}


def bare(parts):
    """Parts without the model in their states, which is the whole answer's."""
    return [
        msgspec.structs.replace(part, state=part.state and msgspec.structs.replace(part.state, model=None))
        for part in parts
    ]


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_and_its_stream_sum_to_the_same_and_encode_to_the_answer(name):
    body, chunks, parts, usage, finishes = ANSWERS[name]
    array = json.dumps(chunks, indent=2).encode()
    whole = DIALECT.decode_answer(json.dumps(body).encode())
    streams = [decoded(data) for data in (sse(*chunks), array)]
    assert [error for _, error in streams] == [None, None]
    assert streams[0] == streams[1]
    assert DIALECT.decode_answer(array) == streams[0][0]
    for deltas in (whole, streams[0][0]):
        (message,), counted, ended = total(deltas)
        assert bare(message.parts) == parts
        assert (message.id, message.model) == (body.get("responseId"), body.get("modelVersion"))
        assert (counted, ended) == (usage, finishes)
        again = json.loads(DIALECT.encode_response(response_of(NAME, deltas)))
        assert DIALECT.canonical_answer(again) == DIALECT.canonical_answer(body)
        rest, error = decoded(streamed(deltas))
        assert error is None
        assert total(rest) == total(deltas)
    for data in (sse(*chunks), array):
        for size in (1, 7, 100):
            assert decoded(data, range(size, len(data), size)) == streams[0]


def test_an_empty_text_beside_others_is_not_sent():
    history = (user(TextPart(text="a"), TextPart(text="")), assistant(TextPart(text="")), user(TextPart(text="")))
    body, notices = encoded(history)
    assert body["contents"] == [
        {"role": "user", "parts": [text("a")]},
        {"role": "user", "parts": [text("")]},
    ]
    assert notices == []


def test_several_candidates_are_several_choices():
    body = answer(
        candidate(text("a"), finish="STOP"),
        candidate(text("b"), {"functionCall": {"name": "f"}}, finish="STOP", index=1),
        candidate(finish="SAFETY", index=2),
    )
    chunks = [
        answer(candidate(text("a")), candidate(text("b"), index=1)),
        answer(candidate({"functionCall": {"name": "f"}}, finish="STOP", index=1)),
        answer(candidate(finish="SAFETY", index=2), candidate(finish="STOP", index=0)),
    ]
    whole = DIALECT.decode_answer(json.dumps(body).encode())
    deltas, error = decoded(sse(*chunks))
    assert error is None
    for some in (whole, deltas):
        choices, _, finishes = total(some)
        assert [message.text for message in choices] == ["a", "b", ""]
        assert [len(message.tool_calls) for message in choices] == [0, 1, 0]
        assert {number: finish.reason for number, finish in finishes.items()} == {
            0: "stop",
            1: "tool_calls",
            2: "content_filter",
        }
        again = json.loads(DIALECT.encode_response(response_of(NAME, some)))
        assert DIALECT.canonical_answer(again) == DIALECT.canonical_answer(body)
        rest, error = decoded(streamed(some))
        assert (error, total(rest)) == (None, total(some))


def test_two_texts_of_one_answer_stay_two_also_in_a_stream():
    body = answer(
        candidate(text("a"), text("b"), text("c", thought=True), text("d", thought=True), text(""), finish="STOP")
    )
    deltas = DIALECT.decode_answer(json.dumps(body).encode())
    (message,), _, _ = total(deltas)
    assert [part.text for part in message.parts] == ["a", "b", "c", "d", ""]
    told = streamed(deltas)
    assert [part["text"] for part in parts_of(told)] == ["a", "", "b", "c", "", "d", "", ""]
    assert total(decoded(told)[0]) == total(deltas)


def parts_of(data):
    candidates = [each for chunk in chunks_of(data) for each in chunk.get("candidates", ())]
    return [part for each in candidates for part in each.get("content", {}).get("parts", ())]


def test_the_counts_are_disjoint_whatever_was_heard_cached_or_looked_up():
    counts = {
        "promptTokenCount": 100,
        "cachedContentTokenCount": 40,
        "candidatesTokenCount": 30,
        "thoughtsTokenCount": 20,
        "toolUsePromptTokenCount": 5,
        "totalTokenCount": 155,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 70}, {"modality": "AUDIO", "tokenCount": 30}],
        "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 30}, {"modality": "AUDIO", "tokenCount": 10}],
        "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": 12}, {"modality": 1, "tokenCount": 18}],
        "trafficType": "ON_DEMAND",
    }
    body = answer(candidate(text("a"), finish="STOP"), usageMetadata=counts)
    response = response_of(NAME, DIALECT.decode_answer(json.dumps(body).encode()))
    assert response.usage == Usage(
        input=45, cache_read=40, input_audio=20, output=18, reasoning=20, output_audio=12, reported_total=155
    )
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (105, 50, 155)
    assert json.loads(DIALECT.encode_response(response))["usageMetadata"] == counts


PIECES = [
    {"name": "cook", "willContinue": True},
    {
        "partialArgs": [{"jsonPath": "$.dish.parts[0].name", "stringValue": "no", "willContinue": True}],
        "willContinue": True,
    },
    {"partialArgs": [{"jsonPath": "$.dish.parts[0].name", "stringValue": 'od"le 🌊'}], "willContinue": True},
    {"willContinue": True},
    {
        "partialArgs": [
            {"jsonPath": "$.dish.parts[0].grams", "numberValue": 2.5},
            {"jsonPath": "$.dish.parts[1]", "nullValue": "NULL_VALUE"},
            {"jsonPath": "$.dish['a b'][0][0]", "boolValue": False},
        ],
        "willContinue": True,
    },
    {"partialArgs": [{"jsonPath": "$.name", "stringValue": "", "willContinue": True}], "willContinue": True},
    {"partialArgs": [{"jsonPath": "$.name", "stringValue": "x"}], "willContinue": True},
    {},
]
COOKED = {"dish": {"parts": [{"name": 'nood"le 🌊', "grams": 2.5}, None], "a b": [[False]]}, "name": "x"}


def in_pieces(*calls, finish="STOP"):
    first, *others = ({"functionCall": call} for call in calls)
    return sse(
        answer(candidate({**first, **SIGNED})),
        *(answer(candidate(part)) for part in others),
        answer(candidate(finish=finish)),
    )


def test_a_call_that_comes_in_pieces_is_one_call():
    data = in_pieces(*PIECES, {"name": "now", "args": {}}, {"name": "wait", "willContinue": True}, {})
    deltas, error = decoded(data)
    assert error is None
    (message,), _, finishes = total(deltas)
    first, second, third = message.tool_calls
    assert (first.name, first.arguments, first.state) == ("cook", COOKED, own(set=SIGNED))
    assert first.input == json.dumps(COOKED, separators=(",", ":"), ensure_ascii=False)
    assert (second.name, second.input, third.name, third.input) == ("now", "{}", "wait", "")
    assert finishes[0].reason == "tool_calls"
    again, error = decoded(streamed(deltas))
    assert (error, total(again)) == (None, total(deltas))
    for size in (1, 9):
        assert decoded(data, range(size, len(data), size)) == (deltas, None)


def test_a_call_that_was_cut_is_no_whole_one():
    deltas, error = decoded(in_pieces(*PIECES[:5], finish="MAX_TOKENS"))
    assert error is None
    (message,), _, finishes = total(deltas)
    assert finishes[0].reason == "length"
    assert message.tool_calls[0].input.endswith('"a b":[[false')
    with pytest.raises(StreamProtocolError):
        _ = message.tool_calls[0].arguments


@pytest.mark.parametrize(
    "calls",
    [
        [{}],
        [{"willContinue": True}],
        [*PIECES[:2], {"name": "other", "willContinue": True}],
        [*PIECES[:2], {}],
        [
            PIECES[0],
            {"partialArgs": [{"jsonPath": "$.a", "stringValue": "x"}, {"jsonPath": "$.a", "stringValue": "y"}]},
        ],
        [PIECES[0], {"partialArgs": [{"jsonPath": "$.a[1]", "stringValue": "x"}]}],
        [
            PIECES[0],
            {"partialArgs": [{"jsonPath": "$.a[0]", "stringValue": "x"}, {"jsonPath": "$.a.b", "stringValue": "y"}]},
        ],
        [PIECES[0], {"partialArgs": [{"jsonPath": path, "numberValue": 1} for path in ("$.a.b", "$.c", "$.a.d")]}],
        [PIECES[0], {"partialArgs": [{"jsonPath": path, "numberValue": 1} for path in ("$.a", "$.a.b")]}],
        [PIECES[0], {"partialArgs": [{"jsonPath": "$.a", "numberValue": "x", "stringValue": 5}, {}]}],
        [PIECES[0], {"partialArgs": [{"jsonPath": "$.a"}]}],
        *(
            [PIECES[0], {"partialArgs": [{"jsonPath": path, "numberValue": 1}]}]
            for path in ("", "$", "a", "$[0]", "$.a[*]", "$..a", 5)
        ),
    ],
)
def test_pieces_that_do_not_fit_are_an_error(calls):
    _, error = decoded(in_pieces(*calls))
    assert isinstance(error, StreamProtocolError)


paths = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(st.text(min_size=1, max_size=3), inner, min_size=1, max_size=3)
    ),
    max_leaves=8,
)


def pieces_of(value, path="$"):
    if isinstance(value, (dict, list)):
        steps = value.items() if isinstance(value, dict) else enumerate(value)
        for step, inner in steps:
            quoted = (
                str(step) if isinstance(value, list) else "'" + step.replace("\\", "\\\\").replace("'", "\\'") + "'"
            )
            yield from pieces_of(inner, f"{path}[{quoted}]")
    elif isinstance(value, str):
        yield {"jsonPath": path, "stringValue": value[:2], "willContinue": True}
        yield {"jsonPath": path, "stringValue": value[2:]}
    elif isinstance(value, bool):
        yield {"jsonPath": path, "boolValue": value}
    else:
        yield {"jsonPath": path, **({"nullValue": "NULL_VALUE"} if value is None else {"numberValue": value})}


@given(st.dictionaries(st.text(min_size=1, max_size=3), paths, min_size=1, max_size=3))
@settings(max_examples=100, deadline=None)
def test_any_object_that_comes_by_its_paths_is_that_object(value):
    written = PathText()
    assert json.loads("".join(map(written.add, pieces_of(value))) + written.end()) == value


STOP = answer(candidate(finish="STOP"))
HI = answer(candidate(text("Hello")))


@pytest.mark.parametrize(
    ("data", "said", "reason", "error"),
    [
        (sse(HI, STOP), "Hello", "stop", None),
        (sse(HI, STOP, {"usageMetadata": {"promptTokenCount": 1}}), "Hello", "stop", None),
        (sse(HI, {"mood": "good"}, STOP), "Hello", "stop", None),
        (sse(answer(candidate(text("a\ud83c"))), answer(candidate(text("\udf0a!"))), STOP), "a🌊!", "stop", None),
        (b"\r\n : hm\n\n" + sse(HI) + sse(STOP).replace(b"\r\n", b"\r"), "Hello", "stop", None),
        (
            b" " + json.dumps({**HI, **answer({**HI["candidates"][0], "finishReason": "STOP"})}).encode(),
            "Hello",
            "stop",
            None,
        ),
        (sse(HI), "Hello", None, StreamInterrupted),
        (sse(HI) + sse(STOP)[:-9], "Hello", None, StreamInterrupted),
        (sse(answer(candidate(finish="FINISH_REASON_UNSPECIFIED"))), "", None, StreamInterrupted),
        (sse(answer(candidate(text("a")), candidate(text("b"), index=1)), STOP), "a", None, StreamInterrupted),
        (json.dumps([HI])[:-1].encode(), "Hello", None, StreamInterrupted),
        (json.dumps([HI]).encode(), "Hello", None, StreamInterrupted),
        (b"", "", None, StreamInterrupted),
        (b"  ", "", None, StreamInterrupted),
        (sse(HI, {"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}), "Hello", None, OverloadedError),
        (json.dumps([HI, {"error": {"status": "RESOURCE_EXHAUSTED"}}]).encode(), "Hello", None, RateLimitError),
        (b'{"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}}', "", None, BadRequestError),
        (sse(HI) + b"data: {\n\n", "Hello", None, StreamProtocolError),
        (sse(HI) + b"data: [1]\n\n", "Hello", None, StreamProtocolError),
        (json.dumps([HI])[:-1].encode() + b", 5]", "Hello", None, StreamProtocolError),
        (b'[{"candidates": []} "x"]', "", None, StreamProtocolError),
        (b"[[1]]", "", None, StreamProtocolError),
        (b'[{"a": "}\\"]"}}', "", None, StreamProtocolError),
        (sse(answer(5)), "", None, StreamProtocolError),
        (sse(answer(candidate(5))), "", None, StreamProtocolError),
        (sse(answer(candidate({"functionCall": {}}))), "", None, StreamProtocolError),
        (sse(answer(candidate({"text": 5}))), "", None, StreamProtocolError),
        (sse(answer(candidate({"inlineData": {"data": "!"}}))), "", None, StreamProtocolError),
    ],
)
def test_a_stream_ends_whole_or_with_an_error_after_all_that_came(data, said, reason, error):
    deltas, ending = decoded(data)
    choices, _, finishes = total(deltas)
    assert choices[0].text == said
    assert type(ending) is (error or type(None))
    assert {number: finish.reason for number, finish in finishes.items()} == ({0: reason} if reason else {})
    for size in (1, 7, 100):
        again, other = decoded(data, range(size, len(data), size))
        assert again == deltas
        assert str(other) == str(ending)
    assert not any("\ud800" <= character <= "\udfff" for d in deltas if isinstance(d, Text) for character in d.text)


def test_a_chunk_that_says_nothing_we_know_is_carried_as_an_event():
    deltas, _ = decoded(sse(HI, {"mood": "good"}, STOP))
    assert Event({"mood": "good"}) in deltas


def test_what_follows_the_end_of_an_array_is_no_part_of_it():
    data = json.dumps([HI, STOP]).encode()
    assert decoded(data * 2) == decoded(data)
    decoder = DIALECT.decoder()
    decoder.feed(data)
    assert decoder.is_over


MALFORMED = candidate(finish="MALFORMED_FUNCTION_CALL", finishMessage="Malformed function call: print(")


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (MALFORMED, ServerError),
        (candidate(finish="MALFORMED_RESPONSE"), ServerError),
        (candidate(finish="UNEXPECTED_TOOL_CALL"), ServerError),
        (candidate(finish="MISSING_THOUGHT_SIGNATURE"), BadRequestError),
    ],
)
def test_an_end_that_leaves_no_answer_is_an_error_after_all_that_came(end, kind):
    deltas, error = decoded(sse(HI, answer(end, usageMetadata=COUNTS)))
    assert type(error) is kind
    assert (error.code, error.retryable) == (end["finishReason"], kind is ServerError)
    assert end.get("finishMessage", end["finishReason"]) in str(error)
    (message,), usage, _ = total(deltas)
    assert (message.text, usage.output) == ("Hello", 7)
    with pytest.raises(kind):
        DIALECT.decode_answer(json.dumps(answer(end)).encode())
    assert type(DIALECT.decode_error(500, {}, DIALECT.encode_error(error)[1])) is ServerError


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", ServerError),
        (b"<html>", ServerError),
        (b"[]", StreamProtocolError),
        (b"5", StreamProtocolError),
        (b"{}", StreamProtocolError),
        (b'{"candidates": [], "usageMetadata": {}}', StreamProtocolError),
        (b'{"candidates": [1]}', StreamProtocolError),
        (b'{"candidates": [{}, {"index": 0}]}', StreamProtocolError),
        (b'{"promptFeedback": {"safetyRatings": []}}', StreamProtocolError),
        (json.dumps([HI]).encode(), StreamInterrupted),
        (b'{"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}', OverloadedError),
        (b'[{"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}}]', BadRequestError),
    ],
)
def test_a_body_that_is_no_answer_is_an_error(body, error):
    with pytest.raises(error):
        DIALECT.decode_answer(body)


def failure(code, status, message="no", **details):
    told = [{"@type": f"type.googleapis.com/google.rpc.{name}", **fields} for name, fields in details.items()]
    return json.dumps({"error": {"code": code, "message": message, "status": status, "details": told}}).encode()


OVERFLOW = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."
HELP = {"Help": {"links": []}, "RetryInfo": {"retryDelay": "34.4s"}}


@pytest.mark.parametrize(
    ("status", "headers", "body", "error", "fields"),
    [
        (400, {}, failure(400, "INVALID_ARGUMENT"), BadRequestError, {"code": "INVALID_ARGUMENT", "retryable": False}),
        (400, {}, failure(400, "FAILED_PRECONDITION"), BadRequestError, {"code": "FAILED_PRECONDITION"}),
        (
            400,
            {},
            failure(400, "INVALID_ARGUMENT", ErrorInfo={"reason": "API_KEY_INVALID"}),
            AuthenticationError,
            {"status": 400, "code": "API_KEY_INVALID"},
        ),
        (
            400,
            {},
            failure(400, "INVALID_ARGUMENT", OVERFLOW),
            ContextOverflowError,
            {"prompt_tokens": 1200000, "context_length": 1048576},
        ),
        (401, {"x-request-id": "r"}, failure(401, "UNAUTHENTICATED"), AuthenticationError, {"request_id": "r"}),
        (403, {}, failure(403, "PERMISSION_DENIED"), PermissionDeniedError, {}),
        (404, {}, failure(404, "NOT_FOUND"), NotFoundError, {"code": "NOT_FOUND"}),
        (429, {}, failure(429, "RESOURCE_EXHAUSTED", **HELP), RateLimitError, {"retry_after": 34.4, "retryable": True}),
        (429, {"retry-after": "7"}, failure(429, "RESOURCE_EXHAUSTED", **HELP), RateLimitError, {"retry_after": 7.0}),
        (
            429,
            {},
            failure(429, "RESOURCE_EXHAUSTED", RetryInfo={"retryDelay": "soon"}),
            RateLimitError,
            {"retry_after": None},
        ),
        (500, {}, failure(500, "INTERNAL"), ServerError, {"retryable": True}),
        (503, {}, failure(503, "UNAVAILABLE"), OverloadedError, {"retryable": True}),
        (504, {}, failure(504, "DEADLINE_EXCEEDED"), ServerError, {"retryable": True}),
        (404, {}, b"[" + failure(404, "NOT_FOUND") + b"]", NotFoundError, {"code": "NOT_FOUND"}),
        (502, {}, b"<html><title>Bad gateway</title></html>", ServerError, {"status": 502}),
        (503, {}, b"", OverloadedError, {"status": 503}),
    ],
)
def test_an_error_becomes_the_exception_it_means_and_the_same_error_again(status, headers, body, error, fields):
    raised = DIALECT.decode_error(status, headers, body)
    assert type(raised) is error
    assert {name: getattr(raised, name) for name in fields} == fields
    code, told = DIALECT.encode_error(raised)
    again = DIALECT.decode_error(code, {}, told)
    assert (type(again), again.status, again.retry_after) == (error, status, raised.retry_after)
    if isinstance(raised, ContextOverflowError):
        assert (again.prompt_tokens, again.context_length) == (raised.prompt_tokens, raised.context_length)


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [
        (ConfigurationError("x"), 400, "INVALID_ARGUMENT"),
        (UnsupportedError("x"), 400, "INVALID_ARGUMENT"),
        (BadRequestError("x", status=413), 413, "INVALID_ARGUMENT"),
        (AuthenticationError("x"), 401, "UNAUTHENTICATED"),
        (PermissionDeniedError("x"), 403, "PERMISSION_DENIED"),
        (NotFoundError("x"), 404, "NOT_FOUND"),
        (RateLimitError("x"), 429, "RESOURCE_EXHAUSTED"),
        (OverloadedError("x"), 503, "UNAVAILABLE"),
        (EngineError("x"), 500, "INTERNAL"),
        (DeadlineExceeded("x"), 504, "DEADLINE_EXCEEDED"),
    ],
)
def test_an_error_of_ours_has_a_status_and_word_of_theirs(error, status, word):
    assert DIALECT.encode_error(error)[0] == status
    told = {"error": {"code": status, "message": "x", "status": word}}
    assert json.loads(DIALECT.encode_error(error)[1]) == told
    assert chunks_of(DIALECT.encoder().fail(error)) == [told]


def test_what_our_errors_know_is_told_in_details():
    overflow = ContextOverflowError("too long", code="exceed_context_size_error")
    overflow.prompt_tokens, overflow.context_length = 9, 8
    for error in (overflow, ContentFilterError("no"), RateLimitError("x", code="per_day", retry_after=1.5)):
        again = DIALECT.decode_error(*(lambda status, told: (status, {}, told))(*DIALECT.encode_error(error)))
        assert type(again) is type(error)
        assert again.retry_after == error.retry_after
    assert again.code == "per_day"


# The server's half.


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"contents": None}, "contents"),
        ({"contents": []}, "contents"),
        ({"contents": "hi"}, "contents"),
        ({"contents": ["hi"]}, "contents[0]"),
        ({"contents": [said("system", text("a"))]}, "contents[0].role"),
        ({"contents": [{"role": "user"}]}, "contents[0].parts"),
        ({"contents": [{"role": "user", "parts": []}]}, "contents[0].parts"),
        ({"contents": [{"role": "user", "parts": "a"}]}, "contents[0].parts"),
        ({"contents": [said("user", "a")]}, "contents[0].parts[0]"),
        ({"contents": [said("user", {})]}, "contents[0].parts[0]"),
        ({"contents": [said("user", {"text": 5})]}, "contents[0].parts[0]"),
        ({"contents": [said("model", {"functionCall": {"args": {}}})]}, "contents[0].parts[0].functionCall.name"),
        ({"contents": [said("user", {"functionResponse": 5})]}, "contents[0].parts[0].functionResponse.name"),
        ({"contents": [said("user", {"inlineData": PIXEL | {"data": "!"}})]}, "contents[0].parts[0]"),
        ({"systemInstruction": 7}, "systemInstruction"),
        ({"systemInstruction": {"parts": 7}}, "systemInstruction.parts"),
        ({"tools": 5}, "tools"),
        ({"tools": [7]}, "tools[0]"),
        ({"tools": [{"functionDeclarations": 7}]}, "tools[0].functionDeclarations"),
        ({"tools": [{"functionDeclarations": [{}]}]}, "tools[0].functionDeclarations[0].name"),
        (
            {"tools": [{"functionDeclarations": [{"name": "a", "parameters": 5}]}]},
            "tools[0].functionDeclarations[0].parameters",
        ),
        ({"generationConfig": 7}, "generationConfig"),
        ({"toolConfig": 7}, "toolConfig"),
        ({"generationConfig": {"temperature": "hot"}}, "generationConfig.temperature"),
        ({"generationConfig": {"topK": 1.5}}, "generationConfig.topK"),
        ({"generationConfig": {"stopSequences": [1]}}, "generationConfig.stopSequences"),
    ],
)
def test_a_wrong_request_is_refused_and_told_where(change, where):
    with pytest.raises(BadRequestError) as caught:
        DIALECT.decode_request(json.dumps({**plain(), **change}).encode())
    assert str(caught.value).startswith(f"{where}: ")
    assert (caught.value.status, caught.value.code) == (400, "INVALID_ARGUMENT")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff"])
def test_a_body_that_is_no_object_is_refused(body):
    with pytest.raises(BadRequestError):
        DIALECT.decode_request(body)


def asked(**fields):
    return DIALECT.decode_request(json.dumps(plain(**fields)).encode())


def test_a_request_is_read_in_portable_words():
    request = asked(
        model="models/gemini-x",
        systemInstruction={"role": "system", "parts": {"text": "Be brief."}},
        generationConfig={
            "temperature": 0.5,
            "topP": 0.9,
            "topK": 3.0,
            "maxOutputTokens": 99,
            "stopSequences": ["a"],
            "candidateCount": 2,
            "responseMimeType": "application/json",
            "responseJsonSchema": CITY,
            "thinkingConfig": {"thinkingBudget": 2000, "includeThoughts": True},
        },
        tools=[{"function_declarations": [DECLARED]}, {"googleSearch": {}}],
        toolConfig={"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["look"]}},
        contents=[
            said("user", text("hi")),
            said("model", text("hm", thought=True), text("a"), WIRE_CALL),
            said("user", WIRE_RESULT, text("b")),
            {"role": "function", "parts": [WIRE_RESULT]},
            {"parts": [text("c")]},
        ],
    )
    assert request.messages == (
        Message("system", (TextPart(text="Be brief."),), state=own(set={"role": "system"})),
        user("hi"),
        assistant(thought("hm"), "a", CALL),
        Message("tool", (RESULT,)),
        Message("user", (TextPart(text="b"),), state=own(is_joined=True)),
        Message("tool", (RESULT,), state=own(set={"role": "function"})),
        Message("user", (TextPart(text="c"),), state=own(unset=["role"])),
    )
    search = ToolSpec("googleSearch", state=own(set={"googleSearch": {}}, unset=["functionDeclarations"]))
    assert request.tools == (TOOL, search)
    assert request.schema == OutputSchema("answer", CITY)
    assert (request.model, request.stream, request.stop, request.n) == ("gemini-x", False, ("a",), 2)
    assert (request.max_tokens, request.temperature, request.top_p, request.top_k) == (99, 0.5, 0.9, 3)
    assert (request.thinking, request.tool_choice) == (2000, "look")


@pytest.mark.parametrize(
    ("config", "choice"),
    [
        ({}, None),
        ({"functionCallingConfig": {}}, None),
        ({"functionCallingConfig": {"mode": "VALIDATED"}}, None),
        ({"functionCallingConfig": {"mode": "any"}}, "required"),
        ({"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["look", "b"]}}, "required"),
        ({"functionCallingConfig": {"mode": "AUTO", "allowedFunctionNames": ["look"]}}, "auto"),
    ],
)
def test_a_choice_of_tools_is_what_was_said_and_nothing_else(config, choice):
    body = plain(tools=[{"functionDeclarations": [DECLARED]}], toolConfig=config)
    assert DIALECT.decode_request(json.dumps(body).encode()).tool_choice == choice
    assert round_trip(body) == DIALECT.canonical_request(body)


@pytest.mark.parametrize(
    ("config", "thinking"),
    [
        ({"thinkingBudget": 0}, False),
        ({"thinkingBudget": -1}, True),
        ({"thinkingBudget": 5}, 5),
        ({"thinkingLevel": "HIGH"}, "high"),
        ({"thinkingLevel": "xhigh", "includeThoughts": True}, True),
        ({"includeThoughts": True}, True),
        ({"includeThoughts": False}, None),
        ({"thinkingBudget": "5"}, None),
    ],
)
def test_a_wish_to_think_is_read_in_portable_words_and_kept(config, thinking):
    request = asked(generationConfig={"thinkingConfig": config})
    assert request.thinking == thinking
    assert type(request.thinking) is type(thinking)
    assert json.loads(DIALECT.encode_request(request)[0].body)["generationConfig"]["thinkingConfig"] == config
    # Said in its own words, it is not lowered for the model again.
    named = msgspec.structs.replace(request, model="gemini-2.5-pro")
    assert DIALECT.encode_request(named)[1] == ()


OWN_SCHEMA = {
    "type": "OBJECT",
    "nullable": True,
    "properties": {
        "a_b": {"type": "STRING", "nullable": True, "enum": ["x"]},
        "c": {"type": "ARRAY", "items": {"type": 3}, "min_items": "2"},
        "d": {"any_of": [{"type": "NUMBER"}, {"type": "NULL"}]},
    },
    "required": ["a_b"],
    "property_ordering": ["a_b", "c", "d"],
}
AS_JSON_SCHEMA = {
    "type": ["object", "null"],
    "properties": {
        "a_b": {"type": ["string", "null"], "enum": ["x"]},
        "c": {"type": "array", "items": {"type": "integer"}, "minItems": 2},
        "d": {"anyOf": [{"type": "number"}, {"type": "null"}]},
    },
    "required": ["a_b"],
}


def test_a_schema_in_the_apis_own_form_is_a_json_schema_to_us():
    body = plain(
        tools=[{"functionDeclarations": [{"name": "f", "parameters": OWN_SCHEMA}]}],
        generationConfig={"responseMimeType": "application/json", "responseSchema": OWN_SCHEMA},
    )
    request = DIALECT.decode_request(json.dumps(body).encode())
    assert request.tools[0].parameters == AS_JSON_SCHEMA
    assert request.schema == OutputSchema("answer", AS_JSON_SCHEMA)
    assert round_trip(body) == body


def round_trip(body):
    http, _ = DIALECT.encode_request(DIALECT.decode_request(json.dumps(body).encode()))
    return json.loads(http.body)


EQUAL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "null is absent": ({"safetySettings": None, "generationConfig": {"topK": None}}, {}),
    "null is absent: in a part": (
        {"contents": [said("user", text("a", thoughtSignature=None))]},
        {"contents": [said("user", text("a"))]},
    ),
    "null is absent: in a call": (
        {"contents": [said("model", {"functionCall": {"name": "f", "id": None}})]},
        {"contents": [said("model", {"functionCall": {"name": "f"}})]},
    ),
    "snake case is camel case: in the body": (
        {
            "generation_config": {"max_output_tokens": 5, "thinking_config": {"thinking_budget": 5}},
            "safety_settings": [],
        },
        {"generationConfig": {"maxOutputTokens": 5, "thinkingConfig": {"thinkingBudget": 5}}, "safetySettings": []},
    ),
    "snake case is camel case: in parts": (
        {
            "contents": [
                said("model", {"function_call": {"name": "f"}, "thought_signature": "s"}),
                said(
                    "user",
                    {
                        "function_response": {
                            "name": "f",
                            "response": {},
                            "parts": [{"inline_data": {"mime_type": "image/png", "data": "AAE="}}],
                        }
                    },
                ),
                said("user", {"file_data": {"file_uri": "https://x"}, "video_metadata": {"a_b": 1}}),
            ]
        },
        {
            "contents": [
                said("model", {"functionCall": {"name": "f"}, "thoughtSignature": "s"}),
                said("user", {"functionResponse": {"name": "f", "response": {}, "parts": [{"inlineData": PIXEL}]}}),
                said("user", {"fileData": {"fileUri": "https://x"}, "videoMetadata": {"a_b": 1}}),
            ]
        },
    ),
    "snake case is camel case: in tools": (
        {
            "tools": [
                {"function_declarations": [{"name": "f", "parameters_json_schema": CITY}]},
                {"google_search": {}},
            ],
            "tool_config": {"function_calling_config": {"allowed_function_names": ["f"], "mode": "ANY"}},
        },
        {
            "tools": [{"functionDeclarations": [{"name": "f", "parametersJsonSchema": CITY}]}, {"googleSearch": {}}],
            "toolConfig": {"functionCallingConfig": {"allowedFunctionNames": ["f"], "mode": "ANY"}},
        },
    ),
    "one object is a list of it": (
        {
            "contents": {"role": "user", "parts": text("a")},
            "systemInstruction": {"parts": text("b")},
            "tools": {"functionDeclarations": {"name": "f"}},
        },
        {
            "contents": [said("user", text("a"))],
            "systemInstruction": {"parts": [text("b")]},
            "tools": [{"functionDeclarations": [{"name": "f"}]}],
        },
    ),
    "what is no thought is absent, and so is an empty signature": (
        {"contents": [said("user", text("a", thought=False, thoughtSignature=""))]},
        {"contents": [said("user", text("a"))]},
    ),
    "what holds nothing is absent": (
        {
            "generationConfig": {},
            "toolConfig": {},
            "tools": [{"functionDeclarations": []}],
            "systemInstruction": {"role": "system", "parts": []},
        },
        {},
    ),
}


@pytest.mark.parametrize("name", EQUAL)
def test_two_spellings_of_one_request_are_one(name):
    one, other = ({**plain(), **fields} for fields in EQUAL[name])
    canonical = DIALECT.canonical_request(one)
    assert canonical == DIALECT.canonical_request(other) == other
    assert round_trip(one) == round_trip(other) == canonical
    assert DIALECT.canonical_request(canonical) == canonical


# What differs and must not be made the same; a value on the right is kept where it stands.
KEPT: list[dict[str, Any]] = [
    {"model": "models/x", "cachedContent": "c", "safetySettings": [], "labels": {"a_b": "c"}, "x": {"y": None}},
    {"contents": [said("user", WIRE_RESULT), said("user", text("a"))]},
    {"contents": [said("user", WIRE_RESULT, text("a")), said("user", text("b"))]},
    {"contents": [said("user", text("a"), WIRE_RESULT)]},
    {"contents": [said("model", WIRE_RESULT), said("user", WIRE_CALL)]},
    {"contents": [{"parts": [text("a")]}, {"role": "function", "parts": [WIRE_RESULT, text("b")], "x": 1}]},
    {"contents": [said("user", text("")), said("model", text("", thoughtSignature="s"))]},
    {"contents": [said("model", {"thoughtSignature": "s"}, {"thought": True}, {"videoMetadata": {"x": None}})]},
    {"contents": [said("model", text("a", thought=True, thoughtSignature="s"), {**CODE}, {**RAN, "x": 1})]},
    {"contents": [said("model", {"toolCall": {"id": "t", "args": {"a": None}}}, {"toolResponse": {"response": {}}})]},
    {"contents": [said("model", {"functionCall": {"name": "f", "args": {"a_b": None, "c": [1.5, {}]}, "x": 1}})]},
    {
        "contents": [
            said("model", {"functionCall": {"name": "f", "args": [1]}}, {"functionCall": {"name": "f", "args": {}}})
        ]
    },
    {"contents": [said("user", response(response={"result": {"a": None}}, willContinue=False, scheduling="SILENT"))]},
    {
        "contents": [
            said("user", response(response={"output": "a", "error": "b"})),
            said("user", response(response="a")),
        ]
    },
    {"contents": [said("user", response(response={"error": {"code": 5}})), said("user", response())]},
    {
        "contents": [
            said("user", response(response={}, parts=[{"fileData": {"fileUri": "https://x"}}, {"inlineData": PIXEL}]))
        ]
    },
    {"contents": [said("user", {"inlineData": {"mimeType": "image/png", "data": "_-8", "displayName": "x"}})]},
    {"contents": [said("user", {"inlineData": {"data": "AAE="}}, {"inlineData": {"mimeType": "image/png"}})]},
    {"contents": [said("user", {"fileData": {"mimeType": "audio/mpeg", "fileUri": "gs://x"}, "mediaResolution": {}})]},
    {"contents": [said("user", {"fileData": {"fileUri": ""}}, {"hologram": {"a": 1}, "partMetadata": {"b": None}})]},
    {"systemInstruction": {"role": "user", "parts": [text(""), text("a")]}},
    {"tools": [{"functionDeclarations": [DECLARED], "codeExecution": {}}]},
    {"tools": [{"functionDeclarations": [DECLARED]}, {"functionDeclarations": [{"name": "b", "description": ""}]}]},
    {"tools": [{"googleSearch": {}}, {"functionDeclarations": [DECLARED], "urlContext": {"a_b": None}}]},
    {"tools": [{"functionDeclarations": [{"name": "f", "response": {"type": "STRING"}, "behavior": "BLOCKING"}]}]},
    {"tools": [{"functionDeclarations": [{"name": "f", "parametersJsonSchema": {}}]}]},
    {"toolConfig": {"functionCallingConfig": {"mode": "AUTO"}, "includeServerSideToolInvocations": True}},
    {
        "tools": [{"functionDeclarations": [DECLARED]}],
        "toolConfig": {"functionCallingConfig": {"mode": "VALIDATED"}, "retrievalConfig": {}},
    },
    {
        "tools": [{"functionDeclarations": [DECLARED]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["look", "b"]}},
    },
    {
        "tools": [{"functionDeclarations": [DECLARED | {"name": "none"}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["none"]}},
    },
    {"generationConfig": {"responseMimeType": "application/json", "stopSequences": [], "speechConfig": {"a_b": None}}},
    {"generationConfig": {"responseJsonSchema": {"type": "string", "pattern": "a", "title": "t"}}},
    {"generationConfig": {"thinkingConfig": {"thinkingBudget": 0, "includeThoughts": False}, "topK": 40.0}},
    {"generationConfig": {"thinkingConfig": {"thinkingLevel": "HIGH"}, "responseModalities": ["TEXT"]}},
    {"generationConfig": {"imageConfig": {"aspectRatio": "1:1"}, "mediaResolution": "MEDIA_RESOLUTION_LOW"}},
]


@pytest.mark.parametrize("fields", KEPT)
def test_nothing_else_differs_when_a_request_is_read_and_sent_again(fields):
    body = {**plain(), **fields}
    assert DIALECT.canonical_request(body) == body
    assert round_trip(body) == body


def test_an_option_that_is_changed_between_is_sent_as_changed():
    request = asked(generationConfig={"temperature": 0.5, "responseModalities": ["TEXT"]})
    http, _ = DIALECT.encode_request(msgspec.structs.replace(request, temperature=0.0, seed=5))
    config = {"temperature": 0.0, "seed": 5, "responseModalities": ["TEXT"]}
    assert json.loads(http.body) == plain(generationConfig=config)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"avgLogprobs": None, "index": 0}, {}),
        ({"content": {"parts": [text("a", thought=False)], "role": "model"}}, {"content": {"parts": [text("a")]}}),
        ({"content": {"parts": [], "role": "model"}}, {"content": {}}),
    ],
)
def test_two_spellings_of_one_answer_are_one(one, other):
    bodies = [answer({"finishReason": "STOP", **fields}) for fields in (one, other)]
    canonical = DIALECT.canonical_answer(bodies[0])
    assert canonical == DIALECT.canonical_answer(bodies[1])
    for body in bodies:
        told = response_of(NAME, DIALECT.decode_answer(json.dumps(body).encode()))
        assert DIALECT.canonical_answer(json.loads(DIALECT.encode_response(told))) == canonical


def test_an_answer_of_another_model_is_told_as_one_of_ours():
    logprob = {"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": []}
    message = assistant(
        Thinking(text="hm"),
        ServerItem(kind="search"),
        TextPart(text="a", notes=({"cited_text": "b"}, {"logprob": logprob})),
        Refusal(text="no"),
        Value(value=[1]),
        CALL,
        IMAGE,
    )
    response = msgspec.structs.replace(
        response_of(
            "other", [Head("r9", "m"), Count(Usage(input=1, input_audio=2, cache_read=4, output=3, reasoning=5))]
        ),
        message=msgspec.structs.replace(message, id="r9"),
        choices=(),
        finish_reason="tool_calls",
    )
    assert json.loads(DIALECT.encode_response(response)) == {
        "responseId": "r9",
        "modelVersion": "m",
        "candidates": [
            {
                "content": {
                    "role": "model",
                    "parts": [
                        text("hm", thought=True),
                        text("a"),
                        text("no"),
                        text("[1]"),
                        WIRE_CALL,
                        {"inlineData": PIXEL},
                    ],
                },
                "finishReason": "STOP",
                "logprobsResult": {
                    "chosenCandidates": [{"token": "a", "logProbability": -1.0}],
                    "topCandidates": [{"candidates": []}],
                },
            }
        ],
        "usageMetadata": {
            "promptTokenCount": 7,
            "cachedContentTokenCount": 4,
            "candidatesTokenCount": 3,
            "thoughtsTokenCount": 5,
            "totalTokenCount": 15,
            "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 2}],
        },
    }
    for wrong in (Audio(id="x"), RESULT):
        with pytest.raises(UnsupportedError):
            DIALECT.encode_response(msgspec.structs.replace(response, message=assistant(wrong)))


def test_parts_are_told_one_after_another_whatever_the_order_of_the_deltas():
    deltas = [
        Open(0, "thinking"),
        Text(0, "a"),
        Open(1, "text", choice=1),
        Text(1, "the other"),
        Open(2, "text"),
        Text(2, "b"),
        Text(0, "c"),
        Open(3, "call", name="f"),
        Text(3, '{"x"'),
        Open(4, "call", "i4", "g"),
        Text(4, "{}"),
        Open(5, "image", media_type="image/png"),
        Text(2, "d"),
        State(3, {}, id="i3"),
        Blob(5, b"\0"),
        Text(3, ":1}"),
        Close(4),
        Blob(5, b"\1"),
        Close(3),
        Event({}),
        Finish("tool_calls", raw="other"),
        Count(Usage(input=1, output=2)),
        Finish("length", choice=1),
    ]
    told = streamed(deltas)
    (message, other), usage, finishes = total(decoded(told)[0])
    # What goes on after another began is a part of its own.
    assert [type(part).__name__ for part in message.parts] == [
        "Thinking",
        "Text",
        "Thinking",
        "ToolCall",
        "ToolCall",
        "Image",
        "Text",
    ]
    assert (message.text, message.thinking, other.text) == ("bd", "ac", "the other")
    assert [(call.id, call.name, call.input) for call in message.tool_calls] == [
        ("i3", "f", '{"x":1}'),
        ("i4", "g", "{}"),
    ]
    assert message.parts[5].data == b"\0\1"
    assert (usage.input, usage.output, {n: finish.reason for n, finish in finishes.items()}) == (
        1,
        2,
        {0: "tool_calls", 1: "length"},
    )


def test_text_is_told_as_it_comes_and_a_call_when_it_is_complete():
    encoder = DIALECT.encoder()
    told = [encoder.feed(delta) for delta in [Head("r", "m"), Open(0, "text"), Text(0, "a"), Text(0, "b"), Close(0)]]
    assert [bool(each) for each in told] == [False, False, True, True, False]
    told = [encoder.feed(delta) for delta in [Open(1, "call", name="f"), Text(1, "{}"), Close(1)]]
    assert [bool(each) for each in told] == [False, False, True]
    assert chunks_of(told[2]) == [
        answer(candidate({"functionCall": {"name": "f", "args": {}}}), responseId="r", modelVersion="m")
    ]


def test_an_answer_with_nothing_in_it_has_an_end():
    assert chunks_of(streamed([])) == [answer({"finishReason": "OTHER"})]
    assert chunks_of(streamed([Finish("stop")])) == [answer({"finishReason": "STOP"})]


def test_a_call_that_stays_without_a_name_is_an_error():
    with pytest.raises(StreamProtocolError):
        streamed([Open(0, "call", "a"), Text(0, "{}"), Close(0)])
    with pytest.raises(StreamProtocolError):
        streamed([Open(0, "call", "a", "f"), Close(0), Text(0, "{}")])
    with pytest.raises(StreamProtocolError):
        streamed([Text(0, "a")])


@pytest.mark.parametrize("name", ["gemini", "google"])
def test_a_row_sends_its_key_in_its_own_header_from_either_variable(monkeypatch, name):
    for variable in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigurationError, match="GEMINI_API_KEY or GOOGLE_API_KEY"):
        find_key(PROVIDERS[name], None, None)
    for variable in ("GOOGLE_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(variable, f"secret-of-{variable}")
        key = find_key(PROVIDERS[name], None, None)
        assert key.header() == ("x-goog-api-key", f"secret-of-{variable}")
        assert "secret" not in repr(key.header())
    assert find_key(PROVIDERS[name], "https://elsewhere.example", None) is None


# Laws.

words = st.text(max_size=12)
shown = words.filter(str.strip)
names = st.from_regex(r"[a-z]{1,8}", fullmatch=True)
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
jsons = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(words, jsons, max_size=3)
extras = st.dictionaries(
    st.sampled_from(["thoughtSignature", "partMetadata", "x"]), jsons.filter(lambda v: v not in (None, "")), max_size=2
)


def state_of(patch):
    return ProviderState(NAME, {"set": patch}) if patch else None


def compact(value):
    return encode_json(value).decode()


texts = st.builds(lambda words, patch: TextPart(text=words, state=state_of(patch)), words.filter(bool), extras)
thoughts = st.builds(lambda words, patch: thought(words, **patch), words, extras)
items = st.builds(
    lambda kind, id_, value, patch: ServerItem(
        kind=kind, id=id_ or None, state=state_of({kind: {**value, "id": id_}, **patch})
    ),
    st.sampled_from(["executableCode", "toolCall", "news"]),
    words,
    objects,
    extras,
)
calls = st.builds(
    lambda name, value, patch: ToolCall(name=name, input=compact(value), state=state_of(patch)), names, objects, extras
)
images = st.builds(
    lambda data, patch: Image(data=data, media_type="image/webp", state=state_of(patch)), st.binary(), extras
)
media = (
    images
    | st.builds(lambda data: Audio(data=data, media_type="audio/mpeg"), st.binary())
    | st.builds(lambda data, name: File(data=data, media_type="video/mp4", name=name), st.binary(), shown | st.none())
    | st.builds(lambda url: Image(url=f"https://{url}", media_type="image/png"), words)
    | st.builds(lambda url, kind: File(url=f"gs://{url}", media_type=kind), words, st.sampled_from([None, "text/csv"]))
    | st.builds(lambda id_: File(id=id_), shown.filter(lambda id_: "://" not in id_))
)


@st.composite
def histories(draw):
    """Messages as a conversation has them: calls are answered."""
    messages = [Message("system", tuple(draw(st.lists(texts, min_size=1, max_size=2))))] if draw(st.booleans()) else []
    for turn in range(draw(st.integers(1, 3))):
        messages.append(Message("user", tuple(draw(st.lists(texts | media, min_size=1, max_size=3)))))
        made = [
            msgspec.structs.replace(call, id=draw(st.sampled_from([None, f"c{turn}.{number}"])))
            for number, call in enumerate(draw(st.lists(calls, max_size=2)))
        ]
        parts = (*draw(st.lists(texts | thoughts | items | images, min_size=0 if made else 1, max_size=3)), *made)
        messages.append(Message("assistant", parts))
        if made:
            one = st.builds(lambda words: TextPart(text=words), words) | st.builds(
                lambda value: Value(value=value), jsons.filter(lambda value: not isinstance(value, str))
            )
            content = st.builds(lambda one, some: (one, *some), one, st.lists(images, max_size=2))
            results = [
                ToolResult(call_id=call.id, name=call.name, content=draw(content), is_error=draw(st.booleans()))
                for call in made
            ]
            messages.append(Message("tool", tuple(results)))
    return tuple(messages)


tools = st.builds(
    lambda name, words, patch: ToolSpec(name, words, CITY, state_of(patch)),
    names,
    words,
    st.dictionaries(st.sampled_from(["behavior", "x"]), jsons.filter(lambda v: v is not None), max_size=2),
)


@st.composite
def requests(draw):
    offered = tuple(draw(st.lists(tools, max_size=2)))
    options = {
        "temperature": draw(st.none() | st.floats(0, 1)),
        "top_p": draw(st.none() | st.floats(0, 1)),
        "top_k": draw(st.none() | st.integers(1, 100)),
        "max_tokens": draw(st.none() | st.integers(1, 100)),
        "stop": draw(st.none() | st.lists(words, max_size=2).map(tuple)),
        "seed": draw(st.none() | st.integers(0, 9)),
        "n": draw(st.none() | st.integers(1, 9)),
        "logprobs": draw(st.none() | st.booleans()),
        "thinking": draw(st.none() | st.just(True) | st.sampled_from(["low", "medium", "high"])),
        "tool_choice": draw(st.sampled_from(["auto", "required", *(tool.name for tool in offered)]))
        if offered
        else None,
        "schema": draw(st.none() | st.just(OutputSchema("answer", CITY))),
    }
    if options["tool_choice"] in ("none", "any"):
        options["tool_choice"] = "auto"
    return Request(model="", messages=draw(histories()), tools=offered, **options)


@given(requests())
@settings(max_examples=150, deadline=None)
def test_a_request_comes_back_as_it_was(request):
    http, notices = DIALECT.encode_request(request)
    assert notices == ()
    back = DIALECT.decode_request(http.body)
    assert back == request
    assert DIALECT.encode_request(back)[0].body == http.body


patches = st.dictionaries(names | st.sampled_from(["thought", "thoughtSignature", "video_metadata"]), jsons, max_size=2)


def with_patch(block):
    return st.builds(lambda inner, patch: {**patch, **inner}, block, patches)


wire_calls = st.fixed_dictionaries({"name": names}, optional={"id": words, "args": jsons, "x": jsons})
blobs = st.builds(lambda kind, data: {"mimeType": kind, "data": b64encode(data).decode()}, names, st.binary(max_size=4))
wire_parts = with_patch(
    st.one_of(
        st.builds(text, words),
        st.builds(lambda words: text(words, thought=True), words),
        st.builds(lambda call: {"functionCall": call}, wire_calls),
        st.builds(lambda call: {"function_call": call}, wire_calls),
        st.builds(lambda blob, extra: {"inlineData": {**blob, **extra}}, blobs | st.just(PIXEL), patches),
        st.builds(lambda blob: {"inline_data": {"mime_type": "image/png", **blob}}, objects),
        st.builds(lambda source: {"fileData": source}, objects | st.just({"fileUri": "https://x", "x": None})),
        st.builds(
            lambda kind, value: {kind: value},
            st.sampled_from(["executableCode", "toolCall", "news"]),
            jsons.filter(lambda v: v is not None),
        ),
    )
)
wire_results = with_patch(
    st.builds(
        lambda result: {"functionResponse": result},
        st.fixed_dictionaries(
            {"name": names},
            optional={
                "id": words,
                "response": objects | st.just({"output": "a"}) | st.just({"error": {"a": 1}}) | jsons,
                "parts": st.lists(st.just({"inlineData": PIXEL}) | wire_parts, max_size=2) | jsons,
                "willContinue": jsons,
            },
        ),
    )
)
wire_contents = st.fixed_dictionaries(
    {"parts": st.lists(wire_parts | wire_results, min_size=1, max_size=3) | wire_parts},
    optional={"role": st.sampled_from(["user", "model", "user", "function"]), "mood": jsons},
)
declarations = with_patch(
    st.fixed_dictionaries(
        {"name": names},
        optional={"description": words, "parameters": objects, "parametersJsonSchema": objects, "response": jsons},
    )
)
bodies = st.fixed_dictionaries(
    {"contents": st.lists(wire_contents, min_size=1, max_size=4)},
    optional={
        "model": words,
        "systemInstruction": wire_contents | st.none(),
        "generationConfig": st.fixed_dictionaries(
            {},
            optional={
                "temperature": numbers | st.none(),
                "topK": st.integers(0, 50) | st.just(40.0),
                "stopSequences": st.lists(words, max_size=2),
                "thinkingConfig": st.sampled_from([{"thinkingBudget": 5}, {"includeThoughts": True}]) | objects,
                "responseSchema": objects | st.just(OWN_SCHEMA),
                "responseJsonSchema": objects,
                "responseMimeType": words,
                "x": jsons,
            },
        ),
        "tools": st.lists(
            st.fixed_dictionaries(
                {}, optional={"functionDeclarations": st.lists(declarations, max_size=2), "googleSearch": jsons}
            ),
            max_size=2,
        ),
        "toolConfig": st.fixed_dictionaries(
            {},
            optional={
                "functionCallingConfig": st.fixed_dictionaries(
                    {"mode": st.sampled_from(["AUTO", "ANY", "NONE", "x"])},
                    optional={"allowedFunctionNames": st.lists(names, max_size=2)},
                )
                | objects,
                "retrievalConfig": jsons,
            },
        ),
        "cachedContent": jsons,
        "x": jsons,
    },
)


@given(bodies)
@settings(max_examples=200, deadline=None)
def test_every_request_that_is_read_is_the_same_when_it_is_sent_again(body):
    try:
        request = DIALECT.decode_request(json.dumps(body).encode())
    except BadRequestError:
        assume(False)
    again = json.loads(DIALECT.encode_request(request)[0].body)
    assert same(again, DIALECT.canonical_request(body)), (again, DIALECT.canonical_request(body))


noted = {
    "groundingMetadata": objects | st.just(GROUNDS),
    "urlContextMetadata": objects,
    "citationMetadata": objects
    | st.fixed_dictionaries(
        {},
        optional={
            "citations": st.lists(objects | jsons, max_size=2),
            "citationSources": st.lists(objects, max_size=2),
            "x": jsons,
        },
    ),
    "logprobsResult": objects
    | st.just(LOGPROBS)
    | st.fixed_dictionaries(
        {}, optional={"chosenCandidates": st.lists(objects | jsons, max_size=2), "topCandidates": jsons}
    ),
}
wire_candidates = st.fixed_dictionaries(
    {},
    optional={
        "content": st.fixed_dictionaries(
            {},
            optional={
                "parts": st.lists(wire_parts | wire_results, max_size=3),
                "role": st.just("model") | words,
                "x": jsons,
            },
        )
        | st.none(),
        "finishReason": st.sampled_from(["STOP", "MAX_TOKENS", "SAFETY", "NEW_REASON", "", 1, 4, None]),
        "finishMessage": jsons,
        "safetyRatings": jsons,
        "avgLogprobs": jsons,
        **noted,
    },
)
answers = st.fixed_dictionaries(
    {"candidates": st.lists(wire_candidates, min_size=1, max_size=3)},
    optional={
        "responseId": words | st.none(),
        "modelVersion": words,
        "createTime": jsons,
        "promptFeedback": objects,
        "usageMetadata": st.dictionaries(
            st.sampled_from(
                ["promptTokenCount", "candidatesTokenCount", "totalTokenCount", "promptTokensDetails", "x"]
            ),
            st.integers(0, 99) | jsons | st.just([{"modality": "AUDIO", "tokenCount": 5}]),
        )
        | jsons,
        "x": jsons,
    },
)


@given(answers)
@settings(max_examples=200, deadline=None)
def test_every_answer_that_is_read_is_the_same_when_it_is_told_again(body):
    for number, each in enumerate(body["candidates"]):
        if number:
            each["index"] = number
    try:
        deltas = DIALECT.decode_answer(json.dumps(body).encode())
    except StreamProtocolError:
        assume(False)
    again = json.loads(DIALECT.encode_response(response_of(NAME, deltas)))
    canonical = DIALECT.canonical_answer(again)
    assert same(canonical, DIALECT.canonical_answer(body)), (canonical, DIALECT.canonical_answer(body))
    if all(each.get("finishReason") for each in body["candidates"]):
        rest, error = decoded(streamed(deltas))
        assert error is None
        assert total(rest) == total(deltas)


@st.composite
def delta_streams(draw):
    """Deltas as a decoder may give them: calls interleaved, their ids late or never; other parts one after another."""
    deltas, part = [Head("r1", "m")], 0
    for _ in range(draw(st.integers(0, 3))):
        if draw(st.booleans()):
            kind = draw(st.sampled_from(["text", "thinking"]))
            state = {"set": {"thought": True}} if kind == "thinking" else None
            deltas += [
                Open(part, kind, state=state),
                *(Text(part, piece) for piece in draw(st.lists(shown, max_size=3))),
            ]
            if kind == "text" and draw(st.booleans()):
                deltas.append(Note(part, {"groundingMetadata": {"a": 1}}))
            deltas += [Close(part)] if draw(st.booleans()) else []
            part += 1
            continue
        queues = []
        for _ in range(draw(st.integers(1, 3))):
            pieces = [Text(part, piece) for piece in ('{"a"', ":", "1}")]
            id_, when = f"c{part}", draw(st.sampled_from(["first", "late", "never"]))
            if when == "late":
                pieces.insert(draw(st.integers(0, 3)), State(part, {}, id=id_))
            queue = [Open(part, "call", id_ if when == "first" else None, draw(names)), *pieces]
            queues.append(queue + ([Close(part)] if draw(st.booleans()) else []))
            part += 1
        openings = [queue.pop(0) for queue in queues]
        deltas += openings
        while any(queues):
            deltas.append(draw(st.sampled_from([queue for queue in queues if queue])).pop(0))
    counts = st.none() | st.integers(0, 99)
    usage = Usage(input=draw(counts), output=draw(st.integers(0, 9)), reasoning=draw(counts))
    deltas.append(Count(msgspec.structs.replace(usage, reported_total=usage.total_tokens)))
    has_calls = any(isinstance(delta, Open) and delta.kind == "call" for delta in deltas)
    raw, reason = draw(st.sampled_from([("STOP", "tool_calls" if has_calls else "stop"), ("MAX_TOKENS", "length")]))
    return [*deltas, Finish(reason, raw=raw)]


@given(delta_streams(), st.data())
@settings(max_examples=150, deadline=None)
def test_the_sum_of_deltas_survives_being_a_stream_however_it_is_cut(deltas, data):
    told = streamed(deltas)
    cuts = data.draw(st.lists(st.integers(0, len(told)), max_size=5))
    again, error = decoded(told, cuts)
    assert error is None
    assert total(again) == total(deltas)
    assert again == decoded(told)[0]


STREAMS = [chunks for _, chunks, *_ in ANSWERS.values()] + [chunks_of(in_pieces(*PIECES))]


def survive(deltas):
    """What comes after a decoder raises nothing foreign either."""
    try:
        DIALECT.encode_response(response_of(NAME, deltas))
        streamed(deltas)
    except SabirError:
        pass


@given(st.sampled_from(STREAMS), st.booleans(), st.data())
@settings(max_examples=200, deadline=None)
def test_a_stream_with_anything_anywhere_raises_only_errors_of_the_family(told, is_array, data):
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(values_in(told))[1:]))
        new = data.draw(jsons | st.sampled_from([[], {}, "STOP", "$.a", True, 10**400, -1, "\ud83c"]))
        try:
            told = replaced(told, path, new)
        except (KeyError, TypeError, IndexError):
            continue
    deltas, error = decoded(json.dumps(told).encode() if is_array else sse(*told))
    survive(deltas)
    assert error is None or isinstance(error, SabirError)


@given(
    st.binary()
    | st.sampled_from(STREAMS).map(lambda told: sse(*told))
    | st.sampled_from(STREAMS).map(lambda told: json.dumps(told).encode()),
    st.data(),
)
@settings(max_examples=200, deadline=None)
def test_random_bytes_raise_only_errors_of_the_family_however_they_are_cut(body, data):
    for _ in range(data.draw(st.integers(0, 5))):
        at = data.draw(st.integers(0, len(body)))
        body = body[:at] + data.draw(st.binary(max_size=3)) + body[at + data.draw(st.integers(0, 3)) :]
    deltas, error = decoded(body)
    survive(deltas)
    again, other = decoded(body, data.draw(st.lists(st.integers(0, len(body)), max_size=4)))
    assert (again, str(other)) == (deltas, str(error))
    for attempt in (DIALECT.decode_answer, DIALECT.decode_request):
        try:
            attempt(body)
        except SabirError:
            pass
    assert isinstance(DIALECT.decode_error(400, {}, body), SabirError)


@pytest.mark.parametrize("depth", [100, 300, 500, 990, 5000, 100_000])
def test_what_is_nested_deeply_raises_only_errors_of_the_family(depth):
    deep = "[" * depth + "]" * depth
    nested = '{"items":' * depth + "{}" + "}" * depth
    call = '{"functionCall":{"name":"f","args":{"a":' + deep + "}}}"
    message = '{"candidates":[{"content":{"parts":[' + call + ']},"finishReason":"STOP"}]}'
    for body in (message, '{"error":' + deep + "}"):
        try:
            survive(DIALECT.decode_answer(body.encode()))
        except SabirError:
            pass
    for framed in (f"data: {message}\n\n", f"[{message}]"):
        survive(decoded(framed.encode())[0])
    for schema in ("responseSchema", "responseJsonSchema"):
        try:
            config = '"generationConfig":{"responseMimeType":"application/json","' + schema + '":' + nested + "}"
            request = '{"contents":[{"role":"model","parts":[' + call + "]}]," + config + "}"
            DIALECT.encode_request(DIALECT.decode_request(request.encode()))
        except SabirError:
            pass


# Recordings: what real servers said, read here once more without the dialect.


def recorded():
    if not RECORDINGS.exists():
        return []
    return [json.loads(line) for line in RECORDINGS.read_bytes().splitlines()]


ALL = recorded()
OTHER_OPERATIONS = {"countTokens", "cachedContents"}
EXCHANGES = [exchange for exchange in ALL if exchange["endpoint"] not in OTHER_OPERATIONS]
needs_recordings = pytest.mark.skipif(not ALL, reason=f"no recordings at {RECORDINGS}")


def every(exchanges):
    return pytest.mark.parametrize("exchange", exchanges, ids=lambda exchange: exchange["id"])


@needs_recordings
def test_only_other_operations_are_left_out():
    left = {exchange["endpoint"] for exchange in ALL} - {exchange["endpoint"] for exchange in EXCHANGES}
    assert left == OTHER_OPERATIONS
    assert {exchange["endpoint"] for exchange in EXCHANGES} == {"generateContent", "streamGenerateContent"}


REASONS = {
    "STOP": "stop",
    1: "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "MODEL_ARMOR": "content_filter",
}


@needs_recordings
@every([exchange for exchange in EXCHANGES if exchange["response"]["status"] == 200])
def test_a_recorded_answer_says_what_its_json_says(exchange):
    body = exchange["response"]["body"]
    if isinstance(body, dict):
        chunks, deltas = [body], DIALECT.decode_answer(json.dumps(body).encode())
    else:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        chunks = chunks_of(data) if isinstance(body, str) else body
        deltas, error = decoded(data)
        assert error is None
    choices, usage, finishes = total(deltas)
    candidates = [each for chunk in chunks for each in chunk.get("candidates", ())]
    for number, message in enumerate(choices):
        mine = [each for each in candidates if each.get("index", 0) == number]
        parts = [part for each in mine for part in each.get("content", {}).get("parts", ())]
        assert message.text == "".join(part.get("text", "") for part in parts if not part.get("thought"))
        assert message.thinking == "".join(part.get("text", "") for part in parts if part.get("thought"))
        signatures = [part["thoughtSignature"] for part in parts if "thoughtSignature" in part]
        assert [
            part.state.value["set"]["thoughtSignature"]
            for part in message.parts
            if part.state and "thoughtSignature" in part.state.value.get("set", {})
        ] == signatures
        made = [part["functionCall"] for part in parts if "name" in part.get("functionCall", {})]
        assert [(call.id, call.name) for call in message.tool_calls] == [
            (call.get("id"), call["name"]) for call in made
        ]
        for call, wire in zip(message.tool_calls, made, strict=True):
            if not wire.get("willContinue"):
                assert call.arguments == wire.get("args", {})
        raw = next((each["finishReason"] for each in mine if each.get("finishReason")), None)
        if raw in ("STOP", 1, "UNEXPECTED_TOOL_CALL") and made:
            assert finishes[number].reason == "tool_calls"
        elif raw is not None:
            assert finishes[number].reason == REASONS[raw]
    counts = {}
    for chunk in chunks:
        counts.update(chunk.get("usageMetadata", {}))
    assert usage.total_tokens == (usage.reported_total if "totalTokenCount" in counts else usage.total_tokens)
    assert usage.reported_total == counts.get("totalTokenCount")
    assert usage.reasoning == counts.get("thoughtsTokenCount")
    assert usage.cached_tokens == counts.get("cachedContentTokenCount")


KINDS = {400: BadRequestError, 403: PermissionDeniedError, 404: NotFoundError, 429: RateLimitError}


@needs_recordings
@every([exchange for exchange in ALL if exchange["response"]["status"] != 200])
def test_a_recorded_error_is_the_exception_it_means(exchange):
    response = exchange["response"]
    told = response["body"]["error"]
    error = DIALECT.decode_error(response["status"], response["headers"], json.dumps(response["body"]).encode())
    is_key = "API key not valid" in told["message"]
    assert type(error) is (AuthenticationError if is_key else KINDS[response["status"]])
    assert error.code == ("API_KEY_INVALID" if is_key else told["status"])
    assert told["message"].split("\n")[0] in str(error)
    delays = [detail["retryDelay"] for detail in told.get("details", ()) if "retryDelay" in detail]
    assert error.retry_after == (float(delays[0].rstrip("s")) if delays else None)


@needs_recordings
@every([exchange for exchange in EXCHANGES if mapping_of(exchange["request"]).get("body")])
def test_a_recorded_request_is_the_same_when_it_is_sent_again(exchange):
    body = exchange["request"]["body"]
    try:
        again = round_trip(body)
    except BadRequestError:
        assert exchange["response"]["status"] == 400
        return
    assert same(again, DIALECT.canonical_request(body))
