"""One runner per placement, node and group: how a runner tells of itself, and finds another.

A pid alone proves nothing: after a power cut the same pid belongs to another program.  So the
announcement also holds the boot and the moment in it when the process began.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path as File
from typing import Any

import anyio

from kvedge.client.client import Client
from kvedge.clock import Clock
from kvedge.errors import ChainMismatch, LinkError, RunnerBusy, StorageError
from kvedge.model.path import Path

_START_TIME = 19  # the 22nd field of /proc/PID/stat, counted behind the parenthesis; see proc(5)
_LEAVE_WITHIN_S = 2.0


def life_of(pid: int) -> str | None:
    """Return what tells one life of a pid from another; None where no such process lives."""
    try:
        stat = File(f"/proc/{pid}/stat").read_text(errors="replace")
        boot = File("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return f"{boot}:{stat.rpartition(')')[2].split()[_START_TIME]}"


def owner_of(value: object) -> str | None:
    """Return who the living owner of an announcement is, in words; None where it is dead.

    What this very process announced stems from a connection that it lost, and counts as dead.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("pid"), int):
        return None
    life = life_of(value["pid"])
    if life is None or life != value.get("life") or value["pid"] == os.getpid():
        return None
    return f"{value.get('name')} (process {value['pid']})"


def _card(name: str, since: float) -> dict[str, Any]:
    pid = os.getpid()
    return {"pid": pid, "since": since, "name": name, "life": life_of(pid)}


@asynccontextmanager
async def announced(client: Client, place: Path, *, name: str, clock: Clock) -> AsyncIterator[None]:
    """Hold a runner's place while the block runs.

    A place whose owner is dead is taken over.

    Raises:
        RunnerBusy: Another runner works there.
    """
    card = _card(name, clock.wall_s())
    await _claim(client, place, card)
    try:
        yield
    finally:
        with anyio.move_on_after(_LEAVE_WITHIN_S, shield=True):
            await _leave(client, place, card)


async def _claim(client: Client, place: Path, card: Mapping[str, Any]) -> None:
    found = await client.get(place, nchain=5)
    owner = owner_of(found.get("value"))
    if owner is not None:
        raise RunnerBusy(str(place), owner)
    try:
        chain = found.chain if "value" in found else None
        await client.set(place, card, chain=chain, relaxed=True)
    except ChainMismatch as error:
        value = (await client.get(place)).get("value")
        raise RunnerBusy(str(place), owner_of(value) or "another runner") from error


async def _leave(client: Client, place: Path, card: Mapping[str, Any]) -> None:
    try:
        await client.delete(place, prev=card)
    except (ChainMismatch, LinkError, StorageError):
        return  # it is another's by now, or nobody can be told
