"""`kv error`: stored faults, open or resolved.

A fault stands at `:.kv.error.NODE.TOCK` and says what is wrong with which path.  One level below,
each node that met it keeps the details of the last time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from kvedge.cli.connection import Session
from kvedge.cli.either_order import (
    PATH,
    EitherOrderGroup,
    NotFound,
    connect,
    json_option,
    say,
    the_session,
    with_tock,
)
from kvedge.cli.output import Tree
from kvedge.cli.tables import local_time, table
from kvedge.client.sync import SyncClient
from kvedge.errors import BadSetting, ChainMismatch
from kvedge.model.path import EMPTY, P, Path
from kvedge.runner.places import ERRORS


@dataclass(slots=True)
class _Fault:
    """A fault as it is stored.

    Attributes:
        node: Who recorded it.
        tock: When; with `node` its name.
        value: The record.
        chain: Its last change.
        details: By node, what is known of the last time.
    """

    node: str
    tock: int
    value: Mapping[str, Any]
    chain: Any
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> Path:
        """Where it is stored."""
        return ERRORS + (self.node, self.tock)

    @property
    def path(self) -> Path:
        """What is wrong."""
        found = self.value.get("path")
        return Path(*found) if isinstance(found, (Path, tuple)) else EMPTY

    @property
    def is_open(self) -> bool:
        """Whether it is not over yet."""
        return not self.value.get("resolved")

    def fields(self, base: Path) -> dict[str, Any]:
        """Return the record with its path below a base."""
        return {**self.value, "path": str(self.path[len(base) :])}


@click.group(cls=EitherOrderGroup)
@json_option
def error() -> None:
    """Stored errors: list them, resolve them, delete them.

    An error stays until somebody resolves it, or until what failed works again.  It is counted
    while it repeats itself.

    $ kv error list
    $ kv error list -d_ -a :.kv.run.single
    $ kv error resolve :.kv.run.single.board1.default.what.me.worry
    """


@error.command("list")
@click.argument("path", type=PATH, required=False)
@click.option("-d", "--as-dict", "key", metavar="KEY", help="Print all fields, records under KEY.")
@click.option("-a", "--details", is_flag=True, help="Tracebacks and variables, too.")
@click.option("-n", "--node", metavar="NODE", help="Those that NODE met, with its details alone.")
@click.option("-r", "--resolved", "which", flag_value="resolved", help="The resolved ones.")
@click.option("--all", "which", flag_value="all", help="Open and resolved ones.")
@json_option
def list_errors(
    path: Path | None,
    key: str | None,
    details: bool,  # noqa: FBT001 -- click passes by name
    node: str | None,
    which: str | None,
) -> None:
    """Print the open errors.

    With PATH those about it and below, their paths shortened by it. They stand in a table, or
    with -d nested by NODE and TOCK, which together name an error.

    $ kv error list
    $ kv error list -d_ :.kv.run.single
    $ kv error list -d_ -a -n board1
    """
    session = the_session()
    base = path or EMPTY
    with connect() as client:
        found = [
            fault
            for fault in _faults(client)
            if fault.path.is_below(base)
            and _is_wanted(fault, which)
            and (node is None or node in {fault.node, *fault.details})
        ]
    for fault in found:
        fault.details = {
            name: value
            for name, value in fault.details.items()
            if details and (node is None or name == node)
        }
    _print(session, found, base, key if key is not None else "_" if details else None)


def _is_wanted(fault: _Fault, which: str | None) -> bool:
    return which == "all" or fault.is_open == (which is None)


def _faults(client: SyncClient) -> Iterator[_Fault]:
    """Yield all faults with their details, oldest first by node."""
    last: _Fault | None = None
    for result in client.get_tree(ERRORS, min_depth=2, max_depth=3, nchain=1):
        node, tock, *rest = result.path
        if rest:
            if last is not None and (last.node, last.tock) == (node, tock):
                last.details[str(rest[0])] = result.value
            continue
        if last is not None:
            yield last
        last = None
        if isinstance(tock, int) and isinstance(result.value, dict):
            last = _Fault(str(node), tock, result.value, result.chain)
    if last is not None:
        yield last


def _print(session: Session, found: Sequence[_Fault], base: Path, key: str | None) -> None:
    if session.json:
        session.print([_for_program(session, fault, base) for fault in found])
    elif key is not None:
        session.print(_nested(found, base).nested(key))
    else:
        click.echo(table(_HEADER, [_cells(fault, base) for fault in found]), nl=False)
        if not found:
            say("there are no such errors")


_HEADER = ("node", "tock", "last seen", "count", "path", "message")


def _cells(fault: _Fault, base: Path) -> list[str]:
    fields = fault.fields(base)
    message = str(fields.get("message", ""))
    return [
        fault.node,
        str(fault.tock),
        local_time(fields.get("last_seen")),
        str(fields.get("count", 1)),
        fields["path"],
        message if fault.is_open else f"(resolved) {message}",
    ]


def _nested(found: Sequence[_Fault], base: Path) -> Tree:
    tree = Tree()
    for fault in found:
        name = Path(fault.node, fault.tock)
        tree.place(name).put(fault.fields(base))
        for node, value in fault.details.items():
            tree.place(name / node).put(value)
    return tree


def _for_program(session: Session, fault: _Fault, base: Path) -> dict[str, Any]:
    name = {"node": fault.node, "tock": session.tock(fault.tock)}
    details = {node: with_tock(value) for node, value in fault.details.items()}
    return name | fault.fields(base) | ({"details": details} if details else {})


# --- resolve, delete -------------------------------------------------------------------------

_WHICH = click.argument("which", nargs=-1, required=True, metavar="PATH | NODE TOCK")


@error.command()
@_WHICH
@json_option
def resolve(which: tuple[str, ...]) -> None:
    """Mark errors as resolved.

    Those about PATH and below, or the one named NODE TOCK.

    $ kv error resolve :.kv.run.single.board1.default.what.me.worry
    $ kv error resolve board1 117656113912217600
    """
    with connect() as client:
        found = [fault for fault in _named(client, which) if fault.is_open]
        if not found:
            raise NotFound(" ".join(which), "these errors are resolved already")
        for fault in found:
            _resolve(client, fault)
    _tell("resolved", found)


def _resolve(client: SyncClient, fault: _Fault) -> None:
    """Store that a fault is over; not if it has occurred again since it was read."""
    try:
        client.set(fault.place, {**fault.value, "resolved": True}, chain=fault.chain)
    except ChainMismatch as error:
        raise ChainMismatch(
            str(fault.place), expected="an error that is over", found="one that has just changed"
        ) from error


@error.command("delete")
@_WHICH
@json_option
def delete_errors(which: tuple[str, ...]) -> None:
    """Delete errors, resolved or not.

    Those about PATH and below, or the one named NODE TOCK.

    $ kv error delete board1 117656113912217600
    $ kv error delete :
    """
    with connect() as client:
        found = _named(client, which)
        for fault in found:
            client.delete_tree(fault.place)
    _tell("deleted", found)


def _named(client: SyncClient, words: Sequence[str]) -> list[_Fault]:
    """Return the faults that one or two words name.

    Raises:
        NotFound: There is none.
        BadSetting: The words are no name.
    """
    found = [*_faults(client)]
    if len(words) > 2:
        raise BadSetting(words[2], "one word too many; give PATH, or NODE and TOCK")
    if len(words) == 2:
        node, tock = words
        if not tock.isdecimal():
            raise BadSetting(tock, "TOCK is a number; `kv error list` shows it")
        found = [fault for fault in found if (fault.node, str(fault.tock)) == (node, tock)]
    else:
        base = P(words[0])
        found = [fault for fault in found if fault.path.is_below(base)]
    if not found:
        why = "there is no such error; `kv error list --all` shows what there is"
        raise NotFound(" ".join(words), why)
    return found


def _tell(done: str, found: Sequence[_Fault]) -> None:
    session = the_session()
    for fault in found:
        say(f"error {fault.node} {fault.tock} about {fault.path} {done}")
    if session.json:
        session.print({done: len(found)})
