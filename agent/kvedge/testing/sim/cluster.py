"""Some boards, their broker, their users and their fate, as events in one heap."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random

from kvedge.model import entry as entries
from kvedge.model.value import MISSING, Missing, pack
from kvedge.protocol.membership import Record, Standing, State
from kvedge.server.members import MEMBERS, member_entry
from kvedge.server.network import Pace
from kvedge.testing.disk import MemoryDisk
from kvedge.testing.sim.faults import Faults, faults_text
from kvedge.testing.sim.node import EPOCH_S, Node, NodeClock
from kvedge.testing.sim.oracle import Oracle
from kvedge.testing.sim.users import BELOW
from kvedge.transport.broadcast import matches

PACE = Pace(announce_interval_s=20.0, recount_interval_s=20.0)
"""A run lasts for minutes, not for months."""

NAMES = ("a", "b", "c")

_WILL_AFTER_S = 7.5  # one and a half keepalives of five seconds
_DAY_S = 86400.0
_STEPS_S = (0.0, 5.0, -5.0, -_DAY_S, -EPOCH_S, 1800.0)


@dataclass(frozen=True, slots=True)
class Held:
    """Messages that a directed run holds back.

    Attributes:
        sender: Whose.
        to: For whom.
        topic: What their topics begin with, below the root.
        skip: How many pass first.
        size_min: How large they are, in bytes; smaller ones pass.
    """

    sender: str
    to: str
    topic: str
    skip: int = 0
    size_min: int = 0


@dataclass
class Cluster:
    """Some boards, and what happens to them.

    Attributes:
        seed: What everything is drawn from.
        names: The nodes.
        faults: What goes wrong.
        pace: How often servers do what is seldom necessary.
    """

    seed: int
    names: tuple[str, ...] = NAMES
    faults: Faults = field(default_factory=Faults)
    pace: Pace = PACE

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.oracle = Oracle()
        self.now = 0.0
        self.sent_bytes = self.sent_count = self.passed = 0
        self.is_healed = False
        self.true_skew_s = 0.0  # of the right time against that of the simulation
        self._issued = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._cut: set[tuple[str, str]] = set()
        self._holding: dict[Held, int] = {}
        self._held: list[tuple[str, Node, str, bytes]] = []
        self._matches: dict[tuple[tuple[str, ...], str], bool] = {}
        self._images: dict[str, MemoryDisk] = {}
        self._broker_life = 0
        self._fates = {
            "split": self._split,
            "crash": self._cut_power,
            "leave": self._leave,
            "broker": self.restart_broker,
            "step": self._step_clock,
            "ahead": self._step_ahead,
            "snapshot": self._want_snapshot,
            "slow": self._hurry,
            "full": self._spoil_disk,
            "image": self._image,
            "flip": self._flip,
            "expire": self._expire,
            "forget": self._forget,
        }
        self.nodes = [Node(self, name, self._clock()) for name in self.names]
        is_late = len(self.nodes) > 1 and self.random.random() < self.faults.join
        for node in self.nodes:
            if is_late and node is self.nodes[-1]:
                # It counts as there from the start: what it does not hold it has not seen.
                self.at(self.random.uniform(1, 40), lambda: self._power(self.nodes[-1]))
            else:
                node.start()

    def _clock(self) -> NodeClock:
        clock, random = NodeClock(self), self.random
        if random.random() < self.faults.wrong:
            clock.is_set = random.random() < 0.5
            clock.skew_s = random.choice((0.0, 5.0, -_DAY_S))
            clock.rate = random.choice((1.0, 1.0, 0.98, 1.02))
            clock.forgets = random.random() < 0.3
        return clock

    def node(self, name: str) -> Node:
        """Return the node of a name."""
        return self.nodes[self.names.index(name)]

    def others(self, node: Node) -> list[Node]:
        """Return the other nodes that have ever had power."""
        return [other for other in self.nodes if other is not node and hasattr(other, "store")]

    def add(self, name: str) -> Node:
        """Add a node, and give it power."""
        self.names = (*self.names, name)
        node = Node(self, name, self._clock())
        self.nodes.append(node)
        node.start()
        return node

    # --- time ---------------------------------------------------------------------------------

    def at(self, time: float, call: Callable[[], None]) -> None:
        """Call something at a time."""
        heapq.heappush(self._events, (time, next(self._order), call))

    def run_until(self, end: float) -> None:
        """Let time pass."""
        while self._events and self._events[0][0] <= end:
            self.step()
        self.now = end

    def step(self) -> None:
        """Let the next event happen."""
        self.now, _, call = heapq.heappop(self._events)
        self.passed += 1
        call()

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        self.run_until(self.now + seconds)

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
            if node is sender or node.connection is None or not self._wants(node, topic):
                continue
            if self._is_held(sender.name, node.name, topic, len(payload)):
                self._held.append((sender.name, node, topic, payload))
                continue
            for _ in range(self._copies()):
                deliver = self._delivery(sender.name, node, topic, payload)
                self.at(self.now + self._delay(), deliver)

    def _wants(self, node: Node, topic: str) -> bool:
        key = node.participant.filters, topic
        if key not in self._matches:
            self._matches[key] = any(matches(wanted, topic) for wanted in key[0])
        return self._matches[key]

    def hold(self, sender: str, to: str, topic: str, *, skip: int = 0, size_min: int = 0) -> None:
        """Hold messages back until `release`; see `Held`."""
        self._holding[Held(sender, to, f"sim/{topic}", skip, size_min)] = 0

    def _is_held(self, sender: str, to: str, topic: str, size: int) -> bool:
        for held in self._holding:
            is_theirs = (held.sender, held.to) == (sender, to)
            if is_theirs and topic.startswith(held.topic) and size >= held.size_min:
                self._holding[held] += 1
                return self._holding[held] > held.skip
        return False

    def release(self) -> None:
        """Deliver what was held back, in order, and hold no more."""
        self._holding.clear()
        held, self._held = self._held, []
        for number, (sender, node, topic, payload) in enumerate(held):
            deliver = self._delivery(sender, node, topic, payload)
            self.at(self.now + 0.001 * number, deliver)

    def cut(self, *pairs: tuple[str, str]) -> None:
        """Let nothing pass from one node to another, for these pairs alone."""
        self._cut = set(pairs)

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

    # --- what users and fate do -----------------------------------------------------------

    def operate(self, count: int, keys: int = 30) -> None:
        """Let users do this many things while things go wrong."""
        random = self.random
        for _ in range(count):
            self.run_until(self.now + random.expovariate(20))
            self._misfortune()
            node = random.choice(self.nodes)
            if not node.is_up:
                continue
            key = (BELOW / random.randrange(keys)).key
            draw = random.random()
            if draw < 0.2:
                for _ in range(random.choice((1, 2))):
                    delay_s = random.uniform(0, 0.05)
                    node.compare_and_set(key, self._value(), delay_s=delay_s)
            else:
                node.write(key, self._value(), relaxed=random.random() < 0.3)
                other = random.choice(self.nodes)
                if draw < 0.25 and other.is_up:  # somebody else, in the same moment
                    other.write(key, self._value())
            node.oracle.read(node, (BELOW / random.randrange(keys)).key)

    def _value(self) -> bytes | Missing:
        self._issued += 1
        return MISSING if self.random.random() < 0.25 else pack(self._issued)

    def _misfortune(self) -> None:
        for name, act in self._fates.items():
            chance = getattr(self.faults, name)
            if chance and self.random.random() < chance:
                act()

    def _want_snapshot(self) -> None:
        node = self._pick()
        if node.is_up:
            node.writer.queue.want_snapshot()

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

    def crash(self, node: Node, torn_bytes: int | None = None) -> None:
        """Take a board's power, and give it back some time later."""
        will, connection = node.will, node.connection
        node.crash(torn_bytes)
        if will is not None and connection is not None:
            said = will
            self.at(self.now + _WILL_AFTER_S, lambda: self._spread(node, said.topic, said.payload))
        self.at(self.now + self.random.uniform(0.1, 20), lambda: self._power(node))

    def _power(self, node: Node) -> None:
        if not node.is_up:
            node.start()

    def _leave(self) -> None:
        node = self._pick()
        if node.is_up:
            self.leave(node)

    def leave(self, node: Node) -> None:
        """End a server in good order, and start it again some time later."""
        said = node.leave()
        if said is not None:
            self._spread(node, said.topic, said.payload)
        self.at(self.now + self.random.uniform(0.1, 20), lambda: self._power(node))

    def _hurry(self) -> None:
        node = self._pick()
        if node.is_up:
            node.watcher.hurry(is_quick=self.random.random() < 0.5)

    def _step_clock(self) -> None:
        clock = self._pick().clock
        clock.is_set = self.random.random() < 0.7
        clock.skew_s = self.random.choice(_STEPS_S)

    def _step_ahead(self) -> None:
        self._pick().clock.set(_DAY_S)

    def _spoil_disk(self) -> None:
        node = self._pick()
        disk = node.disk
        self.oracle.spoiled(node)
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
            self._images[node.name] = image_of(node)
            return
        self.restore(node, image)

    def restore(self, node: Node, image: MemoryDisk) -> None:
        """Take a board's power and put in another card."""
        self.oracle.cheated(node, self.others(node))
        self.crash(node)
        node.disk = image

    def _flip(self) -> None:
        """Cut the power and flip a bit of a file."""
        node = self._victim()
        if node is None:
            return
        self.oracle.cheated(node, self.others(node))
        self.crash(node)
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
        by.write(key, value)

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
            self.oracle.cheated(node, self.others(node))
            key = self.random.choice(sorted(keys))
            node.store.tree.drop(key)
            node.store.tombstones.pop(key, None)

    # --- the end --------------------------------------------------------------------------

    def heal(self, seconds: float = 0.0) -> None:
        """End all faults and let the nodes become equal.

        Days have passed then: what clocks have stamped that were ahead is so no more.

        Args:
            seconds: For how long; 0 for as long as it takes to announce and forget all there is.
        """
        self.is_healed = True
        self.true_skew_s = 2 * _DAY_S
        self._cut.clear()
        self._holding.clear()
        for node in self.nodes:
            disk = node.disk
            disk.power_left, disk.sync_failures = None, 0
            disk.capacity_bytes, disk.is_read_only = None, False
            node.clock.forgets, node.clock.rate = False, 1.0
            node.clock.set(self.true_skew_s)
            if node.is_up:
                node.watcher.hurry(is_quick=True)
        self.run(seconds or 6 * self.pace.announce_interval_s)

    def check(self) -> None:
        """Raise `Broken` where a promise is broken."""
        self.oracle.check(self.nodes)


def image_of(node: Node) -> MemoryDisk:
    """Return an image of a board's card."""
    image = deepcopy(node.disk)
    image.crash()
    return image


def command(
    seed: int, *, operations: int, names: tuple[str, ...], faults: Faults, keys: int
) -> str:
    """Return the command that repeats a run."""
    return (
        f"python -m kvedge.testing.sim {seed} --operations {operations} --nodes {len(names)}"
        f" --keys {keys} --faults {faults_text(faults)}"
    )


def run(
    seed: int,
    *,
    operations: int,
    names: tuple[str, ...] = NAMES,
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
        Broken: A promise is broken; its notes say how to repeat it.
    """
    faults = faults or Faults()
    cluster = Cluster(seed, names, faults)
    try:
        cluster.operate(operations, keys)
        cluster.heal()
        cluster.check()
    except Exception as error:
        said = command(seed, operations=operations, names=names, faults=faults, keys=keys)
        error.add_note(f"seed {seed}, after {cluster.now:.3f} s; again by: {said}")
        raise
    return cluster
