"""Values: what may be stored, its one packed form, and changes of a part.

A value is anything msgpack can say, within limits: None, bool, int, float, str, bytes, lists,
and maps with plain keys; paths and integers beyond 64 bit travel as extensions 3 and 2.  It is
checked once, packed canonically (shortest forms, maps in the order given) and then kept packed.
Refused: text that is not Unicode, containers as keys, keys that Python calls equal (1 and
True), unknown extensions, values too deep or too large.

Decoding never raises for a malformed part: a `Malformed` stands in its place and `pack` refuses
it by name, so that the request which carried it can be answered.
"""

from __future__ import annotations

import msgpack

from kvedge import limits
from kvedge.errors import BadPath, BadValue, LimitExceeded
from kvedge.model.path import Path, key_of, print_element

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from enum import Enum
    from typing import Any, Final

    class Missing(Enum):
        """The type of MISSING."""

        MISSING = 0

    MISSING: Final = Missing.MISSING
else:
    # Not an enum while running: importing that costs every short command 3 ms.
    class Missing:
        """The type of MISSING."""

        __slots__ = ()

        def __repr__(self):
            return "MISSING"

        def __reduce__(self):
            return "MISSING"

    MISSING = Missing()
    """No value given, or none stored; None is a value like any other."""

NotGiven = MISSING

EXT_BIG_INTEGER = 2
EXT_PATH = 3


class Malformed:
    """Stands for a part of a decoded message that is no value."""

    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        self.why = why


# --- decoding --------------------------------------------------------------------------------


def _pairs(pairs: Iterable[tuple[Any, Any]]) -> object:
    pairs = list(pairs)
    try:
        made = dict(pairs)
    except TypeError:
        return Malformed("a list or map is the key of a map")
    if len(made) != len(pairs):
        return Malformed("a map has the same key twice (1, True and 1.0 count as the same)")
    for key in made:
        if isinstance(key, (tuple, Malformed, Path)):
            return Malformed("a list, map or extension is the key of a map")
    return made


def _extension(code: int, data: bytes) -> object:
    if code == EXT_BIG_INTEGER:
        return int.from_bytes(data, "big")
    if code != EXT_PATH:
        return Malformed(f"extension type {code} is not known")
    try:
        return Path(*_path_elements(data))
    except (ValueError, msgpack.UnpackException) as error:
        return Malformed(f"a path inside it is broken ({str(error) or type(error).__name__})")


def _path_elements(data: bytes) -> list[Any]:
    if len(data) > 2 * limits.PATH_MAX_BYTES:  # packed without waste it is as long as its key
        raise ValueError(f"it has {len(data)} bytes")
    unpacker = msgpack.Unpacker(
        use_list=False, ext_hook=_path_extension, max_buffer_size=2 * limits.PATH_MAX_BYTES
    )
    unpacker.feed(data)
    elements = []
    while unpacker.tell() < len(data):  # iterating would pass over a torn last element
        elements.append(unpacker.unpack())
    return elements


def _path_extension(code: int, data: bytes) -> int:
    if code != EXT_BIG_INTEGER:
        raise ValueError(f"extension type {code} cannot be part of it")
    return int.from_bytes(data, "big")


def decode(data: bytes) -> Any:
    """Return the object that msgpack bytes stand for, with `Malformed` where it is none.

    Arrays become tuples.  Text that is not UTF-8 keeps its bytes as surrogates, which `pack`
    refuses.

    Raises:
        ValueError: The bytes are not one msgpack object.
    """
    try:
        return msgpack.unpackb(
            data,
            use_list=False,
            strict_map_key=False,
            object_pairs_hook=_pairs,
            ext_hook=_extension,
            unicode_errors="surrogateescape",
        )
    except (msgpack.UnpackException, OverflowError) as error:
        raise ValueError(str(error) or "the data end too early") from error


def unpack(packed: bytes) -> Any:
    """Return a value from its packed form, which is trusted."""
    return msgpack.unpackb(packed, use_list=False, strict_map_key=False, ext_hook=_extension)


# --- encoding --------------------------------------------------------------------------------


def _default(thing: object) -> object:
    if isinstance(thing, Path):
        return msgpack.ExtType(EXT_PATH, b"".join(map(packb, thing.elements)))
    if isinstance(thing, int) and 0 <= thing < 1 << limits.INTEGER_MAX_BITS:
        size = (thing.bit_length() + 7) // 8
        return msgpack.ExtType(EXT_BIG_INTEGER, thing.to_bytes(size, "big"))
    if isinstance(thing, int):
        raise BadValue(f"an integer of {thing.bit_length()} bits", "it is too large or negative")
    raise BadValue(type(thing).__name__, "msgpack has no form for it")


# From 1.1 on a Packer begins with a megabyte, unless it is told not to.
_SMALL: dict[str, Any] = {"buf_size": 4096} if msgpack.version >= (1, 1) else {}
_pack_plain = msgpack.Packer().pack  # calls no Python code, so threads may share it


def packb(thing: object) -> bytes:
    """Return the msgpack form of something that is known to have one (`pack` checks)."""
    try:
        packed: bytes = _pack_plain(thing)
    except (TypeError, OverflowError):  # a path or a large integer is in it
        packed = msgpack.Packer(default=_default, **_SMALL).pack(thing)
    return packed


_PLAIN = frozenset((str, int, float, bool, bytes, type(None)))
_LEAVES = _PLAIN | {Path}


def _check(value: object, depth: int) -> int:
    """Return how many parts a value has; raise where one cannot be stored."""
    if depth > limits.DEPTH_MAX:
        raise LimitExceeded("a value", actual=depth, limit=limits.DEPTH_MAX, unit="levels")
    if isinstance(value, dict):
        for key in value:
            if type(key) not in _PLAIN:
                raise BadValue("a map", f"{type(key).__name__} cannot be a key")
        count = _check_items(value.values(), depth) + len(value)
    elif isinstance(value, (tuple, list)):
        count = _check_items(value, depth)
    elif isinstance(value, Malformed):
        raise BadValue("the value", value.why)
    elif isinstance(value, (Path, str, int, float, bytes)):
        return 1
    else:
        raise BadValue(type(value).__name__, "only plain data can: no objects, sets or dates")
    if count > limits.ELEMENTS_MAX:
        raise LimitExceeded("a value", actual=count, limit=limits.ELEMENTS_MAX, unit="parts")
    return count


def _check_items(items: Collection[object], depth: int) -> int:
    deep = [item for item in items if type(item) not in _LEAVES]
    return 1 + len(items) - len(deep) + sum(_check(item, depth + 1) for item in deep)


def pack(value: object) -> bytes:
    """Return the canonical packed form of a value.

    Raises:
        BadValue: It cannot be stored; the message says which part and why.
        LimitExceeded: It is too large, too deep or has too many parts.
    """
    if type(value) not in _PLAIN:
        _check(value, 1)
    try:
        packed: bytes = packb(value)
    except UnicodeEncodeError as error:
        raise BadValue("a text", "it is not valid Unicode") from error
    if len(packed) > limits.VALUE_MAX_BYTES:
        raise LimitExceeded(
            "a value", actual=len(packed), limit=limits.VALUE_MAX_BYTES, unit="bytes"
        )
    return packed


def _no_extension(code: int, _: bytes) -> object:
    raise BadValue(f"extension {code}", "it takes the long way")


def is_canonical(packed: bytes) -> bool:
    """Tell whether bytes are the one packed form of a value."""
    try:
        # Without a look at each map: one with equal keys has a shorter form.
        value = msgpack.unpackb(
            packed, use_list=False, strict_map_key=False, ext_hook=_no_extension
        )
        return pack(value) == packed
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException):
        pass  # mostly an extension
    try:
        return pack(decode(packed)) == packed
    except ValueError:  # BadValue and LimitExceeded are such
        return False


def same(first: bytes, second: bytes) -> bool:
    """Tell whether two packed values are the same, whatever the order of their maps' keys."""
    return first == second or (
        len(first) == len(second) and _sorted(unpack(first)) == _sorted(unpack(second))
    )


def _sorted(value: Any) -> bytes:
    """Return a packed form of a value that does not depend on the order of keys."""
    if isinstance(value, dict):
        items = sorted((packb(key), _sorted(item)) for key, item in value.items())
        return b"{%b}" % b"".join(key + item for key, item in items)
    if isinstance(value, tuple):
        return b"[%b]" % b"".join(map(_sorted, value))
    return packb(value)


# --- parts -----------------------------------------------------------------------------------


def updated(value: object, subpath: Path, new: object) -> object:
    """Return a value with the part at a sub-path replaced, or removed where `new` is MISSING.

    Maps that are missing on the way are made; the value itself is not changed.

    Raises:
        BadValue: Something on the way is there and is not a map, or has such a part under a key
            of another kind (1, True and 1.0 are three elements, but one key).
    """
    if not len(subpath):
        return new
    return _updated(value, subpath.elements, new, 0)


def _updated(value: object, elements: tuple[Any, ...], new: object, at: int) -> object:
    if at == len(elements):
        return new
    if value is MISSING or value is None:
        if new is MISSING:
            return value
        value = {}
    if not isinstance(value, dict):
        raise _no_part(elements, at, f"is {value!r:.60}, which has no parts")
    element = elements[at]
    if element in value and not _has(value, element):
        raise _no_part(elements, at, f"has the key {element!r:.60}, but of another kind")
    part = _updated(value.get(element, MISSING), elements, new, at + 1)
    if part is MISSING:
        return {key: kept for key, kept in value.items() if key != element}
    return value | {element: part}


def _no_part(elements: tuple[Any, ...], at: int, why: str) -> BadValue:
    """Return the error that a part cannot be changed because of what is at some depth."""
    whole, where = (".".join(map(print_element, e)) or ":" for e in (elements, elements[:at]))
    return BadValue(whole, f"{where} {why}")


def _has(value: dict[Any, Any], element: object) -> bool:
    """Tell whether a map has a key that is equal to an element and of its kind."""
    if element not in value:
        return False
    if isinstance(element, (str, bytes)):
        return True
    return any(key == element and type(key) is type(element) for key in value)


def part_of(value: object, subpath: Path) -> Any:
    """Return the part of a value at a sub-path, MISSING where there is none."""
    for element in subpath:
        if not isinstance(value, dict) or not _has(value, element):
            return MISSING
        value = value[element]
    return value


def wire_path(given: object) -> bytes:
    """Return the key of a path as a message carries it: an array, or extension 3.

    Raises:
        BadPath: It is neither, or an element is none.
    """
    if isinstance(given, (tuple, list)):
        return key_of(given)
    if isinstance(given, Path):
        return given.key
    if isinstance(given, Malformed):
        raise BadPath("a path", given.why)
    shown = repr(given)[:80] if isinstance(given, str) else type(given).__name__
    raise BadPath(shown, "it is neither a list of elements nor a path")
