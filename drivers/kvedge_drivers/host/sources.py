"""Where a board tells about itself: files below a root, and the file systems.

A source that is not there gives no channel; one that is there and cannot be read gives a reading
with the error.  All functions block for as long as the kernel takes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from kvedge.errors import BadReading, DriverError
from kvedge_drivers.host import texts
from kvedge_drivers.quantity import Channel, Reading, Value

DEVICE = "host"
"""The device of all channels."""

_CPU_ZONES = (
    "cpu_thermal",  # Raspberry Pi, Allwinner, Rockchip
    "soc_thermal",
    "bcm2835_thermal",
    "x86_pkg_temp",
    "coretemp_package_id_0",
    "k10temp_tctl",
    "k10temp_tdie",
)
"""Whose temperature is called the CPU's, the best first."""

_LOAD = tuple(
    Channel(f"load_{span}", "1", "load", 2, dead_band=0.1) for span in ("1m", "5m", "15m")
)
_UPTIME = Channel("uptime", "s", "duration", 0, dead_band=600)
_MEMORY: tuple[tuple[Channel, Callable[[str], Value]], ...] = (
    (Channel("memory_used", "%", "memory", 1, dead_band=1), texts.memory_used_percent),
    (
        Channel("memory_available", "bytes", "memory", 0, dead_band=16 * 2**20),
        texts.memory_available_bytes,
    ),
)
_SWAP = Channel("swap_used", "%", "memory", 1, dead_band=1)
_CLOCK = Channel("clock_synchronised", "1", "clock", 0)


def read_all(root: Path, disks: Mapping[str, str]) -> list[Reading]:
    """Return what a board tells, each channel once.

    Args:
        root: Where `proc` and `sys` are found; "/" on a real machine.
        disks: Names of file systems and a path on each.
    """
    return [
        *_temperatures(root),
        *_loads(root),
        *_memory(root),
        *_disks(disks),
        *_uptime(root),
        *_power(root),
    ]


def clock_reading(*, is_synchronised: bool) -> Reading:
    """Return the reading that tells whether the wall clock is right."""
    return Reading(DEVICE, _CLOCK, is_synchronised)


def _text(file: Path) -> str | None:
    """Return the text of a file, None where there is no such file.

    Raises:
        BadReading: It is there and cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BadReading(file.name, error.strerror or str(error)) from error


def _read(channel: Channel, file: Path, decode: Callable[[str], Value]) -> Iterator[Reading]:
    """Yield what a file says; nothing where it is not there."""
    result: Value | DriverError
    try:
        text = _text(file)
        if text is None:
            return
        result = decode(text)
    except DriverError as error:
        result = error
    yield Reading(DEVICE, channel, result)


def _label(file: Path) -> str:
    """Return the name in a file; empty where it has none."""
    try:
        return texts.name_from(_text(file) or "")
    except BadReading:
        return ""


# --- temperatures ----------------------------------------------------------------------------


def _temperatures(root: Path) -> Iterator[Reading]:
    """Yield the CPU's temperature first, then those of other chips, none twice."""
    files = {**_hwmon_files(root), **_zone_files(root)}  # a zone goes before its copy in hwmon
    cpu = next((name for name in _CPU_ZONES if name in files), None)
    if cpu:
        yield from _temperature("cpu", files.pop(cpu))
    for name, file in sorted(files.items()):
        if name not in _CPU_ZONES:
            yield from _temperature(name, file)


def _temperature(name: str, file: Path) -> Iterator[Reading]:
    channel = Channel(f"{name}_temperature", "°C", "temperature", 1, dead_band=0.5)
    yield from _read(channel, file, texts.millidegrees)


def _zone_files(root: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        name = _label(zone / "type") or texts.name_from(zone.name)
        if name in files:
            name = f"{name}_{texts.name_from(zone.name)}"
        files[name] = zone / "temp"
    return files


def _hwmon_files(root: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        chip_name = _label(chip / "name") or texts.name_from(chip.name)
        if chip_name in files:
            chip_name = f"{chip_name}_{texts.name_from(chip.name)}"
        for file in sorted(chip.glob("temp*_input")):
            files[_hwmon_name(chip_name, file)] = file
    return files


def _hwmon_name(chip: str, file: Path) -> str:
    """Return the name of one of a chip's temperatures; that of the first may be the chip's."""
    number = file.name.removesuffix("_input")
    label = _label(file.with_name(f"{number}_label"))
    if not label and number == "temp1":
        return chip
    return f"{chip}_{label or number}"


# --- the rest --------------------------------------------------------------------------------


def _loads(root: Path) -> Iterator[Reading]:
    for index, channel in enumerate(_LOAD):
        yield from _read(channel, root / "proc/loadavg", partial(texts.load, index=index))


def _memory(root: Path) -> Iterator[Reading]:
    file = root / "proc/meminfo"
    for channel, decode in _MEMORY:
        yield from _read(channel, file, decode)
    try:
        has_swap = texts.has_swap(_text(file) or "")
    except BadReading:
        return  # told by the others
    if has_swap:
        yield from _read(_SWAP, file, texts.swap_used_percent)


def _uptime(root: Path) -> Iterator[Reading]:
    yield from _read(_UPTIME, root / "proc/uptime", texts.uptime_s)


def _disks(disks: Mapping[str, str]) -> Iterator[Reading]:
    for name, path in disks.items():
        used = Channel(f"{name}_used", "%", "disk", 1, dead_band=0.5)
        free = Channel(f"{name}_free", "bytes", "disk", 0, dead_band=64 * 2**20)
        try:
            stat = os.statvfs(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            failure = BadReading(path, error.strerror or str(error))
            yield from (Reading(DEVICE, channel, failure) for channel in (used, free))
            continue
        yield from _disk(stat, used, free)


def _disk(stat: os.statvfs_result, used: Channel, free: Channel) -> Iterator[Reading]:
    """Yield what `df` shows: root's reserve is neither used nor free."""
    taken = stat.f_blocks - stat.f_bfree
    usable = taken + stat.f_bavail
    if usable:  # /proc and its like have no blocks
        yield Reading(DEVICE, used, 100 * taken / usable)
        yield Reading(DEVICE, free, stat.f_bavail * stat.f_frsize)


def _power(root: Path) -> Iterator[Reading]:
    """Yield what a Raspberry Pi says about its supply: the firmware, or else its hwmon chip."""
    firmware = root / "sys/devices/platform/soc/soc:firmware/get_throttled"
    found = False
    for name, bit in texts.THROTTLED_BITS.items():
        channel = Channel(name, "1", "problem", 0)
        for reading in _read(channel, firmware, partial(texts.throttled, bit=bit)):
            found = True
            yield reading
    if found:
        return
    for chip in (root / "sys/class/hwmon").glob("hwmon*"):
        if _label(chip / "name") == "rpi_volt":
            channel = Channel("under_voltage", "1", "problem", 0)
            yield from _read(channel, chip / "in0_lcrit_alarm", texts.alarm)
