"""Trickle: the rules of RFC 6206, section 4.2, one by one and in any order."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvedge.protocol.trickle import Trickle

SEEDS = st.integers(0, 1 << 32)


def timer(seed: int = 1, now: float = 0.0, redundancy: int = 1) -> Trickle:
    return Trickle(Random(seed), now, interval_min_s=1, interval_max_s=60, redundancy=redundancy)


def sends(trickle: Trickle, until: float) -> list[float]:
    """Return when a timer that is always called in time sends, up to a time."""
    found = []
    while (now := trickle.next_deadline()) <= until:
        if trickle.expired(now):
            found.append(now)
    return found


@given(SEEDS)
def test_intervals_double_up_to_the_bound_with_one_message_in_each_second_half(seed: int) -> None:
    begins, lengths = [0, 1, 3, 7, 15, 31, 63, 123, 183], [1, 2, 4, 8, 16, 32, 60, 60, 60]
    found = sends(timer(seed), 243)
    assert len(found) == len(begins)
    for sent, begin, length in zip(found, begins, lengths, strict=True):
        assert begin + length / 2 <= sent < begin + length


@given(SEEDS, st.floats(0, 1e9))
def test_difference_is_told_within_two_and_a_half_shortest_intervals(seed: int, at: float) -> None:
    trickle = timer(seed)
    sends(trickle, min(at, 1000))
    trickle.expired(at)
    trickle.heard_inconsistent(at)
    assert sends(trickle, at + 2.5001)


def test_random_point_differs() -> None:
    points = {timer(seed).next_deadline() for seed in range(100)}
    assert len(points) == 100
    assert min(points) < 0.6
    assert max(points) > 0.9


@pytest.mark.parametrize("redundancy", [1, 2, 5])
@pytest.mark.parametrize("missing", [0, 1])
def test_as_many_consistent_ones_make_ours_needless(redundancy: int, missing: int) -> None:
    trickle = timer(redundancy=redundancy)
    for _ in range(redundancy - missing):
        trickle.heard_consistent()
    assert trickle.expired(trickle.next_deadline()) is bool(missing)


def test_what_was_heard_counts_for_its_interval_alone() -> None:
    trickle = timer()
    trickle.heard_consistent()
    found = sends(trickle, 3)
    assert len(found) == 1
    assert 2 <= found[0] < 3


def test_heard_after_the_point_counts_for_nothing() -> None:
    trickle = timer()
    assert trickle.expired(trickle.next_deadline())
    trickle.heard_consistent()
    assert len(sends(trickle, 3)) == 1


def test_inconsistency_in_the_shortest_interval_changes_nothing() -> None:
    trickle = timer()
    before = trickle.next_deadline()
    trickle.heard_inconsistent(0.4)
    assert trickle.next_deadline() == before
    assert trickle.expired(before)
    trickle.heard_inconsistent(before)
    assert not trickle.expired(0.9999)
    assert trickle.next_deadline() == 1


def test_inconsistency_in_a_longer_interval_starts_anew() -> None:
    trickle = timer()
    sends(trickle, 20)
    trickle.heard_consistent()
    trickle.heard_inconsistent(20)
    found = sends(trickle, 23)
    assert [math.floor(sent) for sent in found] == [20, 22]


def test_restart_starts_anew_even_in_the_shortest_interval() -> None:
    trickle = timer()
    trickle.heard_consistent()
    trickle.restart(0.9)
    assert 1.4 <= trickle.next_deadline() < 1.9
    assert trickle.expired(trickle.next_deadline())


def test_early_and_repeated_calls_do_no_harm() -> None:
    trickle = timer()
    point = trickle.next_deadline()
    calls = [trickle.expired(now) for now in (0, 0.1, point, point, point)]
    assert calls == [False, False, True, False, False]


def test_after_a_long_sleep_one_message_and_one_interval() -> None:
    trickle = timer()
    assert trickle.expired(1e6)
    assert 1e6 + 1 <= trickle.next_deadline() < 1e6 + 2
    assert not trickle.expired(1e6)


@given(SEEDS, st.lists(st.tuples(st.floats(0, 30), st.integers(0, 3)), max_size=60))
def test_never_more_than_one_message_in_half_the_shortest_interval(
    seed: int, steps: list[tuple[float, int]]
) -> None:
    """RFC 6206, section 4.2: whatever is heard, the rate is bounded."""
    trickle, now, found = timer(seed, redundancy=2), 0.0, []
    for wait, heard in steps:
        found += sends(trickle, now + wait)
        now += wait
        if heard == 0:
            trickle.heard_inconsistent(now)
        for _ in range(heard):
            trickle.heard_consistent()
        assert now <= trickle.next_deadline() <= now + 60
    gaps = [later - sooner for sooner, later in pairwise(found)]
    assert all(gap >= 0.5 - 1e-6 for gap in gaps)


def test_many_equal_servers_say_little() -> None:
    """Fifty that hear each other at once, a minute each: some messages per interval, not fifty."""
    timers = [timer(seed, redundancy=2) for seed in range(50)]
    sent = 0
    while True:
        now, number = min((trickle.next_deadline(), n) for n, trickle in enumerate(timers))
        if now > 183:
            break
        if timers[number].expired(now):
            sent += 1
            for other in range(50):
                if other != number:
                    timers[other].heard_consistent()
    assert sent <= 2 * 8
