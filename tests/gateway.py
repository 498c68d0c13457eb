"""The smallest gateway: an ASGI app of the dialects' server halves, with a model in this process behind them.

It does what a dialect refuses to do: it knows the key and the models, gives ids and times, and notices who has gone.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from hmac import compare_digest
from typing import Any, NamedTuple

import msgspec

from sabir.deltas import Delta, Head, Open, State
from sabir.dialects import Dialect, response_of
from sabir.dialects.anthropic import Anthropic
from sabir.dialects.openai_chat import OpenAIChat
from sabir.engines.llama_cpp import LlamaCpp
from sabir.errors import AuthenticationError, BadRequestError, NotFoundError, SabirError
from sabir.model import Exchange, Local
from sabir.providers import PROVIDERS
from sabir.requests import Request
from sabir.runtime import Eventful, Line
from sabir.transports import eventful_transport

PICO = PROVIDERS["pico"]
JSON = b"application/json"


class Route(NamedTuple):
    """A format that is spoken here; how its ids begin, and its words for what only a server can know."""

    dialect: Dialect
    prefix: str
    time: str | None
    history: str | None


ROUTES = {
    "/v1/chat/completions": Route(OpenAIChat(), "chatcmpl-", "created", None),
    "/v1/messages": Route(Anthropic(), "msg_", None, "thread"),
}


class Gateway:
    """The app. `models` are the names by which clients may call the one of `engine`, and what goes along with each."""

    def __init__(self, engine: LlamaCpp, key: str, models: Mapping[str, dict[str, Any]]) -> None:
        self.timeout = 60.0
        self._key = key
        self._models = models
        self._model = Local(PICO.name, PICO.dialect, engine, Eventful(eventful_transport))

    async def __call__(self, scope, receive, send) -> None:
        route = ROUTES.get(scope["path"], ROUTES["/v1/chat/completions"])
        reply = _Reply(route, send)
        line = Line(deadline=time.monotonic() + self.timeout)
        try:
            self._admit(scope)
            request = self._accepted(route, route.dialect.decode_request(await _body(receive)))
            reply.encoder = route.dialect.encoder(request)
            watch = asyncio.create_task(_abort_when_gone(receive, line))
            try:
                await self._answer(route, request, line, reply)
            finally:
                watch.cancel()
        except SabirError as error:
            await reply.fail(error)
        await send({"type": "http.response.body"})

    def _admit(self, scope) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        if not compare_digest(key.encode(), self._key.encode()):
            raise AuthenticationError("this key is not known here", code="invalid_api_key")
        if scope["path"] not in ROUTES or scope["method"] != "POST":
            raise NotFoundError(f"nothing is served at {scope['method']} {scope['path']}")

    def _accepted(self, route: Route, request: Request) -> Request:
        """The request, with what the model wants where the client has no wish."""
        if request.model not in self._models:
            raise NotFoundError(f"there is no model {request.model!r} here", code="model_not_found")
        if request.state is not None and route.history in request.state.value.get("set", {}):
            message = f"no {route.history} is kept here; send the whole conversation"
            raise BadRequestError(message, code=f"{route.history}_unsupported_request")
        wanted = {name: value for name, value in PICO.defaults.items() if getattr(request, name) is None}
        return msgspec.structs.replace(request, extra=self._models[request.model], **wanted)

    async def _answer(self, route: Route, request: Request, line: Line, reply: _Reply) -> None:
        async with aclosing(self._deltas(route, request, line, reply.id)) as batches:
            if not request.stream:
                response = response_of(route.dialect.name, [delta async for batch in batches for delta in batch])
                return await reply.write(route.dialect.encode_response(response), kind=JSON)
            async for batch in batches:
                await reply.write(b"".join(map(reply.encoder.feed, batch)))
            await reply.write(reply.encoder.close())

    async def _deltas(self, route: Route, request: Request, line: Line, id_: str) -> AsyncGenerator[list[Delta], None]:
        """The model's deltas, under the id, name and time of this gateway's answer."""
        inner = msgspec.structs.replace(request, model=PICO.model)
        stamp = {"answer": {"set": {route.time: int(time.time())}}} if route.time else {}
        head: list[Delta] = [Head(id_, request.model), State(None, stamp)]
        async with aclosing(self._model.deltas(inner, Exchange(line, "ignore"))) as batches:
            async for batch in batches:
                yield [*head, *filter(None, map(_portable, batch))]
                head = []


class _Reply:
    """An answer on its way out. Its status is open until the first bytes."""

    def __init__(self, route: Route, send) -> None:
        self.id = route.prefix + uuid.uuid4().hex
        self._dialect = route.dialect
        self.encoder = route.dialect.encoder()
        self._send = send
        self._has_begun = False

    async def fail(self, error: SabirError) -> None:
        if self._has_begun:
            return await self.write(self.encoder.fail(error))
        status, body = self._dialect.encode_error(error)
        await self.write(body, status, JSON)

    async def write(self, data: bytes, status: int = 200, kind: bytes = b"text/event-stream") -> None:
        if data and not self._has_begun:
            self._has_begun = True
            headers = [(b"content-type", kind), (b"request-id", self.id.encode()), (b"x-request-id", self.id.encode())]
            await self._send({"type": "http.response.start", "status": status, "headers": headers})
        if data:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})


def _portable(delta: Delta) -> Delta | None:
    """A delta without what only the format of the model that made it understands."""
    match delta:
        case Open():
            return msgspec.structs.replace(delta, state=None)
        case State(part=int()):
            return msgspec.structs.replace(delta, patch={})
    return None if isinstance(delta, Head | State) else delta


async def _body(receive) -> bytes:
    messages = [await receive()]
    while messages[-1].get("more_body"):
        messages.append(await receive())
    return b"".join(message.get("body", b"") for message in messages)


async def _abort_when_gone(receive, line: Line) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    line.abort()
