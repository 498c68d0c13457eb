"""OpenAI chat completions, the format most servers speak; client half. Knows no provider, only quirks.

Sources: https://platform.openai.com/docs/api-reference/chat and the recorded traffic of some thirty servers. Where
servers differ, the difference is a field of `OpenAIChat`, and a row of the providers' table sets it.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, cast, get_args

import msgspec

from ..deltas import (
    Assembler,
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
from ..errors import (
    BadRequestError,
    ProviderError,
    SabirError,
    ServerError,
    StreamInterrupted,
    StreamProtocolError,
    UnsupportedError,
)
from ..lowering import Subset
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
from . import NO_DOCUMENTS, Unsupported, Verdicts, broken_off, choices_of, count_of, list_of, mapping_of, text_of
from .cache_marks import BY_THEMSELVES, Caching, control_of, keyed, mark_of, placed
from .efforts import OPENAI, Efforts, effort_of, family_of
from .failures import error_from_value, failure_object, provider_error
from .frames import Frame
from .leftovers import difference, own_state, patched, without_nulls
from .media_rules import MEGABYTE, TEXTUAL, MediaRules, file_name, film_type, is_film
from .places import no_place
from .prefills import Prefill
from .ranges import PORTABLE, Ranges, check_read, check_sent
from .sse import EventStream
from .subsets import ANY_OBJECT, LLAMA_CPP, OPENAI_STRICT, parameters_of, shape_of, told_of_tools

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
    "documents": NO_DOCUMENTS,
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

# https://platform.openai.com/docs/api-reference/chat/create; recorded, what is said of temperatures.
OPENAI_RANGES: Ranges = {
    **PORTABLE,
    "temperature": (0, 2),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
    "top_logprobs": (0, 20),
}

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
}
# Ends that make no answer of what came before: OpenRouter's and Mistral's word, DeepSeek's, Z.ai's, those of engines.
_FAILED = frozenset({"error", "insufficient_system_resource", "network_error", "abort", "aborted"})
_WIRE_FINISH: dict[FinishReason, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "stop",
}
_THINKING_FIELDS = ("reasoning_content", "reasoning")
_REASONING = (*_THINKING_FIELDS, "reasoning_details")
_RANK = {"reasoning_content": 0, "reasoning": 0, "reasoning_details": 0, "content": 1, "annotations": 1, "refusal": 2}
# What every chunk repeats; only what is not here, or comes first, is kept as state of the message.
_PER_CHUNK = frozenset({"id", "model", "object", "created", "choices", "usage", "system_fingerprint", "obfuscation"})
_READ_IN_HEAD = frozenset({"id", "model", "object", "choices", "usage", "obfuscation"})
_TEXT_PLACES = (("choices", 0, "delta", "content"), ("choices", 0, "delta", "reasoning_content"))
_IN_CHOICE = frozenset({"index", "delta", "message", "finish_reason", "logprobs"})
_IN_CALL = frozenset({"index", "id", "type", "function", "custom"})
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
_NO_WAY_TO_THINK = "this server has no known way to ask for thinking"
_NO_CHOICE = "this server lets the model choose; say in the prompt that a tool must be used"
_NO_SCHEMA = "this server holds its answers to no schema; say in the prompt what is wanted"
# https://platform.openai.com/docs/guides/images-vision, and /pdf-files: files are sent as data or by id.
MEDIA = MediaRules(
    inlined=(Audio, File),
    types={
        Image: ("image/png", "image/jpeg", "image/webp", "image/gif"),
        Audio: ("audio/wav", "audio/x-wav", "audio/mpeg", "audio/mp3"),
        File: ("application/", *TEXTUAL),
    },
    most={Image: 50 * MEGABYTE, File: 50 * MEGABYTE},
)
# In a call's arguments: quotes, brackets, and what a backslash takes the meaning of.
_MARKS = re.compile(r'\\.?|["{}\[\]]', re.S)
# The wire's words for sounds; OpenAI's own servers take the first two.
_AUDIO_FORMATS = {
    "audio/wav": "wav",
    "audio/mpeg": "mp3",
    "audio/aac": "aac",
    "audio/aiff": "aiff",
    "audio/flac": "flac",
    "audio/mp4": "m4a",
    "audio/ogg": "ogg",
}
_AUDIO_TYPES = {word: media_type for media_type, word in _AUDIO_FORMATS.items()}
# Spaces as models have mostly seen them; where any are allowed, a small model may go on with nothing else.
_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_AUDIO_ALIASES = {"audio/x-wav": "audio/wav", "audio/mp3": "audio/mpeg"}


@dataclass(frozen=True)
class OpenAIChat:
    """The dialect with the quirks of one kind of server.

    Attributes:
        limit: the wire's name for max_tokens.
        parameters: the verdict on each portable parameter.
        ranges: what its numbers may be.
        thinking: how thinking is asked for: "effort" (reasoning_effort), "reasoning" (OpenRouter's object), "toggle"
            (`thinking: {"type": ...}`), "switch" (`enable_thinking`, `thinking_budget`), "template" (a switch of the
            chat template), None (no way known).
        efforts: which words for that its models know: of an effort, or beside a toggle; None is OpenAI's of an effort.
        no_thinking: what is sent for thinking=False where efforts are asked for; None if there is no word for it.
        forced_thinking: whether its models can think where a tool is forced.
        thinking_unless_asked: what to send where the caller says nothing; None sends nothing.
        replay_thinking: whether the server wants its own thinking back in the history.
        schema: whether `response_format` knows JSON schemas or only "some JSON"; "llguidance" is llama.cpp's `grammar`,
            "json_object.schema" a schema beside "some JSON". None if it is passed over.
        subset: what it takes of the schema of an answer.
        tool_subset: what it takes of a tool's.
        tool_choice: which choices of tools are read: "all", a tool's "name", or None is.
        says_null: whether the content of an assistant's message without text is null, and not an empty text.
        media: what the server takes of images, sounds and files.
        caching: how it is told that a prompt is worth keeping.
        prefill: how its models are given the beginning of an answer to go on with; None if they take none.
    """

    limit: Literal["max_tokens", "max_completion_tokens"] = "max_completion_tokens"
    parameters: Verdicts = field(default_factory=lambda: OPENAI_PARAMETERS)
    ranges: Ranges = field(default_factory=lambda: OPENAI_RANGES)
    thinking: Literal["effort", "reasoning", "toggle", "switch", "template"] | None = "effort"
    efforts: Efforts | None = None
    no_thinking: Mapping[str, Any] | None = None
    forced_thinking: bool = True
    thinking_unless_asked: bool | None = None
    replay_thinking: bool = True
    schema: Literal["json_schema", "json_object", "json_object.schema", "llguidance"] | None = "json_schema"
    subset: Subset = OPENAI_STRICT
    tool_subset: Subset = ANY_OBJECT
    tool_choice: Literal["all", "name"] | None = "all"
    says_null: bool = True
    media: MediaRules = MEDIA
    caching: Caching = BY_THEMSELVES
    prefill: Prefill | None = None

    name = NAME

    def verdicts(self) -> Verdicts:
        """The verdict on every portable parameter."""
        thinking = self.thinking or Unsupported(_NO_WAY_TO_THINK)
        schema = {"schema": "grammar" if self.schema == "llguidance" else f"response_format.{self.schema}"}
        if self.schema is None:
            schema = {"schema": Unsupported(_NO_SCHEMA)}
        choice = Unsupported(_NO_CHOICE) if self.tool_choice is None else "tool_choice"
        special = {"max_tokens": self.limit, "thinking": thinking, "tool_choice": choice, **schema}
        special["cache"] = self.caching.verdict("cache_control (where the model has it)")
        return {**self.parameters, **special, "extra": "(as given)", "headers": "(as given)"}

    def schema_modes(self, request: Request) -> tuple[SchemaMode, ...]:
        if self.schema is None:
            return ("prompt",)
        if self.schema == "json_object":
            return ("json", "tool", "prompt")
        if self.schema == "llguidance":
            return ("prompt",) if request.tools else ("native", "prompt")
        return ("native", "tool", "prompt")

    def encode_request(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        body, notices = self.encode_body(request)
        headers = (("content-type", "application/json"), *request.headers.items())
        root = self.prefill.root_of(request) if self.prefill is not None else ""
        return HttpRequest("POST", f"{root}/chat/completions", headers, encode_json(body)), notices

    def encode_body(self, request: Request) -> tuple[dict[str, Any], tuple[Notice, ...]]:
        """The JSON body, and what had to be lowered; `request.extra` goes over it as it is.

        Raises:
            UnsupportedError: it holds what the format has no place for.
        """
        check_sent(request, self.ranges, self.parameters)
        encoder = _BodyEncoder(self, request.model)
        return encoder.body(request), tuple(encoder.notices)

    def decode_answer(self, body: bytes) -> list[Delta]:
        try:
            value = decode_json(body)
        except ValueError as error:
            raise ServerError(
                f"the answer is no JSON: {error}", status=200, body=body[:10_000].decode("utf-8", "replace")
            ) from None
        reader = _WireReader(is_whole=True)
        deltas = reader.read(value)
        if not any(is_object(choice) for choice in list_of(mapping_of(value).get("choices"))):
            raise StreamProtocolError("the answer has no choices", body=body[:10_000].decode("utf-8", "replace"))
        deltas.extend(reader.ending_of(deltas))
        return [*deltas, State(None, _leftovers(value, deltas))]

    def decoder(self) -> ChatDecoder:
        return ChatDecoder()

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return provider_error(status, headers, body)

    def decode_request(self, body: bytes) -> Request:
        try:
            value = decode_json(body)
        except ValueError as error:
            raise BadRequestError(f"the body is no JSON: {error}", status=400) from None
        if not is_object(value):
            raise BadRequestError("the body is no JSON object", status=400)
        return _RequestReader(self).read(value)

    def encode_response(self, response: Response[Any]) -> bytes:
        messages, finishes = choices_of(response)
        object_ = _answer_object(messages, finishes, response.usage, response.model)
        return encode_json(_with_leftovers(object_, response.message))

    def encoder(self, request: Request | None = None) -> ChatEncoder:
        unwanted = () if request is None else own_state(request.state, NAME).get("unset", ())
        return ChatEncoder(has_usage="stream_options" not in unwanted)

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        return failure_object(error)

    def canonical_answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Null is the same as absent; nothing else is."""
        canonical: dict[str, Any] = without_nulls(body)
        return canonical

    def canonical_request(self, body: dict[str, Any]) -> dict[str, Any]:
        return _canonical_request(body, self.limit)


class _BodyEncoder:
    def __init__(self, dialect: OpenAIChat, model: str | None = None) -> None:
        self._dialect = dialect
        self.has_marks = model is not None and dialect.caching.marks(model)
        self.notices: list[Notice] = []

    def body(self, request: Request) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        notices: tuple[Notice, ...] = ()
        if self.has_marks:
            # A mark for the whole request is in this format's own words, and is no other marks'.
            if "cache_control" not in own_state(request.state, NAME).get("set", {}):
                request, notices = placed(request, self._dialect.caching)
        else:
            kept, notices = keyed(request, self._dialect.caching)
        self.notices += notices
        body: dict[str, Any] = {"model": request.model, "messages": list(self.messages(request.messages)), **kept}
        if request.stream:
            body["stream"] = True
            body["stream_options"] = {"include_usage": True}
        for parameter, verdict in self._dialect.parameters.items():
            if (value := getattr(request, parameter)) is None:
                continue
            if isinstance(verdict, Unsupported):
                self.notices.append(Notice("unsupported", parameter, f"{parameter} was not sent: {verdict}"))
            else:
                body[verdict] = list(value) if parameter == "stop" else value
        if request.max_tokens is not None:
            body[self._dialect.limit] = request.max_tokens
        if request.tools:
            body["tools"] = [_tool(tool, self._dialect.tool_subset) for tool in request.tools]
            self.notices += told_of_tools(request.tools, NAME, self._dialect.tool_subset)
        if request.tool_choice is not None:
            self._choose(request.tool_choice, body)
        patch = self._own(request.state, "request")
        if request.schema is not None and "response_format" not in patch.get("set", {}):
            self._shape(request.schema, bool(request.thinking), body)
        # What a client of ours has asked for in this format's own words is not translated again.
        if "thinking" not in patch.get("set", {}):
            self._think(request, body)
        body = patched(body, patch)
        body.update(request.extra)
        return body

    def _choose(self, choice: str, body: dict[str, Any]) -> None:
        is_name = choice not in ("auto", "none", "required")
        if self._dialect.tool_choice == "all" or (self._dialect.tool_choice == "name" and is_name):
            body["tool_choice"] = _tool_choice(choice)
        elif choice == "none":
            if body.pop("tools", None) is not None:
                text = "this server reads no such tool_choice: the tools were left out"
                self.notices.append(Notice("emulated", "tool_choice", text))
        elif choice != "auto":
            self.notices.append(Notice("unsupported", "tool_choice", f"tool_choice was not sent: {_NO_CHOICE}"))

    def _shape(self, wanted: OutputSchema, is_thinking: bool, body: dict[str, Any]) -> None:
        if self._dialect.schema == "json_object":
            if wanted.mode not in ("native", "json"):
                return
            if wanted.mode == "native":
                text = "this server only promises some JSON; the answer is checked afterwards"
                self.notices.append(Notice("emulated", "schema", text))
            body["response_format"] = {"type": "json_object"}
            return
        if wanted.mode != "native":
            return
        if self._dialect.schema is None:
            self.notices.append(Notice("unsupported", "schema", f"schema was not sent: {_NO_SCHEMA}"))
            return
        # A grammar of one's own holds from the first token on, and so leaves no room for thinking.
        is_grammar = self._dialect.schema == "llguidance" and not is_thinking
        subset = LLAMA_CPP if self._dialect.schema == "llguidance" and is_thinking else self._dialect.subset
        shape, notices = shape_of(wanted, subset)
        self.notices += notices
        if is_grammar:
            spaced = {**shape.json, "x-guidance": _SPACING}
            body["grammar"] = f"%llguidance {{}}\nstart: %json {encode_json(spaced).decode()}"
            return
        if self._dialect.schema == "json_object.schema":
            body["response_format"] = {"type": "json_object", "schema": shape.json}
            return
        named = {"name": wanted.name, "schema": shape.json, "strict": shape.obstacle is None}
        body["response_format"] = {"type": "json_schema", "json_schema": named}

    def _think(self, request: Request, body: dict[str, Any]) -> None:
        asked = request.thinking if request.thinking is not None else self._dialect.thinking_unless_asked
        if not self._dialect.forced_thinking and body.get("tool_choice") not in (None, "auto", "none"):
            if asked is not False:
                text = "thinking was turned off: this server cannot think where a tool is forced"
                kind: Literal["unsupported", "emulated"] = "emulated" if asked is None else "unsupported"
                self.notices.append(Notice(kind, "thinking", f"{text}; leave tool_choice to 'auto'"))
            asked = False
        if asked is None:
            return
        match self._dialect.thinking:
            case "effort":
                self._think_by_effort(asked, body)
            case "reasoning":
                body["reasoning"] = _reasoning(asked)
            case "toggle":
                self._toggle(asked, body)
            case "switch":
                body["enable_thinking"] = asked is not False
                if isinstance(asked, int) and not isinstance(asked, bool):
                    body["thinking_budget"] = asked
                elif isinstance(asked, str):
                    self._approximate(asked, "this server only turns thinking on or off, or takes a number of tokens")
            case "template":
                body["chat_template_kwargs"] = {"enable_thinking": asked is not False}
                self._approximate(asked, "a chat template only turns thinking on or off")
            case None:
                message = f"thinking was not sent: {_NO_WAY_TO_THINK}"
                self.notices.append(Notice("unsupported", "thinking", message))

    def _think_by_effort(self, asked: bool | int | str, body: dict[str, Any]) -> None:
        efforts = OPENAI if self._dialect.efforts is None else self._dialect.efforts
        off = self._dialect.no_thinking
        if asked is False and off is not None and family_of(body["model"], efforts).thinks is None:
            body.update(off)
            return
        word, notice = effort_of(asked, body["model"], efforts)
        if word is not None:
            body["reasoning_effort"] = word
        if notice is not None:
            self.notices.append(notice)

    def _toggle(self, asked: bool | int | str, body: dict[str, Any]) -> None:
        family = family_of(body["model"], self._dialect.efforts or ())
        is_stuck = asked is False and family.thinks == "always"
        if not is_stuck:
            body["thinking"] = {"type": "disabled" if asked is False else "enabled"}
        if self._dialect.efforts and family.words and (is_stuck or not isinstance(asked, bool)):
            self._think_by_effort(asked, body)
        else:
            self._approximate(asked, "this server only turns thinking on or off")

    def _approximate(self, asked: bool | int | str, how: str) -> None:
        if not isinstance(asked, bool):
            self.notices.append(Notice("emulated", "thinking", f"thinking={asked!r} was approximated: {how}"))

    def messages(self, messages: Iterable[Message]) -> Iterable[dict[str, Any]]:
        for message in messages:
            if message.role == "tool":
                yield from (self._tool_result(part) for part in message.parts if isinstance(part, ToolResult))
            elif not _is_empty(encoded := self.message(message)) or _has_text(message):
                # Of an assistant's message whose parts all had to be left out, nothing is left that servers take.
                yield encoded

    def message(self, message: Message) -> dict[str, Any]:
        """A message that is no tool's."""
        if message.role == "assistant":
            return patched(self._assistant(message), self._own(message.state, "message"))
        content = self._content(message.parts, message.role)
        name = {"name": message.name} if message.name else {}
        return patched({"role": message.role, "content": content, **name}, self._own(message.state, "message"))

    def _content(self, parts: Iterable[Part], role: str) -> str | list[dict[str, Any]]:
        encoded = [patched(self.block(part, role), self._own(part.state, "part")) for part in parts]
        if len(encoded) == 1 and encoded[0].keys() == {"type", "text"}:
            return str(encoded[0]["text"])
        return encoded

    def _own(self, state: ProviderState | None, what: str) -> dict[str, Any]:
        """What the wire said beyond our words; someone else's is left out, and said to be."""
        if state is not None and state.dialect != NAME and "set" in mapping_of(state.value):
            names = ", ".join(mapping_of(state.value["set"]))
            message = f"what only {state.dialect} knows was left out of a {what}: {names}"
            self.notices.append(Notice("dropped", what, message))
        return own_state(state, NAME)

    def block(self, part: Part, role: str = "user") -> dict[str, Any]:
        block = self._bare_block(part, role)
        return {**block, "cache_control": control_of(part.cache)} if part.cache and self.has_marks else block

    def _bare_block(self, part: Part, role: str) -> dict[str, Any]:
        match part:
            case ServerItem() if part.state is not None and part.state.dialect == NAME:
                return {"type": part.kind}
            case TextPart():
                return {"type": "text", "text": part.text}
            case Value():
                return {"type": "text", "text": encode_json(part.value).decode()}
            case Image():
                image = {"url": _address(part, "image/png")}
                return {"type": "image_url", "image_url": {**image, **({"detail": part.detail} if part.detail else {})}}
            case Audio(data=bytes() as data):
                media_type = part.media_type or "audio/wav"
                kind = _AUDIO_FORMATS.get(_AUDIO_ALIASES.get(media_type, media_type))
                if kind is None:
                    raise UnsupportedError(f"chat completions has no word for audio of the type {media_type}")
                return {"type": "input_audio", "input_audio": {"data": b64encode(data).decode(), "format": kind}}
            case File(id=str() as file_id):
                return {"type": "file", "file": {"file_id": file_id}}
            case File(data=bytes()) | File(url=str()) if is_film(part):
                return {"type": "video_url", "video_url": {"url": _address(part, "video/mp4")}}
            case File(data=bytes()) | File(url=str()):
                address = _address(part, "application/pdf")
                return {"type": "file", "file": {"filename": file_name(part), "file_data": address}}
            case _:
                raise no_place(part, role)

    def _assistant(self, message: Message) -> dict[str, Any]:
        encoded: dict[str, Any] = {"role": "assistant", "content": None if self._dialect.says_null else ""}
        texts = [part for part in message.parts if isinstance(part, TextPart)]
        if self.has_marks and any(part.cache for part in texts):
            encoded["content"] = [self.block(part) for part in texts]
        elif texts:
            encoded["content"] = "".join([part.text for part in texts])
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
        if encoded["content"] is None and "tool_calls" not in encoded and not encoded.keys().isdisjoint(_REASONING):
            # Servers that take thinking back take no null beside it, unless there are calls.
            encoded["content"] = ""
        return encoded

    def _replay_thinking(self, part: Thinking, encoded: dict[str, Any]) -> None:
        if part.state is None or part.state.dialect != NAME or not self._dialect.replay_thinking:
            self._drop(part, "only the server that made it can use it")
            return
        field = mapping_of(part.state.value).get("field", _THINKING_FIELDS[0])
        if part.text and field in _THINKING_FIELDS:
            encoded[field] = encoded.get(field, "") + part.text
        if part.notes:
            encoded["reasoning_details"] = [*encoded.get("reasoning_details", ()), *_merged_details(part.notes)]

    def _drop(self, part: Part, reason: str) -> None:
        kind = type(part).__name__
        self.notices.append(Notice("dropped", kind, f"a {kind} part of the history was left out: {reason}"))

    def _tool_result(self, part: ToolResult) -> dict[str, Any]:
        encoded: dict[str, Any] = {"role": "tool", "tool_call_id": part.call_id}
        content = part.content
        if part.cache and content:
            # Here a mark stands within a result, and not beside it.
            content = (*content[:-1], msgspec.structs.replace(content[-1], cache=part.cache))
        encoded["content"] = self._content(content, "tool") if content else ""
        return patched(encoded, self._own(part.state, "tool result"))


class _RequestReader:
    """Reads a client's request, strictly; keeps what it does not understand on the nearest value."""

    def __init__(self, dialect: OpenAIChat) -> None:
        self._dialect = dialect
        self._encoder = _BodyEncoder(dialect)
        self._names: dict[str | None, str] = {}

    def read(self, body: dict[str, Any]) -> Request:
        wire = _canonical_request(body, self._dialect.limit)
        # Some servers have the model in their address.
        if not isinstance(model := wire.get("model", ""), str):
            raise _refused("model", "a string is wanted")
        if not is_array(wire.get("messages")) or not wire["messages"]:
            raise _refused("messages", "a list of at least one message is wanted")
        self._encoder = _BodyEncoder(self._dialect, model)
        request = Request(
            model=model,
            messages=self._messages(wire["messages"]),
            tools=tuple(
                _read_tool(tool, f"tools[{at}]", self._dialect.tool_subset)
                for at, tool in enumerate(list_of(wire.get("tools")))
            ),
            stream=wire.get("stream") is True,
            schema=_read_schema(wire.get("response_format")),
            **self._options(wire),
        )
        ours = self._encoder.body(request)
        apart = ("messages", "tools")
        patch = difference(
            {name: value for name, value in wire.items() if name not in apart or name not in ours},
            {name: value for name, value in ours.items() if name not in apart},
        )
        return msgspec.structs.replace(request, state=ProviderState(NAME, patch) if patch else None)

    def _options(self, wire: dict[str, Any]) -> dict[str, Any]:
        names = {verdict: name for name, verdict in self._dialect.parameters.items() if verdict in wire}
        options = {name: wire[verdict] for verdict, name in names.items() if not isinstance(verdict, Unsupported)}
        options["max_tokens"] = wire.get(self._dialect.limit)
        marked = mark_of(wire.get("cache_control")) if self._encoder.has_marks else None
        options["cache"] = True if self._dialect.caching.key in wire else marked
        choice = wire.get("tool_choice")
        named = text_of(mapping_of(mapping_of(choice).get("function")).get("name"))
        options["tool_choice"] = choice if choice in ("auto", "none", "required") else named
        if self._dialect.thinking == "effort" and wire.get("reasoning_effort") in get_args(Effort):
            options["thinking"] = wire["reasoning_effort"]
        elif self._dialect.thinking == "toggle":
            toggle, effort = mapping_of(wire.get("thinking")).get("type"), wire.get("reasoning_effort")
            is_known = effort in family_of(str(wire.get("model", "")), self._dialect.efforts or ()).words
            asked = effort if self._dialect.efforts and is_known else True
            options["thinking"] = {"disabled": False, "enabled": asked}.get(str(toggle))
        elif self._dialect.thinking == "switch":
            switch = wire.get("enable_thinking")
            options["thinking"] = wire.get("thinking_budget", switch) if switch is True else switch
        elif self._dialect.thinking == "template":
            options["thinking"] = mapping_of(wire.get("chat_template_kwargs")).get("enable_thinking")
        try:
            msgspec.convert({name: value for name, value in options.items() if value is not None}, Options)
        except (msgspec.ValidationError, UnicodeError) as error:
            what, _, where = str(error).partition(" - at `$.")
            raise _refused(where.rstrip("`"), what) from None
        check_read(options, self._dialect.ranges, {"max_tokens": self._dialect.limit, **self._dialect.parameters})
        if options.get("stop") is not None:
            options["stop"] = tuple(options["stop"])
        return options

    def _messages(self, wire: list[Any]) -> tuple[Message, ...]:
        messages: list[Message] = []
        for at, item in enumerate(wire):
            where = f"messages[{at}]"
            if not is_object(item):
                raise _refused(where, "an object is wanted")
            if item.get("role") in ("tool", "function"):
                result = self._tool_result(item, where)
                # The results of one round are one message of ours.
                if messages and messages[-1].role == "tool":
                    messages[-1] = msgspec.structs.replace(messages[-1], parts=(*messages[-1].parts, result))
                else:
                    messages.append(Message("tool", (result,)))
            else:
                messages.append(self._message(item, where))
        return tuple(messages)

    def _message(self, wire: dict[str, Any], where: str) -> Message:
        role = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}.get(
            str(wire.get("role"))
        )
        if role is None:
            raise _refused(f"{where}.role", f"there is no role {wire.get('role')!r}")
        content = self._parts(wire.get("content"), f"{where}.content")
        if role == "assistant":
            parts = (*self._thinking(wire), *content, *self._refusal(wire), *self._calls(wire, where))
            if _is_empty(wire) and wire.get("content") != "":
                raise _refused(f"{where}.content", "a text, a list of parts, or a call is wanted")
            message = Message("assistant", parts)
        else:
            if "content" not in wire:
                raise _refused(f"{where}.content", "a text or a list of parts is wanted")
            message = Message(cast("Role", role), content, name=text_of(wire.get("name")))
        patch = difference(wire, self._encoder.message(message))
        return msgspec.structs.replace(message, state=ProviderState(NAME, patch)) if patch else message

    def _parts(self, content: Any, where: str) -> tuple[Part, ...]:
        if content is None:
            return ()
        if isinstance(content, str):
            return (TextPart(text=content),)
        if not is_array(content):
            raise _refused(where, "a text or a list of parts is wanted")
        return tuple(self._part(block, f"{where}[{at}]") for at, block in enumerate(content))

    def _part(self, block: Any, where: str) -> Part:
        if not is_object(block) or not isinstance(block.get("type"), str):
            raise _refused(f"{where}.type", "a part with a type is wanted")
        part = _read_block(block, where)
        if self._encoder.has_marks and not isinstance(part, ServerItem):
            part = msgspec.structs.replace(part, cache=mark_of(block.get("cache_control")))
        patch = difference(block, self._encoder.block(part))
        return msgspec.structs.replace(part, state=ProviderState(NAME, patch)) if patch else part

    def _thinking(self, wire: dict[str, Any]) -> Iterable[Part]:
        notes = tuple(list_of(wire.get("reasoning_details")))
        for name in _THINKING_FIELDS:
            if isinstance(wire.get(name), str):
                yield Thinking(text=wire[name], notes=notes, state=ProviderState(NAME, {"field": name}))
                return
        if notes:
            yield Thinking(text="", notes=notes, state=ProviderState(NAME, {"field": _THINKING_FIELDS[1]}))

    def _refusal(self, wire: dict[str, Any]) -> Iterable[Part]:
        if isinstance(wire.get("refusal"), str):
            yield Refusal(text=wire["refusal"])

    def _calls(self, wire: dict[str, Any], where: str) -> Iterable[Part]:
        for at, call in enumerate(list_of(wire.get("tool_calls"))):
            function = mapping_of(mapping_of(call).get("function")) or mapping_of(mapping_of(call).get("custom"))
            name = text_of(function.get("name"))
            if name is None:
                raise _refused(f"{where}.tool_calls[{at}].function.name", "the name of a tool is wanted")
            arguments = function.get("arguments", function.get("input"))
            text = arguments if isinstance(arguments, str) else encode_json(arguments or {}).decode()
            if (call_id := text_of(call.get("id"))) is None:
                raise _refused(f"{where}.tool_calls[{at}].id", "the id of a call is wanted")
            part = ToolCall(name=name, input=text, id=call_id)
            self._names[part.id] = name
            patch = difference(call, _call(part))
            yield msgspec.structs.replace(part, state=ProviderState(NAME, patch)) if patch else part

    def _tool_result(self, wire: dict[str, Any], where: str) -> ToolResult:
        call_id = text_of(wire.get("tool_call_id"))
        if call_id is None and wire["role"] == "tool":
            raise _refused(f"{where}.tool_call_id", "the id of a call is wanted")
        name = self._names.get(call_id) or text_of(wire.get("name")) or ""
        content = self._parts(wire.get("content"), f"{where}.content")
        result = ToolResult(call_id=call_id, name=name, content=cast("tuple[TextPart, ...]", content))
        (ours,) = self._encoder.messages((Message("tool", (result,)),))
        patch = difference(wire, ours)
        return msgspec.structs.replace(result, state=ProviderState(NAME, patch)) if patch else result


def _is_empty(message: Mapping[str, Any]) -> bool:
    """Whether this is an assistant's message that says nothing, also in no field of its server's own."""
    said = {name for name, value in message.items() if value is not None and name not in ("role", "name", "content")}
    return message.get("role") == "assistant" and not said and not message.get("content")


def _has_text(message: Message) -> bool:
    return any(isinstance(part, TextPart) for part in message.parts)


def _refused(where: str, what: str) -> BadRequestError:
    return BadRequestError(f"{where}: {what}", status=400, code="invalid_request_error")


def _read_tool(wire: Any, where: str, subset: Subset) -> ToolSpec:
    function = mapping_of(mapping_of(wire).get("function"))
    if not is_object(wire) or (wire.get("type", "function") == "function" and not text_of(function.get("name"))):
        raise _refused(f"{where}.function.name", "a tool with a name is wanted")
    if not function:
        # A tool that the provider runs, or a custom one: kept whole, as it has no schema that we know.
        name = text_of(mapping_of(wire.get("custom")).get("name")) or str(wire.get("type"))
        return ToolSpec(name, state=ProviderState(NAME, {"set": wire, "unset": ["function"]}))
    parameters = function.get("parameters")
    description = text_of(function.get("description")) or ""
    tool = ToolSpec(function["name"], description, parameters if is_object(parameters) else {})
    patch = difference(function, _tool(tool, subset)["function"])
    return msgspec.structs.replace(tool, state=ProviderState(NAME, patch)) if patch else tool


def _read_schema(wire: Any) -> OutputSchema | None:
    named = mapping_of(mapping_of(wire).get("json_schema"))
    schema = named.get("schema")
    return OutputSchema(text_of(named.get("name")) or "answer", schema) if is_object(schema) else None


def _read_block(block: dict[str, Any], where: str) -> Part:
    match block["type"]:
        case "text" if isinstance(block.get("text"), str):
            return TextPart(text=block["text"])
        case "refusal" if isinstance(block.get("refusal"), str):
            return ServerItem(kind="refusal", state=ProviderState(NAME, {}))
        case "image_url" if isinstance(url := mapping_of(block.get("image_url")).get("url"), str):
            detail = text_of(block["image_url"].get("detail"))
            kind, data = _read_data_url(url)
            return Image(data=data, media_type=kind, detail=detail) if data else Image(url=url, detail=detail)
        case "video_url" if isinstance(url := mapping_of(block.get("video_url")).get("url"), str):
            kind, data = _read_data_url(url)
            # What is no film by its own account is kept as it is said.
            if (kind or "video/").startswith("video/"):
                return File(data=data, media_type=kind) if data else File(url=url, media_type=film_type(url))
        case "input_audio" if isinstance(data := mapping_of(block.get("input_audio")).get("data"), str):
            kind = _AUDIO_TYPES.get(str(block["input_audio"].get("format")))
            if kind is not None and (decoded := _from_base64(data)) is not None:
                return Audio(data=decoded, media_type=kind)
        case "file" if is_object(file := block.get("file")):
            return _read_file(file) or ServerItem(kind="file", state=ProviderState(NAME, {}))
        case "text" | "image_url":
            raise _refused(where, f"a {block['type']} part without its {block['type']}")
        case _:
            pass
    return ServerItem(kind=block["type"], state=ProviderState(NAME, {}))


def _read_file(file: dict[str, Any]) -> Part | None:
    if file_id := text_of(file.get("file_id")):
        return File(id=file_id)
    address, name = text_of(file.get("file_data")), text_of(file.get("filename"))
    if address is None:
        return None
    kind, data = _read_data_url(address)
    return File(data=data, media_type=kind, name=name) if data else File(url=address, name=name)


def _read_data_url(url: str) -> tuple[str | None, bytes | None]:
    """The type and bytes of a plain base64 data URL; nothing for one that could not be written back the same."""
    if (found := re.fullmatch(r"data:([\w.+-]+/[\w.+-]+);base64,([A-Za-z0-9+/=]+)", url)) is None:
        return None, None
    return found[1], _from_base64(found[2])


def _from_base64(text: str) -> bytes | None:
    try:
        data = b64decode(text, validate=True)
    except ValueError:
        return None
    return data if b64encode(data).decode() == text else None


# The equivalences of requests. Everything else is kept as it is said.
#   absent = null
#   one plain text block = its text
#   max_tokens = max_completion_tokens, where only one is there: servers know one or the other
#   a stop string = a list of it
#   stream: false = absent
#   arguments given as an object = their JSON text is no equivalence: the object is kept


def _canonical_request(body: dict[str, Any], limit: str) -> dict[str, Any]:
    wire: dict[str, Any] = without_nulls(body)
    limits = [name for name in ("max_tokens", "max_completion_tokens") if name in wire]
    if len(limits) == 1:
        wire[limit] = wire.pop(limits[0])
    if isinstance(wire.get("stop"), str):
        wire["stop"] = [wire["stop"]]
    if wire.get("stream") is False:
        del wire["stream"]
    if is_array(messages := wire.get("messages")):
        wire["messages"] = [_canonical_message(message) for message in messages]
    return wire


def _canonical_message(message: Any) -> Any:
    if not is_object(message) or not is_array(content := message.get("content")):
        return message
    if len(content) == 1 and is_object(content[0]) and content[0].keys() == {"type", "text"}:
        return {**message, "content": content[0]["text"]}
    return message


def _answer_object(
    messages: Sequence[Message], finishes: Sequence[FinishReason], usage: Usage, model: str | None
) -> dict[str, Any]:
    """What we understand of an answer, as its wire object."""
    answer: dict[str, Any] = {"object": "chat.completion", "model": model, "choices": []}
    if messages[0].id is not None:
        answer["id"] = messages[0].id
    for number, message in enumerate(messages):
        choice: dict[str, Any] = {"index": number, "message": _answer_message(message)}
        if (reason := _WIRE_FINISH.get(finishes[number])) is not None:
            choice["finish_reason"] = reason
        logprobs = [note["logprob"] for note in _notes(message) if "logprob" in mapping_of(note)]
        if logprobs:
            choice["logprobs"] = {"content": logprobs}
        answer["choices"].append(choice)
    if usage != Usage():
        answer["usage"] = usage_object(usage)
    return answer


def _answer_message(message: Message) -> dict[str, Any]:
    encoded: dict[str, Any] = {"role": "assistant"}
    texts = [part.text for part in message.parts if isinstance(part, TextPart)]
    if texts:
        encoded["content"] = "".join(texts)
    annotations = [note for note in _notes(message) if "logprob" not in mapping_of(note)]
    if annotations:
        encoded["annotations"] = annotations
    calls: list[dict[str, Any]] = []
    for part in message.parts:
        match part:
            case Thinking():
                _add_thinking(part, encoded)
            case Refusal():
                encoded["refusal"] = part.text
            case ToolCall() if own_state(part.state, NAME).get("form") == "function_call":
                encoded["function_call"] = {"name": part.name, "arguments": part.input}
            case ToolCall():
                calls.append(_call(part))
            case Audio():
                encoded["audio"] = _answer_audio(part)
            case Image() | File() | Value() | ToolResult():
                raise _no_place(type(part).__name__)
            case TextPart() | ServerItem():
                # An item that another provider made is nothing here.
                pass
    if calls:
        encoded["tool_calls"] = calls
    return encoded


def _no_place(kind: str) -> UnsupportedError:
    return UnsupportedError(f"this API's answers have no place for what the model made: {kind.lower()}")


def _answer_audio(part: Audio) -> dict[str, Any]:
    state = own_state(part.state, NAME)
    audio = {"id": part.id, "transcript": part.transcript, "expires_at": state.get("expires_at")}
    data = b64encode(part.data).decode() if part.data else None
    return {name: value for name, value in {**audio, "data": data}.items() if value is not None}


def _add_thinking(part: Thinking, encoded: dict[str, Any]) -> None:
    field = own_state(part.state, NAME).get("field", _THINKING_FIELDS[0])
    if part.text and field in _THINKING_FIELDS:
        encoded[field] = encoded.get(field, "") + part.text
    if part.notes:
        encoded["reasoning_details"] = [*encoded.get("reasoning_details", ()), *_merged_details(part.notes)]


def _notes(message: Message) -> list[Any]:
    return [note for part in message.parts if isinstance(part, TextPart) for note in part.notes]


def _leftovers(value: dict[str, Any], deltas: Iterable[Delta]) -> dict[str, Any]:
    """What a whole answer says beyond what its deltas sum to, by the place where it says it."""
    sum_ = Assembler(NAME)
    for delta in deltas:
        sum_.add(delta)
    messages = sum_.choices
    ours = _answer_object(messages, sum_.finish_reasons, sum_.usage, sum_.model)
    found: dict[str, Any] = {}
    theirs = {name: item for name, item in value.items() if name not in ("choices", "usage")}
    found["answer"] = difference(
        theirs, {name: item for name, item in ours.items() if name not in ("choices", "usage")}
    )
    found["usage"] = difference(mapping_of(value.get("usage")), ours.get("usage", {}))
    choices = list_of(value.get("choices"))
    if len(choices) != len(messages) or not all(is_object(choice) for choice in choices):
        found["answer"] = {"set": {**found["answer"].get("set", {}), "choices": choices}}
    else:
        for number, (choice, mine) in enumerate(zip(choices, ours["choices"], strict=True)):
            message = mine.pop("message")
            found[f"choices.{number}"] = difference({**choice, "message": None}, mine)
            found[f"choices.{number}.message"] = difference(mapping_of(choice.get("message")), message)
    return {place: patch for place, patch in found.items() if patch or place in sum_.state}


def _with_leftovers(answer: dict[str, Any], message: Message) -> dict[str, Any]:
    """The wire object with what else its maker said."""
    state = own_state(message.state, NAME)
    for number, choice in enumerate(answer["choices"]):
        said = patched(choice["message"], state.get(f"choices.{number}.message", {}))
        # What this format has no word for (an answer that was cancelled, or paused) is not told to be an end.
        ended = {"finish_reason": None, **patched(choice, state.get(f"choices.{number}", {}))}
        answer["choices"][number] = {**ended, "message": said}
    if usage := patched(answer.get("usage", {}), state.get("usage", {})):
        answer["usage"] = usage
    return patched(answer, state.get("answer", {}))


class ChatEncoder:
    """Turns the deltas of one answer into a stream of server-sent events."""

    def __init__(self, *, has_usage: bool = True) -> None:
        self._has_usage = has_usage
        self._common: dict[str, Any] = {"object": "chat.completion.chunk"}
        self._openings: list[Open] = []
        self._fields: dict[int, str] = {}
        self._calls: dict[int, int] = {}
        self._usage: Usage | None = None
        self._leftovers: dict[str, Any] = {}
        self._has_begun: set[int] = set()
        self._said: dict[str, Any] = {}
        self._details: dict[int, list[Any]] = {}

    def feed(self, delta: Delta) -> bytes:
        match delta:
            case Head():
                known = {"id": delta.id, "model": delta.model}
                self._common.update({name: value for name, value in known.items() if value is not None})
                return b""
            case Open():
                return self._open(delta)
            case Text():
                return self._text(delta)
            case Blob():
                return self._chunk(delta.part, {"audio": {"data": b64encode(delta.data).decode()}})
            case Note():
                return self._note(delta)
            case State():
                return self._state(delta)
            case Count():
                self._usage = delta.usage if self._usage is None else self._usage.updated(delta.usage)
                return b""
            case Finish():
                place = self._leftovers.get(f"choices.{delta.choice}", {})
                choice: dict[str, Any] = {"index": delta.choice, "delta": {}}
                self._has_begun.add(delta.choice)
                choice["finish_reason"] = _WIRE_FINISH.get(delta.reason)
                return self._event({"choices": [patched(choice, place)]})
            case Close():
                details = self._details.pop(delta.part, None)
                return self._chunk(delta.part, {"reasoning_details": details}) if details else b""
            case Event():
                return b""

    def fail(self, error: SabirError) -> bytes:
        return b"data: " + failure_object(error, in_stream=True)[1] + b"\n\n"

    def close(self) -> bytes:
        # An answer of nothing is one all the same; a stream without any is none.
        end = b"" if self._has_begun else self._event({"choices": [{"index": 0, "delta": {"role": "assistant"}}]})
        if self._usage is not None and self._has_usage:
            usage = patched(usage_object(self._usage), self._leftovers.get("usage", {}))
            end += self._event({"choices": [], "usage": usage})
        return end + b"data: [DONE]\n\n"

    def _open(self, delta: Open) -> bytes:
        if delta.kind in ("image", "file"):
            raise _no_place(delta.kind)
        self._openings.append(delta)
        state = delta.state or {}
        self._fields[delta.part] = state.get("field", _THINKING_FIELDS[0])
        if delta.kind == "audio":
            return self._chunk(delta.part, {"audio": {"id": delta.id}})
        if delta.kind != "call":
            return b""
        index = self._calls[delta.part] = sum(
            opening.kind == "call" and opening.choice == delta.choice for opening in self._openings[:-1]
        )
        function = {"name": delta.name, "arguments": ""}
        if state.get("form") == "function_call":
            return self._chunk(delta.part, {"function_call": function})
        call = {"index": index, "id": delta.id, "type": "function", "function": function}
        if state.get("form") == "custom":
            call = {"index": index, "id": delta.id, "type": "custom", "custom": {"name": delta.name, "input": ""}}
        return self._chunk(delta.part, {"tool_calls": [{**call, **state.get("set", {})}]})

    def _text(self, delta: Text) -> bytes:
        opening = self._openings[delta.part]
        match opening.kind:
            case "text":
                return self._chunk(delta.part, {"content": delta.text})
            case "thinking":
                field = self._fields[delta.part]
                said: dict[str, Any] = {field: delta.text} if field in _THINKING_FIELDS else {}
                if details := self._details.pop(delta.part, None):
                    said["reasoning_details"] = details
                return self._chunk(delta.part, said) if said else b""
            case "refusal":
                return self._chunk(delta.part, {"refusal": delta.text})
            case "audio":
                return self._chunk(delta.part, {"audio": {"transcript": delta.text}})
            case "call":
                return self._arguments(opening, delta.text)
            case "image" | "file" | "server":
                return b""

    def _arguments(self, opening: Open, text: str) -> bytes:
        match (opening.state or {}).get("form"):
            case "function_call":
                return self._chunk(opening.part, {"function_call": {"arguments": text}})
            case "custom":
                call: dict[str, Any] = {"custom": {"input": text}}
            case _:
                call = {"function": {"arguments": text}}
        return self._chunk(opening.part, {"tool_calls": [{"index": self._calls[opening.part], **call}]})

    def _note(self, delta: Note) -> bytes:
        opening = self._openings[delta.part]
        if opening.kind == "thinking":
            if not _detail_text(delta.value) and delta.part not in self._details:
                return self._chunk(delta.part, {"reasoning_details": [delta.value]})
            # Details go along with the text they repeat: alone they would be read as more of it.
            self._details.setdefault(delta.part, []).append(delta.value)
            return b""
        if "logprob" not in mapping_of(delta.value):
            return self._chunk(delta.part, {"annotations": [delta.value]})
        logprobs = {"content": [delta.value["logprob"]]}
        return self._event({"choices": [{"index": opening.choice, "delta": {}, "logprobs": logprobs}]})

    def _state(self, delta: State) -> bytes:
        if delta.part is None:
            self._leftovers.update(delta.patch)
            return b"".join(self._leftover(place, mapping_of(patch)) for place, patch in delta.patch.items())
        if "field" in delta.patch:
            self._fields[delta.part] = delta.patch["field"]
        if "expires_at" in delta.patch:
            return self._chunk(delta.part, {"audio": {"expires_at": delta.patch["expires_at"]}})
        if delta.part in self._calls and (delta.id or delta.name):
            call = {"index": self._calls[delta.part], "id": delta.id, "function": {"name": delta.name}}
            return self._chunk(delta.part, {"tool_calls": [call]})
        return b""

    def _leftover(self, place: str, patch: dict[str, Any]) -> bytes:
        said = patch.get("set", {})
        if place == "answer":
            self._common.update({name: value for name, value in said.items() if name in _PER_CHUNK})
            fresh = {
                name: value for name, value in said.items() if name not in _PER_CHUNK and self._said.get(name) != value
            }
            self._said.update(fresh)
            return self._event({"choices": [], **fresh}) if fresh else b""
        if place.endswith(".message"):
            # What we understand of a message is said by its parts; of a whole answer the difference has it once more.
            fresh = {name: value for name, value in said.items() if name not in _IN_MESSAGE}
            return self._event({"choices": [{"index": int(place.split(".")[1]), "delta": fresh}]}) if fresh else b""
        return b""

    def _chunk(self, part: int, delta: dict[str, Any]) -> bytes:
        number = self._openings[part].choice
        if number not in self._has_begun:
            self._has_begun.add(number)
            delta = {"role": "assistant", **delta}
        return self._event({"choices": [{"index": number, "delta": delta, "finish_reason": None}]})

    def _event(self, chunk: dict[str, Any]) -> bytes:
        return b"data: " + encode_json({**self._common, **chunk}) + b"\n\n"


class ChatDecoder:
    """Decodes one streamed answer."""

    def __init__(self) -> None:
        self._stream = EventStream()
        self._reader = _WireReader()
        self._frame = Frame(*_TEXT_PLACES)
        self._failure: SabirError | None = None
        self._done = False

    @property
    def is_over(self) -> bool:
        return self._done or self._failure is not None

    def feed(self, data: bytes) -> list[Delta]:
        deltas: list[Delta] = []
        if self.is_over:
            return deltas
        try:
            for event, payload in self._stream.feed(data):
                if payload == b"[DONE]":
                    self._done = True
                elif not self._done and not payload.isspace() and payload:
                    if event == b"error":
                        raise provider_error(None, {}, payload)
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
        chunk = _chunk(payload)
        fresh = self._reader.read(chunk)
        deltas.extend(fresh)
        self._frame.learn(payload, chunk, fresh)

    def event(self, chunk: dict[str, Any]) -> list[Delta]:
        """Decode one chunk that came without framing, from an engine in this process."""
        return self._reader.read(chunk)

    def close(self) -> list[Delta]:
        if self._failure is not None:
            raise self._failure
        if not self._reader.is_finished and not (self._done and self._reader.has_begun):
            raise StreamInterrupted("the stream ended before the answer did", retryable=True)
        return self._reader.close()


class _Slot:
    """One tool call being streamed."""

    __slots__ = (
        "_depth",
        "_escaped",
        "_has_begun",
        "_in_string",
        "_pieces",
        "_unseen",
        "_whole",
        "id",
        "index",
        "name",
        "part",
    )

    def __init__(self, part: int, index: int | str | None, call_id: str | None, name: str | None) -> None:
        self.part = part
        self.index = index
        self.id = call_id
        self.name = name
        self._pieces: list[str] = []
        # How far the brackets are seen through, so that only what may be whole is ever decoded, and that once.
        self._unseen = 0
        self._depth = 0
        self._in_string = self._escaped = self._has_begun = False
        self._whole: bool | None = None

    def add(self, text: str) -> None:
        """Add to the arguments.

        Raises:
            StreamProtocolError: they are complete, and this begins another call's.
        """
        if text.lstrip().startswith("{") and self.is_complete():
            raise StreamProtocolError(f"more arguments came for the call of {self.name!r}, whose own are complete")
        self._pieces.append(text)

    def is_complete(self) -> bool:
        """Whether the arguments so far are a whole JSON object, so that more of them cannot follow."""
        if self._whole is None:
            for piece in self._pieces[self._unseen :]:
                self._see(piece)
            self._unseen = len(self._pieces)
            if self._has_begun and not self._depth and not self._in_string:
                try:
                    self._whole = is_object(decode_json("".join(self._pieces)))
                except ValueError:
                    self._whole = False
        return self._whole is True

    def _see(self, piece: str) -> None:
        if self._escaped and piece:
            self._escaped, piece = False, piece[1:]
        for mark in _MARKS.findall(piece):
            if mark[0] == "\\":
                self._escaped = len(mark) == 1
            elif mark == '"':
                self._in_string = not self._in_string
            elif not self._in_string:
                self._has_begun = True
                self._depth += 1 if mark in "{[" else -1

    def could_claim(self, call_id: str | None, name: str | None) -> bool:
        """Whether a fragment that says no more than this of its call may be one of this call's."""
        unnamed = call_id is None or self.id is None
        return unnamed and (name is None or self.name in (None, name)) and not self.is_complete()


class _WireReader:
    """Turns chat completion objects, whole or chunks, into deltas; numbers parts as they appear."""

    dialect = NAME

    def __init__(self, is_whole: bool = False) -> None:
        self._is_whole = is_whole
        self._parts = 0
        self._open: dict[tuple[int, str], int] = {}
        self._begun: set[int] = set()
        self._thinking: dict[int, str] = {}
        self._calls: dict[int, list[_Slot]] = {}
        # Those that may be unfinished, by their index; without one, under None.
        self._unfinished: dict[int, dict[int | str | None, list[_Slot]]] = {}
        self._by_index: dict[tuple[int, int | str], _Slot] = {}
        self._by_id: dict[tuple[int, str], _Slot] = {}
        self._halves: dict[int, str] = {}
        self._head: tuple[Any, Any] | None = None
        self._finishes: dict[int, Finish] = {}
        self._refused: set[int] = set()
        self._failure: ProviderError | None = None
        self._leftovers: dict[str, dict[str, Any]] = {}

    @property
    def has_begun(self) -> bool:
        """Whether there is any answer yet."""
        return bool(self._begun)

    @property
    def is_finished(self) -> bool:
        """Whether every answer that began has told its finish reason."""
        return self._failure is not None or (bool(self._finishes) and self._begun <= self._finishes.keys())

    def read(self, value: Any) -> list[Delta]:
        deltas: list[Delta] = []
        self.read_into(value, deltas)
        return deltas

    def read_into(self, value: Any, deltas: list[Delta]) -> None:
        if not is_object(value):
            raise StreamProtocolError(f"a chunk of the answer is no JSON object but a {type(value).__name__}")
        # vLLM's error has no `error` in it: {"object": "error", "message": ..., "code": 400}.
        if value.get("error") or value.get("object") == "error":
            raise error_from_value(None, {}, value, encode_json(value).decode())
        if (value.get("id"), value.get("model")) != self._head:
            self._read_head(value, deltas)
        elif not value.keys() <= _PER_CHUNK:
            self._keep("answer", value, _PER_CHUNK)
        choices = value.get("choices")
        if choices:
            for position, choice in enumerate(list_of(choices)):
                if is_object(choice):
                    self._read_choice(choice, position, deltas)
        elif choices is None and "usage" not in value:
            deltas.append(Event(value))
        if is_object(usage := value.get("usage")):
            counted = usage_from(usage)
            deltas.append(Count(counted))
            if patch := difference(usage, usage_object(counted)):
                self._leftovers["usage"] = patch

    def ending_of(self, whole: Iterable[Delta]) -> list[Delta]:
        """What `close` says of a whole answer, which was read as these deltas; an error has what came of it."""
        try:
            return self.close()
        except ProviderError as error:
            raise broken_off(error, self.dialect, whole) from None

    def close(self) -> list[Delta]:
        """The last deltas.

        Raises:
            ProviderError: an answer says of itself that it was broken off.
        """
        if self._failure is not None:
            raise self._failure
        deltas: list[Delta] = [State(None, self._leftovers)] if self._leftovers else []
        deltas.extend(Text(part, half) for part, half in self._halves.items())
        deltas.extend(Close(part) for part in range(self._parts))
        for choice, finish in self._finishes.items():
            if choice in self._refused and finish.reason == "stop":
                finish = Finish("refusal", choice, finish.raw, finish.detail)
            deltas.append(finish)
        return deltas

    def _read_head(self, value: dict[str, Any], deltas: list[Delta]) -> None:
        skip = _READ_IN_HEAD if self._head is None else _PER_CHUNK
        self._head = (value.get("id"), value.get("model"))
        deltas.append(Head(text_of(value.get("id")), text_of(value.get("model"))))
        self._keep("answer", value, skip)
        if "answer" in self._leftovers:
            deltas.append(State(None, {"answer": {"set": dict(self._leftovers["answer"]["set"])}}))

    def _keep(self, place: str, value: dict[str, Any], known: frozenset[str]) -> None:
        """Keep what a wire object says beyond the fields we know; later chunks replace what earlier ones said."""
        for name, item in value.items():
            if name not in known and item is not None:
                self._leftovers.setdefault(place, {"set": {}})["set"][name] = item

    def _read_choice(self, choice: dict[str, Any], position: int, deltas: list[Delta]) -> None:
        index = count_of(choice.get("index"))
        number = position if index is None else index
        self._begun.add(number)
        # Perplexity sends both, and which one has the text depends on whether this is a chunk.
        message = choice.get("delta")
        if (message is None or self._is_whole) and is_object(message := choice.get("message")):
            # The fields of a whole message stand in any order; what a stream would have sent first comes first.
            message = dict(sorted(message.items(), key=lambda item: _RANK.get(item[0], len(_RANK))))
        if is_object(message):
            self._read_message(number, message, deltas)
        logprobs = mapping_of(choice.get("logprobs"))
        for entry in list_of(logprobs.get("content")):
            deltas.append(Note(self._part(number, "content", "text", deltas), {"logprob": entry}))
        if not choice.keys() <= _IN_CHOICE:
            self._keep(f"choices.{number}", choice, _IN_CHOICE)
        reason = text_of(choice.get("finish_reason"))
        if reason in _FAILED or choice.get("error"):
            self._failure = _failure(choice, reason)
        if reason is not None:
            if _WIRE_FINISH.get(_FINISH.get(reason, "unknown")) != reason:
                self._keep(f"choices.{number}", {"finish_reason": reason}, frozenset())
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
                    if isinstance(value, str):
                        self._think(number, name, value, deltas)
                case "reasoning_details":
                    is_repeated = any(text_of(message.get(field)) for field in _THINKING_FIELDS)
                    self._read_details(number, value, is_repeated, deltas)
                case "refusal":
                    self._refused.add(number)
                    self.add_text(self._part(number, "refusal", "refusal", deltas), str(value), deltas)
                case "tool_calls":
                    for position, call in enumerate(list_of(value)):
                        if is_object(call):
                            self._read_call(number, call, position, len(value), deltas)
                case "function_call":
                    # llama-cpp-python says a call in both ways.
                    if any(mapping_of(value).values()) and not list_of(message.get("tool_calls")):
                        legacy = {"function": mapping_of(value), "index": "function_call"}
                        self._read_call(number, legacy, 0, 1, deltas)
                case "annotations":
                    for note in list_of(value):
                        deltas.append(Note(self._part(number, "content", "text", deltas), note))
                case "audio":
                    if any(mapping_of(value).values()):
                        self._read_audio(number, mapping_of(value), deltas)
                case _:
                    self._keep(f"choices.{number}.message", {name: value}, _IN_MESSAGE)

    def _read_content(self, number: int, value: Any, deltas: list[Delta]) -> None:
        if isinstance(value, str):
            self.add_text(self._part(number, "content", "text", deltas), value, deltas)
            return
        if not is_array(value):
            # Cloudflare answers a wish for JSON with the object itself.
            self.add_text(self._part(number, "content", "text", deltas), encode_json(value).decode(), deltas)
        for block in list_of(value):
            if text := text_of(mapping_of(block).get("text")):
                self.add_text(self._part(number, "content", "text", deltas), text, deltas)
            else:
                deltas.append(Note(self._part(number, "content", "text", deltas), block))

    def _think(self, number: int, field: str, text: str, deltas: list[Delta]) -> None:
        """Add thinking that came in `field`, unless this answer's comes in another one."""
        part = self._part(number, "thinking", "thinking", deltas)
        if number not in self._thinking:
            self._thinking[number] = field
            deltas.append(State(part, {"field": field}))
        if self._thinking[number] == field:
            self.add_text(part, text, deltas)

    def _read_details(self, number: int, value: Any, is_repeated: bool, deltas: list[Delta]) -> None:
        for detail in list_of(value):
            is_first = (number, "thinking") not in self._open
            part = self._part(number, "thinking", "thinking", deltas)
            if is_first:
                # Also what is encrypted, and has no text at all, goes back to its maker.
                deltas.append(State(part, {"field": "reasoning_details"}))
            deltas.append(Note(part, detail))
            # Most servers repeat the text of the details in a field of its own; Snowflake has no such field.
            if not is_repeated and (text := _detail_text(detail)):
                self._think(number, "reasoning_details", text, deltas)

    def _read_audio(self, number: int, audio: dict[str, Any], deltas: list[Delta]) -> None:
        if (number, "audio") not in self._open:
            self._open[number, "audio"] = self._parts
            deltas.append(Open(self._parts, "audio", id=text_of(audio.get("id")), choice=number))
            self._parts += 1
        part = self._open[number, "audio"]
        if transcript := text_of(audio.get("transcript")):
            self.add_text(part, transcript, deltas)
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
    ) -> int:
        part = self._open.get((number, field))
        if part is None:
            part = self._open[number, field] = self._parts
            self._parts += 1
            deltas.append(Open(part, kind, choice=number))
        return part

    def add_text(self, part: int, text: str, deltas: list[Delta]) -> None:
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
        index = call.get("index")
        if not isinstance(index, (int, str)):
            index = position if together > 1 else None
        arguments = function.get("arguments", function.get("input"))
        text = arguments if isinstance(arguments, str) else "" if arguments is None else encode_json(arguments).decode()
        slot = self._slot(number, index, call_id, name, text)
        if slot is None:
            slot = self._open_call(number, index, call_id, name, call, deltas)
        elif (call_id and slot.id is None) or (name and slot.name is None):
            slot.id, slot.name = slot.id or call_id, slot.name or name
            deltas.append(State(slot.part, {}, id=call_id, name=name))
        if slot.id is not None:
            self._by_id.setdefault((number, slot.id), slot)
        if text:
            slot.add(text)
            self.add_text(slot.part, text, deltas)

    def _slot(
        self, number: int, index: int | str | None, call_id: str | None, name: str | None, text: str
    ) -> _Slot | None:
        """The call that a fragment continues, None if it begins one.

        An id decides where there is one, unless two calls were given the same. An index decides next, unless a call at
        that index has another id, or is complete and comes again by name: then the server numbers all its calls alike.
        A fragment with neither continues the last call if it carries no name.

        Raises:
            StreamProtocolError: the fragment could as well be of another unfinished call, or is of none.
        """
        if call_id is not None and (known := self._by_id.get((number, call_id))):
            has_moved = index is not None and known.index not in (None, index)
            if name is None and not (has_moved and (number, index) in self._by_index):
                return known
            if name is not None and known.name in (None, name) and not has_moved:
                return known
        calls = self._calls.get(number, [])
        slot = self._by_index.get((number, index)) if index is not None else (calls[-1] if calls else None)
        if slot is None:
            if name is None and call_id is None and index is None:
                raise StreamProtocolError("a fragment of a tool call belongs to no call")
            return None
        for other in self._rivals(number, index) if len(calls) > 1 else ():
            if other is not slot and other.could_claim(call_id, name):
                raise StreamProtocolError(f"a fragment of a tool call may be of {other.name!r} or of {slot.name!r}")
        if call_id is not None and slot.id not in (None, call_id):
            return None
        if name is not None and slot.name is not None and (name != slot.name or (text.strip() and slot.is_complete())):
            return None
        return slot

    def _rivals(self, number: int, index: int | str | None) -> list[_Slot]:
        """The unfinished calls of a place, and those whose place is not known."""
        places = self._unfinished[number]
        rivals: list[_Slot] = []
        for place in tuple(places) if index is None else (None, index):
            places[place] = [call for call in places.get(place, ()) if not call.is_complete()]
            rivals += places[place]
        return rivals

    def _open_call(
        self,
        number: int,
        index: int | str | None,
        call_id: str | None,
        name: str | None,
        call: dict[str, Any],
        deltas: list[Delta],
    ) -> _Slot:
        slot = _Slot(self._parts, index, call_id, name)
        self._parts += 1
        self._calls.setdefault(number, []).append(slot)
        self._unfinished.setdefault(number, {}).setdefault(index, []).append(slot)
        if index is not None:
            self._by_index[number, index] = slot
        extras = {key: item for key, item in call.items() if key not in _IN_CALL and item is not None}
        state: dict[str, Any] = {"set": extras} if extras else {}
        is_custom = "custom" in call and not mapping_of(call.get("function"))
        if index == "function_call" or is_custom:
            state["form"] = "function_call" if index == "function_call" else "custom"
        deltas.append(Open(slot.part, "call", call_id, name, number, state or None))
        return slot


def _failure(choice: dict[str, Any], reason: str | None) -> ProviderError:
    """Why an answer was broken off, as far as it says."""
    if choice.get("error"):
        return error_from_value(None, {}, {"error": choice["error"]}, encode_json(choice["error"]).decode())
    return ServerError(f"the answer was broken off: the server ended it with {reason!r}", code=reason)


def _merged_details(details: Iterable[Any]) -> Iterator[Any]:
    """The details of a thought, whose fragments a stream sent one by one: those of one index and type are one."""
    whole: dict[str, Any] | None = None
    for detail in details:
        if not is_object(detail) or "index" not in detail:
            if whole is not None:
                yield whole
            whole = None
            yield detail
        elif whole is None or any(whole.get(name) != detail.get(name) for name in ("type", "index")):
            if whole is not None:
                yield whole
            whole = dict(detail)
        else:
            for name, value in detail.items():
                if name in ("text", "summary"):
                    whole[name] = whole.get(name, "") + value
                elif value is not None:
                    whole[name] = value
    if whole is not None:
        yield whole


def _detail_text(detail: Any) -> str | None:
    fields = mapping_of(detail)
    return text_of(fields.get("text")) or text_of(fields.get("summary"))


def usage_from(usage: dict[str, Any]) -> Usage:
    """The disjoint buckets of a usage object.

    `prompt_tokens` includes cached and audio tokens everywhere. `completion_tokens` includes reasoning at OpenAI and
    most others; where the total shows that it does not (or reasoning is larger), reasoning stands beside it.
    """
    details = mapping_of(usage.get("prompt_tokens_details"))
    written = mapping_of(usage.get("completion_tokens_details"))
    prompt, completion = count_of(usage.get("prompt_tokens")), count_of(usage.get("completion_tokens"))
    total = count_of(usage.get("total_tokens"))
    cache_read = _first(
        details.get("cached_tokens"),
        *(usage.get(name) for name in ("prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens")),
    )
    cache_write = _first(details.get("cache_write_tokens"), usage.get("cache_creation_input_tokens"))
    audio_in, audio_out = count_of(details.get("audio_tokens")), count_of(written.get("audio_tokens"))
    reasoning = _first(written.get("reasoning_tokens"), usage.get("reasoning_tokens"))
    beside = bool(reasoning) and (
        (reasoning or 0) > (completion or 0)
        or (total is not None and total == (prompt or 0) + (completion or 0) + (reasoning or 0))
    )
    # Grok on Azure has what was cached beside the prompt: there is more of it than of the prompt.
    cached_beside = (cache_read or 0) > (prompt or 0)
    return Usage(
        input=_less(prompt, None if cached_beside else cache_read, cache_write, audio_in),
        cache_read=cache_read,
        cache_write=cache_write,
        input_audio=audio_in,
        output=_less(completion, audio_out, None if beside else reasoning),
        reasoning=reasoning,
        output_audio=audio_out,
        reported_total=total,
    )


def usage_object(usage: Usage) -> dict[str, Any]:
    """The usage object of these buckets, reasoning within the completion as OpenAI counts it."""
    prompt = {"cached_tokens": usage.cache_read, "audio_tokens": usage.input_audio}
    prompt["cache_write_tokens"] = usage.cache_write
    completion = {"reasoning_tokens": usage.reasoning, "audio_tokens": usage.output_audio}
    details = {"prompt_tokens_details": prompt, "completion_tokens_details": completion}
    total = usage.total_tokens if usage.reported_total is None else usage.reported_total
    counts = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": total,
        **{
            name: {key: count for key, count in counts.items() if count is not None} for name, counts in details.items()
        },
    }
    return {name: count for name, count in counts.items() if count is not None and count != {}}


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


def _tool(tool: ToolSpec, subset: Subset) -> dict[str, Any]:
    patch = own_state(tool.state, NAME)
    if patch.get("unset") == ["function"]:
        return dict(patch["set"])
    function: dict[str, Any] = {"name": tool.name, "parameters": parameters_of(tool, subset)}
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": patched(function, patch)}


def _tool_choice(choice: str) -> Any:
    if choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def _call(call: ToolCall) -> dict[str, Any]:
    if own_state(call.state, NAME).get("form") == "custom":
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": call.input}}
    encoded = {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.input or "{}"}}
    return patched(encoded, own_state(call.state, NAME))


def _reasoning(asked: bool | int | str) -> dict[str, Any]:
    if isinstance(asked, bool):
        return {"enabled": asked}
    return {"effort": asked} if isinstance(asked, str) else {"max_tokens": asked}


def _address(part: Image | File, default: str) -> str:
    if part.url is not None:
        return part.url
    return f"data:{part.media_type or default};base64,{b64encode(part.data or b'').decode()}"
