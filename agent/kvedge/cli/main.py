"""`kv`: where every command starts.

The plain data commands go the click-free way (`kvedge.cli.fast`); for all others the click group
is loaded.  This module is on the path of both, so it imports no more than the first one needs.
"""

from __future__ import annotations

import io
import os
import sys

from kvedge.cli import exits, fast
from kvedge.cli.connection import Session
from kvedge.errors import AgentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def run_fast(words: Sequence[str], environ: Mapping[str, str]) -> int | None:
    """Run a plain data command and return its exit code; None where click is needed.

    Raises:
        AgentError: It failed, or the words are wrong.
    """
    found = fast.words_of_data(words)
    if found is None or "_KV_COMPLETE" in environ:
        return None
    given, rest = found
    try:
        verb, path, options = fast.parse_data(rest)
    except fast.HelpWantedError:
        return None
    from kvedge.cli import verbs

    verbs.run(verb, path, options, Session(given, environ))
    return exits.DONE


def run_click(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run any command by way of click and return its exit code.

    Raises:
        AgentError: It failed, or the words are wrong.
    """
    from kvedge.cli import group

    return group.run(words, environ)


def run(
    words: Sequence[str],
    environ: Mapping[str, str],
    ways: Sequence[Callable[[Sequence[str], Mapping[str, str]], int | None]] = (
        run_fast,
        run_click,
    ),
) -> int:
    """Run one command line and return its exit code; errors are printed.

    Args:
        words: The words behind `kv`.
        environ: The environment variables.
        ways: Tried in turn until one returns an exit code.
    """
    try:
        codes = (way(words, environ) for way in ways)
        code = next(code for code in codes if code is not None)
        sys.stdout.flush()
    except (AgentError, OSError, KeyboardInterrupt) as error:
        return exits.report(error, json="--json" in words, verbose=fast.verbosity(words))
    return code


def main() -> None:
    """Run the command line of this process and exit."""
    words = sys.argv[1:]
    if fast.verbosity(words) < 2:
        sys.excepthook = exits.unexpected
    _prepare_output()
    sys.exit(run(words, os.environ))


def _prepare_output() -> None:
    """See to it that any text can be written, also where the caller closed standard output."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that lack a letter
    elif not sys.stdout:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 -- open until the process ends
