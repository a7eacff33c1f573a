"""TOML files and `-C` texts, taken apart into named values that remember where they stood."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kvedge.config.keys import KEYS
from kvedge.errors import BadSetting


@dataclass(frozen=True, slots=True)
class Given:
    """A value that somebody gave to a setting, not checked yet.

    Attributes:
        name: The full name of the setting, legal or not.
        value: What was given.
        origin: Where: `FILE:LINE`, a variable, `-C`, a flag.
    """

    name: str
    value: object
    origin: str


def from_file(name: str) -> Iterator[Given]:
    """Yield what a configuration file sets.

    Raises:
        BadSetting: It cannot be read, or is not TOML; file and line are named.
    """
    try:
        text = Path(name).read_text("utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        raise BadSetting(name, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadSetting(name, f"is not UTF-8 at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        why, _, place = str(error).rpartition(" (at ")
        line = re.match(r"line (\d+)", place)
        where = f"{name}:{line[1]}" if line else name
        raise BadSetting(where, f"is not TOML: {why or error}") from error
    lines = line_numbers(text)
    for full, value in _flatten(table):
        line_number = lines.get(full)
        yield Given(full, value, f"{name}:{line_number}" if line_number else name)


def from_override(text: str) -> Iterator[Given]:
    """Yield what one `-C section.key=LITERAL` sets.

    Raises:
        BadSetting: It does not have this form.
    """
    name, equals, literal = text.partition("=")
    if not equals:
        raise BadSetting(f"-C {text}", "must look like section.key=LITERAL")
    yield Given(name.strip(), literal_value(literal.strip()), "-C")


def literal_value(text: str) -> object:
    """Return a Python literal's value; any other text stands for itself, and is never run.

    >>> literal_value("['a', 1]"), literal_value("_test name=joe")
    (['a', 1], '_test name=joe')
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _flatten(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield full names and values; a table goes down as long as known names lie below it."""
    for name, value in table.items():
        full = f"{prefix}{name}"
        if isinstance(value, dict) and any(known.startswith(f"{full}.") for known in KEYS):
            yield from _flatten(value, f"{full}.")
        else:
            yield full, value


def line_numbers(text: str) -> dict[str, int]:
    """Return at which line each name is set, as far as a reader of lines can tell.

    tomllib does not tell.  Names in quotes or in inline tables are missed; the message then
    names the file alone.
    """
    found: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\[?\s*([\w.-]+)\s*\]", line):
            table = f"{header[1]}."
            found.setdefault(header[1], number)
        elif key := re.match(r"\s*([\w-]+(?:\s*\.\s*[\w-]+)*)\s*=", line):
            found.setdefault(table + re.sub(r"\s", "", key[1]), number)
    return found
