"""`kv config check` and `kv config show`."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from kvedge.cli.config import config
from kvedge.cli.connection import Session
from kvedge.config.keys import KEYS
from kvedge.errors import BadSetting

Sessions = Callable[..., Session]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration file with a password in it."""
    made = tmp_path / "c.toml"
    made.write_text('[connect]\nhost = "h"\nauth = "password name=joe password=secret"\n')
    return made


def test_check_of_a_correct_file(session: Sessions, file: Path) -> None:
    done = CliRunner().invoke(config, ["check", str(file)], obj=session({}))
    assert done.exit_code == 0
    assert done.stdout == ""
    assert done.stderr == f"{file}: correct\n"


def test_check_tells_every_problem(session: Sessions, file: Path) -> None:
    file.write_text('x = 1\n[server]\ndir = "relative"\n')
    done = CliRunner().invoke(config, ["check"], obj=session({}, config=str(file), set=["q"]))
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        f"{file}:1: x is not a setting; `kv config show` lists all settings",
        f"{file}:3: server.dir must be a path that begins with /, not 'relative'",
        "-C q: must look like section.key=LITERAL",
    ]


def test_show_is_toml_with_origins_and_without_passwords(session: Sessions, file: Path) -> None:
    options = session({"KV_PORT": "12"}, config=str(file), set=["net.name=n"])
    done = CliRunner().invoke(config, ["show"], obj=options)
    assert done.exit_code == 0
    assert f'connect.host = "h"  # {file}:2\n' in done.stdout
    assert "connect.port = 12  # KV_PORT\n" in done.stdout
    assert 'net.name = "n"  # -C\n' in done.stdout
    assert 'log.level = "info"  # default\n' in done.stdout
    assert "# node.name is not set: the first label of the host name\n" in done.stdout
    assert "secret" not in done.stdout
    table = tomllib.loads(done.stdout)
    assert table["connect"] == {"host": "h", "port": 12, "auth": "password ***"}
    assert table["runner"] == [
        {"placement": "single", "group": "default", "clock": "synchronised", "block_max_s": 10}
    ]


def test_show_as_json_names_every_setting(session: Sessions, file: Path) -> None:
    options = session({}, config=str(file), socket="/s")
    done = CliRunner().invoke(config, ["show", "--json"], obj=options)
    rows = json.loads(done.stdout)
    assert set(rows) == {name for name in KEYS if not name.startswith("runner.")} | {"runner"}
    assert rows["connect.socket"] == {"value": "/s", "origin": "command line"}
    assert rows["connect.host"] == {"value": None, "origin": "default"}
    assert rows["runner"]["value"][0]["placement"] == "single"


def test_show_of_a_wrong_configuration_ends_with_its_error(session: Sessions, file: Path) -> None:
    options = session({}, config=str(file), port="many")
    done = CliRunner().invoke(config, ["show"], obj=options)
    assert isinstance(done.exception, BadSetting)
    assert "must be a number from 1 to 65535, not 'many'" in str(done.exception)
