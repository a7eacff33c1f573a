"""A place has one runner: a living one keeps it, a dead one loses it."""

from __future__ import annotations

import os

import pytest

from kvedge.errors import RunnerBusy
from kvedge.model.path import P
from kvedge.runner.announce import announced, life_of, owner_of
from kvedge.testing.runner import RunnerBench

PLACE = P(":.kv.runner.single.test1.default")
PARENT = os.getppid()


def card(pid: int, life: str | None) -> dict[str, object]:
    return {"pid": pid, "since": 1.0, "name": "kv agent", "life": life}


async def hold(bench: RunnerBench) -> None:
    async with announced(bench.client, PLACE, name="mine", clock=bench.clock):
        value = (await bench.client.get(PLACE)).value
        assert (value["pid"], value["name"]) == (os.getpid(), "mine")


async def test_place_is_held_and_left(bench: RunnerBench) -> None:
    await hold(bench)
    assert "value" not in await bench.client.get(PLACE)


async def test_living_owner_keeps_the_place(bench: RunnerBench) -> None:
    await bench.client.set(PLACE, card(PARENT, life_of(PARENT)))
    with pytest.raises(RunnerBusy, match=rf"already run by kv agent \(process {PARENT}\)"):
        await hold(bench)
    assert (await bench.client.get(PLACE)).value["pid"] == PARENT


async def test_second_runner_in_another_process_is_refused(bench: RunnerBench) -> None:
    await bench.client.set(PLACE, card(PARENT, life_of(PARENT)))
    with pytest.raises(ExceptionGroup) as caught:
        await _run(bench)
    assert caught.group_contains(RunnerBusy)


async def _run(bench: RunnerBench) -> None:
    async with bench.runner():
        await bench.value("nothing")


STALE = [
    card(PARENT, "another boot:123"),  # the pid is in use again, by another program
    card(2**22 + 1, "boot:1"),  # pids do not go so far
    card(os.getpid(), life_of(os.getpid())),  # ours, over a connection that broke
    {"name": "odd"},
    "odd",
]


@pytest.mark.parametrize("value", STALE)
async def test_dead_owner_loses_the_place(bench: RunnerBench, value: object) -> None:
    assert owner_of(value) is None
    await bench.client.set(PLACE, value)
    await hold(bench)
    assert "value" not in await bench.client.get(PLACE)
