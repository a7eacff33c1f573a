"""What every 1-Wire port promises: the simulated one, and pyownet before a real owserver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio
import pytest

from kvedge.errors import BadReading, DeviceAbsent, PortUnavailable
from kvedge_drivers.onewire.families import temperature_celsius
from kvedge_drivers.onewire.pyownet_port import PyownetPort
from kvedge_drivers.ports import OneWirePort
from kvedge_drivers.testing.onewire import (
    SensorFault,
    SimulatedBus,
    SimulatedOneWirePort,
    SimulatedSensor,
)
from kvedge_drivers.testing.owserver import owserver_with

DS18B20, DS18S20 = "28.0000000000A1", "10.0000000000C3"


@dataclass
class Bench:
    """A port, and the hand that plugs and unplugs behind it."""

    bus: SimulatedBus
    port: OneWirePort
    cut: Callable[[], None]
    mend: Callable[[], None]
    sensor: SimulatedSensor = field(init=False)

    def __post_init__(self) -> None:
        self.sensor = self.bus.sensors[DS18B20]

    async def measured(self, address: str = DS18B20) -> float:
        await self.port.convert_all()
        return temperature_celsius(address, await self.port.read(address, "scratchpad"))


@contextmanager
def simulated(bus: SimulatedBus) -> Iterator[Bench]:
    port = SimulatedOneWirePort(bus)

    def be_reachable(reachable: bool) -> None:
        port.is_reachable = reachable

    yield Bench(bus, port, cut=lambda: be_reachable(False), mend=lambda: be_reachable(True))


@contextmanager
def real(bus: SimulatedBus) -> Iterator[Bench]:
    with owserver_with(bus) as server:
        port = PyownetPort(server.host, server.port, conversion_s=0)
        yield Bench(bus, port, cut=server.stop, mend=server.start)


@pytest.fixture(params=[simulated, pytest.param(real, marks=pytest.mark.system)])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A port before a bus with one DS18B20 and one DS18S20."""
    bus = SimulatedBus(SimulatedSensor(DS18B20, 21.5), SimulatedSensor(DS18S20, -7.25))
    with request.param(bus) as made:
        yield made


async def test_devices_are_found(bench: Bench) -> None:
    assert sorted(await bench.port.devices()) == [DS18S20, DS18B20]


async def test_empty_bus_has_no_devices(bench: Bench) -> None:
    bench.bus.sensors.clear()
    assert await bench.port.devices() == []
    await bench.port.convert_all()


async def test_new_device_is_found_at_once(bench: Bench) -> None:
    await bench.port.devices()
    bench.bus.sensors["28.0000000000D4"] = SimulatedSensor("28.0000000000D4")
    assert "28.0000000000D4" in await bench.port.devices()


async def test_all_measure_together(bench: Bench) -> None:
    assert await bench.measured(DS18B20) == 21.5
    assert await bench.measured(DS18S20) == -7.25
    bench.sensor.temperature_celsius = -0.0625
    assert await bench.measured() == -0.0625


async def test_scratchpad_is_never_from_a_cache(bench: Bench) -> None:
    for celsius in (20.0, 30.0, 40.0):
        bench.sensor.temperature_celsius = celsius
        assert await bench.measured() == celsius


async def test_temperature_measures_alone(bench: Bench) -> None:
    assert float(await bench.port.read(DS18B20, "temperature")) == 21.5
    assert float(await bench.port.read(DS18S20, "latesttemp")) == 85
    assert bench.sensor.conversions == 1


async def test_many_may_ask_at_once(bench: Bench) -> None:
    read: list[tuple[str, float]] = []

    async def ask(address: str) -> None:
        read.append((address, float(await bench.port.read(address, "latesttemp"))))

    await bench.port.convert_all()
    async with anyio.create_task_group() as tasks:
        for address in (DS18B20, DS18S20) * 3:
            tasks.start_soon(ask, address)
    assert sorted(read) == [(DS18S20, -7.25)] * 3 + [(DS18B20, 21.5)] * 3


async def test_settings_are_written(bench: Bench) -> None:
    await bench.port.write(DS18B20, "temphigh", b"31")
    await bench.port.write(DS18B20, "templow", b"-5")
    assert int(await bench.port.read(DS18B20, "temphigh")) == 31
    assert int(await bench.port.read(DS18B20, "templow")) == -5
    assert bench.sensor.scratchpad[2:4] == bytes([31, 256 - 5])


@pytest.mark.parametrize(("attribute", "data"), [("temperature", b"3"), ("temphigh", b"high")])
async def test_write_that_is_refused_says_so(bench: Bench, attribute: str, data: bytes) -> None:
    with pytest.raises(BadReading, match=f"{DS18B20}/{attribute}"):
        await bench.port.write(DS18B20, attribute, data)


@pytest.mark.parametrize("attribute", ["scratchpad", "latesttemp", "temphigh"])
async def test_device_vanishes_and_comes_back(bench: Bench, attribute: str) -> None:
    await bench.port.read(DS18B20, attribute)
    bench.sensor.present = False
    with pytest.raises(DeviceAbsent) as caught:
        await bench.port.read(DS18B20, attribute)
    assert caught.value.address == DS18B20
    assert await bench.port.devices() == [DS18S20]
    bench.sensor.present = True
    await bench.port.read(DS18B20, attribute)


async def test_write_to_a_device_that_is_gone(bench: Bench) -> None:
    bench.sensor.present = False
    with pytest.raises(DeviceAbsent):
        await bench.port.write(DS18B20, "temphigh", b"31")


@pytest.mark.parametrize("address", ["28.0000000000FF", "tiger", "", "../settings", "28.äöü"])
async def test_unknown_address_is_absent(bench: Bench, address: str) -> None:
    with pytest.raises(DeviceAbsent):
        await bench.port.read(address, "scratchpad")


@pytest.mark.parametrize("attribute", ["colour", "", "../temperature", "wärme", "a b"])
async def test_unknown_attribute_is_told(bench: Bench, attribute: str) -> None:
    with pytest.raises(BadReading, match="no such attribute"):
        await bench.port.read(DS18B20, attribute)


async def test_wrong_crc_is_a_bad_reading(bench: Bench) -> None:
    bench.sensor.fault = SensorFault.CRC_ERROR
    with pytest.raises(BadReading):
        await bench.measured()
    bench.sensor.fault = SensorFault.NONE
    assert await bench.measured() == 21.5


@pytest.mark.parametrize("fault", [SensorFault.ALL_ZERO, SensorFault.POWER_ON_85])
async def test_what_passes_the_crc_is_left_to_the_decoder(bench: Bench, fault: SensorFault) -> None:
    bench.sensor.fault = fault
    await bench.port.convert_all()
    assert await bench.port.read(DS18B20, "scratchpad") == bench.sensor.scratchpad
    with pytest.raises(BadReading):
        await bench.measured()


async def test_link_is_cut_and_mended(bench: Bench) -> None:
    await bench.port.devices()
    bench.cut()
    with pytest.raises(PortUnavailable, match="onewire:0"):
        await bench.port.devices()
    with pytest.raises(PortUnavailable):
        await bench.port.read(DS18B20, "scratchpad")
    with pytest.raises(PortUnavailable):
        await bench.port.write(DS18B20, "temphigh", b"31")
    with pytest.raises(PortUnavailable):
        await bench.port.convert_all()
    bench.mend()
    assert await bench.measured() == 21.5
    await bench.port.close()
