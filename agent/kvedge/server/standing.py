"""How a server stands in its network: the answer to `net_status`, as one map of plain values.

name        of the network; None where the server works alone
node        the server's own
connected   whether there is a connection to the broker, and `reason` why not
standing    good, unsure, regressed, expired or copying
key         whether messages are proof against forgery
servers     a map each: node, version, incarnation, seen_s, is_seen, lag, state
missing     by node the ranges of changes that we lack, [first, last] as users see them
conflicts   how many wait for somebody to look at them
refused     by cause how many messages were
held        how many changes wait, being ahead of our clock; only with a network
"""

from __future__ import annotations

from typing import Any

from kvedge.model import entry as entries
from kvedge.model.places import CONFLICTS
from kvedge.model.vector import Vector
from kvedge.protocol.membership import Membership, State
from kvedge.protocol.presence import Presence
from kvedge.server.program import program_version
from kvedge.server.store import Store
from kvedge.server.streams import CHUNK


def alone(store: Store) -> dict[str, Any]:
    """Return the status of a server that has no network."""
    return {
        "name": None,
        "node": store.rid.node,
        "connected": False,
        "reason": None,
        "standing": "good",
        "key": False,
        "servers": [ourselves(store)],
        "missing": {},
        "conflicts": conflict_count(store),
        "refused": {},
    }


def ourselves(store: Store) -> dict[str, Any]:
    """Return the row of the server itself."""
    return {
        "node": store.rid.node,
        "version": program_version() or None,
        "incarnation": store.rid.incarnation,
        "seen_s": 0.0,
        "is_seen": True,
        "lag": 0,
        "state": None,
    }


def among_peers(
    store: Store, members: Membership, presence: Presence, now: float
) -> dict[str, Any]:
    """Return the parts of the status that tell of members and of those that are there.

    Args:
        store: Ours.
        members: Who belongs to the network.
        presence: Who is there.
        now: Boottime in seconds.
    """
    heard, seen, own = presence.heard(), presence.seen(), store.rid.node
    rows = []
    for node in sorted((heard.keys() | members.records.keys()) - {own}):
        kept = members.kept.get(node)
        rid = seen.get(node)
        rows.append(
            {
                "node": node,
                "version": presence.version_of(node) or None,
                "incarnation": rid.incarnation if rid else None,
                "seen_s": now - heard[node] if node in heard else None,
                "is_seen": node in heard,
                "lag": None if kept is None else _count(store.durable.minus(kept.vector)),
                "state": _STATES[members.state(node)],
            }
        )
    us = ourselves(store) | {"state": _STATES[members.state(own)]}
    return {
        "node": own,
        "standing": members.standing.name.lower(),
        "servers": [us, *rows],
        "missing": _missing(store, members),
        "conflicts": conflict_count(store),
    }


_STATES = {State.UNKNOWN: None, State.MEMBER: "member", State.EXPIRED: "expired"}


def _missing(store: Store, members: Membership) -> dict[str, list[list[int]]]:
    """Return what members have announced and we lack, as users see ticks, by node."""
    lacking = Vector()
    for kept in members.kept.values():
        lacking.merge(kept.vector.minus(store.seen))
    found: dict[str, list[list[int]]] = {}
    for rid, ranges in lacking:
        base = store.rids.base_of(rid)
        shown = [[base + first, base + last] for first, last in ranges]
        found.setdefault(rid.node, []).extend(shown)
    return found


def _count(vector: Vector) -> int:
    return sum(last - first + 1 for _, ranges in vector for first, last in ranges)


def conflict_count(store: Store) -> int:
    """Return how many conflicts are stored."""
    count, after, base = 0, None, CONFLICTS.key
    while keys := store.tree.walk(base, after=after, count=CHUNK):
        count += sum(entries.is_live(store.get(key) or b"\0" * 9) for key in keys)
        after = keys[-1]
    return count
