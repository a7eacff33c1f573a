"""What is wrong with a server, stored where jobs store what is wrong with them.

A fault stands at `:.kv.error.NODE.TOCK`, in the form that `kvedge.client.faults` describes, with
`server` as its subsystem and `server.NODE.WHAT` as its path.  So `kv error list` shows it.  The
same trouble again raises a count, but not more often than once a minute: cards are slow, and the
log tells the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kvedge.clock import Clock
from kvedge.errors import AgentError, WriteRefused
from kvedge.model import entry as entries
from kvedge.model.path import KV, Path
from kvedge.model.value import packb, unpack
from kvedge.server.store import Store

SUBSYSTEM = "server"

AGAIN_S = 60.0
"""A fault that goes on is counted this often."""


class ServerFaults:
    """The faults of one server.

    Args:
        store: Where they are stored.
        clock: Tells when they happened, as well as the board knows.
        wall_ms: Stamps the writes.
    """

    def __init__(self, store: Store, clock: Clock, wall_ms: Callable[[], int | None]) -> None:
        self._store = store
        self._clock = clock
        self._wall_ms = wall_ms
        self._place = KV / "error" / store.rid.node
        self._tocks: dict[str, int] = {}
        self._counted_s: dict[str, float] = {}
        for key in store.tree.walk(self._place.key, count=_LOOKED_AT_MAX):
            self._load(key)

    def _load(self, key: bytes) -> None:
        fault = self._read(key)
        elements = Path.from_key(key).elements
        if fault.get("subsystem") == SUBSYSTEM and isinstance(elements[-1], int):
            self._tocks[str(fault["path"][-1])] = elements[-1]

    def _read(self, key: bytes) -> dict[str, Any]:
        packed = self._store.newest(key)
        value = None if packed is None else entries.value_of(packed)
        found = unpack(value) if isinstance(value, bytes) else None
        path = found.get("path") if isinstance(found, dict) else None
        is_fault = isinstance(path, (tuple, Path)) and len(path) > 0
        return dict(found) if is_fault and isinstance(found, dict) else {}

    def record(self, what: str, message: str) -> None:
        """Store that something is wrong; `what` is one word that names it."""
        now_s = self._clock.boottime_s()
        if now_s < self._counted_s.get(what, -AGAIN_S) + AGAIN_S:
            return
        self._counted_s[what] = now_s
        seen = self._clock.wall_s()
        tock = self._tocks.get(what)
        fault = {} if tock is None else self._read((self._place / tock).key)
        if tock is None or not fault:
            tock = self._tocks[what] = self._free_tock()
            fault = {"created": seen, "count": 0, "resolved": True}
        fault |= {
            "path": ("server", self._store.rid.node, what),
            "subsystem": SUBSYSTEM,
            "severity": "error",
            "count": fault.get("count", 0) + 1,
            "first_seen": seen if fault.get("resolved") else fault.get("first_seen", seen),
            "last_seen": seen,
            "message": message,
            "resolved": False,
        }
        self._write(self._place / tock, fault)

    def _free_tock(self) -> int:
        """Return a tock that names no fault; runners store theirs at the same place."""
        tock = self._store.tock
        while self._store.newest((self._place / tock).key) is not None:
            tock += 1
        return tock

    def resolve(self, what: str) -> None:
        """Store that it is over; does nothing where it is, or never was wrong."""
        tock = self._tocks.get(what)
        fault = {} if tock is None else self._read((self._place / tock).key)
        if tock is not None and fault and not fault.get("resolved"):
            self._counted_s.pop(what, None)
            self._write(self._place / tock, fault | {"resolved": True})

    def _write(self, path: Path, value: dict[str, Any]) -> None:
        with suppress(WriteRefused):  # it is in the log
            self._store.write(
                path.key, packb(value), wall_ms=self._wall_ms(), relaxed=True, done=_ignore
            )


_LOOKED_AT_MAX = 4096


def _ignore(_: AgentError | None) -> None:
    """Stand for nobody who waits."""
