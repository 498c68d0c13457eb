"""HTTP recorded and replayed: wrappers of a client's runtime. Knows no wire format, and keeps no key.

    client = sabir.Client("openai:gpt-4o-mini", runtime_wrappers=[recorded_http("tests/weather.jsonl")])

records what goes over the wire into a file that is not there yet, and replays one that is: without a network, with the
pieces of each body as they came, and with the errors that came instead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, final

import msgspec

from ..errors import StorageError
from ..requests import HttpRequest, Secret
from ..runtime import Line, Reply, Runtime, RuntimeWrapper
from ..strict_json import decode_json
from .replies import Canned
from .tapes import (
    FORMAT_VERSION,
    End,
    Entry,
    Player,
    Recorder,
    cleaned,
    end_of,
    error_of,
    shown_headers,
    without_secrets,
)

# Request headers whose value is a key, also where a caller has set them by hand, and parameters of a URL.
_KEY_HEADERS = frozenset(("authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "x-goog-api-key"))
_KEY_PARAMETERS = re.compile(
    r"([?&](?:key|api[_-]?key|access_token|token|sig|signature|x-amz-[\w-]+)=)([^&#]*)", re.IGNORECASE
)
# Headers of an answer that prove or name who asked.
_PRIVATE = re.compile(r"cookie|authenticat|authorization|organization|project|security-token")


class _Bytes(msgspec.Struct, frozen=True):
    """What is no text."""

    base64: bytes


class _Answer(msgspec.Struct, frozen=True):
    status: int
    headers: dict[str, str]
    pieces: tuple[str | _Bytes, ...]


class HttpExchange(Entry, frozen=True, kw_only=True):
    """A line of the file. `request` has `method`, `url`, and a body as `json`, `text` or `base64`."""

    headers: dict[str, str]
    response: _Answer | None = None


@final
class RecordHttp(Recorder):
    """Records all that a client sends and gets; for its setting `runtime_wrappers`, or that of several clients.

    Of the headers of a request only harmless ones are written down. Keys are taken out of everything: those that the
    library knows as such, those in the usual places, and the texts given as `secrets`.
    """

    def __call__(self, runtime: Runtime) -> Runtime:
        return _Recording(runtime, self)


@final
class ReplayHttp(Player[HttpExchange]):
    """Answers from a file instead of the network; for a client's setting `runtime_wrappers`, whose key may be any.

    Each recorded exchange is used once, for the same method, URL and body. A request that is not there is a
    `StorageError` that shows how the nearest differs. As a context manager it asserts that all were used.
    """

    def __init__(self, path: str | os.PathLike[str], *, secrets: Iterable[str] = ()) -> None:
        """Read a file; `secrets` are those it was recorded with.

        Raises:
            StorageError: it is not there, or is no recording.
        """
        super().__init__(path, HttpExchange, secrets)

    def __call__(self, runtime: Runtime) -> Runtime:
        return _Replaying(runtime, self)


def recorded_http(path: str | os.PathLike[str], *, secrets: Iterable[str] = ()) -> RecordHttp | ReplayHttp:
    """Record into the file if it is not there yet, else replay it. Make one for all clients that share a file."""
    return (ReplayHttp if Path(path).exists() else RecordHttp)(path, secrets=secrets)


class _Recording(RuntimeWrapper):
    def __init__(self, inner: Runtime, recorder: RecordHttp) -> None:
        super().__init__(inner)
        self._recorder = recorder

    async def send(self, request: HttpRequest, line: Line) -> Reply:
        if request.is_for_proof:
            return await self.inner.send(request, line)
        taking = _Taking(self._recorder, request)
        try:
            reply = taking.reply = await self.inner.send(request, line)
        except BaseException as error:
            taking.end(end_of(error))
            raise
        return _Recorded(reply, taking)


class _Taking:
    """One exchange while it goes on; written down once, when it has ended."""

    def __init__(self, recorder: RecordHttp, request: HttpRequest) -> None:
        self._recorder = recorder
        self._request = request
        self._secrets = (*recorder.secrets, *_keys_in(request))
        self._number = recorder.begin()
        self._open = [True]
        self.reply: Reply | None = None
        self.pieces: list[bytes] = []

    def end(self, end: End) -> None:
        try:
            self._open.pop()
        except IndexError:
            return
        answer = None
        if self.reply is not None:
            headers = {name: value for name, value in self.reply.headers.items() if not _PRIVATE.search(name)}
            answer = _Answer(self.reply.status, headers, tuple(_plain(piece) for piece in self._clean_pieces()))
        entry = HttpExchange(
            format_version=FORMAT_VERSION,
            number=self._number,
            request=_shown(self._request, self._secrets),
            headers=shown_headers(self._request.headers),
            response=answer,
            end=end,
        )
        self._recorder.add(entry, self._secrets)

    def _clean_pieces(self) -> list[bytes]:
        """The pieces without secrets; as one, if there is one that lies across them."""
        whole = without_secrets(b"".join(self.pieces), self._secrets)
        clean = [without_secrets(piece, self._secrets) for piece in self.pieces]
        return clean if b"".join(clean) == whole else [whole]


class _Recorded:
    """A reply that is written down as it is read."""

    def __init__(self, inner: Reply, taking: _Taking) -> None:
        self.status = inner.status
        self.headers = inner.headers
        self._inner = inner
        self._taking = taking

    async def read_some(self) -> bytes:
        try:
            data = await self._inner.read_some()
        except BaseException as error:
            self._taking.end(end_of(error))
            raise
        if data:
            self._taking.pieces.append(data)
        else:
            self._taking.end("whole")
        return data

    def close(self) -> None:
        self._inner.close()
        self._taking.end("left")


class _Replaying(RuntimeWrapper):
    def __init__(self, inner: Runtime, player: ReplayHttp) -> None:
        super().__init__(inner)
        self._player = player

    async def send(self, request: HttpRequest, line: Line) -> Reply:
        line.left()
        await self.inner.sleep(0, line)
        if request.is_for_proof:
            raise StorageError("recordings hold no credentials, and a replay wants none: pass any api_key=")
        entry = self._player.take(_shown(request, (*self._player.secrets, *_keys_in(request))))
        if (answer := entry.response) is None:
            raise error_of(entry.end)
        pieces = [piece.encode() if isinstance(piece, str) else piece.base64 for piece in answer.pieces]
        end = None if entry.end == "whole" else error_of(entry.end)
        return Canned(self.inner, line, answer.status, answer.headers, pieces, end)


def _keys_in(request: HttpRequest) -> tuple[Secret, ...]:
    """The keys that a request carries, with and without the word before them."""
    keys = [value for name, value in request.headers if isinstance(value, Secret) or name.lower() in _KEY_HEADERS]
    keys += [value for _, value in _KEY_PARAMETERS.findall(request.url)]
    return tuple(map(Secret, [*keys, *(key.rpartition(" ")[2] for key in keys)]))


def _shown(request: HttpRequest, secrets: tuple[Secret, ...]) -> dict[str, Any]:
    """A request without its headers and its secrets, for people to read and for replays to compare."""
    body: dict[str, Any] = {}
    if request.body:
        try:
            body = {"json": decode_json(request.body)}
        except ValueError:
            plain = _plain(without_secrets(request.body, secrets))
            body = {"text": plain} if isinstance(plain, str) else msgspec.to_builtins(plain)
    url = _KEY_PARAMETERS.sub(r"\1***", request.url)
    shown: dict[str, Any] = cleaned({"method": request.method, "url": url, **body}, secrets)
    return shown


def _plain(data: bytes) -> str | _Bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _Bytes(data)
