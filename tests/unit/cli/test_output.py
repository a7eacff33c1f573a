"""Values as YAML and JSON: tables of cases, and that readers get back what was printed."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kvedge.cli.changes import from_json
from kvedge.cli.output import Pairs, Tree, to_json, to_yaml, yaml_item
from kvedge.model.path import P, Path

YAML_CASES: list[tuple[object, str]] = [
    ("Testing", '"Testing"'),
    ('a "b" \\', '"a \\"b\\" \\\\"'),
    ("two\nlines", '"two\\nlines"'),
    ("", '""'),
    ("Grün 🌱", '"Grün 🌱"'),
    ("\x00\x7f\u2028\U000e0001", '"\\0\\x7f\\u2028\\U000e0001"'),
    (123, "123"),
    (2**80, "1208925819614629174706176"),
    (1.5, "1.5"),
    (1e16, "1.0e+16"),
    (1.25e-7, "1.25e-07"),
    (math.inf, ".inf"),
    (-math.inf, "-.inf"),
    (math.nan, ".nan"),
    (None, "null"),
    (True, "true"),
    (b"\x00\xff", "!!binary |\n  AP8="),
    (b"", '!!binary ""'),
    ({}, "{}"),
    ([], "[]"),
    ({"one": 1, "two": "XXX"}, "one: 1\ntwo: XXX"),
    ({"one": {"two": {}}, "three": []}, "one:\n  two: {}\nthree: []"),
    ({"_": {"one": [1, [2, 3], {"a": 1, "b": 2}]}}, (
        "_:\n  one:\n    - 1\n    - - 2\n      - 3\n    - a: 1\n      b: 2"
    )),
    ({1: "a", 1.5: "b", None: "c", False: "d", "1": "e"}, (
        "1: a\n1.5: b\nnull: c\nfalse: d\n'1': e"
    )),
    (Pairs([(1, "int"), (True, "bool"), (1.0, "float"), ("1", "text"), ((1, "a"), "tuple")]), (
        '1: int\ntrue: bool\n1.0: float\n\'1\': text\n[1, "a"]: tuple'
    )),
    ({b"key": 1}, '!!binary "a2V5": 1'),
    ({"code": "print(1)\nreturn 2\n"}, "code: |\n  print(1)\n  return 2"),
    ({"code": "a:\n  b\n\nc"}, "code: |-\n  a:\n    b\n\n  c"),
    ({"code": " a\nb"}, 'code: " a\\nb"'),
    ({"code": "a\n\n"}, 'code: "a\\n\\n"'),
    (["a\nb"], "- |-\n  a\n  b"),
    ({"where": P("a.:1.:t")}, "where: a.:1.:t"),
    ({"k" * 900: [1, 2]}, f"? {'k' * 900}\n: - 1\n  - 2"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "printed"), YAML_CASES)
def test_yaml(value: object, printed: str) -> None:
    assert to_yaml(value) == printed + "\n"


PLAIN = ["XXX", "two words", "x", "_", "a:b", "a#b", "http://x/y?z=1", "it's", "Nullable", "/dev/x"]
QUOTED = ["", "null", "Null", "~", "true", "yes", "No", "on", "OFF", "y", "12.3", "1e3", "0x1f"]
QUOTED += ["1_000", "12:30:45", "2024-01-01", ".5", ".inf", "-1", "- a", "a: b", "a #b", "a:", "a "]
QUOTED += [
    " a",
    "[a",
    "{a",
    "*a",
    "&a",
    "!a",
    "%a",
    "@a",
    "`a",
    "'a",
    '"a',
    "|",
    ">",
    "?",
    "=",
    "<<",
]


@pytest.mark.parametrize("text", PLAIN)
def test_yaml_text_stands_plain(text: str) -> None:
    assert to_yaml([text]) == f"- {text}\n"


@pytest.mark.parametrize("text", QUOTED)
def test_yaml_text_is_quoted(text: str) -> None:
    quoted = text.replace("'", "''")
    assert to_yaml({text: text}) == f"'{quoted}': '{quoted}'\n"


def test_yaml_items_make_one_list() -> None:
    values: list[object] = [{"path": "a", "value": [1]}, 2, "three"]
    assert yaml.safe_load("".join(map(yaml_item, values))) == values


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.text(alphabet="ab \n:#-'\"0.", max_size=12)
    | st.sampled_from(PLAIN + QUOTED)
    | st.binary(max_size=80)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(SCALARS, inner), max_leaves=12
)


def typed(value: Any) -> object:
    """Return a form that tells apart what Python calls equal."""
    if isinstance(value, dict):
        return [(typed(key), typed(item)) for key, item in value.items()]
    if isinstance(value, list):
        return [typed(item) for item in value]
    return (type(value), value)


@given(VALUES)
def test_yaml_is_read_back(value: object) -> None:
    assert typed(yaml.safe_load(to_yaml(value))) == typed(value)
    assert typed(yaml.safe_load(yaml_item(value))) == typed([value])


JSON_CASES: list[tuple[object, str]] = [
    ('a"\\\n\x01é🌱', '"a\\"\\\\\\n\\u0001é🌱"'),
    (b"\x00\xff", '{"$bytes": "AP8="}'),
    ({"a": [1, 1.5, True, None]}, '{"a": [1, 1.5, true, null]}'),
    ({1: "a", "b": 2}, '{"$map": [[1, "a"], ["b", 2]]}'),
    ({"$bytes": "x"}, '{"$map": [["$bytes", "x"]]}'),
    ({"$a": 1, "$b": 2}, '{"$a": 1, "$b": 2}'),
    (2**60, "1152921504606846976"),
    (math.nan, '{"$float": "nan"}'),
    (-math.inf, '{"$float": "-inf"}'),
    (Pairs([("a", 1)]), '{"a": 1}'),
    (P("a:.b.:1"), '"a:.b.:1"'),
]


@pytest.mark.parametrize(("value", "printed"), JSON_CASES)
def test_json(value: object, printed: str) -> None:
    assert to_json(value) == printed


@given(VALUES)
def test_json_is_read_back(value: object) -> None:
    assert typed(from_json(json.loads(to_json(value)))) == typed(value)


ELEMENTS = st.sampled_from([1, True, 1.0, "1", "a", None, b"a", 0, False, (1,), (True,)])


@given(st.dictionaries(st.lists(ELEMENTS, max_size=3).map(Path.of), st.integers()))
def test_tree_keeps_every_value(values: dict[Path, int]) -> None:
    tree = Tree()
    for path, value in values.items():
        tree.place(path).put(value)

    def leaves(pairs: Pairs, at: Path) -> dict[Path, object]:
        found: dict[Path, object] = {}
        for name, item in pairs.items:
            if isinstance(item, Pairs):
                found |= leaves(item, at + Path.of([name]))  # type: ignore[list-item]  # an element
            else:
                assert name == "_"
                found[at] = item
        return found

    assert leaves(tree.nested("_"), Path()) == values


def test_tree_knows_the_names_in_it() -> None:
    tree = Tree()
    tree.place(P("a.b.:1")).put(0)
    assert tree.has_child("b")
    assert not tree.has_child("1")
