"""Entries of jobs and states are read with clear errors; what follows a run is a table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kvedge.errors import JobFailed
from kvedge.model.path import P, Path
from kvedge.runner.spec import (
    PAUSE_MAX_S,
    PAUSE_MIN_S,
    JobSpec,
    JobStatus,
    Reason,
    Start,
    begun,
    ended,
    interrupted,
    must_stop,
    next_start,
    pause_s,
)

JOB = P(":.kv.run.single.box.default.heat")
NOW = 1_700_000_000.0
YEAR_S = 365 * 86400.0


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
    found = next_start(wanted, was, **({"now": NOW, "tock": 7} | more))
    assert (found is None) is (start is None)
    if found is not None and start is not None:
        assert found.by_wall is start.by_wall
        assert found.wait_s == pytest.approx(start.wait_s)


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
    ("no code any more", spec(target=5.0), spec(target=5.0, code=None), 8, Reason.CANCELLED),
]


@pytest.mark.parametrize(("case", "old", "new", "tock", "reason"), STOPS, ids=[c[0] for c in STOPS])
def test_must_stop(case: str, old: JobSpec, new: JobSpec, tock: int, reason: Reason | None) -> None:
    running = begun(old, JobStatus(), now=NOW, node="box", tock=7)
    assert must_stop(old, new, running, tock=tock) is reason


def test_a_run_uses_up_its_target() -> None:
    wanted = spec(target=NOW - 9)
    running = begun(wanted, JobStatus(), now=NOW, node="box", tock=7)
    assert (running.node, running.started, running.pinged) == ("box", NOW, NOW)
    after = ended(running, DONE, now=NOW + 1, result=42)
    assert (after.node, after.stopped, after.result, after.backoff) == (None, NOW + 1, 42, 0)
    assert next_start(wanted, after, now=NOW + 1, tock=7) is None


ENDS = [(DONE, 0), (FAILED, 3), (MISSING, 3), (Reason.SHUTDOWN, 2), (Reason.CHANGED, 2)]


@pytest.mark.parametrize(("reason", "backoff"), ENDS)
def test_only_errors_count(reason: Reason, backoff: int) -> None:
    assert ended(JobStatus(node="box", backoff=2), reason, now=NOW).backoff == backoff


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
    was = ended(JobStatus(backoff=1), FAILED, now=NOW)
    assert JobStatus.from_value(JOB, was.to_value()) == was


def test_fields_of_a_later_version_are_passed_over() -> None:
    assert JobSpec.from_value(JOB, {"code": P("a"), "prefer": "box"}) == JobSpec(code=P("a"))


def test_bad_state_is_refused_by_name() -> None:
    with pytest.raises(JobFailed, match="reason is 'bored'"):
        JobStatus.from_value(JOB, {"reason": "bored"})
