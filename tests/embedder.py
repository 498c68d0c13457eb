"""A small server of embeddings: an ASGI app of the dialect's server half, with a model that counts pairs of letters.

What the dialect refuses to do, it does: it knows the key, the models and how much it takes at once.
"""

from __future__ import annotations

import math
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from hmac import compare_digest

import uvicorn
from servers import until

from sabir.dialects import EmbeddingRequest, EmbeddingResponse
from sabir.dialects.openai_embeddings import OpenAIEmbeddings
from sabir.errors import AuthenticationError, BadRequestError, NotFoundError, SabirError
from sabir.usage import Usage

MODEL = "pairs"
DIMENSIONS = 64


def vector(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """How often each pair of letters occurs, each pair at a place of its own by chance, at length 1."""
    counts = [0.0] * dimensions
    framed = f" {text.lower()} "
    for start in range(len(framed) - 1):
        counts[zlib.crc32(framed[start : start + 2].encode("utf-8", "surrogatepass")) % dimensions] += 1
    length = math.hypot(*counts)
    return [count / length for count in counts]


class Embedder:
    """The app; `asked` are the requests that it has understood."""

    def __init__(self, key: str, most: int = 2048) -> None:
        self.asked: list[EmbeddingRequest] = []
        self._key = key
        self._most = most
        self._dialect = OpenAIEmbeddings()

    async def __call__(self, scope, receive, send) -> None:
        try:
            self._admit(scope)
            status, body = 200, self._answer(self._dialect.decode_request(await _body(receive)))
        except SabirError as error:
            status, body = self._dialect.encode_error(error)
        headers = [(b"content-type", b"application/json"), (b"x-request-id", b"req-%d" % len(self.asked))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _admit(self, scope) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if not compare_digest(headers.get("authorization", "").encode(), f"Bearer {self._key}".encode()):
            raise AuthenticationError("this key is not known here", code="invalid_api_key")
        if (scope["method"], scope["path"]) != ("POST", "/v1/embeddings"):
            raise NotFoundError(f"nothing is served at {scope['method']} {scope['path']}")

    def _answer(self, request: EmbeddingRequest) -> bytes:
        if request.model != MODEL:
            raise NotFoundError(f"there is no model {request.model!r} here", code="model_not_found")
        if len(request.inputs) > self._most:
            raise BadRequestError(f"{len(request.inputs)} inputs are too many; {self._most} are taken at once")
        texts = [text for text in request.inputs if isinstance(text, str)]
        if len(texts) < len(request.inputs):
            raise BadRequestError("only texts are embedded here")
        self.asked.append(request)
        tokens = sum(len(text.split()) for text in texts)
        return self._dialect.encode_response(
            EmbeddingResponse(
                vectors=[vector(text, request.dimensions or DIMENSIONS) for text in texts],
                usage=Usage(input=tokens, reported_total=tokens),
                model=MODEL,
                encoding_format=request.encoding_format or "float",
            )
        )


@contextmanager
def served(app: Embedder) -> Iterator[str]:
    """The address of the app, while it is served over HTTP on loopback."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", ws="none", log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert until(lambda: server.started, 10)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join(10)


async def _body(receive) -> bytes:
    messages = [await receive()]
    while messages[-1].get("more_body"):
        messages.append(await receive())
    return b"".join(message.get("body", b"") for message in messages)
