"""Jobs as rows: what state they are in, when they start next, whose they are."""

from __future__ import annotations

from typing import Any

import pytest

from kvedge.cli.jobs import Row, Runner, split
from kvedge.model.path import EMPTY, P
from kvedge.runner.spec import JobSpec, JobStatus, Reason

SINGLE = Runner("single", "default", "box")
NOW = 1000.0


def row(runner: Runner = SINGLE, *, written: int = 1, **status: Any) -> Row:
    spec = JobSpec(code=P("the.answer"), target=0, repeat=10)
    return Row(runner, P("a.b"), runner.node, spec, JobStatus(**status), written)


DONE: dict[str, Any] = {
    "reason": Reason.DONE,
    "started": 980,
    "stopped": 995,
    "target": 0,
    "tock": 1,
}


def test_a_new_job_waits_for_its_start() -> None:
    assert row().state == "waiting"
    assert row().cells(NOW) == ["a.b", "box", "default", "the.answer", "waiting", "now", "-"]


def test_a_job_that_is_done_shows_result_and_next_start() -> None:
    done = row(**DONE, result={"x": 1})
    assert done.state == "done"
    assert done.next_s(NOW) == 1005
    assert done.cells(NOW)[-1] == '{"x": 1}'
    assert len(row(**DONE, result="x" * 100).cells(NOW)[-1]) == 40


def test_a_job_that_was_set_anew_waits() -> None:
    assert row(**DONE, result=1).state == "done"
    assert row(written=7, **DONE).state == "waiting"


def test_a_running_job_has_no_next_start() -> None:
    running = row(node="box", started=999)
    assert running.state == "running"
    assert running.next_s(NOW) is None
    assert running.cells(NOW)[-2:] == ["-", "-"]


def test_a_failed_job_has_no_result() -> None:
    failed = row(**{**DONE, "reason": Reason.FAILED, "backoff": 1})
    assert failed.state == "failed"
    assert failed.cells(NOW)[-1] == "-"
    assert failed.fields(NOW)["reason"] == "failed"


def test_a_job_without_start_is_off() -> None:
    off = Row(SINGLE, P("a"), "box", JobSpec(code="@x"), JobStatus(), 1)
    assert off.state == "off"
    assert off.cells(NOW)[3:6] == ["@x", "off", "-"]


def test_nobody_starts_a_job_of_any_node() -> None:
    assert row(Runner("any", "default")).next_s(NOW) is None
    assert row(Runner("any", "default")).cells(NOW)[1] == "(any)"
    assert row(Runner("all", "default")).cells(NOW)[1] == "(all)"


def test_an_entry_that_is_no_job_tells_why() -> None:
    bad = Row(SINGLE, P("a"), "box", None, JobStatus(), 1, "a map is wanted there")
    assert bad.state == "invalid"
    assert bad.cells(NOW)[-1] == "a map is wanted there"
    assert bad.fields(NOW)["problem"] == "a map is wanted there"


@pytest.mark.parametrize(
    ("path", "runner", "tail"),
    [
        ("single.box.g.a.b", Runner("single", "g", "box"), "a.b"),
        ("any.g.a", Runner("any", "g"), "a"),
        ("any.g.:1.:t", Runner("any", "g"), ":1.:t"),
        ("all.g.a", Runner("all", "g"), "a"),
    ],
)
def test_split(path: str, runner: Runner, tail: str) -> None:
    assert split(P(path)) == (runner, P(tail))
    assert runner.job(P(tail)) == P(":.kv.run") + P(path)


@pytest.mark.parametrize("path", [":", "single", "single.box", "any", "some.g.a", "any.:1.a"])
def test_what_is_no_job_is_passed_over(path: str) -> None:
    assert split(P(path)) == (None, EMPTY)


def test_a_runner_is_shown_as_its_options() -> None:
    assert str(Runner("single", "default", "box")) == "-n box"
    assert str(Runner("all", "radio")) == "-n - -g radio"
    assert str(Runner("any", "default")) == ""
