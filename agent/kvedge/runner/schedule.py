"""The next starts in the order of their times.  It does not wait, and asks no clock."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

_SLACK = 64  # below this many, sweeping costs more than it saves


class Schedule(Generic[Key]):
    """At most one time per key.

    A time that was replaced or dropped stays in the heap until it comes up, or until such times
    outnumber the others.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Key]] = []
        self._live: dict[Key, int] = {}
        self._number = 0  # keys are not compared

    def __contains__(self, key: Key) -> bool:
        return key in self._live

    def put(self, key: Key, at_s: float) -> None:
        """Set the time of a key, in place of the one it had."""
        self._number += 1
        self._live[key] = self._number
        heapq.heappush(self._heap, (at_s, self._number, key))
        if len(self._heap) > 2 * len(self._live) + _SLACK:
            self._heap = [item for item in self._heap if self._live.get(item[2]) == item[1]]
            heapq.heapify(self._heap)

    def drop(self, key: Key) -> None:
        """Forget a key; does nothing where it has no time."""
        self._live.pop(key, None)

    def next_s(self) -> float | None:
        """Return the first time, None where there is none."""
        while self._heap and self._live.get(self._heap[0][2]) != self._heap[0][1]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take_due(self, now_s: float) -> list[Key]:
        """Remove and return the keys whose time has come, in its order."""
        due = []
        while (at_s := self.next_s()) is not None and at_s <= now_s:
            _, _, key = heapq.heappop(self._heap)
            del self._live[key]
            due.append(key)
        return due
