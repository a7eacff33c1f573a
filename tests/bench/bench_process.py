"""`kv data PATH get` as a whole process, beside a bare interpreter of the same run."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import measure
from measure import ratio, row

ROUNDS = 40


def _ms(words: Sequence[str | Path], socket: Path) -> float:
    start = time.perf_counter()
    subprocess.run(
        [str(word) for word in words],
        env={"PATH": os.environ["PATH"], "KV_SOCKET": str(socket)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return (time.perf_counter() - start) * 1000


def main() -> None:
    """Measure and print; the two take turns, so that noise hits both."""
    measure.heading("`kv data PATH get` as a process")
    with measure.scratch() as here, measure.kv_server(None, here / "kv.sock"):
        _ms([measure.KV, "data", "a.b", "set", "-e", ":", "1"], here / "kv.sock")
        get: list[str | Path] = [measure.KV, "data", "a.b", "get"]
        bare: list[str | Path] = [sys.executable, "-c", "pass"]
        rounds = [(_ms(get, here / "kv.sock"), _ms(bare, here / "kv.sock")) for _ in range(ROUNDS)]
        ours, python = (statistics.median(column) for column in zip(*rounds, strict=True))
        row("a bare interpreter", python, "ms")
        row("kv data a.b get", ours, "ms", ratio=ratio(ours, python, "bare interpreter"))


if __name__ == "__main__":
    main()
