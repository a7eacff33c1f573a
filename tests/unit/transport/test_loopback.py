"""The faults of the broadcast in memory: each happens when asked for, and a seed repeats it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from kvedge.transport.broadcast import Message, Participant
from kvedge.transport.loopback import Faults, Loopback, LoopbackBroadcast

COUNT = 1000


class Recorder:
    """Implements `Handler`: keeps what it hears, with its time."""

    def __init__(self, net: Loopback) -> None:
        self.net = net
        self.story: list[tuple[float, str, str]] = []

    def connected(self, number: int) -> None:
        self.story.append((self.net.now_s, "connected", str(number)))

    def disconnected(self, reason: str) -> None:
        self.story.append((self.net.now_s, "disconnected", reason))

    def received(self, topic: str, payload: bytes) -> None:
        self.story.append((self.net.now_s, topic, payload.decode()))

    def heard(self) -> list[str]:
        return [text for _, what, text in self.story if what not in ("connected", "disconnected")]

    def states(self) -> list[str]:
        return [what for _, what, _ in self.story if what in ("connected", "disconnected")]


def join(net: Loopback, name: str) -> tuple[LoopbackBroadcast, Recorder]:
    recorder = Recorder(net)
    will = lambda number: Message("will", f"{name} {number}".encode())  # noqa: E731 - two lines less
    client = net.join(name, Participant(recorder, ("#",), will=will))
    net.advance(net.now_s + 0.01)
    return client, recorder


def told(faults: Faults, seed: int = 1) -> list[str]:
    """Return what one hears of COUNT messages of another, and after how long each arrives."""
    net = Loopback(random.Random(seed))
    a, _ = join(net, "a")
    _, recorder = join(net, "b")
    net.faults = faults
    for number in range(COUNT):
        a.publish("t", str(number).encode())
        net.advance(net.now_s + 0.001)
    net.advance(net.now_s + 10)
    return recorder.heard()


ALL = [str(number) for number in range(COUNT)]
QUIET = Faults()


def test_without_faults_all_arrive_once_in_order() -> None:
    assert told(QUIET) == ALL
    assert told(replace(QUIET, delay_max_s=0.5)) == ALL


def test_lost_messages_are_lost_and_the_others_are_not() -> None:
    heard = told(replace(QUIET, loss=0.3))
    assert 0.6 * COUNT < len(heard) < 0.8 * COUNT
    assert heard == [number for number in ALL if number in set(heard)]


def test_duplicates_come_twice() -> None:
    heard = told(replace(QUIET, duplication=0.3))
    assert 1.2 * COUNT < len(heard) < 1.4 * COUNT
    assert sorted(set(heard), key=int) == ALL


def test_reordered_messages_come_later() -> None:
    heard = told(replace(QUIET, reordering=0.1))
    assert heard != ALL
    assert sorted(heard, key=int) == ALL


def test_overflowing_queue_loses_the_newest() -> None:
    net = Loopback(random.Random(1), replace(QUIET, queue_max=10))
    a, _ = join(net, "a")
    b, recorder = join(net, "b")
    for number in range(15):
        a.publish("t", str(number).encode())
    net.advance(net.now_s + 1)
    assert recorder.heard() == ALL[:10]
    assert b.counts.missed == 5
    a.publish("t", b"later")
    net.advance(net.now_s + 1)
    assert recorder.heard()[-1] == "later"


def test_partition_has_a_direction() -> None:
    net = Loopback(random.Random(1))
    (a, of_a), (b, of_b) = join(net, "a"), join(net, "b")
    net.block("a", "b")
    a.publish("t", b"from a")
    b.publish("t", b"from b")
    net.advance(net.now_s + 1)
    assert sorted(of_a.heard()) == ["from a", "from b"]
    assert of_b.heard() == ["from b"]
    assert of_b.states() == ["connected"], "neither is told"
    net.unblock("a", "b")
    a.publish("t", b"again")
    net.advance(net.now_s + 1)
    assert of_b.heard()[-1] == "again"


def test_restarted_broker_has_lost_what_was_under_way() -> None:
    net = Loopback(random.Random(1))
    (a, _), (_, of_b) = join(net, "a"), join(net, "b")
    net.faults = replace(QUIET, delay_min_s=10, delay_max_s=10)
    a.publish("t", b"lost")
    net.faults = QUIET
    net.stop_broker()
    net.start_broker()
    net.advance(net.now_s + 5)
    assert of_b.states() == ["connected", "disconnected", "connected"]
    a.publish("t", b"found")
    net.advance(net.now_s + 1)
    assert of_b.heard() == ["found"], "at once: nothing of the old connection is waited for"
    net.advance(net.now_s + 10)
    assert of_b.heard() == ["found"]


def test_will_of_a_silent_death_comes_late() -> None:
    net = Loopback(random.Random(1))
    (a, of_a), (_, of_b) = join(net, "a"), join(net, "b")
    a.kill(will_after_s=7.5)
    net.advance(net.now_s + 7.4)
    assert of_b.heard() == []
    net.advance(net.now_s + 0.2)
    assert of_b.heard() == ["a 1"]
    assert of_a.states() == ["connected"], "the dead hear nothing"


def test_cut_client_stays_away_as_long_as_told() -> None:
    net = Loopback(random.Random(1))
    a, of_a = join(net, "a")
    a.cut(away_s=20)
    cut_s = net.now_s
    net.advance(cut_s + 60)
    assert of_a.states() == ["connected", "disconnected", "connected"]
    returned_s = [at_s for at_s, what, _ in of_a.story if what == "connected"][-1]
    assert returned_s == pytest.approx(cut_s + 20)


def test_two_may_have_the_same_name() -> None:
    net = Loopback(random.Random(1))
    (a, _), (_, of_twin) = join(net, "a"), join(net, "a")
    a.publish("t", b"x")
    a.close()
    net.advance(net.now_s + 1)
    assert of_twin.heard() == ["x"]


def story(seed: int) -> list[tuple[float, str, str]]:
    """Return what one hears while all faults are at work."""
    faults = Faults(loss=0.1, duplication=0.1, reordering=0.1, delay_max_s=0.1)
    net = Loopback(random.Random(seed), faults)
    clients = [join(net, name) for name in "abc"]
    for number in range(100):
        clients[number % 3][0].publish("t", str(number).encode())
        if number % 30 == 29:
            clients[number % 3][0].cut()
        net.advance(net.now_s + 0.05)
    return [event for _, recorder in clients for event in recorder.story]


def test_seed_repeats_a_run() -> None:
    assert story(1) == story(1)
    assert story(1) != story(2)


def test_time_stands_still_only_when_nothing_is_left() -> None:
    net = Loopback(random.Random(1))
    a, of_a = join(net, "a")
    assert net.next_deadline() is None
    a.publish("t", b"x")
    deadline_s = net.next_deadline()
    assert deadline_s is not None
    assert deadline_s > net.now_s
    net.advance(deadline_s)
    assert of_a.heard() == ["x"]
