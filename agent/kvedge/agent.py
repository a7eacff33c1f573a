"""The processes of a board: the server, and the runners that it starts and watches over.

`kv server` is the first alone.  `kv agent` is all of them, and between them the small fork server
that makes processes (see `runner.processes`).  The server is the main process, so that a job
which blocks, leaks or crashes takes a runner down and nothing else.  When told to end, the
runners go first, so that their jobs can still store how they ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from typing import Any

from kvedge.clock import SystemClock
from kvedge.runner.heartbeat import Heartbeat
from kvedge.runner.main import RunnerSettings, run_process
from kvedge.runner.processes import ForkServer, keep_running
from kvedge.runner.waiting import one_error
from kvedge.server.server import Server, feed_watchdog, run_server
from kvedge.server.settings import ServerSettings
from kvedge.transport.systemd import ServiceManager

log = logging.getLogger(__name__)

Ready = Callable[[Server], None]
Reload = Callable[[], None]
_RUNNER = "runner"


def serve(settings: ServerSettings, *, ready: Ready, reload: Reload) -> None:
    """Run a server until SIGTERM or SIGINT.

    Args:
        settings: What it is told.
        ready: Called when clients may connect.
        reload: Called at SIGHUP.

    Raises:
        StorageError: Its directory cannot be used; NameTaken: another server has its name.
        BadSetting: It cannot listen where it should.
    """
    with one_error():
        asyncio.run(_run(settings, ready, reload))


def run_agent(
    settings: ServerSettings,
    runners: Sequence[RunnerSettings],
    *,
    ready: Ready,
    reload: Reload,
) -> None:
    """Run a server with its runners until SIGTERM or SIGINT; raises as `serve` does."""
    hearts = [Heartbeat() for _ in runners]
    # While there is neither thread nor loop.
    forks = ForkServer({_RUNNER: partial(_be_runner, hearts)})
    try:
        with one_error():
            asyncio.run(_run(settings, ready, reload, forks, [*zip(runners, hearts, strict=True)]))
    finally:
        forks.close()


def _be_runner(hearts: Sequence[Heartbeat], options: Mapping[str, Any]) -> int:
    """Be a runner process; the fork server calls it in a child."""
    values = {**options, "endpoints": tuple(options["endpoints"])}
    heart = hearts[values.pop("number")]
    return run_process(RunnerSettings(**values), heart)


async def _either(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def _run(
    settings: ServerSettings,
    ready: Ready,
    reload: Reload,
    forks: ForkServer | None = None,
    runners: Sequence[tuple[RunnerSettings, Heartbeat]] = (),
) -> None:
    manager = ServiceManager(os.environ)
    clock = SystemClock()
    end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
    async with (
        run_server(settings, clock=clock) as server,
        forks.opened() if forks else nullcontext(),
        asyncio.TaskGroup() as group,
    ):
        tasks = [group.create_task(feed_watchdog(server, manager))]
        if forks:
            tasks += [
                group.create_task(
                    keep_running(
                        forks,
                        _RUNNER,
                        asdict(runner) | {"number": number},
                        clock=clock,
                        heart=heart,
                    )
                )
                for number, (runner, heart) in enumerate(runners)
            ]
        ready(server)
        manager.ready(f"node {settings.node}")
        await _either(end, server.ended)
        log.info("ending: %s", server.why) if server.why else log.info("told to stop")
        manager.stopping()
        for task in tasks:
            task.cancel()
    if server.why is not None:
        raise server.why
