"""The fields of each request, from arguments: shared by the blocking and the async client.

This module is on the path of every short command.
"""

from __future__ import annotations

from kvedge.errors import LocalProtocolError
from kvedge.model.path import P, Path
from kvedge.model.value import MISSING, pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def as_path(given: Path | str) -> Path:
    """Return a path that may have been given as text."""
    return P(given) if isinstance(given, str) else given


def write_fields(
    path: Path | str,
    *,
    value: Any = MISSING,
    chain: Any = MISSING,
    prev: Any = MISSING,
    nchain: int = 0,
    idem: bool = False,
    relaxed: bool = False,
    fence: tuple[str, int] | None = None,
) -> dict[str, Any]:
    """Return the fields of a set or delete.

    Raises:
        BadValue, LimitExceeded: The value cannot be stored; nothing was sent.
    """
    fields: dict[str, Any] = {"path": as_path(path).elements, "nchain": nchain}
    if value is not MISSING:
        pack(value)  # told here, before anything is sent
        fields["value"] = value
    if chain is not MISSING:
        fields["chain"] = chain
    if prev is not MISSING:
        fields["prev"] = prev
    if idem:
        fields["idem"] = True
    if relaxed:
        fields["relaxed"] = True
    if fence is not None:
        fields["fence"] = fence
    return fields


def tree_fields(
    path: Path | str,
    *,
    min_depth: int = 0,
    max_depth: int | None = None,
    nchain: int = 0,
    empty: bool = False,
    fetch: bool | None = None,
) -> dict[str, Any]:
    """Return the fields of a get_tree or watch."""
    fields: dict[str, Any] = {"path": as_path(path).elements}
    if min_depth:
        fields["min_depth"] = min_depth
    if max_depth is not None:
        fields["max_depth"] = max_depth
    if nchain:
        fields["nchain"] = nchain
    if empty:
        fields["empty"] = True
    if fetch is not None:
        fields["fetch"] = fetch
    return fields


def pairs(listed: Any) -> list[tuple[Any, Any]]:
    """Return name and value of each child in the answer to a list with data."""
    if isinstance(listed, dict):  # a server of other make
        return list(listed.items())
    return [(name, value) for name, value in listed]


def is_end(message: Mapping[str, Any]) -> bool:
    """Tell whether a message closes its stream."""
    state = message.get("state")
    if state is not None and state not in ("start", "end", "uptodate"):
        raise LocalProtocolError(f"a stream is in state {state!r}")
    return state == "end"
