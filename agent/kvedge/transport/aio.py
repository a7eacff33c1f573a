"""Sockets of the server's hot path, on asyncio's protocols: bytes in, bytes out, and pressure.

A `Link` hands what arrives to its handler and tells it when the other side reads too slowly.
It decides nothing.  asyncio is used as it is because a protocol object costs a fifth of what a
stream and a task do per request (see the performance page).
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from kvedge import limits
from kvedge.errors import BadSetting, NotConnected
from kvedge.transport.address import is_unix, parse_address

log = logging.getLogger(__name__)

_PEER_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)


class Handler(Protocol):
    """Who is told of what happens on a link."""

    def opened(self, link: Link) -> None:
        """The connection is there."""

    def received(self, data: bytes) -> None:
        """Bytes came."""

    def drained(self) -> None:
        """The other side has read what kept the link congested."""

    def closed(self) -> None:
        """The connection is gone; nothing follows."""


class Link(asyncio.Protocol):
    """One connection.

    Attributes:
        is_congested: Whether the other side reads too slowly; `Handler.drained` tells the end.
        peer: Who it is: "uid 1000 (pid 12)" or "127.0.0.1:40000".
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._transport: asyncio.Transport | None = None
        self.is_congested = False
        self.peer = "?"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take up the connection."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=limits.SEND_BUFFER_MAX_BYTES)
        self.peer = _peer_name(transport)
        self._handler.opened(self)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        self._handler.received(data)

    def pause_writing(self) -> None:
        """Note that the other side reads too slowly."""
        self.is_congested = True

    def resume_writing(self) -> None:
        """Note that it has caught up."""
        self.is_congested = False
        self._handler.drained()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass the end on."""
        if exc is not None:
            log.debug("%s: the connection broke: %s", self.peer, exc)
        self._transport = None
        self._handler.closed()

    def write(self, data: bytes) -> None:
        """Send bytes; dropped when the connection is gone."""
        if self._transport is not None:
            self._transport.write(data)

    def pause(self) -> None:
        """Stop reading: back-pressure on the other side."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._transport is not None:
            self._transport.resume_reading()

    def close(self) -> None:
        """End the connection after what was written is out."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()


def _peer_name(transport: asyncio.Transport) -> str:
    sock = transport.get_extra_info("socket")
    if sock.family == socket.AF_UNIX:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
        pid, uid, _ = _PEER_CREDENTIALS.unpack(raw)
        return f"uid {uid} (pid {pid})"
    host, port = transport.get_extra_info("peername")[:2]
    return f"{host}:{port}"


class Listener:
    """A socket that takes connections."""

    def __init__(self, server: asyncio.Server, address: str, socket_path: Path | None) -> None:
        self._server = server
        self.address = address
        self._socket_path = socket_path

    def close(self) -> None:
        """Take no more connections and remove the socket from the file system."""
        self._server.close()
        if self._socket_path is not None:
            with contextlib.suppress(FileNotFoundError):
                self._socket_path.unlink()


async def listen(address: str, handler: Callable[[], Handler]) -> Listener:
    """Return a listener on an address.

    A Unix socket gets mode 0660 and, where there is one and we may, the group `kv`.  What a
    dead process left at its path is removed.

    Args:
        address: `unix:PATH` or `HOST:PORT`; port 0 takes a free one.
        handler: Makes the handler of a new connection.

    Raises:
        BadSetting: Nobody can listen there; the message says why.
    """
    loop = asyncio.get_running_loop()
    host, port = parse_address(address)
    try:
        if is_unix(address):
            return await _listen_unix(loop, Path(host), handler)
        server = await loop.create_server(
            lambda: Link(handler()), host, port, backlog=limits.CONNECTIONS_MAX
        )
    except OSError as error:
        why = error.strerror or os.strerror(error.errno or 0)
        raise BadSetting(address, f"cannot listen there: {why}") from error
    bound = server.sockets[0].getsockname()
    return Listener(server, f"{host}:{bound[1]}", None)


async def _listen_unix(
    loop: asyncio.AbstractEventLoop, path: Path, handler: Callable[[], Handler]
) -> Listener:
    _clear_way(path)
    before = os.umask(0o117)
    try:
        server = await loop.create_unix_server(
            lambda: Link(handler()), path, backlog=limits.CONNECTIONS_MAX
        )
    finally:
        os.umask(before)
    with contextlib.suppress(KeyError, PermissionError):
        os.chown(path, -1, grp.getgrnam("kv").gr_gid)
    return Listener(server, f"unix:{path}", path)


def _clear_way(path: Path) -> None:
    """Remove a socket that nobody answers on; refuse where somebody does."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not path.exists():
        return
    if not path.is_socket():
        raise BadSetting(f"unix:{path}", "there is a file that is no socket; remove it")
    with socket.socket(socket.AF_UNIX) as trial:
        trial.settimeout(1.0)
        try:
            trial.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            log.info("removed the socket %s of a process that is gone", path)
            return
    raise BadSetting(f"unix:{path}", "a server answers there already")


async def connect(address: str, handler: Handler) -> Link:
    """Return a link to a server.

    Raises:
        NotConnected: Nobody answers there.
    """
    loop = asyncio.get_running_loop()
    host, port = parse_address(address)
    try:
        if is_unix(address):
            _, link = await loop.create_unix_connection(lambda: Link(handler), host)
        else:
            _, link = await loop.create_connection(lambda: Link(handler), host, port)
    except OSError as error:
        raise NotConnected(address, error.strerror or str(error)) from error
    return link
