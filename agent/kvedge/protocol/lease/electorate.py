"""One server's knowledge of a group's voters, and its part in changing them.

A change is decided as in Paxos (Lamport, "Paxos Made Simple", 2001), once per epoch: an attempt
has a number; a majority of the old list promises to accept no smaller one and says what it has
accepted; that, or else what was wanted, is accepted durably by majorities of the old and the new
list.  A change that was begun is finished by whoever knows of it, so a proposer may die.

Whoever accepts says the largest tock it knows.  A lease under the old list alone was granted by
one of them before it accepted, so the largest of these tocks is no smaller than its fence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from kvedge.protocol.lease.granting import Post
from kvedge.protocol.lease.messages import (
    Accept,
    Accepted,
    Beaten,
    Prepare,
    Promise,
    Told,
)
from kvedge.protocol.lease.terms import Changed, bound_s
from kvedge.protocol.lease.voters import (
    COUNTER_MAX,
    Kept,
    Number,
    Proposal,
    View,
    Voters,
    is_quorum,
)

AGAIN_S = 1.0
"""Between two attempts to change the voters: some messages and three writes to a card."""

FINISH_AFTER_S = 5.0
"""A change that was accepted and is not known to count is looked into after this."""


@dataclass(frozen=True, slots=True)
class Write:
    """Keep what this server knows and has promised; then send these."""

    posts: tuple[Post, ...] = ()


Outcome = Post | Write | Changed


@dataclass(slots=True)
class _Change:
    """An attempt of ours."""

    voters: Voters
    number: Number
    again_s: float
    promises: dict[str, Proposal | None] = field(default_factory=dict)
    chosen: Proposal | None = None
    tocks: dict[str, int] = field(default_factory=dict)


class Electorate:
    """What one server knows of one group's voters.

    Args:
        node: Ours.
        group: Whose.
        kept: What this server knew at last.
        now: Boottime in seconds.
        random: Draws pauses.
        tock: Returns the largest tock that this server knows of.

    Attributes:
        view: What it knows now.
    """

    def __init__(
        self,
        node: str,
        group: str,
        kept: Kept,
        now: float,
        *,
        random: Random,
        tock: Callable[[], int],
    ) -> None:
        self._node = node
        self._group = group
        self.view = kept.view
        self._accepted = kept.view.proposal
        self._promised = kept.promised
        self._random = random
        self._tock = tock
        self._settled_s = self._settles(now)
        self._change: _Change | None = None
        self._counter = kept.promised.counter
        self._finish_s = self._finishes(now)

    @property
    def kept(self) -> Kept:
        """What to hand in at the next start."""
        return Kept(self.view._replace(proposal=self._accepted), self._promised)

    @property
    def is_voter(self) -> bool:
        """Tell whether this server may grant."""
        return self._node in self.view.nodes

    def lists(self, now: float) -> tuple[tuple[str, ...], ...]:
        """Return the lists of which a quorum needs a majority each."""
        return self.view.lists(is_settled=now >= self._settled_s)

    def asked(self, now: float) -> tuple[str, ...]:
        """Return who is asked for grants."""
        return tuple(dict.fromkeys(node for nodes in self.lists(now) for node in nodes))

    # --- changing -----------------------------------------------------------------------------

    def propose(self, nodes: tuple[str, ...], lease_ms: int, now: float) -> None:
        """Try to change the voters, from the next tick on, until some change counts."""
        voters = Voters(self.view.voters.epoch + 1, nodes, lease_ms)
        self._change = _Change(voters, Number(0, self._node), max(now, self._settled_s))

    def tick(self, now: float) -> list[Outcome]:
        """Begin an attempt that is due."""
        if self._change is None and self.view.proposal is not None and now >= self._finish_s:
            self._change = _Change(self.view.proposal.voters, Number(0, self._node), now)
        change = self._change
        if change is None or now < change.again_s:
            return []
        self._counter = min(max(self._counter, self._promised.counter) + 1, COUNTER_MAX - 1)
        change.number = Number(self._counter, self._node)
        change.again_s = now + AGAIN_S * (1 + self._random.random())
        change.chosen, change.promises, change.tocks = None, {}, {}
        prepare = Prepare(self._group, self._base(), change.number)
        return [Post(node, prepare) for node in self.view.voters.nodes]

    def next_deadline(self) -> float:
        """Return when to call `tick`."""
        if self._change is not None:
            return self._change.again_s
        return self._finish_s

    def learn(self, view: View, now: float) -> list[Outcome]:
        """Take note of what somebody else knows."""
        known = self.view
        if view.voters.epoch > known.voters.epoch:
            self.view = view
            self._accepted, self._promised = None, Number(0, "")
            self._settled_s = self._settles(now)
            self._change = None
            self._finish_s = self._finishes(now)
            return [Write(), Changed(self._group, view)]
        newer = view.proposal
        if view.voters.epoch == known.voters.epoch and newer is not None:
            older = known.proposal
            if older is None or older.number < newer.number:
                self.view = known._replace(proposal=newer)
                self._finish_s = self._finishes(now)
        return []

    # --- messages -----------------------------------------------------------------------------

    def prepare(self, sender: str, asked: Prepare, now: float) -> list[Outcome]:
        """Promise something to an attempt of somebody."""
        outcomes = self.learn(asked.base, now)
        if asked.base.voters.epoch < self.view.voters.epoch:
            return [Post(sender, Told(self._group, self.view))]
        if asked.number < self._promised:
            return [Post(sender, Beaten(self._group, asked.number, self._promised))]
        self._promised = asked.number
        answer = Post(sender, Promise(self._group, asked.number, self._accepted))
        return [*outcomes, Write((answer,))]

    def promise(self, sender: str, promise: Promise, now: float) -> list[Outcome]:
        """Go on with our attempt when a majority of the old list has promised."""
        change = self._change
        if change is None or change.number != promise.number or change.chosen is not None:
            return []
        change.promises[sender] = promise.accepted
        if not is_quorum((self.view.voters.nodes,), change.promises):
            return []
        before = [accepted for accepted in change.promises.values() if accepted is not None]
        voters = max(before).voters if before else change.voters
        change.chosen = Proposal(change.number, voters)
        accept = Accept(self._group, self._base(), change.chosen)
        return [Post(node, accept) for node in self._concerned(voters)]

    def accept(self, sender: str, asked: Accept, now: float) -> list[Outcome]:
        """Accept new voters, durably; from now on nothing is granted under the old list alone."""
        outcomes = self.learn(asked.base, now)
        number = asked.proposal.number
        if asked.base.voters.epoch < self.view.voters.epoch:
            return [Post(sender, Told(self._group, self.view))]
        if number < self._promised:
            return [Post(sender, Beaten(self._group, number, self._promised))]
        self._promised, self._accepted = number, asked.proposal
        if self.view.proposal is None or self.view.proposal.number <= number:
            self.view = self.view._replace(proposal=asked.proposal)
        self._finish_s = self._finishes(now)
        answer = Post(sender, Accepted(self._group, number, self._tock()))
        return [*outcomes, Write((answer,))]

    def accepted(self, sender: str, accepted: Accepted, now: float) -> list[Outcome]:
        """Tell everybody when majorities of both lists have accepted our attempt."""
        change = self._change
        if change is None or change.number != accepted.number or change.chosen is None:
            return []
        change.tocks[sender] = accepted.tock
        old, new = self.view.voters, change.chosen.voters
        if not is_quorum((old.nodes, new.nodes), change.tocks):
            return []
        tock = max(*change.tocks.values(), self.view.tock)
        view = View(new, before=old, tock=tock)
        outcomes = self.learn(view, now)
        told = Told(self._group, view)
        others = [node for node in self._concerned(new) if node != self._node]
        return [*outcomes, *(Post(node, told) for node in others)]

    def beaten(self, beaten: Beaten, now: float) -> list[Outcome]:
        """Try again with a larger number, some time later."""
        change = self._change
        if change is not None and change.number == beaten.number:
            self._counter = max(self._counter, beaten.promised.counter)
            change.again_s = now + AGAIN_S * (0.5 + 2 * self._random.random())
        return []

    def _base(self) -> View:
        return self.view._replace(proposal=None)

    def _concerned(self, new: Voters) -> list[str]:
        return list(dict.fromkeys(self.view.nodes + new.nodes))

    def _settles(self, now: float) -> float:
        before = self.view.before
        if before is None:
            return now
        return now + bound_s(max(before.lease_ms, self.view.voters.lease_ms))

    def _finishes(self, now: float) -> float:
        if self.view.proposal is None:
            return float("inf")
        return now + FINISH_AFTER_S * (1 + self._random.random())
