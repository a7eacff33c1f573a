"""The one rule by which two servers that have seen the same records hold the same tree.

Per path, the record with the largest (tock, rid, tick) wins.  That is a maximum over a total
order, so it is commutative, associative and idempotent: order, loss and duplication of messages
cannot matter.  The chain never decides.  It only tells whether the winner knew the loser; where
it did not, the loser's author records a conflict, so that no write is lost silently.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from kvedge.model.chain import Covers, covers
from kvedge.model.entry import Entry


class Conflict(Enum):
    """Why the loser of a merge is worth telling."""

    NONE = "none"
    CONCURRENT = "concurrent"
    UNSURE = "unsure"


_CONFLICT = {
    Covers.YES: Conflict.NONE,
    Covers.NO: Conflict.CONCURRENT,
    Covers.UNSURE: Conflict.UNSURE,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a merge comes to.

    Attributes:
        winner: The entry to hold.
        loser: The other one, None where there was none or both are the same change.
        conflict: Whether the winner was made without knowing the loser.
    """

    winner: Entry
    loser: Entry | None = None
    conflict: Conflict = Conflict.NONE


def merge(mine: Entry | None, theirs: Entry) -> Outcome:
    """Return which of two entries of one path is held, and what becomes of the other."""
    if mine is None or mine.rank == theirs.rank:
        return Outcome(mine or theirs)
    winner, loser = (mine, theirs) if mine.rank > theirs.rank else (theirs, mine)
    return Outcome(winner, loser, _CONFLICT[covers(winner.chain, loser.dot)])
