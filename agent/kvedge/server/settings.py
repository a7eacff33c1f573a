"""What a server is told at its start."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kvedge.model.value import MISSING
from kvedge.transport.mqtt_settings import MqttSettings


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Settings of one server process.

    Attributes:
        node: Name of the node: letters, digits, `_`, `-`.
        network: Name of the network; a directory belongs to one.
        directory: Where the journal lives; None keeps everything in memory alone.
        listen: Addresses to listen on, `unix:PATH` or `HOST:PORT`.
        initial: Value of the root of a new network; MISSING for none.
        dumps: Files whose entries fill a new store.
        mqtt: How to reach the broker; None to work alone.
        root: What all topics begin with; empty for the network's name.
        key: The network's secret; None where there is none.
        take_name: Whether to start although another server has taken the name over.
    """

    node: str
    network: str = "kvedge"
    directory: str | None = None
    listen: tuple[str, ...] = ()
    initial: Any = MISSING
    dumps: tuple[str, ...] = ()
    mqtt: MqttSettings | None = None
    root: str = ""
    key: bytes | None = field(default=None, repr=False)
    take_name: bool = False
