"""Every `async def` test runs on three surfaces: blocking, asyncio, and blocking inside a running loop.

Such a test asks for the fixture `surface` and reaches the library only through it.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from typing import Any

import pytest

import sabir
from sabir import aio

pytest_plugins = ["sabir.testing.plugin"]
# These need what `make test-servers` installs, and run when they are named.
collect_ignore = ["real_servers"]

SURFACES = ("blocking", "asyncio", "blocking in a loop")


class Surface:
    """Makes clients whose methods are awaited, whatever the colour of the client behind them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_blocking = name != "asyncio"
        self._clients: list[Any] = []

    def client(self, *models: Any, **settings: Any) -> Any:
        """A client; closed at the end of the test."""
        made = (sabir.Client if self.is_blocking else aio.Client)(*models, **settings)
        self._clients.append(made)
        return Awaited(made) if self.is_blocking else made

    async def in_thread(self, function: Callable[[], Any]) -> Any:
        """Call a plain function on another thread and wait for what it returns."""
        if not self.is_blocking:
            return await asyncio.to_thread(function)
        return _joined(_started(function))

    async def at_once(self, *jobs: Callable[[], Coroutine[Any, Any, Any]]) -> list[Any]:
        """Run several coroutines at once, on threads or as tasks, and return their results in order."""
        if not self.is_blocking:
            return await asyncio.gather(*(job() for job in jobs))
        return [_joined(begun) for begun in [_started(lambda job=job: _finish(job)) for job in jobs]]

    def drive(self, test: Callable[[], Any]) -> None:
        if self.name == "blocking":
            _finish(test)
        elif self.name == "asyncio":
            asyncio.run(test())
        else:
            asyncio.run(_inside_a_loop(test))

    def close(self) -> None:
        for client in self._clients:
            client.close()


def _finish(start: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine that never suspends. Not by `sabir.runtime.run`, which would hide the loop it runs in."""
    coroutine = start()
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    pytest.fail("a test on a blocking surface awaited something that does not come from its surface")


async def _inside_a_loop(test: Callable[[], Any]) -> None:
    _finish(test)


def _started(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any], list[BaseException]]:
    results: list[Any] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - raised again by who waits
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread, results, errors


def _joined(begun: tuple[threading.Thread, list[Any], list[BaseException]]) -> Any:
    thread, results, errors = begun
    thread.join(30)
    assert not thread.is_alive(), "the other thread hangs"
    if errors:
        raise errors[0]
    return results[0]


class Awaited:
    """A blocking object seen through `await`: its methods answer before they return."""

    def __init__(self, inner: Any) -> None:
        object.__setattr__(self, "inner", inner)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        if name in ("ask", "raw_complete", "embed", "embed_batch", "embedding_dim", "rerank", "pull"):
            return self._awaited(value)
        if name in ("image", "speak", "transcribe"):
            return self._awaited(value)
        if name in ("submit", "status", "cancel"):
            return self._awaited(value)
        if name == "batches":
            return Awaited(value)
        if name in ("stream", "stream_image", "stream_speech", "stream_transcript", "chat", "fork", "results"):
            return lambda *args, **kwargs: Awaited(value(*args, **kwargs))
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.inner, name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._awaited(self.inner)(*args, **kwargs)

    def _awaited(self, method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return method(*args, **kwargs)

        return call

    def __aiter__(self) -> Awaited:
        return self

    async def __anext__(self) -> Any:
        try:
            return next(self.inner)
        except StopIteration:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Awaited:
        self.inner.__enter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.inner.__exit__(*exc)


@pytest.fixture(params=SURFACES)
def surface(request: pytest.FixtureRequest) -> Any:
    made = Surface(request.param)
    yield made
    made.close()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    arguments["surface"].drive(lambda: pyfuncitem.obj(**arguments))
    return True


@pytest.fixture(scope="session", autouse=True)
def _no_cache_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What was probed or refreshed on this machine says nothing of what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SABIR_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def pico() -> str:
    """The model string of the embedded model, where its engine is installed."""
    if find_spec("xllamacpp") is None:
        message = "xllamacpp is not installed: pip install 'sabir[local]'"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return "pico"
