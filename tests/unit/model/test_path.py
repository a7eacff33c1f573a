"""Paths as objects: equality and hash by kind, parents, joining, slices."""

from __future__ import annotations

import copy
import pickle
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given

from kvedge import limits
from kvedge.errors import BadPath, LimitExceeded
from kvedge.model.path import EMPTY, KV, SYSTEM, P, Path

ALIKE: list[tuple[Any, Any]] = [
    *permutations((True, 1, 1.0), 2),
    *permutations((False, 0, 0.0), 2),
    *permutations((None, "", b"", ()), 2),
    *permutations(((1,), (True,), (1.0,)), 2),
    ("1", 1),
    ("a", b"a"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_kinds_are_distinct(one: Any, other: Any) -> None:
    assert Path(one) != Path(other)
    assert hash(Path(one)) != hash(Path(other))
    assert len({Path(one): 1, Path(other): 2}) == 2
    assert (Path(one) < Path(other)) != (Path(other) < Path(one))
    assert str(Path(one)) != str(Path(other))


def test_equal_paths_are_one() -> None:
    assert Path("a", 1) == P("a.:1")
    assert hash(Path("a", 1)) == hash(P("a:1"))
    assert Path("a") != ("a",)
    assert Path("a") != "a"


@given(...)
def test_order_is_total(one: Path, other: Path) -> None:
    assert (one < other) + (one == other) + (one > other) == 1
    assert (one <= other) == (not one > other)
    assert (one >= other) == (not one < other)


@pytest.mark.parametrize("other", [3, "a", ("a",), None])
def test_order_with_other_things_is_refused(other: Any) -> None:
    with pytest.raises(TypeError):
        assert P("a") < other
    with pytest.raises(TypeError):
        assert P("a") >= other


@given(...)
def test_joining_is_appending(one: Path, other: Path) -> None:
    assert repr((one + other).elements) == repr(one.elements + other.elements)
    assert one + other.elements == one + other
    assert one + EMPTY == one == EMPTY + one
    step = one
    for element in other:
        step = step / element
        assert step.parent == one + other[: len(step) - len(one) - 1]
    assert step == one + other


@given(...)
def test_is_a_sequence(path: Path) -> None:
    assert len(path) == len(path.elements)
    assert repr(list(path)) == repr(list(path.elements))
    assert path[:] == path == Path.of(path.elements) == Path.from_key(path.key)
    assert path[1:] == Path(*path.elements[1:])
    assert bool(path) == bool(path.elements)
    for index, element in enumerate(path):
        assert repr(path[index]) == repr(element)


@given(...)
def test_copies_are_equal(path: Path) -> None:
    assert copy.deepcopy(path) == path
    assert pickle.loads(pickle.dumps(path)) == path


def test_root_is_its_own_parent() -> None:
    assert EMPTY.parent == EMPTY
    assert P("a.b").parent == P("a")


def test_named_places() -> None:
    assert str(EMPTY) == ":"
    assert str(SYSTEM) == ":n"
    assert SYSTEM.is_system
    assert str(KV / "code") == ":.kv.code"
    assert not KV.is_system
    assert not EMPTY.is_system
    assert repr(P("a.:1")) == "P('a.:1')"


def test_joining_keeps_the_limits() -> None:
    half = Path("a" * (limits.PATH_MAX_BYTES * 2 // 3))
    with pytest.raises(LimitExceeded, match="path"):
        half + half
    with pytest.raises(LimitExceeded, match="path"):
        half / half.elements[0]
    many = Path(*range(limits.PATH_ELEMENTS_MAX))
    with pytest.raises(LimitExceeded, match="path"):
        many / "a"
    with pytest.raises(BadPath):
        half / float("nan")


def test_attributes_cannot_be_added() -> None:
    with pytest.raises(AttributeError):
        P("a").other = 1  # type: ignore[attr-defined]  # that is the point
