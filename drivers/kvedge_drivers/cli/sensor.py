"""`kv sensor`: what sensors say, and where their values go."""

from __future__ import annotations

import select
import shutil
import sys
from collections.abc import Iterator
from itertools import chain

import click

from kvedge.client.sync import SyncClient
from kvedge.clock import SystemClock
from kvedge.errors import BadSetting, ConflictError
from kvedge.job import CommandContext
from kvedge.model.path import Path
from kvedge.model.value import MISSING
from kvedge_drivers.cli.rows import Row, row_at, summary, table
from kvedge_drivers.quantity import is_number
from kvedge_drivers.readings.places import BINDINGS, RECORDS, Binding, Record, value_path
from kvedge_drivers.readings.states import State

_NONE_YET = (
    "No sensor has told anything yet.  For the board's own, type:\n"
    "  kv run -n NODE set -c @host -t 0 host"
)
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"  # a long reason is cut at the edge


def _take_json(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 -- click's callback
    if wanted:
        ctx.obj.json = True


json_option = click.option(
    "--json", is_flag=True, expose_value=False, callback=_take_json, help="print JSON"
)
node_option = click.option("-n", "--node", metavar="NODE", help="the node with the hardware")


@click.group()
def sensor() -> None:
    """Sensors: their values, and where these go.

    SENSOR is DEVICE.CHANNEL, as in 28.0000000000A1.temperature, or the path of its value.
    """


# --- looking ---------------------------------------------------------------------------------


@sensor.command("list")
@node_option
@json_option
@click.pass_obj
def list_(session: CommandContext, node: str | None) -> None:
    """Show every channel: value, state, age, and what is wrong.

    A value in brackets is the last one of a channel that has none now.  An age with a question
    mark was told by a clock that had not been set.
    """
    with session.connect() as client:
        rows = _rows(client, node)
    if session.json:
        session.print([row.as_json() for row in rows])
    elif rows:
        for line in table(rows):
            click.echo(line)
        click.echo(summary(rows), err=True)
    else:
        click.echo(_NONE_YET, err=True)


@sensor.command()
@node_option
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(min=0.1),
    default=1.0,
    metavar="SEC",
    help="how often to look",
)
@json_option
@click.pass_obj
def watch(session: CommandContext, node: str | None, every_s: float) -> None:
    """Show the channels until interrupted.

    On a terminal the table is drawn anew; else each change is a line.
    """
    is_live = sys.stdout.isatty() and not session.json
    with session.connect() as client:
        if is_live:
            click.clear()
        shown: dict[str, tuple[object, ...]] = {}
        while True:
            rows = _rows(client, node)
            if is_live:
                click.echo(_screen(rows), nl=False)
            else:
                _print_changes(session, rows, shown)
            _wait(every_s)


def _wait(seconds: float) -> None:
    select.select([], [], [], seconds)


def _print_changes(
    session: CommandContext, rows: list[Row], shown: dict[str, tuple[object, ...]]
) -> None:
    """Print what differs from what was shown, and remember it."""
    for row in rows:
        now = (row.record.value, row.state, row.record.path)
        name = f"{row.node} {row.sensor}"
        if shown.get(name) == now:
            continue
        shown[name] = now
        if session.json:
            session.print(row.as_json())
        else:
            click.echo(row.as_line())
    sys.stdout.flush()


def _screen(rows: list[Row]) -> str:
    """Return a whole screen; when not all fit, what is not ok comes first."""
    height = shutil.get_terminal_size().lines - 2  # the header and the summary
    hidden = len(rows) - height
    if hidden > 0:
        rows = sorted(rows, key=lambda row: row.state is State.OK)
    end = f"  {hidden} more do not fit." if hidden > 0 else ""
    lines = [*table(rows[:height]), summary(rows) + end] if rows else [_NONE_YET]
    text = f"{_CLEAR_LINE}\n".join(lines)
    return f"{_NO_WRAP}{_HOME}{text}{_CLEAR_LINE}{_CLEAR_BELOW}{_WRAP}"


def _rows(client: SyncClient, node: str | None) -> list[Row]:
    """Return the channels, of one node or of all, in the order of their paths."""
    now_s = SystemClock().wall_s()
    rows = (row_at(key, record, now_s) for key, record in _records(client, node))
    return sorted((row for row in rows if row), key=lambda row: str(row.record.path))


def _records(client: SyncClient, node: str | None) -> Iterator[tuple[Path, Record]]:
    prefix = () if node is None else (node,)
    for item in client.get_tree(RECORDS + prefix):
        try:
            yield Path(*prefix, *item.path), Record.from_value(item.value)
        except BadSetting:
            continue  # written by something else


# --- changing --------------------------------------------------------------------------------


@sensor.command()
@click.argument("name", metavar="SENSOR")
@click.argument("path")
@click.option("--offset", type=float, help="added to the value, in its unit")
@click.option("--gain", type=float, help="factor, applied before the offset")
@node_option
@click.pass_obj
def bind(
    session: CommandContext,
    name: str,
    path: str,
    offset: float | None,
    gain: float | None,
    node: str | None,
) -> None:
    """Have the value of a sensor at PATH.

    A running job follows at once; a sensor that has not been seen yet will follow when it is.
    """
    where = value_path(path)
    with session.connect() as client:
        key = _key(client, name, node)
        _refuse_taken(client, where, key)
        _change(client, key, path=where, offset=offset, gain=gain)


@sensor.command()
@click.argument("name", metavar="SENSOR")
@node_option
@click.pass_obj
def unbind(session: CommandContext, name: str, node: str | None) -> None:
    """Have the value of a sensor at its own place again, as it is measured."""
    with session.connect() as client:
        key = _key(client, name, node)
        if "value" not in client.get(BINDINGS + key):
            raise ConflictError(f"{_name(key)} of {key[0]!s} is not bound")
        client.delete(BINDINGS + key)


@sensor.command()
@click.argument("name", metavar="SENSOR")
@click.option("--offset", type=float, help="added to the value, in its unit")
@click.option("--gain", type=float, help="factor, applied before the offset")
@click.option("--actual", type=float, metavar="VALUE", help="what it should say just now")
@node_option
@json_option
@click.pass_obj
def calibrate(
    session: CommandContext,
    name: str,
    offset: float | None,
    gain: float | None,
    actual: float | None,
    node: str | None,
) -> None:
    """Correct the value of a sensor: gain x measured + offset.

    With --actual the offset is found: compare with a good instrument and type what that one
    says.  Without options, shows what holds.
    """
    if actual is not None and offset is not None:
        raise BadSetting("--actual", "it finds the offset; leave out --offset")
    with session.connect() as client:
        key = _key(client, name, node)
        if actual is not None:
            offset = _offset_for(client, key, actual, gain)
        if offset is not None or gain is not None:
            _change(client, key, offset=offset, gain=gain)
        else:
            held = _binding(client, key)
            session.print({"offset": held.offset, "gain": held.gain})


def _offset_for(client: SyncClient, key: Path, actual: float, gain: float | None) -> float:
    """Return the offset that makes a sensor say a value.

    Raises:
        ConflictError: It says nothing now that could be compared.
    """
    found = client.get(RECORDS + key)
    row = "value" in found and row_at(key, Record.from_value(found.value), SystemClock().wall_s())
    if not row or not row.state.is_current or not is_number(row.record.value):
        raise ConflictError(f"{_name(key)} has no current value to compare with")
    held = _binding(client, key)
    measured = (row.record.value - held.offset) / held.gain
    return round(actual - measured * (held.gain if gain is None else gain), 6)


def _binding(client: SyncClient, key: Path) -> Binding:
    value = client.get(BINDINGS + key).get("value", MISSING)
    return Binding() if value is MISSING else Binding.from_value(value)


def _change(
    client: SyncClient,
    key: Path,
    *,
    path: Path | None = None,
    offset: float | None = None,
    gain: float | None = None,
) -> None:
    """Store a wish; what is None stays as it is."""
    if gain == 0:
        raise BadSetting("--gain", "with 0 the sensor would say nothing")
    held = _binding(client, key)
    binding = Binding(
        path=held.path if path is None else path,
        offset=held.offset if offset is None else offset,
        gain=held.gain if gain is None else gain,
    )
    client.set(BINDINGS + key, Binding.from_value(binding.to_value()).to_value())


def _key(client: SyncClient, sensor: str, node: str | None) -> Path:
    """Return node, device and channel of a sensor.

    Args:
        client: The connection.
        sensor: DEVICE.CHANNEL, or the path where its value stands or will stand.
        node: The node; None for the one that answers.

    Raises:
        BadSetting: It cannot be a sensor, or several have this name.
    """
    values = ((key, record.path) for key, record in _records(client, node))
    for key, path in chain(values, _bound(client, node)):
        if sensor == str(path):
            return key
    node = node or str(client.greeting["node"])
    for key, _ in _records(client, node):
        if sensor in (_name(key), str(key[1:])):
            return key
    device, _, channel = sensor.rpartition(".")
    if not device or not channel or ":" in sensor:
        raise BadSetting("SENSOR", f"{sensor!r} is not DEVICE.CHANNEL; see `kv sensor list`")
    click.echo(f"{sensor} has not been seen on {node} yet.", err=True)
    return Path(node, device, channel)


def _name(key: Path) -> str:
    return ".".join(map(str, key[1:]))


def _refuse_taken(client: SyncClient, path: Path, key: Path) -> None:
    """Raise where another sensor's value stands at a path, or shall.

    Raises:
        ConflictError: Two writers would fight.
    """
    users = {other: record.path for other, record in _records(client, None)}
    users.update(_bound(client, None))
    for other, taken in users.items():
        if other != key and taken == path:
            raise ConflictError(f"{path} is where {_name(other)} of {other[0]!s} goes")


def _bound(client: SyncClient, node: str | None) -> Iterator[tuple[Path, Path]]:
    """Yield each sensor of one node, or of all, that is bound to a path, and that path."""
    prefix = () if node is None else (node,)
    for item in client.get_tree(BINDINGS + prefix):
        try:
            path = Binding.from_value(item.value).path
        except BadSetting:
            continue  # the job passes over it, too
        if path is not None:
            yield Path(*prefix, *item.path), path
