"""Presence: seen while beats come in time, unseen soon after they stop, never by an old will."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvedge.limits import BEAT_INTERVAL_S, NODES_MAX, SILENCE_MAX_S
from kvedge.model.stamp import Rid
from kvedge.protocol.presence import Beat, Crowded, Event, Presence, Reason, Seen, Unseen

A = Rid("a", 5)
B = Rid("b", 1)

BEATS = st.builds(Beat, st.builds(Rid, st.sampled_from("ab"), st.integers(1, 3)), st.integers(1, 3))


def watched(rid: Rid = A, connection: int = 1, now: float = 0.0) -> Presence:
    """Return a presence in which one node is seen."""
    presence = Presence()
    assert presence.receive(Beat(rid, connection), now) == [Seen(rid.node, rid)]
    return presence


def test_silence_is_three_intervals() -> None:
    assert SILENCE_MAX_S == 3 * BEAT_INTERVAL_S


def test_nobody_is_seen_at_first() -> None:
    presence = Presence()
    assert presence.seen() == {}
    assert presence.next_deadline() is None
    assert presence.expire(1e9) == []


def test_first_beat_is_told_and_no_other() -> None:
    presence = watched()
    assert presence.receive(Beat(A, 1), 2) == []
    assert presence.seen() == {"a": A}
    assert presence.receive(Beat(A, 2), 4) == []


# --- silence ----------------------------------------------------------------------------------


@given(st.lists(st.floats(0, SILENCE_MAX_S, exclude_max=True), max_size=30), st.floats(0, 1e7))
def test_never_unseen_while_beats_come_in_time(gaps: list[float], start: float) -> None:
    presence, now = watched(now=start), start
    for gap in gaps:
        next_beat = now + gap
        if next_beat < now + SILENCE_MAX_S:  # and not rounded up to it
            assert presence.expire(next_beat) == []
            now = next_beat
            assert presence.receive(Beat(A, 1), now) == []
    assert presence.seen() == {"a": A}


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 5), min_size=1))
def test_always_unseen_after_three_intervals_of_silence(heard: dict[str, float]) -> None:
    presence = Presence()
    for node, now in sorted(heard.items(), key=lambda item: item[1]):
        presence.receive(Beat(Rid(node, 1), 1), now)
    told: list[Event] = []
    while (deadline := presence.next_deadline()) is not None:
        assert deadline == min(heard[node] for node in presence.seen()) + SILENCE_MAX_S
        now_silent = presence.expire(deadline)
        assert now_silent  # whoever waits for the deadline never waits in vain
        told += now_silent
    wanted = [Unseen(node, Reason.SILENT) for node in heard]
    assert sorted(told, key=str) == sorted(wanted, key=str)
    assert presence.seen() == {}


def test_other_node_may_beat_while_one_is_silent() -> None:
    presence = watched()
    for now in (1, 2, 5):
        presence.receive(Beat(B, 1), now)
    presence.receive(Beat(A, 1), 5.5)
    assert presence.next_deadline() == 5 + SILENCE_MAX_S
    assert presence.expire(5 + SILENCE_MAX_S) == [Unseen("b", Reason.SILENT)]
    assert presence.seen() == {"a": A}


def test_seen_again_after_silence() -> None:
    presence = watched()
    presence.expire(100)
    assert presence.receive(Beat(A, 1), 101) == [Seen("a", A)]


# --- incarnations and connections -------------------------------------------------------------


def test_newer_incarnation_takes_the_place_and_the_older_is_not_heard() -> None:
    presence = watched()
    newer = Rid("a", 6)
    assert presence.receive(Beat(newer, 1), 1) == [Seen("a", newer)]
    assert presence.receive(Beat(A, 9), 5) == []
    assert presence.goodbye(A) == []
    assert presence.will(Beat(A, 9)) == []
    assert presence.seen() == {"a": newer}
    assert presence.next_deadline() == 1 + SILENCE_MAX_S


def test_older_incarnation_is_heard_once_the_newer_is_gone() -> None:
    presence = watched()
    assert presence.expire(SILENCE_MAX_S)
    older = Rid("a", 4)
    assert presence.receive(Beat(older, 1), 7) == [Seen("a", older)]


def test_late_beat_of_an_older_connection_keeps_nobody_alive() -> None:
    presence = watched(connection=2)
    assert presence.receive(Beat(A, 1), 5) == []
    assert presence.expire(SILENCE_MAX_S) == [Unseen("a", Reason.SILENT)]


@pytest.mark.parametrize(
    ("will", "counts"),
    [
        (Beat(A, 1), False),
        (Beat(A, 2), True),
        (Beat(A, 3), True),
        (Beat(Rid("a", 4), 9), False),
        (Beat(Rid("a", 6), 1), True),
        (Beat(B, 2), False),
    ],
)
def test_will_counts_for_its_connection_and_what_came_before(will: Beat, *, counts: bool) -> None:
    presence = watched(connection=2)
    assert presence.will(will) == ([Unseen("a", Reason.WILL)] if counts else [])
    assert ("a" in presence.seen()) is not counts


@given(st.lists(BEATS, min_size=1, max_size=20), BEATS)
def test_will_of_an_older_connection_is_ignored(beats: list[Beat], will: Beat) -> None:
    presence = Presence()
    for now, beat in enumerate(beats):
        presence.receive(beat, now / 100)
    before, deadline = presence.seen(), presence.next_deadline()
    newest = max((beat for beat in beats if beat.rid.node == will.rid.node), default=None)
    events = presence.will(will)
    if newest is None or will < newest:
        assert (events, presence.seen(), presence.next_deadline()) == ([], before, deadline)
    else:
        assert events == [Unseen(will.rid.node, Reason.WILL)]


def test_beat_after_a_wrong_will_is_believed() -> None:
    presence = watched()
    presence.will(Beat(A, 1))
    assert presence.receive(Beat(A, 1), 1) == [Seen("a", A)]


@pytest.mark.parametrize(("incarnation", "counts"), [(4, False), (5, True), (6, True)])
def test_goodbye_counts_for_its_incarnation_and_older_ones(
    incarnation: int, *, counts: bool
) -> None:
    presence = watched()
    told = presence.goodbye(Rid("a", incarnation))
    assert told == ([Unseen("a", Reason.GOODBYE)] if counts else [])


def test_goodbye_of_a_stranger_says_nothing() -> None:
    assert watched().goodbye(B) == []


# --- bounds and order -------------------------------------------------------------------------


def test_nodes_are_bounded_and_a_place_becomes_free() -> None:
    presence = Presence()
    for number in range(NODES_MAX):
        presence.receive(Beat(Rid(f"n{number}", 1), 1), 0)
    assert presence.receive(Beat(A, 1), 1) == [Crowded("a")]
    assert presence.receive(Beat(Rid("n0", 2), 1), 1) == [Seen("n0", Rid("n0", 2))]
    assert len(presence.seen()) == NODES_MAX
    assert presence.goodbye(Rid("n1", 1))
    assert presence.receive(Beat(A, 1), 2) == [Seen("a", A)]
    assert len(presence.seen()) == NODES_MAX


STEPS = st.one_of(
    st.tuples(st.just("beat"), BEATS),
    st.tuples(st.just("will"), BEATS),
    st.tuples(st.just("goodbye"), BEATS),
    st.tuples(st.just("wait"), st.floats(0, 4)),
)


@given(st.lists(STEPS, max_size=60))
def test_events_tell_all_that_changes(steps: list[tuple[str, Beat | float]]) -> None:
    """Whoever follows the events knows who is seen."""
    presence, now = Presence(), 0.0
    followed: dict[str, Rid] = {}
    for verb, what in steps:
        if isinstance(what, float):
            now += what
            events = presence.expire(now)
        elif verb == "beat":
            events = presence.receive(what, now)
        elif verb == "will":
            events = presence.will(what)
        else:
            events = presence.goodbye(what.rid)
        for event in events:
            if isinstance(event, Seen):
                followed[event.node] = event.rid
            else:
                del followed[event.node]
        assert presence.seen() == followed
        deadline = presence.next_deadline()
        assert (deadline is None) is (not followed)
        assert deadline is None or now < deadline or verb != "wait"


# --- versions ---------------------------------------------------------------------------------


def test_the_version_is_the_newest_that_was_said() -> None:
    presence = Presence()
    assert presence.version_of("a") == ""
    presence.receive(Beat(A, 1, "0.1.0"), 0)
    assert presence.version_of("a") == "0.1.0"
    presence.receive(Beat(Rid("a", 6), 1, "0.2.0"), 1)
    assert presence.version_of("a") == "0.2.0"
    presence.receive(Beat(A, 2, "0.1.0"), 2)  # late, of the life before
    assert presence.version_of("a") == "0.2.0"
    presence.goodbye(Rid("a", 6))
    assert presence.version_of("a") == ""


def test_the_version_does_not_make_a_beat_another_one() -> None:
    presence = watched()
    assert presence.receive(Beat(A, 1, "0.1.0"), 1) == []
    assert presence.will(Beat(A, 1)) == [Unseen("a", Reason.WILL)]
