"""Google's Gemini API (generateContent and streamGenerateContent), both halves. Knows no provider, only quirks.

Sources: https://ai.google.dev/api/generate-content, the types of Google's Python SDK (google-genai 3.4, 2026-11) and
214 recorded exchanges with the Gemini API and Vertex AI. A part of the wire is a part of ours; what a part, content,
tool, request or answer says beyond our words is a patch in its state, so that it can be said again. The model, and
whether its answer is streamed, stand in the address. Google's Interactions API is another format.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import quote, unquote

import msgspec

from ..deltas import Blob, Close, Count, Delta, Event, Finish, FinishReason, Head, Note, Open, PartKind, State, Text
from ..errors import (
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextOverflowError,
    NotFoundError,
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
from ..requests import Effort, HttpRequest, Notice, Options, OutputSchema, Request, Response, SchemaMode, ToolSpec
from ..strict_json import decode_json, encode_json, is_array, is_object
from ..usage import Usage
from . import NO_DOCUMENTS, Unsupported, Verdicts, broken_off, choices_of, count_of, list_of, mapping_of, text_of
from .cache_marks import Caching, keyed
from .failures import as_kind, error_from_value, status_of
from .json_array import ObjectStream
from .json_paths import PathText
from .leftovers import difference, own_state, patched
from .media_rules import MediaRules, type_of_address
from .places import no_place
from .ranges import PORTABLE, Ranges, check_read, check_sent
from .sse import EventStream
from .subsets import GEMINI, GEMINI_TOOLS, parameters_of, shape_of, told_of_tools
from .surrogates import PairedText

NAME = "gemini"

# The verdict on each portable parameter: the wire's word for it, or why there is none.
PARAMETERS: Verdicts = {
    "temperature": "generationConfig.temperature",
    "top_p": "generationConfig.topP",
    "top_k": "generationConfig.topK",
    "min_p": Unsupported("this API has no min_p; use top_p"),
    "max_tokens": "generationConfig.maxOutputTokens",
    "stop": "generationConfig.stopSequences",
    "seed": "generationConfig.seed",
    "frequency_penalty": "generationConfig.frequencyPenalty",
    "presence_penalty": "generationConfig.presencePenalty",
    "repetition_penalty": Unsupported("this API has no repetition_penalty; use frequency_penalty"),
    "parallel_tool_calls": Unsupported("this API has no such switch; ask in the prompt for one call at a time"),
    "logprobs": "generationConfig.responseLogprobs",
    "top_logprobs": "generationConfig.logprobs",
    "documents": NO_DOCUMENTS,
    "n": "generationConfig.candidateCount",
    "user": Unsupported("this API has no field for your users; leave it out"),
}
_COUNTS = ("top_k", "max_tokens", "seed", "top_logprobs", "n")

# https://ai.google.dev/api/generate-content#generationconfig and Vertex AI's GenerationConfig; recorded, what is said
# of temperatures.
RANGES: Ranges = {
    **PORTABLE,
    "temperature": (0, 2),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
    "top_logprobs": (0, 20),
}

_FINISH: dict[str, FinishReason] = {"STOP": "stop", "MAX_TOKENS": "length", "CONTINUATION": "paused"}
_FILTERED = frozenset(
    {"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR", "ESCALATION"}
    | {"IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION"}
)
_WIRE_FINISH: dict[FinishReason, str] = {
    "stop": "STOP",
    "tool_calls": "STOP",
    "length": "MAX_TOKENS",
    "content_filter": "SAFETY",
    "refusal": "SAFETY",
    "paused": "CONTINUATION",
}
# Asked with `$alt=json;enum-encoding=int`, servers number their words; from 6 on, Google's two APIs number differently.
_FINISH_NUMBERS = {1: "STOP", 2: "MAX_TOKENS", 3: "SAFETY", 4: "RECITATION", 5: "OTHER"}
_AUDIO_MODALITIES = ("AUDIO", 4)
# Ends that leave no answer behind: the model made something that is none, or the request could not be answered.
_FAILED: dict[str, type[ProviderError]] = {
    "MALFORMED_FUNCTION_CALL": ServerError,
    "MALFORMED_RESPONSE": ServerError,
    "UNEXPECTED_TOOL_CALL": ServerError,
    "MISSING_THOUGHT_SIGNATURE": BadRequestError,
}
# google.rpc.Code, as https://cloud.google.com/apis/design/errors maps it to HTTP.
_STATUS_WORDS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
# What an error's details say more precisely than its status; the last two are words of ours, for our own server's half.
_REASONS: dict[str, type[ProviderError]] = {
    "API_KEY_INVALID": AuthenticationError,
    "API_KEY_EXPIRED": AuthenticationError,
    "CONTEXT_LENGTH_EXCEEDED": ContextOverflowError,
    "CONTENT_FILTERED": ContentFilterError,
}
_OVERFLOW = re.compile(r"input token count \(?(\d+)\)? exceeds the maximum number of tokens allowed \(?(\d+)", re.I)
_DELAY = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")
_DETAIL = "type.googleapis.com/google.rpc."

# https://ai.google.dev/gemini-api/docs/thinking, 2026-11: up to 2.5 models think within a budget, from 3 on at a level.
# Gemini 2.5 Pro always thinks; "minimal" is refused by all of Pro and by 3.7 Flash, "medium" by the first 3 Pro.
_BUDGETED = re.compile(r"gemini-(?:[a-z-]+-)?[12](?!\d)")
_THOUGHTLESS = re.compile(r"gemini-(?:1(?!\d)|2\.0)")
_MINIMAL = re.compile(r"gemini-3(?:\.[0-6])?-flash")
_NO_MEDIUM = re.compile(r"gemini-3-pro")
# The least and the most that a model may be given, and whether nothing is a budget too.
_BUDGET_RANGES = (
    (re.compile(r"gemini-2\.5-pro"), 128, 32_768, False),
    (re.compile(r"gemini-2\.5-flash-lite"), 512, 24_576, True),
    (re.compile(r"gemini-2\.5-flash"), 1, 24_576, True),
)
# Google's own table for it: https://ai.google.dev/gemini-api/docs/openai#thinking
_BUDGETS: dict[str, int] = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576}
# https://ai.google.dev/gemini-api/docs/thought-signatures: these models refuse a call that is not signed, but for this
# stand-in for the signature of a call that they did not make.
_SIGNING = re.compile(r"gemini-(?:[3-9](?!\d)|\d\d|[a-z-]+-latest)")
_NO_SIGNATURE = "skip_thought_signature_validator"

# Where a client of ours may have said the shape of the answer in this format's own words.
_SHAPES = ("generationConfig.responseSchema", "generationConfig.responseJsonSchema")
# Objects of a body that only hold fields, which we speak of as `generationConfig.temperature`; of these fields, the one
# that is an object that we read.
_HOLDERS = {"generationConfig": "thinkingConfig", "toolConfig": "functionCallingConfig"}
# A part says one thing, which one of its fields holds; these say something about it.
_ABOUT = frozenset(
    {"thought", "thoughtSignature", "videoMetadata", "mediaResolution", "partMetadata", "mediaProcessing"}
    | {"audioTranscription", "audioMetadata", "speechMetadata", "documentMetadata", "spreadsheetMetadata"}
)
_NESTED = ("functionCall", "functionResponse", "inlineData", "fileData")
_CALLING_MODES = {"AUTO": "auto", "ANY": "required", "NONE": "none"}
_MEDIA_KINDS: dict[type[Part], PartKind] = {Image: "image", Audio: "audio", File: "file"}
# A thought is its maker's own, whether it is signed or not.
_THOUGHT = {"set": {"thought": True}}
_HEAD = ("responseId", "modelVersion")
_IN_CHUNK = frozenset({*_HEAD, "candidates", "usageMetadata"})
_ONLY_CALL = {"functionCall"}
_IN_PIECES = {"partialArgs", "willContinue"}
_NO_JSON = msgspec.Raw(b"null")
# How often chunks are taken for mere continuations that are none: in some streams each says something of its own.
_MOST_MISSES = 8
# What a candidate says of its text, and is told as notes of it.
_NOTED = ("groundingMetadata", "urlContextMetadata", "citationMetadata", "logprobsResult")
_CITATIONS = {"citations": "citation", "citationSources": "citationSource"}
_OTHERS_LOGPROB = frozenset({"logprob", "bytes", "top_logprobs"})
# https://ai.google.dev/gemini-api/docs/image-understanding
MEDIA = MediaRules(types={Image: ("image/png", "image/jpeg", "image/webp", "image/heic", "image/heif")})
# https://ai.google.dev/gemini-api/docs/caching, 2026-11. What is kept on purpose is made, paid and renewed apart, by
# requests of its own.
CACHING = Caching(
    least=((re.compile(r"gemini-2\.5"), 2048), (re.compile(r"gemini"), 4096)),
    remedy="one that you have made yourself goes along with extra={'cachedContent': 'cachedContents/…'}",
)


@dataclass(frozen=True)
class Gemini:
    """The dialect with the quirks of one kind of server.

    Attributes:
        parameters: the verdict on each portable parameter.
        ranges: what its numbers may be.
        thinking: how it is asked for: "budget" (in tokens) or "level"; None is by the model's name.
        typed_addresses: whether a file's address is refused without a type.
        media: what the server takes of images.
        caching: which prompts it keeps.
    """

    parameters: Verdicts = field(default_factory=lambda: PARAMETERS)
    ranges: Ranges = field(default_factory=lambda: RANGES)
    thinking: Literal["budget", "level"] | None = None
    typed_addresses: bool = False
    media: MediaRules = MEDIA
    caching: Caching = CACHING

    name = NAME

    def verdicts(self) -> Verdicts:
        """The verdict on every portable parameter."""
        special = {
            "thinking": f"generationConfig.thinkingConfig ({self.thinking or 'budget or level, by model'})",
            "tool_choice": "toolConfig.functionCallingConfig",
            "schema": "generationConfig.responseJsonSchema",
            "cache": self.caching.verdict(),
        }
        return {**self.parameters, **special, "extra": "(as given)", "headers": "(as given)"}

    def schema_modes(self, request: Request) -> tuple[SchemaMode, ...]:
        # 400 "Function calling with a response mime type: 'application/json' is unsupported", before Gemini 3.
        has_way = not request.tools or not _BUDGETED.search(request.model)
        return ("native", "tool", "prompt") if has_way else ("tool", "prompt")

    def encode_request(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        check_sent(request, self.ranges, self.parameters)
        encoder = _BodyEncoder(self, request.model)
        body = encode_json(encoder.body(request))
        headers = (("content-type", "application/json"), *request.headers.items())
        method = "streamGenerateContent?alt=sse" if request.stream else "generateContent"
        model = request.model if "/" in request.model else f"models/{request.model}"
        return HttpRequest("POST", f"/{quote(model)}:{method}", headers, body), tuple(encoder.notices)

    def decode_answer(self, body: bytes) -> list[Delta]:
        text = body[:10_000].decode("utf-8", "replace")
        try:
            value = decode_json(body)
        except ValueError as error:
            raise ServerError(f"the answer is no JSON: {error}", status=200, body=text) from None
        # A stream that was not asked for as events is a list of what would have been events.
        chunks = value if is_array(value) else [value]
        reader, deltas = _AnswerReader(is_whole=not is_array(value)), list[Delta]()
        for chunk in chunks:
            reader.read(_object(chunk), deltas)
        if not reader.has_answered:
            raise StreamProtocolError("the answer has no candidates", body=text)
        if is_array(value) and not reader.is_finished:
            raise _cut()
        try:
            return [*deltas, *reader.close()]
        except ProviderError as error:
            raise broken_off(error, NAME, deltas) from None

    def decoder(self) -> GeminiDecoder:
        return GeminiDecoder()

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
        found = re.fullmatch(r"(?:.*/)?([^/:]+):(generateContent|streamGenerateContent)", path.partition("?")[0])
        if found is None:
            raise NotFoundError(f"nothing is served at {path}; ask /models/MODEL:generateContent", status=404)
        return unquote(found[1]), found[2] == "streamGenerateContent"

    def decode_request(self, body: bytes) -> Request:
        """A client's request, strictly. The model is empty, and the stream False: `decode_path` has them."""
        try:
            value = decode_json(body)
        except ValueError as error:
            raise _refused("body", f"no JSON: {error}") from None
        if not is_object(value):
            raise _refused("body", "a JSON object is wanted")
        try:
            return _RequestReader(self).read(self.canonical_request(value))
        except RecursionError:
            raise _refused("body", "nested too deeply") from None

    def encode_response(self, response: Response[Any]) -> bytes:
        messages, finishes = choices_of(response)
        state = own_state(response.message.state, NAME)
        answer = _answer(response.message.id, response.model or None)
        answer["candidates"] = [
            _candidate(number, message, finishes[number], state) for number, message in enumerate(messages)
        ]
        if usage := patched(_usage_object(response.usage), state.get("usage", {})):
            answer["usageMetadata"] = usage
        return encode_json(patched(answer, state.get("answer", {})))

    def encoder(self, request: Request | None = None) -> GeminiEncoder:
        return GeminiEncoder()

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        status = status_of(error)
        word = next((word for word, number in _STATUS_WORDS.items() if number == status), None)
        word = word or ("INVALID_ARGUMENT" if status < 500 else "INTERNAL")
        details: list[dict[str, Any]] = []
        reason = next((reason for reason, kind in _REASONS.items() if type(error) is kind), None)
        if isinstance(error, AuthenticationError) or reason is None:
            reason = error.code
        if reason is not None and reason not in _STATUS_WORDS:
            told: dict[str, Any] = {"reason": reason}
            if isinstance(error, ContextOverflowError):
                sizes = {"promptTokens": error.prompt_tokens, "contextLength": error.context_length}
                told["metadata"] = {name: str(size) for name, size in sizes.items() if size is not None}
            details.append({"@type": f"{_DETAIL}ErrorInfo", **told})
        if error.retry_after is not None:
            details.append({"@type": f"{_DETAIL}RetryInfo", "retryDelay": f"{error.retry_after:.9g}s"})
        fields = {"code": status, "message": error.message, "status": word}
        return status, encode_json({"error": {**fields, **({"details": details} if details else {})}})

    def canonical_request(self, body: dict[str, Any]) -> dict[str, Any]:
        """What means the same is made the same, in the objects that we read and no deeper:

        - null is absent;
        - a field in snake case is the one in camel case;
        - one object where a list is wanted is a list of it (contents, parts, tools, functionDeclarations);
        - an empty text is absent, unless it is all that a user says;
        - `thought: false` and an empty signature are absent; so are lists and objects with nothing in them: tools,
          functionDeclarations, parts, generationConfig, toolConfig, and a systemInstruction without parts.
        """
        wire = _named(body)
        for name, inner in _HOLDERS.items():
            if is_object(wire.get(name)):
                holder = wire[name] = _named(wire[name])
                if is_object(holder.get(inner)):
                    holder[inner] = _named(holder[inner])
        if is_array(contents := _listed(wire.get("contents"))):
            wire["contents"] = [told for each in contents if (told := _told(_canonical_content(each))) is not None]
        if is_object(wire.get("systemInstruction")):
            instruction = _canonical_content(wire["systemInstruction"])
            wire["systemInstruction"] = instruction if "parts" in instruction else {}
        if is_array(tools := _listed(wire.get("tools"))):
            wire["tools"] = [tool for tool in map(_canonical_tool, tools) if tool != {}]
        empty = (*_HOLDERS, "systemInstruction", "tools")
        return {name: value for name, value in wire.items() if not (name in empty and value in ({}, []))}

    def canonical_answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """As `canonical_request`; further, a candidate's index of 0 and its role of "model" go without saying, and so
        does a usageMetadata with nothing in it.
        """
        canonical = _named(body)
        if is_array(candidates := canonical.pop("candidates", None)) and candidates:
            canonical["candidates"] = [_canonical_candidate(candidate) for candidate in candidates]
        if is_object(usage := canonical.pop("usageMetadata", None)):
            usage = _present(usage)
        return canonical if usage in (None, {}) else {**canonical, "usageMetadata": usage}


def _present(object_: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in object_.items() if value is not None}


def _named(object_: Mapping[str, Any]) -> dict[str, Any]:
    """An object without nulls, its fields in camel case."""
    named = _present(object_) if None in object_.values() else dict(object_)
    if "_" in "".join(named):
        for name in [name for name in named if "_" in name and named.get(_camel(name)) is None]:
            named[_camel(name)] = named.pop(name)
    return named


def _camel(name: str) -> str:
    return re.sub("(?<=[a-z0-9])_([a-z0-9])", lambda letter: letter[1].upper(), name)


def _listed(value: Any) -> Any:
    return [value] if is_object(value) else value


def _canonical_content(content: Any) -> Any:
    if not is_object(content):
        return content
    canonical = _named(content)
    if is_array(parts := _listed(canonical.pop("parts", None))):
        parts = [_canonical_part(part) for part in parts]
    return {**canonical, "parts": parts} if parts not in (None, []) else canonical


def _told(content: Any) -> Any:
    """A content without empty texts; None if it is the model's, and nothing is left of it."""
    if not is_object(content) or not is_array(content.get("parts")):
        return content
    parts = _without_blanks(content["parts"], content.get("role") == "model")
    return {**content, "parts": parts} if parts else None


def _without_blanks(parts: list[Any], is_spoken: bool) -> list[Any]:
    """The parts without empty texts, which some servers refuse; what a user says is left at least that."""
    told = [part for part in parts if part != {"text": ""}]
    return told if told or is_spoken else parts


def _canonical_part(part: Any) -> Any:
    if not is_object(part):
        return part
    canonical = _named(part)
    for name in _NESTED:
        if is_object(inner := canonical.get(name)):
            canonical[name] = _named(inner)
            if is_array(parts := canonical[name].get("parts")):
                canonical[name]["parts"] = [_canonical_part(part) for part in parts]
    if canonical.get("thought") is False:
        del canonical["thought"]
    if canonical.get("thoughtSignature") == "":
        del canonical["thoughtSignature"]
    return canonical


def _canonical_tool(tool: Any) -> Any:
    if not is_object(tool):
        return tool
    canonical = _named(tool)
    declared = _listed(canonical.get("functionDeclarations"))
    if is_array(declared):
        canonical["functionDeclarations"] = [_named(each) if is_object(each) else each for each in declared]
    if declared == []:
        del canonical["functionDeclarations"]
    return canonical


def _canonical_candidate(candidate: Any) -> Any:
    if not is_object(candidate):
        return candidate
    canonical = _present(candidate)
    if canonical.get("index") == 0:
        del canonical["index"]
    if is_object(canonical.get("content")):
        canonical["content"] = _canonical_content(canonical["content"])
        if canonical["content"].get("role") == "model":
            del canonical["content"]["role"]
    return canonical


# Parts of the wire and of ours, for both halves


def _part_of(wire: dict[str, Any]) -> Part:
    """A part in canonical form as one of ours."""
    part = _worded(wire)
    if part is None:
        return _opaque(wire)
    ours = _wire_of(part)
    if isinstance(part, Thinking):
        del ours["thought"]
    patch = difference(wire, ours)
    return msgspec.structs.replace(part, state=ProviderState(NAME, patch)) if patch else part


def _worded(wire: dict[str, Any]) -> Part | None:
    """A part in our words, as far as they go; None if they say nothing of it."""
    if is_object(call := wire.get("functionCall")):
        if (name := text_of(call.get("name"))) is None:
            raise StreamProtocolError("a tool call came without the name of a tool")
        text = _json(call["args"]) if "args" in call else ""
        return ToolCall(name=name, input=text, id=text_of(call.get("id")))
    if is_object(result := wire.get("functionResponse")):
        return _result_of(result)
    if is_object(blob := wire.get("inlineData")) and isinstance(data := blob.get("data"), str):
        return _media(wire, blob, _bytes_of(data), None)
    if is_object(source := wire.get("fileData")) and (uri := text_of(source.get("fileUri"))):
        return _media(wire, source, None, uri)
    if "text" not in wire and not wire.keys() <= _ABOUT:
        return None
    if not isinstance(text := wire.get("text", ""), str):
        raise StreamProtocolError(f"the text of a part is none: {str(text)[:80]}")
    return Thinking(text=text) if wire.get("thought") is True else TextPart(text=text)


def _json(value: Any) -> str:
    try:
        return encode_json(value).decode()
    except ValueError as error:
        raise StreamProtocolError(f"the arguments of a tool call cannot be told: {error}") from None


def _bytes_of(data: str) -> bytes:
    """The bytes of base64 in either alphabet, padded or not, as JSON's mapping of protocol buffers reads it."""
    plain = data.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError:
        raise StreamProtocolError("the data of a part is no base64") from None


def _media(wire: dict[str, Any], source: dict[str, Any], data: bytes | None, uri: str | None) -> Image | Audio | File:
    kind, name = text_of(source.get("mimeType")), text_of(source.get("displayName"))
    if kind is not None and kind.startswith("image/"):
        return Image(data=data, url=uri, media_type=kind)
    if kind is not None and kind.startswith("audio/"):
        transcript = text_of(mapping_of(wire.get("audioTranscription")).get("text"))
        return Audio(data=data, url=uri, media_type=kind, transcript=transcript)
    if uri is not None and "://" not in uri:
        return File(id=uri, media_type=kind, name=name)
    return File(data=data, url=uri, media_type=kind, name=name)


def _result_of(result: dict[str, Any]) -> ToolResult:
    """A function's response; `output` and `error` are the words of the API for what it gave and what went wrong."""
    response = result.get("response")
    word = next(iter(response)) if is_object(response) and len(response) == 1 else None
    said = response[word] if is_object(response) and word in ("output", "error") else response
    content: list[TextPart | Image | Value] = []
    if isinstance(said, str):
        content.append(TextPart(text=said))
    elif said is not response or response:
        content.append(Value(value=said))
    media = [_part_of(part) if is_object(part) else None for part in list_of(result.get("parts"))]
    if all(isinstance(part, Image) for part in media):
        content.extend(part for part in media if isinstance(part, Image))
    call_id, name = text_of(result.get("id")), text_of(result.get("name")) or ""
    return ToolResult(call_id=call_id, name=name, content=tuple(content), is_error=word == "error")


def _wire_of(part: Part) -> dict[str, Any]:
    """A part as the wire has it, without what only its state says."""
    match part:
        case TextPart() | Refusal():
            return {"text": part.text}
        case Value():
            return {"text": encode_json(part.value).decode()}
        case Thinking():
            return {"text": part.text, "thought": True}
        case ToolCall():
            call = {"id": None if part.synthetic else part.id, "name": part.name}
            return {"functionCall": _present({**call, "args": _arguments(part.input) if part.input else None})}
        case ToolResult():
            media = [patched(_wire_of(item), own_state(item.state, NAME)) for item in _images(part)]
            told = {"id": part.call_id, "name": part.name, "response": _response(part), "parts": media or None}
            return {"functionResponse": _present(told)}
        case Image() | Audio() | File():
            return _source(part)
        case ServerItem():
            return {}


def _arguments(text: str) -> dict[str, Any]:
    """A call's arguments as the object that this API wants; what is none is wrapped in one."""
    try:
        value = decode_json(text)
    except ValueError:
        value = None
    return value if is_object(value) else {"INVALID_JSON": text}


def _images(result: ToolResult) -> list[Image]:
    return [item for item in result.content if isinstance(item, Image)]


def _response(result: ToolResult) -> dict[str, Any]:
    said = [item for item in result.content if not isinstance(item, Image)]
    word = "error" if result.is_error else "output"
    match said:
        case []:
            return {"error": ""} if result.is_error else {}
        case [Value(value=value)]:
            is_plain = is_object(value) and value.keys() not in ({"output"}, {"error"}, set())
            return value if is_plain and not result.is_error else {word: value}
        case _:
            return {word: result.text}


_DEFAULT_TYPES: dict[type[Image | Audio | File], str] = {
    Image: "image/png",
    Audio: "audio/wav",
    File: "application/pdf",
}


def _type_of(part: Image | Audio | File) -> str | None:
    """The media type, as given or as the address tells it."""
    told = part.media_type or (type_of_address(part.url) if part.url is not None else None)
    kinds = {Image: "image/", Audio: "audio/", File: ""}
    return told if part.media_type or (told or "").startswith(kinds[type(part)]) else None


def _source(part: Image | Audio | File) -> dict[str, Any]:
    name = part.name if isinstance(part, File) else None
    uri = part.url or (part.id if isinstance(part, File) else None)
    # What an address leads to is the API's to find out, but that it is a picture or a sound is only said here.
    kind = _type_of(part) or (_DEFAULT_TYPES[type(part)] if uri is None or not isinstance(part, File) else None)
    transcript = part.transcript if isinstance(part, Audio) else None
    about = {} if transcript is None else {"audioTranscription": {"text": transcript}}
    if uri is not None:
        return {"fileData": _present({"mimeType": kind, "fileUri": uri, "displayName": name}), **about}
    data = b64encode(part.data or b"").decode()
    return {"inlineData": _present({"mimeType": kind, "data": data, "displayName": name}), **about}


# The client's half: requests


class _BodyEncoder:
    def __init__(self, dialect: Gemini, model: str) -> None:
        self._dialect = dialect
        self._model = model
        self._names: dict[str | None, str] = {}
        self._synthetic: set[str | None] = set()
        self.notices: list[Notice] = []

    def body(self, request: Request) -> dict[str, Any]:
        """The JSON body; `request.extra` goes over it as it is, field by field within `generationConfig`."""
        patch = self._own(request.state, "request")
        # What a client of ours has asked for in this format's own words is not translated again.
        in_its_words = patch.get("set", {})
        self.notices += keyed(request, self._dialect.caching)[1]
        system, contents = self._conversation(request.messages)
        flat: dict[str, Any] = {}
        for parameter, verdict in self._dialect.parameters.items():
            if (value := getattr(request, parameter)) is None:
                continue
            if isinstance(verdict, Unsupported):
                self._refuse(parameter, str(verdict))
            else:
                flat[verdict] = list(value) if parameter == "stop" else value
        if request.thinking is not None and "generationConfig.thinkingConfig" not in in_its_words:
            self._think(request.thinking, flat)
        if request.schema is not None and request.schema.mode == "native":
            notices = self._shape(request.schema, flat)
            self.notices += notices if in_its_words.keys().isdisjoint(_SHAPES) else ()
        if request.tools:
            flat["tools"] = self.tools(request.tools)
            self.notices += told_of_tools(request.tools, NAME, GEMINI_TOOLS)
        if request.tool_choice is not None:
            self._choose_tool(request.tool_choice, flat)
        said = {"contents": contents, **({"systemInstruction": system} if system else {})}
        return _nested({**patched(flat, patch), **said, **_flat(request.extra)})

    def tools(self, specs: Iterable[ToolSpec]) -> list[dict[str, Any]]:
        """The wire's tools: all functions are declared in one of them, unless the wire had them apart."""
        tools: dict[Any, dict[str, Any]] = {}
        for position, spec in enumerate(specs):
            own = self._own(spec.state, "tool")
            is_foreign = spec.state is not None and spec.state.dialect != NAME
            if is_foreign and not spec.description and not spec.parameters:
                raise UnsupportedError(f"the tool {spec.name!r} is not run here, but by another provider; leave it out")
            if own.get("unset") == ["functionDeclarations"]:
                tools.setdefault(own.get("at", f"own {position}"), {}).update(own["set"])
            else:
                tool = tools.setdefault(own.get("at", "functions"), {})
                tool.setdefault("functionDeclarations", []).append(patched(_declaration(spec), own))
        return list(tools.values())

    def _choose_tool(self, choice: str, flat: dict[str, Any]) -> None:
        if not any("functionDeclarations" in tool for tool in flat.get("tools", ())):
            self._drop("tool_choice", "there is no choice of tools to send: the request has no tools of its own")
            return
        mode = next((mode for mode, word in _CALLING_MODES.items() if word == choice), None)
        named = {"mode": "ANY", "allowedFunctionNames": [choice]}
        flat["toolConfig.functionCallingConfig"] = named if mode is None else {"mode": mode}

    def _think(self, asked: bool | int | str, flat: dict[str, Any]) -> None:
        if _THOUGHTLESS.search(self._model):
            if asked is not False:
                self._refuse("thinking", f"{self._model} does not think; choose a model that does")
            return
        by_name: Literal["budget", "level"] = "budget" if _BUDGETED.search(self._model) else "level"
        is_budget = (self._dialect.thinking or by_name) == "budget"
        config = self._budget(asked) if is_budget else self._level(asked)
        flat["generationConfig.thinkingConfig"] = {**({} if asked is False else {"includeThoughts": True}), **config}
        wanted = (-1 if asked else 0) if is_budget and isinstance(asked, bool) else asked
        if next(iter(config.values()), wanted) != wanted:
            self._emulate("thinking", f"thinking={asked!r} was approximated: sent as {config}")

    def _budget(self, asked: bool | int | str) -> dict[str, Any]:
        if asked is True:
            return {"thinkingBudget": -1}
        wanted = _BUDGETS[asked] if isinstance(asked, str) else int(asked)
        for pattern, least, most, can_stop in _BUDGET_RANGES:
            if pattern.search(self._model) and (wanted or not can_stop):
                wanted = min(max(wanted, least), most)
                break
        return {"thinkingBudget": wanted}

    def _level(self, asked: bool | int | str) -> dict[str, Any]:
        if asked is True:
            return {}
        if isinstance(asked, str):
            level = asked
        else:
            ranked = ("low", "medium")
            level = "minimal" if asked is False else next((e for e in ranked if asked <= _BUDGETS[e]), "high")
        if level == "minimal" and not _MINIMAL.search(self._model):
            level = "low"
        return {"thinkingLevel": "high" if level == "medium" and _NO_MEDIUM.search(self._model) else level}

    def _shape(self, wanted: OutputSchema, flat: dict[str, Any]) -> tuple[Notice, ...]:
        shape, notices = shape_of(wanted, GEMINI)
        flat["generationConfig.responseMimeType"] = "application/json"
        flat["generationConfig.responseJsonSchema"] = shape.json
        return notices

    def _conversation(self, messages: Iterable[Message]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The system instruction and the contents."""
        system: dict[str, Any] = {}
        contents: list[dict[str, Any]] = []
        for message in messages:
            own = self._own(message.state, "message")
            if message.name is not None:
                self._drop("name", f"this API has no names of speakers: {message.name!r}")
            parts = [wire for part in message.parts for wire in self._part(part, message.role)]
            if message.role != "system":
                parts = _without_blanks(parts, message.role == "assistant")
            if not parts:
                continue
            if message.role == "system":
                if contents:
                    self._emulate("system", "a system message was moved to the front, where this API has them")
                system = patched({**system, "parts": [*system.get("parts", []), *parts]}, own)
                continue
            if message.role == "assistant":
                self._sign(parts, message)
            elif message.role == "tool":
                # Media that a model does not take in results follow all of them.
                parts.sort(key=lambda wire: "functionResponse" not in wire)
            if own.get("is_joined") and contents:
                contents[-1]["parts"].extend(parts)
            else:
                role = "model" if message.role == "assistant" else "user"
                contents.append(patched({"role": role, "parts": parts}, own))
        return system, contents

    def _sign(self, parts: list[dict[str, Any]], message: Message) -> None:
        """Put a stand-in for the signature of a call, if the model would refuse one that it did not sign."""
        first = next((wire for wire in parts if "functionCall" in wire), None)
        if first is None or "thoughtSignature" in first or not _SIGNING.search(self._model):
            return
        if not _SIGNING.search(message.model or ""):
            first["thoughtSignature"] = _NO_SIGNATURE
            name = first["functionCall"]["name"]
            self._emulate("ToolCall", f"the call of {name!r} was sent with a stand-in for the model's signature")

    def _part(self, part: Part, role: str) -> list[dict[str, Any]]:
        kind, is_own = type(part).__name__, part.state is not None and part.state.dialect == NAME
        own = self._own(part.state, "part")
        match part:
            case Thinking() | ServerItem() if not is_own and role != "assistant":
                raise no_place(part, role)
            case Thinking() | ServerItem() if not is_own:
                self._drop(kind, f"a {kind} part was left out: only its maker can use it")
                return []
            case Audio(data=None, url=None) if role == "assistant":
                self._drop(kind, "an Audio part was left out: only the provider that made it has its sound")
                return []
            case Audio(data=None, url=None):
                raise UnsupportedError("an Audio part has only another provider's id; send its data or url")
            case Refusal():
                self._emulate(kind, "a refusal was sent as text")
            case Image() | Audio() | File():
                self._check_media(part)
                if self._is_untyped(part):
                    part = msgspec.structs.replace(part, media_type=_DEFAULT_TYPES[File])
            case ToolCall():
                self._names[part.id] = part.name
                self._synthetic.update({part.id} if part.synthetic else ())
                if "INVALID_JSON" in _arguments(part.input or "{}") and "INVALID_JSON" not in part.input:
                    message = f"the arguments of a call of {part.name!r} are no JSON object, and were wrapped in one"
                    self._emulate(kind, message)
            case ToolResult():
                return self._result(part, own)
            case _:
                pass
        return [patched(_wire_of(part), own)]

    def _check_media(self, part: Image | Audio | File) -> None:
        if isinstance(part, Image) and part.detail is not None:
            self._drop("detail", "this API has no detail of images; set generationConfig.mediaResolution with extra=")
        needs_type = part.data is not None or not isinstance(part, File)
        if (_type_of(part) is None and needs_type) or self._is_untyped(part):
            guess = _DEFAULT_TYPES[type(part)]
            self._emulate(type(part).__name__, f"the type of a medium was not given, and was taken to be {guess}")

    def _is_untyped(self, part: Image | Audio | File) -> bool:
        """Whether a file's type has to be guessed: of an address that does not tell it, where the server wants one."""
        return self._dialect.typed_addresses and isinstance(part, File) and _type_of(part) is None

    def _result(self, part: ToolResult, own: dict[str, Any]) -> list[dict[str, Any]]:
        said = [item for item in part.content if not isinstance(item, Image)]
        for item in part.content:
            self._own(item.state, "part")
            if isinstance(item, Image):
                self._check_media(item)
        if len(said) > 1 or (said and isinstance(said[0], Value) and isinstance(said[0].value, str)):
            self._emulate("ToolResult", f"what the tool {part.name!r} gave was sent as one text")
        call_id = None if part.call_id in self._synthetic else part.call_id
        part = msgspec.structs.replace(part, call_id=call_id, name=part.name or self._names.get(part.call_id, ""))
        media = _images(part)
        if not media or not _BUDGETED.search(self._model):
            return [patched(_wire_of(part), own)]
        self._emulate("ToolResult", "this model takes no images in results; they were sent after them")
        bare = msgspec.structs.replace(part, content=tuple(said))
        return [patched(_wire_of(bare), own), *(patched(_wire_of(it), own_state(it.state, NAME)) for it in media)]

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


def _flat(body: Mapping[str, Any]) -> dict[str, Any]:
    """A body whose holders' fields stand beside its own, under two names: `generationConfig.temperature`."""
    flat: dict[str, Any] = {}
    for name, value in body.items():
        if name in _HOLDERS and is_object(value):
            flat.update({f"{name}.{inner}": item for inner, item in value.items()})
        else:
            flat[name] = value
    return flat


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for name, value in flat.items():
        holder, dot, inner = name.partition(".")
        if dot and holder in _HOLDERS and is_object(held := body.setdefault(holder, {})):
            held[inner] = value
        else:
            body[name] = value
    return body


def _declaration(spec: ToolSpec) -> dict[str, Any]:
    described = {"description": spec.description} if spec.description else {}
    parameters = {"parametersJsonSchema": parameters_of(spec, GEMINI_TOOLS)} if spec.parameters else {}
    return {"name": spec.name, **described, **parameters}


# The client's half: answers


class GeminiDecoder:
    """Decodes one streamed answer, sent as events or as a JSON array.

    The format has no end marker: an answer is complete when every candidate that began has told its finish reason, or
    the prompt was blocked. Citations and counts may still follow, so all that comes is read.
    """

    def __init__(self) -> None:
        self._events: EventStream | None = None
        self._objects: ObjectStream | None = None
        self._reader = _AnswerReader()
        self._failure: SabirError | None = None

    @property
    def is_over(self) -> bool:
        return self._failure is not None or (self._objects is not None and self._objects.is_over)

    def feed(self, data: bytes) -> list[Delta]:
        deltas: list[Delta] = []
        if self.is_over:
            return deltas
        try:
            if self._events is None and self._objects is None:
                data = data.lstrip()
                self._choose_framing(data[:1])
            if self._events is not None:
                for _, payload in self._events.feed(data):
                    self._read(payload, deltas)
            elif self._objects is not None:
                for payload in self._objects.feed(data):
                    self._read(payload, deltas)
        except SabirError as error:
            self._failure = error
            if not deltas:
                raise
        return deltas

    def _read(self, payload: bytes, deltas: list[Delta]) -> None:
        if not self._reader.read_more(payload, deltas):
            self._reader.read(_event(payload), deltas)

    def _choose_framing(self, first: bytes) -> None:
        if first and first in b"[{":
            self._objects = ObjectStream()
        elif first:
            self._events = EventStream()

    def close(self) -> list[Delta]:
        if self._failure is not None:
            raise self._failure
        if not self._reader.is_finished:
            raise _cut()
        return self._reader.close()


def _cut() -> StreamInterrupted:
    return StreamInterrupted("the stream ended before the answer did", retryable=True)


def _event(payload: bytes) -> dict[str, Any]:
    try:
        return _object(decode_json(payload))
    except StreamProtocolError:
        raise
    except ValueError as error:
        text = payload[:1000].decode("utf-8", "replace")
        raise StreamProtocolError(f"an event of the stream is no JSON: {error}", body=text) from None


def _object(value: Any) -> dict[str, Any]:
    if not is_object(value):
        raise StreamProtocolError(f"an answer is no JSON object: {str(value)[:80]}")
    return value


class _MoreContent(msgspec.Struct, forbid_unknown_fields=True):
    parts: tuple[msgspec.Raw]
    role: Literal["model"] = "model"


class _MoreOfCandidate(msgspec.Struct, forbid_unknown_fields=True):
    content: _MoreContent
    index: Literal[0] = 0


class _More(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """A chunk with one more part of the only candidate, and nothing beside it but what chunks repeat."""

    candidates: tuple[_MoreOfCandidate]
    response_id: str | None = None
    model_version: str | None = None
    create_time: str | None = None
    usage_metadata: msgspec.Raw = _NO_JSON


_decode_more = msgspec.json.Decoder(_More).decode


class _Slot(PairedText):
    """A text or thought that may go on."""

    __slots__ = ("kind", "part")

    def __init__(self, part: int, kind: PartKind) -> None:
        super().__init__()
        self.part = part
        self.kind = kind


class _Choice:
    """One candidate being read: its parts as far as they matter, and what else the wire said of it."""

    __slots__ = ("arguments", "call", "content", "current", "has_calls", "has_parts", "number", "raw", "text", "told")

    def __init__(self, number: int) -> None:
        self.number = number
        self.current: _Slot | None = None
        self.text: int | None = None
        self.call: int | None = None
        self.arguments = PathText()
        self.has_parts = False
        self.has_calls = False
        self.raw: str | None = None
        self.told: dict[str, Any] = {}
        self.content: dict[str, Any] | None = None


class _AnswerReader:
    """Turns a whole answer, or the chunks of one, into deltas; numbers parts as they appear.

    The first part of a chunk goes on where the last chunk stopped, if both are plain text (or plain thoughts). Any
    other is a part of its own: what is signed is never merged, and what a whole answer has apart stays apart.
    """

    def __init__(self, is_whole: bool = False) -> None:
        self._is_whole = is_whole
        self._parts = 0
        self._choices: dict[int, _Choice] = {}
        self._unclosed: list[_Slot] = []
        self._head: tuple[Any, Any] | None = None
        self._answer: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._counted: Usage | None = None
        self._has_uncounted = False
        self._is_ending = False
        self._block: dict[str, Any] | None = None
        # The only candidate, if more of it is to come; how often in a row what came was another thing; the last counts.
        self._going: _Choice | None = None
        self._misses = 0
        self._told_usage: msgspec.Raw = _NO_JSON

    @property
    def has_answered(self) -> bool:
        return bool(self._choices) or self._block is not None

    @property
    def is_finished(self) -> bool:
        """Whether every candidate that began has told its finish reason, or the prompt was blocked."""
        return self.has_answered and all(choice.raw is not None for choice in self._choices.values())

    def read(self, value: dict[str, Any], deltas: list[Delta]) -> None:
        if value.get("error"):
            raise _failure(None, {}, value, encode_json(value).decode())
        candidates, usage = value.get("candidates"), value.get("usageMetadata")
        head = (value.get("responseId"), value.get("modelVersion"))
        if head != self._head:
            self._head = head
            self._answer.update({name: item for name in _HEAD if (item := value.get(name)) is not None})
            deltas.append(Head(text_of(head[0]), text_of(head[1])))
        if not value.keys() <= _IN_CHUNK:
            self._read_about(value, deltas)
        for position, candidate in enumerate(list_of(candidates)):
            self._read_candidate(candidate, position, deltas)
        self._read_usage(usage, deltas)
        only = self._choices.get(0)
        is_going = only is not None and len(self._choices) == 1 and only.content is not None and not self._is_ending
        self._going, self._told_usage = only if is_going and self._misses < _MOST_MISSES else None, _NO_JSON

    def read_more(self, payload: bytes, deltas: list[Delta]) -> bool:
        """Read a chunk that says more of the text or call that is going on, and nothing else; False of any other.

        Most chunks say little and repeat the rest. Of these the form alone tells that there is nothing else in them.
        """
        if (choice := self._going) is None:
            return False
        self._misses += 1
        try:
            more = _decode_more(payload)
            part, usage = decode_json(bytes(more.candidates[0].content.parts[0])), more.usage_metadata
            told = None if usage == self._told_usage else decode_json(bytes(usage))
        except (ValueError, RecursionError):
            return False
        if self._head != (more.response_id, more.model_version) or self._answer.get("createTime") != more.create_time:
            return False
        if (kind := _plain_kind(part)) is not None:
            self._go_on(choice, kind, part["text"], deltas)
        elif choice.call is not None and _is_piece(part):
            self._read_piece(choice, choice.call, part["functionCall"], deltas)
        else:
            return False
        self._misses, self._told_usage = 0, usage
        self._read_usage(told, deltas)
        return True

    def _read_usage(self, usage: Any, deltas: list[Delta]) -> None:
        if is_object(usage):
            self._usage.update(_present(usage) if None in usage.values() else usage)
            # In between only what has been written grows.
            if self._is_ending or self._counted is None:
                self._count(deltas)
            else:
                self._has_uncounted = True
        elif usage is not None:
            self._answer["usageMetadata"] = usage

    def _read_about(self, value: dict[str, Any], deltas: list[Delta]) -> None:
        """What is said beside head, candidates and counts."""
        self._answer.update(_present({name: item for name, item in value.items() if name not in _IN_CHUNK}))
        feedback = mapping_of(value.get("promptFeedback"))
        if feedback.get("blockReason"):
            self._block = feedback
        if value.keys().isdisjoint(("candidates", "usageMetadata", "promptFeedback")):
            deltas.append(Event(value))

    def _count(self, deltas: list[Delta]) -> None:
        self._counted, self._has_uncounted = _usage(self._usage), False
        deltas.append(Count(self._counted))

    def close(self) -> list[Delta]:
        """What is left to say.

        Raises:
            ProviderError: the model came to an end that leaves no answer.
        """
        deltas: list[Delta] = []
        for slot in self._unclosed:
            deltas += _closing(slot)
        if self._has_uncounted:
            self._count(deltas)
        # A candidate that a whole answer has is one, also if it does not say why it ended.
        ended = [choice for choice in self._choices.values() if choice.raw is not None or self._is_whole]
        finishes = {choice.number: _finish(choice) for choice in ended}
        if self._block is not None and 0 not in self._choices:
            finishes[0] = Finish("content_filter", raw=str(self._block["blockReason"]), detail=self._block)
        return [*deltas, State(None, self._leftovers(finishes)), *finishes.values()]

    def _leftovers(self, finishes: Mapping[int, Finish]) -> dict[str, Any]:
        """What was said beyond what the deltas sum to, by the place where it was said."""
        head = _answer(*map(text_of, self._head or (None, None)))
        # A blocked prompt has no candidates, where a message of ours would make one.
        nothing: dict[str, Any] = {} if self._choices else {"candidates": []}
        found = {"answer": difference(self._answer, {**head, **nothing})}
        if self._counted is not None:
            found["usage"] = difference(self._usage, _usage_object(self._counted))
        for number, choice in self._choices.items():
            told = choice.told
            if choice.content is not None and not choice.has_parts:
                told = {**told, "content": choice.content}
            elif choice.content:
                found[f"candidates.{number}.content"] = {"set": choice.content}
            reason: FinishReason = finishes[number].reason if number in finishes else "unknown"
            found[f"candidates.{number}"] = difference(told, _ending(number, reason))
        return {place: patch for place, patch in found.items() if patch}

    def _read_candidate(self, candidate: Any, position: int, deltas: list[Delta]) -> None:
        if not is_object(candidate):
            raise StreamProtocolError(f"a candidate is no JSON object: {str(candidate)[:80]}")
        index = count_of(candidate.get("index"))
        number = position if index is None else index
        choice = self._choices.get(number)
        if choice is None:
            choice = self._choices[number] = _Choice(number)
        elif self._is_whole:
            raise StreamProtocolError(f"two candidates of one answer are numbered {number}")
        signed: list[_Slot] = []
        for name, value in candidate.items():
            if name == "content" and is_object(value):
                self._read_content(choice, value, signed, deltas)
            elif value is not None and (name, value) != ("index", 0):
                choice.told[name] = value
                if name == "finishReason":
                    choice.raw = _reason(value) or choice.raw
                    self._is_ending = True
        if not candidate.keys().isdisjoint(_NOTED):
            _note(choice, candidate, deltas)
        for slot in signed:
            deltas += _closing(slot)
            choice.text = None if choice.text == slot.part else choice.text

    def _read_content(self, choice: _Choice, content: dict[str, Any], signed: list[_Slot], deltas: list[Delta]) -> None:
        if choice.content is None:
            choice.content = {}
        for name, value in content.items():
            if name != "parts":
                if value is not None and (name, value) != ("role", "model"):
                    choice.content[name] = value
                continue
            for position, part in enumerate(list_of(value)):
                if not is_object(part):
                    raise StreamProtocolError(f"a part of the answer is no JSON object: {str(part)[:80]}")
                if position == 0 and not self._is_whole and (kind := _plain_kind(part)) is not None:
                    self._go_on(choice, kind, part["text"], deltas)
                else:
                    self._read_part(choice, _canonical_part(part), signed, deltas)

    def _go_on(self, choice: _Choice, kind: PartKind, text: str, deltas: list[Delta]) -> None:
        slot = choice.current
        if slot is None or slot.kind != kind:
            if not text:
                return
            slot = self._open_text(choice, kind, {"set": {"thought": True}} if kind == "thinking" else None, deltas)
            self._unclosed.append(slot)
        if slot.half or not text.isascii():
            text = slot.more(text)
        if text:
            deltas.append(Text(slot.part, text))

    def _open_text(self, choice: _Choice, kind: PartKind, state: dict[str, Any] | None, deltas: list[Delta]) -> _Slot:
        slot = choice.current = _Slot(self._open(choice, kind, deltas, state=state), kind)
        if kind == "text":
            choice.text = slot.part
        return slot

    def _open(
        self,
        choice: _Choice,
        kind: PartKind,
        deltas: list[Delta],
        *,
        state: dict[str, Any] | None,
        item_id: str | None = None,
        name: str | None = None,
        media_type: str | None = None,
    ) -> int:
        part = self._parts
        self._parts += 1
        choice.has_parts = True
        choice.current = None
        deltas.append(Open(part, kind, item_id, name, choice.number, state, media_type))
        return part

    def _read_part(self, choice: _Choice, wire: dict[str, Any], signed: list[_Slot], deltas: list[Delta]) -> None:
        """A part of its own. It is closed at once, but for text, of which more may be said."""
        call = mapping_of(wire.get("functionCall"))
        if "functionCall" in wire and (choice.call is not None or not call.keys().isdisjoint(_IN_PIECES)):
            return self._read_call(choice, wire, call, deltas)
        part = _part_of(wire)
        state = own_state(part.state, NAME) or None
        match part:
            case TextPart() | Thinking():
                slot = self._open_text(choice, "text" if isinstance(part, TextPart) else "thinking", state, deltas)
                if text := slot.more(part.text):
                    deltas.append(Text(slot.part, text))
                is_plain = state in (None, _THOUGHT)
                (self._unclosed if is_plain else signed).append(slot)
                if not is_plain:
                    choice.current = None
                return None
            case ToolCall():
                choice.has_calls = True
                number = self._open(choice, "call", deltas, item_id=part.id, name=part.name, state=state)
                if part.input:
                    deltas.append(Text(number, part.input))
            case Image(data=bytes() as data) | Audio(data=bytes() as data) | File(data=bytes() as data):
                name = part.name if isinstance(part, File) else None
                number = self._open(
                    choice, _MEDIA_KINDS[type(part)], deltas, name=name, media_type=part.media_type, state=state
                )
                deltas.append(Blob(number, data))
                if isinstance(part, Audio) and part.transcript:
                    deltas.append(Text(number, part.transcript))
            case _:
                item = part if isinstance(part, ServerItem) else _opaque(wire)
                number = self._open(
                    choice, "server", deltas, item_id=item.id, name=item.kind, state=own_state(item.state, NAME)
                )
        deltas.append(Close(number))
        return None

    def _read_call(self, choice: _Choice, wire: dict[str, Any], call: dict[str, Any], deltas: list[Delta]) -> None:
        """A call whose arguments come in pieces, or one of the pieces."""
        about = {name: value for name, value in wire.items() if name != "functionCall"}
        if choice.call is None:
            bare = {name: value for name, value in call.items() if name not in _IN_PIECES}
            part = _part_of({**about, "functionCall": bare})
            assert isinstance(part, ToolCall)
            choice.has_calls, choice.arguments = True, PathText()
            state = own_state(part.state, NAME) or None
            choice.call = self._open(choice, "call", deltas, item_id=part.id, name=part.name, state=state)
        elif call.get("name") is not None and "partialArgs" not in call:
            raise StreamProtocolError("a tool call begins before the arguments of the last one are complete")
        elif about:
            deltas.append(State(choice.call, {"set": about}))
        self._read_piece(choice, choice.call, call, deltas)

    def _read_piece(self, choice: _Choice, part: int, call: dict[str, Any], deltas: list[Delta]) -> None:
        text = "".join(map(choice.arguments.add, list_of(call.get("partialArgs"))))
        is_last = call.get("willContinue") is not True
        if is_last:
            text += choice.arguments.end()
        if text:
            deltas.append(Text(part, text))
        if is_last:
            deltas.append(Close(part))
            choice.call = None


def _is_piece(part: Any) -> bool:
    """Whether a part is nothing but a piece of a call's arguments."""
    return is_object(part) and part.keys() == _ONLY_CALL and _is_piece_of_call(part["functionCall"])


def _is_piece_of_call(call: Any) -> bool:
    return is_object(call) and call.keys() <= _IN_PIECES


def _plain_kind(part: Any) -> PartKind | None:
    """Whether a part is nothing but text, or a thought."""
    if not is_object(part) or type(part.get("text")) is not str:
        return None
    if len(part) == 1:
        return "text"
    return "thinking" if len(part) == 2 and part.get("thought") is True else None


def _opaque(wire: dict[str, Any]) -> ServerItem:
    """A part that is left as it is; it may be none of an answer's in our words, or one that we do not know."""
    kind = next((name for name in wire if name not in _ABOUT), "part")
    item_id = text_of(mapping_of(wire.get(kind)).get("id"))
    return ServerItem(kind=kind, id=item_id, state=ProviderState(NAME, {"set": wire}))


def _closing(slot: _Slot) -> list[Delta]:
    half: list[Delta] = [Text(slot.part, slot.half)] if slot.half else []
    return [*half, Close(slot.part)]


def _reason(value: Any) -> str | None:
    """A finish reason by its word, None if it is not finished."""
    if type(value) is int:
        return _FINISH_NUMBERS.get(value, str(value)) if value else None
    return text_of(value) if value != "FINISH_REASON_UNSPECIFIED" else None


def _finish(choice: _Choice) -> Finish:
    raw, told = choice.raw or "", choice.told
    if choice.number == 0 and raw in _FAILED and not (raw == "UNEXPECTED_TOOL_CALL" and choice.has_calls):
        message = text_of(told.get("finishMessage")) or "what the model made is no answer; ask again"
        raise _FAILED[raw](f"{message} ({raw})", code=raw, body=encode_json(told).decode()[:10_000])
    reason = "content_filter" if raw in _FILTERED else _FINISH.get(raw, "unknown")
    if choice.has_calls and raw in ("STOP", "UNEXPECTED_TOOL_CALL"):
        reason = "tool_calls"
    detail = _present({name: told.get(name) for name in ("finishMessage", "safetyRatings")})
    return Finish(reason, choice.number, choice.raw, detail or None)


def _note(choice: _Choice, candidate: dict[str, Any], deltas: list[Delta]) -> None:
    """Tell what a candidate says of its text as notes of the last one; where there is none, it stays as it is."""
    for name in _NOTED:
        if (value := candidate.get(name)) is None or choice.text is None:
            continue
        notes, rest = _notes_of(name, value)
        deltas.extend(Note(choice.text, note) for note in notes)
        del choice.told[name]
        if rest or not notes:
            choice.told[name] = rest


def _notes_of(name: str, value: Any) -> tuple[list[dict[str, Any]], Any]:
    """The notes that a field of a candidate makes, and what is left of it."""
    if not is_object(value) or not value:
        return [], value
    if name in ("groundingMetadata", "urlContextMetadata"):
        return [{name: value}], {}
    if name == "logprobsResult":
        rest = {field: item for field, item in value.items() if field not in ("chosenCandidates", "topCandidates")}
        notes = _logprobs(value.get("chosenCandidates"), value.get("topCandidates"))
        return (notes, rest) if notes else ([], value)
    cited = {field: value[field] for field in _CITATIONS if _are_objects(value.get(field))}
    notes = [{_CITATIONS[field]: item} for field, items in cited.items() for item in items]
    return notes, {field: item for field, item in value.items() if field not in cited}


def _are_objects(value: Any) -> bool:
    return is_array(value) and bool(value) and all(map(is_object, value))


def _logprobs(chosen: Any, top: Any) -> list[dict[str, Any]]:
    """The log probabilities of an answer's tokens, one note each in the words of chat completions; none if unusual."""
    tops = [_candidates_of(each) for each in list_of(top)]
    if not _are_objects(chosen) or None in tops or (top is not None and len(tops) != len(chosen)):
        return []
    if any(entry.keys() & _OTHERS_LOGPROB for entries in (chosen, *tops) for entry in entries or ()):
        return []
    notes = [_renamed(entry, "logProbability", "logprob") for entry in chosen]
    for note, likely in zip(notes, tops, strict=False):
        note["top_logprobs"] = [_renamed(entry, "logProbability", "logprob") for entry in likely or ()]
    return [{"logprob": note} for note in notes]


def _candidates_of(top: Any) -> list[dict[str, Any]] | None:
    """The tokens that were likely at one step; None if more or something else is said."""
    if not is_object(top) or top.keys() != {"candidates"}:
        return None
    return top["candidates"] if top["candidates"] == [] or _are_objects(top["candidates"]) else None


def _renamed(entry: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    return {new if name == old else name: value for name, value in entry.items()}


def _from_notes(notes: Iterable[Any]) -> dict[str, Any]:
    """The fields of a candidate that these notes make, those of other formats left out."""
    fields: dict[str, Any] = {}
    logprobs: list[dict[str, Any]] = []
    for note in map(mapping_of, notes):
        for name in ("groundingMetadata", "urlContextMetadata"):
            if is_object(value := note.get(name)):
                fields[name] = {**fields.get(name, {}), **value}
        for several, one in _CITATIONS.items():
            if one in note:
                fields.setdefault("citationMetadata", {}).setdefault(several, []).append(note[one])
        if is_object(logprob := note.get("logprob")):
            logprobs.append(logprob)
    if logprobs:
        fields["logprobsResult"] = {"chosenCandidates": list(map(_token, logprobs))}
        if any("top_logprobs" in entry for entry in logprobs):
            tops = [
                [_token(each) for each in list_of(entry.get("top_logprobs")) if is_object(each)] for entry in logprobs
            ]
            fields["logprobsResult"]["topCandidates"] = [{"candidates": top} for top in tops]
    return fields


def _token(entry: dict[str, Any]) -> dict[str, Any]:
    bare = {name: value for name, value in entry.items() if name not in ("top_logprobs", "bytes")}
    return _renamed(bare, "logprob", "logProbability")


def _answer(answer_id: str | None, model: str | None) -> dict[str, Any]:
    """The fields of an answer that stand beside its candidates and counts."""
    return _present({"responseId": answer_id, "modelVersion": model})


def _ending(number: int, reason: FinishReason) -> dict[str, Any]:
    """The fields of a candidate that stand beside its content."""
    return {"finishReason": _WIRE_FINISH.get(reason, "OTHER"), **({"index": number} if number else {})}


def _usage(wire: Mapping[str, Any]) -> Usage:
    """The disjoint buckets of a usage object. Its prompt includes what was cached, and its candidates no thoughts; what
    the results of its own tools added to the prompt is told apart.
    """
    prompt, tools = count_of(wire.get("promptTokenCount")), count_of(wire.get("toolUsePromptTokenCount"))
    cached, written = count_of(wire.get("cachedContentTokenCount")), count_of(wire.get("candidatesTokenCount"))
    heard, spoken = _audio(wire.get("promptTokensDetails")), _audio(wire.get("candidatesTokensDetails"))
    if heard is not None:
        heard = max(0, heard - (_audio(wire.get("cacheTokensDetails")) or 0))
    read = prompt if prompt is None else max(0, prompt - (cached or 0) - (heard or 0))
    return Usage(
        input=read if tools is None else (read or 0) + tools,
        cache_read=cached,
        input_audio=heard,
        output=written if written is None else max(0, written - (spoken or 0)),
        reasoning=count_of(wire.get("thoughtsTokenCount")),
        output_audio=spoken,
        reported_total=count_of(wire.get("totalTokenCount")),
    )


def _audio(details: Any) -> int | None:
    """The tokens of sound in a list of counts by modality."""
    total: int | None = None
    for each in list_of(details):
        if is_object(each) and each.get("modality") in _AUDIO_MODALITIES:
            total = (total or 0) + (count_of(each.get("tokenCount")) or 0)
    return total


def _usage_object(usage: Usage) -> dict[str, Any]:
    written = (
        None if usage.output is None and usage.output_audio is None else (usage.output or 0) + (usage.output_audio or 0)
    )
    total = usage.total_tokens if usage.reported_total is None else usage.reported_total
    details = {"promptTokensDetails": usage.input_audio, "candidatesTokensDetails": usage.output_audio}
    return _present(
        {
            "promptTokenCount": usage.input_tokens,
            "cachedContentTokenCount": usage.cache_read,
            "candidatesTokenCount": written,
            "thoughtsTokenCount": usage.reasoning,
            "totalTokenCount": total,
            **{
                name: [{"modality": "AUDIO", "tokenCount": count}]
                for name, count in details.items()
                if count is not None
            },
        }
    )


def _failure(status: int | None, headers: Mapping[str, str], value: Any, text: str) -> ProviderError:
    """The exception for an error body; `status` is None for an error that came where an answer was to come."""
    first = next(iter(list_of(value)), value)
    fields = mapping_of(mapping_of(first).get("error"))
    details = [mapping_of(each) for each in list_of(fields.get("details"))]
    word = text_of(fields.get("status"))
    error = error_from_value(status or _STATUS_WORDS.get(word or ""), headers, value, text)
    info = next((each for each in details if text_of(each.get("reason"))), dict[str, Any]())
    error.code = text_of(info.get("reason")) or word or error.code
    delay = next((found for each in details if (found := _DELAY.fullmatch(str(each.get("retryDelay"))))), None)
    if error.retry_after is None and delay is not None:
        error.retry_after = float(delay[1])
    overflow = _OVERFLOW.search(error.message) if isinstance(error, BadRequestError) else None
    error = as_kind(error, ContextOverflowError if overflow else _REASONS.get(error.code or "", type(error)))
    if isinstance(error, ContextOverflowError):
        metadata = mapping_of(info.get("metadata"))
        prompt, most = overflow.groups() if overflow else (metadata.get("promptTokens"), metadata.get("contextLength"))
        error.prompt_tokens = _number(prompt) or error.prompt_tokens
        error.context_length = _number(most) or error.context_length
    return error


def _number(text: Any) -> int | None:
    return int(text) if isinstance(text, str) and re.fullmatch(r"[0-9]{1,15}", text) else None


# The server's half: requests


def _refused(where: str, what: str) -> BadRequestError:
    return BadRequestError(f"{where}: {what}", status=400, code="INVALID_ARGUMENT")


class _RequestReader:
    """Reads a client's request, strictly; keeps what it does not understand on the nearest value."""

    def __init__(self, dialect: Gemini) -> None:
        self._dialect = dialect
        self._encoder = _BodyEncoder(dialect, "")

    def read(self, wire: dict[str, Any]) -> Request:
        contents, system, tools = wire.get("contents"), wire.get("systemInstruction"), wire.get("tools", [])
        if not is_array(contents) or not contents:
            raise _refused("contents", "a list of at least one content is wanted")
        for name in _HOLDERS:
            if not is_object(wire.get(name, {})):
                raise _refused(name, "an object is wanted")
        if not is_array(tools):
            raise _refused("tools", "a list is wanted")
        flat = _flat(wire)
        request = Request(
            # In the body, too, where a client repeats it.
            model=(text_of(wire.get("model")) or "").removeprefix("models/"),
            messages=(*(() if system is None else (self._system(system),)), *self._messages(contents)),
            tools=self._tools(tools),
            schema=_read_schema(flat),
            **self._options(flat),
        )
        ours = _flat(self._encoder.body(request))
        apart = ("contents", "systemInstruction", "tools")
        patch = difference(*({k: v for k, v in side.items() if k not in apart} for side in (flat, ours)))
        return msgspec.structs.replace(request, state=ProviderState(NAME, patch)) if patch else request

    def _options(self, flat: dict[str, Any]) -> dict[str, Any]:
        words = {name: word for name, word in self._dialect.parameters.items() if not isinstance(word, Unsupported)}
        options = {name: flat[word] for name, word in words.items() if word in flat}
        for name in _COUNTS:
            # Some clients know only one kind of number.
            if isinstance(number := options.get(name), float) and number.is_integer():
                options[name] = int(number)
        config = mapping_of(flat.get("generationConfig.thinkingConfig"))
        options["thinking"] = _read_thinking(config)
        choosing = mapping_of(flat.get("toolConfig.functionCallingConfig"))
        if any("functionDeclarations" in mapping_of(tool) for tool in list_of(flat.get("tools"))):
            options["tool_choice"] = _CALLING_MODES.get((text_of(choosing.get("mode")) or "").upper())
            named = list_of(choosing.get("allowedFunctionNames"))
            if options["tool_choice"] == "required" and len(named) == 1:
                options["tool_choice"] = named[0]
        options = _present(options)
        try:
            msgspec.convert(options, Options)
        except (msgspec.ValidationError, UnicodeError) as error:
            what, _, where = str(error).partition(" - at `$.")
            name = re.split(r"[.\[`]", where)[0]
            raise _refused(words.get(name, name), what) from None
        check_read(options, self._dialect.ranges, words)
        return {**options, **({"stop": tuple(options["stop"])} if "stop" in options else {})}

    def _system(self, instruction: Any) -> Message:
        return self._message("system", instruction, "systemInstruction", {})

    def _messages(self, contents: list[Any]) -> Iterator[Message]:
        for at, content in enumerate(contents):
            where = f"contents[{at}]"
            role = mapping_of(content).get("role", "user")
            if role not in ("user", "model", "function"):
                raise _refused(f"{where}.role", "one of user and model is wanted")
            if role == "model":
                yield self._message("assistant", content, where, {"role": "model"})
                continue
            message = self._message("user", content, where, {"role": "user"})
            parts = message.parts
            results = next((n for n, part in enumerate(parts) if not isinstance(part, ToolResult)), len(parts))
            if not results:
                yield message
                continue
            yield msgspec.structs.replace(message, role="tool", parts=parts[:results])
            if parts[results:]:
                yield Message("user", parts[results:], state=ProviderState(NAME, {"is_joined": True}))

    def _message(
        self, role: Literal["system", "user", "assistant"], content: Any, where: str, ours: dict[str, Any]
    ) -> Message:
        if not is_object(content):
            raise _refused(where, "an object is wanted")
        if not is_array(parts := content.get("parts")):
            raise _refused(f"{where}.parts", "a list of at least one part is wanted")
        read = tuple(self._part(part, f"{where}.parts[{number}]") for number, part in enumerate(parts))
        patch = difference({name: value for name, value in content.items() if name != "parts"}, ours)
        return Message(role, read, state=ProviderState(NAME, patch) if patch else None)

    def _part(self, part: Any, where: str) -> Part:
        if not is_object(part) or not part:
            raise _refused(where, "a part with something in it is wanted")
        for name in ("functionCall", "functionResponse"):
            if name in part and text_of(mapping_of(part[name]).get("name")) is None:
                raise _refused(f"{where}.{name}.name", "the name of a function is wanted")
        try:
            return _part_of(part)
        except StreamProtocolError as error:
            raise _refused(where, str(error)) from None

    def _tools(self, tools: list[Any]) -> tuple[ToolSpec, ...]:
        specs: list[tuple[int, ToolSpec]] = []
        for at, tool in enumerate(tools):
            if not is_object(tool):
                raise _refused(f"tools[{at}]", "an object is wanted")
            for name, value in tool.items():
                if name != "functionDeclarations":
                    patch = {"set": {name: value}, "unset": ["functionDeclarations"]}
                    specs.append((at, ToolSpec(name, state=ProviderState(NAME, patch))))
                    continue
                if not is_array(value):
                    raise _refused(f"tools[{at}].{name}", "a list is wanted")
                specs += [(at, _read_function(each, f"tools[{at}].{name}[{n}]")) for n, each in enumerate(value)]
        if self._encoder.tools(spec for _, spec in specs) == tools:
            return tuple(spec for _, spec in specs)
        return tuple(
            msgspec.structs.replace(spec, state=ProviderState(NAME, {**own_state(spec.state, NAME), "at": at}))
            for at, spec in specs
        )


def _read_function(declared: Any, where: str) -> ToolSpec:
    if not is_object(declared) or (name := text_of(declared.get("name"))) is None:
        raise _refused(f"{where}.name", "the name of a function is wanted")
    parameters = declared.get("parametersJsonSchema", _json_schema(declared.get("parameters")))
    if parameters is not None and not is_object(parameters):
        raise _refused(f"{where}.parameters", "a schema of an object is wanted")
    spec = ToolSpec(name, text_of(declared.get("description")) or "", parameters or {})
    patch = difference(declared, _declaration(spec))
    return msgspec.structs.replace(spec, state=ProviderState(NAME, patch)) if patch else spec


def _read_thinking(config: dict[str, Any]) -> Any:
    budget, level = config.get("thinkingBudget"), config.get("thinkingLevel")
    if isinstance(level, str) and level.lower() in get_args(Effort):
        return level.lower()
    if isinstance(budget, int) and not isinstance(budget, bool):
        return budget if budget > 0 else budget < 0
    return True if config.get("includeThoughts") is True else None


def _read_schema(flat: dict[str, Any]) -> OutputSchema | None:
    schema = flat.get("generationConfig.responseJsonSchema", _json_schema(flat.get("generationConfig.responseSchema")))
    return OutputSchema(text_of(schema.get("title")) or "answer", schema) if is_object(schema) else None


_TYPE_NUMBERS = {1: "string", 2: "number", 3: "integer", 4: "boolean", 5: "array", 6: "object", 7: "null"}


def _json_schema(schema: Any) -> Any:
    """A schema in the API's own form (https://ai.google.dev/api/caching#Schema) as a JSON Schema."""
    if not is_object(schema):
        return schema
    told = {_camel(name): value for name, value in schema.items()}
    is_nullable = told.pop("nullable", False) is True
    told.pop("propertyOrdering", None)
    kind = told.get("type")
    if isinstance(kind, int | str):
        name = _TYPE_NUMBERS.get(kind, "object") if isinstance(kind, int) else kind.lower()
        told["type"] = [name, "null"] if is_nullable else name
    for bound in ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"):
        # JSON's mapping of protocol buffers writes long integers as text.
        if (number := _number(told.get(bound))) is not None:
            told[bound] = number
    if is_object(properties := told.get("properties")):
        told["properties"] = {name: _json_schema(each) for name, each in properties.items()}
    if is_array(several := told.get("anyOf")):
        told["anyOf"] = [_json_schema(each) for each in several]
    if "items" in told:
        told["items"] = _json_schema(told["items"])
    return told


# The server's half: answers


def _candidate(number: int, message: Message, reason: FinishReason, state: dict[str, Any]) -> dict[str, Any]:
    """A message as a candidate, with what else its maker said of it."""
    parts = [wire for part in message.parts for wire in _answer_parts(part)]
    content = patched({"parts": parts, "role": "model"}, state.get(f"candidates.{number}.content", {}))
    ours = {**({"content": content} if parts else {}), **_ending(number, reason)}
    candidate = patched(ours, state.get(f"candidates.{number}", {}))
    notes = _from_notes(note for part in message.parts if isinstance(part, TextPart) for note in part.notes)
    return {**candidate, **{name: {**value, **mapping_of(candidate.get(name))} for name, value in notes.items()}}


def _answer_parts(part: Part) -> list[dict[str, Any]]:
    """A part of an answer; an item that another provider made is nothing here."""
    own = own_state(part.state, NAME)
    if isinstance(part, ServerItem) and not own:
        return []
    if isinstance(part, ToolResult) or (isinstance(part, Audio) and part.data is None and part.url is None):
        raise UnsupportedError(f"this API's answers have no place for what the model made: {type(part).__name__}")
    return [patched(_wire_of(part), own)]


class _Draft:
    """A part on its way out: what of it has not been told."""

    __slots__ = ("data", "has_begun", "is_closed", "is_told", "notes", "opening", "pieces")

    def __init__(self, opening: Open) -> None:
        self.opening = opening
        self.pieces: list[str] = []
        self.data: list[bytes] = []
        self.notes: list[Any] = []
        self.has_begun = False
        self.is_closed = False
        self.is_told = False

    @property
    def is_streamed(self) -> bool:
        """Whether it can be told piece by piece: plain text, or plain thoughts."""
        return self.opening.kind in ("text", "refusal", "thinking") and (self.opening.state or {}) in ({}, _THOUGHT)

    def more(self, delta: State) -> None:
        opening, patch = self.opening, delta.patch
        state = {**(opening.state or {}), **patch}
        if "set" in patch:
            state["set"] = {**mapping_of((opening.state or {}).get("set")), **mapping_of(patch["set"])}
        named = {"id": opening.id or delta.id, "name": opening.name or delta.name}
        self.opening = msgspec.structs.replace(opening, state=state or None, **named)

    def wire(self) -> dict[str, Any] | None:
        """The whole part; None of an item that another provider made."""
        opening, text, data = self.opening, "".join(self.pieces), b"".join(self.data)
        state, kind = opening.state or {}, opening.media_type
        match opening.kind:
            case "text" | "refusal":
                part: Part = TextPart(text=text)
            case "thinking":
                part = Thinking(text=text)
            case "call" if opening.name:
                part = ToolCall(name=opening.name, input=text, id=opening.id)
            case "call":
                raise StreamProtocolError("a tool call came without the name of a tool")
            case "image":
                part = Image(data=data, media_type=kind)
            case "audio":
                part = Audio(data=data, media_type=kind, transcript=text or None)
            case "file":
                part = File(data=data, media_type=kind, name=opening.name)
            case _:
                return dict(state["set"]) if "set" in state else None
        return patched(_wire_of(part), state)


class GeminiEncoder:
    """Encodes the deltas of one answer as a stream of events. States are taken for this format's own.

    A part is told when all before it have been. Text and thoughts are told as they come; text of a part that goes on
    after another began is a further part. Anything else is told whole, when it is complete.
    """

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._state: dict[str, Any] = {}
        self._usage = Usage()
        self._finishes: dict[int, FinishReason] = {}
        self._drafts: dict[int, _Draft] = {}
        self._waiting: dict[int, deque[_Draft]] = {}
        # What the first part of the next chunk would go on with.
        self._current: dict[int, _Draft | None] = {}

    def feed(self, delta: Delta) -> bytes:
        match delta:
            case Head():
                self._head.update(_answer(delta.id, delta.model))
                self._state.update(delta.state or {})
            case Count():
                self._usage = self._usage.updated(delta.usage)
            case Finish():
                self._finishes[delta.choice] = delta.reason
            case State(part=None):
                self._state.update(delta.patch)
            case Event():
                pass
            case Open():
                self._drafts[delta.part] = draft = _Draft(delta)
                self._waiting.setdefault(delta.choice, deque()).append(draft)
                return self._advance(delta.choice)
            case _:
                return self._add(delta)
        return b""

    def fail(self, error: SabirError) -> bytes:
        return b"data: " + Gemini().encode_error(error)[1] + b"\r\n\r\n"

    def close(self) -> bytes:
        for draft in self._drafts.values():
            draft.is_closed = True
        told = b"".join(map(self._advance, self._waiting))
        candidates = [self._ending(number) for number in sorted({0, *self._waiting, *self._finishes})]
        usage = patched(_usage_object(self._usage), self._state.get("usage", {}))
        answer = {"candidates": candidates, **({"usageMetadata": usage} if usage else {}), **self._head}
        return told + _sse(patched(answer, self._state.get("answer", {})))

    def _ending(self, number: int) -> dict[str, Any]:
        ending = _ending(number, self._finishes.get(number, "unknown"))
        if content := self._state.get(f"candidates.{number}.content"):
            ending["content"] = patched({"role": "model"}, content)
        return patched(ending, self._state.get(f"candidates.{number}", {}))

    def _add(self, delta: Any) -> bytes:
        draft = self._drafts.get(delta.part)
        if draft is None:
            raise StreamProtocolError(f"a delta for part {delta.part}, which was never opened")
        choice = draft.opening.choice
        if draft.is_told and isinstance(delta, Text):
            if not draft.is_streamed:
                raise StreamProtocolError(f"more of part {delta.part}, which is already complete")
            self._drafts[delta.part] = draft = _Draft(draft.opening)
            self._waiting[choice].append(draft)
        match delta:
            case Text():
                draft.pieces.append(delta.text)
            case Blob():
                draft.data.append(delta.data)
            case Note() if draft.is_told:
                fields = _from_notes([delta.value])
                return self._chunk(choice, fields) if fields else b""
            case Note():
                draft.notes.append(delta.value)
            case State():
                draft.more(delta)
            case _:
                draft.is_closed = True
        return self._advance(choice)

    def _advance(self, choice: int) -> bytes:
        """Tell what can be told of the parts that wait."""
        told: list[bytes] = []
        waiting = self._waiting[choice]
        while waiting:
            draft = waiting[0]
            is_over = draft.is_closed or (draft.is_streamed and len(waiting) > 1)
            if not is_over and not (draft.is_streamed and (draft.pieces or draft.notes)):
                break
            told.append(self._tell(choice, draft))
            if is_over:
                draft.is_told = True
                waiting.popleft()
        return b"".join(told)

    def _tell(self, choice: int, draft: _Draft) -> bytes:
        wire = draft.wire()
        fields = _from_notes(draft.notes)
        goes_on = draft.has_begun and self._current.get(choice) is draft
        if wire is None or (draft.has_begun and not draft.pieces):
            parts: list[dict[str, Any]] = []
        elif draft.is_streamed and not goes_on and (not draft.pieces or self._kind(choice) == draft.opening.kind):
            # The first part of a chunk goes on where the last one stopped, the second never does.
            parts = [{"text": ""}, wire]
        else:
            parts = [wire]
        draft.has_begun = True
        draft.pieces, draft.data, draft.notes = [], [], []
        if parts:
            self._current[choice] = draft if draft.is_streamed else None
            fields["content"] = {"parts": parts, "role": "model"}
        return self._chunk(choice, fields) if fields else b""

    def _kind(self, choice: int) -> PartKind | None:
        current = self._current.get(choice)
        return None if current is None else current.opening.kind

    def _chunk(self, choice: int, fields: dict[str, Any]) -> bytes:
        candidate = {**fields, **({"index": choice} if choice else {})}
        return _sse({"candidates": [candidate], **self._head})


def _sse(value: dict[str, Any]) -> bytes:
    return b"data: " + encode_json(value) + b"\r\n\r\n"
