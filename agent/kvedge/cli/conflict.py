"""`kv conflict`: writes that lost against concurrent ones, kept until somebody has looked at them.

Of two writes to one entry that did not know of each other the later one wins everywhere.  The
author of the other one keeps both at `:.kv.conflict.NODE.NUMBER`; NODE.NUMBER names the conflict.
To resolve it is to remove that record, after the lost value or another one was stored, if that is
wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from kvedge.cli.connection import Session
from kvedge.cli.data import click_option, raw_of
from kvedge.cli.either_order import (
    PATH,
    EitherOrderGroup,
    NotFound,
    connect,
    json_option,
    say,
    the_session,
)
from kvedge.cli.options import VERBS, Given
from kvedge.cli.output import to_json
from kvedge.cli.tables import clipped, local_time, table
from kvedge.cli.verbs import parts_given, store_parts
from kvedge.client.result import Result
from kvedge.client.sync import SyncClient
from kvedge.errors import BadSetting, ChainMismatch
from kvedge.model.path import EMPTY, Path
from kvedge.model.places import CONFLICTS
from kvedge.model.stamp import tock_ms
from kvedge.model.value import MISSING

_REAL_MS = 1_577_836_800_000
"""2020: this program is younger, so a tock before was given without a right clock."""

_VALUE_WIDTH = 24
"""Characters of a value in the table; a terminal of 80 columns has room for both."""


@dataclass(frozen=True, slots=True)
class _Change:
    """One of the two changes.

    Attributes:
        node: Who made it.
        tick: Its number, as users see it.
        tock: When.
        value: What was stored; MISSING for a deletion, or where it was not kept.
        is_cut: Whether the value was too large to be kept.
    """

    node: str
    tick: int
    tock: int
    value: Any
    is_cut: bool

    @classmethod
    def read(cls, given: Any) -> _Change | None:
        """Return what a record says of a change, None where it is none."""
        if not isinstance(given, Mapping):
            return None
        node, tick, tock = (given.get(name) for name in ("node", "tick", "tock"))
        if not (isinstance(node, str) and type(tick) is int and type(tock) is int):
            return None
        return cls(node, tick, tock, given.get("value", MISSING), given.get("cut") is True)

    @property
    def is_deletion(self) -> bool:
        """Whether it deleted."""
        return self.value is MISSING and not self.is_cut

    @property
    def time_s(self) -> float | None:
        """When it was made, in unix seconds; None where the clock was not right."""
        unix_ms = tock_ms(self.tock)
        return unix_ms / 1000 if unix_ms >= _REAL_MS else None

    def cell(self) -> str:
        """Return it for a table."""
        if self.is_cut:
            return "(too large)"
        if self.is_deletion:
            return "(deleted)"
        return clipped(to_json(self.value), _VALUE_WIDTH)

    def fields(self, session: Session) -> dict[str, Any]:
        """Return it as it is printed whole."""
        what: dict[str, Any] = {"value": self.value}
        if self.is_cut:
            what = {"cut": True}
        elif self.is_deletion:
            what = {"deleted": True}
        stamps = {"node": self.node, "tick": self.tick, "tock": session.tock(self.tock)}
        time = self.time_s
        if not session.json:
            return {**stamps, "when": local_time(time), **what}
        return {**stamps, "when": time, **what}


@dataclass(frozen=True, slots=True)
class _Conflict:
    """A conflict as it is stored.

    Attributes:
        node: The author of the lost change.
        number: With `node` its name.
        path: What both changed.
        kind: Why it is one: concurrent, unsure, fence, join.
        lost: The change that lost.
        won: The change that won.
        chain: The last change of the record itself.
    """

    node: str
    number: int
    path: Path
    kind: str
    lost: _Change
    won: _Change
    chain: Any

    @property
    def name(self) -> str:
        """What commands call it."""
        return f"{self.node}.{self.number}"

    @property
    def place(self) -> Path:
        """Where it is stored."""
        return CONFLICTS + (self.node, self.number)

    def fields(self, session: Session) -> dict[str, Any]:
        """Return it as it is printed whole."""
        return {
            "id": self.name,
            "path": str(self.path),
            "kind": self.kind,
            "lost": self.lost.fields(session),
            "won": self.won.fields(session),
        }

    def cells(self) -> list[str]:
        """Return its row of the table."""
        when = local_time(self.won.time_s)
        return [self.name, str(self.path), self.kind, self.lost.cell(), self.won.cell(), when]


_HEADER = ("id", "path", "kind", "lost", "won", "when")


@click.group(cls=EitherOrderGroup)
@json_option
def conflict() -> None:
    """Writes that lost: list them, look at them, resolve them.

    Boards that are apart may write to the same entry. The later write wins, on all of them; the
    other one is kept here, until somebody has decided.

    $ kv conflict list
    $ kv conflict show board1.7
    $ kv conflict resolve board1.7 --keep lost
    """


@conflict.command("list")
@click.argument("path", type=PATH, required=False)
@json_option
def list_conflicts(path: Path | None) -> None:
    """Print the conflicts, the newest first.

    With PATH those about it and below.

    $ kv conflict list
    $ kv conflict list house.lamp
    """
    session = the_session()
    with connect() as client:
        found = [each for each in _stored(client) if each.path.is_below(path or EMPTY)]
    found.sort(key=lambda each: (-each.won.tock, each.node, -each.number))
    if session.json:
        session.print([each.fields(session) for each in found])
        return
    click.echo(table(_HEADER, [each.cells() for each in found]), nl=False)
    if not found:
        say("there are no conflicts")


def _stored(client: SyncClient) -> Iterator[_Conflict]:
    for result in client.get_tree(CONFLICTS, min_depth=2, max_depth=2, nchain=1):
        node, number = result.path
        found = _read(node, number, result)
        if found is not None:
            yield found


def _read(node: object, number: object, result: Result) -> _Conflict | None:
    """Return a stored conflict, None where the entry is none."""
    value = result.value
    if not (isinstance(node, str) and type(number) is int and isinstance(value, Mapping)):
        return None
    lost, won = _Change.read(value.get("lost")), _Change.read(value.get("won"))
    path = value.get("path")
    if lost is None or won is None or not isinstance(path, (tuple, Path)):
        return None
    kind = str(value.get("kind", "concurrent"))
    return _Conflict(node, number, Path(*path), kind, lost, won, result.chain)


@conflict.command()
@click.argument("name", metavar="ID")
@json_option
def show(name: str) -> None:
    """Print a conflict with both values.

    $ kv conflict show board1.7
    """
    session = the_session()
    with connect() as client:
        session.print(_named(client, name).fields(session))


def _named(client: SyncClient, name: str) -> _Conflict:
    """Return the conflict with a name.

    Raises:
        BadSetting: The word is no name.
        NotFound: There is no such conflict.
    """
    node, _, number = name.rpartition(".")
    if not (node and number.isascii() and number.isdecimal() and len(number) < 20):
        why = "a conflict is named NODE.NUMBER, as in board1.7; `kv conflict list` shows them"
        raise BadSetting(name, why)
    result = client.get(CONFLICTS + (node, int(number)), nchain=1)
    found = _read(node, int(number), result) if "value" in result else None
    if found is None:
        raise NotFound(name, "there is no such conflict; `kv conflict list` shows what there is")
    return found


# --- resolve ---------------------------------------------------------------------------------

_VALUE_OPTIONS = tuple(o for o in VERBS["set"].options if o.name in ("value", "eval", "prev"))


@conflict.command()
@click.argument("name", required=False, metavar="ID")
@click.option(
    "--keep", type=click.Choice(["won", "lost"]), help="Which of the two shall hold.  [won]"
)
@click.option("--force", is_flag=True, help="Write even where the entry has changed since.")
@click.option("--all", "is_all", is_flag=True, help="All conflicts; the winners stay.")
@json_option
def resolve(
    name: str | None,
    keep: str | None,
    force: bool,  # noqa: FBT001 -- click passes by name
    is_all: bool,  # noqa: FBT001
    **values: object,
) -> None:
    """Settle a conflict, and remove its record.

    What won stays, unless --keep lost brings back what lost, or -v or -e say what shall hold
    instead. That is refused where the entry has changed since it was recorded.

    $ kv conflict resolve board1.7
    $ kv conflict resolve board1.7 --keep lost
    $ kv conflict resolve board1.7 -e brightness 40
    $ kv conflict resolve --all
    """
    given = Given(_VALUE_OPTIONS, raw_of(_VALUE_OPTIONS, values), "kv conflict resolve")
    parts, before = parts_given(given)
    _check_words(name, keep=keep, force=force, is_all=is_all, given=given, has_parts=bool(parts))
    with connect() as client:
        found = [*_stored(client)] if is_all else [_named(client, str(name))]
        for each in found:
            if parts:
                _store_another(client, each, parts=parts, before=before, force=force)
            elif keep == "lost":
                _bring_back(client, each, force=force)
            _remove(client, each)
    _tell(found)


resolve.params += [click_option(option) for option in _VALUE_OPTIONS]


def _check_words(
    name: str | None,
    *,
    keep: str | None,
    force: bool,
    is_all: bool,
    given: Given,
    has_parts: bool,
) -> None:
    """Raise BadSetting where the words do not fit together."""
    if (name is None) is not is_all:
        why = "they exclude each other" if is_all else "give the ID of a conflict, or --all"
        raise given.error("ID and --all" if is_all else "ID", why)
    if has_parts and keep:
        raise given.error("--keep", "with -v or -e neither of the two values is kept")
    if is_all and (has_parts or keep == "lost"):
        raise given.error("--all", "it keeps what won; settle others one by one")
    if force and not (has_parts or keep == "lost"):
        raise given.error("--force", "nothing is written; it works with --keep lost, -v and -e")
    given.refuse_without("value" if given.count("value") else "eval", "prev")


def _bring_back(client: SyncClient, found: _Conflict, *, force: bool) -> None:
    """Let the entry hold what lost.

    Raises:
        NotFound: The value was not kept.
        ChainMismatch: The entry has changed since the conflict was recorded.
    """
    lost = found.lost
    if lost.is_cut:
        raise NotFound(found.name, "the lost value was too large to be kept; store one with -e")
    present = client.get(found.path, nchain=1)
    if _text_of(present.get("value", MISSING)) == _text_of(lost.value):
        return  # as somebody wants it already
    chain = MISSING if force else _chain_of_winner(found, present)
    if lost.is_deletion:
        client.delete(found.path, chain=chain)
    else:
        client.set(found.path, lost.value, chain=chain)


def _store_another(
    client: SyncClient,
    found: _Conflict,
    *,
    parts: list[tuple[Path, object]],
    before: list[tuple[Path, object]],
    force: bool,
) -> None:
    present = client.get(found.path, nchain=1)
    chain = MISSING if force else _chain_of_winner(found, present)
    store_parts(client, found.path, parts=parts, before=before, chain=chain)


def _chain_of_winner(found: _Conflict, present: Result) -> Any:
    """Return the present chain of the entry, whose last change is the one that won.

    Raises:
        ChainMismatch: It is another one.
    """
    won, chain = found.won, present.get("chain")
    is_there = "value" in present
    last = (chain["node"], chain["tick"]) if chain else None
    # Of a deletion the server tells no chain: nothing there is what it left.
    if last == (won.node, won.tick) or (won.is_deletion and not is_there):
        return chain if is_there else None
    now = _text_of(present.get("value", MISSING))
    by = f", change {last[1]} of {last[0]}" if last else ""
    raise ChainMismatch(
        str(found.path),
        expected=f"what won, change {won.tick} of {won.node}",
        found=f"{clipped(now, 200)}{by}; --force writes all the same",
    )


def _text_of(value: object) -> str:
    """Return a value as text; Python calls 1 and True equal."""
    return "no value" if value is MISSING else to_json(value)


def _remove(client: SyncClient, found: _Conflict) -> None:
    try:
        client.delete(found.place, chain=found.chain)
    except ChainMismatch as error:
        raise ChainMismatch(
            str(found.place), expected="the record that was read", found="another one"
        ) from error


def _tell(found: Sequence[_Conflict]) -> None:
    session = the_session()
    for each in found:
        say(f"conflict {each.name} about {each.path} resolved")
    if not found:
        say("there are no conflicts")
    if session.json:
        session.print({"resolved": len(found)})
