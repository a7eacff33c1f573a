"""Where a client connects, as files and environment say; the short way for short commands.

This module is on the path of every short command: it imports no more than it must.  Files that
do not speak of `connect` are looked at but not parsed; all else goes through `settings.load`.
"""

from __future__ import annotations

from kvedge.config.places import config_files
from kvedge.errors import BadSetting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ENVIRONMENT = {
    "KV_SOCKET": "connect.socket",
    "KV_HOST": "connect.host",
    "KV_PORT": "connect.port",
    "KV_AUTH": "connect.auth",
}
"""Variables and the settings they stand for.  An empty one counts as not set."""


class ConnectSettings:
    """Where a client connects.

    A plain class, because `dataclasses` would cost every short command 8 ms.

    Attributes:
        host: Name or address of a server, None where none is named.
        port: TCP port at that host, None where none is named.
        socket: Path of a Unix socket, None where none is named.
        auth: Method and parameters of the login, None for no login.
    """

    __slots__ = ("auth", "host", "port", "socket")

    def __init__(
        self,
        *,
        host: str | None = None,
        port: int | None = None,
        socket: str | None = None,
        auth: str | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.socket = socket
        self.auth = auth

    def __repr__(self) -> str:
        """Show all but the login, which may hold a password."""
        return f"ConnectSettings(host={self.host!r}, port={self.port!r}, socket={self.socket!r})"


def connect_settings(
    config_file: str | None, overrides: Sequence[str], environ: Mapping[str, str]
) -> ConnectSettings:
    """Return where to connect, as `-c`, `-C`, environment and files say.

    Args:
        config_file: The file of `-c`, None for the usual ones.
        overrides: The texts `section.key=LITERAL` of `-C`.
        environ: The environment.

    Raises:
        BadSetting: A setting, a file or a variable cannot be used.
    """
    files = config_files(environ, config_file=config_file)
    if overrides or any(_speaks_of_connect(name) for name in files):
        from kvedge.config.settings import load

        return load(config_file=config_file, overrides=overrides, environ=environ).connect
    return ConnectSettings(
        host=environ.get("KV_HOST") or None,
        port=_port(environ.get("KV_PORT")),
        socket=environ.get("KV_SOCKET") or None,
        auth=environ.get("KV_AUTH") or None,
    )


def port_number(value: object) -> int:
    """Return a TCP port.

    Raises:
        ValueError: It is none; the text says why.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535:
        return value
    raise ValueError("must be a number from 1 to 65535")


def _port(text: str | None) -> int | None:
    if not text:
        return None
    try:
        return port_number(int(text) if text.isdecimal() else text)
    except ValueError as error:
        raise BadSetting("KV_PORT", f"{error}, not {text!r}") from error


def _speaks_of_connect(name: str) -> bool:
    """Tell whether a file might set something of `connect`, in any spelling TOML allows.

    The commented file that is installed does not: it has an empty table of that name.
    """
    try:
        with open(name, "rb") as file:  # noqa: PTH123 - pathlib costs 10 ms
            lines = [line.strip() for line in file.read().splitlines()]
    except OSError:
        return True  # the long way tells what is wrong with it
    inside = False
    for line in lines:
        if not line or line.startswith(b"#"):
            continue
        if line == b"[connect]":
            inside = True
        elif (inside and line[:1] != b"[") or b"connect" in line or b"\\" in line:
            return True
        else:
            inside = False
    return False
