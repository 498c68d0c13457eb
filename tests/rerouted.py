"""A runtime in whose world the servers of a cloud stand on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from sabir.clouds import Standard
from sabir.requests import HttpRequest
from sabir.runtime import Blocking, Eventful, Line, Reply, Runtime, RuntimeWrapper, run
from sabir.transports import Network, blocking_transport, eventful_transport, network_of

COLOURS = ("blocking", "asyncio")


class Rerouted(RuntimeWrapper):
    """Addresses that begin with a key of `places` are those of its value. It fetches proofs, and nothing else."""

    def __init__(self, inner: Runtime, places: Mapping[str, str]) -> None:
        super().__init__(inner)
        self._places = places

    async def send(self, request: HttpRequest, line: Line) -> Reply:
        assert request.is_for_proof
        url = rerouted(request.url, self._places)
        return await self.inner.send(HttpRequest(request.method, url, request.headers, request.body), line)


def rerouted(url: str, places: Mapping[str, str]) -> str:
    start = next((start for start in places if url.startswith(start)), "")
    return places.get(start, "") + url.removeprefix(start)


def proved(
    standard: Standard[Any],
    colour: str = "blocking",
    places: Mapping[str, str] | None = None,
    ca_file: str | None = None,
    **limits: Any,
) -> Any:
    """What a cloud's standard credentials are, on one of the colours."""
    line, network = Line(**limits), network_of(None, ca_file=ca_file) if ca_file else Network()
    if colour == "blocking":
        blocking = Rerouted(Blocking(lambda: blocking_transport(None, network)), places or {})
        try:
            return run(lambda: standard.renewed.get(blocking, line))
        finally:
            blocking.close()

    async def main() -> Any:
        eventful = Rerouted(Eventful(lambda: eventful_transport(None, network)), places or {})
        try:
            return await standard.renewed.get(eventful, line)
        finally:
            eventful.close()

    return asyncio.run(main())
