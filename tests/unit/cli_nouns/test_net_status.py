"""`kv net status` and `kv monitor`: what is printed of what a server tells."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kvedge.cli.monitor import fields_of, line_of
from kvedge.cli.net_status import heard_text, text_of
from kvedge.client.result import Result
from kvedge.client.sync import SyncClient
from kvedge.model.path import P
from kvedge.model.places import CONFLICTS
from kvedge.testing.transcripts import Outcome

Kv = Callable[..., Outcome]


def status(**changed: Any) -> dict[str, Any]:
    """Return the status of a server that is well, and seen by one other."""
    servers = [
        {"node": "one", "version": "0.1.0", "seen_s": 0.0, "is_seen": True, "lag": 0,
         "state": "member"},
        {"node": "two", "version": None, "seen_s": 1.25, "is_seen": True, "lag": None,
         "state": None},
    ]  # fmt: skip
    return {
        "name": "house", "node": "one", "connected": True, "reason": None, "standing": "good",
        "key": True, "servers": servers, "missing": {}, "conflicts": 0, "refused": {}, **changed,
    }  # fmt: skip


def test_all_is_well() -> None:
    assert text_of(status()) == (
        "network:   house\n"
        "node:      one\n"
        "broker:    connected\n"
        "standing:  good\n"
        "missing:   nothing\n"
        "\n"
        "NODE  VERSION  HEARD       LAG  MEMBER\n"
        "one   0.1.0    (this one)  0    member\n"
        "two   -        1.2 s ago   -    -\n"
    )


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"connected": False, "reason": "Connection refused"},
         "broker:    not connected: Connection refused"),
        ({"connected": False}, "broker:    not connected"),
        ({"standing": "expired"},
         "standing:  expired: away for too long; it takes a full copy from another server"),
        ({"standing": "of a later version"}, "standing:  of a later version"),
        ({"key": False},
         "key:       none: whoever reaches the broker may write; see net.key_file"),
        ({"missing": {"two": ((4, 4),), "six": ((1, 3), (7, 7))}},
         "missing:   1 change of two, 4 changes of six; see `kv internal state --missing`"),
        ({"conflicts": 3}, "conflicts: 3; see `kv conflict list`"),
        ({"refused": {"from another network": 1, "truncated": 2}},
         "refused:   1 message from another network, 2 messages truncated; see `kv monitor`"),
    ],
)  # fmt: skip
def test_what_is_wrong_has_a_line(changed: dict[str, Any], line: str) -> None:
    assert line in text_of(status(**changed)).splitlines()
    assert line not in text_of(status()).splitlines()


@pytest.mark.parametrize(
    ("server", "text"),
    [
        ({"seen_s": 3.0, "is_seen": True}, "3.0 s ago"),
        ({"seen_s": 7200.0, "is_seen": False}, "gone, 2 h ago"),
        ({"seen_s": None, "is_seen": False}, "not yet"),
    ],
)
def test_heard(server: dict[str, Any], text: str) -> None:
    assert heard_text(server) == text


def test_a_board_alone(kv_here: Kv, client: SyncClient) -> None:
    done = kv_here("net", "status")
    assert (done.code, done.errors) == (0, "")
    assert done.output.startswith("test1 works alone: its server has no broker.\n")
    assert "server.mqtt.uri" in done.output
    client.set(CONFLICTS + ("test1", 1), 1)
    assert "conflicts: 1; see `kv conflict list`\n" in kv_here("net", "status").output
    found = json.loads(kv_here("net", "status", "--json").output)
    assert (found["name"], found["conflicts"]) == (None, 1)
    (server,) = found["servers"]
    assert {"node", "version", "lag", "seen_s"} <= set(server)


def test_json_is_what_the_server_tells(kv_here: Kv, monkeypatch: pytest.MonkeyPatch) -> None:
    told = status(missing={"two": ((4, 4),)})
    monkeypatch.setattr(SyncClient, "net_status", lambda _: Result({"seq": 1, **told}))
    found = json.loads(kv_here("net", "status", "--json").output)
    assert found == told | {"missing": {"two": [[4, 4]]}}
    assert kv_here("net", "status").output == text_of(told)


# --- monitor ---------------------------------------------------------------------------------


def message(**fields: Any) -> dict[str, Any]:
    head = {"time": 1_700_000_000.25, "direction": "in", "topic": "u/two", "sender": "two"}
    return {**head, "kind": "update", "size": 93, **fields}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"records": 1, "paths": ("a.b",), "ticks": {"two": ((5, 5),)}},
         "< two u/two update 93: 1 record of two 5: a.b"),
        ({"records": 4, "paths": ("a", "b", "c"),
          "ticks": {"two": ((5, 6), (8, 8)), "x": ((1, 1),)}},
         "< two u/two update 93: 4 records of two 5-6 8; x 1: a b c ..."),
        ({"kind": "beat", "direction": "out", "topic": "p/one", "connection": 3},
         "> two p/one beat 93: connection 3"),
        ({"kind": "give", "pull": 2, "is_last": True, "records": 0, "paths": (), "ticks": {}},
         "< two u/two give 93: 0 records, pull 2, is_last yes"),
        ({"kind": "ask", "pull": 2, "has_up_to": {"a": 7, "b": 9}},
         "< two u/two ask 93: pull 2, has_up_to a 7 b 9"),
        ({"kind": None, "sender": None, "refused": "truncated", "detail": "5 bytes"},
         "< ? u/two - 93: refused: truncated (5 bytes)"),
        ({"kind": "song"}, "< two u/two song 93"),
        ({"topic": "a\x1b[31m\nb"}, "< two a\\u001b[31m\\nb update 93"),
    ],
)  # fmt: skip
def test_a_line(fields: dict[str, Any], said: str) -> None:
    time, _, line = line_of(message(**fields)).partition(" ")
    assert time.endswith(":20.250")
    assert line == said


def test_dropped_messages_are_counted() -> None:
    assert line_of(fields_of(Result({"seq": 1, "dropped": 12}))) == (
        "... 12 more, too many to show"
    )


def test_monitor_of_a_board_alone(kv_here: Kv, client: SyncClient) -> None:
    client.set(P("a"), 1)
    done = kv_here("monitor")
    assert (done.code, done.output) == (1, "")
    assert done.errors == (
        "kv: kv monitor: this server works alone, so no messages pass; see `kv net status`\n"
    )


def test_monitor_counts(kv_here: Kv, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [Result({"seq": 1, **message(kind=f"k{number}")}) for number in range(5)]
    monkeypatch.setattr(SyncClient, "net_status", lambda _: Result({"name": "net"}))
    monkeypatch.setattr(SyncClient, "traffic", lambda _: iter(items))
    lines = kv_here("monitor", "--json", "-o", "2").output.splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["k0", "k1"]
    assert kv_here("monitor").output.count("\n") == 5
    assert kv_here("monitor", "-o", "0").code == 2
