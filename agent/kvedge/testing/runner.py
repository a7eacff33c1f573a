"""A runner with its surroundings in one process: a server, a client, and a clock that stands still.

async with runner_bench(tmp_path) as bench:
    await bench.set_code("the.answer", "return 42")
    await bench.set_job("a.question", "the.answer")
    async with bench.runner():
        state = await bench.state("a.question", reason="done")
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from os import PathLike
from typing import Any

import anyio

from kvedge.client.client import Client, open_client
from kvedge.client.result import Result
from kvedge.clock import SystemClock
from kvedge.model.path import P, Path
from kvedge.runner import places
from kvedge.runner.supervisor import run
from kvedge.server.server import run_server
from kvedge.server.settings import ServerSettings
from kvedge.testing.clock import VirtualClock

NODE = "test1"
PATIENCE_S = 10.0
"""How long to wait for what must come; a good run takes milliseconds."""


class RunnerBench:
    """A runner's surroundings: a client, a clock, and short ways to set and wait."""

    def __init__(self, client: Client, clock: VirtualClock) -> None:
        self.client = client
        self.clock = clock
        self.echoed: list[tuple[str, str]] = []

    def job_at(self, tail: str) -> Path:
        """Return where a job of the node stands."""
        return places.jobs_at("single", node=NODE, group="default") + P(tail)

    def state_at(self, tail: str) -> Path:
        """Return where its state stands."""
        return places.states_at("single", node=NODE, group="default") + P(tail)

    def output_at(self, tail: str) -> Path:
        """Return where its output stands."""
        return places.outputs_at("single", node=NODE, group="default") + P(tail)

    async def set_code(
        self, name: str, text: str, *, is_async: bool | None = True, **more: Any
    ) -> None:
        """Store a procedure."""
        value = {"code": text, "is_async": is_async, "vars": [], "requires": []} | more
        await self.client.set(places.procedure_at(P(name)), value)

    async def set_module(self, name: str, text: str, **more: Any) -> None:
        """Store a module."""
        await self.client.set(places.module_at(P(name)), {"code": text} | more)

    async def set_job(self, tail: str, code: str, **fields: Any) -> None:
        """Store a job, to be started at once unless told otherwise."""
        where = code if code.startswith("@") else P(code)
        await self.client.set(self.job_at(tail), {"code": where, "data": {}, "target": 0} | fields)

    async def until(self, path: Path, is_it: Callable[[Result], bool]) -> Any:
        """Wait until an entry is as it should be; return its value."""
        last: object = None
        with anyio.move_on_after(PATIENCE_S):
            async with self.client.watch(path, fetch=True, max_depth=0) as items:
                async for item in items:
                    last = item
                    if "path" in item and is_it(item):
                        return item.get("value")
        raise AssertionError(f"{path} is {last}")

    async def state(self, tail: str, **wanted: Any) -> Any:
        """Wait until the state of a job has these fields; return it."""

        def is_it(item: Result) -> bool:
            value = item.get("value") or {}
            return all(value.get(name) == is_wanted for name, is_wanted in wanted.items())

        return await self.until(self.state_at(tail), is_it)

    async def value(self, path: str) -> Any:
        """Wait until there is a value at a path; return it."""
        return await self.until(P(path), lambda item: "value" in item)

    async def faults(self) -> list[Any]:
        """Return the faults of the node."""
        found = self.client.get_tree(places.ERRORS / NODE, min_depth=1, max_depth=1)
        return [item.value async for item in found]

    @asynccontextmanager
    async def runner(
        self,
        *,
        client: Client | None = None,
        placement: str = "single",
        name: str = "a test",
        **options: Any,
    ) -> AsyncIterator[None]:
        """Run the jobs while the block runs; a `client` of its own makes it one that can die.

        The `options` are those of `kvedge.runner.supervisor.run`.
        """
        serve = functools.partial(
            run,
            client or self.client,
            node=NODE,
            placement=placement,
            clock=self.clock,
            name=name,
            sleep_until=self.clock.sleep_until,
            echo=lambda job, line: self.echoed.append((job, line)),
            **options,
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            yield
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def runner_bench(directory: PathLike[str] | str) -> AsyncIterator[RunnerBench]:
    """Start a server without a disk, and connect to it, while the block runs.

    Args:
        directory: Where its socket is put.
    """
    address = f"unix:{directory}/kv.sock"
    settings = ServerSettings(node=NODE, listen=(address,))
    async with run_server(settings, clock=SystemClock()), open_client(address) as client:
        yield RunnerBench(client, VirtualClock())
