"""Literals of the command line: the short way agrees with `ast`, and nothing is run."""

from __future__ import annotations

import ast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvedge.cli.literals import literal
from kvedge.errors import BadSetting

LITERALS = ["0", "-0", "007", "1_000", "-12", "- 12", "+5", "1.5", "-.5", "1e999", "True", "None"]
LITERALS += ["'a'", '"a"', "'it\\'s'", "'a' 'b'", "'\\d'", "b'x'", "()", "[1, 'a']", "{'k': None}"]
LITERALS += [
    "''",
    "'",
    "'a\"",
    "0x1f",
    "9" * 700,
    "'a\nb'",
    " 1",
    "1 ",
    "\u00b2",
    "\u0661",
    "",
    "--1",
]


def _outcome(text: str) -> object:
    try:
        return repr(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return "refused"


def _ours(text: str) -> object:
    try:
        return repr(literal(text))
    except BadSetting:
        return "refused"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::SyntaxWarning")
@pytest.mark.parametrize("text", LITERALS)
def test_agrees_with_ast(text: str) -> None:
    assert _ours(text) == _outcome(text)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::SyntaxWarning")
@given(st.text(alphabet="-+0123456789.e_'\"\\ ab", max_size=8))
@example("'\\'")
def test_agrees_with_ast_on_anything(text: str) -> None:
    assert _ours(text) == _outcome(text)


@given(st.integers() | st.text() | st.none() | st.booleans() | st.floats(allow_nan=False))
def test_reads_what_python_prints(value: object) -> None:
    text = repr(value).replace("inf", "1e999")
    assert literal(text) == (value if "1e999" not in text else ast.literal_eval(text))


@pytest.mark.parametrize("text", ["1+1", "__import__('os')", "f()", "x", "lambda: 1", "(" * 9999])
def test_refuses_code(text: str) -> None:
    with pytest.raises(BadSetting, match="is not a Python literal"):
        literal(text)
