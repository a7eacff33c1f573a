"""The reference page of the commands: each has its heading, and each heading its command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from kvedge.cli.group import group

NOUNS = ("code", "conflict", "dump", "error", "internal", "member", "monitor", "net", "run")

_HEADING = re.compile(rf"^#+ `kv ((?:{'|'.join(NOUNS)})\b[^`]*)`$", re.MULTILINE)
_OPTION = re.compile(r"(?<![\w-])--?[a-z][\w-]*")


@pytest.fixture(scope="module")
def page(project_root: Path) -> str:
    return (project_root / "docs/reference/commands.md").read_text("utf-8")


def commands() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group, info_name="kv")
    waiting = [(noun, group.get_command(context, noun)) for noun in NOUNS]
    while waiting:
        words, command = waiting.pop()
        assert command is not None
        yield words, command
        if isinstance(command, click.Group):
            waiting += [(f"{words} {name}", each) for name, each in command.commands.items()]


def test_every_command_has_its_heading(page: str) -> None:
    assert sorted(_HEADING.findall(page)) == sorted(words for words, _ in commands())


def test_every_option_is_in_its_section(page: str) -> None:
    common, *parts = _HEADING.split(page)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    missing = []
    for words, command in commands():
        noun = words.split()[0]
        known = set(_OPTION.findall(common + sections[noun] + sections[words]))
        for param in command.params:
            if isinstance(param, click.Option) and not known & set(param.opts):
                missing.append(f"kv {words} {param.opts[0]}")
    assert not missing
