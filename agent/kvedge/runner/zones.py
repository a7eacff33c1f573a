"""Time zones by name, and that of the machine; the rules are those of the system's tzdata."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, tzinfo
from pathlib import Path as File
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from kvedge.errors import BadSetting

LOCALTIME = File("/etc/localtime")


def zone_named(name: str) -> tzinfo:
    """Return a time zone.

    Args:
        name: As "Europe/Berlin".

    Raises:
        BadSetting: This machine does not know it.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        why = "this machine knows no such time zone; is the package tzdata installed?"
        raise BadSetting(f"zone {name!r}", why) from error


def local_zone(environ: Mapping[str, str], file: File = LOCALTIME) -> tzinfo:
    """Return the time zone of the machine: that of TZ, else of /etc/localtime, else UTC.

    Args:
        environ: Where TZ is looked up; what is no name of a zone there is passed over.
        file: Where the zone of the machine is.
    """
    name = environ.get("TZ", "").removeprefix(":")
    if name:
        try:
            return zone_named(name)
        except BadSetting:
            pass
    try:
        with file.open("rb") as data:
            return ZoneInfo.from_file(data, key=_name_of(file))
    except (OSError, ValueError):
        return UTC


def _name_of(file: File) -> str:
    """Return the name of the zone that a link leads to."""
    return str(file.resolve()).rpartition("/zoneinfo/")[2]
