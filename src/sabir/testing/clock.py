"""A clock that moves only when it is told to: a wrapper of a client's runtime, for tests that wait for nothing."""

from __future__ import annotations

import math
from typing import final

from ..errors import ConfigurationError
from ..runtime import Line, Runtime, RuntimeWrapper


@final
class VirtualClock:
    """The time of the clients it is given to, as one of their `runtime_wrappers`; list it before others that wait.

    A sleep returns at once and moves the clock by what it was to take, unless its line was cut; `slept` has them all.
    Between sleeps the clock stands, so that a timeout can only pass in one, or by `advance`. It is for models in this
    process, recordings and faults: a real socket waits in real time, and no deadline cuts it then.
    """

    def __init__(self, start: float = 0.0) -> None:
        self.slept: list[float] = []
        # Their sum is the time: to append is atomic, to add up numbers is not.
        self._moves = [start]

    def __call__(self, runtime: Runtime) -> Runtime:
        return _Virtual(runtime, self)

    def now(self) -> float:
        return math.fsum(self._moves)

    def advance(self, seconds: float) -> None:
        """Let time pass.

        Raises:
            ConfigurationError: the clock would go back.
        """
        if not 0 <= seconds < math.inf:
            raise ConfigurationError(f"a clock is advanced by seconds from 0 on, not by {seconds!r}")
        self._moves.append(seconds)


class _Virtual(RuntimeWrapper):
    def __init__(self, inner: Runtime, clock: VirtualClock) -> None:
        super().__init__(inner)
        self._clock = clock

    def now(self) -> float:
        return self._clock.now()

    async def sleep(self, seconds: float, line: Line) -> None:
        # Others have their turn, as in any sleep.
        await self.inner.sleep(0, line)
        if line.aborted:
            raise line.cut_error()
        if seconds > 0:
            self._clock.slept.append(seconds)
            self._clock.advance(seconds)
