"""Where a server may be found, when nobody says.

The environment first (KV_SOCKET, KV_HOST and KV_PORT), then the user's runtime directory, the
system's, and the loopback.  What the environment names is used alone: a script must not write
to another server because the right one is down.  This module is on the path of every short
command.
"""

from __future__ import annotations

import os

from kvedge.errors import NotConnected
from kvedge.transport.address import PORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM_SOCKET = "/run/kvedge/kv.sock"


def user_runtime_directory(environ: Mapping[str, str], uid: int) -> str:
    """Return the directory of a user's sockets, whether it exists or not.

    Without XDG_RUNTIME_DIR (cron, su, a container) it is `/tmp/kvedge-UID`.  Anybody could have
    made that one, so who listens there makes sure of it, and who connects asks `_is_own`.
    """
    base = environ.get("XDG_RUNTIME_DIR", "")
    return f"{base}/kvedge" if base.startswith("/") else f"/tmp/kvedge-{uid}"  # noqa: S108 -- owner is checked


def default_endpoints(environ: Mapping[str, str], uid: int) -> list[str]:
    """Return the addresses to try, in order."""
    port = environ.get("KV_PORT") or str(PORT)
    if environ.get("KV_SOCKET"):
        return [f"unix:{environ['KV_SOCKET']}"]
    if environ.get("KV_HOST"):
        return [f"{environ['KV_HOST']}:{port}"]
    return usual_endpoints(environ, uid, port)


def usual_endpoints(environ: Mapping[str, str], uid: int, port: int | str) -> list[str]:
    """Return the usual places: the user's socket, the system's, the loopback."""
    own = user_runtime_directory(environ, uid)
    own_socket = [f"unix:{own}/kv.sock"] if _is_own(own, uid) else []
    return [*own_socket, f"unix:{SYSTEM_SOCKET}", f"127.0.0.1:{port}"]


def _is_own(directory: str, uid: int) -> bool:
    """Tell whether a directory is the user's own.

    Below /tmp anybody may make one first, and read what we send to the socket in it.
    """
    try:
        return os.stat(directory).st_uid == uid  # noqa: PTH116 -- pathlib costs 10 ms
    except OSError:
        return False


def first_told(failed: list[NotConnected]) -> NotConnected:
    """Return which of several failed attempts to tell: the first where something was there."""
    there = [error for error in failed if not isinstance(error.__cause__, FileNotFoundError)]
    return (there or failed or [NotConnected("a server", "no address is known")])[0]
