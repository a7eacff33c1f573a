"""Who blocks the event loop is found by its stack; what is stored holds it back."""

from __future__ import annotations

import builtins
import sys
import threading
from pathlib import Path as File

import anyio
import pytest

from kvedge.model.path import P
from kvedge.runner import places, watchdog
from kvedge.runner.heartbeat import Heartbeat, Silence
from kvedge.runner.watchdog import Blocker, Place, blocker_of, store, watched
from kvedge.testing.runner import NODE, RunnerBench

PATIENCE_S = 10.0
BLOCK = "async def inner():\n    block()\nawait inner()"
WAYS = {
    "in its code": BLOCK,
    "in a task": (
        "import anyio\nover = anyio.Event()\nasync def task():\n    block()\n    over.set()\n"
        "await _self.spawn(task)\nawait over.wait()"
    ),
    "in a callback": (
        "import asyncio, anyio\nover = anyio.Event()\n"
        "asyncio.get_running_loop().call_soon(lambda: (block(), over.set()))\nawait over.wait()"
    ),
}


@pytest.mark.parametrize("text", WAYS.values(), ids=WAYS)
async def test_blocker_is_named_with_its_lines(
    bench: RunnerBench, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    found: list[Blocker | None] = []
    thread = threading.get_ident()
    looked = threading.Event()

    def look() -> None:
        found.append(blocker_of(sys._current_frames()[thread]))
        looked.set()

    def block() -> None:
        threading.Thread(target=look).start()
        assert looked.wait(PATIENCE_S)

    monkeypatch.setattr(builtins, "block", block, raising=False)
    await bench.set_code("heavy.code", text)
    await bench.set_job("some.job", "heavy.code")
    async with bench.runner():
        await bench.state("some.job", reason="done")
    (blocker,) = found
    assert blocker is not None
    assert blocker.job == P("some.job")
    assert "<:.kv.code.proc.heavy.code>" in blocker.trace
    assert "block()" in blocker.trace
    assert blocker.trace.startswith('  File "<:.kv.code.proc.heavy.code>"')


def test_code_of_no_job_is_nobodys() -> None:
    assert blocker_of(sys._getframe()) is None
    assert blocker_of(None) is None


async def test_what_is_stored_holds_back_the_one_and_not_the_others(
    bench: RunnerBench, tmp_path: File
) -> None:
    client = bench.client
    running = {"started": 5.0, "pinged": 5.0, "node": NODE, "backoff": 1, "tock": 3}
    await client.set(bench.state_at("bad.one"), running)
    await client.set(bench.state_at("good"), running)
    await client.set(bench.state_at("over"), {"started": 1.0, "stopped": 2.0, "reason": "done"})
    await client.set(bench.state_at("odd"), {"reason": "bored"})
    place = Place(NODE, "default", "single", (f"unix:{tmp_path}/kv.sock",), None)
    await store(place, Blocker(P("bad.one"), "its lines"), block_s=10, clock=bench.clock)
    bad = (await client.get(bench.state_at("bad.one"))).value
    good = (await client.get(bench.state_at("good"))).value
    over = (await client.get(bench.state_at("over"))).value
    assert (bad["reason"], bad["backoff"], bad["node"]) == ("blocked the loop", 2, None)
    assert (good["reason"], good["backoff"], good["node"]) == ("runner stopped", 1, None)
    assert over == {"started": 1.0, "stopped": 2.0, "reason": "done"}
    assert bad["stopped"] == bench.clock.wall_s()
    (fault,) = await bench.faults()
    assert fault["path"] == bench.job_at("bad.one")
    assert fault["message"].startswith("it blocked the event loop for 10 s")
    (tock,) = await client.list(places.ERRORS / NODE)
    detail = (await client.get(places.ERRORS / NODE / tock / NODE)).value
    assert detail["trace"] == "its lines"


@pytest.mark.parametrize(
    ("counts", "found"),
    [
        ([1, 1, 1, 1], [False, False, False, True]),
        ([1, 1, 1, 2, 2, 2, 2], [False] * 6 + [True]),
        ([1, 2, 3, 4], [False] * 4),
    ],
)
def test_silence_is_counted_in_looks(counts: list[int], found: list[bool]) -> None:
    silence = Silence(3)
    assert [silence.is_long(count) for count in counts] == found


async def beats(heart: Heartbeat, count: int) -> None:
    with anyio.fail_after(PATIENCE_S):
        while heart.count < count:  # noqa: ASYNC110 -- it may be another process's
            await anyio.sleep(0.01)


async def test_loop_that_comes_round_beats_and_is_left_alone() -> None:
    heart = Heartbeat()
    blocked: list[Blocker] = []
    async with watched(blocked.append, block_max_s=0.2, heart=heart):
        await beats(heart, 20)
    assert blocked == []


async def test_loop_that_is_not_to_be_watched_still_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "BLOCK_MAX_S", 0.04)
    heart = Heartbeat()
    before = threading.active_count()
    async with watched(lambda _: None, block_max_s=0, heart=heart):
        assert threading.active_count() == before
        await beats(heart, 3)
