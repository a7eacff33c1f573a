"""`kv demo`: an agent and a simulated 1-Wire bus, set up with the commands a user would type.

All of it lives in a temporary directory with a socket of its own, beside whatever else runs on
the machine, and ends with the command.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from kvedge.errors import NotConnected, PortUnavailable

NODE = "demo"
SHOWN_S = 20.0
_END_S = 10.0
_CONFIGURATION = """\
[node]
name = "{node}"

[server]
dir = "{directory}/data"
listen = ["unix:{directory}/kv.sock"]

[connect]
socket = "{directory}/kv.sock"

[log]
level = "warning"
"""
_ATTIC = "28.0000000000A1"
_SENSORS = (f"{_ATTIC}=21.5", "28.0000000000B2=-4", "10.0000000000C3=48")


class Demonstration:
    """The directory of a demonstration, and the `kv` commands in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.configuration = directory / "kvedge.toml"
        text = _CONFIGURATION.format(node=NODE, directory=directory)
        self.configuration.write_text(text)
        self._environ = {
            name: value for name, value in os.environ.items() if not name.startswith("KV_")
        } | {"KV_CONFIG": str(self.configuration), "PYTHONUNBUFFERED": "1"}

    @contextmanager
    def program(self, *words: str, says: str) -> Iterator[str]:
        """Run a program while the block runs; yield the line that says that it is ready."""
        started = subprocess.Popen(
            [sys.executable, "-m", *words],
            env=self._environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # ^C is for us; we end it in our own order
        )
        try:
            assert started.stdout is not None
            line = started.stdout.readline()
            if not line.startswith(says):
                raise NotConnected(" ".join(words), f"it did not start: {line.strip() or 'gone'}")
            yield line.strip()
        finally:
            started.send_signal(signal.SIGTERM)
            try:
                started.wait(_END_S)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()
            for pipe in (started.stdin, started.stdout):
                assert pipe is not None
                pipe.close()

    def kv(self, line: str, *, typed: str = "") -> int:
        """Show a command as it would be typed, run it, and return its exit code."""
        click.echo(f"$ kv {line}" + (f" <<END\n{typed}END" if typed else ""))
        done = subprocess.run(
            [sys.executable, "-m", "kvedge", *shlex.split(line)],
            env=self._environ,
            input=typed or None,
            stdin=None if typed else subprocess.DEVNULL,
            text=True,
            check=False,
        )
        return done.returncode

    def watch(self, seconds: float) -> None:
        """Show the readings as they change, on a terminal live."""
        if not sys.stdout.isatty():
            _wait(seconds)
            self.kv("sensor list")
            return
        click.echo("$ kv sensor watch")
        words = [sys.executable, "-m", "kvedge", "sensor", "watch"]
        shown = subprocess.Popen(words, env=self._environ, start_new_session=True)
        try:
            _wait(seconds)
        finally:
            shown.send_signal(signal.SIGINT)
            shown.wait(_END_S)


def _wait(seconds: float) -> None:
    """Wait; ^C ends it."""
    select.select([], [], [], seconds)


def _set_up(shown: Demonstration, owserver: str) -> int:
    """Type the commands; return how many failed."""
    codes = [
        shown.kv("data greeting set -v : 'hello, board'"),
        shown.kv("data greeting"),
        shown.kv("code set the.answer", typed='print("Forty-Two!")\nreturn 42\n'),
        shown.kv(f"run -n {NODE} set -c the.answer -t 0 a.question"),
        shown.kv(f"run -n {NODE} set -c @host -e interval_s 2 -t 0 host"),
        shown.kv(
            f"run -n {NODE} set -c @onewire -v server {owserver} -e interval_s 2 -t 0 onewire"
        ),
        shown.kv(f"sensor bind -n {NODE} {_ATTIC}.temperature house.attic.temperature"),
    ]
    return sum(code != 0 for code in codes)


def _look_back(shown: Demonstration) -> int:
    """Show what has become of it; return how many commands failed."""
    codes = [
        shown.kv(f"run -n {NODE} log a.question"),
        shown.kv(f"run -n {NODE} list"),
        shown.kv("data get -rd_ house"),
        shown.kv("data get -rd_ sensor"),
    ]
    return sum(code != 0 for code in codes)


@click.command()
@click.option("--keep", is_flag=True, help="Go on until ^C, so that you can try more.")
@click.option("--seconds", default=SHOWN_S, show_default=True, help="How long to show readings.")
def demo(*, keep: bool, seconds: float) -> int:
    """Show an agent at work: a job, the board's own readings, and a simulated 1-Wire bus.

    It starts an agent in a directory of its own and a real owserver with simulated sensors, sets
    up the jobs with the `kv` commands it prints, shows readings for a while, and ends all that
    it started.  The exit code is 0 where everything worked.
    """
    signal.signal(signal.SIGTERM, _as_interrupt)
    with tempfile.TemporaryDirectory(prefix="kvedge-demo-") as directory:
        shown = Demonstration(Path(directory))
        click.echo(f"An agent with its data and its socket in {directory}:")
        click.echo(f"$ kv -c {shown.configuration} agent &")
        try:
            with (
                shown.program("kvedge", "agent", says="Running."),
                shown.program(
                    "kvedge_drivers.testing.owserver", *_SENSORS, says="Running on "
                ) as line,
            ):
                owserver = line.removeprefix("Running on ").removesuffix(".")
                click.echo(f"A real owserver on {owserver}, with simulated sensors.\n")
                failed = _set_up(shown, owserver)
                shown.watch(seconds)
                failed += _look_back(shown)
                if keep:
                    _stay(shown)
        except PortUnavailable as error:
            raise click.ClickException(str(error)) from error
        click.echo("\nAll that was started has ended.")
    return int(failed > 0)


def _stay(shown: Demonstration) -> None:
    """Go on until ^C."""
    try:
        click.echo(f"\nIt goes on until ^C.  Elsewhere: export KV_CONFIG={shown.configuration}")
        signal.pause()
    except KeyboardInterrupt:
        click.echo()


def _as_interrupt(*_: object) -> None:
    raise KeyboardInterrupt
