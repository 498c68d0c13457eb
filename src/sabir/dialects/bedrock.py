"""Amazon Bedrock's Converse and ConverseStream, both halves. Knows no provider, only quirks, and signs nothing.

Sources: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html, the service model in
botocore (1.44, 2026-11) and 87 recorded exchanges. A block of the wire is a part of ours; what a block, message, tool,
request or answer says beyond our words is a patch in its state, so that it can be said again. Objects within objects
are spoken of by paths: `toolUse.input`. The model, and whether its answer is streamed, stand in the address. Blocks
that only Bedrock can read (guarded content, what its own tools did) stay as they are. A cache point is a block of its
own here, and with us a mark on the part, or tool, before it.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal, TypeAlias, get_args
from urllib.parse import quote, unquote

import msgspec

from ..deltas import Blob, Close, Count, Delta, Event, Finish, FinishReason, Head, Note, Open, PartKind, State, Text
from ..errors import (
    AuthenticationError,
    BadRequestError,
    ContextOverflowError,
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
    CacheMark,
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
from .cache_marks import LEAST_OF_CLAUDE, Caching, is_in_order, is_marked, mark_of, placed, unmarked
from .call_arguments import arguments_object, arguments_text
from .call_ids import fitting_ids, with_fitting_id
from .event_stream import Headers, MessageStream, encode_message
from .event_stream import Message as EventMessage
from .failures import as_kind, error_from_value, status_of
from .frames import Frame
from .in_turn import InTurn, PartDelta
from .leftovers import difference, own_state, patched
from .media_rules import MEGABYTE, TEXTUAL, MediaRules
from .nesting import Holders
from .nesting import flat as _flat
from .nesting import nested as _nested
from .nesting import present as _present
from .places import no_place
from .prefills import CLAUDE, Prefill
from .ranges import PORTABLE, Ranges, check_read, check_sent
from .subsets import ANTHROPIC, parameters_of, shape_of, told_of_tools
from .surrogates import PairedText

NAME = "bedrock"

_FIELDS = "additionalModelRequestFields"
_PENALTY = "this API has no penalties; say in the prompt what is not to be repeated"
_LOGPROBS = "this API tells no log probabilities; choose another provider"
_OWN_FIELD = f"if this model has it, send it with extra={{'{_FIELDS}': {{…}}}}"
# The verdict on each portable parameter: the wire's word for it, or why there is none.
PARAMETERS: Verdicts = {
    "temperature": "inferenceConfig.temperature",
    "top_p": "inferenceConfig.topP",
    "max_tokens": "inferenceConfig.maxTokens",
    "stop": "inferenceConfig.stopSequences",
    "min_p": Unsupported(f"this API has no min_p; {_OWN_FIELD}"),
    "seed": Unsupported(f"this API has no seed; {_OWN_FIELD}"),
    "frequency_penalty": Unsupported(_PENALTY),
    "presence_penalty": Unsupported(_PENALTY),
    "repetition_penalty": Unsupported(_PENALTY),
    "parallel_tool_calls": Unsupported("this API has no such switch; say in the prompt how many calls are wanted"),
    "logprobs": Unsupported(_LOGPROBS),
    "top_logprobs": Unsupported(_LOGPROBS),
    "documents": NO_DOCUMENTS,
    "n": Unsupported("this API gives one answer; ask several times"),
    "user": Unsupported("this API knows no users; send extra={'requestMetadata': {…}} to find calls in its logs"),
}

# https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InferenceConfiguration.html
RANGES: Ranges = {**PORTABLE, "temperature": (0, 1)}

_FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
_STOP_REASON: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "content_filtered",
    "refusal": "content_filtered",
}
# What the service's errors mean, and the statuses they come with; in a stream they come with none.
_ERRORS: dict[str, tuple[type[ProviderError], int]] = {
    "ValidationException": (BadRequestError, 400),
    "AccessDeniedException": (PermissionDeniedError, 403),
    "ResourceNotFoundException": (NotFoundError, 404),
    "ThrottlingException": (RateLimitError, 429),
    "ServiceUnavailableException": (OverloadedError, 503),
    "InternalServerException": (ServerError, 500),
    "ServiceQuotaExceededException": (RateLimitError, 400),
    "ModelNotReadyException": (OverloadedError, 429),
    "ModelTimeoutException": (ServerError, 408),
    "ModelErrorException": (ServerError, 424),
    "ModelStreamErrorException": (ServerError, 424),
    **dict.fromkeys(
        (
            *("UnrecognizedClientException", "ExpiredTokenException", "InvalidSignatureException"),
            *("MissingAuthenticationTokenException", "IncompleteSignatureException", "InvalidClientTokenId"),
        ),
        (AuthenticationError, 403),
    ),
}
# Other ids of calls are refused with HTTP 400.
_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_OVERFLOW = re.compile(r"input is too long|exceeds? context limit|too many input tokens|maximum number of tokens", re.I)
_SIZES = re.compile(r"(\d{1,15})(?: tokens)? > (\d{1,15})")

# Which words a model has for what Converse has none for, by its name.
_FAMILIES: tuple[tuple[re.Pattern[str], Family], ...] = (
    (re.compile(r"claude"), "claude"),
    (re.compile(r"amazon\.nova"), "nova"),
    (re.compile(r"gpt-oss"), "gpt-oss"),
)
# https://platform.claude.com/docs/en/about-claude/models/migration-guide, 2026-11: models that think adaptively, and
# those that take no sampling parameters.
_ADAPTIVE = re.compile(r"claude-[a-z]+-(?:4-(?:[6-9]|\d\d)|[5-9])(?!\d)")
_UNSAMPLED = re.compile(r"claude-[a-z]+-(?:4-(?:[7-9]|\d\d)|[5-9])(?!\d)")
# https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html: not Amazon's own models, Meta's, AI21's
# and Cohere's, and no Claude before 4.5.
_SCHEMALESS = re.compile(r"(?:amazon|meta|ai21|cohere)\.|claude-(?:v|instant|3)|claude-[a-z]+-4-(?:[01](?!\d)|\d{8})")
# https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolChoice.html: who can be made to call a tool.
_FORCIBLE = re.compile(r"claude|nova|mistral")
_BUDGETS: dict[str, int] = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384}
_LEAST_BUDGET = 1024
# Where a client of ours may have asked for thinking in a model's own words.
_THINKING = tuple(
    f"{_FIELDS}.{name}" for name in ("thinking", "reasoning_config", "reasoningConfig", "reasoning_effort")
)
_TOP_K: dict[Family, str] = {"claude": f"{_FIELDS}.top_k", "nova": f"{_FIELDS}.inferenceConfig.topK"}

_SOURCE: Holders = {"source": {"s3Location": {}}}
_IN_REQUEST: Holders = {
    "inferenceConfig": {},
    "toolConfig": {},
    "outputConfig": {},
    _FIELDS: {"inferenceConfig": {}},
}
_IN_TOOL: Holders = {"toolSpec": {"inputSchema": {}}}
_IN_ANSWER: Holders = {"output": {"message": {}}, "usage": {}}
_IN_BLOCK: Holders = {
    "reasoningContent": {"reasoningText": {}},
    "toolUse": {},
    "toolResult": {},
    "citationsContent": {},
    **dict.fromkeys(("image", "document", "audio", "video"), _SOURCE),
}
# The blocks that become parts in our words; every other is a ServerItem.
_BY_MODELS = ("text", "reasoningContent", "toolUse", "citationsContent", "image")
_BY_ANYONE = (*_BY_MODELS, "toolResult", "document", "audio", "video")
_KINDS: dict[type[Part], PartKind] = {
    TextPart: "text",
    Thinking: "thinking",
    ToolCall: "call",
    Image: "image",
    ServerItem: "server",
}
_BESIDE_A_BLOCK = frozenset({"contentBlockIndex", "start", "delta", "p"})
_IN_MESSAGE_STOP = ("stopReason", "additionalModelResponseFields")

# The media types that the wire has another word for than what stands behind their slash.
_FORMATS: dict[str, str] = {
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/plain": "txt",
    "text/markdown": "md",
    "text/html": "html",
    "text/csv": "csv",
    "audio/mpeg": "mp3",
    "audio/x-matroska": "mka",
    "video/x-matroska": "mkv",
    "video/quicktime": "mov",
    "video/x-flv": "flv",
    "video/x-ms-wmv": "wmv",
    "video/3gpp": "three_gp",
}
_ALIASES = {"image/jpg": "image/jpeg", "audio/mp3": "audio/mpeg", "audio/x-wav": "audio/wav"}
_SOUNDS = ("aac", "flac", "m4a", "mp3", "mp4", "mpeg", "mpga", "ogg", "opus", "pcm", "wav", "webm", "x-aac", "x-wav")
_FILMS = ("3gpp", "mp4", "mpeg", "mpg", "quicktime", "webm", "x-flv", "x-matroska", "x-ms-wmv")
# https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Message.html and its blocks; it fetches from S3
# alone. Which models are held to its 4.5 MB of a document differs.
MEDIA = MediaRules(
    inlined=(Image, Audio, File),
    types={
        Image: ("image/png", "image/jpeg", "image/jpg", "image/gif", "image/webp"),
        Audio: (*(f"audio/{word}" for word in _SOUNDS), "audio/x-matroska"),
        File: (
            "application/pdf",
            *(name for name in _FORMATS if name.startswith("application/")),
            *TEXTUAL,
            *(f"video/{word}" for word in _FILMS),
        ),
    },
    most={Image: 15 * MEGABYTE // 4},
)
# https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html: others answer with an error. Nova has no
# cache points among its tools, and what it keeps begins at 1000 tokens.
_CACHED = re.compile(r"claude-(?:3-7|3-5-haiku|3-5-sonnet-20241022|[a-z]+-[4-9])|nova")
_TOOLS_UNCACHED = re.compile(r"nova")
# .../about-aws/whats-new/2026/01/amazon-bedrock-one-hour-duration-prompt-caching: Claude has it from 4.5 on.
_BRIEF = re.compile(r"nova|claude-3|claude-[a-z]+-4-(?:[01](?!\d)|\d{8})")
CACHING = Caching(marked=_CACHED, brief=_BRIEF, least=((_TOOLS_UNCACHED, 1000), *LEAST_OF_CLAUDE))
# A model's id names its maker, alone or at the end of an ARN; that of an application's own profile is any letters.
_NAMED = re.compile(r"(?:^|/)[a-z][a-z0-9-]*\.[^/]+$")
_NOT_IN_A_NAME = re.compile(r"[^\w\s()\[\]-]|\s+", re.ASCII)

Family: TypeAlias = Literal["claude", "nova", "gpt-oss"]


@dataclass(frozen=True)
class Bedrock:
    """The dialect with the quirks of one kind of server.

    Attributes:
        parameters: the verdict on each portable parameter.
        ranges: what its numbers may be.
        family: whose words for thinking and top_k go into `additionalModelRequestFields`; None is by the model's name,
            which the ARN of an application's inference profile does not tell.
        schema: "output_config" (structured outputs, where the model has them) or "prompt" (the schema is described).
        media: what the server takes of images, sounds and files.
        caching: which models are told where to keep a prompt.
        prefill: which models go on with the beginning of an answer.
    """

    parameters: Verdicts = field(default_factory=lambda: PARAMETERS)
    ranges: Ranges = field(default_factory=lambda: RANGES)
    family: Family | None = None
    schema: Literal["output_config", "prompt"] = "output_config"
    media: MediaRules = MEDIA
    caching: Caching = CACHING
    prefill: Prefill | None = CLAUDE

    name = NAME

    def verdicts(self) -> Verdicts:
        """The verdict on every portable parameter."""
        special = {
            "top_k": f"{_FIELDS} (where the model has it)",
            "thinking": f"{_FIELDS} (in the model's words)",
            "tool_choice": "toolConfig.toolChoice",
            "schema": "outputConfig.textFormat" if self.schema == "output_config" else "(described in the prompt)",
            "cache": self.caching.verdict("cachePoint (where the model has it)"),
        }
        return {**self.parameters, **special, "extra": "(as given)", "headers": "(as given)"}

    def schema_modes(self, request: Request) -> tuple[SchemaMode, ...]:
        is_forcible = bool(_FORCIBLE.search(request.model)) and not request.thinking
        others: tuple[SchemaMode, ...] = ("tool", "prompt") if is_forcible else ("prompt", "tool")
        is_native = self.schema == "output_config" and not _SCHEMALESS.search(request.model)
        is_native = is_native and (request.schema is None or lowered(request.schema.json, ANTHROPIC).obstacle is None)
        return ("native", *others) if is_native else others

    def encode_request(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        check_sent(request, self.ranges, self.parameters)
        encoder = _BodyEncoder(self, request.model)
        body = encode_json(encoder.body(request))
        headers = (("content-type", "application/json"), *request.headers.items())
        operation = "converse-stream" if request.stream else "converse"
        url = f"/model/{quote(request.model, safe='')}/{operation}"
        return HttpRequest("POST", url, headers, body), tuple(encoder.notices)

    def decode_answer(self, body: bytes) -> list[Delta]:
        text = body[:10_000].decode("utf-8", "replace")
        try:
            value = decode_json(body)
        except ValueError as error:
            raise ServerError(f"the answer is no JSON: {error}", status=200, body=text) from None
        told = mapping_of(value)
        if told.get("__type") or ("output" not in told and text_of(told.get("message"))):
            raise _failure(None, {}, value, text)
        content = mapping_of(mapping_of(mapping_of(value).get("output")).get("message")).get("content")
        if not is_object(value) or not is_array(content):
            raise StreamProtocolError("the answer has no message with a content", body=text)
        deltas: list[Delta] = []
        _AnswerReader().read_whole(self.canonical_answer(value), deltas)
        return deltas

    def decoder(self) -> BedrockDecoder:
        return BedrockDecoder()

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        try:
            value = decode_json(body)
        except ValueError:
            value = None
        return _failure(status, headers, value, body.decode("utf-8", "replace").strip())

    def decode_path(self, path: str) -> tuple[str, bool]:
        """The model that a request's path names, and whether its answer is to be streamed.

        Raises:
            NotFoundError: it is no path of this format.
        """
        found = re.fullmatch(r"(?:.*/)?model/([^/]+)/converse(-stream)?", path.partition("?")[0])
        if found is None:
            raise NotFoundError(f"nothing is served at {path}; ask /model/MODEL/converse", status=404)
        return unquote(found[1]), found[2] is not None

    def decode_request(self, body: bytes) -> Request:
        """A client's request, strictly. The model is empty, and the stream False: `decode_path` has them."""
        try:
            value = decode_json(body)
        except ValueError as error:
            raise _refused("body", f"no JSON: {error}") from None
        if not is_object(value):
            raise _refused("body", "a JSON object is wanted")
        return _RequestReader(self).read(self.canonical_request(value))

    def encode_response(self, response: Response[Any]) -> bytes:
        message = response.message
        answer = _flat(_answer(response.finish_reason, response.usage), _IN_ANSWER)
        answer["output.message.content"] = [block for part in message.parts for block in _answer_blocks(part)]
        return encode_json(_nested(patched(answer, own_state(message.state, NAME).get("answer", {})), _IN_ANSWER))

    def encoder(self, request: Request | None = None) -> BedrockEncoder:
        return BedrockEncoder()

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        return status_of(error), encode_json({"__type": _error_type(error), "message": error.message})

    def canonical_request(self, body: dict[str, Any]) -> dict[str, Any]:
        """What means the same is made the same, in the objects that we read and no deeper:

        - null is absent;
        - inferenceConfig, toolConfig, outputConfig, additionalModelRequestFields, system, tools and stopSequences with
          nothing in them are absent;
        - text that shows nothing, and a message with nothing else in it, is absent: the API refuses it.
        """
        wire = _present(body, _IN_REQUEST)
        for holder, name in (("toolConfig", "tools"), ("inferenceConfig", "stopSequences")):
            if is_object(held := wire.get(holder)) and held.get(name) == []:
                wire[holder] = {inner: value for inner, value in held.items() if inner != name}
        if is_object(config := wire.get("toolConfig")) and is_array(tools := config.get("tools")):
            wire["toolConfig"] = {**config, "tools": [_present(tool, _IN_TOOL) for tool in tools]}
        if is_array(system := wire.get("system")):
            wire["system"] = _canonical_content(system)
        if is_array(messages := wire.get("messages")):
            messages = [_canonical_message(message) for message in messages]
            wire["messages"] = [message for message in messages if mapping_of(message).get("content") != []]
        empty = (*_IN_REQUEST, "system")
        return {name: value for name, value in wire.items() if not (name in empty and value in ({}, []))}

    def canonical_answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Null is absent, in the objects that we read and no deeper."""
        canonical: dict[str, Any] = _present(body, _IN_ANSWER)
        message = mapping_of(mapping_of(canonical.get("output")).get("message"))
        if is_array(content := message.get("content")):
            message["content"] = [_canonical_block(block) for block in content]
        return canonical


def _canonical_message(message: Any) -> Any:
    canonical = _present(message, {})
    if is_object(canonical) and is_array(content := canonical.get("content")):
        canonical["content"] = _canonical_content(content)
    return canonical


def _canonical_content(blocks: list[Any]) -> list[Any]:
    return _visible([_canonical_block(block) for block in blocks])


def _canonical_block(block: Any) -> Any:
    canonical = _present(block, _IN_BLOCK)
    result = mapping_of(mapping_of(canonical).get("toolResult"))
    if is_array(content := result.get("content")):
        result["content"] = _canonical_content(content)
    return canonical


def _visible(blocks: list[Any]) -> list[Any]:
    """The blocks without text that shows nothing: empty text, and blank text if there is no other."""
    texts = [text for block in blocks if (text := _text_in(block)) is not None]
    is_blank = not any(text.strip() for text in texts)
    return [block for block in blocks if (text := _text_in(block)) is None or (text and not is_blank)]


def _text_in(block: Any) -> str | None:
    """The text of a block that has nothing else, None of any other."""
    text = block.get("text") if is_object(block) and block.keys() == {"text"} else None
    return text if isinstance(text, str) else None


# Blocks and parts, for both halves


def _part_of(block: dict[str, Any], kinds: tuple[str, ...]) -> Part:
    """A block in canonical form as a part; `kinds` are the blocks that are more than opaque here."""
    part = _worded(block, kinds)
    if part is None:
        return _opaque(block)
    # An id that this API would not take is its maker's, who is handed it back all the same.
    patch = difference(_flat(block, _IN_BLOCK), _flat(_block_of(with_fitting_id(part, _ID)), _IN_BLOCK))
    return msgspec.structs.replace(part, state=ProviderState(NAME, patch)) if patch else part


def _opaque(block: dict[str, Any]) -> ServerItem:
    kind = _kind(block)
    item_id = text_of(mapping_of(block.get(kind)).get("toolUseId"))
    return ServerItem(kind=kind, id=item_id, state=ProviderState(NAME, {"set": block}))


def _kind(block: Mapping[str, Any]) -> str:
    """What a block is, whatever else it says and in whatever order."""
    return next((kind for kind in _BY_ANYONE if kind in block), min(block, default="block"))


def _worded(block: dict[str, Any], kinds: tuple[str, ...]) -> Part | None:
    """A block in our words, as far as they go; None if they say nothing of it."""
    kind = _kind(block)
    held = mapping_of(block.get(kind))
    match kind if kind in kinds else None:
        case "text":
            if not isinstance(text := block["text"], str):
                raise StreamProtocolError(f"the text of a block is none: {str(text)[:80]}")
            return TextPart(text=text)
        case "citationsContent":
            said = (text_of(mapping_of(item).get("text")) for item in list_of(held.get("content")))
            notes = tuple(filter(_is_citation, list_of(held.get("citations"))))
            return TextPart(text="".join(filter(None, said)), notes=notes)
        case "reasoningContent":
            return Thinking(text=text_of(mapping_of(held.get("reasoningText")).get("text")) or "")
        case "toolUse" if not _is_of_the_server(held):
            if (name := text_of(held.get("name"))) is None:
                raise StreamProtocolError("a tool call came without the name of a tool")
            return ToolCall(name=name, input=arguments_text(held.get("input", {})), id=text_of(held.get("toolUseId")))
        case "toolResult":
            content = tuple(_result_part(item) for item in list_of(held.get("content")))
            call_id, is_error = text_of(held.get("toolUseId")), held.get("status") == "error"
            return ToolResult(call_id=call_id, name="", content=content, is_error=is_error)
        case "image" | "document" | "audio" | "video":
            return _media(kind, held)
        case _:
            return None


def _is_of_the_server(call: Mapping[str, Any]) -> bool:
    """Whether a call is of a tool that Bedrock itself runs."""
    return call.get("type") == "server_tool_use"


def _is_citation(note: Any) -> bool:
    """Whether a note is a citation of this API's, and not another's annotation."""
    return is_object(note) and (is_object(note.get("location")) or is_array(note.get("sourceContent")))


def _result_part(block: Any) -> TextPart | Image | Value:
    """A block of a tool's result; what is neither text, JSON nor image is a JSON value to us."""
    if not is_object(block):
        raise StreamProtocolError("a block of a tool's result is no object")
    if block.keys() == {"json"}:
        return Value(value=block["json"])
    if "text" in block or "image" in block:
        part = _part_of(block, ("text", "image"))
        if isinstance(part, (TextPart, Image)):
            return part
    return Value(value=block, state=ProviderState(NAME, {"is_block": True}))


def _media(kind: str, held: dict[str, Any]) -> Image | Audio | File | None:
    source = mapping_of(held.get("source"))
    encoded, text = text_of(source.get("bytes")), text_of(source.get("text"))
    uri = text_of(mapping_of(source.get("s3Location")).get("uri"))
    has_text = text is not None and kind == "document"
    if not (encoded or has_text or (uri or "").startswith("s3://")):
        return None
    data = _bytes_of(encoded) if encoded else text.encode("utf-8", "surrogatepass") if text and not uri else None
    uri = None if data is not None else uri
    media_type = _media_type(kind, text_of(held.get("format")))
    match kind:
        case "image":
            return Image(data=data, url=uri, media_type=media_type)
        case "audio":
            return Audio(data=data, url=uri, media_type=media_type)
        case _:
            return File(data=data, url=uri, media_type=media_type, name=text_of(held.get("name")))


def _media_type(kind: str, word: str | None) -> str | None:
    if word is None:
        return None
    places = (kind,) if kind != "document" else ("application", "text")
    known = (name for name, known in _FORMATS.items() if known == word and name.partition("/")[0] in places)
    return next(known, f"{places[0]}/{word}")


def _format(media_type: str) -> str:
    media_type = _ALIASES.get(media_type, media_type)
    return _FORMATS.get(media_type, "txt" if media_type.startswith(TEXTUAL) else media_type.partition("/")[2])


def _bytes_of(data: str) -> bytes:
    try:
        return b64decode("".join(data.split()), validate=True)
    except ValueError:
        raise StreamProtocolError("the bytes of a source are no base64") from None


def _block_of(part: Part) -> dict[str, Any]:
    """A part as a block, without what only its state says."""
    match part:
        case TextPart():
            citations = [note for note in part.notes if _is_citation(note)]
            said = {"content": [{"text": part.text}]} if part.text else {}
            return {"citationsContent": {**said, "citations": citations}} if citations else {"text": part.text}
        case Refusal():
            return {"text": part.text}
        case Value():
            return {"text": encode_json(part.value).decode()}
        case Thinking():
            return {"reasoningContent": {"reasoningText": {"text": part.text}}}
        case ToolCall():
            named = {"toolUseId": part.id} if part.id is not None else {}
            return {"toolUse": {**named, "name": part.name, "input": arguments_object(part.input)}}
        case ToolResult():
            named = {"toolUseId": part.call_id} if part.call_id is not None else {}
            content = _visible([_result_block(item) for item in part.content])
            return {"toolResult": {**named, "content": content, **({"status": "error"} if part.is_error else {})}}
        case Image():
            return {"image": _source(part, part.media_type or "image/png")}
        case Audio():
            return {"audio": _source(part, part.media_type or "audio/wav")}
        case File(media_type=str() as media_type) if media_type.startswith("video/"):
            return {"video": _source(part, media_type)}
        case File():
            named = {"name": _document_name(part.name or "") or "document"}
            return {"document": {**_source(part, part.media_type or "application/pdf"), **named}}
        case ServerItem():
            return {}


def _result_block(item: TextPart | Image | Value) -> dict[str, Any]:
    if isinstance(item, Value) and own_state(item.state, NAME).get("is_block"):
        return mapping_of(item.value)
    if isinstance(item, Value) and is_object(item.value):
        return {"json": item.value}
    return _encoded(item, own_state(item.state, NAME))


def _encoded(part: Part, own: dict[str, Any]) -> dict[str, Any]:
    """A part as a block, with what its state says."""
    return _nested(patched(_flat(_block_of(part), _IN_BLOCK), own), _IN_BLOCK)


def _source(part: Image | Audio | File, media_type: str) -> dict[str, Any]:
    source = {"s3Location": {"uri": part.url}} if part.url else {"bytes": b64encode(part.data or b"").decode()}
    return {"format": _format(media_type), "source": source}


def _document_name(name: str) -> str:
    """A name with no other characters than this API takes, and no two blanks in a row."""
    return " ".join(_NOT_IN_A_NAME.sub(" ", name).split())[:200]


# The client's half: requests


class _BodyEncoder:
    def __init__(self, dialect: Bedrock, model: str) -> None:
        self._dialect = dialect
        self._model = model
        by_name: Iterator[Family] = (family for pattern, family in _FAMILIES if pattern.search(model))
        self._family: Family | None = dialect.family or next(by_name, None)
        self._document_names: set[str] = set()
        self.notices: list[Notice] = []

    def body(self, request: Request) -> dict[str, Any]:
        """The JSON body; `request.extra` goes over it as it is, field by field within the objects that hold some."""
        patch = self._own(request.state, "request")
        request = self._keep(request)
        fit, has_others = fitting_ids(request.messages, _ID, NAME)
        if has_others:
            taken = "letters, digits, _ and -, 64 at most"
            self._emulate("id", f"ids of calls were replaced by ones that this API takes: {taken}")
        # What a client of ours has asked for in this format's own words is not translated again.
        in_its_words = patch.get("set", {})
        self.notices += lost_citations(request.messages, _is_citation)
        system, messages = self._conversation(fit)
        flat: dict[str, Any] = {}
        for parameter, verdict in self._dialect.parameters.items():
            if (value := getattr(request, parameter)) is None:
                continue
            if isinstance(verdict, Unsupported):
                self._refuse(parameter, str(verdict))
            else:
                flat[verdict] = list(value) if parameter == "stop" else value
        if request.top_k is not None and in_its_words.keys().isdisjoint(_TOP_K.values()):
            self._sample(request.top_k, flat)
        self._offer_tools(request, messages, flat)
        if request.thinking is not None and in_its_words.keys().isdisjoint(_THINKING):
            self._think(request.thinking, flat)
        self._check_sampling(flat, in_its_words)
        wanted = request.schema
        if wanted is not None and wanted.mode == "native" and "outputConfig.textFormat" not in in_its_words:
            self._shape(wanted, flat)
        said = {"messages": messages, "system": system}
        told = {name: value for name, value in said.items() if value}
        return _nested({**patched(flat, patch), **told, **_flat(request.extra, _IN_REQUEST)}, _IN_REQUEST)

    def _keep(self, request: Request) -> Request:
        """The request with its marks in their places."""
        caching = self._dialect.caching
        if not caching.marks(self._model) and self._dialect.family is None and (request.cache or is_marked(request)):
            if _NAMED.search(self._model):
                self._refuse("cache", f"{self._model} is not known to keep prompts, and such models refuse to be asked")
                return unmarked(request)
            # A caller's own marks go along where the model is not known: a profile's ARN, or a body without its path.
            if request.cache:
                text = f"{self._model} does not say which model it is; mark a part with cached() to try it"
                self._refuse("cache", text)
            return request
        request, notices = placed(request, caching, is_after_tools=not _TOOLS_UNCACHED.search(self._model))
        self.notices += notices
        return request

    def _sample(self, top_k: int, flat: dict[str, Any]) -> None:
        if self._family in _TOP_K:
            flat[_TOP_K[self._family]] = top_k
        else:
            self._refuse("top_k", f"this API has no top_k; {_OWN_FIELD}")

    def _offer_tools(self, request: Request, messages: list[dict[str, Any]], flat: dict[str, Any]) -> None:
        choice = request.tool_choice
        if not request.tools:
            if choice is not None:
                self._drop("tool_choice", "there is no choice of tools to send: the request has no tools")
            return
        if choice == "none" and not _has_calls(messages):
            self._emulate("tool_choice", "this API has no tool_choice 'none': the tools were left out")
            return
        flat["toolConfig.tools"] = [entry for tool in request.tools for entry in (self._tool(tool), *_point(tool))]
        self.notices += told_of_tools(request.tools, NAME)
        if choice == "none":
            reason = "this API wants the tools of a conversation that has called some; say in the prompt to call none"
            self._refuse("tool_choice", reason)
        elif choice is not None:
            words = {"auto": "auto", "required": "any"}
            flat["toolConfig.toolChoice"] = {words[choice]: {}} if choice in words else {"tool": {"name": choice}}

    def _think(self, asked: bool | int | str, flat: dict[str, Any]) -> None:
        effort = asked if isinstance(asked, str) else next((e for e, most in _BUDGETS.items() if asked <= most), "high")
        effort = "medium" if asked is True else "low" if effort == "minimal" else effort
        match self._family:
            case "claude":
                return self._think_as_claude(asked, effort, flat)
            case "nova":
                on = {"type": "enabled", "maxReasoningEffort": effort}
                flat[f"{_FIELDS}.reasoningConfig"] = {"type": "disabled"} if asked is False else on
            case "gpt-oss" if asked is not False:
                flat[f"{_FIELDS}.reasoning_effort"] = effort
            case "gpt-oss":
                return self._refuse("thinking", "this model always thinks; ask for thinking='low'")
            case None:
                return self._refuse("thinking", f"this model's words for it are not known; {_OWN_FIELD}")
        if not isinstance(asked, bool) and effort != asked:
            self._emulate("thinking", f"thinking={asked!r} was approximated: sent as effort={effort!r}")

    def _think_as_claude(self, asked: bool | int | str, effort: str, flat: dict[str, Any]) -> None:
        if asked is False:
            flat[f"{_FIELDS}.thinking"] = {"type": "disabled"}
        elif flat.get("toolConfig.toolChoice", {}).keys() & {"any", "tool"}:
            self._refuse("thinking", "this model cannot think where a tool is forced; leave tool_choice to 'auto'")
        elif _ADAPTIVE.search(self._model):
            flat[f"{_FIELDS}.thinking"] = {"type": "adaptive"}
            if asked is not True:
                flat[f"{_FIELDS}.output_config"] = {"effort": effort}
            if asked is not True and effort != asked:
                self._emulate("thinking", f"thinking={asked!r} was approximated: sent as effort={effort!r}")
        else:
            self._think_within(asked, flat)

    def _think_within(self, asked: bool | int | str, flat: dict[str, Any]) -> None:
        wanted = _BUDGETS["medium"] if asked is True else _BUDGETS[asked] if isinstance(asked, str) else asked
        budget = max(wanted, _LEAST_BUDGET)
        flat[f"{_FIELDS}.thinking"] = {"type": "enabled", "budget_tokens": budget}
        if budget != asked and asked is not True:
            self._emulate("thinking", f"thinking={asked!r} was approximated: sent as a budget of {budget} tokens")
        if (most := flat.get("inferenceConfig.maxTokens")) is not None and most <= budget:
            flat["inferenceConfig.maxTokens"] = most + budget
            self._emulate("max_tokens", f"max_tokens includes thinking here, and was raised to {most + budget}")

    def _check_sampling(self, flat: dict[str, Any], in_its_words: Mapping[str, Any]) -> None:
        """Leave out what a Claude refuses: any of it, or what is bolder than a thinking model may be."""
        if self._family != "claude":
            return
        thinks = mapping_of(flat.get(f"{_FIELDS}.thinking")).get("type") in ("enabled", "adaptive")
        words = ("temperature", "inferenceConfig.temperature", 1), ("top_p", "inferenceConfig.topP", 0.95)
        for name, word, least in (*words, ("top_k", _TOP_K["claude"], inf)):
            if word not in flat or word in in_its_words:
                continue
            if _UNSAMPLED.search(self._model):
                self._refuse(name, "this model takes no sampling parameters; leave it out")
            elif thinks and flat[word] < least:
                self._refuse(name, f"this model takes no {name}={flat[word]} with thinking; leave one of them out")
            else:
                continue
            del flat[word]

    def _shape(self, wanted: OutputSchema, flat: dict[str, Any]) -> None:
        shape, notices = shape_of(wanted, ANTHROPIC)
        if shape.obstacle is not None:
            self._refuse("schema", f"it cannot be held to here, since {shape.obstacle}; ask for it another way")
            return
        self.notices += notices
        definition = {"name": wanted.name, "schema": encode_json(shape.json).decode()}
        flat["outputConfig.textFormat"] = {"type": "json_schema", "structure": {"jsonSchema": definition}}

    def _tool(self, tool: ToolSpec) -> dict[str, Any]:
        patch = self._own(tool.state, "tool")
        if tool.state is not None and tool.state.dialect != NAME and not tool.description and not tool.parameters:
            raise UnsupportedError(f"the tool {tool.name!r} is run by {tool.state.dialect}, which is not asked here")
        return _nested(patched(_flat_tool(tool), patch), _IN_TOOL)

    def _conversation(self, messages: Iterable[Message]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The system prompt's blocks and the wire's messages.

        The speakers take turns here: what one says after himself goes into the same message, unless the wire had it
        apart.
        """
        system: list[dict[str, Any]] = []
        wire: list[dict[str, Any]] = []
        for message in messages:
            own = self._own(message.state, "message")
            if message.name is not None:
                self._drop("name", f"this API has no names of speakers: {message.name!r}")
            content = _visible([block for part in message.parts for block in self._blocks(part, message.role)])
            if not content:
                continue
            role = "user" if message.role == "tool" else message.role
            if message.role == "system" and not own.get("is_inline"):
                if wire:
                    self._emulate("system", "a system message was moved to the front, where this API has them")
                system.extend(content)
            elif wire and wire[-1]["role"] == role and not own.get("is_apart"):
                wire[-1] = patched({**wire[-1], "content": [*wire[-1]["content"], *content]}, own)
            else:
                wire.append(patched({"role": role, "content": content}, own))
        return system, wire

    def _blocks(self, part: Part, role: str) -> list[dict[str, Any]]:
        kind, is_own = type(part).__name__, part.state is not None and part.state.dialect == NAME
        match part:
            case Thinking() | ServerItem() if not is_own and role != "assistant":
                raise no_place(part, role)
            case Thinking() | ServerItem() if not is_own:
                self._drop(kind, f"a {kind} part was left out: only its maker can use it")
                return []
            case Refusal():
                self._emulate(kind, "a refusal was sent as text")
            case Audio() | File() | ToolResult() if role == "assistant":
                self._drop(kind, f"a {kind} part was left out: this API has no place for it in an assistant's message")
                return []
            case Image(url=str() as url) if role == "assistant" and not url.startswith("s3://"):
                self._drop(kind, "an Image part was left out: this API fetches none that a model made")
                return []
            case Image() | Audio() | File():
                return [self._file(part), *_point(part)]
            case ToolCall() if "INVALID_JSON" in arguments_object(part.input) and "INVALID_JSON" not in part.input:
                self._emulate(
                    kind, f"the arguments of a call of {part.name!r} are no JSON object, and were wrapped in one"
                )
            case ToolResult():
                for item in part.content:
                    if isinstance(item, Image):
                        self._check_file(item)
            case _:
                pass
        return [_encoded(part, self._own(part.state, "part")), *_point(part)]

    def _file(self, part: Image | Audio | File) -> dict[str, Any]:
        self._check_file(part)
        block = _encoded(part, self._own(part.state, "part"))
        is_named = part.state is not None and part.state.dialect == NAME
        if not isinstance(part, File) or is_named or (document := block.get("document")) is None:
            return block
        if document["format"] == "txt" and part.media_type != "text/plain":
            self._emulate("File", f"a file of the type {part.media_type} was sent as text/plain")
        told = name = document["name"]
        number = 1
        # Two documents of one name are refused.
        while told in self._document_names:
            number += 1
            told = f"{name} {number}"
        self._document_names.add(told)
        if part.name not in (None, told):
            self._emulate("File", f"the file {part.name!r} was sent under the name {told!r}, as this API wants it")
        return {**block, "document": {**document, "name": told}}

    def _check_file(self, part: Image | Audio | File) -> None:
        kind = type(part).__name__
        if part.url is not None and not part.url.startswith("s3://"):
            raise UnsupportedError(f"this API fetches a {kind} only from s3:// addresses; send its bytes")
        if part.url is None and part.data is None:
            raise UnsupportedError(f"this API has no ids of uploads; send the {kind}'s bytes")
        if isinstance(part, Image) and part.detail is not None:
            self._drop("detail", "this API has no detail of images")

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


def _point(marked: Part | ToolSpec) -> list[dict[str, Any]]:
    """The cache point behind what is marked."""
    if not marked.cache:
        return []
    lifetime = {} if marked.cache is True else {"ttl": marked.cache}
    return [{"cachePoint": {"type": "default", **lifetime}}]


def _pointed(block: Any) -> CacheMark | None:
    """The mark that a block is, if it is a cache point and nothing else."""
    return mark_of(block["cachePoint"], "default") if is_object(block) and block.keys() == {"cachePoint"} else None


def _has_calls(messages: Iterable[dict[str, Any]]) -> bool:
    return any("toolUse" in block or "toolResult" in block for message in messages for block in message["content"])


def _flat_tool(tool: ToolSpec) -> dict[str, Any]:
    described = {"toolSpec.description": tool.description} if tool.description else {}
    parameters = parameters_of(tool) or {"type": "object"}
    return {"toolSpec.name": tool.name, **described, "toolSpec.inputSchema.json": parameters}


# The client's half: answers


class BedrockDecoder:
    """Decodes one streamed answer. It is complete at messageStop; the metadata that follows has its usage."""

    def __init__(self) -> None:
        self._stream = MessageStream()
        self._reader = _AnswerReader()
        self._frame = Frame(("delta", "text"), ("delta", "reasoningContent", "text"), ("delta", "toolUse", "input"))
        self._headers_of_text: Headers = {}
        self._failure: SabirError | None = None

    @property
    def is_over(self) -> bool:
        return self._reader.is_over or self._failure is not None

    def feed(self, data: bytes) -> list[Delta]:
        deltas: list[Delta] = []
        if self.is_over:
            return deltas
        try:
            for message in self._stream.feed(data):
                if self._reader.is_over:
                    break
                self._read(message, deltas)
        except SabirError as error:
            self._failure = error
            if not deltas:
                raise
        return deltas

    def _read(self, message: EventMessage, deltas: list[Delta]) -> None:
        headers, payload = message
        payload = _unpadded(payload)
        # The headers are said again with every message, and are then the same object.
        if headers is self._headers_of_text and (text := self._frame.text_in(payload)) is not None:
            self._reader.add_text(self._frame.part, text, deltas)
            return
        if headers.get(":message-type") != "event":
            raise _stream_failure(headers, payload)
        event = event_object(payload)
        fresh: list[Delta] = []
        self._reader.read(str(headers.get(":event-type")), event, fresh)
        deltas.extend(fresh)
        self._frame.learn(payload, event, fresh)
        self._headers_of_text = headers

    def close(self) -> list[Delta]:
        if self._failure is not None:
            raise self._failure
        if not self._reader.is_finished:
            raise StreamInterrupted("the stream ended before the answer did", retryable=True)
        return self._reader.close()


def _unpadded(payload: bytes) -> bytes:
    """An event without the `p` at its end, of a length that hides how long the text is."""
    said, comma, padding = payload.rpartition(b',"p":"')
    return said + b"}" if comma and padding[-2:] == b'"}' and padding[:-2].isalnum() else payload


class _Block:
    """One block of an answer being read: its part, and what the wire said of it besides the text that is passed on."""

    __slots__ = ("citations", "kind", "name", "part", "pieces", "result", "text", "told", "wire")

    def __init__(self, part: int, kind: PartKind, name: str, wire: dict[str, Any]) -> None:
        self.part = part
        self.kind: PartKind = kind
        self.name = name
        self.wire = wire
        self.told: dict[str, Any] = {}
        self.text = PairedText()
        self.pieces: list[str] = []
        self.result: list[Any] = []
        self.citations: list[Any] = []

    def more(self, piece: str, deltas: list[Delta]) -> None:
        if text := self.text.more(piece):
            deltas.append(Text(self.part, text))


class _AnswerReader:
    """Turns a whole answer, or the events of one, into deltas; numbers parts as they appear."""

    def __init__(self) -> None:
        self._parts = 0
        self._blocks: dict[int, _Block] = {}
        self._answer: dict[str, Any] = {}
        self._reason: FinishReason = "unknown"
        self._usage = Usage()
        self._told: dict[str, Any] = {}
        self.is_finished = False
        self.is_over = False

    def read(self, kind: str, event: dict[str, Any], deltas: list[Delta]) -> None:
        match kind:
            case "contentBlockDelta":
                self._more(event, deltas)
            case "contentBlockStart":
                self._start(_index(event), _present(mapping_of(event.get("start")), _IN_BLOCK), deltas)
            case "contentBlockStop":
                # Of a block without content, this is all that comes.
                if (block := self._blocks.pop(_index(event), None)) is not None:
                    self._stop(block, deltas)
            case "messageStart":
                self._update({f"output.message.{name}": item for name, item in _said(event).items()}, deltas)
            case "messageStop" | "metadata":
                self._update(_flat(_said(event), _IN_ANSWER), deltas)
                self.is_finished = self.is_finished or kind == "messageStop"
                self.is_over = self.is_finished and kind == "metadata"
            case _:
                deltas.append(Event({kind: event}))
        if kind.startswith("contentBlock") and not event.keys() <= _BESIDE_A_BLOCK:
            deltas.append(Event({kind: event}))

    def read_whole(self, answer: dict[str, Any], deltas: list[Delta]) -> None:
        flat = _flat(answer, _IN_ANSWER)
        content = flat.pop("output.message.content")
        for block in content:
            if not is_object(block):
                raise StreamProtocolError(f"a block of the answer is no object: {str(block)[:80]}")
            self._whole_block(block, deltas)
        self._update(flat, deltas)
        deltas.extend(self.close())

    def add_text(self, part: int, text: str, deltas: list[Delta]) -> None:
        """Read more text of a block that is being streamed."""
        for block in self._blocks.values():
            if block.part == part:
                if block.kind == "call":
                    block.pieces.append(text)
                block.more(text, deltas)

    def close(self) -> list[Delta]:
        deltas: list[Delta] = []
        for block in self._blocks.values():
            self._stop(block, deltas)
        self._blocks = {}
        self._tell_rest(deltas)
        return deltas

    def _update(self, fields: dict[str, Any], deltas: list[Delta]) -> None:
        """What is said of the whole answer: its fields replace earlier ones."""
        self._answer.update({name: value for name, value in fields.items() if value is not None})
        if fields.keys() & {"usage.inputTokens", "usage.outputTokens"}:
            self._usage = _usage(self._answer)
            deltas.append(Count(self._usage))
        if (raw := text_of(fields.get("stopReason"))) is not None:
            self._reason = _FINISH.get(raw, "unknown")
            deltas.append(Finish(self._reason, raw=raw))
        elif not self._parts:
            self._tell_rest(deltas)

    def _tell_rest(self, deltas: list[Delta]) -> None:
        """Tell what was said of the answer beyond our words."""
        ours = _flat(_answer(self._reason, self._usage), _IN_ANSWER)
        if (beyond := difference({"output.message.role": "assistant", **self._answer}, ours)) != self._told:
            self._told = beyond
            deltas.append(State(None, {"answer": beyond}))

    def _open(self, kind: PartKind, name: str, wire: dict[str, Any]) -> _Block:
        self._parts += 1
        return _Block(self._parts - 1, kind, name, wire)

    def _whole_block(self, wire: dict[str, Any], deltas: list[Delta]) -> None:
        part = _part_of(wire, _BY_MODELS)
        if isinstance(part, Image) and part.data is None:
            part = _opaque(wire)
        name = part.name if isinstance(part, ToolCall) else part.kind if isinstance(part, ServerItem) else None
        kind: PartKind = _KINDS[type(part)]
        number = self._open(kind, "", {}).part
        item_id, media_type = getattr(part, "id", None), getattr(part, "media_type", None)
        state = own_state(part.state, NAME) or None
        deltas.append(Open(number, kind, item_id, name, state=state, media_type=media_type))
        match part:
            case TextPart() | Thinking() if part.text:
                deltas.append(Text(number, part.text))
            case ToolCall():
                deltas.append(Text(number, part.input))
            case Image(data=bytes() as data):
                deltas.append(Blob(number, data))
            case _:
                pass
        deltas.extend(Note(number, note) for note in (part.notes if isinstance(part, TextPart) else ()))
        deltas.append(Close(number))

    def _start(self, index: int, start: dict[str, Any], deltas: list[Delta]) -> None:
        if index in self._blocks:
            raise StreamProtocolError(f"a block begins at the place {index}, which is not free")
        if not start:
            return
        name = _kind(start)
        held, wire = mapping_of(start[name]), _flat(start, _IN_BLOCK)
        item_id = text_of(held.get("toolUseId"))
        if name == "toolUse" and not _is_of_the_server(held):
            if (tool := text_of(held.get("name"))) is None:
                raise StreamProtocolError("a tool call came without the name of a tool")
            block = self._open("call", tool, {**wire, "toolUse.input": {}})
            opening = Open(block.part, "call", item_id, tool)
        elif name == "image":
            block = self._open("image", name, {**wire, "image.source.bytes": ""})
            opening = Open(block.part, "image", media_type=_media_type(name, text_of(held.get("format"))))
        else:
            block = self._open("server", name, wire)
            opening = Open(block.part, "server", item_id, name)
        self._blocks[index] = block
        if block.kind == "server":
            block.told = {"set": _nested(wire, _IN_BLOCK)}
            opening = msgspec.structs.replace(opening, state=block.told)
        deltas.append(opening)

    def _begin(self, index: int, name: str, deltas: list[Delta]) -> _Block:
        """Open a block that has no start: only calls, results and images have one."""
        kinds: dict[str, PartKind] = {"text": "text", "citation": "text", "reasoningContent": "thinking"}
        if name == "toolUse":
            raise StreamProtocolError("more of a tool call came, which never began")
        block = self._blocks[index] = self._open(kinds.get(name) or "server", name, {})
        if block.kind == "server":
            block.told = {"set": {}}
        deltas.append(Open(block.part, block.kind, name=name if block.told else None, state=block.told or None))
        return block

    def _more(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        index = _index(event)
        for name, value in mapping_of(event.get("delta")).items():
            block = self._blocks.get(index) or self._begin(index, name, deltas)
            match block.kind, name:
                case "text", "text" if isinstance(value, str):
                    block.more(value, deltas)
                case "text", "citation":
                    block.citations.append(value)
                    if _is_citation(value):
                        deltas.append(Note(block.part, value))
                case "thinking", "reasoningContent" if is_object(value):
                    self._more_thinking(block, value, deltas)
                case (("call" | "server"), "toolUse") if is_object(value):
                    rest = dict(value)
                    if isinstance(piece := rest.pop("input", None), str):
                        block.pieces.append(piece)
                        if block.kind == "call":
                            block.more(piece, deltas)
                    block.wire.update(_flat({name: rest}, _IN_BLOCK) if rest else {})
                case "server", "toolResult" if is_array(value):
                    block.result.extend(value)
                case "image", "image" if is_object(value):
                    rest = _flat({name: value}, _IN_BLOCK)
                    if piece := text_of(rest.pop("image.source.bytes", None)):
                        deltas.append(Blob(block.part, _bytes_of(piece)))
                    block.wire.update(rest)
                case _:
                    block.wire.update(_flat({name: value}, _IN_BLOCK))

    def _more_thinking(self, block: _Block, said: dict[str, Any], deltas: list[Delta]) -> None:
        for name, value in said.items():
            path = f"reasoningContent.reasoningText.{name}"
            match name, value:
                case "text", str():
                    block.wire[path] = ""
                    block.more(value, deltas)
                case "signature", str():
                    block.wire.setdefault("reasoningContent.reasoningText.text", "")
                    block.wire[path] = block.wire.get(path, "") + value
                case "redactedContent", str():
                    path = f"reasoningContent.{name}"
                    known = block.wire.get(path)
                    block.wire[path] = b64encode(_bytes_of(known) + _bytes_of(value)).decode() if known else value
                case _:
                    block.wire[f"reasoningContent.{name}"] = value

    def _stop(self, block: _Block, deltas: list[Delta]) -> None:
        if block.text.half:
            deltas.append(Text(block.part, block.text.half))
        if block.kind == "call" and not any(block.pieces):
            deltas.append(Text(block.part, "{}"))
        if (state := _leftovers(block)) != block.told:
            deltas.append(State(block.part, state))
        deltas.append(Close(block.part))


def _leftovers(block: _Block) -> dict[str, Any]:
    """What a streamed block said beyond our words: as of a whole block, whose text is the same on both sides."""
    wire = block.wire
    part: Part
    match block.kind:
        case "text":
            notes = tuple(filter(_is_citation, block.citations))
            cited = {"citationsContent.citations": block.citations} if block.citations else {"text": ""}
            wire, part = {**cited, **wire}, TextPart(text="", notes=notes)
        case "thinking":
            part = Thinking(text="")
        case "call":
            part = ToolCall(name=block.name, input="{}", id=text_of(wire.get("toolUse.toolUseId")))
        case "image":
            kind = _media_type("image", text_of(wire.get("image.format")))
            part = Image(data=b"", media_type=kind)
        case _:
            return {"set": _nested(_server_wire(block), _IN_BLOCK)}
    return difference(wire, _flat(_block_of(part), _IN_BLOCK))


def _server_wire(block: _Block) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if block.pieces:
        text = "".join(block.pieces)
        try:
            told["toolUse.input"] = decode_json(text)
        except ValueError:
            told["toolUse.input"] = text
    if block.result:
        told["toolResult.content"] = block.result
    return {**block.wire, **told}


def _index(event: dict[str, Any]) -> int:
    index = event.get("contentBlockIndex")
    if type(index) is not int:
        raise StreamProtocolError(f"an event is for the block {str(index)[:80]}, which is no place")
    return index


def _said(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != "p"}


def _answer(reason: FinishReason, usage: Usage) -> dict[str, Any]:
    """An answer without its content."""
    stop = {"stopReason": _STOP_REASON[reason]} if reason in _STOP_REASON else {}
    counts = _usage_object(usage)
    return {"output": {"message": {"role": "assistant"}}, **stop, **({"usage": counts} if counts else {})}


def _usage(flat: Mapping[str, Any]) -> Usage:
    """The disjoint buckets of a usage object: its input excludes what was cached."""
    return Usage(
        input=count_of(flat.get("usage.inputTokens")),
        cache_read=count_of(flat.get("usage.cacheReadInputTokens")),
        cache_write=count_of(flat.get("usage.cacheWriteInputTokens")),
        output=count_of(flat.get("usage.outputTokens")),
        reported_total=count_of(flat.get("usage.totalTokens")),
    )


def _usage_object(usage: Usage) -> dict[str, Any]:
    read = usage.input if usage.input_audio is None else (usage.input or 0) + usage.input_audio
    counts = {
        "inputTokens": read,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.total_tokens if usage.reported_total is None else usage.reported_total,
        "cacheReadInputTokens": usage.cache_read,
        "cacheWriteInputTokens": usage.cache_write,
    }
    return {name: count for name, count in counts.items() if count is not None}


# Errors, for both halves


def _failure(status: int | None, headers: Mapping[str, str], value: Any, text: str) -> ProviderError:
    """The exception for an error; its type stands in a header or in the body, with a namespace or an address."""
    fields = mapping_of(value)
    told = headers.get("x-amzn-errortype") or text_of(fields.get("__type")) or text_of(fields.get("code")) or ""
    code = told.partition(":")[0].rpartition("#")[2] or None
    message = text_of(fields.get("message")) or text_of(fields.get("Message"))
    kind, usual = _ERRORS.get(code or "", (None, None))
    body = {"message": message} if message else value
    error = error_from_value(status or usual, headers, body, text)
    error.code = code or error.code
    if isinstance(error, BadRequestError) and _OVERFLOW.search(error.message):
        kind = ContextOverflowError
    if kind is not None and not isinstance(error, ContextOverflowError):
        error = as_kind(error, kind)
    if isinstance(error, ContextOverflowError) and (sizes := _SIZES.search(error.message)):
        error.prompt_tokens, error.context_length = int(sizes[1]), int(sizes[2])
    return error


def _stream_failure(headers: Mapping[str, Any], payload: bytes) -> ProviderError:
    """The exception for a message that is no event: one that the service models, or one that it does not."""
    text = payload[:10_000].decode("utf-8", "replace")
    name = text_of(headers.get(":exception-type")) or text_of(headers.get(":error-code")) or ""
    message = text_of(headers.get(":error-message"))
    try:
        value = {"message": message} if message else decode_json(payload)
    except ValueError:
        value = None
    return _failure(None, {"x-amzn-errortype": name[:1].upper() + name[1:]}, value, text)


def _error_type(error: SabirError) -> str:
    if error.code in _ERRORS:
        return error.code
    return next((name for name, (kind, _) in _ERRORS.items() if isinstance(error, kind)), "InternalServerException")


# The server's half: requests


def _refused(where: str, what: str) -> BadRequestError:
    return BadRequestError(f"{where}: {what}", status=400, code="ValidationException")


class _RequestReader:
    """Reads a client's request, strictly; keeps what it does not understand on the nearest value."""

    def __init__(self, dialect: Bedrock) -> None:
        self._dialect = dialect
        self._names: dict[str | None, str] = {}

    def read(self, wire: dict[str, Any]) -> Request:
        for name, kind in (*((name, dict) for name in _IN_REQUEST), ("system", list), ("messages", list)):
            if name in wire and not isinstance(wire[name], kind):
                raise _refused(name, f"{'an object' if kind is dict else 'a list'} is wanted")
        flat = _flat(wire, _IN_REQUEST)
        messages, system, tools = wire.get("messages", []), wire.get("system", []), flat.get("toolConfig.tools", [])
        # A stored prompt has messages of its own.
        if not messages and "promptVariables" not in wire:
            raise _refused("messages", "a list of at least one message is wanted")
        if not is_array(tools):
            raise _refused("toolConfig.tools", "a list is wanted")
        request = Request(
            model="",
            messages=(
                *((Message("system", self._parts(system, "system")),) if system else ()),
                *self._messages(messages),
            ),
            tools=_read_tools(tools),
            schema=_read_schema(flat.get("outputConfig.textFormat")),
            **self._options(flat),
        )
        if not is_in_order(request):
            raise _refused("cachePoint", "ttl='1h' must not come after ttl='5m', which is what none says")
        ours = _flat(_BodyEncoder(self._dialect, "").body(request), _IN_REQUEST)
        apart = ("messages", "system", "toolConfig.tools")
        patch = difference(*({k: v for k, v in side.items() if k not in apart} for side in (flat, ours)))
        return msgspec.structs.replace(request, state=ProviderState(NAME, patch)) if patch else request

    def _options(self, flat: dict[str, Any]) -> dict[str, Any]:
        words = {name: verdict for name, verdict in self._dialect.parameters.items() if verdict in flat}
        options = {name: flat[word] for name, word in words.items() if not isinstance(word, Unsupported)}
        options["top_k"] = next((flat[word] for word in _TOP_K.values() if word in flat), None)
        choice = mapping_of(flat.get("toolConfig.toolChoice"))
        named = mapping_of(choice.get("tool")).get("name")
        choices = {"auto": "auto", "any": "required", "tool": named}
        options["tool_choice"] = next((choices[kind] for kind in choices if kind in choice), None)
        options["thinking"] = _read_thinking(flat)
        options = {name: value for name, value in options.items() if value is not None}
        try:
            msgspec.convert(options, Options)
        except (msgspec.ValidationError, UnicodeError) as error:
            what, _, where = str(error).partition(" - at `$.")
            raise _refused(where.rstrip("`"), what) from None
        check_read(options, self._dialect.ranges, words)
        return {**options, **({"stop": tuple(options["stop"])} if "stop" in options else {})}

    def _messages(self, wire: list[Any]) -> Iterator[Message]:
        last = None
        for at, item in enumerate(wire):
            where = f"messages[{at}]"
            if not is_object(item) or (role := item.get("role")) not in ("user", "assistant", "system"):
                raise _refused(f"{where}.role", "one of user, assistant and system is wanted")
            parts = self._parts(item.get("content"), f"{where}.content", _BY_MODELS if role == "assistant" else None)
            rest = {name: value for name, value in item.items() if name not in ("role", "content")}
            said: dict[str, Any] = {"set": rest} if rest else {}
            flags = {"is_inline": role == "system", "is_apart": role == last}
            said |= {flag: True for flag, is_set in flags.items() if is_set}
            state = ProviderState(NAME, said) if said else None
            results = next((n for n, part in enumerate(parts) if not isinstance(part, ToolResult)), len(parts))
            if role != "user" or not results:
                yield Message(role, parts, state=state)
            else:
                yield Message("tool", parts[:results], state=state)
                if parts[results:]:
                    yield Message("user", parts[results:])
            last = role

    def _parts(self, content: Any, where: str, kinds: tuple[str, ...] | None = None) -> tuple[Part, ...]:
        if not is_array(content):
            raise _refused(where, "a list of blocks is wanted")
        parts: list[Part] = []
        for at, block in enumerate(content):
            if (mark := _pointed(block)) and parts and not parts[-1].cache:
                parts[-1] = msgspec.structs.replace(parts[-1], cache=mark)
            else:
                parts.append(self._part(block, f"{where}[{at}]", kinds or _BY_ANYONE))
        return tuple(parts)

    def _part(self, block: Any, where: str, kinds: tuple[str, ...]) -> Part:
        if not is_object(block) or not block:
            raise _refused(where, "an object with one of the kinds of blocks is wanted")
        try:
            part = _part_of(block, kinds)
        except StreamProtocolError as error:
            raise _refused(where, str(error)) from None
        if isinstance(part, ToolCall):
            if part.id is None:
                raise _refused(f"{where}.toolUse.toolUseId", "the id of a call is wanted")
            self._names[part.id] = part.name
        if isinstance(part, ToolResult):
            if part.call_id is None:
                raise _refused(f"{where}.toolResult.toolUseId", "the id of a call is wanted")
            return msgspec.structs.replace(part, name=self._names.get(part.call_id, ""))
        if isinstance(part, (Thinking, File)) and part.state is None:
            # Its own, though there is nothing to keep.
            return msgspec.structs.replace(part, state=ProviderState(NAME, {}))
        return part


def _read_thinking(flat: Mapping[str, Any]) -> bool | int | str | None:
    """What was asked for in the words of any family."""
    effort = mapping_of(flat.get(f"{_FIELDS}.output_config")).get("effort")
    thinking = next((mapping_of(flat[word]) for word in _THINKING[:3] if word in flat), dict[str, Any]())
    asked = flat.get(_THINKING[3])
    match thinking.get("type"):
        case "disabled":
            return False
        case "adaptive":
            asked = effort if effort in get_args(Effort) else True
        case "enabled" if "maxReasoningEffort" in thinking:
            asked = thinking["maxReasoningEffort"]
        case "enabled":
            asked = thinking.get("budget_tokens")
        case _:
            pass
    return asked if asked in get_args(Effort) or type(asked) in (bool, int) else None


def _read_tools(wire: list[Any]) -> tuple[ToolSpec, ...]:
    tools: list[ToolSpec] = []
    for at, tool in enumerate(wire):
        if (mark := _pointed(tool)) and tools and not tools[-1].cache:
            tools[-1] = msgspec.structs.replace(tools[-1], cache=mark)
        else:
            tools.append(_read_tool(tool, f"toolConfig.tools[{at}]"))
    return tuple(tools)


def _read_tool(tool: Any, where: str) -> ToolSpec:
    if not is_object(tool) or not tool:
        raise _refused(where, "an object with a tool is wanted")
    if "toolSpec" not in tool:
        kind = next(iter(tool))
        spec = ToolSpec(text_of(mapping_of(tool[kind]).get("name")) or kind)
        return msgspec.structs.replace(spec, state=ProviderState(NAME, {"set": tool, "unset": [*_flat_tool(spec)]}))
    flat = _flat(tool, _IN_TOOL)
    if (name := text_of(flat.get("toolSpec.name"))) is None:
        raise _refused(f"{where}.toolSpec.name", "a string is wanted")
    if not is_object(parameters := flat.get("toolSpec.inputSchema.json")):
        raise _refused(f"{where}.toolSpec.inputSchema.json", "a JSON Schema of an object is wanted")
    spec = ToolSpec(name, text_of(flat.get("toolSpec.description")) or "", parameters)
    patch = difference(flat, _flat_tool(spec))
    return msgspec.structs.replace(spec, state=ProviderState(NAME, patch)) if patch else spec


def _read_schema(format_: Any) -> OutputSchema | None:
    definition = mapping_of(mapping_of(mapping_of(format_).get("structure")).get("jsonSchema"))
    try:
        schema = decode_json(text_of(definition.get("schema")) or "null")
    except ValueError as error:
        raise _refused("outputConfig.textFormat.structure.jsonSchema.schema", f"no JSON: {error}") from None
    return OutputSchema(text_of(definition.get("name")) or "answer", schema) if is_object(schema) else None


# The server's half: answers


def _answer_blocks(part: Part) -> list[dict[str, Any]]:
    """A part of an answer as blocks; an item that another provider made is nothing here."""
    if isinstance(part, ServerItem) and not own_state(part.state, NAME):
        return []
    if isinstance(part, (Audio, File, ToolResult)):
        raise _no_place(type(part).__name__.lower())
    return [_encoded(part, own_state(part.state, NAME))]


def _no_place(kind: str) -> UnsupportedError:
    return UnsupportedError(f"this API's answers have no place for what the model made: {kind}")


class _Told:
    """One part being told: where, and what is known of it."""

    __slots__ = ("early", "has_begun", "index", "opening", "state")

    def __init__(self, index: int, opening: Open) -> None:
        self.index = index
        self.opening = opening
        self.state: dict[str, Any] = dict(opening.state or {})
        self.has_begun = False
        self.early: list[str] = []


class BedrockEncoder:
    """Encodes the deltas of one answer as a stream. States are taken for this format's own.

    Events name their block, so those of several blocks may be mixed. A call can only begin with its id and name, and
    what one of Bedrock's own tools did is told when it is complete: until then, what comes after it waits.
    """

    def __init__(self) -> None:
        self._state: dict[str, Any] = {}
        self._usage = Usage()
        self._reason: FinishReason = "unknown"
        self._has_begun = False
        self._count = 0
        self._parts: dict[int, _Told | None] = {}
        self._last: _Told | None = None
        self._turns = InTurn(self._part)

    def feed(self, delta: Delta) -> bytes:
        match delta:
            case Head():
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
        name = _error_type(error)
        headers = {":exception-type": name[0].lower() + name[1:], ":content-type": "application/json"}
        return encode_message({**headers, ":message-type": "exception"}, encode_json({"message": error.message}))

    def close(self) -> bytes:
        told = [self._begin(), self._turns.close()]
        told.extend(self._close(part) for part in [*self._parts])
        answer = self._answer()
        del answer["output"]
        stop = {name: answer.pop(name) for name in _IN_MESSAGE_STOP if name in answer}
        return b"".join([*told, _sent("messageStop", stop), _sent("metadata", answer)])

    def _answer(self) -> dict[str, Any]:
        ours = _flat(_answer(self._reason, self._usage), _IN_ANSWER)
        return {"output": {}, **_nested(patched(ours, self._state.get("answer", {})), _IN_ANSWER)}

    def _begin(self) -> bytes:
        if self._has_begun:
            return b""
        self._has_begun = True
        return _sent("messageStart", mapping_of(mapping_of(self._answer()["output"]).get("message")))

    def _open(self, opening: Open) -> bytes:
        is_told = opening.choice == 0 and not (opening.kind == "server" and not opening.state)
        if is_told and opening.kind in ("audio", "file"):
            raise _no_place(opening.kind)
        # A block of text begins with its first delta, and before any that opened later.
        last = self._last
        before = self._text(last, "") if last is not None and not last.has_begun else b""
        told = self._parts[opening.part] = self._last = _Told(self._count, opening) if is_told else None
        self._count += is_told
        if told is None:
            return before
        match opening.kind:
            case "call" if opening.id is not None and opening.name is not None:
                return before + self._start(told)
            case "call" | "server":
                self._turns.awaited = opening.part
                return before
            case "image":
                said = {"image.format": _format(opening.media_type or "image/png"), **told.state.get("set", {})}
                told.has_begun = True
                return before + self._event("contentBlockStart", told, start=_nested(said, _IN_BLOCK))
            case _:
                return before + self._leftovers(told, told.state.get("set", {}))

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
            case Blob():
                return self._more(told, {"image": {"source": {"bytes": b64encode(delta.data).decode()}}})
            case Note():
                return self._more(told, {"citation": delta.value}) if _is_citation(delta.value) else b""
            case State():
                return self._patch(told, delta)
            case Close():
                return self._close(delta.part)

    def _start(self, told: _Told) -> bytes:
        """Begin a call, with what is known of it."""
        opening = told.opening
        if not opening.name:
            raise StreamProtocolError("a tool call came without the name of a tool")
        named = {"toolUseId": opening.id} if opening.id is not None else {}
        said = {**_flat({"toolUse": {**named, "name": opening.name}}, _IN_BLOCK), **told.state.get("set", {})}
        said.pop("toolUse.input", None)
        told.has_begun = True
        self._turns.awaited = None
        start = self._event("contentBlockStart", told, start=_nested(said, _IN_BLOCK))
        return start + b"".join(self._text(told, text) for text in told.early)

    def _text(self, told: _Told, text: str) -> bytes:
        match told.opening.kind:
            case "call" if not told.has_begun:
                told.early.append(text)
                return b""
            case "call":
                return self._more(told, {"toolUse": {"input": text}})
            case "thinking":
                return self._more(told, {"reasoningContent": {"text": text}})
            case "text" | "refusal":
                return self._more(told, {"text": text})
            case _:
                return b""

    def _patch(self, told: _Told, delta: State) -> bytes:
        before, opening = told.state.get("set", {}), told.opening
        told.state.update(delta.patch)
        told.opening = msgspec.structs.replace(opening, id=opening.id or delta.id, name=opening.name or delta.name)
        if opening.kind == "server":
            return b""
        if opening.kind == "call" and not told.has_begun:
            is_known = told.opening.id is not None and told.opening.name is not None
            return self._start(told) if is_known else b""
        fresh = {name: value for name, value in told.state.get("set", {}).items() if before.get(name) != value}
        return self._leftovers(told, fresh)

    def _leftovers(self, told: _Told, fresh: dict[str, Any]) -> bytes:
        """What is said of a block beyond our words; a reader passes over deltas that it does not know."""
        fresh = dict(fresh)
        if fresh and not told.has_begun and told.opening.kind != "thinking":
            return self._text(told, "") + self._leftovers(told, fresh)
        signature = fresh.pop("reasoningContent.reasoningText.signature", None)
        citations = list_of(fresh.pop("citationsContent.citations", None))
        deltas: list[dict[str, Any]] = [{"citation": each} for each in citations if not _is_citation(each)]
        if signature is not None:
            deltas.append({"reasoningContent": {"signature": signature}})
        if fresh:
            deltas.append(_nested(fresh, _IN_BLOCK))
        return b"".join(self._more(told, delta) for delta in deltas)

    def _close(self, part: int) -> bytes:
        if (told := self._parts.get(part)) is None:
            return b""
        self._parts[part] = None
        out = b""
        if told.opening.kind == "call" and not told.has_begun:
            out = self._start(told)
        elif told.opening.kind == "server":
            out = self._server_item(told)
            self._turns.awaited = None
        elif not told.has_begun:
            out = self._text(told, "")
        return out + self._event("contentBlockStop", told)

    def _server_item(self, told: _Told) -> bytes:
        block = _flat(told.state.get("set", {}), _IN_BLOCK)
        kind = _kind(told.state.get("set", {}))
        pieces: list[dict[str, Any]] = []
        if kind == "toolUse" and "toolUse.input" in block:
            value = block.pop("toolUse.input")
            pieces.append({"toolUse": {"input": value if isinstance(value, str) else encode_json(value).decode()}})
        if kind == "toolResult" and is_array(content := block.get("toolResult.content")):
            del block["toolResult.content"]
            pieces.append({"toolResult": content})
        start = self._event("contentBlockStart", told, start=_nested(block, _IN_BLOCK))
        return start + b"".join(self._more(told, piece) for piece in pieces)

    def _more(self, told: _Told, delta: dict[str, Any]) -> bytes:
        told.has_begun = True
        return self._event("contentBlockDelta", told, delta=delta)

    def _event(self, name: str, told: _Told, **fields: Any) -> bytes:
        return _sent(name, {"contentBlockIndex": told.index, **fields})


def _sent(name: str, event: dict[str, Any]) -> bytes:
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return encode_message(headers, encode_json(event))
