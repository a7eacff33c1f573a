"""The tutorial's "Code execution" and "Errors" as processes, and `kv run all` in particular."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

pytestmark = pytest.mark.system

NODE = "box"
PATIENCE_S = 20.0  # for what takes milliseconds on an idle machine

Start = Callable[..., "subprocess.Popen[str]"]
Kv = Callable[..., str]


@pytest.fixture
def environ() -> Iterator[dict[str, str]]:
    """An environment in which no configuration and no other server is found."""
    with tempfile.TemporaryDirectory(prefix="kv") as directory:  # short enough for a socket
        keep = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        yield {**keep, "HOME": directory, "KV_SOCKET": f"{directory}/kv.sock"}


@pytest.fixture
def start(kv: Path, environ: dict[str, str]) -> Iterator[Start]:
    """Starts `kv` in the background; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def run(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [str(kv), *words],
            env=environ,
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


@pytest.fixture
def server(start: Start, environ: dict[str, str]) -> subprocess.Popen[str]:
    """A server of the node `box`."""
    process = start("server", "--listen", f"unix:{environ['KV_SOCKET']}", NODE)
    assert line_of(process.stdout) == "Running.\n"
    return process


@pytest.fixture
def kv_run(kv: Path, environ: dict[str, str], server: subprocess.Popen[str]) -> Kv:
    """Runs `kv` and returns its standard output, or standard error if it shall fail.

    `typed` is its standard input, `code` the exit code that it must have.
    """

    def run(*words: str, typed: str = "", code: int = 0) -> str:
        done = subprocess.run(
            [str(kv), *words],
            env=environ,
            input=typed,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout

    return run


def line_of(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline()


def wait_for(ask: Callable[[], Any]) -> Any:
    """Ask a real process until the answer is something, and return it."""
    end = time.monotonic() + PATIENCE_S
    while not (answer := ask()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)
    return answer


@contextmanager
def ended_by(process: subprocess.Popen[str], number: signal.Signals, code: int) -> Iterator[None]:
    """End a process by a signal behind the block, and check its exit code."""
    yield
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code, errors
    assert "Traceback" not in errors


def test_the_tutorial_runs_code(kv_run: Kv, start: Start) -> None:
    kv_run("code", "set", "the.answer", typed='print("Forty-Two!")\nreturn 42\n')
    kv_run("run", "-n", NODE, "set", "-c", "the.answer", "-t", "0", "a.question")

    def done() -> list[Any]:
        jobs = json.loads(kv_run("run", "list", "--json"))
        return [job["result"] for job in jobs if job["state"] == "done"]

    runner = start("run", "-n", NODE, "all")
    with ended_by(runner, signal.SIGINT, 130):
        assert line_of(runner.stdout) == "Forty-Two!\n"
        assert wait_for(done) == [42]
    log = kv_run("run", "-n", NODE, "log", "a.question")
    assert log.endswith(" Forty-Two!\n")


def test_the_tutorial_provokes_an_error(kv_run: Kv, start: Start) -> None:
    kv_run("code", "set", "the.error", typed='raise RuntimeError("Owch")\n')
    kv_run("run", "-n", NODE, "set", "-c", "the.error", "-t", "0", "what.me.worry")
    runner = start("run", "-n", NODE, "all")
    with ended_by(runner, signal.SIGTERM, 0):
        assert "Owch" in line_of(runner.stdout)
        wait_for(lambda: "Owch" in kv_run("error", "list"))
    assert kv_run("error", "list", "-d_").startswith(f"{NODE}:\n")
    shortened = kv_run("error", "list", "-d_", ":.kv.run.single")
    assert f"path: {NODE}.default.what.me.worry\n" in shortened
    details = kv_run("error", "list", "-d_", "-a", "-n", NODE)
    assert 'raise RuntimeError("Owch")' in details
    kv_run("error", "resolve", f":.kv.run.single.{NODE}.default.what.me.worry")
    assert kv_run("error", "list") == ""


def test_a_second_runner_is_refused(kv_run: Kv, start: Start) -> None:
    runner = start("run", "-n", NODE, "all")
    with ended_by(runner, signal.SIGINT, 130):
        wait_for(lambda: "kv run all" in kv_run("run", "info"))
        told = kv_run("run", "-n", NODE, "all", code=1)
        assert f"are already run by kv run all (process {runner.pid})" in told
        assert told.count("\n") == 1
    assert "kv run all" not in kv_run("run", "info")


def test_log_follows_a_running_job(kv_run: Kv, start: Start) -> None:
    text = 'for count in range(1000):\n    print("line", count)\n    await _self.sleep(0.1)\n'
    kv_run("code", "set", "talk", "--async", typed=text)
    kv_run("run", "-n", NODE, "set", "-c", "talk", "-t", "now", "talk")
    runner = start("run", "-n", NODE, "all")
    with ended_by(runner, signal.SIGTERM, 0):
        follower = start("run", "-n", NODE, "log", "-f", "talk")
        with ended_by(follower, signal.SIGINT, 130):
            texts = [line_of(follower.stdout)[20:] for _ in range(15)]
            assert texts == [f"line {count}\n" for count in range(15)]


def test_the_server_goes_while_jobs_run(
    kv_run: Kv, start: Start, server: subprocess.Popen[str]
) -> None:
    runner = start("run", "-n", NODE, "all")
    wait_for(lambda: "kv run all" in kv_run("run", "info"))
    server.kill()
    _, errors = runner.communicate(timeout=PATIENCE_S)
    assert runner.returncode == 3, errors
    assert errors.startswith("kv: the connection ended")
    assert "Traceback" not in errors


@pytest.mark.usefixtures("server")
def test_jobs_of_another_node_are_run_with_a_word(start: Start) -> None:
    runner = start("run", "-n", "other", "all")
    assert line_of(runner.stderr) == (
        f"kv: note: this is the server of {NODE}; the jobs of other run here all the same\n"
    )
