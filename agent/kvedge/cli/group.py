"""The click group of `kv`: commands are imported when they are used.

One row per command that is built in; packages add more by the entry point group
`kvedge.commands`, which is read only for a name that is not built in.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING

import click

from kvedge.cli import exits
from kvedge.cli.commands import Group
from kvedge.cli.connection import Session
from kvedge.cli.data import click_option, raw_of
from kvedge.cli.options import GLOBAL, Given, unknown_option, words_missing
from kvedge.errors import BadSetting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ENTRY_POINTS = "kvedge.commands"

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "agent": ("kvedge.cli.agent:agent", "Run server and jobs of this board."),
    "code": ("kvedge.cli.code:code", "Stored procedures and modules."),
    "config": ("kvedge.cli.config:config", "Check the configuration, and show what holds."),
    "conflict": ("kvedge.cli.conflict:conflict", "Writes that lost: list and resolve them."),
    "data": ("kvedge.cli.data:data", "Read and change the tree of values."),
    "doctor": ("kvedge.cli.doctor:doctor", "Check this board, and say what mends it."),
    "dump": ("kvedge.cli.dump:dump", "The tree as a file: save it, show it, load it."),
    "error": ("kvedge.cli.error:error", "Stored errors: list them, resolve them."),
    "internal": ("kvedge.cli.internal:internal", "Look at system data."),
    "member": ("kvedge.cli.member:member", "Members of the network: list, expire, forget."),
    "monitor": ("kvedge.cli.monitor:monitor", "Show the messages between servers."),
    "net": ("kvedge.cli.net:net", "The network of this board: make one, join one."),
    "run": ("kvedge.cli.run:run", "Jobs: set them up, look at them, run them."),
    "server": ("kvedge.cli.server:server", "Run a server alone."),
}
_ALIASES: Mapping[str, str] = {"job": "run"}

# So that the message for a command of an absent package can name it.
_PACKAGES: Mapping[str, str] = dict.fromkeys(
    ("bus", "demo", "gpio", "i2c", "ow", "scan", "sensor"), "kvedge-drivers"
)


class _ReaderGoneError(Exception):
    """Standard output was closed; click would end the process with 1 where it saw the OSError."""


class _Group(Group):
    """Commands by name, from the table or from entry points."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderGoneError(*error.args) from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*_COMMANDS, *(point.name for point in _entry_points())})

    def get_command(
        self,
        ctx: click.Context,
        cmd_name: str,
    ) -> click.Command | None:
        name = _ALIASES.get(cmd_name, cmd_name)
        if name in _COMMANDS:
            module, _, attribute = _COMMANDS[name][0].partition(":")
            command = getattr(import_module(module), attribute)
        else:
            command = _offered(name)
        assert command is None or isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        command = self.get_command(ctx, args[0])
        if command is None and not ctx.resilient_parsing:
            raise _unknown_command(args[0], self.list_commands(ctx))
        return args[0], command, args[1:]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, self._short_help(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _short_help(self, ctx: click.Context, name: str) -> str:
        if name in _COMMANDS:
            return _COMMANDS[name][1]
        try:
            command = self.get_command(ctx, name)
        except BadSetting as error:
            return f"({error.why})"
        return command.get_short_help_str() if command else ""


def _entry_points() -> metadata.EntryPoints:
    return metadata.entry_points(group=ENTRY_POINTS)


def _offered(name: str) -> object:
    """Return the command that a package offers under a name, None where there is none.

    Raises:
        BadSetting: It cannot be imported.
    """
    for point in _entry_points().select(name=name):
        try:
            return point.load()
        except (ImportError, AttributeError) as error:
            raise BadSetting(name, f"the command cannot be loaded: {error}") from error
    return None


def _unknown_command(name: str, known: Sequence[str]) -> BadSetting:
    if name.startswith("-"):
        return unknown_option(name, "kv")
    if name in _PACKAGES:
        why = f"this command comes with the package {_PACKAGES[name]}, which is not installed"
        return BadSetting(name, why)
    from difflib import get_close_matches

    near = get_close_matches(name, known, 1)
    guess = f"did you mean `kv {near[0]}`?  See" if near else "see"
    return BadSetting(name, f"there is no such command; {guess} `kv --help`")


def _start(**values: object) -> None:
    """Keep what the global options say for the command, in `ctx.obj`."""
    ctx = click.get_current_context()
    ctx.obj = Session(Given(GLOBAL, raw_of(GLOBAL, values), "kv"), ctx.obj)


def _print_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 -- click's callback
    if not wanted or ctx.resilient_parsing:
        return
    try:
        click.echo(f"kv {metadata.version('kvedge')}")
    except metadata.PackageNotFoundError:
        click.echo("kv, from sources that are not installed")
    ctx.exit()


_VERSION = click.Option(
    ["--version"],
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="show the version",
)

group = _Group(
    "kv",
    callback=_start,
    params=[*map(click_option, GLOBAL), _VERSION],
    help="""A replicated tree of values, jobs and sensors for small boards.

    A PATH is elements with dots between them, as in `sensor.attic.temperature`; the root is `:`.
    Output is YAML, or JSON with --json.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no server, 4 not allowed, 130 interrupted.""",
)


def run(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a command line and return its exit code.

    Raises:
        AgentError: The command failed, or the words are wrong.
    """
    try:
        code = group.main([*words] or ["--help"], "kv", standalone_mode=False, obj=environ)
    except click.Abort:  # it has ended the line that the terminal's ^C stands on
        return exits.INTERRUPTED
    except _NoArgsIsHelp as error:
        click.echo(error.format_message())
        return exits.DONE
    except click.ClickException as error:
        raise _translated(error) from error
    except _ReaderGoneError as error:
        raise BrokenPipeError(*error.args) from error
    return code if isinstance(code, int) else exits.DONE


# From click 8.2 on a group without a word raises its help text; before, it printed it.
_NoArgsIsHelp: type[click.UsageError] = getattr(
    click.exceptions, "NoArgsIsHelpError", click.exceptions.NoSuchOption
)


def _translated(error: click.ClickException) -> BadSetting:
    """Return our error for one of click's, so that both parsers speak alike."""
    ctx = getattr(error, "ctx", None)
    where = ctx.command_path if ctx else "kv"
    if isinstance(error, click.NoSuchOption):
        return unknown_option(error.option_name, where)
    if isinstance(error, click.BadOptionUsage) and ctx:
        return words_missing(error.option_name, _words_of(ctx.command, error.option_name), where)
    word = getattr(error, "option_name", where.removeprefix("kv "))
    return BadSetting(word, f"{error.format_message().rstrip('.')}; see `{where} --help`")


def _words_of(command: click.Command, name: str) -> str:
    """Return the metavar of an option, nothing where it is a flag."""
    for param in command.params:
        if isinstance(param, click.Option) and name in param.opts:
            return "" if param.is_flag or param.count else param.metavar or "a value"
    return "a value"
