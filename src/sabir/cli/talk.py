"""What the commands do: ask a client, show what comes, and turn what goes wrong into a line and an exit code."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from msgspec import to_builtins
from msgspec.structs import asdict

from ..chat import Chat
from ..client import Client
from ..errors import AuthenticationError, ConfigurationError, SabirError, StorageError, UnsupportedError
from ..messages import Message, ToolCall, ToolResult, assistant, user
from ..model import add_words
from ..options import Call
from ..probing import TIMEOUT
from ..probing import probe as probe_server
from ..requests import Response, Thinking
from ..server_facts import ServerFacts, write_facts
from ..strict_json import decode_json
from . import INTERRUPTED
from .screen import Screen, silence
from .tools import get_weather, named_tool

FAILED = 1
WRONGLY_ASKED = 2
BROKEN_PIPE = 141  # as a shell tells it of a program that SIGPIPE ended
SILENT_SECONDS = 1.0

_CUT = {
    "length": "the answer was cut at its limit of tokens",
    "content_filter": "the answer was cut by the provider's content filter",
}
_COMMAND = re.compile(r"/\w+")
_HELP = "/new begins a new conversation, /exit (or Ctrl-D) ends this one, Ctrl-C stops an answer"


class ModelOptions(TypedDict):
    """What both commands take."""

    model: str | None
    system: str | None
    max_tokens: int | None
    temperature: float | None
    seed: int | None
    thinking: Thinking | None
    tools: Sequence[str]
    no_tools: bool
    base_url: str | None
    timeout: float | None


def ask(
    prompt: Sequence[str],
    images: Sequence[str],
    schema: str | None,
    is_json: bool,
    no_stream: bool,
    **options: Unpack[ModelOptions],
) -> int:
    """Do `sabir ask` and return its exit code."""

    def work(screen: Screen) -> None:
        shape = None if schema is None else _read_schema(schema)
        with _client(options) as client:
            call = _call(client, options, screen, is_example_offered=shape is None)
            call["images"] = images
            is_quiet = is_json or shape is not None
            said = _prompt(prompt, screen)
            response = _answer(client, said, call, shape, screen, is_quiet=is_quiet, is_streamed=not no_stream)
        if is_json:
            screen.answer(as_json(_report(response, shape is not None), screen))
        elif shape is not None:
            screen.answer(as_json(response.parsed, screen))
        screen.end_answer()
        _warn(response, screen)

    return guarded(work)


def chat(**options: Unpack[ModelOptions]) -> int:
    """Do `sabir chat` and return its exit code."""

    def work(screen: Screen) -> None:
        is_typed = sys.stdin is not None and sys.stdin.isatty()
        with _client(options) as client:
            call = _call(client, options, screen)
            talk = client.chat(**call)
            for line in screen.typed_lines("> ") if is_typed else _piped_lines():
                match line.strip():
                    case "":
                        pass
                    case "/exit" | "/quit":
                        return
                    case "/new":
                        talk = client.chat(**call)
                        screen.note("a new conversation")
                    case "/help":
                        screen.note(_HELP)
                    case command if _COMMAND.fullmatch(command):
                        screen.warn(f"there is no command {command}; {_HELP}")
                    case _:
                        _take_turn(talk, line, screen, is_typed)

    return guarded(work)


def probe(url: str, model: str | None, key_variable: str | None, timeout: float | None, is_json: bool) -> int:
    """Do `sabir probe` and return its exit code."""

    def work(screen: Screen) -> None:
        key = None
        if key_variable is not None and (key := os.environ.get(key_variable)) is None:
            raise ConfigurationError(f"the environment variable {key_variable} is not set")
        try:
            facts = probe_server(url, model, api_key=key, timeout=TIMEOUT if timeout is None else timeout)
        except AuthenticationError as error:
            if key is None:
                add_words(error, "here, --key-variable names the environment variable that has one")
            raise
        path = write_facts(facts)
        screen.answer(as_json(asdict(facts), screen) if is_json else "\n".join(_told(facts)))
        screen.end_answer()
        screen.note(f"kept in {path}")

    return guarded(work)


def _told(facts: ServerFacts) -> Iterator[str]:
    words: dict[bool | None, str] = {True: "yes", False: "no", None: "not seen"}
    yield f"model             {facts.model}"
    yield f"context           {facts.context or words[None]}"
    yield f"streams           {words[facts.streams]}"
    yield f"usage in streams  {words[facts.usage_in_streams]}"
    yield f"tools             {words[facts.tools]}"
    yield f"schemas           {words[facts.structured]}"
    yield f"thinking          {facts.thinking or words[None]}"
    yield from facts.notes


def guarded(work: Callable[[Screen], None]) -> int:
    """Do the work and return the exit code; what stops it is told below what has been written."""
    screen = Screen()
    try:
        try:
            work(screen)
        except KeyboardInterrupt:
            screen.end_answer()
            return INTERRUPTED
        except SabirError as error:
            screen.end_answer()
            screen.fail(_message(error))
            return _exit_code(error)
    except BrokenPipeError:
        silence()
        return BROKEN_PIPE
    except OSError as error:
        # The library's own are SabirErrors, so this one came of writing.
        screen.fail(f"the answer cannot be written: {error.strerror}")
        silence()
        return FAILED
    return 0


def _exit_code(error: SabirError) -> int:
    return WRONGLY_ASKED if isinstance(error, (ConfigurationError, UnsupportedError)) else FAILED


def _message(error: SabirError) -> str:
    return f"{error} (request {error.request_id})" if error.request_id else str(error)


def _client(options: ModelOptions) -> Client:
    settings: dict[str, Any] = {} if options["timeout"] is None else {"timeout": options["timeout"]}
    # What is unsupported is told by `_warn`, not by Python's warnings.
    return Client(options["model"], base_url=options["base_url"], on_unsupported="ignore", **settings)


def _call(client: Client, options: ModelOptions, screen: Screen, is_example_offered: bool = True) -> Call:
    """The options of every call; Pico has an example of a tool, if it is given none, and nobody else has."""
    tools = [named_tool(name) for name in options["tools"]]
    if not tools and not options["no_tools"] and is_example_offered and _provider(client) == "pico":
        tools = [get_weather]
        screen.shows_tools = True  # no one shall take its answer for a forecast
    call = Call(
        system=options["system"] and _as_typed(options["system"]),
        max_tokens=options["max_tokens"],
        temperature=options["temperature"],
        seed=options["seed"],
        thinking=options["thinking"],
    )
    if tools and not options["no_tools"]:
        call["tools"] = tools
    return call


def _provider(client: Client) -> str:
    return client.default_model.partition(":")[0]


def _prompt(words: Sequence[str], screen: Screen) -> str:
    """The words, and below them what is piped in.

    Raises:
        ConfigurationError: there is neither.
    """
    parts = [_as_typed(" ".join(words)), _piped_text(screen, is_awaited=not words)]
    if not (prompt := "\n\n".join(part for part in parts if part.strip())):
        raise ConfigurationError("there is nothing to ask: write a prompt behind `sabir ask`, or pipe one in")
    return prompt


def _as_typed(text: str) -> str:
    """An argument as UTF-8, whatever Python took it for."""
    return os.fsencode(text).decode(errors="replace")


def _piped_text(screen: Screen, is_awaited: bool) -> str:
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    hint = threading.Timer(SILENT_SECONDS, screen.note, ["sabir: reading standard input to its end"])
    hint.daemon = True
    if not is_awaited:
        hint.start()
    try:
        data = sys.stdin.buffer.read()
    except OSError as error:
        raise StorageError(f"standard input cannot be read: {error.strerror}") from None
    finally:
        hint.cancel()
    return _decoded(data).rstrip("\r\n")


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode(sys.stdin.encoding, errors="replace")


def _read_schema(source: str) -> dict[str, Any]:
    """A JSON Schema, from the text itself or from a file.

    Raises:
        ConfigurationError: there is no such file, or it is no JSON object.
    """
    try:
        text = source if source.lstrip().startswith("{") else Path(source).read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"--schema: the file {source!r} cannot be read: {reason}") from None
    try:
        schema = decode_json(text)
    except ValueError as error:
        raise ConfigurationError(f"--schema: this is not JSON: {error}") from None
    if not isinstance(schema, dict):
        raise ConfigurationError("--schema: a JSON Schema is a JSON object")
    return schema  # pyright: ignore[reportUnknownVariableType]  # of strings, since it is JSON's


def _answer(
    client: Client, prompt: str, call: Call, schema: Any, screen: Screen, *, is_quiet: bool, is_streamed: bool
) -> Response[Any]:
    """Ask, and show what comes; where that `is_quiet`, the answer itself is left to the caller."""
    if is_streamed:
        shown = ("thinking", "tool_calling") if is_quiet else None
        with client.stream(prompt, schema=schema, include=shown, **call) as stream:
            for chunk in stream:
                screen.show(chunk)
        return stream.response
    response = client.ask(prompt, schema=schema, **call)
    for part in _parts_shown(response.messages):
        if not isinstance(part, str):
            screen.tool(*part)
        elif not is_quiet:
            screen.answer(part)
    return response


def _parts_shown(messages: Iterable[Message]) -> Iterator[str | tuple[str, Any, str]]:
    """What a stream of these messages would have shown on the way: texts, and tools that ran."""
    calls = {call.id: call for message in messages for call in message.tool_calls}
    for message in messages:
        if message.role == "assistant":
            yield message.text + (message.refusal or "")
        for part in message.parts:
            if isinstance(part, ToolResult):
                yield part.name, _arguments(calls[part.call_id]), part.text


def _take_turn(talk: Chat, line: str, screen: Screen, is_typed: bool) -> None:
    """Say a line and show the answer. Of one that is interrupted, what came stays in the conversation."""
    before = len(talk.messages)
    try:
        with talk.stream(line) as stream:
            try:
                for chunk in stream:
                    screen.show(chunk)
            except KeyboardInterrupt:
                stream.close()
                _keep(talk, before, line, stream.response)
                raise
        screen.end_answer()
        _warn(stream.response, screen)
    except KeyboardInterrupt:
        if not is_typed:
            raise
        screen.end_answer()
    except SabirError as error:
        if not is_typed:
            raise
        screen.end_answer()
        screen.fail(_message(error))


def _keep(talk: Chat, before: int, line: str, response: Response[Any]) -> None:
    if response.finish_reason == "cancelled" and response.text:
        if len(talk.messages) == before:
            talk.append(user(line))
        talk.append(assistant(response.text))


def _piped_lines() -> Iterator[str]:
    if sys.stdin is not None:
        yield from (_decoded(line).rstrip("\r\n") for line in sys.stdin.buffer)


def _warn(response: Response[Any], screen: Screen) -> None:
    for notice in response.warnings:
        if notice.kind != "default_model":  # which the client has told already
            screen.warn(notice.message)
    if response.finish_reason in _CUT:
        screen.warn(_CUT[response.finish_reason])


def _report(response: Response[Any], has_schema: bool) -> dict[str, Any]:
    """All that is known of an answer, as JSON; what is not known is null."""
    usage, timings = response.usage, response.timings
    results = {
        part.call_id: part for message in response.messages for part in message.parts if isinstance(part, ToolResult)
    }
    return {
        "text": response.text,
        **({"parsed": response.parsed} if has_schema else {}),
        "thinking": response.thinking or None,
        "refusal": response.refusal,
        "model": response.model,
        "finish_reason": response.finish_reason,
        "usage": {
            **{name: getattr(usage, name) for name in usage.__struct_fields__},
            "total_tokens": usage.total_tokens,
            "source": usage.source,
        },
        "cost": to_builtins(response.cost),
        "timings": {"total": timings.total, "first_token": timings.first_token},
        "warnings": [
            {"kind": notice.kind, "subject": notice.subject, "message": notice.message} for notice in response.warnings
        ],
        "tool_calls": [
            _call_report(call, results.get(call.id)) for message in response.messages for call in message.tool_calls
        ],
        "request_id": response.request_id,
    }


def _call_report(call: ToolCall, result: ToolResult | None) -> dict[str, Any]:
    return {
        "name": call.name,
        "arguments": _arguments(call),
        "result": None if result is None else result.text,
        "is_error": None if result is None else result.is_error,
    }


def _arguments(call: ToolCall) -> Any:
    try:
        return call.arguments
    except SabirError:
        return call.input


def as_json(value: Any, screen: Screen) -> str:
    """JSON to be read by people where stdout can say it, and with escapes where it cannot: no character is lost."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(screen.encoding)
    except UnicodeError:
        return json.dumps(value)
    return text
