"""Linter, formatter and type checker as tests, so that one command checks everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = ["ruff check .", "ruff format --check .", "mypy"]

# Each text is wrong by this project's settings alone, so it shows that they are in force.
LINE_OF_95 = f'x = print(\n    "{"a" * 77}", None\n)\n'
BAD_SOURCES = {
    "ruff check": "def f() -> None: ...\n",
    "ruff format --check": LINE_OF_95,
    "mypy": "def f(x):\n    return x\n",
}


def _run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_tool_is_content(project_root: Path, command: str) -> None:
    done = _run(project_root, *command.split())
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", BAD_SOURCES)
def test_tool_refuses_a_bad_source(project_root: Path, tmp_path: Path, command: str) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text(BAD_SOURCES[command])
    settings = ["--config", "pyproject.toml"] if command.startswith("ruff") else []
    done = _run(project_root, *command.split(), *settings, str(planted))
    assert done.returncode == 1, done.stdout + done.stderr
