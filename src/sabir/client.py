"""A handle on models: ask one, stream from one. Stateless but for its settings and connections.

`ClientBody` is written once, as coroutines over a runtime; `AsyncClient` and `Client` are its two faces.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, Self, TypeVar, Unpack, final, get_args, overload

import msgspec

from .attachments import loader
from .batcher import Answer, Batcher, Kept, Planned
from .batches import AsyncBatches, Batches, BatchesBody
from .billing import Billing
from .calls import checked_texts
from .capability_checks import beyond_limits, check_capabilities, check_tool_choice
from .catalog import ModelFacts
from .chat import AsyncChat, Chat, ChatBody, chat_settings
from .chunks import Phase
from .cost import Cost
from .dialects import EmbeddingRequest, RerankRequest
from .dialects.media_formats import Asked, ImageRequest, SpeechRequest, TranscriptRequest
from .dialects.ollama_pull import PullRequest
from .embeddings import Embedder, Embedding, EmbeddingCall, Embeddings
from .errors import ClosedError, ConfigurationError, UnsupportedError
from .estimates import estimated
from .handover import sendable
from .hooks import Hooks
from .loops import AnyLoop
from .media import AudioSource, ImageSource
from .media_calls import AsyncMediaStream, MediaCall, MediaStream, Setting
from .messages import Message, ProviderState, ServerItem, Text
from .model import Exchange, Model
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
    recovery_ways,
    schema_mode,
    seconds,
    whole,
)
from .pictures import ImageCall, ImageOptions, ImageResponse, image_request
from .prompt_cache import PromptMemory, Watch
from .prompts import Prompt, as_messages, attached, check_asks
from .providers import PROVIDERS, find_provider
from .pulling import OnProgress, Pull
from .recovery import Recovery
from .requests import Explanation, Notice, Options, OutputSchema, Request, Response, SchemaMode, Secret
from .rerank import RerankCall, Reranker, Reranking
from .rows import Account
from .runtime import Blocking, Line, Runtime, awaitable, blocking
from .schema import Schema, schema_of
from .speech import (
    AsyncSpeechStream,
    SpeechCall,
    SpeechOptions,
    SpeechResponse,
    SpeechStream,
    speech_request,
)
from .streams import reader_of
from .strict_json import decode_json
from .structured import ByTool, way_of
from .targets import Models, Target, Targets, facts_of_target
from .tools import Toolbox
from .transcripts import TranscriptCall, Transcription, TranscriptOptions, transcript_request
from .transports import Network, blocking_transport, check_transport, eventful_transport, network_of, runs_on_trio
from .turn import Turn, awaitable_stream, blocking_stream
from .usage import Usage

T = TypeVar("T")
MediaCallT = TypeVar("MediaCallT", bound=MediaCall[Any, Any, Any, Any])

TIMEOUT = 600.0
IDLE_TIMEOUT = 300.0
CONNECT_TIMEOUT = 10.0
MAX_ATTEMPTS = 3
MAX_TOOL_ROUNDS = 10
ACCOUNTS: tuple[Account, ...] = get_args(Account)


# What `recover` asks of a provider that makes answers in the background.
_KEPT = Notice(
    "advice",
    "recover",
    "the answer is made in the background and kept by the provider for a while (background, store), so that it can be "
    "read on if its stream breaks off; recover=['continue', 'restart'] does without",
)
_NOT_ANNOUNCED = Notice(
    "unsupported",
    "recover",
    "an answer that breaks off is not asked for again from its beginning, since include= leaves out the chunk that "
    "would say so: add 'restarting' to it",
)
_NOT_KEPT = Notice(
    "unsupported",
    "recover",
    "the answer cannot be read on if its stream breaks off, since extra= says that it is not to be kept: leave "
    "'background' and 'store' out of it",
)


class _Endable(Protocol):
    """Something that is under way, and ends with its client."""

    def end(self) -> None: ...


class _Plan(NamedTuple):
    """One call, checked."""

    target: Target
    facts: ModelFacts
    request: Request
    model: Model
    tools: Toolbox
    schema: Schema[Any] | None
    schema_mode: SchemaMode | None
    max_tool_rounds: int
    validation_retries: int
    notices: tuple[Notice, ...]
    # Whether the provider keeps the answer, so that it can be read on if it breaks off.
    resumes: bool = False


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
        base_url, api_key = options.pop("base_url", None), options.pop("api_key", None)
        account: dict[Account, str | None] = {name: header_text(options.pop(name, None), name) for name in ACCOUNTS}
        self._max_attempts = whole(options.pop("max_attempts", MAX_ATTEMPTS), "max_attempts", 1)
        self._max_tool_rounds = whole(options.pop("max_tool_rounds", MAX_TOOL_ROUNDS), "max_tool_rounds", 0)
        self._validation_retries = whole(options.pop("validation_retries", 0), "validation_retries", 0)
        self._recover = recovery_ways(options.pop("recover", False))
        self._on_unsupported = policy(options.pop("on_unsupported", "warn"))
        self._hooks = Hooks(options.pop("hooks", ()))
        self._tools = Toolbox(options.pop("tools", ()))
        self._billing = Billing(options.pop("prices", None))
        self._prompts = PromptMemory()
        transport = options.pop("transport", None)
        told = {name: options.pop(name) for name in ("ssl_context", "ca_file", "proxy", "http2") if name in options}
        network = network_of(transport, **told)
        is_ours = isinstance(transport, str | None)
        load = loader(network if is_ours else None, fetch_from(options.pop("fetch", "public")))
        self._runtime = runtime(transport, network)
        for wrap in options.pop("runtime_wrappers", ()):
            self._runtime = wrap(self._runtime)
        wrappers = tuple(options.pop("model_wrappers", ()))
        self._options = options
        # Weak, so that a turn whose reader an interrupt took away is as good as dropped.
        # A plain dict, since it is copied while other threads add to it, which a WeakSet does not bear.
        self._live: dict[int, weakref.ref[_Endable]] = {}
        self._dimensions: dict[str, int] = {}
        self._is_closed = False
        self._targets = Targets(
            models,
            self._runtime,
            base_url=base_url,
            api_key=Secret(api_key) if isinstance(api_key, str) else api_key,
            account=account,
            max_attempts=self._max_attempts,
            wrappers=wrappers,
            load=load,
        )

    @property
    def models(self) -> tuple[str, ...]:
        """The models this client was made with."""
        return self._targets.names

    @property
    def default_model(self) -> str:
        """The model that is asked where a call names none."""
        return self._targets.default.name

    @default_model.setter
    def default_model(self, model: str) -> None:
        self._targets.default = self._targets.find(model)

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
        is_blind = is_stream and not _sees_restarts(include)
        plan = self._planned(messages, layers, schema, is_stream, is_raw, is_blind=is_blind)
        exchange = self._exchange()
        if plan.target.notice is not None:
            exchange.notices.append(plan.target.notice)
            _tell_once_on_stderr(plan.target.notice.message)
        exchange.notices += plan.notices
        exchange.resumes = plan.resumes

        def over(turn: Turn[Any]) -> None:
            self._live.pop(id(turn), None)
            if when_over is not None:
                when_over(turn)

        cost = partial(self._cost, plan)
        turn: Turn[Any] = Turn(
            runtime=self._runtime,
            model=plan.model,
            name=plan.target.name,
            dialect=plan.target.dialect,
            maker=plan.target.maker,
            request=plan.request,
            exchange=exchange,
            timeout=self._timeout,
            tools=plan.tools,
            schema=plan.schema,
            schema_mode=plan.schema_mode,
            max_tool_rounds=plan.max_tool_rounds,
            validation_retries=plan.validation_retries,
            include=include,
            hooks=self._hooks.snapshot(),
            cost=cost,
            when_over=over,
            watch=Watch(self._prompts, plan.target.name, cost, plan.target.least_kept),
        )
        self.keep(turn)
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
        http, notices = plan.model.explain(msgspec.structs.replace(plan.request, messages=fit))
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
            plan.schema_mode,
        )

    def capabilities(self, model: str | None = None) -> ModelFacts:
        """What is known of a model, the default one if none is named: what it can do, takes and costs. Asks nobody."""
        return facts_of_target(self._targets.default if model is None else self._targets.find(model))

    @property
    def runtime(self) -> Runtime:
        """All that this client touches of the outside."""
        return self._runtime

    def batcher(self, provider: str) -> Batcher:
        """Where the batches of a provider are: one of this client's, at its address, or any other."""
        # One that has none is not worth a key.
        if (row := find_provider(provider)) is not None and row.batches is None:
            raise _no_batches(provider)
        return self._batching(self._targets.for_batches(provider, ""))

    def batch_plan(self, messages: tuple[Message, ...], options: Mapping[str, Any], schema: Any) -> Planned:
        """Prepare one prompt of a batch: all that can be wrong with it is found here."""
        name = merged(self._options, checked_options(options, Call)).get("model")
        target = self._targets.default if name is None else self._targets.find(name)
        batcher = self._batching(target)
        kept = Kept(batcher.asked_in)
        layers = ({"max_tool_rounds": 0}, options)
        plan = self._planned(messages, layers, schema, is_stream=False, answers=batcher.fitted(kept))
        fit, notices = sendable(plan.request.messages, target.maker)
        request = msgspec.structs.replace(plan.request, messages=fit)
        return Planned(batcher, request, plan.model, kept, plan.schema_mode, (*plan.notices, *notices))

    def batch_turn(self, batcher: Batcher, model: str, answer: Answer, schema: Any) -> Turn[Any]:
        """The turn in which an answer of a batch is read as any other; the hooks are not told of it."""
        plan = self._batch_answer(batcher, model, answer, schema)
        return Turn(
            runtime=self._runtime,
            model=plan.model,
            name=plan.target.name,
            dialect=answer.dialect.name,
            maker=plan.target.maker,
            request=plan.request,
            exchange=self._exchange(),
            timeout=self._timeout,
            tools=plan.tools,
            schema=plan.schema,
            schema_mode=plan.schema_mode,
            max_tool_rounds=0,
            validation_retries=0,
            include=frozenset(),
            hooks=(),
            cost=partial(self._batch_cost, batcher, plan),
            when_over=lambda _: None,
        )

    def batch_cost(self, batcher: Batcher, model: str, answer: Answer, response: Response[Any]) -> Cost | None:
        """What an answer of a batch cost."""
        plan = self._batch_answer(batcher, model, answer, None)
        return self._batch_cost(batcher, plan, plan.request, response.usage, response.message)

    def _batch_cost(
        self, batcher: Batcher, plan: _Plan, request: Request, usage: Usage, message: Message
    ) -> Cost | None:
        # What the provider itself ran is billed by the use, and whether it was to run anything is not known here.
        is_more = any(isinstance(part, ServerItem) for part in message.parts)
        return None if is_more else batcher.reduced(self._cost(plan, request, usage, message), usage)

    def open_exchange(self) -> tuple[Exchange, float | None]:
        """What one call leaves behind, and the seconds that it may take."""
        if self._is_closed:
            raise ClosedError("this client has been closed; make a new one")
        return self._exchange(), self._timeout

    def _batch_answer(self, batcher: Batcher, model: str, answer: Answer, schema: Any) -> _Plan:
        target = self._targets.for_batches(batcher.provider, model)
        shape: Schema[Any] | None = None if schema is None else schema_of(schema)
        request = Request(model=model, messages=())
        if shape is not None:
            request = msgspec.structs.replace(request, schema=OutputSchema(shape.name, shape.json))
        return _Plan(
            target=target,
            facts=facts_of_target(target),
            request=request,
            model=ByTool(answer) if answer.schema_mode == "tool" else answer,
            tools=Toolbox(()),
            schema=shape,
            schema_mode=answer.schema_mode,
            max_tool_rounds=0,
            validation_retries=0,
            notices=(),
        )

    def _batching(self, target: Target) -> Batcher:
        if target.batcher is None:
            raise _no_batches(target.name)
        return target.batcher

    def _cost(self, plan: _Plan, request: Request, usage: Usage, message: Message | None = None) -> Cost | None:
        named = plan.target.named
        if named is None or not plan.target.is_remote:
            return None
        prices, is_own = plan.facts.prices, plan.target.is_own
        return self._billing.cost(named.provider.name, request, usage, message, listed=prices, is_own=is_own)

    def _list_cost(
        self,
        target: Target,
        request: EmbeddingRequest | RerankRequest,
        usage: Usage,
        state: ProviderState | None,
    ) -> Cost | None:
        if target.named is None:
            return None
        provider, listed = target.named.provider.name, facts_of_target(target).prices
        return self._billing.list_cost(provider, request, usage, state, listed=listed, is_own=target.is_own)

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
            cost=partial(self._list_cost, target),
            exchange=self._exchange(),
            timeout=self._timeout,
            hooks=self._hooks.snapshot(),
        )
        self.keep(call)
        return await call.result()

    async def pull(
        self,
        model: str | None = None,
        *,
        on_progress: OnProgress | None = None,
        timeout: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Have the server fetch a model, the default one if none is named, so that it can be asked: Ollama does that.

        `on_progress` is called with each `PullProgress`; it may be `async def`, and what it raises ends the pull.
        `timeout` is the most seconds that it may take in all; None is no limit, whatever the client's own `timeout`,
        since it takes as long as the model is large. The client's `idle_timeout` ends a pull of which nothing is heard.
        One that breaks off is begun again, up to `max_attempts`, and goes on where it was. One that is left (cancelled,
        interrupted, closed) is left by the server too, which keeps what it has. `extra` goes to the wire as it is, as
        in `{"insecure": True}`. Hooks are told of answers, and this is none.

        Raises:
            SabirError: one of the family in `sabir.errors`: a `NotFoundError` where there is no such model, a
                `ConfigurationError` where the provider fetches none. And what `on_progress` raises, as it is.
        """
        if self._is_closed:
            raise ClosedError("this client has been closed; make a new one")
        target = self._targets.default if model is None else self._targets.find(model)
        if target.puller is None:
            known = ", ".join(sorted(name for name, row in PROVIDERS.items() if row.pull is not None))
            raise ConfigurationError(
                f"{target.name} cannot be pulled: its provider has no such request; there are: {known}, as in "
                "pull('ollama:llama3.2')",
                model=target.name,
            )
        if on_progress is not None and not callable(on_progress):
            raise ConfigurationError(f"on_progress is a function, not {type(on_progress).__name__}")
        own = {"headers": self._options.get("headers")}
        request = PullRequest(model=target.id, **merged(own, checked_options({"extra": extra}, Options)))
        pull = Pull(target.puller, request, self._exchange(), seconds(timeout, "timeout"), on_progress)
        self.keep(pull)
        await pull.done()

    async def image(
        self,
        prompt: str,
        *,
        images: Iterable[ImageSource] | None = None,
        mask: ImageSource | None = None,
        **options: Unpack[ImageOptions],
    ) -> ImageResponse:
        """Make a picture of words, or of `images` that it is to be like or to change, where `mask` is transparent.

        Its `images` are parts that any message may have; `save` writes them to files. For the rest see `ImageOptions`.

        Raises:
            SabirError: one of the family in `sabir.errors`, and nothing else.
        """
        return await self._image_call(prompt, images, mask, None, False, options).finish()

    def open_image(
        self,
        prompt: str,
        *,
        images: Iterable[ImageSource] | None = None,
        mask: ImageSource | None = None,
        include: Iterable[str] | None = None,
        **options: Unpack[ImageOptions],
    ) -> ImageCall:
        """See a picture come, as `image_generating` chunks; then `response` is what `image` would have returned.

        With `previews` there are unfinished pictures among them, where the provider shows some.
        """
        return self._image_call(prompt, images, mask, include, True, options)

    async def speak(self, text: str, **options: Unpack[SpeechOptions]) -> SpeechResponse:
        """Have a text spoken. `audio` is the sound, `save` writes it to a file. For the rest see `SpeechOptions`.

        Raises:
            SabirError: one of the family in `sabir.errors`, and nothing else.
        """
        return await self._speech_call(text, None, False, options).finish()

    def open_speech(
        self, text: str, *, include: Iterable[str] | None = None, **options: Unpack[SpeechOptions]
    ) -> SpeechCall:
        """Hear a text as it is spoken, as `speech_generating` chunks; then `response` is what `speak` would return."""
        return self._speech_call(text, include, True, options)

    async def transcribe(self, audio: AudioSource, **options: Unpack[TranscriptOptions]) -> Transcription:
        """Write down what is said in a recording: a path, bytes, URL or what else `sabir.audio` takes.

        For the rest see `TranscriptOptions`.

        Raises:
            SabirError: one of the family in `sabir.errors`, and nothing else.
        """
        return await self._transcript_call(audio, None, False, options).finish()

    def open_transcript(
        self, audio: AudioSource, *, include: Iterable[str] | None = None, **options: Unpack[TranscriptOptions]
    ) -> TranscriptCall:
        """See a transcript come, as `generating` chunks; then `response` is what `transcribe` would have returned."""
        return self._transcript_call(audio, include, True, options)

    def _image_call(
        self,
        prompt: str,
        images: Iterable[ImageSource] | None,
        mask: ImageSource | None,
        include: Iterable[str] | None,
        is_stream: bool,
        options: ImageOptions,
    ) -> ImageCall:
        own = {name: self._options.get(name) for name in ("user", "headers")}
        model, fields = image_request(prompt, images, mask, own, options)
        target = self._making(model)
        if target.artist is None:
            raise self._cannot(target, "images", "makes no pictures", "openai:gpt-image-2")
        request = ImageRequest(model=target.id, stream=is_stream, **fields)
        return self._kept(ImageCall(target.artist, request, self._setting(target, include)))

    def _speech_call(
        self, text: str, include: Iterable[str] | None, is_stream: bool, options: SpeechOptions
    ) -> SpeechCall:
        model, fields = speech_request(text, {"headers": self._options.get("headers")}, options)
        target = self._making(model)
        if target.speaker is None:
            raise self._cannot(target, "speech", "does not speak", "openai:gpt-4o-mini-tts")
        request = SpeechRequest(model=target.id, stream=is_stream, **fields)
        return self._kept(SpeechCall(target.speaker, request, self._setting(target, include)))

    def _transcript_call(
        self, audio: AudioSource, include: Iterable[str] | None, is_stream: bool, options: TranscriptOptions
    ) -> TranscriptCall:
        model, fields = transcript_request(audio, {"headers": self._options.get("headers")}, options)
        target = self._making(model)
        if target.scribe is None:
            raise self._cannot(target, "transcripts", "transcribes nothing", "openai:gpt-4o-transcribe")
        request = TranscriptRequest(model=target.id, stream=is_stream, **fields)
        return self._kept(TranscriptCall(target.scribe, request, self._setting(target, include)))

    def _making(self, model: str | None) -> Target:
        if self._is_closed:
            raise ClosedError("this client has been closed; make a new one")
        return self._targets.default if model is None else self._targets.find(model)

    def _cannot(self, target: Target, field: str, what: str, example: str) -> UnsupportedError:
        known = ", ".join(sorted(name for name, row in PROVIDERS.items() if getattr(row, field) is not None))
        text = f"{target.name} {what}; name a model of a provider that does, as in model={example!r}. There are: "
        return UnsupportedError(f"{text}{known}", model=target.name)

    def _setting(self, target: Target, include: Iterable[str] | None) -> Setting:
        return Setting(
            name=target.name,
            exchange=self._exchange(),
            timeout=self._timeout,
            hooks=self._hooks.snapshot(),
            include=phases_of(include),
            cost=partial(self._media_cost, target),
        )

    def _media_cost(self, target: Target, asked: Asked, usage: Usage, state: ProviderState | None) -> Cost | None:
        if target.named is None:
            return None
        # Lists of prices are for texts: of pictures and sounds they do not tell all. The caller and the provider do.
        request = Request(model=asked.model, messages=(), extra=asked.extra)
        said = Message("assistant", (), state=state)
        return self._billing.cost(target.named.provider.name, request, usage, said, listed=None, is_own=False)

    def _kept(self, call: MediaCallT) -> MediaCallT:
        self.keep(call)
        return call

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
            cost=partial(self._list_cost, target),
            exchange=self._exchange(),
            timeout=self._timeout,
            hooks=self._hooks.snapshot(),
        )
        self.keep(call)
        return await call.result()

    def _embedding_target(self, model: str | None) -> tuple[Target, Embedder]:
        target = self._targets.default if model is None else self._targets.find(model)
        if target.embedder is None:
            known = ", ".join(sorted(name for name, row in PROVIDERS.items() if row.embeddings is not None))
            raise UnsupportedError(
                f"{target.name} makes no embeddings; name a model of a provider that does, as in "
                f"model='openai:text-embedding-3-small'. There are: {known}",
                model=target.name,
            )
        return target, target.embedder

    def _rerank_target(self, model: str | None) -> tuple[Target, Reranker]:
        target = self._targets.default if model is None else self._targets.find(model)
        if target.reranker is None:
            known = ", ".join(sorted(name for name, row in PROVIDERS.items() if row.rerank is not None))
            raise UnsupportedError(
                f"{target.name} ranks no documents; name a model of a provider that does, as in "
                f"model='cohere:rerank-v3.5'. There are: {known}",
                model=target.name,
            )
        return target, target.reranker

    def _completing(self, target: Target) -> Target:
        """The target, to be asked to go on with raw text."""
        dialect = None if target.named is None else target.named.provider.completions
        if target.completer is None or dialect is None:
            known = ", ".join(sorted(name for name, row in PROVIDERS.items() if row.completions is not None))
            raise UnsupportedError(
                f"{target.name} completes no raw text; use ask(), or name a model of a provider that does, as in "
                f"model='openai:gpt-3.5-turbo-instruct'. There are: {known}",
                model=target.name,
            )
        chat = {"prefill": None, "in_background": None}
        return msgspec.structs.replace(target, model=target.completer, dialect=dialect.name, has_chat=True, **chat)

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
        answers: Model | None = None,
        is_blind: bool = False,
    ) -> _Plan:
        if self._is_closed:
            raise ClosedError("this client has been closed; make a new one")
        if not is_raw:
            check_asks(messages)
        checked = [self._options, *(checked_options(layer, Call) for layer in layers)]
        model = merged(*checked).get("model")
        target = self._targets.default if model is None else self._targets.find(model)
        if is_raw:
            target = self._completing(target)
        options = merged(target.defaults, *checked)
        options.pop("model", None)
        tools = options.pop("tools", None)
        max_tool_rounds = whole(options.pop("max_tool_rounds", self._max_tool_rounds), "max_tool_rounds", 0)
        retries = whole(options.pop("validation_retries", self._validation_retries), "validation_retries", 0)
        ways = recovery_ways(options.pop("recover", self._recover))
        wanted = schema_mode(options.pop("schema_mode", None))
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
        check_tool_choice(request)
        facts = facts_of_target(target)
        check_capabilities(request, target, facts)
        # Who answers is the target's model, but for a batch, whose requests are kept and not sent.
        model, mode = answers or target.model, None
        if wanted is not None and shape is None:
            raise ConfigurationError("schema_mode= says how an answer is made to fit a schema, and there is no schema=")
        if request.schema is not None:
            held, calls = facts.structured, facts.tools
            way = way_of(request, target.schema_modes, wanted, is_held=held, calls_tools=calls)
            model = model if way.wrap is None else way.wrap(model)
            request = msgspec.structs.replace(request, schema=msgspec.structs.replace(request.schema, mode=way.mode))
            mode = "grammar" if way.mode == "native" and not target.is_remote else way.mode
        notices = (*beyond_limits(request, target, facts), *self._prompts.advice(request))
        kept: Request | None = None
        if answers is None:
            notices = (*notices, *_unmet(ways, target, request))
        if is_blind and "restart" in ways:
            ways -= {"restart"}
            notices = (*notices, _NOT_ANNOUNCED)
        if ways and answers is None:
            model = Recovery(model, self._runtime, self._max_attempts, ways, target.prefill, target.dialect)
            if "resume" in ways and is_stream and target.in_background is not None:
                kept = target.in_background(request)
                notices = (*notices, _NOT_KEPT if kept is None else _KEPT)
        return _Plan(
            target=target,
            facts=facts,
            request=kept or request,
            model=model,
            tools=toolbox,
            schema=shape,
            schema_mode=mode,
            max_tool_rounds=max_tool_rounds,
            validation_retries=retries,
            resumes=kept is not None,
            notices=notices,
        )

    def close(self) -> None:
        """End live streams, close connections and let models go. Idempotent, legal from any thread."""
        self._is_closed = True
        for mark in tuple(self._live.values()):
            if (call := mark()) is not None:
                call.end()
        self._targets.close()
        self._runtime.close()

    def __del__(self) -> None:
        # A client that is dropped closes; one whose constructor failed has nothing to close.
        if hasattr(self, "_targets"):
            self.close()

    def keep(self, call: _Endable) -> None:
        """Have something ended with this client; it is held weakly."""
        live, key = self._live, id(call)
        live[key] = weakref.ref(call, lambda _: live.pop(key, None))


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

    Nothing is connected or loaded here, and nothing read from disk but a `ca_file`, and where a variable that is needed
    is not set, `.env` and the files of a cloud's tools, for a region or a project; the first call does that.
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
    pull = blocking(ClientBody.pull)
    image = blocking(ClientBody.image)
    stream_image = reader_of(ClientBody.open_image, MediaStream[ImageResponse])
    speak = blocking(ClientBody.speak)
    stream_speech = reader_of(ClientBody.open_speech, SpeechStream)
    transcribe = blocking(ClientBody.transcribe)
    stream_transcript = reader_of(ClientBody.open_transcript, MediaStream[Transcription])

    @property
    def batches(self) -> Batches:
        """Many prompts at once, answered within a day and at a lower price."""
        return Batches(BatchesBody(self._body))

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
    pull = awaitable(ClientBody.pull)
    image = awaitable(ClientBody.image)
    stream_image = reader_of(ClientBody.open_image, AsyncMediaStream[ImageResponse])
    speak = awaitable(ClientBody.speak)
    stream_speech = reader_of(ClientBody.open_speech, AsyncSpeechStream)
    transcribe = awaitable(ClientBody.transcribe)
    stream_transcript = reader_of(ClientBody.open_transcript, AsyncMediaStream[Transcription])

    @property
    def batches(self) -> AsyncBatches:
        """Many prompts at once, answered within a day and at a lower price."""
        return AsyncBatches(BatchesBody(self._body))

    def chat(self, *, messages: Iterable[Message | Mapping[str, Any]] = (), **options: Unpack[Call]) -> AsyncChat:
        """Begin a conversation, or go on with one; `options` are the defaults of its calls."""
        return AsyncChat(ChatBody(self._body, *chat_settings(messages, options)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


def _no_batches(name: str) -> UnsupportedError:
    known = ", ".join(sorted(other for other, row in PROVIDERS.items() if row.batches is not None))
    return UnsupportedError(
        f"{name} answers no batches; ask it prompt by prompt, or name a model of a provider that does, as in "
        f"model='openai:gpt-4o-mini'. There are: {known}",
        model=name,
    )


def _unmet(ways: Collection[str], target: Target, request: Request) -> Iterable[Notice]:
    """What is said of an answer that can be recovered in none of the ways that the caller has named."""
    lacks: list[str] = []
    if "resume" in ways and target.in_background is None:
        lacks.append("read on where its stream broke off")
    if "continue" in ways and (target.prefill is None or target.prefill.begun(request, "…", target.dialect) is None):
        lacks.append("gone on with from its text")
    if lacks and len(lacks) == len(ways):
        what = f"an answer that breaks off is not recovered: one like this of {target.name} cannot be"
        yield Notice("unsupported", "recover", f"{what} {' or '.join(lacks)}; recover=True takes whatever way there is")


def _sees_restarts(include: Collection[str]) -> bool:
    """Whether who reads a stream of these phases never takes the text of two attempts for one."""
    return Phase.RESTARTING in include or not {Phase.GENERATING, Phase.THINKING} & set(include)


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
