"""What a table shows of a record, by the clock of who looks."""

from __future__ import annotations

from dataclasses import replace

import click
import pytest

from kvedge.model.path import P, Path
from kvedge_drivers.cli.rows import Row, row_at, summary, table
from kvedge_drivers.readings.places import Record
from kvedge_drivers.readings.states import State

NOW_S = 1_700_000_000.0
RECORD = Record(
    path=P("sensor.alpha.tmp102.temperature"),
    unit="°C",
    device_class="temperature",
    precision=1,
    state=State.OK,
    reason="",
    time=NOW_S - 4,
    synchronised=True,
    value=21.4375,
    readings=7,
    interval_s=10,
    driver="i2c",
)


def row(record: Record = RECORD, **changes: object) -> Row:
    changed = replace(record, **changes)  # type: ignore[arg-type]  # fields of a record
    made = row_at(P("alpha.tmp102.temperature"), changed, NOW_S)
    assert made
    return made


def test_row_that_is_ok() -> None:
    shown = row()
    assert (shown.value_text, shown.state, shown.age_text) == ("21.4 °C", "ok", "4 s")
    assert (shown.reason, shown.sensor, shown.is_bound) == ("", "tmp102.temperature", False)


@pytest.mark.parametrize(("age_s", "state"), [(90, State.OK), (91, State.STALE)])
def test_record_that_is_not_renewed_is_stale(age_s: float, state: State) -> None:
    assert row(time=NOW_S - age_s).state is state


def test_stale_says_since_when() -> None:
    assert row(time=NOW_S - 7300).reason == "no news for 2 h"
    doubtful = row(time=5.0, synchronised=False)
    assert doubtful.reason == "no news for 19675 d, if its clock was right"
    assert doubtful.age_text == "19675 d?"


def test_reading_from_the_future_is_not_believed() -> None:
    shown = row(time=NOW_S + 3600)
    assert shown.state is State.STALE
    assert "one of two clocks is wrong" in shown.reason
    assert (shown.age_s, shown.age_text) == (None, "-")
    assert row(time=NOW_S + 1).age_s == 0


def test_what_is_missing_keeps_its_own_reason() -> None:
    shown = row(state=State.MISSING, reason="it does not answer", time=NOW_S - 86400)
    assert (shown.state, shown.reason) == (State.MISSING, "it does not answer")
    assert (shown.value_text, shown.age_text) == ("(21.4 °C)", "1 d")


def test_channel_that_was_never_read() -> None:
    shown = row(state=State.FAULT, reason="its CRC is wrong", time=None, value=None)
    assert (shown.value_text, shown.age_text) == ("-", "-")


def test_programs_get_no_value_that_is_not_current() -> None:
    good, bad = row().as_json(), row(state=State.MISSING, reason="away").as_json()
    assert (good["value"], good["last_value"], good["age_s"]) == (21.4375, 21.4375, 4.0)
    assert (bad["value"], bad["last_value"], bad["state"]) == (None, 21.4375, "missing")
    assert {"path", "value", "unit", "state", "reason", "age_s", "node", "device", "channel"} <= {
        *good
    }
    assert good["path"] == "sensor.alpha.tmp102.temperature"


def test_table_marks_what_is_not_ok() -> None:
    bound = row(path=P("house.attic"), state=State.MISSING, reason="away\x1b[2J")
    lines = [click.unstyle(line) for line in table([bound, row()])]
    assert lines == [
        "   PATH                             VALUE      STATE    AGE  SENSOR              REASON",
        "!  house.attic                      (21.4 °C)  missing  4 s  tmp102.temperature  away?[2J",
        "   sensor.alpha.tmp102.temperature  21.4 °C    ok       4 s",
    ]


def test_columns_that_nobody_needs_are_left_out() -> None:
    assert click.unstyle(table([row()])[0]).split() == ["PATH", "VALUE", "STATE", "AGE"]


def test_summary() -> None:
    assert summary([row(), row(state=State.FAULT)]) == "1 of 2 are not ok."
    assert summary([row()]) == "All 1 are ok."


def test_record_elsewhere_is_no_row() -> None:
    assert row_at(Path("alpha", "tmp102"), RECORD, NOW_S) is None
