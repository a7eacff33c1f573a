"""A cluster in a heap: the production code of store, journal and network, from one seed.

Nothing here waits and nothing asks the time: network, disks, clocks and users are events in one
heap, drawn from one `Random`, so that a run can be repeated from its seed and thousands of
virtual seconds pass in one.  The broker loses, doubles, delays and reorders messages, splits
its clients one way or both, and is started again with nothing remembered; boards lose power
between any two operations of their disk, come back with a torn file, a flipped bit or an older
image, have full and read-only disks, and clocks that are wrong, step, or are not set.

After the run everything is healed, and the oracle of `Cluster.check` speaks.

    node.py      one board          cluster.py   broker, users, fate, and what was promised
    faults.py    what goes wrong    __main__.py  repeats a seed
"""

from kvedge.testing.sim.cluster import Cluster, run
from kvedge.testing.sim.faults import HARSH, Faults

__all__ = ["HARSH", "Cluster", "Faults", "run"]
