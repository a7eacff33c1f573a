"""Units, classes, channels, calibration and how a value is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvedge_drivers.quantity import CLASSES, UNITS, Channel, calibrated, is_number, shown


def test_every_class_comes_in_known_units() -> None:
    assert {unit for units in CLASSES.values() for unit in units} == set(UNITS)


@pytest.mark.parametrize(
    ("name", "unit", "device_class"),
    [
        ("temperature", "K", "temperature"),
        ("temperature", "%", "temperature"),
        ("temperature", "°C", "warmth"),
        ("a.b", "°C", "temperature"),
        ("", "°C", "temperature"),
    ],
)
def test_channel_that_cannot_be(name: str, unit: str, device_class: str) -> None:
    with pytest.raises(ValueError, match=r"told in|name of a channel"):
        Channel(name, unit, device_class, precision_digits=1)


@pytest.mark.parametrize(
    ("value", "gain", "offset", "expected"),
    [
        (21.0625, 1.0, 0.0, 21.0625),  # a sixteenth of a degree survives
        (21.0625, 1.0, 0.1, 21.1625),
        (20.0, 1.1, -0.5, 21.5),
        (3, 1.0, 0.0, 3),
        (3, 2.0, 0.0, 6.0),
        (True, 2.0, 1.0, True),
        ("open", 2.0, 1.0, "open"),
    ],
)
def test_calibration(value: float, gain: float, offset: float, expected: float) -> None:
    made = calibrated(value, gain=gain, offset=offset, precision_digits=2)
    assert made == expected
    assert type(made) is type(expected)


@given(st.integers(-55 * 16, 125 * 16))
def test_uncalibrated_sixteenths_are_stored_as_measured(sixteenths: int) -> None:
    celsius = sixteenths / 16
    assert calibrated(celsius, gain=1.0, offset=0.0, precision_digits=2) == celsius


@pytest.mark.parametrize(
    ("value", "unit", "digits", "text"),
    [
        (21.0625, "°C", 2, "21.06 °C"),
        (-0.5, "°C", 0, "-0 °C"),
        (0.77, "1", 2, "0.77"),
        (24758009856, "bytes", 0, "23.1 GiB"),
        (16777216, "bytes", 0, "16.0 MiB"),
        (2048, "bytes", 0, "2.0 KiB"),
        (512, "bytes", 0, "512 bytes"),
        (True, "1", 0, "yes"),
        (False, "1", 0, "no"),
        ("open", "1", 0, "open"),
    ],
)
def test_shown(value: object, unit: str, digits: int, text: str) -> None:
    assert shown(value, unit=unit, precision_digits=digits) == text


def test_reference_names_every_unit_and_class(project_root: Path) -> None:
    text = (project_root / "docs/reference/sensors.md").read_text()
    assert [unit for unit, what in UNITS.items() if f"| `{unit}` | {what} |" not in text] == []
    assert [name for name in CLASSES if f"`{name}`" not in text] == []


def test_truth_is_no_number() -> None:
    assert [value for value in (1, 1.5, True, "1", None) if is_number(value)] == [1, 1.5]
