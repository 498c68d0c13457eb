"""`python -m sabir.testing.conformance NAME|URL`: how well a dialect keeps the laws, or a server its word, as a score.

NAME is a dialect of Sabir's own, or one that an installed distribution brings by an entry point of `sabir.dialects`: an
object of the protocol `Dialect`, or what makes one when it is called. URL is the address of a server of chat
completions, which is asked some thirty small questions; its key is in the variable that --key-variable names.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, cast

from ..dialects import Dialect
from ..errors import ConfigurationError, SabirError
from ..plugins import plugin, plugin_names
from ..rows import ROWS
from .laws import TRIED, Law, laws_of
from .live import laws_of_server

__all__ = ["BUILT_IN", "dialect_named", "main", "score"]

PLUGINS = "sabir.dialects"
# Each as it is without the quirks of a row.
BUILT_IN: dict[str, Dialect] = {
    dialect.name: type(dialect)()
    for row in ROWS
    for dialect in (row.dialect if row.has_chat else None, row.completions)
    if dialect is not None
}

_MOST_NOTES = 5


def dialect_named(name: str) -> Dialect:
    """A dialect of our own, else one that is installed.

    Raises:
        ConfigurationError: there is none of this name, or what is installed is no dialect; says which.
    """
    if (known := BUILT_IN.get(name)) is not None:
        return known
    found = plugin(PLUGINS, name)
    if found is None:
        names = ", ".join(sorted({*BUILT_IN, *plugin_names(PLUGINS)}))
        raise ConfigurationError(f"there is no dialect {name!r}; there are: {names}")
    dialect: Any = found.value
    try:
        # A class is made one; an object that has the methods is one, callable or not.
        is_maker = isinstance(dialect, type) or (callable(dialect) and not hasattr(dialect, "encode_request"))
        made: Any = dialect() if is_maker else dialect
    except Exception as error:
        raise ConfigurationError(f"{found} gives no dialect: {type(error).__name__}: {error}") from error
    missing = [method for method in _METHODS if not hasattr(made, method)]
    if missing:
        raise ConfigurationError(f"{found} is no dialect: it has no {', '.join(missing)}")
    return cast("Dialect", made)


_METHODS = (
    *("name", "encode_request", "decode_answer", "decoder", "decode_error", "decode_request"),
    *("encode_response", "encoder", "encode_error", "canonical_request", "canonical_answer"),
)


def score(laws: Sequence[Law]) -> float:
    """The share of laws' trials that held, each law with the same weight, in per cent."""
    shares = [law.held / (law.held + law.broken) for law in laws if law.held + law.broken]
    return 100 * sum(shares) / len(shares) if shares else 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the laws on a dialect, or the options on a server; 1 if one was broken, 2 if there was nothing to try."""
    parser = argparse.ArgumentParser(prog="python -m sabir.testing.conformance", description=main.__doc__)
    parser.add_argument("name", metavar="NAME|URL", help="a dialect, built in or installed, or a server's address")
    parser.add_argument("--tries", type=int, default=TRIED, help="made-up values for each law (default: %(default)s)")
    parser.add_argument("--model", help="the model of a server; the only one it has if none is named")
    parser.add_argument("--key-variable", metavar="NAME", help="the environment variable that holds a server's key")
    chosen = parser.parse_args(arguments)
    if chosen.tries < 1:
        parser.error("--tries is a number of at least 1")
    try:
        if "://" in chosen.name:
            laws = laws_of_server(chosen.name, chosen.model, _key(chosen.key_variable))
        else:
            laws = laws_of(dialect_named(chosen.name), chosen.tries)
    except SabirError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for law in laws:
        _print(f"{law.name:<11}{law.held:>5} of {law.held + law.broken}")
        for note in law.notes[:_MOST_NOTES]:
            _print(f"    {note}")
        if len(law.notes) > _MOST_NOTES:
            _print(f"    and {len(law.notes) - _MOST_NOTES} more")
    # Rounded down, so that 100 is what nothing is missing from.
    _print(f"{chosen.name}: {int(score(laws))} %")
    return 1 if any(law.broken for law in laws) else 0


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    if not (key := os.environ.get(variable)):
        raise ConfigurationError(f"the environment variable {variable} is not set")
    return key


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
