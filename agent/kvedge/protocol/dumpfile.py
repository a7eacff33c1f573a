"""The format of dumps: entries as a stream of msgpack arrays, so that a cut file is noticed.

    dump    = header, entry ..., end
    header  = ["kvedge dump", major, minor, {"node", "network", "time", "tock"}]
    entry   = [path, tock, [node, tick, node, tick, ...], value]
    end     = ["end", count of the entries, CRC-32 of all bytes from the header on]

A path is the array of its elements; `network` and `time` (unix seconds) may be None.  The chain
is as users are shown it, newest first, for people to read: where a dump is loaded, its entries
become writes of the one who loads it.  Deletions are not in a dump.

Several dumps may follow each other in one stream.  A reader takes any minor version: parts that
were added stand behind those it knows, and are passed over.  It holds one entry at a time.

This module is pure: bytes in, entries out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any
from zlib import crc32

import msgpack

from kvedge import limits
from kvedge.errors import BadDump, BadPath, BadValue, LimitExceeded
from kvedge.model.path import Path, key_of
from kvedge.model.value import Malformed, decode, pack, packb
from kvedge.protocol.framing import check_parts

MAGIC = "kvedge dump"
VERSION_MAJOR = 1
VERSION_MINOR = 0

_END = "end"
_ENTRY_HEAD = b"\x94"  # an array of four
_TOCK_MAX = (1 << 63) - 1
_PARTS_MAX = limits.ELEMENTS_MAX + 2 * limits.PATH_ELEMENTS_MAX
"""Of one entry: a value's, and what path, chain and tock come to."""


@dataclass(frozen=True, slots=True)
class DumpHeader:
    """What a dump says about itself.

    Attributes:
        node: Whose server it was taken from.
        network: The name of that node's network, None where it was not known.
        time_s: When, in unix seconds; None on a board whose clock was not set.
        tock: The server's at the start.
    """

    node: str
    network: str | None = None
    time_s: int | None = None
    tock: int = 0


@dataclass(frozen=True, slots=True)
class DumpEntry:
    """One entry of a dump.

    Attributes:
        key: The packed path.
        tock: When it was changed.
        chain: By which changes, as (node, tick), newest first.
        value: The packed value.
    """

    key: bytes
    tock: int
    chain: tuple[tuple[str, int], ...]
    value: bytes

    @property
    def path(self) -> Path:
        """Where."""
        return Path.from_key(self.key)


class DumpWriter:
    """Makes the bytes of one dump: `start`, then each `entry`, then `end`."""

    def __init__(self) -> None:
        self.count = 0
        self._crc = 0

    def start(self, header: DumpHeader) -> bytes:
        """Return the first bytes."""
        about = {
            "node": header.node,
            "network": header.network,
            "time": header.time_s,
            "tock": header.tock,
        }
        return self._counted(packb((MAGIC, VERSION_MAJOR, VERSION_MINOR, about)))

    def entry(self, entry: DumpEntry) -> bytes:
        """Return the bytes of an entry."""
        links = tuple(part for link in entry.chain for part in link)
        self.count += 1
        head = packb(entry.path.elements) + packb(entry.tock) + packb(links)
        return self._counted(_ENTRY_HEAD + head + entry.value)

    def end(self) -> bytes:
        """Return the last bytes."""
        return packb((_END, self.count, self._crc))

    def _counted(self, data: bytes) -> bytes:
        self._crc = crc32(data, self._crc)
        return data


class _State(Enum):
    EMPTY = "nothing was read yet"
    INSIDE = "a header was read, and no end"
    BETWEEN = "an end was read"


class DumpReader:
    """Reads dumps from bytes as they come.

    Attributes:
        header: Of the dump that is read or was read last.
        count: Entries so far, of all dumps.
    """

    def __init__(self, name: str) -> None:
        self.header: DumpHeader | None = None
        self.count = 0
        self._name = name
        self._state = _State.EMPTY
        self._pending = bytearray()
        self._scanner = msgpack.Unpacker(max_buffer_size=(1 << 31) - 1, read_size=1 << 14)
        self._offset = 0  # where in the file `_pending` begins
        self._crc = 0
        self._count = 0  # of this dump

    def feed(self, data: bytes) -> Iterator[DumpEntry | DumpHeader]:
        """Yield the headers and entries that are complete with these bytes; read all of them.

        Raises:
            BadDump: What comes next is not part of a dump, or not the one that was written.
        """
        self._pending += data
        self._scanner.feed(data)
        while (raw := self._next()) is not None:
            item = self._take(raw)
            self._offset += len(raw)
            if item is not None:
                yield item

    def finish(self) -> None:
        """Say that there are no more bytes.

        Raises:
            BadDump: Some are missing.
        """
        if self._state is _State.EMPTY and not self._pending:
            raise self._bad("it is empty")
        if self._pending or self._state is not _State.BETWEEN:
            self._offset += len(self._pending)
            raise self._bad(f"it ends too early, after {self.count} entries: it was cut")

    def _next(self) -> bytes | None:
        """Return the next item whole, None where it is not complete."""
        if not self._pending:
            return None
        try:
            self._scanner.skip()
        except msgpack.OutOfData:
            self._check_size(len(self._pending))
            return None
        except (ValueError, msgpack.UnpackException) as error:
            raise self._bad(self._no_dump() or "these bytes are damaged") from error
        size = self._scanner.tell() - self._offset
        self._check_size(size)
        raw = bytes(self._pending[:size])
        del self._pending[:size]
        return raw

    def _check_size(self, size: int) -> None:
        if size > limits.MESSAGE_MAX_BYTES:
            too_long = f"an item is longer than {limits.MESSAGE_MAX_BYTES} bytes"
            raise self._bad(self._no_dump() or too_long)

    def _take(self, raw: bytes) -> DumpEntry | DumpHeader | None:
        try:
            check_parts(raw, _PARTS_MAX)
            item = decode(raw)
        except ValueError as error:  # LimitExceeded is one
            raise self._bad(self._no_dump() or f"these bytes are damaged ({error})") from error
        match item:
            case (str() as word, int(), int(), dict() as about, *_) if word == MAGIC:
                return self._take_header(item, about, raw)
            case (str() as word, int(), int(), *_) if word == MAGIC:
                self._check_version(item)
                raise self._bad("its header is damaged")
            case _ if self._state is not _State.INSIDE:
                raise self._bad(self._no_dump() or "something else follows the dump")
            case (str() as word, count, crc, *_) if word == _END:
                self._take_end(count, crc)
                return None
            case (tuple() as path, int() as tock, tuple() as links, value, *_):
                self._crc = crc32(raw, self._crc)
                return self._entry(path, tock, links, value)
        raise self._bad("this is no entry")

    def _no_dump(self) -> str | None:
        """Return what to say where nothing of the file was recognised."""
        return "it is no dump of kvedge" if self._state is _State.EMPTY else None

    def _check_version(self, item: tuple[Any, ...]) -> None:
        _, major, minor, *_ = item
        if major != VERSION_MAJOR:
            age = "a newer" if major > VERSION_MAJOR else "an older"
            why = f"it is of {age} version (format {major}.{minor}, not {VERSION_MAJOR}.x)"
            raise self._bad(why)

    def _take_header(self, item: tuple[Any, ...], about: dict[Any, Any], raw: bytes) -> DumpHeader:
        self._check_version(item)
        if self._state is _State.INSIDE:
            raise self._bad("a dump begins inside another one, whose end is missing")
        header = DumpHeader(
            node=about.get("node", ""),
            network=about.get("network"),
            time_s=about.get("time"),
            tock=about.get("tock", 0),
        )
        if not _is_good(header):
            raise self._bad("its header is damaged")
        self._state, self._count, self._crc = _State.INSIDE, 0, crc32(raw)
        self.header = header
        return header

    def _take_end(self, count: object, crc: object) -> None:
        if count != self._count:
            raise self._bad(f"it has {self._count} entries, and its end says {count}")
        if crc != self._crc:
            raise self._bad("it was changed after it was written: the checksum is wrong")
        self._state = _State.BETWEEN

    def _entry(
        self, path: tuple[Any, ...], tock: int, links: tuple[Any, ...], value: object
    ) -> DumpEntry:
        chain = tuple(zip(links[::2], links[1::2], strict=False))
        good = len(links) == 2 * len(chain) <= 2 * limits.CHAIN_LINKS_MAX and all(
            isinstance(node, str) and _is_count(tick) for node, tick in chain
        )
        if not good or not _is_count(tock):
            raise self._bad("the stamps of an entry are damaged")
        try:
            if any(isinstance(element, Malformed) for element in path):
                raise self._bad("the path of an entry is damaged")
            entry = DumpEntry(key_of(path), tock, chain, pack(value))
        except (BadPath, BadValue, LimitExceeded) as error:
            raise self._bad(str(error)) from error
        self._count += 1
        self.count += 1
        return entry

    def _bad(self, why: str) -> BadDump:
        return BadDump(self._name, offset=self._offset, why=why)


def _is_good(header: DumpHeader) -> bool:
    """Tell whether the fields of a header that was read are what they should be."""
    return (
        isinstance(header.node, str)
        and isinstance(header.network, str | None)
        and (header.time_s is None or _is_count(header.time_s))
        and _is_count(header.tock)
    )


def _is_count(given: object) -> bool:
    return type(given) is int and 0 <= given <= _TOCK_MAX
