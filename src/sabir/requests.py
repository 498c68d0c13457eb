"""What is asked and what comes back: requests, responses and what happened on the way; knows no wire format.

The fields of `Options` are the portable parameters: every dialect has a verdict on each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, TypedDict

import msgspec

from .cost import Cost
from .deltas import FinishReason
from .messages import CacheMark, Message, ProviderState, ToolCall
from .strict_json import decode_json
from .usage import Usage

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # a default for a type variable: type checkers know it, Python 3.13 does

    Parsed = TypeVar("Parsed", default=None)
else:
    from typing import TypeVar

    Parsed = TypeVar("Parsed")

Effort = Literal["minimal", "low", "medium", "high"]
Thinking = bool | int | Effort


class Options(TypedDict, total=False):
    """What a call may set beyond its prompt; an option that is absent or None is unset and not sent.

    `thinking` is False or 0 (don't), True (do), an effort, or a budget in tokens. `tool_choice` is "auto", "none",
    "required" or the name of a tool. Numbers that nobody takes, such as a temperature below 0, are refused at once.
    `documents` are what the answer is to rest on and cite, where a provider takes them beside the messages. `cache` has
    the provider keep what prompts begin with, for the calls that begin alike; "5m" and "1h" say for how long, where
    that can be said. `extra` and `headers` go to the wire as they are.
    """

    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    max_tokens: int | None
    stop: str | Sequence[str] | None
    seed: int | None
    frequency_penalty: float | None
    presence_penalty: float | None
    repetition_penalty: float | None
    thinking: Thinking | None
    tool_choice: str | None
    parallel_tool_calls: bool | None
    logprobs: bool | None
    top_logprobs: int | None
    n: int | None
    user: str | None
    documents: Sequence[str | Mapping[str, Any]] | None
    cache: CacheMark | None
    extra: Mapping[str, Any] | None
    headers: Mapping[str, str] | None


class ToolSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tool as a model is told of it; `parameters` is a JSON Schema of an object.

    `state` is what one provider's format says of it beyond that; one that only has a state is run by the provider.
    `cache` marks that the tools up to this one are worth keeping.
    """

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    state: ProviderState | None = None
    cache: CacheMark | None = None


SchemaMode = Literal["native", "grammar", "tool", "json", "prompt"]


class OutputSchema(msgspec.Struct, frozen=True, omit_defaults=True):
    """The shape the answer is to have, and how it comes to it; a dialect enforces it where that is "native"."""

    name: str
    json: dict[str, Any]
    mode: SchemaMode = "native"


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One question to one model, in portable words. None is unset.

    `thinking` is False (don't), True (do), an effort, or a budget in tokens. `tool_choice` is "auto", "none",
    "required" or the name of a tool. `extra` and `headers` go to the wire as they are. `state` is what a decoded
    request said beyond these words, in its own format.
    """

    model: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    schema: OutputSchema | None = None
    stream: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    thinking: Thinking | None = None
    tool_choice: str | None = None
    parallel_tool_calls: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    n: int | None = None
    user: str | None = None
    documents: tuple[str | dict[str, Any], ...] | None = None
    cache: CacheMark | None = None
    extra: dict[str, Any] = {}
    headers: dict[str, str] = {}
    state: ProviderState | None = None


class Secret(str):
    """A text that shows as dots, wherever something prints the variables of a program. On the wire it is itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


class HttpRequest(msgspec.Struct, frozen=True):
    """An HTTP request. Its repr names the headers but shows no value, since one of them is the key.

    One that `is_for_proof` fetches credentials, so that its body or its answer's is secret: no recording has it.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    is_for_proof: bool = False

    def __repr__(self) -> str:
        names = ", ".join(name for name, _ in self.headers)
        return f"HttpRequest({self.method} {self.url}, headers: {names}, body: {len(self.body)} bytes)"


class Notice(msgspec.Struct, frozen=True):
    """Something that did not go as asked: what (`subject`), of which `kind`, and a sentence with reason and remedy."""

    kind: Literal["unsupported", "emulated", "dropped", "default_model", "provider", "limit", "retried", "advice"]
    subject: str
    message: str

    def __str__(self) -> str:
        return self.message


class Explanation(msgspec.Struct, frozen=True):
    """A request as it would be sent, the key's header shown as dots; `notices` say what was lowered.

    `usage` is an estimate of what the model will read, `cost` what that alone costs; None where neither can be said.
    """

    model: str
    dialect: str
    method: str
    url: str
    headers: dict[str, str]
    body: Any
    notices: tuple[Notice, ...]
    usage: Usage | None = None
    cost: Cost | None = None
    schema_mode: SchemaMode | None = None


class Attempt(msgspec.Struct, frozen=True):
    """One request that was made: its outcome in a word, and the seconds it took until then."""

    outcome: str
    seconds: float
    status: int | None = None
    request_id: str | None = None
    waited: float = 0.0


class Timings(msgspec.Struct, frozen=True):
    """Seconds from the start of the call, tools included."""

    total: float
    first_token: float | None = None


class CacheReport(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """What came of keeping the prompt: the tokens that were `read` from the provider's cache and `written` to it.

    `hit_rate` is the share of all input tokens that was read; None where the provider does not say. If clearly fewer
    were read than a call before let expect, `missed` is how many, `changed` the first section of the prompt that is
    another than then ("tools", "schema", "system", "message 3": the third after the system message) or None if all is
    the same, `reason` a sentence, and `cost` what the miss cost more, None where that is not known.
    """

    hit_rate: float | None = None
    read: int | None = None
    written: int | None = None
    missed: int = 0
    changed: str | None = None
    reason: str | None = None
    cost: Cost | None = None

    def __str__(self) -> str:
        rate = "not told" if self.hit_rate is None else f"{self.hit_rate:.0%}"
        cost = "" if self.cost is None else f" (cost {self.cost} more)"
        return f"hit rate {rate}" + (f"; {self.reason}{cost}" if self.reason else "")


class Response(msgspec.Struct, Generic[Parsed], frozen=True, kw_only=True, repr_omit_defaults=True):
    """A whole answer; prints as its text.

    `message` is the final message, `messages` everything the turn added to the conversation (calls and results of
    tools included), `usage`, `cost` and `attempts` count all its rounds. `cost` is None where it is not known, which is
    not 0. `choices` has more than one message if `n` was set, and `finish_reasons` says why each of them ended.
    `schema_mode` says how the answer was made to fit its schema: by the provider's own mode ("native"), a grammar in
    this process, a forced tool, or the prompt (with "json", beside a mode of some JSON).
    `cache` says how much of the prompt came from the provider's cache.
    """

    message: Message
    parsed: Parsed
    messages: tuple[Message, ...]
    usage: Usage
    timings: Timings
    finish_reason: FinishReason
    model: str
    cost: Cost | None = None
    warnings: tuple[Notice, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    request_id: str | None = None
    choices: tuple[Message, ...] = ()
    finish_reasons: tuple[FinishReason, ...] = ()
    body: bytes | None = None
    schema_mode: SchemaMode | None = None
    cache: CacheReport = CacheReport()

    def __str__(self) -> str:
        return self.text

    @property
    def text(self) -> str:
        return self.message.text

    @property
    def thinking(self) -> str:
        return self.message.thinking

    @property
    def refusal(self) -> str | None:
        return self.message.refusal

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return self.message.tool_calls

    @property
    def raw(self) -> Any:
        """The last answer's body as the provider sent it, decoded; None for a stream, whose events are not kept."""
        return None if self.body is None else decode_json(self.body)
