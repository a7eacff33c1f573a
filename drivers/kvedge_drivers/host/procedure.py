"""The job `host`: the health of the board it runs on, read at an interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvedge.errors import BadSetting
from kvedge.job import JobContext
from kvedge_drivers.host import sources
from kvedge_drivers.quantity import Reading
from kvedge_drivers.readings import parameters
from kvedge_drivers.readings.loop import publish_readings
from kvedge_drivers.readings.tracking import Origin

_DISKS: Mapping[str, str] = {"disk": "/", "data": "/var/lib/kvedge"}


@dataclass(frozen=True, slots=True)
class HostSettings:
    """The parameters of the job.

    Attributes:
        interval_s: How often to read.
        disks: Names of file systems and a path on each.  A path that is not there is left out.
    """

    interval_s: float = 30
    disks: Mapping[str, str] = field(default_factory=lambda: _DISKS)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> HostSettings:
        """Read the data of a job: `interval_s`, and `disks` as a map from names to paths.

        Raises:
            BadSetting: Something in it is wrong.
        """
        default = cls()
        parameters.refuse_unknown(data, ("interval_s", "disks"))
        return cls(
            interval_s=parameters.interval_s(data, default=default.interval_s),
            disks=_disks(data.get("disks", default.disks)),
        )


def _disks(value: object) -> Mapping[str, str]:
    if not isinstance(value, Mapping) or not all(map(_is_disk, value, value.values())):
        raise BadSetting("disks", f"{value!r:.60} is not a map from names to absolute paths")
    return value


def _is_disk(name: object, path: object) -> bool:
    """Tell whether a name makes channels of its own, and the path is one."""
    is_name = isinstance(name, str) and name.isidentifier() and name not in ("memory", "swap")
    return is_name and isinstance(path, str) and path.startswith("/")


class Board:
    """All that the board tells about itself."""

    def __init__(self, job: JobContext, settings: HostSettings, root: Path = Path("/")) -> None:
        self._job = job
        self._settings = settings
        self._root = root

    async def sample(self) -> list[Reading]:
        """Read it, in a thread: a broken sensor chip may keep the kernel waiting."""
        read: list[Reading] = await self._job.in_thread(
            sources.read_all, self._root, self._settings.disks
        )
        is_synchronised = self._job.clock.wall_is_synchronised()
        return [*read, sources.clock_reading(is_synchronised=is_synchronised)]


async def run(job: JobContext, data: Mapping[str, Any]) -> object:
    """Read the health of the board until the job is stopped.

    Args:
        job: The job's view of the system.
        data: See `HostSettings.from_data`.

    Raises:
        BadSetting: The data are wrong.
    """
    settings = HostSettings.from_data(data)
    origin = Origin(node=job.node, driver="host", interval_s=settings.interval_s)
    await publish_readings(job, Board(job, settings), origin)
    return None
