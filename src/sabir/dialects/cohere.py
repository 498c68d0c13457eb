"""Cohere's chat API, version 2, both halves. Knows no provider, only quirks.

Sources: https://docs.cohere.com/v2/reference/chat, the types of Cohere's Python SDK (7.3, 2026-11) and 44 recorded
exchanges. A block of a content and a call are parts of ours, and so is the plan that a model makes before it calls
tools: a thinking that comes first. Citations are notes of the part that they are of. What a message, block, call, tool,
request or answer says beyond our words is a patch in its state. Of an answer's two counts the tokens are our usage;
what is billed stays in the state. Version 1 of the API is another format.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from ..deltas import Blob, Close, Count, Delta, Event, Finish, FinishReason, Head, Note, Open, PartKind, State, Text
from ..errors import (
    AuthenticationError,
    BadRequestError,
    ContextOverflowError,
    ProviderError,
    SabirError,
    ServerError,
    StreamInterrupted,
    StreamProtocolError,
    UnsupportedError,
)
from ..messages import (
    Audio,
    File,
    Image,
    Message,
    Part,
    ProviderState,
    Refusal,
    ServerItem,
    Thinking,
    ToolCall,
    ToolResult,
    Value,
)
from ..messages import Text as TextPart
from ..requests import HttpRequest, Notice, Options, OutputSchema, Request, Response, SchemaMode, ToolSpec
from ..strict_json import decode_json, encode_json, is_array, is_object
from ..usage import Usage
from . import Unsupported, Verdicts, broken_off, count_of, event_object, list_of, lost_citations, mapping_of, text_of
from .cache_marks import BY_THEMSELVES, keyed
from .failures import as_kind, error_from_value, status_of
from .frames import Frame
from .in_turn import InTurn, PartDelta
from .leftovers import difference, own_state, patched
from .media_rules import MEGABYTE, MediaRules
from .nesting import Holders
from .nesting import flat as _flat
from .nesting import nested as _nested
from .nesting import present as _present
from .places import no_place
from .ranges import PORTABLE, Ranges, check_read, check_sent
from .sse import EventStream
from .subsets import COHERE, parameters_of, shape_of, told_of_tools
from .surrogates import PairedText

NAME = "cohere"

# The verdict on each portable parameter: the wire's word for it, or why there is none.
PARAMETERS: Verdicts = {
    "temperature": "temperature",
    "top_p": "p",
    "top_k": "k",
    "max_tokens": "max_tokens",
    "stop": "stop_sequences",
    "seed": "seed",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "logprobs": "logprobs",
    "documents": "documents",
    "min_p": Unsupported("this API has no min_p; use top_p"),
    "repetition_penalty": Unsupported("this API has no repetition_penalty; use frequency_penalty"),
    "top_logprobs": Unsupported("this API tells the log probability of what was said only; leave it out"),
    "parallel_tool_calls": Unsupported("this API has no such switch; say in the prompt how many calls are wanted"),
    "n": Unsupported("this API gives one answer; ask several times"),
    "user": Unsupported("this API knows no users; leave it out"),
}

# https://docs.cohere.com/v2/reference/chat
RANGES: Ranges = {**PORTABLE, "top_k": (0, 500), "frequency_penalty": (0, 1), "presence_penalty": (0, 1)}

_FINISH: dict[str, FinishReason] = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "ERROR_LIMIT": "length",
    "TOOL_CALL": "tool_calls",
    "ERROR_TOXIC": "content_filter",
}
_WIRE_FINISH: dict[FinishReason, str] = {
    "stop": "COMPLETE",
    "length": "MAX_TOKENS",
    "tool_calls": "TOOL_CALL",
    "content_filter": "ERROR_TOXIC",
    "refusal": "COMPLETE",
}
# Ends that leave no answer behind.
_FAILED = ("ERROR", "TIMEOUT")
_CHOICES = {"required": "REQUIRED", "none": "NONE"}
_BUDGETS: dict[str, int] = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384}
_OVERFLOW = "TOO_MANY_TOKENS"
_EXCEEDED = re.compile(r"exceeded by (\d{1,15}) tokens.*limit for this model is (\d{1,15})", re.S)

_IN_CALL: Holders = {"function": {}}
_IN_IMAGE: Holders = {"image_url": {}}
_IN_ANSWER: Holders = {"message": {}, "usage": {"tokens": {}}}
_IN_REQUEST: Holders = {"response_format": {}, "thinking": {}}
# Of an answer's message, what is told as parts.
_TOLD = ("message.content", "message.tool_plan", "message.tool_calls", "message.citations")
_SPOKEN: dict[str, PartKind] = {"text": "text", "thinking": "thinking"}
# What a thinking is that is a block, and one that is a plan; both are their maker's own.
_BLOCK = {"type": "thinking"}
_PLAN = {"is_plan": True}
_PLACES = (
    ("delta", "message", "content", "text"),
    ("delta", "message", "content", "thinking"),
    ("delta", "message", "tool_plan"),
    ("delta", "message", "tool_calls", "function", "arguments"),
)
# https://docs.cohere.com/docs/image-inputs: by address or as bytes, 20 MB of them in a request.
MEDIA = MediaRules(
    types={Image: ("image/png", "image/jpeg", "image/webp", "image/gif")},
    most={Image: 20 * MEGABYTE},
)


@dataclass(frozen=True)
class Cohere:
    """The dialect with the quirks of one kind of server.

    Attributes:
        parameters: the verdict on each portable parameter.
        ranges: what its numbers may be.
        schema: "json_object" (the answer is made to fit the schema) or "prompt" (the schema is described).
        media: what the server takes of images.
    """

    parameters: Verdicts = field(default_factory=lambda: PARAMETERS)
    ranges: Ranges = field(default_factory=lambda: RANGES)
    schema: Literal["json_object", "prompt"] = "json_object"
    media: MediaRules = MEDIA

    name = NAME

    def verdicts(self) -> Verdicts:
        """The verdict on every portable parameter."""
        schema = "response_format.json_schema" if self.schema == "json_object" else "(described in the prompt)"
        special = {"thinking": "thinking", "tool_choice": "tool_choice", "schema": schema}
        special["cache"] = BY_THEMSELVES.verdict()
        return {**self.parameters, **special, "extra": "(as given)", "headers": "(as given)"}

    def schema_modes(self, request: Request) -> tuple[SchemaMode, ...]:
        if request.documents:
            return ("prompt",)
        # No schema is taken beside tools.
        is_native = self.schema == "json_object" and not request.tools
        return ("native", "tool", "prompt") if is_native else ("tool", "prompt")

    def encode_request(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        check_sent(request, self.ranges, self.parameters)
        encoder = _BodyEncoder(self)
        body = encode_json(encoder.body(request))
        headers = (("content-type", "application/json"), *request.headers.items())
        return HttpRequest("POST", "/chat", headers, body), tuple(encoder.notices)

    def decode_answer(self, body: bytes) -> list[Delta]:
        text = body[:10_000].decode("utf-8", "replace")
        try:
            value = decode_json(body)
        except ValueError as error:
            raise ServerError(f"the answer is no JSON: {error}", status=200, body=text) from None
        if not is_object(value) or not is_object(value.get("message")):
            if mapping_of(value).keys() & {"error", "error_type", "message"}:
                raise _failure(None, {}, value, text)
            raise StreamProtocolError("the answer has no message", body=text)
        deltas: list[Delta] = []
        try:
            _AnswerReader().read_whole(self.canonical_answer(value), deltas)
        except ServerError as error:
            raise broken_off(error, NAME, deltas) from None
        return deltas

    def decoder(self) -> CohereDecoder:
        return CohereDecoder()

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        try:
            value = decode_json(body)
        except ValueError:
            value = None
        return _failure(status, headers, value, body.decode("utf-8", "replace").strip())

    def decode_request(self, body: bytes) -> Request:
        try:
            value = decode_json(body)
        except ValueError as error:
            raise _refused("body", f"no JSON: {error}") from None
        if not is_object(value):
            raise _refused("body", "a JSON object is wanted")
        return _RequestReader(self).read(self.canonical_request(value))

    def encode_response(self, response: Response[Any]) -> bytes:
        state = own_state(response.message.state, NAME)
        flat = _flat(_answer(response.message.id, response.finish_reason, response.usage), _IN_ANSWER)
        flat |= {f"message.{name}": value for name, value in _answer_message(response.message.parts).items()}
        return encode_json(_nested(patched(flat, state.get("answer", {})), _IN_ANSWER))

    def encoder(self, request: Request | None = None) -> CohereEncoder:
        return CohereEncoder()

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        kind = _OVERFLOW if isinstance(error, ContextOverflowError) else error.code
        told = {"id": error.request_id, "message": error.message, "error_type": kind}
        return status_of(error), encode_json({name: value for name, value in told.items() if value})

    def canonical_request(self, body: dict[str, Any]) -> dict[str, Any]:
        """What means the same is made the same, in the objects that we read and no deeper:

        - null is absent;
        - `stream: false`, and lists of documents, tools, calls and citations with nothing in them, are absent;
        - a string as the content of a message that is no tool's is one block of text; an empty content is absent;
        - a call without arguments has an empty text of them.
        """
        wire = _present(body, _IN_REQUEST)
        wire = {name: value for name, value in wire.items() if (name, value) not in _NOTHING}
        if is_array(messages := wire.get("messages")):
            wire["messages"] = [_canonical_message(message) for message in messages]
        if is_array(tools := wire.get("tools")):
            wire["tools"] = [_present(tool, _IN_CALL) for tool in tools]
        return wire

    def canonical_answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Null is absent, in the objects that we read; so are a plan and lists in a message with nothing in them. A
        call without arguments has an empty text of them.
        """
        canonical: dict[str, Any] = _present(body, _IN_ANSWER)
        if is_object(message := canonical.get("message")):
            canonical["message"] = _canonical_message(message)
        return canonical


_NOTHING: tuple[tuple[str, Any], ...] = (("stream", False), ("documents", []), ("tools", []))
_NOTHING_IN_A_MESSAGE: tuple[tuple[str, Any], ...] = (
    ("content", []),
    ("tool_calls", []),
    ("citations", []),
    ("tool_plan", ""),
)


def _canonical_message(message: Any) -> Any:
    if not is_object(message):
        return message
    canonical = _present(message, {})
    if isinstance(text := canonical.get("content"), str) and canonical.get("role") != "tool":
        canonical["content"] = [{"type": "text", "text": text}]
    if is_array(content := canonical.get("content")):
        canonical["content"] = [_present(block, _IN_IMAGE) for block in content]
    if is_array(calls := canonical.get("tool_calls")):
        canonical["tool_calls"] = [_canonical_call(call) for call in calls]
    return {name: value for name, value in canonical.items() if (name, value) not in _NOTHING_IN_A_MESSAGE}


def _canonical_call(call: Any) -> Any:
    canonical = _present(call, _IN_CALL)
    if is_object(canonical) and is_object(function := canonical.get("function")):
        function.setdefault("arguments", "")
    return canonical


# Blocks, calls and parts, for both halves


def _part_of(block: dict[str, Any]) -> Part:
    """A block in canonical form as a part."""
    part = _worded(block)
    if part is None:
        return ServerItem(kind=text_of(block.get("type")) or "block", state=ProviderState(NAME, {"set": block}))
    patch = difference(_flat(block, _IN_IMAGE), _flat(_block_of(part), _IN_IMAGE))
    return msgspec.structs.replace(part, state=ProviderState(NAME, patch)) if patch else part


def _worded(block: dict[str, Any]) -> TextPart | Thinking | Image | None:
    """A block in our words, as far as they go; None if they say nothing of it."""
    kind = text_of(block.get("type"))
    if kind in _SPOKEN:
        if not isinstance(text := block.get(kind, ""), str):
            raise StreamProtocolError(f"the {kind} of a block is no text: {str(text)[:80]}")
        return TextPart(text=text) if kind == "text" else Thinking(text=text)
    image = mapping_of(block.get("image_url"))
    if kind == "image_url" and (url := text_of(image.get("url"))) is not None:
        found = re.fullmatch(r"data:([^;,]+);base64,(.*)", url, re.S)
        detail = text_of(image.get("detail"))
        if found is None:
            return Image(url=url, detail=detail)
        return Image(data=_bytes_of(found[2]), media_type=found[1], detail=detail)
    return None


def _bytes_of(data: str) -> bytes:
    try:
        return b64decode(data, validate=True)
    except ValueError:
        raise StreamProtocolError("the data of an image is no base64") from None


def _block_of(part: Part) -> dict[str, Any]:
    """A part as a block, without what only its state says; of a thinking that is also its type."""
    match part:
        case TextPart() | Refusal():
            return {"type": "text", "text": part.text}
        case Value():
            return {"type": "text", "text": encode_json(part.value).decode()}
        case Thinking():
            return {"thinking": part.text}
        case Image():
            data = f"data:{part.media_type or 'image/png'};base64,{b64encode(part.data or b'').decode()}"
            told = {"url": part.url or data, **({"detail": part.detail} if part.detail is not None else {})}
            return {"type": "image_url", "image_url": told}
        case ServerItem():
            return {}
        case _:
            raise UnsupportedError(f"this API takes no {type(part).__name__} part; send its text")


def _encoded(part: Part) -> dict[str, Any]:
    """A part as a block, with what its state says."""
    own = own_state(part.state, NAME)
    block = _nested(patched(_flat(_block_of(part), _IN_IMAGE), own), _IN_IMAGE)
    return {**_BLOCK, **block} if isinstance(part, Thinking) else block


def _is_plan(part: Part) -> bool:
    return isinstance(part, Thinking) and bool(own_state(part.state, NAME).get("is_plan"))


def _call_of(wire: Any) -> ToolCall:
    """A call in canonical form."""
    function = mapping_of(mapping_of(wire).get("function"))
    if (name := text_of(function.get("name"))) is None:
        raise StreamProtocolError("a tool call came without the name of a tool")
    arguments = function.get("arguments", "")
    text = arguments if isinstance(arguments, str) else encode_json(arguments).decode()
    call = ToolCall(name=name, input=text, id=text_of(wire.get("id")))
    patch = difference(_flat(wire, _IN_CALL), _flat_call(call))
    return msgspec.structs.replace(call, state=ProviderState(NAME, patch)) if patch else call


def _flat_call(call: ToolCall) -> dict[str, Any]:
    named = {"id": call.id} if call.id is not None else {}
    return {**named, "type": "function", "function.name": call.name, "function.arguments": call.input}


def _encoded_call(call: ToolCall) -> dict[str, Any]:
    return _nested(patched(_flat_call(call), own_state(call.state, NAME)), _IN_CALL)


def _is_citation(note: Any) -> bool:
    """Whether a note is a citation of this API's, and not another's annotation."""
    return is_object(note) and is_array(note.get("sources")) and type(note.get("start")) is int


def _answer_message(parts: Iterable[Part]) -> dict[str, Any]:
    """What a message of the assistant says, beside its role."""
    content: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    citations: list[Any] = []
    plan: list[str] = []
    for part in parts:
        if isinstance(part, (TextPart, Thinking)):
            citations.extend(note for note in part.notes if _is_citation(note))
        if isinstance(part, ToolCall):
            calls.append(_encoded_call(part))
        elif isinstance(part, Thinking) and _is_plan(part):
            plan.append(part.text)
        elif not isinstance(part, ServerItem) or own_state(part.state, NAME):
            content.append(_encoded(part))
    told = {"content": content, "tool_plan": "".join(plan), "tool_calls": calls, "citations": citations}
    return {name: value for name, value in told.items() if value}


# The client's half: requests


class _BodyEncoder:
    def __init__(self, dialect: Cohere) -> None:
        self._dialect = dialect
        self.notices: list[Notice] = []

    def body(self, request: Request) -> dict[str, Any]:
        """The JSON body; `request.extra` goes over it as it is."""
        patch = self._own(request.state, "request")
        self.notices += keyed(request, BY_THEMSELVES)[1]
        self.notices += lost_citations(request.messages, _is_citation)
        messages = list(self.messages(request.messages))
        flat: dict[str, Any] = {"model": request.model}
        if request.stream:
            flat["stream"] = True
        for parameter, verdict in self._dialect.parameters.items():
            if (value := getattr(request, parameter)) in (None, ()):
                continue
            if isinstance(verdict, Unsupported):
                self._refuse(parameter, str(verdict))
            else:
                flat[verdict] = list(value) if parameter in ("stop", "documents") else value
        self._offer_tools(request, flat)
        if request.thinking is not None:
            self._think(request.thinking, flat)
        if request.schema is not None and request.schema.mode == "native":
            shape, notices = shape_of(request.schema, COHERE)
            is_told = any(name.startswith("response_format") for name in patch.get("set", {}))
            self.notices += () if is_told else notices
            flat |= {"response_format.type": "json_object", "response_format.json_schema": shape.json}
        return {**_nested(patched(flat, patch), _IN_REQUEST), "messages": messages, **request.extra}

    def _offer_tools(self, request: Request, flat: dict[str, Any]) -> None:
        choice, tools = request.tool_choice, request.tools
        if not tools:
            if choice is not None:
                self._drop("tool_choice", "there is no choice of tools to send: the request has no tools")
            return
        if choice not in (None, "auto", *_CHOICES):
            tools, choice = tuple(tool for tool in tools if tool.name == choice), "required"
            self._emulate("tool_choice", f"this API cannot name a tool: {request.tool_choice!r} was the only one sent")
        flat["tools"] = [self._tool(tool) for tool in tools]
        self.notices += told_of_tools(tools, NAME)
        if choice in _CHOICES:
            flat["tool_choice"] = _CHOICES[choice]

    def _think(self, asked: bool | int | str, flat: dict[str, Any]) -> None:
        flat["thinking.type"] = "disabled" if asked is False else "enabled"
        if not isinstance(asked, bool):
            budget = _BUDGETS[asked] if isinstance(asked, str) else asked
            flat["thinking.token_budget"] = budget
            if budget != asked:
                self._emulate("thinking", f"thinking={asked!r} was approximated: sent as a budget of {budget} tokens")

    def _tool(self, tool: ToolSpec) -> dict[str, Any]:
        patch = self._own(tool.state, "tool")
        if tool.state is not None and tool.state.dialect != NAME and not tool.description and not tool.parameters:
            raise UnsupportedError(f"the tool {tool.name!r} is run by {tool.state.dialect}, which is not asked here")
        return _nested(patched(_flat_tool(tool), patch), _IN_CALL)

    def messages(self, messages: Iterable[Message]) -> Iterator[dict[str, Any]]:
        for message in messages:
            own = self._own(message.state, "message")
            if message.name is not None:
                self._drop("name", f"this API has no names of speakers: {message.name!r}")
            if message.role == "tool":
                yield from (self._result(part) for part in message.parts if isinstance(part, ToolResult))
                continue
            parts = [part for part in message.parts if self._has_place(part, message.role)]
            if message.role == "assistant":
                said = _answer_message(parts)
            else:
                content = [_encoded(part) for part in parts]
                said = {"content": content} if content else {}
            is_own = message.state is not None and message.state.dialect == NAME
            if said or is_own:
                yield patched({"role": message.role, **said}, own)

    def _has_place(self, part: Part, role: str) -> bool:
        kind, is_own = type(part).__name__, part.state is not None and part.state.dialect == NAME
        self._own(part.state, "part")
        match part:
            case Thinking() | ServerItem() if not is_own and role != "assistant":
                raise no_place(part, role)
            case Thinking() | ServerItem() if not is_own:
                self._drop(kind, f"a {kind} part was left out: only its maker can use it")
                return False
            case Image() | Audio() | File() | ToolResult() if role == "assistant":
                self._drop(kind, f"a {kind} part was left out: this API has no place for it in an assistant's message")
                return False
            case Audio() | File():
                raise UnsupportedError(f"this API reads no {kind}; send its text, or choose another provider")
            case Refusal():
                self._emulate(kind, "a refusal was sent as text")
            case _:
                pass
        return True

    def _result(self, result: ToolResult) -> dict[str, Any]:
        said = tuple(item for item in result.content if not isinstance(item, Image))
        if said != result.content:
            self._drop("Image", "an image of a tool's result was left out: this API has none there; describe it")
            said = (*said, TextPart(text="(an image that cannot be shown)"))
        shown = msgspec.structs.replace(result, content=said)
        return patched(_result_message(shown), self._own(result.state, "part"))

    def _own(self, state: ProviderState | None, what: str) -> dict[str, Any]:
        """What the wire said beyond our words; someone else's is left out, and said to be."""
        if state is not None and state.dialect != NAME and "set" in mapping_of(state.value):
            names = ", ".join(mapping_of(state.value["set"]))
            self._drop(what, f"what only {state.dialect} knows was left out of a {what}: {names}")
        return own_state(state, NAME)

    def _refuse(self, subject: str, reason: str) -> None:
        self.notices.append(Notice("unsupported", subject, f"{subject} was not sent: {reason}"))

    def _drop(self, subject: str, message: str) -> None:
        self.notices.append(Notice("dropped", subject, message))

    def _emulate(self, subject: str, message: str) -> None:
        self.notices.append(Notice("emulated", subject, message))


def _flat_tool(tool: ToolSpec) -> dict[str, Any]:
    described = {"function.description": tool.description} if tool.description else {}
    parameters = parameters_of(tool) or {"type": "object", "properties": {}}
    return {"type": "function", "function.name": tool.name, **described, "function.parameters": parameters}


def _result_message(result: ToolResult) -> dict[str, Any]:
    """A tool's result as a message: texts are a string, values are documents, which can be cited field by field."""
    named = {"tool_call_id": result.call_id} if result.call_id is not None else {}
    if all(isinstance(item, TextPart) for item in result.content):
        return {"role": "tool", **named, "content": result.text}
    return {"role": "tool", **named, "content": [_result_block(item) for item in result.content]}


def _result_block(item: TextPart | Image | Value) -> dict[str, Any]:
    if isinstance(item, Image):
        raise UnsupportedError("this API has no images in a tool's results; let the tool describe it")
    if isinstance(item, Value) and own_state(item.state, NAME).get("is_block"):
        return mapping_of(item.value)
    if isinstance(item, Value) and is_object(item.value):
        return {"type": "document", "document": {"data": item.value}}
    return _encoded(item)


# The client's half: answers


class CohereDecoder:
    """Decodes one streamed answer. It ends at message-end; what comes after that is no part of it."""

    def __init__(self) -> None:
        self._stream = EventStream()
        self._reader = _AnswerReader()
        self._frame = Frame(*_PLACES)
        self._failure: SabirError | None = None

    @property
    def is_over(self) -> bool:
        return self._reader.is_over or self._failure is not None

    def feed(self, data: bytes) -> list[Delta]:
        deltas: list[Delta] = []
        if self.is_over:
            return deltas
        try:
            for _, payload in self._stream.feed(data):
                if self._reader.is_over:
                    break
                self._read(payload, deltas)
        except SabirError as error:
            self._failure = error
            if not deltas:
                raise
        return deltas

    def _read(self, payload: bytes, deltas: list[Delta]) -> None:
        if (text := self._frame.text_in(payload)) is not None:
            self._reader.add_text(self._frame.part, text, deltas)
            return
        event = event_object(payload)
        fresh: list[Delta] = []
        self._reader.read(event, fresh)
        deltas.extend(fresh)
        self._frame.learn(payload, event, fresh)

    def close(self) -> list[Delta]:
        if self._failure is not None:
            raise self._failure
        if not self._reader.is_over:
            raise StreamInterrupted("the stream ended before the answer did", retryable=True)
        return self._reader.close()


class _Spoken:
    """One part being read: a block, a plan or a call, and what the wire said of it besides its text."""

    __slots__ = ("kind", "part", "text", "told", "wire")

    def __init__(self, part: int, kind: PartKind, wire: dict[str, Any]) -> None:
        self.part = part
        self.kind: PartKind = kind
        self.wire = wire
        self.told: dict[str, Any] = {}
        self.text = PairedText()

    def more(self, piece: Any, deltas: list[Delta]) -> None:
        if isinstance(piece, str) and (text := self.text.more(piece)):
            deltas.append(Text(self.part, text))


class _AnswerReader:
    """Turns a whole answer, or the events of one, into deltas; numbers parts as they appear."""

    def __init__(self) -> None:
        self._spoken: list[_Spoken] = []
        self._blocks: dict[Any, _Spoken] = {}
        self._calls: dict[Any, _Spoken] = {}
        self._plan: _Spoken | None = None
        self._answer: dict[str, Any] = {}
        self._cited: list[tuple[int | None, Any]] = []
        self._usage = Usage()
        self._raw: str | None = None
        self.is_over = False

    def read(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        delta = mapping_of(event.get("delta"))
        message = mapping_of(delta.get("message"))
        content, call = mapping_of(message.get("content")), mapping_of(_only(message.get("tool_calls")))
        index = str(event.get("index"))
        match event.get("type"):
            case "content-delta":
                block = self._blocks.get(index) or self._begin(index, content, deltas)
                if block.kind in _SPOKEN:
                    block.more(content.get(block.kind), deltas)
                block.wire.update({name: it for name, it in content.items() if name not in _SPOKEN and it is not None})
                if (logprobs := event.get("logprobs")) is not None:
                    self._answer.setdefault("logprobs", []).append(logprobs)
            case "content-start":
                if index in self._blocks:
                    raise StreamProtocolError(f"a block begins at the place {index[:80]}, which is not free")
                block = self._begin(index, content, deltas)
                if block.kind in _SPOKEN:
                    block.more(content.get(block.kind), deltas)
            case "tool-plan-delta":
                self._more_plan(message.get("tool_plan"), deltas)
            case "tool-call-start":
                if index in self._calls:
                    raise StreamProtocolError(f"a call begins at the place {index[:80]}, which is not free")
                begun = self._calls[index] = self._begin_call(call, deltas)
                begun.more(_call_of(call).input, deltas)
            case "tool-call-delta":
                if (known := self._calls.get(index)) is None:
                    raise StreamProtocolError("more of a tool call came, which never began")
                more = _flat(call, _IN_CALL)
                known.more(more.pop("function.arguments", None), deltas)
                known.wire.update(more)
            case "citation-start":
                for citation in _several(message.get("citations")):
                    self._cite(citation, deltas)
            case "message-start":
                self._update({"id": event.get("id"), **_said(message)}, deltas)
            case "message-end":
                ended = {name: item for name, item in delta.items() if name != "message"}
                told_id = {"id": event["id"]} if "id" in event else {}
                self._update({**told_id, **_said(message), **_flat(ended, _IN_ANSWER)}, deltas)
                self.is_over = True
            case "content-end" | "tool-call-end" | "citation-end":
                pass
            case _:
                deltas.append(Event(event))

    def read_whole(self, answer: dict[str, Any], deltas: list[Delta]) -> None:
        flat = _flat(answer, _IN_ANSWER)
        told = {name: flat.pop(name) for name in _TOLD if name in flat}
        self._more_plan(told.get("message.tool_plan"), deltas)
        for place, block in enumerate(list_of(told.get("message.content"))):
            if not is_object(block):
                raise StreamProtocolError(f"a block of the answer is no object: {str(block)[:80]}")
            spoken = self._begin(str(place), block, deltas)
            if spoken.kind in _SPOKEN:
                spoken.more(block.get(spoken.kind), deltas)
        for call in list_of(told.get("message.tool_calls")):
            known = self._begin_call(mapping_of(call), deltas)
            known.more(_call_of(call).input, deltas)
        for citation in list_of(told.get("message.citations")):
            self._cite(citation, deltas)
        odd = {name: item for name, item in told.items() if not isinstance(item, str if "plan" in name else list)}
        self._update({**flat, **odd}, deltas)
        deltas.extend(self.close())

    def add_text(self, part: int, text: str, deltas: list[Delta]) -> None:
        """Read more text of a part that is being streamed."""
        self._spoken[part].more(text, deltas)

    def close(self) -> list[Delta]:
        """What is left to say.

        Raises:
            ServerError: the answer ended in an error.
        """
        deltas: list[Delta] = []
        for spoken in self._spoken:
            if spoken.text.half:
                deltas.append(Text(spoken.part, spoken.text.half))
            if (state := _leftovers(spoken)) != spoken.told:
                deltas.append(State(spoken.part, state))
            deltas.append(Close(spoken.part))
        if self._raw in _FAILED:
            reason = text_of(self._answer.get("error")) or "the provider gave no reason"
            raise ServerError(f"the answer ended with {self._raw}: {reason}", code=self._raw)
        reason = _FINISH.get(self._raw, "unknown") if self._raw is not None else "unknown"
        noted = sorted((each for each in self._cited if each[0] is not None), key=lambda each: each[0] or 0)
        if noted != self._cited:
            # Some are of no part, or not in the order of the parts.
            self._answer["message.citations"] = [citation for _, citation in self._cited]
        ours = _flat(_answer(text_of(self._answer.get("id")), reason, self._usage), _IN_ANSWER)
        if beyond := difference({"message.role": "assistant", **self._answer}, ours):
            deltas.append(State(None, {"answer": beyond}))
        return deltas

    def _update(self, fields: dict[str, Any], deltas: list[Delta]) -> None:
        """What is said of the whole answer: its fields replace earlier ones."""
        self._answer.update({name: value for name, value in fields.items() if value is not None})
        if (answer_id := text_of(fields.get("id"))) is not None:
            deltas.append(Head(answer_id))
        if any(name.startswith("usage.") for name in fields):
            self._usage = _usage(self._answer)
            deltas.append(Count(self._usage))
        if (raw := text_of(fields.get("finish_reason"))) is not None:
            self._raw = raw
            if raw not in _FAILED:
                deltas.append(Finish(_FINISH.get(raw, "unknown"), raw=raw))

    def _speak(self, kind: PartKind, wire: dict[str, Any]) -> _Spoken:
        self._spoken.append(_Spoken(len(self._spoken), kind, wire))
        return self._spoken[-1]

    def _begin(self, index: str, content: dict[str, Any], deltas: list[Delta]) -> _Spoken:
        name = text_of(content.get("type")) or next((kind for kind in _SPOKEN if kind in content), "block")
        kind = _SPOKEN.get(name) or "server"
        wire = {field_: item for field_, item in content.items() if item is not None}
        if kind != "server":
            if not isinstance(wire.get(kind, ""), str):
                raise StreamProtocolError(f"the {kind} of a block is no text: {str(wire[kind])[:80]}")
            wire[kind] = ""
            wire.setdefault("type", kind)
        block = self._blocks[index] = self._speak(kind, wire)
        block.told = _leftovers(block)
        deltas.append(Open(block.part, kind, name=name if kind == "server" else None, state=block.told or None))
        return block

    def _more_plan(self, text: Any, deltas: list[Delta]) -> None:
        if not isinstance(text, str) or not text:
            return
        if self._plan is None:
            self._plan = self._speak("thinking", {})
            self._plan.told = _PLAN
            deltas.append(Open(self._plan.part, "thinking", state=_PLAN))
        self._plan.more(text, deltas)

    def _begin_call(self, wire: dict[str, Any], deltas: list[Delta]) -> _Spoken:
        call = _call_of(wire)
        known = self._speak("call", {**_flat(wire, _IN_CALL)})
        known.told = _leftovers(known)
        deltas.append(Open(known.part, "call", call.id, call.name, state=known.told or None))
        return known

    def _cite(self, citation: Any, deltas: list[Delta]) -> None:
        """Note a citation on the part that it is of."""
        place = mapping_of(citation).get("content_index")
        first = next((spoken for spoken in self._spoken if spoken.kind == "text"), None)
        if place is not None:
            cited = self._blocks.get(str(place))
        else:
            cited = self._plan if mapping_of(citation).get("type") == "PLAN" else first
        if cited is None or cited.kind not in _SPOKEN or not _is_citation(citation):
            self._cited.append((None, citation))
        else:
            self._cited.append((cited.part, citation))
            deltas.append(Note(cited.part, citation))


def _only(value: Any) -> Any:
    """A stream says one call where a message has a list of them."""
    return value[0] if is_array(value) and value else value


def _several(value: Any) -> list[Any]:
    return value if is_array(value) else [] if value is None else [value]


def _said(message: dict[str, Any]) -> dict[str, Any]:
    """What an event says of the message beyond its parts."""
    return {f"message.{name}": item for name, item in message.items() if item not in ([], "", None)}


def _leftovers(spoken: _Spoken) -> dict[str, Any]:
    """What was said of a part beyond our words: as of a whole one, whose text is the same on both sides."""
    wire = spoken.wire
    match spoken.kind:
        case "text":
            return difference(wire, _block_of(TextPart(text="")))
        case "thinking" if wire:
            return difference(wire, _block_of(Thinking(text="")))
        case "thinking":
            return _PLAN
        case "call":
            call = ToolCall(name=text_of(wire.get("function.name")) or "", id=text_of(wire.get("id")))
            said = {name: "" if name == "function.arguments" else item for name, item in wire.items()}
            return difference({"function.arguments": "", **said}, _flat_call(call))
        case _:
            return {"set": wire}


def _answer(answer_id: str | None, reason: FinishReason, usage: Usage) -> dict[str, Any]:
    """An answer without what its message says."""
    named = {"id": answer_id} if answer_id is not None else {}
    end = {"finish_reason": _WIRE_FINISH[reason]} if reason in _WIRE_FINISH else {}
    counts = _usage_object(usage)
    return {**named, "message": {"role": "assistant"}, **end, **({"usage": counts} if counts else {})}


def _usage(flat: Mapping[str, Any]) -> Usage:
    """The disjoint buckets of a usage object: its input includes what was cached, its output the thinking."""
    read, written = (count_of(flat.get(f"usage.tokens.{name}_tokens")) for name in ("input", "output"))
    cached, thinking = count_of(flat.get("usage.cached_tokens")), count_of(flat.get("usage.tokens.reasoning_tokens"))
    return Usage(
        input=None if read is None else max(0, read - (cached or 0)),
        cache_read=cached,
        output=None if written is None else max(0, written - (thinking or 0)),
        reasoning=thinking,
    )


def _usage_object(usage: Usage) -> dict[str, Any]:
    read = None if usage.input is None else usage.input_tokens
    written = None if usage.output is None else usage.output_tokens
    tokens = {"input_tokens": read, "output_tokens": written, "reasoning_tokens": usage.reasoning}
    tokens = {name: count for name, count in tokens.items() if count is not None}
    cached = {} if usage.cache_read is None else {"cached_tokens": usage.cache_read}
    return {**({"tokens": tokens} if tokens else {}), **cached}


def _failure(status: int | None, headers: Mapping[str, str], value: Any, text: str) -> ProviderError:
    """The exception for an error; `status` is None for one that came where an answer was to come."""
    fields = mapping_of(value)
    told = {name: item for name, item in fields.items() if name in ("message", "error")}
    error = error_from_value(status, headers, told or value, text)
    error.code = text_of(fields.get("error_type")) or error.code
    error.request_id = error.request_id or text_of(fields.get("id"))
    kind = ContextOverflowError if error.code == _OVERFLOW else AuthenticationError if status == 498 else type(error)
    error = as_kind(error, kind)
    if isinstance(error, ContextOverflowError) and (sizes := _EXCEEDED.search(error.message)):
        error.context_length = int(sizes[2])
        error.prompt_tokens = int(sizes[1]) + int(sizes[2])
    return error


# The server's half: requests


def _refused(where: str, what: str) -> BadRequestError:
    return BadRequestError(f"{where}: {what}", status=400)


class _RequestReader:
    """Reads a client's request, strictly; keeps what it does not understand on the nearest value."""

    def __init__(self, dialect: Cohere) -> None:
        self._dialect = dialect
        self._names: dict[str | None, str] = {}

    def read(self, wire: dict[str, Any]) -> Request:
        if not isinstance(model := wire.get("model"), str):
            raise _refused("model", "a string is wanted")
        if not is_array(messages := wire.get("messages")) or not messages:
            raise _refused("messages", "a list of at least one message is wanted")
        if not isinstance(wire.get("stream", False), bool):
            raise _refused("stream", "true or false is wanted")
        for name in ("tools", "documents"):
            if not is_array(wire.get(name, [])):
                raise _refused(name, "a list is wanted")
        flat = _flat(wire, _IN_REQUEST)
        request = Request(
            model=model,
            messages=tuple(self._message(message, f"messages[{at}]") for at, message in enumerate(messages)),
            tools=tuple(_read_tool(tool, f"tools[{at}]") for at, tool in enumerate(wire.get("tools", []))),
            schema=_read_schema(flat),
            stream=wire.get("stream", False),
            **self._options(flat),
        )
        ours = _flat(_BodyEncoder(self._dialect).body(request), _IN_REQUEST)
        apart = ("messages", "tools")
        patch = difference(*({k: v for k, v in side.items() if k not in apart} for side in (flat, ours)))
        return msgspec.structs.replace(request, state=ProviderState(NAME, patch)) if patch else request

    def _options(self, flat: dict[str, Any]) -> dict[str, Any]:
        words = {name: verdict for name, verdict in self._dialect.parameters.items() if verdict in flat}
        options = {name: flat[word] for name, word in words.items() if not isinstance(word, Unsupported)}
        known = {word: choice for choice, word in _CHOICES.items()}
        options["tool_choice"] = known.get(str(flat.get("tool_choice"))) if flat.get("tools") else None
        budget = flat.get("thinking.token_budget")
        match flat.get("thinking.type"):
            case "disabled":
                options["thinking"] = False
            case "enabled":
                options["thinking"] = budget if type(budget) is int else True
            case _:
                pass
        options = {name: value for name, value in options.items() if value is not None}
        try:
            msgspec.convert(options, Options)
        except (msgspec.ValidationError, UnicodeError) as error:
            what, _, where = str(error).partition(" - at `$.")
            raise _refused(where.rstrip("`"), what) from None
        check_read(options, self._dialect.ranges, words)
        return {name: tuple(value) if is_array(value) else value for name, value in options.items()}

    def _message(self, wire: Any, where: str) -> Message:
        role = wire.get("role") if is_object(wire) else None
        if not is_object(wire) or role not in ("user", "assistant", "system", "tool"):
            raise _refused(f"{where}.role", "one of user, assistant, system and tool is wanted")
        try:
            if role == "tool":
                if text_of(wire.get("tool_call_id")) is None:
                    raise _refused(f"{where}.tool_call_id", "the id of a call is wanted")
                return Message("tool", (self._result(wire),))
            content = wire.get("content", [])
            if not is_array(content):
                raise _refused(f"{where}.content", "a string or a list of blocks is wanted")
            parts = [self._block(block, f"{where}.content[{at}]") for at, block in enumerate(content)]
            if role == "assistant":
                parts = self._spoken(wire, parts, where)
        except StreamProtocolError as error:
            raise _refused(where, str(error)) from None
        ours = _answer_message(parts) if role == "assistant" else {"content": [*map(_encoded, parts)] or None}
        patch = difference(wire, {"role": role, **ours})
        # A message that says nothing is its own, though there is nothing to keep.
        is_kept = patch or not parts
        return Message(role, tuple(parts), state=ProviderState(NAME, patch) if is_kept else None)

    def _block(self, block: Any, where: str) -> Part:
        if not is_object(block) or text_of(block.get("type")) is None:
            raise _refused(f"{where}.type", "a block with a type is wanted")
        if block["type"] in _SPOKEN and not isinstance(block.get(block["type"]), str):
            raise _refused(f"{where}.{block['type']}", "a string is wanted")
        return _part_of(block)

    def _spoken(self, wire: dict[str, Any], blocks: list[Part], where: str) -> list[Part]:
        """The parts of a message of the assistant: its plan, its blocks with their citations, its calls."""
        plan, calls = wire.get("tool_plan", ""), wire.get("tool_calls", [])
        if not isinstance(plan, str) or not is_array(calls):
            name, what = ("tool_calls", "a list") if isinstance(plan, str) else ("tool_plan", "a string")
            raise _refused(f"{where}.{name}", f"{what} is wanted")
        first = next((at for at, part in enumerate(blocks) if isinstance(part, TextPart)), None)
        for citation in list_of(wire.get("citations")):
            place = mapping_of(citation).get("content_index", first)
            if type(place) is int and 0 <= place < len(blocks) and _is_citation(citation):
                part = blocks[place]
                if isinstance(part, (TextPart, Thinking)):
                    blocks[place] = msgspec.structs.replace(part, notes=(*part.notes, citation))
        made = [_call_of(call) for call in calls]
        if any(call.id is None for call in made):
            raise _refused(f"{where}.tool_calls", "the id of each call is wanted")
        self._names |= {call.id: call.name for call in made}
        planned = [Thinking(text=plan, state=ProviderState(NAME, _PLAN))] if plan else []
        return [*planned, *blocks, *made]

    def _result(self, wire: dict[str, Any]) -> ToolResult:
        content, call_id = wire.get("content", ""), text_of(wire.get("tool_call_id"))
        items = [{"type": "text", "text": content}] if isinstance(content, str) else list_of(content)
        result = ToolResult(
            call_id=call_id, name=self._names.get(call_id, ""), content=tuple(_result_part(item) for item in items)
        )
        patch = difference(wire, _result_message(result))
        return msgspec.structs.replace(result, state=ProviderState(NAME, patch)) if patch else result


def _result_part(block: Any) -> TextPart | Value:
    """A block of a tool's result: text, or a document; a document of nothing but its data is a value."""
    if not is_object(block):
        raise StreamProtocolError("a block of a tool's result is no object")
    document = mapping_of(block.get("document"))
    if block == {"type": "document", "document": {"data": document.get("data")}} and is_object(document.get("data")):
        return Value(value=document["data"])
    part = _part_of(block)
    return part if isinstance(part, TextPart) else Value(value=block, state=ProviderState(NAME, {"is_block": True}))


def _read_tool(tool: Any, where: str) -> ToolSpec:
    if not is_object(tool):
        raise _refused(where, "an object is wanted")
    flat = _flat(tool, _IN_CALL)
    if (name := text_of(flat.get("function.name"))) is None:
        raise _refused(f"{where}.function.name", "a string is wanted")
    if not is_object(parameters := flat.get("function.parameters", {})):
        raise _refused(f"{where}.function.parameters", "a JSON Schema of an object is wanted")
    spec = ToolSpec(name, text_of(flat.get("function.description")) or "", parameters)
    patch = difference(flat, _flat_tool(spec))
    return msgspec.structs.replace(spec, state=ProviderState(NAME, patch)) if patch else spec


def _read_schema(flat: Mapping[str, Any]) -> OutputSchema | None:
    schema = flat.get("response_format.json_schema") or flat.get("response_format.schema")
    if flat.get("response_format.type") != "json_object" or not is_object(schema):
        return None
    return OutputSchema(text_of(schema.get("title")) or "answer", schema)


# The server's half: answers


class _Told:
    """One part being told: the place it has among its kind, and what is known of it."""

    __slots__ = ("early", "has_begun", "index", "opening", "state")

    def __init__(self, opening: Open) -> None:
        self.index = -1
        self.opening = opening
        self.state: dict[str, Any] = dict(opening.state or {})
        self.has_begun = False
        self.early: list[str] = []

    @property
    def is_plan(self) -> bool:
        return self.opening.kind == "thinking" and bool(self.state.get("is_plan"))


class CohereEncoder:
    """Encodes the deltas of one answer as a stream. States are taken for this format's own.

    Events name their block or call, so those of several may be mixed. A call can only begin with its id and name.
    """

    def __init__(self) -> None:
        self._id: str | None = None
        self._state: dict[str, Any] = {}
        self._usage = Usage()
        self._reason: FinishReason = "unknown"
        self._has_begun = False
        self._parts: dict[int, _Told | None] = {}
        self._counts = {"content": 0, "call": 0}
        self._cited: list[Any] = []
        self._turns = InTurn(self._part)

    def feed(self, delta: Delta) -> bytes:
        match delta:
            case Head():
                self._id = delta.id or self._id
                self._state.update(delta.state or {})
            case State(part=int()) | Open() | Text() | Blob() | Note() | Close():
                return self._begin() + self._turns.feed(delta)
            case State():
                self._state.update(delta.patch)
            case Count():
                self._usage = self._usage.updated(delta.usage)
            case Finish(choice=0):
                self._reason = delta.reason
            case Event() | Finish():
                pass
        return b""

    def fail(self, error: SabirError) -> bytes:
        end = {"finish_reason": "ERROR", "error": error.message}
        return self._begin() + _sse({"type": "message-end", "delta": end})

    def close(self) -> bytes:
        told = [self._begin(), self._turns.close(), *map(self._close, [*self._parts])]
        flat = _flat(_answer(self._id, self._reason, self._usage), _IN_ANSWER)
        end = _nested(patched(flat, self._state.get("answer", {})), _IN_ANSWER)
        message = {name: item for name, item in mapping_of(end.pop("message", {})).items() if name != "role"}
        untold = [citation for citation in list_of(message.pop("citations", None)) if citation not in self._cited]
        told.extend(map(self._cite, untold))
        named = {"id": end.pop("id")} if "id" in end else {}
        end |= {"message": message} if message else {}
        return b"".join([*told, _sse({"type": "message-end", **named, "delta": end}), b"data: [DONE]\n\n"])

    def _begin(self) -> bytes:
        if self._has_begun:
            return b""
        self._has_begun = True
        named = {"id": self._id} if self._id is not None else {}
        nothing_yet: dict[str, Any] = {"content": [], "tool_plan": "", "tool_calls": [], "citations": []}
        message = {"role": "assistant", **nothing_yet}
        return _sse({"type": "message-start", **named, "delta": {"message": message}})

    def _part(self, delta: PartDelta) -> bytes:
        if isinstance(delta, Open):
            return self._open(delta)
        if delta.part is None or delta.part not in self._parts:
            raise StreamProtocolError(f"a delta for part {delta.part}, which was never opened")
        if (told := self._parts[delta.part]) is None:
            return b""
        match delta:
            case Text():
                return self._text(told, delta.text)
            case Note():
                return self._cite(delta.value) if _is_citation(delta.value) else b""
            case State():
                return self._patch(told, delta)
            case Close():
                return self._close(delta.part)
            case Blob():
                return b""

    def _open(self, opening: Open) -> bytes:
        is_told = opening.choice == 0 and not (opening.kind == "server" and not opening.state)
        if is_told and opening.kind in ("image", "audio", "file"):
            raise UnsupportedError(f"this API's answers have no place for what the model made: {opening.kind}")
        told = self._parts[opening.part] = _Told(opening) if is_told else None
        if told is None or told.is_plan:
            return b""
        if opening.kind == "call":
            if opening.id is not None and opening.name is not None:
                return self._start(told)
            self._turns.awaited = opening.part
            return b""
        if opening.kind == "server":
            self._turns.awaited = opening.part
            return b""
        told.index, told.has_begun = self._counts["content"], True
        self._counts["content"] += 1
        kind = "thinking" if opening.kind == "thinking" else "text"
        return self._content("content-start", told, patched({"type": kind, kind: ""}, told.state))

    def _start(self, told: _Told) -> bytes:
        """Begin a call, with what is known of it."""
        self._turns.awaited = None
        opening = told.opening
        if not opening.name:
            raise StreamProtocolError("a tool call came without the name of a tool")
        told.index, told.has_begun = self._counts["call"], True
        self._counts["call"] += 1
        call = patched(_flat_call(ToolCall(name=opening.name, id=opening.id)), told.state)
        start = self._call("tool-call-start", told, _nested(call, _IN_CALL))
        return start + b"".join(self._text(told, text) for text in told.early)

    def _text(self, told: _Told, text: str) -> bytes:
        kind = told.opening.kind
        if kind == "call" and not told.has_begun:
            told.early.append(text)
            return b""
        if kind == "call":
            return self._call("tool-call-delta", told, {"function": {"arguments": text}})
        if told.is_plan:
            return _sse({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": text}}})
        if kind == "server":
            return b""
        return self._content("content-delta", told, {"thinking" if kind == "thinking" else "text": text})

    def _patch(self, told: _Told, delta: State) -> bytes:
        before, opening = told.state.get("set", {}), told.opening
        told.state.update(delta.patch)
        told.opening = msgspec.structs.replace(opening, id=opening.id or delta.id, name=opening.name or delta.name)
        if opening.kind == "server" or told.is_plan:
            return b""
        if not told.has_begun:
            is_known = told.opening.id is not None and told.opening.name is not None
            return self._start(told) if is_known else b""
        fresh = {name: item for name, item in told.state.get("set", {}).items() if before.get(name) != item}
        if not fresh:
            return b""
        if opening.kind == "call":
            return self._call("tool-call-delta", told, _nested(fresh, _IN_CALL))
        return self._content("content-delta", told, fresh)

    def _close(self, part: int) -> bytes:
        if (told := self._parts.get(part)) is None:
            return b""
        self._parts[part] = None
        if told.is_plan:
            return b""
        out = b""
        if told.opening.kind == "call" and not told.has_begun:
            out = self._start(told)
        if told.opening.kind == "server":
            self._turns.awaited = None
            told.index = self._counts["content"]
            self._counts["content"] += 1
            out = self._content("content-start", told, told.state.get("set", {}))
        end = "tool-call-end" if told.opening.kind == "call" else "content-end"
        return out + _sse({"type": end, "index": told.index})

    def _cite(self, citation: Any) -> bytes:
        index = len(self._cited)
        self._cited.append(citation)
        start = {"type": "citation-start", "index": index, "delta": {"message": {"citations": citation}}}
        return _sse(start) + _sse({"type": "citation-end", "index": index})

    def _content(self, kind: str, told: _Told, content: dict[str, Any]) -> bytes:
        return _sse({"type": kind, "index": told.index, "delta": {"message": {"content": content}}})

    def _call(self, kind: str, told: _Told, call: dict[str, Any]) -> bytes:
        return _sse({"type": kind, "index": told.index, "delta": {"message": {"tool_calls": call}}})


def _sse(event: dict[str, Any]) -> bytes:
    return b"event: " + str(event["type"]).encode() + b"\ndata: " + encode_json(event) + b"\n\n"
