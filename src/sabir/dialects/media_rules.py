"""What the servers of a format take of images, sounds and files, and what they want them called; data, no behaviour.

A dialect may have such rules as its field `media`; one without leaves it to its server to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..messages import Audio, File, Image

Kind = type[Image] | type[Audio] | type[File]

MEGABYTE = 1 << 20

# The media types of texts, or the beginnings of those.
TEXTUAL = ("text/", "application/json", "application/xml", "application/yaml", "image/svg+xml")

_SUFFIXES = {
    "application/pdf": "pdf",
    "application/json": "json",
    "application/xml": "xml",
    "application/yaml": "yaml",
    "application/rtf": "rtf",
    "application/epub+zip": "epub",
    "application/zip": "zip",
    "application/msword": "doc",
    "application/vnd.ms-excel": "xls",
    "application/vnd.ms-powerpoint": "ppt",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
    "application/vnd.oasis.opendocument.text": "odt",
    "image/svg+xml": "svg",
    "text/csv": "csv",
    "text/html": "html",
    "text/markdown": "md",
    "text/plain": "txt",
    "text/tab-separated-values": "tsv",
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/heic": "heic",
    "image/heif": "heif",
    "audio/wav": "wav",
    "audio/mpeg": "mp3",
    "audio/aac": "aac",
    "audio/aiff": "aiff",
    "audio/flac": "flac",
    "audio/mp4": "m4a",
    "audio/ogg": "ogg",
    "video/mp4": "mp4",
    "video/mpeg": "mpeg",
    "video/quicktime": "mov",
    "video/webm": "webm",
    "video/x-msvideo": "avi",
    "video/x-flv": "flv",
    "video/x-matroska": "mkv",
    "video/x-ms-wmv": "wmv",
    "video/3gpp": "3gp",
}
_TYPES = {
    **{suffix: media_type for media_type, suffix in _SUFFIXES.items()},
    "jpeg": "image/jpeg",
    "oga": "audio/ogg",
    "opus": "audio/ogg",
    "aif": "audio/aiff",
    "mpg": "video/mpeg",
    "htm": "text/html",
    "markdown": "text/markdown",
    "yml": "application/yaml",
}


@dataclass(frozen=True)
class MediaRules:
    """What servers take; what is not said is not known, and sent.

    Attributes:
        inlined: the kinds of parts of which they fetch none: what an address leads to is sent in its place.
        types: the media types that they read, or the beginnings of those, by kind.
        most: the bytes that one may have, by kind.
    """

    inlined: tuple[Kind, ...] = ()
    types: Mapping[Kind, tuple[str, ...]] = field(default_factory=dict[Kind, tuple[str, ...]])
    most: Mapping[Kind, int] = field(default_factory=dict[Kind, int])


def type_of_address(url: str) -> str | None:
    """The media type of what an address leads to, as far as its last name tells it."""
    name = re.split(r"[?#]", url)[0].rpartition("/")[2]
    return _TYPES.get(name.rpartition(".")[2].lower()) if "." in name else None


def film_type(url: str) -> str:
    """The same of a film, which has some type."""
    told = type_of_address(url) or ""
    return told if told.startswith("video/") else "video/mp4"


def is_film(part: Image | Audio | File) -> bool:
    return isinstance(part, File) and (part.media_type or "").startswith("video/")


def file_name(part: File) -> str:
    """The file's name, or one that tells its type, since servers go by the name."""
    return part.name or f"document.{_SUFFIXES.get(part.media_type or 'application/pdf', 'bin')}"
