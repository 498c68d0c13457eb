"""llama.cpp in this process: OpenAI's dialects over a function call instead of a socket. Parses no model text.

The `xllamacpp` wheel speaks OpenAI's chat completions and legacy completions in process. All that is left to do here is
to keep one copy of a model's weights for the whole process, and to keep llama.cpp's threads out of trouble. Found by
experiment with xllamacpp 2026.10 on Linux:

- A `Server` opens an HTTP listener whether one wants it or not. It gets a random key that nobody keeps and, where there
  are Unix sockets, an address that is gone before anybody could connect.
- The constructor and the destructor of a `Server` hold the GIL: no other thread runs while weights are loaded. Hence
  the file is read ahead, and the warm-up run is left to a first request, which releases it.
- A `Server` that is destroyed before its loop has begun never returns; the same first request prevents that.
- An exception in its callback is swallowed and ends the generation; our callback raises none.
- The process crashes if it exits while a generation runs, or if the forked child of one that has a `Server` exits.
- Its threads meet at spinning barriers: two of them on two busy cores made a small model a hundred times slower.

No lock is ever taken on a thread of the caller's, where a KeyboardInterrupt could leave it held: models are loaded and
run on daemon threads, and the caller waits on a `SimpleQueue`. References to weights are counted by Python itself.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import queue
import secrets
import shutil
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, final
from weakref import WeakValueDictionary

from ..deltas import Delta, Event
from ..dialects import Dialect, mapping_of
from ..dialects.openai_chat import OpenAIChat
from ..dialects.openai_completions import OpenAICompletions
from ..errors import BadRequestError, ClosedError, ConfigurationError, EngineError, SabirError
from ..requests import Request
from ..runtime import Line
from ..strict_json import decode_json, encode_json

if TYPE_CHECKING:
    from ..providers import Provider

SLOTS = 4
GGUF_VERSIONS = (2, 3)
# How long `close()` waits for memory to be free; what is not by then frees itself when the running step has ended.
CLOSE_SECONDS = 1.0
EXIT_SECONDS = 10.0

# Below this size a model has a whole context for each slot, and one thread.
_SMALL = 64 << 20
# A prompt is read in steps of so many tokens; between two of them it can be given up. llama.cpp computes in steps of
# 512 anyhow, so that a smaller number here would cost speed and this one does not.
_STEP = 512
# Prompts of conversations that lost their slot are kept in memory up to this; llama.cpp's own default is 8 GiB.
_KEPT_PROMPTS_MIB = 1024
# The path of a socket has at most 104 bytes on macOS, 108 on Linux, our own part of it 27.
_LONGEST_FOLDER = 75
_READ_AHEAD = 1 << 20

# (path, time of change, size) → the weights in use; one that nobody uses any more is not in it.
_loaded: WeakValueDictionary[tuple[str, int, int], _Weights] = WeakValueDictionary()
# The generations that have not ended.
_runs: set[_Run] = set()
_lock = threading.Lock()
_is_exiting = False


def pico_path() -> Path:
    """Where the small model lies that comes with the package."""
    return Path(__file__).parent / "weights" / "pico-q8_0.gguf"


def engine(model: str, provider: Provider) -> LlamaCpp:
    """The engine for a row of the providers' table: its only model, Pico, or the GGUF file that `model` names."""
    if not isinstance(provider.dialect, OpenAIChat):
        raise ConfigurationError(f"llama.cpp speaks openai_chat, and the row of {provider.name!r} says otherwise")
    path = pico_path() if provider.model == "pico" else Path(model).expanduser()
    return LlamaCpp(path, provider.dialect, name=model)


def completing(engine: LlamaCpp, dialect: Dialect) -> Completing:
    """The same engine, given raw text to go on with, without a chat template."""
    if not isinstance(dialect, OpenAICompletions):
        raise ConfigurationError(f"llama.cpp goes on with raw text in openai_completions, not {dialect.name}")
    return Completing(engine, dialect)


@final
class LlamaCpp:
    """A GGUF model run by llama.cpp.

    The weights are loaded by the first call, once for all engines on the same file in the process, and are freed when
    the last of these is closed or forgotten. Up to four answers are generated at once, more wait for their turn. Each
    may use the model's whole context; the slots of a model of more than 64 MB share the memory of one.
    """

    def __init__(self, path: str | os.PathLike[str], dialect: OpenAIChat, *, name: str) -> None:
        self.name = name
        self._path = os.fspath(path)
        self._dialect = dialect
        self._weights: _Weights | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        return f"LlamaCpp({self._path!r}, name={self.name!r})"

    @property
    def running(self) -> int:
        """How many generations of this engine have not ended: those that wait for their turn count, too."""
        return len(self._own_runs())

    def deltas(self, request: Request, line: Line) -> Iterator[Delta]:
        """The answer, as it is generated; always streamed, whether or not `request.stream`.

        Leaving the iterator, the deadline or `line.abort()` ends the generation within a token; while a prompt is
        being read, the iterator ends at once and the work after the running step of 512 tokens. `line.idle` counts
        from the first sign of life: neither loading the model nor waiting for other answers is silence. Nothing ends
        while the model is being loaded (see the head of this file).
        """
        return self.answer(request, line, self._dialect, "handle_chat_completions")

    def answer(
        self, request: Request, line: Line, dialect: OpenAIChat | OpenAICompletions, operation: str
    ) -> Iterator[Delta]:
        """What `deltas` says, in a dialect and by the function of llama.cpp's that speaks it."""
        body = _encoded(request, dialect)
        decoder = dialect.decoder()
        run = _Run(self, operation)
        limit = None
        try:
            line.hold(run.cut)
            line.left()
            if not _is_exiting:
                _start(lambda: self._run(run, body))
            while (arrived := run.wait(line, limit)) is not None:
                limit = line.idle
                chunk = self._chunk(arrived)
                if "prompt_progress" not in chunk:
                    yield from decoder.event(chunk)
                elif request.extra.get("return_progress"):
                    yield Event(chunk)
        finally:
            run.cut()
            line.release(run.cut)
        yield from decoder.close()

    def close(self) -> None:
        """Let the model go, ending what this engine generates; waits for that up to a second.

        Memory that a running step still needs by then is free when the step has ended.
        """
        self._is_closed = True
        self._weights = None
        for run in (runs := self._own_runs()):
            run.cut()
        _wait_for(runs, CLOSE_SECONDS)

    def _own_runs(self) -> list[_Run]:
        return [run for run in tuple(_runs) if run.engine is self]

    def _chunk(self, arrived: bytes) -> dict[str, Any]:
        chunk: dict[str, Any] = decode_json(arrived)
        if failure := mapping_of(chunk.get("error")):
            raise self._refused(failure, arrived)
        # llama.cpp says the path of the file, which is nobody's business.
        return {**chunk, "model": self.name}

    def _refused(self, failure: dict[str, Any], body: bytes) -> SabirError:
        status, message = failure.get("code"), str(failure.get("message"))
        if not isinstance(status, int) or status >= 500:
            # Among them "Context size has been exceeded.": answers that were generated at once needed more memory
            # than the slots of a large model share.
            return EngineError(f"{self.name}: {message}", retryable=True)
        error = self._dialect.decode_error(status, {}, body)
        error.message = message
        error.args = (message,)
        return error

    def _run(self, run: _Run, body: bytes) -> None:
        _runs.add(run)
        # Errors go to the reader without their tracebacks, whose frames would keep the weights.
        outcome: SabirError | None = None
        try:
            self._generate(run, body)
        except SabirError as error:
            outcome = error.with_traceback(None)
        except (ValueError, RuntimeError) as error:
            # What llama.cpp finds wrong with a request it raises before the first chunk.
            kind = EngineError if run.has_begun else BadRequestError
            outcome = kind(f"{self.name}: {error}")
        except Exception as error:  # noqa: BLE001 - nothing foreign escapes
            outcome = EngineError(f"{self.name}: {type(error).__name__}: {error}")
        _runs.discard(run)
        # At the end of the process a reader on a daemon thread is left to wait: woken, it could only print a traceback.
        if not _is_exiting:
            run.arrived.put(outcome)

    def _generate(self, run: _Run, body: bytes) -> None:
        weights = self._use()
        try:
            server = weights.server(run)
        except SabirError:
            self._weights = None  # the next call looks at the file anew
            raise
        if not run.is_cut and not _is_exiting:
            getattr(server, run.operation)(body, run.take)

    def _use(self) -> _Weights:
        """The weights, from now on used by this engine."""
        with _lock:
            weights = self._weights
            if weights is None or weights.pid != os.getpid():
                weights = self._weights = _weights_of(self._path)
        # `close()` takes no lock: what it sets first is looked at last.
        if self._is_closed:
            self._weights = None
            raise ClosedError(f"{self.name}: used after close()")
        return weights


@final
class Completing:
    """A `LlamaCpp` that is given raw text. Its weights, and who ends what it generates, are the engine's."""

    def __init__(self, engine: LlamaCpp, dialect: OpenAICompletions) -> None:
        self._engine = engine
        self._dialect = dialect

    def deltas(self, request: Request, line: Line) -> Iterator[Delta]:
        """The answer, as it is generated; see `LlamaCpp.deltas`."""
        return self._engine.answer(request, line, self._dialect, "handle_completions")

    def close(self) -> None:
        self._engine.close()


def _encoded(request: Request, dialect: OpenAIChat | OpenAICompletions) -> bytes:
    body, _ = dialect.encode_body(request)
    # With return_progress llama.cpp speaks between the steps of reading a prompt: a sign of life, a chance to stop.
    streamed = {"stream": True, "stream_options": {"include_usage": True}, "return_progress": True}
    try:
        return encode_json({**body, **streamed})
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"the request cannot be written as JSON: {error}") from None


class _Run:
    """One generation: a thread that is inside llama.cpp, and a reader that waits for it."""

    __slots__ = ("arrived", "engine", "has_begun", "is_cut", "operation")

    def __init__(self, engine: LlamaCpp, operation: str = "handle_chat_completions") -> None:
        self.engine = engine
        self.operation = operation
        self.arrived: queue.SimpleQueue[bytes | SabirError | None] = queue.SimpleQueue()
        self.has_begun = False
        self.is_cut = False

    def take(self, chunk: bytes) -> bool:
        """The callback: whether llama.cpp is to stop."""
        if self.is_cut:
            return True
        self.has_begun = True
        self.arrived.put(chunk)
        return False

    def cut(self) -> None:
        self.is_cut = True
        self.arrived.put(None)

    def wait(self, line: Line, limit: float | None) -> bytes | None:
        """The next chunk, None when there are no more."""
        if _is_exiting and threading.current_thread() is threading.main_thread():
            raise line.cut_error()
        try:
            arrived = self.arrived.get(timeout=line.left(limit))
        except queue.Empty:
            raise line.timeout_error() from None
        if isinstance(arrived, SabirError):
            raise arrived
        if arrived is None and self.is_cut:
            raise line.cut_error()
        return arrived


class _Weights:
    """One model file in memory, while anybody refers to it."""

    def __init__(self, path: str, size: int) -> None:
        self.pid = os.getpid()
        self.loaded: Any = None
        self._path = path
        self._size = size
        self._loading = threading.Lock()

    def server(self, run: _Run) -> Any:
        """The server that runs them; loads them if that has not been done."""
        with self._loading:
            if self.loaded is None:
                self.loaded = _load(self._path, self._size, run)
            return self.loaded


def _weights_of(path: str) -> _Weights:
    real = os.path.realpath(path)
    try:
        found = Path(real).stat()
    except OSError as error:
        raise EngineError(f"the model file {path} cannot be read: {error.strerror}") from None
    key = (real, found.st_mtime_ns, found.st_size)
    weights = _loaded.get(key)
    if weights is None:
        weights = _loaded[key] = _Weights(real, found.st_size)
    return weights


def _load(path: str, size: int, run: _Run) -> Any:
    library = _library()
    _check(path)
    _read_ahead(path, run)
    if run.is_cut or _is_exiting:
        raise ClosedError("closed by its owner while the model was being loaded")
    try:
        server = _server(library, path, size)
        server.handle_completions({"prompt": "a", "max_tokens": 1})
    except Exception as error:  # noqa: BLE001 - nothing foreign escapes
        raise EngineError(
            f"llama.cpp could not load {path} ({size:,} bytes): it is truncated or damaged, does not fit into memory, "
            f"or was made for another version than xllamacpp {library.__version__} ({error})"
        ) from None
    return server


def _library() -> Any:
    try:
        return import_module("xllamacpp")
    except ImportError as error:
        raise ConfigurationError(
            "models in this process are run by xllamacpp, which cannot be imported; install it with: "
            f"pip install 'sabir[local]' ({error})"
        ) from None


def _check(path: str) -> None:
    """Say what is wrong with a file where llama.cpp would only say that something is."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise EngineError(f"the model file {path} cannot be read: {error.strerror}") from None
    if head[:4] != b"GGUF":
        raise EngineError(f"{path} is no GGUF model: it begins with {head[:4]!r}")
    version = struct.unpack("<I", head[4:])[0] if len(head) == 8 else None
    if version not in GGUF_VERSIONS:
        raise EngineError(f"{path} is a GGUF file of version {version}; llama.cpp reads {GGUF_VERSIONS}")


def _read_ahead(path: str, run: _Run) -> None:
    """Bring the file into the system's cache while other threads may run."""
    buffer = bytearray(_READ_AHEAD)
    with Path(path).open("rb", buffering=0) as file:
        while not run.is_cut and file.readinto(buffer):
            pass


def _server(library: Any, path: str, size: int) -> Any:
    settings = library.CommonParams()
    settings.model.path = path
    settings.verbosity = -1  # prints nothing at all
    settings.n_ctx = 0  # the model's own; for each slot, unless they share one
    settings.n_parallel = SLOTS
    settings.kv_unified = size > _SMALL
    settings.n_batch = settings.n_ubatch = _STEP
    settings.cache_ram_mib = _KEPT_PROMPTS_MIB
    settings.warmup = False
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = _threads(size)
    settings.n_threads_http = 1
    settings.ui = False
    settings.port = 0
    settings.api_keys = [secrets.token_urlsafe(32)]
    # The listener cannot be switched off. At a socket in a folder that is then removed, nobody can reach it.
    folder = _private_folder()
    settings.hostnames = ["127.0.0.1" if folder is None else f"{folder}/closed.sock"]
    try:
        return library.Server(settings)
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _private_folder() -> str | None:
    """A folder of our own, None where there are no Unix sockets, no place for files, or only one with a long name."""
    if sys.platform == "win32":
        return None
    try:
        return None if len(tempfile.gettempdirb()) > _LONGEST_FOLDER else tempfile.mkdtemp(prefix="sabir-")
    except OSError:
        return None


def _threads(size: int) -> int:
    """As many as there are physical cores for this process; one for a small model, -1 where llama.cpp knows better."""
    if size <= _SMALL:
        return 1
    if sys.platform != "linux":
        return -1
    cores = {_core(cpu) for cpu in os.sched_getaffinity(0)}
    return max(1, min(len(cores), _cpu_quota()))


def _core(cpu: int) -> str:
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def _cpu_quota() -> int:
    """The whole CPUs that a container may use (cgroup v2), which its list of CPUs does not tell."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return int(quota) // int(period)
    except (OSError, ValueError):
        return sys.maxsize


def _start(work: Any) -> None:
    try:
        threading.Thread(target=work, name="sabir-llama", daemon=True).start()
    except RuntimeError as error:
        raise EngineError(f"no thread for the model: {error}") from None


def _wait_for(runs: Iterable[_Run], seconds: float) -> bool:
    """Whether these generations have ended in time. It looks again and again, which no interrupt can upset."""
    end = time.monotonic() + seconds
    while not _runs.isdisjoint(runs):
        if time.monotonic() >= end:
            return False
        time.sleep(0.001)
    return True


def _never_destroy(weights: Iterable[_Weights]) -> None:
    for each in weights:
        if each.loaded is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(each.loaded))


def _at_exit() -> None:
    """End what is running, since C++ destroys its global objects next, with or without threads that use them."""
    global _is_exiting
    _is_exiting = True
    for run in tuple(_runs):
        run.is_cut = True
    if not _wait_for(tuple(_runs), EXIT_SECONDS):
        _never_destroy(_loaded.values())
    for weights in tuple(_loaded.values()):
        weights.loaded = None


def _before_fork() -> None:
    """Have llama.cpp end a thread of its listener's, for which the exit of a forked child would wait.

    It is one for the whole process (`stream_session_manager`) and does nothing for us; a load that fails ends it too.
    """
    if any(weights.loaded is not None for weights in tuple(_loaded.values())):
        try:
            _server(_library(), os.devnull, 0)
        except Exception:  # noqa: BLE001 - it is meant to fail
            pass


def _after_fork() -> None:
    """In the child: forget the models without destroying them. Their threads did not come along to end them."""
    global _lock
    _lock = threading.Lock()
    _never_destroy(_loaded.values())
    _loaded.clear()
    for run in tuple(_runs):
        run.cut()
    _runs.clear()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
