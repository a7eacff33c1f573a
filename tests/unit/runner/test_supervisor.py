"""Jobs are started, counted, stopped and restarted as their entries, code and time say."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import pytest

from kvedge.client.client import open_client
from kvedge.model.path import P
from kvedge.runner import execution, places, supervisor
from kvedge.runner.jobs import Job
from kvedge.runner.spec import CLOCK_WAIT
from kvedge.testing.runner import NODE, RunnerBench
from kvedge.testing.zones import zone_of

FOREVER = 'await _self.set("seen.run", {"n": n})\nasync for msg in _info: pass'


async def test_job_runs_and_leaves_its_result(bench: RunnerBench) -> None:
    await bench.set_code("the.answer", 'print("Forty-Two!")\nreturn 42', is_async=None)
    await bench.set_job("a.question", "the.answer")
    async with bench.runner():
        state = await bench.state("a.question", reason="done")
    assert state["result"] == 42
    assert (state["node"], state["backoff"], state["computed"]) == (None, 0, None)
    assert state["started"] == state["stopped"] == bench.clock.wall_s()
    output = await bench.until(bench.output_at("a.question"), lambda item: "value" in item)
    assert output == {"lines": ((bench.clock.wall_s(), "Forty-Two!"),), "dropped": 0}
    assert bench.echoed == [("a.question", "Forty-Two!")]


async def test_job_set_while_the_runner_works_starts_at_once(bench: RunnerBench) -> None:
    async with bench.runner():
        await bench.set_code("one", "return 1")
        await bench.set_job("a", "one")
        await bench.state("a", reason="done")
        await bench.set_job("a", "one")  # "now", said again
        tock = (await bench.client.get(bench.job_at("a"))).tock
        await bench.state("a", reason="done", tock=tock)


async def test_clean_stop_of_the_runner_is_stored_and_the_job_goes_on_after(
    bench: RunnerBench,
) -> None:
    await bench.set_code("loop", FOREVER)
    await bench.set_job("a", "loop", data={"n": 1})
    async with bench.runner():
        await bench.state("a", node=NODE)
        await bench.value("seen.run")
    state = await bench.state("a", reason="runner stopped")
    assert (state["node"], state["backoff"]) == (None, 0)
    await bench.client.delete(P("seen.run"))
    async with bench.runner():
        await bench.value("seen.run")


async def test_repeat_and_pinged_follow_the_clock(bench: RunnerBench) -> None:
    await bench.set_code("tick", "await _self.sleep(100)")
    await bench.set_job("a", "tick", repeat=50)
    clock = bench.clock
    begin = clock.wall_s()
    async with bench.runner():
        await clock.waited_for(100)
        for _ in range(31):
            await clock.waited_for(1)
            await clock.advance(1)
        await bench.state("a", node=NODE, pinged=begin + 30)
        await clock.advance(69)
        state = await bench.state("a", reason="done")
        assert state["computed"] == state["stopped"] + 50 == begin + 150
        await clock.waited_for(50)
        await clock.advance(49)
        assert (await bench.client.get(bench.state_at("a"))).value["node"] is None
        await clock.advance(1)
        await bench.state("a", node=NODE)


async def test_error_is_stored_counted_and_cleared(bench: RunnerBench) -> None:
    await bench.set_code("bad", "x = 1\nraise RuntimeError('Owch')", is_async=None)
    await bench.set_job("what.me.worry", "bad", data={"v": 3})
    async with bench.runner():
        state = await bench.state("what.me.worry", backoff=1)
        assert state["reason"] == "failed"
        assert state["computed"] == pytest.approx(state["stopped"] + 110)
        (fault,) = await bench.faults()
        assert fault["path"] == bench.job_at("what.me.worry")
        assert (fault["count"], fault["resolved"]) == (1, False)
        assert fault["message"] == "RuntimeError: Owch"
        await bench.clock.waited_for(110)
        await bench.clock.advance(111)
        await bench.state("what.me.worry", backoff=2)
        (fault,) = await bench.faults()
        assert fault["count"] == 2
        await bench.set_code("bad", "return 1", is_async=None)  # at once, not after 121 s
        await bench.state("what.me.worry", reason="done", backoff=0)
        (fault,) = await bench.faults()
        assert fault["resolved"]
    (tock,) = await bench.client.list(places.ERRORS / NODE)
    detail = (await bench.client.get(places.ERRORS / NODE / tock / NODE)).value
    assert detail["trace"].splitlines()[1].endswith("line 2, in procedure")
    assert detail["trace"].splitlines()[2].strip() == "raise RuntimeError('Owch')"
    assert detail["data"] == {"v": 3}


async def test_missing_code_is_told_once_and_starts_when_it_comes(bench: RunnerBench) -> None:
    async with bench.runner():
        await bench.set_job("a", "no.such")
        await bench.state("a", reason="no code", backoff=1)
        await bench.clock.waited_for(110)
        await bench.clock.advance(111)
        await bench.state("a", reason="no code", backoff=2)
        (fault,) = await bench.faults()
        assert fault["count"] == 1
        assert "no.such" in fault["message"]
        await bench.set_code("no.such", "return 5")
        await bench.state("a", reason="done", result=5)


@pytest.mark.parametrize("change", ["code", "data"])
async def test_change_restarts_a_running_job(bench: RunnerBench, change: str) -> None:
    await bench.set_code("loop", FOREVER)
    await bench.set_job("a", "loop", data={"n": 1}, target=5)
    async with bench.runner():
        await bench.value("seen.run")
        if change == "code":
            await bench.set_code("loop", FOREVER.replace("n}", "n + 1}"))
        else:
            await bench.set_job("a", "loop", data={"n": 2}, target=5)
        await bench.until(P("seen.run"), lambda item: item.get("value") == {"n": 2})


async def test_clearing_the_target_cancels(bench: RunnerBench) -> None:
    await bench.set_code("loop", FOREVER)
    await bench.set_job("a", "loop", data={"n": 1})
    async with bench.runner():
        await bench.value("seen.run")
        await bench.set_job("a", "loop", data={"n": 1}, target=None)
        await bench.state("a", reason="cancelled", node=None)


async def test_deleting_a_job_ends_it_and_its_state(bench: RunnerBench) -> None:
    await bench.set_code("loop", FOREVER)
    await bench.set_job("a", "loop", data={"n": 1})
    async with bench.runner():
        await bench.value("seen.run")
        await bench.client.delete(bench.job_at("a"))
        await bench.until(bench.state_at("a"), lambda item: "value" not in item)


async def test_state_without_a_job_is_removed_at_the_start(bench: RunnerBench) -> None:
    await bench.client.set(bench.state_at("old"), {"reason": "done"})
    async with bench.runner():
        await bench.until(bench.state_at("old"), lambda item: "value" not in item)


async def test_run_cut_off_with_its_runner_is_accounted_and_starts_again(
    bench: RunnerBench,
) -> None:
    await bench.set_code("one", "return 1")
    await bench.set_job("a", "one", target=5)
    cut = {"started": 50.0, "pinged": 60.0, "node": NODE, "target": 5, "tock": 1, "backoff": 0}
    await bench.client.set(bench.state_at("a"), cut)
    async with bench.client.watch(bench.state_at("a"), max_depth=0) as changes:
        async with bench.runner():
            await bench.state("a", reason="done", result=1)
        seen = [(await anext(changes)).value for _ in range(3)]
    assert [state["reason"] for state in seen] == ["interrupted", None, "done"]
    assert [state["backoff"] for state in seen] == [1, 1, 0]
    assert seen[0]["stopped"] == 60.0


async def test_target_in_the_future_waits_for_the_wall_clock_to_be_set(bench: RunnerBench) -> None:
    clock = bench.clock
    target = clock.wall_s()
    clock.set_wall(100.0)  # a board without a clock battery
    await bench.set_code("one", "return 1")
    await bench.set_job("a", "one", target=target)
    async with bench.runner():
        await bench.state("a", computed=target)
        await clock.waited_for(10)  # it looks whether the wall clock was set
        await clock.advance(30)
        assert (await bench.client.get(bench.state_at("a"))).value["started"] is None
        clock.set_wall(target + 3)
        await clock.advance(30)
        await bench.state("a", reason="done")


# The clock of the bench begins at 22:13:20 UTC on Tuesday, 14 November 2023.
BERLIN = zone_of("CET-1CEST,M3.5.0,M10.5.0/3")
SOON = "22 hr 14 min"
SOON_S = 40
DAY_S = 86400


async def test_words_are_those_of_the_zone_and_repeat(bench: RunnerBench) -> None:
    begin = bench.clock.wall_s()
    words = "23 hr 14 min"  # in winter, Berlin is an hour ahead
    await bench.set_code("one", "return 1")
    await bench.set_job("a", "one", target=words, repeat=f"tue {words}")
    async with bench.runner(zone=BERLIN):
        await bench.state("a", computed=begin + SOON_S, since=begin)
        await bench.clock.waited_for(10)
        await bench.clock.advance(SOON_S)
        state = await bench.state("a", reason="done")
        assert state["started"] == pytest.approx(begin + SOON_S, abs=1)
        assert state["computed"] == begin + SOON_S + 7 * DAY_S


async def test_zone_of_a_job_goes_before_that_of_the_node(bench: RunnerBench) -> None:
    await bench.set_code("one", "return 1")
    await bench.set_job("a", "one", target=SOON, zone="UTC")
    async with bench.runner(zone=BERLIN):
        await bench.state("a", computed=bench.clock.wall_s() + SOON_S)


async def test_unknown_zone_is_a_fault_of_the_entry(bench: RunnerBench) -> None:
    await bench.set_code("one", "return 1")
    await bench.set_job("a", "one", target=SOON, zone="Mars/Olympus")
    async with bench.runner():
        with anyio.fail_after(10):
            while not (found := await bench.faults()):
                await anyio.wait_all_tasks_blocked()
    assert found[0]["subsystem"] == "job-entry"
    assert "'Mars/Olympus'" in found[0]["message"]


@pytest.mark.parametrize(("missed", "late_s"), [("run", 0), ("skip", DAY_S)])
async def test_start_that_the_board_slept_through(
    bench: RunnerBench, missed: str, late_s: int
) -> None:
    await bench.set_code("one", "return 1")
    await bench.set_job("a", "one", target=SOON, missed=missed)
    due = bench.clock.wall_s() + SOON_S
    async with bench.runner():
        await bench.state("a", computed=due)
    await bench.clock.advance(SOON_S + 3600)
    async with bench.runner():
        if late_s:
            await bench.state("a", computed=due + late_s, started=None)
        else:
            await bench.state("a", reason="done", started=due + 3600)


async def test_words_wait_for_a_clock_that_is_right_and_now_does_not(bench: RunnerBench) -> None:
    clock = bench.clock
    right = clock.wall_s()
    clock.set_wall(50.0)
    clock.is_synchronised = False
    await bench.set_code("one", "return 1")
    await bench.set_job("a", "one", target=SOON)
    await bench.set_job("b", "one", target=0, repeat=SOON)
    async with bench.runner():
        waiting = await bench.state("a", waits=CLOCK_WAIT)
        assert (waiting["computed"], waiting["started"], waiting["since"]) == (None, None, None)
        await bench.state("b", reason="done", waits=CLOCK_WAIT, started=50.0)
        await clock.waited_for(10)
        clock.set_wall(right)
        clock.is_synchronised = True
        await clock.advance(10)
        for tail in ("a", "b"):
            await bench.state(tail, computed=right + SOON_S, waits=None)
        clock.is_synchronised = False  # it was right, and a quartz is good for days
        await clock.waited_for(10)
        await clock.advance(SOON_S)
        await bench.state("a", reason="done")


async def test_clock_that_is_found_to_be_right_needs_no_step(bench: RunnerBench) -> None:
    bench.clock.is_synchronised = False
    await bench.set_code("one", "return 1")
    await bench.set_job("a", "one", target=SOON)
    async with bench.runner():
        await bench.state("a", waits=CLOCK_WAIT)
        await bench.clock.waited_for(10)
        bench.clock.is_synchronised = True
        begin = bench.clock.wall_s()
        await bench.clock.advance(10)
        await bench.state("a", waits=None, computed=begin + SOON_S)


async def test_clock_may_be_trusted_though_nothing_has_set_it(bench: RunnerBench) -> None:
    bench.clock.is_synchronised = False
    await bench.set_code("one", "return 1")
    await bench.set_job("a", "one", target=SOON)
    async with bench.runner(trusts_clock=True):
        await bench.state("a", computed=bench.clock.wall_s() + SOON_S)


async def test_clock_that_is_put_on_brings_the_start(bench: RunnerBench) -> None:
    await bench.set_code("one", "return 1")
    await bench.set_job("a", "one", target=SOON)
    due = bench.clock.wall_s() + SOON_S
    async with bench.runner():
        await bench.state("a", computed=due)
        await bench.clock.waited_for(10)
        bench.clock.set_wall(due + 7)
        await bench.clock.advance(10)
        await bench.state("a", reason="done", started=due + 17)


async def test_clock_that_is_put_back_delays_the_start(bench: RunnerBench) -> None:
    await bench.set_code("one", "return 1")
    await bench.set_job("a", "one", target=SOON)
    begin = bench.clock.wall_s()
    async with bench.runner():
        await bench.state("a", computed=begin + SOON_S)
        await bench.clock.waited_for(10)
        bench.clock.set_wall(begin - 2 * DAY_S)
        await bench.clock.advance(10)
        await bench.state("a", computed=begin + SOON_S - 2 * DAY_S, started=None)


async def test_run_that_takes_too_long_is_ended_and_tried_again_later(bench: RunnerBench) -> None:
    await bench.set_code("loop", "await _self.sleep(1e6)")
    await bench.set_job("a", "loop", timeout=30, repeat=1)
    async with bench.runner():
        await bench.state("a", node=NODE)
        await bench.clock.waited_for(30)
        await bench.clock.advance(30)
        state = await bench.state("a", reason="timed out", node=None, backoff=1)
        assert state["computed"] == pytest.approx(state["stopped"] + 110)
    (fault,) = await bench.faults()
    assert fault["message"] == "it ran longer than its timeout of 30 s"
    assert (fault["subsystem"], fault["count"], fault["resolved"]) == ("job", 1, False)
    lines = (await bench.client.get(bench.output_at("a"))).value["lines"]
    assert lines[-1][1] == "ERROR it ran longer than its timeout of 30 s"


async def test_run_that_ends_in_time_is_not_timed_out(bench: RunnerBench) -> None:
    await bench.set_code("short", "await _self.sleep(29)\nreturn 1")
    await bench.set_job("a", "short", timeout=30)
    async with bench.runner():
        await bench.clock.waited_for(29)
        await bench.clock.advance(29)
        await bench.state("a", reason="done", result=1)
        await bench.clock.advance(30)
    assert await bench.faults() == []


async def test_timeout_of_a_thread_is_told_before_it_ends(
    bench: RunnerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr(execution, "load_installed", lambda _: lambda *_: release.wait(10))
    await bench.set_job("a", "@stuck", timeout=30)
    async with bench.runner():
        await bench.state("a", node=NODE)
        await bench.clock.waited_for(30)
        await bench.clock.advance(30)
        with anyio.fail_after(10):
            while not await bench.faults():
                await anyio.wait_all_tasks_blocked()
        assert (await bench.client.get(bench.state_at("a"))).value["node"] == NODE
        release.set()
        await bench.state("a", reason="timed out", node=None)
    assert len(await bench.faults()) == 1


async def test_ok_after_clears_the_error_of_a_running_job(bench: RunnerBench) -> None:
    await bench.set_code("loop", "if n: raise ValueError('no')\nawait _self.sleep(1e6)")
    await bench.set_job("a", "loop", data={"n": 1})
    async with bench.runner():
        await bench.state("a", backoff=1)
        await bench.set_job("a", "loop", data={"n": 0}, ok_after=30)
        await bench.state("a", node=NODE, backoff=1)
        await bench.clock.waited_for(30)
        await bench.clock.advance(31)
        await bench.state("a", node=NODE, backoff=0)
        (tock,) = await bench.client.list(places.ERRORS / NODE)
        await bench.until(places.ERRORS / NODE / tock, lambda item: item.value["resolved"])


BAD_CODE = [
    ("retrn 1", "line 1: invalid syntax"),
    ("return object()", "object cannot be stored"),
    ("raise SystemExit(3)", "it called exit with 3"),
    ("raise KeyboardInterrupt", "it raised KeyboardInterrupt"),
    ("return n", "needs the variables n"),
    ("async with anyio.create_task_group(): pass", "NameError"),
    ("yield 1", "has a `yield`"),
]


@pytest.mark.parametrize(("text", "message"), BAD_CODE)
async def test_bad_code_is_a_stored_error(bench: RunnerBench, text: str, message: str) -> None:
    await bench.set_code("bad", text, vars=["n"] if "return n" in text else [])
    await bench.set_job("a", "bad")
    async with bench.runner():
        await bench.state("a", reason="failed", backoff=1)
    (fault,) = await bench.faults()
    assert message in fault["message"]
    (tock,) = await bench.client.list(places.ERRORS / NODE)
    detail = (await bench.client.get(places.ERRORS / NODE / tock / NODE)).value
    assert "kvedge" not in detail["trace"]


@pytest.mark.parametrize("raised", ["SystemExit(3)", "KeyboardInterrupt", "BaseException('x')"])
async def test_a_thread_cannot_end_the_runner(bench: RunnerBench, raised: str) -> None:
    await bench.set_code("bad", f"raise {raised}", is_async=None)
    await bench.set_job("a", "bad")
    async with bench.runner():
        await bench.state("a", reason="failed", backoff=1)
        await bench.set_code("one", "return 1")
        await bench.set_job("b", "one")
        await bench.state("b", reason="done")


async def test_bad_entry_is_told_and_others_go_on(bench: RunnerBench) -> None:
    await bench.set_code("one", "return 1")
    await bench.client.set(bench.job_at("a"), {"code": P("one"), "target": 0, "delay": "long"})
    await bench.set_job("b", "one")
    async with bench.runner():
        await bench.state("b", reason="done")
        (fault,) = await bench.faults()
        assert "delay is 'long'" in fault["message"]
        await bench.set_job("a", "one")
        await bench.state("a", reason="done")
        (fault,) = await bench.faults()
        assert fault["resolved"]


async def test_required_module_is_imported_and_its_change_restarts(bench: RunnerBench) -> None:
    await bench.set_module("lib.calc", "FACTOR = 2\ndef twice(x): return FACTOR * x")
    text = "from lib.calc import twice\nawait _self.set('seen', twice(4))\nawait _self.sleep(1e6)"
    await bench.set_code("use", text, requires=["lib.calc"])
    await bench.set_job("a", "use")
    async with bench.runner():
        assert await bench.value("seen") == 8
        await bench.set_module("lib.calc", "def twice(x): return 20 * x")
        await bench.until(P("seen"), lambda item: item.get("value") == 80)


async def test_thread_that_cannot_be_stopped_holds_up_the_next_run(
    bench: RunnerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    release = threading.Event()

    def stuck(job: Any, data: Any) -> None:
        seen.append(data["n"])
        release.wait(10)

    monkeypatch.setattr(execution, "load_installed", {"stuck": stuck}.__getitem__)
    await bench.set_job("a", "@stuck", data={"n": 1})
    async with bench.runner():
        await bench.state("a", node=NODE)
        with anyio.fail_after(10):
            while not seen:
                await anyio.wait_all_tasks_blocked()
        await bench.set_job("a", "@stuck", data={"n": 2})
        await bench.client.get("settle")
        await anyio.wait_all_tasks_blocked()
        state = (await bench.client.get(bench.state_at("a"))).value
        assert (seen, state["node"]) == ([1], NODE)
        release.set()
        await bench.state("a", reason="done")
    assert seen == [1, 2]


async def test_thread_is_waited_for_before_the_job_starts_again(bench: RunnerBench) -> None:
    text = "_self.set('seen', n)\ntry:\n    _self.sleep(1e6)\nfinally:\n    print('over', n)"
    await bench.set_code("slow", text, is_async=False)
    await bench.set_job("a", "slow", data={"n": 1})
    async with bench.runner():
        await bench.until(P("seen"), lambda item: item.get("value") == 1)
        await bench.set_job("a", "slow", data={"n": 2})
        await bench.until(P("seen"), lambda item: item.get("value") == 2)
        assert bench.echoed == [("a", "over 1")]


async def test_all_jobs_keep_their_state_per_node(bench: RunnerBench) -> None:
    await bench.set_code("one", "return 1")
    job = {"code": P("one"), "data": {}, "target": 0}
    await bench.client.set(places.jobs_at("all", node=NODE, group="default") / "a", job)
    async with bench.runner(placement="all"):
        path = P(":.kv.state.all.test1.default.a")
        await bench.until(path, lambda item: (item.get("value") or {}).get("reason") == "done")


async def test_lost_server_ends_the_runner_with_a_link_error(bench: RunnerBench) -> None:
    from kvedge.errors import LinkError
    from kvedge.runner.supervisor import run

    await bench.set_code("loop", FOREVER)
    await bench.set_job("a", "loop", data={"n": 1})
    async with open_client(bench.client.endpoint) as doomed, anyio.create_task_group() as tasks:
        caught: list[LinkError] = []

        async def serve() -> None:
            try:
                await run(doomed, node=NODE, clock=bench.clock, name="doomed")
            except LinkError as error:
                caught.append(error)

        tasks.start_soon(serve)
        await bench.value("seen.run")
        await doomed.link.aclose()
    assert caught
    await bench.client.delete(P("seen.run"))
    async with bench.runner():  # finds the run cut off
        await bench.value("seen.run")


async def test_job_whose_end_cannot_be_stored_in_time_starts_again(
    bench: RunnerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_CLOSE_WITHIN_S", 0.05)
    close = Job.close

    async def stuck(job: Job, outcome: execution.Outcome) -> None:
        monkeypatch.setattr(Job, "close", close)
        await anyio.sleep_forever()

    monkeypatch.setattr(Job, "close", stuck)
    await bench.set_code("one", "return 1")
    await bench.set_job("a", "one", repeat=10)
    async with bench.runner():
        await bench.clock.waited_for(10)
        await bench.clock.advance(10)
        await bench.state("a", reason="done")
