"""The sessions and programs in README and tutorial do what they show.

A fence behind `<!-- test: session -->` is a transcript; all of one document run in one session,
against one server.  A fence behind `<!-- test: python -->` is a program, and the next plain fence
what it prints.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from kvedge.cli import main
from kvedge.testing.node import server_in_thread
from kvedge.testing.transcripts import Run, in_process, play

ROOT = Path(__file__).resolve().parents[2]
SESSION = re.compile(r"<!-- test: session -->\n```console\n(.*?)```", re.DOTALL)
PROGRAM = re.compile(r"<!-- test: python -->\n```python\n(.*?)```.*?\n```\n(.*?)```", re.DOTALL)
DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs" / "tutorial").glob("*.md")),
    *sorted((ROOT / "docs" / "howto").glob("*.md")),
]


def names(pattern: re.Pattern[str]) -> list[str]:
    """Return the documents that have such a fence."""
    return [str(d.relative_to(ROOT)) for d in DOCUMENTS if pattern.search(d.read_text())]


@pytest.fixture
def socket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The socket of a server as the tutorial starts it, whose ticks count from 1."""
    monkeypatch.setattr(secrets, "randbits", lambda _: 0)
    with server_in_thread(initial="Testing") as address:
        yield address.removeprefix("unix:")


@pytest.fixture
def kv_here(socket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `kv` in this process; files that it is to write go to a directory of the test."""
    monkeypatch.chdir(tmp_path)

    def run(words: Sequence[str]) -> int:
        return main.run(words, {"KV_SOCKET": socket, "HOME": "/nonexistent"})

    return in_process(run)


@pytest.mark.parametrize("name", names(SESSION))
def test_session(name: str, kv_here: Run, pytestconfig: pytest.Config) -> None:
    document = ROOT / name
    text = document.read_text()
    played = SESSION.sub(lambda found: found[0].replace(found[1], play(found[1], kv_here)), text)
    if pytestconfig.getoption("--rewrite"):
        document.write_text(played)
    assert played == text


@pytest.mark.parametrize("name", names(PROGRAM))
def test_program(name: str, socket: str) -> None:
    for program, printed in PROGRAM.findall((ROOT / name).read_text()):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={"PATH": os.environ["PATH"], "KV_SOCKET": socket},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert (done.stdout, done.stderr) == (printed, "")


def test_readme_and_tutorial_have_sessions() -> None:
    assert {"README.md", "docs/tutorial/first-board.md"} <= set(names(SESSION))
    assert names(PROGRAM)
