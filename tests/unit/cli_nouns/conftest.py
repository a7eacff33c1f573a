"""The commands in this process, against one real `kv server` for all tests of this folder."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from kvedge.cli import main
from kvedge.client.sync import SyncClient, connect
from kvedge.model.path import KV, SYSTEM
from kvedge.testing.transcripts import Outcome, Run, in_process

NODE = "test1"

Kv = Callable[..., Outcome]
"""Runs `kv` with these words; `typed` is its standard input."""


@pytest.fixture(scope="session")
def socket(tmp_path_factory: pytest.TempPathFactory, kv: Path) -> Iterator[str]:
    """The socket of a server of the node `test1`, which keeps nothing."""
    path = str(tmp_path_factory.mktemp("kv") / "kv.sock")
    words = [str(kv), "server", "--listen", f"unix:{path}", NODE]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"Running.\n"
            yield path
        finally:
            process.terminate()


@pytest.fixture
def client(socket: str) -> Iterator[SyncClient]:
    """A client of the server, whose tree is empty."""
    with connect([f"unix:{socket}"]) as connected:
        for place in (KV, SYSTEM):
            connected.delete_tree(place)
        yield connected


@pytest.fixture
def run_words(socket: str, client: SyncClient) -> Run:
    """Runs a command line, `kv` included, with a text as standard input."""

    def run(words: Sequence[str]) -> int:
        return main.run(words, {"KV_SOCKET": socket})

    return in_process(run)


@pytest.fixture
def kv_here(run_words: Run) -> Kv:
    """Runs `kv` in this process."""

    def run(*words: str, typed: str = "") -> Outcome:
        return run_words(["kv", *words], typed)

    return run
