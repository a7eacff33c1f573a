"""Boards are upgraded one by one: two installed builds, one minor version apart, share a tree.

Both are wheels of this project.  The newer one is made of a copy in which the minor version is one
higher and which does all that a newer minor may do: it appends a field to every envelope and a part
to every body, and it sends a kind of message that the older one does not know.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kvedge.model.stamp import Rid
from kvedge.protocol.envelope import VERSION_MAJOR, VERSION_MINOR, Opened, Opener, mac_key
from kvedge.testing.mosquitto import Mosquitto, mosquitto

pytestmark = [pytest.mark.system, pytest.mark.slow]

HEAL_S = 10.0
"""Five seconds after being connected again, what a reconnect takes, and a busy machine."""

ENTRIES = 2000
"""With their values more than one part of a pull carries."""

NEWS = b"\xb0of a newer minor"  # a packed text
NEWER_VERSION = "99.1"

TALKS_MORE = """

def _tick_with_news(network: Network) -> float:
    network._publish("d", "novelty", packb((1, "nobody knows me")))
    return _plain_tick(network)


_plain_tick, Network.tick = Network.tick, _tick_with_news
"""

APPEND = f"""        assert 0x90 <= body[0] < 0x9f, "the bodies are short arrays"
        body = bytes((body[0] + 1,)) + body[1:] + {NEWS!r}
        fields = packb((*self._sender, number, kind, body, {{"of": "a newer minor"}}))
"""


@dataclass(frozen=True)
class Build:
    """An installed build, apart from all others."""

    place: Path

    @property
    def kv(self) -> Path:
        return self.place / "bin" / "kv"

    @property
    def environ(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self.place)}


def change(file: Path, old: str, new: str) -> None:
    """Replace a piece of text that is there once."""
    text = file.read_text()
    assert text.count(old) == 1, f"{file.name} has {old!r} {text.count(old)} times"
    file.write_text(text.replace(old, new))


def copy_sources(root: Path, to: Path) -> Path:
    """Copy what a build needs."""
    to.mkdir()
    for name in ("agent", "drivers"):
        shutil.copytree(root / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE-MIT", "LICENSE-APACHE"):
        shutil.copy(root / name, to)
    return to


def make_newer(sources: Path) -> None:
    """Turn sources into those of the next minor version."""
    envelope = sources / "agent/kvedge/protocol/envelope.py"
    change(envelope, f"VERSION_MINOR = {VERSION_MINOR}\n", f"VERSION_MINOR = {VERSION_MINOR + 1}\n")
    change(envelope, "        fields = packb((*self._sender, number, kind, body))\n", APPEND)
    network = sources / "agent/kvedge/server/network.py"
    text = network.read_text()
    assert "    def tick(self) -> float:\n" in text
    assert "    def _publish(self, topic: str, kind: str, body: bytes) -> None:\n" in text
    network.write_text(text + TALKS_MORE)
    change(sources / "pyproject.toml", 'version = "0.1.0"', f'version = "{NEWER_VERSION}"')


def install(sources: Path, work: Path) -> Build:
    """Build a wheel and install it, both without the network."""
    wheels, place = work / "wheels", work / "installed"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(wheels)]
    subprocess.run([*pip, *build, str(sources)], check=True)
    [wheel] = wheels.glob("*.whl")
    into = ["install", "--no-deps", "--no-index", "--target", str(place)]
    subprocess.run([*pip, *into, str(wheel)], check=True)
    return Build(place)


@pytest.fixture(scope="module")
def builds(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Build]:
    """The builds of this version, of the next minor and of the next major."""
    work = tmp_path_factory.mktemp("builds")
    older = copy_sources(project_root, work / "older")
    newer = copy_sources(project_root, work / "newer")
    make_newer(newer)
    made = {"older": install(older, work / "o"), "newer": install(newer, work / "n")}
    made["major"] = Build(work / "m")
    shutil.copytree(made["older"].place, made["major"].place)
    envelope = made["major"].place / "kvedge/protocol/envelope.py"
    change(envelope, f"VERSION_MAJOR = {VERSION_MAJOR}\n", f"VERSION_MAJOR = {VERSION_MAJOR + 1}\n")
    return made


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker of the test's own."""
    with mosquitto(tmp_path / "broker") as running:
        yield running


class Board:
    """A server whose build can be changed between two starts."""

    def __init__(self, server: Any, broker: Mosquitto) -> None:
        self.server = server
        self._broker = broker

    def start(self, build: Build) -> Board:
        self.server._kv = build.kv
        self.server.start("--mqtt", self._broker.uri, environ=build.environ)
        return self

    def stop(self) -> None:
        assert self.server.terminate()[0] == 0

    def held(self) -> dict[str, object]:
        with self.server.connect() as client:
            found = {str(item.path): item.value for item in client.get_tree(":")}
        return {path: value for path, value in found.items() if not path.startswith(":.kv")}

    def write(self, path: str, value: object, **conditions: Any) -> None:
        with self.server.connect() as client:
            client.set(path, value, **conditions)

    def fill(self, below: str, count: int = ENTRIES) -> None:
        with self.server.connect() as client:
            for number in range(count):
                client.set(f"{below}.x{number}", "v" * 150, relaxed=True)

    def has_no_complaint(self) -> None:
        assert "refused a message" not in self.server.log(), self.server.log()


@pytest.fixture
def new_board(new_server: Callable[..., Any], broker: Mosquitto) -> Callable[[str], Board]:
    """Returns boards that are not started yet, by name."""
    return lambda name: Board(new_server(name, node=name), broker)


def until(condition: Callable[[], bool], within_s: float = HEAL_S) -> bool:
    """Wait for real processes to come to something."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def are_equal(first: Board, second: Board, size: int) -> bool:
    held = first.held()
    return len(held) == size and second.held() == held


def until_equal(first: Board, second: Board, size: int) -> bool:
    return until(lambda: are_equal(first, second, size))


def until_some(what: Callable[[Board], list[str]], board: Board) -> bool:
    return until(lambda: bool(what(board)))


BOTH_ORDERS = pytest.mark.parametrize(
    ("first", "second"), [("older", "newer"), ("newer", "older")], ids=lambda name: f"{name}"
)


def test_each_build_is_what_it_should_be(builds: dict[str, Build]) -> None:
    def said(name: str) -> object:
        command = [str(builds[name].kv), "--version"]
        ended = subprocess.run(
            command, env=builds[name].environ, capture_output=True, text=True, check=True
        )
        return ended.stdout

    assert said("newer") == f"kv {NEWER_VERSION}\n"
    assert said("older") == said("major") != said("newer")


def test_writes_travel_both_ways(
    builds: dict[str, Build],
    new_board: Callable[[str], Board],
    broker: Mosquitto,
    new_stranger: Callable[[Mosquitto], Any],
) -> None:
    stranger = new_stranger(broker)
    older = new_board("o").start(builds["older"])
    newer = new_board("n").start(builds["newer"])
    assert until(lambda: "node n is there" in older.server.log())
    assert until(lambda: "node o is there" in newer.server.log())
    older.write("a.from_older", {"x": 1})
    newer.write("a.from_newer", {"y": 2})
    assert until(lambda: are_equal(older, newer, 2))
    newer.write("a.from_older", 3, prev={"x": 1})
    assert until(lambda: older.held().get("a.from_older") == 3)
    for board, path in ((older, "a.from_newer"), (newer, "a.from_older")):
        with board.server.connect() as client:
            client.delete(path)
    assert until(lambda: are_equal(older, newer, 0))
    older.has_no_complaint()
    newer.has_no_complaint()
    kinds = heard_kinds(stranger.heard)
    assert (VERSION_MINOR, "update") in kinds
    assert (VERSION_MINOR + 1, "update") in kinds
    assert (VERSION_MINOR + 1, "novelty") in kinds


def heard_kinds(heard: list[tuple[str, bytes]]) -> set[tuple[int, str]]:
    """Return minor version and kind of all messages; see what the newer ones append."""
    opener = Opener("kvedge", mac_key("kvedge", None), Rid("nobody", 1))
    kinds = set()
    for topic, payload in heard:
        opened = opener.open(topic.removeprefix("kvedge/"), payload)
        assert isinstance(opened, Opened), opened
        assert opened.body.endswith(NEWS) == (opened.minor > VERSION_MINOR)
        kinds.add((opened.minor, opened.kind))
    return kinds


@BOTH_ORDERS
def test_a_newcomer_pulls_from_the_other_version(
    builds: dict[str, Build], new_board: Callable[[str], Board], first: str, second: str
) -> None:
    there = new_board("there").start(builds[first])
    there.fill("old")
    newcomer = new_board("newcomer").start(builds[second])
    assert until(lambda: are_equal(there, newcomer, ENTRIES))
    newcomer.write("mine", 1)
    assert until(lambda: are_equal(there, newcomer, ENTRIES + 1))
    there.has_no_complaint()
    newcomer.has_no_complaint()


@BOTH_ORDERS
def test_restarts_in_either_order(
    builds: dict[str, Build], new_board: Callable[[str], Board], first: str, second: str
) -> None:
    boards = {name: new_board(name).start(builds[name]) for name in (first, second)}
    boards[first].write("before", 0)
    assert until(lambda: are_equal(boards[first], boards[second], 1))
    for name, other in ((first, second), (second, first)):
        boards[name].stop()
        boards[other].fill(f"while_{name}_was_away", 300)
        boards[name].start(builds[name])
        expected = 301 if name == first else 601
        assert until_equal(boards[first], boards[second], expected)
    for name in (first, second):
        boards[name].server.kill()
    for name in (first, second):
        boards[name].start(builds[name])
    assert until(lambda: are_equal(boards[first], boards[second], 601))
    boards[second].write("after", 1)
    assert until(lambda: are_equal(boards[first], boards[second], 602))


def test_boards_are_upgraded_one_by_one_and_back(
    builds: dict[str, Build], new_board: Callable[[str], Board]
) -> None:
    boards = [new_board(name).start(builds["older"]) for name in ("one", "two")]
    size = 0
    for board, other, build in (
        (boards[0], boards[1], "newer"),
        (boards[1], boards[0], "newer"),
        (boards[0], boards[1], "older"),
    ):
        board.stop()
        other.write(f"x{size}", size)
        board.start(builds[build])
        board.write(f"y{size}", size)
        size += 2
        assert until_equal(boards[0], boards[1], size)
    for board in boards:
        board.has_no_complaint()


def test_another_major_is_refused_in_one_line_and_counted(
    builds: dict[str, Build], new_board: Callable[[str], Board]
) -> None:
    here = new_board("here").start(builds["older"])
    there = new_board("there").start(builds["major"])
    here.write("ours", 1)
    there.write("theirs", 2)

    def refusals(board: Board) -> list[str]:
        return [line for line in board.server.log().splitlines() if "refused a message" in line]

    line = "refused a message: another major version: {0}, ours is {1} (1 so far)"
    for board, ours, theirs in ((here, 1, 2), (there, 2, 1)):
        assert until_some(refusals, board)
        [told] = refusals(board)
        assert told.endswith(line.format(theirs, ours)), told
    for number in range(20):
        there.write("theirs", number)
    assert len(refusals(here)) == 1
    assert here.held() == {"ours": 1}
    assert there.held() == {"theirs": 19}
