"""The simulated 1-Wire bus behaves like the chips of the data sheets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvedge.errors import BadReading
from kvedge_drivers.onewire import families
from kvedge_drivers.testing.onewire import (
    FunctionCommand,
    RomCommand,
    SensorFault,
    SimulatedBus,
    SimulatedSensor,
    crc8,
)

A1 = "28.0000000000A1"
SERIALS = st.integers(0, 2**48 - 1).map(lambda serial: f"28.{serial:012X}")


def command(bus: SimulatedBus, sensor: SimulatedSensor, *data: int) -> bytes:
    """Select a sensor and exchange bytes with it."""
    bus.reset()
    bus.exchange(bytes([RomCommand.MATCH]) + sensor.rom)
    return bus.exchange(bytes(data))


def scratchpad(bus: SimulatedBus, sensor: SimulatedSensor) -> bytes:
    return command(bus, sensor, FunctionCommand.READ_SCRATCHPAD, *[0xFF] * 9)[1:]


def test_nobody_answers_on_an_empty_bus() -> None:
    bus = SimulatedBus()
    assert not bus.reset()
    assert bus.exchange(b"\xff\x00") == b"\xff\x00"
    assert list(bus.search()) == []


@given(st.sets(SERIALS, max_size=20))
def test_search_finds_each_device_once(addresses: set[str]) -> None:
    bus = SimulatedBus(*(SimulatedSensor(address) for address in addresses))
    found = [families.address_of(rom) for rom in bus.search()]
    assert sorted(found) == sorted(addresses)


def test_search_misses_what_is_unplugged() -> None:
    here, gone = SimulatedSensor(A1), SimulatedSensor("28.0000000000B2")
    gone.present = False
    assert list(SimulatedBus(here, gone).search()) == [here.rom]


def test_device_that_vanishes_during_a_search_ends_its_branch() -> None:
    first, second = SimulatedSensor("28.000000000000"), SimulatedSensor("28.000000000001")
    found = SimulatedBus(first, second).search()
    assert next(found) == first.rom
    second.present = False
    assert list(found) == []


def test_alarm_search_finds_what_is_outside_its_limits() -> None:
    cold, right, hot = (
        SimulatedSensor(f"28.00000000000{index}", celsius)
        for index, celsius in enumerate((10.0, 20.0, 30.0))
    )
    bus = SimulatedBus(cold, right, hot)
    for sensor in bus.sensors.values():
        command(bus, sensor, FunctionCommand.WRITE_SCRATCHPAD, 30, 10, 0x7F)
        command(bus, sensor, FunctionCommand.CONVERT)
    assert set(bus.search(RomCommand.ALARM_SEARCH)) == {cold.rom, hot.rom}


def test_read_rom_works_with_one_device() -> None:
    sensor = SimulatedSensor(A1)
    bus = SimulatedBus(sensor)
    bus.reset()
    assert bus.exchange(bytes([RomCommand.READ]) + b"\xff" * 8)[1:] == sensor.rom


@pytest.mark.parametrize(
    ("celsius", "expected"),
    [
        (125.0, "D0 07 4B 46 7F FF 10 10 55"),
        (85.0, "50 05 4B 46 7F FF 10 10 BD"),
        (10.125, "A2 00 4B 46 7F FF 0E 10 E5"),
        (-0.5, "F8 FF 4B 46 7F FF 08 10 F8"),
        (-25.0625, "6F FE 4B 46 7F FF 01 10 61"),
        (-55.0, "90 FC 4B 46 7F FF 10 10 EE"),
    ],
)
def test_ds18b20_sends_what_its_data_sheet_shows(celsius: float, expected: str) -> None:
    sensor = SimulatedSensor(A1, celsius)
    bus = SimulatedBus(sensor)
    command(bus, sensor, FunctionCommand.CONVERT)
    assert scratchpad(bus, sensor) == bytes.fromhex(expected)


@pytest.mark.parametrize(
    ("celsius", "expected"),
    [
        (25.0, "32 00 4B 46 FF FF 0C 10 6B"),
        (22.25, "2D 00 4B 46 FF FF 08 10 FE"),
        (85.0, "AA 00 4B 46 FF FF 0C 10 87"),
    ],
)
def test_ds18s20_sends_what_its_data_sheet_shows(celsius: float, expected: str) -> None:
    sensor = SimulatedSensor("10.0000000000A1", celsius)
    bus = SimulatedBus(sensor)
    command(bus, sensor, FunctionCommand.CONVERT)
    assert scratchpad(bus, sensor) == bytes.fromhex(expected)


def test_temperature_is_latched_by_a_conversion() -> None:
    sensor = SimulatedSensor(A1, 20.0)
    bus = SimulatedBus(sensor)
    command(bus, sensor, FunctionCommand.CONVERT)
    sensor.temperature_celsius = 30.0
    assert families.temperature_celsius(A1, scratchpad(bus, sensor)) == 20.0


def test_skip_rom_reaches_all() -> None:
    sensors = [SimulatedSensor(A1), SimulatedSensor("10.0000000000B2")]
    bus = SimulatedBus(*sensors)
    bus.reset()
    bus.exchange(bytes([RomCommand.SKIP, FunctionCommand.CONVERT]))
    assert [sensor.conversions for sensor in sensors] == [1, 1]


def test_two_that_speak_at_once_spoil_each_other() -> None:
    bus = SimulatedBus(SimulatedSensor(A1, 20.0), SimulatedSensor("28.0000000000B2", -7.0))
    bus.reset()
    bus.exchange(bytes([RomCommand.SKIP, FunctionCommand.CONVERT]))
    bus.reset()
    both = bus.exchange(bytes([RomCommand.SKIP, FunctionCommand.READ_SCRATCHPAD]) + b"\xff" * 9)
    assert crc8(both[2:]) != 0


def test_plugging_in_is_a_power_on() -> None:
    sensor = SimulatedSensor(A1, 20.0)
    bus = SimulatedBus(sensor)
    command(bus, sensor, FunctionCommand.CONVERT)
    sensor.present = False
    sensor.present = True
    assert scratchpad(bus, sensor) == bytes.fromhex("50 05 4B 46 7F FF 0C 10 1C")


def test_settings_survive_a_power_on_when_saved() -> None:
    sensor = SimulatedSensor(A1)
    bus = SimulatedBus(sensor)
    command(bus, sensor, FunctionCommand.WRITE_SCRATCHPAD, 30, 10, 0x1F)
    command(bus, sensor, FunctionCommand.COPY_SCRATCHPAD)
    command(bus, sensor, FunctionCommand.WRITE_SCRATCHPAD, 1, 2, 0x7F)
    sensor.power_on()
    assert scratchpad(bus, sensor)[2:5] == bytes([30, 10, 0x1F])


def test_lower_resolution_leaves_bits_out() -> None:
    sensor = SimulatedSensor(A1, 10.9375)
    bus = SimulatedBus(sensor)
    command(bus, sensor, FunctionCommand.WRITE_SCRATCHPAD, 30, 10, 0x1F)
    command(bus, sensor, FunctionCommand.CONVERT)
    assert families.temperature_celsius(A1, scratchpad(bus, sensor)) == 10.5


@pytest.mark.parametrize("fault", [fault for fault in SensorFault if fault.value != "none"])
def test_each_fault_is_noticed(fault: SensorFault) -> None:
    sensor = SimulatedSensor(A1, 20.0)
    bus = SimulatedBus(sensor)
    sensor.fault = fault
    command(bus, sensor, FunctionCommand.CONVERT)
    with pytest.raises(BadReading):
        families.temperature_celsius(A1, scratchpad(bus, sensor))


@given(st.integers(-55 * 16, 125 * 16))
def test_both_chips_tell_each_sixteenth(sixteenths: int) -> None:
    for address in (A1, "10.0000000000A1"):
        sensor = SimulatedSensor(address, sixteenths / 16)
        bus = SimulatedBus(sensor)
        command(bus, sensor, FunctionCommand.CONVERT)
        if (address[:2], sixteenths) != ("10", 85 * 16):  # not to be told from the power-on value
            reading = families.temperature_celsius(address, scratchpad(bus, sensor))
            assert reading == sixteenths / 16


@pytest.mark.parametrize("address", ["28.A1", "26.0000000000A1", "tiger", "", "28.0000000000a1"])
def test_what_is_no_thermometer_cannot_be_made(address: str) -> None:
    with pytest.raises(ValueError, match="12 hex digits"):
        SimulatedSensor(address)
