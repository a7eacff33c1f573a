"""The simulation finds planted defects: each test fails where it misses one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kvedge.protocol.replication import Replication
from kvedge.server.peers import StoreShelf
from kvedge.server.store import Pending, Store
from kvedge.testing import sim

SEEDS_MAX = 60
Plant = Callable[[pytest.MonkeyPatch], None]


def last_arrival_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    def settle(self: Store, pending: Pending) -> None:
        pending.replaced = self.tree.get(pending.key)
        pending.has_won = True
        self.tree.put(pending.key, pending.packed)

    monkeypatch.setattr(Store, "_settle", settle)


def nothing_is_pulled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Replication, "_begin", lambda self, peer, now: [])


def claims_what_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StoreShelf, "seen", property(lambda self: self._store.taken))


def answers_before_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    confirm = Store.confirm

    def too_soon(self: Store, *, written_to: int, synced_to: int) -> list[Pending]:
        return confirm(self, written_to=written_to, synced_to=written_to)

    monkeypatch.setattr(Store, "confirm", too_soon)


def incarnation_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim, "new_incarnation", lambda generation, random_bits: 1)


def ticks_are_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    write = Store.write

    def same_tick(self: Store, *given: Any, **options: Any) -> Pending:
        if self._tick > 5:
            self._tick -= 1
        return write(self, *given, **options)

    monkeypatch.setattr(Store, "write", same_tick)


PLANTS: tuple[Plant, ...] = (
    last_arrival_wins,
    nothing_is_pulled,
    claims_what_is_not_stored,
    answers_before_the_disk,
    incarnation_is_kept,
    ticks_are_used_again,
)


FAULTS = (sim.Faults(), sim.Faults(loss=0.9, crash=0.05))
"""The second: boards that lose power often, and mostly before anybody has heard of their writes."""

KEYS = (30, 3000)


def is_found() -> bool:
    """Tell whether some seed fails."""
    for seed in range(SEEDS_MAX):
        try:
            sim.run(seed, operations=1000, faults=FAULTS[seed % 2], keys=KEYS[seed % 2])
        except (AssertionError, KeyError, ValueError):
            return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_defect_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    assert is_found()
