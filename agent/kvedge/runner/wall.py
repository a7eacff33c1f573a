"""Waiting for a time of day: what `wait`, `run_at` and `time_at` of a job do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, tzinfo

from kvedge.clock import Clock
from kvedge.errors import BadSetting, JobFailed
from kvedge.limits import TIME_WORDS_AHEAD_MAX_YEARS
from kvedge.model.when import When
from kvedge.runner.waiting import SleepUntil

LOOK_S = 10.0
"""How often the wall clock is looked at while somebody waits for it."""


@dataclass(frozen=True, slots=True)
class WallTime:
    """The wall clock of a node, as jobs wait for it.

    Attributes:
        clock: The clock of the node.
        sleep_until: Waits on that clock.
        zone: Whose calendar counts.
        is_right: Tells whether the wall clock can be trusted.
    """

    clock: Clock
    sleep_until: SleepUntil
    zone: tzinfo
    is_right: Callable[[], bool]

    def time_at(self, *words: str, current: bool | None, now: float | None) -> float:
        """Return the unix time that words stand for.

        Args:
            words: As "12 hr", or the same in parts; none: `now` itself is meant.
            current: None: when they begin to match; True: the same, but now where they match
                now; False: when they do not match.
            now: Unix seconds from which to look; None: the present.

        Raises:
            BadSetting: They are no words for a time, or it does not come.
            JobFailed: The clock is not right, and no `now` is given.
        """
        if now is None:
            if not self.is_right():
                raise JobFailed(" ".join(words), "the clock is not synchronised")
            now = self.clock.wall_s()
        elif not words:
            return now
        pattern = When.parse(words)
        base = datetime.fromtimestamp(now, self.zone)
        if current is not None and pattern.matches(base) is current:
            return now
        found = pattern.end_after(base) if current is False else pattern.next_after(base)
        if found is None:
            why = f"this does not come in the next {TIME_WORDS_AHEAD_MAX_YEARS} years"
            raise BadSetting(" ".join(words), why)
        return found.timestamp()

    async def wait(self, *words: str, current: bool | None, now: float | None) -> None:
        """Wait for the time that `time_at` tells, and first for a clock that is right.

        A clock that is set meanwhile counts.
        """
        while not self.is_right():
            await self._nap(LOOK_S)
        until = self.time_at(*words, current=current, now=now)
        while (rest_s := until - self.clock.wall_s()) > 0:
            await self._nap(min(rest_s, LOOK_S))

    async def _nap(self, seconds: float) -> None:
        await self.sleep_until(self.clock.boottime_s() + seconds)
