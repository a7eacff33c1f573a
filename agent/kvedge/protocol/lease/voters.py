"""Who grants the leases of a group: lists of voters with an epoch, and what counts as a quorum.

A **change** of voters counts when majorities of the old and of the new list have durably accepted
it.  Who has accepted it grants nothing under the old list any more, so from then on nobody gets a
majority of that alone.  Until it is known to count, and for one lease after that, a quorum is a
majority of both lists; then the last lease that was granted under the old list has ended, and
the new list is enough.  The next change begins after that.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

VOTERS_MAX = 9
"""More voters make a lease dearer and no safer: five may lose two."""

VOTERS_DEFAULT = 5
"""So many of a group's first nodes."""

ISLAND_BELOW = 3
"""Two voters are no better than one: the loss of either ends every majority."""

COUNTER_MAX = (1 << 40) - 1


class Voters(NamedTuple):
    """A list of voters.

    Attributes:
        epoch: Rises with each change, from 1.
        nodes: Their names.
        lease_ms: How long leases of the group are.
    """

    epoch: int
    nodes: tuple[str, ...]
    lease_ms: int


class Number(NamedTuple):
    """The number of an attempt to change the voters; the larger one wins."""

    counter: int
    node: str


class Proposal(NamedTuple):
    """A change that was accepted, and is not known to count."""

    number: Number
    voters: Voters


class View(NamedTuple):
    """What is known of a group's voters.

    Attributes:
        voters: The latest list that counts.
        before: The one that it replaced; None for the first.
        tock: The fences of the leases under the list before are not larger.
        proposal: What may count already; None mostly.
    """

    voters: Voters
    before: Voters | None = None
    tock: int = 0
    proposal: Proposal | None = None

    @property
    def stamp(self) -> Stamp:
        """Orders what is known of one group."""
        if self.proposal is None:
            return self.voters.epoch, COUNTER_MAX, ""
        return self.proposal.voters.epoch, *self.proposal.number

    @property
    def nodes(self) -> tuple[str, ...]:
        """All that are asked, each once."""
        known = self.voters.nodes
        if self.before is not None:
            known += self.before.nodes
        if self.proposal is not None:
            known += self.proposal.voters.nodes
        return tuple(dict.fromkeys(known))

    @property
    def lease_ms(self) -> int:
        """How long a lease is."""
        return self.voters.lease_ms

    def lists(self, *, is_settled: bool) -> tuple[tuple[str, ...], ...]:
        """Return the lists of which a quorum has a majority of each.

        Args:
            is_settled: All leases that were granted under the list before have ended.
        """
        found = [self.voters.nodes]
        if self.before is not None and not is_settled:
            found.append(self.before.nodes)
        if self.proposal is not None:
            found.append(self.proposal.voters.nodes)
        return tuple(found)


Stamp = tuple[int, int, str]


class Kept(NamedTuple):
    """What a voter must not forget.

    Attributes:
        view: What it knows; a proposal in it is one that it has accepted.
        promised: It accepts no proposal with a smaller number.
    """

    view: View
    promised: Number = Number(0, "")


def first_voters(nodes: Iterable[str], *, lease_ms: int) -> Voters:
    """Return the voters of a group that has had none.

    They are decided on once, by whoever makes the group: two lists of one epoch know nothing of
    each other.
    """
    return Voters(1, tuple(dict.fromkeys(nodes))[:VOTERS_DEFAULT], lease_ms)


def majority(nodes: tuple[str, ...]) -> int:
    """Return how many of a list are more than half of it."""
    return len(nodes) // 2 + 1


def is_quorum(lists: Iterable[tuple[str, ...]], agreed: Iterable[str]) -> bool:
    """Tell whether those who agree are a majority of each list."""
    found = set(agreed)
    return all(len(found.intersection(nodes)) >= majority(nodes) for nodes in lists)


def quorum_end(lists: Iterable[tuple[str, ...]], ends: dict[str, float]) -> float:
    """Return until when a quorum is bound.

    Args:
        lists: Those of which a quorum has a majority.
        ends: Until when each node that has granted is bound.
    """
    found = []
    for nodes in lists:
        known = sorted((ends[node] for node in nodes if node in ends), reverse=True)
        needed = majority(nodes)
        if len(known) < needed:
            return float("-inf")
        found.append(known[needed - 1])
    return min(found, default=float("-inf"))
