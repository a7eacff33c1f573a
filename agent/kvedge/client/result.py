"""Answers of a server, with their fields as attributes.

`res.value` is the value, `res.path` the path relative to what was asked; `'value' in res` tells
whether there is one.  This module is on the path of every short command.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import ItemsView, Mapping
    from typing import Any


class Result:
    """One answer, or one item of a stream."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields

    def __getattr__(self, name: str) -> Any:
        try:
            return self._fields[name]
        except KeyError:
            raise AttributeError(f"the answer has no {name}") from None

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field, or the default where there is none."""
        return self._fields.get(name, default)

    def items(self) -> ItemsView[str, Any]:
        """Return names and values of all fields."""
        return self._fields.items()

    def __repr__(self) -> str:
        return f"Result({dict(self._fields)!r})"
