"""The files that make a board part of a network: its key, and a drop-in of settings.

    kvedge.toml.d/net.toml     name of the network, where its key is, where the broker is
    net.key                    the key: random text
    net.mqtt.password          the broker's password, where there is one

They stand beside the configuration that applies: in /etc/kvedge for root and the service user,
below ~/.config/kvedge for others, beside FILE and in FILE.d where -c or KV_CONFIG names one.  The
secrets are their owner's alone; root hands them to the service user.
"""

from __future__ import annotations

import json
import os
import pwd
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kvedge.config.joinfile import Invitation
from kvedge.config.places import SERVICE_USER, drop_in_directory
from kvedge.errors import BadSetting, StorageError
from kvedge.storage.dumps import sync_directory
from kvedge.transport.mqtt_settings import MqttSettings, without_password

_KEY_BYTES = 32
_SECRET_MODE = 0o600
_OPEN_MODE = 0o644  # every `kv` reads it


@dataclass(frozen=True, slots=True)
class NetFiles:
    """Where the files of the network are, whether they exist or not."""

    drop_in: Path
    key: Path
    password: Path

    @property
    def present(self) -> list[Path]:
        """Those that exist."""
        return [file for file in (self.drop_in, self.key, self.password) if file.exists()]


def net_files(environ: Mapping[str, str], *, config_file: str | None = None) -> NetFiles:
    """Return where the files of this user's network are.

    Raises:
        BadSetting: The configuration file that was named is no file.
    """
    chosen = config_file or environ.get("KV_CONFIG")
    if chosen and Path(chosen).exists() and not Path(chosen).is_file():
        raise BadSetting(chosen, "it is no file, so nothing can be written beside it")
    directory = Path(os.path.abspath(drop_in_directory(environ, config_file=config_file)))  # noqa: PTH100 -- links stay
    base = directory.parent
    return NetFiles(directory / "net.toml", base / "net.key", base / "net.mqtt.password")


def new_key() -> bytes:
    """Return a random key, as text."""
    return secrets.token_hex(_KEY_BYTES).encode("ascii")


def drop_in_text(invitation: Invitation, files: NetFiles) -> str:
    """Return the settings of a network as TOML, secrets left out."""
    lines = [
        "# Written by `kv net`.",
        "[net]",
        f"name = {_toml(invitation.name)}",
        f"key_file = {_toml(str(files.key))}",
    ]
    server = []
    if invitation.mqtt:
        server.append(f"mqtt.uri = {_toml(without_password(invitation.mqtt))}")
        if _password(invitation.mqtt) is not None:
            server.append(f"mqtt.password_file = {_toml(str(files.password))}")
    if invitation.root:
        server.append(f"root = {_toml(invitation.root)}")
    if server:
        lines += ["", "[server]", *server]
    return "\n".join(lines) + "\n"


def write_drop_in(invitation: Invitation, files: NetFiles) -> None:
    """Write the settings of a network; until the key is there too, no server starts with them.

    Raises:
        StorageError: They exist, or cannot be written.
    """
    try:
        files.drop_in.parent.mkdir(parents=True, exist_ok=True)
        _write_new(files.drop_in, drop_in_text(invitation, files).encode(), _OPEN_MODE)
    except OSError as error:
        raise _not_written(files.drop_in, error) from error


def write_secrets(invitation: Invitation, files: NetFiles) -> None:
    """Write the key of a network, and the broker's password if there is one.

    Raises:
        StorageError: One exists, or cannot be written.
    """
    password = _password(invitation.mqtt) if invitation.mqtt else None
    if password is not None:
        write_secret(files.password, f"{password}\n".encode(), for_service=True)
    write_secret(files.key, invitation.key + b"\n", for_service=True)


def remove_net_files(files: NetFiles) -> None:
    """Remove what was written."""
    for file in (files.drop_in, files.password, files.key):
        with suppress(OSError):
            file.unlink(missing_ok=True)


def set_aside(file: Path, suffix: str) -> Path:
    """Rename a file of a former network; return its new name.

    Raises:
        StorageError: It cannot be renamed.
    """
    try:
        return file.rename(file.with_name(f"{file.name}{suffix}"))
    except OSError as error:
        raise StorageError(f"{file} cannot be renamed: {error.strerror}") from error


def write_secret(file: Path, data: bytes, *, for_service: bool = False) -> None:
    """Write a new file that its owner alone may read.

    Args:
        file: Where.
        data: What.
        for_service: Whether root hands it to the service user.

    Raises:
        StorageError: It exists, or cannot be written.
    """
    try:
        _write_new(file, data, _SECRET_MODE, _service_user() if for_service else None)
    except OSError as error:
        raise _not_written(file, error) from error


def _not_written(file: Path, error: OSError) -> StorageError:
    return StorageError(f"{file} cannot be written: {error.strerror}")


def _service_user() -> tuple[int, int] | None:
    """Return to whom root gives secrets; None for other users, who keep them."""
    if os.geteuid() != 0:
        return None
    try:
        user = pwd.getpwnam(SERVICE_USER)
    except KeyError:
        return None
    return user.pw_uid, user.pw_gid


def _write_new(file: Path, data: bytes, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Write a file under another name, then give it its own, which nobody may have."""
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(data)
            opened.flush()
            os.fchmod(descriptor, mode)
            if owner is not None:
                os.fchown(descriptor, *owner)
            os.fsync(descriptor)
        os.link(unfinished, file)  # unlike a rename it does not replace
        sync_directory(file.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def _password(uri: str) -> str | None:
    return MqttSettings.from_uri(uri).password


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
