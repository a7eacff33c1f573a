"""What the verbs of `kv data` do; both parsers end here.

Each checks all its words before it connects, asks the client, and prints.  `set` with parts of a
value reads the value, changes the parts and writes it back under the chain it read, so that a
change by somebody else in between is not lost.

This module is on the path of every short command: it imports no more than it must.
"""

from __future__ import annotations

import sys

from kvedge import limits
from kvedge.cli.output import Pairs, Tree, to_json, to_yaml
from kvedge.errors import ChainMismatch, EntryAbsent
from kvedge.model.path import P
from kvedge.model.value import MISSING, part_of, updated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from kvedge.cli.connection import Client, Result, Session
    from kvedge.cli.options import Given, Verb
    from kvedge.model.path import Path

_ATTEMPTS_MAX = 5  # of a read-change-write; whoever loses five times has a busy neighbour


def run(verb: Verb, path: str, given: Given, session: Session) -> None:
    """Do what a command line behind `kv data` says.

    Raises:
        AgentError: It cannot be done.
    """
    session.json = session.json or bool(given.count("json"))
    _RUN[verb.name](P(path), given, session)


# --- reading ---------------------------------------------------------------------------------


def _get(path: Path, given: Given, session: Session) -> None:
    given.refuse_without("recursive", "as_dict", "min_depth", "max_depth", "empty")
    given.refuse_without("as_dict", "empty")
    links = _links(given)
    if given.count("recursive"):
        _get_tree(path, given, session)
        return
    with session.connect() as client:
        result = client.get(path, nchain=links)
    if "value" not in result:
        raise EntryAbsent(str(path))
    session.print(_shown(result, given, session))


def _get_tree(path: Path, given: Given, session: Session) -> None:
    depth_min = given.number("min_depth") or 0
    depth_max = given.number("max_depth")
    show = _print_nested if given.count("as_dict") else _print_flat
    with session.connect() as client:
        results = client.get_tree(
            path,
            min_depth=depth_min,
            max_depth=depth_max,
            nchain=_links(given),
            empty=bool(given.count("empty")),
        )
        if not show(results, given, session):
            raise EntryAbsent(str(path))


def _print_nested(results: Iterator[Result], given: Given, session: Session) -> bool:
    key = given.text("as_dict") or ""
    tree = Tree()
    any_there = False
    for result in results:
        any_there = True
        place = tree.place(result.path)
        if "value" in result:
            place.put(_shown(result, given, session))
    if tree.has_child(key):
        raise given.error(f"-d {key}", "a place below has that name itself; choose another KEY")
    if any_there:
        session.print(tree.nested(key))
    return any_there


def _print_flat(results: Iterator[Result], given: Given, session: Session) -> bool:
    """Print paths and values as they come: a YAML map, or a JSON list of objects."""
    any_there = False
    for result in results:
        if session.json:
            line = to_json(_change(result, given, session))
            sys.stdout.write(f",\n {line}" if any_there else f"[{line}")
        else:
            shown = _shown(result, given, session)
            sys.stdout.write(to_yaml(Pairs([(str(result.path), shown)])))
        any_there = True
    if any_there and session.json:
        sys.stdout.write("]\n")
    return any_there


def _list(path: Path, given: Given, session: Session) -> None:
    values = bool(given.count("values"))
    with session.connect() as client:
        found = client.list(path, with_data=values, empty=not values)
    session.print(Pairs(found) if values else list(found))


def _monitor(path: Path, given: Given, session: Session) -> None:
    depth_min = given.number("min_depth") or 0
    depth_max = given.number("max_depth")
    links = _links(given)
    with session.connect() as client:
        results = client.watch(
            path,
            fetch=not given.count("only_changes"),
            min_depth=depth_min,
            max_depth=depth_max,
            nchain=links,
        )
        for result in results:
            if "path" in result:
                session.print_item(_change(result, given, session))
            elif given.count("state"):
                session.print_item({"state": result.state})


def _links(given: Given) -> int:
    return given.number("chain", at_most=limits.CHAIN_LINKS_MAX) or 0


def _stamps(result: Result, given: Given, session: Session) -> dict[str, object]:
    """Return chain and tock where they were asked for."""
    shown: dict[str, object] = {}
    if _links(given) and "chain" in result:
        shown["chain"] = result.chain
    if given.count("chain"):
        shown["tock"] = session.tock(result.tock)
    return shown


def _shown(result: Result, given: Given, session: Session) -> object:
    """Return what is printed for an entry."""
    stamps = _stamps(result, given, session)
    return {"value": result.value, **stamps} if stamps else result.value


def _change(result: Result, given: Given, session: Session) -> dict[str, object]:
    """Return an entry or a change in the form that `update` reads."""
    what = {"value": result.value} if "value" in result else {"deleted": True}
    return {"path": str(result.path), **what, **_stamps(result, given, session)}


# --- writing ---------------------------------------------------------------------------------


def _set(path: Path, given: Given, session: Session) -> None:
    given.refuse_together("last", "new")
    links = _links(given)
    chain = None if given.count("new") else given.link("last") or MISSING
    parts, before = parts_given(given)
    if not parts:
        raise given.error("set", "there is nothing to store; give -v PATH TEXT or -e PATH LITERAL")
    with session.connect() as client:
        result = store_parts(client, path, parts=parts, before=before, chain=chain, links=links)
    stamps = _stamps(result, given, session)
    if stamps or session.json:
        session.print(stamps or {"tock": session.tock(result.tock)})


def parts_given(given: Given) -> tuple[list[tuple[Path, object]], list[tuple[Path, object]]]:
    """Return the parts to store that -v and -e name, and those that -p expects.

    Raises:
        BadSetting: A word is no path or no literal, or a part is given twice.
    """
    return _parts_new(given), _literals(given, "prev")


def store_parts(
    client: Client,
    path: Path,
    *,
    parts: list[tuple[Path, object]],
    before: list[tuple[Path, object]],
    chain: object,
    links: int = 0,
) -> Result:
    """Store a value, or parts of the one that is there.

    Args:
        client: The connection.
        path: Where.
        parts: What; at least one.
        before: Parts that must be there.
        chain: Only if this was the last change; None: only if there is no value; MISSING: always.
        links: How many links of the new chain to return.

    Raises:
        ChainMismatch: The entry is not as it must be.
    """
    if len(parts[0][0]) or before:
        return _change_parts(client, path, parts=parts, before=before, chain=chain, links=links)
    return client.set(path, _with_parts(MISSING, parts), chain=chain, nchain=links)


def _parts_new(given: Given) -> list[tuple[Path, object]]:
    """Return the parts to store, the outer before the inner, so that their order is free."""
    texts: list[tuple[Path, object]] = [(P(name), text) for name, text in given.pairs("value")]
    parts = texts + _literals(given, "eval")
    names = [name for name, _ in parts]
    for name in names:
        if names.count(name) > 1:
            raise given.error(f"part {name}", "it is given twice")
    return sorted(parts, key=lambda part: len(part[0]))


def _literals(given: Given, name: str) -> list[tuple[Path, object]]:
    pairs = given.pairs(name)
    if not pairs:
        return []
    from kvedge.cli.literals import literal

    return [(P(part), literal(text)) for part, text in pairs]


def _with_parts(value: object, parts: list[tuple[Path, object]]) -> object:
    for name, new in parts:
        value = updated(value, name, new)
    return value


def _change_parts(
    client: Client,
    path: Path,
    *,
    parts: list[tuple[Path, object]],
    before: list[tuple[Path, object]],
    chain: object,
    links: int,
) -> Result:
    """Read, check, change and write back; again where somebody else was faster."""
    for attempts_left in reversed(range(_ATTEMPTS_MAX)):
        old = client.get(path, nchain=1)
        value = old.value if "value" in old else MISSING
        _check_parts(path, value, before)
        if chain is None:
            value = MISSING  # if there is one after all, the server refuses the write
        known = chain
        if chain is MISSING:
            known = old.chain if "value" in old else None
        try:
            return client.set(path, _with_parts(value, parts), chain=known, nchain=links)
        except ChainMismatch:
            if chain is not MISSING or not attempts_left:
                raise
    raise AssertionError  # the last attempt returns or raises


def _check_parts(path: Path, value: object, before: list[tuple[Path, object]]) -> None:
    """Raise ChainMismatch where a part is not what it should have been."""
    for name, expected in before:
        found = part_of(value, name)
        # Compared as printed: Python takes True for 1, and a list for no tuple.
        text = "nothing" if found is MISSING else to_json(found)
        if text != to_json(expected):
            where = f"{path}, part {name}" if len(name) else str(path)
            raise ChainMismatch(where, expected=to_json(expected), found=text)


def _delete(path: Path, given: Given, session: Session) -> None:
    given.refuse_together("recursive", "last")
    chain = given.link("last") or MISSING
    with session.connect() as client:
        if given.count("recursive"):
            changed = int(client.delete_tree(path).changed)
        else:
            changed = int(client.delete(path, chain=chain).changed)
    if not changed:
        raise EntryAbsent(str(path))
    _tell_changed(changed, session)


def _update(path: Path, given: Given, session: Session) -> None:
    from kvedge.cli.changes import read_changes

    changes = read_changes(given.text("infile"))
    with session.connect() as client:
        for name, value in changes:
            if value is MISSING:
                client.delete(path + name)
            else:
                client.set(path + name, value)
    _tell_changed(len(changes), session)


def _tell_changed(count: int, session: Session) -> None:
    session.note(f"{count} {'entry' if count == 1 else 'entries'} changed")
    if session.json:
        session.print({"changed": count})


_RUN: Mapping[str, Callable[[Path, Given, Session], None]] = {
    "get": _get,
    "set": _set,
    "delete": _delete,
    "list": _list,
    "monitor": _monitor,
    "update": _update,
}
