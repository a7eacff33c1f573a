"""The guard against clocks that are far ahead: what they stamped waits until its time has come.

A record of tomorrow would beat everything that is written today, and would pull every clock of
the network with it.  So a server that knows the time holds records that are more than an hour
ahead: they are neither merged nor counted as seen, and their author is told.  A server that does
not know the time cannot tell, but takes no stamp beyond all reason.
"""

from __future__ import annotations

from collections.abc import Mapping

from kvedge.model.stamp import TOCK_MAX, Dot, Rid, tock_ms
from kvedge.model.vector import Vector
from kvedge.protocol.batches import Carried

AHEAD_MAX_MS = 3600 * 1000
"""An hour: more than clocks differ that are kept right, less than what users would not notice."""

HELD_MAX = 1000
"""Records that wait; more are refused, and asked for again."""

_REASON_MAX = TOCK_MAX >> 1  # the year 4199


class ClockGuard:
    """Holds records that are ahead of their time."""

    def __init__(self) -> None:
        self._held: dict[Dot, tuple[Carried, Mapping[Rid, int]]] = {}
        self.dots = Vector()
        self._refused = Vector()  # for want of room: neither held nor seen

    def __len__(self) -> int:
        return len(self._held)

    def refuses(self, record: Carried, bases: Mapping[Rid, int], wall_ms: int | None) -> bool:
        """Tell whether a record is ahead; hold it then, as far as there is room."""
        if not is_ahead(record.tock, wall_ms):
            return False
        if record.dot in self._held:
            return True
        if len(self._held) < HELD_MAX:
            self._held[record.dot] = record, bases
            self.dots.add(record.dot)
        else:
            self._refused.add(record.dot)
        return True

    def due(self, wall_ms: int | None) -> list[tuple[Carried, Mapping[Rid, int]]]:
        """Return the records whose time has come, and hold them no longer."""
        due = [d for d, (held, _) in self._held.items() if not is_ahead(held.tock, wall_ms)]
        found = [self._held.pop(dot) for dot in due]
        if found:
            self.dots = Vector()
            for dot in self._held:
                self.dots.add(dot)
        if not self._held:
            self._refused = Vector()  # they are asked for again, and held or taken
        return found

    def without_held(self, seen: Vector) -> Vector:
        """Return what was seen, but for what is held, and what there was no room to hold."""
        if not self._held:
            return seen
        return Vector.of(dict(seen.minus(self.dots.union(self._refused))), seen.floors)


def is_ahead(tock: int, wall_ms: int | None) -> bool:
    """Tell whether a stamp is of a time that has not come.

    Args:
        tock: The stamp.
        wall_ms: Unix milliseconds, None where the time is not known.
    """
    if wall_ms is None:
        return tock > _REASON_MAX
    return tock_ms(tock) > wall_ms + AHEAD_MAX_MS
