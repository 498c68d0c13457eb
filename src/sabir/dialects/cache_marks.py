"""Where a prompt is worth keeping, said to servers that want to be told, and what to say of those that do not.

Providers keep what prompts begin with in one of two ways: up to places that the request marks, or by themselves, then
perhaps with a key that brings requests of the same beginning to the same machine. Knows no wire format: which words it
has for a mark, and where, is a dialect's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Any, cast

import msgspec

from ..messages import Audio, CacheMark, File, Image, Message, Part, Text, ToolCall, ToolResult, Value
from ..requests import Notice, Request
from ..strict_json import is_object

# https://platform.claude.com/docs/en/build-with-claude/prompt-caching, and
# https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
MOST_MARKS = 4
# What is kept for this long has to stand before what is not, or the request is refused: the same pages.
_LONG: CacheMark = "1h"

_MARKABLE = (Text, Image, File, Audio, ToolCall, ToolResult, Value)


@dataclass(frozen=True)
class Caching:
    """How a server keeps prompts.

    Attributes:
        marked: the models, by a pattern of their names, that are told where; None is a server that is not to be told.
        with_tools: whether it has a word for a mark behind a tool, too.
        brief: the models that are told where, and keep prompts for five minutes whatever is asked.
        key: the field that takes a key which requests of the same beginning have in common; None if there is none.
        long: the models that can be asked to keep prompts for long, at no other price (`prompt_cache_retention`).
        least: how many tokens a prompt has to have to be kept, by the first pattern that fits the model's name.
        remedy: what else a caller can do there, in a clause.
    """

    marked: re.Pattern[str] | None = None
    with_tools: bool = True
    brief: re.Pattern[str] | None = None
    key: str | None = None
    long: re.Pattern[str] | None = None
    least: tuple[tuple[re.Pattern[str], int], ...] = ()
    remedy: str = ""

    def verdict(self, mark: str | None = None) -> str:
        """What becomes of `cache`; `mark` is the format's word for a mark."""
        if self.marked is not None and mark is not None:
            return mark
        return self.key or "(by itself: there is nothing to send)"

    def least_for(self, model: str) -> int | None:
        """How many tokens a prompt for this model has to have to be kept; None if that is not known."""
        return next((least for pattern, least in self.least if pattern.search(model)), None)

    def marks(self, model: str) -> bool:
        """Whether this model is told where to keep a prompt."""
        return self.marked is not None and self.marked.search(model) is not None


# What most servers do.
BY_THEMSELVES = Caching()
ANY_MODEL = re.compile("")
# https://developers.openai.com/api/docs/guides/prompt-caching, 2026-11. From GPT-5.6 on there are other words, of which
# the longer one doubles what it costs to keep a prompt.
OPENAI_CACHING = Caching(
    key="prompt_cache_key",
    long=re.compile(r"^gpt-(?:4\.1|5(?:\.[1-5])?)(?:-codex(?:-mini)?|-chat-latest)?(?:-\d{4}-\d\d-\d\d)?$"),
    least=((ANY_MODEL, 1024),),
)
# https://platform.claude.com/docs/en/build-with-claude/prompt-caching, 2026-11, and the same on Bedrock.
LEAST_OF_CLAUDE: tuple[tuple[re.Pattern[str], int], ...] = (
    (re.compile(r"claude-(?:opus|fable|mythos)-5"), 512),
    (re.compile(r"claude-(?:haiku-4[-.]5|opus-4[-.][567](?!\d))"), 4096),
    (re.compile(r"claude-(?:3-haiku|3[-.]5-haiku|haiku-3)"), 2048),
    (re.compile(r"claude"), 1024),
)


def is_marked(request: Request) -> bool:
    """Whether any tool or part carries a mark."""
    for message in request.messages:
        for part in message.parts:
            if part.cache:
                return True
    return any(tool.cache for tool in request.tools)


def keyed(request: Request, caching: Caching) -> tuple[dict[str, Any], tuple[Notice, ...]]:
    """What is sent to a server that keeps prompts by itself: the fields that help, and what to say of the rest."""
    if not request.cache and not is_marked(request):
        return {}, ()
    if caching.key is None:
        text = "nothing was sent for cache: servers of this format that keep prompts do so by themselves"
        return {}, (Notice("emulated", "cache", "; ".join(filter(None, (text, caching.remedy)))),)
    fields: dict[str, Any] = {caching.key: common_key(request)}
    # There is one key for the whole prompt: the longest time that any of it is to be kept for counts.
    asked = {request.cache, *(mark for _, mark in _marks(request))}
    lifetime = next((each for each in (_LONG, "5m") if each in asked), None)
    if lifetime == _LONG and caching.long is not None and caching.long.search(request.model):
        text = "cache='1h' was approximated: sent as prompt_cache_retention='24h', which is the most, at no other price"
        return {**fields, "prompt_cache_retention": "24h"}, (Notice("emulated", "cache", text),)
    if lifetime is not None:
        text = f"cache={lifetime!r} was sent without its time: this API keeps prompts for as long as it likes"
        return fields, (Notice("emulated", "cache", text),)
    return fields, ()


def common_key(request: Request) -> str:
    """A key that all requests of the same tools and system messages have in common; it tells nothing of them."""
    system = [message for message in request.messages if message.role == "system"]
    digest = blake2b(digest_size=12)
    for tool in request.tools:
        digest.update(msgspec.msgpack.encode((tool.name, tool.description, tool.parameters)))
    for message in system or request.messages[:1]:
        # A mark is no part of the prompt, and may stand in another place of it the next time.
        bare = [msgspec.structs.replace(part, state=None, cache=None) for part in message.parts]
        digest.update(msgspec.msgpack.encode((message.role, bare)))
    return f"sabir-{digest.hexdigest()}"


# The message and its part, or -1 and the tool: so ordered as the prompt is.
_Place = tuple[int, int]


def placed(request: Request, caching: Caching, *, is_after_tools: bool = True) -> tuple[Request, tuple[Notice, ...]]:
    """The request with its marks in its parts: those that it came with, and for `cache` those that help.

    They help after the tools (unless this model would take none there), after the system message and at the end of the
    last message, so that the next round and the next turn find all of it. Of more than four the last are kept, and what
    stands before a mark of an hour is kept for an hour, too.
    """
    found = dict(_marks(request)) if is_marked(request) else {}
    marks: dict[_Place, CacheMark] = dict(found)
    notices: list[Notice] = []
    if not caching.with_tools and any(at < 0 for at, _ in found):
        marks = {place: mark for place, mark in found.items() if place[0] >= 0}
        notices.append(Notice("dropped", "cache", "a mark behind a tool was left out: this API has no place for it"))
    if request.cache:
        for place in _helpful(request, is_after_tools=is_after_tools and caching.with_tools):
            if len(marks) < MOST_MARKS:
                marks.setdefault(place, request.cache)
        # A mark that names no time is kept as long as the call wants.
        marks = {place: request.cache if mark is True else mark for place, mark in marks.items()}
    if (surplus := len(marks) - MOST_MARKS) > 0:
        text = f"{surplus} marks of cache were left out: {MOST_MARKS} are the most, and the last of them are kept"
        notices.append(Notice("dropped", "cache", text))
        marks = {place: marks[place] for place in sorted(marks)[surplus:]}
    if caching.brief is not None and caching.brief.search(request.model):
        if _LONG in marks.values():
            text = "cache='1h' was sent without its time: this model keeps prompts for five minutes"
            notices.append(Notice("emulated", "cache", text))
        marks = dict.fromkeys(marks, True)
    if early := _too_short(marks):
        text = (
            f"{len(early)} marks of cache were raised to '1h': this API refuses any that are of less before one of '1h'"
        )
        notices.append(Notice("emulated", "cache", text))
        marks |= dict.fromkeys(early, _LONG)
    changed = [place for place in {*found, *marks} if found.get(place) != marks.get(place)]
    if not changed:
        return request, tuple(notices)
    tools, messages = list(request.tools), list(request.messages)
    for at, part_at in changed:
        mark = marks.get((at, part_at))
        if at < 0:
            tools[part_at] = msgspec.structs.replace(tools[part_at], cache=mark)
        else:
            parts = list(messages[at].parts)
            parts[part_at] = msgspec.structs.replace(parts[part_at], cache=mark)
            messages[at] = msgspec.structs.replace(messages[at], parts=tuple(parts))
    return msgspec.structs.replace(request, tools=tuple(tools), messages=tuple(messages)), tuple(notices)


def is_in_order(request: Request) -> bool:
    """Whether its marks stand as they may: none of an hour behind a shorter one."""
    return not (is_marked(request) and _too_short(dict(_marks(request))))


def _too_short(marks: Mapping[_Place, CacheMark]) -> list[_Place]:
    """The marks that stand before one of an hour, and are of less: a bare one is of five minutes."""
    last = max((place for place, mark in marks.items() if mark == _LONG), default=None)
    return [] if last is None else [place for place, mark in marks.items() if place < last and mark != _LONG]


def unmarked(request: Request) -> Request:
    """The request without a wish or a mark, for a model that would refuse it with them."""
    tools = tuple([msgspec.structs.replace(tool, cache=None) for tool in request.tools])
    messages = tuple(
        [
            msgspec.structs.replace(message, parts=tuple([_unmarked(part) for part in message.parts]))
            for message in request.messages
        ]
    )
    return msgspec.structs.replace(request, cache=None, tools=tools, messages=messages)


def _unmarked(part: Part) -> Part:
    return msgspec.structs.replace(part, cache=None) if part.cache else part


def last_mark(request: Request) -> tuple[int, int] | None:
    """The message and the part that the last mark is on, -1 and the tool if it is on one; None if there is none."""
    return max((place for place, _ in _marks(request)), default=None)


def _marks(request: Request) -> Iterator[tuple[_Place, CacheMark]]:
    """The marks of a request, as they stand in its prompt."""
    for at, tool in enumerate(request.tools):
        if tool.cache:
            yield (-1, at), tool.cache
    for at, message in enumerate(request.messages):
        for part_at, part in enumerate(message.parts):
            if part.cache:
                yield (at, part_at), part.cache


def _helpful(request: Request, *, is_after_tools: bool) -> Iterator[_Place]:
    """Where marks help, the most helpful first."""
    messages = request.messages
    begin = next((at for at, message in enumerate(messages) if message.role != "system"), len(messages))
    for several in (range(len(messages) - 1, begin - 1, -1), range(begin - 1, -1, -1)):
        places = ((at, part_at) for at in several if (part_at := _last_markable(messages[at])) is not None)
        yield from islice(places, 1)
    if request.tools and is_after_tools:
        yield -1, len(request.tools) - 1


def _last_markable(message: Message) -> int | None:
    for at in range(len(message.parts) - 1, -1, -1):
        part = message.parts[at]
        # Text that shows nothing is left out of requests.
        if isinstance(part, _MARKABLE) and not (isinstance(part, Text) and not part.text.strip()):
            return at
    return None


def control_of(mark: CacheMark) -> dict[str, Any]:
    """A mark as Anthropic's `cache_control`, which others have taken over."""
    return {"type": "ephemeral"} if mark is True else {"type": "ephemeral", "ttl": mark}


def mark_of(control: Any, kind: str = "ephemeral") -> CacheMark | None:
    """The mark of a `cache_control`, or of another object of such a `kind`; None if it says something else."""
    if not is_object(control) or control.get("type") != kind or not control.keys() <= {"type", "ttl"}:
        return None
    match control.get("ttl", True):
        case True:
            return True
        case "5m" | "1h" as lifetime:
            return cast("CacheMark", lifetime)
        case _:
            return None
