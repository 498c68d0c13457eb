"""What installed distributions add: objects named by entry points. Knows no group, and loads nothing but what is asked.

[project.entry-points."sabir.providers"]
aurora = "sabir_aurora:ROW"
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

from .errors import ConfigurationError


class Plugin(NamedTuple):
    """An object that a distribution adds, and who that is."""

    value: Any
    told: str

    def __str__(self) -> str:
        return self.told


def plugin(group: str, name: str) -> Plugin | None:
    """What the entry point of this name is, loaded; None if there is none.

    Raises:
        ConfigurationError: it cannot be loaded, or two distributions have one of this name; says which.
    """
    found = _entry_points(group, name)
    if not found:
        return None
    if len({point.value for point in found}) > 1:
        whose = ", ".join(sorted(_told(point) for point in found))
        raise ConfigurationError(f"several distributions bring {name!r}: {whose}; uninstall all but one")
    told = _told(found[0])
    try:
        value = found[0].load()
    except Exception as error:
        raise ConfigurationError(f"{told} cannot be loaded: {type(error).__name__}: {error}") from error
    return Plugin(value, told)


def plugin_names(group: str) -> list[str]:
    """The names in a group; none of them is loaded."""
    return sorted({point.name for point in _entry_points(group)})


def _entry_points(group: str, name: str | None = None) -> list[Any]:
    # Costs more to import than the rest of a client, and most never ask.
    metadata = import_module("importlib.metadata")
    return list(metadata.entry_points(group=group, **({} if name is None else {"name": name})))


def _told(point: Any) -> str:
    whose = f" of the distribution {point.dist.name} {point.dist.version}" if point.dist else ""
    return f"{point.value!r}, the entry point {point.name!r} in {point.group!r}{whose},"
