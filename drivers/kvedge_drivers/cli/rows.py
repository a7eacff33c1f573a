"""What `kv sensor` shows of a channel: its record, judged by the clock of who looks.

A record says how things were when it was written.  Its writer may be gone since: a value that is
older than its record can be is called stale here, whatever the record says.  Ages compare two
wall clocks, so one that was not right is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from kvedge.model.path import Path
from kvedge_drivers.quantity import shown
from kvedge_drivers.readings.places import Record, default_path
from kvedge_drivers.readings.states import State

_AHEAD_MAX_S = 60.0
"""Clocks that both are right differ by less, by far."""

_COLOURS = {
    State.OK: "green",
    State.SUSPECT: "yellow",
    State.STALE: "magenta",
    State.MISSING: "red",
    State.FAULT: "red",
}
_HEADER = ("", "PATH", "VALUE", "STATE", "AGE", "SENSOR", "REASON")
_STATE_COLUMN = _HEADER.index("STATE")


@dataclass(frozen=True, slots=True)
class Row:
    """One channel.

    Attributes:
        node: The node whose hardware it is.
        device: The device on that node.
        channel: The channel of that device.
        record: What the driver reports.
        now_s: The wall clock of who looks.
    """

    node: str
    device: str
    channel: str
    record: Record
    now_s: float

    @property
    def sensor(self) -> str:
        """The name by which commands know it."""
        return f"{self.device}.{self.channel}"

    @property
    def is_bound(self) -> bool:
        """Whether its value stands elsewhere than by default."""
        return self.record.path != default_path(self.node, self.device, self.channel)

    @property
    def age_s(self) -> float | None:
        """Seconds since the last good reading; None if there was none, or clocks disagree."""
        time = self.record.time
        if time is None or time > self.now_s + _AHEAD_MAX_S:
            return None
        return max(0.0, self.now_s - time)

    @property
    def _is_overdue(self) -> bool:
        if not self.record.state.is_current:
            return False
        return self.age_s is None or self.age_s > self.record.fresh_for_s

    @property
    def state(self) -> State:
        """What is known about it now."""
        return State.STALE if self._is_overdue else self.record.state

    @property
    def reason(self) -> str:
        """Why, in words; empty while it is ok."""
        if not self._is_overdue:
            return self.record.reason
        if self.age_s is None:
            return "read in the future: one of two clocks is wrong"
        doubt = "" if self.record.synchronised else ", if its clock was right"
        return f"no news for {duration(self.age_s)}{doubt}"

    @property
    def value_text(self) -> str:
        """The value with its unit, in brackets where it is not current."""
        record = self.record
        if record.value is None:
            return "-"
        text = shown(record.value, unit=record.unit, precision_digits=record.precision)
        return text if self.state.is_current else f"({text})"

    @property
    def age_text(self) -> str:
        """The age, with a question mark where the clock was not right."""
        if self.age_s is None:
            return "-"
        return duration(self.age_s) + ("" if self.record.synchronised else "?")

    def as_json(self) -> dict[str, Any]:
        """Return what programs get."""
        record = self.record.to_value()
        age_s = self.age_s
        return record | {
            "path": str(self.record.path),
            "value": self.record.value if self.state.is_current else None,
            "last_value": self.record.value,
            "state": str(self.state),
            "reason": self.reason,
            "age_s": None if age_s is None else round(age_s, 1),
            "node": self.node,
            "device": self.device,
            "channel": self.channel,
        }

    def as_line(self) -> str:
        """Return it as one line of a log."""
        because = f": {self.reason}" if self.reason else ""
        return f"{self.record.path}  {self.value_text}  {self.state}{because}"


def row_at(key: Path, record: Record, now_s: float) -> Row | None:
    """Return the row of a record; None where its path is not node, device, channel."""
    if len(key) != 3:
        return None
    node, device, channel = map(str, key)
    return Row(node, device, channel, record, now_s)


def duration(seconds: float) -> str:
    """Return a time span as people say it.

    >>> [duration(s) for s in (0.4, 59, 130, 7300, 200000)]
    ['0 s', '59 s', '2 min', '2 h', '2 d']
    """
    for size_s, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size_s:
            return f"{seconds // size_s:.0f} {name}"
    return f"{seconds:.0f} s"


def summary(rows: Sequence[Row]) -> str:
    """Return how many channels are not ok."""
    wrong = sum(row.state is not State.OK for row in rows)
    return f"{wrong} of {len(rows)} are not ok." if wrong else f"All {len(rows)} are ok."


def table(rows: Iterable[Row]) -> list[str]:
    """Return the lines of a table, with a mark and a colour where something is not ok."""
    rows = list(rows)
    cells = [_HEADER, *map(_cells, rows)]
    used = [i for i in range(len(_HEADER)) if i == 0 or any(line[i] for line in cells[1:])]
    widths = {i: max(len(line[i]) for line in cells) for i in used}
    colours = [None, *(_COLOURS[row.state] for row in rows)]
    return [
        "  ".join(
            _padded(line[i], widths[i], colour if i == _STATE_COLUMN else None) for i in used
        ).rstrip()
        for line, colour in zip(cells, colours, strict=True)
    ]


def _cells(row: Row) -> tuple[str, ...]:
    return (
        " " if row.state is State.OK else "!",
        str(row.record.path),
        row.value_text,
        str(row.state),
        row.age_text,
        row.sensor if row.is_bound else "",
        "".join(char if char.isprintable() else "?" for char in row.reason),
    )


def _padded(text: str, width: int, colour: str | None) -> str:
    padded = text.ljust(width)
    return click.style(padded, fg=colour, bold=colour == "red" or None) if colour else padded
