"""What the store expects of a disk, asked of the real one and of the one in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvedge.storage.disk import Disk, OsDisk
from kvedge.testing.disk import MemoryDisk


@pytest.fixture(params=["memory", "os"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    """An empty disk of either kind."""
    return MemoryDisk() if request.param == "memory" else OsDisk(tmp_path)


def put(disk: Disk, name: str, data: bytes) -> None:
    file = disk.create(name)
    file.append(data)
    file.sync()
    file.close()


def test_new_disk_is_empty(disk: Disk) -> None:
    assert disk.names() == []
    assert disk.directory


def test_what_is_appended_is_read(disk: Disk) -> None:
    file = disk.create("a")
    assert file.size_bytes() == 0
    file.append(b"one")
    file.append(b"")
    file.append(b"two")
    assert file.size_bytes() == 6
    assert disk.read("a") == b"onetwo", "before any sync"
    file.sync()
    file.close()
    assert disk.read("a") == b"onetwo"


def test_large_append_is_complete(disk: Disk) -> None:
    data = bytes(range(256)) * 40_000
    put(disk, "a", data)
    assert disk.read("a") == data


def test_append_goes_on_where_the_file_was_cut(disk: Disk) -> None:
    file = disk.create("a")
    file.append(b"good bad")
    file.truncate(5)
    assert file.size_bytes() == 5
    file.append(b"end")
    file.sync()
    file.close()
    assert disk.read("a") == b"good end"


def test_names_are_sorted(disk: Disk) -> None:
    for name in ("b", "c", "a"):
        put(disk, name, b"")
    disk.sync_directory()
    assert disk.names() == ["a", "b", "c"]


def test_existing_file_is_not_created_again(disk: Disk) -> None:
    put(disk, "a", b"old")
    with pytest.raises(OSError, match="exists"):
        disk.create("a")
    assert disk.read("a") == b"old"


def test_replace_takes_the_place_of_the_other(disk: Disk) -> None:
    put(disk, "new", b"new")
    put(disk, "a", b"old")
    disk.replace("new", "a")
    disk.sync_directory()
    assert disk.names() == ["a"]
    assert disk.read("a") == b"new"


def test_removed_file_is_gone_and_its_name_is_free(disk: Disk) -> None:
    put(disk, "a", b"old")
    disk.remove("a")
    assert disk.names() == []
    put(disk, "a", b"new")
    assert disk.read("a") == b"new"


def test_file_that_is_open_may_be_removed(disk: Disk) -> None:
    file = disk.create("a")
    disk.remove("a")
    file.append(b"into the void")
    file.close()
    assert disk.names() == []


@pytest.mark.parametrize("verb", ["read", "remove"])
def test_absent_file_is_an_error(disk: Disk, verb: str) -> None:
    with pytest.raises(FileNotFoundError):
        getattr(disk, verb)("a")


def test_absent_file_replaces_nothing(disk: Disk) -> None:
    put(disk, "a", b"old")
    with pytest.raises(FileNotFoundError):
        disk.replace("absent", "a")
    assert disk.read("a") == b"old"


def test_free_bytes_are_told(disk: Disk) -> None:
    assert disk.free_bytes() > 0
