"""A simulated 1-Wire bus with thermometers, at the level of time slots.

A slot is one bit: the master pulls the wire low or not, every chip does the same, and all read
the wired AND.  A chip is a conversation: a generator that yields the level it drives in the next
slot and is sent the level it saw.  A reset starts the conversation anew.  So match, skip and
search need no special case here: they work because many chips answer at once, as on a real bus.

No I/O and no clock: a conversion takes no time.  Out of scope: pulse widths, overdrive, parasite
power.  Nothing is shared with `kvedge_drivers.onewire`: a mistake made on both sides would hide.

Sources: data sheets of DS18B20 and DS18S20; Maxim application note 187 for the search.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TypeVar

from kvedge.errors import BadReading, DeviceAbsent, PortUnavailable

_T = TypeVar("_T")
_Slots = Generator[int, int, _T]


class RomCommand(IntEnum):
    """The first byte after a reset: who is meant."""

    SEARCH = 0xF0
    ALARM_SEARCH = 0xEC
    READ = 0x33
    MATCH = 0x55
    SKIP = 0xCC


class FunctionCommand(IntEnum):
    """The byte after that: what to do."""

    CONVERT = 0x44
    READ_SCRATCHPAD = 0xBE
    WRITE_SCRATCHPAD = 0x4E
    COPY_SCRATCHPAD = 0x48
    RECALL_EEPROM = 0xB8


_ADDRESS = re.compile(r"(28|10)\.[0-9A-F]{12}")
_RELEASED = 1
_ROM_BITS = 64
_POWER_ON_CELSIUS = 85.0


class SensorFault(Enum):
    """What may be wrong with a sensor that still answers."""

    NONE = "none"
    CRC_ERROR = "crc_error"  # a long cable: the last byte of the scratchpad arrives changed
    ALL_ZERO = "all_zero"  # a shorted wire; note that the CRC of zeros is right
    POWER_ON_85 = "power_on_85"  # the supply breaks down during the conversion


def crc8(data: bytes) -> int:
    """Return the CRC of the chips (x8 + x5 + x4 + 1), by the shift register of their data sheet."""
    register = 0
    for bit in _bits(data):
        feedback = (register ^ bit) & 1
        register = (register >> 1) ^ (0x8C if feedback else 0)
    return register


# --- the two chips --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Settings:
    """The bytes that a chip keeps in its EEPROM; these are the factory's."""

    limit_high: int = 0x4B
    limit_low: int = 0x46
    config: int = 0x7F  # 12 bits


def _ds18b20(celsius: float, settings: _Settings) -> bytes:
    idle_bits = 3 - (settings.config >> 5 & 3)
    raw = round(celsius * 16) >> idle_bits << idle_bits
    counter = 0x10 - (raw & 0x0F)
    head = raw.to_bytes(2, "little", signed=True)
    limits = bytes([settings.limit_high, settings.limit_low])
    return head + limits + bytes([settings.config, 0xFF, counter, 0x10])


def _ds18b20_celsius(scratchpad: bytes) -> float:
    return int.from_bytes(scratchpad[:2], "little", signed=True) / 16


def _ds18s20(celsius: float, settings: _Settings) -> bytes:
    """Return half degrees, and in byte 6 what its counter had left: sixteenths of a degree."""
    whole = math.floor(celsius + 0.25)
    sixteenths = round((celsius + 0.25 - whole) * 16)
    raw = whole * 2 + (1 if sixteenths >= 8 else 0)
    head = raw.to_bytes(2, "little", signed=True)
    limits = bytes([settings.limit_high, settings.limit_low])
    return head + limits + bytes([0xFF, 0xFF, 16 - sixteenths, 0x10])


def _ds18s20_celsius(scratchpad: bytes) -> float:
    whole = int.from_bytes(scratchpad[:2], "little", signed=True) // 2
    return whole + 0.75 - scratchpad[6] / 16


@dataclass(frozen=True, slots=True)
class _Model:
    """What differs between the chips."""

    encode: Callable[[float, _Settings], bytes]
    decode: Callable[[bytes], float]
    power_on_counter: int  # byte 6 before the first conversion
    has_config: bool


_MODELS = {
    0x28: _Model(_ds18b20, _ds18b20_celsius, power_on_counter=0x0C, has_config=True),
    0x10: _Model(_ds18s20, _ds18s20_celsius, power_on_counter=0x0C, has_config=False),
}


class SimulatedSensor:
    """A DS18B20 (family 28) or DS18S20 (family 10).

    Attributes:
        address: Family and serial number, such as "28.0000000000A1".
        rom: The eight bytes of its ROM, CRC last.
        temperature_celsius: What it feels; what it tells changes with the next conversion.
        fault: What is wrong with it.
        conversions: How often it has measured.
    """

    def __init__(self, address: str, temperature_celsius: float = 21.0) -> None:
        if not _ADDRESS.fullmatch(address):
            raise ValueError(f"{address!r} is not family 28 or 10, a dot and 12 hex digits (A-F)")
        body = bytes.fromhex(address.replace(".", ""))
        self.address = address
        self.rom = body + bytes([crc8(body)])
        self.temperature_celsius = temperature_celsius
        self.fault = SensorFault.NONE
        self.conversions = 0
        self._model = _MODELS[body[0]]
        self._present = True
        self._eeprom = _Settings()
        self.power_on()

    @property
    def present(self) -> bool:
        """Whether it is plugged in; plugging it in is a power-on."""
        return self._present

    @present.setter
    def present(self, present: bool) -> None:
        if present and not self._present:
            self.power_on()
        self._present = present

    def power_on(self) -> None:
        """Forget the last conversion and the settings that were not saved."""
        self._settings = self._eeprom
        self._measured_celsius = _POWER_ON_CELSIUS
        self._has_measured = False
        self._driven = _RELEASED
        self._talk = _silence()
        next(self._talk)

    def reset(self) -> None:
        """Take a reset pulse."""
        self._talk = self._conversation()
        self._driven = next(self._talk)

    @property
    def driven(self) -> int:
        """The level that it drives in the next slot: 0 pulls the wire low."""
        return self._driven

    def sample(self, level: int) -> None:
        """Take the level of the wire in a slot and go on to the next."""
        self._driven = self._talk.send(level)

    @property
    def scratchpad(self) -> bytes:
        """The nine bytes that it would send now."""
        if self.fault is SensorFault.ALL_ZERO:
            return bytes(9)
        data = bytearray(self._model.encode(self._measured_celsius, self._settings))
        if not self._has_measured:
            data[6] = self._model.power_on_counter
        crc = crc8(bytes(data))
        return bytes(data) + bytes([crc ^ 0x55 if self.fault is SensorFault.CRC_ERROR else crc])

    @property
    def has_alarm(self) -> bool:
        """Whether the last conversion reached one of the limits."""
        high, low = (_signed(x) for x in (self._settings.limit_high, self._settings.limit_low))
        return not low < math.floor(self._measured_celsius) < high

    def _conversation(self) -> _Slots[None]:
        command = yield from _receive_byte()
        if (yield from self._is_selected(command)):
            yield from self._execute((yield from _receive_byte()))
        yield from _silence()

    def _is_selected(self, command: int) -> _Slots[bool]:
        match command:
            case RomCommand.SKIP:
                return True
            case RomCommand.READ:
                yield from _send(self.rom)
                return True
            case RomCommand.MATCH:
                return (yield from self._is_matched())
            case RomCommand.SEARCH:
                return (yield from self._is_found())
            case RomCommand.ALARM_SEARCH if self.has_alarm:
                return (yield from self._is_found())
        return False

    def _is_matched(self) -> _Slots[bool]:
        for bit in _bits(self.rom):
            if (yield _RELEASED) != bit:
                return False
        return True

    def _is_found(self) -> _Slots[bool]:
        for bit in _bits(self.rom):
            yield bit
            yield 1 - bit
            if (yield _RELEASED) != bit:
                return False
        return True

    def _execute(self, function: int) -> _Slots[None]:
        """Do what was asked; silence is the answer "done" and "not parasite-powered" as well."""
        match function:
            case FunctionCommand.CONVERT:
                self._convert()
            case FunctionCommand.READ_SCRATCHPAD:
                yield from _send(self.scratchpad)
            case FunctionCommand.WRITE_SCRATCHPAD:
                yield from self._take_settings()
            case FunctionCommand.COPY_SCRATCHPAD:
                self._eeprom = self._settings
            case FunctionCommand.RECALL_EEPROM:
                self._settings = self._eeprom

    def _convert(self) -> None:
        self.conversions += 1
        self._has_measured = self.fault is not SensorFault.POWER_ON_85
        self._measured_celsius = (
            self.temperature_celsius if self._has_measured else _POWER_ON_CELSIUS
        )

    def _take_settings(self) -> _Slots[None]:
        high = yield from _receive_byte()
        low = yield from _receive_byte()
        self._settings = _Settings(high, low, self._settings.config)
        if self._model.has_config:
            config = yield from _receive_byte()
            self._settings = _Settings(high, low, config & 0x60 | 0x1F)


# --- the wire -------------------------------------------------------------------------------


class SimulatedBus:
    """The wire, and what hangs on it.

    Attributes:
        sensors: The sensors by address, those that are unplugged included.
    """

    def __init__(self, *sensors: SimulatedSensor) -> None:
        self.sensors = {sensor.address: sensor for sensor in sensors}

    def reset(self) -> bool:
        """Send a reset pulse and tell whether anybody is present."""
        present = self._present()
        for sensor in present:
            sensor.reset()
        return bool(present)

    def slot(self, bit: int) -> int:
        """Write one bit and return the level of the wire; a 1 is a read slot as well."""
        present = self._present()
        level = min([bit, *(sensor.driven for sensor in present)])
        for sensor in present:
            sensor.sample(level)
        return level

    def exchange(self, data: bytes) -> bytes:
        """Write bytes, lowest bit first, and return what the wire carried; FF reads."""
        return bytes(_byte([self.slot(bit) for bit in _bits(bytes([byte]))]) for byte in data)

    def search(self, command: int = RomCommand.SEARCH) -> Iterator[bytes]:
        """Yield the ROMs of all that answer: a walk down the binary tree of their bits."""
        branches: list[list[int]] = [[]]
        while branches:
            rom, forks = self._descend(command, branches.pop())
            branches += forks
            if rom:
                yield rom

    def _descend(self, command: int, wanted: list[int]) -> tuple[bytes, list[list[int]]]:
        """Follow one branch to a ROM, by zeros where it is free; return the forks passed too."""
        forks: list[list[int]] = []
        chosen: list[int] = []
        self.reset()
        self.exchange(bytes([command]))
        for index in range(_ROM_BITS):
            bit, complement = self.slot(1), self.slot(1)
            if bit and complement:
                return b"", forks  # nobody is left: it was unplugged, or there never was one
            if index < len(wanted):
                bit = wanted[index]
            elif not bit and not complement:
                forks.append([*chosen, 1])
            self.slot(bit)
            chosen.append(bit)
        return b"".join(bytes([_byte(chosen[i : i + 8])]) for i in range(0, _ROM_BITS, 8)), forks

    def _present(self) -> list[SimulatedSensor]:
        return [sensor for sensor in self.sensors.values() if sensor.present]


class SimulatedOneWirePort:
    """A `kvedge_drivers.ports.OneWirePort` on a simulated bus, with nothing in between.

    Attributes:
        is_reachable: While False, every call raises PortUnavailable.
    """

    def __init__(self, bus: SimulatedBus, *, name: str = "onewire:0") -> None:
        self.name = name
        self.is_reachable = True
        self._bus = bus

    async def devices(self) -> list[str]:
        """Search the bus."""
        self._reset()
        return [f"{rom[:1].hex()}.{rom[1:7].hex()}".upper() for rom in self._bus.search()]

    async def read(self, address: str, attribute: str) -> bytes:
        """Read one of temperature, latesttemp, scratchpad, temphigh and templow."""
        if attribute == "temperature":
            self._command(address, FunctionCommand.CONVERT)
        scratchpad = self._scratchpad(address)
        match attribute:
            case "scratchpad":
                return scratchpad
            case "temperature" | "latesttemp":
                return _as_text(_MODELS[int(address[:2], 16)].decode(scratchpad))
            case "temphigh":
                return _as_text(_signed(scratchpad[2]))
            case "templow":
                return _as_text(_signed(scratchpad[3]))
        raise BadReading(f"{address}/{attribute}", "there is no such attribute")

    async def write(self, address: str, attribute: str, data: bytes) -> None:
        """Write one of temphigh and templow."""
        settings = bytearray(self._scratchpad(address)[2:5])
        if attribute not in _LIMITS:
            raise BadReading(f"{address}/{attribute}", "it cannot be written")
        try:
            settings[_LIMITS[attribute]] = int(data) & 0xFF
        except ValueError as error:
            raise BadReading(f"{address}/{attribute}", "it takes a whole number") from error
        self._command(address, FunctionCommand.WRITE_SCRATCHPAD)
        self._bus.exchange(bytes(settings))

    async def convert_all(self) -> None:
        """Make all sensors measure."""
        self._reset()
        self._bus.exchange(bytes([RomCommand.SKIP, FunctionCommand.CONVERT]))

    async def close(self) -> None:
        """Do nothing."""

    def _reset(self) -> bool:
        if not self.is_reachable:
            raise PortUnavailable(self.name, "the simulation says so")
        return self._bus.reset()

    def _command(self, address: str, function: FunctionCommand) -> None:
        self._reset()
        try:
            body = bytes.fromhex(address.replace(".", ""))
        except ValueError as error:
            raise DeviceAbsent(address) from error
        self._bus.exchange(bytes([RomCommand.MATCH, *body, crc8(body), function]))

    def _scratchpad(self, address: str) -> bytes:
        self._command(address, FunctionCommand.READ_SCRATCHPAD)
        scratchpad = self._bus.exchange(b"\xff" * 9)
        if scratchpad == b"\xff" * 9:
            raise DeviceAbsent(address)
        if crc8(scratchpad):
            raise BadReading(scratchpad.hex(" "), "its CRC is wrong")
        return scratchpad


_LIMITS = {"temphigh": 0, "templow": 1}


def _as_text(value: float) -> bytes:
    return f"{value:12g}".encode()


# --- bits -----------------------------------------------------------------------------------


def _bits(data: bytes) -> Iterator[int]:
    return (byte >> position & 1 for byte in data for position in range(8))


def _byte(bits: list[int]) -> int:
    return sum(bit << position for position, bit in enumerate(bits))


def _signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte


def _send(data: bytes) -> _Slots[None]:
    yield from _bits(data)


def _receive_byte() -> _Slots[int]:
    bits = []
    for _ in range(8):
        bits.append((yield _RELEASED))
    return _byte(bits)


def _silence() -> _Slots[None]:
    while True:
        yield _RELEASED
