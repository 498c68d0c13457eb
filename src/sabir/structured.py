"""The ways to an answer that fits a schema, where a format has none of its own; written once for all of them.

`native` is the format's own mode, which its dialect encodes; `grammar` is the same in this process. `tool` has the
model call a tool whose parameters are the schema, and hands the call's arguments on as the answer's text; `prompt` says
the schema in the system message, and `json` asks for some JSON beside that, which the dialect encodes. Where a model
cannot be held to a schema while it has tools, it runs them first, and what it says then is asked for again without
them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import NamedTuple, TypeVar, final

import msgspec

from . import deltas
from .deltas import Delta
from .errors import StructuredOutputError, UnsupportedError
from .lifting import lifted
from .messages import Message, Text
from .model import Exchange, Model
from .requests import HttpRequest, Notice, Request, SchemaMode, ToolSpec
from .schema import Schema
from .strict_json import decode_json, encode_json
from .usage import NOTHING, Usage

T = TypeVar("T")

_TOOL = "answer"
_TOOL_TEXT = "Give the answer. Call this, once, when you have all that you need."


class Way(NamedTuple):
    """How one request comes to an answer that fits its schema: the mode, and what is put around the model for it."""

    mode: SchemaMode
    wrap: Callable[[Model], Model] | None = None


def way_of(
    request: Request,
    modes: Callable[[Request], tuple[SchemaMode, ...]],
    wanted: SchemaMode | None,
    *,
    is_held: bool | None,
    calls_tools: bool | None,
) -> Way:
    """Choose the way for a request that has a schema, from what its format says (`modes`) and what is known of a model.

    `is_held` says whether the model can be held to a schema, `calls_tools` whether it calls tools; None is not known.
    `wanted` is the caller's choice.

    Raises:
        UnsupportedError: there is no way that is wanted.
    """
    wanted = "native" if wanted == "grammar" else wanted
    ways: dict[SchemaMode, Way] = {}
    for mode in modes(request):
        if mode == "native" and is_held is not False:
            ways[mode] = Way(mode)
        elif mode == "tool" and calls_tools is not False:
            ways[mode] = Way(mode, ByTool)
        elif mode in ("json", "prompt"):
            ways[mode] = Way(mode, ByPrompt)
    is_held_alone = is_held is not False and "native" in modes(_without_tools(request))
    if request.tools and is_held_alone and not ways.keys() & {"native", "tool"}:
        ways = {"native": Way("native", AfterTools), **ways}
    if not ways:
        raise UnsupportedError("this model has no way to an answer of a schema; choose another")
    if wanted is None:
        return next(iter(ways.values()))
    if wanted not in ways:
        raise UnsupportedError(f"there is no schema_mode={wanted!r} for this call; there are: {', '.join(ways)}")
    return ways[wanted]


def read_answer(schema: Schema[T], text: str, mode: SchemaMode | None) -> tuple[T, Notice | None]:
    """The value of an answer, and what to say of how it was found.

    What fits as it is stays as it is. Else what a lowered schema asks for otherwise is undone, where the provider's own
    mode was asked for one; and where nothing held the model to JSON, what stands around it is left out.

    Raises:
        StructuredOutputError: it does not fit.
    """
    notice = None
    if mode in ("tool", "json", "prompt") and (found := _json_in(text)) != text.strip():
        text, notice = found, _AROUND
    if mode != "native":
        return schema.parse(text), notice
    try:
        whole = encode_json(lifted(decode_json(text), schema.json)).decode()
    except ValueError:
        return schema.parse(text), notice
    if not schema.is_checked:
        return schema.parse(whole), notice
    try:
        return schema.parse(text), notice
    except StructuredOutputError:
        return schema.parse(whole), notice


_AROUND = Notice("emulated", "schema", "the answer had something around its JSON, which was left out of `parsed`")


def _json_in(text: str) -> str:
    """The first JSON object in a text that is more than that; the text, if there is none."""
    text = text.strip()
    at = text.find("{")
    while at >= 0 and not (at == 0 and text.endswith("}")):
        try:
            _, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            at = text.find("{", at + 1)
        else:
            return text[at:end]
    return text


_DECODER = json.JSONDecoder()


@final
class ByTool:
    """Has the model call a tool, and hands its arguments on as text."""

    def __init__(self, model: Model) -> None:
        self._model = model

    async def deltas(self, request: Request, exchange: Exchange) -> AsyncGenerator[list[Delta], None]:
        asked = _with_tool(request)
        exchange.report(_notices(request))
        reader = _CallReader(asked.tools[-1].name)
        async with aclosing(self._model.deltas(asked, exchange)) as batches:
            async for batch in batches:
                if seen := [each for delta in batch for each in reader.read(delta)]:
                    yield seen
                del batch
        if rest := reader.end():
            yield rest
        exchange.report(reader.notices)

    def explain(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        http, notices = self._model.explain(_with_tool(request))
        return http, (*_notices(request), *notices)


@final
class ByPrompt:
    """Says the schema in the system message."""

    def __init__(self, model: Model) -> None:
        self._model = model

    async def deltas(self, request: Request, exchange: Exchange) -> AsyncGenerator[list[Delta], None]:
        exchange.report(_notices(request))
        async with aclosing(self._model.deltas(_with_wish(request), exchange)) as batches:
            async for batch in batches:
                yield batch
                del batch

    def explain(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        http, notices = self._model.explain(_with_wish(request))
        return http, (*_notices(request), *notices)


@final
class AfterTools:
    """Lets the model call tools until it has no more to call, and asks for the answer then, without them."""

    def __init__(self, model: Model) -> None:
        self._model = model

    async def deltas(self, request: Request, exchange: Exchange) -> AsyncGenerator[list[Delta], None]:
        exchange.report([_TWICE])
        held: list[Delta] = []
        usage, is_calling = NOTHING, False
        async with aclosing(self._model.deltas(_without_schema(request), exchange)) as batches:
            async for batch in batches:
                if is_calling:
                    yield batch
                    continue
                held += batch
                is_calling = any(type(delta) is deltas.Open and delta.kind == "call" for delta in batch)
                if is_calling:
                    yield held
                    held = []
                del batch
        if is_calling:
            return
        for delta in held:
            if type(delta) is deltas.Count:
                usage = usage.updated(delta.usage)
        async with aclosing(self._model.deltas(_without_tools(request), exchange)) as batches:
            async for batch in batches:
                yield [_counted(delta, usage) for delta in batch]
                del batch

    def explain(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        http, notices = self._model.explain(_without_schema(request))
        return http, (_TWICE, *notices)


_TWICE = Notice(
    "emulated",
    "schema",
    "this model is held to a schema only where it has no tools: it runs them first, and is asked for its answer then",
)


def _notices(request: Request) -> tuple[Notice, ...]:
    assert request.schema is not None
    if request.schema.mode == "tool":
        text = "the schema was sent as the parameters of a tool that gives the answer; the answer is checked"
    else:
        text = "the schema cannot be enforced here and is asked for in the prompt; the answer is checked"
    return (Notice("emulated", "schema", text),)


def _with_tool(request: Request) -> Request:
    """The request with the tool that gives the answer as its last one."""
    assert request.schema is not None
    names = {tool.name for tool in request.tools}
    name = _TOOL
    while name in names:
        name += "_"
    tool = ToolSpec(name, _TOOL_TEXT, request.schema.json)
    # With tools beside it, the model calls those first; it must call one, and this ends it.
    choice = name if not request.tools or request.tool_choice == "none" else request.tool_choice
    choice = "required" if choice in (None, "auto") else choice
    return msgspec.structs.replace(request, schema=None, tools=(*request.tools, tool), tool_choice=choice)


def _with_wish(request: Request) -> Request:
    """The request with the schema in its system message; for a mode of some JSON, the dialect sees it too."""
    assert request.schema is not None
    described = encode_json(request.schema.json).decode()
    wish = Text(f"Answer with nothing but JSON, without a code fence, that fits this JSON Schema:\n{described}")
    first, *others = request.messages or (Message("user", ()),)
    if first.role == "system":
        messages = (msgspec.structs.replace(first, parts=(*first.parts, wish)), *others)
    else:
        messages = (Message("system", (wish,)), *request.messages)
    schema = request.schema if request.schema.mode == "json" else None
    return msgspec.structs.replace(request, messages=messages, schema=schema)


def _without_schema(request: Request) -> Request:
    return msgspec.structs.replace(request, schema=None)


def _without_tools(request: Request) -> Request:
    return msgspec.structs.replace(request, tools=(), tool_choice=None, parallel_tool_calls=None)


def _counted(delta: Delta, before: Usage) -> Delta:
    return deltas.Count(before + delta.usage) if type(delta) is deltas.Count else delta


class _CallReader:
    """The deltas of an answer, with the call of one tool as its text.

    What the model says in prose is held until it is clear whether the call comes: then it is no part of the answer, and
    a notice says it. Parts are numbered anew for that.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._numbers: dict[int, int] = {}
        self._held: list[Delta] = []
        self._holding: set[int] = set()
        self._unread: set[int] = set()
        # The parts that are the answer, one for each choice at most.
        self._answering: dict[int, int] = {}
        self._has_others = False
        # What comes while a call has no name yet, from its opening on.
        self._nameless: list[Delta] = []
        self.notices: list[Notice] = []

    def read(self, delta: Delta) -> list[Delta]:
        if self._nameless:
            self._nameless.append(delta)
            opening = self._nameless[0]
            assert type(opening) is deltas.Open
            is_named = type(delta) is deltas.State and delta.part == opening.part and delta.name is not None
            if not is_named and type(delta) is not deltas.Finish:
                return []
            nameless, self._nameless = self._nameless, []
            name = delta.name if type(delta) is deltas.State else None
            return [read for each in nameless for read in self._read(each, name)]
        if type(delta) is deltas.Open and delta.kind == "call" and delta.name is None:
            self._nameless.append(delta)
            return []
        return self._read(delta, None)

    def end(self) -> list[Delta]:
        """What is left to say when the answer has ended."""
        nameless, self._nameless = self._nameless, []
        return [*(read for each in nameless for read in self._read(each, None)), *self._flushed()]

    def _read(self, delta: Delta, late_name: str | None) -> list[Delta]:
        if type(delta) is deltas.Open:
            return self._opened(delta, late_name)
        if type(delta) is deltas.Finish:
            flushed = self._flushed()
            is_answer = delta.reason == "tool_calls" and delta.choice in self._answering and not self._has_others
            return [*flushed, msgspec.structs.replace(delta, reason="stop") if is_answer else delta]
        part = getattr(delta, "part", None)
        if part is None:
            return [delta]
        if part in self._holding:
            self._held.append(delta)
            return []
        if part in self._unread or (part in self._answering.values() and type(delta) is deltas.State):
            return []
        return [self._renumbered(delta)]

    def _opened(self, opening: deltas.Open, late_name: str | None) -> list[Delta]:
        if opening.kind == "text":
            self._holding.add(opening.part)
            self._held.append(opening)
            return []
        if opening.kind != "call":
            return [self._renumbered(opening)]
        if (opening.name or late_name) != self._name:
            self._has_others = True
            return [*self._flushed(), self._renumbered(opening)]
        if opening.choice in self._answering:
            self._unread.add(opening.part)
            self._say("the model gave its answer twice; the first one counts")
            return []
        self._answering[opening.choice] = opening.part
        return [self._renumbered(deltas.Open(opening.part, "text", choice=opening.choice))]

    def _flushed(self) -> list[Delta]:
        """What was held: part of the message where the model goes on, and else nothing but a notice."""
        held, self._held = self._held, []
        if not self._answering or self._has_others:
            self._holding.clear()
            return [self._renumbered(each) for each in held]
        if said := "".join(each.text for each in held if type(each) is deltas.Text).strip():
            self._say(f"beside its answer the model said: {said[:500]}")
        return []

    def _renumbered(self, delta: Delta) -> Delta:
        if (part := getattr(delta, "part", None)) is None:
            return delta
        if type(delta) is deltas.Open:
            self._numbers[part] = len(self._numbers)
        return msgspec.structs.replace(delta, part=self._numbers[part])

    def _say(self, message: str) -> None:
        self.notices.append(Notice("emulated", "schema", message))
