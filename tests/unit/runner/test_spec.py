"""Entries of jobs and states are read with clear errors; what follows a run is a table."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta, timezone
from typing import Any

import pytest

from kvedge.errors import JobFailed
from kvedge.model.path import P, Path
from kvedge.runner.spec import (
    CLOCK_WAIT,
    PAUSE_MAX_S,
    PAUSE_MIN_S,
    JobSpec,
    JobStatus,
    Missed,
    Reason,
    Start,
    Wall,
    begun,
    counted_since,
    ended,
    interrupted,
    must_stop,
    next_start,
    pause_s,
)

JOB = P(":.kv.run.single.box.default.heat")
NOW = 1_700_000_000.0
YEAR_S = 365 * 86400.0
EAST = timezone(timedelta(hours=1))


def spec(**fields: Any) -> JobSpec:
    return replace(JobSpec(code=P("a.b"), target=0), **fields)


def status(reason: Reason | None = None, **fields: Any) -> JobStatus:
    ran = {"started": NOW - 60, "stopped": NOW - 50, "target": 0, "tock": 7}
    return replace(JobStatus(reason=reason), **((ran if reason else {}) | fields))


DONE, FAILED, MISSING = Reason.DONE, Reason.FAILED, Reason.MISSING
NOTHING = None
STARTS: list[tuple[str, JobSpec, JobStatus, dict[str, Any], Start | None]] = [
    ("no code", spec(code=None), status(), {}, NOTHING),
    ("it runs", spec(), status(node="box"), {}, NOTHING),
    ("no target", spec(target=None), status(), {}, NOTHING),
    ("target cleared, with a repeat", spec(target=None, repeat=5), status(DONE), {}, NOTHING),
    ("now", spec(), status(), {}, Start(0)),
    ("now, on a board in 1970", spec(), status(), {"now": 12.0}, Start(0)),
    ("now, used up", spec(), status(DONE), {}, NOTHING),
    ("now, said again", spec(), status(DONE), {"tock": 8}, Start(0)),
    ("a time to come", spec(target=NOW + 9), status(), {}, Start(9, by_wall=True)),
    ("a time to come, in 1970", spec(target=NOW), status(), {"now": 0.0}, Start(NOW, by_wall=True)),
    ("a time that was", spec(target=NOW - 9), status(), {}, Start(0)),
    ("a time, used up", spec(target=5.0), status(DONE, target=5.0), {"tock": 8}, NOTHING),
    ("a new time after a run", spec(target=NOW + 9), status(DONE), {}, Start(9, by_wall=True)),
    (
        "a new time goes before repeat",
        spec(target=NOW + 9, repeat=1),
        status(DONE),
        {},
        Start(9, by_wall=True),
    ),
    ("repeat", spec(repeat=80), status(DONE), {}, Start(30)),
    ("repeat, overdue", spec(repeat=20), status(DONE), {}, Start(0)),
    ("failed", spec(), status(FAILED, backoff=1), {}, Start(100 * 1.1 - 50)),
    ("failed thrice", spec(), status(FAILED, backoff=3), {}, Start(100 * 1.1**3 - 50)),
    ("failed goes before repeat", spec(repeat=1), status(FAILED, backoff=1), {}, Start(60)),
    (
        "failed, entry mended",
        spec(target=5.0),
        status(FAILED, backoff=1, target=5.0),
        {"tock": 8},
        Start(0),
    ),
    ("failed, code mended", spec(), status(FAILED, backoff=1), {"is_mended": True}, Start(0)),
    ("done, code changed", spec(), status(DONE), {"is_mended": True}, NOTHING),
    ("code missing", spec(), status(MISSING, backoff=1), {}, Start(60)),
    ("code has come", spec(), status(MISSING, backoff=1), {"is_mended": True}, Start(0)),
    ("interrupted", spec(), status(Reason.INTERRUPTED, backoff=1), {}, Start(0)),
    (
        "interrupted twice",
        spec(),
        status(Reason.INTERRUPTED, backoff=2),
        {},
        Start(100 * 1.1**2 - 50),
    ),
    ("runner stopped", spec(), status(Reason.SHUTDOWN), {}, Start(0)),
    ("changed while it ran", spec(), status(Reason.CHANGED), {}, Start(0)),
    ("changed to later", spec(target=NOW + 9), status(Reason.CHANGED), {}, Start(9, by_wall=True)),
    ("cancelled", spec(), status(Reason.CANCELLED), {}, NOTHING),
    ("clock went back a year", spec(repeat=80), status(DONE, stopped=NOW + YEAR_S), {}, Start(80)),
]


@pytest.mark.parametrize(
    ("case", "wanted", "was", "more", "start"), STARTS, ids=[c[0] for c in STARTS]
)
def test_next_start(
    case: str, wanted: JobSpec, was: JobStatus, more: dict[str, Any], start: Start | None
) -> None:
    asked = {"now": NOW, "tock": 7} | more
    found = next_start(wanted, was, wall=Wall(asked.pop("now")), **asked)
    assert (found is None) is (start is None)
    if found is not None and start is not None:
        assert (found.by_wall, found.waits) == (start.by_wall, start.waits)
        assert found.wait_s == pytest.approx(start.wait_s)


# NOW is 22:13:20 UTC on Tuesday, 14 November 2023.
HOUR_S = 3600.0
TO_MIDNIGHT_S = 6400.0
WORDS = spec(target="0 hr")
DAILY = spec(repeat="0 hr")
UTC_NOW = Wall(NOW)


def counted(since: float, tock: int = 7, **fields: Any) -> JobStatus:
    return status(DONE, **({"since": since, "since_tock": tock} | fields))


def later(seconds: float, **fields: Any) -> Wall:
    return replace(UTC_NOW, now=NOW + seconds, **fields)


BY_WORDS: list[tuple[str, JobSpec, JobStatus, Wall, int, Start | None]] = [
    ("first seen", WORDS, status(), UTC_NOW, 7, Start(TO_MIDNIGHT_S, by_wall=True)),
    ("in another zone", WORDS, status(), later(0, zone=EAST), 7, Start(2800, by_wall=True)),
    (
        "the clock is not right",
        WORDS,
        status(),
        Wall(12.0, is_right=False),
        7,
        Start(math.inf, by_wall=True, waits=CLOCK_WAIT),
    ),
    (
        "now, with a wrong clock",
        DAILY,
        status(),
        Wall(12.0, is_right=False),
        7,
        Start(0),
    ),
    ("no such day ahead", spec(target="2020 yr"), status(), UTC_NOW, 7, None),
    ("used up", WORDS, counted(NOW - 50), UTC_NOW, 7, None),
    ("written again", WORDS, counted(NOW - 50), UTC_NOW, 8, Start(TO_MIDNIGHT_S, by_wall=True)),
    ("repeat", DAILY, counted(NOW - 50), UTC_NOW, 7, Start(TO_MIDNIGHT_S, by_wall=True)),
    ("its time has come", DAILY, counted(NOW), later(TO_MIDNIGHT_S), 7, Start(0)),
    ("somewhat late", replace(DAILY, missed=Missed.SKIP), counted(NOW), later(6450), 7, Start(0)),
    ("missed", DAILY, counted(NOW - 3 * 86400), UTC_NOW, 7, Start(0)),
    (
        "missed, to be skipped",
        replace(DAILY, missed=Missed.SKIP),
        counted(NOW - 3 * 86400),
        UTC_NOW,
        7,
        Start(TO_MIDNIGHT_S, by_wall=True),
    ),
    (
        "other words since: nothing is missed",
        DAILY,
        counted(NOW - 3 * 86400, tock=6),
        UTC_NOW,
        7,
        Start(TO_MIDNIGHT_S, by_wall=True),
    ),
    (
        "put back by a second",
        DAILY,
        counted(NOW + TO_MIDNIGHT_S),
        later(TO_MIDNIGHT_S - 1),
        7,
        Start(86401, by_wall=True),
    ),
    (
        "put back by a year",
        DAILY,
        counted(NOW + YEAR_S),
        UTC_NOW,
        7,
        Start(TO_MIDNIGHT_S, by_wall=True),
    ),
    ("failed", DAILY, replace(counted(NOW), reason=FAILED, backoff=1), UTC_NOW, 7, Start(60)),
    ("timed out", DAILY, status(Reason.TIMED_OUT, backoff=1), UTC_NOW, 7, Start(60)),
    ("blocked", DAILY, status(Reason.BLOCKED, backoff=1), UTC_NOW, 7, Start(60)),
    (
        "a time that was, to be skipped",
        spec(target=NOW - 61, missed=Missed.SKIP),
        status(),
        UTC_NOW,
        7,
        None,
    ),
    (
        "a time that was just now",
        spec(target=NOW - 59, missed=Missed.SKIP),
        status(),
        UTC_NOW,
        7,
        Start(0),
    ),
    ("now is never missed", spec(missed=Missed.SKIP), status(), UTC_NOW, 7, Start(0)),
]


@pytest.mark.parametrize(
    ("case", "wanted", "was", "wall", "tock", "start"), BY_WORDS, ids=[c[0] for c in BY_WORDS]
)
def test_next_start_by_words(
    case: str, wanted: JobSpec, was: JobStatus, wall: Wall, tock: int, start: Start | None
) -> None:
    found = next_start(wanted, was, wall=wall, tock=tock)
    assert (found is None) is (start is None)
    if found is not None and start is not None:
        assert (found.by_wall, found.waits) == (start.by_wall, start.waits)
        assert found.wait_s == pytest.approx(start.wait_s)


def test_early_start_does_not_come_twice() -> None:
    due = NOW + TO_MIDNIGHT_S
    running = begun(DAILY, status(), wall=Wall(due - 0.5), node="box", tock=7, due=due)
    over = ended(running, DONE, wall=Wall(due - 0.3))
    start = next_start(DAILY, over, wall=Wall(due - 0.3), tock=7)
    assert start is not None
    assert start.wait_s == pytest.approx(86400.3)


def test_a_run_with_a_wrong_clock_says_nothing_about_what_was_missed() -> None:
    wrong = Wall(12.0, is_right=False)
    running = begun(DAILY, status(), wall=wrong, node="box", tock=7)
    over = ended(running, DONE, wall=wrong)
    assert over.since is None
    assert counted_since(over, NOW, tock=7) == NOW


PAUSES = [
    (spec(), 1, 110.0),
    (spec(delay=0), 5, PAUSE_MIN_S),
    (spec(backoff=1), 5, 100.0),
    (spec(backoff=2), 100_000, PAUSE_MAX_S),
    (spec(delay=2 * PAUSE_MAX_S), 9, 2 * PAUSE_MAX_S),
]


@pytest.mark.parametrize(("wanted", "errors", "seconds"), PAUSES)
def test_pause_grows_up_to_a_bound(wanted: JobSpec, errors: int, seconds: float) -> None:
    assert pause_s(wanted, errors) == pytest.approx(seconds)


STOPS = [
    ("only the repeat", spec(target=5.0), spec(target=5.0, repeat=3), 8, None),
    ("written again with target 0", spec(), spec(), 8, Reason.CHANGED),
    ("another time", spec(target=5.0), spec(target=6.0), 8, Reason.CHANGED),
    ("other data", spec(target=5.0), spec(target=5.0, data={"a": 1}), 8, Reason.CHANGED),
    ("other code", spec(target=5.0), spec(target=5.0, code="@host"), 8, Reason.CHANGED),
    ("target cleared", spec(target=5.0), spec(target=None), 8, Reason.CANCELLED),
    ("words written again", WORDS, WORDS, 8, None),
    ("words for a time", spec(target=5.0), WORDS, 8, None),
    ("no code any more", spec(target=5.0), spec(target=5.0, code=None), 8, Reason.CANCELLED),
]


@pytest.mark.parametrize(("case", "old", "new", "tock", "reason"), STOPS, ids=[c[0] for c in STOPS])
def test_must_stop(case: str, old: JobSpec, new: JobSpec, tock: int, reason: Reason | None) -> None:
    running = begun(old, JobStatus(), wall=Wall(NOW), node="box", tock=7)
    assert must_stop(old, new, running, tock=tock) is reason


def test_a_run_uses_up_its_target() -> None:
    wanted = spec(target=NOW - 9)
    running = begun(wanted, JobStatus(), wall=Wall(NOW), node="box", tock=7)
    assert (running.node, running.started, running.pinged) == ("box", NOW, NOW)
    after = ended(running, DONE, wall=Wall(NOW + 1), result=42)
    assert (after.node, after.stopped, after.result, after.backoff) == (None, NOW + 1, 42, 0)
    assert next_start(wanted, after, wall=Wall(NOW + 1), tock=7) is None


ENDS = [
    (DONE, 0),
    (FAILED, 3),
    (MISSING, 3),
    (Reason.TIMED_OUT, 3),
    (Reason.BLOCKED, 3),
    (Reason.SHUTDOWN, 2),
    (Reason.CHANGED, 2),
]


@pytest.mark.parametrize(("reason", "backoff"), ENDS)
def test_only_errors_count(reason: Reason, backoff: int) -> None:
    assert ended(JobStatus(node="box", backoff=2), reason, wall=Wall(NOW)).backoff == backoff


@pytest.mark.parametrize(("ran_s", "backoff"), [(99.0, 4), (100.0, 1)])
def test_a_long_run_that_is_interrupted_begins_counting_anew(ran_s: float, backoff: int) -> None:
    running = JobStatus(node="box", started=NOW, pinged=NOW + ran_s, backoff=3)
    found = interrupted(spec(), running)
    assert (found.node, found.reason, found.backoff) == (None, Reason.INTERRUPTED, backoff)
    assert found.stopped == NOW + ran_s


BAD = [
    (42, "a map is wanted there, not int"),
    ({"code": 7}, "code is 7"),
    ({"code": "@"}, "code is '@'"),
    ({"code": ()}, "code is ()"),
    ({"code": P("a"), "delay": -1}, "delay is -1: it must be a number of seconds, 0 or more"),
    ({"code": P("a"), "delay": True}, "delay is True: it must be a number"),
    ({"code": P("a"), "target": float("nan")}, "target is nan: it must be a number"),
    ({"code": P("a"), "backoff": 0.5}, "backoff is 0.5: it must be a number, 1 or more"),
    ({"code": P("a"), "target": "25 hr"}, "target is '25 hr': 25 hr: it must be 0 to 23"),
    ({"code": P("a"), "repeat": "soon"}, "repeat is 'soon': soon: no word for a time"),
    ({"code": P("a"), "missed": "often"}, "missed is 'often': it must be one of run, skip"),
    ({"code": P("a"), "timeout": -1}, "timeout is -1: it must be a number of seconds"),
    ({"code": P("a"), "zone": 1}, "zone is 1: it must be a text"),
    ({"code": P("a"), "data": [1]}, "data is [1]: it must be a map"),
    ({"code": P("a"), "data": {1: 2}}, "data is {1: 2}: it must be a map"),
]


@pytest.mark.parametrize(("value", "message"), BAD)
def test_bad_job_is_refused_by_name(value: object, message: str) -> None:
    with pytest.raises(JobFailed) as caught:
        JobSpec.from_value(JOB, value)
    assert str(JOB) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("code", [P("the.answer"), ("the", "answer"), "the.answer"])
def test_code_is_a_path_however_it_is_written(code: object) -> None:
    assert JobSpec.from_value(JOB, {"code": code}).code == Path("the", "answer")


def test_entries_survive_the_tree() -> None:
    wanted = spec(data={"a": 1}, repeat=3, ok_after=2)
    assert JobSpec.from_value(JOB, wanted.to_value()) == wanted
    worded = spec(target="0 hr", repeat="mon", missed=Missed.SKIP, zone="UTC", timeout=5)
    assert JobSpec.from_value(JOB, worded.to_value()) == worded
    running = begun(worded, JobStatus(backoff=1), wall=Wall(NOW), node="box", tock=7)
    assert JobStatus.from_value(JOB, running.to_value()) == running
    was = replace(ended(running, FAILED, wall=Wall(NOW)), waits=CLOCK_WAIT)
    assert JobStatus.from_value(JOB, was.to_value()) == was


def test_fields_of_a_later_version_are_passed_over() -> None:
    assert JobSpec.from_value(JOB, {"code": P("a"), "prefer": "box"}) == JobSpec(code=P("a"))


def test_bad_state_is_refused_by_name() -> None:
    with pytest.raises(JobFailed, match="reason is 'bored'"):
        JobStatus.from_value(JOB, {"reason": "bored"})
