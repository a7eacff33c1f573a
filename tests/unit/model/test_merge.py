"""The merge rule: the same winner in any order and multiplicity, and no silent loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from kvedge.model.chain import Chain, Covers, covers
from kvedge.model.entry import Entry
from kvedge.model.merge import Conflict, Outcome, merge
from kvedge.model.stamp import Dot, Rid

Rule = Callable[[Entry | None, Entry], Outcome]


def entry(tock: int, *links: tuple[str, int, int], value: bytes = b"\x01") -> Entry:
    chain = tuple(Dot(Rid(node, incarnation), tick) for node, incarnation, tick in links)
    return Entry(tock, chain, value)


A = entry(5, ("a", 1, 1))
FULL = entry(9, *((node, 1, 1) for node in "bcdef"))


@pytest.mark.parametrize(
    ("mine", "theirs", "winner", "conflict"),
    [
        # the larger tock, then the larger rid, then the larger tick
        (A, entry(6, ("a", 1, 2)), "theirs", Conflict.NONE),
        (A, entry(4, ("b", 1, 1)), "mine", Conflict.CONCURRENT),
        (A, entry(5, ("b", 1, 1)), "theirs", Conflict.CONCURRENT),
        (A, entry(5, ("a", 2, 1)), "theirs", Conflict.NONE),
        (A, entry(5, ("a", 1, 2)), "theirs", Conflict.NONE),
        (A, entry(5, ("a", 1, 0)), "mine", Conflict.NONE),
        # a winner that knew the loser
        (A, entry(6, ("b", 1, 1), ("a", 1, 1)), "theirs", Conflict.NONE),
        (A, entry(6, ("b", 1, 1), ("a", 1, 9)), "theirs", Conflict.NONE),
        # a winner that did not: the chain does not decide
        (A, entry(6, ("b", 1, 1)), "theirs", Conflict.CONCURRENT),
        (entry(5, ("a", 2, 1)), entry(6, ("b", 1, 1), ("a", 1, 9)), "theirs", Conflict.CONCURRENT),
        (entry(6, ("a", 1, 1)), entry(5, ("b", 1, 1), ("a", 1, 1)), "mine", Conflict.CONCURRENT),
        # a winner whose chain was cut
        (A, FULL, "theirs", Conflict.UNSURE),
    ],
)
def test_cases(mine: Entry, theirs: Entry, winner: str, conflict: Conflict) -> None:
    won, lost = (mine, theirs) if winner == "mine" else (theirs, mine)
    assert merge(mine, theirs) == Outcome(won, lost, conflict)
    assert merge(theirs, mine) == Outcome(won, lost, conflict)


def test_nothing_to_merge_with() -> None:
    assert merge(None, A) == Outcome(A)
    assert merge(A, A) == Outcome(A)


# --- properties ------------------------------------------------------------------------------


def histories() -> st.SearchStrategy[list[Entry]]:
    """Draw entries of one path as servers may make them: no dot stands for two changes."""
    rids = st.builds(Rid, st.sampled_from("abc"), st.integers(1, 2))
    links = st.lists(
        st.builds(Dot, rids, st.integers(1, 3)), min_size=1, unique_by=lambda dot: dot.rid.node
    )
    entries = st.builds(Entry, st.integers(1, 2), links.map(tuple), st.binary(max_size=1))
    return st.lists(entries, min_size=1, max_size=6, unique_by=lambda e: e.dot)


def winner(rule: Rule, entries: list[Entry]) -> Entry:
    held: Entry | None = None
    for one in entries:
        held = rule(held, one).winner
    assert held is not None
    return held


def joined(rule: Rule, *groups: list[Entry]) -> Entry:
    """Merge groups on servers of their own, then the servers with each other."""
    return reduce(lambda one, other: rule(one, other).winner, (winner(rule, g) for g in groups))


def disagreement(rule: Rule, entries: list[Entry], arrivals: list[Entry], cut: int) -> bool:
    """Tell whether two servers that have seen the same entries may hold different ones."""
    expected = winner(rule, entries)
    return (
        winner(rule, arrivals) != expected
        or joined(rule, arrivals[: cut + 1], arrivals) != expected
        or joined(rule, entries, entries) != expected
    )


def arrivals_of(data: st.DataObject, entries: list[Entry]) -> list[Entry]:
    """Draw an order in which all of the entries arrive, some of them more than once."""
    again = data.draw(st.lists(st.sampled_from(entries), max_size=4))
    return data.draw(st.permutations(entries + again))


@given(st.data(), histories(), st.integers(0, 9))
def test_order_grouping_and_repetition_do_not_matter(
    data: st.DataObject, entries: list[Entry], cut: int
) -> None:
    assert not disagreement(merge, entries, arrivals_of(data, entries), cut)


@given(...)
def test_two_entries(one: Entry, other: Entry) -> None:
    outcome = merge(one, other)
    assert outcome.winner.rank == max(one.rank, other.rank)
    if one.rank == other.rank:
        assert outcome == Outcome(one)
    else:
        assert merge(other, one) == outcome
        assert {outcome.winner.rank, outcome.loser and outcome.loser.rank} == {one.rank, other.rank}


@given(...)
def test_loser_is_told_unless_the_winner_knew_it(one: Entry, other: Entry) -> None:
    outcome = merge(one, other)
    known = outcome.loser is None or covers(outcome.winner.chain, outcome.loser.dot) is Covers.YES
    assert (outcome.conflict is Conflict.NONE) == known


# --- the properties find wrong rules ---------------------------------------------------------


def picks(better: Callable[[Entry, Entry], bool]) -> Rule:
    """Make a rule of what to hold when both are there."""

    def rule(mine: Entry | None, theirs: Entry) -> Outcome:
        return Outcome(theirs if mine is None or better(theirs, mine) else mine)

    return rule


def knows(chain: Chain, dot: Dot) -> bool:
    return covers(chain, dot) is Covers.YES


WRONG: dict[str, Rule] = {
    "the last to arrive": picks(lambda new, _: True),
    "the first to arrive": picks(lambda *_: False),
    "ties go to what arrives": picks(lambda new, old: new.tock >= old.tock),
    "ties go to what is there": picks(lambda new, old: new.tock > old.tock),
    "incarnations are forgotten": picks(
        lambda new, old: (
            (new.tock, new.dot.rid.node, new.dot.tick) > (old.tock, old.dot.rid.node, old.dot.tick)
        )
    ),
    "the chain decides first": picks(
        lambda new, old: (
            knows(new.chain, old.dot) or (not knows(old.chain, new.dot) and new.rank > old.rank)
        )
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_rule_is_found(name: str) -> None:
    @settings(max_examples=2000, database=None, derandomize=True, phases=[Phase.generate])
    @given(st.data(), histories(), st.integers(0, 9))
    def agree(data: st.DataObject, entries: list[Entry], cut: int) -> None:
        assert not disagreement(WRONG[name], entries, arrivals_of(data, entries), cut)

    with pytest.raises(AssertionError):
        agree()
