"""The loop of a job that reads sensors: sample, publish, wait.

Three tasks share a publisher.  One samples at the interval; one follows the user's wishes, as
they change; and one lets time pass, so that values become stale even while a sample hangs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kvedge.errors import DriverError
from kvedge.job import ChangeMsg, JobContext
from kvedge_drivers.quantity import Reading
from kvedge_drivers.readings.places import BINDINGS
from kvedge_drivers.readings.publisher import Publisher
from kvedge_drivers.readings.tracking import Origin


class Sensors(Protocol):
    """What a driver offers: all of its channels at once."""

    async def sample(self) -> Sequence[Reading]:
        """Read every channel that there is, once.

        Raises:
            DriverError: The bus as a whole does not work.  What concerns one channel stands in
                its reading.
        """
        ...


async def publish_readings(job: JobContext, sensors: Sensors, origin: Origin) -> None:
    """Read sensors at an interval and write what they say to the tree, until cancelled.

    Args:
        job: The job's view of the system.
        sensors: What to read.
        origin: Who reads, and how often.
    """
    publisher = Publisher(job, origin)
    await job.watch(BINDINGS / origin.node, fetch=False, max_depth=None)
    await publisher.start()
    await job.spawn(_pass_time, job, publisher, origin.interval_s)
    await job.spawn(_sample_for_ever, job, publisher, sensors, origin.interval_s)
    async for message in job.info:
        if message is None or isinstance(message, ChangeMsg):
            await publisher.rebind()  # reads all anew: there are few, and so none is missed


async def _sample_for_ever(
    job: JobContext, publisher: Publisher, sensors: Sensors, interval_s: float
) -> None:
    started_s = job.clock.boottime_s()
    await _sample(publisher, sensors)
    await job.setup_done()
    while True:
        await job.sleep(max(0.0, started_s + interval_s - job.clock.boottime_s()))
        started_s = job.clock.boottime_s()
        await _sample(publisher, sensors)


async def _sample(publisher: Publisher, sensors: Sensors) -> None:
    try:
        readings = await sensors.sample()
    except DriverError as error:
        await publisher.fail(error)
    else:
        await publisher.publish(readings)


async def _pass_time(job: JobContext, publisher: Publisher, interval_s: float) -> None:
    while True:
        await job.sleep(interval_s)
        await publisher.pass_time()
