"""Packed keys of paths: inverse, order, and the range of what lies below a key."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvedge import limits
from kvedge.errors import BadPath, LimitExceeded
from kvedge.model.path import (
    KEY_END,
    KEY_FIRST,
    KEY_FIRST_USER,
    Path,
    boundaries,
    element_end,
    elements_of,
    key_of,
)

INT_MAX = (1 << limits.INTEGER_MAX_BITS) - 1

# Elements in their order.
ASCENDING: tuple[Any, ...] = (
    None,
    False,
    True,
    *(-INT_MAX, -(1 << 64), -65536, -257, -256, -255, -1, 0, 1, 255, 256, 1 << 64, INT_MAX),
    *(float("-inf"), -1e300, -1.5, -5e-324, 0.0, 5e-324, 1.0, 1.5, 1e300, float("inf")),
    *(b"", b"\0", b"\0\0", b"\0\x01", b"\x01", b"a", b"a\0", b"a\0b", b"a\x01", b"\xff"),
    *("", "\0", "\0\0", "\x01", "\x08", "a", "a\0", "a\0b", "a\x01", "aa", "b"),
    *("ÿ", "€", "\U0001f321"),
    *((), (None,), (None, None), (True,), (True, 1), (1,), (1, True), (1, 2), (1.0,)),
    *(("a",), ("a", "b"), ("a\0",)),
    *(("b",), ((),), ((), ()), (((),),)),
)  # fmt: skip


def rank(element: Any) -> tuple[Any, ...]:
    """Say in Python's own order what the order of elements is."""
    match element:
        case None | False | True:
            return ((None, False, True).index(element),)
        case int():
            return 3, element
        case float():
            return 4, element
        case bytes():
            return 5, element
        case str():
            return 6, [ord(char) for char in element]
    return 7, [rank(inner) for inner in element]


def ranks(path: Path) -> list[tuple[Any, ...]]:
    return [rank(element) for element in path]


@given(st.data())
def test_key_and_elements_are_inverse(
    any_elements: st.SearchStrategy[tuple[Any, ...]], data: st.DataObject
) -> None:
    elements = data.draw(any_elements)
    assert repr(elements_of(key_of(elements))) == repr(elements)
    assert repr(Path(*elements).elements) == repr(elements)


@pytest.mark.parametrize(
    "elements",
    [
        ("\0", "\0\xff", b"\0", ("\0",), ((),), "ÿ"),
        ("a", "\x08", "\0\x08"),
        *(("a", last) for last in ASCENDING),
        *(("a", "b", middle, "c") for middle in ASCENDING),
        *((first, "a") for first in ASCENDING),
        *((("a", inner, "b"), "c") for inner in ASCENDING),
    ],
    ids=ascii,
)
def test_key_gives_back_its_elements(elements: tuple[Any, ...]) -> None:
    assert repr(elements_of(key_of(elements))) == repr(elements)


@given(...)
def test_key_is_the_elements_keys_in_a_row(path: Path) -> None:
    parts = [key_of((element,)) for element in path]
    assert b"".join(parts) == path.key
    assert boundaries(path.key) == [sum(map(len, parts[: n + 1])) for n in range(len(parts))]


@given(...)
def test_elements_are_read_from_any_boundary(path: Path) -> None:
    starts = [0, *boundaries(path.key)]
    for count, start in enumerate(starts):
        assert repr(elements_of(path.key, start)) == repr(path.elements[count:])
    assert [element_end(path.key, start) for start in starts[:-1]] == starts[1:]


@pytest.mark.parametrize(("low", "high"), list(pairwise(ASCENDING)), ids=ascii)
def test_order_of_elements(low: Any, high: Any) -> None:
    assert key_of((low,)) < key_of((high,))
    assert rank(low) < rank(high)
    # A place comes right before what is below it, and all of that before the next place.
    assert key_of((low,)) < key_of((low, "\U0010ffff")) < key_of((high,))
    assert key_of(((low, 1),)) < key_of(((high,),))


@given(...)
def test_order_of_keys_is_the_order_of_paths(one: Path, other: Path) -> None:
    assert (one.key < other.key) == (ranks(one) < ranks(other))
    assert (one.key == other.key) == (repr(one.elements) == repr(other.elements))


@given(...)
@example(Path("a"), Path("a\0"))
@example(Path(("a",)), Path(("a\0",)))
@example(Path(0), Path(0, 0))
def test_range_below_a_key_holds_what_is_below_and_nothing_else(one: Path, other: Path) -> None:
    for path in (other, one + other):
        is_below = len(path) > len(one) and ranks(path)[: len(one)] == ranks(one)
        assert (one.key + KEY_FIRST <= path.key < one.key + KEY_END) == is_below
        assert path.is_below(one) == (is_below or path == one)


@given(...)
def test_user_range_of_the_root_leaves_out_system_data(path: Path) -> None:
    in_range = KEY_FIRST_USER <= path.key < KEY_END
    assert in_range == (len(path) > 0 and path.elements[0] is not None)
    assert path.is_system == (len(path) > 0 and path.elements[0] is None)


def test_minus_zero_is_zero() -> None:
    assert key_of((-0.0,)) == key_of((0.0,))
    assert str(Path(-0.0).elements[0]) == "0.0"
    assert Path((-0.0,)) == Path((0.0,))


@pytest.mark.parametrize(
    ("element", "why"),
    [
        (float("nan"), "NaN"),
        ((1, float("nan")), "NaN"),
        ([1], "list"),
        ({}, "dict"),
        ({1}, "set"),
        (1j, "complex"),
        (bytearray(b"a"), "bytearray"),
        (Path("a"), "Path"),
        (object(), "object"),
        ((1, [2]), "list"),
        ("\ud800", "not valid Unicode"),
        (("\ud800",), "not valid Unicode"),
    ],
    ids=lambda given: ascii(given)[:20],
)
def test_other_things_are_refused(element: Any, why: str) -> None:
    with pytest.raises(BadPath, match=why):
        key_of((element,))
    with pytest.raises(BadPath, match=why):
        key_of(("a", element))


def deep(levels: int) -> tuple[Any, ...]:
    """Return an empty tuple inside of tuples: so many levels of tuples in all."""
    made: tuple[Any, ...] = ()
    for _ in range(levels - 1):
        made = (made,)
    return made


COUNT = limits.PATH_ELEMENTS_MAX


@pytest.mark.parametrize(
    ("elements", "over"),
    [
        (("a",) * COUNT, ("a",) * (COUNT + 1)),
        ((1,) * COUNT, (1,) * (COUNT + 1)),
        (((1,) * (COUNT - 1),), ((1,) * COUNT,)),
        ((deep(COUNT),), (deep(COUNT + 1),)),
        ((deep(COUNT),), (deep(100_000),)),
        (("a" * (limits.PATH_MAX_BYTES - 2),), ("a" * (limits.PATH_MAX_BYTES - 1),)),
        ((b"\0" * 1023,), (b"\0" * 1024,)),
        ((INT_MAX,), (INT_MAX + 1,)),
        ((-INT_MAX,), (-INT_MAX - 1,)),
        (((INT_MAX,),), ((INT_MAX + 1,),)),
        (((INT_MAX,),), (1 << 100_000,)),
    ],
    ids=["strings", "numbers", "nested", "depth", "far too deep", "text", "bytes", "positive",
         "negative", "number in a tuple", "far too large"],
)  # fmt: skip
def test_limits(elements: tuple[Any, ...], over: tuple[Any, ...]) -> None:
    assert elements_of(key_of(elements)) == elements
    with pytest.raises(LimitExceeded):
        key_of(over)
