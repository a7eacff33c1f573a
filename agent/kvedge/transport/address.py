"""Addresses of sockets, as settings and the command line write them.

`unix:PATH` names a Unix socket, `HOST:PORT` (or `[HOST]:PORT`) a TCP one.  This module is on the
path of every short command.
"""

from __future__ import annotations

from kvedge.errors import BadSetting

PORT = 27586
"""The port users of the peer systems know."""


def parse_address(text: str) -> tuple[str, int]:
    """Return (path, 0) of a Unix socket or (host, port) of a TCP one.

    Raises:
        BadSetting: The text is neither.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path:
            raise BadSetting(text, "a path is missing behind 'unix:'")
        if len(path.encode()) > 107:  # sun_path has 108 bytes (unix(7))
            raise BadSetting(text, "the path of a socket has at most 107 bytes")
        return path, 0
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise BadSetting(text, "an address is 'unix:PATH' or 'HOST:PORT'")
    return host, int(port)


def is_unix(text: str) -> bool:
    """Tell whether an address names a Unix socket."""
    return text.startswith("unix:")


def is_loopback(host: str) -> bool:
    """Tell whether a host name is this machine and nothing else."""
    return host in ("localhost", "::1") or host.startswith("127.")
