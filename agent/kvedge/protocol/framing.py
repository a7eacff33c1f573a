"""Bytes to messages: the stream is a bare sequence of msgpack maps, in both directions.

A message is cut out whole before anything is made of it, so that its size, the number of its
parts and its kind are known to be within limits first.  Whoever sends something else is told
what, and the connection ends.

This module is on the path of every short command.
"""

from __future__ import annotations

import msgpack

from kvedge import limits
from kvedge.errors import AgentError, LimitExceeded, RemoteProtocolError, from_wire, to_wire
from kvedge.model.value import Malformed, decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


_BUFFER_BYTES = 16 * 1024

_SHORT_BYTES = 512
"""What may be decoded before it is known to be complete: for each list that is only announced,
msgpack makes room, up to as many items as there are bytes."""


class Framer:
    """Cuts a stream of bytes into messages.

    Attributes:
        size_max_bytes: Bound of one message; may be changed at any time.
        failure: Why nothing can follow the messages that `feed` returned last; None: something can.
    """

    def __init__(
        self,
        size_max_bytes: int = limits.MESSAGE_MAX_BYTES,
        *,
        parts_max: int = limits.ELEMENTS_MAX,
    ) -> None:
        self.size_max_bytes = size_max_bytes
        self.failure: AgentError | None = None
        self._parts_max = parts_max
        self._pending = bytearray()
        # The bound is ours to keep; theirs must fit a 32-bit ssize_t.  `read_size` is what the
        # buffer starts with, which would be a megabyte per connection.
        self._scanner = msgpack.Unpacker(max_buffer_size=(1 << 31) - 1, read_size=_BUFFER_BYTES)
        self._cut = 0  # where the scanner counts the start of `_pending`

    def feed(self, data: bytes) -> list[dict[Any, Any]]:
        """Return the messages that are complete with these bytes.

        Where good messages come before something else, they are returned and `failure` is set.

        Raises:
            LimitExceeded: The next message is too large or has too many parts.
            RemoteProtocolError: The next bytes are no message.
        """
        if not self._pending and 0 < len(data) <= min(_SHORT_BYTES, self.size_max_bytes):
            # Mostly a read brings one whole message, small enough to need no further checks.
            _check_start(data[0])
            try:
                return [_as_map(decode(data))]
            except ValueError:
                pass  # less or more than one
        return self._feed(data)

    def _feed(self, data: bytes) -> list[dict[Any, Any]]:
        self._pending += data
        self._scanner.feed(data)
        messages: list[dict[Any, Any]] = []
        try:
            while self._pending:
                raw = self._next_checked()
                if raw is None:
                    break
                messages.append(_message(raw))
        except (RemoteProtocolError, LimitExceeded) as error:
            if not messages:
                raise
            self.failure = from_wire(to_wire(error))  # a copy: its frames would hold us
        return messages

    def _next_checked(self) -> bytes | None:
        _check_start(self._pending[0])
        raw = self._next()
        self._check_size(len(self._pending if raw is None else raw))
        if raw is not None and len(raw) > self._parts_max:
            check_parts(raw, self._parts_max)
        return raw

    def _next(self) -> bytes | None:
        try:
            self._scanner.skip()
        except msgpack.OutOfData:
            return None
        except msgpack.StackError as error:
            raise RemoteProtocolError("a message is nested too deep") from error
        except ValueError as error:
            raise RemoteProtocolError(f"not msgpack ({type(error).__name__})") from error
        end: int = self._scanner.tell()
        raw = bytes(self._pending[: end - self._cut])
        del self._pending[: end - self._cut]
        self._cut = end
        return raw

    def _check_size(self, size: int) -> None:
        if size > self.size_max_bytes:
            raise LimitExceeded("a message", actual=size, limit=self.size_max_bytes, unit="bytes")


def _check_start(first: int) -> None:
    if not (0x80 <= first <= 0x8F or first in (0xDE, 0xDF)):
        raise RemoteProtocolError(f"a message starts with byte {first:02x} and so is no map")


def _message(raw: bytes) -> dict[Any, Any]:
    try:
        message = decode(raw)
    except ValueError as error:
        raise RemoteProtocolError(f"a message cannot be read: {error}") from error
    return _as_map(message)


def _as_map(message: Any) -> dict[Any, Any]:
    """Return what was decoded; its first byte said that it is a map."""
    if isinstance(message, Malformed):
        raise RemoteProtocolError(f"a message cannot be read: {message.why}")
    return message  # type: ignore[no-any-return]


# How far to go for a first byte of 0xc0..0xdf: bytes behind it, and of those how many give the
# length of what follows (0: nothing follows).  Extensions have a byte for their type as well.
_SKIP: tuple[tuple[int, int], ...] = (
    *((0, 0), (0, 0), (0, 0), (0, 0)),  # nil, unused, false, true
    *((1, 1), (2, 2), (4, 4)),  # bin
    *((2, 1), (3, 2), (5, 4)),  # ext
    *((4, 0), (8, 0)),  # float
    *((1, 0), (2, 0), (4, 0), (8, 0)),  # uint
    *((1, 0), (2, 0), (4, 0), (8, 0)),  # int
    *((2, 0), (3, 0), (5, 0), (9, 0), (17, 0)),  # fixext
    *((1, 1), (2, 2), (4, 4)),  # str
    *((2, 0), (4, 0)),  # array
    *((2, 0), (4, 0)),  # map
)


def check_parts(raw: bytes, limit: int = limits.ELEMENTS_MAX) -> None:
    """Count the parts of a packed object without making any.

    A megabyte of empty lists would become seventy megabytes of objects.

    Raises:
        LimitExceeded: There are more parts than allowed.
    """
    at = count = 0
    while at < len(raw):
        count += 1
        if count > limit:
            raise LimitExceeded("a message", actual=count, limit=limit, unit="parts")
        first = raw[at]
        at += 1
        if 0xA0 <= first <= 0xBF:
            at += first & 0x1F
        elif 0xC0 <= first <= 0xDF:
            behind, length = _SKIP[first - 0xC0]
            at += behind + int.from_bytes(raw[at : at + length], "big")
