"""Entries: the packed form and its parts, and what follows one."""

from __future__ import annotations

import pytest
from hypothesis import example, given

from kvedge.limits import CHAIN_LINKS_MAX
from kvedge.model.chain import extend
from kvedge.model.entry import (
    TICK_MAX,
    Entry,
    chain_of,
    extended_links,
    is_live,
    join,
    link,
    link_parts,
    links_of,
    pack_entry,
    tock_of,
    unpack_entry,
    value_of,
)
from kvedge.model.stamp import TOCK_MAX, Dot, Rid, RidTable
from kvedge.model.value import MISSING

A1 = Dot(Rid("a", 1), 1)
NUMBER_MAX = (1 << 24) - 1


@given(...)
@example(Entry(TOCK_MAX, (Dot(Rid("a", 1), TICK_MAX),), b"\xc0"))
@example(Entry(0, tuple(Dot(Rid(node, 1), 1) for node in "abcde"), MISSING))
def test_packed_and_unpacked_are_inverse(entry: Entry) -> None:
    rids = RidTable()
    packed = pack_entry(entry, rids)
    assert unpack_entry(packed, rids) == entry
    assert pack_entry(entry, rids) == packed


@given(...)
def test_parts_of_a_packed_entry(entry: Entry) -> None:
    rids = RidTable()
    packed = pack_entry(entry, rids)
    assert tock_of(packed) == entry.tock
    assert value_of(packed) == entry.value
    assert chain_of(packed, rids) == entry.chain
    assert is_live(packed) == (entry.value is not MISSING)
    assert join(tock_of(packed), links_of(packed), value_of(packed)) == packed
    value = b"" if entry.value is MISSING else entry.value
    assert len(packed) == 9 + 8 * len(entry.chain) + len(value)


@given(...)
def test_bytes_compare_like_tocks(one: Entry, other: Entry) -> None:
    rids = RidTable()
    packed = pack_entry(one, rids), pack_entry(other, rids)
    assert one.tock >= other.tock or packed[0] < packed[1]


@given(...)
def test_extended_links_are_the_extended_chain(entry: Entry, dot: Dot) -> None:
    rids = RidTable()
    packed = pack_entry(entry, rids)
    new = link(rids.number(dot.rid), dot.tick)
    links = extended_links(packed, new, rids)
    assert chain_of(join(0, links, MISSING), rids) == extend(entry.chain, dot)
    assert extended_links(None, new, rids) == (new,)


@pytest.mark.parametrize("number", [0, 1, NUMBER_MAX])
@pytest.mark.parametrize("tick", [1, TICK_MAX])
def test_link_holds_number_and_tick(number: int, tick: int) -> None:
    assert link_parts(link(number, tick)) == (number, tick)


def test_packed_form_stays_as_it_is_on_disk() -> None:
    rids = RidTable()
    rids.number(Rid("z", 9))
    entry = Entry(0x0102, (Dot(Rid("a", 1), 5), Dot(Rid("z", 9), 7)), b"\xa1v")
    packed = pack_entry(entry, rids)
    assert packed.hex() == "00000000000001028200000100000000050000000000000007a176"
    tombstone = pack_entry(Entry(3, (A1,), MISSING), RidTable())
    assert tombstone.hex() == "0000000000000003010000000000000001"


@given(...)
def test_rank_and_dot(entry: Entry) -> None:
    assert entry.dot == entry.chain[0]
    assert entry.rank == (entry.tock, entry.dot.rid, entry.dot.tick)
    assert len(entry.chain) <= CHAIN_LINKS_MAX
