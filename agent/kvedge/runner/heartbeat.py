"""A counter in memory that two processes share: one beats, the other sees whether it still does.

It is made before the fork, needs no file, and costs no system call.
"""

from __future__ import annotations

import mmap
import struct

_COUNT = struct.Struct("Q")


class Heartbeat:
    """One counter, with one writer."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)  # shared with the children of a fork

    def beat(self) -> None:
        """Count on."""
        _COUNT.pack_into(self._memory, 0, self.count + 1)

    @property
    def count(self) -> int:
        """How often it has beaten."""
        count: int = _COUNT.unpack_from(self._memory)[0]
        return count


class Silence:
    """Counts how often in a row a heartbeat was looked at and had not gone on.

    Looks are counted and not seconds: a board that slept, or had no time for anybody, did not look
    either.
    """

    def __init__(self, looks_max: int) -> None:
        self._looks_max = looks_max
        self._looks = 0
        self._count = -1

    def is_long(self, count: int) -> bool:
        """Look at a heartbeat's count; tell whether it has stood still for too long."""
        self._looks = self._looks + 1 if count == self._count else 0
        self._count = count
        return self._looks >= self._looks_max
