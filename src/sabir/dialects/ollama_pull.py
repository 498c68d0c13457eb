"""Ollama's pulls (`/api/pull`), both halves: a server is told to fetch a model. Knows no provider and no connection.

Sources: https://docs.ollama.com/api/pull, the types of Ollama's Python SDK (0.6.3), and Ollama's server/routes.go,
server/images.go and server/internal/registry/server.go. A stream is one JSON object a line, and ends with the status
"success" or with an error, which comes without an HTTP status of its own since the stream has begun. What is said of a
layer has its digest; Go leaves out counts that are 0. That there is no such model is only in the words of an error, and
so is the status with which the registry has answered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import msgspec

from ..errors import NotFoundError, ProviderError, SabirError, StreamInterrupted
from ..requests import HttpRequest, Notice
from ..strict_json import decode_json, encode_json
from . import event_object, mapping_of, text_of
from .bodies import post, refused, request_of
from .failures import as_kind, error_from_value
from .leftovers import without_nulls
from .ndjson import LineStream
from .ollama import Ollama

NAME = "ollama_pull"
SUCCESS = "success"

_NO_SUCH_MODEL = re.compile(r"file does not exist|model .*not found", re.I | re.S)
_OF_THE_REGISTRY = re.compile(r"pull model manifest: ([45][0-9][0-9]): ")
_CHAT = Ollama()


class PullRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which model is to be fetched. `extra` is what else a request says (`insecure`), `headers` go as they are."""

    model: str
    stream: bool = True
    extra: dict[str, Any] = {}
    headers: dict[str, str] = {}


class PullProgress(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a pull is.

    `status` is in the server's words: "pulling manifest", "pulling 6a0746a1ec1a", ..., and "success" at the end. Where
    it is of a layer of the model, `digest` names that, `total` is its size in bytes, and `completed` how many of them
    are there; else these are None. `extra` is what else was said.
    """

    status: str
    digest: str | None = None
    completed: int | None = None
    total: int | None = None
    extra: dict[str, Any] = {}

    @property
    def fraction(self) -> float | None:
        """How much of the layer is there, from 0 to 1; None where the status is of no layer."""
        return None if self.completed is None or not self.total else min(1.0, self.completed / self.total)


@dataclass(frozen=True)
class OllamaPull:
    """The dialect. No server is known to speak it otherwise."""

    name = NAME

    def encode_request(self, request: PullRequest) -> tuple[HttpRequest, tuple[Notice, ...]]:
        body = {"model": request.model, "stream": request.stream, **request.extra}
        return post("/api/pull", body, request.headers), ()

    def decoder(self) -> PullDecoder:
        return PullDecoder()

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        try:
            value = decode_json(body)
        except ValueError:
            value = None
        return _failure(status, headers, value, body.decode("utf-8", "replace").strip())

    def decode_request(self, body: bytes) -> PullRequest:
        """A client's request, strictly.

        Raises:
            BadRequestError: it names no model, or `stream` is neither true nor false.
        """
        wire = self.canonical_request(request_of(body))
        if (model := text_of(wire.pop("model", None))) is None:
            raise refused("model", "the name of a model is wanted")
        if not isinstance(stream := wire.pop("stream"), bool):
            raise refused("stream", "true or false is wanted")
        return PullRequest(model=model, stream=stream, extra=wire)

    def encode_progress(self, progress: PullProgress) -> bytes:
        """A line of a stream. That of the end is also the whole answer, where no stream is wanted."""
        return encode_json(_object_of(progress)) + b"\n"

    def encode_failure(self, error: SabirError) -> bytes:
        """An error that comes when the stream has begun, as its last line."""
        return self.encode_error(error)[1] + b"\n"

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        return _CHAT.encode_error(error)

    def canonical_request(self, body: dict[str, Any]) -> dict[str, Any]:
        """Null is the same as absent; no `stream` is true; without a `model`, its old name `name` is it."""
        wire = {"stream": True, **without_nulls(body)}
        named = wire.pop("name", None)
        return wire if wire.get("model") or named is None else {**wire, "model": named}

    def canonical_progress(self, line: dict[str, Any]) -> dict[str, Any]:
        """Null is the same as absent, and so are counts of 0 and empty texts of what we understand."""
        return {name: it for name, it in _said(line).items() if it or type(it) is not _KINDS.get(name)}


# What we understand of a line, if it is of this type.
_KINDS: dict[str, type] = {"status": str, "digest": str, "total": int, "completed": int}


@final
class PullDecoder:
    """Decodes the stream of one pull. What comes after its end is no part of it."""

    def __init__(self) -> None:
        self._lines = LineStream()
        self._is_done = False
        self._failure: SabirError | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to come: it has succeeded, or `close` has an error to raise."""
        return self._is_done or self._failure is not None

    def feed(self, data: bytes) -> list[PullProgress]:
        """What these bytes say.

        Raises:
            SabirError: an error of the server, or bytes that are no such stream; never before what preceded it is out.
        """
        told: list[PullProgress] = []
        if self.is_over:
            return told
        try:
            for line in self._lines.feed(data):
                told.append(self._read(line))
                if self._is_done:
                    break
        except SabirError as error:
            self._failure = error
            if not told:
                raise
        return told

    def close(self) -> list[PullProgress]:
        """What was still said, once the bytes have ended.

        Raises:
            StreamInterrupted: that the pull has succeeded was not said.
        """
        if self._failure is not None:
            raise self._failure
        if self._is_done:
            return []
        # A line without its end was cut, unless it is the stream's last.
        try:
            last = mapping_of(decode_json(self._lines.rest))
        except ValueError:
            last = {}
        if last.get("error") or last.get("status") == SUCCESS:
            return [self._read(self._lines.rest)]
        raise StreamInterrupted("the pull broke off before the server had said that it was done", retryable=True)

    def _read(self, line: bytes) -> PullProgress:
        value = event_object(line)
        if value.get("error"):
            raise _failure(None, {}, value, line.decode("utf-8", "replace"))
        said = _progress_of(value)
        self._is_done = said.status == SUCCESS
        return said


def _progress_of(value: dict[str, Any]) -> PullProgress:
    said = _said(value)
    known: dict[str, Any] = {name: it for name, it in said.items() if _is_known(name, it)}
    total = known.get("total") or None
    return PullProgress(
        status=known.get("status", ""),
        digest=known.get("digest") or None,
        completed=known.get("completed") or (0 if total else None),
        total=total,
        extra={name: it for name, it in said.items() if name not in known},
    )


def _is_known(name: str, value: Any) -> bool:
    # A number below 0 is no count.
    return type(value) is _KINDS.get(name) and (not isinstance(value, int) or value >= 0)


def _said(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: it for name, it in line.items() if it is not None}


def _object_of(progress: PullProgress) -> dict[str, Any]:
    known = {name: getattr(progress, name) for name in _KINDS}
    return {**{name: value for name, value in known.items() if value}, **progress.extra}


def _failure(status: int | None, headers: Mapping[str, str], value: Any, text: str) -> ProviderError:
    error = error_from_value(status, headers, value, text)
    if (found := _OF_THE_REGISTRY.search(error.message)) is not None:
        error = error_from_value(int(found[1]), headers, value, text)
    if _NO_SUCH_MODEL.search(error.message):
        error = as_kind(error, NotFoundError)
        error.message = f"Ollama finds no such model ({error.message}); https://ollama.com/search has their names"
        error.args = (error.message,)
    return error
