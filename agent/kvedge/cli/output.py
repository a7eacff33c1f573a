"""Values as text: YAML for people, JSON for programs.

Both printers are our own, since the library ones cost more to import than the whole command may
take, and because paths need what they lack: the keys `1`, `true`, `1.0` and `"1"` side by side.

**YAML** is in block style.  A text stands plain only where a reader of YAML 1.1 or 1.2 takes it
for a text; else in single quotes, or in double quotes with escapes, or as a literal block where
it has several lines.  Bytes are `!!binary`.

**JSON** is one line.  What JSON lacks is an object with one key that begins with `$`: bytes
`{"$bytes": base64}`, maps with keys that are no texts `{"$map": [[key, value], ...]}`, and
`{"$float": "nan"}`.  A map that only looks like one of these is printed as a `$map`, so reading
it gives the value back.

This module is on the path of every short command: it imports no more than it must.
"""

from __future__ import annotations

from kvedge.model.path import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Pairs:
    """A map as a list of pairs, for keys that Python would take for the same one."""

    __slots__ = ("items",)

    def __init__(self, items: Iterable[tuple[object, object]]) -> None:
        self.items = list(items)


def _pairs_of(value: object) -> list[tuple[object, object]] | None:
    """Return the pairs of a map, None for anything else."""
    if isinstance(value, Pairs):
        return value.items
    return list(value.items()) if isinstance(value, dict) else None


def _base64(data: bytes) -> str:
    from binascii import b2a_base64

    return b2a_base64(data, newline=False).decode("ascii")


# --- JSON ------------------------------------------------------------------------------------

_JSON_ESCAPES = {code: f"\\u{code:04x}" for code in (*range(32), 127)}
_JSON_ESCAPES.update(
    {ord('"'): '\\"', ord("\\"): "\\\\", 10: "\\n", 13: "\\r", 9: "\\t"},
)
_WORDS = {None: "null", True: "true", False: "false"}


def to_json(value: object) -> str:
    """Return a value as one line of JSON."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(to_json, value))}]"
    pairs = _pairs_of(value)
    return _json_scalar(value) if pairs is None else _json_map(pairs)


def _json_scalar(value: object) -> str:
    if value is None or isinstance(value, bool):
        return _WORDS[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        text = repr(value)
        return f'{{"$float": "{text}"}}' if text in _YAML_FLOATS else text
    if isinstance(value, bytes):
        return f'{{"$bytes": "{_base64(value)}"}}'
    return f'"{str(value).translate(_JSON_ESCAPES)}"'


def _json_map(pairs: list[tuple[object, object]]) -> str:
    plain = all(isinstance(key, str) for key, _ in pairs)
    if not plain or (len(pairs) == 1 and str(pairs[0][0]).startswith("$")):
        return f'{{"$map": {to_json(pairs)}}}'
    return f"{{{', '.join(f'{to_json(key)}: {to_json(item)}' for key, item in pairs)}}}"


# --- YAML ------------------------------------------------------------------------------------

_YAML_WORDS = frozenset(("null", "true", "false", "yes", "no", "on", "off", "y", "n"))
_YAML_ESCAPES = {0: "\\0", 9: "\\t", 10: "\\n", 13: "\\r", ord('"'): '\\"', ord("\\"): "\\\\"}
_YAML_FLOATS = {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}
_KEY_MAX_CHARS = 800  # YAML allows 1024 for a key before its colon, quotes included
_BASE64_LINE_CHARS = 64


def to_yaml(value: object) -> str:
    """Return a value as YAML, with the line end.

    A text alone stands in double quotes, so that it cannot be taken for anything else.
    """
    if isinstance(value, str):
        return _double_quoted(value) + "\n"
    return "\n".join(_lines(value)) + "\n"


def yaml_item(value: object) -> str:
    """Return a value as one more item of a YAML list."""
    return "\n".join(_item_lines(value)) + "\n"


def _lines(value: object) -> list[str]:
    """Return the lines of a value that stands by itself or behind `key: ` or `- `.

    Everything behind the first line is indented where it must be.
    """
    pairs = _pairs_of(value)
    if pairs:
        return [line for key, item in pairs for line in _pair_lines(key, item)]
    if isinstance(value, (list, tuple)) and value:
        return [line for item in value for line in _item_lines(item)]
    if isinstance(value, (str, Path)):
        return _text_lines(str(value))
    if isinstance(value, bytes) and value:
        text = _base64(value)
        starts = range(0, len(text), _BASE64_LINE_CHARS)
        return ["!!binary |", *("  " + text[at : at + _BASE64_LINE_CHARS] for at in starts)]
    return [_inline(value)]


def _inline(value: object) -> str:
    """Return a value that fits on one line: in flow style, texts quoted."""
    if value is None or isinstance(value, (bool, int)):
        return to_json(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, bytes):
        return f'!!binary "{_base64(value)}"'
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_inline, value))}]"
    pairs = _pairs_of(value)
    if pairs is not None:
        return f"{{{', '.join(f'{_inline(key)}: {_inline(item)}' for key, item in pairs)}}}"
    return _double_quoted(str(value))


def _float(value: float) -> str:
    text = repr(value)
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")  # YAML 1.1 takes 1e+16 for a text
    return _YAML_FLOATS.get(text, text)


def _is_nested(value: object) -> bool:
    return bool(_pairs_of(value)) or (isinstance(value, (list, tuple)) and bool(value))


def _pair_lines(key: object, value: object) -> list[str]:
    name = _text(key) if isinstance(key, str) else _inline(key)
    lines = _lines(value)
    if len(name) > _KEY_MAX_CHARS:
        return [f"? {name}", f": {lines[0]}", *_indented(lines[1:])]
    if _is_nested(value):
        return [f"{name}:", *_indented(lines)]
    return [f"{name}: {lines[0]}", *lines[1:]]


def _item_lines(value: object) -> list[str]:
    lines = _lines(value)
    rest = _indented(lines[1:]) if _is_nested(value) else lines[1:]
    return [f"- {lines[0]}", *rest]


def _indented(lines: list[str]) -> list[str]:
    return ["  " + line if line else line for line in lines]


def _text_lines(text: str) -> list[str]:
    """Return a text inside a map or list: a literal block where it has several lines."""
    body = text.removesuffix("\n")
    lines = body.split("\n")
    fits = lines[0][:1].strip() and lines[-1] and all(map(str.isprintable, lines))
    if "\n" not in text or not fits:
        return [_text(text)]
    return ["|" if body != text else "|-", *_indented(lines)]


def _text(text: str) -> str:
    """Return a text inside a map or list, on one line."""
    if not text.isprintable():
        return _double_quoted(text)
    if _is_plain(text):
        return text
    return "'" + text.replace("'", "''") + "'"


def _is_plain(text: str) -> bool:
    """Tell whether every reader takes an unquoted printable text for just that text.

    Cautious: whatever does not begin with a letter is quoted, numbers and dates among it.
    """
    first = text[:1]
    if not (first.isalpha() or first in ("_", "/")) or text[-1] in (" ", ":"):
        return False
    return text.lower() not in _YAML_WORDS and ": " not in text and " #" not in text


def _double_quoted(text: str) -> str:
    if text.isprintable():
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(char: str) -> str:
    code = ord(char)
    if code in _YAML_ESCAPES:
        return _YAML_ESCAPES[code]
    if char.isprintable():
        return char
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


# --- trees -----------------------------------------------------------------------------------


class Tree:
    """Values by their paths, nested; a place's own value stands under a chosen key.

    Elements are told apart by their packed form, so 1, true and 1.0 do not collide.
    """

    __slots__ = ("_children", "_own")

    def __init__(self) -> None:
        self._children: dict[bytes, tuple[object, Tree]] = {}
        self._own: list[object] = []

    def place(self, path: Path) -> Tree:
        """Return the part of the tree at a path; make it where it is not there."""
        node = self
        for element in path:
            key = Path(element).key
            if key not in node._children:
                node._children[key] = (element, Tree())
            node = node._children[key][1]
        return node

    def put(self, value: object) -> None:
        """Store the value of this very place."""
        self._own = [value]

    def has_child(self, name: str) -> bool:
        """Tell whether there is a child of that name anywhere in the tree."""
        key = Path(name).key
        return key in self._children or any(
            child.has_child(name) for _, child in self._children.values()
        )

    def nested(self, key: str) -> Pairs:
        """Return the tree as nested maps, own values under `key`."""
        own: list[tuple[object, object]] = [(key, value) for value in self._own]
        return Pairs(own + [(name, child.nested(key)) for name, child in self._children.values()])
