"""The state of a channel: a table of moves, and what a value is worth in each state.

    ok         the last reading is fresh
    suspect    the last attempt failed, or a fault has just ended; the value is still fresh
    stale      nobody has asked for a while: the job hangs, or has only just started
    missing    the device, or the whole bus, does not answer
    fault      it answers, with nothing that can be used

Hysteresis: one failure makes an ok channel suspect, the second in a row ends it.  Good readings
end a suspicion when two come in a row; a device that only was away is ok at once.  A channel that
was not ok to begin with needs no second failure to be told.

`last_good_s` makes the promise that a value is never silently old: no channel is ok or suspect
once that is `STALE_INTERVALS` ago.  Time is a parameter: seconds of a clock that never goes back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, StrEnum

from kvedge.errors import DeviceAbsent, DriverError, PortBusy, PortUnavailable

STALE_INTERVALS = 3
"""A value that is older than this many intervals is not current any more."""


class State(StrEnum):
    """What is known about a channel; the value is what users see."""

    OK = "ok"
    SUSPECT = "suspect"
    STALE = "stale"
    MISSING = "missing"
    FAULT = "fault"

    @property
    def is_current(self) -> bool:
        """Whether there is a value that may be used."""
        return self in (State.OK, State.SUSPECT)


class Event(Enum):
    """What may happen to a channel."""

    GOOD = "good"
    ABSENT = "absent"
    UNUSABLE = "unusable"
    SILENT = "silent"


_HYSTERESIS = 2

# From a state by an event: how many good or failed readings in a row it takes, and where to.
_MOVES: Mapping[tuple[State, Event], tuple[int, State]] = {
    (State.OK, Event.ABSENT): (1, State.SUSPECT),
    (State.OK, Event.UNUSABLE): (1, State.SUSPECT),
    (State.OK, Event.SILENT): (1, State.STALE),
    (State.SUSPECT, Event.GOOD): (_HYSTERESIS, State.OK),
    (State.SUSPECT, Event.ABSENT): (_HYSTERESIS, State.MISSING),
    (State.SUSPECT, Event.UNUSABLE): (_HYSTERESIS, State.FAULT),
    (State.SUSPECT, Event.SILENT): (1, State.STALE),
    (State.STALE, Event.GOOD): (1, State.OK),
    (State.STALE, Event.ABSENT): (1, State.MISSING),
    (State.STALE, Event.UNUSABLE): (1, State.FAULT),
    (State.MISSING, Event.GOOD): (1, State.OK),
    (State.MISSING, Event.UNUSABLE): (1, State.FAULT),
    (State.FAULT, Event.GOOD): (1, State.SUSPECT),
    (State.FAULT, Event.ABSENT): (1, State.MISSING),
}


@dataclass(frozen=True, slots=True)
class Health:
    """The state of one channel.

    Attributes:
        state: What is known about it.
        reason: Why, in words; empty while it is ok.
        last_good_s: When it was read last; None if never since the job began.
        streak: How many readings in a row were good, or failed.
        is_failing: Which of both.
    """

    state: State = State.STALE
    reason: str = "not read yet"
    last_good_s: float | None = None
    streak: int = 0
    is_failing: bool = False

    def good(self, now_s: float) -> Health:
        """Return what follows from a good reading."""
        return replace(self._after(Event.GOOD, "it has only just recovered"), last_good_s=now_s)

    def failed(self, error: DriverError) -> Health:
        """Return what follows from a reading that failed."""
        return self._after(event_of(error), str(error))

    def at(self, now_s: float, *, interval_s: float) -> Health:
        """Return what follows from the mere passing of time."""
        if self.last_good_s is None or now_s - self.last_good_s <= STALE_INTERVALS * interval_s:
            return self
        if not self.state.is_current:
            return self
        reason = f"no reading for {now_s - self.last_good_s:.0f} s"
        state = _MOVES[self.state, Event.SILENT][1]
        return replace(self, state=state, reason=reason, streak=0)

    def _after(self, event: Event, reason: str) -> Health:
        is_failing = event is not Event.GOOD
        streak = self.streak + 1 if is_failing == self.is_failing else 1
        needed, to = _MOVES.get((self.state, event), (1, self.state))
        state = to if streak >= needed else self.state
        return replace(
            self,
            state=state,
            reason="" if state is State.OK else reason,
            streak=streak,
            is_failing=is_failing,
        )


def event_of(error: DriverError) -> Event:
    """Return what an error says about the device: that it is away, or that it talks nonsense."""
    is_away = isinstance(error, (DeviceAbsent, PortUnavailable, PortBusy))
    return Event.ABSENT if is_away else Event.UNUSABLE
