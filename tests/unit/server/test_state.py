"""The lists of a server's state: what is present, deleted, superseded, and what somebody lacks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from kvedge import limits
from kvedge.model.path import P
from kvedge.model.stamp import Dot, Rid
from kvedge.model.value import MISSING, packb
from kvedge.model.vector import Vector
from kvedge.protocol.batches import Carried
from kvedge.protocol.messages import GetState
from kvedge.server import state
from kvedge.server.records import Loaded
from kvedge.server.state import StateReport
from kvedge.server.store import Store

ME, PEER, AWAY = Rid("me", 3), Rid("peer", 5), Rid("away", 7)
ALL = GetState(**dict.fromkeys(("nodes", "known", "superseded", "deleted", "missing", "present", "remote_missing"), True))  # fmt: skip # noqa: E501


class CountLog:
    """Counts what is submitted."""

    def __init__(self) -> None:
        self.number = 0

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        self.number += 1
        return self.number


class Node:
    """A store whose disk is fast; shown ticks are 100 above ours."""

    def __init__(self) -> None:
        self.log = CountLog()
        self.store = Store(ME, 100, Loaded(), self.log)

    def write(self, path: str, value: Any = 1) -> None:
        packed = MISSING if value is MISSING else packb(value)
        self.store.write(P(path).key, packed, wall_ms=None, relaxed=False, done=lambda _: None)
        self.confirm()

    def take(self, path: str, tick: int, value: Any = 1) -> None:
        """Take a change of the peer, whose shown ticks are 10 above its own."""
        packed = MISSING if value is MISSING else packb(value)
        record = Carried(P(path).key, 1 << 30 | tick, (Dot(PEER, tick),), packed)
        self.store.take(record, {PEER: 10})
        self.confirm()

    def confirm(self) -> None:
        self.store.confirm(written_to=self.log.number, synced_to=self.log.number)

    def told(self, request: GetState = ALL, peers: dict[str, Vector] | None = None) -> Any:
        """Return the lists, and in how many slices they were made."""
        due: deque[Callable[[], None]] = deque()
        found: list[dict[str, Any]] = []
        report = StateReport(self.store, request, peers or {}, later=due.append, done=found.append)
        report.go_on()
        slices = 1
        while due:
            due.popleft()()
            slices += 1
        assert len(found) == 1
        return SimpleNamespace(**found[0], fields=found[0], slices=slices)


@pytest.fixture
def node() -> Node:
    """A server with four changes of its own: a was overwritten, b is deleted, c is there."""
    made = Node()
    made.write("a")
    made.write("a", 2)
    made.write("b")
    made.write("b", MISSING)
    made.write("c")
    return made


def test_each_known_change_is_present_deleted_or_superseded(node: Node) -> None:
    told = node.told()
    assert told.nodes == {"me": 105}
    assert told.known == {"me": [(101, 106)]}
    assert told.present == {"me": [(102, 103), (105, 106)]}
    assert told.deleted == {"me": [(104, 105)]}
    assert told.superseded == {"me": [(101, 102), (103, 104)]}
    assert told.missing == told.remote_missing == {}


def test_gaps_are_missing(node: Node) -> None:
    node.take("x", 3)
    node.take("y", 6)
    told = node.told()
    assert told.known["peer"] == [(13, 14), (16, 17)]
    assert told.missing == {"peer": [(11, 13), (14, 16)]}
    assert told.nodes["peer"] == 16


def test_what_peers_announced_and_we_lack_is_missing(node: Node) -> None:
    node.take("x", 1)
    announced = Vector.of({PEER: ((1, 4),), ME: ((1, 5),), AWAY: ((2, 3),)})
    told = node.told(peers={"peer": announced})
    assert told.missing == {"peer": [(12, 15)], "away": [(2, 4)]}


def test_what_some_peer_has_not_announced_is_missing_there(node: Node) -> None:
    peers = {"one": Vector.of({ME: ((1, 3),)}), "two": Vector.of({ME: ((1, 1), (3, 5))})}
    assert node.told(peers=peers).remote_missing == {"me": [(102, 103), (104, 106)]}


def test_only_what_was_asked_for_is_told(node: Node) -> None:
    assert node.told(GetState(deleted=True)).fields == {"deleted": {"me": [(104, 105)]}}
    assert node.told(GetState()).fields == {}
    debug = node.told(GetState(debug=True)).debug
    assert (debug["entries"], debug["tombstones"], debug["writes_under_way"]) == (2, 1, 0)


def test_others_have_their_turn_while_the_tree_is_looked_at(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = node.told().fields
    monkeypatch.setattr(state, "SLICE", 2)
    told = node.told()
    assert told.slices == 2
    assert told.fields == whole
    assert node.told(GetState(nodes=True, known=True, missing=True)).slices == 1


def test_a_long_list_keeps_its_newest_ranges(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STATE_RANGES_MAX", 2)
    for number in range(4):
        node.write(f"x{number}")
        node.write("again")
    told = node.told()
    assert told.present == {"me": [(110, 111), (112, 114)]}
    assert told.fields["left_out"] == {"present": {"me": 3}, "superseded": {"me": 3}}
    assert told.known == {"me": [(101, 114)]}


def test_many_ranges_take_no_quadratic_time() -> None:
    """Half of 200,000 changes are superseded, one by one; both lists would meet each pair."""
    count = 100_000
    ranges = [(1, 2 * count)]
    away = [(2 * n, 2 * n) for n in range(1, count + 1)]
    left = list(state._without(ranges, away))
    assert left == [(2 * n - 1, 2 * n - 1) for n in range(1, count + 1)]
    assert list(state._without(left, away)) == left
    assert list(state._without(left, left)) == []


@pytest.mark.parametrize(
    ("ranges", "away", "left"),
    [
        ([(1, 9)], [], [(1, 9)]),
        ([(1, 9)], [(1, 9)], []),
        ([(1, 9)], [(0, 20)], []),
        ([(1, 9)], [(3, 4), (6, 6)], [(1, 2), (5, 5), (7, 9)]),
        ([(1, 3), (5, 9)], [(2, 6)], [(1, 1), (7, 9)]),
        ([(1, 3), (5, 9), (12, 12)], [(3, 3), (9, 12)], [(1, 2), (5, 8)]),
        ([(5, 9)], [(1, 2), (3, 5), (20, 30)], [(6, 9)]),
    ],
)
def test_without(ranges: Any, away: Any, left: Any) -> None:
    assert list(state._without(ranges, away)) == left
