"""OpenAI's Responses API, both halves. Knows no provider, only quirks.

Sources: https://platform.openai.com/docs/api-reference/responses, the types of OpenAI's Python SDK (3.54, 2026-11) and
294 recorded exchanges of ten servers. What a model says is a list of items. A message or a thought is one item and
several parts of ours: its first part has what the wire says of the item, under `item` in its state, and those that
follow without it belong to the same item. A call is an item and a part. What the provider runs itself stays as it is.

A stream ends with response.completed, .incomplete, .failed or .cancelled, which tell the whole answer once more. So do
the ends of its items and of their parts, and one recorded stream in five contradicts itself. What was streamed stands:
a text told again may go on where the stream left off, and is an error if it differs, as is another kind of item or name
of a tool. All else of an item is volatile (ids, encrypted contents and fingerprints are made anew for each event, and
belong together): it is kept as the item's own end tells it.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import msgspec

from ..deltas import (
    Assembler,
    Close,
    Count,
    Delta,
    Event,
    Finish,
    FinishReason,
    Head,
    Note,
    Open,
    PartKind,
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
from ..usage import NOTHING, Usage
from . import NO_DOCUMENTS, Cursor, Unsupported, Verdicts, count_of, list_of, lost_citations, mapping_of, text_of
from .cache_marks import OPENAI_CACHING, Caching, keyed
from .call_ids import fitting_id, fitting_ids
from .efforts import OPENAI, effort_of, family_of
from .failures import error_from_value, failure_object, provider_error
from .leftovers import difference, own_state, patched
from .media_rules import MEGABYTE, TEXTUAL, MediaRules, file_name
from .places import no_place
from .ranges import PORTABLE, Ranges, check_read, check_sent
from .sse import EventStream
from .subsets import OPENAI_STRICT, parameters_of, shape_of, told_of_tools
from .surrogates import PairedText

NAME = "openai_responses"

_NO_PENALTIES = Unsupported("this API has no penalties; say in the prompt what is not to be repeated")
# The verdict on each portable parameter: the wire's word for it, or why there is none.
PARAMETERS: Verdicts = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": Unsupported("this API has no top_k; use top_p"),
    "min_p": Unsupported("this API has no min_p; use top_p"),
    "seed": Unsupported("this API has no seed; set temperature=0, or use chat completions"),
    "stop": Unsupported("this API has no stop sequences; say in the prompt where to end, or use chat completions"),
    "frequency_penalty": _NO_PENALTIES,
    "presence_penalty": _NO_PENALTIES,
    "repetition_penalty": _NO_PENALTIES,
    "parallel_tool_calls": "parallel_tool_calls",
    "top_logprobs": "top_logprobs",
    "documents": NO_DOCUMENTS,
    "n": Unsupported("this API gives one answer; ask several times"),
    "user": "user",
}
# https://platform.openai.com/docs/api-reference/responses/create; recorded, what is said of temperatures.
RANGES: Ranges = {**PORTABLE, "temperature": (0, 2), "top_logprobs": (0, 20)}

_ENCRYPTED, _LOGPROBS = "reasoning.encrypted_content", "message.output_text.logprobs"
# Longer ids of calls are refused with "string too long. Expected a string with maximum length 64".
_ID = re.compile(r"(?s:.{1,64})")

_INCOMPLETE: dict[str, FinishReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}
_STATUS: dict[FinishReason, str] = {
    "stop": "completed",
    "tool_calls": "completed",
    "refusal": "completed",
    "length": "incomplete",
    "content_filter": "incomplete",
    "paused": "in_progress",
    "cancelled": "cancelled",
}
_UNFINISHED: dict[str, FinishReason] = {"cancelled": "cancelled", "queued": "paused", "in_progress": "paused"}
_DETAILS = {reason: {"reason": word} for word, reason in _INCOMPLETE.items()}
# The field that holds the text, by the type of an item, or of a part of one.
_FIELDS = {
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "summary_text": "text",
    "reasoning_text": "text",
    "function_call": "arguments",
    "custom_tool_call": "input",
    "mcp_call": "arguments",
    "code_interpreter_call": "code",
}
_CALLS = ("function_call", "custom_tool_call")
_RESULTS = ("function_call_output", "custom_tool_call_output")


class _Where(NamedTuple):
    """Where an event belongs: a list of the item's (none, of an item that is one text), the event's field that numbers
    what is in it, the type of what is there, and of the item.
    """

    place: str
    number: str
    part: str
    item: str


_TEXT = _Where("content", "content_index", "output_text", "message")
_THOUGHT = _Where("content", "content_index", "reasoning_text", "reasoning")
_SUMMARY = _Where("summary", "summary_index", "summary_text", "reasoning")
_STREAMED = {
    "response.output_text": _TEXT,
    "response.refusal": _Where("content", "content_index", "refusal", "message"),
    "response.reasoning_text": _THOUGHT,
    "response.reasoning_summary_text": _SUMMARY,
    "response.function_call_arguments": _Where("", "", "function_call", "function_call"),
    "response.custom_tool_call_input": _Where("", "", "custom_tool_call", "custom_tool_call"),
    "response.mcp_call_arguments": _Where("", "", "mcp_call", "mcp_call"),
    "response.code_interpreter_call_code": _Where("", "", "code_interpreter_call", "code_interpreter_call"),
}
_DELTAS = {f"{name}.delta": where for name, where in _STREAMED.items()}
_FINALS = {f"{name}.done": where for name, where in _STREAMED.items()}
_PARTS = {
    f"{name}.{moment}": where
    for name, where in (
        ("response.content_part", _TEXT),
        ("response.reasoning_part", _THOUGHT),
        ("response.reasoning_summary_part", _SUMMARY),
    )
    for moment in ("added", "done")
}
_ENDS = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
_ANNOTATIONS = ("url_citation", "file_citation", "container_file_citation", "file_path")
_PLACES: dict[str, tuple[str, ...]] = {"message": ("content",), "reasoning": ("summary", "content")}
# How often events are taken for mere continuations that are none: in some streams each says something of its own.
_MOST_MISSES = 8
_EMPTY = msgspec.Raw(b"[]")
# What is only known at the end of an answer.
_LATE = frozenset({"output", "usage", "status", "incomplete_details", "error", "completed_at"})
# https://developers.openai.com/api/docs/guides/file-inputs, .../images-vision: all of it may be an address.
MEDIA = MediaRules(
    types={
        Image: ("image/png", "image/jpeg", "image/webp", "image/gif"),
        File: ("application/", *TEXTUAL),
    },
    most={Image: 50 * MEGABYTE, File: 50 * MEGABYTE},
)


@dataclass(frozen=True)
class OpenAIResponses:
    """The dialect with the quirks of one kind of server. It is stateless: nothing is left with the server.

    Attributes:
        parameters: the verdict on each portable parameter.
        ranges: what its numbers may be.
        encrypted: whether the model's thinking is asked for in the form that can be handed back, without which it is
            lost between two rounds of tools; None is by the model's name.
        summary: how thinking is to be summarised where it is asked for; None leaves it to the server. OpenAI gives
            summaries to verified organisations only, and others HTTP 400.
        media: what the server takes of images and files.
        caching: how it is told that a prompt is worth keeping.
        background: whether it makes answers in the background, so that they can be read on where a stream broke off.
    """

    parameters: Verdicts = field(default_factory=lambda: PARAMETERS)
    ranges: Ranges = field(default_factory=lambda: RANGES)
    encrypted: bool | None = None
    summary: Literal["auto", "concise", "detailed"] | None = "auto"
    media: MediaRules = MEDIA
    caching: Caching = OPENAI_CACHING
    background: bool = False

    name = NAME

    def verdicts(self) -> Verdicts:
        """The verdict on every portable parameter."""
        special = {
            "max_tokens": "max_output_tokens",
            "thinking": "reasoning.effort",
            "tool_choice": "tool_choice",
            "logprobs": f"include: {_LOGPROBS}",
            "schema": "text.format",
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
        return HttpRequest("POST", "/responses", headers, body), tuple(encoder.notices)

    def decode_answer(self, body: bytes) -> list[Delta]:
        text = body[:10_000].decode("utf-8", "replace")
        try:
            value = decode_json(body)
        except ValueError as error:
            raise ServerError(f"the answer is no JSON: {error}", status=200, body=text) from None
        if mapping_of(value).get("error") and "output" not in value:
            raise _failure(mapping_of(value))
        if not is_object(value) or not is_array(value.get("output")):
            raise StreamProtocolError("the answer is no response: it has no output", body=text)
        deltas: list[Delta] = []
        reader = _AnswerReader()
        reader.begin(value, deltas)
        reader.end(value, "", deltas)
        return deltas

    def decoder(self) -> ResponsesDecoder:
        return ResponsesDecoder()

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return provider_error(status, headers, body)

    def decode_request(self, body: bytes) -> Request:
        try:
            value = decode_json(body)
        except ValueError as error:
            raise _refused("body", f"no JSON: {error}") from None
        if not is_object(value):
            raise _refused("body", "a JSON object is wanted")
        return _RequestReader(self).read(self.canonical_request(value))

    def encode_response(self, response: Response[Any]) -> bytes:
        message = response.message
        items = [_answer_item(group) for group in _groups(filter(_has_place, message.parts))]
        body = _envelope(message.id, response.model, response.finish_reason)
        state = own_state(message.state, NAME)
        return encode_json(_answer_object(body, items, response.usage, state))

    def encoder(self, request: Request | None = None) -> ResponsesEncoder:
        return ResponsesEncoder()

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        return failure_object(error)

    # https://developers.openai.com/api/docs/guides/background: what is made so is kept by the server for a while, and
    # "background" without "store" is refused.

    def in_background(self, request: Request) -> Request | None:
        if not all(request.extra.get(name, True) is True for name in _KEPT):
            return None
        return msgspec.structs.replace(request, extra={**request.extra, **_KEPT})

    def encode_resume(self, request: Request, cursor: Cursor) -> HttpRequest:
        url = f"/responses/{quote(cursor.id, safe='')}?stream=true&starting_after={cursor.number}"
        return HttpRequest("GET", url, tuple(request.headers.items()), b"")

    def encode_cancel(self, request: Request, cursor: Cursor) -> HttpRequest:
        url = f"/responses/{quote(cursor.id, safe='')}/cancel"
        return HttpRequest("POST", url, tuple(request.headers.items()), b"")

    def decode_resume(self, target: str) -> Cursor | None:
        parts = urlsplit(target)
        found = re.search(r"/responses/([^/]+)$", parts.path)
        query = dict(parse_qsl(parts.query))
        if found is None or query.get("stream") != "true":
            return None
        after = query.get("starting_after", "-1")
        if not re.fullmatch(r"-1|\d{1,9}", after):
            raise _refused("starting_after", "the number of an event is wanted")
        return Cursor(unquote(found[1]), int(after))

    def events_after(self, stream: bytes, number: int) -> bytes:
        events = [event + b"\n\n" for event in stream.split(b"\n\n") if event]
        numbers = [_number_of(event.partition(b"data: ")[2]) for event in events]
        return b"".join(event for event, own in zip(events, numbers, strict=True) if own is None or own > number)

    def canonical_request(self, body: dict[str, Any]) -> dict[str, Any]:
        """What means the same is made the same: see `canonical_answer`; further, in a request

        - `stream: false` and `tools: []` are absent;
        - an input that is a string is one message of the user;
        - an item with a role and no type is a message;
        - a string as a message's content is one text, and one text as a tool's output is a string.
        """
        wire = {name: value for name, value in _present(body).items() if (name, value) not in _NOTHING}
        if isinstance(said := wire.get("input"), str):
            wire["input"] = [{"role": "user", "content": said}]
        if is_array(items := wire.get("input")):
            wire["input"] = [_canonical_item(item) for item in items]
        if is_array(tools := wire.get("tools")):
            wire["tools"] = [_present(tool) if _is_function(tool) else tool for tool in tools]
        return wire

    def canonical_answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """What means the same is made the same: null is absent, in the objects that we read (and not deeper, nor in
        items that only the provider reads); no annotations and no logprobs are absent.
        """
        canonical = _present(body)
        if is_array(output := canonical.get("output")):
            canonical["output"] = [_canonical_item(item) for item in output]
        if is_object(usage := canonical.get("usage")):
            canonical["usage"] = _present(usage)
        return canonical


_NOTHING: tuple[tuple[str, Any], ...] = (("stream", False), ("tools", []))
_KEPT = {"background": True, "store": True}
_NOTHING_IF_EMPTY = ("annotations", "logprobs")


def _present(object_: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in object_.items() if value is not None}


def _is_function(tool: Any) -> bool:
    return is_object(tool) and tool.get("type") == "function"


def _canonical_item(item: Any) -> Any:
    if not is_object(item):
        return item
    kind = _kind_of(item)
    if kind in _RESULTS:
        canonical = _present(item)
        if is_array(output := canonical.get("output")):
            canonical["output"] = _shortest([_canonical_part(part) for part in output])
        return canonical
    if kind in _CALLS:
        return _present(item)
    if kind not in _PLACES:
        return item
    canonical = {"type": kind, **_present(item)}
    if kind == "message" and isinstance(text := canonical.get("content"), str):
        canonical["content"] = [{"type": _text_type(canonical.get("role")), "text": text}]
    for place in _PLACES[kind]:
        if is_array(parts := canonical.get(place)):
            canonical[place] = [_canonical_part(part) for part in parts]
    return canonical


def _kind_of(item: Mapping[str, Any]) -> str | None:
    """The type of an item, where it is told or goes without saying."""
    return text_of(item.get("type")) or ("message" if "role" in item else "item_reference" if "id" in item else None)


def _canonical_part(part: Any) -> Any:
    if not is_object(part):
        return part
    return {
        name: value
        for name, value in part.items()
        if value is not None and not (value == [] and name in _NOTHING_IF_EMPTY)
    }


def _shortest(parts: list[Any]) -> Any:
    """A tool's output: a string where it is one text."""
    only = parts[0] if len(parts) == 1 else None
    if is_object(only) and only.keys() == {"type", "text"} and only["type"] == "input_text":
        return only["text"] if isinstance(only["text"], str) else parts
    return parts


# Items and parts, for both halves


@dataclass(frozen=True)
class _Group:
    """The parts of one item, and what the wire says of the item."""

    kind: str | None
    parts: list[Part]
    patch: Mapping[str, Any]


def _list_kind(part: Part) -> str | None:
    """The kind of item that this part may share with others; None of one that is an item of its own."""
    match part:
        case Thinking():
            return "reasoning"
        case ToolCall() | ToolResult():
            return None
        case ServerItem() if not own_state(part.state, NAME).get("is_content"):
            return None
        case _:
            return "message"


def _groups(parts: Iterable[Part]) -> list[_Group]:
    groups: list[_Group] = []
    for part in parts:
        kind, state = _list_kind(part), own_state(part.state, NAME)
        if groups and kind is not None and groups[-1].kind == kind and "item" not in state:
            groups[-1].parts.append(part)
        else:
            groups.append(_Group(kind, [part], state.get("item", {})))
    return groups


def _item_of(kind: str | None, parts: Sequence[Part], role: str) -> dict[str, Any]:
    """The parts of one item as that item, without what only its state says."""
    if kind == "message":
        return {"type": kind, "role": role, "content": [_said_part(part, role) for part in parts]}
    if kind == "reasoning":
        lists: dict[str, list[Any]] = {"summary": []}
        for part in parts:
            state = own_state(part.state, NAME)
            # A thought that is only encrypted has no text, and no place for it.
            if isinstance(part, Thinking) and (part.text or "place" in state):
                place = state.get("place", "summary")
                lists.setdefault(place, []).append(patched(_thought(part.text, place), state))
        return {"type": kind, **lists}
    match parts[0]:
        case ToolCall() as call if own_state(call.state, NAME).get("form") == "custom":
            return _present({"type": "custom_tool_call", "call_id": call.id, "name": call.name, "input": call.input})
        case ToolCall() as call:
            named = {"type": "function_call", "call_id": call.id, "name": call.name}
            return _present({**named, "arguments": call.input or "{}"})
        case ServerItem() as item:
            text = {_FIELDS[item.kind]: item.text} if item.text and item.kind in _FIELDS else {}
            return _present({"type": item.kind, "id": item.id, **text})
        case part:
            raise UnsupportedError(f"this API has no item for a {type(part).__name__} part")


def _thought(text: str, place: str) -> dict[str, Any]:
    return {"type": "reasoning_text" if place == "content" else "summary_text", "text": text}


def _said_part(part: Part, role: str) -> dict[str, Any]:
    """A part of a message, with all that is known of it."""
    return patched(_part_of(part, role), own_state(part.state, NAME))


def _text_type(role: Any) -> str:
    return "output_text" if role == "assistant" else "input_text"


def _part_of(part: Part, role: str) -> dict[str, Any]:
    """A part of a message or of a tool's output, without what only its state says."""
    match part:
        case TextPart():
            annotations = [note for note in part.notes if _is_annotation(note)]
            logprobs = [note["logprob"] for note in part.notes if _is_logprob(note)]
            beside = {"annotations": annotations or None, "logprobs": logprobs or None}
            return _present({"type": _text_type(role), "text": part.text, **beside})
        case Refusal():
            return {"type": "refusal", "refusal": part.text}
        case Value() if own_state(part.state, NAME).get("is_part"):
            return part.value if is_object(part.value) else {}
        case Value():
            return {"type": _text_type(role), "text": encode_json(part.value).decode()}
        case Image():
            return _present({"type": "input_image", "image_url": _address(part, "image/png"), "detail": part.detail})
        case File(id=str() as file_id):
            return {"type": "input_file", "file_id": file_id}
        case File(url=str() as url):
            return _present({"type": "input_file", "file_url": url, "filename": part.name})
        case File():
            return {"type": "input_file", "filename": file_name(part), "file_data": _address(part, "application/pdf")}
        case ServerItem():
            return {"type": part.kind}
        case Audio():
            raise UnsupportedError("this API hears no audio; use chat completions, or send a transcript")
        case Thinking() | ToolCall() | ToolResult():
            raise no_place(part)


def _is_annotation(note: Any) -> bool:
    """Whether a note is an annotation as it is spelled here; chat completions have some nested under their type."""
    kind = note.get("type") if is_object(note) else None
    return kind in _ANNOTATIONS and kind not in note


def _is_logprob(note: Any) -> bool:
    return is_object(note) and note.keys() == {"logprob"}


def _address(part: Image | File, default: str) -> str:
    if part.url is not None:
        return part.url
    return f"data:{part.media_type or default};base64,{b64encode(part.data or b'').decode()}"


def _worded(part: dict[str, Any]) -> Part:
    """A part of a message in our words, as far as they go; else it is a server's, and has all of it in its state."""
    name = text_of(part.get("filename"))
    match part["type"]:
        case "input_text" | "output_text" if isinstance(text := part.get("text"), str):
            annotations = tuple(note for note in list_of(part.get("annotations")) if _is_annotation(note))
            logprobs = tuple({"logprob": entry} for entry in list_of(part.get("logprobs")))
            return TextPart(text=text, notes=(*annotations, *logprobs))
        case "refusal" if isinstance(text := part.get("refusal"), str):
            return Refusal(text=text)
        case "input_image" if url := text_of(part.get("image_url")):
            kind, data = _from_data_url(url)
            detail = text_of(part.get("detail"))
            return Image(data=data, media_type=kind, detail=detail) if data else Image(url=url, detail=detail)
        case "input_file" if file_id := text_of(part.get("file_id")):
            return File(id=file_id)
        case "input_file" if url := text_of(part.get("file_url")):
            return File(url=url, name=name)
        case "input_file" if (found := _from_data_url(part.get("file_data")))[1]:
            return File(data=found[1], media_type=found[0], name=name)
        case _:
            return _opaque(part)


def _opaque(part: dict[str, Any]) -> ServerItem:
    rest = {name: value for name, value in part.items() if name != "type"}
    return ServerItem(kind=part["type"], state=ProviderState(NAME, {"is_content": True, "set": rest}))


def _from_data_url(url: Any) -> tuple[str | None, bytes | None]:
    """The type and bytes of a plain base64 data URL; nothing for one that could not be written back the same."""
    found = re.fullmatch(r"data:([\w.+-]+/[\w.+-]+);base64,([A-Za-z0-9+/=]+)", url) if isinstance(url, str) else None
    if found is None:
        return None, None
    try:
        data = b64decode(found[2], validate=True)
    except ValueError:
        return None, None
    return (found[1], data) if b64encode(data).decode() == found[2] else (None, None)


def _patch_of(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """The patch that turns our item into the wire's. What only the provider reads is kept with its nulls."""
    if (kind := text_of(theirs.get("type"))) in _PLACES or kind in _CALLS:
        return difference(theirs, ours)
    changed = {name: value for name, value in theirs.items() if name not in ours or ours[name] != value}
    absent = [name for name in ours if name not in theirs]
    return {**({"set": changed} if changed else {}), **({"unset": absent} if absent else {})}


# The client's half: requests


class _BodyEncoder:
    def __init__(self, dialect: OpenAIResponses) -> None:
        self._dialect = dialect
        self._custom: set[str | None] = set()
        self.notices: list[Notice] = []

    def body(self, request: Request) -> dict[str, Any]:
        """The JSON body; `request.extra` goes over it as it is."""
        patch = self._own(request.state, "request")
        fit, has_others = fitting_ids(request.messages, _ID, NAME)
        if has_others:
            self._emulate("id", "ids of calls were replaced by ones that this API takes: 64 signs at most")
        # What a client of ours has asked for in this format's own words is not translated again.
        in_its_words = patch.get("set", {})
        kept, notices = keyed(request, self._dialect.caching)
        self.notices += notices
        body: dict[str, Any] = {"model": request.model, **self._conversation(fit), "store": False, **kept}
        if include := self._include(request):
            body["include"] = include
        if request.stream:
            body["stream"] = True
        for parameter, verdict in self._dialect.parameters.items():
            if (value := getattr(request, parameter)) is None:
                continue
            if isinstance(verdict, Unsupported):
                self._refuse(parameter, str(verdict))
            else:
                body[verdict] = value
        if request.max_tokens is not None:
            body["max_output_tokens"] = request.max_tokens
        if request.tools:
            body["tools"] = [self._tool(tool) for tool in request.tools]
            self.notices += told_of_tools(request.tools, NAME)
        if (choice := request.tool_choice) is not None:
            is_word = choice in ("auto", "none", "required")
            body["tool_choice"] = choice if is_word else {"type": "function", "name": choice}
        if request.thinking is not None and "reasoning" not in in_its_words:
            self._think(request.thinking, body)
        if request.schema is not None and request.schema.mode == "native" and "text" not in in_its_words:
            body["text"] = {"format": self._format(request.schema)}
        return {**patched(body, patch), **request.extra}

    def _include(self, request: Request) -> list[str]:
        is_encrypted = self._dialect.encrypted
        if is_encrypted is None:
            is_encrypted = family_of(request.model, OPENAI).thinks != "never"
        has_logprobs = request.logprobs or request.top_logprobs is not None
        return [*([_ENCRYPTED] if is_encrypted else []), *([_LOGPROBS] if has_logprobs else [])]

    def _think(self, asked: bool | int | str, body: dict[str, Any]) -> None:
        word, notice = effort_of(asked, body["model"], OPENAI)
        if notice is not None:
            self.notices.append(notice)
        if word is not None:
            shown = {"summary": self._dialect.summary} if self._dialect.summary and word != "none" else {}
            body["reasoning"] = {"effort": word, **shown}

    def _format(self, wanted: OutputSchema) -> dict[str, Any]:
        shape, notices = shape_of(wanted, OPENAI_STRICT)
        self.notices += notices
        return {"type": "json_schema", "name": wanted.name, "schema": shape.json, "strict": shape.obstacle is None}

    def _tool(self, tool: ToolSpec) -> dict[str, Any]:
        patch = self._own(tool.state, "tool")
        if tool.state is not None and tool.state.dialect != NAME and not tool.description and not tool.parameters:
            raise UnsupportedError(f"the tool {tool.name!r} is run by {tool.state.dialect}, which is not asked here")
        return patched(_tool_of(tool), patch)

    def _conversation(self, messages: Iterable[Message]) -> dict[str, Any]:
        """The fields of the body that hold what was said."""
        said: dict[str, Any] = {"input": []}
        messages = tuple(messages)
        self.notices += lost_citations(messages, _is_annotation)
        for message in messages:
            if message.name is not None:
                self._drop("name", f"this API has no names of speakers: {message.name!r}")
            if "instructions" not in said and _is_instructions(message):
                said["instructions"] = message.text
                continue
            role = "user" if message.role == "tool" else message.role
            parts = [part for part in message.parts if self._is_sent(part, role)]
            said["input"] += [self._item(group, role) for group in _groups(parts)]
        return said

    def _is_sent(self, part: Part, role: str) -> bool:
        kind, is_own = type(part).__name__, part.state is not None and part.state.dialect == NAME
        match part:
            case Thinking() | ServerItem() if not is_own and role != "assistant":
                raise no_place(part, role)
            case Thinking() | ServerItem() if not is_own:
                self._drop(kind, f"a {kind} part was left out: only its maker can use it")
                return False
            case Image() | File() | Audio() | ToolResult() if role == "assistant":
                self._drop(kind, f"a {kind} part was left out: this API has no place for it in an assistant's message")
                return False
            case Refusal() | ToolCall() if role != "assistant":
                raise no_place(part, role)
            case ToolCall() if own_state(part.state, NAME).get("form") == "custom":
                self._custom.add(part.id)
            case ToolResult():
                for shown in part.content:
                    self._own(shown.state, "part")
                if part.is_error:
                    self._drop("is_error", "this API has no mark for a tool's failure; the text of the result tells it")
            case _:
                pass
        self._own(part.state, "part")
        return True

    def _item(self, group: _Group, role: str) -> dict[str, Any]:
        first = group.parts[0]
        item = self.result(first) if isinstance(first, ToolResult) else _item_of(group.kind, group.parts, role)
        return patched(item, group.patch)

    def result(self, part: ToolResult) -> dict[str, Any]:
        """What came of a tool as an item, without what only its state says."""
        kind = "custom_tool_call_output" if part.call_id in self._custom else "function_call_output"
        output = _shortest([_said_part(item, "tool") for item in part.content]) if part.content else ""
        return _present({"type": kind, "call_id": part.call_id, "output": output})

    def note_custom(self, call_id: str | None) -> None:
        """Say that the tool of this call takes a text, and so do the results of its calls."""
        self._custom.add(call_id)

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


def _is_instructions(message: Message) -> bool:
    state = own_state(message.state, NAME)
    return message.role == "system" and state.get("is_instructions") is True


def _tool_of(tool: ToolSpec) -> dict[str, Any]:
    """A function as this API is told of it. What is not said to be loose is strict here, and then refused for being
    anything but closed.
    """
    described = {"description": tool.description} if tool.description else {}
    parameters = parameters_of(tool) or {"type": "object", "properties": {}}
    return {"type": "function", "name": tool.name, **described, "parameters": parameters, "strict": False}


# The client's half: answers


class ResponsesDecoder:
    """Decodes one streamed answer. It ends with the event that tells the whole response; nothing after it is read."""

    def __init__(self) -> None:
        self._stream = EventStream()
        self._reader = _AnswerReader()
        self._failure: SabirError | None = None
        self._last = b""
        self._is_going_on = False

    @property
    def is_over(self) -> bool:
        return self._reader.is_over or self._failure is not None

    @property
    def cursor(self) -> Cursor | None:
        number, name = _number_of(self._last), self._reader.id
        return None if name is None or number is None else Cursor(name, number)

    def go_on(self) -> None:
        self._stream = EventStream()
        self._is_going_on = True

    def feed(self, data: bytes) -> list[Delta]:
        deltas: list[Delta] = []
        if self.is_over:
            return deltas
        try:
            events = self._stream.feed(data)
            if self._is_going_on and events:
                events = self._following(events)
            for _, payload in events:
                if self._reader.is_over:
                    break
                if not self._reader.read_more(payload, deltas) and (event := _event(payload)) is not None:
                    self._reader.read(event, deltas)
            if events and b'"sequence_number"' in events[-1][1]:
                self._last = events[-1][1]
        except SabirError as error:
            self._failure = error
            if not deltas:
                raise
        return deltas

    def close(self) -> list[Delta]:
        if self._failure is not None:
            raise self._failure
        if not self._reader.is_over:
            raise StreamInterrupted("the stream ended before the answer did", retryable=True)
        return []

    def _following(self, events: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The first events of another stream, without those that had come before.

        Raises:
            StreamProtocolError: some are missing.
        """
        last = _number_of(self._last)
        numbered = [(_number_of(payload), (name, payload)) for name, payload in events]
        fresh = [(number, event) for number, event in numbered if number is None or last is None or number > last]
        for number, _ in fresh:
            if number is not None and last is not None:
                self._is_going_on = False
                if number > last + 1:
                    raise StreamProtocolError(f"the events from {last + 1} to {number - 1} are missing")
                break
        return [event for _, event in fresh]


def _number_of(payload: bytes) -> int | None:
    """The number of an event, if it has one."""
    try:
        number = mapping_of(decode_json(payload)).get("sequence_number")
    except ValueError:
        return None
    return number if type(number) is int else None


def _event(payload: bytes) -> dict[str, Any] | None:
    """The event; None of what some servers send besides, as they do in chat completions."""
    try:
        value = decode_json(payload)
    except ValueError as error:
        if payload.strip() in (b"", b"[DONE]"):
            return None
        text = payload[:1000].decode("utf-8", "replace")
        raise StreamProtocolError(f"an event of the stream is no JSON: {error}", body=text) from None
    if not is_object(value):
        raise StreamProtocolError(f"an event of the stream is no JSON object: {str(value)[:80]}")
    return value


class _More(msgspec.Struct, forbid_unknown_fields=True):
    """An event that tells more of a part; of the last three fields nothing is read."""

    type: str
    output_index: int
    delta: str
    content_index: int | None = None
    summary_index: int | None = None
    logprobs: msgspec.Raw = _EMPTY
    item_id: str | None = None
    sequence_number: int | None = None
    obfuscation: str | None = None


_decode_more = msgspec.json.Decoder(_More).decode


class _Opening(NamedTuple):
    """What a part is, by the item that it is of."""

    kind: PartKind
    name: str | None = None
    id: str | None = None


def _opening(item: _Item, wire: Mapping[str, Any]) -> _Opening:
    if item.kind == "reasoning":
        return _Opening("thinking")
    if item.kind in _CALLS:
        return _Opening("call", text_of(wire.get("name")), text_of(wire.get("call_id")))
    if item.kind != "message":
        return _Opening("server", item.kind, text_of(wire.get("id")))
    match wire.get("type"):
        case "output_text" | "input_text":
            return _Opening("text")
        case "refusal":
            return _Opening("refusal")
        case kind:
            return _Opening("server", text_of(kind) or "part")


class _Piece:
    """A part of ours being read: what was passed on of it, and what the wire says of it besides."""

    __slots__ = (
        "_paired",
        "_pieces",
        "annotations",
        "field",
        "id",
        "kind",
        "logprobs",
        "name",
        "number",
        "told",
        "wire",
    )

    def __init__(self, number: int, opening: _Opening, wire: dict[str, Any]) -> None:
        self.number = number
        self.kind, self.name, self.id = opening.kind, opening.name, opening.id
        self.field = "text" if opening.kind == "thinking" else _FIELDS.get(text_of(wire.get("type")) or "", "")
        self.wire = wire
        self.told: dict[str, Any] = {}
        self.annotations: list[Any] = []
        self.logprobs: list[Any] = []
        self._pieces: list[str] = []
        self._paired = PairedText()

    @property
    def text(self) -> str:
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    def add(self, text: Any, logprobs: Any, deltas: list[Delta]) -> None:
        """What an event adds: text, and what it weighs."""
        if isinstance(text, str):
            self.more(text, deltas)
        if logprobs and self.kind == "text":
            self.weigh(list_of(logprobs), deltas)

    def more(self, piece: str, deltas: list[Delta]) -> None:
        if text := self._paired.more(piece):
            self._pieces.append(text)
            deltas.append(Text(self.number, text))

    def whole(self, final: Any, deltas: list[Delta]) -> None:
        """The text told once more, whole: what goes beyond the streamed is passed on.

        Raises:
            StreamProtocolError: it is another text.
        """
        if not isinstance(final, str) or not final or final == (streamed := self.text):
            return
        # In UTF-16 the first half of a surrogate pair is a beginning of the pair.
        half = self._paired.half
        units, before = (text.encode("utf-16-le", "surrogatepass") for text in (final, streamed + half))
        if not units.startswith(before):
            raise StreamProtocolError(f"what is told in the end contradicts what was streamed: {streamed[:80]!r}…")
        self.more(units[len(before) :].decode("utf-16-le", "surrogatepass"), deltas)

    def annotate(self, annotations: Iterable[Any], deltas: list[Delta]) -> None:
        fresh = [note for note in annotations if _is_annotation(note)]
        self.annotations += fresh
        deltas.extend(Note(self.number, note) for note in fresh)

    def weigh(self, logprobs: Iterable[Any], deltas: list[Delta]) -> None:
        for entry in logprobs:
            self.logprobs.append(entry)
            deltas.append(Note(self.number, {"logprob": entry}))

    def all_notes(self, wire: Mapping[str, Any], deltas: list[Delta]) -> None:
        """The notes told once more, all of them: what goes beyond the streamed is passed on."""
        logprobs, annotations = list_of(wire.get("logprobs")), list_of(wire.get("annotations"))
        annotations = [note for note in annotations if _is_annotation(note)]
        if len(logprobs) > len(self.logprobs) and logprobs[: len(self.logprobs)] == self.logprobs:
            self.weigh(logprobs[len(self.logprobs) :], deltas)
            self.wire = {**self.wire, "logprobs": wire["logprobs"]}
        if len(annotations) > len(self.annotations) and annotations[: len(self.annotations)] == self.annotations:
            self.annotate(annotations[len(self.annotations) :], deltas)
            self.wire = {**self.wire, "annotations": wire["annotations"]}

    def end(self, deltas: list[Delta]) -> None:
        if half := self._paired.half:
            deltas.append(Text(self.number, half))
        deltas.append(Close(self.number))


# The place of the only part of an item that is no list of parts, or an empty one.
_ALONE = ("", 0)


class _Item:
    """One item of an answer being read, by the place of each of its parts."""

    __slots__ = ("index", "is_done", "is_marked", "kind", "pieces", "whole", "wire")

    def __init__(self, index: int, wire: dict[str, Any]) -> None:
        self.index = index
        self.kind = _kind_of(wire) or ""
        self.wire = wire
        self.pieces: dict[tuple[str, int], _Piece] = {}
        self.is_done = False
        # As it was told when it was done; in the end it is mostly told again.
        self.whole: Any = None
        # Whether its first part says that an item begins there.
        self.is_marked = False

    @property
    def is_list(self) -> bool:
        return self.kind in _PLACES

    def told(self, wire: dict[str, Any]) -> Iterator[tuple[tuple[str, int], dict[str, Any]]]:
        """The parts of the whole item, each under the place where it was streamed, if it was."""
        if not self.is_list:
            yield _ALONE, wire
        for place in _PLACES.get(self.kind, ()):
            parts, streamed = list_of(wire.get(place)), [number for where, number in self.pieces if where == place]
            if (places := _stands_at(streamed, len(parts))) is None:
                continue
            numbers = dict(zip(places, streamed, strict=True))
            for at, part in enumerate(parts):
                if not is_object(part):
                    raise StreamProtocolError(f"a part of an item is no object: {str(part)[:80]}")
                # What was not streamed has a number that no event has.
                yield (place, numbers.get(at, ~at)), part

    def states(self, *, is_early: bool = False) -> list[dict[str, Any]]:
        """The state of each of its parts: what the wire says of it, and in the first, of the item.

        What was streamed is taken as it was. `is_early`: the end of the item has not been told.
        """
        states = [self.state(*told, is_early=is_early) for told in self.pieces.items()]
        if self.is_list and _ALONE not in self.pieces:
            # It is enough to know which of its lists have parts.
            ours = {**_item_of(self.kind, (), "assistant"), **{place: states for place, _ in self.pieces}}
        else:
            parts = [_value(*told) for told in zip(self.pieces.values(), states, strict=True)]
            ours = _item_of(self.kind if self.is_list else None, parts, "assistant")
        known = {name for name in self._streamed(is_early) if is_early or ours.get(name)}
        late = {"status"} if is_early else set[str]()
        theirs = {name: value for name, value in self.wire.items() if name not in known and name not in late}
        patch = _patch_of(theirs, {name: value for name, value in ours.items() if name not in known})
        if patch or self.is_marked:
            states[0]["item"] = patch
        return states

    def _streamed(self, is_early: bool) -> Iterator[str]:
        """The fields of which a stream tells more, or has told some."""
        if self.is_list and _ALONE not in self.pieces:
            yield from _PLACES[self.kind]
        if self.kind in _CALLS:
            yield from ("call_id", "name")
        field = _FIELDS.get(self.kind, "")
        if field and (is_early or self.pieces[_ALONE].text) and not is_object(self.wire.get(field)):
            yield field

    def state(self, place: tuple[str, int], piece: _Piece, *, is_early: bool = False) -> dict[str, Any]:
        """What the wire says of a part of the item beyond our words."""
        if self.kind == "custom_tool_call":
            return {"form": "custom"}
        if not self.is_list or place == _ALONE:
            return {}
        if piece.kind == "server":
            return {"is_content": True, "set": {name: item for name, item in piece.wire.items() if name != "type"}}
        state = {"place": place[0]} if self.kind == "reasoning" else {}
        if is_early:
            return state
        part = _value(piece, {})
        ours = _thought(part.text, place[0]) if isinstance(part, Thinking) else _part_of(part, "assistant")
        theirs = {**piece.wire, piece.field: piece.text}
        theirs |= {name: ours[name] for name in ("annotations", "logprobs") if name in ours and not theirs.get(name)}
        return {**state, **difference(theirs, ours)}


def _stands_at(numbers: list[int], length: int) -> list[int] | None:
    """Where that stands in a list told in the end which was streamed under these numbers.

    It is there, or if the numbers have gaps, in the same order. Some servers tell no list in the end, or not all of it:
    then None, and what was streamed stands alone.
    """
    if len(numbers) > length:
        return None
    is_numbered = len(set(numbers)) == len(numbers) and all(0 <= number < length for number in numbers)
    return numbers if is_numbered else list(range(len(numbers)))


def _value(piece: _Piece, state: Mapping[str, Any]) -> Part:
    """A part as it stands, with this state."""
    own = ProviderState(NAME, state) if state else None
    match piece.kind:
        case "thinking":
            return Thinking(text=piece.text, state=own)
        case "refusal":
            return Refusal(text=piece.text, state=own)
        case "call":
            return ToolCall(name=piece.name or "", input=piece.text, id=piece.id, state=own)
        case "server":
            return ServerItem(kind=piece.name or "", text=piece.text, id=piece.id, state=own)
        case _:
            logprobs = ({"logprob": entry} for entry in piece.logprobs)
            return TextPart(text=piece.text, notes=(*piece.annotations, *logprobs), state=own)


class _Streak(NamedTuple):
    """Where an event told more of a part: the next one most likely does so, too."""

    piece: _Piece
    type: str
    places: tuple[Any, Any, Any]


class _AnswerReader:
    """Turns a whole response, or the events of one, into deltas; numbers parts as they appear."""

    def __init__(self) -> None:
        self._parts = 0
        self._items: list[_Item] = []
        self._by_index: dict[int, _Item] = {}
        self._latest: _Item | None = None
        self._streak: _Streak | None = None
        # How often in a row an event of a streak was not just more text.
        self._misses = 0
        self._answer: dict[str, Any] = {}
        self._told: dict[str, Any] | None = None
        self.is_over = False

    def read_more(self, payload: bytes, deltas: list[Delta]) -> bool:
        """Read an event that goes on where the last one stopped, as most do; False of any other, which is not read."""
        if (streak := self._streak) is None:
            return False
        self._misses += 1
        try:
            more = _decode_more(payload)
            logprobs = None if more.logprobs == _EMPTY else decode_json(bytes(more.logprobs))
        except (ValueError, RecursionError):
            return False
        piece, kind, places = streak
        if more.type != kind or (more.output_index, more.content_index, more.summary_index) != places:
            return False
        self._misses = 0
        piece.add(more.delta, logprobs, deltas)
        return True

    def read(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        kind = event.get("type")
        if not isinstance(kind, str):
            kind = "error" if event.get("error") else ""
        if (where := _DELTAS.get(kind)) is not None:
            if (piece := self._piece(event, where, deltas)) is not None:
                piece.add(event.get("delta"), event.get("logprobs"), deltas)
                places = (event["output_index"], event.get("content_index"), event.get("summary_index"))
                self._streak = _Streak(piece, kind, places) if self._misses < _MOST_MISSES else None
        elif (where := _FINALS.get(kind)) is not None:
            if (piece := self._piece(event, where, deltas)) is not None:
                piece.whole(event.get(piece.field), deltas)
        elif (where := _PARTS.get(kind)) is not None:
            wire = _canonical_part(mapping_of(event.get("part")))
            if (piece := self._piece(event, where, deltas, wire)) is not None and kind.endswith(".done"):
                piece.whole(wire.get(piece.field), deltas)
        elif kind in _ENDS:
            self.end(mapping_of(event.get("response")), kind.removeprefix("response."), deltas)
        else:
            self._read_other(kind, event, deltas)

    def _read_other(self, kind: str, event: dict[str, Any], deltas: list[Delta]) -> None:
        match kind:
            case "response.created" | "response.in_progress" | "response.queued":
                self.begin(mapping_of(event.get("response")), deltas)
            case "response.output_item.added":
                self._add(event, deltas)
            case "response.output_item.done":
                self._finish(event, deltas)
            case "response.output_text.annotation.added":
                piece = self._piece(event, _STREAMED["response.output_text"], deltas)
                if piece is not None and piece.kind == "text":
                    piece.annotate([event.get("annotation")], deltas)
            case "error":
                raise _failure(event)
            case _:
                deltas.append(Event(event))

    def begin(self, answer: dict[str, Any], deltas: list[Delta]) -> None:
        """Read what is said of the whole answer; what is said later replaces it."""
        self._merge(answer, without=_LATE)
        if self._told is None:
            self._told = difference(self._answer, _envelope(*self._named, None))
            deltas.append(Head(*self._named, {"answer": self._told} if self._told else None))

    def end(self, answer: dict[str, Any], word: str, deltas: list[Delta]) -> None:
        """Read the whole answer, all or part of which a stream may have told before; `word` is the event's.

        Raises:
            ProviderError: it failed.
            StreamProtocolError: it contradicts what was streamed.
        """
        if self._told is None:
            self.begin(answer, deltas)
        told, usage = answer.get("usage"), _present(mapping_of(answer.get("usage")))
        self._merge(answer, without=("output", "usage") if is_object(told) else ("output",))
        if (counted := _usage(usage)) != NOTHING:
            deltas.append(Count(counted))
        details = mapping_of(answer.get("incomplete_details"))
        status = text_of(answer.get("status")) or word or ("incomplete" if details else "")
        if status == "failed":
            raise _failure(answer)
        self._reconcile(list_of(answer.get("output")), deltas)
        finish = self._reason(status, details)
        envelope = difference(self._answer, _envelope(*self._named, finish.reason if finish else None))
        state = {"answer": envelope} if envelope != self._told else {}
        if counted == NOTHING and is_object(told):
            state["usage"] = {"set": usage}
        elif beyond := difference(usage, _usage_object(counted) if usage else {}):
            state["usage"] = beyond
        if state:
            deltas.append(State(None, state))
        for item in self._items:
            for piece in item.pieces.values():
                piece.end(deltas)
        if finish is not None:
            deltas.append(finish)
        self.is_over = True

    @property
    def id(self) -> str | None:
        """What the answer is called."""
        return self._named[0]

    @property
    def _named(self) -> tuple[str | None, str | None]:
        return text_of(self._answer.get("id")), text_of(self._answer.get("model"))

    def _merge(self, answer: dict[str, Any], without: Container[str]) -> None:
        self._answer.update(
            {name: value for name, value in answer.items() if value is not None and name not in without}
        )

    def _reason(self, status: str, details: dict[str, Any]) -> Finish | None:
        match status:
            case "":
                return None
            case "completed":
                kinds = {piece.kind for item in self._items for piece in item.pieces.values()}
                ended: FinishReason = "tool_calls" if "call" in kinds else "refusal" if "refusal" in kinds else "stop"
                return Finish(ended, raw=status)
            case "incomplete":
                raw = text_of(details.get("reason")) or status
                return Finish(_INCOMPLETE.get(raw, "unknown"), raw=raw, detail=details or None)
            case _:
                return Finish(_UNFINISHED.get(status, "unknown"), raw=status)

    def _reconcile(self, output: list[Any], deltas: list[Delta]) -> None:
        """Hold what was streamed against the items told in the end, and read those that were not streamed."""
        places = _stands_at([item.index for item in self._items], len(output))
        if places is None:
            for item in self._items:
                self._settle(item, item.wire, deltas)
            return
        streamed = dict(zip(places, self._items, strict=True))
        for place, item in streamed.items():
            if not item.is_done or output[place] != item.whole:
                self._settle(item, _wire_item(output[place]), deltas)
        for place, told in enumerate(output):
            if place not in streamed:
                wire = _wire_item(told)
                self._settle(self._begin(place, wire, deltas), wire, deltas)

    def _item(self, event: dict[str, Any]) -> _Item | None:
        index = event.get("output_index")
        if type(index) is not int or index < 0:
            raise StreamProtocolError(f"an event is for the item {str(index)[:80]}, which is no number")
        return self._by_index.get(index)

    def _begin(self, index: int, wire: dict[str, Any], deltas: list[Delta]) -> _Item:
        item = _Item(index, wire)
        if self._items and not self._items[-1].pieces:
            # What has no part until the next item begins has one before that.
            self._open(self._items[-1], _ALONE, {"type": "output_text"}, deltas)
        self._items.append(item)
        self._by_index[index] = item
        self._streak = None
        if not item.is_list:
            self._open(item, _ALONE, wire, deltas)
        return item

    def _add(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        known, wire = self._item(event), _wire_item(event.get("item"))
        if known is not None and not known.is_done:
            raise StreamProtocolError(f"an item begins at the place {known.index}, where another one is not done")
        self._begin(event["output_index"], wire, deltas)

    def _finish(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        item, wire = self._item(event), _wire_item(event.get("item"))
        if item is not None and item.is_done:
            deltas.append(Event(event))
            return
        item = item or self._begin(event["output_index"], wire, deltas)
        self._settle(item, wire, deltas)
        item.is_done, item.whole = True, event["item"]

    def _piece(
        self, event: dict[str, Any], where: _Where, deltas: list[Delta], wire: dict[str, Any] | None = None
    ) -> _Piece | None:
        """The part that an event is about, opened if need be; None if it is within what only the provider reads."""
        item = self._item(event)
        if item is None:
            item = self._begin(event["output_index"], {"type": where.item}, deltas)
        number = event.get(where.number, 0) if where.place else 0
        if type(number) is not int or number < 0:
            raise StreamProtocolError(f"an event is for the part {str(number)[:80]}, which is no number")
        if (piece := item.pieces.get((where.place, number))) is None:
            if not item.is_list:
                deltas.append(Event(event))
                return None
            if where.place not in _PLACES[item.kind]:
                raise StreamProtocolError(f"an item of the type {item.kind!r} is told more of a {where.item}")
            piece = self._open(item, (where.place, number), wire or {"type": where.part}, deltas)
        return piece

    def _open(self, item: _Item, place: tuple[str, int], wire: dict[str, Any], deltas: list[Delta]) -> _Piece:
        opening = _opening(item, wire)
        empty = item.pieces.pop(_ALONE, None)
        if empty is not None:
            if empty.kind != opening.kind:
                raise StreamProtocolError(f"an item that had no part turns out to have a {opening.kind}")
            empty.wire = wire
            item.pieces[place] = empty
            return empty
        if item.pieces and self._latest is not item:
            raise StreamProtocolError("a part of an item comes after the next item has begun")
        piece = item.pieces[place] = _Piece(self._parts, opening, wire)
        self._parts += 1
        if len(item.pieces) == 1:
            # A list that follows one of its kind says that it is another; what only the provider reads, whose it is.
            follows = self._latest is not None and self._latest.kind == item.kind
            item.is_marked = follows if item.is_list else opening.kind == "server"
            piece.told = item.states(is_early=True)[0]
            item.is_marked = "item" in piece.told
        else:
            piece.told = item.state(place, piece, is_early=True)
        self._latest = item
        deltas.append(Open(piece.number, opening.kind, opening.id, opening.name, state=piece.told or None))
        return piece

    def _settle(self, item: _Item, wire: dict[str, Any], deltas: list[Delta]) -> None:
        """An item is told whole: pass on what was not streamed, and keep what is said of it besides.

        Raises:
            StreamProtocolError: it is not the item that was streamed.
        """
        if (kind := _kind_of(wire)) != item.kind:
            raise StreamProtocolError(f"an item of the type {item.kind!r} is said in the end to be {kind!r}")
        before = len(deltas)
        if not item.is_done:
            item.wire = wire
        for place, part in item.told(wire):
            piece = item.pieces.get(place) or self._open(item, place, part, deltas)
            if not item.is_done:
                piece.wire = part
            piece.whole(_text_in(part, piece), deltas)
            if piece.kind == "text":
                piece.all_notes(part, deltas)
            elif piece.kind == "call":
                self._name(piece, part, deltas)
        for piece in item.pieces.values():
            if not piece.text:
                piece.whole(piece.wire.get(piece.field), deltas)
        if not item.pieces:
            self._open(item, _ALONE, {"type": "output_text"}, deltas)
        if item.is_done and len(deltas) == before:
            return
        for piece, state in zip(item.pieces.values(), item.states(), strict=True):
            if fresh := {name: value for name, value in state.items() if piece.told.get(name) != value}:
                piece.told = state
                deltas.append(State(piece.number, fresh))
        item.is_marked = item.is_marked or "item" in next(iter(item.pieces.values())).told

    def _name(self, piece: _Piece, wire: dict[str, Any], deltas: list[Delta]) -> None:
        """Take the id and name of a call that began without them."""
        call_id, name = text_of(wire.get("call_id")), text_of(wire.get("name"))
        if piece.name is not None and name not in (None, piece.name):
            raise StreamProtocolError(f"a call of {piece.name!r} is said in the end to be one of {name!r}")
        late = State(piece.number, {}, None if piece.id else call_id, None if piece.name else name)
        if late.id is not None or late.name is not None:
            piece.id, piece.name = piece.id or late.id, piece.name or late.name
            deltas.append(late)


def _text_in(wire: Mapping[str, Any], piece: _Piece) -> Any:
    """The text of a part told whole. Some servers tell the arguments of a call as an object."""
    text = wire.get(piece.field)
    return _json(text) if piece.kind == "call" and is_object(text) else text


def _json(value: Any) -> str:
    try:
        return encode_json(value).decode()
    except ValueError as error:
        raise StreamProtocolError(f"what the answer has cannot be told: {error}") from None


def _wire_item(value: Any) -> dict[str, Any]:
    if not is_object(value) or _kind_of(value) is None:
        raise StreamProtocolError(f"an item of the answer has no type: {str(value)[:80]}")
    canonical: dict[str, Any] = _canonical_item(value)
    return canonical


def _failure(value: dict[str, Any]) -> ProviderError:
    """An error that came where an answer was to come; it has a code, and no status that says what it means."""
    told = value.get("error") or {name: item for name, item in value.items() if name in ("code", "message", "param")}
    named = {"error": told or "the response failed, and no reason was given"}
    return error_from_value(None, {}, named, _json(value))


def _envelope(response_id: str | None, model: str | None, reason: FinishReason | None) -> dict[str, Any]:
    """The fields of an answer that stand beside its output and usage."""
    ended = {"status": _STATUS.get(reason or "unknown"), "incomplete_details": _DETAILS.get(reason or "unknown")}
    return _present({"id": response_id, "object": "response", "model": model or None, **ended})


def _answer_object(
    envelope: dict[str, Any], items: list[dict[str, Any]], usage: Usage, state: Mapping[str, Any]
) -> dict[str, Any]:
    """A whole answer with what else its maker said."""
    body = {**patched(envelope, state.get("answer", {})), "output": items}
    if usage != Usage() or "usage" in state:
        body["usage"] = patched(_usage_object(usage) if usage != Usage() else {}, state.get("usage", {}))
    return body


def _usage(wire: Mapping[str, Any]) -> Usage:
    """The disjoint buckets of a usage object: its input includes what was cached, its output includes reasoning."""
    details, written = (mapping_of(wire.get(f"{side}_tokens_details")) for side in ("input", "output"))
    cache_read, cache_write = count_of(details.get("cached_tokens")), count_of(details.get("cache_write_tokens"))
    reasoning = count_of(written.get("reasoning_tokens"))
    read, output = count_of(wire.get("input_tokens")), count_of(wire.get("output_tokens"))
    return Usage(
        input=None if read is None else max(0, read - (cache_read or 0) - (cache_write or 0)),
        cache_read=cache_read,
        cache_write=cache_write,
        output=None if output is None else max(0, output - (reasoning or 0)),
        reasoning=reasoning,
        reported_total=count_of(wire.get("total_tokens")),
    )


def _usage_object(usage: Usage) -> dict[str, Any]:
    total = usage.total_tokens if usage.reported_total is None else usage.reported_total
    return _present(
        {
            "input_tokens": usage.input_tokens,
            "input_tokens_details": _present(
                {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write}
            ),
            "output_tokens": usage.output_tokens,
            "output_tokens_details": _present({"reasoning_tokens": usage.reasoning}),
            "total_tokens": total,
        }
    )


# The server's half: requests


def _refused(where: str, what: str) -> BadRequestError:
    return BadRequestError(f"{where}: {what}", status=400, code="invalid_request_error")


_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}


class _RequestReader:
    """Reads a client's request, strictly; keeps what it does not understand on the nearest value."""

    def __init__(self, dialect: OpenAIResponses) -> None:
        self._dialect = dialect
        self._encoder = _BodyEncoder(dialect)
        self._names: dict[str | None, str] = {}

    def read(self, wire: dict[str, Any]) -> Request:
        # A prompt that is kept by the server may name the model; what was said before may be kept there too.
        if not isinstance(model := wire.get("model", "" if "prompt" in wire else None), str):
            raise _refused("model", "a string is wanted")
        is_kept = any(name in wire for name in ("prompt", "conversation", "previous_response_id"))
        items = wire.get("input", [] if is_kept else None)
        if not is_array(items) or not (items or is_kept):
            raise _refused("input", "a string or a list of at least one item is wanted")
        if not isinstance(wire.get("stream", False), bool):
            raise _refused("stream", "true or false is wanted")
        if not is_array(tools := wire.get("tools", [])):
            raise _refused("tools", "a list is wanted")
        request = Request(
            model=model,
            messages=(*self._instructions(wire.get("instructions")), *self._messages(items)),
            tools=tuple(_read_tool(tool, f"tools[{at}]") for at, tool in enumerate(tools)),
            schema=_read_schema(mapping_of(mapping_of(wire.get("text")).get("format"))),
            stream=wire.get("stream", False),
            **self._options(wire),
        )
        ours = _BodyEncoder(self._dialect).body(request)
        apart = {"input", "tools", "instructions"} & wire.keys() & ours.keys()
        patch = difference(*({k: v for k, v in side.items() if k not in apart} for side in (wire, ours)))
        return msgspec.structs.replace(request, state=ProviderState(NAME, patch)) if patch else request

    def _options(self, wire: dict[str, Any]) -> dict[str, Any]:
        words = {"max_tokens": "max_output_tokens", **self._dialect.parameters}
        options = {
            name: wire[word] for name, word in words.items() if not isinstance(word, Unsupported) and word in wire
        }
        choice = wire.get("tool_choice")
        named = mapping_of(choice).get("name") if mapping_of(choice).get("type") == "function" else None
        options["tool_choice"] = choice if choice in ("auto", "none", "required") else named
        effort = mapping_of(wire.get("reasoning")).get("effort")
        options["thinking"] = effort if effort in get_args(Effort) else False if effort == "none" else None
        options["logprobs"] = True if _LOGPROBS in list_of(wire.get("include")) else None
        options["cache"] = True if self._dialect.caching.key in wire else None
        options = _present(options)
        try:
            msgspec.convert(options, Options)
        except (msgspec.ValidationError, UnicodeError) as error:
            what, _, where = str(error).partition(" - at `$.")
            raise _refused(str(words.get(where.rstrip("`"), where.rstrip("`"))), what) from None
        check_read(options, self._dialect.ranges, words)
        return options

    def _instructions(self, told: Any) -> Iterator[Message]:
        if isinstance(told, str):
            yield Message("system", (TextPart(text=told),), state=ProviderState(NAME, {"is_instructions": True}))

    def _messages(self, wire: list[Any]) -> Iterator[Message]:
        """The items as messages; those of one turn of the model, or of its tools, are one."""
        turn: list[Part] = []
        speaker: Role = "assistant"
        for at, item in enumerate(wire):
            where = f"input[{at}]"
            if not is_object(item) or (kind := _kind_of(item)) is None:
                raise _refused(f"{where}.type", "an item with a type or a role is wanted")
            role = self._role(item, where) if kind == "message" else "tool" if kind in _RESULTS else "assistant"
            joins = role == speaker and role in ("assistant", "tool")
            if turn and not joins:
                yield Message(speaker, tuple(turn))
            turn, speaker = turn if joins else [], role
            turn += self._parts(item, kind, role, where, turn[-1:])
        if turn:
            yield Message(speaker, tuple(turn))

    def _role(self, item: dict[str, Any], where: str) -> Role:
        if (role := _ROLES.get(str(item.get("role")))) is None:
            raise _refused(f"{where}.role", "one of user, assistant, system and developer is wanted")
        return role

    def _parts(self, item: dict[str, Any], kind: str, role: Role, where: str, before: list[Part]) -> list[Part]:
        """An item as parts; `before` is the part that they follow, if they do."""
        list_kind = kind if kind in _PLACES else None
        parts: list[Part]
        match kind:
            case "message":
                parts = [self._content(part, role, at) for part, at in self._entries(item, "content", where)]
                parts = parts or [TextPart(text="")]
            case "reasoning":
                parts = [
                    self._thought(part, place, at)
                    for place in _PLACES[kind]
                    for part, at in self._entries(item, place, where)
                ] or [Thinking(text="", state=ProviderState(NAME, {}))]
            case "function_call" | "custom_tool_call":
                parts = [self._call(item, kind, where)]
            case "function_call_output" | "custom_tool_call_output":
                parts = [self._result(item, where)]
            case _:
                parts = [ServerItem(kind=kind, id=text_of(item.get("id")))]
        first = parts[0]
        ours = self._encoder.result(first) if isinstance(first, ToolResult) else _item_of(list_kind, parts, role)
        if isinstance(call_id := ours.get("call_id"), str):
            # An id that this API would not take is its maker's, who is handed it back all the same.
            ours = {**ours, "call_id": fitting_id(call_id, _ID)}
        patch = _patch_of(item, ours)
        follows = bool(before) and list_kind is not None and _list_kind(before[0]) == list_kind
        if patch or follows or isinstance(first, ServerItem):
            parts[0] = _stated(first, {"item": patch})
        return parts

    def _entries(self, item: dict[str, Any], place: str, where: str) -> Iterator[tuple[dict[str, Any], str]]:
        """The parts of a list in an item, and where each is."""
        is_needed = place == "content" and _kind_of(item) == "message"
        entries = item.get(place, None if is_needed else [])
        if not is_array(entries):
            raise _refused(f"{where}.{place}", f"a {'string or a ' if is_needed else ''}list of parts is wanted")
        for number, part in enumerate(entries):
            at = f"{where}.{place}[{number}]"
            if not is_object(part) or (kind := text_of(part.get("type"))) is None:
                raise _refused(f"{at}.type", "a part with a type is wanted")
            if kind in _FIELDS and not isinstance(part.get(_FIELDS[kind]), str):
                raise _refused(f"{at}.{_FIELDS[kind]}", "a string is wanted")
            yield part, at

    def _content(self, part: dict[str, Any], role: Role, where: str) -> Part:
        worded = _worded(part)
        if role == "assistant" and isinstance(worded, (Image, File)):
            worded = _opaque(part)
        if isinstance(worded, ServerItem):
            return worded
        if isinstance(worded, Refusal) and role != "assistant":
            raise _refused(f"{where}.type", "only the model refuses")
        patch = difference(part, _part_of(worded, role))
        return _stated(worded, patch) if patch else worded

    def _thought(self, part: dict[str, Any], place: str, where: str) -> Part:
        text = text_of(part.get("text")) or ""
        patch = difference(part, _thought(text, place))
        return Thinking(text=text, state=ProviderState(NAME, {"place": place, **patch}))

    def _call(self, item: dict[str, Any], kind: str, where: str) -> Part:
        for name in ("call_id", "name", _FIELDS[kind]):
            if not isinstance(item.get(name), str):
                raise _refused(f"{where}.{name}", "a string is wanted")
        self._names[item["call_id"]] = item["name"]
        if kind == "custom_tool_call":
            self._encoder.note_custom(item["call_id"])
        state = ProviderState(NAME, {"form": "custom"}) if kind == "custom_tool_call" else None
        return ToolCall(name=item["name"], input=item[_FIELDS[kind]], id=item["call_id"], state=state)

    def _result(self, item: dict[str, Any], where: str) -> Part:
        if not isinstance(call_id := item.get("call_id"), str):
            raise _refused(f"{where}.call_id", "the id of a call is wanted")
        if isinstance(output := item.get("output"), str):
            output = [{"type": "input_text", "text": output}] if output else []
        if not is_array(output):
            raise _refused(f"{where}.output", "a string or a list of parts is wanted")
        content = tuple(self._shown(part, at) for part, at in self._entries({"output": output}, "output", where))
        return ToolResult(call_id=call_id, name=self._names.get(call_id, ""), content=content)

    def _shown(self, part: dict[str, Any], where: str) -> TextPart | Image | Value:
        """A part of a tool's output; what is neither text nor image is a JSON value to us."""
        worded = self._content(part, "tool", where)
        if isinstance(worded, (TextPart, Image)):
            return worded
        return Value(value=part, state=ProviderState(NAME, {"is_part": True}))


def _stated(part: Part, more: dict[str, Any]) -> Part:
    """The part with more in its state."""
    return msgspec.structs.replace(part, state=ProviderState(NAME, {**own_state(part.state, NAME), **more}))


def _read_tool(tool: Any, where: str) -> ToolSpec:
    if not is_object(tool) or (kind := text_of(tool.get("type"))) is None:
        raise _refused(f"{where}.type", "a tool with a type is wanted")
    name = text_of(tool.get("name"))
    if kind != "function":
        # One that the provider runs, or whose input is a text: kept whole, as it has no schema that we know.
        unset = [key for key in _tool_of(ToolSpec("")) if key not in tool]
        return ToolSpec(name or kind, state=ProviderState(NAME, {"set": tool, "unset": unset}))
    if name is None:
        raise _refused(f"{where}.name", "a string is wanted")
    parameters = tool.get("parameters")
    spec = ToolSpec(name, text_of(tool.get("description")) or "", parameters if is_object(parameters) else {})
    patch = difference(tool, _tool_of(spec))
    return msgspec.structs.replace(spec, state=ProviderState(NAME, patch)) if patch else spec


def _read_schema(format_: dict[str, Any]) -> OutputSchema | None:
    schema = format_.get("schema")
    if format_.get("type") != "json_schema" or not is_object(schema):
        return None
    return OutputSchema(text_of(format_.get("name")) or "answer", schema)


# The server's half: answers


def _has_place(part: Part) -> bool:
    """Whether an answer has a place for this part; an item that another provider made is nothing here."""
    if isinstance(part, (Image, Audio, File, ToolResult)):
        raise _no_place(type(part).__name__.lower())
    return not isinstance(part, ServerItem) or bool(own_state(part.state, NAME))


def _no_place(kind: str) -> UnsupportedError:
    return UnsupportedError(f"this API's answers have no place for what the model made: {kind}")


def _answer_item(group: _Group) -> dict[str, Any]:
    item = _item_of(group.kind, group.parts, "assistant")
    if group.kind == "message":
        # Its readers count on annotations.
        item["content"] = [
            {**part, "annotations": part.get("annotations", [])} if part.get("type") == "output_text" else part
            for part in item["content"]
        ]
    return patched(item, group.patch)


class _Telling:
    """One item of an answer being told."""

    __slots__ = ("counts", "index", "is_begun", "item", "kind", "parts", "patch")

    def __init__(self, index: int, kind: str | None, patch: Mapping[str, Any]) -> None:
        self.index = index
        self.kind = kind
        self.patch = patch
        self.parts: list[int] = []
        self.item: dict[str, Any] = {}
        self.is_begun = False
        self.counts: dict[str, int] = {}


class _Place(NamedTuple):
    """Where a part of ours is told: the events' name, and their field that numbers it."""

    name: str
    where: _Where
    number: int

    @property
    def fields(self) -> dict[str, int]:
        return {self.where.number: self.number} if self.where.number else {}


class ResponsesEncoder:
    """Encodes the deltas of one answer as a stream. States are taken for this format's own.

    Items and their parts are told as they begin and grow, and that they are done is told at the end, when all is known
    of them. A call cannot be told before its id and name have come, and what comes after it waits for that.
    """

    def __init__(self) -> None:
        self._total = Assembler(NAME)
        self._sequence = 0
        self._has_begun = False
        self._items: list[_Telling] = []
        self._openings: dict[int, Open] = {}
        self._states: dict[int, dict[str, Any]] = {}
        self._by_part: dict[int, _Telling] = {}
        self._places: dict[int, _Place] = {}
        self._annotations: dict[int, int] = {}
        self._unnamed: _Telling | None = None
        self._waiting: deque[Delta] = deque()

    def feed(self, delta: Delta) -> bytes:
        self._total.add(delta)
        match delta:
            case Open() | Note() | Text() | State(part=int()):
                return self._tell(delta) + self._go_on()
            case _:
                return b""

    def fail(self, error: SabirError) -> bytes:
        begun = b"" if self._total.id is None else self._begin()
        return begun + self._event("error", **decode_json(failure_object(error, in_stream=True)[1]))

    def close(self) -> bytes:
        out = [self._begin()]
        while self._unnamed is not None:
            out += [self._announce(self._unnamed), self._go_on()]
        message, finish = self._total.message(), self._total.finishes.get(0)
        ours = [number for number, opening in self._openings.items() if opening.choice == 0]
        parts = dict(zip(ours, message.parts, strict=True))
        items: list[dict[str, Any]] = []
        for telling in self._items:
            own = [parts[number] for number in telling.parts]
            item = _answer_item(_Group(telling.kind, own, own_state(own[0].state, NAME).get("item", {})))
            out += [*(self._end(telling, number, parts[number]) for number in telling.parts)]
            out.append(self._event("response.output_item.done", output_index=telling.index, item=item))
            items.append(item)
        envelope = _envelope(message.id, message.model, finish.reason if finish else None)
        body = _answer_object(envelope, items, self._total.usage, self._total.state)
        status = body.get("status")
        # What is not known to be complete is not said to be.
        word = status if status in ("incomplete", "cancelled") else "completed" if status else "incomplete"
        return b"".join([*out, self._event(f"response.{word}", response=body)])

    def _begin(self) -> bytes:
        if self._has_begun:
            return b""
        self._has_begun = True
        envelope = patched(_envelope(self._total.id, self._total.model, None), self._total.state.get("answer", {}))
        known = {name: value for name, value in envelope.items() if name not in _LATE}
        body: dict[str, Any] = {**known, "status": "in_progress", "output": []}
        return self._event("response.created", response=body) + self._event("response.in_progress", response=body)

    def _tell(self, delta: Delta) -> bytes:
        """A delta of a part: told now, or kept until its turn comes."""
        unnamed = self._unnamed
        if unnamed is not None and not (isinstance(delta, State) and delta.part == unnamed.parts[0]):
            self._waiting.append(delta)
            return b""
        match delta:
            case Open():
                return self._open(delta)
            case Text() if delta.text:
                return self._text(delta)
            case Note():
                return self._note(delta)
            case State():
                return self._patch(delta)
            case _:
                return b""

    def _go_on(self) -> bytes:
        """Tell what has waited for a call to be named, up to the next that is not."""
        told: list[bytes] = []
        while self._waiting and self._unnamed is None:
            told.append(self._tell(self._waiting.popleft()))
        return b"".join(told)

    def _open(self, opening: Open) -> bytes:
        self._openings[opening.part] = opening
        state = self._states[opening.part] = dict(opening.state or {})
        if opening.kind in ("image", "audio", "file"):
            raise _no_place(opening.kind)
        if opening.choice or (opening.kind == "server" and not state):
            return b""
        kind = "message" if state.get("is_content") else _LIST_KINDS.get(opening.kind)
        if not self._items or kind is None or self._items[-1].kind != kind or "item" in state:
            self._items.append(_Telling(len(self._items), kind, state.get("item", {})))
        telling = self._by_part[opening.part] = self._items[-1]
        telling.parts.append(opening.part)
        if opening.kind == "call" and (opening.id is None or opening.name is None):
            self._unnamed = telling
            return self._begin()
        begun = self._begin() + self._announce(telling)
        # What may turn out to have no text is then no part of its item.
        patch = telling.patch.get("set", {})
        is_empty = "place" not in state if opening.kind == "thinking" else kind is not None and "content" in patch
        return begun if is_empty else begun + self._add(telling, opening)

    def _announce(self, telling: _Telling) -> bytes:
        """Tell that an item begins."""
        if telling.is_begun:
            return b""
        telling.is_begun, self._unnamed = True, None
        opening, state = self._openings[telling.parts[0]], self._states[telling.parts[0]]
        match telling.kind:
            case "message":
                item: dict[str, Any] = {"type": "message", "role": "assistant", "content": []}
            case "reasoning":
                item = {"type": "reasoning", "summary": []}
            case _:
                item = {"type": opening.name, "id": opening.id}
        if opening.kind == "call":
            kind = "custom_tool_call" if state.get("form") == "custom" else "function_call"
            item = {"type": kind, "call_id": opening.id, "name": opening.name, _FIELDS[kind]: ""}
        item = patched(_present(item), telling.patch)
        telling.item = {**item, "status": "in_progress"} if "status" in item else item
        return self._event("response.output_item.added", output_index=telling.index, item=telling.item)

    def _add(self, telling: _Telling, opening: Open) -> bytes:
        """Give a part its place in its item, and tell that it begins there."""
        state = self._states[opening.part]
        match opening.kind:
            case "text" | "refusal":
                kind = "output_text" if opening.kind == "text" else "refusal"
            case "thinking":
                kind = "reasoning_text" if state.get("place") == "content" else "summary_text"
            case "call":
                kind = "custom_tool_call" if state.get("form") == "custom" else "function_call"
            case _:
                kind = opening.name or ""
        name, where = _BY_PART.get(kind, ("", _TEXT if state.get("is_content") else _NOWHERE))
        number = telling.counts.get(where.place, 0)
        telling.counts[where.place] = number + 1
        place = self._places[opening.part] = _Place(name, where, number)
        if not where.place:
            return b""
        empty: dict[str, Any] = {"type": kind, **({_FIELDS[kind]: ""} if name else {})}
        part = patched({**empty, **({"annotations": []} if kind == "output_text" else {})}, state)
        return self._more(telling, f"{_part_event(place)}.added", **place.fields, part=part)

    def _text(self, delta: Text) -> bytes:
        telling, opening = self._by_part.get(delta.part), self._openings[delta.part]
        if telling is None:
            return b""
        begun = b"" if delta.part in self._places else self._add(telling, opening)
        place = self._places[delta.part]
        if not place.name:
            return begun
        beside = _NO_LOGPROBS if place.where is _TEXT else {}
        return begun + self._more(telling, f"{place.name}.delta", **place.fields, delta=delta.text, **beside)

    def _note(self, delta: Note) -> bytes:
        telling, opening = self._by_part.get(delta.part), self._openings[delta.part]
        if telling is None or opening.kind != "text" or not (_is_logprob(delta.value) or _is_annotation(delta.value)):
            return b""
        begun = b"" if delta.part in self._places else self._add(telling, opening)
        fields = self._places[delta.part].fields
        if _is_logprob(delta.value):
            logprobs = [delta.value["logprob"]]
            return begun + self._more(telling, "response.output_text.delta", **fields, delta="", logprobs=logprobs)
        number = self._annotations.get(delta.part, 0)
        self._annotations[delta.part] = number + 1
        told = {"annotation_index": number, "annotation": delta.value}
        return begun + self._more(telling, "response.output_text.annotation.added", **fields, **told)

    def _patch(self, delta: State) -> bytes:
        assert delta.part is not None
        opening = self._openings[delta.part]
        self._states[delta.part].update(delta.patch)
        late = {"id": opening.id or delta.id, "name": opening.name or delta.name}
        opening = self._openings[delta.part] = msgspec.structs.replace(opening, **late)
        is_named = opening.id is not None and opening.name is not None
        return self._announce(self._unnamed) if self._unnamed is not None and is_named else b""

    def _end(self, telling: _Telling, number: int, part: Part) -> bytes:
        """Tell a part whole, once more."""
        place = self._places.get(number)
        if place is None or not (place.name or place.where.place):
            return b""
        text = part.input if isinstance(part, ToolCall) else getattr(part, "text", "")
        out: list[bytes] = []
        if place.name:
            beside = _NO_LOGPROBS if place.where is _TEXT else {}
            field = _FIELDS[place.where.part]
            out.append(self._more(telling, f"{place.name}.done", **place.fields, **{field: text}, **beside))
        if place.where.place:
            if isinstance(part, Thinking):
                whole = patched(_thought(text, place.where.place), own_state(part.state, NAME))
            else:
                whole = _answer_item(_Group("message", [part], {}))["content"][0]
            out.append(self._more(telling, f"{_part_event(place)}.done", **place.fields, part=whole))
        return b"".join(out)

    def _more(self, telling: _Telling, name: str, **fields: Any) -> bytes:
        item_id = telling.item.get("id")
        return self._event(name, item_id=item_id if item_id is not None else "", output_index=telling.index, **fields)

    def _event(self, name: str, **fields: Any) -> bytes:
        event = {"type": name, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return b"event: " + name.encode() + b"\ndata: " + encode_json(event) + b"\n\n"


_LIST_KINDS: dict[PartKind, str] = {"text": "message", "refusal": "message", "thinking": "reasoning"}
_NO_LOGPROBS: dict[str, list[Any]] = {"logprobs": []}
_BY_PART = {where.part: (name, where) for name, where in _STREAMED.items()}
# A server's item without a text has none that is streamed.
_NOWHERE = _Where("", "", "", "")


def _part_event(place: _Place) -> str:
    return "response.reasoning_summary_part" if place.where.place == "summary" else "response.content_part"
