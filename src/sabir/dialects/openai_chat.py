"""OpenAI chat completions, the format most servers speak; client half. Knows no provider, only quirks.

Sources: https://platform.openai.com/docs/api-reference/chat and the recorded traffic of some thirty servers. Where
servers differ, the difference is a field of `OpenAIChat`, and a row of the providers' table sets it.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from ..deltas import (
    Blob,
    Close,
    Count,
    Delta,
    Event,
    Finish,
    FinishReason,
    Head,
    Note,
    Open,
    State,
    Text,
)
from ..errors import ProviderError, SabirError, ServerError, StreamInterrupted, StreamProtocolError, UnsupportedError
from ..lowering import strict_schema
from ..messages import (
    Audio,
    File,
    Image,
    Message,
    Part,
    Refusal,
    ServerItem,
    Thinking,
    ToolCall,
    ToolResult,
    Value,
)
from ..messages import Text as TextPart
from ..requests import HttpRequest, Notice, Request, ToolSpec
from ..strict_json import decode_json, encode_json, is_object
from ..usage import Usage
from . import Unsupported, Verdicts, count_of, list_of, mapping_of, text_of
from .failures import error_from_value, provider_error
from .sse import EventStream

NAME = "openai_chat"

# The verdict on each portable parameter: the wire's word for it, or why there is none. Those that need more than a word
# (max_tokens, thinking, tool_choice, ...) are encoded below; `verdicts()` names them too.
OPENAI_PARAMETERS: Verdicts = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": Unsupported("this API has no top_k; use top_p"),
    "min_p": Unsupported("this API has no min_p; use top_p"),
    "seed": "seed",
    "stop": "stop",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "repetition_penalty": Unsupported("this API has no repetition_penalty; use frequency_penalty"),
    "parallel_tool_calls": "parallel_tool_calls",
    "logprobs": "logprobs",
    "top_logprobs": "top_logprobs",
    "n": "n",
    "user": "user",
}
# Servers that run open models take the samplers too.
OPEN_PARAMETERS: Verdicts = {
    **OPENAI_PARAMETERS,
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
}

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
_THINKING_FIELDS = ("reasoning_content", "reasoning")
# What every chunk repeats; only what is not here, or comes first, is kept as state of the message.
_PER_CHUNK = frozenset({"id", "model", "object", "created", "choices", "usage", "system_fingerprint", "obfuscation"})
_IN_CHOICE = frozenset({"index", "delta", "message", "finish_reason", "logprobs"})
_IN_MESSAGE = frozenset(
    {
        "role",
        "content",
        "refusal",
        "tool_calls",
        "function_call",
        "reasoning_content",
        "reasoning",
        "reasoning_details",
        "annotations",
        "audio",
    }
)
_EFFORT_BUDGETS = ((2048, "low"), (8192, "medium"))
_AUDIO_FORMATS = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}


@dataclass(frozen=True)
class OpenAIChat:
    """The dialect with the quirks of one kind of server.

    Attributes:
        limit: the wire's name for max_tokens.
        parameters: the verdict on each portable parameter.
        thinking: how thinking is asked for: "effort" (reasoning_effort), "reasoning" (OpenRouter's object), "toggle"
            (`thinking: {"type": ...}`), "template" (a switch of the chat template), None (no way known).
        thinking_unless_asked: what to send where the caller says nothing; None sends nothing.
        replay_thinking: whether the server wants its own thinking back in the history.
        schema: whether `response_format` knows JSON schemas or only "some JSON".
    """

    limit: Literal["max_tokens", "max_completion_tokens"] = "max_completion_tokens"
    parameters: Verdicts = field(default_factory=lambda: OPENAI_PARAMETERS)
    thinking: Literal["effort", "reasoning", "toggle", "template"] | None = "effort"
    thinking_unless_asked: bool | None = None
    replay_thinking: bool = True
    schema: Literal["json_schema", "json_object"] = "json_schema"

    name = NAME

    def verdicts(self) -> Verdicts:
        """The verdict on every portable parameter."""
        thinking = self.thinking or Unsupported("this server has no known way to ask for thinking")
        schema = {"schema": f"response_format.{self.schema}"}
        special = {"max_tokens": self.limit, "thinking": thinking, "tool_choice": "tool_choice", **schema}
        return {**self.parameters, **special, "extra": "(as given)", "headers": "(as given)"}

    def encode_request(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        body, notices = self.encode_body(request)
        headers = (("content-type", "application/json"), *request.headers.items())
        return HttpRequest("POST", "/chat/completions", headers, encode_json(body)), notices

    def encode_body(self, request: Request) -> tuple[dict[str, Any], tuple[Notice, ...]]:
        """The JSON body, and what had to be lowered; `request.extra` goes over it as it is."""
        encoder = _BodyEncoder(self)
        return encoder.body(request), tuple(encoder.notices)

    def decode_answer(self, body: bytes) -> list[Delta]:
        try:
            value = decode_json(body)
        except ValueError as error:
            raise ServerError(
                f"the answer is no JSON: {error}", status=200, body=body[:10_000].decode("utf-8", "replace")
            ) from None
        deltas = _WireReader()
        found = deltas.read(value)
        if not mapping_of(value).get("choices"):
            raise StreamProtocolError("the answer has no choices", body=body[:10_000].decode("utf-8", "replace"))
        return [*found, *deltas.close()]

    def decoder(self) -> ChatDecoder:
        return ChatDecoder()

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return provider_error(status, headers, body)


class _BodyEncoder:
    def __init__(self, dialect: OpenAIChat) -> None:
        self._dialect = dialect
        self.notices: list[Notice] = []

    def body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {"model": request.model, "messages": list(self._messages(request.messages))}
        if request.stream:
            body["stream"] = True
            body["stream_options"] = {"include_usage": True}
        for parameter, verdict in self._dialect.parameters.items():
            if (value := getattr(request, parameter)) is None:
                continue
            if isinstance(verdict, Unsupported):
                self.notices.append(Notice("unsupported", parameter, f"{parameter} was not sent: {verdict}"))
            else:
                body[verdict] = value
        if request.max_tokens is not None:
            body[self._dialect.limit] = request.max_tokens
        if request.tools:
            body["tools"] = [_tool(tool) for tool in request.tools]
        if request.tool_choice is not None:
            body["tool_choice"] = _tool_choice(request.tool_choice)
        if request.schema is not None:
            body["response_format"] = self._response_format(request)
        self._think(request, body)
        body.update(request.extra)
        return body

    def _response_format(self, request: Request) -> dict[str, Any]:
        assert request.schema is not None
        if self._dialect.schema == "json_object":
            self.notices.append(
                Notice("emulated", "schema", "this server only promises some JSON; the answer is checked afterwards")
            )
            return {"type": "json_object"}
        schema, is_strict = strict_schema(request.schema.json)
        if not is_strict:
            self.notices.append(
                Notice(
                    "emulated",
                    "schema",
                    "the schema has optional or free-form fields, so it is sent as a guide (strict=false); the answer "
                    "is checked afterwards",
                )
            )
        name = {"name": request.schema.name, "schema": schema, "strict": is_strict}
        return {"type": "json_schema", "json_schema": name}

    def _think(self, request: Request, body: dict[str, Any]) -> None:
        asked = request.thinking if request.thinking is not None else self._dialect.thinking_unless_asked
        if asked is None:
            return
        match self._dialect.thinking:
            case "effort":
                self._think_by_effort(asked, body)
            case "reasoning":
                body["reasoning"] = _reasoning(asked)
            case "toggle":
                body["thinking"] = {"type": "disabled" if asked is False else "enabled"}
                self._approximate(asked, "this server only turns thinking on or off")
            case "template":
                body["chat_template_kwargs"] = {"enable_thinking": asked is not False}
                self._approximate(asked, "a chat template only turns thinking on or off")
            case None:
                message = "thinking was not sent: this server has no known way to ask for it"
                self.notices.append(Notice("unsupported", "thinking", message))

    def _think_by_effort(self, asked: bool | int | str, body: dict[str, Any]) -> None:
        if asked is False:
            message = "thinking=False was not sent: this API has no switch for it; choose a model that does not think"
            self.notices.append(Notice("unsupported", "thinking", message))
        elif isinstance(asked, str):
            body["reasoning_effort"] = asked
        else:
            budget = 0 if asked is True else asked
            effort = next((name for most, name in _EFFORT_BUDGETS if budget <= most), "high") if budget else "medium"
            body["reasoning_effort"] = effort
            self._approximate(asked, f"sent as reasoning_effort={effort!r}")

    def _approximate(self, asked: bool | int | str, how: str) -> None:
        if not isinstance(asked, bool):
            self.notices.append(Notice("emulated", "thinking", f"thinking={asked!r} was approximated: {how}"))

    def _messages(self, messages: Iterable[Message]) -> Iterable[dict[str, Any]]:
        for message in messages:
            match message.role:
                case "assistant":
                    yield self._assistant(message)
                case "tool":
                    yield from (self._tool_result(part) for part in message.parts if isinstance(part, ToolResult))
                case "system" | "user":
                    content = self._content(message.parts, message.role)
                    yield {"role": message.role, "content": content, **({"name": message.name} if message.name else {})}

    def _content(self, parts: Iterable[Part], role: str) -> str | list[dict[str, Any]]:
        encoded = [self._block(part, role) for part in parts]
        if len(encoded) == 1 and encoded[0]["type"] == "text":
            return str(encoded[0]["text"])
        return encoded

    def _block(self, part: Part, role: str) -> dict[str, Any]:
        match part:
            case TextPart():
                return {"type": "text", "text": part.text}
            case Value():
                return {"type": "text", "text": encode_json(part.value).decode()}
            case Image():
                image = {"url": _address(part, "image/png")}
                return {"type": "image_url", "image_url": {**image, **({"detail": part.detail} if part.detail else {})}}
            case Audio(data=bytes() as data):
                kind = _AUDIO_FORMATS.get(part.media_type or "audio/wav")
                if kind is None:
                    raise UnsupportedError(f"chat completions takes wav and mp3 audio, not {part.media_type}")
                return {"type": "input_audio", "input_audio": {"data": b64encode(data).decode(), "format": kind}}
            case File(id=str() as file_id):
                return {"type": "file", "file": {"file_id": file_id}}
            case File(data=bytes()):
                name = part.name or "document.pdf"
                address = _address(part, "application/pdf")
                return {"type": "file", "file": {"filename": name, "file_data": address}}
            case _:
                raise UnsupportedError(
                    f"chat completions has no place for a {type(part).__name__} part in a {role} message"
                )

    def _assistant(self, message: Message) -> dict[str, Any]:
        encoded: dict[str, Any] = {"role": "assistant", "content": None}
        texts = [part.text for part in message.parts if isinstance(part, TextPart)]
        if texts:
            encoded["content"] = "".join(texts)
        calls = [part for part in message.parts if isinstance(part, ToolCall)]
        if calls:
            encoded["tool_calls"] = [_call(call) for call in calls]
        for part in message.parts:
            match part:
                case Refusal():
                    encoded["refusal"] = part.text
                case Thinking():
                    self._replay_thinking(part, encoded)
                case Audio(id=str() as audio_id):
                    encoded["audio"] = {"id": audio_id}
                case Image() | File() | ServerItem() | Audio() | Value() | ToolResult():
                    self._drop(part, "chat completions has no place for it in an assistant's message")
                case TextPart() | ToolCall():
                    pass
        return encoded

    def _replay_thinking(self, part: Thinking, encoded: dict[str, Any]) -> None:
        if part.state is None or part.state.dialect != NAME or not self._dialect.replay_thinking:
            self._drop(part, "only the server that made it can use it")
            return
        field = mapping_of(part.state.value).get("field", _THINKING_FIELDS[0])
        if part.text:
            encoded[field] = encoded.get(field, "") + part.text
        if part.notes:
            encoded["reasoning_details"] = [*encoded.get("reasoning_details", ()), *part.notes]

    def _drop(self, part: Part, reason: str) -> None:
        kind = type(part).__name__
        self.notices.append(Notice("dropped", kind, f"a {kind} part of the history was left out: {reason}"))

    def _tool_result(self, part: ToolResult) -> dict[str, Any]:
        if any(isinstance(item, Image) for item in part.content):
            raise UnsupportedError(f"chat completions cannot show the image that the tool {part.name!r} returned")
        return {"role": "tool", "tool_call_id": part.call_id, "content": part.text}


class ChatDecoder:
    """Decodes one streamed answer."""

    def __init__(self) -> None:
        self._stream = EventStream()
        self._reader = _WireReader()
        self._failure: SabirError | None = None
        self._done = False

    @property
    def is_over(self) -> bool:
        return self._done or self._failure is not None

    def feed(self, data: bytes) -> list[Delta]:
        deltas: list[Delta] = []
        try:
            for _, payload in self._stream.feed(data):
                if payload == b"[DONE]":
                    self._done = True
                elif not self._done and not payload.isspace() and payload:
                    self._reader.read_into(_chunk(payload), deltas)
        except SabirError as error:
            self._failure = error
            if not deltas:
                raise
        return deltas

    def event(self, chunk: dict[str, Any]) -> list[Delta]:
        """Decode one chunk that came without framing, from an engine in this process."""
        return self._reader.read(chunk)

    def close(self) -> list[Delta]:
        if self._failure is not None:
            raise self._failure
        if not self._done and not self._reader.is_finished:
            raise StreamInterrupted("the stream ended before the answer did", retryable=True)
        return self._reader.close()


class _Slot:
    """One tool call being streamed."""

    __slots__ = ("id", "name", "part", "pieces")

    def __init__(self, part: int, call_id: str | None, name: str | None) -> None:
        self.part = part
        self.id = call_id
        self.name = name
        self.pieces: list[str] = []

    def is_complete(self) -> bool:
        """Whether the arguments so far are a whole JSON object, so that more of them cannot follow."""
        try:
            return isinstance(decode_json("".join(self.pieces)), dict)
        except ValueError:
            return False


class _WireReader:
    """Turns chat completion objects, whole or chunks, into deltas; numbers parts as they appear."""

    def __init__(self) -> None:
        self._parts = 0
        self._open: dict[tuple[int, str], int] = {}
        self._calls: dict[int, list[_Slot]] = {}
        self._by_index: dict[tuple[int, Any], _Slot] = {}
        self._halves: dict[int, str] = {}
        self._head: tuple[Any, Any] | None = None
        self._finishes: dict[int, Finish] = {}
        self._refused: set[int] = set()

    @property
    def is_finished(self) -> bool:
        """Whether every answer that began has told its finish reason."""
        choices = {choice for choice, _ in self._open} | set(self._calls)
        return bool(self._finishes) and choices <= set(self._finishes)

    def read(self, value: Any) -> list[Delta]:
        deltas: list[Delta] = []
        self.read_into(value, deltas)
        return deltas

    def read_into(self, value: Any, deltas: list[Delta]) -> None:
        if not is_object(value):
            raise StreamProtocolError(f"a chunk of the answer is no JSON object: {str(value)[:80]}")
        if value.get("error"):
            raise error_from_value(None, {}, value, encode_json(value).decode())
        if (value.get("id"), value.get("model")) != self._head:
            self._read_head(value, deltas)
        elif len(value.keys() - _PER_CHUNK):
            self._read_extras(value, deltas)
        choices = value.get("choices")
        if choices:
            for choice in list_of(choices):
                if is_object(choice):
                    self._read_choice(choice, deltas)
        elif choices is None and "usage" not in value:
            deltas.append(Event(value))
        if is_object(usage := value.get("usage")):
            deltas.append(Count(usage_from(usage)))

    def close(self) -> list[Delta]:
        deltas: list[Delta] = [Text(part, half) for part, half in self._halves.items()]
        deltas.extend(Close(part) for part in range(self._parts))
        for choice, finish in self._finishes.items():
            if choice in self._refused and finish.reason == "stop":
                finish = Finish("refusal", choice, finish.raw, finish.detail)
            deltas.append(finish)
        return deltas

    def _read_head(self, value: dict[str, Any], deltas: list[Delta]) -> None:
        first = self._head is None
        self._head = (value.get("id"), value.get("model"))
        skip = {"id", "model", "choices", "usage", "obfuscation"} if first else _PER_CHUNK
        state = {key: item for key, item in value.items() if key not in skip and item is not None}
        deltas.append(Head(text_of(value.get("id")), text_of(value.get("model")), state or None))

    def _read_extras(self, value: dict[str, Any], deltas: list[Delta]) -> None:
        state = {key: item for key, item in value.items() if key not in _PER_CHUNK and item is not None}
        if state:
            deltas.append(Head(state=state))

    def _read_choice(self, choice: dict[str, Any], deltas: list[Delta]) -> None:
        number = count_of(choice.get("index")) or 0
        message = choice.get("delta")
        if message is None:
            message = choice.get("message")
        if is_object(message):
            self._read_message(number, message, deltas)
        logprobs = mapping_of(choice.get("logprobs"))
        for entry in list_of(logprobs.get("content")):
            deltas.append(Note(self._part(number, "content", "text", deltas), {"logprob": entry}))
        if reason := text_of(choice.get("finish_reason")):
            detail = {key: item for key, item in choice.items() if key not in _IN_CHOICE and item is not None}
            self._finishes[number] = Finish(_FINISH.get(reason, "unknown"), number, reason, detail or None)

    def _read_message(self, number: int, message: dict[str, Any], deltas: list[Delta]) -> None:
        for name, value in message.items():
            if value is None or value == "":
                continue
            match name:
                case "content":
                    self._read_content(number, value, deltas)
                case "reasoning_content" | "reasoning":
                    # Some servers send the same thinking under both names; the first to come is kept.
                    other = "reasoning" if name == "reasoning_content" else "reasoning_content"
                    if isinstance(value, str) and (number, other) not in self._open:
                        self._text(self._part(number, name, "thinking", deltas, {"field": name}), value, deltas)
                case "reasoning_details":
                    self._read_details(number, value, deltas)
                case "refusal":
                    self._refused.add(number)
                    self._text(self._part(number, "refusal", "refusal", deltas), str(value), deltas)
                case "tool_calls":
                    for position, call in enumerate(list_of(value)):
                        if is_object(call):
                            self._read_call(number, call, position, len(value), deltas)
                case "function_call":
                    if any(mapping_of(value).values()):
                        legacy = {"function": mapping_of(value), "index": "function_call"}
                        self._read_call(number, legacy, 0, 1, deltas)
                case "annotations":
                    for note in list_of(value):
                        deltas.append(Note(self._part(number, "content", "text", deltas), note))
                case "audio":
                    if any(mapping_of(value).values()):
                        self._read_audio(number, mapping_of(value), deltas)
                case _:
                    if name not in _IN_MESSAGE:
                        deltas.append(State(None, {name: value}))

    def _read_content(self, number: int, value: Any, deltas: list[Delta]) -> None:
        if isinstance(value, str):
            self._text(self._part(number, "content", "text", deltas), value, deltas)
            return
        for block in list_of(value):
            if text := text_of(mapping_of(block).get("text")):
                self._text(self._part(number, "content", "text", deltas), text, deltas)
            else:
                deltas.append(Note(self._part(number, "content", "text", deltas), block))

    def _read_details(self, number: int, value: Any, deltas: list[Delta]) -> None:
        field = next((name for name in _THINKING_FIELDS if (number, name) in self._open), "reasoning")
        for detail in list_of(value):
            deltas.append(Note(self._part(number, field, "thinking", deltas, {"field": field}), detail))

    def _read_audio(self, number: int, audio: dict[str, Any], deltas: list[Delta]) -> None:
        if (number, "audio") not in self._open:
            self._open[number, "audio"] = self._parts
            deltas.append(Open(self._parts, "audio", id=text_of(audio.get("id")), choice=number))
            self._parts += 1
        part = self._open[number, "audio"]
        if transcript := text_of(audio.get("transcript")):
            self._text(part, transcript, deltas)
        if data := text_of(audio.get("data")):
            try:
                deltas.append(Blob(part, b64decode(data)))
            except (Base64Error, ValueError):
                raise StreamProtocolError("the audio of the answer is not base64") from None
        if (expires := audio.get("expires_at")) is not None:
            deltas.append(State(part, {"expires_at": expires}))

    def _part(
        self,
        number: int,
        field: str,
        kind: Literal["text", "thinking", "refusal"],
        deltas: list[Delta],
        state: dict[str, Any] | None = None,
    ) -> int:
        part = self._open.get((number, field))
        if part is None:
            part = self._open[number, field] = self._parts
            self._parts += 1
            deltas.append(Open(part, kind, choice=number, state=state))
        return part

    def _text(self, part: int, text: str, deltas: list[Delta]) -> None:
        if self._halves:
            text = self._halves.pop(part, "") + text
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            text = self._join_halves(part, text)
        if text:
            deltas.append(Text(part, text))

    def _join_halves(self, part: int, text: str) -> str:
        """Join surrogate pairs; keep a half at the end back until its other half comes."""
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") if _has_pairs(text) else text
        if "\ud800" <= text[-1] <= "\udbff":
            self._halves[part] = text[-1]
            return text[:-1]
        return text

    def _read_call(self, number: int, call: dict[str, Any], position: int, together: int, deltas: list[Delta]) -> None:
        function = mapping_of(call.get("function")) or mapping_of(call.get("custom"))
        call_id, name = text_of(call.get("id")), text_of(function.get("name"))
        index = call.get("index", position if together > 1 else None)
        slot = self._slot(number, index, call_id, name)
        if slot is None:
            slot = self._open_call(number, index, call_id, name, call, deltas)
        elif (call_id and slot.id is None) or (name and slot.name is None):
            slot.id, slot.name = slot.id or call_id, slot.name or name
            deltas.append(State(slot.part, {}, id=call_id, name=name))
        arguments = function.get("arguments", function.get("input"))
        if arguments is not None and arguments != "":
            text = arguments if isinstance(arguments, str) else encode_json(arguments).decode()
            slot.pieces.append(text)
            self._text(slot.part, text, deltas)

    def _slot(self, number: int, index: Any, call_id: str | None, name: str | None) -> _Slot | None:
        """The call that a fragment continues, None if it begins one.

        An id decides where there is one. An index decides next, unless a call at that index has another id, or is
        complete and a name comes again: then the server numbers all its calls alike. A fragment with neither
        continues the last call if it carries no name.
        """
        calls = self._calls.get(number, [])
        if call_id is not None and (known := next((slot for slot in calls if slot.id == call_id), None)):
            return known
        slot = self._by_index.get((number, index)) if index is not None else (calls[-1] if calls else None)
        if slot is None:
            if name is None and call_id is None and index is None:
                raise StreamProtocolError("a fragment of a tool call belongs to no call")
            return None
        if call_id is not None and slot.id is not None:
            return None
        if name is not None and slot.name is not None and (name != slot.name or slot.is_complete()):
            return None
        return slot

    def _open_call(
        self,
        number: int,
        index: Any,
        call_id: str | None,
        name: str | None,
        call: dict[str, Any],
        deltas: list[Delta],
    ) -> _Slot:
        slot = _Slot(self._parts, call_id, name)
        self._parts += 1
        self._calls.setdefault(number, []).append(slot)
        if index is not None:
            self._by_index[number, index] = slot
        state = {key: item for key, item in call.items() if key not in ("index", "id", "function", "type")}
        if index == "function_call":
            state["legacy"] = True
        deltas.append(Open(slot.part, "call", call_id, name, number, state or None))
        return slot


def usage_from(usage: dict[str, Any]) -> Usage:
    """The disjoint buckets of a usage object.

    `prompt_tokens` includes cached and audio tokens everywhere. `completion_tokens` includes reasoning at OpenAI and
    most others; where the total shows that it does not (or reasoning is larger), reasoning stands beside it.
    """
    details = mapping_of(usage.get("prompt_tokens_details"))
    written = mapping_of(usage.get("completion_tokens_details"))
    prompt, completion = count_of(usage.get("prompt_tokens")), count_of(usage.get("completion_tokens"))
    total = count_of(usage.get("total_tokens"))
    cache_read = _first(details.get("cached_tokens"), usage.get("prompt_cache_hit_tokens"), usage.get("cached_tokens"))
    cache_write = _first(details.get("cache_write_tokens"), usage.get("cache_creation_input_tokens"))
    audio_in, audio_out = count_of(details.get("audio_tokens")), count_of(written.get("audio_tokens"))
    reasoning = _first(written.get("reasoning_tokens"), usage.get("reasoning_tokens"))
    beside = bool(reasoning) and (
        (reasoning or 0) > (completion or 0)
        or (total is not None and total == (prompt or 0) + (completion or 0) + (reasoning or 0))
    )
    return Usage(
        input=_less(prompt, cache_read, cache_write, audio_in),
        cache_read=cache_read,
        cache_write=cache_write,
        input_audio=audio_in,
        output=_less(completion, audio_out, None if beside else reasoning),
        reasoning=reasoning,
        output_audio=audio_out,
        reported_total=total,
    )


def _first(*candidates: Any) -> int | None:
    return next((count for candidate in candidates if (count := count_of(candidate)) is not None), None)


def _less(whole: int | None, *portions: int | None) -> int | None:
    return None if whole is None else max(0, whole - sum(portion or 0 for portion in portions))


def _chunk(payload: bytes) -> Any:
    try:
        return decode_json(payload)
    except ValueError as error:
        raise StreamProtocolError(
            f"an event of the stream is no JSON: {error}", body=payload[:1000].decode("utf-8", "replace")
        ) from None


def _has_pairs(text: str) -> bool:
    return any("\ud800" <= first <= "\udbff" and "\udc00" <= second <= "\udfff" for first, second in pairwise(text))


def _tool(tool: ToolSpec) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters}
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _tool_choice(choice: str) -> Any:
    if choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.input or "{}"}}


def _reasoning(asked: bool | int | str) -> dict[str, Any]:
    if isinstance(asked, bool):
        return {"enabled": asked}
    return {"effort": asked} if isinstance(asked, str) else {"max_tokens": asked}


def _address(part: Image | File, default: str) -> str:
    if part.url is not None:
        return part.url
    return f"data:{part.media_type or default};base64,{b64encode(part.data or b'').decode()}"
