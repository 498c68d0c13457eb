"""`python -m sabir.testing.replay [--json] FILE.jsonl…`: recorded exchanges held against the dialects' laws.

Each line of a file is one exchange as a recorder kept it: request, answer, and the name of their format. What is said
of it: what the answer decodes to, and whether both sides survive being decoded and encoded again. Knows no format; the
laws are the same for all of them. An exchange of a format or operation that is not built is unsupported, not passed.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, Protocol, TypeGuard, TypeVar

import msgspec

from ..deltas import Assembler, Delta, Open
from ..dialects import (
    Dialect,
    EmbeddingDialect,
    EmbeddingResponse,
    RerankDialect,
    RerankResponse,
    list_of,
    mapping_of,
    response_of,
    text_of,
)
from ..dialects.anthropic import Anthropic
from ..dialects.bedrock import Bedrock
from ..dialects.cohere import Cohere
from ..dialects.cohere_embeddings import CohereEmbeddings
from ..dialects.cohere_rerank import CohereRerank
from ..dialects.gemini import Gemini
from ..dialects.gemini_embeddings import GeminiEmbeddings
from ..dialects.media_formats import (
    Answer,
    Asked,
    ImageAnswer,
    ImageRequest,
    MediaDialect,
    SpeechAnswer,
    SpeechRequest,
    TranscriptAnswer,
    TranscriptRequest,
)
from ..dialects.mistral import Mistral
from ..dialects.ollama import Ollama
from ..dialects.ollama_embeddings import OllamaEmbeddings
from ..dialects.openai_chat import OpenAIChat
from ..dialects.openai_completions import OpenAICompletions
from ..dialects.openai_embeddings import OpenAIEmbeddings
from ..dialects.openai_images import OpenAIImages
from ..dialects.openai_responses import OpenAIResponses
from ..dialects.openai_speech import OpenAISpeech
from ..dialects.openai_transcripts import OpenAITranscripts
from ..errors import ProviderError, SabirError
from ..messages import Audio, ToolCall
from ..requests import HttpRequest, Notice
from ..strict_json import decode_json, encode_json, is_array, is_object
from ..usage import Usage
from .batch_replay import is_about_batches, replay_batch
from .changes import first_change, shown_beside

__all__ = ["DIALECTS", "EMBEDDINGS", "MEDIA", "RERANKS", "Replayed", "main", "replay", "replay_file"]

# The recordings' name of a format, and who speaks it.
DIALECTS: dict[str, Dialect] = {
    "openai-chat": OpenAIChat(),
    "openai-responses": OpenAIResponses(),
    "openai-completions": OpenAICompletions(),
    "anthropic-messages": Anthropic(),
    "gemini": Gemini(),
    "bedrock-converse": Bedrock(),
    "cohere": Cohere(),
    "ollama": Ollama(),
    "mistral": Mistral(),
}
# The same for formats of embeddings, which have one operation.
EMBEDDINGS: dict[str, EmbeddingDialect] = {
    "openai-embeddings": OpenAIEmbeddings(),
    "gemini-embeddings": GeminiEmbeddings(),
    "cohere-embeddings": CohereEmbeddings(),
    "ollama-embeddings": OllamaEmbeddings(),
}
# And of rankings.
RERANKS: dict[str, RerankDialect] = {"rerank": CohereRerank()}
# And of pictures and sounds, by operation, with what is asked where the recording does not say.
_DRAW = ImageRequest(model="?", prompt="?")
MEDIA: dict[str, dict[str, tuple[MediaDialect[Any, Any, Any], Asked]]] = {
    "openai-images": dict.fromkeys(("images/generations", "images/edits"), (OpenAIImages(edits="json"), _DRAW)),
    "openai-audio": {
        "audio/speech": (OpenAISpeech(), SpeechRequest(model="?", text="?")),
        "audio/transcriptions": (OpenAITranscripts(), TranscriptRequest(model="?", audio=Audio(data=b"?"))),
    },
}
# The endpoints that are a format's chat operation; no dialect speaks its others (counting tokens, ...).
CHAT_ENDPOINTS: dict[str, frozenset[str]] = {
    "openai-chat": frozenset({"chat/completions"}),
    "openai-responses": frozenset({"responses", "responses/get"}),
    "openai-completions": frozenset({"completions"}),
    "anthropic-messages": frozenset({"messages", "rawPredict", "streamRawPredict"}),
    "gemini": frozenset({"generateContent", "streamGenerateContent"}),
    "ollama": frozenset({"chat"}),
    "bedrock-converse": frozenset({"converse", "converse-stream"}),
    "cohere": frozenset({"v2/chat"}),
    "mistral": frozenset({"chat/completions"}),
}
# What was recorded under a format by mistake: an answer that names itself otherwise than the format's do, ...
ANSWER_OBJECTS: dict[str, str] = {"openai-responses": "response", "openai-completions": "text_completion"}
# ... or one that has, whole or in its first event, no field of which the format's each have one, an error's included.
_IN_ERRORS = ("error", "message", "detail", "__type")
ANSWER_FIELDS: dict[str, frozenset[str]] = {
    "openai-chat": frozenset({"choices", *_IN_ERRORS}),
    "openai-responses": frozenset({"output", "type", *_IN_ERRORS}),
    "openai-completions": frozenset({"choices", *_IN_ERRORS}),
    "anthropic-messages": frozenset({"content", "type", *_IN_ERRORS}),
    "gemini": frozenset({"candidates", "promptFeedback", "usageMetadata", *_IN_ERRORS}),
    "ollama": frozenset({"done", *_IN_ERRORS}),
    "bedrock-converse": frozenset({"output", *_IN_ERRORS}),
    "cohere": frozenset({"finish_reason", "type", *_IN_ERRORS}),
    "mistral": frozenset({"choices", *_IN_ERRORS}),
}
# A stream is cut into pieces of each of these sizes, and at its line ends; into single bytes only if it is short.
_PIECES = (3, 61, 1021, 16_381)
_SHORT = 16_384
_LINES = re.compile(rb"[^\r\n]*[\r\n]?")

Verdict = Literal["passed", "failed", "unsupported"]
AnyDialect = Dialect | EmbeddingDialect | RerankDialect
AskedT = TypeVar("AskedT")


class RequestHalf(Protocol[AskedT]):
    """What all dialects have in common, whatever is asked in them."""

    def encode_request(self, request: AskedT) -> tuple[HttpRequest, tuple[Notice, ...]]: ...

    def decode_request(self, body: bytes) -> AskedT: ...

    def canonical_request(self, body: dict[str, Any]) -> dict[str, Any]: ...


@dataclass
class Replayed:
    """What came of one exchange. A round trip is None where there was no request, or no answer, to make it with."""

    id: str
    dialect: str = "?"
    provider: str = "?"
    decoded: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    request_round_trip: bool | None = None
    response_round_trip: bool | None = None
    notes: list[str] = field(default_factory=list[str])
    verdict: Verdict = "passed"

    def fail(self, reason: str) -> None:
        self.verdict = "failed"
        self.notes.append(f"failed: {reason}")

    def is_unsupported(self, reason: str) -> None:
        self.verdict = "unsupported"
        self.notes.append(f"unsupported: {reason}")

    def as_json(self) -> dict[str, Any]:
        """The line of `--json`."""
        return {
            "id": self.id,
            "decoded": self.decoded,
            "error": self.error,
            "request_round_trip": self.request_round_trip,
            "response_round_trip": self.response_round_trip,
            "notes": self.notes,
        }


def replay_file(path: Path) -> Iterator[Replayed]:
    """Replay a file line by line; what cannot be read is a failure, and never the end of the others."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _replay_line(line, f"{path.name}:{number}")
    except OSError as error:
        yield _unreadable(str(path), f"the file cannot be read: {error}")


def _replay_line(line: bytes, where: str) -> Replayed:
    try:
        exchange = decode_json(line)
    except ValueError as error:
        return _unreadable(where, f"the line is no JSON: {error}")
    return replay(exchange, where)


def replay(exchange: Any, where: str = "?") -> Replayed:
    """Replay one decoded exchange; `where` names it if it has no id."""
    if (flaw := _flaw(exchange)) is not None:
        return _unreadable(text_of(mapping_of(exchange).get("id")) or where, flaw)
    name: str = exchange["dialect"]
    result = Replayed(text_of(exchange.get("id")) or where, name, text_of(exchange.get("provider")) or "?")
    if is_about_batches(exchange):
        _replay_batch(exchange, result)
        return result
    if (reason := _unsupported(exchange)) is not None:
        result.is_unsupported(reason)
        return result
    try:
        if (embeddings := EMBEDDINGS.get(name)) is not None:
            _replay_request(embeddings, exchange, result)
            _replay_answer(embeddings, exchange, result)
        elif (rerank := RERANKS.get(name)) is not None:
            _replay_request(rerank, exchange, result)
            _replay_answer(rerank, exchange, result)
        elif (media := MEDIA.get(name)) is not None:
            _replay_media(*media[exchange["endpoint"]], exchange, result)
        else:
            _replay_request(DIALECTS[name], exchange, result)
            _replay_answer(DIALECTS[name], exchange, result)
    except Exception as error:  # noqa: BLE001 - whatever a dialect lets through is what this tool is there to show
        result.fail(f"a {type(error).__name__} escaped the dialect: {error}")
        result.error = result.error or _said(error)
    return result


def _replay_batch(exchange: dict[str, Any], result: Replayed) -> None:
    try:
        said = replay_batch(exchange)
    except Exception as error:  # noqa: BLE001 - as of any other exchange
        result.fail(f"a {type(error).__name__} escaped the dialect: {error}")
        result.error = _said(error)
        return
    result.decoded = said.decoded
    result.error = None if said.error is None else _said(said.error)
    result.request_round_trip, result.response_round_trip = said.request_round_trip, said.response_round_trip
    if said.unsupported is not None:
        result.is_unsupported(said.unsupported)
    for flaw in said.flaws:
        result.fail(flaw)


def _unreadable(where: str, reason: str) -> Replayed:
    result = Replayed(where, error={"class": "ValueError", "status": None, "message": reason})
    result.fail(reason)
    return result


def _flaw(exchange: Any) -> str | None:
    """Why this is no exchange."""
    if not is_object(exchange):
        return "the line is no JSON object"
    if text_of(exchange.get("dialect")) is None:
        return "the exchange does not name its dialect"
    for side in ("request", "response"):
        if not is_object(exchange.get(side) or {}):
            return f"the {side} is no object"
    answer = mapping_of(exchange.get("response"))
    if answer and type(answer.get("status")) is not int:
        return "the response has no status"
    return None


def _unsupported(exchange: dict[str, Any]) -> str | None:
    """Why no dialect of ours can say anything of this exchange."""
    name, endpoint = exchange["dialect"], exchange.get("endpoint")
    if name not in (*DIALECTS, *EMBEDDINGS, *RERANKS, *MEDIA):
        return f"the dialect {name!r} is not built"
    if endpoint not in MEDIA.get(name, (endpoint,)):
        return f"{endpoint!r} of {name!r} is not built"
    if endpoint not in CHAT_ENDPOINTS.get(name, (endpoint,)):
        return f"{endpoint!r} is not the chat operation of {name!r}"
    answer = mapping_of(exchange.get("response"))
    if name in ANSWER_FIELDS and answer.get("status", 400) < 400 and (what := _misfiled(name, answer)) is not None:
        return f"{what} is no answer of {name!r}, under which it was recorded"
    if mapping_of(exchange.get("request")).get("body") is None and not mapping_of(exchange.get("response")):
        return "neither a request nor an answer was recorded"
    return None


def _misfiled(name: str, answer: dict[str, Any]) -> str | None:
    """What this is instead of a format's answer; None if it is one, however broken."""
    body = answer.get("body")
    if isinstance(body, str):
        if (text_of(answer.get("content_type")) or "").startswith("text/plain"):
            return "a plain text"
        body = _first_event(body)
    told = mapping_of(list_of(body)[0] if list_of(body) else body)
    named = text_of(told.get("object"))
    if is_object(body) and named not in (None, "error", ANSWER_OBJECTS.get(name, named)):
        return f"a {named!r}"
    return f"an object of {sorted(told)}" if told and ANSWER_FIELDS[name].isdisjoint(told) else None


def _first_event(stream: str) -> dict[str, Any] | None:
    """The object of a stream's first event; None if it has none."""
    for line in stream.splitlines():
        if line.startswith("data:"):
            try:
                return mapping_of(decode_json(line.removeprefix("data:"))) or None
            except ValueError:
                return None
    return None


# The request


def _replay_request(dialect: RequestHalf[AskedT], exchange: dict[str, Any], result: Replayed) -> None:
    body = mapping_of(exchange.get("request")).get("body")
    if body is None:
        return
    result.request_round_trip = False
    try:
        sent, notices = dialect.encode_request(dialect.decode_request(encode_json(body)))
    except SabirError as error:
        if mapping_of(exchange.get("response")).get("status", 200) >= 400:
            result.notes.append(f"the request is refused, as it was by its server: {_ending(error)}")
        else:
            result.fail(f"a request that its server accepted is refused: {_ending(error)}")
        return
    result.notes += [f"the request was lowered: {notice}" for notice in notices]
    again = dialect.canonical_request(decode_json(sent.body))
    if (change := first_change(dialect.canonical_request(body), again)) is None:
        result.request_round_trip = True
    else:
        result.fail(f"the request changes: {change}")


# The answer


def _replay_answer(dialect: AnyDialect, exchange: dict[str, Any], result: Replayed) -> None:
    answer = mapping_of(exchange.get("response"))
    if not answer:
        result.notes.append("no answer was recorded")
        return
    status, body = answer["status"], answer.get("body")
    if status >= 400:
        headers = {name.lower(): str(value) for name, value in mapping_of(answer.get("headers")).items()}
        error = dialect.decode_error(status, headers, _bytes(answer))
        result.error = _said(error)
        _replay_error(dialect, error, result)
    elif body is None:
        result.notes.append("no answer was recorded")
    elif (embeddings := EMBEDDINGS.get(exchange["dialect"])) is not None:
        _replay_whole(embeddings, partial(_vectors_again, embeddings), _bytes(answer), result)
    elif (rerank := RERANKS.get(exchange["dialect"])) is not None:
        _replay_whole(rerank, partial(_ranks_again, rerank), _bytes(answer), result)
    elif _is_stream(exchange):
        _replay_stream(DIALECTS[exchange["dialect"]], _bytes(answer), result)
    else:
        chat = DIALECTS[exchange["dialect"]]
        _replay_whole(chat, partial(_answer_again, chat), _bytes(answer), result)


def _is_stream(exchange: dict[str, Any]) -> bool:
    answer = exchange["response"]
    if is_array(answer["body"]):
        return exchange.get("stream") is True
    return isinstance(answer["body"], str) and "text_body" not in list_of(exchange.get("features"))


def _bytes(answer: dict[str, Any]) -> bytes:
    body = answer.get("body")
    if isinstance(body, str):
        is_binary = answer.get("body_encoding") == "base64"
        return b64decode(body) if is_binary else body.encode("utf-8", "surrogatepass")
    return b"" if body is None else encode_json(body)


def _replay_error(dialect: AnyDialect | MediaDialect[Any, Any, Any], error: ProviderError, result: Replayed) -> None:
    status, body = dialect.encode_error(error)
    again = dialect.decode_error(status, {}, body)
    result.response_round_trip = type(again) is type(error) and error.status in (None, again.status)
    if not result.response_round_trip:
        result.fail(f"the error comes back as another: {_ending(error)}, and now {_ending(again)}")


def _answer_again(dialect: Dialect, data: bytes, result: Replayed) -> bytes:
    deltas = dialect.decode_answer(data)
    response = response_of(dialect.name, deltas)
    result.decoded = _decoded(_sum(dialect, deltas), result)
    return dialect.encode_response(response)


def _vectors_again(dialect: EmbeddingDialect, data: bytes, result: Replayed) -> bytes:
    response = dialect.decode_answer(data)
    result.decoded = _decoded_vectors(response)
    return dialect.encode_response(response)


def _ranks_again(dialect: RerankDialect, data: bytes, result: Replayed) -> bytes:
    response = dialect.decode_answer(data)
    result.decoded = _decoded_ranks(response)
    return dialect.encode_response(response)


def _replay_whole(
    dialect: AnyDialect, again: Callable[[bytes, Replayed], bytes], data: bytes, result: Replayed
) -> None:
    result.response_round_trip = False
    try:
        encoded = again(data, result)
    except SabirError as error:
        result.error = _said(error)
        if _is_of_the_server(error):
            _replay_error(dialect, error, result)
        else:
            result.fail(f"the answer cannot be read: {_ending(error)}")
        return
    before, after = (dialect.canonical_answer(decode_json(it)) for it in (data, encoded))
    if (change := first_change(before, after)) is None:
        result.response_round_trip = True
    else:
        result.fail(f"the answer changes: {change}")


# Pictures and sounds


def _replay_media(
    dialect: MediaDialect[Any, Any, Any], asked: Asked, exchange: dict[str, Any], result: Replayed
) -> None:
    recorded, answer = mapping_of(exchange.get("request")), mapping_of(exchange.get("response"))
    if recorded.get("body") is not None:
        asked = _replay_media_request(dialect, recorded, answer, result) or asked
    elif "multipart" in list_of(exchange.get("features")):
        result.notes.append("the request was a form, which is not kept")
    kind, status = text_of(answer.get("content_type")) or "", answer.get("status")
    if status is None or answer.get("body") is None:
        result.notes.append("no answer was recorded")
    elif status >= 400:
        error = dialect.decode_error(status, {}, _bytes(answer))
        result.error = _said(error)
        _replay_error(dialect, error, result)
    elif "event-stream" in kind:
        _replay_media_stream(dialect, asked, kind, _bytes(answer), result)
    else:
        _replay_media_answer(dialect, asked, kind, _bytes(answer), result)


def _replay_media_request(
    dialect: MediaDialect[Any, Any, Any], recorded: dict[str, Any], answer: dict[str, Any], result: Replayed
) -> Asked | None:
    path, body = str(recorded.get("path")), encode_json(recorded["body"])
    http = HttpRequest("POST", path, (("content-type", "application/json"),), body)
    result.request_round_trip = False
    try:
        asked: Asked = dialect.decode_request(http)
        again, notices = dialect.encode_request(asked)
    except SabirError as error:
        result.fail(f"a request is refused, and its server said {answer.get('status')}: {_ending(error)}")
        return None
    result.notes += [f"the request was lowered: {notice}" for notice in notices]
    if (change := first_change(dialect.canonical_request(http), dialect.canonical_request(again))) is None:
        result.request_round_trip = True
    else:
        result.fail(f"the request changes: {change}")
    return asked


def _replay_media_answer(
    dialect: MediaDialect[Any, Any, Any], asked: Asked, kind: str, data: bytes, result: Replayed
) -> None:
    result.response_round_trip = False
    try:
        answer = dialect.decode_answer(asked, kind, data)
    except SabirError as error:
        result.error = _said(error)
        result.fail(f"the answer cannot be read: {_ending(error)}")
        return
    result.decoded = _decoded_media(answer)
    before = dialect.canonical_answer(kind, data)
    if (change := first_change(before, dialect.canonical_answer(*dialect.encode_response(asked, answer)))) is None:
        result.response_round_trip = True
    else:
        result.fail(f"the answer changes: {change}")


def _replay_media_stream(
    dialect: MediaDialect[Any, Any, Any], asked: Asked, kind: str, data: bytes, result: Replayed
) -> None:
    result.response_round_trip = False
    try:
        whole = _media_pieces(dialect, asked, kind, (data,))
        result.decoded = _decoded_media(whole[1])
        for how, pieces in _cuts(data):
            if _media_pieces(dialect, asked, kind, pieces) != whole:
                result.fail(f"the stream reads otherwise when it is cut {how}")
                return
        encoder = dialect.encoder(asked)
        written = b"".join([*map(encoder.feed, whole[0]), encoder.close(whole[1])])
        again = _media_pieces(dialect, asked, encoder.content_type, (written,))
    except SabirError as error:
        result.error = _said(error)
        result.fail(f"the stream cannot be read: {_ending(error)}")
        return
    if again == whole:
        result.response_round_trip = True
    else:
        result.fail(f"the stream changes when it is encoded: {first_change(_plain(whole), _plain(again))}")


def _media_pieces(
    dialect: MediaDialect[Any, Any, Any], asked: Asked, kind: str, pieces: Iterable[bytes]
) -> tuple[list[Any], Answer]:
    decoder = dialect.decoder(asked, kind)
    found = [piece for data in pieces for piece in decoder.feed(data)]
    answer: Answer = decoder.close()
    return found, answer


def _decoded_media(answer: Answer) -> dict[str, Any]:
    shown: dict[str, Any] = {"model": answer.model, "usage": _usage(answer.usage)}
    match answer:
        case ImageAnswer():
            return {"images": [each.media_type or each.url for each in answer.images], **shown}
        case SpeechAnswer():
            return {"audio": answer.audio.media_type, "bytes": len(answer.audio.data or b""), **shown}
        case TranscriptAnswer():
            times = {"segments": len(answer.segments), "words": len(answer.words), "duration": answer.duration}
            return {"text": answer.text, "language": answer.language, **times, **shown}
        case _:
            return shown


def _is_of_the_server(error: SabirError) -> TypeGuard[ProviderError]:
    """Whether the server says that something went wrong; else it is we who could make nothing of what it said."""
    return isinstance(error, ProviderError) and (error.status is None or error.status >= 400)


def _replay_stream(dialect: Dialect, data: bytes, result: Replayed) -> None:
    result.response_round_trip = False
    deltas, error = decoded_pieces(dialect, (data,))
    result.error = _said(error)
    try:
        total = _sum(dialect, deltas)
        if error is None or any(isinstance(delta, Open) for delta in deltas):
            result.decoded = _decoded(total, result)
    except SabirError as flaw:
        result.error = result.error or _said(flaw)
        result.fail(f"the deltas do not add up: {_ending(flaw)}")
        return
    if error is None and (unread := _unread(dialect, data)):
        result.notes.append(f"{unread} bytes come after the end of the answer; they are not read")
    if error is not None and not _is_of_the_server(error):
        result.fail(f"the stream cannot be read: {_ending(error)}")
        return
    for how, pieces in _cuts(data):
        if (change := _change_of_streams((deltas, error), decoded_pieces(dialect, pieces))) is not None:
            result.fail(f"the stream reads otherwise when it is cut {how}: {change}")
            return
    again, ending = decoded_pieces(dialect, (_encode(dialect, deltas, error),))
    try:
        change = _change_of_sums(total, _sum(dialect, again))
    except SabirError as flaw:
        change = f"what is encoded does not add up: {_ending(flaw)}"
    if type(ending) is not type(error):
        change = f"it ended with {_ending(error)}, and now with {_ending(ending)}"
    if change is None:
        result.response_round_trip = True
    else:
        result.fail(f"the stream changes when it is encoded: {change}")


def _cuts(data: bytes) -> Iterator[tuple[str, Iterable[bytes]]]:
    yield "after each CR and each LF", _LINES.findall(data)
    for size in _PIECES if len(data) > _SHORT else (1, *_PIECES):
        if size < len(data):
            yield f"every {size} bytes", (data[start : start + size] for start in range(0, len(data), size))


Ended = tuple[list[Delta], SabirError | None]


def decoded_pieces(dialect: Dialect, pieces: Iterable[bytes]) -> Ended:
    """The deltas of a stream that comes in these pieces, and the error that it ends with, if it does."""
    decoder, deltas = dialect.decoder(), list[Delta]()
    try:
        for piece in pieces:
            deltas += decoder.feed(piece)
            if decoder.is_over:
                break
        deltas += decoder.close()
    except SabirError as error:
        return deltas, error
    return deltas, None


def _unread(dialect: Dialect, data: bytes) -> int:
    """How much comes after the end of an answer, where a recorder glued several together."""
    decoder, lines = dialect.decoder(), iter(_LINES.findall(data))
    for line in lines:
        decoder.feed(line)
        if decoder.is_over:
            break
    return len(b"".join(lines).strip())


def _encode(dialect: Dialect, deltas: Iterable[Delta], error: SabirError | None) -> bytes:
    encoder = dialect.encoder()
    pieces = [encoder.feed(delta) for delta in deltas]
    return b"".join([*pieces, encoder.close() if error is None else encoder.fail(error)])


# What is said of an exchange


def _sum(dialect: Dialect, deltas: Iterable[Delta]) -> Assembler:
    total = Assembler(dialect.name)
    for delta in deltas:
        total.add(delta)
    return total


def _decoded(total: Assembler, result: Replayed) -> dict[str, Any]:
    message, *others = total.choices
    if message.refusal is not None:
        result.notes.append(f"the model refused: {message.refusal}")
    if others:
        result.notes.append(f"{1 + len(others)} choices; the first is shown")
    finish, reported = total.finishes.get(0), total.usage.reported_total
    if reported not in (None, total.usage.total_tokens):
        result.notes.append(f"the provider's own total is {reported} tokens")
    return {
        "text": message.text,
        "thinking": message.thinking,
        "tool_calls": [
            {"id": call.id, "name": call.name, "arguments": _arguments(call)} for call in message.tool_calls
        ],
        "finish_reason": finish.reason if finish else "unknown",
        "usage": _usage(total.usage),
    }


def _decoded_vectors(response: EmbeddingResponse) -> dict[str, Any]:
    return {
        "vectors": len(response.vectors),
        "dimensions": len(response.vectors[0]) if response.vectors else None,
        "encoding_format": response.encoding_format,
        "model": response.model,
        "usage": _usage(response.usage),
    }


def _decoded_ranks(response: RerankResponse) -> dict[str, Any]:
    return {
        "ranks": [[rank.index, rank.score] for rank in response.ranks],
        "model": response.model,
        "usage": _usage(response.usage),
    }


def _arguments(call: ToolCall) -> Any:
    try:
        return decode_json(call.input.strip() or "{}")
    except ValueError:
        return call.input


def _usage(usage: Usage) -> dict[str, int | None]:
    known = {
        "cache_read": usage.cache_read,
        "cache_write": usage.cache_write,
        "reasoning": usage.reasoning,
        "total": usage.total_tokens,
    }
    counts: dict[str, int | None] = {name: count for name, count in known.items() if count is not None}
    return {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens, **counts}


def _said(error: Exception | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {"class": type(error).__name__, "status": getattr(error, "status", None), "message": str(error)}


def _ending(error: SabirError | None) -> str:
    return "no error" if error is None else f"{type(error).__name__}: {error}"


def _change_of_streams(whole: Ended, cut: Ended) -> str | None:
    for number, (before, after) in enumerate(zip_longest(whole[0], cut[0])):
        if before != after:
            return f"delta {number} was {shown_beside(before, after)}, and now {shown_beside(after, before)}"
    before, after = _ending(whole[1]), _ending(cut[1])
    return None if before == after else f"it ended with {before}, and now with {after}"


def _change_of_sums(first: Assembler, second: Assembler) -> str | None:
    parts = (
        ("its messages", first.choices, second.choices),
        ("its usage", first.usage, second.usage),
        ("its finish reasons", first.finishes, second.finishes),
    )
    for what, before, after in parts:
        if before != after:
            return f"{what}: {first_change(_plain(before), _plain(after))}"
    return None


def _plain(value: Any) -> Any:
    return decode_json(encode_json(msgspec.to_builtins(value, str_keys=True)))


# The command


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay the files and say what came of it; 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m sabir.testing.replay", description=main.__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON for each exchange")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.jsonl")
    chosen = parser.parse_args(arguments)
    results = (result for path in chosen.files for result in replay_file(path))
    return _print_lines(results) if chosen.json else _print_table(results)


def _print_lines(results: Iterable[Replayed]) -> int:
    code = 0
    for result in results:
        _print(encode_json(result.as_json()).decode())
        code |= result.verdict == "failed"
    return code


def _print_table(results: Iterable[Replayed]) -> int:
    counts: Counter[tuple[str, str, Verdict]] = Counter()
    failures: list[Replayed] = []
    for result in results:
        counts[result.dialect, result.provider, result.verdict] += 1
        if result.verdict == "failed":
            failures.append(result)
    rows = sorted({(dialect, provider) for dialect, provider, _ in counts})
    widths = [max(len(head), *(len(row[at]) for row in rows)) for at, head in enumerate(_HEADS)] if rows else [7, 8]
    _print(_row(_HEADS, widths, _VERDICTS))
    for row in rows:
        _print(_row(row, widths, [str(counts[*row, verdict]) for verdict in _VERDICTS]))
    _print("")
    for result in failures:
        for note in result.notes:
            if note.startswith("failed: "):
                _print(f"{result.id} ({result.dialect}, {result.provider}) {note}")
    totals = Counter[Verdict]()
    for (_, _, verdict), count in counts.items():
        totals[verdict] += count
    _print(f"{totals['unsupported']} unsupported")
    _print(f"{totals['passed']} passed, {totals['failed']} failed")
    return 1 if failures else 0


_HEADS = ("dialect", "provider")
_VERDICTS: tuple[Verdict, ...] = ("passed", "failed", "unsupported")


def _row(names: Sequence[str], widths: Sequence[int], cells: Sequence[str]) -> str:
    left = (name.ljust(width) for name, width in zip(names, widths, strict=True))
    right = (cell.rjust(len(head)) for cell, head in zip(cells, _VERDICTS, strict=True))
    return "  ".join([*left, *right])


def _print(line: str) -> None:
    # Half a surrogate pair, as some servers send, has no bytes in any encoding.
    sys.stdout.buffer.write(line.encode("utf-8", "backslashreplace") + b"\n")


if __name__ == "__main__":
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read this has seen enough (`| head`); Python flushes once more as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)
