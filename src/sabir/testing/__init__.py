"""For the tests of programs that use Sabir: a model that says what it is told to, recordings, faults, a clock.

    engine = Scripted("Hello!", ToolCall(name="get_weather", input='{"city": "Oslo"}'), "Sunny.")
    with engine:                       # fails if an answer was never asked for
        client = sabir.Client(engine)

The others are wrappers for a client's settings. `recorded_http` and `VirtualClock`, like `Faults` with those of
`sabir.testing.faults`, go to `runtime_wrappers`; `recorded_answers` goes to `model_wrappers`.

`pytest_plugins = ["sabir.testing.plugin"]` in a conftest.py brings the fixture `no_network`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Self, final

from ..deltas import Close, Count, Delta, Finish, Head, Open, Text
from ..errors import ConfigurationError, EngineError
from ..messages import Message, Part, Refusal, Thinking, ToolCall
from ..messages import Text as TextPart
from ..requests import Request
from ..runtime import Line
from ..usage import Usage
from . import faults
from .answers import RecordAnswers, ReplayAnswers, recorded_answers
from .cassettes import RecordHttp, ReplayHttp, recorded_http
from .clock import VirtualClock
from .faults import Faults

__all__ = [
    "Answer",
    "Faults",
    "RecordAnswers",
    "RecordHttp",
    "ReplayAnswers",
    "ReplayHttp",
    "Scripted",
    "VirtualClock",
    "faults",
    "recorded_answers",
    "recorded_http",
]

Answer = str | Part | Message | list[Delta] | Exception


@final
class Scripted:
    """An engine whose answers are given beforehand, one for each request; usable wherever a model string is.

    An answer is a text, a part, a message, deltas as they are, or an exception to raise. `requests` has what was asked.
    As a context manager it asserts at its end that every answer was used.
    """

    def __init__(self, *answers: Answer, name: str = "scripted") -> None:
        self.name = name
        self.requests: list[Request] = []
        self._answers = list(answers)

    def deltas(self, request: Request, line: Line) -> Iterator[Delta]:
        """The next answer.

        Raises:
            EngineError: the script is used up.
        """
        self.requests.append(request)
        if not self._answers:
            raise EngineError(f"the script of {self.name!r} is used up: this is request {len(self.requests)}")
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        for delta in _deltas(answer):
            line.left()
            yield delta

    def close(self) -> None:
        """Nothing to let go of."""

    def assert_done(self) -> None:
        """Fail if an answer was never asked for.

        Raises:
            AssertionError: with the number of answers left.
        """
        if self._answers:
            raise AssertionError(f"{len(self._answers)} answers of {self.name!r} were never asked for: {self._answers}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.assert_done()


def _deltas(answer: str | Part | Message | list[Delta]) -> Iterator[Delta]:
    if isinstance(answer, str):
        answer = TextPart(text=answer)
    elif isinstance(answer, list):
        yield from answer
        return
    if not isinstance(answer, Message):
        answer = Message("assistant", (answer,))
    yield Head("scripted", answer.model or "scripted")
    words = 0
    for number, part in enumerate(answer.parts):
        match part:
            case ToolCall():
                yield Open(number, "call", part.id, part.name)
                yield Text(number, part.input)
            case TextPart() | Thinking() | Refusal():
                kinds = {TextPart: "text", Thinking: "thinking", Refusal: "refusal"}
                yield Open(number, kinds[type(part)])  # type: ignore[arg-type]
                for word in re.findall(r"\S*\s*", part.text)[:-1]:
                    words += 1
                    yield Text(number, word)
            case _:
                raise ConfigurationError(f"a script cannot say a {type(part).__name__} part; give deltas instead")
        yield Close(number)
    yield Count(Usage(input=1, output=words))
    yield Finish("tool_calls" if answer.tool_calls else "refusal" if answer.refusal else "stop")
