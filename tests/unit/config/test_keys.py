"""The table of settings agrees with the settings, the commented file and the reference page."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from kvedge.config import __all__ as public
from kvedge.config import settings as settings_module
from kvedge.config.connect import ENVIRONMENT, ConnectSettings
from kvedge.config.keys import KEYS, SECTIONS, Key
from kvedge.config.settings import load

each_key = pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)


def _one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(scope="module")
def page(project_root: Path) -> str:
    """The reference page."""
    return (project_root / "docs/reference/configuration.md").read_text("utf-8")


@pytest.fixture(scope="module")
def commented(project_root: Path) -> str:
    """The commented file that is installed."""
    return (project_root / "deploy/etc/kvedge.toml").read_text("utf-8")


def test_each_setting_has_a_field_and_each_field_a_setting() -> None:
    kinds = {
        "node": settings_module.NodeSettings,
        "net": settings_module.NetSettings,
        "server": settings_module.ServerSettings,
        "runner": settings_module.RunnerSettings,
        "log": settings_module.LogSettings,
    }
    named = {
        f"{section}.{field.name.replace('mqtt_', 'mqtt.')}"
        for section, kind in kinds.items()
        for field in fields(kind)
    }
    named |= {f"connect.{name}" for name in ConnectSettings.__slots__}
    assert named == set(KEYS)


def test_variables_stand_for_settings() -> None:
    assert set(ENVIRONMENT.values()) <= set(KEYS)


@each_key
def test_the_example_is_legal(key: Key) -> None:
    key.kind.check(tomllib.loads(f"x = {key.example}")["x"])


@each_key
def test_the_page_has_a_heading_with_all_that_the_table_says(key: Key, page: str) -> None:
    found = re.search(rf"^### `{re.escape(key.name)}`\n(.*?)(?=^##|\Z)", page, re.M | re.S)
    assert found, f"docs/reference/configuration.md lacks {key.name}"
    text = _one_line(found[1])
    for part in (key.meaning, key.kind.words, key.default, key.effect, key.example):
        assert part in text


def test_the_page_has_no_other_settings(page: str) -> None:
    assert set(re.findall(r"^### `(.*)`", page, re.M)) == set(KEYS)


def test_the_page_names_every_variable(page: str) -> None:
    for variable in (*ENVIRONMENT, "KV_CONFIG"):
        assert f"`{variable}`" in page


@each_key
def test_the_commented_file_says_all_that_the_table_says(key: Key, commented: str) -> None:
    text = _one_line(commented.replace("\n# ", " "))
    for part in (key.meaning, key.effect, f"Default: {key.default}."):
        assert part in text


def test_the_commented_file_sets_nothing_and_all_of_it_can_be_enabled(
    commented: str, tmp_path: Path
) -> None:
    assert not any(tomllib.loads(commented).values())
    file = tmp_path / "kvedge.toml"
    file.write_text(re.sub(r"^#(?=[a-z\[])", "", commented, flags=re.M))
    table = tomllib.loads(file.read_text())
    assert set(table) == SECTIONS
    settings = load(config_file=str(file), environ={})
    assert settings.node.name == "greenhouse"
    assert set(settings.origins) == {n for n in KEYS if not n.startswith("runner.")} | {"runner"}
    named = {field.name for field in fields(settings_module.RunnerSettings)}
    assert set(table["runner"][0]) == named


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("connect.auth", "password name=joe password=x", "password ***"),
        ("connect.auth", "root", "root"),
        ("server.mqtt.uri", "mqtt://joe:x@h:1", "mqtt://***@h:1"),
        ("server.mqtt.uri", "mqtt://h:1", "mqtt://h:1"),
        ("server.mqtt.uri", "mqtt://j:x@a,mqtt://j:y@b", "mqtt://***@a,mqtt://***@b"),
        ("node.name", "a", "a"),
    ],
)
def test_passwords_are_not_shown(name: str, value: str, shown: str) -> None:
    assert KEYS[name].shown(value) == shown


def test_public_names_load() -> None:
    import kvedge.config as package

    assert all(getattr(package, name) for name in public)
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        _ = package.nothing_of_this_name
