"""The parameters of a driver, from the data of its job: typed, with defaults, none unknown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvedge.errors import BadSetting
from kvedge_drivers.quantity import is_number


def refuse_unknown(data: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Raise where a parameter has a name that the driver does not know.

    Raises:
        BadSetting: Names it, and those there are.
    """
    for name in data:
        if name not in known:
            raise BadSetting(str(name), f"there is no such parameter; there are {', '.join(known)}")


def number(
    data: Mapping[str, Any], name: str, *, default: float, at_least: float, at_most: float
) -> float:
    """Return a parameter that is a number within bounds.

    Raises:
        BadSetting: It is something else.
    """
    value = data.get(name, default)
    if not is_number(value) or not at_least <= value <= at_most:
        why = f"{value!r:.60} is not a number from {at_least:g} to {at_most:g}"
        raise BadSetting(name, why)
    return value


def interval_s(data: Mapping[str, Any], *, default: float) -> float:
    """Return how often to read: `interval_s`, from a tenth of a second to a day.

    Raises:
        BadSetting: It is something else.
    """
    return number(data, "interval_s", default=default, at_least=0.1, at_most=86400)


def text(data: Mapping[str, Any], name: str, *, default: str) -> str:
    """Return a parameter that is a text.

    Raises:
        BadSetting: It is something else, or empty.
    """
    value = data.get(name, default)
    if not isinstance(value, str) or not value:
        raise BadSetting(name, f"{value!r:.60} is not a text")
    return value
