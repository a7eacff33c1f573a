"""The job `onewire`: the thermometers behind an owserver, found and read at an interval.

A search of the bus comes first, so what is plugged in appears with the next sample and what is
unplugged is told.  All thermometers then measure together; the results are read one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvedge.errors import BadSetting, DriverError, PortUnavailable
from kvedge.job import JobContext
from kvedge_drivers.onewire.families import FAMILIES, family_of, temperature_celsius
from kvedge_drivers.onewire.pyownet_port import DEFAULT_PORT, DEFAULT_TIMEOUT_S, PyownetPort
from kvedge_drivers.ports import OneWirePort
from kvedge_drivers.quantity import Reading
from kvedge_drivers.readings import parameters
from kvedge_drivers.readings.loop import publish_readings
from kvedge_drivers.readings.tracking import Origin


@dataclass(frozen=True, slots=True)
class OneWireSettings:
    """The parameters of the job.

    Attributes:
        host: Name or address of the owserver.
        port: Its TCP port.
        interval_s: How often to read.  One sample takes 0.8 s and 15 ms per sensor.
        timeout_s: How long an answer may take before the bus counts as unreachable.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    interval_s: float = 10
    timeout_s: float = DEFAULT_TIMEOUT_S

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> OneWireSettings:
        """Read the data of a job: `server` as HOST:PORT, `interval_s`, `timeout_s`.

        Raises:
            BadSetting: Something in it is wrong.
        """
        default = cls()
        parameters.refuse_unknown(data, ("server", "interval_s", "timeout_s"))
        server = parameters.text(data, "server", default=f"{default.host}:{default.port}")
        host, port = server_address(server)
        return cls(
            host=host,
            port=port,
            interval_s=parameters.interval_s(data, default=default.interval_s),
            timeout_s=parameters.number(
                data, "timeout_s", default=default.timeout_s, at_least=0.1, at_most=600
            ),
        )


def server_address(server: str) -> tuple[str, int]:
    """Return host and port of HOST, HOST:PORT or [HOST]:PORT.

    Raises:
        BadSetting: It is none of these.
    """
    host, colon, port = server.rpartition(":")
    if not colon or server.endswith("]"):
        host, port = server, str(DEFAULT_PORT)
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise BadSetting("server", f"{server!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


class Thermometers:
    """All thermometers of a bus.

    Channels of devices that are listed only, such as switches, are left out.
    """

    def __init__(self, port: OneWirePort) -> None:
        self._port = port

    async def sample(self) -> list[Reading]:
        """Find and read them.

        Raises:
            DriverError: The bus cannot be searched, or the measuring not started.
        """
        found = [a for a in sorted(await self._port.devices()) if family_of(a) is not None]
        if found:
            await self._port.convert_all()
        readings: list[Reading] = []
        lost: PortUnavailable | None = None
        for address in found:
            result = lost or await self._read(address)
            if isinstance(result, PortUnavailable):
                lost = result  # not asked again for each of the others: they would wait as long
            readings.append(Reading(address, FAMILIES[address[:2]].channels[0], result))
        return readings

    async def _read(self, address: str) -> float | DriverError:
        try:
            return temperature_celsius(address, await self._port.read(address, "scratchpad"))
        except DriverError as error:
            return error


async def run(job: JobContext, data: Mapping[str, Any]) -> object:
    """Read the thermometers behind an owserver until the job is stopped.

    Args:
        job: The job's view of the system.
        data: See `OneWireSettings.from_data`.

    Raises:
        BadSetting: The data are wrong.
    """
    settings = OneWireSettings.from_data(data)
    bus = f"{settings.host}:{settings.port}"
    port = PyownetPort(settings.host, settings.port, name="onewire", timeout_s=settings.timeout_s)
    origin = Origin(node=job.node, driver="onewire", bus=bus, interval_s=settings.interval_s)
    try:
        await publish_readings(job, Thermometers(port), origin)
    finally:
        await port.close()
    return None
