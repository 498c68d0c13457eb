"""Every `async def` test runs on three surfaces: blocking, asyncio, and blocking inside a running loop.

Such a test asks for the fixture `surface` and reaches the library only through it.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Callable
from importlib.util import find_spec
from typing import Any

import pytest

import sabir
from sabir import aio
from sabir.runtime import run

pytest_plugins = ["sabir.testing.plugin"]

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

    def drive(self, test: Callable[[], Any]) -> None:
        if self.name == "blocking":
            run(test)
        elif self.name == "asyncio":
            asyncio.run(test())
        else:
            asyncio.run(_inside_a_loop(test))

    def close(self) -> None:
        for client in self._clients:
            client.close()


async def _inside_a_loop(test: Callable[[], Any]) -> None:
    run(test)


class Awaited:
    """A blocking object seen through `await`: its methods answer before they return."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        if name == "ask":
            return self._awaited(value)
        if name in ("stream", "chat", "fork"):
            return lambda *args, **kwargs: Awaited(value(*args, **kwargs))
        return value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._awaited(self.inner)(*args, **kwargs)

    def _awaited(self, method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return method(*args, **kwargs)

        return call

    async def __aiter__(self) -> AsyncIterator[Any]:
        for item in self.inner:
            yield item

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


@pytest.fixture
def pico() -> str:
    """The model string of the embedded model, where its engine is installed."""
    if find_spec("xllamacpp") is None:
        message = "xllamacpp is not installed: pip install 'sabir[local]'"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return "pico"
