"""Memory of the server process with 0, 10,000 and 100,000 entries, bytes per put, time to start."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import measure
from measure import row, rss_mib

BATCH = 100


async def _fill(socket: Path, first: int, last: int) -> None:
    """Store small entries below paths of four elements, a hundred under way at a time."""
    clients = [await measure.connected(socket) for _ in range(BATCH)]

    async def work(lane: int, client: measure.RawClient) -> None:
        for number in range(first + lane, last, BATCH):
            path = ("sensor", f"box{number % 100}", "channel", number)
            await client.ask("set_value", path=path, value={"v": number, "u": "C"}, nchain=0)

    await asyncio.gather(*(work(lane, client) for lane, client in enumerate(clients)))
    for client in clients:
        client.close()


def _journal_bytes(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.glob("journal-*"))


def main() -> None:
    """Measure and print."""
    measure.heading("Memory, journal and start")
    with measure.scratch() as here:
        with measure.kv_server(here / "data", here / "kv.sock") as server:
            row("resident memory, empty", rss_mib(server.pid), "MiB")
            asyncio.run(_fill(here / "kv.sock", 0, 10_000))
            row("resident memory, 10,000 entries", rss_mib(server.pid), "MiB")
            written = _journal_bytes(here / "data") / 10_000
            row("journal per put, 100 writers", written, "B")
            start = time.perf_counter()
            asyncio.run(_fill(here / "kv.sock", 10_000, 100_000))
            row("durable sets, 100 writers", 90_000 / (time.perf_counter() - start), "/s")
            row("resident memory, 100,000 entries", rss_mib(server.pid), "MiB")
        start = time.perf_counter()
        with measure.kv_server(here / "data", here / "kv.sock") as server:
            row("start with 100,000 entries", time.perf_counter() - start, "s")
            row("resident memory after that start", rss_mib(server.pid), "MiB")


if __name__ == "__main__":
    main()
