"""What was about to be sent, and what came of it, kept in a file that outlives the process; knows no wire format.

A journal is needed where a server keeps nothing by which a batch can be found again. Lines are only ever added, each
is on the disk before what follows it is done, and one that was torn by the end of a process counts as not written.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, final

import msgspec

from .errors import StorageError
from .strict_json import decode_json, encode_json, is_object

FORMAT_VERSION = 1


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a key: what is asked (`prompts`, `count`), before what it was first sent, and its batch's id.

    `after` is the id of the latest batch that there was when it was first sent, None if there was none.
    """

    prompts: str
    count: int
    after: str | None = None
    id: str | None = None


@final
class Journal:
    """A journal in a file of JSON lines. Its methods block: they are for `Runtime.call`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    def read(self, provider: str) -> dict[str, Entry]:
        """What is known of every key of a provider.

        Raises:
            StorageError: the file is there and cannot be read, or is none of ours.
        """
        entries: dict[str, Entry] = {}
        for line in self._lines():
            if line.get("provider") != provider:
                continue
            try:
                key = str(line["key"])
                if "id" in line:
                    entries[key] = msgspec.structs.replace(entries[key], id=str(line["id"]))
                else:
                    known = {name: line.get(name) for name in ("prompts", "count", "after")}
                    entries[key] = msgspec.convert(known, Entry)
            except (KeyError, msgspec.ValidationError) as error:
                raise StorageError(f"{self._path} is no journal of batches: {error}") from None
        return entries

    def begin(self, provider: str, key: str, entry: Entry) -> None:
        """Note that a batch is about to be sent."""
        told = {"prompts": entry.prompts, "count": entry.count, "after": entry.after}
        self._add({"format_version": FORMAT_VERSION, "provider": provider, "key": key, **told})

    def made(self, provider: str, key: str, id_: str) -> None:
        """Note the id of a batch."""
        self._add({"format_version": FORMAT_VERSION, "provider": provider, "key": key, "id": id_})

    def _lines(self) -> list[dict[str, Any]]:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"the journal {self._path} cannot be read: {error}") from error
        lines: list[dict[str, Any]] = []
        pieces = data.split(b"\n")
        for number, piece in enumerate(pieces):
            if not piece.strip():
                continue
            try:
                line = decode_json(piece)
            except ValueError:
                line = None
            if is_object(line) and line.get("format_version") == FORMAT_VERSION:
                lines.append(line)
            elif not _is_torn(piece):
                raise StorageError(f"line {number + 1} of {self._path} is no line of a journal of batches")
        return lines

    def _add(self, line: dict[str, Any]) -> None:
        # What was torn before ends here: each line brings the break before it.
        data = b"\n" + encode_json(line) + b"\n"
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(file, data)
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise StorageError(f"the journal {self._path} cannot be written: {error}") from error


def _is_torn(piece: bytes) -> bool:
    """Whether this is the beginning of a line that was never finished."""
    begun = encode_json({"format_version": FORMAT_VERSION})[:-1]
    return not piece.rstrip().endswith(b"}") and (piece.startswith(begun) or begun.startswith(piece))
