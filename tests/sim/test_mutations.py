"""The simulation finds planted defects: each test fails where it misses one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kvedge.model import entry as entries
from kvedge.model.chain import Covers, covers
from kvedge.model.entry import Entry, unpack_entry
from kvedge.model.stamp import Rid, RidTable, tock_at
from kvedge.model.vector import Vector
from kvedge.protocol.exchange import Outgoing
from kvedge.protocol.membership import Admit, Kept, Membership, Standing
from kvedge.protocol.replication import Replication
from kvedge.server import store as stores
from kvedge.server.conflicts import Conflicts
from kvedge.server.network import Network
from kvedge.server.peers import StoreShelf
from kvedge.server.store import Pending, Store
from kvedge.server.streams import Watch, Watchers
from kvedge.storage.journal import Journal
from kvedge.testing import sim
from kvedge.testing.sim import Check, stories
from kvedge.testing.sim.stories import Story

SEEDS_MAX = 60
Plant = Callable[[pytest.MonkeyPatch], None]


def _settle_by(is_newer: Callable[[Entry, Entry], bool]) -> Callable[[Store, Pending], None]:
    """Return a merge that asks whether the entry that comes is newer than the one that is there."""

    def settle(self: Store, pending: Pending) -> None:
        current = self.tree.get(pending.key)
        new = unpack_entry(pending.packed, self.rids)
        pending.replaced = current
        pending.has_won = current is None or is_newer(new, unpack_entry(current, self.rids))
        if pending.has_won:
            self.tree.put(pending.key, pending.packed)
            self.tombstones.pop(pending.key, None)
            if not entries.is_live(pending.packed):
                self.tombstones[pending.key] = None

    return settle


def last_arrival_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "_settle", _settle_by(lambda new, old: True))


def tie_is_broken_by_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "_settle", _settle_by(lambda new, old: new.tock >= old.tock))


def chain_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_newer(new: Entry, old: Entry) -> bool:
        if covers(new.chain, old.dot) is Covers.YES:
            return True
        if covers(old.chain, new.dot) is Covers.YES:
            return False
        return new.dot.tick > old.dot.tick

    monkeypatch.setattr(Store, "_settle", _settle_by(is_newer))


def wall_clock_stamps(monkeypatch: pytest.MonkeyPatch) -> None:
    def next_tock(last: int, wall_ms: int | None) -> int:
        return last + 1 if wall_ms is None else tock_at(wall_ms)

    monkeypatch.setattr(stores, "next_tock", next_tock)


def tombstones_are_dropped_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Membership, "stable", lambda self, durable: durable)


def nothing_is_pulled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Replication, "_begin", lambda self, peer, now: [])


def nothing_is_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Replication, "_take_buckets", lambda self, sender, body, now: [])


def memory_is_not_recounted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StoreShelf, "recount", lambda self, keys: True)


def claims_what_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StoreShelf, "seen", property(lambda self: self._store.taken))
    nothing_is_repaired(monkeypatch)  # which would make good for it


def answers_before_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    confirm = Store.confirm

    def too_soon(self: Store, *, written_to: int, synced_to: int) -> list[Pending]:
        return confirm(self, written_to=written_to, synced_to=written_to)

    monkeypatch.setattr(Store, "confirm", too_soon)


def answers_without_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Journal, "sync", lambda self: None)


def incarnation_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim.node, "new_incarnation", lambda generation, random_bits: 1)


def ticks_are_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    write = Store.write

    def same_tick(self: Store, *given: Any, **options: Any) -> Pending:
        if self._tick > 5:
            self._tick -= 1
        return write(self, *given, **options)

    monkeypatch.setattr(Store, "write", same_tick)


def bases_are_taken_as_they_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def number(self: RidTable, rid: Rid, base: int = 0) -> int:
        return known(self, rid) if self.knows(rid) else known(self, rid, base)

    known = RidTable.number
    monkeypatch.setattr(RidTable, "number", number)


def compare_and_set_compares_what_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "newest", Store.get)


def conflicts_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Conflicts, "of", lambda self, write, kept: None)


def what_was_announced_counts_as_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(self: Conflicts, write: Pending, kept: dict[str, Kept]) -> tuple[bytes, bytes] | None:
        rids = self._store.rids
        assert write.replaced is not None
        one, other = (unpack_entry(packed, rids) for packed in (write.packed, write.replaced))
        winner, loser = (one, other) if one.rank > other.rank else (other, one)
        told = [kept[link.rid.node] for link in winner.chain if link.rid.node in kept]
        is_known = any(loser.dot in one.vector for one in told)
        return None if is_known else found(self, write, kept)

    found = Conflicts.of
    monkeypatch.setattr(Conflicts, "of", of)


def a_slow_watcher_loses_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    def notify(self: Watch, key: bytes, packed: bytes) -> None:
        if self.flow.room():
            told(self, key, packed)

    told = Watch.notify
    monkeypatch.setattr(Watch, "notify", notify)


PLANTS: tuple[tuple[Plant, str, int], ...] = (
    (last_arrival_wins, "default", 30),
    (tie_is_broken_by_arrival, "default", 30),
    (chain_decides, "default", 30),
    (wall_clock_stamps, "default", 30),
    (tombstones_are_dropped_at_once, "default", 30),
    (nothing_is_pulled, "default", 30),
    (nothing_is_repaired, "harsh", 30),
    (memory_is_not_recounted, "harsh", 30),
    (claims_what_is_not_stored, "harsh", 30),
    (answers_before_the_disk, "dark", 3000),
    (answers_without_the_disk, "dark", 3000),
    (incarnation_is_kept, "default", 30),
    (ticks_are_used_again, "default", 30),
    (bases_are_taken_as_they_come_first, "default", 30),
    (compare_and_set_compares_what_is_visible, "default", 30),
    (conflicts_are_not_told, "default", 30),
    (what_was_announced_counts_as_known, "default", 30),
    (a_slow_watcher_loses_changes, "default", 30),
)
"""Each with the faults and the number of keys that bring it to light."""


def is_found(faults: str, keys: int) -> bool:
    """Tell whether some seed fails."""
    for seed in range(SEEDS_MAX):
        try:
            sim.run(seed, operations=1000, faults=sim.PRESETS[faults], keys=keys)
        except (AssertionError, KeyError, ValueError):
            return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "faults", "keys"), PLANTS, ids=lambda it: getattr(it, "__name__", "")
)
def test_defect_is_found(
    plant: Plant, faults: str, keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    assert is_found(faults, keys)


# --- what chance does not find ----------------------------------------------------------------


def what_is_seen_is_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = Network._begin_life

    def with_seen(self: Network, *given: Any) -> None:
        begin(self, *given)
        announce = self.members.announce

        def volatile(durable: Vector, now: float, *, at_once: bool = False) -> Any:
            return announce(self._store.seen, now, at_once=at_once)

        monkeypatch.setattr(self.members, "announce", volatile)

    monkeypatch.setattr(Network, "_begin_life", with_seen)


def own_vector_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    def stable(self: Membership, durable: Vector) -> Vector | None:
        if not self.is_member or self.standing is not Standing.GOOD:
            return None
        common = durable
        for node in self.members():
            if node != self._rid.node:
                kept = self._valid(node)
                if kept is None:
                    return None
                common = common.meet(kept.vector)
        return common

    monkeypatch.setattr(Membership, "stable", stable)


def a_joiner_is_no_member_while_it_pulls(monkeypatch: pytest.MonkeyPatch) -> None:
    admits, admit = Membership.admits, Network._admit
    let_in: set[tuple[int, str]] = set()

    def as_if(self: Membership, sender: Rid, *given: Any) -> Any:
        is_let_in = (id(self), sender.node) in let_in
        found = admits(self, sender, *given)
        return [] if is_let_in and found else found

    def afterwards(self: Network, wanted: Admit) -> None:
        asking = [node for node in wanted.records if node in self._asking]
        for node in asking:
            let_in.add((id(self.members), node))
            self._take(self._asking.pop(node))
        host: Any = self._host
        host.after(9.0, lambda: admit(self, wanted))

    monkeypatch.setattr(Membership, "admits", as_if)
    monkeypatch.setattr(Network, "_admit", afterwards)


def nobody_is_regressed(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = Membership._verdict

    def kind(
        self: Membership, of: Rid, standing: Standing, proof: Vector, generation: int = 0
    ) -> Outgoing:
        return verdict(self, of, Standing.GOOD, Vector())

    def take(self: Membership, sender: Rid, body: bytes) -> Any:
        record = self.records.get(sender.node)
        if record is None or sender.node == self._rid.node:
            return []
        self.kept.pop(sender.node, None)
        return vector(self, sender, body)

    vector = Membership._take_vector
    monkeypatch.setattr(Membership, "_take_vector", take)
    monkeypatch.setattr(Membership, "_verdict", kind)


def members_expire_by_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    count = Network._count_time

    def by_wall(self: Network, now: float) -> None:
        count(self, self._clock.wall_s())

    monkeypatch.setattr(Network, "_count_time", by_wall)


def tombstones_go_before_watchers_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watchers, "is_awaited", lambda self, key: False)


def pulls_bring_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = StoreShelf.lacking

    def all_of_it(self: StoreShelf, vector: Vector, **given: Any) -> Any:
        return lacking(self, Vector(), **given)

    monkeypatch.setattr(StoreShelf, "lacking", all_of_it)


def nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Membership, "closable", lambda self, durable: {})


def a_fence_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    def weight(entry: Entry) -> tuple[int, tuple[int, Rid, int]]:
        return entry.fence.number if entry.fence else 0, entry.rank

    settle = _settle_by(lambda new, old: weight(new) > weight(old))
    monkeypatch.setattr(Store, "_settle", settle)


def nobody_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Membership, "passed", lambda self, seconds, seen: [])


DIRECTED: tuple[tuple[Plant, Story, Check], ...] = (
    (what_is_seen_is_acknowledged, stories.a_deletion_is_lost_with_the_power, Check.JUDGEMENT),
    (
        own_vector_is_not_checked,
        stories.a_late_write_meets_a_reaped_tombstone,
        Check.RESURRECTION,
    ),
    (
        a_joiner_is_no_member_while_it_pulls,
        stories.a_joiner_between_two_parts,
        Check.RESURRECTION,
    ),
    (nobody_is_regressed, stories.a_reader_is_restored, Check.WATCH),
    (members_expire_by_the_wall_clock, stories.a_clock_jumps_while_one_is_away, Check.EXPIRY),
    (nobody_expires, stories.expiry_and_return, Check.EXPIRY),
    (tombstones_go_before_watchers_are_told, stories.a_slow_watcher, Check.WATCH),
    (a_slow_watcher_loses_changes, stories.a_slow_watcher, Check.WATCH),
    (pulls_bring_everything, stories.one_side_wrote, Check.TRAFFIC),
    (wall_clock_stamps, stories.clocks_step_a_day, Check.CAUSALITY),
    (answers_without_the_disk, stories.crash_at_each_operation, Check.TOCK),
    (answers_without_the_disk, stories.crash_at_each_event, Check.TOCK),
    (nothing_is_closed, stories.daily_restarts, Check.MEMORY),
    (nothing_is_closed, stories.a_crash_loop, Check.MEMORY),
    (a_fence_merges, stories.a_higher_fence_is_older, Check.CONVERGENCE),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "story", "check"), DIRECTED, ids=lambda it: getattr(it, "__name__", str(it))
)
def test_defect_is_found_by_a_story(
    plant: Plant, story: Story, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(sim.Broken) as told:
        story(1)
    assert told.value.check is check
