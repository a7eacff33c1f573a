"""The store of a server that does not run, read as it lies on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kvedge.model import entry as entries
from kvedge.model.value import MISSING
from kvedge.protocol.dumpfile import DumpEntry, DumpHeader
from kvedge.server.logs import header_in
from kvedge.server.records import Loaded, load_file
from kvedge.storage.disk import OsDisk
from kvedge.storage.journal import Journal


@dataclass(frozen=True, slots=True)
class StoredTree:
    """What a directory holds.

    Attributes:
        node: Whose it is.
        network: Of which network.
        loaded: The entries.
        losses: How many pieces of it could not be read.
    """

    node: str
    network: str
    loaded: Loaded
    losses: int

    @property
    def count(self) -> int:
        """How many entries have a value."""
        return sum(map(entries.is_live, self.loaded.entries.values()))

    def header(self, time_s: int | None) -> DumpHeader:
        """Return the header of a dump that is made at this time."""
        return DumpHeader(self.node, self.network, time_s, self.loaded.tock)

    def dumped(self) -> Iterator[DumpEntry]:
        """Yield all entries that have a value, system data too, in order."""
        rids = self.loaded.rids
        for key, packed in sorted(self.loaded.entries.items()):
            value = entries.value_of(packed)
            if value is MISSING:
                continue
            parts = map(entries.link_parts, entries.links_of(packed))
            chain = tuple((rids.node(number), rids.base(number) + tick) for number, tick in parts)
            yield DumpEntry(key, entries.tock_of(packed), chain, value)


def read_store(directory: str) -> StoredTree | None:
    """Return what a directory holds; None where it holds no store, or an empty one.

    The caller holds the directory's lock.

    Raises:
        StorageError: It cannot be read; the class says why.
    """
    header = header_in(directory)
    if header is None:
        return None
    contents = Journal(OsDisk(Path(directory)), network=header.network).load()
    loaded = Loaded()
    for file in contents.files:
        load_file(loaded, file.payloads)
    return StoredTree(header.node, header.network, loaded, len(contents.losses) + loaded.lost)
