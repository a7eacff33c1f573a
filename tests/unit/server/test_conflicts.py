"""Conflicts: which lost writes are recorded, by whom, in which words, and how many are kept."""

from __future__ import annotations

from typing import Any

import pytest

from kvedge.model import entry as entries
from kvedge.model.entry import Fence
from kvedge.model.path import SYSTEM, P, Path
from kvedge.model.places import CONFLICTS, FENCES
from kvedge.model.stamp import Dot, Rid
from kvedge.model.value import MISSING, packb, unpack
from kvedge.model.vector import Vector
from kvedge.protocol.batches import Carried
from kvedge.protocol.membership import Kept
from kvedge.server import conflicts as module
from kvedge.server.conflicts import Conflicts
from kvedge.server.records import Loaded
from kvedge.server.store import Pending, Store

ME, PEER, OTHER, BEFORE = (
    Rid("me", 5 << 40),
    Rid("peer", 2 << 40),
    Rid("other", 1 << 40),
    Rid("me", 4 << 40),
)
BASE = 100
A = P("a").key
FULL = tuple(Dot(Rid(f"n{number}", 1 << 40), 1) for number in range(4))
LARGE = bytes(64 * 1024)


class Log:
    """Counts."""

    def __init__(self) -> None:
        self.number = 0

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        self.number += 1
        return self.number


class Node:
    """A store and what finds its conflicts."""

    def __init__(self) -> None:
        self.log = Log()
        self.store = Store(ME, BASE, Loaded(), self.log)
        self.conflicts = Conflicts(self.store)

    def sync(self) -> list[Pending]:
        return self.store.confirm(written_to=self.log.number, synced_to=self.log.number)

    def write(self, key: bytes, value: Any = 1) -> Pending:
        packed: Any = MISSING if value is MISSING else packb(value)
        self.store.write(key, packed, wall_ms=None, relaxed=False, done=lambda _: None)
        return self.sync()[-1]

    def hear(self, key: bytes, *chain: Dot, tock: int, value: Any = 2) -> Pending:
        packed: Any = MISSING if value is MISSING else packb(value)
        self.store.take(Carried(key, tock, chain, packed), {dot.rid: 2000 for dot in chain})
        return self.sync()[-1]

    def found(self, write: Pending, **kept: Kept) -> dict[str, Any] | None:
        record = self.conflicts.of(write, kept)
        return None if record is None else dict(unpack(record[1]))


@pytest.fixture
def node() -> Node:
    """A server that holds nothing."""
    return Node()


def test_a_write_that_loses_to_a_later_one_is_recorded(node: Node) -> None:
    mine = node.write(A, "mine")
    theirs = node.hear(A, Dot(PEER, 7), tock=1 << 40, value="theirs")
    record = node.conflicts.of(theirs, {})
    assert record is not None
    key, packed = record
    assert key == (CONFLICTS / "me" / (BASE + 1)).key
    assert unpack(packed) == {
        "path": ("a",),
        "kind": "concurrent",
        "lost": {
            "node": "me",
            "tick": BASE + 1,
            "tock": entries.tock_of(mine.packed),
            "value": "mine",
        },
        "won": {"node": "peer", "tick": 2007, "tock": 1 << 40, "value": "theirs"},
    }


def test_a_write_that_loses_to_one_that_came_while_it_was_under_way(node: Node) -> None:
    node.hear(P("clock").key, Dot(OTHER, 1), tock=1)
    node.store.write(A, packb("mine"), wall_ms=None, relaxed=False, done=lambda _: None)
    node.store.take(Carried(A, 1 << 40, (Dot(PEER, 7),), packb("theirs")), {})
    found = [record for write in node.sync() if (record := node.found(write)) is not None]
    assert [(one["lost"]["value"], one["won"]["value"]) for one in found] == [("mine", "theirs")]


WHO: dict[str, tuple[tuple[Dot, ...], int, Any, str | None]] = {
    # what comes where we have written 1 (chain, tock, value) -> the kind of the record
    "a later one that did not know ours": ((Dot(PEER, 7),), 1 << 40, 2, "concurrent"),
    "a later one that knew ours": ((Dot(PEER, 7), Dot(ME, 1)), 1 << 40, 2, None),
    "a later one that knew a later one of ours": ((Dot(PEER, 7), Dot(ME, 9)), 1 << 40, 2, None),
    "a later one that knew an earlier life of ours": (
        (Dot(PEER, 7), Dot(BEFORE, 9)),
        1 << 40,
        2,
        "concurrent",
    ),
    "a later one whose chain is full": ((Dot(PEER, 7), *FULL), 1 << 40, 2, "unsure"),
    "an earlier one": ((Dot(PEER, 7),), 0, 2, None),  # its author records it
    "the same value": ((Dot(PEER, 7),), 1 << 40, 1, None),
    "another type of the same value": ((Dot(PEER, 7),), 1 << 40, 1.0, "concurrent"),
    "a deletion": ((Dot(PEER, 7),), 1 << 40, MISSING, "concurrent"),
    "of an earlier life of ours": ((Dot(BEFORE, 7),), 1 << 40, 2, "concurrent"),
}


@pytest.mark.parametrize("name", WHO)
def test_what_is_recorded(name: str, node: Node) -> None:
    chain, tock, value, kind = WHO[name]
    node.write(A, 1)
    found = node.found(node.hear(A, *chain, tock=tock, value=value))
    assert (None if found is None else found["kind"]) == kind


def test_only_the_author_records_it(node: Node) -> None:
    node.hear(A, Dot(OTHER, 1), tock=10)
    assert node.found(node.hear(A, Dot(PEER, 7), tock=20)) is None


def test_a_lost_write_of_an_earlier_life_is_ours_to_record(node: Node) -> None:
    node.hear(A, Dot(BEFORE, 3), tock=10)
    found = node.found(node.hear(A, Dot(PEER, 7), tock=20, value=3))
    assert found is not None
    assert found["lost"]["node"] == "me"


def test_what_was_empty_before_has_not_lost(node: Node) -> None:
    assert node.found(node.write(A)) is None
    assert node.found(node.write(A, 2)) is None  # ours knows ours


@pytest.mark.parametrize("place", [SYSTEM / "member" / "x", SYSTEM, CONFLICTS / "me" / 7])
def test_what_servers_keep_is_not_recorded(place: Path, node: Node) -> None:
    node.write(place.key)
    assert node.found(node.hear(place.key, Dot(PEER, 7), tock=1 << 40)) is None


def test_two_deletions_are_no_conflict(node: Node) -> None:
    node.write(A)
    node.write(A, MISSING)
    assert node.found(node.hear(A, Dot(PEER, 7), tock=1 << 40, value=MISSING)) is None


def test_a_deletion_that_lost_has_no_value(node: Node) -> None:
    node.write(A)
    node.write(A, MISSING)
    found = node.found(node.hear(A, Dot(PEER, 7), tock=1 << 40, value=None))
    assert found is not None
    assert set(found["lost"]) == {"node", "tick", "tock"}
    assert found["won"]["value"] is None


@pytest.mark.parametrize(("size", "is_cut"), [(0, False), (1, True)])
def test_values_that_are_too_large_are_left_out(size: int, is_cut: bool, node: Node) -> None:
    value = bytes(len(LARGE) - len(packb(LARGE[:-3])) + len(LARGE) - 3 + size)
    assert (len(packb(value)) > len(LARGE)) == is_cut
    node.write(A, value)
    found = node.found(node.hear(A, Dot(PEER, 7), tock=1 << 40, value=LARGE))
    assert found is not None
    assert found["lost"].get("cut", False) == is_cut
    assert ("value" in found["lost"]) != is_cut
    assert found["won"]["cut"] is True
    assert "value" not in found["won"]


# --- what somebody had announced --------------------------------------------------------------

MINE = Dot(ME, 1)


def kept(*seen: Dot, incarnation: int = PEER.incarnation) -> Kept:
    ranges: dict[Rid, Any] = {}
    for dot in seen:
        ranges[dot.rid] = (*ranges.get(dot.rid, ()), (dot.tick, dot.tick))
    return Kept(incarnation, 0, Vector.of(ranges))


OTHERS = {dot.rid.node: kept(MINE, incarnation=dot.rid.incarnation) for dot in FULL}

ANNOUNCED: dict[str, tuple[dict[str, Kept], bool]] = {
    # who had announced what before peer wrote 7 -> whether the loss is recorded
    "nobody anything": ({}, True),
    "all of the chain, ours": (OTHERS | {"peer": kept(MINE, Dot(PEER, 6))}, False),
    "the winner alone, ours": ({"peer": kept(MINE, Dot(PEER, 6))}, True),
    "all but the winner, ours": (OTHERS, True),
    "the winner something else": (OTHERS | {"peer": kept(Dot(ME, 2), Dot(PEER, 6))}, True),
    "the winner, ours, after its write": (OTHERS | {"peer": kept(MINE, Dot(PEER, 7))}, True),
    "the winner, ours, at the start of its life": (OTHERS | {"peer": kept(MINE)}, False),
    "the winner, ours, in an earlier life": (
        OTHERS | {"peer": kept(MINE, incarnation=PEER.incarnation - 1)},
        False,
    ),
    "the winner, ours, in a later life": (
        OTHERS | {"peer": kept(MINE, incarnation=PEER.incarnation + 1)},
        True,
    ),
    "one in the chain, ours, after its write": (
        OTHERS | {"peer": kept(MINE), "n0": kept(MINE, FULL[0])},
        True,
    ),
    "the winner, ours, and what is not here, which may have beaten it": (
        OTHERS | {"peer": kept(MINE, Dot(PEER, 6), Dot(OTHER, 3))},
        True,
    ),
}


@pytest.mark.parametrize("name", ANNOUNCED)
def test_a_winner_whose_chain_is_full_knew_what_all_in_it_had_before(name: str, node: Node) -> None:
    announced, is_recorded = ANNOUNCED[name]
    node.write(A)
    node.hear(P("x").key, Dot(PEER, 6), tock=5)
    node.hear(P("y").key, FULL[0], tock=5)
    node.conflicts.look()
    found = node.found(node.hear(A, Dot(PEER, 7), *FULL, tock=1 << 40), **announced)
    assert (None if found is None else found["kind"]) == ("unsure" if is_recorded else None)


def test_what_came_since_the_last_look_may_have_beaten_it(node: Node) -> None:
    node.write(A)
    node.conflicts.look()
    node.hear(P("x").key, Dot(PEER, 6), tock=5)
    winner = node.hear(A, Dot(PEER, 7), *FULL, tock=1 << 40)
    assert node.found(winner, **OTHERS, peer=kept(MINE, Dot(PEER, 6)))


def test_a_deletion_that_was_reaped_is_forgotten_by_a_short_chain_too(node: Node) -> None:
    node.write(A)
    node.write(A, MISSING)
    node.conflicts.look()
    winner = node.hear(A, Dot(PEER, 7), tock=1 << 40)
    found = node.found(winner)
    assert found is not None
    assert found["kind"] == "unsure"
    assert node.found(winner, peer=kept(MINE, Dot(ME, 2))) is None


def test_a_short_chain_has_forgotten_no_value(node: Node) -> None:
    node.write(A)
    node.conflicts.look()
    found = node.found(node.hear(A, Dot(PEER, 7), tock=1 << 40), peer=kept(MINE))
    assert found is not None
    assert found["kind"] == "concurrent"


# --- fences -----------------------------------------------------------------------------------


def test_a_write_under_a_late_fence(node: Node) -> None:
    late = node.store.write(
        A, packb("late"), wall_ms=None, relaxed=False, done=lambda _: None, fence=Fence("job", 5)
    )
    node.sync()
    register = node.hear((FENCES / "job").key, Dot(PEER, 7), tock=1 << 40, value=90)
    key, packed = node.conflicts.of_fence(A, late.packed, register.packed)
    assert key == (CONFLICTS / "me" / (BASE + 1)).key
    found = unpack(packed)
    assert found["kind"] == "fence"
    assert found["path"] == ("a",)
    assert found["lost"]["value"] == "late"
    assert found["won"] == {"node": "peer", "tick": 2007, "tock": 1 << 40, "value": 90}


# --- how many ---------------------------------------------------------------------------------


def keep(node: Node, ticks: range) -> list[Any]:
    """Record conflicts as the network does; return which ones are trimmed."""
    trimmed: list[Any] = []
    for tick in ticks:
        key = (CONFLICTS / "me" / tick).key
        node.write(key)
        for old in node.conflicts.added(key):
            trimmed.append(Path.from_key(old).elements[-1])
            node.write(old, MISSING)
    return trimmed


def live(node: Node) -> list[Any]:
    keys = (CONFLICTS / "me" / tick for tick in range(1000))
    return [
        key.elements[-1] for key in keys if entries.is_live(node.store.get(key.key) or b"\0" * 9)
    ]


def test_the_newest_are_kept(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONFLICTS_MAX", 3)
    assert keep(node, range(1, 4)) == []
    assert keep(node, range(4, 7)) == [1, 2, 3]
    assert live(node) == [4, 5, 6]


@pytest.mark.parametrize("before", [2, 3, 5, 6, 7, 50])
def test_the_newest_are_kept_also_after_a_restart(
    before: int, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were trimmed are still there as tombstones, in front of the others."""
    monkeypatch.setattr(module, "CONFLICTS_MAX", 3)
    keep(node, range(1, before + 1))
    node.conflicts = Conflicts(node.store)
    keep(node, range(before + 1, before + 3))
    assert live(node) == list(range(before, before + 3))


def test_records_of_others_and_below_are_not_ours_to_trim(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONFLICTS_MAX", 1)
    node.write(CONFLICTS.key)
    node.write((CONFLICTS / "me").key)
    node.write((CONFLICTS / "men" / 1).key)
    node.write((CONFLICTS / "m" / 1).key)
    node.conflicts = Conflicts(node.store)
    assert keep(node, range(1, 2)) == []
    assert keep(node, range(2, 3)) == [1]
