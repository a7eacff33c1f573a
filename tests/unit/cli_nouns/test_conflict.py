"""`kv conflict`: what is listed and shown, and what resolving writes, refuses and removes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kvedge.client.sync import SyncClient
from kvedge.model.path import P, Path
from kvedge.model.places import CONFLICTS
from kvedge.model.stamp import tock_at
from kvedge.testing.transcripts import Outcome

Kv = Callable[..., Outcome]
NOON = tock_at(1_700_000_000_000)
LAMP = P("house.lamp")
GONE = {"gone": True}
UNKNOWN = "there is no such conflict; `kv conflict list` shows what there is"


def change(value: Any, *, node: str = "two", tick: int = 5, tock: int = NOON) -> dict[str, Any]:
    """Return a change as it is stored; GONE stands for a deletion."""
    what = {} if value is GONE else {"value": value}
    return {"node": node, "tick": tick, "tock": tock, **what}


def winner(client: SyncClient, path: Path, value: Any, tock: int = NOON + 1) -> dict[str, Any]:
    """Let an entry hold a value, and return the change that made it so."""
    if value is GONE:
        client.delete(path)
        return change(GONE, node="test1", tick=3, tock=tock)
    chain = client.set(path, value, nchain=1).chain
    return change(value, node=chain["node"], tick=chain["tick"], tock=tock)


def record(client: SyncClient, name: str, lost: Any, won: Any, path: Path = LAMP) -> None:
    """Store a conflict under NODE.NUMBER."""
    node, number = name.split(".")
    value = {"path": path, "kind": "concurrent", "lost": lost, "won": won}
    client.set(CONFLICTS + (node, int(number)), value)


@pytest.fixture
def lamp(client: SyncClient) -> SyncClient:
    """A server where the lamp has 1, and 2 of the node two is lost as two.7."""
    record(client, "two.7", change({"on": 2}), winner(client, LAMP, {"on": 1}))
    return client


def names(done: Outcome) -> list[str]:
    assert done.code == 0, done.errors
    return [item["id"] for item in json.loads(done.output)]


def value_at(client: SyncClient, path: Path = LAMP) -> Any:
    return client.get(path).get("value", GONE)


# --- list, show ------------------------------------------------------------------------------


def test_the_newest_come_first(kv_here: Kv, client: SyncClient) -> None:
    for name, tock in (("a.1", 20), ("a.2", 30), ("b.1", 10), ("b.2", 30), ("b.10", 30)):
        won = change(1, tock=NOON + tock)
        record(client, name, change(2), won, P(f"x.{name[0]}"))
    assert names(kv_here("conflict", "list", "--json")) == ["a.2", "b.10", "b.2", "a.1", "b.1"]
    assert names(kv_here("conflict", "list", "--json", "x.b")) == ["b.10", "b.2", "b.1"]
    assert names(kv_here("conflict", "list", "--json", "y")) == []


def test_table(kv_here: Kv, client: SyncClient) -> None:
    record(client, "one.1", change(GONE), change("long " * 20, tock=NOON + 3))
    record(client, "one.2", change(1), change(None, tock=77), P("a"))
    record(client, "one.3", change(1) | {"cut": True}, change(True, tock=NOON + 1))
    lines = kv_here("conflict", "list").output.splitlines()
    assert lines[0].split() == ["ID", "PATH", "KIND", "LOST", "WON", "WHEN"]
    first, second, third = (line.split("  ") for line in lines[1:])
    assert [cell.strip() for cell in first if cell][:5] == [
        "one.1", "house.lamp", "concurrent", "(deleted)", '"long long long long ...'
    ]  # fmt: skip
    assert "(too large)" in second
    assert lines[1].endswith(":20")  # 22:13:20 UTC
    assert third[-1] == "-"  # the clock was not right


def test_show(kv_here: Kv, lamp: SyncClient) -> None:
    done = kv_here("conflict", "two.7", "show")
    assert done.output.startswith("id: two.7\npath: house.lamp\nkind: concurrent\nlost:\n")
    assert "  value:\n    'on': 2\n" in done.output
    found = json.loads(kv_here("conflict", "show", "--json", "two.7").output)
    assert found["lost"] == {
        "node": "two", "tick": 5, "tock": str(NOON), "when": 1.7e9, "value": {"on": 2}
    }  # fmt: skip
    assert found["won"]["node"] == "test1"


def test_no_conflicts(kv_here: Kv, client: SyncClient) -> None:
    assert kv_here("conflict", "list") == Outcome(errors="kv: there are no conflicts\n")
    assert kv_here("conflict", "list", "--json") == Outcome("[]\n")


def test_what_is_no_conflict_is_passed_over(kv_here: Kv, lamp: SyncClient) -> None:
    for place, value in (
        (("x", "y"), {"path": ("a",)}),
        (("x", 1), 5),
        (("x", 2), {"path": 5, "lost": change(1), "won": change(1)}),
        (("x", 3), {"path": ("a",), "lost": change(1), "won": {"node": "a"}}),
        (("x", 4, 5), {"path": ("a",), "lost": change(1), "won": change(1)}),
    ):
        lamp.set(CONFLICTS + place, value)
    assert names(kv_here("conflict", "list", "--json")) == ["two.7"]
    assert kv_here("conflict", "show", "x.1").errors == f"kv: x.1: {UNKNOWN}\n"


# --- resolve ---------------------------------------------------------------------------------


def resolved(kv_here: Kv, *words: str) -> None:
    done = kv_here("conflict", "resolve", *words)
    assert done.code == 0, done.errors
    assert "resolved" in done.errors
    assert names(kv_here("conflict", "list", "--json")) == []


@pytest.mark.parametrize("words", [[], ["--keep", "won"]])
def test_what_won_stays(kv_here: Kv, lamp: SyncClient, words: list[str]) -> None:
    before = lamp.get(LAMP, nchain=1)
    resolved(kv_here, "two.7", *words)
    after = lamp.get(LAMP, nchain=1)
    assert (after.value, after.chain) == (before.value, before.chain)


@pytest.mark.parametrize(
    ("lost", "won"), [(1, 2), (GONE, 2), (1, GONE), (None, False), (GONE, GONE)]
)
def test_what_lost_is_brought_back(kv_here: Kv, client: SyncClient, lost: Any, won: Any) -> None:
    record(client, "two.7", change(lost), winner(client, LAMP, won))
    resolved(kv_here, "two.7", "--keep", "lost")
    assert value_at(client) is lost or value_at(client) == lost


@pytest.mark.parametrize("words", [["--keep", "lost"], ["-e", ":", "9"], ["-e", "on", "9"]])
@pytest.mark.parametrize("meanwhile", [GONE, {"on": 3}, {"on": 1}])
def test_an_entry_that_has_changed_since_is_not_overwritten(
    kv_here: Kv, lamp: SyncClient, words: list[str], meanwhile: Any
) -> None:
    winner(lamp, LAMP, meanwhile)
    done = kv_here("conflict", "resolve", "two.7", *words)
    assert done.code == 1
    now = "no value" if meanwhile is GONE else json.dumps(meanwhile)
    assert f"found {now}" in done.errors
    assert "--force writes all the same" in done.errors
    assert value_at(lamp) == meanwhile
    assert names(kv_here("conflict", "list", "--json")) == ["two.7"]


def test_an_entry_that_came_back_since_is_not_overwritten(kv_here: Kv, client: SyncClient) -> None:
    record(client, "two.7", change(1), winner(client, LAMP, GONE))
    client.set(LAMP, 3)
    assert kv_here("conflict", "resolve", "two.7", "--keep", "lost").code == 1
    assert value_at(client) == 3


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--keep", "lost"], {"on": 2}),
        (["-e", ":", "9"], 9),
        (["-e", "on", "9"], {"on": 9, "x": 1}),
        (["-v", "on", "bright", "-p", "x", "1"], {"on": "bright", "x": 1}),
    ],
)
def test_by_force(kv_here: Kv, lamp: SyncClient, words: list[str], value: Any) -> None:
    lamp.set(LAMP, {"on": 3, "x": 1})
    resolved(kv_here, "two.7", "--force", *words)
    assert value_at(lamp) == value


def test_what_is_there_already_is_not_written(kv_here: Kv, lamp: SyncClient) -> None:
    """As after a first try that stored the value and did not come to remove the record."""
    chain = lamp.set(LAMP, {"on": 2}, nchain=1).chain
    resolved(kv_here, "two.7", "--keep", "lost")
    assert lamp.get(LAMP, nchain=1).chain["tick"] == chain["tick"]


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["-e", ":", "{'on': 5}"], {"on": 5}),
        (["-e", "dim", "40"], {"on": 1, "dim": 40}),
        (["-v", "on", "yes", "-p", "on", "1"], {"on": "yes"}),
    ],
)
def test_another_value(kv_here: Kv, lamp: SyncClient, words: list[str], value: Any) -> None:
    resolved(kv_here, "two.7", *words)
    assert value_at(lamp) == value


def test_a_part_that_is_not_as_expected(kv_here: Kv, lamp: SyncClient) -> None:
    done = kv_here("conflict", "resolve", "two.7", "-e", "on", "5", "-p", "on", "4")
    assert (done.code, value_at(lamp)) == (1, {"on": 1})
    assert "house.lamp, part on has changed: expected 4, found 1" in done.errors


def test_a_value_that_was_too_large(kv_here: Kv, client: SyncClient) -> None:
    record(client, "two.7", change(GONE) | {"cut": True}, winner(client, LAMP, 1))
    done = kv_here("conflict", "resolve", "two.7", "--keep", "lost")
    assert (done.code, value_at(client)) == (1, 1)
    assert "too large to be kept" in done.errors
    assert "cut: true" in kv_here("conflict", "show", "two.7").output


def test_all(kv_here: Kv, lamp: SyncClient) -> None:
    record(lamp, "one.1", change(1), change(2), P("a"))
    done = kv_here("conflict", "resolve", "--all", "--json")
    assert json.loads(done.output) == {"resolved": 2}
    assert value_at(lamp) == {"on": 1}
    done = kv_here("conflict", "resolve", "--all")
    assert done == Outcome(errors="kv: there are no conflicts\n")


def test_a_record_that_changes_meanwhile_stays(
    kv_here: Kv, lamp: SyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete = SyncClient.delete

    def change_first(self: SyncClient, *words: Any, **options: Any) -> Any:
        monkeypatch.undo()
        record(lamp, "two.7", change("another"), change(2))
        return delete(self, *words, **options)

    monkeypatch.setattr(SyncClient, "delete", change_first)
    done = kv_here("conflict", "resolve", "two.7")
    assert done.code == 1
    assert names(kv_here("conflict", "list", "--json")) == ["two.7"]


@pytest.mark.parametrize(
    ("words", "code", "errors"),
    [
        ("two.8", 1, f"two.8: {UNKNOWN}"),
        ("three.7", 1, f"three.7: {UNKNOWN}"),
        ("two", 2, "two: a conflict is named NODE.NUMBER, as in board1.7"),
        ("two.x", 2, "two.x: a conflict is named NODE.NUMBER"),
        (".7", 2, ".7: a conflict is named NODE.NUMBER"),
        ("", 2, "ID: give the ID of a conflict, or --all"),
        ("two.7 --all", 2, "ID and --all: they exclude each other"),
        ("two.7 --keep lost -e : 1", 2, "--keep: with -v or -e neither"),
        ("--all --keep lost", 2, "--all: it keeps what won"),
        ("two.7 --force", 2, "--force: nothing is written"),
        ("two.7 --keep both", 2, "conflict resolve: Invalid value for '--keep'"),
        ("two.7 -p on 1", 2, "-p: it works with -e only"),
        ("two.7 -e : x", 2, "x: it is not a Python literal"),
    ],
)
@pytest.mark.usefixtures("lamp")
def test_wrong_words(kv_here: Kv, words: str, code: int, errors: str) -> None:
    done = kv_here("conflict", "resolve", *words.split())
    assert done.code == code, done.errors
    assert done.errors.startswith(f"kv: {errors}")
    assert names(kv_here("conflict", "list", "--json")) == ["two.7"]
