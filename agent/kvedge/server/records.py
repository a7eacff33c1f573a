"""What the store's files hold: payloads of the storage floor, to records and back.

A payload is a msgpack array whose first part says what it is:

    [0, key, packed entry]                    a record
    [1, number, node, incarnation, base]      the number that stands for a rid in this file
    [2, tock]                                 no tock above this one is shown before the next
    [3, number, first, last, ...]             ticks of a rid that were seen
    [4, node, generation]                     all generations of a node below it were seen
    [5, node, incarnation, since, rows of a vector]  what a member has, see `membership`
    [6, node, seconds]                        for how long we have not heard of a member

A snapshot has no entries that were overwritten, and a pull does not send them, so both say of
which dots they know.  The second and third kinds are vital: others depend on them, so they are
written twice.  Numbers are those of the process that wrote the file; they are translated to this
process's on loading.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from kvedge.model import entry as entries
from kvedge.model.stamp import Rid, RidTable
from kvedge.model.value import packb, unpack
from kvedge.model.vector import Vector
from kvedge.protocol.membership import Kept

_RECORD, _RID, _CEILING, _SEEN, _FLOOR, _KEPT, _UNHEARD = range(7)
_RECORD_HEAD = b"\x93\x00"


def record_payload(key: bytes, packed: bytes) -> bytes:
    """Return the payload of a record."""
    return _RECORD_HEAD + packb(key) + packb(packed)


def rid_payload(number: int, rid: Rid, base: int) -> bytes:
    """Return the payload that gives a rid its number."""
    return packb((_RID, number, rid.node, rid.incarnation, base))


def ceiling_payload(tock: int) -> bytes:
    """Return the payload that announces tocks up to this one."""
    return packb((_CEILING, tock))


def seen_payloads(seen: Vector, rids: RidTable) -> list[bytes]:
    """Return the payloads that tell which dots were seen; the rids have numbers."""
    rows = [packb((_SEEN, *row)) for row in _rows(seen, rids)]
    return rows + [packb((_FLOOR, node, floor)) for node, floor in seen.floors.items()]


def _rows(vector: Vector, rids: RidTable) -> list[tuple[int, ...]]:
    return [(rids.number(rid), *(end for ends in ranges for end in ends)) for rid, ranges in vector]


def kept_payload(node: str, kept: Kept, rids: RidTable) -> bytes:
    """Return the payload that tells what a member said it has; the rids have numbers."""
    rows = [*_rows(kept.vector, rids), *kept.vector.floors.items()]
    return packb((_KEPT, node, kept.incarnation, kept.since, rows))


def unheard_payload(node: str, seconds: float) -> bytes:
    """Return the payload that tells for how long nothing was heard of a member."""
    return packb((_UNHEARD, node, int(seconds)))


def preamble(rids: RidTable, ceiling: int) -> list[bytes]:
    """Return the vital payloads that a new file begins with."""
    return [
        *(rid_payload(number, rid, base) for number, rid, base in rids.rows()),
        ceiling_payload(ceiling),
    ]


@dataclass(slots=True)
class Loaded:
    """What the files of a store came to.

    Attributes:
        entries: Packed entries by key, ready for the tree.
        rids: The numbers that the entries use.
        seen: All dots that were found, those of overwritten entries too.
        claimed: All dots that are said to have been seen: to be believed where nothing is damaged.
        kept: What members said that they have.
        unheard_s: For how many seconds of our own running time nothing was heard of a member.
        tock: The largest tock that may have been shown.
        lost: How many records could not be understood, although their bytes were whole.
    """

    entries: dict[bytes, bytes] = field(default_factory=dict)
    rids: RidTable = field(default_factory=RidTable)
    seen: Vector = field(default_factory=Vector)
    claimed: Vector = field(default_factory=Vector)
    kept: dict[str, Kept] = field(default_factory=dict)
    unheard_s: dict[str, float] = field(default_factory=dict)
    tock: int = 0
    lost: int = 0


def load_file(into: Loaded, payloads: Iterable[bytes]) -> None:
    """Merge the payloads of one file into what was loaded so far."""
    reader = _FileReader(into)
    for payload in payloads:
        reader.take(payload)
    reader.finish()


class _FileReader:
    """Reads one file; its rid numbers are its own until translated."""

    def __init__(self, into: Loaded) -> None:
        self._into = into
        self._numbers: dict[int, int] = {}
        self._ticks: dict[int, set[int]] = {}

    def take(self, payload: bytes) -> None:
        kind, *parts = unpack(payload)
        if kind == _RECORD:
            self._take_record(*parts)
        elif kind == _RID:
            number, node, incarnation, base = parts
            self._numbers[number] = self._into.rids.number(Rid(node, incarnation), base)
        elif kind == _CEILING:
            self._into.tock = max(self._into.tock, parts[0])
        elif kind == _SEEN and parts[0] in self._numbers:
            rid = self._into.rids.rid(self._numbers[parts[0]])
            for first, last in zip(parts[1::2], parts[2::2], strict=True):
                self._into.claimed.add_range(rid, first, last)
        elif kind == _FLOOR:
            self._into.claimed.close(*parts)
        elif kind == _KEPT:
            self._take_kept(*parts)
        elif kind == _UNHEARD:
            self._into.unheard_s[parts[0]] = parts[1]

    def _take_kept(
        self, node: str, incarnation: int, since: int, rows: tuple[tuple[Any, ...], ...]
    ) -> None:
        ranges, floors = {}, {}
        for first, *rest in rows:
            if isinstance(first, str):
                floors[first] = rest[0]
            elif first in self._numbers:
                rid = self._into.rids.rid(self._numbers[first])
                ranges[rid] = tuple(zip(rest[::2], rest[1::2], strict=True))
            else:
                return  # both copies of the number are damaged: as if the member had said nothing
        self._into.kept[node] = Kept(incarnation, since, Vector.of(ranges, floors))

    def _take_record(self, key: bytes, packed: bytes) -> None:
        links = entries.links_of(packed)
        try:
            translated = tuple(map(self._translate, links))
        except KeyError:  # both copies of the number are damaged
            self._into.lost += 1
            return
        if translated != links:
            packed = entries.with_links(packed, translated)
        self._merge(key, packed)
        number, tick = entries.link_parts(translated[0])
        self._ticks.setdefault(number, set()).add(tick)

    def _translate(self, link: int) -> int:
        number, tick = entries.link_parts(link)
        return entries.link(self._numbers[number], tick)

    def _merge(self, key: bytes, packed: bytes) -> None:
        into = self._into
        old = into.entries.get(key)
        if old is None or rank_of(old, into.rids) < rank_of(packed, into.rids):
            into.entries[key] = packed
        into.tock = max(into.tock, entries.tock_of(packed))

    def finish(self) -> None:
        for number, ticks in self._ticks.items():
            rid = self._into.rids.rid(number)
            for first, last in _runs(sorted(ticks)):
                self._into.seen.add_range(rid, first, last)


def rank_of(packed: bytes, rids: RidTable) -> tuple[int, Rid, int]:
    """`Entry.rank` of a packed entry."""
    number, tick = entries.link_parts(entries.links_of(packed)[0])
    return entries.tock_of(packed), rids.rid(number), tick


def _runs(ticks: list[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for tick in ticks:
        if runs and tick == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], tick)
        else:
            runs.append((tick, tick))
    return runs


def snapshot_payloads(items: list[tuple[bytes, bytes]], told: list[bytes]) -> Iterable[bytes]:
    """Return the payloads of a snapshot: what is to be told, and the entries, as they are read."""
    return chain(told, (record_payload(key, packed) for key, packed in items))
