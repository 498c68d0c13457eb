"""Files in the user's cache folder: what can be found out again. Knows nothing of what is in them.

Whoever reads one trusts it with nothing: any program of the user may have written it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .errors import StorageError

# Windows would make \r\n of \n.
_BINARY = getattr(os, "O_BINARY", 0)


def cache_folder() -> Path:
    """Where this system keeps such files: SABIR_CACHE_DIR, else its own convention."""
    home = Path("~").expanduser()
    if chosen := os.environ.get("SABIR_CACHE_DIR"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "sabir" / "Cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "sabir"
    named = Path(os.environ.get("XDG_CACHE_HOME") or "")
    # https://specifications.freedesktop.org/basedir-spec: one that is not absolute is to be ignored.
    return (named if named.is_absolute() else home / ".cache") / "sabir"


def read_cached(path: Path, most: int) -> bytes | None:
    """What is in a file; None if there is none.

    Raises:
        StorageError: it cannot be read, or has more than `most` bytes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}; it may be deleted") from error
    if len(data) > most:
        raise StorageError(f"{path} is larger than {most} bytes; it may be deleted")
    return data


def write_cached(path: Path, data: bytes) -> None:
    """Put a file there, in place of what was there; only the user can read it.

    Raises:
        StorageError: the folder cannot be written to.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Moved in whole, so that a reader sees the old file or the new one. (The module tempfile takes 3 ms to load.)
        temporary = path.with_name(f"{path.name}.{os.urandom(8).hex()}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
