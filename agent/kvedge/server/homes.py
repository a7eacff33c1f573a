"""Homes: subtrees whose writes are all made by one node.

The entry `:n.home.PATH` holds the name of the node at which everything at and below PATH is
written; the longest such PATH counts.  Another server passes a write on, and its answer carries
the record, so that compare-and-set below a home is linearizable in the whole network.  While the
home is away, writes below it fail, reads go on.
"""

from __future__ import annotations

from kvedge.model import entry as entries
from kvedge.model import path as paths
from kvedge.model import places
from kvedge.model.path import SYSTEM
from kvedge.model.value import unpack
from kvedge.server.store import Store

HOMES = places.HOMES.key
"""Where their keys begin."""


class Homes:
    """Which node writes what."""

    def __init__(self, store: Store) -> None:
        self._nodes: dict[bytes, str] = {}
        for key, packed in store.tree.items():
            if key.startswith(HOMES):
                self.note(key, packed)

    def note(self, key: bytes, packed: bytes) -> None:
        """Take note of an entry below `:n.home`."""
        value = entries.value_of(packed)
        node = unpack(value) if isinstance(value, bytes) else None
        place = key[len(HOMES) :]
        if isinstance(node, str):
            self._nodes[place] = node
        else:
            self._nodes.pop(place, None)

    def of(self, key: bytes) -> str | None:
        """Return the node that makes the writes at a key; None for any."""
        if not self._nodes or key.startswith(SYSTEM.key):
            return None
        found = None
        for end in (0, *paths.boundaries(key)):
            found = self._nodes.get(key[:end], found)
        return found

    def within(self, key: bytes) -> list[str]:
        """Return the nodes that make the writes at a key and at places below it."""
        below = {node for place, node in self._nodes.items() if place.startswith(key)}
        at = self.of(key)
        return sorted(below if at is None else below | {at})
