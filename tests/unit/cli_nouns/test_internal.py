"""`kv internal`: the lists of a server's state."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from kvedge.client.result import Result
from kvedge.client.sync import SyncClient
from kvedge.testing.transcripts import Outcome

Kv = Callable[..., Outcome]
LISTS = {"nodes", "present", "known", "superseded", "deleted", "missing", "remote_missing"}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], LISTS),
        (["-n"], {"nodes"}),
        (["--nodes", "--remote-missing"], {"nodes", "remote_missing"}),
        (["-p", "-k", "-s", "-d", "-m", "-r"], LISTS - {"nodes"}),
    ],
)
def test_state(kv_here: Kv, client: SyncClient, words: list[str], names: set[str]) -> None:
    client.set("a", 1)
    state = json.loads(kv_here("internal", "state", "--json", *words).output)
    assert set(state) == {"node", "tock", *names}
    assert state["node"] == "test1"
    assert int(state["tock"]) > 0
    assert isinstance(state["tock"], str)


def test_state_names_the_last_change(kv_here: Kv, client: SyncClient) -> None:
    tick = client.set("a", 1, nchain=1).chain["tick"]
    assert f"nodes:\n  test1: {tick}\n" in kv_here("internal", "state", "-n").output


def test_deleted_and_superseded(kv_here: Kv, client: SyncClient) -> None:
    first = client.set("a.new", 1, nchain=1).chain["tick"]
    client.delete("a.new")
    state = json.loads(kv_here("internal", "state", "--json", "-d", "-s").output)
    assert state["deleted"]["test1"][-1][1] == first + 2
    assert any(low <= first < high for low, high in state["superseded"]["test1"])


def test_debug_is_told_when_it_is_asked_for(kv_here: Kv) -> None:
    assert "debug" not in kv_here("internal", "state").output
    state = json.loads(kv_here("internal", "state", "--json", "--debug").output)
    assert set(state) == {"node", "tock", "debug"}
    assert state["debug"]["tombstones"] >= 0


def test_what_is_left_out_is_told(kv_here: Kv, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"node": "test1", "tock": 1, "present": {}, "left_out": {"present": {"two": 7}}}
    monkeypatch.setattr(SyncClient, "request", lambda *_: Result(answer))
    done = kv_here("internal", "state", "-p")
    assert done.errors == "kv: present: 7 older ranges of two are left out\n"
