"""Where a channel stands in the tree, and the two entries that describe it.

    sensor.NODE.DEVICE.CHANNEL                   the bare value, or wherever the user maps it
    :.kv.sensor.NODE.DEVICE.CHANNEL              `Record`: what the driver reports
    :.kv.config.sensor.NODE.DEVICE.CHANNEL       `Binding`: what the user wishes

Records are written by the job alone and bindings by users alone, so that they never fight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from kvedge.errors import BadPath, BadSetting
from kvedge.model.path import KV, P, Path
from kvedge_drivers.quantity import Value, is_number
from kvedge_drivers.readings.states import STALE_INTERVALS, State

RECORDS = KV / "sensor"
BINDINGS = KV + ("config", "sensor")

REWRITE_INTERVALS = 6
"""A record is renewed this often though nothing has changed.  Twenty steady sensors that are read
every 10 s then write 7 MB a day to the card, instead of 43 MB."""

FRESH_INTERVALS = REWRITE_INTERVALS + STALE_INTERVALS
"""A reader may call a value stale when its record is older than this."""


def default_path(node: str, device: str, channel: str) -> Path:
    """Return where a value stands that nobody has mapped."""
    return Path("sensor", node, device, channel)


def _map(what: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadSetting(what, f"it must be a map, not {value!r:.60}")
    return value


def _number(what: str, value: object) -> float:
    if not is_number(value) or not math.isfinite(value):
        raise BadSetting(what, f"{value!r:.60} is not a number")
    return value


def value_path(value: object) -> Path:
    """Return the path that a user wants for a value.

    Args:
        value: A path, or its text.

    Raises:
        BadSetting: It is no path, or one where values do not belong.
    """
    try:
        path = P(value) if isinstance(value, str) else value
    except BadPath as error:
        raise BadSetting("path", str(error)) from error
    if not isinstance(path, Path) or not len(path):
        raise BadSetting("path", f"{value!r:.60} is not the path of an entry")
    if path.is_system or path.is_below(KV):
        raise BadSetting("path", f"{path} is a place of the system")
    return path


@dataclass(frozen=True, slots=True)
class Binding:
    """What the user wishes for a channel.

    Attributes:
        path: Where the value goes; None for the default place.
        offset: Added to the measured value, in the channel's unit.
        gain: The measured value is multiplied with this first.
    """

    path: Path | None = None
    offset: float = 0.0
    gain: float = 1.0

    @classmethod
    def from_value(cls, value: object) -> Binding:
        """Read the entry of a binding.

        Raises:
            BadSetting: A field is wrong; names it.
        """
        given = _map("binding", value)
        path = given.get("path")
        return cls(
            path=None if path is None else value_path(path),
            offset=_number("offset", given.get("offset", 0.0)),
            gain=_number("gain", given.get("gain", 1.0)),
        )

    def to_value(self) -> dict[str, Any]:
        """Return what to store: the fields that differ from their defaults."""
        default = Binding()
        named = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in named.items() if value != getattr(default, name)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the driver reports about a channel.

    Attributes:
        path: Where the bare value stands, while it is current.
        unit: One of `kvedge_drivers.quantity.UNITS`.
        device_class: One of `kvedge_drivers.quantity.CLASSES`; stored as `class`.
        precision: Digits behind the point that are worth showing.
        state: What is known about it.
        reason: Why, in words; empty while it is ok.
        time: Unix seconds of the last good reading; None if there never was one.
        synchronised: Whether the clock was right then.
        value: The last good value, calibrated; None if there never was one.
        readings: Good readings since the record was made.
        errors: Failed ones, by the code of their error.
        interval_s: How often it is read.
        driver: Who reads it.
        bus: On which bus; empty where there is only one.
    """

    path: Path
    unit: str
    device_class: str
    precision: int
    state: State
    reason: str
    time: float | None
    synchronised: bool
    value: Value | None
    readings: int
    errors: Mapping[str, int] = field(default_factory=dict)
    interval_s: float
    driver: str
    bus: str = ""

    @classmethod
    def from_value(cls, value: object) -> Record:
        """Read the entry of a record.

        Raises:
            BadSetting: It is not what a driver would write.
        """
        given = dict(_map("record", value))
        given["device_class"] = given.pop("class", None)
        known = {item.name for item in fields(cls)}
        try:
            given["state"] = State(given["state"])
            record = cls(**{name: given[name] for name in known & set(given)})
        except (KeyError, TypeError, ValueError) as error:
            raise BadSetting("record", f"{error!r}") from error
        if not isinstance(record.path, Path):
            raise BadSetting("record", f"its path is {record.path!r:.60}")
        return record

    def to_value(self) -> dict[str, Any]:
        """Return what to store."""
        stored = {item.name: getattr(self, item.name) for item in fields(self)}
        stored["class"] = stored.pop("device_class")
        stored["state"] = str(self.state)
        return stored

    @property
    def fresh_for_s(self) -> float:
        """How long after `time` it may be believed without a newer record."""
        return FRESH_INTERVALS * self.interval_s
