"""`kv error`: which errors are shown, resolved and deleted, and what is printed of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kvedge.client.sync import SyncClient
from kvedge.model.path import KV, P
from kvedge.testing.transcripts import Outcome

Kv = Callable[..., Outcome]
WORRY = ":.kv.run.single.one.default.what.me.worry"


def fault(client: SyncClient, node: str, tock: int, path: str, *seen_by: str, **more: Any) -> None:
    """Store a fault, with details of some nodes."""
    value = {"path": P(path), "subsystem": "job", "severity": "error", "resolved": False}
    value |= {"count": 2, "first_seen": 1, "last_seen": 2, "message": f"at {path}", **more}
    client.set(KV + ("error", node, tock), value)
    for other in seen_by:
        detail = {"seen": 2, "tock": tock, "str": "Owch", "trace": f"line of {other}\n"}
        client.set(KV + ("error", node, tock, other), detail)


@pytest.fixture
def _three(client: SyncClient) -> None:
    fault(client, "one", 17, WORRY, "one", "two")
    fault(client, "one", 18, "x.y", "one", resolved=True)
    fault(client, "two", 9, "x.z", "two")


def shown(done: Outcome) -> list[tuple[str, str]]:
    assert done.code == 0, done.errors
    return [(item["node"], item["tock"]) for item in json.loads(done.output)]


@pytest.mark.usefixtures("_three")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("", [("one", "17"), ("two", "9")]),
        ("--resolved", [("one", "18")]),
        ("--all", [("one", "17"), ("one", "18"), ("two", "9")]),
        ("--all x", [("one", "18"), ("two", "9")]),
        (":.kv.run.single", [("one", "17")]),
        (":.kv.run.any", []),
        ("-n two", [("one", "17"), ("two", "9")]),
        ("-n three", []),
    ],
)
def test_which_are_listed(kv_here: Kv, words: str, found: list[tuple[str, str]]) -> None:
    assert shown(kv_here("error", "list", "--json", *words.split())) == found


@pytest.mark.usefixtures("_three")
def test_table(kv_here: Kv) -> None:
    done = kv_here("error", "list", "--all", "x")
    header, resolved, still = done.output.splitlines()
    assert header.split() == ["NODE", "TOCK", "LAST", "SEEN", "COUNT", "PATH", "MESSAGE"]
    assert resolved.endswith("  2      y     (resolved) at x.y")
    assert still.split()[:2] == ["two", "9"]
    assert still.endswith("  2      z     at x.z")


@pytest.mark.usefixtures("_three")
def test_nested(kv_here: Kv) -> None:
    done = kv_here("error", "list", "-d_", ":.kv.run.single.one.default")
    assert done.output == (
        "one:\n  17:\n    _:\n      path: what.me.worry\n      subsystem: job\n"
        "      severity: error\n      resolved: false\n      count: 2\n      first_seen: 1\n"
        f"      last_seen: 2\n      message: at {WORRY}\n"
    )


@pytest.mark.usefixtures("_three")
def test_details(kv_here: Kv) -> None:
    done = kv_here("error", "list", "-a", ":.kv")
    assert "    two:\n      _:\n        seen: 2\n" in done.output
    assert "        trace: |\n          line of one\n" in done.output
    done = kv_here("error", "list", "-a", "-n", "two", ":.kv", "--json")
    (found,) = json.loads(done.output)
    assert found["details"] == {
        "two": {"seen": 2, "tock": "17", "str": "Owch", "trace": "line of two\n"}
    }


def test_no_errors(kv_here: Kv) -> None:
    assert kv_here("error", "list") == Outcome(errors="kv: there are no such errors\n")
    assert kv_here("error", "list", "--json") == Outcome("[]\n")
    assert kv_here("error", "list", "-d_").output == "{}\n"


@pytest.mark.usefixtures("_three")
def test_resolve_by_path(kv_here: Kv, client: SyncClient) -> None:
    done = kv_here("error", "resolve", "x")
    assert done == Outcome(errors="kv: error two 9 about x.z resolved\n")
    value = client.get(KV + ("error", "two", 9)).value
    assert value["resolved"] is True
    assert value["message"] == "at x.z"
    assert shown(kv_here("error", "list", "--json")) == [("one", "17")]
    again = kv_here("error", "x", "resolve")
    assert (again.code, again.errors) == (1, "kv: x: these errors are resolved already\n")


@pytest.mark.usefixtures("_three")
def test_resolve_by_name(kv_here: Kv) -> None:
    assert json.loads(kv_here("error", "resolve", "one", "17", "--json").output) == {"resolved": 1}
    assert shown(kv_here("error", "list", "--json")) == [("two", "9")]


@pytest.mark.usefixtures("_three")
def test_an_error_that_came_again_is_not_resolved(
    kv_here: Kv, client: SyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SyncClient.set

    def come_again(self: SyncClient, *words: Any, **options: Any) -> Any:
        monkeypatch.undo()
        fault(client, "two", 9, "x.z", count=3)
        return store(self, *words, **options)

    monkeypatch.setattr(SyncClient, "set", come_again)
    done = kv_here("error", "resolve", "x")
    assert done.code == 1
    assert done.errors.startswith("kv: :.kv.error.two.:9 has changed: ")
    assert client.get(KV + ("error", "two", 9)).value["resolved"] is False


@pytest.mark.usefixtures("_three")
def test_delete(kv_here: Kv, client: SyncClient) -> None:
    done = kv_here("error", "delete", "one", "17")
    assert done == Outcome(errors=f"kv: error one 17 about {WORRY} deleted\n")
    assert "value" not in client.get(KV + ("error", "one", 17, "two"))
    assert kv_here("error", "delete", ":").errors.count("deleted") == 2
    assert [*client.get_tree(KV / "error")] == []


@pytest.mark.usefixtures("_three")
@pytest.mark.parametrize("verb", ["resolve", "delete"])
@pytest.mark.parametrize(
    ("words", "code", "errors"),
    [
        ("one 99", 1, "one 99: there is no such error; `kv error list --all` shows what there is"),
        ("nothing", 1, "nothing: there is no such error; `kv error list --all` shows"),
        ("one x", 2, "x: TOCK is a number; `kv error list` shows it"),
        ("one 17 18", 2, "18: one word too many; give PATH, or NODE and TOCK"),
    ],
)
def test_wrong_names(kv_here: Kv, verb: str, words: str, code: int, errors: str) -> None:
    done = kv_here("error", verb, *words.split())
    assert done.code == code
    assert done.errors.startswith(f"kv: {errors}")


def test_what_is_no_fault_is_passed_over(kv_here: Kv, client: SyncClient) -> None:
    client.set(KV + ("error", "one"), 1)
    client.set(KV + ("error", "one", "x"), {"path": P("a")})
    client.set(KV + ("error", "one", 5), 7)
    client.set(KV + ("error", "one", 5, "one"), {"seen": 1})
    fault(client, "one", 6, "a", "one")
    assert shown(kv_here("error", "list", "-a", "--json")) == [("one", "6")]
