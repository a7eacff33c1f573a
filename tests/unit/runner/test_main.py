"""The runner's process comes back when its server does, and ends when it is told to."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path as File

import anyio
import pytest

from kvedge.clock import SystemClock
from kvedge.errors import NotConnected
from kvedge.runner import main
from kvedge.runner.main import RunnerSettings, run_process, serve
from kvedge.testing.runner import NODE, RunnerBench, runner_bench


@asynccontextmanager
async def job_that_was_run(directory: File) -> AsyncIterator[RunnerBench]:
    """A new server with a job, which the runner has ended."""
    async with runner_bench(directory) as bench:
        await bench.set_code("one", "return 1")
        await bench.set_job("a", "one")
        await bench.state("a", reason="done")
        yield bench


def settings(directory: File) -> RunnerSettings:
    return RunnerSettings(node=NODE, endpoints=(f"unix:{directory}/kv.sock",))


async def test_runner_outlives_its_server_and_ends_on_a_signal(
    tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "RECONNECT_MAX_S", 0.1)
    async with anyio.create_task_group() as tasks:
        async with runner_bench(tmp_path):
            tasks.start_soon(lambda: serve(settings(tmp_path), clock=SystemClock()))
            await anyio.wait_all_tasks_blocked()
        async with job_that_was_run(tmp_path):
            pass
        async with job_that_was_run(tmp_path):
            os.kill(os.getpid(), signal.SIGTERM)


async def test_runner_without_a_server_does_not_begin(tmp_path: File) -> None:
    with pytest.raises(NotConnected):
        await serve(settings(tmp_path), clock=SystemClock())


def test_process_tells_by_its_exit_code_that_it_could_not_work(tmp_path: File) -> None:
    assert run_process(settings(tmp_path)) == 1
