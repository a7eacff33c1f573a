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

- **Repair.**  Equal vectors mean equal trees.  Where two servers see the one without the other,
  something was lost in memory or on a disk: they compare bucket digests and give each other all
  that is in the buckets that differ.
- **Copy.**  Who may not merge what he has (see `membership`) pulls everything, aside, and begins
  anew with that.

Out of scope here: sealing and replay (`envelope`), presence, and who may be forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Protocol

from kvedge.errors import RemoteProtocolError
from kvedge.model.buckets import BUCKETS, DIGESTS_BYTES, diff
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
    vector_hash,
    vector_parts,
)
from kvedge.protocol.exchange import Kind, Outgoing
from kvedge.protocol.membership import Event as MembershipEvent
from kvedge.protocol.recent import Recent

BODY_MAX_BYTES = 192 * 1024
"""What one message carries; brokers bound theirs at 256 kB (see `limits`)."""

GAP_WAIT_S = 0.2
"""How long a missing tick may be late before it is pulled: several times a broker's delay."""

PART_WAIT_S = 2.0
"""How long a part of a pull may take before it is asked for again."""

STORED_WAIT_S = 1.0
"""How long what was pulled may take to be stored, before more of the same is asked for."""

PART_TRIES_MAX = 5
"""Then the pull is given up; the next digest begins another, perhaps elsewhere."""

_NUMBER_MAX = (1 << 63) - 1


class Way(Enum):
    """How records came."""

    UPDATE = "update"
    """Each is new, and counts as seen when it is stored."""
    PULL = "pull"
    """They count as seen at the end of the pull, all at once: their ticks are in no order."""
    REPAIR = "repair"
    """They were seen before: something was lost here or there."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """Records to merge, and what has been seen when they are stored.

    Attributes:
        records: In any order; known ones may be among them.
        bases: Of the rids that they name.
        seen: What counts as seen once these and all earlier ones are stored; empty mostly.
        way: How they came.
    """

    records: Sequence[Carried]
    bases: dict[Rid, int]
    seen: Vector = field(default_factory=Vector)
    way: Way = Way.UPDATE


@dataclass(frozen=True, slots=True)
class Copied:
    """A whole copy of a peer's tree has come.

    Attributes:
        records: All entries.
        bases: Of the rids that they name.
        seen: What the peer had seen.
    """

    records: Sequence[Carried]
    bases: dict[Rid, int]
    seen: Vector


@dataclass(frozen=True, slots=True)
class Differs:
    """A peer has seen the same and holds something else."""

    peer: Rid
    buckets: tuple[int, ...]


Event = Outgoing | Arrived | Copied | Differs | MembershipEvent


Part = tuple[list[Carried], bytes | None]
"""Some entries, and the key to go on behind; None at the end."""


class Members(Protocol):
    """Who may give and take, as replication asks; see `membership`."""

    @property
    def digest(self) -> tuple[bytes, int]:
        """What each digest says of us: a hash of our last announcement, and our standing."""

    @property
    def life(self) -> int | None:
        """What a question for everything says: the life that begins with the answer."""

    def takes_updates_of(self, node: str) -> bool:
        """Tell whether a node's updates count here."""

    def pulls_from(self, node: str) -> bool:
        """Tell whether what a node has may be merged."""

    def admits(
        self, sender: Rid, life: int | None, seen: Vector, now: float
    ) -> list[MembershipEvent] | None:
        """Return what to do before a question is answered: nothing mostly, None for no answer."""

    def heard(
        self, sender: Rid, announced: bytes, standing: int, now: float
    ) -> list[MembershipEvent]:
        """Take note of what a digest says of its sender."""


class Shelf(Protocol):
    """The store, as replication sees it."""

    @property
    def seen(self) -> Vector:
        """All dots whose entries `lacking` would find, or newer ones in their places."""

    @property
    def heard(self) -> Vector:
        """The same, and what has come and is held back: it need not be sent again."""

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

    def digests(self) -> bytes:
        """Return the digests of all buckets of live entries; see `model.buckets`."""

    def in_buckets(self, buckets: Set[int], *, after: bytes | None, bytes_max: int) -> Part:
        """Return the entries in some buckets, tombstones too; like `lacking`."""

    def lacking(self, vector: Vector, *, after: bytes | None, bytes_max: int) -> Part:
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
        life: Whom it is for, where everything is asked for.
        buckets: What a repair asks for; None for what we lack.
        copy: Where everything is collected; None where it is merged at once.
    """

    peer: Rid
    number: int
    have: Vector
    refusals: int
    cut: Vector | None = None
    after: bytes | None = None
    again_s: float = 0.0
    tries: int = 0
    life: int | None = None
    buckets: tuple[int, ...] | None = None
    copy: Copied | None = None


class Replication:
    """What a server says to its peers, asks of them, and takes from them.

    Methods return events; times are seconds of a clock that never falls.

    Args:
        rid: Our own.
        shelf: The store.
        members: Who may give and take.

    Attributes:
        is_consistent: Whether the last digest that came was equal to ours.
    """

    def __init__(self, rid: Rid, shelf: Shelf, members: Members) -> None:
        self._rid = rid
        self._shelf = shelf
        self._members = members
        self._pull: _Pull | None = None
        self._number = 0
        self._gaps: dict[Rid, float] = {}  # whom to ask, and from when on
        self._copied: list[Carried] = []
        self._coming = Vector()  # what the last pull brought, and by when that should be stored
        self._stored_by = 0.0
        self._recent = Recent()
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
        """Return the message that says what we have seen and hold, and announced."""
        shelf = self._shelf
        body = packb((vector_hash(shelf.heard), shelf.root(), *self._members.digest))
        return Outgoing(Kind.DIGEST, None, body)

    # --- what we hear -------------------------------------------------------------------------

    def receive(self, kind: int, sender: Rid, body: bytes, now: float) -> list[Event]:
        """Take a message of another server.

        Raises:
            RemoteProtocolError: It is wrong; nothing of it was taken.
        """
        self._forget_lives_before(sender)
        if kind == Kind.UPDATE:
            return self._take_update(sender, body, now)
        if kind == Kind.DIGEST:
            return self._take_digest(sender, body, now)
        if kind == Kind.ASK:
            return self._take_ask(sender, body, now)
        if kind == Kind.GIVE:
            return self._take_give(sender, body, now)
        if kind == Kind.BUCKETS:
            return self._take_buckets(sender, body, now)
        return []

    def _take_update(self, sender: Rid, body: bytes, now: float) -> list[Event]:
        parts = read_body(body, 2)
        writers = read_writers(parts[0])
        records = read_records(parts[1], writers)
        if not self._members.takes_updates_of(sender.node):
            self._gaps.setdefault(sender, now)  # pulled, so that it knows of us, or we of it
            return []
        taken = self._shelf.taken
        new = [record for record in records if record.dot not in taken]
        if _leave_gap({record.dot for record in new}, taken):
            self._gaps.setdefault(sender, now + GAP_WAIT_S)
        return [Arrived(new, dict(writers))] if new else []

    def _take_digest(self, sender: Rid, body: bytes, now: float) -> list[Event]:
        seen, root, announced, standing = read_body(body, 4)[:4]
        are_right = all(isinstance(part, bytes) for part in (seen, root, announced))
        if not are_right or type(standing) is not int:
            raise RemoteProtocolError("a server's message is wrong in its digest")
        events: list[Event] = [*self._members.heard(sender, announced, standing, now)]
        same_seen = seen == vector_hash(self._shelf.heard)
        self.is_consistent = same_seen and root == self._shelf.root()
        if not same_seen:
            return events + self._begin(sender, now)
        if not self.is_consistent and self._pull is None:
            events.append(self._buckets(sender, is_answer=False))
        return events

    def _buckets(self, to: Rid, *, is_answer: bool) -> Outgoing:
        shelf = self._shelf
        body = packb((to.incarnation, vector_hash(shelf.seen), shelf.digests(), is_answer))
        return Outgoing(Kind.BUCKETS, to.node, body)

    def _take_buckets(self, sender: Rid, body: bytes, now: float) -> list[Event]:
        """Compare digests with a peer that has seen the same."""
        incarnation, seen, digests, is_answer = read_body(body, 4)[:4]
        if not isinstance(digests, bytes) or len(digests) != DIGESTS_BYTES:
            raise RemoteProtocolError("a server's message is wrong in its bucket digests")
        is_meant = incarnation == self._rid.incarnation
        if not is_meant or seen != vector_hash(self._shelf.seen):
            return []
        different = diff(self._shelf.digests(), digests)
        events: list[Event] = [] if is_answer else [self._buckets(sender, is_answer=True)]
        if different and self._pull is None and self._members.pulls_from(sender.node):
            events.append(Differs(sender, different))
            events += self._start(self._new_pull(sender, buckets=different), now)
        return events

    def _take_ask(self, sender: Rid, body: bytes, now: float) -> list[Event]:
        parts = read_body(body, 7)
        incarnation, number, after = parts[:3]
        writers = read_writers(parts[3])
        have = read_vector(parts[4], writers)
        life, buckets = parts[5:7]
        if incarnation != self._rid.incarnation:
            return []  # meant for a life of this node that has ended
        if type(number) is not int or not 0 <= number <= _NUMBER_MAX:
            raise RemoteProtocolError("a server's message is wrong in the number of a pull")
        if after is not None and not isinstance(after, bytes):
            raise RemoteProtocolError("a server's message is wrong in the key to go on behind")
        if life is not None and not (type(life) is int and 0 <= life <= _NUMBER_MAX):
            raise RemoteProtocolError("a server's message is wrong in the asker's next life")
        if buckets is not None and not _are_buckets(buckets):
            raise RemoteProtocolError("a server's message is wrong in the buckets it asks for")
        first = self._members.admits(sender, life, self._shelf.seen, now)
        if first:
            return [*first]
        lacks = not self._shelf.heard.covers(have)
        if first is None:  # who may not give yet may take
            return self._begin(sender, now) if lacks else []
        if buckets is None and after is None and self._recent.explains(have, now):
            events: list[Event] = [_given(sender, number, None, None, Writers(), [], [])]
        else:
            events = [self._give(sender, number, have, after, buckets)]
        return events + (self._begin(sender, now) if lacks else [])

    def _give(
        self,
        sender: Rid,
        number: int,
        have: Vector,
        after: bytes | None,
        buckets: tuple[int, ...] | None,
    ) -> Outgoing:
        shelf = self._shelf
        records: list[Carried] = []
        rest: bytes | None = None
        if buckets is None and have.covers(shelf.seen):
            pass  # nothing is lacking: no need to look
        elif buckets is None:
            records, rest = shelf.lacking(have, after=after, bytes_max=BODY_MAX_BYTES)
        else:
            wanted = frozenset(buckets)
            records, rest = shelf.in_buckets(wanted, after=after, bytes_max=BODY_MAX_BYTES)
        named = Writers()
        listed = [record_parts(record, named, shelf.base) for record in records]
        cut = vector_parts(shelf.seen, named, shelf.base)
        return _given(sender, number, after, rest, named, listed, cut)

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
            # First the question: the other one is looking for the next part while we merge.
            return [*self._ask(pull, now), *self._part(pull, records, dict(writers))]
        self._pull = None
        self._coming, self._stored_by = pull.cut, now + STORED_WAIT_S
        return self._part(pull, records, dict(writers), is_last=True)

    def _part(
        self, pull: _Pull, records: list[Carried], bases: dict[Rid, int], *, is_last: bool = False
    ) -> list[Event]:
        """Hand over a part of a pull, or put it aside where a whole copy is taken."""
        if pull.copy is not None:
            self._copied += records
            pull.copy.bases.update(bases)
            if not is_last:
                return []
            records, self._copied = self._copied, []
            assert pull.cut is not None
            return [replace(pull.copy, records=records, seen=pull.cut)]
        seen = Vector()
        if is_last and pull.buckets is None and pull.refusals == self._shelf.refusals:
            seen = pull.cut or seen
        way = Way.PULL if pull.buckets is None else Way.REPAIR
        return [Arrived(records, bases, seen, way)]

    # --- pulls --------------------------------------------------------------------------------

    def _begin(self, peer: Rid, now: float) -> list[Event]:
        """Ask a peer for what we lack, unless a pull is under way."""
        if self._pull is not None or not self._members.pulls_from(peer.node):
            return []
        if now < self._stored_by and not self._shelf.heard.covers(self._coming):
            return []  # what came is on its way to the disk; then it is compared again
        pull = self._new_pull(peer, life=self._members.life)
        return self._start(pull, now)

    def copy(self, peer: Rid, now: float) -> list[Event]:
        """Ask a peer for everything, to be put aside until it is whole."""
        pull = self._new_pull(peer, life=self._rid.incarnation)
        pull.have = Vector()
        pull.copy = Copied((), {}, Vector())
        self._copied = []
        return self._start(pull, now)

    @property
    def is_copying(self) -> bool:
        """Whether a whole copy is under way."""
        return self._pull is not None and self._pull.copy is not None

    def _new_pull(
        self, peer: Rid, *, life: int | None = None, buckets: tuple[int, ...] | None = None
    ) -> _Pull:
        self._number += 1
        have, refusals = self._shelf.heard.copy(), self._shelf.refusals
        return _Pull(peer, self._number, have, refusals, life=life, buckets=buckets)

    def _start(self, pull: _Pull, now: float) -> list[Event]:
        self._gaps.pop(pull.peer, None)
        self._pull = pull
        return self._ask(pull, now)

    def _ask(self, pull: _Pull, now: float) -> list[Event]:
        pull.tries += 1
        pull.again_s = now + PART_WAIT_S
        writers = Writers()
        have = vector_parts(pull.have, writers, self._shelf.base)
        asked = (pull.peer.incarnation, pull.number, pull.after, writers.listed, have)
        body = packb((*asked, pull.life, pull.buckets))
        return [Outgoing(Kind.ASK, pull.peer.node, body)]

    def next_deadline(self) -> float | None:
        """Return when `expired` has something to do, None for never."""
        times = list(self._gaps.values()) if self._pull is None else [self._pull.again_s]
        return min(times, default=None)

    def expired(self, now: float) -> list[Event]:
        """Ask again for what did not come; called some times per second."""
        self._recent.note(self._shelf.seen, now)
        pull = self._pull
        if pull is not None and now >= pull.again_s:
            if pull.tries < PART_TRIES_MAX:
                return self._ask(pull, now)
            self._pull = None
        if self._pull is None:
            for peer, since in sorted(self._gaps.items()):
                if now >= since:
                    events = self._begin(peer, now)
                    if events or not self._members.pulls_from(peer.node):
                        self._gaps.pop(peer, None)
                    return events
        return []

    def _forget_lives_before(self, sender: Rid) -> None:
        """Ask a life that has ended no more, now that a newer one of the node speaks."""
        for rid in [rid for rid in self._gaps if rid.node == sender.node and rid < sender]:
            del self._gaps[rid]
        pull = self._pull
        if pull is not None and pull.peer.node == sender.node and pull.peer < sender:
            self._pull = None

    def forget(self, node: str) -> None:
        """Ask a node no more that is gone."""
        self._gaps = {rid: when for rid, when in self._gaps.items() if rid.node != node}
        if self._pull is not None and self._pull.peer.node == node:
            self._pull = None


def _given(
    to: Rid,
    number: int,
    after: bytes | None,
    rest: bytes | None,
    named: Writers,
    records: Sequence[tuple[Any, ...]],
    cut: Sequence[tuple[Any, ...]],
) -> Outgoing:
    """Return the message with a part of a pull."""
    body = packb((to.incarnation, number, after, rest, named.listed, records, cut))
    return Outgoing(Kind.GIVE, to.node, body)


def _are_buckets(given: object) -> bool:
    """Tell whether something is a list of numbers of buckets."""
    if not isinstance(given, tuple) or len(given) > BUCKETS:
        return False
    return all(type(number) is int and 0 <= number < BUCKETS for number in given)


def _gets_on(after: bytes | None, rest: object) -> bool:
    """Tell whether a pull that went on behind one key may go on behind another."""
    return rest is None or (isinstance(rest, bytes) and (after is None or rest > after))


def _leave_gap(new: Set[Dot], taken: Vector) -> bool:
    """Tell whether the change before one of some is neither known nor among them."""
    befores = (Dot(rid, tick - 1) for rid, tick in new if tick > 1)
    return any(before not in new and before not in taken for before in befores)


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
