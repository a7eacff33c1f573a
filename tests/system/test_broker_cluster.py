"""Three NATS servers as the broker: boards at different nodes are one network, and one may die."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvedge.errors import NotConnected
from kvedge.testing.nats import NatsCluster, nats_cluster

pytestmark = [pytest.mark.system, pytest.mark.slow]

NAMES = ("one", "two", "three")
PAUSE_S = 0.03  # each message goes through the stores of three nodes first
RECONNECT_MAX_S = 30.0  # the cluster chooses new leaders first, which takes it some seconds


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    """Three nodes; they need seconds to agree upon themselves, so all tests use the same."""
    with nats_cluster(tmp_path_factory.mktemp("nats")) as running:
        yield running


@pytest.fixture
def fleet(new_fleet: Callable[..., Any], cluster: NatsCluster, tmp_path: Path) -> Any:
    """Three servers, each at another node of the cluster first, in a network of their own."""
    made = new_fleet(*NAMES)
    for number in range(len(NAMES)):
        start(made, cluster, number, tmp_path)
    made.wait_connected(within_s=RECONNECT_MAX_S)
    return made


def start(fleet: Any, cluster: NatsCluster, number: int, tmp_path: Path) -> None:
    uris = [node.uri for node in cluster.nodes]
    turned = uris[number:] + uris[:number]
    config = tmp_path / "without_acknowledgements.toml"
    config.write_text("[server]\nmqtt.qos = 0\n")
    net = tmp_path.name.replace("_", "-")
    fleet.servers[number].start(
        "--mqtt", ",".join(turned), "--net", net, environ={"KV_CONFIG": str(config)}
    )


def test_servers_at_different_nodes_share_a_tree(fleet: Any) -> None:
    fleet.write_on(pause_s=PAUSE_S)
    time.sleep(2.0)
    fleet.end_writing()
    fleet.check_equal()
    assert fleet.acknowledged() > 50
    for server, node in zip(fleet.servers, NAMES, strict=True):
        others = set(NAMES) - {node}
        assert all(f"node {other} is there" in server.log() for other in others)


def test_each_node_may_die(fleet: Any, cluster: NatsCluster) -> None:
    fleet.write_on(pause_s=PAUSE_S)
    for node in cluster.nodes:
        before = fleet.connections()
        ports = [server.broker_port() for server in fleet.servers]
        node.kill()
        # Its servers go to another node; those at the others may stay where they are.
        fleet.wait_connected(
            [count - (port != node.port) for count, port in zip(before, ports, strict=True)],
            within_s=RECONNECT_MAX_S,
        )
        assert node.port not in [server.broker_port() for server in fleet.servers]
        node.start()
        node.wait()
    fleet.end_writing()
    fleet.check_equal()
    assert fleet.acknowledged() > 200


def test_largest_value_passes(fleet: Any) -> None:
    value = bytes(200 * 1024)
    with fleet.servers[0].connect() as client:
        client.set("large", value)
    fleet.check_equal()
    assert fleet.servers[2].tree()["large"][0] == value


def test_cluster_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "n0").write_text("where a directory should be")
    with pytest.raises(NotConnected, match="nats-server says"), nats_cluster(tmp_path, size=1):
        pass
