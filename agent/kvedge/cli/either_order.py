"""Groups of commands about a subject, such as `kv code` and `kv run`: what they have in common.

Subject and verb may stand in either order: `kv code set the.answer`, `kv code the.answer set`.
With two verbs in a row the first is the subject.
"""

from __future__ import annotations

from difflib import get_close_matches
from inspect import cleandoc
from textwrap import indent
from typing import TYPE_CHECKING, TypeVar

import click

from kvedge.cli.commands import Group
from kvedge.cli.connection import Session
from kvedge.cli.options import unknown_option
from kvedge.client.sync import SyncClient
from kvedge.errors import BadSetting, ConflictError, EntryAbsent
from kvedge.model.path import P, Path

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_INDENT = "  "

_Decorated = TypeVar("_Decorated", bound="Callable[..., Any]")


class EitherOrderGroup(Group):
    """Takes its first two words in either order; examples in its help texts keep their lines."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.help = _with_lines_kept(self.help)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Take a command."""
        cmd.help = _with_lines_kept(cmd.help)
        super().add_command(cmd, name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command of the words, and the words that are left for it."""
        if self._is_subject_first(args):
            args = [args[1], args[0], *args[2:]]
        if args[0] not in self.commands and not ctx.resilient_parsing:
            raise self._unknown(args[0], ctx.command_path)
        return super().resolve_command(ctx, args)

    def _is_subject_first(self, args: list[str]) -> bool:
        if len(args) < 2 or args[0].startswith("-") or args[1] not in self.commands:
            return False
        return not isinstance(self.commands.get(args[0]), click.Group)

    def _unknown(self, word: str, where: str) -> BadSetting:
        if word.startswith("-"):
            return unknown_option(word, where)
        near = get_close_matches(word, self.commands, 1)
        if near:
            return BadSetting(word, f"did you mean `{where} {near[0]}`?  See `{where} --help`")
        known = ", ".join(sorted(self.commands))
        return BadSetting(word, f"say what to do: {known}; see `{where} --help`")


def _with_lines_kept(text: str | None) -> str | None:
    """Return a help text whose examples click does not fill: the paragraphs that begin with `$`."""
    if not text:
        return text
    parts = cleandoc(text).split("\n\n")
    return "\n\n".join(
        f"\b\n{indent(part, _INDENT)}" if part[:1] == "$" else part for part in parts
    )


class NotFound(EntryAbsent):
    """What a command line names is not there; tells where to look for it."""

    def __init__(self, path: str, why: str) -> None:
        ConflictError.__init__(self, f"{path}: {why}")
        self.path = path


if TYPE_CHECKING:
    _Type = click.ParamType[Path]
else:
    _Type = click.ParamType  # it is not generic in all versions of click


class PathWord(_Type):
    """A word that is a path."""

    name = "path"

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Path:
        """Return the path."""
        return value if isinstance(value, Path) else P(value)


PATH = PathWord()


def json_option(command: _Decorated) -> _Decorated:
    """Give a command the option `--json`, which may stand behind its name as well."""
    option = click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=_want_json,
        help="Print JSON.",
    )
    return option(command)


def _want_json(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 -- click's callback
    if wanted:
        the_session(ctx).json = True


def the_session(ctx: click.Context | None = None) -> Session:
    """Return what the global options say."""
    session = (ctx or click.get_current_context()).obj
    assert isinstance(session, Session)
    return session


def with_tock(value: object) -> object:
    """Return a stored record as it is printed: JSON readers would round its tock."""
    if not isinstance(value, dict) or not isinstance(value.get("tock"), int):
        return value
    return {**value, "tock": the_session().tock(value["tock"])}


def connect() -> SyncClient:
    """Return a client of the server that the global options name."""
    client = the_session().connect()
    assert isinstance(client, SyncClient)
    return client


def say(text: str) -> None:
    """Tell a person what was done or is worth knowing; programs read standard output."""
    click.echo(f"kv: {text}", err=True)
