"""Parts of messages that both sides build: paths, chains, and replies around packed values.

Values are kept packed, so a reply is put together from bytes and never unpacks what it carries.
This module is on the path of every short command.
"""

from __future__ import annotations

from kvedge.errors import BadRequest
from kvedge.model.path import Path
from kvedge.model.value import packb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, TypeGuard

VERSION = (0, 1, 0)
"""Version of the client protocol, as the greeting tells it."""

FEATURE_LEVEL = 1
"""What the greeting's `kvedge` says; a client answers it with the features it knows."""

FEATURES = ("etype", "pairs", "conflated")
"""What our own clients ask for: typed errors, pairs for maps, marks on conflated changes."""

NUMBER_MAX = (1 << 63) - 1
"""The largest seq, tick or count of a message; msgpack could say a million digits."""

encode = packb


def is_text(thing: object) -> TypeGuard[str]:
    """Tell whether a decoded thing is text that can be sent on; see `decode` on what is not."""
    if not isinstance(thing, str):
        return False
    try:
        thing.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_number(thing: object) -> TypeGuard[int]:
    """Tell whether a decoded thing is a whole number from 0, of a size that is meant."""
    return type(thing) is int and 0 <= thing <= NUMBER_MAX


def packed_map(fields: Mapping[str, Any], raw: Sequence[tuple[str, bytes]] = ()) -> bytes:
    """Return a packed map of plain fields and of fields that are packed already."""
    count = len(fields) + len(raw)
    head = bytes((0x80 | count,)) if count < 16 else b"\xde" + count.to_bytes(2, "big")
    parts = [head]
    for name, value in fields.items():
        parts += (packb(name), packb(value))
    for name, packed in raw:
        parts += (packb(name), packed)
    return b"".join(parts)


_SEQ = packb("seq")
_VALUE = packb("value")
_TOCK = packb("tock")


def value_reply(seq: int, value: bytes, tock: int) -> bytes:
    """Return the reply to a plain get: the hot path, so written out."""
    return b"\x83" + _SEQ + packb(seq) + _VALUE + value + _TOCK + packb(tock)


def shown_chain(links: Sequence[tuple[str, int]], count: int) -> dict[str, Any] | None:
    """Return the nested form of a chain that messages carry.

    Args:
        links: (node, shown tick), newest first.
        count: How many links the other side wants; negative for all.
    """
    chain: dict[str, Any] | None = None
    for node, tick in reversed(links if count < 0 else links[:count]):
        chain = {"node": node, "tick": tick, "prev": chain}
    return chain


def chain_head(chain: Any) -> tuple[str, int] | None:
    """Return the newest link of a chain as a message carries it, None for no chain.

    Raises:
        BadRequest: It is no chain.
    """
    if chain is None:
        return None
    if isinstance(chain, dict):
        node, tick = chain.get("node"), chain.get("tick")
        if is_text(node) and is_number(tick):
            return node, tick
        if node is None and tick is None and not chain.get("prev"):
            return None
    raise BadRequest("chain", "a chain is a map with node, tick and prev, or None")


class PathShortener:
    """Leaves out what a path of a stream has in common with the one before it."""

    def __init__(self) -> None:
        self._last: tuple[Any, ...] = ()

    def shorten(self, elements: tuple[Any, ...]) -> tuple[int, tuple[Any, ...]]:
        """Return how many elements to take from the last path, and those to append."""
        depth = 0
        for mine, last in zip(elements, self._last, strict=False):
            if mine is not last and (mine != last or type(mine) is not type(last)):
                break
            if type(mine) is tuple:  # equal tuples may hold 1 and True
                break
            depth += 1
        self._last = elements
        return depth, elements[depth:]


class PathLengthener:
    """Puts back what `PathShortener` left out."""

    def __init__(self) -> None:
        self._last: tuple[Any, ...] = ()

    def lengthen(self, depth: int, tail: Sequence[Any]) -> Path:
        """Return the whole path, relative to the base of the stream."""
        self._last = (*self._last[:depth], *tail)
        return Path(*self._last)
