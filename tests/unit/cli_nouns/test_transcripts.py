"""The nouns as a user types them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvedge.testing.transcripts import Run, play

TRANSCRIPTS = Path(__file__).resolve().parents[2] / "data" / "cli_nouns"


@pytest.mark.parametrize("name", sorted(path.name for path in TRANSCRIPTS.glob("*.txt")))
def test_transcript(name: str, run_words: Run, pytestconfig: pytest.Config) -> None:
    file = TRANSCRIPTS / name
    expected = file.read_text()
    played = play(expected, run_words)
    if pytestconfig.getoption("--rewrite", default=False):
        file.write_text(played)
    else:
        assert played == expected


def test_there_are_transcripts() -> None:
    assert len(list(TRANSCRIPTS.glob("*.txt"))) > 3
