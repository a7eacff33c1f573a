"""`kv data` as a user types it, by the click-free way and by click."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from kvedge.client import sync
from kvedge.client.result import Result
from kvedge.client.sync import SyncClient
from kvedge.model.path import P
from kvedge.testing.transcripts import Run, play

TRANSCRIPTS = Path(__file__).resolve().parents[2] / "data" / "data_commands"


@pytest.fixture
def _two_changes(monkeypatch: pytest.MonkeyPatch, client: SyncClient) -> None:
    """While a command watches, an entry comes and goes; then the user presses ^C."""
    watch, check = SyncClient.watch, sync._raise_error

    def watch_a_little(
        self: SyncClient, path: Any, *, fetch: bool = True, **options: Any
    ) -> Iterator[Result]:
        def check_and_set(message: Mapping[str, Any]) -> None:
            check(message)  # it sees all messages, the start of a stream too
            if message.get("state") == ("uptodate" if fetch else "start"):
                monkeypatch.setattr(sync, "_raise_error", check)
                client.set(P("a.new"), "here")

        monkeypatch.setattr(sync, "_raise_error", check_and_set)
        for result in watch(self, path, fetch=fetch, **options):
            yield result
            if result.get("value") == "here":
                client.delete(P("a.new"))
            elif result.get("path") == P("new"):
                raise KeyboardInterrupt

    monkeypatch.setattr(SyncClient, "watch", watch_a_little)


@pytest.mark.usefixtures("_two_changes")
@pytest.mark.parametrize("name", sorted(path.name for path in TRANSCRIPTS.glob("*.txt")))
def test_transcript(name: str, kv_here: Run, pytestconfig: pytest.Config) -> None:
    file = TRANSCRIPTS / name
    expected = file.read_text()
    played = play(expected, kv_here)
    if pytestconfig.getoption("--rewrite", default=False):
        file.write_text(played)
    else:
        assert played == expected


def test_there_are_transcripts() -> None:
    assert len(list(TRANSCRIPTS.glob("*.txt"))) > 5
