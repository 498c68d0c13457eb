"""Speech: a text is spoken. Knows no wire format, and plays no sound."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypedDict, final

import msgspec

from .chunks import Phase, StreamChunk
from .dialects.media_formats import Sound, SpeechAnswer, SpeechRequest
from .errors import ConfigurationError
from .media import media_type_of
from .media_calls import Made, MediaAsker, MediaCall, note_format, saved, typed_options
from .messages import Audio, Message, Part, Text
from .options import checked_options, merged
from .streams import AwaitableReader, BlockingReader

# What each format begins with; of the others ("pcm") the bytes say nothing.
_KNOWN = {
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "flac": "audio/flac",
    "aac": "audio/aac",
    "opus": "audio/ogg",
    "ogg": "audio/ogg",
}

Speaker: TypeAlias = MediaAsker[SpeechRequest, Sound, SpeechAnswer]


class SpeechOptions(TypedDict, total=False):
    """What one call of `speak` may set; an option that is absent or None is not sent.

    `model` is a model string or another id of the same provider. `voice` and `format` ("mp3", "wav", …) are the
    provider's words, `instructions` say how it is to be spoken. `extra` and `headers` go to the wire as they are.
    """

    model: str | None
    voice: str | None
    format: str | None
    speed: float | None
    instructions: str | None
    extra: Mapping[str, Any] | None
    headers: Mapping[str, str] | None


class SpeechResponse(Made, frozen=True, kw_only=True, repr_omit_defaults=True):
    """What was spoken: `audio.data` are its bytes, `audio.media_type` says what they are."""

    audio: Audio

    @property
    def message(self) -> Message:
        """The answer as a message, to go on with in a conversation."""
        return Message("assistant", (self.audio,))

    def save(self, path: str | Path) -> Path:
        """Write the sound to a file.

        Raises:
            ConfigurationError: the file cannot be written.
        """
        return saved(path, self.audio.data, "sound")


@final
class SpeechCall(MediaCall[SpeechRequest, Sound, SpeechAnswer, SpeechResponse]):
    """One call of `speak`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.sounds: list[bytes] = []

    def asked(self) -> Message:
        return Message("user", (Text(text=self.request.text),))

    async def fitted(self) -> SpeechRequest:
        return self.request

    def seen(self, piece: Sound) -> list[StreamChunk]:
        self.sounds.append(piece.data)
        return [_chunk(len(self.sounds) - 1, None, None)]

    def last_seen(self, answer: SpeechAnswer) -> list[StreamChunk]:
        count = len(self.sounds)
        return [_chunk(count, count + 1, answer.audio.data)]

    def parts(self) -> tuple[Part, ...]:
        return (Audio(data=b"".join(self.sounds)),) if self.sounds else ()

    async def completed(self, answer: SpeechAnswer) -> SpeechAnswer:
        note_format(self.exchange, self.request.format, _KNOWN, answer.audio.data or b"")
        return answer

    def made(self, answer: SpeechAnswer, common: Mapping[str, Any]) -> SpeechResponse:
        return SpeechResponse(audio=_named(answer.audio), **common)


@final
class SpeechStream(BlockingReader[SpeechResponse]):
    """A text as it is spoken: iterate it for `StreamChunk`s, or its `sounds()`; then read `response`."""

    def __init__(self, call: SpeechCall) -> None:
        super().__init__(call)
        self._sounds = call.sounds

    def sounds(self) -> Iterator[bytes]:
        """The sound's bytes as they come, to be played before all of them are there.

        Of Gemini they are samples (16 bits, little-endian), and the header of a WAV file is only on the whole.
        """
        for chunk in self:
            if (place := _place(chunk)) is not None:
                yield self._sounds[place]


@final
class AsyncSpeechStream(AwaitableReader[SpeechResponse]):
    """A text as it is spoken: iterate it for `StreamChunk`s, or its `sounds()`; then read `response`."""

    def __init__(self, call: SpeechCall) -> None:
        super().__init__(call)
        self._sounds = call.sounds

    async def sounds(self) -> AsyncIterator[bytes]:
        """The sound's bytes as they come; see `sabir.SpeechStream`."""
        async for chunk in self:
            if (place := _place(chunk)) is not None:
                yield self._sounds[place]


def _place(chunk: StreamChunk) -> int | None:
    """Which piece of the sound a chunk tells of; None if it tells of none."""
    if chunk.phase is not Phase.SPEECH_GENERATING or chunk.content["final"]:
        return None
    place: int = chunk.content["chunk_index"]
    return place


def _chunk(index: int, total: int | None, result: bytes | None) -> StreamChunk:
    content = {"chunk_index": index, "total_chunks": total, "final": result is not None, "result": result}
    return StreamChunk(Phase.SPEECH_GENERATING, content)


def speech_request(text: str, own: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The model that a call names, and the fields of its request.

    Raises:
        ConfigurationError: the text is none, or an option is unknown or wrong.
    """
    if not isinstance(text, str) or not text.strip():
        raise ConfigurationError("speak takes a text, and there has to be something to be said in it")
    given = typed_options(checked_options(options, SpeechOptions), SpeechOptions)
    if (speed := given.get("speed")) is not None and not 0 < speed < float("inf"):
        raise ConfigurationError(f"speed is a number above 0, where 1 is usual; not {speed!r}")
    return given.pop("model", None), {**merged(own, given), "text": text}


def _named(audio: Audio) -> Audio:
    """The sound with what its bytes say that it is; bare samples say nothing, and what was told of them counts."""
    kind = media_type_of(audio.data or b"")
    return msgspec.structs.replace(audio, media_type=kind) if kind.startswith("audio/") else audio
