"""What a client and a call may be told, checked before anything is sent; one layer over another."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Literal, TypedDict, cast, get_args, get_origin, get_type_hints

import msgspec

from .billing import PriceSource
from .chunks import Phase
from .credentials import ApiKey
from .dialects import EncodingFormat, InputType
from .dialects.ranges import PORTABLE, outside
from .downloads import From
from .errors import ConfigurationError
from .hooks import Hook
from .media import AudioSource, FileSource, ImageSource
from .model import Model, OnUnsupported
from .recovery import Way
from .requests import Effort, Options, SchemaMode
from .runtime import Runtime, Transport
from .tools import AnyTool
from .transports import FRAMING, HttpClient, HttpSession, check_header

RuntimeWrapping = Callable[[Runtime], Runtime]
ModelWrapping = Callable[[Model, Runtime], Model]
Recover = bool | Way | Collection[Way]

_ALL_PHASES = frozenset(Phase)
# What vendors' SDKs and other libraries call an option, and what it is here.
_CALLED_ELSEWHERE = {
    **dict.fromkeys(("video", "videos"), "files=[sabir.video(…)]"),
    **dict.fromkeys(("document", "pdf", "pdfs"), "files=[…]"),
    **dict.fromkeys(("max_completion_tokens", "max_output_tokens", "max_new_tokens", "num_predict"), "max_tokens="),
    **dict.fromkeys(("reasoning", "reasoning_effort", "effort", "think", "thinking_budget"), "thinking="),
    **dict.fromkeys(("response_format", "response_model", "output_type", "format"), "schema="),
    **dict.fromkeys(("instructions", "system_prompt", "system_message"), "system="),
    **dict.fromkeys(("stop_sequences", "stop_words"), "stop="),
    **dict.fromkeys(("repeat_penalty", "rep_pen"), "repetition_penalty="),
    **dict.fromkeys(("extra_headers", "default_headers"), "headers="),
    **dict.fromkeys(("functions", "mcp_tools"), "tools=[…]"),
    **dict.fromkeys(("max_retries", "num_retries", "retries"), "max_attempts="),
    **dict.fromkeys(("api_base", "host", "endpoint"), "base_url="),
    "http_client": "transport=",
    # Ollama's.
    "num_ctx": "extra={'options': {'num_ctx': …}}",
}


class Settings(Options, total=False):
    """What a client may be made with, beside the options of its calls.

    `timeout` is the total deadline of a call in seconds, over all attempts and the whole stream, tools not counted;
    `idle_timeout` the longest silence, `connect_timeout` the longest wait for a connection; None is no limit.
    `max_attempts` is the most requests made for one answer; `recover` is told of in `Call`. `on_unsupported` says what
    becomes of an option that the provider cannot express: a Python warning, an error, or only a line in
    `response.warnings`.

    `api_key` is a key, or a function (`def` or `async def`) that returns one or a token: it is asked before every
    attempt, and keeps what is still good itself. It may be `sabir.signing.AwsCredentials` or a function that returns
    them, too, or the standard credentials of a cloud (`Aws`, `Google` and `Azure` of the modules in `sabir.clouds`),
    which are fetched when they are needed and renewed before they end. `organization` and `project` say for whom a
    request is, where a provider has headers for that. `extra_body` is another name of `extra`.

    `proxy` is the URL of a proxy for every server (but those at 169.254.0.0/16, from which a machine in a cloud has its
    credentials), `http://user:password@host:port` or https, and False is none. Unset
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
    api_key: ApiKey | None
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
    validation_retries: int
    recover: Recover
    proxy: str | Literal[False] | None
    ca_file: str | os.PathLike[str] | None
    ssl_context: ssl.SSLContext | None
    transport: Transport | Literal["httpx2"] | HttpClient | HttpSession | None
    http2: bool
    fetch: From
    prices: PriceSource | None
    runtime_wrappers: Iterable[RuntimeWrapping]
    model_wrappers: Iterable[ModelWrapping]


class BatchOptions(Options, total=False):
    """What a batch may set for all its prompts: that part of `Call` that is not for one prompt, or one conversation."""

    system: str | None
    model: str | None
    extra_body: Mapping[str, Any] | None
    tools: Iterable[AnyTool] | None
    schema_mode: SchemaMode | None


class Call(BatchOptions, total=False):
    """What one call may set.

    `system` is the system message's text, `model` a model string or another id of the same provider. `images`, `audio`
    and `files` go with the prompt: lists of paths, bytes, URLs and what else `sabir.image`, `audio` and `file` take.
    `tools` are functions, `Tool`s, or `ToolSpec`s (advertised and never
    run); they take the place of the client's or chat's for this call, also `[]`. `max_tool_rounds=0` runs none.
    `extra_body` is another name of `extra`.

    `schema_mode` says how an answer is made to fit `schema`, if not the best way that is known of the model:
    "native" (the provider's own mode, a grammar in this process), "tool" (a forced one), "json" (the prompt, beside a
    mode of some JSON) or "prompt". With
    `validation_retries` an answer that does not fit is sent back with what is wrong, so many times at most; every
    attempt is part of the conversation.

    `recover` says what is done about an answer that breaks off after some of it has come: True is the first of three
    ways that there is, and one of their names, or several, only those. "resume" has the provider make the answer in the
    background, and keep it for a while, so that it can be read on; "continue" gives the model its text to go on with;
    "restart" asks again from the beginning, and says so by a chunk that `is_restart`.
    """

    images: Iterable[ImageSource] | None
    audio: Iterable[AudioSource] | None
    files: Iterable[FileSource] | None
    max_tool_rounds: int | None
    validation_retries: int | None
    recover: Recover | None


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
            is_set = name in Settings.__annotations__ and name not in Options.__annotations__
            if is_set and name in Call.__annotations__:
                raise ConfigurationError(f"{name} is for conversations, as in ask(…, {name}=…); leave it out")
            if is_set:
                raise ConfigurationError(f"{name} is a setting of the client, not of a call: Client(…, {name}=…)")
            if known is Settings and name in Call.__annotations__:
                raise ConfigurationError(f"{name} is an option of a call, not of the client: ask(…, {name}=…)")
            raise ConfigurationError(f"unknown option {name!r}; {_hint(name, names)}")
    given = {name: value for name, value in options.items() if value is not None}
    portable = {name: value for name, value in given.items() if name in Options.__annotations__}
    if "thinking" in portable:
        portable["thinking"] = given["thinking"] = _thinking(given["thinking"])
    check_types(portable, Options)
    if (found := outside(portable, PORTABLE)) is not None:
        name, wanted = found
        raise ConfigurationError(f"{name} is {wanted}, not {portable[name]!r}")
    _check_headers(given.get("headers", {}))
    if isinstance(stop := given.get("stop"), str):
        given["stop"] = (stop,)
    elif stop is not None:
        given["stop"] = tuple(stop)
    if (documents := given.get("documents")) is not None:
        given["documents"] = tuple(documents)
    # Copies, so that what the caller changes afterwards changes nothing here.
    given.update({name: dict(given[name]) for name in ("headers", "extra") if name in given})
    return given


def check_types(options: Mapping[str, Any], known: type[Any]) -> None:
    """See to it that options are of the types that `known` says.

    Raises:
        ConfigurationError: one is not; says which, and what it may be.
    """
    try:
        msgspec.convert(options, known)
    except (msgspec.ValidationError, UnicodeError) as error:
        what, _, where = str(error).partition(" - at `$.")
        where = where.rstrip("`")
        if choices := _choices(get_type_hints(known).get(where)):
            raise ConfigurationError(f"{where} is one of {', '.join(choices)}, not {options[where]!r}") from None
        place = f"{where}: " if where else ""
        raise ConfigurationError(f"an option has a wrong value: {place}{what}") from None


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


def schema_mode(value: Any) -> SchemaMode | None:
    """How an answer is to be made to fit its schema, None for the best way."""
    if value is not None and value not in get_args(SchemaMode):
        raise ConfigurationError(f"schema_mode is one of {', '.join(get_args(SchemaMode))}, not {value!r}")
    return cast("SchemaMode | None", value)


def recovery_ways(value: Any) -> frozenset[Way]:
    """The ways in which an answer that breaks off may be recovered."""
    known = get_args(Way)
    if isinstance(value, bool):
        return frozenset(known if value else ())
    several = cast("Collection[Any]", [value] if isinstance(value, str) else value)
    if not isinstance(several, (list, tuple, set, frozenset)) or any(word not in known for word in several):
        raise ConfigurationError(f"recover is True, False, or a list of some of {', '.join(known)}; not {value!r}")
    return frozenset(several)


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


def _thinking(value: Any) -> bool | int | Effort:
    """How much is to be thought: no tokens are none."""
    is_budget = isinstance(value, int) and value >= 0
    if not is_budget and value not in get_args(Effort):
        known = ", ".join(map(repr, get_args(Effort)))
        raise ConfigurationError(
            f"thinking is False, True, one of {known}, or the most tokens to think for; not {value!r}"
        )
    return value or False


def _check_headers(headers: Mapping[str, str]) -> None:
    """Refuse headers that could not be sent as they are given."""
    names = [name.lower() for name in headers]
    for name, value in headers.items():
        check_header(name, value)
        if name.lower() in FRAMING:
            raise ConfigurationError(f"headers has {name}, which is written by what sends the body; leave it out")
        if names.count(name.lower()) > 1:
            raise ConfigurationError(f"headers has {name} twice: upper and lower case are the same there")


def _is_several(value: Any) -> bool:
    return value is None or (isinstance(value, Iterable) and not isinstance(value, (str, bytes)))


def _by_one_name(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options with `extra_body`, the SDKs' word, under its name here."""
    if (extra := options.get("extra_body")) is None:
        return options
    if options.get("extra") is not None:
        raise ConfigurationError("extra= and extra_body= are two names of one option; give one of them")
    return {**{name: value for name, value in options.items() if name != "extra_body"}, "extra": extra}


def _hint(name: str, names: Iterable[str]) -> str:
    """What somebody may have meant by an option that there is not."""
    # A schema is a parameter of its own, of the calls that have a way to one.
    known = {*names, "schema"} if "schema_mode" in names else set(names)
    if (meant := _CALLED_ELSEWHERE.get(name)) is not None and meant.partition("=")[0] in known:
        return f"did you mean {meant}?"
    if near := get_close_matches(name, names, n=1):
        return f"did you mean {near[0]!r}?"
    extra = f"; what only some servers take goes in extra={{{name!r}: …}}, as it is" if "extra" in names else ""
    return f"there are: {', '.join(sorted(names))}{extra}"


def _choices(kind: Any) -> list[str]:
    """The values of a type that names them one by one, as they are written; none of any other."""
    if kind is bool:
        return ["True", "False"]
    if get_origin(kind) is Literal:
        return [repr(each) for each in get_args(kind)]
    of_each = [_choices(each) for each in get_args(kind) if each is not type(None)]
    return [choice for choices in of_each for choice in choices] if all(of_each) else []
