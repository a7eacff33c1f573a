"""Three NATS servers as the broker: boards at different nodes are one network, and one may die."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from kvedge.errors import NotConnected
from kvedge.testing.nats import NatsCluster, nats_cluster
from kvedge.transport.broadcast import Participant
from kvedge.transport.mqtt import MqttBroadcast
from kvedge.transport.mqtt_settings import MqttSettings

pytestmark = [pytest.mark.system, pytest.mark.slow]

NAMES = ("one", "two", "three")
PAUSE_S = 0.03  # each message goes through the stores of three nodes first
POLL_S = 0.02
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


# --- the page about it -------------------------------------------------------------------------


class Recorder:
    """Implements `Handler`: keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.is_connected = False

    def connected(self, number: int) -> None:
        self.is_connected = True

    def disconnected(self, reason: str) -> None:
        self.is_connected = False

    def received(self, topic: str, payload: bytes) -> None:
        self.heard.append(topic)


async def until(condition: Callable[[], bool]) -> None:
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() < began_s + RECONNECT_MAX_S
        await asyncio.sleep(POLL_S)


async def test_access_list_of_the_page_lets_a_board_speak_for_itself(
    tmp_path: Path, project_root: Path
) -> None:
    page = (project_root / "docs/howto/broker-cluster.md").read_text()
    found = re.search(r"<!-- test: cluster nats access -->\n```\n(.*?)```", page, re.DOTALL)
    assert found
    with nats_cluster(tmp_path, size=1, lines=found[1]) as running:
        uri = running.uri.replace("//", "//board1:PASSWORD1@")
        recorder = Recorder()
        filters = tuple(f"kvedge/{topic}" for topic in ("u/+", "p/+", "q/+", "d", "x"))
        participant = Participant(recorder, filters)
        settings = MqttSettings.from_uri(uri, qos=0)
        broadcast = MqttBroadcast(settings, participant, Random(1))
        run = asyncio.create_task(broadcast.run())
        await until(lambda: recorder.is_connected)
        allowed = ["kvedge/u/board1", "kvedge/p/board1", "kvedge/q/board2", "kvedge/d"]
        for topic in ("kvedge/u/board2", "kvedge/p/board2", "kvedge/x", *allowed):
            broadcast.publish(topic, b"")
        await until(lambda: recorder.heard[-1:] == ["kvedge/d"])
        assert recorder.heard == allowed
        broadcast.close()
        await run
