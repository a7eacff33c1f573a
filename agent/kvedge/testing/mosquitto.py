"""A real mosquitto process on a port of 127.0.0.1, for tests of what needs a broker.

    with mosquitto(tmp_path) as broker:
        settings = MqttSettings.from_uri(broker.uri)
        broker.kill()   # as a crash: nothing is saved
        broker.start()  # at the same port, with nothing remembered

Nothing of the machine's own mosquitto is used or touched.  Its program must be installed
(`apt install mosquitto`).
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from kvedge.errors import NotConnected

_HOST = "127.0.0.1"
_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 5.0
_POLL_S = 0.01
_RUNNING = re.compile(r"mosquitto version \S+ running$", re.MULTILINE)
_PLACES = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin"  # Debian's is in sbin


class Mosquitto:
    """A broker that can be killed, stopped and started again.

    Attributes:
        host: Address that it listens at.
        port: TCP port that it listens at; the same after a restart.
        uri: Where clients connect; without a user.
    """

    def __init__(
        self,
        directory: Path,
        *,
        host: str,
        port: int,
        prefix: Sequence[str],
        lines: Sequence[str],
        users: Mapping[str, str],
    ) -> None:
        self.host = host
        self.port = port
        self.uri = f"mqtt://{host}:{port}"
        self._prefix = prefix
        self._directory = directory
        self._log = directory / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._write_config(lines, users)

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        assert self._process is not None, "it does not run"
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it takes connections; it remembers nothing.

        Raises:
            NotConnected: It is not installed, its port is taken, or it does not come up.
        """
        assert self._process is None, "it runs already"
        if not self._prefix:
            _free_port(self.port)
        lives = self._lives()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._prefix,
                    _program("mosquitto"),
                    "-c",
                    str(self._directory / "mosquitto.conf"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while self._lives() == lives:
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise NotConnected(f"{self.host}:{self.port}", f"mosquitto says: {self.log()}")
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """End it; its clients are told, wills are sent.  Does nothing where it has ended."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Make it silent; its connections stay."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def log(self) -> str:
        """Return what it has said, of all its lives."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._signal(number)
        self._signal(signal.SIGCONT)  # a frozen one would not hear of it
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "it does not run"
        self._process.send_signal(number)

    def _lives(self) -> int:
        """Return how often it has said that it listens."""
        return len(_RUNNING.findall(self.log()))

    def _write_config(self, lines: Sequence[str], users: Mapping[str, str]) -> None:
        config = [
            f"listener {self.port} {self.host}",
            f"allow_anonymous {'false' if users else 'true'}",
            f"user {getpass.getuser()}",  # as root it would change to its own, who may not read
            "persistence false",
            "log_dest stderr",
            *([] if any(line.startswith("log_type") for line in lines) else ["log_type all"]),
            *lines,
        ]
        if users:
            config.append(f"password_file {self._write_passwords(users)}")
        (self._directory / "mosquitto.conf").write_text("\n".join(config) + "\n")

    def _write_passwords(self, users: Mapping[str, str]) -> Path:
        file = self._directory / "passwords"
        file.touch(mode=0o600)
        for user, password in users.items():
            subprocess.run([_program("mosquitto_passwd"), "-b", file, user, password], check=True)
        return file


@contextmanager
def mosquitto(
    directory: Path,
    *,
    host: str = _HOST,
    port: int = 0,
    prefix: Sequence[str] = (),
    lines: Sequence[str] = (),
    users: Mapping[str, str] | None = None,
) -> Iterator[Mosquitto]:
    """Run a broker while the block lasts.

    Args:
        directory: For its files; made where it is missing.
        host: Address to listen at.
        port: TCP port; 0 picks one that is free on 127.0.0.1.
        prefix: Words in front of its command, to run it in another place.
        lines: Further lines of its configuration: TLS, access lists, limits.
        users: Passwords by user; None lets anybody in.

    Raises:
        NotConnected: It is not installed, its port is taken, or it does not come up.
    """
    directory.mkdir(parents=True, exist_ok=True)
    broker = Mosquitto(
        directory,
        host=host,
        port=port or _free_port(0),
        prefix=prefix,
        lines=lines,
        users=users or {},
    )
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()  # it has nothing to lose


def _program(name: str) -> str:
    program = shutil.which(name, path=_PLACES)
    if not program:
        raise NotConnected(name, "the program is missing; apt install mosquitto")
    return program


def _free_port(wanted: int) -> int:
    """Return the wanted port, or any for 0, that nobody listened on a moment ago."""
    try:
        with socket.create_server((_HOST, wanted)) as listener:
            port: int = listener.getsockname()[1]
    except OSError as error:
        raise NotConnected(f"{_HOST}:{wanted}", os.strerror(error.errno or 0)) from error
    return port
