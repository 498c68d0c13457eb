"""Files of recorded exchanges, one a line as JSON, and what all recordings have in common; knows no HTTP and no model.

Secrets are taken out before a line is written. A line is read into a closed set of types, and one that does not fit is
an error that names it.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar

import msgspec

from .. import errors
from ..clouds import LEAST_SECRET
from ..errors import ClosedError, ConfigurationError, SabirError, StorageError
from ..requests import Secret
from ..strict_json import decode_json, encode_json, is_array, is_object
from .changes import first_change

FORMAT_VERSION = 1

# The headers of a request whose values are written down: the others may prove who asks, or name him.
_HARMLESS = frozenset(
    ("accept", "accept-encoding", "anthropic-beta", "anthropic-version", "content-type", "openai-beta", "user-agent")
)
# Fields that hold a credential wherever they stand, in a request or in the answer of a server of tokens.
_CREDENTIAL = re.compile(
    r"(?:x-)?api[_-]?key|x-goog-api-key|authorization(?:_token)?|(?:access|refresh|id)_token|client_secret",
    re.IGNORECASE,
)
_CREDENTIAL_IN_TEXT = re.compile(rb'("(?:%b)"\s*:\s*)"(?:[^"\\]|\\.)*"' % _CREDENTIAL.pattern.encode(), re.IGNORECASE)
_ERRORS = {
    kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SabirError)
}


class Failure(msgspec.Struct, frozen=True):
    """An error as it is written down: the name of its class, and its fields that are plain values."""

    error: str
    message: str
    fields: dict[str, str | int | float | bool]


# "left" says that whoever asked did not wait for all of it.
End = Literal["whole", "left"] | Failure


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One exchange; `number` says when it began, among those of its file."""

    format_version: int
    number: int
    request: dict[str, Any]
    end: End


class _Version(msgspec.Struct, frozen=True):
    format_version: int


E = TypeVar("E", bound=Entry)


class Recorder:
    """Writes entries to a file that is not there yet; for any number of threads and tasks at once.

    Each entry is one write to the end of the file, so that entries never mix, and what was written before stays.
    `with` it, as one does with a replay, if you like.
    """

    def __init__(self, path: str | os.PathLike[str], *, secrets: Iterable[str] = ()) -> None:
        """Record into a file; `secrets` are texts that are not to stand in it.

        Raises:
            ConfigurationError: it is there already.
        """
        self.path = Path(path)
        self.secrets = tuple(map(Secret, secrets))
        self._numbers = itertools.count(1)
        if self.path.exists():
            raise ConfigurationError(f"{self.path} is there already: delete it to record anew, or replay it")

    def begin(self) -> int:
        """The number of an exchange that begins now."""
        return next(self._numbers)

    def add(self, entry: Entry, secrets: Iterable[str] = ()) -> None:
        """Write an exchange that has ended, without the secrets.

        Raises:
            StorageError: it could not be written.
        """
        try:
            line = encode_json(cleaned(as_json(entry), (*self.secrets, *secrets))) + b"\n"
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                written = file.write(line)
        except (OSError, TypeError, ValueError) as error:
            raise StorageError(f"an exchange could not be recorded in {self.path}: {error}") from None
        if written != len(line):
            raise StorageError(f"the end of an exchange is missing in {self.path}: the disk is full; delete the file")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Player(Generic[E]):
    """Finds entries again, each once, those of the same request in the order in which they were begun.

    A request that is not there is a `StorageError`. `with` it, and at the end all must have been asked for.
    """

    def __init__(self, path: str | os.PathLike[str], kind: type[E], secrets: Iterable[str]) -> None:
        self.path = Path(path)
        self.secrets = tuple(map(Secret, secrets))
        self._unknown: list[str] = []
        # To pop the one item is to take the entry; two threads cannot both.
        self._entries = [(entry, [True]) for entry in _entries(self.path, kind)]

    def take(self, request: dict[str, Any]) -> E:
        """The next unused entry of a request.

        Raises:
            StorageError: there is none; says how the nearest differs.
        """
        for entry, unused in self._entries:
            if unused and first_change(entry.request, request) is None:
                try:
                    unused.pop()
                except IndexError:
                    continue
                return entry
        self._unknown.append(f"{self.path} has no answer to {_shown(request)[:200]}: {self._reason(request)}")
        raise StorageError(self._unknown[-1])

    def assert_done(self) -> None:
        """Fail if a recorded exchange was never asked for, or one that is not there was, whoever survived that.

        Raises:
            AssertionError: says which.
        """
        left = [_shown(entry.request)[:200] for entry, unused in self._entries if unused]
        faults = [*self._unknown, *(f"{self.path} was never asked for {request}" for request in left)]
        if faults:
            raise AssertionError("\n".join(faults))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.assert_done()

    def _reason(self, request: dict[str, Any]) -> str:
        if any(first_change(entry.request, request) is None for entry, _ in self._entries):
            return "what it has for this request is used up"
        left = [entry.request for entry, unused in self._entries if unused]
        if not left:
            return "all that it has is used up"
        asked = _shown(request)
        nearest = max(left, key=lambda known: SequenceMatcher(None, _shown(known), asked).quick_ratio())
        return f"in the nearest {first_change(nearest, request)}; delete the file to record anew"


def end_of(error: BaseException | None) -> End:
    """How an exchange that ended so is written down."""
    if error is None:
        return "whole"
    if not isinstance(error, SabirError) or isinstance(error, ClosedError):
        return "left"
    name = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _ERRORS)
    fields = {name: value for name, value in vars(error).items() if isinstance(value, (str, int, float))}
    del fields["message"]
    return Failure(name, error.message, fields)


def error_of(end: End) -> SabirError:
    """The error that a replay ends with; what was left by whoever asked can be replayed only up to there."""
    if not isinstance(end, Failure):
        return StorageError("the recording ends here, since whoever asked did not wait for more; record it anew")
    error = _ERRORS.get(end.error, SabirError)(end.message)
    error.__dict__.update(end.fields)
    return error


def shown_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers of a request as they are written down: of most only that they were there."""
    return {name.lower(): value if name.lower() in _HARMLESS else "…" for name, value in headers}


def as_json(value: msgspec.Struct) -> Any:
    """A value in the plain types of JSON.

    Raises:
        TypeError, ValueError: it holds something that is none.
    """
    return decode_json(encode_json(msgspec.to_builtins(value)))


def cleaned(value: Any, secrets: Iterable[str]) -> Any:
    """A JSON value without these secrets, and without what stands in fields that hold a credential."""
    if isinstance(value, str):
        return _removed(value.encode("utf-8", "surrogatepass"), secrets).decode("utf-8", "surrogatepass")
    if is_array(value):
        return [cleaned(item, secrets) for item in value]
    if is_object(value):
        return {
            cleaned(name, secrets): "***"
            if isinstance(item, str) and _CREDENTIAL.fullmatch(name)
            else cleaned(item, secrets)
            for name, item in value.items()
        }
    return value


def without_secrets(data: bytes, secrets: Iterable[str]) -> bytes:
    """The same of bytes, which may be JSON or have some in them."""
    return _CREDENTIAL_IN_TEXT.sub(rb'\1"***"', _removed(data, secrets))


def _removed(data: bytes, secrets: Iterable[str]) -> bytes:
    # A stand-in for a key, like "none", is no secret, and may be part of any word.
    for secret in secrets:
        if len(secret) >= LEAST_SECRET:
            for spelling in {secret.encode(), encode_json(str(secret))[1:-1]}:
                data = data.replace(spelling, b"***")
    return data


def _entries(path: Path, kind: type[E]) -> list[E]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from None
    found: list[E] = []
    for number, line in enumerate(lines, 1):
        where = f"line {number} of {path}"
        try:
            value = decode_json(line)
            version = msgspec.convert(value, _Version).format_version
            if version != FORMAT_VERSION:
                raise StorageError(
                    f"{where} has format_version {version}; this version of sabir reads {FORMAT_VERSION}"
                )
            found.append(msgspec.convert(value, kind))
        except ValueError as error:
            raise StorageError(f"{where} is no recorded exchange ({error}); delete the file") from None
    return sorted(found, key=lambda entry: entry.number)


def _shown(request: dict[str, Any]) -> str:
    return encode_json(request).decode()[:20_000]
