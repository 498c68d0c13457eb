"""Forms with files in them, `multipart/form-data`, both ways: fields to bytes and back. Knows no format and no field.

Sources: RFC 7578, and https://html.spec.whatwg.org/multipage/form-control-infrastructure.html#multipart-form-data for
how the names of fields and files are written. A name may come from anybody: it is quoted going out, and read as data.
The boundary is made of what it has to stand between, so that the same form is the same bytes, without chance.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256

import msgspec

from ..errors import BadRequestError

# A form of ours has ten fields; beyond this a client is broken or hostile.
MAX_FIELDS = 1000

_PARAMETER = re.compile(rb';\s*([\w*-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))')
_QUOTED = {"\n": "%0A", "\r": "%0D", '"': "%22"}


class Field(msgspec.Struct, frozen=True):
    """A field of a form; one that has a `file` name, be it an empty one, is a file."""

    name: str
    data: bytes
    file: str | None = None
    media_type: str | None = None

    @property
    def text(self) -> str:
        """The value of a field that is no file.

        Raises:
            BadRequestError: it is no text in UTF-8.
        """
        try:
            return self.data.decode()
        except UnicodeDecodeError:
            raise _refused(f"the field {self.name!r} is no text in UTF-8") from None


def encode_form(fields: Iterable[Field]) -> tuple[str, bytes]:
    """The content type and the body of a form."""
    pieces = [(_head(field), field.data) for field in fields]
    boundary = _boundary(pieces)
    line = b"--" + boundary
    written = [part for head, data in pieces for part in (line, b"\r\n", head, b"\r\n\r\n", data, b"\r\n")]
    return f"multipart/form-data; boundary={boundary.decode()}", b"".join([*written, line, b"--\r\n"])


def decode_form(content_type: str, body: bytes) -> list[Field]:
    """The fields of a form, in its order.

    Raises:
        BadRequestError: it is none; says why.
    """
    boundary = _parameters(content_type.encode("utf-8", "replace")).get("boundary")
    if not content_type.lower().lstrip().startswith("multipart/form-data") or not boundary:
        raise _refused(f"a form is wanted, as multipart/form-data with a boundary, not {content_type[:80]!r}")
    # The first line has no line break before it, and all others have.
    first, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary.encode())
    if not parts or not parts[-1].startswith(b"--"):
        raise _refused("the form does not end as its boundary says")
    if len(parts) > MAX_FIELDS + 1:
        raise _refused(f"the form has more than {MAX_FIELDS} fields")
    if first.strip(b"\r\n"):
        raise _refused("there is something before the form's first field")
    return [_field(part) for part in parts[:-1]]


def _head(field: Field) -> bytes:
    lines = [f'Content-Disposition: form-data; name="{_quoted(field.name)}"']
    if field.file is not None:
        lines[0] += f'; filename="{_quoted(field.file)}"'
        lines.append(f"Content-Type: {_plain(field.media_type or 'application/octet-stream')}")
    return "\r\n".join(lines).encode("utf-8", "replace")


def _quoted(name: str) -> str:
    return "".join(_QUOTED.get(letter, letter) for letter in name)


def _plain(media_type: str) -> str:
    # A line break here would begin a header of a stranger's.
    return "".join(letter for letter in media_type if letter.isprintable())


def _boundary(pieces: list[tuple[bytes, bytes]]) -> bytes:
    digest = sha256()
    for head, data in pieces:
        digest.update(b"%d %d " % (len(head), len(data)) + head)
        digest.update(data)
    while True:
        boundary = b"sabir-" + digest.hexdigest()[:32].encode()
        if not any(boundary in data or boundary in head for head, data in pieces):
            return boundary
        digest.update(b"again")


def _field(part: bytes) -> Field:
    head, end, data = part.partition(b"\r\n\r\n")
    if not end or not head.startswith(b"\r\n"):
        raise _refused("a field of the form has no header")
    headers = dict(_header(line) for line in head.removeprefix(b"\r\n").split(b"\r\n"))
    told = _parameters(headers.get("content-disposition", b""))
    if (name := told.get("name")) is None:
        raise _refused("a field of the form has no name")
    file, kind = told.get("filename"), headers.get("content-type")
    if file is None:
        return Field(name, data)
    return Field(name, data, file, None if kind is None else kind.decode("utf-8", "replace"))


def _header(line: bytes) -> tuple[str, bytes]:
    name, _, value = line.partition(b":")
    return name.strip().lower().decode("latin-1"), value.strip()


def _parameters(header: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, quoted, bare in _PARAMETER.findall(header):
        value = (quoted or bare).decode("utf-8", "replace")
        for letter, code in _QUOTED.items():
            value = value.replace(code, letter)
        found.setdefault(name.decode().lower(), value)
    return found


def _refused(message: str) -> BadRequestError:
    return BadRequestError(message, status=400, code="invalid_request_error")
