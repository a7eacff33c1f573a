"""The journal: segments that are appended to, and snapshots that shorten it.

    journal-00000007.kvj     what was appended, in order
    snapshot-00000007.kvs    the whole state that the segments below 7 come to
    snapshot-00000007.tmp    a snapshot that is not finished, or never was

Segment numbers rise by one.  A process never appends to a segment of another one: a torn tail
stays where it is and is not read.  A segment is made when there is something to put into it, so
a start alone writes nothing.  Each file begins with the caller's *preamble*, the payloads that
others in the file refer to, so every file can be read by itself.

A snapshot is written under another name, synced and renamed.  One older snapshot stays, with the
segments from there on: should the newest one be damaged, the state is put together from the older
generation and whatever can be read of the newer.  That works because the order and repetition
of payloads do not matter to the caller.

The methods block; those that write raise OSError as the disk does.  One thread calls them;
`write_snapshot` alone may run in another one at the same time.
"""

from __future__ import annotations

import errno
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace

from kvedge import limits
from kvedge.errors import SnapshotMissing, StorageError, WriteRefused
from kvedge.storage import frames
from kvedge.storage.disk import Disk
from kvedge.storage.frames import FileContent, Header, Kind, LossKind

SNAPSHOT_GROWTH = 2
"""A snapshot is due when the journal has grown to this many times the last one."""

SEGMENTS_MAX = 64
"""A snapshot is due after so many segments: each start makes one, however small."""

_HEADERS_MAX_BYTES = 256  # a tear within the first copy of a header is shorter than this

_CHUNK_BYTES = 64 * 1024  # what a snapshot encodes before it lets other threads run
_SEGMENT = re.compile(r"journal-(\d{8,})\.kvj")
_SNAPSHOT = re.compile(r"snapshot-(\d{8,})\.kvs")
_UNFINISHED = re.compile(r"snapshot-(\d{8,})\.tmp")

Preamble = Callable[[], Iterable[bytes]]


def segment_name(number: int) -> str:
    """Return the file name of a segment."""
    return f"journal-{number:08}.kvj"


def snapshot_name(number: int) -> str:
    """Return the file name of a snapshot."""
    return f"snapshot-{number:08}.kvs"


_ASIDE = ".aside"  # nobody reads files with this behind their names


@dataclass(frozen=True, slots=True)
class FileLoss:
    """Bytes of the store that could not be read.

    Attributes:
        file: Its name.
        offset: Where they begin.
        size_bytes: How many; 0 where that is not known.
        kind: What became of them; TORN is usual after a power cut.
    """

    file: str
    offset: int
    size_bytes: int
    kind: LossKind


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """The payloads of one file, preamble included; numbers in them are the file's own."""

    name: str
    header: Header
    payloads: list[bytes]


@dataclass(slots=True)
class Contents:
    """What a store held.

    Attributes:
        files: Those that matter, older ones first.
        losses: What could not be read of them.
    """

    files: list[LoadedFile] = field(default_factory=list)
    losses: list[FileLoss] = field(default_factory=list)

    @property
    def incarnation_max(self) -> int:
        """The largest incarnation that wrote here, 0 for none."""
        return max((file.header.incarnation for file in self.files), default=0)


def _new_salt() -> int:
    return secrets.randbits(frames.SALT_BITS)


class Journal:
    """The files of one store.

    Args:
        disk: Where they are.
        network: Whose store it must be.
        new_salt: Draws the salt of a new file; simulators hand in their own generator's.
    """

    def __init__(
        self, disk: Disk, *, network: str, new_salt: Callable[[], int] = _new_salt
    ) -> None:
        self._disk = disk
        self._network = network
        self._new_salt = new_salt
        self._owner: Header | None = None
        self._preamble: Preamble = tuple
        self._segment: _Segment | None = None
        self._next = 1
        self._grown_bytes = 0  # since the last snapshot was begun
        self._grown_segments = 0
        self._snapshot_bytes = 0
        self._snapshots_damaged: set[int] = set()

    @property
    def directory(self) -> str:
        """What errors call the place."""
        return self._disk.directory

    # --- reading -----------------------------------------------------------------------------

    def load(self) -> Contents:
        """Return all that the store holds.

        Raises:
            WrongStore: The files belong to another network, version or program.
            SnapshotMissing: The segments do not reach back to the beginning, and nothing else does.
            StorageError: The files may not be read.
        """
        try:
            return self._load(self._disk.names())
        except StorageError:
            raise
        except OSError as error:
            raise StorageError(f"{self.directory} cannot be read: {error.strerror}") from error

    def _load(self, names: list[str]) -> Contents:
        segments, snapshots = _numbers(_SEGMENT, names), _numbers(_SNAPSHOT, names)
        contents = Contents()
        expected = self._load_snapshots(contents, snapshots, segments)
        for number in segments:
            if number < expected:
                continue
            if number > expected:
                contents.losses.append(_missing(segment_name(expected)))
            content = self._read(contents, segment_name(number))
            self._grown_bytes += content.size_bytes
            self._grown_segments += 1
            expected = number + 1
        self._next = max([expected, *snapshots])
        return contents

    def _load_snapshots(self, contents: Contents, snapshots: list[int], segments: list[int]) -> int:
        """Read snapshots, newest first, until one is complete; return the first segment needed."""
        readable = []
        for number in reversed(snapshots):
            content = self._read(contents, snapshot_name(number))
            self._snapshot_bytes = max(self._snapshot_bytes, content.size_bytes)
            if content.is_complete:
                contents.files.reverse()
                return number
            self._snapshots_damaged.add(number)
            if content.header is not None:
                readable.append(number)
        contents.files.reverse()
        # Without a complete one all that is left counts, if it reaches back to the beginning.
        start = min(segments, default=max(snapshots, default=1))
        if readable:
            return min(start, *readable)
        if start > 1 or (snapshots and not segments):
            raise SnapshotMissing(snapshot_name(max(snapshots, default=start)))
        return start

    def _read(self, contents: Contents, name: str) -> FileContent:
        data = self._read_bytes(name)
        if data is None:
            contents.losses.append(_missing(name))
            return FileContent()
        content = frames.read_frames(data, name=self._disk.directory, network=self._network)
        if content.header is not None:
            contents.files.append(LoadedFile(name, content.header, content.payloads))
        torn_is = LossKind.TORN
        if content.header is None and len(data) > _HEADERS_MAX_BYTES:
            torn_is = LossKind.DAMAGED  # more than an unfinished start was in it
        contents.losses += [
            FileLoss(
                name,
                loss.offset,
                loss.size_bytes,
                torn_is if loss.kind is LossKind.TORN else loss.kind,
            )
            for loss in content.losses
        ]
        return content

    def _read_bytes(self, name: str) -> bytes | None:
        """Return a file; None where the medium cannot read it, as a worn card cannot."""
        try:
            return self._disk.read(name)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return None

    # --- appending ---------------------------------------------------------------------------

    def begin(self, *, node: str, incarnation: int, base: int, preamble: Preamble = tuple) -> None:
        """Say who writes from now on; nothing is written yet.

        Args:
            node: The name of this node.
            incarnation: Of this process.
            base: What to add to its ticks to show them.
            preamble: Returns the payloads that each new file begins with.  It is called in the
                thread that writes.
        """
        self._owner = Header(Kind.JOURNAL, 0, self._network, node, incarnation, base, 0)
        self._preamble = preamble

    def append(self, payloads: Iterable[tuple[bytes, bool]]) -> None:
        """Write payloads, each with whether it is vital; they are not synced.

        After an error some of the bytes may be there: `repair` or `abandon` comes next.
        """
        if self._segment is None:
            self._segment = self._open_segment()
        self._grown_bytes += self._segment.append(payloads)

    def _open_segment(self) -> _Segment:
        segment = _Segment(self._disk, self._header(Kind.JOURNAL, self._next), self._preamble())
        self._next += 1
        self._grown_segments += 1
        return segment

    def _header(self, kind: Kind, number: int) -> Header:
        assert self._owner is not None, "begin() comes first"
        return replace(self._owner, kind=kind, number=number, salt=self._new_salt())

    def sync(self) -> None:
        """Return when all that was appended is on the disk; close a segment that is long."""
        if self._segment is None:
            return
        self._segment.sync()
        if self._segment.size_bytes > limits.SEGMENT_MAX_BYTES:
            self._let_go()

    def repair(self) -> None:
        """Undo an append that failed: nothing of it remains, also after a power cut.

        Raises:
            OSError: That cannot be promised.
        """
        if self._segment is not None and not self._segment.repair():
            self._let_go()
            self._next -= 1

    def abandon(self) -> None:
        """Never write to the segment again: what it holds beyond the last sync is unknown."""
        self._let_go()

    def discard(self) -> None:
        """Remove the segment, which holds nothing that is not written again."""
        segment = self._segment
        self._let_go()
        if segment is not None:
            with suppress(OSError):  # then the file stays, and the next one has the next number
                self._disk.remove(segment.name)
                self._next -= 1

    def close(self) -> None:
        """Close the segment; appending again would begin a new one."""
        self._let_go()

    def _let_go(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            with suppress(OSError):  # what was promised is synced; the rest is written again
                segment.close()

    # --- snapshots ---------------------------------------------------------------------------

    @property
    def snapshot_is_due(self) -> bool:
        """Whether the journal has grown long enough since a snapshot was last begun."""
        bytes_max = max(limits.SEGMENT_MAX_BYTES, SNAPSHOT_GROWTH * self._snapshot_bytes)
        return self._grown_bytes > bytes_max or self._grown_segments > SEGMENTS_MAX

    def begin_snapshot(self) -> int:
        """End the segment, which is synced, and return the number of a snapshot at this point."""
        self._let_go()
        self._grown_bytes = 0  # one that fails is tried again after as much growth
        self._grown_segments = 0
        return self._next

    def write_snapshot(self, number: int, payloads: Iterable[bytes]) -> int:
        """Write a snapshot, then remove what it makes superfluous.

        Args:
            number: From `begin_snapshot`.
            payloads: The state that all segments below this number come to, or a later one.

        Returns:
            Its size in bytes.

        Raises:
            WriteRefused: There is too little room.
            OSError: The disk failed; the older snapshots and segments are untouched.
        """
        self._check_room()
        unfinished = f"snapshot-{number:08}.tmp"
        for name in filter(_UNFINISHED.fullmatch, self._disk.names()):
            self._disk.remove(name)
        try:
            size = self._write_snapshot_file(unfinished, number, payloads)
            self._disk.replace(unfinished, snapshot_name(number))
        except OSError:
            with suppress(OSError):
                self._disk.remove(unfinished)
            raise
        self._disk.sync_directory()
        self._snapshot_bytes = size
        self._remove_superfluous(number)
        return size

    def set_aside(self) -> None:
        """Begin anew with the preamble alone, in one step; the old files get other names.

        What was set aside before is removed: one old tree is kept for whoever wants to look.

        Raises:
            OSError: The disk failed.  Either nothing has happened, or all but the renaming.
        """
        for name in self._disk.names():
            if name.endswith(_ASIDE) or _UNFINISHED.fullmatch(name):
                self._disk.remove(name)
        self._next = max([self._next, *(n + 1 for n in _numbers(_SNAPSHOT, self._disk.names()))])
        number = self.begin_snapshot()
        unfinished = f"snapshot-{number:08}.tmp"
        self._write_snapshot_file(unfinished, number, ())
        self._disk.replace(unfinished, snapshot_name(number))
        self._disk.sync_directory()
        for name in self._disk.names():
            found = _SEGMENT.fullmatch(name) or _SNAPSHOT.fullmatch(name)
            if found is not None and int(found[1]) < number:
                self._disk.replace(name, name + _ASIDE)
        self._disk.sync_directory()

    def _check_room(self) -> None:
        """Writing one to a disk that it fills would have writes refused meanwhile."""
        free = self._disk.free_bytes()
        if free < 2 * self._snapshot_bytes:
            why = f"{self.directory} has {free} bytes left, too few for a snapshot"
            raise WriteRefused(why)

    def _write_snapshot_file(self, name: str, number: int, payloads: Iterable[bytes]) -> int:
        header = self._header(Kind.SNAPSHOT, number)
        with closing(self._disk.create(name)) as file:
            size, count = 0, 0
            for data, added in _snapshot_chunks(header, self._preamble(), payloads):
                file.append(data)
                size, count = size + len(data), count + added
            file.append(frames.encode_end(count, salt=header.salt, offset=size))
            file.sync()
        return size

    def _remove_superfluous(self, newest: int) -> None:
        """Keep this snapshot, the one before it, and the segments from that one on."""
        names = self._disk.names()
        snapshots = set(_numbers(_SNAPSHOT, names))
        older = max(
            (n for n in snapshots - self._snapshots_damaged if n < newest),
            default=0,
        )
        for number in snapshots - {newest, older}:
            self._disk.remove(snapshot_name(number))
        for number in _numbers(_SEGMENT, names):
            if number < older:
                self._disk.remove(segment_name(number))
        self._snapshots_damaged.clear()


class _Segment:
    """The file that is appended to."""

    def __init__(self, disk: Disk, header: Header, preamble: Iterable[bytes]) -> None:
        start = frames.encode_header(header)
        vital = ((payload, True) for payload in preamble)
        self._unwritten = start + frames.encode(vital, salt=header.salt, offset=len(start))
        self._salt = header.salt
        self._disk = disk
        self.name = segment_name(header.number)
        self._file = disk.create(self.name)
        self._is_new = True  # its name is not on the disk yet
        self.size_bytes = 0

    def append(self, payloads: Iterable[tuple[bytes, bool]]) -> int:
        """Write payloads at the end; return by how much the file grew."""
        offset = self.size_bytes + len(self._unwritten)
        data = self._unwritten + frames.encode(payloads, salt=self._salt, offset=offset)
        self._file.append(data)
        self._unwritten = b""
        self.size_bytes += len(data)
        return len(data)

    def sync(self) -> None:
        self._file.sync()
        if self._is_new:
            self._disk.sync_directory()
            self._is_new = False

    def repair(self) -> bool:
        """Cut what a failed append left; return False where the file is gone with it."""
        if not self.size_bytes:
            self._disk.remove(self.name)
            self._disk.sync_directory()
            return False
        if self._file.size_bytes() != self.size_bytes:
            self._file.truncate(self.size_bytes)
            self._file.sync()
        return True

    def close(self) -> None:
        self._file.close()


def _snapshot_chunks(
    header: Header, preamble: Iterable[bytes], payloads: Iterable[bytes]
) -> Iterator[tuple[bytes, int]]:
    """Yield a snapshot's bytes in pieces, each with the number of payloads in it."""
    data = frames.encode_header(header)
    yield data, 0
    offset = len(data)
    for chunk, vital in _chunks(preamble, payloads):
        data = frames.encode(
            ((payload, vital) for payload in chunk), salt=header.salt, offset=offset
        )
        yield data, len(chunk)
        offset += len(data)


def _chunks(
    preamble: Iterable[bytes], payloads: Iterable[bytes]
) -> Iterator[tuple[list[bytes], bool]]:
    yield list(preamble), True
    chunk: list[bytes] = []
    size = 0
    for payload in payloads:
        chunk.append(payload)
        size += len(payload)
        if size >= _CHUNK_BYTES:
            yield chunk, False
            chunk, size = [], 0
    yield chunk, False


def _missing(name: str) -> FileLoss:
    return FileLoss(name, 0, 0, LossKind.MISSING)


def _numbers(pattern: re.Pattern[str], names: Iterable[str]) -> list[int]:
    return sorted(int(found[1]) for found in map(pattern.fullmatch, names) if found)
