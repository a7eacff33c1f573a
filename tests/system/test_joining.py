"""Dumps and networks with real servers: save and load, and a second board that joins the first."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from kvedge.client.sync import connect
from kvedge.testing.mosquitto import Mosquitto, mosquitto

pytestmark = pytest.mark.system

PATIENCE_S = 15.0
VALUES = {"a": 1, "a.:1.b": {"x": (1, b"y")}, ":.kv.x": "job", ":n.auth": None, "last": "text"}


_BY_ITSELF = (":n.member.", ":.kv.conflict.")
"""What servers write."""


class Board:
    """A board with a configuration of its own."""

    def __init__(self, kv: Path, home: Path, node: str) -> None:
        home.mkdir()
        self.home = home
        self.node = node
        self.config = home / "kvedge.toml"
        self.socket = home / "kv.sock"
        self.data = home / "data"
        self.config.write_text(
            f'[node]\nname = "{node}"\n'
            f'[server]\ndir = "{self.data}"\nlisten = ["unix:{self.socket}"]\n'
            f'[connect]\nsocket = "{self.socket}"\n'
        )
        self._kv = kv
        self._log = home / "log"
        self._running: subprocess.Popen[str] | None = None

    @property
    def environ(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        return kept | {"HOME": str(self.home), "KV_CONFIG": str(self.config)}

    def kv(self, *words: object, code: int = 0) -> tuple[str, str]:
        """Run a command; return what it printed and what it said."""
        done = subprocess.run(
            [str(self._kv), *map(str, words)],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert "defect" not in done.stderr
        return done.stdout, done.stderr

    def start(self, *options: object) -> Board:
        with self._log.open("a") as log:
            self._running = subprocess.Popen(
                [str(self._kv), "server", "--dir", str(self.data), *map(str, options)],
                env=self.environ,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._running.stdout is not None
        assert self._running.stdout.readline() == "Running.\n", self._log.read_text()
        return self

    @property
    def pid(self) -> int:
        assert self._running is not None
        return self._running.pid

    def stop(self) -> None:
        if self._running is not None:
            self._running.send_signal(signal.SIGTERM)
            assert self._running.wait(PATIENCE_S) == 0
            assert self._running.stdout is not None
            self._running.stdout.close()
            self._running = None

    def write(self, values: Mapping[str, object]) -> Board:
        with connect([f"unix:{self.socket}"]) as client:
            for path, value in values.items():
                client.set(path, value)
        return self

    def held(self) -> dict[str, object]:
        with connect([f"unix:{self.socket}"]) as client:
            user = {str(item.path): item.value for item in client.get_tree(":")}
            system = {f":n.{item.path}": item.value for item in client.get_tree(":n")}
        found = user | system
        return {path: value for path, value in found.items() if not path.startswith(_BY_ITSELF)}

    def aside(self, pattern: str) -> Path:
        """Return the one file of that name beside the configuration."""
        (found,) = self.home.glob(pattern)
        return found


@pytest.fixture
def new_board(kv: Path, tmp_path: Path) -> Iterator[Callable[[str], Board]]:
    made: list[Board] = []

    def new(node: str) -> Board:
        made.append(Board(kv, tmp_path / node, node))
        return made[-1]

    yield new
    for board in made:
        board.stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path / "broker") as running:
        yield running


def until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


# --- dumps ---------------------------------------------------------------------------------------


def test_a_dump_makes_a_new_server_with_the_same_values(
    new_board: Callable[[str], Board], tmp_path: Path
) -> None:
    one, file = new_board("one").start().write(VALUES), tmp_path / "a.dump"
    assert one.kv("dump", "save", file) == ("", f"kv: {file}: 5 entries\n")
    two = new_board("two").start("-l", file)
    assert two.held() == one.held() == VALUES
    two.stop()
    assert two.start().held() == VALUES
    assert "path: ':n.auth'\n" in two.kv("dump", "show", file)[0]


def test_a_dump_of_a_part_and_several_at_once(
    new_board: Callable[[str], Board], tmp_path: Path
) -> None:
    one = new_board("one").start().write(VALUES)
    one.kv("dump", "save", "-p", "a", tmp_path / "part")
    one.kv("dump", "save", "-p", ":n", tmp_path / "system")
    both = tmp_path / "both"
    both.write_bytes((tmp_path / "part").read_bytes() + (tmp_path / "system").read_bytes())
    two = new_board("two").start("-l", both, "-l", tmp_path / "part", "-i", "root")
    expected = {path: VALUES[path] for path in ("a", "a.:1.b", ":n.auth")}
    assert two.held() == expected | {":": "root"}


def test_loading_into_a_running_server_writes_what_differs(
    new_board: Callable[[str], Board], tmp_path: Path
) -> None:
    one, file = new_board("one").start().write(VALUES), tmp_path / "a.dump"
    one.kv("dump", "save", file)
    one.write({"a": 2, "last": 0, "new": 1})
    assert one.kv("dump", "load", file, "--path", "a")[1] == (
        f"kv: {file}: 1 entry written, 1 were there already\n"
    )
    assert one.held() == VALUES | {"last": 0, "new": 1}
    assert "1 entry written, 4 were there" in one.kv("dump", "load", file)[1]
    assert one.held() == VALUES | {"new": 1}


def test_a_damaged_dump_is_told_and_nothing_is_made(
    new_board: Callable[[str], Board], tmp_path: Path
) -> None:
    one, file = new_board("one").start().write(VALUES), tmp_path / "a.dump"
    one.kv("dump", "save", file)
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    two = new_board("two")
    said = two.kv("server", "--dir", two.data, "-l", file, code=1)[1]
    assert said.startswith(f"kv: {file} cannot be loaded: at byte {len(data) - 1}: it ends too")
    assert not two.data.exists()
    one.write({"a": 7})
    assert one.kv("dump", "load", file, code=1)[1] == said
    assert one.held() == VALUES | {"a": 7}


def test_a_store_with_data_takes_no_dump(new_board: Callable[[str], Board], tmp_path: Path) -> None:
    one = new_board("one").start().write({"a": 1})
    one.kv("dump", "save", tmp_path / "d")
    one.stop()
    said = one.kv("server", "--dir", one.data, "-l", tmp_path / "d", code=2)[1]
    assert "holds 1 entries" in said
    assert "kv dump load" in said


# --- networks ------------------------------------------------------------------------------------


def test_a_second_board_joins_and_both_share_values(
    new_board: Callable[[str], Board], broker: Mosquitto
) -> None:
    one, two = new_board("one"), new_board("two")
    said = one.kv("net", "create", "house", "--mqtt", broker.uri)[1]
    key = one.home / "net.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.read_text().strip() not in said
    one.start().write({"ours": 1})
    file = one.home / "house.join"
    one.kv("net", "join-file", file)
    assert file.stat().st_mode & 0o777 == 0o600

    two.start().write({"theirs": 2})
    said = two.kv("net", "join", file, "--drop-mine", code=1)[1]
    assert f"in use by process {two.pid}" in said
    assert "stop the service first" in said
    two.stop()
    said = two.kv("net", "join", file, code=2)[1]
    assert "--keep-mine" in said
    assert "--drop-mine" in said
    assert sorted(found.name for found in two.home.iterdir()) == ["data", "kvedge.toml", "log"]
    two.kv("net", "join", file, "--drop-mine")
    assert "value: 2\n" in two.kv("dump", "show", two.aside("data.before-join-*.dump"))[0]
    shown = [board.kv("net", "show")[0].replace(str(board.home), "HOME") for board in (one, two)]
    assert shown[0] == shown[1]
    two.start()
    assert until(lambda: two.held() == {"ours": 1})
    two.write({"later": 3})
    assert until(lambda: one.held() == {"ours": 1, "later": 3})


def test_what_is_kept_waits_for_the_network(
    new_board: Callable[[str], Board], broker: Mosquitto
) -> None:
    one, two = new_board("one"), new_board("two")
    one.kv("net", "create", "--mqtt", broker.uri)
    one.kv("net", "join-file", one.home / "f")
    two.start().write({"theirs": 2}).stop()
    two.kv("net", "join", one.home / "f", "--keep-mine")
    waiting = two.data / "join.dump"
    assert "path: theirs\n" in two.kv("dump", "show", waiting)[0]
    assert "already" in two.kv("net", "join", one.home / "f", "--keep-mine")[1]
    # As a power cut before the end leaves it: no server starts, and the same command goes on.
    (two.home / "net.key").unlink()
    assert "net.key_file" in two.kv("server", code=2)[1]
    two.kv("net", "join", one.home / "f", "--keep-mine")
    assert waiting.exists()
    assert two.start().held() == {}


def test_create_overwrites_nothing_and_show_tells_no_secret(
    new_board: Callable[[str], Board],
) -> None:
    one = new_board("one")
    one.kv("net", "create", "house", "--mqtt", "mqtt://joe:s3cr%40t@box")
    shown = one.kv("net", "show")[0]
    key = (one.home / "net.key").read_text()
    fingerprint = next(line for line in shown.splitlines() if line.startswith("fingerprint"))
    assert "mqtt: 'mqtt://joe@box'\n" in shown or "mqtt: mqtt://joe@box\n" in shown
    assert "s3cr" not in shown + (one.home / "kvedge.toml.d" / "net.toml").read_text()
    assert "has a key already" in one.kv("net", "create", code=1)[1]
    assert (one.home / "net.key").read_text() == key
    text = one.kv("net", "join-file")[0]
    (one.home / "f").write_text(text)
    two = new_board("two")
    two.kv("net", "join", one.home / "f")  # it has no data, so there is nothing to decide
    assert fingerprint in two.kv("net", "show")[0]
    password = two.home / "net.mqtt.password"
    assert password.read_text() == "s3cr@t\n"
    assert password.stat().st_mode & 0o777 == 0o600


def test_a_stronger_setting_is_told_and_nothing_is_changed(
    new_board: Callable[[str], Board], broker: Mosquitto
) -> None:
    one, two = new_board("one"), new_board("two")
    one.kv("net", "create", "house")
    one.kv("net", "join-file", one.home / "f")
    two.start().write({"theirs": 2}).stop()
    extra = two.home / "kvedge.toml.d" / "site.toml"
    extra.parent.mkdir()
    extra.write_text('[net]\nname = "other"\n')
    said = two.kv("net", "join", one.home / "f", "--drop-mine", code=2)[1]
    assert f"{extra}:2: it sets net.name" in said
    extra.unlink()
    assert two.start().held() == {"theirs": 2}


def test_a_file_that_is_no_join_file(new_board: Callable[[str], Board]) -> None:
    one = new_board("one")
    said: Any = one.kv("net", "join", one.config, code=2)[1]
    assert said == f"kv: {one.config}: it is no join file, or it was cut: it is not JSON\n"
