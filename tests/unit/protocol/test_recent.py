"""What is only under way is told from what is lacking."""

from __future__ import annotations

from kvedge.model.stamp import Dot, Rid
from kvedge.model.vector import Vector
from kvedge.protocol.recent import KNOWN_MAX_S, UNDER_WAY_S, Recent
from kvedge.protocol.replication import GAP_WAIT_S

ONE = Rid("one", 1 << 40)


def upto(tick: int) -> Vector:
    made = Vector()
    made.add_range(ONE, 1, tick)
    return made


def watched(ticks: int) -> Recent:
    """Return one to which a change was told each UNDER_WAY_S, the last one at their product."""
    recent = Recent()
    for tick in range(1, ticks + 1):
        recent.note(upto(tick), tick * UNDER_WAY_S)
    return recent


def test_what_was_seen_a_moment_ago_is_under_way() -> None:
    assert watched(5).explains(upto(4), 5 * UNDER_WAY_S)


def test_what_was_seen_before_that_is_lacking() -> None:
    assert not watched(5).explains(upto(3), 5 * UNDER_WAY_S)


def test_a_gap_lacks_something_however_new_the_rest_is() -> None:
    have = upto(2)
    have.add(Dot(ONE, 4))
    assert not watched(5).explains(have, 5 * UNDER_WAY_S)


def test_who_has_nothing_lacks_everything() -> None:
    assert not watched(5).explains(Vector(), 5 * UNDER_WAY_S)


def test_looking_often_changes_nothing() -> None:
    recent = Recent()
    recent.note(upto(1), 0.0)
    recent.note(upto(2), UNDER_WAY_S / 2)
    assert not recent.explains(upto(1), UNDER_WAY_S / 2)
    recent.note(upto(3), UNDER_WAY_S)
    assert recent.explains(upto(1), UNDER_WAY_S)


def test_a_vector_that_goes_on_growing_is_not_remembered_as_it_becomes() -> None:
    recent, seen = Recent(), upto(1)
    recent.note(seen, 0.0)
    recent.note(seen, UNDER_WAY_S)
    seen.add(Dot(ONE, 2))
    assert recent.explains(upto(1), UNDER_WAY_S)


def test_without_a_look_for_long_nothing_is_known() -> None:
    recent, end_s = watched(5), 5 * UNDER_WAY_S
    assert not recent.explains(upto(4), end_s + KNOWN_MAX_S)


def test_an_empty_server_explains_nothing() -> None:
    recent = Recent()
    assert not recent.explains(upto(1), 0.0)
    recent.note(Vector(), 0.0)
    recent.note(Vector(), UNDER_WAY_S)
    assert not recent.explains(Vector(), UNDER_WAY_S)


def test_a_gap_is_older_than_what_is_under_way() -> None:
    assert 2 * UNDER_WAY_S <= GAP_WAIT_S  # two looks, at most so far apart
