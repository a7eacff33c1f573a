"""What a job may do through `_self`, and what it is told through `_info`."""

from __future__ import annotations

from typing import Any

import pytest

from kvedge.job import JobContext
from kvedge.model.path import P
from kvedge.runner import places
from kvedge.runner.context import Context
from kvedge.testing.runner import NODE, RunnerBench


def as_procedures_see_it(context: Context) -> JobContext:
    """Is checked by mypy: the context is what drivers are promised."""
    return context


async def run_job(bench: RunnerBench, text: str, **data: Any) -> Any:
    """Run a procedure to its end and return its result."""
    await bench.set_code("code", text)
    await bench.set_job("a", "code", data=data)
    async with bench.runner():
        state = await bench.until(bench.state_at("a"), lambda item: item.value["reason"])
    assert state["reason"] == "done", await bench.faults()
    return state["result"]


async def test_watch_sends_what_is_there_then_ready_then_changes(bench: RunnerBench) -> None:
    await bench.client.set("one", 1)
    text = """
class Other(_cls.ChangeMsg): pass
seen = []
await _self.watch(_P("one"))
await _self.watch(_P("two"), cls=Other, max_depth=-1)
async for msg in _info:
    match msg:
        case _cls.ReadyMsg():
            seen.append(["ready", msg.msg])
            if msg.msg == 2:
                await _self.set("two.three", 3)
        case Other():
            seen.append(["other", str(msg.path), msg.value])
            return seen
        case _cls.ChangeMsg():
            seen.append(["change", str(msg.path), msg.value])
"""
    seen = [list(item) for item in await run_job(bench, text)]
    assert seen[0] == ["change", "one", 1]
    assert ["ready", 2] in seen
    assert seen[-1] == ["other", "two.three", 3]


async def test_watch_without_fetch_is_ready_at_once_and_a_deletion_is_missing(
    bench: RunnerBench,
) -> None:
    await bench.client.set("one", 1)
    text = """
await _self.watch("one", fetch=False)
async for msg in _info:
    if isinstance(msg, _cls.ReadyMsg):
        await _self.delete("one")
    else:
        return msg.value is _cls.MISSING
"""
    assert await run_job(bench, text) is True


async def test_cancelled_watch_is_silent_and_may_be_cancelled_twice(bench: RunnerBench) -> None:
    text = """
first = await _self.watch("one")
await anext(_info)
await first.cancel()
await first.cancel()
await _self.watch("two")
await _self.set("one", 1)
await _self.set("two", 2)
return [str(getattr(msg, "path", msg)) async for msg in _take(2)]
""".replace("_take(2)", "_first()")
    text = (
        "async def _first():\n    yield await anext(_info)\n    yield await anext(_info)\n" + text
    )
    assert sorted(await run_job(bench, text)) == ["ReadyMsg(msg=1)", "two"]


async def test_timer_rings_on_the_clock_of_the_job(bench: RunnerBench) -> None:
    text = """
class Late(_cls.TimerMsg): pass
begin = _self.clock.boottime_s()
stopped = await _self.timer(20)
timer = await _self.timer(100, cls=Late)
await stopped.cancel()
await timer.run(50)
msg = await anext(_info)
return [type(msg).__name__, msg.msg is timer, _self.clock.boottime_s() - begin]
"""
    await bench.set_code("code", text)
    await bench.set_job("a", "code")
    async with bench.runner():
        await bench.clock.waited_for(50)
        await bench.clock.advance(200)
        state = await bench.state("a", reason="done")
    assert state["result"] == ("Late", True, 50)


async def test_job_that_does_not_read_gets_none_and_then_the_end(bench: RunnerBench) -> None:
    text = """
await _self.watch("many", max_depth=None)
for number in range(200):
    await _self.set(_P("many") / number, number)
await _self.sleep(60)
seen = [msg async for msg in _info]
return [len(seen), seen[-1]]
"""
    await bench.set_code("code", text)
    await bench.set_job("a", "code")
    async with bench.runner():
        await bench.clock.waited_for(60)
        await bench.clock.advance(61)
        state = await bench.state("a", reason="done")
    assert state["result"] == (101, None)


async def test_job_that_reads_gets_all_of_a_large_tree(bench: RunnerBench) -> None:
    for number in range(300):
        await bench.client.set(P("many") / number, number, relaxed=True)
    text = """
await _self.watch("many", max_depth=None)
count = 0
async for msg in _info:
    if isinstance(msg, _cls.ReadyMsg):
        return count
    count += 1
"""
    assert await run_job(bench, text) == 300


async def test_spawned_task_ends_with_the_job_and_its_error_ends_the_job(
    bench: RunnerBench,
) -> None:
    text = """
async def fail():
    raise KeyError("deep")
async def wait():
    try:
        await _self.sleep(1e9)
    finally:
        print("ended")
await _self.spawn(wait)
task = await _self.spawn(wait)
await task.cancel()
await _self.spawn(fail)
await _self.sleep(1e9)
"""
    await bench.set_code("code", text)
    await bench.set_job("a", "code")
    async with bench.runner():
        await bench.state("a", reason="failed")
    (fault,) = await bench.faults()
    assert fault["message"] == "KeyError: 'deep'"
    lines = [line for _, line in bench.echoed]
    assert lines == ["ended", "ended", "ERROR KeyError: 'deep'"]


async def test_tree_get_digits_and_thread(bench: RunnerBench) -> None:
    await bench.client.set("t.a", 1)
    await bench.client.set("t.b.c", 2)
    text = """
tree = {str(path): value for path, value in (await _self.tree("t")).items()}
absent = await _self.get("no") is _cls.MISSING
return [tree, absent, _digits(1234.5678), await _self.in_thread(pow, 2, 5), unit, str(_Path("x"))]
"""
    found = await run_job(bench, text, unit="m")
    assert found == ({"a": 1, "b.c": 2}, True, 1234.57, 32, "m", "x")


async def test_named_errors_of_a_job_are_faults(bench: RunnerBench) -> None:
    text = """
await _self.set_error("bus", "no answer")
await _self.set_error("bus", "still no answer")
await _self.set_error("other", "odd")
await _self.clear_error("bus")
await _self.clear_error("never")
_log.warning("going on")
"""
    await run_job(bench, text)
    found = {
        f["subsystem"]: (f["count"], f["resolved"], f["message"]) for f in await bench.faults()
    }
    assert found == {"job.bus": (2, True, "still no answer"), "job.other": (1, False, "odd")}
    assert ("a", "WARNING going on") in bench.echoed


@pytest.mark.parametrize("is_async", [None, False])
async def test_sync_code_has_a_blocking_client(bench: RunnerBench, is_async: bool | None) -> None:
    text = """
_client.set("from.thread", 7)
_self.set("from.self", _client.get("from.thread").value + 1)
return [[str(item.path) for item in _client.get_tree("from")], "_info" in globals()]
"""
    await bench.set_code("code", text, is_async=is_async)
    await bench.set_job("a", "code")
    async with bench.runner():
        state = await bench.state("a", reason="done")
    assert state["result"] == (("self", "thread"), False)


async def test_output_of_each_job_is_its_own_and_bounded(bench: RunnerBench) -> None:
    await bench.set_code(
        "code", "for number in range(300): print(name, number)\nprint('no', end='')"
    )
    await bench.set_job("a", "code", data={"name": "first"})
    await bench.set_job("b", "code", data={"name": "second"})
    async with bench.runner():
        await bench.state("a", reason="done")
        await bench.state("b", reason="done")
    for tail, name in (("a", "first"), ("b", "second")):
        value = (await bench.client.get(bench.output_at(tail))).value
        assert value["dropped"] == 101
        assert [line for _, line in value["lines"]][-2:] == [f"{name} 299", "no"]
        assert all(line.startswith((name, "no")) for _, line in value["lines"])


async def test_installed_procedure_runs_by_name(
    bench: RunnerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kvedge.runner import execution

    async def beat(job: Any, data: Any) -> Any:
        await job.set("seen", data["x"])
        return str(job.path)

    def plain(job: Any, data: Any) -> Any:
        return job.get("seen")

    known = {"beat": beat, "plain": plain}
    monkeypatch.setattr(execution, "load_installed", known.__getitem__)
    await bench.set_job("a.b", "@beat", data={"x": 3})
    async with bench.runner():
        await bench.state("a.b", reason="done", result="a.b")
        await bench.set_job("c", "@plain")
        await bench.state("c", reason="done", result=3)


async def test_procedure_that_is_not_installed_is_told(bench: RunnerBench) -> None:
    await bench.set_job("a", "@no-such-thing")
    async with bench.runner():
        await bench.state("a", reason="no code")
    (fault,) = await bench.faults()
    assert "@no-such-thing failed: it is not installed" in fault["message"]
    assert fault["path"] == places.jobs_at("single", node=NODE, group="default") / "a"


# The clock of the bench begins at 22:13:20 UTC on Tuesday, 14 November 2023.
TIMES = [
    ("'22 hr 14 min'", 40),
    ("'22', 'hr', '14', 'min'", 40),
    ("'22 hr'", 86400 - 800),
    ("'22 hr', current=True", 0),
    ("'22 hr', current=False", 2800),
    ("'23 hr', current=True", 2800),
    ("'23 hr', current=False", 0),
    ("now=_self.clock.wall_s() + 7", 7),
    ("'22 hr', now=_self.clock.wall_s() + 7200", 86400 - 800),
]


@pytest.mark.parametrize(("given", "seconds"), TIMES)
@pytest.mark.parametrize("is_async", [True, False])
async def test_time_at_tells_when(
    bench: RunnerBench, given: str, seconds: float, is_async: bool
) -> None:
    text = f"return _self.time_at({given}) - _self.clock.wall_s()"
    await bench.set_code("ask", text, is_async=is_async)
    await bench.set_job("a", "ask")
    async with bench.runner():
        state = await bench.state("a", reason="done")
    assert state["result"] == pytest.approx(seconds)


async def test_wait_and_run_at_follow_the_wall_clock(bench: RunnerBench) -> None:
    text = """
async def later():
    await _self.set("seen.later", _self.clock.wall_s())
await _self.run_at("22 hr 14 min", fn=later)
never = await _self.run_at("22 hr 13 min 50 sec", fn=later)
await never.cancel()
await _self.wait("22 hr 15 min")
return _self.clock.wall_s()
"""
    clock = bench.clock
    right = clock.wall_s()
    clock.set_wall(50.0)
    clock.is_synchronised = False
    await bench.set_code("waits", text)
    await bench.set_job("a", "waits")
    async with bench.runner():
        await clock.waited_for(10)
        clock.set_wall(right)
        clock.is_synchronised = True
        await clock.advance(10)  # from here on it waits for the time, and looks now and then
        clock.set_wall(right + 39)
        await clock.advance(10)
        assert await bench.value("seen.later") == pytest.approx(right + 40, abs=10)
        clock.set_wall(right + 99)
        await clock.advance(10)
        state = await bench.state("a", reason="done")
        assert state["result"] == pytest.approx(right + 100, abs=10)


async def test_time_without_a_clock_is_an_error_of_the_job(bench: RunnerBench) -> None:
    bench.clock.is_synchronised = False
    await bench.set_code("ask", "return _self.time_at('12 hr')")
    await bench.set_job("a", "ask")
    async with bench.runner():
        await bench.state("a", reason="failed")
    assert "the clock is not synchronised" in (await bench.faults())[0]["message"]
