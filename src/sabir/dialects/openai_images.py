"""OpenAI's images, `POST /images/generations` and `/images/edits`, as most servers of pictures speak them.

Knows no provider, only quirks. Sources: https://platform.openai.com/docs/api-reference/images,
.../api-reference/images-streaming, the types of OpenAI's Python SDK (3.54, 2026-11) and the recorded traffic of OpenAI
and xAI. A picture comes as base64 or as an address. Variations are an operation of models that are gone.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote_to_bytes

import msgspec

from ..errors import NotFoundError, ProviderError, SabirError, StreamProtocolError, UnsupportedError
from ..messages import Image, ProviderState
from ..requests import HttpRequest, Notice
from ..strict_json import decode_json, encode_json, is_array, is_object
from ..usage import NOTHING, Usage
from . import Unsupported, Verdicts, list_of, mapping_of, text_of
from .bodies import answer_of, converted, lowered, post, refused, request_of, shown
from .failures import failure_object, provider_error
from .forms import canonical_form, form_request, form_state, is_form, media_type_of, read_form, texts_of
from .leftovers import difference, own_state, patched, without_nulls
from .media_formats import Drawn, ImageAnswer, ImageRequest, WholeDecoder, bytes_in, cut, header_of, is_events, told
from .media_rules import MediaRules
from .multipart import Field
from .openai_media import failure_event, read_event, usage_object, usage_of, usage_patch, written_event
from .sse import EventStream

NAME = "openai_images"

# The verdict on each portable parameter: the wire's word for it, or why there is none.
IMAGE_PARAMETERS: Verdicts = {
    "n": "n",
    "size": "size",
    "quality": "quality",
    "background": "background",
    "format": "output_format",
    "seed": Unsupported("this API has no seed: every picture is another"),
    "previews": "partial_images",
    "user": "user",
}
_PATH = re.compile(r"(?:.*/)?images/(generations|edits)")
_EVENT = re.compile(r"image_(generation|edit)\.(partial_image|completed)")
# What says something of a stream and not of its picture.
_IN_EVENT = frozenset({"type", "b64_json", "partial_image_index", "usage"})


@dataclass(frozen=True)
class OpenAIImages:
    """The dialect with the quirks of one kind of server.

    Attributes:
        parameters: the verdict on each portable parameter.
        edits: how pictures to be edited are sent: in JSON, which may have addresses, or in a form; None if not at all.
        unasked: what every request has where the caller does not say otherwise.
        streams: whether its answers can be streamed; else a stream shows the whole one.
        media: what the server takes of pictures; those of forms are sent as bytes.
    """

    parameters: Verdicts = field(default_factory=lambda: IMAGE_PARAMETERS)
    edits: Literal["json", "form"] | None = "form"
    unasked: Mapping[str, Any] = field(default_factory=dict[str, Any])
    streams: bool = True
    media: MediaRules = field(default_factory=lambda: MediaRules(inlined=(Image,)))

    name = NAME

    def verdicts(self) -> Verdicts:
        """The verdict on every portable parameter."""
        edits = (
            Unsupported("this server only draws by words") if self.edits is None else f"(/images/edits, {self.edits})"
        )
        return {**self.parameters, "images": edits, "mask": edits, "extra": "(as given)", "headers": "(as given)"}

    def encode_request(self, request: ImageRequest) -> tuple[HttpRequest, tuple[Notice, ...]]:
        """The request.

        Raises:
            UnsupportedError: there are pictures to edit, and this server edits none.
        """
        body, notices = self._fields(request)
        if not request.images:
            if request.mask is not None:
                raise UnsupportedError("a mask says where a picture is to be changed: give the picture with images=[…]")
            body = patched(body, own_state(request.state, NAME))
            return post("/images/generations", {**body, **request.extra}, request.headers), notices
        if self.edits is None:
            raise UnsupportedError("this provider only draws by words; choose one that edits, such as OpenAI or Gemini")
        state = own_state(request.state, NAME)
        is_own = request.state is not None and request.state.dialect == NAME
        if is_form(request.state, NAME) or (self.edits == "form" and not is_own):
            names = "image" if len(request.images) == 1 else "image[]"
            files = {state.get("images", names): request.images}
            files |= {"mask": (request.mask,)} if request.mask is not None else {}
            if any(image.data is None for several in files.values() for image in several):
                raise UnsupportedError("pictures to edit are sent as bytes here: pass their bytes, not an address")
            texts = texts_of({**body, **request.extra})
            return form_request("/images/edits", texts, files, request.headers, state), notices
        body = patched({**body, **_references(request)}, state)
        return post("/images/edits", {**body, **request.extra}, request.headers), notices

    def decode_answer(self, request: ImageRequest, content_type: str, body: bytes) -> ImageAnswer:
        wire = answer_of(body)
        if not is_object(wire) or not is_array(wire.get("data")) or not all(map(is_object, wire["data"])):
            raise StreamProtocolError("the answer has no images", body=shown(body))
        if not wire["data"]:
            raise StreamProtocolError("the answer has not one image in it", body=shown(body))
        images = tuple(_image(row, _media_type(wire, row, request)) for row in wire["data"])
        usage = usage_of(wire.get("usage"))
        answer = ImageAnswer(images=images, usage=usage, model=text_of(wire.get("model")))
        state = _leftovers(wire, answer)
        return msgspec.structs.replace(answer, state=ProviderState(NAME, state)) if state else answer

    def decoder(self, request: ImageRequest, content_type: str) -> _Decoder | WholeDecoder[Any, Drawn, ImageAnswer]:
        return _Decoder(request) if is_events(content_type) else WholeDecoder(self, request, content_type)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return provider_error(status, headers, body)

    def decode_request(self, http: HttpRequest) -> ImageRequest:
        operation = _operation(http.url)
        if operation == "edits" and "multipart/" in header_of(http, "content-type").lower():
            return self._decode_form(http)
        wire: dict[str, Any] = without_nulls(request_of(http.body))
        known = self._known(wire)
        if operation == "edits":
            known["images"] = [_referred(each, "images") for each in list_of(wire.get("images"))]
            if not known["images"]:
                raise refused("images", "at least one image is wanted")
            known["mask"] = _referred(wire["mask"], "mask") if "mask" in wire else None
        request = self._converted(known)
        fields = self._fields(request)[0]
        pictures = _references(request) if operation == "edits" else {}
        patch = difference(wire, {**fields, **pictures})
        is_other = operation == "edits" and self.edits != "json"
        return msgspec.structs.replace(request, state=ProviderState(NAME, patch)) if patch or is_other else request

    def encode_response(self, request: ImageRequest, answer: ImageAnswer) -> tuple[str, bytes]:
        state = own_state(answer.state, NAME)
        rows = [patched(_row(image), state.get(f"data.{number}", {})) for number, image in enumerate(answer.images)]
        body = {**patched(_answer(answer), state.get("answer", {})), "data": rows}
        if usage := patched(usage_object(answer.usage), state.get("usage", {})):
            body["usage"] = usage
        return "application/json", encode_json(body)

    def encoder(self, request: ImageRequest) -> _Encoder:
        return _Encoder(request)

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        return failure_object(error)

    def canonical_request(self, http: HttpRequest) -> dict[str, Any]:
        """Null is the same as absent; of a form, the order of names is free."""
        if "multipart/" in (kind := header_of(http, "content-type")).lower():
            return canonical_form(kind, http.body)
        wire: dict[str, Any] = without_nulls(decode_json(http.body))
        return wire

    def canonical_answer(self, content_type: str, body: bytes) -> Any:
        """Null is the same as absent."""
        return without_nulls(decode_json(body))

    def _fields(self, request: ImageRequest) -> tuple[dict[str, Any], tuple[Notice, ...]]:
        asked = {name: getattr(request, name) for name in self.parameters}
        is_stream = request.stream and self.streams
        fields, notices = lowered(self.parameters, asked)
        if not is_stream and (word := self.parameters["previews"]) in fields:
            del fields[word]
            why = "only a stream shows unfinished pictures, as stream_image() does where the provider streams"
            notices.append(Notice("unsupported", "previews", f"previews was not sent: {why}"))
        stream = {"stream": True} if is_stream else {}
        return {
            **told([("model", request.model or None)]),
            "prompt": request.prompt,
            **self.unasked,
            **fields,
            **stream,
        }, tuple(notices)

    def _known(self, wire: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that we have words for."""
        known = {name: wire.get(word) for name, word in self.parameters.items() if not isinstance(word, Unsupported)}
        return {
            "model": wire.get("model", ""),
            "stream": wire.get("stream", False),
            "prompt": wire.get("prompt"),
            **told(known.items()),
        }

    def _converted(self, known: dict[str, Any]) -> ImageRequest:
        words = {name: word for name, word in self.parameters.items() if not isinstance(word, Unsupported)}
        pictures = {name: known.pop(name, None) for name in ("images", "mask")}
        request = converted(known, ImageRequest, words)
        if not request.prompt:
            raise refused("prompt", "a text is wanted")
        return msgspec.structs.replace(request, images=tuple(pictures["images"] or ()), mask=pictures["mask"])

    def _decode_form(self, http: HttpRequest) -> ImageRequest:
        texts, files = read_form(header_of(http, "content-type"), http.body)
        wire: dict[str, Any] = {name: values[0] for name, values in texts.items()}
        known = self._known(wire)
        for name in ("n", "previews", "seed"):
            if isinstance(value := known.get(name), str) and re.fullmatch(r"\d{1,9}", value):
                known[name] = int(value)
        known["stream"] = str(known["stream"]).lower() == "true"
        named = "image[]" if "image[]" in files else "image"
        known["images"] = [_uploaded(each) for each in files.get(named, ())]
        if not known["images"]:
            raise refused("image", "a file is wanted")
        known["mask"] = next((_uploaded(each) for each in files.get("mask", ())), None)
        request = self._converted(known)
        state = form_state(NAME, texts, texts_of(self._fields(request)[0]), files)
        return msgspec.structs.replace(request, state=ProviderState(NAME, {**state.value, "images": named}))


def _operation(url: str) -> str:
    found = _PATH.fullmatch(url.partition("?")[0])
    if found is None:
        raise NotFoundError(f"nothing is served at {url}; ask /images/generations or /images/edits", status=404)
    return found[1]


def _references(request: ImageRequest) -> dict[str, Any]:
    images = [_reference(image) for image in request.images]
    return {"images": images, **({"mask": _reference(request.mask)} if request.mask is not None else {})}


def _reference(image: Image) -> dict[str, Any]:
    if image.url is not None:
        return {"image_url": image.url}
    data = b64encode(image.data or b"").decode()
    return {"image_url": f"data:{image.media_type or 'image/png'};base64,{data}"}


def _referred(value: Any, where: str) -> Image:
    url = text_of(mapping_of(value).get("image_url"))
    if url is None:
        raise refused(where, "an object with an image_url is wanted")
    if not url.startswith("data:"):
        return Image(url=url)
    head, _, data = url.removeprefix("data:").partition(",")
    media_type = head.partition(";")[0] or None
    if not head.endswith(";base64"):
        return Image(data=unquote_to_bytes(data), media_type=media_type)
    try:
        return Image(data=bytes_in(data, "an image"), media_type=media_type)
    except StreamProtocolError as error:
        raise refused(where, str(error)) from None


def _uploaded(file: Field) -> Image:
    return Image(data=file.data, media_type=media_type_of(file))


def _media_type(wire: Mapping[str, Any], row: Mapping[str, Any], request: ImageRequest | None) -> str | None:
    told_type = text_of(row.get("mime_type"))
    format_ = text_of(wire.get("output_format")) or (request.format if request is not None else None)
    return told_type or (None if format_ is None else f"image/{_TYPES.get(format_, format_)}")


_TYPES = {"jpg": "jpeg", "svg": "svg+xml"}


def _image(row: Mapping[str, Any], media_type: str | None) -> Image:
    if row.get("b64_json") is not None:
        return Image(data=bytes_in(row["b64_json"], "an image"), media_type=media_type)
    if (url := text_of(row.get("url"))) is not None:
        return Image(url=url, media_type=media_type)
    raise StreamProtocolError("an image of the answer has neither bytes nor an address")


def _row(image: Image) -> dict[str, Any]:
    return {"url": image.url} if image.url is not None else {"b64_json": b64encode(image.data or b"").decode()}


def _answer(answer: ImageAnswer) -> dict[str, Any]:
    """What we understand of an answer beside its pictures and its usage."""
    types = {image.media_type for image in answer.images}
    format_ = types.pop() if len(types) == 1 else None
    format_ = format_.removeprefix("image/").removesuffix("+xml") if format_ is not None else None
    return told([("model", answer.model), ("output_format", format_)])


def _leftovers(wire: Mapping[str, Any], answer: ImageAnswer) -> dict[str, Any]:
    """What an answer said beyond our words, as patches of it, of its usage and of its rows, by their numbers."""
    beside = {name: value for name, value in wire.items() if name not in ("data", "usage")}
    found = {"answer": difference(beside, _answer(answer))}
    found["usage"] = usage_patch(wire.get("usage"), answer.usage)
    rows = zip(wire["data"], answer.images, strict=True)
    for number, (row, image) in enumerate(rows):
        found[f"data.{number}"] = difference(without_nulls(row), _row(image))
    return {place: patch for place, patch in found.items() if patch}


class _Decoder:
    """Decodes a stream of pictures. It is complete when as many as were asked for are, or HTTP says it has ended."""

    def __init__(self, request: ImageRequest) -> None:
        self._events = EventStream()
        self._request = request
        self._done: list[Image] = []
        self._usage: Usage = NOTHING
        self._state: dict[str, Any] = {}

    @property
    def is_over(self) -> bool:
        return len(self._done) >= (self._request.n or 1)

    def feed(self, data: bytes) -> list[Drawn]:
        return [drawn for _, payload in self._events.feed(data) for drawn in self._read(payload)]

    def _read(self, payload: bytes) -> list[Drawn]:
        event = read_event(payload)
        if self.is_over or (kind := _EVENT.fullmatch(str(event.get("type")))) is None:
            return []
        image, number = _image(event, _media_type(event, {}, self._request)), len(self._done)
        beside = {name: value for name, value in event.items() if name not in _IN_EVENT}
        state = difference(beside, _event_fields(image)) or None
        if kind[2] == "partial_image":
            return [Drawn(image, number, state=state)]
        self._done.append(image)
        usage = usage_of(event.get("usage"))
        self._usage = self._usage + usage
        patch = usage_patch(event.get("usage"), usage)
        self._state |= {**({"usage": patch} if patch else {}), **({f"data.{number}": state} if state else {})}
        return [Drawn(image, number, True, state)]

    def close(self, *, is_cut: bool = False) -> ImageAnswer:
        if not self._done or (is_cut and not self.is_over):
            raise cut()
        state = ProviderState(NAME, self._state) if self._state else None
        return ImageAnswer(images=tuple(self._done), usage=self._usage, state=state)


def _event_fields(image: Image) -> dict[str, Any]:
    return told([("output_format", image.media_type and image.media_type.removeprefix("image/").removesuffix("+xml"))])


class _Encoder:
    """Writes a stream of pictures. What is last is kept until it is known what all of them took."""

    content_type = "text/event-stream"

    def __init__(self, request: ImageRequest) -> None:
        self._kind = "image_edit" if request.images else "image_generation"
        self._previews = 0
        self._kept: list[dict[str, Any]] = []

    def feed(self, piece: Drawn) -> bytes:
        event = patched({**_row(piece.image), **_event_fields(piece.image)}, piece.state or {})
        before, self._kept = b"".join(map(written_event, self._kept)), list[dict[str, Any]]()
        if piece.is_final:
            self._kept, self._previews = [{"type": f"{self._kind}.completed", **event}], 0
            return before
        event = {"type": f"{self._kind}.partial_image", **event, "partial_image_index": self._previews}
        self._previews += 1
        return before + written_event(event)

    def fail(self, error: SabirError) -> bytes:
        return failure_event(error)

    def close(self, answer: ImageAnswer) -> bytes:
        usage = patched(usage_object(answer.usage), own_state(answer.state, NAME).get("usage", {}))
        return b"".join(written_event({**event, **({"usage": usage} if usage else {})}) for event in self._kept)
