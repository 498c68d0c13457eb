"""An HTTP answer that is in memory already; knows neither where it came from nor what it says."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import final

from ..errors import SabirError
from ..runtime import Line, Runtime


@final
class Canned:
    """A `Reply` whose body comes in the pieces given, and ends with an error if one is given."""

    status: int
    headers: Mapping[str, str]

    def __init__(
        self,
        runtime: Runtime,
        line: Line,
        status: int,
        headers: Mapping[str, str],
        pieces: Iterable[bytes],
        end: SabirError | None = None,
    ) -> None:
        self.status = status
        self.headers = headers
        self._runtime = runtime
        self._line = line
        self._pieces = deque(pieces)
        self._end = end

    async def read_some(self) -> bytes:
        self._line.left()
        # Others have their turn between two pieces, as they have while a socket is waited for.
        await self._runtime.sleep(0, self._line)
        if self._pieces:
            return self._pieces.popleft()
        if self._end is not None:
            raise self._end
        return b""

    def close(self) -> None:
        """Nothing to let go of."""
