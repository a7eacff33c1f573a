"""`kv demo` shows readings, exits 0, and leaves nothing behind."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.system


def leftovers(directory: str) -> list[str]:
    """Return the command lines of living processes that name a directory."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        try:
            if directory.encode() in file.read_bytes():
                found.append(file.with_name("cmdline").read_text())
        except OSError:
            continue  # it has just ended, or is not ours
    return found


def directory_in(output: str) -> str:
    found = re.search(r"its socket in (\S+):", output)
    assert found, output
    return found[1]


def test_demo_shows_readings_and_cleans_up(kv: Path) -> None:
    done = subprocess.run(
        [kv, "demo", "--seconds", "5"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stdout + done.stderr
    assert '"hello, board"' in done.stdout
    assert "Forty-Two!" in done.stdout
    assert re.search(r"house\.attic\.temperature +2\d\.\d\d °C +ok", done.stdout)
    assert re.search(r"sensor\.demo\.host\.uptime +\d+ s +ok", done.stdout)
    assert re.search(r"@onewire +running", done.stdout)
    directory = directory_in(done.stdout)
    assert not leftovers(directory)
    assert not Path(directory).exists()


@pytest.fixture
def staying(kv: Path) -> Iterator[subprocess.Popen[str]]:
    """`kv demo --keep`, ended after the test if it has not ended by itself."""
    with subprocess.Popen(
        [kv, "demo", "--keep", "--seconds", "1"], stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            yield running
        finally:
            running.terminate()


def test_demo_that_stays_ends_with_an_interrupt(staying: subprocess.Popen[str]) -> None:
    assert staying.stdout is not None
    output = ""
    for line in staying.stdout:
        output += line
        if line.startswith("It goes on until ^C."):
            break
    directory = directory_in(output)
    assert leftovers(directory)
    staying.send_signal(signal.SIGINT)
    assert staying.wait(30) == 0
    assert not leftovers(directory)
    assert not Path(directory).exists()
