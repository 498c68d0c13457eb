"""Ollama's own chat format (`/api/chat`), both halves. Knows no provider, only quirks.

Sources: https://docs.ollama.com/api/chat, the types of Ollama's Python SDK (0.6.3), Ollama's issues where named below,
and 19 recorded exchanges. A stream is one JSON object a line; the object with `done: true` ends an answer. A message
has one text, one thinking, images and calls; what a request, tool, message, call or answer says beyond our words is a
patch in its state, so that it can be said again.

Ollama cuts in silence. A prompt that is longer than the context loses its oldest messages, or its middle, and an
answer that outgrows it pushes the prompt out; both are told as a success (https://github.com/ollama/ollama/issues/4967,
.../14259, .../pull/17944). That context is not the model's but the server's: 4096 tokens on most machines, 2048 on
older servers. So two things are sent that nobody asked for, where nobody asks otherwise:

- `truncate: false` and `shift: false`: servers that know them (since 2025-10) refuse a prompt that is too long, which
  is a `ContextOverflowError`, and end an answer that is too long with `length`. Older ones pass over them.
- `options.num_ctx`, if the request may need more than 4096 tokens: one for every two bytes of its JSON (English has
  four to five bytes in a token, code three, Chinese about three, digits one or two), 2048 for an image, and max_tokens
  for the answer, but 2048 at least; so a prompt that nothing is sent for fits an old server's 2048 too. It is a power
  of two, because a server loads its model anew whenever num_ctx changes. Nothing is sent for what needs less, because
  the server's own setting may be larger.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import msgspec

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
from ..errors import (
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
from . import NO_DOCUMENTS, Unsupported, Verdicts, count_of, list_of, mapping_of, response_of, text_of
from .cache_marks import BY_THEMSELVES, keyed
from .call_arguments import arguments_object
from .failures import error_from_value, status_of
from .leftovers import difference, own_state, patched
from .media_rules import MediaRules
from .ndjson import LineStream
from .places import no_place
from .subsets import LLAMA_CPP, OLLAMA_TOOLS, parameters_of, shape_of, told_of_tools
from .surrogates import PairedText

NAME = "ollama"

# The verdict on each portable parameter: the wire's word for it, or why there is none.
PARAMETERS: Verdicts = {
    "temperature": "options.temperature",
    "top_p": "options.top_p",
    "top_k": "options.top_k",
    "min_p": "options.min_p",
    "max_tokens": "options.num_predict",
    "stop": "options.stop",
    "seed": "options.seed",
    "frequency_penalty": "options.frequency_penalty",
    "presence_penalty": "options.presence_penalty",
    "repetition_penalty": "options.repeat_penalty",
    "logprobs": "logprobs",
    "top_logprobs": "top_logprobs",
    "documents": NO_DOCUMENTS,
    "parallel_tool_calls": Unsupported("this API has no such switch; say in the prompt how many calls are wanted"),
    "n": Unsupported("this API gives one answer; ask several times"),
    "user": Unsupported("this API knows no users; leave it out"),
}
_WHOLE_NUMBERS = ("max_tokens", "top_k", "seed", "top_logprobs")

_FINISH: dict[str, FinishReason] = {"stop": "stop", "length": "length", "content_filter": "content_filter"}
# Ollama says "stop" of an answer with calls too, and has no word for a filter.
_DONE_REASON: dict[FinishReason, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "stop",
    "refusal": "stop",
    "content_filter": "content_filter",
}
_EFFORT_BUDGETS = ((2048, "low"), (8192, "medium"))
# What is told of an overflow, apart from llama.cpp's own error, which Ollama puts into the text of its own.

_LEAST_CONTEXT = 4096
_LEAST_ANSWER = 2048
_BYTES_PER_TOKEN = 2
_TOKENS_PER_IMAGE = 2048

_IN_TEXT = frozenset({"role", "content", "thinking"})
# What we understand of a message, if it is of this type.
_IN_MESSAGE: dict[str, type] = {"role": str, "content": str, "thinking": str, "images": list, "tool_calls": list}
# Its images are bytes, whose type it finds out itself.
MEDIA = MediaRules(inlined=(Image,))


@dataclass(frozen=True)
class Ollama:
    """The dialect with the quirks of one kind of server.

    Attributes:
        parameters: the verdict on each portable parameter.
        keeps_whole: whether `truncate` and `shift` are false where the caller says nothing, so that the server cuts
            neither prompt nor context in silence.
        most_context: the largest `num_ctx` that is asked for where the caller asks for none; None: none is.
        media: what the server takes of images.
    """

    parameters: Verdicts = field(default_factory=lambda: PARAMETERS)
    keeps_whole: bool = True
    most_context: int | None = 131_072
    media: MediaRules = MEDIA

    name = NAME

    def verdicts(self) -> Verdicts:
        """The verdict on every portable parameter."""
        special = {"thinking": "think", "schema": "format", "tool_choice": "(none: the tools are left out)"}
        special["cache"] = BY_THEMSELVES.verdict()
        return {**self.parameters, **special, "extra": "(as given, its options among ours)", "headers": "(as given)"}

    def schema_modes(self, request: Request) -> tuple[SchemaMode, ...]:
        # What is held to a format can call no tool.
        return ("prompt",) if request.tools else ("native", "prompt")

    def encode_request(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        encoder = _BodyEncoder(self)
        body = encode_json(encoder.body(request))
        headers = (("content-type", "application/json"), *request.headers.items())
        return HttpRequest("POST", "/api/chat", headers, body), tuple(encoder.notices)

    def decode_answer(self, body: bytes) -> list[Delta]:
        text = body[:10_000].decode("utf-8", "replace")
        try:
            value = decode_json(body)
        except ValueError as error:
            raise ServerError(f"the answer is no JSON: {error}", status=200, body=text) from None
        deltas: list[Delta] = []
        _AnswerReader(is_whole=True).read(value, deltas)
        if not is_object(value.get("message")):
            raise StreamProtocolError("the answer has no message", body=text)
        if value.get("done") is False:
            raise StreamInterrupted("the answer says of itself that it is not done", body=text, retryable=True)
        message = response_of(NAME, deltas).message
        beyond = difference(_canonical_message(value["message"]), _answer_message(message))
        return [*deltas, State(None, {"message": beyond})] if beyond else deltas

    def decoder(self) -> OllamaDecoder:
        return OllamaDecoder()

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
        message = patched(_answer_message(response.message), state.get("message", {}))
        body = {**_answer(response.model, response.finish_reason, response.usage), "message": message}
        if logprobs := [note["logprob"] for part in response.message.parts for note in _logprobs_of(part)]:
            body["logprobs"] = logprobs
        return encode_json(patched(body, state.get("answer", {})))

    def encoder(self, request: Request | None = None) -> OllamaEncoder:
        return OllamaEncoder()

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        code = "context_length_exceeded" if isinstance(error, ContextOverflowError) else error.code
        return status_of(error), encode_json(_present({"error": error.message, "code": code}))

    def canonical_request(self, body: dict[str, Any]) -> dict[str, Any]:
        """What means the same is made the same: see `canonical_answer`; further, in a request

        - no `stream` is `stream: true`, and no messages are an empty list;
        - an empty `format`, no tools and no options are absent, and so are options that are null;
        - a stop string is a list of it.
        """
        wire = {name: value for name, value in _present(body).items() if (name, value) not in _NOTHING}
        if is_object(options := wire.pop("options", {})):
            options = _present(options)
            if isinstance(options.get("stop"), str):
                options["stop"] = [options["stop"]]
        if options != {}:
            wire["options"] = options
        if is_array(tools := wire.get("tools")):
            wire["tools"] = [_canonical_function(tool) for tool in tools]
        messages = wire.get("messages", [])
        if is_array(messages):
            messages = [_canonical_message(message) for message in messages]
        return {"stream": True, **wire, "messages": messages}

    def canonical_answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """What means the same is made the same: null is absent, in the objects that we read (and not deeper, in
        arguments and schemas); a message without content has an empty one; an empty thinking, name or id, and empty
        lists of images and calls, are absent.
        """
        canonical = _present(body)
        if "message" in canonical:
            canonical["message"] = _canonical_message(canonical["message"])
        return canonical


_NOTHING: tuple[tuple[str, Any], ...] = (("format", ""), ("tools", []))
_NOTHING_IN_A_MESSAGE: tuple[tuple[str, Any], ...] = (
    ("thinking", ""),
    ("tool_name", ""),
    ("tool_call_id", ""),
    ("images", []),
    ("tool_calls", []),
)


def _present(object_: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in object_.items() if value is not None}


def _canonical_message(message: Any) -> Any:
    if not is_object(message):
        return message
    canonical = {name: it for name, it in _present(message).items() if (name, it) not in _NOTHING_IN_A_MESSAGE}
    if is_array(calls := canonical.get("tool_calls")):
        canonical["tool_calls"] = [_canonical_function(call) for call in calls]
    return {"content": "", **canonical}


def _canonical_function(holder: Any) -> Any:
    """A tool or a call, whose function is an object in it."""
    if not is_object(holder):
        return holder
    canonical = _present(holder)
    if is_object(function := canonical.get("function")):
        canonical["function"] = _present(function)
    return canonical


def _flat(object_: Mapping[str, Any], field: str) -> dict[str, Any]:
    """An object with the object in one of its fields laid flat: `{"options": {"seed": 1}}` is `{"options.seed": 1}`."""
    if not is_object(inner := object_.get(field)):
        return dict(object_)
    rest = {name: value for name, value in object_.items() if name != field}
    return {**rest, **{f"{field}.{name}": value for name, value in inner.items()}}


def _nested(flat: Mapping[str, Any], field: str) -> dict[str, Any]:
    """What `_flat` was given."""
    prefix = f"{field}."
    inner = {name.removeprefix(prefix): value for name, value in flat.items() if name.startswith(prefix)}
    rest = {name: value for name, value in flat.items() if not name.startswith(prefix)}
    return {**rest, **({field: inner} if inner else {})}


# Tools and calls, for both halves


def _flat_tool(tool: ToolSpec) -> dict[str, Any]:
    described = {"function.description": tool.description} if tool.description else {}
    parameters = parameters_of(tool, OLLAMA_TOOLS) or {"type": "object", "properties": {}}
    return {"type": "function", "function.name": tool.name, **described, "function.parameters": parameters}


def _call(part: ToolCall) -> dict[str, Any]:
    known = {"id": part.id} if part.id is not None and not part.synthetic else {}
    function = {"function.name": part.name, "function.arguments": arguments_object(part.input)}
    return _nested(patched({**known, **function}, own_state(part.state, NAME)), "function")


def _read_call(wire: Any) -> ToolCall:
    function = mapping_of(mapping_of(wire).get("function"))
    if (name := text_of(function.get("name"))) is None:
        raise StreamProtocolError("a tool call came without the name of a tool")
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else "" if arguments is None else encode_json(arguments).decode()
    call = ToolCall(name=name, input=text, id=text_of(wire.get("id")))
    patch = difference(_flat(wire, "function"), _flat(_call(call), "function"))
    return msgspec.structs.replace(call, state=ProviderState(NAME, patch)) if patch else call


def _bytes_of(data: Any) -> bytes:
    try:
        return b64decode(data, validate=True)
    except (TypeError, ValueError):
        raise StreamProtocolError("an image is no base64") from None


# The client's half: requests


class _BodyEncoder:
    def __init__(self, dialect: Ollama) -> None:
        self._dialect = dialect
        self._calls: dict[str | None, ToolCall] = {}
        self.notices: list[Notice] = []

    def body(self, request: Request) -> dict[str, Any]:
        """The JSON body; `request.extra` goes over it as it is, its options over ours one by one."""
        patch = self._own(request.state, "request")
        self.notices += keyed(request, BY_THEMSELVES)[1]
        body: dict[str, Any] = {"model": request.model, "messages": list(self.messages(request.messages))}
        body["stream"] = request.stream
        for parameter, verdict in self._dialect.parameters.items():
            if (value := getattr(request, parameter)) is None:
                continue
            if isinstance(verdict, Unsupported):
                self._refuse(parameter, str(verdict))
            else:
                body[verdict] = list(value) if parameter == "stop" else value
        self._offer_tools(request, body)
        in_its_words = patch.get("set", {})
        if request.schema is not None and request.schema.mode == "native" and "format" not in in_its_words:
            shape, notices = shape_of(request.schema, LLAMA_CPP)
            self.notices += notices
            body["format"] = shape.json
        # What a client of ours has asked for in this format's own words is not translated again.
        if request.thinking is not None and "think" not in in_its_words:
            body["think"] = self._think(request.thinking, request.model)
        if self._dialect.keeps_whole:
            body.update(truncate=False, shift=False)
        body = {**patched(body, patch), **_flat(request.extra, "options")}
        if "options.num_ctx" not in body and "options.num_ctx" not in patch.get("unset", ()):
            self._make_room(body)
        return _nested(body, "options")

    def _offer_tools(self, request: Request, body: dict[str, Any]) -> None:
        choice = request.tool_choice
        if request.tools and choice != "none":
            body["tools"] = [self._tool(tool) for tool in request.tools]
            self.notices += told_of_tools(request.tools, NAME, OLLAMA_TOOLS)
        elif request.tools:
            self._emulate("tool_choice", "this API has no tool_choice: the tools were left out")
        if choice not in (None, "auto", "none"):
            self._refuse("tool_choice", "this API lets the model choose; say in the prompt that a tool must be used")

    def _think(self, asked: bool | int | str, model: str) -> bool | str:
        # https://docs.ollama.com/capabilities/thinking: gpt-oss passes over true and false, and cannot be stopped.
        is_unstoppable = asked is False and "gpt-oss" in model
        if not is_unstoppable and (isinstance(asked, bool) or asked in ("low", "medium", "high")):
            return asked
        effort = "low" if is_unstoppable or asked == "minimal" else "high"
        if isinstance(asked, int) and not is_unstoppable:
            effort = next((name for most, name in _EFFORT_BUDGETS if asked <= most), effort)
        self._emulate("thinking", f"thinking={asked!r} was approximated: sent as think={effort!r}")
        return effort

    def _make_room(self, body: dict[str, Any]) -> None:
        """Ask for a context that the request fits, unless it fits any server's (the reasons are at the top)."""
        most = self._dialect.most_context
        need = _tokens(body) + max(count_of(body.get("options.num_predict")) or 0, _LEAST_ANSWER)
        if most is None or need <= _LEAST_CONTEXT:
            return
        wanted = 1 << (need - 1).bit_length()
        sent = body["options.num_ctx"] = min(wanted, most)
        told = f"num_ctx={sent} was sent, since Ollama may give this request less room than it needs"
        if wanted > most:
            told += ", and so may this: more is not asked for by itself"
        choose = "extra={'options': {'num_ctx': …}}"
        self._emulate("num_ctx", f"{told}; set {choose} to choose it, or to keep it the same for all requests")

    def _tool(self, tool: ToolSpec) -> dict[str, Any]:
        patch = self._own(tool.state, "tool")
        if tool.state is not None and tool.state.dialect != NAME and not tool.description and not tool.parameters:
            raise UnsupportedError(f"the tool {tool.name!r} is run by {tool.state.dialect}, which is not asked here")
        return _nested(patched(_flat_tool(tool), patch), "function")

    def messages(self, messages: Iterable[Message]) -> Iterator[dict[str, Any]]:
        for message in messages:
            if message.name is not None:
                self._drop("name", f"this API has no names of speakers: {message.name!r}")
            if message.role == "tool":
                yield from (self._result(part) for part in message.parts)
            else:
                said = self._said(message.role, message.parts)
                yield patched(said, self._own(message.state, "message"))

    def _said(self, role: Role, parts: Iterable[Part]) -> dict[str, Any]:
        """A message of the wire: its text, then what goes with it."""
        text: list[str] = []
        lists: dict[str, list[Any]] = {"thinking": [], "images": [], "tool_calls": []}
        for part in parts:
            self._own(part.state, "part")
            match part:
                case TextPart() | Refusal() | Value():
                    if isinstance(part, Refusal):
                        self._emulate("Refusal", "a refusal was sent as text")
                    text.append(encode_json(part.value).decode() if isinstance(part, Value) else part.text)
                    if text[-1] and lists["images"]:
                        self._emulate("Image", "an image was moved behind the text of its message")
                case Image():
                    lists["images"].append(self._image(part))
                case Thinking() if part.state is not None and part.state.dialect == NAME:
                    lists["thinking"].append(part.text)
                case ToolCall() if role == "assistant":
                    self._calls[part.id] = part
                    if "INVALID_JSON" in arguments_object(part.input) and "INVALID_JSON" not in part.input:
                        self._emulate("ToolCall", f"arguments of {part.name!r} that are no JSON object were wrapped")
                    lists["tool_calls"].append(_call(part))
                case _ if role == "assistant":
                    kind, is_opaque = type(part).__name__, isinstance(part, (Thinking, ServerItem))
                    reason = "only its maker can use it" if is_opaque else "this API has no place for it"
                    self._drop(kind, f"a {kind} part was left out: {reason}")
                case _:
                    raise no_place(part, role)
        said: dict[str, Any] = {"role": role, "content": "".join(text)}
        if thinking := "".join(lists.pop("thinking")):
            said["thinking"] = thinking
        return {**said, **{name: items for name, items in lists.items() if items}}

    def _image(self, part: Image) -> str:
        if part.detail is not None:
            self._drop("detail", "this API has no detail of images")
        if part.data is None:
            raise UnsupportedError(f"Ollama fetches no images: load {part.url!r} and give its bytes, Image(data=…)")
        return b64encode(part.data).decode()

    def _result(self, part: Part) -> dict[str, Any]:
        if not isinstance(part, ToolResult):
            raise no_place(part, "tool")
        call = self._calls.get(part.call_id)
        name = part.name or (call.name if call is not None else None)
        call_id = None if call is not None and call.synthetic else part.call_id
        named = _present({"tool_name": name, "tool_call_id": call_id})
        return patched({**self._said("tool", part.content), **named}, self._own(part.state, "tool result"))

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


def _tokens(body: Mapping[str, Any]) -> int:
    """More tokens than the prompt of a request is likely to have."""
    messages = [mapping_of(message) for message in list_of(body.get("messages"))]
    images = sum(len(list_of(message.get("images"))) for message in messages)
    texts = [{name: value for name, value in message.items() if name != "images"} for message in messages]
    size = len(encode_json([texts, body.get("tools"), body.get("format")]))
    return size // _BYTES_PER_TOKEN + images * _TOKENS_PER_IMAGE


# The client's half: answers


class OllamaDecoder:
    """Decodes one streamed answer. It ends with the object that is done; what comes after that is no part of it."""

    def __init__(self) -> None:
        self._lines = LineStream()
        self._reader = _AnswerReader()
        self._failure: SabirError | None = None

    @property
    def is_over(self) -> bool:
        return self._reader.is_over or self._failure is not None

    def feed(self, data: bytes) -> list[Delta]:
        deltas: list[Delta] = []
        if self.is_over:
            return deltas
        try:
            for line in self._lines.feed(data):
                self._reader.read(_object(line), deltas)
                if self._reader.is_over:
                    break
        except SabirError as error:
            self._failure = error
            if not deltas:
                raise
        return deltas

    def close(self) -> list[Delta]:
        if self._failure is not None:
            raise self._failure
        deltas: list[Delta] = []
        if not self._reader.is_over:
            # A line without its end was cut, unless it is the answer's last.
            try:
                last = mapping_of(decode_json(self._lines.rest))
            except ValueError:
                last = {}
            if last.get("done") is True or last.get("error"):
                self._reader.read(last, deltas)
        if not self._reader.is_over:
            raise StreamInterrupted("the stream ended before the answer did", retryable=True)
        return deltas


def _object(line: bytes) -> Any:
    try:
        return decode_json(line)
    except ValueError as error:
        text = line[:1000].decode("utf-8", "replace")
        raise StreamProtocolError(f"a line of the stream is no JSON: {error}", body=text) from None


class _AnswerReader:
    """Turns a whole answer, or the pieces of one, into deltas; numbers parts as they appear."""

    def __init__(self, is_whole: bool = False) -> None:
        self._is_whole = is_whole
        self._parts = 0
        self._open: dict[str, int] = {}
        self._texts: dict[int, PairedText] = {}
        self._current: int | None = None
        self._early: list[Any] = []
        self._has_calls = False
        self._model: Any = None
        self._answer: dict[str, Any] = {}
        self._message: dict[str, Any] = {}
        self.is_over = False

    def read(self, value: Any, deltas: list[Delta]) -> None:
        if not is_object(value):
            raise StreamProtocolError(f"a piece of the answer is no JSON object but a {type(value).__name__}")
        message, time, model = value.get("message"), value.get("created_at"), value.get("model")
        is_known = time is not None and model is not None and model == self._model
        if is_known and len(value) == 4 and value.get("done") is False and is_object(message):
            # Of most pieces, these four fields are all.
            self._answer["created_at"] = time
            self._read_message(message, deltas)
            return
        self.is_over = self._is_whole or value.get("done") is True
        if value.get("error"):
            status = value.get("status")
            is_status = type(status) is int and 400 <= status < 600
            raise _failure(status if is_status else None, {}, value, encode_json(value).decode())
        if model != self._model:
            self._model = model
            deltas.append(Head(None, text_of(model)))
        if is_object(message):
            self._read_message(message, deltas)
        elif not self.is_over:
            deltas.append(Event(value))
        self._read_beside(value, deltas)
        if self.is_over:
            self._end(deltas)

    def _read_beside(self, value: dict[str, Any], deltas: list[Delta]) -> None:
        """Read what stands beside a message; of the tokens' probabilities what was just said, or will be."""
        self._early += list_of(value.get("logprobs"))
        read = ("message", "logprobs") if self._early else ("message",)
        self._answer.update({name: it for name, it in value.items() if name not in read and it is not None})
        if self._early and self._current is not None:
            deltas.extend(Note(self._current, {"logprob": logprob}) for logprob in self._early)
            self._early = []

    def _end(self, deltas: list[Delta]) -> None:
        answer = _present({**self._answer, **({"logprobs": self._early} if self._early else {})})
        raw = text_of(answer.get("done_reason"))
        reason = _FINISH.get(raw or "", "unknown")
        usage = _usage(answer)
        deltas.extend(Text(part, text.half) for part, text in self._texts.items() if text.half)
        deltas.extend(map(Close, self._open.values()))
        if usage != Usage():
            deltas.append(Count(usage))
        state = {"answer": difference(answer, _answer(text_of(answer.get("model")), reason, usage))}
        if self._message:
            state["message"] = {"set": self._message}
        deltas.append(State(None, state))
        deltas.append(Finish("tool_calls" if reason == "stop" and self._has_calls else reason, raw=raw))

    def _read_message(self, message: dict[str, Any], deltas: list[Delta]) -> None:
        thinking, content = message.get("thinking"), message.get("content")
        if thinking:
            self._say("thinking", thinking, deltas)
        if content:
            self._say("content", content, deltas)
        has_text_only = len(message) == 2 and content is not None and "role" in message
        if not has_text_only and not message.keys() <= _IN_TEXT:
            self._read_rest(message, deltas)

    def _say(self, name: str, text: Any, deltas: list[Delta]) -> None:
        if not isinstance(text, str):
            self._message[name] = text
            return
        part = self._open.get(name)
        if part is None:
            part = self._open[name] = self._parts
            self._parts += 1
            self._texts[part] = PairedText()
            deltas.append(Open(part, "thinking", state={"field": name}) if name == "thinking" else Open(part, "text"))
        self._current = part
        if told := self._texts[part].more(text):
            deltas.append(Text(part, told))

    def _read_rest(self, message: dict[str, Any], deltas: list[Delta]) -> None:
        for image in list_of(message.get("images")):
            deltas += (Open(self._parts, "image"), Blob(self._parts, _bytes_of(image)), Close(self._parts))
            self._parts += 1
        for wire in list_of(message.get("tool_calls")):
            call = _read_call(wire)
            state = own_state(call.state, NAME) or None
            deltas.append(Open(self._parts, "call", call.id, call.name, state=state))
            if call.input:
                deltas.append(Text(self._parts, call.input))
            deltas.append(Close(self._parts))
            self._parts += 1
            self._has_calls = True
        for name, value in message.items():
            if value is not None and not isinstance(value, _IN_MESSAGE.get(name, ())):
                self._message[name] = value


def _usage(wire: Mapping[str, Any]) -> Usage:
    """The disjoint buckets: what was read includes what was cached, and is not told of by old servers if all was."""
    prompt, cached = count_of(wire.get("prompt_eval_count")), count_of(wire.get("prompt_eval_cached_count"))
    read = None if prompt is None else max(0, prompt - (cached or 0))
    return Usage(input=read, cache_read=cached, output=count_of(wire.get("eval_count")))


def _answer(model: str | None, reason: FinishReason, usage: Usage) -> dict[str, Any]:
    """The fields of an answer that stand beside its message."""
    counts = {
        "prompt_eval_count": usage.input_tokens,
        "prompt_eval_cached_count": usage.cache_read,
        "eval_count": usage.output_tokens,
    }
    return _present({"model": model or None, "done": True, "done_reason": _DONE_REASON.get(reason), **counts})


def _failure(status: int | None, headers: Mapping[str, str], value: Any, text: str) -> ProviderError:
    """The exception for an error, whose text may be another server's error as JSON."""
    told = mapping_of(value)
    try:
        inner = mapping_of(decode_json(told["error"])) if isinstance(told.get("error"), str) else {}
    except ValueError:
        inner = {}
    return error_from_value(status, headers, {**told, **inner} if inner.get("error") else value, text)


# The server's half: requests


def _refused(where: str, what: str) -> BadRequestError:
    return BadRequestError(f"{where}: {what}", status=400, code="invalid_request_error")


class _RequestReader:
    """Reads a client's request, strictly; keeps what it does not understand on the nearest value."""

    def __init__(self, dialect: Ollama) -> None:
        self._dialect = dialect
        self._encoder = _BodyEncoder(dialect)
        self._names: dict[str | None, str] = {}

    def read(self, wire: dict[str, Any]) -> Request:
        if not isinstance(model := wire.get("model"), str):
            raise _refused("model", "a string is wanted")
        if not isinstance(wire["stream"], bool):
            raise _refused("stream", "true or false is wanted")
        for name in ("messages", "tools"):
            if not is_array(wire.get(name, [])):
                raise _refused(name, "a list is wanted")
        if not is_object(wire.get("options", {})):
            raise _refused("options", "an object is wanted")
        if not is_object(format_ := wire.get("format", {})) and format_ != "json":
            raise _refused("format", "'json' or a JSON Schema is wanted")
        request = Request(
            model=model,
            messages=self._messages(wire["messages"]),
            tools=tuple(_read_tool(tool, f"tools[{at}]") for at, tool in enumerate(wire.get("tools", []))),
            schema=_read_schema(format_),
            stream=wire["stream"],
            **self._options(_flat(wire, "options"), wire.get("think")),
        )
        ours = _BodyEncoder(self._dialect).body(request)
        sides = [
            _flat({k: v for k, v in side.items() if k not in ("messages", "tools")}, "options") for side in (wire, ours)
        ]
        patch = difference(*sides)
        return msgspec.structs.replace(request, state=ProviderState(NAME, patch)) if patch else request

    def _options(self, wire: dict[str, Any], think: Any) -> dict[str, Any]:
        words = {name: word for name, word in self._dialect.parameters.items() if word in wire}
        options = {name: wire[word] for name, word in words.items() if not isinstance(word, Unsupported)}
        for name in _WHOLE_NUMBERS:
            if isinstance(number := options.get(name), float) and number.is_integer():
                options[name] = int(number)
        if think is not None:
            if not isinstance(think, (bool, str)):
                raise _refused("think", "true, false or a word is wanted")
            options["thinking"] = think if isinstance(think, bool) or think in get_args(Effort) else True
        try:
            msgspec.convert(options, Options)
        except (msgspec.ValidationError, UnicodeError) as error:
            what, _, where = str(error).partition(" - at `$.")
            name, bracket, rest = where.rstrip("`").partition("[")
            raise _refused(f"{words.get(name, name)}{bracket}{rest}", what) from None
        # Below 0, it says that there is no limit.
        if options.get("max_tokens", 1) < 1:
            del options["max_tokens"]
        return {**options, **({"stop": tuple(options["stop"])} if "stop" in options else {})}

    def _messages(self, wire: Sequence[Any]) -> tuple[Message, ...]:
        messages: list[Message] = []
        for at, item in enumerate(wire):
            message = self._message(item, f"messages[{at}]")
            # The results of one round are one message of ours.
            if message.role == "tool" and messages and messages[-1].role == "tool":
                messages[-1] = msgspec.structs.replace(messages[-1], parts=messages[-1].parts + message.parts)
            else:
                messages.append(message)
        return tuple(messages)

    def _message(self, wire: Any, where: str) -> Message:
        role: Role | None = next((role for role in get_args(Role) if role == mapping_of(wire).get("role")), None)
        if role is None:
            raise _refused(f"{where}.role", f"one of {', '.join(get_args(Role))} is wanted")
        if not isinstance(wire["content"], str):
            raise _refused(f"{where}.content", "a string is wanted")
        for name in ("images", "tool_calls"):
            if not is_array(wire.get(name, [])):
                raise _refused(f"{where}.{name}", "a list is wanted")
        if role == "tool":
            return Message("tool", (self._result(wire, where),))
        message = Message(role, (*self._own_parts(wire, where), *self._content(wire, where), *self._calls(wire, where)))
        (ours,) = self._encoder.messages((message,))
        patch = difference(wire, ours)
        return msgspec.structs.replace(message, state=ProviderState(NAME, patch)) if patch else message

    def _own_parts(self, wire: dict[str, Any], where: str) -> Iterator[Part]:
        if not isinstance(thinking := wire.get("thinking", ""), str):
            raise _refused(f"{where}.thinking", "a string is wanted")
        if thinking:
            yield Thinking(text=thinking, state=ProviderState(NAME, {"field": "thinking"}))

    def _content(self, wire: dict[str, Any], where: str) -> Iterator[TextPart | Image]:
        if wire["content"]:
            yield TextPart(text=wire["content"])
        for at, image in enumerate(wire.get("images", [])):
            try:
                yield Image(data=_bytes_of(image))
            except StreamProtocolError as error:
                raise _refused(f"{where}.images[{at}]", str(error)) from None

    def _calls(self, wire: dict[str, Any], where: str) -> Iterator[ToolCall]:
        for at, call in enumerate(wire.get("tool_calls", []) if wire["role"] == "assistant" else []):
            try:
                part = _read_call(call)
            except StreamProtocolError as error:
                raise _refused(f"{where}.tool_calls[{at}].function.name", str(error)) from None
            self._names[part.id] = part.name
            yield part

    def _result(self, wire: dict[str, Any], where: str) -> ToolResult:
        call_id = text_of(wire.get("tool_call_id"))
        name = text_of(wire.get("tool_name")) or (self._names.get(call_id, "") if call_id else "")
        result = ToolResult(call_id=call_id, name=name, content=tuple(self._content(wire, where)))
        (ours,) = self._encoder.messages((Message("tool", (result,)),))
        patch = difference(wire, ours)
        return msgspec.structs.replace(result, state=ProviderState(NAME, patch)) if patch else result


def _read_tool(tool: Any, where: str) -> ToolSpec:
    function = mapping_of(mapping_of(tool).get("function"))
    if (name := text_of(function.get("name"))) is None:
        raise _refused(f"{where}.function.name", "a tool with a name is wanted")
    spec = ToolSpec(name, text_of(function.get("description")) or "", mapping_of(function.get("parameters")))
    patch = difference(_flat(tool, "function"), _flat_tool(spec))
    return msgspec.structs.replace(spec, state=ProviderState(NAME, patch)) if patch else spec


def _read_schema(format_: Any) -> OutputSchema | None:
    schema = mapping_of(format_)
    return OutputSchema(text_of(schema.get("title")) or "answer", schema) if schema else None


# The server's half: answers


def _answer_message(message: Message) -> dict[str, Any]:
    """What we understand of an answer's message; an item that another provider made is nothing here."""
    text: list[str] = []
    thinking: list[str] = []
    lists: dict[str, list[Any]] = {"images": [], "tool_calls": []}
    for part in message.parts:
        match part:
            case TextPart() | Refusal():
                text.append(part.text)
            case Value():
                text.append(encode_json(part.value).decode())
            case Thinking():
                thinking.append(part.text)
            case ToolCall():
                lists["tool_calls"].append(_call(part))
            case Image(data=bytes() as data):
                lists["images"].append(b64encode(data).decode())
            case ServerItem():
                pass
            case Image() | Audio() | File() | ToolResult():
                raise _no_place(type(part).__name__.lower())
    said: dict[str, Any] = {"role": "assistant", "content": "".join(text)}
    if thought := "".join(thinking):
        said["thinking"] = thought
    return {**said, **{name: items for name, items in lists.items() if items}}


def _logprobs_of(part: Part) -> Iterator[dict[str, Any]]:
    for note in part.notes if isinstance(part, (TextPart, Thinking)) else ():
        if is_object(note) and "logprob" in note:
            yield note


def _no_place(kind: str) -> UnsupportedError:
    return UnsupportedError(f"this API's answers have no place for what the model made: {kind}")


class OllamaEncoder:
    """Encodes the deltas of one answer as a stream. States are taken for this format's own.

    Calls and images are told when they are complete, since this format has no pieces of them.
    """

    def __init__(self) -> None:
        self._model: str | None = None
        self._openings: dict[int, Open] = {}
        self._pieces: dict[int, list[Any]] = {}
        self._state: dict[str, Any] = {}
        self._usage = Usage()
        self._finish: FinishReason = "unknown"

    def feed(self, delta: Delta) -> bytes:
        match delta:
            case Text():
                return self._text(delta)
            case Open(choice=0):
                if delta.kind in ("audio", "file"):
                    raise _no_place(delta.kind)
                self._openings[delta.part] = delta
                if delta.kind in ("call", "image"):
                    self._pieces[delta.part] = []
            case Blob() if delta.part in self._pieces:
                self._pieces[delta.part].append(delta.data)
            case Note() if delta.part in self._openings and is_object(delta.value) and "logprob" in delta.value:
                return self._piece({}, logprobs=[delta.value["logprob"]])
            case State(part=int()) if delta.part in self._openings:
                opening = self._openings[delta.part]
                named = {"id": opening.id or delta.id, "name": opening.name or delta.name}
                state = {**(opening.state or {}), **delta.patch}
                self._openings[delta.part] = msgspec.structs.replace(opening, **named, state=state)
            case Close():
                return self._complete(delta.part)
            case Head():
                self._model = delta.model or self._model
                self._state.update(delta.state or {})
            case State(part=None):
                self._state.update(delta.patch)
            case Count():
                self._usage = self._usage.updated(delta.usage)
            case Finish(choice=0):
                self._finish = delta.reason
            case _:
                pass
        return b""

    def fail(self, error: SabirError) -> bytes:
        status, body = Ollama().encode_error(error)
        return encode_json({**decode_json(body), "status": status}) + b"\n"

    def close(self) -> bytes:
        told = [self._complete(part) for part in list(self._pieces)]
        said = self._state.get("message", {}).get("set", {})
        # What we understand of a message is said by its parts; of a whole answer the difference has it once more.
        rest = {name: it for name, it in said.items() if not isinstance(it, _IN_MESSAGE.get(name, ()))}
        message = {"role": "assistant", "content": "", **rest}
        last = {**_answer(self._model, self._finish, self._usage), "message": message}
        return b"".join([*told, encode_json(patched(last, self._state.get("answer", {}))) + b"\n"])

    def _text(self, delta: Text) -> bytes:
        opening = self._openings.get(delta.part)
        if delta.part in self._pieces:
            self._pieces[delta.part].append(delta.text)
        elif opening is not None and opening.kind in ("text", "refusal"):
            return self._piece({"content": delta.text})
        elif opening is not None and opening.kind == "thinking":
            return self._piece({"thinking": delta.text})
        return b""

    def _complete(self, part: int) -> bytes:
        if (pieces := self._pieces.pop(part, None)) is None:
            return b""
        opening = self._openings[part]
        if opening.kind == "image":
            return self._piece({"images": [b64encode(b"".join(pieces)).decode()]})
        if not opening.name:
            raise StreamProtocolError("a tool call came without the name of a tool")
        state = ProviderState(NAME, opening.state or {})
        call = ToolCall(name=opening.name, input="".join(pieces), id=opening.id, state=state)
        return self._piece({"tool_calls": [_call(call)]})

    def _piece(self, said: dict[str, Any], **beside: Any) -> bytes:
        time = self._state.get("answer", {}).get("set", {}).get("created_at")
        message = {"role": "assistant", "content": "", **said}
        piece = {"model": self._model, "created_at": time, "message": message, "done": False, **beside}
        return encode_json(_present(piece)) + b"\n"
