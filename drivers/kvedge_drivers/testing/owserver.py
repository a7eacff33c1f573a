"""A real owserver in front of a simulated bus, for tests and demonstrations.

As a program it makes a few sensors whose temperatures drift, and serves until it is told to end
by SIGTERM, SIGINT or, where its standard input is a pipe, the end of that:

    python -m kvedge_drivers.testing.owserver --port 4304 28.0000000000A1=21.5
"""

from __future__ import annotations

import argparse
import math
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO

from kvedge.clock import SystemClock
from kvedge.errors import PortUnavailable
from kvedge_drivers.testing.ha7e import Ha7ePty
from kvedge_drivers.testing.onewire import SimulatedBus, SimulatedSensor

_HOST = "127.0.0.1"
_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 1.0  # it has nothing to lose, and does not hear while its adapter is silent
_POLL_S = 0.02
_SHORT_TIMEOUTS = [
    f"--timeout_{what}=1" for what in ("volatile", "stable", "directory", "presence", "serial")
]
_NOP_REQUEST = bytes(8) + b"\0\0\0\1" + bytes(12)  # six words; the third is the message type
_REPLY_BYTES = 24


class Owserver:
    """An owserver process and the simulated adapter that it talks to.

    Attributes:
        host: Address that it listens at.
        port: TCP port that it listens at; the same after a restart.
        adapter: The adapter, for faults: it can hang, be unplugged and come back.
    """

    def __init__(self, adapter: Ha7ePty, *, port: int, messages: IO[bytes]) -> None:
        self.host = _HOST
        self.port = port
        self.adapter = adapter
        self._process: subprocess.Popen[bytes] | None = None
        self._messages = messages

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            PortUnavailable: It is not installed, its port is taken, or it does not come up.
        """
        _free_port(self.port)
        self._process = subprocess.Popen(
            [
                *(_program(), "--foreground", "--port", f"{self.host}:{self.port}"),
                *(f"--ha7e={self.adapter.path}", *_SHORT_TIMEOUTS),
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._messages,
            stderr=self._messages,
        )
        self._wait_until_it_answers(self._process)

    def stop(self) -> None:
        """End it; does nothing where it has ended."""
        if self._process:
            self._process.terminate()
            self._process.send_signal(signal.SIGCONT)  # a frozen one would not hear of it
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Make it silent without closing its connections (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process, "it is not running"
        self._process.send_signal(number)

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        clock = SystemClock()
        deadline_s = clock.boottime_s() + _START_TIMEOUT_S
        while not _answers(self.host, self.port):
            if clock.boottime_s() > deadline_s:
                raise PortUnavailable("owserver", f"no answer after {_START_TIMEOUT_S:g} s")
            if _has_ended(process):
                raise PortUnavailable("owserver", f"it ended at once: {self._last_message()}")

    def _last_message(self) -> str:
        self._messages.seek(0)
        lines = self._messages.read().decode(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "without a message")


@contextmanager
def owserver_with(bus: SimulatedBus, *, port: int = 0) -> Iterator[Owserver]:
    """Run an owserver in front of a bus while the block lasts.

    Args:
        bus: What is plugged in; may be changed at any time.
        port: TCP port; 0 picks a free one.

    Raises:
        PortUnavailable: It is not installed, its port is taken, or it does not come up.
    """
    with ExitStack() as stack:
        adapter = stack.enter_context(Ha7ePty(bus))
        messages = stack.enter_context(tempfile.TemporaryFile())
        server = Owserver(adapter, port=port or _free_port(0), messages=messages)
        stack.callback(server.stop)
        server.start()
        yield server


def _program() -> str:
    program = shutil.which("owserver")
    if not program:
        raise PortUnavailable("owserver", "the program is missing; apt install owserver")
    return program


def _free_port(wanted: int) -> int:
    """Return the wanted port, or any for 0, that nobody listened on a moment ago."""
    try:
        with socket.create_server((_HOST, wanted)) as listener:
            port: int = listener.getsockname()[1]
    except OSError as error:
        raise PortUnavailable("owserver", f"{_HOST}:{wanted}: {error.strerror}") from error
    return port


def _answers(host: str, port: int) -> bool:
    """Tell whether an owserver replies to the request that does nothing."""
    try:
        with socket.create_connection((host, port), timeout=1) as connection:
            connection.sendall(_NOP_REQUEST)
            return len(connection.recv(_REPLY_BYTES, socket.MSG_WAITALL)) == _REPLY_BYTES
    except OSError:
        return False


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Tell whether a process has ended, after a moment for it to get on."""
    try:
        process.wait(_POLL_S)
    except subprocess.TimeoutExpired:
        return False
    return True


# --- as a program ---------------------------------------------------------------------------

_DEMO_SENSORS = ("28.0000000000A1=21.5", "28.0000000000B2=-4", "10.0000000000C3=48")
_TICK_S = 0.5
_DRIFT_CELSIUS = 1.5
_DRIFT_PERIOD_S = 60.0


def drifted_celsius(start_celsius: float, *, elapsed_s: float, index: int) -> float:
    """Return what the sensor of that index feels: a slow wave around where it started."""
    turns = elapsed_s / _DRIFT_PERIOD_S + index / 7
    return start_celsius + _DRIFT_CELSIUS * math.sin(2 * math.pi * turns)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve simulated sensors until told to end; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        with (
            _end_of_service() as end,
            owserver_with(SimulatedBus(*options.sensors), port=options.port) as server,
        ):
            sys.stdout.write(f"Running on {server.host}:{server.port}.\n")
            sys.stdout.flush()
            _drift(options.sensors, end)
    except PortUnavailable as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kvedge_drivers.testing.owserver",
        description="A real owserver with simulated sensors whose temperatures drift.",
    )
    parser.add_argument("--port", type=int, default=0, help="TCP port; a free one if not given")
    parser.add_argument(
        "sensors",
        nargs="*",
        type=_sensor,
        default=[_sensor(text) for text in _DEMO_SENSORS],
        metavar="SENSOR",
        help="family (28 or 10), serial and °C, such as 28.0000000000A1=21.5",
    )
    return parser


def _sensor(text: str) -> SimulatedSensor:
    address, _, celsius = text.partition("=")
    try:
        return SimulatedSensor(address, float(celsius or 21))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _drift(sensors: Sequence[SimulatedSensor], end: Callable[[float], bool]) -> None:
    clock = SystemClock()
    started_s = clock.boottime_s()
    starts = [sensor.temperature_celsius for sensor in sensors]
    while not end(_TICK_S):
        elapsed_s = clock.boottime_s() - started_s
        for index, sensor in enumerate(sensors):
            sensor.temperature_celsius = drifted_celsius(
                starts[index], elapsed_s=elapsed_s, index=index
            )


@contextmanager
def _end_of_service() -> Iterator[Callable[[float], bool]]:
    """Give a function that waits some seconds and tells whether a signal or end of input came."""
    signalled, alarm = os.pipe()
    # Behind `&` in a script, and in a service, the input is /dev/null and ends before it begins.
    watched = [signalled, _STDIN] if stat.S_ISFIFO(os.fstat(_STDIN).st_mode) else [signalled]
    os.set_blocking(alarm, False)
    signal.set_wakeup_fd(alarm)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # the byte in the pipe is all that counts

    def has_ended(wait_s: float) -> bool:
        ready = select.select(watched, [], [], wait_s)[0]
        return signalled in ready or (_STDIN in ready and not os.read(_STDIN, 4096))

    try:
        yield has_ended
    finally:
        signal.set_wakeup_fd(-1)
        os.close(signalled)
        os.close(alarm)


_STDIN = 0

if __name__ == "__main__":
    sys.exit(main())
