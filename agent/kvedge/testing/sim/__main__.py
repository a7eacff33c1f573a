"""Repeat one seed: `python -m kvedge.testing.sim SEED [OPERATIONS [NODES [harsh]]]`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from kvedge.testing.sim.cluster import run
from kvedge.testing.sim.faults import HARSH


def main(words: Sequence[str]) -> None:
    """Run one seed and tell how it went."""
    logging.disable(logging.CRITICAL)
    seed = int(words[0])
    operations = int(words[1]) if len(words) > 1 else 1000
    names = tuple("abcdefghij"[: int(words[2]) if len(words) > 2 else 3])
    faults = HARSH if "harsh" in words else None
    cluster = run(seed, operations=operations, names=names, faults=faults)
    sys.stdout.write(
        f"seed {seed}: {len(cluster.nodes)} nodes are equal after {cluster.now:.0f} s, "
        f"{cluster.sent_count} messages, {cluster.sent_bytes} bytes\n"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
