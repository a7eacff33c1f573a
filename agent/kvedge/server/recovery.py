"""What becomes of a tree that may not be merged: a regressed or expired member's.

Such a server has a whole copy of another one's tree, and its own.  What of its own that other one
has not seen is *saved*: written to a file, then written anew where the entry is still the one
it was based on, since somebody may have decided otherwise meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvedge.model.chain import Covers, covers
from kvedge.model.entry import Entry, unpack_entry
from kvedge.model.stamp import Dot
from kvedge.model.value import MISSING
from kvedge.model.vector import Vector
from kvedge.server.store import Store


@dataclass(frozen=True, slots=True)
class Saved:
    """An entry that only this server has."""

    key: bytes
    entry: Entry


def unsynced(store: Store, seen: Vector) -> list[Saved]:
    """Return the entries of a store that somebody with this vector has not seen, by tock."""

    def is_known(dot: Dot) -> bool:
        # A floor says nothing of the life that is running: nobody has closed that.
        if dot.rid == store.rid:
            return any(first <= dot.tick <= last for first, last in seen.ranges(dot.rid))
        return dot in seen

    found = [
        Saved(key, unpack_entry(packed, store.rids))
        for key, packed in store.tree.items()
        if not is_known(store.dot_of(packed))
    ]
    return sorted(found, key=lambda saved: (saved.entry.tock, saved.key))


def may_be_applied(saved: Saved, store: Store) -> bool:
    """Tell whether the entry is still the one that a saved write was based on."""
    packed = store.newest(saved.key)
    if packed is None:
        return saved.entry.value is not MISSING and len(saved.entry.chain) == 1
    return covers(saved.entry.chain, store.dot_of(packed)) is Covers.YES
