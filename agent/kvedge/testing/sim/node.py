"""One board of a simulation: what a server does for its log and its network, without waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

from kvedge.errors import AgentError, StorageError, WriteRefused
from kvedge.model import entry as entries
from kvedge.model.chain import Chain
from kvedge.model.places import CONFLICTS
from kvedge.model.stamp import RANDOM_BITS, Rid, RidTable, generation_of, new_incarnation
from kvedge.model.value import Missing
from kvedge.model.vector import Vector
from kvedge.protocol.replication import Copied
from kvedge.server.commands import carry_out
from kvedge.server.fences import Fences
from kvedge.server.logs import loaded_from
from kvedge.server.network import Network
from kvedge.server.records import (
    Loaded,
    preamble,
    rank_of,
    seen_payloads,
    snapshot_payloads,
)
from kvedge.server.recovery import Saved
from kvedge.server.remote import Deputy, Write
from kvedge.server.store import Done as Told
from kvedge.server.store import Pending, Store
from kvedge.server.streams import Watchers
from kvedge.storage.commit import JournalWriter
from kvedge.storage.commit_queue import Done
from kvedge.storage.journal import Contents, Journal, Preamble
from kvedge.testing.disk import MemoryDisk, PowerCut
from kvedge.testing.sim.oracle import Rank
from kvedge.testing.sim.users import WINDOW, Watcher, Writer, chain_value
from kvedge.transport.broadcast import Counts, Message

if TYPE_CHECKING:
    from kvedge.testing.sim.cluster import Cluster

TICK_S = 0.25
"""How often timers are looked at; a real server does it more often."""

BASE_GAP = 1 << 14
"""Between the ticks of two lives as users see them; as a real server has it."""

EPOCH_S = 1_700_000_000.0
"""When a simulation begins."""


class NodeClock:
    """The clock of one board; implements `kvedge.clock.Clock`.

    Attributes:
        skew_s: How far the wall clock is off.
        is_set: Whether the board believes it.
        rate: How fast it runs; 1.0 is right.
        forgets: Whether the board has no clock that runs without power: it starts in 1970.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._booted_s = 0.0
        self.skew_s = 0.0
        self.is_set = True
        self.rate = 1.0
        self.forgets = False

    def boot(self) -> None:
        """Begin to count anew."""
        self._booted_s = self._cluster.now
        if self.forgets:
            self.skew_s, self.is_set = -EPOCH_S - self._cluster.now, False

    def set(self, skew_s: float = 0.0) -> None:
        """Be set, from then on."""
        self.skew_s, self.is_set = skew_s, True

    def wall_s(self) -> float:
        """Return the wall clock, as wrong as it is."""
        return EPOCH_S + self._cluster.now * self.rate + self.skew_s

    def wall_is_synchronised(self) -> bool:
        """Tell whether the board believes its clock."""
        return self.is_set

    def boottime_s(self) -> float:
        """Return the time since the board got power."""
        return (self._cluster.now - self._booted_s) * self.rate


class Line:
    """A node's way to the broker; implements `Broadcast`."""

    def __init__(self, node: Node, cluster: Cluster) -> None:
        self.counts = Counts()
        self._node = node
        self._cluster = cluster

    def publish(self, topic: str, payload: bytes) -> None:
        """Give a message to the broker."""
        self._cluster.publish(self._node, topic, payload)

    def close(self) -> None:
        """Do nothing: `Node.leave` says goodbye."""


class WitnessedStore(Store):
    """A store that tells the oracle what it stamps, refuses and reaps."""

    witness: Node

    def write(
        self,
        key: bytes,
        value: bytes | Missing,
        *,
        wall_ms: int | None,
        relaxed: bool,
        done: Told,
        tock: int | None = None,
        fence: entries.Fence | None = None,
    ) -> Pending:
        """Stamp a write."""
        try:
            pending = super().write(
                key, value, wall_ms=wall_ms, relaxed=relaxed, done=done, tock=tock, fence=fence
            )
        except WriteRefused:
            if key.startswith(CONFLICTS.key):
                self.witness.oracle.report_refused(self.witness)
            raise
        self.witness.oracle.issued(self.witness, pending)
        return pending

    def refuse(self, first: int) -> list[Pending]:
        """Forget writes that surely did not happen."""
        pendings = super().refuse(first)
        self.witness.oracle.refused(self.witness, pendings)
        return pendings

    def reap(self, key: bytes, stable: Vector) -> bool:
        """Remove a tombstone, if everybody has it."""
        packed = self.tree.get(key)
        is_gone = super().reap(key, stable)
        if is_gone and packed is not None:
            self.witness.oracle.reaped(self.witness, key, rank_of(packed, self.rids))
        return is_gone


class Node:
    """One board.

    Attributes:
        is_up: Whether it has power.
        connection: The number of its connection to the broker; None without one.
        will: What the broker says when it has gone.
        watchers: Who is told of changes.
        watcher: The one that is there.
    """

    network: Network
    store: WitnessedStore
    watcher: Watcher

    def __init__(self, cluster: Cluster, name: str, clock: NodeClock) -> None:
        self.name = name
        self.disk = MemoryDisk()
        self.clock = clock
        self.is_up = False
        self.connection: int | None = None
        self.will: Message | None = None
        self.oracle = cluster.oracle
        self._cluster = cluster
        self._life = self._connections = 0
        self._left_s: float | None = None

    @property
    def random(self) -> Random:
        """Where everything is drawn from."""
        return self._cluster.random

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Boot: read the disk, take a new incarnation, connect some time later."""
        cluster, random = self._cluster, self.random
        self._life += 1
        self.is_up, self._is_disk_due = True, False
        self.clock.boot()
        try:
            journal, contents = self._load()
        except StorageError:  # nothing of it can be read: somebody puts in an empty card
            self.disk = MemoryDisk()
            journal, contents = self._load()
        loaded = loaded_from(contents)
        generation = generation_of(contents.incarnation_max) + 1
        rid = Rid(self.name, new_incarnation(generation, random.getrandbits(RANDOM_BITS)))
        self.writer = JournalWriter(journal, self.clock, self._done)
        self.store = WitnessedStore(rid, self._base(loaded), loaded, self.writer)
        self.store.witness = self
        self.oracle.booted(self)
        self._begin(journal, rid, self.store.preamble)
        self.fences = Fences(self.store)
        self.network = Network(
            self.store,
            self,
            name="sim",
            key=b"the key of a simulation",
            root="sim",
            clock=self.clock,
            random=random,
            loaded=loaded,
            pace=cluster.pace,
        )
        self.participant = self.network.participant()
        self.network.join(Line(self, cluster))
        self._watch()
        self.after(random.uniform(0.01, 2), self.connect)
        if self.clock.forgets:
            self.after(random.uniform(1, 60), lambda: self.clock.set(cluster.true_skew_s))
        self._wake()

    def _load(self) -> tuple[Journal, Contents]:
        journal = Journal(self.disk, network="sim", new_salt=self._salt)
        return journal, journal.load()

    def _base(self, loaded: Loaded) -> int:
        known = [
            loaded.rids.base(loaded.rids.number(rid)) + loaded.seen.last(rid)
            for rid, _ in loaded.seen
            if rid.node == self.name
        ]
        return max(known) + BASE_GAP if known else self.random.getrandbits(20)

    def _begin(self, journal: Journal, rid: Rid, preamble: Preamble) -> None:
        base = self.store.base
        journal.begin(node=self.name, incarnation=rid.incarnation, base=base, preamble=preamble)

    def _salt(self) -> int:
        return self.random.getrandbits(32)

    def _watch(self) -> None:
        self.watchers = Watchers()
        self.watcher = Watcher(self, window=self.random.choice((0, WINDOW)))

    def crash(self, torn_bytes: int | None = None) -> None:
        """Lose power.

        Args:
            torn_bytes: How much of what was not synced has reached each file; None for any.
        """
        random = self.random
        self.is_up = False
        self._life += 1
        drawn = random.choice((0, 0, random.randrange(200)))
        self.disk.crash(
            torn_bytes=drawn if torn_bytes is None else torn_bytes,
            created_kept=random.random() < 0.5,
            removed_kept=random.random() < 0.5,
        )
        self._gone()
        self.oracle.crashed(self)

    def leave(self) -> Message | None:
        """End in good order; return what it says last."""
        farewell = None
        self.network.leave()
        if self.connection is not None and self.participant.farewell is not None:
            farewell = self.participant.farewell(self.connection)
        try:
            self.writer.close()
        except (PowerCut, OSError):
            self.disk.crash()
        self.is_up = False
        self._life += 1
        self._gone()
        self.oracle.crashed(self)
        return farewell

    # --- the broker ---------------------------------------------------------------------------

    def connect(self) -> None:
        """Have a connection to the broker."""
        if self.connection is None:
            self._connections += 1
            self.connection = self._connections
            assert self.participant.will is not None
            self.will = self.participant.will(self.connection)
            self.network.connected(self.connection)

    def disconnect(self) -> None:
        """Lose it, and find another one some time later."""
        if self.connection is not None:
            self._gone()
            self.network.disconnected("the broker was started again")
            self.after(self.random.uniform(0.1, 3), self.connect)

    def _gone(self) -> None:
        if self.connection is not None:
            self._left_s = self._cluster.now
        self.connection = None

    def gone_s(self) -> float:
        """Return for how long it has not been connected, in seconds."""
        return 0.0 if self.connection is not None else self._cluster.now - (self._left_s or 0.0)

    def missing_s(self, name: str) -> float:
        """Return for how long another node has not been connected, in seconds."""
        return self._cluster.node(name).gone_s()

    @property
    def expire_after_s(self) -> float:
        """After how long a member may be expired: it is counted in steps."""
        pace = self._cluster.pace
        return pace.expire_after_s - pace.count_interval_s

    # --- time -----------------------------------------------------------------------------

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call back in this life, if it lasts."""
        life = self._life

        def alive() -> None:
            if self.is_up and life == self._life:
                call()

        self._cluster.at(self._cluster.now + delay_s, alive)

    def _wake(self) -> None:
        """Let the timers speak, and come back."""
        self.network.tick()
        self.oracle.look(self)
        self.disk_soon()
        self.after(TICK_S, self._wake)

    def disk_soon(self) -> None:
        """Let the disk do its next step a moment later."""
        if not self._is_disk_due:
            self._is_disk_due = True
            self.after(self.random.uniform(0.0001, 0.005), self._disk_step)

    def _disk_step(self) -> None:
        self._is_disk_due = False
        try:
            went_on = self.writer.step()
        except PowerCut:
            self._cluster.crash(self)
            return
        if went_on:
            self.disk_soon()

    # --- what the network asks of its host ----------------------------------------------------

    def later(self, call: Callable[[], None]) -> None:
        """Call back when others have had their turn."""
        self.after(0.0, call)

    def wall_ms(self) -> int | None:
        """Return unix milliseconds, None while the clock is not synchronised."""
        return int(self.clock.wall_s() * 1000) if self.clock.is_set else None

    def is_awaited(self, key: bytes) -> bool:
        """Tell whether somebody still has to be told of the deletion at a key."""
        return self.watchers.is_awaited(key)

    def carry_out(self, request: Write, deputy: Deputy) -> None:
        """Make a write that another node asks for."""
        carry_out(request, deputy)
        self.disk_soon()

    def joined(self) -> None:
        """Do nothing: nobody waits for it."""

    def give_way(self) -> None:
        """Fail: the nodes of a simulation have names of their own."""
        raise AssertionError(f"{self.name} gives way to nobody")

    def begin_anew(self, rid: Rid, copied: Copied, saved: list[Saved]) -> None:
        """Set the tree aside and begin a new life with an empty one."""
        self.oracle.renewed(self, self._cluster.others(self), saved)
        self.later(lambda: self._renew(rid, copied, saved))

    def _renew(self, rid: Rid, copied: Copied, saved: list[Saved]) -> None:
        try:
            self.writer.close()
            journal, _ = self._load()
            store, ceiling = self.store, self.store.ceiling
            base = store.base + store.seen.last(store.rid) + BASE_GAP
            self._begin(journal, rid, lambda: preamble(RidTable(), ceiling))
            journal.set_aside()
        except (PowerCut, OSError):
            self._cluster.crash(self)
            return
        self.oracle.renewed(self, self._cluster.others(self), saved)
        self.oracle.has_begun_anew(self)
        journal, contents = self._load()
        self.writer = JournalWriter(journal, self.clock, self._done)
        self.store.begin(rid, base, loaded_from(contents), self.writer)
        self._begin(journal, rid, self.store.preamble)
        self.fences = Fences(self.store)
        self._watch()
        self.network.begin(copied, saved)
        self.disk_soon()

    # --- what happens ---------------------------------------------------------------------

    def write(
        self,
        key: bytes,
        value: bytes | Missing,
        *,
        relaxed: bool = False,
        fence: entries.Fence | None = None,
    ) -> None:
        """Be asked by a user, or by a job under a fence, to change something."""

        def done(error: AgentError | None) -> None:
            if error is None:
                rank = rank_of(pending.packed, self.store.rids)
                self.oracle.acknowledged(self, key, rank, relaxed=relaxed)

        with suppress(WriteRefused):
            pending = self.store.write(
                key, value, wall_ms=self.wall_ms(), relaxed=relaxed, done=done, fence=fence
            )
            self.disk_soon()

    def compare_and_set(self, key: bytes, value: bytes | Missing, *, delay_s: float) -> None:
        """Be asked to change what a user has seen, some time after that."""
        writer = Writer(self, key, chain_value(self, key))
        self.after(delay_s, lambda: writer.ask(value))

    def _done(self, report: Done) -> None:
        """Take what the log reports, as a server does."""
        store, writer = self.store, self.writer
        if report.refused is not None:
            writer.queue.resume()
            for pending in store.refuse(report.refused.first):
                pending.done(report.refused.error)
        if report.uncertain is not None:
            for tell in store.doubtful(report.uncertain.upto):
                tell(report.uncertain.error)
        for pending in store.confirm(written_to=report.written_to, synced_to=report.synced_to):
            self.oracle.settled(self, pending)
            if pending.has_won:
                self.fences.settled(pending.key, pending.packed)
            self.network.settled(pending)
            if pending.has_won:
                self.watchers.notify(pending.key, pending.packed)
            pending.done(None)
        self.oracle.tock_told(self)
        if report.snapshot is not None:
            with suppress(WriteRefused):
                writer.snapshot(report.snapshot, self._snapshot())
            writer.queue.snapshot_finished()

    def _snapshot(self) -> Iterable[bytes]:
        store = self.store
        told = [*seen_payloads(store.seen, store.rids), *self.network.told()]
        return snapshot_payloads(store.tree.items(), told)

    def packed(self) -> list[bytes]:
        """Return all packed entries of the tree."""
        return [packed for _, packed in self.store.tree.items()]

    def held(self) -> dict[bytes, tuple[Rank, Chain, bytes | Missing]]:
        """Return what the tree holds: rank, chain and value by key."""
        rids = self.store.rids
        return {
            key: (rank_of(packed, rids), entries.chain_of(packed, rids), entries.value_of(packed))
            for key, packed in self.store.tree.items()
        }
