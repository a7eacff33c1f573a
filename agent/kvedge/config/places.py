"""Where things are when nobody says otherwise: directories, sockets, configuration files.

This module is on the path of every short command: it imports no more than it must.
"""

from __future__ import annotations

import os
import stat

from kvedge.client.endpoints import user_runtime_directory
from kvedge.errors import BadSetting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM_CONFIG = "/etc/kvedge"
SYSTEM_STATE = "/var/lib/kvedge"
SYSTEM_RUNTIME = "/run/kvedge"
SERVICE_USER = "kvedge"
SOCKET_GROUP = "kv"


class Places:
    """The directory of the store and the socket of the server.

    A plain class, because `dataclasses` would cost every short command 8 ms.
    """

    __slots__ = ("directory", "socket")

    def __init__(self, directory: str, socket: str) -> None:
        self.directory = directory
        self.socket = socket


def default_places(environ: Mapping[str, str], *, uid: int, user: str) -> Places:
    """Return where a server of this user keeps its data and listens.

    Args:
        environ: The environment, for the XDG variables and HOME.
        uid: Effective user number.
        user: Name of that user; root and the service user get the system's directories.
    """
    if uid == 0 or user == SERVICE_USER:
        return Places(SYSTEM_STATE, f"{SYSTEM_RUNTIME}/kv.sock")
    home = environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 - pathlib costs 10 ms
    state = environ.get("XDG_STATE_HOME") or f"{home}/.local/state"
    return Places(f"{state}/kvedge", f"{user_runtime_directory(environ, uid)}/kv.sock")


def user_name(uid: int) -> str:
    """Return the name of a user, or the number where there is no name."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def private_directory(path: str, *, uid: int) -> None:
    """Make a directory that is the user's alone; accept it where it is that already.

    Raises:
        BadSetting: Somebody else owns it, or others may write into it.
    """
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)  # noqa: PTH103 - pathlib costs 10 ms
        found = os.lstat(path)
    except OSError as error:
        raise BadSetting(path, f"cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise BadSetting(path, "is not a directory; remove it, or set XDG_RUNTIME_DIR")
    if found.st_uid != uid or found.st_mode & 0o022:
        raise BadSetting(path, "belongs to somebody else; remove it, or set XDG_RUNTIME_DIR")


def config_files(
    environ: Mapping[str, str], *, config_file: str | None = None, system: str = SYSTEM_CONFIG
) -> list[str]:
    """Return the configuration files to read, the strongest last.

    Behind each file X come those of its drop-in directory, X.d/*.toml, by name.

    Args:
        environ: The environment; KV_CONFIG stands for `config_file`.
        config_file: Read this one instead of all others; it need not exist.
        system: The directory of the machine's own files.
    """
    chosen = config_file or environ.get("KV_CONFIG")
    if chosen:
        return [chosen, *_toml_files(f"{chosen}.d")]
    bases = (f"{system}/kvedge.toml", _user_file(environ))
    names = [name for base in bases for name in (base, *_toml_files(f"{base}.d"))]
    return [name for name in names if os.path.exists(name)]  # noqa: PTH110 - pathlib costs 10 ms


def drop_in_directory(
    environ: Mapping[str, str], *, config_file: str | None = None, system: str = SYSTEM_CONFIG
) -> str:
    """Return the directory for files that add to the configuration of this user.

    Args:
        environ: As for `config_files`.
        config_file: As for `config_files`.
        system: As for `config_files`; it is root's and the service user's.
    """
    chosen = config_file or environ.get("KV_CONFIG")
    uid = os.geteuid()
    is_service = uid == 0 or user_name(uid) == SERVICE_USER
    base = f"{system}/kvedge.toml" if is_service else _user_file(environ)
    return f"{chosen or base}.d"


def _user_file(environ: Mapping[str, str]) -> str:
    home = environ.get("XDG_CONFIG_HOME") or f"{environ.get('HOME', '')}/.config"
    return f"{home}/kvedge/kvedge.toml"


def _toml_files(directory: str) -> list[str]:
    try:
        names = os.listdir(directory)  # noqa: PTH208 - pathlib costs 10 ms
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise BadSetting(directory, f"cannot be read: {error.strerror}") from error
    return [f"{directory}/{name}" for name in sorted(names) if name.endswith(".toml")]
