"""Fences: who may still write, who is told, and which of our writes came too late."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvedge.errors import FencedOff
from kvedge.model.entry import Fence, fence_of
from kvedge.model.path import P, Path
from kvedge.model.places import FENCES
from kvedge.model.stamp import Dot, Rid
from kvedge.model.value import MISSING, packb
from kvedge.protocol.batches import Carried
from kvedge.protocol.messages import DeleteValue, SetValue
from kvedge.server.commands import carry_out
from kvedge.server.fences import Fences, register_key
from kvedge.server.records import Loaded
from kvedge.server.remote import Deputy
from kvedge.server.store import Store

ME, BEFORE, PEER = Rid("me", 5 << 40), Rid("me", 4 << 40), Rid("peer", 2 << 40)
JOB = "job.a"
DOOR = P("door").key


class Log:
    """Counts."""

    def __init__(self) -> None:
        self.number = 0

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        self.number += 1
        return self.number


class Node:
    """A store and its fences; the test says when the disk has something."""

    def __init__(self) -> None:
        self.log = Log()
        self.store = Store(ME, 0, Loaded(), self.log)
        self.fences = Fences(self.store)
        self.ticks = 0

    def sync(self) -> None:
        for pending in self.store.confirm(written_to=self.log.number, synced_to=self.log.number):
            if pending.has_won:
                self.fences.settled(pending.key, pending.packed)
            pending.done(None)

    def write(self, key: bytes, value: object = 1, fence: int | None = None) -> bytes:
        right = None if fence is None else Fence(JOB, fence)
        packed: Any = MISSING if value is MISSING else packb(value)
        written = self.store.write(
            key, packed, wall_ms=None, relaxed=False, done=lambda _: None, fence=right
        )
        self.sync()
        return written.packed

    def hear(
        self, key: bytes, value: object, tock: int, rid: Rid = PEER, fence: Any = None
    ) -> bytes:
        """Take something from another server; return the entry that is held then."""
        self.ticks += 1
        packed: Any = MISSING if value is MISSING else packb(value)
        self.store.take(Carried(key, tock, (Dot(rid, self.ticks),), packed, fence), {})
        self.sync()
        return self.store.get(key) or b""

    def ask(self, request: SetValue | DeleteValue) -> list[bytes]:
        replies: list[bytes] = []
        carry_out(request, Deputy(self.store, self.fences, lambda: None, replies.append))
        self.sync()
        return replies


@pytest.fixture
def node() -> Node:
    """A server that knows of nothing."""
    return Node()


# --- who may write ----------------------------------------------------------------------------


def test_a_lower_fence_is_refused_where_a_higher_one_is_known(node: Node) -> None:
    node.fences.check(Fence(JOB, 5))
    node.fences.check(Fence(JOB, 5))
    node.fences.check(Fence(JOB, 7))
    with pytest.raises(FencedOff) as caught:
        node.fences.check(Fence(JOB, 5))
    assert (caught.value.job, caught.value.fence, caught.value.known) == (JOB, 5, 7)
    node.fences.check(Fence(JOB, 7))
    node.fences.check(Fence("another", 1))


def test_a_fence_that_another_server_tells_of_counts(node: Node) -> None:
    node.hear(register_key(JOB), 7, tock=50)
    with pytest.raises(FencedOff):
        node.fences.check(Fence(JOB, 6))
    node.hear(register_key(JOB), 3, tock=60)  # a later write of a lower one takes nothing back
    with pytest.raises(FencedOff):
        node.fences.check(Fence(JOB, 6))
    node.fences.check(Fence(JOB, 7))


REGISTERS: dict[str, tuple[Path, object]] = {
    "a text": (FENCES / JOB, "9"),
    "a truth value": (FENCES / JOB, True),
    "nothing": (FENCES / JOB, None),
    "a deletion": (FENCES / JOB, MISSING),
    "one level too deep": (FENCES / JOB / "x", 9),
    "the place of all": (FENCES, 9),
    "a job that is no text": (FENCES / 7, 9),
    "somewhere else": (P("a.b"), 9),
}


@pytest.mark.parametrize("name", REGISTERS)
def test_what_is_no_register_says_nothing(name: str, node: Node) -> None:
    path, value = REGISTERS[name]
    node.write(DOOR, fence=1)
    packed = node.hear(path.key, value, tock=50)
    node.fences.check(Fence(JOB, 1))
    assert node.fences.late_writes(path.key, packed) == []
    again = node.fences.to_tell_again(path.key, packed)
    assert again is None


def test_fences_are_known_after_a_restart(node: Node) -> None:
    node.hear(register_key(JOB), 7, tock=50)
    with pytest.raises(FencedOff):
        Fences(node.store).check(Fence(JOB, 6))


# --- who is told ------------------------------------------------------------------------------


def test_a_new_fence_is_to_be_told_once(node: Node) -> None:
    assert node.fences.check(Fence(JOB, 5))
    node.write(register_key(JOB), 5)
    assert not node.fences.check(Fence(JOB, 5))
    assert node.fences.check(Fence(JOB, 6))


def test_what_the_disk_refused_is_told_with_the_next_write(node: Node) -> None:
    """Or the others never learn of this fence."""
    assert node.fences.check(Fence(JOB, 5))
    pending = node.store.write(
        register_key(JOB), packb(5), wall_ms=None, relaxed=False, done=lambda _: None
    )
    assert not node.fences.check(Fence(JOB, 5))  # it is on its way
    node.store.refuse(pending.number)
    assert node.fences.check(Fence(JOB, 5))


@pytest.mark.parametrize("request_", [
    SetValue(DOOR, packb(1), fence=Fence(JOB, 5)),
    DeleteValue(DOOR, fence=Fence(JOB, 5)),
])  # fmt: skip
def test_a_write_under_a_fence_writes_its_register_first(
    node: Node, request_: SetValue | DeleteValue
) -> None:
    node.write(DOOR)
    order: list[bytes] = []
    write = node.store.write

    def noted(key: bytes, *args: Any, **kwargs: Any) -> Any:
        order.append(key)
        return write(key, *args, **kwargs)

    node.store.write = noted  # type: ignore[method-assign]
    node.ask(request_)
    node.ask(request_)
    assert order[:2] == [register_key(JOB), DOOR]
    assert order.count(register_key(JOB)) == 1
    assert fence_of(node.store.get(DOOR) or b"") == Fence(JOB, 5)


def test_a_condition_that_does_not_hold_comes_first(node: Node) -> None:
    """A write that was not made gives nobody the right."""
    node.write(DOOR, "other")
    [reply] = node.ask(SetValue(DOOR, packb(1), chain=None, fence=Fence(JOB, 5)))
    assert b"chain" in reply
    assert node.store.get(register_key(JOB)) is None


def test_a_register_that_fell_behind_is_written_again(node: Node) -> None:
    node.fences.check(Fence(JOB, 7))
    key = register_key(JOB)
    lower, same, higher = (node.hear(key, n, tock=50 + n) for n in (6, 7, 8))
    assert node.fences.to_tell_again(key, lower) == Fence(JOB, 8)
    assert node.fences.to_tell_again(key, same) == Fence(JOB, 8)
    assert node.fences.to_tell_again(key, higher) is None
    assert node.fences.to_tell_again(DOOR, lower) is None


# --- what came too late -----------------------------------------------------------------------


def late(node: Node, number: int) -> list[bytes]:
    key = register_key(JOB)
    return [
        place for place, _ in node.fences.late_writes(key, node.hear(key, number, tock=1 << 40))
    ]


def test_a_write_after_a_higher_fence_was_given_came_too_late(node: Node) -> None:
    node.hear(P("x").key, 1, tock=100)  # the clock of this board stands there
    written = node.write(DOOR, fence=5)
    key = register_key(JOB)
    register = node.hear(key, 90, tock=200)  # given at 90, we have written after 100
    assert node.fences.late_writes(key, register) == [(DOOR, written)]


def test_it_is_told_once(node: Node) -> None:
    """Who has resolved the conflict does not get it back with the next lease."""
    node.hear(P("x").key, 1, tock=100)
    node.write(DOOR, fence=5)
    assert late(node, 90) == [DOOR]
    assert late(node, 91) == []


NOT_LATE: dict[str, tuple[int | None, int]] = {
    # fence of the write at a tock above 100, number of the register that comes
    "before the right was given": (5, 1 << 20),
    "under the same fence": (90, 90),
    "under a higher fence": (95, 90),
    "under none": (None, 90),
}


@pytest.mark.parametrize("name", NOT_LATE)
def test_writes_that_are_not_late(name: str, node: Node) -> None:
    fence, number = NOT_LATE[name]
    node.hear(P("x").key, 1, tock=100)
    node.write(DOOR, fence=fence)
    assert late(node, number) == []


def test_what_was_not_late_may_be_so_for_the_next_one(node: Node) -> None:
    node.hear(P("x").key, 1, tock=100)
    node.write(DOOR, fence=5)
    assert late(node, 5) == []
    assert late(node, 90) == [DOOR]


def test_what_somebody_has_written_since_is_no_matter(node: Node) -> None:
    node.hear(P("x").key, 1, tock=100)
    node.write(DOOR, fence=5)
    node.write(P("lamp").key, fence=5)
    node.write(P("fan").key, fence=5)
    node.write(DOOR)
    node.hear(P("lamp").key, 2, tock=1 << 30, fence=Fence(JOB, 5))  # another server's to tell
    assert late(node, 90) == [P("fan").key]


def test_late_writes_of_an_earlier_life_are_ours(node: Node) -> None:
    node.hear(DOOR, 1, tock=100, rid=BEFORE, fence=Fence(JOB, 5))
    node.hear(P("lamp").key, 1, tock=100, fence=Fence(JOB, 5))
    node.fences = Fences(node.store)
    assert late(node, 90) == [DOOR]


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 9))))
def test_no_fence_is_taken_below_one_that_was_taken(steps: list[tuple[str, int]]) -> None:
    node = Node()
    highest: dict[str, int] = {}
    for job, number in steps:
        try:
            node.fences.check(Fence(job, number))
        except FencedOff:
            assert number < highest[job]
        else:
            assert number >= highest.get(job, 0)
            highest[job] = number
