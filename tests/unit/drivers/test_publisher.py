"""Readings become entries: what is written when, what the user wishes, and the loop around it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import anyio
import pytest

from kvedge.clock import Clock
from kvedge.errors import BadReading, DeviceAbsent, DriverError, PortUnavailable
from kvedge.job import ChangeMsg, Handle, Message, Timer, TimerMsg
from kvedge.model.path import P, Path
from kvedge.model.value import MISSING
from kvedge_drivers.quantity import Channel, Reading, Value
from kvedge_drivers.readings.loop import publish_readings
from kvedge_drivers.readings.places import REWRITE_INTERVALS
from kvedge_drivers.readings.publisher import Publisher
from kvedge_drivers.readings.states import STALE_INTERVALS
from kvedge_drivers.readings.tracking import Origin, restored

INTERVAL_S = 10.0
A, B = "28.0000000000A1", "28.0000000000B2"
TEMPERATURE = Channel("temperature", "°C", "temperature", 2)
ORIGIN = Origin(node="alpha", driver="onewire", bus="here:4304", interval_s=INTERVAL_S)
PLACE_A, PLACE_B = (Path("sensor", "alpha", device, "temperature") for device in (A, B))
RECORD_A, RECORD_B = (Path(".kv", "sensor", "alpha", d, "temperature") for d in (A, B))
BINDING_A, BINDING_B = (Path(".kv", "config", "sensor", "alpha", d, "temperature") for d in (A, B))
GONE = DeviceAbsent(A)
REFUSED = PortUnavailable("onewire:0", "connection refused")


class FakeClock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.wall_offset_s = 1_700_000_000.0
        self.is_synchronised = True

    def wall_s(self) -> float:
        return self.now_s + self.wall_offset_s

    def wall_is_synchronised(self) -> bool:
        return self.is_synchronised

    def boottime_s(self) -> float:
        return self.now_s


class Task:
    """What the job has started."""

    async def cancel(self) -> None:
        raise AssertionError("nobody cancels")


class FakeJob:
    """A `kvedge.job.JobContext` over a dict, with time that is moved by hand."""

    def __init__(self) -> None:
        self.path = P("sensors")
        self.node = "alpha"
        self.group = "default"
        self.time = FakeClock()
        self.clock: Clock = self.time
        self.log = logging.getLogger("test")
        self.values: dict[Path, Any] = {}
        self.writes: list[Path] = []
        self.errors: dict[str, str] = {}
        self.told = 0
        self.works = 0
        self.tasks: anyio.abc.TaskGroup | None = None
        self._watched: list[Path] = []
        self._sleepers: list[tuple[float, anyio.Event]] = []
        self._told = anyio.Event()
        self.info: AsyncIterator[Message | None] = self._changes()

    async def _changes(self) -> AsyncIterator[Message | None]:
        while True:
            await self._told.wait()
            self._told = anyio.Event()
            yield ChangeMsg(P("whatever"), MISSING)

    async def get(self, path: Path) -> Any:
        return self.values.get(path, MISSING)

    async def set(self, path: Path, value: Any, *, relaxed: bool = False) -> None:
        assert relaxed
        self.values[path] = value
        self.writes.append(path)

    async def delete(self, path: Path) -> None:
        self.values.pop(path, None)
        self.writes.append(path)

    async def tree(self, path: Path) -> dict[Path, Any]:
        return {p[len(path) :]: v for p, v in self.values.items() if p.is_below(path)}

    async def watch(
        self,
        path: Path,
        *,
        cls: type[ChangeMsg] = ChangeMsg,
        fetch: bool = True,
        min_depth: int = 0,
        max_depth: int | None = 0,
    ) -> Handle:
        assert max_depth is None
        self._watched.append(path)
        return Task()

    async def user_sets(self, path: Path, value: Any) -> None:
        self.values[path] = value
        if any(path.is_below(watched) for watched in self._watched):
            self._told.set()
            await anyio.wait_all_tasks_blocked()

    async def timer(self, delay_s: float, *, cls: type[TimerMsg] = TimerMsg) -> Timer:
        raise AssertionError("not used")

    async def wait(
        self, *words: str, current: bool | None = None, now: float | None = None
    ) -> None:
        raise AssertionError("not used")

    def time_at(self, *words: str, current: bool | None = None, now: float | None = None) -> float:
        raise AssertionError("not used")

    async def run_at(
        self,
        *words: str,
        fn: Callable[[], Awaitable[object]],
        current: bool | None = None,
        now: float | None = None,
    ) -> Handle:
        raise AssertionError("not used")

    async def spawn(self, function: Callable[..., Awaitable[object]], *args: object) -> Handle:
        assert self.tasks

        async def run() -> None:
            await function(*args)

        self.tasks.start_soon(run)
        return Task()

    async def sleep(self, delay_s: float) -> None:
        event = anyio.Event()
        self._sleepers.append((self.time.now_s + delay_s, event))
        await event.wait()

    async def advance(self, seconds: float) -> None:
        """Let time pass; who sleeps wakes up in order."""
        until_s = self.time.now_s + seconds
        await anyio.wait_all_tasks_blocked()
        while self._sleepers and min(self._sleepers, key=_due)[0] <= until_s:
            due_s, event = min(self._sleepers, key=_due)
            self._sleepers.remove((due_s, event))
            self.time.now_s = max(self.time.now_s, due_s)
            event.set()
            await anyio.wait_all_tasks_blocked()
        self.time.now_s = until_s

    async def in_thread(self, function: Callable[..., Any], *args: object) -> Any:
        return function(*args)

    async def setup_done(self) -> None:
        self.works += 1

    async def set_error(self, name: str, text: str) -> None:
        self.errors[name] = text
        self.told += 1

    async def clear_error(self, name: str) -> None:
        self.errors.pop(name, None)


def _due(sleeper: tuple[float, anyio.Event]) -> float:
    return sleeper[0]


@pytest.fixture
def job() -> FakeJob:
    """A job on the node alpha."""
    return FakeJob()


@pytest.fixture
async def publisher(job: FakeJob) -> Publisher:
    """A publisher that has started."""
    made = Publisher(job, ORIGIN)
    await made.start()
    return made


def reading(
    result: Value | DriverError, device: str = A, channel: Channel = TEMPERATURE
) -> Reading:
    return Reading(device, channel, result)


async def sampled(job: FakeJob, publisher: Publisher, *results: Value | DriverError) -> None:
    """Publish one result after the other, an interval apart."""
    for result in results:
        job.time.now_s += INTERVAL_S
        await publisher.publish([reading(result)])


# --- what is written -------------------------------------------------------------------------


async def test_reading_becomes_value_and_record(job: FakeJob, publisher: Publisher) -> None:
    await publisher.publish([reading(21.5)])
    assert job.values[PLACE_A] == 21.5
    assert job.values[RECORD_A] == {
        "path": PLACE_A,
        "unit": "°C",
        "class": "temperature",
        "precision": 2,
        "state": "ok",
        "reason": "",
        "time": job.time.wall_s(),
        "synchronised": True,
        "value": 21.5,
        "readings": 1,
        "errors": {},
        "interval_s": 10.0,
        "driver": "onewire",
        "bus": "here:4304",
    }


async def test_unchanged_value_waits_for_the_renewal(job: FakeJob, publisher: Publisher) -> None:
    await sampled(job, publisher, 21.5)
    first_s = job.values[RECORD_A]["time"]
    job.writes.clear()
    await sampled(job, publisher, *[21.5] * (REWRITE_INTERVALS - 1))
    assert job.writes == []
    await sampled(job, publisher, 21.5)
    assert job.writes == [RECORD_A]
    assert job.values[RECORD_A]["time"] == first_s + REWRITE_INTERVALS * INTERVAL_S
    assert job.values[RECORD_A]["readings"] == REWRITE_INTERVALS + 1


async def test_changed_value_is_written_with_its_time(job: FakeJob, publisher: Publisher) -> None:
    await sampled(job, publisher, 21.5, 21.5, 22.0)
    assert job.values[PLACE_A] == 22.0
    assert job.values[RECORD_A]["time"] == job.time.wall_s()


async def test_change_within_the_dead_band_waits(job: FakeJob, publisher: Publisher) -> None:
    channel = Channel("load", "1", "load", 2, dead_band=0.5)
    place = P("sensor.alpha.host.load")
    for value in (1.0, 1.4, 0.6, 1.5):
        await publisher.publish([reading(value, "host", channel)])
        assert job.values[place] == (1.5 if value == 1.5 else 1.0)


async def test_clock_that_becomes_right_is_told_at_once(job: FakeJob, publisher: Publisher) -> None:
    job.time.is_synchronised = False
    await sampled(job, publisher, 21.5)
    assert job.values[RECORD_A]["synchronised"] is False
    job.time.is_synchronised = True
    job.time.wall_offset_s += 5e8
    await sampled(job, publisher, 21.5)
    assert job.values[RECORD_A]["synchronised"] is True
    assert job.values[RECORD_A]["time"] == job.time.wall_s()


# --- what goes wrong -------------------------------------------------------------------------


async def test_one_failure_keeps_the_value(job: FakeJob, publisher: Publisher) -> None:
    await sampled(job, publisher, 21.5, GONE)
    assert job.values[PLACE_A] == 21.5
    assert job.values[RECORD_A]["state"] == "suspect"


@pytest.mark.parametrize(
    ("error", "state", "code"),
    [(GONE, "missing", "device"), (BadReading("00", "CRC"), "fault", "reading")],
)
async def test_value_of_a_broken_channel_is_deleted(
    job: FakeJob, publisher: Publisher, error: DriverError, state: str, code: str
) -> None:
    await sampled(job, publisher, 21.5, error, error)
    record = job.values[RECORD_A]
    assert PLACE_A not in job.values
    assert (record["state"], record["reason"], record["value"]) == (state, str(error), 21.5)
    assert record["errors"] == {code: 2}
    assert record["time"] == job.time.wall_s() - 2 * INTERVAL_S
    assert job.writes[-2:] == [RECORD_A, PLACE_A]  # the reason is there before the value goes


async def test_device_comes_back(job: FakeJob, publisher: Publisher) -> None:
    await sampled(job, publisher, 21.5, GONE, GONE, 21.5)
    assert job.values[PLACE_A] == 21.5
    assert job.values[RECORD_A]["state"] == "ok"
    assert job.values[RECORD_A]["reason"] == ""


async def test_lasting_failure_is_written_once(job: FakeJob, publisher: Publisher) -> None:
    await sampled(job, publisher, 21.5, GONE, GONE)
    job.writes.clear()
    await sampled(job, publisher, *[GONE] * 20)
    assert job.writes == []


async def test_device_that_is_not_mentioned_is_away(job: FakeJob, publisher: Publisher) -> None:
    await publisher.publish([reading(21.5), reading(4.0, B)])
    for _ in range(2):
        await publisher.publish([reading(4.0, B)])
    assert job.values[RECORD_A]["state"] == "missing"
    assert job.values[RECORD_A]["reason"] == f"{A} does not answer"
    assert job.values[RECORD_B]["state"] == "ok"


async def test_new_device_appears(job: FakeJob, publisher: Publisher) -> None:
    await publisher.publish([reading(21.5)])
    await publisher.publish([reading(21.5), reading(4.0, B)])
    assert job.values[PLACE_B] == 4.0


async def test_new_device_that_fails_has_no_value(job: FakeJob, publisher: Publisher) -> None:
    await publisher.publish([reading(BadReading("00", "CRC"))])
    assert job.values[RECORD_A]["state"] == "fault"
    assert job.values[RECORD_A]["value"] is None
    assert PLACE_A not in job.values


async def test_bus_that_fails_is_an_error_of_the_job(job: FakeJob, publisher: Publisher) -> None:
    await sampled(job, publisher, 21.5)
    for _ in range(2):
        await publisher.fail(REFUSED)
    assert job.values[RECORD_A]["state"] == "missing"
    assert job.values[RECORD_A]["reason"] == str(REFUSED)
    assert job.errors == {"bus": str(REFUSED)}
    assert job.told == 1
    await sampled(job, publisher, 21.5)
    assert job.values[RECORD_A]["state"] == "ok"
    assert job.errors == {}


async def test_value_becomes_stale(job: FakeJob, publisher: Publisher) -> None:
    await sampled(job, publisher, 21.5)
    job.time.now_s += STALE_INTERVALS * INTERVAL_S
    await publisher.pass_time()
    assert job.values[RECORD_A]["state"] == "ok"
    job.time.now_s += 1
    await publisher.pass_time()
    assert job.values[RECORD_A]["state"] == "stale"
    assert job.values[RECORD_A]["reason"] == "no reading for 31 s"
    assert PLACE_A not in job.values


# --- a job that starts again -----------------------------------------------------------------


async def restarted(job: FakeJob, origin: Origin = ORIGIN) -> Publisher:
    job.time.now_s += 3600
    job.writes.clear()
    publisher = Publisher(job, origin)
    await publisher.start()
    return publisher


async def test_restart_leaves_values_until_the_first_sample(
    job: FakeJob, publisher: Publisher
) -> None:
    await sampled(job, publisher, 21.5)
    again = await restarted(job)
    assert job.writes == []
    await again.publish([reading(21.5)])
    assert job.writes == [PLACE_A, RECORD_A]
    assert job.values[RECORD_A]["readings"] == 2


async def test_device_that_vanished_meanwhile_is_told_at_once(
    job: FakeJob, publisher: Publisher
) -> None:
    await sampled(job, publisher, 21.5)
    again = await restarted(job)
    await again.publish([])
    assert job.values[RECORD_A]["state"] == "missing"
    assert job.values[RECORD_A]["value"] == 21.5
    assert PLACE_A not in job.values


async def test_first_sample_that_hangs_leaves_no_old_value(
    job: FakeJob, publisher: Publisher
) -> None:
    await sampled(job, publisher, 21.5)
    again = await restarted(job)
    job.time.now_s += STALE_INTERVALS * INTERVAL_S + 1
    await again.pass_time()
    assert job.values[RECORD_A]["state"] == "stale"
    assert PLACE_A not in job.values


async def test_record_of_another_bus_is_not_taken_over(job: FakeJob, publisher: Publisher) -> None:
    await sampled(job, publisher, 21.5)
    record, key = job.values[RECORD_A], Path(A, "temperature")
    other = Origin(node="alpha", driver="onewire", bus="x", interval_s=1)
    assert restored(record, key=key, origin=ORIGIN, now_s=0)
    assert restored(record, key=key, origin=other, now_s=0) is None
    assert restored(record, key=Path(A), origin=ORIGIN, now_s=0) is None
    assert restored("rubbish", key=key, origin=ORIGIN, now_s=0) is None


async def test_other_buses_are_left_alone(job: FakeJob, publisher: Publisher) -> None:
    await sampled(job, publisher, 21.5)
    job.values[RECORD_B] = "rubbish"
    other = await restarted(job, Origin(node="alpha", driver="onewire", bus="x", interval_s=1))
    await other.publish([])
    assert job.writes == []


async def test_device_that_moves_to_another_bus_is_told_by_that_one(
    job: FakeJob, publisher: Publisher
) -> None:
    await sampled(job, publisher, 21.5)
    other = Publisher(job, Origin(node="alpha", driver="onewire", bus="x", interval_s=1))
    await other.publish([reading(22.0)])
    for _ in range(3):
        await publisher.publish([])
    assert job.values[RECORD_A]["state"] == "ok"
    assert job.values[PLACE_A] == 22.0


# --- the user's wishes -----------------------------------------------------------------------


async def test_binding_moves_the_value_at_once(job: FakeJob, publisher: Publisher) -> None:
    await sampled(job, publisher, 21.5)
    job.values[BINDING_A] = {"path": P("cellar.temperature")}
    await publisher.rebind()
    assert job.values[P("cellar.temperature")] == 21.5
    assert PLACE_A not in job.values
    assert job.values[RECORD_A]["path"] == P("cellar.temperature")
    del job.values[BINDING_A]
    await publisher.rebind()
    assert P("cellar.temperature") not in job.values
    assert job.values[PLACE_A] == 21.5


async def test_calibration_changes_the_last_value_too(job: FakeJob, publisher: Publisher) -> None:
    await sampled(job, publisher, 20.0)
    job.values[BINDING_A] = {"offset": -0.5, "gain": 1.1}
    await publisher.rebind()
    assert job.values[PLACE_A] == 21.5
    assert job.values[RECORD_A]["value"] == 21.5


async def test_two_channels_change_places(job: FakeJob, publisher: Publisher) -> None:
    both = [reading(1.0), reading(2.0, B)]
    job.values |= {BINDING_A: {"path": P("x")}, BINDING_B: {"path": P("y")}}
    await publisher.rebind()
    await publisher.publish(both)
    job.values |= {BINDING_A: {"path": P("y")}, BINDING_B: {"path": P("x")}}
    await publisher.rebind()
    assert (job.values[P("x")], job.values[P("y")]) == (2.0, 1.0)


async def test_who_leaves_a_shared_place_leaves_the_other_there(
    job: FakeJob, publisher: Publisher
) -> None:
    job.values |= {BINDING_A: {"path": P("x")}, BINDING_B: {"path": P("x")}}
    await publisher.rebind()
    await publisher.publish([reading(1.0), reading(2.0, B)])
    del job.values[BINDING_A]
    await publisher.rebind()
    assert (job.values[P("x")], job.values[PLACE_A]) == (2.0, 1.0)


async def test_binding_changed_while_nothing_ran(job: FakeJob, publisher: Publisher) -> None:
    await sampled(job, publisher, 21.5)
    job.values[BINDING_A] = {"path": P("cellar")}
    again = await restarted(job)
    await again.publish([reading(21.5)])
    assert job.values[P("cellar")] == 21.5
    assert PLACE_A not in job.values


async def test_wrong_binding_is_told_and_the_default_holds(
    job: FakeJob, publisher: Publisher
) -> None:
    job.values[BINDING_A] = {"path": P(":.kv.run")}
    await publisher.rebind()
    await sampled(job, publisher, 21.5)
    assert job.values[PLACE_A] == 21.5
    assert str(BINDING_A) in job.errors["bindings"]
    del job.values[BINDING_A]
    await publisher.rebind()
    assert job.errors == {}


# --- the loop --------------------------------------------------------------------------------


class Script:
    """Sensors that say what a test wants; None hangs."""

    def __init__(self, *samples: Sequence[Reading] | DriverError | None) -> None:
        self._samples = [*samples]
        self.times = 0

    async def sample(self) -> Sequence[Reading]:
        self.times += 1
        sample = self._samples.pop(0) if len(self._samples) > 1 else self._samples[0]
        if sample is None:
            await anyio.sleep_forever()
        if isinstance(sample, DriverError):
            raise sample
        assert sample is not None
        return sample


async def test_loop_samples_at_the_interval(job: FakeJob) -> None:
    script = Script([reading(1.0)], REFUSED, [reading(2.0)])
    async with anyio.create_task_group() as job.tasks:
        job.tasks.start_soon(publish_readings, job, script, ORIGIN)
        await job.advance(INTERVAL_S - 1)
        assert (script.times, job.values[PLACE_A]) == (1, 1.0)
        await job.advance(1)
        assert job.errors == {"bus": str(REFUSED)}
        await job.advance(INTERVAL_S)
        assert (script.times, job.values[PLACE_A]) == (3, 2.0)
        assert job.works == 1
        job.tasks.cancel_scope.cancel()


async def test_loop_tells_of_a_sample_that_hangs(job: FakeJob) -> None:
    async with anyio.create_task_group() as job.tasks:
        job.tasks.start_soon(publish_readings, job, Script([reading(1.0)], None), ORIGIN)
        await job.advance((STALE_INTERVALS + 1) * INTERVAL_S)
        assert job.values[RECORD_A]["state"] == "stale"
        assert PLACE_A not in job.values
        job.tasks.cancel_scope.cancel()


async def test_loop_follows_the_user(job: FakeJob) -> None:
    async with anyio.create_task_group() as job.tasks:
        job.tasks.start_soon(publish_readings, job, Script([reading(1.0)]), ORIGIN)
        await job.advance(1)
        await job.user_sets(BINDING_A, {"path": P("cellar")})
        assert job.values[P("cellar")] == 1.0
        job.tasks.cancel_scope.cancel()
