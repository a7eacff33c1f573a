"""Version vectors: which ticks of which rids have been seen, and the algebra on them.

A set of ticks is kept as sorted, disjoint ranges `(first, last)`, both inclusive; a server that
has missed nothing has one range per rid.  The union is what two servers know together, and
`a.minus(b)` is what b lacks.

A node gets a new incarnation at every start, so rids would pile up.  Those of which everybody
has everything are *closed*: the vector keeps a floor per node, and each dot of a generation below
it counts as seen, the ticks that got lost before anybody saw them included.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from kvedge.model.stamp import Dot, Rid, generation_of

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
    """Ranges of ticks per rid, and per node the generation below which all counts as seen."""

    def __init__(self) -> None:
        self._ranges: dict[Rid, list[tuple[int, int]]] = {}
        self._floors: dict[str, int] = {}

    @classmethod
    def of(cls, ranges: dict[Rid, Ranges], floors: dict[str, int] | None = None) -> Vector:
        """Return the vector with these ranges and floors."""
        made = cls()
        made._floors = {node: floor for node, floor in (floors or {}).items() if floor > 0}
        for rid, given in ranges.items():
            if given and not made.is_closed(rid):
                made._ranges[rid] = normal(list(given))
        return made

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Vector)
            and self._ranges == other._ranges
            and self._floors == other._floors
        )

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Vector({self._ranges!r}, {self._floors!r})"

    def __bool__(self) -> bool:
        return bool(self._ranges or self._floors)

    def __len__(self) -> int:
        return len(self._ranges) + len(self._floors)

    def __contains__(self, dot: Dot) -> bool:
        ranges = self._ranges.get(dot.rid)
        if ranges is None:
            return self.is_closed(dot.rid)
        at = bisect_right(ranges, (dot.tick, 1 << 63)) - 1
        return at >= 0 and ranges[at][0] <= dot.tick <= ranges[at][1]

    def __iter__(self) -> Iterator[tuple[Rid, Ranges]]:
        for rid in sorted(self._ranges):
            yield rid, tuple(self._ranges[rid])

    @property
    def floors(self) -> dict[str, int]:
        """The generation per node below which all counts as seen; ordered by node."""
        return dict(sorted(self._floors.items()))

    def is_closed(self, rid: Rid) -> bool:
        """Tell whether everything of a rid counts as seen."""
        floor = self._floors.get(rid.node)
        return floor is not None and generation_of(rid.incarnation) < floor

    def ranges(self, rid: Rid) -> Ranges:
        """Return the ranges of ticks seen of a rid that is not closed."""
        return tuple(self._ranges.get(rid, ()))

    def rids_of(self, node: str) -> list[Rid]:
        """Return the rids of a node of which something was seen, without the closed ones."""
        return sorted(rid for rid in self._ranges if rid.node == node)

    def last(self, rid: Rid) -> int:
        """Return the largest tick seen of a rid, 0 for none."""
        ranges = self._ranges.get(rid)
        return ranges[-1][1] if ranges else 0

    def copy(self) -> Vector:
        """Return another one with the same content."""
        made = Vector()
        made._ranges = {rid: list(ranges) for rid, ranges in self._ranges.items()}
        made._floors = dict(self._floors)
        return made

    def add(self, dot: Dot) -> None:
        """Note that a change was seen."""
        self.add_range(dot.rid, dot.tick, dot.tick)

    def add_range(self, rid: Rid, first: int, last: int) -> None:
        """Note that the changes from `first` to `last` of a rid were seen."""
        ranges = self._ranges.get(rid)
        if ranges is None:
            if not self.is_closed(rid):
                self._ranges[rid] = [(first, last)]
        elif ranges[-1][0] <= first <= ranges[-1][1] + 1:  # the usual case: the next
            ranges[-1] = (ranges[-1][0], max(ranges[-1][1], last))
        else:
            _insert(ranges, first, last)

    def close(self, node: str, floor: int) -> None:
        """Count as seen all changes of a node's generations below a floor."""
        if floor > self._floors.get(node, 0):
            self._floors[node] = floor
            for rid in [rid for rid in self._ranges if self.is_closed(rid)]:
                del self._ranges[rid]

    def merge(self, other: Vector) -> None:
        """Note all that the other has seen."""
        for node, floor in other._floors.items():
            self.close(node, floor)
        for rid, ranges in other._ranges.items():
            if rid in self._ranges:
                self._ranges[rid] = normal(self._ranges[rid] + ranges)
            elif not self.is_closed(rid):
                self._ranges[rid] = list(ranges)

    def union(self, other: Vector) -> Vector:
        """Return what either of the two has seen."""
        made = self.copy()
        made.merge(other)
        return made

    def meet(self, other: Vector) -> Vector:
        """Return what both have seen."""
        made = Vector()
        for node in self._floors.keys() & other._floors.keys():
            made._floors[node] = min(self._floors[node], other._floors[node])
        for rid in self._ranges.keys() | other._ranges.keys():
            mine, theirs = self._ranges.get(rid), other._ranges.get(rid)
            if mine is None:
                both = theirs if self.is_closed(rid) else None
            elif theirs is None:
                both = mine if other.is_closed(rid) else None
            else:
                both = _minus(mine, _minus(mine, theirs))
            if both:
                made._ranges[rid] = list(both)
        return made

    def minus(self, other: Vector) -> Vector:
        """Return the ranges that this one has seen and the other has not; no floors."""
        made = Vector()
        for rid, ranges in self._ranges.items():
            if not other.is_closed(rid):
                rest = _minus(ranges, other._ranges.get(rid, []))
                if rest:
                    made._ranges[rid] = rest
        return made

    def covers(self, other: Vector) -> bool:
        """Tell whether everything the other has seen was seen here too.

        Of what is closed there and not here that is not known: no.
        """
        floors = all(floor <= self._floors.get(n, 0) for n, floor in other._floors.items())
        return floors and not other.minus(self)


def _insert(ranges: list[tuple[int, int]], first: int, last: int) -> None:
    """Put a range among sorted ones, joined with those that it touches.

    A pull brings ticks in the order of keys, so this happens for each of its records.
    """
    start = end = bisect_right(ranges, (first, 1 << 63))
    if start and ranges[start - 1][1] >= first - 1:
        start -= 1
        first, last = ranges[start][0], max(ranges[start][1], last)
    while end < len(ranges) and ranges[end][0] <= last + 1:
        last = max(last, ranges[end][1])
        end += 1
    ranges[start:end] = [(first, last)]


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
