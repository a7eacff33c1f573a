"""The way of payloads to the disk: one step at a time, or in a thread of its own.

`JournalWriter` carries out what `CommitQueue` decides, whenever somebody calls `step`: a simulator
does so between its events.  `Committer` does it in a thread, so that nobody waits for the disk who
does not want to: `submit` hands over, and the callback reports, in that thread, what became of it.

Reports come in the order of what they tell.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

from kvedge.clock import Clock
from kvedge.errors import LimitExceeded, LocalProtocolError, StorageError, WriteRefused
from kvedge.storage.commit_queue import CommitQueue, Done, Outcome, Step, Submission
from kvedge.storage.frames import PAYLOAD_MAX_BYTES
from kvedge.storage.journal import Journal

BEAT_S = 1.0
"""How often an idle thread shows that it is alive; a watchdog waits for many times this."""

OnDone = Callable[[Done], None]


class JournalWriter:
    """Brings payloads into a journal, a step at a time.

    Args:
        journal: Is loaded, and has been told who writes.
        clock: For delays.
        on_done: Is told what became of payloads.
    """

    def __init__(self, journal: Journal, clock: Clock, on_done: OnDone) -> None:
        self.queue = CommitQueue()
        self._journal = journal
        self._clock = clock
        self._on_done = on_done
        self._last = 0

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        """Take a payload; return its running number.

        Args:
            payload: What to store.
            vital: Whether later ones depend on it; it is then written twice.
            durable: Whether it is synced as soon as possible rather than after a delay.
        """
        check_payload(payload)
        self._last += 1
        self.queue.submit(Submission(self._last, payload, vital, durable))
        return self._last

    def step(self) -> bool:
        """Do what is to be done now; return False where there is nothing."""
        step = self.queue.next_step(self._clock.boottime_s())
        if step is None:
            return False
        outcome, why, snapshot = Outcome.DONE, "", 0
        if step is Step.CUT:
            snapshot = self._journal.begin_snapshot()
        else:
            outcome, why = self._run(step)
        now_s = self._clock.boottime_s()
        done = self.queue.finish(step, outcome, now_s, why=why, snapshot=snapshot)
        if outcome is Outcome.DONE and self._journal.snapshot_is_due:
            self.queue.want_snapshot()
        if done is not None:
            self._on_done(done)
        return True

    def wait_s(self) -> float | None:
        """Return for how long `step` has nothing to do unless something arrives."""
        deadline_s = self.queue.next_deadline_s()
        return None if deadline_s is None else max(0.0, deadline_s - self._clock.boottime_s())

    def _run(self, step: Step) -> tuple[Outcome, str]:
        try:
            match step:
                case Step.WRITE:
                    self._journal.append(self.queue.batch)
                case Step.SYNC:
                    self._journal.sync()
                case Step.REPLAY:
                    self._journal.abandon()
                    self._journal.append(self.queue.batch)
                    self._journal.sync()
        except OSError as error:
            return self._clean_up(step), self._explained(error)
        return Outcome.DONE, ""

    def _clean_up(self, step: Step) -> Outcome:
        """Remove what a failed step left, as far as the disk lets us."""
        try:
            if step is Step.REPLAY:
                self._journal.discard()
            if step is Step.WRITE:
                self._journal.repair()
                return Outcome.UNDONE
        except OSError:
            pass  # the outcome says it; the first error is the one worth telling
        return Outcome.IN_DOUBT

    def _explained(self, error: OSError) -> str:
        return f"{self._journal.directory}: {error.strerror or error}"

    def snapshot(self, number: int, payloads: Iterable[bytes]) -> int:
        """Write the snapshot that `Done.snapshot` asked for; return its size in bytes.

        The owner of the queue calls `queue.snapshot_finished` afterwards, in its thread.

        Raises:
            WriteRefused: It could not be written; what was there before still is.
        """
        try:
            return self._journal.write_snapshot(number, payloads)
        except WriteRefused:
            raise
        except OSError as error:
            raise WriteRefused(self._explained(error)) from error

    def close(self) -> None:
        """Write and sync what can be; report it; close the journal."""
        self.queue.close()
        while self.step():
            pass
        self._journal.close()


def check_payload(payload: bytes) -> None:
    """Raise LimitExceeded for a payload that has no place in a frame."""
    if len(payload) > PAYLOAD_MAX_BYTES:
        raise LimitExceeded("a payload", actual=len(payload), limit=PAYLOAD_MAX_BYTES, unit="bytes")


class _Order(Enum):
    RESUME = auto()
    WANT_SNAPSHOT = auto()
    SNAPSHOT_FINISHED = auto()
    CLOSE = auto()


@dataclass(frozen=True, slots=True)
class SnapshotDone:
    """What became of a snapshot.

    Attributes:
        number: Which.
        size_bytes: Of the file, 0 where there is none.
        error: Why there is none; it is asked for again when the journal has grown more.
    """

    number: int
    size_bytes: int
    error: StorageError | None = None


class Committer:
    """A thread that brings payloads into a journal.

    `submit`, `resume`, `want_snapshot` and `snapshot` return at once and may be called from any
    thread.  What they ask for is done in the order in which they were called, which is what makes
    a refusal safe: everything submitted before `resume` is refused with it.

    Args:
        journal: Is loaded, and has been told who writes.  It belongs to the thread from now on.
        clock: For delays.
        on_done: Is told, in the thread, what became of payloads.  It must return soon.
        on_snapshot: Is told, in another thread, what became of a snapshot.
    """

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        *,
        on_done: OnDone,
        on_snapshot: Callable[[SnapshotDone], None],
    ) -> None:
        self._writer = JournalWriter(journal, clock, on_done)
        self._on_snapshot = on_snapshot
        # One queue for payloads and orders keeps their order; being written in C, it hands over
        # in a few microseconds, a tenth of what a Condition takes.
        self._inbox: SimpleQueue[Submission | _Order] = SimpleQueue()
        self._lock = threading.Lock()
        self._last = 0
        self._beats = 0
        self._is_open = True
        self._is_running = True
        # Daemons, so that a process which fails elsewhere ends without close().
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self._snapshots: threading.Thread | None = None
        self._thread.start()

    @property
    def beats(self) -> int:
        """A count that rises at least each `BEAT_S` unless the thread is stuck or dead."""
        return self._beats

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        """Take a payload; return its running number.

        Args:
            payload: What to store.
            vital: Whether later ones depend on it; it is then written twice.
            durable: Whether it is synced as soon as possible rather than after a delay.

        Raises:
            LimitExceeded: It is too large.
        """
        check_payload(payload)
        with self._lock:
            if not self._is_open:
                raise LocalProtocolError("a payload was submitted to a closed committer")
            self._last += 1
            number = self._last
            self._inbox.put(Submission(number, payload, vital, durable))
        return number

    def resume(self) -> None:
        """Accept payloads again: the owner has taken note of a refusal."""
        self._inbox.put(_Order.RESUME)

    def want_snapshot(self) -> None:
        """Have a snapshot asked for (`Done.snapshot`), although none is due."""
        self._inbox.put(_Order.WANT_SNAPSHOT)

    def snapshot(self, number: int, payloads: Iterable[bytes]) -> None:
        """Write the snapshot that `Done.snapshot` asked for, in a thread of its own.

        Args:
            number: The one asked for.
            payloads: The state at that report or later, preamble not included.  It is iterated in
                the other thread, so it must not change meanwhile.
        """
        if self._snapshots is not None:
            self._snapshots.join()  # it has finished, or none would be asked for: at most it ends
        self._snapshots = threading.Thread(
            target=self._write_snapshot, args=(number, payloads), name="snapshot", daemon=True
        )
        self._snapshots.start()

    def close(self) -> None:
        """Write and sync what can be, report it, and end the threads.  Waits for the disk."""
        with self._lock:
            if not self._is_open:
                return
            self._is_open = False
        if self._snapshots is not None:
            self._snapshots.join()
        self._inbox.put(_Order.CLOSE)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- in the threads ----------------------------------------------------------------------

    def _run(self) -> None:
        while self._is_running:
            wait_s = self._writer.wait_s()
            self._take(BEAT_S if wait_s is None else min(wait_s, BEAT_S))
            while self._is_running and self._writer.step():
                self._beats += 1
                self._take(0)
            self._beats += 1
        self._writer.close()

    def _take(self, timeout_s: float) -> None:
        """Wait for something in the inbox, then take all that is there."""
        try:
            self._handle(self._inbox.get(timeout=timeout_s))
            while True:
                self._handle(self._inbox.get_nowait())
        except Empty:
            pass

    def _handle(self, item: Submission | _Order) -> None:
        queue = self._writer.queue
        match item:
            case Submission():
                queue.submit(item)
            case _Order.RESUME:
                queue.resume()
            case _Order.WANT_SNAPSHOT:
                queue.want_snapshot()
            case _Order.SNAPSHOT_FINISHED:
                queue.snapshot_finished()
            case _Order.CLOSE:
                self._is_running = False

    def _write_snapshot(self, number: int, payloads: Iterable[bytes]) -> None:
        try:
            report = SnapshotDone(number, self._writer.snapshot(number, payloads))
        except WriteRefused as error:
            report = SnapshotDone(number, 0, error)
        finally:
            self._inbox.put(_Order.SNAPSHOT_FINISHED)
        self._on_snapshot(report)
