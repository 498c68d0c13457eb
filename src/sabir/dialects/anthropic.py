"""Anthropic's Messages API, both halves. Knows no provider, only quirks.

Sources: https://platform.claude.com/docs/en/api/messages, the types of Anthropic's Python SDK (2.12, 2026-11) and 198
recorded exchanges. A block of the wire is a part of ours; what a block, message, tool or request says beyond our words
is a patch in its state, so that it can be said again. Blocks that only Anthropic can read stay as they are.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Literal, get_args
from urllib.parse import quote

import msgspec

from ..deltas import Close, Count, Delta, Event, Finish, FinishReason, Head, Note, Open, PartKind, State, Text
from ..errors import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    DeadlineExceeded,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProviderError,
    RateLimitError,
    SabirError,
    ServerError,
    StreamInterrupted,
    StreamProtocolError,
    UnsupportedError,
)
from ..lowering import lowered
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
from ..requests import Effort, HttpRequest, Notice, Options, OutputSchema, Request, Response, SchemaMode, ToolSpec
from ..strict_json import decode_json, encode_json, is_array, is_object
from ..usage import Usage
from . import NO_DOCUMENTS, Unsupported, Verdicts, count_of, event_object, list_of, lost_citations, mapping_of, text_of
from .cache_marks import ANY_MODEL, LEAST_OF_CLAUDE, Caching, control_of, is_in_order, mark_of, placed
from .call_arguments import arguments_object, arguments_text
from .call_ids import fitting_ids, with_fitting_id
from .failures import error_from_value, provider_error, status_of
from .frames import Frame
from .leftovers import difference, own_state, patched
from .media_rules import MEGABYTE, TEXTUAL, MediaRules
from .places import no_place
from .prefills import CLAUDE, Prefill
from .ranges import PORTABLE, Ranges, check_read, check_sent
from .sse import EventStream
from .subsets import ANTHROPIC, parameters_of, shape_of, told_of_tools

NAME = "anthropic"
_VERTEX_VERSION = "vertex-2023-10-16"

# The verdict on each portable parameter: the wire's word for it, or why there is none.
PARAMETERS: Verdicts = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "stop": "stop_sequences",
    "min_p": Unsupported("this API has no min_p; use top_p"),
    "seed": Unsupported("this API has no seed; set temperature=0"),
    "frequency_penalty": Unsupported("this API has no penalties; say in the prompt what is not to be repeated"),
    "presence_penalty": Unsupported("this API has no penalties; say in the prompt what is not to be repeated"),
    "repetition_penalty": Unsupported("this API has no penalties; say in the prompt what is not to be repeated"),
    "logprobs": Unsupported("this API tells no log probabilities; choose another provider"),
    "top_logprobs": Unsupported("this API tells no log probabilities; choose another provider"),
    "documents": NO_DOCUMENTS,
    "n": Unsupported("this API gives one answer; ask several times"),
}

# https://docs.anthropic.com/en/api/messages
# Nothing at all may be wanted of an answer, which then only fills the cache.
RANGES: Ranges = {**PORTABLE, "temperature": (0, 1), "max_tokens": (0, inf)}

_FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "refusal",
    "pause_turn": "paused",
    "compaction": "paused",
}
_STOP_REASON: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "refusal": "refusal",
    "content_filter": "refusal",
    "paused": "pause_turn",
}
# An error's type on the wire, by the first of these that it is.
_ERROR_TYPES: tuple[tuple[type[SabirError], str], ...] = (
    (AuthenticationError, "authentication_error"),
    (PermissionDeniedError, "permission_error"),
    (NotFoundError, "not_found_error"),
    (RateLimitError, "rate_limit_error"),
    (OverloadedError, "overloaded_error"),
    (BadRequestError, "invalid_request_error"),
    (ConfigurationError, "invalid_request_error"),
    (UnsupportedError, "invalid_request_error"),
    (DeadlineExceeded, "timeout_error"),
)
# Other ids of calls are refused with HTTP 400.
_ID = re.compile(r"[a-zA-Z0-9_-]+")
# Models that think adaptively, and those that take no sampling parameters (400 "temperature is deprecated for this
# model") and no budgets either: https://platform.claude.com/docs/en/about-claude/models/migration-guide, 2026-11.
_ADAPTIVE = re.compile(r"claude-[a-z]+-(?:4-(?:[6-9]|\d\d)|[5-9])(?!\d)")
_UNSAMPLED = re.compile(r"claude-[a-z]+-(?:4-(?:[7-9]|\d\d)|[5-9])(?!\d)")
_BUDGETS: dict[str, int] = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384}
_LEAST_BUDGET = 1024
# https://platform.claude.com/docs/en/build-with-claude/structured-outputs: no Claude before 4.5 has them.
_SCHEMALESS = re.compile(r"claude-(?:v|instant|[123])|claude-[a-z]+-4-(?:[01](?!\d)|\d{8})")
# The blocks that become parts in our words; every other is a ServerItem.
_IN_ANSWER = frozenset({"text", "thinking", "redacted_thinking", "tool_use"})
_IN_PROMPT = _IN_ANSWER | {"tool_result", "image", "document"}
# A part that is no call can be cut; its field on the wire, and the delta that carries more of it.
_STREAMED = {"text": "text_delta", "thinking": "thinking_delta"}
_KINDS: dict[type[Part], PartKind] = {TextPart: "text", Thinking: "thinking", ToolCall: "call", ServerItem: "server"}
_IN_MESSAGE_DELTA = ("stop_reason", "stop_sequence", "stop_details", "container")
# https://platform.claude.com/docs/en/build-with-claude/vision: 32 MB a request, and base64 takes 4 bytes for 3.
MEDIA = MediaRules(
    types={
        Image: ("image/png", "image/jpeg", "image/webp", "image/gif"),
        File: ("application/pdf", *TEXTUAL),
    },
    most={Image: 24 * MEGABYTE, File: 24 * MEGABYTE},
)
CACHING = Caching(marked=ANY_MODEL, least=LEAST_OF_CLAUDE)
# The same page: Google Cloud and Amazon fetch nothing.
CLOUD_MEDIA = replace(MEDIA, inlined=(Image, File))


@dataclass(frozen=True)
class Anthropic:
    """The dialect with the quirks of one kind of server.

    Attributes:
        version: the header `anthropic-version`.
        max_tokens: what is sent where the caller sets no limit, since this API requires one.
        parameters: the verdict on each portable parameter.
        ranges: what its numbers may be.
        thinking: how it is asked for: "budget" (in tokens) or "adaptive" (by effort); None is by the model's name.
        schema: "output_config" (structured outputs, Claude 4.5 and later) or "prompt" (the schema is described).
        inline_system: whether system messages may stand in the middle (Claude Opus 4.8 and later).
        host: "vertex" where Google Cloud serves the models: the model is in the address, the version in the body.
        media: what the server takes of images and documents.
        caching: where it is told to keep a prompt.
        prefill: which models go on with the beginning of an answer.
    """

    version: str = "2023-06-01"
    max_tokens: int = 8192
    parameters: Verdicts = field(default_factory=lambda: PARAMETERS)
    ranges: Ranges = field(default_factory=lambda: RANGES)
    thinking: Literal["budget", "adaptive"] | None = None
    schema: Literal["output_config", "prompt"] = "output_config"
    inline_system: bool = False
    host: Literal["vertex"] | None = None
    media: MediaRules = MEDIA
    caching: Caching = CACHING
    prefill: Prefill | None = CLAUDE

    name = NAME

    def verdicts(self) -> Verdicts:
        """The verdict on every portable parameter."""
        special = {
            "max_tokens": "max_tokens",
            "thinking": f"thinking ({self.thinking or 'budget or adaptive, by model'})",
            "tool_choice": "tool_choice",
            "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
            "user": "metadata.user_id",
            "schema": "output_config.format" if self.schema == "output_config" else "(described in the prompt)",
            "cache": self.caching.verdict("cache_control"),
        }
        return {**self.parameters, **special, "extra": "(as given)", "headers": "(as given)"}

    def schema_modes(self, request: Request) -> tuple[SchemaMode, ...]:
        # A tool cannot be forced while the model thinks.
        others: tuple[SchemaMode, ...] = ("prompt", "tool") if request.thinking else ("tool", "prompt")
        is_native = self.schema == "output_config" and not _SCHEMALESS.search(request.model)
        is_native = is_native and (request.schema is None or lowered(request.schema.json, ANTHROPIC).obstacle is None)
        return ("native", *others) if is_native else others

    def encode_request(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        check_sent(request, self.ranges, self.parameters)
        encoder = _BodyEncoder(self)
        fields = encoder.body(request)
        if self.host == "vertex":
            method = "streamRawPredict" if request.stream else "rawPredict"
            url = f"/models/{quote(fields.pop('model'))}:{method}"
            body = encode_json({"anthropic_version": _VERTEX_VERSION, **fields})
            headers = (("content-type", "application/json"), *request.headers.items())
            return HttpRequest("POST", url, headers, body), tuple(encoder.notices)
        body = encode_json(fields)
        theirs = {name.lower() for name in request.headers}
        ours = (("content-type", "application/json"), ("anthropic-version", self.version))
        headers = (*(header for header in ours if header[0] not in theirs), *request.headers.items())
        return HttpRequest("POST", "/v1/messages", headers, body), tuple(encoder.notices)

    def decode_answer(self, body: bytes) -> list[Delta]:
        text = body[:10_000].decode("utf-8", "replace")
        try:
            value = decode_json(body)
        except ValueError as error:
            raise ServerError(f"the answer is no JSON: {error}", status=200, body=text) from None
        if mapping_of(value).get("error"):
            raise _failure(value)
        if not is_object(value) or not is_array(value.get("content")):
            raise StreamProtocolError("the answer is no message: it has no content", body=text)
        deltas: list[Delta] = []
        _AnswerReader().begin(value, deltas)
        return deltas

    def decoder(self) -> AnthropicDecoder:
        return AnthropicDecoder()

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
        state = own_state(message.state, NAME)
        body = _answer(message.id, response.model, response.finish_reason)
        body["content"] = [block for part in message.parts for block in _answer_blocks(part)]
        body["usage"] = patched(_usage_object(response.usage), state.get("usage", {}))
        return encode_json(patched(body, state.get("answer", {})))

    def encoder(self, request: Request | None = None) -> AnthropicEncoder:
        return AnthropicEncoder()

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        is_overload = isinstance(error, OverloadedError) and error.status is None
        status = 529 if is_overload else status_of(error)
        kind = next((name for family, name in _ERROR_TYPES if isinstance(error, family)), "api_error")
        fields: dict[str, Any] = {"type": "request_too_large" if status == 413 else kind, "message": error.message}
        if error.code and error.code != kind:
            fields["details"] = {"error_code": error.code}
        told = {"request_id": error.request_id} if error.request_id else {}
        return status, encode_json({"type": "error", "error": fields, **told})

    def canonical_request(self, body: dict[str, Any]) -> dict[str, Any]:
        """What means the same is made the same: see `canonical_answer`; further, in a request

        - `stream: false` and `tools: []` are absent, and so is `system` with nothing in it;
        - a string (as content, system, or a tool's result) is one block of text;
        - text that shows nothing, and a message with nothing else in it, is absent: the API refuses it.
        """
        wire = {name: value for name, value in _present(body).items() if (name, value) not in _NOTHING}
        if system := _canonical_content(wire.pop("system", [])):
            wire["system"] = system
        if is_array(tools := wire.get("tools")):
            wire["tools"] = [_present(tool) if _is_custom(tool) else tool for tool in tools]
        if is_array(messages := wire.get("messages")):
            messages = [_canonical_message(message) for message in messages]
            wire["messages"] = [message for message in messages if mapping_of(message).get("content") != []]
        return wire

    def canonical_answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """What means the same is made the same: null is absent, in the objects that we read (and not deeper, in a
        tool's input or in blocks that only Anthropic reads); no citations and an empty signature are absent.
        """
        canonical = _present(body)
        if is_array(content := canonical.get("content")):
            canonical["content"] = [_canonical_block(block) for block in content]
        if is_object(usage := canonical.get("usage")):
            canonical["usage"] = _present(usage)
        return canonical


_NOTHING: tuple[tuple[str, Any], ...] = (("stream", False), ("tools", []))
_NOTHING_IN_A_BLOCK: tuple[tuple[str, Any], ...] = (("citations", []), ("signature", ""))


def _present(object_: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in object_.items() if value is not None}


def _is_custom(tool: Any) -> bool:
    """Whether a tool is the caller's, and not one that Anthropic runs or has trained its models for."""
    return is_object(tool) and tool.get("type") in (None, "custom")


def _canonical_message(message: Any) -> Any:
    if not is_object(message) or "content" not in message:
        return message
    return {**_present(message), "content": _canonical_content(message["content"])}


def _canonical_content(content: Any) -> Any:
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    return _visible([_canonical_block(block) for block in content]) if is_array(content) else content


def _canonical_block(block: Any) -> Any:
    if not is_object(block) or text_of(block.get("type")) not in _IN_PROMPT:
        return block
    canonical = {name: value for name, value in _present(block).items() if (name, value) not in _NOTHING_IN_A_BLOCK}
    if block["type"] == "tool_result" and (content := _canonical_content(canonical.pop("content", []))) != []:
        canonical["content"] = content
    return canonical


def _visible(blocks: list[Any]) -> list[Any]:
    """The blocks without text that shows nothing: empty text, and blank text if there is no other."""
    texts = [text for block in blocks if (text := _text_in(block)) is not None]
    is_blank = not any(text.strip() for text in texts)
    return [block for block in blocks if (text := _text_in(block)) is None or (text and not is_blank)]


def _text_in(block: Any) -> str | None:
    """The text of a block of text, None of any other."""
    text = block.get("text") if is_object(block) and block.get("type") == "text" else None
    return text if isinstance(text, str) else None


# Blocks and parts, for both halves


def _part_of(block: dict[str, Any], kinds: frozenset[str]) -> Part:
    """A block as a part; `kinds` are the blocks that are more than opaque here."""
    block = _canonical_block(block)
    part = _worded(block) if block["type"] in kinds else None
    if part is None:
        # Kept with its nulls: in some blocks (a compaction that failed) they say something.
        rest = {name: value for name, value in block.items() if name != "type"}
        return ServerItem(kind=block["type"], id=text_of(block.get("id")), state=ProviderState(NAME, {"set": rest}))
    if mark := mark_of(block.get("cache_control")):
        part = msgspec.structs.replace(part, cache=mark)
    # An id that this API would not take is its maker's, who is handed it back all the same.
    patch = difference(block, _block_of(with_fitting_id(part, _ID)))
    return msgspec.structs.replace(part, state=ProviderState(NAME, patch)) if patch else part


def _worded(block: dict[str, Any]) -> Part | None:
    """A block in our words, as far as they go; None if they say nothing of it."""
    match block["type"]:
        case "text":
            citations = list_of(block.get("citations"))
            return TextPart(text=text_of(block.get("text")) or "", notes=tuple(filter(_is_citation, citations)))
        case "thinking" | "redacted_thinking":
            return Thinking(text=text_of(block.get("thinking")) or "")
        case "tool_use":
            if (name := text_of(block.get("name"))) is None:
                raise StreamProtocolError("a tool call came without the name of a tool")
            return ToolCall(name=name, input=arguments_text(block.get("input", {})), id=text_of(block.get("id")))
        case "tool_result":
            content = tuple(_result_part(item) for item in list_of(block.get("content")))
            is_error = block.get("is_error") is True
            return ToolResult(call_id=text_of(block.get("tool_use_id")), name="", content=content, is_error=is_error)
        case _:
            return _media(block)


def _is_citation(note: Any) -> bool:
    """Whether a note is a citation of this API's, and not another's annotation: its citations all quote."""
    return is_object(note) and isinstance(note.get("cited_text"), str)


def _result_part(block: Any) -> TextPart | Image | Value:
    """A block of a tool's result; what is neither text nor image (documents, search results) is a JSON value to us."""
    if not is_object(block):
        raise StreamProtocolError("a block of a tool's result is no object")
    if block.get("type") in ("text", "image"):
        part = _part_of(block, _IN_PROMPT)
        if isinstance(part, (TextPart, Image)):
            return part
    return Value(value=block, state=ProviderState(NAME, {"is_block": True}))


def _media(block: dict[str, Any]) -> Image | File | None:
    source = mapping_of(block.get("source"))
    url, file_id, data = (text_of(source.get(name)) for name in ("url", "file_id", "data"))
    media_type = text_of(source.get("media_type"))
    is_document = block["type"] == "document"
    name = text_of(block.get("title"))
    match source.get("type"):
        case "url" if url:
            return File(url=url, name=name) if is_document else Image(url=url)
        case "file" if file_id and is_document:
            return File(id=file_id, name=name)
        case "text" if data and is_document:
            return File(data=data.encode("utf-8", "surrogatepass"), media_type="text/plain", name=name)
        case "base64" if data and media_type == "application/pdf" and is_document:
            return File(data=_bytes_of(data), media_type=media_type, name=name)
        case "base64" if data and not is_document:
            return Image(data=_bytes_of(data), media_type=media_type)
        case _:
            return None


def _bytes_of(data: str) -> bytes:
    try:
        return b64decode("".join(data.split()), validate=True)
    except ValueError:
        raise StreamProtocolError("the data of a source is no base64") from None


def _block_of(part: Part) -> dict[str, Any]:
    """A part as a block, without what only its state says."""
    block = _bare_block(part)
    return {**block, "cache_control": control_of(part.cache)} if part.cache else block


def _bare_block(part: Part) -> dict[str, Any]:
    match part:
        case TextPart():
            citations = [note for note in part.notes if _is_citation(note)]
            return {"type": "text", "text": part.text, **({"citations": citations} if citations else {})}
        case Refusal():
            return {"type": "text", "text": part.text}
        case Value() if own_state(part.state, NAME).get("is_block"):
            return part.value if is_object(part.value) else {}
        case Value():
            return {"type": "text", "text": encode_json(part.value).decode()}
        case Thinking():
            return {"type": "thinking", "thinking": part.text}
        case ToolCall():
            return _present(
                {"type": "tool_use", "id": part.id, "name": part.name, "input": arguments_object(part.input)}
            )
        case ToolResult():
            content = _visible([patched(_block_of(item), own_state(item.state, NAME)) for item in part.content])
            filled = {"content": content or None, "is_error": True if part.is_error else None}
            return _present({"type": "tool_result", "tool_use_id": part.call_id, **filled})
        case Image():
            return {"type": "image", "source": _source(part, part.media_type or "image/png")}
        case File(id=str() as file_id):
            return _present({"type": "document", "source": {"type": "file", "file_id": file_id}, "title": part.name})
        case File():
            source = _source(part, part.media_type or "application/pdf")
            return _present({"type": "document", "source": source, "title": part.name})
        case ServerItem():
            return {"type": part.kind}
        case Audio():
            raise UnsupportedError("this API hears no audio; choose another provider, or send a transcript")


def _source(part: Image | File, media_type: str) -> dict[str, Any]:
    if part.url is not None:
        return {"type": "url", "url": part.url}
    data = part.data or b""
    if isinstance(part, File) and media_type.startswith(TEXTUAL):
        try:
            return {"type": "text", "media_type": "text/plain", "data": data.decode("utf-8", "surrogatepass")}
        except UnicodeDecodeError:
            raise UnsupportedError(f"the file {part.name or '(no name)'} is no UTF-8 text; convert it first") from None
    if isinstance(part, File) and media_type != "application/pdf":
        raise UnsupportedError(f"this API reads PDF and text documents, not {media_type}; convert it first")
    return {"type": "base64", "media_type": media_type, "data": b64encode(data).decode()}


# The client's half: requests


class _BodyEncoder:
    def __init__(self, dialect: Anthropic) -> None:
        self._dialect = dialect
        self.notices: list[Notice] = []

    def body(self, request: Request) -> dict[str, Any]:
        """The JSON body; `request.extra` goes over it as it is."""
        patch = self._own(request.state, "request")
        # A mark for the whole request is in this format's own words, and is no other marks'.
        if "cache_control" not in patch.get("set", {}):
            request, notices = placed(request, self._dialect.caching)
            self.notices += notices
        fit, has_others = fitting_ids(request.messages, _ID, NAME)
        if has_others:
            self._emulate("id", "ids of calls were replaced by ones that this API takes: letters, digits, _ and -")
        self.notices += lost_citations(request.messages, _is_citation)
        system, messages = self._conversation(fit)
        body: dict[str, Any] = {"model": request.model, "max_tokens": request.max_tokens}
        if request.max_tokens is None:
            body["max_tokens"] = self._dialect.max_tokens
        if request.stream:
            body["stream"] = True
        for parameter, verdict in self._dialect.parameters.items():
            if (value := getattr(request, parameter)) is None:
                continue
            if isinstance(verdict, Unsupported):
                self._refuse(parameter, str(verdict))
            else:
                body[verdict] = list(value) if parameter == "stop" else value
        if request.user is not None:
            body["metadata"] = {"user_id": request.user}
        if request.tools:
            body["tools"] = [self._tool(tool) for tool in request.tools]
            self.notices += told_of_tools(request.tools, NAME)
        self._choose_tool(request, body)
        # What a client of ours has asked for in this format's own words is not translated again.
        in_its_words = patch.get("set", {})
        if request.thinking is not None and "thinking" not in in_its_words:
            self._think(request.thinking, body)
        if request.max_tokens is None:
            sent = body["max_tokens"]
            self._emulate("max_tokens", f"this API requires max_tokens, and none was set: {sent} was sent")
        elif body["max_tokens"] != request.max_tokens:
            raised = body["max_tokens"]
            self._emulate("max_tokens", f"max_tokens includes thinking here, and was raised to {raised}")
        self._check_sampling(body, in_its_words)
        if request.schema is not None and request.schema.mode == "native" and "output_config" not in in_its_words:
            self._shape(request.schema, body)
        said = {"messages": messages, **({"system": system} if system else {})}
        return {**patched(body, patch), **said, **request.extra}

    def _choose_tool(self, request: Request, body: dict[str, Any]) -> None:
        choice, parallel = request.tool_choice, request.parallel_tool_calls
        kinds = {None: "auto", "auto": "auto", "none": "none", "required": "any"}
        encoded: dict[str, Any] = {"type": kinds[choice]} if choice in kinds else {"type": "tool", "name": choice}
        if parallel is not None and encoded["type"] != "none":
            encoded["disable_parallel_tool_use"] = not parallel
        if request.tools and (choice, parallel) != (None, None):
            body["tool_choice"] = encoded
        elif choice is not None or parallel is not None:
            self._drop("tool_choice", "there is no choice of tools to send: the request has no tools")

    def _think(self, asked: bool | int | str, body: dict[str, Any]) -> None:
        if asked is False:
            body["thinking"] = {"type": "disabled"}
            return
        if mapping_of(body.get("tool_choice")).get("type") in ("any", "tool"):
            self._refuse("thinking", "this API cannot think where a tool is forced; leave tool_choice to 'auto'")
            return
        by_name: Literal["budget", "adaptive"] = "adaptive" if _ADAPTIVE.search(body["model"]) else "budget"
        if (self._dialect.thinking or by_name) == "adaptive":
            self._think_adaptively(asked, body)
        else:
            self._think_within(asked, body)

    def _check_sampling(self, body: dict[str, Any], in_its_words: Mapping[str, Any]) -> None:
        """Leave out what the model refuses: any of it, or what is bolder than a thinking model may be."""
        thinks = mapping_of(body.get("thinking")).get("type") in ("enabled", "adaptive")
        for name, least in (("temperature", 1), ("top_p", 0.95), ("top_k", inf)):
            if name not in body or name in in_its_words:
                continue
            if _UNSAMPLED.search(body["model"]):
                self._refuse(name, "this model takes no sampling parameters; leave it out")
            elif thinks and body[name] < least:
                self._refuse(name, f"this API takes no {name}={body[name]} with thinking; leave one of them out")
            else:
                continue
            del body[name]

    def _think_adaptively(self, asked: bool | int | str, body: dict[str, Any]) -> None:
        body["thinking"] = {"type": "adaptive"}
        if asked is True:
            return
        effort = asked if isinstance(asked, str) else next((e for e, most in _BUDGETS.items() if asked <= most), "high")
        effort = "low" if effort == "minimal" else effort
        body["output_config"] = {"effort": effort}
        if effort != asked:
            self._emulate("thinking", f"thinking={asked!r} was approximated: sent as effort={effort!r}")

    def _think_within(self, asked: bool | int | str, body: dict[str, Any]) -> None:
        wanted = _BUDGETS["medium"] if asked is True else _BUDGETS[asked] if isinstance(asked, str) else asked
        budget = max(wanted, _LEAST_BUDGET)
        body["thinking"] = {"type": "enabled", "budget_tokens": budget}
        if budget != asked and asked is not True:
            self._emulate("thinking", f"thinking={asked!r} was approximated: sent as a budget of {budget} tokens")
        if body["max_tokens"] <= budget:
            body["max_tokens"] += budget

    def _shape(self, wanted: OutputSchema, body: dict[str, Any]) -> None:
        shape, notices = shape_of(wanted, ANTHROPIC)
        if shape.obstacle is not None:
            self._refuse("schema", f"it cannot be held to here, since {shape.obstacle}; ask for it another way")
            return
        self.notices += notices
        format_ = {"type": "json_schema", "schema": shape.json}
        body["output_config"] = {**body.get("output_config", {}), "format": format_}

    def _tool(self, tool: ToolSpec) -> dict[str, Any]:
        patch = self._own(tool.state, "tool")
        if tool.state is not None and tool.state.dialect != NAME and not tool.description and not tool.parameters:
            raise UnsupportedError(f"the tool {tool.name!r} is run by {tool.state.dialect}, which is not asked here")
        described = {"description": tool.description} if tool.description else {}
        parameters = parameters_of(tool) or {"type": "object"}
        return patched({"name": tool.name, **described, "input_schema": parameters, **_mark(tool)}, patch)

    def _conversation(self, messages: Iterable[Message]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The system prompt's blocks and the wire's messages.

        What the user says after a tool's results goes into the same message, unless the wire had them apart.
        """
        system: list[dict[str, Any]] = []
        wire: list[dict[str, Any]] = []
        after_results = False
        for message in messages:
            own = self._own(message.state, "message")
            if message.name is not None:
                self._drop("name", f"this API has no names of speakers: {message.name!r}")
            content = _visible([block for part in message.parts for block in self._blocks(part, message.role)])
            if not content:
                continue
            if message.role == "system" and not (own.get("is_inline") or (wire and self._dialect.inline_system)):
                if wire:
                    self._emulate("system", "a system message was moved to the front, where this API has them")
                system.extend(content)
            elif after_results and message.role == "user" and not own.get("is_apart"):
                wire[-1]["content"].extend(content)
                after_results = False
            else:
                role = "user" if message.role == "tool" else message.role
                wire.append(patched({"role": role, "content": content}, own))
                after_results = message.role == "tool"
        return system, wire

    def _blocks(self, part: Part, role: str) -> list[dict[str, Any]]:
        kind, is_own = type(part).__name__, part.state is not None and part.state.dialect == NAME
        match part:
            case Thinking() | ServerItem() if not is_own and role != "assistant":
                raise no_place(part, role)
            case Thinking() | ServerItem() if not is_own:
                self._drop(kind, f"a {kind} part was left out: only its maker can use it")
                return []
            case Image() | File() | Audio() | ToolResult() if role == "assistant":
                self._drop(kind, f"a {kind} part was left out: this API has no place for it in an assistant's message")
                return []
            case Refusal():
                self._emulate(kind, "a refusal was sent as text")
            case Image(detail=str()):
                self._drop("detail", "this API has no detail of images")
            case File(media_type=str() as named) if named.startswith(TEXTUAL) and named != "text/plain":
                self._emulate(kind, f"a file of the type {named} was sent as text/plain")
            case ToolCall() if "INVALID_JSON" in arguments_object(part.input) and "INVALID_JSON" not in part.input:
                self._emulate(
                    kind, f"the arguments of a call of {part.name!r} are no JSON object, and were wrapped in one"
                )
            case _:
                pass
        return [patched(_block_of(part), self._own(part.state, "part"))]

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


def _mark(tool: ToolSpec) -> dict[str, Any]:
    return {"cache_control": control_of(tool.cache)} if tool.cache else {}


# The client's half: answers


class AnthropicDecoder:
    """Decodes one streamed answer. It ends at message_stop; what comes after that is no part of it."""

    def __init__(self) -> None:
        self._stream = EventStream()
        self._reader = _AnswerReader()
        self._frame = Frame(("delta", "text"), ("delta", "thinking"))
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
        if not self._reader.is_over and not self._reader.is_finished:
            raise StreamInterrupted("the stream ended before the answer did", retryable=True)
        return self._reader.close()


class _Block:
    """One block of an answer being read: its part, and what the wire said of it besides the text that is passed on."""

    __slots__ = ("citations", "half", "kind", "part", "pieces", "told", "wire")

    def __init__(self, part: int, wire: dict[str, Any], told: dict[str, Any]) -> None:
        self.part = part
        self.wire = wire
        self.told = told
        self.kind: str = wire["type"]
        self.citations = [*list_of(wire.get("citations"))]
        self.pieces: list[str] = []
        self.half = ""

    def text(self, more: Any) -> Iterator[Delta]:
        """More text, with the halves of a surrogate pair that fell into two events joined."""
        text = self.half + (text_of(more) or "")
        self.half = ""
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
                if "\ud800" <= text[-1] <= "\udbff":
                    text, self.half = text[:-1], text[-1]
        if text:
            yield Text(self.part, text)


class _AnswerReader:
    """Turns a whole message, or the events of one, into deltas; numbers parts as they appear."""

    def __init__(self) -> None:
        self._parts = 0
        self._blocks: dict[Any, _Block] = {}
        self._answer: dict[str, Any] | None = None
        self._usage: dict[str, Any] = {}
        self.is_finished = False
        self.is_over = False

    def read(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        match event.get("type"):
            case "content_block_delta":
                self._more(self._block(event), mapping_of(event.get("delta")), deltas)
            case "content_block_start":
                self._start(event.get("index"), event.get("content_block"), deltas)
            case "content_block_stop":
                self._stop(self._block(event), deltas)
                del self._blocks[event["index"]]
            case "message_start":
                if self._answer is not None:
                    raise StreamProtocolError("a second message begins before the first has ended")
                self.begin(mapping_of(event.get("message")), deltas)
            case "message_delta":
                beside = {name: item for name, item in event.items() if name not in ("type", "delta", "usage")}
                self._update({**mapping_of(event.get("delta")), **beside}, event.get("usage"), deltas)
            case "message_stop":
                self.is_over = True
            case "error":
                raise _failure(event)
            case _:
                deltas.append(Event(event))

    def add_text(self, part: int, text: str, deltas: list[Delta]) -> None:
        """Read more text of a block that is being streamed."""
        for block in self._blocks.values():
            if block.part == part:
                deltas.extend(block.text(text))

    def begin(self, message: dict[str, Any], deltas: list[Delta]) -> None:
        """Read a message, which a stream begins with and an answer that is no stream consists of."""
        tail: list[Delta] = []
        self._update({k: v for k, v in message.items() if k not in ("content", "usage")}, message.get("usage"), tail)
        deltas.extend(delta for delta in tail if not isinstance(delta, Finish))
        for position, block in enumerate(list_of(message.get("content"))):
            self._start(position, block, deltas)
            self._stop(self._blocks.pop(position), deltas)
        deltas.extend(delta for delta in tail if isinstance(delta, Finish))

    def close(self) -> list[Delta]:
        deltas: list[Delta] = []
        for block in self._blocks.values():
            self._stop(block, deltas)
        return deltas

    def _update(self, fields: dict[str, Any], usage: Any, deltas: list[Delta]) -> None:
        """What an event says of the whole answer: its fields replace earlier ones, and so do its counts."""
        is_first = self._answer is None
        answer = self._answer = {**(self._answer or {}), **_present(fields)}
        if is_object(usage) and (usage or is_first):
            self._usage.update(_present(usage))
            answer["usage"] = {}
        counted = _usage(self._usage)
        message_id, model, raw = (text_of(answer.get(name)) for name in ("id", "model", "stop_reason"))
        reason = _FINISH.get(raw, "unknown") if raw else None
        state = {
            "answer": difference(answer, {**_answer(message_id, model, reason), "usage": {}}),
            "usage": difference(self._usage, _usage_object(counted)),
        }
        deltas.append(Head(message_id, model, state))
        if counted != Usage():
            deltas.append(Count(counted))
        if reason is not None:
            detail = _present({name: answer.get(name) for name in ("stop_sequence", "stop_details")})
            deltas.append(Finish(reason, raw=raw, detail=detail or None))
            self.is_finished = True

    def _block(self, event: dict[str, Any]) -> _Block:
        index = event.get("index")
        if not isinstance(index, int) or index not in self._blocks:
            raise StreamProtocolError(f"an event is for the block {str(index)[:80]}, which is not open")
        return self._blocks[index]

    def _start(self, index: Any, wire: Any, deltas: list[Delta]) -> None:
        if not is_object(wire) or text_of(wire.get("type")) is None:
            raise StreamProtocolError(f"a block of the answer has no type: {str(wire)[:80]}")
        if not isinstance(index, int) or index in self._blocks:
            raise StreamProtocolError(f"a block begins at the place {str(index)[:80]}, which is no free one")
        wire = dict(wire)
        if wire["type"] == "tool_use":
            wire["input"] = mapping_of(wire.get("input"))
        elif wire["type"] in _STREAMED:
            wire[wire["type"]] = text_of(wire.get(wire["type"])) or ""
        part = _part_of(wire, _IN_ANSWER)
        block = self._blocks[index] = _Block(self._parts, wire, own_state(part.state, NAME))
        self._parts += 1
        name = part.name if isinstance(part, ToolCall) else part.kind if isinstance(part, ServerItem) else None
        deltas.append(Open(block.part, _KINDS[type(part)], getattr(part, "id", None), name, state=block.told or None))
        if block.kind in _STREAMED and isinstance(part, (TextPart, Thinking)):
            deltas.extend(block.text(part.text))
            deltas.extend(Note(block.part, note) for note in part.notes)
            wire[block.kind] = ""

    def _more(self, block: _Block, delta: dict[str, Any], deltas: list[Delta]) -> None:
        kind = delta.get("type")
        if kind is not None and kind == _STREAMED.get(block.kind):
            deltas.extend(block.text(delta.get(block.kind)))
        elif kind == "input_json_delta":
            piece = text_of(delta.get("partial_json")) or ""
            block.pieces.append(piece)
            if block.kind == "tool_use":
                deltas.extend(block.text(piece))
        elif kind == "citations_delta":
            citation = delta.get("citation")
            block.citations.append(citation)
            if block.kind == "text" and _is_citation(citation):
                deltas.append(Note(block.part, citation))
        else:
            block.wire.update({name: value for name, value in delta.items() if name != "type"})

    def _stop(self, block: _Block, deltas: list[Delta]) -> None:
        streamed = "".join(block.pieces)
        if block.kind == "tool_use" and not streamed:
            deltas.extend(block.text(arguments_text(block.wire["input"])))
        elif streamed:
            block.wire["input"] = {} if block.kind == "tool_use" else arguments_object(streamed)
        if block.citations:
            block.wire["citations"] = block.citations
        if block.half:
            deltas.append(Text(block.part, block.half))
        if (state := own_state(_part_of(block.wire, _IN_ANSWER).state, NAME)) != block.told:
            deltas.append(State(block.part, state))
        deltas.append(Close(block.part))


def _answer(message_id: str | None, model: str | None, reason: FinishReason | None) -> dict[str, Any]:
    """The fields of an answer that stand beside its content and usage."""
    named = {"id": message_id, "type": "message", "role": "assistant", "model": model or None}
    return _present({**named, "stop_reason": _STOP_REASON.get(reason or "unknown")})


def _usage(wire: Mapping[str, Any]) -> Usage:
    """The disjoint buckets of a usage object: its input excludes what was cached, its output includes thinking."""
    output = count_of(wire.get("output_tokens"))
    thinking = count_of(mapping_of(wire.get("output_tokens_details")).get("thinking_tokens"))
    return Usage(
        input=count_of(wire.get("input_tokens")),
        cache_read=count_of(wire.get("cache_read_input_tokens")),
        cache_write=count_of(wire.get("cache_creation_input_tokens")),
        output=None if output is None else max(0, output - (thinking or 0)),
        reasoning=thinking,
    )


def _usage_object(usage: Usage) -> dict[str, Any]:
    details = None if usage.reasoning is None else {"thinking_tokens": usage.reasoning}
    read = usage.input if usage.input_audio is None else (usage.input or 0) + usage.input_audio
    return _present(
        {
            "input_tokens": read,
            "cache_creation_input_tokens": usage.cache_write,
            "cache_read_input_tokens": usage.cache_read,
            "output_tokens": None if usage.output is None else usage.output_tokens,
            "output_tokens_details": details,
        }
    )


def _failure(value: Any) -> ProviderError:
    """An error that came where an answer was to come."""
    return error_from_value(None, {}, value, encode_json(value).decode())


# The server's half: requests


def _refused(where: str, what: str) -> BadRequestError:
    return BadRequestError(f"{where}: {what}", status=400, code="invalid_request_error")


class _RequestReader:
    """Reads a client's request, strictly; keeps what it does not understand on the nearest value."""

    def __init__(self, dialect: Anthropic) -> None:
        self._dialect = dialect
        self._names: dict[str | None, str] = {}

    def read(self, wire: dict[str, Any]) -> Request:
        # Where the platform is Google's or Amazon's, the address names the model, and the body the version.
        if not isinstance(model := wire.get("model", "" if "anthropic_version" in wire else None), str):
            raise _refused("model", "a string is wanted")
        if type(most := wire.get("max_tokens")) is not int or most < 0:
            raise _refused("max_tokens", "a whole number is wanted")
        if not is_array(messages := wire.get("messages")) or not messages:
            raise _refused("messages", "a list of at least one message is wanted")
        if not isinstance(wire.get("stream", False), bool):
            raise _refused("stream", "true or false is wanted")
        system = wire.get("system", [])
        tools = wire.get("tools", [])
        if not is_array(tools):
            raise _refused("tools", "a list is wanted")
        request = Request(
            model=model,
            messages=(
                *((Message("system", self._parts(system, "system", _IN_PROMPT)),) if system else ()),
                *self._messages(messages),
            ),
            tools=tuple(_read_tool(tool, f"tools[{at}]") for at, tool in enumerate(tools)),
            schema=_read_schema(mapping_of(mapping_of(wire.get("output_config")).get("format"))),
            stream=wire.get("stream", False),
            **self._options(wire),
        )
        if not is_in_order(request):
            raise _refused("cache_control", "ttl='1h' must not come after ttl='5m', which is what none says")
        ours = _BodyEncoder(self._dialect).body(request)
        apart = ("messages", "system", "tools")
        patch = difference(*({k: v for k, v in side.items() if k not in apart} for side in (wire, ours)))
        return msgspec.structs.replace(request, state=ProviderState(NAME, patch)) if patch else request

    def _options(self, wire: dict[str, Any]) -> dict[str, Any]:
        words = {name: verdict for name, verdict in self._dialect.parameters.items() if verdict in wire}
        options = {name: wire[word] for name, word in words.items() if not isinstance(word, Unsupported)}
        options["max_tokens"] = wire["max_tokens"]
        options["user"] = mapping_of(wire.get("metadata")).get("user_id")
        options["cache"] = mark_of(wire.get("cache_control"))
        choice = mapping_of(wire.get("tool_choice"))
        kinds = {"auto": "auto", "none": "none", "any": "required", "tool": choice.get("name")}
        options["tool_choice"] = kinds.get(str(choice.get("type")))
        if isinstance(alone := choice.get("disable_parallel_tool_use"), bool):
            options["parallel_tool_calls"] = not alone
        thinking = mapping_of(wire.get("thinking"))
        effort = mapping_of(wire.get("output_config")).get("effort")
        match thinking.get("type"):
            case "disabled":
                options["thinking"] = False
            case "enabled":
                options["thinking"] = thinking.get("budget_tokens")
            case "adaptive":
                options["thinking"] = effort if effort in get_args(Effort) else True
            case _:
                pass
        options = _present(options)
        try:
            msgspec.convert(options, Options)
        except (msgspec.ValidationError, UnicodeError) as error:
            what, _, where = str(error).partition(" - at `$.")
            raise _refused(where.rstrip("`"), what) from None
        check_read(options, self._dialect.ranges, {})
        return {**options, **({"stop": tuple(options["stop"])} if "stop" in options else {})}

    def _messages(self, wire: list[Any]) -> Iterator[Message]:
        after_results = False
        for at, item in enumerate(wire):
            where = f"messages[{at}]"
            if not is_object(item) or (role := item.get("role")) not in ("user", "assistant", "system"):
                raise _refused(f"{where}.role", "one of user, assistant and system is wanted")
            parts = self._parts(
                item.get("content"), f"{where}.content", _IN_ANSWER if role == "assistant" else _IN_PROMPT
            )
            rest = {name: value for name, value in item.items() if name not in ("role", "content")}
            said: dict[str, Any] = {"set": rest} if rest else {}
            results = next((n for n, part in enumerate(parts) if not isinstance(part, ToolResult)), len(parts))
            if role != "user" or not results:
                flag = {"is_inline": True} if role == "system" else {"is_apart": True}
                state = {**said, **(flag if role == "system" or (role == "user" and after_results) else {})}
                yield Message(role, parts, state=ProviderState(NAME, state) if state else None)
            else:
                yield Message("tool", parts[:results], state=ProviderState(NAME, said) if said else None)
                if parts[results:]:
                    yield Message("user", parts[results:])
            after_results = role == "user" and results == len(parts)

    def _parts(self, content: Any, where: str, kinds: frozenset[str]) -> tuple[Part, ...]:
        if not is_array(content):
            raise _refused(where, "a string or a list of blocks is wanted")
        return tuple(self._part(block, f"{where}[{at}]", kinds) for at, block in enumerate(content))

    def _part(self, block: Any, where: str, kinds: frozenset[str]) -> Part:
        if not is_object(block) or text_of(block.get("type")) is None:
            raise _refused(f"{where}.type", "a block with a type is wanted")
        if block["type"] in _STREAMED and not isinstance(block.get(block["type"]), str):
            raise _refused(f"{where}.{block['type']}", "a string is wanted")
        try:
            part = _part_of(block, kinds)
        except StreamProtocolError as error:
            raise _refused(where, str(error)) from None
        if isinstance(part, ToolCall):
            if part.id is None:
                raise _refused(f"{where}.id", "the id of a call is wanted")
            self._names[part.id] = part.name
        if isinstance(part, ToolResult):
            if part.call_id is None:
                raise _refused(f"{where}.tool_use_id", "the id of a call is wanted")
            return msgspec.structs.replace(part, name=self._names.get(part.call_id, ""))
        if isinstance(part, Thinking) and part.state is None:
            # Its own, though there is nothing to keep.
            return msgspec.structs.replace(part, state=ProviderState(NAME, {}))
        return part


def _read_tool(tool: Any, where: str) -> ToolSpec:
    if not is_object(tool):
        raise _refused(where, "an object is wanted")
    name = text_of(tool.get("name"))
    if not _is_custom(tool):
        unset = [key for key in ("name", "input_schema") if key not in tool]
        return ToolSpec(name or str(tool["type"]), state=ProviderState(NAME, {"set": tool, "unset": unset}))
    if name is None:
        raise _refused(f"{where}.name", "a string is wanted")
    if not is_object(parameters := tool.get("input_schema")):
        raise _refused(f"{where}.input_schema", "a JSON Schema of an object is wanted")
    if parameters.get("type") != "object":
        raise _refused(f"{where}.input_schema.type", "'object' is wanted")
    spec = ToolSpec(name, text_of(tool.get("description")) or "", parameters, cache=mark_of(tool.get("cache_control")))
    ours = {"name": name, "input_schema": parameters or {"type": "object"}, "description": spec.description or None}
    ours |= _mark(spec)
    patch = difference(tool, ours)
    return msgspec.structs.replace(spec, state=ProviderState(NAME, patch)) if patch else spec


def _read_schema(format_: dict[str, Any]) -> OutputSchema | None:
    schema = format_.get("schema")
    if format_.get("type") != "json_schema" or not is_object(schema):
        return None
    return OutputSchema(text_of(schema.get("title")) or "answer", schema)


# The server's half: answers


def _answer_blocks(part: Part) -> list[dict[str, Any]]:
    """A part of an answer as blocks; an item that another provider made is nothing here."""
    if isinstance(part, ServerItem) and not own_state(part.state, NAME):
        return []
    if isinstance(part, (Image, Audio, File, ToolResult)):
        raise _no_place(type(part).__name__.lower())
    # Its readers count on a signature.
    unsigned = {"signature": ""} if isinstance(part, Thinking) else {}
    return [patched({**_block_of(part), **unsigned}, own_state(part.state, NAME))]


def _no_place(kind: str) -> UnsupportedError:
    return UnsupportedError(f"this API's answers have no place for what the model made: {kind}")


class AnthropicEncoder:
    """Encodes the deltas of one answer as a stream. States are taken for this format's own.

    Blocks follow each other: one is stopped before the next starts. Text of a part that goes on after another began is
    a further block. A call cannot be told in pieces, so all else waits until it is complete, and it until its id and
    name have come.
    """

    def __init__(self) -> None:
        self._id: str | None = None
        self._model: str | None = None
        self._state: dict[str, Any] = {}
        self._said: dict[str, Any] = {}
        self._usage = Usage()
        self._finish: FinishReason | None = None
        self._has_begun = False
        self._index = -1
        self._openings: dict[int, Open] = {}
        self._current: Open | None = None
        self._early: list[Delta] | None = None
        self._waiting: dict[int, list[Delta]] = {}

    def feed(self, delta: Delta) -> bytes:
        match delta:
            case Head():
                self._id, self._model = delta.id or self._id, delta.model or self._model
                self._state.update(delta.state or {})
            case Count():
                self._usage = self._usage.updated(delta.usage)
            case Finish(choice=0):
                self._finish = delta.reason
            case State(part=None):
                self._state.update(delta.patch)
            case Event() | Finish():
                pass
            case _:
                return self._begin() + self._part(delta) + self._go_on()
        return b""

    def fail(self, error: SabirError) -> bytes:
        return b"event: error\ndata: " + Anthropic().encode_error(error)[1] + b"\n\n"

    def close(self) -> bytes:
        end = [self._begin()]
        while self._current is not None:
            end.append(self._close() + self._go_on())
        said = self._state.get("answer", {}).get("set", {})
        fresh = {name: value for name, value in said.items() if self._said.get(name) != value}
        stop = {"stop_reason": _STOP_REASON.get(self._finish or "unknown"), "stop_sequence": None}
        inner = {**stop, **{name: fresh.pop(name) for name in _IN_MESSAGE_DELTA if name in fresh}}
        usage = patched(_usage_object(self._usage), self._state.get("usage", {}))
        end.append(_sse({"type": "message_delta", "delta": inner, "usage": usage, **fresh}))
        return b"".join([*end, _sse({"type": "message_stop"})])

    def _begin(self) -> bytes:
        if self._has_begun:
            return b""
        self._has_begun = True
        patch = self._state.get("answer", {})
        self._said = {name: item for name, item in patch.get("set", {}).items() if not name.startswith("stop_")}
        usage = patched(_usage_object(self._usage), self._state.get("usage", {}))
        nothing_yet: dict[str, Any] = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        message = {**_answer(self._id, self._model, None), **nothing_yet}
        return _sse({"type": "message_start", "message": patched(message, {**patch, "set": self._said})})

    def _part(self, delta: Any) -> bytes:
        """A delta of a part: told now, or kept until its turn comes."""
        if isinstance(delta, Open):
            self._openings[delta.part] = delta
        opening = self._openings.get(delta.part)
        if opening is None:
            raise StreamProtocolError(f"a delta for part {delta.part}, which was never opened")
        current = self._current
        if opening.choice or (opening.kind == "server" and not opening.state):
            return b""
        if current is not None and current.kind == "call" and delta.part != current.part:
            self._waiting.setdefault(delta.part, []).append(delta)
            return b""
        match delta:
            case Open():
                return self._close() + self._open(delta)
            case Close():
                return self._close() if current is not None and current.part == delta.part else b""
            case State():
                return self._patch(opening, delta)
            case Text() if delta.text:
                return self._text(opening, delta)
            case Note() if _is_citation(delta.value) and current is opening:
                return self._more({"type": "citations_delta", "citation": delta.value})
            case _:
                return b""

    def _open(self, opening: Open) -> bytes:
        self._current = opening
        if opening.kind == "call" and (opening.id is None or opening.name is None):
            self._early = []
            return b""
        return self._start(opening)

    def _start(self, opening: Open) -> bytes:
        self._index += 1
        block = patched(_opened(opening), opening.state or {})
        early, self._early = self._early or [], None
        start = _sse({"type": "content_block_start", "index": self._index, "content_block": block})
        return start + b"".join(map(self._part, early))

    def _text(self, opening: Open, delta: Text) -> bytes:
        if self._early is not None:
            self._early.append(delta)
            return b""
        again = b""
        if self._current is not opening:
            if opening.kind == "call":
                raise StreamProtocolError(f"more of part {delta.part}, which is already complete")
            again = self._close() + self._open(opening)
        match opening.kind:
            case "call" | "server":
                return again + self._more({"type": "input_json_delta", "partial_json": delta.text})
            case "thinking":
                return again + self._more({"type": "thinking_delta", "thinking": delta.text})
            case _:
                return again + self._more({"type": "text_delta", "text": delta.text})

    def _patch(self, opening: Open, delta: State) -> bytes:
        state = {**(opening.state or {}), **delta.patch}
        told = msgspec.structs.replace(
            opening, id=opening.id or delta.id, name=opening.name or delta.name, state=state or None
        )
        self._openings[opening.part] = told
        if self._current is not opening:
            return b""
        self._current = told
        if self._early is not None:
            return self._start(told) if told.id is not None and told.name is not None else b""
        before, after = (patched(_opened(told), side) for side in (opening.state or {}, state))
        fresh = {name: value for name, value in after.items() if name not in before or before[name] != value}
        if opening.kind == "thinking" and fresh.keys() == {"signature"}:
            return self._more({"type": "signature_delta", **fresh})
        if opening.kind == "text" and is_array(citations := fresh.pop("citations", None)):
            unquoted = [citation for citation in citations if not _is_citation(citation)]
            return b"".join(self._more({"type": "citations_delta", "citation": each}) for each in unquoted)
        out = b""
        if opening.kind == "server" and is_object(fresh.get("input")):
            text = encode_json(fresh.pop("input")).decode()
            out = self._more({"type": "input_json_delta", "partial_json": text})
        kind = f"{opening.name}_delta" if opening.kind == "server" else "block_delta"
        return out + self._more({**fresh, "type": kind}) if fresh else out

    def _close(self) -> bytes:
        """Stop the current block."""
        if self._current is None:
            return b""
        late = self._start(self._current) if self._early is not None else b""
        self._current = None
        return late + _sse({"type": "content_block_stop", "index": self._index})

    def _go_on(self) -> bytes:
        """Tell what has waited for a call to be complete, up to the next call that is not."""
        told: list[bytes] = []
        while self._waiting and not (self._current is not None and self._current.kind == "call"):
            told.extend(map(self._part, self._waiting.pop(next(iter(self._waiting)))))
        return b"".join(told)

    def _more(self, delta: dict[str, Any]) -> bytes:
        return _sse({"type": "content_block_delta", "index": self._index, "delta": delta})


def _opened(opening: Open) -> dict[str, Any]:
    """The block that a part begins with."""
    match opening.kind:
        case "text" | "refusal":
            return {"type": "text", "text": ""}
        case "thinking":
            return {"type": "thinking", "thinking": "", "signature": ""}
        case "call":
            if not opening.name:
                raise StreamProtocolError("a tool call came without the name of a tool")
            return _present({"type": "tool_use", "id": opening.id, "name": opening.name, "input": {}})
        case "server":
            return {"type": opening.name}
        case "image" | "audio" | "file":
            raise _no_place(opening.kind)


def _sse(event: dict[str, Any]) -> bytes:
    return b"event: " + str(event["type"]).encode() + b"\ndata: " + encode_json(event) + b"\n\n"
