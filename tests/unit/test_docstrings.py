"""The examples in docstrings run."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def modules_with_examples() -> list[str]:
    """Return the dotted names of our modules that have a `>>>` somewhere."""
    found = []
    for source in (ROOT / "agent", ROOT / "drivers"):
        for file in sorted(source.rglob("*.py")):
            if ">>> " in file.read_text():
                found.append(".".join(file.relative_to(source).with_suffix("").parts))
    return found


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_run(name: str) -> None:
    result = doctest.testmod(import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
