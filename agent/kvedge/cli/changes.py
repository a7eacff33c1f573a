"""Read changes in the form that `kv data get -r --json` and `kv data monitor --json` print.

That is JSON: objects with `path` and either `value` or `"deleted": true`, one after another or in
lists.  Other fields are passed over, and so are objects without `path` (the state mark).
"""

from __future__ import annotations

import json
import sys
from binascii import Error as Base64Error
from binascii import a2b_base64
from pathlib import Path as File
from typing import TYPE_CHECKING, Any

from kvedge.errors import BadSetting, BadValue
from kvedge.model.path import P, Path
from kvedge.model.value import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


def read_changes(file: str | None) -> list[tuple[Path, object]]:
    """Return paths and values, MISSING for a deletion; all of them, so a bad file changes nothing.

    Args:
        file: Its name; None or `-` for standard input.

    Raises:
        BadSetting: The file cannot be read, or is not in that form.
        BadPath: One of its paths is none.
    """
    name = "standard input" if file in (None, "-") else str(file)
    try:
        text = File(file).read_text("utf-8") if file and file != "-" else sys.stdin.read()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise BadSetting(name, f"cannot be read: {why}") from error
    return [change for item in _documents(text, name) for change in _changes_of(item, name)]


def _documents(text: str, name: str) -> Iterator[object]:
    decoder = json.JSONDecoder()
    at = _skip_blanks(text, 0)
    while at < len(text):
        try:
            item, at = decoder.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError) as error:
            line = text.count("\n", 0, at) + 1
            raise BadSetting(f"{name}, line {line}", "this is not JSON") from error
        at = _skip_blanks(text, at)
        yield item


def _skip_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _changes_of(item: object, name: str) -> Iterator[tuple[Path, object]]:
    for entry in item if isinstance(item, list) else [item]:
        if not isinstance(entry, dict) or not isinstance(entry.get("path", ""), str):
            raise BadSetting(name, f'an object with "path" is needed, not {entry!r:.60}')
        if "path" not in entry:
            continue
        if "value" in entry:
            yield P(entry["path"]), from_json(entry["value"])
        elif entry.get("deleted") is True:
            yield P(entry["path"]), MISSING
        else:
            raise BadSetting(name, f'{entry["path"]} has neither "value" nor "deleted": true')


def from_json(thing: Any) -> object:
    """Return the value whose JSON form `kvedge.cli.output.to_json` printed.

    Raises:
        BadValue: A `$` object is malformed.
    """
    if isinstance(thing, list):
        return [from_json(item) for item in thing]
    if not isinstance(thing, dict):
        return thing
    if len(thing) == 1:
        ((key, item),) = thing.items()
        if key in _SPECIAL:
            try:
                return _SPECIAL[key](item)
            except (ValueError, TypeError, Base64Error) as error:
                raise BadValue(f'{{"{key}": {item!r:.60}}}', "it is malformed") from error
    return {key: from_json(item) for key, item in thing.items()}


def _bytes(text: str) -> bytes:
    return a2b_base64(text, strict_mode=True)


def _map(pairs: list[tuple[Any, Any]]) -> dict[object, object]:
    return {from_json(key): from_json(item) for key, item in pairs}


_SPECIAL: Mapping[str, Callable[[Any], object]] = {
    "$bytes": _bytes,
    "$map": _map,
    "$float": float,
}
