"""The server among its peers: replication, members, presence and digests, over a broadcast.

What is decided stands in `protocol.replication`, `membership`, `presence`, `trickle` and
`envelope`; here their events are turned into messages and calls of the store.  Topics below the
network's root:

    u/NODE    new records of a node             d         digests, announced vectors
    p/NODE    it is there, or has gone          q/NODE    questions to a node, and its answers

A whole copy that has come (see `membership`) ends this life of the server: its host begins the
next one with it, and calls `begin`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any, Protocol

from kvedge import limits
from kvedge.clock import Clock
from kvedge.errors import AgentError, LimitExceeded, RemoteProtocolError, WriteRefused
from kvedge.model import entry as entries
from kvedge.model.places import FENCES
from kvedge.model.stamp import RANDOM_BITS, Rid, new_incarnation
from kvedge.model.value import MISSING, packb
from kvedge.model.vector import Vector
from kvedge.protocol.batches import Carried, read_body
from kvedge.protocol.calls import Calls
from kvedge.protocol.envelope import (
    VERSION_MINOR,
    Cause,
    Opened,
    Opener,
    Refused,
    Sealer,
    mac_key,
)
from kvedge.protocol.exchange import Kind, Outgoing
from kvedge.protocol.membership import (
    ANNOUNCE_INTERVAL_S,
    EXPIRE_AFTER_S,
    Admit,
    Fallen,
    Keep,
    Kept,
    Membership,
    Record,
    Standing,
    State,
)
from kvedge.protocol.presence import Beat, Presence, Seen, Unseen
from kvedge.protocol.presence import Event as PresenceEvent
from kvedge.protocol.replication import Arrived, Copied, Differs, Event, Replication, Way
from kvedge.protocol.trickle import Trickle
from kvedge.server.conflicts import Conflicts
from kvedge.server.faults import ServerFaults
from kvedge.server.fences import Fences
from kvedge.server.guard import ClockGuard
from kvedge.server.handover import HandOver
from kvedge.server.members import MEMBERS, member_entry, read_member
from kvedge.server.peers import StoreShelf
from kvedge.server.program import program_version, version_said
from kvedge.server.records import Loaded, kept_payload, unheard_payload
from kvedge.server.recovery import Saved, may_be_applied, unsynced
from kvedge.server.remote import Deputy, RemoteWrites, Told, Write, away
from kvedge.server.standing import among_peers
from kvedge.server.store import Done, Pending, Store
from kvedge.server.traffic import Taps
from kvedge.server.upkeep import RECOUNT_INTERVAL_S, Upkeep
from kvedge.transport.broadcast import Broadcast, Message, Participant

log = logging.getLogger(__name__)

COUNT_INTERVAL_S = 3600.0
"""How often it is counted for how long members were not heard: a crash costs that much."""

TELL_AHEAD_INTERVAL_S = 60.0
"""How often an author is told that its records are held."""

ANSWER_BEAT_MAX_S = 0.3
"""How soon a server beats that has heard a new one."""

COPY_AGAIN_S = 20.0
"""Between two whole copies of a tree: one that was of no use costs everybody's time."""

GIVE_WAY_AFTER_S = 3.0
"""A server that speaks for so long under our name is alive."""

GIVE_WAY_MAX_S = 30.0
"""It has had the time to take over what we have."""

TICK_MAX_S = 0.1
"""How often timers are looked at; a message may have made an earlier one."""

_KINDS = {kind.name.lower(): kind for kind in Kind}
_BEAT, _GONE, _BYE = "beat", "gone", "bye"
_QUIET = {Cause.OWN}  # usual on any broker


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a server does what is seldom necessary.

    Attributes:
        announce_interval_s: Between two announcements of a vector that changes.
        recount_interval_s: Between two looks at the whole tree.
        count_interval_s: Between two counts of for how long members were not heard.
        expire_after_s: For how long a member may be not heard, in our own running time.
    """

    announce_interval_s: float = ANNOUNCE_INTERVAL_S
    recount_interval_s: float = RECOUNT_INTERVAL_S
    count_interval_s: float = COUNT_INTERVAL_S
    expire_after_s: float = EXPIRE_AFTER_S


PACE = Pace()


class Host(Protocol):
    """The server that takes part."""

    def later(self, call: Callable[[], None]) -> None:
        """Call back when others have had their turn."""

    @property
    def fences(self) -> Fences:
        """The highest fence of each job."""

    def wall_ms(self) -> int | None:
        """Return unix milliseconds, None while the clock is not synchronised."""

    def is_awaited(self, key: bytes) -> bool:
        """Tell whether somebody still has to be told of the deletion at a key."""

    def carry_out(self, request: Write, deputy: Deputy) -> None:
        """Make a write that another server asks for; see `kvedge.server.remote`."""

    def joined(self) -> None:
        """Take note that all that another server had is in the tree, for the first time."""

    def give_way(self) -> None:
        """End: another server runs under our name, and is the younger one."""

    def begin_anew(self, rid: Rid, copied: Copied, saved: list[Saved]) -> None:
        """Set the tree aside, and begin a new life with an empty one.

        Args:
            rid: Its incarnation.
            copied: What it will hold; `Network.begin` wants it.
            saved: What only this server has had; to be written to a file.
        """


class Network:
    """One server's part in a network.  Implements the broadcast's handler.

    Attributes:
        refused: How many messages were refused, by cause.
        members: Who belongs to the network, and our standing in it.
        taps: Who listens to the traffic.
        name: Of the network.
        reason: Why there is no connection; None where there is one.
    """

    def __init__(
        self,
        store: Store,
        host: Host,
        *,
        name: str,
        key: bytes | None,
        root: str,
        clock: Clock,
        random: Random,
        loaded: Loaded,
        pace: Pace = PACE,
    ) -> None:
        self._store = store
        self._host = host
        self.name = name
        self._has_key = key is not None
        self.reason: str | None = "it was not tried yet"
        self._root = root
        self._clock = clock
        self._random = random
        self._pace = pace
        self._secret = mac_key(name, key)
        self._presence = Presence()
        self._trickle = Trickle(random, clock.boottime_s())
        self._broadcast: Broadcast | None = None
        self._connection = 0  # 0: there is none
        self._beat_s = 0.0
        self._fresh: list[Carried] = []
        self._asking: dict[str, Opened] = {}  # what they asked last
        self._admitting: dict[str, Record] = {}
        self._saved: list[Saved] = []  # to be written again when this was seen:
        self._copied = Vector()
        self._guard = ClockGuard()
        self._pulled: Vector | None = None  # what the first peer had that was asked
        self._has_joined = False
        self._whole: Copied | None = None  # a copy to begin the next life with
        self._is_ending = False
        self._unheard_told: set[str] = set()
        self._copy_s = 0.0  # when to take a whole copy, if one is needed
        self._told_s: dict[str, float] = {}  # whom we told that its clock is ahead
        self._handover: HandOver | None = None
        self._double: tuple[int, float, float] | None = None  # who, since when, heard when
        self._ticked_s = clock.boottime_s()
        self.refused: Counter[Cause] = Counter()
        self.taps = Taps()
        self._quiet_until: dict[Cause, float] = {}
        self._rid = Rid(store.rid.node, 0)  # none yet
        self._acts: dict[type[Any], Callable[[Any], None]] = {
            Outgoing: self.send,
            Arrived: self._arrived,
            Keep: self._keep,
            Admit: self._admit,
            Fallen: self._fall,
            Copied: self._anew,
            Differs: self._tell_difference,
        }
        self._begin_life(loaded.kept, loaded.unheard_s)
        if key is None:
            log.warning("the network %s has no key: whoever reaches its broker may write", name)

    def _begin_life(self, kept: dict[str, Kept], unheard_s: dict[str, float]) -> None:
        """Have the tree that the store has begun with."""
        store = self._store
        self._shelf = StoreShelf(store, self._guard)
        self._conflicts = Conflicts(store)
        self._faults = ServerFaults(store, self._clock, self._host.wall_ms)
        self.members = Membership(
            store.rid,
            store.durable,
            self._shelf.base,
            is_fresh=not store.seen.floors and all(rid == store.rid for rid, _ in store.seen),
            kept=kept,
            unheard_s=unheard_s,
            announce_interval_s=self._pace.announce_interval_s,
            expire_after_s=self._pace.expire_after_s,
        )
        for key, packed in store.tree.items():
            if key.startswith(MEMBERS):
                self._note_member(key, packed)
        now = self._clock.boottime_s()
        self._upkeep = Upkeep(
            store,
            self._shelf,
            self.members,
            self._host.is_awaited,
            now,
            recount_interval_s=self._pace.recount_interval_s,
        )
        self._speak_as(store.rid)
        store.tell_life()

    def _speak_as(self, rid: Rid) -> None:
        """Be this incarnation to the others."""
        if rid != self._rid:  # numbers of messages go on as long as it stays the same
            self._rid = rid
            self._sealer = Sealer(self.name, self._secret, rid)
            self._opener = Opener(self.name, self._secret, rid)
            self._calls = Calls(rid)
        self._replication = Replication(rid, self._shelf, self.members)
        host = self._host
        self._remote = RemoteWrites(
            self._calls, self._store, self._shelf, self.members, self, host.fences, host.wall_ms
        )

    def begin(self, copied: Copied, saved: list[Saved]) -> None:
        """Go on in a new life, for which the store has begun anew, with a copy.

        Args:
            copied: What the tree is to hold.
            saved: What to write again where nothing has changed since.
        """
        self._is_ending = False
        self._remote.end()
        kept, unheard_s = self.members.kept, self.members.unheard_s
        self._begin_life(kept, unheard_s)
        for node, what in kept.items():
            self._keep(Keep(node, what))
        self._merge(Arrived(copied.records, copied.bases, copied.seen, Way.PULL))
        self._saved, self._copied = saved, copied.seen
        self._trickle.restart(self._clock.boottime_s())
        log.warning("this board has begun anew with a copy of the network's tree")
        self._host.later(partial(self._faults.resolve, "standing"))

    @property
    def seen(self) -> list[str]:
        """The nodes that are there."""
        return sorted(self._presence.seen())

    def root(self) -> bytes:
        """Return a hash over the live entries, the same on equal servers."""
        return self._shelf.root()

    def told(self) -> list[bytes]:
        """Return what a snapshot says besides the tree: payloads of the log."""
        kept = self.members.kept.items()
        for _, what in kept:
            for rid, _ in what.vector:
                self._store.number_of(rid)
        return [
            *(kept_payload(node, what, self._store.rids) for node, what in kept),
            *(unheard_payload(*item) for item in self.members.unheard_s.items()),
        ]

    def peer_vectors(self) -> dict[str, Vector]:
        """Return what each member has announced that it has stored."""
        return {node: kept.vector for node, kept in self.members.kept.items()}

    def status(self) -> dict[str, Any]:
        """Return how we stand among our peers; see `kvedge.server.standing`."""
        told = among_peers(self._store, self.members, self._presence, self._clock.boottime_s())
        refused = {cause.value: n for cause, n in self.refused.items() if cause is not Cause.OWN}
        return told | {
            "name": self.name,
            "connected": self._connection != 0,
            "reason": self.reason,
            "standing": "copying" if self._replication.is_copying else told["standing"],
            "key": self._has_key,
            "refused": refused,
            "held": len(self._guard),
        }

    def version_of(self, node: str) -> str:
        """Return which version of the program another node runs; empty where that is not known."""
        return self._presence.version_of(node)

    def participant(self) -> Participant:
        """Return how we take part."""
        topics = ("u/+", "d", "p/+", f"q/{self._rid.node}")
        return Participant(
            self,
            tuple(f"{self._root}/{topic}" for topic in topics),
            will=lambda number: self._parting(_GONE, number),
            farewell=lambda number: self._parting(_BYE, number),
        )

    def join(self, broadcast: Broadcast) -> None:
        """Say what there is to say over this from now on."""
        self._broadcast = broadcast

    def _parting(self, kind: str, number: int) -> Message:
        topic = f"p/{self._rid.node}"
        body = packb((number,))
        sealed = self._sealer.seal(topic, kind, body, is_repeatable=True)
        return Message(f"{self._root}/{topic}", sealed)

    # --- what the broadcast tells -----------------------------------------------------------

    def connected(self, number: int) -> None:
        """Say that we are here, and soon what we have."""
        now = self._clock.boottime_s()
        self._connection, self.reason = number, None
        self._beat_s = 0.0
        self._trickle.restart(now)
        self.members.connected(now)
        self.send(self._replication.digest())  # who has something for us need not wait for a timer

    def leave(self) -> None:
        """Say what we have stored: the server is about to end."""
        now = self._clock.boottime_s()
        self._act(self.members.announce(self._store.durable, now, at_once=True))

    def disconnected(self, reason: str) -> None:
        """Work alone; the transport has said why."""
        self._connection, self.reason = 0, reason

    def received(self, topic: str, payload: bytes) -> None:
        """Take a message, if it is one for us."""
        if self._is_ending:
            return
        inner = topic.removeprefix(f"{self._root}/")
        opened = self._opener.open(inner, payload)
        self.taps.tell("in", inner, opened, size=len(payload), time_s=self._clock.wall_s())
        if isinstance(opened, Refused):
            self._note(opened)
            return
        try:
            self._take(opened)
        except RemoteProtocolError as error:
            self._note(Refused(Cause.BAD_BODY, f"{opened.kind}, {error.why}", opened.sender))

    def _note(self, refused: Refused) -> None:
        cause, now = refused.cause, self._clock.boottime_s()
        self.refused[cause] += 1
        if refused.newest is not None and refused.sender is not None:
            self._act(self.members.outlived(refused.sender, refused.newest, now))
        if cause in _QUIET or now < self._quiet_until.get(cause, 0.0):
            return
        self._quiet_until[cause] = now + limits.REFUSAL_TOLD_INTERVAL_S
        sender = f" of {refused.sender.node}" if refused.sender else ""
        count = self.refused[cause]
        told = f"refused a message{sender}: {cause.value}: {refused.detail} ({count} so far)"
        log.warning("%s", told)
        self._fault("messages", told)

    def _take(self, opened: Opened) -> None:
        now = self._clock.boottime_s()
        if opened.kind in (_BEAT, _GONE, _BYE):
            self._take_presence(opened, now)
            return
        kind = _KINDS.get(opened.kind)
        if kind is None:
            return  # of a newer minor version
        if opened.sender.node == self._rid.node:
            self._note_double(opened.sender.incarnation, now)
        if kind is Kind.AHEAD:
            self._take_ahead(opened)
        if kind is Kind.ASK:
            self._asking[opened.sender.node] = opened
        self._act(self._replication.receive(kind, opened.sender, opened.body, now))
        if kind is not Kind.VERDICT or not self._gives_way(now):
            self._act(self.members.receive(kind, opened.sender, opened.body, now))
        self._remote.receive(kind, opened.sender, opened.body)
        if kind is Kind.DIGEST and self._replication.is_consistent:
            self._trickle.heard_consistent()
        elif kind is Kind.DIGEST:
            self._trickle.heard_inconsistent(now)

    def _take_presence(self, opened: Opened, now: float) -> None:
        if opened.sender.node == self._rid.node:
            return
        number, *more = read_body(opened.body, 1)
        if type(number) is not int or number < 0:
            raise RemoteProtocolError("a beat has no number of a connection")
        beat = Beat(opened.sender, number, version_said(more))
        if opened.kind == _BEAT:
            events = self._presence.receive(beat, now)
        elif opened.kind == _GONE:
            events = self._presence.will(beat)
        else:
            events = self._presence.goodbye(beat.rid)
        self._tell(events)

    def _tell(self, events: list[PresenceEvent]) -> None:
        for event in events:
            if isinstance(event, Seen):
                log.info("node %s is there", event.node)
                now = self._clock.boottime_s()
                self._trickle.heard_inconsistent(now)
                # It has not heard us yet; not all of us answer at the same moment.
                self._beat_s = min(self._beat_s, now + self._random.random() * ANSWER_BEAT_MAX_S)
            elif isinstance(event, Unseen):
                log.warning("node %s is not there any more: %s", event.node, event.reason.value)
                self._replication.forget(event.node)

    # --- what the store tells ---------------------------------------------------------------

    def settled(self, write: Pending) -> None:
        """Take note of a write that the store has confirmed; tell others of our own."""
        self._shelf.settled(write)
        if write.has_won and write.key.startswith(MEMBERS):
            self._note_member(write.key, write.packed)
        self._remote.settled(write.packed)
        if write.has_won and write.key.startswith(FENCES.key):
            self._host.later(partial(self._note_fence, write.key, write.packed))
        if write.replaced is not None and (found := self._conflicts.of(write, self.members.kept)):
            self._host.later(partial(self._record_conflict, *found))
        if not write.is_own or self.members.has_left:
            return
        if not self._fresh:
            self._host.later(self._flush)
        self._fresh.append(self._shelf.carried(write.key, write.packed))

    def _note_fence(self, key: bytes, packed: bytes) -> None:
        """Record what we wrote too late; tell of a fence that is higher than what came."""
        fences = self._host.fences
        for place, late in fences.late_writes(key, packed):
            self._record_conflict(*self._conflicts.of_fence(place, late, packed))
        again = fences.to_tell_again(key, packed)
        if again is not None:
            wall_ms = self._host.wall_ms()
            with suppress(WriteRefused):
                number = packb(again.number)
                self._store.write(key, number, wall_ms=wall_ms, relaxed=True, done=_ignore)

    def _record_conflict(self, key: bytes, value: bytes) -> None:
        """Write down that a change of ours has lost to one that did not know it."""
        wall_ms = self._host.wall_ms()
        with suppress(WriteRefused):
            self._store.write(key, value, wall_ms=wall_ms, relaxed=True, done=_ignore)
            for old in self._conflicts.added(key):
                self._store.write(old, MISSING, wall_ms=wall_ms, relaxed=True, done=_ignore)

    def _flush(self) -> None:
        fresh, self._fresh = self._fresh, []
        for message in self._replication.updates(fresh):
            self.send(message)

    # --- time ---------------------------------------------------------------------------------

    def tick(self) -> float:
        """Do what is due; return for how long to wait before the next call, in seconds."""
        now = self._clock.boottime_s()
        self._tell(self._presence.expire(now))
        if self._is_ending:
            return TICK_MAX_S
        if self._whole is not None and not self._store.pending_count:
            self._end_life(self._whole)
            return TICK_MAX_S
        self._upkeep.tick(now)
        self._conflicts.look()
        self._count_time(now)
        for record, bases in self._guard.due(self._host.wall_ms()) if len(self._guard) else ():
            self._store.take(record, bases)
            if not len(self._guard):
                self._host.later(partial(self._faults.resolve, "clock"))
        if self._saved:
            self._apply_saved()
        if self._pulled and not self._has_joined and self._store.seen.covers(self._pulled):
            self._has_joined = True
            self._host.joined()
        self._remote.tick(now)  # also alone: who waits is told that no answer came
        if self._connection:
            self._speak(now)
        return TICK_MAX_S

    def _speak(self, now: float) -> None:
        """Say what is due."""
        if now >= self._beat_s:
            self._beat_s = now + limits.BEAT_INTERVAL_S
            body = packb((self._connection, program_version()))
            self._publish(f"p/{self._rid.node}", _BEAT, body)
        self._act(self.members.announce(self._store.durable, now))
        if self._trickle.expired(now):
            self.send(self._replication.digest())
        self._act(self._replication.expired(now))
        is_waiting = self._replication.is_copying or self._whole is not None
        if self.members.has_left and not is_waiting and now >= self._copy_s:
            self._copy(now)

    def _count_time(self, now: float) -> None:
        """Let running time pass; expire members of which nothing was heard for very long."""
        if now < self._ticked_s + self._pace.count_interval_s:
            return
        passed, self._ticked_s = now - self._ticked_s, now
        for node in self.members.passed(passed, self._presence.seen()):
            why = f"not heard for {self._pace.expire_after_s / 3600:.0f} h"
            log.warning("member %s is expired: %s", node, why)
            self._write_member(node, Record(State.EXPIRED), why)
        unheard = self.members.unheard_s
        for node in self._unheard_told | unheard.keys():
            self._store.tell(unheard_payload(node, unheard.get(node, 0)))
        self._unheard_told = set(unheard)

    # --- members --------------------------------------------------------------------------------

    def _note_member(self, key: bytes, packed: bytes) -> None:
        """Take note of what the tree says of a member."""
        node, record = read_member(key, entries.value_of(packed))
        if node is None:
            return
        if record is None:
            self.members.forget(node)
        else:
            self.members.records[node] = record

    def _write_member(
        self, node: str, record: Record, reason: str, done: Done | None = None
    ) -> None:
        key, value = member_entry(node, record, by=self._rid.node, reason=reason)
        wall_ms = self._host.wall_ms()
        try:
            self._store.write(key, value, wall_ms=wall_ms, relaxed=False, done=done or _ignore)
        except WriteRefused as error:
            (done or _ignore)(error)

    def _admit(self, admit: Admit) -> None:
        """Make nodes members, then look at their question again."""
        new = {n: r for n, r in admit.records.items() if self._admitting.get(n) != r}

        def done(node: str, error: AgentError | None) -> None:
            self._admitting.pop(node, None)
            if error is None and not self._admitting.keys() & admit.records.keys():
                for asker in admit.records:
                    opened = self._asking.pop(asker, None)
                    if opened is not None:
                        self._take(opened)

        self._admitting |= new
        for node, record in new.items():
            log.info("node %s becomes a member", node)
            self._write_member(node, record, "joined", partial(done, node))

    def _keep(self, keep: Keep) -> None:
        for rid, _ in keep.kept.vector:
            self._store.number_of(rid)
        self._store.tell(kept_payload(keep.node, keep.kept, self._store.rids))

    def _fall(self, fallen: Fallen) -> None:
        what = "has been expired while it was away"
        if fallen.standing is Standing.REGRESSED:
            lost = sum(last - first + 1 for _, rs in fallen.missing for first, last in rs)
            what = f"has less than it had before: {lost} changes are missing, or a life of it"
        said = f"this board {what} ({fallen.by.node} says so)"
        message = f"{said}: it takes a whole copy of the network's tree"
        self._fault("standing", message, is_logged=True)
        generation = self.members.next_generation(self._store.seen)
        life = new_incarnation(generation, self._random.getrandbits(RANDOM_BITS))
        rid = Rid(self._rid.node, life)
        self._double = self._handover = None
        self._remote.end()
        self.members.live_on(rid)
        self._speak_as(rid)
        self._beat_s = self._copy_s = 0.0

    def _copy(self, now: float) -> None:
        """Begin to take a whole copy, from whom is best."""
        seen = self._presence.seen()
        peers = [
            rid
            for node, rid in sorted(seen.items())
            if self.members.state(node) is not State.EXPIRED and node != self._rid.node
        ]
        good = [rid for rid in peers if self.members.standing_of(rid) is Standing.GOOD]
        if good:
            self._copy_s = now + COPY_AGAIN_S
            self._act(self._replication.copy(self._random.choice(good), now))

    def _anew(self, copied: Copied) -> None:
        if not self.members.has_left:
            return
        self._store.is_frozen = True  # what is under way is answered first
        self._whole = copied

    def _end_life(self, copied: Copied) -> None:
        """Hand everything to the host, which begins the next life; nothing happens meanwhile."""
        saved = unsynced(self._store, copied.seen)
        log.warning("the copy has %d entries; %d are ours alone", len(copied.records), len(saved))
        self._whole, self._is_ending = None, True
        self._host.begin_anew(self._rid, copied, saved)

    def stay(self) -> None:
        """Go on in this life after all: what only this board has cannot be saved."""
        self._is_ending = False

    def _apply_saved(self) -> None:
        """Write again what only this board had, once the copy is in the tree."""
        if not self._store.seen.covers(self._copied):
            return
        applied = 0
        for saved in self._saved:
            if may_be_applied(saved, self._store):
                wall_ms, value = self._host.wall_ms(), saved.entry.value
                self._store.write(saved.key, value, wall_ms=wall_ms, relaxed=False, done=_ignore)
                applied += 1
        log.warning(
            "of %d saved changes %d were made again; the others are in the file alone",
            len(self._saved),
            applied,
        )
        self._saved = []

    def _gives_way(self, now: float) -> bool:
        """Tell whether a younger server of our name is there: then verdicts are meant for it."""
        return self._double is not None and now < self._double[2] + limits.SILENCE_MAX_S

    def _note_double(self, incarnation: int, now: float) -> None:
        """Take note of a message of another server under our name.

        The one with the smaller incarnation gives way, once the other one is surely alive (last
        words of an earlier life come late) and has what this one has written.
        """
        if incarnation < self._rid.incarnation or self.members.has_left:
            return
        if self._double is None or self._double[0] != incarnation:
            self._double = incarnation, now, now
            message = f"another server runs under the name {self._rid.node}"
            self._fault("name", message, is_logged=True)
        since = self._double[1]
        self._double = incarnation, since, now
        younger = Rid(self._rid.node, incarnation)
        is_well = self.members.standing_of(younger) in (Standing.GOOD, Standing.UNSURE)
        if self._handover is None and is_well and now > since + GIVE_WAY_AFTER_S:
            self._handover = HandOver(
                self._store,
                lambda path, request, done: self._remote.ask(
                    younger, path, request, done, self._clock.boottime_s()
                ),
            )
        is_handed = self._handover is not None and self._handover.is_done
        if is_handed or now > since + GIVE_WAY_MAX_S:
            failed = "all" if self._handover is None else self._handover.failed
            log.warning("giving way; writes that could not be handed over: %s", failed)
            self._host.give_way()

    # --- writes that others make for us ---------------------------------------------------------

    def write_at(self, home: str, path: str, request: Write, done: Told) -> None:
        """Have a write made by the node that is the home of its place; see `RemoteWrites.ask`.

        Raises:
            NotConnected: The home is not there; nothing was done.
            LimitExceeded: It cannot be asked for; nothing was done.
        """
        rid = self._presence.seen().get(home)
        if rid is None or not self._connection:
            raise away(home, path)
        self._remote.ask(rid, path, request, done, self._clock.boottime_s())

    def carry_out(self, request: Write, deputy: Deputy) -> None:
        """Let the host make a write for another server."""
        self._host.carry_out(request, deputy)

    def merge(self, records: list[Carried], bases: dict[Rid, int]) -> None:
        """Take records that came with an answer."""
        self._merge(Arrived(records, bases))

    # --- doing ----------------------------------------------------------------------------------

    def _act(self, events: Sequence[Event]) -> None:
        for event in events:
            self._acts[type(event)](event)

    def _tell_difference(self, differs: Differs) -> None:
        buckets = f"repairing {len(differs.buckets)} buckets"
        message = f"{differs.peer.node} has seen the same and holds other entries: {buckets}"
        self._fault("tree", message, is_logged=True)

    def _fault(self, what: str, message: str, *, is_logged: bool = False) -> None:
        """Tell what is wrong: in the log, and in the tree, where `kv error` shows it."""
        if is_logged:
            log.error("%s", message)
        self._host.later(partial(self._faults.record, what, message))

    def _arrived(self, arrived: Arrived) -> None:
        """Merge records; those of a pull when the question for its next part is on its way."""
        if arrived.way is not Way.PULL:
            self._merge(arrived)
            return
        asker, refusals = self._replication, self._shelf.refusals
        self._host.later(partial(self._merge_pulled, arrived, asker, refusals))

    def _merge_pulled(self, arrived: Arrived, asker: Replication, refusals: int) -> None:
        if asker is not self._replication:
            return  # it was for another life
        if refusals != self._shelf.refusals:  # an earlier part may have been among them
            arrived = replace(arrived, seen=Vector())
        self._merge(arrived)

    def _merge(self, arrived: Arrived) -> None:
        wall_ms = self._host.wall_ms()
        for record in arrived.records:
            if self._guard.refuses(record, arrived.bases, wall_ms):
                self._tell_ahead(record)
            else:
                self._store.take(record, arrived.bases, arrived.way)
        if arrived.seen:
            seen = self._guard.without_held(arrived.seen)
            self._store.take_vector(seen)
            self._pulled = self._pulled or seen

    def _tell_ahead(self, record: Carried) -> None:
        """Tell the author of a record that its clock is ahead of ours; not too often."""
        node, incarnation = record.dot.rid
        now = self._clock.boottime_s()
        if now < self._told_s.get(node, -TELL_AHEAD_INTERVAL_S) + TELL_AHEAD_INTERVAL_S:
            return
        self._told_s[node] = now
        told = f"changes of {node} are more than an hour ahead of this board's clock:"
        self._fault("clock", f"{told} {len(self._guard)} are held", is_logged=True)
        self.send(Outgoing(Kind.AHEAD, node, packb((incarnation, record.tock))))

    def _take_ahead(self, opened: Opened) -> None:
        incarnation, tock = read_body(opened.body, 2)[:2]
        if incarnation == self._rid.incarnation and type(tock) is int:
            told = "holds changes of this board: they are more than an hour ahead of its clock;"
            message = f"{opened.sender.node} {told} see to the clocks of both"
            self._fault("clock", message, is_logged=True)

    def send(self, message: Outgoing) -> None:
        """Send a message to one or all."""
        to_all = f"u/{self._rid.node}" if message.kind is Kind.UPDATE else "d"
        topic = to_all if message.to is None else f"q/{message.to}"
        self._publish(topic, message.kind.name.lower(), message.body)

    def _publish(self, topic: str, kind: str, body: bytes) -> None:
        if self._broadcast is None or not self._connection:
            return
        try:
            sealed = self._sealer.seal(topic, kind, body)
        except LimitExceeded as error:
            log.error("a message is not sent: %s", error)
            return
        self._broadcast.publish(f"{self._root}/{topic}", sealed)
        told = Opened(self._rid, VERSION_MINOR, 0, kind, body)
        self.taps.tell("out", topic, told, size=len(sealed), time_s=self._clock.wall_s())


def _ignore(_: AgentError | None) -> None:
    """Stand for nobody who waits."""
