"""`kv server`: what its words become, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvedge import agent
from kvedge.cli import main
from kvedge.storage.directory import mark_taken


def test_directory_may_be_relative(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    served: list[Any] = []
    monkeypatch.setattr(agent, "serve", lambda settings, **_: served.append(settings))
    monkeypatch.chdir(tmp_path)
    words = ["server", "--dir", "data", "--listen", "unix:kv.sock", "alpha"]
    assert main.run(words, {"HOME": str(tmp_path), "KV_CONFIG": "/dev/null"}) == 0
    assert served[0].directory == str(tmp_path / "data")


@pytest.mark.parametrize("words", [[], ["--take-name"]])
def test_a_name_is_taken_back_where_that_is_said(
    words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    served: list[Any] = []
    monkeypatch.setattr(agent, "serve", lambda settings, **_: served.append(settings))
    said = ["server", "--listen", f"unix:{tmp_path}/kv.sock", *words, "alpha"]
    assert main.run(said, {"HOME": str(tmp_path), "KV_CONFIG": "/dev/null"}) == 0
    assert served[0].take_name == bool(words)


def test_a_name_that_is_taken_ends_with_78(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The service manager does not start it again then."""
    mark_taken(str(tmp_path))
    said = ["server", "--dir", str(tmp_path), "--listen", f"unix:{tmp_path}/kv.sock", "alpha"]
    assert main.run(said, {"HOME": str(tmp_path), "KV_CONFIG": "/dev/null"}) == 78
    shown = capsys.readouterr().err
    assert f"another server has taken over the name alpha from {tmp_path}" in shown
    assert "--take-name" in shown
