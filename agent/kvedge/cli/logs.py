"""Logging: lines on standard error, in the form that suits who reads them.

Under systemd the journal keeps time and priority itself, so a line there has neither time nor
level, but the `<N>` in front that sd-daemon(3) defines.  Everywhere else a line is
`HH:MM:SS.mmm LEVEL:logger:message`.

The level rules our own loggers.  Those of libraries stay at warning: at debug they print whole
packets, logins included.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import Final, TextIO

LEVELS: Final = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)
"""The quietest first; each -v goes one step to the right."""

_OWN: Final = ("kvedge", "kvedge_drivers")
_PRIORITIES: Final = {
    logging.CRITICAL: 2,
    logging.ERROR: 3,
    logging.WARNING: 4,
    logging.INFO: 6,
    logging.DEBUG: 7,
}


class JournalFormatter(logging.Formatter):
    """Puts `<N>` before each line, those of a traceback included."""

    def __init__(self) -> None:
        super().__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record with the priority before each of its lines."""
        priority = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(priority + line for line in super().format(record).split("\n"))


class PlainFormatter(logging.Formatter):
    """Puts time of day, level and logger before the message."""

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s.%(msecs)03d %(levelname)s:%(name)s:%(message)s", datefmt="%H:%M:%S"
        )


class OwnHandler(logging.StreamHandler[TextIO]):
    """Our handler of the root logger, so that a second set-up finds the first one."""


def journal_reads(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Tell whether a stream leads to the journal: JOURNAL_STREAM names its device and inode."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or not a file at all
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def level_number(level: str, verbose: int) -> int:
    """Return the number of a level's name, `verbose` steps louder.

    >>> level_number("warning", 1) == logging.INFO
    True
    """
    start = LEVELS.index(getattr(logging, level.upper()))
    return LEVELS[min(start + verbose, len(LEVELS) - 1)]


def set_up_logging(
    *,
    level: str = "warning",
    verbose: int = 0,
    stream: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Send the log to standard error.  A second call changes the level.

    Args:
        level: The name of a level: `[log] level` for server and agent.
        verbose: How often -v was given.
        stream: Another stream than standard error.
        environ: The environment, for JOURNAL_STREAM.
    """
    target = sys.stderr if stream is None else stream
    handler = OwnHandler(target)
    handler.setFormatter(JournalFormatter() if journal_reads(target, environ) else PlainFormatter())
    root = logging.getLogger()
    root.handlers = [old for old in root.handlers if not isinstance(old, OwnHandler)]
    root.addHandler(handler)
    for name in _OWN:
        logging.getLogger(name).setLevel(level_number(level, verbose))
