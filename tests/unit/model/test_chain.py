"""Chains: one link per node, newest first, bounded; what a chain knows of."""

from __future__ import annotations

import pytest
from hypothesis import given

from kvedge.limits import CHAIN_LINKS_MAX
from kvedge.model.chain import Chain, Covers, covers, extend
from kvedge.model.stamp import Dot, Rid


def dots(text: str) -> Chain:
    """Read links: "a1.7 b2.3" are tick 7 of a's first life, and tick 3 of b's second."""
    parts = [(word[0], word[1:].split(".")) for word in text.split()]
    return tuple(Dot(Rid(node, int(life)), int(tick)) for node, (life, tick) in parts)


@pytest.mark.parametrize(
    ("chain", "dot", "extended"),
    [
        ("", "a1.1", "a1.1"),
        ("a1.1", "a1.2", "a1.2"),
        ("a1.9", "a2.1", "a2.1"),
        ("a1.1", "b1.1", "b1.1 a1.1"),
        ("a1.1 b1.1", "b1.2", "b1.2 a1.1"),
        ("a1.1 b1.1 c1.1 d1.1 e1.1", "f1.1", "f1.1 a1.1 b1.1 c1.1 d1.1"),
        ("a1.1 b1.1 c1.1 d1.1 e1.1", "e1.2", "e1.2 a1.1 b1.1 c1.1 d1.1"),
    ],
)
def test_extend(chain: str, dot: str, extended: str) -> None:
    assert extend(dots(chain), *dots(dot)) == dots(extended)


@pytest.mark.parametrize(
    ("chain", "dot", "known"),
    [
        ("", "a1.1", Covers.NO),
        ("a1.5", "a1.5", Covers.YES),
        ("a1.5", "a1.4", Covers.YES),
        ("a1.5", "a1.6", Covers.NO),
        # an incarnation comes after all of the earlier ones
        ("a2.1", "a1.9", Covers.YES),
        ("a1.9", "a2.1", Covers.NO),
        ("b1.1 a1.5", "a1.5", Covers.YES),
        ("b1.1", "a1.1", Covers.NO),
        # a full chain may have lost a link
        ("a1.1 b1.1 c1.1 d1.1", "f1.1", Covers.NO),
        ("a1.1 b1.1 c1.1 d1.1 e1.1", "f1.1", Covers.UNSURE),
        ("a1.1 b1.1 c1.1 d1.1 e1.1", "e1.2", Covers.NO),
        ("a1.1 b1.1 c1.1 d1.1 e1.1", "e1.1", Covers.YES),
    ],
)
def test_covers(chain: str, dot: str, known: Covers) -> None:
    assert covers(dots(chain), *dots(dot)) is known


@given(...)
def test_history_of_an_entry(changes: list[Dot]) -> None:
    chain: Chain = ()
    for dot in changes:
        before, chain = chain, extend(chain, dot)
        nodes = [link.rid.node for link in chain]
        assert chain[0] == dot
        assert len(set(nodes)) == len(nodes) <= CHAIN_LINKS_MAX
        # What the chain knew, it still knows or, where it was cut, is unsure of.
        others = [link for link in before if link.rid.node != dot.rid.node]
        assert all(covers(chain, link) is not Covers.NO for link in (dot, *others))
        assert chain[1:] == tuple(others[: CHAIN_LINKS_MAX - 1])
