"""Entries that were written under a fence: the packed form, and what does not look at it."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvedge.limits import CHAIN_LINKS_MAX
from kvedge.model.entry import (
    JOB_MAX_BYTES,
    Entry,
    Fence,
    extended_links,
    fence_of,
    has_fence,
    is_live,
    join,
    link,
    links_of,
    pack_entry,
    tock_of,
    unpack_entry,
    value_of,
    with_links,
)
from kvedge.model.merge import merge
from kvedge.model.stamp import TOCK_MAX, Dot, Rid, RidTable
from kvedge.model.value import MISSING, Missing

_JOBS = st.text(min_size=1, max_size=20) | st.just("ü" * (JOB_MAX_BYTES // 2) + "x")
FENCES = st.none() | st.builds(
    Fence,
    _JOBS.filter(lambda job: not any("\ud800" <= c <= "\udfff" for c in job)),
    st.integers(0, 3) | st.integers(0, TOCK_MAX),
)
LINKS = st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=CHAIN_LINKS_MAX).map(tuple)
VALUES = st.just(MISSING) | st.binary(min_size=1, max_size=300)


def fenced(entry: Entry, fence: Fence | None) -> Entry:
    return Entry(entry.tock, entry.chain, entry.value, fence)


@given(entry=..., fence=FENCES)
@example(Entry(0, (Dot(Rid("a", 1), 1),), MISSING), Fence("j", TOCK_MAX))
def test_packed_and_unpacked_are_inverse(entry: Entry, fence: Fence | None) -> None:
    rids = RidTable()
    packed = pack_entry(fenced(entry, fence), rids)
    assert unpack_entry(packed, rids) == fenced(entry, fence)
    assert pack_entry(unpack_entry(packed, rids), rids) == packed


@given(tock=st.integers(0, TOCK_MAX), links=LINKS, value=VALUES, fence=FENCES)
def test_each_part_is_read_alone(
    tock: int, links: tuple[int, ...], value: bytes | Missing, fence: Fence | None
) -> None:
    packed = join(tock, links, value, fence)
    assert tock_of(packed) == tock
    assert links_of(packed) == links
    assert value_of(packed) == value
    assert fence_of(packed) == fence
    assert has_fence(packed) == (fence is not None)
    assert is_live(packed) == (value is not MISSING)


@given(data=st.data(), links=LINKS, value=VALUES, fence=FENCES)
def test_other_links_change_nothing_else(
    data: st.DataObject, links: tuple[int, ...], value: bytes | Missing, fence: Fence | None
) -> None:
    others = tuple(data.draw(st.integers(0, (1 << 64) - 1)) for _ in links)
    assert with_links(join(7, links, value, fence), others) == join(7, others, value, fence)


@given(entry=..., other=..., fence=FENCES, other_fence=FENCES)
def test_a_fence_has_no_part_in_a_merge(
    entry: Entry, other: Entry, fence: Fence | None, other_fence: Fence | None
) -> None:
    plain = merge(entry, other)
    found = merge(fenced(entry, fence), fenced(other, other_fence))
    assert found.winner.rank == plain.winner.rank
    assert found.conflict == plain.conflict


@given(entry=..., fence=FENCES)
def test_a_write_without_a_fence_takes_it_away(entry: Entry, fence: Fence | None) -> None:
    rids = RidTable()
    packed = pack_entry(fenced(entry, fence), rids)
    new = link(rids.number(Rid("new", 1)), 1)
    assert extended_links(packed, new, rids) == extended_links(pack_entry(entry, rids), new, rids)


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (b"\xa1v", "0000000000000003c10000000000000001" "0000000000000007" "03" "6a6f62" "a176"),
        (MISSING, "0000000000000003410000000000000001" "0000000000000007" "03" "6a6f62"),
    ],
)  # fmt: skip
def test_packed_form_stays_as_it_is_on_disk(value: bytes, form: str) -> None:
    entry = Entry(3, (Dot(Rid("a", 1), 1),), value, Fence("job", 7))
    assert pack_entry(entry, RidTable()).hex() == form
