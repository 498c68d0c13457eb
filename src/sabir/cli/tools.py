"""The tools a model is given on the command line: the user's functions by their names, and one example for Pico."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from operator import attrgetter
from typing import Any
from zlib import crc32

from ..errors import ConfigurationError

_WEATHER = ("sunny, 21C", "rainy, 9C", "clear, 14C", "windy, 12C", "snowy, -2C", "foggy, 6C")


def get_weather(city: str) -> str:
    """Say what the weather is like in a city: an example of a tool, made up from the city's name."""
    # In this order Pico says it after us whole; a sentence about it would be lost on the way.
    return f"{_WEATHER[crc32(city.strip().casefold().encode(errors='replace')) % len(_WEATHER)]}, made up"


def named_tool(name: str) -> Callable[..., Any]:
    """Import what `module:function` names, from this folder too.

    Raises:
        ConfigurationError: there is no such thing, or its module fails.
    """
    module, _, path = name.partition(":")
    if not module or not path:
        raise ConfigurationError(f"--tool takes MODULE:FUNCTION, as in mytools:get_time, not {name!r}")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = import_module(module)
    except (Exception, SystemExit) as error:  # a module runs as it is imported, so anything can come out of it
        raise ConfigurationError(f"--tool {name}: the module {module!r} cannot be imported: {_told(error)}") from error
    try:
        function = attrgetter(path)(found)
    except AttributeError:
        raise ConfigurationError(f"--tool {name}: the module {module!r} has no {path!r}") from None
    return function  # type: ignore[no-any-return]  # what it is, the toolbox checks


def _told(error: BaseException) -> str:
    return str(error) if isinstance(error, ModuleNotFoundError) else f"{type(error).__name__}: {error}"
