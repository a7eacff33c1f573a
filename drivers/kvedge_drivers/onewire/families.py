"""What is known about 1-Wire families, and their answers decoded; no I/O.

Only thermometers are read so far: a device of another family is listed, not read.

A scratchpad has nine bytes, the last a CRC.  Three kinds of wrong answers pass that CRC: nine
zeros (a shorted wire), the power-on value 85 °C (the chip lost power since it was told to
measure), and 127.94 °C (it had too little).  The last two show a 0x0C in byte 6, where a
DS18B20 that has measured 85 °C shows 0x10.

Sources: data sheets of DS18B20, DS18S20, DS1822, DS1825, DS28EA00; Maxim application note 27
for the CRC; Documentation/w1/slaves/w1_therm.rst of the Linux kernel for byte 6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kvedge.errors import BadReading
from kvedge_drivers.quantity import Channel

_SCRATCHPAD_BYTES = 9
_ROM_BYTES = 8
_CELSIUS_MIN, _CELSIUS_MAX = -55.0, 125.0  # the range of all five chips


@dataclass(frozen=True, slots=True)
class Family:
    """What the devices with one family code have in common.

    Attributes:
        device: The chip's name.
        channels: What it measures.
        decode: From a checked scratchpad to °C.
    """

    device: str
    channels: tuple[Channel, ...]
    decode: Callable[[bytes], float]


def crc8(data: bytes) -> int:
    """Return the Dallas/Maxim CRC-8: x8 + x5 + x4 + 1, reflected; 0 over data and its own CRC."""
    crc = 0
    for byte in data:
        crc = _CRC_TABLE[crc ^ byte]
    return crc


def _crc_of_byte(crc: int) -> int:
    for _ in range(8):
        crc = (crc >> 1) ^ (0x8C if crc & 1 else 0)
    return crc


_CRC_TABLE = bytes(_crc_of_byte(byte) for byte in range(256))


def address_of(rom: bytes) -> str:
    """Return the address in eight bytes of ROM, such as "28.0000000000A1".

    Raises:
        BadReading: The length or the CRC is wrong, or there is no family code.
    """
    if len(rom) != _ROM_BYTES:
        raise BadReading(rom.hex(" "), f"a ROM has {_ROM_BYTES} bytes")
    _check_crc(rom)
    return f"{rom[0]:02X}.{rom[1:7].hex().upper()}"


def family_of(address: str) -> Family | None:
    """Return what is known about a device; None for a family that is listed only."""
    return FAMILIES.get(address[:2].upper())


def temperature_celsius(address: str, scratchpad: bytes) -> float:
    """Return the temperature in the scratchpad of a thermometer.

    Args:
        address: The device; its family must be in `FAMILIES`.
        scratchpad: Nine bytes, as they came.

    Raises:
        BadReading: It is not a scratchpad, or not that of a finished conversion.
    """
    if len(scratchpad) != _SCRATCHPAD_BYTES:
        raise BadReading(scratchpad.hex(" "), f"a scratchpad has {_SCRATCHPAD_BYTES} bytes")
    _check_crc(scratchpad)
    celsius = FAMILIES[address[:2].upper()].decode(scratchpad)
    if scratchpad[6] == 0x0C and celsius in _NOT_MEASURED:
        raise BadReading(scratchpad.hex(" "), _NOT_MEASURED[celsius])
    if not _CELSIUS_MIN <= celsius <= _CELSIUS_MAX:
        raise BadReading(scratchpad.hex(" "), f"{celsius:g} °C is outside the range of the chip")
    return celsius


_NOT_MEASURED = {
    85.0: "this is the power-on value, no conversion happened",
    127.9375: "the device had too little power to measure",
}


def _check_crc(data: bytes) -> None:
    if not any(data):
        raise BadReading(data.hex(" "), "all bits are zero, the wire is shorted")
    if crc8(data):
        raise BadReading(data.hex(" "), "its CRC is wrong")


def _sixteenths(scratchpad: bytes) -> float:
    """Decode 9 to 12 bits; the bits below the resolution are undefined and ignored."""
    idle_bits = 3 - (scratchpad[4] >> 5 & 3)
    raw = int.from_bytes(scratchpad[:2], "little", signed=True)
    return (raw >> idle_bits << idle_bits) / 16


def _located(scratchpad: bytes) -> float:
    """Decode a DS1825; its family code is shared with chips that need other formulas."""
    if scratchpad[4] & 0x80:
        raise BadReading(scratchpad.hex(" "), "MAX31826 and MAX31850 are not supported")
    return _sixteenths(scratchpad)


def _extended(scratchpad: bytes) -> float:
    """Decode a DS18S20: half degrees, refined by what was left in its counter.

    The power-on value is 85 °C with 0x0C in the counter, and so is a real 85.0 °C: the one
    sixteenth of a degree that this chip cannot report.
    """
    remain, per_degree = scratchpad[6], scratchpad[7]
    if not per_degree:
        raise BadReading(scratchpad.hex(" "), "a DS18S20 counts at least one per degree")
    raw = int.from_bytes(scratchpad[:2], "little", signed=True)
    return (raw >> 1) - 0.25 + (per_degree - remain) / per_degree


_TEMPERATURE = (Channel("temperature", unit="°C", device_class="temperature", precision_digits=2),)

FAMILIES: Mapping[str, Family] = {
    "10": Family("DS18S20", _TEMPERATURE, _extended),
    "22": Family("DS1822", _TEMPERATURE, _sixteenths),
    "28": Family("DS18B20", _TEMPERATURE, _sixteenths),
    "3B": Family("DS1825", _TEMPERATURE, _located),
    "42": Family("DS28EA00", _TEMPERATURE, _sixteenths),
}
"""The families that are read, by code."""
