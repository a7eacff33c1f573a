"""A voter: grants the lease of each job to one server at a time.

A grant binds the voter for longer than the holder counts.  It ends early only by the word of the
board that held it: node, ballot and the board's serial must be those of the grant.  A last will
proves nothing, for it cannot tell a dead board from a cut cable.

A ballot that was released, or is older than one that was seen, is not granted any more, however
late its question comes.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvedge.limits import NODES_MAX
from kvedge.model.stamp import Rid
from kvedge.protocol.lease.messages import (
    Ask,
    Free,
    Grant,
    Held,
    Look,
    Message,
    Release,
    Released,
    Told,
)
from kvedge.protocol.lease.terms import bound_s
from kvedge.protocol.lease.voters import Stamp, View

JOBS_MAX = 4096
"""Jobs whose grants are remembered; a network of 200 boards has hundreds."""

LOOKED_MAX_S = 60.0
"""Who has looked for a lease for so long ago is not told that it is free."""


@dataclass(slots=True)
class _Grant:
    rid: Rid
    ballot: int
    round: int
    serial: str
    is_held: bool
    until_s: float


@dataclass(frozen=True, slots=True)
class Post:
    """A message for one node, this one included; None: for everybody."""

    to: str | None
    message: Message


class Granter:
    """The voter's part of a server.

    Args:
        muted_until_s: Before, nothing is granted; see `terms.muted_until`.
    """

    def __init__(self, muted_until_s: float) -> None:
        self._muted_until_s = muted_until_s
        self._grants: dict[str, _Grant] = {}
        self._seen: dict[str, dict[Rid, int]] = {}  # largest ballot that is over
        self._looked: dict[str, dict[str, float]] = {}

    def look(self, sender: Rid, look: Look, now: float) -> list[Post]:
        """Say for how long a lease is granted."""
        waiting = self._looked.setdefault(look.job, {})
        if sender.node in waiting or len(waiting) < NODES_MAX:
            waiting[sender.node] = now
        self._prune(now)
        return [Post(sender.node, self._held(look.job, 0, now))]

    def ask(self, sender: Rid, ask: Ask, view: View, now: float, tock: int) -> list[Post]:
        """Grant a lease, or say why not.

        Args:
            sender: Who asks.
            ask: For what.
            view: What this server knows of the group's voters; it is one of them.
            now: Boottime in seconds.
            tock: Nothing larger has been seen here.
        """
        if self._is_stale(ask.stamp, view):
            return [Post(sender.node, Told(ask.group, view))]
        if now < self._muted_until_s or self._is_taken(sender, ask, now):
            return [Post(sender.node, self._held(ask.job, ask.ballot, now))]
        if ask.ballot <= self._seen.get(ask.job, {}).get(sender, 0):
            return []
        known = self._grants.get(ask.job)
        until_s = now + bound_s(ask.lease_ms)
        if known is None or known.rid != sender or known.ballot != ask.ballot:
            if known is not None and known.rid == sender:
                until_s = max(until_s, known.until_s)
                self._note_over(ask.job, sender, known.ballot)
            self._grants[ask.job] = _Grant(
                sender, ask.ballot, ask.round, ask.serial, ask.fence > 0, until_s
            )
        elif ask.round > known.round:
            known.round, known.until_s = ask.round, max(until_s, known.until_s)
            known.is_held = ask.fence > 0
        elif ask.round < known.round:
            return []
        return [Post(sender.node, Grant(ask.job, ask.ballot, ask.round, max(tock, ask.fence)))]

    def release(self, sender: Rid, release: Release, now: float) -> list[Post]:
        """End a grant early, by the word of the board that had it."""
        job, rid, ballot = release.job, release.rid, release.ballot
        if sender.node != rid.node:
            return []
        answer = [Post(sender.node, Released(job, ballot))]
        known = self._grants.get(job)
        is_live = known is not None and known.rid == rid and known.ballot == ballot
        if is_live and known is not None and known.serial != release.serial:
            return []
        self._note_over(job, rid, ballot)
        if not is_live:
            return answer
        del self._grants[job]
        if release.was_held:
            waiting = self._looked.pop(job, {})
            free = Free(job, release.heir)
            answer += [Post(node, free) for node in waiting if node != sender.node]
        return answer

    def _is_stale(self, stamp: Stamp, view: View) -> bool:
        """Tell whether an asker counts voters of which some may not count any more."""
        return stamp < view.stamp

    def _is_taken(self, sender: Rid, ask: Ask, now: float) -> bool:
        known = self._grants.get(ask.job)
        if known is None or now >= known.until_s:
            return False
        return known.rid != sender or ask.ballot < known.ballot

    def _held(self, job: str, ballot: int, now: float) -> Held:
        known = self._grants.get(job)
        muted_s = self._muted_until_s - now
        left_s = max(muted_s, 0.0 if known is None else known.until_s - now)
        is_firm = muted_s > 0 or (known is not None and known.is_held)
        return Held(job, ballot, _ms(left_s), is_firm)

    def _note_over(self, job: str, rid: Rid, ballot: int) -> None:
        over = self._seen.setdefault(job, {})
        over[rid] = max(ballot, over.pop(rid, 0))
        if len(over) > NODES_MAX:
            del over[next(iter(over))]

    def _prune(self, now: float) -> None:
        """Forget what is over, where it has become much."""
        if len(self._looked) + len(self._seen) <= 2 * JOBS_MAX:
            return
        for job in [job for job, grant in self._grants.items() if now >= grant.until_s]:
            del self._grants[job]
        gone = [j for j, w in self._looked.items() if max(w.values()) < now - LOOKED_MAX_S]
        for job in gone:
            del self._looked[job]
        for job in self._seen.keys() - self._grants.keys() - self._looked.keys():
            del self._seen[job]


def _ms(seconds: float) -> int:
    """Round up: who comes back a moment too early has to come again."""
    return int(seconds * 1000) + 1 if seconds > 0 else 0
