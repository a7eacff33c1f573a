"""An agent's jobs survive what may happen to its processes, and their states tell of it."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path as File
from typing import Any, TypeVar

import pytest

from kvedge.client.sync import SyncClient, connect
from kvedge.errors import NotConnected
from kvedge.model.path import P, Path
from kvedge.runner import places

pytestmark = pytest.mark.system

NODE = "box"
PATIENCE_S = 20.0
Found = TypeVar("Found")
LOOP = 'await _self.set("seen", _client.greeting["tock"])\nasync for msg in _info: pass'


class Agent:
    """A `kv agent` with a directory of its own, which may be killed and started again."""

    def __init__(self, kv: File, directory: File) -> None:
        self._command = [str(kv), "agent", NODE]
        self._address = f"unix:{directory}/kv.sock"
        config = directory / "kvedge.toml"
        config.write_text(
            f'[server]\ndir = "{directory}/data"\nlisten = ["{self._address}"]\n'
            f'[[runner]]\nplacement = "single"\nclock = "any"\nblock_max_s = 1\n'
        )
        self._environment = {**os.environ, "KV_CONFIG": str(config)}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> SyncClient:
        """Start it and connect to it."""
        self._process = subprocess.Popen(self._command, env=self._environment)
        self.client: SyncClient = until(self._connect)
        return self.client

    def _connect(self) -> SyncClient | None:
        try:
            return connect([self._address])
        except NotConnected:
            return None

    def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for its end."""
        assert self._process is not None
        self.client.close()
        self._process.send_signal(number)
        return self._process.wait(PATIENCE_S)

    def runner_pid(self) -> int:
        """Wait for a living runner and return its pid."""
        place = places.runner_at("single", node=NODE, group="default")
        return until(lambda: self._pid(self.client.get(place).get("value")))

    def _pid(self, card: Any) -> int:
        return card["pid"] if card and is_alive(card["pid"]) else 0

    def state(self, tail: str, is_it: Callable[[Any], bool]) -> Any:
        """Wait until the state of a job is as it should be, and return it."""
        place = places.states_at("single", node=NODE, group="default") + P(tail)

        def look() -> Any:
            value = self.client.get(place).get("value")
            return value if value and is_it(value) else None

        return until(look)

    def set_job(
        self, tail: str, text: str, *, is_async: bool | None = True, **fields: object
    ) -> None:
        """Store code and a job that runs it at once, unless told otherwise."""
        name = Path("test", tail)
        self.client.set(places.procedure_at(name), {"code": text, "is_async": is_async})
        place = places.jobs_at("single", node=NODE, group="default") + P(tail)
        self.client.set(place, {"code": name, "data": {}, "target": 0} | fields)

    def fault(self, subsystem: str) -> Any:
        """Wait for a fault and return it with its detail."""

        def look() -> Any:
            values = [item.value for item in self.client.get_tree(places.ERRORS / NODE)]
            found = [value for value in values if value.get("subsystem") == subsystem]
            detail = [value for value in values if "trace" in value]
            return (found[0], detail[0]) if found and detail else None

        return until(look)


def until(look: Callable[[], Found | None]) -> Found:
    """Poll until something is there, and return it."""
    end_s = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < end_s, "it did not come about"
        time.sleep(0.01)
    return found


def is_alive(pid: int) -> bool:
    """Tell whether a process is there and is not a zombie."""
    try:
        return File(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def is_running(state: Any) -> bool:
    """Tell whether a state is that of a job which runs."""
    return bool(state["node"])


def is_later(started: float, state: Any) -> bool:
    """Tell whether a state is that of a later run."""
    return bool(state["started"] > started)


@pytest.fixture
def agent(kv: File, tmp_path: File) -> Iterator[Agent]:
    made = Agent(kv, tmp_path)
    made.start()
    yield made
    made.end(signal.SIGKILL)


def test_set_job_runs_at_once(agent: Agent) -> None:
    agent.runner_pid()
    agent.set_job("a.question", 'print("Forty-Two!")\nreturn 42', is_async=None)
    state = agent.state("a.question", lambda state: state["reason"] == "done")
    assert state["result"] == 42
    assert state["stopped"] - state["started"] < 1


def test_run_cut_off_with_the_agent_is_accounted_and_goes_on(agent: Agent) -> None:
    agent.set_job("loop", LOOP)
    before = agent.state("loop", is_running)
    runner = agent.runner_pid()
    agent.end(signal.SIGKILL)
    until(lambda: not is_alive(runner))
    agent.start()
    after = agent.state("loop", functools.partial(is_later, before["started"]))
    assert (after["node"], after["backoff"]) == (NODE, 1)


def test_runner_that_dies_leaves_the_server_alone_and_comes_back(agent: Agent) -> None:
    agent.set_job("loop", LOOP)
    before = agent.state("loop", is_running)
    os.kill(agent.runner_pid(), signal.SIGKILL)
    after = agent.state("loop", functools.partial(is_later, before["started"]))
    assert after["backoff"] == 1


BLOCKS = {
    "sleeping": "import time\ntime.sleep(600)",
    "computing": "while True: pass",
}


@pytest.mark.parametrize("text", BLOCKS.values(), ids=BLOCKS)
def test_job_that_blocks_the_loop_is_named_and_held_back(agent: Agent, text: str) -> None:
    agent.set_job("good", LOOP)
    good = agent.state("good", is_running)
    before = agent.runner_pid()
    agent.set_job("bad", text, delay=600)
    bad = agent.state("bad", lambda state: state["reason"] == "blocked the loop")
    assert (bad["node"], bad["backoff"]) == (None, 1)
    fault, detail = agent.fault("job")
    assert fault["path"] == places.jobs_at("single", node=NODE, group="default") / "bad"
    assert "blocked the event loop" in fault["message"]
    assert text.splitlines()[-1] in detail["trace"]
    after = agent.state("good", functools.partial(is_later, good["started"]))
    assert (after["node"], after["backoff"]) == (NODE, 0)
    assert agent.runner_pid() != before
    again = agent.state("bad", lambda state: state["computed"] is not None)
    assert again["computed"] > bad["stopped"] + 600


def test_words_start_a_job_on_the_clock_of_the_board(agent: Agent) -> None:
    second = (int(time.time()) + 3) % 60
    agent.set_job("worded", "return 1", target=f"{second} sec", zone="UTC")
    state = agent.state("worded", lambda state: state["reason"] == "done")
    assert int(state["started"]) % 60 == second


def test_job_that_takes_too_long_is_ended(agent: Agent) -> None:
    agent.set_job("slow", "await _self.sleep(600)", timeout=0.3)
    state = agent.state("slow", lambda state: state["reason"] == "timed out")
    assert (state["node"], state["backoff"]) == (None, 1)


def test_clean_stop_is_no_interruption(agent: Agent) -> None:
    agent.set_job("loop", LOOP)
    agent.set_job("stuck", "import time\ntime.sleep(600)", is_async=False)
    before = {tail: agent.state(tail, is_running)["started"] for tail in ("loop", "stuck")}
    begin_s = time.monotonic()
    assert agent.end(signal.SIGTERM) == 0
    assert time.monotonic() - begin_s < 5
    agent.start()
    for tail, started in before.items():
        after = agent.state(tail, functools.partial(is_later, started))
        assert (after["node"], after["backoff"]) == (NODE, 0)


def test_second_runner_is_refused_by_name(agent: Agent, kv: File) -> None:
    pid = agent.runner_pid()
    command = [str(kv), "-s", agent.client.endpoint.removeprefix("unix:"), "run", "-n", NODE, "all"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 1
    assert f"already run by kv agent (process {pid})" in done.stderr
