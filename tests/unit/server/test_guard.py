"""The guard against clocks that are ahead: what is held, for how long, and what is claimed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvedge.model.stamp import TOCK_MAX, Dot, Rid, tock_at
from kvedge.model.value import packb
from kvedge.model.vector import Vector
from kvedge.protocol.batches import Carried
from kvedge.server import guard as module
from kvedge.server.guard import AHEAD_MAX_MS, HELD_MAX, ClockGuard, is_ahead

PEER, OTHER = Rid("peer", 2 << 40), Rid("other", 1 << 40)
NOON_MS = 1_700_000_000_000
HOUR_MS = 3600 * 1000
YEAR_MS = 365 * 24 * HOUR_MS
BASES = {PEER: 100}


def record(tick: int = 1, tock: int = 0, rid: Rid = PEER) -> Carried:
    return Carried(b"k", tock, (Dot(rid, tick),), packb(1))


def ahead(by_ms: int, tick: int = 1, rid: Rid = PEER) -> Carried:
    return record(tick, tock_at(NOON_MS + by_ms), rid)


AHEAD: dict[str, tuple[int, int | None, bool]] = {
    # tock, wall clock, whether it is ahead
    "behind": (tock_at(NOON_MS - YEAR_MS), NOON_MS, False),
    "now": (tock_at(NOON_MS), NOON_MS, False),
    "the last moment of an hour": (tock_at(NOON_MS + HOUR_MS) + 0xFFFF, NOON_MS, False),
    "an hour and a millisecond": (tock_at(NOON_MS + HOUR_MS + 1), NOON_MS, True),
    "a decade": (tock_at(NOON_MS + 10 * YEAR_MS), NOON_MS, True),
    "a counter without a clock": (17, NOON_MS, False),
    "a decade, without a clock": (tock_at(NOON_MS + 10 * YEAR_MS), None, False),
    "a thousand years, without a clock": (tock_at(NOON_MS + 1000 * YEAR_MS), None, False),
    "beyond all reason, without a clock": (TOCK_MAX, None, True),
    "a board of 1970 that says it is right": (tock_at(NOON_MS), 0, True),
}


@pytest.mark.parametrize("name", AHEAD)
def test_what_is_ahead(name: str) -> None:
    tock, wall_ms, expected = AHEAD[name]
    assert is_ahead(tock, wall_ms) == expected
    guard = ClockGuard()
    assert guard.refuses(record(tock=tock), BASES, wall_ms) == expected
    assert len(guard) == expected
    assert (Dot(PEER, 1) in guard.dots) == expected


def test_an_hour_is_an_hour() -> None:
    assert AHEAD_MAX_MS == HOUR_MS


def test_it_is_let_go_when_its_time_has_come() -> None:
    guard = ClockGuard()
    early, late = ahead(2 * HOUR_MS, 1), ahead(3 * HOUR_MS, 2)
    for held in (early, late):
        assert guard.refuses(held, BASES, NOON_MS)
    assert guard.due(NOON_MS + HOUR_MS - 1) == []
    assert guard.due(NOON_MS + HOUR_MS) == [(early, BASES)]
    assert guard.dots == Vector.of({PEER: ((2, 2),)})
    assert guard.due(NOON_MS + 2 * HOUR_MS) == [(late, BASES)]
    assert len(guard) == 0
    assert not guard.dots
    assert guard.due(NOON_MS + 3 * HOUR_MS) == []


def test_what_comes_twice_is_held_once() -> None:
    guard = ClockGuard()
    for _ in range(3):
        assert guard.refuses(ahead(YEAR_MS), BASES, NOON_MS)
    assert len(guard) == 1
    assert len(guard.due(NOON_MS + YEAR_MS)) == 1


def test_a_board_that_learns_that_its_clock_was_wrong_lets_go() -> None:
    guard = ClockGuard()
    guard.refuses(ahead(0), BASES, 0)
    assert len(guard.due(NOON_MS)) == 1


def test_what_is_held_counts_as_not_seen() -> None:
    guard = ClockGuard()
    guard.refuses(ahead(YEAR_MS, 5), BASES, NOON_MS)
    seen = Vector.of({PEER: ((1, 9),), OTHER: ((1, 3),)}, {"gone": 4})
    expected = Vector.of({PEER: ((1, 4), (6, 9)), OTHER: ((1, 3),)}, {"gone": 4})
    assert guard.without_held(seen) == expected
    guard.due(NOON_MS + YEAR_MS)
    assert guard.without_held(seen) == seen


def test_nothing_held_nothing_changed() -> None:
    seen = Vector.of({PEER: ((1, 9),)}, {"gone": 4})
    assert ClockGuard().without_held(seen) == seen


@pytest.mark.parametrize("room", [1, 3])
def test_what_there_is_no_room_to_hold_counts_as_not_seen_either(
    room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a pull that tells of it at its end claims what was thrown away, and it is lost here."""
    monkeypatch.setattr(module, "HELD_MAX", room)
    guard = ClockGuard()
    for tick in range(1, 6):
        assert guard.refuses(ahead(YEAR_MS, tick), BASES, NOON_MS)
    assert len(guard) == room
    assert guard.dots == Vector.of({PEER: ((1, room),)})  # the others are to be asked for again
    assert guard.without_held(Vector.of({PEER: ((1, 9),)})) == Vector.of({PEER: ((6, 9),)})
    assert len(guard.due(NOON_MS + YEAR_MS)) == room
    assert guard.without_held(Vector.of({PEER: ((1, 9),)})) == Vector.of({PEER: ((1, 9),)})


def test_memory_is_bounded() -> None:
    guard = ClockGuard()
    for tick in range(1, HELD_MAX + 50):
        guard.refuses(ahead(YEAR_MS, tick), BASES, NOON_MS)
    assert len(guard) == HELD_MAX
    assert len(guard.due(NOON_MS + YEAR_MS)) == HELD_MAX


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 5)), max_size=30),
    st.lists(st.integers(0, 6), max_size=6),
)
def test_each_record_is_let_go_once_and_never_early(
    given_: list[tuple[int, int]], hours: list[int]
) -> None:
    guard = ClockGuard()
    held, released = set(), []
    for tick, by_hours in given_:
        one = ahead(by_hours * HOUR_MS, tick)
        if guard.refuses(one, BASES, NOON_MS):
            held.add(one.dot)
        else:
            assert by_hours <= 1
    for hour in sorted(hours):
        wall_ms = NOON_MS + hour * HOUR_MS
        for one, bases in guard.due(wall_ms):
            assert not is_ahead(one.tock, wall_ms)
            assert bases is BASES
            released.append(one.dot)
    assert len(set(released)) == len(released)
    assert held == set(released) | {dot for dot in held if dot in guard.dots}
    assert not any(dot in guard.dots for dot in released)
