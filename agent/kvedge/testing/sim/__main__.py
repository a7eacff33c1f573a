"""Repeat one seed, or run seeds for as long as asked.

    python -m kvedge.testing.sim SEED [--operations N] [--nodes N] [--keys N] [--faults FAULTS]
    python -m kvedge.testing.sim --soak SECONDS [SEED]

FAULTS is a preset and what differs from it: `harsh`, `rough,crash=0.1`.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import traceback
from collections.abc import Sequence

from kvedge.testing.sim.cluster import run
from kvedge.testing.sim.faults import PRESETS, faults_text, read_faults

NODES_MAX = 10
_TOLD_EVERY_S = 60.0

_MIX = (
    ("default", 3, 30),
    ("harsh", 3, 30),
    ("rough", 5, 30),
    ("dark", 3, 3000),
    ("clocks", 3, 30),
    ("harsh", 5, 10),
    ("default", 2, 5),
    ("rough,flip=0.002,image=0.003,expire=0.002,forget=0.002", 4, 100),
    ("clocks,image=0.003,full=0.01", 4, 30),
)
"""What a soak goes through: faults, nodes, keys."""


def names_of(count: int) -> tuple[str, ...]:
    """Return the names of so many nodes."""
    return tuple("abcdefghij"[:count])


def repeat(seed: int, operations: int, nodes: int, keys: int, faults: str) -> None:
    """Run one seed and tell how it went."""
    cluster = run(
        seed,
        operations=operations,
        names=names_of(nodes),
        faults=read_faults(faults),
        keys=keys,
    )
    sys.stdout.write(
        f"seed {seed}: {len(cluster.nodes)} nodes are equal after {cluster.now:.0f} s, "
        f"{cluster.sent_count} messages, {cluster.sent_bytes} bytes\n"
    )


def soak(seconds: float, first: int, operations: int) -> int:
    """Run seeds until the time is over; return how many failed."""
    begun = told = time.monotonic()
    seed, failed = first, 0
    while time.monotonic() < begun + seconds:
        faults, nodes, keys = _MIX[seed % len(_MIX)]
        try:
            run(
                seed,
                operations=operations,
                names=names_of(nodes),
                faults=read_faults(faults),
                keys=keys,
            )
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is told
            failed += 1
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{type(error).__name__} in {last.name}, line {last.lineno}"
            note = "\n  ".join(error.__notes__)
            sys.stdout.write(f"{where}: {error!s:.400}\n  {note}\n")
            sys.stdout.flush()
        seed += 1
        if time.monotonic() > told + _TOLD_EVERY_S:
            told = time.monotonic()
            sys.stdout.write(f"{told - begun:.0f} s, {seed - first} seeds, {failed} failed\n")
            sys.stdout.flush()
    sys.stdout.write(f"{seed - first} seeds from {first} on, {failed} failed\n")
    return failed


def main(words: Sequence[str]) -> int:
    """Do what the words say; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m kvedge.testing.sim", description=__doc__)
    parser.add_argument("seed", type=int, nargs="?", default=0)
    parser.add_argument("--operations", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=3, choices=range(1, NODES_MAX + 1))
    parser.add_argument("--keys", type=int, default=30)
    parser.add_argument("--faults", default=faults_text(PRESETS["default"]))
    parser.add_argument("--soak", type=float, metavar="SECONDS")
    given = parser.parse_args(words)
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # of what boards tell there is too much
    try:
        if given.soak is not None:
            return 1 if soak(given.soak, given.seed, given.operations) else 0
        repeat(given.seed, given.operations, given.nodes, given.keys, given.faults)
    finally:
        logging.disable(before)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
