"""Whatever somebody sends over the broker: servers tell it, count it, and stay equal and alive."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from kvedge.limits import BROADCAST_MAX_BYTES
from kvedge.model.path import P
from kvedge.model.stamp import Rid
from kvedge.model.value import packb
from kvedge.protocol.envelope import VERSION_MAJOR, Sealer, mac_key
from kvedge.testing.mosquitto import Mosquitto, mosquitto

pytestmark = [pytest.mark.system, pytest.mark.slow]

HEAL_S = 10.0
NET = "kvedge"
KEY = b"a key that this network has"
MALLORY = Rid("mallory", 7 << 40)
RSS_GROWTH_MAX_KB = 64 * 1024
"""What waits in one direction is bounded by 4 MiB; the largest message below needs twice 8."""

Messages = list[tuple[str, bytes]]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker of the test's own; it passes on whatever it is given."""
    with mosquitto(
        tmp_path / "broker", lines=["log_type error", "log_type information"]
    ) as running:
        yield running


@pytest.fixture
def config(tmp_path: Path) -> dict[str, str]:
    """The environment of servers that have the key."""
    (tmp_path / "key").write_bytes(KEY)
    (tmp_path / "config").write_text(f'[net]\nkey_file = "{tmp_path / "key"}"\n')
    return {"KV_CONFIG": str(tmp_path / "config")}


class Peers:
    """Two servers, and somebody else at their broker."""

    def __init__(self, servers: list[Any], stranger: Any, broker: Mosquitto) -> None:
        self.servers = servers
        self.stranger = stranger
        self.broker = broker

    def say(self, messages: Messages) -> None:
        for topic, payload in messages:
            self.stranger.say(topic, payload)

    def heard(self, topic: str) -> bytes:
        """Return a real message on a topic."""
        assert until(lambda: any(at == topic for at, _ in self.stranger.heard)), topic
        heard: Messages = self.stranger.heard
        return next(payload for at, payload in reversed(heard) if at == topic)

    def stay_equal(self, *paths: str) -> None:
        """Let each write; see that both have that and the given, and nothing else."""
        number = time.monotonic_ns()
        for server in self.servers:
            write(server, f"alive.{server.node}", number)
        expected = {*paths, "alive.one", "alive.two"}

        def are_equal() -> bool:
            trees = [held(server) for server in self.servers]
            return trees[0] == trees[1] and [*trees[0].values()].count(number) == 2

        assert until(are_equal), [held(server) for server in self.servers]
        assert set(held(self.servers[0])) == expected

    def told(self, server: Any) -> list[str]:
        """Return what a server has told of messages, but for the times and its own name."""
        return [line for line in server.lines() if "a message" in line]

    def will_tell(self, server: Any) -> bool:
        """Wait until it has."""
        return until(lambda: bool(self.told(server)))


@pytest.fixture
def peers(
    new_server: Callable[..., Any],
    new_stranger: Callable[[Mosquitto], Any],
    broker: Mosquitto,
    config: dict[str, str],
) -> Peers:
    """Two servers that have exchanged something of each kind."""
    stranger = new_stranger(broker)
    servers = [new_server(name, node=name) for name in ("one", "two")]
    write_first = servers[0].start("--mqtt", broker.uri, environ=config)
    write(write_first, "first", 1)
    servers[1].start("--mqtt", broker.uri, environ=config)  # it has to pull
    made = Peers(servers, stranger, broker)
    made.stay_equal("first")
    wanted = {f"{NET}/{topic}" for topic in ("d", "u/one", "u/two", "p/one", "q/one", "q/two")}

    def has_heard_all() -> bool:
        made.stay_equal("first")  # by writes, which are told to those who are connected
        return wanted <= {topic for topic, _ in stranger.heard}

    assert until(has_heard_all)
    return made


def held(server: Any) -> dict[str, object]:
    """Return what users have stored."""
    with server.connect() as client:
        found = {str(item.path): item.value for item in client.get_tree(":")}
    return {path: value for path, value in found.items() if not path.startswith(":.kv")}


def faults(server: Any) -> list[str]:
    """Return what a server has stored of what is wrong with messages it got."""
    with server.connect() as client:
        found = [item.value for item in client.get_tree(f":.kv.error.{server.node}")]
    return [fault["message"] for fault in found if tuple(fault["path"])[-1] == "messages"]


def has_stored(server: Any, told: str) -> bool:
    return any(told in fault for fault in faults(server))


def write(server: Any, path: str, value: object) -> None:
    with server.connect() as client:
        client.set(path, value)


def until(condition: Callable[[], bool], within_s: float = HEAL_S) -> bool:
    """Wait for real processes to come to something."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


# --- one cause after the other ----------------------------------------------------------------

UPDATE = packb(
    ((("mallory", 7 << 40, 0),), ((P("evil").key, 1 << 60, (0, 1), packb("merged")),))
)  # what would be taken if it came in the right envelope


def sealed(topic: str, kind: str, body: bytes, *, name: str = NET, key: bytes = KEY) -> bytes:
    return Sealer(name, mac_key(name, key), MALLORY).seal(topic, kind, body)


def from_another_network(peers: Peers) -> Messages:
    return [(f"{NET}/u/mallory", sealed("u/mallory", "update", UPDATE, name="elsewhere"))] * 5


def with_another_key(peers: Peers) -> Messages:
    return [(f"{NET}/u/mallory", sealed("u/mallory", "update", UPDATE, key=b"x" * 20))] * 5


def of_another_major(peers: Peers) -> Messages:
    good = sealed("u/mallory", "update", UPDATE)
    return [(f"{NET}/u/mallory", good[:2] + bytes((VERSION_MAJOR + 1,)) + good[3:])] * 5


def altered(peers: Peers) -> Messages:
    good = sealed("u/mallory", "update", UPDATE)
    found = []
    for at in range(8 + 1 + len(NET), len(good)):
        found.append((f"{NET}/u/mallory", good[:at] + bytes((good[at] ^ 4,)) + good[at + 1 :]))
    return found


def truncated(peers: Peers) -> Messages:
    good = sealed("u/mallory", "update", UPDATE)
    return [(f"{NET}/u/mallory", good[:size]) for size in (*range(26), 50, len(good) - 1)]


def lengthened(peers: Peers) -> Messages:
    return [(f"{NET}/u/mallory", sealed("u/mallory", "update", UPDATE) + b"\0" * n) for n in (1, 9)]


def garbage(peers: Peers) -> Messages:
    random = Random(1)
    topics = ("u/one", "u/nobody", "d", "p/one", "p/nobody", "q/one", "q/two")
    sizes = (1, 7, 8, 30, 3000, BROADCAST_MAX_BYTES)
    return [(f"{NET}/{t}", b"\xff" + random.randbytes(n - 1)) for t in topics for n in sizes]


def moved_to_another_topic(peers: Peers) -> Messages:
    real = [peers.heard(f"{NET}/{topic}") for topic in ("u/one", "u/two", "d", "q/one", "q/two")]
    return [(f"{NET}/{topic}", payload) for payload in real for topic in ("u/x", "p/x")]


def repeated(peers: Peers) -> Messages:
    kinds = (f"{NET}/u/", f"{NET}/d", f"{NET}/q/")
    return [message for message in peers.stranger.heard if message[0].startswith(kinds)]


def nonsense(peers: Peers) -> Messages:
    """Return messages of somebody who has the key, and sends what nobody understands."""
    random = Random(2)
    sealer = Sealer(NET, mac_key(NET, KEY), MALLORY)
    empty: tuple[object, ...] = ()
    bodies = [
        b"", b"\xc1", random.randbytes(50), packb(None), packb(empty), packb({}),
        packb(("x",) * 7), packb((None,) * 7), packb((-1,) * 7), packb((empty,) * 7),
        b"\x91" * 5000, UPDATE[:-1], packb(((("a b", 1, 0),), empty)),
        packb(((("m", 1, 0),), ((b"\xc1", 1, (0, 1), b"\xc0"),))),
        packb(((("m", 1, 0),), ((P("evil").key, 1, (0, 0), b"\xc0"),))),
        packb(((("m", 1, 0),), ((P("evil").key, 1 << 63, (0, 1), b"\xc0"),))),
        packb(((("m", 1, 0),), ((P("evil").key, 1, (1, 1), b"\xc0"),))),
        packb(((("m", 1, 0),), ((P("evil").key, 1, (0, 1), b"\xc1"),))),
    ]  # fmt: skip
    topics = {"update": "u/mallory", "ask": "q/one", "give": "q/two", "beat": "p/mallory"}
    found = []
    for kind in ("update", "digest", "ask", "give", "beat", "gone", "bye", "novelty"):
        topic = topics.get(kind, "d")
        found += [(f"{NET}/{topic}", sealer.seal(topic, kind, body)) for body in bodies]
    return found


def too_large(peers: Peers) -> Messages:
    large = sealed("u/mallory", "update", UPDATE) + bytes(BROADCAST_MAX_BYTES)
    return [(f"{NET}/u/mallory", large), (f"{NET}/d", bytes(8 << 20))]


CAUSES = {
    "from another network: 'elsewhere'": from_another_network,
    "made with another network key: on topic 'u/mallory'": with_another_key,
    f"another major version: {VERSION_MAJOR + 1}, ours is {VERSION_MAJOR}": of_another_major,
    "altered, on another topic": altered,
    "truncated": truncated,
    "followed by further bytes": lengthened,
    "not a message of this program: begins with ff": garbage,
    "altered, on another topic, or": moved_to_another_topic,
    "repeated, or later than the window allows": repeated,
    "of mallory: wrong in its body": nonsense,
    "too large": too_large,
}


@pytest.mark.parametrize("told", CAUSES, ids=lambda told: CAUSES[told].__name__)
def test_bad_messages_are_told_once_and_harm_nobody(peers: Peers, told: str) -> None:
    for server in peers.servers:
        assert peers.told(server) == []
    peers.say(CAUSES[told](peers))
    for server in peers.servers:
        assert peers.will_tell(server), told
    peers.stay_equal("first")
    for server in peers.servers:
        [line] = peers.told(server)
        assert told in line
        if told != "too large":  # that is refused before anybody looks at it
            assert until(partial(has_stored, server, told)), faults(server)


# --- more of it -------------------------------------------------------------------------------


def test_what_was_recorded_harms_nobody_after_a_restart(
    peers: Peers, config: dict[str, str]
) -> None:
    with peers.servers[1].connect() as client:
        client.set("deleted", 1)
        client.set("first", 2)
        client.delete("deleted")
    peers.stay_equal("first")
    recorded = list(peers.stranger.heard)
    peers.servers[0].kill()
    peers.servers[0].start("--mqtt", peers.broker.uri, environ=config)
    peers.stay_equal("first")
    peers.say(recorded)
    peers.stay_equal("first")
    assert held(peers.servers[0])["first"] == held(peers.servers[1])["first"] == 2
    old = "of one: from an incarnation that was replaced"
    lines = [line for server in peers.servers for line in peers.told(server)]
    assert all("repeated" in line or old in line for line in lines), lines


def test_a_flood_takes_bounded_memory(peers: Peers) -> None:
    random = Random(3)
    before = [server.rss_kb() for server in peers.servers]
    good = sealed("u/mallory", "update", UPDATE)
    for number in range(3000):
        topic = random.choice(("d", "u/x", "p/x", "q/one", "q/two"))
        start = b"" if number % 2 else good[: random.randrange(len(good))]
        peers.stranger.tell(f"{NET}/{topic}", start + random.randbytes(random.randrange(500)))
    for _ in range(100):
        peers.stranger.tell(f"{NET}/d", good + bytes(BROADCAST_MAX_BYTES - len(good)))
    for _ in range(3):
        peers.say([(f"{NET}/d", bytes(8 << 20))])
    peers.stay_equal("first")
    for server, rss_kb in zip(peers.servers, before, strict=True):
        assert server.rss_kb() < rss_kb + RSS_GROWTH_MAX_KB
        assert len(peers.told(server)) < 10
