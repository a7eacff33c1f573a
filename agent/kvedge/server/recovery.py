"""What becomes of a tree that may not be merged: a regressed or expired member's.

Such a server has a whole copy of another one's tree, and its own.  What of its own that other one
has not seen is *saved*: written to a file, then written anew where the entry is still the one
it was based on, since somebody may have decided otherwise meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from kvedge.model.chain import Covers, covers
from kvedge.model.entry import Entry, unpack_entry
from kvedge.model.path import Path
from kvedge.model.stamp import Dot
from kvedge.model.value import MISSING
from kvedge.model.vector import Vector
from kvedge.protocol.dumpfile import DumpEntry, DumpHeader
from kvedge.server.store import Store
from kvedge.storage.dumps import write_dump

log = logging.getLogger(__name__)

_SHOWN_MAX = 20  # paths of deletions that are named


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


def save(name: str, store: Store, network: str, saved: Sequence[Saved]) -> None:
    """Write saved entries to a dump; deletions, which a dump has not, into the log.

    Raises:
        StorageError: It cannot be written.
    """
    header = DumpHeader(store.rid.node, network, tock=store.tock)
    live, gone = [], []
    for one in saved:
        chain = tuple(store.rids.shown(dot) for dot in one.entry.chain)
        if isinstance(one.entry.value, bytes):
            live.append(DumpEntry(one.key, one.entry.tock, chain, one.entry.value))
        else:
            gone.append(str(Path.from_key(one.key)))
    write_dump(name, header, live)
    log.warning("%d changes that only this board had are in %s", len(live), name)
    if gone:
        shown = ", ".join(gone[:_SHOWN_MAX])
        log.warning("it had deleted %d entries that others had not: %s", len(gone), shown)
