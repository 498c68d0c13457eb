"""What fetching a proof takes of the world: variables, files, HTTP, programs; all through a runtime, on a line.

What it brings home is secret and shows as dots. A variable that names a server, a file that says what to run, or a
program is believed only where the process itself has it: the file `.env` comes with a folder, and a folder may come
from anyone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple, final
from urllib.parse import urlencode, urlsplit

from ..environment import Environment
from ..errors import (
    AuthenticationError,
    ConfigurationError,
    DeadlineExceeded,
    PermissionDeniedError,
    ProviderError,
    RateLimitError,
    ServerError,
)
from ..requests import HttpRequest, Secret
from ..runtime import Line, Runtime
from ..strict_json import decode_json, is_object
from ..version import __version__
from . import LEAST_SECRET, Proof, limited
from .files import MOST_BYTES, read_text

# Of what a program or a server says of its failure.
_MOST_SAID = 500
FORM = ("content-type", "application/x-www-form-urlencoded")
_USER_AGENT = ("user-agent", f"sabir/{__version__}")


class Unavailable(Exception):
    """Whoever was asked for a proof has none to give: the next one is asked. Says why; never leaves this package."""


@final
class Answer:
    """What a server gave; its body is secret."""

    __slots__ = ("_body", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self._body = body

    def __repr__(self) -> str:
        return f"Answer({self.status})"

    @property
    def text(self) -> Secret:
        return Secret(self._body.decode("utf-8", "replace"))

    @property
    def json(self) -> dict[str, Any]:
        """The object in it; an empty one if there is none."""
        return json_object(self._body)

    def is_good(self) -> bool:
        return 200 <= self.status < 300


class Ran(NamedTuple):
    """What became of a program; `code` is None if it was ended because it took too long."""

    code: int | None
    output: Secret
    errors: str


@final
class Errand:
    """One attempt to get a proof: whose runtime does the work, on which line, and what the environment says."""

    __slots__ = ("_sent", "environment", "line", "runtime")

    def __init__(self, runtime: Runtime, line: Line, environment: Environment) -> None:
        self.runtime = runtime
        self.line = line
        self.environment = environment
        self._sent: list[str] = []

    @contextmanager
    def within(self, seconds: float) -> Generator[Errand]:
        """The same with less time."""
        with limited(self.line, seconds) as short:
            errand = Errand(self.runtime, short, self.environment)
            errand._sent = self._sent
            yield errand

    def variable(self, *names: str) -> Secret | None:
        """The first of these variables that is set, also by `.env`."""
        found = self.environment.find(*names)
        return found and found.value

    def own_variable(self, *names: str) -> Secret | None:
        """The first of these variables of the process that is set.

        Raises:
            ConfigurationError: only `.env` sets it.
        """
        found = self.environment.find(*names)
        if found is not None and found.is_from_file:
            raise ConfigurationError(
                f"{found.name} stands in .env, and what it names is trusted with credentials, not for a folder to say: "
                "set it in the environment"
            )
        return found and found.value

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        secrets: Iterable[str | None] = (),
    ) -> Answer:
        """Send a request, and read its answer, whatever it is; `secrets` are those in its body.

        Raises:
            SabirError: none came.
        """
        _check_url(url)
        self._sent += [value for _, value in headers if isinstance(value, Secret)]
        self._sent += [value for value in secrets if value]
        request = HttpRequest(method, url, (_USER_AGENT, *headers), body, is_for_proof=True)
        reply = await self.runtime.send(request, self.line)
        try:
            data = b""
            while piece := await reply.read_some():
                data += piece
                if len(data) > MOST_BYTES:
                    raise ServerError(f"{urlsplit(url).netloc} gave no credentials: its answer is too large")
            return Answer(reply.status, reply.headers, data)
        finally:
            reply.close()

    async def post_form(self, url: str, form: Mapping[str, str], headers: Sequence[tuple[str, str]] = ()) -> Answer:
        """Send a form, and read its answer."""
        body = urlencode(form).encode()
        secrets = [value for value in form.values() if isinstance(value, Secret)]
        return await self.fetch("POST", url, headers=(FORM, *headers), body=body, secrets=secrets)

    def refusal(
        self, who: str, answer: Answer, code: object, message: object, remedy: str | None = None
    ) -> ProviderError:
        """The error for an answer that is no proof; of its body, only what stands where errors are told."""
        kind: type[ProviderError] = AuthenticationError
        if answer.status == 429:
            kind = RateLimitError
        elif answer.status == 403:
            kind = PermissionDeniedError
        elif not 400 <= answer.status < 500:
            kind = ServerError
        code, message = (text if isinstance(text, str) else "" for text in (code, message))
        for secret in self._sent:
            message = message.replace(secret, "***") if len(secret) >= LEAST_SECRET else message
        said = ": ".join(text for text in (code, shortened(message)) if text)
        told = f"{who} gave no credentials (HTTP {answer.status}{': ' if said else ''}{said})"
        # A server that says that all is well, and gives none, will do so again.
        retryable = False if kind is ServerError and answer.status < 500 else None
        told = f"{told}; {remedy}" if remedy else told
        return kind(told, status=answer.status, code=code or None, retryable=retryable)

    def token(self, who: str, answer: Answer, remedy: str | None = None) -> Proof[Secret]:
        """The token in an answer of OAuth's.

        Raises:
            ProviderError: there is none.
        """
        given = answer.json
        token, lasts, ends = given.get("access_token"), given.get("expires_in"), given.get("expires_on")
        if not answer.is_good() or not isinstance(token, str) or not token:
            raise self.refusal(who, answer, given.get("error"), given.get("error_description"), remedy)
        if not token.isascii() or not token.isprintable():
            raise AuthenticationError(f"{who} gave a token with characters that no header can carry")
        try:
            moment = float(ends) if ends is not None else None if lasts is None else time.time() + float(lasts)
        except (TypeError, ValueError):
            raise AuthenticationError(f"{who} gave a token whose end is no number") from None
        return Proof(Secret(token), moment)

    async def read(self, path: str) -> Secret | None:
        """The text of a file; None if there is no such file.

        Raises:
            ConfigurationError: it cannot be read.
        """
        text: Secret | None = await self.runtime.call(read_text, path)
        return text

    async def run(
        self, command: Sequence[str], *, environ: Mapping[str, str] | None = None, folder: str | None = None
    ) -> Ran:
        """Run a program, without a shell and without input; it ends with the line.

        Raises:
            ConfigurationError: it cannot be run.
        """
        program = _Program(command, environ, folder)
        self.line.hold(program.stop)
        try:
            ran: Ran = await self.runtime.call(program.run, self.line.left())
        except BaseException:
            program.stop()
            raise
        finally:
            self.line.release(program.stop)
        if self.line.aborted:
            raise self.line.cut_error()
        return ran


def json_object(text: str | bytes) -> dict[str, Any]:
    """The JSON object that a text is; an empty one if it is none."""
    try:
        value = decode_json(text.encode() if isinstance(text, str) else text)
    except ValueError:
        return {}
    return value if is_object(value) else {}


def moment_of(value: object) -> float | None:
    """A moment in seconds since 1970, as which it may be given too; a text without a zone is UTC."""
    if isinstance(value, int | float):
        return float(value)
    try:
        moment = datetime.fromisoformat(str(value).strip().removesuffix("UTC"))
    except ValueError:
        return None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def shortened(text: str) -> str:
    """What somebody said, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= _MOST_SAID else line[:_MOST_SAID] + "…"


def no_answer(error: DeadlineExceeded, line: Line) -> None:
    """Pass over a limit of one's own; raise the caller's."""
    if line.aborted or line.is_over():
        raise error


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigurationError(f"credentials are to be fetched from {url!s}, which is no address of a server")


class _Program:
    """A program that may be stopped from any thread, also before it has begun."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str] | None, folder: str | None) -> None:
        self._command = list(command)
        self._environ = environ and {**os.environ, **environ}
        self._folder = folder
        self._is_stopped = False
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, seconds: float | None) -> Ran:
        try:
            # In a session of its own, so that what it starts ends with it, and a question of it fails.
            process = self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environ,
                cwd=self._folder,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            what = error.strerror if isinstance(error, OSError) else type(error).__name__
            raise ConfigurationError(f"{self._command[0]} cannot be run: {what}") from None
        with process:
            if self._is_stopped:
                self.stop()
            try:
                output, errors = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                self.stop()
                return Ran(None, Secret(), "")
            except BaseException:
                self.stop()
                raise
        return Ran(process.returncode, Secret(output.decode("utf-8", "replace")), errors.decode("utf-8", "replace"))

    def stop(self) -> None:
        self._is_stopped = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        try:
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        except OSError:
            pass  # It has just ended.
