"""What to do next with payloads on their way to the disk, and what its outcome means.

    submit -> waiting -WRITE-> unsynced -SYNC-> done

Everything that waits is written at once and synced at once: while one sync runs, the next batch
gathers (group commit).  Three things can go wrong:

- A write fails and its traces are removed.  It is *refused*, and with it all that waited behind
  it, since that may build on it.  From then on the gate is shut: what arrives is dropped, until
  the owner has taken note of the refusal and calls `resume`.  Then the next write simply tries
  again, so a disk that has room again needs no restart.
- A sync fails.  The kernel may have thrown the bytes away, and a second sync of the same file
  would lie ("fsyncgate", PostgreSQL 2018).  So all since the last good sync is written again,
  into a new segment: REPLAY.
- That fails too.  What was in it is *uncertain*, stays in limbo and is replayed each second,
  while new payloads are refused.  When it succeeds they are reported as synced at last.

Pure: the owner runs the steps and hands in outcomes and time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from kvedge import limits
from kvedge.errors import WriteRefused, WriteUncertain

RELAXED_SYNC_AFTER_S = 0.75 * limits.RELAXED_DELAY_MAX_S
"""When relaxed payloads are synced: the rest of the time they may take is the disk's."""

LIMBO_RETRY_S = 1.0
"""Between two replays on a disk that fails: soon for people, seldom for the disk."""

BATCH_MAX_BYTES = 1024 * 1024
"""What is written, or waits for a sync, at most: it is kept for a replay.  A batch exceeds it
by less than one payload."""


class Submission(NamedTuple):
    """A payload with its running number.

    Attributes:
        number: From 1, rising by one.
        payload: What to store.
        vital: Whether others depend on it, so that it is written twice.
        durable: Whether somebody waits for the disk rather than for the file.
    """

    number: int
    payload: bytes
    vital: bool
    durable: bool


class Step(Enum):
    """What the owner does next."""

    WRITE = auto()
    """Append `batch` to the segment; on an error undo it."""
    SYNC = auto()
    """Sync the segment."""
    REPLAY = auto()
    """Append `batch` to a new segment and sync it; on an error remove that segment."""
    REFUSE = auto()
    """Nothing to do: `finish` says what is refused."""
    CUT = auto()
    """End the segment and begin a snapshot: everything is synced."""


class Outcome(Enum):
    """How a step went."""

    DONE = auto()
    UNDONE = auto()
    """It failed, and surely left nothing behind."""
    IN_DOUBT = auto()
    """It failed, and may have left something behind."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Payloads that are surely not stored.

    What is submitted between this report and `resume` is refused too, without a report.

    Attributes:
        first: The first number.
        last: The last number so far.
        error: Why.
    """

    first: int
    last: int
    error: WriteRefused


@dataclass(frozen=True, slots=True)
class Limbo:
    """Payloads that may be stored or not, until `synced_to` covers them.

    Attributes:
        upto: The last number.
        error: Why.
    """

    upto: int
    error: WriteUncertain


@dataclass(frozen=True, slots=True)
class Done:
    """What has become of payloads.  Numbers that were refused count as passed.

    Attributes:
        written_to: All up to this number are in the file, so readers may see relaxed ones.
        synced_to: All up to this number survive a power cut.
        refused: What is refused now.
        uncertain: What is in limbo now.
        snapshot: Where set, a snapshot of this number is wanted, of the state that everything
            up to `synced_to` comes to, or a later one.
    """

    written_to: int
    synced_to: int
    refused: Refusal | None = None
    uncertain: Limbo | None = None
    snapshot: int | None = None


class _Phase(Enum):
    RUNNING = auto()
    BROKEN = auto()
    """The segment cannot be trusted: replay now."""
    LIMBO = auto()
    """The replay failed: replay later."""


class CommitQueue:
    """The payloads of one journal that are not on the disk yet."""

    def __init__(self) -> None:
        self._phase = _Phase.RUNNING
        self._gate_is_shut = False
        self._is_closing = False
        self._snapshot_is_wanted = False
        self._snapshot_is_open = False
        self._waiting: deque[Submission] = deque()
        self._unsynced: list[Submission] = []
        self._unsynced_bytes = 0
        self._sync_at_s: float | None = None  # None while there is nothing to sync
        self._replay_at_s = 0.0
        self._limbo_why = ""
        self._batch: list[Submission] = []
        self._last = 0
        self._written_to = 0
        self._synced_to = 0

    # --- the owner's side --------------------------------------------------------------------

    @property
    def batch(self) -> list[tuple[bytes, bool]]:
        """What the step that was asked for appends: payloads, and whether they are vital."""
        return [(sub.payload, sub.vital) for sub in self._batch]

    def submit(self, submission: Submission) -> None:
        """Take a payload."""
        self._last = submission.number
        if not self._gate_is_shut:
            self._waiting.append(submission)

    def resume(self) -> None:
        """Open the gate: the owner knows what was refused."""
        self._gate_is_shut = False

    def want_snapshot(self) -> None:
        """Ask for a snapshot as soon as everything is synced and none is under way."""
        self._snapshot_is_wanted = True

    def snapshot_finished(self) -> None:
        """Note that the snapshot under way was written, or failed."""
        self._snapshot_is_open = False

    def close(self) -> None:
        """Sync without delay from now on; give what is in limbo one more try."""
        self._is_closing = True
        self._snapshot_is_wanted = False
        if self._phase is _Phase.LIMBO:
            self._phase = _Phase.BROKEN

    # --- what comes next ---------------------------------------------------------------------

    def next_step(self, now_s: float) -> Step | None:
        """Return what to do now; `finish` is called with the outcome.  None: wait."""
        step = self._step(now_s)
        if step is Step.WRITE:
            self._batch = self._take_batch()
        elif step is Step.REPLAY:
            self._batch = self._unsynced
        return step

    def next_deadline_s(self) -> float | None:
        """Return when `next_step` should be asked again though nothing arrives."""
        return self._replay_at_s if self._phase is _Phase.LIMBO else self._sync_at_s

    def _step(self, now_s: float) -> Step | None:
        match self._phase:
            case _Phase.RUNNING:
                return self._step_running(now_s)
            case _Phase.BROKEN:
                return Step.REPLAY
            case _Phase.LIMBO if self._waiting:
                return Step.REFUSE
            case _Phase.LIMBO if now_s >= self._replay_at_s and not self._is_closing:
                return Step.REPLAY
        return None

    def _step_running(self, now_s: float) -> Step | None:
        wanted = self._snapshot_is_wanted and not self._snapshot_is_open
        if self._sync_at_s is not None and (
            now_s >= self._sync_at_s
            or self._unsynced_bytes >= BATCH_MAX_BYTES
            or self._is_closing
            or wanted
        ):
            return Step.SYNC
        if wanted:
            return Step.CUT
        return Step.WRITE if self._waiting else None

    def _take_batch(self) -> list[Submission]:
        batch: list[Submission] = []
        size = 0
        while self._waiting and size < BATCH_MAX_BYTES:
            batch.append(self._waiting.popleft())
            size += len(batch[-1].payload)
        return batch

    # --- what came of it ---------------------------------------------------------------------

    def finish(
        self, step: Step, outcome: Outcome, now_s: float, *, why: str = "", snapshot: int = 0
    ) -> Done | None:
        """Take the outcome of a step; return what to report, if anything.

        Args:
            step: What was done.
            outcome: How it went.
            now_s: When it ended.
            why: The error, where it failed.
            snapshot: The number of the snapshot that a CUT began.
        """
        done = None
        match step, outcome:
            case Step.WRITE, Outcome.DONE:
                done = self._written(now_s)
            case Step.WRITE, Outcome.UNDONE:
                done = self._report(refused=self._refuse(self._batch[0].number, why))
            case Step.WRITE, _:
                self._keep_batch(now_s)
                self._phase = _Phase.BROKEN
            case ((Step.SYNC | Step.REPLAY), Outcome.DONE):
                done = self._synced()
            case Step.SYNC, _:
                self._phase = _Phase.BROKEN
            case Step.REPLAY, _:
                done = self._failed_again(now_s, why)
            case Step.REFUSE, _:
                why = f"the disk fails ({self._limbo_why})"
                done = self._report(refused=self._refuse(self._waiting[0].number, why))
            case Step.CUT, _:
                self._snapshot_is_wanted, self._snapshot_is_open = False, True
                done = self._report(snapshot=snapshot)
        return done

    def _report(
        self,
        *,
        refused: Refusal | None = None,
        uncertain: Limbo | None = None,
        snapshot: int | None = None,
    ) -> Done:
        return Done(self._written_to, self._synced_to, refused, uncertain, snapshot)

    def _keep_batch(self, now_s: float) -> None:
        self._unsynced += self._batch
        self._unsynced_bytes += sum(len(sub.payload) for sub in self._batch)
        if any(sub.durable for sub in self._batch):
            self._sync_at_s = now_s
        elif self._sync_at_s is None:
            self._sync_at_s = now_s + RELAXED_SYNC_AFTER_S

    def _written(self, now_s: float) -> Done | None:
        self._keep_batch(now_s)
        self._written_to = self._batch[-1].number
        # Who waits for the disk is told when that is done: a report wakes the owner's thread.
        if all(sub.durable for sub in self._batch):
            return None
        return self._report()

    def _synced(self) -> Done:
        self._written_to = self._synced_to = self._unsynced[-1].number
        self._unsynced = []
        self._unsynced_bytes = 0
        self._sync_at_s = None
        self._phase = _Phase.RUNNING
        return self._report()

    def _refuse(self, first: int, why: str) -> Refusal:
        self._waiting.clear()
        self._gate_is_shut = True
        return Refusal(first, self._last, WriteRefused(why))

    def _failed_again(self, now_s: float, why: str) -> Done | None:
        self._replay_at_s = now_s + LIMBO_RETRY_S
        if self._phase is _Phase.LIMBO:
            return None
        self._phase = _Phase.LIMBO
        self._limbo_why = why
        refused = self._refuse(self._waiting[0].number, why) if self._waiting else None
        limbo = Limbo(self._unsynced[-1].number, WriteUncertain(why))
        return self._report(refused=refused, uncertain=limbo)
