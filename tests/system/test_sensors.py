"""Real readings: an agent with its jobs, a real owserver, and sensors that vanish and break."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvedge_drivers.testing.onewire import SensorFault, SimulatedBus, SimulatedSensor
from kvedge_drivers.testing.owserver import Owserver, owserver_with

pytestmark = pytest.mark.system

A, B, C = "28.0000000000A1", "10.0000000000B2", "28.0000000000C3"
INTERVAL_S = 0.3
HOWTO = re.compile(r"<!-- test: sensors -->\n```sh\n(.*?)```", re.DOTALL)
PATIENCE_S = 20.0  # for what takes two or three seconds on an idle machine


class Board:
    """An agent in a directory of its own, and the `kv` command beside it."""

    def __init__(self, kv: Path, directory: Path) -> None:
        self._kv = kv
        self._socket = directory / "kv.sock"
        configuration = directory / "kvedge.toml"
        configuration.write_text(
            f'[node]\nname = "board1"\n'
            f'[server]\ndir = "{directory}/data"\nlisten = ["unix:{self._socket}"]\n'
            f'[connect]\nsocket = "{self._socket}"\n'
        )
        own = {name: value for name, value in os.environ.items() if not name.startswith("KV_")}
        self._environ = own | {
            "KV_CONFIG": str(configuration),
            "KV_SOCKET": str(self._socket),
            "PYTHONUNBUFFERED": "1",
        }
        self._messages = (directory / "messages").open("w")
        self._agent: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._agent = subprocess.Popen(
            [self._kv, "agent"],
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            text=True,
        )
        assert self._agent.stdout
        assert self._agent.stdout.readline() == "Running.\n"

    def stop(self) -> None:
        if self._agent:
            self._agent.send_signal(signal.SIGTERM)
            self._agent.communicate(timeout=PATIENCE_S)
            self._agent = None

    def close(self) -> None:
        self.stop()
        self._messages.close()

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `kv` and return how it ended."""
        return subprocess.run(
            [self._kv, *words], env=self._environ, capture_output=True, text=True, check=False
        )

    def kv(self, words: str) -> str:
        """Run a command that must succeed and return its output."""
        done = self.run(*words.split())
        assert done.returncode == 0, done.stderr
        return done.stdout

    def has(self, path: str) -> bool:
        """Tell whether there is a value at a path."""
        return self.run("data", "get", path).returncode == 0

    def complaints(self) -> str:
        """Return what `kv doctor` does not like."""
        lines = self.run("doctor").stdout.splitlines()
        return "\n".join(line for line in lines if line.startswith("FAIL"))

    def sensors(self) -> dict[str, dict[str, Any]]:
        """Return what `kv sensor list` tells, by device and channel."""
        rows = json.loads(self.kv("sensor list --json"))
        return {f"{row['device']}.{row['channel']}": row for row in rows}

    def wait_for(self, what: Callable[[dict[str, dict[str, Any]]], object]) -> None:
        """Wait until the sensors are so."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not what(found := self.sensors()):
            assert time.monotonic() < deadline_s, found
            time.sleep(0.1)

    def wait_for_state(self, state: str, *devices: str) -> None:
        """Wait until thermometers are in a state."""
        names = [f"{device}.temperature" for device in devices]
        self.wait_for(lambda found: all(found.get(n, {}).get("state") == state for n in names))

    def temperature(self, device: str) -> dict[str, Any]:
        return self.sensors()[f"{device}.temperature"]


@pytest.fixture
def bus() -> SimulatedBus:
    """A bus with two thermometers."""
    return SimulatedBus(SimulatedSensor(A, 21.5), SimulatedSensor(B, -4))


@pytest.fixture
def owserver(bus: SimulatedBus) -> Iterator[Owserver]:
    """A real owserver before the bus."""
    with owserver_with(bus) as server:
        yield server


@pytest.fixture
def board(kv: Path) -> Iterator[Board]:
    """A board whose agent runs."""
    with tempfile.TemporaryDirectory(prefix="kv") as directory:  # short enough for a socket
        made = Board(kv, Path(directory))
        made.start()
        yield made
        made.close()


@pytest.fixture
def reading(board: Board, owserver: Owserver) -> Board:
    """A board that reads the bus."""
    server = f"{owserver.host}:{owserver.port}"
    board.kv(
        f"run -n board1 set -c @onewire -v server {server} -e interval_s {INTERVAL_S} -t 0 onewire"
    )
    board.wait_for_state("ok", A, B)
    return board


def test_board_tells_of_itself(board: Board) -> None:
    board.kv(f"run -n board1 set -c @host -e interval_s {INTERVAL_S} -t 0 host")
    wanted = ("load_1m", "memory_used", "disk_used", "uptime", "clock_synchronised")
    board.wait_for(lambda found: {f"host.{name}" for name in wanted} <= set(found))
    load = board.sensors()["host.load_1m"]
    assert (load["state"], load["path"]) == ("ok", "sensor.board1.host.load_1m")
    assert float(board.kv("data get sensor.board1.host.load_1m")) >= 0


def test_values_follow_the_sensors(reading: Board, bus: SimulatedBus) -> None:
    assert {row["value"] for row in reading.sensors().values()} == {21.5, -4.0}
    bus.sensors[A].temperature_celsius = 30.0625
    reading.wait_for(lambda found: found[f"{A}.temperature"]["value"] == 30.0625)
    assert reading.kv(f"data get {reading.temperature(A)['path']}") == "30.0625\n"
    assert reading.temperature(A)["age_s"] < PATIENCE_S


def test_value_goes_where_the_user_wants(reading: Board) -> None:
    reading.kv(f"sensor bind {A}.temperature cellar.temperature --offset 0.5")
    reading.wait_for(lambda found: found[f"{A}.temperature"]["value"] == 22.0)
    assert reading.kv("data get cellar.temperature") == "22.0\n"
    assert not reading.has("sensor.board1.28:.0000000000A1.temperature")
    reading.kv("sensor calibrate cellar.temperature --actual 21")
    reading.wait_for(lambda found: found[f"{A}.temperature"]["value"] == 21.0)
    reading.kv("sensor unbind cellar.temperature")
    reading.wait_for(lambda found: found[f"{A}.temperature"]["value"] == 21.5)
    assert not reading.has("cellar.temperature")


def test_sensor_that_vanishes_is_told_and_comes_back(reading: Board, bus: SimulatedBus) -> None:
    path = reading.temperature(A)["path"]
    bus.sensors[A].present = False
    reading.wait_for_state("missing", A)
    row = reading.temperature(A)
    assert (row["value"], row["last_value"]) == (None, 21.5)
    assert row["reason"] == f"{A} does not answer"
    assert not reading.has(path)
    assert reading.temperature(B)["state"] == "ok"
    bus.sensors[A].present = True
    reading.wait_for_state("ok", A)
    assert reading.kv(f"data get {path}") == "21.5\n"


def test_sensor_that_breaks_is_told_and_recovers(reading: Board, bus: SimulatedBus) -> None:
    bus.sensors[B].fault = SensorFault.ALL_ZERO
    reading.wait_for_state("fault", B)
    assert "shorted" in reading.temperature(B)["reason"]
    assert reading.temperature(A)["state"] == "ok"
    bus.sensors[B].fault = SensorFault.NONE
    reading.wait_for_state("ok", B)


def test_new_sensor_appears(reading: Board, bus: SimulatedBus) -> None:
    bus.sensors[C] = SimulatedSensor(C, 7.5)
    reading.wait_for_state("ok", C)
    assert reading.temperature(C)["value"] == 7.5


def test_owserver_that_goes_is_told_and_comes_back(reading: Board, owserver: Owserver) -> None:
    owserver.stop()
    reading.wait_for_state("missing", A, B)
    assert "Connection refused" in reading.temperature(A)["reason"]
    assert "Connection refused" in reading.kv("error list")
    assert "owserver" in reading.complaints()
    owserver.start()
    reading.wait_for_state("ok", A, B)


def test_owserver_that_hangs_leaves_no_old_value(reading: Board, owserver: Owserver) -> None:
    path = reading.temperature(A)["path"]
    owserver.freeze()
    reading.wait_for_state("stale", A, B)
    assert "no reading for" in reading.temperature(A)["reason"]
    assert not reading.has(path)
    owserver.thaw()
    reading.wait_for_state("ok", A, B)


def test_job_may_be_set_up_before_the_owserver_runs(board: Board, owserver: Owserver) -> None:
    owserver.stop()
    server = f"{owserver.host}:{owserver.port}"
    board.kv(f"run -n board1 set -c @onewire -v server {server} -e interval_s 0.5 -t 0 onewire")
    board.wait_for(lambda _: "Connection refused" in board.kv("error list"))
    owserver.start()
    board.wait_for_state("ok", A, B)
    board.wait_for(lambda _: "Connection refused" not in board.kv("error list"))


def test_commands_of_the_howto(board: Board, owserver: Owserver, project_root: Path) -> None:
    text = (project_root / "docs/howto/first-sensor.md").read_text()
    for command in "".join(HOWTO.findall(text)).splitlines():
        words = command.replace("127.0.0.1:4304", f"{owserver.host}:{owserver.port}")
        words = words.replace("interval_s 10", f"interval_s {INTERVAL_S}")
        assert words.startswith("kv ")
        deadline_s = time.monotonic() + PATIENCE_S
        while (done := board.run(*words.split()[1:])).returncode:  # the job is just starting
            assert time.monotonic() < deadline_s, f"{command}: {done.stderr}"
            time.sleep(0.1)
    board.wait_for(lambda found: found[f"{A}.temperature"]["value"] == 21.2)
    assert board.kv("data get cellar.temperature") == "21.2\n"


def test_what_vanished_while_the_agent_was_off_is_told(reading: Board, bus: SimulatedBus) -> None:
    reading.stop()
    bus.sensors[A].present = False
    reading.start()
    reading.wait_for_state("missing", A)
    assert reading.temperature(A)["last_value"] == 21.5
    reading.wait_for_state("ok", B)
