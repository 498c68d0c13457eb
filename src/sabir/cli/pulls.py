"""What `sabir pull` shows: how far a server is with fetching a model. Knows no server and no wire format."""

from __future__ import annotations

from collections.abc import Callable

from ..client import Client
from ..dialects.ollama_pull import PullProgress
from ..providers import PROVIDERS, has_provider
from .screen import Screen
from .talk import guarded

GIGABYTE = 1_000_000_000


def pull(model: str, base_url: str | None, timeout: float | None) -> int:
    """Do `sabir pull` and return its exit code."""

    def work(screen: Screen) -> None:
        known = next(name for name, row in PROVIDERS.items() if row.pull is not None)
        with Client(model if has_provider(model) else f"{known}:{model}", base_url=base_url) as client:
            client.pull(on_progress=_shown_on(screen), timeout=timeout)

    return guarded(work)


def _shown_on(screen: Screen) -> Callable[[PullProgress], None]:
    """Show each status in a line, and all layers together in one, which moves where there is a terminal."""
    layers: dict[str, tuple[int, int]] = {}
    shown: list[str] = []

    def show(progress: PullProgress) -> None:
        if progress.digest is not None and progress.total:
            layers[progress.digest] = (progress.completed or 0, progress.total)
            screen.move(_sum(layers))
        elif progress.status and [progress.status] != shown[-1:]:
            shown.append(progress.status)
            screen.note(progress.status)

    return show


def _sum(layers: dict[str, tuple[int, int]]) -> str:
    done, whole = (sum(counts) for counts in zip(*layers.values(), strict=True))
    return f"{done / whole:4.0%}  {done / GIGABYTE:.2f} of {whole / GIGABYTE:.2f} GB"
