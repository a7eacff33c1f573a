"""The log of a server: what damage takes away, and a log that is emptied for a new life."""

from __future__ import annotations

import asyncio
from pathlib import Path as FilePath

import pytest

from kvedge.errors import AgentError
from kvedge.model.path import P
from kvedge.model.stamp import Rid, RidTable
from kvedge.model.value import packb
from kvedge.model.vector import Vector
from kvedge.server.logs import DiskLog, MemoryLog, loaded_from
from kvedge.server.records import record_payload, rid_payload, seen_payloads
from kvedge.server.store import Store
from kvedge.storage.frames import Header, Kind, LossKind
from kvedge.storage.journal import Contents, FileLoss, LoadedFile
from kvedge.testing.clock import VirtualClock

ME, NEXT, PEER = Rid("me", 1 << 40), Rid("me", 2 << 40), Rid("peer", 1 << 40)
SEEN = Vector.of({PEER: ((1, 9),)}, {"gone": 3})


# --- damage -----------------------------------------------------------------------------------


def contents(*losses: LossKind, more: tuple[bytes, ...] = ()) -> Contents:
    table = RidTable()
    number = table.number(PEER)
    header = Header(Kind.JOURNAL, 1, "net", "me", ME.incarnation, 0, 0)
    payloads = [rid_payload(number, PEER, 0), *seen_payloads(SEEN, table), *more]
    return Contents(
        [LoadedFile("journal-00000001.kvj", header, payloads)],
        [FileLoss("journal-00000001.kvj", 50, 10, kind) for kind in losses],
    )


@pytest.mark.parametrize(
    ("losses", "counts"),
    [
        ((), True),
        ((LossKind.TORN,), True),
        ((LossKind.SPARED,), True),
        ((LossKind.DAMAGED,), False),
        ((LossKind.MISSING,), False),
        ((LossKind.SPARED, LossKind.DAMAGED), False),
    ],
)
def test_what_is_said_to_have_been_seen_counts_where_nothing_is_lost(
    losses: tuple[LossKind, ...], counts: bool
) -> None:
    """Who claims what it has lost is never sent it again."""
    assert loaded_from(contents(*losses)).seen == (SEEN if counts else Vector())


def test_a_record_that_cannot_be_understood_takes_the_claims_with_it() -> None:
    lost = record_payload(P("a").key, bytes(8) + b"\x81" + b"\0\0\x63" + bytes(5) + packb(1))
    loaded = loaded_from(contents(more=(lost,)))
    assert loaded.lost == 1
    assert loaded.seen == Vector()


# --- a new life -------------------------------------------------------------------------------


class Owner:
    """A store and the log that it has just now."""

    def __init__(self, log: DiskLog, rid: Rid) -> None:
        self.log = log
        self.store = Store(rid, 0, log.loaded, log)
        self.preamble = self.store.preamble
        log.start(self, rid, 0, VirtualClock())

    def snapshot(self) -> tuple[bytes, ...]:
        return ()

    def confirm(self, written_to: int, synced_to: int) -> None:
        for pending in self.store.confirm(written_to=written_to, synced_to=synced_to):
            pending.done(None)

    def refuse(self, first: int, error: AgentError) -> None:
        raise error

    def doubt(self, up_to: int, error: AgentError) -> None:
        raise error

    async def write(self, path: str) -> None:
        done: asyncio.Future[AgentError | None] = asyncio.get_running_loop().create_future()
        self.store.write(
            P(path).key, packb(1), wall_ms=1 << 40, relaxed=False, done=done.set_result
        )
        assert await done is None


def is_aside(directory: FilePath, data: bytes) -> bool:
    return any(data in file.read_bytes() for file in directory.glob("*.aside"))


async def test_an_emptied_log_holds_the_tock_alone_and_the_old_one_is_kept(
    tmp_path: FilePath,
) -> None:
    owner = Owner(DiskLog(str(tmp_path), network="net"), ME)
    await owner.write("old")
    ceiling = owner.store.ceiling
    log = await owner.log.emptied(NEXT, 300, ceiling)
    assert (log.loaded.entries, log.loaded.tock, log.loaded.lost) == ({}, ceiling, 0)
    assert not log.loaded.seen
    assert log.generation == 3
    assert is_aside(tmp_path, b"old")
    owner.store.begin(NEXT, 300, log.loaded, log)
    log.start(owner, NEXT, 300, VirtualClock())
    await owner.write("new")
    assert owner.store.tock > ceiling
    log.close()

    again = DiskLog(str(tmp_path), network="net")
    assert set(again.loaded.entries) == {P("new").key}
    assert again.loaded.seen == Vector.of({NEXT: ((1, 1),)})
    again.close()


async def test_a_log_in_memory_is_emptied_too() -> None:
    log = await MemoryLog().emptied(NEXT, 300, 77)
    assert log.loaded.tock == 77
    assert not log.loaded.entries
