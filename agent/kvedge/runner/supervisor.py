"""The runner: follows the jobs of its node and group, and starts and stops them.

What decides is in `spec`; here is what waits.  Three tasks follow the tree and the time: one the
jobs, one the code, one the schedule.  Each run is a task of its own.  All of them end with `run`.

A run is stored as begun, durably, before its code is called, and as ended afterwards.  So a state
that still names a node when a runner starts belongs to a run whose runner died.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, tzinfo
from types import MappingProxyType
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from kvedge.client.client import Client
from kvedge.client.faults import Detail, Faults
from kvedge.client.result import Result
from kvedge.clock import Clock
from kvedge.errors import BadSetting, JobFailed
from kvedge.model.path import Path
from kvedge.runner import places
from kvedge.runner.announce import announced
from kvedge.runner.context import Place
from kvedge.runner.execution import Crew, Execution, Outcome
from kvedge.runner.jobs import ENTRY_FAULT, Job
from kvedge.runner.output import Echo, routed_stdout
from kvedge.runner.schedule import Schedule
from kvedge.runner.spec import (
    JobSpec,
    JobStatus,
    Reason,
    Start,
    Wall,
    begun,
    counted_since,
    ended,
    interrupted,
    must_stop,
    next_start,
)
from kvedge.runner.waiting import SleepUntil, one_error, sleeper, wait_for

log = logging.getLogger(__name__)

PING_S = 30.0
"""How often a running job is stored as alive."""

TICK_S = 1.0
"""How often output is stored while jobs run."""

CLOCK_LOOK_S = 10.0
"""How often the wall clock is looked at while a job waits for a time of day."""

_CLOSE_WITHIN_S = 5.0
_STEP_S = 1.0  # the wall clock was set if it and the boot clock differ by more than before

_NO_CFG: Mapping[str, Any] = MappingProxyType({})


def _log_line(name: str, line: str) -> None:
    log.info("%s: %s", name, line)


async def run(
    client: Client,
    *,
    node: str,
    group: str = "default",
    placement: str = "single",
    clock: Clock,
    name: str,
    cfg: Mapping[str, Any] = _NO_CFG,
    sleep_until: SleepUntil | None = None,
    echo: Echo = _log_line,
    zone: tzinfo = UTC,
    trusts_clock: bool = False,
) -> None:
    """Run the jobs of a node and group until cancelled.

    A cancel ends the jobs and stores that; `client` must outlive it, so cancel this alone and not
    the block that opened the client.

    Args:
        client: A connection to the node's own server.
        node: Name of the node.
        group: Name of the group.
        placement: "single" or "all".
        clock: The clock of the node.
        name: What to call this runner, for one that comes second.
        cfg: Settings that jobs may see.
        sleep_until: How to wait on that clock; None: really.
        echo: Where lines go that jobs print, beside the tree.
        zone: The time zone of words for times, where a job names none.
        trusts_clock: Words for times are counted by the wall clock though nothing has set it.

    Raises:
        RunnerBusy: Another runner runs these jobs.
        LinkError: The server is gone.
    """
    if placement not in ("single", "all"):
        raise BadSetting("placement", f"{placement!r} is not one of single, all")
    place = places.runner_at(placement, node=node, group=group)
    async with announced(client, place, name=name, clock=clock):
        with routed_stdout(), one_error():
            async with anyio.create_task_group() as tasks:
                supervisor = Supervisor(
                    Crew(client, tasks, cfg),
                    node=node,
                    group=group,
                    placement=placement,
                    clock=clock,
                    sleep_until=sleep_until or sleeper(clock),
                    echo=echo,
                    zone=zone,
                    trusts_clock=trusts_clock,
                )
                await supervisor.serve()


class Supervisor:
    """The jobs of one runner."""

    def __init__(
        self,
        crew: Crew,
        *,
        node: str,
        group: str,
        placement: str,
        clock: Clock,
        sleep_until: SleepUntil,
        echo: Echo,
        zone: tzinfo,
        trusts_clock: bool,
    ) -> None:
        self._crew = crew
        self._client = crew.client
        self._tasks: TaskGroup = crew.tasks
        self._node = node
        self._group = group
        self._clock = clock
        self._sleep_until = sleep_until
        self._echo = echo
        self._zone = zone
        self._trusts_clock = trusts_clock
        self._jobs_at = places.jobs_at(placement, node=node, group=group)
        self._states_at = places.states_at(placement, node=node, group=group)
        self._outputs_at = places.outputs_at(placement, node=node, group=group)
        self._faults = Faults(crew.client, node=node, clock=clock)
        self._jobs: dict[Path, Job] = {}
        self._schedule: Schedule[Path] = Schedule()
        self._by_wall: set[Path] = set()
        self._wake = anyio.Event()
        self._started = anyio.Event()
        self._offset_s = self._clock_offset_s()
        self._was_right = self._clock_is_right()

    async def serve(self) -> None:
        """Follow the tree until cancelled."""
        try:
            await self._faults.load()
            await self._load_states()
            await self._tasks.start(self._follow_code)
            self._tasks.start_soon(self._keep_time)
            self._tasks.start_soon(self._keep_house)
            await self._follow_jobs()
        finally:
            self._crew.ending.set()

    # --- what the tree says ---------------------------------------------------------------------

    async def _load_states(self) -> None:
        async for item in self._client.get_tree(self._states_at):
            job = self._job(item.path)
            try:
                job.status = JobStatus.from_value(job.state_path, item.value)
            except JobFailed as error:
                log.warning("%s; it is passed over", error)
        async for item in self._client.get_tree(self._outputs_at):
            self._job(item.path).output.load(item.value)

    def _job(self, tail: Path) -> Job:
        if tail not in self._jobs:
            self._jobs[tail] = Job(
                self._client,
                self._faults,
                self._clock,
                tail=tail,
                path=self._jobs_at + tail,
                state_path=self._states_at + tail,
                output_path=self._outputs_at + tail,
                echo=self._echo,
            )
        return self._jobs[tail]

    async def _follow_jobs(self) -> None:
        async with self._client.watch(self._jobs_at, fetch=True) as items:
            async for item in items:
                if "path" in item:
                    await self._job_changed(item)
                elif item.get("state") == "uptodate":
                    await self._forget_jobless()
                    log.info("running the jobs at %s: %d", self._jobs_at, len(self._jobs))

    async def _forget_jobless(self) -> None:
        """Remove states whose job was deleted while no runner looked."""
        for job in list(self._jobs.values()):
            if not job.tock:
                job.is_gone = True
                await self._settle(job)

    async def _job_changed(self, item: Result) -> None:
        job = self._job(item.path)
        is_new, old = not job.tock, job.spec
        wrong = job.take(item)
        if old is not None and job.spec is not None:
            reason = must_stop(old, job.spec, job.status, tock=job.tock)
        else:
            reason = Reason.CANCELLED
        if reason is not None:
            job.stop(reason)
        # Up to here nothing was waited for: a run that ends meanwhile finds entry and tock alike.
        if wrong is not None:
            log.warning("%s", wrong)
            await job.fault(ENTRY_FAULT, Detail(str(wrong)))
        else:
            await job.clear_fault(ENTRY_FAULT)
        if is_new and job.status.node is not None:
            await self._account(job)
        await self._settle(job)

    async def _account(self, job: Job) -> None:
        """Note that a run was cut off with its runner."""
        job.status = interrupted(job.spec, job.status)
        log.warning("%s was interrupted; the runner before this one died", job.path)
        await job.save()

    async def _follow_code(self, *, task_status: TaskStatus[None]) -> None:
        async with self._client.watch(places.CODE, fetch=False) as items:
            task_status.started()
            async for item in items:
                if "path" in item:
                    await self._code_changed(places.CODE + item.path, item.tock)

    async def _code_changed(self, place: Path, tock: int) -> None:
        for job in list(self._jobs.values()):
            if place not in job.uses or tock <= job.uses[place]:
                continue
            job.is_mended = True
            if job.is_running:
                job.stop(Reason.CHANGED)
            else:
                await self._settle(job)

    # --- what the time says ---------------------------------------------------------------------

    def _clock_offset_s(self) -> float:
        return self._clock.wall_s() - self._clock.boottime_s()

    def _clock_is_right(self) -> bool:
        """Tell whether the wall clock can be trusted; it can when it once was synchronised."""
        self._trusts_clock = self._trusts_clock or self._clock.wall_is_synchronised()
        return self._trusts_clock

    def _wall(self, job: Job) -> Wall:
        return Wall(self._clock.wall_s(), self._clock_is_right(), job.zone or self._zone)

    async def _keep_time(self) -> None:
        """Start jobs when their time comes, and look again when the wall clock was set."""
        while True:
            now_s = self._clock.boottime_s()
            for tail in self._schedule.take_due(now_s):
                self._start(self._jobs[tail])
            next_s = self._schedule.next_s()
            if self._by_wall:
                next_s = min(now_s + CLOCK_LOOK_S, math.inf if next_s is None else next_s)
            self._wake = anyio.Event()
            if next_s is None:
                await self._wake.wait()
            else:
                await wait_for(self._wake, self._sleep_until, next_s)
            is_set = abs(self._clock_offset_s() - self._offset_s) > _STEP_S
            if is_set or self._clock_is_right() != self._was_right:
                await self._clock_was_set()

    async def _clock_was_set(self) -> None:
        """Ask again when the jobs start that wait for a time of day."""
        self._offset_s = self._clock_offset_s()
        self._was_right = self._clock_is_right()
        for tail in list(self._by_wall):
            if tail in self._jobs:  # it may be buried while another one is settled
                await self._settle(self._jobs[tail])

    async def _keep_house(self) -> None:
        """Store output and signs of life while jobs run."""
        while True:
            if not any(job.is_running for job in self._jobs.values()):
                self._started = anyio.Event()
                await self._started.wait()
            await self._sleep_until(self._clock.boottime_s() + TICK_S)
            now = self._clock.wall_s()
            for job in list(self._jobs.values()):
                await job.flush()
                if job.is_running and abs(now - (job.status.pinged or 0)) >= PING_S:
                    job.status = replace(job.status, pinged=now)
                    await job.save(relaxed=True)

    # --- starting and ending --------------------------------------------------------------------

    async def _settle(self, job: Job) -> None:
        """Start a job, schedule it, or bury it, as things are; leave a running one alone."""
        if job.is_running:
            return
        self._schedule.drop(job.tail)
        self._by_wall.discard(job.tail)
        if job.is_gone:
            await self._bury(job)
            return
        start = self._plan(job)
        if start is not None and start.wait_s <= 0:
            self._start(job)
            return
        told = self._told(job, start)
        is_same_time = not _differ(told.computed, job.status.computed)
        if not is_same_time or replace(told, computed=job.status.computed) != job.status:
            job.status = told
            await job.save(relaxed=True)

    def _plan(self, job: Job) -> Start | None:
        """Put the next start into the schedule and return it."""
        job.due = None
        if job.spec is None:
            return None
        wall = self._wall(job)
        start = next_start(job.spec, job.status, wall=wall, tock=job.tock, is_mended=job.is_mended)
        if start is None:
            return None
        if math.isfinite(start.wait_s) and start.wait_s > 0:
            self._schedule.put(job.tail, self._clock.boottime_s() + start.wait_s)
            self._wake.set()
        if start.by_wall:
            self._by_wall.add(job.tail)
            self._wake.set()
            job.due = wall.now + start.wait_s if math.isfinite(start.wait_s) else None
        return start

    def _told(self, job: Job, start: Start | None) -> JobStatus:
        """Return the status with what is known of the next start."""
        wall = self._wall(job)
        status = replace(job.status, waits=None if start is None else start.waits)
        if job.spec is not None and job.spec.has_words and wall.is_right:
            since = counted_since(job.status, wall.now, tock=job.tock)
            status = replace(status, since=since, since_tock=job.tock)
        if start is None or not math.isfinite(start.wait_s):
            return replace(status, computed=None)
        return replace(status, computed=wall.now + start.wait_s)

    async def _bury(self, job: Job) -> None:
        await job.remove()
        if job.is_gone:  # it may have come back meanwhile
            self._jobs.pop(job.tail, None)

    def _start(self, job: Job) -> None:
        self._by_wall.discard(job.tail)
        job.scope = anyio.CancelScope()
        job.stop_reason = None
        job.is_mended = False
        self._started.set()
        self._tasks.start_soon(self._run, job)

    async def _run(self, job: Job) -> None:
        """Run a job once, and settle what follows."""
        assert job.spec is not None
        assert job.scope is not None
        job.status = begun(
            job.spec,
            job.status,
            wall=self._wall(job),
            node=self._node,
            tock=job.tock,
            due=job.due,
        )
        log.info("%s starts", job.path)
        outcome: Outcome | None = None
        try:
            with job.scope:
                await job.save()
                outcome = await self._execute(job, job.spec)
        finally:
            is_cut = anyio.current_effective_deadline() == -math.inf
            with anyio.move_on_after(_CLOSE_WITHIN_S, shield=True) as closing:
                await self._close(job, _outcome(job, outcome, is_cut=is_cut))
            job.scope = None
            if closing.cancelled_caught:
                log.warning("the end of %s is not stored: no answer in time", job.path)
        await self._settle(job)

    async def _execute(self, job: Job, spec: JobSpec) -> Outcome:
        place = Place(
            job.tail,
            self._node,
            self._group,
            self._clock,
            self._sleep_until,
            job.zone or self._zone,
            self._clock_is_right,
        )
        execution = Execution(self._crew, place, job, job.output)
        job.uses = execution.uses
        async with anyio.create_task_group() as tasks:
            if spec.ok_after:
                tasks.start_soon(self._prove, job, spec.ok_after)
            if spec.timeout:
                tasks.start_soon(self._limit, job, spec.timeout)
            outcome = await execution.run(spec)
            tasks.cancel_scope.cancel()
        return outcome

    async def _prove(self, job: Job, ok_after_s: float) -> None:
        await self._sleep_until(self._clock.boottime_s() + ok_after_s)
        await job.works()

    async def _limit(self, job: Job, timeout_s: float) -> None:
        """End a run that takes too long.  A thread goes on, so that is told before it ends."""
        await self._sleep_until(self._clock.boottime_s() + timeout_s)
        log.warning("%s runs longer than %g s; it is told to end", job.path, timeout_s)
        with anyio.move_on_after(_CLOSE_WITHIN_S):
            await job.tell(Detail(f"it ran longer than its timeout of {timeout_s:g} s"))
        job.stop(Reason.TIMED_OUT)

    async def _close(self, job: Job, outcome: Outcome) -> None:
        wall = self._wall(job)
        job.status = ended(job.status, outcome.reason, wall=wall, result=outcome.result)
        log.info("%s ends: %s", job.path, outcome.reason)
        if job.spec is not None and not job.is_gone:
            start = next_start(job.spec, job.status, wall=wall, tock=job.tock)
            job.status = self._told(job, start)
        await job.close(outcome)


def _differ(one: float | None, other: float | None) -> bool:
    """Tell whether two times are not the same, to the second."""
    if one is None or other is None:
        return one is not other
    return abs(one - other) > _STEP_S


def _outcome(job: Job, outcome: Outcome | None, *, is_cut: bool) -> Outcome:
    """Return how a run ended: code that is told to stop may end in any way, or in none.

    Args:
        job: Whose run.
        outcome: What the code came to.
        is_cut: The runner itself was told to end.
    """
    if outcome is not None and outcome.reason is not Reason.FAILED:
        return outcome
    if job.stop_reason is not None:
        return Outcome(job.stop_reason)
    if is_cut:
        return Outcome(Reason.SHUTDOWN)
    return outcome or Outcome(Reason.FAILED, detail=Detail("the code cancelled itself"))
