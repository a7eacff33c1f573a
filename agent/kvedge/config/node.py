"""The name of this node: as the configuration says, else from the name of the host.

Images give every board the same host name, so those names get a suffix that differs: the end
of the board's serial number, else a hash of the machine id.  That id itself is confidential
(machine-id(5)), so nothing but the hash leaves the machine.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from kvedge.errors import BadSetting

HOST_NAMES_SHARED = frozenset({"raspberrypi", "localhost", "debian"})
"""Host names that come with an image and so tell no two boards apart."""

_LEGAL = re.compile(r"[A-Za-z0-9_-]{1,63}")
_SUFFIX_DIGITS = 8  # a Raspberry Pi prints this much of its serial number as well
_SERIAL_FILES = (
    "proc/device-tree/serial-number",
    "sys/firmware/devicetree/base/serial-number",
)


def node_name(
    wanted: str | None, hostname: str, serial: str | None, machine_id: str | None
) -> tuple[str, str | None]:
    """Return the name of the node, and a note where it is not simply what was asked for.

    >>> node_name("alpha", "raspberrypi", None, None)
    ('alpha', None)

    Args:
        wanted: The name from the configuration or the command line; None to derive one.
        hostname: The name of the host.
        serial: The serial number of the board; None where it has none.
        machine_id: The machine id; None where there is none.

    Raises:
        BadSetting: No usable name comes of it; the message says what to set.
    """
    asked = hostname if wanted is None else wanted
    name = asked.partition(".")[0]
    if not _LEGAL.fullmatch(name):
        raise BadSetting(
            "node.name",
            f"{name!r} must be 1 to 63 letters, digits, '_' or '-'; "
            "set [node] name, or give NAME on the command line",
        )
    if wanted is None and name.lower() in HOST_NAMES_SHARED:
        full = f"{name}-{_suffix(name, serial, machine_id)}"
        return full, f"many boards are called {name!r}, so this node is {full!r}"
    if wanted is not None and name != wanted:
        return name, f"{wanted!r} is cut to its first label, {name!r}"
    return name, None


def _suffix(name: str, serial: str | None, machine_id: str | None) -> str:
    digits = re.sub(r"[^0-9A-Za-z]", "", serial or "").lower()
    if digits.strip("0"):
        return digits[-_SUFFIX_DIGITS:]
    if machine_id and machine_id != "uninitialized":  # what an image holds before its first boot
        raw = machine_id.encode()
        return hashlib.blake2b(raw, digest_size=4, person=b"kvedge node").hexdigest()
    raise BadSetting(
        "node.name",
        f"many boards are called {name!r}, and this one has neither serial number nor machine id; "
        "set [node] name",
    )


def own_node_name(
    wanted: str | None, *, hostname: str | None = None, root: str = "/"
) -> tuple[str, str | None]:
    """Return `node_name` for this machine.

    Args:
        wanted: The name from the configuration or the command line; None to derive one.
        hostname: The name of the host; None asks the kernel.
        root: Where the file system begins; tests have their own.

    Raises:
        BadSetting: No usable name comes of it.
    """
    serials = (_text(Path(root, name)) for name in _SERIAL_FILES)
    return node_name(
        wanted,
        os.uname().nodename if hostname is None else hostname,
        next((text for text in serials if text), None),
        _text(Path(root, "etc/machine-id")),
    )


def _text(file: Path) -> str | None:
    """Return what a file holds without the NUL or newline at its end; None for nothing."""
    try:
        return file.read_text("ascii", "ignore").strip("\0\n ") or None
    except OSError:
        return None
