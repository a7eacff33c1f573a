"""`kv member`: which nodes belong to the network, and what to do about one that is gone for good.

A member stands at `:n.member.NODE` with its state.  As long as it is one, the others keep
for it what it may lack: deletions above all.  Expired it holds nothing up any more, and has to take
a full copy when it comes back; forgotten it is nobody.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from kvedge.cli.either_order import (
    EitherOrderGroup,
    NotFound,
    connect,
    json_option,
    say,
    the_session,
)
from kvedge.cli.net_status import Status, heard_text, lag_text, status_of
from kvedge.cli.tables import table
from kvedge.client.sync import SyncClient
from kvedge.errors import BadSetting, ChainMismatch, ConflictError
from kvedge.model.path import Path
from kvedge.model.places import MEMBERS


@dataclass(frozen=True, slots=True)
class _Member:
    """A member as it is stored.

    Attributes:
        node: Who.
        state: member, expired, or a word that this version does not know.
        by: Which node wrote that.
        reason: Why.
        chain: The last change of the entry.
    """

    node: str
    state: str
    by: str
    reason: str
    chain: Any

    @property
    def place(self) -> Path:
        """Where it is stored."""
        return MEMBERS / self.node


@click.group(cls=EitherOrderGroup)
@json_option
def member() -> None:
    """Members of the network: list them, expire or forget one.

    A board that is gone for good makes the others keep what it may lack, until it is expired.

    $ kv member list
    $ kv member expire board7 --yes
    $ kv member forget board7 --yes
    """


@member.command("list")
@json_option
def list_members() -> None:
    """Print the members, and servers that are seen without being one.

    $ kv member list
    """
    session = the_session()
    with connect() as client:
        members = {each.node: each for each in _stored(client)}
        status = status_of(client)
    servers = _servers(status)
    if session.json:
        session.print([_fields(node, members, servers) for node in sorted({*members, *servers})])
        return
    own = status["node"]
    rows = [_cells(node, members, servers, own=own) for node in sorted({*members, *servers})]
    click.echo(table(_HEADER, rows), nl=False)
    if not rows:
        say("there are no members; `kv net status` tells whether there is a network")


_HEADER = ("node", "state", "heard", "lag", "by", "reason")


def _servers(status: Status) -> dict[str, Mapping[str, Any]]:
    """Return the servers of the network by name; none where the server works alone."""
    if status["name"] is None:
        return {}
    return {str(server["node"]): server for server in status["servers"]}


def _stored(client: SyncClient) -> list[_Member]:
    found = []
    for result in client.get_tree(MEMBERS, min_depth=1, max_depth=1, nchain=1):
        node, value = result.path[0], result.value
        if isinstance(node, str) and isinstance(value, Mapping):
            state, by, reason = (str(value.get(name) or "") for name in ("state", "by", "reason"))
            found.append(_Member(node, state, by, reason, result.chain))
    return found


def _fields(
    node: str, members: Mapping[str, _Member], servers: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    known, server = members.get(node), servers.get(node, {})
    return {
        "node": node,
        "state": known.state if known else None,
        "by": known.by if known else None,
        "reason": known.reason if known else None,
        "is_seen": server.get("is_seen"),
        "seen_s": server.get("seen_s"),
        "lag": server.get("lag"),
    }


def _cells(
    node: str,
    members: Mapping[str, _Member],
    servers: Mapping[str, Mapping[str, Any]],
    *,
    own: str,
) -> list[str]:
    known, server = members.get(node), servers.get(node)
    heard = heard_text(server) if server else "-"
    return [
        node,
        known.state if known else "(no member)",
        "(this one)" if node == own else heard,
        lag_text(server) if server else "-",
        (known.by if known else "") or "-",
        known.reason if known else "",
    ]


def _named(client: SyncClient, node: str) -> _Member:
    """Return the member of a name.

    Raises:
        NotFound: There is none.
    """
    members = _stored(client)
    for found in members:
        if found.node == node:
            return found
    names = ", ".join(found.node for found in members) or "there are none"
    raise NotFound(node, f"there is no such member: {names}")


# --- expire, forget --------------------------------------------------------------------------

_YES = click.option("-y", "--yes", is_flag=True, help="Do it without asking.")


@member.command()
@click.argument("node", metavar="NODE")
@click.option("--reason", default="by hand", metavar="TEXT", help="Why.  [by hand]")
@_YES
@json_option
def expire(
    node: str,
    reason: str,
    yes: bool,  # noqa: FBT001 -- click passes by name
) -> None:
    """Declare that a member is gone.

    The others keep nothing for it any more. Should it come back, it takes a full copy of the
    tree, and of its own unsent writes those whose entries have not changed meanwhile. A node
    that is seen is not expired: end it first.

    $ kv member expire board7
    $ kv member expire board7 --yes --reason "its card is dead"
    """
    with connect() as client:
        found = _named(client, node)
        if found.state == "expired":
            raise NotFound(node, f"it is expired already, by {found.by}: {found.reason}")
        own = str(client.greeting["node"])
        _refuse_where_seen(node, own, _servers(status_of(client)).get(node))
        say(f"{node} will have to take a full copy if it comes back; nothing is kept for it")
        _ask(f"expire {node}", is_sure=yes)
        value = {"state": "expired", "by": own, "reason": reason}
        with _Unchanged(found):
            client.set(found.place, value, chain=found.chain)
    _tell(node, "expired")


def _refuse_where_seen(node: str, own: str, server: Mapping[str, Any] | None) -> None:
    """Raise ConflictError where a node is there: a member that is there holds nothing up."""
    if node == own:
        raise ConflictError(f"{node}: it is the server that you ask; ask another one")
    if server is not None and server.get("is_seen"):
        why = "end its server first; while it runs it holds nothing up"
        raise ConflictError(f"{node}: it is there, heard {heard_text(server)}; {why}")


@member.command()
@click.argument("node", metavar="NODE")
@_YES
@json_option
def forget(
    node: str,
    yes: bool,  # noqa: FBT001 -- click passes by name
) -> None:
    """Remove an expired member from the list.

    The values that it wrote stay. Lost is the knowledge that it was away: should it come back
    with its old data, it is taken for a new board, and entries that were deleted meanwhile may
    come back with it. So forget a node only if its data are gone, too.

    $ kv member forget board7
    """
    with connect() as client:
        found = _named(client, node)
        if found.state != "expired":
            why = f"it is no expired member but in state {found.state!r}"
            raise ConflictError(f"{node}: {why}; first `kv member expire {node}`")
        say(f"if {node} comes back with its old data, deleted entries may come back with it")
        _ask(f"forget {node}", is_sure=yes)
        with _Unchanged(found):
            client.delete(found.place, chain=found.chain)
    _tell(node, "forgotten")


class _Unchanged:
    """Says what it means where a member's entry has changed since it was read."""

    def __init__(self, member: _Member) -> None:
        self._member = member

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, ChainMismatch):
            raise ChainMismatch(
                str(self._member.place),
                expected=f"the state {self._member.state!r}",
                found="one that has just changed",
            ) from error


def _ask(what: str, *, is_sure: bool) -> None:
    """Ask whoever sits at a terminal; a script has to say --yes.

    Raises:
        BadSetting: Nobody can be asked.
        Abort: The answer is no.
    """
    if is_sure:
        return
    if not sys.stdin.isatty():
        raise BadSetting("--yes", f"it is needed to {what} where nobody can be asked")
    click.confirm(f"kv: {what}?", abort=True, err=True)


def _tell(node: str, done: str) -> None:
    say(f"{node} is {done}")
    session = the_session()
    if session.json:
        session.print({done: node})
