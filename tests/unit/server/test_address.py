"""Addresses of sockets, as settings and the command line write them."""

from __future__ import annotations

import pytest

from kvedge.errors import BadSetting
from kvedge.transport.address import is_loopback, is_unix, parse_address


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("unix:/run/kvedge/kv.sock", ("/run/kvedge/kv.sock", 0)),
        ("unix:kv.sock", ("kv.sock", 0)),
        ("unix:a:1", ("a:1", 0)),
        ("unix:/" + "x" * 106, ("/" + "x" * 106, 0)),
        ("localhost:27586", ("localhost", 27586)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:65535", ("::1", 65535)),
        ("::1:80", ("::1", 80)),
    ],
)
def test_addresses(text: str, parsed: tuple[str, int]) -> None:
    assert parse_address(text) == parsed
    assert is_unix(text) == text.startswith("unix:")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'unix:PATH' or 'HOST:PORT'"),
        ("unix:", "a path is missing"),
        ("unix:/" + "x" * 107, "at most 107 bytes"),
        ("unix:/" + "ü" * 60, "at most 107 bytes"),
        ("localhost", "'unix:PATH' or 'HOST:PORT'"),
        ("localhost:", "'unix:PATH' or 'HOST:PORT'"),
        (":80", "'unix:PATH' or 'HOST:PORT'"),
        ("[]:80", "'unix:PATH' or 'HOST:PORT'"),
        ("host:65536", "'unix:PATH' or 'HOST:PORT'"),
        ("host:-1", "'unix:PATH' or 'HOST:PORT'"),
        ("host:²", "'unix:PATH' or 'HOST:PORT'"),
        ("host:99999999999999999999", "'unix:PATH' or 'HOST:PORT'"),
    ],
)
def test_what_is_none(text: str, words: str) -> None:
    with pytest.raises(BadSetting) as caught:
        parse_address(text)
    assert words in str(caught.value)


def test_what_is_this_machine_and_nothing_else() -> None:
    hosts = ["localhost", "127.0.0.1", "127.9.9.9", "::1", "10.0.0.1", "::", "127", "example.org"]
    assert [host for host in hosts if is_loopback(host)] == hosts[:4]
