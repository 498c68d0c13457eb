"""Pictures: made of words, or of other pictures. Knows no wire format, and decodes no picture.

What a picture is, is read off its first bytes, where no better word came with it. One that comes as an address is
loaded here, since such addresses are gone within the hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypedDict, final

import msgspec

from .attachments import MOST_LOADED
from .chunks import Phase, StreamChunk
from .dialects.media_formats import Drawn, ImageAnswer, ImageRequest
from .downloads import shown
from .errors import ClosedError, ConfigurationError, DeadlineExceeded, SabirError
from .media import ImageSource, image, media_type_of
from .media_calls import Made, MediaAsker, MediaCall, note_format, saved, typed_options
from .messages import Image, Message, Part, Text
from .options import checked_options, merged
from .requests import Notice

_KNOWN = {kind: f"image/{kind}" for kind in ("png", "jpeg", "webp", "gif")} | {"jpg": "image/jpeg"}

Artist: TypeAlias = MediaAsker[ImageRequest, Drawn, ImageAnswer]


class ImageOptions(TypedDict, total=False):
    """What one call of `image` may set; an option that is absent or None is not sent.

    `model` is a model string or another id of the same provider. `n` is how many pictures are wanted, `size` is
    "1024x1024", "16:9" or "2K", `quality`, `background` and `format` ("png", "jpeg", "webp") are the provider's words.
    `previews` is how many unfinished pictures a stream is to show. `extra` and `headers` go to the wire as they are.
    """

    model: str | None
    n: int | None
    size: str | None
    quality: str | None
    background: str | None
    format: str | None
    seed: int | None
    previews: int | None
    user: str | None
    extra: Mapping[str, Any] | None
    headers: Mapping[str, str] | None


class ImageResponse(Made, frozen=True, kw_only=True, repr_omit_defaults=True):
    """Pictures that were made: parts that any message may have, so that they can be shown to a model again.

    `images[0].data` are the bytes of the first, `images[0].media_type` says what they are; one whose address could not
    be loaded has a `url` instead. `answer` is the whole message, where the model that drew also speaks (Gemini): a
    conversation about its pictures goes on from it.
    """

    images: tuple[Image, ...]
    answer: Message | None = None

    @property
    def text(self) -> str:
        """What the model said beside its pictures."""
        return "" if self.answer is None else self.answer.text

    @property
    def message(self) -> Message:
        """The answer as a message, to go on with in a conversation."""
        return self.answer or Message("assistant", self.images)

    def save(self, path: str | Path) -> tuple[Path, ...]:
        """Write the pictures to files: the first to `path`, others beside it, as in cat.png, cat-2.png.

        Raises:
            ConfigurationError: a file cannot be written, or a picture has only an address.
        """
        first = Path(path)
        places = [first, *(first.with_stem(f"{first.stem}-{number}") for number in range(2, len(self.images) + 1))]
        return tuple(saved(place, each.data, "picture") for place, each in zip(places, self.images, strict=True))


@final
class ImageCall(MediaCall[ImageRequest, Drawn, ImageAnswer, ImageResponse]):
    """One call of `image`."""

    _step = 0
    _shown: frozenset[int] = frozenset()
    _drawn: tuple[Image, ...] = ()

    def asked(self) -> Message:
        return Message("user", (*self.request.images, Text(text=self.request.prompt)))

    async def fitted(self) -> ImageRequest:
        request, images = self.request, list[Image]()
        for each in request.images:
            images.append(await self.asker.fitted(each, self.exchange))
        mask = None if request.mask is None else await self.asker.fitted(request.mask, self.exchange)
        return msgspec.structs.replace(request, images=tuple(images), mask=mask)

    def seen(self, piece: Drawn) -> list[StreamChunk]:
        if piece.is_final:
            self._drawn = (*self._drawn, piece.image)
            # One that has only an address is seen when it has been loaded, and the last one when the answer is whole.
            is_ready = piece.image.data is not None and len(self._drawn) < (self.request.n or 1)
            return self._final(piece.number, piece.image) if is_ready else []
        self._step += 1
        return [self._chunk(self._step, max(self._steps, self._step), piece.image, None)]

    def last_seen(self, answer: ImageAnswer) -> list[StreamChunk]:
        unseen = [(number, each) for number, each in enumerate(answer.images) if number not in self._shown]
        return [chunk for number, each in unseen for chunk in self._final(number, each)]

    def parts(self) -> tuple[Part, ...]:
        return self._drawn

    async def completed(self, answer: ImageAnswer) -> ImageAnswer:
        images = [_named(await self._loaded(each)) for each in answer.images]
        for each in images:
            if each.data is not None:
                note_format(self.exchange, self.request.format, _KNOWN, each.data)
        wanted = self.request.n
        if wanted is not None and len(images) < wanted and not any(it.subject == "n" for it in self.exchange.notices):
            text = f"{wanted} pictures were asked for, and {len(images)} came; a filter may have held back the others"
            self.exchange.notices.append(Notice("limit", "n", text))
        return msgspec.structs.replace(answer, images=tuple(images))

    def made(self, answer: ImageAnswer, common: Mapping[str, Any]) -> ImageResponse:
        return ImageResponse(images=answer.images, answer=answer.message, **common)

    @property
    def _steps(self) -> int:
        """The steps of one picture: its previews, and itself."""
        return (self.request.previews or 0) + 1

    def _final(self, number: int, picture: Image) -> list[StreamChunk]:
        last = max(self._steps, self._step + 1)
        self._step, self._shown = 0, self._shown | {number}
        return [self._chunk(last, last, None, picture.data if picture.data is not None else picture.url)]

    def _chunk(self, step: int, steps: int, preview: Image | None, result: Any) -> StreamChunk:
        content = {
            "step": step,
            "total_steps": steps,
            "image": preview if preview is None else _named(preview),
            "final": result is not None,
            "result": result,
        }
        return StreamChunk(Phase.IMAGE_GENERATING, content)

    async def _loaded(self, picture: Image) -> Image:
        """The picture with its bytes. What was paid for is not lost where they cannot be loaded."""
        url = picture.url
        if url is None or not url.lower().startswith(("http://", "https://")):
            return picture
        try:
            data: bytes = await self.asker.runtime.call(self.asker.load, url, self.exchange.line, MOST_LOADED)
        except (ClosedError, DeadlineExceeded):
            raise
        except SabirError as error:
            text = f"a picture could not be loaded, and has only its address: {error}"
            self.exchange.notices.append(Notice("dropped", "images", text))
            return picture
        text = f"a picture came as an address, and was loaded here: {shown(url)}"
        self.exchange.notices.append(Notice("emulated", "images", text))
        return msgspec.structs.replace(picture, url=None, data=data)


def image_request(
    prompt: str,
    images: Iterable[ImageSource] | None,
    mask: ImageSource | None,
    own: Mapping[str, Any],
    options: Mapping[str, Any],
) -> tuple[str | None, dict[str, Any]]:
    """The model that a call names, and the fields of its request.

    Raises:
        ConfigurationError: the prompt is none, or an option is unknown or wrong.
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise ConfigurationError("image takes a prompt, which is a text that says what is to be seen")
    if isinstance(images, (str, bytes)) or not isinstance(images, Iterable | None):
        raise ConfigurationError(f"images is a list, as in images=[…], not {type(images).__name__}")
    given = typed_options(checked_options(options, ImageOptions), ImageOptions)
    model = given.pop("model", None)
    sources = tuple(image(each) for each in images or ())
    fields = {"prompt": prompt, "images": sources, "mask": None if mask is None else image(mask)}
    return model, {**merged(own, given), **fields}


def _named(picture: Image) -> Image:
    """The picture with what its bytes say that it is."""
    if picture.data is None:
        return picture
    kind = media_type_of(picture.data)
    return msgspec.structs.replace(picture, media_type=kind) if kind.startswith("image/") else picture
