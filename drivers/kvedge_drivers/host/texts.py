"""What the kernel writes below /proc and /sys, decoded; no I/O.

Each function takes a file's text and raises `BadReading` where it is not what it should be.

Sources: proc(5); Documentation/ABI/testing/sysfs-class-thermal and sysfs-class-hwmon of the Linux
kernel; the Raspberry Pi documentation, "vcgencmd get_throttled", for the bits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from kvedge.errors import BadReading

_CELSIUS_MIN, _CELSIUS_MAX = -60.0, 160.0  # of any silicon that still computes
_NO_LETTERS = re.compile(r"[^a-z0-9]+")


def millidegrees(text: str) -> float:
    r"""Return °C from thousandths of a degree, as thermal zones and hwmon tell them.

    >>> millidegrees("48312\n")
    48.312
    """
    celsius = _whole(text) / 1000
    if not _CELSIUS_MIN <= celsius <= _CELSIUS_MAX:
        raise BadReading(text.strip(), "no chip has this temperature")
    return celsius


def load(text: str, *, index: int) -> float:
    """Return a load from /proc/loadavg: index 0 for that of one minute, then 5 and 15."""
    try:
        return float(text.split()[index])
    except (ValueError, IndexError) as error:
        raise BadReading(text.strip()[:80], "it is not a load") from error


def uptime_s(text: str) -> float:
    """Return the seconds since boot from /proc/uptime."""
    try:
        return float(text.split()[0])
    except (ValueError, IndexError) as error:
        raise BadReading(text.strip()[:80], "it is not an uptime") from error


def memory_bytes(text: str) -> Mapping[str, int]:
    """Return the fields of /proc/meminfo by their names."""
    fields = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        number, _, unit = rest.strip().partition(" ")
        if number.isdigit():
            fields[name] = int(number) * (1024 if unit == "kB" else 1)
    return fields


def memory_used_percent(text: str) -> float:
    """Return how much of the memory nobody else could have, from /proc/meminfo."""
    return _used_percent(text, total="MemTotal", free="MemAvailable")


def memory_available_bytes(text: str) -> int:
    """Return how much memory a new program could have, from /proc/meminfo."""
    fields = memory_bytes(text)
    if "MemAvailable" not in fields:
        raise BadReading("meminfo", "it has no MemAvailable")
    return fields["MemAvailable"]


def swap_used_percent(text: str) -> float:
    """Return how much of the swap space is in use, from /proc/meminfo."""
    return _used_percent(text, total="SwapTotal", free="SwapFree")


def has_swap(text: str) -> bool:
    """Tell whether there is any, from /proc/meminfo."""
    return memory_bytes(text).get("SwapTotal", 0) > 0


def _used_percent(text: str, *, total: str, free: str) -> float:
    fields = memory_bytes(text)
    if not fields.get(total) or free not in fields:
        raise BadReading("meminfo", f"it has no {total} and {free}")
    return 100 * (1 - fields[free] / fields[total])


THROTTLED_BITS: Mapping[str, int] = {
    "under_voltage": 0,
    "frequency_capped": 1,
    "throttled": 2,
    "temperature_limited": 3,
    "under_voltage_since_boot": 16,
    "throttled_since_boot": 18,
}
"""What the firmware of a Raspberry Pi complains of, by the bit it sets."""


def throttled(text: str, *, bit: int) -> bool:
    """Return one complaint from the firmware's get_throttled, a number in hexadecimal."""
    try:
        return bool(int(text, 16) >> bit & 1)
    except ValueError as error:
        raise BadReading(text.strip()[:80], "it is not a hexadecimal number") from error


def alarm(text: str) -> bool:
    """Return an alarm of hwmon: 0 or 1."""
    return _whole(text) != 0


def name_from(text: str) -> str:
    r"""Return a text as part of a channel's name.

    >>> name_from("Package id 0\n")
    'package_id_0'
    """
    return _NO_LETTERS.sub("_", text.strip().lower()).strip("_")


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise BadReading(text.strip()[:80], "it is not a whole number") from error
