"""Paths: a tuple of elements that names a place in the tree; text, order, and packed keys.

**Elements** are str, int, bool, None, bytes, float (no NaN; -0.0 becomes 0.0) and tuples of
these.  `True`, `1` and `1.0` are three different elements, although Python calls them equal;
so paths compare and hash by their key, never by their elements.

**Text.**  A dot separates.  A colon escapes a dot, a colon or a space inside an element (`:.`,
`::`, `:_`), and otherwise begins an element that is not a plain string: `:t :f :n :e` (True,
False, None, the empty string), `:x1f`, `:b101` (integers), `:y00ff`, `:vabc` (bytes), and any
other text is a Python *literal*, never code: `:123`, `:1:.5`, `:(1,2)`.  A lone colon is the
empty path.  The dot before such an element may be left out when reading (`a:1:t`).  Every path
has one printed form, and reading it gives the path back.

**Key.**  The packed form is the concatenation of the elements, each self-delimiting and
order-preserving, in the manner of FoundationDB's tuple layer: the order of the bytes is the
order of paths (None < False < True < integers < floats < bytes < strings < tuples), and the
keys below a path are exactly those from `key + 01` to `key + 0a`.

This module is on the path of every short command: it imports no more than it must.
"""

from __future__ import annotations

from struct import Struct

from kvedge import limits
from kvedge.errors import BadPath, LimitExceeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, TypeAlias, overload

    Element: TypeAlias = "str | int | bool | bytes | float | tuple[Element, ...] | None"

# --- packed keys -----------------------------------------------------------------------------
# Codes of the element kinds.  They are below 0x0a and never 0xff, so that 0x00 can end a string
# and `00 ff` can stand for a NUL inside one.
_NONE, _FALSE, _TRUE, _NEGATIVE, _NATURAL, _FLOAT, _BYTES, _STR, _TUPLE = range(1, 10)
KEY_FIRST = b"\x01"
"""Appended to a key: the lowest key below it."""
KEY_FIRST_USER = b"\x02"
"""Appended to the root's key: the lowest key below it that is not system data."""
KEY_END = b"\x0a"
"""Appended to a key: above every key below it."""

_DOUBLE = Struct(">d")
_QUAD = Struct(">Q")
_SIGN = 1 << 63


def _pack_element(element: object) -> bytes:
    pack = _PACKERS.get(type(element))
    if pack is None:
        pack = next((p for kind, p in _PACKERS.items() if isinstance(element, kind)), None)
    if pack is None:
        raise BadPath(_clip(element), f"{type(element).__name__} cannot be part of a path")
    return pack(element)


def _pack_str(text: str) -> bytes:
    try:
        return b"\x08%b\0" % text.encode().replace(b"\0", b"\0\xff")
    except UnicodeEncodeError as error:
        raise BadPath(ascii(text), "it is not valid Unicode") from error


def _pack_int(number: int) -> bytes:
    if number.bit_length() > limits.INTEGER_MAX_BITS:
        raise LimitExceeded(
            "an integer in a path",
            actual=number.bit_length(),
            limit=limits.INTEGER_MAX_BITS,
            unit="bits",
        )
    magnitude = abs(number)
    size = (magnitude.bit_length() + 7) // 8
    raw = magnitude.to_bytes(size, "big")
    if number >= 0:
        return bytes((_NATURAL, size)) + raw
    return bytes((_NEGATIVE, 255 - size)) + bytes(255 - b for b in raw)


def _pack_float(number: float) -> bytes:
    if number != number:
        raise BadPath("nan", "NaN is equal to nothing, so it names no place")
    bits: int = _QUAD.unpack(_DOUBLE.pack(number + 0.0))[0]  # + 0.0 makes -0.0 a 0.0
    bits = bits ^ (_SIGN | (_SIGN - 1)) if bits & _SIGN else bits | _SIGN
    return b"\x06" + _QUAD.pack(bits)


_PACKERS: dict[type, Callable[[Any], bytes]] = {
    str: _pack_str,
    bool: lambda flag: b"\x03" if flag else b"\x02",
    int: _pack_int,
    float: _pack_float,
    bytes: lambda raw: b"\x07%b\0" % raw.replace(b"\0", b"\0\xff"),
    tuple: lambda inner: b"\x09%b\0" % b"".join(map(_pack_element, inner)),
    type(None): lambda _: b"\x01",
}


def _check_count(elements: tuple[object, ...]) -> None:
    """Count elements, those inside tuples too, before packing descends into them."""
    waiting = [elements]
    count = 0
    while waiting:
        inner = waiting.pop()
        count += len(inner)
        if count > limits.PATH_ELEMENTS_MAX:
            raise LimitExceeded(
                "a path", actual=count, limit=limits.PATH_ELEMENTS_MAX, unit="elements"
            )
        waiting += [element for element in inner if isinstance(element, tuple)]


def key_of(elements: Iterable[object]) -> bytes:
    """Return the packed form of a path that is given by its elements.

    Raises:
        BadPath: An element is of a kind that paths do not have.
        LimitExceeded: The path is too long, or has too many elements.
    """
    elements = tuple(elements)
    try:
        # Plain strings, which is what nearly all paths are made of, at once.
        text = "\0\x08".join(elements)  # type: ignore[arg-type]  # a TypeError goes the long way
        if not 0 < len(elements) <= limits.PATH_ELEMENTS_MAX or text.count("\0") >= len(elements):
            raise TypeError
        key = f"\x08{text}\0".encode()
    except (TypeError, UnicodeEncodeError):
        _check_count(elements)
        key = b"".join([_pack_element(element) for element in elements])
    if len(key) > limits.PATH_MAX_BYTES:
        raise LimitExceeded("a path", actual=len(key), limit=limits.PATH_MAX_BYTES, unit="bytes")
    return key


def elements_of(key: bytes, start: int = 0) -> tuple[Element, ...]:
    """Return the elements of a packed path, from a byte offset at an element's start on."""
    if key[start : start + 1] == b"\x08":
        nuls = key.count(b"\0", start)
        if key.count(b"\0\x08", start) == nuls - 1 and key[-1] == 0:
            # Every string is followed by another one: the way back from `key_of`'s short way.
            return tuple(key[start + 1 : -1].decode().split("\0\x08"))
    elements = []
    end = len(key)
    while start < end:
        element, start = _unpack_element(key, start)
        elements.append(element)
    return tuple(elements)


def boundaries(key: bytes) -> list[int]:
    """Return the offsets at which the elements of a packed path end, in order."""
    offsets = []
    at, end = 0, len(key)
    while at < end:
        at = _unpack_element(key, at)[1]
        offsets.append(at)
    return offsets


def element_end(key: bytes, start: int) -> int:
    """Return the offset behind the element of a packed path that starts at an offset."""
    return _unpack_element(key, start)[1]


def _unpack_element(key: bytes, at: int) -> tuple[Element, int]:
    code = key[at]
    if code in (_STR, _BYTES):
        end = key.index(0, at + 1)
        raw = key[at + 1 : end]
        if key[end + 1 : end + 2] == b"\xff":
            raw, end = _unescape(key, at + 1)
        return (raw.decode() if code == _STR else raw), end + 1
    if code in (_NATURAL, _NEGATIVE):
        return _unpack_int(key, at)
    if code == _FLOAT:
        bits = _QUAD.unpack_from(key, at + 1)[0]
        bits = bits ^ _SIGN if bits & _SIGN else bits ^ (_SIGN | (_SIGN - 1))
        return _DOUBLE.unpack(_QUAD.pack(bits))[0], at + 9
    if code == _TUPLE:
        inner = []
        at += 1
        while key[at]:
            element, at = _unpack_element(key, at)
            inner.append(element)
        return tuple(inner), at + 1
    return (None, False, True)[code - _NONE], at + 1


def _unescape(key: bytes, start: int) -> tuple[bytes, int]:
    end = start
    while True:
        end = key.index(0, end)
        if key[end + 1 : end + 2] != b"\xff":
            return key[start:end].replace(b"\0\xff", b"\0"), end
        end += 2


def _unpack_int(key: bytes, at: int) -> tuple[int, int]:
    size = key[at + 1]
    if key[at] == _NATURAL:
        return int.from_bytes(key[at + 2 : at + 2 + size], "big"), at + 2 + size
    size = 255 - size
    raw = bytes(255 - b for b in key[at + 2 : at + 2 + size])
    return -int.from_bytes(raw, "big"), at + 2 + size


# --- text ------------------------------------------------------------------------------------

_INLINE = {".": ".", ":": ":", "_": " "}
_NAMED: dict[str, Element] = {"t": True, "f": False, "n": None, "e": ""}
_TEXT_MAX_CHARS = 6 * limits.PATH_MAX_BYTES  # at worst: "False," for one byte, inside a tuple


def _clip(thing: object) -> str:
    text = thing if isinstance(thing, str) else ascii(thing)
    text = text.encode(errors="backslashreplace").decode()  # an error must be fit to be shown
    return text if len(text) <= 80 else text[:77] + "..."


def _escape(text: str) -> str:
    return text.replace(":", "::").replace(".", ":.").replace(" ", ":_")


def print_element(element: object) -> str:
    """Return the text of one element, as it stands between the dots of a path."""
    if isinstance(element, str):
        return _escape(element) or ":e"
    if element is None:
        return ":n"
    if isinstance(element, bool):
        return ":t" if element else ":f"
    if isinstance(element, bytes):
        if all(32 < b < 127 for b in element):
            return ":v" + _escape(element.decode("ascii"))
        return ":y" + element.hex()
    return ":" + _escape(_literal(element))


def _literal(element: object) -> str:
    """Return the Python literal of an element; the same text under every Python version."""
    if isinstance(element, tuple):
        inner = ",".join(map(_literal, element))
        return f"({inner},)" if len(element) == 1 else f"({inner})"
    if element == float("inf") or element == float("-inf"):
        return "1e999" if element == float("inf") else "-1e999"
    return ascii(element)


def _read_special(body: str, text: str) -> Element:
    """Return the element that the text behind an element's first colon stands for."""
    if body in _NAMED:
        return _NAMED[body]
    kind, rest = body[0], body[1:]
    try:
        if kind in "xb":
            return _read_digits(rest, 16 if kind == "x" else 2)
        if kind == "y":
            if not rest.isalnum() and rest:
                raise ValueError
            return bytes.fromhex(rest)
        if kind == "v":
            return rest.encode("ascii")
    except ValueError as error:
        raise BadPath(_clip(text), f"':{_clip(body)}' has digits that do not fit") from error
    return _read_literal(body, text)


def _read_digits(digits: str, base: int) -> int:
    if not digits.lstrip("-").isalnum():  # int() takes blanks and underscores too
        raise ValueError
    return int(digits, base)


def _read_literal(body: str, text: str) -> Element:
    if body.isascii() and body.removeprefix("-").isdigit() and len(body) < 640:
        return int(body)
    import ast  # 6 ms, and rarely needed

    try:
        element = ast.literal_eval(body)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        why = f"':{_clip(body)}' is neither an escape nor a literal; a colon itself is '::'"
        raise BadPath(_clip(text), why) from error
    key_of((element,))  # refuses what is no element
    return element  # type: ignore[no-any-return]  # checked in the line above


def parse(text: str) -> tuple[Element, ...]:
    """Return the elements of a path's text.

    Raises:
        BadPath: The text is not a path; the message says where and why.
    """
    if text == ":":
        return ()
    if not text:
        raise BadPath(text, "it is empty; the empty path is written ':'")
    if len(text) > _TEXT_MAX_CHARS:
        raise LimitExceeded(
            "the text of a path", actual=len(text), limit=_TEXT_MAX_CHARS, unit="characters"
        )
    elements: list[Element] = []
    at = 0
    while at < len(text):
        special = text[at] == ":" and text[at + 1 : at + 2] not in _INLINE
        body, at = _read_body(text, at + special)
        if not body and special:
            raise BadPath(_clip(text), "a colon stands at the end of an element; write '::'")
        if not body:
            raise BadPath(_clip(text), "an element is empty; write ':e', or ':.' for a dot")
        elements.append(_read_special(body, text) if special else body)
        if text[at : at + 1] == ".":
            at += 1
            if at == len(text):
                raise BadPath(_clip(text), "it ends with a dot; write ':.' for a dot")
    return tuple(elements)


def _read_body(text: str, at: int) -> tuple[str, int]:
    """Return the unescaped text up to the end of an element, and where that is."""
    parts: list[str] = []
    start = at
    while at < len(text):
        char = text[at]
        if char == ".":
            break
        if char == ":":
            escaped = _INLINE.get(text[at + 1 : at + 2])
            if escaped is None:
                break
            parts += (text[start:at], escaped)
            at += 2
            start = at
        else:
            at += 1
    parts.append(text[start:at])
    return "".join(parts), at


class Path:
    """A place in the tree.  Immutable; compares, sorts and hashes by its key."""

    __slots__ = ("_elements", "_key")

    def __init__(self, *elements: Element) -> None:
        self._key = key_of(elements)
        self._elements: tuple[Element, ...] | None = None

    @classmethod
    def of(cls, elements: Iterable[Element]) -> Path:
        """Return the path with these elements."""
        return cls(*elements)

    @classmethod
    def from_key(cls, key: bytes) -> Path:
        """Return the path with this packed form, which is trusted."""
        path = cls.__new__(cls)
        path._key = key  # noqa: SLF001 -- its own class
        path._elements = None  # noqa: SLF001 -- its own class
        return path

    @property
    def key(self) -> bytes:
        """The packed form."""
        return self._key

    @property
    def elements(self) -> tuple[Element, ...]:
        """The elements."""
        if self._elements is None:
            self._elements = elements_of(self._key)
        return self._elements

    @property
    def parent(self) -> Path:
        """The path without its last element; the empty path is its own parent."""
        return self[:-1]

    @property
    def is_system(self) -> bool:
        """Whether the place holds system data: its first element is None."""
        return self._key[:1] == KEY_FIRST

    def is_below(self, other: Path) -> bool:
        """Tell whether this is the other path or one below it."""
        size = len(other._key)
        # A string's key ends with 00, which `00 ff` would continue: not an element's end then.
        return self._key[:size] == other._key and self._key[size : size + 1] != b"\xff"

    def __truediv__(self, element: Element) -> Path:
        return Path(*self.elements, element)

    def __add__(self, other: Path | tuple[Element, ...]) -> Path:
        return Path(*self.elements, *other)

    def __len__(self) -> int:
        return len(self.elements)

    def __iter__(self) -> Iterator[Element]:
        return iter(self.elements)

    if TYPE_CHECKING:

        @overload
        def __getitem__(self, index: int) -> Element: ...
        @overload
        def __getitem__(self, index: slice) -> Path: ...

    def __getitem__(self, index: int | slice) -> Element | Path:
        if isinstance(index, slice):
            return Path(*self.elements[index])
        return self.elements[index]

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, Path) else NotImplemented

    def __lt__(self, other: object) -> bool:
        return self._key < other._key if isinstance(other, Path) else NotImplemented

    def __le__(self, other: object) -> bool:
        return self._key <= other._key if isinstance(other, Path) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    def __str__(self) -> str:
        return ".".join(map(print_element, self.elements)) or ":"

    def __repr__(self) -> str:
        return f"P({str(self)!r})"


def P(text: str) -> Path:  # noqa: N802 -- the name that users of the peer systems know
    """Return the path that a text stands for.

    >>> P("a.:1.:t")
    P('a.:1.:t')
    >>> P("sensor.box:.1.temp:_out") == Path("sensor", "box.1", "temp out")
    True

    Raises:
        BadPath: The text is not a path.
    """
    return Path(*parse(text))


EMPTY = Path()
SYSTEM = Path(None)
"""Where users, rules, types and members live."""
KV = Path(".kv")
"""Where procedures, jobs, their state, faults, sensors and settings live."""
