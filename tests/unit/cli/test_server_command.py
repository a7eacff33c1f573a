"""`kv server`: what its words become, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvedge import agent
from kvedge.cli import main


def test_directory_may_be_relative(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    served: list[Any] = []
    monkeypatch.setattr(agent, "serve", lambda settings, **_: served.append(settings))
    monkeypatch.chdir(tmp_path)
    words = ["server", "--dir", "data", "--listen", "unix:kv.sock", "alpha"]
    assert main.run(words, {"HOME": str(tmp_path), "KV_CONFIG": "/dev/null"}) == 0
    assert served[0].directory == str(tmp_path / "data")
