"""Stamps: tocks only grow, rids order by node and age, shown ticks keep rising."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvedge.model.stamp import (
    TOCK_COUNTER_BITS,
    TOCK_MAX,
    Dot,
    Rid,
    RidTable,
    generation_of,
    new_incarnation,
    next_tock,
    tock_at,
    tock_ms,
)

WALL_MS = st.integers(0, 1 << 46)
YEAR_2026_MS = 1_767_225_600_000


@pytest.mark.parametrize(
    ("last", "wall_ms", "tock"),
    [
        (0, None, 1),
        (41, None, 42),
        (0, 1, 1 << 16),
        (5 << 16, 5, (5 << 16) + 1),
        (5 << 16, 4, (5 << 16) + 1),
        (5 << 16, 6, 6 << 16),
        ((6 << 16) - 1, 6, 6 << 16),
        (0, YEAR_2026_MS, YEAR_2026_MS << 16),
    ],
)
def test_next_tock(last: int, wall_ms: int | None, tock: int) -> None:
    assert next_tock(last, wall_ms) == tock


@given(st.lists(st.none() | WALL_MS))
def test_tocks_grow_whatever_the_clock_says(walls_ms: list[int | None]) -> None:
    tock = 0
    for wall_ms in walls_ms:
        following = next_tock(tock, wall_ms)
        assert following > tock
        assert wall_ms is None or tock_ms(following) >= wall_ms
        tock = following


@given(WALL_MS)
def test_tock_holds_its_millisecond(wall_ms: int) -> None:
    assert tock_ms(tock_at(wall_ms)) == wall_ms
    assert tock_ms(tock_at(wall_ms + 1) - 1) == wall_ms
    assert next_tock(0, wall_ms + 1) == tock_at(wall_ms + 1)


def test_tocks_last_for_millennia() -> None:
    year_ms = 365 * 24 * 3600 * 1000
    assert tock_at(2000 * year_ms) < TOCK_MAX
    assert tock_at(1) == 1 << TOCK_COUNTER_BITS


@given(st.integers(0, 1 << 20), st.integers(0, (1 << 40) - 1), st.integers(0, (1 << 40) - 1))
def test_later_generation_is_larger_whatever_was_drawn(
    generation: int, random_bits: int, later_bits: int
) -> None:
    first = new_incarnation(generation, random_bits)
    assert generation_of(first) == generation
    assert first < new_incarnation(generation + 1, later_bits)


def test_rids_order_by_node_then_age() -> None:
    rids = [Rid("a", 1), Rid("a", 2), Rid("a", 10), Rid("b", 1)]
    assert sorted((rids[3], rids[1], rids[2], rids[0])) == rids
    assert Dot(rids[0], 9) < Dot(rids[1], 1) < Dot(rids[1], 2)


@given(...)
def test_rid_table_gives_back_what_it_was_given(rids: list[Rid]) -> None:
    table = RidTable()
    numbers = [table.number(rid) for rid in rids]
    assert [table.rid(number) for number in numbers] == rids
    assert [table.node(number) for number in numbers] == [rid.node for rid in rids]
    assert sorted(set(numbers)) == list(range(len(table))) == list(range(len(set(rids))))
    assert [table.number(rid) for rid in rids] == numbers


def test_shown_tick_goes_on_from_the_base() -> None:
    table = RidTable()
    old, new = Rid("a", 1), Rid("a", 2)
    table.number(old, base=100)
    assert table.base(table.number(new, base=107)) == 107
    assert table.shown(Dot(old, 7)) == ("a", 107)
    assert table.shown(Dot(new, 1)) == ("a", 108)


def test_base_is_fixed_with_the_first_use() -> None:
    table = RidTable()
    number = table.number(Rid("a", 1), base=5)
    assert table.number(Rid("a", 1), base=9) == number
    assert table.base(number) == 5


def test_a_base_may_come_after_the_rid() -> None:
    table = RidTable()
    number = table.number(Rid("a", 1))
    assert table.number(Rid("a", 1), base=9) == number
    assert table.shown(Dot(Rid("a", 1), 2)) == ("a", 11)


@given(st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 9))), max_size=12))
def test_what_a_table_retains_keeps_its_number_and_no_number_comes_again(
    steps: list[tuple[bool, set[int]]],
) -> None:
    table = RidTable()
    ever: set[int] = set()
    known: dict[int, tuple[Rid, int]] = {}
    for adds, picked in steps:
        if adds:
            for index in picked:
                rid = Rid("n", index)
                is_new = not table.knows(rid)
                number = table.number(rid, base=100 + len(ever))
                assert not (is_new and number in ever)
                known.setdefault(number, (rid, 100 + len(ever)))
                ever.add(number)
        else:
            kept = {number for number in known if number in picked}
            table.retain(kept | {999})  # one that nobody has is nothing
            known = {number: known[number] for number in kept}
        assert {number: (rid, base) for number, rid, base in table.rows()} == known
        assert len(table) == len(known)
    for index in range(10):
        rid = Rid("n", index)
        assert table.knows(rid) == (rid in [row[0] for row in known.values()])
        assert table.base_of(rid) == dict(known.values()).get(rid, 0)


def test_a_number_that_is_forgotten_means_nobody() -> None:
    table = RidTable()
    number = table.number(Rid("a", 1), base=5)
    table.retain(set())
    with pytest.raises(KeyError):
        table.rid(number)
    again = table.number(Rid("a", 1), base=7)
    assert again != number
    assert (table.rid(again), table.base(again)) == (Rid("a", 1), 7)
