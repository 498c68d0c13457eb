"""What a client and a call may be told, checked before anything is sent; one layer over another."""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Literal, TypedDict, cast, get_args

import msgspec

from .billing import PriceSource
from .chunks import Phase
from .dialects import EncodingFormat, InputType
from .downloads import From
from .errors import ConfigurationError
from .hooks import Hook
from .media import AudioSource, FileSource, ImageSource
from .model import Model, OnUnsupported
from .requests import Options
from .runtime import Runtime, Transport
from .tools import AnyTool
from .transports import HttpClient, HttpSession

RuntimeWrapping = Callable[[Runtime], Runtime]
ModelWrapping = Callable[[Model, Runtime], Model]

_ALL_PHASES = frozenset(Phase)


class Settings(Options, total=False):
    """What a client may be made with, beside the options of its calls.

    `timeout` is the total deadline of a call in seconds, over all attempts and the whole stream, tools not counted;
    `idle_timeout` the longest silence, `connect_timeout` the longest wait for a connection; None is no limit.
    `max_attempts` is the most requests made for one answer. `on_unsupported` says what becomes of an option that the
    provider cannot express: a Python warning, an error, or only a line in `response.warnings`.

    `api_key` is a key, or a function (`def` or `async def`) that returns one or a token: it is asked before every
    attempt, and keeps what is still good itself. `organization` and `project` say for whom a request is, where a
    provider has headers for that. `extra_body` is another name of `extra`.

    `proxy` is the URL of a proxy for every server, `http://user:password@host:port` or https, and False is none. Unset
    or None is what the environment says when the client is made: HTTPS_PROXY, HTTP_PROXY, else ALL_PROXY, except for
    the servers of this machine and those that NO_PROXY names: hosts with all below them, addresses, blocks like
    10.0.0.0/8, each with a port if need be, or `*`. Lower case goes first, an empty variable says nothing, and
    HTTP_PROXY is not believed in a CGI program.

    `ca_file` is a PEM file of certificates that are trusted beside the system's (SSL_CERT_FILE takes their place);
    it is read at once. `ssl_context` takes the place of both and is used as it is, not copied and not changed: its
    ALPN, if any, has to be http/1.1, with `http2` h2 and http/1.1.

    `transport` is what carries HTTP instead of our own: "httpx2" (pip install 'sabir[httpx2]'), which also has SOCKS
    proxies, HTTP/2 with servers of https if `http2` is set, and trio's loop; a client of httpx, httpx2 or aiohttp,
    which keeps its own network and stays open; or a `sabir.runtime.Transport`, which is closed with the client.
    `fetch` says from where an image, sound or file that was given as a URL may be loaded, if the provider does not
    fetch it itself: "public" is the addresses of the internet (without a proxy, 3 redirects and 20 MB at most), "any"
    also those of this machine and its network, "never" is an error instead.

    `prices` says what tokens cost, where that is not what the catalog knows: `sabir.Prices` by model string, also for
    servers of one's own, or "genai" for the package genai-prices (pip install 'sabir[prices]'), which is asked first.

    `runtime_wrappers` and `model_wrappers` are put around the runtime and around every model, in this order: the last
    is the outermost. A model's wrapper is given the runtime too.
    """

    base_url: str | None
    api_key: str | Callable[[], str | Awaitable[str]] | None
    organization: str | None
    project: str | None
    extra_body: Mapping[str, Any] | None
    timeout: float | None
    idle_timeout: float | None
    connect_timeout: float | None
    max_attempts: int
    hooks: Iterable[Hook]
    on_unsupported: OnUnsupported
    tools: Iterable[AnyTool]
    max_tool_rounds: int
    proxy: str | Literal[False] | None
    ca_file: str | os.PathLike[str] | None
    ssl_context: ssl.SSLContext | None
    transport: Transport | Literal["httpx2"] | HttpClient | HttpSession | None
    http2: bool
    fetch: From
    prices: PriceSource | None
    runtime_wrappers: Iterable[RuntimeWrapping]
    model_wrappers: Iterable[ModelWrapping]


class Call(Options, total=False):
    """What one call may set.

    `system` is the system message's text, `model` a model string or another id of the same provider. `images`, `audio`
    and `files` go with the prompt: lists of paths, bytes, URLs and what else `sabir.image`, `audio` and `file` take.
    `tools` are functions, `Tool`s, or `ToolSpec`s (advertised and never
    run); they take the place of the client's or chat's for this call, also `[]`. `max_tool_rounds=0` runs none.
    `extra_body` is another name of `extra`.
    """

    system: str | None
    model: str | None
    extra_body: Mapping[str, Any] | None
    images: Iterable[ImageSource] | None
    audio: Iterable[AudioSource] | None
    files: Iterable[FileSource] | None
    tools: Iterable[AnyTool] | None
    max_tool_rounds: int | None


class CompletionOptions(Options, total=False):
    """What one call of `raw_complete` may set.

    `model` is a model string or another id of the same provider; `extra_body` is another name of `extra`, which has
    what only some servers take (`echo`, `suffix`, `best_of`, `logit_bias`, ...), and a `prompt` of tokens.
    """

    model: str | None
    extra_body: Mapping[str, Any] | None


class EmbeddingOptions(TypedDict, total=False):
    """What one call of `embed` may set.

    `model` is a model string or another id of the same provider, `dimensions` the length the vectors are to have.
    `input_type` says what the texts are for, since many models embed a question otherwise than what may answer it:
    "query" or "document". `encoding_format` says how vectors travel, where a server understands only one way: "float"
    or "base64"; the vectors are the same. `extra` and `headers` go to the wire as they are.
    """

    model: str | None
    dimensions: int | None
    input_type: InputType | None
    encoding_format: EncodingFormat | None
    user: str | None
    extra: Mapping[str, Any] | None
    headers: Mapping[str, str] | None


class RerankOptions(TypedDict, total=False):
    """What one call of `rerank` may set.

    `model` is a model string or another id of the same provider, `top_n` how many of the best are wanted, None is all.
    `extra` and `headers` go to the wire as they are.
    """

    model: str | None
    top_n: int | None
    extra: Mapping[str, Any] | None
    headers: Mapping[str, str] | None


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Options laid over each other: None leaves what is below; `headers` and `extra` are joined, key by key."""
    result: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            if value is not None:
                joins = name in ("headers", "extra") and name in result
                result[name] = {**result[name], **value} if joins else value
    return result


def checked_options(options: Mapping[str, Any], known: type[Any]) -> dict[str, Any]:
    """The options that are set, each of the right type.

    Raises:
        ConfigurationError: one is not known (the nearest is named), or has a wrong type.
    """
    names = known.__annotations__
    options = _by_one_name(options)
    for name, value in options.items():
        if name in ("tools", "hooks", "runtime_wrappers", "model_wrappers") and not _is_several(value):
            raise ConfigurationError(f"{name} is a list, as in {name}=[…], not {type(value).__name__}")
        if name in ("model", "base_url") and not isinstance(value, str | None):
            raise ConfigurationError(f"{name} is a text, not {type(value).__name__}")
        if name not in names:
            if name in Settings.__annotations__ and name not in Options.__annotations__:
                raise ConfigurationError(f"{name} is a setting of the client, not of a call: Client(…, {name}=…)")
            near = get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(names))}"
            raise ConfigurationError(f"unknown option {name!r}; {hint}")
    given = {name: value for name, value in options.items() if value is not None}
    portable = {name: value for name, value in given.items() if name in Options.__annotations__}
    try:
        msgspec.convert(portable, Options)
    except (msgspec.ValidationError, UnicodeError) as error:
        raise ConfigurationError(f"an option has a wrong value: {_option_error(str(error))}") from None
    if isinstance(stop := given.get("stop"), str):
        given["stop"] = (stop,)
    elif stop is not None:
        given["stop"] = tuple(stop)
    if (documents := given.get("documents")) is not None:
        given["documents"] = tuple(documents)
    # Copies, so that what the caller changes afterwards changes nothing here.
    given.update({name: dict(given[name]) for name in ("headers", "extra") if name in given})
    return given


def header_text(value: Any, name: str) -> str | None:
    """A text that a header can carry, or None."""
    if value is not None and (not isinstance(value, str) or not value or not (value.isascii() and value.isprintable())):
        raise ConfigurationError(f"{name} is a text that a header can carry, not {value!r}")
    return value


def phases_of(include: Iterable[str] | None) -> frozenset[str]:
    """The phases a stream is to show.

    Raises:
        ConfigurationError: one is no phase.
    """
    if include is None:
        return _ALL_PHASES
    if not isinstance(include, Iterable):
        raise ConfigurationError(f"include is a list of phases, as in include=['generating'], not {include!r}")
    chosen = frozenset([include] if isinstance(include, str) else include)
    if unknown := chosen - _ALL_PHASES:
        raise ConfigurationError(f"{min(map(str, unknown))!r} is no phase; there are: {', '.join(sorted(_ALL_PHASES))}")
    return chosen


def seconds(value: Any, name: str) -> float | None:
    """A duration in seconds, or None for no limit."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ConfigurationError(f"{name} is a number of seconds above 0, or None for no limit; not {value!r}")
    return float(value)


def whole(value: Any, name: str, least: int) -> int:
    """A whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{name} is a whole number of at least {least}, not {value!r}")
    return value


def embedding_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `embed` that are set, each of them checked."""
    checked = checked_options(options, EmbeddingOptions)
    if (dimensions := checked.get("dimensions")) is not None:
        whole(dimensions, "dimensions", 1)
    for name, words in (("encoding_format", EncodingFormat), ("input_type", InputType)):
        if name in checked and checked[name] not in get_args(words):
            raise ConfigurationError(f"{name} is one of {', '.join(get_args(words))}, not {checked[name]!r}")
    return checked


def policy(value: Any) -> Any:
    """What becomes of an option that cannot be expressed."""
    if value not in get_args(OnUnsupported):
        raise ConfigurationError(f"on_unsupported is one of {', '.join(get_args(OnUnsupported))}, not {value!r}")
    return value


def fetch_from(value: Any) -> From:
    """From where what a URL names may be loaded."""
    if value not in get_args(From):
        raise ConfigurationError(f"fetch is one of {', '.join(get_args(From))}, not {value!r}")
    return cast("From", value)


def _is_several(value: Any) -> bool:
    return value is None or (isinstance(value, Iterable) and not isinstance(value, (str, bytes)))


def _by_one_name(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options with `extra_body`, the SDKs' word, under its name here."""
    if (extra := options.get("extra_body")) is None:
        return options
    if options.get("extra") is not None:
        raise ConfigurationError("extra= and extra_body= are two names of one option; give one of them")
    return {**{name: value for name, value in options.items() if name != "extra_body"}, "extra": extra}


def _option_error(message: str) -> str:
    what, _, where = message.partition(" - at `$.")
    return f"{where.rstrip('`')}: {what}" if where else what
