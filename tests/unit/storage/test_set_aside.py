"""A tree that is set aside: the old one or the empty one is there, whenever the power goes."""

from __future__ import annotations

import errno
from itertools import product
from typing import TypeVar

import pytest

from kvedge.storage.journal import Contents, Journal
from kvedge.testing.disk import MemoryDisk, PowerCut

Disk = TypeVar("Disk", bound=MemoryDisk)

PREAMBLE = b"the tock so far"
OLD = [b"a", b"b", b"c"]


def opened(disk: MemoryDisk, *, incarnation: int) -> Journal:
    journal = Journal(disk, network="net")
    journal.load()
    journal.begin(node="board", incarnation=incarnation, base=10, preamble=lambda: [PREAMBLE])
    return journal


def payloads(contents: Contents) -> list[bytes]:
    found = [payload for file in contents.files for payload in file.payloads]
    return [payload for payload in found if payload != PREAMBLE]


def loaded(disk: MemoryDisk) -> Contents:
    return Journal(disk, network="net").load()


def filled(disk: Disk, *, has_snapshots: bool) -> Disk:
    """Return a disk with a store: three segments, and with snapshots between them if asked."""
    for number, payload in enumerate(OLD):
        journal = opened(disk, incarnation=number + 1)
        journal.append([(payload, False)])
        journal.sync()
        if has_snapshots:
            journal.write_snapshot(journal.begin_snapshot(), OLD[: number + 1])
    disk.operations = 0
    return disk


def set_aside(disk: MemoryDisk) -> Journal:
    journal = opened(disk, incarnation=9)
    journal.set_aside()
    return journal


STORES = {"segments": False, "snapshots": True}


@pytest.mark.parametrize("store", STORES)
def test_what_is_set_aside_is_empty_and_can_be_looked_at(store: str) -> None:
    disk = filled(MemoryDisk(), has_snapshots=STORES[store])
    before = {name: disk.read(name) for name in disk.names()}
    set_aside(disk)
    contents = loaded(disk)
    assert payloads(contents) == []
    assert contents.losses == []
    assert [file.payloads for file in contents.files] == [[PREAMBLE]]
    assert contents.incarnation_max == 9
    aside = [name for name in disk.names() if name.endswith(".aside")]
    assert {name.removesuffix(".aside"): disk.read(name) for name in aside} == before


def test_what_is_written_after_it_is_all_there_is() -> None:
    disk = filled(MemoryDisk(), has_snapshots=True)
    journal = set_aside(disk)
    journal.append([(b"new", False)])
    journal.sync()
    disk.crash()
    assert payloads(loaded(disk)) == [b"new"]
    journal = opened(disk, incarnation=10)
    journal.write_snapshot(journal.begin_snapshot(), [b"new"])
    contents = loaded(disk)
    assert payloads(contents) == [b"new"]
    assert contents.losses == []


def test_one_old_tree_is_kept() -> None:
    disk = filled(MemoryDisk(), has_snapshots=False)
    journal = set_aside(disk)
    journal.append([(b"second", False)])
    journal.sync()
    set_aside(disk)
    aside = [disk.read(name) for name in disk.names() if name.endswith(".aside")]
    assert any(b"second" in data for data in aside)
    assert not any(OLD[0] in data and b"second" not in data for data in aside if len(data) > 300)
    assert payloads(loaded(disk)) == []
    assert len(aside) == 2  # the empty snapshot and the segment behind it


def operations_of_a_set_aside(store: str) -> int:
    disk = filled(MemoryDisk(), has_snapshots=STORES[store])
    set_aside(disk)
    return disk.operations


def cut_at(store: str, operation: int, crash: tuple[int, bool, bool]) -> MemoryDisk:
    """Return a disk whose power went in the middle."""
    torn_bytes, created_kept, removed_kept = crash
    disk = filled(MemoryDisk(), has_snapshots=STORES[store])
    disk.power_left = operation
    with pytest.raises(PowerCut):
        set_aside(disk)
    disk.crash(torn_bytes=torn_bytes, created_kept=created_kept, removed_kept=removed_kept)
    return disk


CRASHES = list(product((0, 7, 1 << 20), (False, True), (False, True)))


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("crash", CRASHES)
def test_after_a_power_cut_it_is_the_old_one_or_the_empty_one(
    store: str, crash: tuple[int, bool, bool]
) -> None:
    outcomes = set()
    for operation in range(operations_of_a_set_aside(store)):
        contents = loaded(cut_at(store, operation, crash))
        assert contents.losses == []
        assert set(payloads(contents)) in (set(OLD), set()), operation
        assert any(PREAMBLE in file.payloads for file in contents.files)
        outcomes.add(bool(payloads(contents)))
    assert outcomes == {True, False}


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("crash", CRASHES)
def test_after_a_power_cut_it_can_be_done_again(store: str, crash: tuple[int, bool, bool]) -> None:
    for operation in range(operations_of_a_set_aside(store)):
        disk = cut_at(store, operation, crash)
        journal = set_aside(disk)
        journal.append([(b"new", False)])
        journal.sync()
        contents = loaded(disk)
        assert payloads(contents) == [b"new"], operation
        assert contents.losses == []


class FailingDisk(MemoryDisk):
    """A disk that refuses one change."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0
        self.refuses: int | None = None

    def begin_change(self) -> int:
        self.changes += 1
        if self.changes == self.refuses:
            raise OSError(errno.ENOSPC, "no room")
        return super().begin_change()


@pytest.mark.parametrize("store", STORES)
def test_after_a_disk_error_it_can_be_done_again(store: str) -> None:
    """A disk that is full for a moment leaves one of both, and is not in the way of the next."""
    disk = filled(FailingDisk(), has_snapshots=STORES[store])
    disk.changes = 0
    set_aside(disk)
    for change in range(1, disk.changes + 1):
        disk = filled(FailingDisk(), has_snapshots=STORES[store])
        disk.changes, disk.refuses = 0, change
        with pytest.raises(OSError, match="no room"):
            set_aside(disk)
        assert set(payloads(loaded(disk))) in (set(OLD), set())
        assert loaded(disk).losses == []
        set_aside(disk)
        assert payloads(loaded(disk)) == []


@pytest.mark.parametrize("sync_failures", [1, 2])
def test_after_a_sync_that_failed_it_is_one_of_both(sync_failures: int) -> None:
    disk = filled(MemoryDisk(), has_snapshots=True)
    disk.sync_failures = sync_failures
    with pytest.raises(OSError, match="Input/output"):
        set_aside(disk)
    disk.sync_failures = 0
    for crash in CRASHES:
        torn_bytes, created_kept, removed_kept = crash
        disk.crash(torn_bytes=torn_bytes, created_kept=created_kept, removed_kept=removed_kept)
        assert set(payloads(loaded(disk))) in (set(OLD), set())
        assert loaded(disk).losses == []
