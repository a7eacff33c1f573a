"""The state of a channel: single moves, and what holds after any course of events."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvedge.errors import BadReading, DeviceAbsent, DriverError, PortBusy, PortUnavailable
from kvedge_drivers.readings.states import STALE_INTERVALS, Event, Health, State, event_of

INTERVAL_S = 10.0
ABSENT, UNUSABLE = DeviceAbsent("28.0000000000A1"), BadReading("00 00", "its CRC is wrong")
ERRORS = {"-": ABSENT, "x": UNUSABLE}
COURSES = st.lists(st.sampled_from("+-x "), max_size=30)


def after(course: Sequence[str], health: Health | None = None) -> tuple[Health, float]:
    """Return the state after good (+), absent (-), unusable (x) and no (blank) readings."""
    health, now_s = health or Health(), 1000.0
    for step in course:
        now_s += INTERVAL_S
        if step == "+":
            health = health.good(now_s)
        elif step in ERRORS:
            health = health.failed(ERRORS[step])
        health = health.at(now_s, interval_s=INTERVAL_S)
    return health, now_s


@pytest.mark.parametrize(
    ("course", "state"),
    [
        ("", State.STALE),
        ("+", State.OK),
        ("++", State.OK),
        ("-", State.MISSING),  # it was not ok to begin with
        ("x", State.FAULT),
        ("+-", State.SUSPECT),
        ("+x", State.SUSPECT),
        ("+--", State.MISSING),
        ("+xx", State.FAULT),
        ("+-x", State.FAULT),
        ("+x-", State.MISSING),
        ("+-+", State.SUSPECT),  # one is not enough to trust it
        ("+-++", State.OK),
        ("+-+-", State.SUSPECT),
        ("+-+--", State.MISSING),
        ("+--+", State.OK),
        ("+--x", State.FAULT),
        ("+xx+", State.SUSPECT),
        ("+xx++", State.OK),
        ("+xx+x", State.SUSPECT),
        ("+xx+xx", State.FAULT),
        ("+xx-", State.MISSING),
        ("+   ", State.OK),
        ("+    ", State.STALE),
        ("+-   ", State.STALE),
        ("+    +", State.OK),
        ("+    -", State.MISSING),
        ("+    x", State.FAULT),
        ("+--          ", State.MISSING),
        ("+xx          ", State.FAULT),
        ("           ", State.STALE),
    ],
)
def test_course_leads_to_state(course: str, state: State) -> None:
    assert after(course)[0].state is state


@given(COURSES)
def test_no_value_is_silently_old(course: list[str]) -> None:
    health, now_s = after(course)
    if health.state.is_current:
        assert health.last_good_s is not None
        assert now_s - health.last_good_s <= STALE_INTERVALS * INTERVAL_S


@given(COURSES)
def test_what_vanishes_is_missing_within_two_intervals(course: list[str]) -> None:
    assert after([*course, "-", "-"])[0].state is State.MISSING


@given(COURSES)
def test_nonsense_is_a_fault_within_two_intervals(course: list[str]) -> None:
    assert after([*course, "x", "x"])[0].state is State.FAULT


@given(COURSES)
def test_three_good_readings_mend_everything(course: list[str]) -> None:
    health = after([*course, "+", "+", "+"])[0]
    assert health.state is State.OK
    assert health.reason == ""


@given(COURSES)
def test_one_failure_never_ends_a_channel_that_is_ok(course: list[str]) -> None:
    ok = after([*course, "+", "+", "+"])[0]
    for step in ERRORS:
        assert after([step], ok)[0].state is State.SUSPECT


@given(COURSES)
def test_whatever_is_not_ok_says_why(course: list[str]) -> None:
    health = after(course)[0]
    assert bool(health.reason) is (health.state is not State.OK)


def test_reason_is_that_of_the_last_failure() -> None:
    assert after("+--")[0].reason == "28.0000000000A1 does not answer"
    assert "CRC" in after("+--x")[0].reason
    assert after("+    ")[0].reason == "no reading for 40 s"


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (ABSENT, Event.ABSENT),
        (PortUnavailable("onewire:0", "refused"), Event.ABSENT),
        (PortBusy("onewire:0", "too much"), Event.ABSENT),
        (UNUSABLE, Event.UNUSABLE),
        (DriverError("something else"), Event.UNUSABLE),
    ],
)
def test_error_says_what_happened(error: DriverError, event: Event) -> None:
    assert event_of(error) is event
