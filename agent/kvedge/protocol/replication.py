"""How servers that share a tree become equal: hints, digests, and pulls by version vector.

Theory of operation.  Messages between servers get lost, come twice, late, or in another order.
Nothing depends on any single one of them:

- **Update.**  What a server has changed it tells everybody at once.  A hint: mostly it arrives.
- **Digest.**  From time to time each server says what it has seen, as a hash of its vector, and
  what it holds, as a hash over its live entries.  The times come from a Trickle timer, so that
  equal servers are nearly silent.
- **Pull.**  Who sees another vector, or a gap in a sender's ticks, asks that server for what it
  lacks.  The question carries its own vector; the answer is the entries whose newest change that
  vector does not have, in the order of their keys, in parts of bounded size.  After the last part
  the asker has seen all that the other one had seen *when the first part was cut*: an entry that
  changed meanwhile was sent as it was then, or will be hinted, digested and pulled anew.

Only what is stored counts as seen: a record that is still on its way to the disk may be refused
there, and whoever had claimed it would never be sent it again.  For the same reason the cut of a
pull does not count where the disk refused anything since it began.

A part names the key to go on behind, so an answer needs no memory on the side that gives, and an
asker that lost a part asks for that part again.  Merging is a maximum (see `model.merge`), so it
does not matter that entries arrive twice and by several ways.

Out of scope here: sealing and replay (`envelope`), presence, and who may be forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import blake2b
from typing import Protocol

from kvedge.errors import RemoteProtocolError
from kvedge.model.stamp import Dot, Rid
from kvedge.model.value import packb
from kvedge.model.vector import Vector
from kvedge.protocol.batches import (
    Carried,
    Writers,
    read_body,
    read_records,
    read_vector,
    read_writers,
    record_parts,
    vector_parts,
)

BODY_MAX_BYTES = 192 * 1024
"""What one message carries; brokers bound theirs at 256 kB (see `limits`)."""

GAP_WAIT_S = 0.2
"""How long a missing tick may be late before it is pulled: several times a broker's delay."""

PART_WAIT_S = 2.0
"""How long a part of a pull may take before it is asked for again."""

PART_TRIES_MAX = 5
"""Then the pull is given up; the next digest begins another, perhaps elsewhere."""

_NUMBER_MAX = (1 << 63) - 1


class Kind(IntEnum):
    """What a message is."""

    UPDATE = 1
    DIGEST = 2
    ASK = 3
    GIVE = 4


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send.

    Attributes:
        kind: What it is.
        to: Whom; None for everybody.
        body: Its packed parts.
    """

    kind: Kind
    to: str | None
    body: bytes


@dataclass(frozen=True, slots=True)
class Arrived:
    """Records to merge, and what has been seen when they are stored.

    Attributes:
        records: In any order; known ones may be among them.
        bases: Of the rids that they name.
        seen: What counts as seen once these and all earlier ones are stored; empty mostly.
    """

    records: Sequence[Carried]
    bases: dict[Rid, int]
    seen: Vector = field(default_factory=Vector)


Event = Outgoing | Arrived


class Shelf(Protocol):
    """The store, as replication sees it."""

    @property
    def seen(self) -> Vector:
        """All dots whose entries `lacking` would find, or newer ones in their places."""

    @property
    def taken(self) -> Vector:
        """All dots that were received, those on their way to the disk included."""

    @property
    def refusals(self) -> int:
        """How often records were forgotten since the disk refused them."""

    def base(self, rid: Rid) -> int:
        """Return what is added to the ticks of a rid to show them."""

    def root(self) -> bytes:
        """Return a hash over the live entries."""

    def lacking(
        self, vector: Vector, *, after: bytes | None, bytes_max: int
    ) -> tuple[list[Carried], bytes | None]:
        """Return entries whose newest change a vector does not have, in the order of their keys.

        Args:
            vector: What the asker has.
            after: Go on behind this key; None at the start.
            bytes_max: How much, roughly.

        Returns:
            The entries, and the key to go on behind; None at the end.
        """


@dataclass(slots=True)
class _Pull:
    """A pull under way.

    Attributes:
        peer: Whom we ask.
        have: Our vector when it began.
        refusals: The shelf's when it began.
        cut: What the peer had seen when it cut the first part.
        after: The key behind which the next part begins.
        again_s: When to ask again.
        tries: How often this part was asked for.
    """

    peer: Rid
    number: int
    have: Vector
    refusals: int
    cut: Vector | None = None
    after: bytes | None = None
    again_s: float = 0.0
    tries: int = 0


def vector_hash(vector: Vector) -> bytes:
    """Return 16 bytes that stand for a vector."""
    rows = [(rid.node, rid.incarnation, ranges) for rid, ranges in vector]
    return blake2b(packb(rows), digest_size=16).digest()


class Replication:
    """What a server says to its peers, asks of them, and takes from them.

    Methods return events; times are seconds of a clock that never falls.

    Attributes:
        is_consistent: Whether the last digest that came was equal to ours.
    """

    def __init__(self, rid: Rid, shelf: Shelf) -> None:
        self._rid = rid
        self._shelf = shelf
        self._pull: _Pull | None = None
        self._number = 0
        self._gaps: dict[Rid, float] = {}  # whom to ask, and from when on
        self.is_consistent = False

    # --- what we say --------------------------------------------------------------------------

    def updates(self, records: Sequence[Carried]) -> list[Outgoing]:
        """Return the messages that tell of our own new records."""
        made = []
        for batch in _batches(records):
            writers = Writers()
            parts = [record_parts(record, writers, self._shelf.base) for record in batch]
            body = packb((writers.listed, parts))
            made.append(Outgoing(Kind.UPDATE, None, body))
        return made

    def digest(self) -> Outgoing:
        """Return the message that says what we have seen and hold."""
        body = packb((vector_hash(self._shelf.seen), self._shelf.root()))
        return Outgoing(Kind.DIGEST, None, body)

    # --- what we hear -------------------------------------------------------------------------

    def receive(self, kind: int, sender: Rid, body: bytes, now: float) -> list[Event]:
        """Take a message of another server.

        Raises:
            RemoteProtocolError: It is wrong; nothing of it was taken.
        """
        if kind == Kind.UPDATE:
            return self._take_update(sender, body, now)
        if kind == Kind.DIGEST:
            return self._take_digest(sender, body, now)
        if kind == Kind.ASK:
            return self._take_ask(sender, body, now)
        if kind == Kind.GIVE:
            return self._take_give(sender, body, now)
        return []  # of a newer minor version

    def _take_update(self, sender: Rid, body: bytes, now: float) -> list[Event]:
        parts = read_body(body, 2)
        writers = read_writers(parts[0])
        records = read_records(parts[1], writers)
        taken = self._shelf.taken
        new = [record for record in records if record.dot not in taken]
        if any(_leaves_gap(record, taken, new) for record in new):
            self._gaps.setdefault(sender, now + GAP_WAIT_S)
        return [Arrived(new, dict(writers))] if new else []

    def _take_digest(self, sender: Rid, body: bytes, now: float) -> list[Event]:
        seen, root = read_body(body, 2)[:2]
        same_seen = seen == vector_hash(self._shelf.seen)
        self.is_consistent = same_seen and root == self._shelf.root()
        return [] if same_seen else self._begin(sender, now)

    def _take_ask(self, sender: Rid, body: bytes, now: float) -> list[Event]:
        parts = read_body(body, 5)
        incarnation, number, after = parts[:3]
        writers = read_writers(parts[3])
        have = read_vector(parts[4], writers)
        if incarnation != self._rid.incarnation:
            return []  # meant for a life of this node that has ended
        if type(number) is not int or not 0 <= number <= _NUMBER_MAX:
            raise RemoteProtocolError("a server's message is wrong in the number of a pull")
        if after is not None and not isinstance(after, bytes):
            raise RemoteProtocolError("a server's message is wrong in the key to go on behind")
        events: list[Event] = [self._give(sender, number, have, after)]
        if not self._shelf.seen.covers(have):
            events += self._begin(sender, now)
        return events

    def _give(self, sender: Rid, number: int, have: Vector, after: bytes | None) -> Outgoing:
        shelf = self._shelf
        records, rest = shelf.lacking(have, after=after, bytes_max=BODY_MAX_BYTES)
        named = Writers()
        listed = [record_parts(record, named, shelf.base) for record in records]
        cut = vector_parts(shelf.seen, named, shelf.base)
        body = packb((sender.incarnation, number, after, rest, named.listed, listed, cut))
        return Outgoing(Kind.GIVE, sender.node, body)

    def _take_give(self, sender: Rid, body: bytes, now: float) -> list[Event]:
        parts = read_body(body, 7)
        incarnation, number, after, rest = parts[:4]
        pull = self._pull
        is_awaited = (
            pull is not None
            and (incarnation, number, after) == (self._rid.incarnation, pull.number, pull.after)
            and sender == pull.peer
        )
        if pull is None or not is_awaited:
            return []  # late, or twice
        writers = read_writers(parts[4])
        records = read_records(parts[5], writers)
        cut = read_vector(parts[6], writers)
        if not _gets_on(after, rest):
            raise RemoteProtocolError("a server's message is wrong in how its pull goes on")
        pull.cut = cut if pull.cut is None else pull.cut
        if rest is not None:
            pull.after, pull.tries = rest, 0
            return [Arrived(records, dict(writers)), *self._ask(pull, now)]
        self._pull = None
        is_whole = pull.refusals == self._shelf.refusals
        return [Arrived(records, dict(writers), pull.cut if is_whole else Vector())]

    # --- pulls --------------------------------------------------------------------------------

    def _begin(self, peer: Rid, now: float) -> list[Event]:
        """Ask a peer for what we lack, unless a pull is under way."""
        if self._pull is not None:
            return []
        self._gaps.pop(peer, None)
        self._number += 1
        have = self._shelf.seen.union(Vector())
        self._pull = _Pull(peer, self._number, have, self._shelf.refusals)
        return self._ask(self._pull, now)

    def _ask(self, pull: _Pull, now: float) -> list[Event]:
        pull.tries += 1
        pull.again_s = now + PART_WAIT_S
        writers = Writers()
        have = vector_parts(pull.have, writers, self._shelf.base)
        body = packb((pull.peer.incarnation, pull.number, pull.after, writers.listed, have))
        return [Outgoing(Kind.ASK, pull.peer.node, body)]

    def next_deadline(self) -> float | None:
        """Return when `expired` has something to do, None for never."""
        times = list(self._gaps.values()) if self._pull is None else [self._pull.again_s]
        return min(times, default=None)

    def expired(self, now: float) -> list[Event]:
        """Ask again for what did not come."""
        pull = self._pull
        if pull is not None and now >= pull.again_s:
            if pull.tries < PART_TRIES_MAX:
                return self._ask(pull, now)
            self._pull = None
        if self._pull is None:
            for peer, since in sorted(self._gaps.items()):
                if now >= since:
                    return self._begin(peer, now)
        return []

    def forget(self, node: str) -> None:
        """Ask a node no more that is gone."""
        self._gaps = {rid: when for rid, when in self._gaps.items() if rid.node != node}
        if self._pull is not None and self._pull.peer.node == node:
            self._pull = None


def _gets_on(after: bytes | None, rest: object) -> bool:
    """Tell whether a pull that went on behind one key may go on behind another."""
    return rest is None or (isinstance(rest, bytes) and (after is None or rest > after))


def _leaves_gap(record: Carried, taken: Vector, new: Sequence[Carried]) -> bool:
    """Tell whether the change before a record's is neither known nor comes with it."""
    rid, tick = record.dot
    before = tick - 1
    if not before or Dot(rid, before) in taken:
        return False
    return not any(other.dot.rid == rid and other.dot.tick == before for other in new)


def _batches(records: Sequence[Carried]) -> list[list[Carried]]:
    """Cut records into batches of bounded size."""
    batches: list[list[Carried]] = []
    size = BODY_MAX_BYTES
    for record in records:
        takes = carried_bytes(record)
        if size + takes > BODY_MAX_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(record)
        size += takes
    return batches


def carried_bytes(record: Carried) -> int:
    """Return about how many bytes of a message a record takes."""
    value = 0 if not isinstance(record.value, bytes) else len(record.value)
    return len(record.key) + value + 24 + 12 * len(record.chain)
