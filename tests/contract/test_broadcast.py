"""What the replication expects of a broadcast, asked of the one in memory and of mosquitto."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Protocol

import pytest

from kvedge import limits
from kvedge.errors import BadSetting, LimitExceeded
from kvedge.testing.mosquitto import Mosquitto, mosquitto
from kvedge.transport.broadcast import Backlog, Broadcast, Message, Participant, matches
from kvedge.transport.loopback import Loopback, LoopbackBroadcast
from kvedge.transport.mqtt import MqttBroadcast
from kvedge.transport.mqtt_settings import MqttSettings, MqttVersion

PATIENCE_S = 15.0  # for what takes a fraction of a second on an idle machine
POLL_S = 0.005
RECONNECT_MAX_S = 3.0  # of which one belongs to a busy machine
FILTERS = ("net/u/+", "net/d")
SEED = 20


class Recorder:
    """Implements `Handler`: keeps all that it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.numbers: list[int] = []
        self.reasons: list[str] = []
        self.order: list[str] = []
        self.then: Callable[[], None] = lambda: None

    @property
    def is_connected(self) -> bool:
        return self.order[-1:] == ["connected"]

    def connected(self, number: int) -> None:
        self.numbers.append(number)
        self.order.append("connected")

    def disconnected(self, reason: str) -> None:
        self.reasons.append(reason)
        self.order.append("disconnected")

    def received(self, topic: str, payload: bytes) -> None:
        assert self.is_connected
        self.heard.append((topic, payload))
        self.then()

    def payloads(self, topic: str) -> list[bytes]:
        return [payload for heard, payload in self.heard if heard == topic]


class World(Protocol):
    """A broker and those who use it."""

    async def join(
        self, name: str, filters: Iterable[str] = FILTERS, *, is_cuttable: bool = False
    ) -> tuple[Broadcast, Recorder]:
        """Return one who begins to connect; will and farewell go to net/d."""

    async def until(self, condition: Callable[[], bool]) -> float:
        """Return after how many seconds something held; fail where it does not come to hold."""

    def cut(self, broadcast: Broadcast) -> None:
        """Break a connection without a goodbye."""

    def kill_broker(self) -> None:
        """End it without a goodbye."""

    def start_broker(self) -> None:
        """Start it again."""


def participant(name: str, recorder: Recorder, filters: Iterable[str]) -> Participant:
    return Participant(
        recorder,
        tuple(filters),
        will=lambda number: Message("net/d", f"{name} died in {number}".encode()),
        farewell=lambda number: Message("net/d", f"{name} left in {number}".encode()),
    )


class LoopbackWorld:
    """In memory, in virtual time."""

    def __init__(self) -> None:
        self.net = Loopback(random.Random(SEED))

    async def join(
        self, name: str, filters: Iterable[str] = FILTERS, *, is_cuttable: bool = False
    ) -> tuple[Broadcast, Recorder]:
        recorder = Recorder()
        return self.net.join(name, participant(name, recorder, filters)), recorder

    async def until(self, condition: Callable[[], bool]) -> float:
        began_s = self.net.now_s
        while not condition():
            deadline_s = self.net.next_deadline()
            assert deadline_s is not None, "nothing will happen any more"
            assert deadline_s < began_s + PATIENCE_S
            self.net.advance(deadline_s)
        return self.net.now_s - began_s

    def cut(self, broadcast: Broadcast) -> None:
        assert isinstance(broadcast, LoopbackBroadcast)
        broadcast.cut()

    def kill_broker(self) -> None:
        self.net.stop_broker()

    def start_broker(self) -> None:
        self.net.start_broker()


class Relay:
    """Passes bytes on between one client and the broker, until it is cut."""

    def __init__(self, broker: Mosquitto) -> None:
        self._broker = broker
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def listen(self) -> int:
        self._server = await asyncio.start_server(self._serve, self._broker.host, 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection(self._broker.host, self._broker.port)
            self._writers.append(back)
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        writer.close()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


class MqttWorld:
    """A real broker; its clients end with the test."""

    def __init__(self, broker: Mosquitto, version: MqttVersion, qos: int) -> None:
        self._broker = broker
        self._version = version
        self._qos = qos
        self._relays: dict[Broadcast, Relay] = {}
        self._runs: list[tuple[Broadcast, asyncio.Task[None]]] = []

    async def join(
        self, name: str, filters: Iterable[str] = FILTERS, *, is_cuttable: bool = False
    ) -> tuple[Broadcast, Recorder]:
        recorder = Recorder()
        relay = Relay(self._broker)
        port = await relay.listen() if is_cuttable else self._broker.port
        settings = MqttSettings(self._broker.host, port, version=self._version, qos=self._qos)
        member = participant(name, recorder, filters)
        broadcast = MqttBroadcast(settings, member, random.Random(SEED))
        self._runs.append((broadcast, asyncio.create_task(broadcast.run())))
        if is_cuttable:
            self._relays[broadcast] = relay
        return broadcast, recorder

    async def until(self, condition: Callable[[], bool]) -> float:
        began_s = time.monotonic()
        while not condition():
            assert time.monotonic() < began_s + PATIENCE_S
            await asyncio.sleep(POLL_S)
        return time.monotonic() - began_s

    def cut(self, broadcast: Broadcast) -> None:
        self._relays[broadcast].cut()

    def kill_broker(self) -> None:
        self._broker.kill()

    def start_broker(self) -> None:
        self._broker.start()

    async def close(self) -> None:
        for broadcast, _ in self._runs:
            broadcast.close()
        for _, run in self._runs:
            await run
        for relay in self._relays.values():
            await relay.close()


@pytest.fixture(
    params=[
        "loopback",
        pytest.param((MqttVersion.V311, 1), marks=[pytest.mark.system, pytest.mark.slow]),
        pytest.param((MqttVersion.V311, 0), marks=[pytest.mark.system, pytest.mark.slow]),
        pytest.param((MqttVersion.V5, 1), marks=[pytest.mark.system, pytest.mark.slow]),
    ],
    ids=str,
)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """A broker of either kind, and nobody who uses it."""
    if request.param == "loopback":
        yield LoopbackWorld()
        return
    with mosquitto(tmp_path) as broker:
        mqtt_world = MqttWorld(broker, *request.param)
        yield mqtt_world
        await mqtt_world.close()


async def connected(
    world: World, name: str, filters: Iterable[str] = FILTERS, *, is_cuttable: bool = False
) -> tuple[Broadcast, Recorder]:
    broadcast, recorder = await world.join(name, filters, is_cuttable=is_cuttable)
    await world.until(lambda: recorder.is_connected)
    return broadcast, recorder


# --- delivery ----------------------------------------------------------------------------------


async def test_message_reaches_who_listens(world: World) -> None:
    a, _ = await connected(world, "a")
    _, heard_by_b = await connected(world, "b")
    _, heard_by_c = await connected(world, "c", ["net/p/#"])
    a.publish("net/u/a", b"\0one")
    a.publish("net/p/a", b"two")
    await world.until(lambda: bool(heard_by_b.heard and heard_by_c.heard))
    a.publish("net/d", b"end")
    await world.until(lambda: len(heard_by_b.heard) == 2)
    assert heard_by_b.heard == [("net/u/a", b"\0one"), ("net/d", b"end")]
    assert heard_by_c.heard == [("net/p/a", b"two")]


async def test_own_messages_come_back(world: World) -> None:
    a, heard = await connected(world, "a")
    a.publish("net/d", b"x")
    await world.until(lambda: heard.heard == [("net/d", b"x")])
    assert a.counts.published == a.counts.received == 1


async def test_who_only_listens_and_who_only_talks(world: World) -> None:
    a, heard_by_a = await connected(world, "a", [])
    _, heard_by_b = await connected(world, "b")
    a.publish("net/d", b"")
    await world.until(lambda: heard_by_b.heard == [("net/d", b"")])
    assert heard_by_a.heard == []


async def test_many_messages_arrive_in_order(world: World) -> None:
    a, _ = await connected(world, "a", [])
    _, heard = await connected(world, "b")
    sent = [b"%d" % number for number in range(limits.BROADCAST_WAITING_MAX)]
    for payload in sent:
        a.publish("net/u/a", payload)
    await world.until(lambda: len(heard.heard) == len(sent))
    assert heard.payloads("net/u/a") == sent
    assert a.counts.dropped == 0


async def test_largest_payload_arrives_unchanged(world: World) -> None:
    a, heard = await connected(world, "a")
    payload = random.Random(SEED).randbytes(limits.BROADCAST_MAX_BYTES)
    a.publish("net/d", payload)
    await world.until(lambda: bool(heard.heard))
    assert heard.heard == [("net/d", payload)]


async def test_larger_payload_is_refused(world: World) -> None:
    a, _ = await connected(world, "a")
    with pytest.raises(LimitExceeded, match=f"at most {limits.BROADCAST_MAX_BYTES} bytes"):
        a.publish("net/d", bytes(limits.BROADCAST_MAX_BYTES + 1))
    assert a.counts.published == 0


async def test_topic_that_is_none_is_refused(world: World) -> None:
    a, heard = await connected(world, "a", ["#"])
    for topic in ("", "/", "/a", "a/", "a//b", "a.b", "a b", "a/+", "#", "ä", "a\n"):
        with pytest.raises(BadSetting, match="a topic is"):
            a.publish(topic, b"")
    a.publish("a", b"")
    await world.until(lambda: heard.heard == [("a", b"")])


# --- connections -------------------------------------------------------------------------------


async def test_number_of_a_connection_rises(world: World) -> None:
    a, recorder = await connected(world, "a", is_cuttable=True)
    assert recorder.order == ["connected"]
    world.cut(a)
    took_s = await world.until(lambda: len(recorder.numbers) == 2)
    assert took_s < RECONNECT_MAX_S
    assert recorder.order == ["connected", "disconnected", "connected"]
    assert recorder.numbers[0] < recorder.numbers[1]
    assert recorder.reasons[0]


async def test_cut_connection_leaves_a_will_with_its_number(world: World) -> None:
    a, recorder = await connected(world, "a", is_cuttable=True)
    _, heard = await connected(world, "b")
    for times in (1, 2):
        world.cut(a)
        await world.until(lambda times=times: len(recorder.numbers) > times)  # type: ignore[misc]
        await world.until(lambda times=times: len(heard.heard) >= times)  # type: ignore[misc]
    first, second = recorder.numbers[:2]
    assert heard.payloads("net/d") == [b"a died in %d" % first, b"a died in %d" % second]


async def test_goodbye_sends_what_waits_and_the_farewell_but_no_will(world: World) -> None:
    a, recorder = await connected(world, "a")
    b, heard = await connected(world, "b")
    for number in range(100):
        a.publish("net/u/a", b"%d" % number)
    a.close()
    await world.until(lambda: bool(heard.payloads("net/d")))
    b.publish("net/d", b"end")
    await world.until(lambda: heard.heard[-1:] == [("net/d", b"end")])
    assert heard.payloads("net/u/a") == [b"%d" % number for number in range(100)]
    assert heard.payloads("net/d") == [b"a left in %d" % recorder.numbers[0], b"end"]
    assert recorder.order == ["connected"]


async def test_closed_one_hears_nothing_and_sends_nothing(world: World) -> None:
    a, heard_by_a = await connected(world, "a")
    b, heard_by_b = await connected(world, "b")
    a.close()
    before = list(heard_by_a.heard)
    b.publish("net/u/b", b"x")
    a.publish("net/u/a", b"x")
    await world.until(lambda: bool(heard_by_b.payloads("net/u/b")))
    assert heard_by_a.heard == before
    a.close()


async def test_who_leaves_while_being_told_hears_nothing_more(world: World) -> None:
    a, heard_by_a = await connected(world, "a")
    b, heard_by_b = await connected(world, "b", ["net/p/b"])
    heard_by_a.then = a.close
    for _ in range(50):
        b.publish("net/d", b"x")
    b.publish("net/p/b", b"end")
    await world.until(lambda: bool(heard_by_a.heard and heard_by_b.heard))
    assert heard_by_a.heard == [("net/d", b"x")]


async def test_clients_return_after_a_crash_of_the_broker(world: World) -> None:
    a, of_a = await connected(world, "a")
    _, of_b = await connected(world, "b")
    world.kill_broker()
    await world.until(lambda: not of_a.is_connected and not of_b.is_connected)
    a.publish("net/d", b"lost")
    assert a.counts.dropped == 1
    world.start_broker()
    took_s = await world.until(lambda: of_a.is_connected and of_b.is_connected)
    assert took_s < RECONNECT_MAX_S
    a.publish("net/d", b"found")
    await world.until(lambda: bool(of_b.heard))
    assert of_b.heard == [("net/d", b"found")], "neither a will nor what was said in between"


async def test_broker_that_is_not_there_yet_is_waited_for(world: World) -> None:
    world.kill_broker()
    a, recorder = await world.join("a")
    a.publish("net/d", b"lost")
    await world.until(lambda: bool(recorder.reasons))
    assert recorder.order == ["disconnected"]
    world.start_broker()
    assert await world.until(lambda: recorder.is_connected) < RECONNECT_MAX_S
    a.publish("net/d", b"found")
    await world.until(lambda: recorder.heard == [("net/d", b"found")])
    assert len(recorder.reasons) == 1, "the same reason is told once"
    assert recorder.numbers[0] > 1, "attempts count"


async def test_one_can_leave_while_there_is_no_broker(world: World) -> None:
    world.kill_broker()
    a, recorder = await world.join("a")
    await world.until(lambda: bool(recorder.reasons))
    a.close()
    world.start_broker()
    _, other = await connected(world, "b")
    assert recorder.numbers == []
    assert other.heard == []


# --- of both, without a broker -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/c", False),
        ("a/b", "a", False),
        ("a", "a/b", False),
        ("a/+", "a/b", True),
        ("a/+", "a/b/c", False),
        ("a/+", "a", False),
        ("+/b", "a/b", True),
        ("a/#", "a/b/c", True),
        ("a/#", "a", True),
        ("a/#", "b", False),
        ("#", "a/b", True),
    ],
)
def test_filter_names_topics(topic_filter: str, topic: str, *, expected: bool) -> None:
    assert matches(topic_filter, topic) is expected


@pytest.mark.parametrize("topic_filter", ["", "a/", "#/a", "a/#/b", "a+", "a/b#", "a.b", "a b"])
def test_filter_that_is_none_is_refused(topic_filter: str) -> None:
    with pytest.raises(BadSetting, match="a filter is"):
        Participant(Recorder(), (topic_filter,))


def test_too_long_topic_is_refused() -> None:
    Message("a" * limits.BROADCAST_TOPIC_MAX_CHARS, b"")
    with pytest.raises(LimitExceeded, match="at most 255 characters"):
        Message("a" * (limits.BROADCAST_TOPIC_MAX_CHARS + 1), b"")


def test_backlog_drops_the_oldest() -> None:
    backlog: Backlog[Message] = Backlog(count_max=3, size_max_bytes=10)
    messages = [Message("a", bytes([number]) * 2) for number in range(5)]
    for message in messages:
        backlog.put(message)
    assert (len(backlog), backlog.dropped) == (3, 2)
    large = Message("a", bytes(8))
    backlog.put(large)
    assert list(backlog.take_all()) == [messages[4], large]
    assert backlog.dropped == 4
    backlog.put(large)
    backlog.clear()
    assert (len(backlog), backlog.dropped) == (0, 5)
    backlog.put(Message("a", bytes(10)))
    assert len(backlog) == 1, "nothing else is counted any more"
