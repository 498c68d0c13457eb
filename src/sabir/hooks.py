"""Watching calls: what a hook is told, exactly once each; a hook that raises is logged and harmless.

Hooks are plain functions, called where the thing happens. They are not awaited: a stream that is dropped ends on no
event loop, and its end is to be seen all the same.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from .errors import ConfigurationError
from .messages import Message
from .requests import Response

logger = logging.getLogger("sabir")


class CallStarted(msgspec.Struct, frozen=True):
    """A call begins; nothing has been sent."""

    model: str
    messages: tuple[Message, ...]


class FirstToken(msgspec.Struct, frozen=True):
    """The first content of the answer has come, `seconds` after the start."""

    model: str
    seconds: float


class CallEnded(msgspec.Struct, frozen=True):
    """A call is over: `response` is what came (also when it was closed early), or `error` is why nothing did."""

    model: str
    seconds: float
    response: Response[Any] | None
    error: BaseException | None


class Hook:
    """Base of hooks; override what you want to see. Called on whichever thread the thing happens."""

    def on_start(self, event: CallStarted) -> None:
        """The call begins."""

    def on_first_token(self, event: FirstToken) -> None:
        """The first content came; not called if none does."""

    def on_end(self, event: CallEnded) -> None:
        """The call is over: by its end, an error, a cancellation, or because its stream was closed or dropped."""


class Hooks:
    """The hooks of a client. A change takes effect with the next call."""

    def __init__(self, hooks: Iterable[Hook] = ()) -> None:
        self._hooks: tuple[Hook, ...] = ()
        for hook in hooks:
            self.add(hook)

    def add(self, hook: Hook) -> None:
        """Add a hook.

        Raises:
            ConfigurationError: it is no hook, or one of its methods is `async def`.
        """
        for name in ("on_start", "on_first_token", "on_end"):
            method = getattr(hook, name, None)
            if method is None or inspect.iscoroutinefunction(method):
                raise ConfigurationError(f"{hook!r} is no hook: derive it from sabir.Hook, with plain def methods")
        self._hooks = (*self._hooks, hook)

    def remove(self, hook: Hook) -> None:
        """Remove a hook; harmless if it is not there."""
        self._hooks = tuple(known for known in self._hooks if known is not hook)

    def __iter__(self) -> Iterator[Hook]:
        return iter(self._hooks)

    def __len__(self) -> int:
        return len(self._hooks)

    def snapshot(self) -> tuple[Hook, ...]:
        """The hooks as they are now, for one call."""
        return self._hooks


def tell(hooks: tuple[Hook, ...], name: str, event: CallStarted | FirstToken | CallEnded) -> None:
    """Call one method of every hook; what a hook raises is logged."""
    for hook in hooks:
        try:
            getattr(hook, name)(event)
        except Exception:
            logger.exception("the hook %r failed in %s", hook, name)
