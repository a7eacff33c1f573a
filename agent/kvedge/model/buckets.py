"""Bucket digests: what two servers compare to find an entry that only one of them holds.

Equal version vectors should mean equal trees.  The digests check that this is so, and where it
is not they say in which of 256 buckets to look, so that the repair of one lost entry in 100,000
moves some 400 stamps.

An entry is hashed as (path, tock, rid, tick): the same dot has the same bytes everywhere, so the
value adds nothing, and a reading of any size costs the same.  Only live entries count, since
each server drops its tombstones in its own time.  The rid is hashed by node and incarnation,
never by the number that this process gave to it.

A bucket's digest is the sum of its entries' hashes modulo 2^64: the additive multiset hash of
Bellare and Micciancio ("A New Paradigm for Collision-Free Hashing", Eurocrypt 1997).  A sum does
not depend on order, and an entry is taken out by subtraction, so each change costs one or two
hashes (BLAKE2b, RFC 7693, which has a field for its purpose) and no look at the rest.  It is not
XOR, under which an entry counted twice by mistake would vanish.  Somebody who may choose entries
freely could construct two sets with one sum; there is nothing to gain by it, for both servers
would have to be given different sets first.

Maintained digests tell what *should* be in the tree.  `Recount` tells what is, a slice at a
time: without it an entry lost from memory would go unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from struct import Struct
from zlib import crc32

from kvedge.model.entry import is_live, link_parts, tock_of
from kvedge.model.stamp import Rid, RidTable

BUCKETS = 256
"""2 kB tell all digests; a bucket of a large tree (100,000 entries) has 400 stamps, 10 kB."""

DIGEST_BYTES = 8
"""A difference goes unnoticed once in 2^64; it takes no more, nobody being able to aim."""

DIGESTS_BYTES = BUCKETS * DIGEST_BYTES
"""What `Buckets.digests` returns: a codec checks what it receives against it."""

Rank = tuple[int, Rid, int]
"""Tock, rid, tick: what decides a merge, and all that a digest knows of an entry."""

_MODULUS_MASK = (1 << 8 * DIGEST_BYTES) - 1
_STAMP = Struct(">QQQB")
_DIGESTS = Struct(f">{BUCKETS}Q")
_FIRST_LINK = Struct(">Q")
_FIRST_LINK_AT = 9
# Copying a prepared state takes a third less time than setting one up.
_ENTRY_HASH = blake2b(digest_size=DIGEST_BYTES, person=b"kvedge entry")
_ROOT_HASH = blake2b(digest_size=DIGEST_BYTES, person=b"kvedge buckets")


def bucket_of(key: bytes) -> int:
    """Return the number of the bucket that holds the entry at a key.

    CRC-32 spreads well enough: a bucket that is fuller than others only costs a longer repair.
    """
    return crc32(key) % BUCKETS


def rank_if_live(packed: bytes | None, rids: RidTable) -> Rank | None:
    """Return the rank of a packed entry, None for a tombstone or where there is no entry."""
    if packed is None or not is_live(packed):
        return None
    number, tick = link_parts(_FIRST_LINK.unpack_from(packed, _FIRST_LINK_AT)[0])
    return tock_of(packed), rids.rid(number), tick


def entry_digest(key: bytes, rank: Rank) -> int:
    """Return the hash of one live entry, as a number below 2^64."""
    tock, rid, tick = rank
    node = rid.node.encode()
    digest = _ENTRY_HASH.copy()
    # Lengths are fixed or told, and the key comes last: no two entries give the same bytes.
    digest.update(_STAMP.pack(tock, tick, rid.incarnation, len(node)) + node + key)
    return int.from_bytes(digest.digest(), "big")


class Buckets:
    """The digests of a set of live entries, kept while it changes."""

    def __init__(self) -> None:
        self._sums = [0] * BUCKETS

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Buckets) and self._sums == other._sums

    __hash__ = None  # type: ignore[assignment]  # it changes

    def add(self, key: bytes, rank: Rank) -> None:
        """Count an entry that was not counted."""
        bucket = bucket_of(key)
        self._sums[bucket] = (self._sums[bucket] + entry_digest(key, rank)) & _MODULUS_MASK

    def remove(self, key: bytes, rank: Rank) -> None:
        """Count an entry no longer; undoes `add`."""
        bucket = bucket_of(key)
        self._sums[bucket] = (self._sums[bucket] - entry_digest(key, rank)) & _MODULUS_MASK

    def replace(self, key: bytes, old: Rank | None, new: Rank | None) -> None:
        """Count `new` at a key instead of `old`; None stands for no live entry."""
        if old is not None:
            self.remove(key, old)
        if new is not None:
            self.add(key, new)

    def digests(self) -> bytes:
        """Return the digests of all buckets, for a peer's `diff`."""
        return _DIGESTS.pack(*self._sums)

    def root(self) -> bytes:
        """Return the hash over all digests, in which two servers compare their trees at once."""
        digest = _ROOT_HASH.copy()
        digest.update(self.digests())
        return digest.digest()


def diff(mine: bytes, theirs: bytes) -> tuple[int, ...]:
    """Return the numbers of the buckets that differ, ascending.

    Args:
        mine: What `Buckets.digests` returns here.
        theirs: The same from another server; DIGESTS_BYTES, which the codec has checked.
    """
    assert len(mine) == len(theirs) == DIGESTS_BYTES
    pairs = zip(_DIGESTS.unpack(mine), _DIGESTS.unpack(theirs), strict=True)
    return tuple(number for number, (a, b) in enumerate(pairs) if a != b)


class Recount:
    """Digests of the entries that are really there, made while the tree goes on changing.

    Its owner walks the tree in the order of keys, hands over each slice, and tells it of every
    change meanwhile.  What lies behind the walk is counted, what lies ahead of it will be.
    """

    def __init__(self) -> None:
        self._counted = Buckets()
        self._after: bytes | None = None

    @property
    def after(self) -> bytes | None:
        """The last key that was counted, from which to walk on; None at the start."""
        return self._after

    def count(self, entries: Iterable[tuple[bytes, Rank | None]], *, upto: bytes) -> None:
        """Count the next slice of the tree.

        Args:
            entries: Keys with the ranks of their entries; None for tombstones.
            upto: The last key of the slice, live or not.
        """
        for key, rank in entries:
            self._counted.replace(key, None, rank)
        self._after = upto

    def replace(self, key: bytes, old: Rank | None, new: Rank | None) -> None:
        """Take note of a change of the tree, wherever the walk is."""
        if self._after is not None and key <= self._after:
            self._counted.replace(key, old, new)

    def result(self) -> Buckets:
        """Return the digests, once the walk has come to its end.

        Where they differ from the maintained ones the tree has lost or changed something in
        memory; they take their place, so that the peers see it and repair it.
        """
        return self._counted
