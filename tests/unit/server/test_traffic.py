"""The traffic as readers see it: what is told of each message, and what a slow reader is spared."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest

from kvedge import limits
from kvedge.model.path import P
from kvedge.model.stamp import Rid
from kvedge.model.value import MISSING, packb
from kvedge.protocol.envelope import Cause, Opened, Refused
from kvedge.protocol.membership import Record, State
from kvedge.protocol.summary import PATHS_MAX, RANGES_MAX, summary_of
from kvedge.server.network import Host, Network
from kvedge.server.records import Loaded
from kvedge.server.store import Store
from kvedge.server.traffic import Passed, Taps
from kvedge.testing.clock import VirtualClock

ME, PEER = Rid("me", 1 << 40), Rid("peer", 2 << 40)


def opened(kind: str, body: bytes = b"\xc0") -> Opened:
    return Opened(PEER, 0, 7, kind, body)


class Ear:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.passed: list[Passed] = []

    def take(self, passed: Passed) -> None:
        self.passed.append(passed)

    def told(self) -> list[tuple[Any, ...]]:
        """Return direction, topic, sender, kind and summary of each message."""
        fields = [each.fields() for each in self.passed]
        self.passed.clear()
        return [tuple(each[name] for name in ("direction", "topic", "sender", "kind")) for each in fields]  # fmt: skip # noqa: E501


class Cable:
    """A broadcast between two networks in one thread."""

    def __init__(self) -> None:
        self.ends: list[Side] = []
        self.sent: list[tuple[str, bytes]] = []

    def publish(self, topic: str, payload: bytes) -> None:
        self.sent.append((topic, payload))

    def carry(self) -> None:
        while self.sent:
            topic, payload = self.sent.pop(0)
            for end in self.ends:
                end.network.received(topic, payload)
                end.settle()


class CountLog:
    """Counts what is submitted."""

    def __init__(self) -> None:
        self.number = 0

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        self.number += 1
        return self.number


def host_of(due: list[Callable[[], None]]) -> Any:
    """Return what a network wants of its server; what is to be done soon is kept."""
    host = create_autospec(Host, instance=True)
    host.later.side_effect = due.append
    host.wall_ms.return_value = None
    host.is_awaited.return_value = False
    return host


class Side:
    """One server: store, network and an ear at it."""

    def __init__(self, rid: Rid, cable: Cable, *, key: bytes | None = None) -> None:
        self.log = CountLog()
        self.due: list[Callable[[], None]] = []
        self.store = Store(rid, 1000, Loaded(), self.log)
        self.network = Network(
            self.store,
            host_of(self.due),
            name="net",
            key=key,
            root="net",
            clock=VirtualClock(),
            random=Random(1),
            loaded=Loaded(),
        )
        self.network.members.records |= {n: Record(State.MEMBER) for n in ("me", "peer")}
        broadcast: Any = cable
        cable.ends.append(self)
        self.network.join(broadcast)
        self.network.connected(1)
        cable.sent.clear()  # what each says at first
        self.ear = Ear()
        self.network.taps.add(self.ear)

    def write(self, path: str, value: Any = 1) -> None:
        packed = MISSING if value is MISSING else packb(value)
        self.store.write(P(path).key, packed, wall_ms=None, relaxed=False, done=lambda _: None)
        self.settle()

    def settle(self) -> None:
        """Let the disk have everything, then do what is due."""
        number = self.log.number
        for pending in self.store.confirm(written_to=number, synced_to=number):
            self.network.settled(pending)
        while self.due:
            self.due.pop()()


@pytest.fixture
def cable() -> Cable:
    """What joins the servers of a test."""
    return Cable()


@pytest.fixture
def sides(cable: Cable) -> tuple[Side, Side]:
    """Two servers of one network."""
    return Side(ME, cable), Side(PEER, cable)


def test_both_sides_see_a_message_once(cable: Cable, sides: tuple[Side, Side]) -> None:
    me, peer = sides
    me.write("a.b")
    cable.carry()  # ours comes back to us, too
    assert me.ear.told() == [("out", "u/me", "me", "update")]
    assert peer.ear.told() == [("in", "u/me", "me", "update")]


def test_an_update_tells_records_paths_and_ticks(sides: tuple[Side, Side]) -> None:
    me, _ = sides
    for number in range(PATHS_MAX + 2):
        me.write(f"a.x{number}")
    told = [each.fields() for each in me.ear.passed]
    assert told[0] | {"size": 0} == {
        "time": told[0]["time"],
        "direction": "out",
        "topic": "u/me",
        "sender": "me",
        "kind": "update",
        "size": 0,
        "records": 1,
        "paths": ["a.x0"],
        "ticks": {"me": [[1001, 1001]]},
    }
    assert told[0]["size"] > 50


def test_a_pull_is_told_from_question_to_answer(cable: Cable, sides: tuple[Side, Side]) -> None:
    me, peer = sides
    for number in range(PATHS_MAX + 2):
        me.write(f"a.x{number}")
    cable.sent.clear()  # the hints are lost
    me.network.send(me.network._replication.digest())
    cable.carry()
    told = {each.content.kind: each.fields() for each in peer.ear.passed}  # type: ignore[union-attr]
    assert [kind for kind in told if kind != "want"][:3] == ["digest", "ask", "give"]
    assert len(told["digest"]["seen"]) == len(told["digest"]["holds"]) == 8
    assert told["ask"]["has_up_to"] == {}
    assert told["give"]["records"] == PATHS_MAX + 2
    assert told["give"]["paths"] == [f"a.x{number}" for number in range(PATHS_MAX)]
    assert told["give"]["ticks"] == {"me": [[1001, 1005]]}
    assert told["give"]["is_last"] is True


def test_what_is_refused_is_told_with_its_cause(cable: Cable) -> None:
    me, stranger = Side(ME, cable), Side(PEER, cable, key=b"of somebody else")
    stranger.write("a")
    cable.carry()
    (passed,) = me.ear.passed
    fields = passed.fields()
    assert fields["refused"] == Cause.BAD_MAC.value
    assert (fields["sender"], fields["kind"]) == (None, None)


def test_no_summary_of_what_is_not_known_or_broken() -> None:
    assert summary_of(opened("song")) == {}
    for kind in ("update", "digest", "ask", "give", "beat"):
        for body in (
            b"\xc0",
            b"\xc1",
            b"\x90",
            packb((1,) * 9),
            packb(("x", ((1,),), {}, None) * 2),
        ):
            assert set(summary_of(opened(kind, body))) <= {"unread", "connection"}
    assert "unread" in summary_of(opened("update", packb(((), ((b"\xff", 1, (0, 1)),)))))


def test_damaged_messages_have_a_summary_all_the_same(
    cable: Cable, sides: tuple[Side, Side]
) -> None:
    """Without a network key anybody may send anything; a summary must not end the server."""
    me, peer = sides
    peer.write("c", MISSING)
    for number in range(5):
        me.write(f"a.x{number}")
    cable.sent.clear()
    me.network.send(me.network._replication.digest())
    cable.carry()
    peer.network.tick()
    real = [each.content for side in sides for each in side.ear.passed]
    sent = [each for each in real if isinstance(each, Opened)]
    assert {each.kind for each in sent} >= {"update", "digest", "ask", "give", "beat"}
    dice = Random(7)
    for content in sent * 150:
        body = bytearray(content.body)
        for _ in range(dice.randint(1, 3)):
            body[dice.randrange(len(body))] = dice.randrange(256)
        cut = bytes(body[: dice.choice((len(body), dice.randrange(len(body))))])
        packb(summary_of(opened(content.kind, cut)))


def test_ticks_are_told_as_a_few_ranges() -> None:
    writers = (("n", 1, 10),)
    records = tuple((P("a").key, 1, (0, tick)) for tick in range(1, 4 * RANGES_MAX, 2))
    told = summary_of(opened("update", packb((writers, records))))
    assert told["records"] == 2 * RANGES_MAX
    assert told["ticks"] == {"n": [[10 + t, 10 + t] for t in range(1, 2 * RANGES_MAX, 2)]}


def test_without_listeners_nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    taps = Taps()
    monkeypatch.setattr("kvedge.server.traffic.Passed", None)  # to make one would fail
    taps.tell("in", "d", opened("digest"), size=1, time_s=0.0)
    taps.add(Ear())
    taps.tell("in", "d", Refused(Cause.OWN), size=1, time_s=0.0)
    with pytest.raises(TypeError):
        taps.tell("in", "d", opened("digest"), size=1, time_s=0.0)


# --- the stream ------------------------------------------------------------------------------


@pytest.fixture
def taps(server: Any) -> Taps:
    """The taps of a server that has a network."""
    server.network = SimpleNamespace(taps=Taps(), peer_vectors=dict, status=dict)
    taps: Taps = server.network.taps
    return taps


def say(taps: Taps, count: int = 1, *, body: bytes = packb((5,))) -> None:
    for number in range(count):
        taps.tell("in", f"p/n{number}", opened("beat", body), size=60, time_s=1.5)


def test_a_reader_gets_each_message_until_it_stops(client: Any, taps: Taps) -> None:
    client.send("traffic")
    say(taps)
    start, item = client.link.read()
    assert start == {"seq": 1, "state": "start"}
    assert item == {
        "seq": 1, "time": 1.5, "direction": "in", "topic": "p/n0", "sender": "peer",
        "kind": "beat", "size": 60, "connection": 5,
    }  # fmt: skip
    client.send("stop", task=1)
    assert client.link.read() == [{"seq": 1, "state": "end"}, {"seq": 2, "result": True}]
    assert len(taps) == 0
    say(taps)
    assert client.link.read() == []


def test_it_ends_with_the_connection(client: Any, taps: Taps) -> None:
    client.send("traffic")
    assert len(taps) == 1
    client.connection.closed()
    assert len(taps) == 0


def test_a_slow_reader_misses_messages_and_is_told_how_many(client: Any, taps: Taps) -> None:
    client.send("traffic")
    client.link.read()
    say(taps, 10_000)
    assert client.link.largest < limits.SEND_BUFFER_MAX_BYTES + 1000
    shown = len(client.link.read())
    client.connection.drained()
    assert client.link.read() == [{"seq": 1, "dropped": 10_000 - shown}]
    say(taps)
    assert [item.get("topic") for item in client.link.read()] == ["p/n0"]


def test_a_window_bounds_it_as_well(new_client: Any, taps: Taps) -> None:
    client = new_client()
    client.connection.received(packb({"seq": 0, "qlen": 4}))
    client.link.read()
    client.send("traffic")
    say(taps, 6)
    assert [item.get("wseq") for item in client.link.read()] == [None, 1, 2, 3, 4]
    client.connection.received(packb({"seq": 1, "state": "ack", "ack": 4}))
    assert client.link.read() == [{"seq": 1, "dropped": 2, "wseq": 5}]


def test_without_a_network_it_is_refused(client: Any) -> None:
    answer = client.ask("traffic")
    assert "this server works alone" in answer["error"]


def test_status_without_a_network(client: Any) -> None:
    client.ask("set_value", path=(".kv", "conflict", "me", 1), value=1)
    client.ask("set_value", path=(".kv", "conflict", "me", 2), value=1)
    client.ask("delete_value", path=(".kv", "conflict", "me", 2))
    told = client.ask("net_status")
    assert (told["name"], told["node"], told["conflicts"]) == (None, "me", 1)
    assert [server["node"] for server in told["servers"]] == ["me"]


def test_status_of_a_network(cable: Cable, sides: tuple[Side, Side]) -> None:
    me, peer = sides
    peer.network.tick()
    cable.carry()
    told = me.network.status()
    assert (told["name"], told["connected"], told["key"]) == ("net", True, False)
    assert [server["node"] for server in told["servers"]] == ["me", "peer"]
    assert all(server["is_seen"] for server in told["servers"])
    me.network.disconnected("it is away")
    told = me.network.status()
    assert (told["connected"], told["reason"]) == (False, "it is away")
