"""The store with a log moved by hand: what readers see, what writers see, what a refusal undoes."""

from __future__ import annotations

from collections.abc import Callable

import msgpack
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kvedge.errors import AgentError, WriteRefused, WriteUncertain
from kvedge.model import entry as entries
from kvedge.model.path import P
from kvedge.model.stamp import Rid, tock_at
from kvedge.model.value import MISSING, Missing, packb, unpack
from kvedge.server.records import Loaded, load_file, preamble
from kvedge.server.store import Pending, Store

ME = Rid("me", 5 << 40)
BASE = 100
A, B, C = P("a").key, P("b").key, P("c").key
NOON_MS = 1_700_000_000_000


class HandLog:
    """Takes payloads; the test says when they are written, synced, refused."""

    def __init__(self) -> None:
        self.payloads: list[tuple[int, bytes, bool]] = []
        self.number = 0

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        self.number += 1
        self.payloads.append((self.number, payload, durable))
        return self.number

    def drop(self, first: int) -> None:
        self.payloads = [item for item in self.payloads if item[0] < first]

    def kinds(self) -> list[str]:
        names = ("record", "rid", "ceiling")
        return [names[msgpack.unpackb(payload)[0]] for _, payload, _ in self.payloads]

    def durable(self) -> list[bool]:
        return [durable for _, payload, durable in self.payloads if payload[1] == 0]

    def on_disk(self, synced_to: int) -> list[bytes]:
        return [payload for number, payload, _ in self.payloads if number <= synced_to]


def opened(log: HandLog, loaded: Loaded | None = None) -> Store:
    return Store(ME, BASE, loaded or Loaded(), log)


class Answers(list[AgentError | None]):
    """What a write was answered."""

    def __call__(self, error: AgentError | None) -> None:
        self.append(error)


def write(
    store: Store,
    key: bytes,
    value: object = 1,
    *,
    relaxed: bool = False,
    wall_ms: int | None = None,
    done: Callable[[AgentError | None], None] = lambda _: None,
) -> Pending:
    packed = value if isinstance(value, Missing) else packb(value)
    return store.write(key, packed, wall_ms=wall_ms, relaxed=relaxed, done=done)


def value_at(packed: bytes | None) -> object:
    found = MISSING if packed is None else entries.value_of(packed)
    return MISSING if found is MISSING else unpack(found)


def tick_of(packed: bytes) -> int:
    return entries.link_parts(entries.links_of(packed)[0])[1]


def synced(store: Store, log: HandLog) -> list[Pending]:
    return store.confirm(written_to=log.number, synced_to=log.number)


def test_a_write_is_seen_by_writers_at_once_and_by_readers_when_synced() -> None:
    log = HandLog()
    store = opened(log)
    pending = write(store, A, 7)

    assert store.get(A) is None
    assert value_at(store.newest(A)) == 7
    assert store.confirm(written_to=log.number, synced_to=pending.number - 1) == []
    assert store.get(A) is None

    assert synced(store, log) == [pending]
    assert value_at(store.get(A)) == 7
    assert store.pending_count == 0


def test_the_next_write_builds_on_the_pending_one() -> None:
    log = HandLog()
    store = opened(log)
    write(store, A, 1)
    second = write(store, A, 2)

    assert value_at(second.old) == 1
    assert store.shown_links(second.packed) == [("me", BASE + 2)]
    synced(store, log)
    assert value_at(store.get(A)) == 2
    assert value_at(store.newest(A)) == 2


def test_only_part_is_confirmed() -> None:
    log = HandLog()
    store = opened(log)
    first = write(store, A, 1)
    write(store, A, 2)
    store.confirm(written_to=log.number, synced_to=first.number)

    assert value_at(store.get(A)) == 1
    assert value_at(store.newest(A)) == 2


def test_the_number_of_the_rid_and_the_ceiling_go_first() -> None:
    log = HandLog()
    store = opened(log)
    write(store, A)
    write(store, B)
    assert log.kinds() == ["ceiling", "rid", "record", "record"]


def test_a_relaxed_write_waits_for_the_file_alone() -> None:
    log = HandLog()
    store = opened(log)
    write(store, A, wall_ms=NOON_MS)
    synced(store, log)

    relaxed = write(store, B, 2, relaxed=True, wall_ms=NOON_MS)
    assert log.durable() == [True, False]
    assert store.confirm(written_to=relaxed.number, synced_to=0) == [relaxed]
    assert value_at(store.get(B)) == 2


def test_a_relaxed_write_behind_a_pending_one_of_the_same_place_waits_for_the_disk() -> None:
    log = HandLog()
    store = opened(log)
    write(store, A, wall_ms=NOON_MS)
    synced(store, log)

    first = write(store, A, 1, wall_ms=NOON_MS)
    second = write(store, A, 2, relaxed=True, wall_ms=NOON_MS)
    assert store.confirm(written_to=second.number, synced_to=0) == []
    assert synced(store, log) == [first, second]
    assert value_at(store.get(A)) == 2


def test_a_durable_write_behind_a_relaxed_one() -> None:
    log = HandLog()
    store = opened(log)
    write(store, A, wall_ms=NOON_MS)
    synced(store, log)

    write(store, A, 1, relaxed=True, wall_ms=NOON_MS)
    write(store, A, 2, wall_ms=NOON_MS)
    synced(store, log)
    assert value_at(store.get(A)) == 2


def test_a_relaxed_write_above_the_ceiling_waits_until_the_ceiling_is_on_disk() -> None:
    log = HandLog()
    store = opened(log)
    first = write(store, A, relaxed=True, wall_ms=NOON_MS)
    assert store.confirm(written_to=log.number, synced_to=0) == []
    assert synced(store, log) == [first]

    later = write(store, B, relaxed=True, wall_ms=NOON_MS + 60_000)
    assert store.confirm(written_to=log.number, synced_to=0) == []
    assert synced(store, log) == [later]


def test_the_tock_that_is_told_is_not_above_the_ceiling_on_disk() -> None:
    log = HandLog()
    store = opened(log)
    assert store.tock == 0
    pending = write(store, A, wall_ms=NOON_MS)
    assert store.tock == 0  # a restart could fall behind it
    synced(store, log)
    assert store.tock == entries.tock_of(pending.packed)


def test_the_clock_goes_on_where_the_last_life_may_have_stopped() -> None:
    log = HandLog()
    write(opened(log), A, wall_ms=NOON_MS)
    loaded = Loaded()
    load_file(loaded, log.on_disk(log.number))
    assert loaded.tock > tock_at(NOON_MS)

    later = write(opened(HandLog(), loaded), A, wall_ms=None)
    assert entries.tock_of(later.packed) == loaded.tock + 1


def test_a_clock_that_is_set_back_does_not_turn_the_tock_back() -> None:
    log = HandLog()
    store = opened(log)
    first = write(store, A, wall_ms=NOON_MS)
    second = write(store, A, wall_ms=0)
    assert entries.tock_of(second.packed) == entries.tock_of(first.packed) + 1


def test_refused_writes_vanish_with_their_ticks() -> None:
    log = HandLog()
    store = opened(log)
    kept = write(store, A, 1)
    synced(store, log)
    lost = [write(store, A, 2), write(store, B, 3)]
    log.drop(lost[0].number)

    assert store.refuse(lost[0].number) == lost
    assert value_at(store.newest(A)) == 1
    assert store.newest(B) is None
    assert store.pending_count == 0
    again = write(store, C, 4)
    assert [tick_of(kept.packed), tick_of(again.packed)] == [1, 2]
    assert entries.tock_of(again.packed) > entries.tock_of(lost[1].packed)


def test_after_a_refusal_the_older_pending_write_is_the_newest() -> None:
    log = HandLog()
    store = opened(log)
    first = write(store, A, 1)
    second = write(store, A, 2)
    store.refuse(second.number)
    assert value_at(store.newest(A)) == 1
    assert store.confirm(written_to=first.number, synced_to=first.number) == [first]


def test_after_the_very_first_write_is_refused_its_rid_is_announced_again() -> None:
    log = HandLog()
    store = opened(log)
    write(store, A)
    log.drop(1)
    store.refuse(1)
    write(store, A)
    assert log.kinds() == ["ceiling", "rid", "record"]


def test_a_refused_ceiling_is_announced_again_before_a_relaxed_write_relies_on_it() -> None:
    log = HandLog()
    store = opened(log)
    write(store, A, wall_ms=NOON_MS)
    synced(store, log)
    lost = write(store, A, wall_ms=NOON_MS + 60_000)
    log.drop(lost.number - 1)
    store.refuse(lost.number - 1)  # the ceiling's number

    relaxed = write(store, B, relaxed=True, wall_ms=NOON_MS + 60_000)
    assert log.kinds()[-2:] == ["ceiling", "record"]
    assert store.confirm(written_to=relaxed.number, synced_to=0) == []


def test_the_tick_that_is_told_never_falls() -> None:
    log = HandLog()
    store = opened(log)
    write(store, A)
    told = store.tick_shown
    store.refuse(1)
    assert store.tick_shown >= told


def test_a_write_in_doubt_is_answered_once_and_seen_when_the_disk_has_it() -> None:
    log = HandLog()
    store = opened(log)
    answers = Answers()
    pending = write(store, A, 7, done=answers)
    for done in store.doubtful(pending.number):
        done(WriteUncertain("why"))

    assert store.get(A) is None
    assert value_at(store.newest(A)) == 7
    assert store.doubtful(pending.number) != [answers]
    for confirmed in synced(store, log):
        confirmed.done(None)
    assert value_at(store.get(A)) == 7
    assert [type(answer) for answer in answers] == [WriteUncertain]


def test_doubt_spares_what_came_later() -> None:
    store = opened(HandLog())
    first, second = Answers(), Answers()
    pending = write(store, A, done=first)
    write(store, B, done=second)
    assert store.doubtful(pending.number) == [first]


def test_a_deletion_keeps_the_chain() -> None:
    log = HandLog()
    store = opened(log)
    write(store, A)
    gone = write(store, A, MISSING)
    synced(store, log)
    assert value_at(store.get(A)) is MISSING
    assert store.shown_links(gone.packed) == [("me", BASE + 2)]


def test_seen_has_what_is_visible() -> None:
    log = HandLog()
    store = opened(log)
    write(store, A)
    assert not list(store.seen)
    synced(store, log)
    write(store, B)
    assert store.seen.ranges(ME) == ((1, 1),)


VALUES = st.integers(0, 3) | st.none() | st.just(MISSING)


class Disks(RuleBasedStateMachine):
    """Random writes on a random disk, beside the simplest thing that could be right."""

    def __init__(self) -> None:
        super().__init__()
        self.log = HandLog()
        self.store = opened(self.log)
        self.wall_ms = NOON_MS
        self.written_to = self.synced_to = 0
        self.is_in_limbo = False
        self.open: list[tuple[Pending, object, Answers, bool]] = []
        self.visible: dict[bytes, object] = {}
        self.shown_dots: dict[tuple[int, int], bytes] = {}
        self.shown_tock = 0

    @rule(key=st.sampled_from((A, B, C)), value=VALUES, relaxed=st.booleans())
    def write(self, key: bytes, value: object, relaxed: bool) -> None:
        answers = Answers()
        pending = write(self.store, key, value, relaxed=relaxed, wall_ms=self.wall_ms, done=answers)
        self.open.append((pending, value, answers, relaxed))

    @rule(by_ms=st.sampled_from((-5000, 1, 700, 5000)))
    def time_passes(self, by_ms: int) -> None:
        self.wall_ms += by_ms

    @rule()
    def disk_writes(self) -> None:
        if not self.is_in_limbo:
            self.written_to = self.log.number
            self.confirm()

    @rule()
    def disk_syncs(self) -> None:
        self.synced_to = self.written_to
        self.is_in_limbo = False
        self.confirm()

    def confirm(self) -> None:
        for pending in self.store.confirm(written_to=self.written_to, synced_to=self.synced_to):
            at = next(i for i, item in enumerate(self.open) if item[0] is pending)
            _, value, answers, relaxed = self.open.pop(at)
            assert pending.number <= (self.written_to if relaxed else self.synced_to)
            assert all(p.key != pending.key for p, *_ in self.open[:at]), "out of order"
            dot = entries.link_parts(entries.links_of(pending.packed)[0])
            assert self.shown_dots.setdefault(dot, pending.packed) == pending.packed
            self.visible[pending.key] = value
            self.shown_tock = max(self.shown_tock, entries.tock_of(pending.packed))
            pending.done(None)
            assert answers in ([None], [answers[0]])
        assert all(pending.number > self.synced_to for pending, *_ in self.open)

    @rule(late=st.lists(st.sampled_from((A, B)), max_size=2))
    def disk_refuses(self, late: list[bytes]) -> None:
        first = self.written_to + 1
        if first > self.log.number:
            return
        for key in late:  # between the report and the owner's taking note of it
            self.write(key, 9, relaxed=False)
        refused = self.store.refuse(first)
        for pending in refused:
            pending.done(WriteRefused("full"))
        assert [p.number for p in refused] == sorted(p.number for p in refused)
        assert refused == [p for p, *_ in self.open if p.number >= first]
        self.open = [item for item in self.open if item[0].number < first]
        self.log.drop(first)
        self.written_to = self.log.number  # numbers that were refused count as passed

    @rule()
    def disk_doubts(self) -> None:
        if self.written_to > self.synced_to:
            self.is_in_limbo = True
            for done in self.store.doubtful(self.written_to):
                done(WriteUncertain("why"))

    @invariant()
    def readers_see_what_was_confirmed(self) -> None:
        for key in (A, B, C):
            assert value_at(self.store.get(key)) == self.visible.get(key, MISSING)

    @invariant()
    def writers_see_the_newest(self) -> None:
        newest = self.visible | {pending.key: value for pending, value, *_ in self.open}
        for key in (A, B, C):
            assert value_at(self.store.newest(key)) == newest.get(key, MISSING)

    @invariant()
    def ticks_have_no_gaps(self) -> None:
        ticks = sorted([tick_of(p.packed) for p, *_ in self.open] + [t for _, t in self.shown_dots])
        assert ticks == list(range(1, len(ticks) + 1))

    @invariant()
    def a_restart_would_lose_nothing_that_was_promised(self) -> None:
        """Power goes now: all that was synced is there, and no tock that was shown is above it."""
        loaded = Loaded()
        load_file(loaded, self.log.on_disk(self.synced_to))
        assert loaded.lost == 0
        assert max(self.shown_tock, self.store.tock) <= loaded.tock

    @invariant()
    def a_new_file_would_be_complete(self) -> None:
        """Each file is read by itself: its preamble explains all numbers."""
        loaded = Loaded()
        load_file(loaded, [*preamble(self.store.rids, 0), *self.store.preamble()])
        load_file(loaded, [*self.store.preamble(), *self.log.on_disk(self.synced_to)])
        assert loaded.lost == 0

    @invariant()
    def each_write_is_answered_once(self) -> None:
        assert all(len(answers) <= 1 for _, _, answers, _ in self.open)


Disks.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestDisks = Disks.TestCase


@pytest.mark.parametrize("count", [1, 40])
def test_relaxed_writes_of_different_places_do_not_wait_for_each_other(count: int) -> None:
    log = HandLog()
    store = opened(log)
    write(store, A, wall_ms=NOON_MS)
    synced(store, log)
    keys = [P(f"x.{i}").key for i in range(count)]
    for key in keys:
        write(store, key, relaxed=True, wall_ms=NOON_MS)
    assert len(store.confirm(written_to=log.number, synced_to=0)) == count
