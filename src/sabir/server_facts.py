"""What `sabir probe` found out of a server and one of its models, kept in the user's cache folder. Asks no server.

A file of the cache is not trusted: one that is too large, of another version or of another server is as good as none.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from .cache_files import cache_folder, read_cached, write_cached
from .catalog import ModelFacts
from .errors import StorageError

VERSION = 1
SOURCE = "sabir probe"
MOST_BYTES = 1 << 20


class ServerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a server does with one model, as it showed itself on one day; None where it did not.

    `thinking` is the field in which thinking comes, `context` the most tokens of a conversation, `models` all that the
    server has.
    """

    url: str
    model: str
    probed_on: str
    models: tuple[str, ...] = ()
    context: int | None = None
    streams: bool | None = None
    usage_in_streams: bool | None = None
    tools: bool | None = None
    structured: bool | None = None
    thinking: str | None = None
    notes: tuple[str, ...] = ()
    version: int = VERSION

    @property
    def of_model(self) -> ModelFacts:
        """What is known of the model by that. That it was not seen to think, and what was not asked, is not known."""
        return ModelFacts(
            tools=self.tools,
            structured=self.structured,
            thinking=True if self.thinking is not None else None,
            context=self.context,
            source=SOURCE,
            checked_on=self.probed_on,
        )


def read_facts(url: str, model: str) -> ServerFacts | None:
    """What is known of a model at an address; None if it was never asked."""
    try:
        data = read_cached(_path(url, model), MOST_BYTES)
        facts = None if data is None else msgspec.json.decode(data, type=ServerFacts)
    except (StorageError, ValueError):
        return None
    is_it = facts is not None and (facts.version, facts.url, facts.model) == (VERSION, _plain(url), model)
    return facts if is_it else None


def write_facts(facts: ServerFacts) -> Path:
    """Keep them, in place of what was known before; only the user can read them.

    Raises:
        StorageError: the folder cannot be written to.
    """
    facts = msgspec.structs.replace(facts, url=_plain(facts.url))
    path = _path(facts.url, facts.model)
    try:
        write_cached(path, msgspec.json.format(msgspec.json.encode(facts)))
    except StorageError as error:
        raise StorageError(f"what was found out could not be kept: {error}") from error
    return path


def _path(url: str, model: str) -> Path:
    name = hashlib.sha256(f"{_plain(url)}\n{model}".encode()).hexdigest()[:32]
    return cache_folder() / "probes" / f"{name}.json"


def _plain(url: str) -> str:
    return url.rstrip("/")
