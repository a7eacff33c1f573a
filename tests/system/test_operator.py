"""What an operator sees and does on a real network: status, members, conflicts, traffic."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from kvedge.client.client import open_client
from kvedge.model.path import P
from kvedge.model.places import CONFLICTS, MEMBERS
from kvedge.testing.mosquitto import Mosquitto, mosquitto

pytestmark = pytest.mark.system

PATIENCE_S = 15.0  # for what takes some seconds on an idle machine

Kv = Callable[..., str]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker of the test's own."""
    with mosquitto(tmp_path / "broker") as running:
        yield running


@pytest.fixture
def peers(new_server: Callable[..., Any], broker: Mosquitto) -> list[Any]:
    """Two servers of one network."""
    return [new_server(name, node=name).start("--mqtt", broker.uri) for name in ("one", "two")]


def is_seen(server: dict[str, Any]) -> bool:
    return bool(server["is_seen"])


def seen(kv_run: Kv) -> set[str]:
    """Return the nodes that the first server sees."""
    status = json.loads(kv_run("net", "status", "--json"))
    return {server["node"] for server in status["servers"] if is_seen(server)}


def wait_for(ask: Callable[[], Any]) -> Any:
    """Ask real processes until the answer is something, and return it."""
    end = time.monotonic() + PATIENCE_S
    while not (answer := ask()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)
    return answer


@pytest.fixture
def kv_run(kv: Path, peers: list[Any]) -> Kv:
    """Runs `kv` at the first server, or at `at`; returns what it printed on standard output."""

    def run(*words: str, at: int = 0, code: int = 0) -> str:
        done = subprocess.run(
            [str(kv), "-s", str(peers[at].socket), *words],
            env=peers[at].environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    return run


@pytest.fixture
def start(kv: Path, peers: list[Any]) -> Iterator[Start]:
    """Starts `kv` at the first server in the background; kills what still runs at the end."""
    started: list[subprocess.Popen[str]] = []

    def run(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [str(kv), "-s", str(peers[0].socket), *words],
            env=peers[0].environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def lines_until(process: subprocess.Popen[str], wanted: Callable[[str], bool]) -> list[str]:
    """Return the lines of a process up to one that is wanted."""
    assert process.stdout is not None
    give_up = threading.Timer(PATIENCE_S, process.kill)
    give_up.start()
    lines = []
    for line in process.stdout:
        lines.append(line)
        if wanted(line):
            break
    else:
        raise AssertionError(lines)
    give_up.cancel()
    return lines


# --- status ----------------------------------------------------------------------------------


def test_status_of_a_network(kv_run: Kv, peers: list[Any], broker: Mosquitto) -> None:
    wait_for(lambda: seen(kv_run) == {"one", "two"})

    def found() -> Any:
        return json.loads(kv_run("net", "status", "--json"))

    status = found()
    assert (status["name"], status["node"], status["connected"]) == ("kvedge", "one", True)
    assert status["reason"] is None
    servers = {server["node"]: server for server in status["servers"]}
    assert set(servers) == {"one", "two"}
    assert servers["one"]["seen_s"] == 0.0
    assert 0 <= servers["two"]["seen_s"] < PATIENCE_S
    assert {"version", "lag", "incarnation", "state"} <= set(servers["two"])
    text = kv_run("net", "status")
    assert text.startswith("network:   kvedge\nnode:      one\nbroker:    connected\n")
    assert "\ntwo  " in text
    broker.kill()
    assert wait_for(lambda: not (new := found())["connected"] and new["reason"])
    assert "broker:    not connected: " in kv_run("net", "status")


def test_what_is_refused_is_counted(
    kv_run: Kv, new_server: Callable[..., Any], broker: Mosquitto
) -> None:
    key = new_server("keyed", node="keyed")
    file = key.home / "kvedge.toml"
    (key.home / "key").write_text("secret of somebody else")
    file.write_text(f'[net]\nkey_file = "{key.home}/key"\n')
    key.start("--mqtt", broker.uri, environ={"KV_CONFIG": str(file)})
    wait_for(lambda: json.loads(kv_run("net", "status", "--json"))["refused"])
    assert "\nrefused:   " in kv_run("net", "status")


# --- members, conflicts ----------------------------------------------------------------------


def test_a_member_is_expired_when_it_is_gone(kv_run: Kv, peers: list[Any]) -> None:
    wait_for(lambda: "two" in seen(kv_run))
    with peers[0].connect() as client:
        for node in ("two", "away"):
            client.set(MEMBERS / node, {"state": "member", "by": "one", "reason": ""})
    states = {item["node"]: item for item in json.loads(kv_run("member", "list", "--json"))}
    assert (states["two"]["is_seen"], states["two"]["state"]) == (True, "member")
    assert states["away"]["seen_s"] is None
    assert "it is there" in kv_run("member", "expire", "two", "--yes", code=1)
    peers[1].terminate()
    wait_for(lambda: "two" not in seen(kv_run))
    kv_run("member", "expire", "two", "--yes")
    with peers[0].connect() as client:
        assert client.get(MEMBERS / "two").value["state"] == "expired"
    kv_run("member", "forget", "two", "--yes")
    with peers[0].connect() as client:
        assert "value" not in client.get(MEMBERS / "two")


def test_a_conflict_is_resolved_on_the_other_board(kv_run: Kv, peers: list[Any]) -> None:
    lost = {"node": "two", "tick": 1, "tock": 5, "value": "of two"}
    with peers[0].connect() as client:
        chain = client.set(P("lamp"), "of one", nchain=1).chain
        won = {"node": chain["node"], "tick": chain["tick"], "tock": 6, "value": "of one"}
        record = {"path": P("lamp"), "kind": "concurrent", "lost": lost, "won": won}
        client.set(CONFLICTS + ("two", 1), record)
    wait_for(lambda: "two.1" in kv_run("conflict", "list", at=1))
    assert json.loads(kv_run("net", "status", "--json", at=1))["conflicts"] == 1
    kv_run("conflict", "resolve", "two.1", "--keep", "lost", at=1)
    wait_for(lambda: kv_run("data", "get", "lamp") == '"of two"\n')
    wait_for(lambda: kv_run("conflict", "list", "--json") == "[]\n")


# --- state -----------------------------------------------------------------------------------


def test_state_tells_what_is_deleted(kv_run: Kv) -> None:
    kv_run("data", "set", "-e", ":", "1", "a")
    kv_run("data", "set", "-e", ":", "2", "a")
    kv_run("data", "delete", "a")

    def lists() -> Any:
        state = json.loads(kv_run("internal", "state", "--json", at=1))
        return state if state["deleted"].get("one") else None

    state = wait_for(lists)
    ((deleted, behind),) = state["deleted"]["one"]
    assert behind == deleted + 1
    assert deleted <= state["nodes"]["one"]  # who made somebody a member has written since
    superseded = state["superseded"]["one"]
    assert sum(end - first for first, end in superseded) == 2
    assert superseded[-1][1] <= deleted
    assert state["missing"] == {}


# --- traffic ---------------------------------------------------------------------------------


def test_monitor_shows_what_passes(kv_run: Kv, start: Start) -> None:
    monitor = start("monitor")
    as_json = start("monitor", "--json")
    for process in (monitor, as_json):
        lines_until(process, lambda line: "p/two" in line)
    kv_run("data", "set", "-e", ":", "1", "a.b")
    kv_run("data", "set", "-e", ":", "1", "c.d", at=1)
    theirs = lines_until(monitor, lambda line: " < two u/two update " in line)[-1]
    assert "record of two" in theirs
    assert theirs.endswith(": c.d\n")
    found = [json.loads(line) for line in lines_until(as_json, lambda line: '"c.d"' in line)]
    out = next(each for each in found if each.get("paths") == ["a.b"])
    assert (out["direction"], out["sender"], out["topic"]) == ("out", "one", "u/one")
    assert found[-1]["direction"] == "in"
    updates = [each for each in found if each.get("paths") == ["a.b"]]
    assert [(each["topic"], each["kind"]) for each in updates] == [("u/one", "update")]
    monitor.send_signal(signal.SIGINT)
    _, errors = monitor.communicate(timeout=PATIENCE_S)
    assert (monitor.returncode, errors.strip()) == (130, "")


def test_monitor_ends_quietly_with_its_reader(start: Start) -> None:
    monitor = start("monitor")
    lines_until(monitor, lambda _: True)
    assert monitor.stdout is not None
    monitor.stdout.close()
    assert monitor.wait(PATIENCE_S) == 0
    assert monitor.stderr is not None
    assert monitor.stderr.read() == ""


def test_monitor_ends_after_a_number(start: Start) -> None:
    monitor = start("monitor", "-o", "2")
    printed, _ = monitor.communicate(timeout=PATIENCE_S)
    assert (monitor.returncode, printed.count("\n")) == (0, 2)


def test_a_server_that_goes_ends_the_monitor(start: Start, peers: list[Any]) -> None:
    monitor = start("monitor")
    lines_until(monitor, lambda _: True)
    peers[0].kill()
    _, errors = monitor.communicate(timeout=PATIENCE_S)
    assert monitor.returncode == 3
    assert errors.startswith("kv: the connection ended")


def test_the_async_client_reads_the_traffic(peers: list[Any]) -> None:
    async def read() -> Any:
        async with open_client(peers[0].address) as client:
            status = await client.net_status()
            with anyio.fail_after(PATIENCE_S):
                async with client.traffic() as messages:
                    return status, [await anext(messages) for _ in range(3)]

    status, messages = anyio.run(read)
    assert status.name == "kvedge"
    assert {message.direction for message in messages} <= {"in", "out"}
