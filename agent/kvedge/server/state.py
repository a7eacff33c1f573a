"""What a server has seen of whom, in the lists that the peer systems have: the answer to get_state.

Of the changes that were **known**, that is seen, an entry's newest one is **present** while the
entry has a value, and **deleted** while it is a tombstone; a later change of the same entry made
the others **superseded**.  **Missing** are changes that must exist, since a later one of the same
incarnation was seen or a peer has announced that it has them; **remote_missing** those that a
peer has not announced.

To tell present from deleted takes a walk through the tree.  It is done in slices, so that others
have their turn; what changes meanwhile may stand in the list of before or of after.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from kvedge import limits
from kvedge.model import entry as entries
from kvedge.model.stamp import Rid
from kvedge.model.vector import Ranges, Vector, normal
from kvedge.protocol.messages import GetState
from kvedge.server.store import Store

SLICE = 4096
"""Entries looked at before others get their turn: some milliseconds."""

Shown = dict[str, list[tuple[int, int]]]
"""By node, ranges of ticks as users see them: the first, and the one behind the last."""

_OF_TREE = ("superseded", "deleted", "present")


class StateReport:
    """Gathers the lists that were asked for, then hands them over."""

    def __init__(
        self,
        store: Store,
        request: GetState,
        peers: Mapping[str, Vector],
        *,
        later: Callable[[Callable[[], None]], None],
        done: Callable[[dict[str, Any]], None],
    ) -> None:
        self._store = store
        self._request = request
        self._peers = peers
        self._later = later
        self._done = done
        # Of the newest changes of entries the ticks by rid.
        self._live: dict[Rid, array[int]] = {}
        self._gone: dict[Rid, array[int]] = {}
        self._after: bytes | None = None

    def go_on(self) -> None:
        """Look at the next slice of the tree, if that is needed, or hand over."""
        keys = []
        if any(getattr(self._request, name) for name in _OF_TREE):
            keys = self._store.tree.keys_after(self._after, SLICE)
        for key in keys:
            packed = self._store.get(key)
            if packed is not None:
                self._note(packed)
        if len(keys) == SLICE:
            self._after = keys[-1]
            self._later(self.go_on)
        else:
            self._done(self._fields())

    def _note(self, packed: bytes) -> None:
        number, tick = entries.link_parts(entries.links_of(packed)[0])
        found = self._live if entries.is_live(packed) else self._gone
        found.setdefault(self._store.rids.rid(number), array("Q")).append(tick)

    def _fields(self) -> dict[str, Any]:
        """Return the lists, and how many older ranges each leaves out where it is too long."""
        store, wanted = self._store, self._request
        seen = store.seen
        live, gone = _ranges(self._live), _ranges(self._gone)
        vectors = {
            "known": dict(seen),
            "superseded": _superseded(seen, live, gone),
            "deleted": gone,
            "missing": _missing(seen, self._peers.values()),
            "present": live,
            "remote_missing": _lacked(seen, self._peers.values()),
        }
        fields: dict[str, Any] = {}
        left_out: dict[str, dict[str, int]] = {}
        for name, ranges in vectors.items():
            if getattr(wanted, name):
                fields[name], cut = _shown(ranges, store)
                left_out |= {name: cut} if cut else {}
        if wanted.nodes:
            fields["nodes"] = {rid.node: _base(store, rid) + seen.last(rid) for rid, _ in seen}
        if wanted.debug:
            fields["debug"] = _numbers(store)
        return fields | ({"left_out": left_out} if left_out else {})


def _ranges(ticks: Mapping[Rid, array[int]]) -> dict[Rid, Ranges]:
    """Return ticks as ranges."""
    return {rid: tuple(normal([(tick, tick) for tick in found])) for rid, found in ticks.items()}


def _superseded(
    seen: Vector, live: Mapping[Rid, Ranges], gone: Mapping[Rid, Ranges]
) -> dict[Rid, Ranges]:
    """Return the changes that were seen and are no entry's newest."""
    newest = {rid: normal([*live.get(rid, ()), *gone.get(rid, ())]) for rid, _ in seen}
    return {rid: tuple(_without(ranges, newest[rid])) for rid, ranges in seen}


def _without(
    ranges: Sequence[tuple[int, int]], away: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Yield what is left of ranges; one pass over both, which may be as many as entries."""
    at = 0
    for first, last in ranges:
        start = first
        while at < len(away) and away[at][1] < start:
            at += 1
        while at < len(away) and away[at][0] <= last:
            if away[at][0] > start:
                yield start, away[at][0] - 1
            start = away[at][1] + 1
            if start > last:
                break
            at += 1
        if start <= last:
            yield start, last


def _missing(seen: Vector, peers: Iterable[Vector]) -> dict[Rid, Ranges]:
    """Return the changes that must exist and were not seen."""
    missing = Vector.of({rid: ((1, seen.last(rid)),) for rid, _ in seen}).minus(seen)
    for peer in peers:
        missing = missing.union(peer.minus(seen))
    return dict(missing)


def _lacked(seen: Vector, peers: Iterable[Vector]) -> dict[Rid, Ranges]:
    """Return the changes that were seen here, and that some peer has not announced."""
    lacked = Vector()
    for peer in peers:
        lacked = lacked.union(seen.minus(peer))
    return dict(lacked)


def _base(store: Store, rid: Rid) -> int:
    return store.base if rid == store.rid else store.rids.base_of(rid)


def _shown(found: Mapping[Rid, Ranges], store: Store) -> tuple[Shown, dict[str, int]]:
    """Return ranges as users see them, and by node how many older ones did not fit."""
    shown: Shown = {}
    for rid, ranges in sorted(found.items()):
        if not ranges:
            continue
        base = _base(store, rid)
        there = shown.setdefault(rid.node, [])
        there.extend((base + first, base + last + 1) for first, last in ranges)
    share = max(1, limits.STATE_RANGES_MAX // max(1, len(shown)))
    cut = {node: len(ranges) - share for node, ranges in shown.items() if len(ranges) > share}
    return {node: ranges[-share:] for node, ranges in shown.items()}, cut


def _numbers(store: Store) -> dict[str, int]:
    tree = store.tree
    return {
        "entries": tree.live_count,
        "tombstones": len(tree) - tree.live_count,
        "writes_under_way": store.pending_count,
        "bytes_under_way": store.pending_bytes,
        "incarnations": len(store.rids),
        "refusals": store.refusals,
    }
