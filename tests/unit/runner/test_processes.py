"""The fork server makes processes, tells of their end, and takes all of them with it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from kvedge.errors import Disconnected, LimitExceeded
from kvedge.runner import processes
from kvedge.runner.heartbeat import Heartbeat
from kvedge.runner.processes import (
    PROVEN_AFTER_S,
    RESTART_MAX_S,
    SILENCE_MAX_S,
    ForkServer,
    failures_after,
    keep_running,
    restart_wait_s,
)
from kvedge.testing.clock import VirtualClock

PATIENCE_S = 10.0


def exit_with(options: Mapping[str, Any]) -> int:
    code: int = options["code"]
    return code


def crash(options: Mapping[str, Any]) -> int:
    raise RuntimeError("on purpose")


def sleep(options: Mapping[str, Any]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(5))
    Path(options["file"]).write_text(str(os.getpid()))
    time.sleep(600)
    return 0


def sleep_with_child(options: Mapping[str, Any]) -> int:
    """Start a process of its own, which does not know that it should end."""
    inner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(options["file"]).write_text(f"{os.getpid()} {inner.pid}")
    time.sleep(600)
    return 0


def leave_child(options: Mapping[str, Any]) -> int:
    """End, and leave a process behind."""
    inner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    return 0 if Path(options["file"]).write_text(str(inner.pid)) else 1


def open_files(options: Mapping[str, Any]) -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


ENTRIES = {
    f.__name__: f for f in (exit_with, crash, sleep, sleep_with_child, leave_child, open_files)
}


@pytest.fixture
def forked() -> Iterator[ForkServer]:
    server = ForkServer(ENTRIES)
    yield server
    server.close()


@pytest.fixture
async def server(forked: ForkServer) -> AsyncIterator[ForkServer]:
    async with forked.opened():
        yield forked


async def until(is_it: Callable[[], bool]) -> bool:
    """Poll for what other processes do; tell whether it came about."""
    with anyio.move_on_after(PATIENCE_S):
        while not is_it():  # noqa: ASYNC110 -- processes set no events of ours
            await anyio.sleep(0.005)
    return is_it()


async def pids_in(file: Path) -> list[int]:
    """Wait until a child has written its pids."""
    assert await until(lambda: bool(_text_of(file)))
    return [int(pid) for pid in _text_of(file).split()]


def _text_of(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # not there yet, or a process that is gone
        return ""


def is_alive(pid: int) -> bool:
    """Tell whether a process is there and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children_of(parent: int) -> list[str]:
    """Return the pids of a process's children."""
    stats = [_text_of(file) for file in Path("/proc").glob("[0-9]*/stat")]
    return [stat.split()[0] for stat in stats if _parent_in(stat) == str(parent)]


def _parent_in(stat: str) -> str:
    return stat.rpartition(")")[2].split()[1] if stat else ""


async def is_dead(*pids: int) -> bool:
    return await until(lambda: not any(map(is_alive, pids)))


async def test_child_runs_its_entry_and_its_code_is_told(server: ForkServer) -> None:
    children = [await server.spawn("exit_with", {"code": code}) for code in (0, 3)]
    assert [await child.wait() for child in children] == [0, 3]
    assert server.pid not in {child.pid for child in children}


async def test_crash_is_told_and_the_next_child_runs(server: ForkServer) -> None:
    assert await (await server.spawn("crash", {})).wait() == 70
    assert await (await server.spawn("exit_with", {"code": 1})).wait() == 1


async def test_child_inherits_no_files(server: ForkServer, tmp_path: Path) -> None:
    with (tmp_path / "open").open("w"):
        other = ForkServer(ENTRIES)
    async with other.opened():
        assert await (await other.spawn("open_files", {})).wait() == 4  # and that of the listing


async def test_child_is_stopped_by_a_signal(server: ForkServer, tmp_path: Path) -> None:
    child = await server.spawn("sleep", {"file": str(tmp_path / "pid")})
    assert await pids_in(tmp_path / "pid") == [child.pid]
    child.kill(signal.SIGTERM)
    assert await child.wait() == 5
    child.kill(signal.SIGTERM)  # a dead one gets none


async def test_kill_takes_what_the_child_has_started(server: ForkServer, tmp_path: Path) -> None:
    child = await server.spawn("sleep_with_child", {"file": str(tmp_path / "pid")})
    _, inner = await pids_in(tmp_path / "pid")
    child.kill(signal.SIGKILL)
    assert await child.wait() == -signal.SIGKILL
    assert await is_dead(inner)


async def test_end_of_a_child_takes_what_it_has_left(server: ForkServer, tmp_path: Path) -> None:
    child = await server.spawn("leave_child", {"file": str(tmp_path / "pid")})
    assert await child.wait() == 0
    assert await is_dead(*await pids_in(tmp_path / "pid"))


async def test_end_of_the_block_ends_all(tmp_path: Path) -> None:
    server = ForkServer(ENTRIES)
    async with server.opened():
        await server.spawn("sleep_with_child", {"file": str(tmp_path / "pid")})
        pids = await pids_in(tmp_path / "pid")
    assert await is_dead(server.pid, *pids)


async def test_sigterm_is_passed_on_and_nothing_is_made_any_more(tmp_path: Path) -> None:
    server = ForkServer(ENTRIES)

    async def use() -> None:
        async with server.opened():
            child = await server.spawn("sleep", {"file": str(tmp_path / "pid")})
            await pids_in(tmp_path / "pid")
            os.kill(server.pid, signal.SIGTERM)
            assert await child.wait() == 5
            assert is_alive(server.pid)
            await server.spawn("exit_with", {"code": 0})

    with pytest.raises(Disconnected):
        await use()
    assert await is_dead(server.pid)


async def test_death_of_the_fork_server_is_told_and_takes_the_children(tmp_path: Path) -> None:
    server = ForkServer(ENTRIES)
    file = tmp_path / "pid"

    async def use() -> None:
        async with server.opened():
            child = await server.spawn("sleep", {"file": str(file)})
            await pids_in(file)
            os.kill(server.pid, signal.SIGKILL)
            await child.wait()

    with pytest.raises(Disconnected):
        await use()
    assert await is_dead(*await pids_in(file))


async def test_death_of_the_agent_takes_all(tmp_path: Path) -> None:
    text = f"""
import os, anyio, time
from pathlib import Path
from kvedge.runner.processes import ForkServer
def sleep(options):
    Path({str(tmp_path / "pid")!r}).write_text(f"{{os.getppid()}} {{os.getpid()}}")
    time.sleep(600)
async def main():
    async with server.opened():
        await server.spawn("sleep", {{}})
        await anyio.sleep(600)
server = ForkServer({{"sleep": sleep}})
anyio.run(main)
"""
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    async with await anyio.open_process([sys.executable, "-c", text], env=environment) as agent:
        pids = await pids_in(tmp_path / "pid")
        agent.kill()
    assert await is_dead(*pids)


async def test_child_of_a_cancelled_spawn_is_ended(server: ForkServer, tmp_path: Path) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await server.spawn("sleep", {"file": str(tmp_path / "pid")})
    child = await server.spawn("exit_with", {"code": 0})  # the other one was made before it
    await child.wait()
    assert await until(lambda: not children_of(server.pid))


async def test_too_long_options_are_refused(server: ForkServer) -> None:
    with pytest.raises(LimitExceeded, match="60000 bytes are allowed"):
        await server.spawn("exit_with", {"code": "x" * 70_000})


async def test_kept_process_starts_again_and_is_told_to_end(
    server: ForkServer, tmp_path: Path
) -> None:
    file = tmp_path / "pid"
    clock = VirtualClock()
    async with anyio.create_task_group() as tasks:

        async def keep() -> None:
            await keep_running(
                server, "sleep", {"file": str(file)}, clock=clock, sleep_until=clock.sleep_until
            )

        tasks.start_soon(keep)
        (first,) = await pids_in(file)
        file.unlink()
        os.kill(first, signal.SIGKILL)
        assert await is_dead(first)
        while not _text_of(file):
            await clock.advance(restart_wait_s(1))
        (second,) = await pids_in(file)
        tasks.cancel_scope.cancel()
    assert await is_dead(second)


async def test_child_whose_heart_stands_still_is_killed(server: ForkServer, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    clock = VirtualClock()
    heart = Heartbeat()
    async with anyio.create_task_group() as tasks:

        async def keep() -> None:
            options = {"file": str(file)}
            await keep_running(
                server, "sleep", options, clock=clock, sleep_until=clock.sleep_until, heart=heart
            )

        tasks.start_soon(keep)
        (pid,) = await pids_in(file)
        for _ in range(20):
            heart.beat()
            await clock.advance(SILENCE_MAX_S / 2)
        assert is_alive(pid)
        await clock.advance(SILENCE_MAX_S + 1)
        assert await is_dead(pid)
        tasks.cancel_scope.cancel()


WAITS = [(1, 0.1), (2, 0.2), (4, 0.8), (100, RESTART_MAX_S), (10_000, RESTART_MAX_S)]


@pytest.mark.parametrize(("failures", "wait_s"), WAITS)
def test_restarts_become_rarer_up_to_a_bound(failures: int, wait_s: float) -> None:
    assert restart_wait_s(failures) == pytest.approx(wait_s)


@pytest.mark.parametrize(("ran_s", "failures"), [(0.0, 4), (PROVEN_AFTER_S, 1)])
def test_a_long_run_begins_counting_anew(ran_s: float, failures: int) -> None:
    assert failures_after(3, ran_s=ran_s) == failures


def test_fork_server_says_why_it_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = logging.FileHandler(tmp_path / "log", delay=True)
    monkeypatch.setattr(processes.log, "handlers", [told])
    server = ForkServer(ENTRIES)
    os.write(server._requests, b"\0\0\0\1\xc1")  # no msgpack
    os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
    server.close()
    told.close()
    assert "ValueError" in (tmp_path / "log").read_text()
