"""A handle on models: ask one, stream from one. Stateless but for its settings and connections.

`ClientBody` is written once, as coroutines over a runtime; `AsyncClient` and `Client` are its two faces.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple, Self, TypeVar, Unpack, final, get_args, overload

import msgspec

from .attachments import Attachments, loader
from .billing import Billing
from .calls import Asker, ListCall, checked_texts
from .catalog import UNKNOWN, ModelFacts, facts_of
from .chat import AsyncChat, Chat, ChatBody, chat_settings
from .cost import Cost
from .credentials import find_address, find_key
from .dialects import Dialect, EmbeddingRequest, RerankRequest
from .dialects.media_rules import MediaRules
from .embeddings import Embedder, Embedding, EmbeddingCall, Embeddings
from .engines import Engine
from .environment import Environment
from .errors import ClosedError, ConfigurationError, UnsupportedError
from .estimates import estimated
from .handover import sendable
from .hooks import Hooks
from .loops import AnyLoop
from .messages import Audio, File, Image, Message, Text
from .model import Endpoint, Exchange, Local, Model, Remote
from .newer_facts import newer_facts
from .options import (
    Call,
    CompletionOptions,
    EmbeddingOptions,
    RerankOptions,
    Settings,
    checked_options,
    embedding_options,
    fetch_from,
    header_text,
    merged,
    phases_of,
    policy,
    seconds,
    whole,
)
from .prompts import Prompt, as_messages, attached
from .providers import (
    CAPABILITIES,
    PROVIDERS,
    ModelString,
    Provider,
    check_base_url,
    has_provider,
    is_same_server,
    parse_model,
)
from .requests import Explanation, Notice, OutputSchema, Request, Response, Secret
from .rerank import RerankCall, Reranker, Reranking
from .retry import Retry
from .rows import Account
from .runtime import Blocking, Line, Runtime, awaitable, blocking
from .schema import Schema, schema_of
from .server_facts import read_facts
from .strict_json import decode_json
from .tools import Toolbox
from .transports import Network, blocking_transport, check_transport, eventful_transport, network_of, runs_on_trio
from .turn import Turn, awaitable_stream, blocking_stream
from .usage import Usage
from .version import __version__

T = TypeVar("T")

TIMEOUT = 600.0
IDLE_TIMEOUT = 300.0
CONNECT_TIMEOUT = 10.0
MAX_ATTEMPTS = 3
MAX_TOOL_ROUNDS = 10
ACCOUNTS: tuple[Account, ...] = get_args(Account)

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
    has_chat: bool = True
    completer: Model | None = None
    embedder: Embedder | None = None
    reranker: Reranker | None = None
    capabilities: frozenset[str] | None = None
    notice: Notice | None = None
    defaults: Mapping[str, Any] = {}
    named: ModelString | None = None
    # Whether the server is the provider's own; what is known of its models counts only there.
    is_own: bool = False


class _Plan(NamedTuple):
    """One call, checked."""

    target: _Target
    facts: ModelFacts
    request: Request
    tools: Toolbox
    schema: Schema[Any] | None
    max_tool_rounds: int
    notices: tuple[Notice, ...]


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
        self._environment = Environment()
        self._account: dict[Account, str | None] = {
            name: header_text(options.pop(name, None), name) for name in ACCOUNTS
        }
        self._max_attempts = whole(options.pop("max_attempts", MAX_ATTEMPTS), "max_attempts", 1)
        self._max_tool_rounds = whole(options.pop("max_tool_rounds", MAX_TOOL_ROUNDS), "max_tool_rounds", 0)
        self._on_unsupported = policy(options.pop("on_unsupported", "warn"))
        self._hooks = Hooks(options.pop("hooks", ()))
        self._tools = Toolbox(options.pop("tools", ()))
        self._billing = Billing(options.pop("prices", None))
        transport = options.pop("transport", None)
        told = {name: options.pop(name) for name in ("ssl_context", "ca_file", "proxy", "http2") if name in options}
        network = network_of(transport, **told)
        is_ours = isinstance(transport, str | None)
        self._load = loader(network if is_ours else None, fetch_from(options.pop("fetch", "public")))
        self._runtime = runtime(transport, network)
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
        self._live: dict[int, weakref.ref[Turn[Any] | ListCall[Any]]] = {}
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
        messages = as_messages(prompt, attached(options), options.pop("system", None))
        return self.turn(messages, options, schema=schema, include=include, is_stream=is_stream)

    def turn(
        self,
        messages: tuple[Message, ...],
        *layers: Mapping[str, Any],
        schema: Any,
        include: Collection[str],
        is_stream: bool,
        when_over: Callable[[Turn[Any]], None] | None = None,
        is_raw: bool = False,
    ) -> Turn[Any]:
        """Prepare one call: all that can be wrong with it is found here, before anything is sent.

        `layers` are options over the client's own, each over the one before; `is_raw` says that the messages are
        prompts of raw text.
        """
        plan = self._planned(messages, layers, schema, is_stream, is_raw)
        exchange = self._exchange()
        if plan.target.notice is not None:
            exchange.notices.append(plan.target.notice)
            _tell_once_on_stderr(plan.target.notice.message)
        exchange.notices += plan.notices

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
            cost=partial(self._cost, plan),
            when_over=over,
        )
        self._keep(turn)
        return turn

    async def raw_complete(self, prompt: str | Sequence[str], **options: Unpack[CompletionOptions]) -> Response[None]:
        """Have a model go on with a text, which it is given as it stands: no roles, no template, no tools.

        Of several prompts, and of several answers to each (`n`), the first is the response's and all are its `choices`,
        numbered over prompts and answers. A system message has no place here: write it into the prompt, in the words
        that the model was trained with. For the rest see `CompletionOptions` and `Options`.

        Raises:
            SabirError: one of the family in `sabir.errors`, and nothing else.
        """
        takes = "raw_complete takes a text or a list of texts"
        texts = checked_texts([prompt] if isinstance(prompt, str) else prompt, takes, "prompt")
        if not texts:
            raise ConfigurationError(f"{takes}, and this list is empty")
        layers = ({"max_tool_rounds": 0, "tools": ()}, checked_options(options, CompletionOptions))
        messages = tuple(Message("user", (Text(text=text),)) for text in texts)
        turn = self.turn(messages, *layers, schema=None, include=frozenset(), is_stream=False, is_raw=True)
        return await turn.finish()

    def explain(self, prompt: Prompt, *, schema: Any = None, stream: bool = False, **call: Unpack[Call]) -> Explanation:
        """Show the exact request that `ask` (or `stream`) would send first, and what was lowered. Sends nothing."""
        options: dict[str, Any] = dict(call)
        messages = as_messages(prompt, attached(options), options.pop("system", None))
        plan = self._planned(messages, (options,), schema, stream)
        fit, dropped = sendable(plan.request.messages, plan.target.maker)
        http, notices = plan.target.model.explain(msgspec.structs.replace(plan.request, messages=fit))
        notices = (*plan.notices, *dropped, *notices)
        usage = estimated(plan.request)
        return Explanation(
            plan.target.name,
            plan.target.dialect,
            http.method,
            http.url,
            dict(http.headers),
            decode_json(http.body),
            notices,
            usage,
            None if usage is None else self._cost(plan, plan.request, msgspec.structs.replace(usage, output=0)),
        )

    def capabilities(self, model: str | None = None) -> ModelFacts:
        """What is known of a model, the default one if none is named: what it can do, takes and costs. Asks nobody."""
        return _facts(self._default if model is None else self._target(model))

    def _cost(self, plan: _Plan, request: Request, usage: Usage, message: Message | None = None) -> Cost | None:
        named = plan.target.named
        if named is None or not plan.target.is_remote:
            return None
        prices, is_own = plan.facts.prices, plan.target.is_own
        return self._billing.cost(named.provider.name, request, usage, message, listed=prices, is_own=is_own)

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
        embeddings = await self._embedded([texts] if isinstance(texts, str) else texts, options)
        return embeddings.only() if isinstance(texts, str) else embeddings

    async def embed_batch(self, texts: Sequence[str], **options: Unpack[EmbeddingOptions]) -> Embeddings:
        """Turn a list of texts into the list of their vectors: `embed`, where it is to be a list always."""
        if isinstance(texts, str):
            raise ConfigurationError("embed_batch takes a list of texts; for a single one there is embed")
        return await self._embedded(texts, options)

    async def embedding_dim(self, model: str | None = None) -> int:
        """How long the vectors of a model are; where that is not known, it is asked to embed a word, once."""
        target, embedder = self._embedding_target(model)
        known = embedder.dialect.dimensions_of.get(target.id) or self._dimensions.get(target.name)
        if known is None:
            vector = await self.embed("dimensions", model=model)
            known = self._dimensions[target.name] = len(vector)
        return known

    async def rerank(self, query: str, documents: Sequence[str], **options: Unpack[RerankOptions]) -> Reranking:
        """Rank documents by how well they fit a query: the list of `Ranked(index, score, document)`, best first.

        `index` is the document's place in the list that was given. Every document is ranked, with `top_n` so many of
        the best, or there is an error; for `[]` nothing is sent. For the rest see `RerankOptions`.

        Raises:
            SabirError: one of the family in `sabir.errors`, and nothing else.
        """
        texts = checked_texts(documents, "rerank takes a list of documents, which are texts", "document")
        checked_texts([query], "rerank takes a query, which is a text", "query")
        if self._is_closed:
            raise ClosedError("this client has been closed; make a new one")
        checked = checked_options(options, RerankOptions)
        target, reranker = self._rerank_target(checked.pop("model", None))
        if (top_n := checked.get("top_n")) is not None:
            whole(top_n, "top_n", 1)
        if not texts:
            return Reranking((), model=target.id)
        own: dict[str, Any] = {"headers": self._options.get("headers")}
        call = RerankCall(
            reranker=reranker,
            runtime=self._runtime,
            name=target.name,
            request=RerankRequest(model=target.id, query=query, documents=texts, **merged(own, checked)),
            exchange=self._exchange(),
            timeout=self._timeout,
            hooks=self._hooks.snapshot(),
        )
        self._keep(call)
        return await call.result()

    async def _embedded(self, texts: Sequence[str], options: EmbeddingOptions) -> Embeddings:
        inputs = checked_texts(texts, "embed takes a text or a list of texts", "text")
        if self._is_closed:
            raise ClosedError("this client has been closed; make a new one")
        checked = embedding_options(options)
        target, embedder = self._embedding_target(checked.pop("model", None))
        # Of the client's own options only these say something of an embedding; `extra` is of its conversations' format.
        own: dict[str, Any] = {name: self._options.get(name) for name in ("user", "headers")}
        if not inputs:
            return Embeddings((), model=target.id)
        call = EmbeddingCall(
            embedder=embedder,
            runtime=self._runtime,
            name=target.name,
            request=EmbeddingRequest(model=target.id, inputs=inputs, **merged(own, checked)),
            exchange=self._exchange(),
            timeout=self._timeout,
            hooks=self._hooks.snapshot(),
        )
        self._keep(call)
        return await call.result()

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

    def _rerank_target(self, model: str | None) -> tuple[_Target, Reranker]:
        target = self._default if model is None else self._target(model)
        if target.reranker is None:
            known = ", ".join(sorted(name for name, row in PROVIDERS.items() if row.rerank is not None))
            raise UnsupportedError(
                f"{target.name} ranks no documents; name a model of a provider that does, as in "
                f"model='cohere:rerank-v3.5'. There are: {known}",
                model=target.name,
            )
        return target, target.reranker

    def _completing(self, target: _Target) -> _Target:
        """The target, to be asked to go on with raw text."""
        dialect = None if target.named is None else target.named.provider.completions
        if target.completer is None or dialect is None:
            known = ", ".join(sorted(name for name, row in PROVIDERS.items() if row.completions is not None))
            raise UnsupportedError(
                f"{target.name} completes no raw text; use ask(), or name a model of a provider that does, as in "
                f"model='openai:gpt-3.5-turbo-instruct'. There are: {known}",
                model=target.name,
            )
        return msgspec.structs.replace(target, model=target.completer, dialect=dialect.name, has_chat=True)

    def _exchange(self) -> Exchange:
        line = Line(idle=self._idle_timeout, connect=self._connect_timeout, now=self._runtime.now)
        return Exchange(line, self._on_unsupported)

    def _planned(
        self,
        messages: tuple[Message, ...],
        layers: Sequence[Mapping[str, Any]],
        schema: Any,
        is_stream: bool,
        is_raw: bool = False,
    ) -> _Plan:
        if self._is_closed:
            raise ClosedError("this client has been closed; make a new one")
        checked = [self._options, *(checked_options(layer, Call) for layer in layers)]
        model = merged(*checked).get("model")
        target = self._default if model is None else self._target(model)
        if is_raw:
            target = self._completing(target)
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
        if not target.has_chat:
            raise UnsupportedError(
                f"{target.name} holds no conversations; ask it for embed() or rerank(), or name another model",
                model=target.name,
            )
        _check_tool_choice(request)
        facts = _facts(target)
        _check_capabilities(request, target, facts)
        return _Plan(target, facts, request, toolbox, shape, max_tool_rounds, _beyond_limits(request, target, facts))

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

    def _keep(self, call: Turn[Any] | ListCall[Any]) -> None:
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
        known = self._default.named if hasattr(self, "_default") and self._default.is_remote else None
        if known is not None and text.strip() and not has_provider(text):
            # A bare id is a model of the default's provider: its own address, key and quirks.
            return self._resolved_as(replace(known, id=text, capabilities=None))
        return self._resolved_as(parse_model(text))

    def _resolved_as(self, named: ModelString) -> _Target:
        row = named.provider
        dialect = row.dialect_of(named.id, self._base_url_for(named))
        endpoint = self._endpoint(named) if row.engine is None else None
        completer = embedder = reranker = None
        if endpoint is None:
            model, completer = self._local(named)
        else:
            model = self._remote(dialect, endpoint)
            completer = self._remote(row.completions, endpoint) if row.completions is not None else None
        if endpoint is not None and row.embeddings is not None:
            embedder = Asker(row.embeddings, endpoint, self._runtime, self._max_attempts)
        if endpoint is not None and row.rerank is not None:
            reranker = Asker(row.rerank, endpoint, self._runtime, self._max_attempts)
        return _Target(
            str(named),
            named.id,
            dialect.name,
            row.name if endpoint is None else endpoint.server,
            self._wrapped(model),
            is_remote=endpoint is not None,
            has_chat=row.has_chat,
            completer=completer and self._wrapped(completer),
            embedder=embedder,
            reranker=reranker,
            capabilities=self._capabilities(named),
            defaults=row.defaults or {},
            named=named,
            is_own=row.engine is None and find_address(row, self._base_url_for(named), self._environment).is_own,
        )

    def _capabilities(self, named: ModelString) -> frozenset[str] | None:
        """What a model can do: as declared, else as `sabir probe` saw it where a row says nothing of its server."""
        base_url = self._base_url_for(named)
        if named.capabilities is not None or not named.provider.is_generic or base_url is None:
            return named.capabilities
        facts = read_facts(base_url, named.id)
        return None if facts is None else facts.capabilities(CAPABILITIES)

    def _engine_target(self, engine: Engine) -> _Target:
        if not callable(getattr(engine, "deltas", None)):
            raise ConfigurationError(f"a model is named by a string or is an engine, not {type(engine).__name__}")
        name = getattr(engine, "name", type(engine).__name__)
        notices = tuple(_not_told(name, setting) for setting, value in self._account.items() if value is not None)
        local = Local(name, None, engine, self._runtime, notices)
        target = _Target(name, name, name, name, self._wrapped(local))
        self._targets[name] = target
        return target

    def _wrapped(self, model: Model) -> Model:
        for wrap in self._model_wrappers:
            model = wrap(model, self._runtime)
        return model

    def _remote(self, dialect: Dialect, endpoint: Endpoint) -> Model:
        remote = Remote(dialect, endpoint, self._runtime)
        model = Retry(remote, self._runtime, self._max_attempts)
        rules: MediaRules | None = getattr(dialect, "media", None)
        return model if rules is None else Attachments(model, rules, endpoint.server, self._runtime, self._load)

    def _endpoint(self, named: ModelString) -> Endpoint:
        row = named.provider
        # The client's own address and key are for the server it was made with, and for no other.
        own_provider, own_address = self._own_server or (None, None)
        base_url = self._base_url_for(named)
        is_own = row.name == own_provider and is_same_server(base_url or str(row.url), str(own_address))
        address = find_address(row, base_url, self._environment)
        key = find_key(row, base_url, self._api_key if is_own else None, self._environment)
        headers, notices = self._account_of(row)
        return Endpoint(row.name, address.url, key, self._runtime, (("user-agent", _USER_AGENT), *headers), notices)

    def _base_url_for(self, named: ModelString) -> str | None:
        """The address that the caller gave for a model, if any."""
        own_provider, _ = self._own_server or (None, None)
        return named.base_url or (self._base_url if named.provider.name == own_provider else None)

    def _account_of(self, row: Provider) -> tuple[tuple[tuple[str, str], ...], tuple[Notice, ...]]:
        """The headers that say for whom a request is, and what a provider has no header for."""
        given: dict[Account, str] = {name: value for name, value in self._account.items() if value is not None}
        headers = tuple(
            (row.account_headers[name], value) for name, value in given.items() if name in row.account_headers
        )
        notices = tuple(_not_told(row.name, name) for name in given if name not in row.account_headers)
        return headers, notices

    def _local(self, named: ModelString) -> tuple[Model, Model | None]:
        """A model in this process, and the same for raw text."""
        if named.provider.name == (self._own_server or ("",))[0] and (self._base_url or self._api_key):
            raise ConfigurationError(f"{named} runs in this process: it takes no base_url= and no api_key=")
        room = import_module(f"sabir.engines.{named.provider.engine}")
        engine: Engine = room.engine(named.id, named.provider)
        self._engines.append(engine)
        notices = self._account_of(named.provider)[1]
        chat, completions = named.provider.dialect, named.provider.completions
        model = Local(named.provider.name, chat, engine, self._runtime, notices)
        if completions is None:
            return model, None
        raw: Engine = room.completing(engine, completions)
        return model, Local(named.provider.name, completions, raw, self._runtime, notices)


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

    def capabilities(self, model: str | None = None) -> ModelFacts:
        """What is known of a model, the default one if none is named: what it can do, takes and costs. Asks nobody."""
        return self._body.capabilities(model)

    def explain(self, prompt: Prompt, *, schema: Any = None, stream: bool = False, **call: Unpack[Call]) -> Explanation:
        """Show the exact request that `ask` (or `stream`) would send first, and what was lowered. Sends nothing."""
        return self._body.explain(prompt, schema=schema, stream=stream, **call)

    def close(self) -> None:
        """End live streams, close connections and let models go. Idempotent, legal from any thread."""
        self._body.close()


@final
class Client(_Handle):
    """A handle on one or several models. Stateless: every call stands alone; `chat()` begins a conversation.

    Nothing is connected or loaded here, and nothing read from disk but a `ca_file`, and `.env` where a variable that is
    needed is not set; the first call does that.
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
    raw_complete = blocking(ClientBody.raw_complete)
    embed = blocking(ClientBody.embed)
    embed_batch = blocking(ClientBody.embed_batch)
    embedding_dim = blocking(ClientBody.embedding_dim)
    rerank = blocking(ClientBody.rerank)

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
    raw_complete = awaitable(ClientBody.raw_complete)
    embed = awaitable(ClientBody.embed)
    embed_batch = awaitable(ClientBody.embed_batch)
    embedding_dim = awaitable(ClientBody.embedding_dim)
    rerank = awaitable(ClientBody.rerank)

    def chat(self, *, messages: Iterable[Message | Mapping[str, Any]] = (), **options: Unpack[Call]) -> AsyncChat:
        """Begin a conversation, or go on with one; `options` are the defaults of its calls."""
        return AsyncChat(ChatBody(self._body, *chat_settings(messages, options)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


def _not_told(provider: str, name: str) -> Notice:
    return Notice("unsupported", name, f"{name} was not sent: {provider} has no header for it; its key says who asks")


def _check_tool_choice(request: Request) -> None:
    choice = request.tool_choice
    if choice in (None, "auto", "none", "required") or any(tool.name == choice for tool in request.tools):
        return
    names = ", ".join(tool.name for tool in request.tools) or "none"
    raise ConfigurationError(
        f"tool_choice is 'auto', 'none', 'required' or the name of a tool, not {choice!r}; the tools are: {names}"
    )


def _facts(target: _Target) -> ModelFacts:
    """What is known of a model; of what the caller or the provider's row declares, nothing else is believed."""
    named = target.named
    facts = UNKNOWN
    if named is not None and target.is_own:
        facts = facts_of(named.provider.name, named.id, newer_facts())
    return facts if target.capabilities is None else facts.declared(target.capabilities, CAPABILITIES)


def _check_capabilities(request: Request, target: _Target, facts: ModelFacts) -> None:
    """Refuse what a model is known to be incapable of; what is not known is tried.

    Raises:
        UnsupportedError: says what, and who says so.
    """
    parts = [part for message in request.messages for part in message.parts]
    kinds = {type(part) for part in parts}
    needs = (
        ("tools", bool(request.tools), "run tools"),
        ("vision", Image in kinds, "see images"),
        ("audio", Audio in kinds, "hear audio"),
        ("pdf", any(isinstance(part, File) and part.media_type == "application/pdf" for part in parts), "read PDF"),
        ("structured", request.schema is not None, "keep to a schema"),
        ("thinking", request.thinking not in (None, False), "think"),
    )
    for ability, is_needed, what in needs:
        if is_needed and getattr(facts, ability) is False:
            is_declared = target.capabilities is not None and ability in CAPABILITIES
            # A table may be wrong, and who asks may know better.
            who = "" if is_declared else f", says {facts.source} of {facts.checked_on}"
            hint = f", or say what it can do: '{target.name};{ability},…'" if who and ability in CAPABILITIES else ""
            raise UnsupportedError(f"{target.name} cannot {what}{who}; choose another model{hint}", model=target.name)


def _beyond_limits(request: Request, target: _Target, facts: ModelFacts) -> tuple[Notice, ...]:
    most = facts.max_output
    if request.max_tokens is None or most is None or request.max_tokens <= most:
        return ()
    text = f"max_tokens={request.max_tokens} was sent, though {target.name} writes at most {most} tokens, says "
    return (Notice("limit", "max_tokens", f"{text}{facts.source}"),)


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
