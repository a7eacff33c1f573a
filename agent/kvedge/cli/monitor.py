"""`kv monitor`: the messages between servers, as they pass one of them.

That server holds the key and the connection, so it is the server that decodes; here each message
becomes a line.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import click

from kvedge.cli.commands import Command
from kvedge.cli.either_order import NotFound, connect, json_option, the_session
from kvedge.cli.output import to_json
from kvedge.client.result import Result

_FIELDS = ("time", "direction", "topic", "sender", "kind", "size")
_ARROWS = {"in": "<", "out": ">"}


@click.command(cls=Command)
@click.option(
    "-o", "--count", type=click.IntRange(min=1), metavar="N", help="End after N messages."
)
@json_option
def monitor(count: int | None) -> None:
    """Print the messages between servers, as they pass this one.

    A line has the time, `<` for in or `>` for out, the sender, the topic, the kind, the size in
    bytes, and what it says in short: how many records, the first paths, whose changes.  What
    this server refuses is shown with the reason.  ^C ends it.
    """
    session = the_session()
    with connect() as client:
        if client.net_status().name is None:
            why = "this server works alone, so no messages pass; see `kv net status`"
            raise NotFound("kv monitor", why)
        for item in islice(client.traffic(), count):
            fields = fields_of(item)
            sys.stdout.write((to_json(fields) if session.json else line_of(fields)) + "\n")
            sys.stdout.flush()


def fields_of(item: Result) -> dict[str, Any]:
    """Return what an item of the stream says, without what belongs to the stream."""
    return {name: value for name, value in item.items() if name not in ("seq", "wseq")}


def line_of(fields: Mapping[str, Any]) -> str:
    """Return a message as a line."""
    if "dropped" in fields:
        return f"... {fields['dropped']} more, too many to show"
    head = (
        _time(fields["time"]),
        _ARROWS.get(fields["direction"], "?"),
        fields["sender"] or "?",
        fields["topic"],
        fields["kind"] or "-",
        str(fields["size"]),
    )
    more = _said(fields)
    line = " ".join(head) + (f": {more}" if more else "")
    return line if line.isprintable() else to_json(line)[1:-1]


def _time(unix_s: float) -> str:
    try:
        moment = datetime.fromtimestamp(unix_s, UTC).astimezone()
    except (OverflowError, ValueError, OSError):
        return f"{unix_s:g}"
    return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03}"


def _said(fields: Mapping[str, Any]) -> str:
    """Return what a message says."""
    if "refused" in fields:
        detail = fields.get("detail")
        return f"refused: {fields['refused']}{f' ({detail})' if detail else ''}"
    said = dict(fields)
    parts = [_records(said)] if "records" in said else []
    for name, value in said.items():
        if name not in (*_FIELDS, "records", "paths", "ticks"):
            parts.append(f"{name} {_short(value)}")
    return ", ".join(parts)


def _records(fields: Mapping[str, Any]) -> str:
    count, paths = fields["records"], list(fields.get("paths") or ())
    whose = [
        f"{node} {' '.join(_range(*ends) for ends in ranges)}"
        for node, ranges in (fields.get("ticks") or {}).items()
    ]
    named = " ".join([*paths, *(["..."] if count > len(paths) else [])])
    text = f"{count} record{'' if count == 1 else 's'}"
    return text + (f" of {'; '.join(whose)}" if whose else "") + (f": {named}" if named else "")


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _short(value: object) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name} {item}" for name, item in value.items()) or "nothing"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
