"""The click-free way: parse words by the table, run a data verb.

Importing click costs 40 ms, and a script that calls `kv data` in a loop pays it each time.  So
this parser knows the little of getopt that the table needs: bundled short options (`-rd_`),
`--long=word`, options between the words, `--`.  What click would do otherwise with the same
words is a defect; the tests compare them.
"""

from __future__ import annotations

from kvedge.cli.options import (
    GLOBAL,
    HELP,
    Given,
    Option,
    arrange,
    the_path,
    unknown_option,
    words_missing,
)
from kvedge.errors import BadSetting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvedge.cli.options import Verb


class HelpWantedError(Exception):
    """The words ask for a help text, which click has."""


class _Parser:
    """Takes words from the front of a list; keeps what they say."""

    def __init__(self, options: Sequence[Option], words: Sequence[str], where: str) -> None:
        self._by_name = {name: option for option in (*options, HELP) for name in option.names}
        self._left = list(words)
        self._where = where
        self.raw: dict[str, list[tuple[str, ...]]] = {}

    def parse(self, *, mixed: bool) -> list[str]:
        """Return the words that are no options.

        Args:
            mixed: Whether options may stand behind words; else the first word ends them.
        """
        words: list[str] = []
        while self._left:
            word = self._left.pop(0)
            if word == "--":
                break
            if word.startswith("--"):
                self._long(word)
            elif word.startswith("-") and len(word) > 1:
                self._short(word)
            elif mixed:
                words.append(word)
            else:
                return [word, *self._left]
        return words + self._left

    def _long(self, word: str) -> None:
        name, equals, value = word.partition("=")
        option = self._find(name)
        if equals and not option.words:
            raise words_missing(name, "", self._where)
        if equals:
            self._left.insert(0, value)
        self._take(name, option)

    def _short(self, word: str) -> None:
        for at in range(1, len(word)):
            name = "-" + word[at]
            option = self._find(name)
            rest = word[at + 1 :]
            if option.words and rest:
                self._left.insert(0, rest)
            self._take(name, option)
            if option.words:
                return

    def _find(self, name: str) -> Option:
        option = self._by_name.get(name)
        if option is None:
            raise unknown_option(name, self._where)
        return option

    def _take(self, name: str, option: Option) -> None:
        if option is HELP:
            raise HelpWantedError
        count = len(option.words)
        if len(self._left) < count:
            raise words_missing(name, " ".join(option.words), self._where)
        self.raw.setdefault(option.name, []).append(tuple(self._left[:count]))
        del self._left[:count]


def parse_global(words: Sequence[str]) -> tuple[Given, list[str]]:
    """Return the global options, and the words from the command's name on.

    Raises:
        BadSetting: They cannot be understood.
        HelpWantedError: `--help` is among them.
    """
    parser = _Parser(GLOBAL, words, "kv")
    rest = parser.parse(mixed=False)
    return Given(GLOBAL, parser.raw, "kv"), rest


def parse_data(words: Sequence[str]) -> tuple[Verb, str, Given]:
    """Return verb, path and options that the words behind `kv data` say.

    Raises:
        BadSetting: They cannot be understood.
        HelpWantedError: They are empty, or `--help` is among them.
    """
    if not words:
        raise HelpWantedError
    verb, rest = arrange(words)
    parser = _Parser(verb.options, rest, verb.title)
    path = the_path(parser.parse(mixed=True), verb)
    return verb, path, Given(verb.options, parser.raw, verb.title)


def words_of_data(words: Sequence[str]) -> tuple[Given, list[str]] | None:
    """Return the global options and the words behind `data`; None for all other commands."""
    try:
        given, rest = parse_global(words)
    except (HelpWantedError, BadSetting):
        return None
    return (given, rest[1:]) if rest[:1] == ["data"] else None


def verbosity(words: Sequence[str]) -> int:
    """Return how often the global `-v` is among the words; 0 where they are wrong."""
    try:
        return parse_global(words)[0].count("verbose")
    except (HelpWantedError, BadSetting):
        return 0
