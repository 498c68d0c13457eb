"""Where models are found: model strings and engines, resolved to what answers them, each once for a client.

Here a row of the providers' table meets a client's own address, key and wrappers; knows no call and no option of one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

import msgspec

from .attachments import Attachments, Load
from .batcher import Batcher
from .calls import Asker
from .catalog import UNKNOWN, ModelFacts, facts_of
from .credentials import find_address, find_key
from .dialects import Dialect, Resumable
from .dialects.cache_marks import Caching
from .dialects.media_rules import MediaRules
from .dialects.prefills import Prefill
from .embeddings import Embedder
from .engines import Engine
from .environment import Environment
from .errors import ConfigurationError
from .media_calls import MediaAsker
from .model import Endpoint, Local, Model, Remote
from .newer_facts import newer_facts
from .options import (
    ModelWrapping,
)
from .pictures import Artist
from .providers import (
    CAPABILITIES,
    ModelString,
    Provider,
    check_base_url,
    has_provider,
    is_same_server,
    parse_model,
)
from .pulling import Puller
from .recovery import Resuming
from .requests import Notice, Request, SchemaMode
from .rerank import Reranker
from .retry import Retry
from .rows import Account
from .runtime import Runtime
from .server_facts import ServerFacts, read_facts
from .speech import (
    Speaker,
)
from .transcripts import Scribe
from .version import __version__

_USER_AGENT = f"sabir/{__version__}"
Models = str | Engine | Sequence[str | Engine] | None

_PICO_NOTICE = Notice(
    "default_model",
    "model",
    "no model was named, so the one inside the package answers: Pico, 1.5 million parameters, a toy that knows a few "
    "tricks. Name one with model= or the environment variable SABIR_MODEL.",
)


class Target(msgspec.Struct, frozen=True):
    """A model string, resolved."""

    name: str
    id: str
    dialect: str
    maker: str
    model: Model
    schema_modes: Callable[[Request], tuple[SchemaMode, ...]] = lambda _: ("native",)
    is_remote: bool = False
    has_chat: bool = True
    completer: Model | None = None
    embedder: Embedder | None = None
    reranker: Reranker | None = None
    puller: Puller | None = None
    artist: Artist | None = None
    speaker: Speaker | None = None
    scribe: Scribe | None = None
    batcher: Batcher | None = None
    prefill: Prefill | None = None
    in_background: Callable[[Request], Request | None] | None = None
    capabilities: frozenset[str] | None = None
    probed: ServerFacts | None = None
    notice: Notice | None = None
    defaults: Mapping[str, Any] = {}
    named: ModelString | None = None
    # Whether the server is the provider's own; what is known of its models counts only there.
    is_own: bool = False
    # How many tokens a prompt has to have to be kept by it; None if that is not known.
    least_kept: int | None = None


class Targets:
    """The models of one client. The first listed is the default; others are found by their strings."""

    def __init__(
        self,
        models: Models,
        runtime: Runtime,
        *,
        base_url: str | None,
        api_key: Any,
        account: Mapping[Account, str | None],
        max_attempts: int,
        wrappers: tuple[ModelWrapping, ...],
        load: Load,
    ) -> None:
        if base_url is not None:
            check_base_url(base_url)
        self._runtime = runtime
        self._base_url = base_url
        self._api_key = api_key
        self._account = account
        self._max_attempts = max_attempts
        self._model_wrappers = wrappers
        self._load = load
        self._environment = Environment()
        self._targets: dict[str, Target] = {}
        self._engines: list[Engine] = []
        listed = self._listed(models)
        self.names = tuple(target.name for target in listed)
        self.default = listed[0]

    def find(self, text: str) -> Target:
        """What a model string stands for; a bare id is a model of the default's provider.

        Raises:
            ConfigurationError: it stands for nothing, or its provider's address or key is not known.
        """
        if not isinstance(text, str):
            raise ConfigurationError(f"a model is named by a string like 'openai:gpt-4o-mini', not {text!r}")
        if (known := self._targets.get(text)) is None:
            known = self._targets[text] = self._resolved(text)
        return known

    def for_batches(self, provider: str, model: str) -> Target:
        """A model of a provider's, at the address of this client's if it has one of that provider."""
        name = f"{provider}:{model} in batches"
        if (known := self._targets.get(name)) is None:
            ours = (target.named for target in self._targets.values())
            own = next((named for named in ours if named is not None and named.provider.name == provider), None)
            if own is None:
                own = parse_model(f"{provider}:{model or '?'}")
            known = self._targets[name] = self._resolved_as(replace(own, id=model, capabilities=None))
        return known

    def close(self) -> None:
        """Let the models in this process go."""
        while self._engines:
            self._engines.pop().close()

    def _listed(self, models: Models) -> tuple[Target, ...]:
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
        targets = [self.find(item) if isinstance(item, str) else self._engine_target(item) for item in listed]
        return tuple(msgspec.structs.replace(target, notice=notice) for target in targets)

    def _resolved(self, text: str) -> Target:
        known = self.default.named if hasattr(self, "default") and self.default.is_remote else None
        if known is not None and text.strip() and not has_provider(text):
            # A bare id is a model of the default's provider: its own address, key and quirks.
            return self._resolved_as(replace(known, id=text, capabilities=None))
        return self._resolved_as(parse_model(text))

    def _resolved_as(self, named: ModelString) -> Target:
        row = named.provider
        dialect = row.dialect_of(named.id, self._base_url_for(named))
        endpoint = self._endpoint(named) if row.engine is None else None
        completer = embedder = reranker = puller = batcher = None
        if endpoint is None:
            model, completer = self._local(named)
        else:
            model = self._remote(dialect, endpoint)
            completer = self._remote(row.completions, endpoint) if row.completions is not None else None
        embeddings = row.embeddings_of(named.id)
        if endpoint is not None and embeddings is not None:
            embedder = Asker(embeddings, endpoint, self._runtime, self._max_attempts)
        if endpoint is not None and row.rerank is not None:
            reranker = Asker(row.rerank, endpoint, self._runtime, self._max_attempts)
        if endpoint is not None and row.pull is not None:
            puller = Puller(row.pull, endpoint, self._runtime, self._max_attempts)
        if endpoint is not None and row.batches is not None:
            formats = (dialect, row.dialect, *(other for _, other in row.by_model))
            fitted = partial(self._fitted, dialect, endpoint)
            batcher = Batcher(row.name, row.batches, formats, endpoint, self._runtime, self._max_attempts, fitted)
        making = None if endpoint is None else (endpoint, self._runtime, self._max_attempts, self._load)
        is_own = row.engine is None and find_address(row, self._base_url_for(named), self._environment).is_own
        caching: Caching | None = getattr(dialect, "caching", None)
        return Target(
            str(named),
            named.id,
            dialect.name,
            row.name if endpoint is None else endpoint.server,
            self._wrapped(model),
            dialect.schema_modes,
            is_remote=endpoint is not None,
            has_chat=row.has_chat,
            completer=completer and self._wrapped(completer),
            embedder=embedder,
            reranker=reranker,
            puller=puller,
            artist=MediaAsker(row.images, *making) if making and row.images else None,
            speaker=MediaAsker(row.speech, *making) if making and row.speech else None,
            scribe=MediaAsker(row.transcripts, *making) if making and row.transcripts else None,
            batcher=batcher,
            prefill=getattr(dialect, "prefill", None),
            in_background=dialect.in_background if isinstance(dialect, Resumable) and dialect.background else None,
            capabilities=named.capabilities,
            probed=self._probed(named),
            defaults=row.defaults or {},
            named=named,
            is_own=is_own,
            least_kept=caching.least_for(named.id) if is_own and caching is not None else None,
        )

    def _probed(self, named: ModelString) -> ServerFacts | None:
        """What `sabir probe` found out of a model, where a row says nothing of its server."""
        base_url = self._base_url_for(named)
        return None if base_url is None or not named.provider.is_generic else read_facts(base_url, named.id)

    def _engine_target(self, engine: Engine) -> Target:
        if not callable(getattr(engine, "deltas", None)):
            raise ConfigurationError(f"a model is named by a string or is an engine, not {type(engine).__name__}")
        name = getattr(engine, "name", type(engine).__name__)
        notices = tuple(not_told(name, setting) for setting, value in self._account.items() if value is not None)
        local = Local(name, None, engine, self._runtime, notices)
        target = Target(name, name, name, name, self._wrapped(local))
        self._targets[name] = target
        return target

    def _wrapped(self, model: Model) -> Model:
        for wrap in self._model_wrappers:
            model = wrap(model, self._runtime)
        return model

    def _remote(self, dialect: Dialect, endpoint: Endpoint) -> Model:
        model: Model = (remote := Remote(dialect, endpoint, self._runtime))
        if isinstance(dialect, Resumable) and dialect.background:
            model = Resuming(remote, dialect, endpoint, self._runtime)
        return self._fitted(dialect, endpoint, Retry(model, self._runtime, self._max_attempts))

    def _fitted(self, dialect: Dialect, endpoint: Endpoint, model: Model) -> Model:
        """The model, told of images, sounds and files only what its server takes."""
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
        notices = tuple(not_told(row.name, name) for name in given if name not in row.account_headers)
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


def facts_of_target(target: Target) -> ModelFacts:
    """What is known of a model; of what the caller or the provider's row declares, nothing else is believed."""
    named = target.named
    facts = UNKNOWN if target.probed is None else target.probed.of_model
    if named is not None and target.is_own:
        facts = facts_of(named.provider.name, named.id, newer_facts())
    return facts if target.capabilities is None else facts.declared(target.capabilities, CAPABILITIES)


def not_told(provider: str, name: str) -> Notice:
    return Notice("unsupported", name, f"{name} was not sent: {provider} has no header for it; its key says who asks")
