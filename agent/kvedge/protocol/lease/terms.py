"""What leases are measured in, and what their owner is told.

A holder counts its lease from the moment at which it asked; a voter is bound from the moment at
which it grants, which is later, and for longer: `bound_s` covers two clocks that run 1 % wrong in
opposite directions, and the time in which a process is killed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from kvedge.model.stamp import Rid
from kvedge.protocol.exchange import Outgoing
from kvedge.protocol.lease.voters import Kept, View

LEASE_DEFAULT_MS = 5000
"""A board that falls silent is replaced after this; shorter, and lost messages end leases."""

LEASE_MIN_MS = 1000
"""Below, a slow broker would end every lease."""

LEASE_MAX_MS = 600_000
"""Nobody wants to wait longer for a board that is dead."""

DRIFT_FACTOR = 1.03
"""Two clocks, one 1 % fast and one 1 % slow, differ by 2.02 %."""

KILL_S = 0.1
"""What SIGKILL takes on a busy board: a voter is bound for so much longer."""

RENEW_PART = 0.4
"""A lease is renewed after this part of it; three more attempts fit in before it ends."""

AGAIN_PART = 0.1
"""A round without a quorum is followed by the next one after this part of a lease."""

GRACE_PART = 0.15
"""A job whose lease is not renewed is asked to stop for so long before it is killed."""


def bound_s(lease_ms: int) -> float:
    """Return for how long a voter is bound by a grant, in seconds of its own clock."""
    return lease_ms / 1000 * DRIFT_FACTOR + KILL_S


class Mode(Enum):
    """What a group promises for its jobs while it is split."""

    QUORUM = "quorum"
    ISLAND = "island"


class Why(Enum):
    """Why a job has to stop."""

    EXPIRING = "the lease could not be renewed"
    HANDED_OVER = "another node takes over"
    UNWANTED = "it is not to run here any more"
    SECOND = "another node runs it as well"


@dataclass(frozen=True, slots=True)
class Want:
    """A job that may run here.

    Attributes:
        job: Its name, unique in the network.
        group: Whose voters grant its lease.
        mode: What is promised in a split.
        prefer: Nodes that get it first.
        avoid: Nodes that get it last.
    """

    job: str
    group: str
    mode: Mode
    prefer: frozenset[str] = frozenset()
    avoid: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Run:
    """The job runs here from now on.

    Attributes:
        job: Which.
        ballot: Names this holding of the lease in this life of the server.
        fence: Goes with the job's writes; larger than that of any holder before.
        until_s: The job is to be dead by then, if nothing else is told; boottime.
            Infinity where no lease bounds it (`Mode.ISLAND`).
    """

    job: str
    ballot: int
    fence: int
    until_s: float


@dataclass(frozen=True, slots=True)
class Extended:
    """The lease of a running job was renewed."""

    job: str
    ballot: int
    until_s: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the job, then say `Leases.vouched`; it is killed at `until_s`."""

    job: str
    ballot: int
    why: Why
    until_s: float


@dataclass(frozen=True, slots=True)
class Kill:
    """The lease has ended: kill the job at once, before anything else, then vouch for that."""

    job: str
    ballot: int


@dataclass(frozen=True, slots=True)
class Keep:
    """Write this down, durably; then call `Leases.kept` with the number.

    Attributes:
        number: Names it; None where nothing waits for it.
        kept: What to hand in at the next start.
    """

    number: int | None
    kept: Memory


@dataclass(frozen=True, slots=True)
class Observed:
    """The server's tock must not be smaller than this before what follows is sent."""

    tock: int


@dataclass(frozen=True, slots=True)
class Changed:
    """The voters of a group are known to be others; to be shown in the tree."""

    group: str
    view: View


@dataclass(frozen=True, slots=True)
class Vouched:
    """A board says that all processes of a job are dead and that it holds the job's lock itself.

    Attributes:
        job: Which.
        rid: Of the server under which it ran, this one or a former life.
        ballot: Under which it ran.
        serial: Of the board, so that one with a copied card does not speak for another.
    """

    job: str
    rid: Rid
    ballot: int
    serial: str


@dataclass(frozen=True, slots=True)
class Memory:
    """What a server must not forget about leases.

    Attributes:
        boot: Names the boot of the machine in which it last granted.
        lease_max_ms: The longest lease that it has granted.
        groups: What it knows and has promised of each group's voters.
    """

    boot: str
    lease_max_ms: int
    groups: dict[str, Kept]


def muted_until(now: float, boot: str, memory: Memory | None) -> float:
    """Return until when a server that starts must not grant: its former self may have.

    Of a former boot everything had ended when this one began, at boottime 0.  Where nothing is
    known (a new board, or one that was wiped while it ran), it may have been a moment ago.

    Args:
        now: Boottime in seconds.
        boot: Names this boot of the machine.
        memory: What the former self has left.
    """
    lease_ms = LEASE_DEFAULT_MS if memory is None else memory.lease_max_ms
    if memory is not None and memory.boot != boot:
        return bound_s(lease_ms)
    return now + bound_s(lease_ms)


Event = Outgoing | Run | Extended | Stop | Kill | Keep | Observed | Changed
