"""kvedge: a replicated key-value store, job runner and hardware drivers for small boards.

The public names, loaded on first use so that a short command pays for none of them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kvedge.client.client import Client, open_client
    from kvedge.model.path import P, Path
    from kvedge.model.value import MISSING, NotGiven

__version__ = "0.1.0"

__all__ = ["MISSING", "Client", "NotGiven", "P", "Path", "open_client"]

_HOME = {
    "Client": "kvedge.client.client",
    "MISSING": "kvedge.model.value",
    "NotGiven": "kvedge.model.value",
    "P": "kvedge.model.path",
    "Path": "kvedge.model.path",
    "open_client": "kvedge.client.client",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'kvedge' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
