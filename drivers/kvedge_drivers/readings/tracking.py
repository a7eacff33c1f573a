"""One channel as its job knows it: the last value, its state, and what has been written of it.

All here is computed: time is a parameter, and what shall be written is returned.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from kvedge.errors import BadSetting, DriverError
from kvedge.model.path import Path
from kvedge.model.value import Missing
from kvedge_drivers.quantity import Channel, Value, calibrated, is_number
from kvedge_drivers.readings.places import REWRITE_INTERVALS, Binding, Record, default_path
from kvedge_drivers.readings.states import STALE_INTERVALS, Health


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where readings come from.

    Attributes:
        node: The node whose hardware it is.
        driver: Who reads.
        bus: On which bus; empty where there is only one.
        interval_s: How often.
    """

    node: str
    driver: str
    bus: str = ""
    interval_s: float

    def is_of(self, record: Record) -> bool:
        """Tell whether a record was written for this driver and bus."""
        return (record.driver, record.bus) == (self.driver, self.bus)


@dataclass(slots=True)
class Tracked:
    """One channel.

    Attributes:
        origin: Where its readings come from.
        device: What it belongs to.
        channel: What it measures.
        since_s: When the job first knew of it.
        binding: What the user wishes.
        health: Its state.
        raw: The last good value, not calibrated; None where only an earlier run has read it.
        value: The same, calibrated; None if there never was one.
        time: Wall clock of that reading.
        synchronised: Whether that clock was right.
        readings: How many were good.
        errors: How many were not, by the code of their error.
        written: The record in the tree; None if there is none.
        written_s: When it was written.
        placed: The value in the tree and its place; MISSING if deleted, None if not known.
    """

    origin: Origin
    device: str
    channel: Channel
    since_s: float
    binding: Binding = field(default_factory=Binding)
    health: Health = field(default_factory=Health)
    raw: Value | None = None
    value: Value | None = None
    time: float | None = None
    synchronised: bool = False
    readings: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    written: Record | None = None
    written_s: float = 0.0
    placed: tuple[Path, Value] | Missing | None = None

    @property
    def key(self) -> Path:
        """The end of its places in the tree."""
        return Path(self.device, self.channel.name)

    @property
    def path(self) -> Path:
        """Where its value belongs."""
        where = self.binding.path
        return where or default_path(self.origin.node, self.device, self.channel.name)

    def bind(self, binding: Binding) -> None:
        """Follow the user's wishes, with the last value as well."""
        self.binding = binding
        self._calibrate()

    def succeed(self, value: Value, now_s: float, *, wall_s: float, synchronised: bool) -> None:
        """Take a good reading."""
        self.raw = value
        self._calibrate()
        self.readings += 1
        self.time = wall_s
        self.synchronised = synchronised
        self.health = self.health.good(now_s)

    def fail(self, error: DriverError) -> None:
        """Take a reading that failed."""
        self.errors[error.code] += 1
        self.health = self.health.failed(error)

    def pass_time(self, now_s: float) -> None:
        """Look whether the value has become too old."""
        self.health = self.health.at(now_s, interval_s=self.origin.interval_s)

    def record(self) -> Record:
        """Return what to report."""
        return Record(
            path=self.path,
            unit=self.channel.unit,
            device_class=self.channel.device_class,
            precision=self.channel.precision_digits,
            state=self.health.state,
            reason=self.health.reason,
            time=self.time,
            synchronised=self.synchronised,
            value=self.value,
            readings=self.readings,
            errors=dict(self.errors),
            interval_s=self.origin.interval_s,
            driver=self.origin.driver,
            bus=self.origin.bus,
        )

    def is_due(self, record: Record, now_s: float) -> bool:
        """Tell whether a record must be written now.

        What an earlier run of the job left stands until the first reading, good or not; but not
        for ever.
        """
        written, interval_s = self.written, self.origin.interval_s
        if written is None or self.placed is None:
            is_heard = self.health.streak > 0
            return is_heard or now_s - self.since_s > STALE_INTERVALS * interval_s
        if (
            record.state is not written.state
            or record.path != written.path
            or record.synchronised != written.synchronised
            or _has_moved(record.value, written.value, dead_band=self.channel.dead_band)
        ):
            return True
        is_news = (record.time, record.reason) != (written.time, written.reason)
        return is_news and now_s - self.written_s >= REWRITE_INTERVALS * interval_s

    def _calibrate(self) -> None:
        if self.raw is not None:
            self.value = calibrated(
                self.raw,
                gain=self.binding.gain,
                offset=self.binding.offset,
                precision_digits=self.channel.precision_digits,
            )


def restored(value: object, *, key: Path, origin: Origin, now_s: float) -> Tracked | None:
    """Return the channel that a record in the tree tells of, None if it is not of this origin.

    Args:
        value: The record.
        key: Device and channel.
        origin: Who asks.
        now_s: The time.
    """
    try:
        record = Record.from_value(value)
        device, name = map(str, key)
        channel = Channel(name, record.unit, record.device_class, precision_digits=record.precision)
    except (BadSetting, ValueError):
        return None  # not what this version writes
    if not origin.is_of(record):
        return None
    return Tracked(
        origin,
        device,
        channel,
        since_s=now_s,
        value=record.value,
        time=record.time,
        synchronised=record.synchronised,
        readings=record.readings,
        errors=Counter(record.errors),
        written=record,
    )


def _has_moved(value: Value | None, before: Value | None, *, dead_band: float) -> bool:
    if is_number(value) and is_number(before):
        return value != before and abs(value - before) >= dead_band
    return value != before
