"""What a server takes of images, sounds and files, seen to before anything is sent, around any model.

What it would refuse is refused here, and what it does not fetch itself is loaded and sent in the address's place.
Opens no connection itself and knows no wire format: the rules are the dialect's, `downloads` loads.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import TypeVar, cast, final

import msgspec

from .deltas import Delta
from .dialects.media_rules import MediaRules
from .downloads import From, download, shown
from .errors import ConfigurationError, UnsupportedError
from .media import with_data
from .messages import Audio, File, Image, Part, ToolResult
from .model import Exchange, Model
from .requests import HttpRequest, Notice, Request
from .runtime import Line, Runtime
from .transports import Network

MOST_LOADED = 20 << 20

Medium = Image | Audio | File
MediumT = TypeVar("MediumT", bound=Image | Audio | File)
# Blocks: `runtime.call` puts it where that harms nobody.
Load = Callable[[str, Line, int], bytes]

_WORDS = {Image: "images", Audio: "audio", File: "files"}


def loader(network: Network | None, allowed: From) -> Load:
    """What loads addresses over a client's network; None is one of which nothing is known."""

    def load(url: str, line: Line, most: int) -> bytes:
        if network is None or allowed == "never":
            why = "fetch='never'" if network else "transport= has a network of its own"
            raise UnsupportedError(
                f"{shown(url)} is not fetched by this model's server, and not here either ({why}): load it yourself "
                "and pass its bytes"
            )
        return download(url, line, network, most, allowed)

    return load


@final
class Intake:
    """What a server takes of media, part by part: what it would refuse, and what is loaded here for it."""

    def __init__(self, rules: MediaRules, server: str, runtime: Runtime, load: Load) -> None:
        self._rules = rules
        self._server = server
        self._runtime = runtime
        self._load = load

    def check(self, part: Medium) -> None:
        """See to it that the server takes it.

        Raises:
            UnsupportedError: it does not, by its type or by its size.
        """
        kind, media_type = type(part), part.media_type
        types, most = self._rules.types.get(kind), self._rules.most.get(kind)
        if types is not None and media_type is not None and not media_type.startswith(types):
            known = ", ".join(f"{each}*" if each.endswith("/") else each for each in types)
            raise UnsupportedError(
                f"{self._server} takes {_WORDS[kind]} of the types {known}, not {media_type}; convert it first"
            )
        if most is not None and part.data is not None and len(part.data) > most:
            raise UnsupportedError(
                f"{self._server} takes {_WORDS[kind]} of at most {most:,} bytes, and one has {len(part.data):,}; make "
                "it smaller, or pass an address if the server fetches those"
            )

    def is_to_load(self, part: Medium) -> bool:
        """Whether the server has to be sent what its address leads to."""
        # An address of a cloud's own storage (s3://) means something to that cloud only.
        is_address = part.url is not None and part.url.lower().startswith(("http://", "https://"))
        return is_address and isinstance(part, self._rules.inlined)

    def notice(self, part: Medium) -> Notice:
        """What is said of a part that is loaded here."""
        message = f"{shown(str(part.url))} was loaded here and sent as bytes, since {self._server} does not fetch it"
        return Notice("emulated", type(part).__name__, message)

    async def loaded(self, part: Medium, exchange: Exchange) -> bytes:
        """What a part's address leads to.

        Raises:
            SabirError: it cannot be loaded, or is not to be.
        """
        most = min(MOST_LOADED, self._rules.most.get(type(part), MOST_LOADED))
        data: bytes = await self._runtime.call(self._load, str(part.url), exchange.line, most)
        exchange.report([self.notice(part)])
        return data

    def filled(self, part: MediumT, data: bytes) -> MediumT:
        """The part with what its address led to.

        Raises:
            ConfigurationError: it is nothing of the kind.
            UnsupportedError: the server does not take it.
        """
        try:
            whole = with_data(part, data)
        except ConfigurationError as error:
            raise ConfigurationError(f"{shown(str(part.url))} leads to something else: {error}") from None
        self.check(whole)
        return cast("MediumT", whole)


@final
class Attachments:
    """A model whose requests are made fit for what its server takes."""

    def __init__(self, model: Model, rules: MediaRules, server: str, runtime: Runtime, load: Load) -> None:
        self._model = model
        self._intake = Intake(rules, server, runtime, load)
        # A call may send the same messages in several rounds.
        self._loaded: weakref.WeakKeyDictionary[Exchange, dict[str, bytes]] = weakref.WeakKeyDictionary()

    def deltas(self, request: Request, exchange: Exchange) -> AsyncGenerator[list[Delta], None]:
        if next(_media(request), None) is None:
            return self._model.deltas(request, exchange)
        return self._fitted(request, exchange)

    def explain(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        """As the model says it, with three dots for what would be loaded."""
        notices: list[Notice] = []
        for part in _media(request):
            self._intake.check(part)
            if self._intake.is_to_load(part):
                notices.append(self._intake.notice(part))
        http, lowered = self._model.explain(_replaced(request, self._stood_in))
        return http, (*dict.fromkeys(notices), *lowered)

    async def _fitted(self, request: Request, exchange: Exchange) -> AsyncGenerator[list[Delta], None]:
        loaded, intake = self._loaded.setdefault(exchange, {}), self._intake
        for part in _media(request):
            intake.check(part)
        for part in _media(request):
            if intake.is_to_load(part) and (url := str(part.url)) not in loaded:
                loaded[url] = await intake.loaded(part, exchange)

        def filled(part: Medium) -> Medium:
            return intake.filled(part, loaded[str(part.url)]) if intake.is_to_load(part) else part

        async with aclosing(self._model.deltas(_replaced(request, filled), exchange)) as batches:
            async for batch in batches:
                yield batch

    def _stood_in(self, part: Medium) -> Medium:
        return msgspec.structs.replace(part, url=None, data=b"...") if self._intake.is_to_load(part) else part


def _media(request: Request) -> Iterator[Medium]:
    """What is shown to the model; what a model made itself goes back to it or is left out, as its format says."""
    for message in request.messages:
        for part in message.parts if message.role != "assistant" else ():
            for each in part.content if isinstance(part, ToolResult) else (part,):
                if isinstance(each, (Image, Audio, File)):
                    yield each


def _replaced(request: Request, change: Callable[[Medium], Medium]) -> Request:
    def changed(part: Part) -> Part:
        if isinstance(part, ToolResult):
            content = tuple(change(each) if isinstance(each, Image) else each for each in part.content)
            return msgspec.structs.replace(part, content=content)
        return change(part) if isinstance(part, (Image, Audio, File)) else part

    messages = (
        message
        if message.role == "assistant"
        else msgspec.structs.replace(message, parts=tuple(changed(part) for part in message.parts))
        for message in request.messages
    )
    return msgspec.structs.replace(request, messages=tuple(messages))
