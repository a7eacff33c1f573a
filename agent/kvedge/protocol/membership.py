"""Who belongs to a network, what each member has safely, and what follows from that.

Theory of operation.  A deletion leaves a tombstone, without which an older record of a server that
was away would bring the entry back.  It may go when nobody can have such a record any more:

- Each **member** announces its *durable* vector: what it has, also after a power cut.
- A tombstone is *stable* when every member has announced a vector with it, and when our own
  durable vector covers all that they announced.  For then whatever a member wrote before it
  had the tombstone is here as well, and what comes later is newer than the tombstone.
- A server is made a member, durably, by the one it pulls from before that one's first part.
  So whoever relies on a member's announcement has heard of all that this member has let in.
- Updates count only among members: who has not pulled yet may take in nothing.  And who is no
  member yet keeps its tombstones: what it deleted may be older news to those it will meet.

In the same way the incarnations of a node are *closed* when all members' vectors agree on what
they have of them and the node has a newer one.

All this trusts that nobody has less than he said.  So what was announced is kept by the others,
durably, and the first announcement of each life also says with what it began.  Who began with
less, or with a generation that was used before, is **regressed**: an old image was restored, a
card was lost, or has lied.  It may hold what the others have deleted and forgotten.  The same is
true of a member that was **expired** while it was away.  Either takes a full copy from a member
in good standing, then sets its own tree aside:

    UNSURE -- judged good --> GOOD        a life begins as UNSURE, with an empty store as GOOD
    any -- judged bad, and it is so --> REGRESSED or EXPIRED -- full copy --> a new life, GOOD

A verdict carries its proof, what was announced before, so nobody needs to be believed.  Out of
scope here: how records travel (`replication`), and where entries and vectors are stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from itertools import pairwise

from kvedge.errors import RemoteProtocolError
from kvedge.model.stamp import GENERATION_MAX, Rid, generation_of
from kvedge.model.value import packb
from kvedge.model.vector import Vector
from kvedge.protocol.batches import (
    Bases,
    Writers,
    read_body,
    read_vector,
    read_writers,
    vector_hash,
    vector_parts,
)
from kvedge.protocol.exchange import Kind, Outgoing

ANNOUNCE_INTERVAL_S = 300.0
"""A changed vector is announced this often; promised is twice as often as every 10 minutes."""

ANNOUNCE_AGAIN_S = 2.0
"""Nobody needs to hear the same announcement sooner again."""

SURE_AFTER_S = 5.0
"""Where nobody judges us for so long after a connect, we give what we have."""

EXPIRE_AFTER_S = 720 * 3600.0
"""A member of which nothing was heard for 30 days of our own running time is expired."""


class State(IntEnum):
    """What the tree says of a node."""

    UNKNOWN = 0
    MEMBER = 1
    EXPIRED = 2


class Standing(IntEnum):
    """What a server knows of itself."""

    UNSURE = 0
    GOOD = 1
    REGRESSED = 2
    EXPIRED = 3


_STANDINGS = frozenset(Standing)
_NEVER = float("-inf")
_HAS_LEFT = (Standing.REGRESSED, Standing.EXPIRED)


@dataclass(frozen=True, slots=True)
class Record:
    """What the tree says of a node.

    Attributes:
        state: Whether it belongs to the network.
        since: The incarnation in which it began with nothing, and took a whole copy.  What it
            announced before says nothing any more.
    """

    state: State
    since: int = 0


_UNKNOWN = Record(State.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Kept:
    """What a member has announced.

    Attributes:
        incarnation: In which of its lives.
        since: What its record said then.
        vector: What it has on its disk.
    """

    incarnation: int
    since: int
    vector: Vector

    def digest(self) -> bytes:
        """Return 16 bytes that stand for it."""
        return announced_hash(self.incarnation, self.vector)


@dataclass(frozen=True, slots=True)
class Admit:
    """Nodes to be made members, durably, before the question is looked at again."""

    records: dict[str, Record]


@dataclass(frozen=True, slots=True)
class Keep:
    """Something to be stored: what a member has announced."""

    node: str
    kept: Kept


@dataclass(frozen=True, slots=True)
class Fallen:
    """We have turned out to be regressed or expired.

    Attributes:
        standing: Which of both.
        by: Who told us.
        missing: What we had once, and have not.
    """

    standing: Standing
    by: Rid
    missing: Vector


Event = Outgoing | Keep | Fallen | Admit


def announced_hash(incarnation: int, vector: Vector) -> bytes:
    """Return 16 bytes that stand for an announcement."""
    return blake2b(packb((incarnation, vector_hash(vector))), digest_size=16).digest()


class Membership:
    """The members of a network as one server knows them, and its own standing.

    Times are seconds of a clock that never falls.

    Args:
        rid: Our own.
        start: Our durable vector when this life began.
        bases: Looks up the base of a rid.
        kept: What members announced, as far as stored.
        is_fresh: Whether this life began with an empty store.
        unheard_s: For how long nothing was heard of members, as far as stored.
        announce_interval_s: Between two announcements of a vector that changes.
        expire_after_s: For how long a member may be not heard, in our own running time.

    Attributes:
        standing: What we know of ourselves.
        records: What the tree says of nodes; the owner keeps it.
        generation_heard: The largest generation of our node that peers told us; the next life
            begins above it.
        kept: What members announced last.
        unheard_s: For how many seconds of our running time nothing was heard of a member.
    """

    def __init__(
        self,
        rid: Rid,
        start: Vector,
        bases: Bases,
        *,
        is_fresh: bool,
        kept: dict[str, Kept],
        unheard_s: dict[str, float],
        announce_interval_s: float = ANNOUNCE_INTERVAL_S,
        expire_after_s: float = EXPIRE_AFTER_S,
    ) -> None:
        self._rid = rid
        self._start = start.copy()
        self._bases = bases
        self._is_fresh = is_fresh
        self._announce_interval_s = announce_interval_s
        self._expire_after_s = expire_after_s
        self._announced: Vector | None = None
        self._due_s = self._sent_s = _NEVER
        self._asked_s: dict[str, float] = {}
        self._standings: dict[str, tuple[int, Standing]] = {}
        self._connected_s = _NEVER
        self.generation_heard = 0
        self.standing = Standing.GOOD if is_fresh else Standing.UNSURE
        self.records: dict[str, Record] = {}
        self.kept = dict(kept)
        self.unheard_s = dict(unheard_s)

    # --- who belongs to it --------------------------------------------------------------------

    def state(self, node: str) -> State:
        """Return what the tree says of a node."""
        return self.records.get(node, _UNKNOWN).state

    def members(self) -> list[str]:
        """Return the members that are not expired, ourselves included where we are one."""
        return sorted(n for n, record in self.records.items() if record.state is State.MEMBER)

    @property
    def is_member(self) -> bool:
        """Whether the tree says that we are a member."""
        return self.state(self._rid.node) is State.MEMBER

    @property
    def has_left(self) -> bool:
        """Whether we may give nothing to anybody, and take nothing but a whole copy."""
        return self.standing in _HAS_LEFT

    @property
    def life(self) -> int | None:
        """What a question for everything says: the life that begins with the answer."""
        return self._rid.incarnation if self._is_fresh and not self.is_member else None

    def takes_updates_of(self, node: str) -> bool:
        """Tell whether a node's updates count here."""
        return self.is_member and self.state(node) is State.MEMBER and not self.has_left

    def pulls_from(self, node: str) -> bool:
        """Tell whether what a node has may be merged."""
        return self.state(node) is not State.EXPIRED and not self.has_left

    def connected(self, now: float) -> None:
        """Take note that there is a connection."""
        self._connected_s = now

    def admits(self, sender: Rid, life: int | None, seen: Vector, now: float) -> list[Event] | None:
        """Return what to do before a question is answered: nothing mostly.

        Args:
            sender: Who asks.
            life: Where it asks for everything, the incarnation in which it will have it.
            seen: What we have seen.
            now: The time.

        Returns:
            Empty: answer.  None: do not, and there is nothing to say.
        """
        node = sender.node
        record = self.records.get(node, _UNKNOWN)
        if not self._gives(node, now):
            return None
        if not seen:
            return []  # who has nothing need not know whom it gives that
        begun = sender.incarnation if life is None else life
        generation = self._generation_of(node, seen, but=begun)
        if generation_of(begun) <= generation and (life is None or record.since != life):
            return [self._verdict(sender, Standing.REGRESSED, Vector(), generation)]
        if life is None and record.state is State.EXPIRED:
            return self.judge(sender)
        if record.state is State.MEMBER and life in (None, record.since):
            return []
        new = {node: Record(State.MEMBER, begun)}
        if not self.is_member:
            new[self._rid.node] = Record(State.MEMBER, self._rid.incarnation)
        return [Admit(new)]

    def _gives(self, node: str, now: float) -> bool:
        """Tell whether what we have may be given to a node, or anything at all."""
        if self.has_left or (self.records and not self.is_member):
            return False
        others = set(self.members()) - {self._rid.node, node}
        is_early = now < self._connected_s + SURE_AFTER_S
        return self.standing is not Standing.UNSURE or not others or not is_early

    def _generation_of(self, node: str, seen: Vector, *, but: int) -> int:
        """Return the largest generation in which a node is known to have written, but for one."""
        known = [generation_of(rid.incarnation) for rid in seen.rids_of(node) if rid[1] != but]
        return max([*known, seen.floors.get(node, 1) - 1])

    def next_generation(self, seen: Vector) -> int:
        """Return the generation of our next life: above all that anybody remembers."""
        node, own = self._rid
        heard = max(self.generation_heard, self._generation_of(node, seen, but=0))
        return 1 + max(heard, generation_of(own))

    def live_on(self, rid: Rid) -> None:
        """Speak as another incarnation from now on: as the one that will have a whole copy."""
        self._rid = rid

    def standing_of(self, rid: Rid) -> Standing:
        """Return what a peer last said of itself."""
        life, standing = self._standings.get(rid.node, (0, Standing.UNSURE))
        return standing if life == rid.incarnation else Standing.UNSURE

    def forget(self, node: str) -> None:
        """Know nothing of a node any more: the tree does not name it now."""
        self.records.pop(node, None)
        self.kept.pop(node, None)
        self.unheard_s.pop(node, None)

    # --- what we say ----------------------------------------------------------------------------

    @property
    def digest(self) -> tuple[bytes, int]:
        """What each digest says of us: a hash of our last announcement, and our standing."""
        vector = Vector() if self._announced is None else self._announced
        is_alone = self.members() == [self._rid.node]  # nobody is left who could judge us
        is_good = self.standing is Standing.UNSURE and is_alone
        standing = Standing.GOOD if is_good else self.standing
        return announced_hash(self._rid.incarnation, vector), standing

    def announce(self, durable: Vector, now: float, *, at_once: bool = False) -> list[Outgoing]:
        """Return the announcement of our durable vector, where one is due.

        Args:
            durable: It.
            now: The time.
            at_once: Whether to say it although it is early: we are about to end.
        """
        if (now < self._due_s and not at_once) or not durable or durable == self._announced:
            return []
        self._announced = durable.copy()
        self._due_s = now + self._announce_interval_s
        return [self._announcement(now)]

    def _announcement(self, now: float) -> Outgoing:
        assert self._announced is not None
        self._sent_s = now
        writers = Writers()
        start = vector_parts(self._start, writers, self._bases)
        durable = vector_parts(self._announced, writers, self._bases)
        body = (self._is_fresh, self.standing, writers.listed, start, durable)
        return Outgoing(Kind.VECTOR, None, packb(body))

    # --- what we hear ---------------------------------------------------------------------------

    def heard(self, sender: Rid, announced: bytes, standing: int, now: float) -> list[Event]:
        """Take note of what a digest says of its sender; ask where we do not know it."""
        node = sender.node
        if standing in _STANDINGS:
            self._standings[node] = (sender.incarnation, Standing(standing))
        self.unheard_s.pop(node, None)
        known = self._valid(node)
        if known is not None and known.digest() == announced:
            is_unsure = standing == Standing.UNSURE and self.state(node) is State.MEMBER
            return [self._verdict(sender, Standing.GOOD, Vector())] if is_unsure else []
        is_known = self.state(node) is not State.UNKNOWN
        if not is_known or now < self._asked_s.get(node, _NEVER) + ANNOUNCE_AGAIN_S:
            return []
        self._asked_s[node] = now
        return [Outgoing(Kind.WANT, node, packb((sender.incarnation,)))]

    def _valid(self, node: str) -> Kept | None:
        """Return what a member has announced since it began with nothing."""
        kept = self.kept.get(node)
        is_valid = kept is not None and kept.since == self.records.get(node, _UNKNOWN).since
        return kept if is_valid else None

    def receive(self, kind: Kind, sender: Rid, body: bytes, now: float) -> list[Event]:
        """Take a message of another server.

        Raises:
            RemoteProtocolError: It is wrong; nothing of it was taken.
        """
        if kind is Kind.WANT:
            return self._take_want(body, now)
        if kind is Kind.VECTOR:
            return self._take_vector(sender, body)
        if kind is Kind.VERDICT:
            return self._take_verdict(sender, body)
        return []

    def _take_want(self, body: bytes, now: float) -> list[Event]:
        if read_body(body, 1)[0] != self._rid.incarnation or self._announced is None:
            return []
        return [] if now < self._sent_s + ANNOUNCE_AGAIN_S else [self._announcement(now)]

    def _take_vector(self, sender: Rid, body: bytes) -> list[Event]:
        parts = read_body(body, 5)
        is_fresh, standing = parts[:2]
        if not isinstance(is_fresh, bool) or type(standing) is not int:
            raise RemoteProtocolError("a server's message is wrong in its announcement")
        writers = read_writers(parts[2])
        start, durable = read_vector(parts[3], writers), read_vector(parts[4], writers)
        node = sender.node
        record = self.records.get(node, _UNKNOWN)
        if record.state is State.UNKNOWN or node == self._rid.node:
            return []
        if record.state is State.EXPIRED:
            return self.judge(sender)
        if sender.incarnation < record.since:
            generation = generation_of(record.since)
            return [self._verdict(sender, Standing.REGRESSED, Vector(), generation)]
        known = self._valid(node)
        is_same_life = known is not None and known.incarnation == sender.incarnation
        if known is None or is_same_life or start.covers(known.vector):
            self.kept[node] = kept = Kept(sender.incarnation, record.since, durable)
            events: list[Event] = [Keep(node, kept)]
            if standing == Standing.UNSURE:
                events.append(self._verdict(sender, Standing.GOOD, Vector()))
            return events
        generation = generation_of(known.incarnation)
        return [self._verdict(sender, Standing.REGRESSED, known.vector, generation)]

    def _verdict(self, of: Rid, standing: Standing, proof: Vector, generation: int = 0) -> Outgoing:
        writers = Writers()
        rows = vector_parts(proof, writers, self._bases)
        body = (of.incarnation, standing, generation, writers.listed, rows)
        return Outgoing(Kind.VERDICT, of.node, packb(body))

    def outlived(self, sender: Rid, newest: int, now: float) -> list[Event]:
        """Tell a server that others have spoken under its name since: its memory is old.

        Args:
            sender: Who it is.
            newest: The newest incarnation of its node.
            now: The time.
        """
        if now < self._asked_s.get(sender.node, _NEVER) + ANNOUNCE_AGAIN_S:
            return []
        self._asked_s[sender.node] = now
        return [self._verdict(sender, Standing.REGRESSED, Vector(), generation_of(newest))]

    def judge(self, of: Rid) -> list[Event]:
        """Tell an expired node that it is one."""
        return [self._verdict(of, Standing.EXPIRED, Vector())]

    def _take_verdict(self, sender: Rid, body: bytes) -> list[Event]:
        parts = read_body(body, 5)
        incarnation, standing, generation = parts[:3]
        proof = read_vector(parts[4], read_writers(parts[3]))
        if type(generation) is not int or not 0 <= generation < GENERATION_MAX:
            raise RemoteProtocolError("a server's message is wrong in the generation of a verdict")
        if type(standing) is not int:
            raise RemoteProtocolError("a server's message is wrong in the standing of a verdict")
        if incarnation != self._rid.incarnation or self.state(sender.node) is State.EXPIRED:
            return []  # meant for another life; or of somebody whose memory counts no more
        if standing == Standing.GOOD and self.standing is Standing.UNSURE:
            self.standing = Standing.GOOD
        is_outlived = generation >= generation_of(self._rid.incarnation)
        # Who began with nothing has lost nothing: some may not know yet that it began anew.
        is_behind = is_outlived or not (self._is_fresh or self._start.covers(proof))
        # Who has fallen already may have to speak as a later life still.
        falls = not self.has_left if standing == Standing.EXPIRED else is_behind
        if standing not in _HAS_LEFT or not falls or (self.has_left and not is_outlived):
            return []
        self.generation_heard = max(self.generation_heard, generation)
        self.standing = Standing(standing)
        return [Fallen(self.standing, sender, proof.minus(self._start))]

    # --- what follows -----------------------------------------------------------------------------

    def stable(self, durable: Vector) -> Vector | None:
        """Return the dots that every member has safely; None where that is not known."""
        members = self.members()
        is_sure = self.standing is Standing.GOOD or members == [self._rid.node]
        if not self.is_member or not is_sure:
            return None
        common = durable
        for node in members:
            if node == self._rid.node:
                continue
            kept = self._valid(node)
            if kept is None or not durable.covers(kept.vector):
                return None
            common = common.meet(kept.vector)
        return common

    def closable(self, durable: Vector) -> dict[str, int]:
        """Return per node the generation below which all its incarnations can be closed."""
        if self.stable(durable) is None:
            return {}
        vectors = [durable]
        vectors += [self.kept[node].vector for node in self.members() if node != self._rid.node]
        rids: dict[str, list[Rid]] = {}
        for rid, _ in durable:
            rids.setdefault(rid.node, []).append(rid)
        found = {node: _floor(of_node, vectors) for node, of_node in rids.items()}
        return {node: floor for node, floor in found.items() if floor}

    def passed(self, seconds: float, seen: Iterable[str]) -> list[str]:
        """Count running time; return which members are to be expired now.

        Args:
            seconds: Since the last call.
            seen: The other nodes that are there.
        """
        members = [node for node in self.members() if node != self._rid.node]
        there = set(seen)
        for node in there & self.unheard_s.keys():
            del self.unheard_s[node]
        for node in members:
            if node not in there:
                self.unheard_s[node] = self.unheard_s.get(node, 0.0) + seconds
        is_majority = 2 * (1 + sum(node in there for node in members)) > 1 + len(members)
        if not is_majority or not self.is_member or self.has_left:
            return []
        return [node for node in members if self.unheard_s.get(node, 0) >= self._expire_after_s]


def _floor(rids: list[Rid], vectors: list[Vector]) -> int:
    """Return the generation below which all vectors agree on a node's rids; 0 for none."""
    by_generation: dict[int, list[Rid]] = {}
    for rid in rids:
        by_generation.setdefault(generation_of(rid.incarnation), []).append(rid)
    generations = sorted(by_generation)
    floor = 0
    for generation, following in pairwise(generations):
        if not all(_is_agreed(rid, vectors) for rid in by_generation[generation]):
            break
        floor = following
    return floor


def _is_agreed(rid: Rid, vectors: list[Vector]) -> bool:
    told = {vector.ranges(rid) for vector in vectors if not vector.is_closed(rid)}
    return len(told) <= 1
