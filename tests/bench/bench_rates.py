"""get, set and watch through a Unix socket, beside the plain asyncio echo of the same run."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import measure
from measure import RawClient, rate, ratio, row

PATH = ("sensor", "box", "attic", "temperature")
VALUE = {"value": 21.5, "unit": "C"}


async def get(client: RawClient, _: int) -> object:
    """Read one entry."""
    return await client.ask("get_value", path=PATH)


async def set_relaxed(client: RawClient, number: int) -> object:
    """Store a reading."""
    return await client.ask("set_value", path=PATH, value=number, nchain=0, relaxed=True)


async def set_durable(client: RawClient, number: int) -> object:
    """Store a value for good."""
    return await client.ask("set_value", path=(*PATH, id(client)), value=number, nchain=0)


def synced_appends_per_s(directory: Path) -> float:
    """Return how often a second the disk takes an append of a record with fdatasync."""
    file = os.open(directory / "plain", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    start = time.perf_counter()
    for _ in range(300):
        os.write(file, b"x" * 100)
        os.fdatasync(file)
    took = time.perf_counter() - start
    os.close(file)
    return 300 / took


class Watcher(measure.RawClient):
    """Notes when notices come."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: asyncio.Queue[float] = asyncio.Queue()

    def data_received(self, data: bytes) -> None:
        if b"path" in data:
            self.seen.put_nowait(time.perf_counter())


def watch_latencies_ms(socket: Path, count: int = 1000) -> list[float]:
    """Return the times from a relaxed set to the notice of a watcher of the same server."""

    async def run() -> list[float]:
        loop = asyncio.get_running_loop()
        _, watcher = await loop.create_unix_connection(Watcher, str(socket))
        watcher.send("watch", path=("w",))
        writer = await measure.connected(socket)
        await writer.ask("get_tock")
        took = []
        for number in range(count):
            start = time.perf_counter()
            await writer.ask("set_value", path=("w", "x"), value=number, nchain=0, relaxed=True)
            took.append((await watcher.seen.get() - start) * 1000)
        return took

    return asyncio.run(run())


def main() -> None:
    """Measure and print."""
    measure.heading("Rates and latencies, one server, Unix socket")
    with (
        measure.scratch() as here,
        measure.echo_server(here / "echo.sock"),
        measure.kv_server(here / "data", here / "kv.sock"),
    ):
        cases: list[tuple[str, measure.Ask, int, int]] = [
            ("get", get, 1, 4000),
            ("get", get, 64, 12800),
            ("set relaxed", set_relaxed, 1, 3000),
            ("set relaxed", set_relaxed, 64, 12800),
            ("set durable", set_durable, 1, 1000),
            ("set durable", set_durable, 64, 12800),
        ]
        rate(here / "kv.sock", set_relaxed, clients=1, requests=1)
        for name, ask, clients, requests in cases:
            found, echo, disk = _side_by_side(here, ask, clients, requests)
            words = ratio(found, echo, "echo")
            if ask is set_durable and clients == 1:
                words += f", {ratio(found, disk, 'plain append + fdatasync')[2:]}"
            row(f"{name}, {clients} client{'s' * (clients > 1)}", found, "/s", ratio=words)
        latencies = watch_latencies_ms(here / "kv.sock")
        row("set to notice of a watcher, p50", statistics.median(latencies), "ms")
        row("set to notice of a watcher, p99", statistics.quantiles(latencies, n=100)[98], "ms")


def _side_by_side(
    here: Path, ask: measure.Ask, clients: int, requests: int
) -> tuple[float, float, float]:
    """Return the medians of ours, of the echo and of the disk, measured in turns."""

    def run(socket: str) -> Callable[[], float]:
        return lambda: rate(here / socket, ask, clients=clients, requests=requests)

    rounds = [(run("kv.sock")(), run("echo.sock")(), synced_appends_per_s(here)) for _ in range(5)]
    ours, echo, disk = (statistics.median(column) for column in zip(*rounds, strict=True))
    return ours, echo, disk


if __name__ == "__main__":
    main()
