"""The broadcast over an MQTT broker, by aiomqtt: connected whenever the broker lets us.

The sessions are clean and nothing is retained: what a broker keeps for an absent client it loses
sooner or later (mosquitto keeps the first 1000 messages, and none when it is killed).  Messages go
out with QoS 1 not for its promise, but because the acknowledgements tell how fast the broker is;
where that costs too much (a NATS cluster agrees upon each message first) QoS 0 does as well.  They
come in with QoS 0: whoever sits above repairs a loss, and a broker that awaits a slow reader's
acknowledgement helps nobody.

What comes in is handed on at once, from paho's callback.  aiomqtt's own way, a queue and a task for
each message, takes as long as the broker does.

    probe - connect - subscribe - 20 senders and one receiver, until something breaks
      ^                                                             |
      +--- a pause with jitter, then the next broker, for ever <----+

Where the broker is a cluster its nodes are tried in turn; which of them we are at makes no
difference to anybody else.

The loop runs in a task of its own, which only `close` ends, and only where that is harmless: paho
connects in a thread that would go on alone, and leave a socket and a last will behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, cast

import aiomqtt
import anyio
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from kvedge import limits
from kvedge.errors import BadSetting
from kvedge.transport.broadcast import (
    Backlog,
    Counts,
    Message,
    Participant,
    Parting,
    SizedT,
    is_usable,
)
from kvedge.transport.mqtt_settings import MqttSettings, MqttVersion

if TYPE_CHECKING:
    from random import Random

log = logging.getLogger(__name__)

# The libraries tell of each packet, each broken socket and each full window; what matters of
# that is said here.
_library_log = log.getChild("library")
_library_log.setLevel(logging.CRITICAL)

_QOS_IN = 0
_HEADER_MAX_BYTES = 1024  # of a PUBLISH packet, beside its payload
_LEAVE_MAX_S = 1.0  # for the farewell, and as much for the goodbye
_SETTLE_S = 0.01  # the loop sees by then that a socket was shut down
_ALERT_MAX_S = 0.25  # way back from the broker; a later refusal shows as "does not answer"
_BROKEN = "the connection broke"
_NO_ANSWER = "the broker does not answer"
_REASONS = {
    "Operation timed out": _NO_ANSWER,
    "Disconnected during message iteration": "the broker said goodbye",
    "Unspecified error": _BROKEN,
}


class _Waiting(asyncio.Queue[SizedT]):
    """A queue that takes everything; what becomes too much is dropped as `Backlog` says."""

    def __init__(self) -> None:
        self.backlog: Backlog[SizedT] = Backlog()
        super().__init__()

    # These three are the queue's way to be given another container, as its own subclasses do.

    def _init(self, maxsize: int) -> None:
        self._queue = self.backlog

    def _put(self, item: SizedT) -> None:
        self.backlog.put(item)

    def _get(self) -> SizedT:
        return self.backlog.take()


class _Incoming(_Waiting[aiomqtt.Message]):
    """Hands messages on as they come, as soon as it is told to whom.

    What comes before that waits.

    Attributes:
        hand_on: To whom; None for not yet, or no more.
        failure: What they raised.  The message is put behind it, to wake who waits for messages.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hand_on: Callable[[aiomqtt.Message], None] | None = None
        self.failure: Exception | None = None

    def put_nowait(self, item: aiomqtt.Message) -> None:
        """Take a message; in the event loop."""
        if self.hand_on is None:
            super().put_nowait(item)
            return
        try:
            self.hand_on(item)
        except Exception as error:  # noqa: BLE001 -- raised in our own task; paho would lose it
            self.failure, self.hand_on = error, None
            super().put_nowait(item)


class _Client(aiomqtt.Client):
    """The library's client, but for a socket that is closed before the loop is to watch it.

    The library hands over the number of the socket, which then is none, or somebody else's.
    Writing sooner than it does was tried: within paho's own
    writing it loses messages, and before the socket is watched the last one may stay behind.
    """

    def _on_socket_register_write(self, client: PahoClient, userdata: Any, sock: Any) -> None:
        def write() -> None:
            try:
                client.loop_write()
            except Exception as error:  # noqa: BLE001 -- as the library does: it ends the connection
                if not self._disconnected.done():
                    self._disconnected.set_exception(error)

        def watch() -> None:
            if sock.fileno() >= 0:
                self._loop.add_writer(sock, write)

        self._loop.call_soon_threadsafe(watch)


class MqttBroadcast:
    """Implements `Broadcast`; made in an event loop, and connected while `run` runs.

    Args:
        settings: How to reach the broker, and the others of its cluster.
        participant: Who takes part.
        random: Draws the pauses between attempts.

    Raises:
        BadSetting: A certificate cannot be used.
    """

    def __init__(self, settings: MqttSettings, participant: Participant, random: Random) -> None:
        self._brokers = deque((s, _tls_context(s) if s.tls else None) for s in settings.all)
        self._settings, self._tls = self._brokers[0]
        self._participant = participant
        self._random = random
        self._open = anyio.CancelScope()
        self._number = 0
        self._is_connected = False
        self._reasons: dict[str, str] = {}  # why there is no connection, as told last, by endpoint
        self._counts = Counts()
        self._outgoing: _Waiting[Message] = _Waiting()
        self._incoming = _Incoming()
        self._has_told_unusable = False  # in this connection

    @property
    def counts(self) -> Counts:
        """What happened so far."""
        dropped = self._counts.dropped + self._outgoing.backlog.dropped
        return replace(self._counts, dropped=dropped, missed=self._incoming.backlog.dropped)

    def publish(self, topic: str, payload: bytes) -> None:
        """Send to all, as `Broadcast.publish` promises."""
        message = Message(topic, payload)
        self._counts.published += 1
        if self._is_connected:
            self._outgoing.put_nowait(message)
        else:
            self._counts.dropped += 1

    def close(self) -> None:
        """Leave; `run` returns when the broker has all, or after a second or two."""
        self._open.cancel()

    async def run(self) -> None:
        """Keep up a connection until `close`; to be called once.

        A cancel closes too, and is passed on after the goodbye.  What a handler raises ends it.
        """
        task = asyncio.create_task(self._stay_connected())
        try:
            await asyncio.shield(task)
        finally:
            self.close()
            with anyio.CancelScope(shield=True):
                await asyncio.wait({task})

    # --- one connection after the other --------------------------------------------------------

    async def _stay_connected(self) -> None:
        retry_s = (self._settings.retry_min_s, self._settings.retry_max_s)
        with self._open:
            while True:
                self._number += 1
                self._settings, self._tls = self._brokers[0]
                self._tell_reason(await self._connection())
                self._brokers.rotate(-1)
                await asyncio.sleep(self._random.uniform(*retry_s))

    def _tell_reason(self, reason: str) -> None:
        endpoint = self._settings.endpoint
        if reason != self._reasons.get(endpoint):
            log.warning("broker %s: no connection: %s", endpoint, reason)
            self._reasons[endpoint] = reason
            self._participant.handler.disconnected(reason)

    async def _connection(self) -> str:
        """Connect and stay so; return why it ended."""
        try:
            await self._probe()
            async with self._client() as client:
                await self._subscribe(client)
                return await self._work(client)
        except (aiomqtt.MqttError, OSError) as error:
            return _why(error)
        finally:
            self._is_connected = False
            self._has_told_unusable = False
            self._incoming.hand_on = None
            self._outgoing.backlog.clear()
            self._incoming.backlog.clear()

    async def _probe(self) -> None:
        """See that the broker answers, who it is, and that it accepts us.

        paho does that in a thread which cannot be called back from a silent host, leaves the
        socket open where the broker's certificate is wrong, and does not tell that ours is.
        """
        with anyio.move_on_after(self._settings.connect_timeout_s):
            try:
                await self._try_out()
            except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
                raise aiomqtt.MqttError(_BROKEN) from error.__cause__
            return
        raise aiomqtt.MqttError(_NO_ANSWER)

    async def _try_out(self) -> None:
        where = (self._settings.host, self._settings.port)
        if self._tls is None:
            await anyio.aclose_forcefully(await anyio.connect_tcp(*where))
            return
        stream = await anyio.connect_tcp(*where, ssl_context=self._tls)
        try:
            with anyio.move_on_after(_ALERT_MAX_S):
                await stream.receive(1)  # with TLS 1.3 a refusal comes after the handshake
        finally:
            await anyio.aclose_forcefully(stream)

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[aiomqtt.Client]:
        """Give a connected client; afterwards it has said goodbye or is cut off."""
        client = self._new_client()
        try:
            with anyio.CancelScope(shield=True):
                await client.__aenter__()
        except aiomqtt.MqttError:
            await _cut_off(client)
            raise
        client.timeout = self._settings.answer_timeout_s
        try:
            yield client
        finally:
            await self._leave(client)

    def _new_client(self) -> aiomqtt.Client:
        settings = self._settings
        is_v5 = settings.version is MqttVersion.V5
        return _Client(
            settings.host,
            settings.port,
            username=settings.user,
            password=settings.password,
            logger=_library_log,
            # It is only ever called; a class could not tell its queue to us.
            queue_type=cast("type[asyncio.Queue[aiomqtt.Message]]", lambda **_: self._incoming),
            protocol=aiomqtt.ProtocolVersion.V5 if is_v5 else aiomqtt.ProtocolVersion.V311,
            will=_will(self._participant.will, self._number, settings.qos),
            clean_session=None if is_v5 else True,
            timeout=settings.connect_timeout_s,
            keepalive=settings.keepalive_s,
            max_inflight_messages=limits.BROADCAST_WINDOW_MAX,
            properties=_size_limit() if is_v5 else None,
            tls_context=self._tls,
            socket_options=_socket_options(settings.answer_timeout_s),
        )

    async def _subscribe(self, client: aiomqtt.Client) -> None:
        filters = self._participant.filters
        if not filters:
            return
        answers = await client.subscribe([(wanted, _QOS_IN) for wanted in filters])
        for wanted, answer in zip(filters, answers, strict=True):
            if isinstance(answer, ReasonCode) and answer.is_failure:
                raise aiomqtt.MqttError(f"the broker refuses the subscription to {wanted}")

    async def _leave(self, client: aiomqtt.Client) -> None:
        if self._open.cancel_called:
            with anyio.move_on_after(_LEAVE_MAX_S, shield=True):
                await self._say_farewell(client)
        with anyio.move_on_after(_LEAVE_MAX_S, shield=True), contextlib.suppress(aiomqtt.MqttError):
            await client.__aexit__(None, None, None)
            return
        with contextlib.suppress(aiomqtt.MqttError):
            await _cut_off(client)

    async def _say_farewell(self, client: aiomqtt.Client) -> None:
        """Send what waits and the farewell, and wait until the broker has it."""
        farewell = self._participant.farewell
        last = list(self._outgoing.backlog.take_all())
        last += [farewell(self._number)] if farewell else []
        sent = [
            client.publish(message.topic, message.payload, self._settings.qos) for message in last
        ]
        await asyncio.gather(*sent, return_exceptions=True)
        if not self._settings.qos and self._participant.filters:
            # Its answer says that the broker has it all.  And nothing comes in behind it: a socket
            # that is closed with something unread takes back what was written last.
            with contextlib.suppress(aiomqtt.MqttError):
                await client.unsubscribe(list(self._participant.filters))

    # --- in a connection -----------------------------------------------------------------------

    async def _work(self, client: aiomqtt.Client) -> str:
        """Send and receive; return why that ended."""
        log.info("broker %s: connected (connection %d)", self._settings.endpoint, self._number)
        self._is_connected = True
        self._reasons.clear()
        reason = ""
        self._participant.handler.connected(self._number)
        try:
            async with anyio.create_task_group() as group:
                for _ in range(limits.BROADCAST_WINDOW_MAX):
                    group.start_soon(self._send, client)
                await self._receive(client)
        except* aiomqtt.MqttError as errors:
            reason = _why(errors.exceptions[0])
        return reason

    async def _send(self, client: aiomqtt.Client) -> NoReturn:
        """Publish one after the other; as many of these run as there are places in the window.

        Nothing waits between taking a message and handing it to paho, so the order is kept.
        """
        while True:
            message = await self._outgoing.get()
            await client.publish(message.topic, message.payload, self._settings.qos)

    async def _receive(self, client: aiomqtt.Client) -> None:
        for waiting in self._incoming.backlog.take_all():
            self._deliver(waiting)
        self._incoming.hand_on = self._deliver
        async for _ in client.messages:  # to the end of the connection, or a failure
            if self._incoming.failure is not None:
                raise self._incoming.failure

    def _deliver(self, message: aiomqtt.Message) -> None:
        topic = message.topic.value
        if self._open.cancel_called:
            return
        if not is_usable(topic, message.payload):
            self._counts.unusable += 1
            self._tell_unusable(message)
            return
        self._counts.received += 1
        self._participant.handler.received(topic, message.payload)

    def _tell_unusable(self, message: aiomqtt.Message) -> None:
        """Tell of a message that is passed over, once in a connection; all of them are counted."""
        if self._has_told_unusable:
            return
        self._has_told_unusable = True
        log.warning(
            "broker %s: passed over a message of %d bytes on topic %a: too large, or a bad topic",
            self._settings.endpoint,
            len(message.payload),
            message.topic.value[: limits.BROADCAST_TOPIC_MAX_CHARS],
        )


async def _cut_off(client: aiomqtt.Client) -> None:
    """End a connection that does not answer, which aiomqtt itself leaves open.

    Raises:
        MqttError: It was at its end already; the cause says why.
    """
    open_socket = client._client.socket()  # noqa: SLF001 - there is no public way to it
    if isinstance(open_socket, socket.socket):
        with contextlib.suppress(OSError):
            open_socket.shutdown(socket.SHUT_RDWR)  # paho sees the end and tidies up
    with anyio.move_on_after(_SETTLE_S, shield=True):
        async for _ in client.messages:
            pass


def _will(parting: Parting | None, number: int, qos: int) -> aiomqtt.Will | None:
    if parting is None:
        return None
    message = parting(number)
    return aiomqtt.Will(message.topic, message.payload, qos)


def _size_limit() -> Properties:
    """Return what makes a broker of MQTT 5 keep larger messages to itself."""
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call] # paho's gap
    properties.MaximumPacketSize = limits.BROADCAST_MAX_BYTES + _HEADER_MAX_BYTES
    return properties


def _socket_options(answer_timeout_s: float) -> list[tuple[int, int, int]]:
    return [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),  # a pause of 40 ms for each acknowledgement
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(answer_timeout_s * 1000)),
    ]


def _tls_context(settings: MqttSettings) -> ssl.SSLContext:
    name = settings.ca_file or settings.certificate_file or "TLS"
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.certificate_file:
            name = settings.certificate_file
            context.load_cert_chain(settings.certificate_file, settings.key_file)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise BadSetting(name, f"cannot be used as a certificate: {_why(error)}") from error
    return context


def _why(error: BaseException) -> str:
    """Return what an error of the libraries says, without its numbers."""
    cause = error.__cause__ or error
    if isinstance(cause, BaseExceptionGroup):  # of a host with several addresses
        cause = cause.exceptions[0]
    if isinstance(cause, ConnectionError) and cause.errno:
        return os.strerror(cause.errno)
    text = str(cause)
    text = text.partition("] ")[2] or text
    return _REASONS.get(text, text)
