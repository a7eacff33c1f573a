"""What the benchmarks share: processes to measure against, rates, latencies, memory, printing.

Every figure is the median of several runs and stands beside a limit or a peer that was measured in
the same run on the same transport: machines differ, ratios less so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgpack

ROOT = Path(__file__).resolve().parents[2]
KV = Path(sys.executable).with_name("kv")
RUNS = 5


def heading(title: str) -> None:
    """Print what is measured, and on what."""
    cpus = os.cpu_count()
    print(f"\n## {title}")
    print(f"({platform.machine()}, {cpus} cores, Python {platform.python_version()})")


def row(name: str, value: float, unit: str, *, ratio: str = "") -> None:
    """Print one figure."""
    shown = f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
    print(f"{name:44} {shown:>10} {unit:6} {ratio}".rstrip(), flush=True)


def ratio(value: float, limit: float, of: str) -> str:
    """Return a ratio in words."""
    return f"= {value / limit:.2f} x {of}"


def median_of(measure: Callable[[], float], runs: int = RUNS) -> float:
    """Return the median of several measurements, after one that warms up."""
    measure()
    return statistics.median(measure() for _ in range(runs))


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Yield a directory on the disk that holds the sources, not on one in memory."""
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT / "build") as name:
        yield Path(name)


@contextlib.contextmanager
def process(*words: str | Path, says: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program while the block runs, from when it prints a line that begins so, if any."""
    started = subprocess.Popen(
        [str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert started.stdout is not None
    try:
        for line in started.stdout if says else ():
            if line.startswith(says):
                break
        yield started
    finally:
        started.terminate()
        started.wait(10)
        started.stdout.close()


@contextlib.contextmanager
def kv_server(directory: Path | None, socket: Path) -> Iterator[subprocess.Popen[str]]:
    """Run `kv server`."""
    where = ["--dir", str(directory)] if directory else []
    with process(
        KV, "-C", "log.level='error'", "server", *where, "--listen", f"unix:{socket}", "bench",
        says="Running.",
    ) as started:  # fmt: skip
        yield started


@contextlib.contextmanager
def echo_server(socket: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the limit: an asyncio protocol that answers each msgpack map with a small one."""
    with process(sys.executable, Path(__file__).with_name("echo.py"), socket, says="Running.") as p:
        yield p


class RawClient(asyncio.Protocol):
    """The client that measures everything: no checks, one answer awaited at a time."""

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(use_list=False, strict_map_key=False)
        self._answer: asyncio.Future[dict[str, object]] | None = None
        self._seq = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._unpacker.feed(data)
        for message in self._unpacker:
            if self._answer is not None and message.get("seq") == self._seq:
                self._answer.set_result(message)

    def send(self, action: str, **fields: object) -> None:
        """Send a request."""
        assert self._transport is not None
        self._seq += 1
        self._transport.write(msgpack.packb({"seq": self._seq, "action": action, **fields}))

    async def ask(self, action: str, **fields: object) -> dict[str, object]:
        """Send a request and return its answer."""
        self._answer = asyncio.get_running_loop().create_future()
        self.send(action, **fields)
        answer = await self._answer
        assert "error" not in answer, answer
        return answer

    def close(self) -> None:
        """End the connection."""
        assert self._transport is not None
        self._transport.close()


async def connected(socket: Path) -> RawClient:
    """Return a client of a Unix socket."""
    loop = asyncio.get_running_loop()
    _, client = await loop.create_unix_connection(RawClient, str(socket))
    return client


Ask = Callable[[RawClient, int], Awaitable[object]]


def rate(socket: Path, ask: Ask, *, clients: int, requests: int) -> float:
    """Return requests per second of so many clients, each with one request under way."""

    async def run() -> float:
        links = [await connected(socket) for _ in range(clients)]

        async def work(client: RawClient) -> None:
            for number in range(requests // clients):
                await ask(client, number)

        start = time.perf_counter()
        await asyncio.gather(*map(work, links))
        took = time.perf_counter() - start
        for link in links:
            link.close()
        return requests / took

    return asyncio.run(run())


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    return int(kib) / 1024
