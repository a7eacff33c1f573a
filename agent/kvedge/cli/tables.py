"""Tables and times for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kvedge.cli.output import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

_GAP = "  "


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines with aligned columns; nothing where there are no rows.

    Args:
        header: The names of the columns, as wide as the rows.
        rows: The cells.
    """
    if not rows:
        return ""
    lines = [[name.upper() for name in header], *([*map(_one_line, row)] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (
        _GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )
    return "".join(f"{line.rstrip()}\n" for line in padded)


def _one_line(cell: str) -> str:
    """Return a cell that cannot break the table: control characters are escaped."""
    return cell if cell.isprintable() else to_json(cell)[1:-1]


def clipped(text: str, width: int) -> str:
    """Return a text that is cut to a width."""
    return text if len(text) <= width else text[: width - 3] + "..."


def local_time(unix_s: float | None) -> str:
    """Return a time in the zone of this machine, to the second; `-` for None.

    What is no date, such as the year 300000, stays a number.
    """
    if unix_s is None:
        return "-"
    try:
        moment = datetime.fromtimestamp(unix_s, UTC).astimezone()
    except (OverflowError, ValueError, OSError):
        return f"{unix_s:g}"
    return moment.strftime("%Y-%m-%d %H:%M:%S")


_SPANS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def span_text(seconds: float) -> str:
    """Return a span in the largest unit that it fills.

    >>> span_text(1.25), span_text(59.9), span_text(150), span_text(200_000)
    ('1.2 s', '59.9 s', '2 min', '2 d')
    """
    for size, unit in _SPANS:
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.1f} s"
