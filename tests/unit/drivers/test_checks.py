"""`kv doctor` on owservers: what each finding means for somebody who has, or has no, 1-Wire."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvedge.errors import PortUnavailable
from kvedge.model.check import Level
from kvedge_drivers.cli import checks

HERE = "127.0.0.1:4304"


def finds(count: int) -> Callable[[str], list[str]]:
    return lambda server: [f"28.{number:012X}" for number in range(count)]


def refuses(server: str) -> list[str]:
    raise PortUnavailable("onewire", f"owserver at {server}: Connection refused")


def lacks_the_library(server: str) -> list[str]:
    raise ImportError("pyownet")


@pytest.mark.parametrize(
    ("used", "devices", "level", "text"),
    [
        ([], refuses, Level.OK, "no job wants one"),
        ([], lacks_the_library, Level.OK, "not installed"),
        ([], finds(3), Level.OK, "finds 3 devices"),
        ([HERE], refuses, Level.FAIL, "Connection refused"),
        ([HERE], lacks_the_library, Level.FAIL, "not installed"),
        ([HERE], finds(0), Level.WARN, "finds no device"),
        ([HERE, HERE], finds(2), Level.OK, "finds 2 devices"),
        (["cellar"], finds(2), Level.OK, "cellar finds"),
        (["tty:0"], None, Level.FAIL, "tty:0"),
    ],
)
def test_finding(
    monkeypatch: pytest.MonkeyPatch,
    used: list[str],
    devices: Callable[[str], list[str]] | None,
    level: Level,
    text: str,
) -> None:
    monkeypatch.setattr(checks, "_used_servers", lambda: iter(used))
    if devices:
        monkeypatch.setattr(checks, "_devices", devices)
    (result,) = checks.owserver()
    assert (result.name, result.level) == ("owserver", level)
    assert text in result.text
    assert bool(result.remedy) is (result.level is not Level.OK) or devices is lacks_the_library


@pytest.mark.parametrize(
    ("value", "servers"),
    [
        ({"code": "@onewire", "data": {"server": "cellar:4304"}}, ["cellar:4304"]),
        ({"code": "@onewire", "data": {}}, [HERE]),
        ({"code": "@onewire"}, [HERE]),
        ({"code": "@host", "data": {}}, []),
        ("rubbish", []),
    ],
)
def test_job_names_its_server(value: object, servers: list[str]) -> None:
    assert list(checks._server_of_job(value)) == servers


def test_without_a_server_of_ours_nothing_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KV_SOCKET", "/nonexistent/kv.sock")
    assert list(checks._used_servers()) == []
