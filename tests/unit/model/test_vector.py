"""Version vectors: the algebra of ranges against plain sets of dots."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvedge.model.stamp import Dot, Rid, generation_of, new_incarnation
from kvedge.model.vector import Ranges, Vector, normal

A, B = Rid("a", 1), Rid("b", 1)
TICKS_MAX = 12

Dots = set[Dot]
DOTS = st.sets(st.builds(Dot, st.sampled_from([A, B, Rid("a", 2)]), st.integers(1, TICKS_MAX)))


def vector_of(dots: Dots) -> Vector:
    made = Vector()
    for dot in dots:
        made.add(dot)
    return made


def dots_of(vector: Vector) -> Dots:
    return {
        Dot(rid, tick) for rid, ranges in vector for low, high in ranges
        for tick in range(low, high + 1)
    }  # fmt: skip


def is_normal(ranges: Ranges) -> bool:
    gaps = all(high + 1 < low for (_, high), (low, _) in pairwise(ranges))
    return gaps and all(low <= high for low, high in ranges)


@pytest.mark.parametrize(
    ("ranges", "joined"),
    [
        ([], []),
        ([(1, 3)], [(1, 3)]),
        ([(1, 3), (4, 5)], [(1, 5)]),
        ([(1, 3), (5, 6)], [(1, 3), (5, 6)]),
        ([(5, 6), (1, 3)], [(1, 3), (5, 6)]),
        ([(1, 9), (2, 3)], [(1, 9)]),
        ([(1, 3), (2, 5), (5, 7), (9, 9)], [(1, 7), (9, 9)]),
        ([(4, 4), (1, 1), (3, 3), (2, 2)], [(1, 4)]),
    ],
)
def test_normal(ranges: list[tuple[int, int]], joined: list[tuple[int, int]]) -> None:
    assert normal(ranges) == joined


@given(DOTS)
def test_vector_is_a_set_of_dots(dots: Dots) -> None:
    vector = vector_of(dots)
    assert dots_of(vector) == dots
    assert all(is_normal(ranges) for _, ranges in vector)
    for rid in (A, B, Rid("c", 1)):
        ticks = {dot.tick for dot in dots if dot.rid == rid}
        assert vector.last(rid) == max(ticks, default=0)
        assert {t for t in range(TICKS_MAX + 2) if Dot(rid, t) in vector} == ticks


@given(DOTS, DOTS)
def test_algebra(one: Dots, other: Dots) -> None:
    mine, theirs = vector_of(one), vector_of(other)
    assert mine.union(theirs) == theirs.union(mine) == vector_of(one | other)
    assert mine.minus(theirs) == vector_of(one - other)
    assert mine.covers(theirs) == (one >= other)
    assert (mine == theirs) == (one == other)
    assert (dots_of(mine), dots_of(theirs)) == (one, other)  # they themselves are unchanged


@given(DOTS, DOTS)
def test_pulling_what_is_missing_makes_equal(one: Dots, other: Dots) -> None:
    mine, theirs = vector_of(one), vector_of(other)
    for rid, ranges in theirs.minus(mine):
        for low, high in ranges:
            mine.add_range(rid, low, high)
    assert mine == vector_of(one).union(theirs)
    assert mine.covers(theirs)
    assert not any(theirs.minus(mine))


@given(st.lists(st.tuples(st.integers(1, TICKS_MAX), st.integers(0, 4))))
def test_ranges_are_added_in_any_order(given: list[tuple[int, int]]) -> None:
    vector = Vector()
    for low, size in given:
        vector.add_range(A, low, low + size)
    assert dots_of(vector) == {Dot(A, t) for low, size in given for t in range(low, low + size + 1)}
    assert is_normal(vector.ranges(A))
    assert vector == Vector.of({A: tuple((low, low + size) for low, size in given)})


def test_ticks_in_order_are_one_range() -> None:
    vector = Vector()
    for tick in range(1, 1001):
        vector.add(Dot(A, tick))
    assert vector.ranges(A) == ((1, 1000),)


def test_rids_come_in_order() -> None:
    assert [rid for rid, _ in vector_of({Dot(B, 1), Dot(A, 1)})] == [A, B]


def test_rid_without_ticks_counts_for_nothing() -> None:
    assert Vector.of({A: ()}) == Vector()
    assert Vector() != 1
    assert Vector().covers(Vector())


def test_vector_changes_and_so_has_no_hash() -> None:
    with pytest.raises(TypeError):
        hash(Vector())


# --- floors -----------------------------------------------------------------------------------

GENERATIONS_MAX = 5
FLOOR_TICKS_MAX = 4
WORLD = {
    Dot(Rid(node, new_incarnation(generation, bits)), tick)
    for node in "ab"
    for generation in range(1, GENERATIONS_MAX + 1)
    for bits in (0, 7)
    for tick in range(1, FLOOR_TICKS_MAX + 1)
}
"""All dots there can be: what a floor counts as seen is finite here."""

Floors = dict[str, int]
FLOORS = st.dictionaries(st.sampled_from("ab"), st.integers(1, GENERATIONS_MAX + 2))
SOME = st.sets(st.sampled_from(sorted(WORLD)), max_size=30)
CLOSED = st.builds(lambda dots, floors: (dots | below(floors), floors), SOME, FLOORS)
"""Dots, with those below some floors, and these."""


def below(floors: Floors) -> Dots:
    return {
        dot for dot in WORLD if generation_of(dot.rid.incarnation) < floors.get(dot.rid.node, 0)
    }


def closed_vector(given: tuple[Dots, Floors], *, floors_first: bool = False) -> Vector:
    dots, floors = given
    vector = vector_of(set()) if floors_first else vector_of(dots)
    for node, floor in floors.items():
        vector.close(node, floor)
    for dot in dots:
        vector.add(dot)
    return vector


def seen_in(vector: Vector) -> Dots:
    return {dot for dot in WORLD if dot in vector}


def highest(one: Floors, other: Floors) -> Floors:
    return {node: max(one.get(node, 0), other.get(node, 0)) for node in one | other}


def is_short(vector: Vector) -> bool:
    """Nothing is said twice: no rid is below a floor, and no range is empty or touches another."""
    return not any(vector.is_closed(rid) for rid, _ in vector) and all(
        ranges and is_normal(ranges) for _, ranges in vector
    )


@given(CLOSED, st.booleans())
def test_a_floor_counts_all_below_it_as_seen(given: tuple[Dots, Floors], first: bool) -> None:
    vector = closed_vector(given, floors_first=first)
    assert seen_in(vector) == given[0]
    assert vector.floors == dict(sorted(given[1].items()))
    assert is_short(vector)
    for dot in WORLD:
        is_below = dot in below(given[1])
        assert vector.is_closed(dot.rid) == is_below
        assert not (is_below and vector.ranges(dot.rid))


@given(CLOSED)
def test_the_same_dots_and_floors_are_one_vector(given: tuple[Dots, Floors]) -> None:
    vector = closed_vector(given)
    ranges = {rid: tuple((d.tick, d.tick) for d in given[0] if d.rid == rid) for rid, _ in WORLD}
    assert vector == closed_vector(given, floors_first=True) == vector.copy()
    assert vector == Vector.of(ranges, given[1]) == Vector.of(dict(vector), vector.floors)
    assert bool(vector) == bool(given[0] or given[1]) == bool(len(vector))


@given(CLOSED, CLOSED)
def test_algebra_with_floors(one: tuple[Dots, Floors], other: tuple[Dots, Floors]) -> None:
    mine, theirs = closed_vector(one), closed_vector(other)
    union = mine.union(theirs)
    assert seen_in(union) == one[0] | other[0]
    assert union.floors == highest(one[1], other[1])
    assert union == theirs.union(mine)
    meet = mine.meet(theirs)
    assert seen_in(meet) == one[0] & other[0]
    assert meet == theirs.meet(mine)
    assert meet.floors == {
        node: min(floor, other[1][node]) for node, floor in one[1].items() if node in other[1]
    }
    for made in (union, meet):
        assert is_short(made)
    minus = mine.minus(theirs)
    assert dots_of(minus) == (one[0] - below(one[1])) - other[0]
    assert not minus.floors
    covers = one[0] >= other[0] and highest(one[1], other[1]) == one[1]
    assert mine.covers(theirs) == covers
    assert mine == closed_vector(one)  # they themselves are unchanged
    assert theirs == closed_vector(other)


@given(CLOSED, CLOSED)
def test_merging_is_a_union_in_place_and_knows_each_side(
    one: tuple[Dots, Floors], other: tuple[Dots, Floors]
) -> None:
    mine, theirs = closed_vector(one), closed_vector(other)
    merged = mine.copy()
    merged.merge(theirs)
    assert merged == mine.union(theirs)
    assert merged.covers(mine)
    assert merged.covers(theirs)
    assert mine.covers(mine.meet(theirs))
    merged.add(Dot(Rid("new", 1), 1))  # a copy shares nothing
    assert mine == closed_vector(one)
    assert theirs == closed_vector(other)
    assert Dot(Rid("new", 1), 1) not in mine.union(theirs)


@given(CLOSED, st.sampled_from("ab"), st.integers(0, GENERATIONS_MAX + 2))
def test_a_floor_only_rises(given: tuple[Dots, Floors], node: str, floor: int) -> None:
    vector = closed_vector(given)
    vector.close(node, floor)
    assert vector.floors.get(node, 0) == max(floor, given[1].get(node, 0))
    assert seen_in(vector) == given[0] | below({node: floor})
    assert is_short(vector)


def test_what_is_closed_there_and_not_here_is_not_known_to_be_here() -> None:
    whole, closed = vector_of({Dot(Rid("a", 1), 1)}), Vector.of({}, {"a": 1})
    assert not whole.covers(closed)  # it may have had a second change
    assert closed.covers(whole)


def test_rids_of_a_node_are_those_that_are_open() -> None:
    old, new = Rid("a", new_incarnation(1, 3)), Rid("a", new_incarnation(2, 3))
    vector = vector_of({Dot(new, 1), Dot(old, 1), Dot(B, 9)})
    assert vector.rids_of("a") == [old, new]
    vector.close("a", 2)
    assert vector.rids_of("a") == [new]
    assert (vector.last(old), vector.last(new)) == (0, 1)


def test_floors_come_in_order_of_nodes_and_0_is_none() -> None:
    assert list(Vector.of({}, {"b": 2, "a": 1, "c": 0}).floors.items()) == [("a", 1), ("b", 2)]
