"""Version vectors: which ticks of which rids have been seen, and the algebra on them.

A set of ticks is kept as sorted, disjoint ranges `(first, last)`, both inclusive; a server that
has missed nothing has one range per rid.  The union is what two servers know together, and
`a.minus(b)` is what b lacks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from kvedge.model.stamp import Dot, Rid

Ranges = tuple[tuple[int, int], ...]


def normal(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges sorted, with those that touch or overlap joined."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined


class Vector:
    """Ranges of ticks per rid."""

    def __init__(self) -> None:
        self._ranges: dict[Rid, list[tuple[int, int]]] = {}

    @classmethod
    def of(cls, ranges: dict[Rid, Ranges]) -> Vector:
        """Return the vector with these ranges."""
        made = cls()
        for rid, given in ranges.items():
            if given:
                made._ranges[rid] = normal(list(given))
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vector) and self._ranges == other._ranges

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Vector({self._ranges!r})"

    def __contains__(self, dot: Dot) -> bool:
        ranges = self._ranges.get(dot.rid, [])
        at = bisect_right(ranges, (dot.tick, 1 << 63)) - 1
        return at >= 0 and ranges[at][0] <= dot.tick <= ranges[at][1]

    def __iter__(self) -> Iterator[tuple[Rid, Ranges]]:
        for rid in sorted(self._ranges):
            yield rid, tuple(self._ranges[rid])

    def ranges(self, rid: Rid) -> Ranges:
        """Return the ranges of ticks seen of a rid."""
        return tuple(self._ranges.get(rid, ()))

    def last(self, rid: Rid) -> int:
        """Return the largest tick seen of a rid, 0 for none."""
        ranges = self._ranges.get(rid)
        return ranges[-1][1] if ranges else 0

    def add(self, dot: Dot) -> None:
        """Note that a change was seen."""
        self.add_range(dot.rid, dot.tick, dot.tick)

    def add_range(self, rid: Rid, first: int, last: int) -> None:
        """Note that the changes from `first` to `last` of a rid were seen."""
        ranges = self._ranges.setdefault(rid, [])
        if ranges and ranges[-1][0] <= first <= ranges[-1][1] + 1:  # the usual case: the next
            ranges[-1] = (ranges[-1][0], max(ranges[-1][1], last))
        else:
            self._ranges[rid] = normal([*ranges, (first, last)])

    def union(self, other: Vector) -> Vector:
        """Return what either of the two has seen."""
        made = Vector()
        for rid in self._ranges.keys() | other._ranges.keys():
            both = self._ranges.get(rid, []) + other._ranges.get(rid, [])
            made._ranges[rid] = normal(both)
        return made

    def minus(self, other: Vector) -> Vector:
        """Return what this one has seen and the other has not."""
        made = Vector()
        for rid, ranges in self._ranges.items():
            rest = _minus(ranges, other._ranges.get(rid, []))
            if rest:
                made._ranges[rid] = rest
        return made

    def covers(self, other: Vector) -> bool:
        """Tell whether everything the other has seen was seen here too."""
        return not any(other.minus(self))


def _minus(ranges: list[tuple[int, int]], away: list[tuple[int, int]]) -> list[tuple[int, int]]:
    rest = []
    for first, last in ranges:
        at = first
        for low, high in away:
            if high < at or low > last:
                continue
            if low > at:
                rest.append((at, low - 1))
            at = max(at, high + 1)
        if at <= last:
            rest.append((at, last))
    return rest
