"""Homes: which node makes the writes at a place."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvedge.model.entry import join
from kvedge.model.path import SYSTEM, P, Path
from kvedge.model.places import HOMES
from kvedge.model.stamp import Rid
from kvedge.model.value import MISSING, packb
from kvedge.server.homes import Homes
from kvedge.server.records import Loaded
from kvedge.server.store import Store

ME = Rid("me", 5 << 40)


class Log:
    """Counts."""

    def __init__(self) -> None:
        self.number = 0

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        self.number += 1
        return self.number


def entry(value: object) -> bytes:
    return join(1, (1,), MISSING if value is MISSING else packb(value))


def key_of(path: Path) -> bytes:
    return HOMES.key + path.key


def homes_of(**nodes: str) -> Homes:
    homes = Homes(Store(ME, 0, Loaded(), Log()))
    for path, node in nodes.items():
        homes.note(key_of(P(path.replace("_", "."))), entry(node))
    return homes


LONGEST: dict[str, str | None] = {
    "a": "one",
    "a.x": "one",
    "a.b": "two",
    "a.b.x": "two",
    "a.b.c": "two",
    "a.b.c.d": "three",
    "a.b.c.d.e.f.g": "three",
    "a.bc": "one",
    "ab": None,
    "b": None,
    "a.:1": "one",
}


@pytest.mark.parametrize("path", LONGEST)
def test_the_longest_counts(path: str) -> None:
    homes = homes_of(a="one", a_b="two", a_b_c_d="three")
    assert homes.of(P(path).key) == LONGEST[path]


def test_without_homes_anybody_writes() -> None:
    assert Homes(Store(ME, 0, Loaded(), Log())).of(P("a").key) is None


def test_a_home_of_everything_but_what_servers_keep() -> None:
    homes = Homes(Store(ME, 0, Loaded(), Log()))
    homes.note(HOMES.key, entry("one"))
    assert homes.of(b"") == homes.of(P("a.b").key) == "one"
    assert homes.of((SYSTEM / "home" / "a").key) is None
    assert homes.of(SYSTEM.key) is None
    assert homes.within(b"") == ["one"]


@pytest.mark.parametrize("value", [MISSING, None, 7, b"two", ("two",), {"node": "two"}], ids=repr)
def test_what_names_no_node_takes_the_home_away(value: object) -> None:
    homes = homes_of(a="one", a_b="two")
    homes.note(key_of(P("a.b")), entry(value))
    assert homes.of(P("a.b.c").key) == "one"
    homes.note(key_of(P("a")), entry(value))
    assert homes.of(P("a.b.c").key) is None
    homes.note(key_of(P("a")), entry(value))  # it comes again


def test_a_home_moves() -> None:
    homes = homes_of(a="one")
    homes.note(key_of(P("a")), entry("two"))
    assert homes.of(P("a.b").key) == "two"
    assert homes.within(P("a").key) == ["two"]


WITHIN: dict[str, list[str]] = {
    "a": ["one", "three", "two"],
    "a.b": ["three", "two"],
    "a.b.c": ["three", "two"],
    "a.b.c.d": ["three"],
    "a.b.c.d.e": ["three"],
    "a.x": ["one"],
    "z": [],
    "ab": [],
}


@pytest.mark.parametrize("path", WITHIN)
def test_who_writes_at_a_place_and_below(path: str) -> None:
    homes = homes_of(a="one", a_b="two", a_b_c_d="three")
    assert homes.within(P(path).key) == WITHIN[path]


def test_what_the_tree_holds_is_known_at_the_start() -> None:
    log = Log()
    store = Store(ME, 0, Loaded(), log)
    for path, value in ((HOMES / "a", "one"), (HOMES / "b", MISSING), (Path("a"), "no home")):
        packed: Any = MISSING if value is MISSING else packb(value)
        store.write(path.key, packed, wall_ms=None, relaxed=False, done=lambda _: None)
    store.confirm(written_to=log.number, synced_to=log.number)
    homes = Homes(store)
    assert homes.of(P("a.x").key) == "one"
    assert homes.of(P("b").key) is None


_PATHS = st.lists(st.sampled_from(["a", "b", 1, None, b"a"]), max_size=3).map(tuple)


@given(st.dictionaries(_PATHS, st.sampled_from(["one", "two"]), max_size=5), _PATHS)
def test_as_the_definition_says(nodes: dict[tuple[Any, ...], str], place: tuple[Any, ...]) -> None:
    homes = Homes(Store(ME, 0, Loaded(), Log()))
    for elements, node in nodes.items():
        homes.note(key_of(Path(*elements)), entry(node))
    above = [elements for elements in nodes if place[: len(elements)] == elements]
    is_system = place[:1] == (None,)
    expected = None if is_system or not above else nodes[max(above, key=len)]
    assert homes.of(Path(*place).key) == expected
    below = {node for elements, node in nodes.items() if elements[: len(place)] == place}
    assert homes.within(Path(*place).key) == sorted(below | ({expected} if expected else set()))
