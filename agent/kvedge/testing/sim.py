"""A cluster in a heap: the production code of store, journal and replication, from one seed.

Nothing here waits and nothing asks the time: network, disks, clocks and users are events in one
heap, drawn from one `Random`, so that a run can be repeated from its seed and thousands of
virtual seconds pass in one.  The network loses, doubles, delays and reorders messages and splits
one way or both; boards lose power between any two operations of their disk, come back with a
torn file, and have clocks that are wrong or not set.

After the run everything is healed, and the oracle of `Cluster.check` speaks.
"""

from __future__ import annotations

import heapq
import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from kvedge.errors import AgentError
from kvedge.model import entry as entries
from kvedge.model.path import Path
from kvedge.model.stamp import RANDOM_BITS, Rid, generation_of, new_incarnation
from kvedge.model.value import MISSING, Missing, pack
from kvedge.protocol.replication import Arrived, Event, Kind, Outgoing, Replication
from kvedge.protocol.trickle import Trickle
from kvedge.server.peers import StoreShelf
from kvedge.server.records import Loaded, load_file, rank_of
from kvedge.server.store import Store
from kvedge.storage.commit import JournalWriter
from kvedge.storage.commit_queue import Done
from kvedge.storage.journal import Journal
from kvedge.testing.disk import MemoryDisk, PowerCut


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong, as chances per message or operation.

    Attributes:
        loss: A message is lost.
        twice: It comes twice.
        late: It takes up to `late_s` instead of milliseconds.
        late_s: How late that is.
        split: Two nodes are cut off from each other, per operation.
        crash: A board loses power, per operation.
    """

    loss: float = 0.05
    twice: float = 0.05
    late: float = 0.05
    late_s: float = 3.0
    split: float = 0.01
    crash: float = 0.005


class _NodeClock:
    """The clock of one board; implements `kvedge.clock.Clock`."""

    def __init__(self, cluster: Cluster, skew_s: float, *, is_set: bool) -> None:
        self._cluster = cluster
        self._skew_s = skew_s
        self._is_set = is_set

    def wall_s(self) -> float:
        return 1_700_000_000.0 + self._cluster.now + self._skew_s

    def wall_is_synchronised(self) -> bool:
        return self._is_set

    def boottime_s(self) -> float:
        return self._cluster.now

    def wall_ms(self) -> int | None:
        return int(self.wall_s() * 1000) if self._is_set else None


class Node:
    """One board."""

    def __init__(self, cluster: Cluster, name: str, clock: _NodeClock) -> None:
        self.name = name
        self.disk = MemoryDisk()
        self.clock = clock
        self.is_up = False
        self._cluster = cluster
        self._life = 0

    def start(self) -> None:
        """Boot: read the disk, take a new incarnation, connect."""
        self._life += 1
        self.is_up = True
        journal = Journal(self.disk, network="sim", new_salt=self._salt)
        contents = journal.load()
        loaded = Loaded()
        for file in contents.files:
            load_file(loaded, file.payloads)
        random = self._cluster.random
        generation = generation_of(contents.incarnation_max) + 1
        incarnation = new_incarnation(generation, random.getrandbits(RANDOM_BITS))
        self.writer = JournalWriter(journal, self.clock, self._done)
        self.store = Store(Rid(self.name, incarnation), 0, loaded, self.writer)
        journal.begin(node=self.name, incarnation=incarnation, base=0, preamble=self.store.preamble)
        self.shelf = StoreShelf(self.store)
        self.replication = Replication(self.store.rid, self.shelf)
        self.trickle = Trickle(random, self._cluster.now)
        self._waiting: list[tuple[int, Arrived]] = []
        self._wake()

    def _salt(self) -> int:
        return self._cluster.random.getrandbits(32)

    def crash(self) -> None:
        """Lose power."""
        random = self._cluster.random
        self.is_up = False
        self._life += 1
        self.disk.crash(
            torn_bytes=random.choice((0, 0, random.randrange(200))),
            created_kept=random.random() < 0.5,
            removed_kept=random.random() < 0.5,
        )

    # --- time -----------------------------------------------------------------------------

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call back in this life, if it lasts."""
        life = self._life

        def alive() -> None:
            if self.is_up and life == self._life:
                call()

        self._cluster.at(self._cluster.now + delay_s, alive)

    def _wake(self) -> None:
        """Let the timers speak, and come back when the next one is due."""
        now = self._cluster.now
        if self.trickle.expired(now):
            self._act([self.replication.digest()])
        self._act(self.replication.expired(now))
        times = (self.trickle.next_deadline(), self.replication.next_deadline())
        due = min(time for time in times if time is not None)
        self.later(max(0.001, min(due - now, 0.5)), self._wake)

    def disk_soon(self) -> None:
        """Let the disk do its next step a moment later."""
        self.later(self._cluster.random.uniform(0.0001, 0.005), self._disk_step)

    def _disk_step(self) -> None:
        try:
            went_on = self.writer.step()
        except PowerCut:
            self._cluster.crash(self)
            return
        wait_s = self.writer.wait_s()
        if went_on:
            self.disk_soon()
        elif wait_s is not None:
            self.later(wait_s + 0.001, self._disk_step)

    # --- what happens ---------------------------------------------------------------------

    def write(self, key: bytes, value: bytes | Missing, *, relaxed: bool) -> None:
        """Be asked by a user to change something."""
        cluster = self._cluster
        cluster.issue(key, value)

        def done(error: AgentError | None) -> None:
            if error is None and not relaxed:
                cluster.acknowledged.append((key, rank_of(pending.packed, self.store.rids)))

        pending = self.store.write(
            key, value, wall_ms=self.clock.wall_ms(), relaxed=relaxed, done=done
        )
        cluster.note(key, pending.packed, self.store)
        self.disk_soon()

    def _done(self, report: Done) -> None:
        for write in self.store.confirm(written_to=report.written_to, synced_to=report.synced_to):
            self.shelf.settled(write)
            write.done(None)
            if write.is_own:
                record = self.shelf.carried(write.key, write.packed)
                self._act(self.replication.updates([record]))

    def receive(self, sender: Rid, message: Outgoing) -> None:
        """Take a message of the network."""
        now = self._cluster.now
        events = self.replication.receive(message.kind, sender, message.body, now)
        if message.kind == Kind.DIGEST:
            if self.replication.is_consistent:
                self.trickle.heard_consistent()
            else:
                self.trickle.heard_inconsistent(now)
        self._act(events)

    def _act(self, events: list[Event] | list[Outgoing]) -> None:
        for event in events:
            if isinstance(event, Outgoing):
                self._cluster.send(self, event)
            else:
                self._take(event)

    def _take(self, arrived: Arrived) -> None:
        for record in arrived.records:
            self.store.take(record, arrived.bases)
        self.store.take_vector(arrived.seen)
        self.disk_soon()

    def held(self) -> dict[bytes, tuple[tuple[int, Rid, int], bytes | Missing]]:
        """Return what the tree holds: rank and value by key."""
        rids = self.store.rids
        return {
            key: (rank_of(packed, rids), entries.value_of(packed))
            for key, packed in self.store.tree.items()
        }


@dataclass
class Cluster:
    """Some boards, their network, and what users did.

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
        self.acknowledged: list[tuple[bytes, tuple[int, Rid, int]]] = []
        self._issued: dict[int, tuple[bytes, bytes | Missing]] = {}
        self._known: dict[tuple[Rid, int], tuple[bytes, int, bytes | Missing]] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._cut: set[tuple[str, str]] = set()
        self.is_healed = False
        self.nodes = [Node(self, name, self._clock()) for name in self.names]
        for node in self.nodes:
            node.start()

    def _clock(self) -> _NodeClock:
        is_set = self.random.random() < 0.7
        return _NodeClock(self, self.random.choice((0.0, 0.0, 5.0, -86400.0)), is_set=is_set)

    # --- time and network -----------------------------------------------------------------

    def at(self, time: float, call: Callable[[], None]) -> None:
        """Call something at a time."""
        heapq.heappush(self._events, (time, next(self._order), call))

    def run_until(self, end: float) -> None:
        """Let time pass."""
        while self._events and self._events[0][0] <= end:
            self.now, _, call = heapq.heappop(self._events)
            call()
        self.now = end

    def send(self, sender: Node, message: Outgoing) -> None:
        """Give a message to the network."""
        self.sent_bytes += len(message.body)
        self.sent_count += 1
        rid = sender.store.rid
        for node in self.nodes:
            if node is sender or message.to not in (None, node.name):
                continue
            for _ in range(self._copies()):
                self.at(self.now + self._delay(), self._delivery(rid, node, message))

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

    def _delivery(self, sender: Rid, to: Node, message: Outgoing) -> Callable[[], None]:
        def deliver() -> None:
            if to.is_up and (sender.node, to.name) not in self._cut:
                to.receive(sender, message)

        return deliver

    # --- what users and fate do -----------------------------------------------------------

    def issue(self, key: bytes, value: bytes | Missing) -> int:
        """Note that a user asked for something; return its number."""
        number = len(self._issued)
        self._issued[number] = (key, value)
        return number

    def note(self, key: bytes, packed: bytes, store: Store) -> None:
        """Note what a dot stands for; the same dot must mean the same everywhere."""
        _, rid, tick = rank_of(packed, store.rids)
        meaning = (key, entries.tock_of(packed), entries.value_of(packed))
        assert self._known.setdefault((rid, tick), meaning) == meaning, "a dot was used twice"

    def crash(self, node: Node) -> None:
        """Take a board's power, and give it back some time later."""
        node.crash()
        self.at(self.now + self.random.uniform(0.1, 20), node.start)

    def operate(self, count: int, keys: int = 30) -> None:
        """Let users do this many things while things go wrong."""
        for _ in range(count):
            self.run_until(self.now + self.random.expovariate(20))
            self._misfortune()
            node = self.random.choice(self.nodes)
            if not node.is_up:
                continue
            key = Path("k", self.random.randrange(keys)).key
            number = len(self._issued)
            value = MISSING if self.random.random() < 0.25 else pack(number)
            node.write(key, value, relaxed=self.random.random() < 0.3)

    def _misfortune(self) -> None:
        draw = self.random.random
        if draw() < self.faults.split:
            one, other = self.random.sample(self.names, 2)
            self._cut.add((one, other))
            if draw() < 0.7:
                self._cut.add((other, one))
        if draw() < self.faults.split:
            self._cut.clear()
        up = [node for node in self.nodes if node.is_up]
        if up and draw() < self.faults.crash:
            self.crash(self.random.choice(up))
        elif up and draw() < self.faults.crash:
            self.random.choice(up).disk.power_left = self.random.randrange(12)

    # --- the end --------------------------------------------------------------------------

    def heal(self, seconds: float = 300.0) -> None:
        """End all faults and let the nodes become equal."""
        self.is_healed = True
        self._cut.clear()
        for node in self.nodes:
            node.disk.power_left = None
        self.run_until(self.now + seconds)

    def check(self) -> None:
        """Raise AssertionError where a promise is broken."""
        first = self.nodes[0]
        held = first.held()
        for node in self.nodes:
            assert node.is_up, f"{node.name} is down"
            assert node.held() == held, f"{node.name} and {first.name} differ"
            assert node.store.seen == first.store.seen, f"{node.name} has seen something else"
            assert node.shelf.root() == first.shelf.root(), f"{node.name} hashes differently"
        for key, rank in self.acknowledged:
            assert held[key][0] >= rank, f"{Path.from_key(key)}: an acknowledged write is lost"
        for key, (rank, value) in held.items():
            tock, rid, tick = rank
            assert self._known[rid, tick] == (key, tock, value), "an entry that nobody wrote"


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
    except AssertionError as error:
        error.add_note(f"seed {seed}: python -m kvedge.testing.sim {seed} {operations}")
        raise
    return cluster


def main(words: Sequence[str]) -> None:
    """Repeat one seed: SEED [OPERATIONS]."""
    seed, operations = int(words[0]), int(words[1]) if len(words) > 1 else 1000
    cluster = run(seed, operations=operations)
    sys.stdout.write(
        f"seed {seed}: {len(cluster.nodes)} nodes are equal after {cluster.now:.0f} s, "
        f"{cluster.sent_count} messages, {cluster.sent_bytes} bytes\n"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
