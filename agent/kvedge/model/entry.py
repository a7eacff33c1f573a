"""One place in the tree: its value or absence, its chain, its tock; and the packed form.

Each entry is kept as one bytes object, which is a third of the memory that objects take.  The
form, big-endian:

    tock u64 | flags and number of links u8 | links, u64 each | fence | the packed value

A link is the number of a rid (24 bit, see `RidTable`) and a tick (40 bit).  Flag 80 says that
there is a value; without it the entry is a tombstone.  Bytes compare like tocks, and a value is
read without looking at the rest.  Flag 40 says that there is a fence: number u64, length of the
job's name u8, the name.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from kvedge.limits import CHAIN_LINKS_MAX
from kvedge.model.chain import Chain
from kvedge.model.path import Path
from kvedge.model.stamp import Dot, Rid, RidTable
from kvedge.model.value import MISSING, Missing

_HAS_VALUE = 0x80
_HAS_FENCE = 0x40
_COUNT = 0x0F
_HEAD = Struct(">QB")
_LINKS = [Struct(f">{n}Q") for n in range(CHAIN_LINKS_MAX + 1)]
_HEADS = [Struct(f">QB{n}Q") for n in range(CHAIN_LINKS_MAX + 1)]
TICK_BITS = 40
TICK_MAX = (1 << TICK_BITS) - 1


_FENCE = Struct(">QB")
JOB_MAX_BYTES = 255


class Fence(NamedTuple):
    """Under which right a job has written: the number rises with each lease of the job."""

    job: str
    number: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A place in the tree, unpacked.

    Attributes:
        tock: When it was changed.
        chain: By which changes; never empty.
        value: The packed value, MISSING for a tombstone.
        fence: Under which right it was written; None mostly.  It has no part in a merge.
    """

    tock: int
    chain: Chain
    value: bytes | Missing
    fence: Fence | None = None

    @property
    def dot(self) -> Dot:
        """The change that made it."""
        return self.chain[0]

    @property
    def rank(self) -> tuple[int, Rid, int]:
        """What decides a merge: the larger one wins."""
        dot = self.chain[0]
        return self.tock, dot.rid, dot.tick


@dataclass(frozen=True, slots=True)
class Record:
    """One change of the tree: a path and the entry it gets."""

    path: Path
    entry: Entry


def link(number: int, tick: int) -> int:
    """Return the packed link of a rid's number and a tick."""
    return number << TICK_BITS | tick


def link_parts(packed_link: int) -> tuple[int, int]:
    """Return the rid's number and the tick of a packed link."""
    return packed_link >> TICK_BITS, packed_link & TICK_MAX


def join(
    tock: int, links: tuple[int, ...], value: bytes | Missing, fence: Fence | None = None
) -> bytes:
    """Return the packed entry of these parts."""
    count = len(links)
    if fence is None:
        if value is MISSING:
            return _HEADS[count].pack(tock, count, *links)
        return _HEADS[count].pack(tock, count | _HAS_VALUE, *links) + value
    flags = count | _HAS_FENCE | (0 if value is MISSING else _HAS_VALUE)
    job = fence.job.encode()
    head = _HEADS[count].pack(tock, flags, *links) + _FENCE.pack(fence.number, len(job)) + job
    return head if value is MISSING else head + value


def with_links(packed: bytes, links: tuple[int, ...]) -> bytes:
    """Return a packed entry with as many other links in the place of its own."""
    return packed[:9] + _LINKS[len(links)].pack(*links) + packed[9 + 8 * len(links) :]


def pack_entry(entry: Entry, rids: RidTable) -> bytes:
    """Return the packed form of an entry, with new rids entered in the table."""
    links = tuple(link(rids.number(dot.rid), dot.tick) for dot in entry.chain)
    return join(entry.tock, links, entry.value, entry.fence)


def unpack_entry(packed: bytes, rids: RidTable) -> Entry:
    """Return the entry with this packed form."""
    return Entry(tock_of(packed), chain_of(packed, rids), value_of(packed), fence_of(packed))


def tock_of(packed: bytes) -> int:
    """Return the tock of a packed entry."""
    return int.from_bytes(packed[:8], "big")


def is_live(packed: bytes) -> bool:
    """Tell whether a packed entry has a value, that is, is no tombstone."""
    return packed[8] >= _HAS_VALUE


def value_of(packed: bytes) -> bytes | Missing:
    """Return the packed value of a packed entry, MISSING for a tombstone."""
    flags = packed[8]
    if flags < _HAS_VALUE:
        return MISSING
    start = 9 + 8 * (flags & _COUNT)
    return packed[_fence_end(packed, start) if flags & _HAS_FENCE else start :]


def has_fence(packed: bytes) -> bool:
    """Tell whether a packed entry was written under a fence."""
    return bool(packed[8] & _HAS_FENCE)


def fence_of(packed: bytes) -> Fence | None:
    """Return the fence of a packed entry, None where it has none."""
    flags = packed[8]
    if not flags & _HAS_FENCE:
        return None
    start = 9 + 8 * (flags & _COUNT)
    number, _ = _FENCE.unpack_from(packed, start)
    return Fence(packed[start + _FENCE.size : _fence_end(packed, start)].decode(), number)


def _fence_end(packed: bytes, start: int) -> int:
    return start + _FENCE.size + packed[start + _FENCE.size - 1]


def links_of(packed: bytes) -> tuple[int, ...]:
    """Return the packed links of a packed entry, newest first."""
    return _LINKS[packed[8] & _COUNT].unpack_from(packed, 9)


def chain_of(packed: bytes, rids: RidTable) -> Chain:
    """Return the chain of a packed entry."""
    rid = rids.rid
    return tuple([Dot(rid(known >> TICK_BITS), known & TICK_MAX) for known in links_of(packed)])


def extended_links(packed: bytes | None, new: int, rids: RidTable) -> tuple[int, ...]:
    """Return the links of an entry after one more change; `chain.extend` on packed links."""
    if packed is None:
        return (new,)
    old = links_of(packed)
    node = rids.node(new >> TICK_BITS)
    rest = [known for known in old if rids.node(known >> TICK_BITS) != node]
    return (new, *rest[: CHAIN_LINKS_MAX - 1])
