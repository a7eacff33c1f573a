"""The transcript runner: what it runs, what it writes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kvedge.testing.transcripts import Outcome, in_process, play

TEXT = """\
Prose stays.

$ say 'two words' <<END
> typed
>
> END
two words
<BLANKLINE>
input 'typed\\n\\n'

$ say one
one
$ fail
! it is wrong
!
! indeed
[2]
"""


def run(words: Sequence[str], typed: str) -> Outcome:
    if words == ["fail"]:
        return Outcome(errors="it is wrong\n\nindeed\n", code=2)
    shown = f"\ninput {typed!r}\n" if typed else ""
    return Outcome(f"{words[1]}\n{shown}")


def test_a_right_transcript_stays_as_it_is() -> None:
    assert play(TEXT, run) == TEXT


@pytest.mark.parametrize(
    "wrong",
    [
        TEXT.replace("$ say one\none", "$ say one\ntwo"),
        TEXT.replace("$ say one\none", "$ say one"),
        TEXT.replace("[2]\n", ""),
        TEXT.replace("! indeed\n", ""),
        TEXT.replace("<BLANKLINE>\n", ""),
    ],
)
def test_a_wrong_transcript_is_put_right(wrong: str) -> None:
    assert wrong != TEXT
    assert play(wrong, run) == TEXT


def test_in_process_captures_all_streams() -> None:
    import sys

    def echo(words: Sequence[str]) -> int:
        sys.stdout.write(f"{list(words)} {sys.stdin.read()}")
        sys.stderr.write("talk")
        return 7

    assert in_process(echo)(["kv", "a"], "typed") == Outcome("['a'] typed", "talk", 7)
