"""Where the store's writes go: into the journal on disk, or nowhere.

The journal has a thread of its own; what it reports is taken over into the event loop here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from kvedge.clock import Clock
from kvedge.errors import AgentError, StorageError
from kvedge.model.stamp import Rid, RidTable, generation_of
from kvedge.server.records import Loaded, load_file, preamble
from kvedge.storage.commit import Committer, SnapshotDone
from kvedge.storage.commit_queue import Done
from kvedge.storage.directory import DirectoryLock
from kvedge.storage.disk import OsDisk
from kvedge.storage.frames import Header, LossKind, read_frames
from kvedge.storage.journal import Contents, Journal

log = logging.getLogger(__name__)


class Owner(Protocol):
    """Who is told what became of submitted payloads; always in the event loop."""

    def preamble(self) -> list[bytes]:
        """Return what a new file begins with; may be called from another thread."""

    def snapshot(self) -> Iterable[bytes]:
        """Return what a snapshot holds; read in another thread, so it must not change."""

    def confirm(self, written_to: int, synced_to: int) -> None:
        """They are in the file, and on the disk, up to these numbers."""

    def refuse(self, first: int, error: AgentError) -> None:
        """From this number on they are not, and never will be."""

    def doubt(self, up_to: int, error: AgentError) -> None:
        """Up to this number it cannot be told; it will be tried again."""


class Log(Protocol):
    """Where payloads become durable.

    Attributes:
        loaded: What was there when it was opened.
    """

    loaded: Loaded

    @property
    def beats(self) -> int:
        """A number that rises while the log moves."""

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        """Take a payload; return its running number."""

    def start(self, owner: Owner, rid: Rid, base: int, clock: Clock) -> None:
        """Begin to work for an owner."""

    def close(self) -> None:
        """Write out what is left and end; blocks."""

    async def emptied(self, rid: Rid, base: int, tock: int) -> Log:
        """End, set all that is kept aside, and return a log that holds a tock alone."""


class MemoryLog:
    """Keeps nothing: what is submitted counts as durable in the loop's next round.

    Attributes:
        loaded: What it begins with: a tock at most.
    """

    def __init__(self, tock: int = 0) -> None:
        self.loaded = Loaded(tock=tock)
        self._number = 0
        self._owner: Owner | None = None
        self._loop = asyncio.get_running_loop()
        self._is_due = False

    @property
    def beats(self) -> int:
        """A number that rises: there is no journal to get stuck."""
        self._number += 1
        return self._number

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        """Take a payload; return its running number."""
        self._number += 1
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._confirm)
        return self._number

    def _confirm(self) -> None:
        self._is_due = False
        if self._owner is not None:
            self._owner.confirm(self._number, self._number)

    def start(self, owner: Owner, rid: Rid, base: int, clock: Clock) -> None:
        """Begin to work for an owner."""
        self._owner = owner

    def close(self) -> None:
        """Do nothing."""

    async def emptied(self, rid: Rid, base: int, tock: int) -> MemoryLog:
        """Return another one."""
        return MemoryLog(tock)


class DiskLog:
    """Keeps payloads in the journal of a directory.

    Attributes:
        loaded: What the directory held.
        generation: Of the next incarnation: one more than the largest that wrote there.
    """

    def __init__(self, directory: str, *, network: str) -> None:
        self._directory, self._network = directory, network
        self._lock = DirectoryLock(Path(directory))
        try:
            self._journal = Journal(OsDisk(Path(directory)), network=network)
            contents = self._journal.load()
        except StorageError:
            self._lock.release()
            raise
        self.loaded = loaded_from(contents)
        self.generation = generation_of(contents.incarnation_max) + 1
        _report(contents, self.loaded.lost)
        self._loop = asyncio.get_running_loop()
        self._owner: Owner | None = None
        self._committer: Committer | None = None

    @property
    def beats(self) -> int:
        """A number that rises while the journal's thread moves."""
        return self._committer.beats if self._committer else 0

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        """Take a payload; return its running number."""
        assert self._committer is not None, "start() comes first"
        return self._committer.submit(payload, vital=vital, durable=durable)

    def start(self, owner: Owner, rid: Rid, base: int, clock: Clock) -> None:
        """Begin to write for an owner."""
        self._owner = owner
        self._journal.begin(
            node=rid.node, incarnation=rid.incarnation, base=base, preamble=owner.preamble
        )
        self._committer = Committer(
            self._journal,
            clock,
            on_done=self._hand_over,
            on_snapshot=_report_snapshot,
        )

    def _hand_over(self, done: Done) -> None:
        """Take a report over into the loop; in the journal's thread."""
        self._loop.call_soon_threadsafe(self._take, done)

    def _take(self, done: Done) -> None:
        """Pass on what the journal's thread reports; in the loop."""
        assert self._owner is not None
        assert self._committer is not None
        if done.refused is not None:
            log.error("%s", done.refused.error)
            self._committer.resume()  # first: the owner may submit again while it takes note
            self._owner.refuse(done.refused.first, done.refused.error)
        if done.uncertain is not None:
            log.error("%s", done.uncertain.error)
            self._owner.doubt(done.uncertain.upto, done.uncertain.error)
        self._owner.confirm(done.written_to, done.synced_to)
        if done.snapshot is not None:
            self._committer.snapshot(done.snapshot, self._owner.snapshot())

    def close(self) -> None:
        """Write out what is left and let the directory go; blocks."""
        if self._committer is not None:
            self._committer.close()
        self._lock.release()

    async def emptied(self, rid: Rid, base: int, tock: int) -> DiskLog:
        """Write out what is left, set all files aside, and return a log of the same directory.

        Args:
            rid: Who goes on.
            base: What is added to its ticks to show them.
            tock: What the new files begin with, so that it does not fall.

        Raises:
            StorageError: The directory cannot be read any more.
            OSError: The files cannot be renamed.
        """

        def empty() -> None:
            if self._committer is not None:
                self._committer.close()
            journal = Journal(OsDisk(Path(self._directory)), network=self._network)
            journal.load()
            journal.begin(
                node=rid.node,
                incarnation=rid.incarnation,
                base=base,
                preamble=lambda: preamble(RidTable(), tock),
            )
            journal.set_aside()
            self._lock.release()

        await asyncio.to_thread(empty)
        return DiskLog(self._directory, network=self._network)


def loaded_from(contents: Contents) -> Loaded:
    """Return what a store's files come to; what was damaged takes all claims with it."""
    loaded = Loaded()
    for file in contents.files:
        load_file(loaded, file.payloads)
    if not loaded.lost and not any(loss.kind in _HARMFUL for loss in contents.losses):
        loaded.seen.merge(loaded.claimed)
    return loaded


def node_in(directory: str) -> str | None:
    """Return the node whose store a directory holds, None where there is none that can be read."""
    header = header_in(directory)
    return header.node if header else None


def header_in(directory: str) -> Header | None:
    """Return what the newest file of a store says of it, None where none can be read."""
    disk = OsDisk(Path(directory))
    try:
        names = [name for name in disk.names() if name.endswith((".kvj", ".kvs"))]
        for name in sorted(names, key=lambda name: name.partition("-")[2], reverse=True):
            header = read_frames(disk.read(name), name=directory).header
            if header is not None:
                return header
    except OSError:
        return None  # opening it will tell what is wrong
    return None


def _report(contents: Contents, lost: int) -> None:
    """Tell what could not be read."""
    for loss in contents.losses:
        level = _LEVELS.get(loss.kind, logging.ERROR)
        log.log(level, _TEXTS[loss.kind], loss.file, loss.size_bytes, loss.offset)
    if lost:
        log.error("%d records name a writer whose own entry is damaged: they are lost", lost)


_HARMFUL = {LossKind.DAMAGED, LossKind.MISSING}
_LEVELS = {LossKind.TORN: logging.INFO, LossKind.SPARED: logging.WARNING}
_TEXTS = {
    LossKind.TORN: "%s ends with %d bytes of an unfinished write at byte %d: cut",
    LossKind.SPARED: "%s: %d bytes at byte %d are damaged; their copy is good, nothing is lost",
    LossKind.DAMAGED: "%s: %d bytes at byte %d are damaged: what stood there is lost",
    LossKind.MISSING: "%s cannot be read (%d bytes at byte %d): what stood there is lost",
}


def _report_snapshot(report: SnapshotDone) -> None:
    if report.error is not None:
        log.warning("snapshot %d was not written: %s", report.number, report.error)
    else:
        log.info("snapshot %d has %d bytes", report.number, report.size_bytes)
