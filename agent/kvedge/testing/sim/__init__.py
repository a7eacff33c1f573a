"""A cluster in a heap: the production code of store, journal and network, from one seed.

Nothing here waits and nothing asks the time: network, disks, clocks and users are events in one
heap, drawn from one `Random`, so that a run can be repeated from its seed and thousands of
virtual seconds pass in one.  The broker loses, doubles, delays and reorders messages, splits
its clients one way or both, and is started again with nothing remembered; boards lose power
between any two operations of their disk, come back with a torn file, a flipped bit or an older
image, join late and leave, have full and read-only disks, and clocks that are wrong, drift, step,
or start in 1970; watchers are slow.

After the run everything is healed.  All the while, and then, the oracle speaks where a promise is
broken.

    node.py      one board              users.py     who asks, and who watches
    cluster.py   broker and fate        faults.py    what goes wrong
    oracle.py    what was promised      stories.py   what chance does not bring about
    __main__.py  repeats a seed, or runs seeds for as long as asked
"""

from kvedge.testing.sim.cluster import NAMES, PACE, Cluster, command, run
from kvedge.testing.sim.faults import (
    CLOCKS,
    DARK,
    HARSH,
    PRESETS,
    QUIET,
    ROUGH,
    Faults,
    faults_text,
    read_faults,
)
from kvedge.testing.sim.oracle import Broken, Check

__all__ = [
    "CLOCKS",
    "DARK",
    "HARSH",
    "NAMES",
    "PACE",
    "PRESETS",
    "QUIET",
    "ROUGH",
    "Broken",
    "Check",
    "Cluster",
    "Faults",
    "command",
    "faults_text",
    "read_faults",
    "run",
]
