"""What is saved of a tree that may not be merged, and where it may be written again."""

from __future__ import annotations

import pytest

from kvedge.model import entry as entries
from kvedge.model.entry import Entry
from kvedge.model.path import P
from kvedge.model.stamp import Dot, Rid
from kvedge.model.value import MISSING, Missing, packb
from kvedge.model.vector import Vector
from kvedge.protocol.batches import Carried
from kvedge.server.records import Loaded
from kvedge.server.recovery import Saved, may_be_applied, unsynced
from kvedge.server.store import Store

ME, BEFORE, PEER, OTHER = (
    Rid("me", 5 << 40),
    Rid("me", 4 << 40),
    Rid("peer", 2 << 40),
    Rid("other", 1 << 40),
)
A, B = P("a").key, P("b").key


class Log:
    """Counts."""

    def __init__(self) -> None:
        self.number = 0

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        self.number += 1
        return self.number


class Node:
    """A store whose disk has everything when asked."""

    def __init__(self) -> None:
        self.log = Log()
        self.store = Store(ME, 0, Loaded(), self.log)

    def sync(self) -> None:
        self.store.confirm(written_to=self.log.number, synced_to=self.log.number)

    def write(self, key: bytes, value: object = 1) -> None:
        packed = value if isinstance(value, Missing) else packb(value)
        self.store.write(key, packed, wall_ms=None, relaxed=False, done=lambda _: None)

    def hold(self, key: bytes, *chain: Dot, tock: int = 10, value: object = 1) -> None:
        packed = value if isinstance(value, Missing) else packb(value)
        self.store.take(Carried(key, tock, chain, packed), {})
        self.sync()


@pytest.fixture
def node() -> Node:
    """A node with nothing in it."""
    return Node()


# --- what is saved ----------------------------------------------------------------------------

UNSYNCED: dict[str, tuple[Dot, Vector, bool]] = {
    # the newest change, what the other one has seen, whether it is saved
    "seen": (Dot(PEER, 3), Vector.of({PEER: ((1, 3),)}), False),
    "not seen": (Dot(PEER, 3), Vector.of({PEER: ((1, 2),)}), True),
    "a gap": (Dot(PEER, 3), Vector.of({PEER: ((1, 2), (4, 9))}), True),
    "of somebody unknown": (Dot(PEER, 3), Vector.of({OTHER: ((1, 9),)}), True),
    "closed": (Dot(PEER, 3), Vector.of({}, {"peer": 3}), False),
    "of an earlier life of ours": (Dot(BEFORE, 3), Vector.of({BEFORE: ((1, 2),)}), True),
    "of a closed life of ours": (Dot(BEFORE, 3), Vector.of({}, {"me": 5}), False),
}


@pytest.mark.parametrize("value", [1, MISSING])
@pytest.mark.parametrize("name", UNSYNCED)
def test_what_the_other_one_has_not_seen_is_saved(name: str, value: object, node: Node) -> None:
    dot, seen, is_saved = UNSYNCED[name]
    node.hold(A, dot, value=value)
    packed = value if isinstance(value, Missing) else packb(value)
    expected = [Saved(A, Entry(10, (dot,), packed))] if is_saved else []
    assert unsynced(node.store, seen) == expected


@pytest.mark.parametrize(
    ("seen", "is_saved"),
    [
        (Vector(), True),
        (Vector.of({ME: ((1, 1),)}), False),
        (Vector.of({}, {"me": 6}), True),  # a later life was closed: of ours that says nothing
        (Vector.of({}, {"me": 5}), True),
    ],
)
def test_of_the_life_that_runs_a_floor_says_nothing(
    seen: Vector, is_saved: bool, node: Node
) -> None:
    node.write(A)
    node.sync()
    assert bool(unsynced(node.store, seen)) == is_saved


def test_what_is_saved_is_in_the_order_of_time(node: Node) -> None:
    node.hold(B, Dot(PEER, 2), tock=20)
    node.hold(A, Dot(PEER, 1), tock=30)
    node.hold(P("c").key, Dot(PEER, 3), tock=10)
    assert [saved.entry.tock for saved in unsynced(node.store, Vector())] == [10, 20, 30]


def test_only_the_newest_change_of_a_place_is_there_to_be_saved(node: Node) -> None:
    node.hold(A, Dot(PEER, 1))
    node.write(A, "mine")
    node.write(A, "newer")
    node.sync()
    [saved] = unsynced(node.store, Vector.of({PEER: ((1, 1),)}))
    assert saved.entry.value == packb("newer")
    assert saved.entry.chain == (Dot(ME, 2), Dot(PEER, 1))


# --- where it may be written again ------------------------------------------------------------

MINE = Dot(ME, 4)
LONG = tuple(Dot(Rid(f"n{number}", 1 << 40), 1) for number in range(4))

APPLIES: dict[str, tuple[tuple[Dot, ...], object, tuple[Dot, ...] | None, object, bool]] = {
    # what was saved (chain, value), what is there now (chain, value) -> whether it may
    "new, and nothing there": ((MINE,), 1, None, None, True),
    "deleted, and nothing there": ((MINE,), MISSING, None, None, False),
    "changed, and nothing there": ((MINE, Dot(PEER, 1)), 1, None, None, False),
    "what it was based on": ((MINE, Dot(PEER, 1)), 1, (Dot(PEER, 1),), 1, True),
    "a deletion of what it was based on": (
        (MINE, Dot(PEER, 1)),
        MISSING,
        (Dot(PEER, 1),),
        1,
        True,
    ),
    "something older": ((MINE, Dot(PEER, 3)), 1, (Dot(PEER, 2),), 1, True),
    "an earlier one of ours": ((MINE,), 1, (Dot(ME, 2),), 1, True),
    "one of an earlier life of ours": ((MINE,), 1, (Dot(BEFORE, 9),), 1, True),
    "a newer one": ((MINE, Dot(PEER, 1)), 1, (Dot(PEER, 2),), 1, False),
    "a newer deletion": ((MINE, Dot(PEER, 1)), 1, (Dot(PEER, 2),), MISSING, False),
    "one of somebody else": ((MINE, Dot(PEER, 1)), 1, (Dot(OTHER, 1),), 1, False),
    "one of somebody else, ours being new": ((MINE,), 1, (Dot(OTHER, 1),), 1, False),
    "one that a full chain may have known": ((MINE, *LONG), 1, (Dot(OTHER, 1),), 1, False),
}


@pytest.mark.parametrize("name", APPLIES)
def test_what_was_saved_is_written_again_where(name: str, node: Node) -> None:
    chain, value, now_chain, now_value, applies = APPLIES[name]
    packed = value if isinstance(value, Missing) else packb(value)
    if now_chain is not None:
        own = [dot for dot in now_chain if dot.rid == ME]
        node.store.rid = Rid("me", 6 << 40) if own else ME  # the life that has the copy
        node.hold(A, *now_chain, value=now_value)
    assert may_be_applied(Saved(A, Entry(50, chain, packed)), node.store) == applies


def test_a_write_that_is_under_way_counts(node: Node) -> None:
    """Somebody has decided otherwise a moment ago."""
    node.hold(A, Dot(PEER, 1))
    saved = Saved(A, Entry(50, (Dot(Rid("gone", 1), 4), Dot(PEER, 1)), packb(1)))
    assert may_be_applied(saved, node.store)
    node.write(A, "now")
    assert not may_be_applied(saved, node.store)
    assert entries.value_of(node.store.get(A) or b"") == packb(1)
