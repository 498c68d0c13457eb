"""What the answers of one client cost. Knows no wire format, and no model but by its name.

Whose word counts: the provider's own sum, then the caller's prices, then those of the package genai-prices where it was
asked for, then the catalog's. Where none of them covers all that is billed, the cost is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Literal, final

import msgspec

from .catalog import billed_usage, kept_for_an_hour, reported_cost, said_beyond, searches_of
from .cost import Cost, Prices, cost_of
from .dialects import EmbeddingRequest, RerankRequest
from .errors import ConfigurationError
from .messages import Message, ProviderState
from .requests import Request
from .strict_json import is_object
from .usage import Usage

PriceSource = Literal["genai"] | Mapping[str, Prices]

# What changes the price of a token or is billed beside tokens, where a call asks for it in its `extra`.
_BILLED_OTHERWISE = frozenset(
    {"service_tier", "serviceTier", "speed", "inference_geo", "tools", "mcp_servers", "web_search_options", "plugins"}
)
# The same where an answer says it: a project may have another default than its provider.
_SERVED_OTHERWISE = ("service_tier", "serviceTier", "speed", "inference_geo")
_AS_USUAL = ("default", "standard", "standard_only")
# What answers of a batch say is usual too: who made the batch knows what it costs less.
_SERVED_AS_USUAL = (*_AS_USUAL, "on_demand", "auto", "batch", "global", "not_available", "", None)

_PICTURES = ("input_image_mtok", "output_image_mtok", "input_video_mtok", "output_video_mtok")

# Where genai-prices has other names than we.
_NAMES = {
    "openai-chat": "openai",
    "openai-responses": "openai",
    "gemini": "google",
    "vertex": "google",
    "vertex-anthropic": "google",
    "xai": "x-ai",
    "grok": "x-ai",
    "bedrock": "aws",
    "moonshot": "moonshotai",
    "zhipu": "zhipuai",
    "azure-responses": "azure",
    "voyage": "voyageai",
}


@final
class Billing:
    """Prices the answers of a client."""

    def __init__(self, source: PriceSource | None) -> None:
        """Take the caller's wish.

        Raises:
            ConfigurationError: it is none, or genai-prices is not installed.
        """
        self._own: Mapping[str, Prices] = {}
        self._genai: Any = None
        if source == "genai":
            self._genai = _genai()
        elif isinstance(source, Mapping) and all(isinstance(prices, Prices) for prices in source.values()):
            self._own = dict(source)
        elif source is not None:
            raise ConfigurationError(
                "prices is 'genai', or sabir.Prices by model, as in {'openai:gpt-5': Prices(input=…, output=…)}; "
                f"not {source!r}"
            )

    def cost(
        self,
        provider: str,
        request: Request,
        usage: Usage,
        message: Message | None = None,
        *,
        listed: Prices | None,
        is_own: bool,
    ) -> Cost | None:
        """What an answer cost; without a message, what a request would, of which nobody has said anything yet.

        `listed` are the catalog's prices, `is_own` says whether the server is the provider's own.
        """
        said = said_beyond(None if message is None else message.state)
        if (told := reported_cost(provider, said)) is not None:
            return told
        if any(tool.state is not None and not tool.parameters for tool in request.tools):
            return None  # the provider runs it, and bills it by the use
        return self._priced(provider, request, usage, said, listed, is_own)

    def list_cost(
        self,
        provider: str,
        request: EmbeddingRequest | RerankRequest,
        usage: Usage,
        state: ProviderState | None,
        *,
        listed: Prices | None,
        is_own: bool,
    ) -> Cost | None:
        """What embeddings or a ranking cost; `state` is what the answer said beyond our words."""
        said = said_beyond(state)
        if (told := reported_cost(provider, said)) is not None:
            return told
        # Such models write nothing.
        return self._priced(provider, request, msgspec.structs.replace(usage, output=0), said, listed, is_own)

    def _priced(
        self,
        provider: str,
        request: Request | EmbeddingRequest | RerankRequest,
        usage: Usage,
        said: Mapping[str, Any],
        listed: Prices | None,
        is_own: bool,
    ) -> Cost | None:
        """What the tokens cost, or the searches, by the first prices that are known."""
        usage, kept = billed_usage(provider, said) or usage, kept_for_an_hour(provider, said)
        searches = searches_of(provider, said)
        if not usage.input_tokens and not searches:
            return None  # nothing is answered that was not read: who tells 0 has not counted
        if (own := self._own.get(f"{provider}:{request.model}")) is not None:
            return cost_of(usage, own, cache_write_1h=kept, searches=searches)
        if not is_own or _is_asked_otherwise(request.extra) or _is_served_otherwise(said):
            return None
        if self._genai is not None:
            is_text = not isinstance(request, Request)
            if (cost := self._genai_cost(provider, request.model, usage, kept, is_text)) is not None:
                return cost
        return None if listed is None else cost_of(usage, listed, cache_write_1h=kept, searches=searches)

    def _genai_cost(self, provider: str, model: str, usage: Usage, kept: int, is_text: bool) -> Cost | None:
        """What genai-prices makes of it, with the data it was released with."""
        read, written = usage.input_tokens, usage.output_tokens
        if read is None or written is None:
            return None
        counts = {
            "input_tokens": read,
            "output_tokens": written,
            "cache_read_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write,
            "cache_write_1h_tokens": kept or None,
            "input_audio_tokens": usage.input_audio,
            "output_audio_tokens": usage.output_audio,
        }
        counted = {name: count for name, count in counts.items() if count is not None}
        try:
            found = self._genai.calc_price(
                self._genai.Usage(**counted), model, provider_id=_NAMES.get(provider, provider)
            )
        except (LookupError, ValueError):
            return None
        # What has no price of its own it takes for text, or for nothing; either may be too low.
        needed = ["input_mtok", *(["output_mtok"] if written else [])]
        needed += ["input_audio_mtok"] if usage.input_audio else []
        needed += ["output_audio_mtok"] if usage.output_audio else []
        rates = found.model_price
        if any(getattr(rates, name, None) is None for name in needed):
            return None
        # And of pictures that are priced apart nobody here knows how many tokens they were.
        if not is_text and any(getattr(rates, name, None) is not None for name in _PICTURES):
            return None
        return Cost(
            usd=found.total_price,
            buckets={"input": found.input_price, "output": found.output_price},
            source=f"genai-prices {self._genai.__version__}",
        )


def _is_asked_otherwise(extra: Mapping[str, Any]) -> bool:
    cache = extra.get("prompt_cache_options")
    # https://developers.openai.com/api/docs/pricing: what is kept for 12 hours costs twice as much to write.
    if is_object(cache) and cache.get("ttl", "30m") != "30m":
        return True
    return any(name in _BILLED_OTHERWISE and value not in _AS_USUAL for name, value in extra.items())


def _is_served_otherwise(said: Mapping[str, Any]) -> bool:
    usage = said.get("usage")
    words = [place.get(name) for place in (said, usage) if is_object(place) for name in _SERVED_OTHERWISE]
    return any((word.get("type") if is_object(word) else word) not in _SERVED_AS_USUAL for word in words)


def _genai() -> Any:
    try:
        return import_module("genai_prices")
    except ModuleNotFoundError as error:
        raise ConfigurationError("prices='genai' needs its extra: pip install 'sabir[prices]'") from error
