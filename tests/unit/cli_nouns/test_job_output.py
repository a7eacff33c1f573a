"""Lines of output: each is printed once."""

from __future__ import annotations

from typing import Any

import pytest

from kvedge.cli.connection import Session
from kvedge.cli.job_output import LinePrinter
from kvedge.cli.options import GLOBAL, Given


@pytest.fixture
def session() -> Session:
    session = Session(Given(GLOBAL, {}, "kv"), {})
    session.json = True
    return session


def kept(*texts: str, dropped: int = 0) -> dict[str, Any]:
    return {"lines": tuple((1.5, text) for text in texts), "dropped": dropped}


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = capsys.readouterr().out.splitlines()
    return [line.partition('"text": ')[2].strip('"}') for line in lines]


def test_each_line_once(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    printer = LinePrinter(session)
    printer.show("box", kept("a", "b"))
    printer.show("box", kept("a", "b", "c"))
    printer.show("box", kept("c", "d", dropped=2))
    assert printed(capsys) == ["a", "b", "c", "d"]


def test_nodes_are_counted_apart(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    printer = LinePrinter(session)
    printer.show("one", kept("a"))
    printer.show("two", kept("b"))
    assert capsys.readouterr().out == (
        '{"time": 1.5, "node": "one", "text": "a"}\n{"time": 1.5, "node": "two", "text": "b"}\n'
    )


def test_lines_that_are_not_kept_are_told(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    printer = LinePrinter(session)
    printer.show("box", kept("a"))
    printer.show("box", kept("e", dropped=4))
    out, errors = capsys.readouterr()
    assert '"e"' in out
    assert errors == "kv: note: 3 earlier lines are not kept\n"


def test_output_that_began_anew(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    printer = LinePrinter(session)
    printer.show("box", kept("a", "b", dropped=9))
    printer.show("box", None)
    printer.show("box", kept("c"))
    assert printed(capsys) == ["a", "b", "c"]
