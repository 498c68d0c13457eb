"""Engines run models in this process; each is a room of its own, loaded with its library at the first use.

An engine knows how to load weights, run them and free them. It knows no client, no retry and no event loop: it blocks,
and its runtime decides on which thread. What it waits for it waits for on a `Line`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ..deltas import Delta
from ..requests import Request
from ..runtime import Line


class Engine(Protocol):
    """A model in this process. Blocking; the runtime decides on which thread it is iterated."""

    def deltas(self, request: Request, line: Line) -> Iterator[Delta]:
        """The answer, as it is generated. Leaving the iterator early ends the generation.

        Raises:
            EngineError: the model could not be loaded or run.
            BadRequestError: it refuses the request as it stands.
            DeadlineExceeded, ClosedError: `line` ran out or was cut, or the engine was closed.
        """
        ...

    def close(self) -> None:
        """Let the model go, ending what it generates. Idempotent, legal from any thread."""
        ...
