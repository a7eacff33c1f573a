"""How commands end: exit codes, one line, no traceback."""

from __future__ import annotations

import json
import os

import pytest

from kvedge import errors
from kvedge.cli import exits

CODES: list[tuple[BaseException, int]] = [
    (errors.BadPath("a..b", "an element is empty"), 2),
    (errors.BadSetting("-x", "there is no such option"), 2),
    (errors.LimitExceeded("a value", actual=2, limit=1, unit="bytes"), 2),
    (errors.EntryAbsent("one"), 1),
    (errors.ChainMismatch("one", expected="a", found="b"), 1),
    (errors.SchemaViolation("one", schema="int", why="it is a text"), 1),
    (errors.WriteRefused("the disk is full"), 1),
    (errors.ServerFailure("KeyError"), 1),
    (errors.NotConnected("unix:/x", "no such file"), 3),
    (errors.NotConnected("unix:/x", "Permission denied"), 4),
    (errors.Disconnected("reset"), 3),
    (errors.TimedOut("set", 30), 3),
    (errors.AuthRequired("password"), 4),
    (errors.NameTaken("me", "/data"), 78),
    (errors.NotAllowed("one", "write"), 4),
    (KeyboardInterrupt(), 130),
    (FileNotFoundError(2, "No such file or directory", "x.toml"), 1),
]


@pytest.mark.parametrize(("error", "code"), CODES)
def test_exit_code_and_message(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exits.report(error, json=False, verbose=0) == code
    shown = capsys.readouterr()
    assert not shown.out
    assert "Traceback" not in shown.err
    first = shown.err.splitlines()[0]
    assert first == ("" if code == exits.INTERRUPTED else f"kv: {exits.message(error)}")


@pytest.mark.parametrize(("error", "code"), CODES[:-2])
def test_json_has_class_and_fields(
    error: errors.AgentError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exits.report(error, json=True, verbose=0) == code
    told = json.loads(capsys.readouterr().err)
    assert told["error"] == str(error)
    assert told["etype"] == error.code
    assert type(errors.from_wire(told)) is type(error)


def test_json_for_an_error_of_the_system(capsys: pytest.CaptureFixture[str]) -> None:
    exits.report(PermissionError(13, "Permission denied", "x"), json=True, verbose=0)
    told = json.loads(capsys.readouterr().err)
    assert told == {"error": "x: Permission denied", "etype": "PermissionError"}


def test_not_connected_says_how_to_start_a_server() -> None:
    assert "kv server" in str(exits.hint(errors.NotConnected("unix:/x", "No such file")))


def test_a_name_that_is_taken_says_how_to_take_it_back() -> None:
    assert "--take-name" in str(exits.hint(errors.NameTaken("me", "/data")))


def test_denied_socket_says_how_to_join_the_group() -> None:
    error = errors.NotConnected("unix:/run/kvedge/kv.sock", "Permission denied")
    assert "adduser $USER kv" in str(exits.hint(error))


def test_traceback_for_those_who_ask(capsys: pytest.CaptureFixture[str]) -> None:
    assert exits.report(errors.EntryAbsent("one"), json=False, verbose=2) == 1
    assert "kvedge.errors.EntryAbsent: No data at one" in capsys.readouterr().err


def test_message_is_one_line() -> None:
    assert exits.message(errors.JobFailed("a", "first\nsecond")) == "a failed: first second"


def test_a_defect_is_one_line_and_asks_for_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    exits.unexpected(TypeError, TypeError("no"), None)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "kv: defect in this program: TypeError: no"
    assert "kv -vv" in lines[1]


def test_reader_that_went_away_is_no_failure(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[int] = []
    monkeypatch.setattr(os, "dup2", lambda _, to: moved.append(to))
    assert exits.report(BrokenPipeError(32, "Broken pipe"), json=False, verbose=0) == 0
    assert moved == [1]
    assert capfd.readouterr().err == ""
