"""What was seen a moment ago: the difference between two servers that is only under way.

While changes are made, a peer's vector lacks those whose hints are still on their way to it, and
a pull would look through the whole tree for what comes by itself.
"""

from __future__ import annotations

from kvedge.model.vector import Vector

UNDER_WAY_S = 0.1
"""How long a hint may be on its way: less than `replication.GAP_WAIT_S`, so that a gap counts."""

KNOWN_MAX_S = 1.0
"""What was seen longer ago says nothing: nobody has looked since."""


class Recent:
    """Remembers what was seen some tenths of a second ago."""

    def __init__(self) -> None:
        self._newer: tuple[float, Vector] | None = None
        self._older: tuple[float, Vector] | None = None

    def note(self, seen: Vector, now: float) -> None:
        """Take note of what was seen up to now; called some times per second."""
        if self._newer is None or now >= self._newer[0] + UNDER_WAY_S:
            self._older, self._newer = self._newer, (now, seen.copy())

    def explains(self, have: Vector, now: float) -> bool:
        """Tell whether a peer that has this lacks nothing but what may be under way."""
        if self._older is None or now > self._older[0] + KNOWN_MAX_S:
            return False
        _, settled = self._older
        return bool(settled) and have.covers(settled)
