"""Transcripts: speech is written down, or translated into English. Knows no wire format, and hears nothing itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, TypedDict, final

import msgspec

from .chunks import Phase, StreamChunk
from .dialects.media_formats import Said, Segment, Timestamps, TranscriptAnswer, TranscriptRequest, Word
from .errors import ConfigurationError
from .media import AudioSource, audio
from .media_calls import Made, MediaAsker, MediaCall, typed_options
from .messages import Message, Part, Text
from .options import checked_options, merged

Scribe: TypeAlias = MediaAsker[TranscriptRequest, Said, TranscriptAnswer]


class TranscriptOptions(TypedDict, total=False):
    """What one call of `transcribe` may set; an option that is absent or None is not sent.

    `model` is a model string or another id of the same provider. `language` is the one that is spoken, as in "en";
    `prompt` has words that may come up; `timestamps` are those of each "segment" or "word"; `diarize` tells speakers
    apart; `translate` gives English instead. `extra` and `headers` go to the wire as they are.
    """

    model: str | None
    language: str | None
    prompt: str | None
    temperature: float | None
    timestamps: Timestamps | None
    translate: bool | None
    diarize: bool | None
    extra: Mapping[str, Any] | None
    headers: Mapping[str, str] | None


class Transcription(Made, frozen=True, kw_only=True, repr_omit_defaults=True):
    """What was said; prints as its text.

    `segments` and `words` are there where the provider tells them, with seconds and speakers as far as it knows these.
    `duration` is the recording's in seconds, `billed_seconds` what is paid for, each None where it is not told.
    """

    text: str
    language: str | None = None
    duration: float | None = None
    segments: tuple[Segment, ...] = ()
    words: tuple[Word, ...] = ()
    billed_seconds: float | None = None

    def __str__(self) -> str:
        return self.text

    @property
    def message(self) -> Message:
        """The answer as a message, to go on with in a conversation."""
        return Message("assistant", (Text(text=self.text),))


@final
class TranscriptCall(MediaCall[TranscriptRequest, Said, TranscriptAnswer, Transcription]):
    """One call of `transcribe`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._said: list[str] = []

    def asked(self) -> Message:
        return Message("user", (self.request.audio,))

    async def fitted(self) -> TranscriptRequest:
        sound = await self.asker.fitted(self.request.audio, self.exchange)
        return msgspec.structs.replace(self.request, audio=sound)

    def seen(self, piece: Said) -> list[StreamChunk]:
        if not piece.text:
            return []
        self._said.append(piece.text)
        return [StreamChunk(Phase.GENERATING, piece.text)]

    def last_seen(self, answer: TranscriptAnswer) -> list[StreamChunk]:
        # Not every server streams that is asked to.
        return [] if self._said or not answer.text else [StreamChunk(Phase.GENERATING, answer.text)]

    def parts(self) -> tuple[Part, ...]:
        return (Text(text="".join(self._said)),) if self._said else ()

    def made(self, answer: TranscriptAnswer, common: Mapping[str, Any]) -> Transcription:
        return Transcription(
            text=answer.text,
            language=answer.language,
            duration=answer.duration,
            segments=answer.segments,
            words=answer.words,
            billed_seconds=answer.billed,
            **common,
        )


def transcript_request(
    source: AudioSource, own: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[str | None, dict[str, Any]]:
    """The model that a call names, and the fields of its request.

    Raises:
        ConfigurationError: there is no sound, or an option is unknown or wrong.
    """
    given = typed_options(checked_options(options, TranscriptOptions), TranscriptOptions)
    sound = audio(source)
    if sound.data is None and sound.url is None:
        raise ConfigurationError("this sound has only another provider's id; pass its bytes or an address")
    if sound.data is not None and sound.media_type is None:
        sound = audio(sound.data)
    return given.pop("model", None), {**merged(own, given), "audio": sound}
