"""A node keeps its name with its store, and reads its configuration again when told to."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from kvedge.model.value import packb
from kvedge.server.logs import node_in

pytestmark = pytest.mark.system


def test_a_store_belongs_to_its_node(new_server: Callable[..., Any]) -> None:
    server = new_server().start()
    with server.connect() as client:
        client.set("a", 1)
    server.terminate()
    assert node_in(str(server.data)) == "alpha"
    server.node = "beta"
    code, said = server.refused()
    assert code == 1
    assert "it is the store of the node alpha" in said
    server.node = "alpha"
    server.start()
    with server.connect() as client:
        assert client.get("a").value == 1


def test_a_directory_without_a_store_has_no_node(tmp_path: Any) -> None:
    assert node_in(str(tmp_path)) is None
    assert node_in(str(tmp_path / "absent")) is None
    (tmp_path / "journal-00000001.kvj").write_bytes(packb("torn"))
    assert node_in(str(tmp_path)) is None


def test_a_hang_up_reads_the_configuration_again(new_server: Callable[..., Any]) -> None:
    server = new_server()
    file = server.home / "kvedge.toml"
    file.write_text('[log]\nlevel = "info"\n')
    server.start(environ={"KV_CONFIG": str(file)})
    file.write_text('[log]\nlevel = "no such"\n')
    _hang_up(server, "is not read again")
    file.write_text('[log]\nlevel = "debug"\n')
    _hang_up(server, "was read again")
    with server.connect() as client:
        client.set("a", 1)
    assert " connected" in server.log()


def _hang_up(server: Any, said: str) -> None:
    """Send SIGHUP and wait for what the server says of it."""
    os.kill(server.pid, signal.SIGHUP)
    until = time.monotonic() + 10
    while said not in server.log():
        assert time.monotonic() < until, server.log()
        time.sleep(0.02)
