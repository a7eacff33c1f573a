"""Faults are stored once, counted, resolved, and begin anew."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from kvedge.client.faults import DATA_MAX_BYTES, TRACE_MAX_CHARS, Detail, Fault, Faults
from kvedge.model.path import KV, P
from kvedge.model.value import pack
from kvedge.testing.runner import NODE, RunnerBench

HEAT = P("house.heat")


@pytest.fixture
def faults(bench: RunnerBench) -> Faults:
    return Faults(bench.client, node=NODE, clock=bench.clock)


async def test_same_fault_is_counted_and_another_is_another(
    bench: RunnerBench, faults: Faults
) -> None:
    begin = bench.clock.wall_s()
    await faults.record(HEAT, "job", Detail("too hot\nby far"))
    await bench.clock.advance(5)
    await faults.record(HEAT, "job", Detail("still too hot"), severity="warning")
    await faults.record(HEAT, "bus", Detail("no answer"))
    first, second = await bench.faults()
    assert first == {
        "path": HEAT,
        "subsystem": "job",
        "severity": "warning",
        "resolved": False,
        "created": begin,
        "count": 2,
        "first_seen": begin,
        "last_seen": begin + 5,
        "message": "still too hot",
    }
    assert (second["subsystem"], second["count"]) == ("bus", 1)


async def test_last_occurrence_is_told_in_detail(bench: RunnerBench, faults: Faults) -> None:
    await faults.record(HEAT, "job", Detail("a\nb", "trace", {"n": 1}, "while heating"))
    (tock,) = await bench.client.list(KV / "error" / NODE)
    assert (await bench.client.get(KV / "error" / NODE / tock / NODE)).value == {
        "seen": bench.clock.wall_s(),
        "tock": tock,
        "str": "a\nb",
        "trace": "trace",
        "data": {"n": 1},
        "comment": "while heating",
        "message": "a",
    }


async def test_resolved_fault_begins_anew_in_its_place(bench: RunnerBench, faults: Faults) -> None:
    await faults.record(HEAT, "job", Detail("no"))
    await faults.resolve(HEAT, "job")
    (fault,) = await bench.faults()
    assert fault["resolved"]
    await bench.clock.advance(5)
    await faults.record(HEAT, "job", Detail("no"))
    (fault,) = await bench.faults()
    assert (fault["resolved"], fault["count"]) == (False, 2)
    assert fault["first_seen"] == bench.clock.wall_s() == fault["created"] + 5


async def test_faults_of_an_earlier_process_are_known_after_load(
    bench: RunnerBench, faults: Faults
) -> None:
    await faults.record(HEAT, "job", Detail("no"))
    await faults.record(HEAT, "bus", Detail("no"))
    later = Faults(bench.client, node=NODE, clock=bench.clock)
    await later.load()
    await later.record(HEAT, "job", Detail("no"))
    await later.resolve_all(HEAT)
    assert [(f["count"], f["resolved"]) for f in await bench.faults()] == [(2, True), (1, True)]


async def test_removed_fault_is_stored_again(bench: RunnerBench, faults: Faults) -> None:
    await faults.record(HEAT, "job", Detail("no"))
    await bench.client.delete_tree(KV / "error")
    await faults.resolve(HEAT, "job")
    assert await bench.faults() == []
    await faults.record(HEAT, "job", Detail("no"))
    (fault,) = await bench.faults()
    assert fault["count"] == 1


async def test_two_that_record_at_the_same_moment_keep_both(
    bench: RunnerBench, faults: Faults
) -> None:
    other = Faults(bench.client, node=NODE, clock=bench.clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(faults.record, HEAT, "job", Detail("no"))
        tasks.start_soon(other.record, P("house.cold"), "job", Detail("no"))
    assert {str(fault["path"]) for fault in await bench.faults()} == {"house.heat", "house.cold"}


LARGE: list[dict[str, Any]] = [
    {"text": "x" * 10**6, "trace": "y" * 10**6, "data": {"a": "z" * (DATA_MAX_BYTES - 100)}},
    {"text": "a\ud800", "trace": "\udfff", "comment": "\ud900"},
    {"text": "", "data": {"a": object(), "b": "\ud800"}},
    {"text": "", "data": {"a": "z" * 10**6}},
]


@pytest.mark.parametrize("fields", LARGE)
def test_whatever_is_told_can_be_stored(fields: dict[str, Any]) -> None:
    value = Detail(**fields).to_value(seen=1.0, tock=2)
    pack(value)
    assert len(value["trace"]) <= TRACE_MAX_CHARS


@pytest.mark.parametrize("value", [None, 3, {}, {"path": 3}, {"path": HEAT}])
def test_foreign_entry_is_no_fault(value: object) -> None:
    assert Fault.from_value(value) is None
