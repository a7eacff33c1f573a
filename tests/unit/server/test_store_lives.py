"""The store's three vectors, tombstones that may go, numbers that are forgotten, and new lives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvedge.errors import WriteRefused
from kvedge.model import entry as entries
from kvedge.model.path import P, Path
from kvedge.model.stamp import Dot, Rid
from kvedge.model.value import MISSING, Missing, packb
from kvedge.model.vector import Vector
from kvedge.protocol.batches import Carried
from kvedge.protocol.replication import Way
from kvedge.server.records import Loaded, load_file, preamble, record_payload
from kvedge.server.store import Pending, Store

ME, PEER, OTHER = Rid("me", 5 << 40), Rid("peer", 1 << 40), Rid("other", 1 << 40)
A, B, C = P("a").key, P("b").key, P("c").key
MINE = Dot(ME, 1)
BASES = {PEER: 7, OTHER: 9}


class HandLog:
    """Takes payloads; the test says when they are written, synced, refused."""

    def __init__(self) -> None:
        self.payloads: dict[int, tuple[bytes, bool]] = {}
        self.number = 0

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        self.number += 1
        self.payloads[self.number] = payload, durable
        return self.number

    def waits_for_disk(self, number: int) -> bool:
        return self.payloads[number][1]

    def loaded(self, synced_to: int | None = None) -> Loaded:
        """Return what a restart finds after a power cut."""
        upto = self.number if synced_to is None else synced_to
        into = Loaded()
        load_file(into, [payload for n, (payload, _) in self.payloads.items() if n <= upto])
        return into


class Node:
    """A store and its log."""

    def __init__(self) -> None:
        self.log = HandLog()
        self.store = Store(ME, 100, Loaded(), self.log)

    def write(self, key: bytes, value: object = 1, *, relaxed: bool = False) -> Pending:
        packed = value if isinstance(value, Missing) else packb(value)
        return self.store.write(key, packed, wall_ms=None, relaxed=relaxed, done=lambda _: None)

    def take(self, record: Carried, way: Way = Way.UPDATE) -> None:
        self.store.take(record, BASES, way)

    def sync(self) -> list[Pending]:
        return self.store.confirm(written_to=self.log.number, synced_to=self.log.number)

    def refuse(self, first: int) -> None:
        for number in [number for number in self.log.payloads if number >= first]:
            del self.log.payloads[number]
        self.store.refuse(first)

    def has(self, dot: Dot) -> tuple[bool, bool, bool]:
        store = self.store
        return dot in store.taken, dot in store.seen, dot in store.durable


@pytest.fixture
def node() -> Node:
    """A store in its first life."""
    return Node()


@pytest.fixture
def begun(node: Node) -> Node:
    """A store of which a first write is on the disk, with room below the ceiling."""
    node.take(record(C, tock=1 << 30, rid=OTHER))
    node.sync()
    node.store.write(C, packb(1), wall_ms=1 << 20, relaxed=False, done=lambda _: None)
    node.sync()
    return node


def record(
    key: bytes = A, value: object = 1, *, tock: int = 10, rid: Rid = PEER, tick: int = 1
) -> Carried:
    packed = value if isinstance(value, Missing) else packb(value)
    return Carried(key, tock, (Dot(rid, tick),), packed)


# --- taken, seen, durable ---------------------------------------------------------------------


def test_the_first_write_of_a_life_is_durable_however_it_was_asked_for(node: Node) -> None:
    """Whoever has heard of this life must find it again after a power cut."""
    node.take(record(C, tock=1 << 40, rid=OTHER))
    node.sync()  # the ceiling is not what makes it wait
    first = node.write(A, relaxed=True)
    second = node.write(B, relaxed=True)  # the first one is not on the disk
    assert node.log.waits_for_disk(first.number)
    assert node.log.waits_for_disk(second.number)
    assert node.store.confirm(written_to=node.log.number, synced_to=first.number - 1) == []
    assert node.sync() == [first, second]
    third = node.write(A, relaxed=True)
    assert not node.log.waits_for_disk(third.number)
    assert node.store.confirm(written_to=third.number, synced_to=second.number) == [third]


def test_a_relaxed_write_is_seen_in_the_file_and_durable_on_the_disk(begun: Node) -> None:
    dot = Dot(ME, 2)
    write = begun.write(A, relaxed=True)
    before = write.number - 1
    assert begun.has(dot) == (True, False, False)
    begun.store.confirm(written_to=write.number, synced_to=before)
    assert begun.has(dot) == (True, True, False)
    later = begun.write(B, relaxed=True)
    begun.store.confirm(written_to=later.number, synced_to=before)
    begun.store.confirm(written_to=later.number, synced_to=write.number)
    assert begun.has(dot) == (True, True, True)
    assert begun.has(Dot(ME, 3)) == (True, True, False)
    begun.sync()
    assert begun.store.durable == begun.store.seen == begun.store.taken


def test_an_update_counts_when_it_is_stored_and_a_pull_when_its_cut_is(node: Node) -> None:
    """What is pulled comes in the order of keys: of the ticks before it nothing is known."""
    node.take(record(A, tick=4))
    node.take(record(B, tick=6, rid=OTHER), Way.PULL)
    node.sync()
    assert node.has(Dot(PEER, 4)) == (True, True, True)
    assert node.has(Dot(OTHER, 6)) == (False, False, False)
    assert node.store.get(B) is not None
    node.store.take_vector(Vector.of({OTHER: ((1, 6),)}))
    assert node.has(Dot(OTHER, 6)) == (False, False, False)
    node.sync()
    assert node.has(Dot(OTHER, 6)) == (True, True, True)


@pytest.mark.parametrize("way", [Way.PULL, Way.REPAIR])
def test_what_is_pulled_and_older_than_what_is_there_is_not_stored(node: Node, way: Way) -> None:
    node.take(record(A, "new", tock=20))
    node.sync()
    number = node.log.number
    node.take(record(A, "new", tock=20), way)
    node.take(record(A, "old", tock=19, rid=OTHER), way)
    assert node.log.number == number


@pytest.mark.parametrize("rid", [ME, PEER])
def test_a_repair_brings_back_what_was_lost_in_memory(node: Node, rid: Rid) -> None:
    lost = record(A, "lost", rid=rid)
    if rid == ME:
        write = node.write(A, "lost")
        lost = Carried(A, entries.tock_of(write.packed), (MINE,), packb("lost"))
    else:
        node.take(lost)
    node.sync()
    node.store.tree.drop(A)
    node.take(lost, Way.UPDATE)
    node.take(lost, Way.PULL)
    assert node.sync() == []
    seen = node.store.seen.copy()
    node.take(lost, Way.REPAIR)
    [pending] = node.sync()
    assert pending.has_won
    assert entries.value_of(node.store.get(A) or b"") == packb("lost")
    assert node.store.seen == node.store.taken == seen


Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "relaxed", "take", "pull", "cut", "close", "disk", "refuse"]),
        st.integers(0, 9),
    ),
    min_size=12,
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_durable_is_what_a_power_cut_leaves_and_seen_what_is_there(steps: list[Step]) -> None:
    node = Node()
    ticks = {PEER: 0, OTHER: 0}
    written = synced = 0
    for what, number in steps:
        rid = (PEER, OTHER)[number % 2]
        key = Path(number % 4).key
        if what in ("write", "relaxed"):
            node.write(key, number, relaxed=what == "relaxed")
        elif what in ("take", "pull"):
            ticks[rid] += 1
            taken = record(key, number, tock=number * 1000, rid=rid, tick=ticks[rid])
            node.take(taken, Way.UPDATE if what == "take" else Way.PULL)
        elif what == "cut":
            node.store.take_vector(Vector.of({rid: ((1, ticks[rid]),)} if ticks[rid] else {}))
        elif what == "close":
            node.store.close({f"gone{number % 3}": number})
        elif what == "disk":
            written = max(written, node.log.number - number % 3)
            synced = max(synced, min(written, node.log.number - number))
            node.store.confirm(written_to=written, synced_to=synced)
        elif written < node.log.number:
            node.refuse(max(written + 1, node.log.number - number))
        store = node.store
        assert store.seen.covers(store.durable)
        assert store.taken.covers(store.seen)
        loaded = node.log.loaded(synced)
        assert loaded.lost == 0
        assert loaded.seen.union(loaded.claimed).covers(store.durable)
    node.sync()
    assert node.store.durable == node.store.seen == node.store.taken


# --- tombstones -------------------------------------------------------------------------------


def deleted(node: Node, key: bytes = A) -> Dot:
    """Write and delete an entry; return the deletion's dot."""
    node.write(key)
    dot = node.store.dot_of(node.write(key, MISSING).packed)
    node.sync()
    return dot


def deleted_elsewhere(node: Node) -> None:
    node.take(record(A, MISSING, tock=1 << 40))
    node.sync()


def all_seen(node: Node) -> Vector:
    return node.store.seen.copy()


Spoil = Callable[[Node], object]
REAPS: dict[str, tuple[Spoil, bool]] = {
    "it is stable": (lambda node: None, True),
    "another place is under way": (lambda node: node.write(B), True),
    "there is a value again": (lambda node: (node.write(A), node.sync()), False),
    "a value is under way": (lambda node: node.write(A), False),
    "another deletion is under way": (lambda node: node.write(A, MISSING), False),
    "it was deleted again since": (lambda node: (node.write(A, MISSING), node.sync()), False),
    "another one's deletion came since": (deleted_elsewhere, False),
    "it was reaped already": (lambda node: node.store.reap(A, all_seen(node)), False),
}


@pytest.mark.parametrize("name", REAPS)
def test_a_tombstone_is_reaped_where(name: str, node: Node) -> None:
    spoil, reaps = REAPS[name]
    deleted(node)
    stable = all_seen(node)
    spoil(node)
    before = node.store.get(A)
    assert node.store.reap(A, stable) == reaps
    assert node.store.get(A) == (None if reaps or "already" in name else before)
    assert (A in node.store.tombstones) == (before is not None and not entries.is_live(before)
                                            and not reaps)  # fmt: skip


def test_a_tombstone_that_not_all_have_stays(node: Node) -> None:
    dot = deleted(node)
    stable = Vector.of({ME: ((1, dot.tick - 1),)})
    assert not node.store.reap(A, stable)
    assert not node.store.reap(B, all_seen(node))
    assert node.store.reap(A, Vector.of({}, {"me": 6}))  # closed is had by all
    assert node.has(dot) == (True, True, True)


def test_tombstones_are_known_in_the_order_in_which_they_came(node: Node) -> None:
    for key in (B, A, C):
        deleted(node, key)
    node.write(B)
    deleted(node, A)
    node.sync()
    assert list(node.store.tombstones) == [C, A]
    again = Store(Rid("me", 6 << 40), 200, node.log.loaded(), HandLog())
    assert set(again.tombstones) == {C, A}


def test_after_a_reap_the_place_begins_without_a_history(node: Node) -> None:
    node.take(record(A, 1, tock=5))
    deleted(node)
    node.store.reap(A, all_seen(node))
    assert len(entries.links_of(node.write(A).packed)) == 1
    node.sync()
    assert node.store.tree.live_count == 1


# --- incarnations -----------------------------------------------------------------------------


def test_closed_generations_leave_the_vectors_once_a_restart_knows_it(node: Node) -> None:
    old, new = Rid("peer", 1 << 40), Rid("peer", 2 << 40)
    for rid in (old, new):
        node.take(record(Path(rid.incarnation).key, rid=rid))
    node.sync()
    node.store.close({"peer": 2})
    assert node.store.seen.ranges(old) == ((1, 1),)
    node.sync()
    for vector in (node.store.seen, node.store.taken, node.store.durable):
        assert vector == Vector.of({new: ((1, 1),)}, {"peer": 2})
    assert node.log.loaded().claimed.floors == {"peer": 2}
    number = node.log.number
    node.take(record(A, rid=old, tick=9))  # so long lost that nobody has it
    assert node.log.number == number
    assert entries.chain_of(node.store.get(Path(old.incarnation).key) or b"", node.store.rids)


def test_a_peers_floor_is_taken_with_its_vector(node: Node) -> None:
    node.store.take_vector(Vector.of({PEER: ((1, 2),)}, {"other": 4}))
    node.store.take_vector(Vector.of({}, {"other": 3}))
    node.sync()
    assert node.store.seen == Vector.of({PEER: ((1, 2),)}, {"other": 4})
    number = node.log.number
    node.store.take_vector(Vector.of({PEER: ((1, 2),)}, {"other": 4}))
    assert node.log.number == number


# --- numbers of rids --------------------------------------------------------------------------


def walk(node: Node) -> set[int]:
    """Return the numbers that the tree's entries name."""
    links = [link for _, packed in node.store.tree.items() for link in entries.links_of(packed)]
    return {link >> entries.TICK_BITS for link in links}


def names(node: Node) -> set[Rid]:
    return {rid for _, rid, _ in node.store.rids.rows()}


def test_rids_that_nothing_names_are_forgotten(node: Node) -> None:
    node.take(record(A, rid=PEER))
    node.take(record(A, tock=20, rid=OTHER))
    node.store.close({"peer": 2})
    node.sync()
    node.store.note_numbers()
    node.store.retain_numbers(walk(node))
    assert names(node) == {OTHER}
    node.take(record(B, tock=30, rid=Rid("peer", 1 << 41)))
    node.sync()
    assert node.log.loaded().lost == 0


Meanwhile = Callable[[Node], object]
CHAINED = Carried(B, 500, (Dot(PEER, 3), Dot(Rid("third", 1 << 40), 8)), packb(1))
MEANWHILE: dict[str, Meanwhile] = {
    "a record was on its way before": lambda node: None,
    "a record came": lambda node: node.take(record(C, tock=900, rid=Rid("new", 1))),
    "we wrote": lambda node: node.write(C),
    "a vector came": lambda node: node.store.take_vector(Vector.of({Rid("new", 1): ((1, 1),)})),
    "somebody was told the number": lambda node: node.store.number_of(Rid("new", 1)),
}


@pytest.mark.parametrize("settles", ["before", "meanwhile", "after"])
@pytest.mark.parametrize("way", list(Way))
@pytest.mark.parametrize("name", MEANWHILE)
def test_a_number_in_use_is_not_forgotten(name: str, way: Way, settles: str, begun: Node) -> None:
    begun.take(CHAINED, way)
    if settles == "before":
        begun.sync()
    begun.store.note_numbers()
    used = walk(begun)  # what changes behind this is not looked at again
    MEANWHILE[name](begun)
    if settles == "meanwhile":
        begun.sync()
    begun.store.retain_numbers(used)
    begun.sync()
    for key, packed in begun.store.tree.items():
        assert begun.store.shown_links(packed), key
    assert walk(begun) <= {number for number, _, _ in begun.store.rids.rows()}
    assert {rid for rid, _ in begun.store.seen} <= names(begun)
    file = Loaded()
    snapshot = [record_payload(key, packed) for key, packed in begun.store.tree.items()]
    load_file(file, [*preamble(begun.store.rids, 0), *snapshot])
    assert file.lost == 0


@pytest.mark.parametrize("settles", ["meanwhile", "after"])
def test_a_number_of_a_vector_on_its_way_is_not_forgotten(node: Node, settles: str) -> None:
    node.store.take_vector(Vector.of({PEER: ((1, 2),)}))
    node.store.note_numbers()
    if settles == "meanwhile":
        node.sync()
    node.store.retain_numbers(set())
    node.sync()
    assert names(node) == {PEER}
    assert node.store.seen == Vector.of({PEER: ((1, 2),)})


# --- another life -----------------------------------------------------------------------------


def test_a_new_life_holds_what_was_loaded_and_its_tock_goes_on(begun: Node) -> None:
    begun.write(A, "old")
    begun.sync()
    tock, ceiling = begun.store.tock, begun.store.ceiling
    log, rid = HandLog(), Rid("me", 6 << 40)
    begun.store.is_frozen = True
    begun.store.begin(rid, 300, Loaded(tock=ceiling), log)
    store = begun.store
    assert (store.rid, store.base, len(store.tree), store.tombstones) == (rid, 300, 0, {})
    assert not any((store.seen, store.taken, store.durable, store.is_frozen))
    assert store.tock >= tock
    assert (store.pending_count, store.pending_bytes) == (0, 0)
    assert store.tick_shown == 300
    write = store.write(A, packb("new"), wall_ms=None, relaxed=True, done=lambda _: None)
    assert entries.tock_of(write.packed) > tock
    assert log.waits_for_disk(write.number)  # the first one of this life
    store.confirm(written_to=log.number, synced_to=log.number)
    assert store.seen == Vector.of({rid: ((1, 1),)})
    assert log.loaded().lost == 0  # its number was told to the new log


def test_while_the_tree_is_replaced_nobody_writes(node: Node) -> None:
    node.store.is_frozen = True
    with pytest.raises(WriteRefused):
        node.write(A)
    assert node.log.number == 0
    assert node.store.newest(A) is None


def test_the_log_knows_of_a_life_that_has_written_nothing(node: Node) -> None:
    node.store.tell_life()
    node.store.tell_life()
    assert node.log.number == 1
    assert node.log.loaded().rids.knows(ME)
    assert node.log.loaded().rids.base_of(ME) == 100


def test_what_is_told_waits_for_nothing(node: Node) -> None:
    payload = packb((99, "news"))
    node.store.tell(payload)
    assert node.log.payloads == {1: (payload, False)}
    node.write(A)
    assert len(node.sync()) == 1
