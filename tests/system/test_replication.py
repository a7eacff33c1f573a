"""Real servers share a tree through a real mosquitto, and become equal again after each trouble."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvedge.model.value import MISSING
from kvedge.testing.mosquitto import Mosquitto, mosquitto

pytestmark = pytest.mark.system

HEAL_S = 8.0
"""Five seconds after being connected again, and what a reconnect takes."""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker of the test's own."""
    with mosquitto(tmp_path / "broker") as running:
        yield running


@pytest.fixture
def peers(new_server: Callable[..., Any], broker: Mosquitto) -> list[Any]:
    """Three servers of one network."""
    made = [new_server(name, node=name) for name in ("one", "two", "three")]
    for server in made:
        server.start("--mqtt", broker.uri)
    return made


def held(server: Any) -> dict[str, object]:
    """Return all values of a server, by path, without system data."""
    with server.connect() as client:
        found = client.get_tree(":")
        return {str(i.path): i.value for i in found if not str(i.path).startswith(":.kv")}


def conflicts(server: Any) -> list[Any]:
    """Return the conflicts that a server knows of."""
    with server.connect() as client:
        return [item.value for item in client.get_tree(":.kv.conflict")]


def until(condition: Callable[[], bool], within_s: float = HEAL_S) -> bool:
    """Wait for real processes to come to something."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def are_equal(servers: list[Any], size: int) -> bool:
    trees = [held(server) for server in servers]
    return all(tree == trees[0] for tree in trees) and len(trees[0]) == size


def write(server: Any, path: str, value: object) -> None:
    with server.connect() as client:
        client.set(path, value)


def test_a_write_is_seen_everywhere(peers: list[Any]) -> None:
    write(peers[0], "a.b", {"x": 1})
    assert until(lambda: all(held(peer) == {"a.b": {"x": 1}} for peer in peers))
    with peers[1].connect() as client:
        client.delete("a.b")
    assert until(lambda: all(held(peer) == {} for peer in peers))


def test_writes_of_a_split_meet_when_the_broker_is_back(
    peers: list[Any], broker: Mosquitto
) -> None:
    write(peers[0], "before", 0)
    assert until(lambda: are_equal(peers, 1))
    broker.kill()
    for number, peer in enumerate(peers):
        write(peer, f"own.{peer.node}", number)
        write(peer, "same", peer.node)
    broker.start()
    assert until(lambda: are_equal(peers, 5))
    winner = held(peers[0])["same"]
    losers = {"one", "two", "three"} - {winner}
    assert until(lambda: all(len(conflicts(peer)) == 2 for peer in peers))
    assert {found["lost"]["value"] for found in conflicts(peers[0])} == losers
    assert all(found["kind"] == "concurrent" for found in conflicts(peers[0]))


def test_a_server_that_was_killed_gets_what_it_missed(peers: list[Any], broker: Mosquitto) -> None:
    write(peers[2], "kept", 1)
    assert until(lambda: are_equal(peers, 1))
    peers[2].kill()
    with peers[0].connect() as client:
        for number in range(3000):
            client.set(f"missed.x{number}", number, relaxed=True)
    peers[2].start("--mqtt", broker.uri)
    assert until(lambda: are_equal(peers, 3001))


def test_a_newcomer_gets_everything(
    new_server: Callable[..., Any], peers: list[Any], broker: Mosquitto
) -> None:
    for number, peer in enumerate(peers):
        write(peer, f"x{number}", number)
    newcomer = new_server("four", node="four").start("--mqtt", broker.uri)
    assert until(lambda: are_equal([*peers, newcomer], 3))


def test_a_server_starts_without_the_broker_and_joins_later(
    new_server: Callable[..., Any], broker: Mosquitto
) -> None:
    broker.kill()
    servers = [new_server(name, node=name).start("--mqtt", broker.uri) for name in ("a", "b")]
    write(servers[0], "alone", True)
    broker.start()
    assert until(lambda: are_equal(servers, 1))


def test_another_network_on_the_same_broker_stays_apart(
    new_server: Callable[..., Any], peers: list[Any], broker: Mosquitto
) -> None:
    other = new_server("other", node="one").start("--mqtt", broker.uri, "--net", "elsewhere")
    write(other, "theirs", 1)
    write(peers[0], "ours", 1)
    assert until(lambda: are_equal(peers, 1))
    assert held(other) == {"theirs": 1}


def test_another_key_is_refused(
    new_server: Callable[..., Any], peers: list[Any], broker: Mosquitto, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("secret of somebody else")
    stranger = new_server("stranger", node="stranger")
    stranger.start("--mqtt", broker.uri, environ={"KV_CONFIG": str(_with_key(tmp_path, key))})
    write(stranger, "theirs", 1)
    write(peers[0], "ours", 1)
    assert until(lambda: are_equal(peers, 1))
    assert held(stranger) == {"theirs": 1}
    assert until(lambda: "another network key" in peers[0].log())


def _with_key(directory: Path, key: Path) -> Path:
    file = directory / "with_key.toml"
    file.write_text(f'[net]\nkey_file = "{key}"\n')
    return file


def test_conditions_hold_on_what_came_from_elsewhere(peers: list[Any]) -> None:
    write(peers[0], "counter", 1)
    assert until(lambda: all(held(peer) == {"counter": 1} for peer in peers))
    with peers[1].connect() as client:
        seen = client.get("counter", nchain=2)
        assert seen.chain["node"] == "one"
        client.set("counter", 2, chain=seen.chain)
    assert until(lambda: all(held(peer) == {"counter": 2} for peer in peers))
    with peers[2].connect() as client:
        chain = client.get("counter", nchain=5).chain
    assert (chain["node"], chain["prev"]["node"]) == ("two", "one")
    assert held(peers[0]).get("absent", MISSING) is MISSING
