"""`kv run all`: a runner in the foreground, until a signal ends it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Coroutine
from functools import partial

import anyio

from kvedge.cli import exits
from kvedge.cli.connection import Session, endpoints
from kvedge.cli.either_order import say
from kvedge.cli.jobs import Runner
from kvedge.cli.logs import set_up_logging
from kvedge.client.client import open_client
from kvedge.clock import SystemClock
from kvedge.config.connect import connect_settings
from kvedge.errors import AgentError
from kvedge.runner import supervisor
from kvedge.runner.main import exit_past_threads
from kvedge.runner.watchdog import BLOCK_MAX_S, Place, store_and_end, watched
from kvedge.runner.zones import local_zone


def run_in_foreground(session: Session, runner: Runner, *, trusts_clock: bool) -> None:
    """Run jobs until SIGINT or SIGTERM; what they print goes to standard output.

    Args:
        session: The command.
        runner: Whose jobs.
        trusts_clock: Words for times are counted by the wall clock though nothing has set it.

    Raises:
        RunnerBusy: Another runner runs these jobs.
        LinkError: The server cannot be reached, or is gone.
        KeyboardInterrupt: It was SIGINT.
    """
    set_up_logging(verbose=session.verbose, environ=session.environ)
    ended_by = anyio.run(_run, session, runner, trusts_clock)
    exit_past_threads(exits.INTERRUPTED if ended_by == signal.SIGINT else exits.DONE)
    if ended_by == signal.SIGINT:
        raise KeyboardInterrupt


async def _run(session: Session, runner: Runner, trusts_clock: bool) -> signal.Signals:  # noqa: FBT001 -- of anyio.run
    given = session.given
    settings = connect_settings(given.text("config"), given.texts("set"), session.environ)
    where = endpoints(given, session.environ)
    stdout = sys.stdout  # the runner puts something else in its place

    def echo(_: str, line: str) -> None:
        stdout.write(f"{line}\n")
        stdout.flush()

    auth = given.text("auth") or settings.auth
    async with open_client(*where, auth=auth) as client:
        own = str(client.greeting["node"])
        node = runner.node or own
        if node != own:
            say(f"note: this is the server of {own}; the jobs of {node} run here all the same")
        session.note(f"at work for node {node}, group {runner.group}; ^C ends it")
        place = Place(node, runner.group, runner.placement, tuple(where), auth)
        clock = SystemClock()
        end = partial(store_and_end, place, block_s=BLOCK_MAX_S, clock=clock)
        async with watched(end, block_max_s=BLOCK_MAX_S):
            return await _until_signal(
                supervisor.run(
                    client,
                    node=node,
                    group=runner.group,
                    placement=runner.placement,
                    clock=clock,
                    name="kv run all",
                    echo=echo,
                    zone=local_zone(session.environ),
                    trusts_clock=trusts_clock,
                )
            )


async def _until_signal(running: Coroutine[object, object, None]) -> signal.Signals:
    """Run something until a signal asks for its end, and return the signal."""
    failed: list[AgentError] = []

    async def run() -> None:
        try:
            await running
        except AgentError as error:  # a task group would wrap it
            failed.append(error)
        tasks.cancel_scope.cancel()

    received = []
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            received.append(await anext(signals))
            tasks.cancel_scope.cancel()
    if failed:
        raise failed[0]
    return signal.Signals(received[0])
