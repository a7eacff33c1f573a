"""Records and vectors as servers send them to each other: the bodies of sealed messages.

    writers   [[node, incarnation, base], ...]                 what the numbers below stand for
    record    [key, tock, [writer, tick, writer, tick, ...], packed value or nil, fence]
    fence     [job, number]                                    mostly left out
    vector    [[writer, first, last, first, last, ...], ..., [node, generation], ...]

The last rows of a vector name the generation of a node below which all counts as seen.

A writer is named once per message, so a record costs little more than its path and value.  What
comes in is checked in full: a peer of another version, or one that went wrong, must not be able to
put anything into the tree that this server would not have taken from a client.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from kvedge import limits
from kvedge.errors import RemoteProtocolError
from kvedge.model.entry import JOB_MAX_BYTES, TICK_MAX, Fence
from kvedge.model.path import elements_of, key_of
from kvedge.model.stamp import GENERATION_MAX, RANDOM_BITS, TOCK_MAX, Dot, Rid
from kvedge.model.value import MISSING, Missing, decode, is_canonical, packb
from kvedge.model.vector import Vector
from kvedge.protocol.codec import is_text

Bases = Callable[[Rid], int]
"""Looks up what is added to the ticks of a rid to show them."""

INCARNATION_MAX = (GENERATION_MAX << RANDOM_BITS) - 1
_NODE = re.compile(r"[A-Za-z0-9_-]{1,63}")  # as topics have them
# Keys of ASCII text, small natural numbers and None, which is what nearly all paths are made of.
# It knows their one packed form (see `model.path`), and is ten times as fast as to make it.
_USUAL_KEY = re.compile(
    rb"(?:\x08[\x01-\x7f]*\x00|\x05(?:\x00|\x01[^\x00]|\x02[^\x00].|\x03[^\x00]..|\x04[^\x00]...)|\x01)"
    rb"{0,%d}" % limits.PATH_ELEMENTS_MAX,
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Carried:
    """One record on its way.

    Attributes:
        key: Where.
        tock: When.
        chain: By which changes, newest first; never empty.
        value: The packed value, MISSING for a tombstone.
        fence: Under which right it was written; None mostly.
    """

    key: bytes
    tock: int
    chain: tuple[Dot, ...]
    value: bytes | Missing
    fence: Fence | None = None

    @property
    def dot(self) -> Dot:
        """The change that made it."""
        return self.chain[0]

    @property
    def rank(self) -> tuple[int, Rid, int]:
        """What decides a merge: the larger one wins."""
        dot = self.chain[0]
        return self.tock, dot.rid, dot.tick


class Writers:
    """The rids that one message names, by small numbers, with the base of each."""

    def __init__(self) -> None:
        self._numbers: dict[Rid, int] = {}
        self._listed: list[tuple[str, int, int]] = []

    def number(self, rid: Rid, base: int) -> int:
        """Return the number of a rid; a new one is listed."""
        known = self._numbers.get(rid)
        if known is None:
            known = self._numbers[rid] = len(self._listed)
            self._listed.append((rid.node, rid.incarnation, base))
        return known

    @property
    def listed(self) -> list[tuple[str, int, int]]:
        """What goes into the message."""
        return self._listed


def record_parts(record: Carried, writers: Writers, bases: Bases) -> tuple[Any, ...]:
    """Return the parts of a record in a message."""
    links: list[int] = []
    for dot in record.chain:
        links += (writers.number(dot.rid, bases(dot.rid)), dot.tick)
    value = None if record.value is MISSING else record.value
    if record.fence is None:
        return record.key, record.tock, links, value
    return record.key, record.tock, links, value, record.fence


def vector_parts(vector: Vector, writers: Writers, bases: Bases) -> list[tuple[Any, ...]]:
    """Return the parts of a vector in a message."""
    rows: list[tuple[Any, ...]] = [
        (writers.number(rid, bases(rid)), *(end for ends in ranges for end in ends))
        for rid, ranges in vector
    ]
    return rows + list(vector.floors.items())


def vector_hash(vector: Vector) -> bytes:
    """Return 16 bytes that stand for a vector."""
    rows = [(rid.node, rid.incarnation, ranges) for rid, ranges in vector]
    return blake2b(packb((rows, list(vector.floors.items()))), digest_size=16).digest()


# --- reading ----------------------------------------------------------------------------------


def read_body(body: bytes, parts_min: int) -> tuple[Any, ...]:
    """Return the parts of a body; newer minor versions may have appended some.

    Raises:
        RemoteProtocolError: It is none.
    """
    try:
        parts = decode(body)
    except ValueError as error:
        raise RemoteProtocolError(f"a message of a server cannot be read: {error}") from error
    if not isinstance(parts, tuple) or len(parts) < parts_min:
        raise RemoteProtocolError("a message of a server lacks parts")
    return parts


def read_writers(given: Any) -> list[tuple[Rid, int]]:
    """Return the rids that a message names, each with its base."""
    _require(isinstance(given, tuple), "its writers")
    found = []
    for parts in given:
        _require(isinstance(parts, tuple) and len(parts) >= 3, "a writer")
        node, incarnation, base = parts[:3]
        _require(isinstance(node, str) and _is_node(node), "a node's name")
        _require(
            _is_number(incarnation, INCARNATION_MAX) and _is_number(base, TOCK_MAX), "a writer"
        )
        found.append((Rid(node, incarnation), base))
    return found


def read_vector(given: Any, writers: list[tuple[Rid, int]]) -> Vector:
    """Return a vector; the ranges of a rid need not be in order."""
    _require(isinstance(given, tuple), "its vector")
    found: dict[Rid, list[tuple[int, int]]] = {}  # put in order at once: there may be many
    floors: dict[str, int] = {}
    for parts in given:
        _require(isinstance(parts, tuple) and len(parts) > 0, "a vector's row")
        if isinstance(parts[0], str):
            _require(len(parts) == 2 and _is_node(parts[0]), "a vector's floor")
            _require(_is_number(parts[1], GENERATION_MAX), "a vector's floor")
            floors[parts[0]] = parts[1]
            continue
        _require(len(parts) % 2 == 1, "a vector's row")
        ranges = found.setdefault(_writer(parts[0], writers), [])
        for first, last in zip(parts[1::2], parts[2::2], strict=True):
            _require(
                _is_number(last, TICK_MAX) and _is_number(first, last) and first > 0, "a range"
            )
            ranges.append((first, last))
    return Vector.of({rid: tuple(ranges) for rid, ranges in found.items()}, floors)


def read_records(given: Any, writers: list[tuple[Rid, int]]) -> list[Carried]:
    """Return the records of a message.

    Raises:
        RemoteProtocolError: One of them is none; none is taken then.
    """
    _require(isinstance(given, tuple), "its records")
    return [_read_record(parts, writers) for parts in given]


def _read_record(parts: Any, writers: list[tuple[Rid, int]]) -> Carried:
    _require(isinstance(parts, tuple) and len(parts) >= 4, "a record")
    key, tock, links, value = parts[:4]
    _require(isinstance(key, bytes) and _is_key(key), "a record's path")
    _require(_is_number(tock, TOCK_MAX), "a record's tock")
    _require(value is None or (isinstance(value, bytes) and is_canonical(value)), "a value")
    fence = _read_fence(parts[4]) if len(parts) > 4 else None
    chain = _read_chain(links, writers)
    return Carried(key, tock, chain, MISSING if value is None else value, fence)


def _read_fence(given: Any) -> Fence | None:
    if given is None:
        return None
    _require(isinstance(given, tuple) and len(given) >= 2, "a fence")
    job, number = given[:2]
    _require(is_text(job) and 0 < len(job.encode()) <= JOB_MAX_BYTES, "a fence's job")
    _require(_is_number(number, TOCK_MAX), "a fence's number")
    return Fence(job, number)


def _read_chain(links: Any, writers: list[tuple[Rid, int]]) -> tuple[Dot, ...]:
    _require(isinstance(links, tuple) and len(links) % 2 == 0, "a chain")
    _require(0 < len(links) <= 2 * limits.CHAIN_LINKS_MAX, "a chain's length")
    if len(links) == 2:
        return (_read_dot(links[0], links[1], writers),)
    pairs = zip(links[::2], links[1::2], strict=True)
    chain = tuple([_read_dot(number, tick, writers) for number, tick in pairs])
    _require(len({dot.rid.node for dot in chain}) == len(chain), "a chain's nodes")
    return chain


def _read_dot(number: Any, tick: Any, writers: list[tuple[Rid, int]]) -> Dot:
    _require(_is_number(tick, TICK_MAX) and tick > 0, "a tick")
    return Dot(_writer(number, writers), tick)


def _writer(number: Any, writers: list[tuple[Rid, int]]) -> Rid:
    _require(_is_number(number, len(writers) - 1), "the number of a writer")
    rid: Rid = writers[number][0]
    return rid


def _is_number(given: Any, largest: int) -> bool:
    return type(given) is int and 0 <= given <= largest


def _is_node(name: str) -> bool:
    return _NODE.fullmatch(name) is not None


def _is_key(key: bytes) -> bool:
    """Tell whether bytes are the one packed form of a path."""
    if len(key) <= limits.PATH_MAX_BYTES and _USUAL_KEY.fullmatch(key):
        return True
    try:
        return key_of(elements_of(key)) == key
    except (ValueError, IndexError, struct.error, RecursionError):
        return False


def _require(condition: bool, what: str) -> None:  # noqa: FBT001 -- reads as a sentence
    if not condition:
        raise _wrong(what)


def _wrong(what: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"a server's message is wrong in {what}")
