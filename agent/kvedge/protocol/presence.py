"""Presence: which nodes are seen, from their beats, their goodbyes and their last wills.

Every node beats at a fixed interval.  It is seen from its first beat until it says goodbye,
its broker publishes its will, or it is silent for three intervals.  That is a hint, as any
detector in a network without bounds on delay must be (Chandra and Toueg, "Unreliable Failure
Detectors for Reliable Distributed Systems", 1996): leases and records do not rely on it.

A broker publishes the will of a connection when it notices its end, which may be long after the
node has connected anew.  So a will names rid and number of its connection, and one that is
older than what was heard since says nothing.  In the same way a beat of an older incarnation says
nothing while a newer one is seen.

What is no longer seen is forgotten: a node that beats is seen, whatever was said of it before,
so a wrong will costs one interval.  A beat that comes after the will of its own connection makes
a node seen for as long as silence may last, and no longer.

A caller that was asleep hands over the beats that wait before it calls `expire`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from kvedge.limits import NODES_MAX, SILENCE_MAX_S
from kvedge.model.stamp import Rid


@dataclass(frozen=True, slots=True, order=True)
class Beat:
    """What a node says of itself, and what its will says; orders by age.

    Attributes:
        rid: Who beats.
        connection: Number of its connection to the broker, from 1 in each incarnation.
        version: Of its program, for people to read; empty where it did not say.
    """

    rid: Rid
    connection: int
    version: str = field(default="", compare=False)


class Reason(Enum):
    """Why a node is no longer seen."""

    SILENT = "silent"
    WILL = "will"
    GOODBYE = "goodbye"


@dataclass(frozen=True, slots=True)
class Seen:
    """A node is there; where it was seen before under another rid, it was started anew."""

    node: str
    rid: Rid


@dataclass(frozen=True, slots=True)
class Unseen:
    """A node is no longer there."""

    node: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Crowded:
    """A node beats, but as many as may be are seen already: it is not followed."""

    node: str


Event = Seen | Unseen | Crowded


class Presence:
    """Who is seen.  `now` is boottime in seconds, and never less than before."""

    def __init__(self) -> None:
        # In the order of their last beats, so the first is the next to fall silent.
        self._last: dict[str, tuple[Beat, float]] = {}

    def seen(self) -> dict[str, Rid]:
        """Return the nodes that are seen, and under which rid."""
        return {node: beat.rid for node, (beat, _) in self._last.items()}

    def version_of(self, node: str) -> str:
        """Return which version of the program a node runs.

        Empty where the node is not seen, or does not say.
        """
        known = self._known(node)
        return known.version if known else ""

    def heard(self) -> dict[str, float]:
        """Return when each node that is seen was heard last."""
        return {node: heard for node, (_, heard) in self._last.items()}

    def receive(self, beat: Beat, now: float) -> list[Event]:
        """Take note of a beat."""
        node = beat.rid.node
        known = self._known(node)
        if known is None and len(self._last) >= NODES_MAX:
            return [Crowded(node)]
        if known is not None and beat < known:
            return []
        self._last.pop(node, None)
        self._last[node] = (beat, now)
        return [] if known and known.rid == beat.rid else [Seen(node, beat.rid)]

    def will(self, will: Beat) -> list[Event]:
        """Take note of the last will of a connection."""
        known = self._known(will.rid.node)
        if known is None or will < known:
            return []
        return self._forget(will.rid.node, Reason.WILL)

    def goodbye(self, rid: Rid) -> list[Event]:
        """Take note that an incarnation ends on purpose."""
        known = self._known(rid.node)
        if known is None or rid < known.rid:
            return []
        return self._forget(rid.node, Reason.GOODBYE)

    def expire(self, now: float) -> list[Event]:
        """Return the nodes that have been silent for too long."""
        silent = []
        for node, (_, heard) in self._last.items():
            if now < heard + SILENCE_MAX_S:
                break
            silent.append(node)
        return [event for node in silent for event in self._forget(node, Reason.SILENT)]

    def next_deadline(self) -> float | None:
        """Return when to call `expire`, None while no node is seen."""
        for _, heard in self._last.values():
            return heard + SILENCE_MAX_S
        return None

    def _known(self, node: str) -> Beat | None:
        known = self._last.get(node)
        return known[0] if known else None

    def _forget(self, node: str, reason: Reason) -> list[Event]:
        del self._last[node]
        return [Unseen(node, reason)]
