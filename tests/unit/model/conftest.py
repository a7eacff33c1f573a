"""What hypothesis draws where a test of this floor asks for a path, a stamp or an entry."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st

from kvedge.limits import CHAIN_LINKS_MAX
from kvedge.model.entry import TICK_MAX, Entry
from kvedge.model.path import Path
from kvedge.model.stamp import TOCK_MAX, Dot, Rid
from kvedge.model.value import MISSING

# The characters that the text form treats in a special way, more often than chance would have it.
_TEXTS = st.text(".:_ 't1\0\x01\x08ÿ", max_size=6) | st.text(max_size=12)
_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.integers(-(1 << 200), 1 << 200),
    st.sampled_from((0.0, 1.0, float("inf"), float("-inf"))),
    st.floats(allow_nan=False).map(lambda number: number + 0.0),  # no -0.0, which becomes 0.0
    st.binary(max_size=20),
    _TEXTS,
)
_ELEMENTS = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=6
)
_PATHS = st.lists(_ELEMENTS, max_size=5).map(tuple)
st.register_type_strategy(Path, _PATHS.map(Path.of))

# Few nodes, incarnations and ticks, so that they meet.
_RIDS = st.builds(Rid, st.sampled_from("abcdef"), st.integers(1, 3))
_DOTS = st.builds(Dot, _RIDS, st.integers(1, 5) | st.integers(1, TICK_MAX))
st.register_type_strategy(Rid, _RIDS)
st.register_type_strategy(Dot, _DOTS)
_CHAINS = st.lists(
    _DOTS, min_size=1, max_size=CHAIN_LINKS_MAX, unique_by=lambda dot: dot.rid.node
).map(tuple)
_TOCKS = st.integers(1, 3) | st.integers(0, TOCK_MAX)
_VALUES = st.just(MISSING) | st.binary(min_size=1, max_size=8)
st.register_type_strategy(Entry, st.builds(Entry, tock=_TOCKS, chain=_CHAINS, value=_VALUES))


@pytest.fixture(scope="session")
def any_elements() -> st.SearchStrategy[tuple[Any, ...]]:
    """The elements of any path, as they were before a `Path` had them."""
    return _PATHS
