"""What a message between servers says, in a few words: for people who watch the traffic.

A summary is a map of plain values.  It is made of as little of a message as it needs, and takes
nothing for granted: one that cannot be read says so, and a kind without a row has none.  Ticks
are numbered as users see them, as ranges `[first, last]` by node.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from kvedge.errors import RemoteProtocolError
from kvedge.model.path import Path
from kvedge.model.stamp import Rid
from kvedge.model.vector import normal
from kvedge.protocol.batches import read_body, read_vector, read_writers
from kvedge.protocol.codec import is_number
from kvedge.protocol.envelope import Opened, Refused
from kvedge.protocol.membership import Standing

PATHS_MAX = 3
"""Paths that a summary names; the number of records says how many there are."""

RANGES_MAX = 8
"""Ranges of ticks that a summary names per node: the first ones."""

_HASH_SHOWN_BYTES = 4

Summary = dict[str, Any]
_Writers = list[tuple[Rid, int]]


def summary_of(content: Opened | Refused) -> Summary:
    """Return what a message says, or why it was refused."""
    if isinstance(content, Refused):
        found: Summary = {"refused": content.cause.value}
        return found | ({"detail": content.detail} if content.detail else {})
    read = _READERS.get(content.kind)
    if read is None:
        return {}
    try:
        return read(content.body)
    except RemoteProtocolError as error:
        return {"unread": error.why}
    except (ValueError, TypeError, LookupError, struct.error, RecursionError):
        return {"unread": "it is not built as this version expects"}


def _update(body: bytes) -> Summary:
    writers, records = read_body(body, 2)[:2]
    return _records(records, read_writers(writers))


def _digest(body: bytes) -> Summary:
    seen, root = read_body(body, 2)[:2]
    return {"seen": _hash(seen), "holds": _hash(root)}


def _ask(body: bytes) -> Summary:
    _, number, after, listed, have = read_body(body, 5)[:5]
    last = _last(have, read_writers(listed))
    return {"pull": _number(number), **_behind(after), "has_up_to": last}


def _give(body: bytes) -> Summary:
    _, number, after, rest, listed, records = read_body(body, 7)[:6]
    found = {"pull": _number(number), **_behind(after), "is_last": rest is None}
    return found | _records(records, read_writers(listed))


def _vector(body: bytes) -> Summary:
    is_fresh, standing, listed, _, durable = read_body(body, 5)[:5]
    return {
        "is_fresh": bool(is_fresh),
        "standing": Standing(standing).name.lower(),
        "stored_up_to": _last(durable, read_writers(listed)),
    }


def _verdict(body: bytes) -> Summary:
    return {"standing": Standing(read_body(body, 5)[1]).name.lower()}


def _last(vector: Any, writers: _Writers) -> dict[str, int]:
    bases = dict(writers)
    return {rid.node: bases[rid] + ranges[-1][1] for rid, ranges in read_vector(vector, writers)}


def _presence(body: bytes) -> Summary:
    return {"connection": _number(read_body(body, 1)[0])}


_READERS: Mapping[str, Callable[[bytes], Summary]] = {
    "update": _update,
    "digest": _digest,
    "ask": _ask,
    "give": _give,
    "vector": _vector,
    "verdict": _verdict,
    "beat": _presence,
    "gone": _presence,
    "bye": _presence,
}


def _behind(after: Any) -> Summary:
    """Return behind which path a part of a pull begins; nothing for the first."""
    return {} if after is None else {"behind": str(Path.from_key(after))}


def _records(records: Any, writers: _Writers) -> Summary:
    """Return how many records there are, the first paths, and whose changes they are."""
    ticks: dict[str, list[tuple[int, int]]] = {}
    for record in records:
        writer, tick = record[2][:2]  # the newest link of its chain
        rid, base = writers[writer]
        shown_tick = base + _number(tick)
        ticks.setdefault(rid.node, []).append((shown_tick, shown_tick))
    paths = [str(Path.from_key(record[0])) for record in records[:PATHS_MAX]]
    shown = {
        node: [list(ends) for ends in normal(ranges)[:RANGES_MAX]] for node, ranges in ticks.items()
    }
    return {"records": len(records), "paths": paths, "ticks": shown}


def _number(given: Any) -> int:
    if not is_number(given):
        raise TypeError
    return given


def _hash(given: Any) -> str:
    if not isinstance(given, bytes):
        raise TypeError
    return given[:_HASH_SHOWN_BYTES].hex()
