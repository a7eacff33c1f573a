"""Parts of messages: packed replies, chains as the other side sees them, shortened paths."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvedge.errors import BadRequest
from kvedge.model.path import Path
from kvedge.protocol.codec import (
    PathLengthener,
    PathShortener,
    chain_head,
    encode,
    packed_map,
    shown_chain,
    value_reply,
)

LINKS = st.lists(st.tuples(st.text("ab", min_size=1), st.integers(0, 1 << 62)), max_size=5)
FIELDS = st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=20)
INTEGERS = st.integers(-(1 << 63), (1 << 64) - 1)

# Elements that Python takes for equal, alone and inside of tuples.
ELEMENTS = st.sampled_from(
    ("a", "b", "", None, 1, True, 1.0, 0, False, 0.0, b"a", (1,), (True,), (1.0,), ((1,),), ())
)
PATHS = st.lists(st.lists(ELEMENTS, max_size=5).map(tuple), max_size=8)


@given(st.integers(1, 1 << 62), INTEGERS | st.text() | st.none(), st.integers(0, (1 << 63) - 1))
def test_value_reply_is_the_packed_map(seq: int, value: Any, tock: int) -> None:
    fields = {"seq": seq, "value": value, "tock": tock}
    assert value_reply(seq, encode(value), tock) == msgpack.packb(fields)


@given(st.dictionaries(st.text(max_size=3), INTEGERS, max_size=20), FIELDS.map(repr))
@example(dict.fromkeys(map(str, range(15)), 0), "")
@example(dict.fromkeys(map(str, range(14)), 0), "")
def test_packed_map_is_the_packed_dict(fields: dict[str, Any], text: str) -> None:
    raw = [("raw value", encode(text))]
    assert packed_map(fields, raw) == msgpack.packb(fields | {"raw value": text})
    assert packed_map(fields) == msgpack.packb(fields)


@given(LINKS)
def test_chain_head_is_the_first_shown_link(links: list[tuple[str, int]]) -> None:
    assert chain_head(shown_chain(links, -1)) == (links[0] if links else None)
    assert chain_head(shown_chain(links, 1)) == (links[0] if links else None)


@given(LINKS, st.integers(-1, 7))
def test_shown_chain_holds_as_many_links_as_asked_for(
    links: list[tuple[str, int]], count: int
) -> None:
    shown: Any = shown_chain(links, count)
    found = []
    while shown is not None:
        assert list(shown) == ["node", "tick", "prev"]
        found.append((shown["node"], shown["tick"]))
        shown = shown["prev"]
    assert found == (links if count < 0 else links[:count])


@pytest.mark.parametrize("chain", [None, {"node": None, "tick": None}, {}, {"prev": None}])
def test_no_chain(chain: Any) -> None:
    assert chain_head(chain) is None


@pytest.mark.parametrize(
    "chain",
    [
        *(1, "a", b"a", (), ("a", 1), True),
        {"node": "a"},
        {"tick": 1},
        {"node": 1, "tick": 1},
        {"node": b"a", "tick": 1},
        {"node": "a", "tick": "1"},
        {"node": "a", "tick": 1.0},
        {"node": "a", "tick": True},
        {"node": "a", "tick": -1},
        {"node": "a", "tick": 1 << 100_000},
        {"node": "\udcff", "tick": 1},
        {"prev": {"node": "a", "tick": 1}},
    ],
    ids=lambda chain: ascii(type(chain)),
)
def test_what_is_no_chain(chain: Any) -> None:
    with pytest.raises(BadRequest, match="a chain is a map with node, tick and prev"):
        chain_head(chain)


@given(PATHS)
@example([(1,), (True,), (1.0,)])
@example([((1,),), ((True,),), ((1.0,),)])
@example([("a", 0, "b"), ("a", False, "b"), ("a", 0.0)])
def test_lengthening_undoes_shortening(paths: list[tuple[Any, ...]]) -> None:
    shortener, lengthener = PathShortener(), PathLengthener()
    for path in paths:
        depth, tail = shortener.shorten(path)
        assert repr(lengthener.lengthen(depth, tail)) == repr(Path(*path))


def test_what_is_common_is_left_out() -> None:
    shortener = PathShortener()
    assert shortener.shorten(("a", 1, "c")) == (0, ("a", 1, "c"))
    assert shortener.shorten(("a", 1, "d")) == (2, ("d",))
    assert shortener.shorten(("a", 1)) == (2, ())
    assert shortener.shorten(("a", True)) == (1, (True,))
    assert shortener.shorten(()) == (0, ())
