"""Files that hold credentials. Knows nothing of what is in them, but that nobody is to see it."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import ConfigurationError
from ..requests import Secret

MOST_BYTES = 1 << 20


def read_bytes(path: str) -> bytes | None:
    """What is in a file, `~` and variables in its path replaced; None if there is no such file.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        with Path(os.path.expandvars(path)).expanduser().open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigurationError(f"{path!s} cannot be read: {type(error).__name__}") from None
    if len(data) > MOST_BYTES:
        raise ConfigurationError(f"{path!s} is larger than {MOST_BYTES} bytes, too large for credentials")
    return data


def read_text(path: str) -> Secret | None:
    """The same, as text.

    Raises:
        ConfigurationError: it cannot be read.
    """
    data = read_bytes(path)
    try:
        return None if data is None else Secret(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        # Without its cause, which shows what it could not decode.
        raise ConfigurationError(f"{path!s} cannot be read: it is no text") from None
