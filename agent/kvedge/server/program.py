"""Which version of the program a server runs, as it tells its peers.

People read it, nothing is decided by it: whether two servers can talk to each other is a matter of
the envelope's version.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib import metadata

_VERSION = re.compile(r"[A-Za-z0-9.+!_-]{1,63}")  # as PEP 440 writes them


@cache
def program_version() -> str:
    """Return the version of this program; empty where it runs from sources not installed."""
    try:
        return metadata.version("kvedge")
    except metadata.PackageNotFoundError:
        return ""


def version_said(parts: Sequence[object]) -> str:
    """Return the version that a beat tells.

    Args:
        parts: What follows the first part of its body.  Older ones send nothing.

    Returns:
        Empty where there is none that could be shown.
    """
    given = parts[0] if parts else None
    return given if isinstance(given, str) and _VERSION.fullmatch(given) else ""
