"""Chains: the newest changes of an entry, newest first, one link per node, at most five.

A chain serves compare-and-set and tells which of two concurrent changes did not know the other.
It never decides a merge.  A link covers all earlier dots of its node, in the order of
(incarnation, tick).  A full chain may have lost a link, so it cannot tell for a node that it
does not name.
"""

from __future__ import annotations

from enum import Enum

from kvedge.limits import CHAIN_LINKS_MAX
from kvedge.model.stamp import Dot

Chain = tuple[Dot, ...]
"""Newest link first."""


class Covers(Enum):
    """Whether a chain knew of a dot."""

    YES = "yes"
    NO = "no"
    UNSURE = "unsure"


def extend(chain: Chain, dot: Dot) -> Chain:
    """Return the chain of an entry after one more change.

    >>> from kvedge.model.stamp import Rid
    >>> a, b = Dot(Rid("a", 1), 7), Dot(Rid("b", 1), 3)
    >>> extend((a, b), Dot(Rid("b", 1), 4)) == (Dot(Rid("b", 1), 4), a)
    True
    """
    rest = tuple(link for link in chain if link.rid.node != dot.rid.node)
    return (dot, *rest[: CHAIN_LINKS_MAX - 1])


def covers(chain: Chain, dot: Dot) -> Covers:
    """Tell whether whoever made a chain knew of a change."""
    for link in chain:
        if link.rid.node == dot.rid.node:
            known = (link.rid.incarnation, link.tick) >= (dot.rid.incarnation, dot.tick)
            return Covers.YES if known else Covers.NO
    return Covers.UNSURE if len(chain) >= CHAIN_LINKS_MAX else Covers.NO
