"""The server among its peers: replication, presence and digests, over a broadcast.

What is decided stands in `protocol.replication`, `presence`, `trickle` and `envelope`; here their
events are turned into messages and calls of the store.  Topics below the network's root:

    u/NODE    new records of a node             d         digests
    p/NODE    it is there, or has gone          q/NODE    questions to a node, and its answers
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from random import Random

from kvedge import limits
from kvedge.clock import Clock
from kvedge.errors import LimitExceeded, RemoteProtocolError
from kvedge.model.stamp import Rid
from kvedge.model.value import packb
from kvedge.protocol.batches import Carried, read_body
from kvedge.protocol.envelope import Cause, Opened, Opener, Refused, Sealer, mac_key
from kvedge.protocol.presence import Beat, Presence, Seen, Unseen
from kvedge.protocol.presence import Event as PresenceEvent
from kvedge.protocol.replication import Arrived, Event, Kind, Outgoing, Replication
from kvedge.protocol.trickle import Trickle
from kvedge.server.peers import StoreShelf
from kvedge.server.store import Pending, Store
from kvedge.transport.broadcast import Broadcast, Message, Participant

log = logging.getLogger(__name__)

TICK_MAX_S = 0.1
"""How often timers are looked at; a message may have made an earlier one."""

_KINDS = {kind.name.lower(): kind for kind in Kind}
_BEAT, _GONE, _BYE = "beat", "gone", "bye"
_QUIET = {Cause.OWN, Cause.REPLAYED}  # usual on any broker


class Network:
    """One server's part in a network.  Implements the broadcast's handler.

    Attributes:
        refused: How many messages were refused, by cause.
    """

    def __init__(
        self,
        store: Store,
        *,
        name: str,
        key: bytes | None,
        root: str,
        clock: Clock,
        random: Random,
        later: Callable[[Callable[[], None]], None],
    ) -> None:
        self._store = store
        self._rid = store.rid
        self._root = root
        self._clock = clock
        self._later = later
        self._shelf = StoreShelf(store)
        self._replication = Replication(store.rid, self._shelf)
        self._presence = Presence()
        self._trickle = Trickle(random, clock.boottime_s())
        secret = mac_key(name, key)
        self._sealer = Sealer(name, secret, store.rid)
        self._opener = Opener(name, secret, store.rid)
        self._broadcast: Broadcast | None = None
        self._connection = 0  # 0: there is none
        self._beat_s = 0.0
        self._fresh: list[Carried] = []
        self.refused: Counter[Cause] = Counter()
        if key is None:
            log.warning("the network %s has no key: whoever reaches its broker may write", name)

    @property
    def seen(self) -> dict[str, Rid]:
        """The other nodes that are there."""
        return self._presence.seen()

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
        self._connection = number
        self._beat_s = 0.0
        self._trickle.restart(self._clock.boottime_s())

    def disconnected(self, _: str) -> None:
        """Work alone; the transport has said why."""
        self._connection = 0

    def received(self, topic: str, payload: bytes) -> None:
        """Take a message, if it is one for us."""
        inner = topic.removeprefix(f"{self._root}/")
        opened = self._opener.open(inner, payload)
        if isinstance(opened, Refused):
            self._note(opened)
            return
        try:
            self._take(opened)
        except RemoteProtocolError as error:
            log.warning("a message of %s is not taken: %s", opened.sender.node, error)

    def _note(self, refused: Refused) -> None:
        self.refused[refused.cause] += 1
        if refused.cause not in _QUIET and self.refused[refused.cause] == 1:
            log.warning("refused a message that is %s %s", refused.cause.value, refused.detail)

    def _take(self, opened: Opened) -> None:
        now = self._clock.boottime_s()
        if opened.kind in (_BEAT, _GONE, _BYE):
            self._take_presence(opened, now)
            return
        kind = _KINDS.get(opened.kind)
        if kind is None:
            return  # of a newer minor version
        self._act(self._replication.receive(kind, opened.sender, opened.body, now))
        if kind is Kind.DIGEST and self._replication.is_consistent:
            self._trickle.heard_consistent()
        elif kind is Kind.DIGEST:
            self._trickle.heard_inconsistent(now)

    def _take_presence(self, opened: Opened, now: float) -> None:
        number = read_body(opened.body, 1)[0]
        if type(number) is not int or number < 0:
            raise RemoteProtocolError("a beat has no number of a connection")
        beat = Beat(opened.sender, number)
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
                self._trickle.heard_inconsistent(self._clock.boottime_s())
            elif isinstance(event, Unseen):
                log.warning("node %s is not there any more: %s", event.node, event.reason.value)
                self._replication.forget(event.node)

    # --- what the store tells ---------------------------------------------------------------

    def settled(self, write: Pending) -> None:
        """Take note of a write that the store has confirmed; tell others of our own."""
        self._shelf.settled(write)
        if not write.is_own:
            return
        if not self._fresh:
            self._later(self._flush)
        self._fresh.append(self._shelf.carried(write.key, write.packed))

    def _flush(self) -> None:
        fresh, self._fresh = self._fresh, []
        for message in self._replication.updates(fresh):
            self._send(message)

    # --- time ---------------------------------------------------------------------------------

    def tick(self) -> float:
        """Do what is due; return for how long to wait before the next call, in seconds."""
        now = self._clock.boottime_s()
        self._tell(self._presence.expire(now))
        if not self._connection:
            return TICK_MAX_S
        if now >= self._beat_s:
            self._beat_s = now + limits.BEAT_INTERVAL_S
            self._publish(f"p/{self._rid.node}", _BEAT, packb((self._connection,)))
        if self._trickle.expired(now):
            self._send(self._replication.digest())
        self._act(self._replication.expired(now))
        return TICK_MAX_S

    # --- doing ----------------------------------------------------------------------------------

    def _act(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Outgoing):
                self._send(event)
            else:
                self._merge(event)

    def _merge(self, arrived: Arrived) -> None:
        for record in arrived.records:
            self._store.take(record, arrived.bases)
        self._store.take_vector(arrived.seen)

    def _send(self, message: Outgoing) -> None:
        topic = {
            Kind.UPDATE: f"u/{self._rid.node}",
            Kind.DIGEST: "d",
        }.get(message.kind, f"q/{message.to}")
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
