"""Tables and times for people."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from kvedge.cli.tables import clipped, local_time, table


@pytest.fixture
def _in_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def test_columns_are_aligned_and_lines_end_clean() -> None:
    assert table(["name", "n"], [["a", "1"], ["longer", ""]]) == "NAME    N\na       1\nlonger\n"


def test_no_rows_print_nothing() -> None:
    assert table(["name"], []) == ""


def test_a_cell_cannot_break_the_table() -> None:
    assert table(["x"], [["a\nb\x1b[2J"]]) == "X\na\\nb\\u001b[2J\n"


def test_clipped() -> None:
    assert clipped("12345", 5) == "12345"
    assert clipped("123456", 5) == "12..."


@pytest.mark.usefixtures("_in_greenwich")
@pytest.mark.parametrize(
    ("unix_s", "text"),
    [
        (None, "-"),
        (0.9, "1970-01-01 00:00:00"),
        (1795327024.2, "2026-11-22 05:57:04"),
        (1e300, "1e+300"),
    ],
)
def test_local_time(unix_s: float | None, text: str) -> None:
    assert local_time(unix_s) == text
