"""The command line as people and shells use it: real processes, pipes and terminals, and a provider on loopback."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import sabir

SOURCE = str(Path(sabir.__file__).parent.parent)
SECONDS = 30
MISSING = "sabir's command line needs its extra: pip install 'sabir[cli]'\n"
PIXEL = b"\x89PNG\r\n\x1a\n"
needs_terminals = pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals of this kind")


# A provider that answers to order


class Answer(NamedTuple):
    """What to say to one request. An event among the pieces is waited for; a dict is a delta as it stands."""

    pieces: tuple[str | dict[str, Any] | threading.Event, ...] = ()
    calls: tuple[tuple[str, str], ...] = ()
    finish: str = "stop"
    is_cut: bool = False
    status: int = 200


class Provider(ThreadingHTTPServer):
    """Speaks chat completions. `answers` are given in turn, the last one for ever; `requests` are the bodies it got."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = []
        self.requests: list[dict[str, Any]] = []

    @property
    def options(self) -> list[str]:
        return ["--model", "openai-chat:stub", "--base-url", f"http://127.0.0.1:{self.server_address[1]}/v1"]

    def says(self, *pieces: str | dict[str, Any] | threading.Event, **more: Any) -> None:
        self.answers.append(Answer(pieces, **more))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The other side hung up, which is what some of these tests are about."""


class Handler(BaseHTTPRequestHandler):
    server: Provider

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append(request)
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer.status != 200:
            self.reply(answer.status, {"error": {"message": "".join(map(str, answer.pieces))}})
        elif request.get("stream"):
            self.stream(answer)
        else:
            message = {"role": "assistant", "content": "".join(map(str, answer.pieces)) or None, **tool_calls(answer)}
            self.reply(200, {"model": "stub-1", "choices": [{"index": 0, "message": message, **finish(answer)}]})

    def reply(self, status: int, body: dict[str, Any]) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("x-request-id", "req_7")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def stream(self, answer: Answer) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for piece in answer.pieces:
            if isinstance(piece, threading.Event):
                assert piece.wait(SECONDS), "nobody went on"
            else:
                self.send_delta({"content": piece} if isinstance(piece, str) else piece)
        if answer.calls:
            self.send_delta(tool_calls(answer))
        if not answer.is_cut:
            self.send_delta({}, **finish(answer))
            self.wfile.write(b'data: {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}\n\n')
            self.wfile.write(b"data: [DONE]\n\n")

    def send_delta(self, delta: dict[str, Any], **more: Any) -> None:
        event = {"model": "stub-1", "choices": [{"index": 0, "delta": delta, **more}]}
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in http.server
        pass


def finish(answer: Answer) -> dict[str, Any]:
    return {"finish_reason": "tool_calls" if answer.calls else answer.finish}


def tool_calls(answer: Answer) -> dict[str, Any]:
    calls = [
        {"index": number, "id": f"c{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for number, (name, arguments) in enumerate(answer.calls)
    ]
    return {"tool_calls": calls} if calls else {}


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


# Processes


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SABIR_", "PYTHONIOENCODING"))}
    kept.pop("NO_COLOR", None)
    kept.pop("OPENAI_API_KEY", None)
    places = filter(None, [SOURCE, os.environ.get("PYTHONPATH")])
    return {**kept, "PYTHONPATH": os.pathsep.join(places), "TERM": "xterm", **more}


class Done(NamedTuple):
    code: int
    out: str
    err: str


def run(*arguments: str | bytes, stdin: str | bytes = "", cwd: Path | None = None, **more: str) -> Done:
    """Run `sabir` to its end, with all three streams piped."""
    done = subprocess.run(
        [sys.executable, "-m", "sabir", *arguments],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        cwd=cwd,
        env=environment(**more),
        timeout=SECONDS,
        check=False,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """`sabir` while it runs, its standard input empty."""
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    command = [sys.executable, "-m", "sabir", *arguments]
    with subprocess.Popen(command, stdin=nothing, stdout=pipe, stderr=pipe, bufsize=0, env=environment()) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(descriptor: int, expected: str, times: int = 1) -> str:
    """Read what comes until `expected` is in it."""
    data, end = b"", time.monotonic() + SECONDS
    while data.decode(errors="replace").count(expected) < times:
        ready, _, _ = select.select([descriptor], [], [], max(0, end - time.monotonic()))
        assert ready, f"waited for {expected!r}, and there is only {data!r}"
        try:
            piece = os.read(descriptor, 4096)
        except OSError:  # what a terminal says on Linux when the other side is gone
            piece = b""
        assert piece, f"ended before {expected!r}: {data!r}"
        data += piece
    return data.decode(errors="replace")


# A process has a terminal to be interrupted by if it takes the one it is given for its own.
AT_ITS_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(2, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "sabir", *sys.argv[1:]])
"""


class Terminal:
    """`sabir` at a terminal, stderr always on it; what it shows is kept in `shown`, as lines end in \\n."""

    def __init__(self, *arguments: str, stdin: Any = None, stdout: Any = None, **more: str) -> None:
        import pty  # noqa: PLC0415 - not there on Windows

        self.shown = ""
        self._screen, inside = pty.openpty()
        more.setdefault("INPUTRC", os.devnull)
        self._process = subprocess.Popen(
            [sys.executable, "-c", AT_ITS_TERMINAL, *arguments],
            stdin=inside if stdin is None else stdin,
            stdout=inside if stdout is None else stdout,
            stderr=inside,
            start_new_session=True,
            env=environment(**more),
        )
        os.close(inside)

    @property
    def out(self) -> int:
        """The reading end of a piped stdout."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def wait_for(self, expected: str, times: int = 1) -> str:
        """What was shown since the last wait, up to this."""
        shown = read_until(self._screen, expected, times).replace("\r\n", "\n")
        self.shown += shown
        return shown

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def end(self, *, interrupting: bool = False) -> int:
        """Wait for the exit code and read what was still shown; with Ctrl-C, as often as it takes.

        Python does not see a signal that comes between the prompt and its wait for input, until something is typed.
        """
        deadline = time.monotonic() + SECONDS
        if interrupting:
            self.type("\x03")
        while True:
            if not select.select([self._screen], [], [], 2.0 if interrupting else SECONDS)[0]:
                assert time.monotonic() < deadline, "the program does not end"
                with suppress(OSError):
                    self.type("\x03")
                continue
            try:
                piece = os.read(self._screen, 4096)
            except OSError:
                break
            if not piece:
                break
            self.shown += piece.decode(errors="replace").replace("\r\n", "\n")
        return self._process.wait(SECONDS)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        os.close(self._screen)


@pytest.fixture
def terminal() -> Iterator[Any]:
    opened: list[Terminal] = []

    def open_terminal(*arguments: str, **more: Any) -> Terminal:
        opened.append(Terminal(*arguments, **more))
        return opened[-1]

    yield open_terminal
    for one in opened:
        one.close()


@pytest.fixture
def toolshed(tmp_path: Path) -> Path:
    """A folder with a module of tools."""
    (tmp_path / "shed.py").write_text(
        'def weigh(what: str) -> str:\n    """Weigh it."""\n    return f"{what}\\n is 3 kg"\n\n\nword = "no tool"\n'
    )
    (tmp_path / "broken.py").write_text("1 / 0\n")
    return tmp_path


def system(body: dict[str, Any]) -> list[Any]:
    return [message["content"] for message in body["messages"] if message["role"] in ("system", "developer")]


def said(body: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(message["role"], message.get("content")) for message in body["messages"]]


# Before anything is asked


def test_help_loads_neither_the_client_nor_anything_heavy():
    program = "import sys; sys.argv[1:] = ['ask', '--help']; import sabir.cli; sabir.cli.main(); print(*sys.modules)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=SECONDS, check=True)
    *text, modules = done.stdout.splitlines()
    assert text[0].startswith("Usage: sabir ask [OPTIONS] [PROMPT]...")
    unwelcome = {"sabir.client", "httptools", "asyncio", "msgspec", "rich", "pydantic", "xllamacpp"}
    assert unwelcome.isdisjoint(modules.split())


def test_help_says_where_keys_come_from():
    assert "Keys are read from the environment and from .env only" in run("--help").out
    assert "key" not in run("ask", "--help").out.lower()


def test_every_option_has_a_help_text():
    for command in ("ask", "chat"):
        text = run(command, "--help").out
        options = re.findall(r"^  (-.*?)(?:  +(\S.*))?(?:\n {20,}(\S.*))?$", text, re.M)
        assert len(options) > 10
        assert [option for option, beside, below in options if not (beside or below)] == []


def test_version():
    assert run("--version") == (0, f"sabir {sabir.__version__}\n", "")


@pytest.mark.parametrize("arguments", [["--version"], ["ask", "hello"]])
def test_without_click_one_line_says_what_to_install(tmp_path, arguments):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['click'] = None\n")
    done = run(*arguments, PYTHONPATH=os.pathsep.join([str(tmp_path), SOURCE]))
    assert done == (1, "", MISSING)


def test_any_other_missing_module_is_told_as_it_is(tmp_path):
    (tmp_path / "click.py").write_text("import nowhere_to_be_found\n")
    done = run("--version", PYTHONPATH=os.pathsep.join([str(tmp_path), SOURCE]))
    assert done.code == 1
    assert "nowhere_to_be_found" in done.err


# Asking


def test_the_answer_comes_as_it_arrives(provider):
    go_on = threading.Event()
    provider.says("Hello", go_on, " there")
    with started("ask", *provider.options, "hi") as process:
        assert process.stdout
        assert process.stderr
        assert read_until(process.stdout.fileno(), "Hello") == "Hello"
        go_on.set()
        assert process.stdout.read() == b" there\n"
        assert process.stderr.read() == b""
        assert process.wait(SECONDS) == 0


def test_with_no_stream_it_comes_whole(provider):
    provider.says("Hello", " there")
    assert run("ask", *provider.options, "--no-stream", "hi") == (0, "Hello there\n", "")
    assert "stream" not in provider.requests[0]


@pytest.mark.parametrize(
    ("words", "piped", "prompt"),
    [
        (["Sum", "this", "up"], "", "Sum this up"),
        (["Sum this up:"], "one\ntwo\n", "Sum this up:\n\none\ntwo"),
        ([], "What is this?\n", "What is this?"),
        (["--", "--help", "-x"], "", "--help -x"),
        (["hi"], "\ufeffbom\r\n", "hi\n\nbom"),
        (["hi"], b"caf\xe9", "hi\n\ncaf\ufffd"),
        ([b"caf\xe9"], "", "caf\ufffd"),
    ],
)
def test_the_prompt_is_what_is_typed_and_what_is_piped_in(provider, words, piped, prompt):
    provider.says("fine")
    assert run("ask", *provider.options, *words, stdin=piped).out == "fine\n"
    assert said(provider.requests[0]) == [("user", prompt)]


def test_a_wait_for_standard_input_is_told(provider):
    provider.says("fine")
    command = [sys.executable, "-m", "sabir", "ask", *provider.options, "hi"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment()) as process:
        assert process.stderr
        assert read_until(process.stderr.fileno(), "\n") == "sabir: reading standard input to its end\n"
        assert process.communicate(b"there", SECONDS) == (b"fine\n", b"")
    assert said(provider.requests[0]) == [("user", "hi\n\nthere")]


def test_an_answer_that_ends_its_line_is_left_as_it_is(provider):
    provider.says("one\ntwo\n")
    assert run("ask", *provider.options, "hi").out == "one\ntwo\n"


def test_options_go_along(provider, tmp_path):
    provider.says("fine")
    picture = tmp_path / "a.png"
    picture.write_bytes(PIXEL)
    options = ["-s", "Be short", "--max-tokens", "9", "--temperature", "0.5", "--seed", "7", "--thinking", "low"]
    assert run("ask", *provider.options, *options, "-i", str(picture), "-i", "https://h/b.png", "What?").code == 0
    body = provider.requests[0]
    assert (body["temperature"], body["seed"], body["reasoning_effort"]) == (0.5, 7, "low")
    assert 9 in (body.get("max_tokens"), body.get("max_completion_tokens"))
    assert system(body) == ["Be short"]
    text, *pictures = body["messages"][-1]["content"]
    assert text["text"] == "What?"
    assert [item["image_url"]["url"][:14] for item in pictures] == ["data:image/png", "https://h/b.pn"]


def test_the_model_may_be_named_in_the_environment(provider):
    provider.says("fine")
    _, model, _, url = provider.options
    assert run("ask", "hi", SABIR_MODEL=f"{model}@{url}") == (0, "fine\n", "")


def test_a_json_report(provider):
    provider.says("Grüße 😀")
    done = run("ask", *provider.options, "--json", "hi")
    report = json.loads(done.out)
    assert (done.code, done.out.count("\n"), done.err) == (0, 1, "")
    assert "Grüße 😀" in done.out
    assert report.pop("timings").keys() == {"total", "first_token"}
    usage = report.pop("usage")
    assert (usage["input"], usage["output"], usage["total_tokens"], usage["reasoning"]) == (5, 2, 7, None)
    assert report == {
        "text": "Grüße 😀",
        "thinking": None,
        "refusal": None,
        "model": "stub-1",
        "finish_reason": "stop",
        "cost": None,
        "warnings": [],
        "tool_calls": [],
        "request_id": None,
    }


def test_json_that_stdout_cannot_say_is_escaped(provider):
    provider.says("Grüße 😀")
    done = run("ask", *provider.options, "--json", "hi", PYTHONIOENCODING="ascii")
    assert json.loads(done.out)["text"] == "Grüße 😀"


NAMED = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


@pytest.mark.parametrize("place", ["here", "file"])
def test_a_schema_gives_json(provider, tmp_path, place):
    provider.says('{"name":', ' "Åse"}\n\n')
    schema = json.dumps(NAMED)
    if place == "file":
        (tmp_path / "s.json").write_text(schema)
        schema = str(tmp_path / "s.json")
    assert run("ask", *provider.options, "--schema", schema, "hi") == (0, '{"name": "Åse"}\n', "")
    assert provider.requests[0]["response_format"]["json_schema"]["schema"]["properties"] == NAMED["properties"]


def test_a_schema_and_a_report(provider):
    provider.says('{"name": "Bo"}')
    report = json.loads(run("ask", *provider.options, "--json", "--schema", json.dumps(NAMED), "hi").out)
    assert (report["parsed"], report["text"]) == ({"name": "Bo"}, '{"name": "Bo"}')


def test_an_answer_that_does_not_fit_is_not_printed(provider):
    provider.says("sorry, ", "no")
    code, out, err = run("ask", *provider.options, "--schema", json.dumps(NAMED), "hi")
    assert (code, out) == (1, "")
    assert err.startswith("sabir: error: the answer for ")
    assert err.count("\n") == 1


def test_what_was_weakened_is_told(provider):
    provider.says("fine", finish="length")
    code, out, err = run("ask", *provider.options, "--thinking", "500", "hi")
    assert (code, out) == (0, "fine\n")
    first, second = err.splitlines()
    assert first.startswith("sabir: warning: ")
    assert "500" in first
    assert second == "sabir: warning: the answer was cut at its limit of tokens"


def test_characters_that_stdout_cannot_say_are_replaced(provider):
    provider.says("half \ud83d, ", "é")
    assert run("ask", *provider.options, "hi").out == "half ?, é\n"
    assert run("ask", *provider.options, "hi", PYTHONIOENCODING="ascii").out == "half ?, ?\n"


# Failing


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "nothing to ask"),
        (["-m", "nobody:x", "hi"], "unknown provider 'nobody'"),
        (["-m", "openai:x", "hi"], "OPENAI_API_KEY"),
        (["-m", "pico", "--base-url", "http://localhost:1", "hi"], "takes no base_url="),
        (["--base-url", "http://localhost:1", "hi"], "takes no base_url="),
        (["--thinking", "lots", "hi"], "'lots' is none of false, true"),
        (["--temperature", "hot", "hi"], "'hot' is not a valid float"),
        (["--timeout", "-1", "hi"], "timeout is a number of seconds"),
        (["--schema", "nowhere.json", "hi"], "'nowhere.json' cannot be read: No such file"),
        (["--schema", "{", "hi"], "not JSON"),
        (["--schema", os.devnull, "hi"], "not JSON"),
        (["-m", "llama-server:x", "-i", "nowhere.png", "hi"], "'nowhere.png' cannot be read"),
        (["--tool", "shed", "hi"], "MODULE:FUNCTION"),
        (["--tool", "nowhere:f", "hi"], "No module named 'nowhere'"),
        (["--tool", "broken:f", "hi"], "ZeroDivisionError: division by zero"),
        (["--tool", "shed:f", "hi"], "'shed' has no 'f'"),
        (["-m", "llama-server:x", "--tool", "shed:word", "hi"], "a tool is a function"),
        (["--nonsense", "hi"], "--nonsense"),
        (["--api-key", "sk-1", "hi"], "--api-key"),
    ],
)
def test_what_is_asked_wrongly_exits_with_2(toolshed, arguments, expected):
    code, out, err = run("ask", *arguments, cwd=toolshed)
    assert (code, out) == (2, "")
    assert expected in err
    assert "Traceback" not in err


def test_a_refused_request_exits_with_1(provider):
    provider.says("no such luck", status=400)
    assert run("ask", *provider.options, "hi") == (1, "", "sabir: error: no such luck (HTTP 400) (request req_7)\n")


def test_a_server_that_is_not_there_exits_with_1(provider):
    provider.server_close()
    code, out, err = run("ask", *provider.options, "--timeout", "5", "hi")
    assert (code, out) == (1, "")
    assert err.startswith("sabir: error: ")


def test_of_an_answer_that_breaks_off_what_came_stays(provider):
    provider.says("Hello", " th", is_cut=True)
    code, out, err = run("ask", *provider.options, "hi")
    assert (code, out) == (1, "Hello th\n")
    assert err.startswith("sabir: error: ")
    assert err.count("\n") == 1


def test_an_interrupt_keeps_what_came(provider):
    provider.says("Hello", threading.Event())
    with started("ask", *provider.options, "hi") as process:
        assert process.stdout
        assert process.stderr
        read_until(process.stdout.fileno(), "Hello")
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b"\n"
        assert process.stderr.read() == b""
        assert process.wait(SECONDS) == 130


def test_a_reader_that_has_enough_ends_it_quietly(provider):
    is_closed = threading.Event()
    provider.says("Hello\n", is_closed, *["there\n"] * 10)
    with started("ask", *provider.options, "hi") as process:
        assert process.stdout
        assert process.stderr
        read_until(process.stdout.fileno(), "Hello")
        process.stdout.close()
        is_closed.set()
        assert process.stderr.read() == b""
        assert process.wait(SECONDS) == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")  # noqa: PTH110
def test_an_answer_that_cannot_be_written_is_an_error(provider):
    provider.says("Hello")
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "sabir", "ask", *provider.options, "hi"],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=SECONDS,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == b"sabir: error: the answer cannot be written: No space left on device\n"


@pytest.mark.skipif(os.name == "nt", reason="a shell closes them with <&-")
def test_streams_that_are_closed_are_no_reason_to_fail(provider):
    provider.says("Hello")
    command = [sys.executable, "-m", "sabir", "ask", *provider.options, "hi"]
    script = 'exec "$@" <&- 2>&-'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *command], stdout=subprocess.PIPE, env=environment(), timeout=SECONDS, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"Hello\n")


# Tools


@pytest.mark.parametrize("way", [[], ["--no-stream"]])
def test_a_tool_of_ones_own(provider, toolshed, way):
    provider.says("Let me see.", calls=(("weigh", '{"what": "tea"}'),))
    provider.says("3 kg.")
    done = run("ask", *provider.options, *way, "--tool", "shed:weigh", "How heavy?", cwd=toolshed)
    assert done == (0, "Let me see.\n3 kg.\n", "")
    first, second = provider.requests
    assert [tool["function"]["name"] for tool in first["tools"]] == ["weigh"]
    assert said(second)[-1] == ("tool", "tea\n is 3 kg")


def test_tools_in_a_report(provider, toolshed):
    provider.says(calls=(("weigh", '{"what": "tea"}'), ("weigh", '{"which": 1}'), ("weigh", "[")))
    provider.says("3 kg.")
    done = run("ask", *provider.options, "--json", "--tool", "shed:weigh", "How heavy?", cwd=toolshed)
    fine, wrong, torn = json.loads(done.out)["tool_calls"]
    assert fine == {"name": "weigh", "arguments": {"what": "tea"}, "result": "tea\n is 3 kg", "is_error": False}
    assert (wrong["arguments"], wrong["is_error"]) == ({"which": 1}, True)
    assert (torn["arguments"], torn["is_error"]) == ("[", True)


def test_no_tools_offers_none(provider, toolshed):
    provider.says("fine")
    assert run("ask", *provider.options, "--tool", "shed:weigh", "--no-tools", "hi", cwd=toolshed).out == "fine\n"
    assert "tools" not in provider.requests[0]


def test_only_pico_is_offered_the_example(provider):
    provider.says("fine")
    assert run("ask", *provider.options, "What is the weather in Oslo?").code == 0
    assert "tools" not in provider.requests[0]


# At a terminal


@needs_terminals
def test_a_terminal_shows_thinking_and_tools_dimmed(provider, toolshed, terminal):
    provider.says(
        {"reasoning_content": "Hm, "}, {"reasoning_content": "tea?"}, "So: ", calls=(("weigh", '{"what": "tea"}'),)
    )
    provider.says("3 kg.")
    shed = f"{toolshed}{os.pathsep}{SOURCE}"
    screen = terminal("ask", *provider.options, "--tool", "shed:weigh", "hi", PYTHONPATH=shed)
    assert screen.end() == 0
    assert screen.shown == (
        "\x1b[2mHm, \x1b[0m\x1b[2mtea?\x1b[0m\nSo: \n\x1b[2m→ weigh(what='tea') ← tea is 3 kg\x1b[0m\n3 kg.\n"
    )


@needs_terminals
@pytest.mark.parametrize("plain", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_without_colour(provider, terminal, plain):
    provider.says({"reasoning_content": "Hm."}, "So.")
    screen = terminal("ask", *provider.options, "hi", **plain)
    assert screen.end() == 0
    assert screen.shown == "Hm.\nSo.\n"


@needs_terminals
def test_a_pipe_has_the_answer_alone_and_the_terminal_the_rest(provider, terminal):
    provider.says({"reasoning_content": "Hm."}, "So.", is_cut=True)
    screen = terminal("ask", *provider.options, "hi", stdout=subprocess.PIPE)
    assert read_until(screen.out, "\n") == "So.\n"
    assert screen.end() == 1
    thought, error = screen.shown.splitlines()
    assert thought == "\x1b[2mHm.\x1b[0m"
    assert error.startswith("sabir: error: ")


@needs_terminals
def test_no_control_character_reaches_a_terminal(provider, terminal):
    provider.says("a\x1b]52;c;aGk=\x07b\r\nc\x9bd")
    screen = terminal("ask", *provider.options, "hi")
    assert screen.end() == 0
    assert screen.shown == "a\ufffd]52;c;aGk=\ufffdb\nc\ufffdd\n"


@needs_terminals
def test_ctrl_c_at_a_terminal(provider, terminal):
    provider.says("Hello", threading.Event())
    screen = terminal("ask", *provider.options, "hi")
    screen.wait_for("Hello")
    screen.type("\x03")
    assert screen.end() == 130
    assert screen.shown == "Hello^C\n"


# Talking


def test_a_conversation_from_a_pipe(provider):
    provider.says("one")
    provider.says("two")
    done = run("chat", *provider.options, "-s", "Be short", stdin="first\n\n  \nsecond\n")
    assert done == (0, "one\ntwo\n", "")
    assert said(provider.requests[1])[-3:] == [("user", "first"), ("assistant", "one"), ("user", "second")]
    assert system(provider.requests[1]) == ["Be short"]


def test_commands_of_a_conversation(provider):
    provider.says("fine")
    done = run("chat", *provider.options, stdin="first\n/new\nsecond /new\n/help\n/nope\n/etc/hosts\n/exit\nlast\n")
    assert (done.code, done.out) == (0, "fine\n" * 3)
    started_anew, helped, unknown = done.err.splitlines()
    assert started_anew == "a new conversation"
    assert helped.startswith("/new begins a new conversation")
    assert unknown.startswith("sabir: warning: there is no command /nope")
    assert said(provider.requests[1]) == [("user", "second /new")]
    assert said(provider.requests[2])[-1] == ("user", "/etc/hosts")


def test_a_failed_turn_ends_a_piped_conversation(provider):
    provider.says("no", status=400)
    assert run("chat", *provider.options, stdin="a\nb\n") == (1, "", "sabir: error: no (HTTP 400) (request req_7)\n")
    assert len(provider.requests) == 1


@needs_terminals
def test_a_conversation_at_a_terminal(provider, terminal):
    provider.says("no", status=400)
    provider.says("two")
    screen = terminal("chat", *provider.options)
    screen.wait_for("> ")
    screen.type("first\n")
    assert "sabir: error: no (HTTP 400) (request req_7)\n" in screen.wait_for("> ")
    screen.type("second\n")
    assert "\ntwo\n" in screen.wait_for("> ")
    screen.type("\x04")
    assert screen.end() == 0
    assert said(provider.requests[1]) == [("user", "second")]


@needs_terminals
def test_ctrl_c_stops_an_answer_and_keeps_what_came(provider, terminal):
    provider.says("Once upon", threading.Event())
    provider.says(" a time")
    screen = terminal("chat", *provider.options)
    screen.wait_for("> ")
    screen.type("Tell\n")
    screen.wait_for("Once upon")
    screen.type("\x03")
    screen.wait_for("> ")
    screen.type("Go on\n")
    screen.wait_for("> ")
    assert screen.end(interrupting=True) == 0
    assert said(provider.requests[1]) == [("user", "Tell"), ("assistant", "Once upon"), ("user", "Go on")]


@needs_terminals
def test_prompts_stay_out_of_a_piped_stdout(provider, terminal):
    provider.says("fine")
    screen = terminal("chat", *provider.options, stdout=subprocess.PIPE)
    screen.wait_for("> ")
    screen.type("hi\n")
    screen.wait_for("> ")
    screen.type("/quit\n")
    assert read_until(screen.out, "\n") == "fine\n"
    assert screen.end() == 0


# The model inside


def test_pico_calls_the_example_of_a_tool(pico):
    code, out, err = run("ask", "What is the weather in Oslo?")
    assert (code, out) == (0, "The weather in Oslo is sunny, 21C, made up.\n")
    notice, called = err.splitlines()
    assert notice.startswith("sabir: no model was named")
    assert called == "→ get_weather(city='Oslo') ← sunny, 21C, made up"


@pytest.mark.parametrize("city", ["New York", "Nairobi", "Paris", "Reykjavik"])
def test_pico_says_what_the_example_said(pico, city):
    report = json.loads(run("ask", "-m", pico, "--json", f"What is the weather in {city}?").out)
    (call,) = report["tool_calls"]
    assert (call["name"], call["arguments"]) == ("get_weather", {"city": city})
    assert call["result"].endswith(", made up")
    assert report["text"] == f"The weather in {city} is {call['result']}."


def test_pico_without_tools(pico):
    report = json.loads(run("ask", "-m", pico, "--json", "--no-tools", "Hello").out)
    assert report["tool_calls"] == []
    assert report["usage"]["input"] < 20


def test_pico_remembers_a_conversation(pico):
    done = run("chat", "-m", pico, stdin="My name is Alice.\nWhat is my name?\n")
    assert done.code == 0
    assert "Alice" in done.out.splitlines()[-1]


def test_pico_keeps_to_a_schema(pico):
    schema = {**NAMED, "additionalProperties": False}
    done = run("ask", "-m", pico, "--schema", json.dumps(schema), "Write JSON with name Bob")
    assert (done.code, list(json.loads(done.out))) == (0, ["name"])


@needs_terminals
def test_ctrl_c_stops_pico(pico, terminal):
    screen = terminal("ask", "-m", pico, "--max-tokens", "4000", "--no-tools", "And in Oslo?")
    screen.wait_for(" ")
    screen.type("\x03")
    assert screen.end() in (0, 130)  # it may have been quicker
    assert "Traceback" not in screen.shown
