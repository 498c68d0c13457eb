"""One turn: rounds of a model and its tools until the model has nothing more to call. Written once for both colours.

A `Turn` owns its line and ends exactly once: by its last chunk, an error, a cancellation, or because nobody reads it
any more. Completed rounds are part of `history` from the moment their results are in; an unfinished message never is.
"""

from __future__ import annotations

import functools
import logging
import operator
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, final

import msgspec

from . import deltas
from .chunks import Phase, Restart, StreamChunk
from .cost import Cost
from .deltas import Assembler, FinishReason
from .errors import ClosedError, SabirError, StreamInterrupted, StructuredOutputError
from .handover import sendable, with_ids
from .hooks import CallEnded, CallStarted, FirstToken, Hook, tell
from .lifting import lifted
from .messages import Message, Text, ToolCall, ToolResult
from .model import Exchange, Model
from .partial_json import PartialJson
from .prompt_cache import Watch, report_of
from .requests import Notice, Request, Response, SchemaMode, Timings, ToolSpec
from .runtime import Runtime
from .schema import Schema
from .streams import AwaitableReader, BlockingReader
from .structured import read_answer
from .tools import Tool, Toolbox, failure_of, result_of
from .usage import NOTHING, Usage

logger = logging.getLogger("sabir")

T = TypeVar("T")
P = ParamSpec("P")

_PHASES = {"text": Phase.GENERATING, "refusal": Phase.GENERATING, "thinking": Phase.THINKING}


@final
class Turn(Generic[T]):
    """The work of one call. Read `chunks()` once; `end()` may be called at any time, from any thread."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        model: Model,
        name: str,
        dialect: str,
        maker: str,
        request: Request,
        exchange: Exchange,
        timeout: float | None,
        tools: Toolbox,
        schema: Schema[T] | None,
        max_tool_rounds: int,
        include: Collection[str],
        hooks: tuple[Hook, ...],
        cost: Callable[[Request, Usage, Message], Cost | None],
        when_over: Callable[[Turn[Any]], None],
        schema_mode: SchemaMode | None = None,
        validation_retries: int = 0,
        watch: Watch | None = None,
    ) -> None:
        self.history = request.messages
        self.exchange = exchange
        self._runtime = runtime
        self._timeout = timeout
        self._model = model
        self._name = name
        self._dialect = dialect
        self._maker = maker
        fit, notices = sendable(request.messages, maker)
        self._request = msgspec.structs.replace(request, messages=fit)
        exchange.notices += notices
        self._tools = tools
        self._schema = schema
        self._schema_mode: SchemaMode | None = schema_mode
        self._retries_left = validation_retries
        # Answers that did not fit and what was said of them: part of the conversation once one fits.
        self._rejected: tuple[Message, ...] = ()
        self._partial_json: PartialJson | None = None
        self._max_tool_rounds = max_tool_rounds
        self._include = include
        self._hooks = hooks
        self._cost_of_answer = cost
        self._watch = watch
        self._when_over = when_over
        self._assembler = Assembler(dialect, maker)
        self._usage: Usage = NOTHING
        self._costs: list[Cost | None] = []
        self._is_counted = True
        self._added: tuple[Message, ...] = ()
        self._began = runtime.now()
        self._first_token: float | None = None
        self._response: Response[T] | None = None
        self._error: BaseException | None = None
        # Popped by whoever ends the turn first: a list's pop is atomic, and no lock is left held by an interrupt.
        self._endings = ["unclaimed"]
        self._is_started = False
        self._iteration = 0

    @property
    def is_over(self) -> bool:
        return not self._endings

    @property
    def is_cancelled(self) -> bool:
        return self._response is not None and self._response.finish_reason == "cancelled"

    @property
    def response(self) -> Response[T]:
        """The whole answer; of a turn closed early, what had come, with the finish reason "cancelled".

        Raises:
            StreamInterrupted: the turn is still going on.
            SabirError: the error that ended it.
        """
        if self._error is not None:
            raise self._error
        if self._response is None:
            raise StreamInterrupted(
                "the stream has not ended: read it to its end, or close it, before asking for its response"
            )
        return self._response

    async def chunks(self) -> AsyncGenerator[list[StreamChunk], None]:
        """Do the work; yields what there is to see, in batches."""
        try:
            self.start()
            async with aclosing(self._rounds()) as batches:
                async for batch in batches:
                    yield batch
                    del batch
        except Exception as error:
            self._end_with(error)
            if self._error is not None:
                raise
            raise ClosedError("closed by its owner while it was in use") from None
        except BaseException:
            self.end()
            raise
        if Phase.DONE in self._include:
            yield [StreamChunk(Phase.DONE, "", None, self._iteration)]

    async def finish(self) -> Response[T]:
        """Do all the work and return the answer."""
        async with aclosing(self.chunks()) as batches:
            async for _ in batches:
                pass
        return self.response

    def start(self) -> None:
        """Begin: the deadline runs from here, and the hooks are told.

        Raises:
            ClosedError: the turn was ended before it began.
        """
        if self.is_over:
            raise self.exchange.line.cut_error()
        if not self._is_started:
            self._is_started = True
            self._began = self._runtime.now()
            if self._timeout is not None:
                self.exchange.line.deadline = self._began + self._timeout
            if self._hooks:
                tell(self._hooks, "on_start", CallStarted(self._name, self._request.messages))

    def end(self) -> None:
        """End the turn where it is; harmless if it is over."""
        if not self.is_over:
            self.exchange.line.abort()
            others = self._assembler.others(is_partial=True)
            self._settle(lambda: self._make_response(self._partial(), "cancelled", None, others), None)

    def _end_with(self, error: Exception) -> None:
        if isinstance(error, SabirError):
            error.model = error.model or self._request.model
            if error.partial is None:
                error.partial = self._partial()
            error.warnings = tuple(self.exchange.notices)
        self.exchange.line.abort()
        self._settle(None, error)

    def _settle(self, respond: Callable[[], Any] | None, error: BaseException | None) -> None:
        try:
            self._endings.pop()
        except IndexError:
            return
        # From here on the turn is over, whatever interrupts what follows.
        try:
            self._error = error
            if respond is not None:
                self._response = respond()
        finally:
            self._when_over(self)
        if self._hooks and self._is_started:
            seconds = self._runtime.now() - self._began
            tell(self._hooks, "on_end", CallEnded(self._name, seconds, self._response, error))

    async def _rounds(self) -> AsyncGenerator[list[StreamChunk], None]:
        while True:
            async with aclosing(self._answer()) as batches:
                async for batch in batches:
                    yield batch
                    del batch
            message, finish = self._completed_answer()
            calls = message.tool_calls
            if not self._is_runnable(calls):
                try:
                    parsed = self._parsed(message, finish)
                    break
                except _Misfit as misfit:
                    if not self._asks_again(message, misfit.error):
                        misfit.error.answers = (*self._rejected[::2], message)
                        raise misfit.error from None
                    reason = misfit.error.message
                if Phase.RESTARTING in self._include:
                    yield [_restart_chunk(Restart(reason, len(self._rejected) // 2 + 1), self._iteration)]
                self._iteration += 1
                continue
            began = self._runtime.now()
            jobs = [partial(self._run_tool, call) for call in calls]
            results = await self._runtime.gather(jobs, self.exchange.line)
            self.exchange.line.extend(self._runtime.now() - began)
            self._add(message, Message("tool", tuple(results)))
            if self._request.tool_choice != "none":
                # One that has to call a tool in every round would never answer.
                self._request = msgspec.structs.replace(self._request, tool_choice=None)
            if Phase.TOOL_CALLING in self._include:
                yield [_tool_chunk(call, result, self._iteration) for call, result in zip(calls, results, strict=True)]
            self._iteration += 1
        others = self._assembler.others()
        self._add(message)
        self._settle(lambda: self._make_response(message, finish, parsed, others), None)

    async def _answer(self) -> AsyncGenerator[list[StreamChunk], None]:
        """One answer of the model, added up in `_assembler`."""
        iteration = self._iteration
        assembler = self._assembler = Assembler(self._dialect, self._maker)
        self._is_counted = False
        partial_json = self._partial_json = None if self._schema is None else PartialJson()
        add, include = assembler.add, self._include
        phases: list[Phase | None] = []
        async with aclosing(self._model.deltas(self._request, self.exchange)) as batches:
            async for batch in batches:
                seen: list[StreamChunk] = []
                for delta in batch:
                    add(delta)
                    if type(delta) is deltas.Text:
                        if self._first_token is None:
                            self._note_first_token()
                        phase = phases[delta.part]
                        if partial_json is not None and phase is Phase.GENERATING:
                            partial_json.feed(delta.text)
                        if phase in include:
                            seen.append(StreamChunk(phase, delta.text, None, iteration))  # type: ignore[arg-type]
                    elif type(delta) is deltas.Open:
                        phases.append(_PHASES.get(delta.kind) if delta.choice == 0 else None)
                    elif type(delta) is deltas.Event and type(delta.raw) is Restart:
                        self._usage += assembler.usage
                        assembler = self._assembler = Assembler(self._dialect, self._maker)
                        partial_json = self._partial_json = None if self._schema is None else PartialJson()
                        add, phases = assembler.add, []
                        if Phase.RESTARTING in include:
                            seen.append(_restart_chunk(delta.raw, iteration))
                del batch
                if seen:
                    yield seen
                del seen

    def _note_first_token(self) -> None:
        self._first_token = self._runtime.now() - self._began
        if self._hooks:
            tell(self._hooks, "on_first_token", FirstToken(self._name, self._first_token))

    def _completed_answer(self) -> tuple[Message, FinishReason]:
        message = self._assembler.message()
        self._usage, self._is_counted = self._usage + self._assembler.usage, True
        self._costs.append(self._cost_of_answer(self._request, self._assembler.usage, message))
        if self._watch is not None:
            self._watch.saw(self._request, self._assembler.usage, message)
        finish = self._assembler.finishes.get(0)
        if finish is not None and finish.reason == "unknown" and finish.raw:
            text = f"the answer ended for a reason that is not known here, and may not be whole: {finish.raw}"
            self.exchange.notices.append(Notice("provider", "finish_reason", text))
        if message.tool_calls:
            message = with_ids((*self._request.messages, message))[-1]
        return message, finish.reason if finish else "unknown"

    def _is_runnable(self, calls: tuple[ToolCall, ...]) -> bool:
        if not calls or self._max_tool_rounds == 0:
            return False
        if any(isinstance(self._tools.find(call.name), ToolSpec) for call in calls):
            return False
        if self._iteration >= self._max_tool_rounds:
            names = ", ".join(call.name for call in calls)
            message = f"calls were not run, since the limit of {self._max_tool_rounds} tool rounds is reached: {names}"
            self.exchange.notices.append(Notice("dropped", "max_tool_rounds", message))
            return False
        return True

    async def _run_tool(self, call: ToolCall) -> ToolResult:
        """Run one tool. Whatever goes wrong in it is a result for the model."""
        tool = self._tools.find(call.name)
        if not isinstance(tool, Tool):
            known = ", ".join(self._tools.names) or "none"
            return failure_of(call, f"Error: there is no tool named {call.name!r}; the tools are: {known}")
        try:
            arguments = tool.bind(call, self.exchange.line)
        except SabirError as error:
            return failure_of(call, f"Error: {error}")
        try:
            return result_of(call, await self._runtime.call(tool.function, **arguments))
        except Exception as error:  # noqa: BLE001 - whatever a tool raises goes to the model
            if not self.exchange.line.aborted:
                # As text: a log record that holds the error would hold all its frames.
                logger.warning("the tool %r failed: %s", call.name, repr(error))
            return failure_of(call, f"Error: {type(error).__name__}: {error}")

    def _add(self, *messages: Message) -> None:
        done, self._rejected = (*self._rejected, *messages), ()
        self._added = (*self._added, *done)
        self.history = (*self.history, *done)
        self._request = msgspec.structs.replace(self._request, messages=(*self._request.messages, *messages))

    def _parsed(self, message: Message, finish: FinishReason) -> Any:
        if self._schema is None:
            return None
        if (refusal := message.refusal) is not None or finish == "refusal":
            raise StructuredOutputError(f"the model declined: {refusal or message.text or 'it gave no reason'}")
        if finish == "length":
            most = self._request.max_tokens
            limit = "what its model may write" if most is None else f"max_tokens={most}"
            raise StructuredOutputError(f"the answer was cut at {limit}, before it was whole; give it more max_tokens")
        if message.tool_calls:
            raise StructuredOutputError("the model called tools, which were not run, instead of answering")
        if not self._schema.is_checked:
            remedy = "pip install 'sabir[jsonschema]' does that, and so does schema= with a type"
            text = f"the answer is JSON, but was not held against the schema: {remedy}"
            self.exchange.notices.append(Notice("emulated", "schema", text))
        try:
            value, notice = read_answer(self._schema, message.text, self._schema_mode)
        except StructuredOutputError as error:
            raise _Misfit(error) from None
        if notice is not None:
            self.exchange.notices.append(notice)
        return value

    def _asks_again(self, message: Message, error: StructuredOutputError) -> bool:
        """Send an answer back that does not fit, if there is another attempt."""
        if self._retries_left == 0:
            return False
        self._retries_left -= 1
        complaint = Message("user", (Text(f"{error.message}\nAnswer again, with nothing but JSON that fits."),))
        self._rejected = (*self._rejected, message, complaint)
        messages = (*self._request.messages, message, complaint)
        self._request = msgspec.structs.replace(self._request, messages=messages)
        self.exchange.notices.append(Notice("retried", "schema", f"an answer was sent back: {error.message}"))
        return True

    def partial(self) -> dict[str, Any] | None:
        """What there is of the object that is being written; None before it begins, or where there is no schema."""
        value = None if self._partial_json is None else self._partial_json.value
        if value is None or self._schema_mode != "native" or self._request.schema is None:
            return value
        whole: dict[str, Any] = lifted(value, self._request.schema.json, is_partial=True)
        return whole

    def _partial(self) -> Message:
        return self._assembler.message(is_partial=True)

    def _cost(self) -> Cost | None:
        """What all rounds cost, if that is known of each: what an answer that was broken off costs, nobody says."""
        known = [cost for cost in self._costs if cost is not None]
        is_known = self._is_counted and self.exchange.is_cost_known
        if not known or len(known) < len(self._costs) or not is_known:
            return None
        return functools.reduce(operator.add, known)

    def _make_response(
        self, message: Message, finish: FinishReason, parsed: Any, others: tuple[Message, ...]
    ) -> Response[Any]:
        exchange, assembler = self.exchange, self._assembler
        usage = self._usage if self._is_counted else self._usage + assembler.usage
        return Response(
            message=message,
            parsed=parsed,
            messages=self._added,
            usage=usage,
            timings=Timings(self._runtime.now() - self._began, self._first_token),
            finish_reason=finish,
            model=self._assembler.model or self._request.model,
            cost=self._cost(),
            warnings=tuple(exchange.notices),
            attempts=tuple(exchange.attempts),
            request_id=exchange.request_id,
            choices=(message, *others),
            finish_reasons=(finish, *assembler.finish_reasons[1:]),
            body=exchange.body,
            schema_mode=self._schema_mode,
            cache=report_of(usage) if self._watch is None else self._watch.report(usage),
        )


class _Misfit(Exception):
    """An answer does not fit its schema, though the next might."""

    def __init__(self, error: StructuredOutputError) -> None:
        super().__init__(error)
        self.error = error


class Opener(Protocol):
    """Something that opens turns: a client."""

    def turn(
        self,
        messages: tuple[Message, ...],
        *layers: Mapping[str, Any],
        schema: Any,
        include: Collection[str],
        is_stream: bool,
        when_over: Callable[[Turn[Any]], None] | None = None,
    ) -> Turn[Any]: ...


class _Growing:
    """What a stream with a schema has beside its chunks."""

    _turn: Any

    def partial(self) -> dict[str, Any] | None:
        """The object as far as it has come, where the stream has a `schema`: plain values, nothing checked yet.

        None before it begins. Texts grow; numbers appear when they are whole. What is returned never changes, each
        object is a beginning of the next, and of the JSON of `response.parsed`, unless a chunk that `is_restart` comes.
        """
        value: dict[str, Any] | None = self._turn.partial()
        return value


@final
class Stream(_Growing, BlockingReader[Response[T]]):
    """An answer as it comes: iterate it for `StreamChunk`s, with or without `with`; then read `response`."""


@final
class AsyncStream(_Growing, AwaitableReader[Response[T]]):
    """An answer as it comes: iterate it for `StreamChunk`s, with or without `async with`; then read `response`."""


def blocking_stream(method: Callable[Concatenate[Any, P], Turn[T]]) -> Callable[Concatenate[Any, P], Stream[T]]:
    """The blocking stream of a method that opens a turn, for a class that keeps the object with it as `_body`."""

    @functools.wraps(method)
    def twin(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Stream[T]:
        return Stream(method(self._body, *args, **kwargs))

    return twin


def awaitable_stream(
    method: Callable[Concatenate[Any, P], Turn[T]],
) -> Callable[Concatenate[Any, P], AsyncStream[T]]:
    """The awaitable stream of a method that opens a turn, for a class that keeps the object with it as `_body`."""

    @functools.wraps(method)
    def twin(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> AsyncStream[T]:
        return AsyncStream(method(self._body, *args, **kwargs))

    return twin


def _restart_chunk(restart: Restart, iteration: int) -> StreamChunk:
    return StreamChunk(Phase.RESTARTING, restart._asdict(), None, iteration)


def _tool_chunk(call: ToolCall, result: ToolResult, iteration: int) -> StreamChunk:
    try:
        arguments: Any = call.arguments
    except SabirError:
        arguments = call.input
    content = {"name": call.name, "arguments": arguments, "response": result.text}
    return StreamChunk(Phase.TOOL_CALLING, content, None, iteration)
