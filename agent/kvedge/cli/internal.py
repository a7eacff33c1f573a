"""`kv internal`: system data, and what a server knows of the changes it has seen."""

from __future__ import annotations

import click

from kvedge.cli.either_order import (
    PATH,
    EitherOrderGroup,
    connect,
    json_option,
    say,
    the_session,
)
from kvedge.cli.output import Pairs, Tree
from kvedge.errors import EntryAbsent
from kvedge.model.path import EMPTY, SYSTEM, Path

_LISTS = {
    "nodes": ("-n", "The last change of each node."),
    "present": ("-p", "Changes whose values are there."),
    "known": ("-k", "Changes that were seen."),
    "superseded": ("-s", "Changes that later ones replaced."),
    "deleted": ("-d", "Deletions that are kept."),
    "missing": ("-m", "Changes that must exist and are not here."),
    "remote_missing": ("-r", "Changes that some other server lacks, as far as it told."),
}
_DEBUG = "debug"  # counts, not a list: only when it is asked for


@click.group(cls=EitherOrderGroup)
@json_option
def internal() -> None:
    """Look at system data: users, rules, types, members.

    They live below an element None, which the commands for data never descend into from above.

    $ kv internal dump :
    $ kv internal state
    """


@internal.command()
@click.argument("path", type=PATH, required=False)
@click.option("-d", "--as-dict", "key", default="_", metavar="KEY", help="For own values.  [_]")
@json_option
def dump(path: Path | None, key: str) -> None:
    """Print system data.

    All, or what is at PATH and below.

    $ kv internal dump :
    $ kv internal dump auth
    """
    base = path or EMPTY
    tree = Tree()
    top = tree.place(SYSTEM + base)
    with connect() as client:
        found = [*client.get_tree(SYSTEM + base)]
    for result in found:
        top.place(result.path).put(result.value)
    if base and not found:
        raise EntryAbsent(str(SYSTEM + base))
    the_session().print(tree.nested(key))


def _with_lists(command: click.Command) -> click.Command:
    """Give a command one flag per list."""
    for name, (letter, text) in _LISTS.items():
        long = f"--{name.replace('_', '-')}"
        command.params.append(click.Option([letter, long, name], is_flag=True, help=text))
    help_ = "How much there is of what."
    command.params.append(click.Option([f"--{_DEBUG}", _DEBUG], is_flag=True, help=help_))
    return command


@internal.command()
@json_option
def state(**wanted: bool) -> None:
    """Print what the server has seen of whom.

    All lists, or those that are named. Changes are numbered per node, and a list holds
    ranges of them: the first number, and the one behind the last.

    $ kv internal state
    $ kv internal state --nodes --missing
    """
    names = [name for name in (*_LISTS, _DEBUG) if wanted[name]] or [*_LISTS]
    session = the_session()
    with connect() as client:
        result = client.request("get_state", dict.fromkeys(names, True))
    lists = [(name, result.get(name)) for name in names if name in result]
    head = [("node", result.node), ("tock", session.tock(result.tock))]
    session.print(Pairs([*head, *lists]))
    for name, nodes in result.get("left_out", {}).items():
        for node, count in nodes.items():
            say(f"{name}: {count} older ranges of {node} are left out")


_with_lists(state)
