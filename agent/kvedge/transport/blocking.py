"""A plain socket for short commands: no event loop, no threads, few imports.

The C module `_socket` is used as it is: the `socket` module around it costs a short command
6 ms, a third of its time.
"""

from __future__ import annotations

import _socket
import os

from kvedge.errors import Disconnected, NotConnected, TimedOut
from kvedge.transport.address import is_unix, parse_address

_RECEIVE_BYTES = 256 * 1024


class BlockingLink:
    """One connection."""

    def __init__(self, connected: _socket.socket, endpoint: str) -> None:
        self._socket = connected
        self.endpoint = endpoint

    def send(self, data: bytes) -> None:
        """Send bytes; waits until they are with the kernel.

        Raises:
            Disconnected: The connection ended.
            TimedOut: The other side does not read.
        """
        try:
            self._socket.sendall(data)
        except TimeoutError as error:
            raise TimedOut(f"sending to {self.endpoint}", self._socket.gettimeout() or 0) from error
        except OSError as error:
            raise Disconnected(f"{self.endpoint}: {error.strerror}") from error

    def receive(self, timeout_s: float | None) -> bytes:
        """Return the next bytes, empty where the other side has closed.

        Args:
            timeout_s: How long to wait at most; None for ever.

        Raises:
            TimedOut: Nothing came.
            Disconnected: The connection broke.
        """
        self._socket.settimeout(timeout_s)
        try:
            return self._socket.recv(_RECEIVE_BYTES)
        except TimeoutError as error:
            raise TimedOut(f"the server at {self.endpoint}", timeout_s or 0) from error
        except OSError as error:
            raise Disconnected(f"{self.endpoint}: {error.strerror}") from error

    def close(self) -> None:
        """End the connection; may be called twice."""
        self._socket.close()


def connect(endpoint: str, timeout_s: float) -> BlockingLink:
    """Return a connection to an address.

    Raises:
        BadSetting: The address is none.
        NotConnected: Nobody answers there, or we may not.
    """
    host, port = parse_address(endpoint)
    try:
        if is_unix(endpoint):
            return BlockingLink(_connected(_socket.AF_UNIX, host, timeout_s), endpoint)
        return _connect_tcp(endpoint, host, port, timeout_s)
    except OSError as error:
        why = error.strerror or os.strerror(error.errno or 0) or str(error)
        raise NotConnected(endpoint, why) from error


def _connect_tcp(endpoint: str, host: str, port: int, timeout_s: float) -> BlockingLink:
    found = _socket.getaddrinfo(host, port, 0, _socket.SOCK_STREAM)
    for family, _, _, _, address in found[:-1]:
        try:
            return BlockingLink(_connected(family, address, timeout_s), endpoint)
        except OSError:
            continue
    family, _, _, _, address = found[-1]
    return BlockingLink(_connected(family, address, timeout_s), endpoint)


def _connected(family: int, address: object, timeout_s: float) -> _socket.socket:
    made = _socket.socket(family, _socket.SOCK_STREAM)
    try:
        made.settimeout(timeout_s)
        made.connect(address)  # type: ignore[arg-type]  # its form depends on the family
        if family != _socket.AF_UNIX:
            made.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    except BaseException:
        made.close()
        raise
    return made
