"""One server's part in running one job on each side of a split (`Mode.ISLAND`).

    WAITING   somebody else runs it, or it is too early to tell
    CLAIMING  this server is about to run it, and listens for somebody who does or comes first
    HOLDING   the job runs, and this is said again and again
    STOPPING  until the board vouches for its end

Nobody grants anything here: a server that hears of no holder for one lease, or is told that the
holder has gone, takes the job.  So two may run it as long as they do not hear each other; when
they do, the one with the larger fence goes on.  That is the one whose writes are not refused.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from random import Random

from kvedge.model.stamp import TOCK_MAX, Rid
from kvedge.protocol.lease.contest import HEIR_FIRST_S, NEVER, PATIENCE_S
from kvedge.protocol.lease.granting import Post
from kvedge.protocol.lease.messages import Claim, Free, Hold
from kvedge.protocol.lease.terms import Kill, Run, Stop, Vouched, Want, Why

HOLD_INTERVAL_S = 0.75
"""Between two words of a holder: one may be lost, and two holders meet within two seconds."""

CLAIM_S = 0.3
"""For so long a server listens before it takes a job: a broker takes milliseconds."""

SECOND_S = 0.75
"""A job that runs elsewhere as well is killed after this, if it does not stop."""

RANK_MAX = (1 << 53) - 1


class Phase(Enum):
    """What a server is about to do for a job; see the module."""

    WAITING = "waiting"
    CLAIMING = "claiming"
    HOLDING = "holding"
    STOPPING = "stopping"


Outcome = Post | Run | Stop | Kill


class Island:
    """The part of one server for one job.

    Args:
        rid: Of this life of the server.
        serial: Of this board.
        want: The job.
        lease_ms: How long nothing is heard of a holder before it counts as gone.
        now: Boottime in seconds.
        ready_s: Nothing new begins before; one lease after the network has changed.
        random: Draws the order of those who claim.
        delay: Returns how long to leave the job to better nodes, in seconds.
        tock: Returns the largest tock that this server knows of.
    """

    def __init__(
        self,
        rid: Rid,
        serial: str,
        want: Want,
        lease_ms: int,
        now: float,
        *,
        ready_s: float,
        random: Random,
        delay: Callable[[Want], float],
        tock: Callable[[], int],
    ) -> None:
        self._rid = rid
        self._serial = serial
        self.want = want
        self._lease_s = lease_ms / 1000
        self._random = random
        self._delay = delay
        self._tock = tock
        self.phase = Phase.WAITING
        self.is_wanted = True
        self._ready_s = ready_s
        self._wake_s = max(now, ready_s) + delay(want)
        self.ballot = 0
        self.fence = 0
        self._rank = 0
        self._say_s = self._kill_s = NEVER
        self._other: Rid | None = None
        self._other_fence = 0
        self._heir: str | None = None

    @property
    def is_over(self) -> bool:
        """Tell whether nothing is left to do: not wanted, and not running."""
        return not self.is_wanted and self.phase in (Phase.WAITING, Phase.CLAIMING)

    # --- what the owner wants -----------------------------------------------------------------

    def expired(self, now: float) -> list[Outcome]:
        """Kill what was asked to stop and does not."""
        if self.phase is Phase.STOPPING and now >= self._kill_s:
            self._kill_s = NEVER
            return [Kill(self.want.job, self.ballot)]
        return []

    def stop(self, why: Why, now: float, heir: str | None = None) -> list[Outcome]:
        """Let the job end."""
        if self.phase is not Phase.HOLDING:
            return []
        self.phase, self._heir = Phase.STOPPING, heir
        self._kill_s = now + (SECOND_S if why is Why.SECOND else PATIENCE_S)
        return [Stop(self.want.job, self.ballot, why, self._kill_s)]

    def unwant(self, now: float) -> list[Outcome]:
        """Run it no longer."""
        self.is_wanted = False
        return self.stop(Why.UNWANTED, now)

    def again(self, want: Want, now: float) -> None:
        """Take another wish for the same job."""
        self.want = want
        if not self.is_wanted and self.phase is Phase.WAITING:
            self._wake_s = max(now, self._ready_s) + self._delay(want)
        self.is_wanted = True

    def vouched(self, vouched: Vouched, now: float) -> list[Outcome]:
        """Let others take the job, for it is dead here."""
        is_running = self.phase in (Phase.HOLDING, Phase.STOPPING)
        is_ours = vouched.rid == self._rid and vouched.ballot == self.ballot
        if not is_running or not is_ours or vouched.serial != self._serial:
            return []
        was_stopped = self.phase is Phase.STOPPING and self._other is not None
        heir, self._heir = self._heir, None
        self.phase, self._say_s, self._kill_s = Phase.WAITING, NEVER, NEVER
        if was_stopped:  # the other one goes on
            self._wake_s = now + self._lease_s + self._delay(self.want)
            return []
        self._wake_s = now + 2 * HEIR_FIRST_S + self._delay(self.want)
        return [
            Post(None, Hold(self.want.job, 0)),
            Post(None, Free(self.want.job, heir)),
        ]

    # --- time and network ---------------------------------------------------------------------

    def next_deadline(self) -> float:
        """Return when to call `tick`."""
        if self.phase in (Phase.HOLDING, Phase.STOPPING):
            return min(self._say_s, self._kill_s)
        return self._wake_s if self.is_wanted else NEVER

    def tick(self, now: float) -> list[Outcome]:
        """Do what is due."""
        if self.phase in (Phase.HOLDING, Phase.STOPPING):
            return self._say(now) if now >= self._say_s else []
        if not self.is_wanted or now < self._wake_s:
            return []
        if self.phase is Phase.WAITING:
            self.phase, self._other = Phase.CLAIMING, None
            self._rank = self._random.randrange(1, RANK_MAX)
            self._wake_s = now + CLAIM_S
            return [Post(None, Claim(self.want.job, self._rank))]
        self.phase = Phase.HOLDING
        self.ballot += 1
        self.fence = min(1 + max(self._tock(), self._other_fence, self.fence), TOCK_MAX)
        run = Run(self.want.job, self.ballot, self.fence, NEVER)
        return [run, *self._say(now)]

    def connected(self, now: float) -> list[Outcome]:
        """Say at once that it runs here; what is to begin waits one lease."""
        self._ready_s = now + self._lease_s
        if self.phase in (Phase.HOLDING, Phase.STOPPING):
            return self._say(now)
        self._wait(self._ready_s + self._delay(self.want))
        return []

    def disconnected(self, now: float) -> None:
        """Go on with what runs; what is to begin waits one lease."""
        self._ready_s = now + self._lease_s
        if self.phase in (Phase.WAITING, Phase.CLAIMING):
            self._wait(self._ready_s + self._delay(self.want))

    def gone(self, node: str, now: float) -> None:
        """Take the job over from a holder that is not there any more."""
        if self._other is not None and self._other.node == node:
            self._other = None
            if self.phase is Phase.WAITING:
                self._wake_s = max(now, self._ready_s) + self._delay(self.want)

    # --- messages -----------------------------------------------------------------------------

    def claim(self, sender: Rid, claim: Claim, now: float) -> list[Outcome]:
        """Object to somebody who is about to run what runs here, or let it be first."""
        if self.phase in (Phase.HOLDING, Phase.STOPPING):
            return [Post(sender.node, Hold(self.want.job, self.fence))]
        if self.phase is Phase.CLAIMING and (claim.rank, sender) > (self._rank, self._rid):
            self._wait(now + 2 * CLAIM_S + self._delay(self.want))
        elif self.phase is Phase.WAITING:
            self._wake_s = max(self._wake_s, now + 2 * CLAIM_S)
        return []

    def hold(self, sender: Rid, hold: Hold, now: float) -> list[Outcome]:
        """Take note of a holder; of two the one with the larger fence goes on."""
        if hold.fence == 0:
            if self._other == sender:
                self._other = None
            return []
        self._other_fence = max(hold.fence, self._other_fence)
        if self.phase in (Phase.HOLDING, Phase.STOPPING):
            if (hold.fence, sender) < (self.fence, self._rid):
                return [Post(sender.node, Hold(self.want.job, self.fence))]
            self._other = sender
            return self.stop(Why.SECOND, now)
        self._other = sender
        self._wait(now + self._lease_s + self._delay(self.want))
        return []

    def free(self, free: Free, now: float) -> None:
        """Take note that nobody runs it."""
        if self.phase is Phase.WAITING:
            pause_s = self._delay(self.want)
            if free.heir == self._rid.node:
                pause_s = 0.0
            elif free.heir is not None:
                pause_s += HEIR_FIRST_S
            self._wake_s = min(self._wake_s, now + pause_s)

    def _wait(self, until_s: float) -> None:
        self.phase, self._wake_s = Phase.WAITING, until_s

    def _say(self, now: float) -> list[Outcome]:
        self._say_s = now + HOLD_INTERVAL_S
        return [Post(None, Hold(self.want.job, self.fence))]
