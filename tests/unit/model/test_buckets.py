"""Bucket digests: equal sets have equal digests, whatever their history; a recount finds losses."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvedge.model.buckets import (
    BUCKETS,
    DIGESTS_BYTES,
    Buckets,
    Rank,
    Recount,
    bucket_of,
    diff,
    entry_digest,
    rank_if_live,
)
from kvedge.model.entry import Entry, pack_entry
from kvedge.model.path import P
from kvedge.model.stamp import Dot, Rid, RidTable
from kvedge.model.value import MISSING

Live = dict[bytes, Rank]

KEYS = st.sampled_from([P("a").key, P("a.b").key, P("a.c").key, b""]) | st.binary(max_size=4)
RANKS = st.tuples(st.integers(0, 3), st.from_type(Rid), st.integers(1, 3))
LIVE = st.dictionaries(KEYS, RANKS, max_size=12)
CHANGES = st.lists(st.tuples(KEYS, st.none() | RANKS), max_size=30)

KEY = P("sensor.board.temperature").key
RANK: Rank = (7 << 16, Rid("board", 1 << 40 | 5), 3)


def counted(live: Live) -> Buckets:
    made = Buckets()
    for key, rank in live.items():
        made.add(key, rank)
    return made


def changed(live: Live, key: bytes, new: Rank | None) -> Rank | None:
    """Change a model of the tree; return what was there."""
    old = live.pop(key, None)
    if new is not None:
        live[key] = new
    return old


@given(LIVE, st.randoms(use_true_random=False))
def test_order_does_not_matter(live: Live, random: Random) -> None:
    items = list(live.items())
    random.shuffle(items)
    assert counted(dict(items)) == counted(live)


@given(LIVE, CHANGES)
def test_history_does_not_matter(live: Live, changes: list[tuple[bytes, Rank | None]]) -> None:
    buckets = counted(live)
    for key, new in changes:
        buckets.replace(key, changed(live, key, new), new)
    assert buckets == counted(live)
    assert buckets.root() == counted(live).root()


@given(LIVE, LIVE)
def test_equal_if_and_only_if_the_entries_are(mine: Live, theirs: Live) -> None:
    a, b = counted(mine), counted(theirs)
    is_same = mine == theirs
    assert (a == b) is is_same
    assert (a.root() == b.root()) is is_same
    assert (a.digests() == b.digests()) is is_same


@given(LIVE, LIVE)
def test_diff_names_the_buckets_with_a_difference(mine: Live, theirs: Live) -> None:
    keys = [key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)]
    found = diff(counted(mine).digests(), counted(theirs).digests())
    assert found == tuple(sorted({bucket_of(key) for key in keys}))


@given(LIVE, KEYS, RANKS)
def test_remove_undoes_add(live: Live, key: bytes, rank: Rank) -> None:
    buckets = counted(live)
    buckets.add(key, rank)
    assert buckets != counted(live)
    buckets.remove(key, rank)
    assert buckets == counted(live)


def test_twice_is_not_never() -> None:
    twice = counted({KEY: RANK})
    twice.add(KEY, RANK)
    assert twice != Buckets()


@pytest.mark.parametrize(
    ("key", "rank"),
    [
        (KEY + b"\x01", RANK),
        (KEY, (RANK[0] + 1, *RANK[1:])),
        (KEY, (RANK[0], Rid("boarD", RANK[1].incarnation), RANK[2])),
        (KEY, (RANK[0], Rid("board", RANK[1].incarnation + 1), RANK[2])),
        (KEY, (RANK[0], RANK[1], RANK[2] + 1)),
        (KEY[1:], (RANK[0], Rid("board" + chr(KEY[0]), RANK[1].incarnation), RANK[2])),
    ],
)
def test_every_part_counts(key: bytes, rank: Rank) -> None:
    assert entry_digest(key, rank) != entry_digest(KEY, RANK)


def test_form_is_the_same_in_every_version() -> None:
    """Servers of neighbouring versions compare these, so they never change within a major."""
    buckets = counted({KEY: RANK})
    assert bucket_of(KEY) == 222
    assert entry_digest(KEY, RANK) == 0x04B0A9F38E8C8E8A
    assert buckets.root().hex() == "04526e1cc9d0d55f"
    assert len(buckets.digests()) == DIGESTS_BYTES


def test_keys_spread() -> None:
    counts = [0] * BUCKETS
    for board in range(100):
        for channel in range(100):
            counts[bucket_of(P(f"sensor.board-{board}.ds18b20.{channel}").key)] += 1
    assert max(counts) < 3 * sum(counts) / BUCKETS
    assert min(counts) > 0


# --- packed entries ---------------------------------------------------------------------------


@given(st.from_type(Entry), st.lists(st.from_type(Rid)))
def test_rank_of_a_packed_entry_does_not_depend_on_numbers(entry: Entry, before: list[Rid]) -> None:
    rids = RidTable()
    for rid in before:
        rids.number(rid)
    rank = rank_if_live(pack_entry(entry, rids), rids)
    assert rank == (None if entry.value is MISSING else entry.rank)


def test_no_entry_has_no_rank() -> None:
    assert rank_if_live(None, RidTable()) is None


def test_tombstones_do_not_count() -> None:
    rids = RidTable()
    live = Entry(5, (Dot(Rid("a", 1), 1),), b"\x01")
    dead = replace(live, value=MISSING)
    old, new = (rank_if_live(pack_entry(entry, rids), rids) for entry in (live, dead))
    buckets = counted({KEY: live.rank})
    buckets.replace(KEY, old, new)
    assert buckets == Buckets()


# --- recount ----------------------------------------------------------------------------------


@given(LIVE, st.lists(st.tuples(st.integers(0, 3), CHANGES), max_size=8))
def test_recount_agrees_although_the_tree_changes(
    live: Live, rounds: list[tuple[int, list[tuple[bytes, Rank | None]]]]
) -> None:
    recount = Recount()

    def count(size: int) -> int:
        after = recount.after
        keys = sorted(key for key in live if after is None or key > after)[:size]
        if keys:
            recount.count([(key, live[key]) for key in keys], upto=keys[-1])
        return len(keys)

    for size, changes in rounds:
        count(size)
        for key, new in changes:
            recount.replace(key, changed(live, key, new), new)
    while count(3):
        pass
    assert recount.result() == counted(live)


def test_recount_finds_an_entry_lost_from_memory() -> None:
    live = {P("a").key: RANK, P("b").key: RANK}
    maintained = counted(live)
    del live[P("b").key]
    recount = Recount()
    recount.count(list(live.items()), upto=P("b").key)
    assert maintained == counted({P("a").key: RANK, P("b").key: RANK})
    lost = diff(maintained.digests(), recount.result().digests())
    assert lost == (bucket_of(P("b").key),)
