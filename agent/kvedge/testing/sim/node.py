"""One board of a simulation: what a server does for its log and its network, without waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from kvedge.errors import AgentError, StorageError, WriteRefused
from kvedge.model import entry as entries
from kvedge.model.stamp import RANDOM_BITS, Rid, RidTable, generation_of, new_incarnation
from kvedge.model.value import Missing
from kvedge.model.vector import Vector
from kvedge.protocol.replication import Copied
from kvedge.server.commands import carry_out
from kvedge.server.fences import Fences
from kvedge.server.logs import loaded_from
from kvedge.server.network import Network, Pace
from kvedge.server.records import preamble, rank_of, seen_payloads, snapshot_payloads
from kvedge.server.recovery import Saved
from kvedge.server.remote import Deputy, Write
from kvedge.server.store import Store
from kvedge.storage.commit import JournalWriter
from kvedge.storage.commit_queue import Done
from kvedge.storage.journal import Contents, Journal, Preamble
from kvedge.testing.disk import MemoryDisk, PowerCut
from kvedge.transport.broadcast import Counts, Message

if TYPE_CHECKING:
    from kvedge.testing.sim.cluster import Cluster

Rank = tuple[int, Rid, int]

TICK_S = 0.25
"""How often timers are looked at; a real server does it more often."""

PACE = Pace(announce_interval_s=20.0, recount_interval_s=20.0)
"""A run lasts for minutes, not for months."""

_EPOCH_S = 1_700_000_000.0


class NodeClock:
    """The clock of one board; implements `kvedge.clock.Clock`."""

    def __init__(self, cluster: Cluster, skew_s: float, *, is_set: bool) -> None:
        self._cluster = cluster
        self.skew_s = skew_s
        self.is_set = is_set

    def wall_s(self) -> float:
        """Return the wall clock, as wrong as it is."""
        return _EPOCH_S + self._cluster.now + self.skew_s

    def wall_is_synchronised(self) -> bool:
        """Tell whether the board believes its clock."""
        return self.is_set

    def boottime_s(self) -> float:
        """Return the time of the simulation."""
        return self._cluster.now


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
        """Do nothing: nodes do not leave."""


class WitnessedStore(Store):
    """A store that tells the cluster what it reaps."""

    witness: Cluster

    def reap(self, key: bytes, stable: Vector) -> bool:
        """Remove a tombstone, if everybody has it."""
        packed = self.tree.get(key)
        is_gone = super().reap(key, stable)
        if is_gone and packed is not None:
            self.witness.reaped(key, rank_of(packed, self.rids))
        return is_gone


class Node:
    """One board.

    Attributes:
        is_up: Whether it has power.
        connection: The number of its connection to the broker; None without one.
        will: What the broker says when it has gone.
        is_honest: Whether its disk has kept all that it promised, since it was looked at last.
    """

    def __init__(self, cluster: Cluster, name: str, clock: NodeClock) -> None:
        self.name = name
        self.disk = MemoryDisk()
        self.clock = clock
        self.is_up = False
        self.is_honest = True
        self.connection: int | None = None
        self.will: Message | None = None
        self.tock_shown = 0
        self._cluster = cluster
        self._life = self._connections = 0

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Boot: read the disk, take a new incarnation, connect some time later."""
        cluster, random = self._cluster, self._cluster.random
        self._life += 1
        self.is_up, self._is_disk_due = True, False
        try:
            journal, contents = self._load()
        except StorageError:  # nothing of it can be read: somebody puts in an empty card
            self.disk = MemoryDisk()
            journal, contents = self._load()
        loaded = loaded_from(contents)
        generation = generation_of(contents.incarnation_max) + 1
        rid = Rid(self.name, new_incarnation(generation, random.getrandbits(RANDOM_BITS)))
        self.writer = JournalWriter(journal, self.clock, self._done)
        self.store = WitnessedStore(rid, 0, loaded, self.writer)
        self.store.witness = cluster
        assert not self.is_honest or self.store.tock >= self.tock_shown, "the tock has fallen"
        self.tock_shown, self.is_honest = self.store.tock, True
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
            pace=PACE,
        )
        self.participant = self.network.participant()
        self.network.join(Line(self, cluster))
        self.after(random.uniform(0.01, 2), self.connect)
        self._wake()

    def _load(self) -> tuple[Journal, Contents]:
        journal = Journal(self.disk, network="sim", new_salt=self._salt)
        return journal, journal.load()

    def _begin(self, journal: Journal, rid: Rid, preamble: Preamble) -> None:
        journal.begin(node=self.name, incarnation=rid.incarnation, base=0, preamble=preamble)

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
        self.connection = None

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
            self.connection = None
            self.network.disconnected("the broker was started again")
            self.after(self._cluster.random.uniform(0.1, 3), self.connect)

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
        self.disk_soon()
        self.after(TICK_S, self._wake)

    def disk_soon(self) -> None:
        """Let the disk do its next step a moment later."""
        if not self._is_disk_due:
            self._is_disk_due = True
            self.after(self._cluster.random.uniform(0.0001, 0.005), self._disk_step)

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
        return self._cluster.is_awaited(self, key)

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
        self._cluster.may_be_lost(self)
        self._cluster.saved(saved)
        self.later(lambda: self._renew(rid, copied, saved))

    def _renew(self, rid: Rid, copied: Copied, saved: list[Saved]) -> None:
        try:
            self.writer.close()
            journal, _ = self._load()
            ceiling = self.store.ceiling
            self._begin(journal, rid, lambda: preamble(RidTable(), ceiling))
            journal.set_aside()
        except (PowerCut, OSError):
            self._cluster.crash(self)
            return
        self._cluster.may_be_lost(self)
        journal, contents = self._load()
        self.writer = JournalWriter(journal, self.clock, self._done)
        self.store.begin(rid, 0, loaded_from(contents), self.writer)
        self._begin(journal, rid, self.store.preamble)
        self.fences = Fences(self.store)
        self.network.begin(copied, saved)
        self.disk_soon()

    # --- what happens ---------------------------------------------------------------------

    def write(self, key: bytes, value: bytes | Missing, *, relaxed: bool) -> None:
        """Be asked by a user to change something."""
        cluster = self._cluster

        def done(error: AgentError | None) -> None:
            if error is None:
                rank = rank_of(pending.packed, self.store.rids)
                found = self.store.get(key)
                gone = cluster.reaped_rank(key)
                held = gone if found is None else rank_of(found, self.store.rids)
                assert held is not None, "a write has vanished"
                assert held >= rank, "a writer does not read its write"
                if not relaxed:
                    cluster.acknowledged(self, key, rank)

        try:
            pending = self.store.write(
                key, value, wall_ms=self.wall_ms(), relaxed=relaxed, done=done
            )
        except WriteRefused:
            return
        self.disk_soon()

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
            self._cluster.note(pending, store)
            if pending.has_won:
                self.fences.settled(pending.key, pending.packed)
            self.network.settled(pending)
            pending.done(None)
        self.tock_shown = max(self.tock_shown, store.tock)
        if report.snapshot is not None:
            with suppress(WriteRefused):
                writer.snapshot(report.snapshot, self._snapshot())
            writer.queue.snapshot_finished()

    def _snapshot(self) -> Iterable[bytes]:
        store = self.store
        told = [*seen_payloads(store.seen, store.rids), *self.network.told()]
        return snapshot_payloads(store.tree.items(), told)

    def held(self) -> dict[bytes, tuple[Rank, bytes | Missing]]:
        """Return what the tree holds: rank and value by key."""
        rids = self.store.rids
        return {
            key: (rank_of(packed, rids), entries.value_of(packed))
            for key, packed in self.store.tree.items()
        }
