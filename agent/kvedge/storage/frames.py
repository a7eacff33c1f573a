"""The bytes of one file of the store: a header, then frames, so that damage stays local.

    frame   = mark u16 | crc u32 | length u32 | payload          (big endian)
    header  = frame, frame                                       (the same msgpack array, twice)
    file    = header, frames ...

A mark begins with 0xC1, the one byte that msgpack never uses: where a frame is damaged, the
reader looks for the next mark whose frame verifies and goes on there.

The CRC covers length and payload and starts from `salt ^ offset ^ mark`.  The salt is random and
stands in the header.  Two equal texts with different starts never have the same CRC, so a frame
that verifies at one place of one file cannot verify anywhere else: a value that holds a piece of
a journal is never mistaken for frames, and old blocks of a removed file are not either.

What other frames depend on is *vital* and written twice, side by side: the header, and payloads
that are marked so.  Hence a single flipped bit costs at most the one payload it hits.

This module is pure: bytes in, bytes out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import NamedTuple
from zlib import crc32

import msgpack

from kvedge import limits
from kvedge.errors import LimitExceeded, WrongStore

MAGIC = "kvedge"
VERSION_MAJOR = 1
VERSION_MINOR = 0

PAYLOAD_MAX_BYTES = limits.MESSAGE_MAX_BYTES
"""A payload came in a message.  The bound keeps the search after damage short."""

SALT_BITS = 32

_HEAD = struct.Struct(">HII")
HEAD_BYTES = _HEAD.size
_LENGTH = struct.Struct(">I")
_BODY = HEAD_BYTES - _LENGTH.size  # where the part begins that the CRC covers
_COUNT = struct.Struct(">Q")
_HEADER_FIELDS = 10


class Mark(IntEnum):
    """What a frame is."""

    PLAIN = 0xC100
    FIRST = 0xC101  # of the two copies of something vital
    SECOND = 0xC102
    END = 0xC103  # of a snapshot: says how many payloads it has


class Kind(StrEnum):
    """What a file is."""

    JOURNAL = "journal"
    SNAPSHOT = "snapshot"


class LossKind(StrEnum):
    """What became of bytes that do not verify."""

    TORN = "torn"
    """Nothing good follows: an unfinished write.  What is before it is an exact prefix."""

    DAMAGED = "damaged"
    """Good frames follow: what stood here is lost."""

    SPARED = "spared"
    """One copy of something vital is damaged, the other is good: nothing is lost."""

    MISSING = "missing"
    """The file, perhaps with others that follow it, is not there or cannot be read at all."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says about itself.

    Attributes:
        kind: Journal segment or snapshot.
        number: Of the segment; a snapshot has the number of the first segment it does not hold.
        network: The name of the network that the store belongs to.
        node: The name of the node that wrote it.
        incarnation: Of the process that wrote it; up to 63 bit.
        base: What to add to that incarnation's ticks to show them.
        salt: Where this file's CRCs start.
    """

    kind: Kind
    number: int
    network: str
    node: str
    incarnation: int
    base: int
    salt: int


@dataclass(frozen=True, slots=True)
class Loss:
    """Bytes of a file that do not verify."""

    offset: int
    size_bytes: int
    kind: LossKind


@dataclass(slots=True)
class FileContent:
    """What could be read of a file.

    Attributes:
        header: None where neither copy of it verifies; then nothing else was read either.
        payloads: In the order in which they were written; a vital one stands here once.
        losses: By offset.
        count: How many payloads the end frame promises; None without one.
        size_bytes: Of the file.
    """

    header: Header | None = None
    payloads: list[bytes] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    count: int | None = None
    size_bytes: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether this is a snapshot that lacks nothing."""
        return self.count == len(self.payloads) and all(
            loss.kind is LossKind.SPARED for loss in self.losses
        )


# --- writing ---------------------------------------------------------------------------------


def encode_header(header: Header) -> bytes:
    """Return the first bytes of a file."""
    fields = (header.network, header.node, header.incarnation, header.base, header.salt)
    packed: bytes = msgpack.packb(
        (MAGIC, VERSION_MAJOR, VERSION_MINOR, header.kind.value, header.number, *fields)
    )
    return encode([(packed, True)], salt=0, offset=0)


def encode(payloads: Iterable[tuple[bytes, bool]], *, salt: int, offset: int) -> bytes:
    """Return the frames of payloads.

    Args:
        payloads: Each with whether it is vital.
        salt: The salt of the file.
        offset: Where in the file the bytes will stand.

    Raises:
        LimitExceeded: A payload is too large.
    """
    parts: list[bytes] = []
    for payload, vital in payloads:
        for mark in (Mark.FIRST, Mark.SECOND) if vital else (Mark.PLAIN,):
            parts += _frame(mark, payload, salt ^ offset)
            offset += HEAD_BYTES + len(payload)
    return b"".join(parts)


def encode_end(count: int, *, salt: int, offset: int) -> bytes:
    """Return the end frame of a snapshot with so many payloads."""
    return b"".join(_frame(Mark.END, _COUNT.pack(count), salt ^ offset))


def _frame(mark: int, payload: bytes, start: int) -> tuple[bytes, bytes]:
    length = len(payload)
    if length > PAYLOAD_MAX_BYTES:
        raise LimitExceeded("a payload", actual=length, limit=PAYLOAD_MAX_BYTES, unit="bytes")
    crc = crc32(payload, crc32(_LENGTH.pack(length), start ^ mark))
    return _HEAD.pack(mark, crc, length), payload


# --- reading ---------------------------------------------------------------------------------


def read_frames(data: bytes, *, name: str, network: str | None = None) -> FileContent:
    """Return all that verifies in a file, and what does not.

    Args:
        data: The whole file.
        name: What errors call it.
        network: The network it must belong to; None for any.

    Raises:
        WrongStore: The file is whole, and another program's, version's or network's.
    """
    content = FileContent(size_bytes=len(data))
    header = _first_good_header(data)
    if header is None:
        if data:
            content.losses.append(Loss(0, len(data), LossKind.TORN))
        return content
    content.header = _parse_header(header.payload, name, network)
    reader = _Reader(data, content.header.salt, content)
    reader.read(_after_header(data, header, content))
    return content


class _Frame(NamedTuple):
    mark: int
    start: int
    end: int
    payload: bytes

    @property
    def size(self) -> int:
        return self.end - self.start


_MARKS = frozenset(Mark)


def _frame_at(data: bytes, start: int, salt: int) -> _Frame | None:
    """Return the frame that begins at an offset, None where none verifies."""
    if start + HEAD_BYTES > len(data):
        return None
    mark, crc, length = _HEAD.unpack_from(data, start)
    end = start + HEAD_BYTES + length
    if mark not in _MARKS or length > PAYLOAD_MAX_BYTES or end > len(data):
        return None
    if crc32(memoryview(data)[start + _BODY : end], salt ^ start ^ mark) != crc:
        return None
    return _Frame(mark, start, end, data[start + HEAD_BYTES : end])


def _next_frame(data: bytes, start: int, salt: int) -> _Frame | None:
    """Return the first frame that verifies at an offset or behind it."""
    while (start := data.find(b"\xc1", start)) >= 0:
        frame = _frame_at(data, start, salt)
        if frame is not None:
            return frame
        start += 1
    return None


def _first_good_header(data: bytes) -> _Frame | None:
    first = _frame_at(data, 0, 0)
    if first is not None:
        return first
    second = _next_frame(data, 1, 0)
    return second if second is not None and second.start == second.size else None


def _parse_header(packed: bytes, name: str, network: str | None) -> Header:
    try:
        fields = msgpack.unpackb(packed)
    except (ValueError, msgpack.UnpackException):
        fields = None
    if not isinstance(fields, list) or len(fields) < _HEADER_FIELDS or fields[0] != MAGIC:
        raise WrongStore(name, "it was not written by this program")
    _, major, minor, kind, number, found, *rest = fields[:_HEADER_FIELDS]
    if major != VERSION_MAJOR:
        age = "a newer" if major > VERSION_MAJOR else "an older"
        why = f"it was written by {age} version (format {major}.{minor}, not {VERSION_MAJOR}.x)"
        raise WrongStore(name, why)
    if network not in (None, found):
        raise WrongStore(name, f"it belongs to network {found}, not {network}")
    return Header(Kind(kind), number, found, *rest)


def _after_header(data: bytes, header: _Frame, content: FileContent) -> int:
    """Return where the frames begin; note a damaged copy of the header."""
    if header.mark == Mark.SECOND:
        content.losses.append(Loss(0, header.start, LossKind.SPARED))
        return header.end
    if _frame_at(data, header.end, 0) is not None:
        return header.end + header.size
    rest = len(data) - header.end
    if rest > header.size:
        content.losses.append(Loss(header.end, header.size, LossKind.SPARED))
        return header.end + header.size
    if rest:
        content.losses.append(Loss(header.end, rest, LossKind.TORN))
    return len(data)


class _Reader:
    """Reads the frames of one file behind its header."""

    def __init__(self, data: bytes, salt: int, content: FileContent) -> None:
        self._data = data
        self._salt = salt
        self._content = content
        self._last: _Frame | None = None  # the last frame, where that was not a plain one

    def read(self, start: int) -> None:
        while (start := self._read_plain(start)) < len(self._data):
            frame = _frame_at(self._data, start, self._salt)
            if frame is None:
                frame = self._skip_damage(start)
            if frame is None:
                break
            start = self._take(frame)

    def _read_plain(self, start: int) -> int:
        """Take all plain frames from an offset on; return where something else stands.

        A whole journal passes through here, hence the names bound outside the loop.
        """
        data, salt = self._data, self._salt
        view, size, unpack_head = memoryview(data), len(data), _HEAD.unpack_from
        take = self._content.payloads.append
        here, plain = start, int(Mark.PLAIN)
        while (body := here + HEAD_BYTES) <= size:
            mark, crc, length = unpack_head(data, here)
            end = body + length
            if (
                mark != plain
                or end > size
                or length > PAYLOAD_MAX_BYTES
                or crc32(view[here + _BODY : end], salt ^ here ^ plain) != crc
            ):
                break
            take(data[body:end])
            here = end
        if here != start:
            self._last = None
        return here

    def _take(self, frame: _Frame) -> int:
        if frame.mark == Mark.END:
            (self._content.count,) = _COUNT.unpack(frame.payload)
        elif not self._is_second_copy(frame):
            self._content.payloads.append(frame.payload)
        self._last = frame
        return frame.end

    def _is_second_copy(self, frame: _Frame) -> bool:
        """Whether the copy before this one was good."""
        last = self._last
        return (
            frame.mark == Mark.SECOND
            and last is not None
            and (last.mark, last.end) == (Mark.FIRST, frame.start)
        )

    def _skip_damage(self, start: int) -> _Frame | None:
        """Note a loss; return the good frame behind it."""
        frame = _next_frame(self._data, start + 1, self._salt)
        end = len(self._data) if frame is None else frame.start
        self._content.losses.append(Loss(start, end - start, self._kind(frame, end - start)))
        return frame

    def _kind(self, frame: _Frame | None, size: int) -> LossKind:
        if frame is None:
            return LossKind.TORN
        if frame.mark == Mark.SECOND and frame.size == size:
            return LossKind.SPARED
        last = self._last
        if last is not None and last.mark == Mark.FIRST and last.size == size:
            return LossKind.SPARED
        return LossKind.DAMAGED
