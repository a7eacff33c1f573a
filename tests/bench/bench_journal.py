"""Measures the journal: puts per second, bytes per put, latency, loading; beside the disk's limit.

The limit is the same bytes in a plain write and fdatasync, in the same run and taking turns.
Medians of several runs; a shared disk varies a lot, so compare within one table only.
"""

from __future__ import annotations

import os
import platform
import queue
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from kvedge.clock import SystemClock
from kvedge.storage.commit import Committer
from kvedge.storage.commit_queue import Done
from kvedge.storage.disk import OsDisk
from kvedge.storage.journal import Journal, segment_name

RUNS = 5
PAYLOAD = bytes(range(65))  # a record of four path elements with a small map as its value
BATCHES = {1: 300, 16: 200, 100: 100, 1000: 30}  # puts per sync: syncs per run
LATENCIES = 500
LOADED = 100_000


def main() -> None:
    """Run all measurements below the current directory, which is on a disk more often than /tmp."""
    print(
        f"journal: {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    with tempfile.TemporaryDirectory(prefix="bench-", dir=Path.cwd()) as place:
        directories = (Path(place) / str(number) for number in range(1_000_000))
        measure_batches(directories)
        measure_latency(directories)
        measure_loading(directories)


def opened(directory: Path) -> Journal:
    """Return an empty journal in a new directory."""
    directory.mkdir()
    journal = Journal(OsDisk(directory), network="bench")
    journal.load()
    journal.begin(node="bench", incarnation=1, base=0)
    return journal


def bytes_written() -> int:
    """Return what this process has sent towards the disk, in bytes."""
    for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines():
        name, number = line.split(": ")
        if name == "write_bytes":
            return int(number)
    return 0


def timed(work: Callable[[], object]) -> tuple[float, int]:
    """Return how long something took, in seconds, and what it wrote, in bytes."""
    before, start = bytes_written(), time.perf_counter()
    work()
    return time.perf_counter() - start, bytes_written() - before


def measure_batches(directories: Iterator[Path]) -> None:
    """Print rates for several sizes of batches."""
    print(f"\n{'puts per sync':>13} {'puts/s':>10} {'limit/s':>10} {'ratio':>6} {'B/put':>7}")
    for batch, syncs in BATCHES.items():
        ours, limits, sizes = [], [], []
        for _ in range(RUNS):
            journal = opened(next(directories))
            took_s, written = timed(lambda: put(journal, batch, syncs))  # noqa: B023  # called at once
            ours.append(batch * syncs / took_s)
            sizes.append(written / (batch * syncs))
            journal.close()
            took_s, _ = timed(lambda: write_plainly(next(directories), batch, syncs))  # noqa: B023  # as above
            limits.append(batch * syncs / took_s)
        ratio = median(ours) / median(limits)
        print(
            f"{batch:>13} {median(ours):>10.0f} {median(limits):>10.0f} {ratio:>6.2f}"
            f" {median(sizes):>7.0f}"
        )


def put(journal: Journal, batch: int, syncs: int) -> None:
    """Append batches, each synced."""
    for _ in range(syncs):
        journal.append([(PAYLOAD, False)] * batch)
        journal.sync()


def write_plainly(path: Path, batch: int, syncs: int) -> None:
    """Write as many bytes without any work on them."""
    data = bytes(10 + len(PAYLOAD)) * batch
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for _ in range(syncs):
        os.write(descriptor, data)
        os.fdatasync(descriptor)
    os.close(descriptor)


def measure_latency(directories: Iterator[Path]) -> None:
    """Print what one writer waits for a durable put through the thread, beside the bare sync."""
    ours, bare = [], []
    journal = opened(next(directories))
    answers: queue.SimpleQueue[Done] = queue.SimpleQueue()
    descriptor = os.open(next(directories), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    with Committer(
        journal, SystemClock(), on_done=answers.put, on_snapshot=lambda _: None
    ) as committer:
        for _ in range(LATENCIES):
            start = time.perf_counter()
            committer.submit(PAYLOAD)
            answers.get()
            ours.append(time.perf_counter() - start)
            start = time.perf_counter()
            os.write(descriptor, PAYLOAD)
            os.fdatasync(descriptor)
            bare.append(time.perf_counter() - start)
    os.close(descriptor)
    print(
        f"\none durable put: {median(ours) * 1e6:.0f} us through the thread,"
        f" {median(bare) * 1e6:.0f} us for a bare write and sync (medians of {LATENCIES})"
    )


def measure_loading(directories: Iterator[Path]) -> None:
    """Print how long reading a journal and writing a snapshot take."""
    directory = next(directories)
    journal = opened(directory)
    put(journal, 1000, LOADED // 1000)
    number = journal.begin_snapshot()
    loads = []
    for _ in range(RUNS):
        took_s, _ = timed(lambda: Journal(OsDisk(directory), network="bench").load())
        loads.append(took_s)
    size = sum((directory / segment_name(n)).stat().st_size for n in range(1, number))
    snapshot_s, _ = timed(lambda: journal.write_snapshot(number, [PAYLOAD] * LOADED))
    print(
        f"{LOADED} payloads, {size / 1e6:.1f} MB: loaded in {median(loads):.3f} s,"
        f" written as a snapshot in {snapshot_s:.3f} s"
    )


if __name__ == "__main__":
    main()
