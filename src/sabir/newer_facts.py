"""Facts about models that are newer than this release: fetched when the user wants it, kept in the cache folder.

They come from models.dev, or from another address that serves its format: providers by name, their models by id, each
with what it can do, takes and costs (https://github.com/sst/models.dev#schema-reference). What does not fit that is
left out, model by model; and of what a file says, only what has the right type and a sensible size is believed.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import ROUND_UP, Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from .cache_files import cache_folder, read_cached, write_cached
from .catalog import Level, ModelFacts, Newer
from .compression import decompressed
from .cost import Prices, Rates, Tier
from .dialects.failures import provider_error
from .errors import ConfigurationError, SabirWarning, StorageError
from .providers import PROVIDERS, check_base_url
from .requests import HttpRequest
from .runtime import Blocking, Line, Runtime, run
from .strict_json import decode_json, is_array, is_object
from .transports import blocking_transport, network_of
from .version import __version__

URL = "https://models.dev/api.json"
TIMEOUT = 60.0
# It was 3 MB in 2026; what is kept of it is a tenth.
MOST_FETCHED = 64 << 20
MOST_KEPT = 16 << 20
MOST_TOKENS = 1_000_000_000

# Where its names are others than ours.
_NAMES = {
    "google": "gemini",
    "amazon-bedrock": "bedrock",
    "moonshotai": "moonshot",
    "moonshotai-cn": "moonshot-cn",
    "alibaba": "dashscope",
    "alibaba-cn": "dashscope-cn",
    "togetherai": "together",
    "fireworks-ai": "fireworks",
    "github-models": "github",
    "google-vertex": "vertex",
    "google-vertex-anthropic": "vertex-anthropic",
    "zhipuai": "zhipu",
    "siliconflow-com": "siliconflow",
    "novita-ai": "novita",
    "voyageai": "voyage",
    "cloudflare-workers-ai": "cloudflare",
    "llama": "meta",
}
_RATES = ("input", "output", "reasoning", "cache_read", "cache_write", "input_audio", "output_audio")
_EFFORTS: tuple[Level, ...] = ("minimal", "low", "medium", "high", "xhigh", "max")


class Refreshed(NamedTuple):
    """What a refresh brought: how many models of how many providers are kept, and what could not be understood."""

    path: Path
    providers: int
    models: int
    skipped: tuple[str, ...]


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format_version: Literal[1]
    source: str
    fetched_on: str
    providers: dict[str, dict[str, ModelFacts]]


@functools.cache
def newer_facts() -> Newer:
    """What a refresh has brought, read once; nothing if there was none.

    A broken file is as good as none, and is warned of.
    """
    path = _path()
    try:
        data = read_cached(path, MOST_KEPT)
        return {} if data is None else msgspec.json.decode(data, type=_Kept).providers
    except (StorageError, msgspec.DecodeError, UnicodeDecodeError) as error:
        why = f"the facts about models in {path} are passed over: {error}; `sabir models refresh` makes them anew"
        warnings.warn(why, SabirWarning, stacklevel=2)
        return {}


def refresh(url: str = URL, *, timeout: float = TIMEOUT) -> Refreshed:
    """Fetch the facts that an address has now and keep them, in place of those before.

    Raises:
        SabirError: it cannot be reached, has no such facts, or they cannot be kept. What was kept before is then still.
    """
    check_base_url(url)
    data = _fetched(url, timeout)
    today = datetime.now(UTC).date().isoformat()
    providers, skipped = read_models_dev(data, source=url, day=today, names=PROVIDERS)
    path = _path()
    kept = msgspec.json.encode(_Kept(1, url, today, providers))
    if len(kept) > MOST_KEPT:
        raise StorageError(f"{url} has more than the {MOST_KEPT} bytes of facts that are kept")
    write_cached(path, kept)
    newer_facts.cache_clear()
    return Refreshed(path, len(providers), sum(map(len, providers.values())), skipped)


def read_models_dev(
    data: bytes, *, source: str, day: str, names: Iterable[str]
) -> tuple[dict[str, dict[str, ModelFacts]], tuple[str, ...]]:
    """The facts in a file of models.dev about the providers of these names; and which of its models were passed over.

    Raises:
        StorageError: it is no such file, or has nothing about any of them.
    """
    try:
        value = decode_json(data)
    except ValueError as error:
        raise StorageError(f"{source} is no JSON: {error}") from None
    wanted, found, skipped = frozenset(names), dict[str, dict[str, ModelFacts]](), list[str]()
    for theirs, provider in value.items() if is_object(value) else ():
        name, models = _NAMES.get(theirs, theirs), provider.get("models") if is_object(provider) else None
        if name not in wanted or not is_object(models):
            continue
        for model, entry in models.items():
            try:
                found.setdefault(name, {})[model] = _facts(entry, source, day)
            except (ValueError, TypeError, ArithmeticError) as error:
                skipped.append(f"{name}:{model}: {error}")
    if not any(found.values()):
        raise StorageError(f"{source} has no facts in the format of models.dev about any provider that we know")
    return {name: models for name, models in found.items() if models}, tuple(skipped)


def _facts(entry: Any, source: str, day: str) -> ModelFacts:
    if not is_object(entry):
        raise ValueError("it is no object")
    limit, modalities = _object(entry, "limit"), _object(entry, "modalities")
    taken, tools = modalities.get("input"), entry.get("tool_call")
    cost = entry.get("cost")
    return msgspec.convert(
        {
            # An object says more of it.
            "tools": tools.get("supported") if is_object(tools) else tools,
            "parallel_tools": tools.get("parallel") if is_object(tools) else None,
            "structured": entry.get("structured_output"),
            "thinking": entry.get("reasoning"),
            "thinking_levels": _levels(entry.get("reasoning_options")),
            "vision": _is_in("image", taken),
            "audio": _is_in("audio", taken),
            "video": _is_in("video", taken),
            # Its lists are not kept up for these: one that is missing says nothing.
            "pdf": _is_in("pdf", taken) or None,
            "outputs": modalities.get("output"),
            "context": _tokens(limit.get("context")),
            "max_output": _tokens(limit.get("output")),
            "prices": _prices(cost, source, day) if is_object(cost) else None,
            "source": source,
            "checked_on": day,
        },
        ModelFacts,
    )


def _prices(cost: Mapping[str, Any], source: str, day: str) -> Prices | None:
    base = _rates(cost)
    if "input" not in base:
        return None
    told = cost.get("tiers", [])
    if not is_array(told):
        raise ValueError("the tiers of its prices are no list")
    tiers = [_tier(tier, base) for tier in told]
    # What it was before there were tiers.
    if not tiers and is_object(beyond := cost.get("context_over_200k")):
        tiers = [Tier(above=200_000, **{**base, **_rates(beyond)})]
    return Prices(**base, tiers=tuple(tiers), priced_on=day, source=source)


def _tier(tier: Any, base: Mapping[str, Decimal]) -> Tier:
    size = _object(tier, "tier").get("size") or _object(tier, "context").get("min")
    if (above := _tokens(size)) is None or _object(tier, "tier").get("type", "context") != "context":
        raise ValueError("a tier of its prices is none of the context's size")
    return Tier(above=above, **{**base, **_rates(tier)})


def _rates(cost: Mapping[str, Any]) -> dict[str, Decimal]:
    rates: dict[str, Decimal] = {}
    for name in _RATES:
        if (value := cost.get(name)) is not None:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"the price of {name} is no number")
            rates[name] = _short(Decimal(str(value)))
    Rates(**rates)  # refuses what is no price
    return rates


def _short(rate: Decimal) -> Decimal:
    """A rate with as many places as a price may have: the third of something has more. None of ours is too low."""
    exponent = rate.as_tuple().exponent
    return rate.quantize(Decimal("1E-12"), ROUND_UP) if isinstance(exponent, int) and exponent < -12 else rate


def _levels(options: Any) -> list[str] | None:
    """How thinking can be asked for; the switch is no level."""
    if not is_array(options):
        return None
    levels: list[str] = []
    for option in options:
        match option:
            case {"type": "effort", "values": [*values]}:
                levels += [effort for effort in _EFFORTS if effort in values]
            case {"type": "budget_tokens"}:
                levels.append("budget")
            case _:
                pass
    return levels or None


def _object(value: Any, name: str) -> Mapping[str, Any]:
    inner = value.get(name) if is_object(value) else None
    return inner if is_object(inner) else {}


def _is_in(kind: str, kinds: Any) -> bool | None:
    return kind in kinds if is_array(kinds) else None


def _tokens(value: Any) -> int | None:
    """A limit; 0 stands there for one that is not known."""
    return int(value) if isinstance(value, int | float) and 0 < value <= MOST_TOKENS else None


def _path() -> Path:
    return cache_folder() / "models.json"


def _fetched(url: str, timeout: float) -> bytes:
    runtime = Blocking(lambda: blocking_transport(None, network_of(None)))
    try:
        line = Line(deadline=runtime.now() + timeout, connect=min(10.0, timeout), now=runtime.now)
        return run(lambda: _body(url, runtime, line))
    finally:
        runtime.close()


async def _body(url: str, runtime: Runtime, line: Line) -> bytes:
    headers = (("user-agent", f"sabir/{__version__}"), ("accept", "application/json"))
    reply = await runtime.send(HttpRequest("GET", url, headers, b""), line)
    try:
        whole = decompressed(reply)
        data = bytearray()
        while (piece := await whole.read_some()) and len(data) <= MOST_FETCHED:
            data += piece
    finally:
        reply.close()
    if 300 <= reply.status < 400:
        raise ConfigurationError(f"{url} answered with a redirect (HTTP {reply.status}); name the final address")
    if reply.status != 200:
        raise provider_error(reply.status, reply.headers, bytes(data[: 1 << 16]))
    if len(data) > MOST_FETCHED:
        raise StorageError(f"{url} has more than {MOST_FETCHED} bytes, too many for facts about models")
    return bytes(data)
