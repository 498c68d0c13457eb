"""Who serves models: a table of rows, and the model strings that point into it. Opens no connection.

A model string is `provider:id`, `provider:id@base_url` or `provider:id@base_url;tools,vision`: the words after the
semicolon declare what the model can do, and with them, what it cannot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal
from urllib.parse import urlsplit

from .dialects import Dialect, Unsupported
from .dialects.anthropic import Anthropic
from .dialects.openai_chat import OPEN_PARAMETERS, OPENAI_PARAMETERS, OpenAIChat
from .errors import ConfigurationError

KeyHeader = Literal["authorization", "x-api-key"]

CAPABILITIES = frozenset({"tools", "thinking", "vision", "audio", "structured"})


@dataclass(frozen=True)
class Provider:
    """One row: where it serves, in which dialect, and which environment variable holds its key.

    Attributes:
        url: its own address, to which the environment's key may go; None for a model in this process.
        key: the variable that holds the key; None if it wants none.
        key_header: the header that carries the key.
        engine: the engine that runs its models in this process.
        model: the only model id there is, where a bare provider name is a model string.
        capabilities: what all its models can do; None where that differs or is not known.
        defaults: options that its models want, under everything that a client or call says.
    """

    name: str
    dialect: Dialect = field(default_factory=OpenAIChat)
    url: str | None = None
    key: str | None = None
    key_header: KeyHeader = "authorization"
    engine: str | None = None
    model: str | None = None
    capabilities: frozenset[str] | None = None
    defaults: Mapping[str, Any] | None = None


# A server of open models on one's own machine: its chat template decides whether it can think.
_OPEN_SERVER = OpenAIChat(limit="max_tokens", parameters=OPEN_PARAMETERS, thinking="template")
_LLAMA = OpenAIChat(
    limit="max_tokens", parameters={**OPEN_PARAMETERS, "repetition_penalty": "repeat_penalty"}, thinking="template"
)

PROVIDERS: dict[str, Provider] = {
    row.name: row
    for row in (
        Provider("openai", url="https://api.openai.com/v1", key="OPENAI_API_KEY"),
        Provider("openai-chat", url="https://api.openai.com/v1", key="OPENAI_API_KEY"),
        Provider(
            "anthropic",
            Anthropic(),
            url="https://api.anthropic.com",
            key="ANTHROPIC_API_KEY",
            key_header="x-api-key",
        ),
        # https://console.groq.com/docs/reasoning: thinking comes as `reasoning` and is not taken back.
        Provider(
            "groq",
            OpenAIChat(replay_thinking=False),
            url="https://api.groq.com/openai/v1",
            key="GROQ_API_KEY",
        ),
        # https://api-docs.deepseek.com/guides/thinking_mode, .../json_mode: "some JSON" only, thinking is a switch.
        Provider(
            "deepseek",
            OpenAIChat(
                limit="max_tokens",
                thinking="toggle",
                schema="json_object",
                parameters={
                    **OPENAI_PARAMETERS,
                    "seed": Unsupported("DeepSeek has no seed; set temperature=0"),
                    "parallel_tool_calls": Unsupported("DeepSeek has no such switch"),
                    "n": Unsupported("DeepSeek gives one answer; ask several times"),
                },
            ),
            url="https://api.deepseek.com",
            key="DEEPSEEK_API_KEY",
        ),
        # https://openrouter.ai/docs/use-cases/reasoning-tokens
        Provider(
            "openrouter",
            OpenAIChat(limit="max_tokens", parameters=OPEN_PARAMETERS, thinking="reasoning"),
            url="https://openrouter.ai/api/v1",
            key="OPENROUTER_API_KEY",
        ),
        # https://docs.ollama.com/api/openai-compatibility
        Provider("ollama-compat", OpenAIChat(limit="max_tokens"), url="http://localhost:11434/v1"),
        Provider("llama-server", _LLAMA, url="http://localhost:8080/v1"),
        Provider("vllm", _OPEN_SERVER, url="http://localhost:8000/v1"),
        Provider("llamacpp", _LLAMA, engine="llama_cpp"),
        # The model in the package. It thinks when asked, which llama.cpp would otherwise make it do always.
        Provider(
            "pico",
            OpenAIChat(
                limit="max_tokens",
                parameters={**OPEN_PARAMETERS, "repetition_penalty": "repeat_penalty"},
                thinking="template",
                thinking_unless_asked=False,
            ),
            engine="llama_cpp",
            model="pico",
            capabilities=frozenset({"tools", "thinking", "structured"}),
            # At this size chance is no help, and an answer that has lost its way does not find its end.
            defaults={"temperature": 0.0, "max_tokens": 512},
        ),
    )
}


def register_provider(row: Provider) -> None:
    """Add a row at run time; clients made from then on know its name.

    Raises:
        ConfigurationError: the name is taken or cannot stand in a model string, the address is none, or the row has
            neither an address nor an engine.
    """
    if not isinstance(row, Provider):
        raise ConfigurationError(f"register_provider takes a Provider, not {type(row).__name__}")
    if not isinstance(row.name, str) or not re.fullmatch(r"[^\s:@;]+", row.name):
        raise ConfigurationError(f"a provider's name is one word without ':', '@' and ';', unlike {row.name!r}")
    if row.name in PROVIDERS:
        raise ConfigurationError(f"there is a provider {row.name!r} already; choose another name")
    if row.url is not None:
        check_base_url(row.url)
    elif row.engine is None:
        raise ConfigurationError(f"the provider {row.name!r} has neither an address (url=) nor an engine (engine=)")
    PROVIDERS[row.name] = row


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
    provider = PROVIDERS.get(name)
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
    return name in PROVIDERS and (":" in text or PROVIDERS[name].model is not None)


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
    if not has_colon:
        return f"the model string {text!r} names no provider: write it as 'provider:model', e.g. 'openai:{text}'"
    near = get_close_matches(name, PROVIDERS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(PROVIDERS))}"
    return f"unknown provider {name!r} in the model string {text!r}; {hint}"
