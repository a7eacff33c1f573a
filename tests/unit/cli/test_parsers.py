"""The two parsers of `kv data` read every line of words alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvedge.cli import main, verbs
from kvedge.cli.connection import Session
from kvedge.cli.options import GLOBAL, VERBS, Given, Verb, arrange
from kvedge.errors import BadSetting

Reading: TypeAlias = str
Way: TypeAlias = Callable[..., int | None]


def reading(way: Way, words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> Reading:
    """Return what a parser makes of words behind `kv`: verb, path, options; or its complaint."""
    found: list[str] = []

    def run(verb: Verb, path: str, given: Given, session: Session) -> None:
        shown = [f"{option.name}={_words(given, option.name)}" for option in verb.options]
        above = [f"{option.name}={_words(session.given, option.name)}" for option in GLOBAL]
        found.append(f"{verb.name} {path} {shown} {above}")

    with monkeypatch.context() as patch:
        patch.setattr(verbs, "run", run)
        try:
            way(words, {})
        except BadSetting as error:
            return str(error)
    return found[0] if found else "help"


def _words(given: Given, name: str) -> list[tuple[str, ...]]:
    return list(given._all(name))


CASES: dict[str, str] = {
    "one": "get one",
    "one get": "get one",
    "get one": "get one",
    "get": "get :",
    "get get": "get get",
    "set get": "get set",
    "monitor get -r": "get monitor",
    "one set -e : -1": "set one",
    "set -e : -1 one": "set one",
    "-r one": "get one",
    "--json one get": "get one",
    "--json one delete": "delete one",
    "--json delete one": "delete one",
    "one --json delete": "delete one",
    "--json": "get :",
    "--json get": "get :",
    "get --json set": "set get",
    "-d --json one -r": "get one",
    "one -r": "get one",
    "-- one": "get one",
    "get -- -5": "get -5",
    "set -v : -- -- one": "set one",
    "one monitor -so": "monitor one",
    "update one -i -": "update one",
    "list": "list :",
    "monitor": "monitor :",
}


@pytest.mark.parametrize("words", CASES)
@pytest.mark.parametrize("way", [main.run_fast, main.run_click])
def test_verb_and_path(words: str, way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    found = reading(way, ["data", *words.split()], monkeypatch)
    assert " ".join(found.split(" ")[:2]) == CASES[words]


OPTION_CASES: dict[str, list[tuple[str, list[tuple[str, ...]]]]] = {
    "-rd_ one": [("recursive", [()]), ("as_dict", [("_",)])],
    "-r -d _ one": [("recursive", [()]), ("as_dict", [("_",)])],
    "--as-dict=_ -r one": [("recursive", [()]), ("as_dict", [("_",)])],
    "-d=_ one": [("as_dict", [("=_",)])],
    "-m -1 one": [("min_depth", [("-1",)])],
    "-rr one": [("recursive", [(), ()])],
    "one set -v a b -v c d": [("value", [("a", "b"), ("c", "d")])],
    "one set -va b": [("value", [("a", "b")])],
    "one set --value=a b": [("value", [("a", "b")])],
    "one set -nl me 3": [("new", [()]), ("last", [("me", "3")])],
    "one set -e : --json": [("eval", [(":", "--json")])],
    "one --json": [("json", [()])],
}


@pytest.mark.parametrize("words", OPTION_CASES)
@pytest.mark.parametrize("way", [main.run_fast, main.run_click])
def test_options(words: str, way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    found = reading(way, ["data", *words.split()], monkeypatch)
    for name, expected in OPTION_CASES[words]:
        assert f"{name}={expected}" in found


LETTERS = {name for verb in VERBS.values() for option in verb.options for name in option.names}
ODD = ["--as-dict=k", "--as-dict=", "--recursive=1", "-r-", "--help", "--json", "-ve", "--value=a"]
ODD += ["one", ":", "--", "-", "-5", "-rd_", "-so", "-x", "--bogus", "", "-m1"]
WORDS = st.sampled_from([*sorted(LETTERS), *VERBS, *ODD])
GLOBAL_WORDS = st.lists(
    st.sampled_from(["-v", "-vv", "-s", "x", "--json", "-hlocal", "-C", "a.b=1", "-p", "-q"]),
    max_size=3,
)


@given(above=GLOBAL_WORDS, words=st.lists(WORDS, min_size=1, max_size=7))
def test_both_parsers_read_alike(above: list[str], words: list[str]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        line = [*above, "data", *words]
        fast = reading(main.run_fast, line, monkeypatch)
        if fast != "help":  # a wrong global option, too, is left to click
            assert fast == reading(main.run_click, line, monkeypatch)


def test_arrange_leaves_its_argument_alone() -> None:
    words = ["one", "get", "-r"]
    verb, rest = arrange(words)
    assert (verb.name, rest, words) == ("get", ["one", "-r"], ["one", "get", "-r"])


def test_every_option_has_a_help_text_and_its_own_letters() -> None:
    for options in [GLOBAL, *(verb.options for verb in VERBS.values())]:
        names = [name for option in options for name in option.names]
        assert len(names) == len(set(names))
        assert all(option.help for option in options)
