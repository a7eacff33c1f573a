"""The tree of one server, the writes that are under way, and the clock that stamps them.

A write is stamped at once and handed to the log; it becomes visible, is told to watchers and is
answered when the log says that it is durable as its mode wants.  Until then it is *pending*:
readers see the tree without it, while writers (compare-and-set) see the newest pending entry, so
that compare-and-set is linearizable on one server.

When the disk refuses, the pending writes vanish as if they had never been asked for: their ticks
are used again, since nobody saw them.  When the disk fails after it may have written, they stay
pending until it can tell.

Three vectors tell how far a change has come: *taken* (on its way to the disk), *seen* (visible),
*durable* (there after a power cut).

No tock above the ceiling is shown; the ceiling is in the log before, so that tock does not fall
across a power cut.  No waiting and no I/O here: the log is handed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from kvedge.errors import AgentError, WriteRefused
from kvedge.model import entry as entries
from kvedge.model.stamp import Dot, Rid, next_tock
from kvedge.model.tree import Tree
from kvedge.model.value import Missing
from kvedge.model.vector import Vector
from kvedge.protocol.batches import Carried
from kvedge.protocol.replication import Way
from kvedge.server.records import (
    Loaded,
    ceiling_payload,
    preamble,
    rank_of,
    record_payload,
    rid_payload,
    seen_payloads,
)

_CEILING_STEP = 2000 << 16  # two seconds: what a restart may put the clock ahead
_CEILING_STEP_BLIND = 1 << 16  # without a right clock tocks are counted, not timed


Done = Callable[[AgentError | None], None]


class CommitLog(Protocol):
    """Where records become durable."""

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        """Take a payload; return its running number."""
        ...


@dataclass(slots=True)
class Pending:
    """A write under way.

    Attributes:
        number: What the log calls it.
        key: Where.
        packed: The entry to be.
        old: The packed entry that it replaces, None where there is none.
        done: Called with None when it is visible, or with the error that it met.
        is_own: Whether it was made here, not by another server.
        is_counted: Whether it counts as seen when it is stored.
        has_won: Whether the tree holds it; another server's may have come in between.
        replaced: What the tree held before; None for nothing.
    """

    number: int
    key: bytes
    packed: bytes
    old: bytes | None
    done: Done
    is_own: bool = True
    is_counted: bool = True
    has_won: bool = False
    replaced: bytes | None = None


class Store:
    """The tree and its writes.

    Attributes:
        tree: What readers see.
        rids: The numbers of rids in packed entries.
        seen: All dots this server has seen.
        taken: Those on their way to the disk included.
        durable: Those that are on the disk alone.
        tombstones: The keys of deleted entries, in the order in which they came.
        refusals: How often the disk refused some.
        is_frozen: Whether writes are refused for the moment, since the tree is being replaced.
    """

    def __init__(self, rid: Rid, base: int, loaded: Loaded, log: CommitLog) -> None:
        self.refusals = 0
        self._tock = 0
        self.begin(rid, base, loaded, log)

    def begin(self, rid: Rid, base: int, loaded: Loaded, log: CommitLog) -> None:
        """Hold what was loaded and nothing else, under a new rid; the tock does not fall.

        Nothing may be under way.
        """
        self.rid = rid
        self.base = base
        self.tree = Tree()
        self.tree.fill(loaded.entries)
        self.tombstones = {
            key: None for key, packed in loaded.entries.items() if not entries.is_live(packed)
        }
        self.rids = loaded.rids
        self.seen = loaded.seen
        self.taken = loaded.seen.copy()
        self.durable = loaded.seen.copy()
        self.is_frozen = False
        self._log = log
        self._tock = max(loaded.tock, self._tock)
        self._ceiling = self._ceiling_safe = loaded.tock
        self._ceiling_number = 0
        self._tick = 0
        # By the number of a rid, the log's number of the payload that tells it.  A new segment
        # begins with all that were there at its start.
        self._announced = {number: 0 for number, *_ in loaded.rids.rows()}
        self._numbers_used: set[int] | None = None  # those in use, while somebody looks
        self._safe: deque[Pending] = deque()  # wait for the disk
        self._quick: deque[Pending] = deque()  # relaxed: wait for the file
        self._newest: dict[bytes, bytes] = {}
        self._doubted = 0
        self._vectors: deque[tuple[int, Vector]] = deque()  # count once this number is synced
        self._unsynced: deque[tuple[int, Dot]] = deque()  # visible, but not on the disk
        self._last = self._synced = 0  # numbers of the log
        self._waiting_bytes = 0

    @property
    def tock(self) -> int:
        """The largest tock that may be shown: a restart does not fall behind it."""
        return min(self._tock, self._ceiling_safe)

    @property
    def ceiling(self) -> int:
        """No tock above it has been shown."""
        return max(self._ceiling, self._tock)

    @property
    def tick_shown(self) -> int:
        """The newest visible change of this node, as users count; pending ones may vanish."""
        return self.base + self.seen.last(self.rid)

    @property
    def pending_bytes(self) -> int:
        """How much the entries of the writes under way take; those in doubt do not count."""
        return self._waiting_bytes

    @property
    def pending_count(self) -> int:
        """How many writes are under way; those in doubt have been answered and do not count."""
        return len(self._safe) + len(self._quick) - self._doubted

    def preamble(self) -> list[bytes]:
        """Return what a new file of the log begins with; may be called from its thread."""
        return preamble(self.rids, self._ceiling)

    def get(self, key: bytes) -> bytes | None:
        """Return the packed entry that readers see."""
        return self.tree.get(key)

    def newest(self, key: bytes) -> bytes | None:
        """Return the packed entry that a write would replace, pending ones included."""
        return self._newest.get(key) or self.tree.get(key)

    def shown_links(self, packed: bytes) -> list[tuple[str, int]]:
        """Return the chain of a packed entry as users see it: (node, tick), newest first."""
        parts = map(entries.link_parts, entries.links_of(packed))
        return [(self.rids.node(n), self.rids.base(n) + tick) for n, tick in parts]

    def write(
        self,
        key: bytes,
        value: bytes | Missing,
        *,
        wall_ms: int | None,
        relaxed: bool,
        done: Done,
        tock: int | None = None,
        fence: entries.Fence | None = None,
    ) -> Pending:
        """Stamp a write and hand it to the log.

        Args:
            key: Where.
            value: The packed value, MISSING to delete.
            wall_ms: The wall clock, None while it is not synchronised.
            relaxed: Whether to be done as soon as the file has it.
            done: Called when it is visible, or has failed.
            tock: When it was made, for one that is loaded from elsewhere; None for now.
            fence: Under which right it is made; the caller has checked it.

        Raises:
            WriteRefused: The tree is being replaced.
        """
        if self.is_frozen:
            raise WriteRefused("the server is taking a whole copy of its network; try again")
        old = self.newest(key)
        tock = self._next_tock(wall_ms) if tock is None else self._raised_to(tock)
        self._tick += 1
        link = entries.link(self._own_number(), self._tick)
        packed = entries.join(tock, entries.extended_links(old, link, self.rids), value, fence)
        # The first one is durable: who has heard of this life must find it again after a crash.
        is_begun = self.durable.last(self.rid) > 0
        quick = relaxed and is_begun and key not in self._newest and tock <= self._ceiling_safe
        number = self._log.submit(record_payload(key, packed), durable=not quick)
        self._last = number
        pending = Pending(number, key, packed, old, done)
        (self._quick if quick else self._safe).append(pending)
        self._waiting_bytes += len(packed)
        self._newest[key] = packed
        self.taken.add(Dot(self.rid, self._tick))
        return pending

    def take(self, record: Carried, bases: Mapping[Rid, int], way: Way = Way.UPDATE) -> None:
        """Hand another server's record to the log, unless it is known.

        It becomes visible like a relaxed write, where it wins.  The tock moves up to its own.

        Args:
            record: The record.
            bases: Of the rids that it names.
            way: How it came: what is pulled is counted as seen by `take_vector`.
        """
        dot, tock = record.dot, record.tock
        is_known = dot in self.taken or dot.rid == self.rid
        if is_known and way is not Way.REPAIR:
            return  # only we make changes under our own rid
        if way is not Way.UPDATE:
            current = self.newest(record.key)
            if current is not None and rank_of(current, self.rids) >= record.rank:
                return
        if way is Way.UPDATE:
            self.taken.add(dot)
        self._raised_to(tock)
        links = tuple([entries.link(self._number_of(d.rid, bases), d.tick) for d in record.chain])
        packed = entries.join(tock, links, record.value, record.fence)
        quick = tock <= self._ceiling_safe
        number = self._log.submit(record_payload(record.key, packed), durable=not quick)
        self._last = number
        pending = Pending(number, record.key, packed, None, _ignore, is_own=False)
        pending.is_counted = way is Way.UPDATE
        self._waiting_bytes += len(packed)
        (self._quick if quick else self._safe).append(pending)

    def take_vector(self, seen: Vector) -> None:
        """Count as seen what a peer had seen, once all that was taken up to now is stored."""
        new = seen.minus(self.seen)
        for node, floor in seen.floors.items():
            if floor > self.seen.floors.get(node, 0):
                new.close(node, floor)
        if new:
            self._submit_vector(new)

    def close(self, floors: Mapping[str, int]) -> None:
        """Count as seen all changes of nodes' generations below these."""
        new = Vector()
        for node, floor in floors.items():
            new.close(node, floor)
        if new:
            self._submit_vector(new)

    def _submit_vector(self, new: Vector) -> None:
        for rid, _ in new:
            self._number_of(rid, {})
        for payload in seen_payloads(new, self.rids):
            self._last = self._log.submit(payload)
        self._vectors.append((self._last, new))

    def tell(self, payload: bytes) -> None:
        """Hand something to the log that is of use after a restart, and nobody waits for."""
        self._log.submit(payload, durable=False)

    def tell_life(self) -> None:
        """Hand our rid to the log, so that the next life knows of this one."""
        self._own_number()

    def number_of(self, rid: Rid) -> int:
        """Return the number of a rid in payloads; the log is told of it."""
        return self._number_of(rid, {})

    def _settle_vectors(self) -> None:
        while self._vectors and self._vectors[0][0] <= self._synced:
            _, seen = self._vectors.popleft()
            for vector in (self.seen, self.taken, self.durable):
                vector.merge(seen)

    def _number_of(self, rid: Rid, bases: Mapping[Rid, int]) -> int:
        before = self.rids.base_of(rid)
        number = self.rids.number(rid, bases.get(rid, 0))
        if self.rids.base(number) != before:  # the log knows it without its base, if at all
            self._announced.pop(number, None)
        return self._announced_number(number)

    def _announced_number(self, number: int) -> int:
        self._announce(number)
        if self._numbers_used is not None:
            self._numbers_used.add(number)
        return number

    def _announce(self, number: int) -> None:
        """Make sure that the open segment says what a rid's number stands for."""
        if number not in self._announced:
            payload = rid_payload(number, self.rids.rid(number), self.rids.base(number))
            self._announced[number] = self._log.submit(payload, vital=True)

    def _own_number(self) -> int:
        return self._announced_number(self.rids.number(self.rid, self.base))

    def _next_tock(self, wall_ms: int | None) -> int:
        tock = next_tock(self._tock, wall_ms)
        self._raise_ceiling(tock, _CEILING_STEP_BLIND if wall_ms is None else _CEILING_STEP)
        self._tock = tock
        return tock

    def _raised_to(self, tock: int) -> int:
        """Return a tock that was given elsewhere; ours does not stay behind it."""
        self._tock = max(self._tock, tock)
        self._raise_ceiling(tock, _CEILING_STEP_BLIND)
        return tock

    def _raise_ceiling(self, tock: int, step: int) -> None:
        if tock > self._ceiling:
            self._ceiling = tock + step
            self._ceiling_number = self._log.submit(ceiling_payload(self._ceiling), vital=True)

    def confirm(self, *, written_to: int, synced_to: int) -> list[Pending]:
        """Make the writes visible that the log now has; return them, in order.

        Args:
            written_to: All payloads up to this number are in the file.
            synced_to: All payloads up to this number are on the disk.
        """
        self._synced = synced_to
        if synced_to >= self._ceiling_number:
            self._ceiling_safe = self._ceiling
        ready = _take(self._quick, max(written_to, synced_to)) + _take(self._safe, synced_to)
        self._doubted -= sum(map(_is_doubted, ready))
        self._waiting_bytes -= sum(len(p.packed) for p in ready if not _is_doubted(p))
        for pending in ready:
            self._settle(pending)
            if self._newest.get(pending.key) is pending.packed:
                del self._newest[pending.key]
            if not pending.is_counted:
                continue
            dot = self.dot_of(pending.packed)
            self.seen.add(dot)
            if pending.number <= synced_to:
                self.durable.add(dot)
            else:
                self._unsynced.append((pending.number, dot))
        while self._unsynced and self._unsynced[0][0] <= synced_to:
            self.durable.add(self._unsynced.popleft()[1])
        self._settle_vectors()
        return ready

    def dot_of(self, packed: bytes) -> Dot:
        """Return the change that made a packed entry."""
        number, tick = entries.link_parts(entries.links_of(packed)[0])
        return Dot(self.rids.rid(number), tick)

    def _settle(self, pending: Pending) -> None:
        """Let the tree hold what wins: between stamp and disk another server's may have come."""
        current = self.tree.get(pending.key)
        pending.has_won = current is None or rank_of(current, self.rids) < rank_of(
            pending.packed, self.rids
        )
        pending.replaced = current
        if pending.has_won:
            self.tree.put(pending.key, pending.packed)
            self.tombstones.pop(pending.key, None)
            if not entries.is_live(pending.packed):
                self.tombstones[pending.key] = None

    def reap(self, key: bytes, stable: Vector) -> bool:
        """Remove a tombstone, if everybody has it and nothing is under way; tell whether."""
        packed = self.tree.get(key)
        if packed is None or entries.is_live(packed) or key in self._newest:
            return False
        if self.dot_of(packed) not in stable:
            return False
        self.tree.drop(key)
        del self.tombstones[key]
        return True

    def note_numbers(self) -> None:
        """Begin to note which numbers of rids are handed out, for `retain_numbers`."""
        under_way = (*self._quick, *self._safe)
        self._numbers_used = {number for p in under_way for number in _writers_of(p.packed)}

    def retain_numbers(self, numbers: set[int]) -> None:
        """Forget the rids that nothing names.

        Args:
            numbers: Those that entries have named since `note_numbers`.
        """
        assert self._numbers_used is not None
        used = numbers | self._numbers_used
        for pending in (*self._quick, *self._safe):
            used.update(_writers_of(pending.packed))
        for vector in (self.seen, *(seen for _, seen in self._vectors)):
            used.update(self.rids.number(rid) for rid, _ in vector)
        self.rids.retain(used)
        self._announced = {n: at for n, at in self._announced.items() if n in used}
        self._numbers_used = None

    def doubtful(self, up_to: int) -> list[Done]:
        """Return whom to tell that the writes up to a number are uncertain; they stay pending."""
        waiting = (p for p in (*self._quick, *self._safe) if not _is_doubted(p))
        found = [p for p in waiting if p.number <= up_to]
        self._doubted += len(found)
        self._waiting_bytes -= sum(len(pending.packed) for pending in found)
        asking = [pending.done for pending in found]
        for pending in found:
            pending.done = _nobody
        return asking

    def refuse(self, first: int) -> list[Pending]:
        """Forget all writes from a number on; return them, in order."""
        failed = sorted(
            (p for p in (*self._quick, *self._safe) if p.number >= first),
            key=lambda pending: pending.number,
        )
        self._quick = deque(p for p in self._quick if p.number < first)
        self._safe = deque(p for p in self._safe if p.number < first)
        rest = sorted((*self._quick, *self._safe), key=lambda pending: pending.number)
        self._newest = {p.key: p.packed for p in rest if p.is_own}
        self._doubted = sum(map(_is_doubted, rest))
        self._tick -= sum(pending.is_own for pending in failed)
        self._vectors = deque(vector for vector in self._vectors if vector[0] < first)
        self._last = min(self._last, first - 1)
        self.refusals += 1
        self.taken = self.seen.copy()
        for pending in rest:
            if pending.is_counted:
                self.taken.add(self.dot_of(pending.packed))
        # What was announced is not in the log: announce it again before it is needed.
        self._announced = {n: at for n, at in self._announced.items() if at < first}
        if self._ceiling_number >= first:
            self._ceiling = self._ceiling_safe
        self._waiting_bytes = sum(len(p.packed) for p in rest if not _is_doubted(p))
        return failed


def _writers_of(packed: bytes) -> list[int]:
    """Return the numbers of the rids that a packed entry names."""
    return [link >> entries.TICK_BITS for link in entries.links_of(packed)]


def _take(waiting: deque[Pending], up_to: int) -> list[Pending]:
    ready = []
    while waiting and waiting[0].number <= up_to:
        ready.append(waiting.popleft())
    return ready


def _is_doubted(pending: Pending) -> bool:
    return pending.done is _nobody


def _nobody(_: AgentError | None) -> None:
    """Stand for whoever has been answered already."""


def _ignore(_: AgentError | None) -> None:
    """Stand for another server, which is told nothing: it will be asked again."""
