"""The store among peers: what it takes from them, what it counts as seen, what it has for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvedge.errors import AgentError
from kvedge.model import entry as entries
from kvedge.model.path import P, Path
from kvedge.model.stamp import Dot, Rid, tock_at
from kvedge.model.value import MISSING, Missing, packb, unpack
from kvedge.model.vector import Vector
from kvedge.protocol.batches import Carried
from kvedge.protocol.exchange import Outgoing
from kvedge.protocol.membership import Event as MembershipEvent
from kvedge.protocol.replication import Arrived, Event, Replication, carried_bytes
from kvedge.server import peers
from kvedge.server.peers import StoreShelf
from kvedge.server.records import Loaded, load_file
from kvedge.server.store import Pending, Store

ME, PEER, OTHER = Rid("me", 5 << 40), Rid("peer", 1 << 40), Rid("other", 1 << 40)
BASES = {PEER: 7, OTHER: 9}
A, B, C = P("a").key, P("b").key, P("c").key
NOON_MS = 1_700_000_000_000
NOON = tock_at(NOON_MS)


class HandLog:
    """Takes payloads; the test says when they are on disk, and when they are refused."""

    def __init__(self) -> None:
        self.payloads: list[tuple[int, bytes]] = []
        self.number = 0

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        self.number += 1
        self.payloads.append((self.number, payload))
        return self.number

    def ceilings(self) -> list[int]:
        unpacked = [msgpack.unpackb(payload) for _, payload in self.payloads]
        return [parts[1] for parts in unpacked if parts[0] == 2]


class Node:
    """A store, its shelf and its log."""

    def __init__(self, rid: Rid = ME) -> None:
        self.log = HandLog()
        self.store = Store(rid, 100, Loaded(), self.log)
        self.shelf = StoreShelf(self.store)

    def confirm(self, *, written_to: int | None = None, synced_to: int | None = None) -> list[Any]:
        """Let the disk have everything, or as much as is said."""
        ready = self.store.confirm(
            written_to=self.log.number if written_to is None else written_to,
            synced_to=self.log.number if synced_to is None else synced_to,
        )
        for pending in ready:
            self.shelf.settled(pending)
            pending.done(None)
        return ready

    def refuse(self, first: int) -> list[Pending]:
        self.log.payloads = [item for item in self.log.payloads if item[0] < first]
        return self.store.refuse(first)

    def write(
        self,
        key: bytes,
        value: object = 1,
        *,
        wall_ms: int | None = None,
        done: Callable[[AgentError | None], None] = lambda _: None,
    ) -> Pending:
        packed = value if isinstance(value, Missing) else packb(value)
        return self.store.write(key, packed, wall_ms=wall_ms, relaxed=False, done=done)

    def take(self, *records: Carried) -> None:
        for record in records:
            self.store.take(record, BASES)

    def value(self, key: bytes) -> object:
        packed = self.store.get(key)
        found = MISSING if packed is None else entries.value_of(packed)
        return MISSING if isinstance(found, Missing) else unpack(found)

    def reloaded(self) -> Loaded:
        """Return what a restart would find."""
        loaded = Loaded()
        load_file(loaded, [payload for _, payload in self.log.payloads])
        return loaded

    def held(self) -> dict[bytes, Carried]:
        return {key: self.shelf.carried(key, packed) for key, packed in self.store.tree.items()}


@pytest.fixture
def node() -> Node:
    """A node with nothing in it."""
    return Node()


def record(
    key: bytes = A, value: object = 1, *, tock: int = 10, rid: Rid = PEER, tick: int = 1
) -> Carried:
    packed = value if isinstance(value, Missing) else packb(value)
    return Carried(key, tock, (Dot(rid, tick),), packed)


def up_to(tick: int, rid: Rid = PEER) -> Vector:
    return Vector.of({rid: ((1, tick),)})


# --- taking records ---------------------------------------------------------------------------


def test_a_record_is_seen_when_it_is_stored(node: Node) -> None:
    node.take(record(value=7))
    assert Dot(PEER, 1) in node.shelf.taken
    assert Dot(PEER, 1) not in node.shelf.seen
    assert node.value(A) is MISSING

    [pending] = node.confirm()
    assert (pending.is_own, pending.has_won, pending.replaced) == (False, True, None)
    assert node.value(A) == 7
    assert node.shelf.seen == up_to(1)
    assert node.held() == {A: record(value=7)}
    assert node.shelf.base(PEER) == 7
    assert node.shelf.base(ME) == 100


def test_a_known_record_is_not_stored_again(node: Node) -> None:
    node.take(record())
    number = node.log.number
    node.take(record())
    node.confirm()
    node.take(record())
    assert node.log.number == number


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_largest_stamp_wins_in_any_order(node: Node, order: tuple[int, ...]) -> None:
    given_ = (
        record(value=0, tock=5, rid=PEER),
        record(value=1, tock=6, rid=OTHER),
        record(value=2, tock=6, rid=PEER, tick=2),  # "peer" > "other"
    )
    for at in order:
        node.take(given_[at])
    won = {pending.packed for pending in node.confirm() if pending.has_won}
    assert node.value(A) == 2
    assert node.store.get(A) in won
    assert node.shelf.seen == Vector.of({PEER: ((1, 2),), OTHER: ((1, 1),)})


def test_an_own_write_that_meets_a_newer_record_is_answered_and_not_held(node: Node) -> None:
    answers: list[AgentError | None] = []
    own = node.write(A, "mine", done=answers.append)
    node.take(record(value="theirs", tock=entries.tock_of(own.packed) + 1))
    foreign, mine = sorted(node.confirm(), key=lambda pending: pending.is_own)
    assert mine is own
    assert answers == [None]
    assert node.value(A) == "theirs"
    assert foreign.has_won
    assert Dot(ME, 1) in node.shelf.seen


def test_an_own_write_loses_to_what_came_between_stamp_and_disk(node: Node) -> None:
    node.write(C, wall_ms=NOON_MS)
    node.confirm()  # the ceiling is on disk: other servers' records need the file alone
    own = node.write(A, "mine", wall_ms=NOON_MS)
    node.take(record(value="theirs", tock=entries.tock_of(own.packed) + 1))
    [foreign] = node.confirm(synced_to=own.number - 1)
    assert (foreign.is_own, foreign.has_won) == (False, True)
    assert node.confirm() == [own]
    assert (own.has_won, own.replaced) == (False, foreign.packed)
    assert node.value(A) == "theirs"
    assert node.store.newest(A) == foreign.packed
    assert node.shelf.root() == StoreShelf(node.store).root()


def test_a_write_after_a_record_is_newer_than_it(node: Node) -> None:
    node.take(record(value="theirs", tock=1 << 40))
    node.write(A, "mine")
    node.confirm()
    assert node.value(A) == "mine"


# --- the clock --------------------------------------------------------------------------------


def test_the_tock_moves_up_to_a_received_one_once_a_restart_would_know_it(node: Node) -> None:
    node.take(record(tock=NOON))
    assert node.store.tock == 0
    assert node.confirm(synced_to=0) == []  # the ceiling is not on disk
    node.confirm()
    assert node.store.tock == NOON
    assert node.reloaded().tock >= NOON
    later = node.write(B)
    assert entries.tock_of(later.packed) == NOON + 1


def test_an_old_record_does_not_turn_the_tock_back(node: Node) -> None:
    node.take(record(tock=NOON), record(B, tock=5, tick=2))
    node.confirm()
    assert node.store.tock == NOON


def test_a_record_below_the_ceiling_on_disk_waits_for_the_file_alone(node: Node) -> None:
    node.take(record(tock=NOON))
    node.confirm()
    synced_to = node.log.number
    node.take(record(tock=NOON + 1, tick=2))
    assert len(node.confirm(synced_to=synced_to)) == 1
    assert len(node.log.ceilings()) == 1


def test_the_ceiling_that_a_record_raises_is_announced_before_it(node: Node) -> None:
    node.take(record(tock=NOON))
    node.confirm()
    node.take(record(tock=2 * NOON, tick=2))
    assert len(node.log.ceilings()) == 2
    assert node.log.ceilings()[-1] >= 2 * NOON
    assert node.confirm(synced_to=node.log.number - 1) == []
    assert len(node.confirm()) == 1


# --- refusals ---------------------------------------------------------------------------------


def test_a_refused_record_is_neither_taken_nor_seen_and_comes_again(node: Node) -> None:
    node.take(record())
    node.confirm()
    first = node.log.number + 1
    node.take(record(B, tick=2))
    own = node.write(C)
    assert [pending.is_own for pending in node.refuse(first)] == [False, True]
    assert node.shelf.taken == node.shelf.seen == up_to(1)
    assert node.store.pending_count == 0
    node.confirm()
    assert node.value(B) is MISSING

    node.take(record(B, 5, tick=2))
    again = node.write(C)
    assert entries.links_of(own.packed) == entries.links_of(again.packed)  # its tick is free again
    node.confirm()
    assert node.value(B) == 5


def test_what_waits_before_a_refusal_stays_taken(node: Node) -> None:
    node.take(record())
    node.refuse(node.log.number + 1)
    node.take(record(B, tick=2))
    node.refuse(node.log.number)
    assert node.shelf.taken == up_to(1)
    assert [pending.key for pending in node.confirm()] == [A]


@pytest.mark.parametrize("rid", [PEER, OTHER])
def test_a_refused_author_is_announced_again(node: Node, rid: Rid) -> None:
    """A restart must know for whom the numbers in a record stand, its chain's too."""
    chained = Carried(A, 10, (Dot(PEER, 1), Dot(OTHER, 4)), packb(1))
    node.take(chained)
    node.refuse(1)
    node.take(record(B, rid=rid), chained)
    node.confirm()
    loaded = node.reloaded()
    assert loaded.lost == 0
    assert set(loaded.entries) == {A, B} if rid == OTHER else set(loaded.entries) == {B}
    assert loaded.rids.base_of(rid) == BASES[rid]


def test_a_refusal_is_counted(node: Node) -> None:
    assert node.shelf.refusals == 0
    node.take(record())
    node.refuse(1)
    assert node.shelf.refusals == 1


# --- vectors ----------------------------------------------------------------------------------


def test_a_vector_counts_once_all_before_it_is_synced(node: Node) -> None:
    node.take(record(tock=NOON))
    node.confirm()
    before = node.log.number
    node.take(record(B, tock=5, tick=4))
    node.store.take_vector(up_to(9))
    node.take(record(C, tock=5, tick=12))

    node.confirm(synced_to=before)  # it is in the file: visible, not safe
    assert node.value(B) == 1
    assert Dot(PEER, 9) not in node.shelf.seen
    node.confirm(synced_to=before + 1)
    assert Dot(PEER, 9) not in node.shelf.seen
    node.confirm(synced_to=before + 2)
    assert node.shelf.seen.ranges(PEER) == ((1, 9), (12, 12))
    assert node.shelf.taken == node.shelf.seen
    assert node.store.durable == up_to(9)  # the last record is in the file alone
    assert (loaded := node.reloaded()).seen.union(loaded.claimed).covers(up_to(9))


def test_a_vector_counts_when_a_restart_would_know_it(node: Node) -> None:
    node.store.take_vector(up_to(3))
    assert node.shelf.seen == Vector()
    node.confirm(synced_to=node.log.number - 1)
    assert node.shelf.seen == Vector()
    node.confirm()
    assert node.shelf.seen == node.shelf.taken == node.store.durable == up_to(3)
    assert node.reloaded().claimed == up_to(3)
    number = node.log.number
    node.take(record(tick=3))
    node.store.take_vector(up_to(2))  # known: nothing to tell
    assert node.log.number == number


def test_an_empty_vector_changes_nothing(node: Node) -> None:
    node.store.take_vector(Vector())
    assert node.shelf.seen == Vector()
    assert node.log.number == 0


def test_a_vector_does_not_count_where_something_before_it_was_refused(node: Node) -> None:
    node.take(record())
    node.store.take_vector(up_to(9))
    node.refuse(1)
    node.take(record(B, tick=5))
    node.confirm()
    assert node.shelf.seen.ranges(PEER) == ((5, 5),)


def test_a_vector_before_a_refusal_counts(node: Node) -> None:
    node.take(record())
    node.store.take_vector(up_to(9))
    first = node.log.number + 1
    node.take(record(B, tick=12))
    node.refuse(first)
    node.confirm(synced_to=first - 1, written_to=first - 1)
    assert node.shelf.seen == up_to(9)


def test_a_vector_after_a_refusal_does_not_wait_for_what_was_refused(node: Node) -> None:
    node.take(record())
    node.confirm()
    first = node.log.number + 1
    node.take(record(B, tick=2))
    node.refuse(first)
    node.confirm(written_to=first - 1, synced_to=first - 1)
    node.store.take_vector(up_to(1, OTHER))
    node.confirm()
    assert Dot(OTHER, 1) in node.shelf.seen
    assert Dot(PEER, 2) not in node.shelf.seen


# --- what others lack -------------------------------------------------------------------------


def filled(count: int) -> Node:
    """Return a node that holds records of three authors, one of them a tombstone in three."""
    node = Node()
    for number in range(count):
        value = MISSING if number % 3 == 2 else "x" * (number % 50)
        node.take(record(Path(number).key, value, rid=(PEER, OTHER)[number % 2], tick=number + 1))
        node.write(Path(str(number)).key, value)
    node.confirm()
    return node


def parts_of(
    shelf: StoreShelf,
    vector: Vector,
    bytes_max: int,
    between: Callable[[], object] = lambda: None,
) -> list[list[Carried]]:
    """Return all parts of a pull, with something done between them."""
    parts, after = [], None
    while True:
        found, rest = shelf.lacking(vector, after=after, bytes_max=bytes_max)
        parts.append(found)
        if rest is None:
            return parts
        assert after is None or rest > after
        after = rest
        between()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4000), st.integers(1, 70), st.integers(0, 1 << 32))
def test_the_parts_of_a_pull_are_exactly_what_is_lacking(
    bytes_max: int, looked_at_max: int, seed: int
) -> None:
    random = Random(seed)
    node = filled(25)
    dots = [carried.dot for carried in node.held().values()]
    vector = Vector()
    for dot in random.sample(dots, random.randrange(len(dots) + 1)):
        vector.add(dot)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peers, "_LOOKED_AT_MAX", looked_at_max)
        parts = parts_of(node.shelf, vector, bytes_max)
    found = [carried for part in parts for carried in part]
    wanted = [carried for key, carried in sorted(node.held().items()) if carried.dot not in vector]
    assert found == wanted
    assert all(len(part) == 1 or sum(map(carried_bytes, part)) <= bytes_max for part in parts)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 1500), st.integers(1, 30), st.integers(0, 1 << 32))
def test_entries_that_change_meanwhile_are_sent_or_are_not_in_the_cut(
    bytes_max: int, looked_at_max: int, seed: int
) -> None:
    random = Random(seed)
    node = filled(15)
    keys = [*node.held(), *(Path(f"new{i}").key for i in range(5))]
    cut = node.shelf.seen.union(Vector())

    def change() -> None:
        node.write(random.choice(keys), random.choice((MISSING, 1)))
        node.confirm()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peers, "_LOOKED_AT_MAX", looked_at_max)
        parts = parts_of(node.shelf, Vector(), bytes_max, change)
    found = {carried.key: carried for part in parts for carried in part}
    for key, carried in node.held().items():
        if carried.dot in cut:
            assert found[key] == carried
    assert [*found] == sorted(found)


def test_system_data_and_the_root_are_sent_too(node: Node) -> None:
    for key in (b"", Path(None, "x").key, Path(("t",)).key):
        node.write(key)
    node.confirm()
    [part] = parts_of(node.shelf, Vector(), 10_000)
    assert [carried.key for carried in part] == [b"", Path(None, "x").key, Path(("t",)).key]


def test_what_is_under_way_is_not_sent(node: Node) -> None:
    node.write(A)
    node.take(record(B))
    assert parts_of(node.shelf, Vector(), 10_000) == [[]]


# --- the root ---------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32))
def test_roots_are_equal_where_the_live_entries_are(seed: int) -> None:
    random = Random(seed)
    given_ = [
        record(
            random.choice((A, B, C)),
            random.choice((MISSING, 1)),
            tock=random.randrange(4),
            rid=random.choice((PEER, OTHER)),
            tick=tick,
        )
        for tick in range(1, 9)
    ]
    one, other = Node(), Node(Rid("another", 1))
    for node in (one, other):
        random.shuffle(given_)
        for carried in given_:
            node.take(carried)
            if random.random() < 0.5:
                node.confirm()
        node.confirm()
    assert one.held() == other.held()
    assert one.shelf.root() == other.shelf.root()

    for key, carried in one.held().items():
        one.take(record(key, MISSING, tock=99, tick=100))
        one.confirm()
        assert (one.shelf.root() == other.shelf.root()) == (carried.value is MISSING)
        other.take(record(key, MISSING, tock=77, rid=OTHER, tick=100))  # another tombstone
        other.confirm()
        assert one.shelf.root() == other.shelf.root()
        break


def test_a_shelf_of_a_full_store_counts_what_is_there() -> None:
    node = filled(20)
    assert StoreShelf(node.store).root() == node.shelf.root()
    assert StoreShelf(node.store).root() != Node().shelf.root()


# --- two of them ------------------------------------------------------------------------------


class Everybody:
    """Members that all give to and take from each other."""

    digest = b"", 0
    life = None

    def takes_updates_of(self, node: str) -> bool:
        return True

    def pulls_from(self, node: str) -> bool:
        return True

    def admits(
        self, sender: Rid, life: int | None, seen: Vector, now: float
    ) -> list[MembershipEvent]:
        return []

    def heard(
        self, sender: Rid, announced: bytes, standing: int, now: float
    ) -> list[MembershipEvent]:
        return []


class Pair:
    """Two nodes that pull from each other; their disks refuse now and then."""

    def __init__(self, random: Random) -> None:
        self.nodes = Node(Rid("a", 1 << 40)), Node(Rid("b", 1 << 40))
        self._talks = [Replication(node.store.rid, node.shelf, Everybody()) for node in self.nodes]
        self._random = random
        self._waiting: list[tuple[int, Outgoing]] = []

    def _act(self, at: int, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Outgoing):
                self._waiting.append((1 - at, event))
                continue
            assert isinstance(event, Arrived), "nothing is lost in memory"
            for carried in event.records:
                self.nodes[at].store.take(carried, event.bases, event.way)
            self.nodes[at].store.take_vector(event.seen)

    def write(self, value: int) -> None:
        for node in self.nodes:  # the updates are lost: all is pulled
            node.write(Path(self._random.randrange(40)).key, value)

    def disks(self) -> None:
        """Let each disk have everything, refuse the last, or do nothing yet."""
        for node in self.nodes:
            fate = self._random.random()
            if fate < 0.25:
                node.refuse(node.log.number - self._random.randrange(3))
            elif fate > 0.4:
                node.confirm()

    def talk(self, now: float, count: int) -> None:
        for at, talk in enumerate(self._talks):
            self._act(at, [*talk.expired(now), talk.digest()])
        for _ in range(min(count, len(self._waiting))):
            at, message = self._waiting.pop(0)
            sender = self.nodes[1 - at].store.rid
            self._act(at, self._talks[at].receive(message.kind, sender, message.body, now))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32))
def test_two_stores_become_equal_on_disks_that_refuse(seed: int) -> None:
    """Nothing counts as seen that the disk has refused, in whichever part of a pull it came."""
    pair = Pair(Random(seed))
    one, other = pair.nodes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peers, "_LOOKED_AT_MAX", 3)
        for now in range(80):
            if now < 30:
                pair.write(now)
            pair.disks()
            pair.talk(float(now), 4)
        for now in range(80, 150):
            one.confirm()
            other.confirm()
            pair.talk(float(now), 1000)
    assert one.held() == other.held()
    assert one.shelf.seen == other.shelf.seen
    assert one.shelf.root() == other.shelf.root()
    assert one.reloaded().lost == other.reloaded().lost == 0
