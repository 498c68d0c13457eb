"""The smallest gateway: an ASGI app of the dialects' server halves with a model in this process behind it.

It does what a dialect refuses to do: it looks at the key, knows which models there are, and gives ids and times.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from hmac import compare_digest

import msgspec

from sabir.deltas import Delta, Head, Open, State
from sabir.dialects import Dialect, response_of
from sabir.dialects.openai_chat import OpenAIChat

try:
    from sabir.dialects.anthropic import Anthropic
except ImportError:
    Anthropic = OpenAIChat
from sabir.engines.llama_cpp import LlamaCpp
from sabir.errors import AuthenticationError, BadRequestError, NotFoundError, SabirError
from sabir.messages import Image
from sabir.model import Exchange, Local
from sabir.providers import PROVIDERS
from sabir.requests import Request
from sabir.runtime import Eventful, Line

# Where a format is spoken, and how its ids begin.
ROUTES: dict[str, tuple[Dialect, str]] = {
    "/v1/chat/completions": (OpenAIChat(), "chatcmpl-"),
    "/v1/messages": (Anthropic(), "msg_"),
}
PICO = PROVIDERS["pico"]
TIMEOUT = 60.0


class Gateway:
    """The app. `models` are the ids that clients may ask for; all of them are answered by `engine`."""

    def __init__(self, engine: LlamaCpp, key: str, models: tuple[str, ...] = ("pico",)) -> None:
        self._key = key
        self._models = models
        self._model = Local(PICO.name, PICO.dialect, engine, Eventful(_no_transport))

    async def __call__(self, scope, receive, send) -> None:
        dialect, prefix = ROUTES.get(scope["path"], ROUTES["/v1/chat/completions"])
        call = _Call(prefix + uuid.uuid4().hex, send)
        watch = None
        try:
            self._admit(scope)
            request = self._checked(dialect.decode_request(await _body(receive)))
            watch = asyncio.create_task(_abort_if_gone(receive, call.line))
            await self._answer(dialect, request, call)
        except SabirError as error:
            await call.respond(*dialect.encode_error(error))
        finally:
            if watch is not None:
                watch.cancel()

    def _admit(self, scope) -> None:
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        if not compare_digest(key.encode(), self._key.encode()):
            raise AuthenticationError("this key is not known here", status=401, code="invalid_api_key")
        if scope["path"] not in ROUTES or scope["method"] != "POST":
            raise NotFoundError(f"nothing is served at {scope['method']} {scope['path']}", status=404)

    def _checked(self, request: Request) -> Request:
        if request.model not in self._models:
            known = ", ".join(self._models)
            message = f"there is no model {request.model!r} here; there are: {known}"
            raise NotFoundError(message, status=404, code="model_not_found")
        if any(isinstance(part, Image) for message in request.messages for part in message.parts):
            raise BadRequestError(f"the model {request.model!r} sees no images; send text only", status=400)
        options = {name: value for name, value in PICO.defaults.items() if getattr(request, name) is None}
        return msgspec.structs.replace(request, **options)

    async def _answer(self, dialect: Dialect, request: Request, call: _Call) -> None:
        async with aclosing(self._deltas(request, call)) as batches:
            if not request.stream:
                deltas = [delta async for batch in batches for delta in batch]
                await call.respond(200, dialect.encode_response(response_of(dialect.name, deltas)))
                return
            encoder = dialect.encoder()
            try:
                async for batch in batches:
                    await call.write(b"".join(map(encoder.feed, batch)))
            except SabirError as error:
                if not call.has_begun:
                    raise
                await call.write(encoder.fail(error), more=False)
            else:
                await call.write(encoder.close(), more=False)

    async def _deltas(self, request: Request, call: _Call) -> AsyncGenerator[list[Delta], None]:
        """The model's deltas, under the id, name and time that this gateway gives the answer."""
        inner = msgspec.structs.replace(request, model=PICO.model)
        head: list[Delta] = [
            Head(call.id, request.model),
            State(None, {"answer": {"set": {"created": int(time.time())}}}),
        ]
        async with aclosing(self._model.deltas(inner, Exchange(call.line, "ignore"))) as batches:
            async for batch in batches:
                yield [*head, *filter(None, map(_portable, batch))]
                head = []


class _Call:
    """One answer on its way out."""

    def __init__(self, id_: str, send) -> None:
        self.id = id_
        self.line = Line(deadline=time.monotonic() + TIMEOUT, idle=TIMEOUT)
        self.has_begun = False
        self._send = send

    async def respond(self, status: int, body: bytes) -> None:
        await self._begin(status, b"application/json")
        await self._send({"type": "http.response.body", "body": body})

    async def write(self, data: bytes, *, more: bool = True) -> None:
        """Send a piece of a stream; it begins with the first, until then an error has a status of its own."""
        if not self.has_begun and data:
            await self._begin(200, b"text/event-stream")
        if data:
            await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def _begin(self, status: int, kind: bytes) -> None:
        self.has_begun = True
        names = (b"request-id", b"x-request-id")
        headers = [(b"content-type", kind), *((name, b"req_" + self.id.encode()) for name in names)]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})


def _portable(delta: Delta) -> Delta | None:
    """A delta without what only the format of the model that made it understands."""
    match delta:
        case Open():
            return msgspec.structs.replace(delta, state=None)
        case State(part=int()):
            return msgspec.structs.replace(delta, patch={})
        case Head() | State():
            return None
        case _:
            return delta


async def _body(receive) -> bytes:
    pieces = []
    while True:
        message = await receive()
        pieces.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(pieces)


async def _abort_if_gone(receive, line: Line) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    line.abort()


def _no_transport():
    raise AssertionError("a model in this process needs no network")
