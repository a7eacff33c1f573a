"""The clock as a value that is handed in; the only module that imports `time`.

Boards start in 1970 and clock chips may say 2099, so a wall clock is used only where
`wall_is_synchronised` says so, and durations are never taken from it.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What may be asked about time."""

    def wall_s(self) -> float:
        """Return the wall clock in unix seconds, right or wrong."""
        ...

    def wall_is_synchronised(self) -> bool:
        """Tell whether the kernel believes that the wall clock is right."""
        ...

    def boottime_s(self) -> float:
        """Return seconds since boot, those in suspend included; never goes back."""
        ...


class SystemClock:
    """The clock of this machine."""

    _SYNC_AGE_MAX_S = 10.0  # asking the kernel costs 2 us; a clock is not lost faster than this

    def __init__(self) -> None:
        self._sync_asked_s = -1e9
        self._sync = False

    def wall_s(self) -> float:
        """Return the wall clock in unix seconds."""
        return time.time()

    def boottime_s(self) -> float:
        """Return seconds since boot (CLOCK_BOOTTIME)."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall_is_synchronised(self) -> bool:
        """Tell what adjtimex(2) says: neither TIME_ERROR nor STA_UNSYNC."""
        now_s = self.boottime_s()
        if now_s - self._sync_asked_s > self._SYNC_AGE_MAX_S:
            self._sync_asked_s = now_s
            self._sync = _kernel_clock_is_synchronised()
        return self._sync


_STA_UNSYNC = 0x40  # <linux/timex.h>
_TIME_ERROR = 5


def _kernel_clock_is_synchronised() -> bool:
    """Call adjtimex(2) without changing anything (modes = 0)."""
    import ctypes

    class Timex(ctypes.Structure):
        # modes, offset, freq, maxerror, esterror, status: the rest is not read
        _fields_ = (
            ("modes", ctypes.c_uint),
            ("offset", ctypes.c_long),
            ("freq", ctypes.c_long),
            ("maxerror", ctypes.c_long),
            ("esterror", ctypes.c_long),
            ("status", ctypes.c_int),
            ("rest", ctypes.c_char * 256),
        )

    timex = Timex()
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError):
        return False
    return state >= 0 and state != _TIME_ERROR and not timex.status & _STA_UNSYNC
