"""Finding out what a server of chat completions does, by a few small requests. Knows no provider, and keeps nothing.

Each question has an answer that only a server can give that understood it: a call of the one tool, JSON of the one
shape that the prompt speaks against. What a server says it can do is not asked, and what it refuses is a no.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, final

from .credentials import find_key
from .deltas import Count, Delta
from .dialects import count_of, list_of, mapping_of, text_of
from .dialects.failures import provider_error
from .dialects.openai_chat import OpenAIChat
from .errors import BadRequestError, ConfigurationError, NotFoundError, SabirError, ServerError
from .model import Endpoint, Exchange
from .providers import PROVIDERS, check_base_url
from .requests import HttpRequest
from .retry import retried
from .runtime import Blocking, Line, Runtime, run
from .server_facts import ServerFacts
from .strict_json import decode_json, encode_json
from .transports import blocking_transport, network_of
from .version import __version__

TIMEOUT = 120.0
# Enough for a word, a call or a small object, also after a little thinking.
_TOKENS = 256
_ATTEMPTS = 2
_TOOL = {
    "type": "function",
    "function": {
        "name": "note_number",
        "description": "Note a number.",
        "parameters": {
            "type": "object",
            "properties": {"number": {"type": "integer"}},
            "required": ["number"],
            "additionalProperties": False,
        },
    },
}
_SHAPE = {
    "type": "object",
    "properties": {"bird": {"type": "string", "enum": ["kingfisher"]}},
    "required": ["bird"],
    "additionalProperties": False,
}
# By the names that servers give it: vLLM and SGLang, OpenRouter, Groq and LM Studio, llama.cpp.
_CONTEXT = (
    *("max_model_len", "loaded_context_length", "context_length", "context_window", "max_context_length"),
    *("n_ctx", "n_ctx_train"),
)
_THINKING = ("reasoning_content", "reasoning", "reasoning_details")
# A server's no; that it cannot be reached, or has too much to do, is none.
_REFUSALS = (BadRequestError, ServerError)


def probe(url: str, model: str | None = None, *, api_key: str | None = None, timeout: float = TIMEOUT) -> ServerFacts:
    """Find out what the server at an address does with a model, the only one it has if none is named.

    Raises:
        SabirError: it cannot be reached, refuses the key or the simplest question, or has several models and none was
            named.
    """
    check_base_url(url)
    runtime = Blocking(lambda: blocking_transport(None, network_of(None)))
    try:
        line = Line(deadline=runtime.now() + timeout, connect=min(10.0, timeout), now=runtime.now)
        return run(lambda: Probe(url, api_key, runtime, line).facts(model))
    finally:
        runtime.close()


@final
class Probe:
    """The questions to one server, and what it answered."""

    def __init__(self, url: str, api_key: str | None, runtime: Runtime, line: Line) -> None:
        self._url = url.rstrip("/")
        auth = find_key(PROVIDERS["openai-compat"], url, api_key)
        headers = (("user-agent", f"sabir/{__version__}"),)
        self._endpoint = Endpoint("openai-compat", self._url, auth, runtime, headers)
        self._root = Endpoint("openai-compat", self._url.removesuffix("/v1"), auth, runtime, headers)
        self._exchange = Exchange(line, "ignore")
        self._runtime = runtime
        self._notes: list[str] = []

    async def facts(self, model: str | None) -> ServerFacts:
        """All that is asked, in order."""
        listed = [mapping_of(item) for item in list_of((await self._got(self._endpoint, "/models")).get("data"))]
        names = tuple(name for item in listed if (name := text_of(item.get("id"))) is not None)
        if model is None and len(names) != 1:
            some = f"it has {', '.join(names[:10])}{', …' if len(names) > 10 else ''}" if names else "it lists none"
            raise ConfigurationError(f"name the model to ask {self._url} about; {some}")
        model = model or names[0]
        hello = await self._answered({"model": model, "messages": _said("Say hello."), "max_tokens": _TOKENS})
        streams, usage_in_streams = await self._streamed(model)
        return ServerFacts(
            url=self._url,
            model=model,
            probed_on=datetime.now(UTC).date().isoformat(),
            models=names,
            context=await self._context([item for item in listed if item.get("id") == model]),
            streams=streams,
            usage_in_streams=usage_in_streams,
            tools=await self._calls_tools(model),
            structured=await self._keeps_to_shapes(model),
            thinking=_thinking_field(hello) or await self._thinks_when_asked(model),
            notes=tuple(self._notes),
        )

    async def _context(self, items: list[dict[str, Any]]) -> int | None:
        told: dict[str, Any] = {}
        for item in items:
            told |= {**mapping_of(item.get("meta")), **item}
        # What llama.cpp was started with; in its list stands what the model was trained for.
        props = await self._got(self._root, "/props") if "n_ctx_train" in told else {}
        counts = (mapping_of(props.get("default_generation_settings")).get("n_ctx"), *map(told.get, _CONTEXT))
        return next((count for count in map(count_of, counts) if count), None)

    async def _streamed(self, model: str) -> tuple[bool, bool | None]:
        """Whether a stream is one, and whether its usage is told."""
        body = {"model": model, "messages": _said("Say hello."), "max_tokens": _TOKENS, "stream": True}
        try:
            data = await self._posted({**body, "stream_options": {"include_usage": True}})
        except _REFUSALS as error:
            return self._refused("a stream", error), None
        decoder, deltas = OpenAIChat().decoder(), list[Delta]()
        try:
            deltas = [*decoder.feed(data), *decoder.close()]
        except SabirError as error:
            return self._refused("a stream", error), None
        return True, any(isinstance(delta, Count) and delta.usage.output_tokens for delta in deltas)

    async def _calls_tools(self, model: str) -> bool:
        body = {"model": model, "messages": _said("Note the number 7."), "max_tokens": _TOKENS, "tools": [_TOOL]}
        for choice in ("required", "auto"):
            try:
                answer = await self._answered({**body, "tool_choice": choice})
            except _REFUSALS as error:
                self._refused(f"a tool, with tool_choice {choice!r},", error)
                continue
            if any(mapping_of(call).get("function") for call in list_of(_message(answer).get("tool_calls"))):
                return True
            self._notes.append(f"a tool, with tool_choice {choice!r}, was not called")
        return False

    async def _keeps_to_shapes(self, model: str) -> bool:
        shape = {"type": "json_schema", "json_schema": {"name": "answer", "schema": _SHAPE, "strict": True}}
        body = {"model": model, "messages": _said("Say hello in plain words."), "max_tokens": _TOKENS}
        try:
            text = _message(await self._answered({**body, "response_format": shape})).get("content")
        except _REFUSALS as error:
            return self._refused("a schema", error)
        try:
            fits = decode_json(text) == {"bird": "kingfisher"} if isinstance(text, str) else False
        except ValueError:
            fits = False
        if not fits:
            self._notes.append("a schema was passed over: the answer does not fit it")
        return fits

    async def _thinks_when_asked(self, model: str) -> str | None:
        body = {"model": model, "messages": _said("Think step by step. What is 4 + 5?"), "max_tokens": _TOKENS}
        try:
            return _thinking_field(await self._answered({**body, "chat_template_kwargs": {"enable_thinking": True}}))
        except _REFUSALS as error:
            self._refused("a wish to think", error)
            return None

    def _refused(self, what: str, error: SabirError) -> bool:
        self._notes.append(f"{what} was refused: {error}")
        return False

    async def _answered(self, body: dict[str, Any]) -> dict[str, Any]:
        try:
            return mapping_of(decode_json(await self._posted(body)))
        except ValueError as error:
            raise ServerError(f"the answer is no JSON: {error}", status=200) from None

    async def _posted(self, body: dict[str, Any]) -> bytes:
        headers = (("content-type", "application/json"),)
        return await self._fetched(self._endpoint, HttpRequest("POST", "/chat/completions", headers, encode_json(body)))

    async def _got(self, endpoint: Endpoint, path: str) -> dict[str, Any]:
        """What stands at a path; nothing if the server has nothing there."""
        try:
            return mapping_of(decode_json(await self._fetched(endpoint, HttpRequest("GET", path, (), b""))))
        except (NotFoundError, BadRequestError, ServerError, ValueError):
            return {}

    async def _fetched(self, endpoint: Endpoint, http: HttpRequest) -> bytes:
        async def once() -> AsyncGenerator[bytes, None]:
            yield await endpoint.fetch(http, self._exchange, provider_error)

        try:
            # Servers close connections after so many requests, and not always with a word.
            async with aclosing(retried(once, self._exchange, self._runtime, _ATTEMPTS)) as answers:
                return await anext(answers)
        except SabirError as error:
            raise endpoint.told(error, "", self._exchange) from None


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _message(answer: dict[str, Any]) -> dict[str, Any]:
    return mapping_of(mapping_of(next(iter(list_of(answer.get("choices"))), None)).get("message"))


def _thinking_field(answer: dict[str, Any]) -> str | None:
    message = _message(answer)
    return next((name for name in _THINKING if message.get(name)), None)
