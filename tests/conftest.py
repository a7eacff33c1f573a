"""Fixtures that every kind of test may need; the others stand in the nearest conftest."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import hypothesis
import pytest

# A busy machine is slow without being wrong, hence no deadline.  In CI the same cases are drawn
# each time; what a developer's machine finds is printed as a blob to be repeated anywhere.
hypothesis.settings.register_profile("local", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.load_profile("ci" if "CI" in os.environ else "local")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--rewrite`."""
    parser.addoption("--rewrite", action="store_true", help="renew transcripts and documents")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop of async tests; code for both loops parametrises this name."""
    return "asyncio"


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The directory with pyproject.toml."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def kv() -> Path:
    """The installed `kv` command, beside the interpreter that runs the tests."""
    command = Path(sys.executable).with_name("kv")
    assert command.exists(), f"{command} is not installed: pip install -e '.[test]'"
    return command


@pytest.fixture
def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
