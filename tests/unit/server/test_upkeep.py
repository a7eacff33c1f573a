"""Quiet moments: what is reaped and closed, a slice at a time, and what memory has lost."""

from __future__ import annotations

import logging

import pytest

from kvedge.model import entry as entries
from kvedge.model.path import P, Path
from kvedge.model.stamp import Dot, Rid
from kvedge.model.value import MISSING, Missing, packb
from kvedge.model.vector import Vector
from kvedge.protocol.batches import Carried
from kvedge.protocol.membership import Kept, Membership, Record, Standing, State
from kvedge.protocol.replication import Way
from kvedge.server import upkeep
from kvedge.server.peers import StoreShelf
from kvedge.server.records import Loaded
from kvedge.server.store import Store
from kvedge.server.upkeep import RECOUNT_INTERVAL_S, REVIEW_INTERVAL_S, Upkeep

ME, PEER, OLD = Rid("me", 5 << 40), Rid("peer", 2 << 40), Rid("peer", 1 << 40)
A, B = P("a").key, P("b").key


class Log:
    """Counts."""

    def __init__(self) -> None:
        self.number = 0

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        self.number += 1
        return self.number


class Node:
    """A store with its upkeep, and a network of one more member where it is asked for."""

    def __init__(self, *, is_alone: bool = True) -> None:
        self.log = Log()
        self.store = Store(ME, 0, Loaded(), self.log)
        self.shelf = StoreShelf(self.store)
        self.members: Membership | None = None
        if not is_alone:
            self.members = Membership(
                ME, Vector(), self.shelf.base, is_fresh=True, kept={}, unheard_s={}
            )
            self.members.records = {n: Record(State.MEMBER) for n in ("me", "peer")}
        self.awaited: set[bytes] = set()
        self.asked: list[bytes] = []
        self.now = 0.0
        self.upkeep = Upkeep(self.store, self.shelf, self.members, self.is_awaited, 0.0)

    def is_awaited(self, key: bytes) -> bool:
        self.asked.append(key)
        return key in self.awaited

    def write(self, key: bytes, value: object = 1) -> None:
        packed = value if isinstance(value, Missing) else packb(value)
        self.store.write(key, packed, wall_ms=None, relaxed=False, done=lambda _: None)

    def delete(self, *keys: bytes) -> None:
        for key in keys:
            self.write(key)
            self.write(key, MISSING)
        self.sync()

    def sync(self) -> None:
        number = self.log.number
        for pending in self.store.confirm(written_to=number, synced_to=number):
            self.shelf.settled(pending)

    def told(self, vector: Vector) -> None:
        """Let the other member announce a vector."""
        assert self.members is not None
        self.members.kept["peer"] = Kept(PEER.incarnation, 0, vector.copy())

    def pass_(self, seconds: float = REVIEW_INTERVAL_S) -> None:
        self.now += seconds
        self.upkeep.tick(self.now)

    @property
    def keys(self) -> set[bytes]:
        return {key for key, _ in self.store.tree.items()}


def record(key: bytes, *, rid: Rid = PEER, tick: int = 1, tock: int = 10) -> Carried:
    return Carried(key, tock, (Dot(rid, tick),), packb(1))


@pytest.fixture
def node() -> Node:
    """A server that works alone."""
    return Node()


@pytest.fixture
def member() -> Node:
    """A server with one more member."""
    return Node(is_alone=False)


# --- reaping ----------------------------------------------------------------------------------


def test_a_server_alone_drops_tombstones_that_are_on_the_disk(node: Node) -> None:
    node.delete(A)
    node.write(B)
    node.sync()
    node.write(B, MISSING)  # on its way
    node.pass_()
    assert node.keys == {B}
    node.sync()
    assert node.keys == {B}
    node.pass_()
    assert node.keys == set()


def test_a_member_drops_what_every_member_has_announced(member: Node) -> None:
    member.delete(A)
    first = member.store.durable.copy()
    member.delete(B)
    member.pass_()
    assert member.keys == {A, B}  # nothing was announced
    member.told(first)
    member.pass_()
    assert member.keys == {B}
    member.told(member.store.durable)
    member.pass_()
    assert member.keys == set()
    assert not member.store.tombstones


def test_who_is_not_sure_of_itself_drops_nothing(member: Node) -> None:
    assert member.members is not None
    member.delete(A)
    member.told(member.store.durable)
    for standing in (Standing.UNSURE, Standing.REGRESSED, Standing.EXPIRED):
        member.members.standing = standing
        member.pass_()
        assert member.keys == {A}
    member.members.standing = Standing.GOOD
    member.pass_()
    assert member.keys == set()


def test_tombstones_go_in_slices(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "SLICE", 3)
    node.delete(*(Path(number).key for number in range(8)))
    left = []
    for _ in range(4):
        node.pass_(0.0)
        left.append(len(node.keys))
    assert left == [5, 2, 0, 0]


def test_what_changes_between_two_slices_is_looked_at_then(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "SLICE", 1)
    keys = [Path(number).key for number in range(4)]
    node.delete(*keys)
    node.pass_(0.0)
    node.write(keys[1])
    node.sync()
    node.write(keys[2])  # under way
    for _ in range(3):
        node.pass_(0.0)
    assert node.keys == {keys[1], keys[2]}
    node.sync()
    assert node.store.tree.live_count == 2


def test_what_somebody_has_to_be_told_is_held_back_until_it_is(node: Node) -> None:
    node.delete(A, B)
    node.awaited = {A}
    node.pass_()
    assert node.keys == {A}
    node.pass_()
    assert node.keys == {A}
    node.awaited = set()
    node.pass_()  # although nothing else has become stable
    assert node.keys == set()


def test_what_may_not_go_is_not_looked_at_again_until_more_may(member: Node) -> None:
    member.delete(A)
    first = member.store.durable.copy()
    member.delete(B)
    member.told(first)
    member.awaited = set()
    for _ in range(5):
        member.pass_()
    assert member.keys == {B}
    assert member.asked == [A, B]


def test_reviews_have_their_interval(node: Node) -> None:
    node.pass_(0.0)
    node.delete(A)
    node.pass_(REVIEW_INTERVAL_S * 0.9)
    assert node.keys == {A}
    node.pass_(REVIEW_INTERVAL_S * 0.2)
    assert node.keys == set()


def test_a_reaped_tombstone_does_not_show_in_the_digests(node: Node) -> None:
    node.write(B)
    node.delete(A)
    root = node.shelf.root()
    node.pass_()
    assert node.keys == {B}
    assert node.shelf.root() == root == StoreShelf(node.store).root()


# --- closing ----------------------------------------------------------------------------------


def test_lives_that_all_members_have_are_closed(member: Node) -> None:
    for rid in (OLD, PEER):
        member.store.take(record(Path(rid.incarnation).key, rid=rid), {}, Way.UPDATE)
    member.write(A)
    member.sync()
    member.pass_()
    member.sync()
    assert member.store.seen.floors == {}
    member.told(member.store.durable)
    member.pass_()
    member.sync()
    assert member.store.seen.floors == {"peer": 2}
    number = member.log.number
    member.told(member.store.durable)
    member.pass_()
    assert member.log.number == number  # once


# --- recounting -------------------------------------------------------------------------------


def recounted(node: Node) -> None:
    """Let a whole look at the tree pass."""
    node.pass_(RECOUNT_INTERVAL_S)
    for _ in range(20):
        node.pass_(0.0)


def lose(node: Node, key: bytes) -> None:
    """Lose an entry in memory."""
    node.store.tree.drop(key)


@pytest.mark.parametrize("slice_", [1, 3, 1000])
def test_what_memory_has_lost_shows_in_the_digests(
    node: Node, slice_: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(upkeep, "SLICE", slice_)
    for number in range(7):
        node.write(Path(number).key)
    node.sync()
    whole = node.shelf.root()
    recounted(node)
    assert node.shelf.root() == whole
    assert not caplog.records
    lose(node, Path(4).key)
    assert node.shelf.root() == whole
    recounted(node)
    assert node.shelf.root() == StoreShelf(node.store).root() != whole
    assert [entry.levelno for entry in caplog.records] == [logging.ERROR]
    recounted(node)
    assert len(caplog.records) == 1  # told once


def test_a_look_at_a_tree_that_changes_finds_nothing_wrong(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(upkeep, "SLICE", 2)
    keys = [Path(number).key for number in range(9)]
    for key in keys[:7]:
        node.write(key)
    node.sync()
    node.pass_(RECOUNT_INTERVAL_S)
    for key in (keys[0], keys[6], keys[7]):  # behind and before it
        node.write(key, 2)
        node.sync()
        node.pass_(REVIEW_INTERVAL_S)
    node.write(keys[1], MISSING)
    node.write(keys[8])
    node.sync()
    for _ in range(9):
        node.pass_(REVIEW_INTERVAL_S)
    assert not caplog.records
    assert node.shelf.root() == StoreShelf(node.store).root()


def test_an_empty_tree_can_be_looked_at(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    recounted(node)
    assert not caplog.records


def test_where_nobody_compares_digests_rids_are_forgotten_all_the_same(node: Node) -> None:
    node.upkeep = Upkeep(node.store, None, None, node.is_awaited, 0.0)
    node.store.number_of(OLD)
    node.write(A)
    node.sync()
    recounted(node)
    assert not node.store.rids.knows(OLD)
    assert node.store.rids.knows(ME)


def test_rids_that_nothing_names_are_forgotten_and_those_of_announcements_are_not(
    member: Node,
) -> None:
    assert member.members is not None
    kept, gone = Rid("kept", 1 << 40), Rid("gone", 1 << 40)
    for rid in (kept, gone, PEER):
        member.store.number_of(rid)
    member.store.take(record(A), {}, Way.UPDATE)
    member.sync()
    member.told(Vector.of({kept: ((1, 1),)}))
    recounted(member)
    assert [member.store.rids.knows(rid) for rid in (kept, gone, PEER)] == [True, False, True]


def test_a_record_that_settles_behind_the_look_keeps_its_writers(node: Node) -> None:
    node.write(B)
    node.sync()
    other = Rid("other", 1 << 40)
    node.store.take(Carried(A, 100, (Dot(PEER, 1), Dot(other, 4)), packb(1)), {}, Way.UPDATE)
    node.pass_(RECOUNT_INTERVAL_S)
    node.sync()
    recounted(node)
    packed = node.store.get(A)
    assert packed is not None
    assert entries.chain_of(packed, node.store.rids) == (Dot(PEER, 1), Dot(other, 4))
