"""The disk in memory: what a power cut leaves, and the faults that can be asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvedge.testing.disk import MemoryDisk, MemoryFile, PowerCut


@pytest.fixture
def disk() -> MemoryDisk:
    """A disk with nothing on it."""
    return MemoryDisk()


@pytest.fixture
def file(disk: MemoryDisk) -> MemoryFile:
    """A file "a" whose name and whose content "safe" are synced."""
    file = disk.create("a")
    file.append(b"safe")
    file.sync()
    disk.sync_directory()
    return file


@pytest.mark.parametrize(("torn_bytes", "left"), [(0, b"safe"), (2, b"safe+m"), (99, b"safe+more")])
def test_unsynced_end_is_torn_anywhere(
    disk: MemoryDisk, file: MemoryFile, torn_bytes: int, left: bytes
) -> None:
    file.append(b"+more")
    disk.crash(torn_bytes=torn_bytes)
    assert disk.read("a") == left


def test_cut_counts_when_it_is_synced(disk: MemoryDisk, file: MemoryFile) -> None:
    file.append(b"+more")
    file.truncate(4)
    disk.crash(torn_bytes=99)
    assert disk.read("a") == b"safe+more"
    file.truncate(4)
    file.sync()
    disk.crash(torn_bytes=99)
    assert disk.read("a") == b"safe"


@pytest.mark.parametrize("created", [True, False])
@pytest.mark.parametrize("removed", [True, False])
def test_names_count_when_the_directory_is_synced(
    disk: MemoryDisk, file: MemoryFile, created: bool, removed: bool
) -> None:
    disk.create("b")
    disk.remove("a")
    disk.crash(created_kept=created, removed_kept=removed)
    assert disk.names() == [*([] if removed else ["a"]), *(["b"] if created else [])]


def test_replaced_name_counts_when_the_directory_is_synced(
    disk: MemoryDisk, file: MemoryFile
) -> None:
    new = disk.create("new")
    new.append(b"new")
    new.sync()
    disk.replace("new", "a")
    disk.crash()
    assert disk.names() == ["a"]
    assert disk.read("a") == b"safe"


def test_second_sync_after_a_failed_one_saves_nothing(disk: MemoryDisk, file: MemoryFile) -> None:
    file.append(b"+more")
    disk.sync_failures = 1
    with pytest.raises(OSError, match="Input/output"):
        file.sync()
    file.sync()
    disk.crash(torn_bytes=99)
    assert disk.read("a") == b"safe"


def test_full_disk_takes_a_part(disk: MemoryDisk, file: MemoryFile) -> None:
    disk.capacity_bytes = 6
    with pytest.raises(OSError, match="No space"):
        file.append(b"+more")
    assert disk.read("a") == b"safe+m"
    with pytest.raises(OSError, match="No space"):
        disk.create("b")


def test_read_only_disk_changes_nothing(disk: MemoryDisk, file: MemoryFile) -> None:
    disk.is_read_only = True
    changes: list[Callable[[], object]] = [
        lambda: file.append(b"x"),
        lambda: file.truncate(0),
        lambda: disk.create("b"),
        lambda: disk.remove("a"),
        lambda: disk.replace("a", "b"),
    ]
    for change in changes:
        with pytest.raises(OSError, match="Read-only"):
            change()
    assert disk.read("a") == b"safe"


def test_power_goes_at_the_operation_that_was_named(disk: MemoryDisk) -> None:
    disk.power_left = 1
    file = disk.create("a")
    with pytest.raises(PowerCut):
        file.append(b"x")
    disk.crash()
    disk.create("a").append(b"x")


def test_flipped_bit_stays(disk: MemoryDisk, file: MemoryFile) -> None:
    disk.flip("a", 8)
    disk.crash()
    assert disk.read("a") == b"s`fe"
