"""Faults: stored records of something wrong, counted while it lasts, resolved when it is over.

A fault stands at `:.kv.error.NODE.TOCK` and names what is wrong (`path`) and who says so
(`subsystem`); the two together are unique per node.  Its last occurrence is told in detail one
level below, at `….NODE`.  The same trouble again raises a count in place of a new record, so a job
that fails for a year leaves one fault.

What a record says is computed by pure functions; `Faults` stores it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import anyio

from kvedge.client.client import Client
from kvedge.clock import Clock
from kvedge.errors import ChainMismatch, UsageError
from kvedge.model.path import KV, Path
from kvedge.model.value import pack

TRACE_MAX_CHARS = 16000
"""A longer traceback comes from a recursion; its end says where."""

DATA_MAX_BYTES = 64 * 1024
"""With the traceback they stay well below what one value may have."""

_TEXT_MAX_CHARS = 1000


@dataclass(frozen=True, slots=True)
class Fault:
    """The record of something wrong.

    Attributes:
        path: What is wrong.
        subsystem: Who says so.
        severity: "warning" or "error".
        resolved: Whether it is over.
        created: Unix seconds when this record was made.
        count: How often it was seen.
        first_seen: Unix seconds of the first time since it was last resolved.
        last_seen: Unix seconds of the last time.
        message: One line.
    """

    path: Path
    subsystem: str
    severity: str = "error"
    resolved: bool = False
    created: float = 0
    count: int = 1
    first_seen: float = 0
    last_seen: float = 0
    message: str = ""

    @classmethod
    def from_value(cls, value: object) -> Fault | None:
        """Read an entry; None where it is none of ours."""
        if not isinstance(value, Mapping) or not isinstance(value.get("path"), (Path, tuple)):
            return None
        known = {item.name: value[item.name] for item in fields(cls) if item.name in value}
        if not isinstance(known.get("subsystem"), str):
            return None
        return cls(**known | {"path": Path(*known["path"])})

    def to_value(self) -> dict[str, Any]:
        """Return what to store."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass(frozen=True, slots=True)
class Detail:
    """What is known of one occurrence.

    Attributes:
        text: The error in words.
        trace: Its traceback; empty where there is none.
        data: The variables that mattered.
        comment: What was being done.
    """

    text: str
    trace: str = ""
    data: Mapping[str, Any] | None = None
    comment: str = ""

    def to_value(self, *, seen: float, tock: int) -> dict[str, Any]:
        """Return what to store; data that cannot be stored are stored as text."""
        return {
            "seen": seen,
            "tock": tock,
            "str": _cut(self.text),
            "trace": _clean(self.trace[-TRACE_MAX_CHARS:]),
            "data": _storable(self.data),
            "comment": _cut(self.comment),
            "message": _cut(self.text.partition("\n")[0]),
        }


def _clean(text: str) -> str:
    """Return a text that can be stored: a lone surrogate cannot."""
    return text.encode(errors="replace").decode()


def _cut(text: str) -> str:
    text = _clean(text)
    return text if len(text) <= _TEXT_MAX_CHARS else f"{text[:_TEXT_MAX_CHARS]}…"


def _storable(data: Mapping[str, Any] | None) -> Any:
    if data is None:
        return None
    try:
        is_small = len(pack(data)) <= DATA_MAX_BYTES
    except UsageError:
        is_small = False
    return data if is_small else _cut(repr(data))


def seen_again(fault: Fault, *, now: float, message: str, severity: str) -> Fault:
    """Return a fault that has occurred once more; one that was over begins anew."""
    return replace(
        fault,
        resolved=False,
        count=fault.count + 1,
        first_seen=now if fault.resolved else fault.first_seen,
        last_seen=now,
        message=message,
        severity=severity,
    )


class Faults:
    """The faults of one node, stored and resolved by whoever finds them.

    May be used by several tasks at once.  Two processes that record the same new fault at the
    same moment may leave two records.
    """

    def __init__(self, client: Client, *, node: str, clock: Clock) -> None:
        self._client = client
        self._node = node
        self._clock = clock
        self._all_at = Path(*KV, "error", node)
        self._tocks: dict[tuple[Path, str], int] = {}
        self._busy = anyio.Lock()

    async def load(self) -> None:
        """Learn which faults are stored; call it once, before the rest."""
        async for item in self._client.get_tree(self._all_at, max_depth=1):
            fault = Fault.from_value(item.get("value"))
            if fault is not None and isinstance(item.path[0], int):
                self._tocks[fault.path, fault.subsystem] = item.path[0]

    async def record(
        self, path: Path, subsystem: str, detail: Detail, *, severity: str = "error"
    ) -> None:
        """Store that something went wrong."""
        async with self._busy:
            now = self._clock.wall_s()
            message = _cut(detail.text.partition("\n")[0])
            tock, fault = await self._find(path, subsystem)
            if fault is None:
                fault = Fault(
                    path,
                    subsystem,
                    severity,
                    created=now,
                    first_seen=now,
                    last_seen=now,
                    message=message,
                )
                tock = self._tocks[path, subsystem] = await self._add(fault)
            else:
                fault = seen_again(fault, now=now, message=message, severity=severity)
                await self._client.set(self._all_at / tock, fault.to_value())
            told = detail.to_value(seen=now, tock=tock)
            await self._client.set(self._all_at / tock / self._node, told, relaxed=True)

    async def _add(self, fault: Fault) -> int:
        """Store a new fault; return its tock, which another process may ask for as well."""
        tock: int = (await self._client.request("get_tock", {})).tock
        while True:
            try:
                await self._client.set(self._all_at / tock, fault.to_value(), chain=None)
            except ChainMismatch:
                tock += 1
            else:
                return tock

    async def resolve(self, path: Path, subsystem: str) -> None:
        """Store that it is over; does nothing where it is, or never was wrong."""
        async with self._busy:
            tock, fault = await self._find(path, subsystem)
            if fault is not None and not fault.resolved:
                await self._client.set(
                    self._all_at / tock, replace(fault, resolved=True).to_value()
                )

    async def resolve_all(self, path: Path) -> None:
        """Resolve whatever is wrong at a path."""
        for known, subsystem in list(self._tocks):
            if known == path:
                await self.resolve(path, subsystem)

    async def _find(self, path: Path, subsystem: str) -> tuple[int, Fault | None]:
        """Return tock and record of a fault; others may have changed or removed it."""
        tock = self._tocks.get((path, subsystem))
        if tock is None:
            return 0, None
        return tock, Fault.from_value((await self._client.get(self._all_at / tock)).get("value"))
