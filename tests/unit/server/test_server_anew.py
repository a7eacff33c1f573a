"""The server that begins a new life with a copy, or ends: its tree, its files, its clients."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path as FilePath
from typing import Any

import pytest

from kvedge.errors import AgentError, NameTaken, StorageError, WriteRefused
from kvedge.model import entry as entries
from kvedge.model.entry import Fence, unpack_entry
from kvedge.model.path import P
from kvedge.model.places import HOMES
from kvedge.model.stamp import Rid
from kvedge.model.value import packb
from kvedge.model.vector import Vector
from kvedge.protocol.replication import Copied
from kvedge.server.dumps import NewEntry
from kvedge.server.logs import DiskLog, MemoryLog
from kvedge.server.recovery import Saved
from kvedge.server.server import _BASE_GAP, Server, run_server
from kvedge.server.settings import ServerSettings
from kvedge.server.store import Pending, Store
from kvedge.storage.directory import TAKEN_NAME, mark_taken
from kvedge.storage.dumps import DumpFile
from kvedge.storage.journal import Journal
from kvedge.testing.clock import VirtualClock

ClientOf = Callable[[Any], Any]

ME, NEXT, AFTER = Rid("me", 1 << 40), Rid("me", 2 << 40), Rid("me", 3 << 40)
COPIED = Copied((), {}, Vector())
JOB = Fence("job", 7)


class HandNetwork:
    """What the server asks of its network, kept."""

    name = "net"

    def __init__(self) -> None:
        self.begun: list[tuple[Copied, list[Saved]]] = []
        self.stayed = 0

    def begin(self, copied: Copied, saved: list[Saved]) -> None:
        self.begun.append((copied, saved))

    def stay(self) -> None:
        self.stayed += 1

    def told(self) -> list[bytes]:
        return []

    def settled(self, write: Pending) -> None:
        """Do nothing."""


class Board:
    """A server with a tree, about to begin anew."""

    def __init__(self, directory: FilePath | None) -> None:
        self.directory = directory
        given = None if directory is None else str(directory)
        log = MemoryLog() if given is None else DiskLog(given, network="net")
        self.server = Server(Store(ME, 100, log.loaded, log), log, VirtualClock(), given)
        made: Any = HandNetwork
        self.network = made()
        self.server.network = self.network
        log.start(self.server, ME, 100, VirtualClock())

    @property
    def store(self) -> Store:
        return self.server.store

    async def write(self, path: str, value: object = 1) -> None:
        await self.server.write_all([NewEntry(P(path).key, packb(value))])

    def saved(self, path: str) -> Saved:
        key = P(path).key
        return Saved(key, unpack_entry(self.store.get(key) or b"", self.store.rids))

    async def begin_anew(self, rid: Rid = NEXT, saved: list[Saved] | None = None) -> None:
        """End this life, as the network does when nothing is under way any more."""
        self.store.is_frozen = True
        self.server.begin_anew(rid, COPIED, saved or [])
        assert self.server._renewing is not None
        await self.server._renewing

    def paths(self) -> set[bytes]:
        return {key for key, _ in self.store.tree.items()}


@pytest.fixture(params=["disk", "memory"])
async def board(request: pytest.FixtureRequest, tmp_path: FilePath) -> AsyncIterator[Board]:
    """One with a directory, and one without."""
    made = Board(tmp_path if request.param == "disk" else None)
    yield made
    made.server.close_log()


@pytest.fixture
async def on_disk(tmp_path: FilePath) -> AsyncIterator[Board]:
    """One with a directory."""
    made = Board(tmp_path)
    yield made
    made.server.close_log()


def aside(directory: FilePath) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(directory.glob("*.aside")))


# --- a new life -------------------------------------------------------------------------------


async def test_the_tree_is_empty_and_the_numbers_go_on(board: Board) -> None:
    await board.write("old")
    tock, ceiling, shown = board.store.tock, board.store.ceiling, board.store.tick_shown
    await board.begin_anew()
    assert board.paths() == set()
    assert not board.store.seen
    assert board.store.rid == NEXT
    assert board.store.base == shown + _BASE_GAP
    assert board.store.ceiling >= ceiling
    assert board.store.tock >= tock
    assert board.network.begun == [(COPIED, [])]
    assert not board.server.ended.is_set()


async def test_it_can_be_written_again_above_the_old_ceiling(board: Board) -> None:
    await board.write("old")
    ceiling = board.store.ceiling
    await board.begin_anew()
    await board.write("new")
    assert board.paths() == {P("new").key}
    packed = board.store.get(P("new").key) or b""
    assert entries.tock_of(packed) >= ceiling - (2000 << 16)
    assert board.store.shown_links(packed) == [("me", board.store.base + 1)]


async def test_it_may_happen_twice(board: Board) -> None:
    await board.write("old")
    await board.begin_anew()
    await board.write("new")
    tock = board.store.tock
    await board.begin_anew(AFTER)
    assert board.store.rid == AFTER
    assert board.paths() == set()
    await board.write("newest")
    assert board.store.tock > tock


async def test_nothing_is_written_meanwhile(board: Board) -> None:
    board.store.is_frozen = True
    with pytest.raises(WriteRefused, match="whole copy"):
        await board.write("meanwhile")
    await board.begin_anew()
    assert board.paths() == set()


async def test_homes_and_fences_are_those_of_the_new_tree(board: Board) -> None:
    await board.server.write_all([NewEntry(HOMES.key + P("a").key, packb("other"))])
    assert board.server.homes.of(P("a").key) == "other"
    board.server.fences.check(JOB)
    await board.begin_anew()
    assert board.server.homes.of(P("a").key) is None
    board.server.fences.check(Fence("job", 1))
    await board.server.write_all([NewEntry(HOMES.key + P("a").key, packb("again"))])
    assert board.server.homes.of(P("a").key) == "again"


async def test_clients_have_to_connect_anew(board: Board, client_of: ClientOf) -> None:
    """What they were shown may be gone."""
    client = client_of(board.server)
    assert not client.link.is_closed
    await board.begin_anew()
    assert client.link.is_closed


async def test_the_files_are_set_aside_and_stay_readable(on_disk: Board) -> None:
    assert on_disk.directory is not None
    await on_disk.write("a.of.the.old.tree", "precious")
    await on_disk.begin_anew()
    await on_disk.write("b", "new")
    assert b"precious" in aside(on_disk.directory)
    on_disk.server.close_log()
    again = DiskLog(str(on_disk.directory), network="net")
    assert set(again.loaded.entries) == {P("b").key}
    assert again.loaded.seen == Vector.of({NEXT: ((1, 1),)})
    assert again.loaded.tock >= on_disk.store.tock
    assert again.generation == 3
    again.close()


async def test_a_crash_after_it_does_not_let_the_tock_fall(on_disk: Board) -> None:
    await on_disk.write("old")
    tock = on_disk.store.tock
    await on_disk.begin_anew()
    on_disk.server.close_log()  # before anything was written
    again = DiskLog(str(on_disk.directory), network="net")
    assert again.loaded.tock >= tock
    again.close()


# --- what only this board has -----------------------------------------------------------------


async def test_what_only_this_board_has_is_in_a_file_first(on_disk: Board) -> None:
    assert on_disk.directory is not None
    await on_disk.write("mine", "precious")
    await on_disk.write("shared")
    saved = [on_disk.saved("mine")]
    await on_disk.begin_anew(saved=saved)
    assert on_disk.network.begun == [(COPIED, saved)]
    with DumpFile(str(on_disk.directory / f"unsynced-{NEXT.incarnation:x}.dump")) as dump:
        [found] = dump.entries()
    assert (found.key, found.value, found.tock) == (
        P("mine").key, packb("precious"), saved[0].entry.tock
    )  # fmt: skip
    assert found.chain == (("me", 101),)


async def test_without_any_there_is_no_file(on_disk: Board) -> None:
    assert on_disk.directory is not None
    await on_disk.begin_anew()
    assert list(on_disk.directory.glob("*.dump")) == []


async def test_in_memory_it_is_handed_over_alone() -> None:
    board = Board(None)
    await board.write("mine")
    saved = [board.saved("mine")]
    await board.begin_anew(saved=saved)
    assert board.network.begun == [(COPIED, saved)]


async def test_a_tree_that_cannot_be_saved_stays(
    on_disk: Board, client_of: ClientOf, caplog: pytest.LogCaptureFixture
) -> None:
    assert on_disk.directory is not None
    await on_disk.write("mine")
    client = client_of(on_disk.server)
    (on_disk.directory / f"unsynced-{NEXT.incarnation:x}.dump").mkdir()  # as a full disk would
    caplog.set_level(logging.ERROR)
    await on_disk.begin_anew(saved=[on_disk.saved("mine")])
    assert "the tree stays as it is until its own changes can be saved" in caplog.text
    assert on_disk.network.stayed == 1
    assert on_disk.network.begun == []
    assert on_disk.store.rid == ME
    assert not client.link.is_closed
    assert not on_disk.server.ended.is_set()
    assert aside(on_disk.directory) == b""
    await on_disk.write("again")  # it goes on
    assert on_disk.paths() == {P("mine").key, P("again").key}


# --- ends -------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["set_aside", "load"])
async def test_a_store_that_cannot_be_set_aside_ends_the_server(
    where: str, on_disk: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    await on_disk.write("old")

    def fail(_: Journal) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patched:
        patched.setattr(Journal, where, fail)
        await on_disk.begin_anew()
    assert on_disk.server.ended.is_set()
    why = on_disk.server.why
    assert type(why) is StorageError
    assert "the store cannot be set aside" in str(why)
    assert "Read-only file system" in str(why)
    assert on_disk.network.begun == []
    with pytest.raises(WriteRefused):
        await on_disk.write("after")
    on_disk.server.close_log()
    again = DiskLog(str(on_disk.directory), network="net")  # it is not claimed any more
    assert set(again.loaded.entries) == {P("old").key}
    again.close()


async def test_a_name_that_is_taken_marks_the_directory(on_disk: Board) -> None:
    assert on_disk.directory is not None
    on_disk.server.give_way()
    on_disk.server.give_way()
    assert (on_disk.directory / TAKEN_NAME).exists()
    why = on_disk.server.why
    assert isinstance(why, NameTaken)
    assert (why.node, why.directory) == ("me", str(on_disk.directory))
    assert on_disk.server.ended.is_set()


async def test_it_ends_although_the_mark_cannot_be_made(
    on_disk: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(FilePath, "touch", fail)
    on_disk.server.give_way()
    assert on_disk.server.ended.is_set()


async def test_in_memory_a_name_is_given_up_too() -> None:
    board = Board(None)
    board.server.give_way()
    assert str(board.server.why) == "another server has taken over the name me from memory"


async def test_the_first_reason_counts(on_disk: Board) -> None:
    on_disk.server.give_way()
    on_disk.server._end(AgentError("another one"))
    assert isinstance(on_disk.server.why, NameTaken)


async def test_a_directory_whose_name_was_taken_is_not_served(tmp_path: FilePath) -> None:
    mark_taken(str(tmp_path))
    clock = VirtualClock()
    with pytest.raises(NameTaken):
        async with run_server(ServerSettings("me", directory=str(tmp_path)), clock=clock):
            pass
    taken = ServerSettings("me", directory=str(tmp_path), take_name=True)
    async with run_server(taken, clock=clock):
        pass
    async with run_server(ServerSettings("me", directory=str(tmp_path)), clock=clock):
        pass
