"""Mistral's chat completions, both halves: OpenAI's frame with contents of its own. Knows no provider, only quirks.

Sources: https://docs.mistral.ai/api/endpoint/chat, the types of Mistral's Python SDK (3.7.0), and 69 recorded
exchanges. What is the same as in OpenAI's format (events, choices, calls in pieces) is read by that dialect's readers.
What differs: a content may be a list, in which thinking, text and references follow each other, and each is a part;
unknown fields are refused, so nothing is sent that Mistral does not know; the ids of calls have nine letters or digits.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from string import ascii_letters, digits
from typing import Any, get_args

import msgspec

from ..deltas import Assembler, Close, Count, Delta, Finish, Note, Open, State, Text
from ..errors import (
    ContextOverflowError,
    ProviderError,
    SabirError,
    ServerError,
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
    Role,
    ServerItem,
    Thinking,
    ToolCall,
    ToolResult,
    Value,
)
from ..messages import Text as TextPart
from ..requests import Effort, HttpRequest, Notice, Options, OutputSchema, Request, Response, SchemaMode, ToolSpec
from ..strict_json import decode_json, encode_json, is_array, is_object
from ..usage import Usage
from . import NO_DOCUMENTS, Unsupported, Verdicts, choices_of, count_of, list_of, lost_citations, mapping_of, text_of
from .cache_marks import Caching, keyed
from .efforts import Efforts, Family, effort_of
from .failures import error_from_value, status_of
from .frames import Frame
from .leftovers import difference, own_state, patched
from .media_rules import MEGABYTE, TEXTUAL, MediaRules
from .openai_chat import (
    _WIRE_FINISH,
    ChatDecoder,
    ChatEncoder,
    _address,
    _from_base64,
    _no_place,
    _read_data_url,
    _read_schema,
    _refused,
    _Slot,
    _tool_choice,
    _WireReader,
    usage_from,
    usage_object,
)
from .places import no_place
from .prefills import PREFIXED, Prefill
from .ranges import PORTABLE, Ranges, check_read, check_sent
from .subsets import MISTRAL, parameters_of, shape_of, told_of_tools

NAME = "mistral"

# The verdict on each portable parameter: the wire's word for it, or why there is none.
PARAMETERS: Verdicts = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "max_tokens": "max_tokens",
    "stop": "stop",
    "seed": "random_seed",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "repetition_penalty": "repetition_penalty",
    "parallel_tool_calls": "parallel_tool_calls",
    "logprobs": "logprobs",
    "top_logprobs": "top_logprobs",
    "documents": NO_DOCUMENTS,
    "n": "n",
    "min_p": Unsupported("this API has no min_p; use top_p"),
    "user": Unsupported("this API knows no users; put one into extra={'metadata': …}"),
}

# https://docs.mistral.ai/api/endpoint/chat
RANGES: Ranges = {**PORTABLE, "temperature": (0, 1.5), "frequency_penalty": (-2, 2), "presence_penalty": (-2, 2)}

_LOWERED = {"response_format": "schema", "reasoning_effort": "thinking", "prompt_mode": "thinking"}
# https://docs.mistral.ai/inference/conversations/reasoning, and the models of https://models.dev (2026-10).
_EFFORTS: Efforts = (
    Family(r"mistral-(?:small|medium)-(?:2[45]\d\d|[123](?![-.]5))|mistral-large-(?:2|latest)", thinks="never"),
    Family(r"^(?:open-|ministral|codestral|devstral|pixtral|voxtral|mistral-(?:nemo|saba|tiny))", thinks="never"),
    Family(r"mistral-large-4", ("low", "medium", "high")),
    Family("", ("high",), off="none"),
)
# These models think always, and are asked for it by a mode (https://docs.mistral.ai/capabilities/reasoning/native).
_NATIVE = re.compile("magistral")
# What a call's id must be (HTTP 400, code 3280: "must be a-z, A-Z, 0-9, with a length of 9").
_ID = re.compile("[a-zA-Z0-9]{9}")
_TOO_LONG = re.compile(r"contains (\d{1,15}) tokens.* with (\d{1,15}) maximum context length")
# Where a chunk may have its text.
_CONTENT = ("choices", 0, "delta", "content")
_TEXT_PLACES = (_CONTENT, (*_CONTENT, 0, "text"), (*_CONTENT, 0, "thinking", 0, "text"))
# https://docs.mistral.ai/capabilities/vision, .../OCR/document_qna. All of it may be an address.
MEDIA = MediaRules(
    types={
        Image: ("image/png", "image/jpeg", "image/webp", "image/gif"),
        File: ("application/", *TEXTUAL),
    },
    most={Image: 10 * MEGABYTE, File: 50 * MEGABYTE},
)
# https://docs.mistral.ai/inference/conversations/advanced/prompt-caching
CACHING = Caching(key="prompt_cache_key")


@dataclass(frozen=True)
class Mistral:
    """The dialect.

    Attributes:
        parameters: the verdict on each portable parameter.
        ranges: what its numbers may be.
        media: what the server takes of images, sounds and files.
        caching: how it is told that a prompt is worth keeping.
        prefill: how models go on with the beginning of an answer.
    """

    parameters: Verdicts = field(default_factory=lambda: PARAMETERS)
    ranges: Ranges = field(default_factory=lambda: RANGES)
    media: MediaRules = MEDIA
    caching: Caching = CACHING
    prefill: Prefill | None = PREFIXED

    name = NAME

    def verdicts(self) -> Verdicts:
        """The verdict on every portable parameter."""
        special = {
            "thinking": "reasoning_effort (of Magistral, prompt_mode)",
            "tool_choice": "tool_choice",
            "schema": "response_format.json_schema",
            "cache": self.caching.verdict(),
        }
        return {**self.parameters, **special, "extra": "(as given)", "headers": "(as given)"}

    def schema_modes(self, request: Request) -> tuple[SchemaMode, ...]:
        return ("native", "tool", "prompt")

    def encode_request(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        check_sent(request, self.ranges, self.parameters)
        encoder = _BodyEncoder(self)
        body = encode_json(encoder.body(request))
        headers = (("content-type", "application/json"), *request.headers.items())
        return HttpRequest("POST", "/chat/completions", headers, body), tuple(encoder.notices)

    def decode_answer(self, body: bytes) -> list[Delta]:
        text = body[:10_000].decode("utf-8", "replace")
        try:
            value = decode_json(body)
        except ValueError as error:
            raise ServerError(f"the answer is no JSON: {error}", status=200, body=text) from None
        reader = _AnswerReader(is_whole=True)
        deltas = reader.read(value)
        if not any(is_object(choice) for choice in list_of(value.get("choices"))):
            raise StreamProtocolError("the answer has no choices", body=text)
        deltas.extend(reader.ending_of(deltas))
        return [*deltas, State(None, _leftovers(self.canonical_answer(value), deltas))]

    def decoder(self) -> MistralDecoder:
        return MistralDecoder()

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
        messages, finishes = choices_of(response)
        answer = _answer(messages, finishes, response.usage, response.model)
        state = own_state(response.message.state, NAME)
        for number, choice in enumerate(answer["choices"]):
            said = patched(choice["message"], state.get(f"choices.{number}.message", {}))
            ended = {"finish_reason": None, **patched(choice, state.get(f"choices.{number}", {}))}
            answer["choices"][number] = {**ended, "message": said}
        if usage := patched(answer.get("usage", {}), state.get("usage", {})):
            answer["usage"] = usage
        return encode_json(patched(answer, state.get("answer", {})))

    def encoder(self, request: Request | None = None) -> MistralEncoder:
        return MistralEncoder()

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        status = status_of(error)
        code = error.code or ("context_length_exceeded" if isinstance(error, ContextOverflowError) else None)
        kind = "invalid_request_error" if status < 500 else "server_error"
        told = {"object": "error", "message": error.message, "type": kind, "param": None, "code": code}
        return status, encode_json({**told, "raw_status_code": status})

    def canonical_request(self, body: dict[str, Any]) -> dict[str, Any]:
        """What means the same is made the same: see `canonical_answer`; further, in a request

        - `stream: false`, `prefix: false` and no tools are absent;
        - a stop string is a list of it.
        """
        wire = {name: value for name, value in _present(body).items() if (name, value) not in _NOTHING}
        if isinstance(wire.get("stop"), str):
            wire["stop"] = [wire["stop"]]
        if is_array(tools := wire.get("tools")):
            wire["tools"] = [_canonical_holder(tool) for tool in tools]
        if is_array(messages := wire.get("messages")):
            wire["messages"] = [_canonical_message(message) for message in messages]
        return wire

    def canonical_answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """What means the same is made the same: null is absent, in the objects that we read (and not deeper, in
        schemas and arguments), and so is a usage without counts; a content of one plain text is the text, null and an
        assistant's of nothing are the empty text.
        """
        canonical = _present(body)
        if is_object(usage := canonical.pop("usage", {})):
            usage = _present(usage)
        if usage != {}:
            canonical["usage"] = usage
        if is_array(choices := canonical.get("choices")):
            canonical["choices"] = [_canonical_choice(choice) for choice in choices]
        return canonical


_NOTHING: tuple[tuple[str, Any], ...] = (("stream", False), ("tools", []))
# The blocks that we read; in others null may say something.
_BLOCKS = frozenset({"text", "thinking", "reference", "image_url", "document_url", "file", "input_audio"})


def _present(object_: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in object_.items() if value is not None}


def _canonical_choice(choice: Any) -> Any:
    if not is_object(choice):
        return choice
    canonical = _present(choice)
    if is_object(message := canonical.get("message")):
        canonical["message"] = _canonical_message({"role": "assistant", **message})
    return canonical


def _canonical_message(message: Any) -> Any:
    if not is_object(message):
        return message
    canonical = {name: value for name, value in _present(message).items() if (name, value) != ("prefix", False)}
    if "content" in message:
        canonical.setdefault("content", "")
    if is_array(content := canonical.get("content")):
        content = canonical["content"] = [_canonical_block(block) for block in content]
        if len(content) == 1 and is_object(block := content[0]) and block.keys() == {"type", "text"}:
            canonical["content"] = block["text"] if isinstance(block["text"], str) else content
    if message.get("role") == "assistant":
        canonical["content"] = canonical.get("content") or ""
    if is_array(calls := canonical.get("tool_calls")):
        canonical["tool_calls"] = [_canonical_holder(call) for call in calls]
        if not calls:
            del canonical["tool_calls"]
    return canonical


def _canonical_block(block: Any) -> Any:
    return _present(block) if is_object(block) and text_of(block.get("type")) in _BLOCKS else block


def _canonical_holder(holder: Any) -> Any:
    """A tool or a call, whose function is an object in it."""
    if not is_object(holder):
        return holder
    canonical = _present(holder)
    if is_object(function := canonical.get("function")):
        canonical["function"] = _present(function)
    return canonical


# Blocks, calls and tools, for both halves


def _blocks(part: Part) -> Iterator[dict[str, Any]]:
    """A part as blocks: a text and what it refers to, or one of another kind; without what only its state says."""
    match part:
        case TextPart():
            references = [note for note in part.notes if _is_reference(note)]
            if part.text or not references:
                yield {"type": "text", "text": part.text}
            yield from references
        case Refusal():
            yield {"type": "text", "text": part.text}
        case Value():
            yield {"type": "text", "text": encode_json(part.value).decode()}
        case Thinking():
            said = [{"type": "text", "text": part.text}] if part.text else []
            yield {"type": "thinking", "thinking": [*said, *filter(_is_reference, part.notes)]}
        case Image():
            detail = {"detail": part.detail} if part.detail else {}
            yield {"type": "image_url", "image_url": {"url": _address(part, "image/png"), **detail}}
        case Audio(data=bytes() as data):
            yield {"type": "input_audio", "input_audio": b64encode(data).decode()}
        case Audio(url=str() as url):
            yield {"type": "input_audio", "input_audio": url}
        case File(id=str() as file_id):
            yield {"type": "file", "file_id": file_id}
        case File():
            named = _present({"document_name": part.name})
            yield {"type": "document_url", "document_url": _address(part, "application/pdf"), **named}
        case ServerItem():
            yield {"type": part.kind}
        case Audio() | ToolCall() | ToolResult():
            raise no_place(part)


def _is_reference(note: Any) -> bool:
    """Whether a note is a reference of this API's, and not another's citation or a token's probability."""
    return is_object(note) and note.get("type") in ("reference", "tool_reference")


def _content(blocks: Sequence[dict[str, Any]]) -> str | list[dict[str, Any]]:
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        return str(blocks[0]["text"])
    return list(blocks) or ""


def _call(part: ToolCall, call_id: str | None) -> dict[str, Any]:
    named = {"id": call_id} if call_id is not None else {}
    function = {"name": part.name, "arguments": part.input or "{}"}
    return patched({**named, "type": "function", "function": function}, own_state(part.state, NAME))


def _nine(call_id: str | None) -> str | None:
    """An id that this API takes: the same if it does, else always the same for the same."""
    if call_id is None or _ID.fullmatch(call_id):
        return call_id
    number = int.from_bytes(blake2b(call_id.encode("utf-8", "surrogatepass"), digest_size=8).digest())
    letters = digits + ascii_letters
    return "".join(letters[number // len(letters) ** place % len(letters)] for place in range(9))


def _function(tool: ToolSpec) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **described, "parameters": parameters_of(tool) or {"type": "object", "properties": {}}}


# The client's half: requests


class _BodyEncoder:
    def __init__(self, dialect: Mistral) -> None:
        self._dialect = dialect
        self._ids: dict[str | None, str | None] = {}
        self.notices: list[Notice] = []

    def body(self, request: Request) -> dict[str, Any]:
        """The JSON body; `request.extra` goes over it as it is."""
        patch = self._own(request.state, "request")
        self.notices += lost_citations(request.messages, _is_reference)
        kept, notices = keyed(request, self._dialect.caching)
        self.notices += notices
        body: dict[str, Any] = {"model": request.model, "messages": list(self.messages(request.messages)), **kept}
        if request.stream:
            body["stream"] = True
        for parameter, verdict in self._dialect.parameters.items():
            if (value := getattr(request, parameter)) is None:
                continue
            if isinstance(verdict, Unsupported):
                self._refuse(parameter, str(verdict))
            else:
                body[verdict] = list(value) if parameter == "stop" else value
        if request.tools:
            body["tools"] = [self._tool(tool) for tool in request.tools]
            self.notices += told_of_tools(request.tools, NAME)
        if request.tool_choice is not None:
            body["tool_choice"] = "any" if request.tool_choice == "required" else _tool_choice(request.tool_choice)
        if request.schema is not None and request.schema.mode == "native":
            body["response_format"] = self._response_format(request.schema)
        if request.thinking is not None:
            self._think(request.thinking, body)
        # What a client of ours has asked for in this format's own words is put back, and so was not lowered.
        restored = {_LOWERED[word] for word in patch.get("set", {}) if word in _LOWERED}
        self.notices = [notice for notice in self.notices if notice.subject not in restored]
        return {**patched(body, patch), **request.extra}

    def _response_format(self, wanted: OutputSchema) -> dict[str, Any]:
        shape, notices = shape_of(wanted, MISTRAL)
        self.notices += notices
        named = {"name": wanted.name, "schema": shape.json, "strict": shape.obstacle is None}
        return {"type": "json_schema", "json_schema": named}

    def _think(self, asked: bool | int | str, body: dict[str, Any]) -> None:
        if _NATIVE.search(body["model"]):
            if asked is False:
                self._refuse("thinking", "this model always thinks; choose another")
                return
            body["prompt_mode"] = "reasoning"
            if asked is not True:
                self._emulate("thinking", f"thinking={asked!r} was approximated: this model thinks as it sees fit")
            return
        word, notice = effort_of(asked, body["model"], _EFFORTS)
        if word is not None:
            body["reasoning_effort"] = word
        if notice is not None:
            self.notices.append(notice)

    def _tool(self, tool: ToolSpec) -> dict[str, Any]:
        patch = self._own(tool.state, "tool")
        if patch.get("unset") == ["function"]:
            return dict(patch["set"])
        if tool.state is not None and tool.state.dialect != NAME and not tool.description and not tool.parameters:
            raise UnsupportedError(f"the tool {tool.name!r} is run by {tool.state.dialect}, which is not asked here")
        return patched({"type": "function", "function": patched(_function(tool), patch)}, patch.get("tool", {}))

    def messages(self, messages: Sequence[Message]) -> Iterator[dict[str, Any]]:
        for at, message in enumerate(messages):
            if message.role == "tool":
                yield from self.results(message)
                continue
            encoded = self.message(message, is_last=at == len(messages) - 1)
            # An assistant's message of nothing is refused, as it may be when its parts had to be left out.
            if message.role != "assistant" or encoded.get("content") or encoded.get("tool_calls"):
                yield encoded

    def results(self, message: Message) -> Iterator[dict[str, Any]]:
        """The messages of a tool's."""
        self._own(message.state, "message")
        self._drop_name(message)
        return (self._result(part) for part in message.parts)

    def message(self, message: Message, *, is_last: bool) -> dict[str, Any]:
        """A message that is no tool's."""
        own = self._own(message.state, "message")
        self._drop_name(message)
        if message.role == "assistant":
            return patched(self._assistant(message, is_last=is_last), own)
        content = _content([block for part in message.parts for block in self._said(part, message.role)])
        return patched({"role": message.role, "content": content}, own)

    def _drop_name(self, message: Message) -> None:
        if message.name is not None:
            self._drop("name", f"this API has no names of speakers: {message.name!r}")

    def _assistant(self, message: Message, is_last: bool) -> dict[str, Any]:
        calls = [self._call(part) for part in message.parts if isinstance(part, ToolCall)]
        others = [part for part in message.parts if not isinstance(part, ToolCall)]
        content = _content([block for part in others for block in self._said(part, "assistant")])
        # What the model is to go on with; without the flag it refuses a history that ends with its own words.
        flag = {"prefix": True} if is_last and not calls else {}
        return {"role": "assistant", "content": content, **({"tool_calls": calls} if calls else {}), **flag}

    def _call(self, part: ToolCall) -> dict[str, Any]:
        self._own(part.state, "part")
        call = _call(part, _nine(part.id))
        self._ids[part.id] = call.get("id")
        if call.get("id") != part.id and not any(notice.subject == "id" for notice in self.notices):
            self._emulate("id", "the ids of calls were replaced by ones of nine letters and digits, as this API wants")
        return call

    def _result(self, part: Part) -> dict[str, Any]:
        if not isinstance(part, ToolResult):
            raise no_place(part, "tool")
        content = _content([block for item in part.content for block in self._said(item, "tool")])
        call_id = self._ids.get(part.call_id) or _nine(part.call_id)
        encoded = _present({"role": "tool", "tool_call_id": call_id, "content": content})
        return patched(encoded, self._own(part.state, "tool result"))

    def _said(self, part: Part, role: Role) -> Iterator[dict[str, Any]]:
        """The blocks of a part with what only its state says; what has no place is left out, or an error."""
        kind, is_own = type(part).__name__, part.state is not None and part.state.dialect == NAME
        match part:
            case Thinking() | ServerItem() if not is_own and role == "assistant":
                self._drop(kind, f"a {kind} part was left out: only its maker can use it")
                return
            case Thinking() | ServerItem() if not is_own:
                raise no_place(part, role)
            case Image() | File() | Audio() | ToolResult() if role == "assistant":
                self._drop(kind, f"a {kind} part was left out: this API has no place for it in an assistant's message")
                return
            case Refusal():
                self._emulate(kind, "a refusal was sent as text")
            case _:
                pass
        first, *rest = _blocks(part)
        yield patched(first, self._own(part.state, "part"))
        yield from rest

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


# The client's half: answers


class MistralDecoder(ChatDecoder):
    """Decodes one streamed answer. It ends as OpenAI's do: at [DONE], or when each choice has told its reason."""

    def __init__(self) -> None:
        super().__init__()
        self._reader = _AnswerReader()
        self._frame = Frame(*_TEXT_PLACES)


class _AnswerReader(_WireReader):
    """Reads contents that are lists: a block goes on with the part before it if it is of its kind, or is a new part."""

    dialect = NAME

    def __init__(self, is_whole: bool = False) -> None:
        super().__init__(is_whole)
        self._current: dict[int, str] = {}
        self._beside: dict[int, dict[str, Any]] = {}

    def read_into(self, value: Any, deltas: list[Delta]) -> None:
        if is_object(value):
            if value.get("object") == "error" or value.get("error"):
                raise _failure(None, {}, value, encode_json(value).decode())
            if not self._is_whole:
                # Letters that hide how long a piece is.
                value.pop("p", None)
        usage = mapping_of(value).get("usage")
        super().read_into({**value, "usage": None} if is_object(usage) else value, deltas)
        if is_object(usage):
            counted = _usage(usage)
            deltas.append(Count(counted))
            if patch := difference(usage, _usage_object(counted)):
                self._leftovers["usage"] = patch

    def close(self) -> list[Delta]:
        deltas: list[Delta] = []
        for number in list(self._current):
            self._leave(number, deltas)
        return [*deltas, *super().close()]

    def _read_content(self, number: int, value: Any, deltas: list[Delta]) -> None:
        if isinstance(value, str):
            self.add_text(self._entered(number, "content", deltas), value, deltas)
            return
        if not is_array(value):
            raise StreamProtocolError("a content of the answer is neither a text nor a list")
        for block in value:
            if not is_object(block) or text_of(block.get("type")) is None:
                raise StreamProtocolError(f"a block of the answer has no type: {str(block)[:80]}")
            self._read_block(number, block, deltas)

    def _read_block(self, number: int, block: dict[str, Any], deltas: list[Delta]) -> None:
        kind = block["type"]
        if kind == "text" and isinstance(block.get("text"), str):
            part = self._entered(number, "content", deltas)
            self.add_text(part, block["text"], deltas)
            self._keep_beside(number, block, ("type", "text"))
        elif kind == "thinking" and is_array(block.get("thinking")):
            part = self._entered(number, "thinking", deltas)
            for item in block["thinking"]:
                if is_object(item) and item.get("type") == "text" and isinstance(item.get("text"), str):
                    self.add_text(part, item["text"], deltas)
                else:
                    deltas.append(Note(part, item))
            self._keep_beside(number, block, ("type", "thinking"))
            if block.get("closed") is True:
                self._leave(number, deltas)
        elif _is_reference(block):
            deltas.append(Note(self._entered(number, "content", deltas), block))
            # What is said after a reference is a text of its own.
            self._leave(number, deltas)
        else:
            self._leave(number, deltas)
            rest = {name: it for name, it in block.items() if name != "type"}
            deltas.append(Open(self._parts, "server", text_of(block.get("id")), kind, number, {"set": rest}))
            self._parts += 1

    def _entered(self, number: int, field: str, deltas: list[Delta]) -> int:
        """The part that a block of this kind goes on with."""
        if self._current.get(number) != field:
            self._leave(number, deltas)
            self._current[number] = field
            self._open[number, field] = self._parts
            self._parts += 1
            is_thinking = field == "thinking"
            state = {"field": "content"} if is_thinking else None
            deltas.append(Open(self._parts - 1, "thinking" if is_thinking else "text", choice=number, state=state))
        return self._open[number, field]

    def _keep_beside(self, number: int, block: dict[str, Any], read: tuple[str, str]) -> None:
        """Keep what a block says beyond its text; what a later piece of it says replaces what an earlier one said."""
        if len(block) > len(read):
            rest = {name: it for name, it in block.items() if name not in read and it is not None}
            self._beside.setdefault(number, {}).update(rest)

    def _leave(self, number: int, deltas: list[Delta]) -> None:
        """Have the next block be a new part, whatever its kind."""
        field = self._current.pop(number, None)
        if field is not None and (beside := self._beside.pop(number, None)):
            deltas.append(State(self._open[number, field], {"set": beside}))

    def _read_call(self, number: int, call: dict[str, Any], position: int, together: int, deltas: list[Delta]) -> None:
        # "null" is what Mistral's own SDK takes for no id.
        named = {**call, "id": None} if call.get("id") == "null" else call
        super()._read_call(number, named, position, together, deltas)

    def _open_call(
        self,
        number: int,
        index: int | str | None,
        call_id: str | None,
        name: str | None,
        call: dict[str, Any],
        deltas: list[Delta],
    ) -> _Slot:
        slot = super()._open_call(number, index, call_id, name, call, deltas)
        opening = deltas[-1]
        if isinstance(opening, Open) and call_id is not None and not _ID.fullmatch(call_id):
            # Some models that Mistral serves give other ids, and get them back as they are.
            said = (opening.state or {}).get("set", {})
            deltas[-1] = msgspec.structs.replace(opening, state={"set": {**said, "id": call_id}})
        return slot


def _leftovers(value: dict[str, Any], deltas: Iterable[Delta]) -> dict[str, Any]:
    """What a whole answer says beyond what its deltas sum to, by the place where it says it."""
    total = Assembler(NAME)
    for delta in deltas:
        total.add(delta)
    messages = total.choices
    ours = _answer(messages, total.finish_reasons, total.usage, total.model)
    apart = ("choices", "usage") if is_object(value.get("usage")) else ("choices",)
    sides = [{name: item for name, item in side.items() if name not in apart} for side in (value, ours)]
    found = {"answer": difference(*sides), "usage": difference(mapping_of(value.get("usage")), ours.get("usage", {}))}
    choices = list_of(value.get("choices"))
    if len(choices) != len(messages) or not all(is_object(choice) for choice in choices):
        found["answer"] = {**found["answer"], "set": {**found["answer"].get("set", {}), "choices": choices}}
    else:
        for number, (choice, mine) in enumerate(zip(choices, ours["choices"], strict=True)):
            message = mine.pop("message")
            found[f"choices.{number}"] = difference({**choice, "message": None}, mine)
            found[f"choices.{number}.message"] = difference(mapping_of(choice.get("message")), message)
    return {place: patch for place, patch in found.items() if patch or place in total.state}


def _usage(wire: dict[str, Any]) -> Usage:
    """The disjoint buckets. The tokens of a sound stand beside the prompt's, as the total shows."""
    prompt, completion = count_of(wire.get("prompt_tokens")) or 0, count_of(wire.get("completion_tokens")) or 0
    audio = count_of(mapping_of(wire.get("prompt_tokens_details")).get("audio_tokens")) or 0
    shown = {**wire, "cached_tokens": wire.get("num_cached_tokens")}
    if audio and count_of(wire.get("total_tokens")) == prompt + audio + completion:
        shown["prompt_tokens"] = prompt + audio
    return usage_from(shown)


def _usage_object(usage: Usage) -> dict[str, Any]:
    told = usage_object(usage)
    if usage.input_tokens is not None:
        told["prompt_tokens"] = usage.input_tokens - (usage.input_audio or 0)
    return told


def _failure(status: int | None, headers: Mapping[str, str], value: Any, text: str) -> ProviderError:
    """The exception for an error, with the numbers that its text has; in a stream it brings its status along."""
    raw = mapping_of(value).get("raw_status_code")
    if status is None and type(raw) is int and 400 <= raw < 600:
        status = raw
    error = error_from_value(status, headers, value, text)
    if isinstance(error, ContextOverflowError) and (found := _TOO_LONG.search(error.message)):
        error.prompt_tokens, error.context_length = int(found[1]), int(found[2])
    return error


# The server's half: requests


class _RequestReader:
    """Reads a client's request, strictly; keeps what it does not understand on the nearest value."""

    def __init__(self, dialect: Mistral) -> None:
        self._dialect = dialect
        self._encoder = _BodyEncoder(dialect)
        self._names: dict[str | None, str] = {}

    def read(self, wire: dict[str, Any]) -> Request:
        if not isinstance(model := wire.get("model"), str):
            raise _refused("model", "a string is wanted")
        if not is_array(messages := wire.get("messages")) or not messages:
            raise _refused("messages", "a list of at least one message is wanted")
        if not isinstance(wire.get("stream", False), bool):
            raise _refused("stream", "true or false is wanted")
        if not is_array(tools := wire.get("tools", [])):
            raise _refused("tools", "a list is wanted")
        request = Request(
            model=model,
            messages=self._messages(messages),
            tools=tuple(_read_tool(tool, f"tools[{at}]") for at, tool in enumerate(tools)),
            schema=_read_schema(wire.get("response_format")),
            stream=wire.get("stream", False),
            **self._options(wire),
        )
        ours = _BodyEncoder(self._dialect).body(request)
        patch = difference(
            *({k: v for k, v in side.items() if k not in ("messages", "tools")} for side in (wire, ours))
        )
        return msgspec.structs.replace(request, state=ProviderState(NAME, patch)) if patch else request

    def _options(self, wire: dict[str, Any]) -> dict[str, Any]:
        words = {name: word for name, word in self._dialect.parameters.items() if word in wire}
        options = {name: wire[word] for name, word in words.items() if not isinstance(word, Unsupported)}
        choice = wire.get("tool_choice")
        named = text_of(mapping_of(mapping_of(choice).get("function")).get("name"))
        options["tool_choice"] = {"auto": "auto", "none": "none", "any": "required", "required": "required"}.get(
            str(choice), named
        )
        options["cache"] = True if self._dialect.caching.key in wire else None
        effort = wire.get("reasoning_effort")
        if effort is not None or wire.get("prompt_mode") == "reasoning":
            options["thinking"] = effort if effort in get_args(Effort) else effort != "none"
        options = _present(options)
        try:
            msgspec.convert(options, Options)
        except (msgspec.ValidationError, UnicodeError) as error:
            what, _, where = str(error).partition(" - at `$.")
            name, bracket, rest = where.rstrip("`").partition("[")
            raise _refused(f"{words.get(name, name)}{bracket}{rest}", what) from None
        check_read(options, self._dialect.ranges, words)
        return {**options, **({"stop": tuple(options["stop"])} if "stop" in options else {})}

    def _messages(self, wire: Sequence[Any]) -> tuple[Message, ...]:
        messages: list[Message] = []
        for at, item in enumerate(wire):
            message = self._message(item, f"messages[{at}]", is_last=at == len(wire) - 1)
            # The results of one round are one message of ours.
            if message.role == "tool" and messages and messages[-1].role == "tool":
                messages[-1] = msgspec.structs.replace(messages[-1], parts=messages[-1].parts + message.parts)
            else:
                messages.append(message)
        return tuple(messages)

    def _message(self, wire: Any, where: str, is_last: bool) -> Message:
        role: Role | None = next((role for role in get_args(Role) if role == mapping_of(wire).get("role")), None)
        if role is None:
            raise _refused(f"{where}.role", f"one of {', '.join(get_args(Role))} is wanted")
        content = self._parts(wire.get("content"), f"{where}.content")
        if role == "tool":
            if text_of(wire.get("tool_call_id")) is None:
                raise _refused(f"{where}.tool_call_id", "the id of a call is wanted")
            return Message("tool", (self._result(wire, content),))
        if role == "assistant" and not wire.get("content") and not wire.get("tool_calls"):
            raise _refused(f"{where}.content", "a text, a list of blocks, or a call is wanted")
        calls = self._calls(wire, where) if role == "assistant" else ()
        message = Message(role, (*content, *calls))
        # As the last of a history an assistant's message is one to go on with.
        patch = difference(wire, self._encoder.message(message, is_last=is_last))
        return msgspec.structs.replace(message, state=ProviderState(NAME, patch)) if patch else message

    def _parts(self, content: Any, where: str) -> tuple[Part, ...]:
        if isinstance(content, str):
            return (TextPart(text=content),) if content else ()
        if not is_array(content):
            raise _refused(where, "a text or a list of blocks is wanted")
        parts: list[Part] = []
        for at, block in enumerate(content):
            if not is_object(block) or text_of(block.get("type")) is None:
                raise _refused(f"{where}[{at}].type", "a block with a type is wanted")
            if _is_reference(block) and parts and isinstance(text := parts[-1], TextPart):
                parts[-1] = msgspec.structs.replace(text, notes=(*text.notes, block))
            else:
                parts.append(_part_of(block, f"{where}[{at}]"))
        return tuple(parts)

    def _calls(self, wire: dict[str, Any], where: str) -> Iterator[ToolCall]:
        if not is_array(calls := wire.get("tool_calls", [])):
            raise _refused(f"{where}.tool_calls", "a list is wanted")
        for at, call in enumerate(calls):
            function = mapping_of(mapping_of(call).get("function"))
            if (name := text_of(function.get("name"))) is None:
                raise _refused(f"{where}.tool_calls[{at}].function.name", "the name of a tool is wanted")
            arguments = function.get("arguments")
            text = arguments if isinstance(arguments, str) else encode_json(arguments or {}).decode()
            if (call_id := text_of(call.get("id"))) is None:
                raise _refused(f"{where}.tool_calls[{at}].id", "the id of a call is wanted")
            part = ToolCall(name=name, input=text, id=call_id)
            self._names[part.id] = name
            patch = difference(call, _call(part, _nine(part.id)))
            yield msgspec.structs.replace(part, state=ProviderState(NAME, patch)) if patch else part

    def _result(self, wire: dict[str, Any], content: tuple[Part, ...]) -> ToolResult:
        call_id = text_of(wire.get("tool_call_id"))
        name = self._names.get(call_id) or text_of(wire.get("name")) or ""
        result = ToolResult(call_id=call_id, name=name, content=content)  # type: ignore[arg-type]
        (ours,) = self._encoder.results(Message("tool", (result,)))
        patch = difference(wire, ours)
        return msgspec.structs.replace(result, state=ProviderState(NAME, patch)) if patch else result


_WANTED: dict[str, type | tuple[type, ...]] = {"text": str, "document_url": str, "image_url": (str, dict)}


def _part_of(block: dict[str, Any], where: str) -> Part:
    kind = block["type"]
    if kind in _WANTED and not isinstance(block.get(kind), _WANTED[kind]):
        raise _refused(f"{where}.{kind}", f"a {kind} block without its {kind}")
    part = _worded(block)
    if part is None:
        rest = {name: value for name, value in block.items() if name != "type"}
        return ServerItem(kind=kind, state=ProviderState(NAME, {"set": rest}))
    patch = difference(block, next(_blocks(part)))
    if isinstance(part, Thinking):
        # Its own, though there is nothing to keep.
        return msgspec.structs.replace(part, state=ProviderState(NAME, {"field": "content", **patch}))
    return msgspec.structs.replace(part, state=ProviderState(NAME, patch)) if patch else part


def _worded(block: dict[str, Any]) -> Part | None:
    """A block in our words, as far as they go; None if they say nothing of it."""
    match block["type"]:
        case "text":
            return TextPart(text=block["text"])
        case "thinking" if is_array(items := block.get("thinking")):
            told = [
                text for item in items if mapping_of(item).get("type") == "text" and (text := text_of(item.get("text")))
            ]
            return Thinking(text="".join(told), notes=tuple(filter(_is_reference, items)))
        case "image_url":
            image = mapping_of(block["image_url"]) or {"url": block["image_url"]}
            if (url := text_of(image.get("url"))) is None:
                return None
            kind, data = _read_data_url(url)
            detail = text_of(image.get("detail"))
            return Image(data=data, media_type=kind, detail=detail) if data else Image(url=url, detail=detail)
        case "document_url" if (url := text_of(block["document_url"])) is not None:
            kind, data = _read_data_url(url)
            name = text_of(block.get("document_name"))
            return File(data=data, media_type=kind, name=name) if data else File(url=url, name=name)
        case "file" if (file_id := text_of(block.get("file_id"))) is not None:
            return File(id=file_id)
        case "input_audio":
            labelled = mapping_of(block.get("input_audio"))
            sound = text_of(labelled.get("data")) or text_of(block.get("input_audio"))
            if sound is not None and sound.startswith(("http://", "https://")):
                return Audio(url=sound)
            data = _from_base64(sound) if sound is not None else None
            kind = {"wav": "audio/wav", "mp3": "audio/mpeg"}.get(str(labelled.get("format")))
            return Audio(data=data, media_type=kind) if data else None
        case _:
            return None


def _read_tool(tool: Any, where: str) -> ToolSpec:
    function = mapping_of(mapping_of(tool).get("function"))
    if not function and text_of(mapping_of(tool).get("type")) not in (None, "function"):
        # A tool that Mistral runs: kept whole, as it has no schema that we know.
        return ToolSpec(tool["type"], state=ProviderState(NAME, {"set": tool, "unset": ["function"]}))
    if (name := text_of(function.get("name"))) is None:
        raise _refused(f"{where}.function.name", "a tool with a name is wanted")
    spec = ToolSpec(name, text_of(function.get("description")) or "", mapping_of(function.get("parameters")))
    outer = difference({**tool, "function": None}, {"type": "function"})
    patch = {**difference(function, _function(spec)), **({"tool": outer} if outer else {})}
    return msgspec.structs.replace(spec, state=ProviderState(NAME, patch)) if patch else spec


# The server's half: answers


def _answer(messages: Sequence[Message], finishes: Sequence[Any], usage: Usage, model: str | None) -> dict[str, Any]:
    """What we understand of an answer, as its wire object."""
    choices: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        choice: dict[str, Any] = {"index": number, "message": _answer_message(message)}
        if (reason := _WIRE_FINISH.get(finishes[number])) is not None:
            choice["finish_reason"] = reason
        notes = [note for part in message.parts if isinstance(part, TextPart) for note in part.notes]
        if logprobs := [note["logprob"] for note in notes if is_object(note) and "logprob" in note]:
            choice["logprobs"] = {"content": logprobs}
        choices.append(choice)
    named = _present({"id": messages[0].id, "object": "chat.completion", "model": model or None})
    return {**named, "choices": choices, **({"usage": _usage_object(usage)} if usage != Usage() else {})}


def _answer_message(message: Message) -> dict[str, Any]:
    """What we understand of an answer's message; an item that another provider made is nothing here."""
    blocks: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for part in message.parts:
        match part:
            case ToolCall():
                calls.append(_call(part, part.id))
            case Image() | Audio() | File() | ToolResult():
                raise _no_place(type(part).__name__)
            case ServerItem() if not own_state(part.state, NAME):
                pass
            case _:
                first, *rest = _blocks(part)
                blocks += [patched(first, own_state(part.state, NAME)), *rest]
    return {"role": "assistant", "content": _content(blocks), **({"tool_calls": calls} if calls else {})}


class MistralEncoder(ChatEncoder):
    """Encodes the deltas of one answer as a stream: OpenAI's, with contents that are lists where they are no text.

    A call is told when it is complete: Mistral does so, and its clients count on it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pieces: dict[int, list[str]] = {}

    def feed(self, delta: Delta) -> bytes:
        match delta:
            case Close():
                return self._complete(delta.part) + super().feed(delta)
            case Finish():
                parts = [part for part in self._pieces if self._openings[part].choice == delta.choice]
                return b"".join(map(self._complete, parts)) + super().feed(delta)
            case _:
                return super().feed(delta)

    def fail(self, error: SabirError) -> bytes:
        return b"data: " + Mistral().encode_error(error)[1] + b"\n\n"

    def close(self) -> bytes:
        end = [self._complete(part) for part in list(self._pieces)]
        if not self._has_begun:
            end.append(self._event({"choices": [{"index": 0, "delta": {"role": "assistant"}}]}))
        if self._usage is not None:
            usage = patched(_usage_object(self._usage), self._leftovers.get("usage", {}))
            end.append(self._event({"choices": [], "usage": usage}))
        return b"".join(end) + b"data: [DONE]\n\n"

    def _open(self, delta: Open) -> bytes:
        if delta.kind in ("image", "audio", "file"):
            raise _no_place(delta.kind)
        self._openings.append(delta)
        if delta.kind == "call":
            self._calls[delta.part] = sum(self._openings[part].choice == delta.choice for part in self._calls)
            self._pieces[delta.part] = []
        if delta.kind == "server" and delta.state:
            return self._block(delta.part, {"type": delta.name, **delta.state.get("set", {})})
        return b""

    def _complete(self, part: int) -> bytes:
        """Tell a call, if this part is one that has not been told."""
        if (pieces := self._pieces.pop(part, None)) is None:
            return b""
        opening = self._openings[part]
        if not opening.name:
            raise StreamProtocolError("a tool call came without the name of a tool")
        named = {"id": opening.id, "type": "function", "index": self._calls[part]}
        function = {"name": opening.name, "arguments": "".join(pieces)}
        said = (opening.state or {}).get("set", {})
        return self._chunk(part, {"tool_calls": [_present({**named, "function": function, **said})]})

    def _text(self, delta: Text) -> bytes:
        match self._openings[delta.part].kind:
            case "call":
                self._pieces[delta.part].append(delta.text)
                return b""
            case "thinking":
                said = [{"type": "text", "text": delta.text}]
                return self._block(delta.part, {"type": "thinking", "thinking": said})
            case "text" | "refusal":
                return self._chunk(delta.part, {"content": delta.text})
            case _:
                return b""

    def _note(self, delta: Note) -> bytes:
        if not _is_reference(delta.value):
            return super()._note(delta) if "logprob" in mapping_of(delta.value) else b""
        if self._openings[delta.part].kind == "thinking":
            return self._block(delta.part, {"type": "thinking", "thinking": [delta.value]})
        return self._block(delta.part, delta.value)

    def _state(self, delta: State) -> bytes:
        if delta.part is None:
            return super()._state(delta)
        opening = self._openings[delta.part]
        named = {"id": opening.id or delta.id, "name": opening.name or delta.name}
        self._openings[delta.part] = msgspec.structs.replace(opening, **named)
        if opening.kind not in ("text", "thinking") or not (beside := delta.patch.get("set")):
            return b""
        empty: dict[str, Any] = {"text": ""} if opening.kind == "text" else {"thinking": []}
        return self._block(delta.part, {"type": opening.kind, **empty, **beside})

    def _block(self, part: int, block: dict[str, Any]) -> bytes:
        return self._chunk(part, {"content": [block]})
