"""A clock that moves when a test says so."""

from __future__ import annotations

import heapq
import itertools
import math

import anyio

PATIENCE_S = 10.0
"""How long to wait, really, for a task that should wait; a good run takes milliseconds."""


class VirtualClock:
    """Implements `kvedge.clock.Clock`, and lets tasks wait on it.

    Args:
        wall_s: Unix seconds at the beginning; a board without a clock battery starts near 0.
        boottime_s: Seconds since boot at the beginning.
        is_synchronised: Whether something has set it.
    """

    def __init__(
        self,
        *,
        wall_s: float = 1_700_000_000.0,
        boottime_s: float = 100.0,
        is_synchronised: bool = True,
    ) -> None:
        self.is_synchronised = is_synchronised
        self._offset_s = wall_s - boottime_s
        self._now_s = boottime_s
        self._sleepers: list[tuple[float, int, anyio.Event]] = []
        self._number = itertools.count()  # events are not compared
        self._came = anyio.Event()

    def wall_s(self) -> float:
        """Return the wall clock in unix seconds."""
        return self._now_s + self._offset_s

    def boottime_s(self) -> float:
        """Return seconds since boot."""
        return self._now_s

    def wall_is_synchronised(self) -> bool:
        """Return whether something has set it."""
        return self.is_synchronised

    def set_wall(self, wall_s: float) -> None:
        """Set the wall clock, as the network does some time after a boot."""
        self._offset_s = wall_s - self._now_s

    async def sleep_until(self, until_s: float) -> None:
        """Wait until the boot clock is this much."""
        event = anyio.Event()
        if until_s <= self._now_s:
            event.set()
        else:
            heapq.heappush(self._sleepers, (until_s, next(self._number), event))
            self._came.set()
        await event.wait()

    async def waited_for(self, in_s: float) -> None:
        """Return when some task waits for the time that is so many seconds away."""
        until_s = self._now_s + in_s
        with anyio.fail_after(PATIENCE_S):
            while not any(math.isclose(at_s, until_s) for at_s, _, _ in self._sleepers):
                self._came = anyio.Event()
                await self._came.wait()

    async def advance(self, by_s: float) -> None:
        """Move on and wake who waits, one time after the other.

        Each is let run until it waits for something again; a request to a server is such a thing,
        so what depends on its answer must be waited for by other means, such as `waited_for`.
        """
        end_s = self._now_s + by_s
        await anyio.wait_all_tasks_blocked()
        while self._sleepers and self._sleepers[0][0] <= end_s:
            self._now_s, _, event = heapq.heappop(self._sleepers)
            event.set()
            await anyio.wait_all_tasks_blocked()
        self._now_s = end_s
        await anyio.wait_all_tasks_blocked()
