"""Readings and ROM codes decoded, against the numbers of the data sheets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvedge.errors import BadReading
from kvedge_drivers.onewire.families import (
    FAMILIES,
    address_of,
    crc8,
    family_of,
    temperature_celsius,
)

DS18B20 = "28.0000000000A1"
DS18S20 = "10.0000000000A1"


@pytest.mark.parametrize(
    ("rom", "address"),
    [
        ("02 1C B8 01 00 00 00 A2", "02.1CB801000000"),
        ("10 67 C6 69 73 51 FF 8D", "10.67C6697351FF"),
        ("28 00 00 01 02 03 04 EA", "28.000001020304"),
        ("26 A1 B2 C3 D4 E5 F6 D3", "26.A1B2C3D4E5F6"),
    ],
)
def test_rom_becomes_address(rom: str, address: str) -> None:
    assert address_of(bytes.fromhex(rom)) == address


@pytest.mark.parametrize(
    ("rom", "why"),
    [
        ("28 00 00 01 02 03 04 EB", "CRC"),
        ("28 00 00 01 02 03 04", "8 bytes"),
        ("00 00 00 00 00 00 00 00", "shorted"),
    ],
)
def test_wrong_rom_is_refused(rom: str, why: str) -> None:
    with pytest.raises(BadReading, match=why):
        address_of(bytes.fromhex(rom))


@pytest.mark.parametrize("family", ["28", "22", "42", "3B"])
@pytest.mark.parametrize(
    ("scratchpad", "celsius"),
    [
        ("D0 07 4B 46 7F FF 10 10 55", 125.0),
        ("50 05 4B 46 7F FF 10 10 BD", 85.0),  # measured: byte 6 is not 0C
        ("A2 00 4B 46 7F FF 0E 10 E5", 10.125),
        ("08 00 4B 46 7F FF 08 10 D9", 0.5),
        ("00 00 4B 46 7F FF 10 10 69", 0.0),
        ("F8 FF 4B 46 7F FF 08 10 F8", -0.5),
        ("6F FE 4B 46 7F FF 01 10 61", -25.0625),
        ("90 FC 4B 46 7F FF 10 10 EE", -55.0),
    ],
)
def test_sixteenths_of_a_degree(family: str, scratchpad: str, celsius: float) -> None:
    assert temperature_celsius(f"{family}.0000000000A1", bytes.fromhex(scratchpad)) == celsius


@pytest.mark.parametrize(
    ("scratchpad", "celsius"),
    [
        ("32 00 4B 46 FF FF 0C 10 6B", 25.0),
        ("2D 00 4B 46 FF FF 08 10 FE", 22.25),
        ("01 00 4B 46 FF FF 0C 10 52", 0.0),
        ("FF FF 4B 46 FF FF 0C 10 CA", -1.0),
    ],
)
def test_ds18s20_is_refined_by_its_counter(scratchpad: str, celsius: float) -> None:
    assert temperature_celsius(DS18S20, bytes.fromhex(scratchpad)) == celsius


@pytest.mark.parametrize(("config", "celsius"), [(0x1F, 10.5), (0x3F, 10.75), (0x5F, 10.875)])
def test_bits_below_the_resolution_are_ignored(config: int, celsius: float) -> None:
    scratchpad = with_crc(bytes([0xAF, 0x00, 0x4B, 0x46, config, 0xFF, 0x01, 0x10]))
    assert temperature_celsius(DS18B20, scratchpad) == celsius


@pytest.mark.parametrize(
    ("address", "scratchpad", "why"),
    [
        (DS18B20, "50 05 4B 46 7F FF 0C 10 1C", "power-on value"),
        (DS18S20, "AA 00 4B 46 FF FF 0C 10 87", "power-on value"),
        (DS18B20, "00 00 00 00 00 00 00 00 00", "shorted"),
        (DS18B20, "D0 07 4B 46 7F FF 10 10 54", "CRC"),
        (DS18B20, "FF FF FF FF FF FF FF FF FF", "CRC"),
        (DS18B20, "D0 07 4B 46 7F FF 10 10", "9 bytes"),
    ],
)
def test_what_is_no_reading_is_refused(address: str, scratchpad: str, why: str) -> None:
    with pytest.raises(BadReading, match=why):
        temperature_celsius(address, bytes.fromhex(scratchpad))


@pytest.mark.parametrize(
    ("address", "body", "why"),
    [
        (DS18B20, "FF 07 4B 46 7F FF 0C 10", "too little power"),
        (DS18B20, "D1 07 4B 46 7F FF 0F 10", "range"),
        (DS18B20, "8F FC 4B 46 7F FF 01 10", "range"),
        (DS18S20, "32 00 4B 46 FF FF 0C 00", "counts"),
        ("3B.0000000000A1", "A2 00 00 00 F0 FF 0E 10", "MAX31850"),
    ],
)
def test_right_crc_is_not_enough(address: str, body: str, why: str) -> None:
    with pytest.raises(BadReading, match=why):
        temperature_celsius(address, with_crc(bytes.fromhex(body)))


def test_other_families_are_not_read() -> None:
    assert family_of("26.A1B2C3D4E5F6") is None
    assert family_of(DS18B20) is FAMILIES["28"]
    assert family_of("3b.0000000000a1") is FAMILIES["3B"]


def test_thermometers_have_one_channel_in_celsius() -> None:
    for family in FAMILIES.values():
        assert [(channel.name, channel.unit) for channel in family.channels] == [
            ("temperature", "°C")
        ]


@given(st.binary(max_size=32))
def test_crc_over_data_and_crc_is_zero(data: bytes) -> None:
    assert crc8(with_crc(data)) == 0


@given(st.binary(min_size=1, max_size=15), st.data())
def test_crc_finds_each_burst_of_eight_bits(data: bytes, draw: st.DataObject) -> None:
    """A CRC of eight bits misses no run of up to eight changed bits."""
    whole = int.from_bytes(with_crc(data), "little")
    burst = draw.draw(st.integers(1, 255))
    shift = draw.draw(st.integers(0, 8 * len(data)))
    damaged = (whole ^ burst << shift).to_bytes(len(data) + 1, "little")
    assert crc8(damaged) != 0


def with_crc(data: bytes) -> bytes:
    return data + bytes([crc8(data)])
