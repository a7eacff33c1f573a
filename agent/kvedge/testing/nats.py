"""A real cluster of NATS servers with MQTT on 127.0.0.1, for tests of what a cluster must stand.

    with nats_cluster(tmp_path) as cluster:
        settings = MqttSettings.from_uri(cluster.uri)  # all nodes, to be tried in turn
        cluster.nodes[0].kill()   # as a crash
        cluster.nodes[0].start()  # at the same port, with what is left on its disk

MQTT in NATS rests on JetStream, its store, and that wants a majority of the nodes: of three one may
be away.  Nothing of the machine's own NATS is used or touched.  Its program must be installed
(`apt install nats-server`).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kvedge.errors import NotConnected

_HOST = "127.0.0.1"
_START_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 5.0
_POLL_S = 0.02
_PLACES = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin"  # Debian's is in sbin

_CONNECT = bytes.fromhex("100c00044d5154540402003c0000")  # MQTT 3.1.1, clean session, no name
_ANSWERS = (bytes.fromhex("20020000"), bytes.fromhex("20020005"))  # welcome; who are you?

_CONFIG = """\
server_name: {name}
listen: "{host}:{client_port}"
max_payload: 512K
jetstream {{ store_dir: "{store}" }}
mqtt {{ listen: "{host}:{port}" }}
{cluster}
{lines}
"""


class NatsNode:
    """One server of a cluster that can be killed, stopped and started again.

    Attributes:
        port: TCP port that it listens at for MQTT; the same after a restart.
        uri: Where clients connect.
    """

    def __init__(
        self, directory: Path, name: str, ports: Sequence[int], *, cluster: str, lines: str
    ) -> None:
        self.port = ports[0]
        self.uri = f"mqtt://{_HOST}:{self.port}"
        self._log = directory / f"{name}.log"
        self._config = directory / f"{name}.conf"
        self._process: subprocess.Popen[bytes] | None = None
        self._config.write_text(
            _CONFIG.format(
                name=name,
                host=_HOST,
                port=ports[0],
                client_port=ports[1],
                store=directory / name,
                cluster=cluster,
                lines=lines,
            )
        )

    def start(self) -> None:
        """Start it; it takes connections once a majority of the nodes runs."""
        assert self._process is None, "it runs already"
        program = shutil.which("nats-server", path=_PLACES)
        if not program:
            raise NotConnected("nats-server", "the program is missing; apt install nats-server")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-c", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait(self) -> None:
        """Wait until it takes MQTT connections.

        Raises:
            NotConnected: It has ended, or takes none in time.
        """
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            assert self._process is not None, "it does not run"
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise NotConnected(f"{_HOST}:{self.port}", f"nats-server says: {self.log()}")
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """End it politely.  Does nothing where it has ended."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def log(self) -> str:
        """Return what it has said, of all its lives."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _answers(self) -> bool:
        """Tell whether a client is answered, for which the cluster has to agree."""
        try:
            with socket.create_connection((_HOST, self.port), 2.0) as client:
                client.sendall(_CONNECT)
                return client.recv(len(_ANSWERS[0])) in _ANSWERS
        except OSError:
            return False


class NatsCluster:
    """Some servers that serve the same clients.

    Attributes:
        nodes: The servers.
    """

    def __init__(self, directory: Path, *, size: int, lines: str) -> None:
        ports = _free_ports(3 * size)
        each = [ports[3 * number : 3 * number + 3] for number in range(size)]
        routes = ", ".join(f'"nats-route://{_HOST}:{route}"' for *_, route in each)

        def cluster(route: int) -> str:
            listen = f'listen: "{_HOST}:{route}"'
            return f"cluster {{ name: test, {listen}, routes: [ {routes} ] }}" if size > 1 else ""

        self.nodes = [
            NatsNode(directory, f"n{number}", own, cluster=cluster(own[2]), lines=lines)
            for number, own in enumerate(each)
        ]

    @property
    def uri(self) -> str:
        """Where clients connect: all nodes, to be tried in turn."""
        return ",".join(node.uri for node in self.nodes)


@contextmanager
def nats_cluster(directory: Path, *, size: int = 3, lines: str = "") -> Iterator[NatsCluster]:
    """Run a cluster while the block lasts; it takes some seconds to agree upon itself.

    Args:
        directory: For its files; made where it is missing.
        size: How many nodes; a majority has to run.
        lines: More for the configuration of each.

    Raises:
        NotConnected: It is not installed, or does not come up.
    """
    directory.mkdir(parents=True, exist_ok=True)
    cluster = NatsCluster(directory, size=size, lines=lines)
    with ExitStack() as stack:
        for node in cluster.nodes:
            stack.callback(node.kill)  # it has nothing to lose
            node.start()
        for node in cluster.nodes:
            node.wait()
        yield cluster


def _free_ports(count: int) -> list[int]:
    """Return ports that nobody listened on a moment ago, all different."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server((_HOST, 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]
