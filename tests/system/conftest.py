"""Fixtures of the system tests: real `kv server` processes, ended by their pid."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack
import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from kvedge.client.sync import SyncClient, connect
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
