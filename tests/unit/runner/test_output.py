"""The last lines of a job are kept within bounds, and find their way from `print`."""

from __future__ import annotations

import io
import sys
from contextvars import copy_context

import pytest

from kvedge.limits import JOB_OUTPUT_LINE_MAX_CHARS, JOB_OUTPUT_LINES_MAX, VALUE_MAX_BYTES
from kvedge.model.value import pack
from kvedge.runner.output import Output, current, job_logger, routed_stdout


@pytest.fixture
def output() -> Output:
    return Output("a", lambda: 5.0, lambda *_: None)


def lines(output: Output) -> list[str]:
    return [line for _, line in output.to_value()["lines"]]


def test_text_becomes_lines(output: Output) -> None:
    for text in ("one", " more\ntwo\n", "\n", "rest"):
        output.write(text)
    assert lines(output) == ["one more", "two", ""]
    output.finish()
    output.finish()
    assert lines(output)[-1:] == ["rest"]
    assert output.to_value()["lines"][0] == [5.0, "one more"]


def test_only_the_last_lines_are_kept(output: Output) -> None:
    output.write("".join(f"{number}\n" for number in range(JOB_OUTPUT_LINES_MAX + 7)))
    assert lines(output)[0] == "7"
    assert (len(lines(output)), output.dropped) == (JOB_OUTPUT_LINES_MAX, 7)


def test_long_lines_are_cut_with_or_without_an_end(output: Output) -> None:
    for _ in range(3):
        output.write("x" * JOB_OUTPUT_LINE_MAX_CHARS * 2)
    output.write("\n")
    assert lines(output) == ["x" * JOB_OUTPUT_LINE_MAX_CHARS]


def test_the_widest_lines_can_be_stored(output: Output) -> None:
    for _ in range(JOB_OUTPUT_LINES_MAX):
        output.add("\N{SNAKE}" * JOB_OUTPUT_LINE_MAX_CHARS)
    assert len(pack(output.to_value())) < VALUE_MAX_BYTES
    assert output.dropped == JOB_OUTPUT_LINES_MAX - len(lines(output))


def test_what_is_no_unicode_is_replaced(output: Output) -> None:
    output.add("a\ud800b")
    pack(output.to_value())
    assert lines(output) == ["a?b"]


def test_lines_of_an_earlier_runner_are_taken_up(output: Output) -> None:
    output.add("before")
    later = Output("a", lambda: 9.0, lambda *_: None)
    later.load(output.to_value())
    assert not later.is_dirty
    later.add("after")
    assert later.to_value() == {"lines": [[5.0, "before"], [9.0, "after"]], "dropped": 0}
    later.load("of no use")
    assert lines(later) == ["before", "after"]


def test_print_goes_to_the_job_it_belongs_to(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = io.StringIO()
    monkeypatch.setattr(sys, "stdout", plain)

    def job() -> None:
        current.set(output)
        sys.stdout.write("from the job\n")
        sys.stdout.flush()
        assert not sys.stdout.isatty()

    with routed_stdout():
        sys.stdout.write("before\n")
        copy_context().run(job)
        sys.stdout.write("after\n")
    assert sys.stdout is plain
    assert plain.getvalue() == "before\nafter\n"
    assert lines(output) == ["from the job"]


def test_log_lines_carry_their_level_and_their_traceback(output: Output) -> None:
    log = job_logger(output)
    log.debug("n is %d", 3)
    try:
        raise ValueError("odd")
    except ValueError:
        log.exception("it failed")
    assert lines(output)[0] == "DEBUG n is 3"
    assert lines(output)[1] == "ERROR it failed"
    assert lines(output)[-1] == "ValueError: odd"
