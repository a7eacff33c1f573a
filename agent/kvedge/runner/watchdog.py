"""A job that blocks the event loop of its runner: found, named, and held back.

All async jobs of a runner share one loop, so one that computes or sleeps without an `await` stops
them all.  A thread looks whether the loop still comes round.  When it did not for too long, the
stack of the loop's thread tells whose code is running; what belongs to that job is stored, with the
stack, and the process ends.  Whoever keeps the runner starts a new one, in which the job that
blocked waits like one that failed, and the others go on at once.

The jobs are told apart by the context variable of their output, which every task and callback that
a job starts inherits.  Code that holds the interpreter's lock for good (a C extension) stops this
thread too: then the agent, which sees the heartbeat of the process, kills it, and nobody is named.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import dataclass, replace
from functools import partial
from itertools import dropwhile
from types import FrameType

import anyio

from kvedge.client.client import Client, open_client
from kvedge.client.faults import Detail, Faults
from kvedge.clock import Clock
from kvedge.errors import AgentError, JobFailed
from kvedge.model.path import P, Path
from kvedge.runner import places
from kvedge.runner.execution import OURS
from kvedge.runner.heartbeat import Heartbeat, Silence
from kvedge.runner.jobs import FAULT
from kvedge.runner.output import current
from kvedge.runner.spec import JobStatus, Reason, Wall, ended
from kvedge.runner.waiting import one_error

log = logging.getLogger(__name__)

BLOCK_MAX_S = 10.0
"""How long the loop may stand still: an import or a large value takes a second on a slow board."""

LOOKS = 4
"""How often the loop is looked at in that time."""

STORE_WITHIN_S = 5.0
"""How long storing what happened may take; the process ends all the same."""

EXIT_CODE = 70  # EX_SOFTWARE
_STACK_MAX = 200


@dataclass(frozen=True, slots=True)
class Place:
    """Whose jobs a runner runs, and where its server is.

    Attributes:
        node: Name of the node.
        group: Name of the group.
        placement: "single" or "all".
        endpoints: Where the server is, in the order to try.
        auth: How to log in.
    """

    node: str
    group: str
    placement: str
    endpoints: tuple[str, ...]
    auth: str | None


@dataclass(frozen=True, slots=True)
class Blocker:
    """Who blocks the loop.

    Attributes:
        job: The job's path, without the prefix of the runner.
        trace: Where it is.
    """

    job: Path
    trace: str


def blocker_of(frame: FrameType | None) -> Blocker | None:
    """Return whose code runs in a thread, by its stack; None where it is no job's."""
    frames: list[FrameType] = []
    while frame is not None and len(frames) < _STACK_MAX:
        frames.append(frame)
        frame = frame.f_back
    for number, found in enumerate(frames):
        output = _output_of(found)
        if output is not None:
            own = [*dropwhile(_is_ours, reversed(frames[:number]))]
            return Blocker(P(output), "".join(traceback.format_list(_summary(own))))
    return None


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith(OURS)


def _output_of(frame: FrameType) -> str | None:
    """Return the job whose task or callback a frame of the event loop runs."""
    # A handle of the loop keeps the context that it runs its callback in.  To look for that and
    # not for the class spares this module the knowledge of which loop it is.
    context = getattr(frame.f_locals.get("self"), "_context", None)
    output = context.get(current) if isinstance(context, Context) else None
    return None if output is None else output.name


def _summary(frames: list[FrameType]) -> traceback.StackSummary:
    return traceback.StackSummary.extract(
        ((frame, frame.f_lineno) for frame in frames), lookup_lines=True
    )


# --- storing ----------------------------------------------------------------------------------


async def store(place: Place, blocker: Blocker, *, block_s: float, clock: Clock) -> None:
    """Store the end of all runs of a runner that ends because a job blocks its loop.

    Raises:
        AgentError: The server cannot be reached, or refuses.
    """
    async with open_client(*place.endpoints, auth=place.auth) as client:
        at = {"node": place.node, "group": place.group}
        states_at = places.states_at(place.placement, **at)
        job_at = places.jobs_at(place.placement, **at) + blocker.job
        await _end_runs(client, states_at, blocker.job, clock)
        faults = Faults(client, node=place.node, clock=clock)
        await faults.load()
        text = f"it blocked the event loop for {block_s:g} s, so the runner had to end"
        await faults.record(job_at, FAULT, Detail(text, blocker.trace))


async def _end_runs(client: Client, states_at: Path, job: Path, clock: Clock) -> None:
    wall = Wall(clock.wall_s(), clock.wall_is_synchronised())
    async for item in client.get_tree(states_at):
        try:
            status = JobStatus.from_value(states_at + item.path, item.value)
        except JobFailed:
            continue  # the runner to come will tell
        if status.node is None:
            continue
        reason = Reason.BLOCKED if item.path == job else Reason.SHUTDOWN
        told = ended(status, reason, wall=wall)
        if told.since is None:
            told = replace(told, since=status.since)
        await client.set(states_at + item.path, told.to_value())


def store_and_end(place: Place, blocker: Blocker, *, block_s: float, clock: Clock) -> None:
    """Store who blocked the loop, and end the process; called in a thread other than the loop's."""
    log.error("%s blocks the event loop; the runner ends\n%s", blocker.job, blocker.trace)

    async def in_time() -> None:
        with anyio.fail_after(STORE_WITHIN_S):
            await store(place, blocker, block_s=block_s, clock=clock)

    try:
        anyio.run(in_time)
    except (AgentError, TimeoutError, ExceptionGroup) as error:
        log.error("that %s blocked the loop is not stored: %r", blocker.job, error)
    finally:
        sys.stderr.flush()
        os._exit(EXIT_CODE)  # the loop's thread would go on


# --- watching ---------------------------------------------------------------------------------


@asynccontextmanager
async def watched(
    on_block: Callable[[Blocker], None], *, block_max_s: float, heart: Heartbeat | None = None
) -> AsyncIterator[None]:
    """Watch the loop while the block runs.

    Args:
        on_block: Called in the watching thread, once.
        block_max_s: How long the loop may stand still; 0: it is not watched.
        heart: Beats as long as the loop comes round; for those who look from outside.
    """
    heart = heart or Heartbeat()
    pause_s = (block_max_s or BLOCK_MAX_S) / LOOKS
    over = threading.Event()
    look = partial(_look, over, heart, threading.get_ident(), pause_s, on_block)
    with one_error():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_beat, heart, pause_s / 2)
            if block_max_s:
                threading.Thread(target=look, name="watchdog", daemon=True).start()
            try:
                yield
            finally:
                over.set()
                tasks.cancel_scope.cancel()


async def _beat(heart: Heartbeat, pause_s: float) -> None:
    while True:
        heart.beat()
        await anyio.sleep(pause_s)


def _look(
    over: threading.Event,
    heart: Heartbeat,
    thread: int,
    pause_s: float,
    on_block: Callable[[Blocker], None],
) -> None:
    silence = Silence(LOOKS)
    while not over.wait(pause_s):
        if silence.is_long(heart.count):
            blocker = blocker_of(sys._current_frames().get(thread))  # noqa: SLF001 -- there is no other way
            if blocker is not None:
                on_block(blocker)
                return
