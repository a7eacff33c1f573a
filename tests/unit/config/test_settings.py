"""Files, environment and flags become settings, and what is wrong with them is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvedge.config.files import line_numbers
from kvedge.config.places import Places
from kvedge.config.settings import RunnerSettings, Settings, build, gather, load
from kvedge.errors import BadSetting

PLACES = Places("/data", "/run/kv.sock")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration file to be written."""
    return tmp_path / "kvedge.toml"


def _problem(file: Path, text: str) -> str:
    file.write_text(text)
    with pytest.raises(BadSetting) as caught:
        load(config_file=str(file), environ={})
    return str(caught.value)


def _defaults(*, loopback: bool = False) -> Settings:
    gathered = gather(environ={}, system="/nowhere")
    return build(gathered, places=PLACES, loopback=loopback)


def test_defaults() -> None:
    settings = _defaults()
    assert settings.node.name is None
    assert settings.net.name == "kvedge"
    assert settings.net.key_file is None
    assert settings.server.dir == "/data"
    assert settings.server.mqtt_uri is None
    assert settings.log.level == "info"
    assert settings.runners == (RunnerSettings("single", "default", None),)
    assert settings.origins == {}


def test_the_agent_listens_on_its_socket_the_server_on_loopback_too() -> None:
    assert _defaults().server.listen == ("unix:/run/kv.sock",)
    assert _defaults(loopback=True).server.listen == ("unix:/run/kv.sock", "127.0.0.1:27586")


def test_what_is_told_to_listen_on_replaces_the_default(file: Path) -> None:
    file.write_text('[server]\nlisten = "unix:/x"')
    settings = load(config_file=str(file), environ={}, loopback=True)
    assert settings.server.listen == ("unix:/x",)


def test_every_setting_of_a_file_arrives(file: Path) -> None:
    file.write_text(
        """
        [node]
        name = "alpha"
        [net]
        name = "house"
        key_file = "/k"
        [server]
        dir = "/d"
        listen = ["unix:/s", "[::1]:1"]
        mqtt.uri = "mqtt://broker"
        root = "a/b"
        [connect]
        host = "h"
        port = 1
        auth = "root"
        [[runner]]
        placement = "any"
        group = "g"
        [[runner]]
        node = "beta"
        [log]
        level = "debug"
        """
    )
    settings = load(config_file=str(file), environ={})
    assert settings.node.name == "alpha"
    assert (settings.net.name, settings.net.key_file) == ("house", "/k")
    assert (settings.server.dir, settings.server.root) == ("/d", "a/b")
    assert settings.server.listen == ("unix:/s", "[::1]:1")
    assert settings.server.mqtt_uri == "mqtt://broker"
    assert (settings.connect.host, settings.connect.port) == ("h", 1)
    assert settings.connect.auth == "root"
    assert settings.runners == (
        RunnerSettings("any", "g", None),
        RunnerSettings("single", "default", "beta"),
    )
    assert settings.log.level == "debug"
    assert settings.files == (str(file),)


def test_an_empty_list_means_no_runner(file: Path) -> None:
    file.write_text("runner = []")
    assert load(config_file=str(file), environ={}).runners == ()


def test_strong_sources_go_before_weak_ones_and_origins_are_kept(tmp_path: Path) -> None:
    (tmp_path / "kvedge.toml.d").mkdir()
    (tmp_path / "kvedge.toml").write_text('[log]\nlevel = "error"\n[net]\nname = "a"')
    (tmp_path / "kvedge.toml.d/1.toml").write_text('net.name = "b"')
    settings = load(
        overrides=["server.dir='/o'", "server.root=o"],
        environ={"KV_HOST": "h"},
        flags={"server.dir": "/f"},
        system=str(tmp_path),
    )
    assert (settings.log.level, settings.net.name, settings.server.dir) == ("error", "b", "/f")
    assert settings.origins == {
        "log.level": f"{tmp_path}/kvedge.toml:2",
        "net.name": f"{tmp_path}/kvedge.toml.d/1.toml:1",
        "connect.host": "KV_HOST",
        "server.dir": "command line",
        "server.root": "-C",
    }


def test_a_host_displaces_a_weaker_socket_and_the_other_way_round(file: Path) -> None:
    file.write_text('[connect]\nsocket = "/s"')
    from_flag = load(config_file=str(file), environ={}, flags={"connect.host": "h"}).connect
    assert (from_flag.host, from_flag.socket) == ("h", None)
    file.write_text('[connect]\nhost = "h"')
    from_variable = load(config_file=str(file), environ={"KV_SOCKET": "/s"}).connect
    assert (from_variable.host, from_variable.socket) == (None, "/s")


def test_host_and_socket_of_one_source_stand_together(file: Path) -> None:
    file.write_text('[connect]\nsocket = "/s"\nhost = "h"')
    found = load(config_file=str(file), environ={}).connect
    assert (found.host, found.socket) == ("h", "/s")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('[server]\ndri = "/x"', 2, "server.dri is not a setting; did you mean server.dir?"),
        ('[sever]\ndir = "/x"', 1, "sever is not a setting; did you mean server?"),
        ("[sever]", 1, "did you mean server?"),
        ('[server]\nmqtt.root = "x"', 2, "did you mean server.root?"),
        ("\n\nzzz = 1", 3, "`kv config show` lists all settings"),
        ("server = 3", 1, "server is a section, not a value"),
        ('[runner]\ngroup = "g"', 2, "runner is a list of tables; write [[runner]]"),
        ('dir = "/x"', 1, "did you mean server.dir?"),
        ('runner.group = "g"', 1, "write [[runner]]"),
        ('[[runner]]\ngrop = "g"', 1, "did you mean runner.group?"),
        ('[[runner]]\nplacement = "many"', 1, "one of single, any, all, not 'many'"),
        ("runner = [1]", 1, "list of tables"),
        ("[log]\nlevel = 3", 2, "must be one of error, warning, info, debug, not 3"),
        ("[node]\nname = 12", 2, "node.name must be text"),
        ('[node]\nname = "a b"', 2, "letters, digits"),
        ('[net]\nname = ""', 2, "not empty"),
        ('[server]\ndir = "x"', 2, "must be a path that begins with /, not 'x'"),
        ('[server]\ndir = "/a\\u0000b"', 2, "must be text"),
        ("[server]\nlisten = []", 2, "must be a list of addresses, and not empty"),
        ('[server]\nlisten = ["host"]', 2, "'unix:PATH' or 'HOST:PORT'"),
        ("[server]\nlisten = [5]", 2, "must be text"),
        ('[server]\nmqtt.uri = "broker"', 2, "must look like mqtt://HOST:PORT"),
        ('[server]\nmqtt.uri = "mqtt://a,b"', 2, "must look like mqtt://HOST:PORT"),
        ("[server]\nmqtt.qos = 2", 2, "must be 0 or 1, not 2"),
        ("[server]\nmqtt.qos = true", 2, "must be 0 or 1"),
        ('[server]\nroot = "a//b"', 2, "with '/' between them"),
        ("[connect]\nport = 70000", 2, "must be a number from 1 to 65535, not 70000"),
        ("[connect]\nport = true", 2, "from 1 to 65535"),
        ("[connect]\n\nhost = ", 3, "is not TOML: "),
        ('[log]\nlevel = "info"\nlevel = "info"', 3, "is not TOML: Cannot overwrite a value"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(file: Path, text: str, line: int, words: str) -> None:
    found = _problem(file, text)
    assert words in found
    assert found.startswith((f"{file}:{line}: ", f"{file}: "))
    # tomllib notices some mistakes a character later, at the next line or at the end
    assert f"{file}:{line}: " in found or "is not TOML" in found


def test_a_name_in_quotes_is_told_without_a_line(file: Path) -> None:
    assert _problem(file, '"sever" = 1').startswith(f"{file}: sever")


def test_passwords_are_not_in_messages(file: Path) -> None:
    assert "secret" not in _problem(file, '[server]\nmqtt.uri = "x://joe:secret@h"')


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="cannot be read: Is a directory"):
        load(config_file=str(tmp_path), environ={})


def test_a_file_that_is_not_text_is_named(file: Path) -> None:
    file.write_bytes(b"ab\xff")
    with pytest.raises(BadSetting, match="is not UTF-8 at byte 2"):
        load(config_file=str(file), environ={})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("log.level", "must look like section.key=LITERAL"),
        ("log.levle=info", "did you mean log.level"),
        ("log.level=loud", "must be one of error, warning, info, debug, not 'loud'"),
        ("connect.port=many", "from 1 to 65535, not 'many'"),
        ("node.name=12", "node.name must be text"),
        ("server.listen=__import__('os')", "'unix:PATH' or 'HOST:PORT'"),
    ],
)
def test_bad_overrides_are_refused(text: str, words: str) -> None:
    with pytest.raises(BadSetting) as caught:
        load(overrides=[text], environ={}, system="/nowhere")
    assert words in str(caught.value)


def test_overrides_are_literals_and_bare_texts() -> None:
    settings = load(
        overrides=[
            "connect.auth=_test name=joe",
            "connect.port=12",
            "server.listen=['unix:/a', 'h:1']",
            "log.level='error'",
            "runner=[{'group': 'g'}]",
        ],
        environ={"HOME": "/nowhere"},
        system="/nowhere",
    )
    assert settings.connect.auth == "_test name=joe"
    assert settings.connect.port == 12
    assert settings.server.listen == ("unix:/a", "h:1")
    assert settings.log.level == "error"
    assert settings.runners[0].group == "g"


def test_gather_tells_every_problem(tmp_path: Path) -> None:
    (tmp_path / "kvedge.toml.d").mkdir()
    (tmp_path / "kvedge.toml").write_text("=")
    (tmp_path / "kvedge.toml.d/1.toml").write_text('x = 1\ny = 2\nnet.name = "n"')
    environ = {"KV_PORT": "x", "HOME": "/nowhere"}
    gathered = gather(overrides=["q"], environ=environ, system=str(tmp_path))
    assert len(gathered.problems) == 5
    assert gathered.values == {"net.name": "n"}


def test_line_numbers_follow_tables() -> None:
    text = '# c\na = 1\n[t]\nb . c = 2\n[[l]]\nd = 3\n[ t.u ]\n  e=4\ns = """\nx\n"""'
    assert line_numbers(text) == {
        "a": 2,
        "t": 3,
        "t.b.c": 4,
        "l": 5,
        "l.d": 6,
        "t.u": 7,
        "t.u.e": 8,
        "t.u.s": 9,
    }
