"""Checks for `kv doctor`: is the owserver there, and does it see devices?

Who has no 1-Wire is not bothered: without a record of the driver, and with nobody listening at
the usual port, all is well.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import anyio

from kvedge.client import sync
from kvedge.client.endpoints import default_endpoints
from kvedge.errors import AgentError, BadSetting, DriverError
from kvedge.model.check import CheckResult, Level
from kvedge.model.path import KV
from kvedge_drivers.readings.places import RECORDS, Record

_NAME = "owserver"
_DEFAULT_SERVER = "127.0.0.1:4304"
_TIMEOUT_S = 3.0
_REMEDY_START = "sudo apt install owserver && sudo systemctl start owserver"
_REMEDY_WIRE = "look at the wiring and at /etc/owfs.conf: it must name the adapter"


def owserver() -> list[CheckResult]:
    """Tell which owservers answer, and how many devices each finds."""
    used = sorted(set(_used_servers()))
    return [_check(server, is_used=server in used) for server in used or [_DEFAULT_SERVER]]


def _used_servers() -> Iterator[str]:
    """Yield the servers that this node's jobs have, or should have, read from."""
    try:
        with sync.connect(default_endpoints(os.environ, os.geteuid()), timeout_s=_TIMEOUT_S) as kv:
            node = str(kv.greeting["node"])
            for item in kv.get_tree(KV + ("run", "single", node)):
                yield from _server_of_job(item.value)
            for item in kv.get_tree(RECORDS / node):
                yield from _server_of_record(item.value)
    except AgentError:
        return  # another check tells


def _server_of_job(value: object) -> Iterator[str]:
    if isinstance(value, dict) and value.get("code") == "@onewire":
        data = value.get("data")
        server = data.get("server") if isinstance(data, dict) else None
        yield str(server or _DEFAULT_SERVER)


def _server_of_record(value: object) -> Iterator[str]:
    try:
        record = Record.from_value(value)
    except BadSetting:
        return
    if record.driver == "onewire":
        yield record.bus


def _check(server: str, *, is_used: bool) -> CheckResult:
    try:
        devices = _devices(server)
    except ImportError:
        level = Level.FAIL if is_used else Level.OK
        return CheckResult(_NAME, level, "pyownet is not installed", "pip install kvedge[onewire]")
    except (DriverError, BadSetting) as error:
        if not is_used:
            return CheckResult(_NAME, Level.OK, f"none at {server}, and no job wants one")
        return CheckResult(_NAME, Level.FAIL, str(error), _REMEDY_START)
    if not devices:
        return CheckResult(
            _NAME, Level.WARN, f"{server} answers, but finds no device", _REMEDY_WIRE
        )
    return CheckResult(_NAME, Level.OK, f"{server} finds {len(devices)} devices")


def _devices(server: str) -> list[str]:
    # Here, since pyownet is an extra: without it the other checks must work.
    from kvedge_drivers.onewire.procedure import server_address
    from kvedge_drivers.onewire.pyownet_port import PyownetPort

    host, number = server_address(server)
    port = PyownetPort(host, number, name="onewire", timeout_s=_TIMEOUT_S)
    return anyio.run(port.devices)
