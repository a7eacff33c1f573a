"""Stamps: who changed something (rid), its how-many-eth change it was (dot), and when (tock).

A **rid** is (node, incarnation): one life of a server process.  Incarnations are drawn anew at
every start, `generation << 40 | 40 random bits`, so a restored card or a cloned image never
speaks under a rid that was used before.  A **dot** is (rid, tick); ticks count the changes of a
rid from 1, without gaps, and no dot is ever used twice.

A **tock** is a hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014) in 63
bits: unix milliseconds << 16 | counter.  It enters the wall clock only while that is known to
be right, and never falls.

The tick that users see is `base + tick`.  The base travels with the incarnation, so that the
number keeps rising per node over restarts.
"""

from __future__ import annotations

from typing import NamedTuple

RANDOM_BITS = 40
TOCK_COUNTER_BITS = 16
TOCK_MAX = (1 << 63) - 1

GENERATION_MAX = 1 << 22
"""A node that starts each minute gets there in eight years; numbers beyond are nonsense."""


class Rid(NamedTuple):
    """One life of a server process.  Orders by node name, then by age."""

    node: str
    incarnation: int


class Dot(NamedTuple):
    """One change: the tick-th of a rid, from 1."""

    rid: Rid
    tick: int


def new_incarnation(generation: int, random_bits: int) -> int:
    """Return the incarnation of a generation; `random_bits` is a number below 2^40."""
    return generation << RANDOM_BITS | random_bits


def generation_of(incarnation: int) -> int:
    """Return the generation: starts of this node, as far as anybody remembers."""
    return incarnation >> RANDOM_BITS


def next_tock(last: int, wall_ms: int | None) -> int:
    """Return the tock of a local change.

    Args:
        last: The largest tock that was seen or given so far.
        wall_ms: Unix milliseconds, None while the wall clock is not synchronised.
    """
    if wall_ms is None:
        return last + 1
    return max(last + 1, wall_ms << TOCK_COUNTER_BITS)


def tock_at(wall_ms: int) -> int:
    """Return the first tock of a millisecond."""
    return wall_ms << TOCK_COUNTER_BITS


def tock_ms(tock: int) -> int:
    """Return the unix milliseconds inside a tock; small numbers where no clock was right."""
    return tock >> TOCK_COUNTER_BITS


class RidTable:
    """Small numbers for rids, given in the order of first use, and the base of each.

    Entries are kept packed and name rids by these numbers.  A number is never used again in the
    life of a table, so that what names one that is gone cannot mean somebody else.
    """

    def __init__(self) -> None:
        self._rows: dict[int, tuple[Rid, int]] = {}
        self._numbers: dict[Rid, int] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._rows)

    def knows(self, rid: Rid) -> bool:
        """Tell whether a rid has a number."""
        return rid in self._numbers

    def number(self, rid: Rid, base: int = 0) -> int:
        """Return the number of a rid; a new one is entered with its base.

        A base of 0 stands for one that is not known yet: a later one replaces it.
        """
        known = self._numbers.get(rid)
        if known is None:
            known = self._next
            self._next += 1
            self._rows[known] = (rid, base)
            self._numbers[rid] = known
        elif base and not self._rows[known][1]:
            self._rows[known] = (rid, base)
        return known

    def rid(self, number: int) -> Rid:
        """Return the rid with a number."""
        return self._rows[number][0]

    def node(self, number: int) -> str:
        """Return the node of the rid with a number."""
        return self._rows[number][0].node

    def base(self, number: int) -> int:
        """Return what is added to the ticks of a rid before users see them."""
        return self._rows[number][1]

    def base_of(self, rid: Rid) -> int:
        """Return the base of a rid, 0 for one that is not known."""
        known = self._numbers.get(rid)
        return 0 if known is None else self._rows[known][1]

    def shown(self, dot: Dot) -> tuple[str, int]:
        """Return a dot as users see it: node and rising number."""
        return dot.rid.node, self._rows[self._numbers[dot.rid]][1] + dot.tick

    def rows(self) -> list[tuple[int, Rid, int]]:
        """Return all numbers with their rids and bases; also from another thread."""
        return [(number, rid, base) for number, (rid, base) in list(self._rows.items())]

    def retain(self, numbers: set[int]) -> None:
        """Forget the rids whose numbers are not among these."""
        for number in self._rows.keys() - numbers:
            rid, _ = self._rows.pop(number)
            del self._numbers[rid]
