"""Fixtures of the contract suites: a real server process that a suite shares."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

START_S = 15.0  # what takes a quarter of a second on an idle machine


@pytest.fixture(scope="module")
def tcp_address() -> str:
    """Where the server listens as well."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture(scope="module")
def server_address(
    kv: Path, tcp_address: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a server with a directory of its own; tests keep to places of their own."""
    directory = tmp_path_factory.mktemp("server")
    address = f"unix:{directory}/kv.sock"
    listen = ["--listen", address, "--listen", tcp_address]
    command = [str(kv), "server", "--dir", f"{directory}/data", *listen, "contract"]
    with (directory / "stderr").open("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        timer = threading.Timer(START_S, process.kill)
        timer.start()
        assert process.stdout is not None
        started = process.stdout.readline()
        timer.cancel()
        try:
            assert started == "Running.\n", (directory / "stderr").read_text()
            yield address
        finally:
            process.terminate()
            code = process.wait(START_S)
            process.stdout.close()
            said = (directory / "stderr").read_text()
    assert code == 0, said
    assert "Traceback" not in said
    assert "Exception" not in said
