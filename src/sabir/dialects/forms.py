"""What formats that send forms do alike: a form as an object of texts and files, and what of it is beyond our words.

Knows no format. A form has a name several times where JSON would have a list; in an object of texts each name has the
list of its values, as they were written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..messages import Audio, Image, ProviderState
from ..requests import HttpRequest
from ..strict_json import is_array, is_object
from .leftovers import difference, own_state, patched
from .multipart import Field, decode_form, encode_form

_SUFFIXES = {
    "audio/aac": "aac",
    "audio/aiff": "aiff",
    "audio/amr": "amr",
    "audio/flac": "flac",
    "audio/mp4": "m4a",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg",
    "audio/wav": "wav",
    "audio/webm": "webm",
    "image/gif": "gif",
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/webp": "webp",
}
_TYPES = {
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/mp3": "audio/mpeg",
    "audio/x-m4a": "audio/mp4",
    "audio/m4a": "audio/mp4",
    "audio/x-flac": "audio/flac",
    "image/jpg": "image/jpeg",
}

Texts = dict[str, list[str]]


def texts_of(fields: Mapping[str, Any]) -> Texts:
    """The values of an object as a form has them.

    A list is a name with `[]` that comes several times, an object's field is one with its own name in the brackets.
    """
    texts: Texts = {}
    for name, value in fields.items():
        if is_object(value):
            texts |= texts_of({f"{name}[{inner}]": each for inner, each in value.items()})
        elif is_array(value):
            texts[f"{name}[]"] = [_written(each) for each in value]
        elif value is not None:
            texts[name] = [_written(value)]
    return texts


def form_request(
    path: str, texts: Texts, files: Mapping[str, tuple[Image | Audio, ...]], headers: Mapping[str, str], state: Any
) -> HttpRequest:
    """The request that sends this form, with the patch of a form that was once read."""
    texts = patched(texts, state.get("texts", {}))
    fields = [Field(name, value.encode("utf-8", "replace")) for name, values in texts.items() for value in values]
    names: Mapping[str, list[list[str]]] = state.get("files", {})
    for name, media in files.items():
        for number, part in enumerate(media):
            told = names.get(name, ())
            file, kind = told[number] if number < len(told) else (_file_name(name, part), part.media_type)
            fields.append(Field(name, part.data or b"", file, kind or None))
    content_type, body = encode_form(fields)
    return HttpRequest("POST", path, (("content-type", content_type), *headers.items()), body)


def read_form(content_type: str, body: bytes) -> tuple[Texts, dict[str, list[Field]]]:
    """The texts and the files of a form.

    Raises:
        BadRequestError: it is none.
    """
    texts: Texts = {}
    files: dict[str, list[Field]] = {}
    for field in decode_form(content_type, body):
        if field.file is None:
            texts.setdefault(field.name, []).append(field.text)
        else:
            files.setdefault(field.name, []).append(field)
    return texts, files


def form_state(dialect: str, wire: Texts, ours: Texts, files: Mapping[str, list[Field]]) -> ProviderState:
    """What a form says beyond our words, and what its files are called."""
    names = {name: [[each.file or "", each.media_type or ""] for each in several] for name, several in files.items()}
    patch = difference(wire, ours)
    return ProviderState(dialect, {"files": names, **({"texts": patch} if patch else {})})


def is_form(state: ProviderState | None, dialect: str) -> bool:
    """Whether what was read was a form."""
    return "files" in own_state(state, dialect)


def canonical_form(content_type: str, body: bytes) -> dict[str, Any]:
    """A form as an object; the order of names is free, that of the values of one name is not."""
    texts, files = read_form(content_type, body)
    return {
        "texts": texts,
        "files": {
            name: [{"name": each.file, "type": each.media_type or "", "bytes": each.data.hex()} for each in several]
            for name, several in files.items()
        },
    }


def media_type_of(field: Field) -> str | None:
    """The media type of a file, by what it is said to be, else by its name's ending."""
    kind = (field.media_type or "").partition(";")[0].strip().lower()
    if kind and kind != "application/octet-stream":
        return _TYPES.get(kind, kind)
    ending = (field.file or "").rpartition(".")[2].lower()
    return next((each for each, suffix in _SUFFIXES.items() if suffix == ending), None)


def _file_name(name: str, part: Image | Audio) -> str:
    # Servers go by the name.
    return f"{name.rstrip('[]')}.{_SUFFIXES.get(part.media_type or '', 'bin')}"


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else f"{value:.15g}" if isinstance(value, float) else str(value)
