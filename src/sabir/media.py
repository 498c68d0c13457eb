"""Images, sounds and files, from wherever they are to a part of a message. Fetches nothing, decodes no picture.

What it is, is read off the first bytes and never off a name; a name only says which kind of text a text is. What takes
it and what does not is for the formats to say (`dialects.media_rules`).
"""

from __future__ import annotations

import base64
import codecs
import io
import os
import re
import stat
import struct
import zlib
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any, NamedTuple, Protocol, cast
from urllib.parse import unquote, unquote_to_bytes

import msgspec

from .dialects.media_rules import film_type
from .errors import ConfigurationError
from .messages import Audio, File, Image
from .strict_json import decode_json

# The most that a provider we know takes in a request: https://ai.google.dev/gemini-api/docs/file-input-methods
LARGEST = 100 << 20

# How much is looked at to tell a type.
_HEAD = 1 << 14
_PIECE = 1 << 20
# A text shorter than this is no medium in base64: the smallest GIF has 35 bytes.
_SHORTEST_BASE64 = 40


class Readable(Protocol):
    """A file that is open for reading bytes."""

    def read(self, size: int, /) -> bytes: ...


class PillowImage(Protocol):
    """An image of Pillow."""

    @property
    def mode(self) -> str: ...

    @property
    def size(self) -> tuple[int, int]: ...

    def convert(self, mode: str, /) -> Any: ...


class Array(Protocol):
    """An array of numpy: bytes, of the shape (height, width) or (height, width, channels)."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def tobytes(self) -> bytes: ...


class Pixels(msgspec.Struct, frozen=True):
    """A raw picture: the rows from top to bottom, a pixel as 1 byte (grey), 3 (RGB) or 4 (RGBA)."""

    width: int
    height: int
    data: bytes

    def __repr__(self) -> str:
        return f"Pixels({self.width} × {self.height}, <{len(self.data)} bytes>)"


Source = str | os.PathLike[str] | bytes | bytearray | memoryview | Readable
ImageSource = Source | Image | Pixels | PillowImage | Array
AudioSource = Source | Audio
FileSource = Source | File


def image(source: ImageSource) -> Image:
    """Make an image part of a path, bytes, base64, a data URL, an open file, pixels, or an image of Pillow or numpy.

    An http(s) URL stays one: the provider fetches it, and where it does not, the client does (see `Settings.fetch`).
    A text names a file if there is one of that name, so a text of a stranger's is none to pass here. `~` is no one's
    home, and only regular files are read.

    Raises:
        ConfigurationError: it cannot be read, is no image, or is larger than any provider takes.
    """
    if isinstance(source, Image):
        return source
    if (pixels := _pixels_of(source)) is not None:
        return Image(data=pixels, media_type="image/png")
    found = _found(source, "an image", _is_image)
    if isinstance(found, str):
        return Image(url=found)
    if found.media_type == "image/svg+xml":
        raise ConfigurationError(f"{found.what} is SVG, which no model sees; draw it as PNG first")
    if not _is_image(found.media_type):
        raise _wrong(found, "no image that models take", "PNG, JPEG, GIF or WebP")
    return Image(data=found.data, media_type=found.media_type)


def audio(source: AudioSource) -> Audio:
    """Make an audio part of a path, bytes, base64, a data URL or an open file; a URL stays one. See `image`.

    Raises:
        ConfigurationError: it cannot be read, is no sound, or is larger than any provider takes.
    """
    if isinstance(source, Audio):
        return source
    found = _found(source, "audio", _is_audio)
    if isinstance(found, str):
        return Audio(url=found)
    if not _is_audio(found.media_type):
        raise _wrong(found, "no audio that models take", "WAV, MP3, M4A, AAC, Ogg, FLAC or WebM")
    # Some containers hold sound or film, and the caller has said which.
    return Audio(data=found.data, media_type=_AS_AUDIO.get(found.media_type, found.media_type))


def video(source: FileSource) -> File:
    """Make a file part of a film, for the providers that see some; a URL stays one. See `image`.

    Raises:
        ConfigurationError: it cannot be read, is no film, or is larger than any provider takes.
    """
    if isinstance(source, File):
        return source
    found = _found(source, "a video", _is_video)
    if isinstance(found, str):
        # Nothing has been read that could tell its type, and without one it would be taken for a document.
        return File(url=found, media_type=film_type(found))
    if not _is_video(found.media_type):
        raise _wrong(found, "no video that models take", "MP4, WebM or QuickTime")
    return File(data=found.data, media_type=found.media_type, name=found.name)


def file(source: FileSource, *, name: str | None = None) -> File:
    """Make a file part of a document (PDF, Word, CSV, text, …) or a film; a URL stays one. See `image`.

    `name` is what the model is told it is called, else the name of the file that it was read from.

    Raises:
        ConfigurationError: it cannot be read, is an image or a sound, or is larger than any provider takes.
    """
    if isinstance(source, File):
        return source if name is None else msgspec.structs.replace(source, name=name)
    found = _found(source, "a file", _is_known_file, name)
    if isinstance(found, str):
        return File(url=found, name=name)
    place = found.media_type.partition("/")[0]
    if found.media_type != "image/svg+xml" and place in ("image", "audio"):
        option = "images" if place == "image" else "audio"
        raise ConfigurationError(f"{found.what} is {found.media_type}, no document: pass it by {option}=[…]")
    return File(data=found.data, media_type=found.media_type, name=found.name)


def with_data(part: Image | Audio | File, data: bytes) -> Image | Audio | File:
    """The same part with what its address led to.

    Raises:
        ConfigurationError: it is nothing of the kind.
    """
    made: Image | Audio | File
    match part:
        case Image():
            made = image(data)
        case Audio():
            made = audio(data)
        case File():
            made = file(data, name=part.name or _last_of(part.url or "") or None)
            return msgspec.structs.replace(part, url=None, data=data, media_type=made.media_type, name=made.name)
    return msgspec.structs.replace(part, url=None, data=data, media_type=made.media_type)


def _last_of(url: str) -> str:
    """The last name in an address."""
    return unquote(re.split(r"[?#]", url)[0].rpartition("/")[2])


# What it is


def media_type_of(data: bytes, name: str | None = None) -> str:
    """The media type by the first bytes; `name` tells kinds of text, and of Office's older files, apart.

    What is none of the types known here is "text/plain" or "application/octet-stream".
    """
    head = bytes(data[:_HEAD])
    suffix = PurePath(name or "").suffix.lower()
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    told = _boxed(head) or _packed(head, suffix) or _sound(head) or _bitmap(head)
    return told or _written(head, len(data), suffix) or "application/octet-stream"


_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"ID3\x02", "audio/mpeg"),
    (b"ID3\x03", "audio/mpeg"),
    (b"ID3\x04", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
    (b"#!AMR", "audio/amr"),
    (b"%PDF-", "application/pdf"),
    (b"{\\rtf", "application/rtf"),
    (b"\0\0\x01\xba", "video/mpeg"),
    (b"\0\0\x01\xb3", "video/mpeg"),
    (b"FLV\x01", "video/x-flv"),
    (bytes.fromhex("3026b2758e66cf11"), "video/x-ms-wmv"),
    (b"\x1f\x8b", "application/gzip"),
)
# What follows the length and b"RIFF" or b"FORM".
_CHUNKS = {
    (b"RIFF", b"WEBP"): "image/webp",
    (b"RIFF", b"WAVE"): "audio/wav",
    (b"RF64", b"WAVE"): "audio/wav",
    (b"RIFF", b"AVI "): "video/x-msvideo",
    (b"FORM", b"AIFF"): "audio/aiff",
    (b"FORM", b"AIFC"): "audio/aiff",
}
# The brands of files made of boxes (ISO 14496-12); any other is of a film.
_BRANDS = {
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"heim": "image/heic",
    b"heis": "image/heic",
    b"hevc": "image/heic",
    b"mif1": "image/heif",
    b"msf1": "image/heif",
    b"avif": "image/avif",
    b"avis": "image/avif",
    b"M4A ": "audio/mp4",
    b"M4B ": "audio/mp4",
    b"qt  ": "video/quicktime",
}
_ZIPPED = (
    (b"word/", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    (b"xl/", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    (b"ppt/", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
    (b"mimetypeapplication/epub+zip", "application/epub+zip"),
    (b"mimetypeapplication/vnd.oasis.opendocument.text", "application/vnd.oasis.opendocument.text"),
)
_ZIP_SUFFIXES = {".docx": _ZIPPED[0][1], ".xlsx": _ZIPPED[1][1], ".pptx": _ZIPPED[2][1]}
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")
_OLE_SUFFIXES = {
    ".doc": "application/msword",
    ".xls": "application/vnd.ms-excel",
    ".ppt": "application/vnd.ms-powerpoint",
}
_TEXT_SUFFIXES = {
    ".css": "text/css",
    ".csv": "text/csv",
    ".htm": "text/html",
    ".html": "text/html",
    ".json": "application/json",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".svg": "image/svg+xml",
    ".tsv": "text/tab-separated-values",
    ".txt": "text/plain",
    ".xml": "application/xml",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}
_AS_AUDIO = {"video/mp4": "audio/mp4", "video/webm": "audio/webm", "video/quicktime": "audio/mp4"}


def _is_image(media_type: str) -> bool:
    return media_type.startswith("image/") and media_type != "image/svg+xml"


def _is_audio(media_type: str) -> bool:
    return media_type.startswith("audio/") or media_type in _AS_AUDIO


def _is_video(media_type: str) -> bool:
    return media_type.startswith("video/")


def _is_known_file(media_type: str) -> bool:
    """Whether it has been told by more than that it is, or is not, a text."""
    return not media_type.startswith("text/") and media_type not in ("application/octet-stream", "application/json")


def _boxed(head: bytes) -> str | None:
    """Files whose type stands behind a length: of chunks (RIFF), boxes (MP4, HEIF) and elements (WebM)."""
    if (kind := _CHUNKS.get((head[:4], head[8:12]))) is not None:
        return kind
    if head[4:8] == b"ftyp" and head[0] == 0:
        size = min(max(int.from_bytes(head[:4], "big"), 12), 256)
        brands = (head[8:12], *(head[at : at + 4] for at in range(16, size, 4)))
        # The first brand is the file's own, the others are what it can be read as too.
        own = _BRANDS.get(brands[0])
        if own == "image/heif":
            return next((_BRANDS[brand] for brand in brands[1:] if _BRANDS.get(brand) in _STILLS), own)
        return own or "video/mp4"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        if b"webm" not in head[:64]:
            return "video/x-matroska"
        is_film = any(codec in head for codec in (b"V_VP8", b"V_VP9", b"V_AV1"))
        return "audio/webm" if not is_film and (b"A_OPUS" in head or b"A_VORBIS" in head) else "video/webm"
    if head.startswith(b"OggS\0"):
        return "video/ogg" if b"\x80theora" in head[:512] else "audio/ogg"
    return None


_STILLS = ("image/heic", "image/avif")


def _packed(head: bytes, suffix: str) -> str | None:
    """Archives and what is made of them; the order inside is free, so the name may tell what the beginning does not."""
    if head.startswith(b"PK\x03\x04"):
        found = next((kind for mark, kind in _ZIPPED if mark in head), None)
        is_office = b"[Content_Types].xml" in head or b"_rels/" in head
        return found or (_ZIP_SUFFIXES.get(suffix) if is_office else None) or "application/zip"
    if head.startswith(_OLE):
        return _OLE_SUFFIXES.get(suffix, "application/x-ole-storage")
    return None


def _sound(head: bytes) -> str | None:
    """Streams of frames, which begin with 11 or 12 bits set: MPEG's layers II and III, and AAC."""
    if len(head) < 4 or head[0] != 0xFF:
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    if head[1] & 0xF6 == 0xF0:
        return "audio/aac" if head[2] >> 2 & 15 < 13 else None
    has_rates = head[2] >> 4 not in (0, 15) and head[2] >> 2 & 3 != 3
    return "audio/mpeg" if head[1] >= 0xE0 and version != 1 and layer in (1, 2) and has_rates else None


def _bitmap(head: bytes) -> str | None:
    # Two letters alone may begin any text; the length of the next header has few values.
    length = int.from_bytes(head[14:18], "little")
    return "image/bmp" if head.startswith(b"BM") and length in (12, 40, 52, 56, 64, 108, 124) else None


def _written(head: bytes, size: int, suffix: str) -> str | None:
    """The kind of a text, None if it is none."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _TEXT_SUFFIXES.get(suffix, "text/plain")
    try:
        # The end of the head may stand in the middle of a character.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head, final=size <= len(head))
    except UnicodeDecodeError:
        return None
    if _CONTROL.search(text):
        return None
    start = text[:512].lstrip().lower()
    if start.startswith(("<!doctype html", "<html")):
        return "text/html"
    if start.startswith("<svg") or (start.startswith(("<?xml", "<!--")) and "<svg" in text[:2048].lower()):
        return "image/svg+xml"
    if suffix in _TEXT_SUFFIXES:
        return _TEXT_SUFFIXES[suffix]
    if start.startswith("<?xml"):
        return "application/xml"
    if start.startswith(("{", "[")) and size <= len(head) and _is_json(head):
        return "application/json"
    return "text/plain"


# All but those that texts have: spaces of all kinds, backspace, escape.
_CONTROL = re.compile(r"[\x00-\x07\x0e-\x1a\x1c-\x1f]")


def _is_json(text: bytes) -> bool:
    try:
        decode_json(text)
    except (ValueError, RecursionError):
        return False
    return True


# Where it is


class _Found(NamedTuple):
    """Bytes, their type, the file's name, and in words where they were."""

    data: bytes
    media_type: str
    name: str | None
    what: str


def _found(source: Any, wanted: str, is_wanted: Callable[[str], bool], name: str | None = None) -> _Found | str:
    """What a source holds; the address itself, if it is one that a provider may fetch."""
    match source:
        case bytes() | bytearray() | memoryview():
            return _told(bytes(cast("bytes", source)), name, "this data")
        case str() if source.startswith("data:"):
            return _of_data_url(source, wanted, name)
        case str() if source.lower().startswith(_SCHEMES):
            return source
        case str() if (data := _of_base64(source, is_wanted)) is not None:
            return _told(data, name, "this base64")
        case str() | os.PathLike():
            return _of_path(os.fspath(cast("str", source)), wanted, name)
        case _ if callable(getattr(source, "read", None)):
            return _of_file(source, wanted, name)
        case _:
            raise ConfigurationError(
                f"{wanted} is a path, bytes, a URL, base64, an open file or a part, not {type(source).__name__}"
            )


# Those of AWS and Google Cloud are fetched by their own models.
_SCHEMES = ("http://", "https://", "s3://", "gs://")


def _told(data: bytes, name: str | None, what: str, hint: str = "") -> _Found:
    if not data:
        raise ConfigurationError(f"{what}: there is nothing in it")
    if len(data) > LARGEST:
        raise _too_large(what)
    return _Found(data, media_type_of(data, name or hint), name, what)


def _of_path(path: str, wanted: str, name: str | None) -> _Found:
    if not isinstance(path, str):
        raise ConfigurationError(f"{wanted} is named by a text, not by {type(path).__name__}: use os.fsdecode(path)")
    what = f"the file {path[:200]!r}"
    try:
        with _opened(path) as opened:
            data = _read(opened, wanted)
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
        reason = getattr(error, "strerror", None) or error
        hint = " (~ is not expanded: pass Path(…).expanduser())" if path.startswith("~") else ""
        raise ConfigurationError(f"{wanted} {path[:200]!r} cannot be read: {reason}{hint}") from None
    return _told(data, name or PurePath(path).name, what)


def _opened(path: str) -> io.FileIO:
    """A regular file, opened: to open a pipe may wait, and to open a device may do something."""
    _check_regular(Path(path).stat())
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
    opened = io.FileIO(os.open(path, flags | getattr(os, "O_CLOEXEC", 0)), "rb")
    try:
        # It may have been changed for another in between.
        _check_regular(os.fstat(opened.fileno()))
    except BaseException:
        opened.close()
        raise
    return opened


def _check_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError("Is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is no regular file")
    if status.st_size > LARGEST:
        raise ValueError(f"it is larger than {LARGEST:,} bytes, and no provider takes that much in a request")


def _of_file(source: Readable, wanted: str, name: str | None) -> _Found:
    try:
        data = _read(source, wanted)
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"the open file cannot be read: {error}") from None
    own = getattr(source, "name", None)
    own = PurePath(own).name if isinstance(own, str) else None
    return _told(data, name or own, f"the open file {own!r}" if own else "the open file")


def _read(source: Readable, wanted: str) -> bytes:
    """All there is, or enough to tell that it is too much."""
    pieces: list[bytes] = []
    left = LARGEST + 1
    while left > 0 and (piece := source.read(min(left, _PIECE))):
        if not isinstance(piece, bytes):
            raise ConfigurationError(f"{wanted} is read as bytes: open the file with mode 'rb'")
        pieces.append(piece)
        left -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _of_data_url(url: str, wanted: str, name: str | None) -> _Found:
    header, comma, body = url.removeprefix("data:").partition(",")
    media_type, *parameters = (word.strip().lower() for word in header.split(";"))
    try:
        if not comma:
            raise ValueError("it has no comma")
        if len(body) > 3 * LARGEST:
            raise _too_large("the data URL")
        data = unquote_to_bytes(body)
        if "base64" in parameters[-1:]:
            data = base64.b64decode(data, validate=True)
    except ValueError as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"a data URL of {wanted} cannot be read: {error}") from None
    hint = next((f"data{suffix}" for suffix, kind in _TEXT_SUFFIXES.items() if kind == media_type), "")
    return _told(data, name, "the data URL", hint)


def _of_base64(text: str, is_wanted: Callable[[str], bool]) -> bytes | None:
    """The bytes of a text that is base64 of what is wanted, and no file's name."""
    if len(text) < _SHORTEST_BASE64 or len(text) > 2 * LARGEST or not _BASE64.issuperset(text[:_SHORTEST_BASE64]):
        return None
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        return None
    return data if is_wanted(media_type_of(data)) and not os.path.lexists(text) else None


_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\r\n")


def _too_large(what: str) -> ConfigurationError:
    return ConfigurationError(f"{what}: larger than {LARGEST:,} bytes, and no provider takes that much in a request")


def _wrong(found: _Found, what: str, those: str) -> ConfigurationError:
    return ConfigurationError(f"{found.what} is {what} ({found.media_type}): it must be {those}")


# Pixels

_COLOURS = {1: 0, 3: 2, 4: 6}
_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}


def _pixels_of(source: Any) -> bytes | None:
    """Something made of pixels as PNG; None if it is not. Pillow and numpy are known by the names of their classes."""
    if isinstance(source, Pixels):
        return _png(source.width, source.height, bytes(source.data))
    kinds = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(source).__mro__}
    if "PIL.Image.Image" in kinds:
        return _of_pillow(source)
    return _of_numpy(source) if "numpy.ndarray" in kinds else None


def _of_pillow(source: Any) -> bytes:
    written = io.BytesIO()
    try:
        plain = source if source.mode in _PNG_MODES else source.convert("RGBA" if "A" in source.mode else "RGB")
        plain.save(written, "PNG")
    except (OSError, SyntaxError, ValueError) as error:  # Pillow calls a broken PNG a SyntaxError
        raise ConfigurationError(f"the image of Pillow cannot be written as PNG: {error}") from None
    return written.getvalue()


def _of_numpy(source: Any) -> bytes:
    shape = tuple(source.shape)
    if str(source.dtype) != "uint8":
        raise ConfigurationError(
            f"an array of pixels has the type uint8, not {source.dtype}: scale it to 0…255, then .astype('uint8')"
        )
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in _COLOURS):
        raise ConfigurationError(
            f"an array of pixels has the shape (height, width) or (height, width, 1, 3 or 4), not {shape}"
        )
    return _png(shape[1], shape[0], source.tobytes())


def _png(width: int, height: int, data: bytes) -> bytes:
    if not (isinstance(width, int) and isinstance(height, int) and 0 < width < 1 << 31 and 0 < height < 1 << 31):
        raise ConfigurationError(f"pixels have a width and a height above 0, not {width!r} and {height!r}")
    depth, rest = divmod(len(data), width * height)
    if rest or depth not in _COLOURS:
        raise ConfigurationError(
            f"{width} × {height} pixels are {width * height:,} bytes (grey), three times (RGB) or four times (RGBA) as "
            f"many, not {len(data):,}"
        )
    row = width * depth
    rows = b"".join(b"\0" + data[start : start + row] for start in range(0, len(data), row))
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOURS[depth], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
