"""The text of paths: the tutorial's table, what is refused and how, parse and print."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given

from kvedge import limits
from kvedge.errors import BadPath, LimitExceeded
from kvedge.model.path import P, Path, parse, print_element

INT_MAX = (1 << limits.INTEGER_MAX_BITS) - 1
INFINITY = float("inf")

# The one printed form of each, and the elements.
CANONICAL: list[tuple[str, tuple[Any, ...]]] = [
    (":", ()),
    ("a", ("a",)),
    ("a.b", ("a", "b")),
    # escapes inside an element
    ("a:.b", ("a.b",)),
    ("a::b", ("a:b",)),
    ("a:_b", ("a b",)),
    ("a_b", ("a_b",)),
    (":..::.:_", (".", ":", " ")),
    # elements of their own
    (":t", (True,)),
    (":f", (False,)),
    (":n", (None,)),
    (":e", ("",)),
    (":123", (123,)),
    (":-123", (-123,)),
    (":1:.5", (1.5,)),
    (":-1:.5", (-1.5,)),
    (":1:.0", (1.0,)),
    (":1e+22", (1e22,)),
    (":1e999", (INFINITY,)),
    (":-1e999", (-INFINITY,)),
    (":vabc", (b"abc",)),
    (":va:.b::", (b"a.b:",)),
    (":v", (b"",)),
    (":y00ff", (b"\0\xff",)),
    (":y612062", (b"a b",)),
    (":(1,2)", ((1, 2),)),
    (":(1,)", ((1,),)),
    (":()", ((),)),
    (":(1,(True,None),'a:.b',b'::',1:.5,1e999)", ((1, (True, None), "a.b", b":", 1.5, INFINITY),)),
    (":('\\x00\\n\\u20ac',)", (("\0\n€",),)),
    # one after another
    ("a.:1.:t", ("a", 1, True)),
    ("a.:1.:t.:n", ("a", 1, True, None)),
    ("e.:e.z", ("e", "", "z")),
    (":n.auth", (None, "auth")),
    (":.kv.code.proc", (".kv", "code", "proc")),
    ("sensor.box:.1.temp:_out", ("sensor", "box.1", "temp out")),
    # nothing else is special
    ("123", ("123",)),
    ("-1", ("-1",)),
    ("true", ("true",)),
    ("a/b#+$*", ("a/b#+$*",)),
    ("Grün.\U0001f321", ("Grün", "\U0001f321")),
    ("a\0b\n", ("a\0b\n",)),
    (":__import__('os')", (" _import__('os')",)),
]

# Other spellings that are read.
READ: list[tuple[str, tuple[Any, ...]]] = [
    ("a:1:t", ("a", 1, True)),
    ("a:1.:t", ("a", 1, True)),
    ("e:e.z", ("e", "", "z")),
    (":1:2", (1, 2)),
    ("a:n:n", ("a", None, None)),
    ("a:.b:1", ("a.b", 1)),
    ("a b", ("a b",)),
    (":x1f", (31,)),
    (":xFF", (255,)),
    (":x-1", (-1,)),
    (":b101", (5,)),
    (":0x1f", (31,)),
    (":1_000", (1000,)),
    (":007", (7,)),
    (":yAB", (b"\xab",)),
    (":y", (b"",)),
    (":'a:.b'", ("a.b",)),
    (":True", (True,)),
    (":None", (None,)),
    (":-0:.0", (0.0,)),
    (":(1,:_2)", ((1, 2),)),
    (":(-0:.0,)", ((0.0,),)),
    (":" + "(" * 150 + ")" * 150, ((),)),
]

# What is refused, and a word of what the message must say.
REFUSED = [
    ("", "empty path is written ':'"),
    (".", "write ':e'"),
    ("a.", "ends with a dot"),
    (".a", "an element is empty"),
    ("a..b", "an element is empty"),
    ("a:", "write '::'"),
    ("a.:", "write '::'"),
    (":.a:", "write '::'"),
    (":q", "neither an escape nor a literal"),
    (":true", "neither an escape nor a literal"),
    ("a:b", "digits that do not fit"),
    (":b2", "digits that do not fit"),
    (":b", "digits that do not fit"),
    (":x", "digits that do not fit"),
    (":xyz", "digits that do not fit"),
    (":x1_f", "digits that do not fit"),
    (":x:_1", "digits that do not fit"),
    (":x--1", "digits that do not fit"),
    (":y0", "digits that do not fit"),
    (":y0:_0", "digits that do not fit"),
    (":yzz", "digits that do not fit"),
    (":vé", "digits that do not fit"),
    (":1:.2:.3", "neither an escape nor a literal"),
    (":1+", "neither an escape nor a literal"),
    (":nan", "neither an escape nor a literal"),
    (":1e999-1e999", "neither an escape nor a literal"),
    (":[1]", "list cannot be part of a path"),
    (":{1}", "set cannot be part of a path"),
    (":{}", "dict cannot be part of a path"),
    (":1j", "complex cannot be part of a path"),
    (":(1,[2])", "list cannot be part of a path"),
    (":'\\ud800'", "not valid Unicode"),
    ("\udcff", "not valid Unicode"),
    ("a:1.\udcff", "not valid Unicode"),
    (":'\udcff'", "neither an escape nor a literal"),
    (":'\0'", "neither an escape nor a literal"),
]

CODE = [
    ":(__import__('os'))",
    ":(__import__('os'):.abort())",
    ":open('/etc/passwd'):.read()",
    ":print(1)",
    ":exit()",
    ":(lambda::_1)()",
    ":[x:_for:_x:_in:_(1,2)]",
    ":(1:_if:_1:_else:_2)",
    ":f'{exit()}'",
    ":1:_if:_exit():_else:_2",
    ":2**999999999",
    ":'a'*999999999",
    ":(1)(2)",
]


@pytest.mark.parametrize(("text", "elements"), CANONICAL + READ)
def test_text_is_read(text: str, elements: tuple[Any, ...]) -> None:
    assert repr(P(text).elements) == repr(elements)


@pytest.mark.parametrize(("text", "elements"), CANONICAL)
def test_elements_are_printed(text: str, elements: tuple[Any, ...]) -> None:
    assert str(Path(*elements)) == text


@pytest.mark.parametrize(("text", "elements"), READ)
def test_other_spelling_is_not_printed(text: str, elements: tuple[Any, ...]) -> None:
    assert str(P(text)) != text
    assert P(str(P(text))) == P(text)


@pytest.mark.parametrize(("text", "why"), REFUSED)
def test_bad_text_is_named_with_the_way_out(text: str, why: str) -> None:
    with pytest.raises(BadPath) as caught:
        P(text)
    assert why in str(caught.value)
    str(caught.value).encode()  # can be shown whatever the text was


@pytest.mark.parametrize(
    "text", [text for text, why in REFUSED if "literal" in why and text.isprintable()]
)
def test_bad_text_is_shown_whole(text: str) -> None:
    with pytest.raises(BadPath) as caught:
        P(text)
    assert caught.value.text == text


@pytest.mark.parametrize("code", CODE)
def test_code_is_never_run(code: str) -> None:
    with pytest.raises(BadPath):
        P(code)


@pytest.mark.parametrize(
    "text",
    [
        ":" + "(" * 5000,
        ":" + "(" * 99 + "1" + ",)" * 99,
        ":" + "-" * 5000 + "1",
        ":" + "1+" * 2500 + "1",
        ":" + "not:_" * 1500 + "1",
        ":" + "[" * 2500,
        ":" + "lambda::" * 600 + "1",
        ":" + "9" * 5000,
        ":x" + "f" * 5000,
        ":" + "1" * 700,
        ".".join("a" * 100),
        "a" * 2100,
        "a" * 1_000_000,
        ":" * 1_000_000,
    ],
    ids=lambda text: f"{text[:6]}-{len(text)}",
)
def test_long_and_deep_text_is_refused(text: str) -> None:
    with pytest.raises((BadPath, LimitExceeded)) as caught:
        P(text)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "elements",
    [
        ("a" * (limits.PATH_MAX_BYTES - 2),),
        ("." * (limits.PATH_MAX_BYTES - 2),),
        (("\x01" * (limits.PATH_MAX_BYTES - 4),),),
        ((*(False,) * 62, "\x01" * (limits.PATH_MAX_BYTES - 66)),),
        (b"\0" * 1000,),
        (INT_MAX, -INT_MAX),
        ((INT_MAX, -INT_MAX),),
        (5e-324, -1.7976931348623157e308),
    ],
    ids=str,
)
def test_longest_path_is_read_back(elements: tuple[Any, ...]) -> None:
    path = Path(*elements)
    assert P(str(path)) == path


@given(...)
@example(Path((1, True, 1.0), 1, True, 1.0))
def test_print_and_parse_are_inverse(path: Path) -> None:
    assert repr(parse(str(path))) == repr(path.elements)
    assert P(str(path)) == path
    assert str(P(str(path))) == str(path)


@given(...)
def test_repr_can_be_typed_in(path: Path) -> None:
    assert eval(repr(path), {"P": P}) == path  # noqa: S307 -- that is what a repr is for


@given(...)
def test_printed_element_stands_alone(path: Path) -> None:
    printed = [print_element(element) for element in path]
    assert all(repr(parse(text)) == repr((e,)) for text, e in zip(printed, path, strict=True))


@given(...)
def test_any_text_is_a_path_or_refused(text: str) -> None:
    try:
        path = P(text)
    except (BadPath, LimitExceeded):
        return
    assert P(str(path)) == path
