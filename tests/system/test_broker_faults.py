"""Servers and brokers die under load: trees become equal, and what was answered is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from kvedge.testing.mosquitto import Mosquitto, mosquitto

pytestmark = [pytest.mark.system, pytest.mark.slow]

BETWEEN_S = 1.0  # from one death to the next
MISSED = 10_000
CHUNK = 500  # fewer than the requests that a server lets be open


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker of the test's own."""
    with mosquitto(tmp_path / "broker") as running:
        yield running


@pytest.fixture
def fleet(new_fleet: Callable[..., Any], broker: Mosquitto) -> Any:
    """Four servers that run and are connected."""
    made = new_fleet("one", "two", "three", "four")
    for server in made.servers:
        server.start("--mqtt", broker.uri)
    made.wait_connected()
    return made


def test_broker_that_is_killed_again_and_again(fleet: Any, broker: Mosquitto) -> None:
    fleet.write_on()
    for _ in range(6):
        time.sleep(BETWEEN_S)
        before = fleet.connections()
        broker.kill()
        time.sleep(BETWEEN_S / 4)
        broker.start()
    fleet.wait_connected(before)
    fleet.end_writing()
    fleet.check_equal()
    assert fleet.acknowledged() > 1000


def test_writes_while_the_broker_is_gone_arrive_when_it_is_back(
    fleet: Any, broker: Mosquitto
) -> None:
    before = fleet.connections()
    broker.kill()
    fleet.write_on()
    time.sleep(3 * BETWEEN_S)
    fleet.end_writing()
    broker.start()
    fleet.wait_connected(before)
    fleet.check_equal()
    assert fleet.acknowledged() > 500


def test_servers_that_are_killed_in_turn(fleet: Any, broker: Mosquitto) -> None:
    fleet.write_on()
    for server in [*fleet.servers, *fleet.servers]:
        time.sleep(BETWEEN_S / 2)
        before = fleet.connections()
        server.kill()
        time.sleep(BETWEEN_S / 4)
        server.start("--mqtt", broker.uri)
    fleet.end_writing()
    last = fleet.servers.index(server)
    fleet.wait_connected([count - (place != last) for place, count in enumerate(before)])
    fleet.check_equal()
    assert fleet.acknowledged() > 1000


def test_server_that_was_away_for_ten_thousand_updates(fleet: Any, broker: Mosquitto) -> None:
    away = fleet.servers[-1]
    away.terminate()
    for server in fleet.servers[:2]:
        set_many(server, MISSED // 2)
    before = fleet.connections()
    away.start("--mqtt", broker.uri)
    fleet.wait_connected([*(count - 1 for count in before[:-1]), before[-1]])
    fleet.check_equal()
    assert len(away.tree()) == MISSED


def set_many(server: Any, count: int) -> None:
    """Write durably, many at once."""
    wire = server.wire()
    for begin in range(0, count, CHUNK):
        numbers = range(begin, begin + CHUNK)
        for number in numbers:
            path = ("missed", server.node, number)
            fields = {"path": path, "value": number, "nchain": 0}
            wire.send(msgpack.packb({"seq": number + 1, "action": "set_value", **fields}))
        answers = [wire.next() for _ in numbers]
        assert all(answer and "error" not in answer for answer in answers)
    wire.close()
