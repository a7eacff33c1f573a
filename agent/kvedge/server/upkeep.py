"""What a server does for its own tree in quiet moments, a slice at a time.

- Tombstones that every member has are *reaped*; see `protocol.membership` for when that is.
- Incarnations that every member has whole are *closed*, so that vectors stay short.
- The tree is *recounted*: what memory has lost shows in the digests, and peers give it back.
- Rids that nothing names any more are forgotten.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from kvedge.model import entry as entries
from kvedge.model.vector import Vector
from kvedge.protocol.membership import Membership
from kvedge.server.peers import StoreShelf
from kvedge.server.store import Store

log = logging.getLogger(__name__)

SLICE = 1000
"""Entries looked at in one call: about a millisecond."""

RECOUNT_INTERVAL_S = 600.0
"""Between two looks at the whole tree: memory loses little, and a small board has other work."""

REVIEW_INTERVAL_S = 1.0
"""How often it is looked whether more may go."""


class Upkeep:
    """Keeps one server's tree and vectors short, and sees that they are right.

    Args:
        store: The tree.
        shelf: Its digests; None where nobody compares them.
        members: Knows what may go; None for a server that has no network.
        is_awaited: Tells whether somebody still has to be told of the deletion at a key.
        now: Boottime in seconds.
        recount_interval_s: Between two looks at the whole tree.
    """

    def __init__(
        self,
        store: Store,
        shelf: StoreShelf | None,
        members: Membership | None,
        is_awaited: Callable[[bytes], bool],
        now: float,
        *,
        recount_interval_s: float = RECOUNT_INTERVAL_S,
    ) -> None:
        self._store = store
        self._shelf = shelf
        self._members = members
        self._is_awaited = is_awaited
        self._stable: Vector | None = None
        self._was_held_back = False
        self._to_reap: deque[bytes] = deque()
        self._review_s = now
        self._recount_interval_s = recount_interval_s
        self._recount_s = now + recount_interval_s
        self._after: bytes | None = None
        self._numbers: set[int] | None = None

    def tick(self, now: float) -> None:
        """Do the next slice of whatever is due."""
        if not self._to_reap and now >= self._review_s:
            self._review_s = now + REVIEW_INTERVAL_S
            self._review()
        self._reap()
        if self._numbers is not None or now >= self._recount_s:
            self._look(now)

    def _review(self) -> None:
        """See which tombstones and incarnations may go."""
        durable = self._store.durable
        members = self._members
        if members is not None and (floors := members.closable(durable)):
            self._store.close(floors)
        stable = durable if members is None else members.stable(durable)
        if stable is None or not (self._store.tombstones and self._is_worth_it(stable)):
            return
        self._stable, self._was_held_back = stable.copy(), False
        self._to_reap.extend(self._store.tombstones)

    def _is_worth_it(self, stable: Vector) -> bool:
        """Tell whether more may go than when it was tried last."""
        return self._was_held_back or stable != self._stable

    def _reap(self) -> None:
        for _ in range(min(SLICE, len(self._to_reap))):
            key = self._to_reap.popleft()
            assert self._stable is not None
            if self._is_awaited(key):
                self._was_held_back = True
            else:
                self._store.reap(key, self._stable)

    def _look(self, now: float) -> None:
        """Look at the next entries of the tree."""
        if self._numbers is None:
            self._numbers, self._after = set(), None
            self._store.note_numbers()
        keys = self._store.tree.keys_after(self._after, SLICE)
        for key in keys:
            packed = self._store.get(key)
            assert packed is not None
            self._numbers.update(link >> entries.TICK_BITS for link in entries.links_of(packed))
        is_right = self._shelf is None or self._shelf.recount(keys)
        if keys:
            self._after = keys[-1]
            return
        self._forget_rids(self._numbers)
        self._numbers, self._recount_s = None, now + self._recount_interval_s
        if not is_right:
            log.error("entries were lost in memory: they are asked of other servers")

    def _forget_rids(self, used: set[int]) -> None:
        rids = self._store.rids
        for kept in self._members.kept.values() if self._members else ():
            used.update(rids.number(rid) for rid, _ in kept.vector if rids.knows(rid))
        self._store.retain_numbers(used)
