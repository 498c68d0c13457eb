"""OpenAI's transcripts, `POST /audio/transcriptions` and `/audio/translations`: a form with a sound goes in.

Knows no provider, only quirks. Sources: https://platform.openai.com/docs/api-reference/audio/createTranscription,
.../api-reference/audio/transcript-text-delta-event, the types of the Python SDKs of OpenAI (3.54) and Mistral (3.7),
and the recorded traffic of six servers. What comes is JSON, text, or events; the answer's header says which. The words
of a stream's deltas are the transcript; where a stream only has segments, what its last event says is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from ..errors import NotFoundError, ProviderError, SabirError, StreamProtocolError, UnsupportedError
from ..messages import Audio, ProviderState
from ..requests import HttpRequest, Notice
from ..strict_json import decode_json, encode_json, is_object
from ..usage import NOTHING
from . import Unsupported, Verdicts, list_of, mapping_of, text_of
from .bodies import answer_of, lowered, refused, shown
from .failures import failure_object, provider_error
from .forms import Texts, canonical_form, form_request, form_state, media_type_of, read_form, texts_of
from .leftovers import difference, own_state, patched, without_nulls
from .media_formats import (
    Said,
    Segment,
    TranscriptAnswer,
    TranscriptRequest,
    WholeDecoder,
    Word,
    cut,
    header_of,
    is_events,
    media_type_in,
    told,
)
from .media_rules import MediaRules
from .openai_media import DONE, failure_event, read_event, usage_object, usage_of, written_event
from .sse import EventStream

NAME = "openai_transcripts"

# The verdict on each portable parameter: the wire's word for it, or why there is none.
TRANSCRIPT_PARAMETERS: Verdicts = {
    "language": "language",
    "prompt": "prompt",
    "temperature": "temperature",
    "timestamps": "timestamp_granularities",
    "diarize": "response_format",
    "translate": "(/audio/translations)",
}
_PATH = re.compile(r"(?:.*/)?audio/(transcriptions|translations)")
# What OpenAI calls an event, and what Mistral does.
_DELTA = ("transcript.text.delta", "transcription.text.delta")
_SEGMENT = ("transcript.text.segment", "transcription.segment")
_DONE = ("transcript.text.done", "transcription.done")
_SPEAKER = ("speaker", "speaker_id")
_TEXTS = ("text", "srt", "vtt")


@dataclass(frozen=True)
class OpenAITranscripts:
    """The dialect with the quirks of one kind of server.

    Attributes:
        parameters: the verdict on each portable parameter.
        asks: how times and speakers are asked for: by the format of the answer, or by a switch beside it (Mistral).
        unasked: what every request has where the caller does not say otherwise.
        streams: whether its answers can be streamed; else a stream shows the whole one.
        media: what the server takes of sounds.
    """

    parameters: Verdicts = field(default_factory=lambda: TRANSCRIPT_PARAMETERS)
    asks: Literal["format", "switch"] = "format"
    unasked: Mapping[str, Any] = field(default_factory=dict[str, Any])
    streams: bool = True
    media: MediaRules = field(default_factory=lambda: MediaRules(inlined=(Audio,)))

    name = NAME

    def verdicts(self) -> Verdicts:
        """The verdict on every portable parameter."""
        return {**self.parameters, "extra": "(as given)", "headers": "(as given)"}

    def encode_request(self, request: TranscriptRequest) -> tuple[HttpRequest, tuple[Notice, ...]]:
        if request.audio.data is None:
            raise UnsupportedError("a sound is sent as bytes here: pass its bytes, not an address or an id")
        fields, notices = self._fields(request)
        state = own_state(request.state, NAME)
        operation = "translations" if self._is_translation(request) else "transcriptions"
        texts, files = texts_of({**fields, **request.extra}), {"file": (request.audio,)}
        return form_request(f"/audio/{operation}", texts, files, request.headers, state), notices

    def decode_answer(self, request: TranscriptRequest, content_type: str, body: bytes) -> TranscriptAnswer:
        # Not every server labels its JSON so.
        if media_type_in(content_type).startswith("text/") and not body.lstrip().startswith(b"{"):
            text = body.decode("utf-8", "replace")
            return TranscriptAnswer(text=text, state=ProviderState(NAME, {"as": content_type}))
        wire = answer_of(body)
        if not is_object(wire) or not isinstance(wire.get("text"), str):
            raise StreamProtocolError("the answer has no text in it", body=shown(body))
        return _answer(without_nulls(wire), wire["text"])

    def decoder(
        self, request: TranscriptRequest, content_type: str
    ) -> _Decoder | WholeDecoder[Any, Said, TranscriptAnswer]:
        return _Decoder() if is_events(content_type) else WholeDecoder(self, request, content_type)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return provider_error(status, headers, body)

    def decode_request(self, http: HttpRequest) -> TranscriptRequest:
        if (found := _PATH.fullmatch(http.url.partition("?")[0])) is None:
            raise NotFoundError(f"nothing is served at {http.url}; ask /audio/transcriptions", status=404)
        texts, files = read_form(header_of(http, "content-type"), http.body)
        if not files.get("file"):
            raise refused("file", "a file is wanted")
        known = self._known(texts)
        if found[1] == "translations":
            known["translate"] = True
        upload = files["file"][0]
        audio = Audio(data=upload.data, media_type=media_type_of(upload))
        request = TranscriptRequest(audio=audio, **known)
        state = form_state(NAME, texts, texts_of(self._fields(request)[0]), files)
        return msgspec.structs.replace(request, state=state)

    def encode_response(self, request: TranscriptRequest, answer: TranscriptAnswer) -> tuple[str, bytes]:
        """The answer, in the form that was asked for.

        Raises:
            UnsupportedError: subtitles were asked for, which this format leaves to its servers.
        """
        state = own_state(answer.state, NAME)
        if "as" in state:
            return state["as"], answer.text.encode("utf-8", "replace")
        form = mapping_of(mapping_of(own_state(request.state, NAME).get("texts")).get("set")).get("response_format")
        if form == ["text"]:
            return "text/plain; charset=utf-8", f"{answer.text}\n".encode("utf-8", "replace")
        if form in (["srt"], ["vtt"]):
            raise UnsupportedError(f"subtitles ({form[0]}) are not written here; ask for verbose_json")
        wire = _wire(answer, state)
        for name in ("segments", "words"):
            if rows := wire.get(name):
                wire[name] = [patched(row, state.get(f"{name}.{at}", {})) for at, row in enumerate(rows)]
        return "application/json", encode_json(wire)

    def encoder(self, request: TranscriptRequest) -> _Encoder:
        return _Encoder()

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        return failure_object(error)

    def canonical_request(self, http: HttpRequest) -> dict[str, Any]:
        """The order of a form's names is free."""
        return canonical_form(header_of(http, "content-type"), http.body)

    def canonical_answer(self, content_type: str, body: bytes) -> Any:
        """Of JSON, null is the same as absent; a text is itself."""
        if media_type_in(content_type).startswith("text/") and not body.lstrip().startswith(b"{"):
            return {"text": body.decode("utf-8", "replace")}
        return without_nulls(decode_json(body))

    def _is_translation(self, request: TranscriptRequest) -> bool:
        return bool(request.translate) and not isinstance(self.parameters["translate"], Unsupported)

    def _fields(self, request: TranscriptRequest) -> tuple[dict[str, Any], tuple[Notice, ...]]:
        asked = {name: getattr(request, name) for name in self.parameters}
        for name in ("diarize", "translate"):
            asked[name] = asked[name] or None
        is_translation = self._is_translation(request)
        notices: list[Notice] = []
        if is_translation:
            why = "a translation goes into English, and does not say who speaks"
            notices += [_unsupported(name, why) for name in ("language", "diarize") if asked[name]]
            asked |= dict.fromkeys(("language", "diarize"))
            if asked["timestamps"] == "word":
                asked["timestamps"] = None
                notices.append(_unsupported("timestamps", "a translation has the times of segments, not of words"))
        elif self.asks == "format" and asked["diarize"] and asked["timestamps"] == "word":
            asked["timestamps"] = None
            notices.append(_unsupported("timestamps", "of speakers there are the times of segments, not of words"))
        lowered_fields, refusals = lowered(self.parameters, asked)
        fields: dict[str, Any] = {**told([("model", request.model or None)]), **self.unasked}
        fields |= {name: value for name, value in lowered_fields.items() if not name.startswith("(")}
        self._ask(request, asked, fields)
        if request.stream and self.streams and not is_translation:
            fields["stream"] = True
        return fields, (*notices, *refusals)

    def _ask(self, request: TranscriptRequest, asked: Mapping[str, Any], fields: dict[str, Any]) -> None:
        """Ask for times and speakers, where that has more than a word."""
        times, speakers = self.parameters["timestamps"], self.parameters["diarize"]
        if asked["timestamps"] is not None and not isinstance(times, Unsupported):
            fields[times] = [asked["timestamps"]]
            if self.asks == "format":
                fields["response_format"] = "verbose_json"
            if self._is_translation(request):
                # Its times are those of segments, and there is no word for that.
                del fields[times]
        if asked["diarize"] is not None and not isinstance(speakers, Unsupported) and self.asks == "format":
            # https://platform.openai.com/docs/guides/speech-to-text: beyond 30 seconds it has to be said how to cut.
            fields.pop(str(times), None)
            fields |= {speakers: "diarized_json", "chunking_strategy": "auto"}

    def _known(self, texts: Texts) -> dict[str, Any]:
        """The fields that we have words for."""
        first = {name: values[0] for name, values in texts.items()}
        known: dict[str, Any] = {"model": first.get("model", ""), "stream": first.get("stream", "").lower() == "true"}
        known |= {name: first.get(name) for name in ("language", "prompt")}
        try:
            known["temperature"] = float(first["temperature"])
        except (KeyError, ValueError):
            known["temperature"] = None
        times, speakers = self.parameters["timestamps"], self.parameters["diarize"]
        several = texts.get(f"{times}[]") or texts.get(str(times)) or ()
        known["timestamps"] = next((each for each in ("word", "segment") if each in several), None)
        wanted = first.get(str(speakers), "")
        known["diarize"] = (wanted == "diarized_json" or (self.asks == "switch" and wanted == "true")) or None
        return known


def _unsupported(subject: str, reason: str) -> Notice:
    return Notice("unsupported", subject, f"{subject} was not sent: {reason}")


def _seconds(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else None


def _speaker(row: Mapping[str, Any]) -> str | None:
    return next((who for name in _SPEAKER if (who := text_of(row.get(name)))), None)


def _segment(row: Mapping[str, Any]) -> Segment:
    return Segment(str(row.get("text", "")), _seconds(row.get("start")), _seconds(row.get("end")), _speaker(row))


def _segment_object(segment: Segment) -> dict[str, Any]:
    pairs = ("text", segment.text), ("start", segment.start), ("end", segment.end), ("speaker", segment.speaker)
    return told(pairs)


def _word(row: Mapping[str, Any]) -> Word:
    return Word(str(row.get("word", "")), _seconds(row.get("start")), _seconds(row.get("end")), _speaker(row))


def _word_object(word: Word) -> dict[str, Any]:
    return told((("word", word.text), ("start", word.start), ("end", word.end), ("speaker", word.speaker)))


def _rows(wire: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return [row for row in list_of(wire.get(name)) if is_object(row)]


def _answer(wire: dict[str, Any], text: str) -> TranscriptAnswer:
    usage = mapping_of(wire.get("usage"))
    billed = _seconds(usage.get("seconds", usage.get("prompt_audio_seconds")))
    answer = TranscriptAnswer(
        text=text,
        language=text_of(wire.get("language")),
        duration=_seconds(wire.get("duration")),
        segments=tuple(_segment(row) for row in _rows(wire, "segments")),
        words=tuple(_word(row) for row in _rows(wire, "words")),
        billed=billed,
        usage=usage_of(usage) if usage.get("type") != "duration" else NOTHING,
        model=text_of(wire.get("model")),
    )
    state = _leftovers(wire, answer)
    return msgspec.structs.replace(answer, state=ProviderState(NAME, state)) if state else answer


def _wire(answer: TranscriptAnswer, state: Mapping[str, Any]) -> dict[str, Any]:
    usage = patched(_usage_object(answer), state.get("usage", {}))
    return {**patched(_object(answer), state.get("answer", {})), **({"usage": usage} if usage else {})}


def _object(answer: TranscriptAnswer) -> dict[str, Any]:
    """An answer as its wire object, without what only its state says, and without its usage."""
    return told(
        (
            ("model", answer.model),
            ("text", answer.text),
            ("language", answer.language),
            ("duration", answer.duration),
            ("segments", [_segment_object(each) for each in answer.segments] or None),
            ("words", [_word_object(each) for each in answer.words] or None),
        )
    )


def _usage_object(answer: TranscriptAnswer) -> dict[str, Any]:
    if answer.usage != NOTHING:
        return {"type": "tokens", **usage_object(answer.usage)}
    return {"type": "duration", "seconds": answer.billed} if answer.billed is not None else {}


def _leftovers(wire: Mapping[str, Any], answer: TranscriptAnswer) -> dict[str, Any]:
    """What an answer said beyond our words, as patches of it, of its usage and of its rows."""
    ours = _object(answer)
    found: dict[str, Any] = {}
    beside = {name: value for name, value in wire.items() if name not in ("usage", "type")}
    for name in ("segments", "words"):
        rows = list_of(wire.get(name))
        if rows and len(rows) == len(list_of(ours.get(name))):
            found |= {f"{name}.{at}": difference(row, ours[name][at]) for at, row in enumerate(rows)}
            beside[name] = ours[name]
    found["answer"] = difference(beside, ours)
    found["usage"] = difference(mapping_of(wire.get("usage")), _usage_object(answer))
    return {place: patch for place, patch in found.items() if patch}


class _Decoder:
    """Decodes a stream. It is complete when its last event has come, which has the whole text."""

    def __init__(self) -> None:
        self._events = EventStream()
        self._said: list[str] = []
        self._has_deltas = False
        self._segments: list[dict[str, Any]] = []
        self._language: str | None = None
        self._last: dict[str, Any] | None = None
        self.is_over = False

    def feed(self, data: bytes) -> list[Said]:
        return [said for _, payload in self._events.feed(data) for said in self._read(payload)]

    def _read(self, payload: bytes) -> list[Said]:
        if payload.strip() == DONE:
            self.is_over = True
        event = read_event(payload)
        kind = event.get("type")
        if self._last is not None:
            return []
        if event.get("object") == "transcription.chunk":
            return self._read_chunk(event)
        if kind in _DELTA:
            self._has_deltas = True
            return self._more(event.get("delta", event.get("text")))
        if kind in _SEGMENT:
            self._segments.append({name: value for name, value in event.items() if name != "type"})
            segment = _segment(event)
            # Where there are deltas, they have said this already.
            text = [] if self._has_deltas else self._more(segment.text)
            return [*text, Said(segment=segment)]
        if kind in _DONE:
            self._last = event
            return self._rest(event.get("text"))
        if kind == "transcription.language":
            self._language = text_of(event.get("audio_language"))
        return []

    def _more(self, text: Any) -> list[Said]:
        if not isinstance(text, str) or not text:
            return []
        self._said.append(text)
        return [Said(text)]

    def _read_chunk(self, event: dict[str, Any]) -> list[Said]:
        """A chunk as vLLM sends them, in the shape of chat completions'."""
        choice = mapping_of(next(iter(list_of(event.get("choices"))), None))
        said = self._more(mapping_of(choice.get("delta")).get("content"))
        if choice.get("finish_reason") is not None or choice.get("stop_reason") is not None:
            self._last = told((name, event.get(name)) for name in ("model", "usage"))
        return said

    def _rest(self, whole: Any) -> list[Said]:
        """What the last event has beyond what was streamed.

        Raises:
            StreamProtocolError: it says otherwise.
        """
        said = "".join(self._said)
        if not isinstance(whole, str) or _letters(whole) == _letters(said):
            return []
        if not whole.startswith(said):
            raise StreamProtocolError(f"the complete transcript contradicts what was streamed: {said[:80]!r}…")
        return self._more(whole[len(said) :])

    def close(self, *, is_cut: bool = False) -> TranscriptAnswer:
        if self._last is None:
            raise cut()
        wire = {name: value for name, value in self._last.items() if name != "type"}
        wire.setdefault("text", "".join(self._said))
        if self._language is not None:
            wire.setdefault("language", self._language)
        if self._segments:
            wire.setdefault("segments", self._segments)
        return _answer(wire, str(wire["text"]))


def _letters(text: str) -> str:
    return "".join(text.split())


class _Encoder:
    """Writes a stream, with its whole text in the last event."""

    content_type = "text/event-stream"

    def __init__(self) -> None:
        self._segments = 0

    def feed(self, piece: Said) -> bytes:
        written = b""
        if piece.text:
            written = written_event({"type": _DELTA[0], "delta": piece.text})
        if piece.segment is not None:
            # The number is the place in the stream, as OpenAI's are.
            event = {"type": _SEGMENT[0], "id": f"seg_{self._segments}", **_segment_object(piece.segment)}
            written += written_event(event)
            self._segments += 1
        return written

    def fail(self, error: SabirError) -> bytes:
        return failure_event(error)

    def close(self, answer: TranscriptAnswer) -> bytes:
        wire = _wire(answer, own_state(answer.state, NAME))
        # They have gone out already.
        wire.pop("segments", None)
        return written_event({"type": _DONE[0], **wire}) + b"data: [DONE]\n\n"
