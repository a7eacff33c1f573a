"""What a board tells about itself: texts of the kernel, trees of several boards, this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from kvedge.errors import BadReading, BadSetting
from kvedge_drivers.host import texts
from kvedge_drivers.host.procedure import HostSettings
from kvedge_drivers.host.sources import clock_reading, read_all

MEMINFO = """\
MemTotal:         947732 kB
MemFree:          100000 kB
MemAvailable:     473866 kB
SwapTotal:        102396 kB
SwapFree:          76797 kB
HugePages_Total:       0
"""
PROC = {
    "proc/loadavg": "0.77 0.65 0.41 1/106 378\n",
    "proc/uptime": "3322.64 5965.18\n",
    "proc/meminfo": MEMINFO,
}
PI = PROC | {
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48312\n",
    "sys/class/hwmon/hwmon0/name": "cpu_thermal\n",
    "sys/class/hwmon/hwmon0/temp1_input": "48312\n",
    "sys/class/hwmon/hwmon1/name": "rpi_volt\n",
    "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n",
}
PI_WITH_FIRMWARE = PI | {"sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n"}
PC = PROC | {
    "sys/class/thermal/thermal_zone0/type": "acpitz\n",
    "sys/class/thermal/thermal_zone0/temp": "27800\n",
    "sys/class/thermal/thermal_zone1/type": "x86_pkg_temp\n",
    "sys/class/thermal/thermal_zone1/temp": "55000\n",
    "sys/class/hwmon/hwmon2/name": "coretemp\n",
    "sys/class/hwmon/hwmon2/temp1_label": "Package id 0\n",
    "sys/class/hwmon/hwmon2/temp1_input": "55000\n",
    "sys/class/hwmon/hwmon2/temp2_label": "Core 0\n",
    "sys/class/hwmon/hwmon2/temp2_input": "53000\n",
    "sys/class/hwmon/hwmon3/name": "nvme\n",
    "sys/class/hwmon/hwmon3/temp1_label": "Composite\n",
    "sys/class/hwmon/hwmon3/temp1_input": "38850\n",
    "sys/class/hwmon/hwmon4/name": "nct6775\n",
    "sys/class/hwmon/hwmon4/temp2_input": "31000\n",
}
CONTAINER = {name: text for name, text in PROC.items() if name != "proc/uptime"} | {
    "proc/meminfo": "MemTotal: 1000 kB\nMemAvailable: 900 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n"
}
GENERAL = {
    "load_1m": 0.77,
    "load_5m": 0.65,
    "load_15m": 0.41,
    "memory_used": 50.0,
    "memory_available": 473866 * 1024,
    "swap_used": 25.0,
    "uptime": 3322.64,
}


def board(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def results(root: Path, disks: Mapping[str, str] | None = None) -> dict[str, Any]:
    readings = read_all(root, disks or {})
    assert {reading.device for reading in readings} <= {"host"}
    names = [reading.channel.name for reading in readings]
    assert len(names) == len(set(names))
    return {reading.channel.name: reading.result for reading in readings}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (PI, GENERAL | {"cpu_temperature": 48.312, "under_voltage": True}),
        (
            PI_WITH_FIRMWARE,
            GENERAL
            | {
                "cpu_temperature": 48.312,
                "under_voltage": True,
                "frequency_capped": False,
                "throttled": True,
                "temperature_limited": False,
                "under_voltage_since_boot": True,
                "throttled_since_boot": True,
            },
        ),
        (
            PC,
            GENERAL
            | {
                "cpu_temperature": 55.0,
                "acpitz_temperature": 27.8,
                "coretemp_core_0_temperature": 53.0,
                "nvme_composite_temperature": 38.85,
                "nct6775_temp2_temperature": 31.0,
            },
        ),
        (
            CONTAINER,
            {
                "load_1m": 0.77,
                "load_5m": 0.65,
                "load_15m": 0.41,
                "memory_used": 10.0,
                "memory_available": 900 * 1024,
            },
        ),
        ({}, {}),
    ],
    ids=["pi", "pi with firmware", "pc", "container", "nothing"],
)
def test_boards(tmp_path: Path, files: Mapping[str, str], expected: Mapping[str, object]) -> None:
    assert results(board(tmp_path, files)) == pytest.approx(expected)


def test_chips_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    files = {
        f"sys/class/{kind}{number}/{name}": text
        for number in (0, 1)
        for kind, name, text in (
            ("thermal/thermal_zone", "type", "acpitz"),
            ("thermal/thermal_zone", "temp", f"2{number}000"),
            ("hwmon/hwmon", "name", "nvme"),
            ("hwmon/hwmon", "temp1_input", f"3{number}000"),
        )
    }
    assert results(board(tmp_path, files)) == {
        "acpitz_temperature": 20,
        "acpitz_thermal_zone1_temperature": 21,
        "nvme_temperature": 30,
        "nvme_hwmon1_temperature": 31,
    }


@pytest.mark.parametrize("text", ["", "hot", "48,3", "-274000", "9999999"])
def test_temperature_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    files = PI | {"sys/class/thermal/thermal_zone0/temp": text}
    found = results(board(tmp_path, files))
    assert isinstance(found["cpu_temperature"], BadReading)
    assert found["load_1m"] == 0.77


def test_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    root = board(tmp_path, PI)
    file = root / "sys/class/thermal/thermal_zone0/temp"
    file.unlink()
    file.mkdir()
    found = results(root)["cpu_temperature"]
    assert isinstance(found, BadReading)
    assert "Is a directory" in str(found)


def test_disks(tmp_path: Path) -> None:
    stat = os.statvfs(tmp_path)
    found = results(tmp_path, {"disk": str(tmp_path), "data": str(tmp_path / "absent")})
    assert set(found) == {"disk_used", "disk_free"}
    assert found["disk_free"] == pytest.approx(stat.f_bavail * stat.f_frsize, rel=0.05)
    assert 0 <= found["disk_used"] <= 100


def test_file_system_without_blocks_has_no_channels() -> None:
    assert "proc_used" not in results(Path("/nonexistent"), {"proc": "/proc"})


@pytest.mark.parametrize(
    ("decode", "text"),
    [
        (lambda text: texts.load(text, index=2), "0.1 0.2"),
        (lambda text: texts.load(text, index=0), "much"),
        (texts.uptime_s, ""),
        (texts.memory_used_percent, "MemTotal: 0 kB\nMemAvailable: 0 kB\n"),
        (texts.memory_available_bytes, "MemFree: 12 kB\n"),
        (lambda text: texts.throttled(text, bit=0), "throttled=0x5"),
        (texts.alarm, "no"),
    ],
)
def test_text_that_is_none(decode: Callable[[str], object], text: str) -> None:
    with pytest.raises(BadReading):
        decode(text)


def test_firmware_may_write_its_bits_with_0x() -> None:
    assert texts.throttled("0x50005", bit=2)


def test_this_machine() -> None:
    found = results(Path("/"), {"disk": "/"})
    assert found["load_1m"] >= 0
    assert found["uptime"] > 0
    assert 0 < found["memory_used"] < 100
    assert 0 < found["disk_used"] <= 100


def test_clock_is_a_channel() -> None:
    assert clock_reading(is_synchronised=False).result is False


def test_settings() -> None:
    given = HostSettings.from_data({"interval_s": 5, "disks": {"card": "/"}})
    assert (given.interval_s, given.disks) == (5, {"card": "/"})
    assert HostSettings.from_data({}) == HostSettings()


@pytest.mark.parametrize(
    "data",
    [
        {"interval": 5},
        {"interval_s": 0},
        {"interval_s": "often"},
        {"interval_s": True},
        {"interval_s": float("nan")},
        {"disks": ["/"]},
        {"disks": {"a.b": "/"}},
        {"disks": {"memory": "/"}},
        {"disks": {"card": "here"}},
    ],
)
def test_settings_that_cannot_be(data: Mapping[str, Any]) -> None:
    with pytest.raises(BadSetting, match=next(iter(data))):
        HostSettings.from_data(data)
