"""The store as other servers see it: what was seen, what is held, what somebody lacks."""

from __future__ import annotations

from kvedge.model import entry as entries
from kvedge.model.buckets import Buckets, rank_if_live
from kvedge.model.stamp import Dot, Rid
from kvedge.model.vector import Vector
from kvedge.protocol.batches import Carried
from kvedge.protocol.replication import carried_bytes
from kvedge.server.store import Pending, Store

_LOOKED_AT_MAX = 4096
"""Entries that one part of a pull looks at: some milliseconds, then others have their turn."""


class StoreShelf:
    """Implements `kvedge.protocol.replication.Shelf` on a store.

    Call `settled` for every write that the store has confirmed.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._buckets = Buckets()
        for key, packed in store.tree.items():
            self._buckets.replace(key, None, rank_if_live(packed, store.rids))

    @property
    def seen(self) -> Vector:
        """All dots whose entries are in the tree, or newer ones in their places."""
        return self._store.seen

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

    def settled(self, write: Pending) -> None:
        """Count what a write has changed in the tree."""
        if write.has_won:
            old = rank_if_live(write.replaced, self._store.rids)
            new = rank_if_live(write.packed, self._store.rids)
            self._buckets.replace(write.key, old, new)

    def carried(self, key: bytes, packed: bytes) -> Carried:
        """Return an entry in the form in which it travels."""
        chain = entries.chain_of(packed, self._store.rids)
        return Carried(key, entries.tock_of(packed), chain, entries.value_of(packed))

    def lacking(
        self, vector: Vector, *, after: bytes | None, bytes_max: int
    ) -> tuple[list[Carried], bytes | None]:
        """Return entries whose newest change a vector does not have; see the Protocol."""
        store = self._store
        found: list[Carried] = []
        size = 0
        keys = store.tree.keys_after(after, _LOOKED_AT_MAX)
        for key in keys:
            packed = store.get(key)
            assert packed is not None
            number, tick = entries.link_parts(entries.links_of(packed)[0])
            if Dot(store.rids.rid(number), tick) in vector:
                continue
            record = self.carried(key, packed)
            size += carried_bytes(record)
            if found and size > bytes_max:
                return found, found[-1].key
            found.append(record)
        return found, keys[-1] if len(keys) == _LOOKED_AT_MAX else None
