"""One table of the options of `kv` and `kv data`; both of its parsers are built from it.

The click-free parser (`kvedge.cli.fast`) and the click commands (`kvedge.cli.data`) turn words
into the same raw form: for each option the tuples of words it was given.  `Given` reads that
form, so what a word means, and the message when it means nothing, is said once.

A subject and its verb may stand in either order: `kv data one get -r`, `kv data get -r one`.
`arrange` brings the verb to the front.  With two verbs in a row the first is the path; without
a verb it is `get`.  Of the options `--json` alone may stand before the verb, since all have it.

This module is on the path of every short command: it imports no more than it must.
"""

from __future__ import annotations

from kvedge.errors import BadSetting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    Raw: TypeAlias = Mapping[str, Sequence[tuple[str, ...]]]
    """Option name -> the words of each time it was given; () for a flag."""


class Option:
    """One option: its names, the words that follow it, and what it is for."""

    __slots__ = ("help", "long", "name", "short", "words")

    def __init__(self, short: str, long: str, words: str, text: str) -> None:
        self.name = long[2:].replace("-", "_")
        self.short = short
        self.long = long
        self.words = tuple(words.split())
        self.help = text

    def __str__(self) -> str:
        """Return the name a message calls it by."""
        return self.short or self.long

    @property
    def names(self) -> tuple[str, ...]:
        """Its spellings, the short one first."""
        return tuple(name for name in (self.short, self.long) if name)


class Verb:
    """One verb of `kv data` with its options."""

    __slots__ = ("help", "name", "options", "path_default")

    def __init__(self, name: str, path_default: str, text: str, *options: Option) -> None:
        self.name = name
        self.path_default = path_default
        self.help = text
        self.options = (*options, _JSON)

    @property
    def title(self) -> str:
        """The words a user types for it."""
        return f"kv data {self.name}"


_JSON = Option("", "--json", "", "print JSON instead of YAML")
HELP = Option("", "--help", "", "show this text")

GLOBAL = (
    Option("-c", "--config", "FILE", "read this configuration instead"),
    Option("-C", "--set", "SECTION.KEY=LITERAL", "override one setting; may be repeated"),
    Option("-h", "--host", "HOST", "connect to a server by TCP"),
    Option("-p", "--port", "PORT", "its port"),
    Option("-s", "--socket", "SOCKET", "connect to a server by its socket file"),
    Option("-a", "--auth", "AUTH", "log in, as in 'password name=joe password?=Code'"),
    _JSON,
    Option("-v", "--verbose", "", "say more; twice: tracebacks too"),
)

# The letters that several verbs have.
_CHAIN = Option("-c", "--chain", "N", "show tock, and this many links of the chain, too")
_LAST = Option("-l", "--last", "NODE TICK", "only if this was the last change")
_MIN = Option("-m", "--min-depth", "MIN", "leave out what is nearer than this many levels")
_MAX = Option("-M", "--max-depth", "MAX", "leave out what is farther than this many levels")
_GONE = Option("-e", "--empty", "", "with -d: include places whose value was deleted")

# The empty string stands for "a path must be given": a forgotten one may not change the root.
_GET = Verb(
    "get",
    ":",
    "Print the value at PATH.",
    Option("-r", "--recursive", "", "print all values at and below PATH"),
    Option("-d", "--as-dict", "KEY", "with -r: nested, a place's own value under KEY"),
    _MIN,
    _MAX,
    _GONE,
    _CHAIN,
)
_SET = Verb(
    "set",
    "",
    "Store a value at PATH, or parts of one.\n\n"
    "A part is named by its path inside the value, the whole by ':'.  All that is given is "
    "stored at once; `-e one 1` leaves the other parts as they are.",
    Option("-v", "--value", "PATH TEXT", "a part and its text; may be repeated"),
    Option("-e", "--eval", "PATH LITERAL", "a part and its Python literal; may be repeated"),
    Option("-p", "--prev", "PATH LITERAL", "only if this part was this before"),
    _LAST,
    Option("-n", "--new", "", "only if there was no value"),
    _CHAIN,
)
_DELETE = Verb(
    "delete",
    "",
    "Delete the value at PATH.",
    Option("-r", "--recursive", "", "delete all values at and below PATH"),
    _LAST,
)
_LIST = Verb(
    "list",
    ":",
    "Print the names one level below PATH.",
    Option("-v", "--values", "", "print values too, and only the names that have one"),
)
_MONITOR = Verb(
    "monitor",
    ":",
    "Print what is at and below PATH, then each change.",
    Option("-s", "--state", "", "mark the end of what was there at the start"),
    Option("-o", "--only-changes", "", "leave out what was there at the start"),
    _MIN,
    _MAX,
    _CHAIN,
)
_UPDATE = Verb(
    "update",
    "",
    "Apply changes that `get -r --json` or `monitor --json` printed.",
    Option("-i", "--infile", "FILE", "read them from a file instead of standard input"),
)

VERBS: Mapping[str, Verb] = {
    verb.name: verb for verb in (_GET, _SET, _DELETE, _LIST, _MONITOR, _UPDATE)
}


def arrange(words: Sequence[str]) -> tuple[Verb, list[str]]:
    """Return the verb that words behind `kv data` name, and the other words."""
    left = [*words]
    first, second, *_ = *(at for at, word in enumerate(words) if word != "--json"), -1, -1
    if second > 0 and not words[first].startswith("-") and words[second] in VERBS:
        return VERBS[left.pop(second)], left
    if first >= 0 and words[first] in VERBS:
        return VERBS[left.pop(first)], left
    return _GET, left


# --- what can be wrong with words ------------------------------------------------------------
# The messages of both parsers: each names the word, the reason and the way out.


def unknown_option(word: str, where: str) -> BadSetting:
    """Return the error for an option that is not in the table."""
    hint = f"there is no such option; see `{where} --help`"
    if word[1:2].isdigit():
        hint += ", and write `--` before a word that begins with '-'"
    return BadSetting(word, hint)


def words_missing(name: str, words: str, where: str) -> BadSetting:
    """Return the error for an option with too few words, or with one it does not take."""
    needs = f"needs {words.replace(' ', ' and ')}" if words else "takes no value"
    return BadSetting(name, f"it {needs}; see `{where} --help`")


def the_path(words: Sequence[str], verb: Verb) -> str:
    """Return the text of the one path a verb was given.

    Raises:
        BadSetting: There is none and one is needed, or there are more.
    """
    if len(words) > 1:
        no_verb = "" if words[1] in VERBS else f", and no verb ({', '.join(VERBS)})"
        why = f"one word too many after {words[0]!r}{no_verb}; see `{verb.title} --help`"
        raise BadSetting(words[1], why)
    text = words[0] if words else verb.path_default
    if not text:
        why = "it is empty" if words else "it is missing"
        raise BadSetting("PATH", f"{why}; the root is ':'; see `{verb.title} --help`")
    return text


class Given:
    """The options of one command line, read by name."""

    __slots__ = ("_options", "_raw", "where")

    def __init__(self, options: Sequence[Option], raw: Raw, where: str) -> None:
        self._options = {option.name: option for option in options}
        self._raw = raw
        self.where = where

    def _all(self, name: str) -> Sequence[tuple[str, ...]]:
        self._options[name]  # a name that is not in the table is our own mistake
        return self._raw.get(name, ())

    def count(self, name: str) -> int:
        """Return how often an option was given."""
        return len(self._all(name))

    def text(self, name: str) -> str | None:
        """Return the word of an option, the last one where it was repeated."""
        words = self._all(name)
        return words[-1][0] if words else None

    def texts(self, name: str) -> list[str]:
        """Return the words of an option that may be repeated."""
        return [words[0] for words in self._all(name)]

    def pairs(self, name: str) -> list[tuple[str, str]]:
        """Return the word pairs of an option that takes two and may be repeated."""
        return [(first, second) for first, second in self._all(name)]

    def number(self, name: str, *, at_most: int | None = None) -> int | None:
        """Return the word of an option as an integer from 0 on.

        Raises:
            BadSetting: It is none.
        """
        text = self.text(name)
        return None if text is None else self._natural(name, text, at_most)

    def link(self, name: str) -> dict[str, object] | None:
        """Return the chain link that an option with NODE and TICK names.

        Raises:
            BadSetting: TICK is not a number.
        """
        words = self._all(name)
        if not words:
            return None
        node, tick = words[-1]
        return {"node": node, "tick": self._natural(name, tick, None), "prev": None}

    def refuse_together(self, *names: str) -> None:
        """Raise BadSetting where more than one of these options was given."""
        given = [str(self._options[name]) for name in names if self._all(name)]
        if len(given) > 1:
            raise self.error(f"{' and '.join(given)}", "they exclude each other")

    def refuse_without(self, needed: str, *names: str) -> None:
        """Raise BadSetting where one of these options was given and the needed one was not."""
        for name in names:
            if self._all(name) and not self._all(needed):
                why = f"it works with {self._options[needed]} only"
                raise self.error(str(self._options[name]), why)

    def error(self, word: str, why: str) -> BadSetting:
        """Return an error about a word of this command line."""
        return BadSetting(word, f"{why}; see `{self.where} --help`")

    def _natural(self, name: str, text: str, at_most: int | None) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise self.error(f"{self._options[name]} {text}", "an integer from 0 on is needed")
        number = int(text)
        if at_most is not None and number > at_most:
            raise self.error(f"{self._options[name]} {text}", f"at most {at_most} is possible")
        return number
