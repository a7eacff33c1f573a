"""The broadcast over MQTT beside a real mosquitto, and beside brokers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import aiomqtt
import anyio
import pytest

from kvedge import limits
from kvedge.errors import BadSetting, NotConnected
from kvedge.testing.mosquitto import Mosquitto, mosquitto
from kvedge.transport.broadcast import Message, Participant
from kvedge.transport.mqtt import MqttBroadcast
from kvedge.transport.mqtt_settings import MqttSettings, MqttVersion

pytestmark = [pytest.mark.system, pytest.mark.slow]

PATIENCE_S = 15.0
POLL_S = 0.005
PASSWORD = "a secret / that: nobody sees"  # noqa: S105 - it is one of a test


class Recorder:
    """Implements `Handler`: keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.story: list[str] = []

    def connected(self, number: int) -> None:
        self.story.append("connected")

    def disconnected(self, reason: str) -> None:
        self.story.append(reason)

    def received(self, topic: str, payload: bytes) -> None:
        self.heard.append((topic, payload))


async def until(condition: Callable[[], object]) -> float:
    """Return after how many seconds it held."""
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() < began_s + PATIENCE_S
        await asyncio.sleep(POLL_S)
    return time.monotonic() - began_s


def member(settings: MqttSettings, recorder: Recorder, topic: str = "t") -> MqttBroadcast:
    participant = Participant(
        recorder,
        (topic,),
        will=lambda _: Message(topic, b"died"),
        farewell=lambda _: Message(topic, b"left"),
    )
    return MqttBroadcast(settings, participant, random.Random(1))


@contextlib.asynccontextmanager
async def joined(settings: MqttSettings) -> AsyncIterator[tuple[MqttBroadcast, Recorder]]:
    """A member that leaves at the end of the block; no task and no socket stay behind."""
    recorder = Recorder()
    broadcast = member(settings, recorder)
    before = asyncio.all_tasks()
    run = asyncio.create_task(broadcast.run())
    try:
        yield broadcast, recorder
    finally:
        broadcast.close()
        await run
    await asyncio.sleep(2 * POLL_S)
    assert asyncio.all_tasks() <= before


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that anybody may use."""
    with mosquitto(tmp_path / "broker") as running:
        yield running


@pytest.fixture
def settings(broker: Mosquitto) -> MqttSettings:
    """How to reach it."""
    return MqttSettings.from_uri(broker.uri)


# --- who may connect ---------------------------------------------------------------------------


@pytest.fixture
def guarded_broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that joe may use."""
    with mosquitto(tmp_path / "broker", users={"joe": PASSWORD}) as running:
        yield running


@pytest.mark.parametrize("version", MqttVersion)
async def test_password_lets_in_and_is_not_logged(
    guarded_broker: Mosquitto, caplog: pytest.LogCaptureFixture, version: MqttVersion
) -> None:
    caplog.set_level(logging.DEBUG)
    uri = guarded_broker.uri.replace("//", "//joe@")
    right = replace(MqttSettings.from_uri(uri, version=version), password=PASSWORD)
    async with joined(right) as (_, recorder):
        await until(lambda: recorder.story == ["connected"])
    async with joined(replace(right, password="wrong")) as (_, recorder):  # noqa: S106 - so it is
        await until(lambda: recorder.story)
        assert recorder.story[0].lower().startswith("not authori")
    assert PASSWORD not in caplog.text
    assert "wrong" not in caplog.text


class Certificates:
    """An authority and what it signed, as files."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self.ca = self._file("ca.pem")
        self._openssl("req", "-x509", "-subj", "/CN=test", *self._new_key("ca"), "-out", self.ca)

    def _file(self, name: str) -> str:
        return str(self._directory / name)

    def _new_key(self, name: str) -> list[str]:
        curve = "ec_paramgen_curve:prime256v1"
        return ["-newkey", "ec", "-pkeyopt", curve, "-nodes", "-keyout", self._file(f"{name}.key")]

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True)

    def sign(self, name: str) -> tuple[str, str]:
        """Return the files of a certificate for a name and of its key."""
        request, certificate = self._file(f"{name}.csr"), self._file(f"{name}.pem")
        extra = self._directory / "extra"
        extra.write_text("subjectAltName=IP:127.0.0.1\n")
        self._openssl("req", "-subj", f"/CN={name}", *self._new_key(name), "-out", request)
        signer = ["-CA", self.ca, "-CAkey", self._file("ca.key"), "-CAcreateserial"]
        new = ["-in", request, "-out", certificate, "-extfile", str(extra)]
        self._openssl("x509", "-req", *new, *signer)
        return certificate, self._file(f"{name}.key")


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    """An authority that the broker and its clients trust."""
    return Certificates(tmp_path / "certificates")


def tls_lines(certificates: Certificates, *, wants_client: bool) -> list[str]:
    certificate, key = certificates.sign("broker")
    lines = [f"cafile {certificates.ca}", f"certfile {certificate}", f"keyfile {key}"]
    return [*lines, "require_certificate true"] if wants_client else lines


async def test_tls_with_a_client_certificate(tmp_path: Path, certificates: Certificates) -> None:
    certificate, key = certificates.sign("board1")
    lines = tls_lines(certificates, wants_client=True)
    with mosquitto(tmp_path / "broker", lines=lines) as broker:
        uri = broker.uri.replace("mqtt:", "mqtts:")
        known = MqttSettings.from_uri(
            uri, ca_file=certificates.ca, certificate_file=certificate, key_file=key
        )
        async with joined(known) as (broadcast, recorder):
            await until(lambda: recorder.story == ["connected"])
            payload = random.Random(1).randbytes(limits.BROADCAST_MAX_BYTES)
            broadcast.publish("t", payload)
            await until(lambda: recorder.heard == [("t", payload)])
        unknown = replace(known, certificate_file=None, key_file=None)
        async with joined(unknown) as (_, recorder):
            await until(lambda: recorder.story)
            assert "alert certificate required" in recorder.story[0]


async def test_broker_with_a_strange_certificate_is_refused(
    tmp_path: Path, certificates: Certificates
) -> None:
    other = Certificates(tmp_path / "other")
    lines = tls_lines(other, wants_client=False)
    with mosquitto(tmp_path / "broker", lines=lines) as broker:
        uri = broker.uri.replace("mqtt:", "mqtts:")
        async with joined(MqttSettings.from_uri(uri, ca_file=certificates.ca)) as (_, recorder):
            await until(lambda: recorder.story)
            assert "certificate verify failed" in recorder.story[0]


async def test_tls_and_plain_do_not_understand_each_other(
    tmp_path: Path, broker: Mosquitto, certificates: Certificates
) -> None:
    tls = MqttSettings(broker.host, broker.port, tls=True, ca_file=certificates.ca)
    async with joined(tls) as (_, recorder):
        await until(lambda: recorder.story)
        assert recorder.story[0] in ("the connection broke", "Connection reset by peer")
    with mosquitto(tmp_path / "tls", lines=tls_lines(certificates, wants_client=False)) as other:
        async with joined(MqttSettings.from_uri(other.uri)) as (_, recorder):
            await until(lambda: recorder.story)
            assert recorder.story[0] == "the broker does not answer"


async def test_unusable_certificate_is_told_with_its_file(certificates: Certificates) -> None:
    tls = MqttSettings("127.0.0.1", tls=True)
    for wrong in (
        replace(tls, ca_file="absent.pem"),
        replace(tls, certificate_file="absent.pem"),
        replace(tls, certificate_file=certificates.ca, key_file="absent.pem"),
    ):
        with pytest.raises(BadSetting, match="cannot be used as a certificate"):
            member(wrong, Recorder())


# --- what others send --------------------------------------------------------------------------


@pytest.mark.parametrize("version", MqttVersion)
async def test_unusable_messages_of_others_are_not_passed_on(
    settings: MqttSettings, version: MqttVersion
) -> None:
    async with (
        joined(replace(settings, version=version)) as (broadcast, recorder),
        aiomqtt.Client(settings.host, settings.port) as stranger,
    ):
        await until(lambda: recorder.story == ["connected"])
        await stranger.publish("t", bytes(limits.BROADCAST_MAX_BYTES + 1), qos=1)
        await stranger.publish("t", bytes(8 * limits.BROADCAST_MAX_BYTES), qos=1)
        await stranger.publish("t", b"good", qos=1, retain=True)
        await until(lambda: recorder.heard == [("t", b"good")])
        too_large = 2 if version is MqttVersion.V311 else 1  # the broker of 5 spares us the other
        assert broadcast.counts.unusable == too_large
        assert recorder.story == ["connected"]


async def test_strange_topic_is_not_passed_on(settings: MqttSettings) -> None:
    recorder = Recorder()
    broadcast = MqttBroadcast(settings, Participant(recorder, ("#",)), random.Random(1))
    async with asyncio.TaskGroup() as group:
        group.create_task(broadcast.run())
        await until(lambda: recorder.story == ["connected"])
        async with aiomqtt.Client(settings.host, settings.port) as stranger:
            await stranger.publish("a.b c", b"", qos=1)
            await stranger.publish("good", b"", qos=1)
        await until(lambda: recorder.heard == [("good", b"")])
        assert broadcast.counts.unusable == 1
        broadcast.close()


# --- too much, too slow ------------------------------------------------------------------------


async def test_overflow_drops_the_oldest_and_counts(
    settings: MqttSettings, caplog: pytest.LogCaptureFixture
) -> None:
    async with joined(settings) as (broadcast, recorder):
        await until(lambda: recorder.story == ["connected"])
        count = limits.BROADCAST_WAITING_MAX + 500
        for number in range(count):
            broadcast.publish("t", b"%d" % number)
        assert broadcast.counts.dropped == 500
        await until(lambda: len(recorder.heard) == limits.BROADCAST_WAITING_MAX)
        assert recorder.heard == [("t", b"%d" % number) for number in range(500, count)]
    assert "pending" not in caplog.text


async def test_silent_broker_is_given_up(broker: Mosquitto, settings: MqttSettings) -> None:
    impatient = replace(settings, keepalive_s=1)
    async with joined(impatient) as (_, recorder):
        await until(lambda: recorder.story == ["connected"])
        broker.freeze()
        assert await until(lambda: len(recorder.story) == 2) < 5
        broker.thaw()
        await until(lambda: recorder.story[-1] == "connected")


async def test_dead_socket_is_given_up_by_the_kernel(settings: MqttSettings) -> None:
    async with joined(settings) as (_, recorder):
        await until(lambda: recorder.story == ["connected"])
        found = [
            (ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
             ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            for ours in own_sockets_to(settings.port)
        ]  # fmt: skip
        assert found == [(8000, 1)]


def own_sockets_to(port: int) -> Iterator[socket.socket]:
    """Yield copies of this process's sockets that are connected to a port."""
    for name in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError), socket.socket(fileno=socket.dup(int(name.name))) as copy:
            if copy.family == socket.AF_INET and copy.getpeername()[1] == port:
                yield copy


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
CONNACK = b"\x20\x02\0\0"


@contextlib.asynccontextmanager
async def scripted_broker(answer: Answer) -> AsyncIterator[MqttSettings]:
    """A broker that answers as a test says; then it reads on and is silent."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await answer(reader, writer)
            while await reader.read(1 << 16):
                pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield MqttSettings("127.0.0.1", port, answer_timeout_s=0.5)
    finally:
        server.close()


async def read_packet(reader: asyncio.StreamReader) -> bytes:
    """Return a packet of less than 128 bytes, without its first two."""
    header = await reader.readexactly(2)
    return await reader.readexactly(header[1])


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take the connection, no more."""


async def refuse_subscription(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_packet(reader)
    writer.write(CONNACK)
    number = (await read_packet(reader))[:2]
    writer.write(b"\x90\x03" + number + b"\x80")


async def acknowledge_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_packet(reader)
    writer.write(CONNACK)
    number = (await read_packet(reader))[:2]
    writer.write(b"\x90\x03" + number + b"\x01")


async def talk_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize(
    ("answer", "story"),
    [
        (say_nothing, ["the broker does not answer"]),
        (refuse_subscription, ["the broker refuses the subscription to t"]),
        (acknowledge_nothing, ["connected", "the broker does not answer"]),
        (talk_nonsense, ["the broker does not answer"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_broker_that_misbehaves_is_told_apart(
    answer: Answer, story: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with scripted_broker(answer) as scripted, joined(scripted) as (broadcast, recorder):
        for _ in range(200):
            broadcast.publish("t", b"x")
            await asyncio.sleep(POLL_S)
        await until(lambda: recorder.story[: len(story)] == story)
    assert "never retrieved" not in caplog.text


# --- the life of a member ----------------------------------------------------------------------


async def test_each_change_is_one_line_in_the_log(
    broker: Mosquitto, settings: MqttSettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with joined(settings) as (_, recorder):
        await until(lambda: recorder.story == ["connected"])
        broker.kill()
        await until(lambda: len(recorder.story) == 3)  # broken, and then refused
        await asyncio.sleep(2)  # a second attempt, or a third, has failed as well
        broker.start()
        await until(lambda: recorder.story[-1] == "connected")
    lines = [record.message for record in caplog.records if record.name.startswith("kvedge")]
    assert len(lines) == len(recorder.story) == 4
    assert lines[0] == f"broker {settings.endpoint}: connected (connection 1)"
    assert lines[1] == f"broker {settings.endpoint}: no connection: {recorder.story[1]}"
    assert "Connection refused" in lines[2]
    others = [record for record in caplog.records if record.name.startswith(("mqtt", "paho"))]
    assert not others


async def test_cancelled_member_says_goodbye_first(settings: MqttSettings) -> None:
    async with joined(settings) as (_, recorder):
        await until(lambda: recorder.story == ["connected"])
        await cancel_by_asyncio(settings)
        assert len(list(own_sockets_to(settings.port))) == 1, "the watcher's"
        await until(lambda: recorder.heard == [("t", b"left")])
        await cancel_by_anyio(settings)
        assert len(list(own_sockets_to(settings.port))) == 1
        await until(lambda: recorder.heard == [("t", b"left")] * 2)


async def cancel_by_asyncio(settings: MqttSettings) -> None:
    recorder = Recorder()
    run = asyncio.create_task(member(settings, recorder).run())
    await until(lambda: recorder.story)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run


async def cancel_by_anyio(settings: MqttSettings) -> None:
    recorder = Recorder()
    async with anyio.create_task_group() as group:
        group.start_soon(member(settings, recorder).run)
        await until(lambda: recorder.story)
        group.cancel_scope.cancel()


async def test_one_can_leave_at_any_moment(settings: MqttSettings) -> None:
    for wait_s in (0.0, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032):
        async with joined(settings):
            await asyncio.sleep(wait_s)


async def test_one_can_leave_before_it_has_begun(settings: MqttSettings) -> None:
    recorder = Recorder()
    broadcast = member(settings, recorder)
    broadcast.close()
    await broadcast.run()
    assert recorder.story == []


async def test_host_that_does_not_answer_does_not_hold_up_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):  # the queue is full: no answer
            began_s = time.monotonic()
            async with joined(MqttSettings("127.0.0.1", port)):
                await asyncio.sleep(0.2)
            assert time.monotonic() - began_s < 1


async def test_leaving_a_frozen_broker_takes_two_seconds(
    broker: Mosquitto, settings: MqttSettings
) -> None:
    async with joined(settings) as (broadcast, recorder):
        await until(lambda: recorder.story == ["connected"])
        broker.freeze()
        for _ in range(limits.BROADCAST_WINDOW_MAX):  # more than the sockets take: all is stuck
            broadcast.publish("t", bytes(limits.BROADCAST_MAX_BYTES))
        await asyncio.sleep(10 * POLL_S)
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 3
    assert not list(own_sockets_to(settings.port))


async def test_defect_of_a_handler_ends_it(settings: MqttSettings) -> None:
    class Defective(Recorder):
        def received(self, topic: str, payload: bytes) -> None:
            raise ZeroDivisionError

    recorder = Defective()
    broadcast = member(settings, recorder)
    run = asyncio.create_task(broadcast.run())
    await until(lambda: recorder.story)
    broadcast.publish("t", b"")
    with pytest.raises(ExceptionGroup) as caught:
        await run
    assert caught.group_contains(ZeroDivisionError)


async def test_socket_that_is_closed_at_once_is_not_watched(settings: MqttSettings) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
    client = member(settings, Recorder())._new_client()
    ours, theirs = socket.socketpair()
    with theirs:
        client._on_socket_register_write(client._client, None, ours)
        ours.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert complaints == []


# --- a cluster ---------------------------------------------------------------------------------


async def test_nodes_of_a_cluster_are_tried_in_turn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with mosquitto(tmp_path / "a") as a, mosquitto(tmp_path / "b") as b:
        settings = MqttSettings.from_uri(f"{a.uri},{b.uri}")
        where = {a.uri: settings.endpoint, b.uri: settings.others[0].endpoint}
        async with joined(replace(settings, retry_min_s=0.0, retry_max_s=0.1)) as (us, recorder):
            await until(lambda: f"broker {where[a.uri]}: connected" in caplog.text)
            a.kill()
            await until(lambda: f"broker {where[b.uri]}: connected" in caplog.text)
            b.kill()
            await until(lambda: caplog.text.count("Connection refused") == 2)
            told_at = us._number
            await until(lambda: us._number > told_at + 6)  # of which nothing more is to be told
            assert caplog.text.count("no connection: Connection refused") == 2
            a.start()
            await until(lambda: caplog.text.count(f"broker {where[a.uri]}: connected") == 2)
            assert recorder.story[-1] == "connected"


# --- the page about it -------------------------------------------------------------------------

HOWTO = Path(__file__).resolve().parents[2] / "docs" / "howto" / "mqtt-broker.md"


def block(name: str) -> str:
    """Return a block of configuration from the page."""
    found = re.search(rf"<!-- test: broker {name} -->\n```\n(.*?)```", HOWTO.read_text(), re.DOTALL)
    assert found, name
    return found[1]


def lines_of_the_page(name: str, directory: Path) -> list[str]:
    """Return them for a broker here: other places, and the fixture's own listener and users."""
    ours = ("listener", "allow_anonymous", "password_file")
    lines = [line for line in block(name).splitlines() if not line.startswith(ours)]
    return [re.sub(r"/etc/mosquitto/(certs/)?", f"{directory}/", line) for line in lines]


async def test_access_list_of_the_page_lets_a_board_speak_for_itself(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text(block("acl"))
    lines = lines_of_the_page("users", tmp_path)
    with mosquitto(tmp_path / "broker", lines=lines, users={"board1": PASSWORD}) as broker:
        settings = replace(MqttSettings.from_uri(broker.uri), user="board1", password=PASSWORD)
        await see_what_a_board_may(settings)


async def test_certificates_of_the_page_name_the_board(
    tmp_path: Path, certificates: Certificates
) -> None:
    certificate, key = certificates.sign("board1")
    certificates.sign("broker")
    directory = Path(certificates.ca).parent
    (directory / "acl").write_text(block("acl"))
    lines = lines_of_the_page("certificates", directory)
    with mosquitto(tmp_path / "broker", lines=lines) as broker:
        uri = broker.uri.replace("mqtt:", "mqtts:")
        await see_what_a_board_may(
            MqttSettings.from_uri(
                uri, ca_file=certificates.ca, certificate_file=certificate, key_file=key
            )
        )


async def test_encryption_of_the_page_takes_passwords(
    tmp_path: Path, certificates: Certificates
) -> None:
    certificates.sign("broker")
    directory = Path(certificates.ca).parent
    (directory / "acl").write_text(block("acl"))
    lines = lines_of_the_page("tls", directory)
    with mosquitto(tmp_path / "broker", lines=lines, users={"board1": PASSWORD}) as broker:
        uri = broker.uri.replace("mqtt:", "mqtts:")
        settings = MqttSettings.from_uri(uri, ca_file=certificates.ca)
        await see_what_a_board_may(replace(settings, user="board1", password=PASSWORD))


async def see_what_a_board_may(settings: MqttSettings) -> None:
    """See that board1 may send what is its own, and nothing else."""
    recorder = Recorder()
    broadcast = MqttBroadcast(settings, Participant(recorder, ("kvedge/#",)), random.Random(1))
    run = asyncio.create_task(broadcast.run())
    await until(lambda: recorder.story == ["connected"])
    allowed = ["kvedge/u/board1", "kvedge/p/board1", "kvedge/q/board2", "kvedge/d"]
    for topic in ("kvedge/u/board2", "kvedge/p/board2", "kvedge", "kvedge/x", *allowed):
        broadcast.publish(topic, b"")
    await until(lambda: recorder.heard[-1:] == [("kvedge/d", b"")])
    assert [topic for topic, _ in recorder.heard] == allowed
    broadcast.close()
    await run


# --- the fixture itself ------------------------------------------------------------------------


def test_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(NotConnected, match="nonsense"),
        mosquitto(tmp_path, lines=["nonsense 1"]),
    ):
        pass


def test_taken_port_is_told(broker: Mosquitto, tmp_path: Path) -> None:
    with (
        pytest.raises(NotConnected, match="in use"),
        mosquitto(tmp_path / "second", port=broker.port),
    ):
        pass
