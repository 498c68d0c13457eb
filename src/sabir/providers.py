"""Which provider a model string names, and how rows are added. The table is `rows`; opens no connection.

A model string is `provider:id`, `provider:id@base_url` or `provider:id@base_url;tools,vision`: the words after the
semicolon declare what the model can do, and with them, what it cannot.

A name that is not in the table is looked for among the entry points `sabir.providers` of installed distributions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from urllib.parse import urlsplit

from .catalog import listed
from .errors import ConfigurationError
from .plugins import plugin, plugin_names
from .rows import ROWS, KeyHeader, Provider

__all__ = ["CAPABILITIES", "PROVIDERS", "KeyHeader", "ModelString", "Provider", "check_base_url", "find_provider"]
__all__ += ["has_provider", "is_same_server", "parse_model", "register_provider"]

CAPABILITIES = frozenset({"tools", "thinking", "vision", "audio", "video", "pdf", "structured"})
PLUGINS = "sabir.providers"
# Where a variable's value stands in an address, and what stands there where it is not set.
PLACE = re.compile(r"\{([A-Z][A-Z0-9_]*(?:\|[A-Z][A-Z0-9_]*)*)(?:=([a-z0-9-]+))?\}")

# How much two names have in common of which one may be a slip of the other: "claude" is none of "cloudflare".
_ALIKE = 0.75
# What others call a provider: by its models, its company, or as other libraries do.
_CALLED_ELSEWHERE = {
    "claude": "anthropic",
    **dict.fromkeys(("chatgpt", "gpt"), "openai"),
    **dict.fromkeys(("google-genai", "google-ai", "googleai"), "gemini"),
    **dict.fromkeys(("google-vertex", "vertexai"), "vertex"),
    **dict.fromkeys(("aws", "amazon"), "bedrock"),
    **dict.fromkeys(("nim", "nvidia-nim"), "nvidia"),
    **dict.fromkeys(("alibaba", "aliyun", "qwen", "tongyi"), "dashscope"),
    "kimi": "moonshot",
    "glm": "zai",
    "workers-ai": "cloudflare",
    "hosted-vllm": "vllm",
    **dict.fromkeys(("gguf", "llama-cpp"), "llamacpp"),
    "transformers": "transformers-serve",
}

PROVIDERS: dict[str, Provider] = {row.name: row for row in ROWS}


def register_provider(row: Provider) -> None:
    """Add a row at run time; clients made from then on know its name.

    Raises:
        ConfigurationError: the name is taken or cannot stand in a model string, the address is none, or the row has
            neither an address nor an engine.
    """
    if not isinstance(row, Provider):
        raise ConfigurationError(f"register_provider takes a Provider, not {type(row).__name__}")
    if row.name in PROVIDERS:
        raise ConfigurationError(f"there is a provider {row.name!r} already; choose another name")
    if row.url is None and row.engine is None:
        raise ConfigurationError(f"the provider {row.name!r} has neither an address (url=) nor an engine (engine=)")
    _check_row(row)
    PROVIDERS[row.name] = row


def _check_row(row: Provider) -> None:
    if not isinstance(row.name, str) or not re.fullmatch(r"[^\s:@;]+", row.name):
        raise ConfigurationError(f"a provider's name is one word without ':', '@' and ';', unlike {row.name!r}")
    if row.url is not None:
        # What a variable will stand for is checked when it is known.
        check_base_url(PLACE.sub("place", re.sub(r"^\{[A-Z0-9_|]+\}", "https://place", row.url)))


def find_provider(name: str) -> Provider | None:
    """The row of a name: of the table, else of an installed distribution, which is loaded then.

    Raises:
        ConfigurationError: a distribution promises the provider and does not deliver a row of that name.
    """
    if (row := PROVIDERS.get(name)) is not None or not name:
        return row
    found = plugin(PLUGINS, name)
    if found is None:
        return None
    try:
        row = found.value() if callable(found.value) else found.value
        if isinstance(row, Provider):
            _check_row(row)
    except Exception as error:
        raise ConfigurationError(f"{found} gives no provider: {type(error).__name__}: {error}") from error
    if not isinstance(row, Provider) or row.name != name:
        raise ConfigurationError(f"{found} is no Provider with the name {name!r}, nor a function that returns one")
    return PROVIDERS.setdefault(name, row)


@dataclass(frozen=True)
class ModelString:
    """A parsed model string. `capabilities` is None where nothing is declared or known."""

    provider: Provider
    id: str
    base_url: str | None = None
    capabilities: frozenset[str] | None = None

    def __str__(self) -> str:
        return f"{self.provider.name}:{self.id}"


def parse_model(text: str) -> ModelString:
    """Read a model string.

    Raises:
        ConfigurationError: it names no known provider, no model, or an unknown capability; says what would do.
    """
    if not isinstance(text, str) or not text.strip():
        raise ConfigurationError(f"a model is named by a string like 'openai:gpt-4o-mini', not {text!r}")
    where, _, declared = text.strip().partition(";")
    where, at, address = _split_address(where)
    name, colon, model_id = where.partition(":")
    provider = find_provider(name)
    if provider is None:
        raise ConfigurationError(_unknown_provider(text, name, bool(colon)))
    if not model_id and provider.model is None:
        raise ConfigurationError(f"the model string {text!r} names no model: write '{name}:<model id>'")
    if provider.model is not None and model_id not in ("", provider.model):
        raise ConfigurationError(f"{name!r} has one model: write {name!r}, not {text!r}")
    if at:
        check_base_url(address)
    if address and provider.engine is not None:
        raise ConfigurationError(f"{name!r} runs in this process and takes no address: {text!r}")
    capabilities = _capabilities(declared, text) if declared else provider.capabilities
    return ModelString(provider, model_id or provider.model or "", address or None, capabilities)


def has_provider(text: str) -> bool:
    """Whether a model string names its provider, rather than being a bare id (which may contain colons too)."""
    name = re.split("[:;@]", text, maxsplit=1)[0]
    row = PROVIDERS.get(name) or (find_provider(name) if ":" in text else None)
    return row is not None and (":" in text or row.model is not None)


def check_base_url(address: str) -> None:
    """Refuse what is no address of a server.

    Raises:
        ConfigurationError: not http(s), no host, or with a query, a fragment or a password in it.
    """
    if not isinstance(address, str):
        raise ConfigurationError(f"base_url is a text like 'https://host/v1', not {address!r}")
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable, parts = False, urlsplit("")
    if not usable or any(character.isspace() for character in address):
        raise ConfigurationError(f"base_url must look like 'https://host/v1', not {address!r}")
    if parts.query or parts.fragment or parts.password:
        raise ConfigurationError("base_url takes no query, fragment or password; pass a key as api_key=")


def is_same_server(one: str, other: str) -> bool:
    """Whether two addresses are of one server: scheme, host and port."""
    ports = {"http": 80, "https": 443}
    ends = [
        (parts.scheme, parts.hostname, parts.port or ports.get(parts.scheme)) for parts in map(urlsplit, (one, other))
    ]
    return ends[0] == ends[1]


def _split_address(text: str) -> tuple[str, str, str]:
    # An id may hold an @ of its own; only one before a scheme begins an address.
    found = re.search(r"@(?=\w+://)", text)
    return (text, "", "") if found is None else (text[: found.start()], "@", text[found.end() :])


def _capabilities(declared: str, text: str) -> frozenset[str]:
    words = frozenset(word.strip() for word in declared.split(",") if word.strip())
    if unknown := sorted(words - CAPABILITIES):
        known = ", ".join(sorted(CAPABILITIES))
        raise ConfigurationError(f"unknown capability {unknown[0]!r} in {text!r}; there are: {known}")
    return words


def _unknown_provider(text: str, name: str, has_colon: bool) -> str:
    near = _near(name)
    if near is not None and has_colon:
        return f"unknown provider {name!r} in the model string {text!r}; did you mean {near!r}?"
    if not has_colon:
        maker = next((entry.provider for entry in listed() if entry.model == name), None)
        example = f"{near}:<model id>" if near else f"{maker}:{name}" if maker else "openai:gpt-4o-mini"
        return f"the model string {text!r} names no provider: write it as 'provider:model', as in {example!r}"
    return (
        f"unknown provider {name!r} in the model string {text!r}; a model's id goes behind its provider's name, as in "
        f"'ollama:{text}', and 'openai-compat:<model id>@http://host/v1' is any server of chat completions; the README "
        "names all providers"
    )


def _near(name: str) -> str | None:
    """The provider that somebody may have meant by a name; none where that would be a guess."""
    plain = re.sub(r"[_ .]", "-", name.strip().lower())
    if (meant := _CALLED_ELSEWHERE.get(plain)) is not None:
        return meant
    return next(iter(get_close_matches(plain, {*PROVIDERS, *plugin_names(PLUGINS)}, n=1, cutoff=_ALIKE)), None)
