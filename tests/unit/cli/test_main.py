"""The entry point: which way a command takes, what it loads, unknown commands."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import click
import pytest

from kvedge.cli import group, main
from kvedge.testing.transcripts import Outcome, in_process

AGENT = Path(__file__).resolve().parents[3] / "agent"


def kv(*words: str) -> Outcome:
    return in_process(lambda given: main.run(given, {}))(["kv", *words], "")


# --- what a short command loads ------------------------------------------------------------

HEAVY = {"click", "anyio", "asyncio", "dataclasses", "inspect", "importlib.metadata"}
DEAR = {"enum", "re", "typing", "json", "ast", "socket", "contextlib", "tomllib", "pathlib"}
LOADED = """
import sys
sys.path.insert(0, {agent!r})
from kvedge.cli import main
code = main.run({words!r}, {{"HOME": "/nonexistent"}})
print(code, *sorted(sys.modules))
"""
SHORT = [
    ("get one", set()),
    ("one", set()),
    ("get -rd_ one", set()),
    ("one set -v : text", set()),
    ("one set -e : 123", set()),
    ("one delete", set()),
    ("one list", set()),
    ("one monitor", set()),
    ("one set -e : [1]", {"ast", "re", "enum", "contextlib", "typing"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("words", "allowed"), SHORT)
def test_a_short_command_loads_little(words: str, allowed: set[str]) -> None:
    line = ["-s", "/nonexistent/kv.sock", "data", *words.split()]
    script = LOADED.format(agent=str(AGENT), words=line)
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True
    )
    code, *loaded = done.stdout.split()
    assert code == "3", done.stderr
    bare = subprocess.run(
        [sys.executable, "-I", "-c", "import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    ours = set(loaded) - set(bare.stdout.split())
    assert not HEAVY & ours
    assert not (DEAR - allowed) & ours


def test_help_and_completion_go_by_click() -> None:
    assert main.run_fast(["data", "--help"], {}) is None
    assert main.run_fast(["data", "one", "--help"], {}) is None
    assert main.run_fast(["data"], {}) is None
    assert main.run_fast(["data", "one"], {"_KV_COMPLETE": "bash_complete"}) is None
    assert main.run_fast(["server", "x"], {}) is None


def test_a_letter_the_terminal_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), "latin-1", write_through=True)
    monkeypatch.setattr(sys, "stdout", terminal)
    main._prepare_output()
    terminal.write("\u20ac")
    assert isinstance(terminal.buffer, io.BytesIO)
    assert terminal.buffer.getvalue() == b"\\u20ac"


def test_closed_standard_output_is_no_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    main._prepare_output()
    with sys.stdout as stdout:
        stdout.write("nobody reads this")


# --- help and unknown words ----------------------------------------------------------------


def test_help_lists_the_commands() -> None:
    done = kv("--help")
    assert done.code == 0
    assert done.errors == ""
    for name in ("data", "server", "agent", "run", "code", "doctor"):
        assert f"\n  {name} " in done.output
    assert kv() == done


def test_help_of_data_lists_the_verbs() -> None:
    assert kv("data") == kv("data", "--help")
    assert "\n  monitor " in kv("data").output
    assert "-d, --as-dict KEY" in kv("data", "one", "get", "--help").output


def test_version() -> None:
    assert kv("--version").output.startswith("kv")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("frob", "there is no such command; see `kv --help`"),
        ("serve", "did you mean `kv server`?"),
        ("--frob", "there is no such option; see `kv --help`"),
    ],
)
def test_unknown_command(name: str, told: str) -> None:
    done = kv(name)
    assert done.code == 2
    assert done.errors.startswith(f"kv: {name}: ")
    assert told in done.errors


def offer(monkeypatch: pytest.MonkeyPatch, points: Sequence[tuple[str, str]]) -> None:
    """Let packages offer these commands and no others."""
    made = [metadata.EntryPoint(name, value, group.ENTRY_POINTS) for name, value in points]
    found = metadata.EntryPoints(made)
    monkeypatch.setattr(metadata, "entry_points", lambda group: found)


def test_command_of_an_absent_package(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, [])
    done = kv("sensor", "list")
    assert done.code == 2
    assert done.errors == (
        "kv: sensor: this command comes with the package kvedge-drivers, which is not installed\n"
    )


@click.command()
@click.argument("word")
@click.pass_obj
def offered(session: object, word: str) -> None:
    """Say a word."""
    click.echo(f"{type(session).__name__} {word}")


def test_command_that_a_package_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "offering", sys.modules[__name__])
    offer(monkeypatch, [("say", "offering:offered"), ("broken", "nowhere_at_all:x")])
    assert kv("say", "hello") == Outcome("Session hello\n")
    assert "Say a word." in kv("--help").output
    assert kv("broken").errors.startswith("kv: broken: the command cannot be loaded: ")
    assert kv("say").errors == "kv: say: Missing argument 'WORD'; see `kv say --help`\n"


def test_built_in_commands_ask_no_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(metadata, "entry_points")
    assert kv("data", "--help").code == 0


def test_completion_offers_verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, [])
    monkeypatch.setenv("_KV_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "kv data mon")
    monkeypatch.setenv("COMP_CWORD", "2")

    def complete(words: Sequence[str]) -> int:
        try:
            return main.run(words, {"_KV_COMPLETE": "bash_complete"})
        except SystemExit as done:
            return int(str(done.code))

    assert in_process(complete)(["kv"], "").output == "plain,monitor\n"
