"""`kv net status`: how this server stands among the others, as table or JSON.

The text is made by pure functions of what the server answers; see `kvedge.server.standing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from kvedge.cli.commands import Command
from kvedge.cli.either_order import connect, json_option, the_session
from kvedge.cli.tables import span_text, table
from kvedge.client.sync import SyncClient

Status = Mapping[str, Any]
"""The answer to `net_status`."""

_STANDINGS: Mapping[str, str] = {
    "good": "good",
    "unsure": "unsure: not enough other servers were heard yet to tell",
    "regressed": "regressed: this store has less than it had; it takes a full copy from another",
    "expired": "expired: away for too long; it takes a full copy from another server",
    "copying": "copying: it takes a full copy from another server",
}

_FIELDS = ("name", "node", "connected", "reason", "standing", "key")
_FIELDS_REST = ("servers", "missing", "conflicts", "refused")


@click.command(cls=Command)
@json_option
def status() -> None:
    """Print how this server stands among the others.

    Its servers with version, when each was heard last, how many changes it lacks (lag), and
    whether it is a member; then what is wrong, and the command that shows more.

    $ kv net status
    $ kv net status --json
    """
    session = the_session()
    with connect() as client:
        found = status_of(client)
    if session.json:
        session.print(found)
    else:
        click.echo(text_of(found), nl=False)


def status_of(client: SyncClient) -> Status:
    """Ask a server how it stands."""
    answer = client.net_status()
    return {name: answer.get(name) for name in (*_FIELDS, *_FIELDS_REST)}


def text_of(status: Status) -> str:
    """Return a status for people."""
    return _alone(status) if status["name"] is None else _among_others(status)


def _alone(status: Status) -> str:
    lines = [
        f"{status['node']} works alone: its server has no broker.",
        "To share its tree with other boards, set server.mqtt.uri in the configuration, or start",
        "`kv server` with --mqtt; all boards of one network have the same net.name and key.",
        *_conflicts(status),
    ]
    return "".join(f"{line}\n" for line in lines)


def _among_others(status: Status) -> str:
    standing = str(status["standing"])
    lines = [
        f"network:   {status['name']}",
        f"node:      {status['node']}",
        f"broker:    {_broker(status)}",
        f"standing:  {_STANDINGS.get(standing, standing)}",
        *_key(status),
        *_missing(status),
        *_conflicts(status),
        *_refused(status),
    ]
    rows = [_row(server, own=status["node"]) for server in status["servers"]]
    return "".join(f"{line}\n" for line in lines) + "\n" + table(_HEADER, rows)


_HEADER = ("node", "version", "heard", "lag", "member")


def _row(server: Mapping[str, Any], *, own: str) -> list[str]:
    return [
        str(server["node"]),
        str(server.get("version") or "-"),
        "(this one)" if server["node"] == own else heard_text(server),
        lag_text(server),
        str(server.get("state") or "-"),
    ]


def heard_text(server: Mapping[str, Any]) -> str:
    """Return when a server was heard last."""
    seen_s = server.get("seen_s")
    if seen_s is None:
        return "not yet" if not server.get("is_seen") else "now"
    ago = f"{span_text(seen_s)} ago"
    return ago if server.get("is_seen") else f"gone, {ago}"


def lag_text(server: Mapping[str, Any]) -> str:
    """Return how many changes a server lacks."""
    lag = server.get("lag")
    return "-" if lag is None else str(lag)


def _broker(status: Status) -> str:
    if status["connected"]:
        return "connected"
    reason = status.get("reason")
    return f"not connected{f': {reason}' if reason else ''}"


def _key(status: Status) -> list[str]:
    if status.get("key"):
        return []
    return ["key:       none: whoever reaches the broker may write; see net.key_file"]


def _missing(status: Status) -> list[str]:
    missing = status.get("missing") or {}
    counts = {
        node: sum(last - first + 1 for first, last in ranges) for node, ranges in missing.items()
    }
    if not any(counts.values()):
        return ["missing:   nothing"]
    told = ", ".join(f"{_count(n, 'change')} of {node}" for node, n in counts.items())
    return [f"missing:   {told}; see `kv internal state --missing`"]


def _conflicts(status: Status) -> list[str]:
    count = status.get("conflicts") or 0
    return [f"conflicts: {count}; see `kv conflict list`"] if count else []


def _refused(status: Status) -> list[str]:
    refused = status.get("refused") or {}
    told = ", ".join(f"{_count(n, 'message')} {cause}" for cause, n in refused.items())
    return [f"refused:   {told}; see `kv monitor`"] if told else []


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
