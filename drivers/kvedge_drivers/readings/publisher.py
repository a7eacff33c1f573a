"""From readings to entries: what a driver measured, written to the tree, and no more than needed.

A change of state, of the value beyond its dead-band, of the user's wishes, or of the clock's word
is written at once; all else waits for the record's renewal.  Value and record are written
together, so the record's time is that of the value which stands in the tree.

The value stands there while it is current (`State.is_current`).  When it is not, it is deleted,
and the record keeps the last one: who follows the value alone is told, too.  What an earlier run
of the job left is taken over as stale, so a device that vanished meanwhile is not forgotten.

A channel that a sample does not mention belongs to a device that is away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import anyio

from kvedge.errors import BadSetting, DeviceAbsent, DriverError
from kvedge.job import JobContext
from kvedge.model.path import Path
from kvedge.model.value import MISSING
from kvedge_drivers.quantity import Reading
from kvedge_drivers.readings.places import BINDINGS, RECORDS, Binding, Record
from kvedge_drivers.readings.states import State
from kvedge_drivers.readings.tracking import Origin, Tracked, restored


class Publisher:
    """Writes the channels of one driver on one bus."""

    def __init__(self, job: JobContext, origin: Origin) -> None:
        """Take the job's view of the system, and who reads what."""
        self._job = job
        self._origin = origin
        self._records = RECORDS / origin.node
        self._bindings = BINDINGS / origin.node
        self._wishes: Mapping[Path, Binding] = {}
        self._tracked: dict[Path, Tracked] = {}
        self._told: dict[str, str] = {}
        self._lock = anyio.Lock()  # samples, the user's wishes and time have a task each

    # --- what happens -----------------------------------------------------------------------

    async def start(self) -> None:
        """Take over what an earlier run left, and read the user's wishes."""
        now_s = self._job.clock.boottime_s()
        for key, value in (await self._job.tree(self._records)).items():
            tracked = restored(value, key=key, origin=self._origin, now_s=now_s)
            if tracked:
                self._tracked[key] = tracked
        await self.rebind()

    async def publish(self, readings: Iterable[Reading]) -> None:
        """Take what a sample brought; channels that it does not mention are away."""
        async with self._lock:
            mentioned = {self._take(reading) for reading in readings}
            for key in self._tracked.keys() - mentioned:
                self._tracked[key].fail(DeviceAbsent(self._tracked[key].device))
            await self._write()
            await self._tell("bus", "")

    async def fail(self, error: DriverError) -> None:
        """Take a failure of the bus, which concerns every channel."""
        async with self._lock:
            for tracked in self._tracked.values():
                tracked.fail(error)
            await self._write()
            await self._tell("bus", str(error))

    async def pass_time(self) -> None:
        """Look whether a value has become too old."""
        async with self._lock:
            for tracked in self._tracked.values():
                tracked.pass_time(self._job.clock.boottime_s())
            await self._write()

    async def rebind(self) -> None:
        """Read the user's wishes anew and follow them at once."""
        async with self._lock:
            self._wishes = await self._read_wishes()
            for key, tracked in self._tracked.items():
                tracked.bind(self._wishes.get(key, Binding()))
            await self._clear_left_places()
            await self._write()

    def _take(self, reading: Reading) -> Path:
        key = Path(reading.device, reading.channel.name)
        clock = self._job.clock
        tracked = self._tracked.get(key) or Tracked(
            self._origin,
            reading.device,
            reading.channel,
            since_s=clock.boottime_s(),
            binding=self._wishes.get(key, Binding()),
        )
        self._tracked[key] = tracked
        tracked.channel = reading.channel
        if isinstance(reading.result, DriverError):
            tracked.fail(reading.result)
        else:
            tracked.succeed(
                reading.result,
                clock.boottime_s(),
                wall_s=clock.wall_s(),
                synchronised=clock.wall_is_synchronised(),
            )
        return key

    # --- writing ----------------------------------------------------------------------------

    async def _write(self) -> None:
        for key, tracked in [*self._tracked.items()]:
            record = tracked.record()
            if not tracked.is_due(record, self._job.clock.boottime_s()):
                continue
            if record.state is not State.OK and await self._is_elsewhere(key):
                del self._tracked[key]
            else:
                await self._write_one(tracked, record)

    async def _write_one(self, tracked: Tracked, record: Record) -> None:
        """Write value and record, in the order that never shows a state which is too good."""
        if tracked.written is None or record.state is not tracked.written.state:
            self._log(tracked.key, record)
        if record.state.is_current:
            await self._place(tracked, record)
        await self._job.set(self._records + tracked.key, record.to_value(), relaxed=True)
        tracked.written, tracked.written_s = record, self._job.clock.boottime_s()
        if not record.state.is_current and tracked.placed is not MISSING:
            await self._job.delete(record.path)
            tracked.placed = MISSING

    async def _place(self, tracked: Tracked, record: Record) -> None:
        assert record.value is not None, "a current channel has a value"
        wanted = (record.path, record.value)
        if tracked.placed != wanted:
            await self._job.set(*wanted, relaxed=True)
            tracked.placed = wanted

    async def _is_elsewhere(self, key: Path) -> bool:
        """Tell whether another bus has the device by now, and so speaks for it."""
        try:
            record = Record.from_value(await self._job.get(self._records + key))
        except BadSetting:
            return False
        return not self._origin.is_of(record)

    # --- the user's wishes ------------------------------------------------------------------

    async def _read_wishes(self) -> Mapping[Path, Binding]:
        wishes: dict[Path, Binding] = {}
        wrong = []
        for key, value in (await self._job.tree(self._bindings)).items():
            try:
                wishes[key] = Binding.from_value(value)
            except BadSetting as error:
                wrong.append(f"{self._bindings + key}: {error}")
        await self._tell("bindings", "; ".join(wrong))
        return wishes

    async def _clear_left_places(self) -> None:
        """Delete the values that stand where they do not belong any more."""
        every = self._tracked.values()
        left = {t.written.path for t in every if t.written and t.written.path != t.path}
        for path in left:
            await self._job.delete(path)
        for tracked in every:
            if tracked.path in left:  # it shared the place, or takes it over
                tracked.placed = None

    # --- telling ----------------------------------------------------------------------------

    async def _tell(self, name: str, text: str) -> None:
        """Record that something is wrong, or right again, when that changes."""
        if text == self._told.get(name):
            return
        self._told[name] = text
        if text:
            self._job.log.warning("%s", text)
            await self._job.set_error(name, text)
        else:
            await self._job.clear_error(name)

    def _log(self, key: Path, record: Record) -> None:
        because = f": {record.reason}" if record.reason else ""
        self._job.log.info("%s, from %s, is %s%s", record.path, key, record.state, because)
