"""Parts of values: `updated` and `part_of`, by cases and as properties."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvedge.errors import BadValue
from kvedge.model.path import P, Path
from kvedge.model.value import MISSING, part_of, updated

SET: list[tuple[Any, str, Any, Any]] = [
    (1, ":", 2, 2),
    (MISSING, ":", 2, 2),
    ({}, "a", 1, {"a": 1}),
    ({"a": 1}, "a", 2, {"a": 2}),
    ({"a": 1}, "b", 2, {"a": 1, "b": 2}),
    ({"a": 1}, "b", None, {"a": 1, "b": None}),
    ({"a": {"b": 1}}, "a.c", 2, {"a": {"b": 1, "c": 2}}),
    ({"a": {"b": 1}}, "a", 2, {"a": 2}),
    (MISSING, "a.b", 1, {"a": {"b": 1}}),
    (None, "a", 1, {"a": 1}),
    ({"a": None}, "a.b", 1, {"a": {"b": 1}}),
    ({}, ":1.:n", 1, {1: {None: 1}}),
    ({"b": 1, "a": 2}, "b", 3, {"b": 3, "a": 2}),
]

REMOVED: list[tuple[Any, str, Any]] = [
    (1, ":", MISSING),
    ({"a": 1}, "a", {}),
    ({"a": 1, "b": 2}, "a", {"b": 2}),
    ({"a": {"b": 1, "c": 2}}, "a.b", {"a": {"c": 2}}),
    ({"a": {"b": 1}}, "a.b", {"a": {}}),
    # what is not there stays away, and nothing is made on the way
    ({"a": 1}, "b", {"a": 1}),
    ({}, "a.b", {}),
    ({"a": {}}, "a.b.c", {"a": {}}),
    ({"a": None}, "a.b", {"a": None}),
    (None, "a", None),
    (MISSING, "a.b", MISSING),
]


@pytest.mark.parametrize(("value", "subpath", "new", "made"), SET)
def test_part_is_set(value: Any, subpath: str, new: Any, made: Any) -> None:
    before = copy.deepcopy(value)
    assert repr(updated(value, P(subpath), new)) == repr(made)
    assert value == before


@pytest.mark.parametrize(("value", "subpath", "made"), REMOVED)
def test_part_is_removed(value: Any, subpath: str, made: Any) -> None:
    before = copy.deepcopy(value)
    assert repr(updated(value, P(subpath), MISSING)) == repr(made)
    assert value == before


@pytest.mark.parametrize(
    ("value", "subpath", "where"),
    [
        (1, "a", ": is 1"),
        ("text", "a", ": is 'text'"),
        ((1,), ":0", ": is (1,)"),
        ({"a": {"b": 1}}, "a.b.c", "a.b is 1"),
        ({"a": "x" * 100}, "a.b", "a is 'xxx"),
    ],
)
@pytest.mark.parametrize("new", [1, MISSING])
def test_what_has_no_parts_is_named(value: Any, subpath: str, where: str, new: Any) -> None:
    with pytest.raises(BadValue) as caught:
        updated(value, P(subpath), new)
    assert str(caught.value).startswith(f"{subpath} cannot be stored: {where}")
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize(
    ("value", "subpath", "part"),
    [
        (1, ":", 1),
        (MISSING, ":", MISSING),
        ({"a": 1}, "a", 1),
        ({"a": None}, "a", None),
        ({"a": {"b": 1}}, "a.b", 1),
        ({"a": 1}, "b", MISSING),
        ({"a": 1}, "a.b", MISSING),
        (1, "a", MISSING),
        (None, "a", MISSING),
        (MISSING, "a", MISSING),
        (("a",), ":0", MISSING),
        ({1: 2}, ":1", 2),
        ({1: 2}, "1", MISSING),
        # Python calls these keys equal, paths do not.
        ({1: 2}, ":t", MISSING),
        ({1: 2}, ":1:.0", MISSING),
        ({False: 2}, ":0", MISSING),
    ],
)
def test_part_is_found(value: Any, subpath: str, part: Any) -> None:
    assert repr(part_of(value, P(subpath))) == repr(part)


@pytest.mark.parametrize(("key", "subpath"), [(1, ":t"), (True, ":1"), (0, ":0:.0")])
def test_part_under_an_equal_key_of_another_kind_is_refused(key: Any, subpath: str) -> None:
    with pytest.raises(BadValue, match="another kind"):
        updated({key: "old"}, P(subpath), "new")


NAMES = st.sampled_from("abc")
MAPS = st.recursive(st.integers(0, 3), lambda inner: st.dictionaries(NAMES, inner, max_size=3))
SUBPATHS = st.lists(NAMES, max_size=3).map(Path.of)


@given(MAPS, SUBPATHS, st.integers(4, 6))
def test_set_part_is_found_and_the_others_stay(value: Any, subpath: Path, new: int) -> None:
    try:
        made = updated(value, subpath, new)
    except BadValue:
        assert any(type(part_of(value, subpath[:n])) is int for n in range(len(subpath)))
        return
    assert part_of(made, subpath) == new
    if part_of(value, subpath) is not MISSING:
        assert updated(made, subpath, part_of(value, subpath)) == value
    for name in "abc":
        beside = Path(name)
        if subpath and not subpath.is_below(beside):
            assert part_of(made, beside) == part_of(value, beside)


@given(MAPS, SUBPATHS)
def test_removed_part_is_gone(value: Any, subpath: Path) -> None:
    try:
        made = updated(value, subpath, MISSING)
    except BadValue:
        return
    assert part_of(made, subpath) is MISSING
    if part_of(value, subpath) is MISSING:
        assert made == value
