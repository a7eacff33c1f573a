"""What can be measured: units, classes of quantities, channels and their readings; pure data.

A driver describes each thing it measures by a `Channel` and returns `Reading`s of it.  A reading
carries what the device said, or the error that stands in its place: a failure is a result like
any other, and is published like one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from kvedge.errors import DriverError

UNITS: Mapping[str, str] = {
    "°C": "degrees Celsius",
    "%": "parts of a hundred",
    "hPa": "hectopascal, the same as millibar",
    "lx": "lux",
    "V": "volt",
    "A": "ampere",
    "W": "watt",
    "Hz": "hertz",
    "ppm": "parts per million",
    "bytes": "bytes",
    "s": "seconds",
    "1": "a plain number, or true and false",
}
"""The units of readings, and what they mean.  `1` is not printed behind a value."""

CLASSES: Mapping[str, tuple[str, ...]] = {
    "temperature": ("°C",),
    "humidity": ("%",),
    "pressure": ("hPa",),
    "illuminance": ("lx",),
    "voltage": ("V",),
    "current": ("A",),
    "power": ("W",),
    "frequency": ("Hz",),
    "concentration": ("ppm",),
    "load": ("1",),
    "memory": ("%", "bytes"),
    "disk": ("%", "bytes"),
    "duration": ("s",),
    "clock": ("1",),
    "problem": ("1",),
}
"""What kinds of quantities there are, with the units they come in.

A `problem` is true while something is wrong.
"""

GUARD_DIGITS = 2
"""Digits stored beyond the precision: a sixteenth of a degree survives, float dust does not."""

Value = float | int | bool | str


@dataclass(frozen=True, slots=True)
class Channel:
    """One quantity that a device measures.

    Attributes:
        name: The channel below its device, such as "temperature"; without dots.
        unit: One of `UNITS`.
        device_class: One of `CLASSES`.
        precision_digits: Digits behind the point that are worth showing.
        dead_band: Changes smaller than this, in the channel's unit, are not worth a write of their
            own; 0 for none.
    """

    name: str
    unit: str
    device_class: str
    precision_digits: int
    dead_band: float = 0

    def __post_init__(self) -> None:
        if self.unit not in CLASSES.get(self.device_class, ()):
            raise ValueError(f"{self.name}: no {self.device_class} is told in {self.unit}")
        if not self.name or "." in self.name:
            raise ValueError(f"{self.name!r} cannot be the name of a channel")


@dataclass(frozen=True, slots=True)
class Reading:
    """What one channel of a device said.

    Attributes:
        device: The device below its node, such as "28.0000000000A1".
        channel: What was measured.
        result: The value, in the channel's unit; or why there is none.
    """

    device: str
    channel: Channel
    result: Value | DriverError


def is_number(value: object) -> TypeGuard[float]:
    """Tell whether a value can be calculated with; True and False cannot."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def calibrated(value: Value, *, gain: float, offset: float, precision_digits: int) -> Value:
    """Return `gain * value + offset`, without the dust of the calculation.

    >>> calibrated(21.4375, gain=1.0, offset=0.1, precision_digits=2)
    21.5375

    Args:
        value: As measured.  What is no number comes back as it is.
        gain: Factor.
        offset: In the channel's unit.
        precision_digits: Of the channel.
    """
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, int) and gain == 1 and not offset:
        return value
    return round(value * gain + offset, precision_digits + GUARD_DIGITS)


def shown(value: object, *, unit: str, precision_digits: int) -> str:
    """Return a value as people read it.

    >>> shown(21.4375, unit="°C", precision_digits=1)
    '21.4 °C'
    >>> shown(True, unit="1", precision_digits=0)
    'yes'
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if unit == "bytes" and is_number(value):
        return _bytes_shown(value)
    text = f"{value:.{precision_digits}f}" if is_number(value) else str(value)
    return text if unit == "1" else f"{text} {unit}"


def _bytes_shown(size: float) -> str:
    for factor, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(size) >= factor:
            return f"{size / factor:.1f} {name}"
    return f"{size:.0f} bytes"
