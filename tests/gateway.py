"""The smallest gateway: an ASGI app of the dialects' server halves, with a model in this process behind them.

It does what a dialect refuses to do: it knows the key and the models, gives ids and times, and notices who has gone.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any

import msgspec

from sabir.deltas import Delta, Head, Open, State
from sabir.dialects import Dialect, response_of
from sabir.dialects.anthropic import Anthropic
from sabir.dialects.openai_chat import OpenAIChat
from sabir.engines.llama_cpp import LlamaCpp
from sabir.errors import AuthenticationError, NotFoundError, SabirError
from sabir.model import Exchange, Local
from sabir.providers import PROVIDERS
from sabir.requests import Request
from sabir.runtime import Eventful, Line

PICO = PROVIDERS["pico"]


@dataclass(frozen=True)
class Route:
    """A format that is spoken here: how its ids begin, and its word for the time of an answer, if it has one."""

    dialect: Dialect
    prefix: str
    time: str | None = None


ROUTES = {
    "/v1/chat/completions": Route(OpenAIChat(), "chatcmpl-", "created"),
    "/v1/messages": Route(Anthropic(), "msg_"),
}


class Gateway:
    """The app. `models` are the names by which clients may call the one of `engine`, and what goes along with each."""

    def __init__(self, engine: LlamaCpp, key: str, models: Mapping[str, dict[str, Any]]) -> None:
        self.timeout = 60.0
        self._key = key
        self._models = models
        self._model = Local(PICO.name, PICO.dialect, engine, Eventful(_no_transport))

    async def __call__(self, scope, receive, send) -> None:
        route = ROUTES.get(scope["path"], ROUTES["/v1/chat/completions"])
        reply = _Reply(route.prefix + uuid.uuid4().hex, send)
        line = Line(deadline=time.monotonic() + self.timeout)
        try:
            self._admit(scope)
            request = self._known(route.dialect.decode_request(await _body(receive)))
            watch = asyncio.create_task(_abort_when_gone(receive, line))
            try:
                await self._answer(route, request, line, reply)
            finally:
                watch.cancel()
        except SabirError as error:
            await reply.whole(*route.dialect.encode_error(error))

    def _admit(self, scope) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        if not compare_digest(key.encode(), self._key.encode()):
            raise AuthenticationError("this key is not known here", code="invalid_api_key")
        if scope["path"] not in ROUTES or scope["method"] != "POST":
            raise NotFoundError(f"nothing is served at {scope['method']} {scope['path']}")

    def _known(self, request: Request) -> Request:
        """The request, with what the model wants where the client has no wish."""
        if request.model not in self._models:
            names = ", ".join(self._models)
            raise NotFoundError(f"there is no model {request.model!r}; there are: {names}", code="model_not_found")
        wanted = {name: value for name, value in PICO.defaults.items() if getattr(request, name) is None}
        return msgspec.structs.replace(request, extra=self._models[request.model], **wanted)

    async def _answer(self, route: Route, request: Request, line: Line, reply: _Reply) -> None:
        async with aclosing(self._deltas(route, request, line, reply.id)) as batches:
            if not request.stream:
                response = response_of(route.dialect.name, [delta async for batch in batches for delta in batch])
                await reply.whole(200, route.dialect.encode_response(response))
                return
            encoder = route.dialect.encoder()
            try:
                async for batch in batches:
                    await reply.piece(b"".join(map(encoder.feed, batch)))
                await reply.piece(encoder.close(), is_last=True)
            except SabirError as error:
                if not reply.has_begun:
                    raise
                await reply.piece(encoder.fail(error), is_last=True)

    async def _deltas(self, route: Route, request: Request, line: Line, id_: str) -> AsyncGenerator[list[Delta], None]:
        """The model's deltas, under the id, name and time of this gateway's answer."""
        inner = msgspec.structs.replace(request, model=PICO.model)
        head: list[Delta] = [Head(id_, request.model)]
        if route.time is not None:
            head.append(State(None, {"answer": {"set": {route.time: int(time.time())}}}))
        async with aclosing(self._model.deltas(inner, Exchange(line, "ignore"))) as batches:
            async for batch in batches:
                yield [*head, *filter(None, map(_portable, batch))]
                head = []


class _Reply:
    """An answer on its way out, whole or in pieces. Its status is open until the first of these."""

    def __init__(self, id_: str, send) -> None:
        self.id = id_
        self.has_begun = False
        self._send = send

    async def whole(self, status: int, body: bytes) -> None:
        await self._begin(status, b"application/json")
        await self._send({"type": "http.response.body", "body": body})

    async def piece(self, data: bytes, *, is_last: bool = False) -> None:
        if data and not self.has_begun:
            await self._begin(200, b"text/event-stream")
        if data:
            await self._send({"type": "http.response.body", "body": data, "more_body": not is_last})

    async def _begin(self, status: int, kind: bytes) -> None:
        self.has_begun = True
        ids = [(name, self.id.encode()) for name in (b"request-id", b"x-request-id")]
        headers = [(b"content-type", kind), *ids]
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
    pieces: list[bytes] = []
    is_whole = False
    while not is_whole:
        message = await receive()
        pieces.append(message.get("body", b""))
        is_whole = not message.get("more_body")
    return b"".join(pieces)


async def _abort_when_gone(receive, line: Line) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    line.abort()


def _no_transport():
    raise AssertionError("a model in this process needs no network")
