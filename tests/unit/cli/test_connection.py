"""Which server a command talks to: options, environment, files, the usual places."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from kvedge.cli.connection import endpoints
from kvedge.cli.fast import parse_global
from kvedge.errors import BadSetting

USUAL = ["unix:/run/kvedge/kv.sock", "127.0.0.1:27586"]

CASES: list[tuple[str, Mapping[str, str], list[str]]] = [
    ("", {}, USUAL),
    ("-s /x/kv.sock", {}, ["unix:/x/kv.sock"]),
    ("-h box", {}, ["box:27586"]),
    ("-h box -p 1", {}, ["box:1"]),
    ("-h ::1 -p 1", {}, ["[::1]:1"]),
    ("-h [::1] -p 1", {}, ["[::1]:1"]),
    ("-p 1", {}, ["127.0.0.1:1"]),
    ("", {"KV_SOCKET": "/e.sock"}, ["unix:/e.sock"]),
    ("", {"KV_HOST": "box"}, ["box:27586"]),
    ("", {"KV_HOST": "box", "KV_PORT": "7"}, ["box:7"]),
    ("", {"KV_PORT": "7"}, [USUAL[0], "127.0.0.1:7"]),
    ("", {"KV_SOCKET": "/e.sock", "KV_HOST": "box"}, ["unix:/e.sock"]),
    ("-h box", {"KV_SOCKET": "/e.sock", "KV_PORT": "7"}, ["box:7"]),
    ("-h box -p 1", {"KV_PORT": "7"}, ["box:1"]),
    ("-s /x", {"KV_SOCKET": "/e.sock"}, ["unix:/x"]),
    ("", {"KV_SOCKET": ""}, USUAL),
    ("-C connect.host=file", {}, ["file:27586"]),
    ("-C connect.socket=/c.sock", {"KV_HOST": "box"}, ["unix:/c.sock"]),
]


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment without a runtime directory and without configuration files."""
    return {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}


@pytest.mark.parametrize(("words", "environ", "expected"), CASES)
def test_endpoints(
    words: str, environ: Mapping[str, str], expected: list[str], home: Mapping[str, str]
) -> None:
    given, _ = parse_global(words.split())
    assert endpoints(given, {**home, **environ}) == expected


def test_own_runtime_directory_comes_first(home: Mapping[str, str], tmp_path: Path) -> None:
    (tmp_path / "run" / "kvedge").mkdir(parents=True)
    given, _ = parse_global([])
    assert endpoints(given, home) == [f"unix:{tmp_path}/run/kvedge/kv.sock", *USUAL]


def test_a_runtime_directory_of_others_is_passed_over(
    home: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run" / "kvedge").mkdir(parents=True)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    given, _ = parse_global([])
    assert endpoints(given, home) == USUAL


def test_configuration_file(home: Mapping[str, str], tmp_path: Path) -> None:
    file = tmp_path / "kvedge.toml"
    file.write_text('[connect]\nhost = "attic"\nport = 99\n')
    for words in (["-c", str(file)], []):
        environ = {**home, "KV_CONFIG": str(file)}
        assert endpoints(parse_global(words)[0], environ) == ["attic:99"]


@pytest.mark.parametrize(
    "words", ["-s /x -h y", "-s /x -p 1", "-p 0", "-p 65536", "-p x", "-C connect.port=no"]
)
def test_refused(words: str, home: Mapping[str, str]) -> None:
    given, _ = parse_global(words.split())
    with pytest.raises(BadSetting):
        endpoints(given, home)
