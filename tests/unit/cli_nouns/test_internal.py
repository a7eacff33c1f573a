"""`kv internal`: the lists of a server's state."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

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
