"""The Trickle timer (RFC 6206): say often what is news, and seldom what everybody knows.

Time is cut into intervals.  In each one message may be sent, at a random point of its second
half, and is left out where as many consistent ones were heard before.  An interval is twice as
long as the one before, up to a bound; an inconsistent message starts again with the shortest.
So a difference is told within two and a half of the shortest intervals, an idle network is
quiet, and the more servers there are the less each of them has to say.

The listening half (section 4.1, "short-listen problem") keeps servers whose intervals are not
aligned from all speaking.  An inconsistency in the shortest interval changes nothing (section
4.2, rule 6), which bounds the rate whatever is heard.

The interval that begins late, since the caller was asleep, begins when the caller comes.
"""

from __future__ import annotations

from random import Random

from kvedge import limits


class Trickle:
    """One timer; its owner asks `next_deadline` and calls `expired` then.

    Args:
        random: Draws the point in each interval.
        now: Boottime in seconds.
        interval_min_s: The first interval.
        interval_max_s: The longest interval.
        redundancy: So many consistent messages make one's own needless (RFC 6206's k).
    """

    def __init__(
        self,
        random: Random,
        now: float,
        *,
        interval_min_s: float = limits.DIGEST_INTERVAL_MIN_S,
        interval_max_s: float = limits.DIGEST_INTERVAL_MAX_S,
        redundancy: int = limits.DIGEST_REDUNDANCY,
    ) -> None:
        assert 0 < interval_min_s <= interval_max_s
        assert redundancy >= 1
        self._random = random
        self._interval_min_s = interval_min_s
        self._interval_max_s = interval_max_s
        self._redundancy = redundancy
        self._interval_s = interval_min_s
        self._heard = 0
        self._is_point_passed = False
        self._point = self._end = now
        self.restart(now)

    def restart(self, now: float) -> None:
        """Begin anew with the shortest interval: at a connect, where nothing was heard for long."""
        self._begin(now, self._interval_min_s)

    def heard_consistent(self) -> None:
        """Note that somebody said what this server would have said."""
        self._heard += 1

    def heard_inconsistent(self, now: float) -> None:
        """Note that somebody said something else, or that this server's own state has changed."""
        if self._interval_s > self._interval_min_s:
            self.restart(now)

    def next_deadline(self) -> float:
        """Return when to call `expired`, in seconds of boottime."""
        return self._end if self._is_point_passed else self._point

    def expired(self, now: float) -> bool:
        """Let time pass; tell whether to send the message now.

        Early and repeated calls do no harm.
        """
        is_to_send = False
        if not self._is_point_passed and now >= self._point:
            self._is_point_passed = True
            is_to_send = self._heard < self._redundancy
        if now >= self._end:
            self._begin(now, min(2 * self._interval_s, self._interval_max_s))
        return is_to_send

    def _begin(self, now: float, interval_s: float) -> None:
        self._interval_s = interval_s
        self._heard = 0
        self._is_point_passed = False
        # Random.random() is below 1, so the point is in [I/2, I).
        self._point = now + interval_s * (1 + self._random.random()) / 2
        self._end = now + interval_s
