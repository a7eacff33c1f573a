"""Some boards, their broker, their users and their fate, as events in one heap."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random

from kvedge.model import entry as entries
from kvedge.model.path import Path
from kvedge.model.stamp import Dot
from kvedge.model.value import MISSING, Missing, pack
from kvedge.protocol.membership import Record, Standing, State
from kvedge.server.members import MEMBERS, member_entry
from kvedge.server.recovery import Saved
from kvedge.server.store import Pending, Store
from kvedge.testing.disk import MemoryDisk
from kvedge.testing.sim.faults import Faults
from kvedge.testing.sim.node import PACE, Node, NodeClock, Rank
from kvedge.transport.broadcast import matches

_WILL_AFTER_S = 7.5  # one and a half keepalives of five seconds
_MEANING = tuple[bytes, int, bytes | Missing]


@dataclass
class Cluster:
    """Some boards, and what was promised to their users.

    Attributes:
        seed: What everything is drawn from.
        names: The nodes.
        faults: What goes wrong.
    """

    seed: int
    names: tuple[str, ...] = ("a", "b", "c")
    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.now = 0.0
        self.sent_bytes = self.sent_count = 0
        self.is_healed = False
        self._issued = 0
        self._promised: dict[Dot, tuple[bytes, Rank]] = {}
        self._known: dict[Dot, _MEANING] = {}
        self._reaped: dict[bytes, Rank] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._cut: set[tuple[str, str]] = set()
        self._images: dict[str, MemoryDisk] = {}
        self._broker_life = 0
        self._fates = {
            "split": self._split,
            "crash": self._cut_power,
            "broker": self.restart_broker,
            "step": self._step_clock,
            "snapshot": self._want_snapshot,
            "full": self._spoil_disk,
            "image": self._image,
            "flip": self._flip,
            "expire": self._expire,
            "forget": self._forget,
        }
        self.nodes = [Node(self, name, self._clock()) for name in self.names]
        for node in self.nodes:
            node.start()

    def _clock(self) -> NodeClock:
        is_set = self.random.random() < 0.7
        return NodeClock(self, self.random.choice((0.0, 0.0, 5.0, -86400.0)), is_set=is_set)

    # --- time ---------------------------------------------------------------------------------

    def at(self, time: float, call: Callable[[], None]) -> None:
        """Call something at a time."""
        heapq.heappush(self._events, (time, next(self._order), call))

    def run_until(self, end: float) -> None:
        """Let time pass."""
        while self._events and self._events[0][0] <= end:
            self.now, _, call = heapq.heappop(self._events)
            call()
        self.now = end

    # --- the broker ---------------------------------------------------------------------------

    def publish(self, sender: Node, topic: str, payload: bytes) -> None:
        """Take a message of a node that is connected."""
        if sender.connection is None:
            return
        self.sent_bytes += len(payload)
        self.sent_count += 1
        self._spread(sender, topic, payload)

    def _spread(self, sender: Node, topic: str, payload: bytes) -> None:
        for node in self.nodes:
            if node is sender or node.connection is None:
                continue
            if not any(matches(wanted, topic) for wanted in node.participant.filters):
                continue
            for _ in range(self._copies()):
                deliver = self._delivery(sender.name, node, topic, payload)
                self.at(self.now + self._delay(), deliver)

    def _copies(self) -> int:
        if self.is_healed:
            return 1
        if self.random.random() < self.faults.loss:
            return 0
        return 2 if self.random.random() < self.faults.twice else 1

    def _delay(self) -> float:
        if not self.is_healed and self.random.random() < self.faults.late:
            return self.random.uniform(0, self.faults.late_s)
        return self.random.uniform(0.0002, 0.01)

    def _delivery(self, sender: str, to: Node, topic: str, payload: bytes) -> Callable[[], None]:
        life, connection = self._broker_life, to.connection

        def deliver() -> None:
            is_there = to.is_up and to.connection == connection and life == self._broker_life
            if is_there and (sender, to.name) not in self._cut:
                to.network.received(topic, payload)

        return deliver

    def restart_broker(self) -> None:
        """Start it again with nothing remembered."""
        self._broker_life += 1
        for node in self.nodes:
            node.disconnect()

    # --- what nodes tell ------------------------------------------------------------------------

    def is_awaited(self, node: Node, key: bytes) -> bool:
        """Tell whether a watcher of a node has still to be told of a deletion."""
        return False

    def note(self, pending: Pending, store: Store) -> None:
        """Note what a dot stands for; the same dot must mean the same everywhere."""
        packed = pending.packed
        meaning = (pending.key, entries.tock_of(packed), entries.value_of(packed))
        known = self._known.setdefault(store.dot_of(packed), meaning)
        assert known == meaning, f"dot {store.dot_of(packed)} was used twice"

    def acknowledged(self, node: Node, key: bytes, rank: Rank) -> None:
        """Note what a user was promised."""
        self._promised[Dot(rank[1], rank[2])] = key, rank

    def may_be_lost(self, node: Node) -> None:
        """Let go of promises that one node alone could keep, for its disk is damaged or aside."""
        others = [other for other in self.nodes if other is not node]
        for dot in list(self._promised):
            if not any(dot in other.store.durable for other in others):
                del self._promised[dot]

    def saved(self, saved: Sequence[Saved]) -> None:
        """Let go of promises for what is in a file now, and for what that had replaced."""
        ranks = {one.key: one.entry.rank for one in saved}
        for dot, (key, rank) in list(self._promised.items()):
            if key in ranks and rank <= ranks[key]:
                del self._promised[dot]

    def reaped(self, key: bytes, rank: Rank) -> None:
        """Note that a tombstone has gone."""
        self._reaped[key] = max(rank, self._reaped.get(key, rank))

    def reaped_rank(self, key: bytes) -> Rank | None:
        """Return the newest tombstone of a key that has gone."""
        return self._reaped.get(key)

    # --- what users and fate do -----------------------------------------------------------

    def operate(self, count: int, keys: int = 30) -> None:
        """Let users do this many things while things go wrong."""
        for _ in range(count):
            self.run_until(self.now + self.random.expovariate(20))
            self._misfortune()
            node = self.random.choice(self.nodes)
            if not node.is_up:
                continue
            key = Path("k", self.random.randrange(keys)).key
            self._issued += 1
            value = MISSING if self.random.random() < 0.25 else pack(self._issued)
            node.write(key, value, relaxed=self.random.random() < 0.3)

    def _misfortune(self) -> None:
        for name, act in self._fates.items():
            if self.random.random() < getattr(self.faults, name):
                act()

    def _want_snapshot(self) -> None:
        self._pick().writer.queue.want_snapshot()

    def _pick(self) -> Node:
        return self.random.choice(self.nodes)

    def _split(self) -> None:
        if self.random.random() < 0.5:
            self._cut.clear()
            return
        one, other = self.random.sample(self.names, 2)
        self._cut.add((one, other))
        if self.random.random() < 0.7:
            self._cut.add((other, one))

    def _cut_power(self) -> None:
        node = self._pick()
        if node.is_up and self.random.random() < 0.5:
            self.crash(node)
        elif node.is_up:
            node.disk.power_left = self.random.randrange(12)

    def crash(self, node: Node) -> None:
        """Take a board's power, and give it back some time later."""
        will, connection = node.will, node.connection
        node.crash()
        if will is not None and connection is not None:
            said = will
            self.at(self.now + _WILL_AFTER_S, lambda: self._spread(node, said.topic, said.payload))
        self.at(self.now + self.random.uniform(0.1, 20), lambda: self._power(node))

    def _power(self, node: Node) -> None:
        if not node.is_up:
            node.start()

    def _step_clock(self) -> None:
        clock = self._pick().clock
        clock.is_set = self.random.random() < 0.7
        clock.skew_s = self.random.choice((0.0, 5.0, -5.0, -86400.0, -_EPOCH_AGE_S, 1800.0))

    def _spoil_disk(self) -> None:
        disk = self._pick().disk
        draw = self.random.random()
        if draw < 0.3:
            disk.capacity_bytes = 0
        elif draw < 0.5:
            disk.is_read_only = True
        elif draw < 0.6:
            disk.sync_failures = self.random.randrange(1, 4)
        else:
            disk.capacity_bytes, disk.is_read_only, disk.sync_failures = None, False, 0

    def _victim(self) -> Node | None:
        """Return a node that others can help: they are up, and trust themselves."""
        node = self._pick()
        others = [other for other in self.nodes if other is not node]
        are_well = all(
            other.is_up
            and other.network.members.standing is Standing.GOOD
            and other.network.members.is_member
            for other in others
        )
        return node if are_well and node.is_up and not node.store.is_frozen else None

    def _image(self) -> None:
        """Take an image of a board's card, or put an older one in."""
        node = self._victim()
        if node is None:
            return
        image = self._images.pop(node.name, None)
        if image is None:
            self._images[node.name] = deepcopy(node.disk)
            self._images[node.name].crash()
            return
        self.may_be_lost(node)
        self.crash(node)
        node.disk = image
        node.is_honest = False

    def _flip(self) -> None:
        """Cut the power and flip a bit of a file."""
        node = self._victim()
        if node is None:
            return
        self.may_be_lost(node)
        self.crash(node)
        node.is_honest = False
        names = [name for name in node.disk.names() if node.disk.read(name)]
        if names:
            name = self.random.choice(names)
            node.disk.flip(name, self.random.randrange(8 * len(node.disk.read(name))))

    def _expire(self) -> None:
        """Let an operator expire a member, or think better of it: that it needs not be away."""
        node = self._victim()
        if node is None:
            return
        by = self.random.choice([other for other in self.nodes if other is not node])
        key, value = member_entry(node.name, Record(State.EXPIRED), by=by.name, reason="by hand")
        by.write(key, value, relaxed=False)

    def _forget(self) -> None:
        """Lose an entry from memory, as a defect or a cosmic ray might have it."""
        node = self._victim()
        keys = (
            []
            if node is None
            else [
                key
                for key, packed in node.store.tree.items()
                if entries.is_live(packed) and not key.startswith(MEMBERS)
            ]
        )
        if node is not None and keys:
            self.may_be_lost(node)
            key = self.random.choice(sorted(keys))
            node.store.tree.drop(key)
            node.store.tombstones.pop(key, None)

    # --- the end --------------------------------------------------------------------------

    def heal(self, seconds: float = 6 * PACE.announce_interval_s) -> None:
        """End all faults and let the nodes become equal."""
        self.is_healed = True
        self._cut.clear()
        for node in self.nodes:
            disk = node.disk
            disk.power_left, disk.sync_failures = None, 0
            disk.capacity_bytes, disk.is_read_only = None, False
            node.clock.skew_s, node.clock.is_set = 0.0, True
        self.run_until(self.now + seconds)

    def check(self) -> None:
        """Raise AssertionError where a promise is broken."""
        first = self.nodes[0]
        held = first.held()
        for node in self.nodes:
            assert node.is_up, f"{node.name} is down"
            theirs = node.held()
            assert theirs == held, f"{node.name} and {first.name} differ: {_diff(theirs, held)}"
            assert node.store.seen == first.store.seen, f"{node.name} has seen something else"
            assert node.store.durable == node.store.seen, f"{node.name} has not stored all"
            assert node.network.root() == first.network.root(), f"{node.name} hashes differently"
            assert not node.store.tombstones, f"{node.name} keeps tombstones"
            rows = len(node.store.seen)
            assert rows <= 4 * len(self.names), f"{node.name}'s vector has {rows} rows"
        for key, rank in self._promised.values():
            found = held[key][0] if key in held else self._reaped.get(key)
            assert found is not None, f"{_name(key)}: a promised write has vanished"
            assert found >= rank, f"{_name(key)}: a promised write is lost"
        for key, (rank, value) in held.items():
            tock, rid, tick = rank
            assert self._known[Dot(rid, tick)] == (key, tock, value), "an entry that nobody wrote"
            gone = self._reaped.get(key)
            assert gone is None or gone < rank, f"{_name(key)} has risen from the dead"


_EPOCH_AGE_S = 1_700_000_000.0


def _name(key: bytes) -> str:
    return str(Path.from_key(key))


def _diff(one: Mapping[bytes, object], other: Mapping[bytes, object]) -> str:
    keys = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
    return "; ".join(f"{_name(key)}: {one.get(key)} {other.get(key)}" for key in keys[:3])


def run(
    seed: int,
    *,
    operations: int,
    names: tuple[str, ...] = ("a", "b", "c"),
    faults: Faults | None = None,
    keys: int = 30,
) -> Cluster:
    """Let a cluster live, heal it, and check it.

    Args:
        seed: What everything is drawn from.
        operations: How much users do.
        names: The nodes.
        faults: What goes wrong.
        keys: How many places they write to: few make conflicts, many show each loss.

    Raises:
        AssertionError: A promise is broken; its notes say how to repeat it.
    """
    cluster = Cluster(seed, names, faults or Faults())
    try:
        cluster.operate(operations, keys)
        cluster.heal()
        cluster.check()
    except Exception as error:
        error.add_note(f"seed {seed}: python -m kvedge.testing.sim {seed} {operations}")
        raise
    return cluster
