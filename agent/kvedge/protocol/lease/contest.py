"""One server's attempts to hold the lease of one job (`Mode.QUORUM`).

    WAITING   for the time when the lease may be free
    LOOKING   one voter after the other is asked for how long it is granted
    ASKING    all voters are asked: first for their grants and tocks, then with the fence
    HOLDING   the job runs; the lease is renewed
    STOPPING  the job is to end; until the board vouches for that nothing new begins

The voters know the fence before the job starts, so it is larger than that of each holder before.
Each voter's grant counts from the moment at which it was asked for: the lease holds until the
latest moment up to which a quorum is bound.  What was asked, and not what is known now, counts:
a quorum that was reached stays one when the voters change.

PaxosLease (Trencseni, Gazso, Reinhardt, 2012) has the same two rounds; here both are questions of
one kind, and every later one renews.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from random import Random

from kvedge.model.stamp import TOCK_MAX, Rid
from kvedge.protocol.lease.electorate import Electorate
from kvedge.protocol.lease.granting import Post
from kvedge.protocol.lease.messages import Ask, Free, Grant, Held, Look, Release
from kvedge.protocol.lease.terms import (
    AGAIN_PART,
    GRACE_PART,
    RENEW_PART,
    Extended,
    Kill,
    Run,
    Stop,
    Vouched,
    Want,
    Why,
    bound_s,
)
from kvedge.protocol.lease.voters import is_quorum, quorum_end

LOOK_AGAIN_S = 0.3
"""A voter that has not answered after this is passed over."""

LOOK_AGAIN_MAX_S = 1.0
"""Where none answers: there is no majority to hope for."""

HEIR_FIRST_S = 0.5
"""So much earlier than others the one may ask that is to take over."""

PATIENCE_S = 5.0
"""A job that is to stop keeps its lease for so long; when that ends, it is killed."""

ROUNDS_OPEN_MAX = 12
"""Rounds whose late grants still count; with three seconds of delay more than enough."""

NEVER = float("inf")


class Phase(Enum):
    """What a server is about to do for a job; see the module."""

    WAITING = "waiting"
    LOOKING = "looking"
    ASKING = "asking"
    HOLDING = "holding"
    STOPPING = "stopping"


@dataclass(slots=True)
class _Releasing:
    """A release that is said again until each voter has heard it, or was free anyway."""

    message: Release
    nodes: set[str]
    again_s: float
    pause_s: float
    until_s: float


Outcome = Post | Run | Extended | Stop | Kill


class Contest:
    """The attempts of one server to hold one lease.

    Args:
        rid: Of this life of the server.
        serial: Of this board.
        want: The job.
        electorate: Its voters.
        random: Draws pauses.
        delay: Returns how long to leave the lease to better nodes, in seconds.
    """

    def __init__(
        self,
        rid: Rid,
        serial: str,
        want: Want,
        electorate: Electorate,
        now: float,
        *,
        random: Random,
        delay: Callable[[Want], float],
    ) -> None:
        self._rid = rid
        self._serial = serial
        self.want = want
        self._electorate = electorate
        self._random = random
        self._delay = delay
        self.phase = Phase.WAITING
        self.is_wanted = True
        self._wake_s = now + delay(want)
        self._looks = self._first_look = 0
        self.ballot = 0
        self._round = 0
        self._rounds: dict[int, tuple[float, int]] = {}  # when asked, for how long
        self.fence = 0
        self._tocks: dict[str, int] = {}
        self._refused: dict[str, float] = {}
        self._ends: dict[str, float] = {}
        self._until_s = -NEVER
        self._renew_s = NEVER
        self._fails_s = NEVER
        self._failed = 0
        self._is_renewed = False
        self._is_killed = False
        self._heir: str | None = None
        self._releasing: list[_Releasing] = []

    @property
    def is_over(self) -> bool:
        """Tell whether nothing is left to do: not wanted, not running, everything released."""
        is_idle = self.phase in (Phase.WAITING, Phase.LOOKING)
        return not self.is_wanted and is_idle and not self._releasing

    # --- what the owner wants -----------------------------------------------------------------

    def expired(self, now: float) -> list[Outcome]:
        """Check the lease; to be called before anything else happens."""
        if self.phase is Phase.HOLDING and now >= self._until_s - self._grace_s():
            self.phase, self._is_renewed = Phase.STOPPING, False
            if now < self._until_s:
                return [self._stop(Why.EXPIRING)]
        if self.phase is Phase.STOPPING and now >= self._fails_s:
            self._is_renewed = False
        if self.phase is Phase.STOPPING and now >= self._until_s and not self._is_killed:
            self._is_killed, self._is_renewed = True, False
            return [Kill(self.want.job, self.ballot)]
        return []

    def stop(self, why: Why, now: float, heir: str | None = None) -> list[Outcome]:
        """Let the job end, and the lease go to somebody else when the board has vouched."""
        if self.phase is not Phase.HOLDING:
            return []
        self.phase, self._heir = Phase.STOPPING, heir
        self._fails_s = now + PATIENCE_S
        return [self._stop(why)]

    def unwant(self, now: float) -> list[Outcome]:
        """Hold the lease no longer."""
        self.is_wanted = False
        if self.phase is Phase.ASKING:
            return self._give_up(now)
        return self.stop(Why.UNWANTED, now)

    def again(self, want: Want, now: float) -> None:
        """Take another wish for the same job."""
        self.want = want
        if not self.is_wanted and self.phase in (Phase.WAITING, Phase.LOOKING):
            self._wake_s = now + self._delay(want)
        self.is_wanted = True

    def vouched(self, vouched: Vouched, now: float) -> list[Outcome]:
        """Release a lease of this board early, for the job is dead."""
        job, rid, ballot, serial = vouched.job, vouched.rid, vouched.ballot, vouched.serial
        if rid.node != self._rid.node or serial != self._serial:
            return []
        is_ours = rid == self._rid
        is_running = self.phase in (Phase.HOLDING, Phase.STOPPING)
        if is_ours and (ballot != self.ballot or not is_running):
            return []
        heir, self._heir = self._heir, None
        release = Release(job, rid, ballot, serial, heir, was_held=True)
        if is_ours:
            # The others are to come first: here it has just ended.
            pause_s = HEIR_FIRST_S + self._delay(self.want)
            self._wait(now + (2 * pause_s if heir is not None else pause_s))
        return self._release(release, now)

    # --- time ---------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """Return when to call `tick`."""
        releasing = self._releasing
        due = min(one.again_s for one in releasing) if releasing else NEVER
        if self.phase is Phase.HOLDING:
            return min(due, self._renew_s, self._until_s - self._grace_s())
        if self.phase is Phase.STOPPING:
            renew_s = self._renew_s if self._is_renewed else NEVER
            return min(due, renew_s, NEVER if self._is_killed else self._until_s)
        if self.phase is Phase.ASKING:
            return min(due, self._renew_s, self._fails_s)
        return min(due, self._wake_s if self.is_wanted else NEVER)

    def tick(self, now: float) -> list[Outcome]:
        """Do what is due; `expired` was called before."""
        outcomes: list[Outcome] = self._release_again(now) if self._releasing else []
        if self.phase in (Phase.WAITING, Phase.LOOKING):
            if self.is_wanted and now >= self._wake_s:
                outcomes += self._look(now)
        elif self.phase is Phase.ASKING and now >= self._fails_s:
            outcomes += self._give_up(now)
        elif now >= self._renew_s and (self.phase is not Phase.STOPPING or self._is_renewed):
            outcomes += self._question(now)
        return outcomes

    def voters_changed(self, now: float) -> list[Outcome]:
        """Ask again at once: what was asked before is refused, or is not enough."""
        if self.phase is Phase.ASKING or self._is_renewed:
            return self._question(now)
        return []

    # --- messages -----------------------------------------------------------------------------

    def free(self, free: Free, now: float) -> None:
        """Take note that the lease is free."""
        if self.phase in (Phase.WAITING, Phase.LOOKING):
            pause_s = self._delay(self.want)
            if free.heir == self._rid.node:
                pause_s = 0.0
            elif free.heir is not None:
                pause_s += HEIR_FIRST_S
            self._wake_s = min(self._wake_s, now + pause_s)

    def held(self, sender: str, held: Held, now: float) -> list[Outcome]:
        """Take the answer to a look, or a refusal."""
        left_s = held.left_ms / 1000
        if held.ballot == 0 and self.phase is Phase.LOOKING:
            if held.left_ms == 0:
                return self._ask(now)
            left_s = left_s if held.is_firm else min(left_s, LOOK_AGAIN_S)
            self._wait(now + left_s + self._delay(self.want))
        elif held.ballot == self.ballot and self.phase is Phase.ASKING:
            self._refused[sender] = now + (left_s if held.is_firm else 0.0)
            lists = self._electorate.lists(now)
            if not is_quorum(lists, set(self._electorate.asked(now)) - self._refused.keys()):
                return self._give_up(now)
        return []

    def granted(self, sender: str, grant: Grant, now: float) -> list[Outcome]:
        """Take a grant."""
        asked = self._rounds.get(grant.round)
        if grant.ballot != self.ballot or asked is None:
            return []
        self._refused.pop(sender, None)
        if self.phase is Phase.ASKING and self.fence == 0:
            self._tocks[sender] = max(grant.tock, self._tocks.get(sender, 0))
            if is_quorum(self._electorate.lists(now), self._tocks):
                floor = self._electorate.view.tock
                self.fence = min(1 + max(floor, *self._tocks.values()), TOCK_MAX)
                self._rounds.clear()  # these did not tell the fence
                return self._question(now)
            return []
        self._ends[sender] = max(self._end(asked, now), self._ends.get(sender, -NEVER))
        until_s = quorum_end(self._electorate.lists(now), self._ends)
        return self._extend(until_s, asked, now) if until_s > self._until_s else []

    def _end(self, asked: tuple[float, int], now: float) -> float:
        """Return until when a grant lasts, for which was asked at some time."""
        return asked[0] + asked[1] / 1000

    def _extend(self, until_s: float, asked: tuple[float, int], now: float) -> list[Outcome]:
        if self.phase is Phase.ASKING:
            if now >= until_s - 2 * self._grace_s():
                return []  # its answers were too slow to begin with it
            self.phase, self._is_renewed, self._is_killed = Phase.HOLDING, True, False
            self._failed = 0
            told: Outcome = Run(self.want.job, self.ballot, self.fence, until_s)
        elif self.phase is Phase.HOLDING or self._is_renewed:
            told = Extended(self.want.job, self.ballot, until_s)
        else:
            return []
        self._until_s = until_s
        lease_s = asked[1] / 1000
        self._renew_s = max(now, until_s - lease_s * (1 - RENEW_PART))
        return [told]

    # --- doing --------------------------------------------------------------------------------

    def _look(self, now: float) -> list[Outcome]:
        voters = self._electorate.view.voters.nodes
        if self.phase is not Phase.LOOKING:
            self.phase, self._looks = Phase.LOOKING, 0
            self._first_look = self._random.randrange(len(voters))
        node = voters[(self._first_look + self._looks) % len(voters)]
        self._looks += 1
        is_hopeless = self._looks > len(voters)
        self._wake_s = now + (LOOK_AGAIN_MAX_S if is_hopeless else LOOK_AGAIN_S)
        return [Post(node, Look(self.want.job, self.want.group))]

    def _ask(self, now: float) -> list[Outcome]:
        self.phase = Phase.ASKING
        self.ballot += 1
        self._round = self.fence = 0
        self._rounds, self._tocks, self._refused, self._ends = {}, {}, {}, {}
        self._until_s = -NEVER
        self._fails_s = now + self._electorate.view.lease_ms / 1000 / 2
        return self._question(now)

    def _question(self, now: float) -> list[Outcome]:
        view, want = self._electorate.view, self.want
        self._round += 1
        self._rounds[self._round] = now, view.lease_ms
        if len(self._rounds) > ROUNDS_OPEN_MAX:
            del self._rounds[next(iter(self._rounds))]
        self._renew_s = now + view.lease_ms / 1000 * AGAIN_PART
        ask = Ask(
            want.job,
            want.group,
            self.ballot,
            self._round,
            view.stamp,
            self.fence,
            view.lease_ms,
            self._serial,
        )
        return [Post(node, ask) for node in self._electorate.asked(now)]

    def _give_up(self, now: float) -> list[Outcome]:
        """Let go at once of what was granted: nothing has run under it."""
        self._failed += 1
        lefts = [until_s for until_s in self._refused.values() if until_s > now]
        pause_s = self._random.uniform(0.05, 0.15) * 2 ** min(self._failed, 3)
        # Somebody else holds it, or several have asked at the same moment.
        is_held = lefts and len(lefts) == len(self._refused)
        self._wait((min(lefts) if is_held else now) + pause_s + self._delay(self.want))
        release = Release(self.want.job, self._rid, self.ballot, self._serial, None, was_held=False)
        return self._release(release, now)

    def _release(self, release: Release, now: float) -> list[Outcome]:
        view = self._electorate.view
        until_s = now + bound_s(view.lease_ms)
        again_s = now + LOOK_AGAIN_S
        self._releasing.append(_Releasing(release, set(view.nodes), again_s, LOOK_AGAIN_S, until_s))
        del self._releasing[:-4]
        return [Post(node, release) for node in view.nodes]

    def released(self, sender: str, ballot: int) -> None:
        """Take note that a voter has heard a release."""
        for one in self._releasing:
            if one.message.ballot == ballot:
                one.nodes.discard(sender)
        self._releasing = [one for one in self._releasing if one.nodes]

    def _release_again(self, now: float) -> list[Outcome]:
        self._releasing = [one for one in self._releasing if now < one.until_s]
        outcomes: list[Outcome] = []
        for one in self._releasing:
            if now >= one.again_s:
                one.pause_s *= 2
                one.again_s = now + one.pause_s
                outcomes += [Post(node, one.message) for node in sorted(one.nodes)]
        return outcomes

    def _wait(self, until_s: float) -> None:
        self.phase, self._wake_s = Phase.WAITING, until_s
        self._rounds.clear()
        self._is_renewed = False
        self._renew_s = self._fails_s = NEVER

    def _stop(self, why: Why) -> Stop:
        return Stop(self.want.job, self.ballot, why, self._until_s)

    def _grace_s(self) -> float:
        return self._electorate.view.lease_ms / 1000 * GRACE_PART
