"""A handle on models: ask one, stream from one. Stateless but for its settings and connections.

`ClientBody` is written once, as coroutines over a runtime; `AsyncClient` and `Client` are its two faces.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple, Self, TypeVar, Unpack, cast, final, overload

import msgspec

from .chat import AsyncChat, Chat, ChatBody, chat_settings
from .credentials import find_key
from .dialects import EmbeddingRequest
from .embeddings import Embedder, Embedding, EmbeddingCall, Embeddings, checked_texts
from .engines import Engine
from .errors import ClosedError, ConfigurationError, UnsupportedError
from .handover import sendable
from .hooks import Hooks
from .loops import AnyLoop
from .messages import Audio, Image, Message
from .model import Endpoint, Exchange, Local, Model, Remote
from .options import (
    Call,
    EmbeddingOptions,
    Settings,
    checked_options,
    encoding,
    merged,
    phases_of,
    policy,
    seconds,
    whole,
)
from .prompts import Prompt, as_messages
from .providers import PROVIDERS, ModelString, check_base_url, has_provider, is_same_server, parse_model
from .requests import Explanation, Notice, OutputSchema, Request, Response, Secret
from .retry import Retry
from .runtime import Blocking, Line, Runtime, awaitable, blocking
from .schema import Schema, schema_of
from .strict_json import decode_json
from .tools import Toolbox
from .transports import Network, blocking_transport, check_transport, eventful_transport, network_of, runs_on_trio
from .turn import Turn, awaitable_stream, blocking_stream
from .version import __version__

T = TypeVar("T")

TIMEOUT = 600.0
IDLE_TIMEOUT = 300.0
CONNECT_TIMEOUT = 10.0
MAX_ATTEMPTS = 3
MAX_TOOL_ROUNDS = 10

_USER_AGENT = f"sabir/{__version__}"
_PICO_NOTICE = Notice(
    "default_model",
    "model",
    "no model was named, so the one inside the package answers: Pico, 1.5 million parameters, a toy that knows a few "
    "tricks. Name one with model= or the environment variable SABIR_MODEL.",
)


class _Target(msgspec.Struct, frozen=True):
    """A model string, resolved."""

    name: str
    id: str
    dialect: str
    maker: str
    model: Model
    is_remote: bool = False
    embedder: Embedder | None = None
    capabilities: frozenset[str] | None = None
    notice: Notice | None = None
    defaults: Mapping[str, Any] = {}


class _Plan(NamedTuple):
    """One call, checked."""

    target: _Target
    request: Request
    tools: Toolbox
    schema: Schema[Any] | None
    max_tool_rounds: int


Models = str | Engine | Sequence[str | Engine] | None


class ClientBody:
    """The body of both clients. `models` are model strings or engines; the first is the default."""

    def __init__(
        self,
        models: Models,
        runtime: Callable[[Any, Network], Runtime],
        settings: Settings,
    ) -> None:
        options = checked_options(settings, Settings)
        # Of a limit, None is not "unset" but "no limit".
        self._timeout = seconds(settings.get("timeout", TIMEOUT), "timeout")
        self._idle_timeout = seconds(settings.get("idle_timeout", IDLE_TIMEOUT), "idle_timeout")
        self._connect_timeout = seconds(settings.get("connect_timeout", CONNECT_TIMEOUT), "connect_timeout")
        for limit in ("timeout", "idle_timeout", "connect_timeout"):
            options.pop(limit, None)
        self._base_url: str | None = options.pop("base_url", None)
        api_key = options.pop("api_key", None)
        self._api_key = Secret(api_key) if isinstance(api_key, str) else api_key
        self._max_attempts = whole(options.pop("max_attempts", MAX_ATTEMPTS), "max_attempts", 1)
        self._max_tool_rounds = whole(options.pop("max_tool_rounds", MAX_TOOL_ROUNDS), "max_tool_rounds", 0)
        self._on_unsupported = policy(options.pop("on_unsupported", "warn"))
        self._hooks = Hooks(options.pop("hooks", ()))
        self._tools = Toolbox(options.pop("tools", ()))
        transport = options.pop("transport", None)
        told = {name: options.pop(name) for name in ("ssl_context", "ca_file", "proxy", "http2") if name in options}
        self._runtime = runtime(transport, network_of(transport, **told))
        for wrap in options.pop("runtime_wrappers", ()):
            self._runtime = wrap(self._runtime)
        self._model_wrappers = tuple(options.pop("model_wrappers", ()))
        self._options = options
        if self._base_url is not None:
            check_base_url(self._base_url)
        self._targets: dict[str, _Target] = {}
        self._engines: list[Engine] = []
        # Weak, so that a turn whose reader an interrupt took away is as good as dropped.
        # A plain dict, since it is copied while other threads add to it, which a WeakSet does not bear.
        self._live: dict[int, weakref.ref[Turn[Any] | EmbeddingCall]] = {}
        self._dimensions: dict[str, int] = {}
        self._is_closed = False
        listed = self._listed(models)
        self._models = tuple(target.name for target in listed)
        self._default: _Target = listed[0]

    @property
    def models(self) -> tuple[str, ...]:
        """The models this client was made with."""
        return self._models

    @property
    def default_model(self) -> str:
        """The model that is asked where a call names none."""
        return self._default.name

    @default_model.setter
    def default_model(self, model: str) -> None:
        self._default = self._target(model)

    @property
    def hooks(self) -> Hooks:
        """The hooks that watch the calls; a change takes effect with the next call."""
        return self._hooks

    @overload
    async def ask(self, prompt: Prompt, *, schema: type[T], **call: Unpack[Call]) -> Response[T]: ...
    @overload
    async def ask(self, prompt: Prompt, *, schema: dict[str, Any], **call: Unpack[Call]) -> Response[Any]: ...
    @overload
    async def ask(self, prompt: Prompt, *, schema: None = None, **call: Unpack[Call]) -> Response[None]: ...
    async def ask(self, prompt: Prompt, *, schema: Any = None, **call: Unpack[Call]) -> Response[Any]:
        """Ask once and return the whole answer; tools run in a loop until the model needs no more.

        `prompt` is a text, a message, a list of messages or a list of parts. `schema` is a type (dataclass, TypedDict,
        pydantic model, ...) or a JSON Schema that the answer is to fit: `response.parsed` is a value of it. For the
        rest see `Call` and `Options`.

        Raises:
            SabirError: one of the family in `sabir.errors`, and nothing else.
        """
        return await self._turn_of(prompt, schema, frozenset(), False, call).finish()

    @overload
    def open_stream(
        self, prompt: Prompt, *, schema: type[T], include: Iterable[str] | None = None, **call: Unpack[Call]
    ) -> Turn[T]: ...
    @overload
    def open_stream(
        self, prompt: Prompt, *, schema: dict[str, Any], include: Iterable[str] | None = None, **call: Unpack[Call]
    ) -> Turn[Any]: ...
    @overload
    def open_stream(
        self, prompt: Prompt, *, schema: None = None, include: Iterable[str] | None = None, **call: Unpack[Call]
    ) -> Turn[None]: ...
    def open_stream(
        self, prompt: Prompt, *, schema: Any = None, include: Iterable[str] | None = None, **call: Unpack[Call]
    ) -> Turn[Any]:
        """Ask once and see the answer come, as `StreamChunk`s; then `response` is what `ask` would have returned.

        `include` names the phases to see, such as "generating"; None is all. Nothing is sent before the first chunk
        is asked for.
        """
        return self._turn_of(prompt, schema, phases_of(include), True, call)

    def _turn_of(self, prompt: Prompt, schema: Any, include: Collection[str], is_stream: bool, call: Call) -> Turn[Any]:
        options: dict[str, Any] = dict(call)
        messages = as_messages(prompt, options.pop("images", ()), options.pop("system", None))
        return self.turn(messages, options, schema=schema, include=include, is_stream=is_stream)

    def turn(
        self,
        messages: tuple[Message, ...],
        *layers: Mapping[str, Any],
        schema: Any,
        include: Collection[str],
        is_stream: bool,
        when_over: Callable[[Turn[Any]], None] | None = None,
    ) -> Turn[Any]:
        """Prepare one call: all that can be wrong with it is found here, before anything is sent.

        `layers` are options over the client's own, each over the one before.
        """
        plan = self._planned(messages, layers, schema, is_stream)
        line = Line(idle=self._idle_timeout, connect=self._connect_timeout, now=self._runtime.now)
        exchange = Exchange(line, self._on_unsupported)
        if plan.target.notice is not None:
            exchange.notices.append(plan.target.notice)
            _tell_once_on_stderr(plan.target.notice.message)

        def over(turn: Turn[Any]) -> None:
            self._live.pop(id(turn), None)
            if when_over is not None:
                when_over(turn)

        turn: Turn[Any] = Turn(
            runtime=self._runtime,
            model=plan.target.model,
            name=plan.target.name,
            dialect=plan.target.dialect,
            maker=plan.target.maker,
            request=plan.request,
            exchange=exchange,
            timeout=self._timeout,
            tools=plan.tools,
            schema=plan.schema,
            max_tool_rounds=plan.max_tool_rounds,
            include=include,
            hooks=self._hooks.snapshot(),
            when_over=over,
        )
        self._keep(turn)
        return turn

    def explain(self, prompt: Prompt, *, schema: Any = None, stream: bool = False, **call: Unpack[Call]) -> Explanation:
        """Show the exact request that `ask` (or `stream`) would send first, and what was lowered. Sends nothing."""
        options: dict[str, Any] = dict(call)
        messages = as_messages(prompt, options.pop("images", ()), options.pop("system", None))
        plan = self._planned(messages, (options,), schema, stream)
        fit, dropped = sendable(plan.request.messages, plan.target.maker)
        http, notices = plan.target.model.explain(msgspec.structs.replace(plan.request, messages=fit))
        notices = (*dropped, *notices)
        return Explanation(plan.target.name, http.method, http.url, dict(http.headers), decode_json(http.body), notices)

    # A str is a sequence of str too, and the first of the two is meant then.
    @overload
    async def embed(self, texts: str, **options: Unpack[EmbeddingOptions]) -> Embedding: ...  # type: ignore[overload-overlap]
    @overload
    async def embed(self, texts: Sequence[str], **options: Unpack[EmbeddingOptions]) -> Embeddings: ...
    async def embed(self, texts: str | Sequence[str], **options: Unpack[EmbeddingOptions]) -> Embedding | Embeddings:
        """Turn a text into its vector, or a list of texts into the list of theirs, in the same order.

        More texts than the provider takes at once are sent in several requests at the same time. There is a vector
        for every text, or an error; for `[]` nothing is sent. For the rest see `EmbeddingOptions`.

        Raises:
            SabirError: one of the family in `sabir.errors`, and nothing else.
        """
        embeddings = await self._embedded(checked_texts(texts), options)
        return embeddings.only() if isinstance(texts, str) else embeddings

    async def embed_batch(self, texts: Sequence[str], **options: Unpack[EmbeddingOptions]) -> Embeddings:
        """Turn a list of texts into the list of their vectors: `embed`, where it is to be a list always."""
        if isinstance(texts, str):
            raise ConfigurationError("embed_batch takes a list of texts; for a single one there is embed")
        return await self._embedded(checked_texts(texts), options)

    async def embedding_dim(self, model: str | None = None) -> int:
        """How long the vectors of a model are; where that is not known, it is asked to embed a word, once."""
        target, embedder = self._embedding_target(model)
        known = embedder.dialect.dimensions_of.get(target.id) or self._dimensions.get(target.name)
        if known is None:
            vector = await self.embed("dimensions", model=model)
            known = self._dimensions[target.name] = len(vector)
        return known

    async def _embedded(self, texts: tuple[str, ...], options: EmbeddingOptions) -> Embeddings:
        if self._is_closed:
            raise ClosedError("this client has been closed; make a new one")
        checked = checked_options(options, EmbeddingOptions)
        target, embedder = self._embedding_target(checked.pop("model", None))
        # Of the client's own options only these say something of an embedding; `extra` is of its conversations' format.
        own: dict[str, Any] = {name: self._options.get(name) for name in ("user", "headers")}
        if (dimensions := checked.get("dimensions")) is not None:
            whole(dimensions, "dimensions", 1)
        encoding(checked.get("encoding_format"))
        if not texts:
            return Embeddings((), model=target.id)
        line = Line(idle=self._idle_timeout, connect=self._connect_timeout, now=self._runtime.now)
        call = EmbeddingCall(
            embedder=embedder,
            runtime=self._runtime,
            name=target.name,
            request=EmbeddingRequest(model=target.id, inputs=texts, **merged(own, checked)),
            exchange=Exchange(line, self._on_unsupported),
            timeout=self._timeout,
            hooks=self._hooks.snapshot(),
        )
        self._keep(call)
        return await call.vectors()

    def _embedding_target(self, model: str | None) -> tuple[_Target, Embedder]:
        target = self._default if model is None else self._target(model)
        if target.embedder is None:
            known = ", ".join(sorted(name for name, row in PROVIDERS.items() if row.embeddings is not None))
            raise UnsupportedError(
                f"{target.name} makes no embeddings; name a model of a provider that does, as in "
                f"model='openai:text-embedding-3-small'. There are: {known}",
                model=target.name,
            )
        return target, target.embedder

    def _planned(
        self, messages: tuple[Message, ...], layers: Sequence[Mapping[str, Any]], schema: Any, is_stream: bool
    ) -> _Plan:
        if self._is_closed:
            raise ClosedError("this client has been closed; make a new one")
        checked = [self._options, *(checked_options(layer, Call) for layer in layers)]
        model = merged(*checked).get("model")
        target = self._default if model is None else self._target(model)
        options = merged(target.defaults, *checked)
        options.pop("model", None)
        tools = options.pop("tools", None)
        max_tool_rounds = whole(options.pop("max_tool_rounds", self._max_tool_rounds), "max_tool_rounds", 0)
        toolbox = tools if isinstance(tools, Toolbox) else self._tools if tools is None else Toolbox(tools)
        shape: Schema[Any] | None = None if schema is None else schema_of(schema)
        request = Request(
            model=target.id,
            messages=messages,
            tools=toolbox.specs,
            schema=None if shape is None else OutputSchema(shape.name, shape.json),
            stream=is_stream,
            **options,
        )
        _check_tool_choice(request)
        _check_capabilities(request, target)
        return _Plan(target, request, toolbox, shape, max_tool_rounds)

    def close(self) -> None:
        """End live streams, close connections and let models go. Idempotent, legal from any thread."""
        self._is_closed = True
        for mark in tuple(self._live.values()):
            if (call := mark()) is not None:
                call.end()
        while self._engines:
            self._engines.pop().close()
        self._runtime.close()

    def __del__(self) -> None:
        # A client that is dropped closes; one whose constructor failed has nothing to close.
        if hasattr(self, "_default"):
            self.close()

    def _keep(self, call: Turn[Any] | EmbeddingCall) -> None:
        live, key = self._live, id(call)
        live[key] = weakref.ref(call, lambda _: live.pop(key, None))

    def _listed(self, models: Models) -> tuple[_Target, ...]:
        notice = None
        if models is None:
            models = os.environ.get("SABIR_MODEL", "").strip() or None
        if models is None:
            models, notice = "pico", _PICO_NOTICE
        listed = [models] if isinstance(models, str) or not isinstance(models, Sequence) else list(models)
        if not listed:
            raise ConfigurationError("a client needs at least one model, as in Client('openai:gpt-4o-mini')")
        named = [parse_model(item) for item in listed if isinstance(item, str)]
        owners = {(each.provider.name, each.base_url or self._base_url or each.provider.url) for each in named}
        if len(owners) > 1 and (self._api_key or self._base_url):
            raise ConfigurationError(
                "api_key= and base_url= are for one server, and these models have several: "
                f"{', '.join(sorted(f'{name} at {address}' for name, address in owners))}; make a client for each"
            )
        self._own_server = next(iter(owners)) if len(owners) == 1 else None
        targets = [self._target(item) if isinstance(item, str) else self._engine_target(item) for item in listed]
        return tuple(msgspec.structs.replace(target, notice=notice) for target in targets)

    def _target(self, text: str) -> _Target:
        if not isinstance(text, str):
            raise ConfigurationError(f"a model is named by a string like 'openai:gpt-4o-mini', not {text!r}")
        if (known := self._targets.get(text)) is None:
            known = self._targets[text] = self._resolved(text)
        return known

    def _resolved(self, text: str) -> _Target:
        if isinstance(text, str) and text.strip() and not has_provider(text) and hasattr(self, "_default"):
            default = self._default
            if default.is_remote:
                # A bare id is a model of the default's provider: its own connection, key and quirks.
                name = f"{default.name.partition(':')[0]}:{text}"
                return msgspec.structs.replace(default, name=name, id=text, capabilities=None)
        named = parse_model(text)
        row = named.provider
        endpoint = self._endpoint(named) if row.engine is None else None
        model = self._local(named) if endpoint is None else self._remote(named, endpoint)
        embedder = None
        if endpoint is not None and row.embeddings is not None:
            embedder = Embedder(row.embeddings, endpoint, self._runtime, self._max_attempts)
        return _Target(
            str(named),
            named.id,
            row.dialect.name,
            row.name if endpoint is None else endpoint.server,
            self._wrapped(model),
            is_remote=endpoint is not None,
            embedder=embedder,
            capabilities=named.capabilities,
            defaults=row.defaults or {},
        )

    def _engine_target(self, engine: Engine) -> _Target:
        if not callable(getattr(engine, "deltas", None)):
            raise ConfigurationError(f"a model is named by a string or is an engine, not {type(engine).__name__}")
        name = getattr(engine, "name", type(engine).__name__)
        target = _Target(name, name, name, name, self._wrapped(Local(name, None, engine, self._runtime)))
        self._targets[name] = target
        return target

    def _wrapped(self, model: Model) -> Model:
        for wrap in self._model_wrappers:
            model = wrap(model, self._runtime)
        return model

    def _remote(self, named: ModelString, endpoint: Endpoint) -> Model:
        remote = Remote(named.provider.dialect, endpoint, self._runtime)
        return Retry(remote, self._runtime, self._max_attempts)

    def _endpoint(self, named: ModelString) -> Endpoint:
        row = named.provider
        # The client's own address and key are for the server it was made with, and for no other.
        own_provider, own_address = self._own_server or (None, None)
        base_url = named.base_url or (self._base_url if row.name == own_provider else None)
        is_own = row.name == own_provider and is_same_server(base_url or str(row.url), str(own_address))
        key = find_key(row, base_url, self._api_key if is_own else None)
        return Endpoint(row.name, base_url or cast("str", row.url), key, self._runtime, _USER_AGENT)

    def _local(self, named: ModelString) -> Model:
        if named.provider.name == (self._own_server or ("",))[0] and (self._base_url or self._api_key):
            raise ConfigurationError(f"{named} runs in this process: it takes no base_url= and no api_key=")
        room = import_module(f"sabir.engines.{named.provider.engine}")
        engine: Engine = room.engine(named.id, named.provider)
        self._engines.append(engine)
        return Local(named.provider.name, named.provider.dialect, engine, self._runtime)


def _blocking_runtime(transport: Any, network: Network) -> Runtime:
    check_transport(transport, is_awaitable=False)
    return Blocking(lambda: blocking_transport(transport, network))


def _eventful_runtime(transport: Any, network: Network) -> Runtime:
    check_transport(transport, is_awaitable=True)
    return AnyLoop(lambda: eventful_transport(transport, network), sends_on_trio=runs_on_trio(transport))


class _Handle:
    """What both faces of a client share, since it waits for nothing."""

    def __init__(self, body: ClientBody) -> None:
        self._body = body

    @property
    def models(self) -> tuple[str, ...]:
        """The models this client was made with."""
        return self._body.models

    @property
    def default_model(self) -> str:
        """The model that is asked where a call names none."""
        return self._body.default_model

    @default_model.setter
    def default_model(self, model: str) -> None:
        self._body.default_model = model

    @property
    def hooks(self) -> Hooks:
        """The hooks that watch the calls; a change takes effect with the next call."""
        return self._body.hooks

    def explain(self, prompt: Prompt, *, schema: Any = None, stream: bool = False, **call: Unpack[Call]) -> Explanation:
        """Show the exact request that `ask` (or `stream`) would send first, and what was lowered. Sends nothing."""
        return self._body.explain(prompt, schema=schema, stream=stream, **call)

    def close(self) -> None:
        """End live streams, close connections and let models go. Idempotent, legal from any thread."""
        self._body.close()


@final
class Client(_Handle):
    """A handle on one or several models. Stateless: every call stands alone; `chat()` begins a conversation.

    Nothing is connected or loaded here, and nothing read from disk but a `ca_file`; the first call does that.
    """

    def __init__(self, models: Models = None, **settings: Unpack[Settings]) -> None:
        """Make a client of model strings (`"openai:gpt-4o-mini"`) or engines; without any, of SABIR_MODEL, else Pico.

        `settings` are those of `Settings`, and any of `Options` as defaults for all calls.

        Raises:
            ConfigurationError: an unknown provider, a missing key, an unknown setting; says what to do.
        """
        super().__init__(ClientBody(models, _blocking_runtime, settings))

    ask = blocking(ClientBody.ask)
    stream = blocking_stream(ClientBody.open_stream)
    embed = blocking(ClientBody.embed)
    embed_batch = blocking(ClientBody.embed_batch)
    embedding_dim = blocking(ClientBody.embedding_dim)

    def chat(self, *, messages: Iterable[Message | Mapping[str, Any]] = (), **options: Unpack[Call]) -> Chat:
        """Begin a conversation, or go on with one; `options` are the defaults of its calls."""
        return Chat(ChatBody(self._body, *chat_settings(messages, options)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@final
class AsyncClient(_Handle):
    """A handle on one or several models, awaitable. See `sabir.Client`, whose methods it has."""

    def __init__(self, models: Models = None, **settings: Unpack[Settings]) -> None:
        """Make a client; takes what `sabir.Client` takes."""
        super().__init__(ClientBody(models, _eventful_runtime, settings))

    ask = awaitable(ClientBody.ask)
    stream = awaitable_stream(ClientBody.open_stream)
    embed = awaitable(ClientBody.embed)
    embed_batch = awaitable(ClientBody.embed_batch)
    embedding_dim = awaitable(ClientBody.embedding_dim)

    def chat(self, *, messages: Iterable[Message | Mapping[str, Any]] = (), **options: Unpack[Call]) -> AsyncChat:
        """Begin a conversation, or go on with one; `options` are the defaults of its calls."""
        return AsyncChat(ChatBody(self._body, *chat_settings(messages, options)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


def _check_tool_choice(request: Request) -> None:
    choice = request.tool_choice
    if choice in (None, "auto", "none", "required") or any(tool.name == choice for tool in request.tools):
        return
    names = ", ".join(tool.name for tool in request.tools) or "none"
    raise ConfigurationError(
        f"tool_choice is 'auto', 'none', 'required' or the name of a tool, not {choice!r}; the tools are: {names}"
    )


def _check_capabilities(request: Request, target: _Target) -> None:
    if target.capabilities is None:
        return
    kinds = {type(part) for message in request.messages for part in message.parts}
    needs = (
        ("tools", bool(request.tools), "run tools"),
        ("vision", Image in kinds, "see images"),
        ("audio", Audio in kinds, "hear audio"),
        ("structured", request.schema is not None, "keep to a schema"),
    )
    for capability, is_needed, what in needs:
        if is_needed and capability not in target.capabilities:
            raise UnsupportedError(f"{target.name} cannot {what}; choose another model", model=target.name)


def _tell_once_on_stderr(message: str) -> None:
    if not _told and sys.stderr is not None:
        _told.append(True)
        sys.stderr.write(f"sabir: {message}\n")


_told: list[bool] = []


class _Shared:
    """What `sabir.ask` asks: clients that live as long as the process, one for each value of SABIR_MODEL."""

    def __init__(self, runtime: Callable[[Any, Network], Runtime]) -> None:
        self._runtime = runtime
        self._bodies: dict[str | None, ClientBody] = {}

    @property
    def _body(self) -> ClientBody:
        named = os.environ.get("SABIR_MODEL")
        if (body := self._bodies.get(named)) is None:
            body = self._bodies.setdefault(named, ClientBody(None, self._runtime, {}))
            atexit.register(body.close)
        return body


class _BlockingShared(_Shared):
    ask = blocking(ClientBody.ask)


class _AwaitableShared(_Shared):
    ask = awaitable(ClientBody.ask)


ask = _BlockingShared(_blocking_runtime).ask
async_ask = _AwaitableShared(_eventful_runtime).ask
