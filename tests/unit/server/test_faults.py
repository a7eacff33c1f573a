"""The faults of a server: stored where `kv error` finds them, counted, resolved, never mixed up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kvedge.client.faults import Fault
from kvedge.model import entry as entries
from kvedge.model.path import KV, P, Path
from kvedge.model.stamp import Rid
from kvedge.model.value import packb, unpack
from kvedge.server.faults import AGAIN_S, SUBSYSTEM, ServerFaults
from kvedge.server.records import Loaded
from kvedge.server.store import Store

ME = Rid("me", 5 << 40)
PLACE = KV / "error" / "me"


class Clock:
    """Stands where the test says."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def wall_s(self) -> float:
        return 1_700_000_000 + self.now_s

    def wall_is_synchronised(self) -> bool:
        return True

    def boottime_s(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class Log:
    """Counts."""

    def __init__(self) -> None:
        self.number = 0

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        self.number += 1
        return self.number


class Node:
    """A store and the faults of its server."""

    def __init__(self) -> None:
        self.log = Log()
        self.store = Store(ME, 0, Loaded(), self.log)
        self.clock = Clock()
        self.restart()

    def restart(self) -> None:
        self.faults = ServerFaults(self.store, self.clock, lambda: None)

    def sync(self) -> None:
        self.store.confirm(written_to=self.log.number, synced_to=self.log.number)

    def write(self, path: Path, value: object) -> None:
        self.store.write(path.key, packb(value), wall_ms=None, relaxed=False, done=lambda _: None)
        self.sync()

    def stored(self) -> dict[str, Fault]:
        """Return what `kv error list` would show, by the last word of its path."""
        self.sync()
        found = {}
        for key in self.store.tree.walk(PLACE.key, count=100):
            value: Any = entries.value_of(self.store.get(key) or b"")
            fault = Fault.from_value(unpack(value))
            assert fault is not None
            found[str(fault.path[-1])] = fault
        return found


@pytest.fixture
def node() -> Node:
    """A server without faults."""
    return Node()


def test_a_fault_is_one_that_clients_can_read(node: Node) -> None:
    node.clock.advance(30)
    now = node.clock.wall_s()
    node.faults.record("clock", "it is ahead")
    assert node.stored() == {
        "clock": Fault(
            Path("server", "me", "clock"),
            SUBSYSTEM,
            "error",
            resolved=False,
            created=now,
            count=1,
            first_seen=now,
            last_seen=now,
            message="it is ahead",
        )
    }


def test_it_is_counted_once_a_minute(node: Node) -> None:
    began = node.clock.wall_s()
    for _ in range(10):
        node.faults.record("clock", "ahead")
        node.clock.advance(AGAIN_S / 5)
    assert node.stored()["clock"].count == 2
    node.faults.record("clock", "still ahead")
    fault = node.stored()["clock"]
    assert (fault.count, fault.message) == (3, "still ahead")
    assert (fault.created, fault.first_seen) == (began, began)
    assert fault.last_seen == node.clock.wall_s()


def test_it_is_resolved_and_begins_anew(node: Node) -> None:
    began = node.clock.wall_s()
    node.faults.record("clock", "ahead")
    node.faults.resolve("clock")
    assert node.stored()["clock"].resolved
    node.clock.advance(1)
    node.faults.record("clock", "again")  # at once: it was over
    fault = node.stored()["clock"]
    assert not fault.resolved
    assert (fault.created, fault.count) == (began, 2)
    assert fault.first_seen == fault.last_seen == began + 1


def test_what_was_never_wrong_is_not_resolved(node: Node) -> None:
    node.faults.resolve("clock")
    assert node.log.number == 0


def test_what_is_over_is_not_resolved_again(node: Node) -> None:
    node.faults.record("clock", "ahead")
    node.faults.resolve("clock")
    number = node.log.number
    node.faults.resolve("clock")
    assert node.log.number == number


@pytest.mark.parametrize("is_synced", [False, True])
def test_two_faults_of_one_moment_are_two(is_synced: bool, node: Node) -> None:
    node.faults.record("clock", "one")
    if is_synced:
        node.sync()
    node.faults.record("name", "two")
    assert {what: fault.message for what, fault in node.stored().items()} == {
        "clock": "one",
        "name": "two",
    }
    node.faults.resolve("clock")
    assert [what for what, fault in node.stored().items() if fault.resolved] == ["clock"]


def test_a_place_that_a_runner_has_taken_is_left_to_it(node: Node) -> None:
    theirs = Fault(P("a.b"), "run", message="theirs")
    node.write(PLACE / node.store.tock, theirs.to_value())
    node.write(PLACE / node.store.tock, theirs.to_value())
    node.write(PLACE / (node.store.tock + 1), theirs.to_value())
    node.faults.record("clock", "ours")
    assert {fault.message for fault in node.stored().values()} == {"theirs", "ours"}


# --- after a restart --------------------------------------------------------------------------


def test_a_fault_goes_on_after_a_restart(node: Node) -> None:
    node.faults.record("clock", "ahead")
    node.sync()
    node.restart()
    node.faults.record("clock", "still ahead")
    assert {what: fault.count for what, fault in node.stored().items()} == {"clock": 2}
    node.restart()
    node.faults.resolve("clock")
    assert node.stored()["clock"].resolved


def test_one_that_somebody_removed_begins_anew(node: Node) -> None:
    node.faults.record("clock", "ahead")
    node.sync()
    [key] = node.store.tree.walk(PLACE.key, count=9)
    node.write(Path.from_key(key), "no fault any more")
    node.clock.advance(AGAIN_S)
    node.faults.resolve("clock")
    node.faults.record("clock", "ahead again")
    others = [k for k in node.store.tree.walk(PLACE.key, count=9) if k != key]
    assert others == []  # it is under way
    node.sync()
    [other] = [k for k in node.store.tree.walk(PLACE.key, count=9) if k != key]
    value: Any = entries.value_of(node.store.get(other) or b"")
    assert Fault.from_value(unpack(value)).count == 1  # type: ignore[union-attr]


ODD: dict[str, tuple[Path, object]] = {
    "no map": (PLACE / 7, 7),
    "no path": (PLACE / 7, {"subsystem": SUBSYSTEM}),
    "an empty path": (PLACE / 7, {"subsystem": SUBSYSTEM, "path": ()}),
    "an empty path of another form": (PLACE / 7, {"subsystem": SUBSYSTEM, "path": Path()}),
    "a path of text": (PLACE / 7, {"subsystem": SUBSYSTEM, "path": "clock"}),
    "of somebody else": (PLACE / 7, {"subsystem": "run", "path": ("server", "me", "clock")}),
    "a detail": (PLACE / 7 / "me", {"subsystem": SUBSYSTEM, "path": ("server", "me", "clock")}),
    "the place of all": (PLACE, {"subsystem": SUBSYSTEM, "path": ("server", "me", "clock")}),
    "another node's": (
        KV / "error" / "men" / 7,
        {"subsystem": SUBSYSTEM, "path": ("server", "men", "clock")},
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_no_fault_of_ours_is_left_alone(name: str, node: Node) -> None:
    path, value = ODD[name]
    node.write(path, value)
    before = node.store.get(path.key)
    node.restart()
    node.faults.resolve("clock")
    node.faults.record("clock", "ahead")
    node.sync()
    assert node.store.get(path.key) == before


def test_a_tree_that_is_being_replaced_takes_none(node: Node) -> None:
    node.store.is_frozen = True
    node.faults.record("clock", "ahead")
    node.store.is_frozen = False
    node.clock.advance(AGAIN_S)
    node.faults.record("clock", "still ahead")
    assert node.stored()["clock"].message == "still ahead"


def test_the_wall_clock_stamps_the_writes(node: Node) -> None:
    wall_ms: Callable[[], int] = lambda: 1_700_000_000_000  # noqa: E731 -- it is a value
    ServerFaults(node.store, node.clock, wall_ms).record("clock", "ahead")
    node.sync()
    [key] = node.store.tree.walk(PLACE.key, count=9)
    assert entries.tock_of(node.store.get(key) or b"") >> 16 == 1_700_000_000_000
