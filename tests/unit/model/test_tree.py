"""The tree against a plain dict: what is stored, walks that pause, children, counts."""

from __future__ import annotations

from bisect import insort

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kvedge.model import tree as tree_module
from kvedge.model.entry import is_live, join
from kvedge.model.path import EMPTY, SYSTEM, P, Path
from kvedge.model.tree import SortedKeys, Tree
from kvedge.model.value import MISSING

LIVE = join(1, (1,), b"\x01")
OTHER = join(2, (2,), b"\x02")
TOMBSTONE = join(3, (3,), MISSING)

KEYS = st.binary(min_size=1, max_size=2)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let blocks split where a test has a few keys, not thousands."""
    monkeypatch.setattr(tree_module, "_BLOCK_MAX", 4)


def tree_of(*texts: str) -> Tree:
    tree = Tree()
    for text in texts:
        tree.put(P(text).key, LIVE)
    return tree


def shown(keys: list[bytes]) -> list[str]:
    return [str(Path.from_key(key)) for key in keys]


# --- sorted keys -----------------------------------------------------------------------------


class SortedKeysMachine(RuleBasedStateMachine):
    """Any adding and removing, beside a sorted list."""

    def __init__(self) -> None:
        super().__init__()
        self.keys = SortedKeys()
        self.model: list[bytes] = []

    @rule(key=KEYS)
    def add(self, key: bytes) -> None:
        if key not in self.model:
            self.keys.add(key)
            insort(self.model, key)

    @rule(keys=st.sets(KEYS))
    @precondition(lambda self: not self.model)
    def extend(self, keys: set[bytes]) -> None:
        self.model = sorted(keys)
        self.keys.extend_sorted(self.model.copy())

    @rule(data=st.data())
    @precondition(lambda self: self.model)
    def remove(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.model))
        self.keys.remove(key)
        self.model.remove(key)

    @rule(start=KEYS | st.just(b""), end=KEYS, count=st.integers(0, 20))
    def slice(self, start: bytes, end: bytes, count: int) -> None:
        wanted = [key for key in self.model if start <= key < end][:count]
        assert self.keys.slice(start, end, count) == wanted

    @invariant()
    def blocks_are_as_promised(self) -> None:
        blocks, firsts = self.keys._blocks, self.keys._firsts
        assert [key for block in blocks for key in block] == self.model
        assert all(blocks) or len(blocks) == 1
        assert all(len(block) <= tree_module._BLOCK_MAX for block in blocks)
        assert firsts == [block[0] if block else b"" for block in blocks]


def test_sorted_keys_are_a_sorted_list() -> None:
    run = settings(max_examples=60, stateful_step_count=40)
    SortedKeysMachine.TestCase.settings = run
    SortedKeysMachine.TestCase().runTest()


# --- the tree --------------------------------------------------------------------------------

# A few elements whose keys are close to each other, so that places meet and nest.
ELEMENTS = st.sampled_from(("a", "a\0", "b", "", 1, True, 1.0, None, b"a", ("a",)))
PATHS = st.lists(ELEMENTS, max_size=3).map(Path.of)


class Walk:
    """One reader of a subtree, which pauses after each piece."""

    def __init__(self, top: Path, at_start: set[Path]) -> None:
        self.top = top
        self.stayed = at_start  # was there from the start until now
        self.seen: list[Path] = []
        self.after: bytes | None = None
        self.ended = False


class TreeMachine(RuleBasedStateMachine):
    """Writers and one walking reader, beside a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = Tree()
        self.model: dict[Path, bytes] = {}
        self.walk: Walk | None = None

    def below(self, top: Path) -> list[Path]:
        """Return what a walk from a path shall see."""
        is_root = top == EMPTY
        return [p for p in sorted(self.model) if p.is_below(top) and not (is_root and p.is_system)]

    @rule(path=PATHS, packed=st.sampled_from((LIVE, OTHER, TOMBSTONE)))
    def put(self, path: Path, packed: bytes) -> None:
        self.tree.put(path.key, packed)
        self.model[path] = packed

    @rule(data=st.data())
    @precondition(lambda self: self.model)
    def drop(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted(self.model)))
        self.tree.drop(path.key)
        del self.model[path]
        if self.walk:
            self.walk.stayed.discard(path)

    @rule(path=PATHS)
    def get(self, path: Path) -> None:
        assert self.tree.get(path.key) == self.model.get(path)

    @rule(top=PATHS)
    def walk_begins(self, top: Path) -> None:
        self.walk = Walk(top, set(self.below(top)))

    @rule(count=st.integers(1, 4))
    @precondition(lambda self: self.walk and not self.walk.ended)
    def walk_goes_on(self, count: int) -> None:
        walk = self.walk
        assert walk is not None
        piece = self.tree.walk(walk.top.key, after=walk.after, count=count)
        seen = [Path.from_key(key) for key in piece]
        coming = [path for path in self.below(walk.top) if not walk.seen or path > walk.seen[-1]]
        assert seen == coming[:count]
        walk.seen += seen
        walk.ended = len(piece) < count
        walk.after = piece[-1] if piece else walk.after
        if walk.ended:
            assert walk.stayed <= set(walk.seen)
            assert walk.seen == sorted(set(walk.seen))

    @rule(top=PATHS, count=st.integers(1, 3))
    def children(self, top: Path, count: int) -> None:
        wanted = sorted({p[: len(top) + 1] for p in self.below(top) if p != top})
        found: list[bytes] = []
        for _ in range(len(self.model) + 1):
            piece = self.tree.children(top.key, after=found[-1] if found else None, count=count)
            found += piece
            if len(piece) < count:
                break
        assert shown(found) == [str(path) for path in wanted]

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.tree) == len(self.model)
        assert self.tree.live_count == sum(map(is_live, self.model.values()))


def test_tree_is_a_dict_in_order() -> None:
    TreeMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40)
    TreeMachine.TestCase().runTest()


@given(st.dictionaries(PATHS, st.sampled_from((LIVE, TOMBSTONE))))
def test_filled_tree_is_the_one_put_together(entries: dict[Path, bytes]) -> None:
    filled, put = Tree(), Tree()
    filled.fill({path.key: packed for path, packed in entries.items()})
    for path, packed in entries.items():
        put.put(path.key, packed)
    assert sorted(filled.items()) == sorted(put.items())
    assert (len(filled), filled.live_count) == (len(put), put.live_count)
    for top in (EMPTY, SYSTEM):
        assert filled.walk(top.key, count=99) == put.walk(top.key, count=99)
    filled.put(P("new").key, LIVE)
    assert P("new").key in filled.walk(EMPTY.key, count=99)


def test_walk_comes_to_a_place_before_what_is_below_it() -> None:
    tree = tree_of("a.b", "b", "a", "a.b.c", "a.:1", ":")
    assert shown(tree.walk(b"", count=9)) == [":", "a", "a.:1", "a.b", "a.b.c", "b"]
    assert shown(tree.walk(P("a").key, count=9)) == ["a", "a.:1", "a.b", "a.b.c"]
    assert shown(tree.walk(P("a").key, after=P("a.b").key, count=9)) == ["a.b.c"]


def test_root_leaves_out_system_data() -> None:
    tree = tree_of(":n.auth.joe", ":n", "a", ":t", "a.:n.b")
    assert shown(tree.walk(b"", count=9)) == [":t", "a", "a.:n.b"]
    assert shown(tree.children(b"", count=9)) == [":t", "a"]
    assert shown(tree.walk(SYSTEM.key, count=9)) == [":n", ":n.auth.joe"]
    assert shown(tree.children(SYSTEM.key, count=9)) == [":n.auth"]
    assert len(tree.items()) == 5


def test_children_include_what_is_only_passed_through() -> None:
    tree = tree_of("a.b.c", "a.d", "a.b", "a.:(1,2).x")
    assert shown(tree.children(P("a").key, count=9)) == ["a.b", "a.d", "a.:(1,2)"]


def test_only_an_empty_tree_is_filled() -> None:
    with pytest.raises(AssertionError):
        tree_of("a").fill({})
