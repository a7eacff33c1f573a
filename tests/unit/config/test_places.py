"""Where things are by default, and which configuration files are read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvedge.client.endpoints import user_runtime_directory
from kvedge.config.places import (
    config_files,
    default_places,
    drop_in_directory,
    private_directory,
    user_name,
)
from kvedge.errors import BadSetting

TMP = "/tmp"  # noqa: S108 - the promised place


@pytest.mark.parametrize(
    ("uid", "user", "environ", "directory", "socket"),
    [
        (0, "root", {"XDG_RUNTIME_DIR": "/r"}, "/var/lib/kvedge", "/run/kvedge/kv.sock"),
        (99, "kvedge", {"HOME": "/h"}, "/var/lib/kvedge", "/run/kvedge/kv.sock"),
        (
            1000,
            "joe",
            {"HOME": "/h", "XDG_RUNTIME_DIR": "/r"},
            "/h/.local/state/kvedge",
            "/r/kvedge/kv.sock",
        ),
        (1000, "joe", {"XDG_STATE_HOME": "/s"}, "/s/kvedge", f"{TMP}/kvedge-1000/kv.sock"),
    ],
)
def test_places_depend_on_the_user(
    uid: int, user: str, environ: dict[str, str], directory: str, socket: str
) -> None:
    places = default_places(environ, uid=uid, user=user)
    assert (places.directory, places.socket) == (directory, socket)


def test_an_empty_runtime_variable_counts_as_none() -> None:
    assert user_runtime_directory({"XDG_RUNTIME_DIR": ""}, 7) == f"{TMP}/kvedge-7"


def test_user_without_a_name_is_a_number() -> None:
    assert user_name(0) == "root"
    assert user_name(3999999999) == "3999999999"


@pytest.fixture
def machine(tmp_path: Path) -> tuple[dict[str, str], str]:
    """A machine with system files, two in the directory beside them, and a user's file."""
    system = tmp_path / "etc"
    user = tmp_path / "home/.config/kvedge"
    (system / "kvedge.toml.d").mkdir(parents=True)
    user.mkdir(parents=True)
    for file in (
        system / "kvedge.toml",
        system / "kvedge.toml.d/20.toml",
        system / "kvedge.toml.d/10.toml",
        system / "kvedge.toml.d/10.toml.bak",
        user / "kvedge.toml",
    ):
        file.touch()
    return {"HOME": f"{tmp_path}/home"}, str(system)


def test_files_are_read_from_weak_to_strong(machine: tuple[dict[str, str], str]) -> None:
    environ, system = machine
    assert config_files(environ, system=system) == [
        f"{system}/kvedge.toml",
        f"{system}/kvedge.toml.d/10.toml",
        f"{system}/kvedge.toml.d/20.toml",
        f"{environ['HOME']}/.config/kvedge/kvedge.toml",
    ]


def test_the_directory_of_files_is_read_by_name(tmp_path: Path) -> None:
    directory = tmp_path / "kvedge.toml.d"
    directory.mkdir()
    for name in "edgahcbf":
        (directory / f"{name}.toml").touch()
    found = config_files({"HOME": "/nowhere"}, system=str(tmp_path))
    assert [Path(file).stem for file in found] == [*"abcdefgh"]


def test_xdg_config_home_moves_the_users_file(machine: tuple[dict[str, str], str]) -> None:
    environ, system = machine
    files = config_files({**environ, "XDG_CONFIG_HOME": "/elsewhere"}, system=system)
    assert len(files) == 3


def test_one_file_stands_for_all(machine: tuple[dict[str, str], str]) -> None:
    environ, system = machine
    assert config_files(environ, config_file="/x", system=system) == ["/x"]
    environ["KV_CONFIG"] = "/y"
    assert config_files(environ, system=system) == ["/y"]
    assert config_files(environ, config_file="/x", system=system) == ["/x"]


def test_a_chosen_file_and_the_users_have_directories_of_their_own(
    machine: tuple[dict[str, str], str], tmp_path: Path
) -> None:
    environ, system = machine
    own = Path(environ["HOME"]) / ".config" / "kvedge" / "kvedge.toml.d" / "net.toml"
    chosen = tmp_path / "x.toml.d" / "net.toml"
    for file in (own, chosen):
        file.parent.mkdir(parents=True)
        file.touch()
    assert config_files(environ, system=system)[-1] == str(own)
    name = str(tmp_path / "x.toml")
    assert config_files(environ, config_file=name, system=system) == [name, str(chosen)]
    assert drop_in_directory(environ, config_file=name) == str(chosen.parent)


def test_no_file_is_no_error(tmp_path: Path) -> None:
    assert config_files({"HOME": str(tmp_path)}, system=str(tmp_path)) == []


def test_private_directory_is_made_and_accepted_again(tmp_path: Path) -> None:
    place = tmp_path / "a"
    private_directory(str(place), uid=os.geteuid())
    private_directory(str(place), uid=os.geteuid())
    assert place.stat().st_mode & 0o777 == 0o700


def test_private_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="belongs to somebody else"):
        private_directory(str(tmp_path), uid=os.geteuid() + 1)


def test_private_directory_that_others_may_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(BadSetting, match="XDG_RUNTIME_DIR"):
        private_directory(str(tmp_path), uid=os.geteuid())


def test_private_directory_behind_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(BadSetting, match="not a directory"):
        private_directory(str(tmp_path / "link"), uid=os.geteuid())
