"""Stored text becomes a function; required modules are imported; what is wrong is named."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from kvedge.errors import JobFailed
from kvedge.limits import CODE_MAX_BYTES
from kvedge.model.path import P, Path
from kvedge.runner.code import (
    CodeMissing,
    Kind,
    StoredCode,
    installed_names,
    load_installed,
    make_function,
    missing_modules,
)

PLACE = P(":.kv.code.proc.a.b")


def stored(text: str, **fields: Any) -> StoredCode:
    return StoredCode.from_value(PLACE, {"code": text} | fields)


def call(text: str, modules: dict[str, StoredCode] | None = None, **variables: Any) -> Any:
    return make_function(stored(text), variables, modules or {})()


VALUES = [
    ("", None),
    ("return 42", 42),
    ("'''doc'''\nreturn n + 1", 8),
    ("text = '''a\n  b\n'''\nreturn text", "a\n  b\n"),
    ("if n:\n\treturn 'tabs'", "tabs"),
    ("def f():\n    global n\n    n = 3\nf()\nreturn n", 3),
    ("class A:\n    x = n\nreturn A.x", 7),
    ("return __name__", f"<{PLACE}>"),
]


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_text_is_the_body_of_a_function(text: str, value: object) -> None:
    assert call(text, n=7) == value


def test_required_variable_may_be_assigned() -> None:
    function = make_function(stored("n += 1\nreturn n", vars=["n"]), {"n": 1}, {})
    assert (function(), function()) == (2, 2)


def test_traceback_shows_the_line_of_the_text() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        call("x = 0\n\nreturn 1 / x")
    frame = traceback.extract_tb(caught.tb)[-1]
    assert (frame.filename, frame.lineno, frame.line) == (f"<{PLACE}>", 3, "return 1 / x")


BAD_TEXTS = [
    ("x =\n", "line 1: invalid syntax"),
    ("pass\nretrn 1", "line 2: invalid syntax"),
    ("await f()", "line 1: 'await' outside async function"),
    ("yield 1", "it has a `yield`"),
    ("a\0b", "source code string cannot contain null bytes"),
    ("(" * 300, "too many nested parentheses"),
]


@pytest.mark.parametrize(("text", "message"), BAD_TEXTS)
def test_bad_text_is_named_with_its_line(text: str, message: str) -> None:
    with pytest.raises(JobFailed, match=r"a\.b failed") as caught:
        call(text)
    assert message in str(caught.value)


BAD_ENTRIES: list[tuple[object, str]] = [
    ("text", "no text in its field code"),
    ({"code": 3}, "no text in its field code"),
    ({"code": "x" * (CODE_MAX_BYTES + 1)}, f"are more than {CODE_MAX_BYTES}"),
    ({"code": "", "is_async": 1}, "is_async is 1"),
    ({"code": "", "vars": "ab"}, "vars is 'ab'"),
    ({"code": "", "vars": ["1x"]}, "not a list of names"),
    ({"code": "", "requires": 3}, "requires is 3"),
    ({"code": "", "requires": ["a..b"]}, "not a list of modules"),
    ({"code": "", "requires": [Path(1)]}, "not a list of modules"),
]


@pytest.mark.parametrize(("value", "message"), BAD_ENTRIES)
def test_bad_entry_is_named_by_its_field(value: object, message: str) -> None:
    with pytest.raises(JobFailed) as caught:
        StoredCode.from_value(PLACE, value)
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", list(Kind))
def test_kind_is_what_the_tree_says(kind: Kind) -> None:
    assert stored("", is_async=kind.value).kind is kind


# --- modules ------------------------------------------------------------------------------------

LIB = {
    "lib.calc": stored("from lib import base\ndef twice(x): return base.FACTOR * x"),
    "lib.base": stored("FACTOR = 2"),
    "top": stored(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Point:\n    x: int\n"
    ),
}
IMPORTS = [
    ("import lib.calc\nreturn lib.calc.twice(4)", 8),
    ("import lib.calc as c\nreturn c.twice(4)", 8),
    ("from lib import calc\nreturn calc.twice(4)", 8),
    ("from lib.calc import twice\nreturn twice(4)", 8),
    ("from top import Point\nreturn Point(3).x", 3),
    ("import os.path, json\nreturn json.dumps(os.path.sep)", '"/"'),
    ("import top, top as again\nreturn top is again", True),
]


@pytest.mark.parametrize(("text", "value"), IMPORTS)
def test_import_finds_required_modules_and_installed_ones(text: str, value: object) -> None:
    assert call(text, LIB) == value


def test_modules_are_those_of_one_run() -> None:
    text = "import lib.base\nlib.base.FACTOR += 1\nreturn lib.base.FACTOR"
    assert (call(text, LIB), call(text, LIB)) == (3, 3)


def test_module_that_is_not_required_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match="lib"):
        call("import lib.calc")


def requiring(*names: str) -> StoredCode:
    return stored("", requires=list(names))


def test_missing_modules_are_asked_for_level_by_level() -> None:
    start = requiring("a", "b")
    known: dict[Path, StoredCode] = {}
    assert missing_modules(start, known) == [P("a"), P("b")]
    known |= {P("a"): requiring("c"), P("b"): requiring("c", "a")}
    assert missing_modules(start, known) == [P("c")]
    known[P("c")] = requiring()
    assert missing_modules(start, known) == []


def test_cycle_of_modules_is_named() -> None:
    known = {P("a"): requiring("b"), P("b"): requiring("c"), P("c"): requiring("b")}
    with pytest.raises(JobFailed, match="require each other: b -> c -> b"):
        missing_modules(requiring("a"), known)


# --- installed ----------------------------------------------------------------------------------


def test_installed_procedures_are_found_by_name() -> None:
    assert {"host", "onewire"} <= set(installed_names())


def test_procedure_that_is_not_installed_is_named_with_those_that_are() -> None:
    with pytest.raises(CodeMissing, match=r"@nothing failed: it is not installed.*@host"):
        load_installed("nothing")
