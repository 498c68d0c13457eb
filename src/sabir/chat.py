"""A conversation: something that opens turns (a client), and what has been said.

The history changes by one assignment, when a turn is over.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any, Self, TypeVar, Unpack, final, overload

from .errors import ClosedError, ConfigurationError
from .messages import Message
from .options import Call, checked_options, phases_of
from .prompts import Prompt, as_messages, attached, history_of, with_system
from .requests import Response
from .runtime import awaitable, blocking
from .tools import Toolbox
from .turn import Opener, Turn, awaitable_stream, blocking_stream

T = TypeVar("T")


class ChatBody:
    """The body of both chats. When a turn fails or is cut, its completed tool rounds stay, the rest does not."""

    def __init__(self, client: Opener, messages: tuple[Message, ...], options: Mapping[str, Any]) -> None:
        self._client = client
        self._messages = messages
        self._options = dict(options)
        self._is_closed = False
        # The turn that is going on; weak, since a stream that is dropped has ended.
        self._turn: weakref.ref[Turn[Any]] | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """All that has been said, the system message first."""
        return self._messages

    def append(self, *messages: Message | Mapping[str, Any]) -> None:
        """Add messages to the history, such as the result of a tool that ran elsewhere."""
        self._check_free()
        self._messages = (*self._messages, *history_of(messages))

    def fork(self) -> ChatBody:
        return ChatBody(self._client, self._messages, self._options)

    @overload
    async def ask(self, prompt: Prompt, *, schema: type[T], **call: Unpack[Call]) -> Response[T]: ...
    @overload
    async def ask(self, prompt: Prompt, *, schema: dict[str, Any], **call: Unpack[Call]) -> Response[Any]: ...
    @overload
    async def ask(self, prompt: Prompt, *, schema: None = None, **call: Unpack[Call]) -> Response[None]: ...
    async def ask(self, prompt: Prompt, *, schema: Any = None, **call: Unpack[Call]) -> Response[Any]:
        """Say something and return the answer; both are then part of the history.

        Takes what `client.ask` takes, but `system`. Raises what it raises, and the history then has what was
        completed: the prompt with its finished tool rounds, or nothing of this turn.
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
        """Say something and see the answer come; it is part of the history once the stream has ended.

        Takes what `client.stream` takes, but `system`.
        """
        return self._turn_of(prompt, schema, phases_of(include), True, call)

    def close(self) -> None:
        """End the chat and a turn that is going on; the client stays open. Idempotent, legal from any thread."""
        self._is_closed = True
        if self._turn is not None and (turn := self._turn()) is not None:
            turn.end()

    def _turn_of(self, prompt: Prompt, schema: Any, include: frozenset[str], is_stream: bool, call: Call) -> Turn[Any]:
        self._check_free()
        options: dict[str, Any] = dict(call)
        if options.pop("system", None) is not None:
            raise ConfigurationError("a chat has its system message from the start; begin another with chat(system=…)")
        before = self._messages
        said = as_messages(prompt, attached(options))

        def commit(turn: Turn[Any]) -> None:
            # Nothing of a turn stays that completed no round: its prompt can then simply be said again.
            if len(turn.history) > len(before) + len(said):
                self._messages = turn.history

        turn = self._client.turn(
            (*before, *said),
            self._options,
            options,
            schema=schema,
            include=include,
            is_stream=is_stream,
            when_over=commit,
        )
        self._turn = weakref.ref(turn)
        return turn

    def _check_free(self) -> None:
        if self._is_closed:
            raise ClosedError("this chat has been closed; begin another, or fork it")
        if self._turn is not None and (turn := self._turn()) is not None and not turn.is_over:
            raise ConfigurationError(
                "a turn of this chat is still going on: read its stream to the end or close it first, or fork the chat"
            )


class _Handle:
    """What both faces of a chat share, since it waits for nothing."""

    def __init__(self, body: ChatBody) -> None:
        self._body = body

    @property
    def messages(self) -> tuple[Message, ...]:
        """All that has been said, the system message first."""
        return self._body.messages

    def append(self, *messages: Message | Mapping[str, Any]) -> None:
        """Add messages to the history, such as the result of a tool that ran elsewhere."""
        self._body.append(*messages)

    def fork(self) -> Self:
        """A chat of its own with the same history and settings."""
        return type(self)(self._body.fork())

    def close(self) -> None:
        """End the chat and a turn that is going on; the client stays open. Idempotent, legal from any thread."""
        self._body.close()


@final
class Chat(_Handle):
    """A conversation: call it to say something, `stream` to see the answer come, `fork` to go two ways.

    Made by `client.chat(…)`.
    """

    __call__ = blocking(ChatBody.ask)
    stream = blocking_stream(ChatBody.open_stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@final
class AsyncChat(_Handle):
    """A conversation, awaitable: `await chat("Hello")`. See `sabir.Chat`, whose methods it has."""

    __call__ = awaitable(ChatBody.ask)
    stream = awaitable_stream(ChatBody.open_stream)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


def chat_settings(
    messages: Iterable[Message | Mapping[str, Any]], options: Mapping[str, Any]
) -> tuple[tuple[Message, ...], dict[str, Any]]:
    """The history and the options a chat begins with.

    Raises:
        ConfigurationError: an unknown option, a tool that cannot be described, or two system messages.
    """
    layers = checked_options(options, Call)
    for name in ("images", "audio", "files"):
        if layers.pop(name, None):
            raise ConfigurationError(f"{name}= go with a prompt: chat('What is this?', {name}=[…])")
    if "tools" in layers:
        layers["tools"] = Toolbox(layers["tools"])
    return with_system(history_of(messages), layers.pop("system", None)), layers
