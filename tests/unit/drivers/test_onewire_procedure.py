"""The thermometers of a simulated bus: what a sample brings, and the job's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from kvedge.errors import BadReading, BadSetting, PortUnavailable
from kvedge_drivers.onewire.procedure import OneWireSettings, Thermometers, server_address
from kvedge_drivers.testing.onewire import (
    SensorFault,
    SimulatedBus,
    SimulatedOneWirePort,
    SimulatedSensor,
)

A, B, C = "28.0000000000A1", "28.0000000000B2", "10.0000000000C3"


@pytest.fixture
def bus() -> SimulatedBus:
    """A bus with three thermometers."""
    return SimulatedBus(SimulatedSensor(A, 21.5), SimulatedSensor(B, -4), SimulatedSensor(C, 48))


async def results(port: SimulatedOneWirePort) -> dict[str, object]:
    readings = await Thermometers(port).sample()
    assert all(reading.channel.name == "temperature" for reading in readings)
    return {reading.device: reading.result for reading in readings}


async def test_all_are_read_with_one_conversion(bus: SimulatedBus) -> None:
    assert await results(SimulatedOneWirePort(bus)) == {A: 21.5, B: -4.0, C: 48.0}
    assert [sensor.conversions for sensor in bus.sensors.values()] == [1, 1, 1]


async def test_empty_bus(bus: SimulatedBus) -> None:
    assert await results(SimulatedOneWirePort(SimulatedBus())) == {}


async def test_one_that_vanishes_is_not_mentioned(bus: SimulatedBus) -> None:
    bus.sensors[B].present = False
    assert set(await results(SimulatedOneWirePort(bus))) == {A, C}


@pytest.mark.parametrize(
    "fault", [SensorFault.CRC_ERROR, SensorFault.ALL_ZERO, SensorFault.POWER_ON_85]
)
async def test_one_that_is_broken_spares_the_others(bus: SimulatedBus, fault: SensorFault) -> None:
    bus.sensors[A].fault = fault
    found = await results(SimulatedOneWirePort(bus))
    assert isinstance(found.pop(A), BadReading)
    assert found == {B: -4.0, C: 48.0}


async def test_bus_that_is_gone_fails_as_a_whole(bus: SimulatedBus) -> None:
    port = SimulatedOneWirePort(bus)
    port.is_reachable = False
    with pytest.raises(PortUnavailable):
        await results(port)


class BreakingPort(SimulatedOneWirePort):
    """A bus that goes while its second device is read."""

    reads = 0

    async def read(self, address: str, attribute: str) -> bytes:
        self.reads += 1
        self.is_reachable = self.reads < 2
        return await super().read(address, attribute)


async def test_bus_that_goes_meanwhile_is_not_asked_again(bus: SimulatedBus) -> None:
    port = BreakingPort(bus)
    found = await results(port)
    assert found.pop(C) == 48.0
    assert [type(result) for result in found.values()] == [PortUnavailable] * 2
    assert port.reads == 2


class MixedPort(SimulatedOneWirePort):
    """A bus with a switch on it, too."""

    async def devices(self) -> list[str]:
        return [*await super().devices(), "3A.0000000000D4", "81.0000000000E5"]


async def test_what_is_no_thermometer_is_left_alone(bus: SimulatedBus) -> None:
    assert set(await results(MixedPort(bus))) == {A, B, C}


@pytest.mark.parametrize(
    ("server", "address"),
    [
        ("127.0.0.1:4304", ("127.0.0.1", 4304)),
        ("cellar", ("cellar", 4304)),
        ("cellar:14304", ("cellar", 14304)),
        ("[::1]:14304", ("::1", 14304)),
        ("[::1]", ("::1", 4304)),
    ],
)
def test_server(server: str, address: tuple[str, int]) -> None:
    assert server_address(server) == address


def test_settings() -> None:
    data = {"server": "cellar:14304", "interval_s": 2, "timeout_s": 3.5}
    assert OneWireSettings.from_data(data) == OneWireSettings("cellar", 14304, 2, 3.5)
    assert OneWireSettings.from_data({}) == OneWireSettings()


@pytest.mark.parametrize(
    "data",
    [
        {"serve": "cellar"},
        {"server": 4304},
        {"server": ""},
        {"server": ":4304"},
        {"server": "cellar:owfs"},
        {"server": "cellar:70000"},
        {"interval_s": -1},
        {"timeout_s": None},
    ],
)
def test_settings_that_cannot_be(data: Mapping[str, Any]) -> None:
    with pytest.raises(BadSetting, match=next(iter(data))):
        OneWireSettings.from_data(data)
