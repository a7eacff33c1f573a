"""`kv data` by way of click: help texts, completion; built from the table of options.

The plain commands take `kvedge.cli.fast` instead and never come here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kvedge.cli import verbs
from kvedge.cli.commands import Command, Group
from kvedge.cli.options import VERBS, Given, Option, Verb, arrange, the_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kvedge.cli.connection import Session


def click_option(option: Option) -> click.Option:
    """Return the click option for a row of the table; its value is made for `raw_of`."""
    if option.words:
        return click.Option(
            [option.name, *option.names],
            type=click.UNPROCESSED,
            nargs=len(option.words),
            multiple=True,
            metavar=" ".join(option.words),
            help=option.help,
        )
    return click.Option([option.name, *option.names], count=True, help=option.help)


def raw_of(
    options: Sequence[Option], values: Mapping[str, object]
) -> dict[str, list[tuple[str, ...]]]:
    """Return what click read in the form that `Given` takes."""
    raw: dict[str, list[tuple[str, ...]]] = {}
    for option in options:
        value = values[option.name]
        if isinstance(value, int):
            raw[option.name] = [()] * value
        elif isinstance(value, tuple):
            raw[option.name] = [(item,) if isinstance(item, str) else item for item in value]
    return raw


class _Group(Group):
    """Takes path and verb in either order, and no verb for `get`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args == ["--help"] or ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        verb, rest = arrange(args)
        return super().parse_args(ctx, [verb.name, *rest])


def _command(verb: Verb) -> click.Command:
    def run(path: tuple[str, ...], **values: object) -> None:
        session: Session = click.get_current_context().obj
        given = Given(verb.options, raw_of(verb.options, values), verb.title)
        verbs.run(verb, the_path(path, verb), given, session)

    words = click.Argument(["path"], nargs=-1, type=click.UNPROCESSED, metavar="PATH")
    options = [click_option(option) for option in verb.options]
    return Command(verb.name, callback=run, params=[words, *options], help=verb.help)


data = _Group(
    "data",
    commands={name: _command(verb) for name, verb in VERBS.items()},
    help="""Read and change the tree of values.

    PATH and the verb may stand in either order, and no verb means `get`:
    `kv data one.two`, `kv data one.two set -e : 123`, `kv data get -rd_ one`.
    A path is elements with dots between them; the root is `:`.""",
    subcommand_metavar="PATH [VERB] [OPTIONS]",
)
