"""Servers that were apart become equal, whatever was lost, doubled, late, torn or cut off.

A failure names its seed; `python -m kvedge.testing.sim SEED` repeats it.
"""

from __future__ import annotations

import pytest

from kvedge.testing.sim import Cluster, Faults, run

SEEDS = 200
OPERATIONS = 1000
ROUGH = Faults(loss=0.3, twice=0.2, late=0.3, split=0.05, crash=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_a_cluster_converges(block: int) -> None:
    size = SEEDS // 10
    for seed in range(block * size, (block + 1) * size):
        run(seed, operations=OPERATIONS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_five_servers_on_a_rough_network_converge(seed: int) -> None:
    run(seed, operations=OPERATIONS, names=("a", "b", "c", "d", "e"), faults=ROUGH)


def test_a_seed_replays_exactly() -> None:
    one, other = Cluster(7), Cluster(7)
    for cluster in (one, other):
        cluster.operate(300)
        cluster.heal()
    assert one.sent_bytes == other.sent_bytes
    assert [node.held() for node in one.nodes] == [node.held() for node in other.nodes]


def test_equal_servers_are_nearly_silent() -> None:
    cluster = Cluster(1)
    cluster.operate(200)
    cluster.heal()
    before, start = cluster.sent_count, cluster.now
    cluster.heal(3600)
    per_node_s = (cluster.sent_count - before) / len(cluster.nodes) / (cluster.now - start)
    assert per_node_s < 0.1
