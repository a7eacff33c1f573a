"""`kv member`: who is listed, who may be expired and forgotten, and what is asked before."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from kvedge.client.result import Result
from kvedge.client.sync import SyncClient
from kvedge.model.places import MEMBERS
from kvedge.testing.transcripts import Outcome

Kv = Callable[..., Outcome]


def store(client: SyncClient, node: str, state: str = "member") -> None:
    client.set(MEMBERS / node, {"state": state, "by": "two", "reason": "why not"})


@pytest.fixture
def three(client: SyncClient, monkeypatch: pytest.MonkeyPatch) -> SyncClient:
    """A server among others: `there` is seen, `away` is not, `old` is expired, `new` no member."""
    for node in ("test1", "there", "away"):
        store(client, node)
    store(client, "old", "expired")
    rows = [("test1", True, 0.0, 0), ("there", True, 1.3, 2), ("new", True, 0.5, None)]
    rows += [("away", False, 400.0, 17)]
    names = ("node", "is_seen", "seen_s", "lag")
    servers = [dict(zip(names, row, strict=True)) for row in rows]
    status = Result({"name": "net", "node": "test1", "servers": servers})
    monkeypatch.setattr(SyncClient, "net_status", lambda _: status)
    return client


def state_of(client: SyncClient, node: str) -> Any:
    return client.get(MEMBERS / node).get("value")


@pytest.mark.usefixtures("three")
def test_table(kv_here: Kv) -> None:
    lines = kv_here("member", "list").output.splitlines()
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]
    assert cells == [
        ["NODE", "STATE", "HEARD", "LAG", "BY", "REASON"],
        ["away", "member", "gone, 6 min ago", "17", "two", "why not"],
        ["new", "(no member)", "0.5 s ago", "-", "-"],
        ["old", "expired", "-", "-", "two", "why not"],
        ["test1", "member", "(this one)", "0", "two", "why not"],
        ["there", "member", "1.3 s ago", "2", "two", "why not"],
    ]


@pytest.mark.usefixtures("three")
def test_json(kv_here: Kv) -> None:
    found = {item["node"]: item for item in json.loads(kv_here("member", "list", "--json").output)}
    assert found["away"] == {
        "node": "away", "state": "member", "by": "two", "reason": "why not",
        "is_seen": False, "seen_s": 400.0, "lag": 17,
    }  # fmt: skip
    assert (found["new"]["state"], found["old"]["lag"]) == (None, None)


def test_without_a_network(kv_here: Kv, client: SyncClient) -> None:
    done = kv_here("member", "list")
    assert done.errors.startswith("kv: there are no members")
    store(client, "away")
    assert [item["lag"] for item in json.loads(kv_here("member", "list", "--json").output)] == [
        None
    ]
    assert kv_here("member", "expire", "away", "--yes").code == 0


def test_what_is_no_member_is_passed_over(kv_here: Kv, client: SyncClient) -> None:
    client.set(MEMBERS / "text", "member")
    client.set(MEMBERS / 5, {"state": "member"})
    client.set(MEMBERS + ("a", "b"), {"state": "member"})
    assert kv_here("member", "list", "--json").output == "[]\n"


def test_expire_then_forget(kv_here: Kv, three: SyncClient) -> None:
    done = kv_here("member", "away", "expire", "--yes", "--reason", "its card is dead")
    assert done.code == 0
    assert "will have to take a full copy" in done.errors
    assert state_of(three, "away") == {
        "state": "expired", "by": "test1", "reason": "its card is dead"
    }  # fmt: skip
    again = kv_here("member", "expire", "away", "-y")
    assert again.errors == "kv: away: it is expired already, by test1: its card is dead\n"
    done = kv_here("member", "forget", "away", "-y", "--json")
    assert json.loads(done.output) == {"forgotten": "away"}
    assert "deleted entries may come back" in done.errors
    assert state_of(three, "away") is None


@pytest.mark.parametrize(
    ("words", "code", "errors"),
    [
        ("expire there -y", 1, "there: it is there, heard 1.3 s ago; end its server first"),
        ("expire test1 -y", 1, "test1: it is the server that you ask"),
        ("expire nobody -y", 1, "nobody: there is no such member: away, old, test1, there"),
        ("forget nobody -y", 1, "nobody: there is no such member"),
        ("forget away -y", 1, "away: it is no expired member but in state 'member'; first"),
        ("forget there -y", 1, "there: it is no expired member"),
    ],
)
def test_refused(kv_here: Kv, three: SyncClient, words: str, code: int, errors: str) -> None:
    before = [(item.path, item.value) for item in three.get_tree(MEMBERS)]
    done = kv_here("member", *words.split())
    assert done.code == code
    assert done.errors.startswith(f"kv: {errors}")
    assert [(item.path, item.value) for item in three.get_tree(MEMBERS)] == before


@pytest.mark.parametrize(("verb", "node"), [("expire", "away"), ("forget", "old")])
def test_a_script_must_say_yes(kv_here: Kv, three: SyncClient, verb: str, node: str) -> None:
    before = state_of(three, node)
    done = kv_here("member", verb, node)
    assert done.code == 2
    assert f"kv: --yes: it is needed to {verb} {node}" in done.errors
    assert state_of(three, node) == before


@pytest.mark.parametrize(
    ("typed", "code", "state"), [("y\n", 0, "expired"), ("n\n", 130, "member")]
)
def test_a_person_is_asked(
    kv_here: Kv,
    three: SyncClient,
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    code: int,
    state: str,
) -> None:
    terminal = SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("kvedge.cli.member.sys", terminal)
    done = kv_here("member", "expire", "away", typed=typed)
    assert done.code == code, done.errors
    assert state_of(three, "away")["state"] == state


@pytest.mark.parametrize(("verb", "node"), [("expire", "away"), ("forget", "old")])
def test_one_that_has_just_changed_is_left_alone(
    kv_here: Kv, three: SyncClient, monkeypatch: pytest.MonkeyPatch, verb: str, node: str
) -> None:
    for name in ("set", "delete"):
        plain = getattr(SyncClient, name)

        def late(self: SyncClient, *words: Any, plain: Any = plain, **options: Any) -> Any:
            monkeypatch.undo()
            store(three, node, "new")
            return plain(self, *words, **options)

        monkeypatch.setattr(SyncClient, name, late)
    done = kv_here("member", verb, node, "-y")
    assert done.code == 1
    assert "one that has just changed" in done.errors
    assert state_of(three, node)["state"] == "new"
