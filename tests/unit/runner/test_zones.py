"""Time zones by name and that of the machine."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kvedge.errors import BadSetting
from kvedge.runner.zones import local_zone, zone_named
from kvedge.testing.zones import zone_file

SUMMER = datetime(2026, 7, 1, tzinfo=UTC)
ZONES = {"Test/East": "EST-5", "Test/Berlin": "CET-1CEST,M3.5.0,M10.5.0/3"}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Path]:
    """A machine's zones."""
    directory = tmp_path / "zoneinfo"
    for name, rule in ZONES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(zone_file(rule))
    zoneinfo.reset_tzpath(to=[str(directory)])
    zoneinfo.ZoneInfo.clear_cache()
    yield directory
    zoneinfo.reset_tzpath()
    zoneinfo.ZoneInfo.clear_cache()


def hours(zone: object) -> float:
    return SUMMER.astimezone(zone).utcoffset() / timedelta(hours=1)  # type: ignore[arg-type, operator]


def test_zone_has_its_rules(database: Path) -> None:
    assert hours(zone_named("Test/Berlin")) == 2


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../east", "/etc/passwd", "Test", "a\0b"])
def test_unknown_zone_is_named(database: Path, name: str) -> None:
    with pytest.raises(BadSetting) as caught:
        zone_named(name)
    assert str(caught.value).startswith(f"zone {name!r}: this machine knows no such time zone")


def test_utc_is_known_everywhere() -> None:
    assert zone_named("UTC") is UTC


def test_zone_of_the_machine(database: Path, tmp_path: Path) -> None:
    link = tmp_path / "localtime"
    assert local_zone({}, link) is UTC
    link.symlink_to(database / "Test/East")
    assert hours(local_zone({}, link)) == 5
    assert str(local_zone({}, link)) == "Test/East"
    assert hours(local_zone({"TZ": ":Test/Berlin"}, link)) == 2
    assert hours(local_zone({"TZ": "nonsense"}, link)) == 5
    link.unlink()
    link.write_text("no zone")
    assert local_zone({}, link) is UTC
