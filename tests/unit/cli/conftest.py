"""The command line in this process, against a real server in a thread beside it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest

from kvedge.cli import main
from kvedge.client.sync import SyncClient, connect
from kvedge.testing.node import server_in_thread
from kvedge.testing.transcripts import Run, in_process


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server of the node `test`, whose ticks count from 1."""
    monkeypatch.setattr(secrets, "randbits", lambda _: 0)
    with server_in_thread() as address:
        yield address


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
