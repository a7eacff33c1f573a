"""The tree of places: packed entries by packed path, and the keys in order.

A subtree is a range of keys (see `path`), so following a path is one look-up, and a walk is a
slice.  Walks hand out bounded lists and go on behind a key: whoever walks may pause for as long
as it likes while others write.

What lies below None is system data: a walk from the root does not descend into it.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from kvedge.model import path as paths
from kvedge.model.entry import is_live

_BLOCK_MAX = 1024  # a list insert moves at most 8 kB


class SortedKeys:
    """An ordered set of bytes, in blocks, so that adding one stays cheap.

    Invariant: no block is empty but the only one, and `_firsts[i] == _blocks[i][0]`.
    """

    def __init__(self) -> None:
        self._blocks: list[list[bytes]] = [[]]
        self._firsts: list[bytes] = [b""]

    def add(self, key: bytes) -> None:
        """Add a key that is not in the set."""
        at = self._block_of(key)
        block = self._blocks[at]
        insort(block, key)
        if len(block) > _BLOCK_MAX:
            half = len(block) // 2
            self._blocks[at : at + 1] = [block[:half], block[half:]]
            self._firsts[at : at + 1] = [block[0], block[half]]
        else:
            self._firsts[at] = block[0]

    def extend_sorted(self, keys: list[bytes]) -> None:
        """Fill an empty set with keys that are sorted already."""
        step = _BLOCK_MAX * 3 // 4
        self._blocks = [keys[i : i + step] for i in range(0, len(keys), step)] or [[]]
        self._firsts = [block[0] if block else b"" for block in self._blocks]

    def remove(self, key: bytes) -> None:
        """Remove a key that is in the set."""
        at = self._block_of(key)
        block = self._blocks[at]
        del block[bisect_left(block, key)]
        if block:
            self._firsts[at] = block[0]
        elif len(self._blocks) > 1:
            del self._blocks[at], self._firsts[at]
        else:
            self._firsts[at] = b""

    def slice(self, start: bytes, end: bytes, count: int) -> list[bytes]:
        """Return at most `count` keys with start <= key < end, in order."""
        found: list[bytes] = []
        at = self._block_of(start)
        while at < len(self._blocks) and len(found) < count:
            block = self._blocks[at]
            low, high = bisect_left(block, start), bisect_left(block, end)
            found += block[low : min(high, low + count - len(found))]
            if high < len(block):
                break
            at += 1
        return found

    def _block_of(self, key: bytes) -> int:
        at = bisect_left(self._firsts, key)
        if at < len(self._firsts) and self._firsts[at] == key:
            return at
        return max(at - 1, 0)


class Tree:
    """Packed entries by key, tombstones included."""

    def __init__(self) -> None:
        self._entries: dict[bytes, bytes] = {}
        self._keys = SortedKeys()
        self._live = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def live_count(self) -> int:
        """How many entries have a value."""
        return self._live

    def get(self, key: bytes) -> bytes | None:
        """Return the packed entry at a key, None where there never was one."""
        return self._entries.get(key)

    def put(self, key: bytes, packed: bytes) -> None:
        """Store a packed entry."""
        old = self._entries.get(key)
        if old is None:
            self._keys.add(key)
        elif is_live(old):
            self._live -= 1
        self._live += is_live(packed)
        self._entries[key] = packed

    def fill(self, entries: dict[bytes, bytes]) -> None:
        """Take over many entries at once; the tree must be empty, the dict is not copied."""
        assert not self._entries
        self._entries = entries
        self._keys.extend_sorted(sorted(entries))
        self._live = sum(map(is_live, entries.values()))

    def drop(self, key: bytes) -> None:
        """Remove an entry that is there: a tombstone nobody needs any more."""
        if is_live(self._entries.pop(key)):
            self._live -= 1
        self._keys.remove(key)

    def items(self) -> list[tuple[bytes, bytes]]:
        """Return all keys with their packed entries, system data too, in no order."""
        return list(self._entries.items())

    def keys_after(self, after: bytes | None, count: int) -> list[bytes]:
        """Return the next keys of all, system data too, in order; see `walk`."""
        start = b"" if after is None else after + b"\0"
        return self._keys.slice(start, b"\xff", count)

    def walk(self, key: bytes, *, after: bytes | None = None, count: int) -> list[bytes]:
        """Return the next keys at and below a key, in order.

        Args:
            key: Where the subtree begins.
            after: The last key that the walk has seen; None at its start.
            count: How many keys at most; fewer come only at the end.
        """
        end = key + paths.KEY_END
        if after is not None and after != key:
            return self._keys.slice(after + b"\0", end, count)
        first = key + (paths.KEY_FIRST if key else paths.KEY_FIRST_USER)
        if after is None and key in self._entries:
            return [key, *self._keys.slice(first, end, count - 1)]
        return self._keys.slice(first, end, count)

    def children(self, key: bytes, *, after: bytes | None = None, count: int) -> list[bytes]:
        """Return the keys of the places directly below a key, stored or only passed through.

        Args:
            key: The parent.
            after: The last child that was seen; None at the start.
            count: How many at most.
        """
        end = key + paths.KEY_END
        start = key + (paths.KEY_FIRST if key else paths.KEY_FIRST_USER)
        if after is not None:
            start = after + paths.KEY_END
        found: list[bytes] = []
        while len(found) < count:
            below = self._keys.slice(start, end, 1)
            if not below:
                break
            child = below[0][: paths.element_end(below[0], len(key))]
            found.append(child)
            start = child + paths.KEY_END
        return found
