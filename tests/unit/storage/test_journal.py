"""The journal: segments, snapshots, what is kept, and what is left when files are damaged."""

from __future__ import annotations

import errno
from collections.abc import Iterable

import pytest

from kvedge import limits
from kvedge.errors import SnapshotMissing, StorageError, WriteRefused, WrongStore
from kvedge.storage import journal as journals
from kvedge.storage.frames import LossKind
from kvedge.storage.journal import Contents, FileLoss, Journal
from kvedge.testing.disk import MemoryDisk


def opened(disk: MemoryDisk, *, incarnation: int = 1, preamble: Iterable[bytes] = ()) -> Journal:
    """Return a loaded journal that may be written to."""
    journal = Journal(disk, network="net")
    journal.load()
    journal.begin(node="board", incarnation=incarnation, base=10, preamble=lambda: preamble)
    return journal


def loaded(disk: MemoryDisk) -> Contents:
    return Journal(disk, network="net").load()


def texts(contents: Contents) -> list[str]:
    return [payload.decode() for file in contents.files for payload in file.payloads]


def write(journal: Journal, *payloads: str) -> None:
    journal.append([(payload.encode(), False) for payload in payloads])
    journal.sync()


def is_due(journal: Journal) -> bool:
    return journal.snapshot_is_due


def snapshot(journal: Journal, *payloads: str) -> int:
    number = journal.begin_snapshot()
    journal.write_snapshot(number, [payload.encode() for payload in payloads])
    return number


@pytest.fixture
def disk() -> MemoryDisk:
    """An empty disk."""
    return MemoryDisk()


@pytest.fixture
def generations(disk: MemoryDisk) -> MemoryDisk:
    """A disk with two snapshots and the segments that go with them."""
    journal = opened(disk)
    write(journal, "a")
    snapshot(journal, "AAAA")
    write(journal, "b")
    snapshot(journal, "AAAA", "BBBB")
    write(journal, "c")
    assert disk.names() == [
        "journal-00000002.kvj",
        "journal-00000003.kvj",
        "snapshot-00000002.kvs",
        "snapshot-00000003.kvs",
    ]
    return disk


def test_new_directory_is_empty(disk: MemoryDisk) -> None:
    contents = loaded(disk)
    assert (contents.files, contents.losses, contents.incarnation_max) == ([], [], 0)


def test_start_alone_writes_nothing(disk: MemoryDisk) -> None:
    opened(disk).close()
    assert disk.names() == []


def test_each_process_writes_a_segment_of_its_own(disk: MemoryDisk) -> None:
    write(opened(disk, incarnation=5), "a", "b")
    write(opened(disk, incarnation=9), "c")
    contents = loaded(disk)
    assert [file.name for file in contents.files] == [
        "journal-00000001.kvj",
        "journal-00000002.kvj",
    ]
    assert [file.header.incarnation for file in contents.files] == [5, 9]
    assert contents.files[0].header.base == 10
    assert contents.incarnation_max == 9
    assert texts(contents) == ["a", "b", "c"]


def test_salts_differ_from_file_to_file(disk: MemoryDisk) -> None:
    write(opened(disk), "a")
    write(opened(disk), "a")
    first, second = loaded(disk).files
    assert first.header.salt != second.header.salt


def test_torn_tail_is_cut_and_not_written_behind(disk: MemoryDisk) -> None:
    first = opened(disk)
    write(first, "a")
    first.append([(b"torn", False)])
    disk.crash(torn_bytes=5)
    size = len(disk.read("journal-00000001.kvj"))
    write(opened(disk), "b")
    contents = loaded(disk)
    assert texts(contents) == ["a", "b"]
    assert contents.losses == [FileLoss("journal-00000001.kvj", size - 5, 5, LossKind.TORN)]
    assert len(disk.read("journal-00000001.kvj")) == size


def test_preamble_begins_each_file(disk: MemoryDisk) -> None:
    table = ["one"]
    journal = Journal(disk, network="net")
    journal.begin(node="n", incarnation=1, base=0, preamble=lambda: [t.encode() for t in table])
    write(journal, "a")
    table.append("two")
    number = journal.begin_snapshot()
    journal.write_snapshot(number, [b"AAAA"])
    write(journal, "b")
    contents = loaded(disk)
    assert texts(contents) == ["one", "two", "AAAA", "one", "two", "b"]


def test_long_segment_is_closed_after_a_sync(
    disk: MemoryDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SEGMENT_MAX_BYTES", 200)
    journal = opened(disk)
    for number in range(30):
        write(journal, f"value-{number}")
    assert len(disk.names()) > 3
    assert texts(loaded(disk)) == [f"value-{number}" for number in range(30)]


def test_names_are_synced_with_the_first_bytes(disk: MemoryDisk) -> None:
    write(opened(disk), "a")
    disk.crash()
    assert texts(loaded(disk)) == ["a"]


def test_newest_snapshot_and_the_segments_behind_it_are_read(generations: MemoryDisk) -> None:
    contents = loaded(generations)
    assert texts(contents) == ["AAAA", "BBBB", "c"]
    assert contents.losses == []


def test_segment_behind_a_snapshot_need_not_exist(disk: MemoryDisk) -> None:
    journal = opened(disk)
    write(journal, "a")
    assert snapshot(journal, "AAAA") == 2
    assert texts(loaded(disk)) == ["AAAA"]
    write(opened(disk), "b")
    assert texts(loaded(disk)) == ["AAAA", "b"]
    assert "journal-00000002.kvj" in disk.names()


def test_first_snapshot_keeps_all_segments(disk: MemoryDisk) -> None:
    journal = opened(disk)
    write(journal, "a")
    snapshot(journal, "AAAA")
    assert disk.names() == ["journal-00000001.kvj", "snapshot-00000002.kvs"]


@pytest.mark.parametrize("hit", [[b"\xc1\x01", b"\xc1\x02"], [b"BBBB"]])
def test_older_generation_is_used_where_the_newest_is_damaged(
    generations: MemoryDisk, hit: list[bytes]
) -> None:
    data = generations.read("snapshot-00000003.kvs")
    for text in hit:  # both copies of the header, or one payload
        generations.flip("snapshot-00000003.kvs", data.index(text) * 8)
    contents = loaded(generations)
    assert contents.files[0].name == "snapshot-00000002.kvs"
    assert {"AAAA", "b", "c"} <= set(texts(contents))
    assert contents.losses


def test_first_generation_is_the_journal_itself(disk: MemoryDisk) -> None:
    journal = opened(disk)
    write(journal, "a", "b")
    snapshot(journal, "AAAA", "BBBB")
    disk.flip("snapshot-00000002.kvs", disk.read("snapshot-00000002.kvs").index(b"AAAA") * 8)
    assert {"a", "b", "BBBB"} <= set(texts(loaded(disk)))


def test_damaged_snapshot_is_not_the_one_that_is_kept(generations: MemoryDisk) -> None:
    generations.flip(
        "snapshot-00000003.kvs", generations.read("snapshot-00000003.kvs").index(b"BBBB") * 8
    )
    snapshot(opened(generations), "all")
    assert [n for n in generations.names() if "snapshot" in n] == [
        "snapshot-00000002.kvs",
        "snapshot-00000004.kvs",
    ]


def test_every_flipped_bit_of_a_store_can_be_loaded(generations: MemoryDisk) -> None:
    # The newest snapshot has an older one below it: damage costs nothing at all.
    complete = {"AAAA", "BBBB", "c", "b"}
    for name in ("snapshot-00000003.kvs", "snapshot-00000002.kvs", "journal-00000002.kvj"):
        for bit in range(len(generations.read(name)) * 8):
            generations.flip(name, bit)
            contents = loaded(generations)
            assert {text[0].lower() for text in texts(contents)} >= {"a", "b", "c"}
            assert set(texts(contents)) <= complete
            assert bool(contents.losses) == (name == "snapshot-00000003.kvs"), "others are spare"
            generations.flip(name, bit)


@pytest.mark.parametrize(
    "removed",
    [
        ["snapshot-00000002.kvs", "snapshot-00000003.kvs"],
        ["snapshot-00000002.kvs", "snapshot-00000003.kvs", "journal-00000002.kvj"],
    ],
)
def test_journal_that_does_not_reach_back_is_refused(
    generations: MemoryDisk, removed: list[str]
) -> None:
    for name in removed:
        generations.remove(name)
    with pytest.raises(SnapshotMissing):
        loaded(generations)


def test_unreadable_snapshot_alone_is_not_an_empty_store(disk: MemoryDisk) -> None:
    disk.create("snapshot-00000004.kvs")
    with pytest.raises(SnapshotMissing, match="snapshot-00000004"):
        loaded(disk)


def test_missing_segments_are_reported_once(disk: MemoryDisk) -> None:
    for payload in "abcd":
        write(opened(disk), payload)
    disk.remove("journal-00000002.kvj")
    disk.remove("journal-00000003.kvj")
    contents = loaded(disk)
    assert texts(contents) == ["a", "d"]
    assert contents.losses == [FileLoss("journal-00000002.kvj", 0, 0, LossKind.MISSING)]


@pytest.mark.parametrize(("number", "is_loss"), [(errno.EIO, True), (errno.EACCES, False)])
def test_file_that_the_medium_cannot_read_is_a_loss(
    generations: MemoryDisk, monkeypatch: pytest.MonkeyPatch, number: int, is_loss: bool
) -> None:
    plain_read = generations.read

    def read(name: str) -> bytes:
        if name == "snapshot-00000003.kvs":
            raise OSError(number, "no")
        return plain_read(name)

    monkeypatch.setattr(generations, "read", read)
    if is_loss:
        assert texts(loaded(generations)) == ["AAAA", "b", "c"]
    else:
        with pytest.raises(StorageError, match="memory cannot be read: no"):
            loaded(generations)


def test_unfinished_snapshot_is_ignored_and_removed(generations: MemoryDisk) -> None:
    generations.create("snapshot-00000009.tmp").append(b"half")
    assert texts(loaded(generations)) == ["AAAA", "BBBB", "c"]
    journal = opened(generations)
    snapshot(journal, "all")
    assert not [name for name in generations.names() if name.endswith(".tmp")]


def test_failed_snapshot_leaves_what_was_there(generations: MemoryDisk) -> None:
    before = generations.names()
    journal = opened(generations)
    number = journal.begin_snapshot()
    generations.sync_failures = 1
    with pytest.raises(OSError, match="Input/output"):
        journal.write_snapshot(number, [b"all"])
    assert generations.names() == before


def test_snapshot_without_room_is_not_begun(generations: MemoryDisk) -> None:
    journal = opened(generations)
    number = journal.begin_snapshot()
    generations.capacity_bytes = 0
    with pytest.raises(WriteRefused, match="0 bytes left"):
        journal.write_snapshot(number, [b"all"])


def test_store_of_another_network_is_refused_by_name(disk: MemoryDisk) -> None:
    write(opened(disk), "a")
    with pytest.raises(WrongStore, match="memory cannot be used: it belongs to network net, not x"):
        Journal(disk, network="x").load()


def test_snapshot_is_due_by_growth(disk: MemoryDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEGMENT_MAX_BYTES", 1000)
    journal = opened(disk)
    write(journal, "x" * 800)
    assert not is_due(journal)
    write(journal, "x" * 300)
    assert is_due(journal)
    assert is_due(opened(disk)), "what was loaded counts"
    snapshot(journal, "y" * 1000)
    assert not is_due(journal)
    write(journal, "x" * 1500)
    assert not is_due(journal), "twice the snapshot, when that is more"
    write(journal, "x" * 700)
    assert is_due(journal)


def test_snapshot_is_due_by_number_of_starts(disk: MemoryDisk) -> None:
    for _ in range(journals.SEGMENTS_MAX + 1):
        journal = opened(disk)
        write(journal, "a")
    assert is_due(journal)


def test_large_snapshot_is_complete(disk: MemoryDisk) -> None:
    payloads = [f"{number}-" + "x" * 1000 for number in range(500)]
    snapshot(opened(disk, preamble=[b"table"]), *payloads)
    contents = loaded(disk)
    assert texts(contents) == ["table", *payloads]
    assert not contents.losses


def test_repair_removes_what_a_failed_append_left(disk: MemoryDisk) -> None:
    journal = opened(disk)
    write(journal, "a")
    disk.capacity_bytes = len(disk.read("journal-00000001.kvj")) + 5
    with pytest.raises(OSError, match="No space"):
        journal.append([(b"no", False)])
    journal.repair()
    disk.capacity_bytes = None
    write(journal, "b")
    disk.crash(torn_bytes=100)
    contents = loaded(disk)
    assert texts(contents) == ["a", "b"]
    assert not contents.losses


def test_repair_of_a_new_segment_removes_it(disk: MemoryDisk) -> None:
    journal = opened(disk)
    disk.capacity_bytes = 20
    with pytest.raises(OSError, match="No space"):
        journal.append([(b"no", False)])
    journal.repair()
    assert disk.names() == []
    disk.capacity_bytes = None
    write(journal, "a")
    assert disk.names() == ["journal-00000001.kvj"]
