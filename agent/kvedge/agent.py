"""The processes of a board: the server, and the runner that it starts and watches over.

`kv server` is the first alone.  `kv agent` is both (and, between them, the small fork server that
makes processes, see `runner.processes`): the server is the main process, so that a job which
blocks, leaks or crashes takes the runner down and nothing else.  When told to end, the runner
goes first, so that its jobs can still say so.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable

from kvedge.clock import Clock, SystemClock
from kvedge.server.server import Server, feed_watchdog, run_server
from kvedge.server.settings import ServerSettings
from kvedge.transport.systemd import ServiceManager

log = logging.getLogger(__name__)


def serve(settings: ServerSettings, *, ready: Callable[[Server], None]) -> None:
    """Run a server until SIGTERM or SIGINT.

    Args:
        settings: What it is told.
        ready: Called when clients may connect.

    Raises:
        StorageError: Its directory cannot be used.
        BadSetting: It cannot listen where it should.
    """
    asyncio.run(_serve(settings, SystemClock(), ServiceManager(os.environ), ready))


async def _serve(
    settings: ServerSettings,
    clock: Clock,
    manager: ServiceManager,
    ready: Callable[[Server], None],
) -> None:
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
    async with run_server(settings, clock=clock) as server, asyncio.TaskGroup() as tasks:
        feeding = tasks.create_task(feed_watchdog(server, manager))
        ready(server)
        manager.ready(f"node {settings.node}")
        await end.wait()
        log.info("told to stop")
        manager.stopping()
        feeding.cancel()
