"""Fixtures for the storage floor: a clock that is set by hand."""

from __future__ import annotations

import pytest


class HandClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def boottime_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return self.now_s

    def wall_is_synchronised(self) -> bool:
        return False


@pytest.fixture
def clock() -> HandClock:
    """A clock whose `now_s` the test sets."""
    return HandClock()
