"""What came of keeping a prompt with the provider, and what broke it. Knows no wire format and no provider.

A provider finds a prompt again only as far as it begins exactly alike. So a client remembers what its last requests
began with, as fingerprints of their sections and the tokens that were kept, and never a text; when hits stop, the
nearest of them tells which section is another now. Nothing of it is written to disk, and it is forgotten with the
client.
"""

from __future__ import annotations

import re
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from itertools import count
from typing import Any, NamedTuple, final

import msgspec

from .cost import Cost
from .dialects.cache_marks import is_marked, last_mark
from .messages import Message, Part, Text
from .requests import CacheReport, Notice, Request
from .usage import Usage

Price = Callable[[Request, Usage, Message], Cost | None]

# How many requests a client remembers, and how many sections of each.
MOST_REQUESTS = 32
MOST_SECTIONS = 1024

# A prompt's sections before its messages, in the order in which providers read them.
_FIXED = ("tools", "schema", "documents", "system", "thinking", "tool_choice")
_WIDTH = 8
# Providers keep prompts in blocks and on several machines: a few tokens less are no miss. Where a section is another,
# there is a cause, and less of a lack tells it.
_CLEARLY_FEWER = 0.5
_FEWER = 0.75
# Who does not tell of writes keeps all of a prompt, long ones in blocks of as many as this.
_LONG_PROMPT = 1024
_BLOCK = 128

_UNTOLD = CacheReport()
_WEEKDAY = r"(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?\b\.?"
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)\b\.?"
)
_DAY = rf"(?:\d\d?(?:st|nd|rd|th)?\.?\s+{_MONTH}|{_MONTH}\s+\d\d?(?:st|nd|rd|th)?\b)"
_DATE = rf"(?:\b\d{{4}}[-/.]\d\d?[-/.]\d\d?|\b\d\d?[-/.]\d\d?[-/.](?:\d{{4}}|\d\d)|\b{_DAY}(?:,?\s+\d{{4}})?)"
_TIME = r"\d\d?:\d\d(?::\d\d(?:[.,]\d+)?)?(?:\s?[ap]\.?m\b\.?)?"
_MOMENT = rf"{_DATE}(?:t|,?\s+(?:at\s+)?){_TIME}(?:\s+(?:[a-z]{{3,4}}\s+)?\d{{4}}\b)?"
_PASSING = re.compile(
    # A day and its time, in either order, and behind both the year, as ctime() has them.
    rf"{_MOMENT}|\b{_TIME},?\s+(?:on\s+)?(?:{_WEEKDAY},?\s+)?{_DATE}"
    # What is said to be the time or the day; those of something, like the time of a train, last.
    r"|\b(?:current|today's|local)\s+(?:date(?:\s+and\s+time)?|datetime|time(?:stamp)?)\s*(?:is\b|[:=])\s*"
    r"[^\n]{0,30}?\d[\w:.+-]*"
    r"|(?:\b(?:today|now|the\s+(?:date|time)(?:\s+now)?)|(?:^|(?<=[.!?]\s))(?:it|date|time))(?:\s+is\s+|'s\s+|\s*[:=]\s*)"
    rf"(?:now\s+)?(?:(?:the\s+)?{_WEEKDAY},?\s+)?(?:the\s+)?(?:{_MOMENT}|{_DATE}|\b{_TIME})"
    r"|\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b",
    re.IGNORECASE | re.MULTILINE,
)
# Seconds or milliseconds since 1970, if they are those of today: other numbers of ten digits are somebody's phone.
_EPOCH = re.compile(r"(?<![\w.+-])(\d{10})(?:\d{3})?(?![\w-])")
_DIGIT = re.compile(r"\d")
_A_DAY = 24 * 60 * 60


class _Seen(NamedTuple):
    """A request that was answered: fingerprints of its sections, and tokens.

    `read` came from the cache; `held` are certainly in it afterwards, and `likely`, if any are kept at all.
    """

    model: str
    sections: bytes
    read: int
    held: int
    likely: int


@final
class PromptMemory:
    """What a client remembers of its last requests. Threads may share it: each change is a single step."""

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}
        self._numbers = count()
        self._found: dict[int, str | None] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def nearest(self, model: str, sections: bytes) -> tuple[int, _Seen, int] | None:
        """The request of this model that began most alike, of several the last: its key, it, and how many sections."""
        best: tuple[int, _Seen, int] | None = None
        # What a request has to begin with to be nearer than the best so far.
        nearer = b""
        for key, seen in reversed(list(self._seen.items())):
            if seen.model == model and seen.sections.startswith(nearer):
                alike = _alike(sections, seen.sections)
                best, nearer = (key, seen, alike), sections[: (alike + 1) * _WIDTH]
                if alike * _WIDTH == len(sections):
                    break
        return best

    def remember(self, seen: _Seen, replaced: int | None) -> None:
        """Keep a request, in the place of one that it goes on from, or of the oldest."""
        self._seen[next(self._numbers)] = seen
        if replaced is not None:
            self._seen.pop(replaced, None)
        for key in list(self._seen)[:-MOST_REQUESTS]:
            self._seen.pop(key, None)

    def advice(self, request: Request) -> Iterator[Notice]:
        """What looks as if no two calls had it in common, in what of the system message is to be kept."""
        if not request.cache and not is_marked(request):
            return
        # Marks alone keep nothing that stands behind the last of them.
        end = None if request.cache else last_mark(request)
        for at, message in enumerate(request.messages):
            if message.role != "system" or (end is not None and at > end[0]):
                return
            text = message.text if end is None or at < end[0] else _joined(message.parts[: end[1] + 1])
            # By its hash, since a prompt of 100 kB takes longer to search than to send.
            passing = self._found.get(key := hash(text), "")
            if passing == "":
                passing = self._found[key] = _passing(text)
                for old in list(self._found)[:-MOST_REQUESTS]:
                    self._found.pop(old, None)
            if passing:
                yield Notice(
                    "advice",
                    "cache",
                    f"the system message has {passing!r}, which looks as if it were another in every call: what comes "
                    "after it is never found in the cache; move it to the end of the prompt, into the last message",
                )
                return


@final
class Watch:
    """One call: what of each round's prompt came from the cache, and what of it should have."""

    __slots__ = ("_changed", "_cost", "_is_cost_known", "_least", "_memory", "_missed", "_model", "_price", "_reason")

    def __init__(self, memory: PromptMemory, model: str, price: Price, least: int | None) -> None:
        self._memory = memory
        self._model = model
        self._price = price
        self._least = least
        self._missed = 0
        self._changed: str | None = None
        self._reason: str | None = None
        self._cost: Cost | None = None
        self._is_cost_known = True

    def saw(self, request: Request, usage: Usage, answer: Message) -> None:
        """Take in a round: what was asked, and what its answer used. Looks at nothing where no cache was wanted."""
        has_traffic = usage.cache_read or usage.cache_write
        if not request.cache and not (has_traffic and is_marked(request)):
            return
        sections, read = fingerprint(request), usage.cache_read or 0
        near = self._memory.nearest(self._model, sections)
        expected, changed, replaced = 0, None, None
        if near is not None:
            key, seen, alike = near
            expected, changed, is_replaced = _compared(sections, seen, alike)
            replaced = key if is_replaced else None
            if changed is not None and read and usage.cache_write is None:
                expected = max(expected, seen.likely)
            # A shorter prompt than that before reads no more than it has.
            expected = min(expected, usage.input_tokens or expected)
        held = read + (usage.cache_write or 0)
        likely = _likely(usage.input_tokens or 0) if usage.cache_write is None else held
        self._memory.remember(_Seen(self._model, sections, read, held, likely), replaced)
        least = _CLEARLY_FEWER if changed is None else _FEWER
        missed = 0 if read >= expected * least else expected - read
        # Whoever never tells of hits has not told that there were none.
        is_cold = changed is not None and usage.cache_read == 0
        if missed or is_cold:
            self._blame(changed, missed, request, usage, answer)
        elif not has_traffic:
            self._reason = self._reason or self._too_small(usage)

    def report(self, usage: Usage) -> CacheReport:
        """What came of it in the whole call, of which this is the usage."""
        told = report_of(usage)
        if self._reason is None:
            return told
        return msgspec.structs.replace(
            told,
            missed=self._missed,
            changed=self._changed,
            reason=self._reason,
            cost=self._cost if self._is_cost_known else None,
        )

    def _blame(self, changed: str | None, missed: int, request: Request, usage: Usage, answer: Message) -> None:
        if self._reason is None:
            self._changed = changed
            self._reason = self._too_small(usage) or _reason(changed)
        if missed:
            self._missed += missed
            cost = _extra_cost(lambda used: self._price(request, used, answer), usage, missed)
            self._is_cost_known = self._is_cost_known and cost is not None
            self._cost = cost if self._cost is None or cost is None else self._cost + cost

    def _too_small(self, usage: Usage) -> str | None:
        least, total = self._least, usage.input_tokens
        if least is None or total is None or total >= least:
            return None
        return f"the prompt has {total} tokens, and of this model none under {least} are kept"


def _joined(parts: Iterable[Part]) -> str:
    return "".join([part.text for part in parts if isinstance(part, Text)])


def _passing(text: str) -> str | None:
    """What in a text looks as if it were another in every call, or a little of it."""
    # Without a digit there is nothing to be found, and to see that is quicker.
    if _DIGIT.search(text) is None:
        return None
    if found := _PASSING.search(text):
        return found[0][:80]
    now = time.time()
    return next((each[0] for each in _EPOCH.finditer(text) if abs(int(each[1]) - now) < _A_DAY), None)


def _likely(total: int) -> int:
    """How many tokens of a prompt are kept by a provider that does not tell."""
    return total - total % _BLOCK if total >= _LONG_PROMPT else total


def report_of(usage: Usage) -> CacheReport:
    """What the provider tells of its cache."""
    read, total = usage.cache_read, usage.input_tokens
    if read is None and usage.cache_write is None:
        return _UNTOLD
    rate = None if read is None or not total else read / total
    return CacheReport(hit_rate=rate, read=read, written=usage.cache_write)


def fingerprint(request: Request) -> bytes:
    """The sections of a request's prompt, eight bytes for each: the fixed ones, then message by message."""
    messages = request.messages
    begin = next((at for at, message in enumerate(messages) if message.role != "system"), len(messages))
    fixed = (
        _digest([(tool.name, tool.description, tool.parameters, tool.state) for tool in request.tools]),
        _digest(request.schema),
        _digest(request.documents),
        hash(tuple([_of_message(message) for message in messages[:begin]])),
        hash(request.thinking),
        hash(request.tool_choice),
    )
    most = begin + MOST_SECTIONS - len(fixed)
    return array("q", (*fixed, *[_of_message(message) for message in messages[begin:most]])).tobytes()


def _of_message(message: Message) -> int:
    parts = message.parts
    for part in parts:
        if part.cache:
            # A mark is no part of the prompt: to move one changes nothing that was kept.
            parts = tuple(msgspec.structs.replace(each, cache=None) for each in parts)
            break
    said = (message.role, message.name, parts)
    try:
        # Strings and bytes know their hash once it was asked for, and so a long history costs little.
        return hash(said)
    except TypeError:
        return _digest(said)


def _digest(value: Any) -> int:
    if not value:
        return 0
    try:
        return hash(msgspec.msgpack.encode(value))
    except (TypeError, ValueError, OverflowError):
        # What no JSON can say is refused where it is sent.
        return hash(repr(value))


def _alike(one: bytes, other: bytes) -> int:
    """How many sections two requests have in common, from the first on."""
    size = min(len(one), len(other))
    if one[:size] == other[:size]:
        return size // _WIDTH
    difference = int.from_bytes(one[:size]) ^ int.from_bytes(other[:size])
    return (size - (difference.bit_length() + 7) // 8) // _WIDTH


def _compared(sections: bytes, seen: _Seen, alike: int) -> tuple[int, str | None, bool]:
    """The tokens that should have been read, the first section that is another, and whether `seen` is done with."""
    now, then = len(sections) // _WIDTH, len(seen.sections) // _WIDTH
    if alike == then:
        return seen.held, None, True
    if alike >= now - 1:
        # The question is another, as it is in every call; in a call with nothing else it is of no use any more.
        is_lone = now == then == len(_FIXED) + 1
        return (seen.read if now == then else 0), None, is_lone
    place = alike - len(_FIXED)
    if place < 0:
        return seen.held, _FIXED[alike], False
    if place == 0 and not _later(sections) & _later(seen.sections):
        return 0, None, False  # another conversation
    return seen.held, f"message {place + 1}", False


def _later(sections: bytes) -> set[int]:
    """The fingerprints of the messages after the first."""
    numbers = array("q", sections)
    return set(numbers[len(_FIXED) + 1 :])


def _reason(changed: str | None) -> str:
    if changed is None:
        return "nothing in the prompt has changed: what was kept has expired, or another machine has answered"
    if changed == "tools":
        return "the tools are not the same as before, or in another order"
    return f"{'the system message' if changed == 'system' else changed} is not the same as before"


def _extra_cost(price: Callable[[Usage], Cost | None], usage: Usage, missed: int) -> Cost | None:
    """What a call cost more than if `missed` more tokens had come from the cache; None if that is not known."""
    written = min(missed, usage.cache_write or 0)
    hit = msgspec.structs.replace(
        usage,
        cache_read=(usage.cache_read or 0) + missed,
        cache_write=None if usage.cache_write is None else usage.cache_write - written,
        input=None if usage.input is None else max(0, usage.input - (missed - written)),
    )
    real, other = price(usage), price(hit)
    # The provider's own sum is of this call, and there is none of the other.
    if real is None or other is None or real.is_reported or real.usd <= other.usd:
        return None
    names = dict.fromkeys((*real.buckets, *other.buckets))
    buckets = {name: real.buckets.get(name, Decimal()) - other.buckets.get(name, Decimal()) for name in names}
    return Cost(
        usd=real.usd - other.usd,
        buckets={name: usd for name, usd in buckets.items() if usd},
        priced_on=real.priced_on,
        source=real.source,
    )
