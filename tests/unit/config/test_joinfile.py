"""Join files: what was written is read, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvedge.config.joinfile import (
    Invitation,
    invitation_text,
    read_invitation,
    read_invitation_file,
)
from kvedge.errors import BadSetting

FULL = Invitation("house", b"0123abcd", "mqtt://joe:secret@box:1883", "home/kv")


def changed(**fields: Any) -> bytes:
    table = json.loads(invitation_text(FULL))
    return json.dumps({**table, **fields}).encode()


@pytest.mark.parametrize("invitation", [FULL, Invitation("house", b"\x00\xff key")])
def test_what_was_written_is_read(invitation: Invitation) -> None:
    assert read_invitation(invitation_text(invitation).encode(), "f") == invitation


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (invitation_text(FULL).encode()[:-9], "was cut"),
        (b"", "was cut"),
        (b"[" * 5000, "was cut"),
        (b"\xff\xfe\xfd", "was cut"),
        (b"[1]", "`kv net join-file` makes one"),
        (b"{}", "`kv net join-file` makes one"),
        (b"x" * 20000, "more than 16384 bytes"),
        (changed(**{"kvedge join": 2}), "its format is 2; this version reads 1"),
        (changed(**{"kvedge join": True}), "its format is True"),
        (changed(name="a b"), "its name must be 1 to 63 letters"),
        (changed(name=None), "its name must be text"),
        (changed(mqtt="http://joe:secret@box"), "its mqtt must look like mqtt://HOST:PORT"),
        (changed(root="a//b"), "its root must be words"),
        (changed(key="!"), "its key is missing or damaged"),
        (changed(key=""), "its key is missing or damaged"),
        (changed(key=None), "its key is missing or damaged"),
        (changed(key="MDEyM2FiY2U="), "the fingerprint is another one"),
    ],
)
def test_anything_else_is_refused_by_name(data: bytes, why: str) -> None:
    with pytest.raises(BadSetting) as caught:
        read_invitation(data, "a.join")
    assert caught.value.name == "a.join"
    assert why in caught.value.why
    assert "secret" not in str(caught.value)
    assert "0123" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="cannot be read: No such file"):
        read_invitation_file(str(tmp_path / "absent"))


def test_secrets_are_not_shown() -> None:
    assert "secret" not in repr(FULL)
    assert "0123" not in repr(FULL)
