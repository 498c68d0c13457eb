"""Pictures, speech and transcripts by Google's Gemini API, and pictures of Imagen (`:predict`), both halves.

Knows no provider, only quirks. Gemini does all three by generateContent, so what goes over the wire is the chat
format's to say, and here it is only said what is asked for in it. Sources:
https://ai.google.dev/gemini-api/docs/image-generation, .../speech-generation, .../audio, .../imagen, the types of
Google's Python SDK (google-genai 3.4) and the recorded traffic of the Gemini API and Vertex AI; of speech and Imagen
there is none, and they are proven on the SDK alone.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import gcd
from typing import Any, Generic, TypeVar
from urllib.parse import quote, unquote

import msgspec

from ..deltas import Blob, Close, Count, Delta, Finish, Open, Text
from ..errors import ContentFilterError, ProviderError, SabirError, StreamProtocolError, UnsupportedError
from ..messages import Audio, Image, Message, ProviderState, user
from ..messages import Text as TextPart
from ..requests import HttpRequest, Notice, Request, Response, Timings
from ..strict_json import decode_json, encode_json, is_object
from . import Decoder, Unsupported, Verdicts, list_of, mapping_of, response_of, text_of
from .bodies import answer_of, post, refused, request_of
from .gemini import NAME as CHAT
from .gemini import Gemini, GeminiEncoder
from .leftovers import difference, own_state, patched, without_nulls
from .media_formats import (
    Answer,
    Asked,
    Drawn,
    ImageAnswer,
    ImageRequest,
    Said,
    Sound,
    SpeechAnswer,
    SpeechRequest,
    TranscriptAnswer,
    TranscriptRequest,
    WholeDecoder,
    bytes_in,
    is_events,
    told,
)
from .media_rules import MediaRules
from .waves import samples_of, told_rate, wav

IMAGES, SPEECH, TRANSCRIPTS = "gemini_images", "gemini_speech", "gemini_transcripts"

AskedT = TypeVar("AskedT", bound=Asked)
PieceT = TypeVar("PieceT")
AnswerT = TypeVar("AnswerT", bound=Answer)

# The verdict on each portable parameter: the wire's word for it, or why there is none.
IMAGE_PARAMETERS: Verdicts = {
    "n": Unsupported("Gemini draws one picture a call; call several times"),
    "size": "generationConfig.imageConfig (aspectRatio or imageSize)",
    "quality": Unsupported("this API has no quality; ask for a size of '2K' or '4K'"),
    "background": Unsupported("this API has no background; ask for one in the prompt"),
    "format": Unsupported("this API chooses the format; convert the picture"),
    "seed": "generationConfig.seed",
    "previews": Unsupported("this API shows no unfinished pictures; leave it out"),
    "user": Unsupported("this API has no field for your users; leave it out"),
}
# Vertex AI alone takes a format; recorded.
VERTEX_IMAGE_PARAMETERS: Verdicts = {**IMAGE_PARAMETERS, "format": "generationConfig.imageConfig.imageOutputOptions"}
# https://ai.google.dev/gemini-api/docs/imagen and the types of google-genai 3.4.
IMAGEN_PARAMETERS: Verdicts = {
    "n": "sampleCount",
    "size": "aspectRatio or sampleImageSize",
    "quality": Unsupported("Imagen has no quality; ask for a size of '2K'"),
    "background": Unsupported("Imagen has no background; ask for one in the prompt"),
    "format": "outputOptions",
    "seed": "seed",
    "previews": Unsupported("Imagen shows no unfinished pictures; leave it out"),
    "user": Unsupported("Imagen has no field for your users; leave it out"),
}
SPEECH_PARAMETERS: Verdicts = {
    "voice": "generationConfig.speechConfig.voiceConfig.prebuiltVoiceConfig.voiceName",
    "format": "(emulated: samples come, and WAV is made of them)",
    "speed": Unsupported("this API has no speed; ask for it with instructions="),
    "instructions": "(emulated: they stand before the text)",
}
TRANSCRIPT_PARAMETERS: Verdicts = {
    "language": "(emulated: the prompt says it)",
    "prompt": "(emulated: the prompt has it)",
    "temperature": "generationConfig.temperature",
    "timestamps": Unsupported("Gemini only guesses at times; choose a model of transcripts, such as openai:whisper-1"),
    "diarize": Unsupported("Gemini only guesses at speakers; choose a model of transcripts that tells them"),
    "translate": "(emulated: the prompt asks for it)",
}
_IMAGEN = re.compile(r"(?:.*/)?imagen-")
_PREDICT = re.compile(r"(?:.*/)?([^/:]+):predict")
_PIXELS = re.compile(r"(\d{2,5})x(\d{2,5})")
_RATIO = re.compile(r"\d{1,3}:\d{1,3}")
# https://ai.google.dev/gemini-api/docs/speech-generation: what samples are where the header does not say.
_USUAL_RATE = 24_000
_TRANSCRIBE = "Transcribe this recording word for word. Answer with the transcript alone."
_TRANSLATE = "Translate what is said in this recording into English. Answer with the translation alone."


@dataclass(frozen=True)
class GeminiImages:
    """The dialect with the quirks of one kind of server.

    Attributes:
        parameters: the verdict on each portable parameter of Gemini's models; Imagen's are the same everywhere.
        chat: the format that carries all but Imagen.
    """

    parameters: Verdicts = field(default_factory=lambda: IMAGE_PARAMETERS)
    chat: Gemini = field(default_factory=Gemini)

    name = IMAGES

    @property
    def media(self) -> MediaRules:
        """What the server takes of pictures."""
        return MediaRules(inlined=(Image,), types=self.chat.media.types, most=self.chat.media.most)

    def verdicts(self) -> Verdicts:
        """The verdict on every portable parameter."""
        mask = Unsupported("this API takes no mask; say in the prompt what is to be changed")
        return {**self.parameters, "images": "contents", "mask": mask, "extra": "(as given)", "headers": "(as given)"}

    def encode_request(self, request: ImageRequest) -> tuple[HttpRequest, tuple[Notice, ...]]:
        """The request.

        Raises:
            UnsupportedError: the model edits no pictures, or takes no mask.
        """
        if request.mask is not None:
            raise UnsupportedError(str(self.verdicts()["mask"]))
        if _IMAGEN.match(request.model):
            return self._predict(request)
        notices = _refusals(self.parameters, request)
        config, more = _image_config(request, self.parameters)
        picture = {"responseModalities": ["TEXT", "IMAGE"], **({"imageConfig": config} if config else {})}
        message = user(*request.images, request.prompt)
        seed = None if isinstance(self.parameters["seed"], Unsupported) else request.seed
        return _carried(self.chat, request, IMAGES, (message,), picture, [*notices, *more], seed=seed)

    def decode_answer(self, request: ImageRequest, content_type: str, body: bytes) -> ImageAnswer:
        if _IMAGEN.match(request.model):
            return _predicted(body)
        return _images(response_of(CHAT, self.chat.decode_answer(body)))

    def decoder(
        self, request: ImageRequest, content_type: str
    ) -> _Decoder[Drawn, ImageAnswer] | WholeDecoder[Any, Drawn, ImageAnswer]:
        if not is_events(content_type):
            return WholeDecoder(self, request, content_type)
        return _Decoder(self.chat.decoder(), lambda _: None, _images)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return self.chat.decode_error(status, headers, body)

    def decode_request(self, http: HttpRequest) -> ImageRequest:
        if (found := _PREDICT.fullmatch(http.url.partition("?")[0])) is not None:
            return self._decode_predict(unquote(found[1]), http)
        model, is_stream, message, wire = _uncarried(self.chat, http)
        config = mapping_of(wire.get("generationConfig"))
        shape = _within(config, "imageConfig")
        images = tuple(part for part in message.parts if isinstance(part, Image))
        request = ImageRequest(
            model=model,
            stream=is_stream,
            prompt=message.text,
            images=tuple(msgspec.structs.replace(image, state=None) for image in images),
            size=text_of(_within(shape, "aspectRatio")) or text_of(_within(shape, "imageSize")),
            seed=config["seed"] if type(config.get("seed")) is int else None,
        )
        if not request.prompt:
            raise refused("contents", "a text is wanted")
        return _with_state(self, request, http, IMAGES)

    def encode_response(self, request: ImageRequest, answer: ImageAnswer) -> tuple[str, bytes]:
        if _IMAGEN.match(request.model):
            return "application/json", _prediction(answer)
        parts = tuple(
            msgspec.structs.replace(image, media_type=image.media_type or "image/png") for image in answer.images
        )
        return "application/json", _written(self.chat, answer.message or Message("assistant", parts), answer)

    def encoder(self, request: ImageRequest) -> _Encoder[Drawn, ImageAnswer]:
        return _Encoder(self.chat.encoder(), _drawn_deltas)

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        return self.chat.encode_error(error)

    def canonical_request(self, http: HttpRequest) -> dict[str, Any]:
        wire = decode_json(http.body)
        return without_nulls(wire) if _PREDICT.fullmatch(http.url) else self.chat.canonical_request(wire)

    def canonical_answer(self, content_type: str, body: bytes) -> Any:
        wire = decode_json(body)
        return without_nulls(wire) if "predictions" in mapping_of(wire) else self.chat.canonical_answer(wire)

    def _predict(self, request: ImageRequest) -> tuple[HttpRequest, tuple[Notice, ...]]:
        """A request to Imagen, which has a format of its own.

        Raises:
            UnsupportedError: there are pictures to edit.
        """
        if request.images:
            raise UnsupportedError(f"{request.model} only draws by words; choose a model that edits, such as Gemini's")
        notices = _refusals(IMAGEN_PARAMETERS, request)
        parameters, more = _imagen_parameters(request)
        state = own_state(request.state, IMAGES)
        body: dict[str, Any] = {"instances": [{"prompt": request.prompt}], "parameters": parameters}
        body = patched({name: value for name, value in body.items() if value}, state)
        extra = dict(request.extra)
        if is_object(asked := extra.pop("parameters", None)):
            extra["parameters"] = {**body.get("parameters", {}), **asked}
        model = request.model if "/" in request.model else f"models/{request.model}"
        return post(f"/{quote(model)}:predict", {**body, **extra}, request.headers), (*notices, *more)

    def _decode_predict(self, model: str, http: HttpRequest) -> ImageRequest:
        wire: dict[str, Any] = without_nulls(request_of(http.body))
        prompt = text_of(mapping_of(next(iter(list_of(wire.get("instances"))), None)).get("prompt"))
        if prompt is None:
            raise refused("instances", "one with a prompt is wanted")
        asked = mapping_of(wire.get("parameters"))
        count, seed = asked.get("sampleCount"), asked.get("seed")
        kind = text_of(mapping_of(asked.get("outputOptions")).get("mimeType"))
        request = ImageRequest(
            model=model,
            prompt=prompt,
            n=count if type(count) is int and count > 0 else None,
            size=text_of(asked.get("aspectRatio")) or text_of(asked.get("sampleImageSize")),
            format=kind.removeprefix("image/") if kind is not None else None,
            seed=seed if type(seed) is int else None,
        )
        patch = difference(wire, decode_json(self._predict(request)[0].body))
        return msgspec.structs.replace(request, state=ProviderState(IMAGES, patch)) if patch else request


@dataclass(frozen=True)
class GeminiSpeech:
    """The dialect with the quirks of one kind of server.

    Attributes:
        parameters: the verdict on each portable parameter.
        chat: the format that carries it.
        media: nothing is sent but text.
    """

    parameters: Verdicts = field(default_factory=lambda: SPEECH_PARAMETERS)
    chat: Gemini = field(default_factory=Gemini)
    media: MediaRules = field(default_factory=MediaRules)

    name = SPEECH

    def verdicts(self) -> Verdicts:
        """The verdict on every portable parameter."""
        return {**self.parameters, "extra": "(as given)", "headers": "(as given)"}

    def encode_request(self, request: SpeechRequest) -> tuple[HttpRequest, tuple[Notice, ...]]:
        notices = _refusals(self.parameters, request)
        spoken: dict[str, Any] = {"responseModalities": ["AUDIO"]}
        if request.voice is not None:
            spoken["speechConfig"] = {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": request.voice}}}
        if request.format == "wav":
            notices.append(_emulated("format", "samples come from this API, and are given the header of a WAV file"))
        elif request.format not in (None, "pcm"):
            why = f"{request.format!r} is not made by this API, which gives samples: 'wav' came instead; convert it"
            notices.append(Notice("unsupported", "format", f"format was not sent: {why}"))
        text = request.text
        if request.instructions is not None:
            text = f"{request.instructions.rstrip(' :')}:\n{text}"
            notices.append(
                _emulated("instructions", "the instructions were sent before the text, as this API has them")
            )
        return _carried(self.chat, request, SPEECH, (user(text),), spoken, notices)

    def decode_answer(self, request: SpeechRequest, content_type: str, body: bytes) -> SpeechAnswer:
        return _spoken(request, response_of(CHAT, self.chat.decode_answer(body)))

    def decoder(
        self, request: SpeechRequest, content_type: str
    ) -> _Decoder[Sound, SpeechAnswer] | WholeDecoder[Any, Sound, SpeechAnswer]:
        if not is_events(content_type):
            return WholeDecoder(self, request, content_type)

        def total(response: Response[Any]) -> SpeechAnswer:
            return _spoken(request, response)

        return _Decoder(
            self.chat.decoder(), lambda delta: Sound(delta.data) if isinstance(delta, Blob) else None, total
        )

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return self.chat.decode_error(status, headers, body)

    def decode_request(self, http: HttpRequest) -> SpeechRequest:
        model, is_stream, message, wire = _uncarried(self.chat, http)
        if not message.text:
            raise refused("contents", "a text is wanted")
        voice: Any = wire
        for name in ("generationConfig", "speechConfig", "voiceConfig", "prebuiltVoiceConfig", "voiceName"):
            voice = _within(voice, name)
        request = SpeechRequest(model=model, stream=is_stream, text=message.text, voice=text_of(voice), format="pcm")
        return _with_state(self, request, http, SPEECH)

    def encode_response(self, request: SpeechRequest, answer: SpeechAnswer) -> tuple[str, bytes]:
        return "application/json", _written(self.chat, Message("assistant", (_samples(answer.audio),)), answer)

    def encoder(self, request: SpeechRequest) -> _Encoder[Sound, SpeechAnswer]:
        return _Encoder(self.chat.encoder(), _sound_deltas)

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        return self.chat.encode_error(error)

    def canonical_request(self, http: HttpRequest) -> dict[str, Any]:
        return self.chat.canonical_request(decode_json(http.body))

    def canonical_answer(self, content_type: str, body: bytes) -> Any:
        return self.chat.canonical_answer(decode_json(body))


@dataclass(frozen=True)
class GeminiTranscripts:
    """The dialect with the quirks of one kind of server.

    Attributes:
        parameters: the verdict on each portable parameter.
        chat: the format that carries it.
        media: what the server takes of sounds.
    """

    parameters: Verdicts = field(default_factory=lambda: TRANSCRIPT_PARAMETERS)
    chat: Gemini = field(default_factory=Gemini)
    media: MediaRules = field(default_factory=lambda: MediaRules(inlined=(Audio,)))

    name = TRANSCRIPTS

    def verdicts(self) -> Verdicts:
        """The verdict on every portable parameter."""
        return {**self.parameters, "extra": "(as given)", "headers": "(as given)"}

    def encode_request(self, request: TranscriptRequest) -> tuple[HttpRequest, tuple[Notice, ...]]:
        notices = _refusals(self.parameters, request)
        wishes = [_TRANSLATE if request.translate else _TRANSCRIBE]
        if request.translate:
            notices.append(_emulated("translate", "the prompt asks for English"))
        if request.language is not None:
            wishes.append(f"The language that is spoken is {request.language}.")
            notices.append(_emulated("language", "the prompt says which language is spoken"))
        if request.prompt is not None:
            wishes.append(f"This may help with names and style: {request.prompt}")
            notices.append(_emulated("prompt", "what may help stands in the prompt"))
        message = user(request.audio, " ".join(wishes))
        return _carried(self.chat, request, TRANSCRIPTS, (message,), {}, notices, temperature=request.temperature)

    def decode_answer(self, request: TranscriptRequest, content_type: str, body: bytes) -> TranscriptAnswer:
        return _transcript(response_of(CHAT, self.chat.decode_answer(body)))

    def decoder(
        self, request: TranscriptRequest, content_type: str
    ) -> _Decoder[Said, TranscriptAnswer] | WholeDecoder[Any, Said, TranscriptAnswer]:
        if not is_events(content_type):
            return WholeDecoder(self, request, content_type)
        texts: set[int] = set()

        def piece(delta: Delta) -> Said | None:
            if isinstance(delta, Open) and delta.kind == "text":
                texts.add(delta.part)
            return Said(delta.text) if isinstance(delta, Text) and delta.part in texts else None

        return _Decoder(self.chat.decoder(), piece, _transcript)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return self.chat.decode_error(status, headers, body)

    def decode_request(self, http: HttpRequest) -> TranscriptRequest:
        model, is_stream, message, wire = _uncarried(self.chat, http)
        audio = next((part for part in message.parts if isinstance(part, Audio)), None)
        if audio is None:
            raise refused("contents", "a recording is wanted")
        temperature = mapping_of(wire.get("generationConfig")).get("temperature")
        request = TranscriptRequest(
            model=model,
            stream=is_stream,
            audio=msgspec.structs.replace(audio, state=None),
            prompt=message.text or None,
            temperature=float(temperature) if isinstance(temperature, (int, float)) else None,
        )
        return _with_state(self, request, http, TRANSCRIPTS)

    def encode_response(self, request: TranscriptRequest, answer: TranscriptAnswer) -> tuple[str, bytes]:
        message = Message("assistant", (TextPart(text=answer.text),))
        return "application/json", _written(self.chat, message, answer)

    def encoder(self, request: TranscriptRequest) -> _Encoder[Said, TranscriptAnswer]:
        return _Encoder(self.chat.encoder(), _said_deltas)

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        return self.chat.encode_error(error)

    def canonical_request(self, http: HttpRequest) -> dict[str, Any]:
        return self.chat.canonical_request(decode_json(http.body))

    def canonical_answer(self, content_type: str, body: bytes) -> Any:
        return self.chat.canonical_answer(decode_json(body))


# Requests


def _refusals(verdicts: Verdicts, request: Asked) -> list[Notice]:
    """What there is no word for."""
    return [
        Notice("unsupported", name, f"{name} was not sent: {verdict}")
        for name, verdict in verdicts.items()
        if isinstance(verdict, Unsupported) and getattr(request, name) not in (None, False)
    ]


def _emulated(subject: str, message: str) -> Notice:
    return Notice("emulated", subject, message)


def _image_config(request: ImageRequest, verdicts: Verdicts) -> tuple[dict[str, Any], list[Notice]]:
    config, notices = _size(request, "imageSize")
    if request.format is not None and not isinstance(verdicts["format"], Unsupported):
        config["imageOutputOptions"] = {"mimeType": f"image/{request.format}"}
    return config, notices


def _imagen_parameters(request: ImageRequest) -> tuple[dict[str, Any], list[Notice]]:
    size, notices = _size(request, "sampleImageSize")
    kind = None if request.format is None else {"mimeType": f"image/{request.format}"}
    named = told((("sampleCount", request.n), ("seed", request.seed), ("outputOptions", kind)))
    return {**named, **size}, notices


def _size(request: ImageRequest, word: str) -> tuple[dict[str, Any], list[Notice]]:
    """A size as this API has it: the ratio of the sides, or how large."""
    size = request.size
    if size is None:
        return {}, []
    if _RATIO.fullmatch(size):
        return {"aspectRatio": size}, []
    if (pixels := _PIXELS.fullmatch(size)) is None:
        return {word: size}, []
    wide, high = int(pixels[1]), int(pixels[2])
    shared = gcd(wide, high) or 1
    ratio = f"{wide // shared}:{high // shared}"
    return {"aspectRatio": ratio}, [
        _emulated("size", f"{size} was sent as the ratio {ratio}: pixels are not chosen here")
    ]


def _carried(
    chat: Gemini,
    request: Asked,
    name: str,
    messages: tuple[Message, ...],
    config: Mapping[str, Any],
    notices: list[Notice],
    **options: Any,
) -> tuple[HttpRequest, tuple[Notice, ...]]:
    """The chat's request that asks for this."""
    extra = dict(request.extra)
    if config:
        extra["generationConfig"] = {**config, **mapping_of(extra.get("generationConfig"))}
    asked = Request(
        model=request.model, messages=messages, stream=request.stream, extra=extra, headers=request.headers, **options
    )
    http, more = chat.encode_request(asked)
    if state := own_state(request.state, name):
        http = HttpRequest(http.method, http.url, http.headers, encode_json(patched(decode_json(http.body), state)))
    return http, (*notices, *more)


def _uncarried(chat: Gemini, http: HttpRequest) -> tuple[str, bool, Message, dict[str, Any]]:
    """The model, whether it is to stream, the last message of a user, and the body."""
    model, is_stream = chat.decode_path(http.url)
    asked = chat.decode_request(http.body)
    message = next((each for each in reversed(asked.messages) if each.role == "user"), None)
    if message is None:
        raise refused("contents", "a message of a user is wanted")
    return model, is_stream, message, chat.canonical_request(request_of(http.body))


def _within(value: Any, name: str) -> Any:
    """A field of an object, in either of the two cases that this API reads."""
    snake = re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name)
    fields = mapping_of(value)
    return fields.get(name, fields.get(snake))


def _with_state(dialect: Any, request: AskedT, http: HttpRequest, name: str) -> AskedT:
    """The request with what it said beyond our words."""
    ours = dialect.canonical_request(dialect.encode_request(request)[0])
    patch = difference(dialect.canonical_request(http), ours)
    return msgspec.structs.replace(request, state=ProviderState(name, patch)) if patch else request


# Answers


def _check(response: Response[Any], what: str, came: Message | None) -> None:
    """Whether an answer is all of what was asked for; `came` has what there is of it, None if there is nothing.

    Raises:
        ContentFilterError: a filter held it back, or the rest of it.
        StreamProtocolError: there is nothing, or it was cut.
    """
    partial, reason = came or response.message, response.finish_reason
    said = f", and said: {response.text[:200]!r}" if response.text and came is None else ""
    if reason in ("content_filter", "refusal"):
        text = f"let no {what} through{said}" if came is None else f"cut the {what} off; partial has what came of it"
        raise ContentFilterError(f"the provider's filter {text}", partial=partial)
    if reason == "length":
        text = f"the {what} was cut at the model's limit of output{said}; partial has what came: ask for less at a time"
        raise StreamProtocolError(text, partial=partial)
    if came is None:
        raise StreamProtocolError(f"the model answered without a {what}{said}", partial=partial)
    if reason != "stop":
        text = f"the {what} does not end as a whole one does, and more may be missing; partial has what came: ask again"
        raise StreamProtocolError(text, partial=partial)


def _images(response: Response[Any]) -> ImageAnswer:
    """The pictures of an answer; those of its thinking are not meant."""
    images = tuple(part for part in response.message.parts if isinstance(part, Image) and not _is_thought(part))
    _check(response, "picture", response.message if images else None)
    return ImageAnswer(images=images, message=response.message, usage=response.usage, model=response.model or None)


def _is_thought(part: Image) -> bool:
    return mapping_of(own_state(part.state, CHAT).get("set")).get("thought") is True


def _spoken(request: SpeechRequest, response: Response[Any]) -> SpeechAnswer:
    sounds = [part for part in response.message.parts if isinstance(part, Audio) and part.data]
    audio = _joined(request, sounds) if sounds else None
    _check(response, "sound", None if audio is None else Message("assistant", (audio,)))
    assert audio is not None
    # The head of the answer, as the chat format keeps it.
    message = response.message
    return SpeechAnswer(
        audio=audio,
        usage=response.usage,
        model=response.model or None,
        state=ProviderState(SPEECH, {"id": message.id, "chat": message.state.value if message.state else {}}),
    )


def _joined(request: SpeechRequest, sounds: list[Audio]) -> Audio:
    """The pieces of a sound as one: of samples a WAV file is made, unless they were asked for."""
    data, kind = b"".join(part.data or b"" for part in sounds), sounds[0].media_type or "audio/L16"
    if request.format != "pcm" and re.match(r"audio/(?:l16|pcm)", kind, re.I):
        data, kind = wav(data, *told_rate(kind, _USUAL_RATE)), "audio/wav"
    return Audio(data=data, media_type=kind)


def _transcript(response: Response[Any]) -> TranscriptAnswer:
    message = response.message
    # Where nothing is said, there is nothing to write down.
    is_there = bool(message.text) or response.finish_reason == "stop"
    _check(response, "transcript", message if is_there else None)
    return TranscriptAnswer(
        text=message.text.strip(),
        usage=response.usage,
        model=response.model or None,
        state=ProviderState(TRANSCRIPTS, {"id": message.id, "chat": message.state.value if message.state else {}}),
    )


def _samples(audio: Audio) -> Audio:
    """A sound as this API sends it: bare samples, where it is a plain WAV."""
    if (found := samples_of(audio.data or b"")) is None:
        return msgspec.structs.replace(audio, media_type=audio.media_type or "audio/L16")
    samples, rate, channels = found
    more = f";channels={channels}" if channels != 1 else ""
    return Audio(data=samples, media_type=f"audio/L16;codec=pcm;rate={rate}{more}")


def _written(chat: Gemini, message: Message, answer: Answer) -> bytes:
    """An answer in the words of the chat format."""
    if answer.state is not None and is_object(answer.state.value) and message.state is None:
        kept = mapping_of(answer.state.value.get("chat"))
        message = msgspec.structs.replace(
            message, id=answer.state.value.get("id"), state=ProviderState(CHAT, kept) if kept else None
        )
    response: Response[None] = Response(
        message=message,
        parsed=None,
        messages=(message,),
        usage=answer.usage,
        timings=Timings(0.0),
        finish_reason="stop",
        model=answer.model or "",
    )
    return chat.encode_response(response)


class _Decoder(Generic[PieceT, AnswerT]):
    """Decodes a stream by the chat format's decoder."""

    def __init__(
        self,
        decoder: Decoder,
        piece: Callable[[Delta], PieceT | None],
        total: Callable[[Response[Any]], AnswerT],
    ) -> None:
        self._decoder = decoder
        self._piece = piece
        self._total = total
        self._deltas: list[Delta] = []

    @property
    def is_over(self) -> bool:
        return self._decoder.is_over

    def feed(self, data: bytes) -> list[PieceT]:
        deltas = self._decoder.feed(data)
        self._deltas += deltas
        return [piece for delta in deltas if (piece := self._piece(delta)) is not None]

    def close(self, *, is_cut: bool = False) -> AnswerT:
        # The chat format says itself whether an answer is whole.
        return self._total(response_of(CHAT, [*self._deltas, *self._decoder.close()]))


class _Encoder(Generic[PieceT, AnswerT]):
    """Writes a stream by the chat format's encoder; each piece is a part."""

    content_type = "text/event-stream"

    def __init__(self, encoder: GeminiEncoder, deltas: Callable[[int, PieceT], list[Delta]]) -> None:
        self._encoder = encoder
        self._deltas = deltas
        self._parts = 0

    def feed(self, piece: PieceT) -> bytes:
        deltas = self._deltas(self._parts, piece)
        self._parts += sum(isinstance(delta, Open) for delta in deltas)
        return b"".join(map(self._encoder.feed, deltas))

    def fail(self, error: SabirError) -> bytes:
        return self._encoder.fail(error)

    def close(self, answer: AnswerT) -> bytes:
        last: list[Delta] = [Count(answer.usage), Finish("stop")]
        return b"".join([*map(self._encoder.feed, last), self._encoder.close()])


def _drawn_deltas(part: int, piece: Drawn) -> list[Delta]:
    if not piece.is_final:
        return []
    kind = piece.image.media_type or "image/png"
    return [Open(part, "image", media_type=kind), Blob(part, piece.image.data or b""), Close(part)]


def _sound_deltas(part: int, piece: Sound) -> list[Delta]:
    kind = f"audio/L16;codec=pcm;rate={_USUAL_RATE}"
    return [Open(part, "audio", media_type=kind), Blob(part, piece.data), Close(part)]


def _said_deltas(part: int, piece: Said) -> list[Delta]:
    return [Open(part, "text"), Text(part, piece.text), Close(part)] if piece.text else []


def _predicted(body: bytes) -> ImageAnswer:
    """The pictures of Imagen; of those that were filtered there is a reason at best."""
    wire: dict[str, Any] = without_nulls(mapping_of(answer_of(body)))
    rows = [row for row in list_of(wire.get("predictions")) if is_object(row)]
    drawn = [row for row in rows if "bytesBase64Encoded" in row]
    if not drawn:
        reasons = [reason for row in rows if (reason := text_of(row.get("raiFilteredReason")))]
        if reasons or not rows:
            raise ContentFilterError(
                f"the provider's filter let no picture through: {'; '.join(reasons) or 'no reason'}"
            )
        raise StreamProtocolError("the answer has no images")
    images = tuple(
        Image(data=bytes_in(row["bytesBase64Encoded"], "an image"), media_type=text_of(row.get("mimeType")))
        for row in drawn
    )
    beyond: dict[str, Any] = {"wire": difference(wire, {"predictions": [_prediction_row(image) for image in images]})}
    state = ProviderState(IMAGES, beyond) if beyond["wire"] else None
    return ImageAnswer(images=images, state=state)


def _prediction_row(image: Image) -> dict[str, Any]:
    data = b64encode(image.data or b"").decode()
    return told((("mimeType", image.media_type), ("bytesBase64Encoded", data)))


def _prediction(answer: ImageAnswer) -> bytes:
    ours = {"predictions": [_prediction_row(image) for image in answer.images]}
    return encode_json(patched(ours, own_state(answer.state, IMAGES).get("wire", {})))
