"""The command line in this process, against a real server in a thread beside it."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest

from kvedge.cli import main
from kvedge.client.sync import SyncClient, connect
from kvedge.clock import SystemClock
from kvedge.server.server import run_server
from kvedge.server.settings import ServerSettings
from kvedge.testing.transcripts import Run, in_process


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="renew the transcripts")


class UnsetClock(SystemClock):
    """A clock that nobody has set, so that tocks count from 1."""

    def wall_is_synchronised(self) -> bool:
        return False


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server of the node `test`, whose ticks count from 1."""
    monkeypatch.setattr(secrets, "randbits", lambda _: 0)
    with tempfile.TemporaryDirectory(prefix="kv") as directory:  # short enough for a socket
        address = f"unix:{directory}/kv.sock"
        stop: list[Callable[[], object]] = []
        ready = threading.Event()

        async def serve() -> None:
            stopped = asyncio.Event()
            loop = asyncio.get_running_loop()
            stop.append(lambda: loop.call_soon_threadsafe(stopped.set))
            async with run_server(ServerSettings("test", listen=(address,)), clock=UnsetClock()):
                ready.set()
                await stopped.wait()

        thread = threading.Thread(target=asyncio.run, args=[serve()])
        thread.start()
        assert ready.wait(5)
        yield address
        stop[0]()
        thread.join()


@pytest.fixture
def client(server: str) -> Iterator[SyncClient]:
    """A client of the server, beside the commands."""
    with connect([server]) as connected:
        yield connected


WAYS: Mapping[str, Sequence[Callable[..., int | None]]] = {
    "fast": [main.run_fast, main.run_click],
    "click": [main.run_click],
}


@pytest.fixture(params=WAYS)
def kv_here(request: pytest.FixtureRequest, server: str) -> Run:
    """Runs `kv` by each of its two ways."""
    ways = WAYS[request.param]
    environ = {"KV_SOCKET": server.removeprefix("unix:")}

    def run(words: Sequence[str]) -> int:
        return main.run(words, environ, ways)

    return in_process(run)
