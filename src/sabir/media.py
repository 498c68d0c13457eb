"""Pictures from wherever they are to a part of a message; the type is read off the bytes. Fetches nothing."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from urllib.parse import unquote_to_bytes

from .errors import ConfigurationError
from .messages import Image

ImageSource = str | Path | bytes | Image

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


def image(source: ImageSource) -> Image:
    """Make an image part of a path, bytes, an http(s) URL (which the provider fetches) or a data URL.

    Raises:
        ConfigurationError: it cannot be read, or is no PNG, JPEG, GIF or WebP.
    """
    match source:
        case Image():
            return source
        case bytes():
            return _from_bytes(source, "these bytes")
        case str() if source.startswith(("http://", "https://")):
            return Image(url=source)
        case str() if source.startswith("data:"):
            return _from_data_url(source)
        case str() | Path():
            return _from_file(Path(source))
        case _:
            raise ConfigurationError(f"an image is a path, bytes, a URL or an Image, not {type(source).__name__}")


def image_type(data: bytes) -> str | None:
    """The media type by the first bytes, None if it is no image that models take."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for signature, kind in _SIGNATURES if data.startswith(signature)), None)


def _from_file(path: Path) -> Image:
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"the image {str(path)!r} cannot be read: {reason}") from None
    return _from_bytes(data, f"the file {str(path)!r}")


def _from_bytes(data: bytes, what: str) -> Image:
    kind = image_type(data)
    if kind is None:
        raise ConfigurationError(f"{what} is no image that models take: it must be PNG, JPEG, GIF or WebP")
    return Image(data=data, media_type=kind)


def _from_data_url(url: str) -> Image:
    header, comma, body = url.partition(",")
    try:
        if not comma:
            raise ValueError("it has no comma")
        data = base64.b64decode(body, validate=True) if header.endswith(";base64") else unquote_to_bytes(body)
    except (ValueError, binascii.Error) as error:
        raise ConfigurationError(f"a data URL of an image cannot be read: {error}") from None
    return _from_bytes(data, "the data URL")
