"""What a check of `kv doctor` found.

Packages offer checks by the entry point group `kvedge.checks`: functions without arguments
that return a list of `CheckResult`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How bad it is; the value is what users and scripts see."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of `kv doctor`.

    Attributes:
        name: What was looked at, in one word.
        level: How bad it is.
        text: What was found, with names and numbers.
        remedy: What to type or do to mend it; empty where all is well.
    """

    name: str
    level: Level
    text: str
    remedy: str = ""


Check = Callable[[], Sequence[CheckResult]]
