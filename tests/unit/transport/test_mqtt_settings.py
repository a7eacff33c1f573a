"""How a broker's URI becomes settings, and that the password is never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvedge.errors import BadSetting
from kvedge.transport.mqtt_settings import MqttSettings


@pytest.mark.parametrize(
    ("uri", "host", "port", "user", "password", "tls", "endpoint"),
    [
        ("mqtt://h", "h", 1883, None, None, False, "h:1883"),
        ("mqtt://h/", "h", 1883, None, None, False, "h:1883"),
        ("mqtt://h:1", "h", 1, None, None, False, "h:1"),
        ("mqtts://h", "h", 8883, None, None, True, "h:8883"),
        ("mqtt://joe@h", "h", 1883, "joe", None, False, "h:1883"),
        ("mqtt://joe:x@h:1", "h", 1, "joe", "x", False, "h:1"),
        ("mqtt://j%40e:%2Fx%3A@h", "h", 1883, "j@e", "/x:", False, "h:1883"),
        ("mqtt://[::1]:1", "::1", 1, None, None, False, "[::1]:1"),
    ],
)
def test_uri_is_taken_apart(
    uri: str,
    host: str,
    port: int,
    user: str | None,
    password: str | None,
    tls: bool,
    endpoint: str,
) -> None:
    settings = MqttSettings.from_uri(uri)
    assert (settings.host, settings.port, settings.tls) == (host, port, tls)
    assert (settings.user, settings.password) == (user, password)
    assert settings.endpoint == endpoint


def test_nodes_of_a_cluster_are_separated_by_commas(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("x")
    uri = "mqtts://joe@a,mqtts://joe@b:1, mqtts://c"
    settings = MqttSettings.from_uri(uri, password_file=str(file), ca_file="ca.pem", qos=0)
    assert [each.endpoint for each in settings.all] == ["a:8883", "b:1", "c:8883"]
    assert [each.user for each in settings.all] == ["joe", "joe", None]
    assert {each.password for each in settings.all} == {"x"}
    assert {(each.ca_file, each.qos) for each in settings.all} == {("ca.pem", 0)}
    assert MqttSettings.from_uri("mqtt://h").others == ()


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "mqtt://joe:secret@h,",
        "mqtt://joe:secret@h,secret",
        "h:1",
        "tcp://joe:secret@h",
        "mqtt://",
        "mqtt://joe:secret@",
        "mqtt://joe:secret@h:x",
        "mqtt://joe:secret@h:70000",
        "mqtt://joe:secret@a..b",
        "mqtt://joe:secret@h/path",
        "mqtt://joe:secret@h?a=b",
        "mqtt://joe:secret@h#a",
        "mqtt://joe:secret@[h",
    ],
)
def test_what_is_no_uri_is_refused_without_showing_it(uri: str) -> None:
    with pytest.raises(BadSetting, match="must look like mqtt://") as caught:
        MqttSettings.from_uri(uri)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("text", ["pass word", "pass word\n", "pass word\r\nmore\n"])
def test_password_is_the_first_line_of_its_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(text.encode())
    settings = MqttSettings.from_uri("mqtt://joe:other@h", password_file=str(file))
    assert settings.password == "pass word"  # noqa: S105 - it is one of a test
    assert "pass word" not in repr(settings)


def test_unreadable_password_is_told_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="absent: the password cannot be read: No such file"):
        MqttSettings.from_uri("mqtt://h", password_file=str(tmp_path / "absent"))
    file = tmp_path / "binary"
    file.write_bytes(b"se\xffcret")
    with pytest.raises(BadSetting, match="binary: the password is not UTF-8"):
        MqttSettings.from_uri("mqtt://h", password_file=str(file))


def test_certificates_without_tls_are_refused() -> None:
    with pytest.raises(BadSetting, match="certificates need mqtts"):
        MqttSettings.from_uri("mqtt://h", ca_file="ca.pem")
    assert MqttSettings.from_uri("mqtts://h", ca_file="ca.pem").ca_file == "ca.pem"
