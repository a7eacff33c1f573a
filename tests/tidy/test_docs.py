"""The documentation and the sources agree: links lead somewhere, everything named is described."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvedge import errors, limits

ROOT = Path(__file__).resolve().parents[2]
CHANGE_KINDS = ("breaking", "added", "changed", "fixed", "removed")

_FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_CODE_SPAN = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\]\(<?([^)>\s]+)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
_HEADING = re.compile(r"^#+\s+(.*?)\s*#*$", re.MULTILINE)
_FIRST_CELL = re.compile(r"^\|\s*`(\w+)`\s*\|", re.MULTILINE)
_ELSEWHERE = ("http:", "https:", "mailto:")
# A checkout's or a user's own place.  Where a path merely ends so (`frame/work/`), it is fine.
_MACHINE_PATH = re.compile(r"(?<![\w.$}*-])/(?:work|root)/")


def _is_foreign(directory: Path) -> bool:
    """Tell whether a directory holds what was made here, not what is kept."""
    hidden = directory.name.startswith(".") and directory.name != ".ci"
    made = directory.name in {"build", "dist", "__pycache__"}
    return hidden or made or (directory / "pyvenv.cfg").exists()


def _files(directory: Path) -> Iterator[Path]:
    for child in sorted(directory.iterdir()):
        if child.is_file():
            yield child
        elif child.is_dir() and not _is_foreign(child):
            yield from _files(child)


def _texts() -> Iterator[tuple[Path, str]]:
    """Yield every kept text file; what is not UTF-8 is test data."""
    for file in _files(ROOT):
        try:
            yield file, file.read_bytes().decode()
        except UnicodeDecodeError:
            continue


def _anchors(text: str) -> set[str]:
    """Return the anchors of the headings, as code hosts derive them."""
    headings = _HEADING.findall(_FENCED.sub("", text))
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {word.strip().replace(" ", "-") for word in words}


def _leads_nowhere(file: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = file.parent / name if name else file
    if anchor and target.suffix == ".md" and target.exists():
        return anchor not in _anchors(target.read_text())
    return not target.exists()


def _dead_links(file: Path, text: str) -> list[str]:
    """Return the relative links that lead to no file or to no heading."""
    found = _LINK.findall(_CODE_SPAN.sub("", _FENCED.sub("", text)))
    links = [inline or reference for inline, reference in found]
    own = [link for link in links if not link.startswith(_ELSEWHERE)]
    return [link for link in own if _leads_nowhere(file, link)]


def _described(text: str) -> set[str]:
    """Return what has a heading of its own, or a row that begins with its name as code."""
    return {heading.strip("`") for heading in _HEADING.findall(text)} | set(
        _FIRST_CELL.findall(text)
    )


def test_links_lead_somewhere() -> None:
    pages = [(file, text) for file, text in _texts() if file.suffix == ".md"]
    assert pages
    dead = [
        f"{file.relative_to(ROOT)}: {link}" for file, t in pages for link in _dead_links(file, t)
    ]
    assert not dead, "\n".join(dead)


def test_no_file_names_a_place_on_one_machine() -> None:
    bad = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file, text in _texts()
        for number, line in enumerate(text.splitlines(), 1)
        if _MACHINE_PATH.search(line)
    ]
    assert not bad, "\n".join(bad)


def test_every_module_says_what_it_is_for() -> None:
    files = [f for root in ("agent", "drivers") for f in (ROOT / root).rglob("*.py")]
    mute = [
        str(f.relative_to(ROOT)) for f in files if not ast.get_docstring(ast.parse(f.read_text()))
    ]
    assert files
    assert not mute, "\n".join(sorted(mute))


def test_every_error_is_described() -> None:
    names = {c.__name__ for c in errors.BY_CODE.values()}
    missing = names - _described((ROOT / "docs/reference/errors.md").read_text())
    assert names
    assert not missing, sorted(missing)


def test_every_limit_is_described() -> None:
    names = {name for name in vars(limits) if name.isupper()}
    missing = names - _described((ROOT / "docs/reference/limits.md").read_text())
    assert names
    assert not missing, sorted(missing)


def test_changes_and_decisions_are_named_by_the_rules() -> None:
    changes = {f.name for f in (ROOT / "docs/changes.d").iterdir()}
    decisions = {f.name for f in (ROOT / "docs/decisions").iterdir()}
    kinds = "|".join(CHANGE_KINDS)
    bad = {name for name in changes if not re.fullmatch(rf"[\w-]+\.({kinds})\.md", name)}
    bad |= {name for name in decisions if not re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", name)}
    assert not bad, sorted(bad)


@pytest.mark.parametrize(
    "text",
    [
        "[a](absent.md)",
        "[a](<absent.md>)",
        "![picture](absent.png)",
        "see [a]\n\n[a]: absent.md",
        "[a](here.md#no-such-heading)",
        "[a](#no-such-heading)",
    ],
)
def test_dead_link_is_found(tmp_path: Path, text: str) -> None:
    file = tmp_path / "here.md"
    file.write_text(text)
    assert len(_dead_links(file, text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "[a](here.md) [b](./) [c](https://example.org/x) [d](mailto:a@example.org)",
        "# The `kv` command, in short\n\n[a](#the-kv-command-in-short)",
        "```\n[a](absent.md)\n```\n",
        "`x[0](absent)`",
    ],
)
def test_live_link_is_left_alone(tmp_path: Path, text: str) -> None:
    file = tmp_path / "here.md"
    file.write_text(text)
    assert _dead_links(file, text) == []


@pytest.mark.parametrize(
    ("line", "is_machine_path"),
    [
        ("see {}work/main", True),
        ("cd '{}root/.pyenv'", True),
        ("file://{}work/x", True),
        ("frame{}work/x", False),
        ("$HOME{}work/x", False),
        ("/network/x", False),
    ],
)
def test_machine_path_is_found(line: str, *, is_machine_path: bool) -> None:
    assert bool(_MACHINE_PATH.search(line.format("/"))) is is_machine_path


def test_only_own_heading_or_row_describes() -> None:
    text = "## `One`\n\n### Two\n\n| `THREE` | 3 |\n\nFour and `Five` | `Six` |\n"
    assert _described(text) == {"One", "Two", "THREE"}
