"""Subtrees with a home: their writes are made by one node, wherever they are asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvedge.errors import BadRequest, ChainMismatch, NotConnected
from kvedge.testing.mosquitto import Mosquitto, mosquitto

pytestmark = pytest.mark.system


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker of the test's own."""
    with mosquitto(tmp_path / "broker") as running:
        yield running


@pytest.fixture
def pair(new_server: Callable[..., Any], broker: Mosquitto) -> tuple[Any, Any]:
    """Two servers; the first one is the home of `door`, and both know it."""
    one, two = (new_server(name, node=name).start("--mqtt", broker.uri) for name in ("one", "two"))
    with one.connect() as client:
        client.set(":n.home.door", "one")
        client.set("door.lock", 0)
    assert until(lambda: read(two, ":n.home.door") == "one" and read(two, "door.lock") == 0)
    assert until(lambda: sees(two, "one"))
    return one, two


def sees(server: Any, node: str) -> bool:
    with server.connect() as client:
        rows = client.net_status()["servers"]
    return any(row["node"] == node and row["is_seen"] for row in rows)


def until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 20
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def read(server: Any, path: str) -> object:
    with server.connect() as client:
        found = client.get(path)
    return found.value if "value" in found else None


def test_a_write_elsewhere_is_made_at_home_and_read_at_once(pair: tuple[Any, Any]) -> None:
    one, two = pair
    with two.connect() as client:
        client.set("door.lock", 1)
        found = client.get("door.lock", nchain=3)
        assert found.value == 1
        assert (found.chain["node"], found.chain["prev"]) == ("one", None)
        client.set("elsewhere", 2)
        assert client.get("elsewhere", nchain=1).chain["node"] == "two"
    assert read(one, "door.lock") == 1


def test_compare_and_set_has_one_winner_in_the_network(pair: tuple[Any, Any]) -> None:
    won: list[int] = []

    def count(server: Any) -> None:
        with server.connect() as client:
            for _ in range(30):
                seen = client.get("door.lock", nchain=1)
                try:
                    client.set("door.lock", seen.value + 1, chain=seen.chain)
                except ChainMismatch:
                    continue
                won.append(seen.value)

    threads = [threading.Thread(target=count, args=(server,)) for server in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == len(set(won)) == read(pair[0], "door.lock")


def test_a_condition_that_fails_at_home_fails_here(pair: tuple[Any, Any]) -> None:
    with pair[1].connect() as client, pytest.raises(ChainMismatch):
        client.set("door.lock", 5, prev=7)


def test_while_the_home_is_away_writes_fail_and_reads_go_on(pair: tuple[Any, Any]) -> None:
    one, two = pair
    one.terminate()

    def fails() -> bool:
        with two.connect() as client:
            try:
                client.set("door.lock", 9)
            except NotConnected as error:
                return "the home of door.lock" in str(error)
            return False

    assert until(fails)
    with two.connect() as client:
        assert client.get("door.lock").value == 0
        client.set("elsewhere", 2)


def test_a_subtree_with_another_home_is_not_deleted_from_here(pair: tuple[Any, Any]) -> None:
    with pair[1].connect() as client, pytest.raises(BadRequest, match="written at one alone"):
        client.delete_tree("door")
    with pair[1].connect() as client:
        client.delete("door.lock")
    assert read(pair[0], "door.lock") is None
