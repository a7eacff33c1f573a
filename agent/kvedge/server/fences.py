"""Fences: the rights under which jobs write, checked by every server that knows them.

A fence is a number that rises with each lease of a job: one more than the largest tock that those
who grant leases had seen, so that it is newer than what the holder before has written.  A server
that knows a higher one refuses the write.  A fence has no part in a merge: the entries
`:n.fence.JOB` tell others of it, and whoever knows a higher one than such an entry holds writes it
again.  In a split a write may be accepted that should not have been; its author learns of that when
the higher fence comes, and records it.
"""

from __future__ import annotations

from kvedge.errors import FencedOff
from kvedge.model import entry as entries
from kvedge.model.entry import Fence
from kvedge.model.path import Path
from kvedge.model.places import FENCES
from kvedge.model.value import unpack
from kvedge.server.store import Store

PLACE = FENCES.key


def register_key(job: str) -> bytes:
    """Return where the highest fence of a job stands."""
    return (FENCES / job).key


class Fences:
    """The highest fence of each job that this server knows, and its own writes under fences."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, int] = {}
        self._written: dict[str, set[bytes]] = {}
        for key, packed in store.tree.items():
            self.settled(key, packed)

    def check(self, fence: Fence) -> bool:
        """Tell whether others are still to be told of a fence; none that is known is higher.

        Raises:
            FencedOff: A higher one is known.
        """
        known = self._known.get(fence.job, -1)
        if fence.number < known:
            raise FencedOff(fence.job, fence=fence.number, known=known)
        self._known[fence.job] = fence.number
        return not self._is_told(fence)

    def _is_told(self, fence: Fence) -> bool:
        """Tell whether the entry that tells others is there or under way: the disk may refuse."""
        key = register_key(fence.job)
        packed = self._store.newest(key)
        return packed is not None and _register(key, packed)[1] >= fence.number

    def settled(self, key: bytes, packed: bytes) -> None:
        """Take note of an entry that is in the tree now."""
        fence = entries.fence_of(packed)
        if fence is not None and self._store.dot_of(packed).rid.node == self._store.rid.node:
            self._written.setdefault(fence.job, set()).add(key)
        if key.startswith(PLACE):
            job, number = _register(key, packed)
            if job is not None:
                self._known[job] = max(number, self._known.get(job, -1))

    def to_tell_again(self, key: bytes, packed: bytes) -> Fence | None:
        """Return the fence to write into a register that holds a lower one; None mostly."""
        if not key.startswith(PLACE):
            return None
        job, number = _register(key, packed)
        known = -1 if job is None else self._known.get(job, -1)
        return Fence(job, known) if job is not None and known > number else None

    def late_writes(self, register: bytes, packed: bytes) -> list[tuple[bytes, bytes]]:
        """Return our own writes that were made under a fence after a higher one was given.

        Args:
            register: The key of an entry of a fence that has come.
            packed: That entry.
        """
        job, number = _register(register, packed)
        if job is None:
            return []
        ours = self._store.rid.node
        found = []
        still = set()
        for key in self._written.get(job, ()):
            written = self._store.get(key)
            fence = None if written is None else entries.fence_of(written)
            if written is None or fence is None or fence.job != job:
                continue  # somebody has written there since
            if self._store.dot_of(written).rid.node == ours:
                if fence.number < number < entries.tock_of(written):
                    found.append((key, written))  # once: not again with each higher fence
                else:
                    still.add(key)
        self._written[job] = still
        return sorted(found)


def _register(key: bytes, packed: bytes) -> tuple[str | None, int]:
    """Return job and number of a register; None where it is none."""
    elements = Path.from_key(key).elements
    value = entries.value_of(packed)
    number = unpack(value) if isinstance(value, bytes) else None
    if len(elements) != 3 or not isinstance(elements[2], str) or type(number) is not int:
        return None, -1
    return elements[2], number
