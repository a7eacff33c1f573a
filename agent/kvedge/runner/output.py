"""What jobs print and log: the last lines of each, and the way there from `print`.

`print` writes to `sys.stdout`, of which a process has one.  While a runner works, a router stands
in its place; it asks a context variable whose output it is.  Tasks inherit that variable, and so do
the threads that are started from them; whatever belongs to no job goes where it went before.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from io import TextIOBase
from typing import Any, TextIO

from kvedge.limits import JOB_OUTPUT_LINE_MAX_CHARS, JOB_OUTPUT_LINES_MAX

BYTES_MAX = 128 * 1024
"""All kept lines of a job: half of what one value may have."""

_LINE_COST_BYTES = 16  # its time and the heads of its parts

Echo = Callable[[str, str], None]
"""Called with the path of a job and a line it printed."""


class Output:
    """The last lines of one job, oldest first.

    Written to from any thread.  Each step is one operation of the interpreter; two threads that
    print at once may mix their lines, as they would on a terminal.

    Attributes:
        name: The path of the job.
        dropped: How many lines were forgotten.
        is_dirty: There is something that was not stored.
    """

    def __init__(self, name: str, wall_s: Callable[[], float], echo: Echo) -> None:
        self.name = name
        self._wall_s = wall_s
        self._echo = echo
        self._lines: deque[tuple[float, str]] = deque()
        self._size_bytes = 0
        self._rest = ""
        self.dropped = 0
        self.is_dirty = False

    def load(self, value: object) -> None:
        """Take up the lines that an earlier runner stored."""
        # Only runners write there, so what looks like a map of theirs is one.
        if isinstance(value, Mapping) and isinstance(value.get("lines"), (tuple, list)):
            for at, line in value["lines"]:
                self._keep(at, line)
            self.dropped += value["dropped"]

    def write(self, text: str) -> None:
        """Add text; lines end with a newline."""
        *lines, rest = (self._rest + text).split("\n")
        self._rest = rest[:JOB_OUTPUT_LINE_MAX_CHARS]
        for line in lines:
            self.add(line)

    def add(self, line: str) -> None:
        """Add a line."""
        line = line[:JOB_OUTPUT_LINE_MAX_CHARS].encode(errors="replace").decode()
        self._keep(self._wall_s(), line)
        self._echo(self.name, line)
        self.is_dirty = True

    def finish(self) -> None:
        """Take what was written without a newline for a line."""
        rest, self._rest = self._rest, ""
        if rest:
            self.add(rest)

    def _keep(self, now: float, line: str) -> None:
        self._lines.append((now, line))
        self._size_bytes += _cost_bytes(line)
        while len(self._lines) > JOB_OUTPUT_LINES_MAX or self._size_bytes > BYTES_MAX:
            self._size_bytes -= _cost_bytes(self._lines.popleft()[1])
            self.dropped += 1

    def to_value(self) -> dict[str, Any]:
        """Return what to store."""
        return {"lines": [list(line) for line in tuple(self._lines)], "dropped": self.dropped}


def _cost_bytes(line: str) -> int:
    return len(line.encode()) + _LINE_COST_BYTES


current: ContextVar[Output | None] = ContextVar("current", default=None)
"""The output of the job that this task or thread belongs to."""


class _Router(TextIOBase):
    """Stands in for `sys.stdout`."""

    def __init__(self, other: TextIO) -> None:
        self._other = other

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return current.get() is None and self._other.isatty()

    def fileno(self) -> int:
        return self._other.fileno()

    def write(self, text: str) -> int:
        output = current.get()
        if output is None:
            return self._other.write(text)
        output.write(text)
        return len(text)

    def flush(self) -> None:
        if current.get() is None:
            self._other.flush()


@contextmanager
def routed_stdout() -> Iterator[None]:
    """Send what jobs print to their outputs while the block runs."""
    before = sys.stdout
    sys.stdout = _Router(before)
    try:
        yield
    finally:
        sys.stdout = before


class _ToOutput(logging.Handler):
    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        for line in f"{record.levelname} {self.format(record)}".splitlines():
            self._output.add(line)


def job_logger(output: Output) -> logging.Logger:
    """Return a logger whose records are lines of a job's output.

    It is not known to the logging module by name: that would keep it for ever.
    """
    logger = logging.Logger("kvedge.job", logging.DEBUG)  # noqa: LOG001 -- see above
    logger.addHandler(_ToOutput(output))
    logger.propagate = False  # the output echoes it
    return logger
