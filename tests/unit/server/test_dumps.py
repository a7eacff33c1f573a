"""Dumps in a server: what becomes of each entry at a start, and after joining a network."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from kvedge.errors import AgentError, BadDump, StorageError
from kvedge.model import entry as entries
from kvedge.model.path import P
from kvedge.model.stamp import Dot, Rid, tock_at
from kvedge.model.value import MISSING, pack, unpack
from kvedge.protocol.batches import Carried
from kvedge.protocol.dumpfile import DumpEntry, DumpHeader
from kvedge.server.dumps import (
    KEPT_NAME,
    LEFT_NAME,
    Fate,
    NewEntry,
    apply_kept,
    fate_of,
    kept_in,
    load_dump,
    loaded_write,
    opened_dumps,
)
from kvedge.server.records import Loaded
from kvedge.server.store import Store
from kvedge.storage.dumps import DumpFile, write_dump

ME, PEER = Rid("me", 1 << 40), Rid("peer", 2 << 40)
NOON_MS = 1_700_000_000_000
pytestmark = pytest.mark.anyio


class Target:
    """A server whose disk is done at once."""

    def __init__(self, wall_ms: int | None = None) -> None:
        self.number = 0
        self.wall = wall_ms
        self.store = Store(ME, 0, Loaded(), self)
        self.fails: AgentError | None = None

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        self.number += 1
        return self.number

    def wall_ms(self) -> int | None:
        return self.wall

    async def write_all(self, writes: Sequence[NewEntry]) -> None:
        if self.fails:
            raise self.fails
        for new in writes:
            self.store.write(
                new.key,
                new.value,
                wall_ms=self.wall,
                relaxed=False,
                done=lambda _: None,
                tock=new.tock,
            )
        self.confirm()

    def confirm(self) -> None:
        self.store.confirm(written_to=self.number, synced_to=self.number)

    def hear(self, path: str, value: Any, tock: int, tick: int = 1) -> None:
        """Take a record of a peer."""
        packed = MISSING if value is MISSING else pack(value)
        self.store.take(Carried(P(path).key, tock, (Dot(PEER, tick),), packed), {})
        self.confirm()

    def values(self) -> dict[str, object]:
        return {
            str(P_of(key)): unpack(value)
            for key, packed in self.store.tree.items()
            if (value := entries.value_of(packed)) is not MISSING
        }


def P_of(key: bytes) -> object:  # noqa: N802
    return DumpEntry(key, 0, (), b"").path


def entry(path: str, value: object, tock: int = 5) -> DumpEntry:
    return DumpEntry(P(path).key, tock, (("old", 1),), pack(value))


@pytest.fixture
def dumped(tmp_path: Path) -> Callable[..., str]:
    """Writes a dump of entries into a file."""

    def write(*found: DumpEntry, name: str = "a.dump") -> str:
        write_dump(str(tmp_path / name), DumpHeader("old"), found)
        return str(tmp_path / name)

    return write


async def test_entries_are_loaded_with_their_tocks(dumped: Callable[..., str]) -> None:
    server = Target()
    with opened_dumps([dumped(entry("a", 1, 70), entry(":n.x", 2, 60))]) as (dump,):
        assert await load_dump(server, dump) == 2
        assert await load_dump(server, dump) == 0
    assert server.values() == {"a": 1, ":n.x": 2}
    packed = server.store.get(P("a").key)
    assert packed is not None
    assert entries.tock_of(packed) == 70
    assert entries.chain_of(packed, server.store.rids)[0].rid == ME
    assert server.store.tock >= 70  # what is written next is newer


async def test_the_newer_of_two_dumps_stays_whatever_their_order(
    dumped: Callable[..., str],
) -> None:
    names = [dumped(entry("a", "new", 9), name="new"), dumped(entry("a", "old", 8), name="old")]
    for order in (names, names[::-1]):
        server = Target()
        with opened_dumps(order) as dumps:
            for dump in dumps:
                await load_dump(server, dump)
        assert server.values() == {"a": "new"}


async def test_a_later_change_of_the_network_wins_over_what_is_loaded(
    dumped: Callable[..., str],
) -> None:
    server = Target()
    with opened_dumps([dumped(entry("a", "dump", 8), entry("b", "dump", 8))]) as (dump,):
        await load_dump(server, dump)
    server.hear("a", "network", 9)
    server.hear("b", MISSING, 9, tick=2)
    assert server.values() == {"a": "network"}


def test_what_is_there_already_is_not_written_again() -> None:
    server = Target()
    server.hear("same", {"x": 1, "y": 2}, 3)
    server.hear("newer", 1, 9, tick=2)
    server.hear("older", 1, 3, tick=3)
    assert loaded_write(server, entry("same", {"y": 2, "x": 1}, 7)) is None
    assert loaded_write(server, entry("newer", 2, 7)) is None
    assert loaded_write(server, entry("older", 2, 7)) == NewEntry(P("older").key, pack(2), 7)


def test_an_entry_from_the_future_is_stamped_now() -> None:
    near, far = tock_at(NOON_MS + 3_500_000), tock_at(NOON_MS + 3_700_000)
    for wall_ms, tock, expected in ((NOON_MS, near, near), (NOON_MS, far, None), (None, far, far)):
        new = loaded_write(Target(wall_ms), entry("a", 1, tock))
        assert new is not None
        assert new.tock == expected


def test_all_dumps_are_checked_before_any_is_used(dumped: Callable[..., str]) -> None:
    good, bad = dumped(entry("a", 1)), dumped(entry("b", 1), name="bad")
    Path(bad).write_bytes(Path(bad).read_bytes()[:-3])
    with pytest.raises(BadDump, match=r"bad cannot be loaded: at byte \d+: it ends too early"):
        opened_dumps([good, bad]).__enter__()
    with pytest.raises(StorageError, match="absent cannot be read: No such file"):
        opened_dumps([good, f"{bad}.absent"]).__enter__()


def test_a_pipe_can_be_read_twice(dumped: Callable[..., str]) -> None:
    data = Path(dumped(entry("a", 1))).read_bytes()
    reading, writing = os.pipe()
    os.write(writing, data + data)
    os.close(writing)
    try:
        with DumpFile(f"/dev/fd/{reading}") as dump:
            assert dump.check() == 2
            assert [*dump.entries()] == [entry("a", 1), entry("a", 1)]
    finally:
        os.close(reading)


def test_a_dump_that_fails_leaves_the_older_file(dumped: Callable[..., str]) -> None:
    name = dumped(entry("a", 1))
    before = Path(name).read_bytes()

    def failing() -> Any:
        yield entry("b", 1)
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="cannot be written: No space"):
        write_dump(name, DumpHeader("x"), failing())
    assert Path(name).read_bytes() == before
    assert [*Path(name).parent.iterdir()] == [Path(name)]
    assert Path(name).stat().st_mode & 0o777 == 0o600


# --- after joining -------------------------------------------------------------------------------


def test_fates() -> None:
    server = Target()
    server.hear("same", [1], 3)
    server.hear("other", 1, 3, tick=2)
    server.hear("gone", MISSING, 3, tick=3)
    expected = {"same": Fate.SAME, "other": Fate.LEFT, "gone": Fate.WRITE, "new": Fate.WRITE}
    for path, fate in expected.items():
        each = entry(path, [1])
        assert fate_of(each, server.store.newest(each.key)) is fate
    assert fate_of(entry(":n.auth", 1), None) is Fate.SYSTEM


async def test_what_was_kept_is_added_and_nothing_is_overwritten(
    dumped: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dumped(
        entry("mine", 1), entry("same", 2), entry("other", "mine"), entry(":n.a", 1), name=KEPT_NAME
    )
    server = Target()
    server.hear("same", 2, 3)
    server.hear("other", "theirs", 3, tick=2)
    server.hear("theirs", 3, 90, tick=3)
    report = await apply_kept(server, str(tmp_path))
    assert report is not None
    assert (report.written, report.same, report.left, report.system) == (1, 1, 1, 1)
    assert server.values() == {"mine": 1, "same": 2, "other": "theirs", "theirs": 3}
    packed = server.store.get(P("mine").key)
    assert packed is not None
    assert entries.tock_of(packed) > 90  # a new write
    with DumpFile(str(tmp_path / LEFT_NAME)) as left:
        assert [*left.entries()] == [entry("other", "mine")]
    assert "other: the network's value stays" in caplog.text
    assert kept_in(str(tmp_path)) is None
    assert await apply_kept(server, str(tmp_path)) is None


async def test_a_refusing_disk_leaves_what_was_kept(
    dumped: Callable[..., str], tmp_path: Path
) -> None:
    dumped(entry("mine", 1), name=KEPT_NAME)
    server = Target()
    server.fails = StorageError("full")
    with pytest.raises(StorageError, match="full"):
        await apply_kept(server, str(tmp_path))
    assert kept_in(str(tmp_path)) is not None
    server.fails = None
    assert await apply_kept(server, str(tmp_path)) is not None
    assert server.values() == {"mine": 1}


async def test_nothing_kept_is_nothing_to_do(tmp_path: Path) -> None:
    assert await apply_kept(Target(), str(tmp_path)) is None
