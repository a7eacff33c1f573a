"""Boards on cables that delay, lose and are pulled out: each host in a network namespace."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kvedge.errors import NotConnected
from kvedge.testing import lan as lan_module
from kvedge.testing.lan import Host, Lan, lan
from kvedge.testing.mosquitto import mosquitto

pytestmark = [pytest.mark.system, pytest.mark.slow]

NAMES = ("one", "two", "three", "four")
WRITING_S = 5.0
SPLIT_S = 60.0
BLINK_S = 3.0
PAUSE_S = 0.02


@pytest.fixture
def net() -> Iterator[Lan]:
    """A network without hosts."""
    with lan(seed=20) as running:
        yield running


@dataclass
class Place:
    """Boards and their hosts, in the same order.

    Attributes:
        fleet: The servers, all of them connected.
        hosts: Where they run.
    """

    fleet: Any
    hosts: list[Host]


@pytest.fixture
def place(net: Lan, new_fleet: Callable[..., Any], tmp_path: Path) -> Iterator[Place]:
    """A broker and four servers, each on a host of its own."""
    at = net.host("broker")
    hosts = [net.host(name) for name in NAMES]
    fleet = new_fleet(*NAMES)
    broker = mosquitto(tmp_path / "broker", host=at.address, port=1883, prefix=at.prefix)
    with broker as running:
        for server, host in zip(fleet.servers, hosts, strict=True):
            server.start("--mqtt", running.uri, prefix=host.prefix)
        fleet.wait_connected()
        yield Place(fleet, hosts)


def test_slow_cables_that_lose(place: Place) -> None:
    for host in place.hosts:
        host.delay_s, host.jitter_s, host.loss = 0.04, 0.02, 0.02
    place.fleet.write_on(pause_s=PAUSE_S)
    time.sleep(WRITING_S)
    place.fleet.end_writing()
    place.fleet.wait_connected()
    place.fleet.check_equal()
    assert place.fleet.acknowledged() > 200


def test_split_of_a_minute_in_which_all_sides_write(place: Place) -> None:
    """Two boards are cut off, one comes and goes, one stays; all of them go on writing."""
    *cut, blinking, _ = place.hosts
    before = place.fleet.connections()
    place.fleet.write_on(pause_s=5 * PAUSE_S)
    for host in cut:
        host.is_cut = True
    end_s = time.monotonic() + SPLIT_S
    while time.monotonic() < end_s:
        time.sleep(BLINK_S)
        blinking.is_cut = not blinking.is_cut
    is_connected = [server.is_connected() for server in place.fleet.servers]
    assert (is_connected[:2], is_connected[3]) == ([False, False], True)
    for host in place.hosts:
        host.is_cut = False
    place.fleet.end_writing()
    stays = len(before) - 1
    place.fleet.wait_connected([count - (number > 1) for number, count in enumerate(before)])
    place.fleet.check_equal()
    assert place.fleet.connections()[stays] == before[stays]
    assert place.fleet.acknowledged() > 1000


def test_host_that_cannot_be_made_says_why(net: Lan, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = ["sh", "-c", "echo unshare: not permitted >&2; exit 1"]
    monkeypatch.setattr(lan_module, "_UNSHARE", refusing)
    with pytest.raises(NotConnected, match=r"no network namespace .*unshare: not permitted"):
        net.host("a")
