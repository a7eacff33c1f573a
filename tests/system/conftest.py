"""Fixtures of the system tests: real `kv server` processes, ended by their pid."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from kvedge.client.sync import SyncClient, connect
from kvedge.errors import LinkError
from kvedge.model.value import MISSING
from kvedge.testing.mosquitto import Mosquitto

PATIENCE_S = 15.0  # for what takes a fraction of a second on an idle machine
_PAGE_KB = os.sysconf("SC_PAGESIZE") // 1024


class Wire:
    """A bare connection: bytes out, messages in."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE_S)
        try:
            self.socket.connect(str(path))
        except OSError:
            self.socket.close()
            raise
        self._unpacker = msgpack.Unpacker(use_list=False, strict_map_key=False)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def next(self) -> dict[str, Any] | None:
        """Return the next message, None where the server has closed."""
        while True:
            for message in self._unpacker:
                found: dict[str, Any] = message
                return found
            try:
                data = self.socket.recv(1 << 18)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._unpacker.feed(data)

    def rest(self) -> list[dict[str, Any]]:
        """Return all messages up to the end of the connection."""
        return list(iter(self.next, None))

    def close(self) -> None:
        self.socket.close()


class KvServer:
    """A `kv server` process on a socket and a directory of its own.

    Attributes:
        pid: Of the process that runs now.
        socket: The path of its socket.
        data: Its directory.
    """

    def __init__(self, kv: Path, home: Path, node: str) -> None:
        self.home = home
        self.node = node
        self.socket = home / "kv.sock"
        self.data = home / "data"
        self._kv = kv
        self._log = home / "stderr"
        self._log.touch()
        self._process: subprocess.Popen[str] | None = None
        self._opened: list[SyncClient | Wire] = []

    def command(self, *options: object) -> list[str]:
        """Return the command line; later options win."""
        words = ("server", "--dir", self.data, "--listen", self.address, *options, self.node)
        return [str(self._kv), *map(str, words)]

    @property
    def address(self) -> str:
        return f"unix:{self.socket}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def environ(self) -> dict[str, str]:
        """No configuration but the command line's."""
        kept = {
            name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ
        }
        return kept | {"HOME": str(self.home), "KV_CONFIG": os.devnull}

    def start(
        self, *options: object, prefix: Sequence[str] = (), environ: dict[str, str] | None = None
    ) -> KvServer:
        """Start it and wait until clients may connect."""
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [*prefix, *self.command(*options)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self.environ | (environ or {}),
            )
        timer = threading.Timer(PATIENCE_S, self._process.kill)
        timer.start()
        assert self._process.stdout is not None
        try:
            assert self._process.stdout.readline() == "Running.\n", self.log()
        finally:
            timer.cancel()
        return self

    def refused(self, *options: object, prefix: Sequence[str] = ()) -> tuple[int, str]:
        """Start one that cannot be; return its exit code and what it said."""
        ended = subprocess.run(
            [*prefix, *self.command(*options)],
            capture_output=True,
            text=True,
            env=self.environ,
            timeout=PATIENCE_S,
            check=False,
        )
        assert ended.stdout == ""
        return ended.returncode, ended.stderr

    def log(self) -> str:
        """Return all it has said so far."""
        return self._log.read_text()

    def lines(self) -> list[str]:
        """Return what it has said, without times."""
        return [line.split(" ", 1)[1] for line in self.log().splitlines()]

    def connect(self, timeout_s: float = PATIENCE_S) -> SyncClient:
        client = connect([self.address], timeout_s=timeout_s)
        self._opened.append(client)
        return client

    def wire(self) -> Wire:
        """Return a bare connection that has read the greeting, whatever that was."""
        wire = Wire(self.socket)
        self._opened.append(wire)
        return wire

    def rss_kb(self) -> int:
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * _PAGE_KB

    def connections(self) -> int:
        """Return how often it was connected to a broker, in all its lives."""
        return self.log().count(": connected (connection ")

    def is_connected(self) -> bool:
        """Tell whether what it said last of its broker is that there is a connection."""
        log = self.log()
        return log.rfind(": connected (connection ") > log.rfind(": no connection: ")

    def broker_port(self) -> int:
        """Return the port of the broker that it was connected to last."""
        return int(re.findall(r"broker \S+:(\d+): connected", self.log())[-1])

    def tree(self) -> dict[str, object]:
        """Return all there is by path: value, chain and tock."""
        with self.connect() as client:
            items = client.get_tree(":", nchain=5)
            return {str(item.path): (item.value, item.chain, item.tock) for item in items}

    def signal(self, number: signal.Signals) -> tuple[int, float]:
        """Send a signal and wait for the end; return the exit code and the seconds it took."""
        assert self._process is not None
        started_s = time.monotonic()
        self._process.send_signal(number)
        code = self._process.wait(PATIENCE_S)
        took_s = time.monotonic() - started_s
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None
        return code, took_s

    def has_ended(self) -> bool:
        """Tell whether it has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def ended(self) -> int:
        """Return the exit code of one that has ended by itself."""
        assert self._process is not None
        code = self._process.wait(PATIENCE_S)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None
        return code

    def terminate(self) -> tuple[int, float]:
        return self.signal(signal.SIGTERM)

    def kill(self) -> None:
        assert self.signal(signal.SIGKILL)[0] == -signal.SIGKILL

    def close(self) -> None:
        """End it, and see that it never showed a traceback."""
        for opened in self._opened:
            opened.close()
        if self._process is not None:
            self.terminate()
        for word in ("Traceback", "Exception in", "never awaited", "Warning:"):
            assert word not in self.log(), self.log()


@pytest.fixture
def new_server(kv: Path, tmp_path: Path) -> Iterator[Callable[..., KvServer]]:
    """Returns servers that are not started yet, each with a home of its own."""
    made: list[KvServer] = []

    def new(name: str = "s", *, node: str = "alpha") -> KvServer:
        home = tmp_path / name
        home.mkdir()
        made.append(KvServer(kv, home, node))
        return made[-1]

    yield new
    for server in made:
        server.close()


@pytest.fixture
def kv_server(new_server: Callable[..., KvServer]) -> KvServer:
    """A server that runs."""
    return new_server().start()


class Stranger:
    """A bare MQTT client: hears everything, and says whatever a test wants.

    Attributes:
        heard: Topics and payloads, in the order in which they came.
    """

    def __init__(self, broker: Mosquitto) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self._has_all = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._take
        self._client.on_subscribe = lambda *_: self._has_all.set()
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()
        self._client.subscribe("#", 1)
        assert self._has_all.wait(PATIENCE_S)

    def _take(self, _client: object, _data: object, message: MQTTMessage) -> None:
        self.heard.append((message.topic, bytes(message.payload)))

    def tell(self, topic: str, payload: bytes) -> None:
        """Publish, and do not wait."""
        self._client.publish(topic, payload, 0)

    def say(self, topic: str, payload: bytes) -> None:
        """Publish, and wait until the broker has it."""
        self._client.publish(topic, payload, 1).wait_for_publish(PATIENCE_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def new_stranger() -> Iterator[Callable[[Mosquitto], Stranger]]:
    """Returns bare clients of a broker."""
    made: list[Stranger] = []

    def new(broker: Mosquitto) -> Stranger:
        made.append(Stranger(broker))
        return made[-1]

    yield new
    for stranger in made:
        stranger.close()


# --- several servers of one network ------------------------------------------------------------

EQUAL_MAX_S = 5.0
"""From when all are connected again to equal trees."""

_POLL_S = 0.1


def until(condition: Callable[[], object], *, within_s: float = PATIENCE_S) -> bool:
    """Wait for real processes to come to something; tell whether they did."""
    end_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end_s:
            return False
        time.sleep(_POLL_S)
    return True


class Writer(threading.Thread):
    """Writes durably to one server for as long as it is told to, through its deaths too.

    It sets paths of its own and deletes some of them again, and sets some that others set too.

    Attributes:
        expected: What its own paths must hold, by path; MISSING for nothing.  Where an answer did
            not come there is no entry: both outcomes are right.
        tocks: The newest acknowledged tock of each shared path.
    """

    _SHARED = 20

    def __init__(self, server: KvServer, pause_s: float) -> None:
        super().__init__(daemon=True)
        self.expected: dict[str, object] = {}
        self.tocks: dict[str, int] = {}
        self._server = server
        self._pause_s = pause_s
        self._is_to_end = threading.Event()
        self._number = 0
        self._life = f"w{id(self)}"

    def run(self) -> None:
        while not self._is_to_end.is_set():
            with suppress(LinkError):  # it was killed, or is not there yet
                self._write_until_it_breaks()
            self._is_to_end.wait(0.05)

    def _write_until_it_breaks(self) -> None:
        with connect([self._server.address], timeout_s=PATIENCE_S) as client:
            while not self._is_to_end.wait(self._pause_s):
                self._number += 1
                self._write(client, self._number)

    def _write(self, client: SyncClient, number: int) -> None:
        if number % 3 == 0:
            path = f"shared.x{number % self._SHARED}"
            tock = client.set(path, [self._server.node, number], nchain=1).tock
            self.tocks[path] = max(tock, self.tocks.get(path, 0))
            return
        path = f"own.{self._server.node}.{self._life}.x{number}"
        client.set(path, number)
        self.expected[path] = number
        if number % 5 == 0:
            del self.expected[path]
            client.delete(path)
            self.expected[path] = MISSING

    def end(self) -> None:
        self._is_to_end.set()
        self.join(PATIENCE_S)
        assert not self.is_alive()

    def lost(self, tree: dict[str, Any]) -> list[str]:
        """Return the paths at which an acknowledged write is lost."""
        absent = (MISSING, None, -1)
        own = [p for p, value in self.expected.items() if tree.get(p, absent)[0] != value]
        return own + [p for p, tock in self.tocks.items() if tree.get(p, absent)[2] < tock]


class Fleet:
    """Servers of one network, and those who write to them."""

    def __init__(self, servers: list[KvServer]) -> None:
        self.servers = servers
        self._writers: list[Writer] = []

    def write_on(self, *, pause_s: float = 0.004) -> None:
        """Begin to write to all of them, with so many seconds between two writes of each."""
        writers = [Writer(server, pause_s) for server in self.servers]
        self._writers += writers
        for writer in writers:
            writer.start()

    def end_writing(self) -> None:
        for writer in self._writers:
            writer.end()

    def connections(self) -> list[int]:
        return [server.connections() for server in self.servers]

    def wait_connected(self, since: Sequence[int] = (), *, within_s: float = PATIENCE_S) -> None:
        """Wait until each is connected; where earlier counts are given, anew since then."""
        counts = since or [0] * len(self.servers)

        def are_connected() -> bool:
            return all(
                server.is_connected() and server.connections() > count
                for server, count in zip(self.servers, counts, strict=True)
            )

        assert until(are_connected, within_s=within_s), "\n\n".join(
            server.log()[-1000:] for server in self.servers
        )

    def check_equal(self, *, within_s: float = EQUAL_MAX_S) -> float:
        """See that trees become equal and nothing is lost; return after how long, in seconds."""
        began_s = time.monotonic()
        trees: list[dict[str, object]] = []

        def are_equal() -> bool:
            trees.clear()
            for server in self.servers:
                trees.append(server.tree())
                if trees[-1] != trees[0]:
                    return False
            return True

        assert until(are_equal, within_s=within_s), _difference(trees)
        took_s = time.monotonic() - began_s
        for writer in self._writers:
            assert not writer.lost(trees[0]), writer.lost(trees[0])[:5]
        return took_s

    def acknowledged(self) -> int:
        """Return how many writes were, of those that are still to be seen."""
        return sum(len(writer.expected) + len(writer.tocks) for writer in self._writers)


def _difference(trees: list[dict[str, object]]) -> str:
    first, other = trees[0], trees[-1]
    paths = [p for p in first.keys() | other.keys() if first.get(p) != other.get(p)]
    shown = [f"{path}: {first.get(path)} and {other.get(path)}" for path in sorted(paths)[:3]]
    return f"{len(first)} and {len(other)} entries, {len(paths)} differ: {'; '.join(shown)}"


@pytest.fixture
def new_fleet(new_server: Callable[..., KvServer]) -> Iterator[Callable[..., Fleet]]:
    """Returns fleets of servers that are not started yet; their writers end with the test."""
    made: list[Fleet] = []

    def new(*names: str) -> Fleet:
        made.append(Fleet([new_server(name, node=name) for name in names]))
        return made[-1]

    yield new
    for fleet in made:
        fleet.end_writing()
