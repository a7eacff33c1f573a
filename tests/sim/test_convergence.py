"""Servers that were apart become equal, whatever was lost, doubled, late, torn or cut off.

A failure names its seed and the command that repeats it.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kvedge.testing.sim import (
    CLOCKS,
    DARK,
    HARSH,
    PRESETS,
    ROUGH,
    Broken,
    Check,
    Cluster,
    Faults,
    command,
    faults_text,
    read_faults,
    run,
)
from kvedge.testing.sim.__main__ import main, names_of
from kvedge.testing.sim.oracle import Oracle

OPERATIONS = 1000
BLOCKS = 20


@pytest.mark.slow
@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_cluster_converges(block: int) -> None:
    for seed in range(block, 200, BLOCKS):
        run(seed, operations=OPERATIONS)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(6))
def test_a_cluster_of_bad_boards_converges(block: int) -> None:
    for seed in range(block, 60, 6):
        run(seed, operations=OPERATIONS, faults=HARSH)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(4))
@pytest.mark.parametrize(
    ("faults", "nodes", "keys"),
    [(ROUGH, 5, 30), (DARK, 3, 3000), (CLOCKS, 3, 30)],
    ids=["five on a rough network", "in the dark", "wrong clocks"],
)
def test_other_clusters_converge(faults: Faults, nodes: int, keys: int, block: int) -> None:
    for seed in range(block, 12, 4):
        run(seed, operations=OPERATIONS, names=names_of(nodes), faults=faults, keys=keys)


def _said(seed: int) -> str:
    found = Cluster(seed)
    found.operate(200)
    found.heal()
    held = [sorted(node.held().items()) for node in found.nodes]
    return repr((found.sent_bytes, found.passed, held))


def test_a_seed_replays_exactly() -> None:
    assert _said(7) == _said(7)


@pytest.mark.slow
def test_a_seed_replays_exactly_in_another_process() -> None:
    words = command(
        7, operations=300, names=names_of(4), faults=read_faults("harsh,loss=0.2"), keys=20
    ).split()[1:]
    told = set()
    for hashes in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hashes}
        told.add(subprocess.check_output([sys.executable, *words], env=environment))
    assert len(told) == 1
    assert b"4 nodes are equal" in told.pop()


def test_a_failure_says_how_to_repeat_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Oracle, *given: object) -> None:
        raise Broken(Check.TOCK, "planted")

    monkeypatch.setattr(Oracle, "check", fail)
    faults = read_faults("harsh,loss=0.25")
    with pytest.raises(Broken) as told:
        run(5, operations=10, names=names_of(2), faults=faults, keys=7)
    words = told.value.__notes__[0].partition("-m kvedge.testing.sim ")[2].split()
    assert words[0] == "5"
    with pytest.raises(Broken) as again:
        main(words)
    assert again.value.__notes__ == told.value.__notes__


@pytest.mark.parametrize("faults", [*PRESETS.values(), Faults(loss=0.5, crash=0.25)])
def test_faults_are_said_and_read_back(faults: Faults) -> None:
    assert read_faults(faults_text(faults)) == faults


@pytest.mark.parametrize("text", ["mild", "harsh,los=0.5", "harsh,loss", "harsh,loss=much"])
def test_wrong_faults_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"mild|los|''|much"):
        read_faults(text)


def test_a_soak_tells_what_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(self: Oracle, *given: object) -> None:
        raise Broken(Check.TOCK, "planted")

    monkeypatch.setattr(Oracle, "check", fail)
    assert main(["4", "--soak", "0.01", "--operations", "5"]) == 1
    told = capsys.readouterr().out
    assert "again by: python -m kvedge.testing.sim 4 --operations 5" in told


def test_a_soak_without_a_failure_is_good() -> None:
    assert main(["--soak", "0.01", "--operations", "5"]) == 0


def test_equal_servers_are_nearly_silent() -> None:
    cluster = Cluster(1)
    cluster.operate(200)
    cluster.heal()
    before, start = cluster.sent_count, cluster.now
    cluster.heal(600)
    per_node_s = (cluster.sent_count - before) / len(cluster.nodes) / (cluster.now - start)
    assert per_node_s < 1
