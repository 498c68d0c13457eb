"""What the environment says: its variables, and under them those of the file `.env` in the working directory.

Knows of no variable what it means, and sets none. The file is read once, and only when a variable is not set.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple, final

from .errors import ConfigurationError
from .requests import Secret

FILE = Path(".env")
MOST_BYTES = 1 << 20

_NOTHING = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_SETTING = re.compile(
    r"""[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*
    (?:'(?P<literal>[^']*)'|"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>(?:[^\s'"\#](?:(?![ \t]\#)[^\n])*)?))
    [ \t]*(?:\#[^\n]*)?(?:\n|\Z)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


class Found(NamedTuple):
    """A variable that is set, and whether the file sets it."""

    name: str
    value: Secret
    is_from_file: bool


@final
class Environment:
    """The variables that one client sees."""

    def __init__(self) -> None:
        self._file: dict[str, Secret] | None = None
        # What others have found by it and keep for as long as it is there, by the names of what keeps it.
        self.kept: dict[str, object] = {}

    def find(self, *names: str) -> Found | None:
        """The first of these variables that is set and not empty; those of the process go before those of the file.

        Raises:
            ConfigurationError: the file cannot be read; says which line is wrong, and never what stands in it.
        """
        for name in names:
            if value := os.environ.get(name, "").strip():
                return Found(name, Secret(value), False)
        if names and self._file is None:
            self._file = _read(FILE)
        for name in names:
            if value := (self._file or {}).get(name, Secret()).strip():
                return Found(name, Secret(value), True)
        return None


def _read(path: Path) -> dict[str, Secret]:
    # A folder of this name may be a virtual environment.
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ConfigurationError(f"{path.absolute()} is larger than {MOST_BYTES} bytes, too large for settings")
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        # Without its cause, which shows what it could not decode.
        raise ConfigurationError(f"{path.absolute()} cannot be read: {type(error).__name__}") from None
    return parse(text.replace("\r\n", "\n"), str(path.absolute()))


def parse(text: str, where: str = ".env") -> dict[str, Secret]:
    """The settings of a file: lines of NAME=value, the value plain, in '…' as it is, or in "…" with \\n and its like.

    Both quotes may hold several lines; `#` begins a comment; `export` may stand before the name. Nothing is replaced in
    a value.

    Raises:
        ConfigurationError: a line is none of this; says which.
    """
    settings: dict[str, Secret] = {}
    at = 0
    while at < len(text):
        if (match := _NOTHING.match(text, at)) is None:
            match = _SETTING.match(text, at)
            if match is None:
                line = text.count("\n", 0, at) + 1
                raise ConfigurationError(f"{where}, line {line}: not NAME=value, a comment, or empty; quotes must end")
            settings[match["name"]] = Secret(_value(match))
        at = match.end()
    return settings


def _value(match: re.Match[str]) -> str:
    if (quoted := match["quoted"]) is not None:
        return re.sub(r"\\(.)", lambda found: _ESCAPED.get(found[1], found[0]), quoted, flags=re.DOTALL)
    return match["literal"] if match["literal"] is not None else match["plain"].rstrip()
