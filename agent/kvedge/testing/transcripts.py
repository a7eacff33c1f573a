"""Transcripts: command lines and what they print, as text files that run.

    Prose, up to a line that begins with a dollar sign.

    $ kv data one set -e : 123
    $ kv data one
    123
    $ kv data two
    ! kv: No data at two
    [1]

A line behind a command is its output; `! ` marks standard error, `> ` standard input (of a
command that ends with `<<WORD`), `[N]` an exit code other than 0, `<BLANKLINE>` an empty line.
An empty line ends it.

`play` runs the commands and returns the text as it should have been.  So a test compares two
texts, the difference shows itself, and a file is renewed by writing the text back.
"""

from __future__ import annotations

import contextlib
import io
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from unittest import mock

_BLANK = "<BLANKLINE>"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command printed, and its exit code."""

    output: str = ""
    errors: str = ""
    code: int = 0


Run: TypeAlias = Callable[[Sequence[str], str], Outcome]
"""Runs the words of a command line with a text as standard input."""


def play(text: str, run: Run) -> str:
    """Run the commands of a transcript and return it with what they printed.

    Args:
        text: The transcript.
        run: Runs one command.
    """
    lines = text.splitlines()
    made: list[str] = []
    at = 0
    while at < len(lines):
        made.append(lines[at])
        at += 1
        if not made[-1].startswith("$ "):
            continue
        end = _end_of_step(lines, at)
        typed = [line for line in lines[at:end] if line == ">" or line.startswith("> ")]
        made += typed
        made += _printed(run(*_words_and_input(made[-len(typed) - 1], typed)))
        at = end
    return "\n".join(made) + "\n"


def _end_of_step(lines: Sequence[str], at: int) -> int:
    while at < len(lines) and lines[at] and not lines[at].startswith("$ "):
        at += 1
    return at


def _words_and_input(command: str, typed: Sequence[str]) -> tuple[list[str], str]:
    words = shlex.split(command[2:])
    body = [line[2:] for line in typed]
    if words and words[-1].startswith("<<"):
        word = words.pop()[2:]
        assert body[-1:] == [word], f"{command!r}: no line '> {word}' ends its input"
        body.pop()
    return words, "".join(f"{line}\n" for line in body)


def _printed(outcome: Outcome) -> list[str]:
    made = [line or _BLANK for line in outcome.output.splitlines()]
    made += [f"! {line}".rstrip() for line in outcome.errors.splitlines()]
    if outcome.code:
        made.append(f"[{outcome.code}]")
    return made


def in_process(run: Callable[[Sequence[str]], int]) -> Run:
    """Return a `Run` for a function that takes words and returns an exit code.

    The first word of a line, the program's name, is not handed on.
    """

    def captured(words: Sequence[str], typed: str) -> Outcome:
        output, errors = _stream(), _stream()
        with (
            mock.patch.object(sys, "stdin", io.StringIO(typed)),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(errors),
        ):
            code = run(words[1:])
        return Outcome(_text(output), _text(errors), code)

    return captured


def _stream() -> io.TextIOWrapper:
    """Return a text stream with bytes below it, as programs expect of standard output."""
    return io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()
