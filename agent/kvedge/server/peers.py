"""The store as other servers see it: what was seen, what is held, what somebody lacks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Set

from kvedge.model import entry as entries
from kvedge.model.buckets import Buckets, Recount, bucket_of, rank_if_live
from kvedge.model.stamp import Rid, RidTable
from kvedge.model.vector import Vector
from kvedge.protocol.batches import Carried
from kvedge.protocol.replication import carried_bytes
from kvedge.server.guard import ClockGuard
from kvedge.server.store import Pending, Store

_LOOKED_AT_MAX = 8192
"""Entries that one part of a pull looks at: some milliseconds, then others have their turn."""


class StoreShelf:
    """Implements `kvedge.protocol.replication.Shelf` on a store.

    Call `settled` for every write that the store has confirmed.

    Args:
        store: The store.
        guard: Holds back what is ahead of its time.
    """

    def __init__(self, store: Store, guard: ClockGuard | None = None) -> None:
        self._store = store
        self.guard = guard or ClockGuard()
        self._recount: Recount | None = None
        self._buckets = Buckets()
        for key, packed in store.tree.items():
            self._buckets.replace(key, None, rank_if_live(packed, store.rids))

    @property
    def seen(self) -> Vector:
        """All dots whose entries are in the tree, or newer ones in their places."""
        return self._store.seen

    @property
    def heard(self) -> Vector:
        """The same, and what is held back although it has come."""
        return self._store.seen.union(self.guard.dots) if len(self.guard) else self._store.seen

    @property
    def taken(self) -> Vector:
        """All dots that were received, those on their way to the disk included."""
        return self._store.taken

    @property
    def refusals(self) -> int:
        """How often records were forgotten since the disk refused them."""
        return self._store.refusals

    def base(self, rid: Rid) -> int:
        """Return what is added to the ticks of a rid to show them."""
        return self._store.base if rid == self._store.rid else self._store.rids.base_of(rid)

    def root(self) -> bytes:
        """Return a hash over the live entries."""
        return self._buckets.root()

    def digests(self) -> bytes:
        """Return the digests of all buckets of live entries."""
        return self._buckets.digests()

    def settled(self, write: Pending) -> None:
        """Count what a write has changed in the tree."""
        if write.has_won:
            old = rank_if_live(write.replaced, self._store.rids)
            new = rank_if_live(write.packed, self._store.rids)
            self._buckets.replace(write.key, old, new)
            if self._recount is not None:
                self._recount.replace(write.key, old, new)

    def recount(self, keys: list[bytes]) -> bool:
        """Look what is really there at the next keys; at the end tell whether all was right.

        Args:
            keys: The next ones of the tree; none at the end.

        Returns:
            False where the tree does not hold what it was given.  From then on the digests tell
            what it does hold, so that peers see it and repair it.
        """
        if self._recount is None:
            self._recount = Recount()
        if keys:
            tree, rids = self._store.tree, self._store.rids
            found = ((key, rank_if_live(tree.get(key), rids)) for key in keys)
            self._recount.count(found, upto=keys[-1])
            return True
        counted, self._recount = self._recount.result(), None
        is_right = counted == self._buckets
        self._buckets = counted
        return is_right

    def carried(self, key: bytes, packed: bytes) -> Carried:
        """Return an entry in the form in which it travels."""
        chain = entries.chain_of(packed, self._store.rids)
        tock, value = entries.tock_of(packed), entries.value_of(packed)
        return Carried(key, tock, chain, value, entries.fence_of(packed))

    def lacking(
        self, vector: Vector, *, after: bytes | None, bytes_max: int
    ) -> tuple[list[Carried], bytes | None]:
        """Return entries whose newest change a vector does not have; see the Protocol."""
        starts, ends = _packed_ranges(vector, self._store.rids)

        def is_wanted(_: bytes, packed: bytes) -> bool:
            link = entries.links_of(packed)[0]
            at = bisect_right(starts, link) - 1
            return at < 0 or link > ends[at]

        return self._part(is_wanted, after, bytes_max)

    def in_buckets(
        self, buckets: Set[int], *, after: bytes | None, bytes_max: int
    ) -> tuple[list[Carried], bytes | None]:
        """Return the entries in some buckets; see the Protocol."""
        return self._part(lambda key, _: bucket_of(key) in buckets, after, bytes_max)

    def _part(
        self, is_wanted: Callable[[bytes, bytes], bool], after: bytes | None, bytes_max: int
    ) -> tuple[list[Carried], bytes | None]:
        """Return the next entries of some kind, and the key to go on behind."""
        found: list[Carried] = []
        size = 0
        keys = self._store.tree.keys_after(after, _LOOKED_AT_MAX)
        for key in keys:
            packed = self._store.get(key)
            if packed is None or not is_wanted(key, packed):
                continue
            record = self.carried(key, packed)
            size += carried_bytes(record)
            if found and size > bytes_max:
                return found, found[-1].key
            found.append(record)
        return found, keys[-1] if len(keys) == _LOOKED_AT_MAX else None


def _packed_ranges(vector: Vector, rids: RidTable) -> tuple[list[int], list[int]]:
    """Return the first and the last links of what was seen, sorted, as packed entries have them.

    A look at a whole tree asks for each entry whether it is among them.
    """
    found: list[tuple[int, int]] = []
    for number, rid, _ in rids.rows():
        closed = ((0, entries.TICK_MAX),) if vector.is_closed(rid) else ()
        for first, last in closed or vector.ranges(rid):
            found.append((entries.link(number, first), entries.link(number, last)))
    found.sort()
    return [first for first, _ in found], [last for _, last in found]
