"""Version vectors: the algebra of ranges against plain sets of dots."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvedge.model.stamp import Dot, Rid
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
