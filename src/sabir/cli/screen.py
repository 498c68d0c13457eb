"""Where things are written: the answer to stdout, all else to stderr. Knows no client.

A terminal often shows both, so it is kept in mind where its cursor stands; and since what a model says may come from
anywhere, no control character reaches a terminal.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Literal, TextIO, final

from ..chunks import Phase, StreamChunk

MOST_SHOWN = 200

_CONTROLS = {
    **dict.fromkeys((*range(32), *range(127, 160)), "\ufffd"),
    ord("\n"): "\n",
    ord("\t"): "\t",
    ord("\r"): "",
}


@final
class Screen:
    """What a person or a pipe sees of one command."""

    def __init__(self) -> None:
        self._out = _lenient(sys.stdout)
        self._err = _lenient(sys.stderr)
        self._shares_terminal = self._out.isatty() and self._err.isatty()
        is_plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb" or not self._err.isatty()
        self._dim = "{}" if is_plain else "\x1b[2m{}\x1b[0m"
        self._is_answer_open = False
        # Behind what the cursor of stderr's terminal stands; nothing is the start of a line.
        self._cursor: Literal["", "answer", "aside"] = ""
        self.shows_tools = self._err.isatty()

    @property
    def encoding(self) -> str:
        """What stdout is encoded in."""
        return self._out.encoding or "utf-8"

    def show(self, chunk: StreamChunk) -> None:
        """Write a piece of an answer, each phase to its place."""
        if chunk.phase is Phase.GENERATING:
            self.answer(chunk.content)
        elif chunk.phase is Phase.THINKING:
            self._think(chunk.content)
        elif chunk.phase is Phase.TOOL_CALLING:
            self.tool(chunk.content["name"], chunk.content["arguments"], chunk.content["response"])

    def answer(self, text: str) -> None:
        """Write more of the answer, at once."""
        if not text:
            return
        if self._shares_terminal and self._cursor == "aside":
            self._break_line()
        # Noted before it is done: an interrupt may come as soon as the reader has the text.
        self._is_answer_open = not text.endswith("\n")
        if self._shares_terminal:
            self._cursor = "answer" if self._is_answer_open else ""
        _write(self._out, text)

    def end_answer(self) -> None:
        """End the answer's last line, if it has begun one."""
        if self._cursor == "aside":
            self._break_line()
        if self._is_answer_open:
            self.answer("\n")

    def tool(self, name: str, arguments: Any, result: str) -> None:
        """Tell in one line that a tool was called; what the model says next begins a line too."""
        self.end_answer()
        if self.shows_tools:
            self.note(f"→ {name}({_short(_written(arguments))}) ← {_short(result)}")

    def note(self, line: str) -> None:
        """Write a line that is no part of the answer."""
        self._begin_aside(is_line=True)
        _write(self._err, line, self._dim)
        _write(self._err, "\n")

    def move(self, line: str) -> None:
        """Write a line about something that goes on, over the last one; where there is no terminal, nothing."""
        if self._err.isatty():
            self._begin_aside(is_line=False)
            self._cursor = "aside"
            self._err.write("\r")
            _write(self._err, line, self._dim)

    def warn(self, message: str) -> None:
        """Write a warning."""
        self._begin_aside(is_line=True)
        _write(self._err, f"sabir: warning: {message}\n")

    def fail(self, message: str) -> None:
        """Write an error."""
        self._begin_aside(is_line=True)
        _write(self._err, f"sabir: error: {message}\n")

    def typed_lines(self, prompt: str) -> Iterator[str]:
        """What is typed at a terminal, line by line, until Ctrl-D or Ctrl-C."""
        _lenient(sys.stdin)
        try:
            import_module("readline")  # `input` then edits lines and remembers them
        except ImportError:
            pass
        while True:
            try:
                line = self._typed_line(prompt)
            except (EOFError, KeyboardInterrupt):
                _write(self._err, "\n")
                return
            yield line

    def _typed_line(self, prompt: str) -> str:
        if self._shares_terminal:
            return input(prompt)
        _write(self._err, prompt)
        if not (line := sys.stdin.readline()):
            raise EOFError
        return line.rstrip("\n")

    def _think(self, text: str) -> None:
        if self._err.isatty() and text:
            self._begin_aside(is_line=False)
            self._cursor = "" if text.endswith("\n") else "aside"
            _write(self._err, text, self._dim)

    def _begin_aside(self, is_line: bool) -> None:
        if self._cursor == "answer" or (is_line and self._cursor == "aside"):
            self._break_line()

    def _break_line(self) -> None:
        _write(self._err, "\n")
        self._cursor = ""


def silence() -> None:
    """Send what is still to be written nowhere: its reader is gone, and Python would complain of that at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except (AttributeError, OSError, ValueError):  # None, or a stream without a descriptor
            pass


def _lenient(stream: TextIO | None) -> TextIO:
    """The stream, with a "?" for what its encoding cannot say."""
    if stream is None:
        return io.StringIO()  # closed by whoever started us
    if callable(reconfigure := getattr(stream, "reconfigure", None)):
        reconfigure(errors="replace")
    return stream


def _write(stream: TextIO, text: str, style: str = "{}") -> None:
    stream.write(style.format(text.translate(_CONTROLS) if stream.isatty() else text))
    stream.flush()


def _written(arguments: Any) -> str:
    if not isinstance(arguments, Mapping):
        return str(arguments)  # as the model wrote them, for they are no JSON object
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())  # pyright: ignore[reportUnknownVariableType]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST_SHOWN else line[: MOST_SHOWN - 1] + "…"
