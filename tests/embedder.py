"""A small server of embeddings and rankings: an ASGI app of the dialects' server halves, with a model that counts pairs
of letters.

What the dialects refuse to do, it does: it knows the key, the models and how much it takes at once.
"""

from __future__ import annotations

import math
import re
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from hmac import compare_digest

import msgspec
import uvicorn
from servers import until

from sabir.dialects import EmbeddingRequest, EmbeddingResponse, Rank, RerankRequest, RerankResponse
from sabir.dialects.cohere_embeddings import CohereEmbeddings
from sabir.dialects.cohere_rerank import CohereRerank
from sabir.dialects.gemini_embeddings import GeminiEmbeddings
from sabir.dialects.ollama_embeddings import OllamaEmbeddings
from sabir.dialects.openai_embeddings import OpenAIEmbeddings
from sabir.dialects.tei import TeiEmbeddings, TeiRerank
from sabir.dialects.vertex_embeddings import VertexEmbeddings
from sabir.errors import AuthenticationError, BadRequestError, NotFoundError, SabirError
from sabir.providers import PROVIDERS
from sabir.usage import Usage

MODEL = "pairs"
DIMENSIONS = 64

# What is spoken at each path.
ROUTES = {
    r"/v1/embeddings": OpenAIEmbeddings(),
    r"/v1(?:beta)?/models/[^/:]+:batchEmbedContents": GeminiEmbeddings(),
    r"/v1(?:beta)?/models/[^/:]+:embedContent": PROVIDERS["vertex"].embeddings,
    r"/v1(?:beta1?)?(?:/[\w-]+)*/models/[^/:]+:predict": VertexEmbeddings(),
    r"/v2/embed": CohereEmbeddings(),
    r"/api/embed": OllamaEmbeddings(),
    r"/embed": TeiEmbeddings(),
    r"/voyage/embeddings": PROVIDERS["voyage"].embeddings,
    r"/mistral/embeddings": PROVIDERS["mistral"].embeddings,
    r"/jina/embeddings": PROVIDERS["jina"].embeddings,
    r"/(v[12]|jina)/rerank": CohereRerank(),
    r"/voyage/rerank": CohereRerank(top_n="top_k", rows="data"),
    r"/rerank": TeiRerank(),
}


def vector(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """How often each pair of letters occurs, each pair at a place of its own by chance, at length 1."""
    counts = [0.0] * dimensions
    framed = f" {text.lower()} "
    for start in range(len(framed) - 1):
        counts[zlib.crc32(framed[start : start + 2].encode("utf-8", "surrogatepass")) % dimensions] += 1
    length = math.hypot(*counts)
    return [count / length for count in counts]


def fit(query: str, document: str) -> float:
    """How alike two texts are."""
    return sum(one * other for one, other in zip(vector(query), vector(document), strict=True))


class Embedder:
    """The app; `asked` are the requests that it has understood."""

    def __init__(self, key: str, most: int = 2048) -> None:
        self.asked: list[EmbeddingRequest | RerankRequest] = []
        self._key = key
        self._most = most

    async def __call__(self, scope, receive, send) -> None:
        dialect = next(
            (known for path, known in ROUTES.items() if re.fullmatch(path, scope["path"])), ROUTES["/v1/embeddings"]
        )
        try:
            self._admit(scope)
            request = dialect.decode_request(await _body(receive))
            if isinstance(dialect, GeminiEmbeddings):
                request = msgspec.structs.replace(request, model=dialect.decode_path(scope["path"])[0])
            if isinstance(dialect, VertexEmbeddings):
                request = msgspec.structs.replace(request, model=dialect.decode_path(scope["path"]))
            status, body = 200, dialect.encode_response(self._answer(request))
        except SabirError as error:
            status, body = dialect.encode_error(error)
        headers = [(b"content-type", b"application/json"), (b"x-request-id", b"req-%d" % len(self.asked))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _admit(self, scope) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        own = headers.get("x-goog-api-key") or headers.get("api-key")
        told = own or headers.get("authorization", "").removeprefix("Bearer ")
        if not compare_digest(told.encode(), self._key.encode()):
            raise AuthenticationError("this key is not known here", code="invalid_api_key")
        if scope["method"] != "POST" or not any(re.fullmatch(path, scope["path"]) for path in ROUTES):
            raise NotFoundError(f"nothing is served at {scope['method']} {scope['path']}")

    def _answer(self, request: EmbeddingRequest | RerankRequest) -> EmbeddingResponse | RerankResponse:
        # Where there is one model only, a request does not name it.
        if request.model not in (MODEL, f"gemini-{MODEL}", ""):
            raise NotFoundError(f"there is no model {request.model!r} here", code="model_not_found")
        answer = self._embedded(request) if isinstance(request, EmbeddingRequest) else self._ranked(request)
        self.asked.append(request)
        return answer

    def _embedded(self, request: EmbeddingRequest) -> EmbeddingResponse:
        if len(request.inputs) > self._most:
            raise BadRequestError(f"{len(request.inputs)} inputs are too many; {self._most} are taken at once")
        texts = [text for text in request.inputs if isinstance(text, str)]
        if len(texts) < len(request.inputs):
            raise BadRequestError("only texts are embedded here")
        tokens = sum(len(text.split()) for text in texts)
        return EmbeddingResponse(
            vectors=[vector(text, request.dimensions or DIMENSIONS) for text in texts],
            usage=Usage(input=tokens, reported_total=tokens),
            model=MODEL,
            encoding_format=request.encoding_format or "float",
        )

    def _ranked(self, request: RerankRequest) -> RerankResponse:
        texts = [text for text in request.documents if isinstance(text, str)]
        if len(texts) < len(request.documents):
            raise BadRequestError("only texts are ranked here")
        ranks = [Rank(index, fit(request.query, text)) for index, text in enumerate(texts)]
        ranks.sort(key=lambda rank: -rank.score)
        tokens = sum(len(text.split()) for text in (request.query, *texts))
        return RerankResponse(
            ranks=tuple(ranks[: request.top_n]), usage=Usage(input=tokens, reported_total=tokens), model=MODEL
        )


@contextmanager
def served(app: Embedder) -> Iterator[str]:
    """The address of the app's OpenAI half, while it is served over HTTP on loopback."""
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
