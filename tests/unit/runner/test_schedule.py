"""The schedule gives keys in the order of their times, and only the last time of each."""

from __future__ import annotations

from kvedge.runner.schedule import Schedule


def test_order_is_that_of_the_times() -> None:
    schedule: Schedule[str] = Schedule()
    for key, at_s in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
        schedule.put(key, at_s)
    assert schedule.next_s() == 1.0
    assert schedule.take_due(2.0) == ["a", "b"]
    assert schedule.take_due(2.5) == []
    assert schedule.next_s() == 3.0


def test_a_new_time_replaces_the_old_one() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.put("a", 1.0)
    schedule.put("a", 5.0)
    assert schedule.take_due(4.0) == []
    assert schedule.take_due(5.0) == ["a"]
    assert "a" not in schedule


def test_a_dropped_key_does_not_come() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.put("a", 1.0)
    schedule.drop("a")
    schedule.drop("never seen")
    assert schedule.next_s() is None
    assert schedule.take_due(9.0) == []


def test_rewriting_a_far_time_costs_no_memory() -> None:
    schedule: Schedule[str] = Schedule()
    for number in range(1000):
        schedule.put("a", 1e9 + number)
    assert len(schedule._heap) < 100
    assert schedule.take_due(2e9) == ["a"]
