"""Log lines for people and for the journal, and how loud they are."""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvedge.cli.logs import OwnHandler, journal_reads, level_number, set_up_logging


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Leave the loggers as they were found."""
    names = ("kvedge", "kvedge_drivers")
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    root = logging.getLogger()
    root.handlers = [each for each in root.handlers if not isinstance(each, OwnHandler)]
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def _logged(**options: object) -> str:
    stream = io.StringIO()
    set_up_logging(stream=stream, environ={}, **options)  # type: ignore[arg-type]  # of any level
    for name in ("kvedge.server", "kvedge_drivers.host", "library"):
        for level in (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG):
            logging.getLogger(name).log(level, "told")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("level", "verbose", "loudest"),
    [
        ("error", 0, "ERROR"),
        ("warning", 0, "WARNING"),
        ("warning", 1, "INFO"),
        ("warning", 2, "DEBUG"),
        ("warning", 9, "DEBUG"),
        ("info", 0, "INFO"),
        ("debug", 0, "DEBUG"),
    ],
)
def test_levels(level: str, verbose: int, loudest: str) -> None:
    ours = re.findall(r" (\w+):kvedge\.server:told", _logged(level=level, verbose=verbose))
    assert ours[-1] == loudest
    assert level_number(level, verbose) == getattr(logging, loudest)


def test_libraries_stay_quiet_at_every_level() -> None:
    assert re.findall(r" (\w+):library:", _logged(verbose=2)) == ["ERROR", "WARNING"]


def test_lines_for_people_have_time_level_and_logger() -> None:
    first = _logged(level="error").splitlines()[0]
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} ERROR:kvedge\.server:told", first)


def test_a_second_call_replaces_the_first() -> None:
    before = _logged(level="debug")
    assert len(_logged(level="error").splitlines()) < len(before.splitlines())
    assert sum(isinstance(each, OwnHandler) for each in logging.getLogger().handlers) == 1


def test_lines_for_the_journal_have_a_priority_each_and_no_time(tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w+") as stream:
        found = os.fstat(stream.fileno())
        set_up_logging(stream=stream, environ={"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
        logging.getLogger("kvedge.x").warning("one\ntwo")
        logging.getLogger("kvedge.x").error("three")
        stream.seek(0)
        assert stream.read() == "<4>kvedge.x: one\n<4>two\n<3>kvedge.x: three\n"


def test_another_stream_is_not_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as stream:
        assert not journal_reads(stream, {"JOURNAL_STREAM": "1:2"})
        assert not journal_reads(stream, {})
    assert not journal_reads(io.StringIO(), {"JOURNAL_STREAM": "1:2"})
