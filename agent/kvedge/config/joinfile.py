"""The join file: all that a second board needs to know of a network, key included.

    {"kvedge join": 1, "name": ..., "key": base64, "fingerprint": ..., "mqtt": URI, "root": ...}

JSON, so that it can be looked at.  `mqtt` is missing where the first board names no broker, `root`
where it is the network's name.  The fingerprint of the key guards against slips of the hand.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from kvedge.config.keys import KEYS
from kvedge.errors import BadSetting

VERSION = 1

_VERSION_NAME = "kvedge join"
_FILE_MAX_BYTES = 16 * 1024  # a key of a few hundred bytes is long
_CHECKED = {"name": "net.name", "mqtt": "server.mqtt.uri", "root": "server.root"}


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a join file says.

    Attributes:
        name: Of the network.
        key: Its secret.
        mqtt: Where the broker is, password included; None where it is not told.
        root: What all topics begin with; None for the name.
    """

    name: str
    key: bytes = field(repr=False)
    mqtt: str | None = field(default=None, repr=False)
    root: str | None = None


def fingerprint(key: bytes) -> str:
    """Return a short text that tells keys apart and does not give them away.

    >>> fingerprint(b"secret")
    '5bb3-e33d-b14f'
    """
    digest = hashlib.blake2b(key, digest_size=6, person=b"kvedge net key").hexdigest()
    return "-".join(digest[at : at + 4] for at in range(0, len(digest), 4))


def invitation_text(invitation: Invitation) -> str:
    """Return the text of a join file."""
    fields = {
        _VERSION_NAME: VERSION,
        "name": invitation.name,
        "key": base64.b64encode(invitation.key).decode("ascii"),
        "fingerprint": fingerprint(invitation.key),
        "mqtt": invitation.mqtt,
        "root": invitation.root,
    }
    told = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(told, indent=2, ensure_ascii=False) + "\n"


def read_invitation(data: bytes, origin: str) -> Invitation:
    """Return what the bytes of a join file say.

    Args:
        data: The whole file.
        origin: What errors call it.

    Raises:
        BadSetting: It is no join file, or a damaged one; the error never shows its key.
    """
    if len(data) > _FILE_MAX_BYTES:
        raise BadSetting(origin, f"it is no join file: it has more than {_FILE_MAX_BYTES} bytes")
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise BadSetting(origin, "it is no join file, or it was cut: it is not JSON") from None
    if not isinstance(fields, dict) or _VERSION_NAME not in fields:
        raise BadSetting(origin, "it is no join file; `kv net join-file` makes one")
    version = fields[_VERSION_NAME]
    if type(version) is not int or version != VERSION:
        raise BadSetting(origin, f"its format is {version!r:.20}; this version reads {VERSION}")
    for name in _CHECKED:
        _check(fields, name, origin)
    return Invitation(
        name=fields["name"],
        key=_key(fields, origin),
        mqtt=fields.get("mqtt"),
        root=fields.get("root"),
    )


def read_invitation_file(name: str) -> Invitation:
    """Return what a join file says; raises as `read_invitation` does."""
    try:
        with Path(name).open("rb") as file:
            return read_invitation(file.read(_FILE_MAX_BYTES + 1), name)
    except OSError as error:
        raise BadSetting(name, f"cannot be read: {error.strerror}") from error


def _check(fields: dict[str, object], name: str, origin: str) -> None:
    value = fields.get(name)
    if value is None and name != "name":
        return
    key = KEYS[_CHECKED[name]]
    try:
        key.kind.check(value)
    except ValueError as error:
        shown = key.shown(value)
        raise BadSetting(origin, f"its {name} {error}, not {shown!r:.80}") from None


def _key(fields: dict[str, object], origin: str) -> bytes:
    text = fields.get("key")
    try:
        key = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        key = b""
    if not key.strip() or key != key.strip():
        raise BadSetting(origin, "its key is missing or damaged")
    if fields.get("fingerprint") != fingerprint(key):
        raise BadSetting(origin, "its key is damaged: the fingerprint is another one")
    return key
