"""Conflicts: writes that lost to one that did not know them, recorded by their author.

Two boards that are apart may change one entry each.  The merge keeps one of both changes, the
same everywhere (see `model.merge`), and no write is lost silently: the node that made the other
one writes an entry `:.kv.conflict.NODE.TICK`, TICK being the lost change's as users see it.

    {"path": [...], "kind": "concurrent" | "unsure" | "fence", "lost": CHANGE, "won": CHANGE}
    CHANGE = {"node", "tick", "tock", "value"}     without value for a deletion;
                                                   with "cut": true where it was too large

A winner knew the loser where its chain covers it.  A chain may have forgotten the loser, since it
names five nodes, or since a deletion was reaped.  It is known then where the author of each of its
links had announced a vector with it before, and nothing of that vector has beaten the loser here;
otherwise the kind is `unsure`.  That something was seen says nothing alone: it may have lost at
once to what did not know it.  Two equal values are no conflict.

Kind `fence`: a job wrote here, in a split, under a fence below one that had been given already.
Its write was not refused, and may be the entry that is held; `won` is the entry of the fence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

from kvedge.limits import CHAIN_LINKS_MAX
from kvedge.model import entry as entries
from kvedge.model.entry import Entry, unpack_entry
from kvedge.model.merge import Conflict, merge
from kvedge.model.path import SYSTEM, elements_of
from kvedge.model.places import CONFLICTS
from kvedge.model.stamp import Dot
from kvedge.model.value import MISSING, packb, unpack
from kvedge.model.vector import Vector
from kvedge.protocol.membership import Kept
from kvedge.server.store import Pending, Store

CONFLICTS_MAX = 1000
"""Records that a node keeps of its own lost writes; the oldest go."""

_VALUE_MAX_BYTES = 64 * 1024  # of one of the two in a record


class Conflicts:
    """Finds the conflicts that this node has to record."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.look()
        self._own = CONFLICTS / store.rid.node
        self._kept = deque(self._stored())

    def _stored(self) -> Iterator[bytes]:
        """Return the keys of the records that are there, the oldest first."""
        start = self._own.key
        after = None
        while keys := self._store.tree.walk(start, after=after, count=CONFLICTS_MAX):
            after = keys[-1]
            for key in keys:  # deleted ones stay for a while, and may be many
                if key != start and entries.is_live(self._store.get(key) or b"\0" * 9):
                    yield key

    def of(self, write: Pending, kept: Mapping[str, Kept]) -> tuple[bytes, bytes] | None:
        """Return the record of a conflict, as key and packed value; None mostly.

        Args:
            write: Has been settled.
            kept: What members have announced.
        """
        if write.replaced is None or write.key.startswith((SYSTEM.key, CONFLICTS.key)):
            return None
        rids = self._store.rids
        one = unpack_entry(write.packed, rids)
        outcome = merge(unpack_entry(write.replaced, rids), one)
        loser, winner = outcome.loser, outcome.winner
        if loser is None or outcome.conflict is Conflict.NONE or loser.value == winner.value:
            return None
        if loser.dot.rid.node != self._store.rid.node:
            return None
        kind = Conflict.UNSURE if _may_have_forgotten(winner, loser) else outcome.conflict
        if kind is Conflict.UNSURE and _is_known(loser.dot, winner, kept, self._before):
            return None
        value = {
            "path": list(elements_of(write.key)),
            "kind": kind.value,
            "lost": self._change(loser),
            "won": self._change(winner),
        }
        return (self._own / rids.shown(loser.dot)[1]).key, packb(value)

    def look(self) -> None:
        """Take note of what has been seen; to be called now and then, when nothing is settling.

        A change is settled together with others and with the cut of a pull: what has been seen
        then says nothing of what was here before it.
        """
        self._before = self._store.seen.copy()

    def of_fence(self, key: bytes, packed: bytes, register: bytes) -> tuple[bytes, bytes]:
        """Return the record of a write of ours under a fence that was not the highest any more.

        Args:
            key: Where.
            packed: The write.
            register: The entry that holds the higher fence.
        """
        rids = self._store.rids
        lost = unpack_entry(packed, rids)
        value = {
            "path": list(elements_of(key)),
            "kind": "fence",
            "lost": self._change(lost),
            "won": self._change(unpack_entry(register, rids)),
        }
        return (self._own / rids.shown(lost.dot)[1]).key, packb(value)

    def _change(self, entry: Entry) -> dict[str, object]:
        node, tick = self._store.rids.shown(entry.dot)
        change: dict[str, object] = {"node": node, "tick": tick, "tock": entry.tock}
        if isinstance(entry.value, bytes):
            is_short = len(entry.value) <= _VALUE_MAX_BYTES
            change |= {"value": unpack(entry.value)} if is_short else {"cut": True}
        return change

    def added(self, key: bytes) -> Iterator[bytes]:
        """Take note of a new record; return the keys of those that are too many now."""
        self._kept.append(key)
        while len(self._kept) > CONFLICTS_MAX:
            yield self._kept.popleft()


def _is_known(loser: Dot, winner: Entry, kept: Mapping[str, Kept], seen: Vector) -> bool:
    """Tell whether all in the winner's chain had the loser before, and in its place."""
    return all(_was_there(loser, link, kept.get(link.rid.node), seen) for link in winner.chain)


def _was_there(loser: Dot, link: Dot, told: Kept | None, seen: Vector) -> bool:
    if told is None or loser not in told.vector:
        return False
    last = told.vector.last(link.rid)
    is_before = last < link.tick and (last > 0 or told.incarnation <= link.rid.incarnation)
    return is_before and seen.covers(told.vector)


def _may_have_forgotten(winner: Entry, loser: Entry) -> bool:
    """Tell whether a chain that does not cover a change may be of somebody who knew it."""
    named = {link.rid.node for link in winner.chain}
    is_full = len(winner.chain) >= CHAIN_LINKS_MAX
    return loser.dot.rid.node not in named and (is_full or loser.value is MISSING)
