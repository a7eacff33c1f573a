"""The way to the disk: nothing that was reported as synced is lost, nothing refused comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kvedge import limits
from kvedge.clock import Clock, SystemClock
from kvedge.errors import LimitExceeded, LocalProtocolError, WriteRefused
from kvedge.storage import commit, commit_queue
from kvedge.storage.commit import Committer, JournalWriter, SnapshotDone
from kvedge.storage.commit_queue import Done
from kvedge.storage.disk import Disk, OsDisk
from kvedge.storage.journal import Journal
from kvedge.testing.disk import MemoryDisk, PowerCut


def opened(disk: Disk) -> Journal:
    journal = Journal(disk, network="net", new_salt=lambda: 0x5EED)
    journal.load()
    journal.begin(node="n", incarnation=1, base=0, preamble=lambda: [b"table"])
    return journal


def stored(disk: Disk) -> set[int]:
    """Return the numbers that a new process would find."""
    files = Journal(disk, network="net").load().files
    return {int(p) for file in files for p in file.payloads if p != b"table"}


class Owner:
    """Submits its numbers as payloads, as a server would, and believes the reports."""

    def __init__(self, disk: MemoryDisk, clock: Clock) -> None:
        self.writer = JournalWriter(opened(disk), clock, self.on_done)
        self.synced_to = self.written_to = self.last = 0
        self.refused: set[int] = set()
        self.limbo_to = 0

    def put(self, *, durable: bool = True) -> None:
        number = self.last + 1
        assert self.writer.submit(b"%d" % number, durable=durable) == number
        self.last = number

    def run(self) -> None:
        while self.writer.step():
            pass

    def on_done(self, done: Done) -> None:
        assert done.synced_to >= self.synced_to
        assert done.written_to >= done.synced_to
        self.synced_to, self.written_to = done.synced_to, done.written_to
        if done.uncertain:
            self.limbo_to = done.uncertain.upto
        if done.refused:
            self.refused |= set(range(done.refused.first, self.last + 1))
            self.writer.queue.resume()
        if done.snapshot is not None:
            self.snapshot(done.snapshot)

    def snapshot(self, number: int) -> None:
        with suppress(WriteRefused):
            self.writer.snapshot(number, [b"%d" % n for n in sorted(self.safe)])
        self.writer.queue.snapshot_finished()

    @property
    def safe(self) -> set[int]:
        return set(range(1, self.synced_to + 1)) - self.refused


def life(owner: Owner, disk: MemoryDisk) -> None:
    """A short life with everything in it: batches, snapshots, a full disk, failing syncs."""
    for _ in range(2):
        for burst in (1, 3, 1):
            for _ in range(burst):
                owner.put()
            owner.put(durable=False)
            owner.run()
        owner.writer.queue.want_snapshot()
        owner.run()
    owner.put()
    owner.run()
    disk.capacity_bytes = sum(len(disk.read(name)) for name in disk.names()) + 15
    owner.put(durable=False)
    owner.put()
    owner.put()
    owner.run()
    disk.capacity_bytes = None
    owner.put()
    owner.run()
    disk.sync_failures = 1
    owner.put()
    owner.run()
    disk.sync_failures = 2
    owner.put()
    owner.run()
    owner.put()
    owner.run()
    owner.put()
    owner.writer.close()


def mend(disk: MemoryDisk) -> None:
    disk.capacity_bytes, disk.is_read_only, disk.sync_failures = None, False, 0


def test_life_without_power_cut(clock: Any) -> None:
    disk = MemoryDisk()
    owner = Owner(disk, clock)
    life(owner, disk)
    assert owner.refused == {18, 19, 20, 24}
    assert owner.limbo_to == 23
    assert owner.safe == stored(disk) == set(range(1, 26)) - owner.refused


@pytest.mark.slow
@pytest.mark.parametrize("created_kept", [False, True])
@pytest.mark.parametrize("removed_kept", [False, True])
@pytest.mark.parametrize("torn_bytes", [0, 1, 30, 10_000])
def test_power_cut_at_every_operation(
    clock: Any, torn_bytes: int, created_kept: bool, removed_kept: bool
) -> None:
    disk = MemoryDisk()
    life(Owner(disk, clock), disk)
    for power in range(disk.operations):
        disk = MemoryDisk()
        disk.power_left = power
        owner = Owner(disk, clock)
        with pytest.raises(PowerCut):
            life(owner, disk)
        disk.crash(torn_bytes=torn_bytes, created_kept=created_kept, removed_kept=removed_kept)
        found = stored(disk)
        assert owner.safe <= found, f"lost at operation {power}"
        assert not found & owner.refused, f"came back at operation {power}"
        assert stored(disk) == found
        mend(disk)
        after = Owner(disk, clock)
        after.put()
        after.run()
        assert after.synced_to == 1, "the next process can write"


Fault = Callable[[MemoryDisk], None]


def fill_up(disk: MemoryDisk) -> None:
    disk.capacity_bytes = sum(len(disk.read(name)) for name in disk.names()) + 4


def fill_to_the_last_byte(disk: MemoryDisk) -> None:
    disk.capacity_bytes = 0


def make_read_only(disk: MemoryDisk) -> None:
    disk.is_read_only = True


@pytest.mark.parametrize("at_start", [True, False])
@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (fill_up, "No space left"),
        (fill_to_the_last_byte, "No space left"),
        (make_read_only, "Read-only"),
    ],
)
def test_write_that_fails_is_refused_and_the_next_one_tries_again(
    clock: Any, break_it: Fault, words: str, at_start: bool
) -> None:
    disk = MemoryDisk()
    reports: list[Done] = []
    writer = JournalWriter(opened(disk), clock, reports.append)
    if not at_start:
        writer.submit(b"0")
        while writer.step():
            pass
    break_it(disk)
    number = writer.submit(b"1")
    while writer.step():
        pass
    refused = reports[-1].refused
    assert refused is not None
    assert (refused.first, refused.last) == (number, number)
    assert words in str(refused.error)
    assert "memory" in str(refused.error)
    mend(disk)
    writer.queue.resume()
    writer.submit(b"2")
    writer.close()
    assert reports[-1].synced_to == number + 1
    disk.crash(torn_bytes=1000, created_kept=True)
    assert stored(disk) == ({2} if at_start else {0, 2})


@pytest.mark.parametrize("failures", [1, 2, 3, 4])
def test_failing_syncs_leave_nothing_behind_that_is_not_known(clock: Any, failures: int) -> None:
    disk = MemoryDisk()
    owner = Owner(disk, clock)
    owner.put()
    owner.run()
    disk.sync_failures = failures
    owner.put(durable=False)
    owner.put()
    owner.run()
    for _ in range(failures - 1):
        assert owner.synced_to == 1
        assert owner.limbo_to == 3
        clock.now_s += 1
        owner.run()
    assert owner.synced_to == 3
    assert len(disk.names()) == 2, "segments that failed are removed"
    owner.put()
    owner.writer.close()
    disk.crash()
    assert stored(disk) == {1, 2, 3, 4}


def test_sync_that_fails_on_a_disk_that_is_read_only_ends_in_limbo(clock: Any) -> None:
    disk = MemoryDisk()
    owner = Owner(disk, clock)
    owner.put(durable=False)
    owner.run()
    disk.sync_failures, disk.is_read_only = 1, True
    clock.now_s += 1
    owner.run()
    assert owner.limbo_to == 1
    owner.put()
    owner.run()
    assert owner.refused == {2}
    mend(disk)
    clock.now_s += 1
    owner.run()
    assert owner.synced_to == 1


def test_snapshots_are_asked_for_as_the_journal_grows(
    clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SEGMENT_MAX_BYTES", 500)
    disk = MemoryDisk()
    owner = Owner(disk, clock)
    for _ in range(100):
        owner.put()
        owner.run()
    assert [name for name in disk.names() if "snapshot" in name]
    assert len(disk.names()) < 12
    assert stored(disk) == set(range(1, 101))


def test_relaxed_payload_is_synced_in_time(clock: Any) -> None:
    disk = MemoryDisk()
    owner = Owner(disk, clock)
    owner.put(durable=False)
    owner.run()
    assert (owner.written_to, owner.synced_to) == (1, 0)
    wait_s = owner.writer.wait_s()
    assert wait_s is not None
    assert wait_s < limits.RELAXED_DELAY_MAX_S
    clock.now_s += wait_s
    owner.run()
    assert owner.synced_to == 1
    assert owner.writer.wait_s() is None


# --- the thread ------------------------------------------------------------------------------


class Listener:
    """Keeps the reports of a committer; tests wait for them."""

    def __init__(self) -> None:
        self.reports: list[Done] = []
        self.snapshots: list[SnapshotDone] = []
        self._changed = threading.Condition()

    def on_done(self, done: Done) -> None:
        with self._changed:
            self.reports.append(done)
            self._changed.notify_all()

    def on_snapshot(self, done: SnapshotDone) -> None:
        with self._changed:
            self.snapshots.append(done)
            self._changed.notify_all()

    def wait(self, reached: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(reached, timeout=10)

    def wait_synced(self, number: int) -> None:
        self.wait(lambda: any(done.synced_to >= number for done in self.reports))


@pytest.fixture
def listener() -> Listener:
    """Hears what a committer reports."""
    return Listener()


@pytest.fixture(params=["memory", "os"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    """A disk in memory, and a real one."""
    return MemoryDisk() if request.param == "memory" else OsDisk(tmp_path)


@pytest.fixture
def committer(disk: Disk, listener: Listener) -> Iterator[Committer]:
    """A running committer."""
    journal = opened(disk)
    with Committer(
        journal, SystemClock(), on_done=listener.on_done, on_snapshot=listener.on_snapshot
    ) as running:
        yield running


def test_submitted_payloads_are_stored(
    committer: Committer, listener: Listener, disk: Disk
) -> None:
    numbers = [committer.submit(b"%d" % n, vital=n % 7 == 0) for n in range(200)]
    assert numbers == list(range(1, 201))
    listener.wait_synced(200)
    assert stored(disk) == set(range(200))


def test_threads_may_submit_at_the_same_time(
    committer: Committer, listener: Listener, disk: Disk
) -> None:
    def submit(start: int) -> None:
        for n in range(start, start + 200):
            committer.submit(b"%d" % n)

    threads = [threading.Thread(target=submit, args=(1000 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    listener.wait_synced(800)
    assert len(stored(disk)) == 800


def test_relaxed_payload_is_synced_without_more_to_do(
    committer: Committer, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit_queue, "RELAXED_SYNC_AFTER_S", 0.01)
    committer.submit(b"1", durable=False)
    listener.wait(lambda: bool(listener.reports))
    assert listener.reports[0] == Done(1, 0)
    listener.wait_synced(1)


def test_close_syncs_and_refuses_more(committer: Committer, listener: Listener, disk: Disk) -> None:
    for n in range(50):
        committer.submit(b"%d" % n, durable=False)
    committer.close()
    assert listener.reports[-1].synced_to == 50
    assert stored(disk) == set(range(50))
    with pytest.raises(LocalProtocolError):
        committer.submit(b"late")
    committer.close()


def test_snapshot_is_written_in_the_background(
    committer: Committer, listener: Listener, disk: Disk
) -> None:
    committer.submit(b"1")
    listener.wait_synced(1)
    committer.want_snapshot()
    listener.wait(lambda: listener.reports[-1].snapshot == 2)
    committer.snapshot(2, iter([b"1"]))
    listener.wait(lambda: bool(listener.snapshots))
    assert listener.snapshots[0].error is None
    assert listener.snapshots[0].size_bytes
    assert "snapshot-00000002.kvs" in disk.names()
    assert stored(disk) == {1}


def test_snapshot_that_fails_is_told(listener: Listener) -> None:
    disk = MemoryDisk()
    with Committer(
        opened(disk), SystemClock(), on_done=listener.on_done, on_snapshot=listener.on_snapshot
    ) as committer:
        committer.want_snapshot()
        listener.wait(lambda: bool(listener.reports))
        disk.is_read_only = True
        committer.snapshot(1, [b"1"])
        listener.wait(lambda: bool(listener.snapshots))
        assert isinstance(listener.snapshots[0].error, WriteRefused)
        assert "Read-only" in str(listener.snapshots[0].error)


def test_refusal_holds_until_it_is_known(listener: Listener) -> None:
    disk = MemoryDisk()
    disk.is_read_only = True
    with Committer(
        opened(disk), SystemClock(), on_done=listener.on_done, on_snapshot=listener.on_snapshot
    ) as committer:
        committer.submit(b"1")
        listener.wait(lambda: bool(listener.reports))
        assert listener.reports[0].refused is not None
        disk.is_read_only = False
        committer.submit(b"2")
        committer.resume()
        committer.submit(b"3")
        listener.wait_synced(3)
    assert stored(disk) == {3}


def test_idle_thread_shows_that_it_is_alive(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "BEAT_S", 0.001)
    seen = threading.Event()

    class WatchedClock(SystemClock):
        asked = 0

        def boottime_s(self) -> float:
            self.asked += 1
            if self.asked > 5:
                seen.set()
            return super().boottime_s()

    with Committer(
        opened(MemoryDisk()),
        WatchedClock(),
        on_done=listener.on_done,
        on_snapshot=listener.on_snapshot,
    ) as committer:
        assert seen.wait(10)
        assert committer.beats > 1


def test_too_large_payload_is_refused_at_once(committer: Committer) -> None:
    with pytest.raises(LimitExceeded):
        committer.submit(bytes(limits.MESSAGE_MAX_BYTES + 1))
