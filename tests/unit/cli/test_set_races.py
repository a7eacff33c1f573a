"""`kv data set` with parts of a value, while somebody else writes."""

from __future__ import annotations

from typing import Any

import pytest

from kvedge.client.result import Result
from kvedge.client.sync import SyncClient
from kvedge.model.path import P
from kvedge.testing.transcripts import Run


@pytest.fixture
def rival(monkeypatch: pytest.MonkeyPatch, client: SyncClient) -> list[object]:
    """Values that somebody else stores at `a`, one just before each write of a command."""
    values: list[object] = []
    write = SyncClient.set

    def overtaken(self: SyncClient, path: Any, value: Any, **options: Any) -> Result:
        if values:
            write(client, P("a"), values.pop())
        return write(self, path, value, **options)

    monkeypatch.setattr(SyncClient, "set", overtaken)
    return values


def kv(run: Run, *words: str) -> int:
    return run(["kv", "data", *words], "").code


def test_a_change_in_between_is_kept(kv_here: Run, client: SyncClient, rival: list[object]) -> None:
    client.set(P("a"), {"mine": 0})
    rival.append({"mine": 0, "theirs": 1})
    assert kv(kv_here, "a", "set", "-e", "mine", "2") == 0
    assert client.get(P("a")).value == {"mine": 2, "theirs": 1}


def test_a_condition_is_checked_anew(kv_here: Run, client: SyncClient, rival: list[object]) -> None:
    client.set(P("a"), {"mine": 0})
    rival.append({"mine": 1})
    assert kv(kv_here, "a", "set", "-p", "mine", "0", "-e", "mine", "2") == 1
    assert client.get(P("a")).value == {"mine": 1}


def test_it_gives_up_in_the_end(kv_here: Run, client: SyncClient, rival: list[object]) -> None:
    rival += [{"theirs": count} for count in range(9)]
    assert kv(kv_here, "a", "set", "-e", "mine", "2") == 1
    assert client.get(P("a")).value == {"theirs": 4}


def test_a_named_change_is_not_tried_again(
    kv_here: Run, client: SyncClient, rival: list[object]
) -> None:
    client.set(P("a"), {"mine": 0})
    rival.append({"mine": 1})
    assert kv(kv_here, "a", "set", "-l", "test", "1", "-e", "mine", "2") == 1
    assert client.get(P("a")).value == {"mine": 1}
