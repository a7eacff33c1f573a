"""Where a short command connects, and that it pays nothing for finding out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kvedge.config.connect import ConnectSettings, connect_settings, port_number
from kvedge.errors import BadSetting


def _fields(found: ConnectSettings) -> tuple[str | None, int | None, str | None, str | None]:
    return found.host, found.port, found.socket, found.auth


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment whose only configuration file is the (absent) one of KV_CONFIG."""
    (tmp_path / "empty.toml").touch()
    return {"KV_CONFIG": str(tmp_path / "empty.toml")}


def test_nothing_set_is_nothing_named(environ: dict[str, str]) -> None:
    assert _fields(connect_settings(None, [], environ)) == (None, None, None, None)


def test_variables_are_taken(environ: dict[str, str]) -> None:
    environ |= {"KV_HOST": "h", "KV_PORT": "12", "KV_SOCKET": "/s", "KV_AUTH": "password"}
    assert _fields(connect_settings(None, [], environ)) == ("h", 12, "/s", "password")


def test_empty_variables_count_as_not_set(environ: dict[str, str]) -> None:
    environ |= {"KV_HOST": "", "KV_PORT": ""}
    assert _fields(connect_settings(None, [], environ)) == (None, None, None, None)


@pytest.mark.parametrize("text", ["x", "0", "65536", "-1", "1.5"])
@pytest.mark.parametrize("overrides", [[], ["log.level=info"]], ids=["short", "long"])
def test_a_bad_port_is_refused_both_ways(
    environ: dict[str, str], text: str, overrides: list[str]
) -> None:
    with pytest.raises(BadSetting, match=r"^KV_PORT: .*from 1 to 65535"):
        connect_settings(None, overrides, {**environ, "KV_PORT": text})


def test_a_bool_is_no_port() -> None:
    with pytest.raises(ValueError, match="from 1 to 65535"):
        port_number(True)


@pytest.mark.parametrize(
    "text",
    [
        '[connect]\nhost = "h"',
        '[connect]\n# so\n\nhost = "h"',
        'connect.host = "h"',
        'connect = {host = "h"}',
        '"connect".host = "h"',
        '"\\u0063onnect".host = "h"',
        '[log]\nlevel = "info"\n[ connect ]\nhost = "h"',
    ],
)
def test_every_spelling_in_a_file_is_found(tmp_path: Path, text: str) -> None:
    file = tmp_path / "c.toml"
    file.write_text(text)
    assert connect_settings(str(file), [], {}).host == "h"


def test_the_environment_goes_before_a_file(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[connect]\nsocket = "/s"\nauth = "root"')
    found = connect_settings(str(file), [], {"KV_HOST": "h"})
    assert _fields(found) == ("h", None, None, "root")


def test_an_override_goes_before_the_environment(environ: dict[str, str]) -> None:
    found = connect_settings(None, ["connect.socket=/s"], {**environ, "KV_HOST": "h"})
    assert (found.host, found.socket) == (None, "/s")


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match=r"absent\.toml: cannot be read: No such file"):
        connect_settings(str(tmp_path / "absent.toml"), [], {})


def test_an_unknown_override_is_refused(environ: dict[str, str]) -> None:
    with pytest.raises(BadSetting, match=r"did you mean connect\.host\?"):
        connect_settings(None, ["connect.hots=h"], environ)


def test_the_login_is_not_printed() -> None:
    assert "secret" not in repr(ConnectSettings(auth="password password=secret"))


def test_a_short_command_loads_nothing_slow(project_root: Path) -> None:
    """The installed, commented file is there as on every board, and has nothing to parse."""
    program = (
        "import sys; from kvedge.config import connect_settings;"
        "connect_settings(sys.argv[1], [], {});"
        "slow = {'tomllib', 'dataclasses', 'typing', 're', 'inspect', 'pathlib', 'importlib'};"
        "print(sorted(slow & (set(sys.modules) - before)))"
    )
    command = [sys.executable, "-c", f"import sys; before = set(sys.modules); {program}"]
    command.append(str(project_root / "deploy/etc/kvedge.toml"))
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=project_root / "agent"
    )
    # importlib is what finds the module itself: twenty lines, no metadata
    assert done.stdout.strip() in ("[]", "['importlib']")
