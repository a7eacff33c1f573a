"""What becomes of dumps that a server is given: as a new store's beginning, or after joining.

A dump that is **loaded** at a start brings its tocks along: each entry becomes a write of this
server under the tock it had.  So of two dumps the newer value stays, whatever their order, and
where the network knows of a later change, that one wins as soon as it is heard of.

A dump that was **kept** when this board joined a network is applied once the board has the
network's data: what the network does not have is written, under a new tock; where it has another
value, that stays.  System data below None, such as users and rules, is not taken along: it would
hold for the whole network.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from kvedge.errors import StorageError
from kvedge.model import entry as entries
from kvedge.model.value import MISSING, same
from kvedge.protocol.dumpfile import DumpEntry, DumpHeader
from kvedge.server.store import Store
from kvedge.storage.dumps import DumpFile, sync_directory, write_dump

log = logging.getLogger(__name__)

KEPT_NAME = "join.dump"
"""In the store's directory: a dump to be applied once the network's data are there."""

LEFT_NAME = "join.left.dump"
"""Beside it, afterwards: the entries that the network had other values for."""

_BATCH = 256
_BATCH_BYTES = 1 << 20
_AHEAD_MAX = 3600 * 1000 << 16  # an hour: what servers accept of each other
_TOLD_MAX = 20  # paths that are told one by one in the log


@dataclass(frozen=True, slots=True)
class NewEntry:
    """An entry to be written.

    Attributes:
        key: The packed path.
        value: The packed value.
        tock: When it was made; None for now.
    """

    key: bytes
    value: bytes
    tock: int | None = None


class Writer(Protocol):
    """What is asked of the server."""

    @property
    def store(self) -> Store:
        """Its tree."""

    def wall_ms(self) -> int | None:
        """Return unix milliseconds, None while the clock is not synchronised."""

    async def write_all(self, writes: Sequence[NewEntry]) -> None:
        """Write entries; return when all are durable."""


# --- at a start --------------------------------------------------------------------------------


@contextmanager
def opened_dumps(names: Iterable[str]) -> Iterator[list[DumpFile]]:
    """Open dumps and check each from end to end, before anything is done with any of them.

    Raises:
        BadDump: One is damaged; the error names file and byte.
        StorageError: One cannot be read.
    """
    with ExitStack() as stack:
        dumps = [stack.enter_context(DumpFile(name)) for name in names]
        for dump in dumps:
            dump.check()
        yield dumps


async def load_dump(server: Writer, dump: DumpFile) -> int:
    """Write the entries of a dump, as far as the tree does not hold them or newer ones.

    Returns:
        How many were written.
    """
    written = total = 0
    for batch in _batches(dump.entries()):
        new = [write for each in batch if (write := loaded_write(server, each)) is not None]
        await server.write_all(new)
        written += len(new)
        total += len(batch)
    log.info("%s: %d of %d entries are loaded", dump.name, written, total)
    return written


def loaded_write(server: Writer, entry: DumpEntry) -> NewEntry | None:
    """Return the write that an entry of a dump becomes; None where the tree is as new."""
    present = server.store.newest(entry.key)
    if present is not None:
        value = entries.value_of(present)
        if entries.tock_of(present) >= entry.tock:
            return None
        if value is not MISSING and same(value, entry.value):
            return None
    wall_ms = server.wall_ms()
    is_ahead = wall_ms is not None and entry.tock > (wall_ms << 16) + _AHEAD_MAX
    return NewEntry(entry.key, entry.value, None if is_ahead else entry.tock)


# --- after joining -----------------------------------------------------------------------------


class Fate(Enum):
    """What becomes of an entry that was kept when this board joined."""

    WRITE = "the network has nothing there"
    SAME = "the network has the same value"
    LEFT = "the network has another value, which stays"
    SYSTEM = "it is system data of the former network"


@dataclass(slots=True)
class KeptReport:
    """How many kept entries met which fate."""

    written: int = 0
    same: int = 0
    left: int = 0
    system: int = 0

    def count(self, fate: Fate) -> None:
        """Count one more."""
        name = "written" if fate is Fate.WRITE else fate.name.lower()
        setattr(self, name, getattr(self, name) + 1)


def fate_of(entry: DumpEntry, present: bytes | None) -> Fate:
    """Return what becomes of a kept entry.

    Args:
        entry: From the kept dump.
        present: The packed entry that the network has there, tombstones included; None for none.
    """
    if entry.path.is_system:
        return Fate.SYSTEM
    value = MISSING if present is None else entries.value_of(present)
    if value is MISSING:
        return Fate.WRITE
    return Fate.SAME if same(value, entry.value) else Fate.LEFT


async def apply_kept(server: Writer, directory: str) -> KeptReport | None:
    """Write what was kept when this board joined, and forget that it was kept.

    To be called when this server has all that the network had.  What the network has other
    values for stays in the file `join.left.dump`.  Interrupted, it is done again at the next call.

    Args:
        server: Whose store has the network's data.
        directory: Of the store.

    Returns:
        What became of the entries; None where none were kept.

    Raises:
        StorageError: The disk refuses, or the kept dump is damaged; it is left as it is.
    """
    kept = kept_in(directory)
    if kept is None:
        return None
    report = KeptReport()
    with DumpFile(str(kept)) as dump:
        dump.check()
        left = _Left(Path(directory, LEFT_NAME), server.store)
        for batch in _batches(dump.entries()):
            fates = [(entry, fate_of(entry, server.store.newest(entry.key))) for entry in batch]
            for entry, fate in fates:
                report.count(fate)
                if fate is Fate.LEFT:
                    left.add(entry)
            await server.write_all(
                [NewEntry(e.key, e.value) for e, fate in fates if fate is Fate.WRITE]
            )
        left.save(dump)
    _forget(kept)
    log.info(
        "of what was kept when joining, %d entries are written and %d were there; %d of system"
        " data are not taken over",
        report.written,
        report.same,
        report.system,
    )
    return report


def kept_in(directory: str) -> Path | None:
    """Return the file that waits to be applied, None where there is none."""
    kept = Path(directory, KEPT_NAME)
    return kept if kept.exists() else None


class _Left:
    """The entries that the network has other values for: told, and kept in a file."""

    def __init__(self, path: Path, store: Store) -> None:
        self._path = path
        self._store = store
        self._keys: set[bytes] = set()

    def add(self, entry: DumpEntry) -> None:
        self._keys.add(entry.key)
        if len(self._keys) <= _TOLD_MAX:
            log.warning("%s: the network's value stays; this board had another", entry.path)

    def save(self, dump: DumpFile) -> None:
        if not self._keys:
            return
        header = DumpHeader(node=self._store.rid.node, tock=self._store.tock)
        found = (entry for entry in dump.entries() if entry.key in self._keys)
        count = write_dump(str(self._path), header, found)
        log.warning(
            "the network had other values for %d entries of this board; its own are in %s:"
            " see `kv dump show`",
            count,
            self._path,
        )


def _forget(kept: Path) -> None:
    try:
        kept.unlink()
        sync_directory(kept.parent)
    except OSError as error:
        raise StorageError(f"{kept} cannot be removed: {error.strerror}") from error


def _batches(found: Iterable[DumpEntry]) -> Iterator[list[DumpEntry]]:
    """Yield entries in batches that the log can take at once."""
    batch: list[DumpEntry] = []
    size = 0
    for entry in found:
        batch.append(entry)
        size += len(entry.value)
        if len(batch) >= _BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
