"""A disk that refuses: what is asked for while that is told is neither lost nor left unanswered."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from kvedge.clock import SystemClock
from kvedge.errors import AgentError
from kvedge.model.stamp import Rid
from kvedge.server import logs
from kvedge.testing.disk import MemoryDisk


class Owner:
    """Makes room and submits again as soon as it is told of a refusal, as held connections do."""

    def __init__(self, log: logs.DiskLog, disk: MemoryDisk) -> None:
        self.log = log
        self.disk = disk
        self.again = 0
        self.is_synced = asyncio.Event()

    def preamble(self) -> list[bytes]:
        return []

    def snapshot(self) -> Iterable[bytes]:
        return []

    def confirm(self, written_to: int, synced_to: int) -> None:
        if self.again and synced_to >= self.again:
            self.is_synced.set()

    def refuse(self, first: int, error: AgentError) -> None:
        self.disk.capacity_bytes = None
        self.again = self.log.submit(b"again")

    def doubt(self, up_to: int, error: AgentError) -> None:
        raise AssertionError("nothing is in doubt")


async def test_what_is_submitted_while_a_refusal_is_told_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = MemoryDisk()
    monkeypatch.setattr(logs, "OsDisk", lambda _: disk)
    log = logs.DiskLog(str(tmp_path), network="kvedge")
    owner = Owner(log, disk)
    log.start(owner, Rid("me", 1 << 40), 0, SystemClock())
    try:
        disk.capacity_bytes = 0
        log.submit(b"first")
        await asyncio.wait_for(owner.is_synced.wait(), 5)
    finally:
        await asyncio.to_thread(log.close)
    assert b"again" in b"".join(disk.read(name) for name in disk.names())
