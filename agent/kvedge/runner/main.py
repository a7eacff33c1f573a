"""The runner as a process: connect, run the jobs, connect again when the server is back."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio

from kvedge.client.client import open_client
from kvedge.clock import Clock, SystemClock
from kvedge.errors import AgentError, LinkError
from kvedge.runner.heartbeat import Heartbeat
from kvedge.runner.output import Echo
from kvedge.runner.supervisor import run
from kvedge.runner.waiting import one_error
from kvedge.runner.watchdog import BLOCK_MAX_S, Place, store_and_end, watched
from kvedge.runner.zones import local_zone

log = logging.getLogger(__name__)

RECONNECT_MAX_S = 2.0
"""The longest pause between two tries; drawn anew each time, as all clients come back at once."""


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    """What a runner is told.

    Attributes:
        node: Name of the node.
        group: Name of the group.
        placement: "single" or "all".
        endpoints: Where its server is, in the order to try; none: the usual places.
        auth: How to log in.
        name: What to call it, for a second runner that is refused.
        cfg: Settings that jobs may see.
        clock: "synchronised": words for times wait until something has set the clock; "any":
            the clock is trusted as it is.
        block_max_s: How long a job may block the event loop; 0: as long as it likes.
    """

    node: str
    group: str = "default"
    placement: str = "single"
    endpoints: tuple[str, ...] = ()
    auth: str | None = None
    name: str = "kv agent"
    cfg: Mapping[str, Any] = field(default_factory=dict)
    clock: str = "synchronised"
    block_max_s: float = BLOCK_MAX_S


_LEVELS = {"WARNING": logging.WARNING, "ERROR": logging.ERROR, "INFO": logging.INFO}


def _log_line(name: str, line: str) -> None:
    """Log what a job logs at its level; what it merely prints is for `kv run log` and debugging."""
    level = _LEVELS.get(line.partition(" ")[0], logging.DEBUG)
    logging.getLogger("kvedge.job").log(level, "%s: %s", name, line)


async def serve(
    settings: RunnerSettings,
    *,
    clock: Clock,
    echo: Echo = _log_line,
    heart: Heartbeat | None = None,
) -> None:
    """Run jobs until SIGTERM or SIGINT, over as many connections as it takes.

    When told to end, the jobs are stopped and that is stored.  The first connection must come
    about; later ones are waited for.  Must run in the main thread, which is told of signals.
    Where a job blocks the event loop, that is stored and the process ends.

    Args:
        settings: What it is told.
        clock: The clock of the node.
        echo: Where lines go that jobs print, beside the tree.
        heart: Beats as long as the event loop comes round.

    Raises:
        NotConnected: There is no server to begin with.
        RunnerBusy: Another runner runs these jobs.
    """
    life = _Life()
    place = Place(
        settings.node, settings.group, settings.placement, settings.endpoints, settings.auth
    )
    end = partial(store_and_end, place, block_s=settings.block_max_s, clock=clock)
    with one_error():
        async with (
            watched(end, block_max_s=settings.block_max_s, heart=heart),
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(life.watch_signals)
            while not life.is_over:
                await _serve_once(settings, life, clock=clock, echo=echo)
            tasks.cancel_scope.cancel()


class _Life:
    """Whether to go on, and what to cancel if not."""

    def __init__(self) -> None:
        self.is_over = False
        self.was_connected = False
        self.scope = anyio.CancelScope()

    async def watch_signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
            async for number in received:
                log.info("told to stop by %s", number.name)
                self.is_over = True
                self.scope.cancel()


async def _serve_once(settings: RunnerSettings, life: _Life, *, clock: Clock, echo: Echo) -> None:
    """Connect and run jobs until the connection breaks or the runner is told to end."""
    try:
        with anyio.CancelScope() as life.scope:
            async with open_client(*settings.endpoints, auth=settings.auth) as client:
                life.was_connected = True
                # The connection must outlive the jobs, whose end goes over it.
                with anyio.CancelScope() as life.scope:
                    await run(
                        client,
                        node=settings.node,
                        group=settings.group,
                        placement=settings.placement,
                        clock=clock,
                        name=settings.name,
                        cfg=settings.cfg,
                        echo=echo,
                        zone=local_zone(os.environ),
                        trusts_clock=settings.clock == "any",
                    )
    except LinkError as error:
        if not life.was_connected:
            raise
        log.warning("%s; trying again", error)
        with anyio.CancelScope() as life.scope:
            await anyio.sleep(random.uniform(0.1, RECONNECT_MAX_S))


def run_process(settings: RunnerSettings, heart: Heartbeat | None = None) -> int:
    """Be a runner process: what the fork server calls.  Returns the exit code."""
    try:
        anyio.run(partial(serve, settings, clock=SystemClock(), heart=heart))
    except AgentError as error:
        log.error("%s", error)
        return 1
    return 0


def exit_past_threads(code: int) -> None:
    """End the process now where a thread of a job goes on; do nothing where none does.

    A thread cannot be ended from outside, and Python would wait for it, perhaps for ever.
    """
    if len(sys._current_frames()) > 1:  # noqa: SLF001 -- counts threads
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
