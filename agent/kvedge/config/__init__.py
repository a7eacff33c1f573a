"""Files, environment and flags, made into frozen settings; the names load on first use.

A short command needs to know where to connect and nothing else, so this package costs it no
TOML reader and no dataclasses: `connect_settings` asks for them only where a file speaks of it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kvedge.config.connect import ConnectSettings, connect_settings
    from kvedge.config.node import node_name, own_node_name
    from kvedge.config.places import Places, default_places, private_directory
    from kvedge.config.settings import (
        LogSettings,
        NetSettings,
        NodeSettings,
        RunnerSettings,
        ServerSettings,
        Settings,
        gather,
        load,
    )

_HOMES = {
    "connect": ("ConnectSettings", "connect_settings"),
    "node": ("node_name", "own_node_name"),
    "places": ("Places", "default_places", "private_directory"),
    "settings": (
        "LogSettings",
        "NetSettings",
        "NodeSettings",
        "RunnerSettings",
        "ServerSettings",
        "Settings",
        "gather",
        "load",
    ),
}

__all__ = [
    "ConnectSettings",
    "LogSettings",
    "NetSettings",
    "NodeSettings",
    "Places",
    "RunnerSettings",
    "ServerSettings",
    "Settings",
    "connect_settings",
    "default_places",
    "gather",
    "load",
    "node_name",
    "own_node_name",
    "private_directory",
]


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
