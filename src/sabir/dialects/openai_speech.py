"""OpenAI's speech, `POST /audio/speech`: a text goes in, a sound comes out. Knows no provider, only quirks.

Sources: https://platform.openai.com/docs/api-reference/audio/createSpeech, the types of the Python SDKs of OpenAI
(3.54) and Mistral (3.7), and the recorded traffic of OpenAI, Venice and Mistral. A sound comes as bare bytes, as events
(`stream_format: sse`) or, from Mistral, as base64 in JSON; the answer's header says which.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..errors import NotFoundError, ProviderError, SabirError, ServerError, StreamProtocolError
from ..messages import Audio, ProviderState
from ..requests import HttpRequest, Notice
from ..strict_json import decode_json, encode_json, is_object
from ..usage import NOTHING, Usage
from . import Unsupported, Verdicts, mapping_of, text_of
from .bodies import answer_of, converted, lowered, post, refused, request_of, shown
from .failures import failure_object, provider_error
from .leftovers import difference, own_state, patched, without_nulls
from .media_formats import (
    Sound,
    SpeechAnswer,
    SpeechRequest,
    WholeDecoder,
    bytes_in,
    cut,
    is_events,
    media_type_in,
    told,
)
from .media_rules import MediaRules
from .openai_media import failure_event, read_event, usage_object, usage_of, usage_patch, written_event
from .sse import EventStream

NAME = "openai_speech"

# The verdict on each portable parameter: the wire's word for it, or why there is none.
SPEECH_PARAMETERS: Verdicts = {
    "voice": "voice",
    "format": "response_format",
    "speed": "speed",
    "instructions": "instructions",
}
_PATH = re.compile(r"(?:.*/)?audio/speech")
# What a format is called in headers, where it has another name there.
_TYPES = {"mp3": "audio/mpeg", "opus": "audio/ogg", "pcm": "audio/L16"}
_MP3 = "mp3"


@dataclass(frozen=True)
class OpenAISpeech:
    """The dialect with the quirks of one kind of server.

    Attributes:
        parameters: the verdict on each portable parameter.
        unasked: what every request has where the caller does not say otherwise.
        streaming: what a request has beside where its answer is to be streamed; bare bytes come as they are made.
        in_json: the field in which a server has the sound that answers with JSON; else it answers with bare bytes.
        media: nothing is sent but text.
    """

    parameters: Verdicts = field(default_factory=lambda: SPEECH_PARAMETERS)
    unasked: Mapping[str, Any] = field(default_factory=dict[str, Any])
    streaming: Mapping[str, Any] = field(default_factory=dict[str, Any])
    in_json: str | None = None
    media: MediaRules = field(default_factory=MediaRules)

    name = NAME

    def verdicts(self) -> Verdicts:
        """The verdict on every portable parameter."""
        return {**self.parameters, "extra": "(as given)", "headers": "(as given)"}

    def encode_request(self, request: SpeechRequest) -> tuple[HttpRequest, tuple[Notice, ...]]:
        body, notices = self._body(request)
        body = patched(body, own_state(request.state, NAME))
        return post("/audio/speech", {**body, **request.extra}, request.headers), notices

    def decode_answer(self, request: SpeechRequest, content_type: str, body: bytes) -> SpeechAnswer:
        kind = media_type_in(content_type)
        if kind.startswith("text/") or (kind.endswith("json") and not body):
            raise ServerError("the answer is no sound, but text", status=200, body=shown(body))
        if kind.endswith("json") and (answer := self._in_json(request, body)) is not None:
            return answer
        if not body:
            raise StreamProtocolError("the answer has no sound in it")
        return SpeechAnswer(audio=Audio(data=body, media_type=_media_type(request, content_type)))

    def decoder(self, request: SpeechRequest, content_type: str) -> _Events | _Bytes | WholeDecoder[Any, Sound, Any]:
        if is_events(content_type):
            return _Events(request)
        # What is not to be streamed may be asked for again until it is whole.
        is_sound = media_type_in(content_type).partition("/")[0] not in ("application", "text")
        if not (request.stream and is_sound):
            return WholeDecoder(self, request, content_type)
        return _Bytes(self, request, content_type)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return provider_error(status, headers, body)

    def decode_request(self, http: HttpRequest) -> SpeechRequest:
        if _PATH.fullmatch(http.url.partition("?")[0]) is None:
            raise NotFoundError(f"nothing is served at {http.url}; ask /audio/speech", status=404)
        wire: dict[str, Any] = without_nulls(request_of(http.body))
        words = {name: word for name, word in self.parameters.items() if not isinstance(word, Unsupported)}
        known: dict[str, Any] = {"model": wire.get("model", ""), "text": wire.get("input")}
        known |= {name: wire[word] for name, word in words.items() if word in wire}
        if is_object(known.get("voice")):
            # A voice of one's own is an object with its id, which stays as it is.
            del known["voice"]
        is_stream = bool(self.streaming) and all(wire.get(name) == value for name, value in self.streaming.items())
        request = converted({**known, "stream": is_stream}, SpeechRequest, {**words, "text": "input"})
        if not request.text:
            raise refused("input", "a text is wanted")
        patch = difference(wire, self._body(request)[0])
        return msgspec.structs.replace(request, state=ProviderState(NAME, patch)) if patch else request

    def encode_response(self, request: SpeechRequest, answer: SpeechAnswer) -> tuple[str, bytes]:
        data, state = answer.audio.data or b"", own_state(answer.state, NAME)
        if (name := state.get("in") or self.in_json) is None:
            return answer.audio.media_type or _media_type(request, ""), data
        body = {name: b64encode(data).decode(), **told([("usage", usage_object(answer.usage) or None)])}
        return "application/json", encode_json(patched(body, state.get("answer", {})))

    def encoder(self, request: SpeechRequest) -> _EventEncoder | _ByteEncoder:
        asked = mapping_of(own_state(request.state, NAME).get("set"))
        is_in_events = asked.get("stream_format") == "sse" or (request.stream and bool(self.streaming))
        return _EventEncoder(self.in_json or "audio") if is_in_events else _ByteEncoder(_media_type(request, ""))

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        return failure_object(error)

    def canonical_request(self, http: HttpRequest) -> dict[str, Any]:
        """Null is the same as absent."""
        wire: dict[str, Any] = without_nulls(decode_json(http.body))
        return wire

    def canonical_answer(self, content_type: str, body: bytes) -> Any:
        """Of JSON, null is the same as absent; a sound is its bytes."""
        if not media_type_in(content_type).endswith("json"):
            return {"media_type": content_type, "bytes": body.hex()}
        return without_nulls(decode_json(body))

    def _body(self, request: SpeechRequest) -> tuple[dict[str, Any], tuple[Notice, ...]]:
        fields, notices = lowered(self.parameters, {name: getattr(request, name) for name in self.parameters})
        streaming = dict(self.streaming) if request.stream else dict[str, Any]()
        named = told([("model", request.model or None)])
        return {**named, "input": request.text, **self.unasked, **fields, **streaming}, tuple(notices)

    def _in_json(self, request: SpeechRequest, body: bytes) -> SpeechAnswer | None:
        """The sound that an object has; None if it is none."""
        wire = answer_of(body)
        name = next((name for name in (self.in_json, *_FIELDS) if name and text_of(mapping_of(wire).get(name))), None)
        if name is None:
            raise StreamProtocolError("the answer has no sound in it", body=shown(body))
        usage = _usage(wire.get("usage"))
        audio = Audio(data=bytes_in(wire[name], "the sound"), media_type=_media_type(request, ""))
        ours = {name: wire[name], **told([("usage", usage_object(usage) or None)])}
        state = ProviderState(NAME, {"in": name, "answer": difference(without_nulls(wire), ours)})
        return SpeechAnswer(audio=audio, usage=usage, model=text_of(wire.get("model")), state=state)


# OpenAI's name in an event, and Mistral's.
_FIELDS = ("audio", "audio_data")


def _media_type(request: SpeechRequest, content_type: str) -> str:
    """What the sound is: as the header says, else as was asked for."""
    if content_type.lower().startswith("audio/"):
        return content_type
    asked = request.format or _MP3
    return _TYPES.get(asked, f"audio/{asked}")


def _usage(wire: Any) -> Usage:
    """The counts of tokens; all that is written is sound."""
    usage = usage_of(wire)
    return msgspec.structs.replace(usage, output=None, output_audio=usage.output)


class _Bytes:
    """Decodes a sound that comes as it is; HTTP alone says where it ends."""

    is_over = False

    def __init__(self, dialect: OpenAISpeech, request: SpeechRequest, content_type: str) -> None:
        self._dialect = dialect
        self._request = request
        self._content_type = content_type
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> list[Sound]:
        self._pieces.append(data)
        return [Sound(data)] if data else []

    def close(self, *, is_cut: bool = False) -> SpeechAnswer:
        if is_cut:
            raise cut()
        return self._dialect.decode_answer(self._request, self._content_type, b"".join(self._pieces))


class _Events:
    """Decodes a sound that comes in events; it is complete when they say so."""

    def __init__(self, request: SpeechRequest) -> None:
        self._events = EventStream()
        self._request = request
        self._pieces: list[bytes] = []
        self._usage: Usage = NOTHING
        self._patch: dict[str, Any] = {}
        self.is_over = False

    def feed(self, data: bytes) -> list[Sound]:
        return [sound for _, payload in self._events.feed(data) for sound in self._read(payload)]

    def _read(self, payload: bytes) -> list[Sound]:
        event = read_event(payload)
        if self.is_over:
            return []
        if event.get("type") == "speech.audio.done":
            self.is_over = True
            self._usage = _usage(event.get("usage"))
            self._patch = usage_patch(event.get("usage"), self._usage)
        elif event.get("type") == "speech.audio.delta":
            found = next((text for name in _FIELDS if (text := text_of(event.get(name)))), "")
            self._pieces.append(bytes_in(found, "the sound"))
            return [Sound(self._pieces[-1])] if found else []
        return []

    def close(self, *, is_cut: bool = False) -> SpeechAnswer:
        if not self.is_over:
            raise cut()
        if not (data := b"".join(self._pieces)):
            raise StreamProtocolError("the answer has no sound in it")
        audio = Audio(data=data, media_type=_media_type(self._request, ""))
        state = ProviderState(NAME, {"usage": self._patch}) if self._patch else None
        return SpeechAnswer(audio=audio, usage=self._usage, state=state)


class _ByteEncoder:
    """Writes a sound as it is. An error that comes late can only end it before its time."""

    def __init__(self, content_type: str) -> None:
        self.content_type = content_type

    def feed(self, piece: Sound) -> bytes:
        return piece.data

    def fail(self, error: SabirError) -> bytes:
        raise error

    def close(self, answer: SpeechAnswer) -> bytes:
        return b""


class _EventEncoder:
    """Writes a sound in events."""

    content_type = "text/event-stream"

    def __init__(self, name: str) -> None:
        self._name = name

    def feed(self, piece: Sound) -> bytes:
        return written_event({"type": "speech.audio.delta", self._name: b64encode(piece.data).decode()})

    def fail(self, error: SabirError) -> bytes:
        return failure_event(error)

    def close(self, answer: SpeechAnswer) -> bytes:
        usage = patched(usage_object(answer.usage), own_state(answer.state, NAME).get("usage", {}))
        return written_event({"type": "speech.audio.done", **({"usage": usage} if usage else {})})
