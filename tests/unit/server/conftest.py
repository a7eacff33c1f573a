"""A server and a client without sockets: the test says what is durable and what has been read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from kvedge import limits
from kvedge.errors import LocalProtocolError, WriteRefused
from kvedge.model.stamp import Rid
from kvedge.model.value import packb
from kvedge.protocol.framing import Framer
from kvedge.server.connections import Connection
from kvedge.server.records import Loaded
from kvedge.server.store import Store
from kvedge.server.streams import Watchers


class HandLog:
    """Counts; the server below says when things are durable."""

    def __init__(self) -> None:
        self.number = 0
        self.is_closed = False

    def submit(self, payload: bytes, *, vital: bool = False, durable: bool = True) -> int:
        if self.is_closed:
            raise LocalProtocolError("a payload was submitted to a closed committer")
        self.number += 1
        return self.number


class HandLink:
    """A socket whose buffer is emptied by hand."""

    def __init__(self) -> None:
        self.peer = "uid 7"
        self.buffer = bytearray()
        self.largest = 0
        self.is_congested = False
        self.is_paused = False
        self.is_closed = False
        self._framer = Framer(1 << 40)

    def write(self, data: bytes) -> None:
        self.buffer += data
        self.largest = max(self.largest, len(self.buffer))
        self.is_congested = len(self.buffer) > limits.SEND_BUFFER_MAX_BYTES

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False

    def close(self) -> None:
        self.is_closed = True

    def read(self) -> list[dict[str, Any]]:
        found = self._framer.feed(bytes(self.buffer))
        self.buffer.clear()
        self.is_congested = False
        return found


class HandServer:
    """Everything a connection wants of its server."""

    def __init__(self) -> None:
        self.log = HandLog()
        self.store = Store(Rid("me", 1 << 40), 0, Loaded(), self.log)
        self.watchers = Watchers()
        self.network: Any = None
        self.due: deque[Callable[[], None]] = deque()
        self.held: list[Connection] = []
        self.has_room = True
        self.homes = None
        self.dismissed: list[Connection] = []

    def admit(self, connection: Connection) -> bool:
        return self.has_room

    def dismiss(self, connection: Connection) -> None:
        self.dismissed.append(connection)

    def hold(self, connection: Connection) -> None:
        self.held.append(connection)

    def later(self, call: Callable[[], None]) -> None:
        self.due.append(call)

    def wall_ms(self) -> None:
        return None

    def run_due(self) -> None:
        while self.due:
            self.due.popleft()()

    def confirm(self) -> None:
        for pending in self.store.confirm(written_to=self.log.number, synced_to=self.log.number):
            self.watchers.notify(pending.key, pending.packed)
            pending.done(None)
        self.release()

    def refuse_all(self) -> None:
        for pending in self.store.refuse(1):
            pending.done(WriteRefused("no room"))
        self.release()

    def release(self) -> None:
        held, self.held = self.held, []
        for connection in held:
            connection.proceed()
        self.run_due()


class Client:
    """A client: its link, its connection, and a counter of requests."""

    def __init__(self, server: HandServer) -> None:
        self.server = server
        self.link = HandLink()
        self.seq = 0
        made: Any = Connection
        self.connection: Connection = made(server)
        link: Any = self.link
        self.connection.opened(link)

    def packed(self, action: str, **fields: Any) -> bytes:
        self.seq += 1
        return packb({"seq": self.seq, "action": action, **fields})

    def send(self, action: str, **fields: Any) -> None:
        self.connection.received(self.packed(action, **fields))

    def ask(self, action: str, **fields: Any) -> dict[str, Any]:
        self.link.read()
        self.send(action, **fields)
        self.server.confirm()
        return self.link.read()[-1]

    def drain(self) -> list[dict[str, Any]]:
        """Read all that comes, as a client that has caught up."""
        found = []
        while self.link.buffer:
            found += self.link.read()
            self.connection.drained()
            self.server.run_due()
        return found


@pytest.fixture
def server() -> HandServer:
    """A server moved by hand."""
    return HandServer()


@pytest.fixture
def client_of() -> Callable[[Any], Client]:
    """Returns a client of a server, the real one too."""
    return Client


@pytest.fixture
def new_client(server: HandServer) -> Callable[[], Client]:
    """Returns one more client of it."""
    return lambda: Client(server)


@pytest.fixture
def client(new_client: Callable[[], Client]) -> Client:
    """A client of it that has read the greeting."""
    client = new_client()
    client.link.read()
    return client
