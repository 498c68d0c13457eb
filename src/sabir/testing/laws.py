"""The laws of a dialect, tried on values that are made up here. Knows no format: what it says is the dialect's word.

    wire       a request or answer that is read and said again is the same, by the format's own equivalences
    value      what is said and read again means what it meant, but for what the dialect reports
    stream     however a stream is cut, it has the same deltas; they sum to the answer it was made of
    end        an answer that breaks off is an error, or was whole already
    invention  the same values give the same bytes, the same bytes the same values, and no id comes from nowhere
    errors     an error is read again as what it was
    family     whatever comes in, what goes out is an answer or an error of the family
    parameters every portable option has a verdict, and the verdict is what happens

What needs recordings of real servers is `sabir.testing.replay`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from ..deltas import Assembler, Delta, Open, Text
from ..dialects import Dialect, Unsupported, response_of
from ..errors import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    NotFoundError,
    PermissionDeniedError,
    ProviderError,
    RateLimitError,
    SabirError,
    ServerError,
    UnsupportedError,
)
from ..messages import Message, Part, ToolCall, ToolResult
from ..messages import Text as TextPart
from ..requests import Notice, Options, OutputSchema, Request, Response, Timings, ToolSpec
from ..strict_json import decode_json, encode_json
from ..usage import Usage
from .changes import first_change
from .replay import decoded_pieces

MODEL = "some-model"
TRIED = 60
_MOST_REFUSED = 20

_TEXTS = (
    "Hello",
    "a",
    "Où est la gare ? 駅はどこ 🦊",
    'quotes " and \\ and \t tab',
    "two\nlines\r\nand\u2028more",
    "data: [DONE]\n\ndata: {}\n\n",
    "<think>no</think>",
    "x" * 3000,
)
_INPUTS: tuple[dict[str, Any], ...] = (
    {},
    {"city": "Bodø"},
    {"n": 1, "deep": {"list": [1, 2.5, None, True, 'a"b']}},
    {"text": "x" * 500},
)
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
_TOOLS = (ToolSpec("look", "Look around.", _SCHEMA), ToolSpec("wait_a_while", "", {"type": "object", "properties": {}}))
# For each option a value that any server could be sent.
SAMPLES: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 5,
    "min_p": 0.5,
    "max_tokens": 2000,
    "stop": ("END",),
    "seed": 5,
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "repetition_penalty": 1.5,
    "thinking": True,
    "tool_choice": "none",
    "parallel_tool_calls": False,
    "logprobs": True,
    "top_logprobs": 2,
    "n": 2,
    "user": "ada",
    "documents": ("The sky is green.",),
    "cache": True,
    "extra": {"something_else": 1},
    "headers": {"x-mine": "1"},
    "schema": OutputSchema("answer", _SCHEMA),
}
# What is only meant together with another option.
BESIDE: dict[str, dict[str, Any]] = {"top_logprobs": {"logprobs": True}}
# What a format may approximate, and so read back otherwise, without a word that a machine could check.
_APPROXIMATED = frozenset({"thinking", "tool_choice", "parallel_tool_calls", "schema", "cache", "extra", "headers"})
_STRANGE = (b"null", b"5", b'"text"', b"[]", b"{}", b"[[]]", b'{"error":{}}', b'{"choices":5,"content":{}}', b"")
_ERRORS: tuple[tuple[type[ProviderError], int], ...] = (
    (AuthenticationError, 401),
    (PermissionDeniedError, 403),
    (NotFoundError, 404),
    (BadRequestError, 400),
    (RateLimitError, 429),
    (ServerError, 500),
)


@dataclass
class Law:
    """How often a law was tried and held, and where it did not."""

    name: str
    held: int = 0
    broken: int = 0
    notes: tuple[str, ...] = ()

    def count(self, flaw: str | None) -> None:
        """One more try; a flaw is what was wrong."""
        if flaw is None:
            self.held += 1
            return
        self.broken += 1
        if flaw not in self.notes:
            self.notes += (flaw,)


def laws_of(dialect: Dialect, tried: int = TRIED) -> list[Law]:
    """Try every law on a dialect."""
    chance = random.Random(dialect.name)
    has_tools = _has_tools(dialect)
    requests = [_taken_request(chance, dialect, has_tools) for _ in range(tried)]
    answers = [_answer(chance, has_tools) for _ in range(tried)]
    trials: tuple[tuple[str, Iterator[str | None]], ...] = (
        ("wire", _each(_wire_flaw, dialect, requests)),
        ("wire", _each(_answer_wire_flaw, dialect, answers)),
        ("value", _each(_value_flaw, dialect, requests)),
        ("value", _each(_answer_value_flaw, dialect, answers)),
        ("stream", _each(_stream_flaw, dialect, answers)),
        ("end", _each(_end_flaw, dialect, answers)),
        ("invention", _each(_invention_flaw, dialect, answers)),
        ("invention", _each(_request_invention_flaw, dialect, requests)),
        ("errors", _each(_error_flaw, dialect, _ERRORS)),
        ("family", _each(_family_flaw, dialect, [chance.randbytes(8) for _ in range(tried)])),
        ("parameters", _parameter_flaws(dialect)),
    )
    laws: dict[str, Law] = {}
    for name, flaws in trials:
        law = laws.setdefault(name, Law(name))
        for flaw in flaws:
            law.count(flaw)
    return list(laws.values())


def _each(find: Callable[[Dialect, Any], str | None], dialect: Dialect, values: Iterable[Any]) -> Iterator[str | None]:
    for value in values:
        try:
            yield find(dialect, value)
        except SabirError as error:
            yield f"{type(error).__name__}: {error}"
        except Exception as error:  # noqa: BLE001 - whatever a dialect lets through is what this is there to show
            yield f"a {type(error).__name__} escaped the dialect: {error}"


# Made-up values


def _has_tools(dialect: Dialect) -> bool:
    """Whether a dialect says nothing against tools; one that does is not asked for them."""
    asked = Request(model=MODEL, messages=(Message("user", (TextPart(text="Hello"),)),), tools=_TOOLS)
    try:
        told = dialect.encode_request(asked)[1]
        return not any(notice.subject == "tools" and notice.kind == "unsupported" for notice in told)
    except UnsupportedError:
        return False
    except Exception:  # noqa: BLE001 - it will fail again where that counts
        return True


def _taken_request(chance: random.Random, dialect: Dialect, has_tools: bool) -> Request:
    """A request that the dialect does not refuse with a reason, as one without roles refuses several messages."""
    for _ in range(_MOST_REFUSED):
        request = _request(chance, dialect, has_tools)
        try:
            dialect.encode_request(request)
        except UnsupportedError:
            continue
        except Exception:  # noqa: BLE001 - it will fail again where that counts
            return request
        return request
    return Request(model=MODEL, messages=(Message("user", (_text(chance),)),))


def _request(chance: random.Random, dialect: Dialect, has_tools: bool) -> Request:
    """A request that asks for nothing the dialect has no word for."""
    taken = [
        name
        for name, verdict in verdicts_of(dialect).items()
        if name in Options.__annotations__ and not isinstance(verdict, Unsupported) and name not in _APPROXIMATED
    ]
    chosen = [name for name in taken if chance.random() < 0.3]
    chosen += [name for option in chosen for name in BESIDE.get(option, ())]
    options = {name: SAMPLES[name] for name in chosen}
    messages: list[Message] = [Message("user", (_text(chance),))]
    if chance.random() < 0.5:
        messages.insert(0, Message("system", (_text(chance),)))
    for turn in range(chance.randrange(3) if has_tools else 0):
        call = ToolCall(name=chance.choice(_TOOLS).name, input=_json(chance), id=f"call_{turn}_abcdef")
        result = ToolResult(call_id=call.id, name=call.name, content=(_text(chance),))
        messages += [Message("assistant", (_text(chance), call)), Message("tool", (result,))]
    if len(messages) > 2:
        messages += [Message("assistant", (_text(chance),)), Message("user", (_text(chance),))]
        return Request(model=MODEL, messages=tuple(messages), tools=_TOOLS, stream=chance.random() < 0.5, **options)
    return Request(model=MODEL, messages=tuple(messages), stream=chance.random() < 0.5, **options)


def _answer(chance: random.Random, has_tools: bool) -> Response[None]:
    parts: list[Part] = [_text(chance)] if not has_tools or chance.random() < 0.7 else []
    calls = [
        ToolCall(name=chance.choice(_TOOLS).name, input=_json(chance), id=f"call_{number}_abcdef")
        for number in range(0 if not has_tools or (parts and chance.random() < 0.5) else chance.choice((1, 1, 2)))
    ]
    parts += calls
    message = Message("assistant", tuple(parts), id="answer_1", model=MODEL)
    return Response(
        message=message,
        parsed=None,
        messages=(message,),
        usage=Usage(input=chance.randrange(1, 1000), output=chance.randrange(1, 1000)),
        timings=Timings(0.0),
        finish_reason="tool_calls" if calls else chance.choice(("stop", "stop", "length")),
        model=MODEL,
    )


def _text(chance: random.Random) -> TextPart:
    return TextPart(text=chance.choice(_TEXTS))


def _json(chance: random.Random) -> str:
    return encode_json(chance.choice(_INPUTS)).decode()


# Requests


def _encoded(dialect: Dialect, request: Request) -> tuple[str, bytes, tuple[Notice, ...]]:
    http, notices = dialect.encode_request(request)
    return http.url, http.body, notices


def _read(dialect: Dialect, body: bytes, request: Request) -> Request:
    """The request of a body; of formats that name the model in the address, with that model."""
    read = dialect.decode_request(body)
    return msgspec.structs.replace(read, model=request.model, stream=request.stream)


def _wire_flaw(dialect: Dialect, request: Request) -> str | None:
    _, body, _ = _encoded(dialect, request)
    _, again, _ = _encoded(dialect, _read(dialect, body, request))
    before, after = (dialect.canonical_request(decode_json(it)) for it in (body, again))
    change = first_change(before, after)
    return change and f"a request changes when it is read and said again: {change}"


def _value_flaw(dialect: Dialect, request: Request) -> str | None:
    _, body, notices = _encoded(dialect, request)
    read = _read(dialect, body, request)
    told = {notice.subject for notice in notices}
    for name in Options.__annotations__.keys() - _APPROXIMATED - told:
        if getattr(read, name) != getattr(request, name):
            return f"{name} was {getattr(request, name)!r}, and is read as {getattr(read, name)!r}, without a notice"
    change = first_change(_meaning(request.messages), _meaning(read.messages))
    change = change or first_change([tool.name for tool in request.tools], [tool.name for tool in read.tools])
    return change and f"a request is read otherwise than it was meant: {change}"


def _meaning(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """What is said in each message, however its parts are divided; of ids counts only which result is of which call."""
    meant: list[dict[str, Any]] = []
    places: dict[str | None, int] = {}
    for message in messages:
        calls = [(call.name, call.arguments) for call in message.tool_calls]
        places.update({call.id: len(places) + at for at, call in enumerate(message.tool_calls)})
        results = [(places.get(part.call_id), part.text) for part in message.parts if isinstance(part, ToolResult)]
        said = {"role": message.role, "text": message.text, "calls": calls, "results": results}
        meant.append(decode_json(encode_json(said)))
    return meant


def _request_invention_flaw(dialect: Dialect, request: Request) -> str | None:
    if _encoded(dialect, request) != _encoded(dialect, request):
        return "a request is another each time it is said"
    return None


# Answers


def _answer_wire_flaw(dialect: Dialect, response: Response[None]) -> str | None:
    body = dialect.encode_response(response)
    again = dialect.encode_response(response_of(dialect.name, dialect.decode_answer(body)))
    before, after = (dialect.canonical_answer(decode_json(it)) for it in (body, again))
    change = first_change(before, after)
    return change and f"an answer changes when it is read and said again: {change}"


def _answer_value_flaw(dialect: Dialect, response: Response[None]) -> str | None:
    read = response_of(dialect.name, dialect.decode_answer(dialect.encode_response(response)))
    change = first_change(_said(response), _said(read))
    return change and f"an answer is read otherwise than it was meant: {change}"


def _said(response: Response[Any]) -> dict[str, Any]:
    usage = response.usage
    said = _meaning((response.message,))[0]
    return {**said, "finish": response.finish_reason, "in": usage.input_tokens, "out": usage.output_tokens}


def _invention_flaw(dialect: Dialect, response: Response[None]) -> str | None:
    body = dialect.encode_response(response)
    if body != dialect.encode_response(response):
        return "an answer is another each time it is said"
    if dialect.decode_answer(body) != dialect.decode_answer(body):
        return "an answer is another each time it is read"
    ids = {call.id for call in response.message.tool_calls}
    read = {call.id for call in response_of(dialect.name, dialect.decode_answer(body)).message.tool_calls}
    if invented := read - ids - {None}:
        return f"a call has the id {invented.pop()!r}, which nobody gave it"
    return None


# Streams


def _streamed(dialect: Dialect, response: Response[None]) -> bytes:
    """An answer as a stream, of deltas as a provider sends them: a few characters each."""
    encoder, told = dialect.encoder(), bytearray()
    for delta in dialect.decode_answer(dialect.encode_response(response)):
        for piece in _pieces(delta):
            told += encoder.feed(piece)
    return bytes(told + encoder.close())


def _pieces(delta: Delta) -> Iterator[Delta]:
    if not isinstance(delta, Text) or len(delta.text) <= 8:
        yield delta
        return
    size = max(8, len(delta.text) // 10)
    for start in range(0, len(delta.text), size):
        yield Text(delta.part, delta.text[start : start + size])


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def _stream_flaw(dialect: Dialect, response: Response[None]) -> str | None:
    data = _streamed(dialect, response)
    deltas, error = decoded_pieces(dialect, (data,))
    if error is not None:
        return f"a stream of its own cannot be read: {type(error).__name__}: {error}"
    if change := first_change(_said(response), _said(response_of(dialect.name, deltas))):
        return f"a stream sums to another answer: {change}"
    for size in (1, 3, 61, 1021):
        if decoded_pieces(dialect, _cut(data, size)) != (deltas, None):
            return f"a stream has other deltas when it is cut every {size} bytes"
    return None


def _end_flaw(dialect: Dialect, response: Response[None]) -> str | None:
    data = _streamed(dialect, response)
    whole = response_of(dialect.name, decoded_pieces(dialect, (data,))[0])
    for end in sorted({0, 1, *range(0, len(data), max(1, len(data) // 40))}):
        deltas, error = decoded_pieces(dialect, (data[:end],))
        if error is None:
            cut = response_of(dialect.name, deltas)
            if first_change(_meaning((whole.message,)), _meaning((cut.message,))) or cut.finish_reason == "unknown":
                return f"a stream that breaks off after {end} of {len(data)} bytes passes for a whole answer"
        elif any(isinstance(delta, Open) for delta in deltas):
            _sum(dialect, deltas)
    return None


def _sum(dialect: Dialect, deltas: Iterable[Delta]) -> Message:
    total = Assembler(dialect.name)
    for delta in deltas:
        total.add(delta)
    return total.message()


# Errors, and what is none of it


def _error_flaw(dialect: Dialect, sample: tuple[type[ProviderError], int]) -> str | None:
    kind, status = sample
    told, body = dialect.encode_error(kind("there is none", status=status))
    read = dialect.decode_error(told, {}, body)
    if type(read) is not kind or told != status or "there is none" not in read.message:
        return f"a {kind.__name__} of status {status} comes back as a {type(read).__name__} of status {told}: {read}"
    return None


def _family_flaw(dialect: Dialect, seed: bytes) -> str | None:
    chance = random.Random(seed)
    has_tools = _has_tools(dialect)
    response = _answer(chance, has_tools)
    bodies = [
        chance.randbytes(chance.randrange(200)),
        _damaged(chance, dialect.encode_response(response)),
        _damaged(chance, _streamed(dialect, response)),
        _damaged(chance, _encoded(dialect, _taken_request(chance, dialect, has_tools))[1]),
        chance.choice(_STRANGE),
    ]
    for body in bodies:
        for read in (dialect.decode_answer, dialect.decode_request):
            try:
                read(body)
            except SabirError:
                pass
        deltas, _ = decoded_pieces(dialect, _cut(body, 13))
        try:
            _sum(dialect, deltas)
        except SabirError:
            pass
        dialect.decode_error(chance.choice((400, 401, 404, 429, 500, 503, 418)), {}, body)
    return None


def _damaged(chance: random.Random, data: bytes) -> bytes:
    """The bytes with some of them changed, left out, or said twice."""
    start = chance.randrange(len(data) + 1)
    end = min(len(data), start + chance.randrange(1, 20))
    middle = chance.choice((b"", data[start:end] * 2, chance.randbytes(end - start), b"null", b'"', b"{", b"5"))
    return data[:start] + middle + data[end:]


# Options


def verdicts_of(dialect: Dialect) -> dict[str, Any]:
    """What a dialect says of each option; nothing if it says nothing."""
    verdicts: Any = getattr(dialect, "verdicts", dict)
    return dict(verdicts())


def _parameter_flaws(dialect: Dialect) -> Iterator[str | None]:
    verdicts = verdicts_of(dialect)
    for name in (*Options.__annotations__, "schema"):
        if name in verdicts:
            yield from _each(lambda _, name: _parameter_flaw(dialect, name, verdicts[name]), dialect, (name,))
        else:
            yield f"{name} has no verdict"


def _parameter_flaw(dialect: Dialect, name: str, verdict: Any) -> str | None:
    tools = _TOOLS if _has_tools(dialect) else ()
    plain = Request(model=MODEL, messages=(Message("user", (TextPart(text="Hello"),)),), tools=tools)
    plain = msgspec.structs.replace(plain, **BESIDE.get(name, {}))
    asked = msgspec.structs.replace(plain, **{name: SAMPLES[name]})
    try:
        before, after = dialect.encode_request(plain), dialect.encode_request(asked)
    except (UnsupportedError, ConfigurationError) as error:
        return f"{name} is refused with an error in place of a verdict: {error}"
    told = {notice.subject for notice in after[1]} - {notice.subject for notice in before[1]}
    if before[0] == after[0] and name not in told:
        return f"{name} vanishes: nothing is sent and nothing said"
    if isinstance(verdict, Unsupported) and name not in told:
        return f"{name} is said to be unsupported, and no notice says so of a request"
    if not isinstance(verdict, str) or not verdict:
        return f"the verdict on {name} is no text"
    return None
