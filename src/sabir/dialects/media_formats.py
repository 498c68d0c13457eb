"""What the rooms above know of a format of images, of speech or of transcripts: what is asked in it, and answered.

A `MediaDialect` is such a format, both halves, as a frozen dataclass whose fields are the known quirks of the servers
that speak it. Whole answers are values; a stream is made of pieces, and its decoder says at the end what they add up
to. Knows no format itself.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Generic, Literal, Protocol, TypeAlias, TypeVar

import msgspec

from ..errors import ProviderError, SabirError, StreamInterrupted, StreamProtocolError
from ..messages import Audio, Image, Message, ProviderState
from ..requests import HttpRequest, Notice
from ..usage import NOTHING, Usage
from . import Verdicts
from .media_rules import MediaRules

Timestamps: TypeAlias = Literal["segment", "word"]


class Asked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What every request has. `extra` and `headers` go to the wire as they are.

    `state` is what a decoded request said beyond our words.
    """

    model: str
    stream: bool = False
    extra: dict[str, Any] = {}
    headers: dict[str, str] = {}
    state: ProviderState | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What every answer has; `state` is what it said beyond our words."""

    usage: Usage = NOTHING
    model: str | None = None
    state: ProviderState | None = None


class ImageRequest(Asked, frozen=True, kw_only=True, omit_defaults=True):
    """A picture to be made of words, or of `images`; where the `mask` is transparent, and only there, if there is one.

    `previews` is how many unfinished pictures are to be seen of a stream. None is unset.
    """

    prompt: str
    images: tuple[Image, ...] = ()
    mask: Image | None = None
    n: Annotated[int, msgspec.Meta(ge=1)] | None = None
    size: str | None = None
    quality: str | None = None
    background: str | None = None
    format: str | None = None
    seed: int | None = None
    previews: Annotated[int, msgspec.Meta(ge=0)] | None = None
    user: str | None = None


class Drawn(msgspec.Struct, frozen=True):
    """A picture of a stream: the one of this number, or a preview of it; `state` is what else was said of it."""

    image: Image
    number: int = 0
    is_final: bool = False
    state: dict[str, Any] | None = None


class ImageAnswer(Answer, frozen=True, kw_only=True):
    """The pictures, and in a format where a message brings them, that message."""

    images: tuple[Image, ...]
    message: Message | None = None


class SpeechRequest(Asked, frozen=True, kw_only=True, omit_defaults=True):
    """A text to be spoken. None is unset."""

    text: str
    voice: str | None = None
    format: str | None = None
    speed: float | None = None
    instructions: str | None = None


class Sound(msgspec.Struct, frozen=True):
    """More bytes of what is spoken."""

    data: bytes


class SpeechAnswer(Answer, frozen=True, kw_only=True):
    """What was spoken."""

    audio: Audio


class TranscriptRequest(Asked, frozen=True, kw_only=True, omit_defaults=True):
    """Speech to be written down, or with `translate` in English. None is unset."""

    audio: Audio
    language: str | None = None
    prompt: str | None = None
    temperature: float | None = None
    timestamps: Timestamps | None = None
    translate: bool | None = None
    diarize: bool | None = None


class Segment(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of a transcript: what was said from `start` to `end`, in seconds, and by whom, where that is known."""

    text: str
    start: float | None = None
    end: float | None = None
    speaker: str | None = None


class Word(msgspec.Struct, frozen=True, omit_defaults=True):
    """A word of a transcript, and when it was said, in seconds."""

    text: str
    start: float | None = None
    end: float | None = None
    speaker: str | None = None


class Said(msgspec.Struct, frozen=True):
    """More of a transcript: text that goes on where the last one ended, or a `segment`, whose text is its own."""

    text: str = ""
    segment: Segment | None = None


class TranscriptAnswer(Answer, frozen=True, kw_only=True):
    """What was said. `segments` and `words` are empty where none came; `billed` is the seconds that are paid for."""

    text: str
    language: str | None = None
    duration: float | None = None
    segments: tuple[Segment, ...] = ()
    words: tuple[Word, ...] = ()
    billed: float | None = None


AskedT = TypeVar("AskedT", bound=Asked)
PieceT = TypeVar("PieceT")
AnswerT = TypeVar("AnswerT", bound=Answer)
AskedT_contra = TypeVar("AskedT_contra", bound=Asked, contravariant=True)
PieceOut = TypeVar("PieceOut")
AnswerT_co = TypeVar("AnswerT_co", covariant=True)
PieceT_contra = TypeVar("PieceT_contra", contravariant=True)
AnswerT_contra = TypeVar("AnswerT_contra", contravariant=True)


class MediaDecoder(Protocol[PieceOut, AnswerT_co]):
    """Turns the bytes of one answer into pieces, however they are cut, and into their sum."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to come: the format's end was seen."""
        ...

    def feed(self, data: bytes) -> list[PieceOut]:
        """What these bytes complete.

        Raises:
            SabirError: a malformed answer or an error sent in it.
        """
        ...

    def close(self, *, is_cut: bool = False) -> AnswerT_co:
        """The sum, once the bytes have ended; `is_cut` says that they ended before HTTP said that they would.

        Raises:
            SabirError: this is no whole answer.
        """
        ...


class MediaEncoder(Protocol[PieceT_contra, AnswerT_contra]):
    """Turns the pieces of one answer, and then their sum, into the bytes of a stream."""

    @property
    def content_type(self) -> str: ...

    def feed(self, piece: PieceT_contra) -> bytes: ...

    def fail(self, error: SabirError) -> bytes:
        """An error that comes when the stream has begun."""
        ...

    def close(self, answer: AnswerT_contra) -> bytes:
        """The end of the stream."""
        ...


class MediaDialect(Protocol[AskedT, PieceT, AnswerT]):
    """A format, both halves. See `Dialect` for what the methods of the same names promise."""

    @property
    def name(self) -> str: ...

    @property
    def media(self) -> MediaRules:
        """What its servers take of images and sounds."""
        ...

    def verdicts(self) -> Verdicts:
        """The verdict on every portable parameter."""
        ...

    def encode_request(self, request: AskedT) -> tuple[HttpRequest, tuple[Notice, ...]]: ...

    def decode_answer(self, request: AskedT, content_type: str, body: bytes) -> AnswerT:
        """A whole answer to a request.

        Raises:
            SabirError: the body is no answer, or an error sent with status 200.
        """
        ...

    def decoder(self, request: AskedT, content_type: str) -> MediaDecoder[PieceT, AnswerT]:
        """For an answer of this content type, whether it was to be streamed or not."""
        ...

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError: ...

    def decode_request(self, http: HttpRequest) -> AskedT:
        """A client's request; its url tells what is wanted, and its header in which form it comes."""
        ...

    def encode_response(self, request: AskedT, answer: AnswerT) -> tuple[str, bytes]:
        """The content type and the body of a whole answer to a request."""
        ...

    def encoder(self, request: AskedT) -> MediaEncoder[PieceT, AnswerT]: ...

    def encode_error(self, error: SabirError) -> tuple[int, bytes]: ...

    def canonical_request(self, http: HttpRequest) -> dict[str, Any]:
        """A request with this format's equivalent spellings made one; `encode(decode(b))` equals it."""
        ...

    def canonical_answer(self, content_type: str, body: bytes) -> Any:
        """The same of an answer."""
        ...


class WholeDecoder(Generic[AskedT, PieceT, AnswerT]):
    """For an answer that says nothing before it is whole."""

    is_over = False

    def __init__(self, dialect: MediaDialect[AskedT, PieceT, AnswerT], request: AskedT, content_type: str) -> None:
        self._dialect = dialect
        self._request = request
        self._content_type = content_type
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> list[PieceT]:
        self._pieces.append(data)
        return []

    def close(self, *, is_cut: bool = False) -> AnswerT:
        if is_cut:
            raise cut()
        return self._dialect.decode_answer(self._request, self._content_type, b"".join(self._pieces))


def cut() -> StreamInterrupted:
    """The error for an answer that did not reach its end."""
    return StreamInterrupted("the answer ended before it was whole", retryable=True)


def is_events(content_type: str) -> bool:
    """Whether an answer comes as server-sent events."""
    return "event-stream" in content_type.lower()


def media_type_in(content_type: str) -> str:
    """The media type of a header, without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def bytes_in(text: Any, what: str) -> bytes:
    """The bytes of base64.

    Raises:
        StreamProtocolError: it is none.
    """
    try:
        return b64decode(text, validate=True)
    except (TypeError, ValueError):
        raise StreamProtocolError(f"{what} is no base64") from None


def header_of(http: HttpRequest, name: str) -> str:
    """The value of a request's header; an empty text if it has none."""
    return next((value for each, value in http.headers if each.lower() == name), "")


def told(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in pairs if value is not None}
