"""What a cluster promises, and who remembers what it has promised so far.

The oracle is told of everything that users ask, see and are told, and of every record on every
node.  It knows the truth about what was made knowing what, which no server does: servers have
chains, that forget.  Each promise is a `Check`; a broken one is raised as `Broken`.

A node whose disk has lost what it had confirmed (a flipped bit, an older image, memory that
forgot) is *cheated* until it has begun anew: what it alone could keep is not expected of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from kvedge.model import entry as entries
from kvedge.model.chain import Chain
from kvedge.model.path import KV, SYSTEM, Path
from kvedge.model.places import CONFLICTS
from kvedge.model.stamp import Dot, Rid
from kvedge.model.value import Missing, unpack
from kvedge.protocol.membership import Standing, State
from kvedge.server.members import MEMBERS, read_member
from kvedge.server.records import rank_of
from kvedge.server.recovery import Saved
from kvedge.server.store import Pending, Store

if TYPE_CHECKING:
    from kvedge.testing.sim.node import Node

Rank = tuple[int, Rid, int]
Link = tuple[str, int]
"""A change as users see it: node and shown tick."""

Held = Mapping[bytes, tuple[Rank, Chain, bytes | Missing]]
"""What a tree holds: rank, chain and value by key."""

_Meaning = tuple[bytes, int, Chain, bytes | Missing]

ROWS_PER_NODE = 4
"""Rows that a vector may have per node: its present life, some that are being closed, a floor."""


class Check(Enum):
    """A promise."""

    CONVERGENCE = "servers that have seen the same are equal"
    FINAL_RECORD = "the final record is the maximum over what was promised, and was issued"
    RESURRECTION = "what was deleted and forgotten stays away"
    COMPARE_AND_SET = "one compare-and-set wins per chain value and server"
    OWN_WRITES = "who wrote something reads it, or newer, and never goes back"
    TOCK = "the tock that a server shows never falls"
    CAUSALITY = "what is written after something was seen has the greater rank"
    WATCH = "a watcher is told in order, of everything, and ends with the tree"
    SAME_DOT = "the same dot is the same record everywhere"
    MEMORY = "memory is bounded"
    FALSE_CONFLICT = "no conflict is reported where the winner knew the loser"
    SILENT_LOSS = "a write that lost to one that did not know it is reported by its author"
    JUDGEMENT = "who has kept all that it promised is never taken for regressed"
    EXPIRY = "a member is expired by hand, or after its time"
    TRAFFIC = "healing takes at most twice the missing data, digests and vectors"


class Broken(AssertionError):
    """A promise is broken.

    Attributes:
        check: Which.
    """

    def __init__(self, check: Check, detail: str) -> None:
        super().__init__(f"{check.value}: {detail}")
        self.check = check


@dataclass(slots=True)
class Diary:
    """What a node has shown to its users.

    Attributes:
        tock: The largest that it has told.
        newest: The largest tock of a record that was visible.
        reads: The newest record that was read, per key.
        acknowledged: The newest durable write that was acknowledged, per key.
        wins: Compare-and-sets that were acknowledged, by key and chain value.
        unreported: Own writes that lost to one that did not know them, with their values.
        is_cheated: Whether its disk or memory has lost what it had confirmed.
        was_cheated: Whether it ever had, even if it has begun anew.
    """

    tock: int = 0
    newest: int = 0
    reads: dict[bytes, Rank] = field(default_factory=dict)
    acknowledged: dict[bytes, Rank] = field(default_factory=dict)
    wins: dict[tuple[bytes, Link], Dot] = field(default_factory=dict)
    unreported: dict[Dot, Dot] = field(default_factory=dict)
    is_cheated: bool = False
    was_cheated: bool = False

    def forget(self) -> None:
        """Expect no more of a node than of a new one, but for its clock."""
        self.reads.clear()
        self.acknowledged.clear()
        self.wins.clear()
        self.unreported.clear()


class Oracle:
    """Remembers what was promised, and speaks up."""

    def __init__(self) -> None:
        self.diaries: dict[str, Diary] = defaultdict(Diary)
        self.is_honest = True  # no board has ever been cheated
        self._issued: dict[Dot, _Meaning] = {}
        self._promised: dict[Dot, tuple[bytes, Rank]] = {}
        self._parents: dict[Dot, Dot] = {}
        self._shown: dict[Link, Dot] = {}
        self._links: dict[Dot, Link] = {}
        self._made: dict[tuple[str, int], Dot] = {}
        self._reaped: dict[bytes, Rank] = {}
        self._asked: dict[bytes, set[str]] = {}  # who had to have them

    # --- what happens -------------------------------------------------------------------------

    def issued(self, node: Node, pending: Pending) -> None:
        """Take note of a change that a node has stamped, of a user or of its own."""
        store, diary, key = node.store, self.diaries[node.name], pending.key
        dot, rank = store.dot_of(pending.packed), rank_of(pending.packed, store.rids)
        if dot in self._issued:
            raise Broken(Check.SAME_DOT, f"{dot} was used twice")
        self._issued[dot] = _meaning(store, key, pending.packed)
        self._links[dot] = link = store.rids.shown(dot)
        self._shown[link] = dot
        self._made[node.name, rank[0]] = dot
        if pending.old is not None:
            self._parents[dot] = store.dot_of(pending.old)
            if rank_of(pending.old, store.rids) >= rank:
                raise Broken(Check.CAUSALITY, f"{dot} is older than what it replaces")
        elif key in self._reaped:
            _, rid, tick = self._reaped[key]
            self._parents[dot] = Dot(rid, tick)
        if rank[0] <= diary.newest:
            raise Broken(Check.CAUSALITY, f"{dot} is older than what {node.name} had shown")
        if key.startswith(CONFLICTS.key) and entries.is_live(pending.packed):
            self._reported(node, entries.value_of(pending.packed))
        if key.startswith(MEMBERS):
            self._member_written(node, key, entries.value_of(pending.packed))

    def refused(self, node: Node, pendings: Iterable[Pending]) -> None:
        """Take note that changes have surely not happened: their ticks are used again."""
        for pending in pendings:
            if pending.is_own:
                self._issued.pop(node.store.dot_of(pending.packed), None)
                if pending.key.startswith(CONFLICTS.key):  # the report did not get to the disk
                    self.diaries[node.name].unreported.clear()

    def report_refused(self, node: Node) -> None:
        """Take note that a node could not write down a conflict."""
        self.diaries[node.name].unreported.clear()

    def settled(self, node: Node, pending: Pending) -> None:
        """Take note of a record that a node's store has confirmed, of any author."""
        store, diary, key = node.store, self.diaries[node.name], pending.key
        packed = pending.packed
        dot = store.dot_of(packed)
        if self._issued.get(dot) != _meaning(store, key, packed):
            was = self._issued.get(dot)
            raise Broken(Check.SAME_DOT, f"{dot} on {node.name}: {was}")
        for link in entries.chain_of(packed, store.rids):
            if self._links.get(link, store.rids.shown(link)) != store.rids.shown(link):
                raise Broken(Check.SAME_DOT, f"{node.name} shows {link} as another tick")
        if pending.has_won:
            diary.newest = max(diary.newest, entries.tock_of(packed))
            if self.is_honest and entries.is_live(packed):
                self._look_for_dead(key, rank_of(packed, store.rids), node.name)
        if pending.replaced is not None:
            self._note_loss(node, pending, pending.replaced)

    def _note_loss(self, node: Node, pending: Pending, replaced: bytes) -> None:
        """Note a change of a node that has lost there to one that did not know it."""
        store = node.store
        if pending.key.startswith((SYSTEM.key, KV.key)):
            return
        pair = sorted((pending.packed, replaced), key=lambda one: rank_of(one, store.rids))
        loser, winner = map(store.dot_of, pair)
        if loser.rid.node != node.name or loser == winner or loser not in self._issued:
            return
        lost, won = map(entries.value_of, pair)
        if isinstance(lost, Missing) and not self.is_honest:
            return  # a damaged board may have forgotten a deletion that it had announced to know
        if lost != won and not self.is_no_loss(winner, loser):
            self.diaries[node.name].unreported[loser] = winner

    def knew(self, winner: Dot, loser: Dot) -> bool:
        """Tell whether a change was made knowing another one of the same place.

        Whoever makes a change knows what it replaces, and what that had replaced, back to before
        tombstones that have gone.  What the merge had put aside before is not known by that: the
        loser's author may be told of the last one only, and then has to report this one.
        """
        return loser in self._lineage(winner)

    def _lineage(self, dot: Dot) -> Iterator[Dot]:
        at: Dot | None = dot
        while at is not None:
            yield at
            at = self._parents.get(at)

    def is_no_loss(self, winner: Dot, loser: Dot) -> bool:
        """Tell whether nobody needs to be told that one change lost to another one.

        It knew it.  Or its author knew a later change of the same node: what that node had
        forgotten then were readings that a power cut took from it.  Or something was deleted, and
        deleted again.
        """
        return any(
            (at.rid.node == loser.rid.node and (at.rid, at.tick) >= (loser.rid, loser.tick))
            or self._is_deleted_again(loser, at)
            for at in self._lineage(winner)
        )

    def _is_deleted_again(self, loser: Dot, other: Dot) -> bool:
        (_, old, _, lost), (_, new, _, value) = self._issued[loser], self._issued[other]
        are_deletions = isinstance(lost, Missing) and isinstance(value, Missing)
        return are_deletions and (new, other) > (old, loser)

    def _reported(self, node: Node, value: bytes | Missing) -> None:
        """Look at a report of a conflict."""
        report = {} if isinstance(value, Missing) else unpack(value)
        lost, won = report["lost"], report["won"]
        loser = self._shown[lost["node"], lost["tick"]]
        winner = self._shown[won["node"], won["tick"]]
        is_sure = report["kind"] == "concurrent" and self.is_honest
        if is_sure and self.knew(winner, loser):
            raise Broken(Check.FALSE_CONFLICT, f"{node.name} says that {winner} hit {loser}")

    def _member_written(self, node: Node, key: bytes, value: bytes | Missing) -> None:
        name, record = read_member(key, value)
        if record is None or isinstance(value, Missing) or record.state is not State.EXPIRED:
            return
        missing_s = node.missing_s(name or "")
        if unpack(value)["reason"] != "by hand" and missing_s < node.expire_after_s:
            raise Broken(Check.EXPIRY, f"{node.name} expires {name} after {missing_s:.0f} s")

    def made_at(self, node: Node, tock: int) -> Dot:
        """Return the change that a node has stamped with a tock."""
        return self._made[node.name, tock]

    def acknowledged(self, node: Node, key: bytes, rank: Rank, *, relaxed: bool) -> None:
        """Note what a user was promised."""
        found = node.store.get(key)
        held = self._reaped.get(key) if found is None else rank_of(found, node.store.rids)
        if held is None or held < rank:
            raise Broken(Check.OWN_WRITES, f"{_name(key)} on {node.name}: {held}")
        diary = self.diaries[node.name]
        diary.reads[key] = max(held, diary.reads.get(key, held))
        if not relaxed:
            self._promised[Dot(rank[1], rank[2])] = key, rank
            diary.acknowledged[key] = max(rank, diary.acknowledged.get(key, rank))

    def won(self, node: Node, key: bytes, expected: Link | None, made: Dot) -> None:
        """Note a compare-and-set that was acknowledged: where there was a chain value, once."""
        if expected is None:
            return  # that nothing is there may be so again and again
        wins = self.diaries[node.name].wins
        other = wins.setdefault((key, expected), made)
        if other != made:
            detail = f"{made} and {other} both replaced {expected} on {node.name}"
            raise Broken(Check.COMPARE_AND_SET, detail)

    def read(self, node: Node, key: bytes) -> None:
        """Take note of what a user reads, and of the tock."""
        diary, store = self.diaries[node.name], node.store
        self.tock_told(node)
        found = store.get(key)
        held = self._reaped.get(key) if found is None else rank_of(found, store.rids)
        before = diary.reads.get(key)
        is_back = before is not None and (held is None or held < before)
        if is_back and not (held is not None and self.is_stranger(key, held[1].node)):
            raise Broken(Check.OWN_WRITES, f"{node.name} went back from {before} to {held}")
        if held is not None:
            diary.reads[key] = held

    def tock_told(self, node: Node) -> None:
        """Take note of the tock that a node tells."""
        diary, tock = self.diaries[node.name], node.store.tock
        if tock < diary.tock:
            raise Broken(Check.TOCK, f"{node.name} went back from {diary.tock} to {tock}")
        diary.tock = tock

    def reaped(self, node: Node, key: bytes, rank: Rank) -> None:
        """Note that a tombstone has gone, since all members had it, as far as a node knew them."""
        self._reaped[key] = max(rank, self._reaped.get(key, rank))
        members = set(node.network.members.members())
        self._asked[key] = self._asked.get(key, members) & members

    # --- what becomes of boards -------------------------------------------------------------------

    def booted(self, node: Node) -> None:
        """Look at a node that has read its disk."""
        diary = self.diaries[node.name]
        if diary.is_cheated:
            diary.tock = diary.newest = 0
        self.tock_told(node)

    def crashed(self, node: Node) -> None:
        """Expect what is durable, no more, of a node that has lost power."""
        diary = self.diaries[node.name]
        diary.reads = dict(diary.acknowledged)
        diary.unreported.clear()  # reports are written like readings

    def cheated(self, node: Node, others: Sequence[Node]) -> None:
        """Let go of what a node alone could keep, for its disk is damaged or aside."""
        diary = self.diaries[node.name]
        diary.is_cheated = diary.was_cheated = True
        diary.forget()
        self.is_honest = False
        self._let_go(others)

    def renewed(self, node: Node, others: Sequence[Node], saved: Sequence[Saved]) -> None:
        """Let go of what is in a file now, and of what that had replaced; it begins anew."""
        self.diaries[node.name].forget()
        self._let_go(others)
        ranks = {one.key: one.entry.rank for one in saved}
        for dot, (key, rank) in list(self._promised.items()):
            if key in ranks and rank <= ranks[key]:
                del self._promised[dot]

    def spoiled(self, node: Node) -> None:
        """Take note that a disk takes no writes.

        A life that could write nothing down speaks all the same, and the next one has the same
        generation: it may be taken for an old one.
        """
        self.diaries[node.name].was_cheated = True

    def has_begun_anew(self, node: Node) -> None:
        """Trust a node again."""
        self.diaries[node.name].is_cheated = False

    def _let_go(self, others: Sequence[Node]) -> None:
        for dot in list(self._promised):
            if not any(dot in other.store.durable for other in others):
                del self._promised[dot]

    # --- checks at any time -----------------------------------------------------------------------

    def look(self, node: Node) -> None:
        """Look at a node while it runs."""
        standing = node.network.members.standing
        if standing is Standing.REGRESSED and not self.diaries[node.name].was_cheated:
            raise Broken(Check.JUDGEMENT, f"{node.name} has lost nothing, and is regressed")

    # --- checks at the end ------------------------------------------------------------------------

    def check(self, nodes: Sequence[Node]) -> None:
        """Check everything, once all nodes have had the time to become equal.

        Raises:
            Broken: Something is not as it was promised.
        """
        self.check_convergence(nodes)
        held = nodes[0].held()
        self.check_final_records(held)
        self.check_resurrection(held)
        self.check_reports(nodes)
        for node in nodes:
            self.check_watch(node)
            self.check_memory(node, len(nodes))
            self.check_membership(node)

    def check_convergence(self, nodes: Sequence[Node]) -> None:
        """All trees, vectors and hashes are equal, and all is stored."""
        first = nodes[0]
        held = first.held()
        for node in nodes:
            name, theirs = node.name, node.held() if node.is_up else {}
            wrong = {
                "is down": not node.is_up,
                f"differs from {first.name}: {_diff(theirs, held)}": theirs != held,
                "has seen something else": node.store.seen != first.store.seen,
                "has not stored all": node.store.durable != node.store.seen,
                "hashes differently": node.network.root() != first.network.root(),
                "keeps tombstones": bool(node.store.tombstones),
            }
            for what, is_wrong in wrong.items():
                if is_wrong:
                    raise Broken(Check.CONVERGENCE, f"{name} {what}")

    def check_final_records(self, held: Held) -> None:
        """No promised write is missing, and what is there was issued and not refused.

        The final record is then the maximum over the promised writes and some of the others: it
        is one of them, and no promised one is above it.
        """
        for key, rank in self._promised.values():
            known = [held[key][0]] if key in held else []
            known += [self._reaped[key]] if key in self._reaped else []
            if not known or max(known) < rank:
                raise Broken(Check.FINAL_RECORD, f"{_name(key)}: {rank} was promised: {known}")
        for key, ((tock, rid, tick), chain, value) in held.items():
            if self._issued.get(Dot(rid, tick)) != (key, tock, chain, value):
                raise Broken(Check.FINAL_RECORD, f"{_name(key)}: nobody has written that")

    def check_resurrection(self, held: Held) -> None:
        """Nothing is there that is older than a tombstone that has gone."""
        for key, (rank, _, value) in held.items():
            if isinstance(value, bytes):
                self._look_for_dead(key, rank, "all nodes")

    def _look_for_dead(self, key: bytes, rank: Rank, where: str) -> None:
        """Look whether a record is older than a tombstone that has gone."""
        gone = self._reaped.get(key)
        if gone is not None and gone >= rank and not self.is_stranger(key, rank[1].node):
            raise Broken(Check.RESURRECTION, f"{_name(key)} on {where}: {rank} after {gone}")

    def is_stranger(self, key: bytes, node: str | None) -> bool:
        """Tell whether a tombstone went before everybody knew a node as a member.

        Nothing can be known of what such a one has written, which is no resurrection.

        Args:
            key: Of the tombstone.
            node: None for one that is not known.
        """
        return key in self._asked and node not in self._asked[key]

    def check_reports(self, nodes: Sequence[Node]) -> None:
        """Each change that lost to one that did not know it has its report.

        That is asked of the author alone, of what lost in its tree, in its present life and while
        its disk took writes; two equal values are no loss.
        """
        for node in nodes:
            for loser, winner in self.diaries[node.name].unreported.items():
                key = (CONFLICTS / node.name / self._links[loser][1]).key
                if node.store.get(key) is None:
                    detail = f"{node.name} does not say that {loser} lost to {winner}"
                    raise Broken(Check.SILENT_LOSS, detail)

    def check_watch(self, node: Node) -> None:
        """The watcher of a node has ended with its tree."""
        told = node.watcher.view
        store = node.store
        below = node.watcher.key
        there = {
            key: (entries.tock_of(packed), entries.value_of(packed))
            for key, packed in store.tree.items()
            if key.startswith(below) and entries.is_live(packed)
        }
        if told != there:
            raise Broken(Check.WATCH, f"on {node.name}: {_diff(told, there)}")

    def check_memory(self, node: Node, size: int) -> None:
        """Vectors, tables, the guard and what is under way are small.

        Args:
            node: Whose.
            size: How many nodes there are.
        """
        store, rows_max = node.store, ROWS_PER_NODE * size
        vectors = {"seen": store.seen, "taken": store.taken, "durable": store.durable}
        vectors |= node.network.peer_vectors()
        for name, vector in vectors.items():
            if len(vector) > rows_max:
                raise Broken(Check.MEMORY, f"{node.name}: vector {name} has {len(vector)} rows")
        links = {link for packed in node.packed() for link in entries.links_of(packed)}
        named = {link >> entries.TICK_BITS for link in links}
        if len(store.rids) > len(named) + len(vectors) * rows_max:
            raise Broken(Check.MEMORY, f"{node.name} has a table of {len(store.rids)} rids")
        if held := node.network.status()["held"]:
            raise Broken(Check.MEMORY, f"{node.name} holds back {held} records")
        if store.pending_count or store.pending_bytes:
            raise Broken(Check.MEMORY, f"{node.name} has {store.pending_count} writes under way")

    def check_membership(self, node: Node) -> None:
        """All nodes are there, so all are members in good standing."""
        members = node.network.members
        if not members.is_member:
            raise Broken(Check.EXPIRY, f"{node.name} is no member")
        if members.has_left:
            raise Broken(Check.JUDGEMENT, f"{node.name} is {members.standing.name.lower()}")


def _meaning(store: Store, key: bytes, packed: bytes) -> _Meaning:
    chain = entries.chain_of(packed, store.rids)
    return key, entries.tock_of(packed), chain, entries.value_of(packed)


def _name(key: bytes) -> str:
    return str(Path.from_key(key))


def _diff(one: Mapping[bytes, object], other: Mapping[bytes, object]) -> str:
    keys = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
    return "; ".join(f"{_name(key)}: {one.get(key)} {other.get(key)}" for key in keys[:3])
