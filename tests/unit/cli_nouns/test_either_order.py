"""Words in either order, wrong words, and help texts."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from kvedge.cli import main
from kvedge.cli.either_order import EitherOrderGroup
from kvedge.cli.group import group
from kvedge.testing.transcripts import Outcome, in_process

NOUNS = ("code", "run", "error", "internal")


def kv(*words: str) -> Outcome:
    environ = {"KV_SOCKET": "/nonexistent/kv.sock"}
    return in_process(lambda given: main.run(given, environ))(["kv", *words], "")


def commands(noun: str) -> Iterator[tuple[str, click.Command]]:
    """Yield all commands of a noun with their words."""
    context = click.Context(group, info_name="kv")
    found = group.get_command(context, noun)
    waiting = [(noun, found)]
    while waiting:
        words, command = waiting.pop()
        assert command is not None
        yield words, command
        if isinstance(command, click.Group):
            waiting += [(f"{words} {name}", each) for name, each in command.commands.items()]


@pytest.mark.parametrize(
    "words",
    [
        "code get the.answer",
        "code the.answer get",
        "code get get",  # the first of two verbs is the subject
        "code module get tools",
        "code module tools get",
        "run get a.question",
        "run a.question get",
        "run -n box a.question get",
        "run -g radio a.question get -n box",
        "job get a.question",
        "error list :",
        "error : list",
        "internal : dump",
    ],
)
def test_it_is_understood(words: str) -> None:
    assert kv(*words.split()).code == 3, kv(*words.split()).errors


@pytest.mark.parametrize(
    ("words", "errors"),
    [
        (
            "code frob",
            "kv: frob: say what to do: delete, get, list, module, set; see `kv code --help`",
        ),
        ("code lst", "kv: lst: did you mean `kv code list`?  See `kv code --help`"),
        ("code module x frob", "kv: x: say what to do: delete, get, list, set; see"),
        ("code get", "kv: code get: Missing argument 'NAME'; see `kv code get --help`"),
        (
            "code get a b",
            "kv: code get: Got unexpected extra argument (b); see `kv code get --help`",
        ),
        ("code get a.", "kv: 'a.' is not a path: it ends with a dot"),
        ("code -x get a", "kv: -x: there is no such option; see `kv code --help`"),
        ("run -n", "kv: -n: it needs NODE|-; see `kv run --help`"),
        ("run set -v a", "kv: -v: it needs NAME and TEXT; see `kv run set --help`"),
        ("run -n a/b list", "kv: -n a/b: the name of a node has 1 to 63 letters"),
        ("error delete", "kv: error delete: Missing argument 'PATH | NODE TOCK'; see"),
    ],
)
def test_what_is_wrong_is_told_on_one_line(words: str, errors: str) -> None:
    done = kv(*words.split())
    assert done.code == 2
    assert done.output == ""
    assert done.errors.startswith(errors)
    assert done.errors.count("\n") == 1


@pytest.mark.parametrize("noun", NOUNS)
def test_each_command_has_help_with_an_example(noun: str) -> None:
    for words, command in commands(noun):
        text = kv(*words.split(), "--help").output
        assert f"\n    $ kv {noun}" in text, words
        assert command.get_short_help_str(200).endswith("."), words


@pytest.mark.parametrize("noun", NOUNS)
def test_each_command_takes_json(noun: str) -> None:
    for words, _ in commands(noun):
        if words != "run all":  # it prints what jobs print
            assert "  --json " in kv(*words.split(), "--help").output, words


@pytest.mark.parametrize("noun", NOUNS)
def test_groups_take_their_words_in_either_order(noun: str) -> None:
    for _, command in commands(noun):
        assert isinstance(command, EitherOrderGroup) or not isinstance(command, click.Group)
